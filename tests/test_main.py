"""Real runs and the files they leave; what a user does wrong; what a run must not depend on."""

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
import soundfile
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
from forks import NO_DROPOUT, Command, Done, on_step

import evaluation
from common.files import exclusive
from config import load_config
from models import build_model
from training.ensemble import ensemble_of
from utils import load_checkpoint, load_model

TINY = {
    "model_config": TINY_MODEL,
    "optim_config": {"base_lr": 1e-3},
    "batch_size": 6,
    "num_epochs": 2,
    "num_workers": 0,
    "freq_aug": True,
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
    """A finished run of two epochs, not to be changed."""
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
    events = [json.loads(line) for line in (finished / "log.jsonl").read_text().splitlines()]
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
    """It is said before anything is packed, which takes minutes."""
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
    """A finished run of `mini`, not to be changed."""
    return train_mini(tmp_path_factory.mktemp("plain"), tiny_corpus)


def losses(run: Path) -> list[float]:
    """Of each epoch."""
    return [event["loss"] for event in events(run, "epoch")]


def test_deterministic_runs_are_the_same_bits(plain, tiny_corpus, tmp_path):
    """As all are on a CPU."""
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
    """By torch's own compiler; what is drawn at random it draws otherwise, so nothing is."""
    changes = {"freq_aug": False, "num_epochs": 1, "optim_config": {"base_lr": 1e-4}, "swa": {"last": 1}}
    runs = [
        train_mini(tmp_path / name, tiny_corpus, *arguments, prelude=NO_DROPOUT, **changes)
        for name, arguments in (("eager", []), ("compiled", ["--compile"]))
    ]
    np.testing.assert_allclose(losses(runs[1]), losses(runs[0]), atol=1e-4)
    scores = [[float(line.split()[-1]) for line in scored(run, "dev_best")] for run in runs]
    np.testing.assert_allclose(*scores, atol=1e-4)
    assert weights(runs[1], "best").keys() == weights(runs[0], "best").keys()


# ---------------------------------------------------------------------------------------------------- many seeds


@pytest.fixture(scope="module")
def sown(tiny_corpus, tmp_path_factory) -> Path:
    """The folder in which --seeds 5 6 has finished, with an EMA; not to be changed."""
    folder = tmp_path_factory.mktemp("sown")
    done = sow(folder, tiny_corpus)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("best of n is luck") == 1
    return folder


def sow(folder: Path, corpus: Path, *arguments: object, prelude: str = "", **changes) -> Done:
    """The end of main.py --seeds 5 6."""
    arguments = [*mini(folder, corpus, **{"ema_decay": 0.9, **changes}), "--seeds", 5, 6, *arguments]
    return Command(folder, "main.py", *arguments, prelude=prelude).wait()


def seed_run(folder: Path, seed: int) -> Path:
    return folder / "runs" / f"LA_mini_ep2_bs6_seed{seed}"


def test_seeds_leave_a_run_each_and_a_summary(sown):
    summary = sown / "runs" / "LA_mini_ep2_bs6_seeds"
    assert {path.name for path in summary.parent.iterdir()} == {
        summary.name,
        *(f"{summary.name[:-1]}{n}" for n in (5, 6)),
    }
    assert {path.name for path in summary.iterdir()} == {
        *(f"summary.{kind}" for kind in ("json", "txt", "tex")),
        *(f"seeds.{kind}" for kind in ("png", "pdf")),
        *("weights", "scores", "metrics"),
    }
    found = json.loads((summary / "summary.json").read_text())
    assert found["seeds"] == [5, 6] and found["checkpoints"].keys() == {"best", "swa", "ema"}
    for number, seed in enumerate((5, 6)):
        run = seed_run(sown, seed)
        assert load_config(run / "config.conf").seed == seed
        for name in ("best", "swa", "ema"):
            written = json.loads((run / "metrics" / f"eval_{name}.json").read_text())
            value = found["checkpoints"][name]["eer_percent"]["values"][number]
            assert value == {"seed": seed, "value": written["eer_percent"]}
            dev = load_checkpoint(run / "weights" / f"{name}.pth")["dev_eer"]
            value = found["checkpoints"][name]["dev_eer_percent"]["values"][number]["value"]
            assert value == pytest.approx(100 * dev)
            assert len(scored(run, f"eval_{name}")) == len(scored(run, f"dev_{name}")) == 16
    assert not same(weights(seed_run(sown, 5), "ema"), weights(seed_run(sown, 5), "best"))


def test_seeds_together_are_one_model(sown):
    folder, runs = sown / "runs" / "LA_mini_ep2_bs6_seeds", [seed_run(sown, seed) for seed in (5, 6)]
    model, checkpoint = load_model(folder / "weights" / "joined.pth")
    x = torch.randn(3, 64_600, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        own = [load_model(run / "weights" / "ema.pth")[0](x)[1] for run in runs]
        torch.testing.assert_close(model(x)[1], sum(own) / 2)
    assert checkpoint["seeds"] == [5, 6] and checkpoint["config"]["model_config"]["architecture"] == "Ensemble"
    for partition in ("dev", "eval"):
        scores = [[line.split() for line in (run / "scores" / f"{partition}_ema.txt").open()] for run in runs]
        together = [line.split() for line in (folder / "scores" / f"{partition}_joined.txt").open()]
        for *trial, score in zip(*scores, together, strict=True):
            assert {tuple(one[:3]) for one in (*trial, score)} == {tuple(score[:3])}
            assert float(score[3]) == pytest.approx(np.mean([float(one[3]) for one in trial]))
    dev = json.loads((folder / "metrics" / "dev_joined.json").read_text())
    assert checkpoint["threshold"] == dev["eer_threshold"] and 100 * checkpoint["dev_eer"] == dev["eer_percent"]


def test_ensembles_of_seeds_give_their_members():
    config = {"model_config": PAIR | {"nb_samp": 16_000, "output": "cosine"}}
    checkpoints = [{"config": config, "model": build_model(config["model_config"]).state_dict()} for _ in range(2)]
    model_config, weights = ensemble_of(checkpoints)
    model, x = build_model(model_config).eval(), torch.randn(2, 16_000, generator=torch.Generator().manual_seed(0))
    model.load_state_dict(weights)
    assert len(model.members) == 4 and model.nb_samp == 16_000
    with torch.no_grad():
        found = [build_model(config["model_config"]).eval() for _ in checkpoints]
        for one, checkpoint in zip(found, checkpoints, strict=True):
            one.load_state_dict(checkpoint["model"])
        torch.testing.assert_close(model(x)[1], (found[0](x)[1] + found[1](x)[1]) / 2)


def test_one_of_the_seeds_is_that_seeds_run(sown, tiny_corpus, tmp_path):
    assert_same_run(train_mini(tmp_path, tiny_corpus, "--seed", 6, ema_decay=0.9), seed_run(sown, 6))


def test_finished_seeds_are_kept(sown, tiny_corpus, tmp_path):
    shutil.copytree(sown / "runs", tmp_path / "runs")
    shutil.rmtree(tmp_path / "runs" / "LA_mini_ep2_bs6_seeds")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/*/*")}
    done = sow(tmp_path, tiny_corpus)
    assert done.returncode == 0, done.stderr
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    summary = "LA_mini_ep2_bs6_seeds/summary.txt"
    assert (tmp_path / "runs" / summary).read_text() == (sown / "runs" / summary).read_text()
    assert (sown / "runs" / summary).read_text().strip() in done.stdout


@pytest.mark.parametrize(("number", "code"), [("SIGKILL", -9), ("SIGINT", 130)])
def test_the_same_command_goes_on_with_all_seeds(sown, tiny_corpus, tmp_path, number, code):
    """Stopped in the second seed's second epoch."""
    done = sow(tmp_path, tiny_corpus, prelude=on_step(14, f"os.kill(os.getpid(), signal.{number})"))
    assert done.returncode == code, done.stderr
    assert ("the same command goes on with all seeds" in done.stderr) == (number == "SIGINT")
    last = seed_run(tmp_path, 5) / "weights" / "last.pth"
    before = last.stat().st_mtime_ns
    done = sow(tmp_path, tiny_corpus)
    assert done.returncode == 0, done.stderr
    assert last.stat().st_mtime_ns == before
    for seed in (5, 6):
        assert_same_run(seed_run(tmp_path, seed), seed_run(sown, seed))


def test_a_seed_that_fails_costs_no_other(sown, tiny_corpus, tmp_path):
    shutil.copytree(sown / "runs", tmp_path / "runs")
    config = seed_run(tmp_path, 6) / "config.conf"
    config.write_text(config.read_text().replace("label_smoothing: 0.0", "label_smoothing: 0.1"))
    done = sow(tmp_path, tiny_corpus)
    assert done.returncode == 1
    assert (
        "error: seed 6: run folder" in done.stderr
        and "with another label_smoothing — expected 0.0, found 0.1" in done.stderr
    )
    summary = json.loads((tmp_path / "runs" / "LA_mini_ep2_bs6_seeds" / "summary.json").read_text())
    assert summary["seeds"] == [5]
    done = sow(tmp_path, tiny_corpus, label_smoothing=0.2)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: run folder")


def test_runs_count_from_the_configs_seed(tiny_corpus, tmp_path):
    arguments = mini(tmp_path, tiny_corpus, num_epochs=1, seed=8)
    done = Command(tmp_path, "main.py", *arguments, "--runs", 2, "--comment", "x").wait()
    assert done.returncode == 0, done.stderr
    names = {path.name.removeprefix("LA_mini_ep1_bs6_x_") for path in (tmp_path / "runs").iterdir()}
    assert names == {"seed8", "seed9", "seeds"}


# ------------------------------------------------------------------------------------------------- real speech


@pytest.fixture(scope="session")
def real_corpus(shared, tmp_path_factory) -> Path:
    """LA_mini with 8 train, 6 dev and 6 eval trials, half of them bona fide."""
    source, corpus = shared / "data" / "LA_mini", tmp_path_factory.mktemp("real")
    for entry in source.iterdir():
        (corpus / entry.name).symlink_to(entry)
    (corpus / "ASVspoof2019_LA_cm_protocols").unlink()
    (corpus / "ASVspoof2019_LA_cm_protocols").mkdir()
    for protocol, size in zip(sorted((source / "ASVspoof2019_LA_cm_protocols").iterdir()), (6, 6, 8), strict=True):
        lines = protocol.read_text().splitlines()
        bonafide, spoof = ([line for line in lines if line.endswith(key)] for key in ("bonafide", "spoof"))
        chosen = bonafide[: size // 2] + spoof[: size // 2]
        (corpus / "ASVspoof2019_LA_cm_protocols" / protocol.name).write_text("\n".join(chosen) + "\n")
    return corpus


@pytest.mark.slow
def test_the_published_model_trains_on_genuine_speech(real_corpus, tmp_path):
    arguments = ["--config", "config/AASIST-L.conf", "--database_path", real_corpus, "--output_dir", tmp_path]
    done = run_command("main.py", *arguments, "--num_epochs", 2, "--batch_size", 4)
    assert done.returncode == 0, done.stderr
    assert "train has 8 trials, the official partition has 25,380" in done.stderr
    run = tmp_path / "LA_AASIST-L_ep2_bs4"
    model, checkpoint = load_model(run / "weights" / "swa.pth")
    assert sum(p.numel() for p in model.parameters()) == 85_306
    assert checkpoint["dev_min_tdcf"] is not None
    assert len(scored(run, "eval_best")) == 6


@pytest.mark.slow
@pytest.mark.parametrize("name", ["AASIST_rawboost", "RawNet2_baseline", "RawGATST_baseline", "LFCC_LCNN"])
def test_every_config_trains_and_scores_genuine_speech(real_corpus, shared, tmp_path, name):
    arguments = ["--config", f"config/{name}.conf", "--database_path", real_corpus, "--output_dir", tmp_path]
    more = ["--eval_sets", f"folder:{shared / 'data' / 'LA21_mini'}"] if name == "LFCC_LCNN" else []
    done = run_command("main.py", *arguments, "--num_epochs", 1, "--batch_size", 4, *more)
    assert done.returncode == 0, done.stderr
    run = tmp_path / f"LA_{name}_ep1_bs4"
    assert len(scored(run, "eval_swa")) == 6
    assert not more or len(scored(run, "LA21_mini_swa")) == 30


SMALL_MODELS = {  # of the demo's size: model_config, batch size, epochs
    "RawNet2Spoof": (
        {
            "first_conv": 128, "filts": [20, [20, 20], [20, 32], [32, 32]], "blocks": [2, 4], "nb_fc_node": 64,
            "gru_node": 64, "nb_gru_layer": 1,
        },
        12,
        5,
    ),
    "RawNetGatSpoofST": ({"first_conv": 128, "filts": [18, [1, 6], [6, 8], [8, 32], [32, 32]]}, 6, 9),
    "LFCC_LCNN": ({"channels": [8, 12, 16, 8]}, 12, 8),
    "Ensemble": (
        {"members": [{"architecture": "LFCC_LCNN", "channels": [8, 12, 16, 8], **more} for more in (
            {}, {"nb_filters": 24, "highest": 4000, "deltas": "channels"})]},
        24,
        12,
    ),
}  # fmt: skip


@pytest.fixture(scope="session")
def demo_corpus(tmp_path_factory) -> Path:
    """As config/demo.conf has it, but for eval, which is small."""
    folder = tmp_path_factory.mktemp("corpus") / "demo"
    done = run_command("demo_corpus.py", "--output_dir", folder, "--utterances", "240", "100", "13")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("architecture", SMALL_MODELS)
def test_every_model_learns_the_demo_corpus(demo_corpus, tmp_path, architecture):
    model, batch_size, epochs = SMALL_MODELS[architecture]
    changes = {
        "model_config": {"architecture": architecture, "nb_samp": 16_000} | model,
        "optim_config": {"base_lr": 2e-3, "lr_min": 4e-5},
        "class_weights": [0.5, 0.5],
        "swa": {"last": 2},
        "freq_aug": False,
    }
    run = train_mini(tmp_path, demo_corpus, batch_size=batch_size, num_epochs=epochs, **changes)
    assert load_checkpoint(run / "weights" / "swa.pth")["dev_eer"] <= 0.15


@pytest.mark.slow
def test_fine_tuning_keeps_what_the_official_weights_know(real_corpus, shared, tmp_path, monkeypatch):
    monkeypatch.setenv("AASIST_WEIGHTS", str(shared / "fixtures" / "weights"))
    arguments = ["--config", "config/AASIST.conf", "--database_path", real_corpus, "--output_dir", tmp_path]
    done = run_command("main.py", *arguments, "--num_epochs", 1, "--batch_size", 4, "--init", "AASIST")
    assert done.returncode == 0, done.stderr
    assert load_checkpoint(tmp_path / "LA_AASIST_ep1_bs4" / "weights" / "best.pth")["dev_eer"] <= 0.02


@pytest.mark.slow
def test_ways_of_reading_and_resuming_are_one_run_on_genuine_speech(real_corpus, tmp_path):
    """2 epochs with each cache, workers, a kill: the same bits; likewise in parts, whose batch norm sees the parts."""
    model = {"model_config": TINY_MODEL | {"nb_samp": 16_000}, "batch_size": 4}
    packs = ["--cache_path", tmp_path / "packed"]
    ways = {"mmap": ["--cache", "mmap", *packs], "workers": ["--num_workers", 2], "ram": ["--cache", "ram", *packs]}
    kill = on_step(4, "os.kill(os.getpid(), signal.SIGKILL)")
    for parts, names in ((1, ways), (2, ["ram"])):
        changes = {**model, "accumulation_steps": parts}
        reference = train_mini(tmp_path / f"{parts}", real_corpus, **changes)
        for name in names:
            run = train_mini(tmp_path / f"{parts}_{name}", real_corpus, *ways[name], **changes)
            assert_same_run(run, reference)
        folder = tmp_path / f"{parts}_resumed"
        arguments = mini(folder, real_corpus, **changes, save_every_steps=1)
        assert Command(folder, "main.py", *arguments, prelude=kill).wait().returncode == -signal.SIGKILL
        done = Command(folder, "main.py", "--resume", the_run(folder)).wait()
        assert done.returncode == 0, done.stderr
        assert_same_run(the_run(folder), reference)


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


# --------------------------------------------------------------------------------------------------- bad input


PAIR = {
    "architecture": "Ensemble",
    "nb_samp": 8000,
    "members": [{"architecture": "LFCC_LCNN", "nb_filters": filters} for filters in (20, 40)],
}


def attempt(folder: Path, corpus: Path, *arguments: object, **changes) -> subprocess.CompletedProcess:
    config = write_config(folder, **changes)
    out = folder / "out"
    done = run_command("main.py", "--config", config, "--database_path", corpus, "--output_dir", out, *arguments)
    assert not out.exists() or not any(out.iterdir()), "left something half-written"
    return done


@pytest.mark.parametrize(
    ("arguments", "changes", "words"),
    [
        ([], {"batchsize": 3}, ["tiny.conf", "expected 'batch_size'", "found 'batchsize'"]),
        ([], {"batch_size": 25}, ["batch_size is too large", "24 training trials", "found 25"]),
        ([], {"model_config": TINY_MODEL | {"architecture": "AASISTT"}}, ["one of AASIST", "'AASISTT'"]),
        ([], {"asv_score_path": "none.txt"}, ["none.txt"]),
        (["--database_path", "/nowhere"], {}, ["no data set at /nowhere"]),
        (["--num_epochs", 0], {}, ["num_epochs", "1 or more"]),
        (["--epochs", 3], {}, ["unrecognized arguments"]),
        (["--comment", "a/b"], {}, ["no slashes"]),
        (["--eval"], {}, ["--eval needs weights"]),
        (["--init", "/nowhere.pth"], {}, ["cannot read checkpoint /nowhere.pth"]),
        (["--resume"], {}, ["cannot read config", "config.conf"]),
        (["--resume", "/nowhere"], {}, ["cannot read config /nowhere/config.conf"]),
        (["--resume", "/nowhere", "--seeds", 1], {}, ["--resume goes with none of", "--seeds"]),
        (["--seeds", 1, 1], {}, ["--seeds", "different numbers"]),
        (["--seeds", 1, "--seed", 1], {}, ["--seed, --seeds and --runs", "give one"]),
        (["--seeds", 1, "--runs", 1], {}, ["--seed, --seeds and --runs", "give one"]),
        (["--runs", 0], {}, ["--runs", "expected 1 or more, found 0"]),
        (["--cache", "gpu", "--device", "cpu"], {}, ["cache 'gpu'", "a CUDA device", "found cpu"]),
        ([], {"accumulation_steps": 4}, ["batch_size", "a multiple of accumulation_steps"]),
        ([], {"model_config": PAIR, "batch_size": 3}, ["batch_size", "4 or more in each micro-batch", "found 3"]),
    ],
)
def test_mistakes(tmp_path, tiny_corpus, arguments, changes, words):
    assert_user_error(attempt(tmp_path, tiny_corpus, *arguments, **changes), *words)


def test_no_config_given():
    assert_user_error(run_command("main.py"), "--config FILE")


def test_weights_of_another_architecture(tmp_path, tiny_corpus, shared):
    for flags in (["--init"], ["--eval", "--eval_model_weights"]):
        done = attempt(tmp_path, tiny_corpus, *flags, shared / "fixtures" / "weights" / "AASIST.pth")
        assert_user_error(done, "AASIST.pth", "another architecture", "expected", "found")


def test_data_is_checked(tiny_corpus, tmp_path):
    """--check_data reports on the configured data set; nothing is written."""
    arguments = ["--check_data", "--num_workers", 2]
    done = Command(tmp_path, "main.py", *mini(tmp_path, tiny_corpus), *arguments).wait()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("no problems, ")

    corpus = shutil.copytree(tiny_corpus, tmp_path / "LA")
    missing, cut = sorted(corpus.glob("ASVspoof2019_LA_dev/flac/*.flac"))[:2]
    missing.unlink()
    cut.write_bytes(cut.read_bytes()[:9000])
    done = Command(tmp_path, "main.py", *mini(tmp_path, corpus), *arguments).wait()
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1].startswith("2 problems, ")
    assert missing.name in done.stdout and cut.name in done.stdout
    assert not (tmp_path / "runs").exists()


def break_corpus(corpus: Path, kind: str) -> str:
    """Damage the training partition; returns a word that the error must hold."""
    protocol = next(corpus.glob("*/*.train.trn.txt"))
    lines = protocol.read_text().splitlines()
    path = next(corpus.glob("ASVspoof2019_LA_train/flac/*.flac"))
    if kind == "missing file":
        path.unlink()
    elif kind == "empty flac":
        path.write_bytes(b"")
    elif kind == "truncated flac":
        path.write_bytes(path.read_bytes()[:9000])
    elif kind == "four columns":
        protocol.write_text("\n".join([lines[0].replace(" - ", " ", 1), *lines[1:]]))
        return "line 1"
    elif kind == "duplicate utterance":
        protocol.write_text("\n".join([*lines, lines[3]]))
        return "is listed twice"
    return path.stem


@pytest.mark.parametrize(
    "kind", ["missing file", "empty flac", "truncated flac", "four columns", "duplicate utterance"]
)
def test_broken_corpora(tmp_path, tiny_corpus, kind):
    shutil.copytree(tiny_corpus, tmp_path / "LA")
    word = break_corpus(tmp_path / "LA", kind)
    assert_user_error(attempt(tmp_path, tmp_path / "LA"), word)


def test_other_rate_and_channels_are_read_not_refused(tmp_path, tiny_corpus):
    shutil.copytree(tiny_corpus, tmp_path / "LA")
    path = next((tmp_path / "LA").glob("ASVspoof2019_LA_train/flac/*.flac"))
    samples, _ = soundfile.read(path)
    soundfile.write(path, np.stack([samples, samples], axis=1), 44_100)
    train(tmp_path / "runs", tmp_path / "LA", num_epochs=1)


def test_corpus_without_asv_scores_trains_without_tdcf(tmp_path, tiny_corpus):
    shutil.copytree(tiny_corpus, tmp_path / "LA")
    shutil.rmtree(tmp_path / "LA" / "ASVspoof2019_LA_asv_scores")
    run = train(tmp_path / "runs", tmp_path / "LA", num_epochs=1)
    assert load_checkpoint(run / "weights" / "best.pth")["dev_min_tdcf"] is None


def test_of_two_runs_that_want_one_folder_one_is_refused(tmp_path, tiny_corpus):
    """Both come to it at the same moment, as two jobs of an array do that differ in nothing but --seed."""
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
