"""The book as one PDF, from the pages that `make book` has built: `make pdf`.

The articles of all pages are joined into one document, with a title page, contents that name
pages, a page for each part, and the solutions of all exercises behind the last chapter; Chromium
prints it, with bookmarks. Interactives are printed as the stills that stand for them where no
script runs. Nothing is fetched but files of the site.
"""

from __future__ import annotations

import copy
import html
import mimetypes
import posixpath
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import yaml
from bs4 import BeautifulSoup, Tag
from playwright.sync_api import Browser, Page, Route, ViewportSize
from pypdf import PdfReader

ROOT = Path(__file__).resolve().parents[2]
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))
SITE = str(CONFIG["html"]["baseurl"])
#: No host: every request for it is answered from the folder of the site.
HOME = "http://book.invalid/"
#: What a reader looks up beside the code, and paper does not keep up with; links lead to the site.
ONLINE = ("book/verification.html", "book/api.html")
#: A4 between its margins, in CSS pixels, rounded up.
PAPER = ViewportSize(width=673, height=980)
_FOOTER = (
    '<div style="width: 100%; font: 8pt sans-serif; color: #555; text-align: center">'
    '<span class="pageNumber"></span></div>'
)
_STYLE = """
@page { size: A4; margin: 18mm 16mm 20mm; }
html { scroll-padding: 0; }
.gm-cover, .gm-contents, .gm-part, .gm-chapter { break-before: page; }
.gm-cover { break-before: auto; }
.gm-cover, .gm-part { display: flex; flex-direction: column; height: 245mm; }
.gm-cover, .gm-part { justify-content: center; text-align: center; }
.gm-cover img { margin: 12mm auto; width: 130mm; }
.gm-contents li { display: flex; gap: 1em; list-style: none; margin: 0.15em 0; }
.gm-contents li a { flex: 1; }
.gm-contents ul { padding: 0; }
.gm-contents p { font-weight: 600; margin: 0.9em 0 0.2em; break-after: avoid; }
.gm-solutions .solution { display: block !important; border: 0; margin: 0; padding: 0; }
.gm-solutions .solution > .admonition-title { display: none; }
.bd-main .bd-content .bd-article-container .bd-article { font-size: 10pt; }
a { text-decoration: none; }
"""


#: What is laid out as ever, and not drawn: the first print only tells where names come to stand.
_BLANK = """
* { color: transparent !important; background: none !important; }
* { border-color: transparent !important; }
img, svg, mjx-container { visibility: hidden !important; }
"""


class Document(NamedTuple):
    """A page of the book in the joined document: its name there, its title, its section."""

    name: str
    title: str
    section: Tag


