"""Score audio: is this speech bona fide or spoofed?

    python inference.py --audio sample.m4a                                  # by LCNN-mixed, which comes along
    python inference.py --audio sample.m4a --model AASIST                   # by the authors' own, downloaded once
    python inference.py --model weights/swa.pth --audio_dir samples/ --batch --save_json
    python inference.py --audio sample.mp3 --visualize --explain            # inference_results/sample.png
    python inference.py --list files.txt --scores scores.txt --aggregate first    # for evaluation.py, as published
    arecord -q -t raw -f S16_LE -r 16000 -c 1 | python inference.py --stream -

A score is the model's bona fide logit: higher = more bona fide; above the threshold the verdict is "bona fide". It is
no probability. Every scoring in this repository, that of training too, goes through `Detector`. docs/inference.md says
what verdicts, thresholds and conditions mean.
"""

import os
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np

from audio import SAMPLE_RATE, reading
from audio.chunks import fit
from audio.reading import Recording
from common.command import Parser, run
from common.errors import UserError
from common.processes import Processes
from plots.recording import PICTURED_SECONDS
from scoring.detector import Detector
from scoring.results import Journal, part_path, write_csv, write_scores
from scoring.verdict import (
    AGGREGATES,
    VERDICT_WORDS,
    ChunkScore,
    FileResult,
    Judge,
    verdict_line,
    verdict_report,
    verdict_rows,
)
from scoring.weights import BUNDLED, KNOWN

ROLLING_SECONDS = 30  # what a stream's verdict looks back on


# -------------------------------------------------------------------------------------------------- files and results


def find_files(args) -> list[Path]:
    """The files asked for, each once, in order. Raises UserError when there are none."""
    files = [Path(name) for name in args.audio]
    if args.list:
        try:
            data = sys.stdin.buffer.read() if args.list == "-" else Path(args.list).read_bytes()
        except OSError as error:
            raise UserError(
                f"cannot read list {args.list}", "a file with a path on each line", error.strerror
            ) from error
        files += [Path(name.rstrip("\r")) for name in os.fsdecode(data).split("\n") if name.strip()]
    for name in args.audio_dir:
        files += files_below(Path(name), args.recursive)
    if not files:
        raise UserError("nothing to score", "at least one file", "none")
    return list(dict.fromkeys(files))


def files_below(folder: Path, recursive: bool) -> list[Path]:
    """Audio and video files by their endings, sorted; what is left out is said. Raises UserError if it is no folder."""
    if not folder.is_dir():
        raise UserError(f"--audio_dir {folder}", "a folder", "a file" if folder.exists() else "nothing there")
    there = sorted(path for path in (folder.rglob("*") if recursive else folder.iterdir()) if path.is_file())
    found = [path for path in there if path.suffix.lower() in reading.ENDINGS]
    if others := len(there) - len(found):
        print(f"note: {others} files in {folder} have no ending of audio or video and are left out", file=sys.stderr)
    if not found:
        raise UserError(f"--audio_dir {folder}", "audio or video files", "none" if recursive else "none (--recursive?)")
    return found


def score_batch(detector: Detector, judge: Judge, files: list[Path], args) -> int:
    """Score the files that the journal does not hold, print and write what was asked for; returns the exit code."""
    processes = Processes(timedelta(days=30))  # a share of the files may take days longer than another
    names = [str(file) for file in files]
    header = judge.header() | {"engine": {"name": detector.engine.name, "precision": detector.engine.precision}}
    path, journal = journal_path(args), None
    if path and processes.rank == 0:
        journal = Journal(path, header, args.overwrite)
        journal.gather(names)
    to_do = processes.broadcast([file for file in files if journal is None or str(file) not in journal.places])
    if done := len(files) - len(to_do):
        print(
            f"note: {done} of {len(files)} files are in {path} already (--overwrite: score them anew)", file=sys.stderr
        )
    mine = to_do[processes.rank :: processes.size]
    part = journal if processes.size == 1 or not path else Journal(part_path(path, processes.rank), header)
    failures = 0
    for result in watch(detector, judge, mine, args.workers):
        show(result, judge, brief=args.batch or len(files) > 1)
        failures += result.error is not None
        if part:
            part.append(result.to_dict())
        if args.visualize:
            picture(result, judge, detector, args)
    processes.barrier()
    if journal:
        journal.gather(names)
        failures = sum(result["error"] is not None for result in journal.read(names))
        failures += write_tables(journal, names, args)
    return 0 if not failures else 1 if len(files) > 1 else 2


def journal_path(args) -> Path | None:
    """Where results are kept as they come: the JSON asked for, or a file beside the table that is made at the end."""
    table = args.save_csv or args.scores
    return Path(args.save_json) if args.save_json else Path(f"{table}.journal") if table else None


