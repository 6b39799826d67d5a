"""Answers to the exercises of chapter 06, right and wrong."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Normal

from exercises.cases import Case


def _elbo(a: Tensor, tau: Tensor) -> Tensor:
    total = torch.zeros((), dtype=a.dtype)
    for row, shares in zip(a, tau, strict=True):
        for value, share in zip(row, shares, strict=True):
            if share > 0:
                total = total + share * (value - share.log())
    return total


def _elbo_by_divergence(a: Tensor, tau: Tensor) -> float:
    """Log likelihood less the divergence, in numpy."""
    values, shares = a.numpy(), tau.numpy()
    log_p = np.logaddexp.reduce(values, axis=1)
    log_r = values - log_p[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(shares > 0, shares * (np.log(shares) - log_r), 0.0)
    return float((log_p - terms.sum(1)).sum())


def _step_by_copies(x: Tensor, w: Tensor, weights: Tensor, means: Tensor, sds: Tensor) -> Tensor:
    """Plain sums over components, in the domain of densities."""
    density = weights * Normal(means, sds).log_prob(x[:, None]).exp()
    r = density / density.sum(1, keepdim=True)
    rows = []
    for k in range(len(means)):
        count = (w * r[:, k]).sum()
        mean = (w * r[:, k] * x).sum() / count
        variance = (w * r[:, k] * x**2).sum() / count - mean**2
        rows.append(torch.stack([count / w.sum(), mean, variance.sqrt()]))
    return torch.stack(rows, 1)


def _step_as_list(
    x: Tensor, w: Tensor, weights: Tensor, means: Tensor, sds: Tensor
) -> list[Tensor]:
    return list(_step_by_copies(x, w, weights, means, sds))


def _step_transposed(x: Tensor, w: Tensor, weights: Tensor, means: Tensor, sds: Tensor) -> Tensor:
    return _step_by_copies(x, w, weights, means, sds).mT


def _step_of_log_weights(
    x: Tensor, w: Tensor, weights: Tensor, means: Tensor, sds: Tensor
) -> Tensor:
    return _step_by_copies(x, w, torch.full_like(weights, 0.5), means, sds)


def _step_unweighted(x: Tensor, w: Tensor, weights: Tensor, means: Tensor, sds: Tensor) -> Tensor:
    return _step_by_copies(x, torch.ones_like(w), weights, means, sds)


def _step_over_n(x: Tensor, w: Tensor, weights: Tensor, means: Tensor, sds: Tensor) -> Tensor:
    new = _step_by_copies(x, w, weights, means, sds)
    return torch.stack([new[0] * w.sum() / len(x), new[1], new[2]])


def _step_without_points_weights(
    x: Tensor, w: Tensor, weights: Tensor, means: Tensor, sds: Tensor
) -> Tensor:
    new = _step_by_copies(x, torch.ones_like(w), weights, means, sds)
    return torch.stack([new[0] * len(x) / w.sum(), new[1], new[2]])


def _step_with_variances(
    x: Tensor, w: Tensor, weights: Tensor, means: Tensor, sds: Tensor
) -> Tensor:
    new = _step_by_copies(x, w, weights, means, sds)
    return torch.stack([new[0], new[1], new[2] ** 2])


def _square(mu: Tensor, sigma: Tensor, row: Tensor) -> Tensor:
    """From the precision: the hidden part has precision P_hh and mean mu - P_hh^-1 P_ho r."""
    hidden = row.isnan()
    precision = torch.linalg.inv(sigma)
    residual = (row - mu).nan_to_num()
    spread = torch.zeros_like(sigma)
    if bool(hidden.any()):
        corner = torch.linalg.inv(precision[hidden][:, hidden])
        residual[hidden] = -corner @ precision[hidden][:, ~hidden] @ residual[~hidden]
        where = hidden.nonzero().flatten()
        spread[where[:, None], where] = corner
    return residual[:, None] * residual + spread


def _square_without_spread(mu: Tensor, sigma: Tensor, row: Tensor) -> Tensor:
    filled = _square(mu, sigma, row)
    hidden = row.isnan()
    if bool(hidden.any()):
        where = hidden.nonzero().flatten()
        corner = torch.linalg.inv(torch.linalg.inv(sigma)[hidden][:, hidden])
        filled[where[:, None], where] -= corner
    return filled


def _square_with_sigma(mu: Tensor, sigma: Tensor, row: Tensor) -> Tensor:
    hidden = row.isnan()
    return _square_without_spread(mu, sigma, row) + sigma * hidden[:, None] * hidden


def _square_of_means(mu: Tensor, sigma: Tensor, row: Tensor) -> Tensor:
    residual = (row - mu).nan_to_num()
    return residual[:, None] * residual


def _square_in_place(mu: Tensor, sigma: Tensor, row: Tensor) -> Tensor:
    row -= mu
    return row[:, None] * row


# One step of EM by plain exponentials.
_NEAR, _FAR = math.exp(0.0), math.exp(-2.0)
MOVED = (0.0 * _NEAR + 2.0 * _FAR) / (_NEAR + _FAR)
# A sum of steps that shrink by 0.8, term by term.
LIMIT = 1.82 - sum(0.08 * 0.8**i for i in range(1, 400))
STARTS = next(s for s in range(1, 1000) if 1 - 0.9**s >= 0.99)

CASES: dict[str, Case] = {
    "06-1": Case(
        right=["acd", "dca", ["a", "c", "d"], "A, C, D"],
        wrong=[
            ("abcd", "both components started alike"),
            ("acde", "above and below"),
            ("ac", "not all"),
            ("f", "out of a, b, c, d, e"),
        ],
    ),
    "06-2": Case(
        right=[MOVED, torch.tensor(MOVED), round(MOVED, 4)],
        wrong=[
            (0, "k-means"),
            (MOVED / 2, "share"),
            (2 - MOVED, "other mean"),
            (1.0, "meet in the middle"),
            (2 / (1 + math.exp(4)), "a half"),
            (2 / (1 + math.e), "square, halved"),
        ],
    ),
    "06-3": Case(
        right=[_elbo, _elbo_by_divergence],
        wrong=[
            (lambda a, tau: (tau * a).sum(), "this is Q"),
            (lambda a, tau: (tau * (a - tau.log())).sum(), "0 log 0"),
            (lambda a, tau: _elbo(a, tau) / len(a), "over N"),
            (lambda a, tau: a.logsumexp(1).sum(), "depends on the shares"),
            (lambda a, tau: (tau * a + torch.xlogy(tau, tau)).sum(), "sign of the second"),
            (lambda a, tau: (tau * a - torch.xlogy(tau, tau)).sum(1), "one number"),
        ],
    ),
    "06-4": Case(
        right=[_step_by_copies, _step_as_list],
        wrong=[
            (_step_transposed, "transposed"),
            (_step_of_log_weights, "Bayes"),
            (_step_unweighted, "not used"),
            (_step_over_n, "sum to 1"),
            (_step_with_variances, "variances"),
            (_step_without_points_weights, "no sum over points"),
        ],
    ),
    "06-5": Case(
        right=[LIMIT, 1.5, torch.tensor(1.5)],
        wrong=[
            (1.42, "begins with gamma"),
            (0.32, "what is left"),
            (1.74, "one more step"),
            (1.756, "how many follow"),
            (2.22, "less than 1"),
        ],
    ),
    "06-6": Case(
        right=[STARTS, torch.tensor(STARTS), float(STARTS)],
        wrong=[
            (10, "on average"),
            (STARTS - 1, "one short"),
            (STARTS + 1, "the smallest"),
            (math.log(0.01) / math.log(0.9), "rounded"),
            (43.7, "rounded"),
            (43.71, "rounded"),
            (22, "0.9"),
            (99, "multiply"),
        ],
    ),
    "06-7": Case(
        right=[_square],
        wrong=[
            (_square_without_spread, "as if it had been observed"),
            (_square_with_sigma, "takes away"),
            (_square_of_means, "fills in the mean"),
            (_square_in_place, "changes its arguments"),
        ],
    ),
}
