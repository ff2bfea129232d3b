"""What every command of this repository shares: one-line errors, exit codes, atomic writes.

Level below all other rooms: standard library only.
"""

import argparse
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn


class UserError(Exception):
    """A user's mistake: ends a command with one line on stderr and exit code 2.

    `UserError(what, expected, found)` reads "<what> — expected <expected>, found <found>".
    """

    def __init__(self, what: str, expected: object = None, found: object = None):
        parts = [f"{name} {value}" for name, value in (("expected", expected), ("found", found)) if value is not None]
        message = f"{what} — {', '.join(parts)}" if parts else what
        super().__init__(" ".join(message.split()))  # one line, whatever a library put into it


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose errors are `UserError`s; the default help text is the module's docstring."""

    def __init__(self, **options):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


def run(main: Callable[[], int | None]) -> NoReturn:
    """Call `main` and exit: 0 or what it returns, 130 on Ctrl-C, 141 on a closed pipe.

    2 with one line on a `UserError`, and on an OSError that nobody caught: a full disk, a folder without permission.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # file names of any bytes are printed as they are
    try:
        code = main() or 0
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # `… | head`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except OSError as error:
        print(f"error: {error.filename or 'the system'}: {error.strerror or error}", file=sys.stderr)
        code = 2
    sys.exit(code)


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
def alone(folder: Path, wait: bool = True) -> Iterator[bool]:
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


_held: set[int] = set()  # by `alone`


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
