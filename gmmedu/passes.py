"""One pass over the data serves everything: responsibilities and sufficient statistics.

EM reads its M-step from these statistics and gradient descent its exact gradient (chapters 05
and 06). They are sums over points, so blocks, batches, weights and machines add them. Each
component counts in its own whitened coordinates, where its members have mean 0 and variance 1:
nothing cancels, even for float32 data far from the origin. Memory does not grow with N x K.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import reduce
from typing import Protocol

import torch
from torch import Tensor

from gmmedu.covariance import Family, Layout
from gmmedu.gaussian import LOG_2PI, log_normalizer, residuals
from gmmedu.processes import Alone
from gmmedu.values import Pattern, Points, State, Statistics, add, each, take

#: How far the shared features may lose digits: terms up to this many times their sum. It keeps a
#: log density near a mean within about 1e-10 of the exact one in float64, 3e-4 in float32.
CONDITIONING_LIMIT = {torch.float64: 3e5, torch.float32: 3e3}

#: The features are the road while there are at most so many times as many as residuals.
MOST_FEATURES = 2.0

#: A pass over at most this many residuals, N x K x D, is over before it is worth organizing.
SMALL_PASS = 2**16

#: Bytes of the work space of one block: what stays in a core's cache, or keeps a GPU busy.
BLOCK_BYTES = {"cpu": 2**22, "cuda": 2**28}

#: Features of at most so many bytes are kept from pass to pass.
KEPT_BYTES = {"cpu": 2**24, "cuda": 2**28}


class Workspace:
    """What the passes of one fit use again: room for a block, and what never changes.

    Fresh memory costs time to touch. A workspace belongs to one fit and to its points.
    """

    def __init__(self) -> None:
        #: The memory under each name, and what of it was asked for last.
        self._rooms: dict[str, tuple[Tensor, Tensor]] = {}
        self._features: dict[int, Tensor] = {}
        self._columns: Tensor | None = None
        self._layout: Layout | None = None

    def room(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Room of that shape, the same memory at each pass."""
        memory, room = self._rooms.get(name, (None, None))
        if room is not None and room.shape == shape:
            return room
        numbers = math.prod(shape)
        if memory is None or len(memory) < numbers:
            memory = like.new_empty(numbers)
        room = memory[:numbers].view(shape)
        self._rooms[name] = memory, room
        return room

    def layout(self, num_dims: int, device: torch.device) -> Layout:
        if self._layout is None:
            self._layout = Layout.of(num_dims, device)
        return self._layout

    def features(self, family: Family, points: Points, block: slice, single: bool) -> Tensor:
        """Shared features of a block of the points, (P, F, B), or (F, B) of a ``single`` set.

        They are the same at each pass, so they are kept where they are not large.
        """
        columns = points.columns[0] if single else points.columns
        columns = columns[..., block]
        if family.shared:
            return columns
        if self._columns is not points.columns:
            # Another piece of a stream.
            self._columns, self._features = points.columns, {}
        kept = self._features.get(block.start)
        if kept is not None and kept.shape[-1] == columns.shape[-1]:
            return kept
        if kept is not None:
            # Members have left the batch, and blocks are wider than they were.
            self._features = {}
        num_features = family.num_features(columns.shape[-2] - 1)
        shape = (*columns.shape[:-2], num_features, columns.shape[-1])
        numbers = num_features * len(points.columns) * points.num_points
        keep = numbers * columns.element_size() <= _limit(KEPT_BYTES, columns)
        features = columns.new_empty(shape) if keep else self.room("features", shape, columns)
        family.operator.features(columns, features)
        if keep:
            self._features[block.start] = features
        return features


class Source(Protocol):
    """What a pass asks of points: to give them in pieces, as often as it is asked."""

    def pieces(self) -> Iterator[Points]: ...


def e_step(
    points: Source, family: Family, state: State, workspace: Workspace | None = None
) -> Statistics:
    """One pass: the statistics of all points at the given state (eq-sufficient-statistics).

    The state may have batch dimensions, of which the points have as many, or none. Without a
    gradient; ``expectations`` has one. Raises nothing: what is not finite shows in the result.
    """
    batch = state.means.shape[:-2]
    flat = each(lambda part: part.reshape(-1, *part.shape[len(batch) :]), state)
    workspace = Workspace() if workspace is None else workspace
    with torch.no_grad(), torch.autocast(state.means.device.type, enabled=False):
        total = sums(points, family, flat, workspace)
    return each(lambda part: part.reshape((*batch, *part.shape[1:])), total)


