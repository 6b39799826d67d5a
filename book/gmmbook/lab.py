"""What recurs in the notebooks' experiments."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import torch
from torch import Tensor

from gmmedu import GaussianMixture

STUDIES = (
    "classifiers",
    "collapse",
    "density",
    "features",
    "galaxies",
    "race",
    "reliability",
    "scale",
    "segmentation",
)


def side_by_side(models: Sequence[GaussianMixture]) -> GaussianMixture:
    """A batch of mixtures that hold what these hold, for fits that all run at once.

    models: single mixtures of one class and shape; what the first holds fixed is fixed in all. Fits
    of the batch end where fits of the single ones end. Raises ``ValueError`` where the models
    differ in class or shape, or are none.
    """
    kinds = {(type(m), m.num_components, m.num_dims, m.batch_shape) for m in models}
    if len(kinds) != 1 or models[0].batch_shape:
        raise ValueError("models must be single mixtures of one class and shape, at least one")
    first = models[0]
    many = type(first)(
        first.num_components,
        first.num_dims,
        batch_shape=(len(models),),
        device=first.means.device,
        dtype=first.means.dtype,
    )
    numbers = [model.state_dict() for model in models]
    many.load_state_dict({name: torch.stack([n[name] for n in numbers]) for name in numbers[0]})
    for its, own in zip(many.parameters(), first.parameters(), strict=True):
        its.requires_grad_(own.requires_grad)
    return many


def study(name: str) -> list[dict[str, Any]]:
    """The records of a study that takes too long for a notebook.

    name: one of ``STUDIES``; the benchmarks make them and tell what they measure. Raises
    ``ValueError`` for another name.
    """
    if name not in STUDIES:
        raise ValueError(f"name must be one of {', '.join(STUDIES)}, got {name!r}")
    records: list[dict[str, Any]] = _data(name)["records"]
    return records


def picture() -> Tensor:
    """A photograph of 42 rows of 64 pixels: (42, 64, 3), red, green and blue from 0 to 1, float64.

    The Summer Palace in Beijing, by danielbuechele, CC BY 2.0: china.jpg of scikit-learn, reduced
    by the means of blocks of 10 by 10 pixels.
    """
    data = _data("china")
    levels = torch.tensor(list(base64.b64decode(data["pixels"])), dtype=torch.float64)
    return levels.reshape(data["height"], data["width"], 3) / 255


def pixels(position: float = 0.0) -> Tensor:
    """The pixels of the photograph as points, row by row: (2688, 3), their colors, float64.

    position: where it is not 0, (2688, 5), with column and row besides, in widths of the picture,
    times this weight.
    """
    colors = picture()
    height, width, _ = colors.shape
    grid = torch.cartesian_prod(torch.arange(height), torch.arange(width)).flip(1)
    parts = [colors.flatten(0, 1), *([position * grid.double() / width] if position else [])]
    return torch.cat(parts, 1)


def _data(name: str) -> dict[str, Any]:
    """A file that comes with the package."""
    text = files("gmmbook").joinpath(f"data/{name}.json").read_text("utf-8")
    found: dict[str, Any] = json.loads(text)
    return found
