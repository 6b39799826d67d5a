"""Each snippet of the pages runs as it stands, in their order, and prints what the page shows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import pytest
import snippets
import torch
from matplotlib import pyplot as plt

BOOK = Path(__file__).resolve().parents[2] / "book"
PAGES = ["cookbook.md", "use-it.md"]


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_snippets_print_what_the_page_shows(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = []
    with mpl.rc_context({"backend": "agg"}), torch.random.fork_rng():
        for snippet, printed in snippets.run(BOOK / name):
            if printed != snippet.printed:
                wrong.append(
                    f"{name}, line {snippet.line}, prints\n{printed}not\n{snippet.printed}"
                )
        plt.close("all")
    assert not wrong, "\n".join(wrong)
    pictures = list(tmp_path.glob("*.svg"))
    assert len(pictures) == (name == "use-it.md")
    for picture in pictures:
        shown = (BOOK / "_static" / name).with_suffix(".svg").read_text(encoding="utf-8")
        drawn = picture.read_text(encoding="utf-8")
        for element in ("<use", "<path"):
            assert drawn.count(element) == shown.count(element), "run `make pictures`"


@pytest.mark.parametrize("name", PAGES)
def test_snippets_fit_a_page(name: str) -> None:
    found = snippets.snippets_of((BOOK / name).read_text(encoding="utf-8"))
    assert found
    for snippet in found:
        code, printed = snippet.code.splitlines(), snippet.printed.splitlines()
        assert max(map(len, code)) <= 74, f"{name}, line {snippet.line}"
        assert max(map(len, printed), default=0) <= 49, f"{name}, line {snippet.line}"
        if snippet.language == "python":
            _check_format(snippet.code)


def _check_format(code: str) -> None:
    """Code on a page has the format of that of the notebooks."""
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--stdin-filename", BOOK / "snippet.py", "-"],
        input=code,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == code


def test_no_code_of_the_pages_is_left_out() -> None:
    """Each fence is one that runs, or the output of one."""
    for name in PAGES:
        text = (BOOK / name).read_text(encoding="utf-8")
        languages = set(re.findall(r"^```(\S+)$", text, re.MULTILINE))
        assert languages <= {"python", "bash", "text"}, name


def test_a_page_is_run_like_a_reader_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nx = 1\n```\n\nand\n\n```python\n# show.py\nprint(2)\n```\n\n"
        "```bash\npython show.py\n```\n\n```text\n2\n```\n\n```python\nprint(x)\n```\n",
        encoding="utf-8",
    )
    ran = list(snippets.run(page))
    assert [(snippet.line, printed) for snippet, printed in ran] == [
        (2, ""),
        (8, ""),
        (13, "2\n"),
        (21, "1\n"),
    ]
    assert [snippet.printed for snippet, _ in ran] == ["", "", "2\n", ""]


def test_what_goes_wrong_is_told_by_its_line(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Text\n\n```python\n1 / 0\n```\n", encoding="utf-8")
    with pytest.raises(ZeroDivisionError) as error:
        list(snippets.run(page))
    assert (error.traceback[-1].lineno, error.traceback[-1].path) == (3, page)
    page.write_text("```bash\necho no >&2; exit 3\n```\n", encoding="utf-8")
    with pytest.raises(RuntimeError, match=r"ended with 3:\nno"):
        list(snippets.run(page))
    with pytest.raises(ValueError, match="line 2: an output without a snippet"):
        snippets.snippets_of("```text\n2\n```\n")
