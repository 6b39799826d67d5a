"""The same interactives in a real JupyterLab: the page follows Python, and Python the page."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

ROOT = Path(__file__).resolve().parents[2]
CELLS = (
    "from gmmedu.widgets import GaussianExplorer\nexplorer = GaussianExplorer()\nexplorer",
    "print('mean', explorer.mean, 'correlation', explorer.values['correlation'])",
    "explorer.set(mean=[-1.0, 2.0], covariance=[[1.0, 0.0], [0.0, 1.0]])",
)
WAIT = 60_000


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a JupyterLab whose folder holds one notebook, and nothing of the user's."""
    folder = tmp_path_factory.mktemp("lab")
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS],
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
        },
    )
    nbformat.write(notebook, folder / "try.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {
        f"JUPYTER{name}_DIR": str(folder / name.lower())
        for name in ("_CONFIG", "_DATA", "_RUNTIME", "LAB_SETTINGS", "LAB_WORKSPACES")
    }
    command = [
        str(Path(sys.executable).with_name("jupyter-lab")),
        *("--no-browser", "--ip=127.0.0.1", f"--port={port}", "--IdentityProvider.token="),
        *("--ServerApp.allow_root=True", f"--ServerApp.root_dir={folder}"),
        "--LabApp.news_url=None",
    ]
    python_path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = os.environ | own | {"JUPYTER_PREFER_ENV_PATH": "1", "PYTHONPATH": python_path}
    with open(folder / "log", "wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
    home = f"http://127.0.0.1:{port}/"
    try:
        until = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(home + "api").close()
                break
            except (urllib.error.URLError, ConnectionError):
                assert server.poll() is None and time.monotonic() < until, (
                    folder / "log"
                ).read_text()
                time.sleep(0.2)
        yield home
    finally:
        server.terminate()
        server.wait(30)


def _run_all(page: Page) -> None:
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


def _run(page: Page, cell: int) -> None:
    page.locator(".jp-Notebook .jp-Cell").nth(cell).locator(".cm-content").click()
    page.keyboard.press("Control+Enter")


def _drag(page: Page, handle: Locator, dx: float, dy: float) -> None:
    box = handle.bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + dx, y + dy, steps=6)
    page.mouse.up()


def test_page_and_kernel_follow_each_other(lab: str, browser: Browser) -> None:
    page = browser.new_page(viewport={"width": 1200, "height": 1400})
    wrong: list[str] = []
    page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(f"{lab}lab/tree/try.ipynb")
    page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=WAIT)
    page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for(timeout=WAIT)
    # A notebook without a kernel looks idle too, and forgets what it is asked to run.
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=WAIT)
    _run_all(page)
    mean = page.get_by_role("slider", name="mean", exact=True)
    # the last cell set the mean from Python, and the page follows
    expect(mean).to_have_attribute("aria-valuetext", "−1, 2", timeout=WAIT)
    expect(page.locator(".gm-values")).to_contain_text("standard deviations")

    _drag(page, mean, 60, 80)
    shown = mean.get_attribute("aria-valuetext") or ""
    assert shown != "−1, 2"
    _run(page, 1)
    output = page.locator(".jp-Notebook .jp-Cell").nth(1).locator(".jp-OutputArea-output")
    expect(output).not_to_contain_text("mean [0.0, 0.0]", timeout=WAIT)
    numbers = [float(v) for v in re.findall(r"-?\d+\.\d+(?:e-?\d+)?", output.inner_text())]
    assert numbers[:2] == pytest.approx(
        [float(v.replace("−", "-")) for v in shown.split(",")], rel=2e-3
    )
    assert numbers[2] == 0  # the correlation of the identity, from the kernel

    page.get_by_role("button", name="Reset").click()
    expect(mean).to_have_attribute("aria-valuetext", "0, 0", timeout=WAIT)
    page.close()
    assert not wrong, wrong
