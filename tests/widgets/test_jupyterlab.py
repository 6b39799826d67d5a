"""The same interactives in a real JupyterLab: the page follows Python, and Python the page."""

from __future__ import annotations

import json
import math
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect
from playwright.sync_api import Error as PlaywrightError

from widgets.conftest import drag

ROOT = Path(__file__).resolve().parents[2]


class Case(NamedTuple):
    """make: code of the interactive; handle: what is dragged; own: code of the numbers that say
    where it is, in the kernel; set: the arguments of ``set``; texts: of the handle, as it is made
    and as it is set; drag: in pixels; value: code of a number that torch computes from ``own``,
    and the row of the page's values that shows it."""

    make: str
    handle: str
    own: str
    set: str
    texts: tuple[str, str]
    drag: tuple[float, float]
    value: tuple[str, str]


FITS = """import gmmedu
x = gmmedu.load_old_faithful()
model = gmmedu.GmmFull(2, 2, dtype=x.dtype)
gmmedu.initialize(model, x)
fit = gmmedu.fit_em(model, x, 20, tolerance=0, snapshot_every=1)
"""
CASES = {
    "gaussian": Case(
        "GaussianExplorer()",
        "mean",
        "view.mean",
        "mean=[-1.0, 2.0], covariance=[[1.0, 0.0], [0.0, 1.0]]",
        ("0, 0", "\u22121, 2"),
        (60, 80),
        ("view.values['mahalanobis']", "Mahalanobis distance"),
    ),
    "mixture": Case(
        "MixtureExplorer()",
        "mean of component 1",
        "view.means[0]",
        "means=[[3.0, 60.0], [4.5, 73.0]]",
        ("4.25, 83", "3, 60"),
        (60, 40),
        ("view.values['nll']", "mean NLL (nats)"),
    ),
    "landscape": Case(
        "LandscapeExplorer()",
        "start, the two means",
        "view.start",
        "start=[60.0, 75.0]",
        ("88, 90", "60, 75"),
        (40, 60),
        ("view.values['em']['nll'][-1]", "EM"),
    ),
    "scrubber": Case(
        FITS + "FitScrubber(fit, x)",
        "moment",
        "[view.iteration]",
        "iteration=3",
        ("iteration 0", "iteration 3"),
        (150, 0),
        ("view.values['fits'][0]['nll']", "seconds"),
    ),
    "selection": Case(
        "SelectionExplorer()",
        "K along the curve",
        "[view.num_components]",
        "num_components=3",
        ("2", "3"),
        (60, 0),
        ("view.values['bic'][view.num_components - 1]", "BIC"),
    ),
    "separation": Case(
        "SeparationExplorer()",
        "separation along the curve",
        "[view.apart]",
        "apart=2.2",
        ("4", "2.2"),
        (60, 0),
        ("view.values['iterations']", "iterations of the last stretch"),
    ),
    "singularity": Case(
        "SingularityExplorer(rounded=True)",
        "sigma",
        "[view.sigma]",
        "sigma=0.01",
        ("1", "0.01"),
        (60, 0),
        ("view.values['objective']", "objective (nats)"),
    ),
    "density": Case(
        "MDNExplorer()",
        "input x",
        "[view.at]",
        "at=0.65",
        ("0.2", "0.65"),
        (60, 0),
        ("view.values['mean']", "mean of t"),
    ),
    "stream": Case(
        "StreamExplorer()",
        "batches that have arrived",
        "[view.arrived]",
        "arrived=20",
        ("1", "20"),
        (60, 0),
        ("view.values['remembered']", "points remembered"),
    ),
    "layer": Case(
        "EMLayerExplorer()",
        "position along the curve",
        "[view.at]",
        "at=3.0",
        ("6.6", "3"),
        (60, 0),
        ("view.values['output']", "refit"),
    ),
    "segmentation": Case(
        "SegmentationExplorer()",
        "ringed pixel",
        "view.pixel",
        "pixel=[40, 30]",
        ("6, 8", "40, 30"),
        (60, 20),
        ("view.values['doubt']", "pixels in doubt"),
    ),
}
WAIT = 60_000


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a JupyterLab whose folder holds a notebook for each, nothing of the user's."""
    folder = tmp_path_factory.mktemp("lab")
    for name, case in CASES.items():
        *before, last = case.make.splitlines()
        cells = (
            "\n".join(["from gmmbook.widgets import *", *before, f"view = {last}", "view"]),
            f"import json\nprint(json.dumps([*{case.own}, {case.value[0]}]))",
            f"view.set({case.set})",
            # The next notebook, of the same kernel, has nothing of this one.
            "from ipywidgets import Widget\nWidget.close_all()",
        )
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
            metadata={
                "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
            },
        )
        nbformat.write(notebook, folder / f"{name}.ipynb")
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
        *("--LabApp.news_url=None", "--ServerApp.disable_check_xsrf=True"),
        "--expose-app-in-browser",
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
        # One kernel for all notebooks, so that torch is imported once.
        kernel = _post(home + "api/kernels", {"name": "python3"})
        for name in CASES:
            path = {"path": f"{name}.ipynb", "name": name, "type": "notebook"}
            _post(home + "api/sessions", {**path, "kernel": {"id": kernel["id"]}})
        yield home
    finally:
        server.terminate()
        server.wait(30)


