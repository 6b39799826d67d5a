"""Proofs of the equations of chapter 05, gradient descent."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import reference
import torch
from scipy.linalg import solve_discrete_lyapunov
from torch import Tensor

import gmmedu
from equations.proof import Compare, verifies
from gmmedu import MODELS
from gmmedu.descent import score
from gmmedu.models import GaussianMixture
from gmmedu.passes import e_step
from gmmedu.values import Points, Statistics

Array = reference.Array
SHAPES = [(1, 1), (2, 1), (3, 2), (2, 4)]
H = 1e-5


def case(family: str, shape: tuple[int, int], seed: int = 1) -> tuple[reference.Mixture, Array]:
    """A random mixture and points that another, of another family, has made."""
    mixture = reference.random_mixture(family, *shape, seed)
    source = reference.random_mixture("full", shape[0] + 1, shape[1], seed + 50)
    return mixture, reference.draw(source, 60, seed)


def model_of(family: str, mixture: reference.Mixture) -> GaussianMixture:
    options = {"variance": mixture.covariances[0, 0, 0]} if family == "constant" else {}
    model = MODELS[family](*mixture.means.shape, **options)
    return model.set_parameters(**mixture.tensors()).requires_grad_(False)


def counted(family: str, mixture: reference.Mixture, x: Array) -> tuple[Statistics, tuple]:
    """The package's statistics, and its gradient of f in logits, means and raw_scale."""
    model, points = model_of(family, mixture), torch.tensor(x)
    statistics = e_step(Points.of(points), model.family, model.state())
    ascent = score(statistics, model.family, model.state())
    return statistics, tuple(-up / len(x) for up in ascent)


def f_of(mixture: reference.Mixture, x: Array) -> float:
    """Mean NLL by scipy; weights need not sum to one."""
    return float(-reference.log_density(mixture, x).mean())


def differences(function: Callable[[Array], float], at: Array) -> Array:
    """Central differences in every entry."""
    slopes = np.empty_like(at)
    for index in np.ndindex(at.shape):
        step = np.zeros_like(at)
        step[index] = H
        slopes[index] = (function(at + step) - function(at - step)) / (2 * H)
    return slopes


@verifies("eq-gradient-weights")
@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_weights(compare: Compare, shape: tuple[int, int]) -> None:
    """the package's, against central differences of scipy's NLL in the logits"""
    for seed in range(3):
        mixture, x = case("full", shape, seed)

        def f(logits: Array, mixture: reference.Mixture = mixture, x: Array = x) -> float:
            weights = np.exp(logits) / np.exp(logits).sum()
            return f_of(mixture._replace(weights=weights), x)

        expected = differences(f, np.log(mixture.weights) + 0.7)
        compare(counted("full", mixture, x)[1][0], expected, 1e-9)


@verifies("eq-gradient-constrained")
@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_constrained(compare: Compare, shape: tuple[int, int]) -> None:
    """differences of scipy's NLL in each weight alone; the softmax's Jacobian by autograd"""
    mixture, x = case("full", shape)

    def f(weights: Array) -> float:
        return f_of(mixture._replace(weights=weights), x)

    counts = counted("full", mixture, x)[0].counts.numpy()
    in_weights = -counts / (len(x) * mixture.weights)
    compare(in_weights, differences(f, mixture.weights), 1e-8)
    logits = torch.tensor(mixture.weights).log()
    jacobian = torch.autograd.functional.jacobian(lambda a: a.softmax(0), logits)
    compare(jacobian.mT @ torch.tensor(in_weights), counted("full", mixture, x)[1][0], 1e-12)


@verifies("eq-gradient-means")
@pytest.mark.parametrize("family", MODELS)
def test_gradient_means(compare: Compare, family: str) -> None:
    """the package's, all families, against central differences of scipy's NLL in the means"""
    for shape in SHAPES:
        mixture, x = case(family, shape)

        def f(means: Array, mixture: reference.Mixture = mixture, x: Array = x) -> float:
            return f_of(mixture._replace(means=means), x)

        compare(counted(family, mixture, x)[1][1], differences(f, mixture.means), 1e-8)


