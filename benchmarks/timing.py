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
_ATTEMPTS = 10
#: How long the timed iterations of one turn last, and all the turns of a contender at the most, if
#: there is more than one.
_SECONDS, _SLOW = 0.25, 6.0


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
    """How a problem is timed: answers are compared after ``short + extra`` iterations; a time is
    that of so many more than ``short`` as last ``_SECONDS``, at least one, in ``repeats`` turns, or
    fewer for who is slow."""

    short: int
    extra: int
    repeats: int

    def own(self, seconds: float) -> tuple[int, int]:
        """Iterations timed and turns of a contender whose iteration takes so long."""
        iterations = max(1, round(_SECONDS / seconds))
        turn = (2 * self.short + iterations) * seconds
        return iterations, min(self.repeats, max(1, int(_SLOW / turn)))


@dataclass(frozen=True)
class Comparison:
    """What one data set, family and number type gave."""

    family: str
    size: tuple[int, int, int]
    dtype: str
    schedule: Schedule
    #: iterations timed in a turn
    iterations: dict[str, int]
    milliseconds: dict[str, Quartiles]
    #: time of the peer / time of gmmedu, repeat by repeat
    ratios: dict[str, Quartiles]
    #: largest difference of a peer's mean log likelihood from gmmedu's
    differences: dict[str, float]
    #: the least ratio wanted
    bars: dict[str, float]

    def agrees_with(self, peer: str) -> bool:
        # A NaN does not agree.
        return self.differences[peer] <= TOLERANCE[self.dtype]

    @property
    def agrees(self) -> bool:
        return all(map(self.agrees_with, self.differences))

    def passes(self, peer: str) -> bool:
        """Whether gmmedu is fast enough; a peer that finds something else is no rival."""
        judged = peer not in self.differences or self.agrees_with(peer)
        return not judged or self.ratios[peer].median >= self.bars[peer]


def seconds_per_iteration(fit: Fit, short: int, extra: int) -> float:
    """(time of short + extra iterations - time of short) / extra: set-up cancels.

    A difference that noise has made negative is measured again.
    """
    for _ in range(_ATTEMPTS):
        difference = _seconds(fit, short + extra) - _seconds(fit, short)
        if difference > 0:
            return difference / extra
    raise RuntimeError(f"{extra} iterations are too few to be timed on this machine")


def _first_look(fit: Fit, short: int, extra: int) -> float:
    """Seconds per iteration, from as many iterations as can be told from set-up."""
    fit(short)
    while True:
        fit(short + extra)
        difference = _seconds(fit, short + extra) - _seconds(fit, short)
        if difference > _SECONDS / 4:
            return difference / extra
        extra *= 8


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

    The runs that give the answers warm everything up. judged: whose answers are compared,
    everybody's if None.
    """
    ours, *peers = fits
    short, extra = schedule.short, schedule.extra
    likelihoods = {
        name: mean_log_likelihood(x, fit(short + extra))
        for name, fit in fits.items()
        if judged is None or name == ours or name in judged
    }
    expected = likelihoods.pop(ours)
    differences = {name: abs(value - expected) for name, value in likelihoods.items()}

    iterations, turns = {}, {}
    for name, fit in fits.items():
        iterations[name], turns[name] = schedule.own(_first_look(fit, short, extra))
        # Whatever is compiled for a number of iterations is compiled then.
        fit(short + iterations[name])
    seconds: dict[str, list[float]] = {name: [] for name in fits}
    for turn in range(schedule.repeats):
        for name, fit in fits.items():
            if turn < turns[name]:
                seconds[name].append(seconds_per_iteration(fit, short, iterations[name]))
    return Comparison(
        family=family,
        size=size,
        dtype=dtype,
        schedule=schedule,
        iterations=iterations,
        milliseconds={
            name: Quartiles.of([1e3 * value for value in values])
            for name, values in seconds.items()
        },
        ratios={
            name: Quartiles.of(
                [theirs / own for theirs, own in zip(seconds[name], seconds[ours], strict=False)]
            )
            for name in peers
        },
        differences=differences,
        bars=dict(bars),
    )


def geometric_mean(values: Collection[float]) -> float:
    return float(np.exp(np.mean(np.log(list(values)))))
