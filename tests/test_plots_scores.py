"""Figures of scores: they show what was given, and can be read for ordinary and for ugly inputs."""

from pathlib import Path

import numpy as np
import pytest
from drawn import assert_readable, labels
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import StepPatch

from plots.det_roc import det_curve, roc_curve
from plots.scores import attack_eer, confusion_matrix, robustness, score_boxes, score_distributions, score_scatter
from plots.style import write_figure

pytestmark = pytest.mark.filterwarnings("error")

SCORES = Path(__file__).parents[2] / "shared" / "fixtures" / "scores"
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
    "attacks with trials": lambda: attack_eer(
        {"a": bars([*ATTACKS, "pooled"]) | {"A09": (0.0, None, None)}, "b": bars(ATTACKS)},
        dict.fromkeys([*ATTACKS, "pooled"], 63882),
    ),
    "attacks eight": lambda: attack_eer({system: bars(LONG) for system in SYSTEMS}),
    "attacks long names": lambda: attack_eer({"a": bars(LONG, interval=False)}),
    "attacks many": lambda: attack_eer({"a": bars([f"attack_{n}" for n in range(110)])}),
    "attacks one": lambda: attack_eer({"a": {"A07": (0.0, 0.0, 0.0)}}),
    "attacks none": lambda: attack_eer({"a": {}}),
    "confusion": lambda: confusion_matrix(np.array([[7294, 61], [530, 63352]]), 1.493, "AASIST"),
    "confusion one class": lambda: confusion_matrix([[0, 0], [10**7, 10**7]], float("-inf"), SYSTEMS[-1] * 30),
    "scatter": lambda: score_scatter(RNG.normal(0, 3, 71237), RNG.random(71237) < 0.1, 1.5),
    "scatter one trial": lambda: score_scatter([1.0, 0.0], [True, False], 0.5),
    "scatter constant": lambda: score_scatter(np.full(20, 1e9), np.arange(20) < 9, 1e9),
    "scatter outliers": lambda: score_scatter(SPREAD, np.arange(202) < 90, 0.0),
    "boxes": lambda: score_boxes(boxes(ATTACKS), 1.5),
    "boxes long names": lambda: score_boxes(boxes(LONG), 1.5),
    "boxes outliers": lambda: score_boxes({"bona fide": SPREAD, "A07": SPREAD - 3}, float("inf")),
    "boxes one trial": lambda: score_boxes({"bona fide": [1.0], "A07": []}, 1.0),
    "robustness": lambda: robustness({"a": CONDITIONS, "b": {name: 50 - eer for name, eer in CONDITIONS.items()}}),
    "robustness one": lambda: robustness({"a": {"as it is": 0.0}}),
    "robustness guessing": lambda: robustness({"a": {"as it is": 50.0, "a condition with a long name": 100.0}}),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_can_be_read(name):
    assert_readable(FIGURES[name]())


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
    assert labels(figure) == ["a: EER 31.00 %", "b: EER 0.00 %, no curve"]
    assert [text.get_text() for text in axes.texts] == ["0 %: no errors"]
    assert corner.get_markerfacecolor() == "white" != point.get_markerfacecolor()
    assert not np.any((perfect.get_xdata() > 0.1) & (perfect.get_ydata() > 0.1))


def test_det_names_no_perfect_system_where_there_is_none():
    figure = FIGURES["det"]()
    assert not figure.axes[0].texts and labels(figure) == ["AASIST: EER 0.83 %"]


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
    named = (inset.get_title("right"), inset.get_xlabel())
    assert named in [("FAR on a log scale", "FAR (%)"), ("", axes.get_xlabel())]  # a second panel has the axes' names


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


def test_bars_carry_their_values_and_trials():
    zero = {"A07": (0.00833, None, None), "A08": (0.0, 0.0, 0.001)}
    figure = attack_eer({"a": zero, "b": {"A08": (0.0, None, None)}}, {"A07": 4914, "A08": 12})
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["0.83", "0.00", "0.00"]
    assert [text.xy[0] for text in axes.texts] == pytest.approx([0.833, 0.1, 0])
    assert [text.get_text() for text in axes.get_yticklabels()] == ["A07, n = 4,914", "A08, n = 12"]