@verifies("eq-gradient-covariance")
@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_covariance(compare: Compare, shape: tuple[int, int]) -> None:
    """from the package's statistics, against autograd through a matrix inverse and a determinant"""
    for seed in range(3):
        mixture, x = case("full", shape, seed)
        statistics, _ = counted("full", mixture, x)
        sigma = torch.tensor(mixture.covariances, requires_grad=True)
        joint = []
        for k, (weight, mean) in enumerate(zip(mixture.weights, mixture.means, strict=True)):
            residual = torch.tensor(x - mean)
            distance = (residual @ torch.linalg.inv(sigma[k]) * residual).sum(1)
            joint.append(
                math.log(weight) - 0.5 * (distance + torch.logdet(2 * torch.pi * sigma[k]))
            )
        nll = -torch.stack(joint).logsumexp(0).mean()
        (slopes,) = torch.autograd.grad(nll, sigma)
        for k, covariance in enumerate(mixture.covariances):
            whitening = np.linalg.inv(np.linalg.cholesky(covariance))
            count, second = float(statistics.counts[k]), statistics.second[k].numpy()
            middle = count * np.eye(shape[1]) - second
            compare(whitening.T @ middle @ whitening / (2 * len(x)), slopes[k], 1e-11)


@verifies("eq-gradient-full")
@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_full(compare: Compare, shape: tuple[int, int]) -> None:
    """the package's, against autograd of a loop over components that inverts each covariance"""
    for seed in range(3):
        mixture, x = case("full", shape, seed)
        theta = torch.tensor(reference.theta_of("full", mixture.covariances))
        start = torch.tensor(mixture.weights).log(), torch.tensor(mixture.means), theta
        expected = reference.gradient("full", start, torch.tensor(x))[2]
        compare(counted("full", mixture, x)[1][2], expected, 1e-12)


@verifies("eq-gradient-diagonal")
@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_diagonal(compare: Compare, shape: tuple[int, int]) -> None:
    """the package's, against central differences of scipy's NLL in the log standard deviations"""
    mixture, x = case("diagonal", shape)
    theta = reference.theta_of("diagonal", mixture.covariances)

    def f(theta: Array) -> float:
        covariances = np.stack([np.diag(np.exp(2 * row)) for row in theta])
        return f_of(mixture._replace(covariances=covariances), x)

    compare(counted("diagonal", mixture, x)[1][2], differences(f, theta), 1e-8)


@verifies("eq-gradient-pooled")
@pytest.mark.parametrize("family", ["tied", "isotropic", "shared_isotropic"])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_pooled(compare: Compare, family: str, shape: tuple[int, int]) -> None:
    """the package's, against autograd; and against the sum of unshared slopes of a wider family"""
    mixture, x = case(family, shape)
    theta = torch.tensor(reference.theta_of(family, mixture.covariances))
    start = torch.tensor(mixture.weights).log(), torch.tensor(mixture.means), theta
    expected = reference.gradient(family, start, torch.tensor(x))[2]
    found = counted(family, mixture, x)[1][2]
    compare(found, expected, 1e-12)
    wider = "full" if family == "tied" else "diagonal"
    apart = torch.tensor(reference.theta_of(wider, mixture.covariances))
    slopes = reference.gradient(wider, (*start[:2], apart), torch.tensor(x))[2]
    shared = {"tied": (0,), "isotropic": (1,), "shared_isotropic": (0, 1)}
    compare(found, slopes.sum(shared[family], keepdim=True), 1e-12)


