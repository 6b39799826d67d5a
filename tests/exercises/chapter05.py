"""Answers to the exercises of chapter 05, right and wrong."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from exercises.cases import Case


def smallest_weight(num_steps: int = 5_000, rate: float = 1e-4) -> float:
    """The schedule of torch, summed step by step, and the softmax of two logits."""
    leaf = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([leaf], lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    total = 0.0
    for _ in range(num_steps):
        total += float(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return float(torch.softmax(torch.tensor([-total, total]), 0)[0])


def slope_of_scale(residuals: Tensor, r: Tensor, sigma: float) -> Tensor:
    """Autograd of the surrogate's mean in theta."""
    with torch.enable_grad():
        theta = torch.tensor(math.log(sigma), dtype=torch.float64, requires_grad=True)
        density = torch.distributions.Normal(0.0, theta.exp())
        surrogate = -(r * density.log_prob(residuals).sum(-1)).sum(1).mean()
        return torch.autograd.grad(surrogate, theta)[0]


def adam_step(phi: Tensor, gradient: Tensor, m: Tensor, v: Tensor, t: int, rate: float) -> Tensor:
    """torch's optimizer, given the averages as its state."""
    with torch.enable_grad():
        leaf = phi.clone().requires_grad_()
    optimizer = torch.optim.Adam([leaf], lr=rate)
    optimizer.state[leaf] = {
        "step": torch.tensor(float(t - 1)),
        "exp_avg": m.clone(),
        "exp_avg_sq": v.clone(),
    }
    leaf.grad = gradient.clone()
    optimizer.step()
    return leaf.detach()


def condition(s: float) -> float:
    """Condition number of autograd's Hessian at the minimum, data of standard deviation s."""
    data = torch.tensor([-s, s], dtype=torch.float64) + 3

    def f(u: Tensor) -> Tensor:
        return (u[1] + 0.5 * ((data - u[0]) * (-u[1]).exp()) ** 2).mean()

    at = torch.tensor([3.0, math.log(s)], dtype=torch.float64)
    return float(torch.linalg.cond(torch.func.hessian(f)(at)))


def batch_size() -> int:
    """The batch whose mean has a sixteenth of the variance, by search over exact variances."""

    def variance(size: int) -> float:
        return (272 - size) / (271 * size)

    return min(range(1, 272), key=lambda size: abs(variance(size) - variance(16) / 16))


s = 13.5700
right_kappas = [condition(s), condition(s / 60)]
best = smallest_weight()
growth = torch.tensor((0.999 / 0.9) ** np.arange(-5_999, 1.0))
silence = torch.cat([torch.zeros(5_000), torch.ones(1)])

CASES = {
    "05-1": Case(
        right=[best, torch.tensor(best), 0.3775],
        wrong=[
            (1 / (1 + math.e), "half a cosine"),
            (1 / (1 + math.exp(0.25)), "one of the two logits"),
            (0.25, "logits that move"),
            (0.5 * math.exp(-0.5), "sum to 1"),
            (1 - best, "other component"),
            (0.45, "softmax"),
        ],
    ),
    "05-2": Case(
        right=["cd", "DC", ["c", "d"], "c, d"],
        wrong=[("acd", "1000 times"), ("bc", "linear"), ("cde", "memory"), ("c", "not all")],
    ),
    "05-3": Case(
        right=[slope_of_scale],
        wrong=[
            (lambda e, r, s: slope_of_scale(e, r, s) / s, "logarithm"),
            (
                lambda e, r, s: 1 - (r * (e / s).square().sum(-1)).sum(1).mean(),
                "each of them adds",
            ),
            (lambda e, r, s: len(r) * slope_of_scale(e, r, s), "mean over the points"),
            (lambda e, r, s: slope_of_scale(e, r, 1.0), "not whitened"),
            (lambda e, r, s: -slope_of_scale(e, r, s), "sign"),
        ],
    ),
    "05-4": Case(
        right=[adam_step],
        wrong=[
            (
                lambda p, g, m, v, t, rate: (
                    p - rate * (0.9 * m + 0.1 * g) / ((0.999 * v + 0.001 * g**2).sqrt() + 1e-8)
                ),
                "corrections",
            ),
            (lambda p, g, m, v, t, rate: 2 * p - adam_step(p, g, m, v, t, rate), "uphill"),
            (lambda p, g, m, v, t, rate: adam_step(p, g, m, v, t + 1, rate), "t counts from 1"),
            (lambda p, g, m, v, t, rate: p.add_(1), "changes its arguments"),
            (
                lambda p, g, m, v, t, rate: (
                    p
                    - rate
                    * ((0.9 * m + 0.1 * g) / (1 - 0.9**t))
                    / ((0.999 * v + 0.001 * g**2) / (1 - 0.999**t)).sqrt()
                ),
                "epsilon",
            ),
        ],
    ),
    "05-5": Case(
        right=[right_kappas, torch.tensor(right_kappas)],
        wrong=[
            (right_kappas[::-1], "minutes first"),
            ([s**2, 3600 / s**2], "theta"),
            ([2 * s**2, 2 * s**2 / 3600], "never below 1"),
            ([2.0, 2.0], "logarithm"),
            (right_kappas[0], "shape"),
        ],
    ),
    "05-6": Case(
        right=[batch_size(), 136.0, torch.tensor(136)],
        wrong=[
            (256, "with replacement"),
            (64, "standard deviation"),
            (272, "no noise"),
            (54.4, "a quarter"),
            (271, "this many draws"),
            (135, "one point short"),
            (137, "one point too many"),
        ],
    ),
    "05-7": Case(
        right=[growth, -3e5 * growth, growth.tolist(), growth[-5_000:]],
        wrong=[
            (torch.ones(5_000), "steady"),
            (growth.flip(0), "fades"),
            (silence, "single spike"),
            (growth[-1_000:], "short of 7"),
            (growth[None], "one dimension"),
            (torch.zeros(10), "nothing moves"),
        ],
    ),
}
