"""The separation: its rate held to EM itself, the closed form to torch, gestures tried by hand."""

from __future__ import annotations

import math

import pytest
import torch
import traitlets
from playwright.sync_api import expect
from torch import Tensor
from torch.distributions import Normal

from gmmbook.widgets import SeparationExplorer
from widgets.conftest import OpenStatic, drag, reopen

STATES = [(a, s) for a in (1.0, 1.3, 2.2, 4.0, 6.0, 8.0) for s in (0.01, 0.1, 0.5, 0.73)]


def _em(u: Tensor, x: Tensor, mass: Tensor) -> Tensor:
    """An iteration of EM on weighted points: weight, means, variances of two components."""
    weights = torch.stack([1 - u[0], u[0]])
    a = weights.log() + Normal(u[1:3], u[3:].sqrt(), validate_args=False).log_prob(x[:, None])
    r = mass[:, None] * a.softmax(1)
    counts = r.sum(0)
    means = (r * x[:, None]).sum(0) / counts
    variances = (r * (x[:, None] - means).square()).sum(0) / counts
    return torch.cat([counts[1:] / counts.sum(), means, variances])


@pytest.mark.parametrize(("apart", "share"), STATES)
def test_the_rate_is_that_of_the_jacobian_of_em(apart: float, share: float) -> None:
    """At the truth, on endless data: a fine grid with the true density."""
    x = torch.linspace(-12, apart + 12, 6001, dtype=torch.float64)
    parts = Normal(torch.tensor([0.0, apart], dtype=x.dtype), torch.ones(2, dtype=x.dtype))
    weights = torch.tensor([1 - share, share], dtype=x.dtype)
    mass = parts.log_prob(x[:, None]).exp() @ weights * (x[1] - x[0])
    truth = torch.tensor([share, 0.0, apart, 1.0, 1.0], dtype=x.dtype)
    jacobian = torch.func.jacrev(_em)(truth, x, mass)
    rates = torch.linalg.eigvals(jacobian)
    values = SeparationExplorer(apart, share).values
    assert values["rate"] == pytest.approx(float(rates.real.max()), rel=1e-9)
    assert values["iterations"] == pytest.approx(
        math.log(1e-6 / 1e-3) / (2 * math.log(float(rates.real.max()))), rel=1e-6
    )
    weaker = (parts.log_prob(x[:, None]).exp() * weights).amin(1) * (x[1] - x[0])
    # The smaller of two has a kink, over which a sum of steps of 0.02 errs by their square.
    assert values["doubt"] == pytest.approx(float(weaker.sum()), rel=2e-3)


@pytest.mark.slow
def test_em_on_a_large_sample_shrinks_its_error_at_that_rate() -> None:
    """No formula: EM iterates, on a million points, and successive steps are compared."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1_000_000, generator=generator, dtype=torch.float64)
    x[:300_000] += 3.0
    mass = torch.ones_like(x)
    u = torch.tensor([0.3, 0.0, 3.0, 1.0, 1.0], dtype=x.dtype)
    steps = []
    for _ in range(60):
        new = _em(u, x, mass)
        steps.append(float((new - u).norm()))
        u = new
    measured = steps[-1] / steps[-2]
    assert SeparationExplorer(3.0, 0.3).values["rate"] == pytest.approx(measured, abs=5e-3)


def test_the_closed_form_is_that_of_torch(open_static: OpenStatic) -> None:
    page = open_static(SeparationExplorer())
    found = page.evaluate(
        """states => { const { kind, store } = gmmedu.views.separation;
          return states.map(([apart, share]) =>
            kind.values({ ...store.state, apart, share })); }""",
        STATES,
    )
    for own, (apart, share) in zip(found, STATES, strict=True):
        expected = SeparationExplorer(apart, share).values
        assert own.keys() == expected.keys()
        for key, value in expected.items():
            # Where the rate is near 1 its logarithm has lost what the rate has.
            rel = 1e-9 if key != "iterations" else 1e-9 + 1e-14 * value
            assert own[key] == pytest.approx(value, rel=rel), (key, apart, share)


def test_it_is_pulled_apart_and_its_buttons_load_the_races(open_static: OpenStatic) -> None:
    page = open_static(SeparationExplorer())
    mean = page.get_by_role("slider", name="mean of the second component")
    curve = page.get_by_role("slider", name="separation along the curve")
    near = SeparationExplorer(4.0).values["iterations"]
    expect(curve).to_have_attribute("aria-valuetext", f"4; {near:.3g} iterations")
    drag(page, "mean of the second component", -60, 0)
    expect(mean).not_to_have_attribute("aria-valuetext", "4 standard deviations off")
    page.get_by_role("button", name="2.2 sd", exact=True).click()
    page.wait_for_function("location.hash.startsWith('#separation=2.2,0.5')")
    slow = SeparationExplorer(2.2).values["iterations"]
    shown = page.locator(".gm-values dl div", has_text="iterations of").locator("dd")
    expect(shown).to_have_text(f"{slow:.3g}")
    reopen(page, "separation=6,0.5")
    expect(mean).to_have_attribute("aria-valuetext", "6 standard deviations off")
    reopen(page, "separation=0.5,0.5")
    expect(mean).to_have_attribute("aria-valuetext", "4 standard deviations off")


def test_the_curve_is_drawn_where_a_reader_has_been(open_static: OpenStatic) -> None:
    page = open_static(SeparationExplorer(6.0))
    question = page.get_by_text("How many at 2?")
    expect(question).to_be_visible()
    law = page.locator(".gm-plane").nth(1).locator("path[stroke='#9030D8']")
    places = "e => e.getAttribute('d').split('L').length"
    assert law.evaluate(places) < 4
    page.get_by_role("button", name="2.2 sd", exact=True).click()
    expect(question).to_be_hidden()
    assert 35 < law.evaluate(places) < 45
    page.get_by_role("button", name="Reset").click()
    expect(question).to_be_visible()


@pytest.mark.parametrize(("apart", "share"), [(0.5, 0.5), (9, 0.5), (4, 0), (4, 1)])
def test_a_state_out_of_range_is_named(apart: float, share: float) -> None:
    with pytest.raises(traitlets.TraitError, match="must lie from"):
        SeparationExplorer(apart, share)


def test_the_still_says_what_it_shows() -> None:
    explorer = SeparationExplorer(2.2)
    assert "2.2 standard deviations apart" in explorer.alt
    top, bottom = explorer.to_figure().axes
    assert bottom.get_yscale() == "log" and len(bottom.lines) == 3
    assert top.get_xlabel() == "x (standard deviations)"
