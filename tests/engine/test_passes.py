"""One pass over the data: what it counts, by either road, in blocks, batches and with weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference
import torch
from reference import Array, Mixture

import gmmedu
from gmmedu import passes
from gmmedu.covariance import ConjugatePrior, Family
from gmmedu.descent import score
from gmmedu.em import m_step
from gmmedu.passes import Workspace, e_step
from gmmedu.values import Points, State, Statistics, add, each

FAMILIES = pytest.mark.parametrize("name", reference.ALL)
NUM_DIMS = pytest.mark.parametrize("num_dims", [1, 2, 3, 16, 64], ids="D={}".format)
NUM_COMPONENTS = pytest.mark.parametrize("num_components", [1, 2, 8, 64], ids="K={}".format)
ROADS = ("_from_residuals", "_from_features")
WEIGHTED = pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])


def state_of(name: str, mixture: Mixture, dtype: torch.dtype = torch.float64) -> State:
    raw_scale = torch.tensor(reference.theta_of(name, mixture.covariances), dtype=dtype)
    scales = gmmedu.MODELS[name].family.operator.from_raw(raw_scale)
    log_weights = torch.tensor(mixture.weights, dtype=dtype).log()
    return State(log_weights, torch.tensor(mixture.means, dtype=dtype), scales)


def points_of(x: Array, weights: Array | None = None, dtype: torch.dtype = torch.float64) -> Points:
    given = None if weights is None else torch.tensor(weights, dtype=dtype)
    return Points.of(torch.tensor(x, dtype=dtype), given)


def count(road: str, points: Points, family: Family, state: State) -> Statistics:
    """What a road of ``e_step`` counts, which serves a batch, for the one state."""
    batch = each(lambda part: part.unsqueeze(0), state)
    counted: Statistics = getattr(passes, road)(points, family, batch, Workspace())
    return Statistics(*(part[0] for part in counted))


def weights_of(x: Array, weighted: bool) -> Array | None:
    """None, or weights between 0 and 3, one point in seven without any."""
    if not weighted:
        return None
    weights = np.random.default_rng(8).uniform(0, 3, len(x))
    weights[::7] = 0
    return weights


def expected_statistics(name: str, mixture: Mixture, x: Array, weights: Array | None) -> Statistics:
    """The same sums, point by component, from scipy's responsibilities."""
    weight = np.ones(len(x)) if weights is None else weights
    shares = reference.responsibilities(mixture, x) * weight[:, None]
    whitened = [
        np.linalg.solve(np.linalg.cholesky(covariance), (x - mean).T).T
        for mean, covariance in zip(mixture.means, mixture.covariances, strict=True)
    ]
    first = np.stack([share @ y for share, y in zip(shares.T, whitened, strict=True)])
    second = np.stack(
        [(share[:, None] * y).T @ y for share, y in zip(shares.T, whitened, strict=True)]
    )
    if name not in ("full", "tied"):
        second = np.stack([np.diag(s) for s in second])
    if name in reference.SHARED:
        second = second.sum(0, keepdims=True)
    total = (weight * reference.log_density(mixture, x)).sum()
    return Statistics(torch.tensor(total), *map(torch.tensor, (shares.sum(0), first, second)))


def assert_same(found: Statistics, expected: Statistics, scale: float, bar: float = 1e-10) -> None:
    """Equal to ``bar`` beside ``scale``, the size of the largest sums."""
    for field in ("log_likelihood", "counts", "first", "second"):
        a, b = getattr(found, field), getattr(expected, field)
        assert a.shape == b.shape, field
        error = float((a.double() - b).abs().max()) / scale
        assert error < bar, f"{field} is off by {error:.1e}"


@FAMILIES
@NUM_DIMS
@NUM_COMPONENTS
def test_statistics_agree_with_explicit_sums_on_both_roads(
    name: str, num_components: int, num_dims: int
) -> None:
    mixture = reference.random_mixture(name, num_components, num_dims)
    x = reference.draw(mixture, 150)
    for weighted in (False, True):
        weights = weights_of(x, weighted)
        points, state = points_of(x, weights), state_of(name, mixture)
        expected = expected_statistics(name, mixture, x, weights)
        for road in ROADS:
            found = count(road, points, gmmedu.MODELS[name].family, state)
            assert found.log_likelihood.dtype == torch.float64
            assert_same(found, expected, scale=float(points.total) * num_dims)


@FAMILIES
def test_log_likelihood_is_summed_in_double_precision_whatever_the_data(name: str) -> None:
    mixture = reference.random_mixture(name, 2, 2)
    points = points_of(reference.draw(mixture, 10), dtype=torch.float32)
    state = state_of(name, mixture, torch.float32)
    for road in ROADS:
        found = count(road, points, gmmedu.MODELS[name].family, state)
        assert found.log_likelihood.dtype == torch.float64 and found.counts.dtype == torch.float32


