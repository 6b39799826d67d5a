"""Exercises answered on a page, in a real browser: told what the checker tells in a kernel."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from answers import form
from playwright.sync_api import Browser, Page, expect

from exercises.test_exercises import CASES
from gmmbook.exercises import check, identifiers, typed

pytestmark = pytest.mark.browser

SCRIPT = Path(__file__).resolve().parents[2] / "book" / "_static" / "exercises.js"
TYPED = [name for name in identifiers() if typed(name)]
NUMBERS = [name for name in TYPED if (typed(name) or {})["kind"] == "numbers"]
LETTERS = [name for name in TYPED if name not in NUMBERS]
ODD = [
    "",
    "  ",
    "three",
    "constructor",
    "1/0",
    "sqrt(-1)",
    "1e999",
    "2 +",
    "))",
    "log 2",
    "[]",
    "[1, [2, 3]]",
    "9" * 400,
    "<b>1</b>",
    "1 2 3 4 5 6 7 8 9",
    "0,123",
    "ab",
]

#: Answers an exercise as a hand would, and returns what it says.
ANSWER = """([identifier, answer]) => {
  const form = document.querySelector(`#e${identifier} form`);
  const boxes = form.querySelectorAll("[type=checkbox]");
  for (const box of boxes) box.checked = answer.includes(box.value);
  if (!boxes.length) form.querySelector("input").value = answer;
  form.requestSubmit();
  return [form.dataset.right, form.querySelector("output").textContent];
}"""


@pytest.fixture(scope="module")
def page(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page of all exercises and nothing else; an error on its console fails the test after it."""
    path = tmp_path_factory.mktemp("typed") / "page.html"
    names = "".join(f"<section id=e{name}>{form(name)}</section>" for name in TYPED)
    script = SCRIPT.read_text("utf-8")
    path.write_text(
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Exercises</title>'
        f'<section id="exercises"><h2>Exercises</h2>{names}</section><script>{script}</script>',
        "utf-8",
    )
    page = browser.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(path.as_uri())
    yield page
    assert not wrong
    page.close()


def _say(page: Page, identifier: str, answer: str) -> tuple[bool, str]:
    return _say_all(page, [(identifier, answer)])[0]


def _say_all(page: Page, answers: Iterable[tuple[str, str]]) -> list[tuple[bool, str]]:
    """What is said of each, one after the other; asked once, since to ask takes longest."""
    found = page.evaluate(f"all => all.map({ANSWER})", [list(each) for each in answers])
    return [(right == "true", line) for right, line in found]


def _as_typed(answer: Any) -> str | None:
    """An answer of a kernel as text, where it is made of finite numbers."""
    try:
        values = torch.as_tensor(answer, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        return None
    return str(values.tolist()) if bool(values.isfinite().all()) else None


def test_most_exercises_are_answered_on_their_page() -> None:
    assert len(NUMBERS) >= 20 and len(LETTERS) >= 7


@pytest.mark.parametrize("identifier", NUMBERS)
def test_numbers_are_told_what_the_checker_tells(page: Page, identifier: str) -> None:
    case, shape = CASES[identifier], (typed(identifier) or {})["shape"]
    compared = {True: 0, False: 0}
    answers = [*case.right, *(answer for answer, _ in case.wrong)]
    typed_as = [(answer, text) for answer in answers if (text := _as_typed(answer)) is not None]
    told = _say_all(page, [(identifier, text) for _, text in typed_as])
    for (answer, text), (right, line) in zip(typed_as, told, strict=True):
        verdict = check(identifier, answer)
        assert right == verdict.right, (text, line)
        if list(torch.as_tensor(answer).shape) == shape:
            assert line == verdict.message, text
            compared[right] += 1
        elif not right:
            assert "wanted" in line, line
    assert compared[True] >= 1 and compared[False] >= 3, compared


@pytest.mark.parametrize("identifier", NUMBERS)
@pytest.mark.parametrize("factor", [-1, 2, 0.5, 2 * math.pi, 100, 1.02, 1.7])
def test_the_kind_of_an_error_is_found_alike(page: Page, identifier: str, factor: float) -> None:
    """Beside the mistakes that an exercise knows, those of any number."""
    answer = next(a for a in CASES[identifier].right if _as_typed(a) is not None)
    values = torch.as_tensor(answer, dtype=torch.float64)
    _same(page, identifier, factor * values, values + factor)


@pytest.mark.parametrize("identifier", NUMBERS)
def test_an_order_that_is_wrong_is_found_alike(page: Page, identifier: str) -> None:
    answer = next(a for a in CASES[identifier].right if _as_typed(a) is not None)
    values = torch.as_tensor(answer, dtype=torch.float64)
    _same(page, identifier, values.flip(0) if values.ndim else values**2)


def _same(page: Page, identifier: str, *answers: torch.Tensor) -> None:
    told = _say_all(page, [(identifier, str(answer.tolist())) for answer in answers])
    for answer, (right, line) in zip(answers, told, strict=True):
        verdict = check(identifier, answer)
        assert (right, line) == (verdict.right, verdict.message)


@pytest.mark.parametrize("identifier", LETTERS)
def test_each_set_of_letters_is_told_what_the_checker_tells(page: Page, identifier: str) -> None:
    letters = (typed(identifier) or {})["letters"]
    sizes = range(1, len(letters) + 1)
    sets = ["".join(chosen) for size in sizes for chosen in combinations(letters, size)]
    told = _say_all(page, [(identifier, chosen) for chosen in sets])
    for chosen, (right, line) in zip(sets, told, strict=True):
        verdict = check(identifier, chosen)
        assert (right, line) == (verdict.right, verdict.message)
    assert "choose out of" in _say(page, identifier, "")[1].lower()


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_answer_gets_a_line(page: Page, odd: str) -> None:
    told = _say_all(page, [(identifier, odd) for identifier in NUMBERS])
    for identifier, (right, line) in zip(NUMBERS, told, strict=True):
        assert not right and len(line) > 20, (identifier, line)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2 + log(9) / 4", 2 + math.log(9) / 4),
        ("2+ln(9)/4", 2 + math.log(9) / 4),
        ("log 9", None),
        ("2 + 0.25 log(9)", 2 + math.log(9) / 4),
        ("2 + 2 log(3)/4", 2 + math.log(3) / 2),
        ("-(-2) + log(9)*2^-2", 2 + math.log(9) / 4),
        ("2.549306", 2.549306),
        ("254.9306 %", 2.549306),
        ("−2.549306", -2.549306),
        ("25.49306e-1", 2.549306),
        ("2.0 ** 1.3501", 2**1.3501),
        ("(9 ^ 0.5 - 1) + log10(9) / log10(e) / 4", 2 + math.log(9) / 4),
    ],
)
def test_arithmetic_is_read(page: Page, text: str, value: float | None) -> None:
    right, line = _say(page, "02-1", text)
    if value is None:
        assert not right and "understood" in line
    else:
        verdict = check("02-1", value)
        assert (right, line) == (verdict.right, verdict.message)