def quadratic(num_dims: int, seed: int) -> tuple[Array, Array]:
    """A symmetric positive definite matrix and its eigenvalues, lowest first."""
    random = np.random.default_rng(seed)
    values = np.sort(np.exp(random.uniform(-2, 3, num_dims)))
    vectors = np.linalg.qr(random.normal(size=(num_dims, num_dims)))[0]
    return vectors @ np.diag(values) @ vectors.T, values


@verifies("eq-descent")
def test_descent(compare: Compare) -> None:
    """the steps of torch.optim.SGD without momentum on a mixture's NLL, ten of them"""
    mixture, x = case("full", (2, 2))
    model = model_of("full", mixture).requires_grad_()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    logits = torch.tensor(mixture.weights).log()
    phi = [logits, torch.tensor(mixture.means)]
    phi.append(torch.tensor(reference.theta_of("full", mixture.covariances)))
    for _ in range(10):
        optimizer.zero_grad()
        model(torch.tensor(x)).backward()
        optimizer.step()
        slopes = reference.gradient("full", phi, torch.tensor(x))
        phi = [p - 0.1 * slope for p, slope in zip(phi, slopes, strict=True)]
    for found, expected in zip((model.logits, model.means, model.raw_scale), phi, strict=True):
        compare(found.detach(), expected, 1e-11)


@verifies("eq-condition")
@pytest.mark.parametrize("seed", range(4))
def test_condition(compare: Compare, seed: int) -> None:
    """worst error that 200 steps on a random quadratic leave; no other rate of 200 does better"""
    matrix, values = quadratic(5, seed)
    low, high = values[0], values[-1]
    kappa = high / low
    rate, rho = 2 / (high + low), (kappa - 1) / (kappa + 1)
    errors = np.eye(5)
    for _ in range(200):
        errors = errors - rate * matrix @ errors
    compare(np.linalg.norm(errors, 2) ** (1 / 200), rho, 1e-12)
    worst = [
        np.abs(np.linalg.eigvals(np.eye(5) - eta * matrix)).max()
        for eta in np.linspace(0.01, 2, 200) * rate
    ]
    compare(min(0.0, min(worst) - rho), 0.0, 1e-12)


@verifies("eq-hessian-coordinates")
def test_hessian_coordinates(compare: Compare) -> None:
    """autograd's Hessian of one Gaussian's NLL at its minimum, in three sets of coordinates"""
    x = torch.tensor(np.random.default_rng(0).normal(3, 2, 50))

    def f(phi: Tensor) -> Tensor:
        return -torch.distributions.Normal(phi[0], phi[1]).log_prob(x).mean()

    best = torch.stack([x.mean(), x.std(correction=0)])
    hessian = torch.func.hessian(f)(best)
    maps = {
        "log": (
            lambda u: torch.stack([u[0], u[1].exp()]),
            lambda p: torch.stack([p[0], p[1].log()]),
        ),
        "variance": (
            lambda u: torch.stack([u[0], u[1].sqrt()]),
            lambda p: p * torch.stack([p[1] * 0 + 1, p[1]]),
        ),
        "mixed": (
            lambda u: torch.stack([u[0] + u[1] ** 2, u[1] * u[0].exp()]),
            None,
        ),
    }
    for name, (g, inverse) in maps.items():
        if inverse is None:
            u = torch.tensor([0.5, 1.0])
            for _ in range(50):  # Newton's method for g(u) = best
                step = torch.func.jacrev(g)(u)
                u = u - torch.linalg.solve(step, g(u) - best)
        else:
            u = inverse(best)
        compare(g(u), best, 1e-10)
        jacobian = torch.func.jacrev(g)(u)
        compare(
            torch.func.hessian(lambda u, g=g: f(g(u)))(u), jacobian.mT @ hessian @ jacobian, 1e-9
        )
        assert name == "variance" or not torch.allclose(jacobian, torch.eye(2))


