"""Data on which mixtures degenerate: each fit ends with usable numbers or says what failed.

Every family, mitigation and start meets every kind of data in float64 under EM; float32 and
descent see a thinned grid. Nothing here is random: seeds stand in the test ids. Fits that differ
in start or data alone are a batch, which gives what a loop gives (test_batches); EM in float32,
random data and what stands alone are single fits.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import gmmedu
from gmmedu import (
    MODELS,
    Clamp,
    FitResult,
    GaussianMixture,
    Prior,
    Reset,
    SingularityError,
    find_singular,
)

FLOAT64, FLOAT32 = torch.float64, torch.float32
# Here fits are meant to end on a floor, and they say so.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::gmmedu.SingularityWarning")]

MITIGATIONS: dict[str, Any] = {
    "clamp": Clamp(),
    "reset": Reset(max_resets=4),
    "prior": Prior(),
    "none": None,
}
Fitter = Callable[[GaussianMixture, Tensor, Any], FitResult]
STARTS = ("constructor", "box", "points", "kmeans", "kmeans++")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def clusters(num_points: int = 60) -> Tensor:
    x = torch.randn(num_points, 2, generator=seeded(1), dtype=FLOAT64)
    x[num_points // 2 :] += 4
    return x


def constant_column(x: Tensor) -> Tensor:
    return torch.stack([torch.full_like(x[:, 0], 3.25), x[:, 1]], 1)


def collinear(x: Tensor) -> Tensor:
    return torch.stack([x[:, 0], 2 * x[:, 0] - 1], 1)


def outlier(x: Tensor) -> Tensor:
    return torch.cat([x[:-1], 1e6 * x.std(0, keepdim=True)])


#: Each kind of data in two dimensions, float64.
DATA: dict[str, Callable[[], Tensor]] = {
    "ordinary": clusters,
    "duplicates": lambda: torch.full((60, 2), 0.1, dtype=FLOAT64),
    "zeros": lambda: torch.zeros(60, 2, dtype=FLOAT64),
    "duplicates-far-out": lambda: torch.full((60, 2), 1.1e8, dtype=FLOAT64),
    "two-distinct-points": lambda: clusters(2).repeat(30, 1),
    "constant-column": lambda: constant_column(clusters()),
    "constant-column-far-out": lambda: (
        constant_column(clusters()) * torch.tensor([1e8, 1.0], dtype=FLOAT64)
    ),
    "collinear": lambda: collinear(clusters()),
    "collinear-tiny": lambda: 1e-8 * collinear(clusters()),
    "outlier": lambda: outlier(clusters()),
    "scale-1e-8": lambda: 1e-8 * clusters(),
    "scale-1e8": lambda: 1e8 * clusters(),
    "unequal-scales": lambda: clusters() * torch.tensor([1e-8, 1e8], dtype=FLOAT64),
    "offset-1e8": lambda: clusters() + 1e8,
    "as-many-points-as-components": lambda: clusters()[:3],
    "one-point": lambda: clusters()[:1],
}


def num_components(x: Tensor) -> int:
    """Three, or what the points allow."""
    return min(3, len(x))


def started(family: str, x: Tensor, start: str, seed: int = 0) -> GaussianMixture:
    """A mixture of the family in the dtype of x, started as named."""
    model = MODELS[family](num_components(x), x.shape[1], dtype=x.dtype, generator=seeded(seed))
    if start != "constructor":
        gmmedu.initialize(model, x, start, generator=seeded(seed))
    return model


def batch_of(models: list[GaussianMixture]) -> GaussianMixture:
    """Models of one family and shape as a batch."""
    first = models[0]
    many = type(first)(
        first.num_components, first.num_dims, batch_shape=len(models), dtype=first.means.dtype
    )
    with torch.no_grad():
        for whole, *parts in zip(*(m.parameters() for m in (many, *models)), strict=True):
            whole.copy_(torch.stack(parts))
    return many


def member_of(fit: FitResult, member: int) -> FitResult:
    """The record of one fit of a batch, as it would be alone."""
    steps = int(fit.num_iterations[member]) + 1
    return dataclasses.replace(
        fit,
        nll=float(fit.nll[member]),
        history=fit.history[:steps, member],
        elapsed=fit.elapsed[:steps],
        num_iterations=steps - 1,
        events=[event for event in fit.events if event.member == member],
    )


def em(model: GaussianMixture, x: Tensor, mitigation: Any) -> FitResult:
    return gmmedu.fit_em(model, x, 60, 0.0, mitigation=mitigation, generator=seeded(2))


def descent(num_iterations: int, rate: float) -> Fitter:
    def fit(model: GaussianMixture, x: Tensor, mitigation: Any) -> FitResult:
        return gmmedu.fit_model(
            model, x, num_iterations, rate, rate, mitigation=mitigation, generator=seeded(2)
        )

    return fit


def check_numbers(model: GaussianMixture, x: Tensor, what: str) -> None:
    """No NaN or infinity anywhere, and the mixture answers about the data."""
    for name, value in model.state_dict().items():
        assert bool(torch.isfinite(value).all()), f"{what}: {name} is {value}"
    with torch.no_grad():
        assert bool(torch.isfinite(model.log_prob(x)).all()), f"{what}: log_prob"
        assert bool(torch.isfinite(model.responsibilities(x)).all()), f"{what}: responsibilities"
        weights = model.weights.double()
    assert float(weights.sum()) == pytest.approx(1, abs=1e-5), what
    assert bool((weights >= 0).all()), what
    assert bool(torch.isfinite(model.sample(5, generator=seeded(3))).all()), f"{what}: sample"


def check_fit(
    model: GaussianMixture,
    x: Tensor,
    mitigation: Any,
    fit: FitResult,
    from_above: bool,
    what: str,
) -> None:
    """What every finished fit promises; from_above: whether it started above the floor."""
    assert bool(torch.isfinite(fit.history).all()), what
    assert fit.nll in fit.history.tolist(), what
    if not isinstance(mitigation, Prior):
        # What is below the floor does not count.
        least = float(fit.history.min() if from_above else fit.history[-1])
        assert fit.nll <= least + 1e-14 * (1 + abs(least)), what
    assert len(fit.history) == len(fit.elapsed) == fit.num_iterations + 1, what
    for event in fit.events:
        assert event.action in ("clamped", "reset"), what
        assert 1 <= event.iteration <= fit.num_iterations, what
        assert event.component is None or 0 <= event.component < model.num_components, what
    if mitigation is None:
        assert fit.events == [], what
        return
    # In float64, for a float32 factor may be more slender than a float32 covariance can say.
    covariances = copy.deepcopy(model).double().covariances.detach()
    info = torch.linalg.cholesky_ex(covariances).info
    assert bool((info == 0).all()), f"{what}: covariances {covariances.tolist()}"
    if isinstance(mitigation, Clamp) and model.family.trainable:
        # The floor is met up to rounding of the exponential and the rescaling.
        slack = 1 - (1e-9 if x.dtype == FLOAT64 else 1e-3)
        assert find_singular(model, x, mitigation.min_scale * slack) == [], what
    if x.dtype == FLOAT64:
        # Points rounded at their distance from the origin move log densities by this much.
        scale = model.covariances.detach().diagonal(dim1=-2, dim2=-1).min().sqrt()
        rounding = float(x.abs().max() / scale) * torch.finfo(FLOAT64).eps
        with torch.no_grad():
            nll = float(model(x))
        tolerance = 1e-9 + 1e-9 * abs(nll) + 1e4 * rounding
        assert abs(fit.nll - nll) <= tolerance, f"{what}: fit says {fit.nll}, model(x) {nll}"


def check_error(error: SingularityError, model: GaussianMixture, x: Tensor, what: str) -> None:
    """A fit without mitigation was refused in plain words, and the model kept."""
    shared = model.num_components > 1 and model.family.name in ("tied", "shared_isotropic")
    subject = "the shared covariance" if shared else f"component {error.component}"
    assert subject in str(error), f"{what}: {error}"
    assert error.component in ([None] if shared else range(model.num_components)), what
    assert error.iteration >= 1, what
    for advice in ("Clamp()", "Reset()", "Prior()", "fewer components", "duplicate"):
        assert advice in str(error), f"{what}: {error}"
    check_numbers(model, x, f"{what} after SingularityError")


def run(fitter: Fitter, model: GaussianMixture, x: Tensor, mitigation: Any, what: str) -> bool:
    """One fit ends as promised: fitted, or (without mitigation) refused; whether it was fitted."""
    from_above = find_singular(model, x) == []
    try:
        fit = fitter(model, x, mitigation)
    except SingularityError as error:
        assert mitigation is None, f"{what}: {error}"
        check_error(error, model, x, what)
        return False
    except Exception as error:  # a bare error from below is what must never come
        pytest.fail(f"{what}: {type(error).__name__}: {error}")
    check_numbers(model, x, what)
    check_fit(model, x, mitigation, fit, from_above, what)
    return True


def run_batch(
    fitter: Fitter, cases: dict[str, tuple[GaussianMixture, Tensor]], mitigation: Any
) -> list[GaussianMixture]:
    """``run`` of several as one batch, of which not all may be refused; the models fitted."""
    from_above = [find_singular(model, x) == [] for model, x in cases.values()]
    many = batch_of([model for model, _ in cases.values()])
    try:
        fit = fitter(many, torch.stack([x for _, x in cases.values()]), mitigation)
    except Exception as error:
        pytest.fail(f"{list(cases)}: {type(error).__name__}: {error}")
    errors, fitted = {error.member: error for error in fit.errors}, []
    for member, (what, (_, x)) in enumerate(cases.items()):
        model = many[member]
        if member in errors:
            assert mitigation is None, f"{what}: {errors[member]}"
            check_error(errors[member], model, x, what)
            continue
        check_numbers(model, x, what)
        check_fit(model, x, mitigation, member_of(fit, member), from_above[member], what)
        fitted.append(model)
    return fitted


def run_starts(
    models: dict[str, GaussianMixture], x: Tensor, mitigation: Any, what: str
) -> list[GaussianMixture]:
    """EM from each start, as a batch, or one by one where all may be refused; those fitted."""
    cases = {f"{start}, {what}": (model, x) for start, model in models.items()}
    if mitigation is not None:
        return run_batch(em, cases, mitigation)
    return [model for case, (model, _) in cases.items() if run(em, model, x, None, case)]


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("kind", DATA)
def test_em_in_float64(kind: str, family: str) -> None:
    x = DATA[kind]()
    for name, mitigation in MITIGATIONS.items():
        models = {start: started(family, x, start) for start in STARTS}
        fitted = run_starts(models, x, mitigation, name)
        if name == "clamp":
            assert len(fitted) == len(STARTS)
            for start, model in zip(STARTS, fitted, strict=True):
                check_parts(model, x, start)


def check_parts(model: GaussianMixture, x: Tensor, start: str) -> None:
    """The mixtures made of a fitted one are as usable as itself, even where it is narrow."""
    swapped = model.marginal([1, 0])
    torch.testing.assert_close(swapped.log_prob(x.flip(1)), model.log_prob(x), rtol=1e-6, atol=1e-6)
    for row in (0, len(x) - 1):
        one = x[row : row + 1]
        conditional = model.condition({0: float(one[0, 0])})
        check_numbers(conditional, x[:, 1:], f"{start}, row {row}")
        expected = model.log_prob(one) - model.marginal([0]).log_prob(one[:, :1])
        torch.testing.assert_close(conditional.log_prob(one[:, 1:]), expected, rtol=1e-4, atol=1e-4)


def thinned(kind: str, family: str) -> dict[str, str]:
    """A start for each mitigation, with others from one kind and family to the next."""
    offset = zlib.crc32(f"{kind}/{family}".encode())
    return {name: STARTS[(offset + i) % len(STARTS)] for i, name in enumerate(MITIGATIONS)}


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("kind", DATA)
def test_em_in_float32(kind: str, family: str) -> None:
    x = DATA[kind]().to(FLOAT32)
    for name, start in thinned(kind, family).items():
        run(em, started(family, x, start), x, MITIGATIONS[name], f"{start}, {name}")


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("name", MITIGATIONS)
def test_descent(name: str, family: str) -> None:
    """The kinds of as many points are one batch; the ordinary ones of it are never refused. Each
    mitigation meets both dtypes, with others from one family to the next."""
    fitter, mitigation = descent(60, 5e-2), MITIGATIONS[name]
    turn = list(MITIGATIONS).index(name) + list(MODELS).index(family)
    dtype = (FLOAT64, FLOAT32)[turn % 2]
    cases = {}
    for kind, make in DATA.items():
        x, start = make().to(dtype), thinned(f"{kind}-descent-{dtype}", family)[name]
        cases[f"{kind}, {start}"] = started(family, x, start), x
    size = len(DATA["ordinary"]())
    run_batch(
        fitter, {what: case for what, case in cases.items() if len(case[1]) == size}, mitigation
    )
    for what, (model, x) in cases.items():
        if len(x) != size:
            run(fitter, model, x, mitigation, what)


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("kind", ["two-distinct-points", "collinear", "outlier"])
def test_long_descent(kind: str, family: str) -> None:
    """Long and fast enough for a scale to fall from 1 to the floor and far below it."""
    x = DATA[kind]()
    for name in ("clamp", "none"):
        fitter = descent(250, 2e-1)
        model = started(family, x, "kmeans")
        run(fitter, model, x, MITIGATIONS[name], name)
        if kind == "two-distinct-points" and model.family.trainable:
            assert find_singular(model, x, 1.05e-3) == [0, 1, 2]


@pytest.mark.parametrize("rate", [1.0, 1e3, 1e300])
@pytest.mark.parametrize("family", MODELS)
def test_descent_at_reckless_rates(family: str, rate: float) -> None:
    """Nobody promises a good fit there; numbers or plain words all the same."""
    for dtype, mitigation in itertools.product((FLOAT64, FLOAT32), MITIGATIONS.values()):
        x = clusters().to(dtype)
        model = started(family, x, "points")
        try:
            descent(25, rate)(model, x, mitigation)
        except SingularityError as error:
            assert "learning rates" in str(error) or mitigation is None
        check_numbers(model, x, f"{dtype}, {mitigation}")


@pytest.mark.parametrize("dtype", [FLOAT64, FLOAT32], ids=str)
@pytest.mark.parametrize("family", MODELS)
def test_one_component_on_one_point(family: str, dtype: torch.dtype) -> None:
    for num_dims, (name, mitigation) in itertools.product((1, 3), MITIGATIONS.items()):
        x = torch.full((1, num_dims), 7.5, dtype=dtype)
        models = {start: started(family, x, start) for start in STARTS}
        for model in run_starts(models, x, mitigation, f"D={num_dims}, {name}"):
            torch.testing.assert_close(model.means.detach(), x, rtol=1e-6, atol=0)
            assert model.weights.tolist() == [1.0]


def rescalable() -> Iterator[tuple[str, str]]:
    """Kinds of rescaling, and the families that it leaves in place."""
    for kind, family in itertools.product(("scale-1e-8", "scale-1e8", "unequal-scales"), MODELS):
        one_scale_for_all = family in ("isotropic", "shared_isotropic")
        if family != "constant" and not (one_scale_for_all and kind == "unequal-scales"):
            yield kind, family


@pytest.mark.parametrize(("kind", "family"), list(rescalable()))
def test_the_fit_does_not_depend_on_units(kind: str, family: str) -> None:
    x, scaled = clusters(), DATA[kind]()
    scale = scaled[0] / x[0]
    for fitter in (em, descent(60, 5e-2)):
        model, other = started(family, x, "kmeans"), started(family, scaled, "kmeans")
        fit, other_fit = fitter(model, x, Clamp()), fitter(other, scaled, Clamp())
        volume = float(scale.log().sum())
        torch.testing.assert_close(other_fit.history - volume, fit.history, rtol=0, atol=1e-6)
        means = other.means.detach() / scale
        torch.testing.assert_close(means, model.means.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize(("dtype", "offset"), [(FLOAT64, 1e8), (FLOAT32, 1e4)], ids=str)
def test_a_start_far_from_ordinary_data_is_not_called_singular(
    family: str, dtype: torch.dtype, offset: float
) -> None:
    x = (clusters() + offset).to(dtype)
    model = MODELS[family](2, 2, dtype=dtype, generator=seeded(0))
    fit = gmmedu.fit_em(model, x, 50, 0.0, mitigation=None)
    check_numbers(model, x, family)
    if family != "constant":
        # At worst the components coincide: the NLL of one Gaussian, round or not.
        variances = x.double().var(0, correction=0)
        gaussian = math.log(2 * math.pi * math.e * float(variances.mean()))
        assert fit.nll < gaussian + 0.1


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, FLOAT32], ids=str)
def test_data_of_another_dtype_are_converted_before_anything_is_computed(
    family: str, dtype: torch.dtype
) -> None:
    x = (300 * clusters()).to(dtype)
    fits = []
    for data in (x, x.to(FLOAT64)):
        model = MODELS[family](2, 2, dtype=FLOAT64)
        gmmedu.initialize(model, data, "points", generator=seeded(0))
        fits.append(gmmedu.fit_em(model, data, 20, 0.0))
    torch.testing.assert_close(fits[0].history, fits[1].history, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("dtype", [FLOAT64, FLOAT32], ids=str)
def test_collinear_data_in_many_dimensions_can_be_started_from(
    family: str, dtype: torch.dtype
) -> None:
    line = torch.randn(100, 1, generator=seeded(4), dtype=FLOAT64)
    x = line @ torch.randn(1, 32, generator=seeded(5), dtype=FLOAT64) + 100
    for model_dtype in (FLOAT64, FLOAT32):
        models = {start: MODELS[family](3, 32, dtype=model_dtype) for start in STARTS[1:]}
        for start, model in models.items():
            gmmedu.initialize(model, x.to(dtype), start, generator=seeded(0))
            check_numbers(model, x, f"{model_dtype}, {start}")
        run_starts(models, x.to(model_dtype), Clamp(), str(model_dtype))


def sweep_case(seed: int) -> tuple[Tensor, int, Tensor | None]:
    """Random data of a random kind of degeneracy: x (N, D), K, and perhaps weights (N,)."""
    generator = seeded(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    num_dims, k = draw(1, 6), draw(1, 6)
    num_points = k + draw(0, 40)
    x = torch.randn(num_points, num_dims, generator=generator, dtype=FLOAT64)
    if draw(0, 3) == 0:  # few distinct points
        x = x[torch.randint(draw(1, num_points + 1), (num_points,), generator=generator)]
    if draw(0, 3) == 0:  # rounded, so that columns and points coincide
        x = x.round()
    if draw(0, 3) == 0:  # of low rank
        x = x[:, :1] @ torch.randn(1, num_dims, generator=generator, dtype=FLOAT64)
    if draw(0, 3) == 0:
        x[draw(0, num_points)] *= 10.0 ** draw(2, 9)
    x = x * 10.0 ** draw(-8, 9) + (0.0 if draw(0, 2) else 10.0 ** draw(0, 5))
    weights = None
    if draw(0, 3) == 0:
        weights = torch.rand(num_points, generator=generator, dtype=FLOAT64)
        weights[torch.rand(num_points, generator=generator) < 0.5] = 0
        weights[draw(0, num_points)] = 1
        if int((weights > 0).sum()) < k:
            # One for each component.
            weights[:k] = 1
    return x, k, weights


@pytest.mark.parametrize("seed", range(100, 140))
def test_random_degeneracy(seed: int) -> None:
    x64, k, weights = sweep_case(seed)
    for number, family in enumerate(MODELS):
        dtype = (FLOAT64, FLOAT32)[(seed // 2 + number) % 2]
        x = x64.to(dtype)
        name = list(MITIGATIONS)[(seed + number) % 4]
        start = STARTS[1:][(seed // 4 + number) % 4]
        model = MODELS[family](k, x.shape[1], dtype=dtype, generator=seeded(seed))
        gmmedu.initialize(model, x, start, generator=seeded(seed))
        what = f"seed {seed}: {family}, {dtype}, {name}, {start}"
        try:
            if (seed + number) % 2:
                fit = gmmedu.fit_em(
                    model, x, 40, 0.0, mitigation=MITIGATIONS[name], sample_weight=weights
                )
            else:
                fit = gmmedu.fit_model(
                    model, x, 25, 0.2, 0.2, mitigation=MITIGATIONS[name], sample_weight=weights
                )
        except SingularityError as error:
            assert name == "none", f"{what}: {error}"
        except Exception as error:
            pytest.fail(f"{what}: {type(error).__name__}: {error}")
        else:
            assert bool(torch.isfinite(fit.history).all()), what
        check_numbers(model, x, what)
