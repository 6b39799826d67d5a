"""The project's own files agree: pins with ranges, versions with each other, CI with both."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PLATFORMS = {
    "linux": {"sys_platform": "linux", "os_name": "posix", "platform_system": "Linux"},
    "darwin": {"sys_platform": "darwin", "os_name": "posix", "platform_system": "Darwin"},
    "win32": {"sys_platform": "win32", "os_name": "nt", "platform_system": "Windows"},
}


def _read_yaml(name: str) -> dict[Any, Any]:
    loaded = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def _requirements() -> list[Requirement]:
    """Everything the project asks for itself, extras too."""
    extras = PROJECT["project"]["optional-dependencies"]
    lines = [*PROJECT["project"]["dependencies"], *sum(extras.values(), [])]
    parsed = [Requirement(line) for line in lines]
    return [requirement for requirement in parsed if requirement.name != "gmmedu"]


def _supported() -> list[str]:
    """The minor versions of Python that the classifiers name, oldest first."""
    named = [re.search(r":: (3\.\d+)$", line) for line in PROJECT["project"]["classifiers"]]
    return sorted((found[1] for found in named if found), key=Version)


def _pins() -> dict[str, list[Requirement]]:
    pins: dict[str, list[Requirement]] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            pins.setdefault(canonicalize_name(pin.name), []).append(pin)
    return pins


def _environment(python: str, platform: str) -> dict[str, str]:
    return {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "platform_machine": "arm64" if platform == "darwin" else "x86_64",
        "extra": "",
        **PLATFORMS[platform],
    }


def _applies(marker: Marker | None, environment: dict[str, str]) -> bool:
    return marker is None or marker.evaluate(environment)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("python", _supported())
def test_every_dependency_has_one_pin_within_its_range(python: str, platform: str) -> None:
    environment, pins = _environment(python, platform), _pins()
    for requirement in _requirements():
        if not _applies(requirement.marker, environment):
            continue
        name = canonicalize_name(requirement.name)
        fitting = [pin for pin in pins.get(name, []) if _applies(pin.marker, environment)]
        assert len(fitting) == 1, f"{name} has {len(fitting)} pins"
        (specifier,) = fitting[0].specifier
        assert specifier.operator == "=="
        assert specifier.version in requirement.specifier, f"{fitting[0]} against {requirement}"


def test_the_pins_are_exact_and_bring_no_package_of_one_vendor() -> None:
    for name, pins in _pins().items():
        assert not re.match(r"nvidia|cuda|triton", name)
        for pin in pins:
            assert [specifier.operator for specifier in pin.specifier] == ["=="], pin
            assert pin.url is None


def test_torch_is_pinned_and_supported_as_promised() -> None:
    (torch,) = (requirement for requirement in _requirements() if requirement.name == "torch")
    assert Version("2.4") in torch.specifier and Version("2.3.1") not in torch.specifier
    assert [str(pin.specifier) for pin in _pins()["torch"]] == ["==2.13.0"]
    assert "torch==2.13.0" in PROJECT["tool"]["uv"]["constraint-dependencies"]


def test_the_peers_are_pinned_as_benchmarked() -> None:
    pins, newest = _pins(), _environment(_supported()[-1], "linux")
    for name, version in (("pomegranate", "1.1.2"), ("torchgmm", "0.1.4")):
        assert [str(pin.specifier) for pin in pins[name]] == [f"=={version}"]
    (learn,) = (pin for pin in pins["scikit-learn"] if _applies(pin.marker, newest))
    assert str(learn.specifier) == "==1.9.1"


def test_every_direct_dependency_says_why_it_is_there() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for requirement in _requirements():
        stated = re.search(
            rf'^ *"{re.escape(requirement.name)}(?![\w-])[^\n]*", # \w', text, re.MULTILINE
        )
        assert stated, f"{requirement.name} has no reason beside it"


def test_the_build_backend_is_pinned() -> None:
    for line in PROJECT["build-system"]["requires"]:
        assert re.fullmatch(r"[\w-]+==[\d.]+", line)
    # The wheel of the zip is built by what pip builds with.
    assert PROJECT["project"]["optional-dependencies"]["zip"] == PROJECT["build-system"]["requires"]


def test_the_supported_pythons_agree() -> None:
    asked = SpecifierSet(PROJECT["project"]["requires-python"])
    supported = _supported()
    oldest = Version(supported[0])
    assert oldest in asked and Version(f"{oldest.major}.{oldest.minor - 1}") not in asked
    assert PROJECT["tool"]["uv"]["pip"]["python-version"] == supported[0]
    assert PROJECT["tool"]["ruff"]["target-version"] == "py" + supported[0].replace(".", "")
    (least,) = (r.specifier for r in _requirements() if r.name == "torch")
    parts = {part["part"]: part for part in _parts()}
    assert parts["engine, oldest"]["python"] == supported[0]
    assert parts["engine, oldest"]["torch"].startswith(f"torch=={str(least).strip('>=')}.")
    assert parts["engine, newest"]["python"] == supported[-1]
    assert parts["engine, newest"]["torch"] == "--upgrade torch"


def _parts() -> list[dict[str, str]]:
    """The parts that the workflow tests in."""
    workflow = _read_yaml(".github/workflows/book.yml")
    parts: list[dict[str, str]] = workflow["jobs"]["test"]["strategy"]["matrix"]["include"]
    return parts


def test_the_parts_of_the_workflow_run_all_tests() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    coverage = makefile.partition("\ncoverage:")[2].partition("\n\n")[0]
    run = " ".join(coverage if part["make"] == "coverage" else part["make"] for part in _parts())
    folders = {path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("tests/*/test_*.py")}
    assert folders | {"book"} == set(re.findall(r"\btests/\w+|\bbook\b(?!/)", run))


def test_conda_and_binder_install_the_same_pins() -> None:
    dependencies = _read_yaml("environment.yml")["dependencies"]
    (python,) = (line for line in dependencies if isinstance(line, str) and "python" in line)
    assert python.removeprefix("python=") in _supported()
    build = _read_yaml(".github/workflows/book.yml")["jobs"]["build"]["steps"]
    assert python.removeprefix("python=") in {
        step["with"]["python-version"] for step in build if "python-version" in step.get("with", {})
    }
    # conda brings Python and pip only; everything else comes through pip under the constraints.
    assert [line for line in dependencies if isinstance(line, str)] == [python, "pip"]
    (pip,) = (line["pip"] for line in dependencies if isinstance(line, dict))
    assert "-c constraints.txt" in pip
    (project,) = (line for line in pip if line.startswith("-e "))
    extras = re.fullmatch(r"-e \.\[(\w+(?:,\w+)*)\]", project)
    assert extras
    assert set(extras[1].split(",")) <= set(PROJECT["project"]["optional-dependencies"])
    assert len(pip) == 2


def test_the_version_is_the_same_everywhere() -> None:
    version = PROJECT["project"]["version"]
    assert _read_yaml("CITATION.cff")["version"] == version
    assert importlib.metadata.version("gmmedu") == version
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.findall(r"^## \[(\S+)\] - (\d{4}-\d\d-\d\d)$", changes, re.MULTILINE)
    assert released[0] == (version, _read_yaml("CITATION.cff")["date-released"])
    assert released == sorted(released, key=lambda each: Version(each[0]), reverse=True)


def test_the_hooks_use_the_pinned_ruff() -> None:
    (ruff,) = _pins()["ruff"]
    (local,) = _read_yaml(".pre-commit-config.yaml")["repos"]
    hooks = [hook for hook in local["hooks"] if hook["entry"].startswith("ruff ")]
    assert [hook["additional_dependencies"] for hook in hooks] == [[str(ruff)]] * 2


@pytest.mark.parametrize(
    ("schema", "names"),
    [
        (
            "vendor.github-workflows",
            [".github/workflows/book.yml", ".github/workflows/release.yml"],
        ),
        ("vendor.citation-file-format", ["CITATION.cff"]),
        ("vendor.github-issue-config", [".github/ISSUE_TEMPLATE/config.yml"]),
        (
            "vendor.github-issue-forms",
            [".github/ISSUE_TEMPLATE/book.yml", ".github/ISSUE_TEMPLATE/package.yml"],
        ),
    ],
)
def test_files_follow_their_schema(schema: str, names: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_schema_check_can_fail(tmp_path: Path) -> None:
    (tmp_path / "book.yml").write_text("on: push\njobs: {test: {runs-on: 3}}\n")
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
        + [str(tmp_path / "book.yml")],
        capture_output=True,
    )
    assert done.returncode == 1


def test_official_actions_at_a_pinned_major() -> None:
    for name in ("book", "release"):
        for job in _read_yaml(f".github/workflows/{name}.yml")["jobs"].values():
            for step in job["steps"]:
                # The one that publishes is the index's own, at the branch that it asks for.
                if step.get("uses") != "pypa/gh-action-pypi-publish@release/v1" and "uses" in step:
                    assert re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"])


def test_a_release_is_tested_and_its_tag_is_the_version(tmp_path: Path) -> None:
    """The commands of the workflow, as its shell runs them."""
    jobs = _read_yaml(".github/workflows/release.yml")["jobs"]
    assert jobs["publish"]["needs"] == "build" and jobs["announce"]["needs"] == "publish"
    steps = {step.get("name", step.get("run")): step for step in jobs["build"]["steps"]}
    assert "make test" in steps and "make pdf zip" in steps
    version = PROJECT["project"]["version"]
    for tag, code in ((f"v{version}", 0), (f"v{version}.post1", 1), (version, 1)):
        done = subprocess.run(
            ["bash", "-c", steps["the tag is the version"]["run"]],
            cwd=ROOT,
            env=os.environ | {"GITHUB_REF_NAME": tag},
        )
        assert done.returncode == code, tag
    # What is told of a release is its own part of the changelog.
    (told,) = (step["run"] for step in jobs["announce"]["steps"] if "run" in step)
    awk = told[told.index("awk") : told.index("> notes.md")]
    notes = subprocess.run(
        ["bash", "-c", awk],
        cwd=ROOT,
        env=os.environ | {"GITHUB_REF_NAME": f"v{version}"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert notes.strip() and notes in changes and "## [" not in notes
    assert f"## [{version}]" in changes[: changes.index(notes)].splitlines()[-1]


@pytest.mark.parametrize(
    "name",
    "book book/gmmbook gmmedu tests benchmarks _config.yml _toc.yml environment.yml "
    "pyproject.toml README.md constraints.txt Makefile LICENSE LICENSE-text CITATION.cff "
    "CHANGELOG.md CONTRIBUTING.md .editorconfig .pre-commit-config.yaml .ci/run "
    "book/references.bib book/_static gmmedu/data .github/workflows/book.yml".split(),
)
def test_the_layout(name: str) -> None:
    assert (ROOT / name).exists()


def test_the_makefile_has_every_target() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: ((?:.*\\\n)*.*)$", text, re.MULTILINE)
    targets = set(phony.replace("\\", " ").split())
    for target in targets:
        assert re.search(rf"^{target}:.*## ", text, re.MULTILINE), target
    # What is told elsewhere, and what the workflows call.
    places = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / ".ci" / "run"]
    places += [*(ROOT / ".github" / "workflows").glob("*.yml"), *(ROOT / "book").glob("*.md")]
    told = [path.read_text(encoding="utf-8") for path in places]
    named = set(re.findall(r"(?:`|^\s*|run: )make ([a-z-]+)", "\n".join(told), re.MULTILINE))
    assert {"book", "test", "pdf"} <= named <= targets, named - targets


def test_ci_can_be_run() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)  # always true on Windows, which has no such bit


def test_every_page_is_in_the_contents() -> None:
    listed = set(re.findall(r"(?:file|root): (book/\S+)", (ROOT / "_toc.yml").read_text()))
    pages = {
        path.relative_to(ROOT).with_suffix("").as_posix()
        for pattern in ("*.ipynb", "*.md")
        for path in (ROOT / "book").glob(pattern)
    }
    assert listed == pages
