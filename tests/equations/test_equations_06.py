"""Proofs of the equations of chapter 06, expectation-maximization."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import reference
import torch
from reference import ALL, Array, Mixture
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from equations.proof import Compare, verifies
from gmmedu import MODELS, Aitken, GmmConstant, fit_em, impute
from gmmedu.mixture import log_joint as log_joint_of
from gmmedu.models import GaussianMixture
from gmmedu.passes import e_step
from gmmedu.values import Points


def model_of(mixture: Mixture, family: str = "full") -> GaussianMixture:
    shape = mixture.means.shape
    model = MODELS[family](*shape, dtype=torch.float64)
    parts = mixture.tensors()
    if family == "constant":
        model.raw_scale.fill_(0.5 * float(parts["covariances"][0, 0, 0].log()))
    return model.set_parameters(**parts)


def mixture_of(model: GaussianMixture) -> Mixture:
    parts = model.weights, model.means, model.covariances
    return Mixture(*(part.detach().numpy().copy() for part in parts))


def log_joint(parts: Mixture, x: Array) -> Array:
    """The package's log joint densities, (K, N)."""
    model = model_of(parts)
    return log_joint_of(model.family, model.state(), torch.tensor(x)).detach().numpy()


def random_shares(n: int, k: int, seed: int) -> Array:
    return np.random.default_rng(seed).dirichlet(np.full(k, 0.7), size=n)


def bound(tau: Array, mixture: Mixture, x: Array) -> float:
    """Point by point and component by component, with scipy's densities."""
    total = 0.0
    for share, point in zip(tau, x, strict=True):
        for k, (weight, mean, covariance) in enumerate(zip(*mixture, strict=True)):
            if share[k] > 0:
                density = multivariate_normal(mean, covariance).pdf(point)
                total += share[k] * np.log(weight * density / share[k])
    return float(total)


def missing(x: Array, seed: int, share: float = 0.4) -> Array:
    """The same with holes; the first row complete, no row without any value."""
    rng = np.random.default_rng(seed)
    holes = np.array(rng.random(x.shape) < share)
    holes[0] = False
    holes[np.arange(len(x)), rng.integers(x.shape[1], size=len(x))] = False
    return np.where(holes, np.nan, x)


def conditional(mixture: Mixture, k: int, row: Array) -> tuple[Array, Array]:
    """Mean (D,) and covariance (D, D) of a row given what it has, from the precision matrix."""
    hidden = np.isnan(row)
    precision = np.linalg.inv(mixture.covariances[k])
    mean, covariance = row.copy(), np.zeros_like(precision)
    if hidden.any():
        corner = np.linalg.inv(precision[np.ix_(hidden, hidden)])
        residual = (row - mixture.means[k])[~hidden]
        slope = precision[np.ix_(hidden, ~hidden)]
        mean[hidden] = mixture.means[k][hidden] - corner @ slope @ residual
        covariance[np.ix_(hidden, hidden)] = corner
    return mean, covariance


def observed_joint(mixture: Mixture, row: Array) -> Array:
    """Weight times scipy's density of what the row has, (K,)."""
    seen = ~np.isnan(row)
    return np.array(
        [
            w * multivariate_normal(m[seen], c[np.ix_(seen, seen)]).pdf(row[seen])
            for w, m, c in zip(*mixture, strict=True)
        ]
    )


@verifies("eq-complete-data")
@pytest.mark.parametrize(("k", "d"), [(1, 1), (2, 2), (3, 1)])
def test_complete_data(compare: Compare, k: int, d: int) -> None:
    """its exponentials, summed over all K^N labelings, give the likelihood of the points"""
    mixture = reference.random_mixture("full", k, d)
    x = reference.draw(mixture, 4)
    a = log_joint(mixture, x)
    total = 0.0
    for labels in itertools.product(range(k), repeat=len(x)):
        total += np.exp(sum(a[z, n] for n, z in enumerate(labels)))
    likelihood = 1.0
    for point in x:
        likelihood *= observed_joint(mixture, point).sum()
    compare(np.log(total), np.log(likelihood), 1e-12)


