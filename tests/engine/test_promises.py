"""What is promised beside the mathematics: flags, weights, gaps in the data, warnings, reprs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import gmmedu
from gmmedu import ConvergenceWarning, SingularityWarning
from gmmedu.models import GaussianMixture

FAMILIES = list(gmmedu.MODELS)
PARTS = ("logits", "means", "raw_scale")
FITTERS: dict[str, Callable[..., gmmedu.FitResult]] = {
    "em": lambda model, x, **o: gmmedu.fit_em(model, x, 6, 0.0, **o),
    "squarem": lambda model, x, **o: gmmedu.fit_em(model, x, 6, 0.0, accelerate="squarem", **o),
    "adam": lambda model, x, **o: gmmedu.fit_model(model, x, 6, 0.05, 0.05, **o),
    "lbfgs": lambda model, x, **o: gmmedu.fit_lbfgs(model, x, 6, 0.0, **o),
}
quiet = pytest.mark.filterwarnings(
    "ignore::gmmedu.ConvergenceWarning", "ignore::gmmedu.SingularityWarning"
)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _points(size: int = 40, num_dims: int = 2) -> Tensor:
    x = torch.randn(size, num_dims, generator=_generator(), dtype=torch.float64)
    x[: size // 2] += 2.5
    return x


def _model(family: str, k: int = 2, num_dims: int = 2, **options: Any) -> GaussianMixture:
    options.setdefault("dtype", torch.float64)
    model = gmmedu.MODELS[family](k, num_dims, **options)
    x = _points(num_dims=num_dims)
    gmmedu.initialize(model, x, "points", generator=_generator(1))
    gmmedu.fit_em(model, x, 1, 0.0)
    return model


# What has requires_grad=False stays


@pytest.mark.parametrize("held", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("batch_shape", [(), (2,)])
@pytest.mark.parametrize("fitter", FITTERS)
@pytest.mark.parametrize("family", ["full", "shared_isotropic"])
def test_what_needs_no_gradient_is_held(
    family: str, fitter: str, batch_shape: tuple[int, ...], held: tuple[int, ...]
) -> None:
    model, x = _model(family, batch_shape=batch_shape), _points() + 1
    parts = [getattr(model, name) for name in PARTS]
    for place in held:
        parts[place].requires_grad_(False)
    kept = [part.detach().clone() for part in parts]
    before = model(x).detach()
    fit = FITTERS[fitter](model, x)
    for place, (part, old) in enumerate(zip(parts, kept, strict=True)):
        assert torch.equal(part, old) == (place in held), PARTS[place]
        assert part.requires_grad == (place not in held)
    after = model(x).detach()
    torch.testing.assert_close(torch.as_tensor(fit.nll), after, check_dtype=False)
    assert bool((after < before).all()) or len(held) == 3


@quiet
@pytest.mark.parametrize(
    "options",
    [
        {"mitigation": gmmedu.Clamp(0.9)},
        {"mitigation": gmmedu.Reset(0.9)},
        {"mitigation": gmmedu.Prior()},
        {"mitigation": None},
        {"missing": True},
        {"sample_weight": torch.rand(40, generator=_generator())},
    ],
)
@pytest.mark.parametrize("held", PARTS)
@pytest.mark.parametrize("fitter", FITTERS)
def test_whatever_the_options(fitter: str, held: str, options: dict[str, Any]) -> None:
    # Far from the origin, in float32, where a round trip through units would show.
    x = (_points() + 77.7).float()
    model = gmmedu.GmmDiagonal(2, 2)
    gmmedu.initialize(model, x, "points", generator=_generator(1))
    getattr(model, held).requires_grad_(False)
    kept = getattr(model, held).detach().clone()
    missing, weights = options.get("missing", False), options.get("sample_weight")
    if missing:
        x[3, 0] = torch.nan
    fit = FITTERS[fitter](model, x, **options)
    assert torch.equal(getattr(model, held), kept)
    # What the fit went by was the held number too, and not one that it set back at the end.
    log_prob = model.log_prob(x, missing=missing).detach().double()
    weights = torch.ones(len(x)) if weights is None else weights
    assert fit.nll == pytest.approx(float(-(weights * log_prob).sum() / weights.sum()), abs=1e-4)
    if isinstance(options.get("mitigation"), gmmedu.Reset):
        # A component that may not move as a whole is kept at the floor.
        assert {event.action for event in fit.events} <= {"clamped"}
        assert fit.events or held == "raw_scale"


@pytest.mark.parametrize("held", [0, 1, 2])
def test_every_fitter_finds_the_same_optimum_beside_what_is_held(held: int) -> None:
    x, nlls = _points(200), []
    for fit in (
        lambda model: gmmedu.fit_em(model, x, 3_000, 1e-13),
        lambda model: gmmedu.fit_em(model, x, 3_000, 1e-13, accelerate="squarem"),
        lambda model: gmmedu.fit_lbfgs(model, x, 500, 1e-13),
    ):
        model = _model("tied")
        getattr(model, PARTS[held]).requires_grad_(False)
        nlls.append(fit(model).nll)
    assert nlls == pytest.approx([nlls[0]] * 3, abs=1e-7)


@pytest.mark.parametrize("method", ["box", "points", "kmeans", "kmeans++"])
@pytest.mark.parametrize("held", PARTS)
@pytest.mark.parametrize("family", ["full", "shared_isotropic"])
def test_a_start_and_the_best_of_many_hold_it_too(family: str, held: str, method: str) -> None:
    model, x = _model(family), 3 * _points() - 5
    getattr(model, held).requires_grad_(False)
    kept = [getattr(model, name).detach().clone() for name in PARTS]
    gmmedu.initialize(model, x, method, generator=_generator(4))
    gmmedu.fit_best(
        model, x, 2, method=method, generator=_generator(), num_iterations=3, tolerance=0
    )
    for name, old in zip(PARTS, kept, strict=True):
        assert torch.equal(getattr(model, name), old) == (name == held), name


# Weights of points in the criteria


@pytest.mark.parametrize("batch_shape", [(), (2,)])
@pytest.mark.parametrize("family", FAMILIES)
def test_criteria_count_a_weight_as_so_many_points(
    family: str, batch_shape: tuple[int, ...]
) -> None:
    model, x = _model(family, batch_shape=batch_shape), _points(12)
    times = torch.tensor([0, 1, 2, 3] * 3)
    twice = x.repeat_interleave(times, 0)
    for name in ("aic", "bic", "icl"):
        criterion = getattr(model, name)
        weighted = criterion(x, sample_weight=times.double())
        torch.testing.assert_close(torch.as_tensor(weighted), torch.as_tensor(criterion(twice)))
    wild = x.clone()
    wild[times == 0] = 1e300
    torch.testing.assert_close(
        torch.as_tensor(model.bic(wild, sample_weight=times.double())),
        torch.as_tensor(model.bic(twice)),
    )
    for bad, message in (
        (times.double()[:5], "must have shape"),
        (-times.double(), "must not be negative"),
        (0 * times.double(), "must have a positive"),
    ):
        with pytest.raises(ValueError, match=f"sample_weight {message}"):
            model.aic(x, sample_weight=bad)


# Gaps in the data

#: Single values, two in a row, the same in a row, a row with nothing.
GAPS = [[0], [1], [2], [0, 1], [1, 2], [0, 2], [], [0, 1, 2]]


def _gapped(x: Tensor) -> Tensor:
    x = x[: len(GAPS)].clone()
    for row, gaps in zip(x, GAPS, strict=True):
        row[gaps] = torch.nan
    return x


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_with_gaps_has_the_density_of_what_it_has(family: str) -> None:
    model = _model(family, 3, 3)
    whole = _points(len(GAPS), 3)
    x = _gapped(whole)
    density, shares = (
        model.log_prob(x, missing=True),
        model.responsibilities(x, missing=True),
    )
    filled, labels = gmmedu.impute(model, x), model.predict(x, missing=True)
    for n, gaps in enumerate(GAPS):
        seen = [d for d in range(3) if d not in gaps]
        if seen:
            part, point = model.marginal(seen), whole[n, seen]
            torch.testing.assert_close(density[n], part.log_prob(point).detach())
            torch.testing.assert_close(shares[n], part.responsibilities(point).detach())
        else:
            torch.testing.assert_close(density[n], torch.zeros((), dtype=x.dtype))
            torch.testing.assert_close(shares[n], model.weights.detach())
        assert labels[n] == shares[n].argmax()
        rest = (
            model.condition({d: float(whole[n, d]) for d in seen}).mean
            if seen and gaps
            else model.mean
        )
        if gaps:
            torch.testing.assert_close(filled[n, gaps], rest.detach())
        assert torch.equal(filled[n, seen], whole[n, seen])
    # One by one, each alone, and in other shapes.
    for n, row in enumerate(x):
        for one in (row, row[None], row.expand(2, 3, 3)):
            alone = model.log_prob(one, missing=True)
            torch.testing.assert_close(alone, density[n].expand(alone.shape))
        torch.testing.assert_close(gmmedu.impute(model, row), filled[n])
        torch.testing.assert_close(gmmedu.impute(model, row[None])[0], filled[n])
    total = float(density.sum())
    free = model.num_free_parameters
    assert model.aic(x, missing=True) == pytest.approx(2 * free - 2 * total)
    bic = free * math.log(len(x)) - 2 * total
    assert model.bic(x, missing=True) == pytest.approx(bic)
    weights = torch.ones(len(x), dtype=x.dtype)
    assert model.bic(x, missing=True, sample_weight=weights) == pytest.approx(bic)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_column_that_is_never_seen(family: str, dtype: torch.dtype) -> None:
    model = _model(family, dtype=dtype)
    x = _points(5).to(dtype)
    x[:, 1] = torch.nan
    known = model.marginal([0])
    for method in ("log_prob", "responsibilities", "predict"):
        found = getattr(model, method)(x, missing=True)
        torch.testing.assert_close(found, getattr(known, method)(x[:, :1]).detach())
    filled = gmmedu.impute(model, x)
    assert filled.dtype == dtype and bool(filled.isfinite().all())
    assert gmmedu.find_singular(model, x, missing=True) == []
    for refused in (
        lambda: gmmedu.initialize(model, x, missing=True),
        lambda: gmmedu.fit_em(model, x, missing=True),
        lambda: gmmedu.fit_best(model, x, 2, missing=True),
    ):
        with pytest.raises(ValueError, match="no observed value in column 1"):
            refused()


@pytest.mark.parametrize("method", ["box", "points", "kmeans", "kmeans++"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_start_from_data_with_gaps(family: str, method: str) -> None:
    x = _points(60, 3)
    hidden = torch.rand(x.shape, generator=_generator()) < 0.1
    hidden[:, 0] &= ~hidden[:, 1]
    gapped = x.masked_fill(hidden, torch.nan)
    model = gmmedu.MODELS[family](2, 3, dtype=x.dtype)
    gmmedu.initialize(model, gapped, method, missing=True, generator=_generator())
    assert bool(model.log_prob(x).isfinite().all())
    low, high = x.amin(0) - 1e-9, x.amax(0) + 1e-9
    assert bool(((model.means >= low) & (model.means <= high)).all())
    before = -model.log_prob(gapped, missing=True).mean()
    fit = gmmedu.fit_em(model, gapped, 5, 0.0, missing=True)
    assert fit.history[0] == pytest.approx(float(before)) and fit.nll < float(before)
    after = -model.log_prob(gapped, missing=True).mean()
    assert fit.nll == pytest.approx(float(after), abs=1e-10)
    # Where nothing is missing the flag plays no part.
    one, two = (gmmedu.MODELS[family](2, 3, dtype=x.dtype) for _ in range(2))
    gmmedu.initialize(one, x, method, generator=_generator())
    gmmedu.initialize(two, x, method, missing=True, generator=_generator())
    assert all(map(torch.equal, one.parameters(), two.parameters()))


def test_find_singular_in_data_with_gaps() -> None:
    x = _points()
    model = gmmedu.GmmFull(2, 2, dtype=x.dtype)
    narrow = torch.diag(torch.tensor([1e-10, 1.0], dtype=x.dtype))
    wide = torch.eye(2, dtype=x.dtype)
    model.set_parameters(covariances=torch.stack([wide, narrow]))
    x[::5, 0] = torch.nan
    assert gmmedu.find_singular(model, x, missing=True) == [1]
    with pytest.raises(ValueError, match="missing=True"):
        gmmedu.find_singular(model, x)


@pytest.mark.parametrize(
    "method", ["log_prob", "responsibilities", "predict", "aic", "bic", "forward"]
)
def test_gaps_are_refused_unless_said(method: str) -> None:
    model, x = _model("full"), _points()
    x[3, 1] = torch.nan
    with pytest.raises(ValueError, match=r"\(rows 3\); .*missing=True"):
        getattr(model, method)(x)
    if method != "forward":
        getattr(model, method)(x, missing=True)


# What a fit says aloud


def _said(fit: Callable[[], Any], kind: type[Warning]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit()
    mine = [w for w in caught if w.category is kind]
    assert all(w.filename == __file__ for w in mine)
    return [str(w.message) for w in mine]


@pytest.mark.parametrize("batch_shape", [(), (3,)])
@pytest.mark.parametrize("fitter", ["fit_em", "fit_model", "fit_lbfgs"])
def test_a_fit_that_stops_early_says_so(fitter: str, batch_shape: tuple[int, ...]) -> None:
    x, fit = _points(), getattr(gmmedu, fitter)

    def run(num_iterations: int = 2, **options: Any) -> list[str]:
        options.setdefault("tolerance", 1e-9)
        model = _model("full", batch_shape=batch_shape)
        return _said(lambda: fit(model, x, num_iterations, **options), ConvergenceWarning)

    (text,) = run()
    assert "not converged after 2 iterations" in text and "1e-09" in text
    assert "Raise num_iterations" in text and "tolerance=0" in text
    assert ("3 of 3 fits have" if batch_shape else "the fit has") in text
    (text,) = run(tolerance=gmmedu.Relative(1e-9))
    assert "1e-09" in text
    assert run(tolerance=0) == [] and run(0) == [] and run(tolerance=1e9) == []
    assert run(callback=lambda _, iteration, nll: iteration == 1) == []


def _with_spikes(count: int) -> Tensor:
    x = _points(60)
    for spike in range(count):
        x[10 * spike : 10 * spike + 10] = 20.0 * (spike + 1)
    return x


@quiet
@pytest.mark.parametrize(
    ("family", "spikes", "text"),
    [
        ("full", [1], "component 1 ends on the floor"),
        ("diagonal", [0], "component 0 ends on the floor"),
        ("isotropic", [0, 2], "components 0, 2 end on the floor"),
    ],
)
def test_a_fit_that_ends_on_the_floor_names_who(family: str, spikes: list[int], text: str) -> None:
    x = _with_spikes(len(spikes))
    means = torch.ones(3, 2, dtype=x.dtype) * torch.tensor([[-0.5], [0.0], [3.0]])
    means[spikes] = torch.stack([x[10 * s] for s in range(len(spikes))])
    model = gmmedu.MODELS[family](3, 2, init_means=means, dtype=x.dtype)
    (said,) = _said(lambda: gmmedu.fit_em(model, x, 100), SingularityWarning)
    assert text in said and "min_scale=0.001" in said
    # Its remedies, followed.
    assert (
        _said(
            lambda: gmmedu.fit_em(model, x, 100, mitigation=gmmedu.Prior()),
            SingularityWarning,
        )
        == []
    )


@quiet
@pytest.mark.parametrize(
    ("family", "k", "text"),
    [
        ("tied", 2, "the fit ends with its shared covariance"),
        ("tied", 1, "the fit ends with its shared covariance"),
        ("full", 1, "component 0 ends"),
        ("diagonal", 1, "component 0 ends"),
    ],
)
def test_a_constant_column_puts_everything_on_the_floor(family: str, k: int, text: str) -> None:
    x = _points()
    x[:, 1] = 4.0
    (said,) = _said(lambda: gmmedu.fit_em(_started(family, k, x), x), SingularityWarning)
    assert f"{text} on the floor" in said and "a constant column" in said


def _started(family: str, k: int, x: Tensor) -> GaussianMixture:
    model = gmmedu.MODELS[family](k, x.shape[1], dtype=x.dtype)
    return gmmedu.initialize(model, x, generator=_generator())


def test_the_constant_family_has_no_floor() -> None:
    x = _with_spikes(1)
    model = _started("constant", 2, x)
    assert _said(lambda: gmmedu.fit_em(model, x), SingularityWarning) == []


# Short words


def test_a_result_is_told_in_a_line() -> None:
    x = _points()
    fit = gmmedu.fit_em(_model("full"), x, 500, 1e-6)
    assert repr(fit).startswith(f"FitResult(nll={fit.nll:.6g}, converged after ")
    assert f"{fit.num_iterations} iterations" in repr(fit)
    short = gmmedu.fit_em(_model("full"), x, 2, 0)
    assert "not converged after 2 iterations" in repr(short)
    many = gmmedu.fit_em(_model("full", batch_shape=(2, 3)), x, 500, 1e-6)
    best = f"best nll={float(many.nll.min()):.6g}"
    assert repr(many).startswith(f"FitResult(6 fits, {best}, 6 converged")
    result = gmmedu.fit_best(_model("full"), x, 3, generator=_generator())
    for said in (fit, short, many, result):
        assert len(repr(said)) < 100 and "\n" not in repr(said)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_is_told_in_a_line(family: str) -> None:
    name = gmmedu.MODELS[family].__name__
    assert repr(_model(family)) == f"{name}(num_components=2, num_dims=2)"
    many = _model(family, batch_shape=(4, 2))
    assert repr(many) == f"{name}(num_components=2, num_dims=2, batch_shape=(4, 2))"
