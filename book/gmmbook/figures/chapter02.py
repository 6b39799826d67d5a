"""Figures of chapter 02, the mixture likelihood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, to_rgb
from matplotlib.figure import Figure
from torch import Tensor

from gmmedu import plot
from gmmedu.models import GaussianMixture

# Marks of what is neither data nor component.
_HALO = "#9030D8"
# Seen on viridis and on the page.
_PATH, _PEAK = "#904830", "#D55E00"


def question(x: Tensor, points: Mapping[str, tuple[float, float]]) -> Axes:
    """The eruptions in gray and a few more points, each with its letter."""
    _, ax = plt.subplots()
    plot.scatter(x, ax)
    mark(points, ax)
    ax.set(xlabel="eruption (min)", ylabel="wait for the next (min)")
    return ax


def mark(points: Mapping[str, tuple[float, float]], ax: Axes) -> Axes:
    """Points with letters beside them."""
    for name, (across, up) in points.items():
        ax.plot(across, up, "D", color=_HALO, markersize=7, zorder=5)
        ax.annotate(
            name,
            (across, up),
            xytext=(9, -3),
            textcoords="offset points",
            color=_HALO,
            fontsize=14,
            fontweight="bold",
            zorder=5,
        )
    return ax


def answer(
    x: Tensor,
    points: Mapping[str, tuple[float, float]],
    model: GaussianMixture,
    limits: tuple[float, float, float, float],
) -> Axes:
    """The points of the question on the plane, colored by the responsible component."""
    _, ax = plt.subplots()
    responsibility_field(model, ax, limits, alpha=0.25)
    plot.scatter(x, ax)
    plot.ellipses(model, ax, fill=False)
    mark(points, ax)
    ax.set(
        xlabel="eruption (min)", ylabel="wait for the next (min)", xlim=limits[:2], ylim=limits[2:]
    )
    return ax


def generative(x: Tensor, labels: Tensor, model: GaussianMixture) -> Figure:
    """The same draws with their labels, and as they are observed."""
    figure, (top, bottom) = plt.subplots(2, 1, sharex=True, figsize=(4.7, 5.5))
    plot.scatter(x, top, labels=labels)
    plot.ellipses(model, top, fill=False)
    top.set_title("with the label that chose the component")
    plot.scatter(x, bottom)
    bottom.set_title("as we get to see it")
    bottom.set_xlabel("eruption (min)")
    for ax in (top, bottom):
        ax.set_ylabel("wait (min)")
    return figure


def odds(grid: Tensor, models: Mapping[str, GaussianMixture]) -> Figure:
    """For each model on a line: its weighted components above, its responsibilities below."""
    figure, axes = plt.subplots(2, len(models), sharex=True, sharey="row", figsize=(4.7, 4.5))
    line = grid.cpu().numpy()
    for (name, model), (top, bottom) in zip(models.items(), axes.T, strict=True):
        shares = model.responsibilities(grid[:, None]).detach()
        density = model.log_prob(grid[:, None]).detach().exp()
        for k in range(model.num_components):
            color = plot.component_color(k)
            top.fill_between(line, (shares[:, k] * density).cpu().numpy(), color=color, alpha=0.2)
            top.plot(line, (shares[:, k] * density).cpu().numpy(), color=color)
            bottom.plot(line, shares[:, k].cpu().numpy(), color=color, label=f"component {k + 1}")
        bottom.axhline(0.5, color=plot.GRAY, linestyle=":", linewidth=1.2)
        top.set_title(name)
        bottom.set_xlabel("$x$")
    handles, names = axes[1, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=2)
    axes[0, 0].set_ylabel(r"$\pi_k \, \mathcal{N}_k(x)$")
    axes[1, 0].set_ylabel("responsibility")
    return figure


def field(
    models: Mapping[str, GaussianMixture], limits: tuple[float, float, float, float]
) -> Figure:
    """The plane in the colors of the responsible components, and the line where they are equal."""
    figure, axes = plt.subplots(len(models), 1, sharex=True, figsize=(4.7, 3.2 * len(models)))
    for (name, model), ax in zip(models.items(), np.atleast_1d(axes), strict=True):
        responsibility_field(model, ax, limits)
        plot.ellipses(model, ax, fill=False)
        ax.set(title=name, ylabel="$x_2$", xlim=limits[:2], ylim=limits[2:], aspect="equal")
    ax.set_xlabel("$x_1$")
    return figure


def responsibility_field(
    model: GaussianMixture,
    ax: Axes,
    limits: tuple[float, float, float, float],
    *,
    alpha: float = 0.45,
) -> Axes:
    """The plane colored by responsibility; where component 1 has 10, 50 and 90 %, a line."""
    across = torch.linspace(*limits[:2], 240, device=model.means.device, dtype=model.means.dtype)
    up = torch.linspace(*limits[2:], 160, device=model.means.device, dtype=model.means.dtype)
    grid = torch.cartesian_prod(up, across).flip(1)
    shares = model.responsibilities(grid).detach().cpu().numpy().reshape(160, 240, -1)
    palette = np.array([to_rgb(plot.component_color(k)) for k in range(shares.shape[2])])
    ax.imshow(
        np.clip(shares @ palette, 0, 1),
        extent=limits,
        origin="lower",
        alpha=alpha,
        aspect="auto",
        zorder=0,
    )
    ax.contour(
        across.cpu(),
        up.cpu(),
        shares[:, :, 0],
        levels=[0.1, 0.5, 0.9],
        colors=[plot.GRAY],
        linewidths=[1.0, 2.4, 1.0],
        linestyles=["--", "-", "--"],
        zorder=2,
    )
    return ax


def same_moments(grid: Tensor, models: Mapping[str, GaussianMixture]) -> Figure:
    """Densities of mean 0 and variance 1, each against the Gaussian that has these too."""
    figure, axes = plt.subplots(2, 2, sharex=True, sharey=True, figsize=(4.7, 4.3))
    line, color = grid.cpu().numpy(), plot.component_color(0)
    one = np.exp(-0.5 * line**2) / np.sqrt(2 * np.pi)
    for (name, model), ax in zip(models.items(), axes.flat, strict=True):
        density = model.log_prob(grid[:, None]).detach().exp().cpu().numpy()
        ax.fill_between(line, density, color=color, alpha=0.2)
        ax.plot(line, density, color=color)
        ax.plot(line, one, color=plot.GRAY, linestyle="--")
        ax.set_title(name)
    axes[0, 0].set_ylim(bottom=0)
    for ax in axes[1]:
        ax.set_xlabel("$x$")
    for ax in axes[:, 0]:
        ax.set_ylabel("density")
    return figure


def regression(x: Tensor, grid: Tensor, mean: Tensor, deviation: Tensor, line: Tensor) -> Figure:
    """The wait expected after each eruption, by mixture and one Gaussian; below, its deviation."""
    figure, (top, bottom) = plt.subplots(
        2, 1, sharex=True, figsize=(4.7, 5.3), gridspec_kw={"height_ratios": [2.6, 1]}
    )
    plot.scatter(x, top)
    color = plot.component_color(0)
    minutes = grid.cpu().numpy()
    center, spread = mean.cpu().numpy(), deviation.cpu().numpy()
    top.fill_between(minutes, center - spread, center + spread, color=color, alpha=0.2, linewidth=0)
    top.plot(minutes, center, color=color, linewidth=2.4, label="mixture")
    top.plot(minutes, line.cpu().numpy(), color=plot.GRAY, linestyle="--", label="one Gaussian")
    top.set_ylabel("wait for the next (min)")
    top.legend(loc="upper left")
    bottom.plot(minutes, spread, color=color, linewidth=2.4)
    bottom.set(
        xlabel="eruption (min)", ylabel="sd of the wait\n(min)", ylim=(0, 1.15 * spread.max())
    )
    return figure


def pitchfork(separation: Tensor, critical: Tensor, examples: Mapping[float, Tensor]) -> Figure:
    """Above, densities at three separations; below, where the density is level at each.

    critical: the positive solution at each separation, (M,), zero where there is none.
    examples: separation -> density on [-5, 5].
    """
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(4.7, 5.7))
    for position, (distance, density) in enumerate(examples.items()):
        top.plot(
            np.linspace(-5, 5, len(density)),
            density.cpu(),
            color=plot.component_color(position),
            linestyle=plot.LINE_STYLES[position],
            label=f"{distance:g}",
        )
    top.set(xlabel=r"$x / \sigma$, from the midpoint", ylabel=r"density $\times\ \sigma$", ylim=0)
    top.legend(title=r"$|\mu_1 - \mu_2| / \sigma$")
    s, c = separation.cpu().numpy(), critical.cpu().numpy()
    split = s > 2
    color = plot.component_color(0)
    bottom.plot(s[~split], 0 * s[~split], color=color, label="mode")
    for sign in (-1, 1):
        branch = np.append(0.0, sign * c[split])
        bottom.plot(np.append(2.0, s[split]), branch, color=color)
    bottom.plot(
        s[split], 0 * s[split], color=plot.component_color(1), linestyle="--", label="valley"
    )
    bottom.plot(s, s / 2, color=plot.GRAY, linestyle=":", linewidth=1.2, label="means")
    bottom.plot(s, -s / 2, color=plot.GRAY, linestyle=":", linewidth=1.2)
    bottom.set(
        xlabel=r"distance of the means, $|\mu_1 - \mu_2| / \sigma$",
        ylabel=r"where the slope is zero, $x / \sigma$",
    )
    bottom.legend(loc="upper left")
    return figure


def three_modes(
    model: GaussianMixture, modes: Tensor, ridge: Tensor, walked: Tensor, height: Tensor
) -> Figure:
    """The density of two crossed components, its modes, and its height along the ridgeline.

    modes (M, 2); ridge (S, 2), its points; walked (S,), how far along; height (S,), the density.
    """
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(4.7, 6.5), gridspec_kw={"height_ratios": [2.2, 1]}
    )
    limits, size = (-2.0, 2.2, -1.2, 3.0), 240
    side = torch.linspace(0, 1, size, device=modes.device, dtype=modes.dtype)
    across, up = limits[0] + side * 4.2, limits[2] + side * 4.2
    grid = torch.cartesian_prod(up, across).flip(1)
    density = model.log_prob(grid).detach().exp().cpu().numpy().reshape(size, size)
    # Below the lowest level nothing is drawn, so that the page shows, light or dark.
    levels = np.linspace(0.03, 1.0, 15) * density.max()
    top.contourf(across.cpu(), up.cpu(), density, levels=levels, cmap="viridis", zorder=0)
    top.plot(*ridge.cpu().numpy().T, color=_PATH, linewidth=2.2, linestyle="--")
    top.plot(*modes.cpu().numpy().T, "^", color=_PEAK, markersize=11)
    for k, place in enumerate(((-1.95, 0.6), (-0.85, 2.2))):
        top.annotate(f"component {k + 1}", place, color=plot.GRAY)
    top.set(xlabel="$x_1$", ylabel="$x_2$", aspect="equal", xlim=limits[:2], ylim=limits[2:])
    bottom.plot(walked.cpu(), height.cpu(), color=_PATH)
    nearest = torch.cdist(modes, ridge).argmin(1)
    bottom.plot(walked[nearest].cpu(), height[nearest].cpu(), "^", color=_PEAK, markersize=11)
    bottom.set(xlabel="distance along the ridgeline", ylabel="density")
    bottom.margins(y=0.15)
    top.set_xticks(range(-2, 3))
    top.set_yticks(range(-1, 4))
    return figure


def twins(
    first: Tensor, second: Tensor, nll: Tensor, minima: Sequence[tuple[float, float]]
) -> Axes:
    """Lines of equal NLL over two means, the mirror, and the twins."""
    _, ax = plt.subplots(figsize=(4.7, 4.8))
    heights = nll.cpu().numpy()
    levels = heights.min() + np.append(0, np.geomspace(0.01, np.ptp(heights), 14))
    # A color for each level, however close.
    even = BoundaryNorm(levels, 256)
    ax.contourf(first.cpu(), second.cpu(), heights.T, levels=levels, cmap="viridis", norm=even)
    low, high = float(first.min()), float(first.max())
    ax.plot([low, high], [low, high], color=plot.component_color(3), linestyle="--")
    for across, up in minima:
        ax.plot(across, up, "*", color=plot.component_color(1), markersize=15)
    ax.set(
        xlabel=r"$\mu_1$ (min)",
        ylabel=r"$\mu_2$ (min)",
        aspect="equal",
        xlim=(low, high),
        ylim=(low, high),
    )
    return ax


def crabs(x: Tensor, fits: Mapping[str, GaussianMixture]) -> Axes:
    """The histogram of the classes, and densities fitted in two ways, with their components."""
    _, ax = plt.subplots()
    values = x[:, 0].cpu().numpy()
    edges = np.append(np.unique(values) - 0.002, values.max() + 0.002)
    edges = np.arange(edges[0], edges[-1] + 0.001, 0.004)
    ax.hist(values, bins=edges, density=True, color=plot.GRAY, alpha=0.3)
    grid = torch.linspace(0.57, 0.70, 300, device=x.device, dtype=x.dtype)
    for style, (name, model) in zip(("-", "--"), fits.items(), strict=True):
        density = model.log_prob(grid[:, None]).detach().exp()
        shares = model.responsibilities(grid[:, None]).detach()
        ax.plot(grid.cpu(), density.cpu(), color=_HALO, linestyle=style, label=name)
        for k in range(model.num_components):
            part = (shares[:, k] * density).cpu()
            ax.plot(grid.cpu(), part, color=plot.component_color(k), linestyle=style)
    ax.set(xlabel="breadth of the forehead / length of the body", ylabel="density")
    ax.legend(loc="upper left")
    return ax
