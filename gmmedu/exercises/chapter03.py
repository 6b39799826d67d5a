"""Exercises of chapter 03, the objective."""

from gmmedu.exercises.checkers import Checker

EXERCISES: dict[str, Checker] = {}
