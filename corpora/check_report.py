"""What a check of data sets found: as an object, as JSON, as text of 100 columns and as a figure.

report = examine(partitions, workers=4)      # check.py
print(format_report(report))
write_json(report, "report.json")
write_report_figure(report, "report.png")
"""

import json
import os
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.escaping import printable
from common.files import write_text
from corpora.cues import CUES, TELLING, CueEER
from corpora.trials import MAX_NAMED
from plots.datasets import PartitionSummary, data_set_report
from plots.style import write_figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PROBLEM, NOTE = "problem", "note"  # severities
WIDTH = 100  # columns of the text


@dataclass(frozen=True)
class Finding:
    """One thing that the check found; `items` names every file, speaker or group of files that it is about."""

    severity: str  # PROBLEM or NOTE
    name: str
    where: str  # partition, or partitions
    text: str
    items: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class PartitionFacts:
    """What a partition holds: counts of trials, and by value of files that can be decoded."""

    name: str
    trials: int
    official_count: int | None
    bonafide: int
    spoof: int
    speakers: int
    attacks: dict[str, int]
    decoders: dict[str, int]
    formats: dict[str, int]
    seconds: dict[str, np.ndarray]  # of each file by class, (n,)
    cues: dict[str, CueEER]

    def to_dict(self) -> dict:
        """For JSON: a summary and a histogram instead of each file's duration."""
        longest = max((values.max(initial=0) for values in self.seconds.values()), default=0)
        seconds = {key: _summary(values, longest) for key, values in self.seconds.items()}
        cues = {name: cue._asdict() | {"unit": CUES.get(name), "tells": cue.tells} for name, cue in self.cues.items()}
        return vars(self) | {"seconds": seconds, "cues": cues}


def _summary(seconds: np.ndarray, longest: float) -> dict:
    counts, edges = np.histogram(seconds, 20, (0, longest or 1))
    ends = [round(float(end), 4) for end in np.percentile(seconds, (0, 50, 100))] if len(seconds) else [None] * 3
    names = ("shortest", "median", "longest")
    histogram = {"edges": edges.round(4).tolist(), "counts": counts.tolist()}
    return {"total": round(float(seconds.sum()), 3), **dict(zip(names, ends, strict=True)), "histogram": histogram}


@dataclass(frozen=True)
class CheckReport:
    """All partitions and findings; problems come first."""

    partitions: list[PartitionFacts]
    findings: list[Finding]

    @property
    def problems(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity == PROBLEM]

    def to_dict(self) -> dict:
        """For JSON: rates as fractions, durations in seconds."""
        partitions = {facts.name: facts.to_dict() for facts in self.partitions}
        findings = [asdict(finding) for finding in self.findings]
        return {"problems": len(self.problems), "partitions": partitions, "findings": findings}


def write_json(report: CheckReport, path: str | os.PathLike) -> None:
    write_text(path, json.dumps(report.to_dict(), indent=2, allow_nan=False) + "\n")


# -------------------------------------------------------------------------------------------------------------- text


def format_report(report: CheckReport) -> str:
    """Text of at most 100 columns: counts, formats, cues, then the findings, each with the first of its items."""
    blocks = [_counts_table(report.partitions), _formats_table(report.partitions), _cue_table(report.partitions)]
    blocks += map(_paragraph, report.findings)
    problems, notes = len(report.problems), len(report.findings) - len(report.problems)
    blocks.append(f"{counted(problems, 'problem')}, {counted(notes, 'note')}")
    return "\n\n".join(filter(None, blocks))


def _counts_table(partitions: Sequence[PartitionFacts]) -> str:
    heads = ("trials", "published", "bona fide", "spoof", "speakers", "attacks", "hours")
    lines = [f"{'':<10}" + "".join(f"{head:>11}" for head in heads)]
    for facts in partitions:
        attacks = len(facts.attacks.keys() - {"-"})
        counts = (facts.trials, facts.official_count, facts.bonafide, facts.spoof, facts.speakers, attacks)
        cells = ["–" if count is None else f"{count:,}" for count in counts]
        cells.append(f"{sum(values.sum() for values in facts.seconds.values()) / 3600:.2f}")
        lines.append(f"{_short(facts.name, 10):<10}" + "".join(f"{cell:>11}" for cell in cells))
    return "\n".join(lines)


def _formats_table(partitions: Sequence[PartitionFacts]) -> str:
    lines = [f"{'':<10}{'seconds (shortest, median, longest)':<38}files"]
    for facts in partitions:
        seconds = np.concatenate(list(facts.seconds.values()))
        ends = ", ".join(f"{end:.2f}" for end in np.percentile(seconds, (0, 50, 100))) if len(seconds) else "–"
        formats = [f"{name}: {count:,}" for name, count in list(facts.formats.items())[:MAX_NAMED]]
        formats += ["…"] if len(facts.formats) > MAX_NAMED else []
        for index, text in enumerate(formats or ["–"]):
            lines.append(f"{'' if index else _short(facts.name, 10):<10}{'' if index else ends:<38}{_short(text, 52)}")
    return "\n".join(lines)


def _cue_table(partitions: Sequence[PartitionFacts]) -> str:
    """Empty if no partition has both classes."""
    names = dict.fromkeys(name for facts in partitions for name in facts.cues)
    if not names:
        return ""
    head = "EER (%) of each cue alone and its 95 % interval: 50 tells nothing, * gives the key away"
    lines = [head, (f"{'':<22}" + "".join(f"{_short(facts.name, 15):<17}" for facts in partitions)).rstrip()]
    for name in names:
        cues = [facts.cues.get(name) for facts in partitions]
        cells = ["–" if cue is None else f"{cue.percents}{' *' if cue.tells else ''}" for cue in cues]
        lines.append((f"{name:<22}" + "".join(f"{cell:<17}" for cell in cells)).rstrip())
    return "\n".join(lines)


def _paragraph(finding: Finding) -> str:
    head = printable(f"{finding.severity}: {finding.name} ({finding.where}): {finding.text}")
    lines = textwrap.wrap(head, WIDTH, subsequent_indent="    ")
    for item in finding.items[:MAX_NAMED]:
        lines += textwrap.wrap(_short(item, 3 * WIDTH), WIDTH, initial_indent="    ", subsequent_indent="      ")
    more = len(finding.items) - MAX_NAMED
    return "\n".join([*lines, *([f"    and {more:,} more"] if more > 0 else [])])


def counted(count: int, what: str) -> str:
    """`no files`, `1 file`, `1,234 files`."""
    return f"{f'{count:,}' if count else 'no'} {what}{'' if count == 1 else 's'}"


def _short(text: str, length: int) -> str:
    """`text` without its middle if it is longer than `length`; a path's end names the file."""
    text = printable(text)
    return text if len(text) <= length else f"{text[: length // 3]}…{text[len(text) - (length - length // 3 - 1) :]}"


# ------------------------------------------------------------------------------------------------------------ figure


def report_figure(report: CheckReport) -> "Figure":
    """Counts, durations and cues of each partition."""
    parts = {}
    for facts in report.partitions:
        cues = {name: (cue.eer, cue.low, cue.high) for name, cue in facts.cues.items()}
        parts[facts.name] = PartitionSummary((facts.bonafide, facts.spoof), tuple(facts.seconds.values()), cues)
    return data_set_report(parts, TELLING)


def write_report_figure(report: CheckReport, path: str | os.PathLike) -> None:
    """The ending gives the format: .png, .pdf or .svg. Raises PartFailed."""
    path = Path(path)
    write_figures({path.with_suffix(""): partial(report_figure, report)}, [path.suffix[1:]])
