"""Figures of chapter 04, covariance families."""