@verifies("eq-momentum")
def test_momentum(compare: Compare) -> None:
    """the steps of torch.optim.SGD with momentum on a mixture's NLL, 20 of them"""
    mixture, x = case("diagonal", (2, 2))
    model, points = model_of("diagonal", mixture).requires_grad_(), torch.tensor(x)
    optimizer = torch.optim.SGD([model.means], lr=0.2, momentum=0.8)
    means, b = model.means.detach().clone(), torch.zeros(2, 2)
    fixed = torch.tensor(mixture.weights).log(), model.raw_scale.detach()
    for _ in range(20):
        optimizer.zero_grad()
        model(points).backward()
        optimizer.step()
        slope = reference.gradient("diagonal", (fixed[0], means, fixed[1]), points)[1]
        b = 0.8 * b + slope
        means = means - 0.2 * b
    compare(model.means.detach(), means, 1e-11)


@verifies("eq-momentum-rate")
@pytest.mark.parametrize("seed", range(4))
def test_momentum_rate(compare: Compare, seed: int) -> None:
    """spectral radius of a step's linear map, of 2P rows; nearby constants do no better"""
    matrix, values = quadratic(4, seed)
    low, high = values[0], values[-1]
    root = math.sqrt(high / low)
    rate, rho = 4 / (math.sqrt(high) + math.sqrt(low)) ** 2, (root - 1) / (root + 1)

    def radius(rate: float, beta: float) -> float:
        # (error, b) -> (error - rate (beta b + H error), beta b + H error)
        below = np.hstack([matrix, beta * np.eye(4)])
        above = np.hstack([np.eye(4), np.zeros((4, 4))]) - rate * below
        return float(np.abs(np.linalg.eigvals(np.vstack([above, below]))).max())

    compare(radius(rate, rho**2), rho, 1e-6)  # a double root: half the digits
    others = [
        radius(rate * a, min(0.999, rho**2 * b))
        for a in np.linspace(0.7, 1.3, 13)
        for b in np.linspace(0.7, 1.3, 13)
    ]
    compare(min(0.0, min(others) - rho + 1e-6), 0.0, 1e-12)


