"""Interactives: in Jupyter, on any web page, and as figures (chapters 01 to 08)."""

from gmmedu.widgets.base import Interactive
from gmmedu.widgets.gaussian import GaussianExplorer

__all__ = ["GaussianExplorer", "Interactive"]
