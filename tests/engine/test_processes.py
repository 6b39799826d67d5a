"""Processes that each have a part of the points fit what one process with all of them fits."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import groups
import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DistributedSampler, TensorDataset

import gmmedu
from gmmedu.models import GaussianMixture

FAMILIES = list(gmmedu.MODELS)
FITTERS: dict[str, Callable[..., gmmedu.FitResult]] = {
    "em": lambda model, x, **o: gmmedu.fit_em(model, x, 6, 0.0, **o),
    "squarem": lambda model, x, **o: gmmedu.fit_em(model, x, 6, 0.0, accelerate="squarem", **o),
    "adam": lambda model, x, **o: gmmedu.fit_model(model, x, 6, 0.05, 0.05, **o),
    "lbfgs": lambda model, x, **o: gmmedu.fit_lbfgs(model, x, 4, 0.0, **o),
}
#: Each family and fitter is run on two kinds of points, EM on one more.
KINDS = ("missing weights", "weighted stream", "plain")
CASES = [
    case for case in product(FAMILIES, FITTERS, KINDS) if case[1] == "em" or case[2] != "plain"
]
#: Of 60 points, how many each process has: all, two unequal parts, four of which one is empty.
SHARDS = {1: [60], 2: [13, 47], 4: [20, 0, 33, 7]}
quiet = pytest.mark.filterwarnings(
    "ignore::gmmedu.ConvergenceWarning", "ignore::gmmedu.SingularityWarning"
)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _points(num_dims: int = 3) -> Tensor:
    x = torch.randn(60, num_dims, generator=_generator(), dtype=torch.float64)
    x[:20] = 0.4 * x[:20] + 4
    return x[torch.randperm(60, generator=_generator())]


def _shard(part: Tensor, rank: int, size: int) -> Tensor:
    return part.split(SHARDS[size], -2 if part.ndim > 1 else 0)[rank]


def _group(size: int) -> Any:
    return dist.group.WORLD if size > 1 else None


def _numbers(model: GaussianMixture) -> list[Tensor]:
    return [part.detach().clone() for part in (model.weights, model.means, model.covariances)]


def _data(kind: str, rank: int, size: int) -> tuple[Any, dict[str, Any]]:
    """A process's part of the points, and the options that go with it."""
    x = _points()
    if "missing" in kind:
        hidden = torch.rand(x.shape, generator=_generator(3)) < 0.2
        hidden[:, 0] &= ~hidden[:, 1]
        x = x.masked_fill(hidden, torch.nan)
    weights = torch.rand(60, generator=_generator(1), dtype=torch.float64)
    weights = weights * (weights > 0.2)
    x, weights = (_shard(part, rank, size) for part in (x, weights))
    options: dict[str, Any] = {"missing": "missing" in kind, "group": _group(size)}
    if "stream" in kind:
        pairs = zip(x.split(5), weights.split(5), strict=True)
        return list(pairs) if "weight" in kind else list(x.split(5)), options
    if "weight" in kind:
        options["sample_weight"] = weights
    return x, options


def _started(family: str, rank: int = 0, batch_shape: tuple[int, ...] = ()) -> GaussianMixture:
    """A model as the first process has it; the others have another."""
    model = gmmedu.MODELS[family](3, 3, batch_shape=batch_shape, dtype=torch.float64)
    return gmmedu.initialize(model, _points(), "points", generator=_generator(rank))


def _fits(rank: int, size: int) -> dict[Any, Any]:
    """Each family, fitter and kind of points: the numbers, the NLL and the passes."""
    found = {}
    for family, fitter, kind in CASES:
        x, options = _data(kind, rank, size)
        model = _started(family, rank)
        fit = FITTERS[fitter](model, x, **options)
        found[family, fitter, kind] = (_numbers(model), fit.history, fit.passes, fit.events)
    return found


def _all(rank: int, size: int) -> dict[str, Any]:
    return {one.__name__: one(rank, size) for one in (_fits, _others, _padded)}


