"""The one reader of text files that people make: lists, protocols, score files, tables."""

import sys
from contextlib import nullcontext
from pathlib import Path

from common.errors import UserError

MAX_LINE = 10_000  # bytes; real protocol lines have at most about 120


def read_lines(path: str | Path, errors: str = "strict") -> list[str]:
    """The lines of a UTF-8 file, with or without BOM; `-` is stdin. errors: as in `bytes.decode`.

    Raises UserError, with the line number, if it is no text, before it reads a huge line to its end.
    """
    lines: list[bytes] = [b""]
    try:
        with nullcontext(sys.stdin.buffer) if str(path) == "-" else Path(path).open("rb") as file:
            while chunk := file.read(1 << 20):
                start = len(lines)
                first, *rest = chunk.split(b"\n")
                lines[-1] += first
                lines += rest
                _check_text(lines[start - 1 :], start, path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    data = b"\n".join(lines)
    try:
        return data.decode("utf-8-sig", errors).split("\n")
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {number}: not text", "UTF-8", f"byte 0x{data[error.start]:02x}") from error


def _check_text(lines: list[bytes], start: int, path: str | Path) -> None:
    """Raises UserError for the first line, counted from `start`, that is not text or too long."""
    if max(map(len, lines)) <= MAX_LINE and not any(b"\0" in line or line[:2] == b"\x1f\x8b" for line in lines):
        return
    for number, line in enumerate(lines, start):
        if line[:2] == b"\x1f\x8b":
            raise UserError(f"{path}, line {number}: not text", "an unpacked file", "gzip data (gunzip it first)")
        if b"\0" in line:
            raise UserError(f"{path}, line {number}: not text", "UTF-8", "a NUL byte: a binary or UTF-16 file")
        if len(line) > MAX_LINE:
            raise UserError(f"{path}, line {number}: line too long", f"at most {MAX_LINE:,} bytes", f"{len(line):,}+")
