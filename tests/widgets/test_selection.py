"""How many components: stored fits held to fresh ones, criteria to torch, gestures by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import traitlets
from playwright.sync_api import expect
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, Normal

import gmmedu
from gmmbook.widgets import SelectionExplorer
from widgets.conftest import OpenStatic, addresses, drag, reopen, still

X = gmmedu.load_galaxies().double()
WAYS = [
    (fits, family) for fits in ("floor", "one start", "no floor") for family in ("full", "tied")
]
CRITERIA = ("aic", "bic", "icl", "held_out")


def stored(fits: str, family: str, count: int) -> dict[str, Any]:
    fit: dict[str, Any] = SelectionExplorer().table[fits][family][count - 1]
    return fit


def distribution(fit: dict[str, Any]) -> MixtureSameFamily:
    weights, means, sds = (
        torch.tensor(fit[part], dtype=torch.float64) for part in ("weights", "means", "sds")
    )
    return MixtureSameFamily(Categorical(weights), Normal(means, sds))


@pytest.mark.parametrize(("fits", "family"), WAYS)
def test_the_criteria_are_those_written_out(fits: str, family: str) -> None:
    values = SelectionExplorer(fits=fits, family=family).values
    for i, fit in enumerate(SelectionExplorer().table[fits][family]):
        parts = distribution(fit)
        joint = parts.mixture_distribution.logits + parts.component_distribution.log_prob(X)
        log_likelihood = float(joint.logsumexp(1).sum())
        count = len(fit["weights"])
        free = count - 1 + count + (count if family == "full" else 1)
        bic = free * math.log(82) - 2 * log_likelihood
        sure = float((joint.amax(1) - joint.logsumexp(1)).sum())
        assert values["log_likelihood"][i] == pytest.approx(log_likelihood, abs=1e-6)
        assert values["aic"][i] == pytest.approx(2 * free - 2 * log_likelihood, abs=1e-6)
        assert values["bic"][i] == pytest.approx(bic, abs=1e-6)
        assert values["icl"][i] == pytest.approx(bic - 2 * sure, abs=1e-6)
        assert family == "full" or len(set(fit["sds"])) == 1
    for name in CRITERIA:
        able = [
            v if fit["regular"] else math.inf
            for v, fit in zip(values[name], SelectionExplorer().table[fits][family], strict=True)
        ]
        assert able[values["lowest"][name] - 1] == min(able)


def test_the_best_fits_are_those_of_other_software() -> None:
    """R's mclust and scikit-learn from many random starts, with no standard deviation below 0.2."""
    values = SelectionExplorer().values
    for count, expected in ((3, -203.1792), (4, -197.4538), (5, -195.9697), (6, -194.8012)):
        assert values["log_likelihood"][count - 1] == pytest.approx(expected, abs=2e-4)
    assert [round(values["bic"][count - 1], 2) for count in (3, 4)] == [441.61, 443.38]


@pytest.mark.filterwarnings("ignore::gmmedu.SingularityWarning")
@pytest.mark.parametrize(("fits", "family"), WAYS)
def test_no_stored_fit_can_be_improved_by_em(fits: str, family: str) -> None:
    explorer = SelectionExplorer(fits=fits, family=family)
    low = 1e-6 if fits == "no floor" else 0.2 / float(X.std(correction=0))
    for count in range(1, 10):
        if not explorer.table[fits][family][count - 1]["regular"]:
            continue
        model = explorer.model(count)
        fit = gmmedu.fit_em(model, X, 1, 0, mitigation=gmmedu.Clamp(low))
        assert float(fit.history[0] - fit.history[-1]) * 82 < 1e-4, count


@pytest.mark.slow
@pytest.mark.parametrize("family", ["full", "tied"])
def test_a_fresh_search_finds_no_better_regular_fit(family: str) -> None:
    generator = torch.Generator().manual_seed(5)
    clamp = gmmedu.Clamp(0.2 / float(X.std(correction=0)))
    choice = gmmedu.select(X, range(1, 6), family, mitigation=clamp, generator=generator)
    own = SelectionExplorer(family=family).values["log_likelihood"][:5]
    fresh = list(choice.values("log_likelihood")[family].values())
    assert own == pytest.approx(fresh, abs=1e-4)


