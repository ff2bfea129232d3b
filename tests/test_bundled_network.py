"""benchmarks/bundled_network.py: what it draws, and a short training on real clips."""

import argparse
import csv
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT

sys.path.append(str(ROOT / "benchmarks"))  # last: benchmarks have the names of packages
import bundled_network
from bundled_network import LONGEST, PROMPT_WEIGHT, Clips, batch, train
from generalise import broad, write_list

from common.errors import UserError
from config import load_config
from metrics.scores import BONAFIDE, SPOOF
from training.batch_augmentation import griffin_lim, rephased
from utils import load_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def lists(shared, tmp_path_factory):
    """Of 40 clips of `broad`, and ten bona fide ones as prompts."""
    folder, clips = tmp_path_factory.mktemp("lists"), broad(shared / "data" / "broad")
    bonafide = [clip for clip in clips if clip.label == "bonafide"]
    spoof = [clip for clip in clips if clip.label == "spoof"]
    chosen = bonafide[:20] + spoof[:5] + spoof[-15:]
    write_list(folder / "fold_1.csv", [(clip, "train") for clip in chosen] + [(bonafide[-1], "eval")])
    write_list(folder / "prompts.csv", [(clip, "train") for clip in bonafide[100:110]])
    return folder


@pytest.fixture(scope="module")
def clips(lists):
    return Clips.read(lists, "1", CPU)


def test_each_half_has_its_class_and_groups_weigh_as_their_root(clips, lists):
    torch.manual_seed(0)
    with (lists / "fold_1.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["partition"] == "train"]
    assert clips.samples.shape == (50, LONGEST) and len(clips.length) == 50
    bonafide, spoof = (clips.draw(kind, 20_000).bincount(minlength=50).numpy() for kind in (BONAFIDE, SPOOF))
    assert not spoof[:20].any() and not spoof[40:].any() and not bonafide[20:40].any()
    groups = np.array([f"{row['source']} {row['attack']}" for row in rows])[20:]
    share = {group: spoof[20:40][groups == group].sum() / 20_000 for group in groups}
    root = {group: (groups == group).sum() ** 0.5 for group in groups}
    for group, found in share.items():
        assert found == pytest.approx(root[group] / sum(root.values()), abs=0.02)
    assert 0.5 * PROMPT_WEIGHT < bonafide[40:].mean() / bonafide[:20].mean() < 2 * PROMPT_WEIGHT


def test_crops_lie_in_their_clips_and_short_clips_repeat(clips):
    rows = torch.tensor([0, 0, 7])
    length = int(clips.length[0])
    crops = clips.crops(rows, length + 100)
    assert crops.shape == (3, length + 100) and crops.abs().max() <= 1
    torch.testing.assert_close(crops[0, :100], crops[0, length:])
    torch.testing.assert_close(crops[0, :length], clips.samples[0, :length].float() / 32768)


def test_a_fold_that_is_tested_with_griffin_lim_has_other_copies(clips, lists, shared, tmp_path):
    """No family of generators lies on both sides of a fold, copies included."""
    assert clips.vocoders == (rephased, griffin_lim)
    chosen = broad(shared / "data" / "broad")
    of_family = next(clip for clip in chosen if "Griffin-Lim" in clip.families)
    train_rows = [(clip, "train") for clip in chosen[:40] if clip != of_family]
    write_list(tmp_path / "fold_2.csv", [*train_rows, (of_family, "eval")])
    strict = Clips.read(tmp_path, "2", CPU)
    assert strict.vocoders == (rephased,)
    x = batch(strict, replace(load_config(str(ROOT / "config" / "SE_ResNet.conf")), batch_size=8))
    assert len(x) == 8 and x.isfinite().all()


def test_a_short_training(clips, lists, monkeypatch):
    """Two steps of the recipe with a small batch: a checkpoint that loads, and that is left out the next time."""
    config = (ROOT / "config" / "SE_ResNet.conf").read_text()
    small = config.replace("batch_size: 128", "batch_size: 8").replace(
        "architecture: SE_ResNet", "architecture: SE_ResNet\n  channels: [8, 16]\n  hidden: 8"
    )
    (lists / "small.conf").write_text(small)
    args = argparse.Namespace(output=lists, config=str(lists / "small.conf"), device="cpu", steps=2)
    x = batch(clips, load_config(args.config))
    assert x.shape[0] == 8 and 19_000 < x.shape[1] < 52_000 and x.isfinite().all()
    train(args, "1")
    model, checkpoint = load_model(lists / "network_1.pth")
    assert checkpoint["steps"] == 2 and model(torch.randn(1, 64_600))[1].isfinite().all()
    with pytest.raises(UserError, match="all.csv"):
        train(args, "all")
    monkeypatch.setattr(bundled_network, "train", lambda args, part: pytest.fail("trained again"))
    monkeypatch.setattr(sys, "argv", ["bundled_network.py", "--output", str(lists), "--parts", "1"])
    bundled_network.main()
