"""The summary of several seeds: textbook statistics; runs that cannot be compared are refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, TINY_MODEL, assert_user_error, run_command
from scipy import stats
from test_run_log import event, lines, training

from common.errors import UserError
from config import Config, save_config
from training.seeds import SeedRun, format_latex, format_table, read_seed_run, statistics, summarise

CONFIG = Config(model_config=TINY_MODEL)


def make_run(folder: Path, seed: int, eer: float, ended: bool = True, config: Config = CONFIG, **start) -> Path:
    """A folder of a run of ten epochs: best.pth has `eer` % on eval and half of it on dev, swa.pth 0.1 more on each."""
    events = [event("start", seed=seed, **start), *training(10 if ended else 4)]
    for name, more in (("best", 0.0), ("swa", 0.1)) if ended else ():
        dev = {"dev_eer_percent": eer / 2 + more, "dev_min_tdcf": eer / 80}
        events.append(event("eval", checkpoint=name, eer_percent=eer + more, min_tdcf=eer / 40, **dev))
    folder.mkdir(parents=True)
    (folder / "log.jsonl").write_bytes(lines(*events, *([event("end")] if ended else [])))
    save_config(replace(config, seed=seed), folder / "config.conf")
    return folder


def run_of(seed: int, eer: float = 1.0, **changes) -> SeedRun:
    results = {"best": {"eer_percent": eer, "dev_eer_percent": eer / 2}}
    return replace(SeedRun(f"run{seed}", seed, "finished", {"batch_size": 24}, results), **changes)


def test_a_run_is_what_its_log_says(tmp_path):
    run = read_seed_run(make_run(tmp_path / "a", 7, 1.2, init="/data/models/AASIST.pth"))
    assert (run.name, run.seed, run.state) == ("a", 7, "finished")
    known = {"dev_eer_percent": 0.7, "dev_min_tdcf": 0.015, "eer_percent": 1.3, "min_tdcf": 0.03}
    assert run.results.keys() == {"best", "swa"} and run.results["swa"] == pytest.approx(known)
    assert run.settings["optim_config.base_lr"] == 1e-4 and run.settings["trials.eval"] == 800
    assert run.settings["init"] == "AASIST.pth" and "seed" not in run.settings
    assert read_seed_run(make_run(tmp_path / "b", 7, 1.2, ended=False)).state == "4 of 10 epochs"


@pytest.mark.parametrize("count", [2, 3, 5, 30])
def test_the_interval_is_students(count):
    values = np.random.default_rng(count).normal(1.1, 0.2, count)
    found = statistics(dict(enumerate(values.tolist())))
    expected = stats.t.interval(0.95, count - 1, values.mean(), stats.sem(values))
    np.testing.assert_allclose(found["interval"], expected, rtol=1e-9)
    assert found["sd"] == pytest.approx(np.std(values, ddof=1))
    assert (found["n"], found["min"], found["max"]) == (count, values.min(), values.max())
    assert found["best_of_n"] == {"seed": values.argmin(), "value": values.min()}


def test_closed_form():
    """1, 2, 3: mean 2, sd 1, half-width 4.30265/√3."""
    found = statistics({1: 3.0, 2: 1.0, 3: 2.0})
    assert (found["mean"], found["sd"], found["best_of_n"]["seed"]) == (2.0, 1.0, 2)
    np.testing.assert_allclose(found["interval"], [2 - 2.484138, 2 + 2.484138], atol=1e-6)
    assert found["values"] == [{"seed": 1, "value": 3.0}, {"seed": 2, "value": 1.0}, {"seed": 3, "value": 2.0}]
    assert statistics({4: 1.5})["sd"] is None and statistics({4: 1.5})["interval"] is None
    assert statistics({1: 0.0, 2: 0.0})["interval"] == [0.0, 0.0]


def test_a_measure_that_no_run_has_is_left_out():
    runs = [run_of(2, 1.0), run_of(1, 3.0)]
    summary = summarise(runs)
    assert summary["seeds"] == [1, 2] and summary["runs"] == {"1": "run1", "2": "run2"}
    assert summary["checkpoints"]["best"].keys() == {"dev_eer_percent", "eer_percent"}
    assert "t-DCF" not in format_table(summary) and "& -- &" in format_latex(summary)
    runs[0].results["best"]["min_tdcf"] = 0.03
    assert summarise(runs)["checkpoints"]["best"]["min_tdcf"]["n"] == 1


def test_data_sets_that_all_runs_have_are_summarised():
    sets = [{"in_the_wild": {"best": eer}, "other": {"best": eer}} for eer in (30.0, 34.0)]
    del sets[1]["other"]
    summary = summarise([run_of(seed, further=further) for seed, further in enumerate(sets)])
    assert summary["data_sets"].keys() == {"in_the_wild"}
    found = summary["data_sets"]["in_the_wild"]["best"]
    assert (found["mean"], found["sd"]) == (32.0, pytest.approx(8**0.5))
    rows = format_table(summary).splitlines()
    assert " ".join(rows[rows.index("in_the_wild") + 1].split()).startswith("best EER (%) 2 32.000 2.828")
    assert "in\\_the\\_wild EER (\\%)" in format_latex(summary) and "$32.000 \\pm 2.828$ (30.000)" in format_latex(
        summary
    )


@pytest.mark.parametrize(
    ("runs", "words"),
    [
        ([], "at least one run"),
        ([run_of(1), run_of(2, state="3 of 10 epochs")], "run run2 is not finished .* found 3 of 10 epochs"),
        ([run_of(1), run_of(2, results={})], "run run2 has no results"),
        ([run_of(1), run_of(2, settings={"batch_size": 12})], "run1 and run2 differ in batch_size .* 24, found 12"),
        ([run_of(1), run_of(2, settings={})], "differ in batch_size .* 24, found None"),
        ([run_of(1), run_of(2), run_of(1, name="again")], "run1 and again have the same seed .* found 1"),
        ([run_of(1), run_of(2, results={"swa": {"eer_percent": 1.0}})], "other checkpoints .* best, found swa"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(runs, words):
    with pytest.raises(UserError, match=words):
        summarise(runs)


def test_places_of_data_may_differ_settings_may_not(tmp_path):
    elsewhere = replace(CONFIG, database_path=("2019:/other/LA",), eval_sets=("itw:/x",), num_workers=0, cache="mmap")
    runs = [
        read_seed_run(make_run(tmp_path / "a", 1, 1.0)),
        read_seed_run(make_run(tmp_path / "b", 2, 1.1, config=elsewhere)),
    ]
    assert summarise(runs)["seeds"] == [1, 2]
    other = replace(CONFIG, optim_config=replace(CONFIG.optim_config, base_lr=1e-3))
    for name, changes, words in (
        ("c", {"config": other}, "optim_config.base_lr .* 0.0001, found 0.001"),
        ("d", {"trials": {"train": 999, "dev": 400, "eval": 800}}, "trials.train .* 1000, found 999"),
        ("e", {"init": "x.pth"}, "differ in init .* None, found 'x.pth'"),
    ):
        with pytest.raises(UserError, match=words):
            summarise([runs[0], read_seed_run(make_run(tmp_path / name, 2, 1.1, **changes))])


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot read .*log.jsonl: No such file"):
        read_seed_run(tmp_path)
    (tmp_path / "log.jsonl").write_text("my thesis\n")
    with pytest.raises(UserError, match="no run's log"):
        read_seed_run(tmp_path)
    (tmp_path / "log.jsonl").write_bytes(lines(event("start")))
    with pytest.raises(UserError, match="cannot read config"):
        read_seed_run(tmp_path)


def test_the_command_writes_what_it_prints(tmp_path):
    runs = [make_run(tmp_path / f"seed{seed}", seed, eer) for seed, eer in ((3, 0.9), (1, 1.3), (2, 1.1))]
    done = run_command("training.seeds", *runs, "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    files = {path.name: path for path in (tmp_path / "out").iterdir()}
    assert files.keys() == {"summary.json", "summary.txt", "summary.tex", "seeds.png", "seeds.pdf"}
    assert files["summary.txt"].read_text() == done.stdout
    summary = json.loads(files["summary.json"].read_text())
    best = summary["checkpoints"]["best"]["eer_percent"]
    assert best["mean"] == pytest.approx(1.1) and best["best_of_n"] == {"seed": 3, "value": 0.9}
    assert [item["seed"] for item in best["values"]] == [1, 2, 3]
    rows = done.stdout.splitlines()[3:11]
    assert len({row.rindex("(") for row in rows}) == 1  # aligned
    assert " ".join(rows[2].split()) == "best eval EER (%) 3 1.100 0.200 0.603 … 1.597 1.300 0.900 (3)"
    assert "best of n is luck" in done.stdout
    tex = files["summary.tex"].read_text()
    assert "best & $0.550 \\pm 0.100$ (0.450) & $0.0138 \\pm 0.0025$ (0.0112) & $1.100 \\pm 0.200$ (0.900) &" in tex
    assert tex.count("\\toprule") == tex.count("\\midrule") == tex.count("\\bottomrule") == 1


def test_mistakes_are_one_line(tmp_path):
    run = make_run(tmp_path / "a", 1, 1.0)
    assert_user_error(run_command("training.seeds"), "RUN")
    assert_user_error(run_command("training.seeds", run, run, "--output", tmp_path / "out"), "the same seed", "found 1")
    assert_user_error(run_command("training.seeds", ROOT), "log.jsonl")
    assert not (tmp_path / "out").exists()
