"""One scored recording over time: verdict, waveform, spectrogram, chunk scores and saliency."""

import textwrap
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from common.escaping import printable
from plots.style import (
    BONAFIDE_COLOUR,
    LINE_HEIGHT,
    SMALL,
    TEXT,
    TWO_COLUMNS,
    add_threshold,
    line_handle,
    patch_handle,
    shorten,
    style_axes,
)

if TYPE_CHECKING:  # matplotlib is slow to import, so functions import it
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REJECTED, SHADE = "#D55E00", (0.9, 0.62, 0, 0.25)  # a chunk below the threshold; the shade of a suspicious region
HIGHEST = 8000  # Hz: the top of every frequency axis
CLOCK = 120  # seconds; longer recordings have times in min:s or h:min
PICTURED_SECONDS = 600  # longer recordings are drawn without waveform and spectrogram
PIXELS = 1400  # columns of a waveform or spectrogram, about as many as two columns of a paper can show
Regions = Sequence[tuple[float, float, float]]  # start and end in seconds, score


class Timeline(NamedTuple):
    """The chunks of a recording."""

    starts: np.ndarray  # (C,) seconds
    ends: np.ndarray  # (C,) seconds, at most the recording's end
    scores: np.ndarray  # (C,); NaN if the chunk is silent


def recording_figure(
    samples: np.ndarray | None,
    rate: int,
    timeline: Timeline,
    threshold: float | None,
    regions: Regions,
    verdict_lines: Sequence[tuple[str, str]],
    saliency: Any = None,
) -> "Figure":
    """The verdict in words; below it waveform, mel spectrogram and chunk scores over time.

    samples: mono (N,) at `rate` Hz; None draws neither waveform nor spectrogram. regions: suspicious ones, shaded and
    bracketed. verdict_lines: (label, text), drawn letter for letter. saliency: an `explain.Saliency` of the chunk with
    the lowest score, drawn in its own panel.
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


def _words(figure: "Figure", verdict_lines: Sequence[tuple[str, str]]) -> None:
    """Labels and texts in two columns at the top, which add to the figure's height; the first text is bold."""
    rows = [(label if i == 0 else "", line) for label, text in verdict_lines for i, line in enumerate(_drawable(text))]
    room = LINE_HEIGHT * len(rows) + 0.1
    height = figure.get_figheight() + room
    figure.set_figheight(height)
    figure.get_layout_engine().set(rect=(0, 0, 1, 1 - room / height))
    look = {"fontsize": SMALL, "parse_math": False, "in_layout": False}
    for row, (label, line) in enumerate(rows, 1):
        y = 1 - LINE_HEIGHT * row / height
        figure.text(0.06 / TWO_COLUMNS, y, label, color="0.35", **look)
        figure.text(0.8 / TWO_COLUMNS, y, line, weight="bold" if row == 1 else "normal", **look)


