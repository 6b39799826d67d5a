"""Singularities: where the likelihood is unbounded a bare fit collapses, and each cure holds."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import gmmedu
from gmmedu import (
    MODELS,
    Clamp,
    GaussianMixture,
    Prior,
    Reset,
    SingularityError,
    find_singular,
)
from gmmedu.units import Units, moments

FLOAT64 = torch.float64
OWN = ("full", "diagonal", "isotropic")  # each component has its own covariance
SHARED = ("tied", "shared_isotropic", "constant")
FITTERS = ("em", "descent")
# Here fits are meant to end on a floor, and they say so.
pytestmark = pytest.mark.filterwarnings("ignore::gmmedu.SingularityWarning")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def points(num_points: int = 50) -> Tensor:
    return torch.randn(num_points, 2, generator=seeded(7), dtype=FLOAT64)


def narrow_on_a_point(family: str, x: Tensor, scale: float = 1e-3) -> GaussianMixture:
    """Two components: 0 covers the data, 1 sits on data point 0 with standard deviation scale.

    Families with a common covariance get the two averaged, as everywhere.
    """
    model = MODELS[family](2, x.shape[1], dtype=x.dtype)
    eye = torch.eye(x.shape[1], dtype=x.dtype)
    return model.set_parameters(
        means=torch.stack([x.mean(0), x[0]]), covariances=torch.stack([eye, scale**2 * eye])
    )


def fit(fitter: str, model: GaussianMixture, x: Tensor, **options: Any) -> gmmedu.FitResult:
    if fitter == "em":
        return gmmedu.fit_em(model, x, 100, 0.0, **options)
    return gmmedu.fit_model(model, x, 200, 0.1, 0.3, **options)


def parameters(model: GaussianMixture) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


# Seen: where it happens and where it cannot


@pytest.mark.parametrize("family", OWN)
@pytest.mark.parametrize("fitter", FITTERS)
def test_a_component_on_a_point_collapses(fitter: str, family: str) -> None:
    x = points()
    model = narrow_on_a_point(family, x)
    before = float(model(x).detach())
    seen: list[float] = []
    with pytest.raises(SingularityError, match="component 1 became singular") as caught:
        fit(
            fitter, model, x, mitigation=None, callback=lambda _model, _iteration, nll:
            seen.append(nll),
        )  # fmt: skip
    error = caught.value
    assert error.component == 1
    assert error.iteration == len(seen) >= 1
    assert f"at iteration {error.iteration}" in str(error)
    for advice in ("mitigation=Clamp()", "Reset()", "Prior()", "fewer components", "duplicate"):
        assert advice in str(error)
    # The model is that of the iteration before: the one whose NLL was told last. Rounding of the
    # mean is no longer small beside so narrow a component, hence the tolerance.
    assert float(model(x).detach()) == pytest.approx(seen[-1], abs=1e-5)
    assert seen[-1] <= before + 1e-9
    assert all(bool(torch.isfinite(value).all()) for value in parameters(model).values())
    torch.testing.assert_close(model.means[1].detach(), x[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("family", SHARED)
@pytest.mark.parametrize("fitter", FITTERS)
def test_a_shared_covariance_does_not_collapse_on_distinct_points(fitter: str, family: str) -> None:
    x = points()
    model = narrow_on_a_point(family, x)
    result = fit(fitter, model, x, mitigation=None)
    assert result.events == []
    assert result.nll <= float(result.history[0])
    assert find_singular(model, x, 1e-2) == []


@pytest.mark.parametrize("family", ["tied", "shared_isotropic"])
@pytest.mark.parametrize("fitter", FITTERS)
def test_a_shared_covariance_collapses_with_a_component_for_each_point(
    fitter: str, family: str
) -> None:
    x = points(2).repeat(20, 1)
    model = MODELS[family](2, 2, dtype=FLOAT64, init_means=x[:2])
    model.set_parameters(covariances=1e-6 * torch.eye(2, dtype=FLOAT64).repeat(2, 1, 1))
    with pytest.raises(SingularityError, match="the shared covariance became singular") as caught:
        fit(fitter, model, x, mitigation=None)
    assert caught.value.component is None
    assert bool(torch.isfinite(model.log_prob(x)).all())


def test_the_likelihood_is_unbounded_where_the_collapse_is() -> None:
    """Bishop's argument in numbers: log sigma down by one, log likelihood of one point up by D."""
    x = points()
    totals = []
    for scale in (1e-3, 1e-6, 1e-9):
        model = narrow_on_a_point("isotropic", x, scale)
        totals.append(-float(model(x).detach()) * len(x))
    steps = [later - earlier for earlier, later in itertools.pairwise(totals)]
    assert steps == pytest.approx([2 * math.log(1e3)] * 2, rel=1e-5)


