"""Proofs of the equations of chapter 04, covariance families."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import reference
import torch
from matplotlib.path import Path
from scipy.optimize import minimize, minimize_scalar
from torch import Tensor

import gmmedu
from equations.proof import Compare, verifies
from gmmedu import MODELS, plot
from gmmedu.covariance import Diagonal
from gmmedu.models import GaussianMixture
from gmmedu.passes import e_step
from gmmedu.values import Points

SHAPES = [(1, 1), (2, 2), (3, 2), (2, 4)]


def model_of(family: str, mixture: reference.Mixture) -> GaussianMixture:
    """A model of the package with these parameters."""
    num_components, num_dims = mixture.means.shape
    options = {"variance": mixture.covariances[0, 0, 0]} if family == "constant" else {}
    model = MODELS[family](num_components, num_dims, **options)
    return model.set_parameters(**mixture.tensors())


def case(family: str, num_components: int, num_dims: int, seed: int = 1) -> tuple:
    """A random mixture and points that another, of another family, has made."""
    mixture = reference.random_mixture(family, num_components, num_dims, seed)
    source = reference.random_mixture("full", num_components + 1, num_dims, seed + 50)
    return mixture, reference.draw(source, 40 + 5 * num_dims, seed)


def after_one_step(family: str, mixture: reference.Mixture, x: np.ndarray) -> GaussianMixture:
    """The package's model after one M-step from the mixture."""
    model = model_of(family, mixture)
    gmmedu.fit_em(model, torch.tensor(x), num_iterations=1, tolerance=0, mitigation=None)
    return model


def surrogate(shares: np.ndarray, mixture: reference.Mixture, x: np.ndarray) -> float:
    """Q over N, with the log densities of scipy."""
    return float((shares * reference.log_joint(mixture, x)).sum() / len(x))


def best_covariances(family: str, mixture: reference.Mixture, x: np.ndarray) -> np.ndarray:
    """Covariances that maximize Q with means at the optimum, by BFGS on autograd's gradient of a
    loop over components and points' residuals that inverts each covariance: (K, D, D)."""
    shares = torch.tensor(reference.responsibilities(mixture, x))
    points = torch.tensor(x)
    means = torch.stack([share @ points / share.sum() for share in shares.T])
    start = reference.theta_of(family, mixture.covariances)
    num_components, num_dims = means.shape

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        theta = torch.tensor(flat.reshape(start.shape), requires_grad=True)
        sigmas = reference.covariances_of(family, theta, num_components, num_dims)
        total = torch.zeros(())
        for share, mean, sigma in zip(shares.T, means, sigmas, strict=True):
            residual = points - mean
            distance = (residual @ torch.linalg.inv(sigma) * residual).sum(1)
            total = total + (share * (distance + torch.logdet(sigma))).sum() / 2 / len(x)
        (slope,) = torch.autograd.grad(total, theta)
        return float(total.detach()), slope.numpy().ravel()

    found = minimize(loss, start.ravel(), jac=True, options={"gtol": 1e-8, "maxiter": 300})
    theta = torch.tensor(found.x.reshape(start.shape))
    sigmas = reference.covariances_of(family, theta, num_components, num_dims)
    return torch.stack(sigmas).numpy()


@verifies("eq-free-parameters")
@pytest.mark.parametrize("family", MODELS)
def test_free_parameters(compare: Compare, family: str) -> None:
    """rank of the Jacobian of 80 log densities in all stored numbers, K and D up to 4"""
    for num_components, num_dims in [(1, 1), (3, 1), (3, 2), (2, 4)]:
        mixture = reference.random_mixture(family, num_components, num_dims, seed=3)
        model = model_of(family, mixture)
        x = 3 * torch.randn(80, num_dims)
        slopes = torch.autograd.grad(
            model.log_prob(x), list(model.parameters()), torch.eye(80), is_grads_batched=True
        )
        jacobian = torch.cat([slope.flatten(1) for slope in slopes], dim=1)
        rank = torch.linalg.matrix_rank(jacobian, rtol=1e-10)
        compare([model.num_free_parameters], [int(rank)], 0)


