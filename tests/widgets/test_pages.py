"""What every interactive owes to a reader of a page without a kernel."""

from __future__ import annotations

import base64
import gzip
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from axe_playwright_python.base import AXE_SCRIPT
from book.test_site_interactives import INTERACTIVE
from playwright.sync_api import Browser, Page, expect

import gmmbook
import gmmedu
from gmmbook.widgets import (
    EMLayerExplorer,
    FitScrubber,
    GaussianExplorer,
    Interactive,
    LandscapeExplorer,
    MDNExplorer,
    MixtureExplorer,
    SegmentationExplorer,
    SelectionExplorer,
    SeparationExplorer,
    SingularityExplorer,
    StreamExplorer,
)
from gmmbook.widgets.base import _IDLE, _SOURCES, module
from gmmedu.plot import GRAY, PALETTE
from widgets.conftest import LATE, TYPED, OpenStatic, drag, link_to, still
from widgets.test_jupyterlab import CASES

BOOK = Path(gmmbook.__file__).parents[1]
X = gmmedu.load_old_faithful()


def _fit(fitter: Callable[..., gmmedu.FitResult], **options: Any) -> gmmedu.FitResult:
    model = gmmedu.GmmFull(2, 2, dtype=X.dtype)
    gmmedu.initialize(model, X, "points", generator=torch.Generator().manual_seed(0))
    return fitter(model, X, 100, snapshot_every=1, **options)


FITS = {
    "EM": _fit(gmmedu.fit_em, tolerance=0),
    "Adam": _fit(gmmedu.fit_model, mixture_lr=0.1, component_lr=0.1),
}
KINDS: dict[str, Callable[[], Interactive]] = {
    "gaussian": GaussianExplorer,
    "mixture": MixtureExplorer,
    "landscape": LandscapeExplorer,
    "scrubber": lambda: FitScrubber(FITS, X),
    "selection": SelectionExplorer,
    "separation": SeparationExplorer,
    "singularity": lambda: SingularityExplorer(rounded=True),
    "density": MDNExplorer,
    "layer": EMLayerExplorer,
    "stream": StreamExplorer,
    "segmentation": SegmentationExplorer,
}
#: Each is made once: a page gets a copy of its state, and no test of this module changes one.
EXAMPLES = {name: cache(build) for name, build in KINDS.items()}
EVERY = pytest.mark.parametrize("name", EXAMPLES)


