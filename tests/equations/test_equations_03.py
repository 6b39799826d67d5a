"""Proofs of the equations of chapter 03, the objective."""

from __future__ import annotations

import itertools
import math

import mpmath  # type: ignore[import-untyped]
import numpy as np
import pytest
import reference
import torch
from scipy.integrate import quad
from scipy.linalg import block_diag
from scipy.optimize import minimize
from scipy.stats import multivariate_normal, norm

from equations.proof import Compare, verifies
from gmmedu import MODELS, GmmIsotropic
from gmmedu.descent import score
from gmmedu.models import GaussianMixture
from gmmedu.passes import e_step, responsibilities_
from gmmedu.values import Points

Mixture = reference.Mixture
Array = reference.Array


def model_of(mixture: Mixture, family: str = "full") -> GaussianMixture:
    shape = mixture.means.shape
    model = MODELS[family](*shape, dtype=torch.float64)
    return model.set_parameters(**mixture.tensors()).requires_grad_(False)


def density_1d(mixture: Mixture, t: float) -> float:
    """The plain sum, with scipy's normal: (1-D mixtures)."""
    sds = np.sqrt(mixture.covariances[:, 0, 0])
    return float(mixture.weights @ norm.pdf(t, mixture.means[:, 0], sds))


def integral(function: object, mixture: Mixture) -> float:
    """Over a 1-D mixture's range, twelve standard deviations around every mean."""
    reach = 12 * float(np.sqrt(mixture.covariances.max()))
    low, high = mixture.means.min() - reach, mixture.means.max() + reach
    nodes = mixture.means[:, 0].tolist()
    return float(quad(function, low, high, points=nodes, epsabs=1e-12, limit=400)[0])


def entropy(q: Mixture) -> float:
    return integral(lambda t: -_xlogy(density_1d(q, t), density_1d(q, t)), q)


def divergence(q: Mixture, p: Mixture) -> float:
    """By quadrature of q log (q / p)."""

    def integrand(t: float) -> float:
        a, b = density_1d(q, t), density_1d(p, t)
        return a * math.log(a / b) if a > 0 and b > 0 else 0.0

    return integral(integrand, q)


def _xlogy(a: float, b: float) -> float:
    return a * math.log(b) if a > 0 else 0.0


@verifies("eq-likelihood")
@pytest.mark.parametrize(("k", "d", "n"), [(2, 1, 4), (3, 2, 3), (2, 3, 5)])
def test_likelihood(compare: Compare, k: int, d: int, n: int) -> None:
    """against the joint density of all points, a sum over the K^N labelings in N D dimensions"""
    mixture = reference.random_mixture("full", k, d, seed=n)
    x = reference.draw(mixture, n, seed=1)
    total = 0.0
    for labels in itertools.product(range(k), repeat=n):
        rows = list(labels)
        mean = mixture.means[rows].ravel()
        covariance = block_diag(*mixture.covariances[rows])
        joint = multivariate_normal(mean, covariance).pdf(x.ravel())
        total += float(mixture.weights[rows].prod() * joint)
    log_likelihood = float(model_of(mixture).log_prob(torch.tensor(x)).sum())
    compare(log_likelihood, math.log(total), 1e-12)


@verifies("eq-gmm-nll")
@pytest.mark.parametrize(("k", "d"), [(1, 1), (2, 3), (5, 2)])
def test_nll(compare: Compare, k: int, d: int) -> None:
    """against minus the logarithm of the plain product of scipy's densities, over N"""
    mixture = reference.random_mixture("full", k, d)
    x = reference.draw(mixture, 12)
    density = sum(
        weight * multivariate_normal(mean, covariance).pdf(x)
        for weight, mean, covariance in zip(*mixture, strict=True)
    )
    expected = -math.log(float(np.prod(density))) / len(x)
    compare(float(model_of(mixture)(torch.tensor(x))), expected, 1e-12)


