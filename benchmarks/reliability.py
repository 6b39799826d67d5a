"""Fits to hostile data: does each end with a usable mixture, and with a good one?

Ten kinds of data that mixtures fail on, six families, nine seeds. Usable: no exception, no NaN, no
degenerate component. Good: on held-out points the mean NLL is no worse than that of scikit-learn
with its own defaults, from the same start, by more than the noise.
"""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from sklearn.mixture import GaussianMixture as Peer
from torch import Tensor

import gmmedu
from gmmedu.singularities import Mitigation

#: What fits: scikit-learn's own stopping rule (1e-3 nats or 100 iterations), the rule of
#: ``fit_em`` (1e-8 or 200), and a descent with both rates alike, so that a logit can come as far as
#: the weight of one outlier asks for; the same stopped where its NLL is as low as the peer's.
FITTERS: dict[str, tuple[Callable[..., gmmedu.FitResult], dict[str, Any]]] = {
    "em, 1e-3": (gmmedu.fit_em, {"num_iterations": 100, "tolerance": 1e-3}),
    "em, 1e-8": (gmmedu.fit_em, {}),
    "descent": (
        gmmedu.fit_model,
        {"num_iterations": 5000, "mixture_lr": 2e-2, "component_lr": 2e-2},
    ),
}
AS_FAR = "descent, as far"
FITTERS[AS_FAR] = FITTERS["descent"]
MITIGATIONS: dict[str, Mitigation] = {
    "Clamp(0.001)": gmmedu.Clamp(),
    "Clamp(0.01)": gmmedu.Clamp(0.01),
    "Clamp(0.1)": gmmedu.Clamp(0.1),
    "Reset()": gmmedu.Reset(),
    "Prior()": gmmedu.Prior(),
}
#: Each fitter with the default mitigation; EM, under either rule, with each of the others.
RUNS = [(fitter, "Clamp(0.001)") for fitter in FITTERS] + [
    (fitter, name) for name in list(MITIGATIONS)[1:] for fitter in list(FITTERS)[:2]
]
PEER_TYPES = {"full": "full", "tied": "tied", "diagonal": "diag", "isotropic": "spherical"}
SEEDS, NUM_HELD_OUT = 9, 2000
#: A difference counts when it is more than so many standard errors, and more than this many nats.
STANDARD_ERRORS, NATS = 3.0, 0.01


@dataclass(frozen=True)
class Hostile:
    """draw: (N, generator) -> points (N, 2); both halves come from it, ``spoil`` the first only."""

    draw: Callable[[int, torch.Generator], Tensor]
    num_components: int = 3
    num_points: int = 300
    spoil: Callable[[Tensor], Tensor] = field(default=lambda x: x)


def _clusters(n: int, g: torch.Generator) -> Tensor:
    """Three clusters of unit width, at (0, 0), (4, 0) and (0, 4), in shares 0.5, 0.3, 0.2."""
    label = torch.multinomial(torch.tensor([0.5, 0.3, 0.2]).double(), n, True, generator=g)
    centers = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]]).double()
    return centers[label] + torch.randn(n, 2, generator=g).double()


def _heavy_tails(n: int, g: torch.Generator) -> Tensor:
    """The same, and Student's t of two degrees of freedom added."""
    chi = -torch.log(torch.rand(n, 1, generator=g).double().clamp_min(1e-12))
    return _clusters(n, g) + torch.randn(n, 2, generator=g).double() * (1 / chi).sqrt()


def _tiny_clusters(n: int, g: torch.Generator) -> Tensor:
    """The same, and one point in a hundred in each of two clusters of width 0.01."""
    x = _clusters(n, g)
    rare = torch.rand(n, generator=g) < 0.02
    far = torch.where(torch.rand(n, 1, generator=g) < 0.5, 7.0, -5.0).double()
    return torch.where(rare[:, None], far + 0.01 * torch.randn(n, 2, generator=g).double(), x)


def _scaled(*scale: float) -> Callable[[int, torch.Generator], Tensor]:
    return lambda n, g: _clusters(n, g) * torch.tensor(scale).double()


