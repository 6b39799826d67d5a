"""Draws the picture of the README and the one a shared link shows (`make pictures`).

Both show the same fit, made here by the package: the eruptions of Old Faithful under two Gaussian
components, ellipses at 50 % and 95 % of each component's mass.
"""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Ellipse

import gmmedu

STATIC = Path(__file__).resolve().parents[1] / "_static"
COLORS = ("#0072B2", "#D55E00")
GREY = "#808080"  # readable on white and on black alike


def fitted() -> tuple[torch.Tensor, gmmedu.GaussianMixture]:
    """The data and the mixture that EM reaches from k-means++."""
    x = gmmedu.load_old_faithful()
    model = gmmedu.GmmFull(num_components=2, num_dims=2, dtype=x.dtype)
    generator = torch.Generator().manual_seed(0)
    gmmedu.initialize(model, x, method="kmeans++", generator=generator)
    gmmedu.fit_em(model, x, num_iterations=200, tolerance=1e-10)
    return x, model


def draw(axes: Axes, x: torch.Tensor, model: gmmedu.GaussianMixture) -> None:
    with torch.no_grad():
        means, covariances = model.means.detach(), model.covariances.detach()
        order = means[:, 0].argsort().tolist()  # short eruptions first, and blue
    axes.scatter(x[:, 0], x[:, 1], s=14, color=GREY, alpha=0.6, linewidths=0)
    for color, k in zip(COLORS, order, strict=True):
        variances, directions = torch.linalg.eigh(covariances[k])
        angle = math.degrees(math.atan2(float(directions[1, 1]), float(directions[0, 1])))
        for mass, alpha in ((0.95, 0.13), (0.5, 0.30)):
            # In two dimensions the mass within radius r is 1 - exp(-r^2 / 2).
            radius = math.sqrt(-2 * math.log1p(-mass))
            minor, major = (2 * radius * variances.sqrt()).tolist()
            center = means[k].tolist()
            axes.add_patch(Ellipse(center, major, minor, angle=angle, color=color, alpha=alpha))
            axes.add_patch(
                Ellipse(center, major, minor, angle=angle, fill=False, edgecolor=color, lw=1.8)
            )
    axes.set_xlabel("duration of the eruption (minutes)", color=GREY)
    axes.set_ylabel("waiting time to the next (minutes)", color=GREY)
    axes.tick_params(colors=GREY)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GREY)


def main() -> None:
    x, model = fitted()
    # The same bytes on every run: no date, no random identifiers.
    plt.rcParams.update({"font.size": 13, "svg.hashsalt": "gmmedu"})

    figure, axes = plt.subplots(figsize=(8, 4.6), layout="constrained")
    draw(axes, x, model)
    figure.savefig(STATIC / "old-faithful.svg", transparent=True, metadata={"Date": None})

    figure = plt.figure(figsize=(12, 6.3), dpi=100)
    figure.text(0.05, 0.76, "gmmedu", fontsize=46, fontweight="bold", color="#1f2937")
    figure.text(
        0.05,
        0.42,
        "Gaussian mixture\nmodels from the\nground up",
        fontsize=29,
        color="#1f2937",
        linespacing=1.35,
    )
    figure.text(
        0.05, 0.20, "A book of notebooks, and the\ntorch package it derives", color="#57606a"
    )
    draw(figure.add_axes((0.46, 0.14, 0.50, 0.78)), x, model)
    figure.savefig(STATIC / "social.png", facecolor="white", metadata={"Software": None})


if __name__ == "__main__":
    main()
