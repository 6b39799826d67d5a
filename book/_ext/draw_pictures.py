"""Draws the pictures that are no notebook's (`make pictures`).

That of the README and the one a shared link shows have the same fit, made here by the package: the
eruptions of Old Faithful under two Gaussian components, ellipses at 50 % and 95 % of each
component's mass. That of "Use it on your data" is drawn by the snippets of the page.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from torch import Tensor

import gmmedu
import gmmedu.plot
import snippets

STATIC = Path(__file__).resolve().parents[1] / "_static"
INK, MUTED = "#1f2937", "#57606a"


def fitted() -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """The data, and the weights, means and covariances of EM, the short eruptions first."""
    x = gmmedu.load_old_faithful()
    model = gmmedu.GmmFull(num_components=2, num_dims=2, dtype=x.dtype)
    generator = torch.Generator().manual_seed(0)
    gmmedu.initialize(model, x, method="kmeans++", generator=generator)
    gmmedu.fit_em(model, x, num_iterations=200, tolerance=1e-10)
    order = model.means.detach()[:, 0].argsort()
    return x, (
        model.weights[order],
        model.means[order],
        model.covariances[order],
    )


def draw(ax: Axes, x: Tensor, components: tuple[Tensor, Tensor, Tensor]) -> None:
    gmmedu.plot.scatter(x, ax)
    gmmedu.plot.ellipses(components, ax, means=False)
    ax.set(
        xlabel="duration of the eruption (minutes)",
        ylabel="waiting time to the next (minutes)",
    )


def main() -> None:
    x, components = fitted()
    gmmedu.plot.use_style()
    # Letters as paths, for readers without the font, and the same bytes on every run.
    plt.rcParams.update(
        {
            "svg.fonttype": "path",
            "svg.hashsalt": "gmmedu",
            "savefig.dpi": 100,
        }
    )

    figure, ax = plt.subplots(figsize=(8, 4.6))
    draw(ax, x, components)
    figure.savefig(STATIC / "old-faithful.svg", metadata={"Date": None})

    figure = plt.figure(figsize=(12, 6.3), layout="none")
    words = "Gaussian mixture\nmodels from the\nground up"
    figure.text(0.05, 0.76, "gmmedu", fontsize=46, fontweight="bold", color=INK)
    figure.text(0.05, 0.42, words, fontsize=29, color=INK, linespacing=1.35)
    words = "A book of notebooks, and the\ntorch package it derives"
    figure.text(0.05, 0.20, words, fontsize=14, color=MUTED)
    draw(figure.add_axes((0.46, 0.14, 0.50, 0.78)), x, components)
    figure.savefig(
        STATIC / "social.png",
        facecolor="white",
        metadata={"Software": None},
    )

    home = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for _ in snippets.run(STATIC.parent / "use-it.md"):
            pass
        os.chdir(home)
    plt.gcf().savefig(STATIC / "use-it.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
