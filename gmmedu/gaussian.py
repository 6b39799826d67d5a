"""The multivariate normal, from its whitening factor. Nothing here knows of mixtures.

Derived in chapter 01. Everywhere in the package the covariance is Sigma = L L^T with a lower
triangular factor L, and W = L^{-1} whitens: y = W (x - mu) is standard normal when x is not.
Arrays are laid out components x dimensions x points, so that reductions run along the long axis.
"""

from __future__ import annotations

import math

from torch import Tensor

LOG_2PI = math.log(2 * math.pi)


def residuals(x: Tensor, means: Tensor) -> Tensor:
    """x_n - mu_k for every pair: x (N, D), means (K, D) -> (K, D, N)."""
    return x.mT.unsqueeze(0) - means.unsqueeze(-1)


def log_density(whitened: Tensor, log_det_factor: Tensor) -> Tensor:
    """Log density of the multivariate normal from whitened residuals (eq-mvn-log-density).

    whitened: y = W (x - mu), (K, D, N); log_det_factor: log det L, (K,) or (1,).
    Returns (K, N), in nats. Source: Bishop (2006), equation 2.43.
    """
    squared_distance = whitened.square().sum(-2)
    return -0.5 * squared_distance - log_normalizer(
        whitened.shape[-2], log_det_factor
    )


def log_normalizer(num_dims: int, log_det_factor: Tensor) -> Tensor:
    """log of (2 pi)^(D/2) det L: (K, 1). Makes the density integrate to one (eq-mvn-density)."""
    return (0.5 * num_dims * LOG_2PI + log_det_factor).unsqueeze(-1)