def write_tables(journal: Journal, names: list[str], args) -> int:
    """Write CSV and scores from the journal, which goes unless it was asked for; returns the files without a score."""
    missing = []
    if args.save_csv:
        write_csv(Path(args.save_csv), journal.read(names))
    if args.scores:
        missing = write_scores(Path(args.scores), journal.read(names))
        for name in missing:
            print(f"error: {name} has no score: no line in {args.scores}", file=sys.stderr)
    if not args.save_json:
        journal.remove()
    return len(missing)


def watch(detector: Detector, judge: Judge, files: list[Path], workers: int) -> Iterator[FileResult]:
    """The files' results under a progress bar, and at the end what they were and how fast they came."""
    from tqdm import tqdm

    seconds, verdicts, started = 0.0, Counter(), time.monotonic()
    options = {"unit": "file", "dynamic_ncols": True, "leave": False, "miniters": 0, "disable": None}
    with tqdm(total=len(files), **options) as bar:

        def pace() -> str:
            return f"{seconds / 60:.1f} min of audio, {seconds / (time.monotonic() - started):.1f} h an hour"

        def heard(more: float) -> None:
            nonlocal seconds
            seconds += more
            bar.set_postfix_str(pace(), refresh=False)
            bar.update(0)  # a long file, too, is seen to go on

        for result in detector.score_files(files, judge, min(workers, len(files)), heard):
            verdicts["unreadable" if result.error else VERDICT_WORDS[result.verdict]] += 1
            yield result
            bar.update()
    if len(files) > 1:
        parts = ", ".join(f"{number} {name}" for name, number in verdicts.items())
        print(f"{len(files)} files: {parts}; {pace()}", file=sys.stderr)


def show(result: FileResult, judge: Judge, brief: bool) -> None:
    """Print one result: a line, or all there is to say."""
    from tqdm import tqdm

    if result.error:
        tqdm.write(f"error: {result.error}", file=sys.stderr)
    if brief or not result.error:
        tqdm.write(verdict_line(result) if brief else verdict_report(result, judge), file=sys.stdout)


def picture(result: FileResult, judge: Judge, detector: Detector, args) -> None:
    """Draw the recording and its scores to <output_dir>/<utt_id>.png and .pdf."""
    from plots.recording import Timeline, recording_figure
    from plots.style import write_figure

    if result.error:
        return
    samples = None
    if result.seconds <= PICTURED_SECONDS:
        samples = np.concatenate(list(Recording(result.path, args.channel)))
    timeline = Timeline(*(np.array(values, float) for values in zip(*result.chunks, strict=True)))
    saliency = explain_lowest(result, samples, detector) if args.explain and samples is not None else None
    lines = [*verdict_rows(result, judge), ("file", result.path.name)]
    figure = recording_figure(
        samples, SAMPLE_RATE, timeline, judge.settings.threshold, result.regions, lines, saliency=saliency
    )
    write_figure(figure, Path(args.output_dir) / result.path.stem)


def explain_lowest(result: FileResult, samples: np.ndarray, detector: Detector):
    """What the lowest chunk's score rests on (None: no chunk has a score)."""
    from scoring.explain import saliency

    scored = [chunk for chunk in result.chunks if chunk.score is not None]
    if not scored:
        return None
    start = min(scored, key=lambda chunk: chunk.score).start
    chunk = fit(samples[round(start * SAMPLE_RATE) :], detector.engine.nb_samp)
    return saliency(detector.engine.model, chunk, start)


def stream(detector: Detector, judge: Judge) -> int:
    """Print a line for every chunk of the raw PCM on stdin: its score, and the verdict over the last seconds."""
    if sys.stdin.isatty():
        raise UserError("--stream - reads raw PCM from stdin", "a pipe", "a terminal")
    print(f"note: a verdict needs {judge.chunk_seconds:.2f} s of sound", file=sys.stderr)
    hop = max(1, round(detector.engine.nb_samp * (1 - judge.settings.overlap)))
    recent: deque[ChunkScore] = deque()
    for chunk in detector.score_stream(sys.stdin.buffer, hop):
        recent.append(chunk)
        while recent[0].end <= chunk.end - ROLLING_SECONDS:
            recent.popleft()
        now = "silent" if chunk.score is None else f"{chunk.score:.4f} {VERDICT_WORDS[judge.verdict(chunk.score)]}"
        score = judge.aggregate(recent)
        whole = "" if score is None else f"{score:.4f} {VERDICT_WORDS[judge.verdict(score)]}"
        print(f"{chunk.end:9.2f} s  {now:<20}  last {ROLLING_SECONDS} s: {whole}", flush=True)
    return 0


# ------------------------------------------------------------------------------------------------------ command line


