"""Slides: what is looked at is on them, what is said is in the notes, and nothing runs over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import slides
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from page_inspector import served
from playwright.sync_api import Browser

CHAPTERS = sorted(slides.BOOK.glob("[0-9][0-9]-*.ipynb"))


def made(*cells: Any) -> list[Any]:
    title = new_markdown_cell("# Title\n\n**Why?**")
    notebook = new_notebook(cells=[title, *cells])
    made, _ = slides.Slides(enabled=True)(notebook, {"metadata": {"name": "01-title"}})
    return list(made.cells)


def sources(*cells: Any) -> list[str]:
    return [cell.source for cell in made(*cells)]


def code(source: str, *tags: str, prints: str = "") -> Any:
    outputs = [new_output("stream", name="stdout", text=prints)] if prints else []
    return new_code_cell(source, metadata={"tags": list(tags)}, outputs=outputs)


def test_a_heading_begins_a_slide_and_text_goes_to_the_notes() -> None:
    text = "## Ahead\n\nPlain words. **A claim.** More of them.\n\n## Next\n\nOnly words. And more."
    first, ahead, following = made(new_markdown_cell(text))
    assert first.source == "# Title\n\n**Why?**"
    assert ahead.source.startswith("## Ahead\n\n**A claim.** More of them.")
    assert ahead.metadata.notes == "Plain words. **A claim.** More of them."
    # A slide that has no more than its title says how the text begins.
    assert following.source == "## Next\n\nOnly words."


def test_a_formula_comes_with_the_sentence_that_leads_to_it() -> None:
    text = 'First. So we get<a id="eq-x"></a>\n\n$$\nx = y . \\tag{1.1}\n$$'
    assert sources(new_markdown_cell(f"## Ahead\n\n{text}"))[1] == (
        "## Ahead\n\nSo we get\n\n$$\nx = y . \\tag{1.1}\n$$"
    )


def test_a_question_stands_alone_before_its_answer() -> None:
    found = sources(
        new_markdown_cell("## Ahead\n\nThree. **Predict**: how many? Think."),
        code("print(3)", prints="3 of 5\n"),
    )
    assert found[1:] == [
        "## Ahead\n\nThree. **Predict**: how many? Think.",
        "## Ahead\n\n```text\n3 of 5\n```",
    ]


def test_solutions_are_not_shown_and_folds_are_notes() -> None:
    fold = "<details>\n<summary>What trying shows</summary>\n\nSeven.\n\n</details>"
    solution = fold.replace("What trying shows", "Solution of exercise 1.1")
    asked = '<a id="exercise-01-1"></a>\n### Exercise 1.1: Count\n\nHow many?'
    found = made(
        new_markdown_cell(f"## Ahead\n\n**So.**\n\n{fold}"),
        new_markdown_cell("## Exercises"),
        new_markdown_cell(asked),
        code('check("01-1", ...)'),
        new_markdown_cell(solution),
        code("print(7)", "solution", prints="7\n"),
    )
    assert [cell.source for cell in found[1:]] == [
        "## Ahead\n\n**So.**",
        "## Exercise 1.1: Count\n\nHow many?",
    ]
    assert found[1].metadata.notes.endswith("**What trying shows.** Seven.")
    assert not found[2].metadata.notes


def test_only_short_definitions_are_shown_of_the_code() -> None:
    short = "def f(x):\n    return x"
    found = sources(
        new_markdown_cell("## Ahead"),
        code("import torch", "hide-input"),
        code(short),
        code(short.replace("f", "g"), "hide-input"),
        code("y = f(2)\nprint(y)", prints="2\n"),
        code(short + "\n" * 20 + "y = 1"),
    )
    assert found[1:] == [f"## Ahead\n\n```python\n{short}\n```\n\n```text\n2\n```"]


def test_typed_code_stays_whole() -> None:
    fence = "```python\nx = 1\n\ny = 2\n```"
    found = sources(new_markdown_cell(f"## Ahead\n\nWords.\nMore.\n\n{fence}\n\n**So.**"))
    assert found[1:] == [f"## Ahead\n\n{fence}\n\n**So.**"]


def test_what_a_cell_prints_is_one_block() -> None:
    slow = code("for n in (1, 2): print(n)", prints="1\n")
    slow.outputs += [new_output("stream", name="stderr", text="beware\n")]
    slow.outputs += [new_output("stream", name="stdout", text="2\n")]
    assert sources(new_markdown_cell("## Ahead"), slow)[1:] == ["## Ahead\n\n```text\n1\n2\n```"]


def test_what_is_optional_is_left_out() -> None:
    text = "## More (optional)\n\n**Not this.**\n\n### Nor\n\n**this.**\n\n## Back\n\n**This.**"
    assert sources(new_markdown_cell(text))[1:] == ["## Back\n\n**This.**"]


def test_a_sentence_stays_whole() -> None:
    text = "**One. And two?** Then $a. B$ three. **Weights.** They sum to 1."
    assert slides.sentences(text) == [
        "**One. And two?**",
        "Then $a. B$ three.",
        "**Weights.** They sum to 1.",
    ]


@pytest.fixture(scope="module")
def decks(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The slides, made of what the build of the site has kept."""
    assert site.exists()
    folder = tmp_path_factory.mktemp("slides")
    slides.main(folder)
    return folder


