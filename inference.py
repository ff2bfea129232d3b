"""Score audio: is this speech bona fide or spoofed?

    python inference.py sample.m4a                                          # the bundled detector, Whisper-broad
    python inference.py sample.m4a --model AASIST                           # the authors' own, downloaded once
    python inference.py --model weights/swa.pth --audio_dir samples/ --batch --save_json
    python inference.py --audio sample.mp3 --explain                        # inference_results/sample.png
    python inference.py --list files.txt --scores scores.txt --aggregate first    # for evaluation.py, as published
    python inference.py --audio claim.m4a --reference known/    # is it this person?
    arecord -q -t raw -f S16_LE -r 16000 -c 1 | python inference.py --stream -

A score is the model's bona fide logit: higher = more bona fide; above the threshold by more than the band of
"unclear", the verdict is "likely genuine". It is no probability. docs/inference.md explains verdicts and conditions.

In Python: `from inference import Detector`, the scoring loop behind every command here.
"""

import os
import sys
from collections import deque
from functools import partial
from pathlib import Path

from audio import SAMPLE_RATE
from audio.reading import ENDINGS
from audio.speech import SpeechDetector
from audio.stream import FORMATS, PcmStream
from common.command import Parser, run
from common.errors import UserError
from common.files import require_folder, require_separate
from scoring.audio_files import find_audio
from scoring.batch import BatchOutputs, score_batch
from scoring.detector import Detector
from scoring.findings import FINDING_WORDS
from scoring.passages import LEAST_SPEECH
from scoring.speaker import Reference
from scoring.verdict import AGGREGATES, FileResult, Judge
from scoring.weights import BUNDLED, KNOWN
from scoring.words import verdict_line, verdict_report

ROLLING_SECONDS = 30  # a stream's verdict is about the chunks of the last so many seconds


def parse_arguments():
    parser = Parser(description=__doc__)
    _add_sources(parser.add_argument_group("what to score").add_argument)
    _add_judging(parser.add_argument_group("how to judge").add_argument)
    _add_outputs(parser.add_argument_group("what to write").add_argument)
    add = parser.add_argument_group("how to compute").add_argument
    add("--engine", choices=("auto", "torch", "onnx", "openvino"), default="auto", help="auto: the fastest one ready")
    add("--precision", choices=("fp32", "bf16", "int8"), default="fp32")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--workers", type=int, default=min(4, os.cpu_count() or 1), metavar="N", help="processes that decode audio")
    args = parser.parse_intermixed_args(_dashes_escaped(sys.argv[1:]))
    args.audio = args.files + args.audio
    _validate(parser, args)
    for option, name in (("save_json", "results.json"), ("save_csv", "results.csv")):
        if getattr(args, option) is True:  # the flag without a path
            setattr(args, option, Path(args.output_dir) / name)
    return args


def _dashes_escaped(arguments: list[str]) -> list[str]:
    """Files after `--` as paths from `.`: intermixed parsing takes those with a dash for options even there."""
    end = arguments.index("--") + 1 if "--" in arguments else len(arguments)
    return arguments[:end] + [os.path.join(".", name) for name in arguments[end:]]


def _add_sources(add) -> None:
    add("--model", default=BUNDLED, metavar="PATH|NAME", help=f"a file, or {', '.join(KNOWN)} (default: %(default)s)")
    add("files", nargs="*", default=[], metavar="FILE", help="any format that FFmpeg decodes, video too")
    add("--audio", nargs="+", default=[], metavar="FILE", help="the same")
    add("--audio_dir", nargs="+", default=[], metavar="DIR", help="every file with an ending of audio or video")
    add("--recursive", action="store_true", help="with --audio_dir: also the folders below")
    add("--list", metavar="FILE", help="a path on each line; - reads them from stdin")
    add("--stream", "--microphone", nargs="?", const="-", choices=["-"], help="raw PCM from stdin")
    add("--stream_rate", type=int, default=SAMPLE_RATE, metavar="HZ", help="of the stream (default: %(default)s)")
    add("--stream_channels", type=int, default=1, metavar="N", help="of the stream (default: %(default)s)")
    add("--stream_format", choices=FORMATS, default="s16le", help="of the stream's samples (default: %(default)s)")
    add("--channel", type=int, metavar="N", help="only this one, counted from 1 (default: the mean of all)")


