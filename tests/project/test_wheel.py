"""The wheel alone: what it holds, and that it runs where nothing but its own dependencies is."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from project.test_project import PROJECT, ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


def _needed(names: list[str]) -> set[str]:
    """The distributions that these need, and what those need, of what is installed here."""
    found: set[str] = set()
    while names:
        requirement = Requirement(names.pop())
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        names += importlib.metadata.requires(name) or []
    return found


def _linked(distribution: str, site_packages: Path) -> None:
    """A distribution of this environment in another one, by links to its folders and files."""
    files = importlib.metadata.files(distribution) or []
    for top in {file.parts[0] for file in files if file.parts[0] not in ("..", "__pycache__")}:
        place = Path(str(importlib.metadata.distribution(distribution).locate_file(top)))
        if place.exists() and not (site_packages / top).exists():
            (site_packages / top).symlink_to(place)


def test_it_holds_both_packages_with_their_data_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    info = f"gmmedu-{PROJECT['project']['version']}.dist-info"
    assert tops == {"gmmedu", "gmmbook", info}
    for package in ("gmmedu", "book/gmmbook"):
        sources = {
            path.relative_to((ROOT / package).parent).as_posix()
            for path in (ROOT / package).rglob("*")
            if path.is_file()
            and path.name != "ruff.toml"
            and not {"__pycache__", ".ruff_cache"} & set(path.parts)
        }
        assert sources <= set(names), sources - set(names)


def test_the_example_of_the_readme_runs_with_its_own_dependencies_alone(
    wheel: Path, tmp_path: Path
) -> None:
    """In a fresh environment that has the wheel and what it asks for: none of the book's."""
    venv.create(tmp_path / "env", with_pip=False)
    (python,) = [*(tmp_path / "env").glob("bin/python"), *tmp_path.glob("env/Scripts/python.exe")]
    told = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    site_packages = Path(told.stdout.strip())
    zipfile.ZipFile(wheel).extractall(site_packages)
    for distribution in _needed(list(PROJECT["project"]["dependencies"])):
        _linked(distribution, site_packages)

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", readme, re.S)
    code = example + (
        "print(gmmedu.__version__, f'{fit.nll:.4f}')\n"
        "import importlib.util\n"
        "book = 'sklearn scipy ipywidgets anywidget IPython sphinx playwright'.split()\n"
        "print([name for name in book if importlib.util.find_spec(name)])\n"
    )
    run = subprocess.run([python, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    # mclust 6.0.0 has the log likelihood -1130.264 for 272 points.
    assert run.stdout == f"{PROJECT['project']['version']} 4.1554\n[]\n"
