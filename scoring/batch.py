"""Many files → results, tables and figures on disk. A killed batch continues where it stopped.

Under torchrun the processes divide the files; the first one merges their results and writes the tables.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from common.escaping import printable
from common.files import content_hashes, is_stream
from common.processes import Processes, peers_alive
from plots.recording import PICTURED_SECONDS
from scoring.audio_files import name_utterances, require_distinct
from scoring.detector import Detector, ScoredRecording
from scoring.figure import save_figure
from scoring.findings import FINDING_WORDS
from scoring.results import ResultsFile, process_part_path, write_csv, write_scores
from scoring.verdict import FileResult, Judge

PATIENCE = timedelta(minutes=30)  # how long processes that have met wait for each other


@dataclass(frozen=True)
class BatchOutputs:
    """The files that a batch writes; None: not wanted."""

    json: Path | None = None
    csv: Path | None = None
    scores: Path | None = None  # `utt_id score` lines
    figures: Path | None = None  # a folder
    explain: bool = False  # figures show what the lowest chunk's score rests on
    overwrite: bool = False  # score the files again whose results are there

    @contextmanager
    def kept_results(self) -> Iterator[Path | None]:
        """Where results are kept as they come: the JSON, or a file beside a table until the table is written.

        Beside a device or a pipe there is no place for it, so it is a temporary one.
        """
        wanted = [path for path in (self.json, self.csv, self.scores) if path]
        files = [path for path in wanted if not is_stream(path)]
        if files:
            yield self.json if self.json in files else files[0].with_name(f"{files[0].name}.journal")
        elif wanted:
            with TemporaryDirectory() as folder:
                yield Path(folder, "results.json")
        else:
            yield None


class BatchFailures(NamedTuple):
    """What failed. files: those that cannot be read, or have no score for the score file."""

    files: int
    figures: int


@peers_alive()
def score_batch(
    detector: Detector,
    judge: Judge,
    files: list[Path],
    outputs: BatchOutputs,
    workers: int,
    on_result: Callable[[FileResult], object],
) -> BatchFailures:
    """Score the files that have no result yet and write `outputs`.

    A failed figure is named on stderr. Of several processes the first one counts all failures of files, the others
    their own. on_result: called with each new result of this process. Raises UserError when results cannot be written.
    """
    processes = Processes(PATIENCE)
    utt_ids = name_utterances(files)
    names = [str(file) for file in files]
    if outputs.scores or outputs.figures:
        require_distinct(utt_ids, blanks=not outputs.scores)
    header = judge.header() | {"engine": detector.engine_facts()}
    with outputs.kept_results() if processes.is_main else nullcontext() as path:
        path = processes.broadcast(path)
        kept = path and processes.is_main
        document = _earlier_results(path, header, names, outputs, processes.tick) if kept else None
        processes.meet("start")
        to_do = processes.broadcast(_without_result(files, document))
        part = path and processes.size > 1
        own_document = ResultsFile(process_part_path(path, processes.rank), header, ours=True) if part else document
        own, keep_seconds = to_do[processes.rank :: processes.size], PICTURED_SECONDS if outputs.figures else 0
        scored = with_progress(detector, judge, own, workers, keep_seconds, processes.tick)
        failures, drawn = _record(scored, detector, judge, own_document, outputs, utt_ids, on_result)
        if part:
            own_document.close()
        processes.meet("end")
        drawn = sum(processes.gather(drawn), Counter())
        if document:
            failures = _finish(document, names, utt_ids, outputs)
    if processes.is_main:
        _say_where(outputs, drawn[True])
    return BatchFailures(failures, drawn[False])


def _record(
    recordings: Iterable[ScoredRecording],
    detector: Detector,
    judge: Judge,
    document: ResultsFile | None,
    outputs: BatchOutputs,
    utt_ids: dict[Path, str],
    on_result: Callable[[FileResult], object],
) -> tuple[int, Counter]:
    """Enter each result into the document, draw its figure; returns the files that failed, and figures by success."""
    failures, drawn = 0, Counter()
    for scored in recordings:
        result, utt_id = scored.result, utt_ids[scored.result.path]
        on_result(result)
        failures += result.error is not None
        if document:
            document.append(result.to_dict() | {"utt_id": utt_id})
        if outputs.figures and not result.error:
            drawn[_draw(scored, judge, detector, outputs, utt_id)] += 1
    return failures, drawn


def _earlier_results(
    path: Path, header: dict, names: list[str], outputs: BatchOutputs, on_progress: Callable[[], object]
) -> ResultsFile:
    """The document, with those results of an earlier run that still hold, also from processes that were killed."""
    document = ResultsFile(path, header, outputs.overwrite, ours=path != outputs.json)
    document.merge_parts(names)
    if outdated := _outdated(document, names, on_progress):
        document.drop(outdated)
    return document


def _finish(document: ResultsFile, names: list[str], utt_ids: dict[Path, str], outputs: BatchOutputs) -> int:
    """Gather the results of all processes and write the tables; returns the files that failed."""
    document.merge_parts(names)
    failures = sum(result["error"] is not None for result in document.read(names))
    failures += write_tables(document, utt_ids, outputs)
    document.close()
    return failures


def _outdated(document: ResultsFile, names: list[str], on_progress: Callable[[], object]) -> set[str]:
    """The files whose result in the document is of other bytes, or an error that may be gone; notes count them."""
    from tqdm import tqdm

    kept = [name for name in names if name in document.offsets]
    changed, failed = set(), set()
    hashes = tqdm(content_hashes(kept), "check kept results", len(kept), delay=1, leave=False, disable=None)
    for result, found in zip(document.read(kept), hashes, strict=True):
        on_progress()
        if result["error"] is not None:
            failed.add(result["file"])
        elif found is None or result.get("sha256") != found:
            changed.add(result["file"])
    for files, what in ((changed, "changed since they were scored"), (failed, "could not be scored before")):
        if files:
            note = f"note: {len(files)} of the {len(kept)} files with a result in {document.path} {what}: scored anew"
            print(printable(note), file=sys.stderr)
    return changed | failed


def _without_result(files: list[Path], document: ResultsFile | None) -> list[Path]:
    """The files that the document holds no result of; a note on stderr counts the others."""
    to_do = [file for file in files if document is None or str(file) not in document.offsets]
    if done := len(files) - len(to_do):
        note = f"note: {done} of {len(files)} files are in {document.path} already (--overwrite: score them anew)"
        print(printable(note), file=sys.stderr)
    return to_do


def _draw(scored: ScoredRecording, judge: Judge, detector: Detector, outputs: BatchOutputs, utt_id: str) -> bool:
    """Write <utt_id>.png and .pdf, print what explains the lowest score; returns whether that worked.

    A figure that fails, for any reason, is named.
    """
    from tqdm import tqdm  # its `write` leaves the progress bar whole

    try:
        sentence = save_figure(scored, judge, detector, outputs.figures / utt_id, outputs.explain)
    except Exception as error:
        tqdm.write(printable(f"error: no figure of {scored.result.path}: {error}"), file=sys.stderr)
        return False
    if sentence:
        tqdm.write(f"  {'explained':<13}{sentence}", file=sys.stdout)
    return True


def _say_where(outputs: BatchOutputs, figures: int) -> None:
    """Print where the files are."""
    written = [str(path) for path in (outputs.json, outputs.csv, outputs.scores) if path and not is_stream(path)]
    if figures:
        written.append(f"{outputs.figures}/ ({figures} figure{'s' * (figures != 1)}, each as PNG and PDF)")
    if written:
        print(printable(f"written to {', '.join(written)}"), file=sys.stderr)


def write_tables(document: ResultsFile, utt_ids: dict[Path, str], outputs: BatchOutputs) -> int:
    """Write CSV and score file, remove the document unless it was asked for; returns the files without a score."""
    missing = []

    def results() -> Iterator[dict]:
        for result, utt_id in zip(document.read(map(str, utt_ids)), utt_ids.values(), strict=True):
            yield result | {"utt_id": utt_id}  # an earlier run of fewer files may have called it otherwise

    if outputs.csv:
        write_csv(outputs.csv, results())
    if outputs.scores:
        missing = write_scores(outputs.scores, results())
        for name in missing:
            print(printable(f"error: {name} has no score: no line in {outputs.scores}"), file=sys.stderr)
    if document.path != outputs.json:
        if outputs.json:
            document.copy_to(outputs.json)
        document.remove()
    return len(missing)


def with_progress(
    detector: Detector,
    judge: Judge,
    files: list[Path],
    workers: int,
    keep_seconds: float,
    on_progress: Callable[[], object],
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
            on_progress()
            bar.set_postfix_str(pace(), refresh=False)
            bar.update(0)  # shows that a long file advances, too

        for scored in detector.score_recordings(files, judge, min(workers, len(files)), progress, keep_seconds):
            verdicts["unreadable" if scored.result.error else FINDING_WORDS[scored.result.finding]] += 1
            yield scored
            bar.update()
    if len(files) > 1:
        counts = ", ".join(f"{number} {name}" for name, number in verdicts.items())
        print(f"{len(files)} files: {counts}; {pace()}", file=sys.stderr)
