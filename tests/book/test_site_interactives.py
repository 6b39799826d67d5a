"""The interactives in the pages of the book: by keyboard, by finger, in print, without a script."""

from __future__ import annotations

import re
from pathlib import Path

import page_inspector
import pytest
from page_inspector import Inspector, leave_formulas_out
from playwright.sync_api import Browser, expect
from widgets.conftest import drag, link_to

pytestmark = pytest.mark.slow

INTERACTIVE = [
    ("00-first-look", "scrubber"),
    ("01-multivariate-normal", "gaussian"),
    ("02-mixture-likelihood", "mixture"),
    ("03-nll-objective", "landscape"),
    ("05-gradient-descent", "landscape"),
    ("05-gradient-descent", "scrubber"),
    ("06-expectation-maximization", "scrubber"),
    ("07-descent-versus-em", "separation"),
    ("07-descent-versus-em", "scrubber"),
    ("08-singularities", "singularity"),
    ("10-mixture-density-networks", "density"),
    ("09-how-many-components", "selection"),
    ("11-at-scale", "stream"),
    ("12-em-as-a-layer", "layer"),
    ("13-applications", "segmentation"),
]


#: Where formulas are set too, above one far down and above one near the top: a link to a view leads
#: there when they have their height.
WITH_FORMULAS = {("05-gradient-descent", "scrubber"), ("01-multivariate-normal", "gaussian")}


@pytest.mark.parametrize(("chapter", "name"), INTERACTIVE)
def test_an_interactive_lives_in_the_page(inspector: Inspector, chapter: str, name: str) -> None:
    address, figure = f"{inspector.home}book/{chapter}.html", f"[data-gmmedu={name}]"
    page = inspector.context("dark").new_page()
    leave_formulas_out(page)
    page.goto(address)
    which = 1 if name == "gaussian" else 0  # its first one only reads a density
    knob = page.locator(figure).locator(".gm-widget [role=slider]").nth(which)
    knob.focus()
    before = knob.get_attribute("aria-valuetext")
    for key in ("ArrowRight", "ArrowUp"):
        page.keyboard.press(key)
    link, after = link_to(page, name), knob.get_attribute("aria-valuetext")
    assert after != before and link.startswith(f"{name}=")
    page.close()
    page = inspector.context("light").new_page()
    if (chapter, name) not in WITH_FORMULAS:
        leave_formulas_out(page)
    page.goto(f"{address}#{link}")
    own = page.locator(figure)
    restored = own.locator(".gm-widget [role=slider]").nth(which)
    expect(restored).to_have_attribute("aria-valuetext", after or "")
    if (chapter, name) in WITH_FORMULAS:
        page.evaluate(page_inspector.WAIT_FOR_MATH)
    expect(own).to_be_in_viewport()  # a link to a view shows it
    own.get_by_role("button", name="Reset").click()
    page.wait_for_function("location.hash === ''")
    page.emulate_media(media="print")
    assert own.locator(".gm-plane").first.is_visible()
    assert not own.locator(".gm-controls").is_visible()
    page.close()


#: Each kind once, where it comes last.
KINDS = {name: chapter for chapter, name in INTERACTIVE}


@pytest.mark.parametrize(("name", "chapter"), KINDS.items())
def test_an_interactive_is_dragged_and_played_on_a_phone(
    inspector: Inspector, chapter: str, name: str
) -> None:
    page = inspector.context("dark").new_page()
    page.set_viewport_size(page_inspector.PHONE)
    leave_formulas_out(page)
    page.goto(f"{inspector.home}book/{chapter}.html")
    own = page.locator(f"[data-gmmedu={name}]")
    knob = own.get_by_role("slider").nth(1 if name == "gaussian" else 0)
    knob.scroll_into_view_if_needed()
    before = knob.get_attribute("aria-valuetext") or ""
    drag(page, knob.get_attribute("aria-label") or "", 40, -20, view=name)
    expect(knob).not_to_have_attribute("aria-valuetext", before)
    for play in own.get_by_role("button", name=re.compile("^(Play|Run EM)$")).all():
        shown = own.locator(".gm-values").inner_text()
        play.click()
        expect(own.locator(".gm-values")).not_to_have_text(shown, use_inner_text=True)
    page.close()


@pytest.mark.parametrize(("chapter", "name"), INTERACTIVE[:2])
def test_without_javascript_its_picture_stands_in_the_page(
    browser: Browser, inspector: Inspector, chapter: str, name: str
) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{inspector.home}book/{chapter}.html")
    assert page.locator(f"[data-gmmedu={name}] img.gm-still").is_visible()
    assert page.locator(".gm-widget").count() == 0
    context.close()


@pytest.mark.parametrize(("chapter", "name"), INTERACTIVE)
def test_every_interactive_has_its_picture(site: Path, chapter: str, name: str) -> None:
    text = (site / "book" / f"{chapter}.html").read_text("utf-8")
    figure = text.partition(f'data-gmmedu="{name}"')[2].partition("</figure>")[0]
    still = re.search(r'<img class="gm-still" src="([^"]+)" alt="([^"]+)"', figure)
    assert still and len(still[2].split()) > 5
    assert still[1].startswith("data:image/") or (site / "book" / still[1]).is_file()
