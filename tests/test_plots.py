"""Figures: what is drawn is what was given, and it can be read, for ordinary and for ugly inputs."""

import hashlib
import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from matplotlib.axis import Axis, Tick
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from matplotlib.text import Text

from plots.datasets import PartitionSummary, augmentation_gallery, data_set_report
from plots.det_roc import det_curve, roc_curve
from plots.recording import SHADE, Timeline, recording_figure
from plots.runs import SeedSpread, TrainingHistory, seed_spreads, training_curves
from plots.scores import attack_eer, confusion_matrix, robustness, score_boxes, score_distributions, score_scatter
from plots.style import write_figure

pytestmark = pytest.mark.filterwarnings("error")
ROOT = Path(__file__).parents[1]
SCORES = ROOT.parent / "shared" / "fixtures" / "scores"
RNG = np.random.default_rng(7)
PERFECT = (np.array([0, 0, 1.0]), np.array([1.0, 0, 0]))
ATTACKS = [f"A{number:02}" for number in range(7, 20)]
LONG = [f"{name}_{n}" for n in range(10) for name in ("cyclegan_vc2", "hn_sinc_nsf_hifi", "tacotron2_waveglow_tuned")]
SYSTEMS = [*"abcde", "a very long name of a countermeasure with many words in it", "x" * 100, "_a $x_{$ name"]


def rates(bonafide, spoof):
    """(frr, far) at every threshold, from -inf to above the highest score."""
    scores = np.concatenate([bonafide, spoof])
    is_bonafide = np.repeat([1, 0], [len(bonafide), len(spoof)])[np.argsort(scores, kind="stable")]
    frr = np.cumsum(is_bonafide) / len(bonafide)
    return np.append(0, frr), np.append(1, 1 - np.cumsum(1 - is_bonafide) / len(spoof))


def gauss(distance):
    return rates(RNG.normal(distance, 1, 500), RNG.normal(0, 1, 2000))


def bars(names, interval=True):
    eers = dict(zip(names, RNG.uniform(0, 0.3, len(names)), strict=True))
    return {name: (eer, eer * 0.8, eer * 1.2) if interval else (eer, None, None) for name, eer in eers.items()}


def boxes(names):
    return {"bona fide": RNG.normal(4, 1, 300)} | {name: RNG.normal(0, 2, 100) for name in names}


def learnt(epochs):
    """A run of so many epochs."""
    number = np.arange(1, epochs + 1)
    loss, eer = 0.7 * np.exp(-number / 12) + 0.004, 0.25 * np.exp(-number / 8) + RNG.uniform(0.007, 0.012, epochs)
    return TrainingHistory(list(number), list(loss), list(eer), list(2.8 * eer))


def spreads(count, scale=1.0, checkpoints=("best", "swa")):
    """What so many seeds gave."""
    found = []
    for checkpoint in checkpoints:
        for partition, factor in (("dev", 0.4), ("eval", 1.1)):
            values = scale * factor * RNG.normal(1, 0.2, count)
            mean, half = values.mean(), 4 * values.std()
            found.append(SeedSpread(checkpoint, partition, values, mean, (mean - half, mean + half) if half else None))
    return found


