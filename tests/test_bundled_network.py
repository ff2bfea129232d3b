"""benchmarks/bundled_network.py: what it draws, and a short training on real clips."""

import argparse
import csv
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT

sys.path.append(str(ROOT / "benchmarks"))  # last: benchmarks have the names of packages
import bundled_network
from bundled_network import LONGEST, PROMPT_WEIGHT, Clips, Vocoders, batch, train, train_vocoder
from generalise import broad, write_list

from common.errors import UserError
from config import load_config
from metrics.scores import BONAFIDE, SPOOF
from training.batch_augmentation import griffin_lim, rephased
from training.neural_vocoders import KINDS
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
def vocoders(lists):
    with pytest.MonkeyPatch.context() as smaller:
        smaller.setattr(bundled_network, "VOCODER_BATCH", 2)
        for kind in KINDS:
            train_vocoder(argparse.Namespace(output=lists, device="cpu", vocoder_steps=1), kind)
    return Vocoders.read(lists, "1", CPU)


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


def test_the_prompts_alone(lists):
    prompts = Clips.read(lists, "prompts", CPU)
    assert prompts.samples.shape == (10, LONGEST) and prompts.draw(BONAFIDE, 100).max() < 10


def test_a_fold_that_is_tested_with_griffin_lim_has_no_such_copies(vocoders, lists, shared, tmp_path):
    """No family of generators lies on both sides of a fold, copies included."""
    assert vocoders.signal == (rephased, griffin_lim)
    chosen = broad(shared / "data" / "broad")
    of_family = next(clip for clip in chosen if "Griffin-Lim" in clip.families)
    train_rows = [(clip, "train") for clip in chosen[:40] if clip != of_family]
    write_list(tmp_path / "fold_2.csv", [*train_rows, (of_family, "eval")])
    for file in lists.glob("vocoder_*.safetensors"):
        (tmp_path / file.name).symlink_to(file)
    assert Vocoders.read(tmp_path, "2", CPU).signal == (rephased,)


def test_copies_are_by_several_vocoders(vocoders):
    torch.manual_seed(0)
    heard, x = [], 0.1 * torch.randn(9, 16_000)

    def noted(name):
        return lambda group: heard.append((name, len(group))) or -group

    named = Vocoders(*((noted(f"{kind}{number}"), noted(f"{kind}")) for kind, number in (("signal", 1), ("neural", 1))))
    for _ in range(20):
        torch.testing.assert_close(named.copies(x), -x)
    assert len(heard) == 60 and {length for _, length in heard} == {3} and len({name for name, _ in heard}) == 4
    y = vocoders.copies(x)
    assert y.shape == x.shape and y.isfinite().all() and not y.requires_grad


def test_a_short_training(clips, vocoders, lists, monkeypatch):
    """Two steps of the recipe with a small batch: a checkpoint that loads, and that is left out the next time."""
    config = (ROOT / "config" / "SE_ResNet.conf").read_text()
    small = config.replace("batch_size: 128", "batch_size: 8").replace("[16, 32, 64, 96]", "[8, 16]\n  hidden: 8")
    (lists / "small.conf").write_text(small)
    args = argparse.Namespace(output=lists, config=str(lists / "small.conf"), device="cpu", steps=2)
    x = batch(clips, vocoders, load_config(args.config))
    assert x.shape[0] == 8 and 19_000 < x.shape[1] < 52_000 and x.isfinite().all()
    found = {}
    for seed in (0, 1):
        train(args, "1", seed)
        model, checkpoint = load_model(lists / f"network_1_seed{seed}.pth")
        assert checkpoint["steps"] == 2 and model(torch.randn(1, 64_600))[1].isfinite().all()
        found[seed] = checkpoint["model"]["stem.weight"]
    assert not torch.equal(found[0], found[1])
    with pytest.raises(UserError, match="all.csv"):
        train(args, "all", 0)
    (lists / "copies.csv").touch()
    for name in ("train", "train_vocoder", "write_copies"):
        monkeypatch.setattr(bundled_network, name, lambda *args: pytest.fail("made again"))
    monkeypatch.setattr(
        sys, "argv", ["bundled_network.py", "--output", str(lists), "--parts", "1", "--seeds", "0", "1"]
    )
    bundled_network.main()
