"""What a covariance may be: two kinds of linear algebra, and six families that share them.

A family maps unconstrained numbers ``raw_scale``, which an optimizer may move freely, to
covariances Sigma_k = L_k L_k^T, and reads from the statistics of one pass both its M-step and
its gradient. Derived in chapter 04.

The two operators say how a covariance is written down and how one computes with it: ``Triangular``
holds a lower triangular factor L, ``Diagonal`` standard deviations. A family is an operator and
what it shares: over all components, over all dimensions. J is the number of covariances, K or 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gmmedu import gaussian
from gmmedu.values import Scales, State, Statistics, each

#: A number, or one for each member of a batch and each covariance: (..., 1).
Floor = float | Tensor


class ConjugatePrior(NamedTuple):
    """What a prior adds to the statistics of each covariance: that many ``points``, whose
    scatter is ``scatter`` times the identity (eq-map-covariance)."""

    points: float
    scatter: float


class Layout(NamedTuple):
    """Where the entries of a symmetric matrix stand in the list of those on and above the
    diagonal, row by row: their row and column, (D (D + 1) / 2,), and the place of each, (D, D).
    """

    row: Tensor
    column: Tensor
    place: Tensor

    @classmethod
    def of(cls, num_dims: int, device: torch.device) -> Layout:
        row, column = torch.triu_indices(num_dims, num_dims, device=device)
        place = torch.empty(num_dims, num_dims, dtype=torch.int64, device=device)
        place[row, column] = torch.arange(len(row), device=device)
        place[column, row] = torch.arange(len(row), device=device)
        return cls(row, column, place)


class Diagonal:
    """Covariances with axes along the dimensions: L holds standard deviations, (..., J, D) or
    (..., J, 1), and ``raw_scale`` their logarithms (eq-scale-maps)."""

    event_dims = 1

    @staticmethod
    def from_raw(raw_scale: Tensor) -> Scales:
        """Scales of unconstrained numbers; differentiable."""
        return Scales(raw_scale.exp(), raw_scale.neg().exp())

    @staticmethod
    def to_raw(factor: Tensor) -> Tensor:
        """The inverse of ``from_raw``."""
        return factor.log()

    @staticmethod
    def of_covariances(covariances: Tensor) -> Tensor:
        """The part of covariances (..., K, D, D) that this operator can hold, to be averaged."""
        return covariances.diagonal(dim1=-2, dim2=-1)

    @staticmethod
    def factorize(covariances: Tensor) -> Tensor:
        """L of what ``of_covariances`` returns."""
        return covariances.sqrt()

    @staticmethod
    def triangular(factor: Tensor, num_dims: int) -> Tensor:
        """L as matrices: (..., J, D, D)."""
        return torch.diag_embed(factor.expand(*factor.shape[:-1], num_dims))

    @staticmethod
    def log_det(factor: Tensor, num_dims: int) -> Tensor:
        """log det L: (..., J)."""
        return factor.log().expand(*factor.shape[:-1], num_dims).sum(-1)

    @staticmethod
    def whiten(whitening: Tensor, residuals: Tensor) -> Tensor:
        """W applied to residuals (..., K, D, B): y (eq-whitening)."""
        return residuals * whitening.unsqueeze(-1)

    @staticmethod
    def second_moment(weighted: Tensor, whitened: Tensor) -> Tensor:
        """sum_n r_nk y_nk y_nk^T, as much as is needed, from r y and y (..., K, D, B)."""
        return (weighted * whitened).sum(-1)

    @staticmethod
    def apply(factor: Tensor, vectors: Tensor) -> Tensor:
        """L_k times (..., K, D); W_k times vectors too, given W."""
        return factor * vectors

    @staticmethod
    def apply_transposed(factor: Tensor, vectors: Tensor) -> Tensor:
        """L_k^T times (..., K, D), or W_k^T given W."""
        return factor * vectors

    @staticmethod
    def compose(whitening: Tensor, factor: Tensor) -> Tensor:
        """W of one state times L of another."""
        return whitening * factor

    @staticmethod
    def outer(first: Tensor, mean: Tensor) -> Tensor:
        """What of first mean^T, (..., K, D) each, belongs to a second moment."""
        return first * mean

    @staticmethod
    def rescale(scales: Scales, unit: Tensor) -> Scales:
        """Scales after dimension d of the data was multiplied by unit[..., d], (..., D)."""
        unit = unit[..., None, : scales.factor.shape[-1]]
        return Scales(scales.factor * unit, scales.whitening / unit)

    @staticmethod
    def precision(whitening: Tensor, num_dims: int) -> Tensor:
        """W W^T, whose trace is that of Sigma^{-1}: (..., J, D)."""
        return whitening.square().expand(*whitening.shape[:-1], num_dims)

    @staticmethod
    def refit(
        scales: Scales, scatter: Tensor, points: Tensor, floor: Floor
    ) -> tuple[Scales, Tensor]:
        """L scaled so that whitened members have variance 1, and what was below the floor."""
        # Keeps the covariance of an empty component.
        tiny = torch.finfo(points.dtype).tiny
        ratio = (scatter.clamp_min(0) + tiny) / (points + tiny)
        return Diagonal.clamp(scales._replace(factor=scales.factor * ratio.sqrt()), floor)

    @staticmethod
    def clamp(scales: Scales, floor: Floor) -> tuple[Scales, Tensor]:
        """Scales with no standard deviation below the floor (eq-clamp), and which (..., J) were."""
        floor = floor.unsqueeze(-1) if isinstance(floor, Tensor) else floor
        factor = scales.factor.clamp_min(floor)
        return Scales(factor, 1 / factor), (scales.factor < floor).any(-1)

    @staticmethod
    def slope(scales: Scales, scatter: Tensor, points: Tensor) -> Tensor:
        """Gradient of the log likelihood in ``raw_scale``, from pooled second moments."""
        return scatter - points

    @staticmethod
    def split(
        scales: Scales, known: list[int], rest: list[int]
    ) -> tuple[Scales, Scales, Tensor | None]:
        """Scales of some dimensions, of the rest given them, and the regression: none."""
        if scales.factor.shape[-1] == 1:
            return scales, scales, None
        one, other = (Scales(*(part[..., dims] for part in scales)) for dims in (known, rest))
        return one, other, None

    # Shared features: see ``Family``.

    @staticmethod
    def num_entries(num_dims: int) -> int:
        """The number of entries of a covariance, and of quadratic features."""
        return num_dims

    @staticmethod
    def features(block: Tensor, out: Tensor) -> None:
        """Features of a block [x; 1], (..., D + 1, B), with which they begin: (..., F, B)."""
        num_dims = block.shape[-2] - 1
        out[..., : num_dims + 1, :] = block
        x = block[..., :-1, :]
        torch.mul(x, x, out=out[..., num_dims + 1 :, :])

    @staticmethod
    def quadratic(scales: Scales, means: Tensor, layout: Layout) -> Tensor:
        """Coefficients of the quadratic features: (..., K, F - D - 1)."""
        return (-0.5 * scales.whitening.square()).expand_as(means)

    @staticmethod
    def unpack(products: Tensor, layout: Layout) -> Tensor:
        """Second moments from sums of the quadratic features."""
        return products

    @staticmethod
    def whiten_moment(whitening: Tensor, moment: Tensor) -> Tensor:
        """W M W^T."""
        return moment * whitening.square()

    @staticmethod
    def trace(moment: Tensor) -> Tensor:
        """Sum of the variances in second moments: (..., K)."""
        return moment.sum(-1)


class Triangular:
    """Covariances of any shape: L is lower triangular, (..., J, D, D), and ``raw_scale`` is L
    with the logarithm of its diagonal in place of the diagonal (eq-log-cholesky); entries above
    it are not used. Each method does what ``Diagonal``'s of that name does."""

    event_dims = 2

    @staticmethod
    def from_raw(raw_scale: Tensor) -> Scales:
        diagonal = raw_scale.diagonal(dim1=-2, dim2=-1)
        factor = raw_scale.tril(-1) + torch.diag_embed(diagonal.exp())
        return Scales(factor, inverse_triangular(factor))

    @staticmethod
    def to_raw(factor: Tensor) -> Tensor:
        diagonal = factor.diagonal(dim1=-2, dim2=-1)
        return factor.tril(-1) + torch.diag_embed(diagonal.log())

    @staticmethod
    def of_covariances(covariances: Tensor) -> Tensor:
        return covariances

    @staticmethod
    def factorize(covariances: Tensor) -> Tensor:
        return torch.linalg.cholesky(covariances)

    @staticmethod
    def triangular(factor: Tensor, num_dims: int) -> Tensor:
        return factor

    @staticmethod
    def log_det(factor: Tensor, num_dims: int) -> Tensor:
        return factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    @staticmethod
    def whiten(whitening: Tensor, residuals: Tensor) -> Tensor:
        return whitening @ residuals

    @staticmethod
    def second_moment(weighted: Tensor, whitened: Tensor) -> Tensor:
        return weighted @ whitened.mT

    @staticmethod
    def apply(factor: Tensor, vectors: Tensor) -> Tensor:
        return (factor @ vectors.unsqueeze(-1)).squeeze(-1)

    @staticmethod
    def apply_transposed(factor: Tensor, vectors: Tensor) -> Tensor:
        return (factor.mT @ vectors.unsqueeze(-1)).squeeze(-1)

    @staticmethod
    def compose(whitening: Tensor, factor: Tensor) -> Tensor:
        return whitening @ factor

    @staticmethod
    def outer(first: Tensor, mean: Tensor) -> Tensor:
        return first.unsqueeze(-1) * mean.unsqueeze(-2)

    @staticmethod
    def rescale(scales: Scales, unit: Tensor) -> Scales:
        unit = unit.unsqueeze(-2)
        return Scales(scales.factor * unit.unsqueeze(-1), scales.whitening / unit.unsqueeze(-2))

    @staticmethod
    def precision(whitening: Tensor, num_dims: int) -> Tensor:
        return whitening @ whitening.mT

    @staticmethod
    def refit(
        scales: Scales, scatter: Tensor, points: Tensor, floor: Floor
    ) -> tuple[Scales, Tensor]:
        # Keeps the covariance of an empty component.
        tiny = torch.finfo(points.dtype).tiny
        scatter.diagonal(dim1=-2, dim2=-1).add_(tiny)
        covariance = scatter / (points + tiny)
        # In whitened coordinates the covariance is near the identity, so its factor is exact
        # where that of Sigma, far from round, would lose digits; L times it is again triangular.
        root, failed = torch.linalg.cholesky_ex(covariance)
        whitening = torch.linalg.solve_triangular(root, scales.whitening, upper=False)
        refitted = Scales(scales.factor @ root, whitening)
        if isinstance(floor, float) and floor == 0:
            return refitted, torch.zeros_like(failed, dtype=torch.bool)
        fine = (failed == 0) & surely_above(floor, whitening)
        if bool(fine.all()):
            return refitted, ~fine
        factor, own = scales.factor, covariance.detach()
        bad = failed > 0
        root = root.detach().index_put((bad,), square_root(own[bad]))
        lifted, low = lift(factor.detach() @ root, each(torch.Tensor.detach, refitted), fine, floor)
        if not torch.is_grad_enabled():
            return lifted, low
        # A gradient through the failed roots would be NaN, and would stay so times zero.
        fine = fine[..., None, None]
        identity = torch.eye(own.shape[-1], dtype=own.dtype, device=own.device)
        root = torch.linalg.cholesky(torch.where(fine, covariance, identity))
        whitening = torch.linalg.solve_triangular(root, scales.whitening, upper=False)
        raised = with_slopes(lifted, factor @ covariance @ factor.mT, floor)
        pairs = zip((factor @ root, whitening), raised, strict=True)
        return Scales(*(torch.where(fine, *pair) for pair in pairs)), low

    @staticmethod
    def clamp(scales: Scales, floor: Floor) -> tuple[Scales, Tensor]:
        fine = surely_above(floor, scales.whitening)
        if bool(fine.all()):
            return scales, ~fine
        return lift(scales.factor, scales, fine, floor)

    @staticmethod
    def slope(scales: Scales, scatter: Tensor, points: Tensor) -> Tensor:
        excess = scatter.clone()
        excess.diagonal(dim1=-2, dim2=-1).sub_(points.squeeze(-1))
        in_factor = scales.whitening.mT @ excess
        diagonal = in_factor.diagonal(dim1=-2, dim2=-1)
        by_logarithm = diagonal * scales.factor.diagonal(dim1=-2, dim2=-1)
        return in_factor.tril(-1) + torch.diag_embed(by_logarithm)

    @staticmethod
    def split(
        scales: Scales, known: list[int], rest: list[int]
    ) -> tuple[Scales, Scales, Tensor | None]:
        parts = gaussian.split(scales.factor, known, rest)
        first, second = (Scales(part, inverse_triangular(part)) for part in parts[:2])
        return first, second, parts[2]

    @staticmethod
    def num_entries(num_dims: int) -> int:
        return num_dims * (num_dims + 1) // 2

    @staticmethod
    def features(block: Tensor, out: Tensor) -> None:
        num_dims = block.shape[-2] - 1
        out[..., : num_dims + 1, :] = block
        start = num_dims + 1
        # x_d times x_d, ..., x_D.
        for d in range(num_dims):
            products = out[..., start : start + num_dims - d, :]
            torch.mul(block[..., d : d + 1, :], block[..., d:-1, :], out=products)
            start += num_dims - d

    @staticmethod
    def quadratic(scales: Scales, means: Tensor, layout: Layout) -> Tensor:
        precisions = scales.whitening.mT @ scales.whitening
        precisions.diagonal(dim1=-2, dim2=-1).mul_(0.5)
        return -precisions[..., layout.row, layout.column]

    @staticmethod
    def unpack(products: Tensor, layout: Layout) -> Tensor:
        return products[..., layout.place]

    @staticmethod
    def whiten_moment(whitening: Tensor, moment: Tensor) -> Tensor:
        return whitening @ moment @ whitening.mT

    @staticmethod
    def trace(moment: Tensor) -> Tensor:
        return moment.diagonal(dim1=-2, dim2=-1).sum(-1)


