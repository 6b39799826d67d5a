"""Figures of chapter 02, the mixture likelihood."""
