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
LEAST_DECIDED = 0.25  # of dev scores lie outside the band, whatever the errors
USUAL_WIDTH = 0.5  # of the band, in score units, for weights without dev scores


def unclear_width(card: ModelCard) -> float:
    """Half the width of the band around the threshold in which a score is unclear.

    The narrowest outside which at most `WRONG` of the decisions on dev scores are wrong, the classes weighted alike;
    at least `LEAST_DECIDED` of them stay decided.
    """
    if card.dev_scores is None or card.threshold is None:
        return USUAL_WIDTH
    bonafide, spoof = (np.array(card.dev_scores[key]) - card.threshold for key in ("bonafide", "spoof"))
    if not len(bonafide) or not len(spoof):
        return USUAL_WIDTH
    distance = np.concatenate([np.abs(bonafide), np.abs(spoof)])
    weight = np.concatenate([np.full(len(scores), 0.5 / len(scores)) for scores in (bonafide, spoof)])
    wrong = np.concatenate([bonafide <= 0, spoof > 0])
    far_first = np.argsort(-distance)
    decided, errors = np.cumsum(weight[far_first]), np.cumsum((weight * wrong)[far_first])
    fits = np.flatnonzero((errors <= WRONG * decided) | (decided <= LEAST_DECIDED))
    inside = distance[far_first][fits.max(initial=-1) + 1 :]  # the scores that remain unclear
    return float(inside.max(initial=0.0))


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