@verifies("eq-adam")
def test_adam(compare: Compare) -> None:
    """the steps of torch.optim.Adam, 300 of them, random gradients and rates"""
    random = np.random.default_rng(0)
    gradients = random.normal(size=(300, 6)) * 10.0 ** random.uniform(-6, 3, 6)
    rates = random.uniform(0, 0.1, 300)
    leaf = torch.zeros(6, requires_grad=True)
    optimizer = torch.optim.Adam([leaf], lr=1.0)
    phi, m, v = np.zeros(6), np.zeros(6), np.zeros(6)
    for t, (g, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        leaf.grad = torch.tensor(g)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        phi = phi - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    compare(leaf.detach(), phi, 1e-10)


@verifies("eq-adam")
def test_adam_of_the_package(compare: Compare) -> None:
    """fit_model's NLL after each of 200 iterations, by torch's Adam and schedule on autograd"""
    mixture, x = case("full", (2, 2))
    z = (x - x.mean(0)) / x.std(0)
    start = model_of("full", mixture).requires_grad_()
    loop = model_of("full", mixture).requires_grad_()
    fit = gmmedu.fit_model(start, torch.tensor(z), 200, 0.02, 0.05)
    optimizer = torch.optim.Adam(
        [
            {"params": [loop.logits], "lr": 0.02},
            {"params": [loop.means, loop.raw_scale], "lr": 0.05},
        ]
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 200)
    history = []
    for _ in range(201):
        optimizer.zero_grad()
        loss = loop(torch.tensor(z))
        history.append(loss.item())
        loss.backward()
        optimizer.step()
        schedule.step()
    compare(fit.history, history, 1e-9)


def stretch(t: int) -> float:
    ratio = 0.9**2 / 0.999
    square = 0.1**2 / 0.001 * (1 - ratio**t) / (1 - ratio) * (1 - 0.999**t) / (1 - 0.9**t) ** 2
    return math.sqrt(square)


def steps_of_adam(gradients: Array) -> Array:
    """Length of each step of torch's Adam at a rate of 1; gradients (T, P)."""
    leaf = torch.zeros(gradients.shape[1], requires_grad=True)
    optimizer = torch.optim.Adam([leaf], lr=1.0, eps=1e-300)
    lengths = []
    for g in gradients:
        before = leaf.detach().clone()
        leaf.grad = torch.tensor(g)
        optimizer.step()
        lengths.append((leaf.detach() - before).abs().numpy())
    return np.stack(lengths)


@verifies("eq-adam-travel")
def test_adam_travel(compare: Compare) -> None:
    """torch's Adam on the extreme gradients attains c_t, and stays below it on wild ones"""
    for t in (1, 2, 10, 100, 700, 2500):
        age = np.arange(t)[::-1].astype(float)
        reached = steps_of_adam(((0.9 / 0.999) ** age)[:, None])[-1, 0]
        compare(reached, stretch(t), 1e-9)
    random = np.random.default_rng(0)
    wild = random.standard_cauchy((400, 50)) * np.exp(random.normal(0, 3, (400, 50)).cumsum(0) / 5)
    bounds = np.array([stretch(t) for t in range(1, 401)])[:, None]
    excess = steps_of_adam(wild) - bounds
    compare(np.maximum(excess, 0).max(), 0.0, 1e-9)
    limit = 0.1 / math.sqrt(0.001 * (1 - 0.81 / 0.999))
    compare(stretch(100_000), limit, 1e-12)
    compare(max(stretch(t) for t in range(1, 5000)) <= limit, True, 0)


def every_batch(size: int, seed: int) -> tuple[Array, Array]:
    """Autograd's gradients of the NLL in all parameters: of each of 7 points, of each batch."""
    mixture, x = case("full", (2, 2), seed)
    x = x[:7]
    theta = torch.tensor(reference.theta_of("full", mixture.covariances))
    phi = torch.tensor(mixture.weights).log(), torch.tensor(mixture.means), theta

    def of(rows: tuple[int, ...]) -> Array:
        slopes = reference.gradient("full", phi, torch.tensor(x[list(rows)]))
        return torch.cat([slope.flatten() for slope in slopes]).numpy()

    points = np.stack([of((n,)) for n in range(7)])
    batches = np.stack([of(rows) for rows in itertools.combinations(range(7), size)])
    return points, batches


@verifies("eq-minibatch-unbiased")
@pytest.mark.parametrize("size", [1, 3, 6])
def test_minibatch_unbiased(compare: Compare, size: int) -> None:
    """mean over every batch there is, of 7 points, against autograd of the whole NLL"""
    for seed in range(2):
        _, batches = every_batch(size, seed)
        _, whole = every_batch(7, seed)
        compare(batches.mean(0), whole[0], 1e-12)


@verifies("eq-minibatch-noise")
@pytest.mark.parametrize("size", [1, 2, 4, 6, 7])
def test_minibatch_noise(compare: Compare, size: int) -> None:
    """covariance over every batch there is, of 7 points, against that of single points"""
    points, batches = every_batch(size, 3)
    single = np.cov(points.T, bias=True)
    found = np.cov(batches.T, bias=True)
    compare(found, single / size * (7 - size) / 6, 1e-12)


@verifies("eq-noise-floor")
def test_noise_floor(compare: Compare) -> None:
    """half the trace of H E, E by scipy's Lyapunov solver, over eta as eta goes to zero"""
    for seed in range(3):
        matrix, _ = quadratic(4, seed)
        root = np.random.default_rng(seed).normal(size=(4, 4))
        noise = root @ root.T
        for rate in (1e-4, 1e-5):
            step = np.eye(4) - rate * matrix
            spread = solve_discrete_lyapunov(step, rate**2 * noise, method="bilinear")
            excess = 0.5 * np.trace(matrix @ spread)
            compare(excess / rate, np.trace(noise) / 4, 50 * rate)
