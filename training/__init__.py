"""One run, and several runs."""
