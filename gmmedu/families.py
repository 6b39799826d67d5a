"""What a covariance may be: six families, each of which knows its own mathematics, once.

A family maps unconstrained numbers ``theta``, which an optimizer may move freely, to covariances
Sigma_k = L_k L_k^T, and reads from the statistics of one pass over the data both its M-step and
its gradient. Derived in chapter 04.

There are two ways to write a covariance down. ``full`` and ``tied`` hold a lower triangular factor
L whose diagonal is stored as a logarithm; ``diagonal``, ``isotropic``, ``shared_isotropic`` and
``constant`` hold logarithms of standard deviations. Within each group the families differ only in
what they *pool*: over which components and which dimensions one number is shared. The leading
dimension of ``theta`` is K when each component has its own covariance and 1 when all share one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from gmmedu.statistics import Points, Statistics


class Pseudo(NamedTuple):
    """What a prior adds to the statistics of each covariance: ``count`` pseudo-observations
    whose scatter is ``scatter`` times the identity (eq-map-covariance)."""

    count: float = 0.0
    scatter: float = 0.0


NO_PSEUDO = Pseudo()


class Family(ABC):
    """The interface. K components, D dimensions, B points of a block.

    theta, (K or 1, ...), holds the unconstrained numbers; "whitened" is W_k (x_n - mu_k).
    """

    name: str
    #: whether the family stays itself when each dimension is rescaled by its own factor
    per_dimension: bool
    #: whether the covariance is learned at all
    trainable: bool = True

    @abstractmethod
    def count(self, num_components: int, num_dims: int) -> int:
        """Number of free covariance parameters (eq-free-parameters)."""

    @abstractmethod
    def from_covariances(self, covariances: Tensor, weights: Tensor) -> Tensor:
        """theta of the family's member nearest in likelihood: covariances (K, D, D), weights (K,).

        The covariances are averaged, with the weights, over whatever the family shares.
        """

    @abstractmethod
    def factors(self, theta: Tensor, num_dims: int) -> Tensor:
        """L, lower triangular with positive diagonal: (K or 1, D, D)."""

    @abstractmethod
    def log_det(self, theta: Tensor, num_dims: int) -> Tensor:
        """log |L|: (K or 1,)."""

    @abstractmethod
    def whiten(self, theta: Tensor, residuals: Tensor) -> Tensor:
        """W_k applied to residuals (K, D, B): (K, D, B)."""

    @abstractmethod
    def second_moment(self, weighted: Tensor, whitened: Tensor) -> Tensor:
        """sum_n r_nk y_nk y_nk^T, as much of it as the family needs, from r y and y (K, D, B)."""

    @abstractmethod
    def rescale(self, theta: Tensor, scale: Tensor) -> Tensor:
        """theta after dimension d of the data was multiplied by scale[d]: scale (D,)."""

    @abstractmethod
    def m_step(
        self, statistics: Statistics, theta: Tensor, floor: float, pseudo: Pseudo
    ) -> tuple[Tensor, Tensor]:
        """The covariances that maximize EM's surrogate (eq-m-step-covariance).

        Returns the new theta, with no standard deviation below ``floor`` in any direction, and
        which covariances (K or 1,) would have been below it.
        """

    @abstractmethod
    def clamp(self, theta: Tensor, floor: float) -> tuple[Tensor, Tensor]:
        """theta with no standard deviation below ``floor``, and which ones (K or 1,) were."""

    @abstractmethod
    def gradient(self, statistics: Statistics, theta: Tensor, pseudo: Pseudo) -> Tensor:
        """Gradient of the log likelihood (plus the log prior) in theta (eq-gradient-covariance)."""

    @abstractmethod
    def shift(self, theta: Tensor, means: Tensor) -> Tensor:
        """L_k applied to (K, D): from whitened coordinates back to those of the data."""

    @abstractmethod
    def unshift(self, theta: Tensor, vectors: Tensor) -> Tensor:
        """W_k^T applied to (K, D): the gradient in a mean from one in whitened coordinates."""

    def log_prior(self, theta: Tensor, num_dims: int, pseudo: Pseudo) -> Tensor:
        """Log of the inverse-Wishart prior, up to a constant (eq-map-covariance): a scalar."""
        identity = torch.eye(num_dims, dtype=theta.dtype, device=theta.device)
        precision = self.whiten(theta, identity.expand(theta.shape[0], -1, -1)).square().sum()
        log_det = self.log_det(theta, num_dims).sum()
        return -pseudo.count * log_det - 0.5 * pseudo.scatter * precision

    def covariances(self, theta: Tensor, num_components: int, num_dims: int) -> Tensor:
        """Sigma_k = L_k L_k^T: (K, D, D)."""
        factors = self.factors(theta, num_dims)
        return (factors @ factors.mT).expand(num_components, num_dims, num_dims)

    # Shared features. Where a log density is linear in a few features of x that do not depend on
    # the component, one matrix product scores a block and another sums its statistics.

    def features(self, theta: Tensor, block: Tensor) -> Tensor | None:
        """Features (F, B) of a block [x; 1] of shape (D + 1, B), or None: the family has none."""
        return None

    def coefficients(self, theta: Tensor, means: Tensor) -> Tensor:
        """(K, F): log density without the normalizer = coefficients @ features."""
        raise NotImplementedError

    def from_features(
        self, sums: Tensor, theta: Tensor, means: Tensor, points: Points
    ) -> tuple[Tensor, Tensor]:
        """First and second whitened moments from sum_n r_nk feature_n, (K, F)."""
        raise NotImplementedError

    def conditioning(self, theta: Tensor, means: Tensor, radius: Tensor) -> Tensor:
        """How many times its result the terms of ``coefficients @ features`` may be: a scalar."""
        raise NotImplementedError


class Diagonal(Family):
    """Sigma_k = diag(sigma_k1^2, ..., sigma_kD^2); theta = log sigma, (K, D)."""

    name = "diagonal"
    per_dimension = True

    def pool(self, values: Tensor) -> Tensor:
        """Sum (K, D) over whatever shares one variance, keeping both dimensions."""
        return values

    def count(self, num_components: int, num_dims: int) -> int:
        return num_components * num_dims

    def from_covariances(self, covariances: Tensor, weights: Tensor) -> Tensor:
        variances = covariances.diagonal(dim1=-2, dim2=-1)
        share = weights.unsqueeze(-1).expand_as(variances)
        return 0.5 * torch.log(self.pool(share * variances) / self.pool(share))

    def _log_scales(self, theta: Tensor, num_dims: int) -> Tensor:
        return theta.expand(theta.shape[0], num_dims)

    def factors(self, theta: Tensor, num_dims: int) -> Tensor:
        return torch.diag_embed(self._log_scales(theta, num_dims).exp())

    def log_det(self, theta: Tensor, num_dims: int) -> Tensor:
        return self._log_scales(theta, num_dims).sum(-1)

    def whiten(self, theta: Tensor, residuals: Tensor) -> Tensor:
        return residuals * theta.neg().exp().unsqueeze(-1)

    def second_moment(self, weighted: Tensor, whitened: Tensor) -> Tensor:
        return (weighted * whitened).sum(-1)

    def rescale(self, theta: Tensor, scale: Tensor) -> Tensor:
        return theta + scale[: theta.shape[1]].log()

    def _with_pseudo(
        self, statistics: Statistics, theta: Tensor, pseudo: Pseudo, second: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Pooled squares and pooled counts, both of theta's shape, the prior's share included."""
        num_components, num_dims = statistics.first.shape
        squares = self.pool(second)
        counts = self.pool(statistics.counts.unsqueeze(-1).expand(num_components, num_dims))
        if pseudo is not NO_PSEUDO:
            precisions = (-2 * self._log_scales(theta, num_dims)).exp()
            squares = squares + pseudo.scatter * self.pool(precisions)
            counts = counts + pseudo.count * self.pool(torch.ones_like(precisions))
        return squares, counts

    def m_step(
        self, statistics: Statistics, theta: Tensor, floor: float, pseudo: Pseudo
    ) -> tuple[Tensor, Tensor]:
        counts = statistics.counts.unsqueeze(-1)
        scatter = statistics.second - statistics.first * _mean(statistics.first, counts)
        variance_ratio = _ratio(*self._with_pseudo(statistics, theta, pseudo, scatter), empty=1.0)
        tiny = torch.finfo(theta.dtype).tiny
        return self.clamp(theta + 0.5 * variance_ratio.clamp_min(tiny).log(), floor)

    def clamp(self, theta: Tensor, floor: float) -> tuple[Tensor, Tensor]:
        lowest = torch.full((), floor, dtype=theta.dtype, device=theta.device).log()
        return theta.clamp_min(lowest), (theta < lowest).any(-1)

    def gradient(self, statistics: Statistics, theta: Tensor, pseudo: Pseudo) -> Tensor:
        squares, counts = self._with_pseudo(statistics, theta, pseudo, statistics.second)
        return squares - counts

    def shift(self, theta: Tensor, means: Tensor) -> Tensor:
        return means * theta.exp()

    def unshift(self, theta: Tensor, vectors: Tensor) -> Tensor:
        return vectors * theta.neg().exp()

    def features(self, theta: Tensor, block: Tensor) -> Tensor:
        return torch.cat([block, block[:-1].square()])

    def coefficients(self, theta: Tensor, means: Tensor) -> Tensor:
        precisions = (-2 * theta).exp().expand_as(means)
        linear = precisions * means
        constant = -0.5 * (linear * means).sum(-1, keepdim=True)
        return torch.cat([linear, constant, -0.5 * precisions], dim=-1)

    def from_features(
        self, sums: Tensor, theta: Tensor, means: Tensor, points: Points
    ) -> tuple[Tensor, Tensor]:
        num_dims = means.shape[-1]
        linear, counts, squares = sums.split([num_dims, 1, num_dims], dim=-1)
        whitening = theta.neg().exp()
        first = whitening * (linear - counts * means)
        second = whitening.square() * (squares - means * (2 * linear - counts * means))
        return first, second

    def conditioning(self, theta: Tensor, means: Tensor, radius: Tensor) -> Tensor:
        return ((radius + means.abs()) * theta.neg().exp()).max().square()


