"""The book builds without a warning, and a reader's browser has nothing to complain of."""

from __future__ import annotations

import base64
import gzip
import re
from collections.abc import Iterator
from pathlib import Path

import page_inspector
import pytest
from page_inspector import Inspector, leave_formulas_out, pages_of, served
from playwright.sync_api import Browser
from verification import equations_of

from book.test_portable import NOTEBOOKS, NUMBERS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def test_every_page_of_the_contents_is_built(site: Path) -> None:
    built = set(pages_of(site))
    sources = [line.split()[-1] for line in (ROOT / "_toc.yml").read_text().splitlines()]
    expected = {f"{name}.html" for name in sources if name.startswith("book/")}
    assert expected | {"genindex.html", "search.html"} <= built


def test_every_page_is_sound_in_a_browser(inspector: Inspector, site: Path) -> None:
    findings = [finding for name in pages_of(site) for finding in inspector.inspect(name)]
    assert not findings, "\n" + "\n".join(map(str, findings))


# Text, emphasis and code.
FACES = {"Literata normal", "Literata italic", "JetBrains Mono normal"}
LOADED_FACES = """async () => {
  await document.fonts.ready;
  return [...document.fonts].filter(face => face.status === 'loaded')
    .map(face => `${face.family.replaceAll('"', '')} ${face.style}`);
}"""


def test_the_site_brings_its_own_faces(inspector: Inspector, site: Path) -> None:
    page = inspector.context("light").new_page()
    leave_formulas_out(page)
    page.goto(inspector.home + "book/01-multivariate-normal.html")
    assert set(page.evaluate(LOADED_FACES)) >= FACES
    for selector, family in (("article p", "Literata"), ("article code", '"JetBrains Mono"')):
        style = page.locator(selector).first.evaluate("e => getComputedStyle(e).fontFamily")
        assert style.startswith(family)
    page.close()
    faces = list((site / "_static" / "fonts").glob("*.woff2"))
    assert len(faces) == len(FACES)
    assert sum(face.stat().st_size for face in faces) < 100_000


def test_the_root_leads_to_the_first_page(inspector: Inspector) -> None:
    page = inspector.context("light").new_page()
    page.goto(inspector.home)
    page.wait_for_url(inspector.home + "book/index.html")
    page.close()


@pytest.mark.parametrize("scheme", page_inspector.SCHEMES)
def test_the_pages_follow_the_color_scheme(inspector: Inspector, scheme: str) -> None:
    page = inspector.context(scheme).new_page()
    page.goto(inspector.home + "book/index.html")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    red = int(background.split("(")[1].split(",")[0])
    assert (red > 200) == (scheme == "light"), background
    page.close()


def test_a_search_finds_pages(inspector: Inspector, site: Path) -> None:
    page = inspector.context("light").new_page()
    page.goto(inspector.home + "book/index.html")
    page.keyboard.press("Control+k")
    page.locator("input[name=q]").fill("responsibilities")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=responsibilities")
    results = page.locator("#search-results li a")
    results.first.wait_for(timeout=10_000)
    found = [link.get_attribute("href") or "" for link in results.all()]
    page.close()
    assert found
    for link in found:
        assert (site / link.split("?")[0].split("#")[0]).is_file(), link


def test_each_notebook_can_be_launched_and_downloaded(site: Path) -> None:
    for notebook in sorted((ROOT / "book").glob("*.ipynb")):
        text = (site / "book" / f"{notebook.stem}.html").read_text(encoding="utf-8")
        assert (
            f"colab.research.google.com/github/gmmedu/gmmedu/blob/main/book/{notebook.name}" in text
        )
        assert f"urlpath=lab/tree/book/{notebook.name}" in text
        assert f"../_sources/book/{notebook.name}" in text
        assert (site / "_sources" / "book" / notebook.name).is_file()


def test_a_shared_link_shows_title_summary_and_picture(site: Path) -> None:
    for name in pages_of(site):
        if name.startswith("book/"):
            text = (site / name).read_text(encoding="utf-8")
            for field in ("og:title", "og:description", "og:url", "og:image", "og:image:alt"):
                assert f'property="{field}"' in text, f"{name}: {field}"
    assert (site / "_static" / "social.png").read_bytes().startswith(b"\x89PNG")


