"""The files that visitors download: JSON, CSV, the figure, the report, and the recording that the browser plays."""

import json
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

EXPORTS = {"json": "JSON", "csv": "CSV", "png": "Figure (PNG)", "pdf": "Report (PDF)"}  # in the order of write_exports


def write_exports(checked: CheckedFile, folder: Path) -> list[str]:
    """Paths of JSON, CSV, PNG and PDF in `folder`; only the first two of a file that could not be read, or drawn."""
    from plots.style import write_figures

    stem = folder / (checked.result.path.stem or "recording")
    document, table = stem.with_name(f"{stem.name}.json"), stem.with_name(f"{stem.name}.csv")
    write_text(document, json.dumps(checked.document(), allow_nan=False))
    write_csv(table, [checked.result.to_dict()])
    if checked.sound is None:
        return [str(document), str(table)]
    lines = [("file", checked.result.path.name)]
    lines += [(label, without_options(text)) for label, text in verdict_rows(checked.result, checked.judge)]
    figures = []
    with suppress(PartFailed):  # the page shows the reason in place of the figure
        for kind, text in (("png", lines), ("pdf", [*lines, *provenance(checked)])):
            figures += write_figures({stem: partial(checked_figure, checked, text)}, [kind])
    return [str(path) for path in (document, table, *figures)]


def provenance(checked: CheckedFile) -> list[tuple[str, str]]:
    """(label, text) of a report: which file was checked by which model, with which settings."""
    model, settings = checked.judge.card, checked.judge.settings
    expected = f"{100 * settings.prior_spoof:g} % spoofs expected"
    return [
        ("file hash", _grouped(checked.sha256)),
        ("model", f"{model.name}, {checked.engine['name']} {checked.engine['precision']}"),
        ("model hash", _grouped(model.sha256)),
        ("settings", f"aggregate {settings.aggregate}, overlap {settings.overlap:g}, {expected}"),
    ]


def _grouped(sha256: str) -> str:
    return "SHA-256 " + " ".join(sha256[first : first + 16] for first in range(0, len(sha256), 16))


def write_wav(sound: Path, file: Path) -> None:
    """Write the decoded recording `sound` to `file` in a format that every browser plays."""
    from soundfile import SoundFile

    with SoundFile(file, "w", SAMPLE_RATE, 1, "PCM_16", format="WAV") as out:
        for block in Recording(sound):
            out.write(block)
