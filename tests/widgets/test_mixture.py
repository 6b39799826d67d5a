"""The mixture over points: its steps held to torch, and every gesture in a browser."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import traitlets
from playwright.sync_api import Browser, Page, expect
from torch import Tensor

import gmmedu
from gmmbook.widgets import MixtureExplorer
from gmmedu.plot import PALETTE
from gmmedu.singularities import DEFAULT_MITIGATION, Clamp
from widgets.conftest import LATE, OpenStatic, addresses, drag, link_to, still

FLOAT64 = torch.float64
STATE = "() => JSON.parse(JSON.stringify(gmmedu.views.mixture.store.state))"
ACT = """([state, name]) => { const {kind} = gmmedu.views.mixture;
  const now = {...state, ...kind.actions[name]?.(state)};
  return {...now, values: kind.values(now)}; }"""
MEAN = "mean of component {}"
END = "end of axis {} of the selected component"


def clusters(n: int = 60, seed: int = 0, far: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(n, 2, generator=generator, dtype=FLOAT64)
    return far + draw * torch.tensor([1.0, 20.0]) + 4 * (torch.arange(n)[:, None] % 3)


def random_mixture(x: Tensor, count: int, seed: int) -> dict[str, Any]:
    """Any mixture among the points: no two covariances alike, some close to singular."""
    generator = torch.Generator().manual_seed(seed)
    scale = x.std(0)
    root = torch.randn(count, 2, 2, generator=generator, dtype=FLOAT64)
    root[:, :, 1] *= 10.0 ** -torch.arange(count)[:, None].clamp_max(2)
    unit = root @ root.mT + 1e-5 * torch.eye(2, dtype=FLOAT64)
    unit = (unit + unit.mT) / 2
    return {
        "weights": torch.rand(count, generator=generator, dtype=FLOAT64),
        "means": x[torch.randperm(len(x), generator=generator)[:count]],
        "covariances": unit * scale[:, None] * scale,
    }


LINE = torch.linspace(0, 1, 30, dtype=FLOAT64)[:, None] * torch.tensor([1.0, 2.0], dtype=FLOAT64)
ROUND: dict[str, Any] = {
    "weights": [1.0],
    "means": [[0.2, -1.0]],
    "covariances": [[[2.0, 0.0], [0.0, 2.0]]],
}
PAIR: dict[str, Any] = {
    "weights": [0.5, 0.5],
    "means": [[0.0, 0.0], [1.0, 1.0]],
    "covariances": [[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]],
}
CASES: dict[str, MixtureExplorer] = {
    "old faithful": MixtureExplorer(),
    "K = 1": MixtureExplorer(num_components=1),
    "K = 1, far out": MixtureExplorer(clusters(far=1e6), 1),
    "K = 6": MixtureExplorer(num_components=6, seed=3),
    "equal eigenvalues": MixtureExplorer(clusters(), **ROUND),
    "at a million": MixtureExplorer(clusters(far=1e6), 3, seed=1),
    "a line, clamped": MixtureExplorer(LINE, 2),
    "one place, clamped": MixtureExplorer([[1.0, 2.0]] * 5 + [[3.0, 4.0]] * 5, 2),
    "no points for one": MixtureExplorer(
        clusters(), **{**PAIR, "means": [[4.0, 4.0], [9000.0, 0.0]], "weights": [1, 1e-9]}
    ),
    "no weight for one": MixtureExplorer(clusters(), **{**PAIR, "weights": [0.0, 1.0]}),
    "tiny": MixtureExplorer(1e-9 * clusters(), 2),
    "huge": MixtureExplorer(1e12 * clusters(), 2),
    "all the same": MixtureExplorer([[1.0, 1.0]] * 4, 2),
    **{
        f"random, K = {count}": MixtureExplorer(
            clusters(seed=count), **random_mixture(clusters(seed=count), count, count)
        )
        for count in range(1, 7)
    },
}


def restored(name: str) -> MixtureExplorer:
    explorer = CASES[name]
    explorer.reset()
    return explorer


@pytest.fixture(scope="module")
def page_of_all(browser: Browser) -> Iterator[Page]:
    page = browser.new_page()
    page.set_content(MixtureExplorer().to_html())
    yield page
    page.close()


def on_page(page: Page, explorer: MixtureExplorer, action: str = "") -> Any:
    """The state after an action of the front end, and its values."""
    state = {n: getattr(explorer, n) for n in explorer.trait_names(sync=True) if n[0] != "_"}
    for name in ("layout", "tabbable", "tooltip"):
        del state[name]
    return page.evaluate(ACT, [state, action])


def close(found: dict[str, Any], explorer: MixtureExplorer) -> None:
    """Equal to 1e-9 of the size of the numbers, lengths in units of the data."""
    center, scale = (torch.tensor(v, dtype=FLOAT64) for v in (explorer.center, explorer.scale))
    at = torch.tensor(found["means"], dtype=FLOAT64)
    want = torch.tensor(explorer.means, dtype=FLOAT64)
    # Far from the origin the last digit of a mean is no smaller than this.
    room = 1e-9 + 4e-16 * float((center / scale).abs().max())
    assert ((at - want) / scale).abs().max() <= room * (1 + ((want - center) / scale).abs().max())
    got, wanted = (
        torch.tensor(v, dtype=FLOAT64) / scale / scale[:, None]
        for v in (found["covariances"], explorer.covariances)
    )
    for a, b in zip(got, wanted, strict=True):
        assert (a - b).abs().max() <= 1e-9 * b.abs().max()
    assert found["weights"] == pytest.approx(explorer.weights, rel=1e-9, abs=1e-9)
    assert found["values"]["nll"] == pytest.approx(explorer.values["nll"], rel=1e-9, abs=1e-9)
    counts = explorer.values["counts"]
    assert found["values"]["counts"] == pytest.approx(counts, rel=1e-9, abs=1e-9 * len(counts))


def live(page: Page) -> Any:
    still(page, 30)
    return page.evaluate(STATE)


# The closed forms of the page


@pytest.mark.parametrize("name", CASES)
def test_the_page_has_the_values_of_torch(page_of_all: Page, name: str) -> None:
    explorer = restored(name)
    close(on_page(page_of_all, explorer), explorer)


@pytest.mark.parametrize("name", CASES)
def test_an_em_step_is_that_of_fit_em(page_of_all: Page, name: str) -> None:
    explorer = restored(name)
    for _ in range(3):
        found = on_page(page_of_all, explorer, "em_step")
        explorer.em_step()
        close(found, explorer)
        assert found["history"] == pytest.approx(explorer.history, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("rate", [0.01, 0.5])
@pytest.mark.parametrize("name", CASES)
def test_a_gradient_step_is_that_of_autograd(page_of_all: Page, name: str, rate: float) -> None:
    explorer = restored(name)
    explorer.rate = rate
    found = on_page(page_of_all, explorer, "gradient_step")
    explorer.gradient_step()
    assert found["note"] == explorer.note
    close(found, explorer)


@pytest.mark.parametrize("name", CASES)
def test_adding_and_removing_agree(page_of_all: Page, name: str) -> None:
    explorer = restored(name)
    for action in ("add_component", "remove_component", "remove_component"):
        before = len(explorer.weights)
        found = on_page(page_of_all, explorer, action)
        getattr(explorer, action)()
        close(found, explorer)
        assert found["selected"] == explorer.selected
        assert abs(len(explorer.weights) - before) <= 1
        assert sum(explorer.weights) == pytest.approx(1)


@pytest.mark.parametrize("name", CASES)
def test_a_random_start_is_one_of_initialize(page_of_all: Page, name: str) -> None:
    explorer = restored(name)
    points, scale = (torch.tensor(v, dtype=FLOAT64) for v in (explorer.points, explorer.scale))
    count, kinds = len(explorer.weights), len(points.unique(dim=0))
    found = on_page(page_of_all, explorer, "random_start")
    explorer.random_start()
    for start in (found, {n: getattr(explorer, n) for n in explorer.state}):
        means = torch.tensor(start["means"], dtype=FLOAT64)
        away = ((means[:, None] - points) / scale).norm(dim=-1)
        assert (away.amin(1) < 1e-9).all()
        assert len(points[away.argmin(1)].unique(dim=0)) == min(count, kinds)
        assert start["weights"] == pytest.approx([1 / count] * count)
        assert start["seed"] == CASES[name]._first["seed"] + 1
    for a, b in zip(found["covariances"], explorer.covariances, strict=True):
        assert sum(a, []) == pytest.approx(sum(b, []), rel=1e-9)


def test_a_run_is_em_until_it_stops(page_of_all: Page) -> None:
    explorer = MixtureExplorer(num_components=3)
    found = on_page(page_of_all, explorer, "run")
    explorer.run()
    assert len(found["history"]) == len(explorer.history) > 10
    assert found["history"] == pytest.approx(explorer.history, abs=1e-8)
    assert abs(explorer.history[-1] - explorer.history[-2]) < 1e-8 or len(explorer.history) == 301


# Python


def test_steps_are_those_of_the_package() -> None:
    x = gmmedu.load_old_faithful()
    explorer = MixtureExplorer(x, 3)
    model = explorer.model()
    result = gmmedu.fit_em(model, x, num_iterations=1, tolerance=0)
    explorer.em_step()
    # The last digit hangs on how many threads add up.
    assert explorer.history == pytest.approx(result.history.tolist(), abs=1e-14)
    assert explorer.weights == pytest.approx(model.weights.tolist(), abs=1e-14)
    assert explorer.values["nll"] == pytest.approx(result.nll, abs=1e-12)
    assert Clamp(1e-3) == DEFAULT_MITIGATION  # the floor of the page


def test_a_gradient_step_has_the_gradient_of_differences() -> None:
    explorer = MixtureExplorer(clusters(), 2, rate=1e-3)
    x = torch.tensor(explorer.points, dtype=FLOAT64)
    area = torch.tensor(explorer.scale, dtype=FLOAT64).square()

    def nll(means: Tensor) -> float:
        return float(explorer.model().set_parameters(means=means)(x).detach())

    means = torch.tensor(explorer.means, dtype=FLOAT64)
    slope = torch.zeros_like(means)
    for k, d in ((0, 0), (0, 1), (1, 0), (1, 1)):
        h = torch.zeros_like(means)
        h[k, d] = 1e-4 * explorer.scale[d]
        slope[k, d] = (nll(means + h) - nll(means - h)) / (2 * h[k, d])
    explorer.gradient_step()
    # x = center + scale z: a slope in z is scale times that in x, and so is a step.
    expected = means - 1e-3 * area * slope
    assert torch.allclose(torch.tensor(explorer.means, dtype=FLOAT64), expected, rtol=1e-7)


def test_a_step_that_leaves_the_range_is_not_taken_and_says_so(open_static: OpenStatic) -> None:
    narrow = [[[1e-3, 0.0], [0.0, 1e-3]]]
    explorer = MixtureExplorer(clusters(), means=[[0.0, 0.0]], covariances=narrow, rate=3.0)
    page = open_static(explorer)
    explorer.gradient_step()
    assert "lower the rate" in explorer.note and explorer.covariances == narrow
    page.get_by_role("button", name="Gradient step").click()
    assert live(page)["covariances"] == narrow
    expect(page.get_by_text("lower the rate").first).to_be_visible()
    page.get_by_role("button", name="EM step").click()
    live(page)
    expect(page.locator(".gm-widget p")).to_be_empty()


def test_set_from_code_and_observed() -> None:
    explorer = MixtureExplorer()
    seen: list[Any] = []
    explorer.observe(seen.append, "values")
    before = explorer.values["nll"]
    explorer.means = [[2.0, 54.0], [4.3, 80.0]]
    assert explorer.values["nll"] < before and seen[-1]["new"] == explorer.values
    explorer.set(
        weights=[2, 1, 1],
        means=[[2, 50], [4, 80], [3, 70]],
        covariances=[[[1, 0], [0, 50]]] * 3,
        selected=2,
    )
    assert explorer.weights == [0.5, 0.25, 0.25] and len(explorer.values["counts"]) == 3
    assert explorer.means == [[2.0, 50.0], [4.0, 80.0], [3.0, 70.0]]
    explorer.reset()
    assert len(explorer.weights) == 2 and explorer.selected == 0
    assert explorer.values["nll"] == before and explorer.history == []


def test_the_history_goes_on_until_the_mixture_is_set() -> None:
    explorer = MixtureExplorer()
    explorer.em_step()
    explorer.gradient_step()
    assert len(explorer.history) == 3
    assert explorer.history[-1] == pytest.approx(explorer.values["nll"])
    explorer.means = [[2.0, 54.0], [4.3, 80.0]]
    now = explorer.values["nll"]
    explorer.em_step()
    assert len(explorer.history) == 2 and explorer.history[0] == pytest.approx(now)


def test_given_parameters_say_how_many() -> None:
    explorer = MixtureExplorer(means=[[2, 50], [4, 80], [3, 70]])
    assert len(explorer.weights) == len(explorer.covariances) == 3
    assert explorer.weights == pytest.approx([1 / 3] * 3)


def test_the_random_state_of_torch_is_left_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    MixtureExplorer().random_start()
    assert torch.equal(before, torch.get_rng_state())


def test_points_keep_a_millionth_of_their_spread() -> None:
    x = gmmedu.load_old_faithful()
    assert MixtureExplorer(x).points == x.tolist()
    far = clusters(far=1e6)
    kept = torch.tensor(MixtureExplorer(far).points, dtype=FLOAT64)
    assert ((kept - far).abs().amax(0) <= 1e-6 * far.std(0)).all()


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"x": [[1.0, 2.0, 3.0]]}, "x must have shape"),
    ({"x": torch.zeros(0, 2)}, "at least one point"),
    ({"x": "data"}, "x must be numbers"),
    ({"x": [[1.0, math.nan]]}, "x must be finite"),
    ({"num_components": 0}, "num_components"),
    ({"num_components": 7}, "from 1 to 6"),
    ({"num_components": 2.0}, "num_components"),
    ({"x": [[0.0, 1.0]]}, "from 1 to 1"),
    ({"weights": [0.5, -0.1]}, "weights must not be negative"),
    ({"weights": [0.0, 0.0]}, "positive, finite sum"),
    ({"weights": [1.0, 1.0], "means": [[0, 0]]}, "equally many"),
    ({"means": [[1.0, 2.0, 3.0]]}, "means must have shape"),
    ({"means": [[1e9, 2.0]]}, "means must lie within"),
    ({"covariances": [[1.0, 2.0]]}, "covariances must have shape"),
    ({"covariances": [[[1.0, 0.5], [0.4, 1.0]]]}, "symmetric"),
    ({"covariances": [[[1.0, 9.0], [9.0, 1.0]]]}, "positive definite"),
    ({"covariances": [[[1e-20, 0.0], [0.0, 1.0]]]}, "standard deviations from"),
    ({"rate": 0.0}, "rate must be positive"),
    ({"rate": math.nan}, "rate must be positive"),
    ({"seed": -1}, "seed must be an integer"),
    ({"seed": 1.5}, "seed must be an integer"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_what_is_no_mixture_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(traitlets.TraitError, match=message):
        MixtureExplorer(**arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": [1.0]}, "at once"),
        ({"means": [[1.0, 2.0]]}, "at once"),
        ({"weights": [0.2, math.nan]}, "weights must not be negative"),
        ({"covariances": [[[1.0, 0.0], [0.0, -1.0]]] * 2}, "positive definite"),
        ({"selected": 2}, "selected must be from 0 to 1"),
        ({"rate": -1.0}, "rate"),
        ({"points": [[0.0, 0.0]]}, "fixed"),
        ({"weights": [0.1, 0.9], "means": [[math.inf, 0.0], [1.0, 1.0]]}, "means must lie"),
    ],
)
def test_a_refused_change_changes_nothing(change: dict[str, Any], message: str) -> None:
    explorer = MixtureExplorer()
    before = {name: getattr(explorer, name) for name in (*explorer.state, "points")}
    with pytest.raises(traitlets.TraitError, match=message):
        explorer.set(**change)
    assert {name: getattr(explorer, name) for name in before} == before
    if len(change) == 1:
        ((name, value),) = change.items()
        with pytest.raises(traitlets.TraitError, match=message):
            setattr(explorer, name, value)
        assert {name: getattr(explorer, name) for name in before} == before


def test_no_more_than_six_no_less_than_one() -> None:
    explorer = MixtureExplorer(num_components=6)
    explorer.add_component()
    assert len(explorer.weights) == 6
    for _ in range(7):
        explorer.remove_component()
    assert explorer.weights == [1.0] and explorer.selected == 0
    few = MixtureExplorer([[0.0, 0.0], [1.0, 1.0]], 2)
    few.add_component()
    assert len(few.weights) == 2


def test_the_still_and_its_words() -> None:
    explorer = MixtureExplorer(num_components=3)
    figure = explorer.to_figure()
    (axes,) = figure.axes
    assert axes.get_xlabel() == "duration (min)" and len(axes.texts) == 3
    assert "3 components" in explorer.alt and "272 points" in explorer.alt
    explorer.run()
    assert f"{explorer.values['nll']:.4g}" in explorer.alt
    assert explorer.alt.split()[0] in explorer.to_html()


def test_what_the_front_end_sends_is_taken_as_it_is() -> None:
    explorer = MixtureExplorer()
    thirds = [0.1 + 0.2, 0.3, 0.4]  # sum to 1 but for rounding
    sent = {
        "weights": thirds,
        "means": [[2.0, 50.0], [4.0, 80.0], [3.0, 70.0]],
        "covariances": [[[1.0, 0.1 + 0.2], [0.3, 50.0]]] * 3,
        "selected": 2,
    }
    explorer.set_state(sent)
    assert {name: getattr(explorer, name) for name in sent} == sent
    assert len(explorer.values["counts"]) == 3
    before = explorer.values["nll"]
    explorer.set_state({"asked": ["em_step"]})
    assert explorer.values["nll"] < before
    # The second is no action.
    explorer.set_state({"asked": ["em_step", "draw", "reset"]})
    assert len(explorer.weights) == 2


def test_a_drag_that_reaches_the_kernel_with_a_button_comes_before_it() -> None:
    explorer = MixtureExplorer()
    start = explorer.means
    moved = [[start[0][0] + 0.5, start[0][1] + 5], start[1]]
    explorer.set_state({"asked": ["em_step"], "means": moved})
    stepped = MixtureExplorer(
        means=moved, weights=explorer._first["weights"], covariances=explorer._first["covariances"]
    )
    stepped.em_step()
    assert explorer.means == stepped.means
    explorer.set_state({"means": moved, "asked": ["em_step", "reset"]})
    assert explorer.means == start


def test_fewer_components_keep_one_selected() -> None:
    explorer = MixtureExplorer(num_components=3)
    explorer.selected = 2
    fewer = {name: getattr(explorer, name)[:2] for name in ("weights", "means", "covariances")}
    explorer.set(**fewer)
    assert explorer.selected == 1
    explorer.remove_component()
    assert explorer.selected == 0


def test_several_traits_at_once_are_answered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    explorer, computed = MixtureExplorer(), []
    compute = MixtureExplorer.compute

    def counted(self: MixtureExplorer) -> Any:
        computed.append(self.means)
        return compute(self)

    monkeypatch.setattr(MixtureExplorer, "compute", counted)
    explorer.em_step()
    assert computed == [explorer.means]


# Gestures


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_mean_follows_the_mouse(open_static: OpenStatic, scheme: Any) -> None:
    explorer = MixtureExplorer()
    page = open_static(explorer, color_scheme=scheme)
    before = live(page)
    fill = page.locator(".gm-plane circle[r='3']").first.get_attribute("fill")
    drag(page, MEAN.format(2), 80, -60)
    after = live(page)
    assert after["selected"] == 1 and after["means"][0] == before["means"][0]
    assert after["means"][1][0] > before["means"][1][0]
    assert after["means"][1][1] > before["means"][1][1]
    explorer.means = after["means"]
    close(after, explorer)
    assert page.locator(".gm-plane circle[r='3']").first.get_attribute("fill") != fill
    expect(page.locator(".gm-values")).to_contain_text(f"{after['values']['nll']:.6g}")


def test_points_have_the_colors_of_the_figures(open_static: OpenStatic) -> None:
    explorer = MixtureExplorer(num_components=3)
    page = open_static(explorer)
    live(page)
    fills = page.locator(".gm-plane circle[r='3']").evaluate_all(
        "nodes => nodes.map(n => n.getAttribute('fill').match(/\\d+/g).map(Number))"
    )
    (axes,) = explorer.to_figure().axes
    colors = 255 * torch.tensor(axes.collections[0].get_facecolor()[:, :3])
    assert (torch.tensor(fills) - colors).abs().max() <= 0.51


@pytest.mark.parametrize("count", [2, 3, 5])
def test_on_the_border_two_are_equally_responsible(open_static: OpenStatic, count: int) -> None:
    explorer = MixtureExplorer(num_components=count, seed=1)
    page = open_static(explorer)
    live(page)
    plane = page.locator(".gm-plane").first
    d = plane.locator(".gm-border").get_attribute("d") or ""
    pixels = torch.tensor([[float(v) for v in p.split()] for p in re.split("[ML]", d) if p])
    width, height = (float(plane.get_attribute(side) or 0) for side in ("width", "height"))
    left, right, low, high = explorer.limits
    u = (pixels[:, 0] - 48) / (width - 62)
    v = (height - 42 - pixels[:, 1]) / (height - 50)
    x = torch.stack([left + u * (right - left), low + v * (high - low)], dim=1).double()
    top = explorer.model().responsibilities(x).detach().topk(2, dim=1).values
    assert len(x) > 40
    # Between the lines of the grid it is straight, and pixels are rounded.
    assert (top[:, 0].log() - top[:, 1].log()).abs().median() < 0.05


def test_the_still_has_the_border_and_the_numbers() -> None:
    (axes,) = MixtureExplorer(num_components=3).to_figure().axes
    assert [text.get_text() for text in axes.texts] == ["1", "2", "3"]
    lines = axes.collections[-1].get_paths()
    explorer = MixtureExplorer(num_components=3)
    x = torch.tensor(np.concatenate([path.vertices for path in lines]))
    top = explorer.model().responsibilities(x).detach().topk(2, dim=1).values
    assert len(x) > 20 and (top[:, 0].log() - top[:, 1].log()).abs().median() < 0.05


def test_axes_are_pulled_and_keep_their_names(open_static: OpenStatic) -> None:
    page = open_static(MixtureExplorer(num_components=1))
    before = live(page)
    for dx in (40, -60, 30):
        drag(page, END.format(1), dx, 25)
        drag(page, END.format(2), 10, dx)
    after = live(page)
    assert after["means"] == before["means"] and after["covariances"] != before["covariances"]
    factor = torch.linalg.cholesky(torch.tensor(after["covariances"][0], dtype=FLOAT64))
    assert bool(factor.diagonal().min() > 0)


def test_nothing_breaks_at_the_edges(open_static: OpenStatic) -> None:
    page = open_static(MixtureExplorer(num_components=6))
    for by in ((5000, 5000), (-5000, -5000), (5000, -5000), (-5000, 5000)):
        for k in (1, 6):
            drag(page, MEAN.format(k), *by)
            for axis in (1, 2):
                drag(page, END.format(axis), *by)
        state = live(page)
        left, right, low, high = state["limits"]
        assert all(left <= m <= right and low <= n <= high for m, n in state["means"])
        assert math.isfinite(state["values"]["nll"])
        for handle in page.get_by_role("slider").all():
            if handle.get_attribute("transform"):
                x, y = map(float, handle.get_attribute("transform")[10:-1].split())  # type: ignore[index]
                assert 0 <= x <= 760 and 0 <= y <= 700
        page.get_by_role("button", name="EM step").click()
        assert live(page)["values"]["nll"] < state["values"]["nll"]
        page.get_by_role("button", name="Reset").click()


def test_a_small_component_can_still_be_grasped(open_static: OpenStatic) -> None:
    small = [[[1e-4, 0.0], [0.0, 1e-2]]]
    page = open_static(MixtureExplorer(means=[[3.0, 70.0]], covariances=small))
    drag(page, MEAN.format(1), 50, 0)
    state = live(page)
    assert state["covariances"] == small and state["means"][0][0] > 3.2


def test_touch(open_static: OpenStatic) -> None:
    page = open_static(MixtureExplorer(), has_touch=True, viewport={"width": 390, "height": 900})
    before = live(page)["means"]
    box = page.get_by_role("slider", name=MEAN.format(1)).locator(".gm-knob").bounding_box()
    assert box
    x, y = box["x"] + 12, box["y"] + 12  # beside the knob, as a finger is
    client = page.context.new_cdp_session(page)
    for kind, at in (
        ("touchStart", [{"x": x, "y": y}]),
        ("touchMove", [{"x": x + 20, "y": y - 20}]),
        ("touchMove", [{"x": x + 40, "y": y - 40}]),
        ("touchEnd", []),
    ):
        client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})
    after = live(page)["means"]
    assert after[0][0] > before[0][0] and after[0][1] > before[0][1] and after[1] == before[1]


def test_keys_move_shape_and_weigh(open_static: OpenStatic) -> None:
    page = open_static(MixtureExplorer(num_components=3))
    first = live(page)
    page.locator("select").select_option("2")
    knob = page.get_by_role("slider", name=MEAN.format(3))
    knob.focus()
    assert live(page)["selected"] == 1  # one that only passes by selects nothing
    page.keyboard.press("Shift+ArrowUp")
    moved = live(page)
    assert moved["selected"] == 2
    assert moved["means"][2][1] > first["means"][2][1]
    page.get_by_role("slider", name=END.format(1)).focus()
    page.keyboard.press("ArrowUp")
    assert live(page)["covariances"][2] != first["covariances"][2]
    weight = page.get_by_label("its weight")
    weight.focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    state = live(page)
    assert state["weights"][2] > first["weights"][2]
    assert sum(state["weights"]) == pytest.approx(1)
    ratio = first["weights"][0] / first["weights"][1]
    assert state["weights"][0] / state["weights"][1] == pytest.approx(ratio)
    page.get_by_role("combobox", name="component").select_option("1")
    assert live(page)["selected"] == 0
    expect(page.get_by_role("status")).to_contain_text("mean NLL", timeout=3_000)


def test_a_press_on_a_disc_selects_it_after_keys_too(open_static: OpenStatic) -> None:
    page = open_static(MixtureExplorer(num_components=3))
    page.get_by_role("slider", name=MEAN.format(1)).focus()
    for chosen in (3, 2):
        page.keyboard.press("ArrowRight")
        before = live(page)
        page.get_by_role("slider", name=MEAN.format(chosen)).locator(".gm-knob").click()
        after = live(page)
        assert before["selected"] != after["selected"] == chosen - 1
        assert after["means"] == before["means"]


def test_buttons_add_and_remove_within_bounds(open_static: OpenStatic) -> None:
    page = open_static(MixtureExplorer())
    add = page.get_by_role("button", name="Add component")
    remove = page.get_by_role("button", name="Remove component")
    for count in (3, 4, 5, 6):
        add.click()
        state = live(page)
        assert len(state["weights"]) == count and state["selected"] == count - 1
        expect(page.get_by_role("slider", name=MEAN.format(count))).to_be_visible()
    expect(add).to_be_disabled()
    page.get_by_role("combobox", name="component").select_option("2")
    for count in (5, 4, 3, 2, 1):
        remove.click()
        state = live(page)
        assert len(state["weights"]) == len(state["values"]["counts"]) == count
        assert sum(state["weights"]) == pytest.approx(1)
    expect(remove).to_be_disabled()
    expect(page.get_by_label("its weight")).to_be_disabled()
    expect(page.get_by_role("slider", name=MEAN.format(2))).to_have_count(0)
    page.get_by_role("button", name="EM step").click()
    points = torch.tensor(state["points"], dtype=FLOAT64)
    assert live(page)["means"][0] == pytest.approx(points.mean(0).tolist())


def test_a_run_goes_step_by_step_stops_and_goes_on(open_static: OpenStatic) -> None:
    page = open_static(MixtureExplorer())
    page.get_by_role("button", name="Run EM").click()
    page.wait_for_function("() => gmmedu.views.mixture.store.state.history.length > 2")
    page.get_by_role("button", name="Stop").click()
    held = len(live(page)["history"])
    page.wait_for_timeout(400)
    assert len(live(page)["history"]) == held
    page.get_by_role("button", name="Run EM").click()
    page.get_by_role("button", name="Stop").wait_for()
    page.get_by_role("button", name="Run EM").wait_for(timeout=15_000)
    history = live(page)["history"]
    assert abs(history[-1] - history[-2]) < 1e-8 and len(history) > held
    assert all(b <= a + 1e-12 for a, b in zip(history, history[1:], strict=False))
    expect(page.get_by_label("mean NLL after each step")).to_be_visible()


def test_a_hand_ends_a_run(open_static: OpenStatic) -> None:
    page = open_static(MixtureExplorer(num_components=4))
    for hand in ("drag", "Reset", "Random start", "Gradient step"):
        page.get_by_role("button", name="Run EM").click()
        page.wait_for_function("() => gmmedu.views.mixture.store.state.history.length > 3")
        if hand == "drag":
            drag(page, MEAN.format(1), 30, 30)
        else:
            page.get_by_role("button", name=hand).click()
        state = live(page)
        page.wait_for_timeout(300)
        assert live(page)["means"] == state["means"], hand
        expect(page.get_by_role("button", name="Run EM")).to_be_visible()
        page.get_by_role("button", name="Random start").click()


def test_where_motion_is_reduced_a_run_jumps_to_its_end(open_static: OpenStatic) -> None:
    page = open_static(MixtureExplorer(), reduced_motion="reduce")
    page.get_by_role("button", name="Run EM").click()
    state = live(page)
    assert abs(state["history"][-1] - state["history"][-2]) < 1e-8
    assert state["values"]["nll"] == pytest.approx(4.15538, abs=1e-5)


def test_random_starts_differ_and_follow_from_the_seed(open_static: OpenStatic) -> None:
    page = open_static(MixtureExplorer(num_components=3))
    starts = []
    for _ in range(3):
        page.get_by_role("button", name="Random start").click()
        starts.append(live(page)["means"])
    assert starts[0] != starts[1] != starts[2]
    page.get_by_role("button", name="Reset").click()
    page.get_by_role("button", name="Random start").click()
    assert live(page)["means"] == starts[0]


def test_a_link_restores_the_view(open_static: OpenStatic) -> None:
    explorer = MixtureExplorer(clusters(far=1e6), 2)
    page = open_static(explorer)
    page.get_by_role("button", name="Add component").click()
    page.get_by_role("button", name="Random start").click()
    for _ in range(4):
        page.get_by_role("button", name="EM step").click()
    seen = live(page)
    link = link_to(page, "mixture")
    assert link.startswith("mixture=3,")
    again = live(open_static(explorer, hash=link))
    assert again["selected"] == 2 and again["seed"] == 1
    assert again["values"]["nll"] == pytest.approx(seen["values"]["nll"], rel=1e-4)
    assert again["weights"] == pytest.approx(seen["weights"], abs=1e-5)
    assert sum(again["weights"]) == pytest.approx(1, abs=1e-12)


GOOD = "2,0,0.1,0,0.5,-1,-1,1,0,1,0.5,1,1,1,0,1"


@pytest.mark.parametrize("name", ["old faithful", "random, K = 6", "a line, clamped", "tiny"])
def test_what_is_encoded_can_be_decoded(open_static: OpenStatic, name: str) -> None:
    explorer = restored(name)
    page = open_static(explorer)
    page.get_by_role("button", name="EM step").click()
    state = live(page)
    back = page.evaluate(
        """() => { const {store, kind} = gmmedu.views.mixture;
        const numbers = kind.encode(store.state).map(v => Number(v.toPrecision(6)));
        return kind.decode(numbers, store.state); }"""
    )
    assert back is not None
    assert back["weights"] == pytest.approx(state["weights"], abs=1e-5)
    for part in ("means", "covariances"):
        own, its = np.array(state[part]), np.array(back[part])
        # Six digits of each number, in units of the data.
        np.testing.assert_allclose(its, own, rtol=1e-4, atol=1e-5 * np.abs(own).max())


BROKEN = [
    "mixture=",
    "mixture=1",
    "mixture=0,0,0.1,0",
    "mixture=7,0,0.1,0" + ",0.1,0,0,1,0,1" * 7,
    "mixture=1e9,0,0.1,0",
    GOOD.replace("2,0,", "2,2,", 1).join(["mixture=", ""]),
    "mixture=" + GOOD + ",1",
    "mixture=" + GOOD.replace("0.1", "0"),
    "mixture=" + GOOD.replace("0.1", "-1"),
    "mixture=" + GOOD.replace("0.5", "0.4"),
    "mixture=" + GOOD.replace("0.5,-1", "1.5,-1").replace("0.5,1", "-0.5,1"),
    "mixture=" + GOOD.replace("-1,-1", "1e300,1e300"),
    "mixture=" + GOOD.replace("1,0,1", "1,0,0"),
    "mixture=" + GOOD.replace("1,0,1", "-1,0,1"),
    "mixture=" + GOOD.replace("1,0,1", "1,1e4,1e-8"),
    "mixture=" + GOOD.replace("0.1,0,", "0.1,0.5,"),
    "mixture=" + GOOD.replace("0.1", "NaN"),
    "mixture=<img src=x onerror=alert(1)>",
    "__proto__=1,2,3",
]


def test_a_broken_link_is_ignored(open_static: OpenStatic) -> None:
    explorer = MixtureExplorer()
    page = open_static(explorer)
    for hash in addresses(page, BROKEN):
        state = live(page)
        assert state["means"] == explorer.means, hash
        assert state["covariances"] == explorer.covariances, hash


def test_a_good_link_is_taken(open_static: OpenStatic) -> None:
    explorer = MixtureExplorer()
    state = live(open_static(explorer, hash="mixture=" + GOOD))
    x = gmmedu.load_old_faithful().numpy()
    center, scale = x.mean(0), x.std(0)
    assert state["weights"] == [0.5, 0.5]
    np.testing.assert_allclose(state["means"], [center - scale, center + scale], rtol=1e-5)
    np.testing.assert_allclose(state["covariances"], [np.diag(scale**2)] * 2, rtol=1e-5, atol=1e-9)


def test_two_on_one_page(open_static: OpenStatic) -> None:
    page = open_static(MixtureExplorer(), MixtureExplorer(clusters(), 3, name="other"))
    page.locator("#other").get_by_role("button", name="EM step").click()
    assert live(page)["history"] == []
    assert len(page.evaluate("() => gmmedu.views.other.store.state.history")) == 2


def test_the_selected_one_is_known_by_more_than_color(open_static: OpenStatic) -> None:
    page = open_static(MixtureExplorer())
    live(page)
    widths = "nodes => nodes.map(n => n.getAttribute('stroke-width'))"
    paths = page.locator(".gm-plane").first.locator("path[d][stroke-width]")
    assert sorted(set(paths.evaluate_all(widths))) == ["1.5", "3.5"]
    assert page.locator(".gm-handle text").all_text_contents() == ["1", "2"]


def test_a_phone_has_room(open_static: OpenStatic) -> None:
    page = open_static(MixtureExplorer(num_components=6), viewport={"width": 390, "height": 844})
    page.get_by_role("button", name="EM step").click()
    live(page)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    wide = "nodes => nodes.filter(n => n.scrollWidth > n.clientWidth + 1).length"
    assert page.locator(".gm-values :is(dl div, td)").evaluate_all(wide) == 0


def test_a_run_with_one_component_ends(open_static: OpenStatic) -> None:
    """A kernel tells nothing of means that a step has left where they are."""
    page = open_static(MixtureExplorer())
    page.get_by_role("button", name="Remove component").click()
    page.evaluate(LATE, "mixture")
    page.get_by_role("button", name="Run EM").click()
    page.wait_for_function("gmmedu.views.mixture.store.state.history.length > 1")
    expect(page.get_by_role("button", name="Run EM")).to_be_visible(timeout=5_000)
    assert len(live(page)["history"]) > 1


def test_a_component_that_is_not_there_dims_nothing(open_static: OpenStatic) -> None:
    page = open_static(MixtureExplorer())
    live(page)
    dimmed = """color => { const { ui } = gmmedu.views.mixture; ui.light(color);
      return ui.root.querySelectorAll('.gm-dim').length; }"""
    assert page.evaluate(dimmed, PALETTE[1]) > 0
    assert page.evaluate(dimmed, PALETTE[3]) == 0


@pytest.mark.parametrize("ulps", [0, 1, 2, 30])
def test_what_moves_by_rounding_alone_is_drawn_flat(open_static: OpenStatic, ulps: int) -> None:
    """As after one step from where a fit has ended."""
    page = open_static(MixtureExplorer())
    nll = 4.155382
    history = [nll, nll + ulps * math.ulp(nll)]
    page.evaluate(
        """history => { const { store } = gmmedu.views.mixture;
        store.set("history", history); store.changed(); }""",
        history,
    )
    still(page)
    chart = page.locator("svg[aria-label='mean NLL after each step']")
    labels = chart.locator(".gm-text[text-anchor=end]").all_text_contents()
    assert 2 <= len(labels) == len(set(labels)) < 20


def test_interactives_that_share_a_document_share_no_mask(open_static: OpenStatic) -> None:
    """In JupyterLab each has a copy of the script to itself."""
    page = open_static(MixtureExplorer(), MixtureExplorer())
    ids = page.locator("clipPath").evaluate_all("nodes => nodes.map(n => n.id)")
    script = page.locator("script:not([type])").last.evaluate("node => node.textContent")
    assert len(ids) >= 4 and script
    page.evaluate(
        """script => { delete window.gmmedu;
        for (const figure of document.querySelectorAll("figure[data-gmmedu]")) {
          delete figure.dataset.live;
        }
        (0, eval)(script); }""",
        script,
    )
    still(page)
    ids = page.locator("clipPath").evaluate_all("nodes => nodes.map(n => n.id)")
    assert len(ids) >= 8 and len(set(ids)) == len(ids)
