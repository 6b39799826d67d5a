"""What a page does for its reader: answers, previews of links, words in a search, few tab stops."""

from __future__ import annotations

import json
import math
import re
import time
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import nbformat
import page_inspector
import pytest
from page_inspector import Inspector, leave_formulas_out
from playwright.sync_api import Locator, Page, Route, ViewportSize, expect
from portable import CHECK
from pypdf import PdfReader

from gmmbook.exercises import identifiers, typed

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = sorted((ROOT / "book").glob("[0-9][0-9]-*.ipynb"))


@pytest.fixture
def page(inspector: Inspector) -> Iterator[Page]:
    page = inspector.context("light").new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    yield page
    assert not wrong
    page.close()


class Chapter(NamedTuple):
    """A chapter that a reader has opened, and the identifiers of its exercises."""

    path: Path
    page: Page
    own: list[str]


@pytest.fixture(scope="module", params=CHAPTERS, ids=lambda path: path.stem)
def chapter(inspector: Inspector, request: pytest.FixtureRequest) -> Iterator[Chapter]:
    """One visit for all that is asked of each chapter, in the order of the tests."""
    path: Path = request.param
    page = inspector.context("light").new_page()
    leave_formulas_out(page)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(f"{inspector.home}book/{path.stem}.html")
    yield Chapter(path, page, [name for name in identifiers() if name[:2] == path.stem[:2]])
    assert not wrong
    page.close()


#: Where the first picture, or what can be taken in hand, begins and in which screens it must.
FIRST = """() => Math.min(...[...document.querySelectorAll('article .gm-widget, .cell_output img')]
  .map(each => each.getBoundingClientRect().top + scrollY))"""
SCREENS = 1.5


def test_a_chapter_opens_with_what_raises_its_question(chapter: Chapter) -> None:
    height = page_inspector.WINDOW["height"]
    assert chapter.page.evaluate(FIRST) < SCREENS * height


def test_exercises_are_answered_on_the_page_or_say_where(chapter: Chapter) -> None:
    path, page, own = chapter
    code = sum(typed(name) is None for name in own)
    assert page.locator(".gm-answer form").count() == len(own) - code
    where = page.locator(".gm-run")
    assert where.count() == code
    for link in where.locator("a").all():
        address = link.get_attribute("href") or ""
        assert address.endswith(path.name)
    for name in own:
        form = page.locator("form", has_text=f"Your answer to {int(name[:2])}.{name[3:]}")
        assert form.count() == (typed(name) is not None), name
        if form.count():
            form.get_by_role("button", name="Check").click()
            expect(form.locator("output")).to_contain_text("not yet.")
    # Where a cell is not to be run on the page, it is not to be seen.
    shown = "\n".join(page.locator(".cell_input").all_inner_texts())
    assert not [name for name in re.findall(r'check\("([\d-]+)"', shown) if typed(name)]
    progress = page.locator("#exercises .gm-progress")
    if len(own) > code:
        expect(progress).to_contain_text(f"of the {len(own) - code}")


# The button lies within its title, where it is seen.
BUTTON_OUTSIDE = """() => [...document.querySelectorAll('.solution')].filter(box => {
  const title = box.querySelector('.admonition-title').getBoundingClientRect();
  const button = box.querySelector('button.toggle-button').getBoundingClientRect();
  return button.height === 0 || button.top < title.top - 1 || button.bottom > title.bottom + 1;
}).length"""


def test_a_solution_is_folded_until_it_is_asked_for(chapter: Chapter) -> None:
    _, page, own = chapter
    solutions = page.locator(".solution")
    assert solutions.count() == page.locator(".exercise").count() == len(own)
    assert page.evaluate(BUTTON_OUTSIDE) == 0
    if own:
        code = solutions.first.locator(".cell_input").first
        expect(code).to_be_hidden()
        solutions.first.locator("button.toggle-button, summary").first.click()
        expect(code).to_be_visible()


def test_every_chapter_after_the_first_look_has_exercises() -> None:
    counts = Counter(name[:2] for name in identifiers())
    assert all(counts[path.stem[:2]] >= 5 for path in CHAPTERS[1:])


def test_every_exercise_asks_in_a_cell_that_the_site_knows() -> None:
    asked = []
    for path in CHAPTERS:
        for cell in nbformat.read(path, as_version=4).cells:
            asked += CHECK.findall(cell.source) if cell.cell_type == "code" else []
    assert asked == identifiers()


