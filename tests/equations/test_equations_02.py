"""Checks of the equations of chapter 02, the mixture likelihood."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import reference
import torch
from reference import Mixture
from scipy.optimize import brentq, minimize, minimize_scalar
from scipy.special import expit
from scipy.stats import multivariate_normal, norm
from torch import Tensor

from equations.proof import Compare, verifies
from gmmedu import GmmFull, GmmTied
from gmmedu.models import GaussianMixture


def model_of(mixture: Mixture) -> GaussianMixture:
    model = GmmFull(*mixture.means.shape)
    return model.set_parameters(**mixture.tensors())


def random_model(num_components: int, num_dims: int, seed: int = 0) -> GaussianMixture:
    return model_of(reference.random_mixture("full", num_components, num_dims, seed))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draws(model: GaussianMixture, number: int = 40_000, seed: int = 0) -> tuple[Tensor, Tensor]:
    return model.sample_with_labels(number, generator=generator(seed))


def points(num_dims: int, number: int = 50, seed: int = 5) -> Tensor:
    return 2.5 * torch.randn(number, num_dims, generator=generator(seed))


def line(low: float, high: float, steps: int) -> tuple[Tensor, float]:
    grid = torch.linspace(low, high, steps)
    return grid, float(grid[1] - grid[0])


def plane(step: float, reach: float = 12.0) -> Tensor:
    axis = torch.arange(-reach, reach, step)
    return torch.cartesian_prod(axis, axis)


# The story and the density


@verifies("eq-generative")
@pytest.mark.parametrize("num_components", [1, 3])
def test_generative(compare: Compare, num_components: int) -> None:
    """draws have labels in the shares of the weights, and given a label, its mean and covariance"""
    model = random_model(num_components, 2)
    x, labels = draws(model)
    if num_components > 1:
        compare.monte_carlo(torch.nn.functional.one_hot(labels).double(), model.weights.detach())
    for k in range(num_components):
        mine = x[labels == k]
        away = mine - model.means[k].detach()
        compare.monte_carlo(mine, model.means[k].detach())
        compare.monte_carlo(away[:, :, None] * away[:, None], model.covariances[k].detach())


@verifies("eq-gmm-density")
@pytest.mark.parametrize("num_dims", [1, 2])
def test_density_integrates_to_one(compare: Compare, num_dims: int) -> None:
    """the density integrates to one, by quadrature in D = 1 and 2"""
    model = random_model(3, num_dims)
    grid = plane(0.1) if num_dims == 2 else line(-12, 12, 4001)[0][:, None]
    cell = 0.1**2 if num_dims == 2 else 24 / 4000
    compare(model.log_prob(grid).exp().sum().item() * cell, 1.0, 1e-9)


@verifies("eq-gmm-density")
@pytest.mark.parametrize("seed", [0, 1])
def test_density_is_that_of_draws(compare: Compare, seed: int) -> None:
    """the mass of intervals by quadrature, against the share of draws of label and point"""
    model = random_model(3, 1, seed)
    x, _ = draws(model, seed=seed)
    edges = torch.linspace(-3, 3, 7)
    masses = []
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        grid, step = line(low, high, 2001)
        masses.append(torch.trapezoid(model.log_prob(grid[:, None]).exp(), dx=step).item())
    inside = (x >= edges[:-1]) & (x < edges[1:])
    compare.monte_carlo(inside.double(), masses)


@verifies("eq-gmm-density")
@pytest.mark.parametrize(("num_components", "num_dims"), [(1, 1), (2, 3), (5, 8)])
def test_density(compare: Compare, num_components: int, num_dims: int) -> None:
    """its logarithm against that of a sum of scipy's densities, K up to 5 and D up to 8"""
    mixture = reference.random_mixture("full", num_components, num_dims)
    x = points(num_dims)
    expected = sum(
        w * multivariate_normal(m, c).pdf(x.numpy()) for w, m, c in zip(*mixture, strict=True)
    )
    compare(model_of(mixture).log_prob(x).detach(), np.log(expected), 1e-12)


