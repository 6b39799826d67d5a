"""What an answer can be checked against: a value, intervals, a choice, a function, demands.

A checker knows the right answer and the mistakes that people make. Where an answer is neither, it
looks for the kind of error: shape, sign, a factor, a power, a constant, normalization, order.

What can be typed, numbers and letters, is checked on the pages of the site too, where no kernel
runs. What decides there is data: ``typed()`` has the rules of one exercise, ``PHRASES`` what is
said of every one; ``book/_static/exercises.js`` reads them.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

Function = Callable[..., Any]

#: What is said of an answer to any exercise, here and on the pages.
PHRASES = {
    "right": "right.",
    "wrong": "not yet.",
    "not all": "what you chose is right, and it is not all.",
    "nan": "a log or a root of a negative number, or 0 / 0?",
    "infinite": "it is infinite where it should not be: "
    "an overflow, an underflow before a log, or a division by zero?",
    "transposed": "it is transposed.",
    "turned": "it is what is wanted, turned or reflected by an orthogonal matrix.",
    "negative": "some of the numbers are negative, and none should be.",
    "sum": "normalization: the numbers of the last dimension should sum to 1, and do not.",
    "order": "the numbers are right and their order is not.",
    "close": "close. Keep more digits on the way.",
    "shift": "every entry is off by the same constant: is a term missing?",
    "factor": "every entry is off by the same factor.",
}


@dataclass(frozen=True)
class Verdict:
    """What ``check`` says of an answer; true when it is right, and its text says why when not."""

    identifier: str
    right: bool
    message: str

    def __bool__(self) -> bool:
        return self.right

    def __repr__(self) -> str:
        return f"{self.identifier}: {self.message}"


class Unreadable(Exception):
    """An answer of the wrong kind; its message is a line for the reader."""


@dataclass(frozen=True, kw_only=True)
class Checker(ABC):
    """praise: what to say of a right answer, one sentence that closes the exercise's thought.
    hint: where to look again when an answer is wrong in no way that is known."""

    praise: str = ""
    hint: str = "Go back to the equation that the exercise names and do one step at a time."

    def verdict(self, identifier: str, answer: Any) -> Verdict:
        """Never raises: whatever goes wrong is a line of the verdict."""
        if answer is None or answer is Ellipsis:
            return Verdict(
                identifier, False, "no answer yet. Put yours in the place of the three dots."
            )
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                problem = self.problem(answer)
        except Unreadable as unreadable:
            problem = str(unreadable)
        except Exception as error:
            problem = (
                f"this answer, {_article(answer)}, could not be read "
                f"({_summary(error)}). Look again at what the exercise asks for."
            )
        if problem is None:
            return Verdict(identifier, True, f"{PHRASES['right']} {self.praise}".rstrip())
        problem = f"{problem[:1].upper()}{problem[1:]}"
        return Verdict(identifier, False, f"{PHRASES['wrong']} {problem}")

    @abstractmethod
    def problem(self, answer: Any) -> str | None:
        """What is wrong with the answer, or None when it is right."""

    def typed(self) -> dict[str, Any] | None:
        """The rules for an answer that is typed, as JSON takes them; None where it takes code."""
        return None


@dataclass(frozen=True)
class Rule:
    """An answer between two others, entry by entry, and what to say of it; None: it is right."""

    low: Tensor
    high: Tensor
    say: str | None

    @classmethod
    def about(cls, value: Any, tolerance: float, say: str | None) -> Rule:
        """tolerance: relative to the largest finite number of the value."""
        center = _tensor(value, "")
        finite = center[center.isfinite()]
        within = tolerance * (float(finite.abs().max()) if finite.numel() else 0.0) + 1e-12
        return cls(center - within, center + within, say)

    def holds(self, given: Tensor) -> bool:
        if given.shape != self.low.shape:
            return False
        inside = (given >= self.low) & (given <= self.high)
        return bool((inside | (given.isnan() & self.low.isnan())).all())

    def typed(self) -> dict[str, Any]:
        """Where it has no bound there is null."""
        return {"low": _finite(self.low), "high": _finite(self.high), "say": self.say}


@dataclass(frozen=True, kw_only=True)
class Value(Checker):
    """A number or a tensor.

    expected: the right answer. mistakes: pairs of (the answer that a mistake leads to, what to
    say of it). tolerance: relative to the largest number expected.
    """

    expected: Any
    mistakes: Sequence[tuple[Any, str]] = ()
    tolerance: float = 2e-3

    def problem(self, answer: Any) -> str | None:
        if callable(answer) and not isinstance(answer, Tensor):
            raise Unreadable("this is a function; call it and check what it returns.")
        expected, given = _tensor(self.expected, ""), _tensor(answer, "the answer")
        return _difference(given, expected, self.mistakes, self.tolerance, self.hint)

    def typed(self) -> dict[str, Any]:
        expected = _tensor(self.expected, "")
        known, usual = (
            [rule.typed() for rule in rules if rule.low.shape == expected.shape]
            for rules in (
                _known(expected, self.mistakes, self.tolerance),
                _usual(expected, self.tolerance),
            )
        )
        return {
            "kind": "numbers",
            "shape": list(expected.shape),
            "expected": _finite(expected),
            "tolerance": self.tolerance,
            "rules": known,
            "usual": usual,
            "hint": self.hint,
            "praise": self.praise,
        }


@dataclass(frozen=True, kw_only=True)
class Interval(Checker):
    """One number, which is right between two others.

    right: the ends of the interval. others: triples of (low, high, what to say of a number between
    them), in order; the first decides.
    """

    right: tuple[float, float]
    others: Sequence[tuple[float, float, str]]

    def _rules(self) -> list[Rule]:
        intervals = [(*self.right, None), *self.others]
        return [Rule(_tensor(low, ""), _tensor(high, ""), say) for low, high, say in intervals]

    def problem(self, answer: Any) -> str | None:
        if callable(answer) and not isinstance(answer, Tensor):
            raise Unreadable("one number is wanted, and this is a function.")
        given = _tensor(answer, "the answer")
        if given.numel() != 1:
            return _shape_problem(given, torch.tensor(0.0))
        given = given.reshape(())
        if not given.isfinite():
            return "a finite number is wanted."
        return next((rule.say for rule in self._rules() if rule.holds(given)), self.hint)

    def typed(self) -> dict[str, Any]:
        return {
            "kind": "numbers",
            "shape": [],
            "rules": [rule.typed() for rule in self._rules()],
            "usual": [],
            "hint": self.hint,
            "praise": self.praise,
        }


@dataclass(frozen=True, kw_only=True)
class Later(Checker):
    """A checker that is made when it is first asked, because its answer takes a computation.

    praise: this one's, and not that of what it makes.
    """

    make: Callable[[], Checker]

    @cached_property
    def _made(self) -> Checker:
        return self.make()

    def problem(self, answer: Any) -> str | None:
        return self._made.problem(answer)

    def typed(self) -> dict[str, Any] | None:
        rules = self._made.typed()
        return rules and {**rules, "praise": self.praise}


@dataclass(frozen=True, kw_only=True)
class Code(Checker):
    """A function that the reader writes.

    reference: a function that is right. cases: pairs of (what is special about these arguments,
    the arguments), tried in order; the reader is told which case fails. mistakes: pairs of (a
    function that is wrong, what to say of it).
    """

    reference: Function
    cases: Sequence[tuple[str, Sequence[Any]]]
    mistakes: Sequence[tuple[Function, str]] = ()
    tolerance: float = 1e-6

    def problem(self, answer: Any) -> str | None:
        if not callable(answer) or isinstance(answer, type | torch.nn.Module):
            raise Unreadable(
                f"the exercise asks for a function, and this is {_article(answer)}; "
                "give its name without calling it."
            )
        for place, (name, arguments) in enumerate(self.cases):
            given = call(answer, arguments, name)
            expected = _tensor(self.reference(*_copies(arguments)), "")
            mistakes = [(function(*_copies(arguments)), text) for function, text in self.mistakes]
            found = _difference(given, expected, mistakes, self.tolerance, self.hint)
            if found is not None:
                before = "Right until now, but with" if place else "With"
                return f"{before} {name}: {found}"
        return None


@dataclass(frozen=True, kw_only=True)
class Choice(Checker):
    """One letter, or several as in "ac".

    right: the letters that are right. others: what to say of each wrong letter. missing: where to
    look for a right letter that was left out.
    """

    right: str
    others: Mapping[str, str]
    missing: Mapping[str, str] = field(default_factory=dict)

    def problem(self, answer: Any) -> str | None:
        letters = sorted({*self.right, *self.others})
        if isinstance(answer, list | tuple | set):
            answer = "".join(str(letter) for letter in answer)
        if not isinstance(answer, str):
            raise Unreadable(
                f"the exercise asks for letters out of {', '.join(letters)}, "
                f"in quotes; this is {_article(answer)}."
            )
        given = {letter for letter in answer.lower() if letter.isalnum()}
        if not given or given - set(letters):
            raise Unreadable(f"give the letters of your answers, out of {', '.join(letters)}.")
        for letter in sorted(given - set(self.right)):
            return f"({letter}) {self.others[letter]}"
        for letter in self.right:
            if letter not in given:
                return f"{PHRASES['not all']} {self.missing.get(letter, '')}".rstrip()
        return None

    def typed(self) -> dict[str, Any]:
        return {
            "kind": "letters",
            "letters": sorted({*self.right, *self.others}),
            "right": self.right,
            "others": dict(self.others),
            "missing": dict(self.missing),
            "praise": self.praise,
        }


@dataclass(frozen=True, kw_only=True)
class Demands(Checker):
    """An answer that is not unique: anything that meets all demands.

    demands: pairs of (a test of the answer, what to say when it fails), in order. read: turns the
    answer into what the tests take; by default a float64 tensor.
    """

    demands: Sequence[tuple[Callable[[Any], bool], str]]
    read: Callable[[Any], Any] = field(default=lambda answer: _tensor(answer, "the answer"))

    def problem(self, answer: Any) -> str | None:
        value = self.read(answer)
        for meets, text in self.demands:
            if not bool(meets(value)):
                return text
        return None


def call(function: Function, arguments: Sequence[Any], name: str) -> Tensor:
    """The reader's function at copies of the arguments, as a tensor; a line when that fails."""
    copies = _copies(arguments)
    shapes = ", ".join(_kind(argument) for argument in arguments)
    try:
        value = function(*copies)
    except Exception as error:
        raise Unreadable(
            f"your function raised {_summary(error)}, with {name} (arguments: {shapes})."
        ) from None
    if value is None:
        raise Unreadable("your function returned None; does it end with `return`?")
    for copy, argument in zip(copies, arguments, strict=True):
        if isinstance(argument, Tensor) and not _same(copy, argument):
            raise Unreadable("your function changes its arguments; work on copies of them.")
    return _tensor(value, "what your function returned")


