"""A folder of recordings → pieces of speech with their speakers, cut at pauses."""

import csv
import os
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import signal
from tqdm import tqdm

from audio import SAMPLE_RATE, reading
from audio.levels import FRAME_SAMPLES, active_frames, frame_powers
from audio.search import left_out_notes, search
from common.errors import UserError
from common.escaping import printable
from common.pool import map_in_order
from common.text_files import read_lines
from metrics.scores import listing

LOWER_EDGE, UPPER_EDGES = 80, (6600, 7400)  # Hz: the lower end of an utterance's band; the range of its upper end
CONTEXT = 13  # frames of quiet that a piece keeps at each end: more than an utterance's longest margin


@dataclass(frozen=True)
class SourceRecording:
    """A recording of one speaker."""

    index: int  # in the sorted list of all
    path: Path
    name: str  # path relative to the folder
    speaker: str


@dataclass(frozen=True)
class SpeechPiece:
    """A stretch of a recording, in samples."""

    source: SourceRecording
    start: int
    stop: int


def find_recordings(folder: Path, speakers: Path | None) -> list[SourceRecording]:
    """All recordings below `folder`, sorted by path, with their speakers.

    A first-level subfolder is a speaker, unless the CSV file `speakers` names them. Raises UserError if there are none.
    """
    if not folder.is_dir():
        raise UserError(f"--bonafide {folder}", "a folder", "a file" if folder.exists() else "nothing there")
    found = search(folder)
    there = {os.path.relpath(path, folder) for path in found.files + found.unreadable}  # these fail when read
    if speakers:
        speaker_of = read_speakers(speakers)
        if others := sorted(there - speaker_of.keys()):
            found.left_out[f"not in {speakers}"] = others
    else:
        speaker_of = {name: name.split(os.sep)[0] for name in there}
        if alone := sum(os.sep not in name for name in there):
            note = f"note: {alone} files are in {folder} itself: each counts as a separate speaker"
            print(printable(note), file=sys.stderr)
    for note in left_out_notes(found.left_out):
        print(printable(f"note: {note}"), file=sys.stderr)
    if not speaker_of:
        raise UserError(f"nothing in {folder}", f"audio files ({' '.join(sorted(reading.ENDINGS))})", "none")
    named = sorted(speaker_of.items())
    return [SourceRecording(index, folder / name, name, speaker) for index, (name, speaker) in enumerate(named)]


def read_speakers(path: Path) -> dict[str, str]:
    """A CSV file with columns path and speaker → {path: speaker}. Raises UserError for anything else."""
    try:
        table = csv.DictReader(f"{line}\n" for line in read_lines(path))
        rows = list(table)
    except csv.Error as error:
        raise UserError(f"cannot read {path}", "a CSV file", error) from error
    if not {"path", "speaker"} <= set(table.fieldnames or ()):
        raise UserError(f"{path}", "columns path and speaker", ", ".join(table.fieldnames or ["nothing"]))
    speaker_of = {}
    for row in rows:
        name, speaker = row["path"], row["speaker"]
        if not name or not speaker:
            raise UserError(f"{path}", "a path and a speaker in every line", ",".join(map(str, row.values())))
        name = os.path.normpath(name)
        if speaker_of.setdefault(name, speaker) != speaker:
            raise UserError(f"{path}: {name}", "one speaker", f"{speaker_of[name]} and {speaker}")
    return speaker_of


def cut_at_pauses(samples: np.ndarray, shortest: float, longest: float) -> list[tuple[int, int]]:
    """Spans (start, stop) of `samples` (n,) with `shortest` to `longest` seconds of speech, cut at quiet moments.

    Each keeps up to 0.26 s of quiet around its speech.
    """
    powers = frame_powers(samples)
    # The sum over neighbouring frames is smallest in the middle of a pause.
    around = np.convolve(np.pad(powers, CONTEXT - 1), np.ones(2 * CONTEXT - 1), "valid")
    longest_frames = int(longest * SAMPLE_RATE / FRAME_SAMPLES)
    # A span that is cut at the first possible moment may be too short without the quiet at its end.
    earliest = int(min(shortest + 1, (shortest + longest) / 2) * SAMPLE_RATE / FRAME_SAMPLES)
    edges = [0]
    while len(powers) - edges[-1] > longest_frames:
        edges.append(edges[-1] + earliest + int(np.argmin(around[edges[-1] + earliest : edges[-1] + longest_frames])))
    spans = []
    for first, last in zip(edges, [*edges[1:], len(powers)], strict=True):
        speech = first + active_frames(samples[first * FRAME_SAMPLES : last * FRAME_SAMPLES])
        if len(speech) and (speech[-1] + 1 - speech[0]) * FRAME_SAMPLES >= shortest * SAMPLE_RATE:
            start, stop = max(first, speech[0] - CONTEXT), min(last, speech[-1] + 1 + CONTEXT)
            spans.append((int(start) * FRAME_SAMPLES, int(stop) * FRAME_SAMPLES))
    return spans


def find_pieces(job: tuple[SourceRecording, tuple[float, float]]) -> list[SpeechPiece] | str:
    """In a worker process: a recording's pieces, or why it cannot be read."""
    source, seconds = job
    try:
        samples = reading.read(source.path)
    except UserError as error:
        return str(error)
    # Sound outside the band, such as a rumble, must not count as the loudest.
    return [SpeechPiece(source, *span) for span in cut_at_pauses(limit_band(samples, UPPER_EDGES[0]), *seconds)]


def find_all_pieces(
    sources: list[SourceRecording], seconds: tuple[float, float], workers: int
) -> tuple[list[SpeechPiece], int]:
    """The pieces of all recordings, and how many recordings could not be read.

    Names on stderr every recording that cannot be read, and the first of those that are too short.
    """
    pieces, failures, short = [], 0, []
    jobs = [(source, seconds) for source in sources]
    with closing(map_in_order(find_pieces, jobs, workers)) as results:
        for source, found in zip(sources, tqdm(results, "read", len(jobs), unit="file", disable=None), strict=True):
            if isinstance(found, str):
                failures += 1
                tqdm.write(printable(f"skipped: {found}"), file=sys.stderr)
            elif not found:
                short.append(str(source.path))
            else:
                pieces += found
    least = f"without {seconds[0]:g} s of speech in one piece are left out (--seconds takes shorter ones)"
    for text in listing(f"of {len(sources)} recordings {least}", short):
        print(printable(f"note: {text}"), file=sys.stderr)
    return pieces, failures


def limit_band(wave: np.ndarray, upper: float) -> np.ndarray:
    """`wave` (n,) from 80 Hz to `upper` Hz, without delay."""
    taps = signal.firwin(513, (LOWER_EDGE, upper), pass_zero=False, fs=SAMPLE_RATE)
    return signal.oaconvolve(wave, taps, mode="same")