def test_more_bars_than_values_fit_beside_mark_zero():
    figure = attack_eer({system: dict.fromkeys(ATTACKS, (0.0, None, None)) for system in SYSTEMS})
    dots = [line for line in figure.axes[0].get_lines() if line.get_marker() == "o"]
    assert [len(line.get_xdata()) for line in dots] == [len(ATTACKS)] * len(SYSTEMS)
    assert labels(figure)[-1] == "0 %" and not figure.axes[0].texts


def test_confusion_counts_and_shares():
    axes = confusion_matrix(np.array([[99, 1], [0, 0]]), 0.25, "a_$b$").axes[0]
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "99\n99.00 %", (1, 0): "1\n1.00 %", (0, 1): "0\nno trials", (1, 1): "0\nno trials"}
    assert [text.get_text() for text in axes.get_xticklabels()] == ["accepted as bona fide", "rejected as spoof"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["bona fide", "spoof"]
    assert axes.get_title() == "a_\\$b\\$\nTrials, and % of the row, at threshold 0.25"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Decision", "Truth")


def test_scatter_shows_each_trial_at_its_place():
    figure = score_scatter([3.0, -1.0, 2.0], [True, False, True], 0.5)
    spoof, bonafide, threshold = figure.axes[0].get_lines()
    np.testing.assert_array_equal(bonafide.get_xydata(), [[0, 3], [2, 2]])
    np.testing.assert_array_equal(spoof.get_xydata(), [[1, -1]])
    assert spoof.get_rasterized() and bonafide.get_rasterized()
    assert threshold.get_ydata() == [0.5, 0.5]
    assert labels(figure) == ["spoof (n = 1)", "bona fide (n = 2)", "threshold 0.5"]


def test_many_points_are_translucent_and_their_legend_is_not():
    figure = FIGURES["scatter"]()
    opacity = [line.get_alpha() for line in figure.axes[0].get_lines()[:2]]
    assert opacity[0] < 0.15 < opacity[1] < 0.35  # 63,882 spoofs, 7,355 bona fide
    assert {handle.get_alpha() for handle in figure.legends[0].legend_handles} == {None}
    assert FIGURES["scatter one trial"]().axes[0].get_lines()[0].get_alpha() == 1


def test_boxes_are_quartiles_in_the_order_given():
    figure = score_boxes({"bona fide": [1, 2, 3, 4, 5], "A08": [-1, 0, 1], "A07": []}, 1.5)
    axes = figure.axes[0]
    first, second = (patch.get_path().vertices[:, 0] for patch in axes.patches[:2])
    assert (first.min(), first.max()) == (2, 4) and (second.min(), second.max()) == (-0.5, 0.5)
    assert axes.patches[0].get_facecolor() != axes.patches[1].get_facecolor()
    assert [text.get_text() for text in axes.get_yticklabels()] == ["bona fide", "A08", "A07"]
    assert [1.5, 1.5] in [list(line.get_xdata()) for line in axes.get_lines()]


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


def test_the_deployed_threshold_stands_beside_that_of_the_eer():
    scores, is_bonafide = np.array([3.0, -1.0, 2.0]), np.array([True, False, True])
    for figure in (
        score_distributions(scores[is_bonafide], scores[~is_bonafide], 0.5, 9.0),
        score_scatter(scores, is_bonafide, 0.5, 9.0),
        score_boxes({"bona fide": scores[is_bonafide], "A07": scores[~is_bonafide]}, 0.5, 9.0),
    ):
        words = [text.get_text() for text in figure.legends[0].get_texts()]
        assert {"EER threshold 0.5", "deployed threshold 9"} <= set(words)
        assert max(*figure.axes[0].get_xlim(), *figure.axes[0].get_ylim()) >= 9
