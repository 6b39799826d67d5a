"""The landscape of two means: its roads held to torch, and starts, sliders and link by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import traitlets
from playwright.sync_api import Page, expect

import gmmedu
from gmmbook.widgets import LandscapeExplorer
from widgets.conftest import OpenStatic, reopen, still

FLOAT64 = torch.float64
TRAITS = (
    "x", "weights", "sds", "limits", "start", "rate", "momentum", "num_steps"
)  # fmt: skip


def two_kinds(seed: int, n: int = 60, center: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n, generator=generator, dtype=FLOAT64)
    return center + torch.where(torch.arange(n) % 3 == 0, 4 + z, -3 + 1.5 * z)


def around(center: float, start: tuple[float, float] = (5.0, -1.0), **options: Any) -> Any:
    return {
        "sds": (1.2, 1.7),
        "limits": (center - 9, center + 9),
        "start": (center + start[0], center + start[1]),
        "rate": 1.5,
        **options,
    }


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "the waits": (None, {}),
    "momentum": (None, {"rate": 15.0, "momentum": 0.7, "num_steps": 80}),
    "the other valley": (None, {"start": (60.0, 50.0), "num_steps": 100}),
    "equal means": (None, {"start": (70.0, 70.0), "weights": (0.5, 0.5), "num_steps": 12}),
    "leaves": (None, {"rate": 400.0}),
    "from a corner": (None, {"start": (40.0, 100.0)}),
    "beyond every number": (None, {"rate": 1e300, "momentum": 0.5}),
    "a hair of weight": (None, {"weights": (1e-12, 1 - 1e-12), "num_steps": 10}),
    "no width": (None, {"sds": (1e-4, 1e-4), "rate": 1e-9, "num_steps": 5}),
    "all responsibility elsewhere": (
        torch.linspace(-1, 1, 20, dtype=FLOAT64),
        {"sds": (0.01, 0.01), "limits": (-5.0, 5.0), "start": (0.2, 4.9), "rate": 1e-5},
    ),
    "one point": (
        [3.0],
        {"sds": (1.0, 2.0), "limits": (0.0, 10.0), "start": (9.0, 1.0), "rate": 1.0},
    ),
    "random": (two_kinds(0), around(0.0)),
    "random, other start": (two_kinds(1), around(0.0, (-6.0, 8.0), momentum=0.5, rate=0.4)),
    "far from zero": (two_kinds(2, center=1e6), around(1e6)),
    "an outlier": (
        torch.cat([two_kinds(3), torch.tensor([1e6], dtype=FLOAT64)]),
        around(0.0, rate=1e-9),
    ),
}


def explorer(name: str) -> LandscapeExplorer:
    x, options = CASES[name]
    return LandscapeExplorer(x, **options)


def close(found: Any, expected: Any, *, scale: float = 0.0) -> None:
    """Equal to 1e-9 of the numbers, or of the plane."""
    assert type(found) is type(expected) or isinstance(expected, float), (found, expected)
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            close(found[key], expected[key], scale=scale)
    elif expected is None:
        assert found is None
    else:
        torch.testing.assert_close(
            torch.tensor(found, dtype=FLOAT64),
            torch.tensor(expected, dtype=FLOAT64),
            rtol=1e-9,
            atol=1e-9 * max(scale, 1.0),
        )


def ask(page: Page, own: LandscapeExplorer) -> Any:
    return page.evaluate(
        "s => JSON.parse(JSON.stringify(gmmedu.views.landscape.kind.values(s)))",
        {name: getattr(own, name) for name in TRAITS},
    )


def test_values_of_the_page_are_those_of_torch(open_static: OpenStatic) -> None:
    page = open_static(LandscapeExplorer())
    for name in CASES:
        own = explorer(name)
        low, high = own.limits
        try:
            close(ask(page, own), own.values, scale=high - low)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


def test_each_step_is_that_of_torch_where_rounding_grows(open_static: OpenStatic) -> None:
    """At a bold rate a road may be chaotic, and only single steps can agree."""
    page = open_static(LandscapeExplorer())
    for rate in (110.0, 150.0, 190.0):
        own = LandscapeExplorer(rate=rate, num_steps=100, start=(60.0, 75.0))
        road = torch.tensor(ask(page, own)["descent"]["road"], dtype=FLOAT64)
        for here, following in zip(road, road[1:], strict=False):
            step = here - rate * own.gradient(here)
            torch.testing.assert_close(following, step, rtol=1e-9, atol=1e-9)


def test_the_landscape_is_that_of_the_package() -> None:
    own = LandscapeExplorer()
    x = gmmedu.load_old_faithful(dtype=FLOAT64)[:, 1:]
    assert own.x == x.flatten().tolist()
    means = torch.tensor(own.start, dtype=FLOAT64)
    model = gmmedu.GmmFull(2, 1, dtype=FLOAT64).set_parameters(
        torch.tensor(own.weights, dtype=FLOAT64),
        means[:, None],
        torch.full((2, 1, 1), 36.0, dtype=FLOAT64),
    )
    nll = model(x)
    (slopes,) = torch.autograd.grad(nll, model.means)
    assert own.values["em"]["nll"][0] == pytest.approx(nll.item(), rel=1e-12)
    assert own.values["gradient"] == pytest.approx(slopes.flatten().tolist(), rel=1e-9)
    r = model.responsibilities(x).detach()
    moved = (r * x).sum(0) / r.sum(0)
    assert own.values["em"]["road"][1] == pytest.approx(moved.tolist(), rel=1e-12)


def test_descent_is_that_of_torch_and_em_never_rises() -> None:
    own = LandscapeExplorer(rate=15.0, momentum=0.7, num_steps=80)
    mu = torch.tensor(own.start, dtype=FLOAT64, requires_grad=True)
    optimizer = torch.optim.SGD([mu], 15.0, momentum=0.7)
    for means in own.values["descent"]["road"]:
        assert means == pytest.approx(mu.tolist(), rel=1e-9)
        mu.grad = own.gradient(mu)
        optimizer.step()
    falls = torch.tensor(own.values["em"]["nll"], dtype=FLOAT64).diff()
    assert bool((falls <= 1e-14).all())
    assert own.values["em"]["road"][-1] == pytest.approx([54.608, 80.0735], abs=1e-3)
    assert own.values["lowest"] == pytest.approx(own.values["em"]["nll"][-1], abs=1e-9)


def test_a_road_ends_where_it_leaves_the_plane() -> None:
    own = LandscapeExplorer(rate=400.0)
    descent = own.values["descent"]
    assert len(descent["road"]) == len(descent["nll"]) == 1
    first, second = descent["exit"]
    assert first == 40 and 40 <= second <= 100
    slope = own.values["gradient"]
    assert (90 - second) / (88 - first) == pytest.approx(slope[1] / slope[0])
    assert "gradient descent leaves the plane at step 1" in own.alt
    own.rate = 1e308
    assert all(40 <= v <= 100 for v in own.values["descent"]["exit"])


def test_traits_are_observed_set_and_reset() -> None:
    own = LandscapeExplorer(two_kinds(0)[:, None], **around(0.0))
    heard: list[Any] = []
    own.observe(lambda change: heard.append(change["new"]), "values")
    own.set(start=[1, 2], num_steps=7)
    assert len(own.values["em"]["road"]) == 8 and heard
    first = own.values["lowest"]
    own.weights = [0.5, 0.5]
    assert own.values["lowest"] != first
    own.x = [0.0, 1.0]
    assert own.values["lowest"] != first
    own.reset()
    assert own.start == [5.0, -1.0] and own.num_steps == 40 and own.x == [0.0, 1.0]
    assert LandscapeExplorer().unit == "min" and own.unit == ""


@pytest.mark.parametrize(
    ("traits", "words"),
    [
        ({"start": [39, 50]}, "start must lie within limits"),
        ({"start": [math.nan, 50]}, "start must lie within limits"),
        ({"start": [1, 2, 3]}, "start"),
        ({"start": "ab"}, "start"),
        ({"limits": [100, 40]}, "limits must be finite, the lower one first"),
        ({"limits": [-math.inf, 100]}, "limits must be finite"),
        ({"limits": [89, 100]}, "start must lie within limits"),
        ({"rate": 0}, "rate must be positive"),
        ({"rate": math.inf}, "rate must be positive and finite"),
        ({"rate": "fast"}, "rate"),
        ({"num_steps": 0}, "num_steps must be from 1 to 100, got 0"),
        ({"num_steps": 101}, "num_steps must be"),
        ({"momentum": 1}, r"momentum must lie in \[0, 1\)"),
        ({"weights": [0.5, 0.6]}, "weights must be positive and sum to 1"),
        ({"weights": [0, 1]}, "weights must be positive"),
        ({"sds": [0, 1]}, "sds must be positive"),
        ({"sds": [6, math.nan]}, "sds must be positive"),
        ({"sds": [1e-9, 6]}, "within 1e8 standard deviations"),
        ({"x": [math.nan]}, "x and limits must be finite"),
        ({"x": [1e300]}, "x and limits must be finite"),
        ({"x": []}, "x must have at least one point"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_changes(traits: dict[str, Any], words: str) -> None:
    own = LandscapeExplorer()
    before = {name: getattr(own, name) for name in (*TRAITS, "values", "alt")}
    with pytest.raises(traitlets.TraitError, match=words):
        own.set(**traits)
    with pytest.raises(traitlets.TraitError, match=words):
        LandscapeExplorer(**traits)
    assert before == {name: getattr(own, name) for name in before}


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.zeros(3, 2), r"x must have shape \(N,\) or \(N, 1\), got \(3, 2\)"),
        (1.0, "x must have shape"),
        ("waits", "x must hold numbers"),
        ([[1, 2], [3]], "x must hold numbers"),
    ],
)
def test_data_of_another_shape_are_refused(x: Any, words: str) -> None:
    with pytest.raises(traitlets.TraitError, match=words):
        LandscapeExplorer(x)


def test_every_view_can_be_printed_and_mounted(open_static: OpenStatic) -> None:
    views = [explorer(name) for name in CASES]
    for own in views:
        assert len(own.to_figure().axes) == 2 and len(own.alt.split()) > 20
    page = open_static(*views)
    still(page)
    for figure, name in zip(page.locator("figure").all(), CASES, strict=True):
        paths = figure.locator(".gm-plane path:not(.gm-axis)")
        drawn = paths.evaluate_all("all => all.map(p => p.getAttribute('d'))")
        assert len(drawn) == 11, name
        assert not any("NaN" in d or "Infinity" in d for d in drawn), name


def state(page: Page, trait: str) -> Any:
    still(page)
    return page.evaluate(f"gmmedu.views.landscape.store.state.{trait}")


def pixel(page: Page, first: float, second: float) -> tuple[float, float]:
    """Where on the page a pair of means of the plane from 40 to 100 lies."""
    box = page.locator(".gm-plane").first.bounding_box()
    assert box
    left, right, top, bottom = 48, 14, 8, 42
    across = box["width"] - left - right
    return (
        box["x"] + left + across * (first - 40) / 60,
        box["y"] + top + (box["height"] - top - bottom) * (100 - second) / 60,
    )


def test_a_press_anywhere_sets_the_start_to_be_dragged(open_static: OpenStatic) -> None:
    page = open_static(LandscapeExplorer())
    page.mouse.click(*pixel(page, 60, 50))
    assert state(page, "start") == pytest.approx([60, 50], abs=0.2)
    page.keyboard.press("ArrowRight")
    assert state(page, "start") == pytest.approx([60.5, 50], abs=0.2)
    page.mouse.move(*pixel(page, 60.5, 50))
    page.mouse.down()
    page.mouse.move(*pixel(page, 50, 70), steps=4)
    assert state(page, "start") == pytest.approx([50, 70], abs=0.3)
    page.mouse.move(*pixel(page, 130, 20), steps=4)  # as far as the plane goes
    page.mouse.up()
    assert state(page, "start") == [100, 40]
    x, y = pixel(page, 40, 70)
    page.mouse.click(x - 20, y)  # beside the plane
    assert state(page, "start") == [100, 40]
    expect(page.locator(".gm-said")).to_contain_text("EM is at 80.45, 55.3", timeout=3_000)


def test_other_limits_and_other_data_set_by_code_are_followed(open_static: OpenStatic) -> None:
    page = open_static(LandscapeExplorer())
    page.evaluate(
        """() => { const { store } = gmmedu.views.landscape;
        store.set("limits", [0, 200]);
        store.set("x", store.state.x.map(v => 1.5 * v));
        store.save_changes(); }"""
    )
    still(page)
    knob = page.get_by_role("slider", name="start, the two means")
    assert [float(knob.get_attribute(f"aria-value{end}") or "") for end in ("min", "max")] == [
        0,
        200,
    ]
    plane = page.locator(".gm-plane").first
    assert {"0", "200"} <= set(plane.locator(".gm-axis ~ text").all_text_contents())
    box, mask = plane.bounding_box(), plane.locator("clipPath rect")
    assert box
    left, width = (float(mask.get_attribute(name) or "") for name in ("x", "width"))
    page.mouse.click(box["x"] + left + 0.9 * width, box["y"] + box["height"] / 2)
    still(page)
    start = page.evaluate("gmmedu.views.landscape.store.state.start")
    assert start[0] == pytest.approx(180, abs=2)
    assert page.locator(".gm-values").inner_text().count("NaN") == 0


def test_the_start_meets_the_diagonal(open_static: OpenStatic) -> None:
    page = open_static(LandscapeExplorer())
    page.mouse.click(*pixel(page, 62, 62.1))
    first, second = state(page, "start")
    assert first == second == pytest.approx(62, abs=0.2)
    page.keyboard.press("ArrowUp")
    first, second = state(page, "start")
    assert second == pytest.approx(first + 0.5)


def test_equal_means_stay_equal_under_em_to_the_last_bit(open_static: OpenStatic) -> None:
    page = open_static(LandscapeExplorer(num_steps=100))
    for start in (62.0, 75.5, 40.0, 83.3):
        own = LandscapeExplorer(start=(start, start), num_steps=100)
        page.evaluate(
            f"""() => {{ const {{ store }} = gmmedu.views.landscape;
            store.set("start", [{start}, {start}]); store.save_changes(); }}"""
        )
        for road in (own.values["em"]["road"], state(page, "values.em.road")):
            assert len(road) == 101 and all(first == second for first, second in road)
            mean = gmmedu.load_old_faithful()[:, 1].mean().item()
            assert road[-1][0] == pytest.approx(mean, rel=1e-12)
        descent = own.values["descent"]["road"]
        assert descent[-1][0] != descent[-1][1]  # equal weights alone would keep it there


def test_a_curve_ends_where_it_meets_the_bottom(open_static: OpenStatic) -> None:
    page = open_static(LandscapeExplorer())
    still(page)
    bottom = page.locator(".gm-plane").nth(1).locator("path:not(.gm-axis)").nth(0)
    d = bottom.get_attribute("d") or ""
    heights = [float(pair.split()[1]) for pair in d[1:].split("L")]
    assert len(heights) < 40 and heights.count(max(heights)) == 1


def test_keys_sliders_and_reset(open_static: OpenStatic) -> None:
    page = open_static(LandscapeExplorer())
    knob = page.get_by_role("slider", name="start, the two means")
    knob.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Shift+ArrowDown")
    assert state(page, "start") == pytest.approx([87.5, 85])
    assert "87.5, 85; NLL" in (knob.get_attribute("aria-valuetext") or "")
    for label, trait, low, high in (
        ("learning rate", "rate", 0.72, 720),
        ("momentum", "momentum", 0, 0.95),
        ("steps", "num_steps", 1, 100),
    ):
        slider = page.get_by_role("slider", name=label)
        slider.focus()
        before = state(page, trait)
        page.keyboard.press("ArrowRight")
        assert state(page, trait) > before
        page.keyboard.press("Home")
        assert state(page, trait) == pytest.approx(low, rel=0.02)
        page.keyboard.press("End")
        assert state(page, trait) == pytest.approx(high, rel=0.02)
    expect(page.get_by_text("leaves at step 1")).to_be_visible()
    expect(page.locator(".gm-said")).to_contain_text("leaves the plane at step", timeout=3_000)
    page.get_by_role("button", name="Reset").click()
    assert [state(page, t) for t in ("start", "rate", "momentum", "num_steps")] == [
        [88, 90],
        30,
        0,
        40,
    ]


def test_a_tap_sets_the_start_and_a_finger_drags(open_static: OpenStatic) -> None:
    page = open_static(LandscapeExplorer(), has_touch=True, viewport={"width": 390, "height": 844})
    page.touchscreen.tap(*pixel(page, 60, 50))
    assert state(page, "start") == pytest.approx([60, 50], abs=0.3)
    session = page.context.new_cdp_session(page)
    places = [pixel(page, 60 + i, 50 + 5 * i) for i in range(4)]
    for i, (x, y) in enumerate(places):
        kind = "touchMove" if i else "touchStart"
        points = [{"x": x, "y": y}]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert state(page, "start") == pytest.approx([63, 65], abs=0.4)


def dots(page: Page) -> int:
    """Dots that EM's road shows in the plane."""
    d = page.locator(".gm-plane").first.locator("path:not(.gm-axis)").nth(4).get_attribute("d")
    return (d or "").count("M")


