"""Make a corpus in the ASVspoof2019 LA layout from a folder of human speech: your language, your channel.

    python make_corpus.py --bonafide recordings/ --out my_corpus
    python make_corpus.py --bonafide recordings/ --out my_corpus --attacks griffin_lim lpc --eval_attacks world
    python main.py --config config/AASIST.conf --database_path my_corpus

Spoof is copy-synthesis of the same recordings by the vocoders of vocoders.py. A first-level subfolder is a speaker, and
no speaker is in two partitions. Level, margins of quiet, band and noise floor are drawn alike for both classes, so that
the vocoder alone gives a spoof away. sources.csv says what each utterance was made from. docs/make_corpus.md has more.
"""

import csv
import json
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import soundfile
from numpy.random import Generator, default_rng
from scipy import signal
from tqdm import tqdm

from audio import SAMPLE_RATE as RATE
from audio import reading
from audio.vocoders import VOCODERS, vocode
from common.command import Parser, run
from common.errors import UserError
from common.files import replacing, write_text
from common.pool import map_in_order
from corpora.demo import PARTITIONS, match_spectrum, read_stamp, replacing_folder
from metrics.scores import listing

FORMAT, VERSION = "AASIST made corpus", 1
FRAME = RATE // 50  # samples whose level is one: 20 ms
CONTEXT = 13  # frames of quiet kept around speech until it is finished: more than the widest margin
QUIET, FLOOR = 1e-4, 1e-6  # power below which a frame is quiet: of the loudest frame; of full scale
MARGIN = (0.02, 0.2)  # s of quiet left at each end
LEVEL = (-34, -26)  # dBFS, RMS
BAND = (80, (6600, 7400))  # Hz: lower edge; range of the upper one
HISS = (-58, -50)  # dB below the speech: what lies above the band has the same power in both classes
GROUP = 8  # pieces of a recording that a process makes at a time


@dataclass(frozen=True)
class Settings:
    """What decides the corpus beside the recordings; written into its stamp."""

    attacks: dict[str, list[str]]  # of each partition
    seed: int
    seconds: tuple[float, float]
    split: tuple[float, float, float]
    spoofs: int  # copies of each piece


@dataclass(frozen=True)
class Source:
    """A recording."""

    index: int  # in the sorted list of all
    path: Path
    name: str  # below the folder
    speaker: str


@dataclass(frozen=True)
class Piece:
    """A stretch of a recording, in samples."""

    source: Source
    start: int
    stop: int


@dataclass(frozen=True)
class Utterance:
    """One protocol line and how its audio is made."""

    partition: str
    number: int  # counts through the partition in random order
    speaker: int  # counts through the corpus
    piece: Piece
    copy: int  # 0 for bona fide, then the spoofs of the piece
    attack: str  # a vocoder, "-" for bona fide

    @property
    def utt_id(self) -> str:
        return f"MC_{PARTITIONS[self.partition][0]}_{self.number:06d}"

    @property
    def line(self) -> str:
        return f"MC_{self.speaker:04d} {self.utt_id} - {self.attack} {'bonafide' if self.attack == '-' else 'spoof'}"


# ---- recordings and their speakers --------------------------------------------------------------------------------


def find_sources(folder: Path, speakers: Path | None) -> list[Source]:
    """All recordings below `folder` with their speakers, by path. Raises UserError where there are none."""
    if not folder.is_dir():
        raise UserError(f"--bonafide {folder}", "a folder", "a file" if folder.exists() else "nothing there")
    if speakers:
        named = read_speakers(speakers)
    else:
        there = [path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir()]
        files = [path for path in there if path.suffix.lower() in reading.ENDINGS]
        if others := len(there) - len(files):
            print(f"note: {others} files in {folder} have no ending of audio and are left out", file=sys.stderr)
        named = {str(file): file.parts[0] for file in files}
        if alone := sum(len(file.parts) == 1 for file in files):
            print(f"note: {alone} files lie in {folder} itself: each counts as a speaker of its own", file=sys.stderr)
    if not named:
        raise UserError(f"nothing in {folder}", f"audio files ({' '.join(sorted(reading.ENDINGS))})", "none")
    return [Source(i, folder / name, name, speaker) for i, (name, speaker) in enumerate(sorted(named.items()))]


