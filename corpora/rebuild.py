"""The recordings of a list, out of clones of their repositories → clips as the bundled detector was trained on.

    made, problems = rebuild(read_list(BUNDLED), Path("clones"), Path("data/broad"), workers=2)

Each file is read at its listed commit (clones.py) and cut to the listed length. Where the list has no offset, a file
with n clips is divided into n equal parts, and each gives the middle of it.
"""

import csv
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path, PurePosixPath

import numpy as np
import soundfile
from tqdm import tqdm

from audio import SAMPLE_RATE, reading
from audio.decoding_workers import RemoteRecording, recordings
from common.errors import UserError
from common.escaping import csv_cell
from common.files import exclusive, replacing
from corpora.clones import find_commit, save_file
from corpora.la_layout import read_stamp, write_stamp
from corpora.packed import FULL_SCALE, to_int16
from corpora.recording_list import ListedClip, ListedFile, by_file

FORMAT, VERSION = "AASIST rebuilt corpus", 1
TOLERANCE = SAMPLE_RATE // 100  # samples that a file may be shorter than its clip: decoders pad differently
COLUMNS = ("path", "label", "speaker", "attack", "source", "language", "licence", "orig_file", "commit", "seconds")

Problems = dict[str, list[ListedFile]]  # what is wrong → the files that are not there for it

# ---- one file -----------------------------------------------------------------------------------------------------


def fetch(source: ListedFile, clones: Path, path: Path) -> None:
    """Make the recording available at `path`. Raises UserError if it is not there."""
    folder = clones / source.repository
    if not source.commit:
        if not folder.is_dir():
            raise UserError(f"no data set at {folder}")
        path.symlink_to((folder / source.file).absolute())
        return
    commit = find_commit(folder, source.commit)
    try:
        save_file(folder, commit, source.file, path)
    except UserError as error:
        raise UserError(f"{source}: {error}") from error


def samples_of(recording: reading.Recording | RemoteRecording) -> np.ndarray:
    """(n,) at 16 kHz. Raises UserError for what nobody should train on."""
    blocks, total = [], 0
    for block in recording:
        blocks.append(block)
        total += len(block)
        if total > reading.MAX_SECONDS * SAMPLE_RATE:
            raise UserError(f"audio {recording.path} is too long", f"at most {reading.MAX_SECONDS:g} s", "more")
    if recording.facts.gap_seconds > reading.LONGEST_GAP:
        found = f"{recording.facts.gap_seconds:.2f} s that do not"
        raise UserError(f"audio {recording.path} is damaged", "packets that decode", found)
    return np.concatenate(blocks)


def cut(wave: np.ndarray, clips: Sequence[ListedClip]) -> list[np.ndarray]:
    """Each clip's samples of its recording `wave` (n,). Raises UserError if the recording is too short."""
    cuts = []
    for number, clip in enumerate(clips):
        if clip.offset is None:
            middle = (number + 0.5) / len(clips) * len(wave)
            start = round(np.clip(middle - clip.samples / 2, 0, max(0, len(wave) - clip.samples)))
        else:
            start = round(clip.offset * SAMPLE_RATE)
        cuts.append(wave[start : start + clip.samples])
        if len(cuts[-1]) < clip.samples - TOLERANCE:
            expected = f"{(start + clip.samples) / SAMPLE_RATE:.3f} s for {clip.name}"
            raise UserError("another recording than listed", expected, f"{len(wave) / SAMPLE_RATE:.3f} s")
    return cuts


# ---- corpus -------------------------------------------------------------------------------------------------------


def clip_path(out: Path, clip: ListedClip) -> Path:
    return out / "flac" / f"{clip.name}.flac"


def origins(clips: Sequence[ListedClip]) -> list[str]:
    """The comment of each clip of one file: it says of a clip that is there which cut of which recording it is."""
    found = []
    for number, clip in enumerate(clips, 1):
        place = f"cut {number} of {len(clips)}" if clip.offset is None else f"from {clip.offset:g} s"
        found.append(f"{clip.source}, {place}")
    return found


