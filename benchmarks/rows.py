"""A row of the table of benchmarks/all.py."""

from typing import NamedTuple


class Row(NamedTuple):
    """One figure. better: how many times as good as the baseline; goal: what it should be, and whether it is."""

    what: str
    figure: str
    baseline: str
    better: float
    goal: str = ""


def times(what: str, unit: str, rate: float, baseline: float, of: str, goal: float = 0) -> Row:
    """A row of a rate beside the baseline's, in the same unit. goal: the least ratio."""
    ratio = rate / baseline
    met = f"≥ {goal:g}: {'met' if ratio >= goal else 'missed'}" if goal else ""
    return Row(what, f"{three(rate)} {unit}", f"{three(baseline)}, {of}", ratio, met)


def took(what: str, seconds: float, baseline: float, of: str, most: float = 0) -> Row:
    """A row of the seconds of something beside the baseline's. most: the goal, in seconds."""
    met = f"≤ {most:.3g} s: {'met' if seconds <= most else 'missed'}" if most else ""
    unit, scale = ("ms", 1000) if seconds < 0.1 else ("s", 1)
    figures = [f"{three(scale * each)} {unit}" for each in (seconds, baseline)]
    return Row(what, figures[0], f"{figures[1]}, {of}", baseline / seconds, met)


def three(value: float) -> str:
    """Three digits, but no powers of ten."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
