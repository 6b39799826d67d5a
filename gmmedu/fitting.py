"""The one loop that all fitters share, its options, the record of a fit, and its safe end."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import numpy as np
import torch
from torch import Tensor

from gmmedu import checks, mixture
from gmmedu.checkpoints import Checkpoint, Savable, savable
from gmmedu.device import Rounding
from gmmedu.models import GaussianMixture, check_mixture
from gmmedu.problem import Event, Problem
from gmmedu.processes import Alone, processes_of
from gmmedu.singularities import (
    DEFAULT_MITIGATION,
    Clamp,
    Mitigation,
    SingularityError,
    SingularityWarning,
    resolution,
)
from gmmedu.stopping import Stopping, rule
from gmmedu.values import State, Statistics, each, put, take

if TYPE_CHECKING:
    import os

    from torch.distributed import ProcessGroup

#: Called with the model, the iteration and the NLL; a true return value stops the fit.
Callback = Callable[[GaussianMixture, int, Any], Any]


#: What a mean may be moved by rounding, in its standard deviations, without a word.
ROUNDING = 0.01


class ConvergenceWarning(UserWarning):
    """A fit ended at its last iteration, before its stopping rule was met."""


class Options(TypedDict, total=False):
    """The options of ``fit_em``, ``fit_model`` and ``fit_lbfgs``, by keyword.

    Keyword Args:
        mitigation: of singularities: ``Clamp()`` unless named, ``Reset()``, ``Prior()``, or None.
        sample_weight: (N,), or (*batch_shape, N), not negative; a point of weight 2 counts as two
            points (eq-sample-weights).
        missing: whether NaN in x is a value that was not observed, at random as far as the observed
            ones tell; the fit then maximizes the likelihood of those (eq-missing-likelihood).
        callback: called with (model, iteration, nll); a true return value stops the fit. In a batch
            the NLL is a tensor, (*batch_shape).
        progress: show a progress bar.
        snapshot_every: keep the parameters every so many iterations, and the last; 0 keeps none.
        generator: a CPU generator, for ``Reset``.
        group: a group of torch.distributed, of which every process makes this call with its own
            part of the points, that may be empty, and the same other arguments; the fit is that of
            all points together. It starts from the first process's model.
        checkpoint: a file that the fit is saved to; where it exists, the fit goes on from there,
            whatever the model holds. In a group all give one, and the first process's is used.
        checkpoint_every: after how many iterations it is saved, each time whole or not at all.
    """

    mitigation: Mitigation | None
    sample_weight: Tensor | None
    missing: bool
    callback: Callback | None
    progress: bool
    snapshot_every: int
    generator: torch.Generator | None
    group: ProcessGroup | None
    checkpoint: str | os.PathLike[str] | None
    checkpoint_every: int


DEFAULTS = Options(
    mitigation=DEFAULT_MITIGATION,
    sample_weight=None,
    missing=False,
    callback=None,
    progress=False,
    snapshot_every=0,
    generator=None,
    group=None,
    checkpoint=None,
    checkpoint_every=10,
)

Fitter = TypeVar("Fitter", bound=Callable[..., Any])


def with_options(fitter: Fitter) -> Fitter:
    """Show the options in the signature and the documentation of a fitter that takes them."""
    signature = inspect.signature(fitter)
    named = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    options = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=Options.__annotations__[name],
        )
        for name, default in DEFAULTS.items()
    ]
    fitter.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*named, *options]
    )
    described = inspect.cleandoc(Options.__doc__ or "").partition("\n\n")[2]
    fitter.__doc__ = f"{inspect.cleandoc(fitter.__doc__ or '')}\n\n{described}"
    return fitter


@savable
@dataclass(frozen=True)
class Snapshot:
    """The parameters after an iteration, on the CPU: weights (..., K), means (..., K, D),
    covariances (..., K, D, D)."""

    iteration: int
    nll: Any
    weights: Tensor
    means: Tensor
    covariances: Tensor


@dataclass(frozen=True, repr=False)
class FitResult:
    """The record of a fit; of a batch of fits, with a tensor of its shape for each number.

    nll: mean NLL of the returned parameters, in nats: the lowest (by the objective) that the fit
    saw; inf for the members of a batch that failed. objective: what the fit lowered, that is the
    NLL, and with ``Prior()`` less the log prior per point. history: the NLL after 0, 1, ...
    iterations, float64 (T + 1, ...), NaN after the end of a member; elapsed: seconds since the
    start at the same moments, (T + 1,); passes_after: passes over the data until then, of the shape
    of ``history``; converged: whether the stopping rule was met; on_floor: whether a component ends
    on the floor that the mitigation sets, so that the NLL is what the floor makes it;
    num_iterations: T; passes: of the whole fit, and seconds; events: what the mitigation did;
    snapshots: parameters along the way; errors: of the members that failed; starts: the NLL of
    every start, where ``fit_best`` made several.
    """

    nll: Any
    objective: Any
    history: Tensor
    elapsed: Tensor
    passes_after: Tensor
    converged: Any
    on_floor: Any
    num_iterations: Any
    passes: Any
    seconds: float
    events: list[Event]
    snapshots: list[Snapshot]
    errors: list[SingularityError]
    starts: Tensor | None = None

    def __repr__(self) -> str:
        if isinstance(self.nll, Tensor):
            done, best = int(self.converged.sum()), float(self.nll.min())
            text = f"{self.nll.numel()} fits, best nll={best:.6g}, {done} converged"
        else:
            how = "converged" if self.converged else "not converged"
            text = f"nll={self.nll:.6g}, {how} after {self.num_iterations} iterations"
        return f"FitResult({text}, {self.seconds:.2g} s)"


class Algorithm:
    """A way to lower the objective of a problem, one step at a time."""

    #: The names of what it remembers from step to step; ``keep`` takes tensors with a row for each
    #: member.
    kept: tuple[str, ...] = ()

    def step(
        self, state: State, statistics: Statistics, iteration: int
    ) -> tuple[State, Statistics]:
        """The next state and its statistics, given those before, which were recorded."""
        raise NotImplementedError

    def keep(self, rows: Tensor) -> None:
        """Forget all members but those in these rows."""
        for name in self.kept:
            setattr(self, name, getattr(self, name)[rows])


def fit(
    model: GaussianMixture,
    x: Tensor | Iterable[Any],
    num_iterations: int,
    tolerance: float | Stopping,
    start: Callable[[Problem, int], Algorithm],
    options: Options,
) -> FitResult:
    """Fit a model by an algorithm: a pass, the record of it, a step, until all members are done.

    The model then holds the best state that each member saw, whatever happens.
    """
    chosen = _all_options(options)
    check_mixture(model)
    processes = processes_of(chosen["group"], model.means.device)
    record, checkpoint = _checked(num_iterations, tolerance, start, chosen, processes)
    problem = Problem(
        model,
        x,
        mitigation=chosen["mitigation"],
        sample_weight=chosen["sample_weight"],
        missing=chosen["missing"],
        generator=chosen["generator"],
        processes=processes,
    )
    problem.named["the algorithm"] = repr(start)
    outside = Surroundings(model.means.device.type, problem.small)
    record.begin(problem, outside)
    problem.read_within(outside.back)
    try:
        with outside.left():
            _run(problem, record, start(problem, record.num_iterations), checkpoint)
    finally:
        with torch.inference_mode(False):
            record.end()
    with torch.inference_mode(False):
        return record.result()


def _checked(
    num_iterations: int,
    tolerance: float | Stopping,
    start: Callable[[Problem, int], Algorithm],
    chosen: Options,
    processes: Alone,
) -> tuple[Record, Checkpoint | None]:
    """The record and the checkpoint that are asked for, the same in all processes."""
    record: Record
    checkpoint: Checkpoint | None

    def door() -> dict[str, Any]:
        nonlocal record, checkpoint
        count = checks.check_count(num_iterations, "num_iterations", minimum=0)
        record = Record(count, rule(tolerance), chosen)
        path, every = chosen["checkpoint"], chosen["checkpoint_every"]
        checkpoint = Checkpoint.of(path, every, processes.rank == 0)
        named = {"num_iterations": count, "tolerance": record.stopping, "the algorithm": start}
        named |= {"whether there is a checkpoint": path is not None, "checkpoint_every": every}
        return {name: repr(value) for name, value in named.items()}

    processes.same(door)
    return record, checkpoint


def _run(
    problem: Problem, record: Record, algorithm: Algorithm, checkpoint: Checkpoint | None
) -> None:
    """Pass, record, step, until all members are done."""
    parts: dict[str, Savable] = {"problem": problem, "record": record, "algorithm": algorithm}
    saved = None if checkpoint is None else checkpoint.read(problem, parts)
    if saved is None:
        state = problem.start
        statistics = problem.e_step(state)
        rows = record.add(statistics, state)
    else:
        state, statistics = saved
        rows = record.resume()
    while True:
        if rows is not None:
            problem.keep(rows)
            if not len(rows):
                return
            algorithm.keep(rows)
            state, statistics = take(state, rows), take(statistics, rows)
        if checkpoint is not None and checkpoint.due(record.iteration):
            checkpoint.write(problem, parts, (state, statistics))
        state, statistics = algorithm.step(state, statistics, record.iteration)
        rows = record.add(statistics, state)


def _all_options(given: Options) -> Options:
    unknown = sorted(set(given) - set(DEFAULTS))
    if unknown:
        raise TypeError(
            f"{unknown[0]} is no argument of this fitter; beside those in its signature before the "
            f"options it takes {', '.join(DEFAULTS)}"
        )
    return Options(**{**DEFAULTS, **given})


class Surroundings:
    """The modes of the process that a fit finds: it computes without a gradient and without
    autocast, a small one in one thread, as waking another costs more than it could take over;
    a callback sees what was there before."""

    def __init__(self, device: str, small: bool) -> None:
        self.device, self.grad = device, torch.is_grad_enabled()
        self.inference = torch.is_inference_mode_enabled()
        self.threads = torch.get_num_threads()
        self.wanted = 1 if small else self.threads
        self.rounding = Rounding.now()
        self.autocast = torch.is_autocast_enabled(device)
        self.dtype = torch.get_autocast_dtype(device)

    @contextmanager
    def left(self) -> Iterator[None]:
        """Inside, nothing is recorded for a gradient, and nothing is rounded."""
        try:
            self._set(self.wanted, self.rounding.none())
            with torch.inference_mode(), self._cast(False):
                yield
        finally:
            self._set(self.threads, self.rounding)

    @contextmanager
    def back(self) -> Iterator[None]:
        """Inside, everything is as it was."""
        try:
            self._set(self.threads, self.rounding)
            with torch.inference_mode(self.inference), torch.set_grad_enabled(self.grad):
                with self._cast(True):
                    yield
        finally:
            self._set(self.wanted, self.rounding.none())

    def _set(self, threads: int, rounding: Rounding) -> None:
        torch.set_num_threads(threads)
        if self.rounding.any:
            rounding.set()

    def _cast(self, enabled: bool) -> Any:
        if not self.autocast:
            return nullcontext()
        return torch.autocast(self.device, dtype=self.dtype, enabled=enabled)


class Record:
    """What a fit has seen, and what it will return."""

    kept = (
        *("iteration", "log", "_earlier", "_snapshots", "_best", "_best_nll", "_best_objective"),
        *("_final", "_nll", "_objective", "_converged", "_ended", "_stopped", "_moved"),
    )

    def __init__(self, num_iterations: int, stopping: Stopping, options: Options) -> None:
        callback = options["callback"]
        if callback is not None and not callable(callback):
            raise TypeError(f"callback must be callable, got {callback!r}")
        checks.check_flag(options["progress"], "progress")
        self.callback, self.stopping = callback, stopping
        self.snapshot_every = checks.check_count(
            options["snapshot_every"], "snapshot_every", minimum=0
        )
        self.progress, self.num_iterations = options["progress"], num_iterations
        self.iteration = -1
        self._history: list[tuple[Any, Any]] = []
        self._elapsed: list[float] = []
        self._passes: list[Any] = []
        self._earlier: list[Any] = []
        self._snapshots: list[Snapshot] = []
        self._best: State | None = None
        self._best_objective: Any = None
        self._bar: Any = None

    def begin(self, problem: Problem, outside: Surroundings) -> None:
        """Start the clock."""
        self.problem, self._outside = problem, outside
        size = problem.num_members
        self._begun = time.perf_counter()
        self._given = [n.detach().clone() for n in problem.model._numbers()]
        self._final = problem.start
        self._nll, self._objective = np.full((2, size), np.inf)
        self._converged = np.zeros(size, dtype=bool)
        self._ended, self._stopped = np.zeros(size, dtype=int), np.zeros(size, dtype=bool)
        self._moved = 0.0
        # A callback of one process may stop all.
        self._heard = any(problem.processes.gather(self.callback is not None))
        if self.progress and problem.processes.rank == 0:
            self._bar = _progress_bar(self.num_iterations)

    @property
    def log(self) -> dict[str, Any]:
        """What was noted at each iteration, as a few long tensors."""
        members, nlls = zip(*self._history, strict=True)
        return {
            "sizes": torch.tensor([len(some) for some in members], device="cpu"),
            "members": np.concatenate(members),
            "nll": np.concatenate(nlls),
            "elapsed": torch.tensor(self._elapsed, dtype=torch.float64, device="cpu"),
            "passes": np.stack(self._passes),
        }

    @log.setter
    def log(self, log: dict[str, Any]) -> None:
        ends = log["sizes"].cumsum(0).tolist()[:-1]
        members, nlls = (np.split(log[name], ends) for name in ("members", "nll"))
        self._history = list(zip(members, nlls, strict=True))
        self._elapsed, self._passes = log["elapsed"].tolist(), list(log["passes"])
        self._begun = time.perf_counter() - self._elapsed[-1]

    def resume(self) -> Tensor | None:
        """After a checkpoint: the rows of the members that go on, or None where all do."""
        if self.iteration < self.num_iterations:
            return None
        if self.iteration > self.num_iterations:
            self._best = None
            raise ValueError(
                f"the checkpoint is at iteration {self.iteration}, and num_iterations is "
                f"{self.num_iterations}; ask for more, or remove it"
            )
        none = np.zeros(len(self.problem.members), dtype=bool)
        return self._let_go(none, False, none)

    def add(self, statistics: Statistics, state: State) -> Tensor | None:
        """Note the state of the members and the statistics counted at it. Returns the rows of
        those that go on, or None where all do."""
        problem = self.problem
        self.iteration += 1
        nll = problem.nll(statistics)
        objective = nll + problem.penalty(state)
        failed = self._failed(nll, state)
        self._history.append((problem.members, nll))
        self._elapsed.append(time.perf_counter() - self._begun)
        self._passes.append(problem.passes.copy())
        self._keep_best(nll, objective, state, failed)
        met = np.broadcast_to(self.stopping.met(objective, self._earlier), nll.shape)
        self._earlier = [*self._earlier[-3:], objective]
        last = self.iteration == self.num_iterations
        stop = self._tell(nll, state) or last
        done = np.asarray(met | failed if failed is not None else met)
        if self.snapshot_every and (
            self.iteration % self.snapshot_every == 0 or stop or done.all()
        ):
            self._snapshot(nll, state)
        # numpy counts in a tenth of the time that `any` takes, and small fits are all such calls.
        if not stop and not np.count_nonzero(done):
            return None
        going = ~done & (not stop)
        met = met & ~failed if failed is not None else met
        return self._let_go(np.asarray(met), stop and not last, going)

    def _failed(self, nll: Any, state: State) -> Any:
        """Which members have failed, or None: in a batch they leave it; a single one raises."""
        problem = self.problem
        finite = np.isfinite(nll)
        if np.count_nonzero(finite) == finite.size and not problem.failures:
            return None
        for row in np.flatnonzero(~finite):
            problem.fail_range(state, int(row), self.iteration)
        if len(problem.failures) == problem.num_members:
            raise next(iter(problem.failures.values()))
        return ~finite | np.isin(problem.members, list(problem.failures))

    def _keep_best(self, nll: Any, objective: Any, state: State, failed: Any) -> None:
        """Keep the lowest objective of each member and its state. A start may be below the floor,
        and so may its first successors; they do not count once there is another."""
        if self._best is None or np.count_nonzero(np.isinf(self._best_objective)):
            # What was raised to the floor is there to rounding.
            _, low = self.problem.clamp(state.scales, 0.999)
            objective = np.where(low.any(-1).cpu().numpy(), np.inf, objective)
        if self._best is None:
            self._best, self._best_nll, self._best_objective = state, nll, objective
            return
        # To rounding the later state is the better one: EM still moves parameters where the
        # objective no longer tells.
        rounding = 1e-14 * (1 + np.abs(self._best_objective))
        better = objective <= self._best_objective + rounding
        if failed is not None:
            better &= ~failed
        self._best_objective = np.fmin(self._best_objective, objective)
        num_better = np.count_nonzero(better)
        if num_better == better.size:
            self._best, self._best_nll = state, nll
        elif num_better:
            rows = torch.as_tensor(np.flatnonzero(better), device=state.means.device)
            self._best = put(self._best, rows, take(state, rows))
            self._best_nll = np.where(better, nll, self._best_nll)

    def _tell(self, nll: Any, state: State) -> bool:
        """Show the state to the progress bar and the callback; true where that stops the fit."""
        if self._bar is not None:
            self._bar.set_postfix(nll=f"{np.min(nll):.6f}", refresh=False)
            self._bar.update(min(self.iteration, 1))
        processes = self.problem.processes
        if not self._heard:
            return False
        return any(processes.share(lambda: self._called(nll, state)))

    def _called(self, nll: Any, state: State) -> bool:
        """What the callback says, where there is one."""
        if self.callback is None:
            return False
        model, whole = self.problem.model, self._whole(state)
        with torch.inference_mode(False):
            self._write(whole)
        with self._outside.back():
            return bool(self.callback(model, self.iteration, self._shown(nll)))

    def _let_go(self, met: Any, stopped: bool, going: Any) -> Tensor:
        """Write down the members that are done; the rows of the others."""
        assert self._best is not None
        problem, done = self.problem, ~going
        members = problem.members[done]
        device = self._best.means.device
        rows = torch.as_tensor(np.flatnonzero(done), device=device)
        best = take(self._best, rows)
        self._final = put(self._final, torch.as_tensor(members, device=device), best)
        nll = self._rounded(best, self._best_nll[done], rows)
        failed = np.isin(members, list(problem.failures))
        self._nll[members] = np.where(failed, np.inf, nll)
        self._objective[members] = self._nll[members] + problem.penalty(best, rows)
        self._converged[members], self._ended[members] = met[done], self.iteration
        self._stopped[members] = stopped | failed
        kept = torch.as_tensor(np.flatnonzero(going), device=device)
        self._best = take(self._best, kept)
        self._best_nll, self._best_objective = self._best_nll[going], self._best_objective[going]
        self._earlier = [objective[going] for objective in self._earlier]
        return kept

    @torch.no_grad()
    def end(self) -> None:
        """However the fit ends, leave the model at the best states."""
        if self._bar is not None:
            self._bar.close()
        if self._best is None:
            self.problem.give_back()
        else:
            start = self.problem.start
            self._final = self._whole(self._best) if self.iteration > 0 else start
            self._write(self._final)
        self.seconds = time.perf_counter() - self._begun

    def result(self) -> FitResult:
        """The record of a fit that has ended, with a word on what it lacks."""
        problem = self.problem
        history = np.full((self.iteration + 1, problem.num_members), np.nan)
        for iteration, (members, nll) in enumerate(self._history):
            history[iteration, members] = nll
        low = self._on_floor()
        # A word of the first process will do.
        if problem.processes.rank == 0:
            self._warn_rounding()
            self._warn_unconverged()
            self._warn_floor(low)
        return FitResult(
            nll=self._shaped(self._nll),
            objective=self._shaped(self._objective),
            history=torch.from_numpy(history).reshape(-1, *problem.model.batch_shape),
            elapsed=torch.tensor(self._elapsed, dtype=torch.float64, device="cpu"),
            passes_after=torch.from_numpy(np.stack(self._passes)).reshape(
                -1, *problem.model.batch_shape
            ),
            converged=self._shaped(self._converged),
            on_floor=self._shaped(low.any(-1).cpu().numpy()),
            num_iterations=self._shaped(self._ended),
            passes=self._shaped(problem.passes),
            seconds=self.seconds,
            events=problem.events,
            snapshots=self._snapshots,
            errors=list(problem.failures.values()),
        )

    # Shapes and words

    def _whole(self, state: State) -> State:
        """The states of all members, those that have left included."""
        if len(state.means) == self.problem.num_members:
            return state
        members = torch.as_tensor(self.problem.members, device=state.means.device)
        return put(self._final, members, state)

    def _shaped(self, values: Any) -> Any:
        """A number, or a tensor (*batch_shape)."""
        if not self.problem.batched:
            return values[0].item()
        return torch.from_numpy(values.copy()).reshape(self.problem.model.batch_shape)

    def _shown(self, nll: Any) -> Any:
        """The NLL of all members, with the last one of those that have left."""
        whole = self._nll.copy()
        whole[self.problem.members] = nll
        return self._shaped(whole)

    def _restored(self, state: State) -> State:
        """A state of all members in the data's own units and with the model's batch shape."""
        own = self.problem.units.restore(state, self.problem.family)
        shape = self.problem.model.batch_shape
        return each(lambda part: part.reshape(*shape, *part.shape[1:]), own)

    @torch.no_grad()
    def _write(self, state: State) -> None:
        """Set the model to a state; to the start as it was given, without any rounding."""
        model = self.problem.model
        if state is not self.problem.start:
            model._take(self._restored(state))
            return
        for number, given in zip(model._numbers(), self._given, strict=True):
            number.copy_(given)

    @torch.inference_mode(False)
    @torch.no_grad()
    def _snapshot(self, nll: Any, state: State) -> None:
        own = self._restored(self._whole(state))
        covariances = mixture.covariances(self.problem.family, own)
        self._snapshots.append(
            Snapshot(
                self.iteration,
                self._shown(nll),
                own.log_weights.exp().cpu(),
                own.means.to(own.log_weights.dtype, copy=True).cpu(),
                covariances.clone().cpu(),
            )
        )

    def _rounded(self, state: State, nll: Any, rows: Tensor) -> Any:
        """The NLL of the members in some rows as the model's dtype holds their means, where the
        data have more digits; notes by how much of its standard deviation a mean moves."""
        problem, family = self.problem, self.problem.family
        dtype, units = problem.model.means.dtype, problem.units
        if units.center.dtype == dtype or self.iteration < 1:
            return nll
        if len(units.center) > 1:
            members = torch.as_tensor(problem.members, device=rows.device)
            units = take(units, members[rows])
        own = units.restore(state, family)
        kept = own._replace(means=own.means.to(dtype).to(own.means))
        factor = mixture.triangular_factor(family, own)
        moved = (kept.means - own.means).abs() / factor.norm(dim=-1)
        moved = moved.amax((-2, -1)).cpu().numpy()
        self._moved = float(np.fmax.reduce(moved, initial=self._moved))
        if not (moved > ROUNDING).any():
            return nll
        rounded = each(lambda part: part.to(dtype), units.standardize(kept, family))
        statistics = problem.e_step(rounded, rows)
        return np.where(moved > ROUNDING, problem.nll(statistics, rows), nll)

    def _warn_rounding(self) -> None:
        if self._moved <= ROUNDING:
            return
        dtype = self.problem.model.means.dtype
        checks.warn(
            f"rounding to {dtype} moves a mean by {self._moved:.2g} of its "
            "standard deviation; the NLL is that of the rounded parameters. Use a float64 model, "
            "or subtract a constant from x.",
            UserWarning,
        )

    def _warn_unconverged(self) -> None:
        late = ~self._converged & ~self._stopped
        if self.stopping.tolerance == 0 or self.num_iterations == 0 or not late.any():
            return
        several = self.problem.batched
        which = f"{int(late.sum())} of {len(late)} fits have" if several else "the fit has"
        checks.warn(
            f"{which} not converged after {self.num_iterations} iterations: the last step does not "
            f"meet {self.stopping}. Raise num_iterations, fit again from here, or set tolerance=0 "
            "to run just so many.",
            ConvergenceWarning,
        )

    def _on_floor(self) -> Tensor:
        """Which covariances (M, J) end on the floor; one that is held was never raised to it."""
        problem, scales = self.problem, self._final.scales
        if problem.held[2] or self.iteration < 1:
            return problem.family.none(scales)
        return problem.family.clamp(scales, problem.floor * 1.001)[1]

    def _warn_floor(self, low: Tensor) -> None:
        """Say which components end on the floor of a clamp, and what to do."""
        problem, mitigation = self.problem, self.problem.mitigation
        if not isinstance(mitigation, Clamp) or not bool(low.any()):
            return
        least, limit = mitigation.min_scale, resolution(problem.model.means.dtype)
        why = f"min_scale={least:g}"
        if least < limit:
            why = f"{problem.model.means.dtype}, which resolves no less than {limit:.1e}; so "
            why += f"min_scale={least:g} cannot be had without float64"
        which = _named(low, problem.batched, problem.family.shared)
        checks.warn(
            f"{which} on the floor set by {why}: in some direction the "
            "standard deviation is as small as allowed, and the NLL is what the floor makes it. "
            "Use fewer components, remove duplicate points or a constant column, or fit with "
            "Prior(); if so narrow a component is real, lower min_scale.",
            SingularityWarning,
        )


def _named(low: Tensor, batched: bool, shared: bool) -> str:
    if batched:
        return f"{int(low.any(-1).sum())} of {len(low)} fits end with a component"
    if shared:
        return "the fit ends with its shared covariance"
    found = low[0].nonzero().flatten().tolist()
    listed = ", ".join(map(str, found))
    return f"component {listed} ends" if len(found) == 1 else f"components {listed} end"


def _progress_bar(total: int) -> Any:
    # A bar that is right in terminals and in notebooks.
    from tqdm.auto import tqdm

    return tqdm(total=total, unit="it")
