"""A run that is killed at any moment, however often, ends with the bits of one that was not; full disks, NaN."""

import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import (
    MINI,
    ROOT,
    assert_same_run,
    assert_user_error,
    events,
    mini,
    run_command,
    the_run,
    train_mini,
)
from forks import Command, on_step

import resume_training
from common.errors import UserError
from common.processes import Processes
from config import Config, load_config, save_config
from corpora.asvspoof import read_protocol
from corpora.balance import epoch_batches
from metrics.score_files import read_scores
from training.state import TrainingState
from utils import load_checkpoint

KILL = "os.kill(os.getpid(), signal.SIGKILL)"
EPOCHS, KILLS = 25, 25  # of the run that is killed and killed


@pytest.fixture(scope="module")
def finished(tiny_corpus, tmp_path_factory) -> Path:
    """A finished run of two epochs of four steps. Tests must not change it."""
    return train_mini(tmp_path_factory.mktemp("finished"), tiny_corpus)


@pytest.fixture(scope="module")
def killed(tiny_corpus, tmp_path_factory) -> Path:
    """The same run, killed before its sixth step. Tests must not change it."""
    return kill_at(tmp_path_factory.mktemp("killed"), tiny_corpus, on_step(6, KILL))


def kill_at(folder: Path, corpus: Path, prelude: str, *arguments: object, **changes) -> Path:
    """A run that its prelude kills."""
    done = Command(folder, "main.py", *mini(folder, corpus, **changes), *arguments, prelude=prelude).wait()
    assert done.returncode == -signal.SIGKILL, done.stderr
    return the_run(folder)


def progress(run: Path) -> tuple[int, int]:
    """Epochs, and batches of the next one, that last.pth has."""
    found = load_checkpoint(run / "weights" / "last.pth")["progress"]
    return found["epoch"], found["step"]


def resume(
    folder: Path, run: Path, *arguments: object, script: str = "resume_training.py", prelude: str = ""
) -> Command:
    given = [run] if script == "resume_training.py" else ["--resume", run]
    return Command(folder, script, *given, *arguments, prelude=prelude)


def finish(command: Command) -> None:
    done = command.wait()
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------------------------------------------------ kills


def unfinished_saves(run: Path) -> list[Path]:
    return list((run / "weights").glob(".*.pth.*"))


def wait_to_kill(command: Command, run: Path, rng: random.Random, startup: float, step: float) -> None:
    """Wait for a random moment while the run starts, while it trains, or while it writes a checkpoint.

    startup, step: how many seconds these take.
    """
    kind, before = rng.choice(["start", "train", "write"]), log_size(run)
    if kind == "start":
        time.sleep(rng.uniform(0, startup + 2 * step))
        return
    command.until(lambda: log_size(run) != before and (run / "config.conf").exists())
    if kind == "train":
        time.sleep(rng.uniform(0, 4 * step))
    for _ in range(rng.randint(1, 3) if kind == "write" else 0):
        command.until(lambda: not unfinished_saves(run))
        command.until(lambda: unfinished_saves(run))


def log_size(run: Path) -> int:
    return (run / "log.jsonl").stat().st_size if (run / "log.jsonl").exists() else 0


@pytest.mark.slow
def test_25_kills_at_random_moments_change_nothing(finished, tiny_corpus, tmp_path):
    changes = {"save_every_steps": 1, "num_epochs": EPOCHS, "ema_decay": 0.9, "swa": {"last": 5}}
    began = time.time()
    whole = train_mini(tmp_path / "whole", tiny_corpus, **changes)
    startup, step = events(whole, "start")[0]["time"] - began, events(whole, "epoch")[-1]["seconds"] / EPOCHS / 4
    arguments = mini(tmp_path / "killed", tiny_corpus, **changes)
    run = tmp_path / "killed" / "runs" / whole.name
    rng, while_writing, reached = random.Random(1), 0, (0, 0)
    command = Command(tmp_path, "main.py", *arguments)
    for kill in range(KILLS):
        wait_to_kill(command, run, rng, startup, step)
        command.kill()
        assert command.wait().returncode == -signal.SIGKILL, "it ended before it could be killed"
        while_writing += bool(unfinished_saves(run))
        if (run / "config.conf").exists():
            assert progress(run) >= reached
            reached = progress(run)
            command = resume(tmp_path, run, script=("main.py", "resume_training.py")[kill % 2])
        else:
            command = Command(tmp_path, "main.py", *arguments)
    finish(command)
    print(f"{while_writing} of {KILLS} kills while a checkpoint was written; then at {reached} of {EPOCHS} epochs")
    assert while_writing >= 5
    assert_same_run(run, whole)
    lines = (run / "metric_log.txt").read_text().splitlines()
    assert [line.split("/")[0].strip() for line in lines[1:]] == [str(epoch) for epoch in range(1, EPOCHS + 1)]


