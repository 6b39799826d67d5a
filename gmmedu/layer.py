"""EM as a layer: the mixture that EM ends at, as a differentiable function of points and prior.

Derived in chapter 12. One step of EM is differentiable, so many are; the gradient of what they
converge to needs only one of them, and a linear equation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import jvp, vjp, vmap

from gmmedu import checks
from gmmedu.covariance import Family
from gmmedu.device import unrounded
from gmmedu.em import m_step
from gmmedu.fitting import ConvergenceWarning
from gmmedu.mixture import MixtureDistribution, check_state
from gmmedu.models import GaussianMixture, check_mixture
from gmmedu.passes import Workspace, e_step, expectations
from gmmedu.singularities import SingularityError, resolution
from gmmedu.values import Points, State, Statistics, each

Gradient = Literal["implicit", "unrolled", "one_step"]
GRADIENTS = ("implicit", "unrolled", "one_step")

#: Up to so many numbers in a mixture its Jacobian is formed, and the equation solved by
#: elimination; beyond, by iteration.
LARGEST_DIRECT = 512

#: Numbers that a part of the Jacobian may take while it is formed.
_CHUNK_NUMBERS = 2**24


@dataclass(frozen=True)
class Step:
    """EM as a map of unconstrained numbers (M, P), given points x (M, N, D), weights (M, N) or
    None, and a start that counts as ``prior_points`` points (eq-map-em).

    The numbers are ``family.flatten``'s, without a given (constant) variance. A common constant
    in the logits changes nothing that the map returns, so it is an eigenvector of the Jacobian
    with the eigenvalue 0, and does no harm.
    """

    family: Family
    start: State
    x: Tensor
    weights: Tensor | None
    prior_points: float
    floor: float

    def __call__(self, numbers: Tensor) -> Tensor:
        """One step, with a gradient in everything."""
        state = self.state(numbers)
        statistics = expectations(self.x, self.family, state, self.weights)
        return self.numbers(self.ascend(state, statistics))

    def ascend(self, state: State, statistics: Statistics) -> State:
        """The M-step, with what the prior adds to statistics counted at ``state``."""
        if self.prior_points:
            statistics = with_prior(statistics, self.family, state, self.start, self.prior_points)
        return m_step(statistics, self.family, state, self.floor)[0]

    def numbers(self, state: State) -> Tensor:
        numbers = self.family.flatten(state)
        return numbers if self.family.trainable else numbers[:, : self._free]

    def state(self, numbers: Tensor) -> State:
        if not self.family.trainable:
            numbers = torch.cat([numbers, self.family.flatten(self.start)[:, self._free :]], 1)
        return self.family.unflatten(numbers, self.start)

    @property
    def _free(self) -> int:
        return self.start.log_weights.shape[1] + self.start.means[0].numel()

    def detach(self) -> Step:
        weights = None if self.weights is None else self.weights.detach()
        start = each(torch.Tensor.detach, self.start)
        return replace(self, start=start, x=self.x.detach(), weights=weights)


def with_prior(
    statistics: Statistics, family: Family, state: State, start: State, prior_points: float
) -> Statistics:
    """Statistics counted at ``state``, with those of ``prior_points`` points more, which are
    distributed as ``start`` and whose components are known (eq-map-em)."""
    operator, whitening = family.operator, state.scales.whitening
    counts = prior_points * start.log_weights.exp()
    mean = operator.apply(whitening, start.means - state.means)
    spread = operator.compose(whitening, start.scales.factor)
    second = operator.precision(spread, mean.shape[-1]) + operator.outer(mean, mean)
    second = counts.reshape(*counts.shape, *[1] * operator.event_dims) * second
    second = family.tie(second)
    return statistics._replace(
        counts=statistics.counts + counts,
        first=statistics.first + counts.unsqueeze(-1) * mean,
        second=statistics.second + second,
    )


def em_fixed_point(
    start: State,
    x: Tensor,
    family: Family,
    sample_weight: Tensor | None = None,
    *,
    prior_points: float = 0.0,
    min_scale: float = 1e-3,
    num_iterations: int = 1000,
    tolerance: float = 1e-9,
    gradient: Gradient = "implicit",
) -> State:
    """What EM ends at from a start, with a gradient: a state (..., K) for x (..., N, D).

    Args:
        start: where EM starts, (..., K), as ``model.state()``.
        x: points, (..., N, D), finite; leading dimensions broadcast with those of the start.
        family: of the covariances, as ``model.family``.
        sample_weight: of the points, (..., N), not negative; leading dimensions broadcast as well.
            The gradient in it is what a point changes (eq-weight-gradient).
        prior_points: how many points the start counts as; the fit is then maximum a posteriori,
            keeps the order of its components, and has a gradient in the start (eq-map-em).
        min_scale: the smallest standard deviation, in the units that x itself has, unlike that of
            the fitters, since x may be made by a network and its spread be learned; 0 for none.
        num_iterations: the most steps, before a last one whose gradient "implicit" and "one_step"
            keep; "unrolled" keeps all.
        tolerance: EM ends when no log weight, whitened mean or scale moves by more in a step, or
            by more than 32 roundings of its dtype.
        gradient: "implicit", of the fixed point (eq-implicit-gradient), which is that of the
            optimum, whoever found it (eq-hessian-gradient), at the memory of one step;
            "unrolled", of the steps that were made (eq-unrolled-gradient); "one_step", of the
            last of them alone.

    Where EM converges, all three are the same fit. The gradient is of first order: "implicit"
    refuses a second derivative, and that of "one_step" is of the last step. Without a prior the
    fixed point does not depend on the start, and "implicit" has no gradient in it.

    Raises ``RuntimeError`` where the fixed point has no gradient, an eigenvalue of the step's
    Jacobian being 1; ``SingularityError`` where a component collapses, ``ValueError`` or
    ``TypeError`` for bad input. Warns with ``ConvergenceWarning`` where EM has not converged;
    "unrolled", which may be meant to stop early, does not. Source: Boite, Tanguy, Delon,
    Desolneux and Flamary (2025).
    """
    checks.check_choice(gradient, "gradient", GRADIENTS)
    checks.check_count(num_iterations, "num_iterations")
    checks.check_number(tolerance, "tolerance", inclusive=True)
    step, batch = _prepare(start, x, family, sample_weight, prior_points, min_scale)
    with unrounded(x.device.type):
        if gradient == "unrolled":
            numbers = _unrolled(step, num_iterations, tolerance)
        else:
            fixed = step.detach()
            numbers = settle(fixed, num_iterations, tolerance)
            following = step(numbers)
            if gradient == "implicit" and following.requires_grad:
                following = _Implicit.apply(following, _solver(fixed, numbers, num_iterations))
            numbers = following
        state = step.state(numbers)
    return each(lambda part: part.reshape(*batch, *part.shape[1:]), state)


def _prepare(
    start: State,
    x: Tensor,
    family: Family,
    weights: Tensor | None,
    prior_points: float,
    min_scale: float,
) -> tuple[Step, tuple[int, ...]]:
    """The step, with one batch dimension, and the batch's shape."""
    check_state(start, family, "start")
    num_dims, like = start.means.shape[-1], start.means
    checks.check_number(prior_points, "prior_points", inclusive=True)
    checks.check_number(min_scale, "min_scale", inclusive=True)
    x = checks.check_floats(x, "x", like.device)
    x = checks.check_points(x, num_dims, batch_shape=tuple(x.shape[:-2]), dtype=like.dtype)
    own, size = tuple(start.means.shape[:-2]), x.shape[-2]
    shapes = [tuple(x.shape[:-2]), own]
    if weights is not None:
        name = "sample_weight"
        shape = (*checks.check_floats(weights, name, shape="(..., N)").shape[:-1], size)
        checks.check_weights(weights, shape, like.device, name)
        shapes.append(shape[:-1])
    try:
        batch = np.broadcast_shapes(*shapes)
    except ValueError:
        raise ValueError(
            "the leading dimensions of x, start and sample_weight do not broadcast: "
            + ", ".join(map(str, shapes))
        ) from None
    if weights is not None:
        weights = weights.to(like.dtype).expand(*batch, size).reshape(-1, size)
    x = x.expand(*batch, *x.shape[-2:]).reshape(-1, *x.shape[-2:])

    def flat(part: Tensor) -> Tensor:
        event = part.shape[len(own) :]
        return part.expand(*batch, *event).reshape(-1, *event)

    return Step(family, each(flat, start), x, weights, prior_points, float(min_scale)), batch


