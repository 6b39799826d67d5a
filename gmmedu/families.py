"""What a covariance may be: six families, each of which knows its own mathematics, once.

A family maps unconstrained numbers ``theta``, which an optimizer may move freely, to covariances
Sigma_k = L_k L_k^T, and reads from the statistics of one pass over the data both its M-step and
its gradient. Derived in chapter 04.

There are two ways to write a covariance down. ``full`` and ``tied`` hold a lower triangular factor
L; ``diagonal``, ``isotropic``, ``shared_isotropic`` and ``constant`` hold standard deviations.
Within each group the families differ only in what they *pool*: over which components and which
dimensions one number is shared. The leading dimension of ``theta`` is K when each component has
its own covariance and 1 when all share one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from gmmedu.statistics import Points, Statistics


class Factors(NamedTuple):
    """L and W = L^{-1}: (K or 1, D, D), or their diagonals (K or 1, D or 1)."""

    factor: Tensor
    whitening: Tensor


class Pseudo(NamedTuple):
    """What a prior adds to the statistics of each covariance: that many ``points``, whose scatter
    is ``scatter`` times the identity (eq-map-covariance)."""

    points: float = 0.0
    scatter: float = 0.0


NO_PSEUDO = Pseudo()


class Family(ABC):
    """The interface. K components, D dimensions, B points of a block; J is K, or 1 when shared."""

    name: str
    #: whether the family stays itself when each dimension is rescaled by its own factor
    per_dimension: bool
    #: whether all components have one covariance
    shared: bool = False
    #: whether the covariance is learned at all
    trainable: bool = True

    @abstractmethod
    def count(self, num_components: int, num_dims: int) -> int:
        """Number of free covariance parameters (eq-free-parameters)."""

    @abstractmethod
    def pool(self, values: Tensor) -> Tensor:
        """Sum (K, D) or (K, D, D) over whatever shares one number, keeping every dimension."""

    @abstractmethod
    def unpack(self, theta: Tensor) -> Factors:
        """Factors of unconstrained theta; differentiable."""

    @abstractmethod
    def pack(self, factor: Tensor) -> Tensor:
        """theta of a factor: the inverse of ``unpack``."""

    @abstractmethod
    def from_covariances(
        self, covariances: Tensor, weights: Tensor
    ) -> Tensor:
        """theta of the family's member nearest in likelihood: covariances (K, D, D), weights (K,).

        The covariances are averaged, with the weights, over whatever the family shares.
        """

    @abstractmethod
    def triangular(self, factor: Tensor, num_dims: int) -> Tensor:
        """L as matrices, lower triangular with positive diagonal: (J, D, D)."""

    @abstractmethod
    def log_det(self, factor: Tensor, num_dims: int) -> Tensor:
        """log det L: (J,)."""

    @abstractmethod
    def whiten(self, whitening: Tensor, residuals: Tensor) -> Tensor:
        """W_k applied to residuals (K, D, B): y (eq-whitening), (K, D, B)."""

    @abstractmethod
    def second_moment(self, weighted: Tensor, whitened: Tensor) -> Tensor:
        """sum_n r_nk y_nk y_nk^T, as much of it as the family needs, from r y and y (K, D, B)."""

    @abstractmethod
    def rescale(self, factors: Factors, scale: Tensor) -> Factors:
        """The factors after dimension d of the data was multiplied by scale[d]: scale (D,)."""

    def choose(
        self, which: Tensor, one: Factors, other: Factors
    ) -> Factors:
        """Factors of ``one`` where ``which`` (J,), else of ``other``."""
        which = which.reshape(-1, *[1] * (one.factor.ndim - 1))
        return Factors(
            *(
                torch.where(which, *pair)
                for pair in zip(one, other, strict=True)
            )
        )

    @abstractmethod
    def m_step(
        self,
        statistics: Statistics,
        mean: Tensor,
        factors: Factors,
        floor: float,
        pseudo: Pseudo,
    ) -> tuple[Factors, Tensor]:
        """The covariances that maximize EM's surrogate, that is minimize eq-covariance-objective.

        mean: of the whitened residuals, first / counts, (K, D). Returns factors with no standard
        deviation below ``floor`` in any direction, and which covariances (J,) would have been.
        """

    @abstractmethod
    def clamp(
        self, factors: Factors, floor: float
    ) -> tuple[Factors, Tensor]:
        """Factors with no standard deviation below ``floor`` (eq-clamp), and which (J,) were."""

    @abstractmethod
    def gradient(
        self, statistics: Statistics, factors: Factors, pseudo: Pseudo
    ) -> Tensor:
        """Gradient of the log likelihood (plus the log prior) in theta.

        eq-gradient-full and eq-gradient-diagonal, from eq-gradient-covariance; what is shared is
        summed (eq-gradient-pooled).
        """

    @abstractmethod
    def apply_factor(self, factor: Tensor, vectors: Tensor) -> Tensor:
        """L_k times (K, D): from whitened coordinates back to those of the data."""

    @abstractmethod
    def apply_whitening_transposed(
        self, whitening: Tensor, vectors: Tensor
    ) -> Tensor:
        """W_k^T times (K, D): a gradient in a mean from one in whitened coordinates."""

    @abstractmethod
    def precision_trace(self, whitening: Tensor, num_dims: int) -> Tensor:
        """Sum over covariances of tr Sigma^{-1}: a scalar."""

    def log_prior(
        self, factors: Factors, num_dims: int, pseudo: Pseudo
    ) -> Tensor:
        """Log of the prior (eq-inverse-wishart), up to a constant: a scalar."""
        log_det = self.log_det(factors.factor, num_dims).sum()
        trace = self.precision_trace(factors.whitening, num_dims)
        return -pseudo.points * log_det - 0.5 * pseudo.scatter * trace

    # Shared features. Where a log density is linear in a few features of x that do not depend on
    # the component, one matrix product scores a block and another sums its statistics.

    @abstractmethod
    def num_features(self, num_dims: int) -> int:
        """F, the number of features."""

    @abstractmethod
    def features(
        self, factors: Factors, block: Tensor, out: Tensor
    ) -> Tensor:
        """Features of a block [x; 1], (D + 1, B), with which they begin, into ``out``, (F, B)."""

    @abstractmethod
    def coefficients(self, factors: Factors, means: Tensor) -> Tensor:
        """(K, F): log density without its normalizer = coefficients @ features."""

    @abstractmethod
    def from_features(
        self, sums: Tensor, factors: Factors, means: Tensor, points: Points
    ) -> tuple[Tensor, Tensor]:
        """First and second whitened moments from sum_n r_nk feature_n, (K, F)."""

    @abstractmethod
    def conditioning(self, factors: Factors, means: Tensor) -> Tensor:
        """How large the terms of ``coefficients @ features`` are beside their sum, near a mean:
        the largest |W_k| |mu_k| squared, a scalar."""


class Diagonal(Family):
    """Sigma_k = diag(sigma_k1^2, ..., sigma_kD^2); theta = log sigma (eq-scale-maps), (K, D).

    M-step: eq-m-step-diagonal.
    """

    name = "diagonal"
    per_dimension = True

    def pool(self, values: Tensor) -> Tensor:
        return values

    def count(self, num_components: int, num_dims: int) -> int:
        return num_components * num_dims

    def unpack(self, theta: Tensor) -> Factors:
        return Factors(theta.exp(), theta.neg().exp())

    def pack(self, factor: Tensor) -> Tensor:
        return factor.log()

    def from_covariances(
        self, covariances: Tensor, weights: Tensor
    ) -> Tensor:
        variances = covariances.diagonal(dim1=-2, dim2=-1)
        shares = weights if self.shared else torch.ones_like(weights)
        share = shares.unsqueeze(-1).expand_as(variances)
        return 0.5 * torch.log(
            self.pool(share * variances) / self.pool(share)
        )

    def triangular(self, factor: Tensor, num_dims: int) -> Tensor:
        return torch.diag_embed(factor.expand(-1, num_dims))

    def log_det(self, factor: Tensor, num_dims: int) -> Tensor:
        return factor.log().expand(-1, num_dims).sum(-1)

    def whiten(self, whitening: Tensor, residuals: Tensor) -> Tensor:
        return residuals * whitening.unsqueeze(-1)

    def second_moment(self, weighted: Tensor, whitened: Tensor) -> Tensor:
        return (weighted * whitened).sum(-1)

    def rescale(self, factors: Factors, scale: Tensor) -> Factors:
        scale = scale[: factors.factor.shape[1]]
        return Factors(factors.factor * scale, factors.whitening / scale)

    def m_step(
        self,
        statistics: Statistics,
        mean: Tensor,
        factors: Factors,
        floor: float,
        pseudo: Pseudo,
    ) -> tuple[Factors, Tensor]:
        second = statistics.second - statistics.first * mean
        scatter, points = self._pooled(statistics, second, factors, pseudo)
        tiny = torch.finfo(
            points.dtype
        ).tiny  # keeps the covariance of an empty component
        ratio = (scatter.clamp_min(0) + tiny) / (points + tiny)
        factor = factors.factor * ratio.sqrt_()
        return self.clamp(Factors(factor, factors.whitening), floor)

    def clamp(
        self, factors: Factors, floor: float
    ) -> tuple[Factors, Tensor]:
        factor = factors.factor.clamp_min(floor)
        return Factors(factor, 1 / factor), (factors.factor < floor).any(-1)

    def gradient(
        self, statistics: Statistics, factors: Factors, pseudo: Pseudo
    ) -> Tensor:
        scatter, points = self._pooled(
            statistics, statistics.second, factors, pseudo
        )
        return scatter - points

    def _pooled(
        self,
        statistics: Statistics,
        second: Tensor,
        factors: Factors,
        pseudo: Pseudo,
    ) -> tuple[Tensor, Tensor]:
        """Sums of squares and of points behind each number of theta, the prior's included."""
        scatter = self.pool(second)
        points = self.pool(
            statistics.counts.unsqueeze(-1).expand_as(second)
        )
        if pseudo is not NO_PSEUDO:
            precisions = factors.whitening.square().expand(
                -1, second.shape[-1]
            )
            scatter = scatter + pseudo.scatter * self.pool(precisions)
            points = points + pseudo.points * self.pool(
                torch.ones_like(precisions)
            )
        return scatter, points

    def apply_factor(self, factor: Tensor, vectors: Tensor) -> Tensor:
        return factor * vectors

    def apply_whitening_transposed(
        self, whitening: Tensor, vectors: Tensor
    ) -> Tensor:
        return whitening * vectors

    def precision_trace(self, whitening: Tensor, num_dims: int) -> Tensor:
        return whitening.square().expand(-1, num_dims).sum()

    def num_features(self, num_dims: int) -> int:
        return 2 * num_dims + 1

    def features(
        self, factors: Factors, block: Tensor, out: Tensor
    ) -> Tensor:
        out[: len(block)] = block
        torch.mul(block[:-1], block[:-1], out=out[len(block) :])
        return out

    def coefficients(self, factors: Factors, means: Tensor) -> Tensor:
        precisions = factors.whitening.square().expand_as(means)
        linear = precisions * means
        constant = -0.5 * (linear * means).sum(-1, keepdim=True)
        return torch.cat([linear, constant, -0.5 * precisions], dim=-1)

    def from_features(
        self, sums: Tensor, factors: Factors, means: Tensor, points: Points
    ) -> tuple[Tensor, Tensor]:
        num_dims = means.shape[-1]
        linear, counts, squares = sums.split(
            [num_dims, 1, num_dims], dim=-1
        )
        first = linear - counts * means
        second = squares - means * (linear + first)
        return (
            factors.whitening * first,
            factors.whitening.square() * second,
        )

    def conditioning(self, factors: Factors, means: Tensor) -> Tensor:
        return (factors.whitening * means).square().sum(-1).max()


