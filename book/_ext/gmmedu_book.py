"""What the build of this book needs beyond Jupyter Book: no stale outputs, plain docstrings.

jupyter-cache knows a notebook by its own code cells, and Sphinx by its own text, so both would
keep a figure that an older `gmmedu` drew, and Sphinx forgets on its second run that the first one
warned. Here each notebook has a cache named after everything its outputs depend on, is read again
when that changes, and a build that warned leaves nothing behind to be believed.

Jupyter Book executes a notebook where it reads it, one after the other. Here those that must run
are run before the reading, side by side on the cores there are, and the reading finds what they
printed and drew.

Each interactive brings its script along, for pages that stand alone; here a page loads one script
that holds what all of its interactives share once.

Docstrings are written for `help()`, where |L| is a determinant and eq-gmm-nll names an equation;
on the page the bars must not be taken for a substitution, and the label becomes a link.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.executors.utils import single_nb_execution
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

import portable
from gmmbook.widgets.base import page_script

WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
logger = logging.getLogger(__name__)


def digest(paths: Iterable[Path], root: Path) -> str:
    """Twelve digits that change with the names and the contents of the files, or the device."""
    digest = hashlib.sha256(os.environ.get("GMMEDU_DEVICE", "").encode())
    for path in sorted(paths):
        name = path.relative_to(root)
        # Python and its tools leave caches behind.
        cached = any(part == "__pycache__" or part.startswith(".") for part in name.parts)
        if path.is_file() and not cached:
            digest.update(name.as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def engine(root: Path) -> list[Path]:
    """The package, its data and the pinned set: what every number of the book depends on."""
    return [root / "constraints.txt", *(root / "gmmedu").rglob("*")]


def sources(notebook: Path, root: Path) -> list[Path]:
    """What the outputs of a notebook depend on, beside its own cells.

    That is the engine, what the chapters share, and the modules of its own chapter: an exercise or
    a figure of one chapter is nothing to another.
    """
    own = f"chapter{notebook.name[:2]}"
    return engine(root) + [
        path
        for path in (root / "book" / "gmmbook").rglob("*")
        if path.stem == own or not re.fullmatch(r"chapter\d\d", path.stem)
    ]


def cache_in(build: Path, notebook: Path, root: Path) -> str:
    """Where the outputs of a notebook are kept, for this state of what they depend on."""
    name = f"{notebook.stem}-{digest(sources(notebook, root), root)}"
    return str(build / ".jupyter_cache" / name)


def cache_of(app: Sphinx, notebook: Path) -> str:
    return cache_in(Path(app.outdir).parent, notebook, Path(app.srcdir))


def as_read(notebook: Path) -> Any:
    """The notebook as the site reads it, which is how the cache knows it."""
    return nbformat.reads(portable.as_myst(notebook.read_text("utf-8")), as_version=4)


def keep(cache: Any, path: Path, notebook: Any, seconds: float) -> None:
    """Keep a notebook that has run; the next build finds its outputs."""
    bundle = CacheBundleIn(notebook, str(path), data={"execution_seconds": seconds})
    cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)


def notebooks_of(env: BuildEnvironment, names: Iterable[str]) -> dict[str, Path]:
    paths = {name: Path(env.doc2path(name)) for name in sorted(names)}
    return {name: path for name, path in paths.items() if path.suffix == ".ipynb"}


def find_outdated(app: Sphinx, env: BuildEnvironment, *known: set[str]) -> list[str]:
    """The pages of notebooks whose outputs depend on something that has changed."""
    return [
        name
        for name, path in notebooks_of(env, env.found_docs).items()
        if env.metadata[name].get("cache") != cache_of(app, path)
    ]


def run_notebooks(app: Sphinx, env: BuildEnvironment, names: list[str]) -> None:
    """Run what has no outputs yet, as many at a time as there are cores.

    One that fails is left to the reading, which runs it again and says what went wrong.
    """
    waiting = []
    for path in notebooks_of(env, names).values():
        cache = get_cache(cache_of(app, path))
        notebook = as_read(path)
        try:
            cache.match_cache_notebook(notebook)
        except KeyError:
            waiting.append((path, notebook, cache))
    if not waiting:
        return
    cores = os.cpu_count() or 1
    # Kernels side by side, each with threads for all cores, would wait for one another.
    threads = max(1, cores // len(waiting))
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))

    def run(path: Path, notebook: Any, cache: Any) -> None:
        result = single_nb_execution(
            notebook,
            cwd=str(path.parent),
            timeout=app.config.nb_execution_timeout,
            allow_errors=False,
        )
        if result.err is None:
            keep(cache, path, notebook, result.time)
            logger.info("ran %s in %.1f s", path.name, result.time)

    logger.info("running %d notebooks, %d at a time", len(waiting), cores)
    with ThreadPoolExecutor(cores) as pool:
        # Taking the results raises what went wrong beside a cell.
        list(pool.map(lambda each: run(*each), waiting))


def name_cache(app: Sphinx, name: str, content: list[str]) -> None:
    """Before a page is read: where its outputs are kept, for MyST-NB and for the next build."""
    env: Any = app.env
    for path in notebooks_of(env, [name]).values():
        cache = cache_of(app, path)
        env.metadata[name]["cache"] = cache
        env.mystnb_config = env.mystnb_config.copy(execution_cache_path=cache)


def forget_warnings(app: Sphinx, failure: Exception | None) -> None:
    """Read every page again next time when this time one of them warned."""
    if app._warncount or failure:
        (Path(app.doctreedir) / "environment.pickle").unlink(missing_ok=True)


def mend_docstring(
    app: Sphinx,
    what: str,
    name: str,
    obj: Any,
    options: Any,
    lines: list[str],
) -> None:
    """Keep the bars of |L| and the star of (*batch, K), and link labels of equations; what is in
    backticks is left as it is."""
    for i, line in enumerate(lines):
        line = re.sub(
            r"(`+[^`]*`+)|\*(?=(batch|sample))",
            lambda star: star[1] or r"\*",
            line,
        )
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
    """One script for all interactives of a page, named after their kinds, and a link that skips to
    the first of them."""
    script = r'<script data-gmmedu-module="(\w+)">.*?</script>'
    body = context.get("body", "")
    kinds = sorted({match[1] for match in re.finditer(script, body, flags=re.S)})
    body = re.sub(script, "", body, flags=re.S)
    if kinds:
        address = context["pathto"](f"_static/gmmedu-{'-'.join(kinds)}.js", 1)
        first = re.search(r'(<figure class="gm-static") data-gmmedu="([\w-]+)"', body)
        assert first, f"{pagename} has the script of an interactive and none"
        body = body.replace(first[0], f'{first[1]} id="{first[2]}" data-gmmedu="{first[2]}"', 1)
        skip = f'<a class="gm-skip" href="#{first[2]}">Skip to the interactive</a>'
        context["body"] = f'{skip}{body}<script src="{address}"></script>'


def mend_markup(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: Any,
) -> None:
    """What Sphinx writes and a screen reader stumbles over: lists without a term, or an item, and
    a role that is no longer one."""
    body = context.get("body", "")
    body = body.replace('role="list" class="citation-list"', 'class="citation-list"')
    body = body.replace(' role="doc-biblioentry"', "")
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


def drop_kernel_state(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: Any,
) -> None:
    """MyST-NB puts the state of a notebook's widgets in its page, megabytes where an interactive
    was played; no widget manager is there to read it."""
    context["script_files"] = [
        script
        for script in context.get("script_files", [])
        if getattr(script, "attributes", {}).get("type") != WIDGET_STATE
    ]


def write_scripts(app: Sphinx, failure: Exception | None) -> None:
    """The scripts that the pages ask for; a page that was not built anew asks too."""
    if app.builder.name != "html" or failure:
        return
    out = Path(app.outdir)
    pages = [(out / f"{name}.html").read_text("utf-8") for name in sorted(app.env.found_docs)]
    for kinds in set(re.findall(r'src="[^"]*_static/gmmedu-([\w-]+)\.js"', "".join(pages))):
        script = page_script(*kinds.split("-"))
        (out / "_static" / f"gmmedu-{kinds}.js").write_text(script, "utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    app.setup_extension("answers")
    app.setup_extension("portable")
    app.setup_extension("sections")
    app.setup_extension("teaching")
    app.setup_extension("verification")
    app.connect("env-get-outdated", find_outdated)
    app.connect("env-before-read-docs", run_notebooks)
    app.connect("source-read", name_cache)
    app.connect("build-finished", forget_warnings)
    app.connect("html-page-context", share_script)
    app.connect("html-page-context", mend_markup)
    # After MyST-NB has put it there.
    app.connect("html-page-context", drop_kernel_state, priority=900)
    app.connect("build-finished", write_scripts)
    app.connect("autodoc-process-docstring", mend_docstring)
    # What another state of these extensions has read is read again.
    here = Path(__file__).parent
    version = int(digest(here.glob("*.py"), here), 16)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "env_version": version}
