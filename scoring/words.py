"""A result in words for people: a line, a report, the rows of a figure or the page.

Where nothing can be said there is no score and no probability.
"""

from common.escaping import printable
from scoring.findings import FINDING_WORDS
from scoring.passages import passage_text
from scoring.speaker import likeness_text
from scoring.verdict import LOWEST, FileResult, Judge

LIKENESS_WORDS = {"similar": "similar", "dissimilar": "not similar", "abstain": "cannot say"}
HOW = {  # the chunks make a score
    "mean": "mean of the chunks with speech",
    "median": "median of the chunks with speech",
    "min": "lowest chunk with speech",
    "topk": f"mean of the {LOWEST} lowest chunks with speech",
    "first": "first chunk",
}
MAX_LISTED_CHUNKS = 20  # in text; files list all


def probability_text(probability: float) -> str:
    """A probability in percent, down to 1 and up to 99: a few hundred dev trials cannot tell more."""
    if 0.01 <= probability <= 0.99:
        return f"{100 * probability:.1f} %"
    return "above 99 %" if probability > 0.5 else "below 1 %"


def verdict_rows(result: FileResult, judge: Judge) -> list[tuple[str, str]]:
    """(label, text) pairs for a report, a figure or the page."""
    lines = [("verdict", FINDING_WORDS[result.finding]), ("reason", result.reason)]
    if result.finding != "cannot_say":
        lines += _score_rows(result, judge)
    lines += [
        ("condition", f"{name.replace('_', ' ')}: {detail}")
        for name, detail in result.conditions
        if detail != result.reason  # already said
    ]
    if result.reference:
        lines.append(("reference", likeness_text(result.reference)))
    return [*lines, ("caution", judge.caution(result.conditions))]


def _score_rows(result: FileResult, judge: Judge) -> list[tuple[str, str]]:
    """Score, threshold, probability and passages."""
    settings = judge.settings
    chunks = "" if len(result.chunks) < 2 else f"{HOW[settings.aggregate]}; "
    probability = "none" if result.probability_spoof is None else f"{probability_text(result.probability_spoof)} spoof"
    band = f"; unclear within {settings.unclear:.2f}" if settings.unclear else ""
    lines = [
        ("score", f"{result.score:.4f}   ({chunks}higher = more bona fide)"),
        ("threshold", f"{settings.threshold:.4f}   ({settings.threshold_source}{band})"),
        ("probability", f"{probability}   ({result.probability_note})"),
    ]
    return lines + [("suspicious", f"{passage_text(r)}   (down to {r.score:.4f})") for r in result.regions]


def verdict_report(result: FileResult, judge: Judge, explain: bool = False) -> str:
    """Everything about one file, in several lines; with `explain` also what to do next."""
    seconds = "" if result.seconds is None else f"  ({result.seconds:.2f} s)"
    rows = verdict_rows(result, judge)
    if explain:
        rows += [("next" if number == 0 else "", step) for number, step in enumerate(result.next_steps)]
    lines = [f"{printable(result.path)}{seconds}"]
    lines += [f"  {label:<13}{printable(text)}" for label, text in rows]
    if 1 < len(result.chunks) <= MAX_LISTED_CHUNKS and result.finding != "cannot_say":
        lines.append("  chunks")
        for start, end, score in result.chunks:
            known = "silent" if score is None else f"{score:.4f}   {FINDING_WORDS[judge.finding_of(score)]}"
            lines.append(f"  {start:>10.2f} – {end:.2f} s   {known}")
    return "\n".join(lines)


def verdict_line(result: FileResult) -> str:
    """The result in one line."""
    score = "–" if result.score is None or result.finding == "cannot_say" else f"{result.score:.4f}"
    remarks = [condition.name.replace("_", " ") for condition in result.conditions]
    if result.finding != "cannot_say" and result.regions:
        remarks.insert(0, passages_text(result))
    if result.reference:
        remarks.append(f"reference: {LIKENESS_WORDS[result.reference.verdict]}")
    told = f"   ({'; '.join(remarks)})" if remarks else ""
    return f"{FINDING_WORDS[result.finding]:<17}{score:>10}  {printable(result.path)}{told}"


def passages_text(result: FileResult) -> str:
    """How many suspicious passages there are, and the worst: 2 passages, worst 2:21–2:39."""
    count = len(result.regions)
    return f"{count} passage{'s' * (count > 1)}, worst {passage_text(result.worst)}" if count else "no passages"
