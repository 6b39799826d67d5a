"""Each exercise: right answers pass, typical wrong ones are told why, odd ones are told kindly."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from exercises.cases import Case
from gmmbook.exercises import check, identifiers
from gmmbook.exercises.checkers import Checker, Choice, Code, Value

CASES: dict[str, Case] = {}
for module in sorted(path.stem for path in Path(__file__).parent.glob("chapter*.py")):
    CASES |= import_module(f"exercises.{module}").CASES
EXERCISES: dict[str, Checker] = {}
for chapter in sorted({identifier[:2] for identifier in CASES}):
    EXERCISES |= import_module(f"gmmbook.exercises.chapter{chapter}").EXERCISES


def _kind(identifier: str) -> Any:
    """What decides how a checker takes an odd answer; demands are each exercise's own."""
    checker = EXERCISES[identifier]
    if isinstance(checker, Value):
        return Value, torch.as_tensor(checker.expected).ndim == 0
    return type(checker) if isinstance(checker, Code | Choice) else identifier


#: The first exercise of each kind.
KINDS = {_kind(identifier): identifier for identifier in reversed(CASES)}.values()


def _raises(*_: Any) -> None:
    raise RuntimeError("three\nlines\nlong")


class _Hostile:
    """Nothing that may be asked of it works."""

    def __getattr__(self, name: str) -> Any:
        raise OSError(name)

    def __eq__(self, other: object) -> bool:
        raise OSError("==")

    def __repr__(self) -> str:
        raise OSError("repr")


ODD: dict[str, Any] = {
    "None": None,
    "Ellipsis": ...,
    "a text": "the mean",
    "an empty text": "",
    "bytes": b"3",
    "a complex number": 1j,
    "a list of texts": ["x", "y"],
    "a ragged list": [[1.0], [1.0, 2.0]],
    "a dictionary": {"a": 1},
    "an empty tensor": torch.zeros(0),
    "a tensor of odd shape": torch.zeros(1, 7, 1, 3),
    "NaN": float("nan"),
    "infinity": float("inf"),
    "a tensor of NaN": torch.full((2, 2), torch.nan),
    "a boolean": True,
    "a class": dict,
    "a module": torch.nn.Identity(),
    "a function that raises": _raises,
    "a function without arguments": lambda: None,
    "a function that returns None": lambda *_: None,
    "a function that returns text": lambda *_: "text",
    "a function that returns NaN": lambda *_: torch.full((2,), torch.nan),
    "a hostile object": _Hostile(),
}
RIGHT = [(name, i) for name, case in CASES.items() for i in range(len(case.right))]
WRONG = [(name, i) for name, case in CASES.items() for i in range(len(case.wrong))]


def test_every_exercise_has_its_cases() -> None:
    assert list(CASES) == identifiers()


@pytest.mark.parametrize("identifier", CASES)
def test_a_case_has_a_right_answer_and_three_wrong_ones(identifier: str) -> None:
    assert CASES[identifier].right
    assert len(CASES[identifier].wrong) >= 3


@pytest.mark.parametrize(("identifier", "i"), RIGHT)
def test_a_right_answer_is_right(identifier: str, i: int) -> None:
    verdict = check(identifier, CASES[identifier].right[i])
    assert verdict.right and verdict, verdict
    assert f"{verdict}".startswith(f"{identifier}: right.")


@pytest.mark.parametrize(("identifier", "i"), WRONG)
def test_a_wrong_answer_is_told_why(identifier: str, i: int) -> None:
    answer, why = CASES[identifier].wrong[i]
    verdict = check(identifier, answer)
    assert not verdict.right and not verdict
    assert why.lower() in verdict.message.lower(), verdict


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("identifier", KINDS)
def test_an_odd_answer_gets_a_line_and_no_traceback(identifier: str, odd: str) -> None:
    verdict = check(identifier, ODD[odd])
    assert not verdict.right, verdict
    assert len(verdict.message) > 15 and "\n" not in verdict.message
    assert "Traceback" not in verdict.message


def test_an_unknown_exercise_is_named() -> None:
    with pytest.raises(ValueError, match="no exercise '99-1'"):
        check("99-1", 0)
