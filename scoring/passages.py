"""Chunk scores → passages of a recording: those at or below the threshold, and one that is clearly below the rest."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LEAST_SPEECH = 0.25  # s in a chunk; in music and noise a score says nothing
# Chosen on one half of benchmarks/splices.py's recordings: an odd passage has so many chunks, since one may be low by
# chance, and its mean is so many spreads of the other chunks below their median.
LEAST_RUN, ODD_SPREADS = 2, 2.75
LEAST_REST = 3  # chunks: fewer have no spread
MOST_RUNS = 20  # that are looked at, from the lowest on: a day has thousands


class ChunkScore(NamedTuple):
    """A chunk's start and end (seconds), and its score; a silent chunk has none."""

    start: float
    end: float
    score: float | None


class SuspiciousRegion(NamedTuple):
    """A passage of neighbouring chunks at or below the threshold: start and end (seconds), the lowest chunk's score."""

    start: float
    end: float
    score: float


def spoken(chunks: Sequence[ChunkScore], speech: Sequence[tuple[float, float]] | None) -> list[ChunkScore]:
    """The chunks; those with less than `LEAST_SPEECH` have no score, as if they were silent.

    speech: start and end (s) of what is spoken; None: not known.
    """
    if speech is None:
        return list(chunks)
    edges, lengths = [0.0], [0.0]  # of what is spoken and what is not, and the seconds of speech in between
    for start, end in speech:
        edges += [start, end]
        lengths += [0.0, end - start]
    before = np.interp([(c.start, c.end) for c in chunks], edges, np.cumsum(lengths)).reshape(-1, 2)
    heard = before[:, 1] - before[:, 0] >= LEAST_SPEECH
    return [chunk if loud else chunk._replace(score=None) for chunk, loud in zip(chunks, heard, strict=True)]


def suspicious_regions(chunks: Sequence[ChunkScore], threshold: float | None) -> list[SuspiciousRegion]:
    """Neighbouring chunks at or below the threshold, merged."""
    found, before = [], False
    for chunk in chunks:
        low = threshold is not None and chunk.score is not None and chunk.score <= threshold
        if low and before:
            found[-1] = SuspiciousRegion(found[-1].start, chunk.end, min(found[-1].score, chunk.score))
        elif low:
            found.append(SuspiciousRegion(*chunk))
        before = low
    return found


class OddPassage(NamedTuple):
    """The passage that lies clearly below the rest of a recording. mean: of its chunks' scores."""

    region: SuspiciousRegion
    mean: float


def odd_passage(
    chunks: Sequence[ChunkScore], threshold: float, width: float, chunk_seconds: float
) -> OddPassage | None:
    """The run of neighbouring chunks clearly below the threshold and the rest of the recording, if there is one.

    Clearly below the threshold: by more than `width`. The rest must lie above it. Where several runs qualify, it is the
    lowest.
    """
    scores = np.array([np.nan if chunk.score is None else chunk.score for chunk in chunks])
    runs = [run for run in _runs(chunks, threshold - width) if len(run) >= LEAST_RUN]
    hop = chunks[1].start - chunks[0].start if runs else chunk_seconds
    around = max(0, round(chunk_seconds / hop) - 1)  # chunks beside the run that hold some of it
    for run in sorted(runs, key=lambda run: scores[run].mean())[:MOST_RUNS]:
        rest = np.concatenate([scores[: max(0, run[0] - around)], scores[run[-1] + 1 + around :]])
        rest = rest[np.isfinite(rest)]
        if len(rest) < LEAST_REST:
            continue
        middle, mean = np.median(rest), scores[run].mean()
        spread = 1.4826 * np.median(np.abs(rest - middle))
        if middle > threshold and mean < middle - ODD_SPREADS * spread:
            region = SuspiciousRegion(chunks[run[0]].start, chunks[run[-1]].end, float(scores[run].min()))
            return OddPassage(region, float(mean))
    return None


def _runs(chunks: Sequence[ChunkScore], limit: float) -> list[list[int]]:
    """The indices of neighbouring chunks below `limit`."""
    runs, before = [], False
    for number, chunk in enumerate(chunks):
        low = chunk.score is not None and chunk.score < limit
        if low and before:
            runs[-1].append(number)
        elif low:
            runs.append([number])
        before = low
    return runs


def clock(seconds: float) -> str:
    """Minutes and seconds, 2:21, or hours, minutes and seconds, 1:02:21."""
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes}:{seconds:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def passage_text(region: SuspiciousRegion) -> str:
    """From the second in which it begins to the second after its end: 2:21–2:39."""
    return f"{clock(region.start)}–{clock(-(-region.end // 1))}"
