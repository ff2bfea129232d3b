"""A figure for a dark page: `darken` changes the colours of one that was drawn for white."""

import io
from typing import TYPE_CHECKING

import numpy as np

from plots.style import BONAFIDE_COLOUR, DARK_FINDING_COLOURS, FINDING_COLOURS

if TYPE_CHECKING:  # matplotlib is slow to import, so functions import it
    from matplotlib.figure import Figure

DARK_GROUND, LIGHT_INK = "#0b0f19", "#f3f4f6"  # take the places of white and black
OTHERS = {FINDING_COLOURS[name]: dark for name, dark in DARK_FINDING_COLOURS.items()} | {
    BONAFIDE_COLOUR: "#56B4E9",
    "#D55E00": "#f98a66",
}


def png_looks(figure: "Figure", dpi: float = 170) -> tuple[bytes, bytes]:
    """`figure` as PNG for a white page and for a dark one; afterwards it is dark."""
    looks = []
    for change in (lambda figure: figure, darken):
        png = io.BytesIO()
        change(figure).savefig(png, format="png", dpi=dpi)
        looks.append(png.getvalue())
    return looks[0], looks[1]


def darken(figure: "Figure") -> "Figure":
    """Redraw `figure` on a dark ground: greys are mirrored, dark colours have lighter ones in their places."""
    from matplotlib.axes import Axes
    from matplotlib.collections import Collection
    from matplotlib.colors import ListedColormap
    from matplotlib.image import AxesImage
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.text import Text

    for artist in dict.fromkeys(figure.findobj()):
        if isinstance(artist, Text):
            artist.set_color(_dark(artist.get_color()))
        elif isinstance(artist, Line2D):
            parts = ("color", "markerfacecolor", "markeredgecolor")
            artist.set(**{part: _dark(getattr(artist, f"get_{part}")()) for part in parts})
        elif isinstance(artist, Patch) or (isinstance(artist, Collection) and artist.get_array() is None):
            face, edge = artist.get_facecolor(), artist.get_edgecolor()
            artist.set(facecolor=_dark(face), edgecolor=_dark(edge))
        elif isinstance(artist, AxesImage):
            artist.set_cmap(ListedColormap(_dark(artist.get_cmap()(np.arange(256)))))
        elif isinstance(artist, Axes):
            artist.tick_params(
                which="both", color=LIGHT_INK, labelcolor=LIGHT_INK, grid_color=_dark("0.9")
            )  # new ones, too
    return figure


def _dark(colours) -> "np.ndarray | tuple[float, ...]":
    """One colour or several (N, 4) → those on a dark ground, with their opacity."""
    from matplotlib.colors import to_rgb, to_rgba_array

    rgba = to_rgba_array(colours)
    ground, ink = np.array(to_rgb(DARK_GROUND)), np.array(to_rgb(LIGHT_INK))
    grey = np.ptp(rgba[:, :3], axis=1) < 0.02
    mirrored = ink + rgba[:, :1] * (ground - ink)
    for light, dark in OTHERS.items():
        rgba[np.isclose(rgba[:, :3], to_rgb(light), atol=1e-3).all(axis=1), :3] = to_rgb(dark)
    rgba[grey, :3] = mirrored[grey]
    return tuple(rgba[0]) if len(rgba) == 1 else rgba
