"""Exercises of chapter 10, mixture density networks."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from gmmbook.exercises.checkers import Checker, Choice, Code, Value


def _quantile(weights: Tensor, means: Tensor, sds: Tensor, u: Tensor) -> Tensor:
    """The t below which a mixture (K,) in one dimension has each share u (M,)."""
    ends = means + sds * torch.special.ndtri(u).unsqueeze(1)
    low, high = ends.amin(1), ends.amax(1)
    for _ in range(100):
        middle = (low + high) / 2
        above = _below(weights, means, sds, middle) < u
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return (low + high) / 2


def _below(weights: Tensor, means: Tensor, sds: Tensor, t: Tensor) -> Tensor:
    return (weights * torch.special.ndtr((t.unsqueeze(1) - means) / sds)).sum(1)


def _average_of_quantiles(weights: Tensor, means: Tensor, sds: Tensor, u: Tensor) -> Tensor:
    return (weights * (means + sds * torch.special.ndtri(u).unsqueeze(1))).sum(1)


def _of_one_normal(weights: Tensor, means: Tensor, sds: Tensor, u: Tensor) -> Tensor:
    mean = (weights * means).sum()
    variance = (weights * (sds.square() + means.square())).sum() - mean.square()
    return mean + variance.sqrt() * torch.special.ndtri(u)


def _quantile_cases() -> list[tuple[str, list[Any]]]:
    def numbers(*values: float) -> Tensor:
        return torch.tensor(values, dtype=torch.float64)

    u = numbers(0.05, 0.3, 0.75, 0.95)
    return [
        ("two components", [numbers(0.4, 0.6), numbers(0.0, 3.0), numbers(1.0, 0.5), u]),
        ("one component", [numbers(1.0), numbers(-2.0), numbers(0.25), u]),
        (
            "components far from each other, and levels near 0 and 1",
            [
                numbers(0.2, 0.5, 0.3),
                numbers(-40.0, 0.0, 60.0),
                numbers(0.1, 5.0, 1.0),
                numbers(1e-6, 0.1, 0.6, 1 - 1e-6),
            ],
        ),
    ]


# Of exercise 10.2: two components at one input, and the target.
_WEIGHTS, _MEANS, _SDS, _TARGET = (0.5, 0.5), (0.0, 2.0), (1.0, 0.5), 1.5


def _densities() -> list[float]:
    return [
        w * math.exp(-0.5 * ((_TARGET - m) / s) ** 2) / (s * math.sqrt(2 * math.pi))
        for w, m, s in zip(_WEIGHTS, _MEANS, _SDS, strict=True)
    ]


def _slopes(r: float) -> list[float]:
    z = (_TARGET - _MEANS[0]) / _SDS[0]
    return [_WEIGHTS[0] - r, -r * z / _SDS[0], r * (1 - z**2)]


_R = _densities()[0] / sum(_densities())
_OUTPUTS = 5 + 15 + 5 * 6
_CRPS = 2 * math.exp(0) / math.sqrt(2 * math.pi) - 1 / math.sqrt(math.pi)
_LOST = 0.5 * math.log(7 / 3) - (2 * math.log(2) - 1)

EXERCISES: dict[str, Checker] = {
    "10-1": Value(
        expected=65 * _OUTPUTS,
        tolerance=1e-6,
        mistakes=[
            (64 * _OUTPUTS, "each output has a bias, too."),
            (_OUTPUTS, "these are the outputs; each has a weight for every feature, and a bias."),
            (65 * (_OUTPUTS - 1), "the head has a logit for every component, though one is idle."),
            (65 * (5 + 15 + 15), "that is the diagonal family; L has entries below its diagonal."),
            (65 * (5 + 15 + 45), "L is triangular: D (D + 1) / 2 numbers, not D squared."),
            (65 * (5 + 15 + 6), "that is the tied family; here each component has its own L."),
        ],
        hint="Count the outputs first: logits, means, and the numbers of each covariance.",
        praise="The data must determine all of these, and the network in front as well.",
    ),
    "10-2": Value(
        expected=_slopes(_R),
        mistakes=[
            ([-v for v in _slopes(_R)], "these are the slopes of log p; the loss is its negative."),
            (_slopes(0.5), "the share of a component is its responsibility, not its weight."),
            (
                [_WEIGHTS[0] - _R, _slopes(1.0)[1], _slopes(1.0)[2]],
                "the last two are weighted by the responsibility.",
            ),
            (_slopes(1 - _R), "that is the responsibility of the other component."),
        ],
        hint="First the responsibility of component 1, from both products of weight and density.",
        praise="Component 1 is to move toward the target and to widen, each by its share.",
    ),
    "10-3": Value(
        expected=0.39,
        tolerance=4e-3,
        mistakes=[
            (0.511, "that is the mean, the answer to squared error."),
            (0.3455, "that is the middle of the longer interval; half of all mass is wanted."),
            (0.58, "the middle of what lies between the ends: no mass is in the gap."),
            (0.631, "there is no density in the gap."),
        ],
        hint="The median: from 0.25 go to the right until half of the total length is passed.",
        praise="The median is at least a possible answer here; the mean is not.",
    ),
    "10-4": Code(
        reference=_quantile,
        cases=_quantile_cases(),
        mistakes=[
            (
                _average_of_quantiles,
                "a quantile of a mixture is no average of those of its components.",
            ),
            (
                _of_one_normal,
                "that is the quantile of one normal with the mixture's mean and variance.",
            ),
            (
                lambda w, m, s, u: _quantile(w, m, s, 1 - u),
                "that much lies above: the wrong half of the bracket is kept.",
            ),
            (
                lambda w, m, s, u: _quantile(w, m, s.sqrt(), u),
                "sds are standard deviations: divide by them, not by their roots.",
            ),
            (
                lambda w, m, s, u: _quantile(torch.ones_like(w) / len(w), m, s, u),
                "each component counts by its weight.",
            ),
        ],
        hint="F at the middle of the bracket says which half to keep; halve it until it is "
        "narrower than a millionth.",
        praise="Half of the bracket goes at each step, wherever the components are.",
    ),
    "10-5": Choice(
        right="b",
        others={
            "a": "where deviations are too large, u crowds in the middle.",
            "c": "a shift of all predictions makes the histogram lean to one side.",
            "d": "then the histogram is even, up to the noise of counting.",
        },
    ),
    "10-6": Value(
        expected=_CRPS,
        mistakes=[
            (
                2 / math.sqrt(2 * math.pi),
                "that is E|t' - t|; the distance of two draws is to go.",
            ),
            (
                2 / math.sqrt(2 * math.pi) - 2 / math.sqrt(math.pi),
                "half of the distance of two draws is subtracted.",
            ),
            (
                2 / math.sqrt(2 * math.pi) - 1 / math.sqrt(2 * math.pi),
                "two independent draws differ by a normal number of variance 2.",
            ),
        ],
        hint="Both terms are A of a normal number with mean 0: once of variance 1, once of 2.",
        praise="Not zero: even the best place costs something when the width is 1.",
    ),
    "10-7": Value(
        expected=_LOST,
        tolerance=1e-2,
        mistakes=[
            (0.5 * math.log(7 / 3), "the best of the others gains something too: subtract it."),
            (2 * math.log(2) - 1, "that is the average of log sigma; compare it with one sigma."),
            (
                math.log(1.5) - (2 * math.log(2) - 1),
                "the best constant variance is the average variance, not that at the middle.",
            ),
        ],
        hint="The lowest NLL is half the log of 2 pi e, plus an average of log sigma, or a log of "
        "an average.",
        praise="By Jensen it is never negative: the log of an average against an average of logs.",
    ),
}
