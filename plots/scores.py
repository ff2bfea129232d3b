"""Every figure of this repository: arrays in, a matplotlib `Figure` out; `save` writes one as PNG and PDF.

    figure = plots.det({"AASIST": (frr, far)}, {"AASIST": 0.0083})
    plots.save(figure, Path("results/det"))  # results/det.png, results/det.pdf

One column of a paper wide (`recording`: two), Okabe–Ito colours, and every difference is drawn twice (colour and dash,
marker, hatch or lightness), so that colour-blind readers and black-and-white printers lose nothing. Rates come in as
fractions and are drawn in percent; a score is higher for bona fide; FRR = bona fide rejected, FAR = spoof accepted.
No pyplot and no global settings: figures may be drawn in a server's threads.
"""

import textwrap
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from common.files import replacing

if TYPE_CHECKING:  # matplotlib is imported where it is used, so that `import plots` is quick
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import Locator

WIDTH, TWO_COLUMNS = 3.4, 7.0  # inches: one column of a two-column paper; both
SMALL, TEXT = 7, 8  # points: ticks and legends; axis labels
LINE = 0.14  # inches: one line of SMALL text with its spacing
# Okabe–Ito without yellow, which is lost on white. Seven colours against eight dashes, markers and hatches: 56 systems
# until a pair comes back.
COLOURS = ("#0072B2", "#E69F00", "#000000", "#56B4E9", "#D55E00", "#009E73", "#CC79A7")
DASHES = ("-", *((0, gaps) for gaps in ((5, 1), (1, 1), (5, 1, 1, 1), (9, 3), (2.5, 1), (1, 2.5), (4, 1, 1, 1, 1, 1))))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
HATCHES = ("", "/////", "", ".....", "\\\\\\\\\\", "xxxxx", "|||||", "-----")
MISSING = {"linestyle": "none", "marker": "x", "color": "black", "markersize": 3}
BONAFIDE, SPOOF = "#0072B2", "#E69F00"  # dark and light: they stay apart in grey
DOT = {"linestyle": "none", "markersize": 4, "markeredgecolor": "black", "markeredgewidth": 0.4}
PARTITIONS = {"dev": DOT | {"color": COLOURS[0], "marker": "o"}, "eval": DOT | {"color": COLOURS[1], "marker": "s"}}
# Histograms of bona fide and spoof: hatched or filled, not both, as over a translucent fill PDF loses the hatch.
CLASSES = (
    {"facecolor": (BONAFIDE, 0.4), "edgecolor": BONAFIDE},
    {"facecolor": "none", "edgecolor": SPOOF, "hatch": "//////"},
)
REJECTED, SHADE = "#D55E00", (0.9, 0.62, 0, 0.25)  # a chunk below the threshold, on a suspicious region's shade
HIGHEST = 8000  # Hz: the top of every frequency axis
CLOCK = 120  # seconds: time is in min:s or h:min from here on
PICTURED_SECONDS = 600  # longer recordings are drawn without waveform and spectrogram
PIXELS = 1400  # columns of a waveform or spectrogram: about what two columns of a paper show
FAR, FRR, ACCEPTED = "False acceptance rate of spoof (%)", "Miss rate of bona fide (%)", "Bona fide accepted (%)"
SCORE = "Score (higher = more bona fide)"
Curves = Mapping[str, tuple[np.ndarray, np.ndarray]]  # system → (frr, far): fractions, both (thresholds,)
Regions = Sequence[tuple[float, float, float]]  # start and end in seconds, score
_saving = threading.Lock()  # rc_context is global: two threads inside it could leave its settings behind


class Timeline(NamedTuple):
    """The chunks of a recording."""

    starts: np.ndarray  # (C,) seconds
    ends: np.ndarray  # (C,) seconds, none after the recording's end
    scores: np.ndarray  # (C,); NaN: silent, no score


class Spread(NamedTuple):
    """One measure of one checkpoint over several seeds."""

    checkpoint: str
    partition: str  # "dev" or "eval"
    values: Sequence[float]  # (seeds,)
    mean: float
    interval: tuple[float, float] | None  # 95 %, of the mean; None for a single seed


class History(NamedTuple):
    """What training has said by epoch; None and NaN: nothing."""

    epochs: Sequence[int]  # (E,)
    loss: Sequence[float | None]  # (E,)
    dev_eer: Sequence[float | None]  # (E,) fractions
    dev_min_tdcf: Sequence[float | None]  # (E,)


class DataSetPart(NamedTuple):
    """What a partition of a data set holds."""

    counts: tuple[int, int]  # bona fide, spoof
    seconds: tuple[np.ndarray, np.ndarray]  # of each file: bona fide (B,), spoof (S,)
    cues: Mapping[str, tuple[float, float, float]]  # EER of one cue alone and its interval: fractions


def det(curves: Curves, eer: Mapping[str, float]) -> "Figure":
    """Detection error trade-off on probit axes (Martin et al., Eurospeech 1997), EERs marked on the diagonal.

    What lies outside the axes (a rate of 0 has no place on them) is cut; an EER outside is marked at the near corner.
    """
    from scipy.special import ndtr, ndtri

    labels = [f"{name}: EER {_percent(eer[name])} %" for name in curves]
    figure, axes = _figure(WIDTH - 0.25, FAR, FRR)
    low, high, ticks = _det_axis([100 * eer[name] for name in curves])
    for set_scale in (axes.set_xscale, axes.set_yscale):
        set_scale("function", functions=(lambda percent: ndtri(percent / 100), lambda z: 100 * ndtr(z)))
    axes.set(xlim=(low, high), ylim=(low, high), xticks=ticks, yticks=ticks)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.plot([low, high], [low, high], color="0.6", linewidth=0.6)
    for index, (name, rates) in enumerate(curves.items()):
        # 0 and 1 are infinitely far and would break the line; a tenth of the lower limit is far enough outside.
        frr, far = (np.clip(100 * np.asarray(rate), low / 10, 100 - low / 10) for rate in rates)
        axes.plot(far, frr, **_stroke(index))
        point = np.clip(100 * eer[name], low, high)
        axes.plot([point], [point], **_stroke(index, marker=True), clip_on=False, zorder=5)
    _legend(figure, [_line(**_stroke(index, marker=True)) for index in range(len(labels))], labels)
    return figure


