"""One scored recording over time: verdict, waveform, spectrogram, chunk scores and what the lowest score rests on."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from common.escaping import printable
from plots.prediction import Prediction, draw_prediction, prediction_bars
from plots.signal import Excerpt, Explanation, draw_evidence, draw_spectrogram, draw_waveform
from plots.style import (
    FINDING_COLOURS,
    LINE_HEIGHT,
    SMALL,
    TEXT,
    TWO_COLUMNS,
    line_handle,
    patch_handle,
    shorten,
    style_axes,
)

if TYPE_CHECKING:  # matplotlib is slow to import, so functions import it
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHADE = (0.9, 0.62, 0, 0.25)  # of a suspicious passage
CHUNK_MARKERS = {"likely_genuine": "o", "unclear": "D", "likely_synthetic": "X", "mixed": "P", "cannot_say": "s"}
CLOCK = 20  # seconds; longer recordings have times in min:s, h:min or h:min:s
PICTURED_SECONDS = 600  # of longer recordings only an excerpt is drawn as waveform and spectrogram
HEIGHTS = {"prediction": 0.75, "waveform": 0.95, "spectrogram": 1.4, "scores": 2.0, "evidence": 1.6}  # inches
Region = tuple[float, float, float]  # start and end in seconds, score


class Timeline(NamedTuple):
    """The chunks of a recording."""

    starts: np.ndarray  # (C,) seconds
    ends: np.ndarray  # (C,) seconds, at most the recording's end
    scores: np.ndarray  # (C,); NaN if the chunk has none
    findings: Sequence[str]  # (C,) keys of FINDING_COLOURS


class ScoreScale(NamedTuple):
    """The axis of scores, the same for every recording of a model; scores beyond it are marked at its ends."""

    low: float
    high: float
    threshold: float | None
    unclear: float = 0.0  # scores closer to the threshold are unclear


@dataclass(frozen=True)
class RecordingPicture:
    """What the panels of a recording show.

    excerpt: None draws neither waveform nor spectrogram. regions: suspicious passages; one that is all of the
    recording is not marked. decisive: the passage that drives the finding.
    """

    timeline: Timeline
    scale: ScoreScale
    regions: Sequence[Region] = ()
    decisive: Region | None = None
    excerpt: Excerpt | None = None
    explanation: Explanation | None = None
    prediction: Prediction | None = None

    @property
    def end(self) -> float:
        """Seconds: the end of the recording."""
        last = float(np.max(self.timeline.ends))
        return last if self.excerpt is None else max(last, self.excerpt.end)

    def panels(self) -> dict[str, tuple[float, float]]:
        """The start and end of the time axis of each panel. One chunk needs no panel of its own for the evidence."""
        sound = () if self.excerpt is None else ("waveform", "spectrogram")
        whole = (0.0, self.end)
        spans = dict.fromkeys(sound, (self.excerpt.start, self.excerpt.end) if self.is_part else whole)
        spans["scores"] = whole
        if self.explanation and not (sound and len(self.timeline.starts) == 1):
            chunk = self.explanation.excerpt
            spans["evidence"] = (chunk.start, chunk.end)
        return spans

    @property
    def is_part(self) -> bool:
        """Whether the excerpt is but a part of the recording."""
        return self.excerpt is not None and len(self.excerpt.samples) / self.excerpt.rate < self.end - 0.01

    def passages(self, begin: float, end: float) -> list[Region]:
        """The suspicious passages that lie in a panel from `begin` to `end`, cut to it."""
        parts = [region for region in self.regions if region[1] - region[0] < 0.99 * self.end]
        return [(max(a, begin), min(b, end), score) for a, b, score in parts if b > begin and a < end]


def recording_figure(
    picture: RecordingPicture, title: str, finding: str, verdict_lines: Sequence[tuple[str, str]]
) -> "Figure":
    """The title and the verdict in words; below them the bars and panels of `picture`, one under the other.

    title, verdict_lines, which are (label, text): drawn letter for letter. finding: a key of FINDING_COLOURS.
    """
    from matplotlib.figure import Figure

    spans = picture.panels()
    names = [*(["prediction"] if picture.prediction else []), *spans]
    heights = [HEIGHTS[name] for name in names]
    figure = Figure(figsize=(TWO_COLUMNS, sum(heights)), dpi=200, layout="constrained")
    if picture.explanation:
        figure.set_figheight(figure.get_figheight() + 0.3)
        sentence = textwrap.fill(picture.explanation.sentence, 138)
        figure.supxlabel(sentence, fontsize=SMALL, x=0.01, ha="left", parse_math=False)
    _words(figure, title, finding, verdict_lines)
    panels = figure.subplots(len(names), height_ratios=heights, squeeze=False)[:, 0]
    if picture.prediction:
        draw_prediction(panels[0], picture.prediction)
    times = list(spans.values())
    for (name, span), axes, after in zip(spans.items(), panels[-len(spans) :], [*times[1:], None], strict=True):
        _draw_panel(axes, picture, name, span, with_times=span != after)
    figure.align_ylabels(panels)
    return figure


def recording_panels(picture: RecordingPicture) -> dict[str, "Figure"]:
    """Each panel of `picture` as a figure of its own, by name: prediction, waveform, spectrogram, scores, evidence."""
    from matplotlib.figure import Figure

    figures = {"prediction": prediction_bars(picture.prediction)} if picture.prediction else {}
    for name, span in picture.panels().items():
        figures[name] = Figure(figsize=(TWO_COLUMNS, HEIGHTS[name] + 0.5), dpi=200, layout="constrained")
        _draw_panel(figures[name].add_subplot(), picture, name, span, with_times=True)
    return figures


def _draw_panel(
    axes: "Axes", picture: RecordingPicture, name: str, span: tuple[float, float], with_times: bool
) -> None:
    passages = [] if name == "evidence" else picture.passages(*span)
    if name == "waveform":
        draw_waveform(axes, picture.excerpt)
        _label_passages(axes, passages, picture.decisive, span[1] - span[0])
    elif name == "scores":
        _chunk_scores(axes, picture, bool(passages))
    else:
        draw_spectrogram(axes, picture.excerpt if name == "spectrogram" else picture.explanation.excerpt)
        if picture.explanation and ("evidence" not in picture.panels() or name == "evidence"):
            draw_evidence(axes, picture.explanation)
            what = "Orange: what speaks for spoof in the chunk with the lowest score"
            axes.set_title(what, fontsize=SMALL, loc="left", pad=3)
    _time_axis(axes, *span, with_times)
    if passages:
        _mark_passages(axes, passages)


def _words(figure: "Figure", title: str, finding: str, verdict_lines: Sequence[tuple[str, str]]) -> None:
    """Title, labels and texts in two columns at the top, which add to the figure's height; the first text is bold."""
    rows = [(label if i == 0 else "", line) for label, text in verdict_lines for i, line in enumerate(_drawable(text))]
    room = LINE_HEIGHT * (len(rows) + 1) + 0.15
    height = figure.get_figheight() + room
    figure.set_figheight(height)
    figure.get_layout_engine().set(rect=(0, 0, 1, 1 - room / height))
    look = {"parse_math": False, "in_layout": False}
    place = 0.06 / TWO_COLUMNS, 1 - 1.15 * LINE_HEIGHT / height
    figure.text(*place, _drawable(shorten(printable(title), 80))[0], fontsize=TEXT + 1, weight="bold", **look)
    for row, (label, line) in enumerate(rows, 2):
        y = 1 - (LINE_HEIGHT * row + 0.05) / height
        first = {"weight": "bold", "color": FINDING_COLOURS[finding]} if row == 2 else {}
        figure.text(0.06 / TWO_COLUMNS, y, label, color="0.35", fontsize=SMALL, **look)
        figure.text(0.8 / TWO_COLUMNS, y, line, fontsize=SMALL, **first, **look)


