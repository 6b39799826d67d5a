"""Exercises of chapter 05, gradient descent."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gmmbook.exercises.checkers import Checker, Choice, Code, Demands, Value

_BETA1, _BETA2 = 0.9, 0.999


def _weight(travel: float) -> float:
    """The smaller of two weights when their logits have moved apart by so much."""
    return 1 / (1 + math.exp(travel))


_TRAVEL = 5_000 * 1e-4 / 2


def _slope_of_scale(residuals: Tensor, r: Tensor, sigma: float) -> Tensor:
    return residuals.shape[-1] - _mean_square(residuals, r) / sigma**2


def _mean_square(residuals: Tensor, r: Tensor) -> Tensor:
    return (r * residuals.square().sum(-1)).sum(1).mean()


def _in_sigma(residuals: Tensor, r: Tensor, sigma: float) -> Tensor:
    return _slope_of_scale(residuals, r, sigma) / sigma


def _one_dimension(residuals: Tensor, r: Tensor, sigma: float) -> Tensor:
    return 1 - _mean_square(residuals, r) / sigma**2


def _not_whitened(residuals: Tensor, r: Tensor, sigma: float) -> Tensor:
    return residuals.shape[-1] - _mean_square(residuals, r)


def _sum_of_points(residuals: Tensor, r: Tensor, sigma: float) -> Tensor:
    return len(r) * _slope_of_scale(residuals, r, sigma)


def _without_shares(residuals: Tensor, r: Tensor, sigma: float) -> Tensor:
    return _slope_of_scale(residuals, torch.ones_like(r), sigma)


def _by_component(residuals: Tensor, r: Tensor, sigma: float) -> Tensor:
    counts = r.mean(0) * residuals.shape[-1]
    return counts - (r * residuals.square().sum(-1)).mean(0) / sigma**2


def _adam(
    phi: Tensor,
    gradient: Tensor,
    m: Tensor,
    v: Tensor,
    t: int,
    rate: float,
    *,
    corrected: bool = True,
    late: int = 0,
    inside: bool = False,
    rooted: bool = True,
    fresh: bool = True,
    sign: float = -1.0,
    epsilon: float = 1e-8,
) -> Tensor:
    if fresh:
        m = _BETA1 * m + (1 - _BETA1) * gradient
        v = _BETA2 * v + (1 - _BETA2) * gradient**2
    if corrected:
        m, v = (m / (1 - _BETA1 ** (t + late)), v / (1 - _BETA2 ** (t + late)))
    if not rooted:
        return phi + sign * rate * m / (v + 1e-8)
    root = (v + epsilon).sqrt() if inside else v.sqrt() + epsilon
    return phi + sign * rate * m / root


def _kappa(s: float) -> float:
    return max(2 * s**2, 1 / (2 * s**2))


# Standard deviation of the waits, in minutes.
_WAIT = 13.5700


def _last_step(gradients: Tensor) -> float:
    """Length of Adam's last step in units of its rate, without epsilon."""
    flat = gradients / gradients.abs().max()
    age = torch.arange(len(flat), dtype=torch.float64).flip(0)
    m = (1 - _BETA1) * (_BETA1**age * flat).sum()
    v = (1 - _BETA2) * (_BETA2**age * flat**2).sum()
    m = m / (1 - _BETA1 ** len(flat))
    v = v / (1 - _BETA2 ** len(flat))
    return float(m.abs() / v.sqrt())