def roc(curves: Curves, auc: Mapping[str, float]) -> "Figure":
    """Receiver operating characteristic: bona fide accepted over spoof accepted, with an inset on a logarithmic axis.

    The inset lies below the diagonal; should a curve pass there, it becomes a second panel below.
    """
    labels = [f"{name}: AUC {auc[name]:.4f}" for name in curves]
    percent = [(100 * np.asarray(far), 100 - 100 * np.asarray(frr)) for frr, far in curves.values()]
    # Both rates rise together, so the inset's place is free if the curve is above its corner (46, 50).
    free = all(np.interp(46, np.sort(x), np.sort(y)) > 50 for x, y in percent)
    figure, axes = _figure((1 if free else 1.8) * (WIDTH - 0.25), FAR, ACCEPTED)
    if free:
        inset = axes.inset_axes([0.49, 0.13, 0.39, 0.36])
        _dress(inset, "", "")
        inset.yaxis.tick_right()  # on the left its numbers would stand on the diagonal
    else:
        axes.set_subplotspec(figure.add_gridspec(2, 1, height_ratios=(4, 3))[0])
        inset = figure.add_subplot(axes.get_gridspec()[1])
        _dress(inset, FAR, ACCEPTED)
    axes.set(xlim=(0, 100), ylim=(0, 100))
    axes.plot([0, 100], [0, 100], color="0.6", linewidth=0.6)
    for index, (x, y) in enumerate(percent):
        axes.plot(x, y, **_stroke(index))
        inset.plot(np.maximum(x, 1e-6), y, **_stroke(index))  # a rate of 0 has no logarithm
    lowest = min((np.interp(0.01, np.sort(x), np.sort(y)) for x, y in percent), default=0)
    inset.set(xscale="log", xlim=(0.01, 100), ylim=(min(10 * (lowest // 10), 90), 100), xticks=[0.01, 0.1, 1, 10, 100])
    inset.xaxis.set_major_formatter("{x:g}")
    inset.minorticks_off()
    _legend(figure, [_line(**_stroke(index)) for index in range(len(labels))], labels)
    return figure


def score_distributions(bonafide: np.ndarray, spoof: np.ndarray, threshold: float) -> "Figure":
    """Histograms of each class's scores, (trials,), each of area 1 over all its trials, with the threshold."""
    classes = [np.asarray(bonafide, float), np.asarray(spoof, float)]
    labels = [f"{name} (n = {scores.size:,})" for name, scores in zip(("bona fide", "spoof"), classes, strict=True)]
    figure, axes = _figure(2.2, SCORE, "Density (1 / unit of score)")
    low, high = _span(axes, classes, threshold)
    # An odd number of bins, so that a constant score stands in the middle of one.
    edges = np.linspace(low, high, 2 + 2 * int(np.clip(np.sqrt(sum(map(len, classes))) / 2, 10, 50)))
    handles = []
    for scores, look in zip(classes, CLASSES, strict=True):
        density = np.histogram(scores, edges)[0] / (max(scores.size, 1) * (edges[1] - edges[0]))
        handles.append(axes.stairs(density, edges, fill=True, linewidth=0.8, **look))
    axes.set(xlim=(low, high), ylim=(0, None))
    _threshold(axes.axvline, threshold, handles, labels)
    _legend(figure, handles, labels, columns=2)
    return figure


def attack_eer(systems: Mapping[str, Mapping[str, tuple[float, float | None, float | None]]]) -> "Figure":
    """EER of each attack as bars: `{system: {attack: (eer, low, high)}}`, fractions; None = no interval.

    An attack that a system lacks (or whose EER is NaN) is marked ×; the key "pooled" comes last, behind a rule.
    """
    attacks = list(dict.fromkeys(attack for results in systems.values() for attack in results))
    attacks.sort(key=lambda attack: attack == "pooled")
    rows = [[results.get(attack, (None, None, None)) for attack in attacks] for results in systems.values()]
    percent = 100 * np.array(rows, float).reshape(len(systems), len(attacks), 3)  # EER, low, high; None becomes NaN
    labels = [*systems, *(["no result"] if np.isnan(percent[:, :, 0]).any() else [])]
    figure, axes = _figure(_rows_height(len(attacks), 0.08 + 0.045 * len(systems)), "Equal error rate (%)", "")
    handles = [_bars(axes, bars, index, len(systems)) for index, bars in enumerate(percent)]
    if len(labels) > len(systems):
        handles.append(_line(**MISSING))
    room = 1.2 if len(systems) == 1 else 1.03  # for the numbers, which only a single system has
    axes.set(xlim=(0, room * (np.nan_to_num(percent).max(initial=0) or 1)))
    _name_rows(axes, attacks)
    if "pooled" in attacks[1:]:
        axes.axhline(len(attacks) - 1.5, color="black", linewidth=0.6)
    _legend(figure, handles, labels)
    return figure


def _bars(axes: "Axes", percent: np.ndarray, index: int, systems: int) -> "Artist":
    """Draw system `index` of `systems`: `percent` is (attacks, 3): EER, low, high, NaN = none; return a legend key."""
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
    # Centred on the interval, not on the EER: a bootstrap interval need not contain it.
    axes.errorbar(
        (low + high) / 2,
        rows,
        xerr=(high - low) / 2,
        fmt="none",
        ecolor="black",
        elinewidth=0.7,
        capsize=min(2, 30 * thickness / systems),
    )
    missing = np.isnan(eer)
    if missing.any():  # an empty line would still take part in the layout, at the figure's corner
        axes.plot(np.zeros(missing.sum()), rows[missing], **MISSING, clip_on=False)
    if systems == 1:
        for row, value, end in zip(rows, eer, np.fmax(eer, high), strict=True):
            if np.isfinite(value):
                axes.annotate(
                    _percent(value / 100), (end, row), (3, 0), textcoords="offset points", va="center", fontsize=SMALL
                )
    return _patch(**look)


def confusion(matrix: np.ndarray, threshold: float) -> "Figure":
    """Counts [[bona fide accepted, bona fide rejected], [spoof accepted, spoof rejected]], with percent of each row."""
    counts = np.asarray(matrix)
    share = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)  # an absent class has no shares, not NaN
    figure, axes = _figure(2.0, "", "")
    axes.imshow(share, cmap="Blues", vmin=0, vmax=180, aspect="auto")  # 180: the darkest blue still carries black text
    for (row, column), count in np.ndenumerate(counts):
        percent = f"{share[row, column]:.2f} %" if counts[row].any() else "no trials"
        axes.text(column, row, f"{count:,}\n{percent}", ha="center", va="center", fontsize=TEXT)
    axes.set_xticks([0, 1], ["accepted as bona fide", "rejected as spoof"])
    axes.set_yticks([0, 1], ["bona fide", "spoof"])
    axes.tick_params(length=0)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.set_title(f"Trials (and % of the row) at threshold {threshold:.4g}", fontsize=SMALL)
    return figure


def score_scatter(scores: np.ndarray, is_bonafide: np.ndarray, threshold: float) -> "Figure":
    """Score of each trial (trials,) in the order given; the points are one image in a PDF (71,237 for LA eval)."""
    scores, is_bonafide = np.asarray(scores, float), np.asarray(is_bonafide, bool)
    figure, axes = _figure(2.6, "Trial index", SCORE)
    few = scores.size < 2000
    handles, labels = [], []
    classes = (("spoof", SPOOF, "x", ~is_bonafide), ("bona fide", BONAFIDE, "o", is_bonafide))  # the rarer on top
    for name, colour, marker, chosen in classes:
        look = {"color": colour, "marker": marker, "linestyle": "none", "markeredgewidth": 0.6 if few else 0.3}
        axes.plot(np.flatnonzero(chosen), scores[chosen], markersize=3 if few else 1.2, rasterized=True, **look)
        handles.append(_line(markersize=4, **look))
        labels.append(f"{name} (n = {chosen.sum():,})")
    axes.set(ylim=_span(axes, [scores[is_bonafide], scores[~is_bonafide]], threshold))
    axes.xaxis.set_major_locator(_whole_numbers())
    _threshold(axes.axhline, threshold, handles, labels)
    _legend(figure, handles, labels, columns=2)
    return figure


def score_boxes(groups: Mapping[str, np.ndarray], threshold: float) -> "Figure":
    """Boxes of scores (trials,) by attack, the first group "bona fide": quartiles, whiskers to 1.5 quartile ranges."""
    values = [np.asarray(scores, float) for scores in groups.values()]
    figure, axes = _figure(_rows_height(len(groups), 0), SCORE, "")
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
        box.set_facecolor(SPOOF if index else BONAFIDE)
    axes.set(xlim=_span(axes, values, threshold))
    _name_rows(axes, list(groups))
    handles, labels = [_patch(color=BONAFIDE), _patch(color=SPOOF)], ["bona fide", "spoof"]
    _threshold(axes.axvline, threshold, handles, labels)
    _legend(figure, handles, labels, columns=2)
    return figure


def training_curves(runs: Mapping[str, History]) -> "Figure":
    """Training loss, dev EER and, where there is any, dev min t-DCF by epoch of each named run.

    The best epoch of each dev measure (of equal ones the later, as training keeps it) is marked, and named in the
    panel's title for a single run; a legend names several runs with their best dev EER. An axis is logarithmic where
    values above 0 differ more than tenfold, and says so.
    """
    panels = {"Training loss": [], "Dev EER (%)": [], "Dev min t-DCF": []}
    for run in runs.values():
        for values, scale, given in zip(panels.values(), (1, 100, 1), run[1:], strict=True):
            values.append(scale * np.array(given, float))
    if not any(np.isfinite(values).any() for values in panels["Dev min t-DCF"]):
        del panels["Dev min t-DCF"]
    figure, first = _figure(0.4 + 1.15 * len(panels), "", "")
    first.remove()
    all_axes = figure.subplots(len(panels), sharex=True)
    for axes, (label, values) in zip(all_axes, panels.items(), strict=True):
        _dress(axes, "Epoch" if axes is all_axes[-1] else "", label)
        _by_epoch(axes, runs, values, mark_best=label != "Training loss")
    if len(runs) > 1:
        handles = [_line(**_stroke(index, marker=True)) for index in range(len(runs))]
        _legend(figure, handles, [_best_eer(name, run) for name, run in runs.items()])
    figure.align_ylabels()
    return figure


def _by_epoch(axes: "Axes", runs: Mapping[str, History], series: Sequence[np.ndarray], mark_best: bool) -> None:
    """One panel of `training_curves`: the runs' values, each (E,)."""
    axes.xaxis.set_major_locator(_whole_numbers())
    axes.margins(0.03, 0.12)  # room for the marks
    for index, (run, values) in enumerate(zip(runs.values(), series, strict=True)):
        points = {"marker": "."} if len(values) < 40 else {}
        axes.plot(run.epochs, values, **_stroke(index) | {"linewidth": 0.8}, **points, markersize=3)
        best = _best(values)
        if not mark_best or best is None:
            continue
        axes.plot(run.epochs[best], values[best], **_stroke(index, marker=True), clip_on=False, zorder=3)
        if len(runs) == 1:
            title = f"best: {values[best]:.4g} at epoch {run.epochs[best]}"
            axes.set_title(title, fontsize=SMALL, loc="right", pad=3)
    _maybe_logarithmic(axes, np.concatenate(series) if series else np.empty(0))


def _best(values: np.ndarray) -> int | None:
    """Index of the lowest of `values` (E,), of equal ones the last; None where all are NaN."""
    return len(values) - 1 - int(np.nanargmin(values[::-1])) if np.isfinite(values).any() else None


def _best_eer(name: str, run: History) -> str:
    eer = 100 * np.array(run.dev_eer, float)
    best = _best(eer)
    found = "no dev EER yet" if best is None else f"EER {eer[best]:.3f} % at {run.epochs[best]}"
    return f"{_short(name, 22)}: {found}"


def _maybe_logarithmic(axes: "Axes", values: np.ndarray) -> None:
    """A logarithmic y axis where the late epochs' differences would else vanish beside the first ones'."""
    from matplotlib.ticker import LogLocator

    values = values[np.isfinite(values)]
    if values.size and values.min() > 0 and values.max() > 10 * values.min():
        wide = values.max() > 500 * values.min()
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.set_ylabel(f"{axes.get_ylabel()}, log", fontsize=TEXT)


def seeds(panels: Mapping[str, Sequence[Spread]]) -> "Figure":
    """A dot for each seed over their mean and its interval: `{axis label: spreads}`, dev above eval by checkpoint."""
    names = list(dict.fromkeys(spread.checkpoint for spreads in panels.values() for spread in spreads))
    figure, first = _figure(len(panels) * (0.42 + 0.6 * max(len(names), 1)), "", "")
    first.remove()
    for axes, (label, spreads) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels.items(), strict=True):
        _dress(axes, label, "")
        for spread in spreads:
            _spread(axes, spread, names.index(spread.checkpoint) + (0.24 if spread.partition == "eval" else -0.24))
        for row in range(1, len(names)):
            axes.axhline(row - 0.5, color="0.9", linewidth=0.5)
        axes.set_xlim(left=max(0, axes.get_xlim()[0]))  # an interval is symmetric and may pass 0; an error rate cannot
        _name_rows(axes, names)
    handles = [_line(**look) for look in PARTITIONS.values()] + [_line(color="black", marker="|", linewidth=0.9)]
    _legend(figure, handles, ["dev, each seed", "eval, each seed", "mean and its 95 % interval"], columns=2)
    return figure


def _spread(axes: "Axes", spread: Spread, row: float) -> None:
    """The seeds' dots in two lines, so that near ones can be told apart; below them the mean."""
    heights = row - np.resize([0.14, 0.04], len(spread.values))
    axes.plot(np.sort(spread.values), heights, **PARTITIONS[spread.partition], clip_on=False)
    low, high = spread.interval or (spread.mean, spread.mean)
    axes.errorbar((low + high) / 2, row + 0.1, xerr=(high - low) / 2, fmt="none", ecolor="black", elinewidth=0.9)
    axes.plot(spread.mean, row + 0.1, "|", color="black", markersize=6, markeredgewidth=1.2)


def data_set_report(partitions: Mapping[str, DataSetPart], telling: float) -> "Figure":
    """Of each partition the durations by class; beside them the EER of each cue: 0.5 tells nothing.

    A cue whose whole interval lies below `telling` (shaded) gives the key away: its mark is filled.
    """
    from matplotlib.figure import Figure

    cues = list(dict.fromkeys(name for part in partitions.values() for name in part.cues))
    rows = max(len(partitions), 1)
    figure = Figure(figsize=(TWO_COLUMNS, max(1.1 * rows + 0.4, 0.25 * len(cues) + 0.5)), dpi=200, layout="constrained")
    figure.get_layout_engine().set(wspace=0.04)
    grid = figure.add_gridspec(rows, 2, width_ratios=(1, 1.3))
    panels = [figure.add_subplot(grid[row, 0]) for row in range(len(partitions))]
    _durations(panels, partitions)
    axes = figure.add_subplot(grid[:, 1])
    tells = "50 tells nothing" if cues else "needs both classes"
    _dress(axes, f"EER of one cue alone (%): {tells}", "")
    looks = [{"color": COLOURS[-1 - index % 5], "marker": MARKERS[index % 8]} for index in range(len(partitions))]
    for index, (part, look) in enumerate(zip(partitions.values(), looks, strict=True)):
        shift = min(0.24, 0.8 / len(partitions)) * (index - (len(partitions) - 1) / 2)
        _cue_dots(axes, [part.cues.get(cue) for cue in cues], shift, telling, DOT | look)
    axes.axvspan(0, 100 * telling, color="0.95", linewidth=0, zorder=0)
    axes.axvline(50, color="black", linewidth=0.9)
    axes.set(xlim=(0, 52))
    _name_rows(axes, cues)
    handles = [_patch(**look) for look in CLASSES] + [_line(**DOT | look | {"linestyle": "-"}) for look in looks]
    filled = _line(**DOT, color="black", marker="o")
    labels = ["bona fide", "spoof", *(_short(name, 12) for name in partitions), "filled: gives the key away"]
    _legend(figure, [*handles, filled], labels, columns=6 if len(labels) < 7 else 5)
    return figure


def _durations(panels: Sequence["Axes"], partitions: Mapping[str, DataSetPart]) -> None:
    """Histograms of both classes on one axis; far longer files than the rest stand in the last bin."""
    every = np.sort([value for part in partitions.values() for seconds in part.seconds for value in seconds])
    end = _near(every)[1] if every.size else 1.0
    label = "Duration (s)" if not every.size or every[-1] <= end else "Duration (s), longer ones in the last bin"
    for axes, (name, part) in zip(panels, partitions.items(), strict=True):
        _dress(axes, label if axes is panels[-1] else "", "Files")
        edges = np.linspace(0, end, 1 + int(np.clip(2 * np.sqrt(sum(map(len, part.seconds))), 10, 40)))
        for seconds, look in zip(part.seconds, CLASSES, strict=True):
            axes.stairs(np.histogram(np.minimum(seconds, end), edges)[0], edges, fill=True, linewidth=0.8, **look)
        axes.set(xlim=(0, end), ylim=(0, None))
        axes.yaxis.set_major_locator(_whole_numbers())
        bonafide, spoof = part.counts
        title = f"{_plain(_short(name, 16))}: {bonafide:,} bona fide, {spoof:,} spoof"
        axes.set_title(title, fontsize=SMALL, loc="left", pad=3)


def _cue_dots(
    axes: "Axes", cues: Sequence[tuple[float, float, float] | None], shift: float, telling: float, look: dict
) -> None:
    """A partition's EERs and intervals, `shift` below each cue's row."""
    for row, cue in enumerate(cues):
        if cue is not None:
            eer, low, high = (100 * value for value in cue)
            axes.plot([low, high], [row + shift] * 2, color=look["color"], linewidth=0.9)
            face = {} if high < 100 * telling else {"markerfacecolor": "white"}
            axes.plot([eer], [row + shift], **look | {"markeredgecolor": look["color"], "markeredgewidth": 0.8} | face)


def recording(
    samples: np.ndarray | None,
    rate: int,
    timeline: Timeline,
    threshold: float | None,
    regions: Regions,
    verdict_lines: Sequence[tuple[str, str]],
    saliency: Any = None,
) -> "Figure":
    """One scored recording over time: the verdict in words, waveform, mel spectrogram and the chunks' scores.

    samples: mono (N,) at `rate` Hz, or None (then no waveform and no spectrogram). Suspicious `regions` are shaded and
    bracketed. verdict_lines: (label, text), drawn letter for letter. saliency: an `explain.Saliency` of the chunk with
    the lowest score, drawn in a panel of its own.
    """
    from matplotlib.figure import Figure

    heights = {"waveform": 0.95, "spectrogram": 1.4} if samples is not None else {}
    heights |= {"scores": 2.0} | ({"saliency": 1.9} if saliency is not None else {})
    figure = Figure(figsize=(TWO_COLUMNS, sum(heights.values())), dpi=200, layout="constrained")
    _words(figure, verdict_lines)
    panels = figure.subplots(len(heights), height_ratios=list(heights.values()), squeeze=False)[:, 0]
    axes = dict(zip(heights, panels, strict=True))
    seconds = float(np.max(timeline.ends)) if samples is None else len(samples) / rate
    if samples is not None:
        _waveform(axes["waveform"], samples, rate)
        _label_regions(axes["waveform"], regions, seconds)
        _spectrogram(axes["spectrogram"], samples, rate)
    _chunk_scores(axes["scores"], timeline, threshold, bool(regions))
    if saliency is not None:
        _saliency(axes.pop("saliency"), saliency, seconds)
    for name, panel in axes.items():
        _time_axis(panel, seconds, last=name == "scores")
        if regions:
            _mark_regions(panel, regions)
    figure.align_ylabels(panels)
    return figure


def augmentation_gallery(panels: Mapping[str, np.ndarray], rate: int) -> "Figure":
    """Spectrograms in decibels of several versions (n,) of an utterance, by title; the first is the original.

    All have the same axes and scale of level: 80 dB down from the loudest point of the original, in 16 colours, as each
    further one makes the file larger.
    """
    import matplotlib
    from matplotlib.figure import Figure

    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(TWO_COLUMNS, 0.55 + 1.35 * rows), dpi=200, layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    spectra = [_power_spectra(samples, rate) for samples in panels.values()]
    loudest = spectra[0].max() or 1.0
    for axes, title, spectrum in zip(grid.flat, panels, spectra, strict=False):
        _dress(axes, "", "")
        axes.set_title(_plain(_short(title, 34)), fontsize=SMALL, loc="left", pad=3)
        axes.set_facecolor("0.85")  # behind the end of a shorter version
        axes.grid(False)
        decibel = 10 * np.log10(np.maximum(spectrum / loudest, 1e-8))
        extent = (0, len(panels[title]) / rate, 0, rate / 2000)
        look = {"cmap": matplotlib.colormaps["magma"].resampled(16), "vmin": -80, "vmax": 0, "interpolation": "none"}
        image = axes.imshow(decibel, extent=extent, origin="lower", aspect="auto", **look)
    seconds = max(map(len, panels.values())) / rate
    grid[0, 0].set(xlim=(0, seconds), ylim=(0, rate / 2000))
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes in grid.flat[max(0, len(panels) - columns) : len(panels)]:
        axes.tick_params(axis="x", labelbottom=True)
    figure.supxlabel("Time (s)", fontsize=TEXT)
    figure.supylabel("Frequency (kHz)", fontsize=TEXT)
    bar = figure.colorbar(image, ax=grid, aspect=60, shrink=0.6, pad=0.012)
    bar.set_label("Level (dB, relative to the original's loudest point)", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL, width=0.6, length=2.5)
    bar.outline.set_linewidth(0.6)
    return figure


def _power_spectra(samples: np.ndarray, rate: int) -> np.ndarray:
    """(frequencies, frames) of Hann windows of 32 ms, 8 ms apart, each with its middle at its frame's."""
    taps, hop = round(0.032 * rate), round(0.008 * rate)
    padded = np.pad(samples, ((taps - hop) // 2, taps))
    frames = np.lib.stride_tricks.sliding_window_view(padded, taps)[: max(1, len(samples)) : hop]
    return np.abs(np.fft.rfft(frames * np.hanning(taps), axis=1)).T ** 2


def _words(figure: "Figure", verdict_lines: Sequence[tuple[str, str]]) -> None:
    """Labels and texts in two columns at the top of the figure, which grows by them; the first text is bold."""
    rows = [(label if i == 0 else "", line) for label, text in verdict_lines for i, line in enumerate(_drawable(text))]
    room = LINE * len(rows) + 0.1
    height = figure.get_figheight() + room
    figure.set_figheight(height)
    figure.get_layout_engine().set(rect=(0, 0, 1, 1 - room / height))
    look = {"fontsize": SMALL, "parse_math": False, "in_layout": False}
    for row, (label, line) in enumerate(rows, 1):
        figure.text(0.06 / TWO_COLUMNS, 1 - LINE * row / height, label, color="0.35", **look)
        figure.text(0.8 / TWO_COLUMNS, 1 - LINE * row / height, line, weight="bold" if row == 1 else "normal", **look)


def _waveform(axes: "Axes", samples: np.ndarray, rate: int) -> None:
    """The lowest and highest sample of each of at most `PIXELS` columns: an hour draws as fast as a second."""
    _dress(axes, "", "Amplitude")
    edges = np.unique(np.linspace(0, len(samples), PIXELS, endpoint=False).astype(int))
    low, high = np.minimum.reduceat(samples, edges), np.maximum.reduceat(samples, edges)
    axes.fill_between(edges / rate, low, high, color="0.3", linewidth=0.4, step="post", rasterized=True)
    peak = 1.1 * max(-low.min(), high.max()) or 1
    axes.set(ylim=(-peak, peak))


def _spectrogram(axes: "Axes", samples: np.ndarray, rate: int) -> None:
    """Mel power over 80 dB up to the loudest point: 64 bands, windows of 32 ms, of each column the loudest."""
    import librosa

    _dress(axes, "", "")
    taps, highest = round(0.032 * rate), min(HIGHEST, rate / 2)
    hop = int(np.clip(len(samples) // PIXELS, rate // 100, taps))  # any wider, windows would leave samples out
    frames = -(-len(samples) // hop)
    together = -(-frames // PIXELS)  # frames in a column
    padded = np.pad(samples, ((taps - hop) // 2, taps))  # so that each window's middle is its hop's
    columns = []
    for first in range(0, frames, 100 * together):  # an hour in one piece would need half a gigabyte
        last = min(first + 100 * together, frames)
        piece = padded[first * hop : (last - 1) * hop + taps]
        power = librosa.feature.melspectrogram(
            y=piece, sr=rate, n_fft=taps, hop_length=hop, center=False, n_mels=64, fmax=highest, htk=True
        )
        columns.append(np.maximum.reduceat(power, np.arange(0, last - first, together), axis=1))
    decibel = librosa.power_to_db(np.hstack(columns), ref=np.max)
    extent = (0, decibel.shape[1] * together * hop / rate, 0, _mel(highest))
    axes.imshow(decibel, cmap="Greys", origin="lower", aspect="auto", extent=extent)
    _frequency_axis(axes)


def _chunk_scores(axes: "Axes", timeline: Timeline, threshold: float | None, regions: bool) -> None:
    """A line over each chunk's time at its score; chunks that are rejected or have no score look different."""
    _dress(axes, "", "Chunk score\n(higher = more bona fide)")
    starts, ends, scores = (np.asarray(values, float) for values in timeline)
    scored = np.isfinite(scores)
    low = scored & (scores <= threshold) if threshold is not None else np.zeros_like(scored)
    kinds = [("chunk", BONAFIDE, "o", scored)]
    if threshold is not None:
        kinds = [("above the threshold", BONAFIDE, "o", scored & ~low), ("at or below it", REJECTED, "X", low)]
    middles, size = (starts + ends) / 2, np.clip(300 / len(scores), 2, 5)
    handles, labels = [], []
    for name, colour, marker, chosen in kinds:
        look = {"color": colour, "marker": marker, "markeredgewidth": 0, "rasterized": True}  # a day has 21,000
        axes.hlines(scores[chosen], starts[chosen], ends[chosen], color=colour, linewidth=1.2, rasterized=True)
        axes.plot(middles[chosen], scores[chosen], linestyle="none", markersize=size + (marker == "X"), **look)
        handles.append(_line(linewidth=1.2, markersize=5, **look))
        labels.append(name)
    if not scored.all():
        look = {"color": "0.6", "linewidth": 3}
        silent = np.full(np.sum(~scored), 0.04), starts[~scored], ends[~scored]
        axes.hlines(*silent, transform=axes.get_xaxis_transform(), **look)
        handles.append(_line(**look))
        labels.append("silent: no score")
    _score_limits(axes, [*scores[scored], *([threshold] if threshold is not None else [])])
    if threshold is not None:
        _threshold(axes.axhline, threshold, handles, labels)
    if regions:
        handles.append(_patch(facecolor=SHADE, edgecolor="black", linewidth=0.6))
        labels.append("suspicious region")
    _legend_above(axes, handles, labels)


def _legend_above(axes: "Axes", handles: Sequence["Artist"], labels: Sequence[str]) -> None:
    """One line, right above `axes` and a region's brackets."""
    place = {"loc": "lower right", "bbox_to_anchor": (1, 1.04), "ncols": len(labels), "borderaxespad": 0.1}
    axes.legend(handles, labels, fontsize=SMALL, frameon=False, handlelength=1.8, columnspacing=1.2, **place)


def _score_limits(axes: "Axes", shown: Sequence[float]) -> None:
    """All of them, for the one far score may be what matters here; with no score at all, no numbers."""
    finite = [score for score in shown if np.isfinite(score)]
    low, high = min(finite, default=0), max(finite, default=0)
    margin = 0.12 * (high - low) or 1
    axes.set(ylim=(low - margin, high + margin))
    if not finite:
        axes.set_yticks([])


def _mark_regions(axes: "Axes", regions: Regions) -> None:
    """A shade, over an image and under lines; and, for those who cannot see it, a bracket above."""
    place = {"transform": axes.get_xaxis_transform()}
    spans = [(start, end - start) for start, end, _ in regions]
    axes.broken_barh(spans, (0, 1), facecolor=SHADE, linewidth=0, zorder=0.5, **place)
    times = [time for start, end, _ in regions for time in (start, start, end, end, np.nan)]
    heights = [1.01, 1.04, 1.04, 1.01, np.nan] * len(regions)
    axes.plot(times, heights, color="black", linewidth=0.9, clip_on=False, **place)


def _label_regions(axes: "Axes", regions: Regions, seconds: float) -> None:
    """Each region's score over its bracket, where the one before leaves room."""
    free = 0.0
    for start, end, score in sorted(regions):
        middle = (start + end) / 2
        if middle >= free:
            place = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points", "ha": "center"}
            axes.annotate(f"{score:.2f}".replace("-", "−"), (middle, 1.04), (0, 2), fontsize=SMALL, **place)
            free = middle + 0.08 * seconds


def _saliency(axes: "Axes", saliency: Any, seconds: float) -> None:
    """Weights over the chunk's own time, up to the end of a recording of `seconds`: a short one was repeated."""
    from matplotlib.colors import PowerNorm

    begin = f"{saliency.start:.2f} s" if seconds < CLOCK else str(timedelta(seconds=int(saliency.start)))
    _dress(axes, "Time in the chunk (s)", "")
    title = f"What the lowest-scored chunk's score rests on (chunk from {begin}; light = more)"
    axes.set_title(title, fontsize=SMALL, loc="left", pad=3)
    columns = saliency.weight.shape[1]
    middles = (np.arange(columns) + 0.5) * saliency.seconds / columns
    look = {"cmap": "magma", "norm": PowerNorm(0.5, 0, 1), "rasterized": True}  # or all but the peaks would be black
    mesh = axes.pcolormesh(middles, _mel(saliency.frequencies), saliency.weight, **look)
    axes.set_facecolor(mesh.cmap(0.0))  # below the lowest band
    axes.set_xlim(0, min(saliency.seconds, seconds - saliency.start))
    _frequency_axis(axes)


def _frequency_axis(axes: "Axes") -> None:
    """0–8 kHz, spaced as mel."""
    kilohertz = (0, 0.5, 1, 2, 4, 8)
    axes.set_yticks([_mel(1000 * tick) for tick in kilohertz], [f"{tick:g}" for tick in kilohertz])
    axes.set_ylim(0, _mel(HIGHEST))
    axes.set_ylabel("Frequency\n(kHz)", fontsize=TEXT)
    axes.grid(False)


def _time_axis(axes: "Axes", seconds: float, last: bool) -> None:
    """0 to `seconds`: in min:s from two minutes on, in h:min from an hour on. Only the `last` panel has numbers."""
    unit = "s"
    if seconds >= CLOCK:
        steps = (20, 30, 60, 120, 300, 600, 1200, 1800)
        step = next((step for step in steps if seconds <= 10 * step), 3600 * -(-seconds // 36_000))
        small, unit = (1, "min:s") if seconds < 3600 else (60, "h:min")
        axes.set_xticks(np.arange(0, seconds + 1, step))
        axes.xaxis.set_major_formatter(lambda time, _: f"{time // (60 * small):.0f}:{time // small % 60:02.0f}")
    axes.set_xlim(0, seconds)
    axes.tick_params(axis="x", labelbottom=last)
    axes.set_xlabel(f"Time ({unit})" if last else "", fontsize=TEXT)


def _mel(hertz: float | np.ndarray) -> float | np.ndarray:
    return 2595 * np.log10(1 + hertz / 700)  # as librosa's htk=True and the models' filter banks


def robustness(curves: Mapping[str, Mapping[str, float]]) -> "Figure":
    """The EER (%) of each system under each condition: `{system: {condition: EER}}`, a row for a condition.

    A line at 50 % is where guessing gets.
    """
    conditions = list(next(iter(curves.values())))
    figure, axes = _figure(0.7 + 0.19 * len(conditions), "EER (%)", "")
    rows = np.arange(len(conditions))
    handles = []
    for index, curve in enumerate(curves.values()):
        look = DOT | {"color": COLOURS[index], "marker": MARKERS[index]}
        axes.plot([curve[name] for name in conditions], rows, **look, clip_on=False)
        handles.append(_line(**look))
    ends = np.array([[curve[name] for curve in curves.values()] for name in conditions])
    axes.hlines(rows, ends.min(axis=1), ends.max(axis=1), color="0.7", linewidth=0.8, zorder=0)
    axes.axvline(50, color="0.4", linewidth=0.8, linestyle=(0, (4, 2)))
    axes.set_xlim(0, max(55, float(ends.max()) + 3))
    _name_rows(axes, conditions)
    _legend(figure, [*handles, _line(color="0.4", linestyle=(0, (4, 2)))], [*curves, "guessing"], columns=3)
    return figure


def save(figure: "Figure", stem: Path, formats: Sequence[str] = ("png", "pdf")) -> list[Path]:
    """Write `<stem>.<format>` for each format, whole or not at all; the same figure gives the same bytes.

    PNG has 300 dots per inch; PDF embeds TrueType fonts (type 42), as publishers ask. Raises UserError.
    """
    import matplotlib

    undated = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
    settings = {"pdf.fonttype": 42, "ps.fonttype": 42, "svg.hashsalt": "plots"}
    paths = [Path(stem).with_name(f"{Path(stem).name}.{kind}") for kind in formats]  # a stem may have dots of its own
    for kind, path in zip(formats, paths, strict=True):
        with replacing(path) as temporary, _saving, matplotlib.rc_context(settings):
            figure.savefig(temporary, format=kind, dpi=300, metadata=undated.get(kind))
    return paths


def _figure(height: float, xlabel: str, ylabel: str) -> tuple["Figure", "Axes"]:
    """A one-column figure, `height` inches high until it gets a legend, with dressed axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), dpi=200, layout="constrained")
    axes = figure.add_subplot()
    _dress(axes, xlabel, ylabel)
    return figure, axes


def _dress(axes: "Axes", xlabel: str, ylabel: str) -> None:
    axes.set_xlabel(xlabel, fontsize=TEXT)
    axes.set_ylabel(ylabel, fontsize=TEXT)
    axes.tick_params(which="both", labelsize=SMALL, width=0.6, length=2.5)
    axes.grid(color="0.9", linewidth=0.5)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_linewidth(0.6)
        spine.set_visible(side in ("left", "bottom"))


def _legend(figure: "Figure", handles: Sequence["Artist"], labels: Sequence[str], columns: int = 1) -> None:
    """A legend above the axes, where it covers no data; the figure grows by its lines."""
    wrapped = [textwrap.fill(_plain(label), 44) for label in labels]
    lines = sum(label.count("\n") + 1 for label in wrapped)
    figure.set_figheight(figure.get_figheight() + LINE * -(-lines // columns) + 0.08)
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


def _line(**look) -> "Artist":
    from matplotlib.lines import Line2D

    return Line2D([], [], **look)


def _patch(**look) -> "Artist":
    from matplotlib.patches import Patch

    return Patch(**look)


def _stroke(index: int, marker: bool = False) -> dict:
    """How curve `index` looks; with `marker` also the point on it."""
    look = {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index % len(DASHES)], "linewidth": 1.1}
    if marker:
        look |= {
            "marker": MARKERS[index % len(MARKERS)],
            "markersize": 5,
            "markeredgecolor": "black",
            "markeredgewidth": 0.5,
        }
    return look


def _threshold(draw_line: Callable, threshold: float, handles: list, labels: list) -> None:
    """Draw the threshold with `draw_line` and add it to the legend; one that accepts all or none has no place."""
    look = {"color": "black", "linestyle": (0, (4, 2)), "linewidth": 0.9}
    if np.isfinite(threshold):
        draw_line(threshold, **look)
    handles.append(_line(**look))
    labels.append(f"threshold {threshold:.4g}" + ("" if np.isfinite(threshold) else " (not drawn)"))


def _span(axes: "Axes", groups: Collection[np.ndarray], threshold: float) -> tuple[float, float]:
    """Axis limits that show every group's scores and the threshold; far outliers are left out and counted on `axes`."""
    ends = [threshold] if np.isfinite(threshold) else []
    for scores in groups:
        finite = np.sort(scores[np.isfinite(scores)])
        if finite.size:
            ends += _near(finite)
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    margin = 0.03 * (high - low) or max(0.5, 0.01 * abs(high))
    low, high = float(low - margin), float(high + margin)
    outside = sum(int(np.sum(~((scores >= low) & (scores <= high)))) for scores in groups)
    if outside:
        axes.set_title(f"{outside:,} of {sum(map(len, groups)):,} trials outside the axis", fontsize=SMALL, loc="right")
    return low, high


def _near(ordered: np.ndarray) -> list[float]:
    """The ends of `ordered` scores; nearer ones if those would squeeze the middle 99 % into a twentieth of the axis."""
    quartiles = np.quantile(ordered, [0.25, 0.75])  # for a handful of scores, whose 99 % is all or next to nothing
    low = min(np.quantile(ordered, 0.005, method="higher"), quartiles[0])
    high = max(np.quantile(ordered, 0.995, method="lower"), quartiles[1])
    if ordered[-1] - ordered[0] > 20 * (high - low) > 0:
        return [max(ordered[0], low - 0.3 * (high - low)), min(ordered[-1], high + 0.3 * (high - low))]
    return [ordered[0], ordered[-1]]


def _det_axis(eers: Sequence[float]) -> tuple[float, float, list[float]]:
    """Limits and ticks in percent for both DET axes, wide enough for EERs in percent."""
    from scipy.special import ndtri

    known = [eer for eer in eers if eer > 0]
    low = next((limit for limit in (0.1, 0.01) if limit <= min(known, default=1) / 10), 0.001)
    high = 50.0 if max(known, default=0) <= 25 else 99.0
    ticks = [low]
    for tick in (0.01, 0.1, 1, 2, 5, 10, 20, 40, 60, 80, 90, 95, 99):
        z = ndtri(np.array([ticks[-1], tick, low, high]) / 100)
        if tick <= high and z[1] - z[0] > 0.095 * (z[3] - z[2]):
            ticks.append(tick)
    return low, high, ticks


def _rows_height(rows: int, row: float) -> float:
    """Inches for `rows` named rows of `row` inches: never so low that names touch, otherwise at most a page."""
    return 0.5 + max(min(8.5, rows * max(row, 0.17)), rows * LINE, 0.3)


def _name_rows(axes: "Axes", names: Sequence[str]) -> None:
    """Put `names` beside rows 0, 1, … from the top down; long ones lose their middle."""
    axes.set_yticks(range(len(names)), [_plain(_short(name, 24)) for name in names])
    axes.set(ylim=(len(names) - 0.4, -0.6))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)


def _whole_numbers() -> "Locator":
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)


def _short(text: str, length: int) -> str:
    """`text` without its middle if it is longer than `length`."""
    return text if len(text) <= length else f"{text[: length // 2]}…{text[len(text) - (length - 1) // 2 :]}"


def _drawable(text: str) -> list[str]:
    """`text` in lines of at most 86 characters, with � for what the font lacks: a file may have any name."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    fonts = [get_font(findfont(FontProperties(weight=weight))).get_charmap() for weight in ("normal", "bold")]
    known = "".join(sign if all(ord(sign) in font for font in fonts) else "�" for sign in " ".join(text.split()))
    return textwrap.wrap(" ".join(_short(word, 48) for word in _short(known, 250).split()), 86) or [""]


def _plain(name: str) -> str:
    """`name` as matplotlib shows it letter for letter: no mathematics between dollars."""
    return name.replace("$", r"\$")


def _percent(fraction: float) -> str:
    percent = 100 * fraction
    return f"{percent:.2g}" if 0 < percent < 0.01 else f"{percent:.2f}"