@cache
def _found(size: int) -> list[dict[str, Any]]:
    """What each of so many processes finds."""
    if size == 1:
        with warnings.catch_warnings():  # as in the others, whichever test asks first
            warnings.simplefilter("ignore")
            return [_all(0, 1)]
    found = groups.run(_all, size)
    for one in found:
        if isinstance(one, Exception):
            raise one
    return found


def _both(function: Callable[..., Any], size: int) -> tuple[Any, list[Any]]:
    """What a process finds alone, and what each of several finds."""
    name = function.__name__
    return _found(1)[0][name], [one[name] for one in _found(size)]


@pytest.mark.slow
@quiet
@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_processes_fit_what_one_fits(case: tuple[str, str, str], size: int) -> None:
    alone, together = _both(_fits, size)
    for one in together:
        for old, new in zip(alone[case][0], one[case][0], strict=True):
            torch.testing.assert_close(new, old, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(one[case][1], alone[case][1], rtol=0, atol=1e-10)
        assert one[case][2:] == alone[case][2:]
    # All have the same, bit for bit.
    for one in together[1:]:
        assert all(map(torch.equal, one[case][0], together[0][case][0]))


def _others(rank: int, size: int) -> dict[str, Any]:
    """What else a fit may be: a batch, own points and weights, resets, starts, a stop."""
    x, group = _points(), _group(size)
    found: dict[str, Any] = {}
    model: GaussianMixture
    mine = _shard(x, rank, size)
    for method, batch_shape in product(("box", "points", "kmeans++", "kmeans"), [(), (3,)]):
        model = gmmedu.GmmFull(4, 3, batch_shape=batch_shape, dtype=torch.float64)
        gmmedu.initialize(model, mine, method, generator=_generator(rank), group=group)
        found[f"{method} {batch_shape}"] = _numbers(model)
    many = _started("full", rank, (2,))
    own = torch.stack([x, 2 * x + 1])
    gmmedu.fit_em(many, _shard(own, rank, size), 6, 0.0, group=group)
    found["own points"] = _numbers(many)
    rows = torch.rand(2, 60, generator=_generator(5), dtype=torch.float64)
    weights = rows.split(SHARDS[size], -1)[rank]
    gmmedu.fit_em(many, mine, 6, 0.0, sample_weight=weights, group=group)
    found["own weights"] = _numbers(many)
    for kind in ("tensor", "stream"):
        model, mitigation = _started("diagonal", rank), gmmedu.Reset(0.6, 3)
        data = mine if kind == "tensor" else list(mine.split(7))
        draw = _generator(rank)
        fit = gmmedu.fit_em(
            model, data, 12, 0.0, mitigation=mitigation, generator=draw, group=group
        )
        found[f"reset {kind}"] = _numbers(model)
        found[f"events {kind}"] = [torch.tensor([e.iteration for e in fit.events])]
    model = gmmedu.GmmTied(3, 3, dtype=torch.float64)
    fit = gmmedu.fit_best(model, mine, 5, generator=_generator(rank), group=group)
    assert fit.starts is not None
    found["best"] = [*_numbers(model), fit.starts]

    def stop(_: Any, iteration: int, nll: float) -> bool:
        return iteration == 2

    fit = gmmedu.fit_em(
        _started("full"), mine, 9, 0.0, callback=stop if rank == size - 1 else None, group=group
    )
    found["stopped"] = [torch.tensor(fit.num_iterations)]
    single = gmmedu.initialize(
        gmmedu.GmmFull(3, 3), mine.float(), generator=_generator(rank), group=group
    )
    gmmedu.fit_em(single, mine.float(), 6, 0.0, group=group)
    found["float32"] = [part.double() for part in _numbers(single)]
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::gmmedu.SingularityWarning", "ignore::gmmedu.ConvergenceWarning"
)
@pytest.mark.parametrize("size", [2, 4])
def test_starts_batches_resets_and_stops(size: int) -> None:
    alone, together = _both(_others, size)
    assert int(alone["stopped"][0]) == 2
    assert all(len(alone[f"events {kind}"][0]) for kind in ("tensor", "stream"))
    for name, numbers in alone.items():
        within = 1e-4 if name == "float32" else 1e-10
        for one in together:
            for old, new in zip(numbers, one[name], strict=True):
                torch.testing.assert_close(new, old, rtol=within, atol=within, msg=name)


