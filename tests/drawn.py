"""Helpers of the tests of figures: the texts that a figure shows, and whether they can be read."""

from itertools import combinations

from matplotlib.axis import Axis, Tick
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox


def texts(figure: Figure) -> list[Text]:
    """Every text that `figure` shows; it has to be drawn before."""
    ticks = {label for tick in figure.findobj(Tick) for label in (tick.label1, tick.label2)}
    shown = [text for text in figure.findobj(Text) if text not in ticks]
    for axis in figure.findobj(Axis):
        low, high = sorted(axis.get_view_interval())  # ticks outside the limits are kept but not drawn
        shown += [text for text in axis.get_ticklabels() if low <= text.get_position()[axis.axis_name == "y"] <= high]
    return [text for text in shown if text.get_visible() and text.get_text().strip()]


def labels(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def assert_readable(figure: Figure) -> None:
    """A one-column figure has all its texts inside, apart and large enough, and a legend that covers no data."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = {text: text.get_window_extent(canvas.get_renderer()) for text in texts(figure)}
    assert len(boxes) > 3
    assert min(text.get_fontsize() for text in boxes) >= 7
    assert figure.get_figwidth() == 3.4
    assert_apart(figure, boxes)
    for legend in figure.legends:  # above all axes: it covers no data
        assert legend.get_window_extent().y0 >= max(axes.bbox.y1 for axes in figure.axes)


def assert_apart(figure: Figure, boxes: dict[Text, Bbox]) -> None:
    """Texts lie inside the figure and do not overlap."""
    for text, box in boxes.items():
        assert figure.bbox.x0 - 1 <= box.x0 and box.x1 <= figure.bbox.x1 + 1, text
        assert figure.bbox.y0 - 1 <= box.y0 and box.y1 <= figure.bbox.y1 + 1, text
    for (first, one), (second, two) in combinations(boxes.items(), 2):
        assert not one.padded(-0.5).overlaps(two.padded(-0.5)), (first, second)
