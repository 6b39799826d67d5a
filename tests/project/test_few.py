"""``--few``, with which `make test-fast` runs a few cases of each test."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTS = """
import pytest

@pytest.mark.parametrize("n", range(7))
def test_many(n: int) -> None: ...

@pytest.mark.parametrize("n", range(1))
def test_one(n: int) -> None: ...

def test_plain() -> None: ...
"""

#: pytest for one number after the other, in one process, which imports its plugins once.
RUNS = """
import sys
import pytest

for few in sys.argv[1:]:
    print("few", few, flush=True)
    command = ["--collect-only", "-q", f"--few={few}", "-p", "no:cacheprovider", "test_it.py"]
    print("status", int(pytest.main(command)), flush=True)
"""


@pytest.mark.slow
def test_the_first_and_the_last_case_of_each_test_are_left(tmp_path: Path) -> None:
    for name in ("conftest.py", "pyproject.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text("utf-8"), "utf-8")
    (tmp_path / "test_it.py").write_text(TESTS)
    done = subprocess.run(
        [sys.executable, "-c", RUNS, "1", "2", "3", "9"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    left: dict[int, list[str]] = {}
    for few, text in re.findall(r"^few (\d)\n(.*?)^status 0\n", done.stdout, re.M | re.S):
        left[int(few)] = [line.partition("::")[2] for line in text.splitlines() if "::" in line]
    assert list(left) == [1, 2, 3, 9], done.stdout + done.stderr
    rest = ["test_one[0]", "test_plain"]
    assert left[1] == ["test_many[0]", *rest]
    assert left[2] == ["test_many[0]", "test_many[6]", *rest]
    assert left[3] == ["test_many[0]", "test_many[3]", "test_many[6]", *rest]
    assert left[9] == [*(f"test_many[{n}]" for n in range(7)), *rest]