@torch.no_grad()
def settle(step: Step, num_iterations: int, tolerance: float) -> Tensor:
    """EM on values, without a gradient, until it stands still: the numbers (M, P)."""
    points, workspace = Points.of(step.x, step.weights), Workspace()
    state = step.start
    for iteration in range(num_iterations):
        following = step.ascend(state, e_step(points, step.family, state, workspace))
        moved = _moved(step.family, state, following)
        state = following
        if _still(moved, tolerance, iteration):
            return step.numbers(state)
    _warn(moved, num_iterations)
    return step.numbers(state)


def _unrolled(step: Step, num_iterations: int, tolerance: float) -> Tensor:
    """The same by steps whose gradient is kept."""
    numbers = step.numbers(step.start)
    for iteration in range(num_iterations):
        following = step(numbers)
        with torch.no_grad():
            moved = _moved(step.family, step.state(numbers), step.state(following))
        numbers = following
        if _still(moved, tolerance, iteration):
            break
    return numbers


def _moved(family: Family, old: State, new: State) -> Tensor:
    """The longest way that a number went in a step, in units of its component: (M,)."""
    operator, whitening = family.operator, new.scales.whitening
    mean = operator.apply(whitening, new.means - old.means)
    ratio = operator.compose(whitening, old.scales.factor)
    if operator.event_dims == 2:
        ratio = ratio - torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device)
    else:
        ratio = ratio - 1
    parts = new.log_weights - old.log_weights, mean, ratio
    return torch.stack([part.flatten(1).abs().amax(1) for part in parts]).amax(0)