@verifies("eq-cross-entropy")
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cross_entropy(compare: Compare, seed: int) -> None:
    """the NLL of 20,000 draws of q, against entropy plus divergence, each by quadrature"""
    q = reference.random_mixture("full", 2, 1, seed)
    p = reference.random_mixture("full", 3, 1, seed + 10)
    x = torch.tensor(reference.draw(q, 20_000, seed))
    compare.monte_carlo(-model_of(p).log_prob(x), entropy(q) + divergence(q, p))


@verifies("eq-standard-error")
@pytest.mark.parametrize("n", [1, 5, 40])
def test_standard_error(compare: Compare, n: int) -> None:
    """the spread of 4,000 samples' NLL, against the variance of log p by quadrature over N"""
    q, p = (reference.random_mixture("full", 2, 1, seed) for seed in (3, 4))

    def moment(power: int) -> float:
        return integral(lambda t: density_1d(q, t) * math.log(density_1d(p, t)) ** power, q)

    variance = (moment(2) - moment(1) ** 2) / n
    x = torch.tensor(reference.draw(q, 4_000 * n, seed=n))
    f = -model_of(p).log_prob(x).view(4_000, n).mean(1)
    compare.monte_carlo((f + moment(1)).square(), variance)


@verifies("eq-kl-nonnegative")
def test_divergence_is_not_negative(compare: Compare) -> None:
    """quadrature over 20 pairs of mixtures: never below zero, zero for equal ones only"""
    pairs = [
        [reference.random_mixture("full", k, 1, seed + 100 * k) for k in (2, 3)]
        for seed in range(20)
    ]
    found = np.array([divergence(q, p) for q, p in pairs])
    assert (found > 1e-4).all()
    compare(np.minimum(found, 0), np.zeros(20), 1e-12)
    compare([divergence(q, q) for q, _ in pairs], np.zeros(20), 1e-12)


@verifies("eq-kl-nonnegative")
def test_divergence_grows_with_the_square_of_an_error(compare: Compare) -> None:
    """a mean off by e costs e^2 / 2 in units of the variance, by quadrature: no first order"""
    for sd, error in itertools.product((0.5, 2.0), (1e-2, -1e-2, 1.0)):
        q = Mixture(np.ones(1), np.zeros((1, 1)), np.full((1, 1, 1), sd**2))
        p = q._replace(means=np.full((1, 1), error * sd))
        compare(divergence(q, p), error**2 / 2, 1e-10)


@verifies("eq-nll-units")
@pytest.mark.parametrize("d", [1, 2, 4])
def test_units(compare: Compare, d: int) -> None:
    """the mixture and the data mapped by a random matrix, scored by scipy"""
    mixture = reference.random_mixture("full", 3, d)
    x = reference.draw(mixture, 50)
    random = np.random.default_rng(d)
    a, b = random.normal(size=(d, d)) / 7, random.normal(size=d)
    mapped = Mixture(mixture.weights, mixture.means @ a.T + b, a @ mixture.covariances @ a.T)
    after = -reference.log_density(mapped, x @ a.T + b).mean()
    before = float(model_of(mixture)(torch.tensor(x)))
    compare(before + math.log(abs(np.linalg.det(a))), after, 1e-10)


def numbers(seed: int, k: int, shift: float) -> Array:
    return np.random.default_rng(seed).normal(scale=4, size=k) + shift


def exact_lse(a: Array) -> mpmath.mpf:
    """With 60 digits, and exponents without limits."""
    with mpmath.workdps(60):
        return mpmath.log(mpmath.fsum(mpmath.exp(mpmath.mpf(float(value))) for value in a))


SHIFTS = [0.0, -1e5, 1e5, -800.0]


