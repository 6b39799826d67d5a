"""Exercises of chapter 07, descent versus EM."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gmmbook.exercises.checkers import Checker, Choice, Code, Value


def _expectation(mu: float, *, power: int = 2, centers: bool = True) -> float:
    """E[x^2 / cosh^power(mu x)] over the symmetric mixture, or a standard normal."""
    x = torch.linspace(-12, 12, 4801, dtype=torch.float64)
    at = (mu, -mu) if centers else (0.0, 0.0)
    density = sum((-0.5 * (x - m).square()).exp() for m in at) / math.sqrt(8 * math.pi)
    return float(torch.trapezoid(density * x.square() / torch.cosh(mu * x) ** power, x))


def _rates(**changes: int | bool) -> list[float]:
    return [
        _expectation(mu, **changes)  # type: ignore[arg-type]
        for mu in (1.0, 2.0)
    ]


def _means_after(
    means: Tensor,
    covariances: Tensor,
    gradient: Tensor,
    new_weights: Tensor,
    *,
    power: int = 1,
    sign: int = -1,
) -> Tensor:
    step = (covariances @ gradient.unsqueeze(-1)).squeeze(-1)
    return means + sign * step / new_weights.unsqueeze(-1) ** power


def _means_cases() -> list[tuple[str, list[Tensor]]]:
    g = torch.Generator().manual_seed(7)

    def case(k: int, d: int) -> list[Tensor]:
        root = torch.randn(k, d, d, generator=g, dtype=torch.float64)
        shares = torch.rand(k, generator=g, dtype=torch.float64) + 0.2
        identity = torch.eye(d, dtype=torch.float64)
        return [
            torch.randn(k, d, generator=g, dtype=torch.float64),
            root @ root.mT + identity,
            0.1 * torch.randn(k, d, generator=g, dtype=torch.float64),
            shares / shares.sum(),
        ]

    return [
        ("one dimension", case(2, 1)),
        ("two dimensions", case(3, 2)),
        ("five dimensions", case(2, 5)),
    ]


def _diagonal_only(means: Tensor, covariances: Tensor, gradient: Tensor, weights: Tensor) -> Tensor:
    variances = covariances.diagonal(dim1=-2, dim2=-1)
    return means - variances * gradient / weights.unsqueeze(-1)


def _leap(
    u0: Tensor,
    u1: Tensor,
    u2: Tensor,
    *,
    doubled: bool = True,
    squared: bool = True,
    inverted: bool = False,
    sign: int = 1,
) -> Tensor:
    r, v = u1 - u0, u2 - 2 * u1 + u0
    a = v.norm() / r.norm() if inverted else r.norm() / v.norm()
    return u0 + sign * (2 if doubled else 1) * a * r + (a**2 if squared else a) * v


def _leap_by_entries(u0: Tensor, u1: Tensor, u2: Tensor) -> Tensor:
    s, v = u1 - u0, u2 - 2 * u1 + u0
    return u0 + 2 * (s / v) * s + (s / v) ** 2 * v


def _leap_cases() -> list[tuple[str, list[Tensor]]]:
    def path(end: list[float], away: list[float], rates: list[float]) -> list[Tensor]:
        e, w, lam = (torch.tensor(row, dtype=torch.float64) for row in (end, away, rates))
        return [e + w * lam**t for t in range(3)]

    return [
        ("two rates", path([0.0, 4.0, 1.0], [1.0, 2.0, 0.5], [0.95, 0.2, 0.2])),
        ("one rate for all", path([1.0, -2.0, 0.5], [3.0, 1.0, -2.0], [0.9, 0.9, 0.9])),
        ("a single number", path([2.0], [1.0], [0.75])),
    ]


_SIX_DIGITS = 6 * math.log(10) / (-2 * math.log(0.98))
_LABELS = math.log(0.9 * 0.99) / math.log(0.99)
_OMEGA = 2 / 1.01

EXERCISES: dict[str, Checker] = {
    "07-1": Value(
        expected=_SIX_DIGITS,
        tolerance=4e-3,
        mistakes=[
            (
                2 * _SIX_DIGITS,
                "this is for the error of the parameters. How does the excess of f depend on it?",
            ),
            (_SIX_DIGITS / 2, "the square was taken twice."),
            (_SIX_DIGITS / 6, "this is for one digit, and six are wanted."),
            (_SIX_DIGITS / math.log(10), "a million is a power of 10, not of e."),
        ],
        hint="The excess is multiplied by one factor at each iteration: which power of it is 1e-6?",
        praise="A slow rate is paid for once for each digit.",
    ),
    "07-2": Choice(
        right="bc",
        others={
            "a": "look at the matrix P: what happens to it, and to the gradient, in other units?",
            "d": "what does an iteration of L-BFGS cost?",
            "e": "in the figure of rates, plain descent has its best learning rate already.",
        },
        praise="What is hidden makes EM slow, and a leap must be looked at before it is kept.",
    ),
    "07-3": Code(
        reference=_means_after,
        cases=_means_cases(),
        mistakes=[
            (
                lambda *a: _means_after(*a, power=0),
                "the share of each component is missing: N / N_k.",
            ),
            (
                lambda *a: _means_after(*a, power=-1),
                "multiplied by the share where one divides by it.",
            ),
            (
                lambda *a: _means_after(*a, sign=1),
                "this goes uphill: the gradient is that of the NLL.",
            ),
            (
                lambda m, s, g, w: m - g / w.unsqueeze(-1),
                "the covariance is missing: a gradient is not in the units of the data.",
            ),
            (_diagonal_only, "the covariance is a matrix: its entries off the diagonal count too."),
            (
                lambda m, s, g, w: _means_after(m, s, g, w) - m,
                "this is the step; the means after it are wanted.",
            ),
        ],
        hint="Solve the equation of the means' step for the new means; which numbers are N_k / N?",
        praise="One line turns a gradient into EM.",
    ),
    "07-4": Value(
        expected=_rates(),
        mistakes=[
            (
                _rates(centers=False),
                "the expectation is over the mixture, not over a standard normal.",
            ),
            (_rates(power=1), "the derivative of tanh has the square of cosh below."),
            (_rates(power=0), "this is E[x^2]: the hyperbolic cosine is missing."),
            (_rates(power=4), "one square too many."),
            (
                [round(rate, 2) for rate in _rates()],
                "right as far as it goes; three digits are asked for.",
            ),
        ],
        hint="Differentiate inside the expectation, then integrate against both halves.",
        praise="At two standard deviations one unknown number hides about a quarter.",
    ),
    "07-5": Code(
        reference=_leap,
        cases=_leap_cases(),
        mistakes=[
            (
                _leap_by_entries,
                "omega is one number, a quotient of two lengths; s / v has one for each parameter.",
            ),
            (
                lambda *u: _leap(*u, doubled=False),
                "the leap is made twice: expand the square, and s has the factor 2 omega.",
            ),
            (
                lambda *u: _leap(*u, squared=False),
                "the change of step has the factor omega squared.",
            ),
            (
                lambda *u: _leap(*u, inverted=True),
                "omega is the other quotient: large where the steps hardly change.",
            ),
            (lambda *u: _leap(*u, sign=-1), "the leap goes along the step, not against it."),
            (
                lambda u0, u1, u2: u0 + (u1 - u0) * (u1 - u0).norm() / (u2 - 2 * u1 + u0).norm(),
                "this is the single leap, without the square.",
            ),
            (lambda u0, u1, u2: u2, "this is the second step of EM itself."),
        ],
        hint="First s and v, then omega from their lengths, then the three terms.",
        praise="Along a single rate it lands on the limit.",
    ),
    "07-6": Value(
        expected=_LABELS,
        tolerance=6e-2,
        mistakes=[
            (0.9 * 0.99, "this is the new rate. How many iterations does a digit take at either?"),
            (1 / 0.9, "iterations go with the logarithm of the rate, not with the rate."),
            (1 / _LABELS, "the old iterations over the new, not the reverse."),
            (10.0, "near; but the missing share falls to nine tenths of 0.99, and not of 1."),
        ],
        hint="Which information matrix loses a tenth of its terms, and what does the rate do?",
        praise="A few labels are worth many iterations.",
    ),
    "07-7": Value(
        expected=[_OMEGA, _OMEGA - 1],
        mistakes=[
            ([2.0, 1.0], "at 2 the fast end no longer converges; the best lies before it."),
            ([2.0, 0.98], "at 2 the slow end is at 0.98; and the fast end?"),
            ([1.0, 0.99], "this is EM itself: the fast end has room to spare."),
            ([100.0, 0.0], "this kills the slowest error; what does it do to the fastest?"),
            ([_OMEGA - 1, _OMEGA], "first omega, then the rate."),
            (
                [1.99, 0.99],
                "here the slow end is at 0.98 and the fast one at 0.99; they should be equal.",
            ),
            (
                [_OMEGA, 1 - 1 / _OMEGA],
                "omega is right; by how much is the error at either end multiplied?",
            ),
        ],
        hint="The factor of an error is linear in omega; make the two ends equally bad.",
        praise="One number for all directions gains a factor of two, and no more.",
    ),
}
