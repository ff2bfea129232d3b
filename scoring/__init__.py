"""Weights and audio → scores → verdicts → results on disk."""