def _add_judging(add) -> None:
    add("--threshold", type=float, help="scores above it are bona fide (default: the checkpoint's)")
    add("--unclear", type=float, metavar="WIDTH", help="scores so close to the threshold are unclear; 0: none")
    add("--target_far", type=float, metavar="FRACTION", help="the threshold that this fraction of dev spoofs passes")
    add("--prior_spoof", type=float, default=0.5, metavar="P", help="spoofs to expect (default: %(default)s)")
    add("--aggregate", choices=AGGREGATES, default="mean", help="chunk scores → file score (default: %(default)s)")
    help_overlap = "of neighbouring chunks (default: 0.5; --stream: a chunk every second)"
    add("--overlap", type=float, metavar="FRACTION", help=help_overlap)
    add("--reference", nargs="+", metavar="PATH", help="genuine recordings of the person: how similar is the speaker?")


def _add_outputs(add) -> None:
    for option, name in (("--save_json", "results.json"), ("--save_csv", "results.csv")):
        add(option, nargs="?", const=True, metavar="PATH", help=f"without PATH: <output_dir>/{name}")
    add("--scores", metavar="PATH", help="`utt_id score` lines, which evaluation.py reads")
    add("--overwrite", action="store_true", help="score again the files whose results are in --save_json")
    add("--visualize", action="store_true", help="a figure of each file in <output_dir>")
    add("--explain", action="store_true", help="--visualize, with what the lowest chunk's score rests on")
    add("--output_dir", default="inference_results", metavar="DIR", help="(default: %(default)s)")
    add("--batch", action="store_true", help="one line per file, as is usual for several files")
    add("--explain_verdict", action="store_true", help="say what to do next")


def _validate(parser: Parser, args) -> None:
    """Refuse options that contradict each other or are out of range; --explain implies --visualize and torch."""
    sources = bool(args.audio or args.audio_dir or args.list)
    if sources == bool(args.stream):
        parser.error("give files, --audio_dir or --list, or --stream")
    ranges = {"overlap": (0, 0.95), "prior_spoof": (1e-6, 1 - 1e-6), "target_far": (0, 1), "workers": (0, 256)}
    ranges |= {"channel": (1, 1024), "threshold": (-1e9, 1e9), "unclear": (0, 1e9)}
    ranges |= {"stream_rate": (1000, 768_000), "stream_channels": (1, 1024)}
    for option, (low, high) in ranges.items():
        if (value := getattr(args, option)) is not None and not low <= value <= high:
            parser.error(f"--{option}: expected {low:g} … {high:g}, found {value:g}")
    if args.stream and args.channel is not None and args.channel > args.stream_channels:
        parser.error(f"--channel {args.channel}: the stream has {args.stream_channels} (--stream_channels)")
    if args.stream and args.reference:
        parser.error("--reference goes with files, not with --stream")
    if args.threshold is not None and args.target_far is not None:
        parser.error("--threshold and --target_far both set the threshold: give one of them")
    for option in ("save_json", "save_csv", "scores"):  # `--save_csv a.wav b.wav` would write over a recording
        if Path(str(getattr(args, option))).suffix.lower() in ENDINGS:
            parser.error(f"--{option} {getattr(args, option)}: that is the name of a recording; give the files first")
    if args.stream and (args.save_json or args.save_csv or args.scores or args.visualize or args.explain):
        parser.error("--save_json, --save_csv, --scores, --visualize and --explain go with files, not with --stream")
    if args.visualize or args.explain:
        require_folder("--output_dir", args.output_dir)
    if args.explain:
        if args.engine not in ("auto", "torch"):
            parser.error("--explain goes with --engine torch")
        args.engine, args.visualize = "torch", True


