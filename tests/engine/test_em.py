"""EM: one step against the textbook, many against scikit-learn, optima against published fits."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import pytest
import reference
import torch
from reference import Array, Mixture
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as SklearnMixture
from torch import Tensor

import gmmedu
from gmmedu import Clamp, GaussianMixture, Prior, fit_em
from gmmedu.values import State, absent, each

FAMILIES = pytest.mark.parametrize("name", reference.ALL)
#: The bound is meant to bind, and a fit that ends on it says so.
ON_THE_FLOOR = pytest.mark.filterwarnings("ignore::gmmedu.SingularityWarning")


def model_of(name: str, mixture: Mixture, dtype: torch.dtype = torch.float64) -> GaussianMixture:
    num_components, num_dims = mixture.means.shape
    model = gmmedu.MODELS[name](num_components, num_dims, dtype=dtype)
    return model.set_parameters(**mixture.tensors())


def mixture_of(model: GaussianMixture) -> Mixture:
    parts = (model.weights, model.means, model.covariances)
    return Mixture(*(part.detach().double().numpy().copy() for part in parts))


def problem(
    name: str, num_components: int = 3, num_dims: int = 2, num_points: int = 300, seed: int = 0
) -> tuple[GaussianMixture, Tensor]:
    """Points of one mixture, and a model of the same family that starts at some of them."""
    truth = reference.random_mixture(name, num_components, num_dims, seed)
    x = reference.draw(truth, num_points, seed)
    start = reference.random_mixture(name, num_components, num_dims, seed + 100)
    start.means[:] = x[:num_components]
    if name == "constant":
        start.covariances[:] = truth.covariances
    return model_of(name, start), torch.tensor(x)


def assert_same(found: Mixture, expected: Mixture, spread: float, bar: float) -> None:
    """Equal to ``bar``, beside the spread of the data for means, its square for covariances."""
    scales = (1.0, spread, spread**2)
    for a, b, scale, field in zip(found, expected, scales, Mixture._fields, strict=True):
        error = float(np.abs(a - b).max()) / scale
        assert error < bar, f"{field} are off by {error:.1e}"


# One step


@FAMILIES
@pytest.mark.parametrize("num_dims", [1, 2, 3, 16, 64], ids="D={}".format)
@pytest.mark.parametrize("num_components", [1, 2, 8, 64], ids="K={}".format)
def test_one_step_agrees_with_the_textbook(name: str, num_components: int, num_dims: int) -> None:
    mixture = reference.random_mixture(name, num_components, num_dims)
    # Enough points for every component to have a covariance of full rank.
    each = 3 * num_dims if name == "full" else 10
    num_points = max(200, each * num_components)
    x = reference.draw(mixture, num_points)
    weights = np.random.default_rng(1).uniform(0.2, 2.0, num_points)
    for sample_weight in (weights,) if num_points > 5000 else (None, weights):
        model = model_of(name, mixture)
        given = None if sample_weight is None else torch.tensor(sample_weight)
        fit = fit_em(model, torch.tensor(x), 1, tolerance=0, mitigation=None, sample_weight=given)
        assert fit.num_iterations == 1
        expected = reference.em_step(name, mixture, x, sample_weight)
        assert_same(mixture_of(model), expected, spread=float(x.std()), bar=1e-10)
        log_density = reference.log_density(expected, x)
        assert fit.nll == pytest.approx(-np.average(log_density, weights=sample_weight), rel=1e-10)


# The record


@FAMILIES
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_nll_never_rises(name: str, seed: int) -> None:
    model, x = problem(name, 4, 3, seed=seed)
    fit = fit_em(model, x, 60, tolerance=0, mitigation=None)
    # The NLL is a mean of 300 numbers of size 10, so rounding moves it by about 1e-15.
    assert float(fit.history.diff().max()) < 1e-13
    assert float(fit.history[0] - fit.history[-1]) > 1e-3


@ON_THE_FLOOR
@FAMILIES
@pytest.mark.parametrize("min_scale", [0.75, 0.9])
def test_the_nll_never_rises_under_a_bound_that_binds(name: str, min_scale: float) -> None:
    model, x = problem(name, 4, 3)
    # The first step may rise: it brings a start from below the bound to it.
    fit_em(model, x, 1, tolerance=0, mitigation=Clamp(min_scale))
    fit = fit_em(model, x, 60, tolerance=0, mitigation=Clamp(min_scale))
    assert float(fit.history.diff().max()) < 1e-13
    assert bool(fit.events) == (name != "constant")
    scale = x.std(0, correction=0).numpy()
    if name not in reference.PER_DIMENSION:
        scale[:] = np.sqrt((scale**2).mean())
    if name != "constant":
        relative = mixture_of(model).covariances / scale / scale[:, None]
        assert np.linalg.eigvalsh(relative).min() > min_scale**2 * (1 - 1e-10)


@FAMILIES
def test_history_belongs_to_the_parameters_of_its_iteration(name: str) -> None:
    model, x = problem(name)
    seen: list[tuple[int, float, float]] = []

    def note(current: GaussianMixture, iteration: int, nll: float) -> None:
        seen.append((iteration, nll, current(x).item()))

    before = model(x).item()
    fit = fit_em(model, x, 12, tolerance=0, callback=note, snapshot_every=5)
    assert [iteration for iteration, _, _ in seen] == list(range(13))
    assert [nll for _, nll, _ in seen] == fit.history.tolist()
    recomputed = torch.tensor([value for _, _, value in seen], dtype=torch.float64)
    torch.testing.assert_close(recomputed, fit.history, rtol=0, atol=1e-12)
    assert fit.history[0].item() == pytest.approx(before, abs=1e-12)
    assert fit.nll == fit.history[-1].item() == pytest.approx(model(x).item(), abs=1e-12)
    assert [snapshot.iteration for snapshot in fit.snapshots] == [0, 5, 10, 12]
    for snapshot in fit.snapshots:
        assert snapshot.nll == fit.history[snapshot.iteration].item()
        kept = Mixture(
            snapshot.weights.numpy(), snapshot.means.numpy(), snapshot.covariances.numpy()
        )
        value = -reference.log_density(kept, x.numpy()).mean()
        assert value == pytest.approx(snapshot.nll, abs=1e-12)


def test_the_fields_of_the_record() -> None:
    model, x = problem("full")
    fit = fit_em(model, x, 7, tolerance=0)
    assert isinstance(fit, gmmedu.FitResult)
    assert (fit.num_iterations, fit.converged, fit.events, fit.snapshots) == (7, False, [], [])
    assert fit.history.shape == fit.elapsed.shape == (8,)
    assert fit.history.dtype == fit.elapsed.dtype == torch.float64
    assert fit.history.device.type == "cpu"
    assert bool((fit.elapsed.diff() > 0).all()) and 0 < float(fit.elapsed[-1]) <= fit.seconds
    assert isinstance(fit.nll, float)


@FAMILIES
def test_no_iterations_change_nothing(name: str) -> None:
    model, x = problem(name)
    before = copy.deepcopy(model.state_dict())
    fit = fit_em(model, x, 0)
    assert fit.num_iterations == 0 and fit.history.shape == (1,)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_a_true_answer_of_the_callback_stops_the_fit() -> None:
    model, x = problem("full")
    fit = fit_em(model, x, 50, tolerance=0, callback=lambda _, iteration, nll: iteration == 4)
    assert fit.num_iterations == 4 and not fit.converged
    assert fit.nll == pytest.approx(model(x).item(), abs=1e-12)


def test_a_fit_goes_on_where_the_last_one_ended() -> None:
    model, x = problem("full")
    twin = copy.deepcopy(model)
    whole = fit_em(model, x, 20, tolerance=0).history
    first, second = (fit_em(twin, x, 10, tolerance=0).history for _ in range(2))
    joined = torch.cat([first, second[1:]])
    torch.testing.assert_close(joined, whole, rtol=0, atol=1e-11)


def test_the_progress_bar_counts_iterations_and_shows_the_nll(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, x = problem("full")
    fit = fit_em(model, x, 5, tolerance=0, progress=True)
    shown = capsys.readouterr().err
    assert "5/5" in shown and f"nll={fit.nll:.6f}" in shown
    fit_em(model, x, 5, tolerance=0)
    assert capsys.readouterr().err == ""


# Where it ends


def test_convergence_is_a_change_below_the_tolerance() -> None:
    model, x = problem("full")
    fit = fit_em(model, x, 2000, tolerance=1e-6)
    assert fit.converged and fit.num_iterations < 2000
    changes = fit.history.diff().abs()
    assert float(changes[-1]) < 1e-6 and bool((changes[:-1] >= 1e-6).all())
    assert fit_em(model, x, 300, tolerance=0).num_iterations == 300


@FAMILIES
def test_at_a_fixed_point_the_gradient_is_zero(name: str) -> None:
    model, x = problem(name)
    fit_em(model, x, 1500, tolerance=0, mitigation=None)
    gradients = torch.autograd.grad(model(x), list(model.parameters()))
    # By 1500 iterations even a slow rate of 0.99 leaves 1e-6 of the way.
    assert max(float(g.abs().max()) for g in gradients) < 1e-7


SKLEARN = {"full": "full", "tied": "tied", "diagonal": "diag", "isotropic": "spherical"}


@pytest.mark.parametrize("name", SKLEARN)
@pytest.mark.parametrize(("num_components", "num_dims"), [(2, 1), (3, 2), (5, 6)])
def test_scikit_learn_walks_the_same_way(name: str, num_components: int, num_dims: int) -> None:
    model, x = problem(name, num_components, num_dims, num_points=600)
    start = mixture_of(model)
    precisions = np.linalg.inv(start.covariances)
    peer = SklearnMixture(
        num_components,
        covariance_type=SKLEARN[name],
        tol=0,
        reg_covar=0,
        max_iter=25,
        weights_init=start.weights,
        means_init=start.means,
        precisions_init={
            "full": precisions,
            "tied": precisions[0],
            "diagonal": np.stack([np.diag(p) for p in precisions]),
            "isotropic": precisions[:, 0, 0],
        }[name],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # tol=0 cannot be met
        peer.fit(x.numpy())
    assert peer.n_iter_ == 25
    fit = fit_em(model, x, 25, tolerance=0, mitigation=None)
    identity = np.eye(num_dims)
    covariances = {
        "full": lambda c: c,
        "tied": lambda c: np.stack([c] * num_components),
        "diagonal": lambda c: np.stack([np.diag(v) for v in c]),
        "isotropic": lambda c: c[:, None, None] * identity,
    }[name](peer.covariances_)
    expected = Mixture(peer.weights_, peer.means_, covariances)
    assert_same(mixture_of(model), expected, spread=float(x.std()), bar=1e-9)
    assert fit.nll == pytest.approx(-peer.score(x.numpy()), abs=1e-10)


@pytest.mark.parametrize("method", ["points", "kmeans", "kmeans++"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_old_faithful_with_two_full_components(method: str, seed: int) -> None:
    """The best optimum known: log likelihood -1130.2640, found alike by independent software."""
    x = gmmedu.load_old_faithful()
    model = gmmedu.GmmFull(2, 2, dtype=torch.float64)
    gmmedu.initialize(model, x, method, generator=torch.Generator().manual_seed(seed))
    fit = fit_em(model, x, 1000, tolerance=1e-12)
    assert fit.converged and not fit.events
    assert -272 * fit.nll == pytest.approx(-1130.2640, abs=1e-4)
    order = model.weights.argsort()
    found = mixture_of(model)
    np.testing.assert_allclose(found.weights[order], [0.35587, 0.64413], rtol=0, atol=1e-5)
    expected = [[2.0364, 54.4785], [4.2897, 79.9681]]
    np.testing.assert_allclose(found.means[order], expected, rtol=0, atol=1e-4)


def best_of(name: str, num_components: int, x: Tensor, num_starts: int) -> float:
    """The highest log likelihood that EM reaches from some starts at random points."""
    reached = []
    for seed in range(num_starts):
        model = gmmedu.MODELS[name](num_components, x.shape[1], dtype=torch.float64)
        gmmedu.initialize(model, x, "points", generator=torch.Generator().manual_seed(seed))
        reached.append(-len(x) * fit_em(model, x, 10_000, tolerance=1e-11).nll)
    return max(reached)


def test_old_faithful_with_three_tied_components() -> None:
    """mclust's model EEE (Scrucca et al. 2016, The R Journal 8, 289): -1126.316."""
    x = gmmedu.load_old_faithful()
    assert best_of("tied", 3, x, 4) == pytest.approx(-1126.316, abs=1e-3)


