"""Singularities: a likelihood that grows without bound as a component shrinks onto a point.

Detection, and three mitigations, the same objects for all fitters (chapter 08). All lengths are
relative to the data: 1 is the standard deviation of the data (of all but far outliers, and of the
clumps where they are small and far apart; see ``units``), dimension by dimension where the family
allows it, so a setting means the same for kilometers and for micrometers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from gmmedu import checks
from gmmedu.covariance import ConjugatePrior, Family
from gmmedu.models import GaussianMixture, check_mixture
from gmmedu.units import Units, moments
from gmmedu.values import State, each


class SingularityError(RuntimeError):
    """A fit without mitigation met a component that shrinks onto a point; or, with whichever
    mitigation, the NLL of a fit is no longer finite.

    component: its index, or None where it is not a single one's doing; iteration: when;
    member: which fit of a batch, or None for a single one. The model keeps the best parameters
    that it had.
    """

    def __init__(
        self, message: str, component: int | None, iteration: int, member: int | None = None
    ) -> None:
        super().__init__(message)
        self.component = component
        self.iteration = iteration
        self.member = member

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.component, self.iteration, self.member)


class SingularityWarning(UserWarning):
    """A fit ended with a component on the floor that its mitigation sets."""


def resolution(dtype: torch.dtype) -> float:
    """Below this standard deviation, relative to the data's, a covariance has no factor in
    ``dtype``: 4.7e-8 in float64, 1.1e-3 in float32. No floor is lower, counted in units of the
    data."""
    return math.sqrt(10 * torch.finfo(dtype).eps)


class Drawable(Protocol):
    """What a mitigation asks of points."""

    def draw(self, uniform: Tensor) -> Tensor:
        """The points (Q, D), in units of the data, that numbers uniform (Q,) in [0, 1) pick by
        weight; 0, the center, in the place of a value that is missing."""


@dataclass(frozen=True)
class Mitigation:
    """What a fitter asks of a mitigation; this one does the least that keeps numbers finite.

    One of your own may have another ``floor``, ``prior`` or ``mitigate``; the last is asked where
    no parameter is held. Make it a data class: processes and checkpoints know it by its ``repr``.
    """

    @property
    def moves(self) -> bool:
        """Whether it does more than to clamp."""
        return type(self).mitigate is not Mitigation.mitigate

    def floor(self, dtype: torch.dtype) -> float:
        """The smallest standard deviation allowed in any direction, relative to the data's."""
        return resolution(dtype)

    def prior(self, num_components: int, num_dims: int) -> ConjugatePrior | None:
        """What is added to the statistics of each covariance."""
        return None

    def mitigate(
        self,
        state: State,
        singular: Tensor,
        points: Drawable,
        family: Family,
        generator: torch.Generator | None,
        previous: int,
    ) -> tuple[State, str]:
        """The state of one fit to go on with, (1, ...), and what was done, "clamped" or a word for
        the fit's ``events``; the state given is at the floor already.

        singular: which covariances (J,) fell below it; previous: how many were moved before.
        """
        return state, "clamped"


@dataclass(frozen=True)
class Clamp(Mitigation):
    """Keep every standard deviation, in every direction, at ``min_scale`` or more (eq-clamp).

    min_scale: in standard deviations of the data; one below 4.7e-8 in float64, or 1.1e-3 in
    float32, counts as that, the least that the dtype resolves.

    Inside EM this is the exact M-step under that bound, so from a state within the bound the NLL
    still never rises.
    """

    min_scale: float = 1e-3

    def __post_init__(self) -> None:
        checks.check_number(self.min_scale, "min_scale")

    def floor(self, dtype: torch.dtype) -> float:
        return max(self.min_scale, resolution(dtype))


