"""Where an exercise is answered: on the page if its answer can be typed, else in a notebook.

``portable`` puts the directive ``answer`` in the place of the cell in which a notebook asks; here
it becomes what ``_static/exercises.js`` makes a form of, with the rules of the checker as data.
Without a script, and for an answer that is code, it says where to run the notebook.
"""

from __future__ import annotations

import json
from html import escape

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from gmmbook.exercises import typed
from gmmbook.exercises.checkers import PHRASES


def form(identifier: str, otherwise: str = "") -> str:
    """What the script makes a form of; otherwise: what stands there without a script."""
    chapter, place = identifier.split("-")
    own = {"identifier": identifier, "number": f"{int(chapter)}.{place}", "phrases": PHRASES}
    data = json.dumps({**(typed(identifier) or {}), **own}, ensure_ascii=False, allow_nan=False)
    return f'<div class="gm-answer" data-rules="{escape(data)}">{otherwise}</div>'


class Answer(SphinxDirective):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        identifier = self.arguments[0]
        code = typed(identifier) is None
        where = f'<p class="gm-run">{self._where(code)}</p>'
        return [nodes.raw("", where if code else form(identifier, where), format="html")]

    def _where(self, code: bool) -> str:
        config = self.env.app.config
        theme = config.html_theme_options
        name = f"{self.env.docname}.ipynb"
        repository = theme["repository_url"].split("://")[1].split("/", 1)[1]
        branch, colab = theme["repository_branch"], theme["launch_buttons"]["colab_url"]
        address = f"{colab}/github/{repository}/blob/{branch}/{name}"
        source = f"../_sources/{name}"
        what = "Its answer is code. Write it" if code else "Answer it"
        return (
            f'{what} in the notebook, whose cell checks it: <a href="{address}">in Colab</a>, '
            f'or <a href="{source}" download>download it</a>.'
        )


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("answer", Answer)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
