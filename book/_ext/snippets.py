"""Runs the snippets of a page of Markdown, in their order, as a reader would.

A fence of `python` runs in the namespace of the page; one that begins with a comment that is the
name of a file is written to that file instead. A fence of `bash` runs in a shell. A fence of `text`
is what the one before it prints, and one that prints has such a fence.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

FENCE = re.compile(r"^```(python|bash|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# ([\w.-]+\.py)\n")


class Snippet(NamedTuple):
    """A snippet of a page: the line of its code, and what the page says that it prints."""

    line: int
    language: str
    code: str
    printed: str


def snippets_of(markdown: str) -> list[Snippet]:
    """The snippets of a page; raises ``ValueError`` for an output that follows no snippet."""
    found: list[Snippet] = []
    for match in FENCE.finditer(markdown):
        language, code = match.groups()
        line = markdown[: match.start()].count("\n") + 2
        if language != "text":
            found.append(Snippet(line, language, code, ""))
        elif found and not found[-1].printed:
            found[-1] = found[-1]._replace(printed=code)
        else:
            raise ValueError(f"line {line}: an output without a snippet")
    return found


def run(page: Path) -> Iterator[tuple[Snippet, str]]:
    """Each snippet of a page and what it prints; files go to the current folder."""
    namespace: dict[str, Any] = {"__name__": page.stem}
    for snippet in snippets_of(page.read_text(encoding="utf-8")):
        if file := FILE.match(snippet.code):
            Path(file[1]).write_text(snippet.code, encoding="utf-8")
            yield snippet, ""
        elif snippet.language == "bash":
            yield snippet, _shell(snippet.code)
        else:
            # As many empty lines before it as the page has, so that a traceback names its line.
            code = compile("\n" * (snippet.line - 1) + snippet.code, page, "exec")
            with redirect_stdout(io.StringIO()) as printed:
                exec(code, namespace)
            yield snippet, printed.getvalue()


def _shell(command: str) -> str:
    """What a command prints, with the programs of this environment before others."""
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-ec", command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": programs, "OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        raise RuntimeError(f"{command.strip()} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout
