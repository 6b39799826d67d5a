"""The peers that live in an environment of their own, and the process in which they run.

``.venv-peers/bin/python -m benchmarks.peers`` reads requests from standard input and answers on
standard output, both pickled; ``contenders.Guest`` is the other end. Nothing here may import
gmmedu, which that environment has not got.
"""

from __future__ import annotations

import gc
import os
import pickle
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks import THREADS

#: x (N, D); weights (K,), means (K, D) and covariances (K, D, D) of the start, in the type of x;
#: the number of iterations -> weights, means and covariances that were fitted
Fit = Callable[[Any, Any, Any, Any, int], tuple[Any, Any, Any]]


def tgmm(
    x: Any, weights: Any, means: Any, covariances: Any, iterations: int
) -> tuple[Any, Any, Any]:
    from tgmm import GaussianMixture

    model = GaussianMixture(
        *means.shape,
        max_iter=iterations,
        # No change is below it, and it refuses zero.
        tol=float("nan"),
        reg_covar=0,
        init_weights=torch.from_numpy(weights),
        init_means=torch.from_numpy(means),
        init_covariances=torch.from_numpy(covariances),
        device="cpu",
    )
    model.fit(torch.from_numpy(x))
    # It counts from zero.
    _check(model.n_iter_ + 1, iterations)
    return model.weights_.numpy(), model.means_.numpy(), model.covariances_.numpy()


def gmmx(
    x: Any, weights: Any, means: Any, covariances: Any, iterations: int
) -> tuple[Any, Any, Any]:
    """It is compiled anew for each number of iterations, once, and refuses float64."""
    import jax.numpy as jnp
    from gmmx import EMFitter, GaussianMixtureModelJax

    start = GaussianMixtureModelJax.from_squeezed(means, covariances, weights)
    result = EMFitter(max_iter=iterations, tol=0, reg_covar=0).fit(jnp.asarray(x), start)
    _check(int(result.n_iter), iterations)
    model = result.gmm
    return model.weights_numpy, model.means_numpy, model.covariances.values_numpy


def gmm_gpu(
    x: Any, weights: Any, means: Any, covariances: Any, iterations: int
) -> tuple[Any, Any, Any]:
    from gmm_gpu.gmm import GMM

    # It makes identities in the default type.
    torch.set_default_dtype(torch.from_numpy(x).dtype)
    model = GMM(
        len(weights),
        max_iter=iterations,
        device="cpu",
        tol=0,
        weights_init=torch.from_numpy(weights)[None],
        means_init=torch.from_numpy(means)[None],
        precisions_init=torch.from_numpy(np.linalg.inv(covariances))[None],
        dtype=torch.get_default_dtype(),
    )
    # Its k-means, which it runs even where the whole start is given, and then does not use.
    model._init_clusters = lambda points: torch.zeros(points.shape[:2], dtype=torch.long)
    model.fit(torch.from_numpy(x)[None])
    torch.set_default_dtype(torch.float32)
    return (
        torch.cat(model._pi).numpy(),
        torch.cat(model.means).numpy(),
        torch.cat(model.covs).numpy(),
    )


FITS: dict[str, Fit] = {"tgmm": tgmm, "gmmx": gmmx, "gmm-gpu": gmm_gpu}


def _check(done: int, iterations: int) -> None:
    if done != iterations:
        raise RuntimeError(f"stopped after {done} of {iterations} iterations")


def main() -> None:
    """A request is (x, weights, means, covariances), to be kept, or (name, iterations)."""
    torch.set_num_threads(THREADS)
    # jax takes as many threads as it may use cores.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    warnings.simplefilter("ignore")
    # What a peer prints must not fall among the answers.
    answers, sys.stdout = sys.stdout.buffer, sys.stderr
    problem: tuple[Any, ...] = ()
    while True:
        try:
            request = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        if len(request) == 4:
            problem = request
            continue
        name, iterations = request
        gc.collect()
        gc.disable()
        try:
            fitted = FITS[name](*(*problem, iterations))
            answer: Any = tuple(np.asarray(each, dtype=np.float64) for each in fitted)
        except Exception:
            answer = traceback.format_exc()
        gc.enable()
        answers.write(pickle.dumps(answer, protocol=4))
        answers.flush()


if __name__ == "__main__":
    main()
