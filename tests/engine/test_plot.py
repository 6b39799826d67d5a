"""Figures are measured, not looked at: colors, masses, levels and curves against closed forms."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import Polygon
from numpy.typing import NDArray

from gmmedu import plot
from gmmedu.datasets import load_galaxies, load_old_faithful
from gmmedu.models import GmmDiagonal, GmmFull

LIGHT, DARK = "#ffffff", "#121212"


@pytest.fixture(autouse=True)
def own_figures() -> Iterator[None]:
    """Each test draws in the style of the book and leaves no figure behind."""
    with matplotlib.rc_context():
        plot.use_style()
        yield
        plt.close("all")


def two_components() -> GmmFull:
    model = GmmFull(2, 2, dtype=torch.float64)
    return model.set_parameters(
        torch.tensor([0.3, 0.7], dtype=torch.float64),
        torch.tensor([[-2.0, 0.0], [2.0, 1.0]], dtype=torch.float64),
        torch.tensor([[[1.0, 0.6], [0.6, 0.8]], [[0.5, -0.2], [-0.2, 1.5]]], dtype=torch.float64),
    )


def line_model() -> GmmDiagonal:
    model = GmmDiagonal(2, 1, dtype=torch.float64)
    return model.set_parameters(
        torch.tensor([0.25, 0.75], dtype=torch.float64),
        torch.tensor([[0.0], [5.0]], dtype=torch.float64),
        torch.tensor([[[1.0]], [[0.04]]], dtype=torch.float64),
    )


def outlines(ax: Axes) -> list[Polygon]:
    """The drawn edges of the ellipses, without their fillings."""
    return [p for p in ax.patches if isinstance(p, Polygon) and p.get_linewidth() > 0]


def read(ax: Axes) -> Any:
    """The Axes without matplotlib's types, which change from version to version."""
    return ax


# Colors


def luminance(color: str) -> float:
    """Relative luminance, WCAG 2."""
    return float(linear_rgb(color) @ np.array([0.2126, 0.7152, 0.0722]))


def linear_rgb(color: str) -> NDArray[np.float64]:
    srgb = np.array(to_rgb(color))
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def contrast(color: str, page: str) -> float:
    low, high = sorted([luminance(color) + 0.05, luminance(page) + 0.05])
    return high / low


# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
VISION = {
    "full color vision": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}


