"""Exercises of chapter 11, at scale."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from gmmbook.exercises.checkers import Checker, Choice, Code, Value


def _step(s: Tensor, x: Tensor, eta: float) -> Tensor:
    """One step of stepwise EM on mean statistics (3, K) and a batch (B,)."""
    return torch.lerp(s, _counted(s, x).mean(1), eta)


def _counted(s: Tensor, x: Tensor) -> Tensor:
    """What each point adds to the statistics at the parameters of ``s``, (3, B, K)."""
    w, first, second = s
    mu = first / w
    var = second / w - mu**2
    joint = (w / var.sqrt()).log() - 0.5 * (x[:, None] - mu) ** 2 / var
    r = joint.softmax(1)
    return torch.stack([r, r * x[:, None], r * x[:, None] ** 2])


def _summed(s: Tensor, x: Tensor, eta: float) -> Tensor:
    return torch.lerp(s, _counted(s, x).sum(1), eta)


def _turned(s: Tensor, x: Tensor, eta: float) -> Tensor:
    return _step(s, x, 1 - eta)


def _as_variance(s: Tensor, x: Tensor, eta: float) -> Tensor:
    altered = torch.stack([s[0], s[1], s[2] + s[1] ** 2 / s[0]])
    return torch.lerp(s, _counted(altered, x).mean(1), eta)


def _cases() -> list[tuple[str, list[Any]]]:
    generator = torch.Generator().manual_seed(11)
    w, mu, sd = (torch.tensor(v, dtype=torch.float64) for v in ([0.3, 0.7], [-1, 2], [1, 0.5]))
    s = torch.stack([w, w * mu, w * (sd**2 + mu**2)])
    x = 3 * torch.randn(20, generator=generator, dtype=torch.float64)
    return [
        ("a small step", [s, x, 0.1]),
        ("a full step, which is one of EM", [s, x, 1.0]),
        ("a batch of one point", [s, x[:1], 0.5]),
    ]


_SENT = 10 * (1 + 20 + 400)
_FIRST = 0.1 * 0.9**20
_SLOW = [10.0, 2.5 * math.log10(1 + 0.4 * math.log(10) / 0.1)]

EXERCISES: dict[str, Checker] = {
    "11-1": Value(
        expected=_SENT,
        tolerance=1e-6,
        mistakes=[
            (10 * (1 + 20 + 210), "right, if half of each symmetric matrix were left out."),
            (10 * (1 + 20 + 20), "that is the diagonal family."),
            (_SENT * 1_000_000, "the sums have forgotten how many points there were."),
            (10 * 400, "counts and first moments are sent too."),
            (10 * (20 + 400), "the counts are sent too."),
        ],
        hint="For each component a count, a vector and a matrix.",
        praise="Thirty-four kilobytes in float64, for a million points or for a billion.",
    ),
    "11-2": Value(
        expected=_FIRST,
        tolerance=5e-3,
        mistakes=[
            (0.9**20, "that is what is left of a batch that began with all the weight."),
            (0.1 * 0.9**21, "twenty batches came after it, not twenty-one."),
            (0.1 * 0.9**19, "twenty batches came after it, not nineteen."),
            (1 / 21, "all batches weigh the same with steps 1/t, not with a constant one."),
        ],
        hint="It came in with the step, and each later batch leaves 1 minus the step of it.",
        praise="A constant step forgets by the same factor, batch for batch.",
    ),
    "11-3": Value(
        expected=780,
        tolerance=1e-3,
        mistakes=[
            (39, "so many batches; each holds twenty points."),
            (400, "1 / eta batches have most of the weight; the variance counts twice as many."),
            (800, "close: 2 / eta is what small steps come to; here exactly (2 - eta) / eta."),
            (20, "that is a single batch."),
        ],
        hint="The sum of the squared weights is a geometric series.",
        praise="More points in the stream do not help: it is the price of following.",
    ),
    "11-4": Code(
        reference=_step,
        cases=_cases(),
        mistakes=[
            (_summed, "the statistics are means: divide by the number of points in the batch."),
            (_turned, "eta is the share of the new batch, not of the old statistics."),
            (_as_variance, "s[2] is the second moment; the variance lacks the squared mean."),
            (lambda s, x, eta: s, "nothing has moved."),
        ],
        hint="Weights, means and variances from s; responsibilities; their means over the batch; "
        "then a share eta of the way.",
        praise="That is all of it: the M-step happens at the beginning of the next call.",
    ),
    "11-5": Value(
        expected=_SLOW,
        tolerance=5e-3,
        mistakes=[
            ([_SLOW[1], _SLOW[0]], "in the other order: the first is for alpha = 1."),
            ([1.0, _SLOW[1]], "at alpha = 1 the error falls like T^-(1 - gamma), not like 1/T."),
            ([_SLOW[0], _SLOW[1] / 2.5], "that is for T^0.4; T is its power of 2.5."),
            (
                [10, 2.4103],
                "that integral begins at 0, where at alpha = 1 there is none; begin at 1.",
            ),
            ([1e10, 10 ** _SLOW[1]], "as powers of ten: how many digits T has, about."),
        ],
        hint="The steps must add up to log 10 / (1 - gamma). They add up to log T, and to (T^0.4 - "
        "1) / 0.4.",
        praise="Ten thousand million batches against some three hundred.",
    ),
    "11-6": Value(
        expected=9 / 5,
        tolerance=2e-3,
        mistakes=[
            (4 / 3, "that is m = 1."),
            (3 / 5, "the weights sum to 1: t^2 is multiplied by 3, and its square by 9."),
            (9 / 4, "the integral of u^4 is 1/5."),
            (3.0, "that is the largest weight, times T; the variance needs the mean square."),
        ],
        hint="(m + 1)^2 / (2 m + 1).",
        praise="The sooner the start is forgotten, the fewer points speak.",
    ),
    "11-7": Value(
        expected=[6, 79 / 15],
        tolerance=2e-3,
        mistakes=[
            ([6, 78 / 15], "the repeated points add their values too."),
            ([6, 79 / 13], "the sum of fifteen values is divided by fifteen."),
            ([79 / 15, 6], "in the other order."),
            ([6, 6], "the repeated points are 0 and 1, not typical ones."),
        ],
        hint="Fifteen are handed out: all thirteen, and the first two again.",
        praise="And with weights of 0 for the two that are repeated, both are 6.",
    ),
    "11-8": Choice(
        right="c",
        others={
            "a": "alpha = 1 is the slowest of all to leave a bad start.",
            "b": "an average holds on to the steps that were still far away.",
            "d": "the optimum of a thousand points is near that of all; the start was not.",
        },
    ),
}
