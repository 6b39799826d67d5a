"""The stored studies that notebooks read are of the engine that they tell of."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from gmmbook import lab
from project.test_project import ROOT

#: How far a number may be from the stored one; what is counted may differ by one where a machine
#: rounds in another way, and so may an error of one row in 150.
ALLOWED = {
    "classifiers": 0.008,
    "collapse": 0.0,
    "features": 0.02,
    "galaxies": 1e-5,
    "race": 0.0,
    "reliability": 1e-4,
    "segmentation": 1e-4,
}
#: Minutes of training, and times.
NOT_COUNTED = {"density", "scale"}


def test_every_study_is_counted_or_named() -> None:
    assert {*ALLOWED} | NOT_COUNTED == {*lab.STUDIES} and not NOT_COUNTED & {*ALLOWED}


@pytest.fixture(scope="module")
def recounted() -> dict[str, list[Any]]:
    """Of each study the pairs of what is stored and what this engine gives."""
    # In a process of their own: the benchmarks set the threads of theirs.
    command = [sys.executable, "-m", "benchmarks.recount", *ALLOWED]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pairs: dict[str, list[Any]] = json.loads(done.stdout)
    return pairs


@pytest.mark.slow
@pytest.mark.parametrize("name", ALLOWED)
def test_a_stored_study_is_what_this_engine_gives(
    recounted: dict[str, list[Any]], name: str
) -> None:
    pairs = recounted[name]
    assert len(pairs) > 0
    for stored, again in pairs:
        assert stored.keys() == again.keys()
        far = [key for key in stored if not _close(stored[key], again[key], ALLOWED[name])]
        assert not far, (far, stored, again)


def _close(stored: Any, again: Any, allowed: float) -> bool:
    if isinstance(stored, list):
        pairs = zip(stored, again, strict=True)
        return all(_close(*pair, allowed) for pair in pairs)
    if isinstance(stored, bool) or not isinstance(stored, (int, float)):
        return bool(stored == again)
    return bool(abs(stored - again) <= (1 if isinstance(stored, int) else allowed))
