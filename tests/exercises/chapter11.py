"""Answers to the exercises of chapter 11, right and wrong."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, Normal

from exercises.cases import Case


def _mixture(s: Tensor) -> MixtureSameFamily:
    mu = s[1] / s[0]
    return MixtureSameFamily(Categorical(s[0]), Normal(mu, (s[2] / s[0] - mu**2).sqrt()))


def _point_by_point(s: Tensor, x: Tensor, eta: float) -> Tensor:
    mixture, fresh = _mixture(s), torch.zeros_like(s)
    for point in x:
        r = mixture.mixture_distribution.logits + mixture.component_distribution.log_prob(point)
        r = r.exp() / r.exp().sum()
        fresh += torch.stack([r, r * point, r * point * point]) / len(x)
    return (1 - eta) * s + eta * fresh


def _sums(s: Tensor, x: Tensor, eta: float) -> Tensor:
    fresh = (_point_by_point(s, x, eta) - (1 - eta) * s) / eta
    return (1 - eta) * s + eta * len(x) * fresh


def _without_square(s: Tensor, x: Tensor, eta: float) -> Tensor:
    """The variance as the second moment alone."""
    wide = torch.stack([s[0], s[1], s[2] + s[1] ** 2 / s[0]])
    return (1 - eta) * s + eta * _point_by_point(wide, x, 1.0)


CASES = {
    "11-1": Case(
        right=[4210, 4210.0, torch.tensor(4210)],
        wrong=[(2310, "symmetric"), (410, "diagonal"), (4000, "counts"), (4200, "the counts are")],
    ),
    "11-2": Case(
        right=[0.1 * 0.9**20, 0.012158, torch.tensor(0.01216), 0.0122],
        wrong=[(0.1216, "all the weight"), (0.01094, "twenty-one"), (1 / 21, "constant")],
    ),
    "11-3": Case(
        right=[780, 39 * 20.0, torch.tensor(780.0)],
        wrong=[(39, "twenty points"), (400, "twice"), (800, "close")],
    ),
    "11-4": Case(
        right=[_point_by_point, lambda s, x, eta: s + eta * (_point_by_point(s, x, 1.0) - s)],
        wrong=[
            (_sums, "means"),
            (lambda s, x, eta: _point_by_point(s, x, 1 - eta), "share"),
            (_without_square, "squared mean"),
            (lambda s, x, eta: s, "moved"),
        ],
    ),
    "11-5": Case(
        right=[
            [10, 2.52],
            (10.0, 2.49),
            torch.tensor([10, 2.5 * math.log10(1 + 4 * math.log(10))]),
        ],
        wrong=[
            ([2.52, 10], "order"),
            ([1.0, 2.52], "1/T"),
            ([10, 1.009], "power of 2.5"),
            ([10, 2.41], "begin at 1"),
            ([1e10, 333.1], "powers of ten"),
        ],
    ),
    "11-6": Case(
        right=[1.8, 9 / 5, torch.tensor(1.8)],
        wrong=[(4 / 3, "m = 1"), (0.6, "sum to 1"), (2.25, "1/5")],
    ),
    "11-7": Case(
        right=[[6, 79 / 15], (6.0, 5.2667), torch.tensor([6.0, 5.2667])],
        wrong=[([6, 5.2], "values too"), ([6, 6.0769], "fifteen"), ([6, 6], "typical")],
    ),
    "11-8": Case(right=["c", "C"], wrong=[("a", "slowest"), ("b", "holds on"), ("d", "near")]),
}
