"""Figures of chapter 06, expectation-maximization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from gmmedu import plot
from gmmedu.models import GaussianMixture

#: Curves that stand for no component take these.
_HUES = tuple(plot.PALETTE[k] for k in (6, 3, 7, 4, 5, 2))


def ends(x: Tensor, fits: Mapping[str, GaussianMixture]) -> Figure:
    """Points x (N, 2) under each named fit, side by side, with its ellipses."""
    figure, axes = plt.subplots(1, len(fits), sharex=True, sharey=True, figsize=(4.7, 3.1))
    for ax, (name, model) in zip(axes, fits.items(), strict=True):
        _dots(ax, x, plot.GRAY, size=3, alpha=0.45)
        plot.ellipses(model, ax)
        ax.set(title=name, xlabel="$x_1$", aspect="equal")
        ax.set(xlim=(-2.5, 14), ylim=(-2.5, 11), xticks=(0, 5, 10))
    axes[0].set_ylabel("$x_2$")
    return figure


def bounds(
    grid: Tensor,
    curve: Tensor,
    lower: Tensor,
    path: Sequence[Tensor],
    touches: Tensor,
    tops: Sequence[Tensor],
) -> Figure:
    """The log likelihood (M,) of one mean, and the bounds (T, M) that touch it along a path.

    path: the T + 1 means visited; touches: the log likelihood there; tops: the T maxima.
    """
    figure, ax = plt.subplots(figsize=(4.7, 4.0))
    places, heights = _numpy(grid), _numpy(curve)
    ax.plot(places, heights, color=plot.GRAY, linewidth=5)
    bottom = float(heights.min()) - 0.55
    ramp = plt.get_cmap("plasma")(np.linspace(0.36, 0.82, len(lower)))
    for hue, step, values in zip(ramp, range(len(lower)), _numpy(lower), strict=True):
        ax.plot(places, values, color=hue, linewidth=1.5)
        start, end = float(path[step]), float(path[step + 1])
        touch, top = float(touches[step]), float(tops[step])
        ax.plot(start, touch, "o", color=hue, markersize=6, zorder=3)
        ax.plot(end, top, "^", color=hue, markersize=6, zorder=3)
    ax.annotate(
        "start",
        (float(path[0]), float(touches[0])),
        (0, 10),
        textcoords="offset points",
        ha="center",
    )
    ax.annotate(
        "log likelihood",
        (67, float(np.interp(67, places, heights))),
        (12, 6),
        textcoords="offset points",
    )
    ax.set(
        xlabel="mean of the short waits (min)",
        ylabel="nats per point",
        xlim=(places[0], places[-1]),
        ylim=(bottom, float(heights.max()) + 0.15),
    )
    return figure


def falls(steps: Mapping[str, Tensor]) -> Figure:
    """How much each iteration lowered the NLL, (T,) for each named fit, on a logarithmic axis."""
    figure, ax = plt.subplots()
    for place, (name, fall) in enumerate(steps.items()):
        values = _numpy(fall)
        values = np.where(values > 1e-13, values, np.nan)
        ax.plot(
            np.arange(1, len(values) + 1),
            values,
            color=_HUES[place],
            linestyle=plot.LINE_STYLES[place % 4],
            label=name.replace("_", " "),
        )
    ax.set_yscale("log")
    ax.set(xlabel="iteration", ylabel="fall of the NLL (nats per point)")
    ax.legend(ncols=2, loc="upper right")
    return figure


def two_fits(x: Tensor, fits: Mapping[str, GaussianMixture]) -> Figure:
    """The same points under each fit, in the colors of their most responsible components."""
    figure, axes = plt.subplots(len(fits), 1, sharex=True, sharey=True, figsize=(4.7, 5.8))
    for (name, model), ax in zip(fits.items(), axes, strict=True):
        plot.scatter(x, ax, labels=model.predict(x), size=10)
        plot.ellipses(model, ax, fill=False)
        ax.set(title=name, ylabel="$x_2$")
    axes[-1].set_xlabel("$x_1$")
    return figure


def hard_and_soft(x: Tensor, centroids: Tensor, model: GaussianMixture) -> Figure:
    """Points x (N, 2) as k-means labels them, with its border, and as a mixture does."""
    figure, axes = plt.subplots(1, 2, sharex=True, sharey=True, figsize=(4.7, 3.2))
    points, centers = _numpy(x), _numpy(centroids)
    distance = np.linalg.norm(points[:, None] - centers, axis=2)
    labels = [distance.argmin(1), _numpy(model.predict(x)).astype(int)]
    for ax, label in zip(axes, labels, strict=True):
        for k in range(2):
            mine = points[label == k]
            _dots(ax, mine, plot.component_color(k), size=5, alpha=0.55)
        ax.set(xlabel="$x_1$", aspect="equal", xlim=(-5.2, 5.2))
    middle, across = centers.mean(0), centers[1] - centers[0]
    along = np.array([-across[1], across[0]]) / np.linalg.norm(across)
    border = middle + np.array([[-4.5], [4.5]]) * along
    axes[0].plot(*border.T, color=plot.GRAY, linestyle="--")
    for k in range(2):
        axes[0].plot(*centers[k], "x", color=plot.GRAY, markersize=11, markeredgewidth=3)
    plot.ellipses(model, axes[1])
    axes[0].set(title="k-means", ylabel="$x_2$", ylim=(-5, 5))
    axes[1].set_title("EM")
    return figure


def starts(excess: Mapping[str, Tensor]) -> Figure:
    """Sorted excess NLL (S,) of the starts of each named kind."""
    figure, ax = plt.subplots()
    for place, (name, values) in enumerate(excess.items()):
        ordered = np.sort(_numpy(values))
        ax.step(
            np.arange(1, len(ordered) + 1),
            ordered,
            where="mid",
            color=_HUES[place],
            linestyle=plot.LINE_STYLES[place % 4],
            label=name,
        )
    ax.set(
        xlabel="starts, from the best to the worst",
        ylabel="excess NLL (nats per point)",
        xticks=(1, 10, 20, 30, 40, 50),
    )
    ax.legend(loc="upper left")
    return figure


def stopping(
    left: Tensor, step: Tensor, estimate: Tensor, stops: Sequence[int], tolerance: float = 1e-6
) -> Figure:
    """What is left (T + 1,), the last step (T,) and the estimate of what is left (T - 1,).

    stops: where the rule of the step and the rule of the estimate end the fit.
    """
    figure, ax = plt.subplots()
    total = len(left) - 1
    shown = slice(0, int(np.searchsorted(-_numpy(left), -3e-8)))
    curves = (
        (np.arange(1, total + 1), left[1:], plot.GRAY, "what is left"),
        (np.arange(1, total + 1), step, _HUES[0], "last step"),
        (np.arange(2, total + 1), estimate, _HUES[3], "Aitken's estimate"),
    )
    for times, values, hue, name in curves:
        heights = _numpy(values)
        heights = np.where(heights > 0, heights, np.nan)
        gray = hue == plot.GRAY
        ax.plot(
            times[shown],
            heights[shown],
            color=hue,
            linewidth=4.5 if gray else 1.8,
            alpha=0.6 if gray else 1,
            label=name,
        )
    ax.axhline(tolerance, color=plot.GRAY, linestyle=":", linewidth=1.2)
    for (times, values, hue, _), stop in zip(curves[1:], stops, strict=True):
        height = float(values[int(np.searchsorted(times, stop))])
        ax.plot(stop, height, "o", color=hue, markersize=8, zorder=3)
        ax.plot([stop, stop], [height, float(left[stop])], color=hue, linestyle=":", linewidth=1.6)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set(xlabel="iteration", ylabel="nats per point", ylim=(1e-9, 2))
    ax.legend(loc="lower left")
    return figure


def filled(holed: Tensor, gone: Tensor, values: Mapping[str, Tensor]) -> Figure:
    """Old Faithful with the lost waits, (G,), filled in by each named way; panels stacked."""
    figure, axes = plt.subplots(len(values), 1, sharex=True, sharey=True, figsize=(4.7, 5.5))
    points, lost = _numpy(holed), _numpy(gone).astype(bool)
    for ax, hue, (name, waits) in zip(axes, (_HUES[3], _HUES[0]), values.items(), strict=True):
        _dots(ax, points[~lost], plot.GRAY, size=14, alpha=0.55)
        ax.scatter(
            points[lost, 0],
            _numpy(waits),
            s=18,
            color=hue,
            alpha=0.8,
            linewidths=0,
            label=f"filled in: {name}",
        )
        ax.set_ylabel("wait (min)")
        ax.legend(loc="upper left")
    axes[-1].set_xlabel("eruption (min)")
    return figure


def _dots(ax: Axes, points: Any, hue: str, *, size: float, alpha: float) -> None:
    values = _numpy(points)
    ax.scatter(
        values[:, 0],
        values[:, 1],
        s=size,
        color=hue,
        alpha=alpha,
        linewidths=0,
        rasterized=len(values) > 1000,
        zorder=1,
    )


def _numpy(values: Any) -> NDArray[np.float64]:
    """Detached, on the CPU, float64."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=np.float64)
