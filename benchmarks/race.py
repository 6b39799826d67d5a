"""The race of chapter 07: passes over the data until a fit arrives, from many starts.

Five data sets, five methods, one of them with three learning rates; the same starts and the same
budget for all. A run arrives when its NLL is so near the lowest at which several runs on those data
end; it ends there, or when an iteration changes the NLL by less than ``LEAST`` nats, or when the
budget is spent. It writes ``book/gmmbook/data/race.json``, which the chapter reads.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

import gmmedu
from gmmbook.lab import side_by_side
from gmmedu import GaussianMixture

#: Most passes of a run, what an iteration must gain in nats, and how near a run must come.
BUDGET, LEAST, NEAR = 1_000, 1e-10, (1e-3, 1e-6)
STARTS, RATES = 100, (0.03, 0.1, 0.3)
#: So many runs make the end of the lowest of them a goal, and not one that a lone start has found.
SEVERAL = 5

#: Passes and NLL after each iteration of each start, (T + 1, starts).
Track = tuple[Tensor, Tensor]
Method = Callable[[GaussianMixture, Tensor], Track]


def pair(apart: float, share: float = 0.5, seed: int = 0) -> Tensor:
    """600 points of unit variance, a share of them moved: (600, 2)."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(600, 2, generator=g, dtype=torch.float64)
    x[: round(600 * share), 0] += apart
    return x


def clouds(num_dims: int, num_points: int, apart: float, seed: int = 0) -> Tensor:
    """Three round clusters in many dimensions."""
    g = torch.Generator().manual_seed(seed)
    centers = torch.randn(3, num_dims, generator=g, dtype=torch.float64)
    centers = centers * apart / math.sqrt(2 * num_dims)
    noise = torch.randn(num_points, num_dims, generator=g, dtype=torch.float64)
    return centers.repeat_interleave(num_points // 3, 0) + noise


def geyser() -> Tensor:
    """Old Faithful, standardized."""
    x = gmmedu.load_old_faithful()
    return (x - x.mean(0)) / x.std(0, correction=0)


#: Points, and components to fit.
RACES: dict[str, tuple[Callable[[], Tensor], int]] = {
    "6sd": (lambda: pair(6.0), 2),
    "2.2sd": (lambda: pair(2.2), 2),
    "90/10": (lambda: pair(4.0, share=0.1), 2),
    "10-d": (lambda: clouds(10, 900, 6.0), 3),
    "geyser": (geyser, 2),
}


def by_em(models: GaussianMixture, x: Tensor) -> Track:
    fit = gmmedu.fit_em(models, x, BUDGET, LEAST)
    return fit.passes_after, fit.history


def by_squarem(models: GaussianMixture, x: Tensor) -> Track:
    fit = gmmedu.fit_em(models, x, BUDGET, LEAST, accelerate="squarem")
    return fit.passes_after, fit.history


def by_adam(rate: float) -> Method:
    def method(models: GaussianMixture, x: Tensor) -> Track:
        fit = gmmedu.fit_model(models, x, BUDGET, rate, rate)
        return fit.passes_after, fit.history

    return method


def by_lbfgs(models: GaussianMixture, x: Tensor) -> Track:
    fit = gmmedu.fit_lbfgs(models, x, BUDGET, LEAST)
    return fit.passes_after, fit.history


def by_hybrid(models: GaussianMixture, x: Tensor) -> Track:
    """20 iterations of EM, then L-BFGS."""
    first = gmmedu.fit_em(models, x, 20, tolerance=0)
    passes, history = by_lbfgs(models, x)
    passes = torch.cat([first.passes_after, first.passes_after[-1] + passes])
    return passes, torch.cat([first.history, history])


METHODS: dict[str, Method] = {"EM": by_em, "SQUAREM": by_squarem}
METHODS |= {f"Adam {rate}": by_adam(rate) for rate in RATES}
METHODS |= {"L-BFGS": by_lbfgs, "hybrid": by_hybrid}


def started(x: Tensor, num_components: int, num_starts: int) -> GaussianMixture:
    """A batch of starts by k-means++, one for each seed."""
    models = []
    for seed in range(num_starts):
        model = gmmedu.GmmFull(num_components, x.shape[1], dtype=x.dtype)
        g = torch.Generator().manual_seed(seed)
        models.append(gmmedu.initialize(model, x, "kmeans++", generator=g))
    return side_by_side(models)


def spent(track: Track, goal: float) -> tuple[Tensor, Tensor]:
    """Passes of each start until it arrived or ended, and whether it arrived: (starts,) each."""
    passes, history = track
    there = (history < goal) & (passes <= BUDGET)
    arrival = passes.gather(0, there.long().argmax(0, keepdim=True))[0]
    return torch.where(there.any(0), arrival, passes[-1].clamp_max(BUDGET)), there.any(0)


def goal(histories: list[Tensor]) -> float:
    """The lowest NLL at which several runs end."""
    ends = torch.cat([h.nan_to_num(torch.inf).amin(0) for h in histories]).sort().values
    alike = ends[SEVERAL - 1 :] - ends[: 1 - SEVERAL] < NEAR[-1]
    return float(ends[alike.nonzero()[0, 0]])


def run(quick: bool = False) -> Iterator[dict[str, Any]]:
    """One record for each data set, method and distance from the lowest NLL that was found."""
    for data, (points, num_components) in RACES.items():
        x = points()
        starts = started(x, num_components, 5 if quick else STARTS)
        tracks = {}
        with warnings.catch_warnings():
            # Some runs spend their whole budget.
            warnings.simplefilter("ignore", gmmedu.ConvergenceWarning)
            for name, method in METHODS.items():
                tracks[name] = method(copy.deepcopy(starts), x)
        lowest = goal([history for _, history in tracks.values()])
        for name, track in tracks.items():
            for near in NEAR:
                passes, arrived = spent(track, lowest + near)
                yield {
                    "data": data,
                    "method": name,
                    "within": near,
                    "lowest": lowest,
                    "passes": passes.tolist(),
                    "arrived": arrived.int().tolist(),
                }
