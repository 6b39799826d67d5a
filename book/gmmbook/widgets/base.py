"""What all interactives share: one front-end module with two hosts, and a still.

In Jupyter an interactive is a widget: the kernel hears every change, and `values`, what is computed
from the state, comes from torch. On a static page the same module runs without a kernel and
computes `values` from closed forms. Without JavaScript, and on paper, a figure stands in its place.
"""

from __future__ import annotations

import base64
import html
import inspect
import io
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import anywidget
import traitlets
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from gmmbook.svg import compact
from gmmedu import plot

_SOURCES = sorted((Path(__file__).parent / "js").glob("*.js"))
#: Lines that are only a comment, empty lines, and indentation: of no use to a reader of the page.
_IDLE = re.compile(r"^(?:\s+|//.*\n|/\*\*[\s\S]*?\*/\n)+", re.M)
#: A text, which stays as it is, or spaces around a sign that needs none.
_SPACED = re.compile(r"""("[^"\n]*"|`[^`]*`)| *([=,;:{}()?&|<>*\[\]]) *""")


@cache
def module(*kinds: str) -> str:
    """The front end of these kinds of interactives: closed forms, drawing, each one's own file, the
    host. A page downloads no more than it shows."""
    wanted = ("math", "draw", *kinds, "host")
    sources = [path.read_text("utf-8") for path in _SOURCES if path.stem.split("-")[1] in wanted]
    code = _IDLE.sub("", "\n".join(sources))
    return _SPACED.sub(lambda found: found[1] or found[2], code)


class Interactive(anywidget.AnyWidget):
    """An interactive with a state (its traits), `values` that follow from it, and a still.

    name: what the address of a page calls the view; label: its accessible name; alt: what the still
    shows, in words. A subclass gives its `kind`, lists its `state`, and defines `compute` and
    `draw`.
    """

    kind = traitlets.Unicode().tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)
    alt = traitlets.Unicode()
    name = traitlets.Unicode()
    values = traitlets.Dict().tag(sync=True)
    #: What buttons of the front end have asked for, in the queue of the state: a message of its own
    #: would overtake a drag that waits for the kernel.
    asked = traitlets.List(traitlets.Unicode()).tag(sync=True)
    #: The traits that a reader can change; they are observed, reset and kept in the address.
    state: tuple[str, ...] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Help and the reference show the arguments of the class, not those of all widgets."""
        super().__init_subclass__(**kwargs)
        own = inspect.signature(cls.__init__)
        cls.__signature__ = own.replace(parameters=list(own.parameters.values())[1:])

    def __init__(self, *, kind: str, **traits: Any) -> None:
        self._esm = module(kind) + "\nexport default { render, math };\n"
        super().__init__(kind=kind, **traits)
        self.name = self.name or self.kind
        self._first = {name: getattr(self, name) for name in self.state}
        self.observe(self._follow, list(self.state))
        self.observe(self._act, "asked")
        self._answered: list[Any] | None = None
        self._follow(None)

    def compute(self) -> dict[str, Any]:
        """What follows from the state, by torch: plain numbers and lists."""
        raise NotImplementedError

    def draw(self, figure: Figure) -> None:
        """Draw the state, for print."""
        raise NotImplementedError

    def reset(self) -> None:
        """Back to the state of the start."""
        self.set(**self._first)

    def set(self, **state: Any) -> None:
        """Change several traits at once: all of them, or with an error none."""
        before = {name: getattr(self, name) for name in state}
        try:
            with self.hold_sync(), self.hold_trait_notifications():
                for name, value in state.items():
                    setattr(self, name, value)
        except Exception:
            with self.hold_trait_notifications():
                for name, value in before.items():
                    setattr(self, name, value)
            raise

    def _follow(self, change: Any) -> None:
        """Answer a change; one of several traits at once is told for each, and answered once."""
        now = [getattr(self, name) for name in self.state]
        if now != self._answered:
            self._answer()
            self._answered = now

    def _answer(self) -> None:
        self.values = self.compute()

    def _act(self, change: Any) -> None:
        """A button of the front end: the public method of its name, if it is one of `actions`."""
        # First the state that came in the same message; word of it may come after this.
        self._follow(change)
        for action in change.new[len(change.old) :]:
            if action in ("reset", *self.actions):
                getattr(self, action)()

    #: Methods that a button of the front end may call.
    actions: tuple[str, ...] = ()

    def to_figure(self) -> Figure:
        """The present state as a matplotlib figure, for print."""
        with plt.rc_context(plot.STYLE), plt.ioff():
            figure = plt.figure()
            self.draw(figure)
            plt.close(figure)
        return figure

    def to_html(self) -> str:
        """The interactive as it is now: HTML that needs nothing else, for any web page."""
        state = {
            name: getattr(self, name)
            for name in self.trait_names(sync=True)
            if not name.startswith("_") and name not in ("asked", "layout", "tabbable", "tooltip")
        }
        # "<" cannot end the element early, and is the same character to JSON.
        text = json.dumps(state, separators=(",", ":")).replace("<", "\\u003c")
        return (
            f'<figure class="gm-static" data-gmmedu="{html.escape(self.name)}">'
            f'<img class="gm-still" src="{self._still()}" alt="{html.escape(self.alt)}">'
            "<noscript><p>Where JavaScript is on, this picture can be taken in hand.</p></noscript>"
            f'<script type="application/json">{text}</script></figure>'
            f'<script data-gmmedu-module="{self.kind}">{page_script(self.kind)}</script>'
        )

    def _still(self) -> str:
        stream = io.BytesIO()
        with plt.rc_context(plot.STYLE):
            self.to_figure().savefig(
                stream, format="svg", transparent=True, metadata={"Date": None}
            )
        picture = compact(stream.getvalue().decode())
        code = base64.b64encode(picture.encode()).decode()
        return f"data:image/svg+xml;base64,{code}"

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """The widget for Jupyter, and HTML for pages without a kernel."""
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is None:
            return None
        data, *rest = bundle if isinstance(bundle, tuple) else (bundle,)
        data = {**data, "text/html": self.to_html()}
        return (data, *rest) if rest else data


def page_script(*kinds: str) -> str:
    """The front end of these kinds as a plain script, for pages that may be opened from a disk; it
    mounts once the page is there. Where another one is on the page, that one mounts these too."""
    return (
        "(()=>{"
        + module(*kinds)
        + "\nconst first=window.gmmedu;"
        + "if(first)return Object.assign(first.kinds,kinds),first.mount();"
        + "window.gmmedu={mount,math,views,kinds};mount();"
        + "document.addEventListener('DOMContentLoaded',mount);"
        + "window.addEventListener('hashchange',restore);"
        + "window.addEventListener('load',settle);})();"
    )


def down_to(bottom: float, excess: list[float]) -> list[float]:
    """A curve down to where it meets the bottom of a logarithmic axis, no level of its own."""
    arrived = (t for t, value in enumerate(excess) if value <= bottom)
    shown = excess[: next(arrived, len(excess)) + 1]
    return [max(value, bottom) for value in shown]
