"""Checks of the equations of chapter 01, the multivariate normal."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import integrate, optimize, stats
from scipy.spatial.distance import mahalanobis

import gmmedu
from equations.proof import Compare, verifies
from gmmedu import gaussian, plot
from gmmedu.covariance import Scales, Triangular

Array = NDArray[np.float64]


def instance(num_dims: int, seed: int = 0) -> tuple[Array, Array]:
    """A mean (D,) and a covariance (D, D) with standard deviations between 0.6 and 1.6."""
    random = np.random.default_rng([seed, num_dims])
    rotation = np.linalg.qr(random.normal(size=(num_dims, num_dims)))[0]
    variances = random.uniform(0.6, 1.6, num_dims) ** 2
    return random.normal(size=num_dims), rotation @ np.diag(variances) @ rotation.T


def scales_of(covariance: Array) -> Scales:
    """The package's factor and whitening of one covariance (D, D), by way of raw_scale."""
    factor = Triangular.factorize(torch.tensor(covariance)[None])
    return Triangular.from_raw(Triangular.to_raw(factor))


def log_density(x: Array, mean: Array, covariance: Array) -> Array:
    """The package's: factor, whitened residuals, log density; x (N, D) -> (N,)."""
    scales = scales_of(covariance)
    residuals = gaussian.residuals(torch.tensor(x), torch.tensor(mean)[None])
    whitened = Triangular.whiten(scales.whitening, residuals)
    return gaussian.log_density(whitened, Triangular.log_det(scales.factor, len(mean)))[0].numpy()


def grid(mean: Array, covariance: Array, step: float, reach: float) -> tuple[Array, float]:
    """Points of a lattice along the axes, in standard deviations of each, and a cell's volume."""
    scale = np.sqrt(np.diag(covariance))
    line = np.arange(-reach, reach + step / 2, step)
    points = np.array(list(itertools.product(line, repeat=len(mean))))
    return mean + points * scale, float(np.prod(step * scale))


def model(mean: Array, covariance: Array) -> gmmedu.GaussianMixture:
    """The package's mixture of one Gaussian."""
    one = gmmedu.GmmFull(1, len(mean))
    return one.set_parameters(
        means=torch.tensor(mean)[None], covariances=torch.tensor(covariance)[None]
    )


def random_matrix(rows: int, columns: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, rows, columns]).normal(size=(rows, columns))


# The density


@verifies("eq-gaussian-integral")
def test_gaussian_integral(compare: Compare) -> None:
    """the integral over the line by quadrature, squared, is 2 pi"""
    line, _ = integrate.quad(lambda s: math.exp(-(s**2) / 2), -math.inf, math.inf)
    compare(line**2, 2 * math.pi, 1e-12)


@verifies("eq-standard-normal")
@pytest.mark.parametrize("num_dims", [1, 2, 3])
def test_standard_normal(compare: Compare, num_dims: int) -> None:
    """integral 1, mean 0 and covariance I by a sum over a lattice, D = 1, 2, 3"""
    zero, identity = np.zeros(num_dims), np.eye(num_dims)
    y, cell = grid(zero, identity, 0.5, 8)
    density = (2 * math.pi) ** (-num_dims / 2) * np.exp(-(y**2).sum(1) / 2) * cell
    compare(density.sum(), 1.0, 1e-12)
    compare(density @ y, zero, 1e-12)
    compare(np.einsum("n,ni,nj->ij", density, y, y), identity, 1e-12)
    compare(np.log(density / cell)[:50], log_density(y[:50], zero, identity), 1e-12)


@verifies("eq-affine-moments")
@pytest.mark.parametrize(("rows", "columns"), [(2, 2), (3, 2), (1, 4)])
def test_affine_moments(compare: Compare, rows: int, columns: int) -> None:
    """exact sums over a random discrete distribution, which is no Gaussian"""
    random = np.random.default_rng(rows)
    values, shares = random.normal(size=(9, columns)), random.dirichlet(np.ones(9))
    matrix, offset = random_matrix(rows, columns), random.normal(size=rows)
    mean = shares @ values
    covariance = np.cov(values.T, aweights=shares, ddof=0).reshape(columns, columns)
    mapped = np.stack([matrix @ value + offset for value in values])
    compare(shares @ mapped, matrix @ mean + offset, 1e-12)
    found = np.cov(mapped.T, aweights=shares, ddof=0).reshape(rows, rows)
    compare(found, matrix @ covariance @ matrix.T, 1e-12)


