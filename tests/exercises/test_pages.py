"""Exercises on the pages: numbered in order, each solved, each solution checked."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest

from gmmbook.exercises import identifiers

CHAPTERS = sorted((Path(__file__).resolve().parents[2] / "book").glob("0[1-9]-*.ipynb"))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_the_exercises_of_a_chapter(path: Path) -> None:
    chapter = path.stem[:2]
    notebook = nbformat.read(path, as_version=4)
    texts = [(c.cell_type, c.source, c) for c in notebook.cells]
    page = "\n\n".join(source for kind, source, _ in texts if kind == "markdown")
    numbers = re.findall(r"\{exercise(?:-start)?\}[^\n]*\n:label: exercise-(\S+)", page)
    assert len(numbers) >= 5
    assert numbers == [f"{chapter}-{i}" for i in range(1, len(numbers) + 1)]
    assert numbers == [name for name in identifiers() if name.startswith(f"{chapter}-")]
    assert re.findall(r"\{solution-start\} exercise-(\S+)\n:class: dropdown", page) == numbers
    assert page.count("{solution-end}") == len(numbers)
    for name in numbers:
        cells = [c for kind, source, c in texts if kind == "code" and f'check("{name}"' in source]
        assert any("..." in c.source for c in cells), f"{name} has no cell to answer in"
        recorded = "".join(
            output.get("text", "") or output.get("data", {}).get("text/plain", "")
            for c in cells
            if "nbval-check-output" in c.metadata.get("tags", [])
            for output in c.outputs
        )
        assert f"{name}: right." in recorded, f"the solution of {name} is not checked"


def test_there_are_chapters_with_exercises() -> None:
    assert len(CHAPTERS) >= 4
    assert {name[:2] for name in identifiers()} == {path.stem[:2] for path in CHAPTERS}
