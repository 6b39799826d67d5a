"""When a fit has converged: three rules, each of which reads the objective's history (chapter 06).

The objective is the mean NLL, less the log prior per point where there is a prior. A number in
the place of a rule is ``Absolute`` of that number; a tolerance of 0 never stops a fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gmmedu import checks

#: The objective of one fit, or of each fit of a batch: an array of float64.
Objective = Any


@dataclass(frozen=True)
class Stopping:
    """What the rules share. ``tolerance``: not negative, in nats per point unless a rule says
    otherwise. A rule of your own is a subclass with ``met``."""

    tolerance: float

    def __post_init__(self) -> None:
        checks.check_number(self.tolerance, "tolerance", inclusive=True)

    def met(self, objective: Objective, earlier: Sequence[Objective]) -> Any:
        """Whether to stop at ``objective``, given those before it, oldest first, of which a fit
        hands on the last four; where they are arrays, one answer for each fit of a batch."""
        raise NotImplementedError


@dataclass(frozen=True)
class Absolute(Stopping):
    """The last iteration changed the objective by less than the tolerance. Cheap, and early where
    progress is slow: a small step is no proof that little is left."""

    def met(self, objective: Objective, earlier: Sequence[Objective]) -> Any:
        if not earlier:
            return np.zeros_like(objective, dtype=bool)
        return np.abs(earlier[-1] - objective) < self.tolerance


@dataclass(frozen=True)
class Relative(Stopping):
    """The same as a share of the objective's size, so the tolerance has no unit. As the objective
    shifts with the units of the data, so does this rule; near an objective of 0 it never stops."""

    def met(self, objective: Objective, earlier: Sequence[Objective]) -> Any:
        if not earlier:
            return np.zeros_like(objective, dtype=bool)
        return np.abs(earlier[-1] - objective) < self.tolerance * np.abs(objective)


@dataclass(frozen=True)
class Aitken(Stopping):
    """What is left to gain, as far as the last three objectives tell, is less than the tolerance.

    Steps that shrink by a steady factor c leave c / (1 - c) times the last step (eq-aitken; it is
    Aitken's extrapolation, for mixtures by Böhning, Dietz, Schaub, Schlattmann and Lindsay 1994).
    While the steps do not shrink the rule does not stop.
    """

    def met(self, objective: Objective, earlier: Sequence[Objective]) -> Any:
        if len(earlier) < 2:
            return np.zeros_like(objective, dtype=bool)
        last, step = (np.subtract(earlier[-2], earlier[-1]), np.subtract(earlier[-1], objective))
        with np.errstate(divide="ignore", invalid="ignore"):
            rate = np.divide(step, last)
            left = np.abs(step) * rate / (1 - rate)
        still = (step == 0) | (last == 0)
        settled = (self.tolerance > 0) & (step == 0)
        shrinking = (rate > 0) & (rate < 1) & (left < self.tolerance)
        return np.where(still, settled, shrinking)


def rule(tolerance: float | Stopping) -> Stopping:
    """A rule as it is, a number as the tolerance of ``Absolute``."""
    if isinstance(tolerance, Stopping):
        return tolerance
    return Absolute(checks.check_number(tolerance, "tolerance", inclusive=True))