def parse_arguments():
    parser = Parser(description=__doc__)
    add = parser.add_argument_group("what to score").add_argument
    add("--model", default=BUNDLED, metavar="PATH|NAME", help=f"a file, or {', '.join(KNOWN)} (default: %(default)s)")
    add("--audio", nargs="+", default=[], metavar="FILE", help="any format that FFmpeg decodes, video too")
    add("--audio_dir", nargs="+", default=[], metavar="DIR", help="every file with an ending of audio or video")
    add("--recursive", action="store_true", help="with --audio_dir: folders below, too")
    add("--list", metavar="FILE", help="a path on each line; - reads them from stdin")
    add("--stream", "--microphone", nargs="?", const="-", choices=["-"], help="raw PCM from stdin: s16le, mono, 16 kHz")
    add("--channel", type=int, metavar="N", help="only this one, counted from 1 (default: the mean of all)")

    add = parser.add_argument_group("how to judge").add_argument
    add("--threshold", type=float, help="scores above it are bona fide (default: the checkpoint's)")
    add("--target_far", type=float, metavar="SHARE", help="the threshold that this share of dev spoofs passes")
    add("--prior_spoof", type=float, default=0.5, metavar="P", help="spoofs to expect (default: %(default)s)")
    add("--aggregate", choices=AGGREGATES, default="mean", help="a file's score of its chunks' (default: %(default)s)")
    add(
        "--overlap", type=float, metavar="SHARE", help="of neighbouring chunks (default: 0.5; --stream: a chunk each s)"
    )

    add = parser.add_argument_group("what to write").add_argument
    for option, name in (("--save_json", "results.json"), ("--save_csv", "results.csv")):
        add(option, nargs="?", const=name, metavar="PATH", help=f"(default: <output_dir>/{name})")
    add("--scores", metavar="PATH", help="`utt_id score` lines, which evaluation.py reads")
    add("--overwrite", action="store_true", help="score anew what is in --save_json already")
    add("--visualize", action="store_true", help="a figure of each file in <output_dir>")
    add("--explain", action="store_true", help="with --visualize: what the lowest chunk's score rests on")
    add("--output_dir", default="inference_results", metavar="DIR", help="(default: %(default)s)")
    add("--batch", action="store_true", help="a line per file, as always for more than one")

    add = parser.add_argument_group("how to compute").add_argument
    add("--engine", choices=("auto", "torch", "onnx", "openvino"), default="auto", help="auto: the fastest there is")
    add("--precision", choices=("fp32", "bf16", "int8"), default="fp32")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--workers", type=int, default=min(4, os.cpu_count() or 1), metavar="N", help="processes that decode audio")
    args = parser.parse_args()
    check(parser, args)
    return args


def check(parser: Parser, args) -> None:
    """Refuse what contradicts itself, and fill in what depends on other options."""
    sources = bool(args.audio or args.audio_dir or args.list)
    if sources == bool(args.stream):
        parser.error("give --audio, --audio_dir or --list, or --stream")
    within = {"overlap": (0, 0.95), "prior_spoof": (1e-6, 1 - 1e-6), "target_far": (0, 1), "workers": (0, 256)}
    within |= {"channel": (1, 1024), "threshold": (-1e9, 1e9)}
    for option, (low, high) in within.items():
        if (value := getattr(args, option)) is not None and not low <= value <= high:
            parser.error(f"--{option}: expected {low:g} … {high:g}, found {value:g}")
    if args.threshold is not None and args.target_far is not None:
        parser.error("--threshold and --target_far are two ways to say one thing: give one")
    if args.explain:
        if args.engine not in ("auto", "torch") or not args.visualize:
            parser.error("--explain goes with --visualize and --engine torch")
        args.engine = "torch"
    for option in ("save_json", "save_csv"):
        if getattr(args, option) in ("results.json", "results.csv"):
            setattr(args, option, str(Path(args.output_dir) / getattr(args, option)))


def main() -> int:
    args = parse_arguments()
    files = [] if args.stream else find_files(args)
    if args.scores or args.visualize:
        check_names(files)
    detector = Detector.from_checkpoint(args.model, args.device, args.engine, args.precision)
    if args.overlap is None:
        args.overlap = 1 - SAMPLE_RATE / detector.engine.nb_samp if args.stream else 0.5
    settings = {name: getattr(args, name) for name in ("prior_spoof", "aggregate", "overlap", "channel")}
    judge = detector.judge(args.threshold, args.target_far, **settings)
    return stream(detector, judge) if args.stream else score_batch(detector, judge, files, args)


def check_names(files: list[Path]) -> None:
    """Score files and figures are named by utt_id. Raises UserError when two files share one or a name has blanks."""
    seen = {}
    for file in files:
        if len(file.stem.split()) != 1:
            raise UserError("--scores and --visualize name files without their ending", "no blanks", repr(file.stem))
        if file.stem in seen:
            raise UserError(f"two files are called {file.stem}", "names that differ", f"{seen[file.stem]} and {file}")
        seen[file.stem] = file


if __name__ == "__main__":
    run(main)
