"""Makes slides of the chapters, to be shown in class (`make slides`): _build/slides/NN-*.html.

A chapter is read; a slide is looked at while somebody speaks. So a slide has the headings of a
chapter, its bold sentences, formulas, lists, tables, figures and short code, and what cells
printed; every paragraph goes to the speaker's notes, and so does what is folded. Exercises are
slides, their solutions are not. An interactive is its still, which leads to the chapter's page.

Nothing is executed: the outputs are those that `make book` has kept. reveal.js and MathJax come
from the packages that carry them and are copied beside the slides, which then need no network.
"""

from __future__ import annotations

import base64
import html
import importlib
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import nbformat
from jupyter_cache import get_cache
from nbconvert.exporters import HTMLExporter
from nbconvert.preprocessors import Preprocessor
from nbformat.v4 import new_markdown_cell, new_output

import gmmedu_book
import portable

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BOOK = ROOT / "book"
FOLDED = {"hide-input", "hide-cell"}
LEFT_OUT = re.compile(r"Further reading|In the wild|.*\(optional\)")
#: What must stand on a slide word for word: a question, a task.
ASKED = re.compile(r"\*\*(?:Predict|Commit|Try it|A question)")
#: Lines up to an empty one, or a fence of code whole.
BLOCK = re.compile(r"^```.*?^```$|(?:^(?!```)[^\n]*\S[^\n]*$\n?)+", re.MULTILINE | re.DOTALL)
FIGURE = '<div class="figure">'
#: Pixels of a slide below its title, and those of a figure.
ROOM, PICTURE = 570, 450
#: Words of a task and of a sentence that leads to something; lines of code, of a cell and shown.
LONGEST_TASK, LONGEST_LEAD, LONGEST_CODE, LONGEST_SOURCE = 130, 30, 14, 24


@dataclass
class Slide:
    title: str
    pieces: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    used: float = 0

    def source(self) -> str:
        """Its Markdown; where there is nothing to show, how the text begins."""
        begins = [] if self.pieces or not self.notes else sentences(self.notes[0])[:1]
        return "\n\n".join([self.title, *self.pieces, *begins])


