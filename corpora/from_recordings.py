"""A corpus from recordings of human speech, which are bona fide, and their copies by vocoders, which are spoof.

    sources = find_recordings(Path("recordings"), None)
    utterances, failures = build_made_corpus(Path("my_corpus"), sources, settings, workers=2)

The layout is that of ASVspoof2019 LA. No speaker is in two partitions. Level, margins of quiet, band and noise floor
are drawn from the same distributions for both classes, so that only the vocoder gives a spoof away. cutting.py finds
the pieces of speech.
"""

import csv
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

from audio import SAMPLE_RATE
from audio.levels import FRAME_SAMPLES, active_frames
from audio.reading import Recording
from audio.vocoders import match_spectrum, vocode
from common.errors import UserError
from common.escaping import csv_cell
from common.files import replacing
from common.pool import map_in_order
from corpora import la_layout
from corpora.cutting import UPPER_EDGES, SourceRecording, SpeechPiece, find_all_pieces, limit_band
from corpora.la_layout import LETTERS

FORMAT, VERSION = "AASIST made corpus", 1
MARGIN = (0.02, 0.2)  # s of quiet left at each end
LEVEL = (-34, -26)  # dBFS, RMS
HISS = (-58, -50)  # dB relative to the speech: both classes have the same power above the band
GROUP = 8  # pieces of a recording that a process makes at a time


@dataclass(frozen=True)
class MadeCorpusSettings:
    """Everything except the recordings that decides the corpus; written into its stamp."""

    attacks: dict[str, list[str]]  # of each partition
    seed: int
    seconds: tuple[float, float]  # shortest and longest speech in a piece
    split: tuple[float, float, float]  # proportions of the speakers in train, dev and eval
    spoofs: int  # of each piece


@dataclass(frozen=True)
class MadeUtterance:
    """One protocol line and how its audio is made."""

    partition: str
    number: int  # counts through the partition in random order
    speaker: int  # counts through the corpus
    piece: SpeechPiece
    copy: int  # 0 for bona fide, then the spoofs of the piece
    attack: str  # a vocoder, "-" for bona fide

    @property
    def utt_id(self) -> str:
        return f"MC_{LETTERS[self.partition]}_{self.number:06d}"

    @property
    def line(self) -> str:
        return la_layout.protocol_line(f"MC_{self.speaker:04d}", self.utt_id, self.attack)


# ---- one utterance ------------------------------------------------------------------------------------------------


def finish(wave: np.ndarray, rng: Generator) -> np.ndarray:
    """int16 samples of `wave` (n,) with a random band, margins, noise floor and level; the same for both classes."""
    wave = limit_band(wave, rng.uniform(*UPPER_EDGES))
    before, after = (rng.uniform(*MARGIN, 2) * SAMPLE_RATE).astype(int)
    speech = active_frames(wave / np.sqrt(np.mean(wave**2)))
    wave = wave[max(0, speech[0] * FRAME_SAMPLES - before) : (speech[-1] + 1) * FRAME_SAMPLES + after]
    wave = wave * signal.windows.tukey(len(wave), 2 * 0.005 * SAMPLE_RATE / len(wave))  # a hard edge would click
    wave /= np.sqrt(np.mean(wave**2))
    wave += rng.normal(size=len(wave)) * 10 ** (rng.uniform(*HISS) / 20)
    level = 10 ** (rng.uniform(*LEVEL) / 20) / np.sqrt(np.mean(wave**2))
    wave *= min(level, 0.99 / np.abs(wave).max())  # lower the level rather than clip a rare peak
    return np.round(wave * 32768).astype(np.int16)


def make_utterance(utterance: MadeUtterance, samples: np.ndarray, seed: int) -> np.ndarray:
    """The samples (m,) int16 of the utterance, from its piece's `samples` (n,)."""
    rng = default_rng([seed, 1, utterance.piece.source.index, utterance.piece.start, utterance.copy])
    wave = samples.astype(np.float64)
    if utterance.attack != "-":
        wave = match_spectrum(vocode(utterance.attack, samples, rng).astype(np.float64), wave)
    return finish(wave, rng)


def write_group(job: tuple[Path, int, list[MadeUtterance]]) -> list[float]:
    """In a worker process: write utterances of one recording, in the order of their pieces; returns their seconds."""
    folder, seed, utterances = job
    blocks, total, stop = [], 0, max(utterance.piece.stop for utterance in utterances)
    for block in Recording(utterances[0].piece.source.path):
        blocks.append(block)
        total += len(block)
        if total >= stop:
            break
    recording, seconds = np.concatenate(blocks), []
    for utterance in utterances:
        wave = make_utterance(utterance, recording[utterance.piece.start : utterance.piece.stop], seed)
        path = la_layout.audio_path(folder, utterance.partition, utterance.utt_id)
        soundfile.write(path, wave, SAMPLE_RATE, subtype="PCM_16")
        seconds.append(len(wave) / SAMPLE_RATE)
    return seconds


