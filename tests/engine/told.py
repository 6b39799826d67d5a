"""A stopping rule that notes what it is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gmmedu


@dataclass(frozen=True)
class Told(gmmedu.Absolute):
    """The rule of a tolerance, which notes the objective of one fit at each iteration."""

    told: list[float] = field(default_factory=list)

    def met(self, objective: Any, earlier: Any) -> Any:
        self.told.append(float(objective[0]))
        return super().met(objective, earlier)
