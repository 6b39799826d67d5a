"""Interactives: in Jupyter, on any web page, and as figures (chapters 01 to 08)."""

from gmmedu.widgets.base import Interactive
from gmmedu.widgets.gaussian import GaussianExplorer
from gmmedu.widgets.landscape import LandscapeExplorer
from gmmedu.widgets.mixture import MixtureExplorer
from gmmedu.widgets.scrubber import FitScrubber
from gmmedu.widgets.singularity import SingularityExplorer

__all__ = [
    "FitScrubber",
    "GaussianExplorer",
    "Interactive",
    "LandscapeExplorer",
    "MixtureExplorer",
    "SingularityExplorer",
]