class Isotropic(Diagonal):
    """Sigma_k = sigma_k^2 I; theta = log sigma, (K, 1)."""

    name = "isotropic"
    per_dimension = False

    def pool(self, values: Tensor) -> Tensor:
        return values.sum(-1, keepdim=True)

    def count(self, num_components: int, num_dims: int) -> int:
        return num_components


class SharedIsotropic(Isotropic):
    """Sigma_k = sigma^2 I for every k; theta = log sigma, (1, 1)."""

    name = "shared_isotropic"

    def pool(self, values: Tensor) -> Tensor:
        return values.sum().reshape(1, 1)

    def count(self, num_components: int, num_dims: int) -> int:
        return 1


class Constant(SharedIsotropic):
    """Sigma_k = sigma^2 I with sigma^2 given, never learned; theta = log sigma, (1, 1)."""

    name = "constant"
    trainable = False

    def count(self, num_components: int, num_dims: int) -> int:
        return 0

    def m_step(
        self, statistics: Statistics, theta: Tensor, floor: float, pseudo: Pseudo
    ) -> tuple[Tensor, Tensor]:
        return theta, torch.zeros_like(theta[:, 0], dtype=torch.bool)

    def clamp(self, theta: Tensor, floor: float) -> tuple[Tensor, Tensor]:
        return theta, torch.zeros_like(theta[:, 0], dtype=torch.bool)

    def gradient(self, statistics: Statistics, theta: Tensor, pseudo: Pseudo) -> Tensor:
        return torch.zeros_like(theta)