@verifies("eq-invariance")
@pytest.mark.parametrize("shape", SHAPES)
def test_invariance(compare: Compare, shape: tuple[int, int]) -> None:
    """NLL of the moved mixture for the moved points, both by scipy, random maps and mixtures"""
    for seed in range(5):
        mixture, x = case("full", *shape, seed=seed)
        random = np.random.default_rng(seed)
        a, b = random.normal(size=(shape[1], shape[1])), random.normal(size=shape[1])
        moved = reference.Mixture(
            mixture.weights,
            mixture.means @ a.T + b,
            np.stack([a @ sigma @ a.T for sigma in mixture.covariances]),
        )
        there = -reference.log_density(moved, x @ a.T + b).mean()
        here = -reference.log_density(mixture, x).mean()
        volume = abs(np.prod(np.linalg.eigvals(a)))
        compare(there, here + math.log(volume), 1e-10)


@verifies("eq-invariance")
@pytest.mark.parametrize("family", MODELS)
def test_invariance_of_a_fit(compare: Compare, family: str) -> None:
    """ten steps of EM, then the map, against the map, then ten steps, for maps a family allows"""
    random = np.random.default_rng(5)
    turn = np.linalg.qr(random.normal(size=(3, 3)))[0]
    allowed = {
        "full": random.normal(size=(3, 3)),
        "tied": random.normal(size=(3, 3)),
        "diagonal": np.diag([0.02, 3.0, -40.0]),
        "isotropic": 7 * turn,
        "shared_isotropic": 0.03 * turn,
        "constant": turn,
    }
    a = allowed[family]
    mixture, x = case(family, 2, 3)
    moved = reference.Mixture(mixture.weights, mixture.means @ a.T, a @ mixture.covariances @ a.T)
    fits = []
    for start, points in ((mixture, x), (moved, x @ a.T)):
        model = model_of(family, start)
        gmmedu.fit_em(model, torch.tensor(points), num_iterations=10, tolerance=0)
        fits.append(model.responsibilities(torch.tensor(points)).detach())
    compare(fits[1], fits[0], 1e-8)


@verifies("eq-softmax-weights")
def test_softmax_weights(compare: Compare) -> None:
    """weights whose log ratios are the logits' differences, by solving that linear system"""
    for num_components in (1, 2, 5, 9):
        logits = 3 * torch.randn(num_components)
        model = gmmedu.GmmIsotropic(num_components, 1)
        with torch.no_grad():
            model.logits.copy_(logits)
        # pi_k - e^(alpha_k - alpha_1) pi_1 = 0 for k > 1, and the sum is 1.
        system = np.eye(num_components)
        system[:, 0] -= np.exp((logits - logits[0]).numpy())
        system[0] = 1
        expected = np.linalg.solve(system, np.eye(num_components)[0])
        compare(model.weights.detach(), expected, 1e-12)


@verifies("eq-softmax-shift")
def test_softmax_shift(compare: Compare) -> None:
    """weights after a shift of the logits, and autograd's slope of the NLL along it, which is 0"""
    mixture, x = case("full", 4, 2)
    model = model_of("full", mixture)
    before = model.weights.detach().clone()
    for c in (-50.0, -1.0, 0.3, 200.0):
        shifted = model_of("full", mixture)
        with torch.no_grad():
            shifted.logits += c
        compare(shifted.weights.detach(), before, 1e-13)
        (slope,) = torch.autograd.grad(shifted(torch.tensor(x)), shifted.logits)
        compare(slope.sum(), torch.zeros(()), 1e-13)


@verifies("eq-scale-maps")
def test_scale_maps(compare: Compare) -> None:
    """the package's scales, softplus and absolute value by central differences, -20 to 19.5"""
    theta, step = torch.linspace(-20, 19.5, 80), 1e-5
    for to_sigma, slope in (
        (lambda t: Diagonal.from_raw(t).factor, lambda sigma: sigma),
        (torch.nn.functional.softplus, lambda sigma: 1 - torch.exp(-sigma)),
    ):
        difference = (to_sigma(theta + step) - to_sigma(theta - step)) / (2 * step)
        compare(slope(to_sigma(theta)), difference, 2e-9)
    signed = theta + 0.1  # at 0 the absolute value has no slope
    difference = ((signed + step).abs() - (signed - step).abs()) / (2 * step)
    compare(signed.sign(), difference, 2e-9)
    compare(torch.nn.functional.softplus(theta), np.logaddexp(0, theta.numpy()), 1e-13)
    compare(Diagonal.from_raw(theta).factor, np.exp(theta.numpy()), 1e-13)


