"""A browser is found or brought; where none can be had, one failure says what to do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import chromium
import pytest

from project.test_project import ROOT

SUITE = """
def test_of_a_page(browser): pass
def test_of_another_page(browser): pass
def test_of_numbers(): pass
"""


OUTCOMES = {
    "": "1 failed, 1 passed, 2 deselected",
    "-m browser": "1 failed, 3 deselected",
    "-k another": "1 failed, 3 deselected",
    "-m not browser": "1 passed, 2 deselected",
}
#: pytest with these options and those, in one process, so that torch is imported once.
RUNS = """
import sys
import pytest

for options in sys.argv[1:]:
    print("run with", options, flush=True)
    pytest.main(["-q", "-p", "no:cacheprovider", "tests", *options.split(" ", 1) * bool(options)])
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What pytest says with each of the options where there is no browser."""
    folder = tmp_path_factory.mktemp("suite")
    (folder / "tests").mkdir()
    for name in ("conftest.py", "pyproject.toml", "tests/chromium.py"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "tests" / "test_pages.py").write_text(SUITE)
    done = subprocess.run(
        [sys.executable, "-c", RUNS, *OUTCOMES],
        cwd=folder,
        env=os.environ | {"GMMEDU_BROWSER": str(folder / "nowhere")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    texts = re.split(r"^run with .*\n", done.stdout, flags=re.MULTILINE)[1:]
    return dict(zip(OUTCOMES, texts, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("options", OUTCOMES)
def test_without_a_browser_one_failure_says_what_to_do(said: dict[str, str], options: str) -> None:
    text, outcome = said[options], OUTCOMES[options]
    assert outcome in text, text
    assert ("playwright install" in text) == ("failed" in outcome)


def test_one_that_does_not_start_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "chromium"
    broken.write_text("nothing that starts")
    places = [None, str(tmp_path / "nowhere"), str(broken), sys.executable, "/too/late"]
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(chromium, "_candidates", lambda: iter(places))
    assert chromium.find() == sys.executable


def test_it_is_brought_by_the_first_way_that_leads_to_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "there"
    make = f"open({str(there)!r}, 'w').close()"
    codes = ["raise SystemExit(1)", "pass", make, "raise AssertionError('one too many')"]
    tried = []

    def ways() -> object:
        for code in codes:
            tried.append(code)
            yield [sys.executable, "-c", code]

    monkeypatch.setattr(chromium, "find", lambda: str(there) if there.exists() else None)
    monkeypatch.setattr(chromium, "_ways", ways)
    assert chromium.bring() == str(there)
    assert tried == codes[:3]
    assert chromium.bring() == str(there) and tried == codes[:3]
    there.unlink()
    codes[2:] = []
    assert chromium.bring() is None


@pytest.mark.parametrize(
    ("user", "sudo", "installs"),
    [(0, 1, ["env"]), (1000, 0, ["sudo", "-n", "env"]), (1000, 1, [])],
    ids=["root", "sudo without a password", "no rights"],
)
def test_the_system_s_packages_are_asked_where_no_password_is(
    monkeypatch: pytest.MonkeyPatch, user: int, sudo: int, installs: list[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user, raising=False)
    monkeypatch.setattr(chromium.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(chromium.subprocess, "call", lambda command: sudo)
    first, *others = chromium._ways()
    assert first[1:] == ["-m", "playwright", "install", "chromium"]
    assert [command[: len(installs)] for command in others[1:]] == [installs] * bool(installs)
