"""The build believes no stale output and no page that warned, and keeps plain docstrings."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import gmmedu_book
import nbformat
import pytest
from jupyter_cache import get_cache
from myst_nb.core.config import NbParserConfig
from nbformat.v4 import new_code_cell, new_notebook

KERNEL = {"name": "python3", "display_name": "Python 3"}
CHAPTERS = ("05-descent", "06-em")
# Each waits until both have begun, so that one after the other they would never end.
CODE = """
import pathlib, time
pathlib.Path("{own}.begun").touch()
while len(list(pathlib.Path().glob("*.begun"))) < 2:
    time.sleep(0.05)
print("ran")
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A book of two notebooks and a page, with what their outputs depend on."""
    texts = {"constraints.txt": "torch==2.13.0", "gmmedu/em.py": "step = 1", "book/index.md": "# I"}
    texts["gmmedu/data/points.csv"] = "1,2"
    texts["book/gmmbook/widgets/js/1-math.js"] = texts["book/gmmbook/source.py"] = "show"
    for chapter in CHAPTERS:
        texts[f"book/gmmbook/exercises/chapter{chapter[:2]}.py"] = "EXERCISES = {}"
        texts[f"book/gmmbook/figures/chapter{chapter[:2]}.py"] = "draw"
        cells = [new_code_cell(CODE.format(own=chapter))]
        notebook = new_notebook(cells=cells, metadata={"kernelspec": KERNEL})
        texts[f"book/{chapter}.ipynb"] = nbformat.writes(notebook)
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


class Build:
    """As much of Sphinx as decides what is run: it reads what is outdated, and remembers."""

    def __init__(self, root: Path) -> None:
        self.srcdir, self.outdir = root, root / "_build" / "html"
        self.config = SimpleNamespace(nb_execution_timeout=60)
        pages = {f"book/{path.stem}": path for path in (root / "book").glob("*.*")}
        self.env = SimpleNamespace(
            found_docs=set(pages),
            doc2path=lambda name: str(pages[name]),
            metadata=defaultdict(dict),
            mystnb_config=NbParserConfig(execution_mode="cache"),
        )

    def run(self) -> list[str]:
        """Read what is outdated, as Sphinx would; what that was."""
        app = cast(Any, self)
        names = sorted(gmmedu_book.find_outdated(app, app.env))
        gmmedu_book.run_notebooks(app, app.env, names)
        for name in names:
            gmmedu_book.name_cache(app, name, [])
            cache = get_cache(app.env.mystnb_config.execution_cache_path)
            notebook = nbformat.read(app.env.doc2path(name), as_version=4)
            _, notebook = cache.merge_match_into_notebook(notebook)
            assert notebook.cells[0].outputs[0].text == "ran\n"
        return [name.removeprefix("book/") for name in names]


@pytest.mark.slow
def test_notebooks_run_side_by_side_and_again_only_for_what_they_depend_on(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    build = Build(root)
    assert build.run() == list(CHAPTERS)
    assert build.run() == []
    (root / "book" / "gmmbook" / "exercises" / "chapter05.py").write_text("EXERCISES = {1: 2}")
    assert build.run() == ["05-descent"]
    (root / "book" / "gmmbook" / "source.py").write_text("show less")
    assert build.run() == list(CHAPTERS)


@pytest.mark.slow
def test_a_notebook_that_fails_keeps_no_outputs(root: Path) -> None:
    notebook = new_notebook(cells=[new_code_cell("1 / 0")], metadata={"kernelspec": KERNEL})
    nbformat.write(notebook, root / "book" / "05-descent.ipynb")
    build = cast(Any, Build(root))
    gmmedu_book.run_notebooks(build, build.env, ["book/05-descent"])
    cache = get_cache(gmmedu_book.cache_of(build, root / "book" / "05-descent.ipynb"))
    with pytest.raises(KeyError):
        cache.match_cache_notebook(notebook)


@pytest.mark.parametrize(
    ("name", "outdated"),
    [
        ("constraints.txt", CHAPTERS),
        ("gmmedu/em.py", CHAPTERS),
        ("gmmedu/data/points.csv", CHAPTERS),
        ("gmmedu/new.py", CHAPTERS),
        ("book/gmmbook/source.py", CHAPTERS),
        ("book/gmmbook/widgets/js/1-math.js", CHAPTERS),
        ("book/gmmbook/exercises/checkers.py", CHAPTERS),
        ("book/gmmbook/exercises/chapter06.py", ["06-em"]),
        ("book/gmmbook/figures/chapter05.py", ["05-descent"]),
        ("book/gmmbook/figures/chapter07.py", []),
        ("gmmedu/__pycache__/em.pyc", []),
        ("book/gmmbook/.ruff_cache/0.1/1", []),
        ("book/index.md", []),
    ],
)
def test_a_change_outdates_the_outputs_that_depend_on_it(
    root: Path, name: str, outdated: list[str]
) -> None:
    build = cast(Any, Build(root))
    for page in build.env.found_docs:
        gmmedu_book.name_cache(build, page, [])
    assert gmmedu_book.find_outdated(build, build.env) == []
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("changed")
    found = gmmedu_book.find_outdated(build, build.env)
    assert found == [f"book/{chapter}" for chapter in outdated]


def test_another_device_outdates_all_outputs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = cast(Any, Build(root))
    for device, outdated in (("cpu", 2), ("cpu", 0), ("cuda", 2)):
        monkeypatch.setenv("GMMEDU_DEVICE", device)
        assert len(gmmedu_book.find_outdated(build, build.env)) == outdated
        for page in build.env.found_docs:
            gmmedu_book.name_cache(build, page, [])


@pytest.mark.parametrize(("warnings", "kept"), [(0, True), (1, False)])
def test_a_build_that_warned_is_forgotten(tmp_path: Path, warnings: int, kept: bool) -> None:
    remembered = tmp_path / "environment.pickle"
    remembered.write_bytes(b"")
    app = SimpleNamespace(_warncount=warnings, doctreedir=tmp_path)
    gmmedu_book.forget_warnings(cast(Any, app), None)
    assert remembered.exists() == kept


def test_bars_of_a_docstring_stay_bars() -> None:
    lines = ["log |L| and |S|^2", "in code ``|L|`` and :math:`|L|`", "Tensor | None"]
    gmmedu_book.mend_docstring(cast(Any, None), "function", "f", None, None, lines)
    assert lines == [r"log \|L| and \|S|^2", "in code ``|L|`` and :math:`|L|`", "Tensor | None"]


def test_labels_of_a_docstring_become_links() -> None:
    lines = ["in nats (eq-gmm-nll).", "by eq-a-b, and ``eq-c`` as it is", "(eq-d, eq-e)"]
    gmmedu_book.mend_docstring(cast(Any, None), "function", "f", None, None, lines)
    assert lines == [
        "in nats :eq:`eq-gmm-nll`.",
        "by :eq:`eq-a-b`, and ``eq-c`` as it is",
        "(:eq:`eq-d`, :eq:`eq-e`)",
    ]
