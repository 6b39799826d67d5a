"""The segmentation: the front end held to torch, the stored fits to EM, gestures by hand."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import torch
import traitlets
from playwright.sync_api import expect
from scipy.ndimage import label
from sklearn.datasets import load_sample_image

import gmmedu
from gmmbook import lab
from gmmbook.widgets import SegmentationExplorer
from widgets.conftest import OpenStatic, addresses, drag

COUNTS, POSITIONS, FAMILIES = range(2, 7), (0.0, 0.5, 1.0, 1.5, 2.0), ("isotropic", "full")
STATES: list[dict[str, Any]] = [
    {"num_components": count, "position": position, "family": family}
    for family in FAMILIES
    for position in POSITIONS
    for count in COUNTS
]


def test_the_closed_forms_are_those_of_torch(open_static: OpenStatic) -> None:
    page, explorer = open_static(SegmentationExplorer()), SegmentationExplorer()
    for i, state in enumerate(STATES):
        state = {**state, "pixel": [(13 * i) % 64, (7 * i) % 42]}
        # As text: some ten thousand numbers by themselves take a quarter of a second to arrive.
        text = page.evaluate(
            """state => { const { kind, store } = gmmedu.views.segmentation;
              const now = { ...store.state, ...state };
              return JSON.stringify([kind.values(now), kind.responsibilities(now)]); }""",
            state,
        )
        values, r = json.loads(text)
        explorer.set(**state)
        expected = explorer.responsibilities()
        found = torch.tensor(r, dtype=torch.float64)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
        assert values.keys() == explorer.values.keys()
        for name, value in explorer.values.items():
            if name == "colors":
                value, values[name] = sum(value, []), sum(values[name], [])
            assert values[name] == pytest.approx(value, rel=0, abs=1e-9), (name, state)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("position", POSITIONS)
def test_a_step_of_em_leaves_the_stored_fits_where_they_are(family: str, position: float) -> None:
    for count in COUNTS:
        explorer = SegmentationExplorer(count, position=position, family=family)
        model, x = explorer.model(), explorer.points()
        before = model.responsibilities(x).detach()
        nll = float(model(x).detach())
        gmmedu.fit_em(model, x, 1, tolerance=0)
        assert nll - float(model(x).detach()) < 1e-8
        assert float((model.responsibilities(x).detach() - before).abs().max()) < 1e-3


def test_no_component_is_a_needle() -> None:
    for state in STATES:
        explorer = SegmentationExplorer(**state)
        assert min(explorer.values["pixels"]) > 50, state


@pytest.mark.parametrize("count", COUNTS)
def test_full_components_take_no_notice_of_the_unit_of_position(count: int) -> None:
    half, one, two = (
        SegmentationExplorer(count, position=position, family="full") for position in (0.5, 1, 2)
    )
    for other in (half, two):
        torch.testing.assert_close(
            other.responsibilities(), one.responsibilities(), rtol=0, atol=1e-9
        )
    # The density of a point per unit of each coordinate: position has two.
    change = float((two.model()(two.points()) - one.model()(one.points())).detach())
    assert change == pytest.approx(2 * float(torch.tensor(2.0).log()), abs=1e-6)
    assert SegmentationExplorer(count, family="full").values["pixels"] != one.values["pixels"]


@pytest.mark.parametrize("state", STATES[::3])
def test_segments_pixels_and_pieces(state: dict[str, Any]) -> None:
    explorer = SegmentationExplorer(**state)
    values, segments = explorer.values, explorer.segments()
    assert sum(values["pixels"]) == segments.numel() == 42 * 64
    for k in range(explorer.num_components):
        own = segments == k
        assert values["pixels"][k] == int(own.sum())
        assert values["pieces"][k] == label(own.numpy())[1]
    bright = [sum(color) for color in values["colors"]]
    assert bright == sorted(bright)


def test_the_picture_is_that_of_scikit_learn_in_blocks() -> None:
    photograph = torch.tensor(load_sample_image("china.jpg")).double()[:420] / 255
    blocks = photograph.reshape(42, 10, 64, 10, 3).mean((1, 3))
    torch.testing.assert_close(lab.picture(), blocks, rtol=0, atol=0.5 / 255 + 1e-9)
    levels = base64.b64decode(SegmentationExplorer().picture["levels"])
    assert [v / 255 for v in levels] == lab.picture().flatten().tolist()
    x = lab.pixels(2.0).reshape(42, 64, 5)
    assert torch.equal(x[..., :3], lab.picture()) and torch.equal(
        lab.pixels(), x[..., :3].flatten(0, 1)
    )
    assert x[41, 63, 3:].tolist() == [2 * 63 / 64, 2 * 41 / 64]


#: Column and row of a pixel.
LEFT, RIGHT, LAKE = (6, 8), (54, 8), (48, 28)


def own(explorer: SegmentationExplorer, place: tuple[int, int]) -> int:
    return int(explorer.segments()[place[1], place[0]])


def test_what_trying_shows() -> None:
    start = SegmentationExplorer()
    assert own(start, LEFT) == own(start, LAKE) != own(start, RIGHT)
    cut = SegmentationExplorer(6, position=2)
    assert len({own(cut, place) for place in (LEFT, (34, 4), RIGHT, LAKE)}) == 4
    assert sum(cut.values["pieces"]) < sum(SegmentationExplorer(6).values["pieces"]) / 5


def test_the_ring_goes_by_key_by_hand_and_by_click(open_static: OpenStatic) -> None:
    page = open_static(SegmentationExplorer())
    question = page.get_by_text("What joins the sky?")
    expect(question).to_be_visible()
    areas = page.locator(".gm-plane path[data-color='#D55E00']")
    assert areas.get_attribute("d") == ""
    knob = page.get_by_role("slider", name="ringed pixel")
    expect(knob).to_have_attribute("aria-valuetext", "6, 8; column and row")
    knob.focus()
    pixel = "() => gmmedu.views.segmentation.store.state.pixel"
    for key, place in (("ArrowRight", [7, 8]), ("ArrowDown", [7, 9]), ("PageDown", [7, 19]),
                       ("End", [63, 19]), ("ArrowRight", [63, 19]), ("Home", [0, 19])):  # fmt: skip
        page.keyboard.press(key)
        page.wait_for_function(f"String(({pixel})()) === '{place[0]},{place[1]}'")
    expect(question).to_be_hidden()
    assert len(areas.get_attribute("d") or "") > 1000
    r = SegmentationExplorer(pixel=(0, 19)).values["responsibilities"]
    text = f"0, 19; segment {r.index(max(r)) + 1}, responsibility {max(r):.3f}"
    expect(knob).to_have_attribute("aria-valuetext", text)
    drag(page, "ringed pixel", 100, 20)
    column, row = page.evaluate(pixel)
    assert column > 5 and row > 19
    page.locator(".gm-plane").nth(1).click(position={"x": 8 + 0.5, "y": 8 + 0.5})
    page.wait_for_function(f"String(({pixel})()) === '0,0'")
    page.get_by_role("button", name="Reset").click()
    expect(knob).to_have_attribute("aria-valuetext", "6, 8; column and row")
    expect(question).to_be_visible()


@pytest.mark.parametrize(
    ("button", "state"),
    [
        ("Sky and lake", (3, 0.0, "isotropic")),
        ("A sky in three", (6, 2.0, "isotropic")),
        ("No effect", (4, 1.0, "full")),
    ],
)
def test_its_buttons_load_the_surprises(
    open_static: OpenStatic, button: str, state: tuple[int, float, str]
) -> None:
    page = open_static(SegmentationExplorer())
    page.get_by_role("button", name=button).click()
    count, position, family = state
    values = SegmentationExplorer(count, position=position, family=family).values
    rows = page.locator(".gm-table tbody tr")
    expect(rows).to_have_count(count)
    for k in range(count):
        cells = [f"{values['weights'][k]:.2f}", str(values["pixels"][k]), str(values["pieces"][k])]
        assert rows.nth(k).locator("td").all_inner_texts()[1:4] == cells
    doubt = page.locator(".gm-values dl div", has_text="pixels in doubt")
    expect(doubt).to_contain_text(f"{values['doubt']} of 2688")
    expect(page.get_by_role("status")).to_contain_text(f"{count} segments", timeout=3_000)


def test_a_slider_moves_the_segments_of_isotropic_components_alone(
    open_static: OpenStatic,
) -> None:
    page = open_static(SegmentationExplorer(4, position=1))
    slider = page.get_by_label("weight of position")
    drawn = page.locator(".gm-plane path[data-color='#D55E00']")

    def after(key: str, position: float) -> str:
        slider.press(key)
        expect(slider).to_have_attribute("aria-valuetext", f"{position:g}")
        return drawn.get_attribute("d") or ""

    assert after("ArrowRight", 1.5) != after("ArrowRight", 2)
    page.get_by_label("covariances").select_option("full")
    page.wait_for_function("gmmedu.views.segmentation.store.state.family === 'full'")
    assert after("ArrowLeft", 1.5) == after("ArrowLeft", 1) == after("ArrowLeft", 0.5)
    assert after("ArrowRight", 1) != after("Home", 0)


def test_a_link_is_taken_only_where_there_is_such_a_state(open_static: OpenStatic) -> None:
    page = open_static(SegmentationExplorer(), hash="segmentation=5,1.5,1,40,30")
    state = """() => { const { num_components, position, family, pixel }
      = gmmedu.views.segmentation.store.state;
      return [num_components, position, family, ...pixel]; }"""
    assert page.evaluate(state) == [5, 1.5, "full", 40, 30]
    hostile = ("1,0,0,6,8", "7,0,0,6,8", "3,0.25,0,6,8", "3,2.5,0,6,8", "3,0,2,6,8",
               "3,0,0,64,8", "3,0,0,6,42", "3,0,0,6.5,8", "3,0,0,6")  # fmt: skip
    for hash in addresses(page, [f"segmentation={numbers}" for numbers in hostile]):
        assert page.evaluate(state) == [3, 0, "isotropic", 6, 8], hash


@pytest.mark.parametrize(
    "state",
    [{"num_components": 1}, {"num_components": 7}, {"position": 0.25}, {"family": "tied"},
     {"pixel": (64, 0)}, {"pixel": (0, 42)}, {"pixel": (-1, 0)}, {"pixel": (1,)}],
)  # fmt: skip
def test_a_state_that_there_is_not_is_named(state: dict[str, Any]) -> None:
    with pytest.raises(traitlets.TraitError, match=next(iter(state))):
        SegmentationExplorer(**state)


def test_the_still_says_what_it_shows() -> None:
    explorer = SegmentationExplorer(5, position=1)
    pieces = ", ".join(map(str, explorer.values["pieces"]))
    assert (
        "5 segments by isotropic components" in explorer.alt and f"{pieces} pieces" in explorer.alt
    )
    above, below = explorer.to_figure().axes
    assert above.images[0].get_array().shape == below.images[0].get_array().shape == (42, 64, 3)


def test_a_page_carries_little() -> None:
    explorer = SegmentationExplorer()
    state = explorer.to_html().partition('application/json">')[2].partition("</script>")[0]
    assert len(state) < 40_000


def test_the_random_state_of_torch_is_left_alone() -> None:
    before = torch.get_rng_state()
    SegmentationExplorer()
    assert torch.equal(before, torch.get_rng_state())