SITE_NUMBERS = (
    r'id="equation-(eq-[\w-]+)">\s*<span class="eqno">\(([\d.]+)\)',
    r'<figure[^>]*id="(fig-[\w-]+)".*?<span class="caption-number">Figure ([\d.]+) ',
    r'id="(exercise-[\d-]+)">.*?<span class="caption-number">Exercise ([\d.]+) ',
)


def test_typed_numbers_are_those_of_the_site(site: Path) -> None:
    """A notebook program shows what is typed; the site counts for itself."""
    for name in NOTEBOOKS:
        page = (site / "book" / name).with_suffix(".html").read_text(encoding="utf-8")
        counted = [match for what in SITE_NUMBERS for match in re.findall(what, page, re.DOTALL)]
        typed = [(label, number) for label, (at, number) in NUMBERS.items() if at == name]
        assert sorted(counted) == sorted(typed)


def test_citations_lead_to_their_entries(site: Path) -> None:
    entries = (site / "book" / "bibliography.html").read_text(encoding="utf-8")
    for name in NOTEBOOKS:
        page = (site / "book" / name).with_suffix(".html").read_text(encoding="utf-8")
        links = re.findall(r'href="bibliography\.html#([\w-]+)" title="([^"]*)', page)
        typed = "\n".join(c.source for c in NOTEBOOKS[name].cells if c.cell_type == "markdown")
        assert len(links) == len(re.findall(r"\]\(bibliography\.md#", typed)), name
        assert all(f'id="{entry}"' in entries and title for entry, title in links), name


def test_every_equation_is_in_the_table_with_its_proof(site: Path) -> None:
    labels = [e.label for p in sorted((ROOT / "book").glob("*.ipynb")) for e in equations_of(p)]
    text = (site / "book" / "verification.html").read_text(encoding="utf-8")
    assert labels
    for label in labels:
        row = text.partition(f">{label}<")[2].partition("</tr>")[0]
        assert "::test_" in row and "allowed)" in row, label


def test_no_page_is_heavy(site: Path) -> None:
    """As a server sends it, compressed: the page, its pictures, and the front end."""
    for name in pages_of(site):
        path = site / name
        text = path.read_text(encoding="utf-8")
        files = {
            path,
            *(path.parent / src for src in re.findall(r'src="([^"]*_images/[^"]*)"', text)),
        }
        scripts = {
            path.parent / src for src in re.findall(r'src="([^"]*_static/gmmedu-[^"]*)"', text)
        }
        assert len(scripts) == ('data-gmmedu="' in text), name
        assert sum(len(gzip.compress(script.read_bytes())) for script in scripts) < 30_000, name
        files |= scripts
        weight = sum(len(gzip.compress(file.read_bytes())) for file in files)
        assert weight < 500_000, f"{name}: {weight} bytes"
    assert "data-gmmedu-module" not in (site / "book" / "01-multivariate-normal.html").read_text()


# The detectors, each shown a page that has the fault and one that has not.

