"""Exercises of chapter 02, the mixture likelihood."""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any

import torch
from torch import Tensor

from gmmbook.exercises.checkers import Checker, Choice, Code, Interval, Value


def _double(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _random(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _covariances(num_components: int, num_dims: int, seed: int) -> Tensor:
    root = _random(num_components, num_dims, num_dims, seed=seed)
    return root @ root.mT + torch.eye(num_dims, dtype=torch.float64)


# 02-2: the log odds of two components with one covariance


def _logistic(weights: Tensor, means: Tensor, covariance: Tensor) -> Tensor:
    w = torch.linalg.solve(covariance, means[0] - means[1])
    c = (weights[0] / weights[1]).log() - 0.5 * w @ (means[0] + means[1])
    return torch.cat([w, c[None]])


def _logistic_without_weights(weights: Tensor, means: Tensor, covariance: Tensor) -> Tensor:
    return _logistic(torch.ones_like(weights), means, covariance)


def _logistic_without_half(weights: Tensor, means: Tensor, covariance: Tensor) -> Tensor:
    w = torch.linalg.solve(covariance, means[0] - means[1])
    c = (weights[0] / weights[1]).log() - w @ (means[0] + means[1])
    return torch.cat([w, c[None]])


def _logistic_of_second(weights: Tensor, means: Tensor, covariance: Tensor) -> Tensor:
    return _logistic(weights.flip(0), means.flip(0), covariance)


def _logistic_unsolved(weights: Tensor, means: Tensor, covariance: Tensor) -> Tensor:
    w = covariance @ (means[0] - means[1])
    c = (weights[0] / weights[1]).log() - 0.5 * w @ (means[0] + means[1])
    return torch.cat([w, c[None]])


def _logistic_identity(weights: Tensor, means: Tensor, covariance: Tensor) -> Tensor:
    return _logistic(weights, means, torch.eye(len(covariance), dtype=covariance.dtype))


# 02-3: the covariance of a mixture


def _within(weights: Tensor, means: Tensor, covariances: Tensor) -> Tensor:
    return (weights[:, None, None] * covariances).sum(0)


def _between(weights: Tensor, means: Tensor, covariances: Tensor) -> Tensor:
    apart = means - weights @ means
    return (weights[:, None] * apart).mT @ apart


def _covariance(weights: Tensor, means: Tensor, covariances: Tensor) -> Tensor:
    return _within(weights, means, covariances) + _between(weights, means, covariances)


def _uncentered(weights: Tensor, means: Tensor, covariances: Tensor) -> Tensor:
    return _within(weights, means, covariances) + (weights[:, None] * means).mT @ means


def _plain_center(weights: Tensor, means: Tensor, covariances: Tensor) -> Tensor:
    apart = means - means.mean(0)
    return _within(weights, means, covariances) + (weights[:, None] * apart).mT @ apart


def _plain_average(weights: Tensor, means: Tensor, covariances: Tensor) -> Tensor:
    return _covariance(torch.full_like(weights, 1 / len(weights)), means, covariances)


# 02-5: the permutation that matches two sets of means


def _squares(means: Tensor, others: Tensor) -> Tensor:
    return (means[:, None] - others).square().sum(-1)


def _match(means: Tensor, others: Tensor) -> Tensor:
    square = _squares(means, others)
    rows = torch.arange(len(means))
    return min(
        (torch.tensor(order) for order in permutations(range(len(means)))),
        key=lambda order: float(square[rows, order].sum()),
    )


def _nearest(means: Tensor, others: Tensor) -> Tensor:
    return _squares(means, others).argmin(1)


def _greedy(means: Tensor, others: Tensor) -> Tensor:
    square = _squares(means, others).clone()
    order = []
    for row in square:
        order.append(int(row.argmin()))
        square[:, order[-1]] = math.inf
    return torch.tensor(order)


def _inverse(means: Tensor, others: Tensor) -> Tensor:
    return _match(means, others).argsort()


def _unsquared(means: Tensor, others: Tensor) -> Tensor:
    distance = _squares(means, others).sqrt()
    rows = torch.arange(len(means))
    return min(
        (torch.tensor(order) for order in permutations(range(len(means)))),
        key=lambda order: float(distance[rows, order].sum()),
    )


_TRIPLE = _double([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])

# 02-6: the weight at which the hump of the lighter component vanishes

_HALF_DISTANCE = 1.25
_ROOT = math.sqrt(_HALF_DISTANCE**2 - 1)
_LOG_ODDS = 2 * math.log(_HALF_DISTANCE - _ROOT) + 2 * _HALF_DISTANCE * _ROOT
_VANISHING = 1 / (1 + math.exp(_LOG_ODDS))


# 02-7: four modes of three round Gaussians


def _widest() -> float:
    """The sigma above which no mode near a corner is left.

    On the ray from the center to a corner a level point x has sigma^2 = 1.5 x / log odds, where
    the responsibility of the corner is (x + 1/2) / (3/2); this is the largest such sigma.
    """
    x = torch.linspace(0, 1, 10_001, dtype=torch.float64)[1:-1]
    return math.sqrt(float((1.5 * x / torch.log((1 + 2 * x) / (1 - x))).max()))


#: Between these; at the ends themselves modes and saddles have met.
_FOUR_MODES = math.sqrt(0.5) * (1 + 1e-6), _widest() * (1 - 1e-6)

EXERCISES: dict[str, Checker] = {
    "02-1": Value(
        expected=2 + math.log(9) / 4,
        mistakes=[
            (2.0, "there the two densities are equal, before they are weighted."),
            (
                2 - math.log(9) / 4,
                "it moved the wrong way: is a point halfway more likely from the heavy one?",
            ),
            (2 + math.log(9), "is the slope of the log odds 1? Look at what multiplies x."),
            (2 + math.log(9) / 8, "the distance of the means is 4; half of the odds went astray."),
            (2 + math.log(0.9) / 4, "the odds are the ratio of both weights, not one weight."),
            (2 + math.log10(9) / 4, "the logarithm is the natural one."),
        ],
        hint="Write the log odds of the two components, set them to zero and solve for x.",
        praise="A heavier component reaches further: the border moves away from it.",
    ),
    "02-2": Code(
        reference=_logistic,
        cases=[
            (
                "equal weights in one dimension",
                (_double([0.5, 0.5]), _double([[3.0], [1.0]]), _double([[1.0]])),
            ),
            (
                "unequal weights",
                (_double([0.8, 0.2]), _double([[1.0, 0.0], [0.0, 2.0]]), torch.eye(2).double()),
            ),
            (
                "a covariance with correlation",
                (_double([0.3, 0.7]), _random(2, 3, seed=1), _covariances(1, 3, seed=2)[0]),
            ),
        ],
        mistakes=[
            (_logistic_without_weights, "where are the weights? The prior odds belong in c."),
            (_logistic_without_half, "the midpoint of the means is half their sum."),
            (_logistic_of_second, "these are the log odds of component 2, not of component 1."),
            (_logistic_unsolved, "the covariance multiplies where its inverse should."),
            (_logistic_identity, "the covariance is not used."),
        ],
        hint="Multiply the linear log odds out, and collect what multiplies x and what does not.",
        praise="Logistic regression is what two Gaussians with one covariance imply.",
    ),
    "02-3": Code(
        reference=_covariance,
        cases=[
            (
                "the two components of the prediction",
                (
                    _double([0.5, 0.5]),
                    _double([[3.0, 0.0], [-3.0, 0.0]]),
                    torch.eye(2).double().repeat(2, 1, 1),
                ),
            ),
            (
                "unequal weights",
                (
                    _double([0.2, 0.8]),
                    _double([[1.0, 2.0], [4.0, -1.0]]),
                    _covariances(2, 2, seed=3),
                ),
            ),
            (
                "four components in three dimensions",
                (
                    _double([0.1, 0.2, 0.3, 0.4]),
                    _random(4, 3, seed=4) + 2,
                    _covariances(4, 3, seed=5),
                ),
            ),
        ],
        mistakes=[
            (_within, "this is the part within the components; their means differ too."),
            (_between, "this is the part between the means; the components have widths too."),
            (_uncentered, "the means are not measured from the mean of the mixture."),
            (_plain_center, "the center should be the weighted mean of the means."),
            (_plain_average, "the weights are not used: each component counts by its weight."),
        ],
        hint="Add two sums over the components: of covariances, and of outer products.",
        praise="Within plus between: spread of the parts, and spread of their centers.",
    ),
    "02-4": Choice(
        right="ace",
        others={
            "b": "is one entry, and which component comes first is an accident of the start.",
            "d": "gives numbers of components, and these are names that may be exchanged.",
        },
        missing={
            "a": "What of the loss, which does not look at single components?",
            "c": "Must every statement about weights say which component it means?",
            "e": "Two labels can be compared with each other, without a name for either.",
        },
        praise="What no permutation changes can be compared; all else must be matched first.",
    ),
    "02-5": Code(
        reference=_match,
        cases=[
            ("two means that are swapped", (_double([[0.0], [5.0]]), _double([[5.2], [0.1]]))),
            ("three means in a circle", (_TRIPLE, _TRIPLE[[2, 0, 1]] + 0.1)),
            (
                "two means with the same nearest one",
                (_double([[0.0], [1.0]]), _double([[0.9], [3.0]])),
            ),
            (
                "a first choice that costs the others dearly",
                (_double([[1.0], [0.0]]), _double([[0.4], [3.0]])),
            ),
            (
                "a match where squares matter",
                (_double([[0.0, 0.0], [1.0, 0.0]]), _double([[1.0, 0.05], [1.5, 0.87]])),
            ),
        ],
        mistakes=[
            (_nearest, "one component is used twice: the answer must be a permutation."),
            (
                _inverse,
                "this is the inverse permutation: means[i] should go with others[out[i]].",
            ),
            (_greedy, "taking the nearest that is still free may leave a bad one for the last."),
            (_unsquared, "squared distances are to be added, not distances."),
        ],
        hint="Try every order of the second set, add the squared distances, keep the smallest sum.",
        praise="Match first, then compare: only then does a component have a name.",
    ),
    "02-6": Value(
        expected=_VANISHING,
        tolerance=4e-3,
        mistakes=[
            (1 - _VANISHING, "this is the weight of the heavier component."),
            (_VANISHING / (1 - _VANISHING), "this is the ratio of the weights, not a weight."),
            (0.5, "with equal weights there are two modes; go lower."),
            (0.4, "close; three digits are wanted."),
        ],
        hint="Count the sign changes of the slope on a fine grid, weight by weight.",
        praise="A component of more than a third can hide without a hump of its own.",
    ),
    "02-7": Interval(
        right=_FOUR_MODES,
        others=[
            (-math.inf, 0.0, "sigma is a standard deviation: it is positive."),
            (
                0.0,
                _FOUR_MODES[0],
                "too narrow: at the center of the triangle there is a valley. "
                "Where does the Hessian there change its sign?",
            ),
            (
                _FOUR_MODES[1],
                math.inf,
                "too wide: the modes near the corners have met saddles on their way in, "
                "and are gone.",
            ),
        ],
        praise="Even round components can make a mode where none of them has its mean.",
    ),
}