def print_result(result: FileResult, judge: Judge, brief: bool, explain: bool = False) -> None:
    """One line, or everything about the file and, with `explain`, what to do next; an error goes to stderr."""
    from tqdm import tqdm  # its `write` leaves the progress bar whole

    if result.error:
        tqdm.write(f"error: {result.error}", file=sys.stderr)
    if brief or not result.error:
        tqdm.write(verdict_line(result) if brief else verdict_report(result, judge, explain), file=sys.stdout)


def print_stream(detector: Detector, judge: Judge, stream: PcmStream) -> int:
    """Print a line for every chunk of the raw PCM on stdin: its score, and the verdict over the last seconds."""
    if sys.stdin.isatty():
        raise UserError("--stream - reads raw PCM from stdin", "a pipe", "a terminal")
    told = "--stream_format, --stream_channels and --stream_rate say otherwise"
    print(f"note: reading {stream} ({told}); a verdict needs {judge.chunk_seconds:.2f} s of sound", file=sys.stderr)
    hop = max(1, round(detector.engine.nb_samp * (1 - judge.settings.overlap)))
    recent, speech = deque(), SpeechDetector()
    for chunk in detector.score_stream(stream, hop, speech):
        if chunk.score is not None and speech.seconds(chunk.start, chunk.end) < LEAST_SPEECH:
            chunk = chunk._replace(score=None)
        recent.append(chunk)
        while recent[0].end <= chunk.end - ROLLING_SECONDS:
            recent.popleft()
        speech.forget(chunk.start)
        now, rolling = (_in_words(score, judge) for score in (chunk.score, judge.aggregate(recent)))
        print(f"{chunk.end:9.2f} s  {now:<27}  last {ROLLING_SECONDS} s: {rolling}", flush=True)
    return 0


def _in_words(score: float | None, judge: Judge) -> str:
    """A score and its finding; where nothing can be said, no score."""
    finding = judge.finding_of(score)
    if score is None:
        return "no speech"
    return FINDING_WORDS[finding] if finding == "cannot_say" else f"{score:.4f} {FINDING_WORDS[finding]}"


def outputs_of(args) -> BatchOutputs:
    json, csv, scores = (Path(path) if path else None for path in (args.save_json, args.save_csv, args.scores))
    figures = Path(args.output_dir) if args.visualize else None
    return BatchOutputs(json, csv, scores, figures, args.explain, args.overwrite)


def reference_of(paths: list[str], nb_samp: int) -> Reference:
    """The reference in files and folders. Raises UserError."""
    folders = [path for path in paths if Path(path).is_dir()]
    return Reference.of_files(find_audio([path for path in paths if path not in folders], None, folders, True), nb_samp)


def main() -> int:
    args = parse_arguments()
    files = [] if args.stream else find_audio(args.audio, args.list, args.audio_dir, args.recursive)
    outputs = {f"--{name}": getattr(args, name) for name in ("save_json", "save_csv", "scores")}
    require_separate(outputs, [*files, args.list, args.model, *(args.reference or [])])
    detector = Detector.from_checkpoint(args.model, args.device, args.engine, args.precision)
    if args.overlap is None:
        args.overlap = 1 - SAMPLE_RATE / detector.engine.nb_samp if args.stream else 0.5
    settings = {name: getattr(args, name) for name in ("prior_spoof", "aggregate", "overlap", "channel", "unclear")}
    reference = reference_of(args.reference, detector.engine.nb_samp) if args.reference else None
    judge = detector.judge(args.threshold, args.target_far, reference, **settings)
    if args.stream:
        form = (args.stream_rate, args.stream_channels, args.stream_format, args.channel)
        return print_stream(detector, judge, PcmStream(sys.stdin.buffer, *form))
    brief = args.batch or len(files) > 1
    show = partial(print_result, judge=judge, brief=brief, explain=args.explain_verdict)
    failures = score_batch(detector, judge, files, outputs_of(args), args.workers, show)
    if failures.files and len(files) == 1:
        return 2
    return 1 if any(failures) else 0


if __name__ == "__main__":
    run(main)
