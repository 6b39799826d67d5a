"""Checks of the equations of chapter 07, descent versus EM."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reference
import torch
from scipy.integrate import quad
from scipy.optimize import minimize
from torch import Tensor

import gmmedu
from equations.proof import Compare, verifies
from gmmedu.em import leap

SHAPES = [(1, 1), (2, 1), (2, 3), (4, 2)]


def case(k: int, d: int) -> tuple[reference.Mixture, np.ndarray]:
    """A random mixture, and points that another has made."""
    mixture = reference.random_mixture("full", k, d, seed=3)
    return mixture, reference.draw(reference.random_mixture("full", k + 1, d, seed=9), 60, seed=5)


def after(mixture: reference.Mixture, x: np.ndarray, family: str = "full") -> reference.Mixture:
    """The mixture after one iteration of the package's EM."""
    model = gmmedu.MODELS[family](*mixture.means.shape, dtype=torch.float64)
    model.set_parameters(**mixture.tensors())
    gmmedu.fit_em(model, torch.tensor(x), 1, tolerance=0.0, mitigation=None)
    parts = (model.weights, model.means, model.covariances)
    return reference.Mixture(*(part.detach().numpy() for part in parts))


def gradients(mixture: reference.Mixture, x: np.ndarray) -> list[np.ndarray]:
    """Of the mean NLL in weights, means and covariances, by autograd through torch's density; the
    gradient in a covariance is that of a symmetric matrix."""
    leaves = [torch.tensor(part, requires_grad=True) for part in mixture]
    weights, means, roots = leaves
    normal = torch.distributions.MultivariateNormal(means, (roots + roots.mT) / 2)
    joint = weights.log() + normal.log_prob(torch.tensor(x)[:, None])
    grads = torch.autograd.grad(-joint.logsumexp(1).mean(), leaves)
    return [g.numpy() for g in grads]


@verifies("eq-xu-jordan-weights")
@pytest.mark.parametrize("shape", SHAPES)
def test_weights(compare: Compare, shape: tuple[int, int]) -> None:
    """the package's EM step against the matrix times autograd's gradient, entry by entry"""
    mixture, x = case(*shape)
    pi, g = mixture.weights, gradients(mixture, x)[0]
    step = [
        -sum(((j == k) * pi[k] - pi[k] * pi[j]) * g[j] for j in range(len(pi)))
        for k in range(len(pi))
    ]
    compare(after(mixture, x).weights - pi, step, 1e-10)


@verifies("eq-xu-jordan-means")
@pytest.mark.parametrize("shape", SHAPES)
def test_means(compare: Compare, shape: tuple[int, int]) -> None:
    """the package's EM step against covariance times autograd's gradient over scipy's share"""
    mixture, x = case(*shape)
    counts, g = reference.responsibilities(mixture, x).sum(0), gradients(mixture, x)[1]
    step = [-len(x) / n * s @ v for n, s, v in zip(counts, mixture.covariances, g, strict=True)]
    compare(after(mixture, x).means - mixture.means, step, 1e-10)


@verifies("eq-xu-jordan-covariances")
@pytest.mark.parametrize("shape", SHAPES)
def test_covariances(compare: Compare, shape: tuple[int, int]) -> None:
    """the package's EM step against autograd's gradient less the outer product of the step"""
    mixture, x = case(*shape)
    new = after(mixture, x)
    counts, g = reference.responsibilities(mixture, x).sum(0), gradients(mixture, x)[2]
    steps = []
    for k, sigma in enumerate(mixture.covariances):
        delta = new.means[k] - mixture.means[k]
        steps.append(-2 * len(x) / counts[k] * sigma @ g[k] @ sigma - np.outer(delta, delta))
    compare(new.covariances - mixture.covariances, np.stack(steps), 1e-10)


@verifies("eq-em-preconditioned")
@pytest.mark.parametrize("shape", SHAPES)
def test_preconditioned(compare: Compare, shape: tuple[int, int]) -> None:
    """one assembled matrix, Kronecker products for covariances, times autograd's gradient"""
    mixture, x = case(*shape)
    counts = reference.responsibilities(mixture, x).sum(0)
    new, pi = after(mixture, x), mixture.weights
    blocks = [np.diag(pi) - np.outer(pi, pi)]
    scaled = [len(x) / n * s for n, s in zip(counts, mixture.covariances, strict=True)]
    blocks += scaled
    blocks += [2 * np.kron(a, s) for a, s in zip(scaled, mixture.covariances, strict=True)]
    size = sum(len(block) for block in blocks)
    matrix, at = np.zeros((size, size)), 0
    for block in blocks:
        matrix[at : at + len(block), at : at + len(block)] = block
        at += len(block)
    assert np.linalg.eigvalsh(matrix).min() > -1e-10
    flat = np.concatenate([g.ravel() for g in gradients(mixture, x)])
    delta = new.means - mixture.means
    rest = np.einsum("ki,kj->kij", delta, delta).ravel()
    rest = np.concatenate([np.zeros(size - len(rest)), rest])
    moved = [(a - b).ravel() for a, b in zip(new, mixture, strict=True)]
    compare(np.concatenate(moved), -matrix @ flat - rest, 1e-10)


