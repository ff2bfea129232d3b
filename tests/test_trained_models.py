"""Every model and configuration trains: on genuine speech, and until it has learnt the demo corpus."""

import signal
from pathlib import Path

import pytest
from conftest import (
    TINY_MODEL,
    assert_same_run,
    mini,
    run_command,
    scored,
    the_run,
    train_mini,
)
from forks import Command, on_step

from utils import load_checkpoint, load_model


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


SMALL_MODELS = {  # {architecture: (model_config, batch size, epochs)}, small enough for the demo corpus
    "RawNet2Spoof": (
        {
            "first_conv": 128, "filts": [20, [20, 20], [20, 32], [32, 32]], "blocks": [2, 4], "nb_fc_node": 64,
            "gru_node": 64, "nb_gru_layer": 1,
        },
        12,
        5,
    ),
    "RawNetGatSpoofST": (
        {"nb_samp": 8000, "first_conv": 128, "filts": [18, [1, 6], [6, 8], [8, 16], [16, 16]]},  # costly for its size
        6,
        9,
    ),
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
    """The corpus of config/demo.conf, with a smaller eval partition."""
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
    """Two epochs with each cache, with workers, and after a kill give the same bits; also with micro-batches."""
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
