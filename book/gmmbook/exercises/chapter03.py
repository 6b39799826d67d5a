"""Exercises of chapter 03, the objective."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from gmmbook.exercises.checkers import Checker, Choice, Code, Later, Value
from gmmedu.datasets import load_old_faithful
from gmmedu.em import fit_em
from gmmedu.initialization import initialize
from gmmedu.models import GmmFull


def _costs(widths: tuple[float, float], *, reverse: bool = False) -> Tensor:
    """KL of a standard normal q and a p of each width; of p and q when reversed."""
    t = torch.tensor(widths, dtype=torch.float64)
    t = 1 / t if reverse else t
    return t.log() + 1 / (2 * t.square()) - 0.5


def _lse(a: Tensor) -> Tensor:
    m = a.amax(-1, keepdim=True)
    m = torch.where(m.isinf(), torch.zeros_like(m), m)
    return m.squeeze(-1) + (a - m).exp().sum(-1).log()


def _naive_lse(a: Tensor) -> Tensor:
    return a.exp().sum(-1).log()


def _plain_lse(a: Tensor) -> Tensor:
    m = a.amax(-1, keepdim=True)
    return m.squeeze(-1) + (a - m).exp().sum(-1).log()


def _padded_lse(eps: float, shift: bool) -> Callable[[Tensor], Tensor]:
    """A small number inside the logarithm, without or with the maximum taken out."""

    def lse(a: Tensor) -> Tensor:
        m = a.amax(-1, keepdim=True) if shift else torch.zeros_like(a[:, :1])
        return m.squeeze(-1) + ((a - m).exp().sum(-1) + eps).log()

    return lse


def _unreturned_lse(a: Tensor) -> Tensor:
    return (a - a.amax(-1, keepdim=True)).exp().sum(-1).log()


def _lse_cases() -> list[tuple[str, list[Tensor]]]:
    numbers = torch.tensor(
        [[0.3, -1.2, 2.0], [1.0, 1.0, 1.0], [-4.0, 0.0, 0.5], [2.5, -0.5, 0.25]],
        dtype=torch.float64,
    )
    nothing = torch.full((1, 3), -torch.inf, dtype=torch.float64)
    holes = numbers[:2].clone()
    holes[:, 1] = -torch.inf
    return [
        ("numbers near zero", [numbers]),
        ("numbers near -1e5", [numbers - 1e5]),
        ("numbers near 1e5", [numbers + 1e5]),
        ("rows of different size", [numbers + torch.tensor([[0.0], [-1e5], [1e5], [-800.0]])]),
        ("entries of minus infinity", [holes]),
        ("a row of nothing but minus infinity", [torch.cat([numbers, nothing])]),
    ]


def _gradient(
    x: Tensor,
    weights: Tensor,
    means: Tensor,
    sds: Tensor,
    *,
    power: int = 2,
    total: bool = False,
    weighted: bool = True,
    shared: bool = True,
) -> Tensor:
    residual = x[:, None] - means
    joint = -sds.log() - 0.5 * (residual / sds) ** 2 + (weights.log() if weighted else 0.0)
    r = joint.softmax(1) if shared else torch.ones_like(joint)
    terms = -(r * residual / sds**power)
    return terms.sum(0) if total else terms.mean(0)


def _gradient_cases() -> list[tuple[str, list[Tensor]]]:
    def case(*rows: list[float]) -> list[Tensor]:
        return [torch.tensor(row, dtype=torch.float64) for row in rows]

    points = [-2.1, -1.9, 0.4, 1.3, 1.7, 2.2]
    return [
        ("two components", case(points, [0.3, 0.7], [-1.5, 1.0], [0.8, 1.4])),
        ("three components", case(points, [0.2, 0.5, 0.3], [-3.0, 0.0, 2.0], [0.5, 2.0, 1.0])),
        ("a point far from all", case([*points, 90.0], [0.3, 0.7], [-1.5, 1.0], [0.8, 0.9])),
    ]


@cache
def _waits() -> Tensor:
    return load_old_faithful()[:, 1]


@cache
def _crossing() -> Value:
    """Where a component on the lone wait of 96 minutes overtakes the good mixture."""
    wait = _waits()
    good = GmmFull(2, 1, dtype=torch.float64)
    initialize(good, wait[:, None], "kmeans++", generator=torch.Generator().manual_seed(0))
    level = fit_em(good, wait[:, None], tolerance=1e-12).nll

    def collapsed(center: float, log10_sd: float) -> float:
        wide = torch.distributions.Normal(wait.mean(), wait.std(correction=0)).log_prob(wait)
        narrow = torch.distributions.Normal(center, 10.0**log10_sd).log_prob(wait)
        return -float((torch.logaddexp(wide, narrow) - math.log(2)).mean())

    step = math.log(10) / len(wait)
    excess = collapsed(96.0, -12.0) - level
    expected = -12 - excess / step
    return Value(
        expected=expected,
        mistakes=[
            (expected * math.log(10), "this is the natural logarithm; base 10 is wanted."),
            (-12 - excess / (15 * step), "that is the slope of a value that occurs 15 times."),
            (-12 - excess * len(wait), "the slope 1/N is for a factor of e, not of 10."),
            (-excess / step, "the distance to go is right; from which width did you start?"),
            (-12 + excess / step, "in which direction does f fall?"),
            (10.0**expected, "the logarithm of the standard deviation is wanted."),
        ],
        hint="The figure is too coarse to read it off. Far down f is a straight line in log sigma: "
        "one value there and the slope suffice.",
    )


@cache
def _densities() -> Tensor:
    """The five fixed components at each wait: (272, 5)."""
    centers = torch.arange(50.0, 91.0, 10.0, dtype=torch.float64)
    return torch.distributions.Normal(centers, 6.0).log_prob(_waits()[:, None]).exp()


def _best_weights() -> Value:
    """The best weights of the five components for the waits, by repeating pi g."""
    densities = _densities()
    even = torch.full((densities.shape[1],), 1 / densities.shape[1], dtype=torch.float64)
    weights = even
    for _ in range(2_000):
        weights = weights * (densities / (densities @ weights)[:, None]).mean(0)
    once = even * (densities / (densities @ even)[:, None]).mean(0)
    return Value(
        expected=weights,
        tolerance=0.01,
        mistakes=[
            (even, "these are equal, and max g - 1 is far above 0: other weights have a lower f."),
            (once, "this is one step from equal weights; max g - 1 says that f can fall further."),
        ],
        hint="not the best weights to two digits: other weights have a lower f. Iterate until "
        "max g - 1 is below 1e-5.",
    )


EXERCISES: dict[str, Checker] = {
    "03-1": Value(
        expected=4.1554 + math.log(60),
        tolerance=1e-3,
        mistakes=[
            (4.1554 - math.log(60), "does a density per second have larger or smaller values?"),
            (4.1554 + 2 * math.log(60), "only one of the two columns has a new unit."),
            (4.1554 - 2 * math.log(60), "one column has a new unit; and in which direction?"),
            (4.1554, "this is f in minutes: a density has units, and the unit changed."),
            (4.1554 * 60, "the density is divided by a factor; what does its logarithm do?"),
            (4.1554 + 60, "it is the logarithm of the determinant that is added."),
        ],
        hint="Write the change as x' = A x: what is A, and what is log |det A|?",
        praise="The model is no worse than before: only its unit has changed.",
    ),
    "03-2": Choice(
        right="ad",
        others={
            "b": "f is a mean: more points from the same source make it less noisy, not smaller.",
            "c": "how narrow must it be for 8.19 nats at its slope, and can float64 hold that?",
            "e": "a change of the logarithm multiplies f by a positive number; look at the sign.",
        },
        praise="A level alone never tells a change of units from a singularity.",
    ),
    "03-3": Value(
        expected=_costs((3.0, 1 / 3)),
        mistakes=[
            (
                _costs((3.0, 1 / 3), reverse=True),
                "is the wide model first? If so, the average must be over q, the truth, not p.",
            ),
            (
                _costs((3.0, 1 / 3)) + 0.5 * math.log(2 * math.pi * math.e),
                "this is the cross entropy: take off the entropy of the truth.",
            ),
            (
                _costs((math.sqrt(3), math.sqrt(1 / 3))),
                "3 and 1/3 are standard deviations here, not variances.",
            ),
            (
                _costs((3.0, 1 / 3)) + 0.5,
                "an expectation is missing: that of ((x - mu) / sigma)^2 / 2 under q.",
            ),
        ],
        hint="Write log(q/p) for the two densities, and use that under q the mean of "
        "((x - mu) / sigma)^2 is 1.",
        praise="Overconfidence costs more than caution.",
    ),
    "03-4": Code(
        reference=_lse,
        cases=_lse_cases(),
        mistakes=[
            (_naive_lse, "the exponential leaves the range of floats before the logarithm."),
            (_unreturned_lse, "the maximum was taken out; put it back at the end."),
            (
                _plain_lse,
                "the maximum is infinite here, and infinity minus infinity is NaN. "
                "What else may m be?",
            ),
            (lambda a: a.amax(-1), "this is the maximum, a lower bound of the log-sum-exp."),
            (lambda a: a.exp().sum(-1), "the logarithm is missing."),
            *(
                (
                    _padded_lse(10.0**-power, shift),
                    "is something added inside the logarithm? Take it out.",
                )
                for power in range(4, 17)
                for shift in (False, True)
            ),
        ],
        tolerance=1e-12,
        hint="Any finite m is allowed in the shifted form; which one keeps every term in range?",
        praise="Weights of zero cost nothing now, and distance is no obstacle.",
    ),
    "03-5": Code(
        reference=_gradient,
        cases=_gradient_cases(),
        mistakes=[
            (lambda *a: _gradient(*a, total=True), "this is the sum over the points; f is a mean."),
            (
                lambda *a: _gradient(*a, weighted=False),
                "the responsibilities forget the mixing weights.",
            ),
            (
                lambda *a: _gradient(*a, shared=False),
                "each component is pulled by all the points: where are the responsibilities?",
            ),
            (
                lambda *a: _gradient(*a, power=1),
                "look at the power of the standard deviation in d log N / d mu.",
            ),
            (lambda *a: _gradient(*a, power=0), "a factor of one over the variance is missing."),
        ],
        hint="Differentiate log N(x | mu, sigma^2) in mu, weight by r, average, change the sign.",
        praise="Every gradient of a mixture has this form: a responsibility times a simple one.",
    ),
    "03-6": Later(
        make=_crossing,
        praise="Past the hill it is downhill all the way: a long road for small steps only.",
    ),
    "03-7": Later(
        make=_best_weights,
        praise="The certificate says so, whatever method you used.",
    ),
}
