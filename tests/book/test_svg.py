"""A compacted drawing is the same drawing."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

from gmmbook.svg import compact
from gmmedu import plot

NUMBERS = r"-?\d*\.?\d+(?:e-?\d+)?"


@pytest.fixture(scope="module")
def drawing() -> str:
    """Points alike, points each in a color of its own, contours, text, dashes, a small number."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 2, generator=generator)
    with mpl.rc_context(plot.STYLE):
        figure, (left, right) = plt.subplots(1, 2)
        plot.scatter(x, left)
        plot.scatter(x, right, responsibilities=torch.rand(200, 3).softmax(1))
        right.contour(np.outer(np.arange(5.0), np.arange(5.0)))
        left.plot([-1, 1e-9, 1], [0, 1e-12, 1], "--")
        left.set(title="$\\mu_1$ & <b>")
        stream = io.StringIO()
        figure.savefig(stream, format="svg")
        plt.close(figure)
    return stream.getvalue()


def elements(svg: str) -> list[ElementTree.Element]:
    found = ElementTree.fromstring(svg).iter()
    return [e for e in found if e.tag.endswith(("}path", "}use", "}image", "}rect", "}g"))]


def test_the_same_shapes_in_the_same_places(drawing: str) -> None:
    before, after = elements(drawing), elements(compact(drawing))
    assert [e.tag for e in before] == [e.tag for e in after]
    for old, new in zip(before, after, strict=True):
        for name in ("d", "x", "y", "transform", "id", "clip-path"):
            texts = old.get(name, ""), new.get(name, "")
            one, other = (re.findall(NUMBERS, text) for text in texts)
            assert np.allclose(np.array(one, float), np.array(other, float), rtol=0, atol=0.051), (
                name
            )
            bare = [re.sub(NUMBERS + r"|\s", "", text) for text in texts]
            assert bare[0] == bare[1], name


def test_each_point_keeps_its_style(drawing: str) -> None:
    def styles(svg: str) -> list[str]:
        root, found = ElementTree.fromstring(svg), []

        def walk(element: ElementTree.Element, style: str) -> None:
            style = element.get("style", style)
            if element.tag.endswith("}use"):
                found.append(style)
            for child in element:
                walk(child, style)

        walk(root, "")
        return found

    assert styles(drawing) == styles(compact(drawing))
    assert len(set(styles(drawing))) > 100


def test_it_is_smaller_and_compacting_again_changes_nothing(drawing: str) -> None:
    once = compact(drawing)
    assert len(once) < 0.75 * len(drawing)
    assert compact(once) == once


def test_a_notebook_figure_is_svg_without_a_date() -> None:
    script = """
import base64, json
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.enable_gui = lambda gui=None: None
import matplotlib
matplotlib.use("module://matplotlib_inline.backend_inline")
import torch
from matplotlib import pyplot as plt
import gmmbook
from gmmedu import plot
gmmbook.use_style()
figure = plot.scatter(torch.zeros(3, 2)).figure
data, _ = shell.display_formatter.format(figure)
print(json.dumps({kind: value for kind, value in data.items() if "image" in kind}))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    images = json.loads(run.stdout.splitlines()[-1])
    assert list(images) == ["image/svg+xml"]
    assert "dc:date" not in images["image/svg+xml"]
    assert 'width="338.4pt"' in images["image/svg+xml"]  # 4.7 inches, margins not trimmed
