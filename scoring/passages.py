"""Chunk scores → passages of a recording: those at or below the threshold, and one that is clearly below the rest."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

ODD_SPREADS = 2.5  # an odd passage is so many spreads of the other chunks below them


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


def odd_passage(chunks: Sequence[ChunkScore], limit: float, chunk_seconds: float) -> OddPassage | None:
    """The run of neighbouring chunks below `limit` that is clearly below the rest of the recording, if there is one.

    The rest must lie above the limit. Where several runs qualify, it is the lowest.
    """
    runs = [run for run in _runs(chunks, limit) if len(run) > 1]
    scores = np.array([np.nan if chunk.score is None else chunk.score for chunk in chunks])
    for run in sorted(runs, key=lambda run: scores[run].mean()):
        beside = np.ones(len(chunks), bool)
        beside[run] = False
        rest = scores[beside & np.isfinite(scores)]
        if len(rest) < 2:
            return None
        middle = np.median(rest)
        spread = 1.4826 * np.median(np.abs(rest - middle))
        if middle > limit and scores[run].mean() < middle - ODD_SPREADS * spread:
            first, last = chunks[run[0]], chunks[run[-1]]
            region = SuspiciousRegion(first.start, last.end, float(scores[run].min()))
            return OddPassage(region, float(scores[run].mean()))
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
