"""What a teacher wants to know of a chapter, read from its notebook: aims, minutes, exercises.

The directive ``plan`` takes the name of a chapter and, a line for each exercise, how hard it is and
how many minutes it takes. What can be read is read: the aims are those that the chapter states, and
titles, numbers and where an exercise is answered are those of its page. So nothing goes stale; an
exercise without a line, or a line without an exercise, is a warning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

import portable
from gmmbook.exercises import typed

BOOK = Path(__file__).resolve().parents[1]
LEVELS = ("easy", "medium", "hard")
AIMS = re.compile(r"After this chapter you can(?:\*\*)?\n\n(?P<aims>- .*?)(?=\n\n|\Z)", re.DOTALL)
#: Of a reader who follows the argument; a formula or a result is a minute.
WORDS_A_MINUTE = 200


@dataclass(frozen=True)
class Exercise:
    identifier: str
    title: str
    marked_hard: bool
    level: str
    minutes: int

    @property
    def number(self) -> str:
        chapter, place = self.identifier.split("-")
        return f"{int(chapter)}.{place}"

    @property
    def answered(self) -> str:
        """Where its answer is checked: on the page, or in a running notebook."""
        return "page" if typed(self.identifier) else "kernel"


@dataclass(frozen=True)
class Plan:
    aims: list[str]
    exercises: list[Exercise]
    reading: int

    @property
    def working(self) -> int:
        return sum(exercise.minutes for exercise in self.exercises)


def markdown_of(notebook: Any) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def main_line(notebook: Any) -> str:
    """The text of a chapter without what is folded, optional, or an exercise."""
    text = re.sub(r"<details.*?</details>", "", markdown_of(notebook), flags=re.DOTALL)
    main, depth = [], 0
    for line in text.splitlines():
        if heading := re.match(r"(#+) (.*)", line):
            level, title = len(heading[1]), heading[2]
            depth = 0 if level <= depth else depth
            if not depth and (
                title.endswith("(optional)") or title in ("Exercises", "Further reading")
            ):
                depth = level
        main += [] if depth else [line]
    return "\n".join(main)


def words_of(notebook: Any) -> int:
    """Words of the main line of a chapter; a formula in a line counts as one."""
    text = re.sub(r"<a id[^>]*></a>|\$\$.*?\$\$", "", main_line(notebook), flags=re.DOTALL)
    text = re.sub(r"\$[^$]+\$", "x", re.sub(r"\]\([^)]*\)", "]", text))
    return len(re.findall(r"\w[\w'’.,-]*", text))


def reading_minutes(notebook: Any) -> int:
    """Words at their pace and a minute for each formula and each result, to five minutes."""
    formulas = main_line(notebook).count("$$") // 2
    results = sum(
        cell.cell_type == "code" and "nbval-check-output" in cell.metadata.get("tags", ())
        for cell in notebook.cells
    )
    return 5 * round((words_of(notebook) / WORDS_A_MINUTE + formulas + results) / 5)


def plan_of(path: Path, ratings: list[str]) -> Plan:
    """The plan of a chapter. Raises ValueError where ratings do not fit its exercises."""
    notebook = nbformat.read(path, as_version=4)
    found = [
        exercise
        for cell in notebook.cells
        if cell.cell_type == "markdown" and (exercise := portable.EXERCISE.match(cell.source))
    ]
    if len(found) != len(ratings):
        raise ValueError(f"{path.name} has {len(found)} exercises, rated are {len(ratings)}")
    exercises = []
    for exercise, rating in zip(found, ratings, strict=True):
        level, _, minutes = rating.partition(" ")
        if level not in LEVELS or not minutes.isdigit():
            raise ValueError(f"{rating!r} should be one of {', '.join(LEVELS)}, and minutes")
        title = exercise["title"].removesuffix(" (hard)")
        hard = title != exercise["title"] or exercise["body"].lstrip().startswith("Hard.")
        identifier = f"{exercise['chapter']}-{exercise['place']}"
        exercises.append(Exercise(identifier, title, hard, level, int(minutes)))
    stated = AIMS.search(markdown_of(notebook))
    text = portable.LINK.sub(lambda link: link["words"], stated["aims"]) if stated else ""
    aims = [" ".join(aim.split()) for aim in re.split(r"(?m)^- ", text) if aim]
    return Plan(aims, exercises, reading_minutes(notebook))


def markdown(plan: Plan) -> Iterator[str]:
    """MyST lines: aims, minutes, and a table of the exercises."""
    if plan.aims:
        yield from ("After it a student can", "")
        yield from (f"- {aim}" for aim in plan.aims)
        yield ""
    minutes = f"**Minutes**: {plan.reading} to read"
    if not plan.exercises:
        yield from (f"{minutes}.", "")
        return
    yield from (f"{minutes}, {plan.working} for all exercises.", "")
    yield from ("| no. | exercise | level | min | on |", "|---|---|---|--:|---|")
    for each in plan.exercises:
        number = f"{{ref}}`{each.number} <exercise-{each.identifier}>`"
        yield f"| {number} | {each.title} | {each.level} | {each.minutes} | {each.answered} |"
    yield ""


class PlanDirective(SphinxDirective):
    """``{plan} 01-multivariate-normal``, and a line such as ``easy 10`` for each exercise."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        path = BOOK / f"{self.arguments[0]}.ipynb"
        self.env.note_dependency(str(path))
        # Whether an exercise is answered on the page hangs on its checker.
        exercises = BOOK / "gmmbook" / "exercises"
        for name in (f"chapter{path.name[:2]}", "checkers"):
            if (exercises / f"{name}.py").is_file():
                self.env.note_dependency(str(exercises / f"{name}.py"))
        try:
            plan = plan_of(path, [line for line in self.content if line.strip()])
        except ValueError as error:
            logging.getLogger(__name__).warning(str(error), location=self.get_location())
            return []
        container = nodes.container()
        container.document = self.state.document
        lines = StringList(list(markdown(plan)), source=str(Path(__file__)))
        self.state.nested_parse(lines, self.content_offset, container)
        return container.children


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("plan", PlanDirective)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