@FAMILIES
@WEIGHTED
@pytest.mark.parametrize("num_points", [127, 128, 129, 384, 500])
def test_the_blocks_do_not_show(
    name: str, weighted: bool, num_points: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes, "BLOCK_BYTES", {"cpu": 1})  # the narrowest: 128 points
    mixture = reference.random_mixture(name, 3, 2)
    x = reference.draw(mixture, num_points)
    weights = weights_of(x, weighted)
    points, state = points_of(x, weights), state_of(name, mixture)
    assert passes._width(points, 6) == min(num_points, 128)
    expected = expected_statistics(name, mixture, x, weights)
    for road in ROADS:
        found = count(road, points, gmmedu.MODELS[name].family, state)
        assert_same(found, expected, scale=float(points.total))


@FAMILIES
@WEIGHTED
def test_batches_add(name: str, weighted: bool) -> None:
    mixture = reference.random_mixture(name, 3, 4)
    x = reference.draw(mixture, 200)
    weights = weights_of(x, weighted)
    family, state = gmmedu.MODELS[name].family, state_of(name, mixture)
    for road in ROADS:
        batches = [
            points_of(x[part], None if weights is None else weights[part])
            for part in (slice(0, 70), slice(70, 71), slice(71, 200))
        ]
        one, two, three = (count(road, batch, family, state) for batch in batches)
        whole = count(road, points_of(x, weights), family, state)
        assert_same(add(add(one, two), three), whole, scale=200, bar=1e-13)


@pytest.mark.parametrize("name", [name for name in reference.ALL if name != "full"])
def test_batches_add_whichever_road_each_took(name: str) -> None:
    """A batch with one far point takes the other road, and its sums must still fit."""
    mixture = reference.random_mixture(name, 3, 4)
    x = reference.draw(mixture, 200)
    family, state = gmmedu.MODELS[name].family, state_of(name, mixture)
    by_features = count("_from_features", points_of(x[:70]), family, state)
    by_residuals = count("_from_residuals", points_of(x[70:]), family, state)
    found = add(by_features, by_residuals)
    assert by_features.second.shape == by_residuals.second.shape
    expected = expected_statistics(name, mixture, x, None)
    assert found.second.shape == expected.second.shape
    assert_same(found, expected, scale=200)


