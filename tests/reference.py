"""Mixtures written a second time, from the textbook and by other means, to hold gmmedu against.

Nothing here imports gmmedu. Densities come from scipy, M-steps from explicit sums in numpy
(Bishop 2006, section 9.2), gradients from autograd through a loop over components that inverts
the covariance itself. Everything is float64 and slow, and says what it means.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from torch import Tensor

Array = np.ndarray[Any, np.dtype[np.float64]]

#: The families in which all components share one covariance.
SHARED = ("tied", "shared_isotropic", "constant")
#: The families that stay themselves when each dimension has a unit of its own.
PER_DIMENSION = ("full", "tied", "diagonal")
ALL = ("full", "tied", "diagonal", "isotropic", "shared_isotropic", "constant")


class Mixture(NamedTuple):
    """weights (K,), means (K, D), covariances (K, D, D)."""

    weights: Array
    means: Array
    covariances: Array

    def tensors(self) -> dict[str, Tensor]:
        """As the keyword arguments of ``set_parameters``."""
        return {name: torch.tensor(value) for name, value in self._asdict().items()}


# What a random mixture and its data look like


def random_mixture(family: str, num_components: int, num_dims: int, seed: int = 0) -> Mixture:
    """A member of the family; standard deviations between 0.6 and 1.7 along every axis."""
    random = np.random.default_rng([seed, num_components, num_dims])
    weights = random.uniform(0.5, 1.5, num_components)
    means = random.normal(size=(num_components, num_dims)) * 2
    covariances = np.empty((num_components, num_dims, num_dims))
    for k in range(num_components):
        variances = random.uniform(0.6, 1.7, num_dims) ** 2
        rotation = np.linalg.qr(random.normal(size=(num_dims, num_dims)))[0]
        if family in ("isotropic", "shared_isotropic", "constant"):
            variances = np.full(num_dims, variances[0])
        if family not in ("full", "tied"):
            rotation = np.eye(num_dims)
        covariance = rotation @ np.diag(variances) @ rotation.T
        covariances[k] = (covariance + covariance.T) / 2
    if family in SHARED:
        covariances[:] = covariances[0]
    return Mixture(weights / weights.sum(), means, covariances)


def draw(mixture: Mixture, num_points: int, seed: int = 0) -> Array:
    """Points (N, D) of the mixture."""
    random = np.random.default_rng(seed)
    factors = np.linalg.cholesky(mixture.covariances)
    labels = random.choice(len(mixture.weights), num_points, p=mixture.weights)
    normal = random.normal(size=(num_points, mixture.means.shape[1]))
    return mixture.means[labels] + np.einsum("nij,nj->ni", factors[labels], normal)


# Densities


def log_joint(mixture: Mixture, x: Array) -> Array:
    """log pi_k + log N(x_n | mu_k, Sigma_k): (N, K), from scipy."""
    columns = [
        np.log(weight) + np.atleast_1d(multivariate_normal(mean, covariance).logpdf(x))
        for weight, mean, covariance in zip(*mixture, strict=True)
    ]
    return np.stack(columns, axis=1)


def log_density(mixture: Mixture, x: Array) -> Array:
    """log p(x_n): (N,)."""
    return np.asarray(logsumexp(log_joint(mixture, x), axis=1))


def responsibilities(mixture: Mixture, x: Array) -> Array:
    """p(k | x_n): (N, K), normalized row by row."""
    joint = log_joint(mixture, x)
    rows = [np.exp(row - row.max()) for row in joint]
    return np.stack([row / row.sum() for row in rows])


# One EM step


def scatters(shares: Array, x: Array, means: Array) -> Array:
    """S_k = sum_n r_nk (x_n - mu_k)(x_n - mu_k)^T: (K, D, D)."""
    sums = [
        (share[:, None] * (x - mean)).T @ (x - mean)
        for share, mean in zip(shares.T, means, strict=True)
    ]
    return np.stack(sums)


def pool(
    family: str,
    scatter: Array,
    counts: Array,
    given: Array,
    prior_scatter: Array | None = None,
    prior_points: float = 0.0,
) -> Array:
    """Covariances (K, D, D) of the family from scatters and counts, with pseudo points if any.

    A prior adds ``prior_scatter`` (D, D) and ``prior_points`` to each covariance there is: to
    each component's, or once to the shared one. The constant family keeps ``given``.
    """
    num_components, num_dims, _ = scatter.shape
    if family == "constant":
        return given
    if family in SHARED:
        scatter, counts = scatter.sum(0, keepdims=True), counts.sum(keepdims=True)
    if prior_scatter is not None:
        scatter, counts = scatter + prior_scatter, counts + prior_points
    covariances = np.stack([s / n for s, n in zip(scatter, counts, strict=True)])
    if family == "diagonal":
        covariances = np.stack([np.diag(np.diag(c)) for c in covariances])
    if family in ("isotropic", "shared_isotropic"):
        covariances = np.stack([np.eye(num_dims) * np.trace(c) / num_dims for c in covariances])
    return np.array(np.broadcast_to(covariances, (num_components, num_dims, num_dims)))


def em_step(
    family: str,
    mixture: Mixture,
    x: Array,
    sample_weight: Array | None = None,
    prior_scatter: Array | None = None,
    prior_points: float = 0.0,
) -> Mixture:
    """The parameters after one EM step (Bishop 2006, equations 9.23 to 9.27)."""
    shares = responsibilities(mixture, x)
    if sample_weight is not None:
        shares = shares * sample_weight[:, None]
    counts = shares.sum(0)
    means = np.stack([share @ x / share.sum() for share in shares.T])
    scatter = scatters(shares, x, means)
    covariances = pool(family, scatter, counts, mixture.covariances, prior_scatter, prior_points)
    return Mixture(counts / counts.sum(), means, covariances)


# Unconstrained parameters and autograd


def theta_of(family: str, covariances: Array) -> Array:
    """The unconstrained numbers that stand for the covariances (K, D, D) of a family."""
    if family in SHARED:
        covariances = covariances[:1]
    if family in ("full", "tied"):
        factors = np.linalg.cholesky(covariances)
        for factor in factors:
            np.fill_diagonal(factor, np.log(np.diag(factor)))
        return np.asarray(factors)
    variances = np.stack([np.diag(covariance) for covariance in covariances])
    if family != "diagonal":
        variances = variances[:, :1]
    return np.asarray(0.5 * np.log(variances))


def covariances_of(family: str, theta: Tensor, num_components: int, num_dims: int) -> list[Tensor]:
    """The covariances, component by component, that unconstrained numbers stand for."""
    covariances = []
    for k in range(num_components):
        own = theta[0 if family in SHARED else k]
        if family in ("full", "tied"):
            factor = torch.tril(own, -1) + torch.diag(torch.exp(torch.diagonal(own)))
            covariances.append(factor @ factor.T)
        else:
            covariances.append(torch.diag(torch.exp(2 * own) * own.new_ones(num_dims)))
    return covariances


def mean_nll(
    family: str,
    logits: Tensor,
    means: Tensor,
    theta: Tensor,
    x: Tensor,
    sample_weight: Tensor | None = None,
    prior_scatter: Tensor | None = None,
    prior_points: float = 0.0,
) -> Tensor:
    """Mean negative log likelihood (less the log prior over N), for autograd to differentiate."""
    num_components, num_dims = means.shape
    log_weights = logits - torch.logsumexp(logits, 0)
    covariances = covariances_of(family, theta, num_components, num_dims)
    joint = []
    for k, covariance in enumerate(covariances):
        residual = x - means[k]
        distance = (residual @ torch.linalg.inv(covariance) * residual).sum(1)
        normalizer = torch.logdet(2 * torch.pi * covariance)
        joint.append(log_weights[k] - 0.5 * (distance + normalizer))
    log_p = torch.logsumexp(torch.stack(joint), 0)
    weight = torch.ones_like(log_p) if sample_weight is None else sample_weight
    objective = (weight * log_p).sum()
    if prior_scatter is not None:
        for covariance in covariances[:1] if family in SHARED else covariances:
            trace = torch.trace(prior_scatter @ torch.linalg.inv(covariance))
            objective = objective - 0.5 * (prior_points * torch.logdet(covariance) + trace)
    return -objective / weight.sum()


def gradient(
    family: str, parameters: Sequence[Tensor], x: Tensor, **options: Any
) -> tuple[Tensor, ...]:
    """Gradient of ``mean_nll`` in logits, means and theta; zero in theta of the constant family."""
    leaves = [parameter.detach().clone().requires_grad_() for parameter in parameters]
    logits, means, theta = leaves
    nll = mean_nll(family, logits, means, theta, x, **options)
    in_logits, in_means, in_theta = torch.autograd.grad(nll, leaves)
    return in_logits, in_means, torch.zeros_like(in_theta) if family == "constant" else in_theta


# Units


def units_of(family: str, x: Array, sample_weight: Array | None = None) -> tuple[Array, Array]:
    """Mean and standard deviation of the data, (D,) each; one common scale where axes must agree.

    The common scale is the root of the mean variance. A weight of 2 counts as two points.
    """
    mean = np.average(x, axis=0, weights=sample_weight)
    variance = np.average((x - mean) ** 2, axis=0, weights=sample_weight)
    if family not in PER_DIMENSION:
        variance = np.full_like(variance, variance.mean())
    return mean, np.sqrt(variance)


def transform(mixture: Mixture, scale: Array, shift: Array) -> Mixture:
    """The mixture of scale * x + shift."""
    covariances = mixture.covariances * scale[:, None] * scale
    return Mixture(mixture.weights, mixture.means * scale + shift, covariances)
