"""Results on disk: the JSON document that grows by a line per file, and the CSV and score tables made from it.

The document is a header line, then one line per file, and is valid JSON after each line. A killed run may leave half a
line; the next run cuts it off and continues. On a full disk the document stays as it was.
"""

import csv
import glob
import json
import os
import shutil
import sys
from collections.abc import Container, Iterable, Iterator
from contextlib import ExitStack, suppress
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

from common.errors import UserError
from common.escaping import csv_cell, printable
from common.files import exclusive_file, replacing

BEGIN, END = b'{"schema": "aasist.inference', b"]}\n"
CSV_COLUMNS = ("file", "utt_id", "verdict", "score", "llr", "probability_spoof", "seconds", "conditions", "regions")
CSV_COLUMNS += ("finding", "reason", "passages", "worst")
# What a line must hold to be kept; docs/inference.md lists all.
_NUMBER, _TEXT = float | int | None, str | None
_RESULT = {"file": str, "utt_id": str, "verdict": str, "score": _NUMBER, "llr": _NUMBER, "probability_spoof": _NUMBER}
_RESULT |= {"seconds": _NUMBER, "conditions": list, "regions": list, "chunks": list, "error": _TEXT}
_RESULT |= {"finding": str, "reason": str, "passages": int, "worst": dict | None}
_ITEMS = {"conditions": {"name": str}, "regions": {"start": float | int, "end": float | int}}


class ResultsFile:
    """The JSON document at `path`, locked until `close`. Results of an earlier run with the same `header` stay.

    overwrite: start anew, and remove the parts of an earlier run. ours: the user knows nothing of this file, so it
    starts anew, with a note, if it has another header.
    offsets: file → where its line begins, in bytes. Raises UserError when another process writes to `path`, when it
    holds anything else, or when it cannot be written.
    """

    def __init__(self, path: Path, header: dict[str, Any], overwrite: bool = False, ours: bool = False):
        self.path, self.header, self.offsets, self.end = path, header, {}, 0
        first = (json.dumps(header, allow_nan=False)[:-1] + ', "results": [\n').encode()
        with ExitStack() as stack:
            self._handle = stack.enter_context(exclusive_file(path))
            with path.open("rb") as file:
                found = file.readline()
            if ours and found not in (b"", first) and found.startswith(BEGIN):
                print(printable(f"note: {path} is of another model or other settings: starting anew"), file=sys.stderr)
                overwrite = True
            if not (found.startswith(BEGIN) or BEGIN.startswith(found)):
                raise UserError(f"{path} is there", "results of inference.py, or no such file", "another file")
            if overwrite or not found:
                for part in _part_paths(path):
                    ResultsFile(part, header, overwrite=True).remove()
                os.ftruncate(self._handle, 0)
                self._write(first)
            elif found != first:
                kind = "others" if found.startswith(first[: first.index(b",")]) else "those of another version"
                raise UserError(f"{path} is there (--overwrite?)", "results of this model and these settings", kind)
            self.start = len(first)
            self.drop(())
            self._lock = stack.pop_all()

    def append(self, result: dict[str, Any]) -> None:
        """Add one result; the document is whole again when this returns, also when it fails for lack of space."""
        offset = self.end
        self._write(b"," * bool(self.offsets) + json.dumps(result, allow_nan=False).encode() + b"\n")
        self.offsets[result["file"]] = offset

    def _write(self, line: bytes) -> None:
        """Put the line in place of the end, and the end after it."""
        data, at = line + END, self.end
        try:
            while data:
                written = os.pwrite(self._handle, data, at)
                data, at = data[written:], at + written
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._handle, self.end)
                os.pwrite(self._handle, END if self.end else b"", self.end)
            raise UserError(f"cannot write {self.path}: {error.strerror}") from error
        self.end += len(line)

    def drop(self, files: Container[str]) -> None:
        """Remove the results of these files, and lines that are no results, such as one that was never finished."""
        self.offsets, self.end, position = {}, self.start, self.start
        with self.path.open("rb") as document:
            document.seek(self.start)
            for line in document:
                file, position = _file_of(line), position + len(line)
                if file is None or file in files or file in self.offsets:
                    continue
                line = b"," * bool(self.offsets) + line.removeprefix(b",")
                self.offsets[file] = self.end
                if self.end + len(line) < position:  # always behind the place that is read
                    os.pwrite(self._handle, line, self.end)
                self.end += len(line)
        os.pwrite(self._handle, END, self.end)
        os.ftruncate(self._handle, self.end + len(END))

    def read(self, files: Iterable[str]) -> Iterator[dict[str, Any]]:
        """The results of `files`, in that order."""
        with self.path.open("rb") as document:
            for file in files:
                document.seek(self.offsets[file])
                yield json.loads(document.readline().removeprefix(b","))

    def merge_parts(self, order: Iterable[str]) -> None:
        """Append the results that other processes left in files of their own, in `order`, and remove those files."""
        parts = [ResultsFile(path, self.header, ours=True) for path in _part_paths(self.path)]
        for file in chain(order, *(part.offsets for part in parts)):
            holders = [part for part in parts if file in part.offsets and file not in self.offsets]
            for result in holders[0].read([file]) if holders else ():
                self.append(result)
        for part in parts:
            part.remove()

    def copy_to(self, path: Path) -> None:
        """Write the document as it is now to another path."""
        with replacing(path) as temporary:
            shutil.copyfile(self.path, temporary)

    def remove(self) -> None:
        self.path.unlink()
        self.close()

    def close(self) -> None:
        """Release the lock."""
        self._lock.close()


