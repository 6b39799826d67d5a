"""How often EM without mitigation meets a singularity, against the points for each component.

The data are drawn from a random mixture with as many components as the model has, so nothing is
wrong with the model; there are only too few points. A fit has collapsed when it ends with a
``SingularityError``.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

import gmmedu

#: Points for each component and for each of the D + 1 that a covariance needs.
RATIOS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)
#: Families, dimensions and numbers of components that are crossed with the ratios.
CELLS = [("full", d, k) for d in (1, 2, 4, 8) for k in (2, 8)] + [
    (family, 4, k) for family in ("tied", "diagonal", "isotropic") for k in (2, 8)
]
STARTS, ITERATIONS, TOLERANCE = 100, 100, 1e-8


@dataclass(frozen=True)
class Share:
    """Of ``starts`` samples, each with a start of its own, how many fits collapsed."""

    family: str
    num_dims: int
    num_components: int
    ratio: float
    num_points: int
    starts: int
    collapsed: int

    def record(self) -> dict[str, Any]:
        return asdict(self)


def run(quick: bool = False) -> Iterator[Share]:
    """One share for each cell and ratio."""
    starts = 5 if quick else STARTS
    for family, num_dims, num_components in CELLS:
        for ratio in RATIOS:
            num_points = round(num_components * (num_dims + 1) * ratio)
            collapsed = count(family, num_dims, num_components, num_points, starts)
            yield Share(family, num_dims, num_components, ratio, num_points, starts, collapsed)


def count(family: str, num_dims: int, num_components: int, num_points: int, starts: int) -> int:
    """In how many samples EM meets a singularity, each from a start of its own by k-means++."""
    samples, firsts = [], []
    for seed in range(starts):
        generator = torch.Generator().manual_seed(seed)
        x = gmmedu.sample_mixture(
            num_points, num_components, num_dims, family=family, generator=generator,
            dtype=torch.float64,
        ).x  # fmt: skip
        model = gmmedu.MODELS[family](num_components, num_dims, dtype=torch.float64)
        firsts.append(gmmedu.initialize(model, x, "kmeans++", generator=generator))
        samples.append(x)
    many = gmmedu.MODELS[family](
        num_components, num_dims, batch_shape=(starts,), dtype=torch.float64
    ).set_parameters(
        *(
            torch.stack([getattr(first, name).detach() for first in firsts])
            for name in ("weights", "means", "covariances")
        )
    )
    with warnings.catch_warnings():
        # Cut off by a fixed number of iterations.
        warnings.simplefilter("ignore", gmmedu.ConvergenceWarning)
        try:
            fit = gmmedu.fit_em(many, torch.stack(samples), ITERATIONS, TOLERANCE, mitigation=None)
        except gmmedu.SingularityError:
            return starts  # all of them
    return len(fit.errors)
