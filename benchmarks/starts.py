"""How often one start by the default method ends at the best optimum known, beside scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

import gmmedu
from benchmarks.problems import Array, iris, standardized, wine

DATA: dict[str, Callable[[], Tensor]] = {
    "Old Faithful": gmmedu.load_old_faithful,
    "Old Faithful, standardized": lambda: standardized(gmmedu.load_old_faithful()),
    "iris": iris,
    "iris, standardized": lambda: standardized(iris()),
    "wine, standardized": wine,
    "galaxies": gmmedu.load_galaxies,
}
NUM_COMPONENTS = (2, 3, 4)
SEEDS = 100
TOLERANCE, ITERATIONS = 1e-8, 1000
#: How near the best mean log likelihood a fit must come, in nats.
NATS = 1e-4
#: A fit counts as singular, and so not as an optimum, where a standard deviation of a component in
#: some direction is below so much of that of the data: the likelihood has no bound there.
SINGULAR = 0.01


def run(quick: bool = False) -> Iterator[dict[str, Any]]:
    """For each data set and K: of so many seeds, how many reach the best that either found."""
    seeds = range(5 if quick else SEEDS)
    for name, load in DATA.items():
        x = load()
        for num_components in NUM_COMPONENTS:
            found = {
                contender: np.array([fit(x, num_components, seed) for seed in seeds])
                for contender, fit in (("gmmedu", gmmedu_fit), ("scikit-learn", sklearn_fit))
            }
            best = np.nanmax(np.concatenate(list(found.values())))
            reached = {key: int((value >= best - NATS).sum()) for key, value in found.items()}
            singular = {key: int(np.isnan(value).sum()) for key, value in found.items()}
            yield {
                "data": name,
                "K": num_components,
                "seeds": len(seeds),
                "log_likelihood": round(float(best), 6),
                "gmmedu": reached["gmmedu"],
                "scikit-learn": reached["scikit-learn"],
                "singular": [singular["gmmedu"], singular["scikit-learn"]],
                "passed": reached["gmmedu"] >= reached["scikit-learn"],
            }


def gmmedu_fit(x: Tensor, num_components: int, seed: int) -> float:
    generator = torch.Generator().manual_seed(seed)
    model = gmmedu.GmmFull(num_components, x.shape[1], dtype=x.dtype, generator=generator)
    gmmedu.initialize(model, x, generator=generator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = gmmedu.fit_em(model, x, num_iterations=ITERATIONS, tolerance=TOLERANCE)
    return _unless_singular(-fit.nll, x, model.covariances.detach().numpy())


def sklearn_fit(x: Tensor, num_components: int, seed: int) -> float:
    from sklearn.mixture import GaussianMixture

    model = GaussianMixture(num_components, tol=TOLERANCE, max_iter=ITERATIONS, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(x.numpy())
    return _unless_singular(float(model.score(x.numpy())), x, model.covariances_)


def _unless_singular(log_likelihood: float, x: Tensor, covariances: Array) -> float:
    """NaN where a component is too narrow, in units of the data's standard deviations."""
    scale = x.numpy().std(axis=0)
    narrowest = np.linalg.eigvalsh(covariances / np.outer(scale, scale)).min()
    return log_likelihood if narrowest > SINGULAR**2 else float("nan")
