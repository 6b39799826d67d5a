"""The wheel alone: what it holds, and that it runs where nothing but its own dependencies is."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import venv
import zipfile
from pathlib import Path

import pytest
import zip_book
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from project.test_project import PROJECT, ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return zip_book.build_wheel(tmp_path_factory.mktemp("wheel"))


def _needed(lines: list[str]) -> set[str]:
    """The distributions that these need, and what those need, of what is installed here."""
    wanted = [(Requirement(line), "") for line in lines]
    found: set[tuple[str, str]] = set()
    while wanted:
        requirement, of = wanted.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": of}):
            continue
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras} - {e for n, e in found if n == name}:
            found.add((name, extra))
            needs = importlib.metadata.requires(name) or []
            wanted += [(Requirement(line), extra) for line in needs]
    return {name for name, _ in found}


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
        own = {name for name in names if name.startswith(f"{Path(package).name}/")}
        assert sources == own, sources ^ own


def test_the_description_leads_to_pages_that_are_not_beside_it(wheel: Path) -> None:
    """It is shown where the files of the project are not."""
    info = f"gmmedu-{PROJECT['project']['version']}.dist-info"
    text = zipfile.ZipFile(wheel).read(f"{info}/METADATA").decode()
    links = re.findall(r"\]\(([^)]*)\)", text)
    assert len(links) > 4 and all(link.startswith("https://") for link in links)
    begin = "https://github.com/gmmedu/gmmedu/blob/main/"
    here = [link.removeprefix(begin) for link in links if link.startswith(begin)]
    assert here and all((ROOT / name).is_file() for name in here)


def _environment(folder: Path, wheel: Path, needs: list[str]) -> Path:
    """The Python of a fresh environment: the wheel, what is needed, and nothing else."""
    venv.create(folder, with_pip=False)
    (python,) = [*folder.glob("bin/python"), *folder.glob("Scripts/python.exe")]
    told = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    site_packages = Path(told.stdout.strip())
    zipfile.ZipFile(wheel).extractall(site_packages)
    for distribution in _needed(needs):
        _linked(distribution, site_packages)
    return python


def test_the_example_of_the_readme_runs_with_its_own_dependencies_alone(
    wheel: Path, tmp_path: Path
) -> None:
    """None of the book's is there."""
    python = _environment(tmp_path / "env", wheel, list(PROJECT["project"]["dependencies"]))
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


@pytest.mark.slow
def test_a_notebook_of_the_zip_runs_without_a_network(tmp_path: Path) -> None:
    """Where nothing is but what the wheel asks for, and a kernel; beside no file of the clone."""
    zip_book.write_zip(tmp_path / "book.zip")
    zipfile.ZipFile(tmp_path / "book.zip").extractall(tmp_path)
    folder = tmp_path / zip_book.FOLDER
    chapters = {path.name for path in (ROOT / "book").glob("*.ipynb")}
    assert chapters == {path.name for path in folder.glob("*.ipynb")}
    pages = "".join(page.read_text(encoding="utf-8") for page in folder.glob("*.md"))
    shown = set(re.findall(r"_static/[\w.-]+\w", pages))
    assert shown and shown == {f"_static/{path.name}" for path in folder.glob("_static/*")}
    (wheel,) = folder.glob("*.whl")
    assert wheel.name in (folder / "README.txt").read_text(encoding="utf-8")

    project = PROJECT["project"]
    needs = [*project["dependencies"], *project["optional-dependencies"]["notebooks"]]
    python = _environment(tmp_path / "env", wheel, [*needs, "ipykernel", "nbconvert"])
    # An address that answers nothing stands for the network.
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")
    own = {"HOME": str(tmp_path), "JUPYTER_PREFER_ENV_PATH": "1", "MPLBACKEND": "agg"}
    kernel = [str(python), "-m", "ipykernel", "install", "--prefix", str(tmp_path / "env")]
    convert = "nbconvert --to notebook --execute --stdout 00-first-look.ipynb".split()
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | nowhere | own
    environment["JUPYTER_PATH"] = str(tmp_path / "env" / "share" / "jupyter")
    subprocess.run(kernel, env=environment, check=True, capture_output=True)
    run = subprocess.run(
        [python, "-m", *convert], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert '"output_type": "error"' not in run.stdout and "gmmedu" in run.stdout
