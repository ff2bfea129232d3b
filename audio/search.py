"""The one search of folders for audio: links are followed, and every path that is no audio is given with the reason."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from audio.reading import ENDINGS

NO_ENDING = "no ending of audio or video"
APPLE = "metadata of macOS (._…)"
LOOP = "a link to a folder around it"
BELOW = "in a folder below (--recursive)"
UNREADABLE = "cannot be read"  # followed by the system's reason
NAMED = 5  # a note names at most so many paths for a reason


@dataclass
class FoundAudio:
    """Audio files, sorted, and the other paths by the reason why they are left out."""

    files: list[str] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    @property
    def unreadable(self) -> list[str]:
        """Folders whose files are not known."""
        return unreadable(self.left_out)


def is_audio(name: str) -> bool:
    """By its ending; a dead link counts, so that reading it names it."""
    return os.path.splitext(name)[1].lower() in ENDINGS and not name.startswith("._")


def search(folder: str | os.PathLike, recursive: bool = True) -> FoundAudio:
    """All audio files in a folder and those below it. An unreadable folder is left out, not an error."""
    found, around = FoundAudio(), {os.fspath(folder): ()}  # identities of the folders around each one

    def leave_out(error: OSError) -> None:
        found.left_out[f"{UNREADABLE} ({error.strerror})"].append(error.filename)

    for parent, subfolders, names in os.walk(folder, onerror=leave_out, followlinks=True):
        chain = (*around.pop(parent), _identity(parent))
        for name in sorted(names):
            path = os.path.join(parent, name)
            reason = None if is_audio(name) else APPLE if name.startswith("._") else NO_ENDING
            (found.files if reason is None else found.left_out[reason]).append(str(Path(path)))  # without ./
        paths = {name: os.path.join(parent, name) for name in sorted(subfolders)}
        subfolders.clear()
        for name, path in paths.items():
            try:
                if not recursive or _identity(path) in chain:
                    found.left_out[LOOP if recursive else BELOW].append(path)
                else:
                    around[path] = chain
                    subfolders.append(name)
            except OSError as error:  # the parent can be listed, but not entered
                leave_out(error)
    found.files.sort()
    return found


def unreadable(left_out: Mapping[str, Sequence[str]]) -> list[str]:
    """The folders that are left out because they cannot be read."""
    return [path for reason, paths in left_out.items() if reason.startswith(UNREADABLE) for path in paths]


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def left_out_notes(left_out: Mapping[str, Sequence[str | Path]]) -> list[str]:
    """`<count> left out, <reason>: <the first paths>` for each reason; unreadable folders are all named."""
    notes = []
    for reason, paths in left_out.items():
        named = len(paths) if reason.startswith(UNREADABLE) else NAMED
        more = f" and {len(paths) - named:,} more" if len(paths) > named else ""
        notes.append(f"{len(paths):,} left out, {reason}: {', '.join(map(str, paths[:named]))}{more}")
    return notes
