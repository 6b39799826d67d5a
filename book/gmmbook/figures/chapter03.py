"""Figures of chapter 03, the objective."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from gmmedu import plot
from gmmedu.models import GaussianMixture

#: A point of the landscape: the two means, f there.
Place = tuple[Tensor, Tensor]

# The curves' colors, not components': none that is dim on a dark page.
_HUES = (plot.PALETTE[2], plot.PALETTE[3], plot.PALETTE[4])


def two_models(x: Tensor, own: GaussianMixture, other: GaussianMixture) -> Axes:
    """Two mixtures over the points x (N, 2): one in solid ellipses, the other in dashed ones."""
    figure, ax = plt.subplots(figsize=(4.7, 4.3))
    plot.scatter(x, ax)
    plot.ellipses(own, ax, fill=False, line_style="-")
    plot.ellipses(other, ax, fill=False, line_style="--", means=False)
    handles = [
        Line2D([], [], color=plot.GRAY, linestyle="-", label="yours"),
        Line2D([], [], color=plot.GRAY, linestyle="--", label="your friend's"),
    ]
    ax.legend(handles=handles, loc="lower right")
    ax.set(xlabel="eruption (min)", ylabel="wait (min)")
    return ax


def lead(leads: Tensor, own: float, ahead: Tensor) -> Figure:
    """Leads that chance gave (B,) beside ``own``; the lead on each point left out, (N,)."""
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(4.7, 5.6))
    by_chance, num_points = _numpy(leads), len(ahead)
    edges = np.linspace(0, 1.1 * own, 34)
    top.hist(by_chance, edges, density=True, color=plot.GRAY, alpha=0.35)
    grid = np.linspace(edges[1] / 4, edges[-1], 300)
    curve = 2 * num_points * stats.chi2.pdf(2 * num_points * grid, 3)
    top.plot(grid, curve, color=_HUES[1], label="chi-square, 3 degrees of freedom")
    top.axvline(own, color=_HUES[0], linewidth=3, label="yours")
    top.set(xlabel="lead on the points of the fit (nats)", xlim=(0, edges[-1]), yticks=[])
    top.legend(loc="upper center")
    values = _numpy(ahead)
    bottom.hist(values, np.linspace(-0.75, 0.75, 31), color=plot.GRAY, alpha=0.35)
    bottom.axvline(0, color=plot.GRAY, linestyle=":", linewidth=1.4)
    error = 1.96 * values.std(ddof=1) / np.sqrt(num_points)
    height = 0.6 * bottom.get_ylim()[1]
    bottom.errorbar(
        values.mean(), height, xerr=error, fmt="o", color=_HUES[0], capsize=5, linewidth=3
    )
    bottom.set(xlabel="lead on an eruption left out (nats)", ylabel="eruptions", xlim=(-0.75, 0.75))
    return figure


def running_product(products: Mapping[str, Tensor], log10_exact: Tensor) -> Figure:
    """Products of the first n densities, (N,) for each dtype, and the exact logarithm."""
    figure, ax = plt.subplots(figsize=(4.7, 3.8))
    exact = _numpy(log10_exact)
    count = np.arange(1, len(exact) + 1)
    ax.plot(count, exact, color=plot.GRAY, linestyle="--", label="exact", zorder=4)
    for hue, (name, product) in zip(_HUES[1::-1], products.items(), strict=True):
        values = _numpy(product)
        alive = values > 0
        ax.plot(
            count[alive],
            np.log10(values[alive]),
            color=hue,
            # The float32 line, the short one, is drawn first and shows beside the other.
            linewidth=9 if name == "float32" else 4,
            alpha=0.6,
        )
        last = int(count[alive][-1])
        height = float(np.log10(values[last - 1]))
        ax.plot(last, height, "o", color=hue)
        ax.annotate(
            f"{name}: 0 from here on", (last, height), (9, 4), textcoords="offset points", color=hue
        )
    ax.set(xlabel="number of eruptions", ylabel="product of densities", xlim=(0, len(exact) + 5))
    ticks = np.arange(-500, 1, 100)
    ax.set_yticks(ticks, [f"$10^{{{tick}}}$" for tick in ticks])
    ax.legend(loc="lower left")
    return figure


def scores(log_densities: Mapping[str, Tensor], limits: Mapping[str, float]) -> Figure:
    """Running mean NLL of each model on each run, (runs, N), with its limit and error band."""
    figure, ax = plt.subplots(figsize=(4.7, 3.9))
    for hue, (name, values) in zip(_HUES, log_densities.items(), strict=True):
        log_p = _numpy(values)
        count = np.arange(1, log_p.shape[1] + 1)
        running = -np.cumsum(log_p, axis=1) / count
        shown = np.unique(np.geomspace(10, len(count), 300).astype(int)) - 1
        error = 1.96 * log_p.std() / np.sqrt(count[shown])
        limit = limits[name]
        ax.fill_between(
            count[shown], limit - error, limit + error, color=hue, alpha=0.15, linewidth=0
        )
        ax.plot(count[shown], running[:, shown].T, color=hue, linewidth=1, alpha=0.8)
        ax.axhline(limit, color=hue, linestyle=":", linewidth=1.4)
        highest = limit == max(limits.values())
        ax.annotate(
            name,
            (1, limit),
            (-2, 6 if highest else -15),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            color=hue,
        )
    ax.set_xscale("log")
    ax.set(xlabel="number of points", ylabel="mean NLL (nats per point)", xlim=(10, len(count)))
    return figure


def units(minutes: Tensor, density: Tensor, wait: Tensor) -> Figure:
    """The density of the waits (M,), per minute and per hour, and the waits (N,) as marks."""
    figure, axes = plt.subplots(2, 1, figsize=(4.7, 4.9))
    hue = _HUES[0]
    for ax, unit, scale in zip(axes, ("minute", "hour"), (1.0, 60.0), strict=True):
        grid = _numpy(minutes).ravel() / scale
        height = _numpy(density) * scale
        ax.fill_between(grid, height, color=hue, alpha=0.15, linewidth=0)
        ax.plot(grid, height, color=hue)
        marks = _numpy(wait) / scale
        ax.plot(marks, np.zeros_like(marks), "|", color=plot.GRAY, alpha=0.5, markersize=9)
        ax.set(
            xlabel=f"wait ({unit}s)",
            ylabel=f"density (per {unit})",
            xlim=(grid[0], grid[-1]),
            ylim=(0, 1.12 * height.max()),
        )
    axes[1].axhline(1, color=plot.GRAY, linestyle=":")
    return figure


def log_sum_exp(lead: Tensor, smooth: Tensor, slope: Tensor) -> Figure:
    """The log-sum-exp of (lead, 0) between its bounds, and its derivative, (M,) each."""
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(4.7, 5.3), sharex=True, height_ratios=(3, 2)
    )
    a, corner = _numpy(lead), np.maximum(_numpy(lead), 0)
    top.fill_between(a, corner, corner + math.log(2), color=plot.GRAY, alpha=0.2, linewidth=0)
    top.plot(a, corner + math.log(2), color=plot.GRAY, linestyle="--", label="max + log 2")
    top.plot(a, _numpy(smooth), color=_HUES[0], label="log-sum-exp")
    top.plot(a, corner, color=plot.GRAY, linestyle=":", label="max")
    top.set(ylabel="value (nats)")
    top.legend(loc="upper left")
    bottom.plot(a, _numpy(slope), color=_HUES[1])
    bottom.set(xlabel="$a$ (nats)", ylabel="derivative", xlim=(a[0], a[-1]))
    bottom.set_yticks([0, 0.5, 1])
    return figure


def far_points(distance: Tensor, forms: Mapping[str, tuple[Tensor, Tensor]]) -> Figure:
    """Loss and pull of one point at each distance (M,), in each form of the logarithm."""
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(4.7, 5.5), sharex=True)
    d = _numpy(distance)
    styles = (("-", 1.8), ("--", 2.2), ("-", 5.0))
    order = (2.0, 3.0, 1.0)
    rows = zip(_HUES, styles, order, forms.items(), strict=True)
    for hue, (style, width), above, (name, (loss, pull)) in rows:
        for ax, values in ((top, _numpy(loss)), (bottom, np.abs(_numpy(pull)))):
            seen = np.isfinite(values)
            alpha = 0.5 if width > 4 else 1.0
            line = {"linestyle": style, "linewidth": width, "alpha": alpha, "zorder": above}
            ax.plot(d[seen], values[seen], color=hue, label=name, **line)
            if not seen.all():
                end = int(seen.nonzero()[0][-1])
                ax.plot(d[end], values[end], "x", color=hue, markersize=11, markeredgewidth=2.5)
    top.set_ylabel("loss (nats)")
    top.legend(loc="upper left")
    bottom.set(xlabel="distance (standard deviations)", ylabel="pull on the mean", xlim=(0, d[-1]))
    return figure


def landscape(
    axis: Tensor, values: Tensor, places: Sequence[Place], paths: Tensor, ridge: Tensor
) -> Figure:
    """The surface (M, M) over two means, paths (P, steps, 2) and the ridge.

    places: the lowest minimum, the other one, and the saddle.
    """
    figure, ax = plt.subplots(figsize=(4.7, 4.7))
    _surface(ax, axis, values)
    low, high = float(axis[0]), float(axis[-1])
    for piece in ridge:
        points = _numpy(piece)
        ax.plot(points[:, 0], points[:, 1], color="#ffffff", linestyle="--", linewidth=2)
    for path in paths:
        points = _numpy(path)
        ax.plot(points[:, 0], points[:, 1], color=_CHORD, linewidth=1.3)
        ax.plot(*points[0], "o", color=_CHORD, markersize=3.5)
    _mark(ax, places)
    ax.set(xlim=(low, high), ylim=(low, high))
    return figure


def unbounded(sds: Tensor, curves: Mapping[str, Tensor], good: Tensor) -> Figure:
    """The objective against the width of a component on one value; a good fit as a level."""
    figure, ax = plt.subplots(figsize=(4.7, 3.8))
    for hue, (name, values) in zip(_HUES, curves.items(), strict=False):
        ax.plot(_numpy(sds), _numpy(values), color=hue, label=name)
    ax.axhline(float(good), color=plot.GRAY, linestyle=":", label="the good mixture")
    ax.set_xscale("log")
    ax.set(xlabel="standard deviation (min)", ylabel="mean NLL (nats per point)")
    ax.set_xlim(float(sds[0]), float(sds[-1]))
    ax.legend(loc="lower left")
    return figure


_CHORD = plot.PALETTE[4]
#: Heights of the contours, in nats: closer where the surfaces are low.
_LEVELS = (
    *(3.8, 3.825, 3.85, 3.875, 3.9, 3.925, 3.95, 3.975, 4.0, 4.05, 4.1, 4.15, 4.2, 4.25, 4.3),
    *(4.4, 4.5, 4.6, 4.7, 4.85, 5.0, 5.2, 5.4, 5.7, 6.0, 6.5, 7.0, 7.5, 8.0),
)


def _surface(ax: Axes, axis: Tensor, values: Tensor) -> None:
    """Filled contours of f over the plane of two means, closer where it is low; low is dark."""
    grid, heights = _numpy(axis), _numpy(values).T
    norm = BoundaryNorm(_LEVELS, ncolors=256, extend="max")
    # Without its brightest part the map carries white lines and text everywhere.
    dim = ListedColormap(plt.get_cmap("viridis")(np.linspace(0, 0.78, 256)))
    filled: Any = ax.contourf(
        grid, grid, heights, levels=_LEVELS, cmap=dim, norm=norm, extend="max"
    )
    ax.contour(grid, grid, heights, levels=_LEVELS, colors=["#ffffff"], linewidths=0.4, alpha=0.35)
    bar = ax.figure.colorbar(
        filled, ax=ax, shrink=0.85, ticks=_LEVELS[::4], format="%g", spacing="uniform"
    )
    bar.set_label("$f$ (nats per point)")
    bar.outline.set_visible(False)
    bar.ax.minorticks_off()
    ax.set(xlabel=r"$\mu_1$ (min)", ylabel=r"$\mu_2$ (min)", aspect="equal")


def _mark(ax: Axes, places: Sequence[Place]) -> None:
    """A filled dot at the lowest minimum, an open one at the other, a cross at the saddle."""
    # Each value where no path runs: left of the better minimum, below the saddle.
    offsets = ((-46, 6), (12, 7), (12, -18))
    for (point, value), offset in zip(places, offsets, strict=True):
        ax.annotate(
            f"{float(value):.2f}",
            point.tolist(),
            offset,
            textcoords="offset points",
            color="#ffffff",
            fontweight="bold",
            zorder=7,
        )
    best, other, saddle = (point.tolist() for point, _ in places)
    ax.plot(*saddle, "x", color="#ffffff", markersize=12, markeredgewidth=5, zorder=5)
    ax.plot(*saddle, "x", color=_CHORD, markersize=11, markeredgewidth=2.6, zorder=6)
    for place, face, edge in ((best, _CHORD, "#ffffff"), (other, "#ffffff", _CHORD)):
        ax.plot(*place, "o", color=face, markersize=11, zorder=5)
        ax.plot(
            *place,
            "o",
            markerfacecolor="none",
            markeredgecolor=edge,
            markersize=11,
            markeredgewidth=2.2,
            zorder=6,
        )


def _numpy(values: Tensor) -> NDArray[np.float64]:
    return values.detach().cpu().double().numpy()
