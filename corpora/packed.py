"""A pack: all waveforms of a partition in one file of int16, decoded once and then only mapped into memory.

    pack = load("packed", "LA_train", {"LA_T_1138215": Path("LA/…/flac/LA_T_1138215.flac")}, workers=4)
    pack[0]  # (n,) int16; / 32768 gives what reading.read gives

`<name>_<key>.pcm` holds one utterance after the other, `<name>_<key>.json` the files that they were made from. The key
is a hash of the utt_ids, not of paths, so a pack still fits after a move to a machine whose audio lies elsewhere, or
that has none.
"""

import hashlib
import json
import os
import sys
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from audio import reading
from common.errors import UserError
from common.escaping import printable
from common.files import exclusive, replacing, write_text
from common.pool import map_in_order

FORMAT = 1
FULL_SCALE = 32768  # int16 per 1.0: a power of two, so converting there and back is exact
MAX_INDEX_BYTES = 1 << 28  # an utterance usually takes a hundred bytes


@dataclass(frozen=True, eq=False)
class Pack:
    """Utterances in protocol order: `pack[i]` is (n,) int16 at 16 kHz, a view of `samples` (N,)."""

    samples: np.ndarray
    starts: np.ndarray  # (utterances,) int64
    lengths: np.ndarray  # (utterances,) int64

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> np.ndarray:
        first = self.starts[index]
        return self.samples[first : first + self.lengths[index]]


def read_int16(_utt_id: str, file: Path) -> tuple[np.ndarray, bool]:
    """The whole file as (n,) int16, and whether that is exactly what `reading.read` gives."""
    samples = reading.read(file) * np.float32(FULL_SCALE)
    rounded = to_int16(samples)
    return rounded, np.array_equal(rounded, samples)


def to_int16(samples: np.ndarray) -> np.ndarray:
    """(n,) of full scale 32768 → (n,) int16, rounded; samples beyond full scale are clipped."""
    return np.rint(samples).clip(-FULL_SCALE, FULL_SCALE - 1).astype("<i2")


ReadInt16 = Callable[[str, Path], tuple[np.ndarray, bool]]


def load(
    folder: str | os.PathLike, name: str, files: Mapping[str, Path], workers: int, read: ReadInt16 = read_int16
) -> Pack:
    """The pack of `files` (utt_id → audio file, in protocol order); built in `workers` processes if none is valid.

    read: (utt_id, file) → the samples to store, and whether they are exact.

    Notes on stderr say what is built and why, how many utterances 16 bits cannot hold exactly, and that a pack is used
    without its audio, whose folders are not there. Raises UserError when a file cannot be read, the pack cannot be
    written or a process dies; nothing half-written stays.
    """
    path = pack_path(folder, name, files)
    with suppress(_StalePack):
        return _open(path, files)
    with exclusive(path.parent) as locked:  # one process builds a pack, others wait for it
        try:
            return _open(path, files)  # the process that held the lock may have built it
        except _StalePack as stale:
            _note(f"packing {len(files):,} utterances: {stale}")
        for leftover in path.parent.glob(f".{name}_*") if locked else ():  # of killed builds
            leftover.unlink()
        _build(path, files, workers, read)
        return _open(path, files)


def pack_path(folder: str | os.PathLike, name: str, utt_ids: Iterable[str]) -> Path:
    """The .pcm file of the pack of these utterances; its index ends in .json."""
    key = hashlib.sha256("\n".join(utt_ids).encode()).hexdigest()[:12]
    return Path(folder) / f"{name}_{key}.pcm"


# ------------------------------------------------------------------------------------------------------------ opening


class _StalePack(UserError):
    """A pack is absent, damaged or made from other files."""


@dataclass(frozen=True)
class _PackIndex:
    """What a pack holds and what it was made from; each list has an entry for each utterance."""

    format: int
    utt_id: list[str]
    samples: list[int]
    file_bytes: list[int]
    file_mtime_ns: list[int]
    crc32: list[int]  # of the int16 bytes
    rounded: int  # utterances whose samples were not 16-bit values


