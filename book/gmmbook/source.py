"""``show``: a function's source in the notebook, so that the code read is the code that runs."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

from IPython.core.getipython import get_ipython
from IPython.display import Markdown, display


def show(*objects: Callable[..., Any] | type, docstring: bool = False) -> None:
    """Print the source of functions, methods or classes, highlighted where there is a notebook.

    docstring: print the docstrings too; they are left out otherwise, so that ten lines stay ten
    lines (``help`` shows them). Raises TypeError for what has no Python source: a number, a
    module, a function written in C.
    """
    if not objects:
        raise TypeError(
            "show needs a function, a method or a class, for example show(model.sample)"
        )
    code = "\n\n".join(source(each, docstring=docstring) for each in objects)
    if not _display(f"```python\n{code}\n```"):
        print(code)


def source(thing: Any, *, docstring: bool = False) -> str:
    """The source of one function, method or class, without indentation, as ``show`` prints it."""
    if isinstance(thing, property):
        thing = thing.fget
    if not (inspect.isroutine(thing) or inspect.isclass(thing)):
        raise TypeError(
            f"show needs a function, a method or a class, got {thing!r:.60}, "
            f"a {type(thing).__name__}"
        )
    try:
        code = textwrap.dedent(inspect.getsource(inspect.unwrap(thing))).rstrip()
    except (OSError, TypeError):
        raise TypeError(
            f"{getattr(thing, '__qualname__', thing)!s} has no Python source to show; "
            "it was written in another language or typed at a prompt"
        ) from None
    return code if docstring else _without_docstrings(code)


def _without_docstrings(code: str) -> str:
    """The same lines, comments included, less the docstring of each function and class."""
    lines = code.splitlines()
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if ast.get_docstring(node) is None or len(node.body) == 1:
            continue
        first, second = node.body[0], node.body[1]
        # Both on one line.
        if first.lineno == second.lineno:
            continue
        end = first.end_lineno or first.lineno
        # The blank line below a docstring goes with it.
        if end < len(lines) and not lines[end].strip():
            end += 1
        lines[first.lineno - 1 : end] = [_GONE] * (end - first.lineno + 1)
    return "\n".join(line for line in lines if line is not _GONE)


_GONE = "\0"


def _display(markdown: str) -> bool:
    """Show Markdown in a running notebook; False where there is none."""
    # In a terminal, IPython's own included, there is no kernel.
    if getattr(get_ipython(), "kernel", None) is None:
        return False
    display(Markdown(markdown))
    return True
