"""Figures of chapter 08, singularities."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from gmmedu import plot
from gmmedu.models import GaussianMixture

#: Curves that stand for no component.
_HUES = tuple(plot.PALETTE[k] for k in (6, 3, 4, 7, 5, 2))


def needle(history: Sequence[float], model: GaussianMixture, x: Tensor) -> Figure:
    """The NLL of each iteration, and the last density over the points x (N, 1), in logarithms."""
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(4.7, 5.5))
    top.plot(range(1, len(history)), history[1:], "o-", color=_HUES[0], markersize=4)
    top.annotate(
        "then singular",
        (len(history) - 1, history[-1]),
        (-12, 0),
        textcoords="offset points",
        ha="right",
        va="center",
        color=_HUES[0],
    )
    top.set(xlabel="iteration of EM", ylabel="mean NLL (nats)")
    own = model.means.detach().flatten()
    wide = torch.linspace(7, 36, 500).to(own)
    deviations = model.covariances.detach().flatten().sqrt()
    near = [
        mean + sd * torch.linspace(-4, 4, 41).to(own)
        for mean, sd in zip(own, deviations, strict=True)
    ]
    grid = torch.cat([wide, *near]).sort().values
    density = model.log_prob(grid[:, None]).detach().exp()
    bottom.plot(_numpy(grid), _numpy(density), color=_HUES[0])
    marks = _numpy(x).ravel()
    bottom.plot(marks, np.full_like(marks, 1.6e-5), "|", color=plot.GRAY, markersize=9)
    bottom.set_yscale("log")
    bottom.set(
        xlabel="velocity (1000 km/s)",
        ylabel="density (s / 1000 km)",
        xlim=(7, 36),
        ylim=(1e-5, 3 * float(density.max())),
    )
    return figure


def falls(sds: Tensor, curves: Mapping[int, Tensor]) -> Figure:
    """The NLL against the width across a flat that is thin in m directions, for each m."""
    figure, ax = plt.subplots(figsize=(4.7, 3.9))
    num_dims = max(curves)
    names = {0: "a point", 1: "a line", 2: "a plane"}
    styles = ("-", "-", "-", "--", "--")
    order = sorted(curves, reverse=True)
    for hue, style, m in zip(_HUES, styles, order, strict=False):
        dimension = num_dims - m
        name = names.get(dimension, f"dimension {dimension}")
        points = num_dims - m + 1
        ax.plot(
            _numpy(sds),
            _numpy(curves[m]),
            color=hue,
            linestyle=style,
            linewidth=2.2,
            label=f"{name}: {points} x {m} = {points * m}",
        )
    _narrowing(ax, sds)
    ax.set(xlabel="standard deviation across the flat", ylabel="mean NLL (nats per point)")
    ax.legend(title="points x directions", loc="lower left")
    return figure


def watershed(widths: Tensor, growth: Tensor) -> Figure:
    """By what one EM step multiplies each width (P, W), a curve for each point: growth (P, W)."""
    figure, ax = plt.subplots(figsize=(4.7, 3.9))
    factors = np.clip(_numpy(growth), 1e-9, None)
    for own, factor in zip(_numpy(widths), factors, strict=True):
        ax.plot(own, factor, color=_HUES[0], alpha=0.5)
    ax.axhline(1, color=plot.GRAY, linestyle=":", linewidth=1.6)
    ax.set_yscale("log")
    ax.set_xscale("log")
    ticks = [10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.set(
        xlabel="standard deviation / distance to the neighbor",
        ylabel="after / before",
        xlim=(10, 0.05),
        ylim=(1e-4, 30),
    )
    ax.text(0.1, 1.5, "widens", color=plot.GRAY, ha="center")
    ax.text(0.5, 0.1, "shrinks", color=plot.GRAY, ha="center")
    return figure


def live(tracks: Mapping[str, Tensor]) -> Figure:
    """The smallest standard deviation and the NLL (T, 2) after each iteration of each fit.

    NaN where a fit fell out of range.
    """
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(4.7, 5.8), sharex=True)
    for hue, (name, track) in zip(_HUES, tracks.items(), strict=False):
        widths, nlls = _numpy(track).T
        widths = np.where(np.isfinite(widths), widths, 1e-9)  # below
        top.plot(widths, color=hue, label=name, linewidth=2.2)
        bottom.plot(nlls, color=hue, linewidth=2.2)
    top.set_xscale("log")
    top.set_yscale("log")
    top.set(ylabel="smallest standard deviation", ylim=(3e-5, 3))
    top.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    bottom.set(xlabel="iteration", ylabel="mean NLL (nats)")
    return figure


def how_often(study: Sequence[Mapping[str, Any]]) -> Figure:
    """Share of full fits that collapse, for each D and K, against points per component."""
    figure, ax = plt.subplots(figsize=(4.7, 3.9))
    rows = [row for row in study if row["family"] == "full"]
    for hue, num_dims in zip(_HUES, (1, 2, 4, 8), strict=False):
        for style, num_components in (("-", 2), ("--", 8)):
            own = [
                row
                for row in rows
                if row["num_dims"] == num_dims and row["num_components"] == num_components
            ]
            share = np.array([r["collapsed"] / r["starts"] for r in own])
            starts = np.array([r["starts"] for r in own])
            ax.errorbar(
                [row["ratio"] for row in own],
                share,
                np.sqrt(share * (1 - share) / starts),
                color=hue,
                linestyle=style,
                label=f"D = {num_dims}" if style == "-" else None,
            )
    ax.set_xscale("log")
    ticks = [1, 1.5, 2, 3, 4, 6, 8, 12]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.set(
        xlabel="points per component / (D + 1)",
        ylabel="share of fits that collapse",
        ylim=(-0.02, 1.02),
    )
    ax.legend(loc="upper right")
    return figure


def cures(sds: Tensor, curves: Mapping[str, Tensor], floor: float, clamped: Tensor) -> Figure:
    """Objectives against the width of a collapsing component; the clamp ends at its floor."""
    figure, ax = plt.subplots(figsize=(4.7, 4.5))
    widths = _numpy(sds)
    styles = {"no cure": ("-", 2.6), "prior": ("-", 2.6), "tied": ("--", 2.6)}
    low, high = float(curves["no cure"].min()) - 0.3, 5.2
    hues = {"no cure": _HUES[0], "prior": _HUES[5], "tied": _HUES[1]}
    for name, values in curves.items():
        style, width = styles[name]
        shown = np.where(_numpy(values) < high + 3, _numpy(values), np.nan)
        ax.plot(widths, shown, style, linewidth=width, color=hues[name])
        if name == "no cure":
            at = int(np.abs(np.log(widths) - math.log(1e-9)).argmin())
            ax.annotate(
                name, (widths[at], shown[at]), (10, 6), textcoords="offset points", color=hues[name]
            )
        else:
            at = int(np.nonzero(shown > high - 0.5)[0].min())
            ax.annotate(
                name,
                (widths[at], high - 0.5),
                (8, 0) if name == "prior" else (-8, 0),
                textcoords="offset points",
                ha="left" if name == "prior" else "right",
                color=hues[name],
            )
    end = float(clamped[-1])
    ax.plot(
        widths[: len(clamped)],
        _numpy(clamped),
        color=_HUES[2],
        linewidth=6,
        alpha=0.55,
        solid_capstyle="butt",
    )
    ax.plot(floor, end, "o", color=_HUES[2], markersize=11)
    ax.annotate(
        "clamp: no further", (floor, end), (10, 6), textcoords="offset points", color=_HUES[2]
    )
    _narrowing(ax, sds)
    ax.set_xlim(left=30)
    ax.set(
        xlabel="standard deviation (1000 km/s)",
        ylabel="objective (nats per galaxy)",
        ylim=(low, high),
    )
    return figure


def settings(
    floors: Sequence[float],
    scatters: Sequence[float],
    scores: Mapping[str, Mapping[str, tuple[Tensor, int]]],
) -> Figure:
    """Held-out NLL above the truth's against the setting of each cure, a panel a problem.

    The place of a prior is the width at its mode in two dimensions, where D + 2 degrees of freedom
    make the variance a seventh of its scatter.
    """
    figure, axes = plt.subplots(2, 1, figsize=(4.7, 6.0), sharex=True)
    for ax, (problem, score) in zip(axes, scores.items(), strict=True):
        for hue, name, values, places in (
            (_HUES[2], "Clamp", floors, floors),
            (_HUES[5], "Prior", scatters, [math.sqrt(s / 7) for s in scatters]),
        ):
            results = [score[f"{name}({value:g})"][0] for value in values]
            means = [float(result.mean()) for result in results]
            errors = [float(result.std()) / math.sqrt(len(result)) for result in results]
            ax.errorbar(places, means, errors, color=hue, marker="o", markersize=5, label=name)
        ax.set_title(problem)
        ax.set_xscale("log")
        ax.set_ylabel("NLL above the truth's (nats)")
        ax.set_ylim(bottom=0)
    axes[0].legend(loc="lower left")
    axes[1].set_xlabel("setting (sd of the data)")
    return figure


def hostile(records: Sequence[Mapping[str, Any]]) -> Figure:
    """Fits that are worse than the peer's, for each mitigation and kind of data: a panel a rule."""
    rules = {"em, 1e-3": "scikit-learn's rule", "em, 1e-8": "the rule of fit_em"}
    names = list(dict.fromkeys(row["mitigation"] for row in records))
    worse = [row for row in records if row["fitter"] in rules and row["worse"]]
    kinds = list(dict.fromkeys(row["data"] for row in worse))
    figure, axes = plt.subplots(2, 1, figsize=(4.7, 6.2), sharex=True)
    for ax, (fitter, rule) in zip(axes, rules.items(), strict=True):
        left = np.zeros(len(names), dtype=int)
        for n, kind in enumerate(kinds):
            counts = np.zeros_like(left)
            for row in worse:
                if row["fitter"] == fitter and row["data"] == kind:
                    counts[names.index(row["mitigation"])] += row["worse"]
            ax.barh(names, counts, left=left, color=plot.PALETTE[n], label=kind)
            left = left + counts
        for place, whole in enumerate(left.tolist()):
            ax.text(whole + 1, place, str(whole), va="center")
        ax.invert_yaxis()
        ax.set_title(rule, loc="left")
        ax.set_xlim(0, 110)
    axes[-1].set_xlabel("fits that are worse, of 360")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def _narrowing(ax: Axes, sds: Tensor) -> None:
    """A logarithmic axis of widths that runs from wide to narrow."""
    ax.set_xscale("log")
    ax.set_xlim(float(sds.max()), float(sds.min()))


def _numpy(values: Tensor) -> NDArray[np.float64]:
    return values.detach().cpu().double().numpy()
