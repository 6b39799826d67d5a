"""Units in which the data have mean 0 and standard deviation 1.

Both fitters work in them and hand back parameters in the data's own units. Learning rates and
floors then mean the same at every scale, and float32 data far from the origin keep their digits.
Where a few points alone make the standard deviation large, that of the others is the unit.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gmmedu.families import Family
from gmmedu.mixture import State
from gmmedu.statistics import Points, patterns_of

#: Of each column the highest and the lowest points in this share, and one at least where there are
#: more than ten, are suspects: where moving them in to the others divides the standard deviation
#: by more than ``OUTLYING``, they are outliers.
TAIL, OUTLYING = 0.01, 3.0
#: Quantiles are those of a sample of this size, where there are more points.
_SAMPLE = 10_000


class Units(NamedTuple):
    """x = center + scale * (x in these units); both (D,), in the dtype of the data."""

    center: Tensor
    scale: Tensor

    @classmethod
    def of(
        cls, x: Tensor, per_dimension: bool, weights: Tensor | None = None
    ) -> Units:
        """Units of the data x (N, D): a scale for each dimension, or one for all.

        Center and scale are the mean and standard deviation of the column. Where the latter falls
        to less than a third once the outer 1 % on each side are moved to the 1 % and 99 %
        quantiles, they are those of the column so changed, unless it is constant then.
        weights: (N,) or None; a point of weight 2 counts as two. A constant column takes the
        scale of the others, constant data the scale 1.
        """
        x = x.detach()
        missing = x.isnan()
        if bool(missing.any()):
            shares = (
                (~missing).to(x)
                if weights is None
                else (~missing) * weights.to(x)[:, None]
            )
            shares = shares / shares.sum(0)
            center = (shares * x.nan_to_num()).sum(0)
            variance = (shares * (x.nan_to_num() - center).square()).sum(0)
        elif weights is None:
            variance, center = torch.var_mean(x, 0, correction=0)
        else:
            shares = (weights / weights.sum()).to(x)
            center = shares @ x
            variance = shares @ (x - center).square()
        middle, inner = _winsorized(x, weights)
        outlying = (inner > 0) & (inner * OUTLYING**2 < variance)
        center = torch.where(outlying, middle, center)
        variance = torch.where(outlying, inner, variance)
        scale = variance.sqrt()
        varies = scale > 10 * torch.finfo(x.dtype).eps * center.abs()
        typical = (
            variance[varies].mean().sqrt()
            if bool(varies.any())
            else torch.ones_like(scale[0])
        )
        if not per_dimension:
            return cls(center, typical.expand_as(scale))
        return cls(center, torch.where(varies, scale, typical))

    def log_volume(self, points: Points) -> float:
        """Sum of the log scales, by which a log density in these units is too high; where values
        are missing, the sum of those observed, averaged over the points."""
        log_scale = self.scale.double().log()
        if not points.patterns:
            return float(log_scale.sum())
        weights = (
            points.columns[-1] if points.weights is None else points.weights
        )
        sums = [
            log_scale[p.observed].sum() * weights[p.rows].sum()
            for p in points.patterns
        ]
        return float(torch.stack(sums).sum()) / points.total

    def points(
        self, x: Tensor, weights: Tensor | None, dtype: torch.dtype
    ) -> Points:
        """x (N, D) in these units, laid out for passes: one copy of the data. NaN is missing."""
        num_points, num_dims = x.shape
        columns = torch.empty(
            num_dims + 1, num_points, dtype=dtype, device=x.device
        )
        for d in range(num_dims):
            torch.sub(x.detach()[:, d], self.center[d], out=columns[d])
        columns[:-1] /= self.scale.unsqueeze(-1)
        columns[-1] = 1
        patterns = patterns_of(columns[:-1].mT)
        if patterns:
            columns.nan_to_num_()
        return Points(
            columns,
            None if weights is None else weights.to(columns),
            patterns,
        )

    def enter(self, state: State, family: Family) -> State:
        """A state given in the data's own units, in these."""
        means = ((state.means - self.center) / self.scale).to(state.means)
        factors = family.rescale(state.factors, (1 / self.scale).to(means))
        return State(state.log_weights, means, factors)

    def leave(self, state: State, family: Family) -> State:
        """A state given in these units, in the data's own."""
        means = (state.means * self.scale + self.center).to(state.means)
        return State(
            state.log_weights,
            means,
            family.rescale(state.factors, self.scale.to(means)),
        )


def _winsorized(x: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and variance of each column of x (N, D), NaN left out, after its outer values on each
    side, a share ``TAIL`` of the points or one of them, are moved to the next ones: (D,), (D,)."""
    if weights is not None:
        x, weights = x[weights > 0], weights[weights > 0]
    if len(x) > _SAMPLE:  # random rows, the same ones in each call
        generator = torch.Generator().manual_seed(0)
        rows = torch.randint(len(x), (_SAMPLE,), generator=generator)
        x = x[rows.to(x.device)]
        weights = None if weights is None else weights[rows.to(x.device)]
    values, order = x.sort(0)
    shares = (~values.isnan()).to(x)
    if weights is not None:
        shares = shares * weights.to(x)[order]
    shares = shares / shares.sum(0)
    below = shares.cumsum(0)
    tail = min(max(TAIL, 1.5 / len(x)), 0.1)
    inner = (below > tail) & (below - shares < 1 - tail)
    values = values.nan_to_num()
    low = values.where(inner, torch.inf).amin(0)
    high = values.where(inner, -torch.inf).amax(0)
    values = values.clamp(low, high)
    center = (shares * values).sum(0)
    return center, (shares * (values - center).square()).sum(0)
