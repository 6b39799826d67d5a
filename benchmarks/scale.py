"""What a pass of EM costs, at every size and in several processes, and a model that says it before.

A pass over N points has K log densities for each, linear in F features of the point, where F is
(D + 1)(D + 2) / 2 for full covariances. So its seconds should be, for one process,

    t = c0 + N (c1 K F + c2 K + c3 F),

products and sums, exponentials, features; and a message of m numbers among P processes takes
a + b m. The five constants are fitted on half of the sizes and predict the others. Each time is
the least of several, as whatever else runs on a machine only adds to it. One thread a process.

``file``: 4 GB on disk, fitted in batches, and how much memory the process ever had. ``peers``:
points that grow until a process under a limit of memory dies.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from scipy.optimize import nnls
from torch import Tensor

import gmmedu
from benchmarks import growth

#: (N, K, D) of full covariances in float64; the constants are fitted on every second one.
SIZES = tuple(product((10_000, 50_000, 200_000), (4, 16, 64), (2, 8, 16)))
MESSAGES = (10, 1_000, 10_000, 100_000, 1_000_000)
PROCESSES = (1, 2)
#: Of the points that several processes share: N, K, D.
SHARED = ((20_000, 8, 4), (200_000, 16, 8), (400_000, 16, 16))
BATCHES = (100, 1_000, 10_000, 100_000)
#: Points of the growing peers, their dimensions and components, and the limit in bytes.
GROWING, PEER_DIMS, PEER_COMPONENTS = (100_000, 1_000_000, 10_000_000), 8, 8
LIMIT = 2 * 2**30
FILE_BYTES = 4 * 10**9
GUEST = str(Path(__file__).parent.parent / ".venv-peers" / "bin" / "python")


def run(quick: bool = False) -> Iterator[dict[str, Any]]:
    """Passes, messages, processes, batches, the file and the peers."""
    torch.set_num_threads(1)
    yield from _passes(SIZES[:6] if quick else SIZES)
    yield from _together(quick)
    yield from _batches(quick)
    with tempfile.TemporaryDirectory() as folder:
        yield _file(Path(folder) / "points", FILE_BYTES // (1000 if quick else 1))
    yield from _peers(GROWING[:1] if quick else GROWING)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _points(size: int, num_dims: int, seed: int = 0) -> Tensor:
    """Points around eight places, float64."""
    draw = _generator(seed)
    places = 4 * torch.randn(8, num_dims, generator=_generator(9), dtype=torch.float64)
    which = torch.randint(8, (size,), generator=draw)
    return places[which] + torch.randn(size, num_dims, generator=draw, dtype=torch.float64)


def _started(x: Tensor, num_components: int) -> gmmedu.GaussianMixture:
    model = gmmedu.GmmFull(num_components, x.shape[1], dtype=torch.float64)
    return gmmedu.initialize(model, x[:5_000], "points", generator=_generator())


def _pass_seconds(model: Any, x: Any, passes: int, **options: Any) -> float:
    """The least seconds of an iteration of EM, of so many."""
    fit = gmmedu.fit_em(model, x, passes, 0.0, **options)
    return float(fit.elapsed.diff().min())


def _features(num_dims: int) -> int:
    return (num_dims + 1) * (num_dims + 2) // 2


def _terms(size: int, num_components: int, num_dims: int) -> list[float]:
    features = _features(num_dims)
    products = size * num_components * features
    return [1.0, products, size * num_components, size * features]


def _passes(sizes: Any) -> Iterator[dict[str, Any]]:
    """Seconds of a pass at each size, and what the model says."""
    seconds = []
    for size, num_components, num_dims in sizes:
        x = _points(size, num_dims)
        count = max(5, min(40, 20_000_000 // (size * num_components)))
        seconds.append(_pass_seconds(_started(x, num_components), x, count))
    terms = np.array([_terms(*one) for one in sizes])
    scaled = terms / np.array(seconds)[:, None]
    # In relative error: each size counts alike.
    constants, _ = nnls(scaled[::2], np.ones(len(scaled[::2])))
    for place, ((size, k, d), found) in enumerate(zip(sizes, seconds, strict=True)):
        yield {
            "study": "pass",
            "N": size,
            "K": k,
            "D": d,
            "seconds": found,
            "predicted": float(terms[place] @ constants),
            "fitted": place % 2 == 0,
        }
    yield {
        "study": "constants",
        **dict(zip(("c0", "c1", "c2", "c3"), map(float, constants), strict=True)),
    }


def _in_processes(function: Callable[..., Any], size: int, *rest: Any) -> list[Any]:
    """What a function finds in each of so many processes, joined by gloo."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        workers = [
            context.Process(target=_work, args=(function, rank, size, folder, rest))
            for rank in range(size)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return [json.loads(Path(folder, str(rank)).read_text("utf-8")) for rank in range(size)]


