"""Many files → results, tables and figures on disk. A killed batch continues where it stopped.

Under torchrun the processes divide the files; the first one merges their results and writes the tables.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from common.processes import Processes
from plots.recording import PICTURED_SECONDS
from scoring.detector import Detector, ScoredRecording
from scoring.figure import save_figure
from scoring.results import ResultsFile, process_part_path, write_csv, write_scores
from scoring.verdict import VERDICT_WORDS, FileResult, Judge


@dataclass(frozen=True)
class BatchOutputs:
    """The files that a batch writes; None: not wanted."""

    json: Path | None = None
    csv: Path | None = None
    scores: Path | None = None  # `utt_id score` lines
    figures: Path | None = None  # a folder
    explain: bool = False  # figures show what the lowest chunk's score rests on
    overwrite: bool = False  # score the files again whose results are there

    def document_path(self) -> Path | None:
        """Where results are kept as they come: the JSON, or a file beside a table until the table is written."""
        table = self.csv or self.scores
        return self.json or (table.with_name(f"{table.name}.journal") if table else None)


def score_batch(
    detector: Detector,
    judge: Judge,
    files: list[Path],
    outputs: BatchOutputs,
    workers: int,
    on_result: Callable[[FileResult], object],
) -> int:
    """Score the files that have no result yet and write `outputs`; returns how many files failed.

    A file fails if it cannot be read, or has no score for the score file. Of several processes the first one counts
    all failures, the others their own. on_result: called with each new result of this process.
    """
    processes = Processes(timedelta(days=30))  # one process may need days longer for its files than another
    path, names = outputs.document_path(), [str(file) for file in files]
    header = judge.header() | {"engine": {"name": detector.engine.name, "precision": detector.engine.precision}}
    document = ResultsFile(path, header, outputs.overwrite) if path and processes.is_main else None
    if document:
        document.merge_parts(names)
    to_do = processes.broadcast([file for file in files if document is None or str(file) not in document.offsets])
    if done := len(files) - len(to_do):
        print(
            f"note: {done} of {len(files)} files are in {path} already (--overwrite: score them anew)", file=sys.stderr
        )
    own_document = document
    if path and processes.size > 1:
        own_document = ResultsFile(process_part_path(path, processes.rank), header)
    failures = 0
    keep_seconds = PICTURED_SECONDS if outputs.figures else 0
    for scored in with_progress(detector, judge, to_do[processes.rank :: processes.size], workers, keep_seconds):
        on_result(scored.result)
        failures += scored.result.error is not None
        if own_document:
            own_document.append(scored.result.to_dict())
        if outputs.figures:
            save_figure(scored, judge, detector, outputs.figures, outputs.explain)
    processes.barrier()
    if document:
        document.merge_parts(names)
        failures = sum(result["error"] is not None for result in document.read(names))
        failures += write_tables(document, names, outputs)
    return failures


def write_tables(document: ResultsFile, names: list[str], outputs: BatchOutputs) -> int:
    """Write CSV and score file, remove the document unless it was asked for; returns the files without a score."""
    missing = []
    if outputs.csv:
        write_csv(outputs.csv, document.read(names))
    if outputs.scores:
        missing = write_scores(outputs.scores, document.read(names))
        for name in missing:
            print(f"error: {name} has no score: no line in {outputs.scores}", file=sys.stderr)
    if not outputs.json:
        document.remove()
    return len(missing)


def with_progress(
    detector: Detector, judge: Judge, files: list[Path], workers: int, keep_seconds: float
) -> Iterator[ScoredRecording]:
    """The scored files under a progress bar; at the end a line with the verdicts' counts and the speed."""
    from tqdm import tqdm

    seconds, verdicts, started = 0.0, Counter(), time.monotonic()
    options = {"unit": "file", "dynamic_ncols": True, "leave": False, "miniters": 0, "disable": None}
    with tqdm(total=len(files), **options) as bar:

        def pace() -> str:
            return f"{seconds / 60:.1f} min of audio, {seconds / (time.monotonic() - started):.1f} h an hour"

        def progress(more: float) -> None:
            nonlocal seconds
            seconds += more
            bar.set_postfix_str(pace(), refresh=False)
            bar.update(0)  # shows that a long file advances, too

        for scored in detector.score_recordings(files, judge, min(workers, len(files)), progress, keep_seconds):
            verdicts["unreadable" if scored.result.error else VERDICT_WORDS[scored.result.verdict]] += 1
            yield scored
            bar.update()
    if len(files) > 1:
        counts = ", ".join(f"{number} {name}" for name, number in verdicts.items())
        print(f"{len(files)} files: {counts}; {pace()}", file=sys.stderr)