@dataclass(frozen=True)
class Reset(Clamp):
    """Move a component that fell below ``min_scale`` to a random data point and start it afresh.

    It starts with an equal weight and the variances of the data, without correlations. After
    ``max_resets`` in one fit components are clamped instead, so that the fit ends; and so they are
    where a parameter is held fixed. What a fit returns is still the lowest that it saw, which may
    be of before a component fell below the floor.
    """

    max_resets: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.check_count(self.max_resets, "max_resets", minimum=0)

    def mitigate(
        self,
        state: State,
        singular: Tensor,
        points: Drawable,
        family: Family,
        generator: torch.Generator | None,
        previous: int,
    ) -> tuple[State, str]:
        if previous + int(singular.sum()) > self.max_resets:
            return state, "clamped"
        num_components = state.means.shape[1]
        ones = each(torch.ones_like, state.scales)
        scales = ones
        if family.operator.event_dims == 2:
            scales = each(lambda part: part.tril().triu(), ones)
        moved = singular.expand(num_components)
        uniform = checks.uniform(num_components, generator=generator)
        drawn = points.draw(uniform).unsqueeze(0)
        log_weights = state.log_weights.log_softmax(-1)
        log_weights = log_weights.masked_fill(moved, -math.log(num_components))
        means = torch.where(moved.unsqueeze(-1), drawn, state.means)
        fresh = family.where(singular.unsqueeze(0), scales, state.scales)
        return State(log_weights.log_softmax(-1), means, fresh), "reset"


@dataclass(frozen=True)
class Prior(Mitigation):
    """An inverse-Wishart prior on each covariance (eq-inverse-wishart); the fit is then maximum a
    posteriori (eq-map-covariance).

    In units of the data, the prior has ``degrees`` degrees of freedom (default D + 2) and scale
    matrix ``scatter`` times the identity (default K^(-2/D)): the M-step adds that scatter, and
    degrees + D + 1 points, to those of each covariance. ``FitResult.nll`` stays the plain NLL.
    After Fraley and Raftery (2007), with their degrees of freedom and their factor K^(-2/D), but
    a scale matrix without correlations and no prior on the means.
    """

    scatter: float | None = None
    degrees: float | None = None

    def __post_init__(self) -> None:
        if self.scatter is not None:
            checks.check_number(self.scatter, "scatter")
        if self.degrees is not None:
            checks.check_number(self.degrees, "degrees")

    def prior(self, num_components: int, num_dims: int) -> ConjugatePrior:
        degrees = num_dims + 2 if self.degrees is None else self.degrees
        scatter = num_components ** (-2 / num_dims) if self.scatter is None else self.scatter
        return ConjugatePrior(points=degrees + num_dims + 1, scatter=scatter)


#: What the fitters use when no mitigation is named.
DEFAULT_MITIGATION = Clamp()


def find_singular(
    model: GaussianMixture, x: Tensor, min_scale: float = 1e-3, *, missing: bool = False
) -> list[int]:
    """Components that are degenerate on x (N, D): all of them when a shared covariance is.

    A component is degenerate when its standard deviation in some direction is below ``min_scale``
    standard deviations of the data; one of a given (constant) variance never is. What ``Clamp``
    holds at its floor is not below it: of that ``FitResult.on_floor`` tells. missing: whether NaN
    is a value that was not observed.

    Raises ``TypeError`` for a batch of mixtures, ``ValueError`` or ``TypeError`` for bad input.
    """
    check_mixture(model)
    if model.batch_shape:
        raise TypeError("find_singular looks at one mixture; write find_singular(model[i], x)")
    checks.check_points(x, model.num_dims, device=model.means.device, missing=missing)
    checks.check_number(min_scale, "min_scale")
    x = x.detach().to(torch.promote_types(x.dtype, model.means.dtype))
    units = Units.of([moments([(x, None)])], model.family.per_dimension)
    state = each(lambda part: part.detach().unsqueeze(0), model.state())
    state = units.standardize(state, model.family)
    _, singular = model.family.clamp(state.scales, min_scale * float(units.clump))
    return [int(k) for k in singular[0].expand(model.num_components).nonzero()]