def read_speakers(path: Path) -> dict[str, str]:
    """`path,speaker` lines under that header → speaker by path. Raises UserError for anything else."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            rows = list(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path}", "a CSV file", getattr(error, "strerror", None) or error) from error
    if not {"path", "speaker"} <= set(table.fieldnames or ()):
        raise UserError(f"{path}", "columns path and speaker", ", ".join(table.fieldnames or ["nothing"]))
    named = {}
    for row in rows:
        name, speaker = row["path"], row["speaker"]
        if not name or not speaker:
            raise UserError(f"{path}", "a path and a speaker in every line", ",".join(map(str, row.values())))
        name = os.path.normpath(name)
        if named.setdefault(name, speaker) != speaker:
            raise UserError(f"{path}: {name}", "one speaker", f"{named[name]} and {speaker}")
    return named


def split_speakers(speakers: Iterable[str], split: Sequence[float], seed: int) -> dict[str, list[str]]:
    """Each partition's speakers, by shares `split`, at least one each. Raises UserError for fewer than three."""
    names = sorted(set(speakers))
    if len(names) < 3:
        expected = "3 speakers or more, as none may be in two of train, dev and eval"
        raise UserError("too few speakers with usable speech", expected, len(names))
    shuffled = [names[i] for i in default_rng([seed, 0]).permutation(len(names))]
    ends = np.rint(np.cumsum(split) / np.sum(split) * len(names)).astype(int)
    first = int(np.clip(ends[0], 1, len(names) - 2))
    second = int(np.clip(ends[1], first + 1, len(names) - 1))
    return dict(zip(PARTITIONS, (shuffled[:first], shuffled[first:second], shuffled[second:]), strict=True))


# ---- cutting ------------------------------------------------------------------------------------------------------


def active(samples: np.ndarray) -> np.ndarray:
    """The indices of the 20 ms frames of `samples` (n,) that are not quiet."""
    levels = frame_levels(samples)
    return np.flatnonzero(levels > max(QUIET * levels.max(initial=0), FLOOR))


def frame_levels(samples: np.ndarray) -> np.ndarray:
    """The power of each whole 20 ms frame of `samples` (n,), full scale 1."""
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    return np.mean(np.square(frames, dtype=np.float64), axis=1)


def cut(samples: np.ndarray, shortest: float, longest: float) -> list[tuple[int, int]]:
    """Stretches (start, stop) of `samples` (n,) with `shortest` to `longest` seconds of speech, cut at quiet moments.

    Up to 0.26 s of quiet stays around the speech of a stretch.
    """
    levels = frame_levels(samples)
    around = np.convolve(np.pad(levels, CONTEXT - 1), np.ones(2 * CONTEXT - 1), "valid")  # least amid a pause
    longest_frames = int(longest * RATE / FRAME)
    # What is cut at the first possible moment may be too short without the quiet at its end.
    earliest = int(min(shortest + 1, (shortest + longest) / 2) * RATE / FRAME)
    edges = [0]
    while len(levels) - edges[-1] > longest_frames:
        edges.append(edges[-1] + earliest + int(np.argmin(around[edges[-1] + earliest : edges[-1] + longest_frames])))
    stretches = []
    for first, last in zip(edges, [*edges[1:], len(levels)], strict=True):
        speech = first + active(samples[first * FRAME : last * FRAME])
        if len(speech) and (speech[-1] + 1 - speech[0]) * FRAME >= shortest * RATE:
            start, stop = max(first, speech[0] - CONTEXT), min(last, speech[-1] + 1 + CONTEXT)
            stretches.append((int(start) * FRAME, int(stop) * FRAME))
    return stretches


