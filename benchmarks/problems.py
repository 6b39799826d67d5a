"""Data sets, starts, and the judge: a mean log likelihood that belongs to no contender."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]

DTYPES = {"float32": torch.float32, "float64": torch.float64}
OLD_FAITHFUL = (272, 2, 2)
#: Typical distance between two component means, in standard deviations: the components overlap,
#: so that no fit is finished after a few iterations.
SEPARATION = 4.0


@dataclass(frozen=True)
class Parameters:
    """A mixture in the terms every contender shares: (K,), (K, D) and (K, D, D), float64."""

    weights: Array
    means: Array
    covariances: Array


def synthetic(size: tuple[int, int, int], seed: int = 0) -> Tensor:
    """Points of an overlapping mixture with full covariances: (N, D), float64."""
    num_samples, num_dims, num_components = size
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(num_components, num_dims)) * SEPARATION / np.sqrt(2 * num_dims)
    mixing = rng.normal(size=(num_components, num_dims, num_dims)) / np.sqrt(2 * num_dims)
    factors = np.linalg.cholesky(mixing @ mixing.swapaxes(1, 2) + 0.5 * np.eye(num_dims))
    labels = rng.integers(num_components, size=num_samples)
    points = rng.normal(size=(num_samples, num_dims))
    for k in range(num_components):
        members = labels == k
        points[members] = points[members] @ factors[k].T + means[k]
    return torch.from_numpy(points)


def iris() -> Tensor:
    """Fisher's 150 flowers: (150, 4), float64, in cm."""
    from sklearn.datasets import load_iris

    return torch.from_numpy(load_iris().data)


def wine() -> Tensor:
    """178 wines, standardized: (178, 13), float64."""
    from sklearn.datasets import load_wine

    return standardized(torch.from_numpy(load_wine().data))


def blobs() -> Tensor:
    """Four round clusters of 2,500 points in 8 dimensions, well apart: (10000, 8), float64."""
    rng = np.random.default_rng(0)
    centers = 6 * rng.normal(size=(4, 8))
    return torch.from_numpy(np.repeat(centers, 2500, axis=0) + rng.normal(size=(10_000, 8)))


def standardized(x: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 in every dimension: (N, D)."""
    variance, mean = torch.var_mean(x, 0, correction=0)
    return (x - mean) / variance.sqrt()


def load(size: tuple[int, int, int]) -> Tensor:
    """Old Faithful at its own size, else synthetic points: (N, D), float64."""
    if size == OLD_FAITHFUL:
        # Here: the peers' own environment has no gmmedu.
        import gmmedu

        return gmmedu.load_old_faithful(dtype=torch.float64)
    return synthetic(size)


def make_start(x: Tensor, num_components: int, seed: int = 1) -> Parameters:
    """Equal weights, the data's mean variance in every direction, and means at random data points
    that are drawn toward the center until two are typically ``SEPARATION`` deviations apart.

    Such covariances belong to every family, so one start serves them all. Without the shrinkage a
    mean in many dimensions wins either nearly all points or too few to span them.
    """
    points = x.numpy()
    rng = np.random.default_rng(seed)
    num_samples, num_dims = points.shape
    center, variance = points.mean(axis=0, dtype=np.float64), points.var(axis=0).mean()
    chosen = points[rng.choice(num_samples, size=num_components, replace=False)]
    means = center + min(1.0, SEPARATION / np.sqrt(2 * num_dims)) * (chosen - center)
    return Parameters(
        weights=np.full(num_components, 1 / num_components),
        means=means,
        covariances=np.tile(variance * np.eye(num_dims), (num_components, 1, 1)),
    )


def mean_log_likelihood(x: Tensor, parameters: Parameters) -> float:
    """Mean log likelihood in float64 with numpy alone: the judge of agreement. NaN where a
    covariance is not positive definite; of the first 100,000 points where there are more."""
    num_dims = x.shape[1]
    try:
        factors = np.linalg.cholesky(parameters.covariances)
    except np.linalg.LinAlgError:
        return float("nan")
    whitening = np.linalg.inv(factors)
    log_det = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1)
    constant = np.log(parameters.weights) - log_det - 0.5 * num_dims * np.log(2 * np.pi)
    values = x[:100_000].numpy().astype(np.float64)
    joint = np.empty((len(constant), len(values)))
    for k, mean in enumerate(parameters.means):
        whitened = (values - mean) @ whitening[k].T
        joint[k] = constant[k] - 0.5 * np.einsum("nd,nd->n", whitened, whitened)
    return float(np.logaddexp.reduce(joint).mean())
