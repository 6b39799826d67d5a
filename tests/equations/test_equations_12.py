"""Checks of the equations of chapter 12, EM as a layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.func import hessian, jacrev

from equations.proof import Compare, verifies
from gmmedu import MODELS, MixtureDistribution, em_fixed_point
from gmmedu.covariance import with_slopes
from gmmedu.values import Scales

FAMILY = MODELS["diagonal"].family


def line(seed: int = 0, num_points: int = 20) -> Tensor:
    """Points of two groups on a line, (N,)."""
    x = torch.randn(num_points, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x[: num_points // 2] += 3.5
    return x


def step(t: Tensor, x: Tensor, w: Tensor | None = None) -> Tensor:
    """EM written out: t = weight of the first, two means, two log standard deviations."""
    weights = torch.stack([t[0], 1 - t[0]])
    joint = weights.log() + torch.distributions.Normal(t[1:3], t[3:].exp()).log_prob(x[:, None])
    r = joint.softmax(1) if w is None else joint.softmax(1) * w[:, None]
    counts = r.sum(0)
    means = (r * x[:, None]).sum(0) / counts
    variances = (r * (x[:, None] - means) ** 2).sum(0) / counts
    return torch.cat([counts[:1] / counts.sum(), means, variances.log() / 2])


START = torch.tensor([0.5, 0.0, 3.5, 0.0, 0.0], dtype=torch.float64)


def settled(x: Tensor, w: Tensor | None = None) -> Tensor:
    t = START
    for _ in range(3000):
        before, t = t, step(t, x, w)
        if float((t - before).detach().abs().max()) < 1e-15:
            break
    return t


def layer(x: Tensor, w: Tensor | None = None, **options: Any) -> Tensor:
    """The package's fit from the same start, in the same five numbers."""
    means = START[1:3, None]
    half, identity = torch.full((2,), 0.5).double(), torch.ones(2, 1, 1).double()
    start = MixtureDistribution.of(half, means, identity, FAMILY).state
    given: dict[str, Any] = {"min_scale": 0, "tolerance": 1e-14, "num_iterations": 5000}
    state = em_fixed_point(start, x[:, None], FAMILY, w, **{**given, **options})
    scales = state.scales.factor[:, 0].log()
    return torch.cat([state.log_weights[:1].exp(), state.means[:, 0], scales])