EIGHT = dict(zip(SYSTEMS, map(gauss, (-1, 0, 0.5, 1, 2, 3, 4, 9)), strict=True))
SPREAD = np.append(RNG.normal(0, 1, 200), [1e6, -1e30])
CONDITIONS = {"as it is": 6.5, **{f"white noise, {snr} dB": 40.0 - snr for snr in (30, 20, 10, 5, 0)}, "1 s": 15.4}
FIGURES = {
    "det": lambda: det_curve({"AASIST": gauss(4)}, {"AASIST": 0.0083}),
    "det eight": lambda: det_curve(EIGHT, dict.fromkeys(EIGHT, 0.2)),
    "det perfect": lambda: det_curve({"a": PERFECT}, {"a": 0.0}),
    "det wide": lambda: det_curve({"a": gauss(7), "b": gauss(0)}, {"a": 0.0001, "b": 0.5}),
    "det one trial": lambda: det_curve({"a": rates([0.0], [1.0])}, {"a": 1.0}),
    "roc": lambda: roc_curve({"AASIST": gauss(4)}, {"AASIST": 0.99}),
    "roc eight": lambda: roc_curve(EIGHT, dict.fromkeys(EIGHT, 0.9)),
    "roc perfect": lambda: roc_curve({"a": PERFECT}, {"a": 1.0}),
    "roc one trial": lambda: roc_curve({"a": rates([0.0], [1.0])}, {"a": 0.0}),
    "distributions": lambda: score_distributions(RNG.normal(5, 1, 700), RNG.normal(-4, 2, 6000), 1.5),
    "distributions one trial": lambda: score_distributions([1.0], [0.0], 0.5),
    "distributions constant": lambda: score_distributions(np.ones(9), np.ones(99), 1.0),
    "distributions outliers": lambda: score_distributions(SPREAD + 3, SPREAD, 1.0),
    "distributions one class": lambda: score_distributions([1.0, 2.0], [], float("inf")),
    "attacks": lambda: attack_eer({"AASIST": bars([*ATTACKS, "pooled"])}),
    "attacks two": lambda: attack_eer({"a": bars([*ATTACKS, "pooled"]), "b": bars([*ATTACKS, "pooled"])}),
    "attacks eight": lambda: attack_eer({system: bars(LONG) for system in SYSTEMS}),
    "attacks long names": lambda: attack_eer({"a": bars(LONG, interval=False)}),
    "attacks many": lambda: attack_eer({"a": bars([f"attack_{n}" for n in range(110)])}),
    "attacks one": lambda: attack_eer({"a": {"A07": (0.0, 0.0, 0.0)}}),
    "attacks none": lambda: attack_eer({"a": {}}),
    "confusion": lambda: confusion_matrix(np.array([[7294, 61], [530, 63352]]), 1.493),
    "confusion one class": lambda: confusion_matrix([[0, 0], [10**7, 10**7]], float("-inf")),
    "scatter": lambda: score_scatter(RNG.normal(0, 3, 71237), RNG.random(71237) < 0.1, 1.5),
    "scatter one trial": lambda: score_scatter([1.0, 0.0], [True, False], 0.5),
    "scatter constant": lambda: score_scatter(np.full(20, 1e9), np.arange(20) < 9, 1e9),
    "scatter outliers": lambda: score_scatter(SPREAD, np.arange(202) < 90, 0.0),
    "boxes": lambda: score_boxes(boxes(ATTACKS), 1.5),
    "boxes long names": lambda: score_boxes(boxes(LONG), 1.5),
    "boxes outliers": lambda: score_boxes({"bona fide": SPREAD, "A07": SPREAD - 3}, float("inf")),
    "boxes one trial": lambda: score_boxes({"bona fide": [1.0], "A07": []}, 1.0),
    "training": lambda: training_curves({"a": learnt(100)}),
    "training three": lambda: training_curves({f"LA_AASIST_ep100_bs24_seed{n}": learnt(100) for n in range(3)}),
    "training twelve": lambda: training_curves({f"{SYSTEMS[-1]}_{n}": learnt(100) for n in range(12)}),
    "training unequal": lambda: training_curves({"a": learnt(3), "b": learnt(60), "c": learnt(0)}),
    "training no t-DCF": lambda: training_curves(
        {"a": TrainingHistory([0, 1], [0.7, None], [None, 0.1], [None, float("nan")])}
    ),
    "training one epoch": lambda: training_curves({"a": learnt(1)}),
    "training one epoch each": lambda: training_curves({name: learnt(1) for name in "abc"}),
    "training perfect": lambda: training_curves({"a": TrainingHistory([1, 2], [0.5, 0], [0.2, 0], [0.4, 0])}),
    "training wide": lambda: training_curves({"a": TrainingHistory([1, 2], [1e17, 1e-9], [1, 1e-7], [1, 1e-9])}),
    "training begun": lambda: training_curves({"a": learnt(0)}),
    "training none": lambda: training_curves({}),
    "seeds": lambda: seed_spreads({"EER (%)": spreads(3), "min t-DCF": spreads(3, 0.01)}),
    "seeds one": lambda: seed_spreads({"EER (%)": spreads(1)}),
    "seeds two": lambda: seed_spreads({"EER (%)": spreads(2), "min t-DCF": spreads(2, 1e-6)}),
    "seeds twenty": lambda: seed_spreads(
        {"EER (%)": spreads(20, 30.0, ("best", "swa", "ema")), "min t-DCF": spreads(20)}
    ),
    "robustness": lambda: robustness({"a": CONDITIONS, "b": {name: 50 - eer for name, eer in CONDITIONS.items()}}),
    "robustness one": lambda: robustness({"a": {"as it is": 0.0}}),
    "robustness guessing": lambda: robustness({"a": {"as it is": 50.0, "a condition with a long name": 100.0}}),
    "seeds constant": lambda: seed_spreads({"EER (%)": [SeedSpread("best", "dev", [0.0] * 3, 0.0, (0.0, 0.0))]}),
}


