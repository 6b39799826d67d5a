"""Answers to the exercises of chapter 03, right and wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from scipy.special import logsumexp
from torch import Tensor

from exercises.cases import Case

F = 4.155382
# By quadrature of q log(q/p) on a fine grid, q standard normal.
_GRID = np.linspace(-30, 30, 500_001)


def _log_normal(sd: float) -> Any:
    return -0.5 * (_GRID / sd) ** 2 - math.log(sd * math.sqrt(2 * math.pi))


def _divergence(q: float, p: float) -> float:
    log_q, log_p = _log_normal(q), _log_normal(p)
    return float((np.exp(log_q) * (log_q - log_p)).sum() * (_GRID[1] - _GRID[0]))


WIDE, NARROW = _divergence(1, 3), _divergence(1, 1 / 3)


def _lse(a: Tensor) -> Tensor:
    return a.logsumexp(-1)


def _lse_by_scipy(a: Tensor) -> Any:
    return logsumexp(a.numpy(), axis=-1)


def _lse_by_steps(a: Tensor) -> Tensor:
    total = a[:, 0]
    for column in a.mT[1:]:
        total = torch.logaddexp(total, column)
    return total


def _lse_shifted(a: Tensor) -> Tensor:
    m = a.max(-1, keepdim=True).values
    return (m + (a - m).exp().sum(-1, keepdim=True).log()).squeeze(-1)


def _lse_not_put_back(a: Tensor) -> Tensor:
    return (a - a.max(-1, keepdim=True).values).exp().sum(-1).log()


def _lse_in_place(a: Tensor) -> Tensor:
    m = a.amax(-1, keepdim=True)
    a -= m
    return m.squeeze(-1) + a.exp().sum(-1).log()


def _lse_shifted_and_padded(a: Tensor) -> Tensor:
    m = a.max(-1).values
    return m + ((a.mT - m).exp().sum(0) + 1e-10).log()


@torch.enable_grad()
def _gradient(x: Tensor, weights: Tensor, means: Tensor, sds: Tensor) -> Tensor:
    means = means.clone().requires_grad_()
    log_normal = torch.distributions.Normal(means, sds).log_prob(x[:, None])
    nll = -(weights.log() + log_normal).logsumexp(1).mean()
    return torch.autograd.grad(nll, means)[0]


def _gradient_naive(x: Tensor, weights: Tensor, means: Tensor, sds: Tensor) -> Tensor:
    z = (x[:, None] - means) / sds
    density = weights * (-0.5 * z**2).exp() / sds
    r = density / density.sum(1, keepdim=True)
    return -(r * z / sds).mean(0)


def _gradient_without_weights(x: Tensor, weights: Tensor, means: Tensor, sds: Tensor) -> Tensor:
    return _gradient(x, torch.full_like(weights, 1 / len(weights)), means, sds)


def _best_weights() -> Tensor:
    from gmmedu import load_old_faithful

    wait = load_old_faithful()[:, 1:]
    centers = torch.tensor([50.0, 60.0, 70.0, 80.0, 90.0], dtype=torch.float64)
    density = torch.distributions.Normal(centers, 6.0).log_prob(wait).exp()
    weights = torch.full((5,), 0.2, dtype=torch.float64)
    for _ in range(3000):
        weights = (weights * density / (density @ weights)[:, None]).mean(0)
    return weights


BEST = _best_weights()


CASES = {
    "03-1": Case(
        right=[F + math.log(60), round(F + math.log(60), 3), torch.tensor(F + math.log(60))],
        wrong=[
            (F - math.log(60), "larger or smaller"),
            (F + 2 * math.log(60), "only one"),
            (F, "units"),
            (60 * F, "logarithm"),
            (8.2, "close"),
        ],
    ),
    "03-2": Case(
        right=["ad", "da", "A, D", "a d", ["a", "d"]],
        wrong=[
            ("a", "not all"),
            ("abd", "less noisy"),
            ("acd", "float64 hold"),
            ("de", "look at the sign"),
            ("f", "letter"),
        ],
    ),
    "03-3": Case(
        right=[[WIDE, NARROW], torch.tensor([WIDE, NARROW]), np.array([WIDE, NARROW])],
        wrong=[
            ([_divergence(3, 1), _divergence(1 / 3, 1)], "average must be over q"),
            ([WIDE + 1.4189385, NARROW + 1.4189385], "cross entropy"),
            ([_divergence(1, math.sqrt(3)), _divergence(1, math.sqrt(1 / 3))], "not variances"),
            ([WIDE / math.log(2), NARROW / math.log(2)], "bits"),
            ([-WIDE, -NARROW], "sign"),
            (WIDE, "shape"),
        ],
    ),
    "03-4": Case(
        right=[_lse, _lse_by_scipy, _lse_by_steps],
        wrong=[
            (lambda a: a.exp().sum(-1).log(), "leaves the range"),
            (_lse_shifted, "infinity minus infinity"),
            (_lse_not_put_back, "put it back"),
            (lambda a: (a.exp().sum(-1) + 1e-8).log(), "added inside"),
            (lambda a: (a.exp().sum(-1) + 1e-12).log(), "added inside"),
            (_lse_shifted_and_padded, "added inside"),
            (_lse_in_place, "changes its arguments"),
            (lambda a: a.amax(-1), "maximum"),
            (lambda a: a.logsumexp(0), "shape"),
        ],
    ),
    "03-5": Case(
        right=[_gradient, lambda *a: _gradient(*a).tolist()],
        wrong=[
            (lambda *a: -_gradient(*a), "sign"),
            (lambda x, *a: len(x) * _gradient(x, *a), "sum over the points"),
            (_gradient_without_weights, "forget the mixing weights"),
            (lambda x, w, m, s: _gradient(x, w, m, s) * s, "power of the standard deviation"),
            (_gradient_naive, "NaN"),
            (lambda x, w, m, s: (m - x.mean()) / s**2, "all the points"),
        ],
    ),
    "03-6": Case(
        right=[-106.6, torch.tensor(-106.6)],
        wrong=[
            (-106.6 * math.log(10), "natural logarithm"),
            (106.6, "sign"),
            (-94.6, "from which width"),
            (-18.3, "15 times"),
            (1e-107, "logarithm"),
            (-8, "straight line"),
            (-100, "too coarse"),
        ],
    ),
    "03-7": Case(
        right=[BEST, BEST.tolist(), BEST + 1e-9],
        wrong=[
            (torch.full((5,), 0.2), "other weights"),
            (2 * BEST, "sum to 1"),
            (torch.tensor([0.3, 0.3, 0.1, 0.3, 0.1]), "sum to 1"),
            (BEST[:4] / BEST[:4].sum(), "(5,)"),
            (torch.tensor([0.4, 0.3, -0.2, 0.3, 0.2]), "negative"),
        ],
    ),
}
