"""The reference page: each public name stands on it, and nothing that does not exist."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

import gmmbook
import gmmedu

PAGE = (Path(__file__).parents[2] / "book" / "api.md").read_text(encoding="utf-8")


def _documented() -> set[str]:
    """Full names that the page's autodoc directives describe."""
    names, module = set(), ""
    for line in PAGE.splitlines():
        directive = re.match(r"\.\. (currentmodule|auto\w+|data):: (\S+)", line)
        if not directive or directive[1] == "autosummary":
            continue
        if directive[1] == "currentmodule":
            module = directive[2]
        else:
            name = directive[2]
            names.add(name if name.startswith(("gmmedu.", "gmmbook.")) else f"{module}.{name}")
    return names


def _public(module: str) -> list[str]:
    """Functions and classes that a module defines under a name without an underscore."""
    contents = vars(importlib.import_module(module))
    return [
        f"{module}.{name}"
        for name, value in contents.items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module
    ]


@pytest.mark.parametrize("package", [gmmedu, gmmbook], ids=lambda package: package.__name__)
def test_every_public_name_is_on_the_page(package: ModuleType) -> None:
    assert {f"{package.__name__}.{name}" for name in package.__all__} <= _documented()


@pytest.mark.parametrize("name", [*_public("gmmedu.plot"), *_public("gmmedu.gaussian")])
def test_every_function_of_a_public_module_is_on_the_page(name: str) -> None:
    assert name in _documented()


@pytest.mark.parametrize("name", sorted(_documented()))
def test_what_is_on_the_page_exists_and_is_described(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    value = getattr(importlib.import_module(module), attribute, None) or importlib.import_module(
        name
    )
    # Data has no docstring of its own, nor has a class that inherits one.
    described = inspect.isclass(value) or inspect.isroutine(value) or inspect.ismodule(value)
    assert value.__doc__ if described else name.rpartition(".")[2].isupper()


@pytest.mark.parametrize("name", sorted(_documented()))
def test_what_is_described_is_listed_in_a_summary(name: str) -> None:
    listed = set(re.findall(r"^   (\S+)$", PAGE, flags=re.MULTILINE))
    short = name.rpartition(".")[2]
    if name not in ("gmmedu.MODELS", "gmmedu.demo.main", "gmmedu.plot"):
        assert any(entry.rpartition(".")[2] == short for entry in listed)


def test_the_exports_are_what_the_package_offers() -> None:
    classes = {name for name in vars(gmmedu) if name[:1].isupper()}
    assert classes <= set(gmmedu.__all__)
    for name in gmmedu.__all__:
        assert hasattr(gmmedu, name)
