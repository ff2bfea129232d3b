"""The audio files to score: named one by one, in a list, or found in a folder."""

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from audio.search import left_out_notes, search
from common.errors import UserError
from common.escaping import printable
from common.text_files import read_lines


def find_audio(
    names: Iterable[str], list_path: str | None, folders: Iterable[str], recursive: bool = False
) -> list[Path]:
    """The files named, then those in the list (`-`: stdin), then those in the folders; each once, in this order.

    Raises UserError when there are none.
    """
    names, folders = list(names), list(folders)
    if "" in (*names, *folders):
        raise UserError("nothing to score", "the path of a file or folder", "an empty one")
    files = [Path(name) for name in names]
    if list_path:
        files += files_in_list(list_path)
    for folder in folders:
        files += files_in_folder(Path(folder), recursive)
    if not files:
        raise UserError("nothing to score", "at least one file", "none")
    return list(dict.fromkeys(files))


def files_in_list(path: str) -> list[Path]:
    """A path on each line; `-` reads stdin. Raises UserError.

    Blanks at the ends of a line belong to the path only if there is such a file.
    """
    names = (name.rstrip("\r") for name in read_lines(path, errors="surrogateescape"))
    return [Path(name if os.path.lexists(name) else name.strip()) for name in names if name.strip()]


def files_in_folder(folder: Path, recursive: bool) -> list[Path]:
    """Audio and video files by their endings, sorted; notes name the others. Raises UserError if it is no folder.

    A folder that cannot be read is among the files, so that it fails like one that cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"cannot search {folder}", "a folder", "a file" if folder.exists() else "nothing there")
    found = search(folder, recursive)
    for note in left_out_notes(found.left_out):
        print(printable(f"note: {note}"), file=sys.stderr)
    if not found.files and not found.unreadable:
        raise UserError(f"nothing in {folder}", "audio or video files", "none" if recursive else "none (--recursive?)")
    return sorted(map(Path, found.files + found.unreadable))


def name_utterances(files: Sequence[Path]) -> dict[Path, str]:
    """utt_id of each file: its name without the ending, or, if two files share one, the path from their common folder.

    The paths keep their endings only if it takes that.
    """
    paths = [Path(os.path.abspath(file)) for file in files]
    top = os.path.commonpath([path.parent for path in paths])
    below = [path.relative_to(top) for path in paths]
    stems, without_endings = [file.stem for file in files], [path.with_suffix("").as_posix() for path in below]
    distinct = (names for names in (stems, without_endings) if len(set(names)) == len(names))
    return dict(zip(files, next(distinct, [path.as_posix() for path in below]), strict=True))


def require_distinct(utt_ids: dict[Path, str], blanks: bool) -> None:
    """Raises UserError if two files share a name, or if a name has blanks and `blanks` is false."""
    seen = {}
    for file, name in utt_ids.items():
        if not blanks and len(name.split()) != 1:
            raise UserError("--scores names files without their ending", "no blanks", repr(name))
        if name in seen:
            raise UserError(f"two files are called {name}", "each file once", f"{seen[name]} and {file}")
        seen[name] = file