class Slides(Preprocessor):
    """A notebook in which each cell is a slide, its metadata the notes."""

    def preprocess(self, notebook: Any, resources: Any) -> tuple[Any, Any]:
        self.page = f"../html/book/{resources['metadata']['name']}.html"
        self.slides: list[Slide] = []
        self.left_out = False
        self.lead = ""
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                self.read(cell.source)
            elif not self.left_out:
                for piece, height in self.shown(cell):
                    self.add(piece, height, led=piece.startswith("```text"))
        notebook.cells = [
            new_markdown_cell(slide.source(), metadata={"notes": "\n\n".join(slide.notes)})
            for slide in self.slides
            if slide.pieces or slide.notes or slide.title.startswith("# ")
        ]
        return notebook, resources

    def add(self, piece: str, height: float, *, led: bool = False) -> None:
        """Put it on the slide, or on another of the same title: where there is no room, and after a
        question, which stands alone before its answer.

        led: with the sentence that leads to it, if there is one and it is short.
        """
        if led and self.lead and len(self.lead.split()) <= LONGEST_LEAD:
            piece, height = f"{self.lead}\n\n{piece}", height + height_of(self.lead)
        self.lead = ""
        last = self.slides[-1]
        if last.pieces and (last.used + height > ROOM or ASKED.search(last.pieces[-1])):
            self.slides.append(last := Slide(re.sub(r"^#+", "##", last.title)))
        last.pieces.append(piece)
        last.used += height

    def read(self, source: str) -> None:
        """The Markdown of a cell."""
        source = self.plain(source)
        if portable.SOLUTION.search(source):
            return
        if exercise := re.match(r"### (Exercise [^\n]+)\n(.+)\Z", source, re.DOTALL):
            self.slides.append(Slide(f"## {exercise[1]}"))
            self.add(exercise[2].strip(), ROOM)
            return
        folded: list[str] = []

        def fold(details: re.Match[str]) -> str:
            folded.append(f"**{details['summary']}.** {details['body']}")
            return ""

        for block in BLOCK.findall(portable.DETAILS.sub(fold, source)):
            self.take(block.strip("\n"))
        if self.slides and not self.left_out:
            self.slides[-1].notes += folded

    def take(self, block: str) -> None:
        """A block of a text: on the slide, in the notes, or both."""
        if heading := re.match(r"(#+) (.*)", block):
            if len(heading[1]) < 3 or not self.left_out:
                self.left_out = bool(LEFT_OUT.fullmatch(heading[2]))
            if not self.left_out and heading[2] != "Exercises":
                self.slides.append(Slide(block))
            self.lead = ""
            return
        if self.left_out:
            return
        text = block.strip()
        if text.startswith("$$"):
            self.add(text, 40 + 62 * (1 + text.count(r"\\")), led=True)
        elif text.startswith("|"):
            self.add(text, 38 * len(text.splitlines()), led=True)
        elif re.match(r"(?:[-*]|\d+\.) ", text):
            items = re.split(r"\n(?=\S)", text)
            self.add(text, sum(map(height_of, items)), led=True)
        elif text.startswith(("!", "<", "```")):
            self.add(text, ROOM / 2)
        elif text.startswith("**Figure"):
            self.put_beside(" ".join(text.split()))
        else:
            text = " ".join(text.split())
            self.slides[-1].notes.append(text)
            said = sentences(text)
            if ASKED.search(text) and len(text.split()) <= LONGEST_TASK:
                self.add(text, height_of(text))
            elif bold := " ".join(each for each in said if "**" in each):
                self.add(bold, height_of(bold))
                self.lead = "" if "**" in said[-1] else said[-1]
            else:
                self.lead = said[-1]

    def task(self) -> str:
        """The task of an interactive, which is to stand beside it, taken from above."""
        last = self.slides[-1]
        if not (last.pieces and ASKED.search(last.pieces[-1])):
            return ""
        task = last.pieces.pop()
        last.used -= height_of(task)
        return task

    def put_beside(self, caption: str) -> None:
        """A caption beside the figure above it."""
        pieces = self.slides[-1].pieces
        if pieces and FIGURE in pieces[-1]:
            pieces[-1] = pieces[-1].replace("\n\n</div>", f"\n\n{caption}\n\n</div>")
        else:
            self.add(caption, height_of(caption))

    def plain(self, source: str) -> str:
        """Without anchors, and of links only those that lead to another chapter."""
        source = re.sub(r'<a id="[^"]*"></a>', "", source)
        source = re.sub(r"\]\((\d\d-[\w-]+)\.ipynb\)", r"](../html/book/\1.html)", source)
        return portable.LINK.sub(lambda link: link["words"], source).strip()

    def shown(self, cell: Any) -> Iterator[tuple[str, float]]:
        """Of a code cell what it drew and printed, and itself where it defines something short."""
        tags, code = set(cell.metadata.get("tags", ())), cell.source
        if tags & {"remove-cell", "solution"} or portable.CHECK.search(code):
            return
        short = code.count("\n") < LONGEST_CODE and not re.search(r"print\(|figures\.", code)
        if short and "def " in code and not tags & FOLDED:
            yield f"```python\n{code}\n```", lines_of(code)
        alt = html.escape(cell.metadata.get("mystnb", {}).get("image", {}).get("alt", ""))
        for output in merged(cell.outputs):
            data = output.get("data", {})
            if still := re.search(r'<img class="gm-still"[^>]*>', data.get("text/html", "")):
                hint = f"[Take it in hand]({self.page}), in the chapter on the site."
                words = f"{self.task()}\n\n{hint}"
                yield figure(f'<a href="{self.page}">{still[0]}</a>\n\n{words}'), PICTURE
            elif svg := data.get("image/svg+xml"):
                code = base64.b64encode(svg.encode()).decode()
                yield figure(f'<img src="data:image/svg+xml;base64,{code}" alt="{alt}">'), PICTURE
            elif png := data.get("image/png", "").strip():
                yield figure(f'<img src="data:image/png;base64,{png}" alt="{alt}">'), PICTURE
            elif code := data.get("text/markdown"):
                if code.count("\n") < LONGEST_SOURCE:
                    yield code, lines_of(code)
            elif text := output.get("text") or data.get("text/plain"):
                yield printed(text.rstrip())


