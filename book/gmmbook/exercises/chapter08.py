"""Exercises of chapter 08, singularities."""

from __future__ import annotations

import math
from functools import cache
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from gmmbook.exercises.checkers import Checker, Choice, Code, Later, Value
from gmmedu.datasets import load_galaxies


def _raised(
    covariances: Tensor, min_sd: float, *, squared: bool = True, whole: bool = False
) -> Tensor:
    """Eigenvalues raised to the floor; to the floor itself, or all of them when one is low."""
    variances, axes = torch.linalg.eigh(covariances)
    floor = min_sd**2 if squared else min_sd
    raised = variances.clamp_min(floor)
    if whole:
        low = (variances < floor).any(-1, keepdim=True)
        raised = torch.where(low, torch.full_like(raised, floor), variances)
    return (axes * raised.unsqueeze(-2)) @ axes.mT


def _raised_diagonal(covariances: Tensor, min_sd: float) -> Tensor:
    result = covariances.clone()
    result.diagonal(dim1=-2, dim2=-1).clamp_(min=min_sd**2)
    return result


def _ridge(covariances: Tensor, min_sd: float) -> Tensor:
    identity = torch.eye(covariances.shape[-1]).to(covariances)
    return covariances + min_sd**2 * identity


def _floor_cases() -> list[tuple[str, list[Any]]]:
    generator = torch.Generator().manual_seed(8)
    root = torch.randn(3, 3, 3, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(root).Q
    variances = torch.tensor(
        [[4.0, 1.0, 0.25], [2.0, 1.0, 1e-6], [1.0, 0.01, 0.0]], dtype=torch.float64
    )
    tilted = (rotation * variances.unsqueeze(-2)) @ rotation.mT
    return [
        ("axes along the coordinates", [torch.diag_embed(variances), 0.3]),
        ("tilted matrices", [tilted, 0.3]),
        ("a floor below everything", [tilted[:1], 1e-3]),
    ]


def _map_variances(
    traces: Tensor,
    counts: Tensor,
    num_dims: int,
    psi: float,
    nu: float,
    *,
    prior_dims: bool = True,
    per_dimension: bool = True,
    extra: int = 1,
) -> Tensor:
    scatter = traces + (num_dims if prior_dims else 1) * psi
    points = counts + nu + (num_dims + 1) * extra
    return scatter / (points * (num_dims if per_dimension else 1))


def _map_cases() -> list[tuple[str, list[Any]]]:
    def case(*values: float) -> Tensor:
        return torch.tensor(values, dtype=torch.float64)

    return [
        ("one dimension", [case(3.0, 8.0), case(10.0, 20.0), 1, 0.5, 3.0]),
        ("four dimensions", [case(30.0, 2.0, 11.0), case(12.0, 3.5, 4.0), 4, 0.25, 6.0]),
        ("a component without points", [case(0.0, 9.0), case(0.0, 5.0), 2, 0.2, 4.0]),
    ]


_SLOPES = [(11 - m) * m for m in range(1, 11)]


@cache
def _bound() -> Value:
    """The bound under a ratio of the widths, for the galaxies, K = 3 and c = 0.1."""
    speed = load_galaxies().flatten().sort().values
    n = len(speed)
    least = math.inf
    for cuts in combinations(range(1, n), 2):
        parts = speed.split(torch.tensor([0, *cuts, n]).diff().tolist())
        total = sum(float((part - part.mean()).square().sum()) for part in parts)
        least = min(least, total)

    def bound(scatter: float, c: float) -> float:
        return 0.5 * math.log(2 * math.pi * math.e * c * c * scatter / n)

    return Value(
        expected=bound(least, 0.1),
        mistakes=[
            (bound(least, 1.0), "this is the bound of the shared width: where is the ratio?"),
            (
                bound(least, 10.0),
                "the largest width is the smallest over c: on which side does c stand?",
            ),
            (
                bound(least, math.sqrt(0.1)),
                "the ratio is one of standard deviations, and the exponent has a square.",
            ),
            (bound(n * least, 0.1), "the scatter is a sum over the points: divide by N."),
            (n * bound(least, 0.1), "this bounds N f; the bound of f is wanted."),
            (
                bound(least, 0.1) - 0.5,
                "a term is lost: what is the square over 2 sigma^2 at the best sigma?",
            ),
        ],
        hint="With the smallest width sigma, no other exceeds sigma / c. Put that into the "
        "exponent, keep sigma in the determinant, and minimize over sigma.",
    )


EXERCISES: dict[str, Checker] = {
    "08-1": Choice(
        right="bd",
        others={
            "a": "who would cover the other 99 points, once the one component is narrow?",
            "c": "how many points in general position can K parallel lines hold? There are 100.",
            "e": "a shared width pays for every point that has no mean of its own. Count them.",
            "f": "a given variance cannot shrink, however many components there are.",
        },
        praise="It takes a width of one's own, and somebody else to cover the rest.",
    ),
    "08-2": Value(
        expected=max(_SLOPES) / 500 * math.log(2),
        mistakes=[
            (10 / 500 * math.log(2), "this is the fall onto a point; other flats are steeper."),
            (max(_SLOPES) * math.log(2), "this is N f; the mean over the points is wanted."),
            (
                max(_SLOPES) / 500,
                "this is the slope in log sigma; by how much does log sigma change?",
            ),
            (
                25 / 500 * math.log(2),
                "a flat of dimension D - m takes D - m + 1 points, not D - m.",
            ),
            (
                121 / 4 / 500 * math.log(2),
                "m is a whole number: the product of two whole numbers is wanted.",
            ),
            (max(_SLOPES) / 500 * math.log(4), "the width is halved, not the variance."),
        ],
        hint="Points times directions, over N, times the change of log sigma.",
        praise="Three times as steep as onto a point, and the flat takes five or six points.",
    ),
    "08-3": Value(
        expected=3,
        tolerance=1e-6,
        mistakes=[
            (4, "that is one direction. Is there another, with fewer values?"),
            (
                12,
                "that is a component for each point; a tied covariance needs only one "
                "direction without width.",
            ),
            (2, "can two parallel lines hold all the points of the grid?"),
            (13, "even fewer components suffice: lines, not points."),
            (
                11,
                "the count of distinct points settles the shared isotropic family; tied needs "
                "less.",
            ),
        ],
        hint="Cover the grid with parallel lines, as few as you can.",
        praise="With rounded or binary columns, tying is no protection.",
    ),
    "08-4": Code(
        reference=_raised,
        cases=_floor_cases(),
        mistakes=[
            (
                lambda c, s: _raised(c, s, squared=False),
                "the eigenvalues are variances; the floor is a standard deviation.",
            ),
            (
                _raised_diagonal,
                "entries on the diagonal are widths along the coordinates, not along the "
                "narrowest direction.",
            ),
            (_ridge, "a ridge widens every direction; those above the floor should stay."),
            (
                lambda c, s: _raised(c, s, whole=True),
                "only the eigenvalues below the floor should change, not their neighbors.",
            ),
        ],
        hint="torch.linalg.eigh gives variances and axes; put them together again as in the sum.",
        praise="That is the exact M-step under the floor, and so EM still goes only downhill.",
    ),
    "08-5": Code(
        reference=_map_variances,
        cases=_map_cases(),
        mistakes=[
            (
                lambda *a: _map_variances(*a, prior_dims=False),
                "the trace of psi times the identity has D terms.",
            ),
            (
                lambda *a: _map_variances(*a, per_dimension=False),
                "one number has seen each point in D dimensions: divide by D as well.",
            ),
            (
                lambda *a: _map_variances(*a, extra=0),
                "the power of the determinant in the prior is nu + D + 1, not nu.",
            ),
            (
                lambda t, n, d, psi, nu: _map_variances(t, n, d, psi, nu + 1),
                "D + 2 is the power where the means have a prior as well; here they have none.",
            ),
            (
                lambda t, n, d, psi, nu: t / (d * n),
                "this is maximum likelihood: where is the prior?",
            ),
        ],
        hint="Collect the terms in log sigma^2 and in 1 / sigma^2, and set the derivative to zero.",
        praise="Pooled scatter over pooled counts, and the prior has been pooled with them.",
    ),
    "08-6": Value(
        expected=math.log(1e6) / 0.01,
        mistakes=[
            (
                math.log10(1e6) / 0.01,
                "the scale's natural logarithm moves by the rate, not that to base 10.",
            ),
            (
                2 * math.log(1e6) / 0.01,
                "the standard deviation's logarithm is what moves, not the variance's.",
            ),
            (
                math.log(1e6) / (0.01 * 0.4),
                "that is plain gradient descent: Adam divides by the size of the slope.",
            ),
            (1e6 / 0.01, "the logarithm of the width moves, not the width."),
            (math.log(1e6), "divide by the step: the learning rate."),
        ],
        hint="Adam's step on a slope that does not change has the length of the learning rate.",
        praise="The number of equal points does not matter to Adam: only the rate does.",
    ),
    "08-7": Later(
        make=_bound,
        praise="Bounding ratios needs no unit, and one dimension is where it was proved first.",
    ),
}
