"""Answers to the exercises of chapter 09, right and wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy.special import logsumexp
from torch import Tensor

from exercises.cases import Case


def _icl_by_loop(a: Tensor, p: int) -> float:
    total = p * math.log(len(a))
    for row in a.tolist():
        log_density = logsumexp(row)
        total -= 2 * (log_density + math.log(max(np.exp(np.array(row) - log_density))))
    return total


def _bic(a: Tensor, p: int) -> Any:
    return p * math.log(len(a)) - 2 * a.logsumexp(1).sum()


def _largest(a: Tensor) -> Tensor:
    return (a.amax(1) - a.logsumexp(1)).sum()


def _underflowing(a: Tensor, p: int) -> Tensor:
    joint = a.exp()
    r = joint / joint.sum(1, keepdim=True)
    return p * math.log(len(a)) - 2 * joint.sum(1).log().sum() - 2 * r.amax(1).log().sum()


def _scores_by_loop(log_prob: Tensor, fold: Tensor) -> list[float]:
    scores = np.array([-float(log_prob[fold[n], n]) for n in range(len(fold))])
    return [
        float(scores.mean()),
        float(np.sqrt(np.mean((scores - scores.mean()) ** 2) / len(scores))),
    ]


def _of_own(log_prob: Tensor, fold: Tensor) -> Tensor:
    return -log_prob[fold, torch.arange(len(fold))]


CASES: dict[str, Case] = {
    "09-1": Case(
        right=[[30, 15 * math.log(150)], torch.tensor([30.0, 75.16]), np.array([30, 75.159])],
        wrong=[
            ([75.159, 30.0], "wrong order"),
            ([15.0, 37.58], "nats"),
            ([28.0, 14 * math.log(150)], "weight too"),
            ([42.0, 21 * math.log(150)], "symmetric"),
            ([30, 75], "close"),
        ],
    ),
    "09-2": Case(
        right=[115, 115.0, torch.tensor(115)],
        wrong=[
            (10, "twice"),
            (116, "already"),
            (115.58, "whole"),
            (115.6, "whole"),
            (563, "weights"),
            (6, "covariance is shared"),
        ],
    ),
    "09-3": Case(
        right=["adf", "fda", "a, d, f"],
        wrong=[
            ("abdf", "prior"),
            ("acdf", "fits and scores"),
            ("adef", "curvature"),
            ("ad", "more"),
        ],
    ),
    "09-4": Case(
        right=[
            _icl_by_loop,
            lambda a, p: p * math.log(len(a)) - 2 * a.amax(1).sum(),
            lambda a, p: _bic(a, p) - 2 * _largest(a),
        ],
        wrong=[
            (_bic, "this is the BIC"),
            (lambda a, p: _bic(a, p) + 2 * _largest(a), "wrong sign"),
            (lambda a, p: _bic(a, p) - _largest(a), "factor of 2"),
            (_underflowing, ""),
        ],
    ),
    "09-5": Case(
        right=[
            _scores_by_loop,
            lambda log_prob, fold: torch.stack(
                [
                    _of_own(log_prob, fold).mean(),
                    _of_own(log_prob, fold).var(correction=0).div(len(fold)).sqrt(),
                ]
            ),
        ],
        wrong=[
            (
                lambda log_prob, fold: torch.stack(
                    [
                        -_of_own(log_prob, fold).mean(),
                        _of_own(log_prob, fold).std(correction=0) / len(fold) ** 0.5,
                    ]
                ),
                "sign",
            ),
            (
                lambda log_prob, fold: torch.stack(
                    [_of_own(log_prob, fold).mean(), _of_own(log_prob, fold).std(correction=0)]
                ),
                "spread",
            ),
            (
                lambda log_prob, fold: torch.stack(
                    [
                        _of_own(log_prob, fold).mean(),
                        _of_own(log_prob, fold).std() / len(fold) ** 0.5,
                    ]
                ),
                "denominator",
            ),
        ],
    ),
    "09-6": Case(
        right=[10, 10.0, torch.tensor(10)],
        wrong=[(20, "twice"), (9, "still below"), (5, "AIC"), (4, "three parameters")],
    ),
    "09-7": Case(
        right=[0.05, 5 / 100, torch.tensor(0.05)],
        wrong=[
            (0.04, "one of the hundred"),
            (0.03, "equal counts"),
            (5 / 99, "below the line"),
            (0.95, "smaller ratio"),
        ],
    ),
}