def test_a_link_shows_what_it_points_to(inspector: Inspector, page: Page) -> None:
    """An equation of this page and of another, a term, a figure, a citation; by keyboard too."""
    page.goto(inspector.home + "book/05-gradient-descent.html")
    page.evaluate(page_inspector.WAIT_FOR_MATH)
    tip = page.locator("#gm-tip")
    for target in ("#equation-", "html#equation-", "html#term-", "html#fig-", "html#cite-"):
        # Some stand in folds.
        link = page.locator(f"article p a.internal[href*='{target}']:visible").first
        link.scroll_into_view_if_needed()
        link.hover()
        expect(tip).to_be_visible()
        kind = "mjx-container" if "equation" in target else "img" if "fig" in target else "p"
        expect(tip.locator(kind).first).to_be_visible()
        assert link.get_attribute("aria-describedby") == "gm-tip"
        box = tip.bounding_box()
        assert box and box["x"] >= 0 and box["x"] + box["width"] <= 1280
        page.keyboard.press("Escape")
        expect(tip).to_be_hidden()
        page.mouse.move(0, 0)
    link = page.locator("article p a.internal[href*='#equation-']:visible").first
    page.evaluate("link => link.focus({focusVisible: true})", link.element_handle())
    expect(tip).to_be_visible()
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()
    assert link.get_attribute("aria-describedby") is None


#: Symbols of the page of notation that share a letter, or a cell, with others, and what they mean.
#: Of what stands in brackets, that of the letter before them.
SYMBOLS = {
    "N": "number of points",
    "Nk": "count",
    "n": "index of a point",
    "xn": "one point",
    "x": "a whitened residual in one dimension",
    "X": "the data",
    "p(x)": "density of the mixture",
    "P(⋅)": "probability of an event",
    "Σk": "covariance; symmetric",
    "σmin": "least standard deviation allowed",
    "ρ": "correlation",
    "rnk": "responsibility",
    "E[⋅]": "expectation",
    "KL(q‖p)": "divergence",
    "EM(φ)": "one iteration",
    "Im": "missing information",
}


def test_a_letter_of_a_formula_says_what_it_means(inspector: Inspector, page: Page) -> None:
    page.goto(inspector.home + "book/notation.html")
    page.evaluate(page_inspector.WAIT_FOR_MATH)
    tip, found = page.locator("#gm-tip"), {}
    for formula in page.locator("#symbols tbody td:first-child mjx-container").all():
        text = unicodedata.normalize("NFKC", formula.inner_text())
        found[re.sub(r"[\s\u2061]", "", text)] = formula
    for symbol, meaning in SYMBOLS.items():
        found[symbol].locator("mjx-mi").first.hover()
        expect(tip).to_contain_text(meaning)
    page.mouse.move(0, 0)
    expect(tip).to_be_hidden()


def test_an_equation_says_what_its_letters_mean(inspector: Inspector, page: Page) -> None:
    """Those of another page than the notation's; by mouse, by keyboard and by touch."""
    page.goto(inspector.home + "book/04-covariance-families.html")
    page.evaluate(page_inspector.WAIT_FOR_MATH)
    tip = page.locator("#gm-tip")
    equation = page.locator("div.math", has=page.locator("[href='#equation-eq-m-step-weights']"))
    equation.scroll_into_view_if_needed()
    letter = equation.locator("mjx-mi").first
    letter.hover()
    expect(tip).to_contain_text(
        "mixing weight; positive, summing to 1; shape number; in the package"
    )
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()
    page.mouse.move(0, 0)
    number = equation.locator(".eqno a")
    page.evaluate("link => link.focus({focusVisible: true})", number.element_handle())
    expect(tip.locator("p")).to_have_count(4)
    for meaning in ("mixing weight", "number of components", "count", "number of points"):
        expect(tip).to_contain_text(meaning)
    assert number.get_attribute("aria-describedby") == "gm-tip"
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()
    # A click does not tell in every browser that a finger made it.
    tap = """e => {
      e.dispatchEvent(new PointerEvent("pointerdown", { pointerType: "touch", bubbles: true }));
      e.dispatchEvent(new MouseEvent("click", { bubbles: true, cancelable: true }));
    }"""
    letter.evaluate(tap)
    expect(tip).to_contain_text("mixing weight")
    page.locator("article h1").evaluate(tap)
    expect(tip).to_be_hidden()
    number.evaluate(tap)
    expect(tip.locator("p")).to_have_count(4)