def test_lists_are_read_as_they_are_written(page: Page) -> None:
    identifier = "03-3"
    for text in ("0.6542, 2.9014", "[0.6542, 2.9014]", "0.6542 2.9014", "0.6542; 2.9014"):
        assert _say(page, identifier, text)[0], text
    assert "must be over q" in _say(page, identifier, "2.9014, 0.6542")[1]
    assert "list of 2 is wanted" in _say(page, identifier, "0.6542")[1]


def test_answers_are_kept_until_they_are_erased(page: Page) -> None:
    """By keyboard; and nothing is kept but what was typed here."""
    page.evaluate("localStorage.clear()")
    page.reload()
    own = page.locator("#e02-1")
    own.get_by_label("Your answer to 2.1").fill("2 + log(9) / 4")
    page.keyboard.press("Enter")
    expect(own.locator("output")).to_have_text(check("02-1", 2 + math.log(9) / 4).message)
    box = page.locator("#e02-4").get_by_label("a", exact=True)
    box.focus()
    page.keyboard.press("Space")
    page.locator("#e02-4").get_by_role("button", name="Check").click()
    expect(page.locator("#e02-4 output")).to_contain_text("it is not all")
    progress = page.locator(".gm-progress")
    expect(progress).to_contain_text(f"Right: 1 of the {len(TYPED)}")
    page.reload()
    expect(own.get_by_label("Your answer to 2.1")).to_have_value("2 + log(9) / 4")
    expect(own.locator("output")).to_contain_text("right.")
    expect(box).to_be_checked()
    page.evaluate("localStorage.setItem('another', 'stays')")
    progress.get_by_role("button", name="Erase my answers").click()
    expect(own.get_by_label("Your answer to 2.1")).to_have_value("")
    expect(own.locator("output")).to_have_text("")
    expect(box).not_to_be_checked()
    expect(progress).to_contain_text("Right: 0 of")
    expect(progress.get_by_role("button")).to_be_hidden()
    # The button took the focus with it, and the line says what became of the answers.
    expect(progress.get_by_role("status")).to_be_focused()
    assert page.evaluate("JSON.stringify(localStorage)") == '{"another":"stays"}'


@pytest.mark.parametrize("refused", ["getItem", "setItem"])
def test_where_the_browser_keeps_nothing_the_page_does(page: Page, refused: str) -> None:
    page.evaluate("localStorage.clear()")
    page.reload()
    page.evaluate(
        "name => { Storage.prototype[name] = () => { throw new Error('full'); }; }", refused
    )
    progress = page.locator(".gm-progress")
    try:
        _say(page, "02-1", "2 + log(9) / 4")
        expect(progress).to_contain_text("Right: 1 of")
        progress.get_by_role("button", name="Erase my answers").click()
        expect(progress).to_contain_text("Right: 0 of")
    finally:
        page.reload()