@verifies("eq-elbo")
@pytest.mark.parametrize(("k", "d"), [(2, 1), (3, 2)])
def test_elbo(compare: Compare, k: int, d: int) -> None:
    """log joint densities less log shares, averaged over labels drawn with the shares"""
    mixture = reference.random_mixture("full", k, d)
    x = reference.draw(mixture, 5)
    tau = random_shares(5, k, seed=k)
    rng = np.random.default_rng(0)
    joint = reference.log_joint(mixture, x)
    draws = np.zeros(40_000)
    for n in range(len(x)):
        z = rng.choice(k, size=len(draws), p=tau[n])
        draws += joint[n, z] - np.log(tau[n, z])
    a = log_joint(mixture, x).T
    elbo = (tau * a).sum() - (tau * np.log(tau)).sum()
    compare.monte_carlo(draws, elbo)


@verifies("eq-elbo-gap")
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("k", "d"), [(1, 2), (2, 1), (4, 3)])
def test_elbo_gap(compare: Compare, k: int, d: int, seed: int) -> None:
    """random shares, some of them zero: bound plus divergence, summed one by one, against -N f"""
    mixture = reference.random_mixture("full", k, d, seed)
    x = reference.draw(mixture, 7, seed)
    tau = random_shares(7, k, seed)
    if k > 1:
        tau[0] = np.eye(k)[0]
    r = reference.responsibilities(mixture, x)
    divergence = sum(
        p * np.log(p / q) for p, q in zip(tau.ravel(), r.ravel(), strict=True) if p > 0
    )
    log_likelihood = -7 * float(model_of(mixture)(torch.tensor(x)).detach())
    compare(bound(tau, mixture, x) + divergence, log_likelihood, 1e-11)
    assert divergence >= -1e-14
    compare(bound(r, mixture, x), log_likelihood, 1e-11)


@verifies("eq-em")
@pytest.mark.parametrize("family", ALL)
def test_em(compare: Compare, family: str) -> None:
    """one iteration against a numerical climb of the bound, by L-BFGS with autograd, each family"""
    mixture = reference.random_mixture(family, 2, 2)
    x = reference.draw(reference.random_mixture("full", 3, 2, 5), 60)
    r = torch.tensor(reference.responsibilities(mixture, x))
    points = torch.tensor(x)
    start = [
        torch.zeros(2, dtype=torch.float64),
        torch.tensor(mixture.means),
        torch.tensor(reference.theta_of(family, mixture.covariances)),
    ]
    sizes = [p.numel() for p in start]

    def parts(v: Array) -> list[torch.Tensor]:
        pieces = torch.tensor(v).split(sizes)
        return [p.view_as(q).clone().requires_grad_() for p, q in zip(pieces, start, strict=True)]

    def objective(v: Array) -> tuple[float, Array]:
        logits, means, theta = leaves = parts(v)
        given = start[2] if family == "constant" else theta
        covariances = reference.covariances_of(family, given, 2, 2)
        a = [
            logits.log_softmax(0)[k]
            + torch.distributions.MultivariateNormal(means[k], covariances[k]).log_prob(points)
            for k in range(2)
        ]
        q = -(r * torch.stack(a, 1)).sum() / len(x)
        slopes = torch.autograd.grad(q, leaves, allow_unused=True)
        flat = [
            torch.zeros_like(p) if s is None else s for s, p in zip(slopes, leaves, strict=True)
        ]
        return float(q.detach()), torch.cat([s.flatten() for s in flat]).numpy()

    first = torch.cat([p.flatten() for p in start]).numpy()
    climbed = minimize(
        objective, first, jac=True, method="L-BFGS-B", options={"ftol": 1e-16, "gtol": 1e-10}
    )
    logits, means, theta = (p.detach() for p in parts(climbed.x))
    model = model_of(mixture, family)
    fit_em(model, points, 1, tolerance=0, mitigation=None)
    given = start[2] if family == "constant" else theta
    covariances = torch.stack(reference.covariances_of(family, given, 2, 2))
    weights = logits.softmax(0)
    for found, expected in zip(mixture_of(model), (weights, means, covariances), strict=True):
        compare(found, expected, 1e-6)