# {moment: (function, number)}: the run is killed when it calls this function for the number-th time.
MOMENTS = {
    "before the folder counts": ("training.folder.save_config", 1),
    "between last.pth's bytes and its name": ("pathlib.Path.replace", 3),  # after the first and config.conf
    "before best.pth": ("training.folder.save_checkpoint", 3),
    "after an epoch, before last.pth": ("training.state.TrainingState.save", 2),
    "in the means' batch norm": ("training.swa.update_bn", 1),
    "before eval is reported": ("training.data.RunData.report", 1),
    "before the end is logged": ("training.data.RunData.report", 2),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_at_every_kind_of_moment(finished, tiny_corpus, tmp_path, moment):
    name, number = MOMENTS[moment]
    owner, function = name.rsplit(".", 1)
    prelude = f"""
import os, pathlib, signal
import training.run
real, calls = {name}, 0
def counted(*arguments, **options):
    global calls
    calls += 1
    if calls == {number}:
        {KILL}
    return real(*arguments, **options)
{owner}.{function} = counted
"""
    run = kill_at(tmp_path, tiny_corpus, prelude)
    load_checkpoint(run / "weights" / "last.pth")
    if (run / "config.conf").exists():
        finish(resume(tmp_path, run))
    else:
        finish(Command(tmp_path, "main.py", *mini(tmp_path, tiny_corpus)))
    assert_same_run(run, finished)


CACHES = [("off", 2), ("mmap", 0), ("ram", 2)]


@pytest.mark.parametrize(("cache", "workers"), CACHES)
def test_within_an_epoch_and_wherever_samples_come_from(finished, tiny_corpus, tmp_path, cache, workers):
    """Killed in the middle of an epoch and resumed: the bits of an uninterrupted run without cache and workers."""
    options = ["--cache", cache, "--cache_path", tmp_path / "packed", "--num_workers", workers]
    run = kill_at(tmp_path, tiny_corpus, on_step(8, KILL), *options, save_every_steps=3)
    assert progress(run) == (1, 3)
    assert len(events(run, "epoch")) == 1
    finish(resume(tmp_path, run, *options))
    assert_same_run(run, finished)
    assert (tmp_path / "packed").exists() == (cache != "off")


def test_without_saves_within_it_an_epoch_is_done_again(killed, finished, tmp_path):
    run = shutil.copytree(killed, tmp_path / "run")
    assert progress(run) == (1, 0)
    finish(resume(tmp_path, run))
    assert_same_run(run, finished)


# ------------------------------------------------------------------------------------------------- older versions

OLD_RUN = ROOT / "tests" / "data" / "run_of_an_older_version.zip"  # from before the modules moved into packages


def test_a_run_of_an_older_version_is_resumed_to_the_same_result(tiny_corpus, tmp_path):
    """The zip holds the folder of a run that was killed before its sixth step of eight, and how that version ended it.

    The results are equal within 1e-4, since processors round differently. Where the older version's first epoch has the
    bits of this machine, so has the end.
    """
    with zipfile.ZipFile(OLD_RUN) as archive:
        archive.extractall(tmp_path)
    run, end = tmp_path / "killed", tmp_path / "end"
    assert progress(run) == (1, 1)
    first = events(run, "epoch")[0]["loss"]
    whole = the_run_of(tmp_path / "whole", "--config", run / "config.conf", "--database_path", tiny_corpus)
    finish(resume(tmp_path, run, "--database_path", tiny_corpus))

    for name in ("dev_best", "dev_swa", "eval_best", "eval_swa"):
        found, expected, uninterrupted = (read_scores(one / "scores" / f"{name}.txt") for one in (run, end, whole))
        assert found.utt_id.tolist() == expected.utt_id.tolist()
        np.testing.assert_allclose(found.score, expected.score, rtol=0, atol=1e-4)
        np.testing.assert_allclose(found.score, uninterrupted.score, rtol=0, atol=1e-4)
    losses = [[event["loss"] for event in events(one, "epoch")] for one in (run, end, whole)]
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-4)
    if losses[2][0] == first:
        assert_same_run(run, whole)


