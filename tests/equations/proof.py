"""Proofs by computation: a test marked ``@verifies(label)`` holds a numbered equation of the book
to an independent computation, and the error it finds goes into the page ``verification``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

Record = Callable[[str, object], None]


def verifies(*labels: str) -> pytest.MarkDecorator:
    """Mark a test as the proof of the equations with these labels."""
    return pytest.mark.verifies(*labels)


class Compare:
    """Compares what an equation says with what an independent computation says, and keeps count."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self.comparisons = 0

    def __call__(self, actual: Any, expected: Any, tolerance: float) -> None:
        """Absolute error up to 1, relative error above, at most ``tolerance`` in each entry.

        Shapes must agree: nothing is broadcast, so that no entry is compared by accident.
        """
        a, e = np.asarray(actual, dtype=np.float64), np.asarray(expected, dtype=np.float64)
        assert a.shape == e.shape, f"shapes differ: {a.shape} and {e.shape}"
        assert a.size, "nothing to compare"
        assert np.isfinite(a).all() and np.isfinite(e).all(), "not finite"
        error = float((np.abs(a - e) / np.maximum(1.0, np.abs(e))).max())
        self._note("error", error, tolerance)
        assert error <= tolerance, f"error {error:.2e}, allowed {tolerance:.0e}"

    def monte_carlo(self, draws: Any, expected: Any, allowed: float = 4.5) -> None:
        """The mean over the first axis of independent draws, to ``allowed`` standard errors."""
        d, e = np.asarray(draws, dtype=np.float64), np.asarray(expected, dtype=np.float64)
        assert d.shape[1:] == e.shape, f"shapes differ: {d.shape[1:]} and {e.shape}"
        assert len(d) >= 1000, f"{len(d)} draws are too few for a standard error to be trusted"
        standard_error = d.std(axis=0, ddof=1) / np.sqrt(len(d))
        assert (standard_error > 0).all(), "the draws do not vary"
        deviation = float((np.abs(d.mean(axis=0) - e) / standard_error).max())
        self._note("standard errors", deviation, allowed)
        assert deviation <= allowed, f"{deviation:.1f} standard errors off, allowed {allowed}"

    def _note(self, unit: str, found: float, allowed: float) -> None:
        self.comparisons += 1
        self._record(unit, f"{found:.17g} {allowed:.17g}")
