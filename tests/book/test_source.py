"""``show`` prints the code that runs, and says what has none."""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Any

import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

import gmmedu
from gmmbook import exercises, show, source
from gmmedu import covariance, descent, gaussian, models, passes


def _tree(code: str) -> str:
    """The code as Python reads it, less docstrings and layout."""
    tree = ast.parse(textwrap.dedent(code))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            if len(node.body) > 1:
                node.body.pop(0)
    return ast.dump(tree)


def _everything() -> list[Any]:
    """Functions and classes of the package, and their methods."""
    found: list[Any] = []
    for module in (
        covariance,
        descent,
        gaussian,
        models,
        passes,
        source,
        exercises,
        gmmedu.mixture,
    ):
        for thing in vars(module).values():
            if getattr(thing, "__module__", None) != module.__name__:
                continue
            if inspect.isfunction(thing) or inspect.isclass(thing):
                found.append(thing)
            if inspect.isclass(thing):
                found += [m for m in vars(thing).values() if inspect.isfunction(m)]
    return [thing for thing in found if inspect.isclass(thing) or _is_written(thing)]


def _is_written(function: Any) -> bool:
    """Whether a person wrote it; a dataclass makes some of its methods itself."""
    return "<string>" not in inspect.unwrap(function).__code__.co_filename


@pytest.mark.parametrize("thing", _everything(), ids=lambda thing: thing.__qualname__)
def test_what_is_shown_is_what_runs(thing: Any) -> None:
    shown = source.source(thing)
    assert _tree(shown) == _tree(inspect.getsource(thing))
    assert shown == shown.rstrip() and not shown[0].isspace()


def test_docstrings_are_left_out_and_comments_stay() -> None:
    def function(x: int) -> int:
        """Not this,

        nor this."""

        # but this
        return x  # and this

    def bare() -> None:
        """All that there is."""

    assert source.source(function) == (
        "def function(x: int) -> int:\n    # but this\n    return x  # and this"
    )
    assert "nor this" in source.source(function, docstring=True)
    assert "All that there is" in source.source(bare)


@pytest.mark.parametrize("shell", [None, InteractiveShell], ids=["python", "ipython"])
def test_show_prints_at_a_prompt(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shell: Any
) -> None:
    monkeypatch.setattr(source, "get_ipython", lambda: shell)
    show(gaussian.residuals, gmmedu.GmmFull.log_prob)
    printed = capsys.readouterr().out
    assert printed.startswith("def residuals(") and "\n\ndef log_prob(" in printed


def test_show_takes_properties_and_bound_methods() -> None:
    model = gmmedu.GmmFull(2, 2)
    assert source.source(model.log_prob) == source.source(gmmedu.GmmFull.log_prob)
    assert source.source(gmmedu.GmmFull.weights).startswith("@property\ndef weights")


@pytest.mark.parametrize(
    "thing",
    [3, "text", None, torch, torch.exp, len, dict, torch.zeros(2)],
    ids=lambda t: str(t)[:9],
)
def test_what_has_no_source_is_named(thing: Any) -> None:
    with pytest.raises(TypeError, match="show needs a function|has no Python source"):
        show(thing)


def test_show_of_nothing_is_told_so() -> None:
    with pytest.raises(TypeError, match="needs a function"):
        show()


@pytest.mark.slow
def test_show_is_highlighted_in_a_notebook() -> None:
    cell = new_code_cell("import gmmbook, gmmedu\ngmmbook.show(gmmedu.gaussian.residuals)")
    notebook = new_notebook(cells=[cell])
    NotebookClient(notebook, kernel_name="python3").execute()
    (output,) = notebook.cells[0].outputs
    assert output.data["text/markdown"].startswith("```python\ndef residuals(")