def test_the_one_start_ends_where_it_is_said_to() -> None:
    clamp = gmmedu.Clamp(0.2 / float(X.std(correction=0)))
    for count in (2, 3, 4):
        model = gmmedu.GmmFull(count, 1, dtype=torch.float64)
        gmmedu.initialize(model, X, "points", generator=torch.Generator().manual_seed(3))
        fit = gmmedu.fit_em(model, X, 300, 1e-9, accelerate="squarem", mitigation=clamp)
        values = SelectionExplorer(fits="one start").values
        assert values["log_likelihood"][count - 1] == pytest.approx(-82 * fit.nll, abs=1e-4)


def _folds() -> Tensor:
    """The folds that ``select`` draws with five folds and the seed 0."""
    order = torch.randperm(82, generator=torch.Generator().manual_seed(0))
    return torch.empty_like(order).index_copy(0, order, torch.arange(82) % 5)


def test_held_out_values_are_of_the_same_folds() -> None:
    """One Gaussian has one fit, found by hand."""
    nll, fold = torch.empty(82, dtype=torch.float64), _folds()
    for f in range(5):
        rest = X[fold != f]
        nll[fold == f] = -Normal(rest.mean(), rest.std(correction=0)).log_prob(X[fold == f, 0])
    for fits, family in WAYS:
        assert stored(fits, family, 1)["held_out"] == pytest.approx(float(nll.mean()), abs=1e-7)


def test_without_a_floor_a_needle_wins_what_is_read_on_the_data_themselves() -> None:
    free, floored = SelectionExplorer(fits="no floor").values, SelectionExplorer().values
    for name in ("aic", "bic", "icl"):
        best = free["lowest"][name]
        assert min(stored("no floor", "full", best)["sds"]) < 1e-5
        assert free[name][best - 1] < floored[name][floored["lowest"][name] - 1]
        assert min(stored("floor", "full", floored["lowest"][name])["sds"]) > 0.2
    # A needle is worth nothing to points that it has not seen.
    assert min(stored("no floor", "full", free["lowest"]["held_out"])["sds"]) > 0.2


def test_the_closed_forms_are_those_of_torch(open_static: OpenStatic) -> None:
    page = open_static(SelectionExplorer())
    found = page.evaluate(
        """ways => { const { kind, store } = gmmedu.views.selection;
          return ways.map(([fits, family]) => kind.values({ ...store.state, fits, family })); }""",
        WAYS,
    )
    for own, (fits, family) in zip(found, WAYS, strict=True):
        expected = SelectionExplorer(fits=fits, family=family).values
        assert own.keys() == expected.keys() and own["lowest"] == expected["lowest"]
        assert own["held_out"] == expected["held_out"]
        for key in ("log_likelihood", "aic", "bic", "icl"):
            assert own[key] == pytest.approx(expected[key], rel=1e-9), (key, fits, family)


def test_the_curve_is_seen_as_far_as_a_reader_has_been(open_static: OpenStatic) -> None:
    page = open_static(SelectionExplorer())
    below = page.locator(".gm-plane").nth(1)
    knob = page.get_by_role("slider", name="K along the curve")
    bic = page.locator(".gm-values dl div", has_text="BIC").locator("dd")
    expect(bic).to_have_text("462.15, lowest so far at 2")
    expect(below).to_contain_text("Which K is lowest?")
    knob.focus()
    page.keyboard.press("ArrowRight")
    expect(knob).to_have_attribute("aria-valuetext", "3; BIC 441.61")
    page.keyboard.press("End")
    expect(bic).to_contain_text("lowest at 3")
    page.get_by_role("button", name="The lowest BIC").click()
    expect(knob).to_have_attribute("aria-valuetext", "3; BIC 441.61")
    expect(page.get_by_role("status")).to_contain_text("3 components", timeout=3_000)
    expect(page.locator(".gm-table tbody tr")).to_have_count(3)
    drag(page, "K along the curve", 60, 0)
    assert page.evaluate("gmmedu.views.selection.store.state.num_components") > 3
    page.get_by_role("button", name="Reset").click()
    expect(bic).to_have_text("462.15, lowest so far at 2")


