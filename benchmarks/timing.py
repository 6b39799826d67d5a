"""Seconds per iteration, measured alike for everyone, and what follows from them."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from benchmarks.problems import Parameters, mean_log_likelihood

#: A fit that runs the given number of iterations and returns what it found.
Fit = Callable[[int], Parameters]

#: How far the mean log likelihoods of two contenders may lie apart.
TOLERANCE = {"float32": 1e-3, "float64": 1e-6}
_ATTEMPTS = 5


@dataclass(frozen=True)
class Quartiles:
    """Lower quartile, median, upper quartile."""

    lower: float
    median: float
    upper: float

    @classmethod
    def of(cls, values: Collection[float]) -> Quartiles:
        lower, median, upper = np.percentile(list(values), [25, 50, 75])
        return cls(float(lower), float(median), float(upper))


@dataclass(frozen=True)
class Schedule:
    """Fits of ``short`` and of ``short + extra`` iterations, timed ``repeats`` times."""

    short: int
    extra: int
    repeats: int


@dataclass(frozen=True)
class Comparison:
    """What one data set, family and number type gave."""

    family: str
    size: tuple[int, int, int]
    dtype: str
    schedule: Schedule
    milliseconds: dict[str, Quartiles]
    #: time of the peer / time of gmmedu, repeat by repeat
    ratios: dict[str, Quartiles]
    #: largest difference of a peer's mean log likelihood from gmmedu's
    differences: dict[str, float]
    #: the least ratio wanted
    bars: dict[str, float]

    @property
    def agrees(self) -> bool:
        return all(value <= TOLERANCE[self.dtype] for value in self.differences.values())

    def passes(self, peer: str) -> bool:
        return self.ratios[peer].median >= self.bars[peer]


def seconds_per_iteration(fit: Fit, schedule: Schedule) -> float:
    """(time of short + extra iterations - time of short) / extra: set-up cancels.

    A difference that noise has made negative is measured again.
    """
    for _ in range(_ATTEMPTS):
        difference = _seconds(fit, schedule.short + schedule.extra) - _seconds(fit, schedule.short)
        if difference > 0:
            return difference / schedule.extra
    raise RuntimeError(f"{schedule.extra} iterations are too few to be timed on this machine")


def _seconds(fit: Fit, iterations: int) -> float:
    gc.collect()
    gc.disable()
    try:
        begin = time.perf_counter()
        fit(iterations)
        return time.perf_counter() - begin
    finally:
        gc.enable()


def compare(
    fits: Mapping[str, Fit],
    x: Tensor,
    schedule: Schedule,
    *,
    family: str,
    size: tuple[int, int, int],
    dtype: str,
    bars: Mapping[str, float],
    judged: Collection[str] | None = None,
) -> Comparison:
    """Time the fits in turn, A B C A B C ..., and hold their answers against the first one's.

    The answers are those after ``short`` and after ``short + extra`` iterations; the runs that
    give them warm everything up. judged: whose answers are compared, everybody's if None.
    """
    ours, *peers = fits
    judged = peers if judged is None else judged
    differences = dict.fromkeys(judged, 0.0)
    for iterations in (schedule.short, schedule.short + schedule.extra):
        answers = {name: fit(iterations) for name, fit in fits.items()}
        expected = mean_log_likelihood(x, answers[ours])
        for name in judged:
            difference = abs(mean_log_likelihood(x, answers[name]) - expected)
            # Not max(), which would lose a NaN.
            if not difference <= differences[name]:
                differences[name] = difference

    seconds: dict[str, list[float]] = {name: [] for name in fits}
    for _ in range(schedule.repeats):
        for name, fit in fits.items():
            seconds[name].append(seconds_per_iteration(fit, schedule))
    return Comparison(
        family=family,
        size=size,
        dtype=dtype,
        schedule=schedule,
        milliseconds={
            name: Quartiles.of([1e3 * value for value in values])
            for name, values in seconds.items()
        },
        ratios={
            name: Quartiles.of(
                [theirs / own for theirs, own in zip(seconds[name], seconds[ours], strict=True)]
            )
            for name in peers
        },
        differences=differences,
        bars=dict(bars),
    )


def geometric_mean(values: Collection[float]) -> float:
    return float(np.exp(np.mean(np.log(list(values)))))
