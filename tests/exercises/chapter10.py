"""Answers to the exercises of chapter 10, right and wrong."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, Normal

from exercises.cases import Case


def _by_torch(logits: Tensor, means: Tensor, log_sds: Tensor, t: Tensor) -> Tensor:
    mixing = Categorical(logits=logits)
    return MixtureSameFamily(mixing, Normal(means, log_sds.exp())).log_prob(t)


def _naive(logits: Tensor, means: Tensor, log_sds: Tensor, t: Tensor) -> Tensor:
    parts = Normal(means, log_sds.exp()).log_prob(t[:, None]).exp()
    return (logits.softmax(-1) * parts).sum(-1).log()


def _bound(logits: Tensor, means: Tensor, log_sds: Tensor, t: Tensor) -> Tensor:
    parts = Normal(means, log_sds.exp()).log_prob(t[:, None])
    return (logits.softmax(-1) * parts).sum(-1)


def _unnormalized(logits: Tensor, means: Tensor, log_sds: Tensor, t: Tensor) -> Tensor:
    return (logits + Normal(means, log_sds.exp()).log_prob(t[:, None])).logsumexp(-1)


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
        right=[_by_torch, lambda a, m, s, t: _unnormalized(a.log_softmax(-1), m, s, t)],
        wrong=[
            (_naive, "underflow"),
            (_bound, "bound"),
            (_unnormalized, "normalized"),
            (lambda a, m, s, t: _by_torch(a, m, s, t) * 0 + 1, "log_softmax"),
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
