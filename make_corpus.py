"""Make a corpus in the ASVspoof2019 LA layout from a folder of human speech: your language, your channel.

    python make_corpus.py --bonafide recordings/ --out my_corpus
    python make_corpus.py --bonafide recordings/ --out my_corpus --attacks griffin_lim lpc --eval_attacks world
    python main.py --config config/AASIST.conf --database_path my_corpus

Spoofs are copies of the same recordings, made by vocoders (copy-synthesis). A first-level subfolder is a speaker, and
no speaker is in two partitions. Level, margins of quiet, band and noise floor are drawn alike for both classes, so that
only the vocoder gives a spoof away. sources.csv lists what each utterance was made from. See docs/make_corpus.md.

    python make_corpus.py rebuild --help      # the bundled detector's training corpus, from clones of repositories
"""

import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from audio.vocoders import VOCODERS
from common.command import Parser, run
from common.errors import UserError
from common.escaping import printable
from corpora.cutting import find_recordings
from corpora.from_recordings import MadeCorpusSettings, build_made_corpus
from corpora.la_layout import LETTERS
from corpora.rebuild import rebuild
from corpora.recording_list import BUNDLED, by_file, read_list, source_lines


def main() -> int:
    """Command line."""
    if sys.argv[1:2] == ["rebuild"]:
        return rebuild_from_clones(parse_rebuild_options(sys.argv[2:]))
    options = parse_options()
    attacks = (options.attacks, options.dev_attacks or options.attacks, options.eval_attacks or options.attacks)
    attacks_of = {name: list(dict.fromkeys(names)) for name, names in zip(LETTERS, attacks, strict=True)}
    seconds, split = tuple(options.seconds), tuple(options.split)
    settings = MadeCorpusSettings(attacks_of, options.seed, seconds, split, options.spoofs)
    sources = find_recordings(options.bonafide, options.speakers)
    utterances, failures = build_made_corpus(options.out, sources, settings, options.workers)
    for partition in LETTERS:
        ours = [utterance for utterance in utterances if utterance.partition == partition]
        speakers, bonafide = len({u.speaker for u in ours}), sum(u.attack == "-" for u in ours)
        print(f"{partition:5}  {speakers} speakers, {bonafide} bona fide, {len(ours) - bonafide} spoof")
    if failures:
        print(f"{failures} of {len(sources)} recordings could not be read", file=sys.stderr)
    return int(failures > 0)


def parse_options():
    """The command line's options. Raises UserError for values that make no corpus."""
    parser = Parser(description=__doc__)
    parser.add_argument("--bonafide", type=Path, required=True, help="folder of human speech, a subfolder per speaker")
    parser.add_argument("--speakers", type=Path, help="CSV with columns path (below the folder) and speaker")
    parser.add_argument("--out", type=Path, required=True, help="folder of the corpus")
    vocoders = f"of {', '.join(VOCODERS)}"
    default = ["griffin_lim", "lpc", "sinusoidal"]
    parser.add_argument("--attacks", nargs="+", default=default, help=f"{vocoders} (default: {' '.join(default)})")
    parser.add_argument("--dev_attacks", nargs="+", help="default: as --attacks")
    parser.add_argument("--eval_attacks", nargs="+", help="default: as --attacks")
    parser.add_argument("--spoofs", type=int, default=1, help="spoofs of each piece of speech (default: %(default)s)")
    seconds = {"metavar": ("MIN", "MAX"), "help": "of speech in an utterance (default: 3 8)"}
    parser.add_argument("--seconds", type=float, nargs=2, default=(3, 8), **seconds)
    split = {"metavar": ("TRAIN", "DEV", "EVAL"), "help": "proportions of the speakers (default: 0.6 0.2 0.2)"}
    parser.add_argument("--split", type=float, nargs=3, default=(0.6, 0.2, 0.2), **split)
    parser.add_argument("--seed", type=int, default=1234, help="same seed, same files (default: %(default)s)")
    workers = "worker processes; 0: none (default: %(default)s)"
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help=workers)
    options = parser.parse_args()
    shortest, longest = options.seconds
    if not 1 <= shortest < longest <= 60:
        raise UserError("--seconds", "1 ≤ MIN < MAX ≤ 60", f"{shortest:g} {longest:g}")
    if min(options.split) <= 0 or not np.isfinite(options.split).all():
        raise UserError("--split", "three numbers above 0", " ".join(f"{number:g}" for number in options.split))
    for name, low in (("seed", 0), ("spoofs", 1), ("workers", 0)):
        if getattr(options, name) < low:
            raise UserError(f"--{name}", f"{low} or more", getattr(options, name))
    source, out = options.bonafide.resolve(), options.out.resolve()
    if source.is_relative_to(out) or out.is_relative_to(source):
        raise UserError("--out", f"a folder neither in nor around {options.bonafide}", options.out)
    return options


# ---- make_corpus.py rebuild ---------------------------------------------------------------------------------------

REBUILD = """Make the training corpus of the bundled detector again, from clones of the repositories of its recordings.

    python make_corpus.py rebuild --list_sources --clones clones > clone.sh      # read it, then: sh clone.sh
    python make_corpus.py rebuild --clones clones --out data/broad
    python data_utils.py check csv:data/broad/clips.csv

A recording that is missing or is not as listed is named at the end (exit code 1); run the command again when it is
there, and what is made is kept. See docs/rebuild.md.
"""


def parse_rebuild_options(arguments: list[str]):
    parser = Parser(prog="make_corpus.py rebuild", description=REBUILD)
    clones = "folder of clones, OWNER/NAME each (default: %(default)s)"
    parser.add_argument("--clones", type=Path, default=Path("clones"), help=clones)
    doing = parser.add_mutually_exclusive_group(required=True)
    doing.add_argument("--list_sources", action="store_true", help="print the shell commands that clone them")
    doing.add_argument("--out", type=Path, help="folder of the corpus")
    recordings = "list of recordings (default: those of the bundled detector)"
    parser.add_argument("--recordings", type=Path, default=BUNDLED, metavar="CSV", help=recordings)
    workers = "processes that decode; 0: none (default: %(default)s)"
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help=workers)
    options = parser.parse_args(arguments)
    if options.workers < 0:
        raise UserError("--workers", "0 or more", options.workers)
    return options


def rebuild_from_clones(options) -> int:
    """`make_corpus.py rebuild`; returns the exit code."""
    clips = read_list(options.recordings)
    if options.list_sources:
        print(*map(printable, source_lines(clips, options.clones)), sep="\n")
        return 0
    made, problems = rebuild(clips, options.clones, options.out, options.workers)
    clips_of = Counter(clip.source for clip in clips)
    for what, files in problems.items():
        print(printable(f"missing: {what} (clips: {sum(clips_of[file] for file in files):,})"), file=sys.stderr)
    if unknown := Counter(clip.source.repository for clip in clips if not clip.source.file):
        parts = ", ".join(f"{name} {count:,}" for name, count in unknown.items())
        note = f"note: {unknown.total():,} clips are of files that the list does not name: {parts}"
        print(printable(note), file=sys.stderr)
    possible = [clip for clip in clips if clip.source.file]
    for key in ("bonafide", "spoof"):
        counts = [sum(clip.key == key for clip in some) for some in (made, possible)]
        print(f"{key}: {counts[0]:,} of {counts[1]:,} clips")
    if problems:
        print(f"{sum(map(len, problems.values())):,} of {len(by_file(clips)):,} files are missing", file=sys.stderr)
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(run(main))
