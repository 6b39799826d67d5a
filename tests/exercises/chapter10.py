"""Answers to the exercises of chapter 10, right and wrong."""

from __future__ import annotations

import math

import torch
from scipy.optimize import brentq
from scipy.stats import norm
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, Normal

from exercises.cases import Case


def _by_torch(logits: Tensor, means: Tensor, log_sds: Tensor, t: Tensor) -> Tensor:
    mixing = Categorical(logits=logits)
    return MixtureSameFamily(mixing, Normal(means, log_sds.exp())).log_prob(t)


def _by_scipy(weights: Tensor, means: Tensor, sds: Tensor, u: Tensor) -> Tensor:
    """Each root of F(t) - u by itself."""

    def excess(t: float, level: float) -> float:
        return float((weights.numpy() * norm.cdf(t, means.numpy(), sds.numpy())).sum()) - level

    roots = [brentq(excess, -1e3, 1e3, args=(float(level),), xtol=1e-13) for level in u]
    return torch.tensor(roots, dtype=u.dtype)


def _by_a_fixed_bracket(weights: Tensor, means: Tensor, sds: Tensor, u: Tensor) -> Tensor:
    mixture = MixtureSameFamily(Categorical(weights), Normal(means, sds))
    low, high = torch.full_like(u, -200.0), torch.full_like(u, 200.0)
    for _ in range(60):
        middle = (low + high) / 2
        more = mixture.cdf(middle) < u
        low, high = torch.where(more, middle, low), torch.where(more, high, middle)
    return low


def _moment_matched(weights: Tensor, means: Tensor, sds: Tensor, u: Tensor) -> Tensor:
    mixture = MixtureSameFamily(Categorical(weights), Normal(means, sds))
    return Normal(mixture.mean, mixture.variance.sqrt()).icdf(u)


def _slopes_by_autograd() -> Tensor:
    """In the first logit, mean and log standard deviation."""
    logits = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    means = torch.tensor([[0.0, 2.0]], dtype=torch.float64, requires_grad=True)
    log_sds = torch.tensor([[1.0, 0.5]], dtype=torch.float64).log().requires_grad_()
    with torch.enable_grad():
        t = torch.tensor([1.5], dtype=torch.float64)
        loss = -_by_torch(logits, means, log_sds, t).sum()
        slopes = torch.autograd.grad(loss, (logits, means, log_sds))
    return torch.stack([slope[0, 0] for slope in slopes])


_SLOPES = _slopes_by_autograd()
_R = 0.5 - float(_SLOPES[0])

CASES = {
    "10-1": Case(
        right=[3250, 3250.0, torch.tensor(3250)],
        wrong=[(3200, "bias"), (50, "outputs"), (2275, "diagonal"), (1690, "tied")],
    ),
    "10-2": Case(
        right=[_SLOPES, _SLOPES.tolist(), [round(float(v), 4) for v in _SLOPES]],
        wrong=[
            (-_SLOPES, "negative"),
            ([0.0, -0.75, -0.625], "not its weight"),
            ([0.5 - _R, -1.5, -1.25], "weighted"),
            ([_R - 0.5, -1.5 * (1 - _R), -1.25 * (1 - _R)], "other component"),
        ],
    ),
    "10-3": Case(
        right=[0.39, 0.3905, torch.tensor(0.39)],
        wrong=[(0.511, "squared"), (0.3455, "longer"), (0.58, "gap"), (0.631, "gap")],
    ),
    "10-4": Case(
        right=[_by_scipy, _by_a_fixed_bracket],
        wrong=[
            (lambda w, m, s, u: (w * Normal(m, s).icdf(u[:, None])).sum(1), "average"),
            (_moment_matched, "one normal"),
            (lambda w, m, s, u: _by_scipy(w, m, s, 1 - u), "above"),
            (lambda w, m, s, u: _by_scipy(w, m, s.sqrt(), u), "root"),
            (lambda w, m, s, u: _by_scipy(w * 0 + 1 / len(w), m, s, u), "weight"),
            (lambda w, m, s, u: _by_scipy(w, m, s, u) * 0 + 1, "middle"),
        ],
    ),
    "10-5": Case(right=["b", "B"], wrong=[("a", "middle"), ("c", "one side"), ("d", "even")]),
    "10-6": Case(
        right=[math.sqrt(2 / math.pi) - 1 / math.sqrt(math.pi), 0.2337, torch.tensor(0.23370)],
        wrong=[(0.7979, "two draws"), (-0.3305, "Half"), (0.3989, "variance 2")],
    ),
    "10-7": Case(
        right=[0.5 * math.log(7 / 3) - 2 * math.log(2) + 1, 0.0374, 0.03735],
        wrong=[(0.4236, "subtract"), (0.3863, "average"), (0.01917, "middle")],
    ),
}