def scan(job: tuple[Source, tuple[float, float]]) -> list[Piece] | str:
    """Worker: a recording's pieces, or why it cannot be read."""
    source, seconds = job
    try:
        samples = reading.read(source.path)
    except UserError as error:
        return str(error)
    # What the band leaves out, a rumble for one, shall not count as the loudest.
    return [Piece(source, *stretch) for stretch in cut(limit_band(samples, BAND[1][0]), *seconds)]


def scan_all(sources: list[Source], seconds: tuple[float, float], workers: int) -> tuple[list[Piece], int]:
    """The pieces of all recordings, and how many could not be read; these are named, and of those too short some."""
    pieces, failures, short = [], 0, []
    jobs = [(source, seconds) for source in sources]
    with closing(map_in_order(scan, jobs, workers)) as results:
        for source, found in zip(sources, tqdm(results, "read", len(jobs), unit="file", disable=None), strict=True):
            if isinstance(found, str):
                failures += 1
                tqdm.write(f"skipped: {found}", file=sys.stderr)
            elif not found:
                short.append(str(source.path))
            else:
                pieces += found
    least = f"without {seconds[0]:g} s of speech in one piece are left out (--seconds takes shorter ones)"
    for text in listing(f"of {len(sources)} recordings {least}", short):
        print(f"note: {text}", file=sys.stderr)
    return pieces, failures


# ---- one utterance ------------------------------------------------------------------------------------------------


def limit_band(wave: np.ndarray, upper: float) -> np.ndarray:
    """`wave` (n,) from 80 Hz to `upper` Hz, without delay."""
    return signal.oaconvolve(wave, signal.firwin(513, (BAND[0], upper), pass_zero=False, fs=RATE), mode="same")


def finish(wave: np.ndarray, rng: Generator) -> np.ndarray:
    """int16 samples of `wave` (n,) with band, margins, noise floor and level drawn: the same for both classes."""
    wave = limit_band(wave, rng.uniform(*BAND[1]))
    before, after = (rng.uniform(*MARGIN, 2) * RATE).astype(int)
    speech = active(wave / np.sqrt(np.mean(wave**2)))
    wave = wave[max(0, speech[0] * FRAME - before) : (speech[-1] + 1) * FRAME + after]
    wave = wave * signal.windows.tukey(len(wave), 2 * 0.005 * RATE / len(wave))  # a hard edge would click
    wave /= np.sqrt(np.mean(wave**2))
    wave += rng.normal(size=len(wave)) * 10 ** (rng.uniform(*HISS) / 20)
    level = 10 ** (rng.uniform(*LEVEL) / 20) / np.sqrt(np.mean(wave**2))
    wave *= min(level, 0.99 / np.abs(wave).max())  # a rare peak costs level rather than being clipped
    return np.round(wave * 32768).astype(np.int16)


def make(utterance: Utterance, samples: np.ndarray, seed: int) -> np.ndarray:
    """The utterance (n,) int16 of its piece's `samples` (n,)."""
    rng = default_rng([seed, 1, utterance.piece.source.index, utterance.piece.start, utterance.copy])
    wave = samples.astype(np.float64)
    if utterance.attack != "-":
        wave = match_spectrum(vocode(utterance.attack, samples, rng).astype(np.float64), wave)
    return finish(wave, rng)


def write_group(job: tuple[Path, int, list[Utterance]]) -> list[float]:
    """Worker: make utterances of one recording, in the order of their pieces; returns their seconds."""
    folder, seed, utterances = job
    blocks, total, stop = [], 0, max(utterance.piece.stop for utterance in utterances)
    for block in reading.Recording(utterances[0].piece.source.path):
        blocks.append(block)
        total += len(block)
        if total >= stop:
            break
    recording, seconds = np.concatenate(blocks), []
    for utterance in utterances:
        wave = make(utterance, recording[utterance.piece.start : utterance.piece.stop], seed)
        path = folder / f"ASVspoof2019_LA_{utterance.partition}" / "flac" / f"{utterance.utt_id}.flac"
        soundfile.write(path, wave, RATE, subtype="PCM_16")
        seconds.append(len(wave) / RATE)
    return seconds


