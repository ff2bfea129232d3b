"""Figures of audio data: the data set report and the gallery of augmentations."""

from itertools import combinations

import numpy as np
import pytest
from drawn import assert_apart, texts
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import StepPatch

from plots.datasets import PartitionSummary, augmentation_gallery, data_set_report

pytestmark = pytest.mark.filterwarnings("error")

RNG = np.random.default_rng(7)


def tone(seconds, hertz=1000):
    """Silence, and from the middle on a sine."""
    time = np.arange(round(seconds * 16000)) / 16000
    return np.where(time < seconds / 2, 0, 0.5 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def versions(count):
    return {"original": tone(1)} | {f"version {n}": tone(1 + n % 3 / 4) for n in range(count)}


TINY = {"silence": np.zeros(16000, np.float32), "one sample": np.ones(1, np.float32)}
LONG_TITLE = {"a $x_{$ name of an augmentation that is far too long for its panel": tone(1)}


@pytest.mark.parametrize("panels", [versions(15), versions(5), versions(0), TINY, LONG_TITLE])
def test_a_gallery_can_be_read(panels):
    figure = augmentation_gallery(panels, 16000)
    shown = [axes for axes in figure.axes if axes.images]
    assert len(shown) == len(panels)
    assert {axes.get_xlim() for axes in shown} == {(0, max(map(len, panels.values())) / 16000)}
    assert {axes.get_ylim() for axes in shown} == {(0, 8)}
    assert {image.get_clim() for axes in shown for image in axes.images} == {(-80, 0)}
    FigureCanvasAgg(figure).draw()
    titles = [axes._left_title.get_window_extent() for axes in shown]
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1 for box in titles)
    assert not any(a.overlaps(b) for a, b in combinations(titles, 2))


def test_a_gallerys_levels_are_relative_to_the_original():
    loud = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    figure = augmentation_gallery({"original": loud, "quiet": 0.1 * loud}, 16000)
    original, quiet = (axes.images[0].get_array() for axes in figure.axes[:2])
    assert original.max() == pytest.approx(0)
    assert quiet.max() == pytest.approx(-20)
    assert np.unravel_index(quiet.argmax(), quiet.shape)[0] * 16000 / 512 == pytest.approx(1000, abs=32)


def partition(bonafide, spoof, cues, longest=5.0):
    """A partition of a data set with durations up to `longest`, and cues whose EERs rise from 10 to 50 %."""
    eers = np.linspace(0.1, 0.5, max(len(cues), 1))
    cues = {cue: (eer, 0.8 * eer, min(0.5, 1.2 * eer)) for cue, eer in zip(cues, eers, strict=False)}
    return PartitionSummary((bonafide, spoof), (RNG.uniform(1, longest, bonafide), RNG.uniform(1, 5, spoof)), cues)


CUES = ["duration", "leading quiet", "energy 6.8–7.7 kHz", "a cue of a very long $x_{$ name", *"abcdefgh"]
DATA_SETS = {
    "three": {name: partition(count, 3 * count, CUES) for name, count in (("train", 9000), ("dev", 300), ("eval", 15))},
    "one": {"all": partition(99999, 999999, CUES[:3])},
    "one class": {"eval": partition(12, 0, [])},
    "outlier": {"train": partition(50, 50, CUES, 4000.0), "dev": partition(1, 1, CUES[:1])},
    "nothing decodes": {"train": PartitionSummary((3, 3), (np.empty(0), np.empty(0)), {})},
    "long names": {f"{name}$x_{'y' * 40}": partition(5, 5, CUES) for name in range(5)},
}


@pytest.mark.parametrize("name", DATA_SETS)
def test_a_data_set_report_can_be_read(name):
    figure = data_set_report(DATA_SETS[name], 0.4)
    FigureCanvasAgg(figure).draw()
    assert_apart(figure, {text: text.get_window_extent() for text in texts(figure)})
    assert figure.legends[0].get_window_extent().y0 >= max(axes.bbox.y1 for axes in figure.axes)


def test_a_data_set_report_shows_what_was_given():
    parts = DATA_SETS["three"]
    figure = data_set_report(parts, 0.4)
    *panels, cues = figure.axes
    for axes, (name, given) in zip(panels, parts.items(), strict=True):
        assert axes.get_title("left") == f"{name}: {given.counts[0]:,} bona fide, {given.counts[1]:,} spoof"
        drawn = [patch.get_data().values.sum() for patch in axes.patches if isinstance(patch, StepPatch)]
        assert drawn == list(given.counts)
    dots = [line for line in cues.lines if line.get_marker() not in ("None", "")]
    np.testing.assert_allclose([dot.get_xdata()[0] for dot in dots], 3 * list(np.linspace(10, 50, 12)))
    filled = [dot.get_markerfacecolor() != "white" for dot in dots]
    assert filled == 3 * [1.2 * eer < 0.4 for eer in np.linspace(0.1, 0.5, 12)]


def test_a_far_longer_file_stands_in_the_last_bin():
    seconds = np.append(np.linspace(1, 5, 999), 3600.0)
    figure = data_set_report({"eval": PartitionSummary((1000, 0), (seconds, np.empty(0)), {})}, 0.4)
    axes = figure.axes[0]
    assert axes.get_xlim()[1] < 10 and "longer ones in the last bin" in axes.get_xlabel()
    assert axes.patches[0].get_data().values.sum() == 1000