class Full(Family):
    """Sigma_k any symmetric positive definite matrix; theta, (K, D, D), is L_k with the
    logarithm of its diagonal in place of the diagonal. Entries above it are not used."""

    name = "full"
    per_dimension = True

    def pool(self, values: Tensor) -> Tensor:
        """Sum (K, ...) over the components that share one covariance, keeping the dimension."""
        return values

    def count(self, num_components: int, num_dims: int) -> int:
        return num_components * num_dims * (num_dims + 1) // 2

    def from_covariances(self, covariances: Tensor, weights: Tensor) -> Tensor:
        share = weights.reshape(-1, 1, 1)
        average = self.pool(share * covariances) / self.pool(share)
        return _log_diagonal(torch.linalg.cholesky(average))

    def factors(self, theta: Tensor, num_dims: int) -> Tensor:
        diagonal = theta.diagonal(dim1=-2, dim2=-1)
        return theta.tril(-1) + torch.diag_embed(diagonal.exp())

    def log_det(self, theta: Tensor, num_dims: int) -> Tensor:
        return theta.diagonal(dim1=-2, dim2=-1).sum(-1)

    def whiten(self, theta: Tensor, residuals: Tensor) -> Tensor:
        return self._whitening(theta) @ residuals

    def _whitening(self, theta: Tensor) -> Tensor:
        return _inverse_triangular(self.factors(theta, theta.shape[-1]))

    def second_moment(self, weighted: Tensor, whitened: Tensor) -> Tensor:
        return weighted @ whitened.mT

    def rescale(self, theta: Tensor, scale: Tensor) -> Tensor:
        return theta.tril(-1) * scale.unsqueeze(-1) + torch.diag_embed(
            theta.diagonal(dim1=-2, dim2=-1) + scale.log()
        )

    def m_step(
        self, statistics: Statistics, theta: Tensor, floor: float, pseudo: Pseudo
    ) -> tuple[Tensor, Tensor]:
        counts = statistics.counts.reshape(-1, 1, 1)
        first = statistics.first.unsqueeze(-1)
        between = self.pool(first @ _mean(first, counts).mT)
        scatter, counts = self._with_pseudo(statistics, theta, pseudo)
        identity = torch.eye(theta.shape[-1], dtype=theta.dtype, device=theta.device)
        covariance = _ratio(scatter - between, counts, empty=identity)
        # The covariance in whitened coordinates is near the identity, so its factor is exact
        # where Sigma itself, far from round, would lose digits; L times it is again triangular.
        root, failed = torch.linalg.cholesky_ex(covariance)
        factors = self.factors(theta, theta.shape[-1])
        if bool(failed.any()):
            root = torch.where((failed > 0).reshape(-1, 1, 1), _square_root(covariance), root)
        return _floored(factors @ root, failed > 0, floor)

    def clamp(self, theta: Tensor, floor: float) -> tuple[Tensor, Tensor]:
        factors = self.factors(theta, theta.shape[-1])
        return _floored(factors, torch.zeros_like(theta[:, 0, 0], dtype=torch.bool), floor)

    def _with_pseudo(
        self, statistics: Statistics, theta: Tensor, pseudo: Pseudo
    ) -> tuple[Tensor, Tensor]:
        """Pooled second moments and pooled counts, the prior's share included."""
        second = self.pool(statistics.second)
        counts = self.pool(statistics.counts.reshape(-1, 1, 1))
        if pseudo is not NO_PSEUDO:
            whitening = self._whitening(theta)
            second = second + pseudo.scatter * whitening @ whitening.mT
            counts = counts + pseudo.count
        return second, counts

    def gradient(self, statistics: Statistics, theta: Tensor, pseudo: Pseudo) -> Tensor:
        second, counts = self._with_pseudo(statistics, theta, pseudo)
        identity = torch.eye(theta.shape[-1], dtype=theta.dtype, device=theta.device)
        in_factor = (self._whitening(theta).mT @ (second - counts * identity)).tril()
        diagonal = theta.diagonal(dim1=-2, dim2=-1).exp()
        return in_factor.tril(-1) + torch.diag_embed(
            in_factor.diagonal(dim1=-2, dim2=-1) * diagonal
        )

    def shift(self, theta: Tensor, means: Tensor) -> Tensor:
        return (self.factors(theta, theta.shape[-1]) @ means.unsqueeze(-1)).squeeze(-1)

    def unshift(self, theta: Tensor, vectors: Tensor) -> Tensor:
        return (self._whitening(theta).mT @ vectors.unsqueeze(-1)).squeeze(-1)