def rows(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """The Jacobian, row by row, by the layer's own way back."""
    at = at.clone().requires_grad_()
    values = function(at)
    return torch.stack([torch.autograd.grad(v, at, retain_graph=True)[0] for v in values])


def differences(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """The same by central differences."""
    h, columns = 1e-5, []
    for n in range(len(at)):
        way = torch.zeros_like(at)
        way[n] = h
        columns.append((function(at + way) - function(at - way)) / (2 * h))
    return torch.stack(columns, 1)


@verifies("eq-unrolled-gradient")
@pytest.mark.parametrize("num_steps", [1, 2, 7])
def test_unrolled(compare: Compare, num_steps: int) -> None:
    """the recursion, by Jacobians of a step written out, against the package's unrolled layer and
    against differences"""
    x, t = line(), START
    total = torch.zeros(5, len(x), dtype=torch.float64)
    for _ in range(num_steps):
        matrix, direct = jacrev(step, (0, 1))(t, x)
        total, t = matrix @ total + direct, step(t, x)
    options: dict[str, Any] = {"gradient": "unrolled", "tolerance": 0}
    options["num_iterations"] = num_steps
    compare(rows(lambda x: layer(x, **options), x), total, 1e-9)
    compare(differences(lambda x: layer(x, **options), x).detach(), total, 1e-7)


@verifies("eq-implicit-gradient")
@pytest.mark.parametrize("seed", range(2))
def test_implicit(compare: Compare, seed: int) -> None:
    """refits of moved points, by EM written out, against the formula and the package's layer"""
    x = line(seed)
    matrix, direct = jacrev(step, (0, 1))(settled(x), x)
    formula = torch.linalg.solve(torch.eye(5).double() - matrix, direct)
    compare(formula, differences(settled, x), 1e-6)
    compare(rows(layer, x), formula, 1e-8)


@verifies("eq-adjoint")
@pytest.mark.parametrize("seed", range(2))
def test_adjoint(compare: Compare, seed: int) -> None:
    """a loss of refits, by differences, against the two halves of the way back"""
    x, v = line(seed), torch.linspace(-1, 2, 5, dtype=torch.float64)
    matrix, direct = jacrev(step, (0, 1))(settled(x), x)
    u = torch.linalg.solve((torch.eye(5).double() - matrix).mT, v)
    compare(direct.mT @ u, differences(lambda x: (settled(x) @ v)[None], x)[0], 1e-6)


def nll(t: Tensor, x: Tensor, w: Tensor) -> Tensor:
    """Mean NLL over N, of weighted points; t as above, but a logit for the weight."""
    logits = torch.stack([t[0], torch.zeros_like(t[0])])
    joint = torch.distributions.Normal(t[1:3], t[3:].exp()).log_prob(x[:, None])
    return -(w * (logits.log_softmax(0) + joint).logsumexp(1)).sum() / len(x)


def optimum(x: Tensor, w: Tensor) -> Tensor:
    """The minimum of the NLL by scipy's BFGS, polished by Newton's steps: no EM."""

    def value(t: np.ndarray) -> float:
        return float(nll(torch.tensor(t), x, w))

    def slope(t: np.ndarray) -> np.ndarray:
        return jacrev(nll)(torch.tensor(t), x, w).numpy()

    start = np.array([0.0, 0.0, 3.5, 0.0, 0.0])
    t = torch.tensor(minimize(value, start, jac=slope, method="BFGS").x)
    for _ in range(6):
        t = t - torch.linalg.solve(hessian(nll)(t, x, w), jacrev(nll)(t, x, w))
    return t


def in_logit(t: Tensor) -> Tensor:
    return torch.cat([(t[:1] / (1 - t[:1])).log(), t[1:]])


@verifies("eq-hessian-gradient")
@pytest.mark.parametrize("seed", range(2))
def test_hessian(compare: Compare, seed: int) -> None:
    """optima found by BFGS and Newton on moved points, and the package's layer"""
    x, ones = line(seed), torch.ones(20, dtype=torch.float64)
    t = optimum(x, ones)
    mixed = jacrev(jacrev(nll), argnums=1)(t, x, ones)
    formula = -torch.linalg.solve(hessian(nll)(t, x, ones), mixed)
    compare(formula, differences(lambda x: optimum(x, ones), x), 1e-6)
    compare(rows(lambda x: in_logit(layer(x)), x), formula, 1e-8)


@verifies("eq-weight-gradient")
@pytest.mark.parametrize("seed", range(2))
def test_weights(compare: Compare, seed: int) -> None:
    """optima found by BFGS and Newton with other weights, and the package's layer"""
    x, ones = line(seed), torch.ones(20, dtype=torch.float64)
    t = optimum(x, ones)

    def log_p(t: Tensor) -> Tensor:
        return torch.stack([-nll(t, one[None], one.new_ones(1)) for one in x])

    formula = torch.linalg.solve(len(x) * hessian(nll)(t, x, ones), jacrev(log_p)(t).mT)
    compare(formula, differences(lambda w: optimum(x, w), ones), 1e-6)
    compare(rows(lambda w: in_logit(layer(x, w)), ones), formula, 1e-8)


@verifies("eq-truncated-gradient")
@pytest.mark.parametrize("num_terms", [1, 3, 20])
def test_truncated(compare: Compare, num_terms: int) -> None:
    """steps at the fixed point, differentiated by autograd at once, against sum and closed form"""
    x = line(1)
    best = settled(x)

    def steps(x: Tensor) -> Tensor:
        t = best
        for _ in range(num_terms):
            t = step(t, x)
        return t

    matrix, direct = jacrev(step, (0, 1))(best, x)
    unrolled = jacrev(steps)(x)
    total = sum(torch.linalg.matrix_power(matrix, t) @ direct for t in range(num_terms))
    compare(total, unrolled, 1e-8)
    identity = torch.eye(5, dtype=torch.float64)
    whole = torch.linalg.solve(identity - matrix, direct)
    compare((identity - torch.linalg.matrix_power(matrix, num_terms)) @ whole, unrolled, 1e-8)


@verifies("eq-equal-components")
@pytest.mark.parametrize("weight", [0.2, 0.5])
def test_equal_components(compare: Compare, weight: float) -> None:
    """central differences of the package's EM at one fitted Gaussian, twice, in three dimensions"""
    g = torch.Generator().manual_seed(2)
    x = torch.randn(50, 3, generator=g, dtype=torch.float64) ** 3
    family = MODELS["full"].family
    weights = torch.tensor([weight, 1 - weight], dtype=torch.float64)
    covariance = torch.cov(x.mT, correction=0).expand(2, 3, 3)

    def gap(delta: Tensor) -> Tensor:
        means = torch.stack([x.mean(0) + delta / 2, x.mean(0) - delta / 2])
        start = MixtureDistribution.of(weights, means, covariance, family).state
        options: dict[str, Any] = {"gradient": "unrolled", "num_iterations": 1, "min_scale": 0}
        new = em_fixed_point(start, x, family, **options).means
        return new[0] - new[1]

    compare(differences(gap, torch.zeros(3, dtype=torch.float64)), np.eye(3), 1e-7)


@verifies("eq-clamp-slopes")
@pytest.mark.parametrize("eigenvalues", [(3.0, 2.0, 1.5), (3.0, 0.2, 0.1), (0.3, 0.2, 0.1)])
def test_clamp(compare: Compare, eigenvalues: tuple[float, ...]) -> None:
    """central differences of a covariance that numpy raises, and the package's factor"""
    g = np.random.default_rng(0)
    axes = np.linalg.qr(g.normal(size=(3, 3)))[0]
    matrix, floor = axes @ np.diag(eigenvalues) @ axes.T, 1.0
    change = g.normal(size=(3, 3))
    change = change + change.T

    def raised(matrix: np.ndarray) -> np.ndarray:
        values, vectors = np.linalg.eigh(matrix)
        return vectors @ np.diag(np.maximum(values, floor)) @ vectors.T

    h = 1e-6
    measured = (raised(matrix + h * change) - raised(matrix - h * change)) / (2 * h)
    high = np.maximum(eigenvalues, floor)
    quotient = np.array(
        [
            [
                float(a > floor) if i == j else (high[i] - high[j]) / (a - b)
                for j, b in enumerate(eigenvalues)
            ]
            for i, a in enumerate(eigenvalues)
        ]
    )
    own = axes.T @ change @ axes
    compare(axes.T @ measured @ axes, quotient * own, 1e-7)

    def factor(size: Tensor) -> Tensor:
        moved = torch.tensor(matrix) + size * torch.tensor(change)
        lower = torch.linalg.cholesky(torch.tensor(raised(matrix)))
        lifted = Scales(lower[None], torch.linalg.inv(lower)[None])
        found = with_slopes(lifted, moved[None], math.sqrt(floor)).factor[0]
        return found @ found.mT

    compare(jacrev(factor)(torch.zeros((), dtype=torch.float64)), measured, 1e-6)


@verifies("eq-map-em")
def test_map_em(compare: Compare) -> None:
    """the package's MAP fit with 5 pseudo-points: a step of the formula leaves it where it is, and
    BFGS on likelihood and divergence finds no better"""
    x, nu = line(3), 5.0
    means = START[1:3, None]
    half, ones = torch.full((2,), 0.5).double(), torch.ones(2, 1, 1).double()
    start = MixtureDistribution.of(half, means, ones, FAMILY).state
    options: dict[str, Any] = {"min_scale": 0, "tolerance": 1e-14, "prior_points": nu}
    state = em_fixed_point(start, x[:, None], FAMILY, **options)
    pi, mu, sigma = state.log_weights.exp(), state.means[:, 0], state.scales.factor[:, 0]
    joint = pi.log() + torch.distributions.Normal(mu, sigma).log_prob(x[:, None])
    r, own = joint.softmax(1), nu * half
    counts = r.sum(0) + own
    compare(pi, counts / (len(x) + nu), 1e-10)
    center = ((r * x[:, None]).sum(0) + own * means[:, 0]) / counts
    compare(mu, center, 1e-10)
    scatter = (r * (x[:, None] - center) ** 2).sum(0)
    compare(sigma**2, (scatter + own * (1 + (means[:, 0] - center) ** 2)) / counts, 1e-10)

    def objective(t: np.ndarray) -> float:
        logits = np.array([t[0], 0.0])
        log_pi = logits - np.logaddexp(*logits)
        sd = np.exp(t[3:])
        log_joint = log_pi - 0.5 * ((x.numpy()[:, None] - t[1:3]) / sd) ** 2 - np.log(sd)
        apart = np.log(sd) + (1 + (START.numpy()[1:3] - t[1:3]) ** 2) / (2 * sd**2)
        prior = 0.5 * (-log_pi + apart).sum()
        return float(-np.logaddexp(*log_joint.T).sum() + nu * prior)

    found = minimize(objective, [0.0, 0.0, 3.5, 0.0, 0.0], method="BFGS", tol=1e-10).x
    numbers = torch.cat([(pi[:1] / pi[1:]).log(), mu, sigma.log()])
    compare(numbers, found, 1e-5)