@pytest.mark.slow
def test_there_is_a_deck_for_each_chapter(decks: Path) -> None:
    assert [path.stem for path in sorted(decks.glob("*.html"))] == [path.stem for path in CHAPTERS]
    for path in decks.glob("*.html"):
        page = path.read_text("utf-8")
        assert 15 <= page.count("<section>") <= 80, path.stem
        assert "olution of exercise" not in page and "confirm(" not in page, path.stem


# What a slide has, and what it has room for; formulas that failed; notes.
MEASURE = """() => {
  document.body.classList.add('measured');
  const slides = [...document.querySelectorAll('.page')].map((page, i) => ({
    place: i,
    over: page.scrollHeight > 720 || page.scrollWidth > 1280,
    size: parseFloat(page.style.getPropertyValue('--size')),
    unnamed: [...page.querySelectorAll('img')].filter(image => image.alt.length < 20).length,
  }));
  document.body.classList.remove('measured');
  return {slides, failed: document.querySelectorAll('mjx-merror').length,
    math: document.querySelectorAll('mjx-container').length,
    // The window of the notes has no style sheet of MathJax's, and shows this.
    plain: document.querySelectorAll('mjx-container > mjx-assistive-mml > math').length,
    raw: /\\$\\$|\\*\\*/.test([...document.querySelectorAll('.page')].map(page => {
      const copy = page.cloneNode(true);
      copy.querySelectorAll('pre, code').forEach(each => each.remove());
      return copy.textContent;
    }).join())};
}"""


@pytest.mark.slow
def test_a_deck_is_shown_whole_and_without_a_network(decks: Path, browser: Browser) -> None:
    complaints: list[str] = []
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    page = context.new_page()
    with served(decks) as home:
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((home, "data:", "blob:"))
                else complaints.append(f"asks for {request.url}")
            ),
        )
        page.on(
            "response",
            lambda answer: complaints.append(answer.url) if answer.status >= 400 else None,
        )
        page.on(
            "console",
            lambda said: complaints.append(said.text) if said.type == "error" else None,
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        for path in CHAPTERS:
            page.goto(f"{home}{path.stem}.html")
            page.wait_for_function("window.Reveal && Reveal.isReady()")
            found = page.evaluate(MEASURE)
            assert not found["failed"] and not found["raw"] and found["math"] > 20, path.stem
            assert found["plain"] == found["math"], path.stem
            wrong = [
                slide
                for slide in found["slides"]
                if slide["over"] or slide["size"] < 18 or slide["unnamed"]
            ]
            assert not wrong, f"{path.stem}: {wrong}"
        page.keyboard.press("ArrowRight")
        assert page.evaluate("Reveal.getIndices().h") == 1
    context.close()
    assert not complaints, "\n".join(complaints)