def _post(address: str, body: dict[str, Any]) -> Any:
    """What a server answers to a question in JSON."""
    asked = urllib.request.Request(
        address, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asked) as answer:
        return json.load(answer)


@contextmanager
def no_error(page: Page) -> Iterator[None]:
    """None on the console of the page meanwhile, nor one that nothing catches."""
    wrong: list[str] = []

    def said(message: ConsoleMessage) -> None:
        if message.type == "error":
            wrong.append(message.text)

    def failed(error: PlaywrightError) -> None:
        wrong.append(str(error))

    page.on("console", said)
    page.on("pageerror", failed)
    yield
    page.remove_listener("console", said)
    page.remove_listener("pageerror", failed)
    assert not wrong, wrong


@pytest.fixture(scope="module")
def opened(lab: str, browser: Browser) -> Iterator[Page]:
    """JupyterLab in a page, for all notebooks: to begin takes longer than what each does there."""
    context = browser.new_context(viewport={"width": 1200, "height": 1400})
    page = context.new_page()
    with no_error(page):
        page.goto(f"{lab}lab/workspaces/all")
        page.wait_for_function("() => window.jupyterapp", timeout=WAIT)
        page.evaluate("() => jupyterapp.restored.then(() => {})")
    yield page
    context.close()


OPEN = "path => jupyterapp.commands.execute('docmanager:open', { path }).then(() => {})"
#: Without asking whether to keep what has run in them.
SHUT = """() => { for (const widget of [...jupyterapp.shell.widgets("main")])
  if (widget.context) widget.dispose(); }"""


@pytest.fixture
def page(opened: Page) -> Iterator[Page]:
    """With no notebook open, before the test and after it."""
    with no_error(opened):
        yield opened
        # What still waits for an answer would be told that there is none.
        opened.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for(timeout=WAIT)
        opened.evaluate(SHUT)
        expect(opened.locator(".jp-Notebook")).to_have_count(0)


# The page draws, and tells the kernel, once a frame.
DRAWN = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


def _run(page: Page, cell: int) -> None:
    page.locator(".jp-Notebook .jp-Cell").nth(cell).locator(".cm-content").click()
    page.keyboard.press("Control+Enter")


def _numbers(text: str) -> list[float]:
    """The numbers of a text of the page, whose minus is a real one."""
    return [float(v) for v in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", text.replace("\u2212", "-"))]


@pytest.mark.parametrize("name", CASES)
def test_page_and_kernel_follow_each_other(page: Page, name: str) -> None:
    case = CASES[name]
    page.evaluate(OPEN, f"{name}.ipynb")
    page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=WAIT)
    page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for(timeout=WAIT)
    # A notebook without a kernel looks idle too, and forgets what it is asked to run.
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=WAIT)
    for cell in range(3):
        _run(page, cell)
    handle = page.get_by_role("slider", name=case.handle, exact=True)
    made, set_text = (re.compile(rf"^{re.escape(text)}(?=[,;]|$)") for text in case.texts)
    # the last cell set it from Python, and the page follows
    expect(handle).to_have_attribute("aria-valuetext", set_text, timeout=WAIT)

    output = page.locator(".jp-Notebook .jp-Cell").nth(1).locator(".jp-OutputArea-output")
    before = output.inner_text()
    drag(page, case.handle, *case.drag)
    page.evaluate(DRAWN)
    text = handle.get_attribute("aria-valuetext") or ""
    assert not set_text.search(text)

    def shown() -> float:
        return _numbers(page.locator(".gm-values").inner_text().partition(case.value[1])[2])[0]

    # The page holds the last change back until the kernel has answered the one before, and a cell
    # that is run meanwhile goes first; so it is run until the kernel has what the page shows, and
    # the page what torch made of it there.
    until = time.monotonic() + WAIT / 1000
    while True:
        _run(page, 1)
        expect(output).not_to_have_text(before, timeout=WAIT)
        expect(output).to_have_text(re.compile(r"^\s*\[.*\]\s*$"), timeout=WAIT)
        *own, value = json.loads(output.inner_text())
        heard = _numbers(text)[: len(own)] == pytest.approx(own, rel=2e-3, abs=2e-3)
        # It has three digits or more there: 20.04 is shown as 20.0.
        digit = 10.0 ** (math.floor(math.log10(abs(value))) - 2) if value else 0.0
        answered = shown() == pytest.approx(value, rel=2e-3, abs=max(2e-3, digit / 2))
        if heard and answered or time.monotonic() > until:
            break
        page.wait_for_timeout(200)
    assert heard, (text, own)
    assert answered, (shown(), value)

    page.get_by_role("button", name="Reset").click()
    expect(handle).to_have_attribute("aria-valuetext", made, timeout=WAIT)
    _run(page, 3)
    expect(page.locator(".jp-InputPrompt").nth(3)).to_have_text(
        re.compile(r"\[\d+\]"), timeout=WAIT
    )
