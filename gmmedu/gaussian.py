"""The multivariate normal, from its whitening factor. Nothing here knows of mixtures.

Derived in chapter 01. Everywhere in the package the covariance is Sigma = L L^T with a lower
triangular factor L, and W = L^{-1} whitens: y = W (x - mu) is standard normal when x is not.
Arrays are laid out components x dimensions x points, so that reductions run along the long axis;
leading dimensions are a batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOG_2PI = math.log(2 * math.pi)


def residuals(x: Tensor, means: Tensor) -> Tensor:
    """x_n - mu_k for every pair: x (..., N, D), means (..., K, D) -> (..., K, D, N)."""
    return x.mT.unsqueeze(-3) - means.unsqueeze(-1)


def log_density(whitened: Tensor, log_det_factor: Tensor) -> Tensor:
    """Log density of the multivariate normal from whitened residuals (eq-mvn-log-density).

    whitened: y = W (x - mu), (..., K, D, N); log_det_factor: log det L, (..., K) or (..., 1).
    Returns (..., K, N), in nats. Source: Bishop (2006), equation 2.43.
    """
    squared_distance = whitened.square().sum(-2)
    return -0.5 * squared_distance - log_normalizer(whitened.shape[-2], log_det_factor)


def log_normalizer(num_dims: int, log_det_factor: Tensor) -> Tensor:
    """log of (2 pi)^(D/2) det L: (..., K, 1). Makes the density integrate to one
    (eq-mvn-density)."""
    return (0.5 * num_dims * LOG_2PI + log_det_factor).unsqueeze(-1)


def within_reach(x: Tensor) -> Tensor:
    """The points x (..., N, D), those so far out that their residuals could not be whitened
    drawn in toward the origin; NaN stays."""
    limit = torch.finfo(x.dtype).max ** 0.75
    largest = x.detach().nan_to_num().abs().amax(-1, keepdim=True)
    return x * (limit / largest.clamp_min(limit))


def within_range(whitened: Tensor) -> Tensor:
    """The residuals y (..., K, D, N), those of a point drawn in by one factor for all K where
    their squares would leave the range of the dtype. Which component is nearest stays true, and
    a gradient stays finite."""
    limit = torch.finfo(whitened.dtype).max ** 0.5 / (4 * whitened.shape[-2])
    largest = whitened.detach().abs().amax((-3, -2), keepdim=True)
    return whitened * (limit / largest.clamp_min(limit))


def reorder(factor: Tensor, dims: list[int]) -> Tensor:
    """A lower triangular factor of the covariance of some dimensions, in that order.

    factor: L (..., D, D), or any root A with Sigma = A A^T; dims: O of them. Returns
    (..., O, O), by a QR decomposition of the rows, which never forms Sigma (eq-marginal).
    """
    upper = torch.linalg.qr(factor[..., dims, :].mT).R
    signs = torch.where(upper.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(upper)
    return upper.mT * signs.unsqueeze(-2)


def split(factor: Tensor, known: list[int], rest: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """The factor of dimensions ``known`` (..., O, O), that of ``rest`` given them, and the
    regression of ``rest`` on the whitened ``known`` (..., R, O) (eq-gaussian-conditional).

    With the dimensions so ordered, L = [[A, 0], [B, C]]: the mean of the rest moves by B y,
    where y = A^{-1} (x - mu) of the known ones, and its covariance is C C^T.
    """
    joint = reorder(factor, [*known, *rest])
    size = len(known)
    return joint[..., :size, :size], joint[..., size:, size:], joint[..., size:, :size]