def _padded(rank: int, size: int) -> list[Tensor]:
    """As torch's sampler divides 59 points: it repeats points, which weigh nothing here."""
    x = _points()[:59]
    if size == 1:
        model = _started("full")
        gmmedu.fit_em(model, x, 6, 0.0)
        return _numbers(model)
    sampler: Any = DistributedSampler(TensorDataset(x), size, rank, shuffle=False)
    index = torch.tensor(list(sampler))
    place = torch.arange(len(index)) * size + rank
    model = _started("full")
    weights = (place < 59).double()
    gmmedu.fit_em(model, x[index], 6, 0.0, sample_weight=weights, group=_group(size))
    return _numbers(model)


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_the_padding_of_a_sampler_weighs_nothing(size: int) -> None:
    alone, together = _both(_padded, size)
    for one in together:
        for old, new in zip(alone, one, strict=True):
            torch.testing.assert_close(new, old, rtol=1e-10, atol=1e-10)


# What goes wrong


class Broken:
    """A stream whose disk is gone at the third pass."""

    def __init__(self, x: Tensor) -> None:
        self.x, self.reads = x, 0

    def __iter__(self) -> Iterator[Tensor]:
        self.reads += 1
        if self.reads == 4:
            raise OSError("the disk is gone")
        yield self.x


def _lost(rank: int, size: int, hows: tuple[str, ...]) -> list[Any]:
    """How fits end in which the second process does not take part to the end."""
    return [_ended(rank, size, how) for how in hows]


def _ended(rank: int, size: int, how: str) -> tuple[str, str, Any, bool]:
    def callback(_: Any, iteration: int, __: float) -> None:
        if rank == 1 and iteration == 3:
            if how == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "hangs":
                # Until the others have waited, and asked each other.
                time.sleep(13)
            if how == "raises":
                raise KeyError("a typing error")

    x = _shard(_points(), rank, size)
    model, known = _started("full"), _started("full")
    data = Broken(x) if how == "reads" and rank == 1 else [x]
    try:
        gmmedu.fit_em(model, data, 50, 0.0, callback=callback, group=_group(size))
    except Exception as error:
        gmmedu.fit_em(known, _points(), 1 if how == "reads" else 3, 0.0)
        same = all(map(torch.allclose, _numbers(model), _numbers(known)))
        return type(error).__name__, str(error), getattr(error, "ranks", None), same
    raise AssertionError("the fit ended as if nothing had happened")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hows", "timeout"), [(("raises", "reads", "dies"), 20.0), (("hangs",), 6.0)]
)
def test_a_process_that_is_lost_is_named(hows: tuple[str, ...], timeout: float) -> None:
    words = {
        "raises": "rank 1 failed with KeyError",
        "reads": "rank 1 failed with OSError: the disk is gone",
        "dies": "rank 1 of 4 no longer answers",
        "hangs": "rank 1 of 4 no longer answers",
    }
    found = groups.run(_lost, 4, hows, timeout=timeout)
    for rank, (place, how) in product((0, 2, 3), enumerate(hows)):
        kind, message, ranks, same = found[rank][place]
        assert kind == "ProcessError" and ranks == [1] and same, found[rank]
        assert words[how] in message


