"""Loads built pages in a real browser and reports what a reader would trip over.

`Inspector.inspect` visits one page and returns a `Finding` for each console error, request that
leaves the machine, missing file, picture without a meaningful alternative text, formula that is
not rendered, dead internal link, missing search field, what axe-core finds to keep out readers with
a disability (WCAG 2.2 at A and AA, and its best practices), and on phones sideways scrolling, a
formula cut without a sign, a numbered formula or a printed line that is cut, and a figure whose
labels are too small.
"""

from __future__ import annotations

import functools
import http.server
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    ProxySettings,
    Request,
    Response,
    ViewportSize,
)
from playwright.sync_api import Error as PlaywrightError

WINDOW: ViewportSize = {"width": 1280, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}
#: The narrowest that WCAG asks for, 1280 px at 400 %.
NARROW: ViewportSize = {"width": 320, "height": 640}
SCHEMES = ("light", "dark")

WAIT_FOR_MATH = """async () => {
  if (!document.querySelector('.math')) return;
  const until = performance.now() + 20000;
  while (!window.MathJax?.startup?.promise && performance.now() < until)
    await new Promise(done => setTimeout(done, 20));
  await window.MathJax?.startup?.promise;
}"""

FORMULAS = r"""() => {
  const found = [];
  const short = text => text.trim().replace(/\s+/g, ' ').slice(0, 80);
  for (const math of document.querySelectorAll('.math'))
    if (!math.querySelector('mjx-container'))
      found.push('not rendered: ' + short(math.textContent));
  const errors = 'mjx-merror, [data-mjx-error], mjx-container [style*="color: red"]';
  for (const error of document.querySelectorAll(errors))
    found.push('in error: ' + short(error.dataset.mjxError || error.textContent
                                    || error.closest('mjx-container').textContent));
  const article = document.querySelector('article') || document.body;
  const walker = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
  const raw = /\$\$|\\\(|\\\[|\\begin\{|\$[^$]*\\[a-zA-Z]+[^$]*\$/;
  for (let node; (node = walker.nextNode());)
    if (raw.test(node.data) && !node.parentElement.closest(
        'code, pre, script, style, textarea, mjx-container, .math'))
      found.push('left as text: ' + short(node.data));
  return found;
}"""

PICTURES = r"""() => {
  const article = document.querySelector('article') || document.body;
  const found = [];
  const name = image => image.getAttribute('src').split('/').pop().slice(0, 60);
  for (const image of article.querySelectorAll('img')) {
    if (image.closest('[role=presentation], [aria-hidden=true]')) continue;
    const alt = (image.getAttribute('alt') || '').trim();
    const words = alt.split(/\s+/).filter(word => /[a-zA-Z]{2}/.test(word));
    if (!alt) found.push(name(image) + ': no alternative text');
    else if (/\.(png|svg|jpe?g|gif)$/i.test(alt) || words.length < 3)
      found.push(name(image) + ': the alternative text says nothing: ' + alt);
  }
  for (const drawing of article.querySelectorAll('svg')) {
    if (drawing.closest('[aria-hidden=true], button, a, summary, mjx-container, svg svg')) continue;
    const label = drawing.getAttribute('aria-label') || drawing.getAttribute('aria-labelledby')
      || drawing.querySelector(':scope > title')?.textContent;
    if (!label) found.push('svg drawing: no accessible name');
  }
  return found;
}"""

LINKS = """() => [...document.querySelectorAll('a[href]')]
  .filter(link => !link.closest('mjx-container')).map(link => link.href)"""

# The theme keeps one more field in a dialog that its button opens: count what is to be seen.
SEARCH_FIELDS = """() => [...document.querySelectorAll('.search-button__button, input[name=q]')]
  .filter(way => way.checkVisibility({visibilityProperty: true})).length"""

# Most elements of a page are parts of formulas; of each axe-core sees the container.
PRUNE_FORMULAS = """() => {
  for (const math of document.querySelectorAll('mjx-container')) math.replaceChildren('x');
}"""

