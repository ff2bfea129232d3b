"""The figure of one recording: each panel shows what was given, at its time, for ordinary and for ugly inputs."""

from types import SimpleNamespace

import numpy as np
import pytest
from drawn import assert_apart, texts
from matplotlib.backends.backend_agg import FigureCanvasAgg

from plots.recording import SHADE, Timeline, recording_figure

pytestmark = pytest.mark.filterwarnings("error")

RNG = np.random.default_rng(7)


def timeline(seconds, chunk=4.0375):
    """Chunks side by side, every tenth of them silent, and their scores."""
    starts = np.arange(0, max(seconds - chunk, 0) + 1e-9, chunk)
    scores = RNG.normal(2, 3, len(starts))
    scores[5::10] = np.nan
    return Timeline(starts, np.minimum(starts + chunk, seconds), scores)


def tone(seconds, hertz=1000):
    """Silence, and from the middle on a sine."""
    time = np.arange(round(seconds * 16000)) / 16000
    return np.where(time < seconds / 2, 0, 0.5 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def weights(start=0.0, seconds=4.0375):
    """What `explain.saliency` gives."""
    frequencies = np.geomspace(50, 7900, 70)
    return SimpleNamespace(start=start, seconds=seconds, frequencies=frequencies, weight=RNG.random((70, 403)))


UGLY = "_a $x_{$ \\frac{ 中文 \U0001f600\ud800\x00\x1b[31m\u202e\t\n" + "long_" * 60 + ".wav"
WORDS = [("verdict", "spoof"), ("score", "-9.057 (higher = more bona fide)"), ("caution", "Trained on English. " * 9)]
WIDE, LOUD = timeline(60), [(4.0, 8.1, -9.0), (12.1, 16.2, -2.0), (20.0, 24.0, -3.0), (55.0, 60.0, 0.1)]
RECORDINGS = {
    "minute": lambda: recording_figure(tone(60), 16000, WIDE, 1.493, LOUD, WORDS, weights(4.0)),
    "one chunk": lambda: recording_figure(tone(2), 16000, timeline(2), 1.493, [(0, 2, -9.0)], WORDS, weights()),
    "tenth of a second": lambda: recording_figure(tone(0.1), 16000, timeline(0.1), 1.493, [], WORDS, weights()),
    "one sample": lambda: recording_figure(np.ones(1, np.float32), 16000, timeline(1 / 16000), 0.0, [], WORDS),
    "no threshold": lambda: recording_figure(tone(60), 16000, WIDE, None, [], WORDS[:1]),
    "silence": lambda: recording_figure(
        np.zeros(960000, np.float32), 16000, WIDE._replace(scores=WIDE.scores * np.nan), None, [], WORDS[:1]
    ),
    "infinite": lambda: recording_figure(np.resize(tone(60), 60 * 44100), 44100, WIDE, float("inf"), LOUD, []),
    "ugly name": lambda: recording_figure(
        tone(60), 16000, WIDE, 1.0, LOUD, [(UGLY[:8], UGLY), ("", ""), ("W", "W" * 99)]
    ),
    "ten minutes": lambda: recording_figure(tone(600), 16000, timeline(600), 1.0, LOUD, WORDS, weights(400)),
    "three hours": lambda: recording_figure(
        None, 16000, timeline(10800), 1.0, [(t, t + 4, 0.0) for t in range(0, 10800, 60)], WORDS, weights(7000)
    ),
}


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_recording_can_be_read(name):
    figure = RECORDINGS[name]()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = {text: text.get_window_extent(canvas.get_renderer()) for text in texts(figure)}
    assert min(text.get_fontsize() for text in boxes) >= 7
    assert_apart(figure, boxes)
    assert len({(round(axes.bbox.x0), round(axes.bbox.x1)) for axes in figure.axes}) == 1
    assert min(axes.bbox.height for axes in figure.axes) > 0.5 * figure.dpi


def test_each_chunk_has_its_time_and_score():
    chunks = Timeline([0.0, 4, 8, 12], [4.0, 8, 12, 14], [3.0, float("nan"), 1.5, -7])
    figure = recording_figure(tone(14), 16000, chunks, 1.5, [(8, 14, -7.0)], WORDS)
    axes = figure.axes[2]
    above, below, silent = (lines.get_segments() for lines in axes.collections[:3])
    np.testing.assert_allclose(above, [[(0, 3), (4, 3)]])
    np.testing.assert_allclose(below, [[(8, 1.5), (12, 1.5)], [(12, -7), (14, -7)]])  # at the threshold: rejected
    np.testing.assert_allclose(np.array(silent)[:, :, 0], [[4, 8]])
    accepted, rejected = axes.get_lines()[:2]
    np.testing.assert_allclose(rejected.get_xydata(), [[10, 1.5], [13, -7]])
    assert accepted.get_marker() != rejected.get_marker() and accepted.get_color() != rejected.get_color()
    assert [1.5, 1.5] in [list(line.get_ydata()) for line in axes.get_lines()]
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["above the threshold", "at or below it", "silent: no score", "threshold 1.5", "suspicious region"]
    assert all(axes.get_xlim() == (0, 14) for axes in figure.axes)


def test_without_a_threshold_nothing_is_rejected():
    axes = RECORDINGS["no threshold"]().axes[2]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["chunk", "silent: no score"]


def test_regions_are_shaded_and_bracketed_in_every_time_panel():
    figure = RECORDINGS["minute"]()
    for axes in figure.axes[:3]:
        (shade,) = (found for found in axes.collections if found.get_facecolor().tolist() == [list(SHADE)])
        spans = [(path.vertices[:, 0].min(), path.vertices[:, 0].max()) for path in shade.get_paths()]
        np.testing.assert_allclose(spans, [(start, end) for start, end, _ in LOUD])
        bracket = axes.get_lines()[-1].get_xdata()
        np.testing.assert_allclose(bracket[2::5], [end for _, end, _ in LOUD])
    assert [text.get_text() for text in figure.axes[0].texts] == ["−9.00", "−2.00", "−3.00", "0.10"]


def test_labels_of_near_regions_do_not_collide():
    near = [(start, start + 1.0, start) for start in range(8)]
    figure = recording_figure(tone(60), 16000, WIDE, 1.0, near, WORDS)
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.00", "5.00"]


@pytest.mark.parametrize("seconds", [0.5, 20, 600])
def test_the_waveform_keeps_every_peak(seconds):
    samples = tone(seconds)
    samples[len(samples) // 5], samples[len(samples) // 3] = 0.9, -0.8  # a sample each
    figure = recording_figure(samples, 16000, timeline(seconds), None, [], WORDS)
    (path,) = figure.axes[0].collections[0].get_paths()
    top, bottom = path.vertices[path.vertices[:, 1].argmax()], path.vertices[path.vertices[:, 1].argmin()]
    np.testing.assert_allclose([*top, *bottom], [seconds / 5, 0.9, seconds / 3, -0.8], atol=seconds / 700)
    assert len(path.vertices) < 10_000


@pytest.mark.parametrize(("seconds", "rate"), [(0.5, 16000), (20, 16000), (600, 16000), (20, 44100)])
def test_the_spectrogram_shows_a_tone_at_its_time_and_frequency(seconds, rate):
    samples = np.resize(tone(60, 1000)[480000:], round(seconds * rate))  # a tone of 1 kHz at 16 kHz
    samples[: len(samples) // 2] = 0
    figure = recording_figure(samples, rate, timeline(seconds), None, [], WORDS)
    axes = figure.axes[1]
    (image,) = axes.get_images()
    left, right, low, high = image.get_extent()
    decibel = np.asarray(image.get_array())
    times = left + (np.arange(decibel.shape[1]) + 0.5) * (right - left) / decibel.shape[1]
    loud = decibel.max(axis=0) > -20
    width = max(0.032, seconds / 700)
    np.testing.assert_array_equal(
        loud[abs(times - seconds / 2) > width], times[abs(times - seconds / 2) > width] > seconds / 2
    )
    band = low + (decibel[:, -5].argmax() + 0.5) * (high - low) / len(decibel)
    assert band == pytest.approx(2595 * np.log10(1 + rate / 16 / 700), abs=50)  # mel
    kilohertz = dict(zip([text.get_text() for text in axes.get_yticklabels()], axes.get_yticks(), strict=True))
    assert kilohertz["1"] == pytest.approx(1000, rel=1e-3) and axes.get_ylim()[1] == kilohertz["8"]


@pytest.mark.parametrize(
    ("seconds", "label", "ticks"),
    [
        (60, "Time (s)", ["0", "10", "20"]),
        (600, "Time (min:s)", ["0:00", "1:00", "2:00"]),
        (3600, "Time (h:min)", ["0:00", "0:10", "0:20"]),
        (10800, "Time (h:min)", ["0:00", "0:20", "0:40"]),
        (360_000, "Time (h:min)", ["0:00", "10:00", "20:00"]),
    ],
)
def test_time_is_in_units_for_people(seconds, label, ticks):
    chunks = Timeline(np.zeros(1), np.array([seconds]), np.zeros(1))
    figure = recording_figure(None, 16000, chunks, None, [], WORDS)
    FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    assert axes.get_xlabel() == label
    assert [text.get_text() for text in axes.get_xticklabels()][:3] == ticks


def test_words_are_drawn_letter_for_letter():
    figure = recording_figure(None, 16000, WIDE, None, [], [("file", UGLY), ("caution", "word " * 60)])
    FigureCanvasAgg(figure).draw()
    shown = [text.get_text() for text in figure.texts]
    assert not any(text.get_parse_math() for text in figure.texts)
    assert shown[1].startswith("_a $x_{$ \\frac{ �� \U0001f600") and "\x00" not in "".join(shown)
    assert any(line.endswith(".wav") for line in shown) and sum("…" in line for line in shown) >= 1
    assert max(map(len, shown)) <= 86 and len(shown) < 20


def test_saliency_is_drawn_as_given_and_as_far_as_the_recording_goes():
    found = weights(4.0375)
    figure = recording_figure(tone(6), 16000, timeline(6), None, [], WORDS, found)
    axes = figure.axes[3]
    (mesh,) = axes.collections
    np.testing.assert_array_equal(mesh.get_array(), found.weight)
    corners = mesh.get_coordinates()
    np.testing.assert_allclose((corners[0, 0, 0], corners[0, -1, 0]), (0, 4.0375), atol=1e-9)
    assert axes.get_xlim() == pytest.approx((0, 6 - 4.0375))  # the rest of this chunk lies beyond the file
    assert "from 4.04 s" in axes.get_title("left") and "light = more" in axes.get_title("left")
