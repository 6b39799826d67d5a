"""Whole jobs: the best of many starts, beside scikit-learn's ``n_init``, under one tolerance."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import gmmedu
from benchmarks.problems import blobs, iris

#: Fits must agree on the best mean log likelihood to this, or gmmedu's be the higher one.
NATS = 1e-4
TURNS = 3


@dataclass(frozen=True)
class Job:
    """The best of so many starts. bar: the least ratio of times."""

    name: str
    load: Callable[[], Tensor]
    num_components: int
    num_starts: int
    bar: float


JOBS = (
    Job("Old Faithful", gmmedu.load_old_faithful, 2, 100, 10.0),
    Job("Old Faithful", gmmedu.load_old_faithful, 3, 100, 5.0),
    Job("iris", iris, 3, 100, 10.0),
    Job("four clusters", blobs, 4, 10, 1.0),
)
#: Tolerance and the most iterations: scikit-learn's own, and a closer one.
RULES = ((1e-3, 100), (1e-6, 1000))


def run(quick: bool = False) -> Iterator[dict[str, Any]]:
    """Both in turn, each time with other seeds; times and the best log likelihoods found."""
    for job in JOBS:
        x = job.load()
        num_starts = min(job.num_starts, 5) if quick else job.num_starts
        for rule in RULES:
            times: dict[str, list[float]] = {"gmmedu": [], "scikit-learn": []}
            found: dict[str, list[float]] = {"gmmedu": [], "scikit-learn": []}
            # The first turn warms up.
            for seed in range(2 if quick else 1 + TURNS):
                for name, best_of in (("gmmedu", gmmedu_best), ("scikit-learn", sklearn_best)):
                    begin = time.perf_counter()
                    likelihood = best_of(x, job.num_components, num_starts, *rule, seed)
                    times[name].append(time.perf_counter() - begin)
                    found[name].append(likelihood)
            pairs = zip(times["scikit-learn"][1:], times["gmmedu"][1:], strict=True)
            ratio = statistics.median(theirs / ours for theirs, ours in pairs)
            worst = min(a - b for a, b in zip(found["gmmedu"], found["scikit-learn"], strict=True))
            yield {
                "data": job.name,
                "K": job.num_components,
                "starts": num_starts,
                "tolerance": rule[0],
                "gmmedu_seconds": round(statistics.median(times["gmmedu"][1:]), 4),
                "scikit-learn_seconds": round(statistics.median(times["scikit-learn"][1:]), 4),
                "ratio": round(ratio, 2),
                "bar": job.bar,
                "least_gain": round(worst, 6),
                "passed": ratio >= job.bar and worst >= -NATS,
            }


def gmmedu_best(
    x: Tensor, num_components: int, num_starts: int, tolerance: float, most: int, seed: int
) -> float:
    """Starts by the default method, in one batch: the best mean log likelihood."""
    model = gmmedu.GmmFull(num_components, x.shape[1], dtype=x.dtype)
    generator = torch.Generator().manual_seed(seed)
    with warnings.catch_warnings():
        # As for the peer: a start that goes on longest is not the one that is kept.
        warnings.simplefilter("ignore", gmmedu.ConvergenceWarning)
        fit = gmmedu.fit_best(
            model, x, num_starts, num_iterations=most, tolerance=tolerance, generator=generator
        )
    return -float(fit.nll)


def sklearn_best(
    x: Tensor, num_components: int, num_starts: int, tolerance: float, most: int, seed: int
) -> float:
    """``GaussianMixture`` with its own defaults but these: the best mean log likelihood."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    points = x.numpy()
    model = GaussianMixture(
        num_components, n_init=num_starts, tol=tolerance, max_iter=most, random_state=seed
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(points)
    return float(model.score(points))
