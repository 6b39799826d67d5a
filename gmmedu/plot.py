"""Figures: data in gray, components in one palette, ellipses at a stated mass.

A function that takes an Axes draws on it, makes one when given none, and returns it; `fit_figure`
returns a figure of its own. Component k has the same color in every figure, and every color, the
gray of text and axes included, reads on a white page and on a dark one, so figures are drawn with a
transparent background.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeAlias, TypeVar

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon
from numpy.typing import NDArray
from torch import Tensor

_P = ParamSpec("_P")
_R = TypeVar("_R")

if TYPE_CHECKING:
    from gmmedu.fitting import FitResult, Snapshot
    from gmmedu.models import GaussianMixture

    Components: TypeAlias = GaussianMixture | Snapshot | tuple[Tensor, Tensor, Tensor]

#: Color of component k. The first six are those of Okabe and Ito (2008) that read on light and on
#: dark; their yellow and black do not, and a violet and a brown stand in.
PALETTE = (
    "#0072B2",  # blue
    "#D55E00",  # vermilion
    "#009E73",  # bluish green
    "#CC79A7",  # reddish purple
    "#E69F00",  # orange
    "#56B4E9",  # sky blue
    "#9030D8",  # violet
    "#904830",  # brown
)
# A curve over time is no component: curves take the colors that the fewest components have.
_CURVES = tuple(PALETTE[k] for k in (6, 3, 7, 4, 5, 2, 1, 0))
#: Line style of component k, one for each round through the palette.
LINE_STYLES = ("-", "--", ":", "-.")
#: Gray of the data, and of text and axes: contrast 4.3 on white and on the dark page (#121212).
GRAY = "#797979"

STYLE: dict[str, Any] = {
    "figure.figsize": (4.7, 3.6),
    "figure.dpi": 100,
    "figure.facecolor": "none",
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "auto",
    "savefig.dpi": 150,
    "axes.facecolor": "none",
    "axes.edgecolor": GRAY,
    "axes.labelcolor": GRAY,
    "axes.titlecolor": GRAY,
    "axes.titlesize": 13,
    "axes.labelsize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "axes.prop_cycle": mpl.cycler(color=PALETTE),
    "text.color": GRAY,
    "xtick.color": GRAY,
    "ytick.color": GRAY,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "font.size": 12,
    "legend.fontsize": 11,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "contour.negative_linestyle": "solid",
    "svg.fonttype": "path",
    # Without it the same figure is another file each time.
    "svg.hashsalt": "gmmedu",
}

# Points; more of them as vectors make a page slow to scroll.
_RASTERIZE_ABOVE = 5_000
_ELLIPSE_VERTICES = 120


def use_style() -> None:
    """Draw every figure from here on in the style of the book."""
    # Its types name every key, and change with the version.
    settings: Any = mpl.rcParams
    settings.update(STYLE)


def component_color(component: int) -> str:
    """The color of component k, counted from 0."""
    return PALETTE[component % len(PALETTE)]


def component_line_style(component: int) -> str:
    """The line style of component k: solid for the first eight, then dashed, dotted, dash-dot."""
    return LINE_STYLES[component // len(PALETTE) % len(LINE_STYLES)]


def _or_no_figure(draw: Callable[_P, _R]) -> Callable[_P, _R]:
    """Leave no figure of one's own behind where something cannot be drawn."""

    @wraps(draw)
    def drawn(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        before = plt.get_fignums()
        try:
            return draw(*args, **kwargs)
        except BaseException:
            for number in set(plt.get_fignums()).difference(before):
                plt.close(number)
            raise

    return drawn


@_or_no_figure
def scatter(
    x: Tensor,
    ax: Axes | None = None,
    *,
    labels: Tensor | None = None,
    responsibilities: Tensor | None = None,
    size: float = 14.0,
    alpha: float = 0.6,
    label: str | None = None,
) -> Axes:
    """The points x (N, 2): gray, or in the colors of their components.

    labels: (N,), integers; each point takes the color of its component. responsibilities: (N, K);
    each point takes the mixture of the components' colors in those shares. size: in square points;
    alpha: opacity; label: in a legend. Raises ``ValueError`` for other shapes.
    """
    ax = _axes(ax)
    points = _numpy(x)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(
            f"x must have shape (N, 2), got {tuple(points.shape)}; "
            "choose two columns, for example x[:, :2]"
        )
    if labels is not None and responsibilities is not None:
        raise ValueError("give labels or responsibilities, not both")
    colors: str | NDArray[np.float64] = GRAY
    if labels is not None:
        if tuple(labels.shape) != (len(points),):
            raise ValueError(f"labels must have shape ({len(points)},), got {tuple(labels.shape)}")
        colors = np.array([to_rgb(component_color(int(k))) for k in labels.tolist()])
    elif responsibilities is not None:
        shares = _numpy(responsibilities)
        if shares.ndim != 2 or len(shares) != len(points):
            raise ValueError(
                f"responsibilities must have shape ({len(points)}, K), got {tuple(shares.shape)}"
            )
        palette = np.array([to_rgb(component_color(k)) for k in range(shares.shape[1])])
        colors = np.clip(shares @ palette, 0.0, 1.0)
    ax.scatter(
        points[:, 0],
        points[:, 1],
        s=size,
        c=colors,
        alpha=alpha,
        linewidths=0,
        label=label,
        rasterized=len(points) > _RASTERIZE_ABOVE,
        zorder=1,
    )
    return ax


def ellipse_radius(mass: float) -> float:
    """The Mahalanobis radius that holds ``mass`` of a Gaussian in the plane.

    Its square is the quantile of a chi-square with two degrees of freedom, -2 log(1 - mass)
    (eq-ellipse-mass). Raises ValueError unless 0 < mass < 1.
    """
    if not 0 < mass < 1:
        raise ValueError(f"mass must lie strictly between 0 and 1, got {mass!r}")
    return math.sqrt(-2 * math.log1p(-mass))


def ellipse(mean: Tensor, covariance: Tensor, mass: float) -> NDArray[np.float64]:
    """Vertices, (120, 2), of the ellipse that holds ``mass`` of the Gaussian.

    Its axes are the eigenvectors of the covariance (eq-principal-axes). mean: (2,); covariance:
    (2, 2). A covariance without width in some direction gives a segment.
    """
    variances, axes = np.linalg.eigh(_numpy(covariance))
    deviations = np.sqrt(np.clip(variances, 0.0, None))
    angles = np.linspace(0.0, 2 * np.pi, _ELLIPSE_VERTICES, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return _numpy(mean) + ellipse_radius(mass) * (circle * deviations) @ axes.T


@_or_no_figure
def ellipses(
    components: Components,
    ax: Axes | None = None,
    *,
    mass: Sequence[float] = (0.5, 0.95),
    color: str | None = None,
    line_style: str | None = None,
    fill: bool = True,
    means: bool = True,
) -> Axes:
    """The ellipses that hold each stated ``mass`` of each component, and a cross at its mean.

    components: a two-dimensional mixture, a snapshot of one, or (weights (K,), means (K, 2),
    covariances (K, 2, 2)). Component k has the color and the line style of the palette unless
    ``color`` and ``line_style`` name one for all. fill: whether ellipses are shaded; means: whether
    the crosses are drawn. Raises ``ValueError`` for other dimensions or a mass outside (0, 1).
    """
    ax = _axes(ax)
    _, centers, covariances = _parameters(components)
    if centers.shape[1] != 2:
        raise ValueError(
            f"ellipses need a mixture in 2 dimensions, got {centers.shape[1]}; "
            "take a marginal first, for example model.marginal([0, 1])"
        )
    for k, (center, covariance) in enumerate(zip(centers, covariances, strict=True)):
        hue = color or component_color(k)
        style = line_style or component_line_style(k)
        for share in sorted(mass, reverse=True):
            vertices = ellipse(center, covariance, share)
            # As add_patch does, which takes long to find the limits of a polygon.
            ax.update_datalim(vertices)
            if fill:
                ax.add_artist(Polygon(vertices, facecolor=hue, alpha=0.12, linewidth=0, zorder=2))
            ax.add_artist(
                Polygon(
                    vertices,
                    facecolor="none",
                    edgecolor=hue,
                    linestyle=style,
                    linewidth=1.8,
                    zorder=3,
                )
            )
        if means:
            x, y = center.tolist()
            ax.plot(x, y, marker="+", color=hue, markersize=9, markeredgewidth=1.8, zorder=4)
    ax.autoscale_view()
    return ax


@_or_no_figure
def contours(
    model: GaussianMixture,
    ax: Axes | None = None,
    *,
    levels: int | Sequence[float] = 8,
    limits: tuple[float, float, float, float] | None = None,
    resolution: int = 160,
    color: str = GRAY,
) -> Axes:
    """Lines of equal log density of a two-dimensional mixture.

    levels: log densities, in nats, or a number of them, evenly spaced over the 10 nats below the
    highest density seen. limits: (x low, x high, y low, y high); by default the limits of the
    Axes, or, when they are still empty, three standard deviations around every component.
    resolution: points of the grid along each axis. Raises ``ValueError`` for other dimensions.
    """
    ax = _axes(ax)
    num_dims = _parameters(model)[1].shape[1]
    if num_dims != 2:
        raise ValueError(
            f"contours need a mixture in 2 dimensions, got {num_dims}; "
            "take a marginal first, for example model.marginal([0, 1])"
        )
    if limits is None:
        limits = (*ax.get_xlim(), *ax.get_ylim()) if ax.has_data() else _extent(model)
    low_x, high_x, low_y, high_y = limits
    xs, ys = (np.linspace(low_x, high_x, resolution), np.linspace(low_y, high_y, resolution))
    grid = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
    heights = _log_density(model, grid).reshape(resolution, resolution)
    if isinstance(levels, int):
        levels = np.linspace(heights.max() - 10, heights.max(), levels + 1)[:-1].tolist()
    ax.contour(
        xs, ys, heights, levels=levels, colors=[color], linewidths=0.8, alpha=0.7, zorder=1.5
    )
    ax.set_xlim(low_x, high_x)
    ax.set_ylim(low_y, high_y)
    return ax


@_or_no_figure
def density_1d(
    model: GaussianMixture,
    x: Tensor | None = None,
    ax: Axes | None = None,
    *,
    bins: int = 30,
    components: bool = True,
    color: str = GRAY,
    line_style: str = "-",
    label: str | None = "mixture",
) -> Axes:
    """A one-dimensional mixture: its density, its weighted components, and the data.

    x: (N, 1) or None; drawn as a histogram of unit area in so many ``bins`` and a mark at each
    point. components: whether each one's share is drawn; color, line_style and label: of the
    mixture's density. Raises ``ValueError`` for other dimensions.
    """
    ax = _axes(ax)
    weights, means, covariances = _parameters(model)
    if means.shape[1] != 1:
        raise ValueError(
            f"density_1d needs a mixture in 1 dimension, got {means.shape[1]}; "
            "take a marginal first, for example model.marginal([0])"
        )
    means, deviations = means[:, 0], np.sqrt(covariances[:, 0, 0])
    low, high = ((means - 4 * deviations).min(), (means + 4 * deviations).max())
    if x is not None:
        values = _numpy(x)
        if values.ndim != 2 or values.shape[1] != 1:
            raise ValueError(f"x must have shape (N, 1), got {tuple(values.shape)}")
        values = values[:, 0]
        ax.hist(values, bins=bins, density=True, color=GRAY, alpha=0.25, label="data")
        # Marks along the axis: their height is a share of the figure, not a density.
        ax.plot(
            values,
            np.full_like(values, 0.01),
            "|",
            color=GRAY,
            alpha=0.6,
            markersize=8,
            transform=ax.get_xaxis_transform(),
        )
        margin = 0.05 * (values.max() - values.min())
        low, high = (min(low, values.min() - margin), max(high, values.max() + margin))
    # A narrow component needs points of its own, or an even grid steps over its peak.
    around = (means[:, None] + deviations[:, None] * np.linspace(-4, 4, 81)).ravel()
    grid = np.unique(np.concatenate([np.linspace(low, high, 400), around]))
    ax.plot(
        grid,
        np.exp(_log_density(model, grid[:, None])),
        color=color,
        linestyle=line_style,
        # Seen beside the component that makes most of it.
        linewidth=4 if components else None,
        alpha=0.6 if components else None,
        label=label,
    )
    if components:
        for k, (weight, mean, deviation) in enumerate(zip(weights, means, deviations, strict=True)):
            whitened = (grid - mean) / deviation
            curve = weight * np.exp(-0.5 * whitened**2) / (deviation * math.sqrt(2 * math.pi))
            ax.plot(
                grid,
                curve,
                color=component_color(k),
                linestyle=component_line_style(k),
                label=f"component {k + 1}",
            )
    ax.set_ylabel("density")
    ax.set_ylim(bottom=0)
    return ax


@_or_no_figure
def nll_curves(
    results: Mapping[str, FitResult],
    ax: Axes | None = None,
    *,
    against: Literal["iterations", "seconds"] = "iterations",
    log: bool = True,
    reference: float | None = None,
) -> Axes:
    """The mean NLL of each fit, by name, after each iteration or second.

    log: a logarithmic axis of time that is linear up to its first step, so that the start is seen
    too. reference: an NLL to draw as a level, say that of the best optimum known. Raises
    ``ValueError`` where ``against`` is another word.
    """
    if against not in ("iterations", "seconds"):
        raise ValueError(f"against must be 'iterations' or 'seconds', got {against!r}")
    ax = _axes(ax)
    first_steps = []
    for position, (name, result) in enumerate(results.items()):
        history = _numpy(result.history)
        times = (
            np.arange(len(history), dtype=np.float64)
            if against == "iterations"
            else _numpy(result.elapsed)
        )
        first_steps += times[times > 0][:1].tolist()
        ax.plot(
            times,
            history,
            color=_CURVES[position % len(_CURVES)],
            linestyle=LINE_STYLES[position % len(LINE_STYLES)],
            label=name,
        )
    if reference is not None:
        ax.axhline(reference, color=GRAY, linestyle=":", linewidth=1.2, label="reference")
    if log and first_steps:
        ax.set_xscale("symlog", linthresh=min(first_steps))
    ax.set_xlim(left=0)
    ax.set_xlabel("iteration" if against == "iterations" else "seconds")
    ax.set_ylabel("mean NLL (nats per point)")
    ax.legend()
    return ax


@_or_no_figure
def criterion_curves(
    values: Mapping[str, Mapping[int, float]],
    criterion: str,
    *,
    best: tuple[str, int] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """A criterion against the number of components, a line for each family; NaN leaves a gap.

    values: by family and number of components, as ``Selection.values`` has them; best: the one to
    mark.
    """
    ax = _axes(ax)
    for line, (family, curve) in enumerate(values.items()):
        color = _CURVES[line % len(_CURVES)]
        label = family.replace("_", " ")
        ax.plot(list(curve), list(curve.values()), ".-", color=color, label=label)
    if best is not None:
        family, count = best
        ax.plot(count, values[family][count], "o", ms=11, mfc="none", mec=GRAY)
    ax.set_xlabel("number of components K")
    names = {"held_out": "held-out mean NLL (nats per point)", "log_likelihood": "log likelihood"}
    ax.set_ylabel(names.get(criterion, criterion.upper()))
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend()
    return ax


@_or_no_figure
def fit_figure(
    x: Tensor,
    model: GaussianMixture,
    *,
    truth: GaussianMixture | None = None,
    mass: Sequence[float] = (0.5, 0.95),
    axis_labels: tuple[str, str] = ("$x_1$", "$x_2$"),
) -> Figure:
    """One look at a fit: the data, the fitted density, its components and, where known, the truth.

    In two dimensions: contours and ellipses, fitted in color and true in dashed gray. In one: the
    densities. In more: the first two dimensions, of which the marginals are mixtures again.

    x: (N, D); mass: of the ellipses; axis_labels: of the two axes, or the first. Raises
    ``ValueError`` for other shapes.
    """
    figure, ax = plt.subplots()
    if model.num_dims == 1:
        density_1d(model, x, ax, label="fit")
        if truth is not None:
            density_1d(truth, None, ax, components=False, line_style="--", label="truth")
        ax.set_xlabel(axis_labels[0])
        ax.legend()
        return figure
    if model.num_dims > 2:
        x, model = x[:, :2], model.marginal([0, 1])
        truth = None if truth is None else truth.marginal([0, 1])
    scatter(x, ax)
    ellipses(model, ax, mass=mass)
    if truth is not None:
        ellipses(truth, ax, mass=mass, color=GRAY, line_style="--", fill=False, means=False)
    contours(model, ax)
    ax.set_xlabel(axis_labels[0])
    ax.set_ylabel(axis_labels[1])
    percentages = " and ".join(f"{100 * share:g}%" for share in mass)
    handles = [
        Line2D([], [], marker="o", linestyle="", color=GRAY, alpha=0.6, markersize=4),
        Line2D([], [], color=GRAY, linewidth=0.8, alpha=0.7),
        Line2D([], [], color=component_color(0)),
    ]
    names = ["data", "log density", f"fit, {percentages}"]
    if truth is not None:
        handles.append(Line2D([], [], color=GRAY, linestyle="--"))
        names.append("truth")
    figure.legend(handles, names, loc="outside upper center", ncols=len(names))
    return figure


def _axes(ax: Axes | None) -> Axes:
    return plt.subplots()[1] if ax is None else ax


def _numpy(values: Tensor | NDArray[Any]) -> NDArray[np.float64]:
    """Detached, on the CPU, float64: what matplotlib draws."""
    if isinstance(values, Tensor):
        return values.detach().cpu().to(torch.float64).numpy()
    return np.asarray(values, dtype=np.float64)


def _parameters(
    components: Components,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """weights (K,), means (K, D), covariances (K, D, D)."""
    if isinstance(components, tuple):
        weights, means, covariances = components
    else:
        weights, means, covariances = (components.weights, components.means, components.covariances)
    if weights.ndim != 1:
        raise ValueError(
            f"a plot shows one mixture, got a batch of them, {tuple(weights.shape[:-1])}; "
            "take one, for example model[0]"
        )
    return _numpy(weights), _numpy(means), _numpy(covariances)


def _extent(model: GaussianMixture) -> tuple[float, float, float, float]:
    """Three standard deviations around every component: (x low, x high, y low, y high)."""
    _, means, covariances = _parameters(model)
    reach = 3 * np.sqrt(np.diagonal(covariances, axis1=1, axis2=2))
    low, high = (means - reach).min(0), (means + reach).max(0)
    return float(low[0]), float(high[0]), float(low[1]), float(high[1])


def _log_density(model: GaussianMixture, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """log p of points (M, D), on the model's device: (M,)."""
    with torch.no_grad():
        grid = torch.from_numpy(points).to(model.means)
        return _numpy(model.log_prob(grid))