# ---- corpus -------------------------------------------------------------------------------------------------------


def draw_utterances(pieces: list[Piece], settings: Settings) -> list[Utterance]:
    """All utterances, piece by piece: one bona fide and `spoofs` copies, attacks in turn, numbers shuffled."""
    partitions = split_speakers((piece.source.speaker for piece in pieces), settings.split, settings.seed)
    numbers = {name: number for number, name in enumerate(chain(*partitions.values()), 1)}
    utterances = []
    for index, (partition, speakers) in enumerate(partitions.items()):
        ours, attacks = [piece for piece in pieces if piece.source.speaker in speakers], settings.attacks[partition]
        shuffled = iter(default_rng([settings.seed, 2, index]).permutation(len(ours) * (1 + settings.spoofs)) + 1)
        for turn, piece in enumerate(ours):
            copies = range(turn * settings.spoofs, (turn + 1) * settings.spoofs)
            for copy, attack in enumerate(["-", *(attacks[place % len(attacks)] for place in copies)]):
                number = int(next(shuffled))
                utterances.append(Utterance(partition, number, numbers[piece.source.speaker], piece, copy, attack))
    return utterances


def grouped(utterances: list[Utterance], size: int) -> list[list[Utterance]]:
    """Neighbours of one recording together, at most `size`: what one reading of it serves."""
    groups: list[list[Utterance]] = []
    for utterance in utterances:
        if groups and groups[-1][0].piece.source == utterance.piece.source and len(groups[-1]) < size:
            groups[-1].append(utterance)
        else:
            groups.append([utterance])
    return groups


def write_corpus(folder: Path, utterances: list[Utterance], settings: Settings, workers: int) -> None:
    """Fill the empty `folder`; the stamp comes last."""
    for partition, (_, ending, _) in PARTITIONS.items():
        (folder / f"ASVspoof2019_LA_{partition}" / "flac").mkdir(parents=True)
        ours = sorted((u for u in utterances if u.partition == partition), key=lambda u: u.number)
        protocol = folder / "ASVspoof2019_LA_cm_protocols" / f"ASVspoof2019.LA.cm.{partition}.{ending}.txt"
        write_text(protocol, "".join(f"{utterance.line}\n" for utterance in ours))
    groups, seconds = grouped(utterances, GROUP * (1 + settings.spoofs)), []
    jobs = [(folder, settings.seed, group) for group in groups]
    with (
        closing(map_in_order(write_group, jobs, workers)) as results,
        tqdm(total=len(utterances), desc="write", unit="utt", disable=None) as bar,
    ):
        for lengths in results:
            seconds += lengths
            bar.update(len(lengths))
    write_sources(folder / "sources.csv", utterances, seconds)
    counts = {partition: sum(u.partition == partition for u in utterances) for partition in PARTITIONS}
    stamp = {"format": FORMAT, "version": VERSION, **asdict(settings), "utterances": counts}
    write_text(folder / "corpus.json", json.dumps(stamp, indent=2) + "\n")


def write_sources(path: Path, utterances: list[Utterance], seconds: list[float]) -> None:
    """A line per utterance: what it was made from (start in seconds there) and how long it became."""
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        table = csv.writer(file)
        table.writerow(("utt_id", "source", "speaker", "attack", "start", "seconds"))
        for u, length in sorted(zip(utterances, seconds, strict=True), key=lambda row: row[0].utt_id):
            source, start = u.piece.source, f"{u.piece.start / RATE:.2f}"
            table.writerow((u.utt_id, source.name, source.speaker, u.attack, start, f"{length:.3f}"))