def contents() -> list[tuple[str, list[str]]]:
    """The parts of the printed book: a caption, and pages of the site, 'book/index.html' first."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))
    parts = [("", [toc["root"] + ".html"])]
    for part in toc["parts"]:
        files = [chapter["file"] + ".html" for chapter in part["chapters"]]
        parts.append((part.get("caption", ""), [f for f in files if f not in ONLINE]))
    return parts


def _name(path: str) -> str:
    return Path(path).stem


def _joined(path: str, href: str, known: set[str]) -> str | None:
    """A link of a page, in the joined document: within it, else to the site; None to a file."""
    parts = urlsplit(href)
    if parts.scheme:
        return href
    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), unquote(parts.path)))
    target = path if not parts.path else target
    if target not in known:
        fragment = f"#{parts.fragment}" if parts.fragment else ""
        return SITE + target + fragment if target.endswith(".html") else None
    # The title's own anchor where no other is named.
    fragment = unquote(parts.fragment)
    return f"#{_name(target)}--{fragment}" if fragment else f"#{_name(target)}"


def _document(site: Path, path: str, known: set[str]) -> Document:
    """The article of a page, its names made its own, its links and pictures put right."""
    page = BeautifulSoup((site / path).read_text("utf-8"), "html.parser")
    section = page.select_one("article.bd-article > section")
    assert section is not None, f"{path} has no article"
    for gone in section.select("script, style, .headerlink, button"):
        gone.decompose()
    name = _name(path)
    for element in section.find_all(True):
        own = element.get("id")
        if own:
            element["id"] = f"{name}--{own}"
        if element.name == "a" and element.get("href") is not None:
            link = _joined(path, str(element["href"]), known)
            if link is None:
                del element["href"]
            else:
                element["href"] = link
        if element.name == "img" and not str(element["src"]).startswith("data:"):
            place = posixpath.normpath(posixpath.join(posixpath.dirname(path), str(element["src"])))
            element["src"] = HOME + place
            element["loading"] = "eager"
    for fold in section.find_all("details"):
        fold["open"] = ""
    heading = section.find("h1")
    assert isinstance(heading, Tag), f"{path} has no title"
    heading["id"] = name
    if name == "index":  # its title is on the cover
        heading.string = "About this book"
    return Document(name, heading.get_text(" ", strip=True), section)


def _solutions(chapter: Document) -> str:
    """The solutions of a chapter, each under the title of its exercise."""
    told = []
    for solution in chapter.section.select(".solution"):
        exercise = solution.find_previous(class_="exercise")
        assert isinstance(exercise, Tag), f"a solution without an exercise in {chapter.name}"
        title = exercise.select_one(".admonition-title")
        assert title is not None
        own = copy.copy(solution)
        for element in own.find_all(True):
            if element.get("id"):
                element["id"] = f"solution--{element['id']}"
        words = html.escape(title.get_text(" ", strip=True))
        told.append(f'<h3><a href="#{exercise["id"]}">{words}</a></h3>{own}')
    if not told:
        return ""
    name = f"{chapter.name}--solutions"
    return f'<h2 id="{name}">{html.escape(chapter.title)}</h2>' + "".join(told)


def _head(site: Path) -> str:
    """The stylesheets of the site and its mathematics; no other script."""
    page = BeautifulSoup((site / "book/03-nll-objective.html").read_text("utf-8"), "html.parser")
    kept = []
    for element in page.select("head link[rel=stylesheet], head script"):
        address = element.get("href") or element.get("src")
        if address:
            if element.name == "script" and "mathjax" not in str(address):
                continue
            place = posixpath.normpath(posixpath.join("book", str(address).partition("?")[0]))
            element["href" if element.name == "link" else "src"] = HOME + place
        elif "window.MathJax" not in element.get_text():
            continue
        kept.append(str(element))
    return "".join(kept) + f"<style>{_STYLE}</style>"


def document(site: Path) -> str:
    """The whole book as one HTML document."""
    parts = contents()
    known = {path for _, paths in parts for path in paths}
    title = str(CONFIG["title"])
    entries: list[str] = []
    body: list[str] = []

    def entry(name: str, words: str) -> None:
        link = f'<a href="#{name}">{html.escape(words)}</a>'
        entries.append(f'<li>{link}<span data-page="{name}"></span></li>')

    def opening(words: str) -> None:
        entries.append(f"<p>{html.escape(words)}</p>")
        name = "part-" + re.sub(r"\W+", "-", words.lower())
        body.append(f'<div class="gm-part"><h1 id="{name}">{html.escape(words)}</h1></div>')

    chapters: list[Document] = []
    for caption, paths in parts:
        if caption == "Reference":
            entry("solutions", "Solutions")
            told = "".join(map(_solutions, chapters))
            title_of = '<h1 id="solutions">Solutions</h1>'
            body.append(f'<div class="gm-chapter gm-solutions">{title_of}{told}</div>')
        if caption:
            opening(caption)
        for path in paths:
            own = _document(site, path, known)
            entry(own.name, own.title)
            body.append(f'<div class="gm-chapter">{own.section}</div>')
            chapters.append(own)
    cover = (
        f'<div class="gm-cover"><h1>{html.escape(title)}</h1>'
        f'<img alt="" src="{HOME}_static/old-faithful.svg">'
        f"<p>gmmedu {version('gmmedu')}</p></div>"
        f'<div class="gm-contents"><h1 id="contents">Contents</h1><ul>{"".join(entries)}</ul></div>'
    )
    frame = '<div class="bd-main"><div class="bd-content"><div class="bd-article-container">'
    return (
        f'<!DOCTYPE html><html lang="en" data-theme="light" data-mode="light"><head>'
        f'<meta charset="utf-8"><title>{html.escape(title)}</title>{_head(site)}</head><body>'
        f'{frame}<article class="bd-article">{cover}{"".join(body)}</article></div></div></div>'
        "</body></html>"
    )


@contextmanager
def opened(browser: Browser, site: Path) -> Iterator[Page]:
    """The joined document in a page, as paper would show it, its mathematics set.

    Raises FileNotFoundError where the site lacks a file that it needs.
    """
    source = document(site)
    missing: set[str] = set()

    def answer(route: Route) -> None:
        place = unquote(urlsplit(route.request.url).path).lstrip("/")
        if place == "book.html":
            route.fulfill(body=source, content_type="text/html; charset=utf-8")
        elif route.request.url.startswith(HOME) and (site / place).is_file():
            kind = mimetypes.guess_type(place)[0] or "application/octet-stream"
            route.fulfill(path=site / place, content_type=kind)
        else:
            missing.add(route.request.url)
            route.abort()

    page = browser.new_page(viewport=PAPER)
    page.set_default_timeout(300_000)
    page.route("**/*", answer)
    page.emulate_media(media="print", color_scheme="light")
    page.goto(HOME + "book.html", wait_until="load")
    page.evaluate("() => MathJax.startup.promise.then(() => document.fonts.ready)")
    if missing:
        raise FileNotFoundError(f"the site lacks {', '.join(sorted(missing))}")
    yield page
    page.close()


def _print(page: Page, path: Path, *, final: bool) -> None:
    page.pdf(
        path=path,
        prefer_css_page_size=True,
        print_background=True,
        display_header_footer=final,
        header_template="<span></span>",
        footer_template=_FOOTER,
        outline=final,
        tagged=final,
    )


def _places(path: Path) -> Iterator[tuple[str, int]]:
    """Where each name that a link leads to is printed: pages are counted from 1."""
    reader = PdfReader(path)
    for name, destination in reader.named_destinations.items():
        number = reader.get_destination_page_number(destination)
        if number is not None:
            yield unquote(name.lstrip("/")), number + 1


def print_book(page: Page, path: Path) -> None:
    """Prints what `opened` gives: once to learn the pages, once with them in the contents."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blank = page.add_style_tag(content=_BLANK)
    _print(page, path, final=False)
    blank.evaluate("style => style.remove()")
    page.evaluate(
        "places => document.querySelectorAll('[data-page]').forEach("
        "e => { e.textContent = places[e.dataset.page] })",
        dict(_places(path)),
    )
    _print(page, path, final=True)


def main() -> None:
    # With the tests, which open the pages in a browser too.
    sys.path.insert(0, str(ROOT / "tests"))
    import chromium

    path = ROOT / "_build" / "gmmedu.pdf"
    with chromium.running() as browser, opened(browser, ROOT / "_build" / "html") as page:
        print_book(page, path)
    print(f"The book is at {path.relative_to(ROOT)}: {len(PdfReader(path).pages)} pages")


if __name__ == "__main__":
    main()
