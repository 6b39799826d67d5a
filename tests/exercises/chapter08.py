"""Answers to the exercises of chapter 08, right and wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from exercises.cases import Case
from gmmedu import load_galaxies


def _floor_by_svd(covariances: Tensor, min_sd: float) -> Tensor:
    left, values, right = torch.linalg.svd(covariances)
    return left @ torch.diag_embed(values.clamp_min(min_sd**2)) @ left.mT + 0 * right


def _floor_by_numpy(covariances: Tensor, min_sd: float) -> Any:
    result = []
    for matrix in covariances.numpy():
        values, axes = np.linalg.eigh(matrix)
        result.append(axes @ np.diag(np.maximum(values, min_sd**2)) @ axes.T)
    return np.stack(result)


def _floor_in_place(covariances: Tensor, min_sd: float) -> Tensor:
    covariances.diagonal(dim1=-2, dim2=-1).clamp_(min=min_sd**2)
    return covariances


def _map_by_search(
    traces: Tensor, counts: Tensor, num_dims: int, psi: float, nu: float
) -> list[float]:
    """By minimizing the penalized objective, one component after another."""
    found = []
    for trace, count in zip(traces.tolist(), counts.tolist(), strict=True):

        def objective(log_variance: float, trace: float = trace, count: float = count) -> float:
            points = count + nu + num_dims + 1
            scatter = trace + num_dims * psi
            return points * num_dims * log_variance + scatter * math.exp(-log_variance)

        found.append(math.exp(minimize_scalar(objective, (-1, 1), tol=1e-14).x))
    return found


def _least_scatter(points: np.ndarray[Any, np.dtype[np.float64]], num_groups: int) -> float:
    """By dynamic programming over sorted points."""
    x = np.sort(points)
    n = len(x)
    sums, squares = np.insert(x.cumsum(), 0, 0), np.insert((x * x).cumsum(), 0, 0)

    def scatter(i: int, j: int) -> float:
        return float(squares[j] - squares[i] - (sums[j] - sums[i]) ** 2 / (j - i))

    best = [math.inf] + [scatter(0, j) for j in range(1, n + 1)]
    for _ in range(num_groups - 1):
        best = [math.inf] + [
            min([scatter(0, j), *(best[i] + scatter(i, j) for i in range(1, j))])
            for j in range(1, n + 1)
        ]
    return best[n]


_SPEED = load_galaxies().flatten().numpy()
_LEAST = _least_scatter(_SPEED, 3)
#: The bound by a search over the smallest width.
_BOUND = float(
    minimize_scalar(
        lambda t: 0.5 * math.log(2 * math.pi) + t + 0.01 * _LEAST / 82 / 2 * math.exp(-2 * t),
        (-3, 1),
    ).fun
)

CASES = {
    "08-1": Case(
        right=["bd", "d, b", ["b", "d"]],
        wrong=[
            ("b", "not all"),
            ("abd", "cover the other"),
            ("bcd", "parallel lines"),
            ("bde", "mean of its own"),
            ("bdf", "cannot shrink"),
        ],
    ),
    "08-2": Case(
        right=[0.06 * math.log(2), 0.0416, torch.tensor(0.04159)],
        wrong=[
            (0.02 * math.log(2), "onto a point"),
            (30 * math.log(2), "mean over the points"),
            (0.06, "log sigma change"),
            (0.05 * math.log(2), "D - m + 1"),
            (-0.06 * math.log(2), "sign"),
            (0.0605 * math.log(2), "whole number"),
        ],
    ),
    "08-3": Case(
        right=[3, torch.tensor(3), 3.0],
        wrong=[
            (4, "another"),
            (12, "only one"),
            (2, "two parallel lines"),
            (11, "shared isotropic"),
        ],
    ),
    "08-4": Case(
        right=[_floor_by_svd, _floor_by_numpy],
        wrong=[
            (_floor_in_place, "changes its arguments"),
            (lambda c, s: c.clamp_min(s**2), "eigh"),
            (lambda c, s: c + s**2 * torch.eye(3, dtype=c.dtype), "ridge"),
            (lambda c, s: _floor_by_svd(c, s**0.5), "variances"),
            (
                lambda c, s: (
                    c + torch.diag_embed((s**2 - c.diagonal(dim1=-2, dim2=-1)).clamp_min(0))
                ),
                "narrowest direction",
            ),
        ],
    ),
    "08-5": Case(
        right=[_map_by_search, lambda t, n, d, p, v: (t / d + p) / (n + v + d + 1)],
        wrong=[
            (lambda t, n, d, p, v: (t + p) / (d * (n + v + d + 1)), "D terms"),
            (lambda t, n, d, p, v: (t + d * p) / (n + v + d + 1), "divide by D"),
            (lambda t, n, d, p, v: (t / d + p) / (n + v), "power of the determinant"),
            (lambda t, n, d, p, v: (t / d + p) / (n + v + d + 2), "no"),
            (lambda t, n, d, p, v: t / (d * n), "maximum likelihood"),
        ],
    ),
    "08-6": Case(
        right=[1382, 1381.55, torch.tensor(1382), 1383],
        wrong=[
            (600, "base 10"),
            (2763, "variance"),
            (3454, "plain gradient descent"),
            (1e8, "not the width"),
            (13.8, "learning rate"),
        ],
    ),
    "08-7": Case(
        right=[_BOUND, round(_BOUND, 4), torch.tensor(_BOUND)],
        wrong=[
            (_BOUND + math.log(10), "shared width"),
            (_BOUND + 2 * math.log(10), "which side"),
            (_BOUND + 0.5 * math.log(10), "square"),
            (82 * _BOUND, "bound of f"),
            (_BOUND + 0.5 * math.log(82), "divide by N"),
            (_BOUND - 0.5, "lost"),
        ],
    ),
}
