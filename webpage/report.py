"""The report about one checked recording: pages for print that say what was found, how, and what it does not prove."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from common.files import replacing
from scoring.findings import FINDING_WORDS
from scoring.passages import clock
from scoring.verdict import SCHEMA
from scoring.words import probability_text, verdict_rows
from webpage.cards import errors_sentence
from webpage.formatting import sentence, without_options
from webpage.jobs import CheckedFile

if TYPE_CHECKING:  # matplotlib takes a second to import
    from matplotlib.figure import Figure

    from plots.paper import Paper

MEANINGS = {
    "likely_genuine": "To this model the recording sounds like genuine speech. That does not prove that its words are "
    "true, that nobody cut or rearranged them, or that no unknown generator made them.",
    "unclear": "The score is too close to the threshold for a finding in either direction.",
    "likely_synthetic": "To this model the recording sounds like synthetic or converted speech. That does not prove "
    "that it is: noise, compression and unusual recordings have the same effect.",
    "mixed": "One passage sounds clearly more synthetic than the rest, as if it had been inserted.",
    "cannot_say": "No finding would mean anything here.",
}
HASH = 8.4  # points: as large as 64 digits fit on a line
CITATION = (
    "J. Jung, H.-S. Heo, H. Tak, H. Shim, J. S. Chung, B.-J. Lee, H.-J. Yu, N. Evans: AASIST: Audio Anti-Spoofing "
    "Using Integrated Spectro-Temporal Graph Attention Networks. ICASSP 2022, pp. 6367–6371."
)


def write_report(checked: CheckedFile, figures: Sequence[bytes], path: Path, now: datetime | None = None) -> None:
    """Write the report as PDF, whole or not at all. figures: as PNG with `webpage.figures.DOTS`."""
    import matplotlib
    from matplotlib.backends.backend_pdf import PdfPages

    now = now or datetime.now(UTC)
    title = "Report on a speech recording"
    about = {"Title": f"{title}: {checked.result.path.name}", "CreationDate": now, "Creator": "AASIST"}
    pages = report_pages(checked, figures, title, now)
    with (
        replacing(path) as temporary,
        matplotlib.rc_context({"pdf.fonttype": 42}),
        PdfPages(temporary, metadata=about) as pdf,
    ):
        for page in pages:
            pdf.savefig(page)


def report_pages(checked: CheckedFile, figures: Sequence[bytes], title: str, now: datetime) -> "list[Figure]":
    from plots.paper import Paper

    result, date = checked.result, f"{now.day} {now:%B %Y, %H:%M} UTC"
    paper = Paper(f"{title} · {date} · SHA-256 {checked.sha256[:16]}…")
    paper.title(title)
    length = "" if result.seconds is None else f", {clock(result.seconds)}"
    paper.row("Recording", f"{result.path.name}{length}")
    paper.row("Date", date)
    paper.row("Model", checked.judge.card.name)
    paper.row("Version", f"document schema {SCHEMA}")
    _add_verdict(paper, checked)
    for figure in figures:
        paper.picture(figure)
    _add_details(paper, checked)
    paper.heading("Please cite")
    paper.text(CITATION)
    return paper.pages()


def _add_verdict(paper: "Paper", checked: CheckedFile) -> None:
    from plots.style import FINDING_COLOURS

    result, judge = checked.result, checked.judge
    paper.heading("Finding")
    probability = ""
    if result.finding != "cannot_say" and result.probability_spoof is not None:
        what = "that the passage is synthetic" if result.finding == "mixed" else "that it is synthetic"
        probability = f"probability {what}: {probability_text(result.probability_spoof)}"
    paper.banner(FINDING_WORDS[result.finding].capitalize(), probability, FINDING_COLOURS[result.finding])
    paper.text(sentence(without_options(result.reason)), weight="bold")
    paper.text(MEANINGS[result.finding])
    caution, errors = sentence(judge.caution(result.conditions)), errors_sentence(judge.card)
    paper.text(f"Caution: {caution} {errors} Never accuse anybody because of this report alone.")
    if result.next_steps:
        paper.heading("What to do next")
        for step in result.next_steps:
            paper.text(f"•  {without_options(step)}", space=0.02)


def _add_details(paper: "Paper", checked: CheckedFile) -> None:
    from plots.paper import BODY

    paper.heading("Details")
    shown = [
        row for row in verdict_rows(checked.result, checked.judge) if row[0] not in ("verdict", "reason", "caution")
    ]
    for label, text in [*shown, *provenance(checked)]:
        paper.row(label[:1].upper() + label[1:], without_options(text), HASH if "SHA" in label else BODY)


def provenance(checked: CheckedFile) -> list[tuple[str, str]]:
    """(label, text) of a report: which file was checked by which model, with which settings."""
    model, settings = checked.judge.card, checked.judge.settings
    expected = f"{100 * settings.prior_spoof:g} % spoofs expected"
    return [
        ("file SHA-256", checked.sha256),
        ("model", f"{model.name}, {checked.engine['name']} {checked.engine['precision']}"),
        ("model SHA-256", model.sha256),
        ("trained on", model.trained_on or "not known"),
        ("settings", f"aggregate {settings.aggregate}, overlap {settings.overlap:g}, {expected}"),
    ]
