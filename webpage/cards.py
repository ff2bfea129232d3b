"""Pieces of HTML that every job needs: messages, progress, errors, images; and what stands there before a check.

Everything that comes from a visitor or a file is escaped with `escape`. page.css has the looks.
"""

import base64
from collections.abc import Sequence
from html import escape as escape_html
from pathlib import Path

import numpy as np

from common.escaping import printable
from scoring.findings import FINDING_WORDS, unclear_width
from scoring.model_card import ModelCard
from webpage.formatting import error_sentence, sentence
from webpage.jobs import CheckProgress

INTRO = (Path(__file__).parent / "intro.html").read_text(encoding="utf-8")
ICONS = {"likely_genuine": "✓", "unclear": "?", "likely_synthetic": "⚠", "mixed": "◐", "cannot_say": "–"}


def escape(text: str) -> str:
    """`text` on one line, as HTML shows it letter for letter; invisible signs, which may turn it round, are named."""
    return escape_html(printable(text))


def finding_words(finding: str) -> str:
    """The word with its sign."""
    return f'<span aria-hidden="true">{ICONS[finding]}</span> {FINDING_WORDS[finding].capitalize()}'


def message_card(text: str) -> str:
    return f'<div class="card"><p>{escape(text)}</p></div>'


def progress_card(progress: CheckProgress) -> str:
    value = "" if progress.fraction is None else f' value="{progress.fraction:.3f}"'
    text = escape(progress.text)
    return (
        f'<div class="card busy" role="status"><p><i aria-hidden="true"></i>{text} …</p>'
        f'<progress{value} aria-label="{text}"></progress></div>'
    )


def error_card(error: Exception) -> str:
    text = escape(sentence(error_sentence(error)))
    title = '<h2><span aria-hidden="true">✕</span> That did not work</h2>'
    return f'<div class="card cannot_say" role="alert">{title}<p>{text}</p></div>'


def intro_card(card: ModelCard | None, keep_seconds: float) -> str:
    """What a visitor gets, how often the model errs, and what happens to the file."""
    return INTRO.format(errors=escape(errors_sentence(card)), minutes=f"{keep_seconds / 60:g}")


def errors_sentence(card: ModelCard | None) -> str:
    """How often a clear word of the model was wrong on its dev set, or that this is not known."""
    if card is None or card.dev_scores is None or card.threshold is None:
        return "How often this model errs on recordings like yours is not known."
    width, distances = unclear_width(card), []
    for key, side in (("bonafide", 1), ("spoof", -1)):
        distances.append(side * (np.array(card.dev_scores[key]) - card.threshold))  # negative: on the wrong side
    decided = np.mean([np.mean(np.abs(values) > width) for values in distances])
    wrong = np.mean([np.mean(values < -width) for values in distances]) / max(decided, 1e-9)
    clear = "" if decided > 0.99 else f"It calls {100 - round(100 * decided)} in 100 unclear. "
    return (
        f"Measured on {card.dev_scores_of}. {clear}Of its clear words, {max(1, round(100 * wrong))} in 100 are wrong."
    )


def scrollable(content: str, description: str) -> str:
    """Content that scrolls by itself on a narrow screen, by keyboard too."""
    return f'<div class="wide" tabindex="0" role="region" aria-label="{description}">{content}</div>'


def image(pngs: Sequence[bytes], description: str) -> str:
    """A figure, drawn for a white and for a dark page; page.css shows the one that fits."""
    images = "".join(
        f'<img class="on-{ground}" alt="{description}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        for ground, png in zip(("light", "dark"), pngs, strict=True)
    )
    return scrollable(images, description)