def the_run_of(folder: Path, *arguments: object) -> Path:
    """A finished run with these arguments of main.py."""
    folder.mkdir()
    finish(Command(folder, "main.py", *arguments, "--output_dir", folder / "runs"))
    return the_run(folder)


# ----------------------------------------------------------------------------------------------------- other faults


def test_full_disk(finished, tiny_corpus, tmp_path):
    """One line of error. The last save still loads, and the run resumes to the same bits when there is room again."""
    full = """
import resource
from training import folder
save, calls = folder.save_checkpoint, 0
def counted(path, fields):
    global calls
    calls += 1
    if calls == 8:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    save(path, fields)
folder.save_checkpoint = counted
"""
    done = Command(tmp_path, "main.py", *mini(tmp_path, tiny_corpus, save_every_steps=1), prelude=full).wait()
    run = the_run(tmp_path)
    assert_user_error(done, f"cannot write {run}/weights/", "File too large")
    assert "File too large" in events(run, "error")[0]["message"]
    assert not unfinished_saves(run) and progress(run) > (0, 3)
    finish(resume(tmp_path, run))
    assert_same_run(run, finished)


def test_full_disk_for_the_log_as_well(tiny_corpus, tmp_path):
    full = on_step(7, "__import__('resource').setrlimit(__import__('resource').RLIMIT_FSIZE, (500, 500))")
    done = Command(tmp_path, "main.py", *mini(tmp_path, tiny_corpus, save_every_steps=1), prelude=full).wait()
    assert_user_error(done, "cannot write", "last.pth", "File too large")
    assert progress(the_run(tmp_path)) == (1, 2)


@pytest.mark.parametrize("save_every_steps", [0, 1])
def test_divergence_names_the_batch(tiny_corpus, tmp_path, save_every_steps):
    """The folder stays, with the error in its log, if there is progress in it."""
    changes = {"optim_config": {"base_lr": 1e30}, "save_every_steps": save_every_steps}
    done = Command(tmp_path, "main.py", *mini(tmp_path, tiny_corpus, **changes)).wait()
    assert_user_error(done, "training diverged in epoch 1, step 2 — expected a finite loss, found none, in the batch ")
    names = done.stderr.splitlines()[-1].split("in the batch ")[1].split()
    trials = read_protocol(next(tiny_corpus.glob("*/*.train.trn.txt")))
    indices = epoch_batches(trials, Config(model_config={}, batch_size=MINI["batch_size"]), epoch=0)[1]
    assert names == [trials[index].utt_id for index in indices]
    if save_every_steps:
        assert names[0] in events(the_run(tmp_path), "error")[0]["message"]
        assert progress(the_run(tmp_path)) == (0, 1)
    else:
        assert not any((tmp_path / "runs").iterdir())


def test_a_damaged_last_pth_is_said(killed, tmp_path):
    run = shutil.copytree(killed, tmp_path / "run")
    last = run / "weights" / "last.pth"
    last.write_bytes(last.read_bytes()[:5000])
    assert_user_error(resume(tmp_path, run, script="main.py").wait(), "cannot load checkpoint", "last.pth")
    shutil.copy(run / "weights" / "best.pth", last)
    assert_user_error(resume(tmp_path, run, script="main.py").wait(), "cannot resume from", "last.pth")


@pytest.mark.parametrize(
    "change",
    [
        {"progress": 3},
        {"progress": {"epoch": 1}},
        {"progress": {"epoch": "1", "swa_epochs": [], "swa_triggered": False}},
        {"stepper": {}},
        {"stepper": {"optimizer": {"state": {}, "param_groups": []}, "ema": None}},
        {"swa": {"module.out_layer.bias": torch.zeros(2)}},
        {"rng": [{"cpu": torch.zeros(3)}]},
        {"config": {"model_config": {}, "seed": "x"}},
    ],
)
def test_a_state_of_other_types_is_refused(killed, tiny_corpus, change):
    config, path = load_config(killed / "config.conf"), killed / "weights" / "last.pth"
    trials = read_protocol(next(tiny_corpus.glob("*/*.train.trn.txt")))
    state = TrainingState(config, trials, torch.device("cpu"), Processes(timedelta(1)))
    state.restore(load_checkpoint(path), path)
    with pytest.raises(UserError):
        state.restore(load_checkpoint(path) | change, path)


# ----------------------------------------------------------------------------------------------------- the command


