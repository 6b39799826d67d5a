"""The share of the rate of matrix products that an EM iteration with full covariances reaches."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from benchmarks.contenders import Gmmedu
from benchmarks.problems import DTYPES, load, make_start
from benchmarks.timing import seconds_per_iteration

SIZES = ((100_000, 16, 16), (50_000, 32, 32), (20_000, 64, 10))
ITERATIONS, TURNS = 4, 7
SIDE = 2048
#: How many kinds of operations the profile tells of.
OPERATIONS = 8
#: The least share wanted.
BARS = {"float32": 0.45, "float64": 0.5}


def run(quick: bool = False) -> Iterator[dict[str, Any]]:
    """Product and iterations in turn; 4 N K D^2 operations count for an iteration: whitening and
    the second moments, a multiplication and an addition each."""
    for size in SIZES:
        num_samples, num_dims, num_components = size
        num_samples //= 10 if quick else 1
        operations = 4 * num_samples * num_components * num_dims**2
        points = load((num_samples, num_dims, num_components))
        for dtype, torch_dtype in DTYPES.items():
            x = points.to(torch_dtype)
            fit = partial(Gmmedu().fit, "full", x, make_start(x, num_components))
            fit(1)
            products, iterations = [_product(torch_dtype)], []
            for _ in range(3 if quick else TURNS):
                iterations.append(operations / seconds_per_iteration(fit, 1, ITERATIONS) / 1e9)
                products.append(_product(torch_dtype))
            product, iteration = statistics.median(products[1:]), statistics.median(iterations)
            yield {
                "N": num_samples,
                "D": num_dims,
                "K": num_components,
                "dtype": dtype,
                "product_gflops": round(product, 1),
                "iteration_gflops": round(iteration, 1),
                "share": round(iteration / product, 3),
                "bar": BARS[dtype],
                "passed": iteration / product >= BARS[dtype],
                "time": _where(partial(fit, ITERATIONS)),
            }


def _where(work: Callable[[], Any]) -> dict[str, float]:
    """Shares of the time that torch spends in each kind of operation, the largest first.

    Times of operations that call others are their own, those of the others left out.
    """
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        work()
    times = {event.key: event.self_cpu_time_total for event in profile.key_averages()}
    total = sum(times.values())
    largest = sorted(times, key=lambda key: -times[key])[:OPERATIONS]
    return {key.removeprefix("aten::"): round(times[key] / total, 3) for key in largest}


def _product(dtype: torch.dtype) -> float:
    """10^9 operations a second of the product of two square matrices: the best of three."""
    a, b = torch.randn(2, SIDE, SIDE, dtype=dtype).unbind()
    best = 0.0
    for _ in range(3):
        begin = time.perf_counter()
        torch.mm(a, b)
        best = max(best, 2 * SIDE**3 / (time.perf_counter() - begin) / 1e9)
    return best