def _still(moved: Tensor, tolerance: float, iteration: int) -> bool:
    """Whether all members stand still, as far as the dtype can tell."""
    broken = ~torch.isfinite(moved)
    if bool(broken.any()):
        member = int(broken.nonzero()[0])
        raise SingularityError(
            f"a component of fit {member} collapsed in iteration {iteration + 1}; "
            "give prior_points, or a min_scale above 0",
            None,
            iteration + 1,
            member,
        )
    return bool((moved <= max(tolerance, 32 * torch.finfo(moved.dtype).eps)).all())


def _warn(moved: Tensor, num_iterations: int) -> None:
    checks.warn(
        f"EM still moved by {float(moved.max()):.1e} after {num_iterations} iterations, so what "
        "it is at, and its gradient, are those of no fixed point; give prior_points, more "
        "num_iterations, or a larger tolerance",
        ConvergenceWarning,
    )


# The gradient of the fixed point


class _Implicit(torch.autograd.Function):
    """The identity, whose gradient goes through (I - J)^-T on its way back (eq-adjoint)."""

    @staticmethod
    def forward(following: Tensor, solve: Callable[[Tensor], Tensor]) -> Tensor:
        return following.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.solve = inputs[1]
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        with unrounded(gradients[0].device.type):
            solution = ctx.solve(gradients[0])
        if torch.is_grad_enabled():
            # The solution holds J fixed, whose slope a second derivative would need.
            solution = _Once.apply(solution, *ctx.saved_tensors)
        return solution, None


class _Once(torch.autograd.Function):
    """The solution, from which no way leads back to what EM's last step was made of."""

    generate_vmap_rule = True

    @staticmethod
    def forward(solution: Tensor, following: Tensor) -> Tensor:
        return solution.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        raise RuntimeError(
            'the implicit gradient has no derivative; use gradient="unrolled" for a second one'
        )


