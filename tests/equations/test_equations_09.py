"""Checks of the equations of chapter 09, how many components."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.integrate import quad
from scipy.stats import multivariate_normal, norm

from equations.proof import Compare, verifies
from gmmedu import GmmFull, GmmTied, bootstrap_lrt, fit_em, initialize, load_old_faithful, select

FLOAT64 = torch.float64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@verifies("eq-aic")
def test_aic_is_the_risk_on_fresh_points(compare: Compare) -> None:
    """Twice N times the risk on fresh points, by its closed form for one Gaussian, averages to
    AIC: over many samples of 400 points in two dimensions, where terms of order 1 / N are small."""
    num_samples, num_points, num_dims = 4000, 400, 2
    x = torch.randn(num_samples, num_points, num_dims, generator=generator(), dtype=FLOAT64)
    model = GmmFull(1, num_dims, batch_shape=num_samples, dtype=FLOAT64)
    fit_em(model, x, 2)
    aic = torch.stack([torch.as_tensor(model.aic(x))]).flatten().numpy()
    means, covariances = (part.detach()[:, 0].numpy() for part in (model.means, model.covariances))
    inverse = np.linalg.inv(covariances)
    # E -log N(x | m, C) for x from N(0, I).
    spread = np.trace(inverse, axis1=1, axis2=2) + np.einsum("si,sij,sj->s", means, inverse, means)
    log_det = np.linalg.slogdet(covariances)[1]
    risk = 0.5 * (num_dims * math.log(2 * math.pi) + log_det + spread)
    # The noise of f at the truth is common to both sides of the sample, and has mean zero.
    noise = -multivariate_normal(np.zeros(2)).logpdf(x.numpy()).mean(1)
    noise -= 0.5 * num_dims * math.log(2 * math.pi * math.e)
    difference = 2 * num_points * (risk + noise) - aic
    # The exact mean has a term of order 1 / N that the criterion leaves out.
    exact = _gap(num_points, num_dims) - 2 * 5
    compare.monte_carlo(difference, np.array(exact))


def _gap(num_points: int, num_dims: int) -> float:
    """2 N times the mean gap of one Gaussian, exactly: E C^-1 = N / (N - D - 2) I."""
    inverse = num_points / (num_points - num_dims - 2)
    return num_points * num_dims * ((1 + 1 / num_points) * inverse - 1)


@verifies("eq-bic")
def test_bic_is_the_evidence_to_a_bounded_term(compare: Compare) -> None:
    """The evidence of one Gaussian of unknown mean and log width, by quadrature, against Laplace's
    approximation, which is BIC and what BIC drops; the error falls as 1 / N."""
    for num_points in (50, 5000):
        x = torch.randn(num_points, 1, generator=generator(2), dtype=FLOAT64) * 1.3 + 0.4
        model = GmmFull(1, 1, dtype=FLOAT64)
        fit_em(model, x, 2)
        mean, sd = float(model.means.detach()), float(model.covariances.detach().sqrt())
        # f in (mean, log sd) has the Hessian diag(1 / sd^2, 2) at the fit.
        log_prior = norm.logpdf(mean, 0, 2) + norm.logpdf(math.log(sd), 0, 1)
        dropped = -2 * log_prior - 2 * math.log(2 * math.pi) + math.log(2 / sd**2)
        evidence = _log_evidence(num_points, mean, sd)
        compare(float(model.bic(x)) + dropped + 2 * evidence, 0.0, 5 / num_points)


def _log_evidence(num_points: int, mean: float, sd: float) -> float:
    """Of points with that mean and sd, under priors N(0, 2^2) on the mean and N(0, 1) on the log
    of the width: over the mean in closed form, over the width by quadrature."""
    largest = -num_points * (0.5 * math.log(2 * math.pi * math.e) + math.log(sd))

    def density(t: float) -> float:
        spread = math.exp(t) / math.sqrt(num_points)
        scatter = num_points * sd**2 / (2 * math.exp(2 * t))
        log_likelihood = -num_points * (0.5 * math.log(2 * math.pi) + t) - scatter
        log_mean = norm.logpdf(mean, 0, math.hypot(2, spread))
        log_mean += 0.5 * math.log(2 * math.pi) + math.log(spread)
        return math.exp(log_likelihood - largest + log_mean + norm.logpdf(t, 0, 1))

    width = 12 / math.sqrt(2 * num_points)
    ends = math.log(sd) - width, math.log(sd) + width
    return largest + math.log(quad(density, *ends, epsabs=0, limit=200)[0])


@verifies("eq-icl")
def test_icl_is_bic_of_points_and_labels(compare: Compare) -> None:
    """By the log density of each point together with its label, from scipy."""
    x = load_old_faithful()
    model = GmmFull(3, 2, dtype=FLOAT64)
    initialize(model, x, generator=generator())
    fit_em(model, x, 50, tolerance=0)
    joint = np.stack(
        [
            math.log(weight) + multivariate_normal(mean, covariance).logpdf(x)
            for weight, mean, covariance in zip(
                *(n.detach().numpy() for n in (model.weights, model.means, model.covariances)),
                strict=True,
            )
        ]
    )
    both = model.num_free_parameters * math.log(272) - 2 * joint.max(0).sum()
    compare(float(model.icl(x)), both, 1e-12)


@verifies("eq-cross-validation")
def test_cross_validation_is_a_loop_over_folds(compare: Compare) -> None:
    """For one Gaussian, whose fit is the mean and covariance of the other folds."""
    x = load_old_faithful()
    found = select(x, 1, "full", "held_out", num_starts=1, num_folds=7, generator=generator(4))
    fold = np.empty(272, dtype=int)
    order = torch.randperm(272, generator=generator(4)).numpy()
    fold[order] = np.arange(272) % 7
    points, scores = x.numpy(), np.empty(272)
    for out in range(7):
        rest = points[fold != out]
        fit = multivariate_normal(rest.mean(0), np.cov(rest.T, bias=True))
        scores[fold == out] = -fit.logpdf(points[fold == out])
    compare(found.table[0].held_out, scores.mean(), 1e-12)
    compare(found.table[0].held_out_error, scores.std() / math.sqrt(272), 1e-12)


@verifies("eq-bootstrap-p-value")
def test_the_p_value_is_the_rank_of_the_data(compare: Compare) -> None:
    """By sorting the ratios; that of the data is from fits that are made again, one by one."""
    x = load_old_faithful()[:100, :1]
    test = bootstrap_lrt(x, "tied", 1, 19, num_starts=3, generator=generator(5))
    ratios = sorted([test.statistic, *test.samples.tolist()], reverse=True)
    compare(test.p_value, (ratios.index(test.statistic) + 1) / 20, 1e-15)
    null = norm(float(x.mean()), float(x.std(correction=0))).logpdf(x.numpy()).sum()
    best = max(_two_tied(x, seed) for seed in range(5))
    compare(test.statistic, 2 * (best - null), 1e-6)


def _two_tied(x: torch.Tensor, seed: int) -> float:
    model = GmmTied(2, 1, dtype=FLOAT64)
    initialize(model, x, "kmeans++", generator=generator(seed))
    fit_em(model, x, 5000, 1e-13)
    return float(model.log_prob(x).detach().sum())
