"""What all tests share, notebooks too: threads for the workers, recorded outputs, a browser."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Two workers with a pool of threads each would fight for the same cores, and their notebook
# kernels too; these are read when torch is imported, here and in every kernel started from here.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("MKL_NUM_THREADS", "1")

#: What takes longest comes first, so that no worker is left alone with it at the end.
FIRST = (
    *(f"book/{chapter:02}-" for chapter in (13, 12, 11, 10, 9, 5, 6, 7, 8, 4, 3, 2, 1, 0)),
    # The site is built when the last notebook has ended, so that none of them runs twice.
    "tests/equations/",
    "tests/project/test_style.py",
    "tests/book/test_site.py",
    # What needs no site, while one worker builds it.
    "tests/widgets/test_pages.py",
    "tests/widgets/test_jupyterlab.py",
    "tests/book/test_print.py",
    "tests/book/test_site_interactives.py",
    "tests/book/test_site_reading.py",
    "tests/book/test_slides.py",
    "tests/book/test_snippets.py",
    "tests/project/test_wheel.py",
    "tests/widgets/",
    "tests/engine/test_degenerate.py",
    "tests/engine/test_processes.py",
    "tests/engine/",
)
ROOT = Path(__file__).parent
PASSED = pytest.StashKey[list[tuple[Any, float]]]()
PROVED = pytest.StashKey[list[tuple[str, list[tuple[str, Any]]]]]()
#: How many proofs a module has, where all of them were collected.
ALL = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--few", type=int, metavar="N", help="of each test at most N cases")


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Marks, the order of the files, and what stands for the browser where there is none."""
    for item in items:
        _mark(item)
    items.sort(key=_place)
    if items and _whole(items[0].config):
        for proof in filter(_proves, items):
            proof.parent.stash[ALL] = proof.parent.stash.get(ALL, 0) + 1  # type: ignore[union-attr]
    if items and items[0].config.getoption("few"):
        _thin(items, items[0].config.getoption("few"))
    yield
    # What -m and -k left; where it needs a browser that is not there, one failure says so.
    wanting = [item for item in items if item.get_closest_marker("browser")]
    if not wanting:
        return
    # The proofs are run by the build of the book too, which needs no playwright.
    import chromium

    if chromium.find() is None:
        first = wanting[0]
        first.config.hook.pytest_deselected(items=wanting)
        items[:] = [item for item in items if item not in wanting]
        items.append(
            pytest.Function.from_parent(
                first.parent,
                name="test_there_is_a_browser",
                callobj=lambda: pytest.fail(chromium.REMEDY, pytrace=False),
            )
        )


@pytest.fixture(autouse=True)
def _as_if_alone() -> None:
    """A test sees the same torch, whichever tests its worker has run before."""
    import torch

    torch.manual_seed(0)
    # What torch.compile traces leaves the distributions of the process without validation.
    torch.distributions.Distribution.set_default_validate_args(__debug__)


def _thin(items: list[pytest.Item], few: int) -> None:
    """Leave of each test so many cases, from the first to the last of them."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    kept = {
        own[i * (len(own) - 1) // max(1, few - 1)] for own in cases.values() for i in range(few)
    }
    items[0].config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


def _mark(item: pytest.Item) -> None:
    if "browser" in getattr(item, "fixturenames", ()):
        item.add_marker("browser")
    cell = getattr(item, "cell", None)
    if cell is not None:
        item.add_marker("slow")
        # nbval takes a cell that is stored without an execution count as never run, refuses its
        # recorded output and compares nothing; here counts are stripped, since each run would
        # change them all.
        if cell.outputs and cell.execution_count is None:
            cell.execution_count = 0


def _place(item: pytest.Item) -> int:
    name = item.nodeid
    return next((i for i, start in enumerate(FIRST) if name.startswith(start)), len(FIRST))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A notebook whose cells have all passed, or a module whose proofs have, need not run again for
    the site that is built next."""
    report = yield
    if _proves(item):
        _note_proof(item, report)
    notebook: Any = item.parent
    ours = hasattr(item, "cell") and item.path.parent == ROOT / "book"
    if ours and report.passed and report.when == "call":
        passed = notebook.stash.setdefault(PASSED, [])
        passed.append((item, report.duration))
        cells = [cell for cell in notebook.nb.cells if cell.cell_type == "code"]
        if len(passed) == len(cells):
            _keep(item.path, passed)
    return report


def _whole(config: pytest.Config) -> bool:
    """Whether all tests of the modules that are run are collected."""
    return not config.getoption("lf", False) and not any("::" in arg for arg in config.args)


def _proves(item: pytest.Item) -> bool:
    return item.get_closest_marker("verifies") is not None


def _note_proof(item: pytest.Item, report: pytest.TestReport) -> None:
    try:
        import verification
    except ModuleNotFoundError:
        return  # no book can be built here
    module: Any = item.parent
    if not report.passed:
        module.stash[ALL] = 0  # nothing is kept of it
    if report.when != "teardown":
        return
    proved = module.stash.setdefault(PROVED, [])
    proved.append((item.name.partition("[")[0], report.user_properties))
    if len(proved) == module.stash.get(ALL, 0):
        verification.keep(item.path, proved, ROOT)


def _keep(path: Path, passed: list[tuple[Any, float]]) -> None:
    import gmmedu_book
    from jupyter_cache import get_cache

    notebook = gmmedu_book.as_read(path)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for count, (cell, (item, _)) in enumerate(zip(code, passed, strict=True), 1):
        cell.outputs, cell.execution_count = item.test_outputs, count
    cache = get_cache(gmmedu_book.cache_in(ROOT / "_build", path, ROOT))
    gmmedu_book.keep(cache, path, notebook, sum(seconds for _, seconds in passed))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium in each worker: the driver bears no second one in a process."""
    import chromium

    with chromium.running() as browser:
        yield browser
