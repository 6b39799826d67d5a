"""Checks of the equations of chapter 13, applications."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm
from sklearn import datasets
from sklearn.metrics import adjusted_rand_score, roc_auc_score, roc_curve

import gmmedu
from equations.proof import Compare, verifies


@verifies("eq-adjusted-rand")
@pytest.mark.parametrize("seed", range(3))
def test_adjusted_rand(compare: Compare, seed: int) -> None:
    """pairs counted one by one, against scikit-learn; its mean over shuffles is zero"""
    g = np.random.default_rng(seed)
    classes = g.integers(0, 3, 60)
    groups = np.where(g.random(60) < 0.6, classes, g.integers(0, 4, 60))

    def index(a: np.ndarray, b: np.ndarray) -> float:
        pairs = list(combinations(range(len(a)), 2))
        one, two = (np.array([w[i] == w[j] for i, j in pairs]) for w in (a, b))
        s, u, v = (one & two).sum(), one.sum(), two.sum()
        chance = u * v / (len(a) * (len(a) - 1) / 2)
        return float((s - chance) / ((u + v) / 2 - chance))

    compare(index(classes, groups), adjusted_rand_score(classes, groups), 1e-12)
    shuffled = [adjusted_rand_score(classes, g.permutation(groups)) for _ in range(2000)]
    compare.monte_carlo(np.array(shuffled)[:, None], np.zeros(1))


@verifies("eq-class-posterior")
@pytest.mark.parametrize("load", [datasets.load_iris, datasets.load_wine])
def test_class_posterior(compare: Compare, load: Callable[..., Any]) -> None:
    """each class's own mean and covariance, in scipy's density, against the package's fits"""
    x, y = load(return_X_y=True)
    x = (x - x.mean(0)) / x.std(0)
    products, joint = [], []
    for c in range(3):
        own = x[y == c]
        normal = multivariate_normal(own.mean(0), np.cov(own.T, ddof=0))
        products.append(len(own) / len(x) * normal.pdf(x))
        model = gmmedu.GmmFull(1, x.shape[1])
        gmmedu.fit_em(model, torch.tensor(own), mitigation=None)
        log_prob = model.log_prob(torch.tensor(x)).detach()
        joint.append(log_prob + math.log(len(own) / len(x)))
    expected = np.stack(products, 1) / np.sum(products, 0)[:, None]
    compare(torch.stack(joint, 1).softmax(1), expected, 1e-9)


@verifies("eq-auroc")
@pytest.mark.parametrize("digits", [0, 8])
def test_auroc(compare: Compare, digits: int) -> None:
    """all pairs, with ties and without, against the area under scikit-learn's curve"""
    g = np.random.default_rng(4)
    odd, usual = g.normal(1, 1, 15).round(digits), g.normal(size=80).round(digits)
    pairs = (odd[:, None] > usual).mean() + (odd[:, None] == usual).mean() / 2
    truth, scores = np.repeat([1, 0], [15, 80]), np.concatenate([odd, usual])
    compare(pairs, roc_auc_score(truth, scores), 1e-12)
    false, true, _ = roc_curve(truth, scores)
    compare(pairs, np.trapezoid(true, false), 1e-12)


@verifies("eq-own-component")
@pytest.mark.parametrize("family", ["full", "diagonal"])
def test_own_component(compare: Compare, family: str) -> None:
    """a fit whose second component holds 12 far points: equality; and moved near, a bound"""
    g = torch.Generator().manual_seed(5)
    x = torch.randn(112, 3, generator=g)
    x[100:] *= 0.3
    for distance in (40.0, 2.0):
        moved = x.clone()
        moved[100:] += distance
        weights = torch.tensor([100 / 112, 12 / 112])
        parts = [moved[:100], moved[100:]]
        own = torch.stack([torch.cov(part.mT, correction=0) for part in parts])
        if family == "diagonal":
            own = own.diagonal(dim1=1, dim2=2).diag_embed()
        model = gmmedu.MODELS[family](2, 3).set_parameters(
            weights, torch.stack([part.mean(0) for part in parts]), own
        )
        score = -model.log_prob(moved[100:]).mean().detach()
        bound = math.log(112 / 12) + 0.5 * torch.logdet(2 * math.pi * math.e * own[1])
        if distance == 40.0:
            compare(score, bound, 1e-12)
        assert score <= bound + 1e-12


def standard_pair(rho: float) -> tuple[np.ndarray, ...]:
    """Nodes (M,) of two standard normals with that correlation, and their weights: exact up to
    high powers."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(20)
    a, b = np.meshgrid(nodes, nodes)
    w = np.outer(weights, weights).ravel() / weights.sum() ** 2
    return a.ravel(), (rho * a + math.sqrt(1 - rho**2) * b).ravel(), w


def moments(parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> list[float]:
    """Variance of the second variable and correlation, over weighted points in parts."""
    x, y, w = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    covariance = np.cov(np.stack([x, y]), aweights=w, ddof=0)
    return [covariance[1, 1], covariance[0, 1] / math.sqrt(covariance[0, 0] * covariance[1, 1])]


@verifies("eq-mean-imputation")
@pytest.mark.parametrize(("rho", "gone"), [(0.6, 0.5), (-0.9, 0.2)])
def test_mean_imputation(compare: Compare, rho: float, gone: float) -> None:
    """variance and correlation of a table filled with the mean, by quadrature"""
    x, y, w = standard_pair(rho)
    y = 3 * y + 1
    found = moments([(x, y, (1 - gone) * w), (x, np.full_like(y, 1.0), gone * w)])
    compare(found, [9 * (1 - gone), rho * math.sqrt(1 - gone)], 1e-10)


@verifies("eq-conditional-imputation")
@pytest.mark.parametrize(("rho", "gone"), [(0.6, 0.5), (-0.9, 0.2)])
def test_conditional_imputation(compare: Compare, rho: float, gone: float) -> None:
    """the same with what the package's imputation expects, by quadrature"""
    x, y, w = standard_pair(rho)
    covariance = torch.tensor([[1.0, 3 * rho], [3 * rho, 9.0]])
    model = gmmedu.GmmFull(1, 2).set_parameters(
        means=torch.tensor([[0.0, 1.0]]), covariances=covariance[None]
    )
    holed = torch.stack([torch.tensor(x), torch.full((len(x),), math.nan)], 1)
    expected = gmmedu.impute(model, holed)[:, 1].numpy()
    found = moments([(x, 3 * y + 1, (1 - gone) * w), (x, expected, gone * w)])
    left = 1 - gone * (1 - rho**2)
    compare(found, [9 * left, rho / math.sqrt(left)], 1e-10)


@verifies("eq-log-units")
def test_log_units(compare: Compare) -> None:
    """differences of the distribution function of exp(t), by scipy, against the density"""
    weights, means, sds = np.array([0.3, 0.7]), np.array([0.0, 1.5]), np.array([0.4, 0.8])
    model = gmmedu.GmmDiagonal(2, 1).set_parameters(
        torch.tensor(weights), torch.tensor(means[:, None]), torch.tensor(sds[:, None, None] ** 2)
    )
    x = np.array([0.3, 1.0, 2.5, 9.0])

    def below(x: np.ndarray) -> np.ndarray:
        return np.asarray(weights @ norm.cdf((np.log(x) - means[:, None]) / sds[:, None]))

    step = 1e-5 * x
    density = (below(x + step) - below(x - step)) / (2 * step)
    log_prob = model.log_prob(torch.tensor(np.log(x))[:, None]).detach().numpy()
    compare(-log_prob + np.log(x), -np.log(density), 1e-8)
