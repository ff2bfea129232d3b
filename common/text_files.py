"""The one reader of text files that people make: lists, protocols, score files, tables."""

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

from common.errors import UserError

MAX_LINE = 10_000  # bytes; real protocol lines have at most about 120
BLOCK = 1 << 20  # bytes read at a time


def read_lines(path: str | Path, errors: str = "strict") -> list[str]:
    """The lines of a UTF-8 file, with or without BOM; `-` is stdin. errors: as in `bytes.decode`.

    Raises UserError, with the line number, if it is no text, before it reads a huge line to its end.
    """
    return [line for lines in read_blocks(path, errors) for line in lines]


def read_blocks(path: str | Path, errors: str = "strict") -> Iterator[list[str]]:
    """The same lines, about a megabyte of them at a time: a file may be larger than the memory."""
    first, rest, encoding = 1, b"", "utf-8-sig"
    try:
        with nullcontext(sys.stdin.buffer) if str(path) == "-" else Path(path).open("rb") as file:
            while chunk := file.read(BLOCK):
                whole, newline, rest = (rest + chunk).rpartition(b"\n")
                if newline:
                    yield (lines := _decode(whole, first, path, encoding, errors))
                    first, encoding = first + len(lines), "utf-8"
                _check_text([rest], first, path)
            yield _decode(rest, first, path, encoding, errors)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error


def _decode(block: bytes, first: int, path: str | Path, encoding: str, errors: str) -> list[str]:
    """The lines of a block, whose first line has the number `first`. Raises UserError if it is no text."""
    _check_text(block.split(b"\n"), first, path)
    try:
        return block.decode(encoding, errors).split("\n")
    except UnicodeDecodeError as error:
        bad = error.object[error.start]  # the object lacks the BOM
        number = first + error.object.count(b"\n", 0, error.start)
        raise UserError(f"{path}, line {number}: not text", "UTF-8", f"byte 0x{bad:02x}") from error


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
