"""Mixtures of the pixels of a photograph, for each number of components and weight of position.

A pixel is its color, red, green and blue from 0 to 1, and, where position has a weight, its column
and row in widths of the picture, times the weight. Isotropic components, at each weight; and full
ones without position and with it: their likelihood has the same optima at every weight above 0, in
other units. Each is the lowest of many starts.

``python -m benchmarks.segmentation`` reduces the photograph, china.jpg of scikit-learn, by means
of blocks, and writes ``book/gmmbook/data/china.json``.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_sample_image
from torch import Tensor

import gmmedu
from gmmbook import lab

COUNTS, STARTS, SEED = range(2, 7), 40, 0
WEIGHTS = {"isotropic": (0.0, 0.5, 1.0, 1.5, 2.0), "full": (0.0, 1.0)}
#: Pixels of the photograph along a side of a block.
BLOCK = 10
SOURCE = (
    "Photograph by danielbuechele, www.flickr.com/photos/danielbuechele/6061409035, CC BY 2.0; "
    "china.jpg of scikit-learn, here the means of blocks of 10 by 10 pixels"
)


@dataclass(frozen=True)
class Fit:
    """One mixture, from the darkest component to the brightest: weights (K,), means (K, D), and of
    each covariance a factor, the lower triangle row by row or of an isotropic one the standard
    deviation, to eight digits; mean NLL; how many starts came within 1e-4 nats of it."""

    family: str
    position: float
    num_components: int
    weights: list[float]
    means: list[list[float]]
    factors: list[list[float]]
    nll: float
    found: int

    def record(self) -> dict[str, Any]:
        return asdict(self)


def run(quick: bool = False) -> Iterator[Fit]:
    """One fit for each family, weight of position and number of components."""
    counts, starts = (range(2, 4), 2) if quick else (COUNTS, STARTS)
    for family, weights in WEIGHTS.items():
        for position in weights:
            x = lab.pixels(position)
            for count in counts:
                yield fitted(family, position, x, count, starts)


def fitted(family: str, position: float, x: Tensor, count: int, starts: int) -> Fit:
    """The lowest of so many starts, and from there on until nothing moves."""
    model = gmmedu.MODELS[family](count, x.shape[1], init_radius=0.0, dtype=torch.float64)
    fit = gmmedu.fit_best(
        model, x, num_starts=starts, method="kmeans++", num_iterations=500, tolerance=1e-8,
        accelerate="squarem", generator=torch.Generator().manual_seed(SEED),
    )  # fmt: skip
    end = gmmedu.fit_em(model, x, 2_000, tolerance=1e-13, accelerate="squarem")
    means, weights = model.means.detach(), model.weights.detach()
    order = means[:, :3].sum(1).argsort()
    factors = torch.linalg.cholesky(model.covariances.detach())[order]
    rows, columns = torch.tril_indices(x.shape[1], x.shape[1])
    kept = factors[:, 0, :1] if family == "isotropic" else factors[:, rows, columns]
    found = int((fit.starts < fit.starts.min() + 1e-4).sum())
    parts = _digits(weights[order]), _digits(means[order]), _digits(kept)
    return Fit(family, position, count, *parts, float(end.nll), found)


def _digits(numbers: Tensor) -> Any:
    """Nested lists of numbers, to eight digits."""
    if numbers.ndim > 1:
        return [_digits(row) for row in numbers]
    return [float(f"{value:.8g}") for value in numbers.tolist()]


def keep_picture(folder: Path) -> None:
    """Write the reduced photograph: its size, and red, green and blue of each pixel, row by row, a
    byte each, in base 64."""
    photograph = torch.tensor(load_sample_image("china.jpg")).double()
    height, width = (size // BLOCK for size in photograph.shape[:2])
    whole = photograph[: BLOCK * height, : BLOCK * width]
    pixels = whole.reshape(height, BLOCK, width, BLOCK, 3).mean((1, 3)).round().byte()
    record = {
        "source": SOURCE,
        "height": height,
        "width": width,
        "pixels": base64.b64encode(bytes(pixels.flatten().tolist())).decode(),
    }
    (folder / "china.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    keep_picture(Path(__file__).parents[1] / "book" / "gmmbook" / "data")