@verifies("eq-change-of-variables")
@pytest.mark.parametrize("seed", range(3))
def test_change_of_variables(compare: Compare, seed: int) -> None:
    """boxes of x: the density integrated, against the probability that the noise lands there"""
    # The noise is logistic in each coordinate. For fixed y1, the box of x leaves y2 an interval.
    random, noise = np.random.default_rng(seed), stats.logistic
    matrix, offset = random.normal(size=(2, 2)), random.normal(size=2)
    low, high = offset - random.uniform(0.5, 1.5, 2), offset + random.uniform(0.5, 1.5, 2)
    nodes, weights = np.polynomial.legendre.leggauss(40)
    axes = [(lo + hi) / 2 + nodes * (hi - lo) / 2 for lo, hi in zip(low, high, strict=True)]
    x = np.array(list(itertools.product(*axes)))
    weight = np.prod(list(itertools.product(weights, repeat=2)), axis=1) * np.prod(high - low) / 4
    inverse = np.linalg.inv(matrix)
    density = noise.pdf((x - offset) @ inverse.T).prod(1) / abs(np.linalg.det(matrix))

    def slice_of_noise(first: float) -> float:
        ends = (np.stack([low, high]) - offset - matrix[:, 0] * first) / matrix[:, 1]
        start, end = ends.min(0).max(), ends.max(0).min()
        return float(noise.pdf(first) * max(0.0, noise.cdf(end) - noise.cdf(start)))

    corners = np.array(list(itertools.product(*zip(low, high, strict=True))))
    kinks = np.sort(((corners - offset) @ inverse.T)[:, 0])
    probability = sum(
        integrate.quad(slice_of_noise, *piece, epsabs=1e-13)[0]
        for piece in itertools.pairwise(kinks)
    )
    compare(weight @ density, probability, 1e-10)


@verifies("eq-mvn-density")
@pytest.mark.parametrize("num_dims", [1, 2, 3])
def test_density(compare: Compare, num_dims: int) -> None:
    """integral 1, mean mu and covariance Sigma by a sum over a lattice, D = 1, 2, 3"""
    mean, covariance = instance(num_dims)
    x, cell = grid(mean, covariance, 0.4, 8)
    residual = x - mean
    exponent = -0.5 * np.einsum("ni,ij,nj->n", residual, np.linalg.inv(covariance), residual)
    normalizer = (2 * math.pi) ** (num_dims / 2) * np.linalg.det(covariance) ** 0.5
    density = np.exp(exponent) / normalizer
    compare(density.sum() * cell, 1.0, 1e-11)
    compare(cell * density @ x, mean, 1e-11)
    compare(cell * np.einsum("n,ni,nj->ij", density, residual, residual), covariance, 1e-11)
    compare(np.exp(log_density(x, mean, covariance)), density, 1e-11)


@verifies("eq-mvn-log-density")
@pytest.mark.parametrize("num_dims", range(1, 9))
def test_log_density(compare: Compare, num_dims: int) -> None:
    """scipy's, random means and covariances, D = 1 to 8"""
    mean, covariance = instance(num_dims, seed=1)
    x = mean + 3 * random_matrix(20, num_dims)
    expected = stats.multivariate_normal(mean, covariance).logpdf(x)
    compare(log_density(x, mean, covariance), expected, 1e-12)


@verifies("eq-mvn-log-density")
@pytest.mark.parametrize("deviation", [0.1, 10.0])
def test_log_density_in_400_dimensions(compare: Compare, deviation: float) -> None:
    """a sum over 400 coordinates of scipy's normal, where the determinant leaves the floats"""
    x = deviation * random_matrix(5, 400)
    actual = log_density(x, np.zeros(400), deviation**2 * np.eye(400))
    compare(actual, stats.norm(scale=deviation).logpdf(x).sum(1), 1e-12)