def _difference(
    given: Tensor,
    expected: Tensor,
    mistakes: Sequence[tuple[Any, str]],
    tolerance: float,
    hint: str = "",
) -> str | None:
    """What sets an answer apart from the right one, or None where nothing does."""
    if expected.ndim == 0 and given.numel() == 1:
        given = given.reshape(())
    if given.shape != expected.shape:
        return _shape_problem(given, expected)
    for rule in _known(expected, mistakes, tolerance):
        if rule.holds(given):
            return rule.say
    if unnormalized := _normalization(given, expected, tolerance):
        return PHRASES[unnormalized]
    for rule in _usual(expected, tolerance):
        if rule.holds(given):
            return rule.say
    if bool(given.isnan().any()):
        return f"there are {int(given.isnan().sum())} NaN in it: {PHRASES['nan']}"
    if bool((given.isinf() & expected.isfinite()).any()):
        return PHRASES["infinite"]
    relation = _relation(given, expected, tolerance)
    return PHRASES[relation] if relation else hint


def _shape_problem(given: Tensor, expected: Tensor) -> str:
    got, wanted = tuple(given.shape), tuple(expected.shape)
    if not wanted:
        return f"one number is wanted, and this has shape {got}."
    line = f"the shape should be {wanted} and is {got}."
    if got == wanted[::-1]:
        line += " Is it transposed?"
    elif given.numel() == expected.numel():
        line += " Reshape it."
    return line