@pytest.mark.parametrize("family", MODELS)
def test_find_singular(family: str) -> None:
    x = points()
    model = narrow_on_a_point(family, x, 1e-5)
    assert find_singular(model, x) == ([1] if family in OWN else [])
    if family == "constant":
        return
    model.set_parameters(covariances=1e-8 * torch.eye(2, dtype=FLOAT64).repeat(2, 1, 1))
    assert find_singular(model, x) == [0, 1]
    scale = float(x.std())
    assert find_singular(model, x, 0.5e-4 / scale) == []
    # Relative to the data: the same mixture in other units is as singular.
    model.set_parameters(covariances=torch.eye(2, dtype=FLOAT64).repeat(2, 1, 1))
    assert find_singular(model, 1e8 * x) == [0, 1]
    assert find_singular(model, 1e-8 * x) == []


def test_find_singular_looks_in_every_direction() -> None:
    x = points()
    thin = torch.tensor([[1.0, 1.0], [1.0, 1.0 + 1e-8]], dtype=FLOAT64)
    model = MODELS["full"](2, 2, dtype=FLOAT64)
    model.set_parameters(covariances=torch.stack([torch.eye(2, dtype=FLOAT64), thin]))
    assert find_singular(model, x) == [1]


# Clamp


@pytest.mark.parametrize("min_scale", [1e-6, 1e-3, 0.3])
@pytest.mark.parametrize("family", OWN)
@pytest.mark.parametrize("fitter", FITTERS)
def test_clamp_stops_at_its_floor(fitter: str, family: str, min_scale: float) -> None:
    x = points()
    model = narrow_on_a_point(family, x)
    result = fit(fitter, model, x, mitigation=Clamp(min_scale))
    assert find_singular(model, x, min_scale * (1 - 1e-9)) == []
    assert all(event.action == "clamped" for event in result.events)
    if min_scale < 0.1:
        # Where the collapse is real, the floor is where it stops.
        assert 1 in {event.component for event in result.events}
        assert find_singular(model, x, min_scale * (1 + 1e-6)) == [1]


@pytest.mark.parametrize("family", MODELS)
def test_em_under_clamp_never_raises_the_nll(family: str) -> None:
    x = points(12)
    models = MODELS[family](5, 2, batch_shape=6, dtype=FLOAT64)
    gmmedu.initialize(models, x, "points", generator=seeded(0))
    result = gmmedu.fit_em(models, x, 100, tolerance=0.0, mitigation=Clamp(0.05))
    rises = result.history.diff(dim=0).amax(0)
    assert bool((rises <= 1e-9).all()), rises


def test_a_clamped_component_is_told_once() -> None:
    x = points()
    result = fit("em", narrow_on_a_point("full", x), x, mitigation=Clamp())
    assert [event.component for event in result.events] == [1]
    assert result.num_iterations == 100


def test_the_floor_is_relative_to_the_data() -> None:
    x = points()
    for scale in (1e-8, 1.0, 1e8):
        model = narrow_on_a_point("isotropic", x).double()
        model.set_parameters(
            means=scale * model.means.detach(), covariances=scale**2 * model.covariances.detach()
        )
        fit("em", model, scale * x, mitigation=Clamp(1e-2))
        deviation = float(model.covariances[1, 0, 0].detach().sqrt())
        typical = float(x.var(0, correction=0).mean().sqrt())
        assert deviation == pytest.approx(scale * 1e-2 * typical, rel=1e-6)


# Reset


@pytest.mark.parametrize("family", OWN)
@pytest.mark.parametrize("fitter", FITTERS)
def test_reset_moves_the_component_to_a_data_point(fitter: str, family: str) -> None:
    x = points()
    model = narrow_on_a_point(family, x)
    result = fit(fitter, model, x, mitigation=Reset(), generator=seeded(3), snapshot_every=1)
    resets = [event for event in result.events if event.action == "reset"]
    assert resets
    assert resets[0].component == 1
    by_iteration = {snapshot.iteration: snapshot for snapshot in result.snapshots}
    spread = x.var(0, correction=0)
    for event in resets:
        after = by_iteration[event.iteration]
        distances = (x - after.means[event.component]).norm(dim=1)
        assert float(distances.min()) < 1e-9
        # Afresh: the data's own variances, and an equal share, at most, of the weight.
        variances = after.covariances[event.component].diagonal()
        expected = spread.mean().expand(2) if family == "isotropic" else spread
        torch.testing.assert_close(variances, expected, rtol=1e-6, atol=0)
        assert 0.3 < float(after.weights[event.component]) <= 0.5 + 1e-9
        assert float(after.weights.sum()) == pytest.approx(1)
    assert find_singular(model, x, 1e-3 * (1 - 1e-9)) == []


