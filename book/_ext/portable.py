"""Chapters are written in Markdown that every notebook program renders; the site reads it as MyST.

JupyterLab, VS Code, Colab and code hosts know links, ``<details>`` and ``$$``, and show a
role or a directive as it is typed. So a chapter has links with words in them, and numbers typed,
and here, when a page is read, each becomes what gives the site its own number, preview or fold:

=====================================================  =======================================
in the notebook                                        on the site
=====================================================  =======================================
``text<a id="eq-x"></a>``, ``$$ ... \\tag{2.3} $$``     a numbered equation below the text
``[(2.3)](#eq-x)``                                     its number, wherever it stands
a cell ``<a id="fig-x"></a>`` and ``**Figure 2.1.**``  the caption of the figure in the cell above
``[Figure 2.1](#fig-x)``                               its number
``[words](glossary.md#term-mixing-weight)``            the term, with those words
``[Bishop (2006)](bibliography.md#bishop2006)``        the entry, with those words
``### Exercise 2.1: Title`` below ``<a id=...></a>``   the exercise, to the end of the cell
``<details>``, a summary *Solution of exercise 2.1*    its solution, with the cells that follow
                                                       tagged ``solution``
a code cell with ``check("02-1", ...)``                where the exercise is answered: on the page
                                                       if its answer can be typed (``answers``)
another ``<details>``                                  a fold
``<details open>``                                     a box with the summary as its title
=====================================================  =======================================

A label in another chapter has that chapter's file before the ``#``.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pybtex.plugin
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole

from gmmbook.exercises import typed

BOOK = Path(__file__).resolve().parents[1]
logger = logging.getLogger(__name__)

EQUATION = re.compile(
    r'<a id="(?P<label>eq-[\w-]+)"></a>\n\n'
    r"(?P<indent>[ ]*)\$\$\n"
    r"(?P<latex>.*?)[ ]*\\tag\{(?P<number>[\d.]+)\}\n"
    r"(?P=indent)\$\$[ ]*$",
    re.MULTILINE | re.DOTALL,
)
LINK = re.compile(
    r"\[(?P<words>(?:[^\[\]]|\[[^\[\]]*\])+)\]\((?P<page>[\w.-]*)#(?P<anchor>[\w-]+)\)"
)
FIGURE = re.compile(
    r'<a id="(?P<label>fig-[\w-]+)"></a>\n\*\*Figure (?P<number>[\d.]+)\.\*\* '
    r"(?P<caption>(?:(?!\n\n).)+)\Z",
    re.DOTALL,
)
EXERCISE = re.compile(
    r'<a id="(?P<label>exercise-(?P<chapter>\d\d)-(?P<place>\d+))"></a>\n'
    r"### Exercise (?P<number>[\d.]+): (?P<title>[^\n]+)\n(?P<body>.+)\Z",
    re.DOTALL,
)
DETAILS = re.compile(
    r"^<details(?P<open> open)?>\n<summary>(?P<summary>[^\n]+)</summary>\n\n"
    r"(?P<body>.*?)\n\n</details>[ ]*$",
    re.MULTILINE | re.DOTALL,
)
SOLUTION = re.compile(r"Solution of exercise (\d+)\.(\d+)")
CHECK = re.compile(r'^check\("(\d\d-\d+)"', re.MULTILINE)


def as_myst(notebook: str) -> str:
    """``to_myst`` of the text of a file."""
    return json.dumps(to_myst(json.loads(notebook)), ensure_ascii=False)


def to_myst(notebook: Mapping[str, Any]) -> dict[str, Any]:
    """The notebook as the site reads it: the same code, its Markdown as MyST."""
    cells: list[dict[str, Any]] = []
    solving = False
    for original in notebook["cells"]:
        cell = copy.deepcopy(original)
        source, is_text = "".join(cell["source"]), cell["cell_type"] == "markdown"
        label = _solved(source) if is_text else None
        solves = bool(label) if is_text else "solution" in cell["metadata"].get("tags", ())
        if solving and not solves:
            cells.append(_end(len(cells)))
            solving = False
        if is_text and (figure := FIGURE.match(source)):
            _caption(cells, figure)
            continue
        if is_text and source.startswith('<a id="fig-'):
            raise ValueError(f"a caption is a cell of its own, and this goes on: {source[:80]!r}")
        if is_text:
            cell["source"] = _solution(source, label, solving) if label else _page(source)
            solving = solving or bool(label)
        asks = None if is_text else CHECK.search(source)
        if asks and typed(asks[1]):
            # It runs, so that the code below it finds what it did, and is not shown.
            cell["metadata"].setdefault("tags", []).append("remove-cell")
        cells.append(cell)
        if asks:
            cells.append(_text(f"answer-{asks[1]}", f"```{{answer}} {asks[1]}\n```"))
    if solving:
        cells.append(_end(len(cells)))
    return {**notebook, "cells": cells}


def _text(name: str, source: str) -> dict[str, Any]:
    """A cell that the notebook has not."""
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": source}


def _end(place: int) -> dict[str, Any]:
    return _text(f"end-{place}", "```{solution-end}\n```")


def _solved(source: str) -> str | None:
    """The label of the exercise of which a cell holds the solution."""
    details = DETAILS.match(source)
    solved = details and SOLUTION.match(details["summary"])
    return f"exercise-{int(solved[1]):02d}-{solved[2]}" if solved else None


def _solution(source: str, label: str, goes_on: bool) -> str:
    body = _page(DETAILS.sub(lambda details: details["body"], source))
    return body if goes_on else f"```{{solution-start}} {label}\n:class: dropdown\n```\n\n{body}"


def _caption(cells: list[dict[str, Any]], figure: re.Match[str]) -> None:
    """Give a caption to the figure above it."""
    if not cells or cells[-1]["cell_type"] != "code":
        raise ValueError(f"the caption {figure['label']} must stand right below the figure's cell")
    drawn = cells[-1]["metadata"].setdefault("mystnb", {})
    drawn["figure"] = {"caption": _inline(figure["caption"]), "name": figure["label"]}


def _page(source: str) -> str:
    exercise = EXERCISE.match(source)
    if exercise:
        title, label, body = exercise["title"], exercise["label"], _page(exercise["body"].strip())
        return f"````{{exercise}} {title}\n:label: {label}\n\n{body}\n````"
    source = DETAILS.sub(_fold, source)
    return _inline(EQUATION.sub(_equation, source))


def _fold(details: re.Match[str]) -> str:
    kind, option = ("admonition", ":class: warning\n") if details["open"] else ("dropdown", "")
    return f"::::{{{kind}}} {details['summary']}\n{option}\n{details['body']}\n::::"


def _equation(equation: re.Match[str]) -> str:
    indent, label, latex = equation["indent"], equation["label"], equation["latex"]
    return f"\n\n{indent}```{{math}}\n{indent}:label: {label}\n{latex}\n{indent}```"


def _inline(source: str) -> str:
    return LINK.sub(_link, source)


def _link(link: re.Match[str]) -> str:
    words, page, anchor = " ".join(link["words"].split()), link["page"], link["anchor"]
    if page == "glossary.md":
        return f"{{term}}`{words} <{_terms().get(anchor, anchor)}>`"
    if page == "bibliography.md":
        return f"{{cited}}`{words} <{anchor}>`"
    if anchor.startswith("eq-"):
        return f"{{eq}}`{anchor}`"
    if anchor.startswith("fig-"):
        return f"{{numref}}`{anchor}`"
    if anchor.startswith("exercise-"):
        return f"{{ref}}`{words} <{anchor}>`"
    return link[0]


def anchor_of(term: str) -> str:
    """Where the glossary has a term: what a link to it ends with."""
    return "term-" + re.sub(r"[^\w]+", "-", term.lower()).strip("-")


@cache
def _terms() -> dict[str, str]:
    glossary = (BOOK / "glossary.md").read_text("utf-8")
    return {anchor_of(term): term for term in re.findall(r"^(\S[^\n]*)\n {4}", glossary, re.M)}


class Cited(SphinxRole):
    """An entry of the bibliography, under the words that the text has for it."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        words, _, key = self.text.rpartition(" <")
        return [cited(self.rawtext, words, key=key.rstrip(">"))], []


class cited(nodes.Inline, nodes.TextElement):
    """A citation whose entry is not yet known."""


def find_entries(app: Sphinx, doctree: nodes.document, name: str) -> None:
    plain = pybtex.plugin.find_plugin("pybtex.backends", "plaintext")()
    domain: Any = app.env.get_domain("cite")
    entries = {entry.key: entry for entry in domain.citations}
    for node in list(doctree.findall(cited)):
        entry = entries.get(node["key"])
        words = nodes.inline("", node.astext())
        if entry is None:
            logger.warning("no entry of the bibliography: %s", node["key"], location=node)
            node.replace_self(words)
            continue
        page = app.builder.get_relative_uri(name, entry.bibliography_key.docname)
        link = nodes.reference("", "", words, internal=True, refuri=f"{page}#{entry.citation_id}")
        link["reftitle"] = entry.tooltip_entry.text.render(plain)
        node.replace_self(link)


def read(app: Sphinx, name: str, content: list[str]) -> None:
    """Before a page is read: a notebook as MyST."""
    if app.env.doc2path(name).endswith(".ipynb"):
        content[0] = as_myst(content[0])


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_role("cited", Cited())
    app.connect("source-read", read)
    app.connect("doctree-resolved", find_entries)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
