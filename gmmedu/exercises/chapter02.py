"""Exercises of chapter 02, the mixture likelihood."""

from gmmedu.exercises.checkers import Checker

EXERCISES: dict[str, Checker] = {}
