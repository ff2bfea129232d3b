"""Atomic file writes, and locks that let one process at a time write to a folder or a file."""

import hashlib
import itertools
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from common.errors import UserError
from common.escaping import printable

READERS, HASHED_FILES = 8, 1000  # threads that hash files, and the files that wait for them


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path. On success its content becomes that of `path`, else `path` stays as it was.

    A regular file is replaced by a rename, whole or not at all, and keeps its permissions; links to it stay. Devices,
    pipes and this command's own output (see `is_stream`) are never replaced: the content is written into them. Raises
    UserError when the folder cannot be written.
    """
    if is_stream(path):
        with _written_into(path) as temporary:
            yield temporary
        return
    path = Path(os.path.realpath(path))
    if path.is_dir():
        raise UserError(f"cannot write {path}", "a file", "a folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    temporary = Path(name)
    try:
        os.close(handle)
        with naming(path):
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        # mkstemp's 0600 would hide new results from the user's group
        temporary.chmod(stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """Turn an OSError that names no file, such as that of a full disk, into a UserError that names `path`."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or isinstance(error, BrokenPipeError):
            raise
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def is_stream(path: str | os.PathLike) -> bool:
    """Whether `path` is a device, a pipe, a socket, or the file that stdout or stderr goes to."""
    try:
        mode = os.stat(path).st_mode
    except OSError:  # nothing there, or nothing that can be opened
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) or _own_output(path) is not None


def require_separate(
    outputs: Mapping[str, str | os.PathLike | None], inputs: Iterable[str | os.PathLike | None]
) -> None:
    """Refuse an output, {option: its path}, that would be written over an input or another output.

    Raises UserError. Devices and pipes may be both; None: not given.
    """
    files = {option: path for option, path in outputs.items() if path and not is_stream(path)}
    there, seen = {}, {}
    for option, path in files.items():
        if (first := seen.setdefault(os.path.realpath(path), option)) != option:
            raise UserError(f"{option} {path}", "a file of its own", f"that of {first}")
        there |= dict.fromkeys(_identities([path]), option)
    for identity in _identities(inputs) if there else ():
        if option := there.get(identity):
            raise UserError(f"{option} {files[option]}", "a file to write", "one that this command reads")


def _identities(paths: Iterable[str | os.PathLike | None]) -> Iterator[tuple[int, int]]:
    """Device and inode of each path that leads to something."""
    for path in filter(None, paths):
        with suppress(OSError):
            status = os.stat(path)
            yield status.st_dev, status.st_ino


def require_folder(option: str, path: str | os.PathLike) -> None:
    """Raises UserError when something other than a folder is in the way of an option's output folder."""
    if os.path.exists(path) and not os.path.isdir(path):
        raise UserError(f"{option} {path}", "a folder, or none yet", "a file")


def _own_output(path: str | os.PathLike) -> int | None:
    """The descriptor of stdout or stderr if `path` leads to the same file, pipe or terminal."""
    for handle in (1, 2):
        with suppress(OSError):  # closed
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                return handle
    return None


@contextmanager
def _written_into(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path, and on success copy its bytes into the stream `path`, after what was printed so far."""
    try:
        folder = tempfile.TemporaryDirectory()
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    with folder:
        temporary = Path(folder.name, Path(path).name)
        temporary.touch()
        yield temporary
        own = _own_output(path)
        sys.stdout.flush()
        with temporary.open("rb") as file, open(path if own is None else os.dup(own), "wb") as out:
            shutil.copyfileobj(file, out)


@contextmanager
def exclusive(folder: Path, wait: bool = True) -> Iterator[bool]:
    """Lock `folder`, so that other processes cannot lock it at the same time. The folder is made if it is missing.

    If another process holds the lock, print a note and wait; with `wait=False` raise UserError instead. Yields whether
    the folder is locked: some network disks have no locks. Raises UserError when the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from error
    with _locked(handle, folder, wait) as locked:
        yield locked


@contextmanager
def exclusive_file(path: Path) -> Iterator[int]:
    """Lock the file `path`, which is made empty if it is missing; yields a descriptor to read and write it.

    Write it in place, or the lock is lost.

    Raises UserError when another process holds the lock, or the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    with _locked(handle, path, wait=False):
        if not path.exists() or not os.path.samestat(os.fstat(handle), path.stat()):  # the other has just removed it
            raise _in_use(path)
        yield handle


@contextmanager
def _locked(handle: int, path: Path, wait: bool) -> Iterator[bool]:
    """Lock the open file or folder, and close it at the end; see `exclusive`."""
    import fcntl

    try:
        locked = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise _in_use(path) from None
            print(printable(f"note: waiting for another process that writes to {path}"), file=sys.stderr)
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            locked = False
        _held.add(handle)
        yield locked
    finally:
        _held.discard(handle)
        os.close(handle)


def _in_use(path: Path) -> UserError:
    return UserError(f"{path} is in use", "no other process that writes to it", "one")


_held: set[int] = set()  # file descriptors of the locks that this process holds


def _close_inherited_locks() -> None:
    """In a forked process, such as a data loader's worker, which would keep the lock after its parent was killed."""
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_close_inherited_locks)


def content_hash(path: str | os.PathLike) -> str | None:
    """SHA-256 of a file's bytes; None if it cannot be read, or is no regular file, such as a pipe that would block."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        with open(path, "rb", buffering=0) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def content_hashes(paths: Sequence[str | os.PathLike]) -> Iterator[str | None]:
    """`content_hash` of each file, read by several threads: on a network disk each file is a wait."""
    with ThreadPoolExecutor(READERS) as readers:
        for first in range(0, len(paths), HASHED_FILES):
            yield from readers.map(content_hash, paths[first : first + HASHED_FILES])


def distinct_names(names: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """The names made fit for file names and different from each other and those taken: a repeated one gets a number."""
    found, seen = [], set(taken)
    for name in names:
        name = re.sub(r"[^\w.+-]+", "_", name)
        numbered = (name if number == 1 else f"{name}-{number}" for number in itertools.count(1))
        found.append(next(each for each in numbered if each not in seen))
        seen.add(found[-1])
    return found


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write `text` to `path` atomically, in UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
