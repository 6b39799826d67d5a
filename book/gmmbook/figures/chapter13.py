"""Figures of chapter 13, applications."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from gmmedu import GaussianMixture, MixtureDistribution, plot


def pictures(images: Mapping[str, Tensor]) -> Figure:
    """Pictures (H, W, 3) of colors between 0 and 1, one below the other."""
    figure, axes = plt.subplots(len(images), 1, figsize=(4.7, 3.2 * len(images)), squeeze=False)
    for ax, (title, image) in zip(axes[:, 0], images.items(), strict=True):
        ax.imshow(image.clamp(0, 1).cpu().numpy(), interpolation="nearest")
        ax.set(title=title, xticks=[], yticks=[])
        ax.grid(False)
    return figure


def painted(segments: Tensor) -> Tensor:
    """Segments (H, W) in the colors of their components, (H, W, 3)."""
    palette = [plt.matplotlib.colors.to_rgb(plot.component_color(k)) for k in range(8)]
    return torch.tensor(palette, dtype=torch.float64)[segments.cpu()]


def clusters(
    x: Tensor, species: Tensor, names: tuple[str, ...], model: GaussianMixture, labels: Tensor
) -> Axes:
    """Two measurements (N, 2) in the colors of components, marked by species, with ellipses."""
    _, ax = plt.subplots(figsize=(4.7, 4.2))
    x, species, labels = x.cpu(), species.cpu(), labels.cpu()
    for s, (name, marker) in enumerate(zip(names, "o^s", strict=True)):
        ax.plot([], [], marker, color=plot.GRAY, label=name)
        for k in range(model.num_components):
            own = x[(species == s) & (labels == k)]
            ax.plot(*own.T, marker, color=plot.component_color(k), markersize=4, alpha=0.6)
    plot.ellipses(model, ax, fill=False)
    ax.set(xlabel="bill length (mm)", ylabel="flipper length (mm)")
    ax.legend(fontsize=9)
    return ax


def scores(values: Mapping[str, Tensor], odd: Tensor) -> Figure:
    """Scores (N,) of each model; those of the anomalies ``odd`` (N,) as lines above the rest."""
    figure, axes = plt.subplots(len(values), 1, figsize=(4.7, 2.0 * len(values) + 0.5))
    for ax, (title, score) in zip(axes, values.items(), strict=True):
        usual, strange = score[~odd].cpu(), score[odd].cpu()
        ax.hist(usual.numpy(), bins=40, color=plot.GRAY, alpha=0.7, label="the others")
        ax.vlines(strange, 0, ax.get_ylim()[1] / 2, color=plot.PALETTE[1], label="anomalies")
        ax.set(title=title, ylabel="rows")
    axes[-1].set_xlabel("score: minus log density (nats)")
    axes[0].legend(fontsize=9)
    return figure


def filled(tables: Mapping[str, Tensor], missing: Tensor) -> Figure:
    """Temperature and ozone of completed tables (N, 2), with what was ``missing`` (N,) marked."""
    size = (4.7, 2.3 * len(tables) + 0.5)
    figure, axes = plt.subplots(len(tables), 1, figsize=size, sharex=True, sharey=True)
    for ax, (title, table) in zip(axes, tables.items(), strict=True):
        seen, made = table[~missing].cpu(), table[missing].cpu()
        ax.plot(*seen.T, ".", color=plot.GRAY, label="measured")
        ax.plot(*made.T, "x", color=plot.PALETTE[1], markersize=5, label="filled in")
        ax.axhline(0, color=plot.GRAY, linewidth=1)
        ax.set(title=title, ylabel="ozone (ppb)")
    axes[-1].set_xlabel("temperature (°F)")
    axes[0].legend(fontsize=9)
    return figure


def ozone(given: Mapping[str, tuple[MixtureDistribution, bool]]) -> Axes:
    """Densities of ozone, each with whether it is one of the logarithm."""
    _, ax = plt.subplots(figsize=(4.7, 3.4))
    grid = torch.linspace(-40, 180, 441, dtype=torch.float64)
    for i, (label, (mixture, of_log)) in enumerate(given.items()):
        at = grid.to(mixture.mean.device)
        if of_log:
            density = torch.where(at > 0, mixture.log_prob(at.clamp_min(1e-9).log()[:, None]), 0.0)
            density = torch.where(at > 0, density.exp() / at, 0.0)
        else:
            density = mixture.log_prob(at[:, None]).exp()
        style = ("-", "--")[int(of_log)]
        ax.plot(grid, density.detach().cpu(), style, color=plot.PALETTE[i // 2], label=label)
    ax.axvline(0, color=plot.GRAY, linewidth=1)
    ax.set(xlabel="ozone (ppb)", ylabel="density (1/ppb)")
    ax.legend(fontsize=9)
    return ax
