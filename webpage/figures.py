"""The figures of the page: a recording's panels and the distribution of several files' scores, as images in HTML."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from audio.reading import Recording
from plots.recording import PICTURED_SECONDS
from scoring.figure import draw_result
from webpage.formatting import duration
from webpage.jobs import CheckedFile
from webpage.result_html import image, message_card

if TYPE_CHECKING:  # matplotlib takes a second to import
    from matplotlib.figure import Figure


def checked_figure(checked: CheckedFile, lines: Sequence[tuple[str, str]]) -> "Figure":
    """Waveform, spectrogram and scores of a checked file, below `lines` of (label, text)."""
    samples = None
    if checked.result.seconds <= PICTURED_SECONDS:
        samples = np.concatenate(list(Recording(checked.sound)))
    return draw_result(checked.result, checked.judge, samples, lines)


def figure_panels(checked: CheckedFile) -> dict[str, str]:
    """HTML of "scores", "waveform" and "spectrogram", each panel of the figure as an image of its own.

    Of a recording that is too long for waveform and spectrogram there is a message instead.
    """
    figure = checked_figure(checked, [])
    *_, last = figure.axes
    for axes in figure.axes:
        axes.tick_params(axis="x", labelbottom=True)
        axes.set_xlabel(last.get_xlabel(), fontsize=8)
    figure.canvas.draw()
    names = ("waveform", "spectrogram", "scores") if len(figure.axes) == 3 else ("scores",)
    panels = {}
    for name, axes in zip(names, figure.axes, strict=True):
        box = axes.get_tightbbox().transformed(figure.dpi_scale_trans.inverted()).padded(0.06)
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=170, bbox_inches=box)
        panels[name] = image(png.getvalue(), f"{name} over time".capitalize())
    too_long = message_card(f"Only recordings of up to {duration(PICTURED_SECONDS)} are drawn here.")
    return {"waveform": too_long, "spectrogram": too_long} | panels


def score_histogram(checks: Sequence[CheckedFile]) -> str:
    """HTML of the scores' distribution by verdict; empty if there is no threshold or no score."""
    from plots.scores import score_distributions

    threshold = checks[0].judge.settings.threshold
    results = [checked.result for checked in checks if checked.result.score is not None]
    bonafide, spoof = (
        np.array([result.score for result in results if result.verdict == verdict]) for verdict in ("bonafide", "spoof")
    )
    if threshold is None or not len(bonafide) + len(spoof):
        return ""
    png = io.BytesIO()
    score_distributions(bonafide, spoof, threshold).savefig(png, format="png", dpi=200)
    return image(png.getvalue(), "Distribution of the scores by verdict")