# Distance and mass


@verifies("eq-mahalanobis")
@pytest.mark.parametrize("num_dims", [1, 2, 5])
def test_mahalanobis(compare: Compare, num_dims: int) -> None:
    """the length of the whitened residual against scipy's distance from an inverse"""
    mean, covariance = instance(num_dims, seed=2)
    x = mean + random_matrix(12, num_dims)
    scales = scales_of(covariance)
    residuals = gaussian.residuals(torch.tensor(x), torch.tensor(mean)[None])
    distance = Triangular.whiten(scales.whitening, residuals)[0].norm(dim=0)
    inverse = np.linalg.inv(covariance)
    compare(distance, [mahalanobis(point, mean, inverse) for point in x], 1e-12)


@verifies("eq-principal-axes")
@pytest.mark.parametrize("num_dims", [2, 4])
def test_principal_axes(compare: Compare, num_dims: int) -> None:
    """scipy's Mahalanobis distance against the sum over eigenvectors, also at drawn ellipses"""
    mean, covariance = instance(num_dims, seed=3)
    inverse = np.linalg.inv(covariance)
    values, vectors = np.linalg.eigh(covariance)
    x = mean + random_matrix(12, num_dims)
    by_axes = (((x - mean) @ vectors) ** 2 / values).sum(1)
    compare(by_axes, [mahalanobis(point, mean, inverse) ** 2 for point in x], 1e-12)
    plane = torch.tensor(mean[:2]), torch.tensor(covariance[:2, :2])
    edge = plot.ellipse(*plane, 0.95)
    inverse = np.linalg.inv(covariance[:2, :2])
    distances = [mahalanobis(point, mean[:2], inverse) for point in edge]
    compare(distances, np.full(len(edge), plot.ellipse_radius(0.95)), 1e-12)


@verifies("eq-ellipse-mass")
@pytest.mark.parametrize("radius", [0.3, 1.0, 2.5])
def test_ellipse_mass(compare: Compare, radius: float) -> None:
    """quadrature over the disk in Cartesian coordinates, and plot.ellipse_radius inverted"""

    def strip(first: float) -> float:
        half = math.sqrt(radius**2 - first**2)
        return float(stats.norm.pdf(first) * (stats.norm.cdf(half) - stats.norm.cdf(-half)))

    mass, _ = integrate.quad(strip, -radius, radius, epsabs=1e-13)
    compare(1 - math.exp(-(radius**2) / 2), mass, 1e-11)
    compare(plot.ellipse_radius(mass), radius, 1e-10)


@verifies("eq-ellipse-mass")
def test_ellipse_mass_of_draws(compare: Compare) -> None:
    """the share of 100,000 draws of a leaning Gaussian that fall inside its 39 % ellipse"""
    mean, covariance = instance(2, seed=4)
    x = np.random.default_rng(0).multivariate_normal(mean, covariance, 100_000)
    inverse = np.linalg.inv(covariance)
    squares = np.einsum("ni,ij,nj->n", x - mean, inverse, x - mean)
    compare.monte_carlo((squares <= 1).astype(float), 1 - math.exp(-0.5))


@verifies("eq-shell-mass")
@pytest.mark.parametrize("num_dims", [1, 2, 3, 10, 100])
def test_shell_mass(compare: Compare, num_dims: int) -> None:
    """scipy's chi-square, and lengths of drawn noise, D = 1 to 100"""
    peak = math.sqrt(max(num_dims - 1, 1e-9))

    def shell(s: float) -> float:
        return math.exp((num_dims - 1) * math.log(s / peak) - (s**2 - peak**2) / 2)

    radius = math.sqrt(num_dims) + 0.3
    inside, _ = integrate.quad(shell, 0, radius, points=[peak], epsabs=1e-13)
    outside, _ = integrate.quad(shell, radius, radius + 15, epsabs=1e-13)
    mass = inside / (inside + outside)
    compare(mass, stats.chi2.cdf(radius**2, num_dims), 1e-10)
    lengths = np.linalg.norm(random_matrix(20_000, num_dims), axis=1)
    compare.monte_carlo((lengths <= radius).astype(float), mass)