# One text of each color and size on each ground: to look at the contrast of every word of a page
# takes axe-core ten seconds.
SAMPLE = """() => {
  const seen = new Set(), grounds = new Map([[null, '']]);
  const groundOf = element => {
    if (!grounds.has(element)) {
      const {backgroundColor, backgroundImage, opacity} = getComputedStyle(element);
      const own = `${backgroundColor} ${backgroundImage} ${opacity}`;
      const below = groundOf(element.parentElement);
      grounds.set(element, own === 'rgba(0, 0, 0, 0) none 1' ? below : `${own} ${below}`);
    }
    return grounds.get(element);
  };
  for (const old of document.querySelectorAll('[data-sample]')) delete old.dataset.sample;
  for (const element of document.body.querySelectorAll('*')) {
    const text = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (!text || !element.checkVisibility({visibilityProperty: true})) continue;
    const {color, fontSize, fontWeight} = getComputedStyle(element);
    const code = element.closest('pre') && element.className;
    const key = [color, fontSize, fontWeight, code, groundOf(element)].join();
    if (!seen.has(key)) element.dataset.sample = '';
    seen.add(key);
  }
  return seen.size;
}"""

# Of code axe-core sees the text, and what SAMPLE chose.
PRUNE_CODE = """() => {
  for (const part of document.querySelectorAll('pre span, dt span'))
    if (!part.matches('[data-sample], [id]') && !part.querySelector('[data-sample], a'))
      part.replaceWith(part.textContent);
}"""

# What is folded must hold too, once a reader opens it. A while later the theme lets the keyboard
# into what scrolls; what it forgets is for axe-core to find.
UNFOLD = """async () => {
  for (const box of document.querySelectorAll('details')) box.open = true;
  for (const button of document.querySelectorAll('.toggle-hidden button.toggle-button'))
    button.click();
  const until = performance.now() + 1000, code = [...document.querySelectorAll('pre')];
  while (code.some(each => each.scrollWidth > each.clientWidth && each.tabIndex < 0)
         && performance.now() < until)
    await new Promise(requestAnimationFrame);
}"""

# Some colors change in a while.
COME_TO_REST = """async () => {
  await document.fonts.ready;
  await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
  await Promise.allSettled(document.getAnimations().map(motion => motion.finished));
}"""

# Where a face does not come, that of the machine must not widen a page of a phone.
TAKE_FACES = """() => {
  for (const {cssRules: rules} of document.styleSheets)
    for (let i = rules.length - 1; i >= 0; i--)
      if (rules[i] instanceof CSSFontFaceRule && !/MJX/.test(rules[i].style.fontFamily))
        rules[i].parentStyleSheet.deleteRule(i);
}"""

SIDEWAYS = """() => {
  const found = [], width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > width + 1)
    found.push(`the page is ${document.documentElement.scrollWidth} px wide, the screen ${width}`);
  const scrolls = element => {
    for (let up = element.parentElement; up && up !== document.body; up = up.parentElement)
      if (/auto|scroll/.test(getComputedStyle(up).overflowX)
          && up.getBoundingClientRect().right <= width + 1) return true;
    return false;
  };
  const article = document.querySelector('article') || document.body;
  for (const element of article.querySelectorAll('*:not(mjx-container *, script, style)')) {
    if (found.length > 3) break;
    const box = element.getBoundingClientRect();
    if (box.width && box.right > width + 1 && !scrolls(element))
      found.push(`<${element.tagName.toLowerCase()} class="${element.getAttribute('class') || ''}">`
                 + ` reaches ${Math.round(box.right)} px of ${width}`);
  }
  return found;
}"""

# What does not fit its line scrolls, by keyboard too, and shows at its edge that it does.
UNSIGNED = """() => [...document.querySelectorAll('mjx-container[display], span.math')]
  .filter(formula => formula.clientWidth && formula.scrollWidth > formula.clientWidth + 1)
  .filter(formula => formula.tabIndex < 0 || !formula.matches('.gm-goes-on'))
  .map(formula => `no sign that ${formula.textContent.slice(0, 40)} scrolls: `
                  + `${formula.clientWidth} px of ${formula.scrollWidth}`)"""

# What fits its line does neither.
FADING = """() => [...document.querySelectorAll('.gm-goes-on')]
  .filter(formula => formula.scrollWidth <= formula.clientWidth + 1)
  .map(formula => `${formula.textContent.slice(0, 40)} fades, and fits`)"""