# One dimension, two components, in the free numbers t = (logit, two means, two log deviations)


def joint(t: Tensor, x: Tensor) -> Tensor:
    weights = torch.stack([t[0], torch.zeros_like(t[0])]).log_softmax(0)
    return weights + torch.distributions.Normal(t[1:3], t[3:].exp()).log_prob(x[:, None])


def expected_features(t: Tensor) -> Tensor:
    """m: weight of the first, then weight x mean and weight x second moment of each."""
    pi = torch.stack([t[0], torch.zeros_like(t[0])]).softmax(0)
    return torch.cat([pi[:1], pi * t[1:3], pi * (t[1:3] ** 2 + (2 * t[3:]).exp())])


def one_line(seed: int, apart: float = 2.5) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(150, generator=g, dtype=torch.float64)
    x[:70] += apart
    t = torch.tensor([0.2, apart + 0.3, -0.2, 0.1, -0.15], dtype=torch.float64)
    return x, t + 0.1 * torch.randn(5, generator=g, dtype=torch.float64)


def stepped(t: Tensor, x: Tensor) -> Tensor:
    """One iteration of the package's EM in the free numbers."""
    pi = torch.stack([t[0], torch.zeros_like(t[0])]).softmax(0)
    mixture = (pi, t[1:3, None], (2 * t[3:]).exp()[:, None, None])
    new = after(reference.Mixture(*(part.numpy() for part in mixture)), x[:, None].numpy())
    log_pi = np.log(new.weights)
    deviations = 0.5 * np.log(new.covariances.ravel())
    return torch.tensor([log_pi[0] - log_pi[1], *new.means.ravel(), *deviations])


@verifies("eq-em-natural-gradient")
@pytest.mark.parametrize("seed", range(4))
def test_natural_gradient(compare: Compare, seed: int) -> None:
    """the package's step in expected features; covariance of the features by quadrature"""
    x, t = one_line(seed)
    slope = torch.func.grad(lambda t: -joint(t, x).logsumexp(1).mean())(t)
    into = torch.func.jacrev(expected_features)(t)
    in_features = torch.linalg.solve(into.mT, slope)
    grid = torch.linspace(-25, 28, 40_001, dtype=torch.float64)
    density = joint(t, grid).exp() * (grid[1] - grid[0])  # (M, 2)
    zero, one = torch.zeros_like(grid), torch.ones_like(grid)
    first = torch.stack([one, grid, zero, grid**2, zero], 1)
    second = torch.stack([zero, zero, grid, zero, grid**2], 1)
    features = torch.stack([first, second], 1) - expected_features(t)
    covariance = torch.einsum("mk,mki,mkj->ij", density, features, features)
    moved = expected_features(stepped(t, x)) - expected_features(t)
    compare(moved, -covariance @ in_features, 1e-9)


def optimum(x: Tensor, t: Tensor) -> Tensor:
    """By Newton's method on autograd's Hessian, from a few hundred iterations of EM."""
    for _ in range(60):
        t = stepped(t, x)

    def f(t: Tensor) -> Tensor:
        return -joint(t, x).logsumexp(1).mean()

    for _ in range(12):
        t = t - torch.linalg.solve(torch.func.hessian(f)(t), torch.func.grad(f)(t))
    assert torch.func.grad(f)(t).abs().max() < 1e-12
    return t


