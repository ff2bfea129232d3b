"""Text files with columns → named columns, with the line number in every error message."""

import csv
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.errors import UserError
from common.text_files import read_blocks
from metrics.scores import KEYS

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
    """The N rows of a file: its columns by name, and the line number of each row (N,)."""

    path: Path
    columns: dict[str, Sequence[str] | np.ndarray]  # (N,) float64 if they are numbers
    lines: np.ndarray

    def error(self, row: int, what: str, expected: object = None, found: object = None) -> UserError:
        """A UserError that names the file and the row's line."""
        return UserError(f"{self.path}, line {self.lines[row]}: {what}", expected, found)


def read_table(
    path: str | Path, layouts: Sequence[tuple[str, ...]], kind: str, numbers: Collection[str] = ()
) -> ColumnTable:
    """Read a file that has a header or one of the `layouts`; `kind` names it in messages.

    numbers: the columns that hold finite numbers. Raises UserError, with the line number, when a line does not have the
    columns of the first one, or for a cell that is no number.
    """
    path, form, first = Path(path), None, 1
    blocks = read_blocks(path)
    for lines in blocks:
        start = 0
        if form is None and (row := next((row for row, line in enumerate(lines) if line.strip()), None)) is not None:
            form = _form(lines[row], layouts, f"{path}, line {first + row}", kind)
            columns = _Columns(path, form, numbers)
            start = row + form.has_header
        if form is not None:
            columns.add(lines[start:], first + start, blocks)
        first += len(lines)
    if form is None:
        raise UserError(f"{path}, line 1: empty file", f"a {kind} file", "no lines")
    table = columns.table()
    if not len(table.lines):
        raise UserError(f"{path}, line 2: no {kind} lines below the header", "at least one", 0)
    return table


class _Form(NamedTuple):
    """How a file writes its rows. delimiter: a comma, a tab, or None for any blanks."""

    delimiter: str | None
    names: tuple[str, ...]
    has_header: bool


def _form(first: str, layouts: Sequence[tuple[str, ...]], where: str, kind: str) -> _Form:
    """The form of a file, from its first line: a header, or a row of one of the layouts."""
    for delimiter in (",", "\t", None):
        if names := _header(first.split(delimiter), where):
            return _Form(delimiter, names, True)
    delimiter = "," if "," in first else None
    return _Form(delimiter, _layout(_split(first, delimiter), layouts, where, kind), False)


class _Columns:
    """The columns of a file, which grow by a block of lines at a time."""

    def __init__(self, path: Path, form: _Form, numbers: Collection[str]):
        self.path, self.form, self.numbers = path, form, numbers
        self.lines: list[np.ndarray] = []
        self.columns: dict[str, list] = {name: [] for name in form.names}  # cells, or an array for each block

    def table(self) -> ColumnTable:
        columns = {
            name: np.concatenate(column or [[]]) if name in self.numbers else column
            for name, column in self.columns.items()
        }
        return ColumnTable(self.path, columns, np.concatenate(self.lines or [[]]))

    def add(self, lines: list[str], first: int, following: Iterable[list[str]]) -> None:
        """Add the rows of `lines`, whose first has the number `first`. following: the blocks after this one."""
        numbers = np.arange(first, first + len(lines), dtype=np.int32)
        cells = self._split_plain(lines)
        if cells is None:
            filled = np.array([bool(line.strip()) for line in lines], bool)
            lines, numbers = [line for line in lines if line.strip()], numbers[filled]
            cells = self._split_all(lines, numbers, following)
        self.lines.append(numbers)
        for name, values in zip(self.form.names, cells, strict=True):
            if name in self.numbers:
                self.columns[name].append(self._parse(values, numbers, name))
            else:
                few = 2 * len(set(values)) < len(values)  # one string for each codec, not one for each line
                self.columns[name].extend(map(sys.intern, values) if few else values)

    def _split_plain(self, lines: list[str]) -> list[list[str]] | None:
        """The cells by column where every line has one delimiter (a blank) between cells; None for other lines."""
        delimiter, width = self.form.delimiter or " ", len(self.form.names)
        if not lines or {line.count(delimiter) for line in lines} != {width - 1}:
            return None
        text = "\n".join(lines)
        if self.form.delimiter is None:
            # Other blanks only add cells; without double ones and those at the ends, no line can have too few.
            if "  " in text or "\n " in text or " \n" in text or text[0] == " " or text[-1] == " ":
                return None
            cells = text.split()
        elif '"' in text:
            return None
        else:
            cells = [cell.strip() for cell in text.replace("\n", delimiter).split(delimiter)]
        return [cells[column::width] for column in range(width)] if len(cells) == width * len(lines) else None

    def _split_all(self, lines: list[str], numbers: np.ndarray, following: Iterable[list[str]]) -> list[tuple]:
        """The cells by column of any lines. Raises UserError for one with too few or too many."""
        names = self.form.names
        rows = [_split(line, self.form.delimiter) for line in lines]
        for number, row in zip(numbers, rows, strict=True):
            if len(row) != len(names):
                last = number == numbers[-1] and not any(line.strip() for block in following for line in block)
                expected = f"{len(names)} columns ({' '.join(names)})"
                what = "truncated" if last else "bad"
                raise UserError(f"{self.path}, line {number}: {what} line", expected, len(row))
        return list(zip(*rows, strict=True)) if rows else [()] * len(names)

    def _parse(self, cells: Sequence[str], numbers: np.ndarray, name: str) -> np.ndarray:
        """A column as float64. Raises UserError for the first cell that is not a finite number."""
        try:
            require_plain("".join(cells))
            values = np.array([*map(float, cells)], np.float64)
        except ValueError:
            values = np.array([_number(cell) for cell in cells])
        bad = ~np.isfinite(values)
        if bad.any():
            row = int(np.argmax(bad))
            what = f"{self.path}, line {numbers[row]}: bad {name}"
            raise UserError(what, "a finite number", repr(cells[row]))
        return values


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


def _split(line: str, delimiter: str | None) -> list[str]:
    """The cells of a line."""
    if delimiter is None:
        return line.split()
    return [value.strip() for value in next(csv.reader([line.replace("\r", " ")], delimiter=delimiter))]


def _header(cells: list[str], where: str) -> tuple[str, ...] | None:
    """Our names of the columns, or None if the cells are no header: a header names the utterance column."""
    names = tuple(_HEADER.get(name, name) for name in map(_plain, cells))
    if "utt_id" not in names:
        return None
    if len(set(names)) < len(names):
        raise UserError(f"{where}: two columns mean the same", "one each", " ".join(cells))
    return names


def _plain(cell: str) -> str:
    return cell.strip().strip('"').lower().replace("-", "_").replace(" ", "_")


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
