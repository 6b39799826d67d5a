"""Units in which the data have mean 0 and standard deviation 1.

The fitters work in them and hand back parameters in the data's own units. Learning rates and
floors then mean the same at every scale, and float32 data far from the origin keep their digits.
Where a few points alone make the standard deviation large, that of the others is the unit; where
the distance between clumps does, floors are relative to the clumps.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from gmmedu.covariance import Family
from gmmedu.processes import Alone
from gmmedu.values import State

#: Of each column the highest and the lowest points in this share, and one at least where there
#: are more than ten, are suspects: where moving them in to the others divides the standard
#: deviation by more than ``OUTLYING``, they are outliers.
TAIL, OUTLYING = 0.01, 3.0
#: Half of the windows that hold this share of a column are narrower than so many standard
#: deviations where the column is normal. Where they are narrower by ``CLUMPED`` than that, and
#: hold ``FEWEST`` points more than one at least, the column consists of clumps.
WINDOW, NORMAL_WINDOW, CLUMPED, FEWEST = 0.05, 0.158, 20.0, 3
#: Quantiles are those of a sample of this size, where there are more points.
SAMPLE = 10_000


#: Total weight; of each dimension the weight that was observed, mean, and scatter about it.
Sums = tuple[Tensor, Tensor, Tensor, Tensor]


class Moments(NamedTuple):
    """What units are made of: how many points weigh something, and how much; for each dimension
    the weight of what was observed, mean and variance, (D,); a sample of at most ``SAMPLE`` of
    the points (S, D), and its weights (S,) or None."""

    num_points: int
    total: Tensor
    observed: Tensor
    mean: Tensor
    variance: Tensor
    sample: Tensor
    weights: Tensor | None


def moments(
    batches: Iterable[tuple[Tensor, Tensor | None]], processes: Alone | None = None
) -> Moments:
    """Moments of points (N, D) and weights (N,) or None that come in batches, read once or, where
    there are more than ``SAMPLE`` points, twice; of those of all processes together. NaN is a
    missing value. Raises ``ValueError`` where there are no points."""
    processes = Alone() if processes is None else processes
    counts, parts, found = zip(*processes.share(lambda: _read(batches)), strict=True)
    count = sum(counts)
    if not count:
        raise ValueError("x holds no points")
    if count > SAMPLE:
        start = sum(counts[: processes.rank])
        found = tuple(processes.share(lambda: _sampled(batches, count, start)))
    samples = [pair for some in found for pair in some]
    total, observed, mean, scatter = reduce(_merged, [part for part in parts if part is not None])
    variance = scatter / observed.clamp_min(torch.finfo(observed.dtype).tiny)
    sample = torch.cat([x for x, _ in samples])
    weights = None
    if any(weights is not None for _, weights in samples):
        weights = torch.cat([torch.ones_like(x[:, 0]) if w is None else w for x, w in samples])
        weights = weights / weights.max()
    mean, variance = mean.to(sample), variance.to(sample)
    return Moments(count, total, observed, mean, variance, sample, weights)


def _read(
    batches: Iterable[tuple[Tensor, Tensor | None]],
) -> tuple[int, Sums | None, list[tuple[Tensor, Tensor | None]]]:
    """How many points there are, their sums, and the points themselves where they are few."""
    sums: Sums | None = None
    kept: list[tuple[Tensor, Tensor | None]] = []
    count = 0
    for x, weights in batches:
        x, weights = weighty(x, weights)
        if not len(x):
            continue
        part = _moments_of(x, weights)
        sums = part if sums is None else _merged(sums, part)
        count += len(x)
        if count <= SAMPLE:
            # Whoever gives them may use one room for all.
            kept.append((x.clone(), None if weights is None else weights.clone()))
    return count, sums, kept


def _merged(one: Sums, other: Sums) -> Sums:
    """Total, weight observed, mean and scatter of two sets of points together."""
    observed = one[1] + other[1]
    share = other[1] / observed.clamp_min(torch.finfo(observed.dtype).tiny)
    gap = other[2] - one[2]
    scatter = one[3] + other[3] + gap.square() * one[1] * share
    return one[0] + other[0], observed, one[2] + gap * share, scatter


def weighty(x: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The points that weigh something."""
    if weights is None or bool((weights > 0).all()):
        return x, weights
    return x[weights > 0], weights[weights > 0]


def _moments_of(x: Tensor, weights: Tensor | None) -> Sums:
    """Total, and for each dimension the weight observed, mean and scatter about it."""
    missing = x.isnan()
    if weights is None and not bool(missing.any()):
        count = torch.full((), len(x), dtype=torch.float64, device=x.device)
        variance, mean = torch.var_mean(x, 0, correction=0)
        return count, count.expand_as(mean), mean, variance * len(x)
    # In float64, as weights may be of any size.
    shares = (~missing).double()
    total = torch.full((), len(x), dtype=torch.float64, device=x.device)
    if weights is not None:
        shares, total = shares * weights.double()[:, None], weights.double().sum()
    observed = shares.sum(0)
    filled = x.nan_to_num()
    mean = (shares * filled).sum(0) / observed.clamp_min(torch.finfo(observed.dtype).tiny)
    return total, observed, mean, (shares * (filled - mean).square()).sum(0)


