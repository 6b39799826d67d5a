"""Figures of chapter 12, EM as a layer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from gmmedu import MixtureDistribution, plot


def pulls(x: Tensor, slopes: Mapping[str, Tensor]) -> Axes:
    """What each point (N,) does to an output, by more ways than one: (N,) each."""
    _, ax = plt.subplots(figsize=(4.7, 3.0))
    order = x.argsort()
    styles = zip((plot.PALETTE[6], plot.PALETTE[4], plot.GRAY), ("-", "--", ":"), strict=True)
    for (label, slope), (color, style) in zip(slopes.items(), styles, strict=False):
        ax.plot(x[order].cpu(), slope[order].cpu(), style, color=color, linewidth=2, label=label)
    ax.axhline(0, color=plot.GRAY, linewidth=1)
    ax.set(xlabel="x", ylabel="gradient, times N")
    ax.legend()
    return ax


def truncation(errors: Mapping[float, Tensor], rates: Mapping[float, float]) -> Axes:
    """Relative error of the gradient of T unrolled steps, (T,) for each separation, and the
    slope that the rate foretells."""
    _, ax = plt.subplots(figsize=(4.7, 3.6))
    for (apart, error), color in zip(errors.items(), plot.PALETTE, strict=False):
        steps = torch.arange(1, len(error) + 1)
        ax.plot(steps, error.cpu(), color=color, linewidth=2, label=f"{apart:g} sd apart")
        last = int((error > 1e-8).sum()) - 1
        line = error[last].cpu() * rates[apart] ** (steps - steps[last])
        ax.plot(steps, line, ":", color="black", linewidth=1)
    ax.set(xscale="log", yscale="log", ylim=(1e-6, 1.5))
    ax.set(xlabel="T, terms of the series", ylabel="relative error")
    ax.legend()
    return ax


def features(
    z: Mapping[str, Tensor],
    fits: Mapping[str, MixtureDistribution],
    classes: Tensor,
    labeled: Tensor,
) -> Figure:
    """Features (N, 2) before and after, ellipses of the mixture, and which rows have a label."""
    figure, axes = plt.subplots(len(z), 1, figsize=(4.7, 3.6 * len(z)))
    for ax, (title, points) in zip(axes, z.items(), strict=True):
        points = points.detach().cpu()
        for k, marker in enumerate("o^"):
            own = points[classes.cpu() == k]
            color = plot.component_color(k)
            ax.plot(*own.T, marker, color=color, markersize=2.5, alpha=0.5, linestyle="")
            seen = points[labeled.cpu()][classes.cpu()[labeled.cpu()] == k]
            ax.plot(*seen.T, marker, color=color, markersize=8, markeredgecolor="black")
        mixture = fits[title]
        parts = mixture.weights, mixture.component_means, mixture.component_covariances
        weights, means, covariances = (part.detach().cpu() for part in parts)
        plot.ellipses((weights, means, covariances), ax)
        ax.set(title=title, xlabel="first feature", ylabel="second feature")
    return figure
