"""The Gaussian: its closed forms held to torch, and its handles, keys and link tried by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import traitlets
from playwright.sync_api import Browser, Page, expect

from gmmbook.widgets import GaussianExplorer
from widgets.conftest import OpenStatic, drag, still

FLOAT64 = torch.float64
COVARIANCES = {
    "random": [[2.0, 0.9], [0.9, 1.0]],
    "equal eigenvalues": [[1.5, 0.0], [0.0, 1.5]],
    "upright": [[0.5, 0.0], [0.0, 3.0]],
    "near singular": [[1.0, 1.0 - 1e-7], [1.0 - 1e-7, 1.0]],
    "thin and slanted": [[4.0, -1.9999], [-1.9999, 1.0]],
}


def ask(page: Page, expression: str, argument: Any = None) -> Any:
    """What the front end computes: `expression` is a function of the argument."""
    return page.evaluate(f"argument => ({expression})(argument)", argument)


def test_values_of_the_page_are_those_of_torch(open_static: OpenStatic) -> None:
    explorers = [
        GaussianExplorer([0.3, -1.2], covariance, point=[1.7, 0.4], slice=-0.8)
        for covariance in COVARIANCES.values()
    ]
    page = open_static(*explorers)
    shown = ask(page, "() => Object.values(gmmedu.views).map(view => view.store.state.values)")
    for own, explorer, name in zip(shown, explorers, COVARIANCES, strict=True):
        assert own.keys() == explorer.values.keys()
        for key, expected in explorer.values.items():
            assert own[key] == pytest.approx(expected, rel=1e-9, abs=1e-9), (name, key)


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page()
    page.set_content(GaussianExplorer().to_html())
    yield page
    page.close()


@pytest.mark.parametrize("far", [0.0, 1e6])
@pytest.mark.parametrize("name", COVARIANCES)
def test_eigenpairs_and_densities_are_those_of_torch(page: Page, name: str, far: float) -> None:
    covariance = torch.tensor(COVARIANCES[name], dtype=FLOAT64)
    own = ask(page, "c => gmmedu.math.principal(c)", covariance.tolist())
    values, vectors = torch.linalg.eigh(covariance)
    squares = torch.tensor(own["sds"], dtype=FLOAT64).square().flip(0)
    torch.testing.assert_close(squares, values, rtol=1e-9, atol=1e-9 * float(values[1]))
    axis = torch.tensor([math.cos(own["angle"]), math.sin(own["angle"])], dtype=FLOAT64)
    residual = covariance @ axis - values[1] * axis
    assert float(residual.norm()) < 1e-9 * float(values[1])
    again = ask(page, "([s, a]) => gmmedu.math.covarianceOf(s, a)", [own["sds"], own["angle"]])
    torch.testing.assert_close(torch.tensor(again, dtype=FLOAT64), covariance, rtol=0, atol=1e-9)

    x = far + torch.randn(20, 2, generator=torch.Generator().manual_seed(0)).to(FLOAT64)
    mean = torch.tensor([far, far], dtype=FLOAT64)
    expected = torch.distributions.MultivariateNormal(mean, covariance).log_prob(x)
    found = ask(
        page,
        "([x, m, c]) => x.map(p => gmmedu.math.logDensity(p, m, gmmedu.math.factorOf(c)))",
        [x.tolist(), mean.tolist(), covariance.tolist()],
    )
    torch.testing.assert_close(torch.tensor(found, dtype=FLOAT64), expected, rtol=1e-9, atol=1e-9)


def test_the_random_state_of_torch_is_left_alone() -> None:
    before = torch.get_rng_state()
    GaussianExplorer().model()
    assert torch.equal(before, torch.get_rng_state())


def test_traits_are_observed_set_and_reset() -> None:
    explorer = GaussianExplorer()
    heard = []
    explorer.observe(lambda change: heard.append(change["new"]), "values")
    explorer.set(mean=[1, 2], covariance=[[1, 0], [0, 4]])
    assert explorer.mean == [1.0, 2.0] and heard[-1]["sds"] == [2.0, 1.0]
    explorer.reset()
    assert explorer.mean == [0.0, 0.0] and explorer.covariance == [[2.0, 0.9], [0.9, 1.0]]


@pytest.mark.parametrize(
    ("traits", "words"),
    [
        ({"covariance": [[1, 2], [2, 1]]}, "covariance must be symmetric and positive definite"),
        ({"covariance": [[1, 0.5], [0.4, 1]]}, "covariance must be symmetric"),
        ({"covariance": [[1, math.nan], [math.nan, 1]]}, "covariance must be"),
        ({"mean": [9, 0]}, "mean must lie within limit"),
        ({"mean": [math.nan, 0]}, "mean must lie within limit"),
        ({"mean": [1, 2, 3]}, "mean"),
        ({"slice": "x"}, "slice"),
        ({"slice": 9}, "slice must lie within limit"),
        ({"slice": math.nan}, "slice must lie within limit"),
    ],
)
def test_what_is_no_gaussian_is_refused_and_nothing_changes(
    traits: dict[str, Any], words: str
) -> None:
    explorer = GaussianExplorer()
    before = {name: getattr(explorer, name) for name in (*explorer.state, "values")}
    with pytest.raises(traitlets.TraitError, match=words):
        explorer.set(**traits)
    with pytest.raises(traitlets.TraitError, match=words):
        explorer.set(point=[0.5, 0.5], **traits)
    assert before == {name: getattr(explorer, name) for name in before}


def test_a_covariance_may_be_symmetric_to_rounding() -> None:
    covariance = [[2.0, 0.1 + 0.2], [0.3, 1.0]]
    ((_, b), (c, _)) = GaussianExplorer(covariance=covariance).covariance
    assert b == c == pytest.approx(0.3)


def state(page: Page, trait: str) -> Any:
    still(page, 30)
    return page.evaluate(f"gmmedu.views.gaussian.store.state.{trait}")


def test_drag_keys_and_reset(open_static: OpenStatic) -> None:
    page = open_static(GaussianExplorer(), patient=True)
    drag(page, "mean", 50, -50)
    mean = state(page, "mean")
    assert mean[0] == pytest.approx(mean[1]) and 0.3 < mean[0] < 1.5
    before = state(page, "covariance")
    drag(page, "end of principal axis 1", -40, 30)
    after = state(page, "covariance")
    short = [torch.linalg.eigvalsh(torch.tensor(c)).min().item() for c in (before, after)]
    assert short[0] == pytest.approx(short[1], rel=1e-6)  # the other axis keeps its length
    assert after != before
    knob = page.get_by_role("slider", name="mean", exact=True)
    knob.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Shift+ArrowDown")
    moved = state(page, "mean")
    assert moved == pytest.approx([mean[0] - 0.1, mean[1] - 1.0])
    assert knob.get_attribute("aria-valuetext") == ", ".join(
        f"{v:.3g}".replace("-", "−") for v in moved
    )
    expect(page.get_by_role("status")).to_contain_text("correlation", timeout=3_000)
    page.get_by_role("button", name="Reset").click()
    assert state(page, "mean") == [0, 0]


def test_an_axis_of_a_circle_can_be_turned(open_static: OpenStatic) -> None:
    page = open_static(GaussianExplorer(covariance=[[0.5, 0.0], [0.0, 0.5]]))
    drag(page, "end of principal axis 1", 60, -60)
    (a, b), (_, c) = state(page, "covariance")
    assert b > 0.1 and a > c


@pytest.mark.parametrize("angle", [0.0, 0.3, 0.785, 1.2, 2.0])
@pytest.mark.parametrize("narrow", [0.04, 0.006])
def test_a_link_to_a_thin_gaussian_restores_it(
    open_static: OpenStatic, narrow: float, angle: float
) -> None:
    """As thin as its handles make it, and thinner, as its slider of the correlation does."""
    axes = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    covariance = axes @ np.diag([2.0**2, narrow**2]) @ axes.T
    numbers = [0.5, 0, covariance[0, 0], covariance[0, 1], covariance[1, 1], 1, 0, 0]
    page = open_static(GaussianExplorer(), hash="gaussian=" + ",".join(f"{v:.6g}" for v in numbers))
    assert state(page, "mean") == [0.5, 0]
    np.testing.assert_allclose(state(page, "covariance"), covariance, rtol=1e-4, atol=1e-5)


def test_a_link_to_a_wide_gaussian_restores_it(open_static: OpenStatic) -> None:
    """Both axes as long as the plane is wide, and the slider of the correlation: 1.3 times."""
    page = open_static(GaussianExplorer(), hash="gaussian=0,0,16,12,16,1,0,0")
    assert state(page, "covariance") == [[16, 12], [12, 16]]


def test_what_a_mouse_passes_over_is_no_view_to_link_to(open_static: OpenStatic) -> None:
    page = open_static(GaussianExplorer())
    box = page.locator(".gm-plane").bounding_box()
    assert box
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    still(page, 300)
    assert state(page, "point") != [1, 1] and page.evaluate("location.hash") == ""
    page.mouse.down()
    page.mouse.up()
    still(page, 300)
    assert page.evaluate("location.hash").startswith("#gaussian=")


def test_a_tap_reads_the_density_there(open_static: OpenStatic) -> None:
    page = open_static(GaussianExplorer(), has_touch=True)
    box = page.locator(".gm-plane").bounding_box()
    assert box
    page.touchscreen.tap(box["x"] + 100, box["y"] + box["height"] - 100)
    first, second = state(page, "point")
    assert first < -2 and second < -2
    assert state(page, "values.log_density") < -4


def test_the_line_of_the_slice_can_be_held_anywhere(open_static: OpenStatic) -> None:
    page = open_static(GaussianExplorer(mean=(-2.0, 0.0)))
    line = page.get_by_role("slider", name="conditional slice, x1").bounding_box()
    assert line
    x, y = line["x"] + line["width"] / 2, line["y"] + 40
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 60, y + 30, steps=4)
    page.mouse.up()
    assert -1.5 < state(page, "slice") < 0.5


def test_an_axis_that_ends_outside_is_held_without_a_jump(open_static: OpenStatic) -> None:
    page = open_static(GaussianExplorer(mean=(3.0, 3.0), covariance=[[4.0, 1.0], [1.0, 0.3]]))
    before = state(page, "covariance")
    drag(page, "end of principal axis 1", 1, 0)
    after = state(page, "covariance")
    assert before != after
    assert after == pytest.approx(torch.tensor(before).numpy(), abs=0.15)


def test_touch_drags_too(open_static: OpenStatic) -> None:
    page = open_static(GaussianExplorer(), has_touch=True, viewport={"width": 390, "height": 844})
    box = page.get_by_role("slider", name="mean", exact=True).bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    session = page.context.new_cdp_session(page)
    for kind, dx in (("touchStart", 0), ("touchMove", 20), ("touchMove", 40), ("touchEnd", None)):
        points = [] if dx is None else [{"x": x + dx, "y": y}]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    assert state(page, "mean")[0] > 0.4
