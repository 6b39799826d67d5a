"""Checks of the equations of chapter 10, mixture density networks."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from scipy.special import logsumexp
from torch import Tensor, nn

import gmmedu
from equations.proof import Compare, verifies
from gmmedu import MixtureDensityHead, MixtureDistribution

FLOAT64 = torch.float64
FAMILIES = list(gmmedu.MODELS)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=FLOAT64)


def head_of(family: str, num_dims: int, num_components: int = 3) -> MixtureDensityHead:
    """A head on four features, with numbers of its own in every output."""
    head = MixtureDensityHead(4, num_components, num_dims, family, dtype=FLOAT64)
    with torch.no_grad():
        head.linear.weight.copy_(0.4 * normal(*head.linear.weight.shape, seed=1))
        head.linear.bias.copy_(normal(*head.linear.bias.shape, seed=2))
    return head.requires_grad_(False)


def parts_of(given: MixtureDistribution) -> tuple[np.ndarray, ...]:
    """Weights, means and standard deviations of a mixture in one dimension."""
    variances = given.component_covariances[..., 0, 0]
    return tuple(
        part.detach().numpy()
        for part in (given.weights, given.component_means[..., 0], variances.sqrt())
    )


@verifies("eq-squared-error")
def test_squared_error_splits_at_the_conditional_mean(compare: Compare) -> None:
    """By quadrature over x and t: a conditional mixture with a curved mean, several predictions."""
    nodes, shares = np.polynomial.hermite_e.hermegauss(60)
    shares = shares / shares.sum()
    x = nodes[:, None]
    # Given x, t is from N(x^2, 0.5^2) with weight 0.4, else from N(-1, 0.8^2).
    t = np.concatenate([x**2 + 0.5 * nodes, -1 + 0.8 * nodes + 0 * x], axis=1)
    mass = shares[:, None] * np.concatenate([0.4 * shares, 0.6 * shares])
    mean = (mass * t).sum(1, keepdims=True) / mass.sum(1, keepdims=True)
    compare(mean, 0.4 * x**2 - 0.6, 1e-10)
    spread = (mass * (t - mean) ** 2).sum()
    for g in (0 * x, np.sin(x), x**2, mean):
        off = (mass * (mean - g) ** 2).sum()
        compare((mass * (t - g) ** 2).sum(), spread + off, 1e-10)


@verifies("eq-mdn-density")
@pytest.mark.parametrize("family", FAMILIES)
def test_the_density_is_a_mixture_of_normals_at_each_input(family: str, compare: Compare) -> None:
    """Each input's mixture summed by scipy, and in one dimension its integral."""
    head, h = head_of(family, 2), normal(5, 4, seed=3)
    given, t = head(h), normal(5, 2, seed=4)
    for n in range(5):
        parts = zip(
            given.weights[n], given.component_means[n], given.component_covariances[n], strict=True
        )
        expected = sum(
            float(w) * stats.multivariate_normal(m.numpy(), c.numpy()).pdf(t[n].numpy())
            for w, m, c in parts
        )
        compare(given.log_prob(t)[n].exp(), expected, 1e-10)
    line = head_of(family, 1)(h)
    t = torch.linspace(-60, 60, 120_001, dtype=FLOAT64)
    mass = line.log_prob(t[:, None, None].expand(-1, 5, 1)).exp().sum(0) * (t[1] - t[0])
    compare(mass, np.ones(5), 1e-7)


@verifies("eq-mdn-nll")
@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_the_mean_over_points(family: str, compare: Compare) -> None:
    """By torch's own mixture of each input, one after the other."""
    head, h, t = head_of(family, 2), normal(9, 4, seed=3), normal(9, 2, seed=4)
    rows = [-head(h[n]).to_torch().log_prob(t[n]) for n in range(9)]
    compare(-head(h).log_prob(t).mean(), torch.stack(rows).mean(), 1e-12)


@verifies("eq-mdn-slopes")
def test_slopes_of_one_target(compare: Compare) -> None:
    """By autograd through torch's own mixture."""
    logits, means, log_sds = (normal(6, 4, seed=seed).requires_grad_() for seed in range(3))
    t = 2 * normal(6, seed=3)
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=logits),
        torch.distributions.Normal(means, log_sds.exp()),
    )
    slopes = torch.autograd.grad(-mixture.log_prob(t).sum(), (logits, means, log_sds))
    weights, m, s = (part.detach().numpy() for part in (logits.softmax(1), means, log_sds.exp()))
    gap = t.numpy()[:, None] - m
    joint = weights * stats.norm.pdf(gap, scale=s)
    r = joint / joint.sum(1, keepdims=True)
    compare(weights - r, slopes[0], 1e-10)
    compare(-r * gap / s**2, slopes[1], 1e-10)
    compare(r * (1 - (gap / s) ** 2), slopes[2], 1e-10)


@verifies("eq-smooth-floor")
def test_standard_deviations_of_the_head(compare: Compare) -> None:
    """Of each family, by numpy, from the last outputs of the linear layer, in units of targets."""
    h = normal(5, 4, seed=3)
    for family in ("diagonal", "isotropic", "shared_isotropic"):
        head = MixtureDensityHead(4, 3, 2, family, min_scale=0.05, dtype=FLOAT64)
        head.initialize(30 * normal(60, 2, seed=5) - 7, generator=seeded())
        with torch.no_grad():
            head.linear.weight.copy_(normal(*head.linear.weight.shape, seed=1))
        outputs = head.linear(h).detach().numpy()[:, 9:]
        sds = 0.05 + np.log1p(np.exp(outputs))
        shape = {"diagonal": (5, 3, 2), "isotropic": (5, 3, 1), "shared_isotropic": (5, 1, 1)}
        wanted = np.broadcast_to(sds.reshape(shape[family]), (5, 3, 2)) * head.scale.numpy()
        variances = head(h).component_covariances.diagonal(dim1=-2, dim2=-1)
        compare(variances.detach().sqrt(), wanted, 1e-9)