def write_clip(path: Path, wave: np.ndarray, origin: str, licence: str) -> None:
    try:
        with replacing(path) as temporary, soundfile.SoundFile(temporary, "w", SAMPLE_RATE, 1, "PCM_16") as file:
            file.comment, file.license = origin, licence
            file.write(to_int16(wave * FULL_SCALE))
    except soundfile.SoundFileError as error:
        raise UserError(f"cannot write {path}: {error}") from error


def are_made(out: Path, clips: Sequence[ListedClip]) -> bool:
    """Whether all clips of one file are there."""
    for clip, origin in zip(clips, origins(clips), strict=True):
        try:
            with soundfile.SoundFile(clip_path(out, clip)) as file:
                if file.comment != origin or not clip.samples - TOLERANCE <= file.frames <= clip.samples:
                    return False
        except soundfile.SoundFileError:
            return False
    return True


def fetched(sources: Sequence[ListedFile], clones: Path, folder: Path, problems: Problems) -> Iterator[Path]:
    """Paths in `folder` of the recordings, named by their index; what cannot be fetched goes to `problems`."""
    for index, source in enumerate(tqdm(sources, unit="file", disable=None)):
        suffix = PurePosixPath(source.file).suffix
        path = folder / f"{index}{suffix if suffix.lower() in reading.ENDINGS else ''}"
        try:
            fetch(source, clones, path)
        except UserError as error:
            path.unlink(missing_ok=True)
            problems[str(error)].append(source)
        else:
            yield path


def make_clips(todo: dict[ListedFile, list[ListedClip]], clones: Path, out: Path, workers: int) -> Problems:
    """Cut the clips of these files."""
    sources, problems = list(todo), defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        paths = fetched(sources, clones, Path(folder), problems)
        with closing(recordings(paths, workers)) as found:
            for path, recording in found:
                source = sources[int(path.stem)]
                clips = todo[source]
                try:
                    cuts = cut(samples_of(recording), clips)
                except UserError as error:
                    problems[f"{source}: {str(error).replace(str(path), source.file)}"].append(source)
                else:
                    for clip, wave, origin in zip(clips, cuts, origins(clips), strict=True):
                        write_clip(clip_path(out, clip), wave, origin, clip.licence)
                path.unlink()
    return problems


def rebuild(clips: Sequence[ListedClip], clones: Path, out: Path, workers: int) -> tuple[list[ListedClip], Problems]:
    """Make `out`/flac and `out`/clips.csv of the clips whose files are in `clones`, keeping those that are made.

    Returns the clips that are there now, and what is wrong with files. Raises UserError when `out` has other content,
    cannot be written or is in use.
    """
    if not clones.is_dir():
        raise UserError(f"--clones {clones}", "a folder", "a file" if clones.exists() else "nothing there")
    with exclusive(out, wait=False):
        if read_stamp(out, FORMAT) is None:
            write_stamp(out, {"format": FORMAT, "version": VERSION})
        (out / "flac").mkdir(exist_ok=True)
        for left in (out / "flac").glob(".*"):  # of a killed process
            left.unlink()
        listed = by_file(clips)
        problems = make_clips(
            {file: own for file, own in listed.items() if not are_made(out, own)}, clones, out, workers
        )
        lost = {file for files in problems.values() for file in files}
        made = [clip for clip in clips if clip.source in listed.keys() - lost]
        write_table(out / "clips.csv", made)
    return made, problems


def write_table(path: Path, clips: Sequence[ListedClip]) -> None:
    """The list of a corpus as `csv:` reads it."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for c in clips:
            row = (c.key, c.speaker, c.attack, c.source.repository, c.language, c.licence, c.source.file)
            table.writerow(map(csv_cell, (f"flac/{c.name}.flac", *row, c.source.commit, f"{c.seconds:.3f}")))