def _drawable(text: str) -> list[str]:
    """`text` in lines of at most 86 characters, with � for what the font lacks: a file may have any name."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    fonts = [get_font(findfont(FontProperties(weight=weight))).get_charmap() for weight in ("normal", "bold")]
    known = "".join(sign if all(ord(sign) in font for font in fonts) else "�" for sign in printable(text))
    return textwrap.wrap(" ".join(shorten(word, 48) for word in shorten(known, 250).split()), 86) or [""]


def _chunk_scores(axes: "Axes", picture: RecordingPicture, shaded: bool) -> None:
    """A line over the time of each chunk at its score, in the look of its finding. The legend lists what is drawn."""
    style_axes(axes, "", "Chunk score\n(higher = more bona fide)")
    scale, legend = picture.scale, []
    starts, ends, scores = (np.asarray(values, float) for values in picture.timeline[:3])
    scored, findings = np.isfinite(scores), np.asarray(picture.timeline.findings)
    shown = np.clip(scores, scale.low, scale.high)
    size = np.clip(300 / len(scores), 2, 5)
    for name in CHUNK_MARKERS:
        chosen = scored & (findings == name)
        look = {"color": FINDING_COLOURS[name], "marker": CHUNK_MARKERS[name], "markeredgewidth": 0, "rasterized": True}
        if chosen.any():  # a day has 21,000 chunks: they are an image in a PDF
            axes.hlines(
                shown[chosen], starts[chosen], ends[chosen], color=look["color"], linewidth=1.2, rasterized=True
            )
            middles, larger = (starts + ends)[chosen] / 2, size + (look["marker"] == "X")
            axes.plot(middles, shown[chosen], linestyle="none", markersize=larger, clip_on=False, **look)
            legend.append((line_handle(linewidth=1.2, markersize=5, **look), name.replace("_", " ")))
    if not scored.all():
        look = {"color": "0.6", "linewidth": 3}
        silent = np.full(np.sum(~scored), 0.04), starts[~scored], ends[~scored]
        axes.hlines(*silent, transform=axes.get_xaxis_transform(), **look)
        legend.append((line_handle(**look), "no score"))
    if picture.is_part:
        look = {"marker": "v", "color": "black", "linestyle": "none", "markersize": 5}
        middle = (picture.excerpt.start + picture.excerpt.end) / 2
        axes.plot([middle], [1.06], transform=axes.get_xaxis_transform(), clip_on=False, **look)
        legend.append((line_handle(**look), "part shown above"))
    beyond = scored & (shown != scores)
    if beyond.any():
        legend.append((_mark_beyond(axes, (starts + ends)[beyond] / 2, scores[beyond], scale), "beyond the axis"))
    axes.set(ylim=(scale.low, scale.high), **({} if scored.any() else {"yticks": []}))
    legend += _threshold(axes, scale)
    if shaded:
        legend.append((patch_handle(facecolor=SHADE, edgecolor="black", linewidth=0.6), "suspicious passage"))
    _legend_above(axes, legend, 1.1 if picture.is_part else 1.04)


def _mark_beyond(axes: "Axes", times: np.ndarray, scores: np.ndarray, scale: ScoreScale) -> "Artist":
    """Triangles at the ends of the axis that point to scores outside; returns one for the legend."""
    look = {"linestyle": "none", "color": "black", "markersize": 3.5, "rasterized": True}
    for marker, outside, edge in (("^", scores > scale.high, 0.965), ("v", scores < scale.low, 0.035)):
        if outside.any():
            place = {"transform": axes.get_xaxis_transform(), "marker": marker}
            axes.plot(times[outside], np.full(outside.sum(), edge), **place, **look)
            handle = line_handle(marker=marker, **look)
    return handle


def _threshold(axes: "Axes", scale: ScoreScale) -> list[tuple]:
    """The threshold and the band around it in which scores are unclear; returns the entry of the legend."""
    if scale.threshold is None:
        return []
    label, line = f"threshold {scale.threshold:.4g}", {"color": "black", "linestyle": (0, (4, 2)), "linewidth": 0.9}
    if not np.isfinite(scale.threshold):
        return [(line_handle(**line), f"{label} (not drawn)")]
    axes.axhline(scale.threshold, **line)
    if not scale.unclear:
        return [(line_handle(**line), label)]
    band = {"facecolor": "0.9", "linewidth": 0}
    axes.axhspan(scale.threshold - scale.unclear, scale.threshold + scale.unclear, zorder=0.4, **band)
    return [((patch_handle(**band), line_handle(**line)), f"{label}, unclear within {scale.unclear:.2g}")]


def _legend_above(axes: "Axes", legend: Sequence[tuple], bottom: float) -> None:
    """A legend of one or two lines, from `bottom` on: above `axes` and the brackets of passages."""
    columns = len(legend) if len(legend) < 6 else -(-len(legend) // 2)
    place = {"loc": "lower right", "bbox_to_anchor": (1, bottom), "ncols": columns, "borderaxespad": 0.1}
    handles, labels = zip(*legend, strict=True) if legend else ((), ())
    axes.legend(handles, labels, fontsize=SMALL, frameon=False, handlelength=1.8, columnspacing=1.2, **place)


def _mark_passages(axes: "Axes", passages: Sequence[Region]) -> None:
    """A shade over images and under lines, and a bracket above for readers who cannot see the shade."""
    place = {"transform": axes.get_xaxis_transform()}
    spans = [(start, end - start) for start, end, _ in passages]
    axes.broken_barh(spans, (0, 1), facecolor=SHADE, linewidth=0, zorder=0.5, **place)
    times = [time for start, end, _ in passages for time in (start, start, end, end, np.nan)]
    heights = [1.01, 1.04, 1.04, 1.01, np.nan] * len(passages)
    axes.plot(times, heights, color="black", linewidth=0.9, clip_on=False, **place)


def _label_passages(axes: "Axes", passages: Sequence[Region], decisive: Region | None, seconds: float) -> None:
    """The lowest score of each passage above its bracket, if those before leave room; the decisive one first, bold."""
    taken: list[float] = []
    for start, end, score in sorted(passages, key=lambda passage: (not _overlap(passage, decisive), passage)):
        middle = (start + end) / 2
        if all(abs(middle - other) >= 0.08 * seconds for other in taken):
            place = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points", "ha": "center"}
            weight = "bold" if _overlap((start, end, score), decisive) else "normal"
            text = f"{score:.2f}".replace("-", "−")
            axes.annotate(text, (middle, 1.04), (0, 2), fontsize=SMALL, weight=weight, **place)
            taken.append(middle)


def _overlap(one: Region, two: Region | None) -> bool:
    return two is not None and one[0] < two[1] and two[0] < one[1]


def _time_axis(axes: "Axes", begin: float, end: float, with_times: bool) -> None:
    """`begin` to `end` in seconds, or in min:s, h:min or h:min:s; a panel above one of the same axis has no numbers."""
    unit, seconds = "s", end - begin
    if end >= CLOCK:
        steps = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800)
        step = next((step for step in steps if seconds <= 10 * step), 3600 * -(-seconds // 36_000))
        unit = "min:s" if end < 3600 else "h:min" if step >= 60 else "h:min:s"
        axes.set_xticks(np.arange(-(-begin // step) * step, end + 1e-6, step))
        axes.xaxis.set_major_formatter(lambda time, _: _clock(time, unit, step))
    axes.set_xlim(begin, end)
    axes.tick_params(axis="x", labelbottom=with_times)
    axes.set_xlabel(f"Time ({unit})" if with_times else "", fontsize=TEXT)


def _clock(time: float, unit: str, step: float) -> str:
    if unit == "h:min":
        return f"{time // 3600:.0f}:{time // 60 % 60:02.0f}"
    seconds = f"{time % 60:04.1f}" if step < 1 else f"{time % 60:02.0f}"
    return f"{time // 60:.0f}:{seconds}" if unit == "min:s" else f"{time // 3600:.0f}:{time // 60 % 60:02.0f}:{seconds}"
