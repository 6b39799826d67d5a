"""The scrubber: what it keeps of a fit, the same snapshot in page and Python, and every control."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
import traitlets
from playwright.sync_api import Page, expect
from torch import Tensor

import gmmedu
from gmmbook.widgets import FitScrubber
from gmmedu.fitting import FitResult, Snapshot
from widgets.conftest import OpenStatic, addresses, link_to, still

FLOAT64 = torch.float64
PHONE = {"viewport": {"width": 390, "height": 844}}


def pair(scale: float = 1.0, far: float = 0.0) -> Tensor:
    """Two clusters, 150 points."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(150, 2, generator=generator, dtype=FLOAT64)
    noise[:50] += torch.tensor([3.0, 1.0], dtype=FLOAT64)
    return far + scale * noise


@cache
def fits() -> dict[str, FitResult]:
    x = pair()
    models = []
    for _ in range(2):
        generator = torch.Generator().manual_seed(1)
        model = gmmedu.GmmFull(2, 2, dtype=FLOAT64)
        models.append(gmmedu.initialize(model, x, "points", generator=generator))
    return {
        "EM": gmmedu.fit_em(models[0], x, 40, 0, snapshot_every=1),
        "Adam": gmmedu.fit_model(models[1], x, 120, 0.1, 0.1, snapshot_every=7),
    }


def made(covariances: Tensor, means: Tensor | None = None, length: int = 9) -> FitResult:
    """A record of a fit that stays at these covariances, with uneven times."""
    count = len(covariances)
    generator = torch.Generator().manual_seed(count)
    means = torch.randn(count, 2, generator=generator, dtype=FLOAT64) if means is None else means
    history = torch.rand(length, generator=generator, dtype=FLOAT64).sort(descending=True).values
    elapsed = torch.rand(length, generator=generator, dtype=FLOAT64).cumsum(0)
    weights = torch.rand(count, generator=generator, dtype=FLOAT64)
    snapshots = [
        Snapshot(
            t, float(history[t]), weights / weights.sum(), means + t / 10, covariances * (1 + t)
        )
        for t in (*range(0, length - 1, 3), length - 1)
    ]
    nll = float(history[-1])
    passes = torch.arange(1, length + 1)
    return FitResult(
        nll, nll, history, elapsed, passes, True, False, length - 1, length, 1.0, [], snapshots, []
    )


def random_covariances(count: int) -> Tensor:
    root = torch.randn(count, 2, 2, generator=torch.Generator().manual_seed(count), dtype=FLOAT64)
    return root @ root.mT


HARD: dict[str, tuple[Tensor, float]] = {
    "one component": (random_covariances(1), 0.0),
    "six components": (random_covariances(6), 0.0),
    "equal eigenvalues": (2.5 * torch.eye(2, dtype=FLOAT64).expand(2, 2, 2), 0.0),
    "near singular": (torch.tensor([[[1.0, 1 - 1e-13], [1 - 1e-13, 1.0]]], dtype=FLOAT64), 0.0),
    "singular": (torch.tensor([[[4.0, 2.0], [2.0, 1.0]]], dtype=FLOAT64), 0.0),
    "tiny": (1e-12 * random_covariances(2), 0.0),
    "units apart": (torch.tensor([[[1e-6, 0.3], [0.3, 1e6]]], dtype=FLOAT64), 0.0),
    "points at 1e6": (random_covariances(2), 1e6),
}


