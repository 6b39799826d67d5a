"""What both fitters share: checks at the door, units, the record of a fit, and its safe end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from gmmedu import checks
from gmmedu.families import NO_PSEUDO
from gmmedu.mixture import GaussianMixture, State, check_mixture
from gmmedu.singularities import Mitigation, SingularityError, resolution
from gmmedu.statistics import SMALL, Statistics
from gmmedu.stopping import Stopping, rule
from gmmedu.units import Units

#: Called with the model, the iteration and the NLL; a true return value stops the fit.
Callback = Callable[[GaussianMixture, int, float], Any]


@dataclass(frozen=True)
class Event:
    """Something a mitigation did: at which iteration, to which component (None: to the covariance
    that all share), and what ("clamped" or "reset")."""

    iteration: int
    component: int | None
    action: str


@dataclass(frozen=True)
class Snapshot:
    """The parameters after an iteration, on the CPU: weights (K,), means (K, D), covariances."""

    iteration: int
    nll: float
    weights: Tensor
    means: Tensor
    covariances: Tensor


@dataclass(frozen=True)
class FitResult:
    """The record of a fit.

    nll: mean NLL of the returned parameters, in nats; history: the NLL after 0, 1, ... iterations,
    float64 (T + 1,); elapsed: seconds since the start at the same moments; converged: whether the
    stopping rule was met; num_iterations: T; seconds: the whole fit; events: what
    the mitigation did; snapshots: parameters along the way.
    """

    nll: float
    history: Tensor
    elapsed: Tensor
    converged: bool
    num_iterations: int
    seconds: float
    events: list[Event]
    snapshots: list[Snapshot]


class Fit:
    """One run of a fitter on one model: both loop over a pass, ``record``, a step, ``mend``."""

    def __init__(
        self,
        model: GaussianMixture,
        x: Tensor,
        num_iterations: int,
        *,
        tolerance: float | Stopping,
        mitigation: Mitigation | None,
        sample_weight: Tensor | None,
        missing: bool,
        callback: Callback | None,
        progress: bool,
        snapshot_every: int,
        generator: torch.Generator | None,
    ) -> None:
        check_mixture(model)
        dtype = model.means.dtype
        if not isinstance(missing, bool):
            raise TypeError(
                f"missing must be True or False, got {missing!r}"
            )
        checks.check_points(
            x,
            model.num_dims,
            device=model.means.device,
            minimum=model.num_components,
            missing=missing,
        )
        if sample_weight is not None:
            checks.check_weights(
                sample_weight, (len(x),), x.device, "sample_weight", dtype
            )
        if callback is not None and not callable(callback):
            raise TypeError(f"callback must be callable, got {callback!r}")
        if not isinstance(progress, bool):
            raise TypeError(
                f"progress must be True or False, got {progress!r}"
            )
        if mitigation is not None and not isinstance(
            mitigation, Mitigation
        ):
            raise TypeError(
                f"mitigation must be None, Clamp(...), Reset(...) or Prior(...), got {mitigation!r}"
            )
        self.num_iterations = checks.check_count(
            num_iterations, "num_iterations", minimum=0
        )
        self.stopping = rule(tolerance)
        self.snapshot_every = checks.check_count(
            snapshot_every, "snapshot_every", minimum=0
        )
        self.generator = checks.check_generator(generator)
        self.model, self.family = model, model.family
        self.callback, self.mitigation = callback, mitigation
        x = x.to(torch.promote_types(x.dtype, dtype))
        self.units = Units.of(x, self.family.per_dimension, sample_weight)
        self.points = self.units.points(x, sample_weight, dtype)
        self.offset = self.units.log_volume(self.points)
        self.floor = (
            resolution(dtype)
            if mitigation is None
            else mitigation.floor(dtype)
        )
        shape = (model.num_components, model.num_dims)
        self.pseudo = (
            NO_PSEUDO if mitigation is None else mitigation.pseudo(*shape)
        )
        self.state = self.units.enter(model.state(), self.family)
        self._history: list[float] = []
        self._elapsed: list[float] = []
        self._objectives: list[float] = []
        self._events: list[Event] = []
        self._snapshots: list[Snapshot] = []
        self._clamped: set[int | None] = set()
        self._good = self.state
        self._converged = False
        self._bar = _progress_bar(num_iterations) if progress else None
        self._threads = torch.get_num_threads()
        self._no_autograd = torch.inference_mode()
        self._start = time.perf_counter()

    def __enter__(self) -> Self:
        self._no_autograd.__enter__()
        if self.points.num_points * self.model.means.numel() <= SMALL:
            torch.set_num_threads(
                1
            )  # waking another costs more than it could take over
        return self

    def __exit__(self, *exception: object) -> None:
        """However the fit ends, leave the model at the last state whose NLL was recorded."""
        self._no_autograd.__exit__(*exception)
        torch.set_num_threads(self._threads)
        if self._bar is not None:
            self._bar.close()
        if len(self._history) > 1:
            self._write(self._good)
        self._seconds = time.perf_counter() - self._start

    def record(self, statistics: Statistics, state: State) -> bool:
        """Note the NLL of ``state``, which ``statistics`` were counted at; true when done."""
        iteration = len(self._history)
        nll = (
            self.offset
            - float(statistics.log_likelihood) / self.points.total
        )
        if not math.isfinite(nll + float(state.factors.factor.sum())):
            self._fail(state, iteration)
        self._history.append(nll)
        self._elapsed.append(time.perf_counter() - self._start)
        self._good = state
        last = iteration == self.num_iterations
        objective = self.objective(statistics, state)
        self._converged = self.stopping.met(objective, self._objectives)
        self._objectives.append(objective)
        done = last or self._converged
        if self._bar is not None:
            self._bar.set_postfix(nll=f"{nll:.6f}", refresh=False)
            self._bar.update(min(iteration, 1))
        if self.callback is not None:
            with torch.inference_mode(
                False
            ):  # what the callback makes is its own
                self._write(state)
                done = (
                    bool(self.callback(self.model, iteration, nll)) or done
                )
        if self.snapshot_every and (
            iteration % self.snapshot_every == 0 or done
        ):
            self._snapshot(iteration, nll, state)
        return done

    def improves(self, statistics: Statistics, state: State) -> bool:
        """Whether ``state``, not recorded yet, has a lower objective than the last recorded one."""
        return self.objective(statistics, state) < self._objectives[-1]

    def objective(self, statistics: Statistics, state: State) -> float:
        """What the fit lowers: the NLL, less the log prior per point where there is a prior."""
        nll = (
            self.offset
            - float(statistics.log_likelihood) / self.points.total
        )
        if self.pseudo is NO_PSEUDO:
            return nll
        log_prior = self.family.log_prior(
            state.factors, state.means.shape[1], self.pseudo
        )
        return nll - float(log_prior) / self.points.total

    def mend(self, state: State, singular: Tensor) -> State:
        """The state after a step, once the mitigation has dealt with ``singular``, (K or 1,)."""
        if not bool(singular.any()):
            self._clamped.clear()
            return state
        iteration = len(self._history)
        shared = singular.shape[0] < self.model.num_components
        which = [None] if shared else [int(k) for k in singular.nonzero()]
        if self.mitigation is None:
            subject = (
                "the shared covariance"
                if shared
                else f"component {which[0]}"
            )
            raise SingularityError(
                f"{subject} became singular at iteration {iteration}: its standard deviation in "
                f"some direction fell below {self.floor:.1e} times that of the data. The model "
                "keeps the parameters of the iteration before. Fit with mitigation=Clamp(), "
                "Reset() or Prior(), use fewer components, or remove duplicate points.",
                which[0],
                iteration,
            )
        resets = sum(event.action == "reset" for event in self._events)
        state, action = self.mitigation.mend(
            state,
            singular,
            self.points,
            self.family,
            self.generator,
            resets,
        )
        for component in which:
            if action != "clamped" or component not in self._clamped:
                self._events.append(Event(iteration, component, action))
        self._clamped = set(which) if action == "clamped" else set()
        return state

    def result(self) -> FitResult:
        """The record of a fit that has ended."""
        return FitResult(
            nll=self._history[-1],
            history=torch.tensor(self._history, dtype=torch.float64),
            elapsed=torch.tensor(self._elapsed, dtype=torch.float64),
            converged=self._converged,
            num_iterations=len(self._history) - 1,
            seconds=self._seconds,
            events=self._events,
            snapshots=self._snapshots,
        )

    @torch.no_grad()
    def _write(self, state: State) -> None:
        own = self.units.leave(state, self.family)
        self.model.logits.copy_(own.log_weights)
        self.model.means.copy_(own.means)
        if self.family.trainable:
            self.model.theta.copy_(self.family.pack(own.factors.factor))

    def _fail(self, state: State, iteration: int) -> None:
        numbers = torch.cat(
            [state.log_weights.unsqueeze(-1), state.means], dim=-1
        )
        bad = (~torch.isfinite(numbers)).any(1).nonzero().flatten().tolist()
        which = f"component {bad[0]}" if bad else "the mixture as a whole"
        raise SingularityError(
            f"the NLL is no longer finite at iteration {iteration}; {which} left the range of "
            f"{state.means.dtype}. The model keeps the parameters of the iteration before. Start "
            "from gmmedu.initialize(model, x), lower the learning rates, or use float64.",
            bad[0] if bad else None,
            iteration,
        )

    @torch.inference_mode(False)
    @torch.no_grad()
    def _snapshot(self, iteration: int, nll: float, state: State) -> None:
        own = self.units.leave(state, self.family)
        num_components, num_dims = own.means.shape
        triangular = self.family.triangular(own.factors.factor, num_dims)
        covariances = (triangular @ triangular.mT).expand(
            num_components, -1, -1
        )
        self._snapshots.append(
            Snapshot(
                iteration,
                nll,
                own.log_weights.exp().cpu(),
                own.means.clone().cpu(),
                covariances.clone().cpu(),
            )
        )


def _progress_bar(total: int) -> Any:
    from tqdm.auto import (
        tqdm,
    )  # a bar that is right in terminals and in notebooks

    return tqdm(total=total, unit="it")