# On a phone a numbered formula and what a cell prints are seen whole, and the labels of a figure,
# 11 pt or 14.7 px where it is drawn, are of at least 11 px.
CUT = """() => {
  const found = [];
  for (const formula of document.querySelectorAll('div.math mjx-container[display]')) {
    const number = formula.closest('div.math').querySelector('.eqno');
    if (number && formula.scrollWidth > formula.clientWidth + 1)
      found.push(`${number.textContent.trim()} has ${formula.clientWidth} px of the `
                 + `${formula.scrollWidth} that it needs`);
  }
  for (const printed of document.querySelectorAll('.cell_output .stream pre'))
    if (printed.scrollWidth > printed.clientWidth + 1)
      found.push(`printed lines need ${printed.scrollWidth} px and have ${printed.clientWidth}: `
                 + printed.textContent.slice(0, 40));
  for (const image of document.querySelectorAll('.cell_output img, figure img.gm-still'))
    if (image.clientWidth && image.clientWidth < 0.75 * image.naturalWidth)
      found.push(`a figure is drawn ${image.naturalWidth} px wide and shown at `
                 + `${image.clientWidth}: ${image.alt.slice(0, 40)}`);
  return found;
}"""


@dataclass(frozen=True)
class Finding:
    """One thing wrong on one page, and in which view it was seen."""

    page: str
    view: str
    kind: str
    detail: str

    def __str__(self) -> str:
        return f"{self.page} ({self.view}): {self.kind}: {self.detail}"


