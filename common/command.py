"""Argument parsing and exit codes of all commands."""

import argparse
import io
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from common.errors import UserError


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that raises UserError, keeps line breaks in help texts and takes no abbreviated options."""

    def __init__(self, **options):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


def run(main: Callable[[], int | None]) -> NoReturn:
    """Call `main` and exit with its return value (None: 0), 130 after Ctrl-C, or 141 if the output pipe was closed.

    A UserError, or an OSError such as a full disk or a missing permission, becomes one line on stderr and exit code 2.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # print file names that are not UTF-8 unchanged
    try:
        code = main() or 0
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # `… | head`: the reader has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except OSError as error:
        print(f"error: {error.filename or 'the system'}: {error.strerror or error}", file=sys.stderr)
        code = 2
    sys.exit(code)
