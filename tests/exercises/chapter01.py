"""Answers to the exercises of chapter 01, right and wrong."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from exercises.cases import Case


def log_density_scipy(x: Tensor, mean: Tensor, covariance: Tensor) -> object:
    density = stats.multivariate_normal(mean.numpy(), covariance.numpy())
    return np.atleast_1d(density.logpdf(x.numpy()))


def log_density_torch(x: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    return MultivariateNormal(mean, covariance).log_prob(x)


def log_density_by_inverse(x: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    r = x - mean
    squares = (r @ torch.linalg.inv(covariance) * r).sum(1)
    return -0.5 * squares - 0.5 * torch.log(torch.linalg.det(2 * math.pi * covariance))


def log_density_by_slogdet(x: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    r = x - mean
    squares = (r @ torch.linalg.inv(covariance) * r).sum(1)
    return -0.5 * squares - 0.5 * torch.linalg.slogdet(2 * math.pi * covariance)[1]


def predict_by_precision(mean: Tensor, covariance: Tensor, x1: float) -> list[float]:
    """From the precision matrix, Bishop (2006), equations 2.73 and 2.75."""
    precision = torch.linalg.inv(covariance)
    expected = mean[1] - precision[1, 0] / precision[1, 1] * (x1 - mean[0])
    return [float(expected), float(precision[1, 1] ** -0.5)]


def divergence_torch(m0: Tensor, c0: Tensor, m1: Tensor, c1: Tensor) -> Tensor:
    return kl_divergence(MultivariateNormal(m0, c0), MultivariateNormal(m1, c1))


SYMMETRIC = [[2 / 3, -1 / 3], [-1 / 3, 2 / 3]]
TRIANGULAR = np.linalg.inv(np.linalg.cholesky([[5.0, 4.0], [4.0, 5.0]]))

TURN = np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])
WHITENED_AND_TURNED = TURN @ SYMMETRIC

CASES = {
    "01-1": Case(
        right=[
            float(np.sqrt(stats.chi2.ppf(0.6827, 2))),
            torch.tensor(1.515),
            1.5151,
            np.float64(1.5151),
        ],
        wrong=[
            (1.0, "one dimension"),
            (2.2957, "square of the radius"),
            (0.8738, "outside this ellipse"),
            (1.0714, "where is the 2"),
            (0.61, "a radius is wanted"),
            (0.6065, "a radius is wanted"),
            (-1.5151, "sign"),
            (151.51, "percentage"),
        ],
    ),
    "01-2": Case(
        right=[28, 28.0, torch.tensor([28.0]), np.array(28)],
        wrong=[
            (40, "independent"),
            (52, "sum x1 + 2 x2"),
            (34, "twice"),
            (-32, "never negative"),
            (10, "squared"),
            (16, "two places"),
            (25, "do not add"),
            (math.sqrt(28), "standard deviation"),
            (torch.eye(2), "one number"),
        ],
    ),
    "01-3": Case(
        right=[log_density_scipy, log_density_torch, log_density_by_slogdet],
        wrong=[
            (
                lambda x, m, c: (
                    log_density_torch(x, m, c) + 0.5 * (len(m) - 1) * math.log(2 * math.pi)
                ),
                "one dimension only",
            ),
            (
                lambda x, m, c: log_density_torch(x, m, c) + 0.5 * len(m) * math.log(2 * math.pi),
                "2 pi is missing",
            ),
            (
                lambda x, m, c: log_density_torch(x, m, c) + 0.5 * torch.logdet(c),
                "determinant is missing",
            ),
            (
                lambda x, m, c: log_density_torch(x, m, c) + torch.logdet(c),
                "the wider, the lower",
            ),
            (lambda x, m, c: log_density_torch(x, m, c) - 0.5 * torch.logdet(c), "twice"),
            (
                lambda x, m, c: log_density_torch(x, m, c) + 0.25 * torch.logdet(c),
                "halved once too often",
            ),
            (log_density_by_inverse, "Right until now, but with 400 dimensions"),
            (lambda x, m, c: log_density_torch(x, m, c).exp(), "logarithm"),
            (lambda x, m, c: log_density_torch(x, m, c).mean(), "shape"),
            (lambda x, m, c: -log_density_torch(x, m, c), "sign"),
        ],
    ),
    "01-4": Case(
        right=[predict_by_precision],
        wrong=[
            (
                lambda m, c, v: [
                    predict_by_precision(m, c, v)[0],
                    predict_by_precision(m, c, v)[1] ** 2,
                ],
                "variance",
            ),
            (
                lambda m, c, v: [predict_by_precision(m, c, v)[0], float(c[1, 1]) ** 0.5],
                "before x1 is known",
            ),
            (
                lambda m, c, v: [
                    float(m[1] + c[0, 1] * (v - m[0])),
                    predict_by_precision(m, c, v)[1],
                ],
                "not the covariance",
            ),
            (
                lambda m, c, v: [
                    float(m[1] + c[0, 1] / c[1, 1] * (v - m[0])),
                    predict_by_precision(m, c, v)[1],
                ],
                "x1 from x2",
            ),
            (lambda m, c, v: predict_by_precision(m, c, v)[0], "shape"),
        ],
    ),
    "01-5": Case(
        right=[SYMMETRIC, torch.tensor(SYMMETRIC), np.array(SYMMETRIC)],
        wrong=[
            (TRIANGULAR, "not symmetric"),
            ([[2.0, 1.0], [1.0, 2.0]], "colors"),
            (np.linalg.inv([[5.0, 4.0], [4.0, 5.0]]), "inverse of Sigma"),
            (-np.array(SYMMETRIC), "not positive definite"),
            (torch.eye(2), "does not whiten"),
            ([[0.5, 0.1], [0.1, 0.5]], "does not whiten"),
            (WHITENED_AND_TURNED, "orthogonal matrix"),
            ([1.0, 2.0], "(2, 2)"),
        ],
    ),
    "01-6": Case(
        right=["ab", "ba", "a, b", "(a) (b)", "AB"],
        wrong=[
            ("abc", "knowing x1"),
            ("abd", "round"),
            ("abe", "exactly zero"),
            ("a", "not all"),
            ("f", "letter"),
            (2, "letter"),
        ],
    ),
    "01-7": Case(
        right=[divergence_torch],
        wrong=[
            (lambda m0, c0, m1, c1: divergence_torch(m1, c1, m0, c0), "changed places"),
            (lambda m0, c0, m1, c1: divergence_torch(m0, c0, m1, c1) + len(m0) / 2, "itself"),
            (
                lambda m0, c0, m1, c1: (
                    divergence_torch(m0, c0, m1, c1) - torch.logdet(c1) + torch.logdet(c0)
                ),
                "determinants",
            ),
            (lambda m0, c0, m1, c1: divergence_torch(m0, c0, m0, c1), "means do not enter"),
            (lambda m0, c0, m1, c1: 2 * divergence_torch(m0, c0, m1, c1), "factor of 2"),
        ],
    ),
}
