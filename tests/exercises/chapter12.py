"""Answers to the exercises of chapter 12, right and wrong."""

from __future__ import annotations

import torch
from torch import Tensor

from exercises.cases import Case


def _by_inverse(J: Tensor, B: Tensor, v: Tensor) -> Tensor:
    whole = torch.linalg.inv(torch.eye(len(J), dtype=J.dtype) - J) @ B
    return v @ whole


def _not_transposed(J: Tensor, B: Tensor, v: Tensor) -> Tensor:
    return B.mT @ torch.linalg.inv(torch.eye(len(J), dtype=J.dtype) - J) @ v


def _by_autograd(J: Tensor, B: Tensor, v: Tensor) -> Tensor:
    identity = torch.eye(len(J), dtype=J.dtype)
    with torch.enable_grad():
        x = torch.zeros(B.shape[1], dtype=J.dtype, requires_grad=True)
        loss = v @ torch.linalg.solve(identity - J, B @ x)
        return torch.autograd.grad(loss, x)[0]


CASES = {
    "12-1": Case(
        right=[44, 44.0, torch.tensor(44)],
        wrong=[
            (43, "above 1 %"),
            (43.7087, "whole"),
            (43.7, "whole"),
            (45, "first time"),
            (22, "10 %"),
            (10, "0.35"),
        ],
    ),
    "12-2": Case(
        right=[[0.25, 0.25], torch.tensor([0.25, 0.25])],
        wrong=[
            ([1.0, 0.25], "quarter"),
            ([0.25, 0.75], "one is N"),
            ([0.25, 0.5], "log variance"),
            ([0.25, 0.433], "its log"),
        ],
    ),
    "12-3": Case(
        right=[0.4, torch.tensor(0.4)],
        wrong=[(0.8, "how many times"), (0.9, "subtract"), (1.8, "M-step"), (0.2, "one variance")],
    ),
    "12-4": Case(
        right=[_by_inverse, _by_autograd],
        wrong=[
            (
                lambda J, B, v: B.mT @ torch.linalg.inv(torch.eye(len(J)).to(J) - J) @ v,
                "transposed",
            ),
            (lambda J, B, v: B.mT @ v, "one-step"),
            (lambda J, B, v: B.mT @ (v + J.mT @ v), "two terms"),
            (lambda J, B, v: v.sum() + B[0] ** 2, "Two steps"),
        ],
    ),
    "12-5": Case(right=["b", "B"], wrong=[("a", "pulls"), ("c", "iterations"), ("d", "regular")]),
    "12-6": Case(
        right=[7.4, torch.tensor(7.4)],
        wrong=[(1.4, "differ"), (11.0, "as well"), (18.5, "ten"), (4.4, "too"), (2.0, "asked")],
    ),
    "12-7": Case(
        right=[[-0.3, -1 / 3], [-0.3, -0.3333]],
        wrong=[
            ([0.3, 1 / 3], "sign"),
            ([-1 / 3, -0.3], "other way"),
            ([-0.3, -0.3], "nine"),
        ],
    ),
}
