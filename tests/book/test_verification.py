"""One label, four places: in a chapter, in docstrings, in a proof, in the page of proofs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import verification
from equations.proof import Compare
from verification import Proof, equations_of, text_of

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*(ROOT / "book").glob("*.ipynb"), *(ROOT / "book").glob("*.md")])
EQUATIONS = [equation for page in PAGES for equation in equations_of(page)]
LABELS = [equation.label for equation in EQUATIONS]
PROOFS = sorted((ROOT / "tests" / "equations").glob("test_*.py"))
LABEL = r"\beq-[a-z0-9]+(?:-[a-z0-9]+)*"


def _verified() -> set[str]:
    """Labels in the decorators of the proofs."""
    marked = re.findall(r"@verifies\(([^)]*)\)", "\n".join(p.read_text("utf-8") for p in PROOFS))
    return {
        label for arguments in marked for label in re.findall(r"[\"']([^\"']+)[\"']", arguments)
    }


def _documented() -> dict[str, set[str]]:
    """Labels that the package names, and where."""
    return {
        path.relative_to(ROOT).as_posix(): set(re.findall(LABEL, path.read_text("utf-8")))
        for package in ("gmmedu", "book/gmmbook")
        for path in sorted((ROOT / package).rglob("*.py"))
    }


def _problems(labels: list[str], verified: set[str], documented: dict[str, set[str]]) -> list[str]:
    problems = [f"{label} stands twice" for label, count in Counter(labels).items() if count > 1]
    problems += [f"{label} has no proof" for label in sorted(set(labels) - verified)]
    problems += [f"a proof of {label}, which is nowhere" for label in sorted(verified - {*labels})]
    for path, named in documented.items():
        problems += [
            f"{path} names {label}, which is nowhere" for label in sorted(named - {*labels})
        ]
    return problems


def test_every_label_is_in_its_places() -> None:
    assert LABELS
    assert not (problems := _problems(LABELS, _verified(), _documented())), "\n".join(problems)


def test_a_label_out_of_place_is_found() -> None:
    assert not _problems(["eq-a"], {"eq-a"}, {"a.py": {"eq-a"}})
    assert _problems(["eq-a", "eq-a"], {"eq-a"}, {}) == ["eq-a stands twice"]
    assert _problems(["eq-a"], set(), {}) == ["eq-a has no proof"]
    assert _problems([], {"eq-a"}, {}) == ["a proof of eq-a, which is nowhere"]
    assert _problems([], set(), {"a.py": {"eq-a"}}) == ["a.py names eq-a, which is nowhere"]


def test_every_numbered_equation_has_a_label_that_is_read() -> None:
    """Other ways to write a labeled equation would not reach the table."""
    for page in PAGES:
        text = text_of(page)
        written = re.findall(r'<a id="(eq-[^"]*)"', text)
        assert written == [equation.label for equation in equations_of(page)], page.name
        assert text.count(r"\tag{") == len(written), page.name
        assert not re.search(r":label:\s*eq|\$\$\s*\(\S+\)|\\label\{", text), page.name


def test_every_numbered_equation_is_referred_to() -> None:
    """An equation earns its number by being used again, in the text or in the code."""
    text = "\n".join(text_of(page) for page in PAGES)
    used = set(re.findall(r"\]\([\w.-]*#(eq-[\w-]+)\)", text)).union(*_documented().values())
    assert not [label for label in LABELS if label not in used]


def test_every_chapter_of_the_foundations_has_its_equations() -> None:
    counts = Counter(equation.page.stem[:2] for equation in EQUATIONS)
    assert all(counts[f"{chapter:02d}"] >= 5 for chapter in range(1, 5)), counts


def test_an_equation_is_read_in_a_list_too(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text('- so<a id="eq-a"></a>\n\n  $$\n  x\n  = y \\tag{1.1}\n  $$\n\nend $$ z $$\n')
    assert [(e.label, e.latex) for e in equations_of(page)] == [("eq-a", "x\n= y")]


def test_the_comparison_closest_to_failing_is_kept(tmp_path: Path) -> None:
    module = tmp_path / "tests" / "equations" / "test_a.py"
    label, how = ("label", "eq-a"), ("how", "a sum")
    one = ("test_b", [label, how, ("error", "1e-13 1e-12")])
    other = ("test_b", [label, how, ("error", "5e-14 1e-13"), ("error", "0 0")])
    for path in (module, module.parent / "proof.py", tmp_path / "tests" / "reference.py"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "constraints.txt").touch()
    verification.keep(module, [one, other], tmp_path)
    proof = Proof("test_a.py::test_b", "a sum", 3, 5e-14, 1e-13, "error")
    assert verification.proofs(tmp_path) == {"eq-a": [proof]}
    assert proof.outcome == "5.0e-14 (1e-13 allowed)"
    assert Proof("", "", 1, 2.25, 4.5, "standard errors").outcome == (
        "2.2 standard errors (4.5 allowed)"
    )


def test_where_no_error_is_allowed_none_was_found() -> None:
    assert Proof("", "", 1, 0.0, 0.0, "error").outcome == "none (none allowed)"


def test_a_comparison_can_fail() -> None:
    noted: list[object] = []
    compare = Compare(lambda *entry: noted.append(entry))
    compare([1.0, 200.0], [1.0, 200.0 + 1e-10], 1e-12)
    for actual, expected in [
        ([1.0], [1.0 + 1e-9]),
        ([1.0, 1.0], [1.0]),
        (1.0, [1.0]),
        ([], []),
        ([np.nan], [np.nan]),
        ([np.inf], [np.inf]),
    ]:
        with pytest.raises(AssertionError):
            compare(actual, expected, 1e-12)
    draws = np.random.default_rng(0).normal(size=(4000, 2))
    compare.monte_carlo(draws, [0.0, 0.0])
    for bad, mean in [(draws + 0.2, np.zeros(2)), (draws[:9], np.zeros(2)), (draws, np.zeros(()))]:
        with pytest.raises(AssertionError):
            compare.monte_carlo(bad, mean)
    with pytest.raises(AssertionError, match="do not vary"):
        compare.monte_carlo(np.zeros(2000), 0.0)
    assert noted[0][0] == "error"  # type: ignore[index]


PROOF = """
from equations.proof import Compare, verifies