def _open(path: Path, files: Mapping[str, Path]) -> Pack:
    """The pack at `path`. Raises _StalePack if any byte is not what these files gave."""
    index = _read_index(path.with_suffix(".json"), list(files))
    carried = not any(folder.is_dir() for folder in {file.parent for file in files.values()})
    if not carried:
        found = _stamps(files.values())
        expected = zip(index.file_bytes, index.file_mtime_ns, strict=True)
        for file, stamp in zip(files.values(), expected, strict=True):
            if found.get(file) != stamp:
                raise _StalePack(f"{file} has changed since {path} was made" if file in found else f"{file} is missing")
    if not path.is_file() or path.stat().st_size != 2 * sum(index.samples):
        raise _StalePack(f"{path} has another size than its index says")
    lengths = np.array(index.samples)
    pack = Pack(np.memmap(path, "<i2", "r").view(np.ndarray), np.cumsum(lengths) - lengths, lengths)
    for i, utt_id in enumerate(tqdm(files, f"check {path.name}", leave=False, disable=None, delay=1)):
        if zlib.crc32(pack[i]) != index.crc32[i]:
            raise _StalePack(f"{path} is damaged at {utt_id}")
    if carried:
        _note(f"using {path} without the audio that it was made from")
    if index.rounded:
        rounded = f"{index.rounded:,} of {len(pack):,} utterances"
        _note(f"{path}: {rounded} were not 16-bit audio at 16 kHz and are rounded to it")
    return pack


def _read_index(path: Path, utt_ids: list[str]) -> _PackIndex:
    """Raises _StalePack unless it is an index of these utterances; no other content does harm."""
    try:
        with path.open("rb") as file:
            index = _PackIndex(**json.loads(file.read(MAX_INDEX_BYTES)))
    except FileNotFoundError as error:
        raise _StalePack(f"no {path} yet") from error
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise _StalePack(f"{path} is no index") from error
    count = len(utt_ids)
    if index.format != FORMAT or index.utt_id != utt_ids or index.rounded not in range(count + 1):
        raise _StalePack(f"{path} is an index of other utterances or of another format")
    columns = (index.samples, index.file_bytes, index.file_mtime_ns, index.crc32)
    if not all(_whole_numbers(column, count) for column in columns) or min(index.samples) < 1:
        raise _StalePack(f"{path} is damaged")
    return index


def _whole_numbers(column: Any, count: int) -> bool:
    return isinstance(column, list) and len(column) == count and all(type(value) is int for value in column)


def _stamps(files: Iterable[Path]) -> dict[Path, tuple[int, int]]:
    """Bytes and mtime (ns) of each file that exists. Lists folders: single requests take minutes on a network disk."""
    wanted = defaultdict(set)
    for file in files:
        wanted[file.parent].add(file.name)
    stamps = {}
    for folder in filter(Path.is_dir, wanted):
        with os.scandir(folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # a dead link
                    if entry.name in wanted[folder]:
                        status = entry.stat()
                        stamps[folder / entry.name] = (status.st_size, status.st_mtime_ns)
    return stamps


# ----------------------------------------------------------------------------------------------------------- building


def _build(path: Path, files: Mapping[str, Path], workers: int, read: ReadInt16) -> None:
    """Decode all files and write the samples, then the index: a pack without an index is not used."""
    stamps = _stamps(files.values())  # before decoding, so that a later change is noticed
    lengths, checksums, rounded = [], [], 0
    try:
        decoding = closing(map_in_order(partial(_read, read), list(files.items()), workers))
        with replacing(path) as temporary, temporary.open("wb") as file, decoding as decoded:
            for samples, exact in tqdm(decoded, f"pack {path.stem}", len(files), leave=False, disable=None):
                file.write(samples)
                lengths.append(len(samples))
                checksums.append(zlib.crc32(samples))
                rounded += not exact
        sizes, times = zip(*(stamps.get(file, (-1, -1)) for file in files.values()), strict=True)
        index = _PackIndex(FORMAT, list(files), lengths, sizes, times, checksums, rounded)
        write_text(path.with_suffix(".json"), json.dumps(vars(index)))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def _read(read: ReadInt16, item: tuple[str, Path]) -> tuple[np.ndarray, bool]:
    return read(*item)


def _note(text: str) -> None:
    print(printable(f"note: {text}"), file=sys.stderr)