@verifies("eq-em-monotone")
@pytest.mark.parametrize("family", ALL)
def test_em_monotone(compare: Compare, family: str) -> None:
    """25 iterations of each family: the fall of N f against the gain of Q plus the divergence, from
    scipy's densities, and no rise"""
    model = model_of(reference.random_mixture(family, 3, 2, 1), family)
    x = reference.draw(reference.random_mixture("full", 4, 2, 7), 80)
    points = torch.tensor(x)
    before = mixture_of(model)
    falls, gains, gaps = [], [], []
    for _ in range(25):
        fit = fit_em(model, points, 1, tolerance=0, mitigation=None)
        after = mixture_of(model)
        r, s = (reference.responsibilities(m, x) for m in (before, after))
        a, b = (reference.log_joint(m, x) for m in (before, after))
        falls.append(len(x) * float(fit.history[0] - fit.history[1]))
        gains.append((r * (b - a)).sum())
        gaps.append((r * np.log(r / s)).sum())
        before = after
    compare(falls, np.add(gains, gaps), 1e-9)
    assert min(falls) > -1e-10 and min(gains) > -1e-10 and min(gaps) > -1e-10
    assert max(falls) > 0.1


@verifies("eq-em-monotone")
@pytest.mark.parametrize("family", ALL)
def test_monotone_with_weights_and_holes(compare: Compare, family: str) -> None:
    """60 iterations with sample weights and missing values: the largest rise of the NLL is zero"""
    x = missing(reference.draw(reference.random_mixture("full", 3, 3, 2), 60), 0)
    w = torch.tensor(np.random.default_rng(1).uniform(0, 3, len(x)))
    model = model_of(reference.random_mixture(family, 2, 3, 3), family)
    fit = fit_em(
        model, torch.tensor(x), 60, tolerance=0, sample_weight=w, missing=True, mitigation=None
    )
    rises = fit.history.diff().clamp_min(0)
    compare(rises, np.zeros(60), 1e-12)
    assert fit.history[0] - fit.history[-1] > 0.05


@verifies("eq-em-stationary")
@pytest.mark.parametrize("family", ALL)
def test_em_stationary(compare: Compare, family: str) -> None:
    """autograd's gradient of the NLL where EM stands still, and that of Q elsewhere"""
    model = model_of(reference.random_mixture(family, 2, 2, 4), family)
    truth = reference.random_mixture(family, 2, 2, 4)
    x = torch.tensor(reference.draw(truth, 150))

    def gradients(mixture: Mixture, of_q: bool) -> torch.Tensor:
        leaves = [
            torch.tensor(np.log(mixture.weights)).requires_grad_(),
            torch.tensor(mixture.means).requires_grad_(),
            torch.tensor(reference.theta_of(family, mixture.covariances)).requires_grad_(),
        ]
        if not of_q:
            slopes = reference.gradient(family, leaves, x)
            return torch.cat([s.flatten() for s in slopes])
        r = torch.tensor(reference.responsibilities(mixture, x.numpy()))
        covariances = reference.covariances_of(family, leaves[2], 2, 2)
        a = torch.stack(
            [
                leaves[0].log_softmax(0)[k]
                + torch.distributions.MultivariateNormal(leaves[1][k], covariances[k]).log_prob(x)
                for k in range(2)
            ],
            1,
        )
        slopes = torch.autograd.grad(-(r * a).sum() / len(x), leaves)
        if family == "constant":
            slopes = (*slopes[:2], torch.zeros_like(slopes[2]))
        return torch.cat([s.flatten() for s in slopes])

    start = mixture_of(model)
    compare(gradients(start, False), gradients(start, True), 1e-12)
    assert gradients(start, False).norm() > 1e-3
    fit_em(model, x, 5_000, tolerance=0.0 if family == "constant" else 1e-15, mitigation=None)
    end = mixture_of(model)
    compare(gradients(end, False), torch.zeros_like(gradients(end, False)), 1e-6)