def _file_of(line: bytes) -> str | None:
    """The file whose result the line is; None if it is none, or lacks what tables are made of."""
    try:
        result = _DECODER.decode(line.removeprefix(b",").decode())
    except (ValueError, RecursionError):
        return None
    fits = _has(result, _RESULT) and all(_has(item, kinds) for name, kinds in _ITEMS.items() for item in result[name])
    return result["file"] if fits else None


def _has(values: Any, kinds: dict[str, Any]) -> bool:
    return isinstance(values, dict) and all(key in values and isinstance(values[key], kinds[key]) for key in kinds)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


_DECODER = json.JSONDecoder(parse_constant=_refuse)  # NaN is no JSON


def _part_paths(path: Path) -> list[Path]:
    """The files of `process_part_path` that are there."""
    found = path.parent.glob(f"{glob.escape(path.name)}.part*")
    return sorted(part for part in found if part.name.removeprefix(f"{path.name}.part").isdecimal())


def process_part_path(path: Path, rank: int) -> Path:
    """Where the process of this rank keeps its results until `ResultsFile.merge_parts`."""
    return path.with_name(f"{path.name}.part{rank}")


def write_csv(path: Path, results: Iterable[dict[str, Any]]) -> None:
    """A row per result, whole or not at all; conditions (names) and regions (`from-to` in s) are joined by `;`."""
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        table = csv.DictWriter(file, CSV_COLUMNS, extrasaction="ignore")
        table.writeheader()
        for result in results:
            conditions = ";".join(condition["name"] for condition in result["conditions"])
            worst = [] if result["worst"] is None else [result["worst"]]
            row = result | {"conditions": conditions, "regions": _spans(result["regions"]), "worst": _spans(worst)}
            table.writerow({column: csv_cell(value) for column, value in row.items()})


def _spans(regions: Iterable[dict[str, Any]]) -> str:
    return ";".join(f"{region['start']:.2f}-{region['end']:.2f}" for region in regions)


def write_scores(path: Path, results: Iterable[dict[str, Any]]) -> list[str]:
    """Lines `utt_id score` with every digit, whole or not at all; returns the files without a score, and so a line."""
    missing = []
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", errors="surrogateescape") as file:
        for result in results:
            if result["score"] is None:
                missing.append(result["file"])
            else:
                file.write(f"{result['utt_id']} {result['score']!r}\n")
    return missing