@pytest.mark.parametrize("name", ["full", "diagonal", "isotropic"])
def test_the_galaxies_with_three_free_variances(name: str) -> None:
    """mclust's model V, in 1000 km/s: -203.1792. In one dimension three families are one."""
    assert best_of(name, 3, gmmedu.load_galaxies(), 6) == pytest.approx(-203.1792, abs=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_in_one_dimension_three_families_are_one(seed: int) -> None:
    start = reference.random_mixture("full", 3, 1, seed)
    x = torch.tensor(reference.draw(reference.random_mixture("full", 3, 1, seed + 50), 200))
    fits = [
        fit_em(model_of(name, start), x, 30, tolerance=0).history
        for name in ("full", "diagonal", "isotropic")
    ]
    torch.testing.assert_close(fits[1], fits[0], rtol=0, atol=1e-11)
    torch.testing.assert_close(fits[2], fits[0], rtol=0, atol=1e-11)


# Weights of points


@ON_THE_FLOOR
@FAMILIES
@pytest.mark.parametrize("mitigation", [None, Clamp(0.7), Prior()], ids=["none", "clamp", "prior"])
@pytest.mark.parametrize("fitter", ["em", "descent"])
def test_integer_weights_count_as_repeated_points(name: str, mitigation: Any, fitter: str) -> None:
    model, x = problem(name)
    twin = copy.deepcopy(model)
    # The weights lean to one side, and leave out some points, so that they move every average.
    times = torch.arange(300) % 3 + 2 * (x[:, 0] > x[:, 0].median())
    fit = fit_em if fitter == "em" else gmmedu.fit_model
    options: dict[str, Any] = {"num_iterations": 10, "tolerance": 0, "mitigation": mitigation}
    weighted = fit(model, x, sample_weight=times.double(), **options)
    repeated = fit(twin, x.repeat_interleave(times, 0), **options)
    torch.testing.assert_close(weighted.history, repeated.history, rtol=0, atol=1e-10)
    assert_same(mixture_of(model), mixture_of(twin), spread=float(x.std()), bar=1e-9)


@FAMILIES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_point_without_weight_is_as_good_as_gone(name: str, dtype: torch.dtype) -> None:
    """However far it lies: it must not set the units, the floor or the digits lost either."""
    model, x = problem(name)
    model = model.to(dtype)
    x = torch.cat([x, torch.full((1, 2), 1e6, dtype=x.dtype)])
    weight = torch.ones(301, dtype=torch.float64)
    weight[-1] = 0
    twin = copy.deepcopy(model)
    fit_em(model, x, 10, tolerance=0, sample_weight=weight)
    fit_em(twin, x[:-1], 10, tolerance=0)
    bar = 1e-9 if dtype == torch.float64 else 1e-3
    assert_same(mixture_of(model), mixture_of(twin), spread=float(x[:-1].std()), bar=bar)


@FAMILIES
def test_only_the_ratios_of_weights_matter(name: str) -> None:
    model, x = problem(name)
    twin = copy.deepcopy(model)
    weight = torch.linspace(0.1, 2, 300, dtype=torch.float64)
    first = fit_em(model, x, 10, tolerance=0, sample_weight=weight)
    second = fit_em(twin, x, 10, tolerance=0, sample_weight=1000 * weight)
    torch.testing.assert_close(first.history, second.history, rtol=0, atol=1e-12)


# Maximum a posteriori


@FAMILIES
@pytest.mark.parametrize(
    "prior", [Prior(), Prior(scatter=0.5, degrees=9.0)], ids=["default", "strong"]
)
def test_the_prior_s_fixed_point_maximizes_the_posterior(name: str, prior: Prior) -> None:
    model, x = problem(name, 3, 2, num_points=120)
    fit = fit_em(model, x, 1200, tolerance=0, mitigation=prior)
    assert fit.nll == pytest.approx(model(x).item(), abs=1e-12)  # plain, without the prior
    degrees = 4.0 if prior.degrees is None else prior.degrees  # D + 2
    scatter = 1 / 3 if prior.scatter is None else prior.scatter  # K^(-2/D)
    _, scale = reference.units_of(name, x.numpy())
    gradients = reference.gradient(
        name,
        (model.logits, model.means, model.raw_scale),
        x,
        prior_scatter=torch.diag(torch.tensor(scatter * scale**2)),
        prior_points=degrees + 3,  # D + 1 more: the density has |Sigma|^{-(degrees + D + 1) / 2}
    )
    assert max(float(g.abs().max()) for g in gradients) < 1e-7
    plain = reference.gradient(name, (model.logits, model.means, model.raw_scale), x)
    assert name == "constant" or float(plain[2].abs().max()) > 1e-2  # so it is no other optimum


@FAMILIES
def test_one_step_under_the_prior(name: str) -> None:
    model, x = problem(name, 3, 2, num_points=120)
    start = mixture_of(model)
    fit_em(model, x, 1, tolerance=0, mitigation=Prior(scatter=0.5, degrees=9.0))
    _, scale = reference.units_of(name, x.numpy())
    expected = reference.em_step(name, start, x.numpy(), None, np.diag(0.5 * scale**2), 12.0)
    assert_same(mixture_of(model), expected, spread=float(x.std()), bar=1e-10)


# Units


@FAMILIES
@pytest.mark.parametrize("size", [1e-8, 1.0, 1e8], ids="size {:g}".format)
def test_the_fit_does_not_depend_on_the_units(name: str, size: float) -> None:
    model, x = problem(name)
    per_dimension = name in reference.PER_DIMENSION
    scale = size * np.array([2.0, -30.0] if per_dimension else [-0.7, -0.7])
    shift = size * np.array([5.0, -3.0])
    moved = model_of(name, reference.transform(mixture_of(model), scale, shift))
    there = x * torch.tensor(scale) + torch.tensor(shift)
    here = fit_em(model, x, 25, tolerance=0)
    away = fit_em(moved, there, 25, tolerance=0)
    jacobian = float(np.log(np.abs(scale)).sum())
    torch.testing.assert_close(away.history, here.history + jacobian, rtol=0, atol=1e-9)
    expected = reference.transform(mixture_of(model), scale, shift)
    found = mixture_of(moved)
    bars = (1.0, np.abs(scale), np.abs(np.outer(scale, scale)))
    for a, b, unit in zip(found, expected, bars, strict=True):
        assert float((np.abs(a - b) / unit).max()) < 1e-9


@FAMILIES
@pytest.mark.parametrize("fitter", ["em", "descent"])
def test_float32_far_from_the_origin_keeps_its_digits(name: str, fitter: str) -> None:
    """Offset 1e4, spread 1: covariances positive definite, within 1 % of those of float64."""
    truth = reference.random_mixture(name, 3, 3)
    truth = reference.transform(truth, np.full(3, 0.4), np.full(3, 1e4))
    x = torch.tensor(reference.draw(truth, 1000))
    assert 0.5 < float(x.std()) < 1.5
    found = {}
    for dtype in (torch.float32, torch.float64):
        model = model_of(name, truth, dtype)
        if fitter == "em":
            fit_em(model, x.to(dtype), 50, tolerance=0, mitigation=None)
        else:
            gmmedu.fit_model(model, x.to(dtype), 300, mitigation=None)
        assert model.covariances.dtype == dtype
        found[dtype] = mixture_of(model)
    rough, exact = found[torch.float32], found[torch.float64]
    assert np.linalg.eigvalsh(rough.covariances).min() > 0
    error = np.abs(rough.covariances - exact.covariances).max((1, 2))
    assert (error < 0.01 * np.linalg.norm(exact.covariances, 2, (1, 2))).all()
    np.testing.assert_allclose(rough.weights, exact.weights, rtol=0, atol=0.01)


# What stays


@pytest.mark.parametrize("fitter", ["em", "descent"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_given_variance_never_changes(fitter: str, dtype: torch.dtype) -> None:
    _, x = problem("full", num_dims=3)
    model = gmmedu.GmmConstant(3, 3, variance=0.37, dtype=dtype)
    before = model.raw_scale.clone()
    gmmedu.initialize(model, x, generator=torch.Generator().manual_seed(0))
    fit = (fit_em if fitter == "em" else gmmedu.fit_model)(model, x, 50, tolerance=0)
    assert fit.nll < fit.history[0]
    torch.testing.assert_close(
        model.raw_scale, before, rtol=1e-6 if dtype == torch.float32 else 1e-14, atol=0
    )
    expected: Array = 0.37 * np.eye(3)
    for covariance in mixture_of(model).covariances:
        np.testing.assert_allclose(covariance, expected, rtol=1e-6, atol=1e-12)


def test_a_fit_leaves_no_gradients_and_no_history_of_autograd() -> None:
    model, x = problem("full")
    fit_em(model, x.requires_grad_(), 5, tolerance=0)
    assert x.grad is None and all(p.grad is None for p in model.parameters())
    assert all(p.is_leaf and p.requires_grad for p in model.parameters())


@ON_THE_FLOOR
@FAMILIES
@pytest.mark.parametrize("accelerate", [None, "squarem"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_component_that_is_absent_stays_so(
    name: str, accelerate: Any, dtype: torch.dtype
) -> None:
    """It takes no point, be it the nearest by far, and the others fit as without it."""
    model, x = problem(name, 2, 2)
    x = torch.cat([x, torch.full((1, 2), 50 * float(x.abs().max()))]).to(dtype)
    state = model.state()
    wide = state.means.new_full((1, 2), float(x.max()))
    scales = each(
        lambda part: part if model.family.shared else torch.cat([part, part[:1]]), state.scales
    )
    with_it = State(
        torch.cat([state.log_weights, torch.tensor([absent(dtype)], dtype=torch.float64)]),
        torch.cat([state.means, wide]),
        scales,
    )
    options: dict[str, Any] = (
        {"variance": float(state.scales.factor.flatten()[0]) ** 2} if name == "constant" else {}
    )
    alone, beside = (
        gmmedu.MODELS[name](count, 2, dtype=dtype, **options).set_state(
            each(lambda p: p.to(dtype), its)
        )
        for count, its in ((2, state), (3, with_it))
    )
    for one in (alone, beside):
        fit_em(one, x, 30, tolerance=0, accelerate=accelerate)
    bar = 1e-4 if dtype == torch.float32 else 1e-9
    assert float(beside.state().log_weights[2].detach()) == absent(dtype)
    for found, expected in zip(beside.state()[:2], alone.state()[:2], strict=True):
        assert torch.allclose(found[:2], expected, rtol=bar, atol=bar)
    assert torch.allclose(beside.covariances[:2], alone.covariances, rtol=bar, atol=bar)
