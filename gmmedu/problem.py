"""What is to be fitted: points in their units, a family, a floor; one pass over them; mitigation.

A batch of fits is one problem with members; one fit is a problem with one member. Everything has
one leading dimension here, M members.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gmmedu import checks
from gmmedu.covariance import ConjugatePrior, Floor
from gmmedu.models import GaussianMixture
from gmmedu.passes import Workspace, sums
from gmmedu.processes import Alone
from gmmedu.singularities import Mitigation, SingularityError, resolution
from gmmedu.units import Units, moments, weighty
from gmmedu.values import Points, Scales, State, Statistics, absent, each, put, take

Around = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Event:
    """Something a mitigation did: at which iteration, to which component (None: to the covariance
    that all share), what ("clamped", "reset", or a word of a mitigation of one's own), and in
    which fit of a batch (None: the only)."""

    iteration: int
    component: int | None
    action: str
    member: int | None = None


def within(around: Around, items: Iterable[Any]) -> Iterator[Any]:
    """The items, each made inside ``around()``, and what is done with them outside."""
    end = object()
    with around():
        coming = iter(items)
    while True:
        with around():
            item = next(coming, end)
        if item is end:
            return
        yield item


class Stream:
    """Points that come in batches, as often as they are asked for.

    batches: a re-iterable, a DataLoader say, of tensors (B, D), or of pairs of those and weights
    (B,). Each pass reads it once; no more than a batch is held.
    """

    def __init__(self, batches: Iterable[Any], model: GaussianMixture, missing: bool) -> None:
        if isinstance(batches, Iterator):
            raise TypeError(
                f"x must be a tensor, or batches that can be read again and again, got a "
                f"{type(batches).__name__}; use a list of them, or a DataLoader"
            )
        self.batches, self.missing = batches, missing
        self.like, self.num_dims = model.means, model.num_dims
        self.num_points: int | None = None
        #: In what each batch is made, during a fit whose modes are not those of the caller.
        self.around: Around = nullcontext

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        count = 0
        for batch in within(self.around, self.batches):
            x, weights = self._checked(batch)
            count += len(x)
            x, weights = weighty(x, weights)
            if len(x):
                x = x.detach().to(torch.promote_types(x.dtype, self.like.dtype))
                yield x, weights
        if self.num_points not in (None, count):
            raise ValueError(
                f"x must give as many points each time that it is read, and gave {count} after "
                f"{self.num_points}; use a list of batches, or a DataLoader of data that can be "
                "read again and again"
            )
        self.num_points = count

    def _checked(self, batch: Any) -> tuple[Tensor, Tensor | None]:
        """Points and weights of a batch, if they are what a stream may give."""
        pair = batch if isinstance(batch, list | tuple) else (batch,)
        if not 1 <= len(pair) <= 2:
            raise ValueError(
                f"x must give tensors (B, {self.num_dims}), or pairs of those and weights "
                f"(B,), got {len(pair)} things at once"
            )
        if not isinstance(pair[0], Tensor):
            kinds = f"{type(self.batches).__name__} of {type(pair[0]).__name__}"
            raise TypeError(
                f"x must be a torch.Tensor of shape (N, {self.num_dims}), or batches that "
                f"are, got a {kinds}; convert it with torch.as_tensor(x)"
            )
        x = pair[0].to(self.like.device)
        checks.check_points(
            x,
            self.num_dims,
            minimum=0,
            missing=self.missing,
            complete=("row",),
            name="a batch of x",
        )
        if len(pair) == 1:
            return x, None
        weights = pair[1].to(x.device) if isinstance(pair[1], Tensor) else pair[1]
        name = "the weights of a batch"
        return x, checks.check_weights(weights, (len(x),), x.device, name, empty=True)


@dataclass(frozen=True)
class StreamedPoints:
    """A stream in units: what a pass asks of points."""

    stream: Stream
    units: Units
    dtype: torch.dtype
    weight_unit: float

    def pieces(self) -> Iterator[Points]:
        for x, weights in self.stream:
            columns = self.units.columns(x, self.dtype)
            if weights is None and self.weight_unit != 1:
                weights = torch.ones_like(columns[0, 0])
            if weights is not None:
                weights = (weights * self.weight_unit).to(columns).unsqueeze(0)
            yield Points.from_columns(columns, weights)

    @cached_property
    def total(self) -> Tensor:
        """The sum of the weights, by one more look at the stream, float64, (1,)."""
        zero = torch.zeros(1, dtype=torch.float64, device=self.units.center.device)
        return sum((piece.total for piece in self.pieces()), start=zero)

    def take(self, members: Tensor) -> StreamedPoints:
        return self

    def draw(self, uniform: Tensor) -> Tensor:
        """As ``Points.draw``, by one more look at the stream."""
        wanted, drawn, below = uniform.to(self.units.center.device) * self.total, [], 0.0
        order = wanted.argsort()
        for piece in self.pieces():
            share = (
                torch.ones_like(piece.columns[0, 0])
                if piece.weights is None
                else (piece.weights[0])
            )
            cumulative = below + share.cumsum(0, dtype=torch.float64)
            mine = wanted[order][(wanted[order] >= below) & (wanted[order] < cumulative[-1])]
            index = torch.searchsorted(cumulative, mine, right=True)
            drawn.append(piece.columns[0, :-1, index].mT)
            below = float(cumulative[-1])
        return torch.cat(drawn)[order.argsort()]


@dataclass(frozen=True)
class Shared:
    """Points of which each process has a part, to draw from."""

    points: Points | StreamedPoints
    processes: Alone

    def draw(self, uniform: Tensor) -> Tensor:
        """As ``Points.draw``, from the points of all processes in the order of their ranks."""
        if self.processes.size == 1:
            return self.points.draw(uniform)
        totals = torch.tensor(
            self.processes.gather(float(self.points.total[0])), dtype=torch.float64, device="cpu"
        )
        before = totals.cumsum(0) - totals
        place = uniform.double() * totals.sum()
        owner = (place.unsqueeze(-1) >= before.where(totals > 0, torch.inf)).sum(-1) - 1
        owner = (totals > 0).nonzero().flatten()[owner]
        rank = self.processes.rank
        mine = (owner == rank).nonzero().flatten()
        share = ((place[mine] - before[rank]) / totals[rank]).clamp_max(1 - 1e-16)
        drawn = self.points.draw(share) if len(mine) else None
        parts = [p for p in self.processes.gather((mine, drawn)) if p[1] is not None]
        order = torch.cat([index for index, _ in parts]).argsort()
        return torch.cat([points for _, points in parts if points is not None])[order]


class Problem:
    """Checked at the door: raises ``TypeError`` or ``ValueError`` that names the argument."""

    kept = ("members", "passes", "_resets", "events", "_clamped", "failures", "_generators")

    def __init__(
        self,
        model: GaussianMixture,
        x: Tensor | Iterable[Any],
        *,
        mitigation: Mitigation | None,
        sample_weight: Tensor | None = None,
        missing: bool = False,
        generator: torch.Generator | None = None,
        processes: Alone | None = None,
    ) -> None:
        self.processes = Alone() if processes is None else processes
        self.model, self.family, self.mitigation = model, model.family, mitigation
        self.num_members = max(1, int(np.prod(model.batch_shape)))
        self.held = [not number.requires_grad for number in model._numbers()]
        self.workspace = Workspace()
        self.offset: Any = None
        self.named: dict[str, Any] = {}
        given: Tensor | Stream
        weights: Tensor | None

        def door() -> dict[str, Any]:
            nonlocal given, weights
            given, weights = self._checked(x, sample_weight, missing, generator)
            self.named = self._name(given, weights, missing)
            return self.named

        self.processes.same(door)
        unit = self._stream(given) if isinstance(given, Stream) else self._lay_out(given, weights)
        self._start_alike()
        self._set_floor(unit)
        state, size = model.state(), len(model.batch_shape)
        flat = each(lambda p: p.detach().clone().reshape(-1, *p.shape[size:]), state)
        self.start = self.units.standardize(flat, self.family)
        self.some_absent = bool((self.start.log_weights == absent(state.means.dtype)).any())
        self._name_numbers()
        self._begin(generator)

    def _begin(self, generator: torch.Generator | None) -> None:
        """What changes during the fit, before it."""
        self.members = np.arange(self.num_members)
        self.passes, self._resets = np.zeros((2, self.num_members), dtype=int)
        self.events: list[Event] = []
        # What was clamped after the last step: it is told once.
        self._clamped = self.family.none(self.start.scales).cpu().numpy().copy()
        self.failures: dict[int, SingularityError] = {}
        self._generators: list[torch.Generator] = []
        if self.mitigation is not None and self.mitigation.moves:
            seeds = self.processes.gather(_seeds(generator, self.num_members))[0]
            self._generators = [torch.Generator(device="cpu").manual_seed(s) for s in seeds]

    # At the door

    def _checked(
        self, x: Any, sample_weight: Any, missing: bool, generator: Any
    ) -> tuple[Tensor | Stream, Tensor | None]:
        """Points and weights, if they are what this process may be given."""
        model, mitigation = self.model, self.mitigation
        if mitigation is not None and not isinstance(mitigation, Mitigation):
            raise TypeError(
                f"mitigation must be None, Clamp(...), Reset(...) or Prior(...), got {mitigation!r}"
            )
        checks.check_flag(missing, "missing")
        checks.check_generator(generator)
        if _is_stream(x):
            if sample_weight is not None:
                raise ValueError(
                    "sample_weight must be None where x is a stream; let it give pairs of points "
                    "and weights"
                )
            return Stream(x, model, missing), None
        x = check_part(model, x, missing, self.processes)
        if sample_weight is not None:
            sample_weight = self._checked_weights(x, sample_weight)
        return x, sample_weight

    def _checked_weights(self, x: Tensor, sample_weight: Tensor) -> Tensor:
        """Weights (N,), or (..., N) that broadcast with the model's batch."""
        shape: tuple[int, ...] = (x.shape[-2],)
        if self.model.batch_shape and getattr(sample_weight, "ndim", 1) > 1:
            lead = checks.broadcast_to(self.model.batch_shape, sample_weight.shape[:-1])
            shape = (*lead, *shape)
        device, empty = self.model.means.device, self.processes.size > 1
        return checks.check_weights(sample_weight, shape, device, "sample_weight", empty=empty)

    def _name(
        self, x: Tensor | Stream, sample_weight: Tensor | None, missing: bool
    ) -> dict[str, Any]:
        """What tells this problem from others, the points apart."""
        tensor = isinstance(x, Tensor)
        weighted = None if sample_weight is None else list(sample_weight.shape[:-1])
        return {
            "the model": repr(self.model),
            "its dtype": str(self.model.means.dtype),
            "what is held fixed": self.held,
            "mitigation": repr(self.mitigation),
            "missing": missing,
            "the kind of x": "a tensor" if tensor else "a stream",
            "the batch of x": list(x.shape[:-2]) if isinstance(x, Tensor) else None,
            "the batch of sample_weight": weighted,
        }

    def _name_numbers(self) -> None:
        """Add to what tells this problem from others what its points are, and what is held, in
        units."""
        total = torch.from_numpy(self.total.copy())
        center = (self.units.center / self.units.scale).cpu()
        self.named |= {"the weight of x": total, "the center of x, in standard deviations,": center}
        names = ("logits", "means", "scales")
        numbers = (*self.start[:2], self.start.scales.factor)
        for name, number, held in zip(names, numbers, self.held, strict=True):
            if held:
                self.named[f"the {name}, held fixed,"] = number.cpu().clone()

    def _start_alike(self) -> None:
        """Set the model to what it is in the first process."""
        self._before: list[Tensor] = []
        if self.processes.size > 1:
            numbers = [number.detach() for number in self.model._numbers()]
            self._before = [number.clone() for number in numbers]
            for number, first in zip(numbers, self.processes.gather(numbers)[0], strict=True):
                number.copy_(first)

    def give_back(self) -> None:
        """Leave the model as it was found: what was asked for is refused."""
        for number, before in zip(self.model._numbers(), self._before, strict=False):
            number.detach().copy_(before)

    def read_within(self, around: Around) -> None:
        """From now on each batch of a stream is made inside ``around()``."""
        if isinstance(self.points, StreamedPoints):
            self.points.stream.around = around

    def _enough(self, num_points: int) -> None:
        if num_points < self.model.num_components:
            raise ValueError(
                f"x has {num_points} points and at least {self.model.num_components} are needed "
                "(one for each component); those of weight 0 do not count"
            )

    def _stream(self, stream: Stream) -> float:
        """Set units, points and the offset of their NLL; returns by what weights are multiplied."""
        found = moments(stream, self.processes)
        self._enough(found.num_points)
        self.units = Units.of([found], self.family.per_dimension)
        # So that a point weighs 1 on average, whatever the size of the weights.
        self.num_points = found.num_points
        unit = found.num_points / float(found.total)
        self.total = (found.total.double().reshape(1) * unit).cpu().numpy()
        dtype = self.model.means.dtype
        self.points: Points | StreamedPoints = StreamedPoints(stream, self.units, dtype, unit)
        self._set_offset([found])
        return unit

    def _lay_out(self, x: Tensor, sample_weight: Tensor | None) -> float:
        """``_stream`` for a tensor."""
        model = self.model
        x, weights, unit, members = self._weighted(x, sample_weight)
        x = x.detach().to(torch.promote_types(x.dtype, model.means.dtype))
        of_each = [None] * len(x) if weights is None else list(weights)
        found = [moments([pair], self.processes) for pair in zip(x, of_each, strict=True)]
        self._enough(min(one.num_points for one in found))
        self.units = Units.of(found, self.family.per_dimension)
        columns = self.units.columns(x, model.means.dtype)
        if weights is not None:
            weights = weights.to(columns)
            # A point that weighs nothing is nowhere.
            columns[:, :-1].masked_fill_((weights == 0).unsqueeze(1), 0.0)
        self._set_offset(found)
        if members is not None:
            self.units, columns = take(self.units, members), columns[members]
            weights = None if weights is None else weights[members]
            self.offset = self.offset[members.cpu().numpy()]
        self.points = Points.from_columns(columns, weights)
        self.num_points = self.points.num_points
        totals = torch.stack(self.processes.gather(self.points.total))
        self.total = totals.sum(0).cpu().numpy()
        return unit

    def _weighted(
        self, x: Tensor, sample_weight: Tensor | None
    ) -> tuple[Tensor, Tensor | None, float, Tensor | None]:
        """The sets that differ: x (P, N, D) and weights (P, N), in float64, the largest 1, or
        None; by what the weights were multiplied; and which set each member looks at, (M,), or
        None where they all look at the first, or the n-th at the n-th."""
        unit, weights = 1.0, None
        lead = x.shape[:-2]
        if sample_weight is not None:
            weights = sample_weight
            used = (weights > 0).flatten(0, -2).any(0) if weights.ndim > 1 else weights > 0
            if not bool(used.all()):
                x, weights = x[..., used, :], weights[..., used]
            lead = torch.Size(np.broadcast_shapes(lead, weights.shape[:-1]))
            largest = float(weights.max()) if weights.numel() else 0.0
            unit = 1 / max([*self.processes.gather(largest), torch.finfo(torch.float64).tiny])
            weights = (weights * unit).expand(*lead, -1).reshape(math.prod(lead), -1)
        x = x.expand(*lead, -1, -1).reshape(math.prod(lead), *x.shape[-2:])
        if len(x) in (1, self.num_members):
            return x, weights, unit, None
        members = torch.arange(len(x), device=x.device).reshape(lead)
        return x, weights, unit, members.expand(self.model.batch_shape).flatten()

    def _set_offset(self, sets: list[Any]) -> None:
        """By how much a mean log density in these units is too high: (P,), float64."""
        for one in sets:
            unseen = (one.observed == 0).nonzero().flatten().tolist()
            if unseen:
                raise ValueError(f"x has no observed value in column {unseen[0]}; drop it first")
        shares = torch.stack([s.observed.double() / s.total for s in sets])
        offset = (shares * self.units.scale.double().log()).sum(-1)
        self.offset = offset.cpu().numpy()

    def _set_floor(self, weight_unit: float) -> None:
        dtype, mitigation = self.model.means.dtype, self.mitigation
        least = resolution(dtype) if mitigation is None else mitigation.floor(dtype)
        floors = (least * self.units.clump.double()).clamp_min(10 * torch.finfo(dtype).eps)
        same = bool((floors == floors[0]).all())
        self.floor: Floor = float(floors[0]) if same else floors.to(dtype).unsqueeze(-1)
        shape = (self.model.num_components, self.model.num_dims)
        prior = None if mitigation is None else mitigation.prior(*shape)
        if prior is not None:
            prior = ConjugatePrior(prior.points * weight_unit, prior.scatter * weight_unit)
        self.prior = prior

    # During the fit

    @property
    def small(self) -> bool:
        """Whether a pass is over before it is worth dividing among threads."""
        rows = self.num_members * self.model.num_components * self.model.num_dims
        return self.num_points * rows <= 2**20

    @property
    def batched(self) -> bool:
        return bool(self.model.batch_shape)

    def e_step(self, state: State, rows: Tensor | None = None) -> Statistics:
        """One pass over the points, for all members or for those in some rows."""
        if rows is None or len(rows) == len(self.members):
            self.passes[self.members] += 1
            return sums(self.points, self.family, state, self.workspace, self.processes)
        self.passes[self._left(rows)] += 1
        return sums(self.points.take(rows), self.family, state, Workspace(), self.processes)

    def nll(self, statistics: Statistics, rows: Tensor | None = None) -> Any:
        """Mean NLL in the data's own units, in nats, of each member or of those in some rows:
        float64, (M,)."""
        log_likelihood = statistics.log_likelihood.cpu().numpy()
        return self.of(self.offset, rows) - log_likelihood / self.of(self.total, rows)

    def penalty(self, state: State, rows: Tensor | None = None) -> Any:
        """What the objective of a fit has more than the NLL: less the log prior per point."""
        if self.prior is None:
            return 0.0
        num_dims = state.means.shape[-1]
        log_prior = self.family.log_prior(state.scales, num_dims, self.prior)
        return -log_prior.double().cpu().numpy() / self.of(self.total, rows)

    def of(self, values: Any, rows: Tensor | None = None) -> Any:
        """Of what each member has, or all share, that of the members in some rows, or of all that
        are left."""
        if isinstance(values, float) or len(values) == 1:
            return values
        return values[self._left(rows)]

    def _left(self, rows: Tensor | None) -> Any:
        """The members in some rows, or all that are left."""
        return self.members if rows is None else self.members[rows.cpu().numpy()]

    def clamp(
        self, scales: Scales, share: float = 1.0, rows: Tensor | None = None
    ) -> tuple[Scales, Tensor]:
        """Scales with no standard deviation below a share of the floor, and which (M, J) were;
        those that are held are what they are."""
        if self.held[2]:
            return scales, self.family.none(scales)
        return self.family.clamp(scales, self.of(self.floor, rows) * share)

    def mitigate(
        self,
        before: State,
        state: State,
        singular: Tensor,
        iteration: int,
        rows: Tensor | None = None,
    ) -> State:
        """The state after a step, once the mitigation has dealt with ``singular``, (M, J).

        before: the state to go back to; rows: of which members these are, if not of all."""
        members = self._left(rows)
        low = singular.cpu().numpy()
        if not low.any():
            if self._clamped.any():
                self._clamped[members] = False
            return state
        fell = np.flatnonzero(low.any(1))
        if self.mitigation is None:
            for row in fell:
                self._fail(int(members[row]), self._name_of(low, low[row].argmax()), iteration)
            index = torch.as_tensor(fell, device=singular.device)
            return put(state, index, take(before, index))
        if self._generators and not any(self.held):
            low = low.copy()
            for row in fell:
                state = self._move(state, singular, low, int(row), iteration, rows)
        self._tell(low & ~self._clamped[members], "clamped", members, iteration)
        self._clamped[members] = low
        return state

    def _move(
        self,
        state: State,
        singular: Tensor,
        low: Any,
        row: int,
        iteration: int,
        rows: Tensor | None,
    ) -> State:
        """The state with one row as the mitigation leaves it; what it moved is no longer low."""
        place = row if rows is None else int(rows[row])
        member, index = int(self.members[place]), torch.tensor([row], device=singular.device)
        assert self.mitigation is not None
        one, action = self.mitigation.mitigate(
            take(state, index),
            singular[row],
            self._points_of(place),
            self.family,
            self._generators[member],
            int(self._resets[member]),
        )
        if action != "clamped":
            self._resets[member] += low[row].sum()
            self._tell(low[row : row + 1], action, self.members[place : place + 1], iteration)
            low[row] = False
        return put(state, index, one)

    def _tell(self, which: Any, action: str, members: Any, iteration: int) -> None:
        """Note what was done to some covariances (M, J) of the members."""
        for row, covariance in np.argwhere(which):
            component = self._name_of(which, covariance)
            member = int(members[row]) if self.batched else None
            self.events.append(Event(iteration, component, action, member))

    def _name_of(self, low: Any, covariance: Any) -> int | None:
        """The component that has a covariance; None where all share it."""
        return int(covariance) if low.shape[1] == self.model.num_components else None

    def _points_of(self, row: int) -> Shared:
        """What the member in a row looks at."""
        points = self.points
        if len(self.units.center) > 1:
            points = points.take(torch.tensor([row], device=self.start.means.device))
        return Shared(points, self.processes)

    def _fail(self, member: int, component: int | None, iteration: int) -> None:
        subject = "the shared covariance" if component is None else f"component {component}"
        least = float(self.floor) if isinstance(self.floor, float) else float(self.floor.min())
        self.failures[member] = SingularityError(
            f"{subject} became singular at iteration {iteration}: its standard deviation in "
            f"some direction fell below {least:.1e} times that of the data. The model "
            "keeps the best parameters that it had. Fit with mitigation=Clamp(), "
            "Reset() or Prior(), use fewer components, or remove duplicate points.",
            component,
            iteration,
            member if self.batched else None,
        )

    def fail_range(self, state: State, row: int, iteration: int) -> None:
        """Note that a member has left the range of its numbers."""
        member = int(self.members[row])
        numbers = torch.cat([state.log_weights[row].unsqueeze(-1), state.means[row]], -1)
        bad = (~torch.isfinite(numbers)).any(-1).nonzero().flatten().tolist()
        which = f"component {bad[0]}" if bad else "the mixture as a whole"
        self.failures[member] = SingularityError(
            f"the NLL is no longer finite at iteration {iteration}; {which} left the range of "
            f"{state.means.dtype}. The model keeps the best parameters that it had. Start "
            "from gmmedu.initialize(model, x), lower the learning rates, or use float64.",
            bad[0] if bad else None,
            iteration,
            member if self.batched else None,
        )

    def keep(self, rows: Tensor) -> None:
        """Go on with these members alone."""
        self.members = self.members[rows.cpu().numpy()]
        if len(self.units.center) > 1:
            self.points, self.workspace = self.points.take(rows), Workspace()


def check_part(model: GaussianMixture, x: Any, missing: bool, processes: Alone) -> Tensor:
    """x, if it may be what a process has of the points: all of them, where it is alone."""
    alone = processes.size == 1
    return checks.check_points(
        x,
        model.num_dims,
        batch_shape=model.batch_shape,
        device=model.means.device,
        minimum=model.num_components if alone else 0,
        missing=missing,
        complete=("row", "column") if alone else ("row",),
    )


def _is_stream(x: Any) -> bool:
    """Whether x gives batches; arrays and frames are refused where tensors are checked."""
    array = isinstance(x, Tensor | np.ndarray | str) or hasattr(x, "to_numpy")
    return isinstance(x, Iterable) and not array


def _seeds(generator: torch.Generator | None, num_members: int) -> list[int]:
    """A seed for each member, so that a batch draws what its members would one by one."""
    return torch.randint(2**62, (num_members,), generator=generator, device="cpu").tolist()
