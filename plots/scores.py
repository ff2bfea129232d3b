"""Figures of scores and decisions: distributions, scatter, boxes, confusion matrix, EER by attack and by condition."""

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from plots.style import (
    BONAFIDE_COLOUR,
    CLASS_LOOKS,
    COLOURS,
    DOT,
    HATCHES,
    LINE_HEIGHT,
    MARKERS,
    MISSING_MARK,
    SCORE,
    SMALL,
    SPOOF_COLOUR,
    TEXT,
    ZERO_MARK,
    add_legend,
    add_threshold,
    column_figure,
    format_percent,
    inner_range,
    line_handle,
    literal,
    name_rows,
    patch_handle,
    shorten,
    whole_numbers,
)

if TYPE_CHECKING:  # matplotlib is slow to import, so functions import it
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


OPAQUE_POINTS = 500  # of a class in a scatter; more of them are translucent
PAGE_HEIGHT = 8.5  # inches


def score_distributions(
    bonafide: np.ndarray, spoof: np.ndarray, threshold: float, deployed: float | None = None
) -> "Figure":
    """Histograms of the scores of each class, both (trials,), each of area 1; the threshold, and that in use."""
    classes = [np.asarray(bonafide, float), np.asarray(spoof, float)]
    labels = [f"{name} (n = {scores.size:,})" for name, scores in zip(("bona fide", "spoof"), classes, strict=True)]
    figure, axes = column_figure(2.2, SCORE, "Density (1 / unit of score)")
    low, high = _span(axes, classes, threshold, deployed)
    # An odd number of bins, so that a constant score falls into the middle of one.
    edges = np.linspace(low, high, 2 + 2 * int(np.clip(np.sqrt(sum(map(len, classes))) / 2, 10, 50)))
    handles = []
    for scores, look in zip(classes, CLASS_LOOKS, strict=True):
        density = np.histogram(scores, edges)[0] / (max(scores.size, 1) * (edges[1] - edges[0]))
        handles.append(axes.stairs(density, edges, fill=True, linewidth=0.8, **look))
    axes.set(xlim=(low, high), ylim=(0, None))
    add_threshold(axes.axvline, threshold, handles, labels, deployed)
    add_legend(figure, handles, labels, columns=2)
    return figure


def score_scatter(
    scores: np.ndarray, is_bonafide: np.ndarray, threshold: float, deployed: float | None = None
) -> "Figure":
    """Score of each trial (trials,) in the given order; in a PDF the points are one image (LA eval has 71,237).

    The more points, the more translucent they are, so that dense places differ from sparse ones.
    """
    scores, is_bonafide = np.asarray(scores, float), np.asarray(is_bonafide, bool)
    figure, axes = column_figure(2.6, "Trial index", SCORE)
    few = scores.size < 2000
    handles, labels = [], []
    # Bona fide trials are rarer, so they are drawn on top.
    classes = (("spoof", SPOOF_COLOUR, "x", ~is_bonafide), ("bona fide", BONAFIDE_COLOUR, "o", is_bonafide))
    for name, colour, marker, chosen in classes:
        look = {"color": colour, "marker": marker, "linestyle": "none", "markeredgewidth": 0.6 if few else 0.3}
        alpha = min(1, OPAQUE_POINTS / max(chosen.sum(), 1)) ** 0.5
        size = 3 if few else 1.2
        axes.plot(np.flatnonzero(chosen), scores[chosen], markersize=size, alpha=alpha, rasterized=True, **look)
        handles.append(line_handle(markersize=4, **look))
        labels.append(f"{name} (n = {chosen.sum():,})")
    axes.set(ylim=_span(axes, [scores[is_bonafide], scores[~is_bonafide]], threshold, deployed))
    axes.xaxis.set_major_locator(whole_numbers())
    add_threshold(axes.axhline, threshold, handles, labels, deployed)
    add_legend(figure, handles, labels, columns=2)
    return figure


