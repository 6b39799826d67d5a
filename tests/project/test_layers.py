"""The layers of the package are those that CONTRIBUTING lists, types included."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "gmmedu"
#: Lines that a function of the engine may have.
LONGEST = 40


def listed() -> list[str]:
    """The modules in the order of CONTRIBUTING's numbered list."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    section = text.split("## Layers")[1].split("\n## ")[0]
    lines = re.findall(r"^\d+\. (.*)$", section, flags=re.MULTILINE)
    return [name for line in lines for name in re.findall(r"`(\w+)`", line.split(":")[0])]


def imported(source: str) -> set[str]:
    """The modules of the package that a module's source imports, anywhere in it; "gmmedu" where it
    imports the package as a whole, which has all of them."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            parts = ["gmmedu"] * bool(node.level) + (node.module or "").split(".") * bool(
                node.module
            )
            names = [".".join([*parts, alias.name]) for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        paths = (name.split(".") for name in names)
        found |= {path[min(1, len(path) - 1)] for path in paths if path[0] == "gmmedu"}
    return found


def test_every_module_has_a_layer() -> None:
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert modules == set(listed())


@pytest.mark.parametrize("module", listed())
def test_a_module_imports_only_from_layers_above(module: str) -> None:
    order = listed()
    above = set(order[: order.index(module)])
    assert imported((PACKAGE / f"{module}.py").read_text("utf-8")) <= above


def engine() -> list[str]:
    """The modules down to the fitters."""
    order = listed()
    return order[: order.index("descent") + 1]


@pytest.mark.parametrize("module", engine())
def test_a_function_of_the_engine_is_short(module: str) -> None:
    tree = ast.parse((PACKAGE / f"{module}.py").read_text("utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    # By their lines: methods of several classes share a name.
    lengths = {
        f"{node.name}, line {node.lineno}": (node.end_lineno or 0) - node.lineno + 1
        for node in functions
    }
    assert not {name: length for name, length in lengths.items() if length > LONGEST}


def test_what_is_imported_is_found_wherever_it_stands() -> None:
    source = """
from typing import TYPE_CHECKING
import gmmedu.values
from gmmedu import passes
if TYPE_CHECKING:
    from gmmedu.models import GaussianMixture
def later():
    from gmmedu.em import fit_em
    from .descent import fit_model
    from . import units
"""
    assert imported(source) == {"values", "passes", "models", "em", "descent", "units"}
    assert imported("import gmmedu") == {"gmmedu"}
