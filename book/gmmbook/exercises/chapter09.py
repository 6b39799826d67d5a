"""Exercises of chapter 09, how many components."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from gmmbook.exercises.checkers import Checker, Choice, Code, Value


def _icl(a: Tensor, p: int, *, factor: float = 2.0, sign: float = -1.0, soft: bool = False) -> Any:
    log_density = a.logsumexp(1)
    r = (a - log_density.unsqueeze(1)).exp()
    sharpness = r.amax(1).log()
    if soft:
        sharpness = torch.xlogy(r, r).sum(1)
    bic = p * math.log(len(a)) - 2 * log_density.sum()
    return bic + sign * factor * sharpness.sum()


def _joint_cases() -> list[tuple[str, list[Any]]]:
    generator = torch.Generator().manual_seed(9)
    mixed = torch.randn(12, 3, generator=generator, dtype=torch.float64) - 3
    return [
        ("points that components share", [mixed, 8]),
        ("points with an owner each", [20 * mixed, 5]),
        ("one component", [mixed[:, :1], 2]),
        ("densities that underflow", [mixed - 2000, 8]),
    ]


def _scores(log_prob: Tensor, fold: Tensor, *, correction: int = 0, root: bool = True) -> Tensor:
    scores = -log_prob[fold, torch.arange(len(fold))]
    error = scores.std(correction=correction)
    return torch.stack([scores.mean(), error / len(fold) ** 0.5 if root else error])


def _fold_cases() -> list[tuple[str, list[Any]]]:
    generator = torch.Generator().manual_seed(10)
    log_prob = torch.randn(4, 22, generator=generator, dtype=torch.float64) - 4
    fold = torch.arange(22).remainder(4)[torch.randperm(22, generator=generator)]
    return [
        ("four folds", [log_prob, fold]),
        ("two folds of unequal size", [log_prob[:2, :7], torch.tensor([0, 1, 1, 0, 0, 1, 0])]),
    ]


def _seen(log_prob: Tensor, fold: Tensor) -> Tensor:
    """The scores of the fits that have seen the point."""
    own = torch.arange(len(log_prob)).unsqueeze(1) == fold
    scores = -log_prob[~own]
    return torch.stack([scores.mean(), scores.std(correction=0) / len(fold) ** 0.5])


EXERCISES: dict[str, Checker] = {
    "09-1": Value(
        expected=[30.0, 15 * math.log(150)],
        mistakes=[
            (
                [15 * math.log(150), 30.0],
                "both are right, in the wrong order: AIC first.",
            ),
            (
                [15.0, 7.5 * math.log(150)],
                "these are nats of log likelihood; the criteria are twice that.",
            ),
            (
                [28.0, 14 * math.log(150)],
                "a component brings a weight too, so 15 numbers and not 14.",
            ),
            (
                [18.0, 9 * math.log(150)],
                "that is a diagonal component: a full covariance in four dimensions has ten "
                "numbers.",
            ),
            (
                [42.0, 21 * math.log(150)],
                "a covariance is symmetric: ten of its sixteen numbers are free.",
            ),
        ],
        hint="Count what a third component adds: its weight, its mean, its covariance. Then put "
        "that into the penalties of AIC and BIC.",
        praise="That is why a full family in many dimensions is rarely allowed a third component.",
    ),
    "09-2": Value(
        expected=float(math.floor(math.exp(19 / 4))),
        mistakes=[
            (
                float(math.floor(math.exp(19 / 8))),
                "the gain enters BIC twice: 2 log L.",
            ),
            (
                float(math.floor(math.exp(38 / 20))),
                "the covariance is shared: no component brings one of its own.",
            ),
            *(
                (round(math.exp(19 / 4), digits), "a number of points is whole: round down.")
                for digits in (1, 2, 3, 4, 12)
            ),
            (
                float(math.ceil(math.exp(19 / 4))),
                "at that N the penalty is above the gain already: the largest before it.",
            ),
            (
                float(math.floor(math.exp(38 / 6))),
                "the two weights count too.",
            ),
        ],
        tolerance=1e-6,
        hint="How many numbers more has the larger mixture, if the covariance is shared? BIC takes "
        "it while those, times log N, cost less than twice the gain.",
        praise="With more points the same gain in total is less convincing: more of them could "
        "have made it by chance.",
    ),
    "09-3": Choice(
        right="adf",
        others={
            "b": "Of the prior nothing that grows with N is left, and the rest is dropped.",
            "c": "Cross-validation fits and scores, and expands nothing.",
            "e": "A second component has directions without any curvature, so the expansion that "
            "gives a chi-square does not exist.",
        },
        missing={
            "a": "One more is true: when is the covariance of the slopes the curvature?",
            "d": "One more is true: which sign has the logarithm of a responsibility?",
            "f": "One more is true: what is a criterion told about the optimum?",
        },
        praise="Each criterion is an answer to its own question, if its assumptions hold.",
    ),
    "09-4": Code(
        reference=_icl,
        cases=_joint_cases(),
        mistakes=[
            (
                lambda a, p: _icl(a, p, factor=0.0),
                "this is the BIC: the term of the responsibilities is missing.",
            ),
            (
                lambda a, p: _icl(a, p, sign=1.0),
                "the last term has the wrong sign: a shared point must raise the ICL.",
            ),
            (
                lambda a, p: _icl(a, p, factor=1.0),
                "the last term has a factor of 2.",
            ),
            (
                lambda a, p: _icl(a, p, soft=True),
                "this takes the entropy of each row; the largest responsibility is wanted.",
            ),
            (
                lambda a, p: 2 * p + _icl(a, 0),
                "the penalty is p log N, as in the BIC.",
            ),
        ],
        hint="Write both terms by the entries of a row and its log-sum-exp.",
        praise="Together the two sums are those of the largest entries: the log likelihood of "
        "points and labels.",
    ),
    "09-5": Code(
        reference=_scores,
        cases=_fold_cases(),
        mistakes=[
            (
                lambda log_prob, fold: _scores(-log_prob, fold),
                "the score is a negative log likelihood: the sign is wrong.",
            ),
            (
                lambda log_prob, fold: _scores(log_prob, fold, root=False),
                "that is the spread of the scores; the standard error of their mean is wanted.",
            ),
            (
                lambda log_prob, fold: _scores(log_prob, fold, correction=1),
                "the variance has N in its denominator here, not N - 1.",
            ),
            (
                _seen,
                "those are the fits that have seen the point: row i has left fold i out.",
            ),
        ],
        hint="Each point has one score: in the row whose number is its fold.",
        praise="Every point is scored once, by a fit that has not seen it.",
    ),
    "09-6": Value(
        expected=10.0,
        mistakes=[
            (
                float(math.ceil(3 * math.log(82) / math.log(2))),
                "the gain counts twice in BIC, so half of the penalty is enough.",
            ),
            (9.0, "that gain is still below the price that BIC asks."),
            (
                float(math.ceil(3 / math.log(2))),
                "that is the price that AIC asks: BIC's is p log N.",
            ),
            (
                float(math.ceil(0.5 * math.log(82) / math.log(2))),
                "the component has three parameters: a weight, a mean and a width.",
            ),
        ],
        tolerance=1e-6,
        hint="What does BIC ask for a component here, in nats of the log likelihood?",
        praise="The price grows with the logarithm of N, and the reward without end.",
    ),
    "09-7": Value(
        expected=0.05,
        mistakes=[
            (0.04, "the data are one of the hundred, and as large as themselves."),
            (4 / 99, "the data are one of the hundred, and as large as themselves."),
            (0.03, "a ratio that is equal counts, and so do the data themselves."),
            (3 / 99, "a ratio that is equal counts, and so do the data themselves."),
            (5 / 99, "the data count below the line too: s + 1."),
            (0.96, "those are the samples with a smaller ratio, and one."),
            (0.95, "those are the samples with a smaller ratio."),
        ],
        tolerance=1e-6,
        hint="Count the samples whose ratio is not smaller, add the data themselves, and divide by "
        "how many there are with the data.",
        praise="So the smallest p-value is one over the samples and one more.",
    ),
}
