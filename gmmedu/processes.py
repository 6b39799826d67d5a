"""Processes that fit one mixture together, each with a part of the points (chapter 11).

A pass sums over points, so each process sums over its own, and one message adds the sums of all.
The processes are those of a group of torch.distributed; all run the same fit, with the same
arguments but for the points, and all compute the same step from the same sums.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Value = TypeVar("Value")

#: Seconds that processes wait for each other's word after a message was lost.
GRACE = 5.0


class ProcessError(RuntimeError):
    """Another process of the group failed, or no longer answers; ``ranks`` are those, in the
    group. The model keeps the best parameters that it had."""

    def __init__(self, message: str, ranks: Sequence[int]) -> None:
        super().__init__(message)
        self.ranks = list(ranks)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.ranks)


class Alone:
    """This process alone: nothing to send."""

    rank, size = 0, 1

    def share(self, compute: Callable[[], Value]) -> list[Value]:
        """What each process computes, in the order of ranks; where it fails in one, all raise."""
        return [compute()]

    def gather(self, value: Value) -> list[Value]:
        """What each process has, in the order of ranks."""
        return self.share(lambda: value)

    def add(
        self, compute: Callable[[], Sequence[Tensor]], nothing: Callable[[], Sequence[Tensor]]
    ) -> Sequence[Tensor]:
        """The sum of what each process computes; ``nothing`` gives zeros of the same shapes."""
        return compute()

    def same(self, compute: Callable[[], dict[str, Any]]) -> None:
        """Raise ``ValueError`` where processes were given different things."""
        found = self.share(compute)
        for rank, named in enumerate(found):
            for name, value in named.items():
                if value != found[0][name]:
                    raise ValueError(
                        f"{name} must be the same in all processes, got {found[0][name]} on rank 0 "
                        f"and {value} on rank {rank}"
                    )


class Processes(Alone):
    """The processes of a group. Each call is one that all of them make."""

    def __init__(self, group: dist.ProcessGroup, device: torch.device) -> None:
        self.group, self.device = group, device
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self._name = ""
        self._name = self.gather(uuid.uuid4().hex)[0]

    def share(self, compute: Callable[[], Value]) -> list[Value]:
        mine: Any = None
        error = None
        try:
            mine = _moved(compute(), "cpu")
        except Exception as raised:
            error = raised
        said = None if error is None else f"{type(error).__name__}: {error}"
        found: list[Any] = [None] * self.size
        self._call(lambda: dist.all_gather_object(found, (said, mine), group=self.group))
        self._raise(error, [words for words, _ in found])
        return [_moved(value, self.device) for _, value in found]

    def add(
        self, compute: Callable[[], Sequence[Tensor]], nothing: Callable[[], Sequence[Tensor]]
    ) -> Sequence[Tensor]:
        parts, error = nothing(), None
        try:
            parts = compute()
        except Exception as raised:
            error = raised
        # One message of the sums, in float64, and of how many have failed.
        numbers = [part.reshape(-1).double() for part in parts]
        total = torch.cat([*numbers, numbers[0].new_full((1,), error is not None)])
        self._call(lambda: (dist.all_reduce(total, group=self.group), float(total[-1])))
        if float(total[-1]):
            self.share(partial(_reraise, error))
        sums = total[:-1].split([part.numel() for part in parts])
        return [s.reshape(part.shape).to(part.dtype) for s, part in zip(sums, parts, strict=True)]

    def _raise(self, error: Exception | None, said: list[str | None]) -> None:
        """Raise one's own error, or one that says whose there was."""
        if error is not None:
            raise error
        failed = [rank for rank, word in enumerate(said) if word is not None]
        if failed:
            raise ProcessError(f"rank {failed[0]} failed with {said[failed[0]]}", failed)

    def _call(self, collective: Callable[[], Any]) -> None:
        try:
            collective()
        except RuntimeError as error:
            lost = self._lost("imed out" in str(error) or "imeout" in str(error))
            if not lost:
                raise
            names = ", ".join(map(str, lost))
            raise ProcessError(
                f"rank{'s' if len(lost) > 1 else ''} {names} of {self.size} no longer "
                f"answer{'' if len(lost) > 1 else 's'}. Start all processes again; with "
                "checkpoint= the fit goes on from the last one.",
                lost,
            ) from error

    # Whom a message was lost by

    def _lost(self, timed_out: bool) -> list[int]:
        """The ranks that no longer answer. Who finds out first tells the others, since they find
        that those who gave up are gone too."""
        # Of a message between GPUs nobody can say at once that it was lost.
        timed_out = timed_out or self.device.type != "cpu"
        gone = [] if timed_out else self._gone()
        with suppress(RuntimeError):
            store = dist.distributed_c10d._get_default_store()
            key = f"gmmedu/{self._name}"
            if timed_out:
                gone = self._silent(store, key)
            if not gone and not store.check([key]):
                return []
            verdict = store.compare_set(key, "", ",".join(map(str, gone))).decode()
            return [int(rank) for rank in verdict.split(",")]
        return gone

    def _gone(self) -> list[int]:
        """The ranks to which the connection is closed."""
        gone = []
        for rank in set(range(self.size)) - {self.rank}:
            to = dist.get_global_rank(self.group, rank)
            try:
                dist.isend(torch.zeros(1, device="cpu"), to, group=self.group)
            except RuntimeError:
                gone.append(rank)
        return sorted(gone)

    def _silent(self, store: dist.Store, key: str) -> list[int]:
        """The ranks that do not say within the grace that they waited in vain too."""
        keys = [f"{key}/{rank}" for rank in range(self.size)]
        store.set(keys[self.rank], "here")
        end = time.monotonic() + GRACE
        while not store.check(keys) and time.monotonic() < end:
            time.sleep(0.05)
        return [rank for rank, name in enumerate(keys) if not store.check([name])]


def _moved(value: Any, device: torch.device | str) -> Any:
    """A tensor, or those in lists and tuples, on a device."""
    if isinstance(value, list | tuple):
        return type(value)(_moved(part, device) for part in value)
    return value.to(device) if isinstance(value, Tensor) else value


def _reraise(error: Exception | None) -> None:
    if error is not None:
        raise error


def processes_of(group: Any, device: torch.device) -> Alone:
    """The processes of a group, or this one alone where it is None.

    Raises ``TypeError`` for what is no group, and for a group that this process is not in."""
    if group is None:
        return Alone()
    if not dist.is_available() or not isinstance(group, dist.ProcessGroup):
        raise TypeError(
            "group must be None or a group of torch.distributed that this process is in, such as "
            f"torch.distributed.group.WORLD, got {group!r}"
        )
    return Processes(group, device)
