"""Figures as SVG, made smaller than matplotlib writes it: a page carries half as much, and looks
the same.

Coordinates are in points, 72 to the inch, with six decimals; on a screen a twentieth of one is not
to be seen. Each of many points repeats its style.
"""

from __future__ import annotations

import re
from re import Match
from typing import Any

from IPython.core.getipython import get_ipython
from matplotlib.figure import Figure

from gmmedu import plot

_NOISE = re.compile(
    r"<\?xml.*?\?>\s*|<!DOCTYPE.*?>\s*|<metadata>.*?</metadata>\s*|<!--.*?-->\s*", re.S
)
_COORDINATES = re.compile(r'\b(d|points|x|y)="([^"]*)"')
_NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
_POINTS = re.compile(r'<g( clip-path="[^"]*")?>\s*((?:<use [^>]*/>\s*)+)</g>')
_STYLE = re.compile(r' style="([^"]*)"')


def use_style() -> None:
    """Draw every figure from here on in the style of the book; in a notebook as compact SVG."""
    plot.use_style()
    ip: Any = get_ipython()
    if ip is None:
        return
    from matplotlib_inline.backend_inline import set_matplotlib_formats
    from matplotlib_inline.config import InlineBackend

    # A figure keeps its declared width, so that its text keeps its size; no date, so that the
    # same figure is the same file.
    options: dict[str, Any] = {"bbox_inches": None, "metadata": {"Date": None}}
    inline = InlineBackend.instance()
    inline.print_figure_kwargs = options
    inline.figure_formats = {"svg"}
    set_matplotlib_formats("svg", **options)
    formatter = ip.display_formatter.formatters["image/svg+xml"]
    write = formatter.lookup_by_type(Figure)
    formatter.for_type(Figure, lambda figure: compact(write(figure)))


def compact(svg: str) -> str:
    """The same drawing: no comments, one decimal where shapes are placed, a style for many points
    alike given once."""
    svg = _NOISE.sub("", svg)
    svg = _COORDINATES.sub(_shortened, svg)
    svg = _POINTS.sub(_alike, svg)
    return re.sub(r">\s+<", "><", svg)


def _shortened(attribute: Match[str]) -> str:
    text = _NUMBER.sub(_rounded, attribute[2])
    text = re.sub(r"\s*([A-Za-z])\s*", r"\1", re.sub(r"\s+", " ", text))
    return f'{attribute[1]}="{text.strip()}"'


def _rounded(number: Match[str]) -> str:
    value = float(number[0])
    # Small shapes, such as a marker's outline, keep one digit more.
    text = f"{value:.{1 if abs(value) > 8 else 2}f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def _alike(group: Match[str]) -> str:
    styles = _STYLE.findall(group[2])
    if len(styles) != group[2].count("<use ") or len(set(styles)) != 1:
        return group[0]
    points = _STYLE.sub("", group[2])
    return f'<g{group[1] or ""} style="{styles[0]}">{points}</g>'
