"""Where a fit starts: what each method promises, from a generator alone, in any units."""

from __future__ import annotations

import itertools
import math
from itertools import pairwise

import numpy as np
import pytest
import reference
import torch
from torch import Tensor

import gmmedu
from gmmedu import GaussianMixture, initialize

METHODS = ("box", "points", "kmeans", "kmeans++")
ALL_METHODS = pytest.mark.parametrize("method", METHODS)
FAMILIES = pytest.mark.parametrize("name", reference.ALL)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fresh(name: str, num_components: int = 3, num_dims: int = 2) -> GaussianMixture:
    return gmmedu.MODELS[name](num_components, num_dims, dtype=torch.float64)


def data(num_points: int = 200, num_dims: int = 2) -> Tensor:
    """Points of three clusters, the dimensions of unlike size and far from the origin."""
    truth = reference.random_mixture("full", 3, num_dims)
    scale = np.geomspace(0.1, 10, num_dims) if num_dims > 1 else np.ones(1)
    return torch.tensor(reference.draw(reference.transform(truth, scale, 20 * scale), num_points))


def rows_of(points: Tensor, x: Tensor) -> list[int]:
    """Which rows of x the points are, each compared to within rounding."""
    gaps = ((points.detach().unsqueeze(1) - x) / x.std(0)).abs().amax(-1)
    assert float(gaps.amin(1).max()) < 1e-12, "not a point of the data"
    return gaps.argmin(1).tolist()


@FAMILIES
@ALL_METHODS
def test_a_start_comes_from_the_generator_alone(name: str, method: str) -> None:
    x = data()
    torch.manual_seed(1)
    first = initialize(fresh(name), x, method, generator=generator(7))
    torch.manual_seed(2)
    again = initialize(fresh(name), x, method, generator=generator(7))
    for key, value in first.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    others = [initialize(fresh(name), x, method, generator=generator(seed)) for seed in range(4)]
    assert any(not torch.equal(other.means, first.means) for other in others)


def test_the_model_itself_comes_back_and_kmeans_is_the_usual_method() -> None:
    model, x = fresh("full"), data()
    assert initialize(model, x, generator=generator()) is model
    named = initialize(fresh("full"), x, "kmeans", generator=generator())
    assert torch.equal(model.means, named.means)


@FAMILIES
@pytest.mark.parametrize("method", ["box", "points", "kmeans++"])
def test_weights_are_equal_and_scales_those_of_the_data(name: str, method: str) -> None:
    x = data()
    model = initialize(fresh(name), x, method, generator=generator())
    torch.testing.assert_close(model.weights, torch.full((3,), 1 / 3, dtype=torch.float64))
    if name == "constant":
        expected = np.eye(2)
    else:
        covariance = np.cov(x.numpy().T, bias=True)[None]
        expected = reference.pool(name, covariance, np.ones(1), covariance)[0]
    scale = np.sqrt(np.diag(expected))
    for found in model.covariances.detach().numpy():
        error = np.abs(found - expected) / np.outer(scale, scale)
        assert error.max() < 1e-5  # a ridge of 1e-6 keeps flat data apart from zero


def test_box_means_fill_the_bounding_box_of_the_data() -> None:
    x = data()
    low, high = x.amin(0), x.amax(0)
    model = initialize(fresh("full", 200), x, "box", generator=generator())
    share = ((model.means.detach() - low) / (high - low)).numpy()
    assert share.min() >= 0 and share.max() <= 1
    # 200 uniform numbers: a mean within five standard errors, and both ends met.
    assert (np.abs(share.mean(0) - 0.5) < 5 / math.sqrt(12 * 200)).all()
    assert (share.min(0) < 0.1).all() and (share.max(0) > 0.9).all()


@pytest.mark.parametrize("method", ["points", "kmeans++"])
def test_means_are_distinct_points_of_the_data(method: str) -> None:
    x = data()
    for seed in range(5):
        model = initialize(fresh("full", 20), x, method, generator=generator(seed))
        assert len(set(rows_of(model.means, x))) == 20


@pytest.mark.parametrize("method", ["points", "kmeans", "kmeans++"])
def test_as_many_components_as_points_take_every_point(method: str) -> None:
    x = data(8)
    model = initialize(fresh("diagonal", 8), x, method, generator=generator())
    assert sorted(rows_of(model.means, x)) == list(range(8))