@verifies("eq-log-cholesky")
@pytest.mark.parametrize("num_dims", [1, 2, 3, 6])
def test_log_cholesky(compare: Compare, num_dims: int) -> None:
    """numpy's Cholesky factor of the covariance gives theta back, the diagonal by its logarithm"""
    for _ in range(5):
        theta = torch.randn(2, num_dims, num_dims)
        model = gmmedu.GmmFull(2, num_dims)
        with torch.no_grad():
            model.raw_scale.copy_(theta)
        factor = np.linalg.cholesky(model.covariances.detach().numpy())
        for k in range(2):
            for i in range(num_dims):
                compare(math.log(factor[k, i, i]), theta[k, i, i], 1e-8)
                for j in range(i):
                    compare(factor[k, i, j], theta[k, i, j], 1e-8)


@verifies("eq-reparametrization")
def test_reparametrization(compare: Compare) -> None:
    """gradient in theta by differences; a small step of descent in theta, carried over to Sigma"""
    scatter = torch.tensor([[2.0, 0.7], [0.7, 1.0]])

    def sigma_of(theta: Tensor) -> Tensor:
        factor = torch.stack([theta[0].exp(), theta[1], theta[2].exp()])
        return torch.stack([factor[0] ** 2, factor[0] * factor[1], factor[1] ** 2 + factor[2] ** 2])

    def f(s: Tensor) -> Tensor:
        matrix = torch.stack([s[0], s[1], s[1], s[2]]).reshape(2, 2)
        return 0.5 * (torch.logdet(matrix) + torch.trace(torch.linalg.inv(matrix) @ scatter))

    theta = torch.tensor([0.2, -0.4, -0.3])
    jacobian = torch.autograd.functional.jacobian(sigma_of, theta)
    in_sigma = torch.autograd.functional.jacobian(f, sigma_of(theta))
    step, rate = 1e-5, 1e-6
    slopes = [
        (f(sigma_of(theta + step * e)) - f(sigma_of(theta - step * e))) / (2 * step)
        for e in torch.eye(3)
    ]
    compare(jacobian.T @ in_sigma, torch.stack(slopes), 1e-8)
    moved = (sigma_of(theta - rate * torch.stack(slopes)) - sigma_of(theta)) / rate
    compare(-jacobian @ jacobian.T @ in_sigma, moved, 1e-4)


@verifies("eq-surrogate")
@pytest.mark.parametrize("family", MODELS)
def test_surrogate(compare: Compare, family: str) -> None:
    """slopes of Q at its own responsibilities against those of the NLL, both by differences"""
    mixture, x = case(family, 2, 2)
    shares = reference.responsibilities(mixture, x)
    random = np.random.default_rng(0)
    for _ in range(4):
        direction = random.normal(size=mixture.means.shape)
        stretch = random.normal()
        tilt = random.normal(size=2) * 0.1

        def along(
            t: float, d: np.ndarray = direction, s: float = stretch, w: np.ndarray = tilt
        ) -> reference.Mixture:
            weights = mixture.weights * np.exp(t * w)
            return reference.Mixture(
                weights / weights.sum(), mixture.means + t * d, mixture.covariances * np.exp(t * s)
            )

        h = 1e-5
        of_q = (surrogate(shares, along(h), x) - surrogate(shares, along(-h), x)) / (2 * h)
        points = torch.tensor(x)
        of_f = [float(model_of(family, along(t))(points).detach()) for t in (h, -h)]
        compare(of_q, -(of_f[0] - of_f[1]) / (2 * h), 1e-7)


