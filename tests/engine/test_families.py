"""Each family: its parametrization, its M-step, its gradient and its bound, against textbooks."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import torch
from scipy.optimize import minimize
from torch import Tensor

import gmmedu
from gmmedu.covariance import Family
from gmmedu.em import m_step
from gmmedu.values import State, Statistics

FAMILIES = pytest.mark.parametrize("name", reference.ALL)
LEARNED = pytest.mark.parametrize("name", [name for name in reference.ALL if name != "constant"])


def family_of(name: str) -> Family:
    return gmmedu.MODELS[name].family


def covariances_of(family: Family, factor: Tensor, num_components: int, num_dims: int) -> Tensor:
    """L L^T of each component, (K, D, D), from the factor as the family holds it."""
    triangular = family.operator.triangular(factor, num_dims)
    return (triangular @ triangular.mT).expand(num_components, num_dims, num_dims)


@FAMILIES
@pytest.mark.parametrize("num_dims", [1, 2, 3, 16, 64])
@pytest.mark.parametrize("num_components", [1, 2, 8, 64])
def test_raw_scale_stands_for_the_covariances_it_came_from(
    name: str, num_components: int, num_dims: int
) -> None:
    family = family_of(name)
    mixture = reference.random_mixture(name, num_components, num_dims)
    weights, covariances = torch.tensor(mixture.weights), torch.tensor(mixture.covariances)
    raw_scale = family.operator.to_raw(family.from_covariances(covariances, weights))
    expected = torch.tensor(reference.theta_of(name, mixture.covariances))
    torch.testing.assert_close(raw_scale, expected, rtol=0, atol=1e-12)
    scales = family.operator.from_raw(raw_scale)
    back_again = family.operator.to_raw(scales.factor)
    torch.testing.assert_close(back_again, raw_scale, rtol=0, atol=1e-12)
    back = covariances_of(family, scales.factor, num_components, num_dims)
    torch.testing.assert_close(back, covariances, rtol=0, atol=1e-12 * float(covariances.max()))
    sign, log_det = np.linalg.slogdet(mixture.covariances)
    assert (sign == 1).all()
    found = family.operator.log_det(scales.factor, num_dims).expand(num_components)
    np.testing.assert_allclose(2 * found.numpy(), log_det, rtol=0, atol=1e-11)
    traces = np.array([np.trace(np.linalg.inv(c)) for c in mixture.covariances])
    expected_trace = traces[0] if name in reference.SHARED else traces.sum()
    precision = family.operator.precision(scales.whitening, num_dims)
    found_trace = float(family.operator.trace(precision).sum())
    assert found_trace == pytest.approx(expected_trace, rel=1e-11)


@FAMILIES
def test_the_nearest_member_is_the_one_of_highest_likelihood(name: str) -> None:
    """from_covariances projects as an M-step would whose scatters are the given covariances."""
    mixture = reference.random_mixture("full", 3, 3, seed=4)
    scatter = mixture.covariances * mixture.weights[:, None, None]
    family = family_of(name)
    factor = family.from_covariances(
        torch.tensor(mixture.covariances), torch.tensor(mixture.weights)
    )
    # The constant family takes its one variance as the shared isotropic one would.
    pooled_as = "shared_isotropic" if name == "constant" else name
    expected = reference.pool(pooled_as, scatter, mixture.weights, mixture.covariances)
    found = covariances_of(family, factor, 3, 3).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@FAMILIES
def test_whitening_inverts_the_factor(name: str) -> None:
    family = family_of(name)
    mixture = reference.random_mixture(name, 3, 4)
    raw_scale = torch.tensor(reference.theta_of(name, mixture.covariances))
    factor, whitening = family.operator.from_raw(raw_scale)
    vectors = torch.randn(3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    whitened = family.operator.whiten(whitening, vectors.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(family.operator.apply(factor, whitened), vectors)
    transposed = family.operator.apply_transposed(whitening, whitened)
    precision_times = torch.linalg.solve(torch.tensor(mixture.covariances), vectors)
    torch.testing.assert_close(transposed, precision_times)


@FAMILIES
@pytest.mark.parametrize(("num_components", "num_dims"), [(1, 1), (1, 3), (3, 1), (2, 2), (3, 4)])
def test_free_parameters_are_as_many_as_directions_the_mixture_can_move(
    name: str, num_components: int, num_dims: int
) -> None:
    """The count is the rank of the Jacobian of (weights, means, covariances)."""
    model = gmmedu.MODELS[name](num_components, num_dims, dtype=torch.float64)
    model.set_parameters(**reference.random_mixture(name, num_components, num_dims).tensors())
    leaves = dict(model.named_parameters())

    def described(*values: Tensor) -> Tensor:
        given = dict(zip(leaves, values, strict=True))
        raw_scale = given.get("raw_scale", model.raw_scale)
        factor = model.family.operator.from_raw(raw_scale).factor
        covariances = covariances_of(model.family, factor, num_components, num_dims)
        parts = [given["logits"].softmax(0), given["means"], covariances]
        return torch.cat([part.flatten() for part in parts])

    blocks = torch.autograd.functional.jacobian(described, tuple(leaves.values()))
    jacobian = torch.cat([block.flatten(1) for block in blocks], dim=1)
    assert int(torch.linalg.matrix_rank(jacobian)) == model.num_free_parameters


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("full", 3 - 1 + 3 * 2 + 3 * 3),
        ("tied", 11),  # as mclust counts model EEE with three components on two variables
        ("diagonal", 3 - 1 + 3 * 2 + 3 * 2),
        ("isotropic", 3 - 1 + 3 * 2 + 3),
        ("shared_isotropic", 3 - 1 + 3 * 2 + 1),
        ("constant", 3 - 1 + 3 * 2),
    ],
)
def test_free_parameters_of_three_components_in_the_plane(name: str, expected: int) -> None:
    assert gmmedu.MODELS[name](3, 2).num_free_parameters == expected


@FAMILIES
def test_rescale_is_a_change_of_units(name: str) -> None:
    family = family_of(name)
    mixture = reference.random_mixture(name, 3, 4)
    scales = family.operator.from_raw(torch.tensor(reference.theta_of(name, mixture.covariances)))
    scale = np.array([2.0, 0.5, 30.0, 1e-3]) if family.per_dimension else np.full(4, 0.03)
    moved = family.operator.rescale(scales, torch.tensor(scale))
    found = covariances_of(family, moved.factor, 3, 4).numpy()
    expected = reference.transform(mixture, scale, np.zeros(4)).covariances
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-18)
    ones = torch.ones(3, 4, 1, dtype=torch.float64)
    there_and_back = family.operator.apply(
        moved.factor, family.operator.whiten(moved.whitening, ones)[..., 0]
    )
    torch.testing.assert_close(there_and_back, ones[..., 0], rtol=0, atol=1e-12)


# The bound of Clamp


def statistics_of(name: str, scatter: np.ndarray, counts: np.ndarray) -> Statistics:
    """Statistics of scatters (K, 2, 2) about the means, counted where every factor is one."""
    second = torch.tensor(scatter)
    if name in reference.SHARED:
        second = second.sum(0, keepdim=True)
    if name not in ("full", "tied"):
        second = second.diagonal(dim1=-2, dim2=-1)
    first = torch.zeros(len(counts), 2, dtype=torch.float64)
    return Statistics(torch.zeros(()), torch.tensor(counts), first, second)


def surrogate(covariances: np.ndarray, scatter: np.ndarray, counts: np.ndarray) -> float:
    """The part of EM's surrogate that the covariances decide."""
    value = 0.0
    for covariance, s, count in zip(covariances, scatter, counts, strict=True):
        value -= 0.5 * count * np.linalg.slogdet(covariance)[1]
        value -= 0.5 * np.trace(np.linalg.solve(covariance, s))
    return float(value)