def test_the_rates_that_can_be_chosen_follow_the_widths(open_static: OpenStatic) -> None:
    page = open_static(LandscapeExplorer())
    rate = page.get_by_role("slider", name="learning rate η")
    page.evaluate(
        """() => { const { store } = gmmedu.views.landscape;
        store.set("sds", [1, 2]); store.set("rate", 1); store.save_changes(); }"""
    )
    still(page)
    for key, text in (("End", "40"), ("Home", "0.04")):
        rate.press(key)
        still(page)
        assert rate.get_attribute("aria-valuetext") == text


def test_a_road_is_walked_step_by_step_unless_motion_is_unwanted(open_static: OpenStatic) -> None:
    page = open_static(LandscapeExplorer())
    still(page)
    assert dots(page) == 41
    page.clock.install()
    page.get_by_role("button", name="Walk").click()
    page.clock.run_for(200)
    assert 0 < dots(page) < 41
    page.clock.run_for(1_700)
    assert dots(page) == 41
    calm = open_static(LandscapeExplorer(), reduced_motion="reduce")
    assert calm.get_by_role("button", name="Walk").count() == 0
    calm.mouse.click(*pixel(calm, 60, 50))
    still(calm)
    assert dots(calm) == 41


LINKS: list[tuple[str, list[float]]] = [
    ("60,50,45,0.5,20", [60, 50]),
    ("60,50,45,0.5", [88, 90]),
    ("60,50,45,0.5,20,1", [88, 90]),
    ("60,150,45,0.5,20", [88, 90]),
    ("60,50,0,0.5,20", [88, 90]),
    ("60,50,-3,0.5,20", [88, 90]),
    ("60,50,45,1,20", [88, 90]),
    ("60,50,45,0.5,20.5", [88, 90]),
    ("60,50,45,0.5,1e9", [88, 90]),
    ("60,50,1e308,0.5,20", [60, 50]),
]


def test_a_link_restores_what_can_be(open_static: OpenStatic) -> None:
    page = open_static(LandscapeExplorer())
    for hash, start in LINKS:
        reopen(page, f"landscape={hash}")
        assert state(page, "start") == start, hash
        assert state(page, "values.em.road.length") == (21 if start == [60, 50] else 41)
