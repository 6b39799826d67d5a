"""Exercises of chapter 04, covariance families."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gmmbook.exercises.checkers import Checker, Choice, Code, Value

_K, _D = 4, 10


def _tied_count(*, weights: int = _K - 1, means: int = _K * _D, covariances: int) -> int:
    return weights + means + covariances


_TRIANGLE = _D * (_D + 1) // 2


def _slope(sigma: Tensor) -> Tensor:
    return -torch.expm1(-sigma)


def _step_ratio(sigma: Tensor) -> Tensor:
    return (_slope(sigma) / sigma) ** 2


def _covariances(theta: Tensor) -> Tensor:
    factor = theta.tril(-1) + torch.diag_embed(theta.diagonal(dim1=-2, dim2=-1).exp())
    return factor @ factor.mT


def _by_lower_triangle(theta: Tensor) -> Tensor:
    factor = theta.tril()
    return factor @ factor.mT


def _by_whole_exponential(theta: Tensor) -> Tensor:
    factor = theta.exp().tril()
    return factor @ factor.mT


def _by_upper_entries(theta: Tensor) -> Tensor:
    diagonal = theta.diagonal(dim1=-2, dim2=-1)
    factor = theta + torch.diag_embed(diagonal.exp() - diagonal)
    return factor @ factor.mT


def _other_order(theta: Tensor) -> Tensor:
    factor = theta.tril(-1) + torch.diag_embed(theta.diagonal(dim1=-2, dim2=-1).exp())
    return factor.mT @ factor


def _sums_of_squares(x: Tensor, r: Tensor, means: Tensor) -> Tensor:
    return torch.stack(
        [(r[:, k] * (x - mean).square().sum(1)).sum() for k, mean in enumerate(means)]
    )


def _isotropic(x: Tensor, r: Tensor) -> Tensor:
    counts = r.sum(0)
    return _sums_of_squares(x, r, r.mT @ x / counts[:, None]) / (counts * x.shape[1])


def _isotropic_whole_trace(x: Tensor, r: Tensor) -> Tensor:
    return _isotropic(x, r) * x.shape[1]


def _isotropic_over_all(x: Tensor, r: Tensor) -> Tensor:
    return _isotropic(x, r) * r.sum(0) / len(x)


def _isotropic_about_one_mean(x: Tensor, r: Tensor) -> Tensor:
    means = x.mean(0).expand(r.shape[1], -1)
    return _sums_of_squares(x, r, means) / (r.sum(0) * x.shape[1])


def _isotropic_deviations(x: Tensor, r: Tensor) -> Tensor:
    return _isotropic(x, r).sqrt()


def _isotropic_pooled(x: Tensor, r: Tensor) -> Tensor:
    counts = r.sum(0)
    return ((counts * _isotropic(x, r)).sum() / counts.sum()).expand_as(counts)


def _equal_volume(scatters: Tensor, counts: Tensor) -> Tensor:
    sizes = torch.linalg.det(scatters) ** (1 / scatters.shape[-1])
    return scatters / sizes.reshape(-1, 1, 1) * (sizes.sum() / counts.sum())


def _own_volume(scatters: Tensor, counts: Tensor) -> Tensor:
    return scatters / counts.reshape(-1, 1, 1)


def _volumes_of_covariances(scatters: Tensor, counts: Tensor) -> Tensor:
    return _equal_volume(_own_volume(scatters, counts), torch.ones_like(counts))


def _shapes_alone(scatters: Tensor, counts: Tensor) -> Tensor:
    return _equal_volume(scatters, counts) / _size(scatters, counts)


def _size(scatters: Tensor, counts: Tensor) -> Tensor:
    return (torch.linalg.det(scatters) ** (1 / scatters.shape[-1])).sum() / counts.sum()


def _size_over_dims(scatters: Tensor, counts: Tensor) -> Tensor:
    return _equal_volume(scatters, counts) / scatters.shape[-1]


def _by_trace(scatters: Tensor, counts: Tensor) -> Tensor:
    sizes = scatters.diagonal(dim1=-2, dim2=-1).mean(-1)
    return scatters / sizes.reshape(-1, 1, 1) * (sizes.sum() / counts.sum())


def _pooled_volume(scatters: Tensor, counts: Tensor) -> Tensor:
    size = torch.linalg.det(scatters.sum(0)) ** (1 / scatters.shape[-1])
    shapes = _shapes_alone(scatters, counts)
    return shapes * size / counts.sum()


def _without_root(scatters: Tensor, counts: Tensor) -> Tensor:
    sizes = torch.linalg.det(scatters)
    return scatters / sizes.reshape(-1, 1, 1) * (sizes.sum() / counts.sum())


def _normal(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _scatters(num_components: int, num_dims: int, seed: int) -> Tensor:
    roots = _normal(num_components, num_dims, num_dims + 2, seed=seed)
    return 5 * roots @ roots.mT


def _vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


EXERCISES: dict[str, Checker] = {
    "04-1": Value(
        expected=_tied_count(covariances=_TRIANGLE),
        tolerance=1e-6,
        mistakes=[
            (_tied_count(weights=_K, covariances=_TRIANGLE), "one too many: the weights sum to 1."),
            (
                _tied_count(covariances=_K * _TRIANGLE),
                "this counts a covariance for each component; what does tied mean?",
            ),
            (
                _tied_count(covariances=_D * _D),
                "this counts all entries of the matrix; how many of them are free when it is "
                "symmetric?",
            ),
            (
                _tied_count(covariances=_D * (_D - 1) // 2),
                "the diagonal of the covariance is missing: its variances are free too.",
            ),
            (_TRIANGLE, "this is the covariance alone; weights and means are to be included."),
            (_tied_count(weights=0, covariances=_TRIANGLE), "the weights are missing."),
        ],
        hint="Add the three parts: weights, means, and one covariance.",
        praise="Most of it is the one matrix that all components share.",
    ),
    "04-2": Choice(
        right="abde",
        others={
            "c": "its covariances must stay diagonal: what becomes of diag(1, 4) in the new "
            "coordinates?",
            "f": "the map lengthens as well as turns: what variance would the partner of the old "
            "fit need, and what variance does the family keep?",
        },
        praise="A circle stays a circle, and only the given radius refuses to grow.",
    ),
    "04-3": Code(
        reference=_step_ratio,
        cases=[
            ("several scales", (_vector(0.01, 0.5, 1.0, 2.0, 30.0),)),
            ("a small scale", (_vector(1e-4),)),
            ("a matrix of scales", (_normal(2, 3, seed=1).exp(),)),
        ],
        tolerance=1e-9,
        mistakes=[
            (
                lambda sigma: _slope(sigma) / sigma,
                "this is the ratio of the slopes d sigma / d theta. How often does the slope "
                "enter a step of sigma?",
            ),
            (
                lambda sigma: 1 / _step_ratio(sigma),
                "this is the step of exp over that of softplus.",
            ),
            (
                lambda sigma: _slope(sigma) ** 2,
                "this is what softplus does to the step; divide by what exp does to it.",
            ),
            (
                lambda sigma: (sigma.sigmoid() / sigma) ** 2,
                "the slope of softplus is the sigmoid at theta, not at sigma. Put theta in "
                "terms of sigma.",
            ),
            (_slope, "this is the slope of softplus; the ratio of two steps is asked for."),
        ],
        hint="A step of sigma carries J J^T: the square of d sigma / d theta, for each map.",
        praise="Where scales are small the two are one; where they are large softplus is slow.",
    ),
    "04-4": Code(
        reference=_covariances,
        cases=[
            ("theta = 0", (torch.zeros(2, 3, 3, dtype=torch.float64),)),
            ("a single number", (_normal(1, 1, 1, seed=2),)),
            ("random theta, K = 3 and D = 2", (_normal(3, 2, 2, seed=3),)),
            ("random theta, K = 2 and D = 5", (_normal(2, 5, 5, seed=4),)),
        ],
        mistakes=[
            (_by_lower_triangle, "the diagonal goes in as it is: where is its exponential?"),
            (
                _by_whole_exponential,
                "the exponential belongs on the diagonal alone; below it any number is allowed.",
            ),
            (_by_upper_entries, "the entries above the diagonal are used; L is lower triangular."),
            (_other_order, "this is L^T L; the factor and its transpose are in the wrong order."),
        ],
        hint="Build L from its part below the diagonal and its diagonal, then multiply. Did you "
        "take the diagonal of each matrix (its last two dimensions)?",
        praise="Whatever an optimizer writes into theta, a covariance comes out.",
    ),
    "04-5": Code(
        reference=_isotropic,
        cases=[
            (
                "one component that owns all points",
                (_normal(9, 1, seed=5), _normal(9, 1, seed=5).mul(0).add(1)),
            ),
            (
                "two components in three dimensions",
                (_normal(30, 3, seed=6) + 4, _normal(30, 2, seed=7).softmax(1)),
            ),
            (
                "four components in two dimensions",
                (_normal(25, 2, seed=8), _normal(25, 4, seed=9).softmax(1)),
            ),
        ],
        mistakes=[
            (
                _isotropic_whole_trace,
                "this is the sum of the variances of all dimensions. How many squared residuals "
                "does a point bring?",
            ),
            (_isotropic_over_all, "divided by N, and not by the points that a component has."),
            (
                _isotropic_about_one_mean,
                "the residuals are taken about the mean of all points; each component has its own.",
            ),
            (_isotropic_deviations, "these are standard deviations; variances are wanted."),
            (_isotropic_pooled, "this is one variance for all: the shared isotropic family."),
        ],
        hint="Weighted mean first, then the weighted squares about it, then what to divide by.",
        praise="One number pools D dimensions, and so is divided by D times the count.",
    ),
    "04-6": Value(
        expected=math.log(0.05) / math.log(0.5),
        mistakes=[
            (
                math.log(0.5) / math.log(0.05),
                "this is the deviation upside down. At this one, does the circle hold more or "
                "less than 95 %?",
            ),
            (
                0.23,
                "this is the deviation upside down. At this one, does the circle hold more or "
                "less than 95 %?",
            ),
            (math.log(0.95) / math.log(0.5), "1 - P is raised to the power, and not P."),
            (
                (math.log(0.05) / math.log(0.5)) ** 2,
                "this is the variance; the standard deviation is asked for.",
            ),
            (2.0, "half of the radius, or of the exponent, does not hold half of the mass."),
        ],
        hint="Set the mass that the chapter derives for the wrong circle to 1/2, and solve.",
        praise="The waits of Old Faithful vary by more than that: such circles hold even less.",
    ),
    "04-7": Code(
        reference=_equal_volume,
        cases=[
            ("a single component", (_scatters(1, 3, seed=10), _vector(7.0))),
            (
                "three components in two dimensions",
                (_scatters(3, 2, seed=11), _vector(12.0, 3.0, 6.5)),
            ),
            ("two components in four dimensions", (_scatters(2, 4, seed=12), _vector(8.0, 20.0))),
        ],
        mistakes=[
            (_own_volume, "each covariance has a volume of its own: this is the full family."),
            (
                _volumes_of_covariances,
                "the common volume is an average over the components, without regard to how many "
                "points each has. Minimize over v once more.",
            ),
            (
                _pooled_volume,
                "this is the volume of the pooled scatter; minimize over v once more.",
            ),
            (_shapes_alone, "these have determinant 1: the common factor v is missing."),
            (_size_over_dims, "divided by D once too often: both terms in v carry it."),
            (_by_trace, "the traces are made equal; volume is a determinant."),
            (
                _without_root,
                "a factor on a D x D matrix enters its determinant to the power D: take the root.",
            ),
        ],
        hint="Each C_k is its scatter, scaled to determinant 1. What is then left for v?",
        praise="Shape and tilt are learned by each component, size by all.",
    ),
}