def feasible(name: str, numbers: np.ndarray, floor: float) -> np.ndarray:
    """One covariance in the plane with no standard deviation below the floor."""
    if name in ("isotropic", "shared_isotropic"):
        return np.eye(2) * (floor**2 + np.exp(numbers[0]))
    variances = np.diag(floor**2 + np.exp(numbers[:2]))
    if name == "diagonal":
        return variances
    cosine, sine = np.cos(numbers[2]), np.sin(numbers[2])
    rotation = np.array([[cosine, -sine], [sine, cosine]])
    return rotation @ variances @ rotation.T


def best_by_search(name: str, scatter: np.ndarray, counts: np.ndarray, floor: float) -> float:
    """The highest surrogate under the bound that a numerical optimizer finds."""
    groups = [slice(None)] if name in reference.SHARED else [slice(k, k + 1) for k in range(2)]
    total = 0.0
    for group in groups:
        s, n = scatter[group], counts[group]

        def loss(numbers: np.ndarray, s: np.ndarray = s, n: np.ndarray = n) -> float:
            covariance = feasible(name, numbers, floor)
            return -surrogate(np.stack([covariance] * len(n)), s, n)

        options = {"xatol": 1e-8, "fatol": 1e-13, "maxiter": 4000}
        starts = [np.array([-1.0, -1.0, angle]) for angle in (0.0, 0.8, 1.6, 2.4)]
        fits = [minimize(loss, start, method="Nelder-Mead", options=options) for start in starts]
        total -= min(fit.fun for fit in fits)
    return total


