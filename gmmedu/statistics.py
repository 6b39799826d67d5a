"""One pass over the data serves everything: responsibilities and sufficient statistics, in blocks.

EM reads its M-step from these statistics and gradient descent its exact gradient (chapters 05 and
06). They are sums over points, so batches, weights and machines add them. Each component counts
in its own whitened coordinates, where its members have mean 0 and variance 1: nothing cancels,
even for float32 data far from the origin. Memory does not grow with N x K.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from gmmedu.families import Family
from gmmedu.gaussian import log_normalizer
from gmmedu.mixture import State


@dataclass(frozen=True)
class Statistics:
    """Sums over points, r_nk being the responsibilities and y_nk = W_k (x_n - mu_k).

    log_likelihood: sum_n log p(x_n), float64 scalar; counts: N_k = sum_n r_nk, (K,);
    first: sum_n r_nk y_nk, (K, D); second: sum_n r_nk y_nk y_nk^T, (K, D, D), or its diagonal
    (K, D) in the diagonal and isotropic families, or summed over k, (1, D, D), in the tied one.
    """

    log_likelihood: Tensor
    counts: Tensor
    first: Tensor
    second: Tensor

    def __add__(self, other: Statistics) -> Statistics:
        return Statistics(
            self.log_likelihood + other.log_likelihood,
            self.counts + other.counts,
            self.first + other.first,
            self.second + other.second,
        )


@dataclass(frozen=True)
class Pattern:
    """Points of which the same values were observed: in which dimensions, (O,), and which rows of
    the data they are, (B,)."""

    observed: Tensor
    rows: Tensor


def patterns_of(x: Tensor) -> tuple[Pattern, ...]:
    """The patterns of x (N, D), in which NaN is a missing value; none when nothing is missing."""
    missing = x.isnan()
    if not bool(missing.any()):
        return ()
    kinds, kind = torch.unique(missing, dim=0, return_inverse=True)
    return tuple(
        Pattern(
            (~lacking).nonzero().flatten(), (kind == i).nonzero().flatten()
        )
        for i, lacking in enumerate(kinds)
    )


@dataclass(frozen=True)
class Points:
    """Data laid out for passes: ``columns`` is [x; 1], (D + 1, N); ``weights`` (N,) or None.

    patterns: where values are missing, which; ``columns`` is 0 there."""

    columns: Tensor
    weights: Tensor | None = None
    patterns: tuple[Pattern, ...] = ()

    @property
    def num_points(self) -> int:
        return self.columns.shape[1]

    @cached_property
    def total(self) -> float:
        """Sum of the weights: N when there are none."""
        return float(
            self.num_points if self.weights is None else self.weights.sum()
        )

    def draw(
        self, num_draws: int, generator: torch.Generator | None
    ) -> Tensor:
        """Indices (num_draws,) of random points, by weight; drawn on the CPU and moved."""
        uniform = torch.rand(
            num_draws, generator=generator, dtype=torch.float64
        )
        device = self.columns.device
        if self.weights is None:
            return (uniform * self.num_points).long().to(device)
        cumulative = self.weights.cumsum(0, dtype=torch.float64)
        return torch.searchsorted(
            cumulative, uniform.to(device) * cumulative[-1], right=True
        )

    def workspace(self, numbers: int) -> Tensor:
        """Room for so many numbers, the same at each pass: fresh memory costs time to touch."""
        space = self.__dict__.get("_space")
        if space is None or len(space) < numbers:
            with torch.inference_mode(
                False
            ):  # a fit's own mode must not stick to it
                space = self.columns.new_empty(numbers)
            self.__dict__["_space"] = space
        return space[:numbers]

    @cached_property
    def scatter(self) -> Tensor:
        """sum_n w_n x_n x_n^T, (D, D)."""
        x = self.columns[:-1]
        weighted = x if self.weights is None else x * self.weights
        return weighted @ x.mT


#: How far the shared features may lose digits: terms up to this many times their sum. It keeps a
#: log density near a mean within about 1e-10 of the exact one in float64, 3e-4 in float32.
CONDITIONING_LIMIT = {torch.float64: 3e5, torch.float32: 3e3}

#: A pass over at most this many residuals, N x K x D, is over before it is worth organizing.
SMALL = 2**16

#: Bytes of the work space of one block: what stays in a core's cache, or keeps a GPU busy.
BLOCK_BYTES = {"cpu": 2**22, "cuda": 2**28}


def collect(points: Points, family: Family, state: State) -> Statistics:
    """One pass: the statistics of all points at the given parameters (eq-sufficient-statistics).

    Two roads lead there. The general one forms every whitened residual, N x K x D of them. The
    other uses that a log density is linear in features of x that no component changes: one matrix
    product scores a block, another sums its statistics. It is taken when there is much to count,
    when the features are no more than the residuals, and when no digits are lost.
    """
    if points.patterns:
        return _from_patterns(points, family, state)
    num_components, num_dims = state.means.shape
    if (
        points.num_points * num_components * num_dims > SMALL
        and family.num_features(num_dims) <= num_components * num_dims
    ):
        conditioning = family.conditioning(state.factors, state.means)
        if float(conditioning) < CONDITIONING_LIMIT[state.means.dtype]:
            return _from_features(points, family, state)
    return _from_residuals(points, family, state)


def _from_residuals(
    points: Points, family: Family, state: State
) -> Statistics:
    log_weights, means, factors = state
    num_components, num_dims = means.shape
    log_det = family.log_det(factors.factor, num_dims)
    constant = log_weights.unsqueeze(-1) - log_normalizer(num_dims, log_det)
    width = _block_width(points, num_components * num_dims)
    space = points.workspace(num_components * num_dims * width)
    result = None
    for start in range(0, points.num_points, width):
        block = points.columns[:-1, start : start + width]
        work = space[: num_components * block.numel()].view(
            num_components, num_dims, -1
        )
        torch.sub(block, means.unsqueeze(-1), out=work)
        whitened = family.whiten(factors.whitening, work)
        log_joint = (
            torch.mul(whitened, whitened, out=work)
            .sum(1)
            .mul_(-0.5)
            .add_(constant)
        )
        log_likelihood, responsibilities = _e_step(
            log_joint, points.weights, start
        )
        weighted = torch.mul(
            whitened, responsibilities.unsqueeze(1), out=work
        )
        part = Statistics(
            log_likelihood,
            responsibilities.sum(1),
            weighted.sum(2),
            family.second_moment(weighted, whitened),
        )
        result = part if result is None else result + part
    assert result is not None
    return result


def _from_features(
    points: Points, family: Family, state: State
) -> Statistics:
    log_weights, means, factors = state
    num_components, num_dims = means.shape
    coefficients = family.coefficients(factors, means)
    log_det = family.log_det(factors.factor, num_dims)
    coefficients[:, num_dims] += log_weights - log_normalizer(
        num_dims, log_det
    ).squeeze(-1)
    sums = coefficients.new_zeros(coefficients.shape)
    log_likelihood = torch.zeros(
        (), dtype=torch.float64, device=means.device
    )
    num_features = coefficients.shape[1]
    width = _block_width(points, num_features + num_components)
    space = points.workspace((num_features + num_components) * width)
    for start in range(0, points.num_points, width):
        block = points.columns[:, start : start + width]
        work = space[: (num_features + num_components) * block.shape[1]]
        features, log_joint = work.view(-1, block.shape[1]).tensor_split(
            [num_features]
        )
        family.features(factors, block, features)
        torch.mm(coefficients, features, out=log_joint)
        part, responsibilities = _e_step(log_joint, points.weights, start)
        sums.addmm_(responsibilities, features.mT)
        log_likelihood += part
    first, second = family.from_features(sums, factors, means, points)
    return Statistics(log_likelihood, sums[:, num_dims], first, second)


def _from_patterns(
    points: Points, family: Family, state: State
) -> Statistics:
    """Where values are missing, a point counts as what is expected of it, given those observed.

    Let the rows of L_k that were observed be R^T B^T with orthonormal columns B: then the whitened
    residual of the observed values is y = R^{-T} (x - mu_k), the expected one of all values is
    B y, and what is uncertain about it has covariance I - B B^T (eq-missing-e-step; Little and
    Rubin 2019, chapter 11, for one Gaussian; Ghahramani and Jordan 1994 for mixtures).
    """
    log_weights, means, factors = state
    num_components, num_dims = means.shape
    triangular = family.triangular(factors.factor, num_dims).expand(
        num_components, -1, -1
    )
    result = None
    for pattern in points.patterns:
        observed = pattern.observed
        basis, upper = torch.linalg.qr(triangular[:, observed].mT)
        log_det = upper.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)
        constant = log_weights.unsqueeze(-1) - log_normalizer(
            len(observed), log_det
        )
        for rows in pattern.rows.split(
            _block_width(points, num_components * len(observed))
        ):
            residuals = points.columns[observed][:, rows] - means[
                :, observed
            ].unsqueeze(-1)
            whitened = torch.linalg.solve_triangular(
                upper.mT, residuals, upper=False
            )
            log_joint = constant - 0.5 * whitened.square().sum(1)
            weights = (
                None if points.weights is None else points.weights[rows]
            )
            log_likelihood, responsibilities = _e_step(
                log_joint, weights, 0
            )
            counts, first, moment = _expected(
                responsibilities, whitened, basis
            )
            identity = torch.eye(num_dims).to(moment)
            second = family.second_moment(
                moment, identity.expand_as(moment)
            )
            part = Statistics(log_likelihood, counts, first, second)
            result = part if result is None else result + part
    assert result is not None
    return result


def _expected(
    r: Tensor, y: Tensor, basis: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What is expected of standard normal e of which only y = B^T e was seen (eq-missing-e-step).

    r: (K, B); y: (K, O, B); basis: B of each component, (K, D, O). Returns the sums over points of
    r, (K,), of r times e, (K, D), and of r times e e^T, (K, D, D).
    """
    counts = r.sum(1)
    weighted = r.unsqueeze(1) * y
    first = basis @ weighted.sum(2, keepdim=True)
    identity = torch.eye(basis.shape[1]).to(basis)
    uncertain = identity - basis @ basis.mT
    seen = basis @ (weighted @ y.mT) @ basis.mT
    second = seen + counts[:, None, None] * uncertain
    return counts, first.squeeze(-1), second


