"""A scored recording → its figure: the verdict in words, signal, chunk scores and, if asked for, a saliency map.

`plots/recording.py` draws it; this file gathers what it shows.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from audio import SAMPLE_RATE
from audio.chunks import fit
from scoring.detector import Detector, ScoredRecording
from scoring.verdict import FileResult, Judge
from scoring.words import verdict_rows

if TYPE_CHECKING:  # both packages are slow to import
    from matplotlib.figure import Figure

    from scoring.explain import Saliency


def draw_result(
    result: FileResult,
    judge: Judge,
    samples: np.ndarray | None,
    rows: Sequence[tuple[str, str]],
    saliency: "Saliency | None" = None,
) -> "Figure":
    """The figure of a file that could be read. samples: (N,) at 16 kHz, or None: no waveform and no spectrogram.

    rows: (label, text) pairs above the panels.
    """
    from plots.recording import Timeline, recording_figure

    timeline = Timeline(*(np.array(values, float) for values in zip(*result.chunks, strict=True)))
    threshold = judge.settings.threshold
    return recording_figure(samples, SAMPLE_RATE, timeline, threshold, result.regions, rows, saliency=saliency)


def save_figure(scored: ScoredRecording, judge: Judge, detector: Detector, stem: Path, explain: bool = False) -> None:
    """Write <stem>.png and .pdf of a file that could be read.

    With `explain`, the saliency map of the lowest chunk is a panel of them.
    """
    from plots.style import write_figure

    result, samples = scored
    saliency = lowest_chunk_saliency(result, samples, detector) if explain and samples is not None else None
    rows = [*verdict_rows(result, judge), ("file", result.path.name)]
    write_figure(draw_result(result, judge, samples, rows, saliency), stem)


def lowest_chunk_saliency(result: FileResult, samples: np.ndarray, detector: Detector) -> "Saliency | None":
    """The evidence behind the lowest chunk's score; None if no chunk has one. The engine must be torch's."""
    from scoring.explain import saliency

    with_score = [chunk for chunk in result.chunks if chunk.score is not None]
    if not with_score:
        return None
    start = min(with_score, key=lambda chunk: chunk.score).start
    chunk = fit(samples[round(start * SAMPLE_RATE) :], detector.engine.nb_samp)
    return saliency(detector.engine.model, chunk, start)
