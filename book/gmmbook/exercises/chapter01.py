"""Exercises of chapter 01, the multivariate normal."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gmmbook.exercises.checkers import Checker, Choice, Code, Value

_SIGMA = torch.tensor([[4.0, 3.0], [3.0, 9.0]], dtype=torch.float64)
_U = torch.tensor([1.0, -2.0], dtype=torch.float64)
_TO_WHITEN = torch.tensor([[5.0, 4.0], [4.0, 5.0]], dtype=torch.float64)


def _random(num_dims: int, seed: int) -> tuple[Tensor, Tensor]:
    """A mean (D,) and a covariance (D, D), float64."""
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(num_dims, generator=generator, dtype=torch.float64)
    root = torch.randn(num_dims, num_dims, generator=generator, dtype=torch.float64)
    return mean, root @ root.mT + torch.eye(num_dims, dtype=torch.float64)


# 01-3, the log density


def _parts(x: Tensor, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor, float]:
    """Squared distances (N,), log det L, and D log 2 pi / 2."""
    root = torch.linalg.cholesky(covariance)
    y = torch.linalg.solve_triangular(root, (x - mean).mT, upper=False)
    log_det = root.diagonal().log().sum()
    return (y.square().sum(0), log_det, 0.5 * x.shape[1] * math.log(2 * math.pi))


def _log_density(x: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    squares, log_det, constant = _parts(x, mean, covariance)
    return -0.5 * squares - log_det - constant


def _one_dimension(x: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    squares, log_det, constant = _parts(x, mean, covariance)
    return -0.5 * squares - log_det - constant / x.shape[1]


def _no_constant(x: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    squares, log_det, _ = _parts(x, mean, covariance)
    return -0.5 * squares - log_det


def _no_determinant(x: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    squares, _, constant = _parts(x, mean, covariance)
    return -0.5 * squares - constant


def _determinant_added(x: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    squares, log_det, constant = _parts(x, mean, covariance)
    return -0.5 * squares + log_det - constant


def _determinant_twice(x: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    squares, log_det, constant = _parts(x, mean, covariance)
    return -0.5 * squares - 2 * log_det - constant


def _determinant_half(x: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    squares, log_det, constant = _parts(x, mean, covariance)
    return -0.5 * squares - 0.5 * log_det - constant


def _no_half(x: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    squares, log_det, constant = _parts(x, mean, covariance)
    return -squares - log_det - constant


def _points(num_points: int, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(num_points)
    noise = torch.randn(num_points, len(mean), generator=generator, dtype=torch.float64)
    return (mean + noise @ torch.linalg.cholesky(covariance).mT, mean, covariance)


def _in_400(variance: float) -> tuple[Tensor, Tensor, Tensor]:
    covariance = variance * torch.eye(400, dtype=torch.float64)
    return _points(3, torch.zeros(400, dtype=torch.float64), covariance)


# 01-4, one coordinate from the other


def _predict(mean: Tensor, covariance: Tensor, x1: float) -> Tensor:
    slope = covariance[1, 0] / covariance[0, 0]
    variance = covariance[1, 1] - slope * covariance[0, 1]
    return torch.stack([mean[1] + slope * (x1 - mean[0]), variance.sqrt()])


def _predict_variance(mean: Tensor, covariance: Tensor, x1: float) -> Tensor:
    expected, spread = _predict(mean, covariance, x1)
    return torch.stack([expected, spread.square()])


def _predict_marginal(mean: Tensor, covariance: Tensor, x1: float) -> Tensor:
    return torch.stack([_predict(mean, covariance, x1)[0], covariance[1, 1].sqrt()])


def _predict_covariance(mean: Tensor, covariance: Tensor, x1: float) -> Tensor:
    expected = mean[1] + covariance[1, 0] * (x1 - mean[0])
    return torch.stack([expected, _predict(mean, covariance, x1)[1]])


def _predict_correlation(mean: Tensor, covariance: Tensor, x1: float) -> Tensor:
    slope = covariance[1, 0] / covariance.diagonal().prod().sqrt()
    expected = mean[1] + slope * (x1 - mean[0])
    return torch.stack([expected, _predict(mean, covariance, x1)[1]])


def _predict_reversed(mean: Tensor, covariance: Tensor, x1: float) -> Tensor:
    expected = mean[1] + covariance[1, 0] / covariance[1, 1] * (x1 - mean[0])
    return torch.stack([expected, _predict(mean, covariance, x1)[1]])


def _predict_uncentered(mean: Tensor, covariance: Tensor, x1: float) -> Tensor:
    expected = mean[1] + covariance[1, 0] / covariance[0, 0] * x1
    return torch.stack([expected, _predict(mean, covariance, x1)[1]])


_PLANE = torch.tensor([1.0, -2.0], dtype=torch.float64)


# 01-7, the divergence


def _divergence(mean0: Tensor, covariance0: Tensor, mean1: Tensor, covariance1: Tensor) -> Tensor:
    return _with_log_dets(mean0, covariance0, mean1, covariance1, 1.0, len(mean0))


def _with_log_dets(
    mean0: Tensor, covariance0: Tensor, mean1: Tensor, covariance1: Tensor, sign: float, less: float
) -> Tensor:
    trace = torch.linalg.solve(covariance1, covariance0).trace()
    offset = mean0 - mean1
    square = offset @ torch.linalg.solve(covariance1, offset)
    log_dets = torch.logdet(covariance1) - torch.logdet(covariance0)
    return 0.5 * (trace - less + square + sign * log_dets)


def _divergence_reversed(
    mean0: Tensor, covariance0: Tensor, mean1: Tensor, covariance1: Tensor
) -> Tensor:
    return _divergence(mean1, covariance1, mean0, covariance0)


def _divergence_without_d(
    mean0: Tensor, covariance0: Tensor, mean1: Tensor, covariance1: Tensor
) -> Tensor:
    return _with_log_dets(mean0, covariance0, mean1, covariance1, 1.0, 0.0)


def _divergence_log_sign(
    mean0: Tensor, covariance0: Tensor, mean1: Tensor, covariance1: Tensor
) -> Tensor:
    return _with_log_dets(mean0, covariance0, mean1, covariance1, -1.0, len(mean0))


def _divergence_without_means(
    mean0: Tensor, covariance0: Tensor, mean1: Tensor, covariance1: Tensor
) -> Tensor:
    return _divergence(mean0, covariance0, mean0, covariance1)


_THREE, _OTHER = _random(3, 3), _random(3, 4)


def _power(exponent: float) -> Tensor:
    """A power of the covariance of 01-5, by its eigenvalues."""
    variances, axes = torch.linalg.eigh(_TO_WHITEN)
    return axes @ torch.diag(variances**exponent) @ axes.mT


def _other_whitenings() -> list[Tensor]:
    """Those that a reader finds first: of both triangular factors, and along the axes."""
    variances, axes = torch.linalg.eigh(_TO_WHITEN)
    lower = torch.linalg.inv(torch.linalg.cholesky(_TO_WHITEN))
    along = axes.mT / variances.sqrt()[:, None]
    signs = torch.cartesian_prod(*2 * [torch.tensor([1.0, -1.0], dtype=torch.float64)])
    turned = [sign[:, None] * rows for sign in signs for rows in (along, along.flip(0))]
    return [lower, lower.flip(0, 1), *turned]


EXERCISES: dict[str, Checker] = {
    "01-1": Value(
        expected=math.sqrt(-2 * math.log(1 - 0.6827)),
        mistakes=[
            (1.0, "that is the answer of one dimension; in the plane this ellipse holds 39 %."),
            (
                math.exp(-0.5),
                "that is the mass outside the ellipse at distance 1; a radius is wanted.",
            ),
            (0.61, "that is the mass outside the ellipse at distance 1; a radius is wanted."),
            (-2 * math.log(1 - 0.6827), "this is the square of the radius; a root is missing."),
            (
                math.sqrt(-2 * math.log(0.6827)),
                "68.27 % of the mass lies outside this ellipse; the equation has 1 - P.",
            ),
            (
                math.sqrt(-math.log(1 - 0.6827)),
                "the exponent of the mass is r squared over 2; where is the 2?",
            ),
        ],
        praise="To say 'one sigma' in the plane, say which mass you mean.",
        hint="Set the mass inside the ellipse, for D = 2, to 0.6827 and solve for the radius.",
    ),
    "01-2": Value(
        expected=_U @ _SIGMA @ _U,
        mistakes=[
            (
                _SIGMA[0, 0] + 4 * _SIGMA[1, 1],
                "that would be the variance if they were independent.",
            ),
            (
                _U.abs() @ _SIGMA @ _U.abs(),
                "that is the variance of the sum x1 + 2 x2; check the sign of the covariance term.",
            ),
            (
                (_SIGMA[0, 0] + 4 * _SIGMA[1, 1] - 2 * _SIGMA[0, 1]),
                "the covariance stands in the matrix twice.",
            ),
            (
                _SIGMA[0, 0] - 4 * _SIGMA[1, 1],
                "a variance is never negative: its coefficients enter squared.",
            ),
            (
                _SIGMA[0, 0] + 2 * _SIGMA[1, 1] - 4 * _SIGMA[0, 1],
                "the coefficient of x2 enters its variance squared.",
            ),
            (
                _SIGMA[0, 0] + 4 * _SIGMA[1, 1] - 8 * _SIGMA[0, 1],
                "the coefficients enter the covariance's term once for each of its two "
                "places, and not squared. (Standard deviations subtract only at correlation 1.)",
            ),
            (
                _SIGMA[0, 0] + _SIGMA[1, 1] + 4 * _SIGMA[0, 1],
                "the covariance must lower the variance of a difference, and the coefficient "
                "of x2 enters its own variance squared. Standard deviations do not add.",
            ),
        ],
        praise="What two coordinates share cancels in their difference.",
        hint="Write the difference as u^T x; its variance is u^T Sigma u.",
    ),
    "01-3": Code(
        reference=_log_density,
        cases=[
            ("one dimension", _points(4, *_random(1, 1))),
            ("five points in three dimensions", _points(5, *_random(3, 2))),
            ("a single point", _points(1, *_random(2, 5))),
            ("400 dimensions and a variance of 0.01", _in_400(0.01)),
            ("400 dimensions and a variance of 100", _in_400(100.0)),
        ],
        mistakes=[
            (
                _one_dimension,
                "the constant is right for one dimension only: how many factors of "
                "2 pi does the density have?",
            ),
            (_no_constant, "the constant with 2 pi is missing."),
            (_no_determinant, "the determinant is missing: a wide Gaussian must be low."),
            (
                _determinant_added,
                "the sign of the determinant's term: the wider, the lower the density.",
            ),
            (
                _determinant_twice,
                "the determinant counts twice: half of log det Sigma is log det L.",
            ),
            (
                _determinant_half,
                "the determinant's term is halved once too often: the equation has "
                "log det L, which is half of log det Sigma.",
            ),
            (_no_half, "the squared distance has lost its factor of one half."),
        ],
        praise="It holds where the density itself, and the determinant, leave the range of floats.",
        hint="Whiten with the lower triangular factor; the residuals must be its columns.",
    ),
    "01-4": Code(
        reference=_predict,
        cases=[
            (
                "no correlation",
                (_PLANE, torch.tensor([[4.0, 0.0], [0.0, 9.0]], dtype=torch.float64), 3.0),
            ),
            (
                "a positive correlation",
                (_PLANE, torch.tensor([[4.0, 3.0], [3.0, 9.0]], dtype=torch.float64), 3.5),
            ),
            (
                "a negative correlation",
                (_PLANE, torch.tensor([[2.0, -1.0], [-1.0, 0.7]], dtype=torch.float64), -1.0),
            ),
        ],
        mistakes=[
            (_predict_variance, "the second number is a variance, and not a standard deviation."),
            (
                _predict_marginal,
                "the standard deviation is that of x2 before x1 is known; knowing x1 "
                "must make it smaller.",
            ),
            (
                _predict_covariance,
                "the slope is not the covariance: it must turn the units of x1 into those of x2.",
            ),
            (
                _predict_correlation,
                "the slope is not the correlation: it must turn the units of x1 into those of x2.",
            ),
            (_predict_reversed, "this is the slope for predicting x1 from x2."),
            (_predict_uncentered, "the slope multiplies the distance of x1 from its mean."),
        ],
        praise="This is linear regression, read off a Gaussian.",
        hint="Take the conditional's equation with blocks of size one.",
    ),
    "01-5": Value(
        expected=_power(-0.5),
        tolerance=0.01,
        mistakes=[
            (_power(0.5), "this is the root of Sigma, which colors; whitening is the way back."),
            (
                _power(-1.0),
                "this is the inverse of Sigma; W Sigma W^T is then not the identity.",
            ),
            (
                torch.eye(2),
                "it does not whiten: W Sigma W^T should be the identity, and is not.",
            ),
            (
                -_power(-0.5),
                "it whitens and is symmetric, and it is not positive definite: it reflects.",
            ),
            *(
                (whitening, "it whitens, and it is not symmetric.")
                for whitening in _other_whitenings()
            ),
        ],
        hint="it does not whiten: W Sigma W^T should be the identity, and is not.",
        praise="It treats no coordinate as the first.",
    ),
    "01-6": Choice(
        right="ab",
        others={
            "c": "once you know that x1 is 3, x2 can only be 3 or -3. Were they independent, "
            "knowing x1 would leave the distribution of x2 as it was.",
            "d": "plot the pairs: on which lines do they lie? A Gaussian vector with this "
            "covariance would be round.",
            "e": "how often is the sum exactly zero? A Gaussian with a density takes no value "
            "twice.",
        },
        praise="Uncorrelated means independent for what is jointly Gaussian; Gaussian margins "
        "alone are not enough.",
    ),
    "01-7": Code(
        reference=_divergence,
        cases=[
            ("two different Gaussians in three dimensions", (*_THREE, *_OTHER)),
            ("the same Gaussian twice", (*_THREE, *_THREE)),
            ("equal covariances", (_THREE[0], _THREE[1], _OTHER[0], _THREE[1])),
            ("one dimension", (*_random(1, 8), *_random(1, 9))),
        ],
        mistakes=[
            (_divergence_reversed, "p and q have changed places; the divergence is not symmetric."),
            (_divergence_without_d, "of a Gaussian from itself it should be zero, and is not."),
            (_divergence_log_sign, "the sign of the logarithm of the determinants is wrong."),
            (_divergence_without_means, "the means do not enter."),
        ],
        praise="It is zero only for the same Gaussian, and it charges more for being too narrow.",
        hint="Add minus the entropy of q and the mean NLL of p on data that have q's moments.",
    ),
}
