"""What a fit is saved to on its way, so that one that was killed goes on from there (chapter 11).

A checkpoint holds all that the loop has: the record, the state, the sums counted at it, and what
the algorithm and the mitigation remember. So a fit that goes on ends as one that was never
stopped, bit for bit on the same number of processes.
"""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from gmmedu import checks
from gmmedu.problem import Event, Problem
from gmmedu.singularities import SingularityError
from gmmedu.values import Scales, State, Statistics

Kind = TypeVar("Kind", bound=type)

#: Rises when what is saved changes.
FORMAT = 5
_KINDS: dict[str, type] = {}


def savable(kind: Kind) -> Kind:
    """Let a checkpoint hold things of a kind: a named tuple or a data class."""
    _KINDS[kind.__name__] = kind
    return kind


for _kind in (State, Scales, Statistics, Event):
    savable(_kind)


class Savable(Protocol):
    """What has a state of its own: the names of the attributes that are saved."""

    @property
    def kept(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Checkpoint:
    """A file, and after how many iterations it is written."""

    path: Path
    every: int

    @classmethod
    def of(cls, path: Any, every: Any, here: bool) -> Checkpoint | None:
        """None without a path. here: whether this process reads and writes it. Raises
        ``TypeError`` or ``ValueError`` that names the argument."""
        every = checks.check_count(every, "checkpoint_every")
        if path is None:
            return None
        if not isinstance(path, str | os.PathLike):
            raise TypeError(f"checkpoint must be a path or None, got {path!r}")
        path = Path(path)
        if here and (path.is_dir() or not path.parent.is_dir()):
            raise ValueError(
                f"checkpoint must name a file in a directory that exists, got {str(path)!r}"
            )
        return cls(path, every)

    def due(self, iteration: int) -> bool:
        return iteration > 0 and iteration % self.every == 0

    def write(self, problem: Problem, parts: dict[str, Savable], now: Any) -> None:
        """Save the fit, by the first process; the file before stays until this one is whole."""

        def save() -> None:
            if problem.processes.rank == 0:
                saved = {name: _attributes(part) for name, part in parts.items()}
                self._replace({"format": FORMAT, **problem.named, **saved, "now": now})

        problem.processes.share(save)

    def _replace(self, saved: dict[str, Any]) -> None:
        beside = self.path.with_name(f"{self.path.name}.part")
        with beside.open("wb") as file:
            torch.save(_plain(saved), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, self.path)

    def read(self, problem: Problem, parts: dict[str, Savable]) -> Any:
        """Set all to what was saved and return the state and its statistics; None where nothing
        was. Raises ``ValueError`` for the checkpoint of another fit, and for no checkpoint."""
        processes = problem.processes
        data = processes.share(lambda: self._bytes(processes.rank))[0]
        if data is None:
            return None
        device = problem.start.means.device
        saved, wanted = self._loaded(data, device), problem.named
        for name in wanted:
            if not _alike(saved.get(name), wanted[name]):
                self._refuse(name, saved.get(name), wanted[name])
        problem.keep(torch.as_tensor(saved["problem"].pop("members"), device=device))
        self._check_points(problem, *saved["now"])
        for name, part in parts.items():
            for attribute, value in saved[name].items():
                setattr(part, attribute, value)
        return saved["now"]

    def _check_points(self, problem: Problem, state: State, statistics: Statistics) -> None:
        """That the points are those of the checkpoint: one pass over them finds its NLL again."""
        was, now = problem.nll(statistics), problem.nll(problem.e_step(state))
        allowed = torch.finfo(state.means.dtype).eps ** 0.5 * (1 + np.abs(was))
        if not (np.abs(was - now) <= allowed).all():
            self._refuse("the NLL of x at the state that it holds", was, now)

    def _refuse(self, name: str, was: Any, now: Any) -> NoReturn:
        raise ValueError(
            f"checkpoint {str(self.path)!r} is of another fit: {name} was {was}, and is {now}; "
            "remove it, or name another file"
        )

    def _bytes(self, rank: int) -> bytes | None:
        return self.path.read_bytes() if rank == 0 and self.path.exists() else None

    def _loaded(self, data: bytes, device: torch.device) -> dict[str, Any]:
        try:
            plain = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            known = dict(plain[1])["format"] == FORMAT
            saved = _thing(plain, device) if known else {}
        except (
            *(RuntimeError, pickle.UnpicklingError, EOFError),
            *(LookupError, TypeError, ValueError),
        ) as error:
            raise ValueError(
                f"checkpoint {str(self.path)!r} is not one that gmmedu wrote; remove it, or name "
                "another file"
            ) from error
        if not known:
            raise ValueError(
                f"checkpoint {str(self.path)!r} was written by another version of gmmedu; remove it"
            )
        return saved


def _alike(one: Any, other: Any) -> bool:
    if isinstance(other, Tensor):
        same = isinstance(one, Tensor) and one.shape == other.shape and one.dtype == other.dtype
        return same and bool(torch.allclose(one.cpu(), other, rtol=1e-6))
    return bool(one == other)


def _attributes(part: Savable) -> dict[str, Any]:
    return {name: getattr(part, name) for name in part.kept}


def _plain(value: Any) -> Any:
    """A value as lists, tensors and numbers, which alone are safe to load."""
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return ("dict", [(key, _plain(part)) for key, part in value.items()])
    if type(value).__name__ in _KINDS:
        parts = value if isinstance(value, tuple) else _fields(value)
        return (type(value).__name__, [_plain(part) for part in parts])
    for name, (kind, parts_of, _) in _OTHERS.items():
        if isinstance(value, kind):
            return (name, parts_of(value))
    return value


def _thing(plain: Any, device: torch.device) -> Any:
    """The value of which ``_plain`` made this; its tensors on a device, but those of a data class,
    which is a record and stays on the CPU."""
    if isinstance(plain, Tensor):
        return plain.to(device)
    if isinstance(plain, list):
        return [_thing(part, device) for part in plain]
    if not isinstance(plain, tuple):
        return plain
    name, parts = plain
    if name == "dict":
        return {key: _thing(part, device) for key, part in parts}
    if name == "tuple":
        return tuple(_thing(part, device) for part in parts)
    if name in _KINDS:
        kind = _KINDS[name]
        place = device if issubclass(kind, tuple) else torch.device("cpu")
        return kind(*(_thing(part, place) for part in parts))
    return _OTHERS[name][2](parts)


def _fields(value: Any) -> list[Any]:
    assert is_dataclass(value)
    return [getattr(value, field.name) for field in fields(value)]


def _generator(state: Tensor) -> torch.Generator:
    generator = torch.Generator(device="cpu")
    generator.set_state(state.cpu())
    return generator


#: Of what else is saved: its kind, what it is saved as, and how it is made again.
_OTHERS: dict[str, tuple[type, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "array": (np.ndarray, lambda a: torch.from_numpy(a.copy()), lambda t: t.cpu().numpy()),
    "generator": (torch.Generator, lambda g: g.get_state(), _generator),
    "failure": (
        SingularityError,
        lambda e: [str(e), e.component, e.iteration, e.member],
        lambda parts: SingularityError(*parts),
    ),
    "tuple": (tuple, lambda t: [_plain(part) for part in t], tuple),
}
