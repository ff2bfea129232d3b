"""Training: one run (run.py is the loop), and several runs with different seeds."""
