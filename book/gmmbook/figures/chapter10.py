"""Figures of chapter 10, mixture density networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from gmmedu import MixtureDistribution, plot

# Of the mixture: the same colors as in the interactive.
_MEAN, _MODE = plot.PALETTE[6], plot.PALETTE[7]


def two_ways(x: Tensor, t: Tensor, forward: Tensor, backward: Tensor) -> Figure:
    """The same points both ways, and what least squares makes of them.

    forward: predicted x over an even grid of t in [0, 1]; backward: predicted t over an even grid
    of x from -0.1 to 1.1.
    """
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(4.7, 6.0))
    for ax, across, up in ((top, t, x), (bottom, x, t)):
        ax.plot(across.cpu(), up.cpu(), ".", color=plot.GRAY, markersize=3)
    top.plot(torch.linspace(0, 1, len(forward)), forward.cpu(), color=plot.PALETTE[0], linewidth=2)
    inputs = torch.linspace(-0.1, 1.1, len(backward))
    bottom.plot(inputs, backward.cpu(), color=_MEAN, linewidth=2)
    top.set(xlabel="t", ylabel="x", title="forward: one x for each t")
    bottom.set(xlabel="x", ylabel="t", title="backward: least squares goes between")
    return figure


def answers(x: Tensor, t: Tensor, grid: Tensor, given: MixtureDistribution, lines: Tensor) -> Axes:
    """Points, p(t | x) as shades, quantiles (3, N), mean and mode, over a grid (N,) of x."""
    _, ax = plt.subplots(figsize=(4.7, 3.8))
    up = torch.linspace(-0.05, 1.05, 221, dtype=grid.dtype, device=grid.device)
    heights = given.log_prob(up[:, None, None].expand(-1, len(grid), 1)).exp()
    extent = (float(grid[0]), float(grid[-1]), float(up[0]), float(up[-1]))
    ax.imshow(
        heights.clamp_max(15).sqrt().cpu(),
        origin="lower",
        extent=extent,
        aspect="auto",
        cmap="Grays",
        alpha=0.6,
    )
    ax.plot(x.cpu(), t.cpu(), ".", color=plot.GRAY, markersize=2)
    for line, style in zip(lines.cpu(), (":", "-", ":"), strict=True):
        ax.plot(grid.cpu(), line, style, color=plot.PALETTE[1], linewidth=1.3)
    ax.plot(grid.cpu(), given.mean[:, 0].cpu(), color=_MEAN, label="mean")
    ax.plot(grid.cpu(), given.mode[:, 0].cpu(), ".", color=_MODE, markersize=4, label="mode")
    ax.plot([], [], color=plot.PALETTE[1], label="median and 5, 95 %")
    ax.set(xlabel="x", ylabel="t", xlim=extent[:2], ylim=extent[2:])
    ax.legend(loc="upper left", fontsize=9)
    return ax


def ranks(values: Mapping[str, Tensor]) -> Figure:
    """Histograms of u = F(t | x), one for each network; even where the network is calibrated."""
    figure, axes = plt.subplots(len(values), 1, sharex=True, figsize=(4.7, 1.6 * len(values) + 0.6))
    for ax, (name, u) in zip(axes, values.items(), strict=True):
        ax.hist(u.cpu().numpy(), bins=20, range=(0, 1), density=True, color=plot.PALETTE[5])
        ax.axhline(1, color="black", linewidth=1)
        ax.set(ylabel="density", title=name, ylim=(0, 2.2))
    axes[-1].set_xlabel("u = F(t | x)")
    return figure


def distance(rows: Sequence[Mapping[str, Any]], bound: float) -> Axes:
    """Nats above the bound against the number of points, quartiles of twenty networks."""
    _, ax = plt.subplots(figsize=(4.7, 3.4))
    for kind, color in (("plain", plot.PALETTE[1]), ("head", plot.PALETTE[0])):
        for decay, style in ((False, "o-"), (True, "s--")):
            own = [row for row in rows if (row["kind"], row["decay"]) == (kind, decay)]
            sizes = [row["num_points"] for row in own]
            low, middle, high = ([row["test"][q] - bound for row in own] for q in range(3))
            label = f"{kind}, rate {'falls' if decay else 'constant'}"
            ax.plot(sizes, middle, style, color=color, label=label)
            ax.fill_between(sizes, low, high, color=color, alpha=0.15)
    ax.set_xscale("log")
    ax.set(xlabel="training points", ylabel="nats above the bound", ylim=(0, None))
    ax.legend(fontsize=9)
    return ax


def eruptions(x: Tensor, t: Tensor, given: Mapping[float, MixtureDistribution]) -> Figure:
    """Successive durations, and p(t | x) after a few of them."""
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(4.7, 5.6))
    top.plot(x.cpu(), t.cpu(), ".", color=plot.GRAY)
    top.set(xlabel="this eruption (min)", ylabel="the next (min)")
    grid = torch.linspace(1, 6, 300, dtype=x.dtype, device=x.device)
    for (after, mixture), color in zip(given.items(), plot.PALETTE, strict=False):
        bottom.plot(
            grid.cpu(),
            mixture.log_prob(grid[:, None]).exp().cpu(),
            color=color,
            label=f"after {after:g} min",
        )
        top.axvline(after, color=color, linewidth=1)
    bottom.set(xlabel="the next eruption (min)", ylabel="density (1/min)")
    bottom.legend()
    return figure
