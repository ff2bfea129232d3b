"""Names and labels from elsewhere, escaped for where they are shown: a line of text, a cell of a CSV table, LaTeX.

HTML is escaped in webpage/cards.py, figures in plots/style.py. Score files and JSON keep names as they are.
"""

import re
from typing import Any

_FORMULA = re.compile(r"[=+@\t\r＝＋－＠]|-.")  # how a cell begins that a spreadsheet computes; a lone "-" is a word
_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def printable(text: object) -> str:
    """`text` as one line that commands no terminal: \\n, \\x1b, \\u202e for what cannot be shown, \\xe9 for a byte.

    Anybody may have written it, and a terminal obeys control characters; a line break could forge a line of output.
    """
    text = str(text)
    return text if text.isprintable() else "".join(sign if sign.isprintable() else _escape(sign) for sign in text)


def is_text(name: str) -> bool:
    """Whether a file can hold the name: file names whose bytes are no UTF-8 have lone surrogates in their place."""
    return not any("\ud800" <= sign <= "\udfff" for sign in name)


def _escape(sign: str) -> str:
    byte = ord(sign) - 0xDC00  # of a file name that is no UTF-8, see os.fsdecode
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else ascii(sign)[1:-1]


def csv_cell(value: Any) -> Any:
    """A cell that a spreadsheet shows and does not compute: a text that begins like a formula gets a `'` in front."""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def latex(text: str) -> str:
    """`text` letter for letter in LaTeX, which would run commands in it."""
    return "".join(_LATEX.get(sign, sign) for sign in printable(text))
