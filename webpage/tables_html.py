"""Several models on one recording, or one model on several recordings, as tables in HTML."""

from collections import Counter
from collections.abc import Sequence

from scoring.findings import FINDING_WORDS
from scoring.passages import clock
from scoring.words import passages_text, probability_text
from webpage.cards import escape, finding_words, scrollable
from webpage.formatting import error_sentence, sentence, short_label, two_decimals
from webpage.gauge import files_scale
from webpage.jobs import CheckedFile

WORST_FIRST = ("likely_synthetic", "mixed", "unclear", "likely_genuine", "cannot_say")
Outcome = CheckedFile | Exception  # of a model


def _table(heads: Sequence[str], rows: str) -> str:
    cells = "".join(f'<th scope="col">{head}</th>' for head in heads)
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{rows}</tbody></table>"


def _probability(checked: CheckedFile) -> str:
    result = checked.result
    known = result.finding != "cannot_say" and result.probability_spoof is not None
    return probability_text(result.probability_spoof) if known else "–"


# ------------------------------------------------------------------------------------------------------ several models


def model_comparison(outcomes: Sequence[tuple[str, Outcome]]) -> str:
    """Whether the models, by label, agree; a row for each, or why it failed."""
    heads = ("Model", "Finding", "Synthetic", "Reason", "Score", "Threshold")
    rows = "".join(_model_row(label, outcome) for label, outcome in outcomes)
    note = '<p class="note">Each model has its own scale of scores: compare findings, not scores.</p>'
    agreement = f'<p class="agreement" role="status">{escape(agreement_sentence(outcomes))}</p>'
    return agreement + scrollable(_table(heads, rows), "Comparison of models") + note


def _model_row(label: str, outcome: Outcome) -> str:
    head = f'<th scope="row">{escape(short_label(label))}</th>'
    if isinstance(outcome, Exception):
        return f'<tr>{head}<td colspan="5">✕ {escape(sentence(error_sentence(outcome)))}</td></tr>'
    result, threshold = outcome.result, outcome.judge.settings.threshold
    numbers = ["–", "–"]
    if result.finding != "cannot_say":
        numbers = [two_decimals(result.score), two_decimals(threshold)]
    cells = [_probability(outcome), escape(sentence(result.reason)), *numbers]
    finding = f'<td class="{result.finding}">{finding_words(result.finding)}</td>'
    return f"<tr>{head}{finding}{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def agreement_sentence(outcomes: Sequence[tuple[str, Outcome]]) -> str:
    """One sentence: do the models say the same?"""
    said: dict[str, list[str]] = {}
    for label, outcome in outcomes:
        if not isinstance(outcome, Exception):
            said.setdefault(FINDING_WORDS[outcome.result.finding], []).append(short_label(label))
    failed = len(outcomes) - sum(map(len, said.values()))
    failures = f"; {failed} could not be used" if failed else ""
    if not said:
        return "No model could be used."
    if len(said) > 1:
        each = ", ".join(f"{word} ({', '.join(labels)})" for word, labels in said.items())
        return f"The models do not agree: {each}{failures}."
    (word, labels), *_ = said.items()
    if len(labels) == 1:
        return f"{labels[0]} says {word}{failures}."
    return f"All {len(labels)} models agree: {word}{failures}."


# ------------------------------------------------------------------------------------------------------- several files


def finding_counts(checks: Sequence[CheckedFile]) -> str:
    """How many files got which word, and where they lie on the scale."""
    found = Counter("unreadable" if checked.result.error else checked.result.finding for checked in checks)
    items = "".join(
        f'<li class="{finding}"><b>{found[finding]}</b> {finding_words(finding)}</li>'
        for finding in WORST_FIRST
        if found[finding]
    )
    items += f"<li><b>{found['unreadable']}</b> ✕ Unreadable</li>" if found["unreadable"] else ""
    note = f'<p class="note">Caution: {escape(sentence(checks[0].judge.caution()))}</p>'
    scale = files_scale([checked.result for checked in checks], checks[0].judge)
    return f'<div class="card" role="status"><ul class="counts">{items}</ul>{scale}{note}</div>'


def files_table(checks: Sequence[CheckedFile]) -> str:
    """The worst file first. Each name is a button with the file's number in `checks`: it opens the full result."""
    rows = "".join(_file_row(number, checks[number]) for number in sorted(range(len(checks)), key=_badness(checks)))
    return f'<div class="files">{_table(("File", "Finding", "Synthetic", "Length", "Remarks"), rows)}</div>'


def _badness(checks: Sequence[CheckedFile]):
    def key(number: int) -> tuple:
        result = checks[number].result
        return result.error is not None, WORST_FIRST.index(result.finding), result.score or 0.0

    return key


def _file_row(number: int, checked: CheckedFile) -> str:
    result = checked.result
    finding = "✕ Unreadable" if result.error else finding_words(result.finding)
    length = "–" if result.seconds is None else clock(result.seconds)
    name = f'<button data-row="{number}">{escape(result.path.name)}</button>'
    cells = (
        f'<td class="{result.finding}">{finding}</td><td data-label="Synthetic">{_probability(checked)}</td>'
        f'<td data-label="Length">{length}</td><td class="remarks">{escape(_remarks(checked))}</td>'
    )
    return f'<tr><th scope="row">{name}</th>{cells}</tr>'


def _remarks(checked: CheckedFile) -> str:
    """The passages and the conditions of the recording, or why nothing can be said."""
    result = checked.result
    if result.finding == "cannot_say":
        return sentence(result.reason)
    passages = [passages_text(result)] if result.regions else []
    return "; ".join([*passages, *(condition.name.replace("_", " ") for condition in result.conditions)])
