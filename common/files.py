"""Files that are written whole or not at all, and folders that one process at a time may write to."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import UserError


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success flush it to disk and rename it to `path`, else remove it.

    Raises UserError when the folder cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    temporary = Path(name)
    try:
        os.close(handle)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp's 0600 would hide results from a group
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def exclusive(folder: Path, wait: bool = True) -> Iterator[bool]:
    """Hold a folder's lock, making the folder; where another process holds it, say so and wait.

    Gives False where the disk has no locks, as some network disks. Raises UserError when there can be no such folder,
    and instead of waiting where `wait` is false.
    """
    import fcntl

    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from error
    try:
        locked = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise UserError(f"{folder} is in use", "no other process that writes to it", "one") from None
            print(f"note: waiting for another process that writes to {folder}", file=sys.stderr)
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            locked = False
        _held.add(handle)
        yield locked
    finally:
        _held.discard(handle)
        os.close(handle)


_held: set[int] = set()  # by `exclusive`


def _let_go() -> None:
    """In a forked process, a loader's say: it would hold the lock on when its parent was killed."""
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):  # where processes fork
    os.register_at_fork(after_in_child=_let_go)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write `text` to `path` whole or not at all (UTF-8)."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
