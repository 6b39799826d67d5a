"""Exercises of chapter 12, EM as a layer."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from gmmbook.exercises.checkers import Checker, Choice, Code, Value

_TERMS = math.ceil(math.log(0.01) / math.log(0.9))


def _identity(J: Tensor) -> Tensor:
    return torch.eye(len(J), dtype=J.dtype, device=J.device)


def _backward(J: Tensor, B: Tensor, v: Tensor) -> Tensor:
    """B^T (I - J)^-T v."""
    return B.mT @ torch.linalg.solve((_identity(J) - J).mT, v)


def _backward_cases() -> list[tuple[str, list[Any]]]:
    generator = torch.Generator().manual_seed(12)
    cases = []
    for p, n in ((1, 3), (4, 6)):
        J = 0.3 * torch.randn(p, p, generator=generator, dtype=torch.float64)
        B = torch.randn(p, n, generator=generator, dtype=torch.float64)
        v = torch.randn(p, generator=generator, dtype=torch.float64)
        cases.append((f"P = {p}, N = {n}", [J, B, v]))
    return cases


EXERCISES: dict[str, Checker] = {
    "12-1": Value(
        expected=_TERMS,
        tolerance=1e-6,
        mistakes=[
            (_TERMS - 1, "at that many terms the share is still above 1 %."),
            (_TERMS + 1, "it is below 1 %, but was it there for the first time?"),
            *(
                (
                    round(math.log(0.01) / math.log(0.9), digits),
                    "the number of terms is whole: round up.",
                )
                for digits in (1, 2, 3, 4, 12)
            ),
            (22, "that is the count for 10 %: 0.9 to the power 22."),
            (10, "1 / (1 - 0.9) terms leave a share of 0.35."),
        ],
        hint="Which power of 0.9 is the first at or below 0.01?",
        praise="As many as EM needs iterations for two digits.",
    ),
    "12-2": Value(
        expected=[0.25, 0.25],
        mistakes=[
            ([1.0, 0.25], "the mean divides by N: a point is a quarter of it."),
            ([0.25, 0.75], "two numbers divide the 3 here: one is N."),
            ([0.25, 1.0], "that lacks one over N; the variance averages four squares."),
            ([0.25, 0.5], "that is for the log variance; the log standard deviation is asked."),
            (
                [0.25, 0.25 * math.sqrt(3)],
                "that is the derivative of the standard deviation; its log is asked.",
            ),
        ],
        hint="The log standard deviation is half the log of the mean square about the mean.",
        praise="Both a quarter, and in a single step: J is zero with one component.",
    ),
    "12-3": Value(
        expected=0.4,
        mistakes=[
            (0.8, "by how many times epsilon / 4 do the two variances differ?"),
            (0.9, "subtract the second moment: E[x^4] - E[x^2]."),
            (1.8, "that is the fourth moment; go through the M-step."),
            (1.4, "the second moment is subtracted, not added."),
            (0.2, "that is one variance; how do they differ?"),
        ],
        hint="The new variance of component 1 is 2 E[r_1 x^2]; that of component 2 mirrors it.",
        praise="Below 1: on evenly spread points EM makes the variances equal again.",
    ),
    "12-4": Code(
        reference=_backward,
        cases=_backward_cases(),
        mistakes=[
            (
                lambda J, B, v: B.mT @ torch.linalg.solve(_identity(J) - J, v),
                "on the way back I - J is transposed, too.",
            ),
            (lambda J, B, v: B.mT @ v, "that is the one-step gradient: I - J is missing."),
            (
                lambda J, B, v: B.mT @ (v + J.mT @ v),
                "these are two terms of the series; all are wanted.",
            ),
            (
                lambda J, B, v: B.mT @ torch.linalg.solve((_identity(J) + J).mT, v),
                "the sign: I minus J.",
            ),
        ],
        hint="Two steps: one solve, one product; which matrices are transposed?",
        praise="One solve and one product, however many iterations EM took.",
    ),
    "12-5": Choice(
        right="b",
        others={
            "a": "nothing pulls them there: the loss does not see where EM began.",
            "c": "the number of iterations is no part of the loss.",
            "d": "the equation for the fixed point is regular; the start is just not in it.",
        },
    ),
    "12-6": Value(
        expected=7.4,
        mistakes=[
            (1.4, "the two means differ, and both scatter about the new one."),
            (44 / 4, "the pseudo-points scatter as well, and count."),
            (74 / 4, "there are ten points in all."),
            (4.4, "the six pseudo-points scatter, too: 6 (1 + 2^2)."),
            (2.0, "that is the mean, or the variance of the points; that of the fit is asked."),
        ],
        hint="The mean first; then scatter of points and of pseudo-points about it, over ten.",
        praise="A prior that disagrees on the place makes a component wide.",
    ),
    "12-7": Value(
        expected=[-0.3, -1 / 3],
        mistakes=[
            ([0.3, 1 / 3], "the sign: without a high point the mean falls."),
            ([-1 / 3, -0.3], "the other way round: the prediction divides by N."),
            ([-0.3, -0.3], "in truth nine points are left."),
            ([-3.0, -3.0], "the mean is one of N shares."),
        ],
        hint="Write the mean with weights, and differentiate at weights 1.",
        praise="First order in one over N: good where no point is alone.",
    ),
}
