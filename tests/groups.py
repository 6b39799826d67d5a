"""Groups of processes for tests: forked from a server that has torch already, joined by gloo."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import tempfile
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

#: Seconds until a message that does not come is an error.
TIMEOUT = 20.0


def _work(
    function: Callable[..., Any], rank: int, size: int, folder: str, timeout: float, kept: Any
) -> None:
    """One process: the result of ``function(rank, size, *kept)``, or its error, into a file."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if size > 1:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder}/store",
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=timeout),
        )
    try:
        found = function(rank, size, *kept)
    except Exception as error:
        found = error
    Path(folder, f"{rank}.part").write_bytes(pickle.dumps(found))
    os.replace(Path(folder, f"{rank}.part"), Path(folder, str(rank)))
    # A process that ends closes its connections, and so it ends what the others wait for.
    os._exit(0)


def run(function: Callable[..., Any], size: int, *kept: Any, timeout: float = TIMEOUT) -> list[Any]:
    """What ``function(rank, size, *kept)`` returns or raises in each of so many processes; None
    of one that died."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["gmmedu", "pytest"])
    with tempfile.TemporaryDirectory() as folder:
        arguments = [(function, rank, size, folder, timeout, kept) for rank in range(size)]
        workers = [context.Process(target=_work, args=one) for one in arguments]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(300)
            if worker.is_alive():
                worker.kill()
        files = [Path(folder, str(rank)) for rank in range(size)]
        return [pickle.loads(file.read_bytes()) if file.exists() else None for file in files]
