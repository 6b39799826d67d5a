"""Squared extrapolation of EM, after Varadhan and Roland (2008): SQUAREM, scheme S3 (chapter 07).

Where components overlap, EM creeps along one direction by steps that shrink at a steady rate. From
two of its steps the rate can be read, and with it where they lead.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gmmedu.families import Family
from gmmedu.mixture import State


def squared(
    here: Tensor, there: Tensor, beyond: Tensor, longest: float = math.inf
) -> tuple[Tensor, float]:
    """Where two steps of EM in a row seem to lead (eq-squarem), and the length of that leap.

    here, there, beyond: three iterates, (P,) each. From the first it is 2 a s + a^2 v, where s is
    the first step, v what the second differs from it, and a = |s| / |v|, at most ``longest``; NaN
    where EM stands still.
    """
    step, change = there - here, beyond - 2 * there + here
    a = min(float(step.norm() / change.norm()), longest)
    return here + 2 * a * step + a**2 * change, a


class Squarem:
    """Proposes leaps and learns from their outcome how far to trust one.

    longest: in steps of EM; it grows when a leap of that length was kept and shrinks when one was
    not, so that few passes are spent on leaps that lead uphill.
    """

    def __init__(
        self, family: Family, floor: float, longest: float = 4.0
    ) -> None:
        self.family, self.floor, self.longest = family, floor, longest
        self.length = 1.0
        self._start: State | None = None
        self._first: State | None = None

    def leap(self, state: State, following: State) -> State | None:
        """Told each step of EM, after every second in a row says where the two seem to lead.

        Log weights, means and theta leap together (eq-squarem), at most ``longest``. None where
        that is no further than the second step, or out of the covariances that ``floor`` allows.
        """
        start = self._start if state is self._first else None
        self._start, self._first = state, following
        if start is None:
            return None
        self._start = self._first = None
        here, there, beyond = map(
            self._coordinates, (start, state, following)
        )
        target, length = squared(here, there, beyond, self.longest)
        if not length > 1:  # nor NaN, where EM stands still
            return None
        self.length = length
        sizes = [start.log_weights.numel(), start.means.numel()]
        log_weights, means, theta = target.split(
            [*sizes, len(target) - sum(sizes)]
        )
        theta = theta.view_as(self.family.pack(start.factors.factor))
        factors, singular = self.family.clamp(
            self.family.unpack(theta), self.floor
        )
        if bool(singular.any()) or not bool(torch.isfinite(target).all()):
            return None
        return State(
            log_weights.log_softmax(0), means.view_as(start.means), factors
        )

    def keep(self, improved: bool) -> bool:
        """Learn whether the last leap lowered the objective, and hand that on."""
        if not improved:
            self.longest = max(1.5, self.length / 2)
        elif self.length == self.longest:
            self.longest *= 4
        return improved

    def _coordinates(self, state: State) -> Tensor:
        theta = self.family.pack(state.factors.factor)
        return torch.cat(
            [state.log_weights, state.means.flatten(), theta.flatten()]
        )
