"""Scores → numbers and tables: error rates, costs, calibration, intervals; readers and writers of score files."""