def test_points_are_drawn_evenly() -> None:
    """Each of five points as often as the others, within five standard errors."""
    x = data(5)
    drawn = np.zeros(5)
    source, num_draws = generator(), 1000
    for _ in range(num_draws):
        drawn[rows_of(initialize(fresh("full", 2), x, "points", generator=source).means, x)] += 1
    error = 5 * math.sqrt(num_draws * 0.4 * 0.6)
    assert (np.abs(drawn - 0.4 * num_draws) < error).all()


def greedy_law(x: np.ndarray, num_tries: int) -> np.ndarray:
    """The probability of each choice of three points of x (N, 1), by every way to draw: (N, N, N).

    The first point is any. For each of the others ``num_tries`` points are drawn, in proportion to
    the squared distance from the nearest so far (Arthur and Vassilvitskii 2007), and the one that
    leaves the least sum of such distances is chosen."""
    num_points = len(x)
    squares = np.square(x - x.T)

    def chosen(nearest: np.ndarray) -> np.ndarray:
        share, law = nearest / nearest.sum(), np.zeros(num_points)
        left = np.minimum(nearest, squares).sum(1)
        for draws in itertools.product(range(num_points), repeat=num_tries):
            law[min(draws, key=left.__getitem__)] += share[list(draws)].prod()
        return law

    law = np.zeros((num_points,) * 3)
    for first in range(num_points):
        for second, probability in enumerate(chosen(squares[first])):
            if probability > 0:
                nearest = np.minimum(squares[first], squares[second])
                law[first, second] = probability * chosen(nearest) / num_points
    return law


@pytest.mark.slow
def test_kmeans_plus_plus_draws_by_squared_distance_and_keeps_the_best() -> None:
    x = torch.tensor([[0.0], [1.0], [3.0], [7.0]], dtype=torch.float64)
    law = greedy_law(x.numpy(), num_tries=3)  # 2 + log 3, rounded down
    assert law.sum() == pytest.approx(1)
    counts = np.zeros_like(law)
    source, num_draws = generator(), 3000
    for _ in range(num_draws):
        model = initialize(fresh("full", 3, 1), x, "kmeans++", generator=source)
        counts[tuple(rows_of(model.means, x))] += 1
    error = 5 * np.sqrt(num_draws * law * (1 - law))
    assert (np.abs(counts - num_draws * law) <= error).all()
    # The law of single draws, as k-means++ was first published, is another one.
    single = greedy_law(x.numpy(), num_tries=1)
    assert (np.abs(counts - num_draws * single) > error).any()


def test_distances_are_measured_in_units_of_each_dimension() -> None:
    """Two clusters a millimeter apart are found though noise elsewhere spans kilometers."""
    source = np.random.default_rng(0)
    place = np.repeat([0.0, 1e-3], 100) + source.normal(size=200) * 1e-5
    noise = source.normal(size=200) * 1e6
    x = torch.tensor(np.stack([place, noise], axis=1))
    starts = [initialize(fresh("full", 2), x, "kmeans", generator=generator(s)) for s in range(5)]
    best = min(starts, key=lambda model: model(x).item())
    found = np.sort(best.means[:, 0].detach().numpy())
    np.testing.assert_allclose(found, [0.0, 1e-3], rtol=0, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("num_components", [2, 3, 6])
def test_kmeans_ends_where_lloyd_s_algorithm_stands_still(num_components: int, seed: int) -> None:
    x = data()
    model = initialize(fresh("full", num_components), x, "kmeans", generator=generator(seed))
    means = model.means.detach().numpy()
    z, centroids = x.numpy() / x.numpy().std(0), means / x.numpy().std(0)
    labels = ((z[:, None] - centroids) ** 2).sum(-1).argmin(1)
    counts = np.bincount(labels, minlength=num_components)
    assert counts.min() > 0
    for k in range(num_components):
        mine = x.numpy()[labels == k]
        np.testing.assert_allclose(mine.mean(0), means[k], rtol=1e-12)
    np.testing.assert_allclose(model.weights.detach(), counts / 200, rtol=0, atol=1e-12)


def test_kmeans_takes_the_covariance_of_each_cluster() -> None:
    """Two clusters far apart and of unlike shape, with so many points that the pull toward the
    average within them, D + 1 points of 2000, is small."""
    shapes = np.array([[[1.0, 0.8], [0.8, 1.0]], [[0.3, 0.0], [0.0, 2.0]]])
    means = np.array([[-20.0, 0.0], [20.0, 0.0]])
    truth = reference.Mixture(np.array([0.5, 0.5]), means, shapes)
    x = reference.draw(truth, 4000)
    model = initialize(fresh("full", 2), torch.tensor(x), "kmeans", generator=generator())
    order = model.means[:, 0].argsort()
    for k, mine in enumerate((x[x[:, 0] < 0], x[x[:, 0] > 0])):
        expected = np.cov(mine.T, bias=True)
        found = model.covariances[order[k]].detach().numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=0.01)


