"""gmmedu timed beside its peers; run with ``python -m benchmarks``. README.md says how."""

import os

THREADS = 2

# Here, because numerical libraries read these once, when they are loaded.
for _name in ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "NUMBA"):
    os.environ[f"{_name}_NUM_THREADS"] = str(THREADS)
os.environ.setdefault("MPLBACKEND", "agg")
