"""Peak memory of ``fit_em`` above the data, in a process of its own.

``python -m benchmarks.memory gmmedu`` prints the figures of one fit as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from benchmarks import THREADS
from benchmarks.contenders import CONTENDERS
from benchmarks.problems import Parameters

SIZE = (1_000_000, 16, 64)
QUICK_SIZE = (100_000, 16, 64)
ITERATIONS = 2
BAR_MEGABYTES = 100.0
_MEGABYTE = 1e6
_BLOCK = 10_000


def run(quick: bool = False) -> dict[str, Any]:
    """Measure gmmedu in a fresh process, where nothing else has been allocated."""
    size = QUICK_SIZE if quick else SIZE
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", "gmmedu", *map(str, size)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"the process that measures memory failed:\n{done.stderr}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**figures, "bar_megabytes": BAR_MEGABYTES, "passed": figures["peak"] < BAR_MEGABYTES}


def measure(name: str, size: tuple[int, int, int]) -> dict[str, Any]:
    """Peak of a fit with full covariances in float32, above what is resident before it, in MB."""
    torch.set_num_threads(THREADS)
    contender = next(each for each in CONTENDERS if each.name == name)
    num_samples, num_dims, num_components = size
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(num_components, num_dims, generator=generator)
    # In blocks, so that making the data leaves no peak of its own behind.
    x = torch.empty(num_samples, num_dims)
    for block in x.split(_BLOCK):
        labels = torch.randint(num_components, (len(block),), generator=generator)
        block.normal_(generator=generator).add_(centers[labels])
    start = Parameters(
        np.full(num_components, 1 / num_components),
        centers.double().numpy(),
        np.tile(np.eye(num_dims), (num_components, 1, 1)),
    )
    fit = partial(contender.fit, "full", start=start, iterations=ITERATIONS)
    fit(x=x[:1000].clone())  # loads and starts what any fit needs

    process = psutil.Process()
    before, peak_before = process.memory_info().rss, _peak(process)
    with _Sampler(process) as sampler:
        fit(x=x)
    return {
        "contender": name,
        "size": size,
        "dtype": "float32",
        "iterations": ITERATIONS,
        "data": x.nbytes / _MEGABYTE,
        "peak": (_peak(process) - before) / _MEGABYTE,
        "peak_sampled": (sampler.highest - before) / _MEGABYTE,
        "peak_before_the_fit": (peak_before - before) / _MEGABYTE,
    }


def _peak(process: psutil.Process) -> int:
    """Highest resident size so far, in bytes.

    On Linux from /proc: the figure of getrusage starts at that of the process which started this
    one, and so can hide behind it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(row for row in status.read_text().splitlines() if row.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    information = process.memory_info()
    if hasattr(information, "peak_wset"):  # Windows
        return int(information.peak_wset)
    import resource

    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # bytes on macOS


class _Sampler(threading.Thread):
    """Watches the resident size every millisecond: the cross-check of the peak."""

    def __init__(self, process: psutil.Process) -> None:
        super().__init__(daemon=True)
        self.process = process
        self.highest = 0
        self.finished = threading.Event()

    def run(self) -> None:
        while not self.finished.wait(0.001):
            self.highest = max(self.highest, self.process.memory_info().rss)

    def __enter__(self) -> _Sampler:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.finished.set()
        self.join()


if __name__ == "__main__":
    name, *numbers = sys.argv[1:]
    num_samples, num_dims, num_components = map(int, numbers or SIZE)
    print(json.dumps(measure(name, (num_samples, num_dims, num_components))))
