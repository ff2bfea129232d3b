"""What every command shares: the parser of its arguments, and its exit codes."""

import argparse
import io
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from common.errors import UserError


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
