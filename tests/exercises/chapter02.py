"""Answers to the exercises of chapter 02, right and wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from exercises.cases import Case


def logistic_by_inverse(weights: Tensor, means: Tensor, covariance: Tensor) -> Tensor:
    """Log odds at the origin and at the unit vectors, from densities: they are linear."""
    points = torch.cat([torch.zeros(1, len(covariance)), torch.eye(len(covariance))]).double()
    odds = sum(
        sign
        * (torch.distributions.MultivariateNormal(mean, covariance).log_prob(points) + weight.log())
        for sign, mean, weight in zip((1, -1), means, weights, strict=True)
    )
    assert isinstance(odds, Tensor)
    return torch.cat([odds[1:] - odds[0], odds[:1]])


def covariance_by_second_moments(weights: Tensor, means: Tensor, covariances: Tensor) -> Tensor:
    second = torch.stack([c + torch.outer(m, m) for c, m in zip(covariances, means, strict=True)])
    mean = (weights[:, None] * means).sum(0)
    return torch.tensordot(weights, second, 1) - torch.outer(mean, mean)


def within(weights: Tensor, means: Tensor, covariances: Tensor) -> Tensor:
    return torch.tensordot(weights, covariances, 1)


def second_moment(weights: Tensor, means: Tensor, covariances: Tensor) -> Tensor:
    return within(weights, means, covariances) + means.T @ torch.diag(weights) @ means


def by_assignment(means: Tensor, others: Tensor) -> Any:
    return linear_sum_assignment((torch.cdist(means, others) ** 2).numpy())[1]


def by_distance(means: Tensor, others: Tensor) -> Any:
    return linear_sum_assignment(torch.cdist(means, others).numpy())[1]


def greedy(means: Tensor, others: Tensor) -> Tensor:
    free = list(range(len(others)))
    order = []
    for mean in means:
        order.append(min(free, key=lambda k: float((others[k] - mean).norm())))
        free.remove(order[-1])
    return torch.tensor(order)


CASES = {
    "02-1": Case(
        right=[2 + np.log(9) / 4, torch.tensor(2.5493), [2.5493]],
        wrong=[
            (2, "before they are weighted"),
            (1.4507, "wrong way"),
            (4.197, "slope"),
            (2.5, "digits"),
            (7.0, "log odds"),
        ],
    ),
    "02-2": Case(
        right=[logistic_by_inverse],
        wrong=[
            (
                lambda w, m, c: logistic_by_inverse(torch.ones(2).double(), m, c),
                "where are the weights",
            ),
            (lambda w, m, c: logistic_by_inverse(w.flip(0), m.flip(0), c), "component 2"),
            (lambda w, m, c: logistic_by_inverse(w, m, torch.eye(len(c)).double()), "not used"),
            (lambda w, m, c: m[0] - m[1], "shape"),
            (3.0, "function"),
        ],
    ),
    "02-3": Case(
        right=[covariance_by_second_moments],
        wrong=[
            (within, "within"),
            (second_moment, "not measured from the mean"),
            (lambda w, m, c: covariance_by_second_moments(w, m, 0 * c), "between the means"),
            (lambda w, m, c: covariance_by_second_moments(w, m, c).diagonal(), "shape"),
            (
                lambda w, m, c: covariance_by_second_moments(0 * w + 1 / len(w), m, c),
                "by its weight",
            ),
        ],
    ),
    "02-4": Case(
        right=["ace", "eca", "A, C, E", ["a", "c", "e"]],
        wrong=[
            ("ac", "not all. Two labels"),
            ("ae", "every statement about weights"),
            ("ce", "the loss"),
            ("abce", "accident"),
            ("d", "names"),
            ("f", "letters of your answers"),
        ],
    ),
    "02-5": Case(
        right=[by_assignment],
        wrong=[
            (lambda m, o: torch.cdist(m, o).argmin(1), "used twice"),
            (lambda m, o: np.argsort(by_assignment(m, o)), "inverse"),
            (greedy, "bad one for the last"),
            (by_distance, "squared"),
            (lambda m, o: o[by_assignment(m, o)], "shape"),
        ],
    ),
    "02-6": Case(
        right=[0.3802, torch.tensor(0.38)],
        wrong=[
            (0.6198, "heavier"),
            (0.6134, "ratio"),
            (0.5, "go lower"),
            (0.4, "three digits"),
            (0.37, "close"),
            (0.05, "sign changes"),
        ],
    ),
    "02-7": Case(
        right=[0.71, 0.72, torch.tensor([0.73])],
        wrong=[
            (0.7, "narrow"),
            (0.5**0.5, "narrow"),
            (0.74, "wide"),
            (-0.72, "positive"),
            ([0.71, 0.72], "one number"),
        ],
    ),
}
