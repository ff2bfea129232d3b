"""Pages of A4 that also print on Letter: paragraphs, rows of two columns and figures, one below the other.

paper = Paper("Report", "12 May 2026")
paper.heading("Verdict")
paper.text("Long text is wrapped.")
paper.picture(png)
figures = paper.pages()
"""

import io
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from common.escaping import printable

if TYPE_CHECKING:  # matplotlib is slow to import, so functions import it
    from matplotlib.figure import Figure

PAGE = 8.27, 11.69  # inches
LEFT, TOP, WIDTH, BOTTOM = 0.95, 0.75, 6.4, 10.2  # inches: what also lies on Letter, 8.5 × 11, with its margins
COLUMN = 1.25  # inches: of labels
BODY, HEADING, TITLE = 9.5, 12, 20  # points
LEADING = 1.45  # line height, in font sizes
PICTURE = 1520  # pixels


class Paper:
    """Writes from the top down and begins a new page when one is full. footer: below each page, beside its number."""

    def __init__(self, footer: str):
        self.footer, self.figures, self.y = footer, [], 0.0
        self._turn()

    def pages(self) -> "list[Figure]":
        """The pages, numbered; the last thing to call."""
        for number, figure in enumerate(self.figures, 1):
            at = BOTTOM + 0.35
            self._put(figure, LEFT, at, self.footer, size=7.5, color="0.35")
            self._put(figure, LEFT + WIDTH, at, f"{number} / {len(self.figures)}", 7.5, color="0.35", ha="right")
        return self.figures

    def title(self, text: str) -> None:
        self.text(text, size=TITLE, weight="bold", space=0.12)

    def heading(self, text: str) -> None:
        """A heading, with room for a few lines below it."""
        self._room(1.0)
        self.y += 0.14
        self.text(text, size=HEADING, weight="bold", space=0.05)

    def text(self, text: str, size: float = BODY, indent: float = 0.0, space: float = 0.06, **look) -> None:
        """A paragraph; space: inches below it."""
        for line in wrapped(text, WIDTH - indent, size, look.get("weight", "normal")):
            self._room(_height(size))
            self._put(self.figures[-1], LEFT + indent, self.y, line, size, **look)
            self.y += _height(size)
        self.y += space

    def row(self, label: str, text: str, size: float = BODY) -> None:
        """A label and, beside it, its text."""
        self._room(_height(BODY))
        self._put(self.figures[-1], LEFT, self.y, label, color="0.35")
        self.text(text, size, indent=COLUMN, space=0.03)

    def banner(self, text: str, beside: str, colour: str) -> None:
        """A large word in colour, and smaller text after it."""
        self._room(0.5)
        self._box(LEFT, self.y, 0.07, 0.42, colour)
        self._put(self.figures[-1], LEFT + 0.2, self.y + 0.04, text, 19, weight="bold", color=colour)
        self._put(self.figures[-1], LEFT + WIDTH, self.y + 0.13, beside, 11, ha="right")
        self.y += 0.52

    def picture(self, png: bytes) -> None:
        """A figure, scaled so that one of `PICTURE` pixels is as wide as the text."""
        from matplotlib.image import imread

        pixels = imread(io.BytesIO(png))
        height, width = (size * WIDTH / PICTURE for size in pixels.shape[:2])
        self._room(height)
        axes = self.figures[-1].add_axes(self._place(LEFT, self.y, width, height))
        axes.imshow(pixels, aspect="auto", interpolation="none")
        axes.set_axis_off()
        self.y += height + 0.06

    def _room(self, height: float) -> None:
        if self.y + height > BOTTOM:
            self._turn()

    def _turn(self) -> None:
        from matplotlib.figure import Figure

        self.figures.append(Figure(figsize=PAGE))
        self.y = TOP

    def _put(self, figure: "Figure", x: float, y: float, text: str, size: float = BODY, **look) -> None:
        """A line whose top is at y."""
        x, y = x / PAGE[0], 1 - y / PAGE[1]
        figure.text(x, y, text, fontsize=size, va="top", parse_math=False, **look)

    def _box(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        from matplotlib.patches import Rectangle

        left, bottom, width, height = self._place(x, y, width, height)
        figure = self.figures[-1]
        figure.add_artist(Rectangle((left, bottom), width, height, color=colour, linewidth=0))

    @staticmethod
    def _place(x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
        """Left, bottom, width and height in fractions of the page, as matplotlib counts."""
        return x / PAGE[0], 1 - (y + height) / PAGE[1], width / PAGE[0], height / PAGE[1]


def _height(size: float) -> float:
    """Inches of a line."""
    return LEADING * size / 72


def wrapped(text: str, width: float, size: float, weight: str = "normal") -> list[str]:
    """`text` in lines of at most `width` inches, letter for letter but for � where the font lacks a sign."""
    from matplotlib.font_manager import FontProperties, findfont, get_font
    from matplotlib.ft2font import LoadFlags

    font = get_font(findfont(FontProperties(weight=weight)))
    known = font.get_charmap()
    signs = [sign if ord(sign) in known else "�" for sign in printable(text)]
    font.set_size(size, 72)
    inches = {sign: font.load_char(ord(sign), LoadFlags.NO_HINTING).linearHoriAdvance / 2**16 / 72 for sign in {*signs}}
    lines, line, used = [], "", 0.0
    for word in _pieces("".join(signs).split(), inches, width):
        wide = sum(inches[sign] for sign in word)
        space = inches.get(" ", 0.0) if line else 0.0
        if line and used + space + wide > width:
            lines.append(line)
            line, used, space = "", 0.0, 0.0
        line, used = f"{line} {word}" if line else word, used + space + wide
    return [*lines, line]


def _pieces(words: Iterable[str], inches: dict[str, float], width: float) -> Iterator[str]:
    """The words; those wider than `width` in several pieces."""
    for word in words:
        piece, used = "", 0.0
        for sign in word:
            if used + inches[sign] > width:
                yield piece
                piece, used = "", 0.0
            piece, used = piece + sign, used + inches[sign]
        yield piece