@pytest.mark.parametrize("max_resets", [0, 1, 3])
@pytest.mark.parametrize("family", ["full", "tied", "diagonal", "isotropic", "shared_isotropic"])
@pytest.mark.parametrize("fitter", FITTERS)
def test_the_number_of_resets_is_limited(fitter: str, family: str, max_resets: int) -> None:
    """On duplicates nothing helps: the resets are used up, then the floor holds."""
    x = torch.full((20, 2), 3.0, dtype=FLOAT64)
    model = MODELS[family](2, 2, dtype=FLOAT64, generator=seeded(0))
    gmmedu.initialize(model, x, "points", generator=seeded(0))
    result = fit(fitter, model, x, mitigation=Reset(max_resets=max_resets), generator=seeded(1))
    resets = sum(event.action == "reset" for event in result.events)
    # Both components are singular at once, where each has a covariance of its own.
    together = 2 if family in OWN else 1
    assert resets == max_resets // together * together
    assert find_singular(model, x, 1e-3 * (1 - 1e-9)) == []


@pytest.mark.parametrize("family", ["full", "isotropic"])
@pytest.mark.parametrize("fitter", FITTERS)
def test_reset_is_reproducible(fitter: str, family: str) -> None:
    x = points()
    fits = {}
    for run, seed in enumerate((3, 3, 4)):
        model = narrow_on_a_point(family, x)
        torch.manual_seed(11 + 7 * run)  # the global generator must not matter
        result = fit(
            fitter, model, x, mitigation=Reset(), generator=seeded(seed), snapshot_every=1,
        )  # fmt: skip
        at = next(event.iteration for event in result.events if event.action == "reset")
        fits[run] = (result.history, result.events, model.means.detach(), result.snapshots[at])
    assert torch.equal(fits[0][0], fits[1][0])
    assert fits[0][1] == fits[1][1]
    assert torch.equal(fits[0][2], fits[1][2])
    assert not torch.equal(fits[0][3].means[1], fits[2][3].means[1])


@pytest.mark.parametrize("fitter", FITTERS)
def test_reset_goes_to_points_that_count(fitter: str) -> None:
    """A point of weight zero is not there, for a reset either."""
    x = points()
    weights = torch.zeros(len(x), dtype=FLOAT64)
    weights[:12] = 1
    model = narrow_on_a_point("full", x)
    result = fit(
        fitter, model, x, mitigation=Reset(), sample_weight=weights, generator=seeded(3),
        snapshot_every=1,
    )  # fmt: skip
    resets = [event for event in result.events if event.action == "reset"]
    assert resets
    for event in resets:
        mean = result.snapshots[event.iteration].means[event.component]
        assert int((x - mean).norm(dim=1).argmin()) < 12


# Prior


@pytest.mark.parametrize("family", OWN)
@pytest.mark.parametrize("fitter", FITTERS)
def test_a_prior_prevents_the_collapse(fitter: str, family: str) -> None:
    x = points()
    model = narrow_on_a_point(family, x)
    result = fit(fitter, model, x, mitigation=Prior())
    assert result.events == []
    # EM goes straight to the prior's own size, far from any floor. Adam has seen the steep
    # gradient of a narrow start and climbs slowly since, but it climbs.
    assert find_singular(model, x, 0.1 if fitter == "em" else 5e-3) == []


@pytest.mark.parametrize("family", ["full", "tied", "diagonal", "isotropic", "shared_isotropic"])
def test_a_prior_on_duplicates_leaves_its_own_size(family: str) -> None:
    """No scatter in the data: the covariance is the prior's scatter over prior and data points.

    Constant data have unit 1, so the prior's numbers are in the data's own units here.
    """
    num_points, num_dims, scatter, degrees = 20, 2, 0.5, 6.0
    x = torch.full((num_points, num_dims), 3.0, dtype=FLOAT64)
    model = MODELS[family](1, num_dims, dtype=FLOAT64, init_means=x[:1])
    result = gmmedu.fit_em(model, x, 10, 0.0, mitigation=Prior(scatter=scatter, degrees=degrees))
    expected = scatter / (num_points + degrees + num_dims + 1)
    assert result.events == []
    covariance = model.covariances[0].detach()
    torch.testing.assert_close(covariance, expected * torch.eye(2, dtype=FLOAT64))


