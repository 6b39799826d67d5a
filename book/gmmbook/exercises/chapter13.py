"""Exercises of chapter 13, applications."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gmmbook.exercises.checkers import Checker, Choice, Code, Value


def _auroc(strange: Tensor, usual: Tensor) -> Tensor:
    """Share of pairs in the right order, ties one half."""
    gap = strange[:, None] - usual
    return ((gap > 0) + 0.5 * (gap == 0)).mean()


def _auroc_cases() -> list[tuple[str, list[Tensor]]]:
    draws = torch.randn(2, 40, generator=torch.Generator().manual_seed(13), dtype=torch.float64)
    return [
        ("5 anomalies, 40 others", [draws[0, :5] + 1, draws[1]]),
        ("scores with ties", [draws[0, :7].round() + 1, draws[1].round()]),
        ("one anomaly", [draws[0, :1], draws[1]]),
    ]


_RARE = 0.1 / (0.1 + 0.9 * math.exp(-2))

EXERCISES: dict[str, Checker] = {
    "13-1": Value(
        expected=1.2 / 3.7,
        mistakes=[
            (10 / 15, "that is the share of pairs on which both agree, not adjusted for chance."),
            (4 / 6.5, "subtract what chance gives, above and below."),
            (1.2 / 6.5, "chance is subtracted below the line, too."),
            (5 / 6, "that is the share of points on the right side; count pairs."),
        ],
        hint="u = 3 + 3 pairs are in one class; count those in one component, and those in both.",
        praise="Below a half, though five of six points are on the right side.",
    ),
    "13-2": Value(
        expected=_RARE,
        mistakes=[
            (1 - _RARE, "that is p(A | x)."),
            (
                1 / (1 + math.exp(-2)),
                "that takes both classes to be equally frequent; put in the shares.",
            ),
            (
                0.1 / (0.1 + 0.9 * math.exp(-4)),
                "the exponent is half the squared distance: exp(-2).",
            ),
            (0.1, "that is the share before the point was seen."),
        ],
        hint="Weigh the density of each class at 2 by its share.",
        praise="Shares of nine to one outweigh two standard deviations: 9 is more than e squared.",
    ),
    "13-3": Value(
        expected=100**-0.1,
        mistakes=[
            (0.01, "each of the ten directions pays; the log is divided by ten."),
            (100**-0.2, "log det is 2 D log sigma, and it is halved."),
            (100**0.1, "the sign: to be rare costs, so to be equal they must be narrow."),
            (10**-0.1, "there are 1,000 points: N / m is 100."),
        ],
        hint="The ten pay log(N / m) for being rare; D log(sigma) must make up for it.",
        praise="In many directions a little is enough.",
    ),
    "13-4": Value(
        expected=[0.6 * math.sqrt(0.5), 0.6 / math.sqrt(0.68)],
        mistakes=[
            (
                [0.6 / math.sqrt(0.68), 0.6 * math.sqrt(0.5)],
                "the other way round: the mean is asked first.",
            ),
            ([0.3, 0.6 / math.sqrt(0.68)], "the variance shrinks too: take the root of 0.5."),
            (
                [0.6 * math.sqrt(0.5), 0.6],
                "the covariance is right, but the variance is too small.",
            ),
            (
                [0.6 * math.sqrt(0.5), 0.6 / math.sqrt(0.5)],
                "filled values do vary, by the share rho squared.",
            ),
        ],
        hint="A correlation is a covariance over the root of two variances: which shrink?",
        praise="One too low, one too high; a draw is neither.",
    ),
    "13-5": Choice(
        right="b",
        others={
            "a": "that is so where distances mix colors and places; full covariances follow.",
            "c": "the family follows the change; no segment changes.",
            "d": "a density changes with its units.",
        },
    ),
    "13-6": Code(
        reference=_auroc,
        cases=_auroc_cases(),
        mistakes=[
            (lambda strange, usual: 1 - _auroc(strange, usual), "the other way round."),
            (
                lambda strange, usual: (strange[:, None] > usual).double().mean(),
                "ties count one half.",
            ),
            (
                lambda strange, usual: (strange[:, None] >= usual).double().mean(),
                "ties count one half, not one.",
            ),
            (
                lambda strange, usual: (strange > usual.mean()).double().mean(),
                "each anomaly is compared with each other row, not with their mean.",
            ),
        ],
        hint="A table of all pairs: anomalies down, others across.",
        praise="A mean over pairs; no threshold was chosen.",
    ),
    "13-7": Value(
        expected=-0.3,
        mistakes=[
            (1.5, "these are in different units: add the mean logarithm first."),
            (0.3, "the sign: which of the two NLLs is the lower one in dollars?"),
            (3.3, "the mean logarithm is added to 0.5, not taken from it."),
        ],
        hint="Move the 0.5 to dollars, then compare.",
        praise="All of the lead, and more, was units.",
    ),
}
