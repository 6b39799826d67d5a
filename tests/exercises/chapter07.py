"""Answers to the exercises of chapter 07, right and wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy.integrate import quad
from scipy.stats import norm
from torch import Tensor

from exercises.cases import Case


def _rate(mu: float, power: int = 2) -> float:
    """By adaptive quadrature and scipy's densities."""

    def integrand(x: float) -> float:
        density = 0.5 * (norm.pdf(x, mu) + norm.pdf(x, -mu))
        return float(density * x**2 / math.cosh(mu * x) ** power)

    return float(quad(integrand, -12, 12, epsabs=1e-12)[0])


RATES = [_rate(1.0), _rate(2.0)]


def _iterations() -> int:
    """By counting."""
    count, excess = 0, 1.0
    while excess > 1e-6:
        count, excess = count + 1, excess * 0.98**2
    return count


def _means(m: Tensor, s: Tensor, g: Tensor, w: Tensor) -> Tensor:
    """Component by component."""
    return torch.stack([m[k] - s[k] @ g[k] / w[k] for k in range(len(m))])


def _leap(u0: Tensor, u1: Tensor, u2: Tensor) -> Any:
    a, b, c = (u.numpy() for u in (u0, u1, u2))
    length = np.linalg.norm(b - a) / np.linalg.norm(c - 2 * b + a)
    return (1 - length) ** 2 * a + 2 * length * (1 - length) * b + length**2 * c


def _best_relaxation() -> list[float]:
    omega = np.linspace(0.5, 2.0, 150_001)
    rates = np.linspace(0, 0.99, 100)
    worst = np.maximum(abs(1 - omega * (1 - rates[0])), abs(1 - omega * (1 - rates[-1])))
    return [float(omega[worst.argmin()]), float(worst.min())]


OMEGA = _best_relaxation()
LABELS = math.log10(0.891) / math.log10(0.99)

CASES = {
    "07-1": Case(
        right=[_iterations(), 341.9, torch.tensor(342)],
        wrong=[
            (684, "parameters"),
            (171, "twice"),
            (57, "six are wanted"),
            (148.5, "power of 10"),
            (350, "close"),
        ],
    ),
    "07-2": Case(
        right=["bc", "cb", ["b", "c"]],
        wrong=[("b", "not all"), ("abc", "units"), ("bcd", "L-BFGS"), ("bce", "learning rate")],
    ),
    "07-3": Case(
        right=[_means, lambda *a: _means(*a).tolist()],
        wrong=[
            (lambda m, s, g, w: m - (s @ g[..., None])[..., 0], "share"),
            (lambda m, s, g, w: m - (s @ g[..., None])[..., 0] * w[:, None], "divides"),
            (lambda m, s, g, w: 2 * m - _means(m, s, g, w), "uphill"),
            (lambda m, s, g, w: m - g / w[:, None], "covariance is missing"),
            (
                lambda m, s, g, w: m - s.diagonal(dim1=1, dim2=2) * g / w[:, None],
                "off the diagonal",
            ),
            (lambda m, s, g, w: _means(m, s, g, w) - m, "the step"),
        ],
    ),
    "07-4": Case(
        right=[RATES, torch.tensor(RATES), [round(rate, 4) for rate in RATES]],
        wrong=[
            ([_rate(1.0, 1), _rate(2.0, 1)], "square of cosh"),
            ([_rate(1.0, 0), _rate(2.0, 0)], "E[x^2]"),
            ([_rate(1.0, 4), _rate(2.0, 4)], "too many"),
            ([0.27, 0.02], "three digits"),
            ([0.27, 0.022], "close"),
            (RATES[0], "shape"),
            (RATES[::-1], "order"),
        ],
    ),
    "07-5": Case(
        right=[_leap],
        wrong=[
            (lambda a, b, c: c, "second step"),
            (
                lambda a, b, c: (
                    a
                    - 2 * (b - a) * (b - a).norm() / (c - 2 * b + a).norm()
                    + (c - 2 * b + a) * ((b - a).norm() / (c - 2 * b + a).norm()) ** 2
                ),
                "against it",
            ),
            (
                lambda a, b, c: (
                    a + (b - a) ** 2 / (c - 2 * b + a) * 2 + (b - a) ** 2 / (c - 2 * b + a)
                ),
                "two lengths",
            ),
            (
                lambda a, b, c: a + (b - a) * (b - a).norm() / (c - 2 * b + a).norm(),
                "single leap",
            ),
            (
                lambda a, b, c: (
                    a
                    + 2 * (b - a) * (c - 2 * b + a).norm() / (b - a).norm()
                    + (c - 2 * b + a) * ((c - 2 * b + a).norm() / (b - a).norm()) ** 2
                ),
                "other quotient",
            ),
        ],
    ),
    "07-6": Case(
        right=[LABELS, 11.5, torch.tensor(LABELS), 11, 12, 0.109 / 0.01],
        wrong=[
            (0.891, "new rate"),
            (1.11, "logarithm"),
            (10, "nine tenths"),
            (9, "information matrix"),
            (1 / LABELS, "reverse"),
        ],
    ),
    "07-7": Case(
        right=[OMEGA, torch.tensor(OMEGA), [1.98, 0.98]],
        wrong=[
            ([2.0, 0.98], "fast end"),
            ([1.99, 0.99], "fast one"),
            ([1.0, 0.99], "EM itself"),
            ([100.0, 0.0], "fastest"),
            (OMEGA[::-1], "first omega"),
            (1.98, "shape"),
        ],
    ),
}
