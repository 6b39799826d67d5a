"""What a class gets: the notebooks as they are, less the solutions."""

from __future__ import annotations

from pathlib import Path

import handout
import nbformat
import pytest
from portable import EXERCISE, SOLUTION

CHAPTERS = sorted(handout.BOOK.glob("[0-9][0-9]-*.ipynb"))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "handout"
    handout.main(folder)
    return folder


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_nothing_but_solutions_is_missing(written: Path, path: Path) -> None:
    whole = nbformat.read(path, as_version=4)
    handed = nbformat.read(written / path.name, as_version=4)
    nbformat.validate(handed)
    kept = {cell.id for cell in handed.cells}
    missing = [cell for cell in whole.cells if cell.id not in kept]
    for cell in missing:
        solves = cell.cell_type == "markdown" and "<summary>Solution of exercise" in cell.source
        assert solves or "solution" in cell.metadata.tags, cell.id
    text = "\n".join(cell.source for cell in handed.cells)
    assert not SOLUTION.search(text) and "confirm(" not in text
    exercises = [cell for cell in handed.cells if EXERCISE.match(cell.source)]
    asked = [cell for cell in handed.cells if 'check("' in cell.source]
    assert len(exercises) == len(asked)
    assert bool(missing) == bool(exercises)


def test_every_chapter_is_handed_out(written: Path) -> None:
    assert sorted(path.name for path in written.iterdir()) == [path.name for path in CHAPTERS]
