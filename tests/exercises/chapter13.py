"""Answers to the exercises of chapter 13, right and wrong."""

from __future__ import annotations

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from exercises.cases import Case


def _by_sklearn(strange: Tensor, usual: Tensor) -> float:
    odd = torch.cat([torch.ones(len(strange)), torch.zeros(len(usual))])
    return float(roc_auc_score(odd, torch.cat([strange, usual])))


def _by_loop(strange: Tensor, usual: Tensor) -> float:
    pairs = [(a > b) + 0.5 * (a == b) for a in strange.tolist() for b in usual.tolist()]
    return sum(pairs) / len(pairs)


CASES = {
    "13-1": Case(
        right=[0.3243, torch.tensor(12 / 37)],
        wrong=[(0.6667, "adjusted"), (0.615, "above and below"), (0.8333, "count pairs")],
    ),
    "13-2": Case(
        right=[0.4509, torch.tensor(0.4509)],
        wrong=[(0.5491, "p(A"), (0.8808, "shares"), (0.1, "before")],
    ),
    "13-3": Case(
        right=[0.631, 0.63096],
        wrong=[(0.01, "ten directions"), (0.398, "halved"), (1.585, "sign"), (0.794, "N / m")],
    ),
    "13-4": Case(
        right=[[0.4243, 0.7276], torch.tensor([0.4243, 0.7276])],
        wrong=[
            ([0.7276, 0.4243], "other way"),
            ([0.3, 0.7276], "root"),
            ([0.4243, 0.6], "too small"),
            ([0.4243, 0.8485], "do vary"),
        ],
    ),
    "13-5": Case(right=["b", "B"], wrong=[("a", "follow"), ("c", "segment"), ("d", "units")]),
    "13-6": Case(
        right=[_by_sklearn, _by_loop],
        wrong=[
            (lambda strange, usual: 1 - _by_loop(strange, usual), "other way"),
            (lambda strange, usual: (strange[:, None] > usual).double().mean(), "one half"),
            (lambda strange, usual: (strange[:, None] >= usual).double().mean(), "not one"),
            (lambda strange, usual: strange.mean() - usual.mean(), "all pairs"),
        ],
    ),
    "13-7": Case(
        right=[-0.3, torch.tensor(-0.3)],
        wrong=[(1.5, "units"), (0.3, "sign"), (3.3, "not taken")],
    ),
}
