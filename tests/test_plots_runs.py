"""Figures of training runs and of seeds: they show what was given and can be read."""

import numpy as np
import pytest
from drawn import assert_readable, labels

from plots.runs import SeedSpread, TrainingHistory, seed_spreads, training_curves

pytestmark = pytest.mark.filterwarnings("error")

RNG = np.random.default_rng(7)
SYSTEMS = [*"abcde", "a very long name of a countermeasure with many words in it", "x" * 100, "_a $x_{$ name"]


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


FIGURES = {
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
    "seeds constant": lambda: seed_spreads({"EER (%)": [SeedSpread("best", "dev", [0.0] * 3, 0.0, (0.0, 0.0))]}),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_can_be_read(name):
    assert_readable(FIGURES[name]())


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