def score_boxes(groups: Mapping[str, np.ndarray], threshold: float, deployed: float | None = None) -> "Figure":
    """Box plots of scores by group, each (trials,), "bona fide" first: quartiles, whiskers to 1.5 quartile ranges."""
    values = [np.asarray(scores, float) for scores in groups.values()]
    figure, axes = column_figure(_rows_height(len(groups), 0), SCORE, "")
    boxes = axes.boxplot(
        values,
        positions=range(len(values)),
        orientation="horizontal",
        widths=0.6,
        patch_artist=True,
        flierprops={"marker": ".", "markersize": 1.5, "markeredgecolor": "0.3", "rasterized": True},
        medianprops={"color": "black", "linewidth": 1.1},
        manage_ticks=False,
    )
    for part in ("boxes", "whiskers", "caps"):
        for line in boxes[part]:
            line.set_linewidth(0.6)
    for index, box in enumerate(boxes["boxes"]):
        box.set_facecolor(SPOOF_COLOUR if index else BONAFIDE_COLOUR)
    axes.set(xlim=_span(axes, values, threshold, deployed))
    name_rows(axes, list(groups))
    handles, labels = [patch_handle(color=BONAFIDE_COLOUR), patch_handle(color=SPOOF_COLOUR)], ["bona fide", "spoof"]
    add_threshold(axes.axvline, threshold, handles, labels, deployed)
    add_legend(figure, handles, labels, columns=2)
    return figure


def _span(axes: "Axes", groups: Collection[np.ndarray], *thresholds: float | None) -> tuple[float, float]:
    """Axis limits that show all scores and the thresholds; far outliers are left out, and their number is the title."""
    ends = [threshold for threshold in thresholds if threshold is not None and np.isfinite(threshold)]
    for scores in groups:
        finite = np.sort(scores[np.isfinite(scores)])
        if finite.size:
            ends += inner_range(finite)
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    margin = 0.03 * (high - low) or max(0.5, 0.01 * abs(high))
    low, high = float(low - margin), float(high + margin)
    outside = sum(int(np.sum(~((scores >= low) & (scores <= high)))) for scores in groups)
    if outside:
        axes.set_title(f"{outside:,} of {sum(map(len, groups)):,} trials outside the axis", fontsize=SMALL, loc="right")
    return low, high


def attack_eer(
    systems: Mapping[str, Mapping[str, tuple[float, float | None, float | None]]], trials: Mapping[str, int] = {}
) -> "Figure":
    """EER of each attack as bars: `{system: {attack: (eer, low, high)}}`, fractions; None = no interval.

    trials: how many each attack has, named beside it. A bar has its value beside it unless that would not fit on a
    page; then a dot marks 0 %. An attack without result (missing or NaN) is marked ×; "pooled" is last, below a line.
    """
    attacks = list(dict.fromkeys(attack for results in systems.values() for attack in results))
    attacks.sort(key=lambda attack: attack == "pooled")
    rows = [[results.get(attack, (None, None, None)) for attack in attacks] for results in systems.values()]
    percent = 100 * np.array(rows, float).reshape(len(systems), len(attacks), 3)  # EER, low, high; None becomes NaN
    with_values = len(attacks) * (row := 0.06 + 0.11 * len(systems)) <= PAGE_HEIGHT
    row = row if with_values else 0.08 + 0.045 * len(systems)
    figure, axes = column_figure(_rows_height(len(attacks), row), "Equal error rate (%)", "")
    handles = [_bars(axes, bars, index, len(systems), with_values) for index, bars in enumerate(percent)]
    labels = list(systems)
    for name, mark in _marks(with_values).items():
        if mark.of(percent[:, :, 0]).any():
            handles.append(line_handle(**mark.look))
            labels.append(name)
    room = 1.25 if with_values else 1.03
    axes.set(xlim=(0, room * (np.nan_to_num(percent).max(initial=0) or 1)))
    name_rows(axes, attacks, [f", n = {trials[attack]:,}" if attack in trials else "" for attack in attacks])
    if "pooled" in attacks[1:]:
        axes.axhline(len(attacks) - 1.5, color="black", linewidth=0.6)
    add_legend(figure, handles, labels)
    return figure