def sums(
    points: Source,
    family: Family,
    state: State,
    workspace: Workspace,
    processes: Alone | None = None,
) -> Statistics:
    """``e_step`` for a state with one batch dimension, (M, ...): the one place where the
    statistics of pieces, and of processes, are added."""

    def own() -> Statistics:
        total = None
        for piece in points.pieces():
            if piece.num_points:
                part = _of_piece(piece, family, state, workspace)
                total = part if total is None else add(total, part)
        return _nothing(family, state) if total is None else total

    processes = Alone() if processes is None else processes
    return Statistics(*processes.add(own, lambda: _nothing(family, state)))


def _nothing(family: Family, state: State) -> Statistics:
    """The statistics of no points."""
    log_weights, means, _ = state
    shape = (len(means), 1 if family.shared else means.shape[1])
    second = means.new_zeros(*shape, *[means.shape[2]] * family.operator.event_dims)
    none = log_weights.new_zeros(len(means), dtype=torch.float64)
    return Statistics(none, torch.zeros_like(log_weights), torch.zeros_like(means), second)


def _of_piece(points: Points, family: Family, state: State, workspace: Workspace) -> Statistics:
    """Statistics of points that are in memory; state (M, ...).

    Two roads lead there. The general one forms every whitened residual, N x K x D of them. The
    other uses that a log density is linear in features of x that no component changes: one
    matrix product scores a block, another sums its statistics. It is taken where there is much
    to count, where the features are not many more than the residuals, and for the members of a
    batch of which it loses no digits.
    """
    if points.members:
        indices = torch.arange(len(points.members), device=state.means.device).split(1)
        parts = [
            _of_piece(one, family, take(state, index), Workspace())
            for one, index in zip(points.members, indices, strict=True)
        ]
        return each(lambda *part: torch.cat(part), *parts)
    if points.patterns:
        return _from_patterns(points, family, state)
    num_members, num_components, num_dims = state.means.shape
    rows = num_members * num_components * num_dims
    few = family.num_features(num_dims) <= MOST_FEATURES * num_components * num_dims
    if points.num_points * rows <= SMALL_PASS or not few:
        return _from_residuals(points, family, state, workspace)
    # A bound of the largest |W_k| |x|, squared, at the mean and about it, where the correlated
    # entries of x are what cancels.
    reach = state.means.abs()
    if family.operator.event_dims == 2:
        reach = reach + torch.linalg.vector_norm(state.scales.factor, dim=-1)
    terms = family.operator.apply(state.scales.whitening.abs(), reach)
    exact = terms.square().sum(-1).amax(-1) < CONDITIONING_LIMIT[state.means.dtype]
    chosen = exact.tolist()
    if all(chosen):
        return _from_features(points, family, state, workspace)
    if not any(chosen):
        return _from_residuals(points, family, state, workspace)
    roads = (_from_features, exact), (_from_residuals, ~exact)
    parts = [road(points.take(m), family, take(state, m), Workspace()) for road, m in roads]
    order = torch.cat([exact.nonzero(), (~exact).nonzero()]).flatten().argsort()
    return each(lambda *part: torch.cat(part)[order], *parts)


def _from_residuals(
    points: Points, family: Family, state: State, workspace: Workspace
) -> Statistics:
    log_weights, means, scales = state
    operator, (num_members, num_components, num_dims) = family.operator, means.shape
    log_det = operator.log_det(scales.factor, num_dims)
    constant = log_weights.unsqueeze(-1) - log_normalizer(num_dims, log_det)
    parts = []
    for block in _blocks(points, means.numel()):
        columns = points.columns[:, None, :-1, block]
        shape = (num_members, num_components, num_dims, columns.shape[-1])
        work = workspace.room("residuals", shape, means)
        torch.sub(columns, means.unsqueeze(-1), out=work)
        whitened = operator.whiten(scales.whitening, work)
        log_joint = torch.mul(whitened, whitened, out=work).sum(2).mul_(-0.5).add_(constant)
        weights = None if points.weights is None else points.weights[:, block]
        log_likelihood = responsibilities_(log_joint, weights)
        weighted = torch.mul(whitened, log_joint.unsqueeze(2), out=work)
        second = family.tie(operator.second_moment(weighted, whitened))
        parts.append(Statistics(log_likelihood, log_joint.sum(-1), weighted.sum(-1), second))
    return reduce(add, parts)


