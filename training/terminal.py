"""Text on a terminal: a screen that is redrawn in place, tables, charts, and words for numbers.

Nothing here knows about training. Widths are in columns: East Asian characters take two, combining ones none.
"""

import math
import os
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Callable, Sequence

import numpy as np

CHART_ROWS = (6, 5, 4, 3, 2)  # heights of a chart: the first with which everything fits on the screen
CHART_WIDTH = 30  # columns: charts at least this wide stand side by side
NARROWEST = 20  # columns
ASCII = str.maketrans("–—…·│┤█░", "--~|||#.")  # one character for one, so that columns stay aligned
BRAILLE = np.array([[1, 8], [2, 16], [4, 32], [64, 128]])  # a character is U+2800 plus the sum over its dots


class Screen:
    """Prints one text after the other: over the previous one on a terminal, elsewhere below it without escape codes."""

    def __init__(self, in_place: bool):
        self.in_place = in_place and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self.unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
        self.previous: tuple[os.terminal_size, int] | None = None  # the terminal's size and the lines printed

    def show(self, draw: Callable[[int, int, bool], list[str]]) -> None:
        """Print the lines of `draw(columns, rows of a chart, unicode)`, with charts as high as the terminal allows."""
        terminal = shutil.get_terminal_size()
        width = max(NARROWEST, terminal.columns)
        for rows in CHART_ROWS:
            lines = draw(width, rows, self.unicode)
            if not self.in_place or len(lines) < terminal.lines:
                break
        if self.in_place and len(lines) >= terminal.lines:
            hidden = len(lines) - terminal.lines + 2
            lines = [*lines[:-hidden], f"… {hidden:,} more lines"]
        text = "\n".join([*lines, ""])
        if not self.unicode:
            text = text.translate(ASCII).encode("ascii", "replace").decode()
        sys.stdout.write(self._start(terminal) + text)
        sys.stdout.flush()
        self.previous = (terminal, len(lines))

    def _start(self, terminal: os.terminal_size) -> str:
        """Moves the cursor to where the text begins. A terminal of another size has wrapped lines anew: clear it."""
        if self.previous is None:
            return ""
        if not self.in_place:
            return "\n"
        size, lines = self.previous
        return f"\x1b[{lines}F\x1b[J" if size == terminal else "\x1b[H\x1b[2J"


# ------------------------------------------------------------------------------------------------------ words


