"""A check as HTML: messages, progress and errors, the verdict card, chunks that play, the table of models, counts.

Everything that comes from a visitor or a file is escaped here. page.css has the looks.
"""

import base64
from collections import Counter
from collections.abc import Sequence
from html import escape as escape_html

from common.escaping import printable
from scoring.findings import FINDING_WORDS, VERDICTS
from scoring.verdict import Judge
from scoring.words import probability_text, verdict_rows
from webpage.formatting import duration, error_sentence, short_label, two_decimals, without_options
from webpage.jobs import CheckedFile, CheckProgress
from webpage.limits import MAX_CHUNK_BUTTONS

ICONS = {"bonafide": "✓", "spoof": "⚠", "abstain": "?"}
SCALE_SPANS = (5, 10, 20, 50, 100)  # what the score's scale shows on either side of the threshold: the first that fits
CHUNK_PIXELS = 46  # wide enough for a score
TICK_PIXELS = 300  # between two times below the chunks


def escape(text: str) -> str:
    """`text` on one line, as HTML shows it letter for letter; invisible signs, which may turn it round, are named."""
    return escape_html(printable(text))


# ------------------------------------------------------------------------------------------------------ any job


def message_card(text: str = "Upload or record speech, then press Check.") -> str:
    return f'<div class="card"><p>{escape(text)}</p></div>'


def progress_card(progress: CheckProgress) -> str:
    value = "" if progress.fraction is None else f' value="{progress.fraction:.3f}"'
    text = escape(progress.text)
    return f'<div class="card" role="status"><p>{text} …</p><progress{value} aria-label="{text}"></progress></div>'


def error_card(error: Exception) -> str:
    sentence = error_sentence(error)
    title = '<h2><span aria-hidden="true">✕</span> Sorry</h2>'
    text = escape(sentence[:1].upper() + sentence[1:])
    return f'<div class="card abstain" role="alert">{title}<p>{text}.</p></div>'


def scrollable(content: str, description: str) -> str:
    """Content that scrolls by itself on a narrow screen, by keyboard too."""
    return f'<div class="wide" tabindex="0" role="region" aria-label="{description}">{content}</div>'


def image(png: bytes, description: str) -> str:
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return scrollable(f'<img alt="{description}" src="{source}">', description)


# ---------------------------------------------------------------------------------------------------- one recording


def verdict_card(checked: CheckedFile) -> str:
    result, judge = checked.result, checked.judge
    reason = without_options(result.reason)
    scale = "" if result.finding == "cannot_say" else score_scale(result.score, judge.settings.threshold)
    seconds = "" if result.seconds is None else f", {duration(result.seconds)}"
    rows = "".join(
        f"<dt>{escape(label)}</dt><dd>{escape(without_options(text))}</dd>" for label, text in _card_rows(checked)
    )
    return f"""<div class="card {result.verdict}" role="status">
<h2><span aria-hidden="true">{ICONS[result.verdict]}</span> {FINDING_WORDS[result.finding].capitalize()}</h2>
<p class="file">{escape(result.path.name)}{seconds} · {escape(judge.card.name)}</p>
<p>{escape(reason[:1].upper() + reason[1:])}.</p>
{scale}<dl>{rows}</dl></div>"""


def _card_rows(checked: CheckedFile) -> list[tuple[str, str]]:
    """(label, text) below the verdict; the passages are only counted, because the tab "Chunks" lists them."""
    result = checked.result
    rows = [row for row in verdict_rows(result, checked.judge) if row[0] not in ("verdict", "reason", "suspicious")]
    if result.error:
        return rows[-1:]  # the caution: the sentence above it says the rest
    if result.regions:
        count = len(result.regions)
        rows.insert(-1, ("suspicious", f"{count} passage{'s' * (count > 1)}, see Chunks"))
    return rows


def score_scale(score: float | None, threshold: float | None) -> str:
    """The score on a scale with the threshold in the middle."""
    if score is None or threshold is None:
        return ""
    distance = abs(score - threshold)
    span = next((span for span in SCALE_SPANS if distance < span), 2 * distance)
    position = 50 + 50 * (score - threshold) / span  # in percent
    label = f"Score {two_decimals(score)}, threshold {two_decimals(threshold)}"
    return f"""<div class="scale" role="img" aria-label="{label}">
<div class="ends"><span>◂ spoof</span><span>bona fide ▸</span></div>
<div class="bar"><i class="middle"></i><i class="mark" style="left:{position:.1f}%"></i></div>
<div class="ends"><span>{two_decimals(threshold - span)}</span><span>threshold {two_decimals(threshold)}</span>
<span>{two_decimals(threshold + span)}</span></div></div>"""


