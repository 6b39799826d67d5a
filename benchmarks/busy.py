"""How much a fit slows down when every core has another program to run."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

from benchmarks.contenders import Gmmedu, ScikitLearn
from benchmarks.problems import DTYPES, load, make_start
from benchmarks.timing import seconds_per_iteration

SIZE = (10_000, 8, 4)
SHORT, EXTRA, TURNS = 10, 60, 5


def run(quick: bool = False) -> Iterator[dict[str, Any]]:
    """In each turn both fit on the quiet machine, then both beside one spinning process a core."""
    for dtype, torch_dtype in DTYPES.items():
        x = load(SIZE).to(torch_dtype)
        start = make_start(x, SIZE[2])
        fits = {
            each.name: partial(each.fit, "full", x, start) for each in (Gmmedu(), ScikitLearn())
        }
        slower: dict[str, list[float]] = {name: [] for name in fits}
        quiet: dict[str, list[float]] = {name: [] for name in fits}
        for fit in fits.values():
            fit(SHORT)
        for _ in range(2 if quick else TURNS):
            for name, fit in fits.items():
                quiet[name].append(seconds_per_iteration(fit, SHORT, EXTRA))
            with ExitStack() as stack:
                for _ in range(os.cpu_count() or 1):
                    spinning = subprocess.Popen([sys.executable, "-c", "while True: pass"])
                    stack.callback(spinning.wait)
                    stack.callback(spinning.kill)
                for name, fit in fits.items():
                    busy = seconds_per_iteration(fit, SHORT, EXTRA)
                    slower[name].append(busy / quiet[name][-1])
        slowdown = {name: statistics.median(values) for name, values in slower.items()}
        for name, value in slowdown.items():
            yield {
                "N": SIZE[0],
                "D": SIZE[1],
                "K": SIZE[2],
                "dtype": dtype,
                "contender": name,
                "quiet_ms": round(1e3 * statistics.median(quiet[name]), 3),
                "times_slower": round(value, 2),
                "range": [round(min(slower[name]), 2), round(max(slower[name]), 2)],
                "passed": slowdown["gmmedu"] <= slowdown["scikit-learn"],
            }
