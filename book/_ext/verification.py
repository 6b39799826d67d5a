"""The table of numbered equations, each beside the test that proves it and the error it found.

``{verification}`` stands for the table. The equations are read from the chapters, the proofs are
run (tests marked ``@verifies``), and what those of a module found is kept under ``_build`` until
the package, the module, what all proofs share or the pinned set change.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

import gmmedu_book
import portable

ROOT = Path(__file__).resolve().parents[2]
PROOFS = "tests/equations"


@dataclass(frozen=True)
class Equation:
    label: str
    page: Path
    latex: str


@dataclass(frozen=True)
class Proof:
    """One test: how it proves, over how many comparisons, and the largest error among them."""

    test: str
    how: str
    comparisons: int
    found: float
    allowed: float
    unit: str

    @property
    def outcome(self) -> str:
        if self.unit == "standard errors":
            return f"{self.found:.1f} standard errors ({self.allowed:g} allowed)"
        if not self.allowed:
            return "none (none allowed)"
        return f"{self.found:.1e} ({self.allowed:.0e} allowed)"


def text_of(page: Path) -> str:
    """The Markdown of a page, cell by cell where it is a notebook."""
    text = page.read_text(encoding="utf-8")
    if page.suffix != ".ipynb":
        return text
    cells = json.loads(text)["cells"]
    return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


def equations_of(page: Path) -> list[Equation]:
    """The labeled equations of a page, in order."""
    return [
        Equation(
            match["label"],
            page,
            _dedent(match["latex"], len(match["indent"])),
        )
        for match in portable.EQUATION.finditer(text_of(page))
    ]


def title_of(page: Path) -> str:
    title = re.search(r"^# (.+)$", text_of(page), re.MULTILINE)
    return title[1] if title else page.stem


def proofs(root: Path = ROOT) -> dict[str, list[Proof]]:
    """The proofs of each label. Those of a module are run, unless they have passed on the very same
    files, in the tests too.

    Raises RuntimeError when one fails, with what it says.
    """
    records = {module: record_of(module, root) for module in modules(root)}
    missing = [str(module) for module, record in records.items() if not record.exists()]
    if missing:
        # Without the options of `make test`: here there may be no nbval.
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        command += ["-o", "addopts=--strict-markers", *missing]
        # Options of one's own might leave some of them out.
        environment = {**os.environ, "PYTEST_ADDOPTS": ""}
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, env=environment)
        if done.returncode or not all(record.exists() for record in records.values()):
            raise RuntimeError(f"a proof of an equation failed:\n{done.stdout}{done.stderr}")
    return read(records.values())


def modules(root: Path) -> list[Path]:
    """The modules of proofs."""
    return sorted((root / PROOFS).glob("test_*.py"))


def record_of(module: Path, root: Path) -> Path:
    """Where what its proofs found is kept, for this state of what they depend on."""
    shared = [root / "conftest.py", root / "tests" / "reference.py"]
    shared += [module.parent / name for name in ("conftest.py", "proof.py")]
    digest = gmmedu_book.digest([*gmmedu_book.engine(root), *shared, module], root)
    return root / "_build" / ".proofs" / f"{module.stem}-{digest}.json"


def keep(module: Path, found: Iterable[tuple[str, list[tuple[str, Any]]]], root: Path) -> None:
    """Keep what the tests of a module have noted of themselves, once all have passed."""
    record = record_of(module, root)
    record.parent.mkdir(parents=True, exist_ok=True)
    fresh = record.with_suffix(f".{os.getpid()}")
    named = [(f"{module.name}::{name}", noted) for name, noted in found]
    fresh.write_text(json.dumps(named), encoding="utf-8")
    fresh.replace(record)
    for old in record.parent.glob(f"{module.stem}-*.json"):
        if old != record:
            old.unlink(missing_ok=True)


def read(records: Iterable[Path]) -> dict[str, list[Proof]]:
    """The proofs of each label, from what was kept."""
    noted: dict[tuple[str, str], list[tuple[str, float, float]]] = {}
    how: dict[str, str] = {}
    for record in records:
        for test, properties in json.loads(record.read_text(encoding="utf-8")):
            for label in (value for name, value in properties if name == "label"):
                for name, value in properties:
                    if name == "how":
                        how[test] = value
                    elif name != "label":
                        found, allowed = map(float, value.split())
                        noted.setdefault((label, test), []).append((name, found, allowed))
    result: dict[str, list[Proof]] = {}
    for (label, test), all_of_it in noted.items():
        # Where no error is allowed, none was found, or there would be no record.
        unit, found, allowed = max(all_of_it, key=lambda e: e[1] / e[2] if e[2] else 0.0)
        proof = Proof(test, how[test], len(all_of_it), found, allowed, unit)
        result.setdefault(label, []).append(proof)
    return result


def table(pages: Iterable[Path], proved: dict[str, list[Proof]]) -> Iterator[str]:
    """MyST lines: for each page with labeled equations a heading and a table."""
    for page in pages:
        equations = equations_of(page)
        if not equations:
            continue
        yield from (f"## [{title_of(page)}]({page.name})", "")
        yield from (
            "````{list-table}",
            ":header-rows: 1",
            ":class: verification",
        )
        yield from (
            ":widths: 54 30 16",
            "",
            "* - Equation",
            "  - Proved by",
            "  - Largest error",
        )
        for equation in equations:
            cell = [
                f"{{eq}}`{equation.label}` `{equation.label}`",
                "",
                "```{math}",
            ]
            cell += [*equation.latex.splitlines(), "```"]
            for proof in proved.get(equation.label, []):
                yield from _item("* - ", cell)
                count = f"{proof.comparisons} comparison" + "s" * (proof.comparisons != 1)
                yield from _item(
                    "  - ",
                    [f"{proof.how} ({count})", "", f"`{proof.test}`"],
                )
                yield from _item("  - ", [proof.outcome])
                cell = [""]
        yield from ("````", "")


def _item(bullet: str, lines: list[str]) -> Iterator[str]:
    for i, line in enumerate(lines):
        yield (bullet if i == 0 else "    ") + line


def _dedent(text: str, indent: int) -> str:
    return "\n".join(line[indent:] for line in text.splitlines())


class VerificationTable(SphinxDirective):
    """``{verification}``: the table of all pages of the book, in the order of their names."""

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()  # it changes when any chapter or any proof does
        book = Path(self.env.doc2path(self.env.docname)).parent
        listed = {Path(self.env.doc2path(name)) for name in self.env.found_docs}
        pages = sorted(p for p in listed if p.parent == book and p.stem != "verification")
        try:
            proved = proofs()
        except RuntimeError as error:
            logging.getLogger(__name__).warning(str(error), location=self.get_location())
            proved = {}
        for equation in (e for page in pages for e in equations_of(page)):
            if equation.label not in proved:
                logging.getLogger(__name__).warning(
                    f"no test verifies {equation.label}",
                    location=self.get_location(),
                )
        container = nodes.container()
        container.document = self.state.document
        lines = StringList(list(table(pages, proved)), source=str(Path(__file__)))
        self.state.nested_parse(lines, self.content_offset, container, match_titles=True)
        return container.children


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("verification", VerificationTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
