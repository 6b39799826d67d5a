"""Figures of chapter 05, gradient descent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from gmmedu import plot
from gmmedu.models import GaussianMixture
from gmmedu.plot import GRAY, PALETTE

#: Colors of optimizers, coordinates and rates; the first components do not have them.
_HUES = (PALETTE[6], PALETTE[3], PALETTE[4], PALETTE[2], PALETTE[7])
_STYLES = ("-", "--", "-.", ":")


def opening(
    x: Tensor, frozen: GaussianMixture, by_em: GaussianMixture, history: Tensor, level: float
) -> Figure:
    """Data x (N, 1) with two fits; below, the NLL (T + 1,) of the first and the second's level."""
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(4.7, 5.5), height_ratios=(3, 2))
    plot.density_1d(frozen, x, top, bins=60, components=False, color=PALETTE[6], label="descent")
    plot.density_1d(
        by_em, None, top, components=False, color=PALETTE[3], line_style="--", label="EM"
    )
    top.set(xlabel="$x$", xlim=(-4.2, 9))
    top.legend(loc="upper right")
    bottom.plot(_numpy(history), color=PALETTE[6])
    bottom.axhline(level, color=PALETTE[3], linestyle=":")
    bottom.text(len(history) // 2, level + 0.006, "level of EM", color=PALETTE[3], ha="center")
    bottom.set(
        xlabel="iteration of descent",
        ylabel="NLL (nats)",
        xlim=(0, len(history) - 1),
        ylim=(level - 0.02, level + 0.25),
    )
    return figure


def one_step(
    x: Tensor, before: GaussianMixture, after: GaussianMixture, pull: Tensor, weighted: Tensor
) -> Axes:
    """Components before and after a step; the pull on each mean as an arrow, and the weighted
    mean of its points as a dot, both (K, 2)."""
    _, ax = plt.subplots(figsize=(4.7, 4.5))
    plot.scatter(x, ax, size=8)
    plot.ellipses(before, ax, mass=(0.5,), fill=False)
    plot.ellipses(after, ax, mass=(0.5,), fill=False, line_style="--", means=False)
    for k, (mean, arrow, dot) in enumerate(
        zip(_numpy(before.means), _numpy(pull), _numpy(weighted), strict=True)
    ):
        ax.plot(*dot, "o", color=plot.component_color(k), markersize=9, zorder=6)
        ax.annotate(
            "",
            mean + 3 * arrow,
            mean,
            arrowprops={
                "arrowstyle": "-|>",
                "color": plot.component_color(k),
                "linewidth": 2.4,
                "mutation_scale": 18,
            },
            zorder=6,
        )
    ax.set(
        xlabel="eruption (standard deviations)", ylabel="wait (standard deviations)", aspect="equal"
    )
    return ax


def condition(excesses: Mapping[str, Tensor], rates: Mapping[str, float]) -> Figure:
    """Excess NLL (T,) after each step in each set of coordinates, and the predicted slopes."""
    figure, ax = plt.subplots(figsize=(4.7, 4.3))
    for hue, (name, excess) in zip(_HUES, excesses.items(), strict=False):
        values = _numpy(excess)
        shown = np.flatnonzero(values > 1e-13)
        shown = shown[: int(shown[-1]) + 1]
        ax.plot(shown, values[shown], color=hue, label=name)
        # The predicted line ends where the curve does, a little above it.
        last = int(shown[-1])
        first = last // 3
        steps = np.arange(first, last + 1)
        ax.plot(
            steps,
            2 * values[last] * rates[name] ** (2.0 * (steps - last)),
            color=hue,
            linestyle="--",
            linewidth=1.3,
        )
    ax.set_yscale("log")
    ax.set(xlabel="step", ylabel="NLL above the minimum (nats)", xlim=(0, 400), ylim=(1e-13, 2e-5))
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def paths(axis: Tensor, heights: Tensor, tracks: Mapping[str, Sequence[Tensor]]) -> Figure:
    """Paths (T, 2) over contours of the objective of two means, (M, M) on ``axis`` squared."""
    figure, ax = plt.subplots(figsize=(4.7, 5.3))
    grid, f = _numpy(axis), _numpy(heights).T
    levels = f.min() + 0.01 * 1.5 ** np.arange(16)
    ax.contour(grid, grid, f, levels=levels, colors=[GRAY], linewidths=0.7, alpha=0.6)
    for hue, style, (name, runs) in zip(_HUES, _STYLES, tracks.items(), strict=False):
        for number, run in enumerate(runs):
            points = _numpy(run)
            ax.plot(
                points[:, 0], points[:, 1], style, color=hue, label=name if number == 0 else None
            )
            ax.plot(points[::2, 0], points[::2, 1], "o", color=hue, markersize=3.6)
    for runs in list(tracks.values())[:1]:
        for run in runs:
            ax.plot(*_numpy(run)[0], "o", color=GRAY, markersize=9)
    ax.set(
        xlabel=r"$\mu_1$ (min)",
        ylabel=r"$\mu_2$ (min)",
        aspect="equal",
        xlim=(float(grid[0]), float(grid[-1])),
        ylim=(float(grid[0]), float(grid[-1])),
    )
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def travel(
    times: Tensor, shares: Tensor, rates: Sequence[float], reach: Tensor, least: float
) -> Figure:
    """Share of the rare component (T, rates, draws), and where one rate a step would take it.

    reach: share (T, rates) if each logit moved by its rate at every step; least: the share that
    is proved to be out of reach at the first rate.
    """
    figure, ax = plt.subplots(figsize=(4.7, 4.5))
    iteration = _numpy(times)
    for j, (hue, rate) in enumerate(zip(_HUES, rates, strict=False)):
        ax.plot(iteration, _numpy(reach[:, j]), color=hue, linestyle="--", linewidth=1.3)
        for i in range(shares.shape[2]):
            ax.plot(
                iteration,
                _numpy(shares[:, j, i]),
                color=hue,
                label=f"{rate:.0e}".replace("e-0", "e-") if i == 0 else None,
            )
    ax.axhline(0.1, color=GRAY, linestyle=":")
    ax.text(2, 0.12, "truth", color=GRAY)
    ax.axhline(least, color=_HUES[0], linestyle=":", linewidth=1.3)
    ax.set_xscale("symlog", linthresh=20, linscale=0.5)
    ax.set_xticks([0, 10, 100, 1_000], ["0", "10", "100", "1,000"])
    ax.set(
        xlabel="iteration",
        ylabel="weight of the upper component",
        xlim=(0, float(iteration[-1])),
        ylim=(0, 1),
    )
    figure.legend(loc="outside upper center", ncols=4, title="learning rate of the logits")
    return figure


def five(
    clouds: Sequence[Tensor], fits: Sequence[GaussianMixture], sizes: Mapping[str, Sequence[int]]
) -> Figure:
    """Five clusters and the fitted components, with their weights, one panel for each data set.

    sizes: for each data set, named, the points of each cluster, in the order of the data. Beside
    the clusters of unequal sizes stand their numbers.
    """
    figure, axes = plt.subplots(len(clouds), 1, figsize=(4.7, 8.3), sharex=True, sharey=True)
    for ax, x, model, (name, counts) in zip(axes, clouds, fits, sizes.items(), strict=True):
        plot.scatter(x, ax, size=6)
        plot.ellipses(model, ax)
        taken = np.concatenate([_numpy(x), *map(_outline, _shapes(model))])
        for k, (weight, shape) in enumerate(
            zip(_numpy(model.weights), _shapes(model), strict=True)
        ):
            spot = _free_spot(shape[0], taken)
            taken = np.concatenate([taken, spot[None]])
            ax.text(
                *spot,
                f"{weight:.0%}",
                ha="center",
                va="center",
                color=plot.component_color(k),
                fontweight="bold",
            )
        if len(set(counts)) > 1:
            for points in x.split(list(counts)):
                spot = _free_spot(_numpy(points.mean(0)), taken)
                taken = np.concatenate([taken, spot[None]])
                ax.text(*spot, str(len(points)), ha="center", va="center", color=GRAY)
        ax.set(title=f"{name} clusters", ylabel="$x_2$", aspect="equal")
    axes[-1].set_xlabel("$x_1$")
    return figure


def _shapes(model: GaussianMixture) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Mean and covariance of each component."""
    return list(zip(_numpy(model.means), _numpy(model.covariances), strict=True))


def _outline(shape: tuple[NDArray[np.float64], NDArray[np.float64]]) -> NDArray[np.float64]:
    """Points (60, 2) on the 95 % ellipse."""
    angle = np.linspace(0, 2 * np.pi, 60)
    circle = np.stack([np.cos(angle), np.sin(angle)], 1)
    radius = plot.ellipse_radius(0.95)
    return np.asarray(shape[0] + radius * circle @ np.linalg.cholesky(shape[1]).T)


def _free_spot(center: NDArray[np.float64], taken: NDArray[np.float64]) -> NDArray[np.float64]:
    """The place for a label nearest to the center that keeps clear of what is taken."""
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    around = np.stack([np.cos(angle), np.sin(angle)], 1)
    for radius in np.arange(1.0, 9.0, 0.25):
        spots = center + radius * around
        offsets = (spots[:, None] - taken) / np.array([1.2, 0.8])
        room = np.linalg.norm(offsets, axis=2).min(1)
        inside = (spots >= taken.min(0)) & (spots <= taken.max(0) + 0.5)
        room = np.where(inside.all(1), room, 0.0)
        if room.max() > 1:
            break
    return np.asarray(spots[room.argmax()])


def epochs(curves: Mapping[str, Tensor], floors: Mapping[str, float]) -> Figure:
    """Excess NLL (epochs, runs) of each way, its first run, and the floor predicted for it."""
    figure, ax = plt.subplots(figsize=(4.7, 4.3))
    for hue, style, (name, excess) in zip(_HUES, _STYLES, curves.items(), strict=False):
        ax.plot(_numpy(excess[:, 0]), color=hue, linestyle=style, linewidth=1.6, label=name)
        if name in floors:
            ax.axhline(floors[name], color=hue, linewidth=0.9)
    ax.set_yscale("log")
    ax.set(
        xlabel="passes over the data (epochs)",
        ylabel="NLL above the minimum (nats)",
        xlim=(0, None),
        ylim=(1e-6, None),
    )
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def second_order(curves: Mapping[str, tuple[Tensor, Tensor]]) -> Figure:
    """For each optimizer the passes over the data, and the excess NLL after each."""
    figure, ax = plt.subplots()
    for hue, style, (name, (when, excess)) in zip(_HUES, _STYLES, curves.items(), strict=False):
        ax.plot(
            _numpy(when), np.maximum(_numpy(excess), 1e-13), color=hue, linestyle=style, label=name
        )
    ax.set_yscale("log")
    ax.set(
        xlabel="passes over the data",
        ylabel="NLL above the minimum (nats)",
        xlim=(0, 200),
        ylim=(1e-12, None),
    )
    figure.legend(loc="outside upper center", ncols=4)
    return figure


def _numpy(values: Tensor) -> NDArray[np.float64]:
    return values.detach().cpu().double().numpy()