@FAMILIES
@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6], ids="offset {:g}".format)
def test_a_pass_takes_the_road_that_keeps_the_digits(
    name: str, offset: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixture = reference.transform(
        reference.random_mixture(name, 3, 2), np.ones(2), np.full(2, offset)
    )
    x = reference.draw(mixture, 15_000)  # enough for the features to be worth it
    points, state = points_of(x), state_of(name, mixture)
    expected = expected_statistics(name, mixture, x, None)
    taken = []
    for road in ROADS:
        counts = getattr(passes, road)

        def noted(*given: Any, counts: Any = counts, road: str = road) -> Statistics:
            taken.append(road)
            counted: Statistics = counts(*given)
            return counted

        monkeypatch.setattr(passes, road, noted)
    found = e_step(points, gmmedu.MODELS[name].family, state)
    assert taken == [ROADS[1] if offset == 0 else ROADS[0]]
    # A double holds 1e6 + 1 to 1e-10 of that 1, which is all there is to know of a residual.
    assert_same(found, expected, scale=15_000, bar=1e-10 if offset < 1e6 else 1e-9)


@pytest.mark.parametrize("name", ["full", "tied"])
def test_a_correlated_covariance_keeps_its_digits_about_the_origin_too(name: str) -> None:
    """A line through the mean: what cancels in features is |W| |x|, though |W| |mu| is nothing."""
    slender = np.array([[1.0, 1.0], [1.0, 1.0 + 4e-6]])
    wide = slender if name == "tied" else np.eye(2)
    mixture = Mixture(np.array([0.7, 0.3]), np.zeros((2, 2)), np.stack([slender, wide]))
    x = reference.draw(mixture, 20_000)
    family = gmmedu.MODELS[name].family
    near, exact = (
        e_step(Points.of(torch.as_tensor(x, dtype=dtype)), family, state_of(name, mixture, dtype))
        for dtype in (torch.float32, torch.float64)
    )
    # The whitened variance of points on the line, which is about 1.
    off = (near.second.double() - exact.second).abs().amax() / 20_000
    assert float(off) < 1e-3
    features = passes._from_features(
        Points.of(torch.as_tensor(x, dtype=torch.float32)),
        family,
        each(lambda part: part[None], state_of(name, mixture, torch.float32)),
        Workspace(),
    )
    assert float((features.second[0].double() - exact.second).abs().amax() / 20_000) > 1e-2


def test_the_features_alone_would_lose_digits_far_from_the_origin() -> None:
    """What the choice of roads guards against, so that the test before this one can fail."""
    mixture = reference.transform(
        reference.random_mixture("diagonal", 3, 2), np.ones(2), np.full(2, 1e6)
    )
    x = reference.draw(mixture, 300)
    expected = expected_statistics("diagonal", mixture, x, None)
    family, state = gmmedu.MODELS["diagonal"].family, state_of("diagonal", mixture)
    found = count("_from_features", points_of(x), family, state)
    assert abs(float(found.log_likelihood - expected.log_likelihood)) > 1e-3


@FAMILIES
def test_a_far_component_takes_nothing_and_poisons_nothing(name: str) -> None:
    """Responsibilities of exp(-1e9): zero, with every sum finite."""
    mixture = reference.random_mixture(name, 2, 2)
    mixture.means[1] = 5e4
    x = reference.draw(Mixture(np.ones(1), mixture.means[:1], mixture.covariances[:1]), 50)
    family, state = gmmedu.MODELS[name].family, state_of(name, mixture)
    found = e_step(points_of(x), family, state)
    assert found.counts.tolist() == [50.0, 0.0]
    assert float(found.first[1].abs().max()) == 0
    assert_same(found, expected_statistics(name, mixture, x, None), scale=50)


# What the fitters read from the statistics


@FAMILIES
@NUM_DIMS
@NUM_COMPONENTS
def test_the_gradient_agrees_with_autograd_of_an_independent_loop(
    name: str, num_components: int, num_dims: int
) -> None:
    mixture = reference.random_mixture(name, num_components, num_dims)
    x = reference.draw(mixture, 40) + 0.3  # off the optimum, so that no entry is small by chance
    theta = torch.tensor(reference.theta_of(name, mixture.covariances))
    state, family = state_of(name, mixture), gmmedu.MODELS[name].family
    parameters = (state.log_weights, state.means, theta)
    for weighted in (False, True):
        weights = weights_of(x, weighted)
        points = points_of(x, weights)
        expected = reference.gradient(
            name,
            parameters,
            torch.tensor(x),
            sample_weight=None if weights is None else torch.tensor(weights),
        )
        for road in ROADS:
            found = score(count(road, points, family, state), family, state)
            for a, b in zip(found, expected, strict=True):
                error = float((-a / float(points.total) - b).abs().max())
                assert error < 1e-10 * max(1.0, float(b.abs().max())), road


@FAMILIES
@pytest.mark.parametrize("num_dims", [1, 3])
def test_the_prior_enters_the_gradient_as_its_density_says(name: str, num_dims: int) -> None:
    mixture = reference.random_mixture(name, 3, num_dims)
    x = reference.draw(mixture, 40)
    theta = torch.tensor(reference.theta_of(name, mixture.covariances))
    state, family, points = state_of(name, mixture), gmmedu.MODELS[name].family, points_of(x)
    found = score(e_step(points, family, state), family, state, ConjugatePrior(7.0, 0.4))
    expected = reference.gradient(
        name,
        (state.log_weights, state.means, theta),
        torch.tensor(x),
        prior_scatter=0.4 * torch.eye(num_dims, dtype=torch.float64),
        prior_points=7.0,
    )
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(-a / 40, b, rtol=0, atol=1e-12)


@FAMILIES
@WEIGHTED
@pytest.mark.parametrize("num_dims", [1, 2, 5])
def test_the_m_step_is_the_textbook_s_on_both_roads(
    name: str, weighted: bool, num_dims: int
) -> None:
    mixture = reference.random_mixture(name, 3, num_dims)
    x = reference.draw(mixture, 300)
    weights = weights_of(x, weighted)
    points, state = points_of(x, weights), state_of(name, mixture)
    family = gmmedu.MODELS[name].family
    prior = 0.4 * np.eye(num_dims)
    plain = reference.em_step(name, mixture, x, weights)
    penalized = reference.em_step(name, mixture, x, weights, prior, 7.0)
    for road in ROADS:
        counted = count(road, points, family, state)
        for conjugate, expected in ((None, plain), (ConjugatePrior(7.0, 0.4), penalized)):
            after, low = m_step(counted, family, state, 1e-8, conjugate)
            assert not bool(low.any())
            triangular = family.operator.triangular(after.scales.factor, num_dims)
            covariances = (triangular @ triangular.mT).expand(3, num_dims, num_dims)
            np.testing.assert_allclose(after.log_weights.exp(), expected.weights, atol=1e-13)
            np.testing.assert_allclose(after.means, expected.means, atol=1e-12)
            np.testing.assert_allclose(covariances, expected.covariances, atol=1e-12)


@FAMILIES
def test_an_empty_component_stays_where_it_is(name: str) -> None:
    mixture = reference.random_mixture(name, 2, 2)
    mixture.means[1] = 5e4
    x = reference.draw(Mixture(np.ones(1), mixture.means[:1], mixture.covariances[:1]), 50)
    family, state = gmmedu.MODELS[name].family, state_of(name, mixture)
    after, _ = m_step(e_step(points_of(x), family, state), family, state, 1e-8)
    assert torch.equal(after.means[1], state.means[1])
    assert float(after.log_weights[1].exp()) < 1e-300
    if name not in reference.SHARED:
        assert torch.equal(after.scales.factor[1], state.scales.factor[1])
    assert all(bool(torch.isfinite(part).all()) for part in after.scales)