def chunk_timeline(checked: CheckedFile, address: str) -> str:
    """Chunks on a time axis, and suspicious passages, as buttons that play them; `address` is the sound's URL."""
    result, judge = checked.result, checked.judge
    shown = result.chunks[:MAX_CHUNK_BUTTONS]
    seconds = shown[-1].end
    width = CHUNK_PIXELS * len(shown) // 2  # pixels, at least: neighbours overlap, so they are in two rows
    buttons = "".join(_chunk_button(*chunk, seconds, judge) for chunk in shown)
    ticks = max(4, width // TICK_PIXELS)
    axis = "".join(f"<span>{duration(seconds * tick / ticks)}</span>" for tick in range(ticks + 1))
    note = ""
    if len(shown) < len(result.chunks):
        note = f"<p>The first {len(shown)} of {len(result.chunks)} chunks. The tab Scores shows all of them.</p>"
    return f"""<div class="chunks"><p>The model hears chunks of {judge.chunk_seconds:.2f} s. Press one to play
it.</p><div class="wide"><div style="min-width:{width}px">
<div class="lane">{buttons}</div><div class="ends">{axis}</div></div></div>
{note}<h3>Suspicious passages</h3>{_passage_list(checked)}
<audio controls preload="metadata" aria-label="The recording" src="{escape(address)}"></audio></div>"""


def _chunk_button(start: float, end: float, score: float | None, total: float, judge: Judge) -> str:
    """A button placed where the chunk lies in `total` seconds of sound."""
    kind = "silent" if score is None else VERDICTS[judge.finding_of(score)]
    outcome = "silent" if score is None else f"score {two_decimals(score)}, {FINDING_WORDS[judge.finding_of(score)]}"
    place = f"left:{100 * start / total:.3f}%;width:{100 * (end - start) / total:.3f}%"
    label = f"{start:.2f} to {end:.2f} s, {outcome}"
    return (
        f'<button class="chunk {kind}" style="{place}" {_plays(start, end)} title="{label}" aria-label="Play {label}">'
        f"{ICONS.get(kind, '–')} {two_decimals(score)}</button>"
    )


def _passage_list(checked: CheckedFile) -> str:
    passages = "".join(
        f'<li><button class="passage" {_plays(start, end)}>▶ {duration(start)} – {duration(end)}</button> '
        f"down to {two_decimals(score)}</li>"
        for start, end, score in checked.result.regions
    )
    return f"<ul>{passages}</ul>" if passages else "<p>None: no chunk is at or below the threshold.</p>"


def _plays(start: float, end: float) -> str:
    """What player.js reads from a button."""
    return f'data-start="{start:.3f}" data-end="{end:.3f}"'


# ------------------------------------------------------------------------------------------- several models or files


def model_comparison(checks: Sequence[tuple[str, CheckedFile]]) -> str:
    """A table of what each model, by label, says about the same recording."""
    names = ("model", "verdict", "score", "threshold", "P(spoof)", "suspicious passages", "caution")
    heads = "".join(f'<th scope="col">{name}</th>' for name in names)
    rows = "".join(_model_row(label, checked) for label, checked in checks)
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    note = '<p class="note">Each model has its own scale of scores: compare verdicts, not scores.</p>'
    return scrollable(table, "Comparison of models") + note


def _model_row(label: str, checked: CheckedFile) -> str:
    result, judge = checked.result, checked.judge
    probability = "–" if result.probability_spoof is None else probability_text(result.probability_spoof)
    verdict = f'<td class="{result.verdict}">{ICONS[result.verdict]} {FINDING_WORDS[result.finding]}</td>'
    values = [two_decimals(result.score), two_decimals(judge.settings.threshold), probability, str(len(result.regions))]
    cells = "".join(f"<td>{value}</td>" for value in (*values, escape(judge.caution())))
    return f'<tr><th scope="row">{escape(short_label(label))}</th>{verdict}{cells}</tr>'


def verdict_counts(checks: Sequence[CheckedFile]) -> str:
    words = ["unreadable" if checked.result.error else FINDING_WORDS[checked.result.finding] for checked in checks]
    found = Counter(words)
    items = "".join(
        f"<li><b>{found[word]}</b> {word}</li>" for word in (*FINDING_WORDS.values(), "unreadable") if found[word]
    )
    note = f'<p class="note">Caution: {escape(checks[0].judge.caution())}.</p>'
    return f'<div class="card" role="status"><ul class="counts">{items}</ul>{note}</div>'


def table_row(checked: CheckedFile) -> list:
    """The cells of a file in the table of several files; gradio escapes them."""
    result = checked.result
    remarks = result.error or ", ".join(condition.name.replace("_", " ") for condition in result.conditions)
    verdict = "✕ unreadable" if result.error else f"{ICONS[result.verdict]} {FINDING_WORDS[result.finding]}"
    probability = result.probability_spoof
    numbers = (result.score, probability and 100 * probability, result.seconds)
    rounded = [value if value is None else round(value, 4) for value in numbers]
    return [printable(result.path.name), verdict, *rounded, remarks]
