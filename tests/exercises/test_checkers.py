"""What a checker says: right, or the kind of error, and never the answer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gmmbook.exercises.checkers import Checker, Choice, Code, Demands, Value

SHARES = torch.tensor([[0.2, 0.3, 0.5], [0.1, 0.8, 0.1]])
SQUARE = torch.tensor([[1.0, 2.0], [3.0, 5.0]])


def _say(checker: Checker, answer: Any) -> str:
    verdict = checker.verdict("00-0", answer)
    assert verdict.right == verdict.message.startswith("right.")
    return verdict.message


NUMBER = Value(
    expected=0.37, praise="So it is.", hint="Look again.", mistakes=[(0.9, "no, not so")]
)


@pytest.mark.parametrize(
    "answer",
    [0.37, 0.3702, np.float32(0.37), np.array([0.37]), torch.tensor(0.37), [0.37]],
    ids=str,
)
def test_a_number_is_right_in_every_form(answer: Any) -> None:
    assert _say(NUMBER, answer) == "right. So it is."


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (-0.37, "sign"),
        (0.74, "factor of 2."),
        (0.185, "1/2"),
        (0.37 * 2 * math.pi, "2 pi"),
        (37.0, "percentage"),
        (0.37**2, "square of"),
        (math.sqrt(0.37), "square root"),
        (1 / 0.37, "one over"),
        (math.exp(0.37), "logarithm is wanted"),
        (math.log(0.37), "this is the logarithm"),
        (0.375, "more digits"),
        (0.9, "no, not so"),
        (0.51, "Look again."),
        (torch.ones(2), "one number"),
        (math.nan, "NaN"),
        (math.inf, "infinite"),
        (lambda: 0.37, "call it"),
        ("0.37", "drop the quotes"),
        (None, "no answer yet"),
        (..., "no answer yet"),
    ],
    ids=lambda value: "a function" if callable(value) else str(value),
)
def test_a_wrong_number_is_told_what_is_wrong(answer: Any, line: str) -> None:
    message = _say(NUMBER, answer)
    assert line.lower() in message.lower()
    assert "0.37" not in message


@pytest.mark.parametrize(
    ("expected", "answer", "line"),
    [
        (SHARES, SHARES.mT, "transposed"),
        (SHARES, SHARES.flatten(), "Reshape"),
        (SHARES, SHARES[0], "shape should be (2, 3)"),
        (SHARES, SHARES * torch.tensor([[1.5], [0.7]]), "sum to 1"),
        (SHARES, SHARES[:, [2, 0, 1]], "order"),
        (SQUARE, SQUARE.mT, "transposed"),
        (SQUARE, SQUARE + 0.9189, "same constant"),
        (SQUARE, SQUARE * 1.7, "same factor"),
        (SQUARE, [[1.0, 2.0], [3.0, math.nan]], "1 NaN"),
    ],
)
def test_a_wrong_tensor_is_told_what_is_wrong(expected: Tensor, answer: Any, line: str) -> None:
    assert line.lower() in _say(Value(expected=expected), answer).lower()
    assert _say(Value(expected=expected), expected.tolist()).startswith("right")


LOG_MEAN_EXP = Code(
    reference=lambda x: x.logsumexp(0) - math.log(len(x)),
    cases=[("small numbers", [torch.tensor([0.0, 1.0])]), ("large", [torch.tensor([1e4, 1e4])])],
    mistakes=[(lambda x: x.logsumexp(0), "a mean, and not a sum")],
)


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (lambda x: x.exp().mean().log(), "Right until now, but with large: it is infinite"),
        (lambda x: x.logsumexp(0), "a mean, and not a sum"),
        (lambda x: -(x.logsumexp(0) - math.log(2)), "sign"),
        (lambda x: None, "returned None"),
        (lambda x: x.no_such_method(), "raised AttributeError"),
        (lambda x, y: x, "raised TypeError"),
        (lambda x: x.sub_(x.max()).exp().mean().log(), "changes its arguments"),
        (lambda x: "text", "drop the quotes"),
        (1.0, "asks for a function"),
        (torch.nn.Identity(), "asks for a function"),
    ],
)
def test_a_wrong_function_is_told_what_is_wrong(answer: Any, line: str) -> None:
    assert line.lower() in _say(LOG_MEAN_EXP, answer).lower()


def test_a_right_function_is_right_even_where_gradients_are_on() -> None:
    offset = torch.zeros(1, requires_grad=True)
    assert _say(LOG_MEAN_EXP, lambda x: (x + offset).logsumexp(0) - math.log(len(x))) == "right."


CHOICE = Choice(right="ac", others={"b": "that is another thing."})


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        ("ac", "right"),
        ("C, A", "right"),
        ("a", "not all"),
        ("b", "that is another"),
        ("abc", "that is another"),
        ("z", "out of a, b, c"),
        ("", "out of a, b, c"),
        (["a", "c"], "right"),
        (2, "asks for letters out of a, b, c, in quotes; this is an int"),
    ],
)
def test_a_choice(answer: Any, line: str) -> None:
    assert line.lower() in _say(CHOICE, answer).lower()


def test_demands_are_tried_in_order() -> None:
    demands = Demands(
        demands=[
            (lambda m: m.shape == (2, 2), "two by two, please"),
            (lambda m: bool(torch.linalg.det(m) < 0), "the determinant is not negative"),
        ]
    )
    assert "Two by two" in _say(demands, [1.0])
    assert "The determinant" in _say(demands, torch.eye(2))
    assert _say(demands, [[0.0, 1.0], [1.0, 0.0]]) == "right."
    assert "should be a number or a tensor" in _say(demands, {"a": 1})


def test_a_missing_value_in_an_argument_is_not_a_change() -> None:
    holed = torch.tensor([1.0, math.nan])
    checker = Code(reference=lambda x: x.nansum(), cases=[("a hole", (holed,))])
    assert checker.verdict("x", lambda x: x.nan_to_num().sum())
    told = checker.verdict("x", lambda x: x.nan_to_num_().sum())
    assert "changes its arguments" in told.message
