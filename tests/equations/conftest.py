"""The ``compare`` fixture, and what a proof must have: a label, and a comparison that was made."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from equations.proof import Compare, Record

HERE = Path(__file__).parent


@pytest.fixture
def compare(request: pytest.FixtureRequest, record_property: Record) -> Iterator[Compare]:
    marker = request.node.get_closest_marker("verifies")
    assert marker is not None, "a test that compares must say which equation it @verifies"
    for label in marker.args:
        record_property("label", label)
    how = inspect.cleandoc(request.function.__doc__).partition("\n\n")[0]
    record_property("how", " ".join(how.split()).rstrip("."))
    comparison = Compare(record_property)
    yield comparison
    assert comparison.comparisons, "a test that compares nothing proves nothing"


@pytest.fixture(autouse=True)
def _double_precision() -> Iterator[None]:
    """Proofs are in float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not item.path.is_relative_to(HERE):
            continue
        marker = item.get_closest_marker("verifies")
        if marker is None or not marker.args:
            raise pytest.UsageError(f"{item.nodeid} does not say which equation it @verifies")
        if not getattr(item, "function", item).__doc__:
            raise pytest.UsageError(f"{item.nodeid} does not say in a docstring how it proves")
        if "compare" not in getattr(item, "fixturenames", ()):
            raise pytest.UsageError(f"{item.nodeid} does not use the fixture `compare`")
