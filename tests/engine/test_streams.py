"""Points that come in batches count as the same points in one tensor."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import gmmedu
from gmmedu.models import GaussianMixture

FAMILIES = list(gmmedu.MODELS)
FITTERS: dict[str, Callable[..., gmmedu.FitResult]] = {
    "em": lambda model, x, **o: gmmedu.fit_em(model, x, 6, 0.0, **o),
    "squarem": lambda model, x, **o: gmmedu.fit_em(model, x, 6, 0.0, accelerate="squarem", **o),
    "adam": lambda model, x, **o: gmmedu.fit_model(model, x, 6, 0.05, 0.05, **o),
    "lbfgs": lambda model, x, **o: gmmedu.fit_lbfgs(model, x, 4, 0.0, **o),
}


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _points(size: int = 50, num_dims: int = 2) -> Tensor:
    x = torch.randn(size, num_dims, generator=_generator(), dtype=torch.float64)
    x[: size // 3] = 0.4 * x[: size // 3] + 4
    # In no order, so that the batches are of one kind.
    return x[torch.randperm(size, generator=_generator())]


def _weights(size: int) -> Tensor:
    weights = torch.rand(size, generator=_generator(1), dtype=torch.float64)
    return weights * (weights > 0.2)


def _uneven(*parts: Tensor) -> list[Any]:
    """Batches of 1, 2, 3, ... points, an empty one among them."""
    sizes, left = [0], len(parts[0])
    while left:
        sizes.append(min(left, len(sizes)))
        left -= sizes[-1]
    split = [part.split(sizes) for part in parts]
    return list(split[0]) if len(parts) == 1 else list(zip(*split, strict=True))


STREAMS: dict[str, Callable[..., Any]] = {
    "list": lambda *parts: _uneven(*parts),
    "loader": lambda *parts: DataLoader(TensorDataset(*parts), batch_size=8),
    "shuffled": lambda *parts: DataLoader(TensorDataset(*parts), batch_size=8, shuffle=True),
}


def _started(
    family: str, x: Tensor, k: int = 3, batch_shape: Any = (), dtype: Any = None
) -> GaussianMixture:
    dtype = x.dtype if dtype is None else dtype
    model = gmmedu.MODELS[family](k, x.shape[1], batch_shape=batch_shape, dtype=dtype)
    return gmmedu.initialize(model, x, "points", missing=True, generator=_generator(2))


def _compare(family: str, fitter: str, x: Tensor, stream: Any, k: int = 3, **options: Any) -> None:
    weights = options.pop("sample_weight", None)
    whole, parts = _started(family, x, k), _started(family, x, k)
    one = FITTERS[fitter](whole, x, sample_weight=weights, generator=_generator(), **options)
    two = FITTERS[fitter](parts, stream, generator=_generator(), **options)
    for name in ("weights", "means", "covariances"):
        old, new = getattr(whole, name), getattr(parts, name)
        torch.testing.assert_close(new, old, rtol=1e-10, atol=1e-10, msg=name)
    torch.testing.assert_close(two.history, one.history, rtol=0, atol=1e-10)
    assert two.nll == pytest.approx(one.nll, abs=1e-10)
    assert two.passes == one.passes and two.events == one.events


@pytest.mark.parametrize("family", FAMILIES)
def test_batches_large_enough_for_shared_features_count_as_one_tensor(family: str) -> None:
    x = _points(20_000)
    _compare(family, "em", x, list(x.split(9_000)), k=4)


@pytest.mark.parametrize("fitter", FITTERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_batches_are_the_tensor(family: str, fitter: str) -> None:
    # Each family and each fitter reads each kind of stream.
    shift = FAMILIES.index(family) + list(FITTERS).index(fitter)
    x, kind = _points(), list(STREAMS)[shift % len(STREAMS)]
    _compare(family, fitter, x, STREAMS[kind](x))


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("fitter", FITTERS)
def test_with_weights_and_missing_values(fitter: str, kind: str, missing: bool) -> None:
    x, weights = _points(num_dims=3), _weights(50)
    if missing:
        hidden = torch.rand(x.shape, generator=_generator()) < 0.2
        hidden[:, 0] &= ~hidden[:, 1]
        x = x.masked_fill(hidden, torch.nan)
    stream = STREAMS[kind](x, weights)
    family = FAMILIES[list(FITTERS).index(fitter)]
    _compare(family, fitter, x, stream, sample_weight=weights, missing=missing)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("fitter", FITTERS)
def test_with_more_points_than_units_look_at(fitter: str, weighted: bool) -> None:
    x, weights = _points(12_345), _weights(12_345)
    parts = [part.split(4_000) for part in ((x, weights) if weighted else (x,))]
    stream = list(zip(*parts, strict=True))
    options: dict[str, Any] = {"sample_weight": weights} if weighted else {}
    _compare("full", fitter, x, stream, **options)


@pytest.mark.parametrize(
    "mitigation", [gmmedu.Clamp(0.5), gmmedu.Reset(0.5, 2), gmmedu.Prior(), None]
)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("fitter", FITTERS)
@pytest.mark.filterwarnings("ignore::gmmedu.SingularityWarning")
def test_with_each_mitigation(fitter: str, weighted: bool, mitigation: Any) -> None:
    x, weights = _points(), _weights(50)
    stream = _uneven(x, weights) if weighted else _uneven(x)
    options: dict[str, Any] = {"sample_weight": weights} if weighted else {}
    _compare("diagonal", fitter, x, stream, mitigation=mitigation, **options)


@pytest.mark.parametrize("fitter", FITTERS)
def test_a_batch_of_models_reads_one_stream(fitter: str) -> None:
    x = _points()
    whole, parts = (_started("tied", x, batch_shape=(2, 2)) for _ in range(2))
    one = FITTERS[fitter](whole, x)
    two = FITTERS[fitter](parts, _uneven(x))
    torch.testing.assert_close(parts.means, whole.means, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(two.nll, one.nll, rtol=0, atol=1e-10)
    assert torch.equal(two.passes, one.passes)


@pytest.mark.parametrize("data", [torch.float32, torch.float64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtypes_of_batches_and_model(data: torch.dtype, dtype: torch.dtype) -> None:
    x = (_points() + 100).to(data)
    whole, parts = (_started("full", x, dtype=dtype) for _ in range(2))
    one, two = gmmedu.fit_em(whole, x, 5, 0.0), gmmedu.fit_em(parts, _uneven(x), 5, 0.0)
    within = 1e-10 if dtype == torch.float64 and data == torch.float64 else 1e-5
    torch.testing.assert_close(parts.means, whole.means, rtol=within, atol=within)
    assert two.nll == pytest.approx(one.nll, abs=within)


class Counted:
    """A stream that counts how often it is read, and how many of its batches are held at once."""

    def __init__(self, x: Tensor) -> None:
        self.x, self.reads, self.most = x, 0, 0
        self.given: list[weakref.ref[Any]] = []

    def __iter__(self) -> Iterator[Tensor]:
        self.reads += 1
        for part in self.x.split(1_000):
            # What owns the memory, however many tensors look at it.
            owner = part.numpy().copy()
            self.given.append(weakref.ref(owner))
            self.most = max(self.most, sum(given() is not None for given in self.given))
            batch = torch.from_numpy(owner)
            del owner
            yield batch
            del batch


@pytest.mark.parametrize(("size", "looks"), [(500, 1), (30_500, 2)])
@pytest.mark.parametrize("fitter", FITTERS)
def test_each_pass_reads_the_stream_once(fitter: str, size: int, looks: int) -> None:
    x = _points(size)
    stream = Counted(x)
    fit = FITTERS[fitter](_started("diagonal", x), stream)
    # Before the first pass the units take one look, and a second one for their sample.
    assert stream.reads == fit.passes + looks
    # The one that is read and the one before, which is let go when it has come; units are made of
    # a sample of 10,000 points.
    assert stream.most <= 12
    if fitter in ("em", "adam"):
        assert fit.passes == fit.num_iterations + 1


@pytest.mark.parametrize("fitter", FITTERS)
def test_what_can_be_read_once_only_is_refused(fitter: str) -> None:
    x = _points()
    model = _started("full", x)
    kept = [p.detach().clone() for p in model.parameters()]
    once = [iter([x]), (part for part in x.split(10)), map(torch.clone, x.split(10))]
    for stream in (*once, iter(DataLoader(TensorDataset(x)))):
        with pytest.raises(TypeError, match="read again and again") as caught:
            FITTERS[fitter](model, stream)
        assert "a list of them, or a DataLoader" in str(caught.value)
    assert all(map(torch.equal, model.parameters(), kept))


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        ([], "no points"),
        ([torch.zeros(0, 2)], "no points"),
        ([torch.zeros(1, 2)], "1 points and at least 2"),
        ([torch.zeros(4, 3)], "a batch of x must have shape"),
        ([torch.zeros(4)], "a batch of x must have shape"),
        ([torch.full((4, 2), torch.nan)], "a batch of x must be finite"),
        ([(torch.zeros(4, 2), torch.ones(3))], "weights of a batch must have shape"),
        ([(torch.zeros(4, 2), -torch.ones(4))], "must not be negative"),
        ([(torch.zeros(4, 2), torch.tensor([3.0, -1, 1, 1]))], "entry 1 is -1"),
        ([(torch.zeros(4, 2), torch.zeros(4))], "no points"),
        ([(torch.zeros(4, 2), torch.ones(4), torch.ones(4))], "3 things at once"),
    ],
)
def test_bad_batches_are_refused(stream: list[Any], message: str) -> None:
    model = gmmedu.GmmFull(2, 2)
    kept = model.means.detach().clone()
    with pytest.raises(ValueError, match=message):
        gmmedu.fit_em(model, stream)
    assert torch.equal(model.means, kept)


def test_what_is_no_batch_is_refused() -> None:
    model = gmmedu.GmmFull(2, 2)
    for stream in ([[1.0, 2.0]], ["ab"], [torch.zeros(4, 2, dtype=torch.int64)]):
        with pytest.raises(TypeError, match="(a batch|x) must"):
            gmmedu.fit_em(model, stream)
    with pytest.raises(ValueError, match="sample_weight must be None"):
        gmmedu.fit_em(model, [torch.zeros(4, 2)], sample_weight=torch.ones(4))


def test_a_column_that_no_batch_observes_is_refused() -> None:
    x = _points()
    x[:, 1] = torch.nan
    with pytest.raises(ValueError, match="no observed value in column 1"):
        gmmedu.fit_em(gmmedu.GmmFull(2, 2).double(), list(x.split(10)), missing=True)


def test_a_row_without_any_value_is_refused_as_in_a_tensor() -> None:
    x = _points()
    x[17] = torch.nan
    batches = list(x.split(10))
    model = gmmedu.GmmFull(2, 2).double()
    kept = model.means.detach().clone()
    for fit in (gmmedu.fit_em, gmmedu.fit_stepwise):
        with pytest.raises(ValueError, match="a batch of x has no observed value in row 7"):
            fit(model, batches, missing=True)
        assert torch.equal(model.means, kept)


def test_batches_with_and_without_weights() -> None:
    x = _points()
    weights = torch.cat([torch.ones(30), torch.full((20,), 2.0)]).double()
    mixed = [x[:30], (x[30:], weights[30:])]
    _compare("full", "em", x, mixed, sample_weight=weights)


def test_a_failing_stream_leaves_the_last_good_parameters() -> None:
    x = _points()

    class Broken(Counted):
        def __iter__(self) -> Iterator[Tensor]:
            if self.reads == 4:
                raise OSError("the disk is gone")
            return super().__iter__()

    model, known = _started("full", x), _started("full", x)
    with pytest.raises(OSError, match="the disk is gone"):
        gmmedu.fit_em(model, Broken(x), 50, 0.0)
    fit = gmmedu.fit_em(known, x, 2, 0.0)
    torch.testing.assert_close(model.means, known.means)
    assert float(model(x).detach()) == pytest.approx(fit.nll)


class OneRoom:
    """Batches that all come in the same memory, which the next one overwrites."""

    def __init__(self, x: Tensor, size: int) -> None:
        self.x, self.room = x, x.new_empty(size, x.shape[1])

    def __iter__(self) -> Iterator[Tensor]:
        for batch in self.x.split(len(self.room)):
            yield self.room.copy_(batch)


def test_batches_may_share_one_memory() -> None:
    x = torch.randn(600, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x + torch.arange(600, dtype=torch.float64)[:, None] / 100
    for fitter in (gmmedu.fit_em, gmmedu.fit_stepwise):
        ends = []
        for batches in (list(x.split(100)), OneRoom(x, 100)):
            model = gmmedu.GmmFull(2, 2, dtype=torch.float64)
            gmmedu.initialize(model, x, generator=torch.Generator().manual_seed(1))
            fitter(model, batches)
            ends.append(model.means.detach().clone())
        assert torch.equal(*ends)