class _Anchors(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for key, value in attrs:
            if value and (key == "id" or (key == "name" and tag == "a")):
                self.names.add(value)


#: Nothing listens there: what is asked of another host than this one fails at once.
NOWHERE: ProxySettings = {"server": "http://127.0.0.1:9", "bypass": "127.0.0.1"}


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass

    def end_headers(self) -> None:
        # What pages share is sent once to a browser's context; a page may be written anew.
        page = urlsplit(getattr(self, "path", "/")).path.endswith((".html", "/"))
        self.send_header("Cache-Control", "no-store" if page else "max-age=3600")
        super().end_headers()


@contextmanager
def served(site: Path) -> Iterator[str]:
    """Serve a folder on a free port of the loopback address; gives the address, slash included."""
    handler = functools.partial(_Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def leave_formulas_out(page: Page) -> None:
    """For a test that needs none: to set them takes most of the time that a page loads."""
    # A route would keep the browser from its cache.
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.send("Network.setBlockedURLs", {"urls": ["*/mathjax/*"]})


class Inspector:
    """Visits the pages of one site, served at `home` from the folder `site`."""

    def __init__(self, browser: Browser, site: Path, home: str, *, search_fields: int = 1) -> None:
        self.site, self.home, self.search_fields = site, home, search_fields
        self._contexts: dict[str, BrowserContext] = {
            scheme: browser.new_context(
                viewport=WINDOW,
                color_scheme="dark" if scheme == "dark" else "light",
                proxy=NOWHERE,
            )
            for scheme in SCHEMES
        }
        self._anchors: dict[Path, set[str]] = {}

    def close(self) -> None:
        for context in self._contexts.values():
            context.close()

    def context(self, scheme: str) -> BrowserContext:
        return self._contexts[scheme]

    def inspect(self, name: str) -> list[Finding]:
        """What is wrong with the page `name`, a path below the site: light, dark, on a phone."""
        findings: list[Finding] = []
        view = "light"

        def report(kind: str, *details: str) -> None:
            findings.extend(Finding(name, view, kind, detail) for detail in details)

        def asked(request: Request) -> None:
            if not request.url.startswith((self.home, "data:", "blob:")):
                report("outside request", request.url)

        def heard(message: ConsoleMessage) -> None:
            if message.type == "error":
                report("console error", message.text)

        def answered(response: Response) -> None:
            if response.status >= 400:
                report("missing file", f"{response.status} {response.url}")

        page = self.context("light").new_page()
        try:
            page.on("request", asked)
            page.on("console", heard)
            page.on("pageerror", lambda error: report("console error", f"uncaught {error}"))
            page.on("response", answered)
            page.on("websocket", lambda socket: report("outside request", socket.url))
            page.goto(self.home + name, wait_until="load")
            try:
                page.evaluate(WAIT_FOR_MATH)
            except PlaywrightError as error:
                report("formula", f"MathJax failed: {error}")
            report("formula", *page.evaluate(FORMULAS))
            report("picture", *page.evaluate(PICTURES))
            report("dead link", *self._dead_links(page.evaluate(LINKS)))
            fields = page.evaluate(SEARCH_FIELDS)
            if fields != self.search_fields:
                report("search field", f"{fields} to be seen")
            report("sideways", *page.evaluate(SIDEWAYS))
            page.evaluate(UNFOLD)
            for size in (PHONE, NARROW):
                view = f"{size['width']} px"
                page.set_viewport_size(size)
                page.evaluate(COME_TO_REST)
                report("sideways", *page.evaluate(SIDEWAYS))
                report("cut", *page.evaluate(UNSIGNED), *page.evaluate(FADING))
                if size is PHONE:
                    report("cut", *page.evaluate(CUT))
            view += ", faces of the machine"
            page.evaluate(TAKE_FACES)
            report("sideways", *page.evaluate(SIDEWAYS))
            view = "light"
            page.evaluate(PRUNE_FORMULAS)
            page.set_viewport_size(WINDOW)
            sampled = page.evaluate(SAMPLE)
            page.evaluate(PRUNE_CODE)
            report("accessibility", *_barriers(page, sampled))
            # In the dark only colors differ.
            view = "dark"
            page.emulate_media(color_scheme="dark")
            page.evaluate(COME_TO_REST)
            report("accessibility", *_faint(page, page.evaluate(SAMPLE)))
            page.wait_for_load_state("networkidle")
        finally:
            page.close()
        return findings

    def _dead_links(self, links: list[str]) -> list[str]:
        return [link for link in dict.fromkeys(links) if not self._leads_somewhere(link)]

    def _leads_somewhere(self, link: str) -> bool:
        if link.startswith("file:"):
            return False
        if not link.startswith(self.home):
            return True  # another site: not ours to check, and not reachable from here
        parts = urlsplit(link)
        target = self.site / unquote(parts.path).lstrip("/")
        if target.is_dir():
            target /= "index.html"
        if not target.is_file():
            return False
        anchor = unquote(parts.fragment)
        return not anchor or target.suffix != ".html" or anchor in self._anchors_of(target)

    def _anchors_of(self, page: Path) -> set[str]:
        if page not in self._anchors:
            parser = _Anchors()
            parser.feed(page.read_text(encoding="utf-8"))
            self._anchors[page] = parser.names
        return self._anchors[page]


#: Preloading would ask for style sheets a second time, at wrong addresses.
AXE: dict[str, Any] = {"resultTypes": ["violations"], "preload": False}


def _barriers(page: Page, sampled: int) -> Iterator[str]:
    """What axe-core finds, best practices and what it calls moderate or minor too."""
    page.evaluate(AXE_SCRIPT)
    yield from _faint(page, sampled)
    yield from _violations(page, None, {"rules": {"color-contrast": {"enabled": False}}})


def _faint(page: Page, sampled: int) -> Iterator[str]:
    """Texts of the sample that are hard to tell from their ground."""
    if sampled:
        ours = {"include": [["[data-sample]"]]}
        yield from _violations(page, ours, {"runOnly": ["color-contrast"]})


def _violations(
    page: Page, context: dict[str, Any] | None, options: dict[str, Any]
) -> Iterator[str]:
    run = "async ([where, how]) => (await axe.run(where ?? document, how)).violations"
    for violation in page.evaluate(run, [context, AXE | options]):
        nodes = violation["nodes"]
        yield f"{violation['id']} ({len(nodes)}): {nodes[0]['html'][:150]}"


def pages_of(site: Path) -> list[str]:
    """Every built page, but for the ones that only lead to another, and the one whose links hold
    only on the site's own host."""
    pages = []
    for path in sorted(set(site.rglob("*.html")) - {site / "404.html"}):
        name = path.relative_to(site).as_posix()
        text = path.read_text(encoding="utf-8")
        if "_static" not in path.relative_to(site).parts and not re.search(
            r"<meta http-equiv=.refresh", text[:2000], re.IGNORECASE
        ):
            pages.append(name)
    return pages


def environment_for_a_build() -> dict[str, str]:
    """The environment of a build that uses the kernel of this interpreter."""
    return {**os.environ, "JUPYTER_PREFER_ENV_PATH": "1", "PYTHONIOENCODING": "utf-8"}