def _bars(axes: "Axes", percent: np.ndarray, index: int, systems: int, with_values: bool) -> "Artist":
    """Draw the bars of system number `index`; return a handle for the legend.

    percent: (attacks, 3) of EER, low, high; NaN = none. systems: how many there are.
    """
    thickness = 0.8 / systems
    rows = np.arange(len(percent)) - 0.4 + (index + 0.5) * thickness
    eer, low, high = percent.T
    look = {
        "facecolor": COLOURS[index % len(COLOURS)],
        "edgecolor": "black",
        "linewidth": 0.4,
        "hatch": HATCHES[index % len(HATCHES)],
        "hatch_linewidth": 0.5,
    }
    axes.barh(rows, eer, thickness, **look)
    # Centred on the interval, because a bootstrap interval need not contain the EER.
    whiskers = {"fmt": "none", "ecolor": "black", "elinewidth": 0.7, "capsize": min(2, 30 * thickness / systems)}
    axes.errorbar((low + high) / 2, rows, xerr=(high - low) / 2, **whiskers)
    for mark in _marks(with_values).values():
        if (marked := mark.of(eer)).any():  # an empty line would still count in the layout, at the figure's corner
            axes.plot(np.zeros(marked.sum()), rows[marked], **mark.look, clip_on=False)
    if with_values:
        for row, value, end in zip(rows, eer, np.fmax(eer, high), strict=True):
            if np.isfinite(value):
                place = {"xytext": (3, 0), "textcoords": "offset points", "va": "center"}
                axes.annotate(format_percent(value / 100), (end, row), fontsize=SMALL, **place)
    return patch_handle(**look)


class _Mark(NamedTuple):
    """What stands in place of a bar. of: which EERs (attacks,) have it."""

    look: dict
    of: Callable[[np.ndarray], np.ndarray]


def _marks(with_values: bool) -> dict[str, _Mark]:
    """The marks by their names in the legend; a bar with its value beside it needs none for 0 %."""
    zero = {} if with_values else {"0 %": _Mark(ZERO_MARK, lambda eer: eer == 0)}
    return zero | {"no result": _Mark(MISSING_MARK, np.isnan)}


def _rows_height(rows: int, row: float) -> float:
    """Height in inches of `rows` rows of `row` inches: at most a page, unless names would then touch."""
    return 0.5 + max(min(PAGE_HEIGHT, rows * max(row, 0.17)), rows * LINE_HEIGHT, 0.3)


def robustness(curves: Mapping[str, Mapping[str, float]]) -> "Figure":
    """The EER (%) of each system under each condition, `{system: {condition: EER}}`; a row per condition.

    A line marks 50 %, the EER of guessing.
    """
    conditions = list(next(iter(curves.values())))
    figure, axes = column_figure(0.7 + 0.19 * len(conditions), "EER (%)", "")
    rows = np.arange(len(conditions))
    handles = []
    for index, curve in enumerate(curves.values()):
        look = DOT | {"color": COLOURS[index], "marker": MARKERS[index]}
        axes.plot([curve[name] for name in conditions], rows, **look, clip_on=False)
        handles.append(line_handle(**look))
    ends = np.array([[curve[name] for curve in curves.values()] for name in conditions])
    axes.hlines(rows, ends.min(axis=1), ends.max(axis=1), color="0.7", linewidth=0.8, zorder=0)
    axes.axvline(50, color="0.4", linewidth=0.8, linestyle=(0, (4, 2)))
    axes.set_xlim(0, max(55, float(ends.max()) + 3))
    name_rows(axes, conditions)
    add_legend(figure, [*handles, line_handle(color="0.4", linestyle=(0, (4, 2)))], [*curves, "guessing"], columns=3)
    return figure


def confusion_matrix(matrix: np.ndarray, threshold: float, system: str) -> "Figure":
    """Counts [[bona fide accepted, bona fide rejected], [spoof accepted, spoof rejected]], with percent of each row."""
    counts = np.asarray(matrix)
    percent = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)  # 0, not NaN, for a class without trials
    figure, axes = column_figure(2.4, "Decision", "Truth")
    axes.imshow(
        percent, cmap="Blues", vmin=0, vmax=180, aspect="auto"
    )  # 180: black text is readable on the darkest blue
    for (row, column), count in np.ndenumerate(counts):
        of_row = f"{percent[row, column]:.2f} %" if counts[row].any() else "no trials"
        axes.text(column, row, f"{count:,}\n{of_row}", ha="center", va="center", fontsize=TEXT)
    axes.set_xticks([0, 1], ["accepted as bona fide", "rejected as spoof"])
    axes.set_yticks([0, 1], ["bona fide", "spoof"])
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    title = f"{literal(shorten(system, 40))}\nTrials, and % of the row, at threshold {threshold:.4g}"
    axes.set_title(title, fontsize=SMALL)
    return figure
