"""gmmbook: what the book needs beside ``gmmedu``, which it imports and which never imports it.

A notebook takes ``show``, ``check``, ``confirm`` and ``use_style`` from here, what its experiments
share with others from ``gmmbook.lab``, its figures from ``gmmbook.figures`` and its interactives
from ``gmmbook.widgets``.
"""

from gmmbook.exercises import check, confirm
from gmmbook.source import show
from gmmbook.svg import use_style

__all__ = ["check", "confirm", "show", "use_style"]
