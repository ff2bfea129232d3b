"""Text files with columns → named columns, with the line number in every error message."""

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.errors import UserError
from common.text_files import read_lines
from metrics.scores import KEYS

BLOCK = 10_000  # lines parsed at a time
_UTTERANCE = (
    *("utt_id", "utt", "utterance", "utterance_id", "utt_name", "filename", "file_name", "file", "fname", "filepath"),
    *("file_path", "path", "trial", "trial_anon", "audio", "audio_file", "audio_path", "wav", "wav_path"),
)
_HEADER = {  # column name in files → our name
    **dict.fromkeys(_UTTERANCE, "utt_id"),
    **dict.fromkeys(("score", "scores", "cm_score", "cm_scores", "bonafide_score"), "score"),
    **dict.fromkeys(("key", "label", "labels", "cm_label", "ground_truth"), "key"),
    **dict.fromkeys(("attack", "attack_id", "attack_label", "attack_anon"), "attack"),
    **dict.fromkeys(("speaker", "speaker_id", "spk", "tar_spk_anon"), "speaker"),
}


@dataclass
class ColumnTable:
    """The columns of a file by name, and the line number of each row."""

    path: Path
    columns: dict[str, Sequence[str]]
    lines: list[int]

    def error(self, row: int, what: str, expected: object = None, found: object = None) -> UserError:
        """A UserError that names the file and the row's line."""
        return UserError(f"{self.path}, line {self.lines[row]}: {what}", expected, found)


def read_table(path: str | Path, layouts: Sequence[tuple[str, ...]], kind: str) -> ColumnTable:
    """Read a file that has a header or one of the `layouts`; `kind` names it in messages.

    Raises UserError, with the line number, when a line does not have the columns of the first one.
    """
    path = Path(path)
    lines = read_lines(path)
    numbers = [number for number, line in enumerate(lines, 1) if line.strip()]
    if not numbers:
        raise UserError(f"{path}, line 1: empty file", f"a {kind} file", "no lines")
    delimiter, names = _form(lines[numbers[0] - 1], path)
    if names:
        numbers = numbers[1:]
        if not numbers:
            raise UserError(f"{path}, line 2: no {kind} lines below the header", "at least one", 0)
    else:
        names = _layout(_split(lines[numbers[0] - 1], delimiter), layouts, f"{path}, line {numbers[0]}", kind)
    return ColumnTable(path, _columns(lines, numbers, names, delimiter, path), numbers)


def _layout(cells: list[str], layouts: Sequence[tuple[str, ...]], where: str, kind: str) -> tuple[str, ...]:
    """The layout of a first line, by the number of its columns and by where its key and its score are.

    Raises UserError that names the form if it is another one.
    """
    alike, found = [layout for layout in layouts if len(layout) == len(cells)], " ".join(cells)
    if fitting := next((layout for layout in alike if _fits(cells, layout)), None):
        return fitting
    if cells[0] == "Output":
        expected = "lines `utt key score` made of it: its label 1 is bonafide"
        raise UserError(f"{where}: a log of project-NN-Pytorch-scripts", expected, repr(found))
    if sum(np.isfinite([_number(cell) for cell in cells[1:]])) > 1 and "score" in layouts[0]:
        expected = "one, of bona fide (of AASIST's logits the second); keys as bonafide and spoof, not 1 and 0"
        raise UserError(f"{where}: several numbers in a {kind} line", expected, repr(found))
    if any(_plain(cell) in _HEADER for cell in cells):
        raise UserError(f"{where}: a header without a column of utterances", "utt_id, filename or file", repr(found))
    if not alike:
        known = ", ".join(f"{len(layout)} ({' '.join(layout[:4])}{' …' * (len(layout) > 4)})" for layout in layouts)
        raise UserError(f"{where}: no {kind} line", f"columns: {known}", len(cells))
    return alike[0]


def _fits(cells: list[str], layout: tuple[str, ...]) -> bool:
    """Whether the key, if the layout has one, is one, and the score is a number."""
    row = dict(zip(layout, cells, strict=True))
    return row.get("key", "spoof").lower() in KEYS and np.isfinite(_number(row.get("score", "0")))


def _columns(
    lines: list[str],
    numbers: list[int],
    names: tuple[str, ...],
    delimiter: str | None,
    path: Path,
) -> dict[str, list[str]]:
    """The cells of the lines `numbers` by column, parsed in blocks: a list for every line would need much memory."""
    columns: list[list[str]] = [[] for _ in names]
    for start in range(0, len(numbers), BLOCK):
        block = numbers[start : start + BLOCK]
        rows = [_split(lines[number - 1], delimiter) for number in block]
        for number, row in zip(block, rows, strict=True):
            if len(row) != len(names):
                what = "truncated" if number == numbers[-1] else "bad"
                expected = f"{len(names)} columns ({' '.join(names)})"
                raise UserError(f"{path}, line {number}: {what} line", expected, len(row))
        for column, values in zip(columns, zip(*rows, strict=True), strict=True):
            few = 2 * len(set(values)) < len(values)  # one string for each codec, not one for each line
            column.extend(map(sys.intern, values) if few else values)
    return dict(zip(names, columns, strict=True))


def _form(first: str, path: Path) -> tuple[str | None, tuple[str, ...] | None]:
    """(delimiter, our column names) from the first line: a comma, a tab below a header, or None for any blanks."""
    for delimiter in (",", "\t", None):
        if names := _header(first.split(delimiter), path):
            return delimiter, names
    return ("," if "," in first else None), None


def _split(line: str, delimiter: str | None) -> list[str]:
    """The cells of a line."""
    if delimiter is None:
        return line.split()
    return [value.strip() for value in next(csv.reader([line.replace("\r", " ")], delimiter=delimiter))]


def _header(cells: list[str], path: Path) -> tuple[str, ...] | None:
    """Our names of the columns, or None if the cells are no header: a header names the utterance column."""
    names = tuple(_HEADER.get(name, name) for name in map(_plain, cells))
    if "utt_id" not in names:
        return None
    if len(set(names)) < len(names):
        raise UserError(f"{path}, line 1: two columns mean the same", "one each", " ".join(cells))
    return names


def _plain(cell: str) -> str:
    return cell.strip().strip('"').lower().replace("-", "_").replace(" ", "_")


def numeric_column(table: ColumnTable, name: str) -> np.ndarray:
    """A column as float64. Raises UserError for the first cell that is not a finite number."""
    column = table.columns[name]
    try:
        require_plain("".join(column))
        values = np.array(column, dtype=np.float64)
    except ValueError:
        values = np.array([_number(cell) for cell in column])
    bad = ~np.isfinite(values)
    if bad.any():
        row = int(np.argmax(bad))
        raise table.error(row, f"bad {name}", "a finite number", repr(column[row]))
    return values


def require_plain(text: str) -> None:
    """Raises ValueError for 1_000 and for digits of other scripts, which Python reads as numbers."""
    if "_" in text or not text.isascii():
        raise ValueError("no plain number")


def _number(cell: str) -> float:
    try:
        require_plain(cell)
        return float(cell)
    except ValueError:
        return float("nan")
