"""The files that visitors download: JSON, CSV, the figure, the report, and the recording that the browser plays."""

import json
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from audio import SAMPLE_RATE
from audio.reading import Recording
from common.errors import PartFailed
from common.files import write_text
from scoring.results import write_csv
from scoring.words import verdict_rows
from webpage.figures import checked_figure
from webpage.formatting import without_options
from webpage.jobs import CheckedFile
from webpage.report import write_report

EXPORTS = {"json": "JSON", "csv": "CSV", "png": "Figure (PNG)", "pdf": "Report (PDF)"}  # in the order of write_exports


def write_exports(checked: CheckedFile, pngs: Mapping[str, tuple[bytes, bytes]], folder: Path) -> list[str]:
    """Paths of JSON, CSV, PNG and PDF in `folder`; only the first two of a file that could not be read, or drawn.

    pngs: of `recording_pngs`, for the report.
    """
    from plots.style import write_figures

    stem = folder / (checked.result.path.stem or "recording")
    document, table, report = (stem.with_name(f"{stem.name}.{kind}") for kind in ("json", "csv", "pdf"))
    write_text(document, json.dumps(checked.document(), allow_nan=False))
    write_csv(table, [checked.result.to_dict()])
    if checked.sound is None:
        return [str(document), str(table)]
    lines = [(label, without_options(text)) for label, text in verdict_rows(checked.result, checked.judge)]
    drawn: list[Path] = []
    with suppress(PartFailed):  # the page shows the reason in place of the figure
        drawn = write_figures({stem: partial(checked_figure, checked, lines)}, ["png"])
        write_report(checked, [light for light, _ in pngs.values()], report)
        drawn.append(report)
    return [str(path) for path in (document, table, *drawn)]


def write_wav(sound: Path, file: Path) -> None:
    """Write the decoded recording `sound` to `file` in a format that every browser plays."""
    from soundfile import SoundFile

    with SoundFile(file, "w", SAMPLE_RATE, 1, "PCM_16", format="WAV") as out:
        for block in Recording(sound):
            out.write(block)