def _block_width(points: Points, rows: int) -> int:
    """Points in a block, so that ``rows`` numbers for each fill the work space."""
    bytes_a_point = rows * points.columns.element_size()
    width = (
        BLOCK_BYTES.get(points.columns.device.type, BLOCK_BYTES["cpu"])
        // bytes_a_point
    )
    return min(points.num_points, max(128, width // 64 * 64))


def _e_step(
    log_joint: Tensor, weights: Tensor | None, start: int
) -> tuple[Tensor, Tensor]:
    """Log likelihood and responsibilities (eq-responsibilities) of one block.

    log_joint: log pi_k + log N(x_n | mu_k, Sigma_k), (K, B), overwritten. Returns the weighted
    sum over points of log sum_k exp (eq-log-sum-exp), a float64 scalar, and r, (K, B), times the
    weights.
    """
    # Below exp(lowest) a responsibility is 0; exponentials that underflow are slow besides.
    lowest = -80.0 if log_joint.dtype == torch.float32 else -700.0
    largest = log_joint.amax(0)
    shares = log_joint.sub_(largest).clamp_min_(lowest).exp_()
    shares = torch.threshold_(shares, 2 * math.exp(lowest), 0.0)
    total = shares.sum(0)
    responsibilities = shares.div_(total)
    log_density = total.log_().add_(largest)
    if weights is not None:
        block = weights[start : start + log_density.shape[0]]
        log_density = log_density * block
        responsibilities.mul_(block)
    return log_density.sum(dtype=torch.float64), responsibilities
