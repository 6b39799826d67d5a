"""What the entry pages and the teacher's page say of the chapters is what the chapters say."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import nbformat
import pytest
import teaching
from teaching import Plan, plan_of

BOOK = teaching.BOOK
CHAPTERS = {int(path.stem[:2]): path for path in sorted(BOOK.glob("[0-9][0-9]-*.ipynb"))}
#: Needed without a link: chapter 7 is about EM, and names it in every paragraph.
BY_NAME = {(7, 6)}


def text_of(page: str) -> str:
    return (BOOK / page).read_text("utf-8")


def plans() -> dict[int, Plan]:
    """The plans of the teacher's page, by chapter."""
    found = re.findall(r"```\{plan\} (\S+)\n(.*?)```", text_of("teaching.md"), re.DOTALL)
    return {
        int(name[:2]): plan_of(BOOK / f"{name}.ipynb", ratings.splitlines())
        for name, ratings in found
    }


def test_every_chapter_has_a_plan_in_order() -> None:
    assert list(plans()) == list(CHAPTERS)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_plan_is_that_of_its_chapter(chapter: int) -> None:
    plan = plans()[chapter]
    assert 15 <= plan.reading <= 75
    if chapter == 0:
        assert not plan.aims and not plan.exercises
        return
    assert 3 <= len(plan.aims) <= 6
    assert all(exercise.level == "hard" for exercise in plan.exercises if exercise.marked_hard)
    assert {"easy", "medium"} <= {exercise.level for exercise in plan.exercises}
    assert all(5 <= exercise.minutes <= 40 for exercise in plan.exercises)
    assert [exercise.number for exercise in plan.exercises] == [
        f"{chapter}.{place}" for place in range(1, len(plan.exercises) + 1)
    ]


def test_a_plan_says_what_the_notebook_says() -> None:
    plan = plans()[2]
    page = "\n".join(teaching.markdown(plan))
    assert "- tell the story by which a mixture makes a point, and draw from it;" in page
    assert "| {ref}`2.1 <exercise-02-1>` | The border moves | easy | 5 | page |" in page
    # Its answer is a function.
    assert "| {ref}`2.2 <exercise-02-2>` | A classifier from two Gaussians | medium | 15 " in page
    assert plan.exercises[1].answered == "kernel"
    assert plan.exercises[-1].title == "Four modes from three"
    assert f"{plan.working} for all exercises" in page


@pytest.mark.parametrize(
    "ratings", [["easy 5"] * 6, ["easy 5"] * 8, ["simple 5"] * 7, ["easy"] * 7]
)
def test_ratings_that_do_not_fit_are_refused(ratings: list[str]) -> None:
    with pytest.raises(ValueError, match="exercises, rated are|should be one of"):
        plan_of(CHAPTERS[2], ratings)


def test_every_chapter_has_its_misconceptions_and_a_question_for_the_class() -> None:
    sections = re.split(r"\n## ", text_of("teaching.md"))
    for section in (each for each in sections if "```{plan}" in each):
        title = section.splitlines()[0]
        wrong = re.findall(r"^- \*[^*]+\*", section.partition("**Misconceptions**")[2], re.M)
        assert 3 <= len(wrong) <= 5, title
        assert re.search(r"(?i)\bask|vote|show of hands", section.partition("**In class**")[2]), (
            title
        )


def needed() -> dict[int, set[int]]:
    """What each chapter needs, as the contents of the first page say."""
    rows = re.findall(
        r"^\| (\d+) \[[^\]]+\]\((\S+)\.ipynb\) \|[^|]+\|([^|]*)\|$", text_of("index.md"), re.M
    )
    for chapter, name, needs in rows:
        assert CHAPTERS[int(chapter)].stem == name
        for number, target in re.findall(r"\[(\d+)\]\((\S+)\.ipynb\)", needs):
            assert CHAPTERS[int(number)].stem == target
    return {
        int(chapter): set(map(int, re.findall(r"\[(\d+)\]", needs))) for chapter, _, needs in rows
    }


def with_their_own(chapter: int, needs: dict[int, set[int]]) -> set[int]:
    return needs[chapter].union(*(with_their_own(each, needs) for each in needs[chapter]))


def referred(path: Path) -> Counter[int]:
    """How often a chapter leads back to each before it."""
    text = teaching.markdown_of(nbformat.read(path, as_version=4))
    return Counter(map(int, re.findall(r"\]\((\d\d)-[\w-]+\.ipynb", text)))


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_needs_what_it_refers_back_to(chapter: int) -> None:
    needs = needed()
    assert list(needs) == list(CHAPTERS)
    back = {each: n for each, n in referred(CHAPTERS[chapter]).items() if 0 < each < chapter}
    # A single reference may be a pointer to more.
    often = {each for each, count in back.items() if count > 1}
    assert often <= with_their_own(chapter, needs)
    assert {each for each in needs[chapter] if (chapter, each) not in BY_NAME} <= set(back)
    # The shortest list: what one of them needs is not listed again.
    for each in needs[chapter]:
        assert not any(each in with_their_own(other, needs) for other in needs[chapter])


def test_the_ways_take_as_long_as_they_say() -> None:
    text, reading = text_of("ways.md"), {n: plan.reading for n, plan in plans().items()}
    hours, week, course = (part.splitlines() for part in text.split("\n## ")[1:])
    minutes = [int(line.split("|")[1]) for line in hours if re.match(r"\| \d+ \|", line)]
    assert sum(minutes) == 120
    days = [line for line in week if re.match(r"\| \d \|", line)]
    assert len(days) == 5
    for day in days:
        assert 75 <= sum(reading[int(n)] for n in re.findall(r"\((\d\d)-", day)) <= 125, day
    weeks = [line for line in course if re.match(r"\| \d+ \|", line)]
    assert len(weeks) == 14
    known = {exercise.number for plan in plans().values() for exercise in plan.exercises}
    for line in weeks:
        named = re.findall(r"\b\d+\.\d\b", line.split("|")[4])
        assert set(named) <= known, line
        chapters = {int(n) for n in re.findall(r"\((\d\d)-", line)}
        assert {int(each.split(".")[0]) for each in named} <= chapters, line
