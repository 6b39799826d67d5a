"""Exercises on the pages: numbered in order, each solved, each solution checked."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from portable import EXERCISE, SOLUTION

from gmmbook.exercises import identifiers

BOOK = Path(__file__).resolve().parents[2] / "book"
#: All but the first look, which has none.
CHAPTERS = sorted(set(BOOK.glob("[0-9][0-9]-*.ipynb")) - set(BOOK.glob("00-*.ipynb")))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_the_exercises_of_a_chapter(path: Path) -> None:
    chapter = path.stem[:2]
    notebook = nbformat.read(path, as_version=4)
    exercises = [EXERCISE.match(c.source) for c in notebook.cells if c.cell_type == "markdown"]
    numbers = [f"{e['chapter']}-{e['place']}" for e in exercises if e]
    assert len(numbers) >= 5
    assert numbers == [f"{chapter}-{i}" for i in range(1, len(numbers) + 1)]
    assert numbers == [name for name in identifiers() if name.startswith(f"{chapter}-")]
    page = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    solved = SOLUTION.findall(page)
    assert list(dict.fromkeys(f"{int(c):02d}-{place}" for c, place in solved)) == numbers
    code = [c for c in notebook.cells if c.cell_type == "code"]
    for name in numbers:
        asked = [c.source for c in code if f'check("{name}"' in c.source]
        assert len(asked) == 1 and "..." in asked[0], f"{name} has no cell to answer in"
        confirmed = [c for c in code if f'confirm("{name}"' in c.source]
        assert len(confirmed) == 1, f"the solution of {name} is not checked"
        assert "solution" in confirmed[0].metadata.tags
    for cell in code:
        if "solution" in cell.metadata.get("tags", ()):
            assert cell.metadata.jupyter == {"source_hidden": True, "outputs_hidden": True}


def test_there_are_chapters_with_exercises() -> None:
    assert len(CHAPTERS) >= 4
    assert {name[:2] for name in identifiers()} == {path.stem[:2] for path in CHAPTERS}
