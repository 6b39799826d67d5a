"""Fits of files of points, each in a process of its own, that say how much memory they had.

Nothing here imports gmmedu but where it is fitted, as some peers live where it is not. A file
holds float32 rows. Each program prints one line of JSON.
"""

from __future__ import annotations

import json
import resource
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

#: Iterations of a fit; of its time each is given its share.
ITERATIONS = 5
#: Bytes of a file that is fitted once.
LONG = 10**8


class Rows:
    """A file of rows in batches, which are read when they are asked for."""

    def __init__(self, path: str, num_dims: int, batch: int) -> None:
        self.path, self.num_dims, self.batch = path, num_dims, batch

    def __iter__(self) -> Iterator[torch.Tensor]:
        with Path(self.path).open("rb") as file:
            while True:
                rows = np.fromfile(file, np.float32, self.batch * self.num_dims)
                if not rows.size:
                    return
                yield torch.from_numpy(rows.reshape(-1, self.num_dims))


def fit_file(path: str, num_components: int, num_dims: int, iterations: int) -> None:
    """Fit a file in batches by EM, without a limit."""
    import gmmedu

    rows = Rows(path, num_dims, 250_000)
    model = gmmedu.GmmFull(num_components, num_dims, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    gmmedu.initialize(model, next(iter(rows))[:10_000], generator=generator)
    fit = gmmedu.fit_em(model, rows, iterations, 0.0)
    _say(float(fit.elapsed.diff().min()), nll=fit.nll, nll_of_start=float(fit.history[0]))


def grow(name: str, path: str, num_components: int, num_dims: int, limit: int) -> None:
    """Fit a file under a limit of memory, in bytes; the contender in float64."""
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    warnings.simplefilter("ignore")
    if name == "gmmedu, stream":
        x: Any = Rows(path, num_dims, 50_000)
    else:
        x = np.fromfile(path, np.float32).reshape(-1, num_dims).astype(np.float64)
    fit = CONTENDERS[name]
    # What a process does once is not what an iteration costs.
    fit(x[:1_000] if isinstance(x, np.ndarray) else [next(iter(x))], num_components, 2)
    # With what it does before the first; the least, as what else runs only adds to it, but of
    # fits of a minute.
    times = 3 if Path(path).stat().st_size < LONG else 1
    _say(min(_seconds(fit, x, num_components, ITERATIONS) for _ in range(times)) / ITERATIONS)


def _seconds(fit: Callable[..., Any], *arguments: Any) -> float:
    begin = time.perf_counter()
    fit(*arguments)
    return time.perf_counter() - begin


def _gmmedu(x: Any, num_components: int, iterations: int) -> None:
    import gmmedu

    x = torch.from_numpy(x) if isinstance(x, np.ndarray) else x
    some = x[:50_000] if isinstance(x, torch.Tensor) else next(iter(x))
    model = gmmedu.GmmFull(num_components, some.shape[1], dtype=torch.float64)
    gmmedu.initialize(model, some, "points", generator=torch.Generator().manual_seed(0))
    gmmedu.fit_em(model, x, iterations, 0.0)


def _scikit_learn(x: Any, num_components: int, iterations: int) -> None:
    from sklearn.mixture import GaussianMixture

    start = {"init_params": "random_from_data", "random_state": 0}
    GaussianMixture(num_components, max_iter=iterations, tol=0, **start).fit(x)


def _tgmm(x: Any, num_components: int, iterations: int) -> None:
    from tgmm import GaussianMixture

    options = {"init_means": "points", "random_state": 0, "device": "cpu"}
    model = GaussianMixture(
        num_components, x.shape[1], max_iter=iterations, tol=float("nan"), **options
    )
    model.fit(torch.from_numpy(x))


def fit_spark(path: str, num_components: int, num_dims: int, limit: int) -> None:
    """Spark on this machine alone, with one thread and a heap of so many bytes; it holds the
    points in its own memory before the clock starts."""
    from pyspark.ml.clustering import GaussianMixture
    from pyspark.ml.linalg import Vectors
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    session = builder.config("spark.driver.memory", f"{limit // 2**20}m").getOrCreate()
    session.sparkContext.setLogLevel("OFF")
    starts = range(0, Path(path).stat().st_size // (4 * num_dims), 100_000)

    def rows(start: int) -> Iterator[tuple[Any]]:
        count, offset = 100_000 * num_dims, start * num_dims * 4
        block = np.fromfile(path, np.float32, count, offset=offset).astype(np.float64)
        return ((Vectors.dense(row),) for row in block.reshape(-1, num_dims))

    points = session.sparkContext.parallelize(starts, len(starts)).flatMap(rows)
    frame = session.createDataFrame(points, ["features"]).cache()
    frame.count()

    def fit(iterations: int) -> None:
        GaussianMixture(k=num_components, maxIter=iterations, tol=0.0, seed=0).fit(frame)

    fit(2)
    seconds = min(_seconds(fit, ITERATIONS) for _ in range(2)) / ITERATIONS
    session.stop()
    print(json.dumps({"seconds": seconds}))


CONTENDERS: dict[str, Callable[..., None]] = {
    "gmmedu, stream": _gmmedu,
    "gmmedu, tensor": _gmmedu,
    "scikit-learn": _scikit_learn,
    "tgmm": _tgmm,
}


def _say(seconds: float, **more: Any) -> None:
    # What the process itself held at most; that of getrusage has its parent's share.
    status = Path("/proc/self/status").read_text("ascii")
    held = int(status.partition("VmHWM:")[2].split()[0]) * 1024
    print(json.dumps({"seconds": seconds, "resident": held, **more}))
