"""Exercises of chapter 04, covariance families."""

from gmmedu.exercises.checkers import Checker

EXERCISES: dict[str, Checker] = {}