@verifies("eq-frozen-weights")
def test_frozen_weights(compare: Compare) -> None:
    """the package at equal weights against scipy's densities, normalized without any weights"""
    mixture = reference.random_mixture("full", 3, 2)
    x = reference.draw(reference.random_mixture("full", 4, 2, 7), 80)
    densities = np.stack(
        [
            multivariate_normal(m, c).pdf(x)
            for m, c in zip(mixture.means, mixture.covariances, strict=True)
        ],
        axis=1,
    )
    model = model_of(mixture._replace(weights=np.full(3, 1 / 3)))
    found = model.responsibilities(torch.tensor(x)).detach()
    compare(found, densities / densities.sum(1, keepdims=True), 1e-12)


@verifies("eq-k-means-limit")
@pytest.mark.parametrize(("k", "d"), [(1, 1), (3, 2), (5, 4)])
def test_k_means_limit(compare: Compare, k: int, d: int) -> None:
    """shrinking variances, extrapolated to zero, against a brute-force search; and the fitted means
    against an independent Lloyd iteration"""
    mixture = reference.random_mixture("constant", k, d, 1)
    x = reference.draw(mixture, 40, 2)
    nearest = np.array([min(((p - m) ** 2).sum() for m in mixture.means) for p in x])

    def scaled(variance: float) -> Array:
        model = GmmConstant(k, d, variance=variance, dtype=torch.float64)
        model.set_parameters(torch.tensor(mixture.weights), torch.tensor(mixture.means))
        return np.asarray(-2 * variance * model.log_prob(torch.tensor(x)).detach().numpy())

    errors = [np.abs(scaled(v) - nearest).max() for v in (1e-4, 1e-6, 1e-8)]
    assert errors[0] > errors[1] > errors[2]
    compare(scaled(1e-10), nearest, 1e-7)
    model = GmmConstant(
        k, d, variance=1e-6, init_means=torch.tensor(mixture.means), dtype=torch.float64
    )
    fit_em(model, torch.tensor(x), 15, tolerance=0)
    means = mixture.means.copy()
    for _ in range(15):
        groups: list[list[Array]] = [[] for _ in means]
        for point in x:
            groups[int(np.argmin([((point - m) ** 2).sum() for m in means]))].append(point)
        means = np.array(
            [np.mean(g, axis=0) if g else m for g, m in zip(groups, means, strict=True)]
        )
    compare(model.means.detach(), means, 1e-9)


@verifies("eq-aitken")
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9, 0.999])
def test_aitken(compare: Compare, rate: float) -> None:
    """a geometric sequence whose limit is known; the rule stops on the right side of it"""
    f = [3.0 + 0.7 * rate**t for t in range(3)]
    last, step = f[0] - f[1], f[1] - f[2]
    estimate = step * (step / last) / (1 - step / last)
    compare(estimate, f[2] - 3.0, 1e-9)
    assert Aitken(1.0001 * (f[2] - 3.0)).met(f[2], f[:2])
    assert not Aitken(0.9999 * (f[2] - 3.0)).met(f[2], f[:2])


@verifies("eq-aitken")
def test_aitken_of_a_fit(compare: Compare) -> None:
    """the ratio of the estimate to what was left, over the last stretch of a slow fit"""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(500, 1, generator=generator, dtype=torch.float64)
    x[:250] += 2.0
    model = MODELS["full"](2, 1, dtype=torch.float64)
    model.set_parameters(means=torch.tensor([[-1.0], [3.0]]))
    history = fit_em(model, x, 3_000, tolerance=0).history
    step = -history.diff()
    rate = step[1:] / step[:-1]
    estimate = (step[1:] * rate / (1 - rate))[400:600]
    compare(estimate / (history[402:602] - history[-1]), torch.ones(200), 1e-2)


@verifies("eq-sample-weights")
@pytest.mark.parametrize("family", ALL)
def test_sample_weights(compare: Compare, family: str) -> None:
    """three weighted iterations against plain ones on rows written down as often as they weigh"""
    x = torch.tensor(reference.draw(reference.random_mixture("full", 2, 2), 30))
    w = torch.tensor(np.random.default_rng(3).integers(0, 4, 30))
    one, other = (model_of(reference.random_mixture(family, 2, 2), family) for _ in range(2))
    weighted = fit_em(one, x, 3, tolerance=0, sample_weight=w.double(), mitigation=None)
    plain = fit_em(other, x.repeat_interleave(w, 0), 3, tolerance=0, mitigation=None)
    compare(weighted.history, plain.history, 1e-11)
    for found, expected in zip(mixture_of(one), mixture_of(other), strict=True):
        compare(found, expected, 1e-11)
    joint = reference.log_joint(mixture_of(one), x.numpy())
    f = -np.average(np.logaddexp.reduce(joint, axis=1), weights=w.numpy())
    compare(weighted.nll, f, 1e-11)


