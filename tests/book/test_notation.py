"""A letter has one meaning through the whole book: each that a chapter writes is in the notation.

The page has two tables, of letters that mean the same everywhere and of letters of a few sections.
What a machine can see is held here: a letter of a formula is in one of them, what means something
everywhere means nothing else anywhere, and a letter of a few sections has one meaning in a chapter,
and is written in the chapters that its rows name and in no other.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import nbformat

BOOK = Path(__file__).resolve().parents[2] / "book"
GREEK = set(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta kappa lambda mu nu xi pi rho sigma "
    "tau phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega ell".split()
)
FORMULA = re.compile(r"\$\$(.*?)\$\$|(?<![\\$])\$([^$]+)\$", re.DOTALL)
CHAPTER = re.compile(r"\]\(([\w-]+\.ipynb)\)")
#: What has letters in it and is no letter of a formula.
WORDS = re.compile(
    r"\\(?:begin|end)\{\w+\*?\}(?:\{[lcr|]*\})?|\\tag\{[^}]*\}"
    r"|\\(?:text|mathrm|operatorname\*?)\{[^}]*\}"
)
LETTER = re.compile(
    r"\\(?P<face>mathbf|boldsymbol|mathcal|mathbb)\{\\?(?P<of>[A-Za-z]+)\}"
    r"|\\(?P<command>[A-Za-z]+)|(?P<plain>[A-Za-z])"
)


def letters(formula: str) -> list[str]:
    """The letters of a formula, each with its face: L and bold L are two."""
    found = []
    for match in LETTER.finditer(WORDS.sub(" ", formula)):
        if match["face"]:
            bold = match["face"] in ("mathbf", "boldsymbol")
            found.append(("bold " if bold else f"{match['face']} ") + match["of"])
        elif match["plain"] or match["command"] in GREEK:
            found.append(match["plain"] or match["command"])
    return found


def written() -> dict[str, set[str]]:
    """The chapters in which each letter is written."""
    found = defaultdict(set)
    for path in sorted(BOOK.glob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        text = "\n\n".join(c.source for c in cells if c.cell_type == "markdown")
        for display, inline in FORMULA.findall(re.sub(r"`[^`]*`", "", text)):
            for letter in letters(display or inline):
                found[letter].add(path.name)
    return found


def tables() -> tuple[list[str], dict[str, set[str]]]:
    """Letters that mean the same everywhere, and the chapters of the others."""
    text = (BOOK / "notation.md").read_text("utf-8")
    everywhere, here = (
        re.findall(r"^\| (\$.*?)\|(.*)\|$", text.partition(title)[2].partition("\n#")[0], re.M)
        for title in ("## Symbols", "## Letters of a few sections")
    )
    first = [letters(formula[1])[0] for cell, _ in everywhere for formula in FORMULA.findall(cell)]
    local: dict[str, set[str]] = defaultdict(set)
    for cell, rest in here:
        for formula in FORMULA.findall(cell):
            letter, chapters = letters(formula[1])[0], set(CHAPTER.findall(rest))
            again = local[letter] & chapters
            assert not again, f"{letter} has two meanings in {sorted(again)}"
            local[letter] |= chapters
    return first, dict(local)


def test_a_letter_is_found_with_its_face() -> None:
    formula = r"\mathbf{L}_k L \sigma_{\min} \operatorname{tr} \mathbb{E}[\boldsymbol{\mu}]"
    assert letters(formula) == ["bold L", "k", "L", "sigma", "mathbb E", "bold mu"]


def test_each_letter_of_a_formula_has_one_meaning() -> None:
    everywhere, local = tables()
    both = set(everywhere) & local.keys()
    assert not both, f"these mean something everywhere, and something else here: {sorted(both)}"
    unexplained = {
        letter: sorted(chapters - local.get(letter, set()))
        for letter, chapters in written().items()
        if letter not in everywhere and chapters - local.get(letter, set())
    }
    assert not unexplained, unexplained


def test_no_letter_is_explained_that_is_not_written() -> None:
    everywhere, local = tables()
    found = written()
    assert [letter for letter in everywhere if letter not in found] == []
    idle = {letter: sorted(at - found[letter]) for letter, at in local.items()}
    assert not {letter: at for letter, at in idle.items() if at}