@verifies("eq-whitening")
@pytest.mark.parametrize("num_dims", [1, 2, 6])
def test_whitening(compare: Compare, num_dims: int) -> None:
    """covariance of whitened points that are no Gaussian: Cholesky, PCA, ZCA, a random rotation"""
    x = np.random.default_rng(num_dims).exponential(size=(40, num_dims))
    x = x @ random_matrix(num_dims, num_dims)
    mean, covariance = x.mean(0), np.cov(x.T, ddof=0).reshape(num_dims, num_dims)
    scales = scales_of(covariance)
    cholesky = scales.whitening[0].numpy()
    values, vectors = np.linalg.eigh(covariance)
    pca = np.diag(values**-0.5) @ vectors.T
    rotation = np.linalg.qr(random_matrix(num_dims, num_dims, seed=1))[0]
    for whitening in (cholesky, pca, vectors @ pca, rotation @ cholesky):
        white = np.stack([whitening @ (point - mean) for point in x])
        found = np.cov(white.T, ddof=0).reshape(num_dims, num_dims)
        compare(found, np.eye(num_dims), 1e-10)


# Parts


@verifies("eq-affine-closure")
@pytest.mark.parametrize("num_dims", [2, 3])
def test_affine_closure_to_one_dimension(compare: Compare, num_dims: int) -> None:
    """density of a projection: the joint density summed over the hyperplane it comes from"""
    mean, covariance = instance(num_dims, seed=5)
    row, offset = random_matrix(1, num_dims)[0], 0.7
    others = np.linalg.qr(np.column_stack([row, random_matrix(num_dims, num_dims - 1)]))[0][:, 1:]
    line = np.arange(-12, 12, 0.2)
    within = np.array(list(itertools.product(line, repeat=num_dims - 1))) @ others.T
    values = row @ mean + offset + np.array([-1.5, 0.0, 0.4, 2.0])
    joint = stats.multivariate_normal(mean, covariance)
    found = [
        joint.pdf(row * (value - offset) / (row @ row) + within).sum()
        * 0.2 ** (num_dims - 1)
        / np.linalg.norm(row)
        for value in values
    ]
    deviation = math.sqrt(row @ covariance @ row)
    compare(stats.norm(row @ mean + offset, deviation).pdf(values), found, 1e-11)


@verifies("eq-affine-closure")
@pytest.mark.parametrize(("rows", "columns"), [(2, 2), (2, 4), (3, 3)])
def test_affine_closure(compare: Compare, rows: int, columns: int) -> None:
    """the characteristic function of mapped draws against that of the claimed Gaussian"""
    mean, covariance = instance(columns, seed=6)
    matrix, offset = 0.6 * random_matrix(rows, columns, seed=2), np.ones(rows)
    x = np.random.default_rng(1).multivariate_normal(mean, covariance, 50_000)
    y = x @ matrix.T + offset
    for u in random_matrix(3, rows, seed=3):
        center = u @ (matrix @ mean + offset)
        size = math.exp(-0.5 * u @ matrix @ covariance @ matrix.T @ u)
        compare.monte_carlo(np.cos(y @ u), size * math.cos(center))
        compare.monte_carlo(np.sin(y @ u), size * math.sin(center))


@verifies("eq-gaussian-marginal")
@pytest.mark.parametrize("kept", [[0], [2], [2, 0]])
def test_marginal(compare: Compare, kept: list[int]) -> None:
    """the other coordinates of a Gaussian in D = 3 summed out on a lattice; model.marginal"""
    mean, covariance = instance(3, seed=7)
    rest = [d for d in range(3) if d not in kept]
    others, cell = grid(mean[rest], covariance[np.ix_(rest, rest)], 0.25, 9)
    joint = stats.multivariate_normal(mean, covariance)
    points = mean[kept] + random_matrix(5, len(kept))
    found = []
    for point in points:
        x = np.empty((len(others), 3))
        x[:, kept], x[:, rest] = point, others
        found.append(joint.pdf(x).sum() * cell)
    formula = stats.multivariate_normal(mean[kept], covariance[np.ix_(kept, kept)])
    compare(formula.pdf(points), found, 1e-11)
    part = model(mean, covariance).marginal(kept)
    compare(part.log_prob(torch.tensor(points)).detach().exp(), found, 1e-11)


