"""What recurs in the notebooks' experiments."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import torch

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
    text = files("gmmbook").joinpath(f"data/{name}.json").read_text("utf-8")
    records: list[dict[str, Any]] = json.loads(text)["records"]
    return records
