"""main.py: the files that a run leaves, what its results depend on, --eval, and which process owns a folder."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import (
    ROOT,
    TINY_MODEL,
    assert_same_run,
    assert_user_error,
    events,
    mini,
    run_command,
    same,
    scored,
    the_run,
    train_mini,
    weights,
)
from forks import NO_DROPOUT, Command

import evaluation
from common.files import exclusive
from config import load_config
from training.log_events import parse_event
from utils import load_checkpoint

TINY = {
    "model_config": TINY_MODEL,
    "optim_config": {"base_lr": 1e-3},
    "batch_size": 6,
    "num_epochs": 2,
    "num_workers": 0,
    "freq_aug": True,
}
PAIR = {
    "architecture": "Ensemble",
    "nb_samp": 8000,
    "members": [{"architecture": "LFCC_LCNN", "nb_filters": filters} for filters in (20, 40)],
}


def write_config(folder: Path, **changes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny.conf"
    path.write_text(yaml.safe_dump(TINY | changes))
    return path


def train(folder: Path, corpus: Path, *arguments: object, **changes) -> Path:
    """A finished run below `folder`; returns its run folder."""
    config = write_config(folder, **changes)
    done = run_command("main.py", "--config", config, "--database_path", corpus, "--output_dir", folder, *arguments)
    assert done.returncode == 0, done.stderr
    return next(path for path in folder.iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def finished(tiny_corpus, tmp_path_factory) -> Path:
    """A finished run of two epochs. Tests must not change it."""
    return train(tmp_path_factory.mktemp("run"), tiny_corpus, "--seed", 5)


# --------------------------------------------------------------------------------------------- what a run leaves


def test_run_folder_holds_what_it_promises(finished):
    assert finished.name == "LA_tiny_ep2_bs6"
    names = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    epochs = {name for name in names if name.startswith("weights/epoch_")}
    scores = {f"scores/{name}.txt" for name in ("dev_best", "dev_swa", "eval_best", "eval_swa")}
    metrics = {f"metrics/eval_{name}.{kind}" for name in ("best", "swa") for kind in ("json", "txt")}
    last = {"config.conf", "log.jsonl", "metric_log.txt", "weights/best.pth", "weights/swa.pth", "weights/last.pth"}
    assert names == epochs | scores | metrics | last
    assert load_config(finished / "config.conf").seed == 5


def test_log_has_every_epoch_and_both_evaluations(finished):
    lines = (finished / "log.jsonl").read_bytes().splitlines()
    events = [json.loads(line) for line in lines]
    assert all(event.items() <= parse_event(line).items() for event, line in zip(events, lines, strict=True))
    assert [event["event"] for event in events] == ["start", "epoch", "epoch", "eval", "eval", "end"]
    assert [event["epoch"] for event in events if event["event"] == "epoch"] == [1, 2]
    assert events[1]["loss"] > 0
    assert events[1]["dev_min_tdcf"] is not None
    assert len((finished / "metric_log.txt").read_text().splitlines()) == 3


def test_checkpoints_are_named_by_their_dev_eer_and_carry_it(finished):
    events = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
    eers = {event["epoch"]: event["dev_eer_percent"] for event in events if event["event"] == "epoch"}
    best = load_checkpoint(finished / "weights" / "best.pth")
    assert best["dev_eer"] * 100 == pytest.approx(min(eers.values()))
    assert eers[best["epoch"]] == min(eers.values())
    named = load_checkpoint(finished / "weights" / f"epoch_{best['epoch']}_{min(eers.values()):.3f}.pth")
    assert same(named["model"], best["model"])
    swa = load_checkpoint(finished / "weights" / "swa.pth")
    assert swa["swa_epochs"] == [2]  # dev EER never fell to 1 %: the last tenth


def test_scores_and_metrics_agree_with_the_checkpoint(finished, tiny_corpus):
    scores = evaluation.read_scores(finished / "scores" / "dev_best.txt")
    eer = evaluation.compute_eer(scores.bonafide, scores.spoof)
    best = load_checkpoint(finished / "weights" / "best.pth")
    assert best["dev_eer"] == pytest.approx(eer.eer)
    assert best["threshold"] == eer.threshold
    for kind, own in (("bonafide", scores.bonafide), ("spoof", scores.spoof)):
        np.testing.assert_array_equal(best["dev_scores"][kind], np.sort(own).astype(np.float32))
    assert best["calibration"] == evaluation.fit_calibration(scores.score, scores.is_bonafide)._asdict()
    asv = tiny_corpus / "ASVspoof2019_LA_asv_scores" / "ASVspoof2019.LA.asv.eval.gi.trl.scores.txt"
    result = evaluation.evaluate(
        evaluation.read_scores(finished / "scores" / "eval_swa.txt"), evaluation.read_asv_scores(asv)
    )
    written = json.loads((finished / "metrics" / "eval_swa.json").read_text())
    assert written["eer_percent"] == result["eer_percent"]
    assert written["min_tdcf"] == result["min_tdcf"]
    assert set(written["per_attack"]) == {line.split()[1] for line in scored(finished, "eval_swa")} - {"-"}


def test_crops_shorter_than_chunks_and_a_balanced_calibration(tmp_path, tiny_corpus):
    changes = {"crop_samples": 4000, "balance": ["key", "attack"]}
    run = train(tmp_path / "short", tiny_corpus, **changes)
    whole = train(tmp_path / "whole", tiny_corpus, **changes | {"crop_samples": None})
    short, long = (load_checkpoint(folder / "weights" / "swa.pth") for folder in (run, whole))
    assert short["config"]["model_config"]["nb_samp"] == 8000 and not same(short["model"], long["model"])
    scores = evaluation.read_scores(run / "scores" / "dev_swa.txt")
    count = {name: np.sum(scores.attack == name) for name in np.unique(scores.attack)}
    alike = np.array([1 / count[name] for name in scores.attack])  # all attacks within spoof; bona fide is one class
    expected = evaluation.fit_calibration(scores.score, scores.is_bonafide, trial_weights=alike)
    assert short["calibration"] == pytest.approx(expected._asdict())


def test_crops_that_do_not_fit_the_model(tmp_path, tiny_corpus):
    """The error comes before anything is packed, which takes minutes."""
    rawgat = {"architecture": "RawNetGatSpoofST", "nb_samp": 16_000, "first_conv": 64}
    rawgat["filts"] = [24, [1, 4], [4, 4], [4, 8], [8, 8]]
    for model_config, crop, words in (
        (TINY_MODEL, 1000, ("crop_samples 1000", "model_config.nb_samp", "or more")),
        (rawgat, 5000, ("crop_samples", "null: RawNetGatSpoofST is made for one length", "5000")),
    ):
        arguments = mini(tmp_path, tiny_corpus, model_config=model_config, crop_samples=crop, cache="mmap")
        arguments += ["--output_dir", tmp_path / "runs", "--cache_path", tmp_path / "packed"]
        assert_user_error(Command(tmp_path, "main.py", *arguments).wait(), *words)
        assert not any((tmp_path / "runs").glob("*")) and not (tmp_path / "packed").exists()


def test_swa_is_the_mean_of_its_epochs_with_fresh_batch_norm(tmp_path, tiny_corpus):
    run = train(tmp_path, tiny_corpus, swa={"max_dev_eer": 100.0}, optim_config={"base_lr": 1e-4})
    swa = load_checkpoint(run / "weights" / "swa.pth")
    kept = [load_checkpoint(path) for path in (run / "weights").glob("epoch_*.pth")]
    assert swa["swa_epochs"] == sorted(checkpoint["epoch"] for checkpoint in kept)
    mean = sum(checkpoint["model"]["out_layer.weight"] for checkpoint in kept) / len(kept)
    torch.testing.assert_close(swa["model"]["out_layer.weight"], mean)
    statistics = "encoder.0.0.bn2.running_var"
    assert not torch.equal(swa["model"][statistics], kept[0]["model"][statistics])


def test_swa_of_the_last_epochs(tmp_path, tiny_corpus):
    run = train(tmp_path, tiny_corpus, swa={"last": 2})
    assert load_checkpoint(run / "weights" / "swa.pth")["swa_epochs"] == [1, 2]


# ------------------------------------------------------------------------------------- what a run depends on


def test_one_seed_gives_one_result(finished, tmp_path, tiny_corpus):
    again = train(tmp_path, tiny_corpus, "--seed", 5, num_workers=2)
    for name in ("best", "swa"):
        assert same(weights(finished, name), weights(again, name))
    assert scored(finished, "eval_swa") == scored(again, "eval_swa")


def test_another_seed_gives_another_result(finished, tmp_path, tiny_corpus):
    other = train(tmp_path, tiny_corpus, "--seed", 6)
    assert not same(weights(finished, "best"), weights(other, "best"))


def test_nothing_is_chosen_by_looking_at_eval(finished, tmp_path, tiny_corpus):
    """With every eval label flipped, the same epochs are chosen and the same weights come out."""
    corpus = tmp_path / "flipped"
    shutil.copytree(tiny_corpus, corpus)
    protocol = next(corpus.glob("*/*.eval.trl.txt"))
    flipped = []
    for line in protocol.read_text().splitlines():
        speaker, utt_id, _, _, key = line.split()
        flipped.append(f"{speaker} {utt_id} - " + ("- bonafide" if key == "spoof" else "A07 spoof"))
    protocol.write_text("\n".join(flipped) + "\n")
    run = train(tmp_path / "runs", corpus, "--seed", 5, eval_all_best=True)
    for name in ("best", "swa"):
        assert same(weights(finished, name), weights(run, name))
    assert scored(run, "eval_best") != scored(finished, "eval_best")


def test_interrupted_and_resumed_run_ends_like_an_uninterrupted_one(finished, tmp_path, tiny_corpus):
    config = write_config(tmp_path)
    arguments = ["--config", str(config), "--database_path", str(tiny_corpus), "--output_dir", str(tmp_path)]
    command = [sys.executable, "main.py", *arguments, "--seed", "5"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stderr=subprocess.PIPE)
    run = tmp_path / finished.name
    while not (run / "log.jsonl").exists() or not (run / "log.jsonl").stat().st_size:
        time.sleep(0.02)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert f"python main.py --resume {run}" in errors
    assert load_checkpoint(run / "weights" / "last.pth")["progress"]["epoch"] < 2

    done = run_command("main.py", "--resume", run)
    assert done.returncode == 0, done.stderr
    for name in ("best", "swa"):
        assert same(weights(finished, name), weights(run, name))
    assert scored(finished, "eval_swa") == scored(run, "eval_swa")
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events] == ["start", "resume", "epoch", "epoch", "eval", "eval", "end"]
    assert [event["epoch"] for event in events if event["event"] == "epoch"] == [1, 2]


def test_resuming_a_finished_run_repeats_only_its_end(finished, tmp_path):
    run = tmp_path / "copy"
    shutil.copytree(finished, run)
    done = run_command("main.py", "--resume", run)
    assert done.returncode == 0, done.stderr
    assert same(weights(finished, "swa"), weights(run, "swa"))
    events = [json.loads(line)["event"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert events == ["start", "epoch", "epoch", "resume", "eval", "eval", "end"]


def test_a_resumed_run_stays_the_run_it_was(finished, tmp_path):
    run = tmp_path / "copy"
    shutil.copytree(finished, run)
    assert_user_error(run_command("main.py", "--resume", run, "--seed", 6), "'seed'", "the run's 5", "found 6")
    (run / "weights" / "last.pth").unlink()
    assert_user_error(run_command("main.py", "--resume", run), "cannot read checkpoint", "last.pth")


# -------------------------------------------------------------------------------------- how a run is computed


@pytest.fixture(scope="module")
def plain(tiny_corpus, tmp_path_factory) -> Path:
    """A finished run of `mini`. Tests must not change it."""
    return train_mini(tmp_path_factory.mktemp("plain"), tiny_corpus)


def losses(run: Path) -> list[float]:
    """The loss of each epoch."""
    return [event["loss"] for event in events(run, "epoch")]


def test_deterministic_runs_are_the_same_bits(plain, tiny_corpus, tmp_path):
    """On a CPU every run is deterministic."""
    assert_same_run(train_mini(tmp_path, tiny_corpus, deterministic=True), plain)


def test_recomputing_is_the_same_run(plain, tiny_corpus, tmp_path):
    losses = [
        [e["loss"] for e in events(run, "epoch")] for run in (train_mini(tmp_path, tiny_corpus, recompute=True), plain)
    ]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_half_precision_is_close(plain, tiny_corpus, tmp_path):
    run = train_mini(tmp_path, tiny_corpus, "--precision", "bf16")
    np.testing.assert_allclose(losses(run), losses(plain), rtol=0.1)
    assert losses(run) != losses(plain) and events(run, "start")[0]["precision"] == "bf16"
    assert {x.dtype for x in weights(run, "swa").values()} == {torch.float32, torch.int64}


@pytest.mark.slow
def test_compiled_losses_are_the_same(tiny_corpus, tmp_path):
    """Compiled code draws other random numbers, so nothing is drawn here."""
    changes = {"freq_aug": False, "num_epochs": 1, "optim_config": {"base_lr": 1e-4}, "swa": {"last": 1}}
    runs = [
        train_mini(tmp_path / name, tiny_corpus, *arguments, prelude=NO_DROPOUT, **changes)
        for name, arguments in (("eager", []), ("compiled", ["--compile"]))
    ]
    np.testing.assert_allclose(losses(runs[1]), losses(runs[0]), atol=1e-4)
    scores = [[float(line.split()[-1]) for line in scored(run, "dev_best")] for run in runs]
    np.testing.assert_allclose(*scores, atol=1e-4)
    assert weights(runs[1], "best").keys() == weights(runs[0], "best").keys()


# ------------------------------------------------------------------------------------------- --eval, run folders


def test_eval_of_given_weights(finished, tmp_path, tiny_corpus):
    config = write_config(tmp_path)
    best = finished / "weights" / "best.pth"
    arguments = ["--config", config, "--database_path", tiny_corpus, "--output_dir", tmp_path]
    done = run_command("main.py", *arguments, "--eval", "--eval_model_weights", best)
    assert done.returncode == 0, done.stderr
    assert "EER %" in done.stdout
    run = tmp_path / finished.name
    assert sorted(path.name for path in run.iterdir()) == ["metrics", "scores"]
    output = run / "scores" / "eval_scores_using_best_dev_model.txt"
    assert output.read_text().splitlines() == scored(finished, "eval_best")


def test_of_two_runs_that_want_one_folder_one_is_refused(tmp_path, tiny_corpus):
    """Both start at the same moment, like two jobs of an array that differ only in --seed."""
    arguments = ["main.py", *mini(tmp_path, tiny_corpus)]
    with exclusive(tmp_path / "runs"):
        runs = [Command(tmp_path, *arguments, "--seed", seed) for seed in (1, 2)]
        for run in runs:
            run.until(lambda run=run: "waiting for another process" in run.read(1))
    done = sorted((run.wait() for run in runs), key=lambda process: process.returncode)
    assert [process.returncode for process in done] == [0, 2]
    assert "is in use" in done[1].stderr or "holds a run" in done[1].stderr
    checkpoint = load_checkpoint(the_run(tmp_path) / "weights" / "best.pth")
    assert checkpoint["config"]["seed"] == load_config(the_run(tmp_path) / "config.conf").seed


def test_a_run_that_is_going_is_neither_resumed_nor_overwritten(tmp_path, tiny_corpus):
    arguments = mini(tmp_path, tiny_corpus, num_epochs=50)
    going = Command(tmp_path, "main.py", *arguments)
    going.until(lambda: any((tmp_path / "runs").glob("*/weights/best.pth")))
    before = load_config(the_run(tmp_path) / "config.conf")
    assert_user_error(run_command("main.py", "--resume", the_run(tmp_path)), "is in use", "no other process")
    assert_user_error(Command(tmp_path, "main.py", *arguments, "--overwrite").wait(), "is in use")
    going.kill(signal.SIGINT)
    assert going.wait().returncode == 130
    assert load_config(the_run(tmp_path) / "config.conf") == before
    other = Command(tmp_path, "main.py", *arguments, "--overwrite", "--seed", before.seed + 1)
    other.until(lambda: "1/50" in other.read(0))
    other.kill()
    assert load_config(the_run(tmp_path) / "config.conf").seed == before.seed + 1


def test_a_run_is_not_overwritten_unasked(finished, tmp_path, tiny_corpus):
    run = tmp_path / finished.name
    shutil.copytree(finished, run)
    arguments = ["--config", write_config(tmp_path), "--database_path", tiny_corpus, "--output_dir", tmp_path]
    assert_user_error(run_command("main.py", *arguments), "holds a run", "--overwrite")
    assert same(weights(finished, "swa"), weights(run, "swa"))
