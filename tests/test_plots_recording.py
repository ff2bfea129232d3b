"""The figure of one recording: each panel shows what was given, at its time, for ordinary and for ugly inputs."""

import numpy as np
import pytest
from drawn import assert_apart, texts
from matplotlib.backends.backend_agg import FigureCanvasAgg

from plots.dark import darken
from plots.prediction import Prediction, prediction_bars
from plots.recording import SHADE, RecordingPicture, ScoreScale, Timeline, recording_figure, recording_panels
from plots.signal import Excerpt, Explanation

pytestmark = pytest.mark.filterwarnings("error")

RNG = np.random.default_rng(7)
SCALE = ScoreScale(-12, 9, 1.493, 0.7)


def findings(scores, threshold=1.493):
    return ["likely_synthetic" if score <= threshold else "likely_genuine" for score in scores]


def timeline(seconds, chunk=4.0375):
    """Chunks side by side, every tenth of them silent, and their scores."""
    starts = np.arange(0, max(seconds - chunk, 0) + 1e-9, chunk)
    scores = RNG.normal(2, 3, len(starts))
    scores[5::10] = np.nan
    return Timeline(starts, np.minimum(starts + chunk, seconds), scores, findings(scores))


def tone(seconds, hertz=1000):
    """Silence, and from the middle on a sine."""
    time = np.arange(round(seconds * 16000)) / 16000
    return np.where(time < seconds / 2, 0, 0.5 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def explanation(start=0.0, seconds=4.0375):
    excerpt = Excerpt(tone(seconds), 16000, start)
    return Explanation(excerpt, 4.0375, np.geomspace(50, 7900, 70), RNG.random((70, 403)), "Half of it. " * 14)


def picture(seconds, scale=SCALE, regions=(), decisive=None, sound=True, **others):
    """`others`: timeline, excerpt, explanation, prediction in place of the usual ones."""
    others.setdefault("timeline", timeline(seconds))
    if sound and "excerpt" not in others:
        others["excerpt"] = Excerpt(tone(seconds), 16000)
    return RecordingPicture(scale=scale, regions=regions, decisive=decisive, **others)


UGLY = "_a $x_{$ \\frac{ 中文 \U0001f600\ud800\x00\x1b[31m\u202e\t\n" + "long_" * 60 + ".wav"
WORDS = [("verdict", "spoof"), ("score", "-9.057 (higher = more bona fide)"), ("caution", "Trained on English. " * 9)]
LOUD = [(4.0, 8.1, -9.0), (12.1, 16.2, -2.0), (20.0, 24.0, -3.0), (55.0, 60.0, 0.1)]
OF_SPOOF = Prediction(11.2, 88.8, ("11.2 %", "88.8 %"), (0, 100), "Probability (%)", 50)
BEYOND = Prediction(-20, 20, ("−20.00", "+20.00"), (-20, 20), "Score of 2:21–2:39, counted from the threshold 1.5", 0)
PICTURES = {
    "minute": lambda: picture(60, regions=LOUD, decisive=LOUD[1], explanation=explanation(4.0), prediction=OF_SPOOF),
    "one chunk": lambda: picture(2, regions=[(0, 2, -9.0)], explanation=explanation(seconds=2), prediction=BEYOND),
    "tenth of a second": lambda: picture(0.1, explanation=explanation(seconds=0.1)),
    "one sample": lambda: picture(1 / 16000),
    "no threshold": lambda: picture(60, ScoreScale(-15, 15, None)),
    "silence": lambda: picture(60, timeline=timeline(60)._replace(scores=np.full(14, np.nan))),
    "infinite": lambda: picture(
        60, ScoreScale(-9, 9, float("inf")), LOUD, excerpt=Excerpt(np.resize(tone(60), 2646000), 44100)
    ),
    "all beyond": lambda: picture(60, ScoreScale(100, 101, 100.5), LOUD),
    "ten minutes": lambda: picture(600, regions=LOUD, explanation=explanation(400)),
    "five hours": lambda: picture(
        18000,
        regions=[(t, t + 4, 0.0) for t in range(0, 18000, 60)],
        excerpt=Excerpt(tone(60), 16000, 7000.0),
        explanation=explanation(7020),
    ),
    "without sound": lambda: picture(3000, regions=LOUD, sound=False),
}


def figure_of(name, title="sample.wav", words=WORDS):
    return recording_figure(PICTURES[name](), title, "likely_synthetic", words)


def drawn(figure):
    """Draw `figure`; returns its texts and their places."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return {text: text.get_window_extent(canvas.get_renderer()) for text in texts(figure)}


@pytest.mark.parametrize("name", PICTURES)
def test_a_recording_can_be_read(name):
    figure = figure_of(name)
    boxes = drawn(figure)
    assert min(text.get_fontsize() for text in boxes) >= 7
    assert_apart(figure, boxes)
    assert len({(round(axes.bbox.x0), round(axes.bbox.x1)) for axes in figure.axes}) == 1
    assert min(axes.bbox.height for axes in figure.axes) > 0.25 * figure.dpi


@pytest.mark.parametrize("name", ["minute", "one chunk", "silence", "five hours", "without sound"])
def test_nothing_of_a_panel_lies_outside_its_picture(name):
    """The waveform's picture once lacked its top and right: each panel was cut out of a figure that had moved."""
    shown = PICTURES[name]()
    figures = recording_panels(shown)
    expected = {"prediction"} if shown.prediction else set()
    expected |= {"waveform", "spectrogram"} if shown.excerpt else set()
    assert figures.keys() - {"evidence"} == expected | {"scores"}
    for panel, figure in figures.items():
        boxes = drawn(figure)
        assert_apart(figure, boxes)
        (axes,) = figure.axes
        everything = axes.get_tightbbox()
        assert figure.bbox.x0 <= everything.x0 and everything.x1 <= figure.bbox.x1, panel
        assert figure.bbox.y0 <= everything.y0 and everything.y1 <= figure.bbox.y1, panel
        assert axes.bbox.width > 0.75 * figure.bbox.width and axes.bbox.height > 0.4 * figure.bbox.height
        assert axes.get_xlabel()


def test_the_file_and_the_finding_head_the_figure():
    figure = figure_of("minute", "interview $1$.wav")
    drawn(figure)
    title, label, verdict = figure.texts[1:4]  # after the sentence, which is at the bottom
    assert (title.get_text(), label.get_text(), verdict.get_text()) == ("interview $1$.wav", "verdict", "spoof")
    assert verdict.get_color() == "#8c2500" and title.get_fontsize() > verdict.get_fontsize()


def test_each_chunk_has_its_time_and_score():
    found = ["likely_genuine", "cannot_say", "unclear", "likely_synthetic"]
    chunks = Timeline([0.0, 4, 8, 12], [4.0, 8, 12, 14], [3.0, float("nan"), 1.5, -7], found)
    shown = picture(14, ScoreScale(-9, 9, 1.5, 0.5), [(8, 14, -7.0)], timeline=chunks)
    axes = recording_figure(shown, "a", "unclear", WORDS).axes[2]
    segments = [lines.get_segments() for lines in axes.collections[:4]]
    genuine, unclear, synthetic, silent = segments
    np.testing.assert_allclose(genuine, [[(0, 3), (4, 3)]])
    np.testing.assert_allclose(unclear, [[(8, 1.5), (12, 1.5)]])
    np.testing.assert_allclose(synthetic, [[(12, -7), (14, -7)]])
    np.testing.assert_allclose(np.array(silent)[:, :, 0], [[4, 8]])
    points = axes.get_lines()[:3]
    np.testing.assert_allclose([point.get_xydata()[0] for point in points], [[2, 3], [10, 1.5], [13, -7]])
    assert len({point.get_marker() for point in points}) == len({point.get_color() for point in points}) == 3
    assert [1.5, 1.5] in [list(line.get_ydata()) for line in axes.get_lines()]
    kinds = ["likely genuine", "unclear", "likely synthetic", "no score"]
    assert named(axes) == [*kinds, "threshold 1.5, unclear within 0.5", "suspicious passage"]
    assert axes.get_ylim() == (-9, 9)


def named(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_the_legend_lists_what_is_drawn():
    assert named(figure_of("one sample").axes[2])[1:] == ["threshold 1.493, unclear within 0.7"]
    assert named(figure_of("silence").axes[2]) == ["no score", "threshold 1.493, unclear within 0.7"]
    assert named(figure_of("no threshold").axes[2]) == ["likely genuine", "likely synthetic", "no score"]
    assert named(figure_of("infinite").axes[2])[-2:] == ["threshold inf (not drawn)", "suspicious passage"]
    assert "part shown above" in named(figure_of("five hours").axes[2])


def test_scores_beyond_the_axis_are_marked_at_its_ends():
    chunks = Timeline([0.0, 4], [4.0, 8], [30.0, -30.0], ["likely_genuine", "likely_synthetic"])
    axes = recording_figure(picture(8, ScoreScale(-9, 9, 0.0), timeline=chunks), "a", "unclear", WORDS).axes[2]
    marks = {line.get_marker(): line.get_xydata().tolist() for line in axes.get_lines() if line.get_marker() in "^v"}
    assert marks == {"^": [[2, 0.965]], "v": [[6, 0.035]]} and axes.get_ylim() == (-9, 9)
    assert "beyond the axis" in named(axes)


def test_regions_are_shaded_and_bracketed_in_every_time_panel():
    figure = figure_of("minute")
    for axes in figure.axes[1:4]:
        (shade,) = (found for found in axes.collections if found.get_facecolor().tolist() == [list(SHADE)])
        spans = [(path.vertices[:, 0].min(), path.vertices[:, 0].max()) for path in shade.get_paths()]
        np.testing.assert_allclose(spans, [(start, end) for start, end, _ in LOUD])
        bracket = axes.get_lines()[-1].get_xdata()
        np.testing.assert_allclose(bracket[2::5], [end for _, end, _ in LOUD])
    labels = {text.get_text(): text.get_weight() for text in figure.axes[1].texts}
    assert labels == {"−9.00": "normal", "−2.00": "bold", "−3.00": "normal", "0.10": "normal"}


def test_a_passage_that_is_everything_is_not_marked():
    figure = figure_of("one chunk")
    assert "suspicious passage" not in named(figure.axes[3]) and not figure.axes[1].texts


def test_an_excerpt_shows_its_own_passages_at_their_times():
    figure = figure_of("five hours")
    waveform, spectrogram, scores, evidence = figure.axes
    assert waveform.get_xlim() == spectrogram.get_xlim() == (7000, 7060)
    assert scores.get_xlim() == pytest.approx((0, 18000), abs=5)
    (shade,) = (found for found in waveform.collections if found.get_facecolor().tolist() == [list(SHADE)])
    assert [path.vertices[:, 0].min() for path in shade.get_paths()] == [7020]
    assert evidence.get_xlim() == pytest.approx((7020, 7024.0375))
    left, right, *_ = spectrogram.get_images()[0].get_extent()
    assert (left, right) == pytest.approx((7000, 7060), abs=0.1)


def test_labels_of_near_regions_do_not_collide():
    near = [(start, start + 1.0, start) for start in range(8)]
    figure = recording_figure(picture(60, regions=near), "a", "unclear", WORDS)
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.00", "5.00"]
    figure = recording_figure(picture(60, regions=near, decisive=(2.1, 2.9, 2.0)), "a", "unclear", WORDS)
    assert [text.get_text() for text in figure.axes[0].texts] == ["2.00", "7.00"]  # the decisive one first


@pytest.mark.parametrize("seconds", [0.5, 20, 600])
def test_the_waveform_keeps_every_peak(seconds):
    samples = tone(seconds)
    samples[len(samples) // 5], samples[len(samples) // 3] = 0.9, -0.8  # a sample each
    figure = recording_figure(picture(seconds, excerpt=Excerpt(samples, 16000)), "a", "unclear", WORDS)
    (path,) = figure.axes[0].collections[0].get_paths()
    top, bottom = path.vertices[path.vertices[:, 1].argmax()], path.vertices[path.vertices[:, 1].argmin()]
    np.testing.assert_allclose([*top, *bottom], [seconds / 5, 0.9, seconds / 3, -0.8], atol=seconds / 700)
    assert len(path.vertices) < 10_000


@pytest.mark.parametrize(("seconds", "rate"), [(0.5, 16000), (20, 16000), (600, 16000), (20, 44100)])
def test_the_spectrogram_shows_a_tone_at_its_time_and_frequency(seconds, rate):
    samples = np.resize(tone(60, 1000)[480000:], round(seconds * rate))  # a tone of 1 kHz at 16 kHz
    samples[: len(samples) // 2] = 0
    figure = recording_figure(picture(seconds, excerpt=Excerpt(samples, rate)), "a", "unclear", WORDS)
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
        (8, "Time (s)", ["0", "1", "2"]),
        (60, "Time (min:s)", ["0:00", "0:10", "0:20"]),
        (600, "Time (min:s)", ["0:00", "1:00", "2:00"]),
        (3600, "Time (h:min)", ["0:00", "0:10", "0:20"]),
        (10800, "Time (h:min)", ["0:00", "0:20", "0:40"]),
        (360_000, "Time (h:min)", ["0:00", "10:00", "20:00"]),
    ],
)
def test_time_is_in_units_for_people(seconds, label, ticks):
    chunks = Timeline(np.zeros(1), np.array([seconds]), np.zeros(1), ["unclear"])
    figure = recording_figure(RecordingPicture(chunks, SCALE), "a", "unclear", WORDS)
    drawn(figure)
    (axes,) = figure.axes
    assert axes.get_xlabel() == label
    assert [text.get_text() for text in axes.get_xticklabels()][:3] == ticks


def test_words_are_drawn_letter_for_letter():
    figure = figure_of("minute", UGLY, [("file", UGLY), ("", ""), ("W", "W" * 99), ("caution", "word " * 60)])
    assert_apart(figure, drawn(figure))
    shown = [text.get_text() for text in figure.texts]
    assert not any(text.get_parse_math() for text in figure.texts)
    assert shown[1].startswith("_a $x_{$ \\frac{ ��") and shown[1].endswith(".wav")
    assert shown[3].startswith("_a $x_{$ \\frac{ �� \U0001f600") and "\x00" not in "".join(shown)
    assert any(line.endswith(".wav") for line in shown[3:]) and sum("…" in line for line in shown) >= 2
    assert max(map(len, shown[1:])) <= 86 and len(shown) < 20


@pytest.mark.parametrize(("name", "panel"), [("one chunk", 2), ("minute", 4)])
def test_evidence_lies_over_the_spectrogram_of_its_chunk(name, panel):
    """A recording of one chunk needs no second spectrogram."""
    figure = figure_of(name)
    shown = PICTURES[name]().explanation
    axes = figure.axes[panel]
    assert len(figure.axes) == (4 if name == "one chunk" else 5)
    (mesh,) = (found for found in axes.collections if found.get_array() is not None)
    assert mesh.get_array().shape == shown.weight.shape and len(axes.get_images()) == 1
    corners = mesh.get_coordinates()
    begin = shown.excerpt.start
    np.testing.assert_allclose((corners[0, 0, 0], corners[0, -1, 0]), (begin, begin + 4.0375), atol=1e-9)
    assert axes.get_xlim() == pytest.approx((begin, shown.excerpt.end))  # not on into the repeated part
    opacity = mesh.cmap([0.0, 1.0])[:, 3]
    assert opacity.tolist() == [0, 1] and "what speaks for spoof" in axes.get_title("left")
    assert " ".join(figure.get_supxlabel().split()) == shown.sentence.strip()


@pytest.mark.parametrize(
    "prediction", [OF_SPOOF, BEYOND, Prediction(100, 0, ("above 99 %", "below 1 %"), (0, 100), "%", 50)]
)
def test_prediction_scores_are_two_bars(prediction):
    for figure in (prediction_bars(prediction), darken(prediction_bars(prediction))):
        boxes = drawn(figure)
        assert_apart(figure, boxes)
        (axes,) = figure.axes
        assert [bar.get_width() for bar in axes.patches] == [prediction.bonafide, prediction.spoof]
        assert [text.get_text() for text in axes.texts] == list(prediction.texts)
        assert [text.get_text() for text in axes.get_yticklabels()] == ["bona fide", "spoof"]
        assert list(axes.get_lines()[0].get_xdata()) == [prediction.undecided] * 2
        assert axes.patches[0].get_facecolor() != axes.patches[1].get_facecolor()
        assert axes.get_xlabel() == prediction.label