# Responsibilities and odds


@verifies("eq-responsibilities")
@pytest.mark.parametrize("seed", [0, 1])
def test_responsibilities_are_calibrated(compare: Compare, seed: int) -> None:
    """label minus responsibility averages to zero over draws, also where multiplied by any g(x)"""
    model = random_model(3, 2, seed)
    x, labels = draws(model, seed=seed)
    surprise = torch.nn.functional.one_hot(labels, 3) - model.responsibilities(x).detach()
    features = torch.stack([torch.ones(len(x)), x[:, 0].sin(), (x[:, 1] > 0).double()], dim=1)
    compare.monte_carlo(surprise[:, :, None] * features[:, None], np.zeros((3, 3)))


@verifies("eq-responsibilities")
def test_responsibilities(compare: Compare) -> None:
    """against scipy's densities, weighted and normalized, K = 4 in D = 3"""
    mixture = reference.random_mixture("full", 4, 3)
    x = points(3)
    joint = np.stack(
        [w * multivariate_normal(m, c).pdf(x.numpy()) for w, m, c in zip(*mixture, strict=True)], 1
    )
    expected = joint / joint.sum(1, keepdims=True)
    compare(model_of(mixture).responsibilities(x).detach(), expected, 1e-12)


@verifies("eq-posterior-odds")
@pytest.mark.parametrize("num_components", [2, 4])
def test_posterior_odds(compare: Compare, num_components: int) -> None:
    """odds of the package's responsibilities, against prior odds and scipy's likelihood ratio"""
    mixture = reference.random_mixture("full", num_components, 2)
    x = points(2, seed=6)
    r = model_of(mixture).responsibilities(x).detach()
    logs = [
        multivariate_normal(m, c).logpdf(x.numpy())
        for _, m, c in list(zip(*mixture, strict=True))[:2]
    ]
    odds = mixture.weights[0] / mixture.weights[1] * np.exp(logs[0] - logs[1])
    clear = np.abs(np.log(odds)) < 12
    compare((r[:, 0] / r[:, 1]).numpy()[clear], odds[clear], 1e-9)


@verifies("eq-logistic")
def test_logistic(compare: Compare) -> None:
    """scipy's logistic of the difference of scipy's log joints, against the package"""
    for seed in range(3):
        mixture = reference.random_mixture("full", 2, 3, seed)
        x = points(3, seed=seed)
        joint = reference.log_joint(mixture, x.numpy())
        r = model_of(mixture).responsibilities(x).detach()
        compare(r[:, 0], expit(joint[:, 0] - joint[:, 1]), 1e-12)


def log_odds(mixture: Mixture, x: np.ndarray) -> np.ndarray:
    """The quadratic polynomial of the chapter, term by term."""
    (first, second), (mu1, mu2) = np.linalg.inv(mixture.covariances), mixture.means
    dets = np.linalg.det(mixture.covariances)
    b = np.log(mixture.weights[0] / mixture.weights[1]) - 0.5 * np.log(dets[0] / dets[1])
    b += -0.5 * mu1 @ first @ mu1 + 0.5 * mu2 @ second @ mu2
    quadratic = 0.5 * np.einsum("ni,ij,nj->n", x, second - first, x)
    return np.asarray(quadratic + x @ (first @ mu1 - second @ mu2) + b)


@verifies("eq-log-odds")
@pytest.mark.parametrize("num_dims", [1, 2, 5])
def test_log_odds(compare: Compare, num_dims: int) -> None:
    """the polynomial against the logit of the package's responsibilities, D = 1, 2 and 5"""
    mixture = reference.random_mixture("full", 2, num_dims)
    x = points(num_dims)
    r = model_of(mixture).responsibilities(x).detach()
    logit = (r[:, 0].log() - r[:, 1].log()).numpy()
    compare(log_odds(mixture, x.numpy()), logit, 1e-10)