@dataclass(frozen=True)
class Family:
    """Covariances of one kind: an operator, and what has one number in common.

    shared: all components have one covariance; round: all dimensions have one variance;
    trainable: whether the covariance is learned at all.

    Shared features. Where all covariances differ, a log density is linear in the features x, 1
    and the products of two entries of x; where all are one, its quadratic part is the same for
    each component, and x and 1 are enough. One matrix product then scores a block of points for
    all components, and another sums the statistics.
    """

    name: str
    operator: type[Diagonal] | type[Triangular]
    shared: bool = False
    round: bool = False
    trainable: bool = True

    @property
    def per_dimension(self) -> bool:
        """Whether the family stays itself when each dimension is rescaled by its own factor."""
        return not self.round

    def count(self, num_components: int, num_dims: int) -> int:
        """Number of free covariance parameters (eq-free-parameters)."""
        if not self.trainable:
            return 0
        each_one = 1 if self.round else self.operator.num_entries(num_dims)
        return each_one * (1 if self.shared else num_components)

    def shape(self, num_components: int, num_dims: int) -> tuple[int, ...]:
        """The shape of ``raw_scale``: (J, D, D), (J, D) or (J, 1)."""
        sizes = [1 if self.round else num_dims] * self.operator.event_dims
        return (1 if self.shared else num_components, *sizes)

    def pool(self, values: Tensor) -> Tensor:
        """Sum (..., K, D) or (..., K, D, D) over whatever has one number, keeping dimensions."""
        if self.round:
            values = values.sum(-1, keepdim=True)
        return self.tie(values)

    def tie(self, values: Tensor) -> Tensor:
        """``pool`` over components alone."""
        dim = -1 - self.operator.event_dims
        return values.sum(dim, keepdim=True) if self.shared else values

    def flatten(self, state: State) -> Tensor:
        """The unconstrained numbers of states (M, ...), which an optimizer may move: log weights,
        means and ``raw_scale`` one after another, (M, P)."""
        raw_scale = self.operator.to_raw(state.scales.factor)
        return torch.cat([part.flatten(1) for part in (*state[:2], raw_scale)], 1)

    def unflatten(self, numbers: Tensor, like: State) -> State:
        """The inverse of ``flatten``; weights are normalized. like: any states of that shape."""
        sizes = [part.shape[1:].numel() for part in (*like[:2], like.scales.factor)]
        logits, means, raw_scale = numbers.split(sizes, 1)
        scales = self.operator.from_raw(raw_scale.reshape(-1, *like.scales.factor.shape[1:]))
        return State(logits.log_softmax(1), means.reshape(-1, *like.means.shape[1:]), scales)

    def from_covariances(self, covariances: Tensor, weights: Tensor) -> Tensor:
        """L of the family's member nearest in likelihood: covariances (..., K, D, D), weights
        (..., K); they are averaged, with the weights, over whatever the family shares."""
        held = self.operator.of_covariances(covariances)
        share = weights if self.shared else torch.ones_like(weights)
        share = share.reshape(*share.shape, *[1] * self.operator.event_dims).expand_as(held)
        return self.operator.factorize(self.pool(share * held) / self.pool(share))

    def m_step(
        self,
        statistics: Statistics,
        mean: Tensor,
        scales: Scales,
        floor: Floor,
        prior: ConjugatePrior | None = None,
    ) -> tuple[Scales, Tensor]:
        """The covariances that maximize EM's surrogate, that is minimize
        eq-covariance-objective: eq-m-step-covariance, eq-m-step-tied, eq-m-step-diagonal,
        eq-m-step-isotropic and eq-m-step-shared-isotropic.

        mean: of the whitened residuals about which scatter is counted, (..., K, D). Returns
        scales with no standard deviation below the floor in any direction, and which
        covariances (..., J) would have been.
        """
        if not self.trainable:
            return scales, self.none(scales)
        between = self.tie(self.operator.outer(statistics.first, mean))
        scatter, points = self._pooled(statistics, statistics.second - between, scales, prior)
        return self.operator.refit(scales, scatter, points, floor)

    def none(self, scales: Scales) -> Tensor:
        """That none of the covariances is singular: (..., J), false."""
        shape = scales.factor.shape[: -self.operator.event_dims]
        return torch.zeros(shape, dtype=torch.bool, device=scales.factor.device)

    def clamp(self, scales: Scales, floor: Floor) -> tuple[Scales, Tensor]:
        """Scales with no standard deviation below the floor (eq-clamp), and which (..., J)."""
        if not self.trainable:
            return scales, self.none(scales)
        return self.operator.clamp(scales, floor)

    def slope(
        self, statistics: Statistics, scales: Scales, prior: ConjugatePrior | None = None
    ) -> Tensor:
        """Gradient of the log likelihood (plus the log prior) in ``raw_scale``.

        eq-gradient-full and eq-gradient-diagonal, from eq-gradient-covariance; what is shared is
        summed (eq-gradient-pooled).
        """
        if not self.trainable:
            return torch.zeros_like(scales.factor)
        scatter, points = self._pooled(statistics, statistics.second, scales, prior)
        return self.operator.slope(scales, scatter, points)

    def _pooled(
        self, statistics: Statistics, second: Tensor, scales: Scales, prior: ConjugatePrior | None
    ) -> tuple[Tensor, Tensor]:
        """Second moments and numbers of points behind each covariance, the prior's included."""
        num_dims = statistics.first.shape[-1]
        counts = statistics.counts
        counts = counts.sum(-1, keepdim=True) if self.shared else counts
        points = counts.reshape(*counts.shape, *[1] * self.operator.event_dims)
        if prior is not None:
            second = second + prior.scatter * self.operator.precision(scales.whitening, num_dims)
            points = points + prior.points
        if self.round:
            return second.sum(-1, keepdim=True), points * num_dims
        return second, points

    def log_prior(self, scales: Scales, num_dims: int, prior: ConjugatePrior) -> Tensor:
        """Log of the prior (eq-inverse-wishart), up to a constant: (...)."""
        log_det = self.operator.log_det(scales.factor, num_dims).sum(-1)
        precision = self.operator.precision(scales.whitening, num_dims)
        trace = self.operator.trace(precision).sum(-1)
        return -prior.points * log_det - 0.5 * prior.scatter * trace

    def where(self, which: Tensor, one: Scales, other: Scales) -> Scales:
        """Scales of ``one`` where ``which`` (..., J), else of ``other``."""
        which = which.reshape(*which.shape, *[1] * self.operator.event_dims)
        pairs = zip(one, other, strict=True)
        return Scales(*(torch.where(which, *pair) for pair in pairs))

    def num_features(self, num_dims: int) -> int:
        """F, the number of shared features."""
        return num_dims + 1 + (0 if self.shared else self.operator.num_entries(num_dims))

    def coefficients(self, state: State, layout: Layout) -> Tensor:
        """Log joint density = coefficients @ features, but for the part that is the same for
        each component: (..., K, F)."""
        num_dims = state.means.shape[-1]
        operator, scales = self.operator, state.scales
        whitened = operator.apply(scales.whitening, state.means)
        linear = operator.apply_transposed(scales.whitening, whitened)
        constant = state.log_weights - 0.5 * (linear * state.means).sum(-1)
        log_det = operator.log_det(scales.factor, num_dims)
        constant = constant.unsqueeze(-1) - gaussian.log_normalizer(num_dims, log_det)
        if self.shared:
            return torch.cat([linear, constant], -1)
        quadratic = operator.quadratic(scales, state.means, layout)
        return torch.cat([linear, constant, quadratic], -1)

    def common_part(self, state: State, moment: Tensor) -> Tensor:
        """What ``coefficients`` leave out of the log likelihood, summed over points: (...).

        moment: sum_n w_n x_n x_n^T, as ``operator.second_moment`` has it, (..., 1, D or D, D)."""
        whitened = self.operator.whiten_moment(state.scales.whitening, moment)
        return -0.5 * self.operator.trace(whitened).sum(-1)

    def from_features(
        self, sums: Tensor, state: State, moment: Tensor | None, layout: Layout
    ) -> tuple[Tensor, Tensor]:
        """First and second whitened moments from sum_n r_nk feature_n, (..., K, F)."""
        operator, means, num_dims = self.operator, state.means, state.means.shape[-1]
        whitening = state.scales.whitening
        linear, counts, products = sums.tensor_split([num_dims, num_dims + 1], dim=-1)
        first = linear - counts * means
        # What sum r x x^T has more than sum r (x - mu)(x - mu)^T.
        shift = self.tie(operator.outer(means, first) + operator.outer(linear, means))
        second = (operator.unpack(products, layout) if moment is None else moment) - shift
        return operator.apply(whitening, first), operator.whiten_moment(whitening, second)


