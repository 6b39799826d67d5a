"""The build believes no stale output and no page that warned, and keeps plain docstrings."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import gmmedu_book
import pytest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "constraints.txt").write_text("torch==2.13.0\n")
    (tmp_path / "gmmedu" / "data").mkdir(parents=True)
    (tmp_path / "gmmedu" / "em.py").write_text("step = 1\n")
    (tmp_path / "gmmedu" / "data" / "points.csv").write_text("1,2\n")
    return tmp_path


@pytest.mark.parametrize(
    "name", ["constraints.txt", "gmmedu/em.py", "gmmedu/data/points.csv", "gmmedu/new.py"]
)
def test_a_change_of_what_outputs_depend_on_changes_the_cache(root: Path, name: str) -> None:
    before = gmmedu_book.fingerprint(root)
    assert gmmedu_book.fingerprint(root) == before
    (root / name).write_text("changed\n")
    assert gmmedu_book.fingerprint(root) != before


def test_compiled_files_do_not(root: Path) -> None:
    before = gmmedu_book.fingerprint(root)
    (root / "gmmedu" / "__pycache__").mkdir()
    (root / "gmmedu" / "__pycache__" / "em.pyc").write_bytes(b"x")
    assert gmmedu_book.fingerprint(root) == before


def test_the_device_does(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GMMEDU_DEVICE", "cpu")
    before = gmmedu_book.fingerprint(root)
    monkeypatch.setenv("GMMEDU_DEVICE", "cuda")
    assert gmmedu_book.fingerprint(root) != before


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
