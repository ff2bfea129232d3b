"""Text on a terminal: curves, charts, widths and words for numbers."""

import numpy as np

from training.terminal import chart, draw_curve, fit_width, format_bytes, format_duration, progress_bar


def test_a_curve_goes_through_its_points():
    picture = draw_curve(np.array([0.0, 0.5, 1.0]), np.array([1.0, 0.0, 1.0]), (9, 3), False)
    assert picture[0][0] != " " and picture[0][-1] != " " and picture[2][4] != " " and picture[2][0] == " "
    assert draw_curve(np.array([0.0]), np.array([1.0]), (3, 2), True) == ["⠁  ", "   "]
    full = draw_curve(np.linspace(0, 1, 500), np.tile([0.0, 1.0], 250), (5, 2), True)
    assert full == ["⣿" * 5] * 2  # every value of many in a column shows


def test_a_chart_names_its_ends_and_its_scale():
    text = chart("loss", {1: 2.0, 5: 0.02}, 10, (30, 4), True)
    assert text[0] == "loss, log scale" and text[1].startswith("   2┤⠙") and text[4].startswith("0.02┤")
    assert text[5].split() == ["1", "10"] and all(len(line) == 30 for line in text[1:])
    assert not any(line[17:].strip() for line in text[1:5])  # epochs 6 … 10 are to come
    assert chart("EER", {3: 0.0, 4: 0.0}, 4, (30, 2), False)[:2] == ["EER", "0┤" + " " * 18 + "'" * 10]


def test_words_for_numbers():
    assert [format_duration(s) for s in (-5, 59.9, 60, 3599, 3600, 172_799, 172_800)] == [
        "0 s", "59 s", "1 min", "59 min", "1 h 0 min", "47 h 59 min", "2 d 0 h",
    ]  # fmt: skip
    assert [format_bytes(n) for n in (0, 1023, 1024, 1.5 * 2**20, 80 * 2**30, 2**50)] == [
        "0 B", "1023 B", "1.0 KiB", "1.5 MiB", "80.0 GiB", "1048576.0 GiB",
    ]  # fmt: skip
    assert progress_bar(0.5) == "████████████░░░░░░░░░░░░ 50 %"
    assert [fit_width(text, 5) for text in ("abc", "abcdefg", "中文字", "")] == ["abc  ", "ab…fg", "中…字", "     "]