def _work(function: Callable[..., Any], rank: int, size: int, folder: str, rest: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=size,
        timeout=timedelta(minutes=5),
    )
    found = function(rank, size, *rest)
    Path(folder, str(rank)).write_text(json.dumps(found), "utf-8")
    dist.destroy_process_group()


def _messages(rank: int, size: int, numbers: list[int]) -> list[float]:
    """The least seconds of a sum over the processes."""
    found = []
    for count in numbers:
        total, times = torch.zeros(count, dtype=torch.float64), []
        for _ in range(200 if count < 100_000 else 20):
            begin = time.perf_counter()
            dist.all_reduce(total)
            times.append(time.perf_counter() - begin)
        found.append(min(times))
    return found


def _shards(rank: int, size: int, shared: list[tuple[int, int, int]]) -> list[float]:
    """The least seconds of an iteration, each process with its part of the points."""
    found = []
    for count, num_components, num_dims in shared:
        x = _points(count, num_dims)
        model = _started(x, num_components)
        mine = x.tensor_split(size)[rank].clone()
        passes = max(10, min(60, 20_000_000 // (count * num_components)))
        found.append(_pass_seconds(model, mine, passes, group=dist.group.WORLD))
    return found


def _together(quick: bool) -> Iterator[dict[str, Any]]:
    """Messages and passes among processes."""
    for size in PROCESSES[1:]:
        numbers = list(MESSAGES[: 2 if quick else None])
        columns = zip(*_in_processes(_messages, size, numbers), strict=True)
        for count, times in zip(numbers, columns, strict=True):
            yield {"study": "message", "processes": size, "numbers": count, "seconds": max(times)}
    shared = SHARED[: 1 if quick else None]
    for size in PROCESSES:
        columns = zip(*_in_processes(_shards, size, shared), strict=True)
        for (count, k, d), times in zip(shared, columns, strict=True):
            yield {
                "study": "processes",
                "processes": size,
                "N": count,
                "K": k,
                "D": d,
                "seconds": max(times),
            }


def _batches(quick: bool) -> Iterator[dict[str, Any]]:
    """A pass over a stream, by the size of its batches, beside one over the tensor."""
    size, num_components, num_dims = 20_000 if quick else 200_000, 16, 8
    x = _points(size, num_dims)
    whole = _pass_seconds(_started(x, num_components), x, 10)
    yield {"study": "batches", "batch": size, "seconds": whole}
    for batch in BATCHES:
        if batch < size:
            seconds = _pass_seconds(_started(x, num_components), x.split(batch), 5)
            yield {"study": "batches", "batch": batch, "seconds": seconds}


def _write_rows(path: Path, num_bytes: int) -> int:
    """Points of ``PEER_DIMS`` dimensions on disk; how many."""
    chunk, written, seed = 500_000, 0, 0
    size = num_bytes // (4 * PEER_DIMS)
    with path.open("wb") as file:
        while written < size:
            count = min(chunk, size - written)
            _points(count, PEER_DIMS, seed).float().numpy().tofile(file)
            written, seed = written + count, seed + 1
    return size


def _alone(program: str, *arguments: Any, python: str = sys.executable) -> dict[str, Any]:
    """What a function of ``growth`` finds in a process of its own, or how it died."""
    code = f"from benchmarks import growth; growth.{program}({', '.join(map(repr, arguments))})"
    done = subprocess.run(
        [python, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        words = done.stderr.strip().splitlines()
        return {"died": words[-1][:80] if words else f"signal {-done.returncode}"}
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _file(path: Path, num_bytes: int) -> dict[str, Any]:
    size = _write_rows(path, num_bytes)
    return {
        "study": "file",
        "bytes": path.stat().st_size,
        "N": size,
        "K": 4,
        "D": PEER_DIMS,
        "iterations": 2,
        **_alone("fit_file", str(path), 4, PEER_DIMS, 2),
    }


def _peers(sizes: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """Each contender on more and more points, until it dies."""
    contenders = dict.fromkeys(growth.CONTENDERS, sys.executable)
    contenders["tgmm"] = GUEST
    for name, python in contenders.items():
        for size in sizes if Path(python).exists() else ():
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "points"
                _write_rows(path, size * 4 * PEER_DIMS)
                arguments = name, str(path), PEER_COMPONENTS, PEER_DIMS, LIMIT
                found = _alone("grow", *arguments, python=python)
            yield {"study": "peers", "name": name, "N": size, "limit": LIMIT, **found}
            if "died" in found:
                break
    # Spark holds points in a process of its own, which no limit of ours reaches.
    for size in sizes[:2] if shutil.which("java") and Path(GUEST).exists() else ():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "points"
            _write_rows(path, size * 4 * PEER_DIMS)
            found = _alone("fit_spark", str(path), PEER_COMPONENTS, PEER_DIMS, LIMIT, python=GUEST)
        yield {"study": "peers", "name": "Spark", "N": size, "limit": LIMIT, **found}