class Tied(Full):
    """Sigma_k = Sigma for every k; theta, (1, D, D), as in the full family."""

    name = "tied"

    def pool(self, values: Tensor) -> Tensor:
        return values.sum(0, keepdim=True)

    def count(self, num_components: int, num_dims: int) -> int:
        return num_dims * (num_dims + 1) // 2

    def features(self, theta: Tensor, block: Tensor) -> Tensor:
        whitened = self._whitening(theta)[0] @ block[:-1]
        return torch.cat([block, whitened.square().sum(0, keepdim=True)])

    def coefficients(self, theta: Tensor, means: Tensor) -> Tensor:
        whitening = self._whitening(theta)[0]
        linear = means @ whitening.mT @ whitening
        constant = -0.5 * (linear * means).sum(-1, keepdim=True)
        return torch.cat([linear, constant, torch.full_like(constant, -0.5)], dim=-1)

    def from_features(
        self, sums: Tensor, theta: Tensor, means: Tensor, points: Points
    ) -> tuple[Tensor, Tensor]:
        linear, counts, _ = sums.split([means.shape[-1], 1, 1], dim=-1)
        whitening = self._whitening(theta)[0]
        cross = means.mT @ linear
        scatter = points.scatter - cross - cross.mT + means.mT @ (counts * means)
        first = (linear - counts * means) @ whitening.mT
        return first, (whitening @ scatter @ whitening.mT).unsqueeze(0)

    def conditioning(self, theta: Tensor, means: Tensor, radius: Tensor) -> Tensor:
        return ((radius + means.abs()) @ self._whitening(theta)[0].abs().mT).max().square()