#: What the last of two processes does wrong: what it is told, and what the other one is.
WRONG = {
    "NaN": ("ValueError: x must be finite", "ProcessError: rank 1 failed with ValueError: x must"),
    "dims": ("ValueError: x must have shape", "ProcessError: rank 1 failed with ValueError: x"),
    "model": 2 * ("ValueError: the model must be the same in all processes",),
    "mitigation": 2 * ("ValueError: mitigation must be the same in all processes",),
    "weights": 2 * ("ValueError: the batch of sample_weight must be the same",),
    "iterations": 2 * ("ValueError: num_iterations must be the same",),
    "rate": 2 * ("ValueError: the algorithm must be the same",),
    "few": 2 * ("ValueError: x has 2 points and at least 3",),
    "checkpoint": 2 * ("ValueError: whether there is a checkpoint must be the same",),
    "every": 2 * ("ValueError: checkpoint_every must be the same",),
    "starts": 2 * ("ValueError: num_starts must be the same",),
    "saved": 2 * ("ValueError: checkpoint ",),
}


def _refusals(rank: int, size: int) -> dict[str, str]:
    return {name: _refused(rank, size, name) for name in WRONG}


def _refused(rank: int, size: int, name: str) -> str:
    x, model = _shard(_points(), rank, size), _started("full")
    options: dict[str, Any] = {"group": _group(size)}
    fitter: Callable[..., Any] = gmmedu.fit_em
    if name == "few":
        x = x[:1]
    if name == "starts":
        fitter = partial(gmmedu.fit_best, num_starts=3 + rank)
    if name == "saved":
        # Of other points.
        options["checkpoint"] = Path(tempfile.mkdtemp()) / "fit.pt"
        saved: dict[str, Any] = {"checkpoint": options["checkpoint"], "checkpoint_every": 1}
        gmmedu.fit_em(_started("full"), _points() + 1, 2, 0.0, **saved)
    if name == "rate":
        fitter = partial(gmmedu.fit_model, component_lr=0.01 * (1 + rank))
    if rank == size - 1:
        x = {"NaN": x.masked_fill(x > 1, torch.nan), "dims": x[:, :2]}.get(name, x)
        model = _started("tied") if name == "model" else model
        other: dict[str, Any] = {
            "mitigation": {"mitigation": gmmedu.Prior()},
            "weights": {"sample_weight": torch.ones(len(x))},
            "iterations": {"num_iterations": 7},
            "checkpoint": {"checkpoint": "fit.pt"},
            "every": {"checkpoint_every": 3},
        }
        options |= other.get(name, {})
    with torch.no_grad():
        # As it may be before the first process's model is copied.
        model.means += rank
    kept = _numbers(model)
    try:
        fitter(model, x, **options)
    except Exception as error:
        assert all(map(torch.equal, kept, _numbers(model)))
        return f"{type(error).__name__}: {error}"
    return "not refused"


def _held(rank: int, size: int) -> int:
    """How many more references to the group there are after fits than before."""
    # With its first optimizer torch imports this, and an error on the way keeps frames until gc.
    importlib.import_module("torch._dynamo")
    gc.collect()
    gc.disable()
    before = sys.getrefcount(dist.group.WORLD)
    for fit in FITTERS.values():
        model = gmmedu.GmmFull(2, 3, dtype=torch.float64)
        mine = _shard(_points(), rank, size)
        gmmedu.initialize(model, mine, generator=_generator(), group=dist.group.WORLD)
        fit(model, mine, group=dist.group.WORLD)
    return sys.getrefcount(dist.group.WORLD) - before


@pytest.mark.slow
def test_nothing_holds_the_group_after_a_fit() -> None:
    """A group that lives when the interpreter ends may abort the process."""
    assert groups.run(_held, 2) == [0, 0]


def test_what_one_process_is_given_wrongly_all_refuse() -> None:
    first, second = groups.run(_refusals, 2)
    for name, (own, others) in WRONG.items():
        assert second[name].startswith(own)
        assert first[name].startswith(others)


def test_what_is_no_group_is_refused() -> None:
    model, x = _started("full"), _points()
    groups_that_are_none: tuple[Any, ...] = ("world", 3, object())
    for group in groups_that_are_none:
        for function in (gmmedu.fit_em, gmmedu.initialize, gmmedu.fit_best):
            with pytest.raises(TypeError, match="group must be None or a group"):
                function(model, x, group=group)
