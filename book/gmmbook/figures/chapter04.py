"""Figures of chapter 04, covariance families."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from gmmedu import plot
from gmmedu.models import GaussianMixture
from gmmedu.plot import GRAY, PALETTE

#: Colors of the three ways to keep a scale positive; no component of the chapter has them.
_WAYS = (PALETTE[4], PALETTE[5], PALETTE[3])


def wedge(correlation: float, entries: Tensor | None = None, theta: Tensor | None = None) -> Figure:
    """The NLL over the covariances [[v, u], [u, v]], and two descents there.

    correlation: of the data, whose variances are 1; entries, theta: paths (T, 2, 2), or None for
    the start and the end that is hoped for.
    """
    figure, ax = plt.subplots(figsize=(4.7, 3.9))
    v, u = np.meshgrid(np.linspace(0.02, 1.5, 400), np.linspace(-0.6, 1.3, 400))
    inside = v > np.abs(u)
    determinant = np.where(inside, v**2 - u**2, np.nan)
    nll = np.log(2 * np.pi) + 0.5 * np.log(determinant) + (v - correlation * u) / determinant
    levels = [2.05, 2.15, 2.3, 2.5, 2.75, 3.1, 3.6, 4.4, 6]
    ax.contour(v, u, nll, levels=levels, colors=[GRAY], linewidths=0.8, alpha=0.7)
    for sign in (1, -1):
        edge = np.array([0.0, 1.5])
        ax.fill_between(edge, sign * edge, sign * 1.7, color=GRAY, alpha=0.22, linewidth=0)
        ax.plot(edge, sign * edge, color=GRAY, linewidth=1.2)
    ax.text(0.1, 0.95, "no covariance", fontsize=13)
    ax.text(0.03, -0.55, "no covariance", fontsize=11)
    ax.set(
        xlim=(0, 1.5), ylim=(-0.6, 1.3), xlabel="variance $v$ (of both)", ylabel="covariance $u$"
    )
    if entries is None or theta is None:
        ax.plot(1, 0, "o", color=PALETTE[1], markersize=10)
        ax.plot(1, correlation, "*", color=PALETTE[0], markersize=15)
        return figure
    ways = ((entries, PALETTE[1], "o-", "entries"), (theta, PALETTE[0], "s-", "log-Cholesky"))
    for path, color, style, label in ways:
        a = path.cpu().numpy()
        mean_variance, covariance = ((a[:, 0, 0] + a[:, 1, 1]) / 2, a[:, 0, 1])
        ax.plot(mean_variance, covariance, style, color=color, markersize=4.5, label=label)
    last = entries[-1].cpu().numpy()
    ax.plot(last[0, 0], last[0, 1], "X", color=PALETTE[1], markersize=12)
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def families(x: Tensor, models: Mapping[str, GaussianMixture]) -> Figure:
    """The same data under every family: ellipses of 50 % and 95 %, and the count of numbers."""
    figure, axes = plt.subplots(3, 2, figsize=(4.7, 6.5), sharex=True, sharey=True)
    for ax, (name, model) in zip(axes.flat, models.items(), strict=True):
        plot.scatter(x, ax, size=6)
        plot.ellipses(model, ax)
        ax.set_title(f"{name.replace('_', ' ')}: {model.num_free_parameters}")
        ax.set_aspect("equal")
        ax.set(xlim=(-7, 6.5), ylim=(-6.5, 5.5))
    for ax in axes[-1]:
        ax.set_xlabel("$x_1$")
    for ax in axes[:, 0]:
        ax.set_ylabel("$x_2$")
    return figure


def units(x: Tensor, fits: Mapping[str, tuple[GaussianMixture, Tensor]]) -> Figure:
    """Points colored by component, ellipses drawn back in minutes, for each choice of units.

    fits: title -> (model, the scale (2,) that its coordinates have relative to minutes).
    """
    figure, axes = plt.subplots(len(fits), 1, figsize=(4.7, 5.6), sharex=True, sharey=True)
    for ax, (title, (model, scale)) in zip(axes, fits.items(), strict=True):
        plot.scatter(x, ax, labels=model.predict(x * scale))
        covariances = model.covariances / scale / scale.unsqueeze(-1)
        plot.ellipses((model.weights, model.means / scale, covariances), ax)
        ax.set_title(title)
        ax.set_ylabel("wait (min)")
        ax.set(xlim=(0.5, 6.2), ylim=(35, 105))
    axes[-1].set_xlabel("eruption (min)")
    return figure


def gauge(levels: Tensor, grid: Tensor, paths: Tensor) -> Figure:
    """The NLL over two logits, with descents from some starts.

    levels: (G, G), the NLL at rows alpha_2 and columns alpha_1 of grid (G,); paths: (T, S, 2).
    """
    figure, ax = plt.subplots(figsize=(4.7, 4.5))
    a = grid.cpu().numpy()
    f = levels.cpu().numpy()
    heights = f.min() + np.array([0.003, 0.02, 0.06, 0.13, 0.24, 0.4, 0.6])
    ax.contour(a, a, f, levels=heights, colors=[GRAY], linewidths=0.8, alpha=0.8)
    bottom = np.unravel_index(f.argmin(), f.shape)
    offset = a[bottom[0]] - a[bottom[1]]
    ax.plot(a, a + offset, color=PALETTE[2], linewidth=3, alpha=0.7, label="the same best weights")
    for s in range(paths.shape[1]):
        path = paths[:, s].cpu().numpy()
        label = "descent" if s == 0 else None
        ax.plot(path[:, 0], path[:, 1], color=PALETTE[1], linewidth=1.8, label=label)
        ax.plot(*path[0], "o", color=PALETTE[1], markersize=6)
    ax.set_aspect("equal")
    limits = (a[0], a[-1])
    ax.set(xlim=limits, ylim=limits, xlabel=r"logit $\alpha_1$", ylabel=r"logit $\alpha_2$")
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def scales(ways: Sequence[str], paths: Tensor, starts: Sequence[float]) -> Figure:
    """The scale after each step, a panel for each start and a curve for each way.

    paths: (T, W, S), in units of the best scale.
    """
    rows = len(starts)
    figure, axes = plt.subplots(rows, 1, figsize=(4.7, 1.8 * rows + 0.6), sharex=True)
    for s, (ax, start) in enumerate(zip(axes, starts, strict=True)):
        ax.axhline(1, color=GRAY, linestyle=":", linewidth=1.2)
        _curves(ax, ways, paths[:, :, s])
        ax.set_title(f"start at {start:g}")
        ax.set_ylabel(r"$\sigma / s$")
    axes[-1].set_xlabel("step of Adam")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=3)
    return figure


def _curves(ax: Axes, ways: Sequence[str], paths: Tensor) -> None:
    """A curve for each way, the last one thin so that what lies under it shows; paths: (T, W)."""
    styles = (("-", 2.2), ("-", 3.6), ("--", 2.0))
    curves = zip(ways, paths.T, _WAYS, styles, strict=True)
    for way, path, color, (style, width) in curves:
        ax.plot(path.cpu().numpy(), color=color, linestyle=style, linewidth=width, label=way)
    ax.set_yscale("log")


def held_out(fitted: Mapping[str, Tensor], left_out: Mapping[str, Tensor]) -> Axes:
    """NLL less that of full, on points fitted and on points left out, a row for each other family.

    Both: family -> the NLL of each point, (N,).
    """
    figure, ax = plt.subplots(figsize=(4.7, 4.1))
    names = [name for name in fitted if name != "full"]
    rows = np.arange(len(names))[::-1]
    ax.axvline(0, color=GRAY, linestyle=":", linewidth=1.2)
    for values, color, marker, label, shift in (
        (fitted, PALETTE[5], "o", "points fitted", 0.16),
        (left_out, PALETTE[4], "s", "points left out", -0.16),
    ):
        worse = np.stack([(values[name] - values["full"]).cpu().numpy() for name in names])
        error = 1.96 * worse.std(1, ddof=1) / np.sqrt(worse.shape[1])
        style: dict[str, Any] = {"fmt": marker, "color": color, "markersize": 9, "capsize": 4}
        bars = error if values is left_out else None
        ax.errorbar(worse.mean(1), rows + shift, xerr=bars, label=label, **style)
    ax.set_yticks(rows, [name.replace("_", "\n") for name in names])
    ax.set_xlabel("NLL less that of full (nats)")
    figure.legend(loc="outside upper center", ncols=2)
    return ax
