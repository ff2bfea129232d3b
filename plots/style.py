"""How every figure looks: sizes, colours, dashes, markers, axes and legends; `write_figure` writes PNG and PDF.

Figures are one column of a paper wide (recordings and data sets: two) and use Okabe–Ito colours. Every difference is
drawn twice, by colour and by dash, marker, hatch or lightness, so that it survives colour blindness and black-and-white
print.
"""

import textwrap
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.errors import PartFailed
from common.escaping import printable
from common.files import replacing

if TYPE_CHECKING:  # matplotlib is slow to import, so functions import it
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import Locator

WIDTH, TWO_COLUMNS = 3.4, 7.0  # inches: one column of a two-column paper; both
SMALL, TEXT = 7, 8  # font sizes in points: ticks and legends; axis labels
LINE_HEIGHT = 0.14  # inches: one line of SMALL text with its spacing
# Okabe–Ito without yellow, which is hard to see on white. Seven colours with eight dashes, markers and hatches give 56
# different pairs.
COLOURS = ("#0072B2", "#E69F00", "#000000", "#56B4E9", "#D55E00", "#009E73", "#CC79A7")
DASHES = ("-", *((0, gaps) for gaps in ((5, 1), (1, 1), (5, 1, 1, 1), (9, 3), (2.5, 1), (1, 2.5), (4, 1, 1, 1, 1, 1))))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
HATCHES = ("", "/////", "", ".....", "\\\\\\\\\\", "xxxxx", "|||||", "-----")
MISSING_MARK = {"linestyle": "none", "marker": "x", "color": "black", "markersize": 3}
ZERO_MARK = MISSING_MARK | {"marker": "o", "markersize": 2.5}
BONAFIDE_COLOUR, SPOOF_COLOUR = "#0072B2", "#E69F00"  # dark and light: they differ in grey, too
DOT = {"linestyle": "none", "markersize": 4, "markeredgecolor": "black", "markeredgewidth": 0.4}
# Histograms of bona fide and spoof: filled or hatched, not both, because PDF drops a hatch over a translucent fill.
CLASS_LOOKS = (
    {"facecolor": (BONAFIDE_COLOUR, 0.4), "edgecolor": BONAFIDE_COLOUR},
    {"facecolor": "none", "edgecolor": SPOOF_COLOUR, "hatch": "//////"},
)
# The five findings about a recording, on white and on a dark ground. They are defined here; webpage/page.css repeats
# these values. Each reads as text (contrast of 4.5 or more) and differs from the others for the colour-blind, too.
FINDING_COLOURS = {
    "likely_genuine": "#0a58b8",
    "unclear": "#8c6f00",
    "likely_synthetic": "#8c2500",
    "mixed": "#ab2d95",
    "cannot_say": "#3f464f",
}
DARK_FINDING_COLOURS = {
    "likely_genuine": "#82bdf7",
    "unclear": "#f7d94c",
    "likely_synthetic": "#f98a66",
    "mixed": "#c487b8",
    "cannot_say": "#dfe6ee",
}
SCORE = "Score (higher = more bona fide)"
_saving = threading.Lock()  # rc_context is global: two threads inside it could leave its settings set


def write_figure(figure: "Figure", stem: Path, formats: Sequence[str] = ("png", "pdf")) -> list[Path]:
    """Write `<stem>.<format>` for each format, whole or not at all. The same figure gives the same bytes.

    PNG has 300 dots per inch; PDF embeds TrueType fonts (type 42), as publishers ask. Returns the files.
    Raises UserError.
    """
    import matplotlib

    undated = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
    settings = {"pdf.fonttype": 42, "ps.fonttype": 42, "svg.hashsalt": "plots"}
    paths = [Path(stem).with_name(f"{Path(stem).name}.{kind}") for kind in formats]  # a stem may have dots of its own
    for kind, path in zip(formats, paths, strict=True):
        with replacing(path) as temporary, _saving, matplotlib.rc_context(settings):
            figure.savefig(temporary, format=kind, dpi=300, metadata=undated.get(kind))
    return paths


def write_figures(makers: "Mapping[Path, Callable[[], Figure]]", formats: Sequence[str] = ("png", "pdf")) -> list[Path]:
    """Draw and write each figure, by its stem; returns the files.

    Raises PartFailed, which names those that failed for whatever reason, when all others are written.
    """
    files, failed = [], []
    for stem, make in makers.items():
        try:
            files += write_figure(make(), stem, formats)
        except Exception as error:
            failed.append(f"{stem} ({error})")
    if failed:
        raise PartFailed(f"not drawn: {', '.join(failed)}")
    return files