@verifies("eq-sufficient-statistics")
@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("shape", SHAPES)
def test_sufficient_statistics(compare: Compare, family: str, shape: tuple[int, int]) -> None:
    """the package's whitened sums, taken back to the data's coordinates, by loops over points"""
    mixture, x = case(family, *shape)
    model = model_of(family, mixture)
    found = e_step(Points.of(torch.tensor(x)), model.family, model.state())
    shares = reference.responsibilities(mixture, x)
    seconds = []
    for k, (mean, sigma) in enumerate(zip(mixture.means, mixture.covariances, strict=True)):
        count = sum(shares[n, k] for n in range(len(x)))
        first = sum(shares[n, k] * x[n] for n in range(len(x)))
        second = sum(shares[n, k] * np.outer(x[n], x[n]) for n in range(len(x)))
        compare(found.counts[k], count, 1e-10)
        factor = np.linalg.cholesky(sigma)
        compare(factor @ found.first[k].numpy() + count * mean, first, 1e-9)
        # sum r (x - mu)(x - mu)^T from the three sums
        about_mean = second - np.outer(first, mean) - np.outer(mean, first)
        about_mean = about_mean + count * np.outer(mean, mean)
        whitening = np.linalg.inv(factor)
        seconds.append(whitening @ about_mean @ whitening.T)
    if family not in ("full", "tied"):
        seconds = [np.diag(second) for second in seconds]
    shared = family in reference.SHARED
    compare(found.second, np.stack([sum(seconds)] if shared else seconds), 1e-9)


@verifies("eq-m-step-weights")
@pytest.mark.parametrize("num_components", [2, 3, 5])
def test_m_step_weights(compare: Compare, num_components: int) -> None:
    """Q maximized over the simplex by SLSQP under the constraint that the weights sum to one"""
    mixture, x = case("full", num_components, 2)
    shares = reference.responsibilities(mixture, x)
    model = after_one_step("full", mixture, x)
    with warnings.catch_warnings():
        # scipy up to 1.15 warns of its own last digits.
        warnings.filterwarnings("ignore", "Values in x were outside bounds", RuntimeWarning)
        found = minimize(
            lambda weights: -(shares * np.log(weights)).sum() / len(x),
            np.full(num_components, 1 / num_components),
            bounds=[(1e-6, 1)] * num_components,
            constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1},
            options={"ftol": 1e-15, "maxiter": 500},
        )
    compare(model.weights.detach(), found.x, 1e-6)


@verifies("eq-m-step-means")
@pytest.mark.parametrize("family", MODELS)
def test_m_step_means(compare: Compare, family: str) -> None:
    """Q maximized over the means by Newton's steps on autograd's Hessian, at two covariances"""
    for seed in (1, 2):
        mixture, x = case(family, 2, 3, seed=seed)
        shares = torch.tensor(reference.responsibilities(mixture, x))
        points = torch.tensor(x)
        covariances = torch.tensor(mixture.covariances)

        def loss(
            means: Tensor,
            shares: Tensor = shares,
            points: Tensor = points,
            covariances: Tensor = covariances,
        ) -> Tensor:
            total = torch.zeros(())
            for share, mean, sigma in zip(shares.T, means, covariances, strict=True):
                normal = torch.distributions.MultivariateNormal(mean, sigma)
                total = total - (share * normal.log_prob(points)).sum()
            return total

        means = torch.tensor(mixture.means)
        for _ in range(2):
            slope = torch.autograd.functional.jacobian(loss, means).reshape(-1)
            hessian = torch.autograd.functional.hessian(loss, means)
            hessian = hessian.reshape(len(slope), len(slope))
            means = means - torch.linalg.solve(hessian, slope).reshape(means.shape)
        compare(after_one_step(family, mixture, x).means.detach(), means, 1e-9)


@verifies("eq-covariance-objective")
@pytest.mark.parametrize("family", MODELS)
def test_covariance_objective(compare: Compare, family: str) -> None:
    """-2 Q by scipy's densities, less what no covariance changes, at random members"""
    mixture, x = case(family, 3, 2)
    shares = reference.responsibilities(mixture, x)
    counts = shares.sum(0)
    means = np.stack([share @ x / share.sum() for share in shares.T])
    scatters = reference.scatters(shares, x, means)
    constant = -2 * (counts * np.log(mixture.weights)).sum() + len(x) * 2 * math.log(2 * math.pi)
    for seed in range(4):
        sigmas = reference.random_mixture(family, 3, 2, seed=seed).covariances
        member = reference.Mixture(mixture.weights, means, sigmas)
        objective = sum(
            n * np.log(np.linalg.det(sigma)) + np.trace(np.linalg.inv(sigma) @ s)
            for n, sigma, s in zip(counts, sigmas, scatters, strict=True)
        )
        compare(objective, -2 * len(x) * surrogate(shares, member, x) - constant, 1e-10)