def _normal(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _adam_case(t: int, size: int, seed: int) -> tuple[object, ...]:
    first = t == 1
    m = _normal(size, seed=seed + 1) * (0.0 if first else 0.3)
    v = _normal(size, seed=seed + 2).square() * (0.0 if first else 0.02)
    return (_normal(size, seed=seed + 3), _normal(size, seed=seed), m, v, t, 0.02)


EXERCISES: dict[str, Checker] = {
    "05-1": Value(
        expected=_weight(2 * _TRAVEL),
        mistakes=[
            (
                _weight(4 * _TRAVEL),
                "this adds up 5,000 full rates; a rate that falls along half a cosine is smaller "
                "on average.",
            ),
            (_weight(_TRAVEL), "this moves one of the two logits; what does the other one do?"),
            (
                0.5 - _TRAVEL,
                "the distance was taken from the weight itself; it is the logits that move.",
            ),
            (
                0.5 * math.exp(-2 * _TRAVEL),
                "the odds have changed by this factor, and not the weight: the two must sum to 1.",
            ),
            (1 - _weight(2 * _TRAVEL), "this is the other component, the one that gains."),
        ],
        hint="Sum the rates, move each of the two logits by that much, and take the softmax.",
        praise="At one rate a step a quarter is out of reach, and the loss curve would not say so.",
    ),
    "05-2": Choice(
        right="cd",
        others={
            "a": "each step is then 1000 times as long. Where would the factor go?",
            "b": "the running sum is linear in the gradient, so it grows by the same factor.",
            "e": "the rate undoes the factor; what does a smaller beta do to the memory?",
        },
        praise="A rate of plain descent has the units of the objective in it, and one of Adam has "
        "not.",
    ),
    "05-3": Code(
        reference=_slope_of_scale,
        cases=[
            (
                "one component in one dimension",
                (_normal(9, 1, 1, seed=1), torch.ones(9, 1, dtype=torch.float64), 1.0),
            ),
            (
                "two components in three dimensions, sigma = 1",
                (_normal(12, 2, 3, seed=2), _normal(12, 2, seed=3).softmax(1), 1.0),
            ),
            (
                "three components in two dimensions, sigma = 0.4",
                (_normal(20, 3, 2, seed=4), _normal(20, 3, seed=5).softmax(1), 0.4),
            ),
        ],
        mistakes=[
            (_in_sigma, "this is the slope in sigma; theta is its logarithm, and brings a factor."),
            (
                _one_dimension,
                "one number serves all D dimensions, and each of them adds to its slope.",
            ),
            (_not_whitened, "the residuals are not whitened: divide them by sigma."),
            (_sum_of_points, "f is a mean over the points, and not a sum."),
            (
                _without_shares,
                "every component counts every point in full: where are the responsibilities?",
            ),
            (_by_component, "this is a slope for each component; one scale is shared by all."),
        ],
        hint="Start from the slope of the diagonal family and add over what shares the number.",
        praise="It is zero when the whitened squares average to the number of dimensions.",
    ),
    "05-4": Code(
        reference=_adam,
        cases=[
            ("t = 1", _adam_case(1, 4, 10)),
            ("t = 2", _adam_case(2, 3, 20)),
            ("t = 40", _adam_case(40, 5, 30)),
            (
                "a gradient of zero at t = 1",
                (
                    _normal(2, seed=40),
                    torch.zeros(2, dtype=torch.float64),
                    torch.zeros(2, dtype=torch.float64),
                    torch.zeros(2, dtype=torch.float64),
                    1,
                    0.1,
                ),
            ),
        ],
        tolerance=1e-10,
        mistakes=[
            (
                lambda *a: _adam(*a, corrected=False),
                "the averages start at zero: where are their corrections?",
            ),
            (
                lambda *a: _adam(*a, late=1),
                "the corrections are those of step t + 1; t counts from 1.",
            ),
            (lambda *a: _adam(*a, inside=True), "epsilon is added to the root, and not under it."),
            (
                lambda *a: _adam(*a, rooted=False),
                "the quotient has the mean square below; its root belongs there.",
            ),
            (
                lambda *a: _adam(*a, fresh=False),
                "the averages are those of step t - 1; first bring the new gradient in.",
            ),
            (lambda *a: _adam(*a, sign=1.0), "this goes uphill."),
            (
                lambda *a: _adam(*a, epsilon=0.0),
                "where is epsilon? It decides when a gradient is zero.",
            ),
        ],
        hint="New averages, then the corrections with the powers t, then the quotient.",
        praise="At t = 1 the step is the rate times a sign, whatever the gradient's size.",
    ),
    "05-5": Value(
        expected=[_kappa(_WAIT), _kappa(_WAIT / 60)],
        mistakes=[
            ([_kappa(_WAIT / 60), _kappa(_WAIT)], "minutes first, as the exercise asks."),
            (
                [_WAIT**2, (60 / _WAIT) ** 2],
                "look again at the second derivative in theta: it is not 1.",
            ),
            (
                [2 * _WAIT**2, 2 * (_WAIT / 60) ** 2],
                "a condition number is the larger curvature over the smaller, so never below 1.",
            ),
            (
                [2.0, 2.0],
                "these are the curvatures' ratio in sigma; the exercise moves its logarithm.",
            ),
        ],
        hint="Two second derivatives at the minimum, and a mixed one that is zero there.",
        praise="A logarithm has no units and a mean has, so the unit decides their ratio.",
    ),
    "05-6": Value(
        expected=136,
        mistakes=[
            (
                256,
                "this is for batches drawn with replacement; these are without, from 272 points.",
            ),
            (
                64,
                "four times the batch divides the variance by four; what does it do to the "
                "standard deviation?",
            ),
            (
                272 / (1 + 16 / 4),
                "this makes the variance a quarter of what it is, and not the standard deviation.",
            ),
            (272, "all points leave no noise at all, which is more than was asked for."),
            (
                16 * 16 * 271 / 256,
                "this many draws with replacement would do it; these are without.",
            ),
            (135, "one point short: the variance is a little more than it should be."),
            (137, "one point too many: the variance is already below what was asked for."),
        ],
        hint="Write the factor of the variance for both sizes and set their ratio.",
        praise="No point is drawn twice, so half of the data does what about twice as many draws "
        "with replacement would.",
    ),
    "05-7": Demands(
        demands=[
            (
                lambda g: g.ndim == 1 and 0 < len(g) <= 10_000,
                "give a tensor of one dimension with at most 10,000 gradients.",
            ),
            (
                lambda g: bool(g.isfinite().all()),
                "some gradients are not finite: let the sequence end at 1 and go back from there.",
            ),
            (lambda g: bool((g != 0).any()), "all gradients are zero: nothing moves."),
            (
                lambda g: _last_step(g) > 1 + 1e-9,
                "the last step is not longer than its rate, as with a gradient that is steady or "
                "fades. Should the newest gradients be larger or smaller than the old ones? "
                "(In a short history the correction of v shrinks the last step.)",
            ),
            (
                lambda g: _last_step(g) > math.sqrt(10) + 1e-3,
                "longer than its rate, and no longer than what a single spike reaches. Let the "
                "gradient grow over several steps, and long enough: in a short history the "
                "correction of v shrinks the last one.",
            ),
            (
                lambda g: _last_step(g) > 7,
                "beyond a single spike, and short of 7. For which sequence is the inequality of "
                "Cauchy and Schwarz an equality, and for how long must it run?",
            ),
        ],
        hint="Cauchy-Schwarz is an equality when the two sequences are in proportion.",
        praise="No sequence of gradients stretches a step further than the chapter's constant.",
    ),
}