class Isotropic(Diagonal):
    """Sigma_k = sigma_k^2 I; theta = log sigma, (K, 1). M-step: eq-m-step-isotropic."""

    name = "isotropic"
    per_dimension = False

    def pool(self, values: Tensor) -> Tensor:
        return values.sum(-1, keepdim=True)

    def count(self, num_components: int, num_dims: int) -> int:
        return num_components


class SharedIsotropic(Isotropic):
    """Sigma_k = sigma^2 I for every k; theta = log sigma, (1, 1).

    M-step: eq-m-step-shared-isotropic.
    """

    name = "shared_isotropic"
    shared = True

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
        self,
        statistics: Statistics,
        mean: Tensor,
        factors: Factors,
        floor: float,
        pseudo: Pseudo,
    ) -> tuple[Factors, Tensor]:
        return self.clamp(factors, floor)

    def clamp(
        self, factors: Factors, floor: float
    ) -> tuple[Factors, Tensor]:
        return factors, torch.zeros_like(
            factors.factor[:, 0], dtype=torch.bool
        )

    def gradient(
        self, statistics: Statistics, factors: Factors, pseudo: Pseudo
    ) -> Tensor:
        return torch.zeros_like(factors.factor)


class Full(Family):
    """Sigma_k any symmetric positive definite matrix; theta, (K, D, D), is L_k with the
    logarithm of its diagonal in place of the diagonal (eq-log-cholesky). Entries above it are not
    used. M-step: eq-m-step-covariance."""

    name = "full"
    per_dimension = True

    def pool(self, values: Tensor) -> Tensor:
        return values

    def count(self, num_components: int, num_dims: int) -> int:
        return num_components * num_dims * (num_dims + 1) // 2

    def unpack(self, theta: Tensor) -> Factors:
        diagonal = theta.diagonal(dim1=-2, dim2=-1)
        factor = theta.tril(-1) + torch.diag_embed(diagonal.exp())
        return Factors(factor, _inverse_triangular(factor))

    def pack(self, factor: Tensor) -> Tensor:
        diagonal = factor.diagonal(dim1=-2, dim2=-1)
        return factor.tril(-1) + torch.diag_embed(diagonal.log())

    def from_covariances(
        self, covariances: Tensor, weights: Tensor
    ) -> Tensor:
        share = (
            weights if self.shared else torch.ones_like(weights)
        ).reshape(-1, 1, 1)
        average = self.pool(share * covariances) / self.pool(share)
        return self.pack(torch.linalg.cholesky(average))

    def triangular(self, factor: Tensor, num_dims: int) -> Tensor:
        return factor

    def log_det(self, factor: Tensor, num_dims: int) -> Tensor:
        return factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def whiten(self, whitening: Tensor, residuals: Tensor) -> Tensor:
        return whitening @ residuals

    def second_moment(self, weighted: Tensor, whitened: Tensor) -> Tensor:
        return weighted @ whitened.mT

    def rescale(self, factors: Factors, scale: Tensor) -> Factors:
        return Factors(
            factors.factor * scale.unsqueeze(-1), factors.whitening / scale
        )

    def m_step(
        self,
        statistics: Statistics,
        mean: Tensor,
        factors: Factors,
        floor: float,
        pseudo: Pseudo,
    ) -> tuple[Factors, Tensor]:
        between = statistics.first.unsqueeze(-1) * mean.unsqueeze(-2)
        scatter, points = self._pooled(statistics, factors, pseudo)
        tiny = torch.finfo(
            points.dtype
        ).tiny  # keeps the covariance of an empty component
        identity = _identity_like(scatter)
        covariance = torch.add(
            scatter - self.pool(between), identity, alpha=tiny
        ) / (points + tiny)
        # The covariance in whitened coordinates is near the identity, so its factor is exact
        # where Sigma itself, far from round, would lose digits; L times it is again triangular.
        root, failed = torch.linalg.cholesky_ex(covariance)
        factor = factors.factor @ root
        whitening = _inverse_triangular(factor)
        fine = _surely_above(floor, whitening) & (failed == 0)
        if bool(fine.all()):
            return Factors(factor, whitening), ~fine
        root = torch.where(
            (failed > 0).reshape(-1, 1, 1), _square_root(covariance), root
        )
        return _floored(factors.factor @ root, floor)

    def clamp(
        self, factors: Factors, floor: float
    ) -> tuple[Factors, Tensor]:
        fine = _surely_above(floor, factors.whitening)
        if bool(fine.all()):
            return factors, ~fine
        return _floored(factors.factor, floor)

    def gradient(
        self, statistics: Statistics, factors: Factors, pseudo: Pseudo
    ) -> Tensor:
        scatter, points = self._pooled(statistics, factors, pseudo)
        in_factor = factors.whitening.mT @ (
            scatter - points * _identity_like(scatter)
        )
        by_logarithm = in_factor.diagonal(
            dim1=-2, dim2=-1
        ) * factors.factor.diagonal(dim1=-2, dim2=-1)
        return in_factor.tril(-1) + torch.diag_embed(by_logarithm)

    def _pooled(
        self, statistics: Statistics, factors: Factors, pseudo: Pseudo
    ) -> tuple[Tensor, Tensor]:
        """Second moments and numbers of points behind each covariance, the prior's included."""
        scatter = self.pool(statistics.second)
        points = self.pool(statistics.counts.reshape(-1, 1, 1))
        if pseudo is not NO_PSEUDO:
            scatter = (
                scatter
                + pseudo.scatter * factors.whitening @ factors.whitening.mT
            )
            points = points + pseudo.points
        return scatter, points

    def apply_factor(self, factor: Tensor, vectors: Tensor) -> Tensor:
        return (factor @ vectors.unsqueeze(-1)).squeeze(-1)

    def apply_whitening_transposed(
        self, whitening: Tensor, vectors: Tensor
    ) -> Tensor:
        return (whitening.mT @ vectors.unsqueeze(-1)).squeeze(-1)

    def precision_trace(self, whitening: Tensor, num_dims: int) -> Tensor:
        return whitening.square().sum()

    def num_features(self, num_dims: int) -> int:
        return (num_dims + 1) * (num_dims + 2) // 2

    def features(
        self, factors: Factors, block: Tensor, out: Tensor
    ) -> Tensor:
        out[: len(block)] = block
        products = out[len(block) :].split(
            list(range(len(block) - 1, 0, -1))
        )
        for d, product in enumerate(products):  # x_d times x_d, ..., x_D
            torch.mul(block[d], block[d:-1], out=product)
        return out

    def coefficients(self, factors: Factors, means: Tensor) -> Tensor:
        precisions = factors.whitening.mT @ factors.whitening
        linear = (precisions @ means.unsqueeze(-1)).squeeze(-1)
        constant = -0.5 * (linear * means).sum(-1, keepdim=True)
        precisions.diagonal(dim1=-2, dim2=-1).mul_(0.5)
        row, column, _ = _upper_triangle(means.shape[-1], means.device)
        return torch.cat(
            [linear, constant, -precisions[:, row, column]], dim=-1
        )

    def from_features(
        self, sums: Tensor, factors: Factors, means: Tensor, points: Points
    ) -> tuple[Tensor, Tensor]:
        num_dims = means.shape[-1]
        linear, counts, products = sums.tensor_split(
            [num_dims, num_dims + 1], dim=-1
        )
        second = products[:, _upper_triangle(num_dims, means.device)[2]]
        first = linear - counts * means
        second -= linear.unsqueeze(-1) * means.unsqueeze(-2)
        second -= means.unsqueeze(-1) * first.unsqueeze(-2)
        whitening = factors.whitening
        return self.apply_factor(
            whitening, first
        ), whitening @ second @ whitening.mT

    def conditioning(self, factors: Factors, means: Tensor) -> Tensor:
        return (
            self.apply_factor(factors.whitening.abs(), means.abs())
            .square()
            .sum(-1)
            .max()
        )


