"""The finding about a recording in one of four words, or none: how wide *unclear* is, the reason, what to do next."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from scoring.model_card import ModelCard
from scoring.passages import ChunkScore, SuspiciousRegion, passage_text

Finding = Literal["likely_genuine", "unclear", "likely_synthetic", "mixed", "cannot_say"]
FINDING_WORDS: dict[Finding, str] = {
    "likely_genuine": "likely genuine",
    "unclear": "unclear",
    "likely_synthetic": "likely synthetic",
    "mixed": "mixed",
    "cannot_say": "cannot say",
}
# Schema 1 knew three verdicts; they stay beside the finding.
VERDICTS: dict[Finding, Literal["bonafide", "spoof", "abstain"]] = {
    "likely_genuine": "bonafide",
    "likely_synthetic": "spoof",
    "mixed": "spoof",
    "unclear": "abstain",
    "cannot_say": "abstain",
}
WRONG = 0.10  # of decisions outside the band of "unclear", at most, on dev scores
LEAST_DECIDED = 0.6  # of dev scores lie outside the band, whatever the errors: always unclear helps nobody
# How far re-encoding moves a score, where the card does not tell: as a fraction of the distance between the classes'
# medians on dev or, without dev scores, in score units.
USUAL_SPREAD_FRACTION, USUAL_SPREAD = 0.1, 0.8


def unclear_width(card: ModelCard) -> float:
    """Half the width of the band around the threshold in which a score is unclear.

    The card's, or the one that its dev scores give; at least what re-encoding moves a score, unless less than
    `LEAST_DECIDED` of the dev scores would be left.
    """
    scores = {key: np.array(values) for key, values in (card.dev_scores or {}).items()}
    if card.threshold is None or not scores or not all(map(len, scores.values())):
        return max(card.unclear_width or 0.0, USUAL_SPREAD if card.recoding_spread is None else card.recoding_spread)
    bonafide, spoof = scores["bonafide"], scores["spoof"]
    usual = USUAL_SPREAD_FRACTION * abs(float(np.median(bonafide) - np.median(spoof)))
    spread = usual if card.recoding_spread is None else card.recoding_spread
    if card.unclear_width is not None:
        return max(spread, card.unclear_width)
    narrowest, widest = _band(bonafide - card.threshold, spoof - card.threshold)
    return max(narrowest, min(spread, widest))


def _band(bonafide: np.ndarray, spoof: np.ndarray) -> tuple[float, float]:
    """The narrowest band outside which at most `WRONG` of the decisions are wrong, and the widest one.

    Outside the widest, `LEAST_DECIDED` of all decisions stay; the narrowest is never wider. The classes are weighted
    alike. bonafide, spoof: scores less the threshold.
    """
    distance = np.concatenate([np.abs(bonafide), np.abs(spoof)])
    weight = np.concatenate([np.full(len(scores), 0.5 / len(scores)) for scores in (bonafide, spoof)])
    wrong = np.concatenate([bonafide <= 0, spoof > 0])
    far_first = np.argsort(-distance)
    decided, errors = np.cumsum(weight[far_first]), np.cumsum((weight * wrong)[far_first])
    few, right = decided <= LEAST_DECIDED, errors <= WRONG * decided

    def width(stays: np.ndarray) -> float:
        inside = distance[far_first][np.flatnonzero(stays).max(initial=-1) + 1 :]  # the scores that remain unclear
        return float(inside.max(initial=0.0))

    return width(few | right), width(few)


def reason_of(
    finding: Finding,
    why_not: str,
    decisive: SuspiciousRegion | None,
    chunks: Sequence[ChunkScore],
    regions: Sequence[SuspiciousRegion],
) -> str:
    """One sentence: which passage drives the finding, or steady throughout, or why nothing can be said."""
    scored = sum(chunk.score is not None for chunk in chunks)
    if finding == "cannot_say":
        return why_not
    if finding == "mixed":
        return f"{passage_text(decisive)} sounds synthetic, the rest does not"
    if scored == 1:
        close = "too close to the threshold to call"
        return {"unclear": close, "likely_genuine": "the score is clearly above the threshold"}.get(
            finding, "the score is clearly below the threshold"
        )
    if finding == "unclear":
        lowest = f"; the lowest passage is {passage_text(decisive)}" if decisive else ""
        return f"the score is too close to the threshold to call{lowest}"
    if finding == "likely_genuine":
        if not regions:
            return "steady throughout: every passage sounds genuine"
        worst = passage_text(min(regions, key=lambda region: region.score))
        return f"nearly all of it sounds genuine; {worst} is below the threshold, as single passages are by chance"
    if decisive:
        return f"{passage_text(decisive)} sounds most synthetic"
    return "steady throughout: every passage sounds synthetic"


def next_steps_of(finding: Finding, decisive: SuspiciousRegion | None, conditions: Sequence[str]) -> tuple[str, ...]:
    """What to do next, most useful first."""
    original = "Get the original file: copies, messengers and calls remove what the detector listens to."
    compare = "Compare models: do others agree?"
    source = "Ask a second source that does not depend on the recording: call the person back on a known number."
    listen = f"Listen to {passage_text(decisive)}." if decisive else ""
    more = "Get a recording with at least 4 s of clear speech."
    steps = {
        "likely_genuine": (listen, source),
        "unclear": (listen, original, compare, source),
        "likely_synthetic": (listen, compare, original, source),
        "mixed": (listen, original, compare, source),
        "cannot_say": (more, source),
    }[finding]
    if finding == "cannot_say" and "no_threshold" in conditions:
        steps = ("Give a threshold found on recordings of your own (--threshold).", compare)
    return tuple(filter(None, steps))
