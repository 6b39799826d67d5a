"""Exercises that answer back: ``check("01-3", answer)``, offline, in a running notebook.

Each chapter's module holds its exercises under their identifiers, chapter and number; what a
checker can be is in ``checkers``. A verdict says right or wrong and why, and never the answer.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from gmmbook.exercises.checkers import Checker, Verdict

__all__ = ["Verdict", "check", "confirm", "identifiers", "typed"]


def check(identifier: str, answer: Any) -> Verdict:
    """Check an answer to the exercise with this identifier, "01-3" for the third of chapter 01.

    answer: what the exercise asks for: a number, a tensor, a function, a letter. Whatever it is,
    it is answered by a verdict and never by an exception. Raises ValueError when there is no
    exercise of that identifier.
    """
    return _checker(identifier).verdict(identifier, answer)


def confirm(identifier: str, answer: Any) -> None:
    """Hold a solution of the book to the check of its exercise; says nothing when it is right.

    A notebook that is run from top to bottom runs its solutions too, and so judges no reader.
    Raises AssertionError, with the verdict, when the answer is wrong.
    """
    verdict = check(identifier, answer)
    assert verdict, str(verdict)


def typed(identifier: str) -> dict[str, Any] | None:
    """What decides about an answer that is typed on a page; None where the answer is code.

    JSON takes it. Raises ValueError when there is no exercise of that identifier.
    """
    return _checker(identifier).typed()


def identifiers() -> list[str]:
    """The identifiers of all exercises, in the order of the book."""
    return [identifier for chapter in _chapters() for identifier in _of(chapter)]


def _checker(identifier: str) -> Checker:
    chapter = f"chapter{str(identifier).partition('-')[0]}"
    exercises = _of(chapter) if chapter in _chapters() else {}
    if identifier not in exercises:
        raise ValueError(
            f"no exercise {identifier!r}; there are {', '.join(identifiers())}. "
            'Give chapter and number, for example check("01-3", answer)'
        )
    return exercises[identifier]


def _chapters() -> list[str]:
    names = (module.name for module in iter_modules(__path__))
    return sorted(name for name in names if name.startswith("chapter"))


def _of(chapter: str) -> dict[str, Checker]:
    exercises: dict[str, Checker] = import_module(f"{__name__}.{chapter}").EXERCISES
    return exercises
