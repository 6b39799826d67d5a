"""The glossary: each term once, in order, and linked from a chapter."""

from __future__ import annotations

import re
from pathlib import Path

from portable import anchor_of
from verification import text_of

BOOK = Path(__file__).resolve().parents[2] / "book"
GLOSSARY = (BOOK / "glossary.md").read_text(encoding="utf-8")
TERMS = re.findall(r"^(\w[^\n]*)\n    \S", GLOSSARY, re.MULTILINE)


def test_the_terms_are_in_order_each_once() -> None:
    assert len(TERMS) >= 20
    assert sorted(TERMS, key=str.lower) == TERMS
    assert len({term.lower() for term in TERMS}) == len(TERMS)


def test_every_term_is_linked_from_a_chapter() -> None:
    linked = set()
    for page in BOOK.glob("*.ipynb"):
        linked |= set(re.findall(r"\]\(glossary\.md#([\w-]+)\)", text_of(page)))
    assert linked == {anchor_of(term) for term in TERMS}
