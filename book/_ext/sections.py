"""The sections of the book as a search finds them, written when the book is built.

Sphinx's own index knows which page has a word. A page here is a chapter, so `sections.js` lists
for each page its sections, exercises, terms, entries of the bibliography and names of the package,
each with its anchor, its title and its words: no formula, no code, no solution. `search.js` reads
it.
"""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

from sphinx.application import Sphinx

#: What has no end tag, what begins a line, and what holds no words that a search should show.
VOID = {"br", "col", "hr", "img", "input", "wbr"}
BREAKS = {"br", "dd", "div", "li", "p", "td", "th"}
SILENT_TAGS = {"button", "nav", "pre", "script", "style", "svg"}
SILENT = {"headerlink", "cell_input", "gm-run", "gm-static", "solution"}
HEADINGS = {"h1", "h2", "h3", "h4", "h5", "h6"}


class Entry(NamedTuple):
    """What a result leads to."""

    anchor: str
    title: list[str]
    words: list[str]


class Entries(HTMLParser):
    """The entries of one page, in its order.

    Of each open element the stack has the entry that what follows belongs to, and where its text
    goes: to the entry's title, to its words, or nowhere.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Entry] = []
        self.nowhere: list[str] = []
        top = Entry("", [], [])
        self.open: list[tuple[str, Entry, list[str]]] = [("", top, top.words)]

    def begin(self, anchor: str) -> Entry:
        self.found.append(Entry(anchor, [], []))
        return self.found[-1]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in BREAKS:
            self.open[-1][2].append(" ")
        if tag in VOID:
            return
        attributes = dict(attrs)
        anchor, classes = attributes.get("id"), set((attributes.get("class") or "").split())
        parent, entry, sink = self.open[-1]
        if sink is self.nowhere or tag in SILENT_TAGS or classes & SILENT:
            sink = self.nowhere
        elif "math" in classes:
            sink.append(" … ")
            sink = self.nowhere
        elif anchor and (
            classes & {"exercise", "citation"}
            or (tag == "section" and anchor != "exercise-content")
        ):
            entry = self.begin(anchor)
            sink = entry.words
        elif anchor and tag == "dt":
            # What is said of a term stands beside it, in the list that holds both.
            entry = self.begin(anchor)
            self.open[-1] = (parent, entry, entry.words)
            sink = entry.title
            if "sig" in classes:
                entry.title.append(anchor)
                sink = self.nowhere
        elif not entry.title and (tag in HEADINGS or "admonition-title" in classes):
            sink = entry.title
        self.open.append((tag, entry, sink))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1][2].append(data)


def entries_of(html: str) -> list[tuple[str, str, str]]:
    """Anchor, title and words of each entry of a built page."""
    entries = Entries()
    # Most of a page is pictures and the values of interactives.
    article = html.partition("<article")[2].partition("</article>")[0]
    entries.feed("<article" + re.sub(r' src="data:[^"]*"', "", article) + "</article>")
    assert len(entries.open) == 1, f"a tag is not closed: {entries.open[1:]}"
    return [(entry.anchor, _plain(entry.title), _plain(entry.words)) for entry in entries.found]


def _plain(texts: list[str]) -> str:
    """One line; formulas that follow one another leave one gap."""
    text = " ".join("".join(texts).split())
    return re.sub(r"…(?: [^\w…]? ?…)+", "…", text)


def write_sections(app: Sphinx, failure: Exception | None) -> None:
    if app.builder.name != "html" or failure:
        return
    out = Path(app.outdir)
    pages: list[Any] = []
    for name in sorted(app.env.found_docs):
        entries = entries_of((out / f"{name}.html").read_text("utf-8"))
        pages.append([name, entries])
    text = json.dumps(pages, ensure_ascii=False, separators=(",", ":"))
    (out / "_static" / "sections.js").write_text(f"globalThis.gmSections = {text};\n", "utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("build-finished", write_sections)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
