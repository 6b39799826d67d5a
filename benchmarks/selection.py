"""Grids of families and numbers of components, and bootstraps of likelihood ratios, on Old
Faithful: beside R's mclust, where it is installed, and beside scikit-learn."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch

import gmmedu

TURNS = 3
FAMILIES = tuple(gmmedu.MODELS)
#: The families under the peers' names for them.
MCLUST = {
    "VVV": "full",
    "EEE": "tied",
    "VVI": "diagonal",
    "VII": "isotropic",
    "EII": "shared_isotropic",
}
SKLEARN = {"full": "full", "tied": "tied", "diag": "diagonal", "spherical": "isotropic"}
#: mclust stops where the log likelihood of these data, about -1,150, changes by less than 1e-5 of
#: itself: by so much for each point.
CLOSE = 4e-5
Criteria = dict[tuple[str, int], float]

#: mclust's 14 models by 9 numbers of components from its one start, then 99 bootstrap samples for
#: each of two ratios; seconds, and the negative of its BIC.
SCRIPT = """
suppressMessages(library(mclust)); set.seed(1)
grid <- system.time(bic <- mclustBIC(faithful, G = 1:9, verbose = FALSE))[["elapsed"]]
lrt <- system.time(mclustBootstrapLRT(faithful, modelName = "EEE", maxG = 2, nboot = 99,
                                      verbose = FALSE))[["elapsed"]]
cat(grid, lrt, "\\n")
for (name in c("VVV", "EEE", "VVI", "VII", "EII"))
  for (g in 1:9) cat(name, g, -bic[g, name], "\\n")
"""


def run(quick: bool = False) -> Iterator[dict[str, Any]]:
    """Seconds of each contender in turn, the median of three turns after one, and by how much
    gmmedu from ten starts, under its own tolerance and as close as mclust, has a higher BIC in the
    worst of the cells shared, over all turns."""
    most = 3 if quick else 9
    contenders: dict[str, Callable[[int], tuple[float, float, Criteria]]] = {
        "gmmedu, 10 starts": lambda seed: ours(most, 10, seed, bootstrap=False),
        "gmmedu, 10 starts, as close as mclust": lambda seed: ours(
            most, 10, seed, bootstrap=False, tolerance=CLOSE
        ),
        "gmmedu, 1 start": lambda seed: ours(most, 1, seed, bootstrap=True),
        "gmmedu, 1 start, as close as mclust": lambda seed: ours(
            most, 1, seed, bootstrap=True, tolerance=CLOSE
        ),
        "scikit-learn, 10 starts": lambda seed: scikit_learn(most, 10, seed),
    }
    if shutil.which("Rscript"):
        contenders["mclust"] = mclust
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    found: dict[str, list[Criteria]] = {name: [] for name in contenders}
    for seed in range(1 if quick else 1 + TURNS):
        for name, contender in contenders.items():
            grid, lrt, criteria = contender(seed)
            seconds[name].append((grid, lrt))
            found[name].append(criteria)
    for name, turns in seconds.items():
        grids, ratios = zip(*turns[0 if quick else 1 :], strict=True)
        yield {
            "contender": name,
            "grid_seconds": round(statistics.median(grids), 3),
            "grid_range": [round(min(grids), 3), round(max(grids), 3)],
            "bootstrap_seconds": round(statistics.median(ratios), 3),
            "worst_cell": worst(found["gmmedu, 10 starts"], found[name]),
            "worst_cell_if_close": worst(
                found["gmmedu, 10 starts, as close as mclust"], found[name]
            ),
        }


def worst(own: list[Criteria], theirs: list[Criteria]) -> dict[str, Any]:
    """The shared cell in which gmmedu's BIC is higher by most in some turn, and by how much."""
    excess, cell = max(
        (ours[cell] - its[cell], cell)
        for ours, its in zip(own, theirs, strict=True)
        for cell in its
        if cell in ours
    )
    return {"family": cell[0], "K": cell[1], "higher_by": round(excess, 4)}


def ours(
    most: int, num_starts: int, seed: int, *, bootstrap: bool, tolerance: float = 1e-8
) -> tuple[float, float, Criteria]:
    """Six families; the variance of the constant one is that of the data within two clumps."""
    x, generator = gmmedu.load_old_faithful(), torch.Generator().manual_seed(seed)
    begin = time.perf_counter()
    choice = gmmedu.select(
        x,
        range(1, most + 1),
        FAMILIES,
        num_starts=num_starts,
        variance=15.0,
        tolerance=tolerance,
        generator=generator,
    )
    grid = time.perf_counter() - begin
    begin = time.perf_counter()
    for num_components in (1, 2) if bootstrap else ():
        gmmedu.bootstrap_lrt(
            x, "tied", num_components, 99, num_starts=1, tolerance=tolerance, generator=generator
        )
    lrt = time.perf_counter() - begin
    return grid, lrt, {(r.family, r.num_components): r.bic for r in choice.table if r.regular}


def scikit_learn(most: int, num_starts: int, seed: int) -> tuple[float, float, Criteria]:
    """Its four families, each cell from as many starts, under a tolerance as close as ours; the
    criteria of the cells that are not singular."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    x, fits = gmmedu.load_old_faithful(), {}
    points = x.numpy()
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for kind, family in SKLEARN.items():
            for count in range(1, most + 1):
                fits[family, count] = GaussianMixture(
                    count,
                    covariance_type=kind,
                    n_init=num_starts,
                    tol=1e-8,
                    max_iter=1000,
                    random_state=seed,
                ).fit(points)
    seconds = time.perf_counter() - begin
    regular = {
        cell: fit
        for cell, fit in fits.items()
        if not gmmedu.find_singular(gmmedu.MODELS[cell[0]].from_sklearn(fit), x)
    }
    return seconds, float("nan"), {cell: float(fit.bic(points)) for cell, fit in regular.items()}


def mclust(seed: int) -> tuple[float, float, Criteria]:
    """R's mclust, timed by itself, without the start of the process."""
    printed = subprocess.run(
        ["Rscript", "-e", SCRIPT], capture_output=True, text=True, check=True
    ).stdout
    head, *lines = printed.strip().splitlines()
    grid, lrt = map(float, head.split())
    found: Criteria = {}
    for line in lines:
        name, count, bic = line.split()
        if bic != "NA":
            found[MCLUST[name], int(count)] = float(bic)
    return grid, lrt, found
