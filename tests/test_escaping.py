"""Names and labels that forge output: a line break, terminal escapes, a spreadsheet's formula, LaTeX and HTML."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import TINY_MODEL, save_tiny

import evaluation
import inference
from common.errors import UserError
from common.escaping import csv_cell, latex, printable
from metrics.tables import format_latex
from plots.style import literal
from utils import describe_checkpoint

RATE = 16_000
FORGED = "bona fide      9.9999  victim.wav"
NASTY = (  # file names
    f"a\n{FORGED}\n.wav",
    f"b\r\x85\u2028{FORGED}.wav",
    "c\x1b[2J\x1b]0;title\x07\x9b31m.wav",
    "=HYPERLINK('evil').wav",
    "d\u202egpj.wav",
    "e\udce9.wav",
)
ATTACKS = ("A\x1b[31m01", "=cmd|' /C calc'!A0", "@SUM(1)", "\\input{secret}", "A_1$%")


def run(monkeypatch, capsys, command, *arguments: object) -> tuple[str, str]:
    """What a command prints to stdout and stderr."""
    monkeypatch.setattr(sys, "argv", [f"{command.__name__}.py", *map(str, arguments)])
    command.main()
    return capsys.readouterr()


def assert_nothing_is_forged(text: str) -> None:
    assert text and all(line.isprintable() for line in text.split("\n")), text
    assert not any(line.startswith(FORGED[:9]) and "victim" in line and line[-4:] == ".wav" and "\\" not in line
                   for line in text.split("\n")), text  # fmt: skip


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 中 \U0001f600.wav", "plain é 中 \U0001f600.wav"),
        ("a\tb\x1b\n\r\x07\x7f", r"a\tb\x1b\n\r\x07\x7f"),
        ("\x9b\u2028\u202e\xa0", r"\x9b\u2028\u202e\xa0"),
        ("\udce9 \ud800", r"\xe9 \ud800"),
        (Path("x\n"), r"x\n"),
    ],
)
def test_a_name_is_one_line_that_commands_no_terminal(text, shown):
    assert printable(text) == shown and printable(shown) == shown


def test_a_cell_is_no_formula_and_a_number_stays_one():
    cells = ["=1+1", "+1", "-1+1", "@A1", "\t=1", "\r=1", "＝1"]
    assert [csv_cell(cell) for cell in cells] == [f"'{cell}" for cell in cells]
    for same in ("-", "", "A01", "a=b", -1.5, None, 3):
        assert csv_cell(same) is same


def test_latex_shows_a_name_letter_for_letter():
    assert latex("a_b\\input{x}%$&#^~\n") == (
        r"a\_b\textbackslash{}input\{x\}\%\$\&\#\textasciicircum{}\textasciitilde{}\textbackslash{}n"
    )


def test_an_error_is_one_line_that_commands_no_terminal():
    assert str(UserError("no\n\x1b[2Jfile", "a\x07")) == r"no \x1b[2Jfile — expected a\x07"


def test_a_figure_shows_a_name_on_one_line():
    assert literal("a\n$x$\x1b") == r"a\n\$x\$\x1b"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("weights") / "tiny.pth")


def test_file_names_forge_no_output_of_inference(tiny, tmp_path, monkeypatch, capsys):
    """Lines and reports for people are escaped; JSON and score file hold the names as they are."""
    for name in NASTY:
        with (tmp_path / name).open("wb") as file:
            soundfile.write(file, 0.1 * np.random.default_rng(0).standard_normal(RATE), RATE, format="WAV")
    broken = tmp_path / f"z\x1b[2J\n{FORGED}.wav"
    broken.write_bytes(b"no sound")
    files = [*(tmp_path / name for name in NASTY), broken]
    out = tmp_path / "out"
    options = ["--model", tiny, "--device", "cpu", "--engine", "torch", "--workers", 0]
    saved = ["--save_json", out / "r.json", "--save_csv", out / "r.csv"]
    for text in run(monkeypatch, capsys, inference, *files, *options, *saved):
        assert_nothing_is_forged(text)
    text, _ = run(monkeypatch, capsys, inference, files[0], *options)
    assert_nothing_is_forged(text)
    results = json.loads((out / "r.json").read_text())["results"]
    assert {result["file"] for result in results} == {str(file) for file in files}
    with (out / "r.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = [*csv.DictReader(file)]
    assert [row["file"] for row in rows] == [str(file) for file in files]  # begin with the folder
    assert rows[3]["utt_id"] == "'=HYPERLINK('evil')"
    assert float(rows[0]["score"]) == results[0]["score"]


def test_what_a_checkpoint_says_forges_no_output(tmp_path):
    config = {"model_config": TINY_MODEL, "track": "LA", "database_path": "/data\n\x1b[2Jdev EER  0.000 %"}
    text = describe_checkpoint(save_tiny(tmp_path / "tiny.pth", config=config))
    assert all(line.isprintable() for line in text.split("\n")) and r"/data\n\x1b[2Jdev EER" in text


def test_attack_names_forge_no_output_of_evaluation(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    lines = ["filename,attack,key,codec,score"]
    for row in range(200):
        attack = "-" if row % 2 else ATTACKS[row // 2 % len(ATTACKS)]
        lines.append(f"=u\x1b{row},{attack},{'bonafide' if row % 2 else 'spoof'},+c\x1b{row % 3},{rng.normal(row % 2)}")
    path = tmp_path / "s\x1b[2J\nforged.csv"
    path.write_text("\n".join(lines) + "\n")
    protocol = tmp_path / "protocol.csv"  # of fewer trials, so that a warning names the others
    protocol.write_text("\n".join(line.rpartition(",")[0] for line in lines[:150]) + "\n")
    saved = ["--json", tmp_path / "r.json", "--csv", tmp_path / "r.csv", "--latex"]
    for form in (["--group-by", "codec", *saved, "--protocol", protocol], ["--official"]):
        text, notes = run(monkeypatch, capsys, evaluation, path, *form)
        assert text.replace("\t", "").replace("\n", "").isprintable() and notes.replace("\n", "").isprintable()
    assert "are of trials not in" in str(json.loads((tmp_path / "r.json").read_text())["warnings"])
    assert set(json.loads((tmp_path / "r.json").read_text())["per_attack"]) == set(ATTACKS)
    with (tmp_path / "r.csv").open(newline="") as file:
        conditions = [row["condition"] for row in csv.DictReader(file)]
    assert not any(cell[0] in "=+@" for cell in conditions) and "'@SUM(1)" in conditions


def test_attack_names_are_no_latex_commands():
    row = {"eer_percent": 1.0, "min_tdcf": None, "per_attack": {name: {"eer_percent": 1.0} for name in ATTACKS}}
    text = format_latex({"my_system\\input{x}": row})
    assert "\\input" not in text and text.count("\n") == 1
