"""The prediction about one recording: bona fide versus spoof as two bars."""

from typing import TYPE_CHECKING, NamedTuple

from plots.style import BONAFIDE_COLOUR, SMALL, SPOOF_COLOUR, WIDTH, style_axes

if TYPE_CHECKING:  # matplotlib is slow to import, so functions import it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Prediction(NamedTuple):
    """The bars of both classes. texts: bona fide's value and spoof's, as they are told."""

    bonafide: float
    spoof: float
    texts: tuple[str, str]
    limits: tuple[float, float]  # of the axis
    label: str  # of the axis
    undecided: float  # the value at which neither class is ahead


def prediction_bars(prediction: Prediction) -> "Figure":
    """Both bars as a figure of their own, for one column."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 1.25), dpi=200, layout="constrained")
    draw_prediction(figure.add_subplot(), prediction)
    return figure


def draw_prediction(axes: "Axes", prediction: Prediction) -> None:
    """Two bars with their values; a line marks where neither class is ahead."""
    style_axes(axes, "", "")
    axes.set_xlabel(prediction.label, fontsize=SMALL)
    low, high = prediction.limits
    values = prediction.bonafide, prediction.spoof
    looks = {"facecolor": BONAFIDE_COLOUR}, {"facecolor": SPOOF_COLOUR, "hatch": "/////"}
    for row, (value, text, look) in enumerate(zip(values, prediction.texts, looks, strict=True)):
        axes.barh(row, value, 0.62, edgecolor="black", linewidth=0.5, hatch_linewidth=0.5, **look)
        place = {"textcoords": "offset points", "va": "center", "fontsize": SMALL, "weight": "bold"}
        axes.annotate(text, (max(value, 0), row), (4, 0), **place)
    axes.axvline(prediction.undecided, color="black", linewidth=0.9, linestyle=(0, (4, 2)), zorder=0.6)
    axes.set(xlim=(low, high + 0.25 * (high - low)), ylim=(1.55, -0.55))  # with room for the longest text
    axes.spines["bottom"].set_bounds(low, high)
    axes.set_xticks([low + (high - low) * quarter / 4 for quarter in range(5)])
    axes.xaxis.set_major_formatter("{x:.3g}")
    axes.set_yticks([0, 1], ["bona fide", "spoof"])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
