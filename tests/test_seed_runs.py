"""main.py --seeds: a run for each seed, the summary and the ensemble; seeds that are finished, stopped or fail."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import (
    assert_same_run,
    mini,
    same,
    scored,
    train_mini,
    weights,
)
from forks import Command, Done, on_step
from test_main import PAIR

from config import load_config
from models import build_model
from training.ensemble import ensemble_of
from utils import load_checkpoint, load_model


@pytest.fixture(scope="module")
def sown(tiny_corpus, tmp_path_factory) -> Path:
    """The folder of a finished --seeds 5 6 with an EMA. Tests must not change it."""
    folder = tmp_path_factory.mktemp("sown")
    done = sow(folder, tiny_corpus)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("best of n is luck") == 1
    assert done.stdout.count("swa.pth, the mean of epochs 2: dev EER ") == 2
    assert done.stdout.count("ema.pth, the mean of steps: dev EER ") == 2
    assert done.stdout.count("weights/ (best.pth, swa.pth, ema.pth), scores/, metrics/\n") == 2
    assert done.stdout.endswith("_seeds/\n")
    return folder


def sow(folder: Path, corpus: Path, *arguments: object, prelude: str = "", **changes) -> Done:
    """Run main.py --seeds 5 6 to its end."""
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
    """The run of the second seed is stopped in its second epoch."""
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
