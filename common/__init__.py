"""Helpers that all packages need: errors, commands, files, typed parsing, processes."""
