"""How often a random start ends at the best known fit of Old Faithful, full covariances, K = 2."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

import gmmedu

METHODS = ("points", "kmeans", "kmeans++")
LOG_LIKELIHOOD = -1130.2640
EM_ITERATIONS = 1000
EM_TOLERANCE = 1e-10
#: Five times the default learning rates, for a fifth of the default iterations.
DESCENT: dict[str, Any] = {"num_iterations": 2000, "mixture_lr": 5e-3, "component_lr": 5e-2}
BAR = 0.95


@dataclass(frozen=True)
class Share:
    """Of ``starts`` seeds, how many reached the best log likelihood to within ``tolerance``."""

    fitter: str
    method: str
    mitigation: str
    iterations: int
    tolerance: float
    starts: int
    reached: int
    failed: int
    #: the seeds that ended elsewhere -> their log likelihood (None: the fit failed)
    missed: dict[int, float | None]

    @property
    def share(self) -> float:
        return self.reached / self.starts

    @property
    def passed(self) -> bool:
        return self.share >= BAR

    def record(self) -> dict[str, Any]:
        return {**asdict(self), "share": self.share, "bar": BAR, "passed": self.passed}


def run(quick: bool = False) -> Iterator[Share]:
    """EM with the default mitigation and with none, and gradient descent with the default."""
    x = gmmedu.load_old_faithful(dtype=torch.float64)
    for fitter, mitigation in (("fit_em", "default"), ("fit_em", "none"), ("fit_model", "default")):
        for method in METHODS:
            yield _share(x, fitter, method, mitigation, starts=10 if quick else 100)


def _share(x: Tensor, fitter: str, method: str, mitigation: str, starts: int) -> Share:
    tolerance = 1e-3 if fitter == "fit_em" else 1e-2
    missed: dict[int, float | None] = {}
    for seed in range(starts):
        log_likelihood = _log_likelihood(x, fitter, method, mitigation, seed)
        if log_likelihood is None or not abs(log_likelihood - LOG_LIKELIHOOD) <= tolerance:
            missed[seed] = log_likelihood
    return Share(
        fitter=fitter,
        method=method,
        mitigation=mitigation,
        iterations=EM_ITERATIONS if fitter == "fit_em" else DESCENT["num_iterations"],
        tolerance=tolerance,
        starts=starts,
        reached=starts - len(missed),
        failed=sum(value is None for value in missed.values()),
        missed=missed,
    )


def _log_likelihood(
    x: Tensor, fitter: str, method: str, mitigation: str, seed: int
) -> float | None:
    """Log likelihood at the end of one fit, or None if it failed."""
    generator = torch.Generator().manual_seed(seed)
    model = gmmedu.GmmFull(2, 2, dtype=x.dtype, generator=generator)
    gmmedu.initialize(model, x, method=method, generator=generator)
    options: dict[str, Any] = {} if mitigation == "default" else {"mitigation": None}
    try:
        if fitter == "fit_em":
            fit = gmmedu.fit_em(
                model, x, num_iterations=EM_ITERATIONS, tolerance=EM_TOLERANCE, **options
            )
        else:
            fit = gmmedu.fit_model(model, x, **DESCENT, **options)
    except gmmedu.SingularityError:
        return None
    return -fit.nll * len(x)
