"""The book as one PDF: whole, bookmarked, its links within it, and nothing cut."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import print_book
import pypdfium2
import pytest
from playwright.sync_api import Browser
from pypdf import PdfReader

CHAPTERS = [path.stem for path in sorted((print_book.ROOT / "book").glob("[0-9][0-9]-*.ipynb"))]
#: What a formula that the browser has not set would leave on the paper.
RAW = re.compile(r"\\(?:frac|mathbf|begin\{|boldsymbol)|\$\$|mathprocessingerror", re.I)
#: What reaches more than 2 mm into the margin of 16.
WIDE = """() => [...document.querySelectorAll("article *:not(mjx-container *)")]
    .filter(e => e.getBoundingClientRect().right > innerWidth + 8)
    .map(e => `${e.tagName} ${e.className} in ${e.closest("[id]").id}`)"""
CUT = "e => [...e].filter(f => f.scrollWidth > f.clientWidth + 1).map(f => f.closest('[id]').id)"


class Printed(NamedTuple):
    """The PDF, its pages as words without spaces, and what the page that was printed says."""

    reader: PdfReader
    texts: list[str]
    contents: dict[str, int]
    wide: list[str]
    cut: list[str]
    numbers: list[str]
    stills: int


@pytest.fixture(scope="module")
def printed(
    browser: Browser, site: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Printed]:
    path = tmp_path_factory.mktemp("print") / "book.pdf"
    with print_book.opened(browser, site) as page:
        wide = page.evaluate(WIDE)
        cut = page.locator("mjx-container[display]").evaluate_all(CUT)
        numbers = page.locator(".eqno").all_inner_texts()
        stills = page.locator(".gm-still").count()
        print_book.print_book(page, path)
        entries = page.locator(".gm-contents li").all_inner_texts()
    pages = {}
    for entry in entries:
        title, number = entry.rsplit(maxsplit=1)
        pages[title] = int(number)
    reader = PdfReader(path)
    with pypdfium2.PdfDocument(path) as words:
        texts = [_squeezed(sheet.get_textpage().get_text_range()) for sheet in words]
    yield Printed(reader, texts, pages, wide, cut, numbers, stills)


def _squeezed(text: str) -> str:
    """Without spaces, of which a print has other ones than a page."""
    return re.sub(r"\s+", "", text)


def _bookmarks(outline: list[object], depth: int = 0) -> Iterator[tuple[int, object]]:
    for entry in outline:
        if isinstance(entry, list):
            yield from _bookmarks(entry, depth + 1)
        else:
            yield depth, entry


def test_every_page_of_the_contents_has_a_bookmark_where_the_contents_say(
    printed: Printed,
) -> None:
    reader, texts = printed.reader, printed.texts
    tops = {
        str(getattr(entry, "title", "")): reader.get_destination_page_number(entry)  # type: ignore[arg-type]
        for depth, entry in _bookmarks(list(reader.outline))
        if depth == 0
    }
    assert len(printed.contents) == sum(len(paths) for _, paths in print_book.contents()) + 1
    for title, number in printed.contents.items():
        assert tops[title] == number - 1, title
        assert _squeezed(title) in texts[number - 1], title
        assert f"{_squeezed(title)}{number}" in texts[1], title


def test_sections_are_bookmarks_within_their_chapter(printed: Printed) -> None:
    inner = [depth for depth, _ in _bookmarks(list(printed.reader.outline)) if depth]
    assert len(inner) > 5 * len(CHAPTERS)


def test_nothing_is_cut_and_every_number_of_an_equation_is_there(printed: Printed) -> None:
    assert printed.wide == [] and printed.cut == []
    everything = "\n".join(printed.texts)
    lacking = [number for number in printed.numbers if number not in everything]
    assert len(printed.numbers) > 100 and not lacking


def test_formulas_are_set_and_no_page_is_empty(printed: Printed) -> None:
    # Code may name TeX, as labels of figures do; it stands between quotes.
    raw = {number: RAW.findall(text) for number, text in enumerate(printed.texts, 1)}
    assert not {number: found for number, found in raw.items() if found}
    assert all(printed.texts)


def test_interactives_are_stills_and_solutions_come_last(printed: Printed) -> None:
    assert printed.stills >= len(CHAPTERS)
    first = printed.contents["Solutions"] - 1
    before, behind = "".join(printed.texts[:first]), "".join(printed.texts[first:])
    exercises, solved = (set(re.findall(r"Exercise\d+\.\d+\(", text)) for text in (before, behind))
    assert exercises == solved and len(exercises) >= 6 * (len(CHAPTERS) - 1)
    # Each is solved behind them: by a call of the checker that none has before.
    assert 'confirm("' not in before and behind.count('confirm("') >= len(exercises) / 2


def test_a_link_to_another_chapter_stays_in_the_book(printed: Printed) -> None:
    names = {name.lstrip("/") for name in printed.reader.named_destinations}
    assert "07-descent-versus-em--equation-eq-em-rate" in names
    targets = [
        str(note.get_object()["/A"]["/URI"])
        for sheet in printed.reader.pages
        for note in sheet.get("/Annots", [])
        if "/A" in note.get_object() and "/URI" in note.get_object()["/A"]
    ]
    assert targets and not [target for target in targets if "book.invalid" in target]
    inside = [t for t in targets if re.search(rf"/book/({'|'.join(CHAPTERS)})\.html", t)]
    assert not inside