def jacobian(step: Step, numbers: Tensor) -> Tensor:
    """J of a step of EM at numbers (M, P): (M, P, P), row i the gradient of number i."""
    members, size = numbers.shape
    basis = torch.eye(size, dtype=numbers.dtype, device=numbers.device)
    numbers_of_one = step.x.numel() * step.start.means.shape[1]
    chunk = max(1, _CHUNK_NUMBERS // max(1, numbers_of_one))

    def column(way: Tensor) -> Tensor:
        return jvp(step, (numbers,), (way.expand(members, size),))[1]

    return vmap(column, chunk_size=chunk, out_dims=2)(basis)


def _solver(step: Step, numbers: Tensor, num_iterations: int) -> Callable[[Tensor], Tensor]:
    """u of (I - J)^T u = v for v (M, P) (eq-implicit-gradient).

    Where J is small it is formed, which costs as many steps of EM as it has columns, and tells
    its eigenvalues. Where it is large, u = v + J^T v + J^T J^T v + ... costs one for each term.
    """
    if numbers.shape[1] > LARGEST_DIRECT:
        return lambda v: _by_iteration(vjp(step, numbers)[1], v, num_iterations)
    matrix = jacobian(step, numbers).double()
    if not bool(torch.isfinite(matrix).all()):
        raise RuntimeError("EM's Jacobian is not finite; give prior_points, or a larger min_scale")
    _check(torch.linalg.eigvals(matrix).real.amax(1), resolution(numbers.dtype))
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    transposed = (identity - matrix).mT
    return lambda v: torch.linalg.solve(transposed, v.double()).to(v.dtype)


def _check(largest: Tensor, least: float) -> None:
    """Raise where an eigenvalue of J is 1, as far as the dtype can tell, or above it, as where
    components are equal (eq-equal-components)."""
    if bool((largest < 1 - least).all()):
        return
    member = int(largest.argmax())
    raise RuntimeError(
        f"fit {member} of the batch has no gradient: where it ended, EM's Jacobian has the "
        f"eigenvalue {float(largest[member]):.9g}, so some change of the points moves it without "
        "bound, or away for good. Two components may be the same, or one have no points: start "
        "them apart, use fewer, or give prior_points"
    )


def _by_iteration(
    pull: Callable[[Tensor], tuple[Tensor]], v: Tensor, num_iterations: int
) -> Tensor:
    """The sum of the series v + J^T v + ... (eq-truncated-gradient) of each member, v (M, P), as
    far as the dtype can tell."""
    u = term = v
    smallest = 32 * torch.finfo(v.dtype).eps
    for _ in range(num_iterations):
        (term,) = pull(term)
        u = u + term
        largest = term.abs().amax(1)
        if bool((largest <= smallest * u.abs().amax(1)).all()) and bool(largest.isfinite().all()):
            return u
    raise RuntimeError(
        f"the series for the implicit gradient did not converge in {num_iterations} terms: an "
        "eigenvalue of EM's Jacobian is close to 1; give prior_points or more num_iterations"
    )


class EMLayer(nn.Module):
    """EM as a layer: a set of points goes in, the mixture fitted to it comes out.

    Args:
        start: a model, whose parameters become those of the layer. EM starts there, and with
            ``prior_points`` it is the prior, and is learned.
        prior_points, min_scale, num_iterations, tolerance, gradient: see ``em_fixed_point``.

    ``layer(x)`` is a ``MixtureDistribution`` of batch shape (...) for sets x (..., N, D), with a
    gradient in the points, their weights, and, given a prior, the parameters. ``min_scale`` is in
    the units of x.
    """

    def __init__(
        self,
        start: GaussianMixture,
        *,
        prior_points: float = 0.0,
        min_scale: float = 1e-3,
        num_iterations: int = 1000,
        tolerance: float = 1e-9,
        gradient: Gradient = "implicit",
    ) -> None:
        super().__init__()
        check_mixture(start)
        self.start = start
        self.prior_points = checks.check_number(prior_points, "prior_points", inclusive=True)
        self.min_scale = checks.check_number(min_scale, "min_scale", inclusive=True)
        self.num_iterations = checks.check_count(num_iterations, "num_iterations")
        self.tolerance = checks.check_number(tolerance, "tolerance", inclusive=True)
        checks.check_choice(gradient, "gradient", GRADIENTS)
        self.gradient: Gradient = gradient

    def extra_repr(self) -> str:
        return f"prior_points={self.prior_points:g}, gradient={self.gradient!r}"

    def forward(
        self, x: Tensor, sample_weight: Tensor | None = None, start: State | None = None
    ) -> MixtureDistribution:
        """The mixture of each set of points x (..., N, D) with sample_weight (..., N) or None.

        start: another place to start from, (..., K), from a network for example; with
            ``prior_points`` it is the prior. Raises and warns as ``em_fixed_point`` does.
        """
        state = em_fixed_point(
            self.start.state() if start is None else start,
            x,
            self.start.family,
            sample_weight,
            prior_points=self.prior_points,
            min_scale=self.min_scale,
            num_iterations=self.num_iterations,
            tolerance=self.tolerance,
            gradient=self.gradient,
        )
        # Where values cannot be looked at, they are not; elsewhere as torch does.
        validate = None if checks.visible(state.means) else False
        return MixtureDistribution(state, self.start.family, validate_args=validate)