def column_figure(height: float, xlabel: str, ylabel: str) -> tuple["Figure", "Axes"]:
    """A one-column figure with styled axes, `height` inches high; a legend adds to its height."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), dpi=200, layout="constrained")
    axes = figure.add_subplot()
    style_axes(axes, xlabel, ylabel)
    return figure, axes


def style_axes(axes: "Axes", xlabel: str, ylabel: str) -> None:
    """Labels, small ticks, a light grid, and only the left and bottom spines."""
    axes.set_xlabel(xlabel, fontsize=TEXT)
    axes.set_ylabel(ylabel, fontsize=TEXT)
    axes.tick_params(which="both", labelsize=SMALL, width=0.6, length=2.5)
    axes.grid(color="0.9", linewidth=0.5)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_linewidth(0.6)
        spine.set_visible(side in ("left", "bottom"))


def add_legend(figure: "Figure", handles: Sequence["Artist"], labels: Sequence[str], columns: int = 1) -> None:
    """A legend above the axes, where it covers no data; its lines add to the figure's height."""
    wrapped = [textwrap.fill(literal(label), 44) for label in labels]
    lines = sum(label.count("\n") + 1 for label in wrapped)
    figure.set_figheight(figure.get_figheight() + LINE_HEIGHT * -(-lines // columns) + 0.08)
    figure.legend(
        handles,
        wrapped,
        loc="outside upper left",
        ncols=columns,
        fontsize=SMALL,
        frameon=False,
        handlelength=2.6,
        labelspacing=0.3,
        borderaxespad=0.1,
    )


def line_handle(**look) -> "Artist":
    """A line or marker for a legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], **look)


def patch_handle(**look) -> "Artist":
    """A filled box for a legend."""
    from matplotlib.patches import Patch

    return Patch(**look)


def curve_style(index: int, marker: bool = False) -> dict:
    """The style of curve number `index`; with `marker`, also that of a point on it."""
    look = {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index % len(DASHES)], "linewidth": 1.1}
    if marker:
        look |= {
            "marker": MARKERS[index % len(MARKERS)],
            "markersize": 5,
            "markeredgecolor": "black",
            "markeredgewidth": 0.5,
        }
    return look


def add_threshold(
    draw_line: Callable, threshold: float, handles: list, labels: list, deployed: float | None = None
) -> None:
    """Draw the threshold with `draw_line` and add it to the legend; an infinite one is only in the legend.

    deployed: the threshold that verdicts use, dotted, where `threshold` is another one.
    """
    lines = [("threshold" if deployed is None else "EER threshold", threshold, (0, (4, 2)))]
    lines += [("deployed threshold", deployed, (0, (1, 1.5)))] if deployed is not None else []
    for name, value, dashes in lines:
        look = {"color": "black", "linestyle": dashes, "linewidth": 0.9}
        if np.isfinite(value):
            draw_line(value, **look)
        handles.append(line_handle(**look))
        labels.append(f"{name} {value:.4g}" + ("" if np.isfinite(value) else " (not drawn)"))


def inner_range(ordered: np.ndarray) -> list[float]:
    """The ends of `ordered` values, or closer ones if outliers would squeeze 99 % into a twentieth of the axis."""
    quartiles = np.quantile(ordered, [0.25, 0.75])  # for a handful of values, where 99 % is all or almost none
    low = min(np.quantile(ordered, 0.005, method="higher"), quartiles[0])
    high = max(np.quantile(ordered, 0.995, method="lower"), quartiles[1])
    if ordered[-1] - ordered[0] > 20 * (high - low) > 0:
        return [max(ordered[0], low - 0.3 * (high - low)), min(ordered[-1], high + 0.3 * (high - low))]
    return [ordered[0], ordered[-1]]


def name_rows(axes: "Axes", names: Sequence[str], notes: Sequence[str] | None = None) -> None:
    """Put `names` beside rows 0, 1, … from the top down, `notes` behind them; long names are shortened."""
    shown = [literal(shorten(name, 24)) for name in names]
    axes.set_yticks(
        range(len(names)), [name + note for name, note in zip(shown, notes or [""] * len(shown), strict=True)]
    )
    axes.set(ylim=(len(names) - 0.4, -0.6))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)


def whole_numbers() -> "Locator":
    """Ticks at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)


def shorten(text: str, length: int) -> str:
    """`text` without its middle if it is longer than `length`."""
    return text if len(text) <= length else f"{text[: length // 2]}…{text[len(text) - (length - 1) // 2 :]}"


def literal(name: str) -> str:
    """`name` on one line, letter for letter: to matplotlib text between dollars is a formula."""
    return printable(name).replace("$", r"\$")


def format_percent(fraction: float) -> str:
    """Percent with two decimals, or two digits if it is below 0.01."""
    percent = 100 * fraction
    return f"{percent:.2g}" if 0 < percent < 0.01 else f"{percent:.2f}"
