"""The score on a scale from synthetic to genuine, in HTML.

The scale is the calibrated probability. For weights without a calibration it is the distance from the threshold, in
widths of the band in which a score is unclear, and no number is shown.
"""

import math
from collections import Counter
from collections.abc import Sequence

from scoring.findings import FINDING_WORDS
from scoring.verdict import FileResult, Judge
from webpage.cards import finding_words

MAX_TICKS = 120  # chunks marked on the scale
NARROWEST = 0.5  # score units: a width for weights whose band has none


def place(judge: Judge, score: float) -> float:
    """Where a score lies between 0 (synthetic) and 1 (genuine)."""
    probability = judge.probability_spoof(score)
    if probability is not None:
        return 1 - probability
    width = 4 * max(judge.settings.unclear, NARROWEST)
    return 0.5 + 0.5 * math.tanh((score - judge.settings.threshold) / width)


def unclear_zone(judge: Judge) -> tuple[float, float]:
    """The ends of the places that are unclear; where none is, the threshold's place twice."""
    threshold, width = judge.settings.threshold, judge.settings.unclear
    ends = [place(judge, threshold - width), place(judge, threshold + width)]
    if width:
        ends.append(0.5)  # between the threshold and a probability of 50 %, nothing is clear
    return min(ends), max(ends)


def result_place(result: FileResult, judge: Judge) -> float:
    """Where the finding's own score lies: of a mixed recording, that of the passage that makes it so."""
    if result.probability_spoof is not None:
        return 1 - result.probability_spoof
    return place(judge, result.decisive.score if result.finding == "mixed" else result.score)


def gauge(result: FileResult, judge: Judge) -> str:
    """The scale with its unclear zone, a tick for each chunk, and a mark for the result. Empty if there is no score."""
    if result.finding == "cannot_say":
        return ""
    scores = [chunk.score for chunk in result.chunks if chunk.score is not None]
    shown = scores[:: 1 + len(scores) // MAX_TICKS] if len(scores) > 1 else []
    ticks = "".join(f'<s style="left:{100 * place(judge, score):.1f}%"></s>' for score in shown)
    mark = f'<i class="{result.finding}" style="left:{100 * result_place(result, judge):.1f}%"></i>'
    return _scale(judge, ticks + mark, f"{FINDING_WORDS[result.finding]}, on a scale from synthetic to genuine")


def files_scale(results: Sequence[FileResult], judge: Judge) -> str:
    """The scale with a mark for each of several recordings. Empty if none has a score."""
    marks = "".join(
        f'<i class="{result.finding}" style="left:{100 * result_place(result, judge):.1f}%"></i>'
        for result in results
        if result.finding != "cannot_say"
    )
    return _scale(judge, marks, "The recordings on a scale from synthetic to genuine") if marks else ""


def _scale(judge: Judge, marks: str, label: str) -> str:
    low, high = (100 * end for end in unclear_zone(judge))
    zones = "".join(
        f'<b class="{finding}" style="width:{width:.1f}%"></b>'
        for finding, width in (("likely_synthetic", low), ("unclear", high - low), ("likely_genuine", 100 - high))
    )
    middle = f'<span style="left:{(low + high) / 2:.1f}%">unclear</span>' if high - low > 12 else ""
    return f"""<div class="gauge" role="img" aria-label="{label}"><div class="bar">{zones}{marks}</div>
<div class="ends"><span>synthetic</span>{middle}<span>genuine</span></div></div>"""


def chunk_counts(result: FileResult, judge: Judge) -> str:
    """The chunks by finding, as one bar and in words; nothing for a single chunk."""
    if len(result.chunks) < 2:
        return ""
    found = Counter("silent" if chunk.score is None else judge.finding_of(chunk.score) for chunk in result.chunks)
    order = [kind for kind in ("likely_synthetic", "unclear", "likely_genuine", "silent") if found[kind]]
    bar = "".join(f'<b class="{kind}" style="flex-grow:{found[kind]}"></b>' for kind in order)
    words = "".join(
        f'<li class="{kind}"><b>{found[kind]}</b> {finding_words(kind) if kind != "silent" else "– Silent"}</li>'
        for kind in order
    )
    return f'<div class="stack" aria-hidden="true">{bar}</div><ul class="counts">{words}</ul>'