def inverse_triangular(factor: Tensor) -> Tensor:
    """W = L^{-1} by forward substitution."""
    identity = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
    return torch.linalg.solve_triangular(factor, identity, upper=False)


def square_root(matrices: Tensor) -> Tensor:
    """A with A A^T = matrix, for symmetric positive semi-definite matrices, singular or not."""
    values, vectors = torch.linalg.eigh(matrices.nan_to_num(0.0, 0.0, 0.0))
    return vectors * values.clamp_min(0).sqrt().unsqueeze(-2)


def surely_above(floor: Floor, whitening: Tensor) -> Tensor:
    """Whether no standard deviation is below the floor, (..., J): false may mean maybe.

    The smallest standard deviation is at least 1 / |W|, in Frobenius norm.
    """
    return torch.linalg.vector_norm(whitening, dim=(-2, -1)) * floor < 1


def raised(roots: Tensor, floor: Floor) -> tuple[Tensor, Tensor]:
    """L of A A^T with no standard deviation below the floor, and the standard deviations of A.

    roots: A, (Q, D, D). Raising the small singular values of A is the exact maximizer of EM's
    surrogate under that bound (eq-clamp).
    """
    axes, deviations, _ = torch.linalg.svd(roots)
    floor = floor.unsqueeze(-1) if isinstance(floor, Tensor) else floor
    lifted = axes * deviations.clamp_min(floor).unsqueeze(-2)
    return gaussian.reorder(lifted, list(range(roots.shape[-1]))), deviations


