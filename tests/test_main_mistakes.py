"""Mistakes of the user of main.py: one line says what is wrong, and no half-written run is left; --check_data."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import (
    TINY_MODEL,
    assert_user_error,
    mini,
    run_command,
)
from forks import Command
from test_main import PAIR, train, write_config

from utils import load_checkpoint


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
        (["--num_epochs", 0], {}, ["num_epochs", "1 … 10000"]),
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