@pytest.fixture(autouse=True, scope="module")
def _made_and_drawn_once() -> Iterator[None]:
    """The stills too, which take longest; at the end all are as they were made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Interactive, "_still", cache(Interactive._still))
        yield
    for build in EXAMPLES.values():
        if build.cache_info().currsize:
            own = build()
            assert {name: getattr(own, name) for name in own.state} == own._first, own.kind


def state(page: Page, name: str) -> Any:
    return page.evaluate("name => JSON.parse(JSON.stringify(gmmedu.views[name].store.state))", name)


def test_every_interactive_is_tested_wherever_interactives_are() -> None:
    tested = {type(build()).__name__ for build in EXAMPLES.values()}
    assert tested == {kind.__name__ for kind in Interactive.__subclasses__()}
    assert all(build().kind == name for name, build in EXAMPLES.items())
    assert EXAMPLES.keys() == CASES.keys() == {name for _, name in INTERACTIVE}


DARK = "@media (prefers-color-scheme: dark) { body { background: #121212; color: #ced6dd } }"
VIOLATIONS = """async how =>
  (await axe.run({ ...how, resultTypes: ["violations"] })).violations"""
SMALL = """() => [...document.querySelectorAll('.gm-widget *')]
  .filter(e => [...e.childNodes].some(c => c.nodeType === 3 && c.data.trim())
               && parseFloat(getComputedStyle(e).fontSize) < 11.5)
  .map(e => e.outerHTML.slice(0, 100))"""


@EVERY
def test_accessible_and_within_its_width(open_static: OpenStatic, name: str) -> None:
    """On a laptop and on a phone, light and dark; in the dark only colors differ."""
    page = open_static(EXAMPLES[name]())
    page.add_style_tag(content=DARK)
    page.evaluate(AXE_SCRIPT)
    every: Any = {"rules": {"page-has-heading-one": {"enabled": False}}}
    schemes: Any = {"light": every, "dark": {"runOnly": ["color-contrast"]}}
    for width in (760, 390):
        page.set_viewport_size({"width": width, "height": 900})
        for scheme, options in schemes.items():
            page.emulate_media(color_scheme=scheme)
            still(page)
            grave = [
                f"{width} px, {scheme}: {found['id']}: {node['html'][:200]}"
                for found in page.evaluate(VIOLATIONS, options)
                if found["impact"] in ("serious", "critical")
                for node in found["nodes"]
            ]
            assert not grave, "\n".join(grave)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator(".gm-widget").get_attribute("aria-label")
        small = page.evaluate(SMALL)
        assert not [s for s in small if not s.startswith("<style")], small


@EVERY
@pytest.mark.parametrize(("width", "height", "header"), [(670, 800, 60), (341, 844, 56)])
def test_drawing_curve_and_controls_are_on_one_screen(
    open_static: OpenStatic, name: str, width: int, height: int, header: int
) -> None:
    """As wide as the text of a chapter on a laptop and on a phone, below the header of its page."""
    page = open_static(EXAMPLES[name](), viewport={"width": width, "height": height})
    page.add_style_tag(content="body, figure { margin: 0 }")
    still(page)
    bottom = page.locator(".gm-controls").evaluate("e => e.getBoundingClientRect().bottom")
    assert bottom < height - header
    whole = page.locator(".gm-stage").bounding_box()
    assert whole and (width < 600 or whole["height"] < height - header)
    rows = page.locator(".gm-controls button").evaluate_all(
        """all => { const row = e => Math.round(e.getBoundingClientRect().bottom);
          const last = row(all.at(-1)), controls = all[0].closest('.gm-controls');
          return [...controls.querySelectorAll('button, input, select')]
            .filter(e => Math.abs(row(e) - last) < 8).length; }"""
    )
    assert rows > 1  # Reset is not alone


LIT = """color => [...document.querySelectorAll('.gm-plane [data-color]')]
  .filter(e => e.dataset.color !== '#797979')
  .map(e => [e.dataset.color === color, e.classList.contains('gm-dim')])"""


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != "singularity"])
def test_a_row_of_the_table_lights_up_its_part(open_static: OpenStatic, name: str) -> None:
    page = open_static(EXAMPLES[name]())
    still(page)
    row = page.locator(".gm-table tbody tr", has=page.locator("i[style*='#D55E00']"))
    row.first.hover()
    still(page)
    parts = page.evaluate(LIT, PALETTE[1])
    assert {own for own, _ in parts} == {True, False}
    assert all(own != dim for own, dim in parts)
    page.mouse.move(1, 1)
    still(page)
    assert not any(dim for _, dim in page.evaluate(LIT, PALETTE[1]))
    row.first.focus()
    assert all(own != dim for own, dim in page.evaluate(LIT, PALETTE[1]))
    row.first.blur()
    assert not any(dim for _, dim in page.evaluate(LIT, PALETTE[1]))


def test_a_lit_component_shows_its_responsibilities(open_static: OpenStatic) -> None:
    page = open_static(MixtureExplorer(X))
    still(page)
    page.locator(".gm-table tbody tr").nth(1).focus()
    still(page)
    shown = page.locator(".gm-plane circle[r='3']").evaluate_all(
        "dots => dots.map(dot => Number(dot.getAttribute('fill-opacity')))"
    )
    r = MixtureExplorer(X).model().responsibilities(X)[:, 1].tolist()
    assert shown == pytest.approx([0.9 * (0.1 + 0.9 * v) for v in r])


def test_words_of_the_text_light_up_what_they_name(browser: Browser) -> None:
    script = (BOOK / "_static" / "colors.js").read_text("utf-8")
    text = (
        "<p>The <em>blue</em> one, component 2, a purple curve, a <code>blue</code>, bluest.</p>"
        "<section><p>Blue elsewhere.</p></section>"
    )
    page = browser.new_page()
    page.set_content(f"<section>{text}{MixtureExplorer().to_html()}</section>")
    page.evaluate("script => { (0, eval)(script); dispatchEvent(new Event('load')); }", script)
    words = page.locator(".gm-word")
    assert words.all_text_contents() == ["blue", "component 2", "purple"]
    assert page.locator("p").first.text_content() == re.sub("<[^>]*>", "", text.split("</p>")[0])
    for word, color in ((words.nth(0), PALETTE[0]), (words.nth(1), PALETTE[1])):
        word.hover()
        assert all(own != dim for own, dim in page.evaluate(LIT, color))
        page.mouse.move(1, 1)
        word.focus()
        assert all(own != dim for own, dim in page.evaluate(LIT, color))
        word.blur()
        assert not any(dim for _, dim in page.evaluate(LIT, color))
    assert re.findall("#[0-9A-F]{6}", script) == [*PALETTE, GRAY]
    page.close()


@EVERY
def test_every_control_can_be_reached_and_named(open_static: OpenStatic, name: str) -> None:
    page = open_static(EXAMPLES[name]())
    still(page)
    wanted = page.evaluate(
        """() => [...document.querySelectorAll(
            '.gm-widget :is(button:enabled, select, input:enabled, summary, [tabindex])')]
          .map(e => [...document.querySelectorAll('*')].indexOf(e))"""
    )
    reached = set()
    for _ in range(len(wanted) + 4):
        page.keyboard.press("Tab")
        focus = page.evaluate(
            """() => { const e = document.activeElement, k = e.querySelector('.gm-knob') ?? e;
              const s = getComputedStyle(k);
              return e.closest('.gm-widget') && [e.getAttribute('aria-label') || e.textContent
                || e.labels?.[0]?.textContent, s.outlineStyle + s.strokeWidth]; }"""
        )
        if focus:
            assert focus[0].strip() and focus[1] != "none1px", focus
            reached.add(
                page.evaluate(
                    "() => [...document.querySelectorAll('*')].indexOf(document.activeElement)"
                )
            )
    assert wanted and set(wanted) <= reached


@EVERY
def test_a_link_restores_the_view(open_static: OpenStatic, name: str) -> None:
    page = open_static(EXAMPLES[name]())
    knob = page.locator(".gm-widget [role=slider], .gm-widget input[type=range]").last
    knob.focus()
    for key in ("ArrowRight", "ArrowUp", "ArrowRight"):
        page.keyboard.press(key)
    link, seen = link_to(page, name), state(page, name)
    assert re.fullmatch(r"[a-z0-9-]+=[-+.,0-9e]+", link)
    other = open_static(EXAMPLES[name](), hash=link)
    still(other)
    restored = state(other, name)
    encode = "name => gmmedu.views[name].kind.encode(gmmedu.views[name].store.state)"
    assert other.evaluate(encode, name) == pytest.approx(page.evaluate(encode, name), rel=1e-5)
    assert restored.keys() == seen.keys()
    page.get_by_role("button", name="Reset").click()
    page.wait_for_function("location.hash === ''", timeout=3_000)


HOSTILE = [
    "{}=",
    "{}=1",
    "{}=1,2,3,4,5,6,7,8,9,10,11,12,13",
    "{}=NaN,NaN,NaN,NaN,NaN,NaN",
    "{}=1e999,0,1,0,1,0",
    "{}=-1,-1,-1,-1,-1,-1,-1",
    "{}=<img src=x onerror=alert(1)>",
    "{}=alert(1)",
    "__proto__=1,2,3",
    "constructor=1,2",
    "{}=1,2&{}=javascript:alert(1)",
    "%00%ff{}=%3Cscript%3E",
    "{}=" + "1," * 3000 + "1",
    "a-section-of-the-page",
]


@EVERY
def test_a_broken_or_hostile_link_is_ignored(open_static: OpenStatic, name: str) -> None:
    plain = open_static(EXAMPLES[name]())
    still(plain)
    first = state(plain, name)
    for text in HOSTILE:
        plain.evaluate(TYPED, text.replace("{}", name))
        # What is taken is in the state by now, and drawn in the next frame.
        still(plain, 0)
        assert state(plain, name) == first, text
    still(plain)
    page = open_static(EXAMPLES[name](), hash=HOSTILE[6].replace("{}", name))
    still(page)
    assert state(page, name) == first
    assert page.locator(".gm-widget img").count() == 0


@EVERY
def test_the_place_in_the_page_stays_in_the_address(open_static: OpenStatic, name: str) -> None:
    page = open_static(EXAMPLES[name](), hash="a-section")
    page.locator(".gm-widget [role=slider]").last.focus()
    page.keyboard.press("ArrowRight")
    link = link_to(page, name)
    assert link.startswith(f"a-section&{name}=")
    page.evaluate(
        """() => { const tall = document.createElement("div");
        tall.style.height = "3000px"; document.body.prepend(tall); }"""
    )
    page.get_by_role("button", name="Reset").click()
    page.wait_for_function("location.hash === '#a-section'", timeout=3_000)
    page.evaluate("link => { scrollTo(0, 0); location.hash = link; }", link)
    still(page)
    assert page.evaluate("scrollY") > 1_000  # a link to a view shows it


@EVERY
def test_a_link_shows_the_view_when_what_is_above_it_comes_late(
    open_static: OpenStatic, name: str
) -> None:
    page = open_static(EXAMPLES[name]())
    page.locator(".gm-widget [role=slider]").last.focus()
    page.keyboard.press("ArrowRight")
    link_to(page, name)
    address = page.url
    page.add_init_script(
        """document.addEventListener("DOMContentLoaded", () => {
        const tall = document.createElement("img");
        document.documentElement.style.overflowAnchor = "none";
        document.body.prepend(tall);
        tall.style = "display: block; height: 3000px; width: 9px";
        tall.src = "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg'/>"; })"""
    )
    page.goto("about:blank")
    page.goto(address)
    expect(page.locator(f"[data-gmmedu={name}]")).to_be_in_viewport()


@EVERY
def test_a_reset_that_is_answered_late_leaves_nothing_behind(
    open_static: OpenStatic, name: str
) -> None:
    page = open_static(EXAMPLES[name]())
    still(page)
    # What was hidden and is shown again has an empty style.
    drawn = "name => gmmedu.views[name].ui.stage.outerHTML.replaceAll(' style=\"\"', '')"
    first = page.evaluate(drawn, name)
    page.evaluate(LATE, name)
    label = page.locator(".gm-handle").last.get_attribute("aria-label")
    drag(page, label or "", 60, 20)
    still(page)
    assert page.evaluate(drawn, name) != first
    page.get_by_role("button", name="Reset").click()
    page.mouse.move(0, 0)
    still(page, 300)
    assert page.evaluate(drawn, name) == first


@EVERY
def test_only_the_first_button_drags(open_static: OpenStatic, name: str) -> None:
    page = open_static(EXAMPLES[name]())
    knob = page.locator(".gm-handle .gm-knob").last
    before = state(page, name)
    box = knob.bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down(button="right")
    page.mouse.move(x + 30, y - 10, steps=3)
    page.mouse.up(button="right")
    still(page)
    # What follows the pointer, and what it focuses.
    ignored = {"gaussian": {"point"}, "mixture": {"selected"}}.get(name, set())
    after = state(page, name)
    moved = {key for key in before if before[key] != after[key]} - {"values"}
    assert moved <= ignored


@EVERY
def test_a_reader_who_comes_back_stays_where_they_were(open_static: OpenStatic, name: str) -> None:
    page = open_static(EXAMPLES[name]())
    page.add_init_script("Element.prototype.scrollIntoView = () => { window.brought = true; };")
    page.locator(".gm-widget [role=slider]").last.focus()
    page.keyboard.press("ArrowRight")
    link_to(page, name)
    address = page.url
    page.reload()
    still(page)
    assert page.url == address and page.evaluate("window.brought") is None
    page.evaluate("location.hash = 'elsewhere'")
    page.go_back()
    still(page)
    assert page.url == address and page.evaluate("window.brought") is None
    # One who comes by a link is brought to the view.
    page.goto("about:blank")
    page.goto(address)
    still(page)
    assert page.evaluate("window.brought")


@EVERY
def test_a_second_finger_moves_nothing_and_the_first_goes_on(
    open_static: OpenStatic, name: str
) -> None:
    page = open_static(EXAMPLES[name](), has_touch=True)
    knob = page.locator(".gm-handle .gm-knob").last
    box = knob.bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    session = page.context.new_cdp_session(page)

    def touch(kind: str, *places: tuple[float, float]) -> Any:
        points = [{"x": px, "y": py, "id": i} for i, (px, py) in enumerate(places)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        still(page)
        return knob.bounding_box()

    touch("touchStart", (x, y))
    held = touch("touchStart", (x, y), (x + 4, y + 4))
    assert touch("touchMove", (x, y), (x - 40, y - 15)) == held
    # One of them may be at the end of its way.
    went = [touch("touchMove", (x + dx, y - 10), (x - 40, y - 15)) for dx in (-60, 60)]
    assert any(place != held for place in went)
    touch("touchEnd")


@EVERY
def test_values_can_be_read_at_twice_the_size(open_static: OpenStatic, name: str) -> None:
    page = open_static(EXAMPLES[name](), viewport={"width": 390, "height": 844})
    page.add_style_tag(content="html { font-size: 200% } figure { margin: 0 }")
    still(page)
    cut = page.evaluate(
        """() => [...document.querySelectorAll('.gm-values :is(dd, td)')].filter(e => {
          const box = e.closest('.gm-values').getBoundingClientRect();
          return e.getBoundingClientRect().right > Math.min(box.right, innerWidth) + 1;
        }).map(e => e.textContent)"""
    )
    assert not cut, cut


@EVERY
def test_without_javascript_a_picture_stands_there(open_static: OpenStatic, name: str) -> None:
    page = open_static(EXAMPLES[name](), java_script_enabled=False)
    picture = page.locator("img.gm-still")
    expect(picture).to_be_visible()
    assert len((picture.get_attribute("alt") or "").split()) > 5
    box = picture.bounding_box()
    assert box and box["width"] > 200 and box["height"] > 100


@EVERY
def test_on_paper_the_drawing_stays_and_the_controls_go(open_static: OpenStatic, name: str) -> None:
    page = open_static(EXAMPLES[name]())
    still(page)
    page.emulate_media(media="print")
    expect(page.locator(".gm-plane").first).to_be_visible()
    expect(page.locator(".gm-controls")).to_be_hidden()


def test_several_on_one_page_keep_their_own_state(open_static: OpenStatic) -> None:
    makers = list(EXAMPLES.values())
    page = open_static(*(make() for make in makers), GaussianExplorer(mean=(1, 1)))
    still(page)
    names = page.evaluate("() => Object.keys(gmmedu.views)")
    assert names == [*EXAMPLES, "gaussian-2"]
    before = {name: state(page, name) for name in names}
    page.locator("#gaussian-2").get_by_role("slider", name="mean", exact=True).focus()
    page.keyboard.press("ArrowRight")
    still(page)
    after = {name: state(page, name) for name in names}
    assert after["gaussian-2"]["mean"] != before["gaussian-2"]["mean"]
    assert {n: after[n] for n in EXAMPLES} == {n: before[n] for n in EXAMPLES}
    page.wait_for_function("location.hash.startsWith('#gaussian-2=')", timeout=3_000)


@EVERY
def test_it_stands_in_a_page_of_ones_own_and_on_paper(name: str) -> None:
    interactive = EXAMPLES[name]()
    text = interactive.to_html()
    assert not re.search(r"https?://(?!www\.w3\.org)", text)
    bundle = interactive._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    assert "application/vnd.jupyter.widget-view+json" in data and "text/html" in data
    assert interactive.to_figure().axes


@EVERY
def test_a_script_that_comes_later_adds_its_kind(open_static: OpenStatic, name: str) -> None:
    """Of scripts that know different kinds the first mounts all, and listens alone."""
    first = SeparationExplorer() if name == "gaussian" else GaussianExplorer()
    page = open_static(first, EXAMPLES[name](), first)
    still(page)
    assert page.locator(".gm-widget").count() == 3 and page.locator(".gm-still").count() == 0
    views = page.evaluate("() => Object.keys(gmmedu.views)")
    assert views == [first.kind, name, f"{first.kind}-2"]
    start = state(page, name)
    page.locator(f"#{name} [role=slider]").last.focus()
    for key in ("ArrowRight", "ArrowUp", "ArrowRight"):
        page.keyboard.press(key)
    link = link_to(page, name)
    page.locator(f"#{name}").get_by_role("button", name="Reset").click()
    page.wait_for_function("location.hash === ''", timeout=3_000)
    assert state(page, name) == start
    page.evaluate("link => { location.hash = link }", link)
    still(page)
    assert state(page, name) != start


@EVERY
def test_the_module_is_the_sources_less_spaces_and_comments(
    open_static: OpenStatic, name: str
) -> None:
    interactive = EXAMPLES[name]()
    parts = ("1-math", "2-draw", f"-{name}", "9-host")
    own = [path.read_text("utf-8") for path in _SOURCES if path.stem.endswith(parts)]
    code, shipped = "\n".join(own), module(name)
    assert len(own) == 4 and interactive._esm.startswith(shipped)
    # Of a template within another the spaces would go.
    assert not re.search(r"`[^`]*\$\{[^}`]*`", code)
    literals = re.findall(r"`[^`]*`", code)
    assert literals and all(_IDLE.sub("", literal) == literal for literal in literals)
    kept = shipped.replace(" ", "").splitlines()
    assert [line for line in code.replace(" ", "").splitlines() if line in set(kept)] == kept
    # What is read by people has its spaces still, in comments alone it is not.
    texts = re.findall(r"""\"[^"\n]*\"|`[^`]*`""", _IDLE.sub("", code))
    assert all(text in shipped for text in texts)
    page = open_static(interactive)
    address = "data:text/javascript;base64," + base64.b64encode(interactive._esm.encode()).decode()
    names = "async address => Object.keys((await import(address)).default)"
    assert page.evaluate(names, address) == ["render", "math"]


@EVERY
def test_the_front_end_is_small_and_has_the_colors_of_the_figures(name: str) -> None:
    shipped = module(name)
    assert re.findall(r"^kinds\.(\w+)", shipped, re.M) == [name]
    assert len(gzip.compress(shipped.encode())) < 30_000
    assert all(color in shipped for color in PALETTE)
    assert not re.search(r"\b(fetch|eval|Function|import)\b\s*\(", shipped)
    assert not re.search(r"\b(innerHTML|outerHTML|insertAdjacentHTML)\b", shipped)
    assert "Math.random" not in shipped
