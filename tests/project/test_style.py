"""Lint, format, types and spelling, notebooks too: what a reader would stumble over."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    ["ruff check", "ruff format --check --diff", "mypy", "codespell_lib"],
    ids=["lint", "format", "types", "spelling"],
)
def test_the_source_is_clean(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command.split()], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
