"""Exercises of chapter 01, the multivariate normal."""

from gmmedu.exercises.checkers import Checker

EXERCISES: dict[str, Checker] = {}
