"""Mixtures of 1 to 9 components for the speeds of the galaxies, fitted in three ways.

"floor": the best regular fit of many starts, no standard deviation below 200 km/s, by ``select``.
"one start": one fit under the same floor from K random points. "no floor": the lowest NLL found
under a floor of a millionth of the data's standard deviation. Held-out values are of the same five
folds in all three.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

import gmmedu
from gmmbook.lab import side_by_side
from gmmedu.models import GaussianMixture

COUNTS, FAMILIES, FOLDS, SEED = range(1, 10), ("full", "tied"), 5, 0
#: In 1000 km/s; and what counts as none, in standard deviations of the data.
FLOOR, NONE = 0.2, 1e-6
#: Starts of each cell of ``select``; the seed of the one start.
STARTS, ONE_SEED = 20, 3
_END: dict[str, Any] = {"num_iterations": 300, "tolerance": 1e-9, "accelerate": "squarem"}


@dataclass(frozen=True)
class Fit:
    """One mixture: weights, means and standard deviations, (K,) each, to ten digits; mean NLL of
    points left out; whether no component is on the floor."""

    fits: str
    family: str
    num_components: int
    weights: list[float]
    means: list[float]
    sds: list[float]
    held_out: float
    regular: bool

    def record(self) -> dict[str, Any]:
        return asdict(self)


def run(quick: bool = False) -> Iterator[Fit]:
    """One fit for each way, family and number of components."""
    counts, starts = (range(1, 4), 2) if quick else (COUNTS, STARTS)
    x = gmmedu.load_galaxies().double()
    with warnings.catch_warnings():
        # A component on the floor is what this is about.
        warnings.simplefilter("ignore", gmmedu.SingularityWarning)
        warnings.simplefilter("ignore", gmmedu.ConvergenceWarning)
        for family in FAMILIES:
            yield from selected("floor", FLOOR, x, family, counts, starts)
            yield from folded("one start", one_start, x, family, counts)
            if family == "tied":
                # One variance for all has no singular fit as long as K < N.
                unit = float(x.std(correction=0))
                yield from selected("no floor", NONE * unit, x, family, counts, starts)
            else:
                yield from folded("no floor", needles, x, family, counts)


def selected(
    fits: str, floor: float, x: Tensor, family: str, counts: range, num_starts: int
) -> Iterator[Fit]:
    """The best regular fits under a floor."""
    choice = gmmedu.select(
        x, counts, family, "held_out", num_starts=num_starts, num_folds=FOLDS,
        mitigation=_clamp(x, floor), generator=torch.Generator().manual_seed(SEED),
    )  # fmt: skip
    for row in choice.table:
        model = choice.models[family, row.num_components]
        yield _fit(fits, family, model, row.held_out)


def folded(
    fits: str,
    fitter: Callable[[Tensor, str, range], list[GaussianMixture]],
    x: Tensor,
    family: str,
    counts: range,
) -> Iterator[Fit]:
    """The fits of a fitter to all points, scored by its fits without each fold."""
    # The folds that ``select`` draws from a generator of this seed.
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(SEED))
    fold = torch.empty_like(order).index_copy(0, order, torch.arange(len(x)) % FOLDS)
    parts = [fitter(x[fold != f], family, counts) for f in range(FOLDS)]
    for i, model in enumerate(fitter(x, family, counts)):
        log_prob = [part[i].log_prob(x[fold == f]).detach() for f, part in enumerate(parts)]
        yield _fit(fits, family, model, float(-torch.cat(log_prob).mean()))


def one_start(x: Tensor, family: str, counts: range) -> list[GaussianMixture]:
    """For each K one fit."""
    found = []
    for count in counts:
        model = _model(family, count)
        generator = torch.Generator().manual_seed(ONE_SEED)
        gmmedu.initialize(model, x, "points", generator=generator)
        gmmedu.fit_em(model, x, mitigation=_clamp(x, FLOOR), **_END)
        found.append(model)
    return found


def needles(x: Tensor, family: str, counts: range) -> list[GaussianMixture]:
    """For each K the lowest NLL: of ten starts by k-means++, and of fits that start at a mixture
    with a component less, the best of its ten or the lowest, and a needle on a point, each in
    turn."""
    clamp = gmmedu.Clamp(NONE)
    found: list[GaussianMixture] = []
    less: list[GaussianMixture] = []
    for count in counts:
        plain, generator = _model(family, count), torch.Generator().manual_seed(SEED)
        gmmedu.fit_best(plain, x, method="kmeans++", generator=generator, mitigation=clamp, **_END)
        many = side_by_side([plain, *(_needle(model, point) for model in less for point in x)])
        fit = gmmedu.fit_em(many, x, mitigation=clamp, **_END)
        lowest = many[int(fit.nll.argmin())]
        found.append(lowest)
        less = [plain, lowest]
    return found


def _needle(model: GaussianMixture, point: Tensor) -> GaussianMixture:
    """With one more component, which holds one point alone; (1,) is the point."""
    share = 1 / gmmedu.load_galaxies().shape[0]
    weights = torch.cat([model.weights * (1 - share), model.weights.new_full((1,), share)])
    means = torch.cat([model.means, point[None]])
    covariances = torch.cat([model.covariances, model.covariances.new_full((1, 1, 1), NONE**2)])
    new = _model(model.family.name, len(weights))
    return new.set_parameters(weights.detach(), means.detach(), covariances.detach())


def _model(family: str, count: int) -> GaussianMixture:
    return gmmedu.MODELS[family](count, 1, init_radius=0.0, dtype=torch.float64)


def _clamp(x: Tensor, floor: float) -> gmmedu.Clamp:
    """A floor in 1000 km/s, in the units of the points."""
    return gmmedu.Clamp(floor / float(x.std(correction=0)))


def _sds(model: GaussianMixture) -> Tensor:
    return model.covariances.detach().flatten().sqrt()


def _fit(fits: str, family: str, model: GaussianMixture, score: float) -> Fit:
    """The record of a mixture, its components in the order of their means."""
    order = model.means.detach().flatten().argsort()
    numbers = (model.weights.detach(), model.means.detach().flatten(), _sds(model))
    weights, means, sds = ([float(f"{v:.10g}") for v in n[order].tolist()] for n in numbers)
    # Without a floor nothing is set aside.
    regular = fits == "no floor" or min(sds) > FLOOR * (1 + 1e-6)
    return Fit(fits, family, model.num_components, weights, means, sds, score, regular)