@verifies("eq-log-sum-exp")
@pytest.mark.parametrize("shift", SHIFTS)
def test_log_sum_exp(compare: Compare, shift: float) -> None:
    """the shifted form for three shifts m in float64, against 60 digits"""
    for k in (1, 2, 7):
        a = numbers(k, k, shift)
        for m in (a.max(), a.min(), a.mean()):
            compare(m + np.log(np.exp(a - m).sum()), float(exact_lse(a)), 1e-14)


@verifies("eq-log-sum-exp")
@pytest.mark.parametrize("shift", SHIFTS)
def test_pass_over_the_data(compare: Compare, shift: float) -> None:
    """the log likelihood of the package's own pass, against 60 digits for each of five points"""
    a = np.stack([numbers(seed, 3, shift) for seed in range(5)], axis=1)
    log_likelihood = responsibilities_(torch.tensor(a)[None])
    compare(log_likelihood[0], float(sum(exact_lse(column) for column in a.T)), 1e-14)


@verifies("eq-log-sum-exp-bounds")
@pytest.mark.parametrize("shift", SHIFTS)
def test_bounds(compare: Compare, shift: float) -> None:
    """60 digits: within the bounds for random numbers, at the upper one for equal numbers"""
    for k in (1, 2, 7):
        a = numbers(k, k, shift)
        above = float(exact_lse(a) - mpmath.mpf(float(a.max())))
        assert -1e-12 <= above <= math.log(k) + 1e-12
        equal = np.full(k, shift, dtype=np.float64)
        compare(float(exact_lse(equal) - mpmath.mpf(shift)), math.log(k), 1e-14)
        alone = shift - 1e3 * np.arange(k, dtype=np.float64)
        compare(float(exact_lse(alone) - mpmath.mpf(shift)), 0.0, 1e-14)


@verifies("eq-log-sum-exp-gradient")
@pytest.mark.parametrize("shift", SHIFTS)
def test_gradient_of_log_sum_exp(compare: Compare, shift: float) -> None:
    """softmax against central differences with 60 digits"""
    a = numbers(5, 4, shift)
    softmax = torch.tensor(a).softmax(0)
    step = mpmath.mpf(10) ** -12
    with mpmath.workdps(60):
        b = [mpmath.mpf(float(value)) for value in a]

        def lse(k: int, move: mpmath.mpf) -> mpmath.mpf:
            moved = [value + (move if j == k else 0) for j, value in enumerate(b)]
            return mpmath.log(mpmath.fsum(mpmath.exp(value) for value in moved))

        slopes = [float((lse(k, step) - lse(k, -step)) / (2 * step)) for k in range(len(a))]
    compare(softmax, slopes, 1e-14)


@verifies("eq-gmm-log-density")
@pytest.mark.parametrize("distance", [0.0, 10.0, 450.0])
def test_log_density(compare: Compare, distance: float) -> None:
    """near and 450 standard deviations away, against a plain sum of densities with 60 digits"""
    mixture = reference.random_mixture("diagonal", 3, 2)
    x = reference.draw(mixture, 5) + distance
    expected = []
    with mpmath.workdps(60):
        for point in x:
            total = mpmath.mpf(0)
            for weight, mean, covariance in zip(*mixture, strict=True):
                density = mpmath.mpf(float(weight))
                for d in range(2):
                    sd = mpmath.sqrt(mpmath.mpf(float(covariance[d, d])))
                    z = (mpmath.mpf(float(point[d])) - mpmath.mpf(float(mean[d]))) / sd
                    density *= mpmath.npdf(z) / sd
                total += density
            expected.append(float(mpmath.log(total)))
    compare(model_of(mixture).log_prob(torch.tensor(x)), expected, 1e-13)