def texts(figure: Figure) -> list[Text]:
    """Every text that `figure` shows; it has to be drawn before."""
    ticks = {label for tick in figure.findobj(Tick) for label in (tick.label1, tick.label2)}
    shown = [text for text in figure.findobj(Text) if text not in ticks]
    for axis in figure.findobj(Axis):
        low, high = sorted(axis.get_view_interval())  # ticks outside the limits are kept but not drawn
        shown += [text for text in axis.get_ticklabels() if low <= text.get_position()[axis.axis_name == "y"] <= high]
    return [text for text in shown if text.get_visible() and text.get_text().strip()]


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_can_be_read(name):
    figure = FIGURES[name]()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = {text: text.get_window_extent(canvas.get_renderer()) for text in texts(figure)}
    assert len(boxes) > 3
    assert min(text.get_fontsize() for text in boxes) >= 7
    assert figure.get_figwidth() == 3.4
    for text, box in boxes.items():
        assert box.x0 >= -1 and box.y0 >= -1, text
        assert box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1, text
    for (first, one), (second, two) in combinations(boxes.items(), 2):
        assert not one.padded(-0.5).overlaps(two.padded(-0.5)), (first, second)
    for legend in figure.legends:  # above all axes: it covers no data
        assert legend.get_window_extent().y0 >= max(axes.bbox.y1 for axes in figure.axes)


@pytest.mark.parametrize(
    ("name", "xlabel", "ylabel"),
    [
        ("det", "False acceptance rate of spoof (%)", "Miss rate of bona fide (%)"),
        ("roc", "False acceptance rate of spoof (%)", "Bona fide accepted (%)"),
        ("distributions", "Score (higher = more bona fide)", "Density (1 / unit of score)"),
        ("attacks", "Equal error rate (%)", ""),
        ("scatter", "Trial index", "Score (higher = more bona fide)"),
        ("boxes", "Score (higher = more bona fide)", ""),
    ],
)
def test_axes_name_their_units(name, xlabel, ylabel):
    axes = FIGURES[name]().axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == (xlabel, ylabel)


