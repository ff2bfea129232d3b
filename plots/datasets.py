"""Figures of audio data: durations and cues of a data set, and one utterance under each augmentation."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from plots.style import (
    CLASS_LOOKS,
    COLOURS,
    DOT,
    MARKERS,
    SMALL,
    TEXT,
    TWO_COLUMNS,
    add_legend,
    inner_range,
    line_handle,
    literal,
    name_rows,
    patch_handle,
    shorten,
    style_axes,
    whole_numbers,
)

if TYPE_CHECKING:  # matplotlib is slow to import, so functions import it
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.figure import Figure


class PartitionSummary(NamedTuple):
    """The files of a partition, and what gives their keys away."""

    counts: tuple[int, int]  # files: bona fide, spoof
    seconds: tuple[np.ndarray, np.ndarray]  # durations: bona fide (B,), spoof (S,)
    cues: Mapping[str, tuple[float, float, float]]  # cue → EER of this cue alone, and its interval: fractions


def data_set_report(partitions: Mapping[str, PartitionSummary], telling: float) -> "Figure":
    """Durations of each partition by class; beside them the EER of each cue alone (50 % = no information).

    A cue whose whole interval is below `telling` (shaded) gives the key away: its mark is filled.
    """
    from matplotlib.figure import Figure

    cues = list(dict.fromkeys(name for summary in partitions.values() for name in summary.cues))
    rows = max(len(partitions), 1)
    figure = Figure(figsize=(TWO_COLUMNS, max(1.1 * rows + 0.4, 0.25 * len(cues) + 0.5)), dpi=200, layout="constrained")
    figure.get_layout_engine().set(wspace=0.04)
    grid = figure.add_gridspec(rows, 2, width_ratios=(1, 1.3))
    panels = [figure.add_subplot(grid[row, 0]) for row in range(len(partitions))]
    _durations(panels, partitions)
    axes = figure.add_subplot(grid[:, 1])
    note = "50 tells nothing" if cues else "needs both classes"
    style_axes(axes, f"EER of one cue alone (%): {note}", "")
    looks = [{"color": COLOURS[-1 - index % 5], "marker": MARKERS[index % 8]} for index in range(len(partitions))]
    for index, (summary, look) in enumerate(zip(partitions.values(), looks, strict=True)):
        shift = min(0.24, 0.8 / len(partitions)) * (index - (len(partitions) - 1) / 2)
        _cue_dots(axes, [summary.cues.get(cue) for cue in cues], shift, telling, DOT | look)
    axes.axvspan(0, 100 * telling, color="0.95", linewidth=0, zorder=0)
    axes.axvline(50, color="black", linewidth=0.9)
    axes.set(xlim=(0, 52))
    name_rows(axes, cues)
    handles = [patch_handle(**look) for look in CLASS_LOOKS]
    handles += [line_handle(**DOT | look | {"linestyle": "-"}) for look in looks]
    filled = line_handle(**DOT, color="black", marker="o")
    labels = ["bona fide", "spoof", *(shorten(name, 12) for name in partitions), "filled: gives the key away"]
    add_legend(figure, [*handles, filled], labels, columns=6 if len(labels) < 7 else 5)
    return figure


def _durations(panels: Sequence["Axes"], partitions: Mapping[str, PartitionSummary]) -> None:
    """Histograms of both classes on one axis; files that are far longer than the rest are in the last bin."""
    every = np.sort([value for summary in partitions.values() for seconds in summary.seconds for value in seconds])
    end = inner_range(every)[1] if every.size else 1.0
    label = "Duration (s)" if not every.size or every[-1] <= end else "Duration (s), longer ones in the last bin"
    for axes, (name, summary) in zip(panels, partitions.items(), strict=True):
        style_axes(axes, label if axes is panels[-1] else "", "Files")
        edges = np.linspace(0, end, 1 + int(np.clip(2 * np.sqrt(sum(map(len, summary.seconds))), 10, 40)))
        for seconds, look in zip(summary.seconds, CLASS_LOOKS, strict=True):
            axes.stairs(np.histogram(np.minimum(seconds, end), edges)[0], edges, fill=True, linewidth=0.8, **look)
        axes.set(xlim=(0, end), ylim=(0, None))
        axes.yaxis.set_major_locator(whole_numbers())
        bonafide, spoof = summary.counts
        title = f"{literal(shorten(name, 16))}: {bonafide:,} bona fide, {spoof:,} spoof"
        axes.set_title(title, fontsize=SMALL, loc="left", pad=3)


def _cue_dots(
    axes: "Axes", cues: Sequence[tuple[float, float, float] | None], shift: float, telling: float, look: dict
) -> None:
    """EERs and intervals of a partition, `shift` below the row of each cue."""
    for row, cue in enumerate(cues):
        if cue is not None:
            eer, low, high = (100 * value for value in cue)
            axes.plot([low, high], [row + shift] * 2, color=look["color"], linewidth=0.9)
            face = {} if high < 100 * telling else {"markerfacecolor": "white"}
            axes.plot([eer], [row + shift], **look | {"markeredgecolor": look["color"], "markeredgewidth": 0.8} | face)


def augmentation_gallery(panels: Mapping[str, np.ndarray], rate: int) -> "Figure":
    """Spectrograms of several versions (n,) of an utterance, by title; the first is the original.

    All have the same axes and the same colour scale: 80 dB down from the loudest point of the original, in 16 colours,
    because more colours make the file larger.
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
        style_axes(axes, "", "")
        axes.set_title(literal(shorten(title, 34)), fontsize=SMALL, loc="left", pad=3)
        axes.set_facecolor("0.85")  # shows after the end of a shorter version
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
    _level_bar(figure.colorbar(image, ax=grid, aspect=60, shrink=0.6, pad=0.012))
    return figure


def _level_bar(bar: "Colorbar") -> None:
    bar.set_label("Level (dB, relative to the original's loudest point)", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL, width=0.6, length=2.5)
    bar.outline.set_linewidth(0.6)


def _power_spectra(samples: np.ndarray, rate: int) -> np.ndarray:
    """Power (frequencies, frames) in Hann windows of 32 ms, 8 ms apart, each centred on its frame."""
    taps, hop = round(0.032 * rate), round(0.008 * rate)
    padded = np.pad(samples, ((taps - hop) // 2, taps))
    frames = np.lib.stride_tricks.sliding_window_view(padded, taps)[: max(1, len(samples)) : hop]
    return np.abs(np.fft.rfft(frames * np.hanning(taps), axis=1)).T ** 2
