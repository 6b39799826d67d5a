"""Expectation-maximization, derived in chapter 06, with squared extrapolation (chapter 07)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from gmmedu import checks, mixture
from gmmedu.covariance import ConjugatePrior, Family, Floor
from gmmedu.fitting import Algorithm, FitResult, Options, fit, with_options
from gmmedu.models import GaussianMixture
from gmmedu.passes import expectations
from gmmedu.problem import Problem
from gmmedu.stopping import Stopping
from gmmedu.values import State, Statistics, absent, put, take

if TYPE_CHECKING:
    from typing_extensions import Unpack

FREE = (False, False, False)


@with_options
def fit_em(
    model: GaussianMixture,
    x: Tensor | Iterable[Any],
    num_iterations: int = 200,
    tolerance: float | Stopping = 1e-8,
    *,
    accelerate: Literal["squarem"] | None = None,
    **options: Unpack[Options],
) -> FitResult:
    """Fit a mixture by EM (eq-em), from whatever state it is in.

    Where the M-step maximizes its surrogate, under a floor on the scales or without one, the NLL
    never rises (eq-em-monotone).

    Args:
        model: any mixture of this package; it is changed in place. Parameters with
            ``requires_grad=False`` are held fixed.
        x: data, (N, D), finite, at least as many points as components; (*batch_shape, N, D) for a
            batch of models, each on its own, or with a 1 for points that a dimension shares; or
            batches (B, D), or pairs of those and weights (B,), that can be read again and again,
            such as a DataLoader.
        num_iterations: the most iterations.
        tolerance: stop when the objective (the mean NLL; with ``Prior()`` less the log prior per
            point) changes by less, in nats; 0 runs every iteration. Or another rule:
            ``Relative(...)``, ``Aitken(...)``.
        accelerate: None, or "squarem": every second step is extrapolated, and kept where that
            lowers the NLL; fewer passes over the data where EM is slow.

    Returns the record. Raises ``SingularityError`` when a component collapses and mitigation is
    None, or the NLL is no longer finite, in a batch only where every member fails (else see
    ``FitResult.errors``); ``ValueError`` or ``TypeError`` for bad input. The model then keeps the
    best parameters that it had. Sources: Dempster, Laird and Rubin (1977); Varadhan and Roland
    (2008) for "squarem".
    """
    if accelerate not in (None, "squarem"):
        raise ValueError(f'accelerate must be None or "squarem", got {accelerate!r}')
    start = Em if accelerate is None else Squarem
    return fit(model, x, num_iterations, tolerance, start, options)


def em_step(state: State, x: Tensor, family: Family, sample_weight: Tensor | None = None) -> State:
    """One step of EM on values, with a gradient in all of them; no mitigation, in the data's own
    units.

    state: (..., K), as ``model.state()``; x: points (..., N, D), computed with in the dtype of the
    state; family: of the covariances, as ``model.family``; sample_weight: of the points, (..., N),
    or None. Returns a state. Raises ``TypeError`` or ``ValueError`` for what is of another kind,
    family or shape; values are not looked at.
    """
    x, sample_weight = _checked(state, x, family, sample_weight)
    with torch.autocast(state.means.device.type, enabled=False):
        return m_step(expectations(x, family, state, sample_weight), family, state)[0]


def _checked(
    state: State, x: Tensor, family: Family, sample_weight: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Points and weights in the dtype of the state, if they fit it."""
    mixture.check_state(state, family)
    batch, num_dims = tuple(state.means.shape[:-2]), state.means.shape[-1]
    x = checks.check_event(x, num_dims, batch_shape=batch, like=state.means, validate=False)
    if x.ndim < 2:
        raise ValueError(f"x must have shape (..., N, {num_dims}), got {tuple(x.shape)}")
    if sample_weight is not None:
        size = x.shape[-2]
        checks.check_floats(sample_weight, "sample_weight", x.device, shape=f"(..., {size})")
        if sample_weight.ndim == 0 or sample_weight.shape[-1] != size:
            raise ValueError(
                f"sample_weight must have shape (..., {size}), got {tuple(sample_weight.shape)}"
            )
        sample_weight = sample_weight.to(x.dtype)
    return x, sample_weight


def m_step(
    statistics: Statistics,
    family: Family,
    state: State,
    floor: Floor = 0.0,
    prior: ConjugatePrior | None = None,
    held: Sequence[bool] = FREE,
) -> tuple[State, Tensor]:
    """The parameters that maximize EM's surrogate (eq-surrogate); statistics counted at ``state``.

    Weights are N_k / N (eq-m-step-weights), means move by L_k times the mean whitened residual
    (eq-m-step-means), covariances as the family has it; what is held (weights, means, scales)
    stays. Returns the new state and which covariances (..., J) were raised to the floor.
    """
    tiny = torch.finfo(statistics.counts.dtype).tiny
    # Beside any points this is nothing; without any it keeps the state.
    counts = statistics.counts + tiny
    mean = statistics.first / counts.unsqueeze(-1)
    means, log_weights = state.means, state.log_weights
    if held[1]:
        mean = torch.zeros_like(mean)
    else:
        means = means + family.operator.apply(state.scales.factor, mean)
    if not held[0]:
        log_weights = (counts / counts.sum(-1, keepdim=True)).clamp_min(tiny).log()
    if held[2]:
        return State(log_weights, means, state.scales), family.none(state.scales)
    scales, singular = family.m_step(statistics, mean, state.scales, floor, prior)
    if not _is_zero(floor) and bool(singular.any()):
        blurred = _blurred(singular, mean)
        singular = singular & ~blurred
        scales = family.where(blurred, state.scales, scales)
    return State(log_weights, means, scales), singular


def _is_zero(floor: Floor) -> bool:
    return isinstance(floor, float) and floor == 0