#: Factors that have a name, so that saying them says where to look and not what the answer is.
_FACTORS = (
    (2.0, "2"),
    (0.5, "1/2"),
    (2 * math.pi, "2 pi"),
    (1 / (2 * math.pi), "1/(2 pi)"),
    (math.sqrt(2 * math.pi), "the root of 2 pi"),
    (1 / math.sqrt(2 * math.pi), "one over the root of 2 pi"),
    (math.pi, "pi"),
    (100.0, "100 (a percentage?)"),
    (1 / math.log(2), "1/log 2 (bits, and not nats?)"),
    (math.log(2), "log 2 (bits and nats?)"),
    (1 / math.log(10), "1/log 10 (the logarithm to base 10?)"),
)


def _known(
    expected: Tensor, mistakes: Sequence[tuple[Any, str]], tolerance: float
) -> Iterator[Rule]:
    """What an exercise itself says of an answer: the first rule that holds."""
    yield Rule.about(expected, tolerance, None)
    for value, say in mistakes:
        yield Rule.about(value, tolerance, say)


def _usual(expected: Tensor, tolerance: float) -> Iterator[Rule]:
    """What is said of an answer to any exercise: the first rule that holds."""
    for value, say in _usual_mistakes(expected):
        if bool((value.isfinite() | ~expected.isfinite()).all()):
            yield Rule.about(value, tolerance, say)
    # More digits are of no use to a whole number.
    if expected.ndim == 0 and tolerance > 1e-5:
        near = 0.03 * expected.abs()
        yield Rule(expected - near, expected + near, PHRASES["close"])


