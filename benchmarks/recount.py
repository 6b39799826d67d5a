"""``python -m benchmarks.recount STUDY ...``: a part of each of these stored studies counted anew.

It prints, as JSON, of each study pairs: a stored record, and what this engine gives in its place.
Not of ``density``, whose networks take minutes, nor of ``scale``, which holds times.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch

import gmmedu
from benchmarks import classifiers, collapse, features, galaxies, race, reliability, segmentation
from gmmbook import lab

Pair = tuple[Any, Any]


def _galaxies(stored: list[dict[str, Any]]) -> Iterator[Pair]:
    """The regular fits of one to three components, and their held-out scores."""
    x = gmmedu.load_galaxies().double()
    again = galaxies.selected("floor", galaxies.FLOOR, x, "full", range(1, 4), galaxies.STARTS)
    yield from zip(stored[:3], (fit.record() for fit in again), strict=True)


def _race(stored: list[dict[str, Any]]) -> Iterator[Pair]:
    """The passes of EM from a hundred starts on one data set, and of SQUAREM."""
    points, num_components = race.RACES["6sd"]
    x = points()
    for row in stored:
        if row["data"] == "6sd" and row["method"] in ("EM", "SQUAREM"):
            models = race.started(x, num_components, race.STARTS)
            track = race.METHODS[row["method"]](models, x)
            passes, arrived = race.spent(track, row["lowest"] + row["within"])
            stored_arrived = [bool(one) for one in row["arrived"]]
            yield (
                {"passes": row["passes"], "arrived": stored_arrived},
                {"passes": passes.tolist(), "arrived": arrived.tolist()},
            )


def _segmentation(stored: list[dict[str, Any]]) -> Iterator[Pair]:
    """Two isotropic components by color."""
    again = segmentation.fitted("isotropic", 0.0, lab.pixels(0.0), 2, segmentation.STARTS)
    yield stored[0], again.record()


def _classifiers(stored: list[dict[str, Any]]) -> Iterator[Pair]:
    """All methods on one shuffle of the irises."""
    again = classifiers.shuffled("iris", 0)
    yield from zip(stored[: len(again)], (row.record() for row in again), strict=True)


def _collapse(stored: list[dict[str, Any]]) -> Iterator[Pair]:
    """One family in one dimension with two components, at three ratios."""
    for row in stored[2:5]:
        family, *size = (row[n] for n in ("family", "num_dims", "num_components", "num_points"))
        again = collapse.count(family, size[0], size[1], size[2], row["starts"])
        yield {"collapsed": row["collapsed"]}, {"collapsed": again}


def _reliability(stored: list[dict[str, Any]]) -> Iterator[Pair]:
    """EM on two kinds of data, two families."""
    for row in stored:
        if row["data"] in ("outlier", "few points") and row["family"] in ("full", "isotropic"):
            if row["fitter"] == "em, 1e-3" and row["mitigation"] in ("Clamp(0.001)", "Reset()"):
                seeds = range(reliability.SEEDS)
                again = reliability._row(
                    row["data"], row["family"], row["fitter"], row["mitigation"], seeds
                )
                yield row, again.record()


def _features(stored: list[dict[str, Any]]) -> Iterator[Pair]:
    """Two draws on the irises, without learning and with it."""
    x, y = features.load("iris")
    rows = torch.stack([features.draw(y, 5, seed) for seed in range(2)])
    classes = torch.arange(3).repeat_interleave(5)
    found = {
        (method, seed): (labels, 0)
        for seed in range(2)
        for method, labels in features.fixed(x, rows[seed], classes, seed)
    }
    learned, made = features.learn(x, rows, classes, "implicit", features.STEPS)
    found |= {("implicit", seed): (learned[seed], made[seed]) for seed in range(2)}
    for row in stored:
        key = row["method"], row["draw"]
        if (row["data"], row["labels"]) == ("iris", 5) and key in found:
            labels, steps = found[key]
            index = features.score(y, rows[row["draw"]], labels)
            yield row, features.Row("iris", 5, *key, index, steps).record()


PARTS: dict[str, Callable[[list[dict[str, Any]]], Iterator[Pair]]] = {
    "galaxies": _galaxies,
    "race": _race,
    "segmentation": _segmentation,
    "classifiers": _classifiers,
    "collapse": _collapse,
    "reliability": _reliability,
    "features": _features,
}

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    first, found = torch.initial_seed(), {}
    for name in sys.argv[1:]:
        torch.manual_seed(first)  # each as if alone in its process
        found[name] = [*PARTS[name](lab.study(name))]
    print(json.dumps(found))