@verifies("eq-linear-log-odds")
@pytest.mark.parametrize("num_dims", [1, 3])
def test_linear_log_odds(compare: Compare, num_dims: int) -> None:
    """against the logit of a tied model's responsibilities, D = 1 and 3"""
    mixture = reference.random_mixture("tied", 2, num_dims)
    model = GmmTied(2, num_dims).set_parameters(**mixture.tensors())
    x = points(num_dims)
    r = model.responsibilities(x).detach()
    mu1, mu2 = mixture.means
    slope = np.linalg.inv(mixture.covariances[0]) @ (mu1 - mu2)
    linear = (x.numpy() - (mu1 + mu2) / 2) @ slope
    linear += np.log(mixture.weights[0] / mixture.weights[1])
    compare(linear, (r[:, 0].log() - r[:, 1].log()).numpy(), 1e-10)


# Moments


def mean_of(mixture: Mixture) -> np.ndarray:
    return np.asarray(sum(w * m for w, m in zip(mixture.weights, mixture.means, strict=True)))


@verifies("eq-mixture-mean")
@pytest.mark.parametrize("seed", [0, 1])
def test_mixture_mean(compare: Compare, seed: int) -> None:
    """against the integral of x times the density, by quadrature in D = 2"""
    mixture = reference.random_mixture("full", 3, 2, seed)
    grid = plane(0.1)
    density = model_of(mixture).log_prob(grid).detach().exp() * 0.1**2
    compare(mean_of(mixture), density @ grid, 1e-9)


@verifies("eq-mixture-covariance")
@pytest.mark.parametrize("seed", [0, 1])
def test_mixture_covariance(compare: Compare, seed: int) -> None:
    """against the integral of the squared deviation, by quadrature in D = 2, and draws in D = 3"""

    def covariance_of(mixture: Mixture) -> np.ndarray:
        apart = mixture.means - mean_of(mixture)
        within = np.einsum("k,kij->ij", mixture.weights, mixture.covariances)
        return np.asarray(within + np.einsum("k,ki,kj->ij", mixture.weights, apart, apart))

    mixture = reference.random_mixture("full", 3, 2, seed)
    grid = plane(0.1)
    density = model_of(mixture).log_prob(grid).detach().exp() * 0.1**2
    away = grid - density @ grid
    compare(covariance_of(mixture), (density[:, None] * away).T @ away, 1e-9)
    mixture = reference.random_mixture("full", 4, 3, seed)
    away = draws(model_of(mixture), seed=seed)[0] - torch.tensor(mean_of(mixture))
    compare.monte_carlo(away[:, :, None] * away[:, None], covariance_of(mixture))


# Marginals and conditionals


@verifies("eq-marginal")
@pytest.mark.parametrize("dims", [[0, 1], [2, 0]])
def test_marginal(compare: Compare, dims: list[int]) -> None:
    """the package's marginal against the joint density integrated over the third coordinate"""
    model = random_model(3, 3)
    (left_out,) = set(range(3)) - set(dims)
    x = points(2, 20)
    grid, step = line(-14, 14, 1401)
    whole = torch.empty(20, 1401, 3)
    whole[:, :, dims] = x[:, None, :].expand(-1, 1401, -1)
    whole[:, :, left_out] = grid
    joint = model.log_prob(whole.view(-1, 3)).detach().exp().view(20, -1)
    marginal = model.marginal(dims).log_prob(x).detach().exp()
    compare(marginal, joint.sum(1) * step, 1e-10)