def _drawable(text: str) -> list[str]:
    """`text` in lines of at most 86 characters, with � for what the font lacks: a file may have any name."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    fonts = [get_font(findfont(FontProperties(weight=weight))).get_charmap() for weight in ("normal", "bold")]
    known = "".join(sign if all(ord(sign) in font for font in fonts) else "�" for sign in printable(text))
    return textwrap.wrap(" ".join(shorten(word, 48) for word in shorten(known, 250).split()), 86) or [""]


def _waveform(axes: "Axes", samples: np.ndarray, rate: int) -> None:
    """The lowest and highest sample in each of at most `PIXELS` columns, so that an hour draws as fast as a second."""
    style_axes(axes, "", "Amplitude")
    edges = np.unique(np.linspace(0, len(samples), PIXELS, endpoint=False).astype(int))
    low, high = np.minimum.reduceat(samples, edges), np.maximum.reduceat(samples, edges)
    axes.fill_between(edges / rate, low, high, color="0.3", linewidth=0.4, step="post", rasterized=True)
    peak = 1.1 * max(-low.min(), high.max()) or 1
    axes.set(ylim=(-peak, peak))


def _spectrogram(axes: "Axes", samples: np.ndarray, rate: int) -> None:
    """Mel power, 80 dB down from the loudest point: 64 bands, windows of 32 ms, the loudest window of each column."""
    style_axes(axes, "", "")
    taps, highest = round(0.032 * rate), min(HIGHEST, rate / 2)
    hop = int(np.clip(len(samples) // PIXELS, rate // 100, taps))  # with a wider hop, windows would skip samples
    frames = -(-len(samples) // hop)
    together = -(-frames // PIXELS)  # frames per column
    padded = np.pad(samples, ((taps - hop) // 2, taps))  # centres each window on its hop
    bands, columns = _mel_bands(np.fft.rfftfreq(taps, 1 / rate), 64, highest), []
    for first in range(0, frames, 100 * together):  # an hour at once would need half a gigabyte
        last = min(first + 100 * together, frames)
        piece = padded[first * hop : (last - 1) * hop + taps]
        windows = np.hanning(taps + 1)[:-1] * np.lib.stride_tricks.sliding_window_view(piece, taps)[::hop]
        power = bands @ np.abs(np.fft.rfft(windows).T) ** 2
        columns.append(np.maximum.reduceat(power, np.arange(0, last - first, together), axis=1))
    decibel = 10 * np.log10(np.maximum(np.hstack(columns), 1e-10))
    decibel = np.maximum(decibel, decibel.max() - 80)
    extent = (0, decibel.shape[1] * together * hop / rate, 0, _mel(highest))
    axes.imshow(decibel, cmap="Greys", origin="lower", aspect="auto", extent=extent)
    _frequency_axis(axes)


def _mel_bands(frequencies: np.ndarray, bands: int, highest: float) -> np.ndarray:
    """Triangular filters of equal area (bands, F) for a spectrum at `frequencies` (F,) Hz, from 0 to `highest` Hz."""
    edges = 700 * (10 ** (np.linspace(0, _mel(highest), bands + 2)[:, None] / 2595) - 1)
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    slopes = (frequencies - low) / (middle - low), (high - frequencies) / (high - middle)
    return np.maximum(0, np.minimum(*slopes)) * 2 / (high - low)


def _chunk_scores(axes: "Axes", timeline: Timeline, threshold: float | None, regions: bool) -> None:
    """A line over the time of each chunk at its score; rejected and silent chunks look different."""
    style_axes(axes, "", "Chunk score\n(higher = more bona fide)")
    starts, ends, scores = (np.asarray(values, float) for values in timeline)
    scored = np.isfinite(scores)
    low = scored & (scores <= threshold) if threshold is not None else np.zeros_like(scored)
    kinds = [("chunk", BONAFIDE_COLOUR, "o", scored)]
    if threshold is not None:
        kinds = [("above the threshold", BONAFIDE_COLOUR, "o", scored & ~low), ("at or below it", REJECTED, "X", low)]
    middles, size = (starts + ends) / 2, np.clip(300 / len(scores), 2, 5)
    handles, labels = [], []
    for name, colour, marker, chosen in kinds:
        look = {"color": colour, "marker": marker, "markeredgewidth": 0, "rasterized": True}  # a day has 21,000 chunks
        axes.hlines(scores[chosen], starts[chosen], ends[chosen], color=colour, linewidth=1.2, rasterized=True)
        axes.plot(middles[chosen], scores[chosen], linestyle="none", markersize=size + (marker == "X"), **look)
        handles.append(line_handle(linewidth=1.2, markersize=5, **look))
        labels.append(name)
    if not scored.all():
        look = {"color": "0.6", "linewidth": 3}
        silent = np.full(np.sum(~scored), 0.04), starts[~scored], ends[~scored]
        axes.hlines(*silent, transform=axes.get_xaxis_transform(), **look)
        handles.append(line_handle(**look))
        labels.append("silent: no score")
    _score_limits(axes, [*scores[scored], *([threshold] if threshold is not None else [])])
    if threshold is not None:
        add_threshold(axes.axhline, threshold, handles, labels)
    if regions:
        handles.append(patch_handle(facecolor=SHADE, edgecolor="black", linewidth=0.6))
        labels.append("suspicious region")
    _legend_above(axes, handles, labels)


def _legend_above(axes: "Axes", handles: Sequence["Artist"], labels: Sequence[str]) -> None:
    """A legend of one line, above `axes` and the brackets of regions."""
    place = {"loc": "lower right", "bbox_to_anchor": (1, 1.04), "ncols": len(labels), "borderaxespad": 0.1}
    axes.legend(handles, labels, fontsize=SMALL, frameon=False, handlelength=1.8, columnspacing=1.2, **place)


def _score_limits(axes: "Axes", shown: Sequence[float]) -> None:
    """Show all scores, because a single far one may matter; no numbers if there are no scores."""
    finite = [score for score in shown if np.isfinite(score)]
    low, high = min(finite, default=0), max(finite, default=0)
    margin = 0.12 * (high - low) or 1
    axes.set(ylim=(low - margin, high + margin))
    if not finite:
        axes.set_yticks([])


def _mark_regions(axes: "Axes", regions: Regions) -> None:
    """A shade over images and under lines, and a bracket above for readers who cannot see the shade."""
    place = {"transform": axes.get_xaxis_transform()}
    spans = [(start, end - start) for start, end, _ in regions]
    axes.broken_barh(spans, (0, 1), facecolor=SHADE, linewidth=0, zorder=0.5, **place)
    times = [time for start, end, _ in regions for time in (start, start, end, end, np.nan)]
    heights = [1.01, 1.04, 1.04, 1.01, np.nan] * len(regions)
    axes.plot(times, heights, color="black", linewidth=0.9, clip_on=False, **place)


def _label_regions(axes: "Axes", regions: Regions, seconds: float) -> None:
    """The score of each region above its bracket, if the one before leaves room."""
    free = 0.0
    for start, end, score in sorted(regions):
        middle = (start + end) / 2
        if middle >= free:
            place = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points", "ha": "center"}
            axes.annotate(f"{score:.2f}".replace("-", "−"), (middle, 1.04), (0, 2), fontsize=SMALL, **place)
            free = middle + 0.08 * seconds


def _saliency(axes: "Axes", saliency: Any, seconds: float) -> None:
    """Saliency over the time in the chunk, up to the end of a recording of `seconds`: a shorter one was repeated."""
    from matplotlib.colors import PowerNorm

    begin = f"{saliency.start:.2f} s" if seconds < CLOCK else str(timedelta(seconds=int(saliency.start)))
    style_axes(axes, "Time in the chunk (s)", "")
    title = f"Evidence for the lowest chunk score (chunk from {begin}; light = more)"
    axes.set_title(title, fontsize=SMALL, loc="left", pad=3)
    columns = saliency.weight.shape[1]
    middles = (np.arange(columns) + 0.5) * saliency.seconds / columns
    look = {
        "cmap": "magma",
        "norm": PowerNorm(0.5, 0, 1),
        "rasterized": True,
    }  # without the root, only peaks would be visible
    mesh = axes.pcolormesh(middles, _mel(saliency.frequencies), saliency.weight, **look)
    axes.set_facecolor(mesh.cmap(0.0))  # below the lowest band
    axes.set_xlim(0, min(saliency.seconds, seconds - saliency.start))
    _frequency_axis(axes)


def _frequency_axis(axes: "Axes") -> None:
    """0–8 kHz on the mel scale."""
    kilohertz = (0, 0.5, 1, 2, 4, 8)
    axes.set_yticks([_mel(1000 * tick) for tick in kilohertz], [f"{tick:g}" for tick in kilohertz])
    axes.set_ylim(0, _mel(HIGHEST))
    axes.set_ylabel("Frequency\n(kHz)", fontsize=TEXT)
    axes.grid(False)


def _time_axis(axes: "Axes", seconds: float, last: bool) -> None:
    """0 to `seconds`, in min:s from two minutes on, in h:min from an hour on. Only the `last` panel has numbers."""
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
    return 2595 * np.log10(1 + hertz / 700)  # HTK's scale, as in the models' filter banks