class Tied(Full):
    """Sigma_k = Sigma for every k; theta, (1, D, D), as in the full family.

    M-step: eq-m-step-tied.
    """

    name = "tied"
    shared = True

    def pool(self, values: Tensor) -> Tensor:
        return values.sum(0, keepdim=True)

    def count(self, num_components: int, num_dims: int) -> int:
        return num_dims * (num_dims + 1) // 2

    def second_moment(self, weighted: Tensor, whitened: Tensor) -> Tensor:
        return self.pool(super().second_moment(weighted, whitened))

    def num_features(self, num_dims: int) -> int:
        return num_dims + 2

    def features(
        self, factors: Factors, block: Tensor, out: Tensor
    ) -> Tensor:
        out[:-1] = block
        whitened = factors.whitening[0] @ block[:-1]
        torch.sum(whitened.square_(), 0, out=out[-1])
        return out

    def coefficients(self, factors: Factors, means: Tensor) -> Tensor:
        whitening = factors.whitening[0]
        linear = means @ whitening.mT @ whitening
        constant = -0.5 * (linear * means).sum(-1, keepdim=True)
        return torch.cat(
            [linear, constant, torch.full_like(constant, -0.5)], dim=-1
        )

    def from_features(
        self, sums: Tensor, factors: Factors, means: Tensor, points: Points
    ) -> tuple[Tensor, Tensor]:
        linear, counts, _ = sums.split([means.shape[-1], 1, 1], dim=-1)
        whitening = factors.whitening[0]
        first = linear - counts * means
        second = points.scatter - means.mT @ linear - first.mT @ means
        return first @ whitening.mT, (
            whitening @ second @ whitening.mT
        ).unsqueeze(0)