def information_matrices(t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Complete: Hessian of the surrogate. Missing: variance of the gradient, by a sum over points
    and labels."""
    r = joint(t, x).softmax(1)
    complete = -torch.func.hessian(lambda t: (r * joint(t, x)).sum())(t)
    g = torch.func.jacrev(lambda t: joint(t, x))(t)
    missing = torch.zeros(5, 5, dtype=t.dtype)
    for shares, scores in zip(r, g, strict=True):
        mean = shares @ scores
        for share, score in zip(shares, scores, strict=True):
            missing += share * torch.outer(score - mean, score - mean)
    return complete, missing


@verifies("eq-missing-information")
@pytest.mark.parametrize("seed", range(3))
def test_missing_information(compare: Compare, seed: int) -> None:
    """autograd's Hessian of the NLL, anywhere, against a loop over points and labels"""
    x, t = one_line(seed)
    complete, missing = information_matrices(t, x)
    hessian = torch.func.hessian(lambda t: -joint(t, x).logsumexp(1).sum())(t)
    compare((complete - missing) / len(x), hessian / len(x), 1e-12)


@verifies("eq-em-rate")
@pytest.mark.parametrize("seed", range(3))
def test_rate(compare: Compare, seed: int) -> None:
    """central differences of the package's EM step, and its ratio of errors, at an optimum"""
    x, t = one_line(seed, apart=3.0)
    best = optimum(x, t)
    complete, missing = information_matrices(best, x)
    h, columns = 1e-5, []
    for direction in torch.eye(5, dtype=t.dtype) * h:
        columns.append((stepped(best + direction, x) - stepped(best - direction, x)) / (2 * h))
    jacobian = torch.stack(columns, 1)
    compare(jacobian, torch.linalg.solve(complete, missing), 1e-7)
    hessian = torch.func.hessian(lambda t: -joint(t, x).logsumexp(1).mean())(best)
    identity = torch.eye(5, dtype=t.dtype)
    compare(jacobian, identity - torch.linalg.solve(complete, len(x) * hessian), 1e-7)
    errors, t = [], best + 1e-3
    for _ in range(120):
        t = stepped(t, x)
        errors.append(float((t - best).norm()))
        if errors[-1] < 1e-8:
            break
    rates = torch.linalg.eigvals(torch.linalg.solve(complete, missing))
    compare(errors[-1] / errors[-2], float(rates.real.max()), 2e-3)
    assert (rates.real > -1e-9).all() and (rates.real < 1).all() and rates.imag.abs().max() < 1e-9


@verifies("eq-iterations-per-digit")
def test_iterations_per_digit(compare: Compare) -> None:
    """the NLL of the package's EM near an optimum: iterations counted over three digits"""
    x, t = one_line(1, apart=3.0)
    best = optimum(x, t)
    least = float(-joint(best, x).logsumexp(1).mean())
    rates = torch.linalg.eigvals(torch.linalg.solve(*information_matrices(best, x))).real
    t, excess = best + 1e-2, []
    for _ in range(400):
        t = stepped(t, x)
        excess.append(float(-joint(t, x).logsumexp(1).mean()) - least)
        if excess[-1] < 1e-11:
            break
    logs = -np.log10(np.array(excess))
    inside = np.flatnonzero((logs > 6.5) & (logs < 10.0))
    first, last = inside[0], inside[-1]
    counted = (last - first) / (logs[last] - logs[first])
    gamma = float(rates.max())
    compare(counted, math.log(10) / (-2 * math.log(gamma)), 1e-2)
    for gamma in (0.99, 0.999):
        near = (math.log(10) / 2) / (1 - gamma)
        compare(math.log(10) / (-2 * math.log(gamma)) / near, 1.0, 1.1 * (1 - gamma))


@verifies("eq-symmetric-rate")
@pytest.mark.parametrize("mu", [0.1, 0.7, 1.0, 2.0])
def test_symmetric_rate(compare: Compare, mu: float) -> None:
    """central differences of the EM map, its responsibilities from Bayes' rule, by quadrature"""

    def density(x: float) -> float:
        return 0.5 * (math.exp(-0.5 * (x - mu) ** 2) + math.exp(-0.5 * (x + mu) ** 2))

    def step(guess: float) -> float:
        def moment(x: float) -> float:
            up, down = math.exp(-0.5 * (x - guess) ** 2), math.exp(-0.5 * (x + guess) ** 2)
            return density(x) * x * (up - down) / (up + down) / math.sqrt(2 * math.pi)

        return float(quad(moment, -12, 12, epsabs=1e-13, epsrel=1e-13, limit=200)[0])

    compare(step(mu), mu, 1e-10)  # the truth is a fixed point
    h = 1e-4
    x = np.linspace(-14, 14, 8001)
    p = 0.5 * (np.exp(-0.5 * (x - mu) ** 2) + np.exp(-0.5 * (x + mu) ** 2)) / np.sqrt(2 * np.pi)
    formula = float((p * x**2 / np.cosh(mu * x) ** 2).sum() * (x[1] - x[0]))
    compare((step(mu + h) - step(mu - h)) / (2 * h), formula, 1e-7)


def linear_path(seed: int, size: int = 4) -> tuple[Tensor, Tensor, list[Tensor]]:
    """A limit, a symmetric J with eigenvalues in [0, 1), and three iterates."""
    g = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(size, size, generator=g, dtype=torch.float64)).Q
    rates = torch.rand(size, generator=g, dtype=torch.float64) * 0.99
    jacobian = basis @ torch.diag(rates) @ basis.mT
    limit, away = torch.randn(2, size, generator=g, dtype=torch.float64)
    path = [limit + away]
    for _ in range(2):
        path.append(limit + jacobian @ (path[-1] - limit))
    return limit, jacobian, path