def test_its_buttons_load_the_surprises_and_links_restore_them(open_static: OpenStatic) -> None:
    page = open_static(SelectionExplorer())
    knob = page.get_by_role("slider", name="K along the curve")
    page.get_by_role("button", name="A needle wins").click()
    free = SelectionExplorer(fits="no floor").values
    count = free["lowest"]["bic"]
    expect(knob).to_have_attribute("aria-valuetext", f"{count}; BIC {free['bic'][count - 1]:.2f}")
    page.wait_for_function(f"location.hash === '#selection={count},1,2,0'")
    page.get_by_role("button", name="A local optimum").click()
    local = SelectionExplorer(fits="one start").values["bic"][3]
    expect(knob).to_have_attribute("aria-valuetext", f"4; BIC {local:.2f}")
    choices = page.locator("select")
    choices.nth(0).select_option("held-out NLL")
    choices.nth(1).select_option("floor 0.2, many starts")
    choices.nth(2).select_option("tied")
    held_out = SelectionExplorer(family="tied").values["held_out"][3]
    expect(knob).to_have_attribute("aria-valuetext", f"4; held-out NLL {held_out:.4f}")
    expect(page.get_by_role("button", name="The lowest held-out NLL")).to_be_visible()
    reopen(page, "selection=9,1,2,0")
    expect(knob).to_have_attribute("aria-valuetext", f"9; BIC {free['bic'][8]:.2f}")
    hostile = ("10,1,2,0", "2.5,1,0,0", "3,4,0,0", "3,0,3,0", "3,0,0,2", "3,1,0")
    for _ in addresses(page, [f"selection={numbers}" for numbers in hostile]):
        still(page, 0)
        expect(knob).to_have_attribute("aria-valuetext", "2; BIC 462.15")
    numbers = page.locator(".gm-widget path").evaluate_all("p => p.map(e => e.getAttribute('d'))")
    assert numbers and not any("NaN" in d or "Infinity" in d for d in numbers if d)


def test_touch_slides_too(open_static: OpenStatic) -> None:
    page = open_static(SelectionExplorer(), has_touch=True, viewport={"width": 390, "height": 844})
    box = page.get_by_role("slider", name="K along the curve").locator(".gm-knob").bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    session = page.context.new_cdp_session(page)
    for kind, dx in (("touchStart", 0), ("touchMove", 60), ("touchMove", 120), ("touchEnd", None)):
        points = [] if dx is None else [{"x": x + dx, "y": y}]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    page.wait_for_function("gmmedu.views.selection.store.state.num_components > 4")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize(
    "state",
    [{"num_components": 0}, {"num_components": 10}, {"criterion": "dic"}, {"fits": "all"},
     {"family": "diagonal"}],
)  # fmt: skip
def test_a_state_that_there_is_not_is_named(state: dict[str, Any]) -> None:
    with pytest.raises(traitlets.TraitError, match=next(iter(state))):
        SelectionExplorer(**state)


@pytest.mark.parametrize(("fits", "family"), WAYS)
@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_still_says_what_it_shows(fits: str, family: str, criterion: str) -> None:
    explorer = SelectionExplorer(4, fits=fits, family=family, criterion=criterion)
    best = explorer.values["lowest"][criterion]
    assert "mixture of 4 components" in explorer.alt and f"lowest at {best}." in explorer.alt
    top, bottom = explorer.to_figure().axes
    assert top.get_xlabel() == "speed (1000 km/s)" and bottom.get_xlabel() == "components K"
    (word,) = bottom.texts
    assert word.xy == (best, explorer.values[criterion][best - 1])


def test_the_random_state_of_torch_is_left_alone() -> None:
    before = torch.get_rng_state()
    SelectionExplorer()
    assert torch.equal(before, torch.get_rng_state())
