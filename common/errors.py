"""The error for mistakes that the user can correct."""

from common.escaping import printable


class UserError(Exception):
    """A mistake of the user's. It ends a command with one line on stderr and exit code 2.

    `UserError(what, expected, found)` reads "<what> — expected <expected>, found <found>".
    """

    def __init__(self, what: str, expected: object = None, found: object = None):
        parts = [f"{name} {value}" for name, value in (("expected", expected), ("found", found)) if value is not None]
        message = f"{what} — {', '.join(parts)}" if parts else what
        super().__init__(printable(" ".join(message.split())))  # on one line, even if a library's text has several


class PartFailed(UserError):
    """Part of the work failed, and the rest is done: a command ends with exit code 1."""
