"""When a fit has converged: three rules, each of which reads the objective's history (chapter 06).

The objective is the mean NLL, less the log prior per point where there is a prior. A number in the
place of a rule is ``Absolute`` of that number; a tolerance of 0 never stops a fit.
"""

from __future__ import annotations

from dataclasses import dataclass

from gmmedu import checks


@dataclass(frozen=True)
class Stopping:
    """What the rules share. ``tolerance``: not negative, in nats per point unless a rule says
    otherwise."""

    tolerance: float

    def __post_init__(self) -> None:
        checks.check_number(self.tolerance, "tolerance", inclusive=True)

    def met(self, objective: float, earlier: list[float]) -> bool:
        """Whether to stop at ``objective``, given those before it, oldest first."""
        raise NotImplementedError


@dataclass(frozen=True)
class Absolute(Stopping):
    """The last iteration changed the objective by less than the tolerance. Cheap, and early where
    progress is slow: a small step is no proof that little is left."""

    def met(self, objective: float, earlier: list[float]) -> bool:
        return (
            bool(earlier) and abs(earlier[-1] - objective) < self.tolerance
        )


@dataclass(frozen=True)
class Relative(Stopping):
    """The same as a share of the objective's size, so the tolerance has no unit. As the objective
    shifts with the units of the data, so does this rule; near an objective of 0 it never stops."""

    def met(self, objective: float, earlier: list[float]) -> bool:
        return bool(earlier) and abs(
            earlier[-1] - objective
        ) < self.tolerance * abs(objective)


@dataclass(frozen=True)
class Aitken(Stopping):
    """What is left to gain, as far as the last three objectives tell, is less than the tolerance.

    Steps that shrink by a steady factor c leave c / (1 - c) times the last step (eq-aitken; it is
    Aitken's extrapolation, for mixtures by Böhning, Dietz, Schaub, Schlattmann and Lindsay 1994).
    While the steps do not shrink the rule does not stop.
    """

    def met(self, objective: float, earlier: list[float]) -> bool:
        if len(earlier) < 2:
            return False
        last, step = earlier[-2] - earlier[-1], earlier[-1] - objective
        if step == 0 or last == 0:
            return self.tolerance > 0 and step == 0
        rate = step / last
        return (
            0 < rate < 1 and abs(step) * rate / (1 - rate) < self.tolerance
        )


def rule(tolerance: float | Stopping) -> Stopping:
    """A rule as it is, a number as the tolerance of ``Absolute``."""
    return (
        tolerance
        if isinstance(tolerance, Stopping)
        else Absolute(tolerance)
    )