def _blurred(singular: Tensor, mean: Tensor) -> Tensor:
    """Which of the singular covariances (..., J) were counted from too far away, (..., J).

    Seen from a mean that was far away, the spread of the points drowns in rounding. Such a step
    moves means only; the next one counts about the new mean. mean: of whitened residuals,
    (..., K, D).
    """
    far = mean.square().sum(-1) > 1e-3 / torch.finfo(mean.dtype).eps
    shared = singular.shape[-1] < far.shape[-1]
    return singular & (far.any(-1, keepdim=True) if shared else far)


def maximize(
    problem: Problem, state: State, statistics: Statistics, rows: Tensor | None = None
) -> tuple[State, Tensor]:
    """``m_step`` under the floor, the prior and what is held of a problem, for all members or for
    those in some rows; components that a member does not have stay away."""
    floor = problem.of(problem.floor, rows)
    following, low = m_step(statistics, problem.family, state, floor, problem.prior, problem.held)
    if problem.some_absent:
        weights = state.log_weights
        away = weights == absent(weights.dtype)
        following = following._replace(log_weights=weights.where(away, following.log_weights))
    return following, low


def ascend(
    problem: Problem,
    state: State,
    statistics: Statistics,
    iteration: int,
    rows: Tensor | None = None,
) -> tuple[State, Tensor]:
    """The state after a step of EM, and which covariances (M, J) were mitigated."""
    following, singular = maximize(problem, state, statistics, rows)
    return problem.mitigate(state, following, singular, iteration + 1, rows), singular


class Em(Algorithm):
    """An E-step, an M-step, and what the mitigation makes of it."""

    def __init__(self, problem: Problem, num_iterations: int) -> None:
        self.problem = problem

    def step(
        self, state: State, statistics: Statistics, iteration: int
    ) -> tuple[State, Statistics]:
        state = ascend(self.problem, state, statistics, iteration)[0]
        return state, self.problem.e_step(state)


def leap(here: Tensor, there: Tensor, beyond: Tensor, longest: Tensor) -> tuple[Tensor, Tensor]:
    """Where two steps of EM in a row seem to lead (eq-squarem), and the length of that leap.

    here, there, beyond: three iterates, (M, P) each; longest: (M,). From the first it is
    2 omega s + omega^2 v, where s is the first step, v what the second differs from it, and omega
    = |s| / |v|, at most ``longest``; NaN where EM stands still.
    """
    step, change = there - here, beyond - 2 * there + here
    length = torch.minimum(step.norm(dim=-1) / change.norm(dim=-1), longest)
    omega = length.unsqueeze(-1)
    return here + 2 * omega * step + omega**2 * change, length


class Squarem(Em):
    """EM that after every second step tries where the two seem to lead: scheme S3 of Varadhan and
    Roland (2008).

    Where components overlap, EM creeps along one direction by steps that shrink at a steady rate.
    A leap is at most ``longest`` steps of EM; that grows when a leap of that length was kept and
    shrinks when one was not, so that few passes are spent on leaps that lead uphill.
    """

    kept = ("longest", "started", "start")

    def __init__(self, problem: Problem, num_iterations: int) -> None:
        super().__init__(problem, num_iterations)
        like = problem.start.log_weights
        self.longest = torch.full_like(like[:, 0], 4.0)
        self.started = torch.zeros_like(self.longest, dtype=torch.bool)
        self.start = problem.family.flatten(problem.start)

    def step(
        self, state: State, statistics: Statistics, iteration: int
    ) -> tuple[State, Statistics]:
        problem = self.problem
        start, here = self.start, problem.family.flatten(state)
        following, singular = ascend(problem, state, statistics, iteration)
        fine = ~singular.any(-1)
        second = self.started & fine
        # The first of two steps is the start of a leap; after a leap or a mitigation, so is the
        # next.
        self.start, self.started = here, ~self.started & fine
        if not bool(second.any()):
            return following, problem.e_step(following)
        target, length = leap(start, here, problem.family.flatten(following), self.longest)
        ahead, allowed = self._state(target, following)
        ready = second & allowed & (length > 1)
        if not bool(ready.any()):
            return following, problem.e_step(following)
        objective = problem.nll(statistics) + problem.penalty(state)
        return self._try(objective, following, ahead, ready, length)

    def _try(
        self, objective: Any, following: State, ahead: State, ready: Tensor, length: Tensor
    ) -> tuple[State, Statistics]:
        """The leaps that lower the objective; the step of EM in place of the others."""
        problem = self.problem
        tried = ahead
        if not bool(ready.all()):
            rows = ready.nonzero().flatten()
            tried = put(following, rows, take(ahead, rows))
        statistics = problem.e_step(tried)
        reached = problem.nll(statistics) + problem.penalty(tried)
        better = torch.from_numpy(reached < objective).to(ready.device)
        full = length == self.longest
        grown = torch.where(full, self.longest * 4, self.longest)
        shrunk = (length / 2).clamp_min(1.5)
        self.longest = torch.where(ready, torch.where(better, grown, shrunk), self.longest)
        back = (ready & ~better).nonzero().flatten()
        if not len(back):
            return tried, statistics
        fallen = take(following, back)
        again = problem.e_step(fallen, back)
        return put(tried, back, fallen), put(statistics, back, again)

    def _state(self, target: Tensor, like: State) -> tuple[State, Tensor]:
        """The state with those coordinates, and which members (M,) the floor allows it to."""
        family = self.problem.family
        state, finite = family.unflatten(target, like), torch.isfinite(target).all(1)
        if self.problem.held[2]:
            return state._replace(scales=like.scales), finite
        clamped, singular = self.problem.clamp(state.scales)
        allowed = finite & ~singular.any(-1)
        return state._replace(scales=clamped), allowed
