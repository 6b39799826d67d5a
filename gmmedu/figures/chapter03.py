"""Figures of chapter 03, the objective."""
