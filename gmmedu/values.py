"""Plain data: the numbers of a mixture, what a pass sums up, and points laid out for passes.

Everything may have leading batch dimensions: many mixtures side by side, on points that all
share or on points of their own (chapters 05 and 06). Nothing here computes a density.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Scales(NamedTuple):
    """A factor L of each covariance, Sigma = L L^T, and its inverse W, which whitens.

    Triangular matrices (..., J, D, D), or the diagonals of diagonal ones (..., J, D), or
    (..., J, 1) where all dimensions have one; J is K, or 1 where all components have one.
    """

    factor: Tensor
    whitening: Tensor


def absent(dtype: torch.dtype) -> float:
    """The log weight of a component that a member of a batch does not have: EM leaves it there, and
    no density that can be counted outweighs it."""
    return torch.finfo(dtype).min / 16


class State(NamedTuple):
    """The numbers of a mixture: log weights (..., K), means (..., K, D), and scales."""

    log_weights: Tensor
    means: Tensor
    scales: Scales


class Statistics(NamedTuple):
    """Sums over points, r_nk being the responsibilities and y_nk = W_k (x_n - mu_k).

    log_likelihood: sum_n log p(x_n), float64, (...); counts: N_k = sum_n r_nk, (..., K);
    first: sum_n r_nk y_nk, (..., K, D); second: sum_n r_nk y_nk y_nk^T, (..., K, D, D), or its
    diagonal (..., K, D) where covariances are diagonal, or summed over k, (..., 1, D, D) or
    (..., 1, D), where all components have one.
    """

    log_likelihood: Tensor
    counts: Tensor
    first: Tensor
    second: Tensor


def add(one: Statistics, other: Statistics) -> Statistics:
    """The statistics of two sets of points together, counted at the same state
    (eq-statistics-add)."""
    return Statistics(*(a + b for a, b in zip(one, other, strict=True)))


def each(function: Callable[..., Tensor], *values: Any) -> Any:
    """Apply a function to each tensor of states, scales or statistics of one kind."""
    first = values[0]
    if isinstance(first, Tensor):
        return function(*values)
    return type(first)(*(each(function, *parts) for parts in zip(*values, strict=True)))


def take(values: Any, members: Tensor) -> Any:
    """The members of a batch with these indices: the same kind of values."""
    return each(lambda part: part[members], values)


def put(values: Any, members: Tensor, those: Any) -> Any:
    """The values with ``those`` in the place of the members with these indices."""
    return each(lambda part, new: part.index_copy(0, members, new), values, those)


class Pattern(NamedTuple):
    """Points of which equally many values, M, are missing: which rows of the data they are,
    (B,), those of a kind together; the missing dimensions of each kind, (U, M); which kind each
    row is, (B,)."""

    rows: Tensor
    hidden: Tensor
    kind: Tensor


def patterns_of(x: Tensor) -> tuple[Pattern, ...]:
    """The patterns of x (N, D), in which NaN is a missing value; none where all are there."""
    missing = x.isnan()
    if not bool(missing.any()):
        return ()
    kinds, kind = torch.unique(missing, dim=0, return_inverse=True)
    numbers = kinds.sum(1)
    patterns = []
    for number in numbers.unique().tolist():
        chosen = (numbers == number).nonzero().flatten()
        rows = (numbers[kind] == number).nonzero().flatten()
        rows = rows[kind[rows].argsort(stable=True)]
        hidden = kinds[chosen].nonzero()[:, 1].reshape(len(chosen), number)
        place = torch.zeros_like(numbers).index_copy(
            0, chosen, torch.arange(len(chosen), device=x.device)
        )
        patterns.append(Pattern(rows, hidden, place[kind[rows]]))
    return tuple(patterns)


@dataclass(frozen=True)
class Points:
    """Points laid out for passes, as columns, so that reductions run along the long axis.

    columns: [x; 1], (P, D + 1, N), where P is 1 for points that all members of a batch share,
    else one set for each; weights: (P, N) or None; patterns: where values of shared points are
    missing, which; ``columns`` is 0 there. Own points that lack values have one set each in
    ``members`` instead.
    """

    columns: Tensor
    weights: Tensor | None = None
    patterns: tuple[Pattern, ...] = ()
    members: tuple[Points, ...] = ()

    @classmethod
    def of(cls, x: Tensor, weights: Tensor | None = None) -> Points:
        """x (N, D) or (P, N, D), weights (N,) or (P, N); NaN is a missing value."""
        x = x if x.ndim == 3 else x.unsqueeze(0)
        columns = torch.cat([x.mT, torch.ones_like(x.mT[:, :1])], 1)
        if weights is not None:
            weights = weights.to(x).reshape(len(x), -1)
        return cls.from_columns(columns, weights)

    @classmethod
    def from_columns(cls, columns: Tensor, weights: Tensor | None) -> Points:
        """Of columns as they are stored; NaN in them is a missing value, and is overwritten."""
        if not bool(columns.isnan().any()):
            return cls(columns, weights)
        if len(columns) == 1:
            patterns = patterns_of(columns[0, :-1].mT)
            return cls(columns.nan_to_num_(), weights, patterns)
        sets = range(len(columns))
        members = tuple(
            cls.from_columns(columns[p : p + 1], None if weights is None else weights[p : p + 1])
            for p in sets
        )
        return cls(columns, weights, members=members)

    @property
    def num_points(self) -> int:
        """N, the points in each set."""
        return self.columns.shape[2]

    @cached_property
    def total(self) -> Tensor:
        """The sum of the weights, N where there are none, in float64, (P,)."""
        if self.weights is None:
            size = (len(self.columns),)
            return self.columns.new_full(size, self.num_points, dtype=torch.float64)
        return self.weights.sum(1, dtype=torch.float64)

    def take(self, members: Tensor) -> Points:
        """What these members of a batch look at."""
        if len(self.columns) == 1:
            return self
        weights = None if self.weights is None else self.weights[members]
        parts = tuple(self.members[int(m)] for m in members) if self.members else ()
        return Points(self.columns[members], weights, members=parts)

    def pieces(self) -> Iterator[Points]:
        """The points in as many pieces as there are: here one."""
        yield self

    def draw(self, uniform: Tensor) -> Tensor:
        """The points (Q, D) that numbers uniform (Q,), float64 in [0, 1), on the CPU, pick from the
        first set by weight."""
        if self.weights is None:
            index = (uniform * self.num_points).long().to(self.columns.device)
        else:
            cumulative = self.weights[0].cumsum(0, dtype=torch.float64)
            share = uniform.to(self.columns.device) * cumulative[-1]
            index = torch.searchsorted(cumulative, share, right=True)
        return self.columns[0, :-1, index].mT