KINDS = (
    "console error",
    "outside request",
    "missing file",
    "picture",
    "formula",
    "dead link",
    "sideways",
    "cut",
    "search field",
    "accessibility",
)
SOUND = """<!doctype html><html lang="en"><head><meta name="viewport" content="width=device-width">
<title>page</title><link rel="icon" href="data:,"></head><body><main><article>
<h1 id="top">A page</h1>{}</article></main></body></html>"""
MATHJAX = "<script>MathJax = {startup: {promise: Promise.resolve()}}</script>"  # done, it says
DOT = "data:image/gif;base64,R0lGODlhAQABAAAAACw="
WIDE = "data:image/svg+xml,<svg xmlns=%22http://www.w3.org/2000/svg%22 width=%22614%22/>"
LITERATA = (ROOT / "book" / "_static" / "fonts" / "Literata.woff2").read_bytes()
FACE = f"data:font/woff2;base64,{base64.b64encode(LITERATA).decode()}"
BAD = {
    "console error": "<script>console.error('a complaint')</script>",
    "console error from an exception": "<script>throw new Error('a bug')</script>",
    "outside request": "<img src='https://example.org/x.png' alt='A dot far away'>",
    "outside request by a script": "<script>fetch('https://example.org').catch(_ => 0)</script>",
    "missing file": "<script src='nowhere.js'></script>",
    "picture": f"<img src='{DOT}'>",
    "picture named by its file": f"<img src='{DOT}' alt='a.png'>",
    "picture drawn in place": "<svg width='9' height='9'><circle r='3'/></svg>",
    "formula": rf"<span class='math'>\(x\)</span>{MATHJAX}",
    "formula left as text": "<p>so $$x^2$$ follows</p>",
    "formula left as inline text": r"<p>so $\mu$ follows</p>",
    "formula in error": "<mjx-container><mjx-merror>Undefined</mjx-merror></mjx-container>",
    "dead link": "<a href='gone.html'>gone</a>",
    "dead link to an anchor": "<a href='#bottom'>down</a>",
    "dead link to a disk": "<a href='file:///a/page.html'>my disk</a>",
    "sideways": "<div style='width: 700px'>wide</div>",
    "sideways once unfolded": """<details><summary>more</summary>
      <div style='width: 700px'>wide</div></details>""",
    "sideways where a face does not come": f"""<style>
      @font-face {{font-family: Own; src: url('{FACE}')}} p {{font-family: Own, monospace}}
      </style><p style='display: inline-block; white-space: pre'>{"il" * 24}</p>""",
    "sideways on the narrowest phone": "<div style='width: 360px'>wide</div>",
    "sideways but cut off": """<style>html {overflow-x: hidden}</style>
      <div style='width: 700px'>wide</div>""",
    "cut formula": f"""<div class='math'><span class='eqno'>(1.1)</span>
      <mjx-container display='true' style='display: block; overflow-x: auto' tabindex='0'
      class='gm-goes-on'><div style='width: 700px'>x</div></mjx-container></div>{MATHJAX}""",
    "cut formula without a sign": f"""<div class='math'>
      <mjx-container display='true' style='display: block; overflow-x: auto'>
      <div style='width: 700px'>x</div></mjx-container></div>{MATHJAX}""",
    "cut formula that fits": f"""<span class='math'>
      <mjx-container class='gm-goes-on' style='display: inline-block'>x</mjx-container></span>
      {MATHJAX}""",
    "cut lines": """<div class='cell_output'><div class='stream'>
      <pre style='overflow: auto; max-width: 300px'>"""
    + "m" * 90
    + "</pre></div></div>",
    "cut labels": f"""<div class='cell_output'><img alt='A wide drawing of nothing' src='{WIDE}'
      style='max-width: 100%'></div>""",
    "search field": "<input name='q' aria-label='Search'>",
    "accessibility": "<button></button>",
    "accessibility of a heading that skips": "<h4>Deep down</h4>",
    "accessibility of faint words": "<p style='color: #999'>faint words</p>",
}
GOOD = rf"""<a href='#top'>up</a> <a href='page.html#top'>here</a> <code>$$x$$</code> $5 and $6
<img src='{DOT}' alt='A single transparent dot'>
<svg role='img' aria-label='A circle' width='9' height='9'><circle r='3'/></svg>
<span class='math'><mjx-container>x</mjx-container></span>{MATHJAX}
<div class='math'><mjx-container display='true' style='display: block; overflow-x: auto'
tabindex='0' class='gm-goes-on'><div style='width: 700px'>x</div></mjx-container></div>
<div style='overflow-x: auto' tabindex='0'><div style='width: 700px'>scrolls</div></div>"""


@pytest.fixture(scope="module")
def tried(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inspector]:
    folder = tmp_path_factory.mktemp("pages")
    with served(folder) as home:
        inspector = Inspector(browser, folder, home, search_fields=0)
        yield inspector
        inspector.close()


def _findings(inspector: Inspector, body: str) -> set[str]:
    (inspector.site / "page.html").write_text(SOUND.replace("{}", body), encoding="utf-8")
    return {finding.kind for finding in inspector.inspect("page.html")}


@pytest.mark.parametrize("fault", BAD)
def test_the_inspector_sees(tried: Inspector, fault: str) -> None:
    kind = next(kind for kind in KINDS if fault.startswith(kind))
    assert kind in _findings(tried, BAD[fault])


def test_the_inspector_is_content_with_a_sound_page(tried: Inspector) -> None:
    assert _findings(tried, GOOD) == set()
