"""Finds the Chromium that the pages are checked in, and brings one where there is none.

``python tests/chromium.py`` is what `make test` calls first. The variable `GMMEDU_BROWSER` names
a Chromium in an unusual place.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
)
FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Of two such lists the last holds: this is playwright's, and the popup below the address, which
    # nobody sees, and for which each context would start a process.
    "--disable-features=AimEnabled,AvoidCorsURLLoaderRestartOnRedirect,"
    "AvoidUnnecessaryBeforeUnloadCheckSync,DestroyProfileOnBrowserClose,"
    "HttpsFirstBalancedModeAutoEnable,HttpsUpgrades,LensOverlay,MediaRouter,"
    "NetworkTimeServiceQuerying,OptimizationHints,PaintHolding,PreconnectToSearch,"
    "ThirdPartyStoragePartitioning,WebUIOmniboxAimPopup,WebUIOmniboxPopup",
]
REMEDY = (
    "no Chromium on this machine, and the pages are checked in a real browser: install one with "
    f"`apt-get install chromium` (Debian) or `{sys.executable} -m playwright install --with-deps "
    "chromium`, or set GMMEDU_BROWSER to the one that you have"
)


def _candidates() -> Iterator[str | None]:
    if "GMMEDU_BROWSER" in os.environ:
        yield os.environ["GMMEDU_BROWSER"]
        return
    yield from (shutil.which(name) for name in NAMES)
    yield from PLACES
    # Last, since to ask for it starts playwright's driver.
    with sync_playwright() as playwright:
        yield playwright.chromium.executable_path


def _runs(place: str) -> bool:
    """Whether it starts: one without its libraries does not, nor does Ubuntu's stand-in."""
    if sys.platform != "linux":
        return True
    try:
        return subprocess.run([place, "--version"], capture_output=True).returncode == 0
    except OSError:
        return False


def find() -> str | None:
    """The first Chromium on the path, in a usual place, or of playwright's own, that runs."""
    for place in _candidates():
        if place and Path(place).is_file() and _runs(place):
            return place
    return None


def _ways() -> Iterator[list[str]]:
    """Commands that may bring one, the least intrusive first; none asks for a password."""
    yield [sys.executable, "-m", "playwright", "install", "chromium"]
    if shutil.which("apt-get"):
        if os.geteuid() == 0:
            sudo = []
        elif shutil.which("sudo") and not subprocess.call(["sudo", "-n", "true"]):
            sudo = ["sudo", "-n"]
        else:
            return
        yield [*sudo, "apt-get", "update", "-q"]
        install = ["apt-get", "install", "-q", "-y", "--no-install-recommends", "chromium"]
        yield [*sudo, "env", "DEBIAN_FRONTEND=noninteractive", *install]


def bring() -> str | None:
    """The Chromium of this machine, installed first where there is none and it can be."""
    if found := find():
        return found
    for command in _ways():
        print("no Chromium yet:", *command, flush=True)
        if subprocess.call(command) == 0 and (found := find()):
            return found
    return None


@contextmanager
def running() -> Iterator[Browser]:
    """A headless Chromium. Raises RuntimeError, saying how to install one, where there is none."""
    executable = find()
    if executable is None:
        raise RuntimeError(REMEDY)
    # Chromium refuses its sandbox to root, and container hosts often forbid it to others.
    confined = ["--no-sandbox"] if sys.platform == "linux" else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS + confined)
        try:
            yield browser
        finally:
            browser.close()


if __name__ == "__main__":
    # Without one the suite still runs, and says once what is missing.
    print(bring() or REMEDY)