@pytest.mark.parametrize("family", OWN)
def test_the_two_fitters_meet_under_a_prior(family: str) -> None:
    """Maximum a posteriori by both roads, from four starts: descent, long enough, ends where EM
    does."""
    x = points(30)
    x[15:] += 6
    start = MODELS[family](2, 2, batch_shape=4, dtype=FLOAT64)
    gmmedu.initialize(start, x, "kmeans", generator=seeded(0))
    other = MODELS[family](2, 2, batch_shape=4, dtype=FLOAT64)
    other.load_state_dict(start.state_dict())
    by_em = gmmedu.fit_em(start, x, 300, tolerance=0.0, mitigation=Prior())
    by_descent = gmmedu.fit_model(other, x, 300, 0.1, 0.1, mitigation=Prior())
    torch.testing.assert_close(by_descent.nll, by_em.nll, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        other.covariances.detach(), start.covariances.detach(), rtol=1e-3, atol=1e-3
    )


# The record of a fit that fails


@pytest.mark.parametrize("fitter", FITTERS)
def test_a_failure_at_the_first_step_leaves_the_start(fitter: str) -> None:
    x = torch.full((10, 2), 2.0, dtype=FLOAT64)
    model = MODELS["full"](2, 2, dtype=FLOAT64, generator=seeded(0))
    model.set_parameters(
        means=x[:2], covariances=6e-30 * torch.eye(2, dtype=FLOAT64).repeat(2, 1, 1)
    )
    before = parameters(model)
    with pytest.raises(SingularityError) as caught:
        fit(fitter, model, x, mitigation=None)
    assert caught.value.iteration == 1
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("dtype", [torch.float32, FLOAT64], ids=str)
@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("fitter", FITTERS)
def test_a_likelihood_out_of_range_is_refused(fitter: str, family: str, dtype: torch.dtype) -> None:
    x = points().to(dtype)
    model = MODELS[family](2, 2, dtype=dtype)
    far = torch.full((2, 2), 0.1 * torch.finfo(dtype).max, dtype=FLOAT64)
    model.set_parameters(means=far)
    before = parameters(model)
    for mitigation in (None, Clamp(), Reset(), Prior()):
        with pytest.raises(SingularityError, match="NLL is no longer finite at iteration 0") as at:
            fit(fitter, model, x, mitigation=mitigation)
        assert at.value.iteration == 0
        assert "gmmedu.initialize(model, x)" in str(at.value)
        after = model.state_dict()
        assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("fitter", FITTERS)
def test_a_model_that_is_broken_already_is_named(fitter: str, family: str) -> None:
    """Not through this package's own functions, but a loaded state or an optimizer can do it."""
    x = points()
    model = MODELS[family](3, 2, dtype=FLOAT64)
    with torch.no_grad():
        model.means[1, 0] = float("nan")
    with pytest.raises(SingularityError, match="at iteration 0; component 1") as caught:
        fit(fitter, model, x)
    assert caught.value.component == 1


@pytest.mark.parametrize("fitter", FITTERS)
def test_a_callback_that_fails_leaves_the_state_it_saw(fitter: str) -> None:
    x = points()
    model = MODELS["full"](2, 2, dtype=FLOAT64, generator=seeded(0))
    seen: list[float] = []

    def stumble(_: GaussianMixture, iteration: int, nll: float) -> None:
        seen.append(nll)
        if iteration == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(fitter, model, x, callback=stumble)
    assert float(model(x).detach()) == pytest.approx(seen[-1], abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, FLOAT64], ids=str)
