"""Whether an interactive keeps up with a hand: frames while it is dragged in a real browser.

Each has 500 points and is dragged by a mouse for some seconds on a page of its own. Two clocks: the
page's, of the moments at which frames begin; and the browser's own trace, of the tasks of the main
thread. A headless browser on a machine without a display paints in software, so what a screen shows
is rarely slower.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from playwright.sync_api import Browser, Page

import gmmedu
from gmmbook.widgets import (
    FitScrubber,
    GaussianExplorer,
    Interactive,
    LandscapeExplorer,
    MixtureExplorer,
    SelectionExplorer,
    SeparationExplorer,
    SingularityExplorer,
)

NUM_POINTS = 500
#: Moves of the mouse, back and forth.
STEPS, QUICK_STEPS = 400, 60
_WATCH = """() => { window.begins = []; const watch = time => { begins.push(time);
  window.watching = requestAnimationFrame(watch); }; watch(performance.now()); }"""


@dataclass(frozen=True)
class Frames:
    """Of one drag: how many frames a second; the median and the longest time from one to the next;
    how many came later than at 50 a second; what the main thread worked for each, and its longest
    task. All times in milliseconds."""

    interactive: str
    num_points: int
    frames: int
    per_second: float
    median_interval: float
    longest_interval: float
    late: int
    work: float
    longest_task: float

    def record(self) -> dict[str, Any]:
        return asdict(self)


def _points() -> torch.Tensor:
    return gmmedu.sample_mixture(NUM_POINTS, 6, 2, generator=torch.Generator().manual_seed(0)).x


def _scrubber() -> Interactive:
    x, fits = _points(), {}
    for name, fitter in (("EM", gmmedu.fit_em), ("Adam", gmmedu.fit_model)):
        model = gmmedu.GmmFull(6, 2, dtype=x.dtype)
        gmmedu.initialize(model, x, generator=torch.Generator().manual_seed(0))
        fits[name] = fitter(model, x, 100, tolerance=0, snapshot_every=1)
    return FitScrubber(fits, x)


#: Each as it costs most, and the handle that is dragged.
INTERACTIVES: dict[str, tuple[Callable[[], Interactive], str]] = {
    "gaussian": (GaussianExplorer, "end of principal axis 1"),
    "mixture": (lambda: MixtureExplorer(_points(), 6), "mean of component 1"),
    "landscape": (
        lambda: LandscapeExplorer(gmmedu.load_old_faithful()[:, 1].repeat(2)[:NUM_POINTS]),
        "start, the two means",
    ),
    "scrubber": (_scrubber, "moment"),
    "selection": (lambda: SelectionExplorer(8, fits="no floor"), "K along the curve"),
    "separation": (SeparationExplorer, "mean of the second component"),
    "singularity": (
        lambda: SingularityExplorer(_points()[:, 0], cure="tied"),
        "mean of the needle",
    ),
}


def run(quick: bool = False) -> Iterator[Frames]:
    """One record for each interactive."""
    steps = QUICK_STEPS if quick else STEPS
    # With the tests, which open the pages in a browser too.
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    import chromium

    with chromium.running() as browser:
        for name, (make, handle) in INTERACTIVES.items():
            yield _drag(browser, name, make(), handle, steps)


def _drag(browser: Browser, name: str, interactive: Interactive, handle: str, steps: int) -> Frames:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.html"
        path.write_text(f"<!doctype html><meta charset=utf-8>{interactive.to_html()}", "utf-8")
        page = browser.new_page(viewport={"width": 760, "height": 1000})
        page.goto(path.as_uri())
        box = page.get_by_role("slider", name=handle, exact=True).locator(".gm-knob").bounding_box()
        assert box
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x, y)
        page.mouse.down()
        _to_and_fro(page, x, y, 20)  # what is compiled once
        browser.start_tracing(page=page, categories=["toplevel", "devtools.timeline"])
        page.evaluate(_WATCH)
        _to_and_fro(page, x, y, steps)
        begins = page.evaluate("() => { cancelAnimationFrame(watching); return begins.slice(1); }")
        events = json.loads(browser.stop_tracing())["traceEvents"]
        page.mouse.up()
        page.close()
    tasks = _main_thread(events)
    intervals = [later - earlier for earlier, later in zip(begins, begins[1:], strict=False)]
    return Frames(
        interactive=name,
        num_points=NUM_POINTS if name != "gaussian" else 0,
        frames=len(begins),
        per_second=round(1e3 * len(intervals) / sum(intervals), 1),
        median_interval=round(statistics.median(intervals), 2),
        longest_interval=round(max(intervals), 2),
        late=sum(interval > 20 for interval in intervals),
        work=round(sum(tasks) / len(begins), 2),
        longest_task=round(max(tasks), 2),
    )


def _to_and_fro(page: Page, x: float, y: float, steps: int) -> None:
    for step in range(steps):
        across = 60 - abs(step % 120 - 60)
        page.mouse.move(x - across, y + across / 2)


def _main_thread(events: list[dict[str, Any]]) -> list[float]:
    """Milliseconds of each task of the thread that runs the page's script."""
    threads = {
        (event["pid"], event["tid"]) for event in events if event["name"] == "FireAnimationFrame"
    }
    return [
        event["dur"] / 1e3
        for event in events
        if event["name"].endswith("RunTask")
        and (event["pid"], event["tid"]) in threads
        and "dur" in event  # not in what had begun before the trace
    ]
