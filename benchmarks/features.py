"""Features learned so that their clusters fit a few labels, beside fixed features and k-means.

A linear map takes standardized measurements to two numbers for each row; EM fits one Gaussian for
each class to all rows, labels or none; what is minimized is minus the mean log responsibility of
the right component at the labeled rows. EM starts at the means of the labeled rows, and that start
counts as as many points as they are. The gradient is that of the fixed point ("implicit"), of the
last step of EM alone ("one step"), or the fit is taken as a constant ("fit held"). All start at
the first two principal components.

Beside them: k-means on the measurements and EM on the principal components, which know no labels
but the number of classes, and two classifiers that know the labeled rows alone. A score is the
adjusted Rand index of the rows without a label. Where a fit has no gradient, training ends there,
and the row says after how many steps. Ten draws of the labeled rows; for each data set, with two
numbers of labels. Learning rate and number of steps are the same for all, and were set after a
look at six draws of five labels a class.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from sklearn import datasets
from sklearn.cluster import KMeans
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

import gmmedu
from gmmedu import mixture
from gmmedu.values import State

DRAWS, STEPS, RATE = 10, 40, 0.03
FULL = gmmedu.MODELS["full"].family
DATA = {
    "iris": datasets.load_iris,
    "wine": datasets.load_wine,
    "breast cancer": datasets.load_breast_cancer,
}
LABELS = (5, 10)
LEARNED = {"implicit": "implicit", "one step": "one_step", "fit held": "one_step"}


@dataclass(frozen=True)
class Row:
    """The score of a method, with ``labels`` labels of each class, at one draw of them; steps: of
    training, 0 where there is none."""

    data: str
    labels: int
    method: str
    draw: int
    score: float
    steps: int

    def record(self) -> dict[str, Any]:
        return asdict(self)


def load(name: str) -> tuple[Tensor, Tensor]:
    """Standardized measurements (N, P) and classes (N,)."""
    x, y = (torch.tensor(part) for part in DATA[name](return_X_y=True))
    x = x.double()
    return (x - x.mean(0)) / x.std(0), y


def draw(y: Tensor, labels: int, seed: int) -> Tensor:
    """Rows that have a label, those of a class together: (K labels,)."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for k in range(int(y.max()) + 1):
        own = (y == k).nonzero().flatten()
        rows.append(own[torch.randperm(len(own), generator=generator)[:labels]])
    return torch.cat(rows)


def principal(x: Tensor) -> Tensor:
    """The map to the first two principal components."""
    return torch.linalg.svd(x, full_matrices=False).Vh.mT[:, :2]


def unit(z: Tensor) -> Tensor:
    """Features (..., N, 2), centered and of unit size."""
    z = z - z.mean(-2, keepdim=True)
    return z / z.square().mean((-2, -1), keepdim=True).sqrt()


def start(z: Tensor, rows: Tensor, num_classes: int) -> State:
    """Equal weights, the means of the labeled rows (S, R), a quarter of the identity."""
    labeled = z.gather(1, rows.unsqueeze(-1).expand(-1, -1, 2))
    means = labeled.unflatten(1, (num_classes, -1)).mean(2)
    weights = torch.full_like(means[..., 0], 1 / num_classes)
    covariances = 0.25 * torch.eye(2, dtype=z.dtype).expand(*means.shape, 2)
    return gmmedu.MixtureDistribution.of(weights, means, covariances, FULL).state


def fitted(z: Tensor, rows: Tensor, num_classes: int, gradient: Any = "implicit") -> State:
    options: dict[str, Any] = {"tolerance": 1e-4, "num_iterations": 300}
    given = start(z, rows, num_classes)
    prior = rows.shape[1]
    return gmmedu.em_fixed_point(given, z, FULL, prior_points=prior, gradient=gradient, **options)


