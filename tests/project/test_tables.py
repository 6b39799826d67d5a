"""The tables of figures on two pages are those of the stored records."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from project.test_project import ROOT

# In a process of its own: the benchmarks set the threads of theirs.
TABULATE = """
import sys
from pathlib import Path
from benchmarks import report
results = report.ROOT / "benchmarks" / "results"
report.ROOT = Path(sys.argv[1])
report.tabulate(results)
"""


PAGES = ("README.md", "benchmarks/README.md")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both pages, emptied of rows and filled again."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "benchmarks").mkdir()
    for name in PAGES:
        text = (ROOT / name).read_text(encoding="utf-8")
        lines = [line for line in text.splitlines(keepends=True) if not line.startswith("| ")]
        (folder / name).write_text("".join(lines), encoding="utf-8")
    subprocess.run([sys.executable, "-c", TABULATE, folder], cwd=ROOT, check=True)
    return folder


@pytest.mark.parametrize("page", PAGES)
def test_a_table_holds_what_was_measured(made: Path, page: str) -> None:
    lines = (made / page).read_text(encoding="utf-8").splitlines()
    begin, end = (i for i, line in enumerate(lines) if line.startswith("<!-- "))
    stored = (ROOT / page).read_text(encoding="utf-8")
    assert "\n".join(lines[begin : end + 1]) in stored and end > begin + 5


def test_no_test_imports_the_benchmarks() -> None:
    """Their threads would be those of all notebooks that the same worker runs."""
    for path in (ROOT / "tests").rglob("*.py"):
        lines = path.read_text(encoding="utf-8").splitlines()
        taken = [
            line for line in lines if line.startswith(("import benchmarks", "from benchmarks"))
        ]
        assert path == Path(__file__) or not taken, path
