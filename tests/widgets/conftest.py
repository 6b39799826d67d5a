"""Interactives on static pages, in a real browser."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize

from gmmbook.widgets import Interactive

OpenStatic = Callable[..., Page]
WINDOW: ViewportSize = {"width": 760, "height": 1000}
#: A page says its state, and writes it into its address, a while after the last change: here soon.
SOON = """(wait => { window.setTimeout = (f, time, ...more) =>
  wait(f, [400, 600].includes(time) ? 100 : time, ...more); })(window.setTimeout)"""

#: A kernel that answers a button after a while, and tells nothing of what it has left as it was.
LATE = """name => {
  const { store } = gmmedu.views[name], { send } = store;
  store.save_changes = () => { store.answer(); store.saved(); };
  store.send = (message) => setTimeout(() => {
    const before = { ...store.state };
    send.call(store, message);
    for (const [key, value] of Object.entries(before))
      if (JSON.stringify(value) === JSON.stringify(store.state[key])) store.state[key] = value;
    store.changed();
  }, 120);
}"""

#: Whether the address says what this interactive shows now.
SAID = """name => {
  const { kind, store } = gmmedu.views[name], now = kind.encode(store.state);
  const part = location.hash.slice(1).split("&").find(one => one.startsWith(`${name}=`));
  const said = part?.slice(name.length + 1).split(",").map(Number);
  return said && now.every((v, i) => Math.abs(v - said[i]) <= 1e-5 * (1 + Math.abs(v)));
}"""


def link_to(page: Page, name: str) -> str:
    """The link to what this interactive shows, once the page has written it into its address."""
    page.wait_for_function(SAID, arg=name, timeout=5_000)
    return str(page.evaluate("location.hash.slice(1)"))


def still(page: Page, wait: int = 50) -> None:
    """Wait until what has to be drawn is drawn, and so many milliseconds more."""
    frame = "wait => new Promise(done => requestAnimationFrame(() => setTimeout(done, wait)))"
    page.evaluate(frame, wait)


def reopen(page: Page, hash: str) -> None:
    """Load the same page anew, by a link to it."""
    address = page.url.split("#")[0]
    page.goto("about:blank")
    page.goto(f"{address}#{hash}")


#: Another address of the page, as a hand types it.
TYPED = """async hash => {
  const heard = new Promise(done => addEventListener("hashchange", done, { once: true }));
  location.hash = hash;
  await Promise.race([heard, new Promise((_, fail) => setTimeout(fail, 5000))]);
}"""


def addresses(page: Page, hashes: Iterable[str]) -> Iterator[str]:
    """Each of these addresses of a page, one after the other: the first one loads it anew, the
    others, none like the one before, are typed there, and go through the same `restore`."""
    for i, hash in enumerate(hashes):
        if i:
            page.evaluate(TYPED, hash)
        else:
            reopen(page, hash)
        yield hash


def drag(page: Page, name: str, dx: float, dy: float, view: str = "") -> None:
    """Drag the handle of this name by so many pixels, in this view where there are several."""
    within = page.locator(f"#{view}") if view else page
    box = within.get_by_role("slider", name=name, exact=True).locator(".gm-knob").bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + dx, y + dy, steps=6)
    page.mouse.up()


@pytest.fixture(scope="module")
def plain(browser: Browser) -> Iterator[BrowserContext]:
    """For pages that ask for nothing special: a context of its own, and its window, take longer to
    make than a page. Interactives keep nothing in a browser; what a page has of its own (viewport,
    media, scripts, listeners, pointer) goes with it."""
    context = browser.new_context(viewport=WINDOW)
    context.new_page()  # with its last page its window would go
    yield context
    context.close()


@pytest.fixture
def open_static(
    browser: Browser, plain: BrowserContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[OpenStatic]:
    """Opens a page from the disk that holds interactives and nothing else.

    Only a page without JavaScript gets its stills, which take long to draw: elsewhere the module
    takes them away before they can be seen.

    `hash` is what follows the # of its address; `patient` leaves the page its own waits; other
    keywords go to the browser's context. After
    the test no page may have an error on its console, or have asked for anything beyond itself.
    """
    opened: list[BrowserContext | Page] = []
    wrong: list[str] = []
    path = tmp_path / "page.html"

    def open_it(
        *interactives: Interactive, hash: str = "", patient: bool = False, **options: Any
    ) -> Page:
        with monkeypatch.context() as patch:
            if options.get("java_script_enabled", True):
                patch.setattr(Interactive, "_still", lambda self: "data:,")
            body = "".join(own.to_html() for own in interactives)
        path.write_text(
            '<!doctype html><html lang="en"><meta charset="utf-8"><title>Interactives</title>'
            '<meta name="viewport" content="width=device-width">'
            f"<body><main>{body}</main></body></html>",
            "utf-8",
        )
        if opened or options.keys() - {"viewport"}:
            # A second page beside the first, which must be seen too, has a window to itself.
            context = browser.new_context(**{"viewport": WINDOW, **options})
            opened.append(context)
            page = context.new_page()
        else:
            page = plain.new_page()
            opened.append(page)
            if "viewport" in options:
                page.set_viewport_size(options["viewport"])
        if not patient:
            page.add_init_script(SOON)
        page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "request",
            lambda r: wrong.append(r.url) if r.url[:5] not in ("file:", "data:") else None,
        )
        page.goto(path.as_uri() + (f"#{hash}" if hash else ""))
        if options.get("java_script_enabled", True):
            # What is drawn in the first frame can be used, and nothing before it.
            still(page, 0)
        return page

    yield open_it
    for each in opened:
        each.close()
    assert not wrong, wrong
