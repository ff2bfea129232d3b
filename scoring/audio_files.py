"""The audio files to score: named one by one, in a list, or found in a folder."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from audio.reading import ENDINGS
from common.errors import UserError


def find_audio(
    names: Iterable[str], list_path: str | None, folders: Iterable[str], recursive: bool = False
) -> list[Path]:
    """The files named, then those in the list (`-`: stdin), then those in the folders; each once, in this order.

    Raises UserError when there are none.
    """
    files = [Path(name) for name in names]
    if list_path:
        files += files_in_list(list_path)
    for folder in folders:
        files += files_in_folder(Path(folder), recursive)
    if not files:
        raise UserError("nothing to score", "at least one file", "none")
    return list(dict.fromkeys(files))


def files_in_list(path: str) -> list[Path]:
    """A path on each line; `-` reads stdin. Raises UserError."""
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read list {path}", "a file with a path on each line", error.strerror) from error
    return [Path(name.rstrip("\r")) for name in os.fsdecode(data).split("\n") if name.strip()]


def files_in_folder(folder: Path, recursive: bool) -> list[Path]:
    """Audio and video files by their endings, sorted; a note counts the others. Raises UserError if it is no folder."""
    if not folder.is_dir():
        raise UserError(f"--audio_dir {folder}", "a folder", "a file" if folder.exists() else "nothing there")
    every = sorted(path for path in (folder.rglob("*") if recursive else folder.iterdir()) if path.is_file())
    found = [path for path in every if path.suffix.lower() in ENDINGS]
    if others := len(every) - len(found):
        print(f"note: {others} files in {folder} have no ending of audio or video and are left out", file=sys.stderr)
    if not found:
        raise UserError(f"--audio_dir {folder}", "audio or video files", "none" if recursive else "none (--recursive?)")
    return found


def require_distinct_names(files: Iterable[Path]) -> None:
    """Score files and figures are named by utt_id. Raises UserError if two files share one or a name has blanks."""
    seen = {}
    for file in files:
        if len(file.stem.split()) != 1:
            raise UserError("--scores and --visualize name files without their ending", "no blanks", repr(file.stem))
        if file.stem in seen:
            raise UserError(f"two files are called {file.stem}", "names that differ", f"{seen[file.stem]} and {file}")
        seen[file.stem] = file
