"""Units in which the data have mean 0 and standard deviation 1.

Both fitters work in them and hand back parameters in the data's own units. Learning rates and
floors then mean the same at every scale, and float32 data far from the origin keep their digits.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gmmedu.families import Family
from gmmedu.mixture import State
from gmmedu.statistics import Points, patterns_of


class Units(NamedTuple):
    """x = center + scale * (x in these units); both (D,), in the dtype of the data."""

    center: Tensor
    scale: Tensor

    @classmethod
    def of(
        cls, x: Tensor, per_dimension: bool, weights: Tensor | None = None
    ) -> Units:
        """Units of the data x (N, D): a scale for each dimension, or one for all.

        weights: (N,) or None; a point of weight 2 counts as two. A constant column takes the scale
        of the others, constant data the scale 1.
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
