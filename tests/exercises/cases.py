"""What the test of an exercise is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Case:
    """right: answers that are accepted, in every form a reader may give. wrong: pairs of (an
    answer that is refused, a part of the line that it gets), three typical ones or more."""

    right: Sequence[Any]
    wrong: Sequence[tuple[Any, str]]