@verifies("eq-gaussian-conditional")
@pytest.mark.parametrize("known", [[0], [1], [2, 0]])
def test_conditional(compare: Compare, known: list[int]) -> None:
    """mean and covariance of a slice of a Gaussian in D = 3, summed on a lattice and normalized"""
    mean, covariance = instance(3, seed=8)
    rest = [d for d in range(3) if d not in known]
    value = mean[known] + random_matrix(1, len(known))[0]
    others, _ = grid(mean[rest], covariance[np.ix_(rest, rest)], 0.15, 9)
    x = np.empty((len(others), 3))
    x[:, known], x[:, rest] = value, others
    slice_ = stats.multivariate_normal(mean, covariance).pdf(x)
    slice_ /= slice_.sum()
    center = slice_ @ others
    spread = np.einsum("n,ni,nj->ij", slice_, others - center, others - center)
    gain = covariance[np.ix_(rest, known)] @ np.linalg.inv(covariance[np.ix_(known, known)])
    compare(mean[rest] + gain @ (value - mean[known]), center, 1e-10)
    formula = covariance[np.ix_(rest, rest)] - gain @ covariance[np.ix_(known, rest)]
    compare(formula, spread, 1e-10)
    given = dict(zip(known, value.tolist(), strict=True))
    then = model(mean, covariance).condition(given)
    compare(then.means[0].detach(), center, 1e-10)
    compare(then.covariances[0].detach(), spread, 1e-10)


# The fit


@verifies("eq-gaussian-nll")
@pytest.mark.parametrize("num_dims", [1, 2, 4])
def test_nll(compare: Compare, num_dims: int) -> None:
    """minus the mean of scipy's log density over the points themselves"""
    x = np.random.default_rng(num_dims).exponential(size=(30, num_dims))
    mean, covariance = instance(num_dims, seed=9)
    average, scatter = x.mean(0), np.cov(x.T, ddof=0).reshape(num_dims, num_dims)
    whitening = np.linalg.inv(np.linalg.cholesky(covariance))
    trace = np.trace(whitening @ scatter @ whitening.T)
    square = ((whitening @ (average - mean)) ** 2).sum()
    formula = 0.5 * (np.log(np.linalg.det(2 * np.pi * covariance)) + trace + square)
    expected = -stats.multivariate_normal(mean, covariance).logpdf(x).mean()
    compare(formula, expected, 1e-12)
    with torch.no_grad():
        compare(model(mean, covariance)(torch.tensor(x)), expected, 1e-12)


@verifies("eq-gaussian-mle")
@pytest.mark.parametrize("num_dims", [1, 2, 3])
def test_maximum_likelihood(compare: Compare, num_dims: int) -> None:
    """a quasi-Newton search of scipy's log density from two starts; fit_em with one component"""
    x = np.random.default_rng(num_dims).exponential(size=(25, num_dims))
    lower = np.tril_indices(num_dims)

    def unpack(parameters: Array) -> tuple[Array, Array]:
        factor = np.zeros((num_dims, num_dims))
        factor[lower] = parameters[num_dims:]
        return parameters[:num_dims], factor @ factor.T

    def nll(parameters: Array) -> float:
        mean, covariance = unpack(parameters)
        return float(-stats.multivariate_normal(mean, covariance).logpdf(x).mean())

    scatter = np.cov(x.T, ddof=0).reshape(num_dims, num_dims)
    least = 0.5 * np.log(np.linalg.det(2 * np.pi * np.e * scatter))
    for seed in (0, 1):
        wide = np.diag(np.random.default_rng(seed).uniform(0.7, 2, num_dims))
        start = np.concatenate([np.full(num_dims, float(seed)), wide[lower]])
        found = optimize.minimize(nll, start, method="BFGS", options={"gtol": 1e-7})
        mean, covariance = unpack(found.x)
        compare(x.mean(0), mean, 1e-5)
        compare(scatter, covariance, 1e-5)
        compare(least, found.fun, 1e-10)
    fitted = gmmedu.GmmFull(1, num_dims)
    fit = gmmedu.fit_em(fitted, torch.tensor(x))
    compare(fitted.means[0].detach(), mean, 1e-5)
    compare(fitted.covariances[0].detach(), covariance, 1e-5)
    compare(fit.nll, found.fun, 1e-10)