def labels(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_det_has_probit_axes_and_eer_points():
    frr, far = gauss(1)
    figure = det_curve({"a": (frr, far), "b": PERFECT}, {"a": 0.31, "b": 0.0})
    axes = figure.axes[0]
    _, curve, point, perfect, corner = axes.get_lines()
    inside = (frr > 0.001) & (frr < 0.999) & (far > 0.001) & (far < 0.999)
    np.testing.assert_allclose(curve.get_xydata()[inside], 100 * np.column_stack([far, frr])[inside])
    assert np.all(np.isfinite(axes.transData.transform(curve.get_xydata())))
    np.testing.assert_allclose(point.get_xydata(), [[31, 31]])
    assert axes.get_xlim() == axes.get_ylim() == (0.1, 99)
    np.testing.assert_allclose(corner.get_xydata(), [[0.1, 0.1]])  # an EER of 0 has no place but is shown
    x = axes.transData.transform([(2, 50), (50, 50), (98, 50), (15.8655, 50)])[:, 0]  # z = -2.05, 0, 2.05, -1
    assert x[1] - x[0] == pytest.approx(x[2] - x[1])
    assert (x[1] - x[0]) / (x[1] - x[3]) == pytest.approx(2.0537, rel=1e-4)
    assert labels(figure) == ["a: EER 31.00 %", "b: EER 0.00 %"]
    assert not np.any((perfect.get_xdata() > 0.1) & (perfect.get_ydata() > 0.1))


def test_det_limits_follow_the_eer():
    limits = {eer: det_curve({"a": PERFECT}, {"a": eer}).axes[0].get_xlim() for eer in (0.0005, 0.008, 0.05, 0.4)}
    assert limits == {0.0005: (0.001, 50), 0.008: (0.01, 50), 0.05: (0.1, 50), 0.4: (0.1, 99)}


def test_eight_systems_differ_without_colour():
    curves = roc_curve(EIGHT, dict.fromkeys(EIGHT, 0.9)).axes[0].get_lines()[1:]
    assert len({str(line._unscaled_dash_pattern) for line in curves}) == 8
    points = det_curve(EIGHT, dict.fromkeys(EIGHT, 0.2)).axes[0].get_lines()[2::2]
    assert len({line.get_marker() for line in points}) == 8


@pytest.mark.parametrize("distance", [-2, 0, 0.3, 1, 5])
def test_roc_inset_is_logarithmic_and_covers_no_curve(distance):
    frr, far = gauss(distance)
    figure = roc_curve({"a": (frr, far)}, {"a": 0.12341})
    FigureCanvasAgg(figure).draw()
    axes = figure.axes[0]
    inset = [*axes.child_axes, *figure.axes[1:]][0]
    curve = axes.get_lines()[1]
    np.testing.assert_allclose(curve.get_xydata(), 100 * np.column_stack([far, 1 - frr]))
    assert inset.get_xscale() == "log" and axes.get_xscale() == "linear"
    points = axes.transData.transform(curve.get_xydata())
    assert not inset.get_tightbbox().count_contains(points)
    visible = inset.get_lines()[0].get_xydata()
    assert np.all(visible[visible[:, 0] > 0.01, 1] >= inset.get_ylim()[0])
    assert labels(figure) == ["a: AUC 0.1234"]


def test_distributions_have_area_one_each_and_the_threshold():
    figure = score_distributions(RNG.normal(5, 1, 700), RNG.normal(-4, 2, 6000), 1.5)
    axes = figure.axes[0]
    steps = [patch.get_data() for patch in axes.findobj(StepPatch)]
    means = [np.sum(density * np.diff(edges) * (edges[1:] + edges[:-1]) / 2) for density, edges, _ in steps]
    assert [np.sum(density * np.diff(edges)) for density, edges, _ in steps] == pytest.approx([1, 1])
    assert means == pytest.approx([5, -4], abs=0.2)
    assert axes.get_lines()[0].get_xdata() == [1.5, 1.5]
    assert labels(figure) == ["bona fide (n = 700)", "spoof (n = 6,000)", "threshold 1.5"]


def test_far_outliers_are_counted_and_do_not_squeeze_the_rest():
    for figure in (FIGURES["distributions outliers"](), FIGURES["scatter outliers"](), FIGURES["boxes outliers"]()):
        axes = figure.axes[0]
        limits = axes.get_ylim() if axes.get_ylabel().startswith("Score") else axes.get_xlim()
        assert np.ptp(limits) < 20
        assert axes.get_title("right").split(" trials")[0] in ("4 of 404", "2 of 202")


def test_few_scores_are_all_shown():
    for scores in ([1.0, 2, 2.01, 3], [0.0] * 9 + [0.3], [1.0, 2, 3], [5.0]):
        low, high = score_scatter(scores, np.ones(len(scores), bool), 0.0).axes[0].get_ylim()
        assert low < min(scores) and max(scores) < high


def test_a_threshold_at_infinity_is_said_and_not_drawn():
    figure = score_boxes({"bona fide": [1.0, 2.0]}, float("-inf"))
    assert labels(figure)[-1] == "threshold -inf (not drawn)"
    assert np.all(np.isfinite(figure.axes[0].get_xlim()))


def test_attack_bars_intervals_and_gaps():
    figure = attack_eer(
        {
            "a": {"pooled": (0.02, 0.01, 0.05), "A07": (0.1, None, None)},
            "b": {"A07": (0.2, 0.25, 0.3), "A08": (float("nan"), None, None)},
        }
    )
    axes = figure.axes[0]
    first, second = ([bar.get_width() for bar in bars] for bars in axes.containers if hasattr(bars, "patches"))
    assert [text.get_text() for text in axes.get_yticklabels()] == ["A07", "A08", "pooled"]
    assert axes.yaxis_inverted()  # from the top down
    np.testing.assert_allclose(first, [10, np.nan, 2])
    np.testing.assert_allclose(second, [20, np.nan, np.nan])
    ends = [line.get_segments() for line in axes.collections]
    np.testing.assert_allclose(ends[0][2][:, 0], [1, 5])
    np.testing.assert_allclose(ends[1][0][:, 0], [25, 30])  # also one that does not contain its EER
    crosses = [len(line.get_xdata()) for line in axes.get_lines() if line.get_marker() == "x"]
    assert crosses == [1, 2] and labels(figure) == ["a", "b", "no result"]
    assert axes.get_xlim()[0] == 0 and axes.get_xlim()[1] > 30


def test_a_single_systems_bars_carry_their_numbers():
    axes = attack_eer({"a": {"A07": (0.00833, None, None), "A08": (0.0, 0.0, 0.001)}}).axes[0]
    assert [text.get_text() for text in axes.texts] == ["0.83", "0.00"]
    assert [text.xy[0] for text in axes.texts] == pytest.approx([0.833, 0.1])


def test_confusion_counts_and_shares():
    axes = confusion_matrix(np.array([[99, 1], [0, 0]]), 0.25).axes[0]
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "99\n99.00 %", (1, 0): "1\n1.00 %", (0, 1): "0\nno trials", (1, 1): "0\nno trials"}
    assert [text.get_text() for text in axes.get_xticklabels()] == ["accepted as bona fide", "rejected as spoof"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["bona fide", "spoof"]
    assert "0.25" in axes.get_title()


def test_scatter_shows_each_trial_at_its_place():
    figure = score_scatter([3.0, -1.0, 2.0], [True, False, True], 0.5)
    spoof, bonafide, threshold = figure.axes[0].get_lines()
    np.testing.assert_array_equal(bonafide.get_xydata(), [[0, 3], [2, 2]])
    np.testing.assert_array_equal(spoof.get_xydata(), [[1, -1]])
    assert spoof.get_rasterized() and bonafide.get_rasterized()
    assert threshold.get_ydata() == [0.5, 0.5]
    assert labels(figure) == ["spoof (n = 1)", "bona fide (n = 2)", "threshold 0.5"]


def test_boxes_are_quartiles_in_the_order_given():
    figure = score_boxes({"bona fide": [1, 2, 3, 4, 5], "A08": [-1, 0, 1], "A07": []}, 1.5)
    axes = figure.axes[0]
    first, second = (patch.get_path().vertices[:, 0] for patch in axes.patches[:2])
    assert (first.min(), first.max()) == (2, 4) and (second.min(), second.max()) == (-0.5, 0.5)
    assert axes.patches[0].get_facecolor() != axes.patches[1].get_facecolor()
    assert [text.get_text() for text in axes.get_yticklabels()] == ["bona fide", "A08", "A07"]
    assert [1.5, 1.5] in [list(line.get_xdata()) for line in axes.get_lines()]


def test_training_marks_the_best_epoch_and_leaves_gaps():
    run = TrainingHistory([1, 2, 3, 4], [0.7, 0.5, None, 0.4], [0.2, None, 0.1, 0.1], [0.5, 0.04, float("nan"), 0.06])
    figure = training_curves({"a": run})
    loss, eer, tdcf = figure.axes
    np.testing.assert_allclose(eer.get_lines()[0].get_ydata(), [20, np.nan, 10, 10])
    np.testing.assert_allclose(eer.get_lines()[1].get_xydata(), [[4, 10]])  # of equal ones the later is kept
    np.testing.assert_allclose(tdcf.get_lines()[1].get_xydata(), [[2, 0.04]])
    assert [axes.get_ylabel() for axes in figure.axes] == ["Training loss", "Dev EER (%)", "Dev min t-DCF, log"]
    assert eer.get_title("right") == "best: 10 at epoch 4" and len(loss.get_lines()) == 1 and not figure.legends
    assert len(FIGURES["training no t-DCF"]().axes) == 2


def test_runs_are_told_apart_and_their_best_is_named():
    figure = training_curves({"a": learnt(5), "b": TrainingHistory([1, 2], [1, 1], [0.5, 0.25], [1, 1])})
    assert labels(figure)[1] == "b: EER 25.000 % at 2"
    first, _, second, best = figure.axes[1].get_lines()
    assert first.get_color() != second.get_color() and first._unscaled_dash_pattern != second._unscaled_dash_pattern
    np.testing.assert_allclose(second.get_xydata(), [[1, 50], [2, 25]])
    np.testing.assert_allclose(best.get_xydata(), [[2, 25]])
    assert not any(axes.get_title("right") for axes in figure.axes)


@pytest.mark.parametrize(("low", "scale"), [(0.0, "linear"), (0.011, "linear"), (0.009, "log")])
def test_an_axis_is_logarithmic_from_tenfold_on(low, scale):
    figure = training_curves({"a": TrainingHistory([1, 2], [1, 1], [0.1, low], [None, None])})
    assert figure.axes[1].get_yscale() == scale
    assert figure.axes[1].get_ylabel() == "Dev EER (%)" + ", log" * (scale == "log")


def test_seeds_are_dots_over_their_mean():
    best = SeedSpread("best", "dev", [0.5, 0.3, 0.4], 0.4, (0.25, 0.55))
    swa = SeedSpread("swa", "eval", [2.0], 2.0, None)
    axes = seed_spreads({"EER (%)": [best, swa]}).axes[0]
    dots, mean, other, _ = (line for line in axes.get_lines() if line.get_linestyle() == "None")
    np.testing.assert_allclose(dots.get_xdata(), [0.3, 0.4, 0.5])
    assert mean.get_xdata() == [0.4] and mean.get_ydata() > dots.get_ydata().max()  # rows go downward
    np.testing.assert_allclose(axes.collections[0].get_segments()[0][:, 0], [0.25, 0.55])
    assert np.all(other.get_ydata() > mean.get_ydata()) and other.get_marker() != dots.get_marker()
    assert [text.get_text() for text in axes.get_yticklabels()] == ["best", "swa"]
    assert seed_spreads({"EER (%)": [best._replace(interval=(-9, 9))]}).axes[0].get_xlim()[0] == 0


def test_published_scores(tmp_path):
    path = SCORES / "aasist_official_la_eval.txt"
    if not path.exists():
        pytest.skip(f"no fixture {path}")
    key, scores = np.loadtxt(path, dtype=str, usecols=(2, 3)).T
    is_bonafide, scores = key == "bonafide", scores.astype(float)
    threshold, eer = 1.4934322834014893, 0.008295112264154778
    axes = det_curve({"AASIST": rates(scores[is_bonafide], scores[~is_bonafide])}, {"AASIST": eer}).axes[0]
    _, curve, point = axes.get_lines()
    distance = np.hypot(*(curve.get_xydata() - point.get_xydata()).T)
    assert distance.min() < 0.01  # percent: the marked EER lies on the curve
    figure = score_scatter(scores, is_bonafide, threshold)
    assert [len(line.get_xdata()) for line in figure.axes[0].get_lines()[:2]] == [63882, 7355]
    _, pdf = write_figure(figure, tmp_path / "scatter")
    assert pdf.stat().st_size < 1e6  # an image, not 71,237 marks


def draw_some(folder: str) -> dict[str, str]:
    """SHA-256 of every file of two figures from fixed data: curves, markers and an image; hatches."""
    scores = np.random.default_rng(1).normal(0, 1, 300)
    figures = {
        "scatter": score_scatter(scores, scores > 0, 0),
        "attacks": attack_eer({name: {"A07": (0.1, None, None)} for name in "abcd"}),
    }
    paths = [path for name, figure in figures.items() for path in write_figure(figure, Path(folder, name))]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def test_same_data_same_bytes(tmp_path):
    code = "import sys; sys.path[:0] = ['.', 'tests']; import test_plots; print(test_plots.draw_some(sys.argv[1]))"
    other = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "other")],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": "5", "TZ": "Asia/Tokyo"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert str(draw_some(tmp_path / "here")) == other.stdout.strip()


