"""Interactives: in Jupyter, on any web page, and as figures (chapters 00 to 13)."""

from gmmbook.widgets.base import Interactive
from gmmbook.widgets.density import MDNExplorer
from gmmbook.widgets.gaussian import GaussianExplorer
from gmmbook.widgets.landscape import LandscapeExplorer
from gmmbook.widgets.layer import EMLayerExplorer
from gmmbook.widgets.mixture import MixtureExplorer
from gmmbook.widgets.scrubber import FitScrubber
from gmmbook.widgets.segmentation import SegmentationExplorer
from gmmbook.widgets.selection import SelectionExplorer
from gmmbook.widgets.separation import SeparationExplorer
from gmmbook.widgets.singularity import SingularityExplorer
from gmmbook.widgets.stream import StreamExplorer

__all__ = [
    "EMLayerExplorer",
    "FitScrubber",
    "GaussianExplorer",
    "Interactive",
    "LandscapeExplorer",
    "MDNExplorer",
    "MixtureExplorer",
    "SegmentationExplorer",
    "SelectionExplorer",
    "SeparationExplorer",
    "SingularityExplorer",
    "StreamExplorer",
]
