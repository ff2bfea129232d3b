"""Scores → numbers and tables."""