def _identity_like(matrices: Tensor) -> Tensor:
    return _identity(matrices.shape[-1], matrices.dtype, matrices.device)


@lru_cache(maxsize=32)
def _identity(
    num_dims: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    return torch.eye(num_dims, dtype=dtype, device=device)


@lru_cache(maxsize=32)
def _upper_triangle(
    num_dims: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Row and column of each entry on and above the diagonal, row by row, and where in that list
    each entry of a symmetric matrix stands, (D, D)."""
    row, column = torch.triu_indices(num_dims, num_dims, device=device)
    place = torch.empty(
        num_dims, num_dims, dtype=torch.int64, device=device
    )
    place[row, column] = place[column, row] = torch.arange(
        len(row), device=device
    )
    return row, column, place


def _inverse_triangular(factor: Tensor) -> Tensor:
    """W = L^{-1} by forward substitution."""
    return torch.linalg.solve_triangular(
        factor, _identity_like(factor), upper=False
    )


def _square_root(matrices: Tensor) -> Tensor:
    """A with A A^T = matrix, for symmetric positive semi-definite matrices, singular or not."""
    values, vectors = torch.linalg.eigh(matrices.nan_to_num(0.0, 0.0, 0.0))
    return vectors * values.clamp_min(0).sqrt().unsqueeze(-2)


def _surely_above(floor: float, whitening: Tensor) -> Tensor:
    """Whether no standard deviation is below ``floor``, (J,), by a bound: false may mean maybe.

    The smallest variance is at least 1 / |W|^2, in Frobenius norm.
    """
    return whitening.square().sum((-2, -1)) < floor**-2


def _floored(roots: Tensor, floor: float) -> tuple[Factors, Tensor]:
    """Factors of A A^T with no standard deviation below ``floor``, and which ones (J,) were.

    roots: A, (J, D, D). What is not finite is left for the NLL to report.
    """
    if not bool(torch.isfinite(roots).all()):
        return Factors(roots, roots), torch.zeros_like(
            roots[:, 0, 0], dtype=torch.bool
        )
    factor, scales = _raised(roots, floor)
    factor = factor * factor.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
    low = scales.amin(-1) < floor
    return Factors(factor, _inverse_triangular(factor)), low


def _raised(roots: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """Triangular roots of A A^T with no standard deviation below ``floor``, and those of A.

    roots: A, (J, D, D). Raising the small singular values of A is the exact maximizer of EM's
    surrogate under that bound (eq-clamp). The signs on the diagonal are arbitrary.
    """
    axes, scales, _ = torch.linalg.svd(roots)
    raised = axes * scales.clamp_min(floor).unsqueeze(-2)
    return torch.linalg.qr(raised.mT).R.mT, scales


FULL, TIED, DIAGONAL = Full(), Tied(), Diagonal()
ISOTROPIC, SHARED_ISOTROPIC, CONSTANT = (
    Isotropic(),
    SharedIsotropic(),
    Constant(),
)