@verifies("eq-biased-covariance")
@pytest.mark.parametrize("num_points", [2, 3, 5])
def test_biased_covariance(compare: Compare, num_points: int) -> None:
    """the average of S over every sample of N from a small discrete distribution"""
    random = np.random.default_rng(0)
    values, shares = random.normal(size=(4, 2)), random.dirichlet(np.ones(4))
    truth = np.cov(values.T, aweights=shares, ddof=0)
    expected = np.zeros((2, 2))
    for sample in itertools.product(range(4), repeat=num_points):
        chosen = list(sample)
        expected += shares[chosen].prod() * np.cov(values[chosen].T, ddof=0)
    compare((num_points - 1) / num_points * truth, expected, 1e-12)


# Entropy


@verifies("eq-gaussian-entropy")
@pytest.mark.parametrize("num_dims", [1, 2, 3])
def test_entropy(compare: Compare, num_dims: int) -> None:
    """minus p log p of scipy's density summed over a lattice, D = 1, 2, 3"""
    mean, covariance = instance(num_dims, seed=10)
    x, cell = grid(mean, covariance, 0.3, 9) if num_dims < 3 else grid(mean, covariance, 0.4, 8)
    log_p = stats.multivariate_normal(mean, covariance).logpdf(x)
    formula = num_dims / 2 * math.log(2 * math.pi * math.e)
    formula += np.log(np.diag(np.linalg.cholesky(covariance))).sum()
    compare(formula, -(np.exp(log_p) * log_p).sum() * cell, 1e-10)


def _two_bumps(x: Array) -> Array:
    """A mixture of two normals, with mean 0.3 and variance 0.25 + 0.75."""
    left = stats.norm(0.3 - math.sqrt(0.75 * 3 / 7), 0.5)
    right = stats.norm(0.3 + math.sqrt(0.75 * 7 / 3), 0.5)
    return np.asarray(0.7 * left.pdf(x) + 0.3 * right.pdf(x))


_ROOT_3 = math.sqrt(3)
DENSITIES: dict[str, tuple[Callable[[Array], Array], float, float, float]] = {
    "uniform": (stats.uniform(-_ROOT_3, 2 * _ROOT_3).pdf, -_ROOT_3, _ROOT_3, 0.0),
    "Laplace": (stats.laplace(scale=0.5**0.5).pdf, -25, 25, 0.0),
    "logistic": (stats.logistic(scale=_ROOT_3 / math.pi).pdf, -19, 19, 0.0),
    "exponential": (stats.expon(loc=-1).pdf, -1, 39, 0.0),
    "two bumps": (_two_bumps, -6, 7, 0.3),
    "Gaussian": (stats.norm().pdf, -12, 12, 0.0),
}


@verifies("eq-maximum-entropy")
@pytest.mark.parametrize("name", DENSITIES)
def test_maximum_entropy(compare: Compare, name: str) -> None:
    """both sides by separate quadratures, for six densities of variance 1; the gap is never < 0"""
    density, low, high, mean = DENSITIES[name]
    x, step = np.linspace(low, high, 8_001, retstep=True)
    q = density(x)

    def integral(values: Array) -> float:
        return float(integrate.simpson(values, dx=step))

    compare(integral(q), 1.0, 1e-6)
    compare(integral(q * (x - mean) ** 2), 1.0, 1e-6)  # the premise: the same variance
    entropy = integral(-q * np.log(q))
    divergence = integral(q * (np.log(q) - stats.norm(mean).logpdf(x)))
    gap = 0.5 * math.log(2 * math.pi * math.e) - entropy
    compare(gap, divergence, 1e-6)
    compare(max(gap, 0.0), gap, 1e-9)
