"""Checks of the equations of chapter 08, singularities."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import reference
import torch
from scipy.optimize import minimize
from scipy.stats import invwishart, multivariate_normal
from torch import Tensor

from equations.proof import Compare, verifies
from gmmedu import MODELS, Clamp, GmmFull, GmmIsotropic, GmmSharedIsotropic, GmmTied, Prior, fit_em
from gmmedu.covariance import ConjugatePrior
from gmmedu.em import m_step
from gmmedu.models import GaussianMixture
from gmmedu.passes import e_step
from gmmedu.values import Points, Scales, Statistics

Array = reference.Array
FLOAT64 = torch.float64


def sums_of(family: str, scatters: Array, counts: Array) -> tuple[Statistics, Tensor, Scales]:
    """Statistics with these scatters (K, D, D) and counts (K,), seen from the unit covariance."""
    k, d, _ = scatters.shape
    second = torch.tensor(scatters)
    if family not in ("full", "tied"):
        second = second.diagonal(dim1=1, dim2=2)
    if family in reference.SHARED:
        second = second.sum(0, keepdim=True)
    identity = torch.eye(d, dtype=FLOAT64).repeat(k, 1, 1)
    model = MODELS[family](k, d, dtype=FLOAT64).set_parameters(covariances=identity)
    zeros = torch.zeros(k, d, dtype=FLOAT64)
    statistics = Statistics(torch.zeros((), dtype=FLOAT64), torch.tensor(counts), zeros, second)
    return statistics, zeros, model.state().scales


def updated(
    family: str, scatters: Array, counts: Array, floor: float, prior: ConjugatePrior | None
) -> Array:
    """Covariances (K or 1, D, D) of the package's M-step."""
    statistics, mean, scales = sums_of(family, scatters, counts)
    rule = MODELS[family].family
    result, _ = rule.m_step(statistics, mean, scales, floor, prior)
    triangular = rule.operator.triangular(result.factor, scatters.shape[1])
    return np.asarray((triangular @ triangular.mT).detach())


def random_scatters(random: np.random.Generator, k: int, d: int, size: float = 1.0) -> Array:
    root = random.normal(size=(k, d, 2 * d)) * random.uniform(0.05, 2, size=(k, d, 1)) * size
    rotation = np.linalg.qr(random.normal(size=(d, d)))[0]
    return np.asarray(rotation @ (root @ root.transpose(0, 2, 1)) @ rotation.T)


# How fast


@verifies("eq-singular-rate")
@pytest.mark.parametrize(
    ("d", "m", "extra"), [(1, 1, 0), (2, 1, 0), (2, 2, 2), (3, 1, 1), (4, 2, 0), (5, 5, 0)]
)
def test_rate(compare: Compare, d: int, m: int, extra: int) -> None:
    """slope and constant, against gmmedu's NLL with a component narrow across a flat, D = 1 to 5

    The flat lies along the axes and goes through j points, duplicates among them.
    """
    random = np.random.default_rng([d, m, extra])
    x = random.normal(size=(20, d))
    j = d - m + 1 + extra
    x[:j, :m] = 0.3  # j points in the flat x_1 = ... = x_m = 0.3
    along = x[:j, m:]
    rest = reference.random_mixture("full", 2, d, seed=d)
    weights = np.concatenate([[0.2], 0.8 * rest.weights])
    mean = np.concatenate([np.full(m, 0.3), along.mean(0)]) if m < d else np.full(d, 0.3)
    inner = 0.5 * np.eye(d - m) + 0.1
    model = GmmFull(3, d, dtype=FLOAT64)

    def f(sd: float) -> float:
        covariance = np.zeros((d, d))
        covariance[:m, :m] = sd**2 * np.eye(m)
        covariance[m:, m:] = inner
        model.set_parameters(
            torch.tensor(weights),
            torch.tensor(np.vstack([mean, rest.means])),
            torch.tensor(np.concatenate([covariance[None], rest.covariances])),
        )
        return float(model(torch.tensor(x)).detach())

    sds = [1e-5, 1e-6, 1e-7]
    values = [f(sd) for sd in sds]
    slopes = [(a - b) / math.log(10) for a, b in itertools.pairwise(values)]
    compare(np.array(slopes) * 20, np.full(2, float(j * m)), 2e-3)
    c = -m / 2 * math.log(2 * math.pi) + (
        np.atleast_1d(multivariate_normal(mean[m:], inner).logpdf(along)) if m < d else np.zeros(j)
    )
    others = reference.Mixture(weights[1:], rest.means, rest.covariances)
    constant = -np.sum(math.log(weights[0]) + c) - reference.log_density(others, x[j:]).sum()
    compare(values[-1] - j * m / 20 * math.log(sds[-1]), constant / 20, 1e-4)


