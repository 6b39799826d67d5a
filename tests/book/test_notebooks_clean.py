"""Notebooks are sources: no output but what nbval compares, and cells a reader can take in.

That the recorded outputs are still true is nbval's to say, which runs every notebook beside these
tests (DESIGN: notebooks as tests).
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from teaching import words_of

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
NOTEBOOKS = sorted(BOOK.glob("*.ipynb"))
LONGEST_CELL = 25
FOLDED = {"hide-input", "hide-cell"}
CHECKED = "nbval-check-output"
#: Of the main line: what is folded, optional, an exercise or a formula is not counted.
MOST_WORDS = 3_500


def _problems_of_cell(cell: NotebookNode) -> list[str]:
    tags = set(cell.metadata.get("tags", []))
    problems = []
    if cell.execution_count is not None:
        problems.append("has an execution count")
    if len(cell.source.splitlines()) > LONGEST_CELL and not tags & FOLDED:
        problems.append(f"is longer than {LONGEST_CELL} lines and not folded")
    if CHECKED not in tags and cell.outputs:
        problems.append(f"has outputs and is not tagged {CHECKED}")
    if CHECKED in tags and not cell.outputs:
        problems.append(f"is tagged {CHECKED} and has nothing recorded")
    for output in cell.outputs:
        if output.output_type != "stream" and set(output.get("data", {})) != {"text/plain"}:
            problems.append("records more than text, which nbval cannot compare")
        if output.get("execution_count") is not None:
            problems.append("has an execution count in its output")
        if output.output_type == "stream" and output.name != "stdout":
            problems.append("records a complaint on stderr")
    if re.search(r";\s*$", cell.source):
        problems.append("ends with a semicolon, which changes the outputs; write `_ =`")
    return problems


def _imports_gmmedu(source: str) -> bool:
    names: list[str] = []
    for node in ast.walk(ast.parse(re.sub(r"(?m)^\s*[%!].*$", "", source))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
    return any(name.split(".")[0] == "gmmedu" for name in names)


def problems(notebook: NotebookNode) -> list[str]:
    """What keeps a notebook from being a clean source, each with the number of its cell."""
    found = []
    kernel = notebook.metadata.get("kernelspec", {}).get("name")
    if kernel != "python3":
        found.append(f"its kernel is {kernel!r}, not 'python3'")
    if "widgets" in notebook.metadata:
        found.append("it keeps the state of widgets")
    code = [(i, cell) for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    if not any(_imports_gmmedu(cell.source) for _, cell in code):
        found.append("it does not import gmmedu")
    if not any(CHECKED in cell.metadata.get("tags", []) for _, cell in code):
        found.append(f"none of its cells is tagged {CHECKED}")
    for i, cell in code:
        found += [f"cell {i} {problem}" for problem in _problems_of_cell(cell)]
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_is_clean(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert not problems(notebook), "\n".join(problems(notebook))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_chapter_is_read_in_one_sitting(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert 500 < words_of(notebook) <= MOST_WORDS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_at_most_a_quarter_of_the_code_is_folded(path: Path) -> None:
    code = [
        tags
        for cell in nbformat.read(path, as_version=4).cells
        if cell.cell_type == "code" and "remove-cell" not in (tags := cell.metadata.get("tags", []))
    ]
    main = [tags for tags in code if "solution" not in tags]
    assert sum(bool(FOLDED & set(tags)) for tags in main) <= len(main) / 4


def test_only_the_main_line_is_counted() -> None:
    aside = "<details>\n<summary>more</summary>\n\nfour words and more\n\n</details>"
    text = f"# Title\n\nTwo $x + y$ [words](a.md#b).\n\n$$\na b c\n$$\n\n{aside}\n\n"
    rest = "## Aside (optional)\n\nnot these\n\n### nor\n\n## Summary\n\nYes.\n\n## Exercises\n\nno"
    assert words_of(new_notebook(cells=[new_markdown_cell(text + rest)])) == 6


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


def _notebook(*cells: NotebookNode, kernel: str = "python3") -> NotebookNode:
    first = new_code_cell("import gmmedu")
    checked = new_code_cell(
        "print(1)",
        metadata={"tags": [CHECKED]},
        outputs=[new_output("stream", name="stdout", text="1\n")],
    )
    return new_notebook(
        cells=[new_markdown_cell("# Title"), first, checked, *cells],
        metadata={"kernelspec": {"name": kernel, "display_name": "Python 3"}},
    )


def test_a_clean_notebook_has_no_problems() -> None:
    assert problems(_notebook(new_code_cell("x = 1"))) == []


@pytest.mark.parametrize(
    ("notebook", "problem"),
    [
        (_notebook(kernel="conda-env"), "kernel"),
        (_notebook(new_code_cell("1", execution_count=3)), "execution count"),
        (_notebook(new_code_cell("x = 1\n" * 26)), "longer than"),
        (_notebook(new_code_cell("1", outputs=[new_output("stream", text="1")])), "not tagged"),
        (_notebook(new_code_cell("1", metadata={"tags": [CHECKED]})), "nothing recorded"),
        (
            _notebook(
                new_code_cell(
                    "plot()",
                    metadata={"tags": [CHECKED]},
                    outputs=[new_output("display_data", {"image/png": "AAAA"})],
                )
            ),
            "more than text",
        ),
        (_notebook(new_code_cell("plot();")), "semicolon"),
        (new_notebook(cells=[new_code_cell("import torch")]), "does not import gmmedu"),
        (new_notebook(cells=[new_code_cell("import gmmedu")]), "none of its cells"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_unclean_notebook_is_told_so(notebook: NotebookNode, problem: str) -> None:
    assert any(problem in found for found in problems(notebook)), problems(notebook)


def test_a_long_cell_may_be_folded() -> None:
    folded = new_code_cell("x = 1\n" * 30, metadata={"tags": ["hide-input"]})
    assert problems(_notebook(folded)) == []


@pytest.mark.slow
def test_nbval_compares_what_is_recorded(tmp_path: Path) -> None:
    for name, recorded in (("right", "1\n"), ("wrong", "2\n")):
        notebook = _notebook()
        # Without the import of the package, which takes longer than all the rest.
        notebook.cells = notebook.cells[-1:]
        notebook.cells[0].outputs[0].text = recorded
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    shutil.copy(ROOT / "conftest.py", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "right.ipynb", "wrong.ipynb"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1, done.stdout + done.stderr
    verdicts = re.findall(r"^(PASSED|FAILED) (\w+)\.ipynb", done.stdout, re.MULTILINE)
    assert verdicts == [("PASSED", "right"), ("FAILED", "wrong")], done.stdout + done.stderr
    assert "Traceback:" in done.stdout and "mismatch" in done.stdout
