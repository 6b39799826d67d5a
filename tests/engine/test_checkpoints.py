"""A fit that was killed goes on from its checkpoint and ends as one that never was, bit for bit."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import groups
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

import gmmedu
from gmmedu.models import GaussianMixture
from gmmedu.singularities import Mitigation

FAMILIES = list(gmmedu.MODELS)
FITTERS: dict[str, Callable[..., gmmedu.FitResult]] = {
    "em": lambda model, x, **o: gmmedu.fit_em(model, x, 30, 0.0, **o),
    "squarem": lambda model, x, **o: gmmedu.fit_em(
        model, x, **{"num_iterations": 30, "tolerance": 0.0, "accelerate": "squarem", **o}
    ),
    "adam": lambda model, x, **o: gmmedu.fit_model(model, x, 30, 0.05, 0.05, **o),
    "lbfgs": lambda model, x, **o: gmmedu.fit_lbfgs(model, x, 30, 0.0, **o),
}
quiet = pytest.mark.filterwarnings(
    "ignore::gmmedu.ConvergenceWarning", "ignore::gmmedu.SingularityWarning"
)


class Killed(BaseException):
    """Stands for a kill that nothing in the process survives."""


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _points(size: int = 60) -> Tensor:
    x = torch.randn(size, 2, generator=_generator(), dtype=torch.float64)
    x[::3] = 0.4 * x[::3] + 2
    return x


def _started(family: str = "full", batch_shape: tuple[int, ...] = ()) -> GaussianMixture:
    model = gmmedu.MODELS[family](3, 2, batch_shape=batch_shape, dtype=torch.float64)
    return gmmedu.initialize(model, _points(), "points", generator=_generator(2))


def _killed_at(last: int) -> Callable[..., None]:
    def callback(_: Any, iteration: int, __: Any) -> None:
        if iteration == last:
            raise Killed

    return callback


def _same(one: Any, other: Any, fit: gmmedu.FitResult, known: gmmedu.FitResult) -> None:
    """Two models and records alike, bit for bit, but for the time that they took."""
    assert all(map(torch.equal, one.parameters(), other.parameters()))
    assert torch.equal(fit.history.nan_to_num(), known.history.nan_to_num())
    assert torch.equal(fit.passes_after, known.passes_after)
    assert fit.events == known.events
    assert len(fit.elapsed) == len(known.elapsed)
    for name in ("nll", "converged", "on_floor", "num_iterations", "passes"):
        mine, its = getattr(fit, name), getattr(known, name)
        assert torch.equal(torch.as_tensor(mine), torch.as_tensor(its)), name
    for mine, its in zip(fit.snapshots, known.snapshots, strict=True):
        assert mine.iteration == its.iteration and torch.equal(mine.means, its.means)


@quiet
@pytest.mark.parametrize("fitter", FITTERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_goes_on_as_if_never_stopped(family: str, fitter: str, tmp_path: Path) -> None:
    x, path = _points(), tmp_path / "fit.pt"
    alone, first = _started(family), _started(family)
    known = FITTERS[fitter](alone, x, snapshot_every=4)
    with pytest.raises(Killed):
        FITTERS[fitter](
            first, x, snapshot_every=4, checkpoint=path, checkpoint_every=5, callback=_killed_at(13)
        )
    again = gmmedu.MODELS[family](3, 2, dtype=torch.float64)
    seen: list[int] = []
    fit = FITTERS[fitter](
        again,
        x,
        snapshot_every=4,
        checkpoint=path,
        checkpoint_every=5,
        callback=lambda _, iteration, __: seen.append(iteration),
    )
    assert seen[0] == 11
    _same(again, alone, fit, known)


CASES: dict[str, dict[str, Any]] = {
    "reset": {"mitigation": gmmedu.Reset(0.3, 5)},
    "clamp": {"mitigation": gmmedu.Clamp(0.3)},
    "prior": {"mitigation": gmmedu.Prior()},
    "weights": {"sample_weight": torch.rand(60, generator=_generator(4)) + 0.1},
    "batch": {"batch": (4,)},
    "own points": {"batch": (2,), "own": True},
    "stopping": {"batch": (4,), "tolerance": 1e-5},
    "own points, stopping": {"batch": (2,), "own": True, "tolerance": 1e-5},
    "own weights, stopping": {
        "batch": (2,),
        "tolerance": 1e-5,
        "sample_weight": torch.rand(2, 60, generator=_generator(4)) + 0.1,
    },
    "aitken": {"tolerance": gmmedu.Aitken(1e-4)},
    "stream": {"stream": True},
    "zero": {"every": 1},
}


@quiet
@pytest.mark.parametrize("case", CASES)
def test_with_all_that_a_fit_remembers(case: str, tmp_path: Path) -> None:
    options = dict(CASES[case])
    batch, own = options.pop("batch", ()), options.pop("own", False)
    x: Any = _points()
    if own:
        x = torch.stack([x, 3 * x.flip(0) + 1])
    if options.pop("stream", False):
        x = list(x.split(7))
    every = options.pop("every", 3)
    alone = _started("diagonal", batch)
    known = FITTERS["squarem"](alone, x, generator=_generator(), **options)
    last = known.history.shape[0] - 1
    assert last > 4
    options |= {"checkpoint": tmp_path / "fit.pt", "checkpoint_every": every}
    for stop in (last // 2, last - 1):
        model = _started("diagonal", batch)
        with pytest.raises(Killed):
            FITTERS["squarem"](
                model, x, callback=_killed_at(stop), generator=_generator(), **options
            )
    model = _started("diagonal", batch)
    fit = FITTERS["squarem"](model, x, generator=_generator(), **options)
    _same(model, alone, fit, known)
    # Once more, though it has ended: the last stretch alone.
    fit = FITTERS["squarem"](model, x, generator=_generator(), **options)
    _same(model, alone, fit, known)


def _with_a_kill(rank: int, size: int, path: str | None, seed: int | None) -> Any:
    """A fit of which a process is killed at a random pass, where there is a seed; else what it
    ends with."""
    draw = random.Random(seed)
    victim, after, first = draw.randrange(size), draw.randrange(8), None

    def callback(_: Any, iteration: int, __: Any) -> None:
        nonlocal first
        first = iteration if first is None else first
        if seed is not None and rank == victim and iteration == first + after:
            os.kill(os.getpid(), signal.SIGKILL)

    model = _started()
    fit = gmmedu.fit_em(
        model,
        _points().tensor_split(size)[rank],
        120,
        0.0,
        accelerate="squarem",
        checkpoint=path,
        checkpoint_every=2,
        callback=callback,
        group=dist.group.WORLD if size > 1 else None,
    )
    return [p.detach() for p in model.parameters()], fit.history, fit.passes


@quiet
@pytest.mark.slow
@pytest.mark.parametrize(("size", "kills"), [(1, 14), (2, 6)])
def test_kills_at_random_passes_lose_nothing(size: int, kills: int, tmp_path: Path) -> None:
    known = groups.run(_with_a_kill, size, None, None)
    path = str(tmp_path / "fit.pt")
    for seed in range(kills):
        found = groups.run(_with_a_kill, size, path, seed)
        assert found.count(None) == 1
        # The other process was told of it.
        assert all(type(one).__name__ == "ProcessError" for one in found if one is not None)
    # It has come some way, but not to the end.
    assert Path(path).exists()
    for one, its in zip(groups.run(_with_a_kill, size, path, None), known, strict=True):
        assert all(map(torch.equal, one[0], its[0]))
        assert torch.equal(one[1], its[1]) and one[2] == its[2]


def _fit(path: Any, model: GaussianMixture | None = None, x: Any = None, **o: Any) -> Any:
    model = _started() if model is None else model
    options: dict[str, Any] = {"num_iterations": 12, "tolerance": 0.0, "checkpoint_every": 5, **o}
    return gmmedu.fit_em(model, _points() if x is None else x, checkpoint=path, **options)


@pytest.mark.parametrize("where", ["torch.save", "os.fsync", "os.replace"])
def test_is_written_whole_or_not_at_all(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "fit.pt"
    with pytest.raises(Killed):
        _fit(path, callback=_killed_at(7))
    before = path.read_bytes()

    def killed(*arguments: Any) -> None:
        if where == "torch.save":
            arguments[1].write(b"half of it")
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(f"gmmedu.checkpoints.{where}", killed)
        with pytest.raises(Killed):
            _fit(path)
    assert path.read_bytes() == before
    fit, known = _fit(path), _fit(None)
    assert torch.equal(fit.history, known.history)
    assert [file.name for file in tmp_path.iterdir()] == ["fit.pt"]


def test_a_disk_that_is_full_ends_the_fit_with_its_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gmmedu.checkpoints.os.fsync", full)
    model, known = _started(), _started()
    with pytest.raises(OSError, match="No space left"):
        _fit(tmp_path / "fit.pt", model)
    gmmedu.fit_em(known, _points(), 5, 0.0)
    assert all(map(torch.equal, model.parameters(), known.parameters()))


@quiet
def test_more_iterations_may_be_asked_for_not_fewer(tmp_path: Path) -> None:
    path = tmp_path / "fit.pt"
    _fit(path)
    fit = _fit(path, num_iterations=40)
    assert torch.equal(fit.history, _fit(None, num_iterations=40).history)
    # It was saved at iteration 35.
    assert _fit(path, num_iterations=35).num_iterations == 35
    model = _started()
    kept = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(ValueError, match="at iteration 35, and num_iterations is 34"):
        _fit(path, model, num_iterations=34)
    assert all(map(torch.equal, kept, model.parameters()))


@quiet
def test_points_of_another_dtype_are_other_points(tmp_path: Path) -> None:
    path = tmp_path / "fit.pt"
    _fit(path, _started().float(), _points().float())
    with pytest.raises(
        ValueError, match="is of another fit: the center of x, in standard deviations, was"
    ):
        _fit(path, _started().float(), _points())


@quiet
@pytest.mark.parametrize("number", ["logits", "means", "raw_scale"])
def test_what_is_held_fixed_is_part_of_the_fit(number: str, tmp_path: Path) -> None:
    path, name = tmp_path / "fit.pt", {"raw_scale": "scales"}.get(number, number)

    def held(by: float) -> GaussianMixture:
        model = _started()
        with torch.no_grad():
            getattr(model, number).requires_grad_(False)[0].add_(by)
        return model

    known = _fit(path, held(0.0))
    assert torch.equal(_fit(path, held(0.0)).history, known.history)
    with pytest.raises(ValueError, match=f"another fit: the {name}, held fixed, was"):
        _fit(path, held(0.1))


@quiet
def test_a_given_variance_is_part_of_the_fit(tmp_path: Path) -> None:
    path = tmp_path / "fit.pt"

    def constant(variance: float) -> GaussianMixture:
        model = gmmedu.GmmConstant(2, 2, variance=variance, dtype=torch.float64)
        return gmmedu.initialize(model, _points(), generator=_generator())

    _fit(path, constant(1.0))
    with pytest.raises(ValueError, match="another fit: the scales, held fixed, was"):
        _fit(path, constant(4.0))


def _mirrored() -> Tensor:
    """Other points with the same mean and the same spread."""
    x = _points()
    return 2 * x.mean(0) - x


@quiet
def test_the_checkpoint_of_another_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fit.pt"
    _fit(path)
    saved = path.read_bytes()
    others: dict[str, Callable[[Any], Any]] = {
        "the model": lambda model: _fit(path, _started("tied")),
        "mitigation": lambda model: _fit(path, model, mitigation=gmmedu.Prior()),
        "the algorithm": lambda model: _fit(path, model, accelerate="squarem"),
        "the center of x, in standard deviations,": lambda model: _fit(path, model, _points() + 1),
        "the weight of x": lambda model: _fit(path, model, _points(61)),
        "the NLL of x at the state that it holds": lambda model: _fit(path, model, _mirrored()),
        "the kind of x": lambda model: _fit(path, model, [_points()]),
        "the batch of sample_weight": lambda m: _fit(path, m, sample_weight=torch.ones(60)),
    }
    for name, other in others.items():
        model = _started()
        kept = [p.detach().clone() for p in model.parameters()]
        with pytest.raises(ValueError, match=f"is of another fit: {name} was"):
            other(model)
        assert all(map(torch.equal, kept, model.parameters()))
    assert path.read_bytes() == saved


@pytest.mark.parametrize("content", [b"", b"no checkpoint", "tensor", "list", "tuple"])
def test_what_is_no_checkpoint_is_refused(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "fit.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        foreign = {"tensor": torch.zeros(3), "list": [1, 2], "tuple": (1, 2, 3)}
        torch.save(foreign[content], path)
    with pytest.raises(ValueError, match="is not one that gmmedu wrote"):
        _fit(path)


@quiet
def test_the_checkpoint_of_another_version_says_so(tmp_path: Path) -> None:
    """Whatever kinds of things it held."""
    path = tmp_path / "fit.pt"
    torch.save(("dict", [("format", 2), ("problem", ("set", [1, 2]))]), path)
    with pytest.raises(ValueError, match="was written by another version of gmmedu"):
        _fit(path)


def test_a_mitigation_of_one_s_own_is_known_by_its_name(tmp_path: Path) -> None:
    """Processes and checkpoints compare what is written of it."""

    class Mine(Mitigation):
        def floor(self, dtype: torch.dtype) -> float:
            return 0.01

    assert repr(Mine()) == repr(Mine()) and "Mine" in repr(Mine())


def test_bad_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="checkpoint must be a path"):
        _fit(3)
    for path in (tmp_path, tmp_path / "none" / "fit.pt"):
        with pytest.raises(ValueError, match="checkpoint must name a file in a directory"):
            _fit(path)
    with pytest.raises(ValueError, match="checkpoint_every must be at least 1"):
        _fit(tmp_path / "fit.pt", checkpoint_every=0)
    with pytest.raises(TypeError, match="fit_best takes no checkpoint"):
        gmmedu.fit_best(_started(), _points(), checkpoint=tmp_path / "fit.pt")
