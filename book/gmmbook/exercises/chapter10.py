"""Exercises of chapter 10, mixture density networks."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from gmmbook.exercises.checkers import Checker, Choice, Code, Value


def _log_density(logits: Tensor, means: Tensor, log_sds: Tensor, t: Tensor) -> Tensor:
    """log p(t) of numbers (N, K) and targets (N,)."""
    return _joint(logits.log_softmax(-1), means, log_sds, t).logsumexp(-1)


def _joint(log_weights: Tensor, means: Tensor, log_sds: Tensor, t: Tensor) -> Tensor:
    z = (t.unsqueeze(-1) - means) * (-log_sds).exp()
    return log_weights - 0.5 * z.square() - log_sds - 0.5 * math.log(2 * math.pi)


def _naive(logits: Tensor, means: Tensor, log_sds: Tensor, t: Tensor) -> Tensor:
    return _joint(logits.log_softmax(-1), means, log_sds, t).exp().sum(-1).log()


def _sum_of_logs(logits: Tensor, means: Tensor, log_sds: Tensor, t: Tensor) -> Tensor:
    parts = _joint(torch.zeros_like(logits), means, log_sds, t)
    return (logits.softmax(-1) * parts).sum(-1)


def _log_density_cases() -> list[tuple[str, list[Any]]]:
    generator = torch.Generator().manual_seed(10)
    numbers = [torch.randn(6, 3, generator=generator, dtype=torch.float64) for _ in range(3)]
    t = torch.randn(6, generator=generator, dtype=torch.float64)
    return [
        ("targets near the means", [*numbers, t]),
        ("targets a hundred deviations away", [*numbers, 100 + t]),
        ("one component", [*(part[:, :1] for part in numbers), t]),
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
        reference=_log_density,
        cases=_log_density_cases(),
        mistakes=[
            (_naive, "the exponentials underflow before their logarithm; use logsumexp."),
            (_sum_of_logs, "a sum of logs is no log of a sum: this is a bound, and not p."),
            (
                lambda a, m, s, t: _joint(a, m, s, t).logsumexp(-1),
                "logits are no log weights until they are normalized.",
            ),
            (
                lambda a, m, s, t: (_joint(a.log_softmax(-1), m, s, t) + s).logsumexp(-1),
                "the normalizer of a component has its log sigma.",
            ),
        ],
        hint="log_softmax of the logits, plus the log density of each component, then logsumexp.",
        praise="Three lines, and no target is too far away.",
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
