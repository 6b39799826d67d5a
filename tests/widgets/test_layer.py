"""EM as a layer: gradients held to refits, the front end to torch, gestures tried by hand."""

from __future__ import annotations

import random
import re
from typing import Any

import numpy as np
import pytest
import torch
import traitlets
from playwright.sync_api import expect

import gmmedu
from gmmbook.widgets import EMLayerExplorer
from widgets.conftest import OpenStatic, addresses, drag, reopen, still

SCENES = ["Well apart", "Overlapping", "Near a jump"]
OUTPUTS = ["weight 2", "mean 1", "mean 2", "log sd"]
START = EMLayerExplorer().points


def refit(x: Any) -> Any:
    """Plain EM, written out, for as long as anything moves: weight 2, means, log sd."""
    weight, means, sd = 0.5, np.array([-1.0, 4.0]), 1.0
    for _ in range(20_000):
        before = weight, *means, sd
        joint = np.array([1 - weight, weight]) * np.exp(-(((x[:, None] - means) / sd) ** 2) / 2)
        r = joint / joint.sum(1, keepdims=True)
        weight, means = r[:, 1].mean(), (r * x[:, None]).sum(0) / r.sum(0)
        sd = np.sqrt((r * (x[:, None] - means) ** 2).sum() / len(x))
        if np.abs(np.subtract(before, (weight, *means, sd))).max() < 1e-15:
            break
    return np.array([weight, *means, np.log(sd)])


@pytest.mark.parametrize("scene", SCENES)
def test_the_gradient_is_that_of_refits(scene: str) -> None:
    x = EMLayerExplorer(scene).moved().numpy()
    fits = refit(x)
    own = [EMLayerExplorer(scene, output=output).values for output in OUTPUTS]
    for fit, values in zip(fits, own, strict=True):
        assert values["output"] == pytest.approx(fit, abs=1e-11)
    for n in range(15):
        h = 1e-4 * np.eye(15)[n]
        slopes = (refit(x + h) - refit(x - h)) / 2e-4
        for slope, values, output in zip(slopes, own, OUTPUTS, strict=True):
            assert values["gradient"][n] == pytest.approx(slope, rel=1e-4, abs=1e-6), (n, output)


@pytest.mark.parametrize("scene", SCENES)
@torch.no_grad()
def test_more_steps_come_to_the_gradient_at_the_rate(scene: str) -> None:
    def left(steps: int) -> Any:
        values = EMLayerExplorer(scene, steps=steps).values
        return np.subtract(values["gradient"], values["unrolled"])

    rate = EMLayerExplorer(scene).values["rate"]
    assert np.abs(left(40)).max() < max(1e-9, 4 * rate**40)
    if scene != "Well apart":
        assert left(40) == pytest.approx(left(39) * rate, rel=1e-3, abs=1e-6)
    # One step at the fixed point, and its gradient by finite differences of that step.
    explorer = EMLayerExplorer(scene)
    model, h = explorer.model(), 1e-5
    for n in range(15):
        ends = []
        for way in (-h, h):
            x = explorer.moved()
            x[n] += way
            ends.append(gmmedu.em_step(model.state(), x[:, None], model.family).means[1, 0])
        slope = float(ends[1] - ends[0]) / (2 * h)
        assert explorer.values["unrolled"][n] == pytest.approx(slope, abs=1e-8)


def test_the_fit_is_where_the_models_of_the_engine_end() -> None:
    explorer = EMLayerExplorer("Overlapping")
    model, x = explorer.model(), explorer.moved()[:, None]
    fit = gmmedu.fit_em(model, x, 5, 0)
    assert float(fit.history[0] - fit.nll) < 1e-12
    assert model.means[:, 0].tolist() == pytest.approx(explorer.values["means"], abs=1e-8)


def test_what_the_buttons_are_to_show() -> None:
    apart, overlapping, near = (EMLayerExplorer(scene).values for scene in SCENES)
    assert apart["slope_unrolled"] == pytest.approx(apart["slope"], rel=1e-6)
    assert overlapping["slope_unrolled"] < 0.4 * overlapping["slope"]
    # Where the point was taken the rate is small, and the line is good at first.
    taken = EMLayerExplorer("Near a jump", at=5.0).values
    assert taken["rate"] < 0.05 and near["rate"] > 0.8
    assert abs(near["predicted"] - near["output"]) < 0.05
    ends = [EMLayerExplorer("Near a jump", at=at).values["output"] for at in (8.32, 8.33)]
    assert ends[1] - ends[0] > 3