@pytest.mark.slow
def test_an_address_that_is_none_leads_back(site: Path) -> None:
    """The page is shown at any depth of the host, so its links name the site's place there."""
    text = (site / "404.html").read_text("utf-8")
    assert "Nothing is here" in text
    own = re.findall(r'(?:href|src|action)="(?!https?:|data:|mailto:|#)([^"#?]*)', text)
    assert len(own) > 20
    for address in own:
        place, _, name = address.partition("/gmmedu/")
        assert not place and (site / name).exists(), address


def test_a_link_skips_to_the_interactive(inspector: Inspector, page: Page) -> None:
    leave_formulas_out(page)
    page.goto(inspector.home + "book/08-singularities.html")
    skip = page.get_by_role("link", name="Skip to the interactive")
    skip.focus()
    expect(skip).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("[data-gmmedu=singularity]")).to_be_in_viewport()
    page.keyboard.press("Tab")
    within = "document.activeElement.closest('[data-gmmedu]')?.dataset.gmmedu"
    assert page.evaluate(within) == "singularity"


def test_formulas_are_no_tab_stops_and_move_no_target(inspector: Inspector, page: Page) -> None:
    page.goto(inspector.home + "book/02-mixture-likelihood.html#summary")
    page.evaluate(page_inspector.WAIT_FOR_MATH)
    stops = "document.querySelectorAll('mjx-container[tabindex]').length"
    page.wait_for_function(f"{stops} === 0", timeout=10_000)
    assert page.locator("mjx-container").count() > 100
    # Formulas above it grew after the browser had gone there.
    top = "document.getElementById('summary').getBoundingClientRect().top"
    page.wait_for_function(f"Math.abs({top}) < 120", timeout=10_000)


def test_a_formula_that_fits_does_not_fade(inspector: Inspector, page: Page) -> None:
    """Nor where it was too wide until its face had come."""

    def late(route: Route) -> None:
        time.sleep(0.2)
        route.continue_()

    page.route("**/*.woff", late)
    page.set_viewport_size(page_inspector.PHONE)
    page.goto(inspector.home + "book/12-em-as-a-layer.html")
    page.evaluate(page_inspector.WAIT_FOR_MATH)
    page.evaluate(page_inspector.COME_TO_REST)
    assert page.evaluate("document.fonts.size") > 3
    assert page.evaluate(page_inspector.FADING) == []


def search(inspector: Inspector, page: Page, query: str) -> Locator:
    """The results, once they are all there."""
    page.goto(f"{inspector.home}search.html?q={quote(query)}")
    expect(page.locator("#search-results h2")).to_have_text("Search results")
    return page.locator("#search-results li")


def rare_words(site: Path) -> Iterator[tuple[str, str, str]]:
    """Of three chapters, a word that one section of the book has, and the address of that."""
    text = (site / "_static" / "sections.js").read_text("utf-8")
    pages = json.loads(text.partition(" = ")[2].rstrip(";\n"))
    everything = [f"{title} {words}".lower() for _, own in pages for _, title, words in own]
    for page, own in [each for each in pages if re.match(r"book/0[258]", each[0])]:
        candidates = {
            word: anchor for anchor, _, words in own for word in re.findall(r"\b[a-z]{8,}\b", words)
        }
        alone = [word for word in candidates if sum(word[:5] in text for text in everything) == 1]
        word = max(alone, key=len)
        yield word, f"{page}.html", candidates[word]


def test_a_search_leads_to_the_section(inspector: Inspector, page: Page, site: Path) -> None:
    leave_formulas_out(page)
    words = list(rare_words(site))
    assert len(words) == 3
    for word, address, anchor in words:
        results = search(inspector, page, word)
        expect(results).to_have_count(1)
        results.locator("a").click()
        page.wait_for_url(f"**/{address}#{anchor}")
        expect(page.locator(f"[id='{anchor}'] > *").first).to_be_in_viewport()


