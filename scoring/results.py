"""Results on disk: the JSON document that grows by a line per file, and the CSV and score tables made from it.

The document is a header line, then one line per file, and is valid JSON after each line. A killed run may leave half a
line; the next run cuts it off and continues.
"""

import csv
import glob
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.escaping import csv_cell
from common.files import exclusive_file, replacing

END = b"]}\n"
CSV_COLUMNS = ("file", "utt_id", "verdict", "score", "llr", "probability_spoof", "seconds", "conditions", "regions")


class ResultsFile:
    """The JSON document at `path`. Results of an earlier run with the same `header` stay, unless `overwrite`.

    It is written in place, so that a lock of the file (`common.files.exclusive_file`) stays. `offsets`: file → where
    its line begins, in bytes. Raises UserError when `path` holds anything else, or cannot be written.
    """

    def __init__(self, path: Path, header: dict[str, Any], overwrite: bool = False):
        self.path, self.header, self.offsets = path, header, {}
        first = json.dumps(header, allow_nan=False)[:-1] + ', "results": [\n'
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if overwrite or not path.exists() or path.stat().st_size == 0:
                path.write_bytes(first.encode() + END)
            self.file = path.open("r+b")
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}") from error
        if self.file.readline() != first.encode():
            raise UserError(f"{path} is there (--overwrite?)", "results of this model and these settings", "others")
        self.end = self.file.tell()
        for line in self.file:
            try:
                self.offsets[json.loads(line.removeprefix(b","))["file"]] = self.end
            except (ValueError, KeyError, TypeError):  # the end, or a line that was never finished
                break
            self.end += len(line)
        self.file.seek(self.end)
        self.file.truncate()
        self.file.write(END)
        self.file.flush()

    def append(self, result: dict[str, Any]) -> None:
        """Add one result; the document is whole again when this returns."""
        line = b"," * bool(self.offsets) + json.dumps(result, allow_nan=False).encode() + b"\n"
        self.file.seek(self.end)
        self.file.write(line + END)
        self.file.flush()
        self.offsets[result["file"]] = self.end
        self.end += len(line)

    def read(self, files: Iterable[str]) -> Iterator[dict[str, Any]]:
        """The results of `files`, in that order."""
        for file in files:
            self.file.seek(self.offsets[file])
            yield json.loads(self.file.readline().removeprefix(b","))

    def merge_parts(self, order: Iterable[str]) -> None:
        """Append the results that other processes left in files of their own, in `order`, and remove those files."""
        pattern = f"{glob.escape(self.path.name)}.part*"
        parts = [ResultsFile(path, self.header) for path in self.path.parent.glob(pattern)]
        for file in order:
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
        self.file.close()
        self.path.unlink()


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
            regions = ";".join(f"{region['start']:.2f}-{region['end']:.2f}" for region in result["regions"])
            row = result | {"conditions": conditions, "regions": regions}
            table.writerow({column: csv_cell(value) for column, value in row.items()})


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
