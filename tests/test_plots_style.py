"""Figures as files: the same bytes each time, whole or not at all, and no settings left behind."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from common.errors import UserError
from plots.det_roc import det_curve
from plots.scores import attack_eer, score_scatter
from plots.style import write_figure

pytestmark = pytest.mark.filterwarnings("error")

ROOT = Path(__file__).parents[1]
ONE = {"a": {"A07": (0.0, 0.0, 0.0)}}


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
    code = "import sys; sys.path[:0] = ['.', 'tests']; import test_plots_style as t; print(t.draw_some(sys.argv[1]))"
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
    figure = attack_eer(ONE)
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
    with pytest.raises(UserError, match=r"cannot write .*a.png: disk full"):
        write_figure(attack_eer(ONE), tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == b"old"


def test_settings_stay_as_they_were(tmp_path):
    before = dict(matplotlib.rcParams)
    write_figure(det_curve({"a": (np.array([0, 0, 1.0]), np.array([1.0, 0, 0]))}, {"a": 0.0}), tmp_path / "det")
    assert dict(matplotlib.rcParams) == before


def test_import_is_quick():
    names = ", ".join(f"plots.{path.stem}" for path in (ROOT / "plots").glob("*.py"))
    code = f"import sys, {names}; assert not {{'matplotlib', 'scipy'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