def build(folder: Path, sources: list[Source], settings: Settings, workers: int) -> tuple[list[Utterance], int]:
    """Make the corpus in `folder`, replacing an older one. Returns its utterances, and how many recordings failed.

    Raises UserError when fewer than three speakers have usable speech, `folder` holds something else or cannot be
    written, or a vocoder is not there.
    """
    folder = folder.resolve()
    read_stamp(folder, FORMAT)
    for name in {name for names in settings.attacks.values() for name in names}:
        vocode(name, default_rng(0).normal(size=RATE).astype(np.float32), default_rng(0))  # is it there?
    pieces, failures = scan_all(sources, settings.seconds, workers)
    utterances = draw_utterances(pieces, settings)
    try:
        with replacing_folder(folder) as new:
            write_corpus(new, utterances, settings, workers)
    except (OSError, soundfile.SoundFileError) as error:
        raise UserError(f"cannot write {folder}: {error}") from error
    return utterances, failures


def main() -> int:
    """Command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--bonafide", type=Path, required=True, help="folder of human speech, a subfolder a speaker")
    parser.add_argument("--speakers", type=Path, help="CSV with columns path (below the folder) and speaker")
    parser.add_argument("--out", type=Path, required=True, help="folder of the corpus")
    vocoders = f"of {', '.join(VOCODERS)}"
    default = ["griffin_lim", "lpc", "sinusoidal"]
    parser.add_argument("--attacks", nargs="+", default=default, help=f"{vocoders} (default: {' '.join(default)})")
    parser.add_argument("--dev_attacks", nargs="+", help="default: as --attacks")
    parser.add_argument("--eval_attacks", nargs="+", help="default: as --attacks")
    parser.add_argument("--spoofs", type=int, default=1, help="spoofed copies of each piece (default: %(default)s)")
    parser.add_argument("--seconds", type=float, nargs=2, default=(3, 8), metavar=("MIN", "MAX"), help="default: 3 8")
    shares = {"metavar": ("TRAIN", "DEV", "EVAL"), "help": "shares of the speakers (default: 0.6 0.2 0.2)"}
    parser.add_argument("--split", type=float, nargs=3, default=(0.6, 0.2, 0.2), **shares)
    parser.add_argument("--seed", type=int, default=1234, help="same seed, same files (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes; 0: no others")
    options = parser.parse_args()
    check(options)
    attacks = (options.attacks, options.dev_attacks or options.attacks, options.eval_attacks or options.attacks)
    named = {name: list(dict.fromkeys(names)) for name, names in zip(PARTITIONS, attacks, strict=True)}
    settings = Settings(named, options.seed, tuple(options.seconds), tuple(options.split), options.spoofs)
    sources = find_sources(options.bonafide, options.speakers)
    utterances, failures = build(options.out, sources, settings, options.workers)
    for partition in PARTITIONS:
        ours = [utterance for utterance in utterances if utterance.partition == partition]
        speakers, bonafide = len({u.speaker for u in ours}), sum(u.attack == "-" for u in ours)
        print(f"{partition:5}  {speakers} speakers, {bonafide} bona fide, {len(ours) - bonafide} spoof")
    if failures:
        print(f"{failures} of {len(sources)} recordings could not be read", file=sys.stderr)
    return int(failures > 0)


def check(options) -> None:
    """Raise UserError for options that make no corpus."""
    shortest, longest = options.seconds
    if not 1 <= shortest < longest <= 60:
        raise UserError("--seconds", "1 ≤ MIN < MAX ≤ 60", f"{shortest:g} {longest:g}")
    if min(options.split) <= 0 or not np.isfinite(options.split).all():
        raise UserError("--split", "three shares above 0", " ".join(f"{share:g}" for share in options.split))
    for name, low in (("seed", 0), ("spoofs", 1), ("workers", 0)):
        if getattr(options, name) < low:
            raise UserError(f"--{name}", f"{low} or more", getattr(options, name))
    source, out = options.bonafide.resolve(), options.out.resolve()
    if source.is_relative_to(out) or out.is_relative_to(source):
        raise UserError("--out", f"a folder neither in nor around {options.bonafide}", options.out)


if __name__ == "__main__":
    sys.exit(run(main))
