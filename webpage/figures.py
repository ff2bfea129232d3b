"""The figures of the page: a recording's panels."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from scoring.figure import draw_result, excerpt_of, picture_of
from webpage.jobs import CheckedFile

if TYPE_CHECKING:  # matplotlib takes a second to import
    from matplotlib.figure import Figure

DOTS = 200  # per inch, of figures that are 7 inches wide
DESCRIPTIONS = {
    "prediction": "Prediction scores: bona fide and spoof",
    "waveform": "Waveform over time",
    "spectrogram": "Spectrogram over time",
    "scores": "Chunk scores over time",
}


def checked_figure(checked: CheckedFile, lines: Sequence[tuple[str, str]]) -> "Figure":
    """Waveform, spectrogram and scores of a checked file, below its name and `lines` of (label, text)."""
    return draw_result(checked.result, checked.judge, excerpt_of(checked.result, checked.sound), lines)


def recording_pngs(checked: CheckedFile) -> dict[str, tuple[bytes, bytes]]:
    """Each panel of `DESCRIPTIONS` as PNG for a white page and for a dark one.

    Of a long recording the waveform and the spectrogram show the part around the lowest score. A recording of which
    nothing can be said has neither prediction nor scores.
    """
    from plots.dark import png_looks
    from plots.recording import recording_panels

    figures = recording_panels(picture_of(checked.result, checked.judge, excerpt_of(checked.result, checked.sound)))
    return {name: png_looks(figures[name], DOTS) for name in DESCRIPTIONS if name in figures}
