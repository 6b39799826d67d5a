"""What every test shares: threads that fit the workers."""

from __future__ import annotations

import os

# Two workers with a pool of threads each would fight for the same cores, and their notebook
# kernels too; these are read when torch is imported, here and in every kernel started from here.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("MKL_NUM_THREADS", "1")