def merged(outputs: list[Any]) -> Iterator[Any]:
    """What a cell prints is one output, however slowly it prints; complaints are left out."""
    shown = (output for output in outputs if output.get("name") != "stderr")
    for prints, group in groupby(shown, lambda output: output.output_type == "stream"):
        if prints:
            yield new_output("stream", name="stdout", text="".join(each.text for each in group))
        else:
            yield from group


def figure(content: str) -> str:
    return f"{FIGURE}\n\n{content}\n\n</div>"


def printed(text: str) -> tuple[str, float]:
    """What a cell printed; many lines in two columns."""
    piece = f"```text\n{text}\n```"
    if text.count("\n") < LONGEST_SOURCE:
        return piece, lines_of(text)
    return f'<div class="columns">\n\n{piece}\n\n</div>', ROOM


def lines_of(code: str) -> float:
    """The height of lines of code."""
    return 28 * (1 + code.count("\n")) + 24


def height_of(text: str) -> float:
    """About as many pixels as a paragraph takes."""
    return 36 * (1 + len(re.sub(r"\]\([^)]*\)", "]", text)) // 82) + 16


def sentences(text: str) -> list[str]:
    """A paragraph, sentence by sentence; what is bold over several stays whole, and so does a
    title in bold with the sentence after it."""
    found: list[str] = []
    for part in re.split(r"(?:(?<=[.?!])|(?<=[.?!]\*\*))\s+(?=[A-Z*$\[])", text):
        titled = found and re.fullmatch(r"\*\*[^*.?!]{1,40}\.\*\*", found[-1])
        if titled or (found and (found[-1].count("**") % 2 or found[-1].count("$") % 2)):
            found[-1] += f" {part}"
        else:
            found.append(part)
    return found


def executed(path: Path) -> Any:
    """A chapter with what its cells put out when the book was built."""
    place = gmmedu_book.cache_in(ROOT / "_build", path, ROOT)
    kept = gmmedu_book.as_read(path)
    try:
        _, kept = get_cache(place).merge_match_into_notebook(kept)
    except KeyError:
        raise SystemExit(f"no outputs of {path.name} are kept: run `make book` first") from None
    notebook = nbformat.read(path, as_version=4)
    outputs = [cell.outputs for cell in kept.cells if cell.cell_type == "code"]
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell, kept_outputs in zip(code, outputs, strict=True):
        cell.outputs = kept_outputs
    return notebook


def deck(path: Path) -> str:
    """The slides of a chapter, as a page."""
    exporter = HTMLExporter(preprocessors=[Slides], enabled=True)
    exporter.raw_template = HERE.joinpath("slides.html").read_text("utf-8")
    page, _ = exporter.from_notebook_node(executed(path), {"metadata": {"name": path.stem}})
    return str(page)


def assets(target: Path) -> None:
    """What the slides load, from the packages that carry it."""
    reveal = folder("sphinx_revealjs") / "_static" / "revealjs"
    for name in ("LICENSE", "dist/reveal.js", "dist/reveal.css", "plugin/notes/notes.js"):
        place = target / "reveal" / Path(name).name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(reveal / name, place)
    mathjax = folder("sphinx-mathjax-offline") / "static" / "mathjax"
    for name in ("output/chtml/fonts", "input/tex/extensions"):
        shutil.copytree(mathjax / name, target / "mathjax" / name, dirs_exist_ok=True)
    shutil.copy(mathjax / "tex-chtml.js", target / "mathjax")
    shutil.copytree(BOOK / "_static" / "fonts", target / "fonts", dirs_exist_ok=True)
    shutil.copy(HERE / "slides.css", target)


def folder(package: str) -> Path:
    return Path(str(importlib.import_module(package).__file__)).parent


def main(build: Path = ROOT / "_build" / "slides") -> None:
    shutil.rmtree(build, ignore_errors=True)
    assets(build / "_static")
    for path in sorted(BOOK.glob("[0-9][0-9]-*.ipynb")):
        (build / f"{path.stem}.html").write_text(deck(path), "utf-8")
    print(f"The slides are in {build}, a page for each chapter.")


if __name__ == "__main__":
    main()