def lab(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    """CIE L*a*b* of linear sRGB under D65."""
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    ratio = to_xyz @ linear / np.array([0.9505, 1.0, 1.089])
    root = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = root
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_text_reads_on_light_and_dark_pages() -> None:
    for key in ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"):
        color = matplotlib.rcParams[key]
        assert contrast(color, LIGHT) >= 3.9, key
        assert contrast(color, DARK) >= 3.9, key


def test_component_colors_are_seen_on_light_and_dark_pages() -> None:
    for color in plot.PALETTE:
        assert contrast(color, LIGHT) >= 2.2, color
        assert contrast(color, DARK) >= 2.2, color


@pytest.mark.parametrize("vision", VISION)
def test_component_colors_differ_for_every_reader(vision: str) -> None:
    seen = {c: lab(np.clip(VISION[vision] @ linear_rgb(c), 0, 1)) for c in plot.PALETTE}
    for one, other in itertools.combinations(plot.PALETTE, 2):
        # A difference of 2.3 is just noticeable; lines need several times that.
        assert np.linalg.norm(seen[one] - seen[other]) > 12, (one, other)


def test_text_is_large_enough_for_a_phone() -> None:
    rc = matplotlib.rcParams
    assert rc["figure.figsize"][0] <= 4.8
    for key in ("font.size", "axes.labelsize", "xtick.labelsize", "ytick.labelsize"):
        assert rc[key] >= 10, key
    assert rc["legend.fontsize"] >= 10


def test_more_components_than_colors_differ_in_line_style() -> None:
    styles = [(plot.component_color(k), plot.component_line_style(k)) for k in range(32)]
    assert styles[0] == ("#0072B2", "-")
    assert styles[8] == ("#0072B2", "--")
    assert len(set(styles)) == 32


# Ellipses


@pytest.mark.parametrize("mass", [0.5, 0.95])
def test_an_ellipse_lies_at_its_mahalanobis_radius(mass: float) -> None:
    model = two_components()
    for mean, covariance in zip(
        model.means.detach().numpy(), model.covariances.detach().numpy(), strict=True
    ):
        offsets = plot.ellipse(torch.tensor(mean), torch.tensor(covariance), mass) - mean
        squared = np.einsum("nd,de,ne->n", offsets, np.linalg.inv(covariance), offsets)
        np.testing.assert_allclose(squared, -2 * np.log(1 - mass), rtol=1e-12)


@pytest.mark.parametrize("mass", [0.5, 0.95])
def test_an_ellipse_holds_its_mass_of_a_large_sample(mass: float) -> None:
    covariance = torch.tensor([[1.0, 0.9], [0.9, 1.2]], dtype=torch.float64)
    mean = torch.tensor([3.0, -1.0], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(100_000, 2, dtype=torch.float64, generator=generator)
    x = mean + normal @ torch.linalg.cholesky(covariance).mT
    path = matplotlib.path.Path(plot.ellipse(mean, covariance, mass), closed=False)
    share = path.contains_points(x.numpy()).mean()
    # Four standard errors, and the sliver between the polygon and the curve.
    assert abs(share - mass) < 4 * (mass * (1 - mass) / 100_000) ** 0.5 + 5e-4


def test_ellipses_draws_each_component_in_its_color_at_each_mass() -> None:
    model = two_components()
    ax = plot.ellipses(model, mass=(0.5, 0.95))
    drawn = outlines(ax)
    assert [to_hex(p.get_edgecolor()).upper() for p in drawn] == [
        plot.PALETTE[0],
        plot.PALETTE[0],
        plot.PALETTE[1],
        plot.PALETTE[1],
    ]
    expected = plot.ellipse(model.means[0], model.covariances[0], 0.95)
    np.testing.assert_allclose(drawn[0].get_xy()[:-1], expected)
    assert [tuple(np.ravel(line.get_xydata())) for line in read(ax).lines] == [
        (-2.0, 0.0),
        (2.0, 1.0),
    ]
    low, high = ax.get_xlim()
    assert low < expected[:, 0].min()
    assert high > plot.ellipse(model.means[1], model.covariances[1], 0.95)[:, 0].max()


def test_ellipses_takes_models_snapshots_and_tensors() -> None:
    model = two_components()
    tensors = (model.weights, model.means, model.covariances)
    snapshot = SimpleNamespace(weights=tensors[0], means=tensors[1], covariances=tensors[2])
    drawn = [outlines(plot.ellipses(given)) for given in (model, tensors, snapshot)]  # type: ignore[arg-type]
    for other in drawn[1:]:
        for one, same in zip(drawn[0], other, strict=True):
            np.testing.assert_array_equal(one.get_xy(), same.get_xy())


def test_a_flat_covariance_gives_a_segment() -> None:
    flat = torch.tensor([[1.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    vertices = plot.ellipse(torch.zeros(2), flat, 0.5)
    assert np.isfinite(vertices).all()
    np.testing.assert_allclose(vertices[:, 0], vertices[:, 1], atol=1e-7)


@pytest.mark.parametrize("mass", [0.0, 1.0, -0.5, 95.0, float("nan")])
def test_a_mass_that_is_no_share_is_refused(mass: float) -> None:
    with pytest.raises(ValueError, match="mass must lie strictly between 0 and 1"):
        plot.ellipse_radius(mass)


# Points and contours


def test_scatter_draws_data_in_gray() -> None:
    x = load_old_faithful()
    points = read(plot.scatter(x)).collections[0]
    np.testing.assert_allclose(points.get_offsets(), x.numpy())
    assert {to_hex(c) for c in points.get_facecolor()} == {plot.GRAY}


def test_scatter_colors_points_by_label_and_by_responsibility() -> None:
    x = torch.zeros(3, 2)
    by_label = read(plot.scatter(x, labels=torch.tensor([0, 1, 9]))).collections[0].get_facecolor()
    assert [to_hex(c).upper() for c in by_label] == [
        plot.PALETTE[0],
        plot.PALETTE[1],
        plot.PALETTE[1],
    ]
    shares = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.25, 0.75]])
    mixed = read(plot.scatter(x, responsibilities=shares)).collections[0].get_facecolor()
    first, second = np.array(to_rgb(plot.PALETTE[0])), np.array(to_rgb(plot.PALETTE[1]))
    np.testing.assert_allclose(mixed[:, :3], [first, second, 0.25 * first + 0.75 * second])


def test_dense_scatter_is_an_image_inside_the_vector_figure() -> None:
    assert read(plot.scatter(torch.zeros(5_001, 2))).collections[0].get_rasterized()
    assert not read(plot.scatter(torch.zeros(272, 2))).collections[0].get_rasterized()


def test_contours_lie_at_their_levels() -> None:
    model = two_components()
    levels = [-6.0, -4.0, -3.0]
    ax = plot.contours(model, levels=levels, resolution=300)
    lines = read(ax).collections[0]
    np.testing.assert_array_equal(lines.levels, levels)
    for level, path in zip(levels, lines.get_paths(), strict=True):
        with torch.no_grad():
            heights = model.log_prob(torch.as_tensor(path.vertices, dtype=torch.float64))
        assert len(heights) > 50
        np.testing.assert_allclose(heights, level, atol=0.02)


def test_contours_keep_the_limits_of_drawn_data_and_else_hold_the_model() -> None:
    ax = plot.scatter(torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))
    before = (*ax.get_xlim(), *ax.get_ylim())
    plot.contours(two_components(), ax)
    assert (*ax.get_xlim(), *ax.get_ylim()) == before
    alone = plot.contours(two_components())
    assert alone.get_xlim() == pytest.approx((-5.0, 2.0 + 3 * 0.5**0.5))


def test_contours_draw_the_number_of_lines_asked_for() -> None:
    lines = read(plot.contours(two_components(), levels=5)).collections[0]
    assert len(lines.levels) == 5
    assert all(len(path.vertices) for path in lines.get_paths())


# One dimension and curves


def test_density_1d_draws_the_mixture_its_components_and_the_data() -> None:
    model, x = line_model(), torch.tensor([[0.0], [1.0], [4.9], [5.0], [5.1]])
    ax = plot.density_1d(model, x, bins=10)
    assert sum(bar.get_height() * bar.get_width() for bar in read(ax).patches) == pytest.approx(1.0)
    marks, total, *parts = read(ax).lines
    np.testing.assert_allclose(marks.get_xdata(), x[:, 0])
    grid, heights = total.get_xdata(), total.get_ydata()
    with torch.no_grad():
        expected = model.log_prob(torch.as_tensor(grid)[:, None]).exp()
    np.testing.assert_allclose(heights, expected)
    np.testing.assert_allclose(sum(part.get_ydata() for part in parts), heights, atol=1e-12)
    area = torch.trapezoid(torch.as_tensor(heights), torch.as_tensor(grid))
    assert float(area) == pytest.approx(1.0, abs=2e-3)
    peaks = [0.25, 0.75 / 0.2]
    for k, part in enumerate(parts):
        assert part.get_color() == plot.PALETTE[k]
        assert part.get_ydata().max() == pytest.approx(peaks[k] / (2 * np.pi) ** 0.5, rel=1e-6)


def test_a_narrow_component_is_not_stepped_over() -> None:
    model = line_model().set_parameters(
        covariances=torch.tensor([[[1.0]], [[1e-8]]], dtype=torch.float64)
    )
    top = read(plot.density_1d(model)).lines[0].get_ydata().max()
    assert top == pytest.approx(0.75 / (1e-4 * (2 * np.pi) ** 0.5), rel=1e-3)


def fake_result(history: list[float], elapsed: list[float]) -> Any:
    return SimpleNamespace(
        history=torch.tensor(history, dtype=torch.float64),
        elapsed=torch.tensor(elapsed, dtype=torch.float64),
    )


def test_nll_curves_are_the_histories() -> None:
    results = {
        "EM": fake_result([5.0, 4.2, 4.1], [0.0, 0.01, 0.02]),
        "descent": fake_result([5.0, 4.8, 4.5, 4.3], [0.0, 0.005, 0.01, 0.015]),
    }
    ax = plot.nll_curves(results, reference=4.0)
    em, descent, level = read(ax).lines
    np.testing.assert_array_equal(em.get_xydata(), [[0, 5.0], [1, 4.2], [2, 4.1]])
    np.testing.assert_array_equal(descent.get_xdata(), [0, 1, 2, 3])
    assert em.get_color() != descent.get_color()
    assert em.get_linestyle() != descent.get_linestyle()
    assert list(level.get_ydata()) == [4.0, 4.0]
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["EM", "descent", "reference"]
    assert (ax.get_xlabel(), ax.get_xscale()) == ("iteration", "symlog")

    ax = plot.nll_curves(results, against="seconds", log=False)
    np.testing.assert_array_equal(read(ax).lines[1].get_xdata(), [0.0, 0.005, 0.01, 0.015])
    assert (ax.get_xlabel(), ax.get_xscale()) == ("seconds", "linear")


def test_nll_curves_against_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="against must be 'iterations' or 'seconds', got 'epochs'"):
        plot.nll_curves({}, against="epochs")  # type: ignore[arg-type]


