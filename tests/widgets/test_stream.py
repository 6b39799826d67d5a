"""The stream: the front end held to torch, both fits to the engine, gestures by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import traitlets
from playwright.sync_api import Page, expect
from scipy.integrate import quad
from scipy.stats import norm
from torch import Tensor

import gmmedu
from gmmbook.widgets import StreamExplorer
from widgets.conftest import OpenStatic, addresses, drag

STREAMS = ("steady", "shift", "bad start")
FULL = pytest.mark.parametrize("stream", STREAMS)


def engine(mixture: Any) -> gmmedu.GmmFull:
    model = gmmedu.GmmFull(2, 1, init_means=mixture.means[:, None], dtype=torch.float64)
    return model.set_parameters(mixture.weights, covariances=mixture.sds.square()[:, None, None])


def parts(mixture: Any) -> Tensor:
    return torch.stack(list(mixture))


def same(model: gmmedu.GaussianMixture, mixture: Any, tolerance: float) -> None:
    found = torch.stack([model.weights, model.means[:, 0], model.covariances.flatten().sqrt()])
    torch.testing.assert_close(found.detach(), parts(mixture), rtol=0, atol=tolerance)


def numbers(values: Any) -> Iterator[float]:
    """All numbers of nested lists and mappings, in an order that the names give."""
    if isinstance(values, dict):
        values = [values[name] for name in sorted(values)]
    if isinstance(values, list):
        for value in values:
            yield from numbers(value)
    else:
        yield values


def test_the_closed_forms_are_those_of_torch(open_static: OpenStatic) -> None:
    states: list[dict[str, Any]] = [
        {"arrived": arrived, "alpha": alpha, "stream": stream}
        for stream in STREAMS
        for alpha in (0.51, 0.6, 0.8, 1.0)
        for arrived in (1, 2, 7, 30, 31, 60)
    ]
    page, explorer = open_static(StreamExplorer()), StreamExplorer()
    found = page.evaluate(
        """states => { const { kind, store } = gmmedu.views.stream;
          return states.map(state => kind.values({ ...store.state, ...state })); }""",
        states,
    )
    for own, state in zip(found, states, strict=True):
        explorer.set(**state)
        expected = explorer.values
        assert own.keys() == expected.keys() and own["exact"].keys() == expected["exact"].keys()
        assert len(own["stepwise"]["road"]) == state["arrived"] + 1
        assert list(numbers(own)) == pytest.approx(list(numbers(expected)), rel=1e-9, abs=1e-12)


@pytest.mark.filterwarnings("ignore::gmmedu.SingularityWarning")
@FULL
def test_exact_em_is_that_of_the_engine(stream: str) -> None:
    explorer = StreamExplorer(stream=stream)
    road, x = explorer.exact(), explorer.batches()
    for batch in (1, 2, 5, 31, 60):
        seen = x[:batch].flatten(0, 1)
        floor = gmmedu.Clamp(0.2 / float(seen.std(correction=0)))
        model = engine(road[batch - 1])
        gmmedu.fit_em(model, seen, 20, tolerance=0, mitigation=floor)
        same(model, road[batch], 1e-8)


@FULL
@pytest.mark.parametrize("alpha", [0.51, 0.7, 1.0])
def test_stepwise_em_is_that_of_the_engine(stream: str, alpha: float) -> None:
    explorer = StreamExplorer(60, alpha=alpha, stream=stream)
    road, model = explorer.stepwise(), engine(explorer.start())

    def check(model: gmmedu.GaussianMixture, step: int, nll: float) -> None:
        same(model, road[step], 1e-8)

    fit = gmmedu.fit_stepwise(
        model, iter(explorer.batches()), exponent=alpha, offset=2, average=None, callback=check
    )
    assert fit.num_steps == 60 and fit.num_points == explorer.values["stepwise"]["read"] == 600


@pytest.mark.parametrize("arrived", [1, 2, 17, 60])
def test_the_weights_of_batches_are_what_the_steps_leave_of_them(arrived: int) -> None:
    """The statistics written out as a sum over start and batches, each counted in its own turn."""
    explorer = StreamExplorer(arrived, alpha=0.7)
    road, steps = explorer.stepwise(), [(t + 2) ** -0.7 for t in range(1, arrived + 1)]
    shares = [step * math.prod(1 - later for later in steps[i + 1 :])
              for i, step in enumerate(steps)]  # fmt: skip
    values, start = explorer.values, math.prod(1 - step for step in steps)
    assert sum(shares) + values["start"] == pytest.approx(1)
    assert values["first"] == pytest.approx(shares[0])
    assert values["start"] == pytest.approx(start)
    total = start * road[0].own_statistics()
    for share, mixture, x in zip(shares, road, explorer.batches(), strict=False):
        total = total + share * mixture.statistics(x)
    weights, first, second = total
    means = first / weights
    expected = torch.stack([weights, means, (second / weights - means**2).sqrt()])
    torch.testing.assert_close(parts(road[arrived]), expected, rtol=0, atol=1e-12)
    # The variance of a weighted mean of equal terms is that of so many unweighted ones.
    variance = sum(share**2 for share in shares) / sum(shares) ** 2 / 10
    assert values["remembered"] == pytest.approx(1 / variance)


def test_at_one_all_batches_weigh_the_same_and_the_start_two() -> None:
    values = StreamExplorer(60, alpha=1).values
    assert values["first"] == pytest.approx(values["step"]) == pytest.approx(1 / 62)
    assert values["start"] == pytest.approx(2 / 62) and values["remembered"] == pytest.approx(600)


@FULL
def test_the_excess_is_the_integral_of_the_difference(stream: str) -> None:
    explorer = StreamExplorer(45, stream=stream)
    truth = explorer.truth()
    for name in ("exact", "stepwise"):
        own = explorer.values[name]

        def excess(x: float, own: dict[str, Any] = own) -> float:
            p = sum(w * norm.pdf(x, m, s) for w, m, s in zip(*parts(truth).tolist(), strict=True))
            fit = zip(own["weights"], own["means"], own["sds"], strict=True)
            q = sum(w * norm.pdf(x, m, s) for w, m, s in fit)
            return float(p * (math.log(p) - math.log(q)))

        expected = quad(excess, -8, 11, points=[-2, 2, 4.5], limit=200)[0]
        assert own["excess"] == pytest.approx(expected, abs=1e-7)


def ends(stream: str, alpha: float) -> tuple[float, float]:
    values = StreamExplorer(60, alpha=alpha, stream=stream).values
    return values["exact"]["excess"], values["stepwise"]["excess"]


def test_what_trying_shows() -> None:
    for alpha in (0.51, 0.6, 0.8, 1.0):
        exact, stepwise = ends("steady", alpha)
        assert max(exact, stepwise) < 0.02  # one pass is nearly enough
    exact, stepwise = ends("shift", 0.6)
    assert exact > 10 * stepwise  # what never forgets is left behind
    assert ends("shift", 1.0)[1] > exact
    curve = [ends("bad start", alpha)[1] for alpha in (0.51, 0.6, 0.8, 1.0)]
    assert curve == sorted(curve) and curve[-1] > 20 * curve[0]


@FULL
@pytest.mark.parametrize("alpha", [0.51, 0.75, 1.0])
def test_the_floor_is_for_the_first_points_of_exact_em_alone(stream: str, alpha: float) -> None:
    explorer = StreamExplorer(alpha=alpha, stream=stream)
    assert min(float(mixture.sds.min()) for mixture in explorer.stepwise()) > 0.4
    road = explorer.exact()
    assert min(float(mixture.sds.min()) for mixture in road[10:]) > 0.4
    assert all(torch.isfinite(parts(mixture)).all() for mixture in road)


def test_the_streams_are_of_the_same_draws() -> None:
    steady, shifted = (torch.tensor(x, dtype=torch.float64) for x in StreamExplorer().points)
    assert len(steady) == len(shifted) == 600
    moved = shifted - steady
    assert moved[:300].abs().max() == 0
    second = moved[300:] > 1
    torch.testing.assert_close(moved[300:], 2.5 * second.double(), rtol=0, atol=1e-9)
    assert 0.5 < float(second.double().mean()) < 0.7 and float(steady[300:][second].mean()) > 1.8
    assert float(steady[300:][~second].mean()) < -1.8


def shown(page: Page, name: str) -> str:
    return page.locator(".gm-values dl div", has_text=name).locator("dd").inner_text()


def test_batches_arrive_by_key_by_hand_and_by_themselves(open_static: OpenStatic) -> None:
    page = open_static(StreamExplorer())
    question = page.get_by_text("Which is nearer after 60?")
    expect(question).to_be_visible()
    knob = page.get_by_role("slider", name="batches that have arrived")
    values = StreamExplorer().values
    means = [", ".join(f"{m:.3g}" for m in values[fit]["means"]) for fit in ("exact", "stepwise")]
    text = f"1; means exact {means[0]}, stepwise {means[1]}".replace("-", "\u2212")
    expect(knob).to_have_attribute("aria-valuetext", text)
    knob.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("PageUp")
    arrived = "gmmedu.views.stream.store.state.arrived"
    page.wait_for_function(f"{arrived} === 12")
    expect(question).to_be_hidden()
    assert shown(page, "points remembered") == f"{StreamExplorer(12).values['remembered']:.3g}"
    drag(page, "batches that have arrived", 80, 0)
    now = page.evaluate(arrived)
    assert now > 20 and now % 1 == 0
    page.get_by_role("button", name="Play").click()
    page.wait_for_function(f"{arrived} >= {now + 3}")
    page.get_by_role("button", name="Pause").click()
    page.keyboard.press("Tab")
    stopped = page.evaluate(arrived)
    page.wait_for_timeout(300)
    assert page.evaluate(arrived) == stopped < 60
    page.get_by_role("button", name="Reset").click()
    expect(knob).to_have_attribute("aria-valuetext", text)


def test_without_motion_all_of_it_arrives_at_once(open_static: OpenStatic) -> None:
    page = open_static(StreamExplorer(), reduced_motion="reduce")
    page.get_by_role("button", name="To the end").click()
    page.wait_for_function("location.hash === '#stream=60,0.6,0'")


@pytest.mark.parametrize(
    ("button", "alpha", "stream"),
    [("Steady", 0.6, "steady"), ("Shift", 0.6, "shift"), ("Bad start", 1.0, "bad start")],
)
def test_its_buttons_load_the_surprises(
    open_static: OpenStatic, button: str, alpha: float, stream: str
) -> None:
    page = open_static(StreamExplorer(stream="shift" if stream == "steady" else "steady"))
    pressed = page.get_by_role("button", name=button, exact=True)
    expect(pressed).to_have_attribute("aria-pressed", "false")
    pressed.click()
    expect(pressed).to_have_attribute("aria-pressed", "true")
    values = StreamExplorer(60, alpha=alpha, stream=stream).values
    rows = page.locator(".gm-table tbody tr")
    for row, name in enumerate(("exact", "stepwise")):
        means = ", ".join(f"{m:.2f}" for m in values[name]["means"]).replace("-", "\u2212")
        expect(rows.nth(row)).to_contain_text(means)
        expect(rows.nth(row)).to_contain_text(str(values[name]["read"]))
    expect(page.get_by_role("status")).to_contain_text("60 batches", timeout=3_000)
    drawn = page.locator(".gm-widget path").evaluate_all("p => p.map(e => e.getAttribute('d'))")
    assert drawn and not any("NaN" in d or "Infinity" in d for d in drawn if d)


def test_a_link_is_taken_only_where_there_is_such_a_state(open_static: OpenStatic) -> None:
    page = open_static(StreamExplorer(), hash="stream=40,0.75,1")
    state = """() => { const { arrived, alpha, stream } = gmmedu.views.stream.store.state;
      return [arrived, alpha, stream]; }"""
    assert page.evaluate(state) == [40, 0.75, "shift"]
    hostile = ("0,0.6,0", "61,0.6,0", "2.5,0.6,0", "3,0.5,0", "3,1.1,0", "3,0.6,3", "3,0.6")
    for hash in addresses(page, [f"stream={numbers}" for numbers in hostile]):
        assert page.evaluate(state) == [1, 0.6, "steady"], hash


@pytest.mark.parametrize(
    "state",
    [
        {"arrived": 0},
        {"arrived": 61},
        {"alpha": 0.5},
        {"alpha": 1.01},
        {"alpha": math.nan},
        {"stream": "drift"},
    ],
)
def test_a_state_that_there_is_not_is_named(state: dict[str, Any]) -> None:
    with pytest.raises(traitlets.TraitError, match=next(iter(state))):
        StreamExplorer(**state)


@FULL
def test_the_still_says_what_it_shows(stream: str) -> None:
    explorer = StreamExplorer(45, stream=stream)
    assert "45 batches" in explorer.alt
    assert explorer.alt.endswith("the truth -2, 4.5." if stream == "shift" else "the truth -2, 2.")
    top, bottom = explorer.to_figure().axes
    assert [len(line.get_ydata()) for line in bottom.lines] == [46] * 6
    assert [text.get_text() for text in top.get_legend().texts] == ["truth", "exact", "stepwise"]


def test_the_random_state_of_torch_is_left_alone() -> None:
    before = torch.get_rng_state()
    StreamExplorer()
    assert torch.equal(before, torch.get_rng_state())