def states(count: int) -> list[dict[str, Any]]:
    """Each scene, with its point elsewhere and other outputs and steps."""
    draw, found = random.Random(2), []
    for i in range(count):
        own = EMLayerExplorer(SCENES[i % 3])
        state = {"points": own.points, "selected": draw.randrange(15)}
        state |= {"at": round(draw.uniform(-4, 10), 2), "output": OUTPUTS[i % 4]}
        found.append({**state, "steps": draw.choice([1, 2, 7, 40])})
    return found


VALUES = """states => { const { kind, store } = gmmedu.views.layer;
  return states.map(state => kind.values({ ...store.state, ...state })); }"""


def test_the_closed_forms_are_those_of_torch(open_static: OpenStatic) -> None:
    page, made = open_static(EMLayerExplorer()), states(24)
    compared = 0
    for own, state in zip(page.evaluate(VALUES, made), made, strict=True):
        expected = EMLayerExplorer(**state).values
        assert own.keys() == expected.keys()
        # Rounding of the fit grows as 1 / (1 - rate) does.
        if expected["rate"] > 0.99:
            continue
        compared += 1
        for key, value in expected.items():
            assert own[key] == pytest.approx(value, rel=1e-9, abs=1e-9), (key, state)
    assert compared > 20


def test_no_points_break_the_closed_forms(open_static: OpenStatic) -> None:
    page, draw, made = open_static(EMLayerExplorer()), random.Random(7), []
    for count in (4, 4, 5, 8, 15):
        places = [round(draw.uniform(-4, 10), 2) for _ in range(count)]
        for wide in (0.001, 1.0):
            points = [wide * places[i % count] for i in range(15)]
            made.append({"points": points, "selected": 14, "at": points[0]})
    made.append({"points": [0.0] * 12 + [0.01, 0.02, 0.03], "selected": 0, "at": 0.01})
    made.append({"points": [-4.0] * 12 + [-3.0, -2.0, -1.0], "selected": 14, "at": -4.0})
    for values in page.evaluate(VALUES, made):
        none = [key for key, value in values.items() if value is None]
        assert none in (
            [],
            ["gradient"],
            ["slope", "predicted"],
            ["gradient", "slope", "predicted"],
        )
        assert "gradient" not in none or values["rate"] > 0.999
        shown = [v for key, v in values.items() if key not in none]
        numbers = [n for v in shown for n in (v if isinstance(v, list) else [v])]
        assert np.isfinite(numbers).all()


def test_there_is_no_gradient_where_the_two_are_one(open_static: OpenStatic) -> None:
    explorer = EMLayerExplorer("Overlapping", at=-3.0)
    values = explorer.values
    assert values["gradient"] is None and values["rate"] == pytest.approx(1, abs=1e-4)
    assert values["means"][0] == pytest.approx(values["means"][1], abs=0.01)
    # One Gaussian, whose deviation is that of all points.
    assert values["sd"] == pytest.approx(np.std(explorer.moved().numpy()), abs=1e-4)
    page = open_static(explorer)
    row = page.locator(".gm-values dl div", has_text="gradient at the point").locator("dd")
    expect(row).to_have_text("none")
    # The next point is taken from there: nothing is predicted.
    page.get_by_role("slider", name="point 15", exact=True).focus()
    page.keyboard.press("ArrowLeft")
    predicted = page.locator(".gm-values dl div", has_text="predicted").locator("dd")
    expect(predicted).to_have_text("none")
    paths = page.locator(".gm-widget path").evaluate_all("p => p.map(e => e.getAttribute('d'))")
    assert not any("NaN" in d or "Infinity" in d for d in paths if d)
    points = [*explorer.points[:13], -3.0, explorer.points[14]]
    other = EMLayerExplorer(points=points, selected=14, at=3.2)
    assert other.values["predicted"] is None and "not predicted" in other.alt
    assert len(other.to_figure().axes) == 3


def test_a_point_is_pulled_and_the_next_is_taken_from_where_all_are(
    open_static: OpenStatic,
) -> None:
    page = open_static(EMLayerExplorer())
    question = page.get_by_text("How far does the line hold?")
    expect(question).to_be_visible()
    drag(page, "point 14", 60, 0)
    state = "gmmedu.views.layer.store.state"
    at = page.evaluate(f"{state}.at")
    assert at > 7 and page.evaluate(f"{state}.points") == START
    expect(question).to_be_hidden()
    knob = page.get_by_role("slider", name="point 3", exact=True)
    knob.focus()
    page.keyboard.press("ArrowLeft")
    values = EMLayerExplorer(
        points=[*START[:13], at, START[14]], selected=2, at=START[2] - 0.1
    ).values
    expect(knob).to_have_attribute("aria-valuetext", "\u22120.7; gradient 0, of T steps 0")
    assert page.evaluate(f"{state}.points[13]") == at
    shown = page.locator(".gm-values dl div", has_text="refit").locator("dd")
    expect(shown).to_have_text(f"{values['output']:.3g}")
    drag(page, "position along the curve", 80, 0)
    assert page.evaluate(f"[{state}.selected, {state}.at > 0.2]") == [2, True]
    expect(page.get_by_role("status")).to_contain_text("mean 2", timeout=3_000)
    page.get_by_role("button", name="Reset").click()
    expect(question).to_be_visible()
    assert page.evaluate(f"[{state}.selected, {state}.at]") == [13, 6.6]