{decorator}
def test_it({argument}) -> None:
    {docstring}
    {body}
"""
COMPARED, FIXTURE, SUM = "compare(1.0, 1.0, 1e-9)", "compare: Compare", '"""a sum"""'
#: Decorator, argument, docstring, body, and what is said of it.
CASES = {
    "sound": ('@verifies("eq-a")', FIXTURE, SUM, COMPARED, None),
    "unmarked": ("", FIXTURE, SUM, COMPARED, "which equation"),
    "unlabeled": ("@verifies()", FIXTURE, SUM, "pass", "which equation"),
    "careless": ('@verifies("eq-a")', "", SUM, "assert True", "does not use the fixture"),
    "silent": ('@verifies("eq-a")', FIXTURE, "", COMPARED, "docstring"),
    "idle": ('@verifies("eq-a")', FIXTURE, SUM, "pass", "compares nothing"),
}


#: pytest in one folder after the other, in one process, so that torch is imported once.
RUNS = """
import os
import sys
import pytest
import torch

for folder in sys.argv[1:]:
    os.chdir(folder)
    status = pytest.main(["-q", "-p", "no:cacheprovider", "tests/equations"])
    print(f"status {int(status)}", flush=True)
    for name in [name for name in sys.modules if name.partition(".")[0] == "equations"]:
        del sys.modules[name]
"""


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bool, str]]:
    """Whether pytest passes each case, and what it says."""
    roots = [tmp_path_factory.mktemp(name) for name in CASES]
    for root, (decorator, argument, docstring, body, _) in zip(roots, CASES.values(), strict=True):
        folder = root / "tests" / "equations"
        folder.mkdir(parents=True)
        for name in ("__init__.py", "conftest.py", "proof.py"):
            (folder / name).write_text((ROOT / "tests" / "equations" / name).read_text())
        (root / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
        (folder / "test_it.py").write_text(
            PROOF.format(decorator=decorator, argument=argument, docstring=docstring, body=body)
        )
    done = subprocess.run(
        [sys.executable, "-c", RUNS, *map(str, roots)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    said = re.findall(r"(.*?)^status (\d+)\n", done.stdout, re.DOTALL | re.MULTILINE)
    assert len(said) == len(CASES), done.stdout
    return {name: (status == "0", text) for name, (text, status) in zip(CASES, said, strict=True)}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_what_proves_nothing_is_no_proof(judged: dict[str, tuple[bool, str]], name: str) -> None:
    complaint = CASES[name][-1]
    passed, text = judged[name]
    assert passed == (complaint is None), text
    assert (complaint or "passed") in text


#: Two sound proofs of one label, or one of them a failure.
TWO = '''
from equations.proof import Compare, verifies

@verifies("eq-a")
def test_one(compare: Compare) -> None:
    """a sum"""
    compare(1.0, 1.0, 1e-9)

@verifies("eq-a")
def test_other(compare: Compare) -> None:
    """a sum"""
    compare({}, 1.0, 1e-9)
'''


#: pytest on a module as it is written anew, in one process, so that torch is imported once.
ANEW = """
import json
import sys
from pathlib import Path
import pytest
import torch

# Two texts of one size within a second: what is compiled of the first would pass for the second.
sys.dont_write_bytecode = True
root = Path.cwd()
module = root / "tests" / "equations" / "test_a.py"
for text, *arguments in json.loads(sys.argv[1]):
    module.write_text(text)
    status = pytest.main(["-q", "-p", "no:cacheprovider", *arguments])
    import verification  # not before pytest, which rewrites what its plugins import
    print(f"status {int(status)} {verification.record_of(module, root).exists()}", flush=True)
    for name in [name for name in sys.modules if name.partition(".")[0] == "equations"]:
        del sys.modules[name]
"""


@pytest.mark.slow
def test_what_the_tests_have_proved_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("conftest.py", "pyproject.toml", "constraints.txt", "tests/reference.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text("utf-8"), "utf-8")
    folder, module = tmp_path / "tests" / "equations", "tests/equations/test_a.py"
    folder.mkdir()
    for name in ("__init__.py", "conftest.py", "proof.py"):
        (folder / name).write_text((ROOT / "tests" / "equations" / name).read_text())

    runs = [
        (2.0, module),
        (1.0, module, "-k", "one"),
        (1.0, f"{module}::test_one"),
        (1.0, module),
    ]
    told = json.dumps([(TWO.format(other), *arguments) for other, *arguments in runs])
    done = subprocess.run(
        [sys.executable, "-c", ANEW, told],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "book" / "_ext")},
    )
    # Whether it failed, and whether a record is kept: only of all that is there, and passed.
    said = re.findall(r"^status (\d+) (\w+)$", done.stdout, re.MULTILINE)
    assert said == [("1", "False"), ("0", "False"), ("0", "False"), ("0", "True")], done.stdout
    assert verification.record_of(tmp_path / module, tmp_path).exists()
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("run again"))
    assert len(verification.proofs(tmp_path)["eq-a"]) == 2