@LEARNED
@pytest.mark.parametrize("floor", [1e-3, 0.5, 1.2], ids=["idle", "one axis", "every axis"])
def test_the_m_step_under_the_bound_is_the_best_there_is(name: str, floor: float) -> None:
    counts = np.array([10.0, 25.0])
    shapes = np.array([[[1.0, 0.6], [0.6, 0.5]], [[0.09, -0.05], [-0.05, 0.9]]])
    scatter = shapes * counts[:, None, None]
    family = family_of(name)
    one = family.operator.from_raw(torch.zeros_like(torch.tensor(reference.theta_of(name, shapes))))
    start = State(torch.zeros(2).double(), torch.zeros(2, 2).double(), one)
    after, low = m_step(statistics_of(name, scatter, counts), family, start, floor)
    scales = after.scales
    covariances = covariances_of(family, scales.factor, 2, 2).numpy()
    assert np.linalg.eigvalsh(covariances).min() >= floor**2 * (1 - 1e-12)
    found = surrogate(covariances, scatter, counts)
    best = best_by_search(name, scatter, counts, floor)
    # The search ends within 1e-6 of its optimum, from below.
    assert -1e-9 <= found - best <= 1e-6
    pooled = reference.pool(name, scatter, counts, shapes)
    smallest = np.sqrt(np.linalg.eigvalsh(pooled)[:, 0])
    assert low.tolist() == (smallest < floor)[: len(low)].tolist()


@pytest.mark.parametrize("name", ["full", "tied"])
def test_a_flat_scatter_is_raised_to_the_bound_along_its_flat_axis_only(name: str) -> None:
    """Scatter of rank one, which has no Cholesky factor."""
    counts = np.array([10.0, 25.0])
    along = np.array([0.6, 0.8])
    scatter = np.stack([np.outer(along, along) * count for count in counts])
    family = family_of(name)
    one = family.operator.from_raw(
        torch.zeros(2 if name == "full" else 1, 2, 2, dtype=torch.float64)
    )
    start = State(torch.zeros(2).double(), torch.zeros(2, 2).double(), one)
    after, low = m_step(statistics_of(name, scatter, counts), family, start, floor=0.01)
    assert bool(low.all())
    across = np.array([-0.8, 0.6])
    expected = np.outer(along, along) + 1e-4 * np.outer(across, across)
    for factor, whitening in zip(*after.scales, strict=True):
        np.testing.assert_allclose((factor @ factor.mT).numpy(), expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(factor @ whitening, torch.eye(2, dtype=torch.float64))
        assert torch.equal(factor, factor.tril()) and bool((factor.diagonal() > 0).all())


@FAMILIES
def test_clamp_raises_what_is_low_and_nothing_else(name: str) -> None:
    family = family_of(name)
    mixture = reference.random_mixture(name, 3, 3, seed=2)
    scales = family.operator.from_raw(torch.tensor(reference.theta_of(name, mixture.covariances)))
    floor = 1.0  # between the smallest and the largest standard deviation
    clamped, low = family.clamp(scales, floor)
    values, vectors = np.linalg.eigh(mixture.covariances)
    if name != "constant":  # whose variance is given and stays
        values = np.maximum(values, floor**2)
    expected = np.einsum("kij,kj,klj->kil", vectors, values, vectors)
    found = covariances_of(family, clamped.factor, 3, 3).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    smallest = np.sqrt(np.linalg.eigvalsh(mixture.covariances)[:, 0])
    was_low = (smallest < floor) & (name != "constant")
    assert low.tolist() == was_low[: len(low)].tolist()


def test_the_reference_knows_every_family() -> None:
    """The other tests go through its list."""
    assert reference.ALL == tuple(gmmedu.MODELS)
    assert reference.SHARED == tuple(f for f in gmmedu.MODELS if gmmedu.MODELS[f].family.shared)
