"""Figures of chapter 11, at scale."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from gmmedu import plot


def remembered(lasting: Mapping[float, Tensor], averaged: Tensor) -> Figure:
    """What each batch weighs, in percent: in the last statistics, by exponent, (T,) each; in the
    averages with m = 0 and m = 1, (2, T)."""
    figure, (top, bottom) = plt.subplots(2, 1, sharex=True, figsize=(4.7, 5.4))
    for (alpha, weights), color in zip(lasting.items(), plot.PALETTE, strict=False):
        top.plot(
            range(1, len(weights) + 1), 100 * weights, color=color, label=f"$\\alpha$ = {alpha}"
        )
    for m, weights in enumerate(averaged):
        color = plot.PALETTE[4 + m]
        bottom.plot(range(1, len(weights) + 1), 100 * weights, color=color, label=f"m = {m}")
    for ax in (top, bottom):
        ax.axhline(100 / averaged.shape[1], color="black", linestyle=":", linewidth=1)
        ax.legend(loc="upper left" if ax is top else "lower center", fontsize=9)
    top.set(ylabel="weight in %", title="in the last mean statistics")
    bottom.set(xlabel="batch", ylabel="weight in %", title="in the average of all steps")
    return figure


def roads(curves: Mapping[str, Tensor]) -> Axes:
    """Units above the truth against points read, (2, S) for each contender."""
    _, ax = plt.subplots(figsize=(4.7, 3.8))
    for (name, curve), color in zip(curves.items(), plot.PALETTE, strict=False):
        read, above = curve[:, curve[0] > 0].cpu()
        ax.plot(read, above, "o-" if name == "EM" else "-", color=color, label=name, markersize=4)
    ax.axhline(1, color="black", linestyle=":", linewidth=1)
    ax.set(xscale="log", yscale="log", xlabel="points read", ylabel="units above the truth")
    ax.legend(fontsize=9)
    return ax
