"""How the page writes scores, model labels and errors; times are `scoring.passages.clock`."""

import re
import sys
import tempfile
from pathlib import Path

from common.errors import UserError
from common.escaping import printable
from scoring.weights import weights_folder

ROOT = Path(__file__).parents[1]


def two_decimals(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}".replace("-", "−")


def short_label(label: str) -> str:
    """exp_result/RUN/weights/best.pth → RUN best; other labels stay as they are."""
    folders = label.split("/")
    return f"{folders[1]} {Path(folders[-1]).stem}" if folders[0] == "exp_result" and len(folders) > 3 else label


def without_options(text: str) -> str:
    """A sentence written for the command line, with the page's settings in place of options."""
    return text.replace("--threshold", "“Own threshold”").replace("--target_far", "“Target FAR”")


def sentence(text: str) -> str:
    """`text` with a capital letter at its beginning and a full stop at its end."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '?', '!')) else '.'}"


def error_sentence(error: Exception) -> str:
    """What the page says about an error, without traceback and paths. An unexpected error goes to the server's log."""
    if not isinstance(error, UserError):
        print(printable(f"error: {type(error).__name__}: {error}"), file=sys.stderr)
        return "something went wrong on the server"
    text = without_options(str(error))
    for root in (tempfile.gettempdir(), str(weights_folder()), str(ROOT)):
        text = re.sub(rf"(?<![\w:/.-]){re.escape(root)}/", "", text)  # a path, and no part of a web address
    return text
