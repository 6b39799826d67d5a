"""The built site, once for all workers, and what visits its pages."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from page_inspector import Inspector, environment_for_a_build, served
from playwright.sync_api import Browser

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "_build" / "html"


@pytest.fixture(scope="session")
def site(testrun_uid: str) -> Path:
    """The book, built the way `make book` builds it, every page written anew.

    The first worker that asks builds it. Notebooks that have passed in this run are not run again.
    """
    note = ROOT / "_build" / ".tested"
    note.parent.mkdir(exist_ok=True)
    with FileLock(note.with_suffix(".lock")):
        told = note.read_text("utf-8") if note.exists() else ""
        uid, _, failure = told.partition("\n")
        if uid != testrun_uid:
            failure = _build()
            note.write_text(f"{testrun_uid}\n{failure}", "utf-8")
    assert not failure, f"the strict build failed:\n{failure}"
    return SITE


def _build() -> str:
    """What a build that failed said."""
    shutil.rmtree(SITE, ignore_errors=True)
    command = Path(sys.executable).with_name("jupyter-book")
    build = subprocess.run(
        [command, "build", ".", "-n", "-W", "--keep-going", "--quiet"],
        cwd=ROOT,
        env=environment_for_a_build(),
        capture_output=True,
        text=True,
    )
    return f"{build.stdout}\n{build.stderr}" if build.returncode else ""


@pytest.fixture(scope="module")
def inspector(browser: Browser, site: Path) -> Iterator[Inspector]:
    with served(site) as home:
        inspector = Inspector(browser, site, home)
        yield inspector
        inspector.close()