def losses(x: Tensor, a: Tensor, rows: Tensor, classes: Tensor, method: str) -> Tensor:
    """Of each draw, (S,). Raises ``RuntimeError`` where a fit has no gradient."""
    z, num_classes = unit(x @ a), int(classes.max()) + 1
    given = z.detach() if method == "fit held" else z
    state = fitted(given, rows, num_classes, LEARNED[method])
    labeled = z.gather(1, rows.unsqueeze(-1).expand(-1, -1, 2))
    log_r = mixture.log_joint(FULL, state, labeled).log_softmax(1)
    return -log_r.gather(1, classes.expand(len(rows), 1, -1)).mean((1, 2))


def learn(
    x: Tensor, rows: Tensor, classes: Tensor, method: str, steps: int
) -> tuple[Tensor, list[int]]:
    """The components of all rows, (S, N), and after how many steps; all draws (S, R) at once."""
    maps = principal(x).repeat(len(rows), 1, 1)
    maps = (maps / (x @ maps).std((1, 2), keepdim=True)).requires_grad_()
    optimizer = torch.optim.Adam([maps], RATE)
    going, made = list(range(len(rows))), [steps] * len(rows)
    for step in range(steps):
        try:
            loss = losses(x, maps[going], rows[going], classes, method).sum()
        except RuntimeError:
            for draw in list(going):
                try:
                    losses(x, maps[draw, None], rows[draw, None], classes, method)
                except RuntimeError:
                    going.remove(draw)
                    made[draw] = step
            loss = losses(x, maps[going], rows[going], classes, method).sum()
        optimizer.zero_grad()
        loss.backward()
        kept = maps.detach().clone()
        optimizer.step()
        with torch.no_grad():
            done = [draw for draw in range(len(rows)) if draw not in going]
            maps[done] = kept[done]
    with torch.no_grad():
        z = unit(x @ maps)
        state = fitted(z, rows, int(classes.max()) + 1)
        return mixture.log_joint(FULL, state, z).argmax(1), made


def fixed(x: Tensor, rows: Tensor, classes: Tensor, seed: int) -> Iterator[tuple[str, Any]]:
    """What the others make of the same rows."""
    num_classes = int(classes.max()) + 1
    z = x @ principal(x)
    yield "k-means", KMeans(num_classes, n_init=10, random_state=seed).fit_predict(x.numpy())
    model = gmmedu.GmmFull(num_classes, 2, dtype=x.dtype)
    gmmedu.fit_best(model, z, 10, generator=torch.Generator().manual_seed(seed))
    yield "EM, 2 principal", model.predict(z)
    known = x[rows].numpy(), classes.numpy()
    yield "logistic", LogisticRegression(max_iter=1000).fit(*known).predict(x.numpy())
    shrunk = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto")
    yield "LDA, shrunk", shrunk.fit(*known).predict(x.numpy())


def score(y: Tensor, rows: Tensor, labeled: Any) -> float:
    """The adjusted Rand index of the rows without a label, to four digits."""
    rest = torch.ones(len(y), dtype=torch.bool).index_fill(0, rows, False)
    return round(float(adjusted_rand_score(y[rest], labeled[rest.numpy()])), 4)


def run(quick: bool = False) -> Iterator[Row]:
    draws = 2 if quick else DRAWS
    for name in DATA:
        x, y = load(name)
        for labels in LABELS:
            rows = torch.stack([draw(y, labels, seed) for seed in range(draws)])
            classes = torch.arange(int(y.max()) + 1).repeat_interleave(labels)
            found: dict[str, tuple[list[Any], list[int]]] = {}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for seed in range(draws):
                    for method, labeled in fixed(x, rows[seed], classes, seed):
                        found.setdefault(method, ([], [0] * draws))[0].append(labeled)
                for method in LEARNED:
                    learned, made = learn(x, rows, classes, method, 2 if quick else STEPS)
                    found[method] = list(learned), made
            for method, (all_of, steps) in found.items():
                for seed, labeled in enumerate(all_of):
                    index = score(y, rows[seed], labeled)
                    yield Row(name, labels, method, seed, index, steps[seed])