@verifies("eq-fisher-identity")
@pytest.mark.parametrize("family", ["full", "diagonal", "tied"])
def test_fisher_identity(compare: Compare, family: str) -> None:
    """the gradient of the package's descent, against autograd of a mixture written differently"""
    for k, d in ((2, 1), (3, 2)):
        mixture = reference.random_mixture(family, k, d)
        x = reference.draw(reference.random_mixture(family, k, d, seed=5), 40)
        model = model_of(mixture, family)
        state = model.state()
        found = score(e_step(Points.of(torch.tensor(x)), model.family, state), model.family, state)
        parameters = [model.logits, model.means, model.raw_scale]
        expected = reference.gradient(family, parameters, torch.tensor(x))
        for up, slope in zip(found, expected, strict=True):
            compare(-up / len(x), slope, 1e-10)


@verifies("eq-fisher-identity")
def test_fisher_identity_by_differences(compare: Compare) -> None:
    """the identity's right side in a mean and in a weight, against differences of scipy's NLL"""
    mixture = reference.random_mixture("full", 3, 2)
    x = reference.draw(mixture, 30, seed=9)
    r = reference.responsibilities(mixture, x)
    step = 1e-5
    for k, d in itertools.product(range(3), range(2)):
        ends = []
        for sign in (1, -1):
            means = mixture.means.copy()
            means[k, d] += sign * step
            ends.append(-reference.log_density(mixture._replace(means=means), x).mean())
        pull = (x - mixture.means[k]) @ np.linalg.inv(mixture.covariances[k])
        compare(-(r[:, k] * pull[:, d]).mean(), (ends[0] - ends[1]) / (2 * step), 1e-8)
    for k in range(3):  # a weight moves alone: the identity asks for no constraint
        ends = []
        for sign in (1, -1):
            weights = mixture.weights.copy()
            weights[k] += sign * step
            ends.append(-reference.log_density(mixture._replace(weights=weights), x).mean())
        slope = (ends[0] - ends[1]) / (2 * step)
        compare(-(r[:, k] / mixture.weights[k]).mean(), slope, 1e-8)


@verifies("eq-stationarity")
@pytest.mark.parametrize("k", [2, 3])
def test_stationarity(compare: Compare, k: int) -> None:
    """where BFGS, which knows nothing of responsibilities, finds no descent left"""
    random = np.random.default_rng(k)
    x = np.concatenate([random.normal(4.0 * j, 1.0, 60) for j in range(k)])

    def unpack(v: Array) -> tuple[Array, Array, Array]:
        weights = np.exp(np.append(v[: k - 1], 0.0))
        return weights / weights.sum(), v[k - 1 : 2 * k - 1], np.exp(v[2 * k - 1 :])

    def nll(v: Array) -> float:
        weights, means, sds = unpack(v)
        return float(-np.log(norm.pdf(x[:, None], means, sds) @ weights).mean())

    start = np.concatenate([np.zeros(k - 1), 4.0 * np.arange(k) + 0.3, np.zeros(k)])
    v = minimize(nll, start, method="BFGS", options={"gtol": 1e-8, "eps": 1e-7}).x
    weights, means, sds = unpack(v)
    mixture = Mixture(weights, means[:, None], (sds**2)[:, None, None])
    r = model_of(mixture).responsibilities(torch.tensor(x[:, None])).numpy()
    compare(r.T @ x / r.sum(0), means, 1e-4)
    compare(r.mean(0), weights, 1e-4)