def _duplicates(x: Tensor) -> Tensor:
    """One point takes the place of a fifth of the others."""
    return torch.cat([x[:1].expand(len(x) // 5, -1), x[len(x) // 5 :]])


HOSTILE: dict[str, Hostile] = {
    "duplicates": Hostile(_clusters, spoil=_duplicates),
    "rounded": Hostile(lambda n, g: _clusters(n, g).round()),
    "outlier": Hostile(_clusters, spoil=lambda x: torch.cat([x[:-1], torch.full_like(x[:1], 1e4)])),
    "far from the origin": Hostile(lambda n, g: _clusters(n, g) + 1e6),
    "small unit": Hostile(_scaled(1e-8, 1e-8)),
    "mixed scales": Hostile(_scaled(1e-6, 1e6)),
    "heavy tails": Hostile(_heavy_tails),
    "tiny clusters": Hostile(_tiny_clusters, num_components=5),
    "K five times too large": Hostile(_clusters, num_components=15),
    "few points": Hostile(_clusters, num_components=5, num_points=30),
}


@dataclass(frozen=True)
class Row:
    """All seeds of one run on one kind of data with one family.

    fits: how many; failures: exceptions, NaN and degenerate components, by name; compared: how many
    had a peer; better and worse: how many of those were so on held-out points; overfitted: how many
    of the worse had a *lower* NLL than the peer's on the points they were fitted to; median, mean
    (with its standard error) and largest excess: of the held-out NLL over the peer's, over the
    seeds, None where nothing was compared.
    """

    data: str
    family: str
    fitter: str
    mitigation: str
    fits: int
    failures: dict[str, int]
    compared: int
    better: int
    worse: int
    overfitted: int
    median_excess: float | None
    mean_excess: float | None
    standard_error: float | None
    largest_excess: float | None

    def record(self) -> dict[str, Any]:
        return asdict(self)


def run(quick: bool = False) -> Iterator[Row]:
    """One row for each run, kind of data and family."""
    for fitter, mitigation in RUNS:
        for data in HOSTILE:
            for family in gmmedu.MODELS:
                yield _row(data, family, fitter, mitigation, range(1 if quick else SEEDS))


def _row(data: str, family: str, fitter: str, mitigation: str, seeds: Sequence[int]) -> Row:
    failures: dict[str, int] = {}
    better, worse, overfitted = 0, 0, 0
    excess: list[float] = []
    for seed in seeds:
        failure, difference, own = _fit(data, family, fitter, mitigation, seed)
        if failure is not None:
            failures[failure] = failures.get(failure, 0) + 1
        if difference is None:
            continue
        mean = float(difference.mean())
        error = float(difference.std()) / math.sqrt(len(difference))
        excess.append(mean)
        noise = max(STANDARD_ERRORS * error, NATS)
        better += mean < -noise
        worse += mean > noise
        overfitted += mean > noise and own < 0
    return Row(
        data=data,
        family=family,
        fitter=fitter,
        mitigation=mitigation,
        fits=len(seeds),
        failures=failures,
        compared=len(excess),
        better=better,
        worse=worse,
        overfitted=overfitted,
        median_excess=round(statistics.median(excess), 5) if excess else None,
        mean_excess=round(statistics.fmean(excess), 5) if excess else None,
        standard_error=(
            round(statistics.stdev(excess) / math.sqrt(len(excess)), 5) if len(excess) > 1 else None
        ),
        largest_excess=round(max(excess), 5) if excess else None,
    )


def _fit(
    data: str, family: str, fitter: str, mitigation: str, seed: int
) -> tuple[str | None, Tensor | None, float]:
    """What failed, if anything; the NLL of each held-out point less the peer's, if there is a peer;
    and the same, as a mean, for the points that were fitted."""
    hostile = HOSTILE[data]
    generator = torch.Generator().manual_seed(1000 + seed)
    x = hostile.spoil(hostile.draw(hostile.num_points, generator))
    held_out = hostile.draw(NUM_HELD_OUT, generator)
    model = gmmedu.MODELS[family](hostile.num_components, 2, dtype=torch.float64)
    gmmedu.initialize(model, x, "kmeans++", generator=generator)
    peer = _peer(family, model, x)
    cure = MITIGATIONS[mitigation]
    fit_it, options = FITTERS[fitter]
    goal = math.nan if peer is None else -float(peer.score(x.numpy()))
    if fitter == AS_FAR:
        options = options | {"callback": lambda _model, _iteration, nll: nll <= goal}
    try:
        fit = fit_it(model, x, mitigation=cure, generator=generator, **options)
    except Exception as error:
        return type(error).__name__, None, 0.0
    ours = -model.log_prob(held_out).detach()
    failure = None
    if not (math.isfinite(fit.nll) and bool(ours.isfinite().all())):
        failure = "nan"
    elif model.family.trainable and gmmedu.find_singular(model, x, 9.9e-4):
        failure = "degenerate"
    if peer is None:
        return failure, None, 0.0
    theirs = -torch.from_numpy(peer.score_samples(held_out.numpy()))
    return failure, ours - theirs, fit.nll - goal


def _peer(family: str, model: gmmedu.GaussianMixture, x: Tensor) -> Any:
    """scikit-learn's fit with its defaults from the same start, or None."""
    if family not in PEER_TYPES:
        return None
    precisions = torch.linalg.inv(model.covariances.detach())
    shaped = {
        "full": precisions,
        "tied": precisions[0],
        "diagonal": precisions.diagonal(dim1=1, dim2=2),
        "isotropic": precisions[:, 0, 0],
    }[family]
    peer = Peer(
        model.num_components,
        covariance_type=PEER_TYPES[family],
        weights_init=model.weights.detach().numpy(),
        means_init=model.means.detach().numpy(),
        precisions_init=shaped.numpy(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return peer.fit(x.numpy())
        except ValueError:
            return None
