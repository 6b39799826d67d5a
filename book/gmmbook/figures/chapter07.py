"""Figures of chapter 07, descent versus EM."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from numpy.typing import NDArray
from torch import Tensor

from gmmedu import plot

#: Expected passes to success, the ends of its interval, and how many starts arrived.
Score = tuple[float, float, float, int]

# A method has one color and line style in every figure; none is a color of the first components.
_METHODS: dict[str, tuple[str, Any]] = {
    "EM": (plot.PALETTE[6], "-"),
    "SQUAREM": (plot.PALETTE[3], "--"),
    "Adam": (plot.PALETTE[4], "-."),
    "L-BFGS": (plot.PALETTE[5], ":"),
    "hybrid": (plot.PALETTE[7], (0, (5, 1, 1, 1, 1, 1))),
    "Anderson": (plot.PALETTE[5], ":"),
}
# In nats; below it a curve shows rounding.
_LOWEST = 1e-10


def data(sets: Mapping[str, Tensor]) -> Figure:
    """The points of each data set; of more than two dimensions, along the two widest directions."""
    figure, axes = plt.subplots(3, 2, figsize=(4.7, 6.0))
    for ax, (name, x) in zip(axes.flat, sets.items(), strict=False):
        centered = x - x.mean(0)
        if x.shape[1] > 2:
            centered = centered @ torch.linalg.svd(centered, full_matrices=False).Vh[:2].mT
        plot.scatter(centered, ax, size=7)
        ax.set(title=name, aspect="equal")
        ax.locator_params(nbins=4)
    for ax in axes.flat[len(sets) :]:
        ax.axis("off")
    return figure


def contest(scores: Mapping[str, Mapping[str, Score]], num_starts: int) -> Figure:
    """Expected passes to success of each method, with intervals: a panel for each data set."""
    figure, axes = plt.subplots(len(scores), 1, figsize=(4.7, 1.6 * len(scores)), sharex=True)
    for ax, (race, methods) in zip(axes, scores.items(), strict=True):
        for row, (name, (mean, low, high, arrived)) in enumerate(methods.items()):
            hue = _METHODS[name.split()[0]][0]
            if np.isfinite(mean):
                ax.plot([low, min(high, 1e6)], [row, row], color=hue, linewidth=2.4)
                ax.plot(mean, row, "o", color=hue, markersize=6)
            if arrived < num_starts:
                ax.annotate(
                    f"{arrived}",
                    (1, row),
                    xycoords=("axes fraction", "data"),
                    ha="right",
                    va="center",
                    color=hue,
                    fontsize=11,
                )
        ax.set_yticks(range(len(methods)), list(methods))
        ax.set_title(race, loc="left")
        ax.set(xscale="log", ylim=(len(methods) - 0.4, -0.6))
        ax.minorticks_off()
    axes[-1].set_xlabel("expected passes to success")
    return figure


def curves(tracks: Mapping[str, tuple[Tensor, Tensor]], lowest: float, goal: float) -> Figure:
    """Excess NLL against passes from one start: (passes, NLL) of each method."""
    figure, ax = plt.subplots(figsize=(4.7, 3.9))
    for name, (passes, history) in tracks.items():
        _excess(ax, name.split()[0], passes.numpy(), history, lowest, label=name)
    ax.axhline(goal, color=plot.GRAY, linestyle=":", linewidth=1.2)
    ax.set(xscale="log", xlim=(1, 1000))
    ax.set(xlabel="passes over the data", ylabel="excess NLL (nats)")
    ax.legend(loc="lower left")
    return figure


def optima(ends: Mapping[str, Tensor], close: float = 1e-3) -> Figure:
    """Final NLL of EM and of Adam above the best, (2, starts) for each data set."""
    figure, axes = plt.subplots(1, len(ends), figsize=(4.7, 2.8))
    for ax, (name, values) in zip(axes, ends.items(), strict=True):
        em, adam = _numpy(values)
        top = 1.05 * max(em.max(), adam.max())
        ax.plot([0, top], [0, top], color=plot.GRAY, linestyle=":")
        ax.plot(em, adam, "o", color=plot.PALETTE[5], alpha=0.6, markersize=5, markeredgewidth=0)
        count = int(((em < close) & (adam < close)).sum())
        ax.annotate(
            f"{count}",
            (0, 0),
            xytext=(0.26 * top, 0.09 * top),
            color=plot.GRAY,
            arrowprops={"arrowstyle": "-", "color": plot.GRAY},
        )
        ax.set(
            title=name,
            xlabel="EM: excess (nats)",
            xlim=(-0.05 * top, top),
            ylim=(-0.05 * top, top),
            aspect="equal",
        )
        ax.locator_params(nbins=5)
    axes[0].set_ylabel("Adam: excess (nats)")
    return figure


def paths(objective: Callable[[Tensor], Tensor], walks: Mapping[str, Tensor]) -> Figure:
    """Contours of an objective of two means, and the steps that each method takes on it."""
    figure, ax = plt.subplots(figsize=(4.7, 4.1))
    device = next(iter(walks.values())).device
    rare = torch.linspace(1.2, 5.2, 57, device=device)
    common = torch.linspace(-0.9, 1.2, 51, device=device)
    plane = torch.cartesian_prod(common, rare).flip(1)
    height = _numpy(torch.func.vmap(objective)(plane)).reshape(51, 57)
    least = height.min()
    levels = least + np.geomspace(0.003, height.max() - least, 14)
    ax.contour(
        _numpy(rare),
        _numpy(common),
        height,
        levels=levels,
        colors=plot.GRAY,
        linewidths=0.7,
        alpha=0.7,
    )
    looks = ((_METHODS["EM"][0], "o-", 3), (plot.PALETTE[4], "s-", 2))
    for (hue, mark, order), (name, walk) in zip(looks, walks.items(), strict=True):
        steps = _numpy(walk)
        ax.plot(
            steps[:, 0],
            steps[:, 1],
            mark,
            color=hue,
            markersize=4.5,
            linewidth=1.2,
            label=name,
            zorder=order,
        )
    ax.set(xlabel="mean of the rare component", ylabel="mean of the common component")
    ax.legend(loc="upper right")
    return figure


def rates(
    separations: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    dots: Sequence[tuple[float, float]],
    shown: Sequence[float] = (2.0, 3.0, 4.0, 6.0),
) -> Figure:
    """Iterations per digit against separation, predicted and measured, over four densities."""
    figure = plt.figure(figsize=(4.7, 5.5))
    top, bottom = figure.subfigures(2, 1, height_ratios=(4, 1.15))
    ax = top.subplots()
    looks = (
        (_METHODS["EM"][0], "-", 2.6),
        (_METHODS["SQUAREM"][0], "--", 2.0),
        (_METHODS["Adam"][0], "-.", 2.0),
    )
    for (hue, style, width), (name, values) in zip(looks, curves.items(), strict=True):
        ax.plot(separations, values, color=hue, linestyle=style, linewidth=width, label=name)
    ax.plot(*np.array(dots).T, "o", color=_METHODS["EM"][0], markersize=8, label="measured, 50/50")
    ax.set(
        yscale="log",
        xlabel="separation (standard deviations)",
        ylabel="iterations per digit",
        xlim=(separations[0], separations[-1]),
    )
    ax.legend(loc="upper right")
    panels = bottom.subplots(1, len(shown), sharey=True)
    for panel, apart in zip(panels, shown, strict=True):
        x = np.linspace(-3.5, 9.5, 300)
        halves = [
            0.5 * np.exp(-0.5 * (x - center) ** 2) for center in (3 - apart / 2, 3 + apart / 2)
        ]
        for half in halves:
            panel.plot(x, half, color=plot.GRAY, linewidth=0.9)
        panel.fill_between(x, sum(halves), color=_METHODS["EM"][0], alpha=0.35, linewidth=0)
        panel.set_title(f"{apart:g} sd", fontsize=12)
        panel.axis("off")
    return figure


def leaps(lengths: Sequence[float], tracks: Mapping[str, tuple[Tensor, ...]]) -> Figure:
    """What leaps of these lengths multiply an error by; and excess NLL against passes."""
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(4.7, 5.8))
    rate = np.linspace(0, 1, 401)
    styles = ("-", "--", "-.")
    hues = tuple(_METHODS[name][0] for name in ("EM", "SQUAREM", "Adam"))
    for length, hue, style in zip(lengths, hues, styles, strict=True):
        top.plot(
            rate,
            np.maximum((1 - length * (1 - rate)) ** 2, 1e-9),
            color=hue,
            linestyle=style,
            label=rf"$\omega = {length:g}$",
        )
    top.axhline(1, color=plot.GRAY, linestyle=":", linewidth=1.2)
    top.set(
        xlabel=r"$\gamma_i$: one step of EM multiplies the error by",
        ylabel="a leap multiplies it by",
        xlim=(0, 1),
        ylim=(1e-3, 400),
        yscale="log",
    )
    top.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    best = min(float(track[1].min()) for track in tracks.values())
    for name, (passes, history, *_) in tracks.items():
        _excess(bottom, name, passes.cpu().numpy(), history, best)
    bottom.set(xscale="log", xlabel="passes over the data", ylabel="excess NLL (nats)")
    bottom.legend(loc="lower left")
    return figure


def _excess(
    ax: Axes,
    method: str,
    along: NDArray[Any],
    history: Tensor,
    best: float,
    label: str | None = None,
) -> None:
    """One curve of NLL above the best, down to where rounding begins."""
    excess = _numpy(history) - best
    seen = np.flatnonzero(excess > _LOWEST)
    last = min(int(seen[-1]) + 1, len(excess) - 1) if len(seen) else 0
    hue, style = _METHODS[method]
    ax.plot(
        along[: last + 1],
        np.maximum(excess[: last + 1], _LOWEST),
        color=hue,
        linestyle=style,
        label=label or method,
    )
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(base=10, numticks=5))


def _numpy(values: Tensor) -> NDArray[np.float64]:
    """Detached, on the CPU, float64."""
    return np.asarray(values.detach().cpu().to(torch.float64).numpy(), dtype=np.float64)
