"""The verdict card: the finding in one word, its probability, its reason, what to do next, and all else folded."""

from scoring.passages import SuspiciousRegion, clock, passage_text
from scoring.words import passages_text, probability_text, verdict_rows
from webpage.cards import escape, finding_words
from webpage.formatting import sentence, without_options
from webpage.gauge import gauge
from webpage.jobs import CheckedFile

ELSEWHERE = ("verdict", "reason", "suspicious", "caution")  # rows that the card shows outside the details


def verdict_card(checked: CheckedFile, address: str | None = None) -> str:
    """address: the URL of the recording's sound, for the button that plays the decisive passage."""
    result, judge = checked.result, checked.judge
    length = "" if result.seconds is None else f" · {clock(result.seconds)}"
    reason = escape(sentence(without_options(result.reason)))
    play, player = "", ""
    if result.decisive and address:
        play = play_button(result.decisive, "Listen to ")
        player = f'<audio preload="none" src="{escape(address)}"></audio>'
    caution = escape(sentence(judge.caution(result.conditions)))
    return f"""<div class="card verdict {result.finding}" role="status" data-show>
<p class="file">{escape(result.path.name)}{length} · {escape(judge.card.name)}</p>
<h2>{finding_words(result.finding)}{_probability(checked)}</h2>
{gauge(result, judge)}<p class="reason">{reason} {play}</p>{_next_steps(checked)}
<p class="note">Caution: {caution}</p>{_details(checked)}{player}</div>"""


def _probability(checked: CheckedFile) -> str:
    result = checked.result
    if result.finding == "cannot_say" or result.probability_spoof is None:
        return ""
    what = "synthetic passage" if result.finding == "mixed" else "synthetic"
    return f" <small>{probability_text(result.probability_spoof)} {what}</small>"


def _next_steps(checked: CheckedFile) -> str:
    steps = "".join(f"<li>{escape(without_options(step))}</li>" for step in checked.result.next_steps)
    return f"<h3>What to do next</h3><ul>{steps}</ul>" if steps else ""


def _details(checked: CheckedFile) -> str:
    """Score, threshold and their origin; conditions of the recording."""
    result = checked.result
    rows = [row for row in verdict_rows(result, checked.judge) if row[0] not in ELSEWHERE]
    if result.finding != "cannot_say":
        rows.append(("suspicious", f"{passages_text(result)}; see Per-chunk analysis"))
    if not rows:
        return ""
    items = "".join(
        f"<dt>{escape(label.capitalize())}</dt><dd>{escape(without_options(text))}</dd>" for label, text in rows
    )
    return f"<details><summary>Details</summary><dl>{items}</dl></details>"


def play_button(region: SuspiciousRegion, words: str = "") -> str:
    """A button that plays a passage; player.js reads where it lies."""
    text = passage_text(region)
    place = f'data-start="{region.start:.3f}" data-end="{region.end:.3f}"'
    return f'<button class="play" {place}><span aria-hidden="true">▶</span> {words}{text}</button>'