def _mean(first: Tensor, counts: Tensor) -> Tensor:
    """first / counts, and 0 for an empty component: its mean stays put."""
    return first / counts.clamp_min(torch.finfo(counts.dtype).tiny)


def _ratio(numerator: Tensor, counts: Tensor, empty: Tensor | float) -> Tensor:
    """numerator / counts, and ``empty`` where nothing was counted."""
    limits = torch.finfo(counts.dtype)
    counted = counts > limits.tiny / limits.eps
    return torch.where(counted, numerator / counts.clamp_min(limits.tiny), empty)


def _log_diagonal(factors: Tensor) -> Tensor:
    """L with the logarithm of its diagonal in place of the diagonal."""
    diagonal = factors.diagonal(dim1=-2, dim2=-1)
    return factors.tril(-1) + torch.diag_embed(diagonal.log())


def _inverse_triangular(factors: Tensor) -> Tensor:
    """W = L^{-1} by forward substitution."""
    identity = torch.eye(factors.shape[-1], dtype=factors.dtype, device=factors.device)
    return torch.linalg.solve_triangular(factors, identity, upper=False)


def _square_root(matrix: Tensor) -> Tensor:
    """A with A A^T = matrix, for a symmetric positive semi-definite matrix that may be singular."""
    values, vectors = torch.linalg.eigh(matrix.nan_to_num(0.0, 0.0, 0.0))
    return vectors * values.clamp_min(0).sqrt().unsqueeze(-2)


def _floored(roots: Tensor, failed: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """theta of A A^T with no standard deviation below ``floor``, and which ones (K,) were.

    roots: A, (K, D, D), triangular except where ``failed`` (K,). Raising the small singular
    values of A is the exact maximizer of EM's surrogate under that bound (eq-clamp).
    """
    by_component = failed.reshape(-1, 1, 1)
    identity = torch.eye(roots.shape[-1], dtype=roots.dtype, device=roots.device)
    factors = torch.where(by_component, identity, roots)
    # 1 / |W|^2 bounds the smallest variance from below: most of the time this settles it.
    suspect = failed | (_inverse_triangular(factors).square().sum((-2, -1)) * floor**2 > 1)
    if not bool(suspect.any()):
        return _log_diagonal(factors), suspect
    left, scales, _ = torch.linalg.svd(roots)
    low = scales.amin(-1) < floor
    rebuilt = torch.linalg.qr((left * scales.clamp_min(floor).unsqueeze(-2)).mT).R.mT
    rebuilt = rebuilt * rebuilt.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
    replace = (failed | low).reshape(-1, 1, 1)
    return _log_diagonal(torch.where(replace, rebuilt, factors)), low


FULL, TIED, DIAGONAL = Full(), Tied(), Diagonal()
ISOTROPIC, SHARED_ISOTROPIC, CONSTANT = Isotropic(), SharedIsotropic(), Constant()