def test_a_tiny_cluster_is_not_narrower_than_the_others() -> None:
    """A lone point is a cluster without any spread: it takes the average within the clusters."""
    x = torch.cat([data(100), data(100).mean(0, keepdim=True) + 500])
    model = initialize(fresh("full", 2), x, "kmeans", generator=generator())
    lone = int(model.weights.argmin())
    assert model.weights[lone].item() == pytest.approx(1 / 101, rel=1e-9)
    lone_variance, other = (model.covariances[k].det().item() for k in (lone, 1 - lone))
    assert lone_variance > 0.1 * other


@FAMILIES
@ALL_METHODS
def test_a_start_does_not_depend_on_the_units(name: str, method: str) -> None:
    x = data()
    scale = torch.tensor([1e-6, 1e5] if name in reference.PER_DIMENSION else [3.0, 3.0]).double()
    shift = scale * torch.tensor([3.0, -8.0])
    here = initialize(fresh(name), x, method, generator=generator())
    there = initialize(fresh(name), x * scale + shift, method, generator=generator())
    spread = x.std(0)
    moved = (there.means - shift) / scale
    assert ((moved - here.means) / spread).abs().max().item() < 1e-8
    torch.testing.assert_close(there.weights, here.weights, rtol=0, atol=1e-10)
    if name != "constant":
        back = there.covariances / scale / scale.unsqueeze(-1)
        error = (back - here.covariances) / spread / spread.unsqueeze(-1)
        assert error.abs().max().item() < 1e-8 * max(1.0, float((spread.max() / spread.min()) ** 2))


@ALL_METHODS
def test_a_given_variance_stays(method: str) -> None:
    model = gmmedu.GmmConstant(3, 2, variance=0.37, dtype=torch.float64)
    initialize(model, data(), method, generator=generator())
    expected = 0.37 * torch.eye(2, dtype=torch.float64).expand(3, 2, 2)
    torch.testing.assert_close(model.covariances, expected, rtol=1e-14, atol=0)


@ALL_METHODS
@pytest.mark.parametrize("name", ["full", "tied", "diagonal"])
def test_float32_starts_near_where_float64_does(name: str, method: str) -> None:
    x = gmmedu.load_old_faithful()
    exact = initialize(fresh(name, 2), x, method, generator=generator(3))
    rough = gmmedu.MODELS[name](2, 2, dtype=torch.float32)
    initialize(rough, x.float(), method, generator=generator(3))
    error = (rough.means.double() - exact.means) / x.std(0)
    assert error.abs().max().item() < 1e-5
    torch.testing.assert_close(rough.covariances.double(), exact.covariances, rtol=1e-3, atol=1e-4)


def test_spread_starts_cost_less_than_even_ones() -> None:
    """What k-means++ is for: the mean squared distance to the nearest start, over 40 seeds, falls
    from points to kmeans++ to kmeans."""
    truth = reference.random_mixture("isotropic", 8, 2)
    x = torch.tensor(reference.draw(reference.transform(truth, np.full(2, 0.2), np.zeros(2)), 300))
    x = x + 3 * torch.tensor(np.random.default_rng(0).integers(0, 3, (300, 2)))
    costs = []
    for method in ("kmeans", "kmeans++", "points"):
        each = []
        for seed in range(40):
            start = initialize(fresh("full", 9), x, method, generator=generator(seed))
            each.append(float(torch.cdist(x, start.means.detach()).square().amin(1).mean()))
        costs.append(float(np.mean(each)))
    assert all(1.2 * lower < higher for lower, higher in pairwise(costs)), costs