@verifies("eq-not-convex")
@pytest.mark.parametrize(("k", "d"), [(2, 1), (3, 2)])
def test_not_convex(compare: Compare, k: int, d: int) -> None:
    """all K! permutations of a mixture and their average, scored by scipy; f_1 from the data"""
    mixture = reference.random_mixture("full", k, d, seed=2)
    mixture = mixture._replace(means=3 * mixture.means)
    x = reference.draw(mixture, 400)
    model = model_of(mixture)
    f = float(model(torch.tensor(x)))
    blocks = [model.logits, model.means, model.raw_scale]
    orders = [list(order) for order in itertools.permutations(range(k))]
    values, average = [], [torch.zeros_like(block) for block in blocks]
    for order in orders:
        twin = Mixture(*(part[order] for part in mixture))
        values.append(-reference.log_density(twin, x).mean())
        average = [a + b[order] / len(orders) for a, b in zip(average, blocks, strict=True)]
    compare(values, np.full(len(orders), f), 1e-12)
    middle = model_of(mixture)
    for own, block in zip((middle.logits, middle.means, middle.raw_scale), average, strict=True):
        own.copy_(block)
    at_average = float(middle(torch.tensor(x)))
    single = multivariate_normal(middle.means[0].numpy(), middle.covariances[0].numpy())
    compare(at_average, -single.logpdf(x).mean(), 1e-12)
    best = multivariate_normal(x.mean(0), np.cov(x.T, bias=True).reshape(d, d))
    f_1 = float(-best.logpdf(x).mean())
    assert f < f_1
    compare(max(f_1 - at_average, 0.0), 0.0, 1e-12)


@verifies("eq-symmetric-curvature")
@pytest.mark.parametrize("k", [2, 3, 4])
def test_symmetric_curvature(compare: Compare, k: int) -> None:
    """the Hessian by autograd of a plain sum of densities, in random directions and widths"""
    random = np.random.default_rng(k)
    x = torch.tensor(random.gamma(2.0, size=60))
    for sd in (0.5, float(x.std(correction=0)), 3.0):
        weights = torch.tensor(random.dirichlet(np.ones(k)))

        def nll(
            means: torch.Tensor, weights: torch.Tensor = weights, sd: float = sd
        ) -> torch.Tensor:
            density = (-0.5 * ((x[:, None] - means) / sd) ** 2).exp() / sd
            return -(density @ weights).log().mean()

        at = x.mean().repeat(k)
        compare(torch.autograd.functional.jacobian(nll, at), torch.zeros(k), 1e-12)
        hessian = torch.autograd.functional.hessian(nll, at)
        for _ in range(5):
            v = torch.tensor(random.normal(size=k))
            mean = weights @ v
            spread = weights @ (v - mean).square()
            ratio = x.var(correction=0) / sd**2
            expected = (mean.square() + (1 - ratio) * spread) / sd**2
            compare(expected, v @ hessian @ v, 1e-10)


@verifies("eq-unbounded")
@pytest.mark.parametrize("d", [1, 2, 3])
def test_unbounded(compare: Compare, d: int) -> None:
    """the bound at 12 widths; as they shrink the package's NLL falls by D / N for each log unit"""
    mixture = reference.random_mixture("isotropic", 3, d)
    x = reference.draw(mixture, 30)
    mixture.means[0] = x[4]
    others = Mixture(mixture.weights[1:], mixture.means[1:], mixture.covariances[1:])
    rest = float(np.delete(reference.log_density(others, x), 4).sum())
    constant = (0.5 * d * math.log(2 * math.pi) - math.log(mixture.weights[0]) - rest) / len(x)
    model = model_of(mixture, "isotropic")
    assert isinstance(model, GmmIsotropic)
    sds = 10.0 ** np.arange(1, -11, -1)
    values = []
    for sd in sds:
        covariances = torch.tensor(mixture.covariances)
        covariances[0] = sd**2 * torch.eye(d, dtype=torch.float64)
        values.append(float(model.set_parameters(covariances=covariances)(torch.tensor(x))))
    f, bound = np.array(values), d / len(x) * np.log(sds) + constant
    compare(np.maximum(f - bound, 0), np.zeros(len(sds)), 1e-12)
    slope = (f[-2] - f[-1]) / math.log(10)
    compare(slope * len(x), float(d), 1e-8)
    # Once the narrow component reaches no other point, only what it adds at its own is missing.
    own = np.exp(reference.log_density(others, x)[4])
    share = mixture.weights[0] * (2 * math.pi) ** (-d / 2) * sds[-1] ** -d
    compare(f[-1], bound[-1] - math.log1p(own / share) / len(x), 1e-12)