@verifies("eq-steepest-flat")
def test_steepest_flat(compare: Compare) -> None:
    """by trying every m and counting by ranks how many points a flat goes through, D = 1 to 12"""
    random = np.random.default_rng(0)
    for d in range(1, 13):
        x = random.normal(size=(d + 3, d))
        found = []
        for m in range(1, d + 1):
            held = max(
                j
                for j in range(1, d + 2)
                if np.linalg.matrix_rank(x[:j] - x[:j].mean(0), tol=1e-9) <= d - m
            )
            found.append(held * m)
        compare(float(max(found)), float((d + 1) ** 2 // 4), 0.0)


@verifies("eq-collapse-count")
@pytest.mark.parametrize("d", [1, 2, 4])
def test_collapse_count(compare: Compare, d: int) -> None:
    """rank of the scatter against that of differences of points, zeros and repeats among them"""
    random = np.random.default_rng(d)
    for held in range(1, d + 4):
        x = random.normal(size=(d + 6, d))
        x[held // 2] = x[0]  # a duplicate, where held is 2 or more
        r = np.zeros(len(x))
        r[:held] = random.uniform(0.1, 1, held)
        mean = r @ x / r.sum()
        scatter = reference.scatters(r[:, None], x, mean[None])[0]
        distinct = np.unique(x[:held], axis=0)
        rank = np.linalg.matrix_rank(scatter, tol=1e-12)
        flat = np.linalg.matrix_rank(distinct[1:] - distinct[0]) if len(distinct) > 1 else 0
        compare(float(rank), float(flat), 0.0)
        compare(float(rank), float(min(d, len(distinct) - 1)), 0.0)


# What cannot collapse


def partitions(num_points: int, num_groups: int) -> Any:
    """Every labeling of the points, the first one in group 0."""
    return itertools.product([0], *[range(num_groups)] * (num_points - 1))


def within(x: Array, labels: tuple[int, ...]) -> Array:
    scatter = np.zeros((x.shape[1], x.shape[1]))
    for group in set(labels):
        part = x[np.array(labels) == group]
        residual = part - part.mean(0)
        scatter += residual.T @ residual
    return scatter


def lowest(model: GaussianMixture, x: Array, random: np.random.Generator) -> float:
    """The least NLL found from random starts by EM, to be held against a bound."""
    found = []
    for _ in range(6):
        means = torch.tensor(x[random.permutation(len(x))[: model.num_components]])
        model.set_parameters(
            torch.full((model.num_components,), 1.0, dtype=FLOAT64),
            means,
            torch.eye(x.shape[1], dtype=FLOAT64).repeat(model.num_components, 1, 1),
        )
        found.append(fit_em(model, torch.tensor(x), 150, 0.0, mitigation=Clamp(1e-7)).nll)
    return min(found)


def bound_by_search(x: Array, labels: tuple[int, ...], isotropic: bool) -> float:
    """The least hard-assignment NLL of a partition, by numerical minimization."""
    n, d = x.shape
    scatter = within(x, labels)

    def objective(theta: Array) -> float:
        if isotropic:
            factor = math.exp(theta[0]) * np.eye(d)
        else:
            factor = np.zeros((d, d))
            factor[np.tril_indices(d)] = theta
            np.fill_diagonal(factor, np.exp(np.diag(factor)))
        inverse = np.linalg.inv(factor)
        square = np.trace(inverse @ scatter @ inverse.T)
        log_det = 2 * np.log(np.diag(factor)).sum()
        return float(0.5 * (n * (log_det + d * math.log(2 * math.pi)) + square) / n)

    size = 1 if isotropic else d * (d + 1) // 2
    return float(minimize(objective, np.zeros(size), method="BFGS", options={"gtol": 1e-9}).fun)


@verifies("eq-no-collapse")
def test_bound(compare: Compare) -> None:
    """all partitions of 8 points: closed form against a search; no fit from 6 starts is below it"""
    bounds(compare, isotropic=False)


@verifies("eq-no-collapse-isotropic")
def test_bound_isotropic(compare: Compare) -> None:
    """all partitions of 8 points: closed form against a search; no fit from 6 starts is below it"""
    bounds(compare, isotropic=True)


def bounds(compare: Compare, isotropic: bool) -> None:
    """The search is a numerical minimization over the covariance."""
    random = np.random.default_rng(1)
    for k in (1, 2):
        x = random.normal(size=(8, 2))
        n, d = x.shape
        labelings = list(partitions(n, k))
        scatters = [within(x, labels) for labels in labelings]
        if isotropic:
            sizes = [np.trace(scatter) for scatter in scatters]
            bound = d / 2 * math.log(2 * math.pi * math.e / (n * d) * min(sizes))
        else:
            sizes = [np.linalg.slogdet(scatter / n)[1] for scatter in scatters]
            bound = 0.5 * (d * math.log(2 * math.pi * math.e) + min(sizes))
        worst = labelings[int(np.argmin(sizes))]
        compare(bound, bound_by_search(x, worst, isotropic), 1e-8)
        model = (GmmSharedIsotropic if isotropic else GmmTied)(k, d, dtype=FLOAT64)
        found = lowest(model, x, random)
        compare(max(bound - found, 0.0), 0.0, 1e-9)
        if k == 1:
            compare(found, bound, 1e-9)


@verifies("eq-no-collapse")
def test_collapse_on_parallel_lines(compare: Compare) -> None:
    """points on K parallel lines: f falls by one nat for each factor of e of the width across"""
    random = np.random.default_rng(2)
    x = np.stack([random.integers(0, 2, 12).astype(float), random.normal(size=12)], 1)
    assert np.linalg.matrix_rank(within(x, tuple(x[:, 0].astype(int)))) == 1
    model = GmmTied(2, 2, dtype=FLOAT64)
    values = []
    for sd in (1e-5, 1e-6):
        covariance = torch.diag(torch.tensor([sd**2, 1.0], dtype=FLOAT64)).repeat(2, 1, 1)
        means = torch.tensor([[0.0, 0.0], [1.0, 0.0]], dtype=FLOAT64)
        model.set_parameters(means=means, covariances=covariance)
        values.append(float(model(torch.tensor(x)).detach()))
    compare((values[0] - values[1]) / math.log(10), 1.0, 1e-9)


# How EM falls


@verifies("eq-collapse-speed")
@pytest.mark.parametrize("d", [1, 2, 3])
def test_collapse_speed(compare: Compare, d: int) -> None:
    """both bounds against one EM step of the package, at widths from 1 to a fortieth

    Where a responsibility is below 0.01 its bound is met to 1.1 %.
    """
    random = np.random.default_rng(d)
    x = random.normal(size=(30, d))
    rest = reference.random_mixture("isotropic", 2, d, seed=d)
    log_p = reference.log_density(reference.Mixture(0.7 * rest.weights, *rest[1:]), x)
    distance = np.linalg.norm(x - x[0], axis=1)
    for sd in (1.0, 0.3, 0.1, 0.05, 0.025):
        covariances = np.concatenate([sd**2 * np.eye(d)[None], rest.covariances])
        model = GmmIsotropic(3, d, dtype=FLOAT64).set_parameters(
            torch.tensor(np.concatenate([[0.3], 0.7 * rest.weights])),
            torch.tensor(np.vstack([x[:1], rest.means])),
            torch.tensor(covariances),
        )
        r = model.responsibilities(torch.tensor(x)).detach().numpy()[:, 0]
        log_bound = math.log(0.3) - log_p - distance**2 / (2 * sd**2)
        bound = np.exp(log_bound - d / 2 * math.log(2 * math.pi * sd**2))
        compare(np.maximum(r - bound, 0), np.zeros_like(r), 1e-14)
        state = model.state()
        following, _ = m_step(
            e_step(Points.of(torch.tensor(x)), model.family, state), model.family, state
        )
        variance = float(following.scales.factor[0, 0].detach()) ** 2
        allowed = float((r[1:] * distance[1:] ** 2).sum() / (d * r.sum()))
        compare(max(variance - (1 + 1e-9) * allowed, 0.0), 0.0, 1e-15)
        if sd <= 0.05:
            small = (r[1:] < 0.01) & (bound[1:] > 1e-200)
            if small.any():
                compare(r[1:][small] / bound[1:][small], np.ones(small.sum()), 0.011)


# The cures


@verifies("eq-clamp-bound")
@pytest.mark.filterwarnings("ignore::gmmedu.SingularityWarning")
@pytest.mark.parametrize("family", ["full", "diagonal", "isotropic", "tied"])
def test_clamp_bound(compare: Compare, family: str) -> None:
    """no fit to 12 points ends below it; a needle on each of two points comes within log 2 of it"""
    random = np.random.default_rng(3)
    x = random.normal(size=(12, 2))
    x = (x - x.mean(0)) / x.std(0)  # so that the unit is 1 in each column
    bound = 2 * math.log(0.2) + math.log(2 * math.pi)
    for _ in range(6):
        start = x[random.permutation(12)[:4]]
        model = MODELS[family](4, 2, dtype=FLOAT64)
        model.set_parameters(means=torch.tensor(start))
        fit = fit_em(model, torch.tensor(x), 200, mitigation=Clamp(0.2))
        compare(max(bound - fit.nll, 0.0), 0.0, 0.0)
    two = torch.tensor([[-1.0, -1.0], [1.0, 1.0]], dtype=FLOAT64)
    model = MODELS[family](2, 2, dtype=FLOAT64)
    narrow = 0.04 * torch.eye(2, dtype=FLOAT64).repeat(2, 1, 1)
    model.set_parameters(means=two, covariances=narrow)
    compare(float(model(two).detach()), bound + math.log(2), 1e-9)


@verifies("eq-clamp")
@pytest.mark.parametrize("d", [1, 2, 3])
def test_clamp(compare: Compare, d: int) -> None:
    """the package's M-step under a floor against a search over rotations and widths, D = 1 to 3"""
    random = np.random.default_rng(d)
    for floor in (0.05, 0.5, 1.5):
        scatters, counts = 6 * random_scatters(random, 2, d), np.array([5.0, 9.0])
        found = updated("full", scatters, counts, floor, None)
        for scatter, count, ours in zip(scatters, counts, found, strict=True):
            c = scatter / count
            values, axes = np.linalg.eigh(c)
            raised = (axes * np.maximum(values, floor**2)) @ axes.T
            compare(ours, raised, 1e-10)

            def objective(theta: Array, c: Array = c, floor: float = floor) -> float:
                skew = np.zeros((d, d))
                skew[np.triu_indices(d, 1)] = theta[d:]
                turn = np.linalg.solve(np.eye(d) + skew - skew.T, np.eye(d) - skew + skew.T)
                variances = floor**2 + theta[:d] ** 2
                return float(
                    np.log(variances).sum() + np.sum((turn.T @ c @ turn).diagonal() / variances)
                )

            size = d + d * (d - 1) // 2
            searches = [
                minimize(objective, random.normal(size=size), options={"gtol": 1e-8}).fun
                for _ in range(3)
            ]
            value = np.linalg.slogdet(ours)[1] + np.trace(np.linalg.solve(ours, c))
            compare(value, min(searches), 1e-6)


@verifies("eq-inverse-wishart")
@pytest.mark.parametrize("d", [1, 2, 4])
def test_inverse_wishart(compare: Compare, d: int) -> None:
    """the package's log prior, up to its constant, against scipy's inverse Wishart density"""
    random = np.random.default_rng(d)
    for nu, psi in ((d + 2.0, 0.3), (d + 7.5, 2.0)):
        prior = Prior(scatter=psi, degrees=nu).prior(1, d)
        covariances = random_scatters(random, 6, d) / (2 * d)
        theirs = [
            invwishart(nu, psi * np.eye(d)).logpdf(covariance if d > 1 else covariance[0, 0])
            for covariance in covariances
        ]
        model = GmmFull(1, d, dtype=FLOAT64)
        ours = []
        for covariance in covariances:
            model.set_parameters(covariances=torch.tensor(covariance)[None])
            ours.append(model.family.log_prior(model.state().scales, d, prior).item())
        shift = np.array(ours) - np.array(theirs)
        compare(shift - shift[0], np.zeros(6), 1e-10)


@verifies("eq-map-covariance")
@pytest.mark.parametrize("family", ["full", "tied", "diagonal", "isotropic", "shared_isotropic"])
@pytest.mark.parametrize("d", [1, 3])
def test_map(compare: Compare, family: str, d: int) -> None:
    """the package's M-step against a search with scipy's inverse Wishart, 5 families, D = 1, 3"""
    random = np.random.default_rng([d, len(family)])
    scatters, counts = random_scatters(random, 2, d), np.array([4.0, 0.5])
    nu, psi = d + 3.0, 0.7
    prior = Prior(scatter=psi, degrees=nu).prior(2, d)
    ours = updated(family, scatters, counts, 1e-9, prior)
    penalty = invwishart(nu, psi * np.eye(d))
    shared = family in reference.SHARED

    def objective(flat: Array) -> float:
        theta = torch.tensor(flat.reshape(shape))
        covariances = reference.covariances_of(family, theta, 2, d)
        value = 0.0
        for scatter, count, covariance in zip(scatters, counts, covariances, strict=True):
            matrix = covariance.numpy()
            value += 0.5 * count * np.linalg.slogdet(matrix)[1]
            value += 0.5 * np.trace(np.linalg.solve(matrix, scatter))
        for covariance in covariances[:1] if shared else covariances:
            matrix = covariance.numpy()
            value -= penalty.logpdf(matrix if d > 1 else matrix[0, 0])
        return float(value)

    j = 1 if shared else 2
    shape = {"full": (j, d, d), "tied": (j, d, d), "diagonal": (j, d)}.get(family, (j, 1))
    search = minimize(objective, np.zeros(int(np.prod(shape))), options={"gtol": 1e-7})
    found = reference.covariances_of(family, torch.tensor(search.x.reshape(shape)), 2, d)[:j]
    compare(ours, np.stack([covariance.numpy() for covariance in found]), 1e-5)
    assert (np.linalg.eigvalsh(ours) >= psi / (counts.sum() + nu + d + 1) - 1e-12).all()


@verifies("eq-map-bias")
@pytest.mark.parametrize("d", [1, 2])
def test_map_bias(compare: Compare, d: int) -> None:
    """the mean of the package's MAP covariance over 4,000 samples of one Gaussian"""
    random = np.random.default_rng(d)
    truth = np.diag([0.5, 2.0][:d]) + 0.2
    n, nu, psi = 7, d + 2.0, 0.4
    x = random.multivariate_normal(np.zeros(d), truth, size=(4000, n))
    residual = x - x.mean(1, keepdims=True)
    scatters = np.asarray(residual.transpose(0, 2, 1) @ residual)
    prior = Prior(scatter=psi, degrees=nu).prior(1, d)
    found = updated("full", scatters, np.full(4000, float(n)), 1e-9, prior)
    expected = ((n - 1) * truth + psi * np.eye(d)) / (n + nu + d + 1)
    compare.monte_carlo(found, expected)