@verifies("eq-linear-extrapolation")
@pytest.mark.parametrize("seed", range(4))
def test_linear_extrapolation(compare: Compare, seed: int) -> None:
    """the limit of linear maps, known, and of ten thousand iterations"""
    limit, jacobian, (start, then, _) = linear_path(seed)
    identity = torch.eye(len(limit), dtype=limit.dtype)
    found = start + torch.linalg.solve(identity - jacobian, then - start)
    compare(found, limit, 1e-10)
    shift = then - jacobian @ start
    here = start
    for _ in range(10_000):
        here = jacobian @ here + shift
    compare(found, here, 1e-10)


def leapt(path: list[Tensor]) -> tuple[Tensor, float]:
    """Where the package's leap over three iterates ends, and its length."""
    unbounded = torch.full((1,), math.inf, dtype=path[0].dtype)
    start, then, last = (u[None] for u in path)
    ahead, length = leap(start, then, last, unbounded)
    return ahead[0], float(length[0])


@verifies("eq-squarem-error")
@pytest.mark.parametrize("seed", range(4))
def test_squarem_error(compare: Compare, seed: int) -> None:
    """the error that the package's leap over iterates of a linear map leaves, and its expansion"""
    limit, jacobian, path = linear_path(seed)
    ahead, omega = leapt(path)
    identity, error = torch.eye(4, dtype=limit.dtype), path[0] - limit
    away = identity - jacobian
    matrix = identity - omega * away
    compare(ahead - limit, matrix @ matrix @ error, 1e-9)
    once, twice = away @ error, away @ (away @ error)
    compare(ahead - limit, error - 2 * omega * once + omega**2 * twice, 1e-9)


@verifies("eq-squarem")
@pytest.mark.parametrize("seed", range(4))
def test_squarem(compare: Compare, seed: int) -> None:
    """the package's leap over iterates of a linear map, against two single leaps in turn"""
    limit, jacobian, path = linear_path(seed)
    start, then, last = path
    ahead, length = leapt(path)
    omega = float((then - start).norm() / (last - 2 * then + start).norm())
    compare(length, omega, 1e-12)
    once = start + omega * (then - start)
    image = limit + jacobian @ (once - limit)
    compare(ahead, once + omega * (image - once), 1e-9)


@verifies("eq-anderson")
@pytest.mark.parametrize("seed", range(3))
def test_anderson(compare: Compare, seed: int) -> None:
    """weights by scipy's constrained minimizer against differences; a linear map's limit found"""
    limit, jacobian, path = linear_path(seed)
    points = path[:2]
    images = [limit + jacobian @ (u - limit) for u in points]
    steps = torch.stack(images) - torch.stack(points)
    found = minimize(
        lambda w: float((torch.tensor(w) @ steps).square().sum()),
        np.array([0.5, 0.5]),
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-15},
    )
    average = torch.tensor(found.x) @ torch.stack(images)
    change = steps[1] - steps[0]
    gamma = change @ steps[1] / (change @ change)
    compare(images[1] - gamma * (images[1] - images[0]), average, 1e-6)
    # With as many differences as dimensions the shortest step is 0, and the average the limit.
    points, u = [], path[0]
    for _ in range(5):
        points.append(u)
        u = limit + jacobian @ (u - limit)
    values = torch.stack([limit + jacobian @ (p - limit) for p in points])
    steps = values - torch.stack(points)
    ones = torch.ones(1, 5, dtype=limit.dtype)
    weights = torch.linalg.solve(
        torch.cat([steps.mT, ones]), torch.tensor([0, 0, 0, 0, 1.0], dtype=limit.dtype)
    )
    compare(weights @ values, limit, 1e-5)
