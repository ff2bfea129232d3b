"""A scored recording → its figures: the verdict in words above signal and scores over time, what the lowest score rests
on if asked for, and both classes as bars.

The package plots draws them; this file gathers what they show.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from audio import SAMPLE_RATE
from audio.chunks import fit
from audio.reading import Recording
from plots.prediction import Prediction
from plots.recording import PICTURED_SECONDS, RecordingPicture, ScoreScale, Timeline
from plots.signal import Excerpt, Explanation
from plots.style import inner_range
from scoring.detector import Detector, ScoredRecording
from scoring.passages import ChunkScore, passage_text
from scoring.verdict import FileResult, Judge
from scoring.words import passages_text, probability_text, verdict_rows

if TYPE_CHECKING:  # matplotlib is slow to import
    from matplotlib.figure import Figure

EXCERPT_SECONDS = 60.0  # of a recording longer than PICTURED_SECONDS
USUAL_SPAN = 15.0  # of scores on both sides of the threshold, for weights without dev scores
MOST_ROWS = 5  # of passages in words


def draw_result(
    result: FileResult,
    judge: Judge,
    excerpt: Excerpt | None,
    rows: Sequence[tuple[str, str]],
    explanation: Explanation | None = None,
) -> "Figure":
    """The figure of a file that could be read; without `excerpt` it has neither waveform nor spectrogram.

    rows: (label, text) pairs above the panels, the finding first.
    """
    from plots.recording import recording_figure

    if len(result.regions) > MOST_ROWS:
        rows = [row for row in rows if row[0] != "suspicious"]
        rows.insert(-1, ("suspicious", passages_text(result)))
    picture = picture_of(result, judge, excerpt, explanation)
    return recording_figure(picture, result.path.name, result.finding, rows)


def save_figure(
    scored: ScoredRecording, judge: Judge, detector: Detector, stem: Path, explain: bool = False
) -> str | None:
    """Write <stem>.png and .pdf of a file that could be read.

    With `explain`, they show what the lowest chunk's score rests on; returns the sentence about it.
    """
    from plots.style import write_figure

    result, samples = scored
    excerpt = excerpt_of(result, result.path if samples is None else samples, judge.settings.channel)
    explanation = explanation_of(result, excerpt, detector) if explain else None
    write_figure(draw_result(result, judge, excerpt, verdict_rows(result, judge), explanation), stem)
    return explanation and explanation.sentence


def picture_of(
    result: FileResult, judge: Judge, excerpt: Excerpt | None, explanation: Explanation | None = None
) -> RecordingPicture:
    """What the panels show. Where nothing can be said, no chunk has a score."""
    starts, ends, scores = (np.array(values, float) for values in zip(*result.chunks, strict=True))
    if result.finding == "cannot_say":
        scores[:] = np.nan
    findings = [judge.finding_of(score if np.isfinite(score) else None) for score in scores]
    timeline, scale = Timeline(starts, ends, scores, findings), score_scale(judge, scores)
    passages = result.regions, result.decisive
    return RecordingPicture(timeline, scale, *passages, excerpt, explanation, prediction_of(result, judge))


def score_scale(judge: Judge, scores: np.ndarray) -> ScoreScale:
    """The same axis for every recording of a model: as wide as its dev scores.

    For weights without dev scores it is `USUAL_SPAN` on both sides of the threshold, doubled until it holds half of
    `scores`, which may have any scale.
    """
    threshold, card = judge.settings.threshold, judge.card
    if card.dev_scores:
        ends = [end for scores in card.dev_scores.values() if scores for end in inner_range(np.sort(scores))]
        ends += [] if threshold is None else [threshold]
        margin = 0.05 * (max(ends) - min(ends)) or 1
        return ScoreScale(min(ends) - margin, max(ends) + margin, threshold, judge.settings.unclear)
    middle, span = threshold or 0.0, USUAL_SPAN
    distances = np.abs(scores[np.isfinite(scores)] - middle)
    while len(distances) and np.median(distances) > span:
        span *= 2
    return ScoreScale(middle - span, middle + span, threshold, judge.settings.unclear)


def excerpt_of(result: FileResult, sound: np.ndarray | Path, channel: int | None = None) -> Excerpt:
    """The sound to picture: all samples (N,), or of a long recording's file the part around the lowest chunk.

    Raises UserError when the file can no longer be read.
    """
    if isinstance(sound, np.ndarray):
        return Excerpt(sound, SAMPLE_RATE)
    lowest, start, seconds = _lowest_chunk(result), 0.0, EXCERPT_SECONDS
    if result.seconds <= PICTURED_SECONDS:
        seconds = PICTURED_SECONDS
    elif lowest:
        start = max(0.0, min((lowest.start + lowest.end - seconds) / 2, result.seconds - seconds))
    first, last, position, pieces = round(start * SAMPLE_RATE), round((start + seconds) * SAMPLE_RATE), 0, []
    for block in Recording(sound, channel):
        pieces.append(block[max(0, first - position) : max(0, last - position)])
        position += len(block)
        if position >= last:
            break
    return Excerpt(np.concatenate(pieces), SAMPLE_RATE, start)


def _lowest_chunk(result: FileResult) -> ChunkScore | None:
    scored = [chunk for chunk in result.chunks if chunk.score is not None]
    return min(scored, key=lambda chunk: chunk.score, default=None)


def explanation_of(result: FileResult, excerpt: Excerpt, detector: Detector) -> Explanation | None:
    """What the lowest chunk's score rests on; None where nothing can be said. The engine must be torch's."""
    from scoring.explain import saliency, saliency_sentence

    lowest = _lowest_chunk(result)
    if lowest is None or result.finding == "cannot_say":
        return None
    samples = excerpt.samples[round((lowest.start - excerpt.start) * SAMPLE_RATE) :][: detector.engine.nb_samp]
    found = saliency(detector.engine.model, fit(samples, detector.engine.nb_samp), lowest.start)
    chunk = Excerpt(samples, SAMPLE_RATE, lowest.start)
    return Explanation(chunk, found.seconds, found.frequencies, found.weight, saliency_sentence(found, chunk.end))


def prediction_of(result: FileResult, judge: Judge) -> Prediction | None:
    """Both classes for a bar chart; None where nothing can be said.

    The bars are probabilities where there are any, else how far the score is from the threshold. Those of a mixed
    recording are of the decisive passage.
    """
    if result.finding == "cannot_say":
        return None
    mixed, spoof, threshold = result.finding == "mixed", result.probability_spoof, judge.settings.threshold
    part = f" of {passage_text(result.decisive)}" if mixed else ""
    if spoof is not None:
        texts = probability_text(1 - spoof), probability_text(spoof)
        return Prediction(100 * (1 - spoof), 100 * spoof, texts, (0, 100), f"Probability{part} (%)", 50)
    score = result.decisive.score if mixed else result.score
    distance, scale = score - threshold, score_scale(judge, np.array([score]))
    span = max(scale.high - threshold, threshold - scale.low, abs(distance))
    texts = f"{distance:+.2f}".replace("-", "−"), f"{-distance:+.2f}".replace("-", "−")
    label = f"Score{part}, counted from the threshold {threshold:.4g}"
    return Prediction(distance, -distance, texts, (-span, span), label, 0)