def _usual_mistakes(expected: Tensor) -> Iterator[tuple[Tensor, str]]:
    yield -expected, "the sign is wrong, and nothing else."
    for factor, name in _FACTORS:
        yield factor * expected, f"it is off by a factor of {name}."
    variance = "(a variance, and not a standard deviation?)"
    yield expected.square(), f"it is the square of what is wanted {variance}."
    if bool((expected >= 0).all()):
        deviation = "(a standard deviation, and not a variance?)"
        yield expected.sqrt(), f"it is the square root of what is wanted {deviation}."
    if bool((expected != 0).all()):
        yield 1 / expected, "it is one over what is wanted."
    yield expected.exp(), "the logarithm is wanted, and this is the number itself."
    if bool((expected > 0).all()):
        yield expected.log(), "this is the logarithm of what is wanted."


def _normalization(given: Tensor, expected: Tensor, tolerance: float) -> str | None:
    """What keeps an answer from being shares that sum to 1, where shares are wanted."""
    shares = bool(((expected > 0) & (expected < 1)).any()) and not bool((expected < 0).any())
    if expected.ndim == 0 or not shares or not _sums_to_one(expected, tolerance):
        return None
    if bool((given < -1e-12).any()):
        return "negative"
    return None if _sums_to_one(given, tolerance) else "sum"


def _relation(given: Tensor, expected: Tensor, tolerance: float) -> str | None:
    """How all entries together differ, where it is one of the usual ways: a key of PHRASES."""
    if expected.ndim == 0:
        return None
    if (
        expected.ndim == 2
        and given.shape == given.mT.shape
        and _close(given.mT, expected, tolerance)
    ):
        return "transposed"
    if (
        expected.ndim == 2
        and expected.shape == expected.mT.shape
        and _close(given.mT @ given, expected.mT @ expected, tolerance)
    ):
        return "turned"
    if _close(given.flatten().sort().values, expected.flatten().sort().values, tolerance):
        return "order"
    shift = given - expected
    if given.numel() > 1 and _close(shift, shift.mean().expand_as(shift), tolerance):
        return "shift"
    ratio = given / expected
    if bool(ratio.isfinite().all()) and given.numel() > 1:
        if bool(((ratio - 1).abs() <= 10 * tolerance).all()):
            return "close"
        if _close(ratio, ratio.mean().expand_as(ratio), tolerance):
            return "factor"
    return None


def _sums_to_one(values: Tensor, tolerance: float) -> bool:
    sums = values.sum(-1)
    return values.shape[-1] > 1 and _close(sums, torch.ones_like(sums), tolerance)


def _close(given: Tensor, wanted: Tensor, tolerance: float) -> bool:
    return Rule.about(wanted, tolerance, None).holds(given)


def _finite(values: Tensor) -> Any:
    """Numbers or lists of them, with null for what JSON cannot say."""
    if values.ndim:
        return [_finite(value) for value in values]
    return values.item() if values.isfinite() else None


def _tensor(value: Any, what: str) -> Tensor:
    if isinstance(value, str):
        raise Unreadable(f"{what} should be a number or a tensor, and is text: drop the quotes.")
    if callable(value) and not isinstance(value, Tensor):
        raise Unreadable(f"{what} should be a number or a tensor, and is a function.")
    try:
        if isinstance(value, Tensor):
            tensor = value.detach()
        elif isinstance(value, list | tuple) and any(isinstance(v, Tensor) for v in value):
            tensor = torch.stack([torch.as_tensor(v).detach() for v in value])
        else:
            tensor = torch.as_tensor(value)
    except Exception:
        raise Unreadable(
            f"{what} should be a number or a tensor, and is {_article(value)}."
        ) from None
    if tensor.is_complex():
        raise Unreadable(f"{what} should be real, and is complex.")
    return tensor.to("cpu", torch.float64)


def _same(one: Tensor, other: Tensor) -> bool:
    """Entry by entry; a missing value, NaN, is the same as itself."""
    if one.shape != other.shape:
        return False
    return bool(((one == other) | (one.isnan() & other.isnan())).all())


def _copies(arguments: Sequence[Any]) -> list[Any]:
    return [a.clone() if isinstance(a, Tensor) else a for a in arguments]


def _kind(argument: Any) -> str:
    if isinstance(argument, Tensor):
        return f"a tensor of shape {tuple(argument.shape)}"
    return f"{argument!r:.40}"


def _summary(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:120]}" if text else type(error).__name__


def _article(value: Any) -> str:
    """The type of a value, as a sentence has it: "a str", "an int"."""
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