@verifies("eq-m-step-covariance")
@pytest.mark.parametrize("shape", SHAPES)
def test_m_step_full(compare: Compare, shape: tuple[int, int]) -> None:
    """Q maximized by BFGS from the old covariances, against the package's M-step"""
    mixture, x = case("full", *shape)
    found = best_covariances("full", mixture, x)
    compare(after_one_step("full", mixture, x).covariances.detach(), found, 1e-6)


@verifies("eq-m-step-tied")
@pytest.mark.parametrize("shape", SHAPES)
def test_m_step_tied(compare: Compare, shape: tuple[int, int]) -> None:
    """Q maximized by BFGS over one covariance for all, against the package's M-step"""
    mixture, x = case("tied", *shape)
    found = best_covariances("tied", mixture, x)
    compare(after_one_step("tied", mixture, x).covariances.detach(), found, 1e-6)


@verifies("eq-m-step-diagonal")
@pytest.mark.parametrize("shape", SHAPES)
def test_m_step_diagonal(compare: Compare, shape: tuple[int, int]) -> None:
    """Q maximized by BFGS over diagonal covariances, against the package's M-step"""
    mixture, x = case("diagonal", *shape)
    found = best_covariances("diagonal", mixture, x)
    compare(after_one_step("diagonal", mixture, x).covariances.detach(), found, 1e-6)


@verifies("eq-m-step-isotropic")
@pytest.mark.parametrize("shape", SHAPES)
def test_m_step_isotropic(compare: Compare, shape: tuple[int, int]) -> None:
    """Q maximized over each log variance by Brent's search, against the package's M-step"""
    mixture, x = case("isotropic", *shape)
    model = after_one_step("isotropic", mixture, x)
    means = model.means.detach().numpy()
    shares = reference.responsibilities(mixture, x)
    identity = np.eye(shape[1])
    for k in range(shape[0]):

        def loss(log_variance: float, k: int = k) -> float:
            one = reference.Mixture(
                np.ones(1), means[k : k + 1], math.exp(log_variance) * identity[None]
            )
            return -surrogate(shares[:, k : k + 1], one, x)

        found = minimize_scalar(loss, bracket=(-1, 2), tol=1e-12)
        compare(model.covariances[k].detach(), math.exp(found.x) * identity, 1e-6)


@verifies("eq-m-step-shared-isotropic")
@pytest.mark.parametrize("shape", SHAPES)
def test_m_step_shared_isotropic(compare: Compare, shape: tuple[int, int]) -> None:
    """Q maximized over one log variance by Brent's search, against the package's M-step"""
    mixture, x = case("shared_isotropic", *shape)
    model = after_one_step("shared_isotropic", mixture, x)
    shares = reference.responsibilities(mixture, x)
    identity = np.broadcast_to(np.eye(shape[1]), mixture.covariances.shape)

    def loss(log_variance: float) -> float:
        covariances = math.exp(log_variance) * identity
        member = reference.Mixture(mixture.weights, model.means.detach().numpy(), covariances)
        return -surrogate(shares, member, x)

    found = minimize_scalar(loss, bracket=(-1, 2), tol=1e-12)
    compare(model.covariances.detach(), math.exp(found.x) * identity, 1e-6)


@verifies("eq-wrong-ellipse")
@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0, 6.0])
def test_wrong_ellipse(compare: Compare, sigma: float) -> None:
    """draws inside the polygon that the package draws from a deviation, 50,000 of them"""
    for q in (0.5, 0.95):
        drawn = Path(plot.ellipse(torch.zeros(2), sigma * torch.eye(2), q))
        inside = drawn.contains_points((sigma * torch.randn(50_000, 2)).numpy())
        # A polygon of 120 corners has the share sin(t) / t of the circle's squared radius.
        share = math.sin(2 * math.pi / 120) / (2 * math.pi / 120)
        expected = 1 - (1 - q) ** (share / sigma)
        compare.monte_carlo(inside.astype(float), np.array(expected))
        assert abs(expected - (1 - (1 - q) ** (1 / sigma))) < 1e-3
