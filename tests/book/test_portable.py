"""Chapters read well in any notebook program: nothing raw is seen there, and numbers are true."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import portable
import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.dollarmath import dollarmath_plugin
from pybtex.database import Person, parse_file
from pybtex.richtext import Text

BOOK = Path(__file__).resolve().parents[2] / "book"
NOTEBOOKS = {path.name: nbformat.read(path, 4) for path in sorted(BOOK.glob("*.ipynb"))}
#: What JupyterLab, VS Code and Colab have in common: CommonMark, tables, mathematics in dollars.
PLAIN = MarkdownIt("commonmark").enable("table").use(dollarmath_plugin, allow_labels=False)
RAW = {
    "a role": r"\{[\w:-]+\}$",
    "a directive": r"^\s*(:{3,}|`{3,})\{?",
    "a label": r"^\([\w-]+\)=|\((eq|fig|exercise)-[\w-]+\)",
    "a dollar": r"\$",
    "a citation key": r"\[@",
    "a footnote": r"\[?\^[\w-]+\]?$",
    "a comment": r"^%",
}
HTML = re.compile(
    r'\s*(<a id="[\w-]+">|</a>|<details( open)?>\s*<summary>[^<]+</summary>|</details>)\s*'
)


def raw(markdown: str) -> list[str]:
    """What a plain renderer would show of a cell that its author did not mean to be seen."""
    found = []
    tokens = [part for token in PLAIN.parse(markdown) for part in (token, *(token.children or ()))]
    for i, token in enumerate(tokens):
        text = token.content
        if token.type == "text":
            found += [f"{kind}: {text}" for kind, sign in RAW.items() if re.search(sign, text)]
        elif token.type == "fence" and token.info.startswith("{"):
            found.append(f"a directive: {token.info}")
        elif token.type in ("html_inline", "html_block") and not HTML.fullmatch(text):
            found.append(f"markup that not every program has: {text}")
        elif token.type == "link_open" and _is_empty(tokens, i):
            found.append(f"an empty link: {token.attrs}")
        elif token.type.startswith("math") and not re.search(r"\S", text):
            found.append("an empty formula")
        elif token.type == "math_block" and text.lstrip().startswith(">"):
            found.append(f"a quoted formula: {text}")
    return found


def _is_empty(tokens: list[Token], opening: int) -> bool:
    return tokens[opening + 1].type == "link_close" or not tokens[opening].attrs["href"]


def _markdown(name: str) -> list[str]:
    return [cell.source for cell in NOTEBOOKS[name].cells if cell.cell_type == "markdown"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_plain_program_shows_nothing_raw(name: str) -> None:
    found = [f"{text[:40]!r}: {what}" for text in _markdown(name) for what in raw(text)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "see {eq}`eq-gmm-nll`",
        "see {numref}`fig-02-odds`",
        "```{math}\n:label: eq-x\nx\n```",
        ":::{admonition} Title\ntext\n:::",
        "(section-label)=\n# Title",
        "$$\nx\n$$ (eq-x)",
        "[](notation.md)",
        "half a $formula",
        "a note[^note]\n\n[^note]: so",
        "<div>so</div>",
        "% a comment",
        "<details>\n<summary>Without a blank line</summary>\ntext $x$\n</details>",
    ],
)
def test_what_is_raw_is_found(text: str) -> None:
    assert raw(text)


def test_what_is_plain_is_left_alone() -> None:
    assert not raw(
        'A [term](glossary.md#term-mode), `{eq}` as code, $x_{n}$.<a id="eq-x"></a>\n\n$$\n'
        "x \\tag{1.1}\n$$\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n"
        "<details>\n<summary>Why</summary>\n\nBecause $x$.\n\n</details>"
    )


# Numbers, as typed


def _numbers() -> dict[str, tuple[str, str]]:
    """Where each label stands, and with which number."""
    found = {}
    for name in NOTEBOOKS:
        for text in _markdown(name):
            matches = [*portable.EQUATION.finditer(text)]
            matches += filter(None, [portable.FIGURE.match(text), portable.EXERCISE.match(text)])
            for match in matches:
                assert match["label"] not in found, f"{match['label']} stands twice"
                found[match["label"]] = (name, match["number"])
    return found


NUMBERS = _numbers()


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_labels_are_where_links_say_and_have_their_numbers(name: str) -> None:
    words = {"eq": "({})", "fig": "Figure {}"}
    checked = 0
    for link in portable.LINK.finditer("\n".join(_markdown(name))):
        kind = link["anchor"].partition("-")[0]
        if kind not in ("eq", "fig", "exercise"):
            continue
        page, number = NUMBERS[link["anchor"]]
        assert (link["page"] or name) == page, link[0]
        assert not link["page"] or page != name, f"{link[0]}: the page need not name itself"
        if kind in words:
            assert link["words"] == words[kind].format(number), link[0]
        checked += 1
    assert checked >= 3


def test_every_label_is_read() -> None:
    """An anchor that no pattern takes would be lost on the site."""
    for name in NOTEBOOKS:
        typed = re.findall(r'<a id="([^"]*)"></a>', "\n".join(_markdown(name)))
        assert sorted(typed) == sorted(label for label in NUMBERS if NUMBERS[label][0] == name)


def test_figures_are_above_their_captions_and_every_picture_has_words() -> None:
    for name, notebook in NOTEBOOKS.items():
        for cell in portable.to_myst(notebook)["cells"]:
            shown = cell["metadata"].get("mystnb", {})
            assert "figure" not in shown or "alt" in shown.get("image", {}), (name, cell["source"])
        for cell in notebook.cells:
            assert "figure" not in cell.metadata.get("mystnb", {}), "a caption that is not seen"


# Citations and terms

ENTRIES = parse_file(BOOK / "references.bib").entries


def _last(person: Person) -> str:
    return str(Text.from_latex(" ".join([*person.prelast_names, *person.last_names])))


def _authors(key: str) -> str:
    names = [_last(person) for person in ENTRIES[key].persons["author"]]
    if len(names) > 2:
        return f"{names[0]} et al."
    return " and ".join(names)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_citations_name_their_authors_and_years(name: str) -> None:
    for link in portable.LINK.finditer("\n".join(_markdown(name))):
        if link["page"] == "bibliography.md":
            authors, year = _authors(link["anchor"]), ENTRIES[link["anchor"]].fields["year"]
            words = " ".join(link["words"].split())
            assert words in (f"{authors} ({year})", f"{authors}, {year}"), link[0]


def test_pages_that_are_linked_exist() -> None:
    for name in NOTEBOOKS:
        for page in re.findall(r"\]\(([\w.-]+\.(?:md|ipynb))(?:#[\w-]+)?\)", str(_markdown(name))):
            assert (BOOK / page).is_file(), (name, page)


# What becomes of it on the site


def _cells(*cells: Any) -> list[Any]:
    notebook = {"cells": [dict(cell) for cell in cells], "metadata": {}}
    return portable.to_myst(notebook)["cells"]


def _text(source: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def _code(source: str, *tags: str) -> dict[str, Any]:
    return {"cell_type": "code", "metadata": {"tags": [*tags]}, "source": source, "outputs": []}


@pytest.mark.parametrize(
    ("typed", "myst"),
    [
        ("by [(1.2)](#eq-x) and [(2.3)](02-b.ipynb#eq-y)", "by {eq}`eq-x` and {eq}`eq-y`"),
        ("[Figure 1.2](01-a.ipynb#fig-x)", "{numref}`fig-x`"),
        ("an [exercise\nbelow](#exercise-01-2)", "an {ref}`exercise below <exercise-01-2>`"),
        (
            "[mixing weights](glossary.md#term-mixing-weight)",
            "{term}`mixing weights <mixing weight>`",
        ),
        ("[Bishop (2006)](bibliography.md#bishop2006)", "{cited}`Bishop (2006) <bishop2006>`"),
        ("[the glossary](glossary.md), [a part](#part)", None),
        (
            '- so<a id="eq-x"></a>\n\n  $$\n  x\n  = y \\tag{1.2}\n  $$',
            "- so\n\n  ```{math}\n  :label: eq-x\n  x\n  = y\n  ```",
        ),
        ("$$\nx\n$$", None),
        (
            "<details>\n<summary>Why</summary>\n\nBecause of [(1.2)](#eq-x).\n\n</details>",
            "::::{dropdown} Why\n\nBecause of {eq}`eq-x`.\n::::",
        ),
        (
            "<details open>\n<summary>Note</summary>\n\nSo.\n\n</details>\n\nOn.",
            "::::{admonition} Note\n:class: warning\n\nSo.\n::::\n\nOn.",
        ),
        (
            '<a id="exercise-01-2"></a>\n### Exercise 1.2: Title\n\nDo it.',
            "````{exercise} Title\n:label: exercise-01-2\n\nDo it.\n````",
        ),
    ],
)
def test_each_form_has_its_directive(typed: str, myst: str | None) -> None:
    assert _cells(_text(typed))[0]["source"] == (typed if myst is None else myst)


def test_a_caption_joins_the_figure_above_it() -> None:
    caption = _text('<a id="fig-x"></a>\n**Figure 1.2.** As in [(1.2)](#eq-x).')
    drawn = _code("draw()")
    cells = _cells(drawn, caption, _text("text"))
    assert [cell["source"] for cell in cells] == ["draw()", "text"]
    figure = cells[0]["metadata"]["mystnb"]["figure"]
    assert figure == {"caption": "As in {eq}`eq-x`.", "name": "fig-x"}
    assert "mystnb" not in drawn["metadata"], "the notebook itself is left as it was"
    with pytest.raises(ValueError, match="fig-x must stand right below"):
        _cells(_text("text"), caption)
    # Else the text behind it would be printed as a caption, and its equations lost.
    with pytest.raises(ValueError, match="a cell of its own"):
        _cells(drawn, _text(caption["source"] + "\n\nText."))


def test_a_solution_is_folded_with_its_code_to_its_end() -> None:
    solution = "<details>\n<summary>Solution of exercise 1.2</summary>\n\nSo.\n\n</details>"
    begin, end = "```{solution-start} exercise-01-2\n:class: dropdown\n```\n\n", "```{solution-end}"
    code = _code("confirm()", "solution")
    for after in (_text("on"), _code("next"), None):
        cells = _cells(*filter(None, [_text(solution), code, _text(solution), code, after]))
        sources = [cell["source"].removesuffix("\n```") for cell in cells]
        rest = [after["source"]] if after else []
        assert sources == [f"{begin}So.", "confirm()", "So.", "confirm()", end, *rest]


def test_the_code_is_the_same_and_so_is_what_ran() -> None:
    for notebook in NOTEBOOKS.values():
        code = [c.source for c in notebook.cells if c.cell_type == "code"]
        read = json.loads(portable.as_myst(nbformat.writes(notebook)))
        assert ["".join(c["source"]) for c in read["cells"] if c["cell_type"] == "code"] == code


def test_the_glossary_is_found_by_its_anchors() -> None:
    assert portable.anchor_of("Cholesky factor") == "term-cholesky-factor"
    assert portable.anchor_of("log-sum-exp") == "term-log-sum-exp"
