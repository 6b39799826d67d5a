"""Mixtures as classifiers, one for each class and Bayes' rule, beside four standard ones.

Stratified ten-fold cross-validation, the same folds for all methods, five shuffles. Whatever is
learned from the data is learned inside the fold: standardization on iris, wine and the tumors,
thirty principal components on the digits. A mixture is the best of five starts for each class; its
family and its number of components are those of the name, in every class. The others have
scikit-learn's defaults, but one neighbor in place of five. Nothing was tuned. An error is the share
of all rows that are told wrong by the fit that has not seen them; beside it stands the error, on
its own rows, of the fits themselves. Of mixtures also the mean of -log p(x | class) on the rows not
seen, each under its own class, and how many of the fits ended on the floor.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn import datasets
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import gmmedu
from gmmedu.singularities import Mitigation

Array = NDArray[Any]
FOLDS, SHUFFLES, STARTS = 10, 5, 5
DATA: dict[str, tuple[Callable[..., Any], Callable[[], Any]]] = {
    "iris": (datasets.load_iris, StandardScaler),
    "wine": (datasets.load_wine, StandardScaler),
    "tumors": (datasets.load_breast_cancer, StandardScaler),
    "digits": (datasets.load_digits, lambda: PCA(30)),
}
_FLOOR = gmmedu.Clamp()
#: Family, number of components and mitigation for each class.
MIXTURES: dict[str, tuple[str, int, Mitigation]] = {
    "full 1": ("full", 1, _FLOOR),
    "full 2": ("full", 2, _FLOOR),
    "full 2, prior": ("full", 2, gmmedu.Prior()),
    "tied 3": ("tied", 3, _FLOOR),
    "diagonal 1": ("diagonal", 1, _FLOOR),
    "diagonal 3": ("diagonal", 3, _FLOOR),
}
STANDARD: dict[str, Callable[[], Any]] = {
    "SVM": SVC,
    "neighbor": lambda: KNeighborsClassifier(1),
    "logistic": lambda: LogisticRegression(max_iter=10_000),
    "LDA": LinearDiscriminantAnalysis,
}


@dataclass(frozen=True)
class Row:
    """Shares of wrong answers in one shuffle: on held-out rows, and on those fitted to.

    Of mixtures, ``nll``: mean of -log p(x | class) of held-out rows, in nats; ``on_floor``: the
    share of the fits that ended with a component on the floor.
    """

    data: str
    method: str
    shuffle: int
    error: float
    training: float
    nll: float | None = None
    on_floor: float | None = None

    def record(self) -> dict[str, Any]:
        return asdict(self)


class ByClass:
    """p(class | x) from a mixture for each class (eq-class-posterior)."""

    def __init__(self, family: str, num_components: int, mitigation: Mitigation, seed: int) -> None:
        self.family, self.num_components, self.seed = family, num_components, seed
        self.mitigation = mitigation
        self.models: list[gmmedu.GaussianMixture] = []
        self.on_floor: list[bool] = []

    def fit(self, x: Array, y: Array) -> ByClass:
        points, labels = torch.tensor(x), torch.tensor(y)
        self.log_prior = (torch.bincount(labels) / len(labels)).log()
        generator = torch.Generator().manual_seed(self.seed)
        for k in range(len(self.log_prior)):
            model = gmmedu.MODELS[self.family](self.num_components, x.shape[1], dtype=points.dtype)
            fit = gmmedu.fit_best(
                model,
                points[labels == k],
                STARTS,
                generator=generator,
                num_iterations=1000,
                mitigation=self.mitigation,
            )
            self.models.append(model)
            self.on_floor.append(bool(fit.on_floor))
        return self

    @torch.no_grad()
    def nll(self, x: Array, y: Array) -> float:
        """Sum of -log p(x | class) over rows, each under its own class."""
        points, labels = torch.tensor(x), torch.tensor(y)
        scores = torch.stack([model.log_prob(points) for model in self.models], 1)
        return -float(scores.gather(1, labels[:, None]).sum())

    @torch.no_grad()
    def predict(self, x: Array) -> Array:
        points = torch.tensor(x)
        joint = torch.stack([model.log_prob(points) for model in self.models], 1) + self.log_prior
        return joint.argmax(1).numpy()


def methods(seed: int) -> Iterator[tuple[str, Any]]:
    for name, options in MIXTURES.items():
        yield name, ByClass(*options, seed)
    for name, make in STANDARD.items():
        yield name, make()


def run(quick: bool = False) -> Iterator[Row]:
    for name in DATA:
        if quick and name == "digits":
            continue
        for shuffle in range(1 if quick else SHUFFLES):
            yield from shuffled(name, shuffle)


def shuffled(name: str, shuffle: int) -> list[Row]:
    """A row for each method, on one data set and one shuffle of it."""
    load, prepare = DATA[name]
    x, y = load(return_X_y=True)
    wrong: dict[str, int] = {}
    trained: dict[str, list[float]] = {}
    nats: dict[str, float] = {}
    floors: dict[str, list[bool]] = {}
    for train, test in StratifiedKFold(FOLDS, shuffle=True, random_state=shuffle).split(x, y):
        ready = prepare().fit(x[train])
        inside, outside = ready.transform(x[train]), ready.transform(x[test])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for method, model in methods(shuffle):
                model.fit(inside, y[train])
                missed = int((model.predict(outside) != y[test]).sum())
                wrong[method] = wrong.get(method, 0) + missed
                own = float(np.mean(model.predict(inside) != y[train]))
                trained.setdefault(method, []).append(own)
                if isinstance(model, ByClass):
                    nats[method] = nats.get(method, 0.0) + model.nll(outside, y[test])
                    floors.setdefault(method, []).extend(model.on_floor)
    rows = []
    for method, count in wrong.items():
        row = Row(
            name,
            method,
            shuffle,
            round(count / len(y), 5),
            round(float(np.mean(trained[method])), 5),
        )
        if method in nats:
            on_floor = round(float(np.mean(floors[method])), 4)
            row = replace(row, nll=round(nats[method] / len(y), 4), on_floor=on_floor)
        rows.append(row)
    return rows