def assert_close(found: Any, expected: Any) -> None:
    """Equal to 1e-9 of the size of the numbers, whatever the nesting."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_close(found[key], expected[key])
    elif isinstance(expected, list) and not isinstance(expected[0], float):
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            assert_close(a, b)
    elif isinstance(expected, list):
        size = max(abs(v) for v in expected)
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-9 * size)
    else:
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-300)


def in_page(page: Page, moments: list[dict[str, Any]], view: str = "scrubber") -> Any:
    return page.evaluate(
        "([name, moments]) => moments.map((m) => { const { kind, store } = gmmedu.views[name];"
        " return kind.values({ ...store.state, ...m }); })",
        [view, moments],
    )


def state(
    page: Page, name: str = "scrubber", run: Callable[[int], None] | None = None
) -> dict[str, Any]:
    """The state once the next frame is drawn; `run` is that of a clock that stands still."""
    if run:
        run(50)
    else:
        still(page, 30)
    found: dict[str, Any] = page.evaluate(
        "n => JSON.parse(JSON.stringify(gmmedu.views[n].store.state))", name
    )
    return found


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def marker(page: Page) -> tuple[float, float]:
    box = page.get_by_role("slider", name="moment", exact=True).bounding_box()
    assert box
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


# What it keeps


def test_values_are_those_of_the_snapshots() -> None:
    scrubber = FitScrubber(fits(), pair())
    em, adam = fits().values()
    scrubber.iteration = 13
    first, second = scrubber.values["fits"]
    assert (first["iteration"], second["iteration"]) == (13, 7)
    for shown, fit, i in ((first, em, 13), (second, adam, 1)):
        snapshot = fit.snapshots[i]
        assert shown["nll"] == pytest.approx(snapshot.nll, abs=1e-5)
        assert shown["seconds"] == pytest.approx(
            float(fit.elapsed[snapshot.iteration] - fit.elapsed[0]), rel=1e-5
        )
        for key in ("weights", "means"):
            own = torch.tensor(shown[key], dtype=FLOAT64)
            torch.testing.assert_close(own, getattr(snapshot, key), rtol=1e-5, atol=1e-5)
        sds = torch.linalg.eigvalsh(snapshot.covariances).flip(1).sqrt()
        own = torch.tensor(shown["sds"], dtype=FLOAT64)
        torch.testing.assert_close(own, sds, rtol=1e-5, atol=0)
        model = gmmedu.GmmFull(2, 2, dtype=FLOAT64).set_parameters(
            snapshot.weights, snapshot.means, snapshot.covariances
        )
        assert shown["nll"] == pytest.approx(model(pair()).item(), abs=1e-5)
    assert scrubber.values["difference"] == second["nll"] - first["nll"]


def test_the_last_nll_is_exact_and_ends_are_kept() -> None:
    scrubber = FitScrubber(fits(), pair(), max_snapshots=5)
    scrubber.iteration = 120
    for shown, kept, fit in zip(
        scrubber.values["fits"], scrubber.fits, fits().values(), strict=True
    ):
        assert shown["nll"] == pytest.approx(fit.nll, rel=1e-15)
        assert kept["iterations"][0] == 0 and kept["iterations"][-1] == fit.num_iterations
        assert len(kept["iterations"]) == 5 and len(kept["history"]["iterations"]) <= 25
        assert set(kept["iterations"]) <= set(kept["history"]["iterations"])
        assert kept["history"]["iterations"][-1] == fit.num_iterations


def test_early_snapshots_are_kept_closer_than_late_ones() -> None:
    length = 3_001
    fit = made(random_covariances(1), length=length)
    every = [
        Snapshot(t, float(fit.history[t]), s.weights, s.means, s.covariances)
        for s in fit.snapshots[:1]
        for t in range(length)
    ]
    record = {**vars(fit), "snapshots": every}
    times = FitScrubber(FitResult(**record), pair()).fits[0]["iterations"]
    gaps = torch.tensor(times).diff()
    assert 55 <= len(times) <= 60 and times[:5] == [0, 1, 2, 3, 4] and times[-1] == length - 1
    assert int(gaps[-1]) > 100 and bool((gaps[1:] >= gaps[:-1] - 1 - gaps[:-1] // 10).all())


def test_a_page_stays_light() -> None:
    x = pair().repeat(40, 1)
    scrubber = FitScrubber(fits(), x)
    assert len(scrubber.points) <= 1_000 and scrubber.drawn == "1000 points of 6000"
    page = scrubber.to_html()
    data = page.split('application/json">')[1].split("</script>")[0]
    assert len(data) < 60_000
    assert len(page) - len(scrubber._esm) < 200_000


def test_far_points_keep_their_digits() -> None:
    x = pair(1.0, 1e6)
    scrubber = FitScrubber(made(random_covariances(1)), x)
    torch.testing.assert_close(torch.tensor(scrubber.points, dtype=FLOAT64), x, rtol=0, atol=1e-5)


# Traits


def test_traits_are_observed_set_and_reset() -> None:
    scrubber = FitScrubber(fits(), pair(), iteration=3)
    heard: list[Any] = []
    scrubber.observe(lambda change: heard.append(change["new"]), "values")
    scrubber.iteration = 20
    assert [fit["iteration"] for fit in heard[-1]["fits"]] == [20, 14]
    assert "EM at iteration 20 of 40" in scrubber.alt
    scrubber.set(against="seconds", seconds=1e-9)
    assert [fit["iteration"] for fit in heard[-1]["fits"]] == [0, 0]
    scrubber.reset()
    assert (scrubber.against, scrubber.iteration, scrubber.seconds) == ("iterations", 3, 0.0)


@pytest.mark.parametrize(
    ("traits", "words"),
    [
        ({"iteration": -1}, "iteration must lie between 0 and 120"),
        ({"iteration": 121}, "iteration must lie between 0 and 120"),
        ({"iteration": 1.5}, "iteration"),
        ({"seconds": -1.0}, "seconds must lie between 0 and"),
        ({"seconds": 1e9}, "seconds must lie between 0 and"),
        ({"seconds": math.nan}, "seconds must lie between 0 and"),
        ({"against": "days"}, "against"),
    ],
)
def test_a_moment_outside_the_fits_is_refused_and_nothing_changes(
    traits: dict[str, Any], words: str
) -> None:
    scrubber = FitScrubber(fits(), pair(), iteration=5)
    before = {name: getattr(scrubber, name) for name in (*scrubber.state, "values")}
    with pytest.raises(traitlets.TraitError, match=words):
        scrubber.set(**traits)
    assert before == {name: getattr(scrubber, name) for name in before}


def test_what_is_no_fit_is_refused() -> None:
    x, em = pair(), fits()["EM"]
    without = FitResult(**{**vars(em), "snapshots": []})
    line = gmmedu.fit_em(gmmedu.GmmFull(1, 1, dtype=FLOAT64), x[:, :1], 2, snapshot_every=1)
    wrong: Any
    error: type[Exception]
    for wrong, error, words in (
        (without, ValueError, "'fit' has no snapshots: pass snapshot_every=1"),
        ({"EM": em, "plain": without}, ValueError, "'plain' has no snapshots"),
        (line, ValueError, "2 dimensions, and 'fit' has 1"),
        ([em, em, em], ValueError, "one fit or two, got 3"),
        ([], ValueError, "one fit or two, got 0"),
        (em.history, TypeError, "fits must be a FitResult"),
        ({"EM": em.history}, TypeError, "fits must be a FitResult"),
        (None, TypeError, "fits must be a FitResult"),
    ):
        with pytest.raises(error, match=words):
            FitScrubber(wrong, x)
    options: dict[str, Any]
    for options, error, words in (
        ({"labels": ["a", "b"]}, ValueError, "labels must be 1 different names"),
        ({"labels": "EM"}, TypeError, "labels must be names"),
        ({"labels": [1]}, TypeError, "labels must be names"),
        ({"max_snapshots": 1}, ValueError, "max_snapshots must be at least 2"),
        ({"x": x[:, :1]}, ValueError, r"x must have shape \(N, 2\)"),
        ({"x": x.numpy()}, TypeError, "x must be a torch.Tensor"),
        ({"x": x / 0}, ValueError, "x must be finite"),
        ({"axis_labels": ["a"]}, traitlets.TraitError, "axis_labels"),
        ({"iteration": 99}, traitlets.TraitError, "iteration must lie between 0 and 40"),
    ):
        with pytest.raises(error, match=words):
            options = {"x": x, **options}
            FitScrubber(em, **options)
    with pytest.raises(ValueError, match="2 different names"):
        FitScrubber([em, em], x, labels=["EM", "EM"])


def test_labels_come_from_the_mapping_or_are_given() -> None:
    em = fits()["EM"]
    assert [fit["label"] for fit in FitScrubber(fits(), pair()).fits] == ["EM", "Adam"]
    assert FitScrubber([em, em], pair(), labels=("a", "b")).fits[1]["label"] == "b"
    assert FitScrubber(em, pair()).fits[0]["label"] == "fit"


def test_figure_shows_each_fit_and_the_curves() -> None:
    scrubber = FitScrubber(fits(), pair(), iteration=14, axis_labels=("a", "b"))
    axes = scrubber.to_figure().axes
    assert [ax.get_title() for ax in axes if ax.get_title()] == [
        "EM: iteration 14",
        "Adam: iteration 14",
    ]
    assert len(axes) == 3 and axes[0].get_xlabel() == "iteration (logarithmic)"
    for word in ("EM at iteration 14 of 40", "Adam at iteration 14 of 120", "logarithmic"):
        assert word in scrubber.alt


# The page against torch


@pytest.mark.parametrize("name", HARD)
def test_values_of_the_page_are_those_of_torch(open_static: OpenStatic, name: str) -> None:
    covariances, far = HARD[name]
    means = far + torch.arange(2.0 * len(covariances), dtype=FLOAT64).view(-1, 2)
    scrubber = FitScrubber(
        {"one": made(covariances, means), "two": made(2 * covariances, means, length=14)},
        pair(far=far),
    )
    page = open_static(scrubber)
    moments: list[dict[str, Any]] = [{"against": "iterations", "iteration": t} for t in range(14)]
    seconds = [t for fit in scrubber.fits for t in fit["seconds"]]
    for t in seconds:
        near = (math.nextafter(t, 0), t, math.nextafter(t, 99))
        moments += [{"against": "seconds", "seconds": v} for v in near if v <= max(seconds)]
    for found, moment in zip(in_page(page, moments), moments, strict=True):
        scrubber.set(**moment)
        own = scrubber.values
        for a, b in zip(found["fits"], own["fits"], strict=True):
            exact = ("iteration", "seconds", "nll", "weights", "means")
            assert all(a[key] == b[key] for key in exact), moment  # the same snapshot, no other
        assert_close(found, own)


def test_fits_of_different_numbers_of_components(open_static: OpenStatic) -> None:
    """Each weight has its row, whichever fit has more."""
    two, three = made(random_covariances(2)), made(random_covariances(3))
    for fits_shown in ({"two": two, "three": three}, {"three": three, "two": two}):
        page = open_static(FitScrubber(fits_shown, pair()))
        rows = page.locator(".gm-values table").last.locator("tbody tr")
        cells = [row.locator("td").all_inner_texts() for row in rows.all()]
        assert len(cells) == 3 and all(cells[0]) and all(cells[1])
        assert [bool(cell) for cell in cells[2]] == [name == "three" for name in fits_shown]
        assert page.locator(".gm-values dl dd").first.inner_text()


# Gestures


def test_buttons_step_and_play_and_reset(open_static: OpenStatic) -> None:
    page = open_static(FitScrubber(fits(), pair()))
    press(page, "Step forward")
    press(page, "Step forward")
    assert state(page)["iteration"] == 2
    press(page, "Step back")
    assert state(page)["iteration"] == 1
    expect(page.locator(".gm-values")).to_contain_text("NLL of Adam less EM")
    expect(page.get_by_role("status")).to_contain_text("EM: iteration 1, NLL", timeout=3_000)
    press(page, "Play")
    page.wait_for_function("gmmedu.views.scrubber.store.state.iteration > 4")
    press(page, "Pause")
    paused = state(page)["iteration"]
    page.wait_for_timeout(500)
    assert state(page)["iteration"] == paused < 120
    press(page, "Play")
    press(page, "Reset")
    page.wait_for_timeout(500)
    assert state(page)["iteration"] == 0
    expect(page.get_by_role("button", name="Play")).to_be_visible()  # another hand ends the play


def test_play_runs_to_the_end_in_about_ten_seconds(open_static: OpenStatic) -> None:
    page = open_static(FitScrubber(fits(), pair()))
    page.clock.install()
    press(page, "Play")
    page.clock.run_for(8_000)
    assert 0 < state(page, run=page.clock.run_for)["iteration"] < 120
    page.clock.run_for(12_000)
    expect(page.get_by_role("button", name="Play")).to_be_visible()
    assert state(page, run=page.clock.run_for)["iteration"] == 120
    press(page, "Play")  # from the end it begins anew
    page.clock.run_for(500)
    assert state(page, run=page.clock.run_for)["iteration"] < 10


def test_reduced_motion_jumps_to_the_end(open_static: OpenStatic) -> None:
    page = open_static(FitScrubber(fits(), pair()), reduced_motion="reduce")
    press(page, "To the end")
    assert state(page)["iteration"] == 120
    expect(page.get_by_role("button", name="To the end")).to_be_visible()


def test_drag_and_keys_move_the_marker(open_static: OpenStatic) -> None:
    page = open_static(FitScrubber(fits(), pair()))
    x, y = marker(page)
    page.mouse.move(x + 4, y)
    page.mouse.down()
    page.mouse.move(x + 304, y - 40, steps=8)
    page.mouse.up()
    dragged = state(page)["iteration"]
    assert 5 < dragged < 60
    assert marker(page)[0] == pytest.approx(x + 300, abs=25)
    knob = page.get_by_role("slider", name="moment", exact=True)
    knob.focus()
    page.keyboard.press("ArrowRight")
    after = state(page)["iteration"]
    assert after > dragged and knob.get_attribute("aria-valuetext") == f"iteration {after}"
    page.keyboard.press("ArrowLeft")
    assert state(page)["iteration"] == dragged
    for _ in range(9):
        page.keyboard.press("Shift+ArrowRight")
    assert state(page)["iteration"] == 120
    for _ in range(9):
        page.keyboard.press("Shift+ArrowLeft")
    assert state(page)["iteration"] == 0


def test_home_end_and_a_press_in_the_chart_move_the_marker(open_static: OpenStatic) -> None:
    page = open_static(FitScrubber(fits(), pair()))
    knob = page.get_by_role("slider", name="moment", exact=True)
    knob.focus()
    page.keyboard.press("End")
    assert state(page)["iteration"] == 120
    assert page.locator("b").first.inner_text().endswith(", the last")
    page.keyboard.press("Home")
    assert state(page)["iteration"] == 0
    page.mouse.click(marker(page)[0] + 300, marker(page)[1] - 60)
    pressed = state(page)["iteration"]
    assert 5 < pressed < 60
    assert page.evaluate("scrollY") == 0
    page.wait_for_function("location.hash.length > 1", timeout=3_000)


def test_the_marker_cannot_be_dragged_off_the_ends(open_static: OpenStatic) -> None:
    page = open_static(FitScrubber(fits(), pair()))
    for distance, end in ((5_000, 120), (-5_000, 0)):
        x, y = marker(page)
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + distance, y, steps=3)
        page.mouse.up()
        assert state(page)["iteration"] == end


def test_touch_drags_too(open_static: OpenStatic) -> None:
    page = open_static(FitScrubber(fits(), pair()), has_touch=True, **PHONE)
    page.get_by_role("slider", name="moment", exact=True).scroll_into_view_if_needed()
    x, y = marker(page)
    session = page.context.new_cdp_session(page)
    for kind, dx in (
        ("touchStart", 0),
        ("touchMove", 40),
        ("touchMove", 90),
        ("touchMove", 100),
        ("touchEnd", None),
    ):
        points = [] if dx is None else [{"x": x + dx, "y": y}]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    page.wait_for_function("gmmedu.views.scrubber.store.state.iteration > 3")


def test_against_seconds_keeps_the_moment(open_static: OpenStatic) -> None:
    scrubber = FitScrubber(fits(), pair())
    page = open_static(scrubber)
    for _ in range(9):
        press(page, "Step forward")
    assert state(page)["iteration"] == 9
    page.get_by_label("Against").select_option("seconds")
    now = state(page)
    adam = scrubber.fits[1]
    assert now["seconds"] == adam["seconds"][1]  # its snapshots are 7 iterations apart
    assert now["values"]["fits"][1]["iteration"] == 7
    words = page.get_by_role("slider", name="moment", exact=True).get_attribute("aria-valuetext")
    assert words == f"seconds {now['seconds']:.4g}"
    scrubber.set(against="seconds", seconds=now["seconds"])
    assert now["values"]["fits"][0]["iteration"] == scrubber.values["fits"][0]["iteration"]
    page.get_by_label("Against").select_option("iterations")
    assert state(page)["iteration"] == 7


def test_a_link_restores_the_view(open_static: OpenStatic) -> None:
    scrubber = FitScrubber(fits(), pair())
    page = open_static(scrubber)
    page.get_by_label("Against").select_option("seconds")
    for _ in range(11):
        press(page, "Step forward")
    before = state(page)
    link = link_to(page, "scrubber")
    other = open_static(scrubber, hash=link)
    assert state(other) == before
    assert other.locator(".gm-values").inner_text() == page.locator(".gm-values").inner_text()


BROKEN = [
    "scrubber=0,1",
    "scrubber=0,1,0,0",
    "scrubber=2,1,0",
    "scrubber=0,1.5,0",
    "scrubber=0,-1,0",
    "scrubber=0,121,0",
    "scrubber=1,0,1e300",
    "scrubber=1,0,-1",
    "scrubber=NaN,0,0",
    "scrubber=0,1e999,0",
    "scrubber=<img src=x onerror=alert(1)>",
    "scrubber=" + "0," * 1500,
]


def test_a_broken_link_is_ignored(open_static: OpenStatic) -> None:
    page = open_static(FitScrubber(fits(), pair(), iteration=4))
    for hash in addresses(page, BROKEN):
        now = state(page)
        assert (now["against"], now["iteration"], now["seconds"]) == ("iterations", 4, 0), hash


def test_labels_are_text_and_nothing_else(open_static: OpenStatic) -> None:
    name = '</script><img src=x onerror="alert(1)">&amp;'
    page = open_static(FitScrubber({name: fits()["EM"]}, pair(), axis_labels=("<b>", "&")))
    expect(page.locator(".gm-values")).to_contain_text(name)
    assert page.locator("img").count() == 0


# Look


def test_side_by_side_and_stacked_on_a_phone(open_static: OpenStatic) -> None:
    for options, stacked in (({}, False), (PHONE, True)):
        page = open_static(FitScrubber(fits(), pair()), **options)
        state(page)
        boxes = [panel.bounding_box() for panel in page.locator(".gm-plane").all()]
        first, second = boxes[0], boxes[1]
        assert first and second
        assert (second["y"] > first["y"] + first["height"]) == stacked
        assert (second["x"] > first["x"] + first["width"]) != stacked
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        sizes = page.evaluate(
            "[...document.querySelectorAll('.gm-widget text, .gm-widget li, .gm-widget dd')]"
            ".map(node => parseFloat(getComputedStyle(node).fontSize))"
        )
        assert min(sizes) >= 12


def test_components_can_be_read(open_static: OpenStatic) -> None:
    scrubber = FitScrubber(fits()["EM"], pair(), iteration=40)
    page = open_static(scrubber)
    page.get_by_text("Components of fit").click()
    weight, sds = (scrubber.values["fits"][0][key][1] for key in ("weights", "sds"))
    line = page.locator(".gm-widget li", has_text="standard deviations").nth(1)
    expect(line).to_contain_text(f"weight {weight:.4g}")
    expect(line).to_contain_text(f"standard deviations along the axes {sds[0]:.4g}, {sds[1]:.4g}")


def test_nothing_undrawn_at_any_moment(open_static: OpenStatic) -> None:
    page = open_static(
        *(
            FitScrubber(
                made(covariances, far + torch.zeros(len(covariances), 2, dtype=FLOAT64)),
                pair(far=far),
            )
            for covariances, far in HARD.values()
        )
    )
    for _ in range(5):
        for button in page.get_by_role("button", name="Step forward").all():
            button.click()
        state(page)
        for stage, name in zip(page.locator(".gm-stage").all(), HARD, strict=True):
            drawing = stage.inner_html()
            assert not any(word in drawing for word in ("NaN", "Infinity", "undefined")), name


def test_a_fit_of_no_iterations_and_a_point_that_repeats(open_static: OpenStatic) -> None:
    fit = made(random_covariances(2), length=1)
    page = open_static(FitScrubber(fit, torch.ones(4, 2, dtype=FLOAT64)))
    for name in ("Step forward", "Step back", "Play"):
        press(page, name)
    page.get_by_label("Against").select_option("seconds")
    press(page, "Step forward")
    assert state(page)["iteration"] == 0
    drawing = page.locator(".gm-stage").inner_html()
    assert "NaN" not in drawing and "Infinity" not in drawing


def test_two_on_one_page_do_not_disturb_each_other(open_static: OpenStatic) -> None:
    page = open_static(FitScrubber(fits(), pair()), FitScrubber(fits()["EM"], pair(), name="alone"))
    page.get_by_role("button", name="Step forward").nth(1).click()
    assert state(page)["iteration"] == 0 and state(page, "alone")["iteration"] == 1