def format_duration(seconds: float) -> str:
    """`43 s`, `37 min`, `5 h 12 min`, `3 d 4 h`."""
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    if minutes < 1:
        return f"{max(0, int(seconds))} s"
    if hours < 1:
        return f"{minutes} min"
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def format_bytes(count: float) -> str:
    """`512 B`, `2.0 KiB`, `1.5 MiB`, `80.0 GiB`."""
    power = min(3, int(math.log2(max(count, 1)) // 10))
    return f"{count / 1024**power:.{min(power, 1)}f} {('B', 'KiB', 'MiB', 'GiB')[power]}"


# ----------------------------------------------------------------------------------------------------- layout


def display_width(text: str) -> int:
    """Columns that `text` takes."""
    return sum(0 if unicodedata.combining(s) else 1 + (unicodedata.east_asian_width(s) in "WF") for s in text)


def fit_width(text: str, width: int) -> str:
    """`text` padded to `width` columns; if it is wider, its middle becomes `…`."""
    head, tail = text[: (len(text) + 1) // 2], text[(len(text) + 1) // 2 :]
    if display_width(text) > width:
        while display_width(head) + 1 + display_width(tail) > width and head:
            head, tail = (head[:-1], tail) if display_width(head) > display_width(tail) else (head, tail[1:])
        head += "…"
    return head + tail + " " * (width - display_width(head + tail))


def labelled_lines(pairs: Sequence[tuple[str, str]], width: int) -> list[str]:
    """Labels in a left column, their texts wrapped in a right one."""
    left = max((len(label) for label, _ in pairs), default=0) + 2
    lines = []
    for label, text in pairs:
        lines += textwrap.wrap(text, width, initial_indent=f"{label:<{left}}", subsequent_indent=" " * left)
    return lines


def progress_bar(fraction: float) -> str:
    """24 columns and the percentage."""
    return f"{'█' * round(24 * fraction):░<24} {100 * fraction:.0f} %"


def table(rows: Sequence[dict[str, str]], width: int, left_aligned: Sequence[str], spare: Sequence[str]) -> list[str]:
    """A heading and aligned rows (value by column). The first column is shortened where it does not fit.

    Columns without a value in any row are left out; columns in `spare` too, one after the other, until the table fits.
    """
    first = next(iter(rows[0]))
    widths = {head: max(display_width(row[head]) for row in rows) for head in rows[0]}
    widths = {head: max(widest, len(head)) for head, widest in widths.items() if widest}

    def others() -> int:
        return sum(each + 2 for head, each in widths.items() if head != first)

    least = min(widths[first], 12)
    for head in spare:
        if least + others() > width:
            widths.pop(head, None)
    widths[first] = min(widths[first], max(least, width - others()))
    lines = []
    for row in ({head: head for head in widths}, *rows):
        cells = [fit_width(row[head], widths[head]) for head in widths if head in left_aligned]
        cells += [f"{row[head]:>{widths[head]}}" for head in widths if head not in left_aligned]
        lines.append("  ".join(cells))
    return lines


# ----------------------------------------------------------------------------------------------------- charts


def chart_grid(series: dict[str, dict[int, float]], last: int, width: int, rows: int, unicode: bool) -> list[str]:
    """A chart of each series (value by epoch, by title) over epochs 1 … `last`, side by side where there is room."""
    across = max(1, min(len(series), (width + 3) // (CHART_WIDTH + 3)))
    each = (width + 3) // across - 3
    drawn = [chart(title, values, last, (each, rows), unicode) for title, values in series.items()]
    groups = [drawn[first : first + across] for first in range(0, len(drawn), across)]
    return [
        "   ".join(fit_width(line, each) for line in beside) for group in groups for beside in zip(*group, strict=True)
    ]


def chart(title: str, values: dict[int, float], last: int, size: tuple[int, int], unicode: bool) -> list[str]:
    """A title, a curve and the epochs below it. size: columns, and rows of the curve.

    The scale is logarithmic, and the title says so, where values differ more than tenfold.
    """
    numbers, (width, rows) = np.array(list(values.values())), size
    low, high = numbers.min(), numbers.max()
    logarithmic = low > 0 and high > 10 * low
    heights = np.ones(len(numbers))  # if all values are equal
    if high > low:
        scaled, least, most = (np.log(x) if logarithmic else x for x in (numbers, low, high))
        heights = (scaled - least) / (most - least)
    ticks = [f"{high:.3g}", *[""] * (rows - 2), f"{low:.3g}" if high > low else ""]
    left = max(map(len, ticks))
    positions = (np.array(list(values)) - 1) / max(last - 1, 1)
    curve = draw_curve(positions, heights, (width - left - 1, rows), unicode)
    framed = [f"{tick:>{left}}{'┤' if tick else '│'}{line}" for tick, line in zip(ticks, curve, strict=True)]
    epochs = f"{'':>{left}} 1" + (f"{last:>{width - left - 2}}" if last > 1 else "")
    return [title + (", log scale" if logarithmic else ""), *framed, epochs]


def draw_curve(x: np.ndarray, y: np.ndarray, size: tuple[int, int], unicode: bool) -> list[str]:
    """The line through points x, y (N,) from 0 to 1, x ascending. size: columns and rows of characters.

    A character holds 2 × 4 dots in Unicode (braille) and 1 × 3 in ASCII.
    """
    (columns, rows), (across, down) = size, (2, 4) if unicode else (1, 3)
    x, y = x * (columns * across - 1), y * (rows * down - 1)  # in dots
    edges = np.interp(np.arange(columns * across + 1) - 0.5, x, y)  # the line between neighbouring columns of dots
    low, high = np.minimum(edges[:-1], edges[1:]), np.maximum(edges[:-1], edges[1:])
    column = np.round(x).astype(int)
    np.minimum.at(low, column, y)
    np.maximum.at(high, column, y)
    level = np.arange(rows * down)[::-1, None]
    dots = (np.round(low) <= level) & (level <= np.round(high))
    dots[:, : column[0]] = dots[:, column[-1] + 1 :] = False
    dots = dots.reshape(rows, down, columns, across).swapaxes(1, 2)
    if unicode:
        codes = (dots * BRAILLE).sum((2, 3))
        return ["".join(chr(0x2800 + code) if code else " " for code in row) for row in codes]
    return ["".join(" '-|.|||"[code] for code in row) for row in (dots[..., 0] * [1, 2, 4]).sum(2)]
