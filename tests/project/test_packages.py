"""Two packages: the engine knows nothing of the book, and whatever is imported is declared."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from project.test_project import PROJECT, ROOT

#: Where code is, and the extras that are installed where it runs.
PLACES = {
    "gmmedu/**/*.py": ("sklearn",),
    "book/gmmbook/**/*.py": ("notebooks",),
    "book/*.ipynb": ("notebooks",),
    "book/_ext/*.py": ("notebooks", "book", "pdf", "slides"),
    "tests/**/*.py": ("notebooks", "book", "pdf", "test"),
    "benchmarks/**/*.py": ("notebooks", "bench"),
}
#: What is the project's own, and not for the engine.
OWN = ["gmmbook", "benchmarks"] + [
    path.stem for place in ("tests/*", "book/_ext/*") for path in ROOT.glob(place)
]
# What a notebook has and a terminal has not; the figures come in when gmmedu.plot is asked for.
NOT_OF_THE_ENGINE = (
    "gmmbook matplotlib IPython ipywidgets anywidget traitlets sklearn scipy".split()
)


def _imports(code: str) -> set[str]:
    """The top-level names of all modules that the code imports, types included."""
    names = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names - {"tomllib"}


def _code_of(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    return "\n".join("".join(cell["source"]) for cell in cells)


def _declared(extras: tuple[str, ...]) -> set[str]:
    groups = PROJECT["project"]["optional-dependencies"]
    lines = PROJECT["project"]["dependencies"] + sum((groups[extra] for extra in extras), [])
    if "bench" in extras:
        peers = (ROOT / "benchmarks" / "peers.txt").read_text(encoding="utf-8")
        lines += [line.split("#")[0] for line in peers.splitlines() if line[:1].isalpha()]
    return {canonicalize_name(Requirement(line).name) for line in lines}


def _undeclared(names: set[str], declared: set[str]) -> set[str]:
    """The names that no declared distribution installs; one that is not here goes by its name."""
    installs = importlib.metadata.packages_distributions()
    return {
        name
        for name in names
        if not declared & {canonicalize_name(each) for each in installs.get(name, [name])}
    }


@pytest.mark.parametrize("place", PLACES)
def test_what_is_imported_is_declared(place: str) -> None:
    files = list(ROOT.glob(place))
    assert files
    # A script that names what it needs in its own head is not run by the project.
    codes = [code for code in map(_code_of, files) if not code.startswith("# /// script")]
    names = set().union(*map(_imports, codes))
    names -= {"gmmedu"} if place.startswith("gmmedu") else {"gmmedu", *OWN}
    assert not _undeclared(names, _declared(PLACES[place]))


def test_an_import_that_is_not_declared_is_found() -> None:
    code = "import os\nif True:\n    from yaml.nodes import Node\nimport torch.nn as nn, gmmbook\n"
    assert _imports(code) == {"yaml", "torch", "gmmbook"}
    assert _undeclared(_imports(code), _declared(())) == {"yaml", "gmmbook"}


def test_the_engine_is_imported_without_figures_and_without_the_book() -> None:
    script = f"import sys, gmmedu; print(*({set(NOT_OF_THE_ENGINE)} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_a_chapter_uses_no_other_chapter_s_files() -> None:
    """Its outputs are kept until its own files change (``gmmedu_book.sources``)."""
    book = ROOT / "book"
    for path in [*book.glob("*.ipynb"), *(book / "gmmbook").rglob("*.py")]:
        own = re.search(r"(?:chapter)?(\d\d)", path.stem)
        for other in re.findall(r"\bchapter(\d\d)\b", _code_of(path)):
            assert own and other == own[1], f"{path.name} names chapter{other}"


def test_both_packages_say_that_they_are_typed() -> None:
    for package in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        assert (ROOT / package / "py.typed").is_file()
