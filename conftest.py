"""What all tests share, notebooks too: threads for the workers, recorded outputs, a browser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

# Two workers with a pool of threads each would fight for the same cores, and their notebook
# kernels too; these are read when torch is imported, here and in every kernel started from here.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("MKL_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let nbval compare cells that are stored without an execution count.

    It takes a cell without one as never run, refuses its recorded output and compares nothing;
    here counts are stripped, since each run would change them all.
    """
    for item in items:
        cell = getattr(item, "cell", None)
        if cell is not None and cell.outputs and cell.execution_count is None:
            cell.execution_count = 0


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One Chromium in each worker: the driver bears no second one in a process."""
    from page_inspector import running_browser

    with running_browser() as browser:
        yield browser