def _from_features(
    points: Points, family: Family, state: State, workspace: Workspace
) -> Statistics:
    num_members, num_components, num_dims = state.means.shape
    layout = workspace.layout(num_dims, state.means.device)
    coefficients = family.coefficients(state, layout)
    # On points that all share, the components of all members stand side by side.
    single = len(points.columns) == 1
    flat = coefficients.flatten(0, 1) if single else coefficients
    sums = torch.zeros_like(flat)
    accumulate = sums.addmm_ if single else sums.baddbmm_
    log_likelihood = torch.zeros(num_members, dtype=torch.float64, device=sums.device)
    for block in _blocks(points, coefficients.numel() // num_dims + num_dims):
        features = workspace.features(family, points, block, single)
        shape = (*flat.shape[:-1], features.shape[-1])
        log_joint = workspace.room("log joint", shape, features)
        torch.matmul(flat, features, out=log_joint)
        weights = None if points.weights is None else points.weights[:, block]
        by_member = log_joint.view(num_members, num_components, -1)
        log_likelihood += responsibilities_(by_member, weights)
        accumulate(log_joint, features.mT)
    sums = sums.view_as(coefficients)
    moment = None
    if family.shared:
        x = points.columns[:, :-1]
        weighted = x if points.weights is None else x * points.weights.unsqueeze(1)
        moment = family.operator.second_moment(weighted, x).unsqueeze(1)
        log_likelihood += family.common_part(state, moment).double()
    first, second = family.from_features(sums, state, moment, layout)
    return Statistics(log_likelihood, sums[..., num_dims], first, second)


def responsibilities_(log_joint: Tensor, weights: Tensor | None = None) -> Tensor:
    """Log likelihood of a block, (M,), float64; ``log_joint`` becomes the responsibilities.

    log_joint: log pi_k + log N(x_n | mu_k, Sigma_k), (M, K, B); weights: (M or 1, B). Returns
    the weighted sum over points of log sum_k exp (eq-log-sum-exp); r is times the weights
    (eq-responsibilities).
    """
    # Below exp(lowest) a responsibility is 0; exponentials that underflow are slow besides.
    lowest = -80.0 if log_joint.dtype == torch.float32 else -700.0
    largest = log_joint.amax(1, keepdim=True)
    shares = log_joint.sub_(largest).clamp_min_(lowest).exp_()
    torch.threshold_(shares, 2 * math.exp(lowest), 0.0)
    total = shares.sum(1, keepdim=True)
    shares.div_(total)
    log_density = total.log_().add_(largest).squeeze(1)
    if weights is not None:
        log_density = log_density * weights
        shares.mul_(weights.unsqueeze(1))
    return log_density.sum(-1, dtype=torch.float64)


def _from_patterns(points: Points, family: Family, state: State) -> Statistics:
    """Where values are missing, a point counts as what is expected of it, given those observed.

    Given its observed values, a component expects the missing ones where its density is highest,
    with precision Sigma^{-1} there (eq-missing-e-step; Little and Rubin 2019, chapter 11, for
    one Gaussian; Ghahramani and Jordan 1994 for mixtures).
    """
    operator, (num_members, num_components, num_dims) = family.operator, state.means.shape
    whitening = operator.triangular(state.scales.whitening, num_dims)
    whitening = whitening.expand(num_members, num_components, -1, -1)
    parts = []
    for pattern in pieces_of(points, num_members * num_components):
        whitened, constant, expected = expect(points, pattern, family, state, whitening)
        log_joint = constant - 0.5 * whitened.square().sum(-2)
        weights = None if points.weights is None else points.weights[:, pattern.rows]
        log_likelihood = responsibilities_(log_joint, weights)
        weighted = whitened * log_joint.unsqueeze(2)
        matrices = weighted @ whitened.mT
        if pattern.hidden.numel():
            wide, spread = whitening.double(), _spread(log_joint, pattern, expected, num_dims)
            matrices = matrices + (wide @ spread @ wide.mT).to(matrices)
        second = family.tie(operator.of_covariances(matrices))
        parts.append(Statistics(log_likelihood, log_joint.sum(-1), weighted.sum(-1), second))
    return reduce(add, parts)


def expect(
    points: Points, pattern: Pattern, family: Family, state: State, whitening: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What each component expects of points that lack values (eq-missing-e-step).

    whitening: W as matrices, (M, K, D, D). Returns whitened residuals with each missing value
    where the component expects it, (M, K, D, B); the constant of the log joint density of the
    values that are there, (M, K, B), which half the squared length of those residuals lowers; and
    the covariance of the missing values, (M, K, U, O, O), in float64.
    """
    log_weights, means, scales = state
    num_dims, (num_kinds, num_hidden) = means.shape[-1], pattern.hidden.shape
    point = torch.arange(len(pattern.rows), device=means.device)
    hidden = pattern.hidden[pattern.kind].mT
    offset = points.columns[0, :-1, pattern.rows] - means.unsqueeze(-1)
    offset[..., hidden, point] = 0
    whitened = whitening @ offset
    log_det = family.operator.log_det(scales.factor, num_dims)
    constant = log_weights.unsqueeze(-1) - log_normalizer(num_dims, log_det)
    constant = constant + 0.5 * LOG_2PI * num_hidden
    covariance = means.new_zeros(*means.shape[:-1], num_kinds, 0, 0)
    if num_hidden:
        wide = whitening.double()
        precisions = wide.mT @ wide
        rows, columns = pattern.hidden[:, :, None], pattern.hidden[:, None, :]
        root, failed = torch.linalg.cholesky_ex(precisions[..., rows, columns])
        failed = failed[..., None, None] > 0
        identity = torch.eye(num_hidden, dtype=root.dtype, device=root.device)
        root = torch.where(failed, identity, root)
        # What has no density shows in the NLL.
        covariance = torch.cholesky_inverse(root).masked_fill(failed, torch.nan)
        slope = (whitening.mT @ whitened)[..., hidden, point]
        gain = covariance[:, :, pattern.kind].to(means)
        shift = (gain @ slope.mT.unsqueeze(-1)).squeeze(-1)
        offset[..., hidden, point] = -shift.mT
        whitened = whitening @ offset
        log_det = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        constant = constant - log_det[..., pattern.kind].to(means)
    return whitened, constant, covariance


def _spread(r: Tensor, pattern: Pattern, covariance: Tensor, num_dims: int) -> Tensor:
    """sum_n r_nk times the covariance of what point n lacks, as matrices (M, K, D, D)."""
    shape = (*r.shape[:2], len(pattern.hidden))
    counts = torch.zeros(shape, dtype=torch.float64, device=r.device)
    counts.index_add_(2, pattern.kind, r.double())
    entries = (counts[..., None, None] * covariance).flatten(2)
    place = pattern.hidden[:, :, None] * num_dims + pattern.hidden[:, None, :]
    flat = torch.zeros(*shape[:2], num_dims**2, dtype=torch.float64, device=r.device)
    return flat.index_add_(2, place.flatten(), entries).unflatten(2, (num_dims, num_dims))


def pieces_of(points: Points, num_components: int) -> Iterator[Pattern]:
    """The patterns of points, none with more rows than fit the work space of a block."""
    num_dims = points.columns.shape[1] - 1
    for pattern in points.patterns:
        width = _width(points, num_components * num_dims * num_dims)
        for rows, kind in zip(pattern.rows.split(width), pattern.kind.split(width), strict=True):
            first = int(kind[0])
            yield Pattern(rows, pattern.hidden[first : int(kind[-1]) + 1], kind - first)


def expectations(
    x: Tensor, family: Family, state: State, weights: Tensor | None = None
) -> Statistics:
    """The statistics of x (..., N, D) with a gradient, in x, weights (..., N) and state.

    The same sums as ``e_step`` has, by the plain formulas; memory grows with N x K x D.
    """
    operator, num_dims = family.operator, x.shape[-1]
    log_det = operator.log_det(state.scales.factor, num_dims)
    whitened = operator.whiten(state.scales.whitening, residuals(x, state.means))
    constant = state.log_weights.unsqueeze(-1) - log_normalizer(num_dims, log_det)
    log_joint = constant - 0.5 * whitened.square().sum(-2)
    log_density = log_joint.logsumexp(-2)
    r = (log_joint - log_density.unsqueeze(-2)).exp()
    if weights is not None:
        log_density, r = log_density * weights, r * weights.unsqueeze(-2)
    weighted = whitened * r.unsqueeze(-2)
    second = family.tie(operator.second_moment(weighted, whitened))
    return Statistics(log_density.sum(-1).double(), r.sum(-1), weighted.sum(-1), second)


def _limit(bytes_of: dict[str, int], like: Tensor) -> int:
    return bytes_of.get(like.device.type, bytes_of["cpu"])


def _width(points: Points, rows: int) -> int:
    """Points in a block, so that ``rows`` numbers for each fill the work space."""
    width = _limit(BLOCK_BYTES, points.columns) // max(1, rows * points.columns.element_size())
    return min(points.num_points, max(128, width // 64 * 64))


def _blocks(points: Points, rows: int) -> Iterator[slice]:
    width = _width(points, rows)
    for start in range(0, points.num_points, width):
        yield slice(start, min(start + width, points.num_points))
