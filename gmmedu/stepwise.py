"""EM that takes a step after each batch, for streams that pass once (chapter 11).

What is kept of the points that have passed is their mean statistics: each batch is counted at the
current state, moves the mean by a step that shrinks, and the M-step reads the next state from it.
The average of these means is statistics too, and its M-step the mixture that is returned.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gmmedu import checks
from gmmedu.covariance import Family
from gmmedu.em import ascend, maximize
from gmmedu.fitting import Callback, Surroundings
from gmmedu.models import GaussianMixture, check_mixture
from gmmedu.passes import Workspace, sums
from gmmedu.problem import Event, Problem, Stream, within
from gmmedu.singularities import DEFAULT_MITIGATION, Mitigation, SingularityWarning
from gmmedu.values import Points, State, Statistics, each

#: Units and floors are those of the first batches that hold so many points together.
FIRST_POINTS = 1000

Batch = tuple[Tensor, Tensor | None]


@dataclass(frozen=True, repr=False)
class StepwiseResult:
    """The record of a fit to a stream.

    history: the mean NLL of each batch before the fit had learned from it, in nats, float64
    (T, *batch_shape): points that no parameter has seen, on the first time through; elapsed:
    seconds after each step, (T,); num_steps: T; num_points: how many came; on_floor: whether a
    component ends on the floor that the mitigation sets; events: what the mitigation did;
    seconds: of the whole fit.
    """

    history: Tensor
    elapsed: Tensor
    num_steps: int
    num_points: int
    on_floor: Any
    events: list[Event]
    seconds: float

    def __repr__(self) -> str:
        return (
            f"StepwiseResult({self.num_steps} steps, {self.num_points} points, {self.seconds:.2g} "
            "s)"
        )


@dataclass(frozen=True)
class Steps:
    """How far each batch moves the mean statistics (eq-step-size)."""

    exponent: float
    offset: float
    constant: float | None

    @classmethod
    def of(cls, exponent: Any, offset: Any, constant: Any) -> Steps:
        if constant is not None:
            constant = checks.check_number(constant, "step_size")
            if constant > 1:
                raise ValueError(f"step_size must be at most 1, got {constant:g}")
        if not 0.5 < checks.check_number(exponent, "exponent") <= 1:
            raise ValueError(
                f"exponent must be above 0.5 and at most 1, got {exponent:g}: steps must shrink, "
                "and not too fast; for a stream that drifts give step_size, a constant, and "
                "average=None"
            )
        return cls(exponent, checks.check_number(offset, "offset", inclusive=True), constant)

    def size(self, step: int, share: float) -> float:
        """The size of step 1, 2, ... where the batch weighs ``share`` times their average."""
        if self.constant is not None:
            return min(1.0, share * self.constant)
        return float(min(1.0, share * (step + self.offset) ** -self.exponent))


def own(state: State, family: Family) -> Statistics:
    """What the statistics of a point are on average where points come from the mixture itself:
    their M-step is the state (eq-own-statistics). state (M, ...)."""
    counts, operator = state.log_weights.exp(), family.operator
    identity = torch.eye(state.means.shape[-1], device=counts.device).to(counts).unsqueeze(0)
    second = counts.reshape(*counts.shape, *[1] * operator.event_dims)
    second = family.tie(second * operator.of_covariances(identity))
    nothing = torch.zeros_like(counts[:, 0], dtype=torch.float64)
    return Statistics(nothing, counts, torch.zeros_like(state.means), second)


def moved(statistics: Statistics, before: State, after: State, family: Family) -> Statistics:
    """The statistics as they would have been counted with the same responsibilities in the
    whitened coordinates of another state (eq-moved-statistics)."""
    operator, (log_likelihood, counts, first, second) = family.operator, statistics
    turn = operator.compose(after.scales.whitening, before.scales.factor)
    shift = operator.apply(after.scales.whitening, before.means - after.means)
    turned = operator.apply(turn, first)
    first = turned + counts.unsqueeze(-1) * shift
    between = family.tie(operator.outer(turned, shift) + operator.outer(shift, first))
    second = operator.whiten_moment(turn, second) + between
    return Statistics(log_likelihood, counts, first, second)


def toward(one: Statistics, other: Statistics, share: float | Tensor) -> Statistics:
    """A share of the way from one to the other, as steps forget (eq-forgetting); share: a number,
    or one a member, (M,)."""
    weight = torch.as_tensor(share, dtype=one.counts.dtype, device=one.counts.device)

    def part(a: Tensor, b: Tensor) -> Tensor:
        shape = (-1, *[1] * (a.ndim - 1)) if weight.ndim else ()
        return torch.lerp(a, b, weight.to(a.dtype).reshape(shape))

    return Statistics(*map(part, one, other))


class Stepwise:
    """Stepwise EM on a problem: a state, the mean statistics behind it, and their average."""

    def __init__(self, problem: Problem, steps: Steps, average: float | None) -> None:
        self.problem, self.steps, self.power = problem, steps, average
        self.state = problem.start
        self.statistics = self.averaged = own(self.state, problem.family)
        self.num_steps, self.weight = 0, 0.0
        # Of how many steps each member's average is.
        self.age = torch.zeros_like(self.state.log_weights[:, 0])
        # Of how many points the statistics are, as far as a prior is concerned.
        self.memory = 1.0

    def step(self, points: Points) -> Tensor:
        """Learn from a batch (eq-stepwise); returns its mean log likelihood before, (M,).

        Raises ``SingularityError``; then nothing has changed."""
        problem, state = self.problem, self.state
        counted = sums(points, problem.family, state, Workspace())
        total = float(points.total[0])
        log_likelihood = counted.log_likelihood / total
        self._see(log_likelihood)
        weight, number = self.weight + total, self.num_steps + 1
        size = self.steps.size(number, total * number / weight)
        fresh = each(lambda part: part / total, counted)
        statistics = toward(self.statistics, fresh, size)
        known, memory = len(problem.events), total / size
        after = self._maximized(statistics, memory)
        statistics = moved(statistics, state, after, problem.family)
        statistics, age = self._restarted(problem.events[known:], statistics, after)
        averaged = self.averaged
        if self.power is not None:
            age = age + 1
            share = (self.power + 1) / (age + self.power)
            averaged = toward(moved(averaged, state, after, problem.family), statistics, share)
        # At once, so that who interrupts finds a whole step or none.
        self.state, self.statistics, self.averaged, self.age = after, statistics, averaged, age
        self.num_steps, self.weight, self.memory = number, weight, memory
        return log_likelihood

    def result(self) -> State:
        """The state to return: the last one, or the M-step of the average."""
        if self.power is None or not self.num_steps:
            return self.state
        problem = self.problem
        statistics = each(lambda part: part * self.memory, self.averaged)
        return maximize(problem, self.state, statistics)[0]

    def _maximized(self, statistics: Statistics, memory: float) -> State:
        """The next state, mitigated."""
        problem = self.problem
        counted = each(lambda part: part * memory, statistics)
        state = ascend(problem, self.state, counted, self.num_steps)[0]
        if problem.failures:
            raise next(iter(problem.failures.values()))
        # Over many steps a factor and its inverse would drift apart.
        operator = problem.family.operator
        return state._replace(scales=operator.from_raw(operator.to_raw(state.scales.factor)))

    def _see(self, log_likelihood: Tensor) -> None:
        bad = (~log_likelihood.isfinite()).nonzero().flatten().tolist()
        if bad:
            self.problem.fail_range(self.state, bad[0], self.num_steps)
            raise next(iter(self.problem.failures.values()))

    def _restarted(
        self, events: list[Event], statistics: Statistics, state: State
    ) -> tuple[Statistics, Tensor]:
        """The statistics, and of how many steps the average is: a member with a component that was
        moved forgets what it knew of the old one."""
        reset = [event.member or 0 for event in events if event.action != "clamped"]
        if not reset:
            return statistics, self.age
        index = torch.tensor(reset, device=self.age.device)
        which = torch.zeros_like(self.age).index_fill(0, index, 1.0)
        statistics = toward(statistics, own(state, self.problem.family), which)
        return statistics, self.age * (1 - which)


class Once(Stream):
    """Batches that are read once."""

    def __init__(self, batches: Iterable[Any], model: GaussianMixture, missing: bool) -> None:
        super().__init__((), model, missing)
        self.batches = batches


def fit_stepwise(
    model: GaussianMixture,
    x: Iterable[Any],
    num_epochs: int = 1,
    *,
    exponent: float = 0.6,
    offset: float = 2.0,
    step_size: float | None = None,
    average: float | None = 1.0,
    mitigation: Mitigation | None = DEFAULT_MITIGATION,
    missing: bool = False,
    callback: Callback | None = None,
    generator: torch.Generator | None = None,
) -> StepwiseResult:
    """Fit a mixture by a step of EM after each batch (eq-stepwise), from whatever state it is in.

    Step t moves the mean statistics by (t + offset)^-exponent (eq-step-size), times the batch's
    weight relative to the average so far. They begin as those of the given state, which a large
    ``offset`` keeps longer.

    Args:
        model: any mixture of this package; it is changed in place. Parameters with
            ``requires_grad=False`` are held fixed.
        x: batches (B, D), or pairs of those and weights (B,), read once: a generator will do.
            Batches are small samples of one population, so they come shuffled; all mixtures of a
            batch learn from them. Units and floors are those of the first 1,000 points.
        num_epochs: how often to read x, which must be able to begin again where it is above 1.
        exponent: above 0.5, at most 1. At 1, with offset 0, all points weigh the same.
        offset: at least 0; with 0 the first batch replaces the start.
        step_size: a constant step instead, at most 1, for a stream that drifts; with average=None,
            as an average of all steps lags behind it.
        average: the power of t by which step t counts in the average of the statistics whose
            M-step is returned (eq-averaged-statistics): 0 for all alike, 1 to forget the start;
            None to return the last step. What they vary: eq-average-variance, eq-last-variance.
        mitigation: of singularities, as for ``fit_em``; ``Reset()`` draws from the first points.
        missing: whether NaN in x is a value that was not observed.
        callback: called with (model, step, nll of the batch before the step), when the model holds
            what would be returned; a true return value stops the fit.
        generator: a CPU generator, for ``Reset``.

    Returns the record. Raises ``SingularityError`` when a component collapses and mitigation is
    None, or the NLL is no longer finite, ``ValueError`` or ``TypeError`` for bad input; the model
    then keeps what it learned from the steps before. Sources: Cappé and Moulines (2009); Liang and
    Klein (2009) for batches.
    """
    check_mixture(model)
    steps = Steps.of(exponent, offset, step_size)
    if average is not None:
        average = checks.check_number(average, "average", inclusive=True)
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be callable, got {callback!r}")
    begun = time.perf_counter()
    batches = _epochs(x, checks.check_count(num_epochs, "num_epochs"), model, missing)
    first = _first(batches)
    pairs = [(x,) if weights is None else (x, weights) for x, weights in first]
    problem = Problem(model, pairs, mitigation=mitigation, missing=missing, generator=generator)
    record = Record(problem, Stepwise(problem, steps, average), callback, begun)
    with torch.inference_mode(False):
        return record.run(chain(first, batches))


def _epochs(x: Any, num_epochs: int, model: GaussianMixture, missing: bool) -> Iterator[Batch]:
    """All batches, checked as they come."""
    if isinstance(x, Tensor | np.ndarray) or not isinstance(x, Iterable):
        raise TypeError(
            f"x must give batches of points, got a {type(x).__name__}; shuffle a tensor and write "
            "x.split(256), or use a DataLoader"
        )
    if num_epochs > 1 and isinstance(x, Iterator):
        raise TypeError(
            f"x must be batches that can be read again, as num_epochs is {num_epochs}, got a "
            f"{type(x).__name__}; use a list of them, or a DataLoader"
        )
    checks.check_flag(missing, "missing")
    return chain.from_iterable(Once(x, model, missing) for _ in range(num_epochs))


def _first(batches: Iterator[Batch]) -> list[Batch]:
    """The batches of the first points."""
    first, count = [], 0
    for x, weights in batches:
        # Whoever gives them may use one room for all.
        first.append((x.clone(), None if weights is None else weights.clone()))
        count += len(x)
        if count >= FIRST_POINTS:
            break
    return first


class Record:
    """A fit to a stream as it goes: its steps, what they are told to, and its safe end."""

    def __init__(
        self, problem: Problem, fit: Stepwise, callback: Callback | None, begun: float
    ) -> None:
        self.problem, self.fit, self.callback, self.begun = problem, fit, callback, begun
        self.outside = Surroundings(problem.model.means.device.type, problem.small)
        self.weight_unit = problem.points.weight_unit  # type: ignore[union-attr]
        self.history: list[Tensor] = []
        self.elapsed: list[float] = []
        self.num_points = 0

    def run(self, batches: Iterable[Batch]) -> StepwiseResult:
        """A step for each batch; the model holds what was learned, whatever happens."""
        try:
            for x, weights in within(self._modes, batches):
                with self.outside.left():
                    nll = self._step(x, weights)
                self.history.append(nll)
                self.elapsed.append(time.perf_counter() - self.begun)
                self.num_points += len(x)
                if self.callback is not None:
                    self._write()
                    shown = nll.clone() if self.problem.batched else nll.item()
                    with self._modes():
                        stop = self.callback(self.problem.model, self.fit.num_steps, shown)
                    if stop:
                        break
        finally:
            state = self._write()
        return self._result(state)

    @contextmanager
    def _modes(self) -> Iterator[None]:
        """Inside, gradients are recorded where the caller has them recorded."""
        with (
            torch.inference_mode(self.outside.inference),
            torch.set_grad_enabled(self.outside.grad),
        ):
            yield

    def _step(self, x: Tensor, weights: Tensor | None) -> Tensor:
        """Learn from a batch; its NLL before, (*batch_shape)."""
        units, dtype = self.problem.units, self.problem.model.means.dtype
        # Of a dimension that was not observed the unit does not matter.
        seen = (~x.isnan()).double()
        if weights is None and self.weight_unit != 1:
            weights = torch.ones_like(seen[:, 0])
        if weights is not None:
            seen = seen * (weights / weights.mean()).unsqueeze(1)
            weights = (weights * self.weight_unit).unsqueeze(0)
        columns = units.columns(x, dtype)
        points = Points.from_columns(columns, None if weights is None else weights.to(columns))
        log_likelihood = self.fit.step(points)
        nll = (seen.mean(0) * units.scale[0].double().log()).sum() - log_likelihood
        return nll.reshape(self.problem.model.batch_shape).cpu()

    @torch.no_grad()
    def _write(self) -> State:
        """Set the model to what was learned so far, where there was anything."""
        problem, model = self.problem, self.problem.model
        with self.outside.left():
            state = self.fit.result()
            restored = problem.units.restore(state, problem.family)
        if self.fit.num_steps:
            shape = model.batch_shape
            model._take(each(lambda part: part.reshape(*shape, *part.shape[1:]), restored))
        return state

    def _result(self, state: State) -> StepwiseResult:
        problem = self.problem
        low = problem.clamp(state.scales, 1.001)[1]
        low = low.any(-1).reshape(problem.model.batch_shape).cpu()
        if bool(low.any()):
            checks.warn(
                "the fit ends with a component on the floor that the mitigation sets: in some "
                "direction its standard deviation is as small as allowed. Use fewer components, "
                "larger batches or a larger offset, or remove duplicate points.",
                SingularityWarning,
            )
        return StepwiseResult(
            history=torch.stack(self.history).double(),
            elapsed=torch.tensor(self.elapsed, dtype=torch.float64, device="cpu"),
            num_steps=self.fit.num_steps,
            num_points=self.num_points,
            on_floor=low if problem.batched else bool(low),
            events=problem.events,
            seconds=time.perf_counter() - self.begun,
        )