def _sampled(
    batches: Iterable[tuple[Tensor, Tensor | None]], count: int, start: int
) -> list[tuple[Tensor, Tensor | None]]:
    """Random rows of ``count``, the same ones in each call, however the points are divided into
    batches and processes; of those, the ones that are here. start: how many points come before."""
    generator = torch.Generator(device="cpu").manual_seed(0)
    rows = torch.randint(count, (SAMPLE,), generator=generator, device="cpu").sort().values
    kept = []
    for x, weights in batches:
        x, weights = weighty(x, weights)
        mine = rows[(rows >= start) & (rows < start + len(x))] - start
        mine = mine.to(x.device)
        kept.append((x[mine], None if weights is None else weights[mine]))
        start += len(x)
    return kept


class Units(NamedTuple):
    """x = center + scale * (x in these units), (P, D) each, in the dtype of the data; P is 1, or
    one set of units for each member of a batch.

    clump: the size of the clumps of which the data consist, in these units, (P,): 1 where they do
    not. Floors are relative to it.
    """

    center: Tensor
    scale: Tensor
    clump: Tensor

    @classmethod
    def of(cls, sets: Iterable[Moments], per_dimension: bool) -> Units:
        """Units of sets of points: a scale for each dimension, or one for all.

        Center and scale are the mean and standard deviation of the column. Where the latter falls
        to less than a third once the outer 1 % on each side are moved to the 1 % and 99 %
        quantiles, they are those of the column so changed, unless it is constant then. A point of
        weight 2 counts as two. A constant column takes the scale of the others, constant data the
        scale 1.
        """
        parts = [_of_set(each, per_dimension) for each in sets]
        return cls(*(torch.stack(part) for part in zip(*parts, strict=True)))

    def columns(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """x (N, D) or (P, N, D) in these units, laid out for passes, [x; 1]: (P, D + 1, N)."""
        x = x.detach() if x.ndim == 3 else x.detach().unsqueeze(0)
        num_sets, num_points, num_dims = x.shape
        columns = x.new_empty(num_sets, num_dims + 1, num_points, dtype=dtype)
        for d in range(num_dims):
            torch.sub(x[..., d], self.center[:, d : d + 1], out=columns[:, d])
        columns[:, :-1] /= self.scale.unsqueeze(-1)
        columns[:, -1] = 1
        return columns

    def standardize(self, state: State, family: Family) -> State:
        """A state (M, ...) given in the data's own units, in these."""
        means = (state.means - self.center.unsqueeze(-2)) / self.scale.unsqueeze(-2)
        means = means.to(state.means)
        scales = family.operator.rescale(state.scales, (1 / self.scale).to(means))
        return State(state.log_weights, means, scales)

    def restore(self, state: State, family: Family) -> State:
        """A state (M, ...) given in these units, in the data's own; means in the dtype of the
        data, so that nothing is rounded."""
        means = state.means * self.scale.unsqueeze(-2) + self.center.unsqueeze(-2)
        scales = family.operator.rescale(state.scales, self.scale.to(state.means))
        return State(state.log_weights, means, scales)


def _of_set(moments: Moments, per_dimension: bool) -> tuple[Tensor, Tensor, Tensor]:
    center, variance = moments.mean, moments.variance
    values, order = moments.sample.sort(0)
    shares = (~values.isnan()).to(values)
    if moments.weights is not None:
        shares = shares * moments.weights.to(values)[order]
    middle, inner = _winsorized(values, shares / shares.sum(0))
    outlying = (inner > 0) & (inner * OUTLYING**2 < variance)
    center = torch.where(outlying, middle, center)
    variance = torch.where(outlying, inner, variance)
    scale = variance.sqrt()
    varies = scale > 10 * torch.finfo(scale.dtype).eps * center.abs()
    typical = torch.ones_like(scale[0])
    if bool(varies.any()):
        typical = variance[varies].mean().sqrt()
    clumps = torch.where(varies, _clumps(values), scale)
    if per_dimension:
        scale = torch.where(varies, scale, typical)
    else:
        scale = typical.expand_as(scale)
    size = (clumps / scale).where(varies & (clumps > 0) & (clumps * CLUMPED < scale), 1.0)
    return center, scale, size.amin()


def _winsorized(values: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each sorted column (N, D), NaN left out, after its outer values on
    each side, a share ``TAIL`` of the points or one of them, are moved to the next ones."""
    below = shares.cumsum(0)
    tail = min(max(TAIL, 1.5 / len(values)), 0.1)
    inner = (below > tail) & (below - shares < 1 - tail)
    values = values.nan_to_num()
    low = values.where(inner, torch.inf).amin(0)
    high = values.where(inner, -torch.inf).amax(0)
    values = values.clamp(low, high)
    center = (shares * values).sum(0)
    return center, (shares * (values - center).square()).sum(0)


def _clumps(values: Tensor) -> Tensor:
    """Size of the clumps of each sorted column (N, D), as the standard deviation of one normal
    column whose windows are as wide: (D,); 0 where most windows hold equal values."""
    width = max(FEWEST, -int(-WINDOW * len(values) // 1))
    if len(values) <= 2 * width:
        return torch.zeros_like(values[0])
    windows = (values[width:] - values[:-width]).nanmedian(0).values.nan_to_num()
    return windows / NORMAL_WINDOW * (WINDOW * len(values) / width)