def test_a_search_without_a_result_says_so(inspector: Inspector, page: Page) -> None:
    results = search(inspector, page, "covariance xyzzy")
    expect(results).to_have_count(0)
    expect(page.locator("#search-results")).to_contain_text("Nothing in the book")


def test_a_search_knows_terms_names_and_beginnings_of_words(
    inspector: Inspector, page: Page
) -> None:
    for query, target in (
        ("responsibilities", "glossary.html#term-responsibility"),
        ("fit_em", "api.html#gmmedu.fit_em"),
        ("Mahalan", "glossary.html#term-Mahalanobis-distance"),
    ):
        link = search(inspector, page, query).first.locator("a")
        assert (link.get_attribute("href") or "").endswith(target), query


def test_the_marks_of_a_search_leave_an_interactive_whole(inspector: Inspector, page: Page) -> None:
    """Its stylesheet and the letters of its drawings are no text of the page."""
    leave_formulas_out(page)
    words = "localStorage.setItem('sphinx_highlight_terms', 'mean values axis')"
    page.add_init_script(words)
    page.goto(f"{inspector.home}book/10-mixture-density-networks.html")
    expect(page.locator("article span.highlighted").first).to_be_attached()
    assert page.locator(".gm-widget style").evaluate("style => style.childNodes.length") == 1
    assert page.locator(".gm-widget svg :is(rect.highlighted, tspan)").count() == 0


def test_results_are_in_the_order_of_their_scores(inspector: Inspector, page: Page) -> None:
    """Entries without a title, those of the bibliography, among them."""
    for query in ("mixture", "likelihood", "EM"):
        results = search(inspector, page, query)
        scores = results.evaluate_all("all => all.map(one => Number(one.dataset.score))")
        assert len(scores) == 50 and all(map(math.isfinite, scores))
        assert scores == sorted(scores, reverse=True)


def test_a_search_shows_words_and_no_tex(inspector: Inspector, page: Page) -> None:
    results = search(inspector, page, "covariance")
    texts = results.locator("p.context").all_inner_texts()
    assert len(texts) > 40
    assert not [text for text in texts if re.search(r"\\\(|\\\[|\\[a-z]+", text)], texts
    assert all("covarianc" in text.lower() for text in results.all_inner_texts())


#: What is seen of a printed page that is a screen's: A4, less the margins.
PAPER: ViewportSize = {"width": 673, "height": 985}
#: Of which every one that is seen on the screen is on the paper too.
PRINTED = (
    "article :is(h1, h2, h3)",
    ".eqno",
    ".caption-number",
    "details.sd-dropdown .sd-summary-text",
    ".gm-values :is(dt, th)",
)
#: Lines that only a screen has.
NAVIGATION = {"show code cell source", "skip to main content", "skip to the interactive"} | {
    *("search", "contents", "previous", "next", "solution", "check", "reset"),
}


def test_a_chapter_is_printed(inspector: Inspector, tmp_path: Path) -> None:
    """In light colors, whatever the screen has; its interactive as the picture that it shows."""
    page = inspector.context("dark").new_page()
    page.goto(inspector.home + "book/01-multivariate-normal.html")
    page.evaluate(page_inspector.WAIT_FOR_MATH)
    page.pdf(path=tmp_path / "chapter.pdf", format="A4", prefer_css_page_size=True)
    printed = [sheet.extract_text() for sheet in PdfReader(tmp_path / "chapter.pdf").pages]
    text = "\n".join(printed)
    assert text.startswith("1. The multivariate normal\n")
    for selector in PRINTED:
        words = page.locator(f"{selector}:visible").all_inner_texts()
        assert words, selector
        missing = [word for word in words if word.rstrip("#\n ") not in text]
        assert not missing, (selector, missing)
    assert not NAVIGATION & {line.strip().lower() for line in text.splitlines()}
    assert all(printed)
    # What the paper is given, seen as the screen would show it.
    root = page.locator("html")
    expect(root).to_have_attribute("data-theme", "dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    page.set_viewport_size(PAPER)
    expect(root).to_have_attribute("data-theme", "light")
    assert page.evaluate(page_inspector.SIDEWAYS) == []
    cut = "e => [...e].filter(f => f.scrollWidth > f.clientWidth + 1).length"
    assert page.locator("mjx-container[display]").evaluate_all(cut) == 0
    page.close()