def test_a_run_is_found_by_any_of_its_files(killed, tmp_path):
    for given in (killed, killed / "weights" / "last.pth", killed / "scores", killed / "log.jsonl"):
        assert resume_training.find_run(str(given)).samefile(killed)
    with pytest.raises(UserError, match="no run at .*nowhere"):
        resume_training.find_run(str(tmp_path / "nowhere"))


def test_the_newest_unfinished_run_is_found(killed, finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="nothing to resume .* found no run"):
        resume_training.find_run(None)
    shutil.copytree(finished, "exp_result/finished")
    with pytest.raises(UserError, match="nothing to resume .* found finished runs only"):
        resume_training.find_run(None)
    for name in ("older", "newer"):
        shutil.copytree(killed, f"exp_result/{name}")
        (tmp_path / "exp_result" / name / "weights" / "last.pth").touch()
        time.sleep(0.01)
    shutil.copytree(killed, "exp_result/nothing_saved")
    Path("exp_result/nothing_saved/weights/last.pth").unlink()
    Path("exp_result/LA_seeds").mkdir()
    assert resume_training.find_run(None) == Path("exp_result/newer")


def test_options_are_passed_on(killed, finished, tiny_corpus, tmp_path):
    """The data set has moved, and its samples are now kept in memory."""
    run, corpus = shutil.copytree(killed, tmp_path / "run"), shutil.copytree(tiny_corpus, tmp_path / "moved")
    options = ["--database_path", corpus, "--cache", "ram", "--cache_path", tmp_path / "packed", "--device", "cpu"]
    command = resume(tmp_path, run / "weights" / "last.pth", *options)
    finish(command)
    assert f"resuming {run.resolve()}\n" in command.read(1) and "note: packing 24 utterances" in command.read(1)
    assert_same_run(run, finished)


def test_mistakes_are_one_line(killed, tmp_path):
    done = run_command("resume_training.py", tmp_path / "nowhere")
    assert_user_error(done, "no run at", "a run folder, with its config.conf")
    done = resume(tmp_path, killed, "--seed", 7).wait()
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: bad value of 'seed' — expected the run's 1234, found 7"


def test_an_edited_configuration_is_refused_and_named(killed, tmp_path):
    run = shutil.copytree(killed, tmp_path / "run")
    config, before = load_config(run / "config.conf"), (run / "log.jsonl").read_bytes()
    optim = replace(config.optim_config, base_lr=0.5)
    edited = {"seed": 7, "batch_size": 4, "num_epochs": 3, "class_weights": (0.5, 0.5), "optim_config": optim}
    save_config(replace(config, **edited, num_workers=1), run / "config.conf")
    then = "expected optim_config.base_lr 0.001, batch_size 6, num_epochs 2, class_weights [0.1, 0.9], seed 1234"
    now = "found optim_config.base_lr 0.5, batch_size 4, num_epochs 3, class_weights [0.5, 0.5], seed 7 in config.conf"
    done = resume(tmp_path, run, script="main.py").wait()
    assert_user_error(done, "last.pth is of a run with another configuration", then, now)
    assert (run / "log.jsonl").read_bytes() == before


def test_eval_of_the_best_epochs_that_was_stopped_is_made_up_for(tiny_corpus, tmp_path):
    """Ctrl-C in the report of the first epoch."""
    whole = train_mini(tmp_path / "whole", tiny_corpus, eval_all_best=True)
    prelude = """
import os, signal
from training.run import TrainingRun
report, calls = TrainingRun.report_eval, []
def stopped(self, *arguments):
    calls.append(arguments)
    if len(calls) == 1:
        os.kill(os.getpid(), signal.SIGINT)
    return report(self, *arguments)
TrainingRun.report_eval = stopped
"""
    arguments = mini(tmp_path / "stopped", tiny_corpus, eval_all_best=True)
    done = Command(tmp_path / "stopped", "main.py", *arguments, prelude=prelude).wait()
    assert done.returncode == 130, done.stderr
    run = the_run(tmp_path / "stopped")
    assert progress(run) == (1, 0) and not (run / "scores" / "eval_epoch_1.txt").exists()
    finish(resume(tmp_path, run))
    assert_same_run(run, whole)
    assert [e["checkpoint"] for e in events(run, "eval")] == [e["checkpoint"] for e in events(whole, "eval")]


def test_an_options_value_is_no_run(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "resume_training.py", "--device", "cpu"], cwd=tmp_path, capture_output=True, text=True
    )
    assert_user_error(done, "nothing to resume")
