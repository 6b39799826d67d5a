"""The notebooks as a class gets them (`make handout`): without the solutions of the exercises.

Everything else stays, the cells in which an exercise is answered and checked too. They are written
to _build/handout and run wherever the book's own do.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import nbformat

import portable

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"


def solves(cell: Any) -> bool:
    """Whether a cell is (part of) the solution of an exercise."""
    if cell.cell_type != "markdown":
        return "solution" in cell.metadata.get("tags", ())
    details = portable.DETAILS.match(cell.source)
    return bool(details and portable.SOLUTION.match(details["summary"]))


def without_solutions(notebook: Any) -> Any:
    """The notebook, less the cells that solve its exercises."""
    cells = [cell for cell in notebook.cells if not solves(cell)]
    return nbformat.from_dict({**notebook, "cells": cells})


def main(build: Path = ROOT / "_build" / "handout") -> None:
    shutil.rmtree(build, ignore_errors=True)
    build.mkdir(parents=True)
    for path in sorted(BOOK.glob("[0-9][0-9]-*.ipynb")):
        nbformat.write(without_solutions(nbformat.read(path, as_version=4)), build / path.name)
    print(f"The notebooks without solutions are in {build}.")


if __name__ == "__main__":
    main()