# Whole figures


def test_fit_figure_shows_data_contours_and_both_sets_of_ellipses() -> None:
    model = two_components()
    truth = two_components().set_parameters(means=model.means.detach() + 0.5)
    x = truth.sample(200, generator=torch.Generator().manual_seed(0))
    figure = plot.fit_figure(x, model, truth=truth)
    (ax,) = figure.axes
    colors = [to_hex(p.get_edgecolor()).upper() for p in outlines(ax)]
    assert colors[:4] == [plot.PALETTE[0]] * 2 + [plot.PALETTE[1]] * 2
    assert colors[4:] == [plot.GRAY] * 4
    assert {p.get_linestyle() for p in outlines(ax)[4:]} == {"--"}
    np.testing.assert_allclose(
        outlines(ax)[4].get_xy()[:-1], plot.ellipse(truth.means[0], truth.covariances[0], 0.95)
    )
    assert len(ax.collections) == 2  # points and contours
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["data", "log density", "fit, 50% and 95%", "truth"]


def test_fit_figure_of_one_and_of_three_dimensions() -> None:
    x = load_galaxies()
    figure = plot.fit_figure(x, line_model(), truth=line_model())
    legend = figure.axes[0].get_legend()
    assert legend is not None
    names = {text.get_text() for text in legend.get_texts()}
    assert {"data", "fit", "truth", "component 1", "component 2"} == names

    model = GmmFull(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = model.sample(50, generator=torch.Generator().manual_seed(1))
    (ax,) = plot.fit_figure(x, model).axes
    np.testing.assert_allclose(read(ax).collections[0].get_offsets(), x[:, :2].numpy())
    expected = plot.ellipse(model.means[0, :2], model.covariances[0, :2, :2], 0.95)
    np.testing.assert_allclose(outlines(ax)[0].get_xy()[:-1], expected)


def test_functions_draw_on_the_axes_they_are_given() -> None:
    _, ax = plt.subplots()
    model = two_components()
    assert plot.scatter(torch.zeros(3, 2), ax) is ax
    assert plot.ellipses(model, ax) is ax
    assert plot.contours(model, ax) is ax
    assert len(plt.get_fignums()) == 1
    _, other = plt.subplots()
    assert plot.density_1d(line_model(), None, other) is other
    assert len(plt.get_fignums()) == 2


def test_contours_are_drawn_within_limits() -> None:
    ax = plot.contours(two_components(), limits=(-1.0, 2.0, 0.5, 3.0))
    assert (*ax.get_xlim(), *ax.get_ylim()) == (-1.0, 2.0, 0.5, 3.0)
    corners = np.concatenate([path.vertices for path in ax.collections[0].get_paths()])
    assert corners[:, 0].min() >= -1 and corners[:, 0].max() <= 2
    assert corners[:, 1].min() >= 0.5 and corners[:, 1].max() <= 3


def test_a_curve_has_a_gap_where_there_is_no_value() -> None:
    values = {"full": {1: 5.0, 2: float("nan"), 3: 4.0}}
    (line,) = plot.criterion_curves(values, "bic").get_lines()
    assert list(line.get_xdata()) == [1, 2, 3]
    assert np.isnan(line.get_ydata()).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plot.scatter(torch.zeros(4, 3)), r"x must have shape \(N, 2\), got \(4, 3\)"),
        (
            lambda: plot.scatter(torch.zeros(4, 2), labels=torch.zeros(3)),
            r"labels must have shape \(4,\), got \(3,\)",
        ),
        (
            lambda: plot.scatter(torch.zeros(4, 2), responsibilities=torch.zeros(4)),
            r"responsibilities must have shape \(4, K\), got \(4,\)",
        ),
        (
            lambda: plot.scatter(
                torch.zeros(4, 2), labels=torch.zeros(4), responsibilities=torch.zeros(4, 1)
            ),
            "labels or responsibilities, not both",
        ),
        (lambda: plot.ellipses(line_model()), "ellipses need a mixture in 2 dimensions, got 1"),
        (lambda: plot.contours(line_model()), "contours need a mixture in 2 dimensions, got 1"),
        (
            lambda: plot.density_1d(two_components()),
            "density_1d needs a mixture in 1 dimension, got 2",
        ),
        (
            lambda: plot.density_1d(line_model(), torch.zeros(4)),
            r"x must have shape \(N, 1\), got \(4,\)",
        ),
        (
            lambda: plot.fit_figure(torch.zeros(4, 2), GmmFull(2, 2, batch_shape=(3,))),
            r"a batch of them, \(3,\)",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(call: Any, message: str) -> None:
    """And no figure is left behind."""
    before = plt.get_fignums()
    with pytest.raises(ValueError, match=message):
        call()
    assert plt.get_fignums() == before


def test_the_same_figure_is_the_same_svg_with_a_transparent_page() -> None:
    def svg() -> bytes:
        file = io.BytesIO()
        figure = plot.fit_figure(load_old_faithful()[:40], two_components())
        figure.savefig(file, format="svg", metadata={"Date": None})
        return file.getvalue()

    first = svg()
    assert first == svg()
    assert b"<text" not in first  # letters are outlines: no font is asked of the reader
    assert b"#ffffff" not in first
