"""What the build of this book needs beyond Jupyter Book: no stale outputs, plain docstrings.

jupyter-cache knows a notebook by its own code cells, and Sphinx by its own text, so both would
keep a figure that an older `gmmedu` drew, and Sphinx forgets on its second run that the first one
warned. Here the cache is named after everything an output depends on, and a build that warned
leaves nothing behind to be believed.

Each interactive brings its script along, for pages that stand alone; here a page loads it once.

Docstrings are written for `help()`, where |L| is a determinant and eq-gmm-nll names an equation;
on the page the bars must not be taken for a substitution, and the label becomes a link.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config

from gmmbook.widgets.base import page_script

#: The script of the interactives, as the site names it.
SCRIPT = "gmmedu.js"
ROOT = Path(__file__).resolve().parents[2]


def fingerprint(root: Path = ROOT) -> str:
    """Twelve digits that change with the package, its data, the pinned set or the device."""
    digest = hashlib.sha256(os.environ.get("GMMEDU_DEVICE", "").encode())
    for path in [
        root / "constraints.txt",
        *sorted((root / "gmmedu").rglob("*")),
    ]:
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(
                path.relative_to(root).as_posix().encode()
                + b"\0"
                + path.read_bytes()
            )
    return digest.hexdigest()[:12]


def name_cache(app: Sphinx, config: Config) -> None:
    """A cache of its own for each state of the code; a new name also makes Sphinx read anew."""
    cache = Path(app.outdir).parent / ".jupyter_cache" / fingerprint()
    config.nb_execution_cache_path = str(cache)


def forget_warnings(app: Sphinx, failure: Exception | None) -> None:
    """Read every page again next time when this time one of them warned."""
    if app._warncount or failure:
        (Path(app.doctreedir) / "environment.pickle").unlink(
            missing_ok=True
        )


def mend_docstring(
    app: Sphinx,
    what: str,
    name: str,
    obj: Any,
    options: Any,
    lines: list[str],
) -> None:
    """Keep the bars of |L|, and link labels of equations; what is in backticks is left as it is."""
    for i, line in enumerate(lines):
        line = re.sub(
            r"(`+[^`]*`+)|\|(?=\w[^|\s]*\|)",
            lambda bar: bar[1] or r"\|",
            line,
        )
        lines[i] = re.sub(
            r"(`+[^`]*`+)|\((eq-[\w-]+)\)|\b(eq-[\w-]+)",
            lambda label: label[1] or f":eq:`{label[2] or label[3]}`",
            line,
        )


def share_script(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: Any,
) -> None:
    """One script for all interactives of all pages, on the pages that have any."""
    body, count = re.subn(
        r"<script data-gmmedu-module>.*?</script>",
        "",
        context.get("body", ""),
        flags=re.S,
    )
    if count:
        address = context["pathto"](f"_static/{SCRIPT}", 1)
        context["body"] = f'{body}<script src="{address}"></script>'


def mend_markup(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: Any,
) -> None:
    """What Sphinx writes and a screen reader stumbles over: lists without a term, or an item."""
    body = context.get("body", "").replace(
        'role="list" class="citation-list"', 'class="citation-list"'
    )
    context["body"] = re.sub(
        r'<dl>(\s*<dd><em class="sig-param">.*?)</dl>',
        lambda lines: (
            '<div class="sig-lines">'
            + lines[1].replace("<dd>", "<div>").replace("</dd>", "</div>")
            + "</div>"
        ),
        body,
        flags=re.S,
    )


def write_script(app: Sphinx, failure: Exception | None) -> None:
    if app.builder.format == "html" and not failure:
        path = Path(app.outdir) / "_static" / SCRIPT
        path.write_text(page_script(), "utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.setup_extension("verification")
    app.connect("config-inited", name_cache)
    app.connect("build-finished", forget_warnings)
    app.connect("html-page-context", share_script)
    app.connect("html-page-context", mend_markup)
    app.connect("build-finished", write_script)
    app.connect("autodoc-process-docstring", mend_docstring)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
