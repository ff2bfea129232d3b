"""Argument parsing and exit codes of all commands."""

import argparse
import codecs
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from common.errors import PartFailed, UserError
from common.escaping import printable

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # where the commands are
STOP_SECONDS = 60.0  # after SIGTERM a command has so long to finish a step, save and clean up


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that raises UserError, keeps line breaks in help texts and takes no abbreviated options."""

    def __init__(self, **options):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


def run(main: Callable[[], int | None]) -> NoReturn:
    """Call `main` and exit with its return value (None: 0), 130 after Ctrl-C, or 141 if the output pipe was closed.

    A UserError, or an OSError such as a full disk or a missing permission, becomes one line on stderr and exit code 2
    (PartFailed: 1).
    SIGTERM ends it like Ctrl-C, with exit code 143, also as the first process of a container, and when it hangs.
    """
    signal.signal(signal.SIGTERM, _terminate)
    _end_after_sigterm()
    _open_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        codecs.register_error("printable", _printable)
        sys.stdout.reconfigure(errors="printable")
    try:
        code = main() or 0
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1 if isinstance(error, PartFailed) else 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # `… | head`: the reader has read enough
        _discard_output()
        code = 141
    except RuntimeError as error:  # torch's; its classes are known by name, as the import of torch takes a second
        first = str(error).partition("\n")[0]
        if type(error).__name__ == "OutOfMemoryError":
            print(f"error: the GPU has too little memory: a smaller batch takes less ({first[:200]})", file=sys.stderr)
        elif first.startswith("DataLoader worker"):  # raised wherever the main thread is
            print(f"error: a worker process died — is there enough memory? ({first})", file=sys.stderr)
        else:
            raise
        code = 2
    except OSError as error:
        print(printable(f"error: {error.filename or 'the system'}: {error.strerror or error}"), file=sys.stderr)
        if error.filename is None:  # perhaps stdout itself, on a full disk
            _discard_output()
        code = 2
    signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))  # nothing is left to clean up
    sys.exit(code)


def _uncaught(kind: type[BaseException], error: BaseException, trace) -> None:
    """Ctrl-C while a command imports its packages, which takes seconds: one word, as later."""
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


if os.path.dirname(os.path.abspath(getattr(sys.modules["__main__"], "__file__", None) or "-")) == ROOT:
    sys.excepthook = _uncaught  # not in a user's own program, which may import what this module's users need


def _terminate(number: int, _frame) -> NoReturn:
    sys.exit(128 + number)


def _end_after_sigterm() -> None:
    """End the process if it is still there `STOP_SECONDS` after SIGTERM.

    Python's handlers run in the main thread, which may hang in a library; the byte that a signal writes does not wait.
    """
    if not hasattr(os, "register_at_fork"):  # Windows
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))  # a worker's signals are its own
    threading.Thread(target=_await_sigterm, args=(reading,), daemon=True).start()


def _await_sigterm(pipe: int) -> None:
    while os.read(pipe, 1)[0] != signal.SIGTERM:
        pass
    time.sleep(STOP_SECONDS)
    with suppress(OSError):
        os.write(2, f"error: still busy {STOP_SECONDS:g} s after SIGTERM: ended\n".encode())
    os._exit(128 + signal.SIGTERM)


def _open_closed_streams() -> None:
    """Read nothing from a closed stdin, write nowhere for a closed stdout or stderr."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # in this order they get descriptors 0, 1, 2
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def _printable(error: UnicodeError) -> tuple[str | bytes, int]:
    """Print the bytes of a file name that is no text unchanged, and ? for a character that the terminal lacks."""
    error.end = error.start + 1
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeEncodeError:
        return codecs.replace_errors(error)


def _discard_output() -> None:
    """Drop what is left to print, or Python's own last flush fails again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
