"""The tables of figures on two pages are those of the stored records."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import report
from project.test_project import ROOT


@pytest.mark.parametrize("page", ["README.md", "benchmarks/README.md"])
def test_a_table_holds_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, page: str
) -> None:
    stored = (ROOT / page).read_text(encoding="utf-8")
    (tmp_path / "benchmarks").mkdir()
    for name in ("README.md", "benchmarks/README.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        lines = [line for line in text.splitlines(keepends=True) if not line.startswith("| ")]
        (tmp_path / name).write_text("".join(lines) if name == page else text, encoding="utf-8")
    monkeypatch.setattr(report, "ROOT", tmp_path)
    report.tabulate(ROOT / "benchmarks" / "results")
    made = (tmp_path / page).read_text(encoding="utf-8").splitlines()
    begin, end = (i for i, line in enumerate(made) if line.startswith("<!-- "))
    assert "\n".join(made[begin : end + 1]) in stored and end > begin + 5
