"""Figures of training runs: curves by epoch, and the spread over seeds."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from plots.style import (
    COLOURS,
    DOT,
    SMALL,
    TEXT,
    add_legend,
    column_figure,
    curve_style,
    line_handle,
    name_rows,
    shorten,
    style_axes,
    whole_numbers,
)

if TYPE_CHECKING:  # matplotlib is slow to import, so functions import it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PARTITIONS = {"dev": DOT | {"color": COLOURS[0], "marker": "o"}, "eval": DOT | {"color": COLOURS[1], "marker": "s"}}


class TrainingHistory(NamedTuple):
    """The numbers of a run by epoch; None or NaN where there is none."""

    epochs: Sequence[int]  # (E,)
    loss: Sequence[float | None]  # (E,)
    dev_eer: Sequence[float | None]  # (E,) fractions
    dev_min_tdcf: Sequence[float | None]  # (E,)


def training_curves(runs: Mapping[str, TrainingHistory]) -> "Figure":
    """Training loss, dev EER and, if any run has it, dev min t-DCF of each named run by epoch.

    The best epoch of each dev metric is marked (the later of equal ones, as training keeps it). A single run has it in
    the panel's title; several runs have a legend with the best dev EER of each. An axis is logarithmic, and says so,
    if its values are above 0 and differ more than tenfold.
    """
    panels = {"Training loss": [], "Dev EER (%)": [], "Dev min t-DCF": []}
    for run in runs.values():
        for values, scale, given in zip(panels.values(), (1, 100, 1), run[1:], strict=True):
            values.append(scale * np.array(given, float))
    if not any(np.isfinite(values).any() for values in panels["Dev min t-DCF"]):
        del panels["Dev min t-DCF"]
    figure, first = column_figure(0.4 + 1.15 * len(panels), "", "")
    first.remove()
    all_axes = figure.subplots(len(panels), sharex=True)
    for axes, (label, values) in zip(all_axes, panels.items(), strict=True):
        style_axes(axes, "Epoch" if axes is all_axes[-1] else "", label)
        _by_epoch(axes, runs, values, mark_best=label != "Training loss")
    if len(runs) > 1:
        handles = [line_handle(**curve_style(index, marker=True)) for index in range(len(runs))]
        add_legend(figure, handles, [_best_eer(name, run) for name, run in runs.items()])
    figure.align_ylabels()
    return figure


def _by_epoch(axes: "Axes", runs: Mapping[str, TrainingHistory], series: Sequence[np.ndarray], mark_best: bool) -> None:
    """One panel of `training_curves`: the values of each run, (E,)."""
    axes.xaxis.set_major_locator(whole_numbers())
    axes.margins(0.03, 0.12)  # room for the marks
    for index, (run, values) in enumerate(zip(runs.values(), series, strict=True)):
        points = {"marker": "."} if len(values) < 40 else {}
        axes.plot(run.epochs, values, **curve_style(index) | {"linewidth": 0.8}, **points, markersize=3)
        best = _best(values)
        if not mark_best or best is None:
            continue
        axes.plot(run.epochs[best], values[best], **curve_style(index, marker=True), clip_on=False, zorder=3)
        if len(runs) == 1:
            title = f"best: {values[best]:.4g} at epoch {run.epochs[best]}"
            axes.set_title(title, fontsize=SMALL, loc="right", pad=3)
    _maybe_logarithmic(axes, np.concatenate(series) if series else np.empty(0))


def _best(values: np.ndarray) -> int | None:
    """Index of the lowest of `values` (E,), the last of equal ones; None if all are NaN."""
    return len(values) - 1 - int(np.nanargmin(values[::-1])) if np.isfinite(values).any() else None


def _best_eer(name: str, run: TrainingHistory) -> str:
    """A run's line in the legend."""
    eer = 100 * np.array(run.dev_eer, float)
    best = _best(eer)
    found = "no dev EER yet" if best is None else f"EER {eer[best]:.3f} % at {run.epochs[best]}"
    return f"{shorten(name, 22)}: {found}"


def _maybe_logarithmic(axes: "Axes", values: np.ndarray) -> None:
    """Make the y axis logarithmic if differences between late epochs could not be seen beside the first ones."""
    from matplotlib.ticker import LogLocator

    values = values[np.isfinite(values)]
    if values.size and values.min() > 0 and values.max() > 10 * values.min():
        wide = values.max() > 500 * values.min()
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.set_ylabel(f"{axes.get_ylabel()}, log", fontsize=TEXT)


class SeedSpread(NamedTuple):
    """One metric of one checkpoint over several seeds."""

    checkpoint: str
    partition: str  # "dev" or "eval"
    values: Sequence[float]  # (seeds,)
    mean: float
    interval: tuple[float, float] | None  # 95 %, of the mean; None for a single seed


def seed_spreads(panels: Mapping[str, Sequence[SeedSpread]]) -> "Figure":
    """A dot per seed above their mean and its interval: `{axis label: spreads}`; dev above eval for each checkpoint."""
    names = list(dict.fromkeys(spread.checkpoint for spreads in panels.values() for spread in spreads))
    figure, first = column_figure(len(panels) * (0.42 + 0.6 * max(len(names), 1)), "", "")
    first.remove()
    for axes, (label, spreads) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels.items(), strict=True):
        style_axes(axes, label, "")
        for spread in spreads:
            _spread(axes, spread, names.index(spread.checkpoint) + (0.24 if spread.partition == "eval" else -0.24))
        for row in range(1, len(names)):
            axes.axhline(row - 0.5, color="0.9", linewidth=0.5)
        axes.set_xlim(left=max(0, axes.get_xlim()[0]))  # an interval is symmetric and may pass 0; error rates cannot
        name_rows(axes, names)
    handles = [line_handle(**look) for look in PARTITIONS.values()]
    handles.append(line_handle(color="black", marker="|", linewidth=0.9))
    add_legend(figure, handles, ["dev, each seed", "eval, each seed", "mean and its 95 % interval"], columns=2)
    return figure


def _spread(axes: "Axes", spread: SeedSpread, row: float) -> None:
    """The seeds' dots in two lines, so that close ones do not overlap; the mean below them."""
    heights = row - np.resize([0.14, 0.04], len(spread.values))
    axes.plot(np.sort(spread.values), heights, **PARTITIONS[spread.partition], clip_on=False)
    low, high = spread.interval or (spread.mean, spread.mean)
    axes.errorbar((low + high) / 2, row + 0.1, xerr=(high - low) / 2, fmt="none", ecolor="black", elinewidth=0.9)
    axes.plot(spread.mean, row + 0.1, "|", color="black", markersize=6, markeredgewidth=1.2)