def test_save_names_resolution_and_fonts(tmp_path):
    figure = FIGURES["attacks one"]()
    paths = write_figure(figure, tmp_path / "new" / "epoch_3.125")
    assert paths == [tmp_path / "new" / "epoch_3.125.png", tmp_path / "new" / "epoch_3.125.pdf"]
    png, pdf = (path.read_bytes() for path in paths)
    assert int.from_bytes(png[16:20], "big") == round(3.4 * 300)
    assert b"/CIDFontType2" in pdf and b"/Type3" not in pdf and b"CreationDate" not in pdf


def test_a_failed_save_leaves_the_old_file_alone(tmp_path, monkeypatch):
    def half(self, path, **_):
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    (tmp_path / "a.png").write_bytes(b"old")
    monkeypatch.setattr(Figure, "savefig", half)
    with pytest.raises(OSError, match="disk full"):
        write_figure(FIGURES["attacks one"](), tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == b"old"


def test_settings_stay_as_they_were(tmp_path):
    before = dict(matplotlib.rcParams)
    write_figure(FIGURES["det"](), tmp_path / "det")
    assert dict(matplotlib.rcParams) == before


def test_import_is_quick():
    names = ", ".join(f"plots.{path.stem}" for path in (ROOT / "plots").glob("*.py"))
    code = f"import sys, {names}; assert not {{'matplotlib', 'scipy'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


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
    for text, box in boxes.items():
        assert box.x0 >= -1 and box.y0 >= -1, text
        assert box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1, text
    for (first, one), (second, two) in combinations(boxes.items(), 2):
        assert not one.padded(-0.5).overlaps(two.padded(-0.5)), (first, second)
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


def part(bonafide, spoof, cues, longest=5.0):
    """A partition of a data set with durations up to `longest`, and cues whose EERs rise from 10 to 50 %."""
    eers = np.linspace(0.1, 0.5, max(len(cues), 1))
    cues = {cue: (eer, 0.8 * eer, min(0.5, 1.2 * eer)) for cue, eer in zip(cues, eers, strict=False)}
    return PartitionSummary((bonafide, spoof), (RNG.uniform(1, longest, bonafide), RNG.uniform(1, 5, spoof)), cues)


CUES = ["duration", "leading quiet", "energy 6.8–7.7 kHz", "a cue of a very long $x_{$ name", *"abcdefgh"]
DATA_SETS = {
    "three": {name: part(count, 3 * count, CUES) for name, count in (("train", 9000), ("dev", 300), ("eval", 15))},
    "one": {"all": part(99999, 999999, CUES[:3])},
    "one class": {"eval": part(12, 0, [])},
    "outlier": {"train": part(50, 50, CUES, 4000.0), "dev": part(1, 1, CUES[:1])},
    "nothing decodes": {"train": PartitionSummary((3, 3), (np.empty(0), np.empty(0)), {})},
    "long names": {f"{name}$x_{'y' * 40}": part(5, 5, CUES) for name in range(5)},
}


@pytest.mark.parametrize("name", DATA_SETS)
def test_a_data_set_report_can_be_read(name):
    figure = data_set_report(DATA_SETS[name], 0.4)
    FigureCanvasAgg(figure).draw()
    boxes = {text: text.get_window_extent() for text in texts(figure)}
    for text, box in boxes.items():
        assert figure.bbox.x0 - 1 <= box.x0 and box.x1 <= figure.bbox.x1 + 1, text
        assert figure.bbox.y0 - 1 <= box.y0 and box.y1 <= figure.bbox.y1 + 1, text
    for (first, one), (second, two) in combinations(boxes.items(), 2):
        assert not one.padded(-0.5).overlaps(two.padded(-0.5)), (first, second)
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
