"""Figures of chapter 01, the multivariate normal."""
