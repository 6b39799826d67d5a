"""The density network: the front end held to torch, gestures tried by hand."""

from __future__ import annotations

import pytest
import torch
import traitlets
from playwright.sync_api import expect

from gmmbook.widgets import MDNExplorer
from widgets.conftest import OpenStatic, drag, reopen

INPUTS = [-0.1, 0.0, 0.2, 0.35, 0.41, 0.5, 0.58, 0.65, 0.9, 1.1]


def test_the_closed_form_is_that_of_torch(open_static: OpenStatic) -> None:
    page = open_static(MDNExplorer())
    found = page.evaluate(
        """inputs => { const { kind, store } = gmmedu.views.density;
          return inputs.map((at, i) => kind.values({ ...store.state, at, target: i / 9 })); }""",
        INPUTS,
    )
    for i, (own, at) in enumerate(zip(found, INPUTS, strict=True)):
        expected = MDNExplorer(at, i / 9).values
        assert own.keys() == expected.keys()
        for key, value in expected.items():
            # Where the top is flat the place of the mode is known to the root of rounding.
            rel = 1e-7 if key == "mode" else 1e-9
            assert own[key] == pytest.approx(value, rel=rel, abs=1e-12), (key, at)


@pytest.mark.parametrize("at", INPUTS)
def test_the_mode_is_the_highest_point_of_a_grid(at: float) -> None:
    explorer = MDNExplorer(at)
    given = explorer.distribution(torch.tensor([[at]], dtype=torch.float64))
    grid = torch.linspace(-0.2, 1.2, 14_001, dtype=torch.float64)[:, None, None]
    highest = float(given.log_prob(grid).max().exp())
    assert highest <= explorer.values["height"] <= highest * (1 + 1e-3)
    mass = given.log_prob(grid).exp().sum() * 1e-4
    assert float(mass) == pytest.approx(1, abs=0.02)
    assert sum(explorer.values["weights"]) == pytest.approx(1)


def test_the_input_is_dragged_and_its_buttons_load_the_questions(open_static: OpenStatic) -> None:
    page = open_static(MDNExplorer())
    question = page.get_by_text("Where is the mean at x = 0.35?")
    expect(question).to_be_visible()
    knob = page.get_by_role("slider", name="input x")
    values = MDNExplorer(0.2).values
    text = f"0.2; mean {values['mean']:.3g}, mode {values['mode']:.3g}"
    expect(knob).to_have_attribute("aria-valuetext", text)
    drag(page, "input x", 40, 0)
    expect(knob).not_to_have_attribute("aria-valuetext", text)
    page.get_by_role("button", name="x = 0.5", exact=True).click()
    page.wait_for_function("location.hash.startsWith('#density=0.5,0.5')")
    expect(question).to_be_hidden()
    reopen(page, "density=0.65,0.3")
    shown = page.locator(".gm-values dl div", has_text="mean of t").locator("dd")
    expect(shown).to_have_text(f"{MDNExplorer(0.65).values['mean']:.3g}")
    reopen(page, "density=3,0.5")
    expect(shown).to_have_text(f"{values['mean']:.3g}")


@pytest.mark.parametrize("at", [-0.2, 1.2])
def test_a_state_out_of_range_is_named(at: float) -> None:
    with pytest.raises(traitlets.TraitError, match=r"must lie from -0.1 to 1.1"):
        MDNExplorer(at)


def test_the_still_says_what_it_shows() -> None:
    explorer = MDNExplorer(0.35)
    assert "input 0.35" in explorer.alt and "highest peak" in explorer.alt
    top, bottom = explorer.to_figure().axes
    assert top.get_xlabel() == "input x" and len(bottom.lines) == 8