def test_its_buttons_load_the_surprises_and_links_restore_them(open_static: OpenStatic) -> None:
    page = open_static(EMLayerExplorer())
    knob = page.get_by_role("slider", name="position along the curve")
    some = page.locator(".gm-values dl div", has_text="of T steps").locator("dd")
    expect(some).to_have_text("0.143, 100 %")
    for scene in SCENES:
        page.get_by_role("button", name=scene).click()
        own = EMLayerExplorer(scene)
        some_of, all_of = (own.values[key][own.selected] for key in ("unrolled", "gradient"))
        share = 100 * some_of / all_of
        expect(some).to_contain_text(f", {share:.3g} %")
    page.locator("select").select_option("log sd")
    output = EMLayerExplorer(SCENES[2], output="log sd").values["output"]
    expect(knob).to_have_attribute("aria-valuetext", _starts(f"8.2; log sd {output:.3g},"))
    page.wait_for_function("location.hash.startsWith('#layer=3,1,14,8.2,-1.3,')")
    points = ",".join(f"{v:g}" for v in EMLayerExplorer(SCENES[1]).points)
    reopen(page, f"layer=2,40,13,2.6,{points}")
    expect(some).to_contain_text(", 99.7 %")
    first = _starts("6.6; mean 2 5.97,")
    same = ",".join(["1"] * 15)
    hostile = (
        f"4,1,13,2.6,{points}", f"2,0,13,2.6,{points}", f"2,1,15,2.6,{points}",
        f"2,1,13,11,{points}", f"2,1,13,2.6,{points},1", f"2,1,13,2.6,{same}", "2,1,13,2.6",
    )  # fmt: skip
    for _ in addresses(page, [f"layer={numbers}" for numbers in hostile]):
        still(page, 0)
        expect(knob).to_have_attribute("aria-valuetext", first)


def _starts(text: str) -> Any:
    return re.compile("^" + re.escape(text))


def test_touch_pulls_too(open_static: OpenStatic) -> None:
    page = open_static(EMLayerExplorer(), has_touch=True, viewport={"width": 390, "height": 844})
    box = page.get_by_role("slider", name="point 15").locator(".gm-knob").bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    session = page.context.new_cdp_session(page)
    for kind, dx in (("touchStart", 0), ("touchMove", 15), ("touchMove", 30), ("touchEnd", None)):
        points = [] if dx is None else [{"x": x + dx, "y": y}]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    page.wait_for_function("gmmedu.views.layer.store.state.at > 8")
    assert page.evaluate("gmmedu.views.layer.store.state.selected") == 14


@pytest.mark.parametrize(
    "state",
    [{"scene": "far"}, {"points": [1.0] * 15}, {"points": START[:14]}, {"selected": 15},
     {"selected": -1}, {"at": 11}, {"output": "mean 3"}, {"steps": 0}, {"steps": 41}],
)  # fmt: skip
def test_a_state_that_there_is_not_is_named(state: dict[str, Any]) -> None:
    with pytest.raises(traitlets.TraitError, match=next(iter(state))):
        EMLayerExplorer(**state)


def test_the_still_says_what_it_shows() -> None:
    explorer = EMLayerExplorer("Near a jump", steps=3)
    assert "T = 3." in explorer.alt and "it is 4.31, predicted 4.27" in explorer.alt
    top, middle, bottom = explorer.to_figure().axes
    assert top.get_ylabel() == "density" and len(middle.patches) == 30
    assert bottom.get_xlabel() == "position of point 15" and len(bottom.lines) == 4


def test_the_random_state_of_torch_is_left_alone() -> None:
    before = torch.get_rng_state()
    EMLayerExplorer()
    assert torch.equal(before, torch.get_rng_state())


def test_an_argument_that_there_is_not_is_refused() -> None:
    misspelt: dict[str, Any] = {"point": START}
    with pytest.raises(TypeError, match="point"):
        EMLayerExplorer(**misspelt)