@verifies("eq-entropy-bound")
def test_the_expected_loss_is_entropy_and_divergence(compare: Compare) -> None:
    """Entropy and divergence by sums over a grid, with scipy's densities; the loss by the package
    on the same grid, and on draws from the truth."""
    h = normal(3, 4, seed=3)
    truth, model = head_of("full", 1)(h), head_of("full", 1, 2)(h)
    t = np.linspace(-15, 15, 60_001)

    def log_density(given: MixtureDistribution) -> np.ndarray:
        weights, means, sds = (part[:, None] for part in parts_of(given))
        joint = np.log(weights) + stats.norm.logpdf(t[None, :, None], means, sds)
        return np.asarray(logsumexp(joint, axis=-1))

    log_q, log_p = log_density(truth), log_density(model)
    mass = np.exp(log_q) * (t[1] - t[0])
    entropy, divergence = -(mass * log_q).sum(1), (mass * (log_q - log_p)).sum(1)
    assert (divergence > 0).all()
    grid = torch.as_tensor(t)[:, None, None].expand(-1, 3, 1)
    loss = -(torch.as_tensor(mass.T) * model.log_prob(grid)).sum(0)
    compare(loss, entropy + divergence, 1e-9)
    drawn = truth.sample((20_000,), generator=seeded())
    compare.monte_carlo(-model.log_prob(drawn), entropy + divergence)


@verifies("eq-mixture-cdf")
@pytest.mark.parametrize("family", FAMILIES)
def test_distribution_function_and_quantiles(family: str, compare: Compare) -> None:
    """By scipy's normal distribution function, and by integrating the density."""
    given, t = head_of(family, 1)(normal(5, 4, seed=3)), normal(5, 1, seed=4)
    weights, means, sds = parts_of(given)
    compare(given.cdf(t), (weights * stats.norm.cdf(t.numpy(), means, sds)).sum(1), 1e-12)
    for n in range(5):
        mass = sum(
            w * integrate.quad(stats.norm(m, s).pdf, -np.inf, float(t[n]))[0]
            for w, m, s in zip(weights[n], means[n], sds[n], strict=True)
        )
        compare(given.cdf(t)[n], mass, 1e-7)
    u = torch.linspace(0.01, 0.99, 5, dtype=FLOAT64)
    compare(given.cdf(given.icdf(u)), u, 1e-12)


@verifies("eq-pit")
def test_targets_fall_evenly_into_their_distributions(compare: Compare) -> None:
    """Draws from p(t | x): the share of u below each level, within each input."""
    given = head_of("full", 1)(normal(4, 4, seed=3))
    u = given.cdf(given.sample((20_000,), generator=seeded()))
    for level in (0.05, 0.3, 0.5, 0.9):
        compare.monte_carlo((u <= level).double(), np.full(4, level))
    assert min(stats.kstest(u[:, n].numpy(), "uniform").pvalue for n in range(4)) > 1e-3


@verifies("eq-crps", "eq-mixture-crps")
def test_the_score_is_integral_draws_and_closed_form(compare: Compare) -> None:
    """The integral by quadrature, the expectations by draws, the closed form by the package."""
    given, t = head_of("full", 1)(normal(4, 4, seed=3)), normal(4, 1, seed=4)
    weights, means, sds = parts_of(given)
    found = gmmedu.crps(given, t)
    for n in range(4):

        def square(s: float, n: int = n) -> float:
            share = float(weights[n] @ stats.norm.cdf(s, means[n], sds[n]))
            return (share - (s >= float(t[n]))) ** 2

        ends = (-40.0, float(t[n]), 40.0)
        known = sum(integrate.quad(square, *pair, limit=200)[0] for pair in pairwise(ends))
        compare(found[n], known, 1e-6)
    one, two = (given.sample((40_000,), generator=seeded(seed)) for seed in (0, 1))
    draws = (one - t).abs() - 0.5 * (one - two).abs()
    compare.monte_carlo(draws[..., 0], found)


@verifies("eq-mdn-em")
def test_the_bound_touches_the_likelihood_with_equal_slopes(compare: Compare) -> None:
    """By autograd through a network: value and slopes at the responsibilities of its own; below
    the likelihood at those of another."""
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Linear(2, 5), nn.Tanh()).to(FLOAT64)
    head = MixtureDensityHead(5, 3, 1, "diagonal", dtype=FLOAT64)
    x, t = normal(40, 2, seed=3), normal(40, 1, seed=4)
    numbers = [*trunk.parameters(), *head.parameters()]

    def joint() -> Tensor:
        """log pi_k + log N(t_n | k), (N, K), without the package's own."""
        given = head(trunk(x))
        sds = given.component_covariances[..., 0, 0].sqrt()
        normals = torch.distributions.Normal(given.component_means[..., 0], sds)
        return given.weights.log() + normals.log_prob(t)

    r = head(trunk(x)).responsibilities(t).detach()
    log_likelihood = head(trunk(x)).log_prob(t).sum()
    q, entropy = (r * joint()).sum(), -(r * r.log()).sum()
    compare((q + entropy).detach(), log_likelihood.detach(), 1e-10)
    for own, known in zip(
        torch.autograd.grad(q, numbers), torch.autograd.grad(log_likelihood, numbers), strict=True
    ):
        compare(own, known, 1e-10)
    other = (normal(40, 3, seed=6)).softmax(1)
    lower = (other * joint()).sum() - (other * other.log()).sum()
    gap = (other * (other / r).log()).sum()
    compare((lower + gap).detach(), log_likelihood.detach(), 1e-10)