@pytest.mark.parametrize("family", OWN)
@pytest.mark.parametrize("mitigation", [None, Clamp(), Reset()], ids=repr)
def test_an_empty_component_stays_where_it_is(
    mitigation: Any, family: str, dtype: torch.dtype
) -> None:
    """No point is its own, so nothing moves it: it is empty, not singular."""
    x = points().to(dtype)
    model = MODELS[family](2, 2, dtype=dtype)
    model.set_parameters(means=torch.tensor([[0.0, 0.0], [500.0, -500.0]]))
    result = gmmedu.fit_em(model, x, 20, 0.0, mitigation=mitigation, generator=seeded(0))
    assert result.events == []
    torch.testing.assert_close(model.means[1].tolist(), [500.0, -500.0], rtol=1e-5, atol=0)
    eye = torch.eye(2, dtype=dtype)
    torch.testing.assert_close(model.covariances[1].detach(), eye, rtol=1e-5, atol=1e-6)
    assert float(model.weights[1].detach()) < 1e-30
    torch.testing.assert_close(model.means[0].detach(), x.mean(0), rtol=1e-4, atol=1e-5)


def test_a_failed_fit_can_go_on_with_a_cure() -> None:
    x = points()
    model = narrow_on_a_point("full", x)
    with pytest.raises(SingularityError):
        gmmedu.fit_em(model, x, mitigation=None)
    for mitigation in (Clamp(), Reset(), Prior()):
        again = MODELS["full"](2, 2, dtype=FLOAT64)
        again.load_state_dict(model.state_dict())
        result = gmmedu.fit_em(again, x, 200, 0.0, mitigation=mitigation, generator=seeded(0))
        assert math.isfinite(result.nll)
        assert find_singular(again, x, 1e-3 * (1 - 1e-9)) == []


@pytest.mark.parametrize("dtype", [torch.float32, FLOAT64], ids=str)
@pytest.mark.parametrize("family", MODELS)
def test_galaxies_with_too_many_components(family: str, dtype: torch.dtype) -> None:
    """82 real velocities and 20 components: singular fits wait here, and the default copes."""
    x = gmmedu.load_galaxies(dtype=dtype)
    models = MODELS[family](20, 1, batch_shape=3, dtype=dtype)
    gmmedu.initialize(models, x, "points", generator=seeded(0))
    result = gmmedu.fit_em(models, x, 200, 0.0)
    assert bool(torch.isfinite(result.nll).all())
    for member, nll in enumerate(result.nll.tolist()):
        model = models[member]
        with torch.no_grad():
            assert float(model(x)) == pytest.approx(nll, abs=1e-3)
        if family != "constant":
            assert find_singular(model, x, 1e-3 * (1 - 1e-3)) == []


# The unit of the floors


def units_of(x: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Center and scale of points (N, D), (D,) each."""
    units = Units.of([moments([(x, weights)])], per_dimension=True)
    return units.center[0], units.scale[0]


@pytest.mark.parametrize("num_points", [20, 300, 20_000])
def test_one_outlier_does_not_set_the_unit(num_points: int) -> None:
    x = torch.randn(num_points, 2, generator=seeded(5), dtype=FLOAT64)
    bulk_center, bulk_scale = units_of(x[:-1])
    x[-1] = 1e6
    for weights in (None, torch.full_like(x[:, 0], 2.0)):
        center, scale = units_of(x, weights)
        torch.testing.assert_close(scale, bulk_scale, rtol=0.2, atol=0)
        torch.testing.assert_close(center, bulk_center, rtol=0, atol=0.2)
    gap = x.clone()
    gap[0, 1] = math.nan
    torch.testing.assert_close(units_of(gap)[1], bulk_scale, rtol=0.2, atol=0)


def test_without_outliers_the_unit_is_the_standard_deviation() -> None:
    mostly_constant = torch.zeros(300, 1, dtype=FLOAT64)
    mostly_constant[0] = 1.0
    for x in (gmmedu.load_old_faithful(), gmmedu.load_galaxies(), mostly_constant):
        _, scale = units_of(x)
        torch.testing.assert_close(scale, x.std(0, correction=0), rtol=1e-12, atol=0)


@pytest.mark.parametrize("method", ["kmeans", "kmeans++"])
def test_descent_fits_the_bulk_beside_an_outlier(method: str) -> None:
    x = torch.cat([points(150), points(150) + 6])
    x[-1] = 1e4
    model = MODELS["full"](3, 2, dtype=FLOAT64)
    gmmedu.initialize(model, x, method, generator=seeded(1))
    gmmedu.fit_model(model, x, 1000, 5e-3, 5e-2)
    clean = torch.cat([points(150), points(150) + 6])[:-1]
    other = MODELS["full"](2, 2, dtype=FLOAT64)
    gmmedu.initialize(other, clean, "kmeans", generator=seeded(1))
    gmmedu.fit_em(other, clean)
    assert float(model(clean).detach()) < float(other(clean).detach()) + 0.05
