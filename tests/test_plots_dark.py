"""Colours: the findings differ for every kind of colour blindness, and a darkened figure can be read."""

import io
from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from plots.dark import DARK_GROUND, LIGHT_INK, darken, png_looks
from plots.scores import attack_eer, score_distributions
from plots.style import DARK_FINDING_COLOURS, FINDING_COLOURS

# What is left of linear RGB to people without red, green or blue cones (Machado et al., IEEE TVCG 2009, severity 1).
BLINDNESS = {
    "none": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour):
    values = np.array(to_rgb(colour))
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(one, two):
    dark, light = sorted(XYZ[1] @ linear(colour) for colour in (one, two))
    return (light + 0.05) / (dark + 0.05)


def lab(rgb):
    x, y, z = np.cbrt(XYZ @ np.clip(rgb, 0, 1) / (0.9505, 1, 1.089))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize(
    ("colours", "grounds"), [(FINDING_COLOURS, ["#fff"]), (DARK_FINDING_COLOURS, ["#1f2937", "#000"])]
)
def test_findings_can_be_told_apart(colours, grounds):
    assert set(colours) == {"likely_genuine", "unclear", "likely_synthetic", "mixed", "cannot_say"}
    assert min(contrast(colour, ground) for colour in colours.values() for ground in grounds) >= 4.5
    for kind, seen in BLINDNESS.items():
        points = {name: lab(np.array(seen) @ linear(colour)) for name, colour in colours.items()}
        for one, two in combinations(points, 2):
            assert np.linalg.norm(points[one] - points[two]) > 14, (kind, one, two)


def test_a_dark_figure_has_light_ink_and_the_same_data():
    scores = np.random.default_rng(1).normal(0, 1, 300)
    for make in (
        lambda: score_distributions(scores, scores - 2, 0.5),
        lambda: attack_eer({"a": {"A07": (0.1, 0.05, 0.2), "A08": (float("nan"), None, None)}}),
    ):
        plain, dark = make(), darken(make())
        assert dark.get_facecolor()[:3] == pytest.approx(to_rgb(DARK_GROUND))
        dark.draw_without_rendering(), plain.draw_without_rendering()
        texts = [*dark.axes[0].get_xticklabels(), *dark.axes[0].get_yticklabels(), *dark.legends[0].get_texts()]
        for text in texts:
            assert to_rgb(text.get_color()) == pytest.approx(to_rgb(LIGHT_INK))
        assert dark.axes[0].dataLim.bounds == plain.axes[0].dataLim.bounds
        for line in dark.axes[0].get_lines():
            assert contrast(to_rgb(line.get_color()), DARK_GROUND) > 3
            assert contrast(to_rgb(line.get_markeredgecolor()), DARK_GROUND) > 3


def test_both_looks_are_of_one_size():
    light, dark = (
        np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
        for png in png_looks(attack_eer({"a": {"A07": (0.1, None, None)}}), 100)
    )
    assert light.shape == dark.shape and light.shape[1] == 340
    assert light[0, 0].tolist() == [255, 255, 255] and dark[0, 0].tolist() == [0x0B, 0x0F, 0x19]