@verifies("eq-missing-likelihood")
@pytest.mark.parametrize("seed", [0, 1])
def test_missing_likelihood(compare: Compare, seed: int) -> None:
    """the density of whole points, integrated over what is hidden on a grid, D = 2"""
    mixture = reference.random_mixture("full", 2, 2, seed)
    x = missing(reference.draw(mixture, 8, seed), seed, 0.6)
    assert np.isnan(x).any()
    grid = np.linspace(-25, 25, 4001)
    total = 0.0
    for row in x:
        points = np.tile(row, (len(grid), 1))
        points[:, np.isnan(row)] = grid[:, None]
        density = np.exp(reference.log_density(mixture, points))
        total += np.log(np.trapezoid(density, grid) if np.isnan(row).any() else density[0])
    fit = fit_em(model_of(mixture), torch.tensor(x), 0, missing=True)
    compare(fit.nll, -total / len(x), 1e-9)


@verifies("eq-missing-e-step")
@pytest.mark.parametrize(("k", "d"), [(1, 2), (2, 3), (3, 4)])
def test_missing_e_step(compare: Compare, k: int, d: int) -> None:
    """the statistics of a pass against conditional means and covariances from the precision matrix,
    row by row"""
    mixture = reference.random_mixture("full", k, d, 2)
    x = missing(reference.draw(mixture, 20, 2), 4)
    counts, first, second = np.zeros(k), np.zeros((k, d)), np.zeros((k, d, d))
    for row in x:
        joint = observed_joint(mixture, row)
        for c in range(k):
            whitening = np.linalg.inv(np.linalg.cholesky(mixture.covariances[c]))
            mean, covariance = conditional(mixture, c, row)
            y = whitening @ (mean - mixture.means[c])
            r = joint[c] / joint.sum()
            counts[c] += r
            first[c] += r * y
            second[c] += r * (np.outer(y, y) + whitening @ covariance @ whitening.T)
    points = torch.tensor(x)
    model = model_of(mixture)
    found = e_step(Points.of(points), model.family, model.state())
    compare(found.counts, counts, 1e-10)
    compare(found.first, first, 1e-10)
    compare(found.second, second, 1e-10)


@verifies("eq-missing-e-step")
def test_missing_e_step_by_draws(compare: Compare) -> None:
    """draws of whole points that agree with what was observed, found by rejection in a thin slab"""
    rng = np.random.default_rng(0)
    factor = np.array([[1.0, 0.0], [0.7, 0.9]])
    noise = rng.normal(size=(2_000_000, 2))
    points = noise @ factor.T
    near = noise[np.abs(points[:, 1] - 0.8) < 0.004]
    basis, upper = np.linalg.qr(factor[1:].T)
    known = (basis @ (0.8 / upper[0])).ravel()
    free = np.eye(2) - basis @ basis.T
    compare.monte_carlo(near, known)
    compare.monte_carlo(
        np.einsum("ni,nj->nij", near, near)[:, 0], (np.outer(known, known) + free)[0]
    )


@verifies("eq-imputation")
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_imputation(compare: Compare, seed: int) -> None:
    """the mean of the hidden value by quadrature of the joint density, mixtures in D = 2"""
    mixture = reference.random_mixture("full", 3, 2, seed)
    x = missing(reference.draw(mixture, 10, seed), seed, 0.7)
    grid = np.linspace(-25, 25, 4001)
    expected = x.copy()
    for row in expected:
        hidden = np.isnan(row)
        if hidden.any():
            points = np.tile(row, (len(grid), 1))
            points[:, hidden] = grid[:, None]
            density = np.exp(reference.log_density(mixture, points))
            row[hidden] = (density * grid).sum() / density.sum()
    assert np.isnan(x).any()
    compare(impute(model_of(mixture), torch.tensor(x)), expected, 1e-9)
