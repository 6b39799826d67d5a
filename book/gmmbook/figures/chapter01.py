"""Figures of chapter 01, the multivariate normal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from numpy.typing import NDArray
from torch import Tensor

from gmmedu import plot
from gmmedu.models import GaussianMixture

_A, _B, _MODEL = (plot.component_color(1), plot.component_color(2), plot.component_color(0))


def question(x: Tensor, mean: Tensor, sd: Tensor, a: Tensor, b: Tensor) -> Axes:
    """The data x (N, 2), two points, and the box around the mean whose corners they are."""
    ax = _plane(x)
    center, half = mean.cpu().numpy(), (a - mean).abs().cpu().numpy()
    box = Rectangle(
        (center[0] - half[0], center[1] - half[1]),
        *(2 * half),
        facecolor="none",
        edgecolor=plot.GRAY,
        linestyle="--",
    )
    ax.add_patch(box)
    ax.plot(*center, "+", color=plot.GRAY, markersize=12, markeredgewidth=2)
    _name_points(ax, a, b)
    return ax


def affine_map(noise: Tensor, factor: Tensor, variances: Tensor, axes: Tensor) -> Figure:
    """Noise (N, 2) on a grid, and the same under ``factor`` (2, 2): its columns to the circle of
    radius 2, and the eigenvectors, the columns of ``axes``, to twice the roots of ``variances``."""
    figure, panels = plt.subplots(1, 2, figsize=(4.7, 3.9), width_ratios=[3.3, 3.9])
    lines = [np.array([[s, s], [-3.0, 3.0]]) for s in np.arange(-3.0, 4.0)]
    lines += [line[::-1] for line in lines]
    angles = np.linspace(0, 2 * np.pi, 200)
    circle = 2 * np.stack([np.cos(angles), np.sin(angles)])
    cell = np.array([[-2.0, -1.0, -1.0, -2.0], [1.0, 1.0, 2.0, 2.0]])
    for ax, matrix, name in zip(panels, (torch.eye(2), factor), "el", strict=True):
        linear = matrix.cpu().numpy()
        for line in lines:
            ax.plot(*(linear @ line), color=plot.GRAY, linewidth=0.7, alpha=0.5, zorder=1)
        ax.add_patch(Polygon((linear @ cell).T, color=plot.component_color(4), alpha=0.55))
        plot.scatter(noise @ matrix.mT, ax, size=6, alpha=0.5)
        ax.plot(*(linear @ circle), color=plot.component_color(3), linewidth=2, zorder=3)
        for k in range(2):
            tip, color = 2 * linear[:, k], plot.component_color(k)
            _arrow(ax, tip, color)
            away = ((0.8, -0.35), (-0.1, 0.65))[k]
            _name(ax, rf"$2\,\mathbf{{{name}}}_{k + 1}$", tip + np.array(away), color)
        ax.set_aspect("equal")
        ax.set_axis_off()
    green = plot.component_color(2)
    for k, (direction, variance) in enumerate(zip(axes.mT.numpy(), variances.numpy(), strict=True)):
        reach = 2 * np.sqrt(variance) * direction * np.sign(direction[1])
        panels[1].plot(*np.stack([-reach, reach], axis=1), "--", color=green, zorder=4)
        _name(panels[1], rf"$\mathbf{{u}}_{k + 1}$", -1.25 * reach, green)
    for ax, reach_x, title in zip(
        panels, (3.3, 3.9), (r"$\mathbf{y}$", r"$\mathbf{x} = \mathbf{L}\,\mathbf{y}$"), strict=True
    ):
        ax.set(xlim=(-reach_x, reach_x), ylim=(-4.45, 4.45), title=title)
    return figure


def distances(
    x: Tensor, mean: Tensor, covariance: Tensor, radii: Sequence[float], a: Tensor, b: Tensor
) -> Axes:
    """The data and the ellipses at Mahalanobis distance ``radii``, with the mass inside each."""
    ax = _plane(x)
    for radius in radii:
        mass = -np.expm1(-(radius**2) / 2)
        vertices = plot.ellipse(mean, covariance, mass)
        ax.add_patch(Polygon(vertices, facecolor=_MODEL, alpha=0.09, linewidth=0))
        ax.add_patch(Polygon(vertices, facecolor="none", edgecolor=_MODEL, linewidth=1.8))
        lowest = vertices[vertices[:, 1].argmin()]
        ax.annotate(
            f"{mass:.0%}",
            lowest,
            xytext=(-2, -4),
            textcoords="offset points",
            ha="right",
            va="top",
            color=_MODEL,
        )
    ax.plot(*mean.cpu().numpy(), "+", color=_MODEL, markersize=10, markeredgewidth=2)
    _name_points(ax, a, b)
    ax.autoscale_view()
    ax.set_ylim(bottom=ax.get_ylim()[0] - 2)
    return ax


def shells(radius: NDArray[np.float64], curves: Mapping[int, NDArray[np.float64]]) -> Axes:
    """The density of the distance from the mean, for each dimension, named at its peak."""
    _, ax = plt.subplots(figsize=(4.7, 3.3))
    for k, (dimension, density) in enumerate(curves.items()):
        color = plot.component_color(k)
        peak = int(density.argmax())
        ax.fill_between(radius, density, color=color, alpha=0.15, linewidth=0)
        ax.plot(radius, density, color=color)
        ax.annotate(
            f"$D={dimension}$" if k in (0, len(curves) - 1) else f"${dimension}$",
            (radius[peak], density[peak]),
            xytext=(4 if k == 0 else 0, 5),
            textcoords="offset points",
            ha="left" if k == 0 else "center",
            color=color,
            fontsize=13,
        )
    ax.set(xlabel="distance from the mean (standard deviations)", ylabel="density")
    ax.set(xlim=(0, radius[-1]), ylim=(0, None))
    return ax


def whitened(clouds: Mapping[str, Tensor], marks: Mapping[str, Tensor]) -> Figure:
    """Clouds (N, 2) by name, the first in its own units; two marked points in each, and the
    circles through them where the cloud is white."""
    figure, panels = plt.subplots(1, len(clouds), figsize=(4.7, 3.1))
    angles = np.linspace(0, 2 * np.pi, 200)
    for ax, (name, cloud) in zip(panels.flat, clouds.items(), strict=True):
        plot.scatter(cloud, ax, size=8)
        first, second = marks[name]
        if ax is not panels.flat[0]:
            for mark, color in ((first, _A), (second, _B)):
                radius = mark.norm().item()
                ax.plot(
                    radius * np.cos(angles),
                    radius * np.sin(angles),
                    color=color,
                    linewidth=1.2,
                    linestyle="--",
                )
            ax.set_aspect("equal")
            ax.set(xlim=(-3.9, 3.9), ylim=(-3.9, 3.9), xticks=[-3, 0, 3], yticks=[-3, 0, 3])
            ax.set(xlabel="$y_1$", ylabel="$y_2$")
        else:
            ax.set(xlabel="eruption - mean", ylabel="wait - mean")
        _name_points(ax, first, second)
        ax.set_title(name)
    return figure


def slices(
    x: Tensor, model: GaussianMixture, seen: Sequence[float], peaks: Sequence[float], width: float
) -> Axes:
    """The data, the model's ellipses, and the Gaussians of the second coordinate given the first:
    their ``peaks`` at the values ``seen``, and their common standard deviation ``width``."""
    ax = _plane(x)
    plot.ellipses(model, ax, fill=False)
    color = plot.component_color(1)
    slope = (peaks[-1] - peaks[0]) / (seen[-1] - seen[0])
    ends = np.array([3.0, 5.6])
    ax.plot(ends, peaks[0] + slope * (ends - seen[0]), color=color, zorder=3)
    offsets = np.linspace(-3.2, 3.2, 120)
    for value, peak in zip(seen, peaks, strict=True):
        bell = value + 0.32 * np.exp(-(offsets**2) / 2)
        height = peak + width * offsets
        ax.plot([value, value], height[[0, -1]], color=plot.component_color(2), linewidth=1)
        ax.fill_betweenx(
            height, value, bell, color=plot.component_color(2), alpha=0.35, linewidth=0, zorder=4
        )
        ax.plot(bell, height, color=plot.component_color(2), zorder=5)
    center = model.means[0].detach().cpu().numpy()
    covariance = model.covariances[0].detach().cpu().numpy()
    for mass in (0.5, 0.95):
        step = plot.ellipse_radius(mass) * covariance[:, 0] / np.sqrt(covariance[0, 0])
        for sign in (-1, 1):
            ax.plot(*(center + sign * step), "o", color=color, markersize=6, zorder=6)
    return ax


def entropies(
    grid: NDArray[np.float64],
    densities: Mapping[str, NDArray[np.float64]],
    entropy: Mapping[str, float],
) -> Figure:
    """Densities on a grid by name, and below them a bar for the entropy of each."""
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(4.7, 4.8), height_ratios=[2, 1])
    for k, (name, density) in enumerate(densities.items()):
        color, style = plot.component_color(k), plot.LINE_STYLES[k]
        upper.plot(grid, density, color=color, linestyle=style, label=name)
        lower.barh(name, entropy[name], color=color, alpha=0.7, height=0.6)
        lower.annotate(
            f"{entropy[name]:.3f}",
            (entropy[name], k),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
        )
    upper.set(xlabel="$x$", ylabel="density", ylim=(0, None))
    upper.legend()
    lower.invert_yaxis()
    lower.set(xlabel="entropy (nats)", xlim=(0, 1.65))
    return figure


def _plane(x: Tensor) -> Axes:
    _, ax = plt.subplots()
    plot.scatter(x, ax)
    ax.set(xlabel="eruption (min)", ylabel="wait for the next (min)")
    return ax


def _name_points(ax: Axes, a: Tensor, b: Tensor) -> None:
    for name, point, color, marker in (("A", a, _A, "s"), ("B", b, _B, "D")):
        place: Any = point.cpu().numpy()
        ax.plot(*place, marker, color=color, markersize=8, zorder=7)
        ax.annotate(
            name,
            place,
            xytext=(7, 3),
            textcoords="offset points",
            color=color,
            fontsize=14,
            fontweight="bold",
            zorder=7,
        )


def _arrow(ax: Axes, tip: NDArray[np.float64], color: str) -> None:
    ax.annotate(
        "",
        tip,
        xytext=(0, 0),
        arrowprops={"arrowstyle": "-|>", "color": color, "linewidth": 2.2, "shrinkA": 0},
        zorder=5,
    )


def _name(ax: Axes, text: str, place: NDArray[np.float64], color: str) -> None:
    ax.annotate(text, place, color=color, ha="center", va="center", fontsize=15, zorder=6)