@verifies("eq-conditional")
@pytest.mark.parametrize("given", [{0: 0.7, 2: -0.4}, {1: 2.0, 0: 1.5}])
def test_conditional(compare: Compare, given: dict[int, float]) -> None:
    """the package's conditional against the joint over its integral, two of three given"""
    model = random_model(3, 3, seed=2)
    (free,) = set(range(3)) - set(given)
    grid, step = line(-14, 14, 2801)
    whole = torch.empty(2801, 3)
    whole[:, free] = grid
    for dim, value in given.items():
        whole[:, dim] = value
    joint = model.log_prob(whole).detach().exp()
    conditional = model.condition(given).log_prob(grid[:, None]).detach().exp()
    compare(conditional, joint / (joint.sum() * step), 1e-10)


# The shape of the density


@verifies("eq-density-gradient")
@pytest.mark.parametrize("num_dims", [1, 2, 4])
def test_density_gradient(compare: Compare, num_dims: int) -> None:
    """against autograd through the package's log density, D = 1, 2 and 4"""
    mixture = reference.random_mixture("full", 3, num_dims)
    x = points(num_dims).requires_grad_()
    (gradient,) = torch.autograd.grad(model_of(mixture).log_prob(x).sum(), x)
    at = x.detach().numpy()
    r = reference.responsibilities(mixture, at)
    pulls = np.einsum(
        "nk,kij,knj->ni",
        r,
        np.linalg.inv(mixture.covariances),
        mixture.means[:, None] - at,
    )
    compare(pulls, gradient, 1e-11)


@verifies("eq-critical-points")
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_critical_points(compare: Compare, seed: int) -> None:
    """modes that scipy climbs to from every mean are fixed by the equation, K = 3 in D = 2"""
    mixture = reference.random_mixture("full", 3, 2, seed)
    inverses = np.linalg.inv(mixture.covariances)
    for start in mixture.means:
        climb = minimize(
            lambda point: -reference.log_density(mixture, point[None])[0],
            start,
            method="Nelder-Mead",
            options={"xatol": 1e-10, "fatol": 1e-15, "maxiter": 2000},
        )
        (r,) = reference.responsibilities(mixture, climb.x[None])
        precision = np.einsum("k,kij->ij", r, inverses)
        pull = np.einsum("k,kij,kj->i", r, inverses, mixture.means)
        compare(np.linalg.solve(precision, pull), climb.x, 1e-6)


@verifies("eq-bimodality")
@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_bimodality(compare: Compare, sigma: float) -> None:
    """peaks counted on a grid on both sides of two sigma; modes climbed to by scipy"""

    def density(x: np.ndarray, delta: float) -> np.ndarray:
        return np.asarray(0.5 * norm.pdf(x, delta, sigma) + 0.5 * norm.pdf(x, -delta, sigma))

    for distance in (0.5, 1.9, 1.98, 2.02, 2.1, 3.0, 6.0):
        delta = distance * sigma / 2
        y = density(np.linspace(-4 * sigma - delta, 4 * sigma + delta, 20_001), delta)
        peaks = int(((y[1:-1] > y[:-2]) & (y[1:-1] >= y[2:])).sum())
        compare(peaks, 2 if distance > 2 else 1, 0)
        if distance > 2:
            root = brentq(
                lambda x, delta=delta: delta * np.tanh(delta * x / sigma**2) - x,
                1e-3 * delta,
                2 * delta,
            )
            climb = minimize_scalar(
                lambda x, delta=delta: -density(x, delta), bounds=(0, 2 * delta), method="bounded",
                options={"xatol": 1e-12},
            )  # fmt: skip
            compare(root, climb.x, 1e-6)


# Names


@verifies("eq-label-switching")
@pytest.mark.parametrize("family", ["full", "diagonal"])
def test_label_switching(compare: Compare, family: str) -> None:
    """all 24 orders of four components, in the package, against scipy's density in one order"""
    mixture = reference.random_mixture(family, 4, 2)
    x = points(2)
    expected = reference.log_density(mixture, x.numpy())
    for order in permutations(range(4)):
        model = model_of(Mixture(*(numbers[list(order)] for numbers in mixture)))
        compare(model.log_prob(x).detach(), expected, 1e-12)
