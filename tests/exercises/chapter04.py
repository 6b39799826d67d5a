"""Answers to the exercises of chapter 04, right and wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import chi2
from torch import Tensor

from exercises.cases import Case


def step_ratio(sigma: Tensor) -> Tensor:
    """From the slopes by autograd, at the theta of either map that gives sigma."""
    squares = []
    with torch.enable_grad():
        for to_sigma, theta in (
            (torch.nn.functional.softplus, sigma + torch.log(-torch.expm1(-sigma))),
            (torch.exp, sigma.log()),
        ):
            theta = theta.detach().requires_grad_()
            squares.append(torch.autograd.grad(to_sigma(theta).sum(), theta)[0] ** 2)
    return squares[0] / squares[1]


def numpy_step_ratio(sigma: Tensor) -> Any:
    s = sigma.numpy()
    return (expit(s + np.log(-np.expm1(-s))) / s) ** 2


def covariances(theta: Tensor) -> Tensor:
    """Entry by entry."""
    num_dims = theta.shape[-1]
    out = []
    for t in theta.tolist():
        factor = [
            [np.exp(t[i][i]) if i == j else t[i][j] if i > j else 0.0 for j in range(num_dims)]
            for i in range(num_dims)
        ]
        out.append(np.array(factor) @ np.array(factor).T)
    return torch.tensor(np.stack(out))


def variances(x: Tensor, r: Tensor) -> Tensor:
    """numpy's weighted covariance, its mean diagonal."""
    per_component = [
        np.atleast_2d(np.cov(x.numpy().T, aweights=share, bias=True)) for share in r.numpy().T
    ]
    return torch.tensor([np.trace(c) / len(c) for c in per_component])


def equal_volume(scatters: Tensor, counts: Tensor) -> Tensor:
    """v found by a search over one number."""
    num_dims = scatters.shape[-1]
    shapes = torch.stack([s / torch.det(s) ** (1 / num_dims) for s in scatters])
    traces = sum(
        float(torch.trace(torch.linalg.inv(c) @ s)) for c, s in zip(shapes, scatters, strict=True)
    )

    def slope_in_size(size: float) -> float:
        return float(counts.sum()) * num_dims / size - traces / size**2

    return shapes * brentq(slope_in_size, 1e-6, 1e6, xtol=1e-13, rtol=1e-13)


half = brentq(lambda s: chi2.cdf(chi2.ppf(0.95, 2) / s, 2) - 0.5, 0.1, 100)

CASES = {
    "04-1": Case(
        right=[98, 98.0, torch.tensor(98), 3 + 40 + 55],
        wrong=[
            (99, "sum to 1"),
            (263, "each component"),
            (143, "symmetric"),
            (88, "diagonal"),
            (55, "included"),
            (95, "weights are missing"),
        ],
    ),
    "04-2": Case(
        right=["abde", "ABDE", "e, d, b, a"],
        wrong=[
            ("abcde", "stay diagonal"),
            ("abdef", "lengthens"),
            ("ab", "not all"),
            ("de", "not all"),
        ],
    ),
    "04-3": Case(
        right=[step_ratio, numpy_step_ratio, lambda s: ((1 - (-s).exp()) / s) ** 2],
        wrong=[
            (lambda s: (1 - (-s).exp()) / s, "how often"),
            (lambda s: (s / (1 - (-s).exp())) ** 2, "exp over that of softplus"),
            (lambda s: (1 - (-s).exp()) ** 2, "divide by what exp does"),
            (lambda s: (torch.sigmoid(s) / s) ** 2, "at theta"),
            (lambda s: 1 - (-s).exp(), "ratio of two steps"),
        ],
    ),
    "04-4": Case(
        right=[covariances],
        wrong=[
            (lambda t: t.tril() @ t.tril().mT, "exponential"),
            (lambda t: t.tril().exp() @ t.tril().exp().mT, "part below"),
            (lambda t: t.exp().tril() @ t.exp().tril().mT, "alone"),
            (lambda t: covariances(t)[0], "shape"),
            (lambda t: covariances(t) + t, "of each matrix"),
            (lambda t: torch.linalg.cholesky(covariances(t)), "square root"),
        ],
    ),
    "04-5": Case(
        right=[variances],
        wrong=[
            (lambda x, r: variances(x, r) * x.shape[1], "how many squared residuals"),
            (lambda x, r: variances(x, r) * r.mean(0), "divided by N"),
            (lambda x, r: variances(x, r).sqrt(), "standard deviation"),
            (lambda x, r: variances(x, r).mean(), "shape"),
        ],
    ),
    "04-6": Case(
        right=[half, 4.32, torch.tensor(half)],
        wrong=[
            (1 / half, "upside down"),
            (0.23, "upside down"),
            (half**2, "variance"),
            (2.0, "half of the radius"),
            (4.4, "close"),
        ],
    ),
    "04-7": Case(
        right=[equal_volume],
        wrong=[
            (lambda s, n: s / n[:, None, None], "full family"),
            (
                lambda s, n: equal_volume(s / n[:, None, None], torch.ones_like(n)),
                "without regard",
            ),
            (
                lambda s, n: s / torch.det(s)[:, None, None] ** (1 / s.shape[-1]),
                "factor v is missing",
            ),
            (lambda s, n: equal_volume(s, n) / s.shape[-1], "once too often"),
            (
                lambda s, n: (
                    s
                    / (torch.det(s) / torch.det(s.sum(0)))[:, None, None] ** (1 / s.shape[-1])
                    / n.sum()
                ),
                "once more",
            ),
        ],
    ),
}