def lift(roots: Tensor, scales: Scales, fine: Tensor, floor: Floor) -> tuple[Scales, Tensor]:
    """Where not ``fine`` (..., J), scales of the roots raised to the floor, and which were below.

    What is not finite stays as it is, for the NLL to report.
    """
    chosen = ~fine & torch.isfinite(roots).all(-1).all(-1)
    low = torch.zeros_like(fine)
    if isinstance(floor, Tensor):
        floor = floor.expand(fine.shape)[chosen]
    factor, deviations = raised(roots[chosen], floor)
    low[chosen] = deviations.amin(-1) < floor
    parts = (factor, inverse_triangular(factor))
    pairs = zip(scales, parts, strict=True)
    return Scales(*(old.index_put((chosen,), new) for old, new in pairs)), low


def with_slopes(lifted: Scales, matrices: Tensor, floor: Floor) -> Scales:
    """Scales (..., J) of matrices whose standard deviations were raised to the floor, with the
    gradient of that in the matrices (eq-clamp-slopes).

    Eigenvectors have none where eigenvalues meet, but what is raised has: an entry, in the axes
    of the matrix, changes by the divided difference of the raised eigenvalues.
    """
    here = matrices.detach()
    squares, axes = torch.linalg.eigh(here.nan_to_num(0.0, 0.0, 0.0))
    least = floor.unsqueeze(-1) ** 2 if isinstance(floor, Tensor) else floor**2
    high = squares.clamp_min(least)
    gap, rise = (part.unsqueeze(-1) - part.unsqueeze(-2) for part in (squares, high))
    close = gap.abs() <= 10 * torch.finfo(gap.dtype).eps * high[..., -1:, None]
    share = torch.where(close, (squares > least).to(gap.dtype).unsqueeze(-1), rise / gap)
    change = axes @ (share * (axes.mT @ (matrices - here) @ axes)) @ axes.mT
    # That of a Cholesky factor L is L times the lower half of W change W^T.
    half = (lifted.whitening @ change @ lifted.whitening.mT).tril()
    half = half - 0.5 * torch.diag_embed(half.diagonal(dim1=-2, dim2=-1))
    moved = lifted.factor @ half
    return Scales(lifted.factor + moved, lifted.whitening - half @ lifted.whitening)


FULL = Family("full", Triangular)
TIED = Family("tied", Triangular, shared=True)
DIAGONAL = Family("diagonal", Diagonal)
ISOTROPIC = Family("isotropic", Diagonal, round=True)
SHARED_ISOTROPIC = Family("shared_isotropic", Diagonal, shared=True, round=True)
CONSTANT = Family("constant", Diagonal, shared=True, round=True, trainable=False)