# ---- corpus -------------------------------------------------------------------------------------------------------


def split_speakers(speakers: Iterable[str], split: Sequence[float], seed: int) -> dict[str, list[str]]:
    """Each partition's speakers, in the proportions `split`, at least one each.

    Raises UserError for fewer than three speakers.
    """
    names = sorted(set(speakers))
    if len(names) < 3:
        expected = "3 speakers or more, as none may be in two of train, dev and eval"
        raise UserError("too few speakers with usable speech", expected, len(names))
    shuffled = [names[i] for i in default_rng([seed, 0]).permutation(len(names))]
    ends = np.rint(np.cumsum(split) / np.sum(split) * len(names)).astype(int)
    first = int(np.clip(ends[0], 1, len(names) - 2))
    second = int(np.clip(ends[1], first + 1, len(names) - 1))
    return dict(zip(LETTERS, (shuffled[:first], shuffled[first:second], shuffled[second:]), strict=True))


def draw_utterances(pieces: list[SpeechPiece], settings: MadeCorpusSettings) -> list[MadeUtterance]:
    """All utterances, piece by piece: one bona fide and `spoofs` spoofs each, attacks in turn, numbers shuffled."""
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
                utterances.append(MadeUtterance(partition, number, numbers[piece.source.speaker], piece, copy, attack))
    return utterances


def group_by_recording(utterances: list[MadeUtterance], size: int) -> list[list[MadeUtterance]]:
    """Neighbours from one recording together, at most `size`, so that it is read once for all of them."""
    groups: list[list[MadeUtterance]] = []
    for utterance in utterances:
        if groups and groups[-1][0].piece.source == utterance.piece.source and len(groups[-1]) < size:
            groups[-1].append(utterance)
        else:
            groups.append([utterance])
    return groups


def write_made_corpus(
    folder: Path, utterances: list[MadeUtterance], settings: MadeCorpusSettings, workers: int
) -> None:
    """Fill the empty `folder`; the stamp comes last."""
    for partition in LETTERS:
        ours = sorted((u for u in utterances if u.partition == partition), key=lambda u: u.number)
        la_layout.start_partition(folder, partition, [utterance.line for utterance in ours])
    groups, seconds = group_by_recording(utterances, GROUP * (1 + settings.spoofs)), []
    jobs = [(folder, settings.seed, group) for group in groups]
    with (
        closing(map_in_order(write_group, jobs, workers)) as results,
        tqdm(total=len(utterances), desc="write", unit="utt", disable=None) as bar,
    ):
        for lengths in results:
            seconds += lengths
            bar.update(len(lengths))
    write_sources(folder / "sources.csv", utterances, seconds)
    counts = {partition: sum(u.partition == partition for u in utterances) for partition in LETTERS}
    la_layout.write_stamp(folder, {"format": FORMAT, "version": VERSION, **asdict(settings), "utterances": counts})


def write_sources(path: Path, utterances: list[MadeUtterance], seconds: list[float]) -> None:
    """A line for each utterance: its source and its start there, its speaker, attack and length (times in seconds)."""
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        table = csv.writer(file)
        table.writerow(("utt_id", "source", "speaker", "attack", "start", "seconds"))
        for u, length in sorted(zip(utterances, seconds, strict=True), key=lambda row: row[0].utt_id):
            source, start = u.piece.source, f"{u.piece.start / SAMPLE_RATE:.2f}"
            row = (u.utt_id, source.name, source.speaker, u.attack, start, f"{length:.3f}")
            table.writerow(map(csv_cell, row))


def build_made_corpus(
    folder: Path, sources: list[SourceRecording], settings: MadeCorpusSettings, workers: int
) -> tuple[list[MadeUtterance], int]:
    """Make the corpus in `folder`, replacing an older one. Returns its utterances, and how many recordings failed.

    Raises UserError when fewer than three speakers have usable speech, `folder` has other content or cannot be
    written, or a vocoder is unknown or not installed.
    """
    folder = folder.resolve()
    la_layout.read_stamp(folder, FORMAT)
    for name in {name for names in settings.attacks.values() for name in names}:
        noise = default_rng(0).normal(size=SAMPLE_RATE).astype(np.float32)
        vocode(name, noise, default_rng(0))  # raises UserError if it is not there
    pieces, failures = find_all_pieces(sources, settings.seconds, workers)
    utterances = draw_utterances(pieces, settings)
    try:
        with la_layout.replacing_folder(folder) as new:
            write_made_corpus(new, utterances, settings, workers)
    except (OSError, soundfile.SoundFileError) as error:
        raise UserError(f"cannot write {folder}: {error}") from error
    return utterances, failures
