"""The folds of benchmarks/generalise.py: nothing that a fold is tested with was heard in its training."""

import csv
import sys

import numpy as np
import pytest
from conftest import ROOT

sys.path.append(str(ROOT / "benchmarks"))  # last: benchmarks have the names of packages
from generalise import FOLDS, Clip, HeldOut, all_clips, calibrated, measures, who, write_folds


@pytest.fixture(scope="module")
def folds(shared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("folds")
    write_folds(shared / "data", folder)
    return folder


def rows(folder, fold: int) -> list[dict]:
    with (folder / f"fold_{fold}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_clip_is_held_out_once(folds, shared):
    held = [row["path"] for fold in range(FOLDS) for row in rows(folds, fold) if row["partition"] == "eval"]
    assert len(held) == len(set(held)) == len(all_clips(shared / "data")) == 4084


@pytest.mark.parametrize("fold", range(FOLDS))
def test_nothing_lies_on_both_sides(folds, fold):
    sides: dict[bool, dict[str, set]] = {held: {"source": set(), "speaker": set(), "family": set()} for held in (0, 1)}
    for row in rows(folds, fold):
        side = sides[row["partition"] == "eval"]
        clip = Clip(row["path"], row["label"], row["speaker"], row["attack"], row["source"])
        side["source"].add(clip.source)
        side["speaker"].add(clip.speaker)
        side["family"] |= clip.families
    for name in ("source", "speaker", "family"):
        assert not (sides[0][name] & sides[1][name]) - {""}, name
        assert sides[0][name] and sides[1][name]
    both = [
        {row["label"] for row in rows(folds, fold) if row["partition"] == part} for part in ("train", "dev", "eval")
    ]
    assert all(labels == {"bonafide", "spoof"} for labels in both)


def test_prompts_are_no_part_of_a_fold(shared, tmp_path):
    """They are listed apart, for training alone, and each person's recordings are a source of their own."""
    write_folds(shared / "data", tmp_path, shared / "data" / "broad")
    with (tmp_path / "prompts.csv").open(newline="") as file:
        listed = list(csv.DictReader(file))
    sources = {(row["source"], row["speaker"]) for row in listed}
    assert len(listed) == 2109 and {row["partition"] for row in listed} == {"train"}
    assert {speaker for _, speaker in sources} == {""} and len(sources) > 100
    held = [row for fold in range(FOLDS) for row in rows(tmp_path, fold) if row["partition"] == "eval"]
    assert len(held) == 4084


def test_generators_and_speakers_of_one_kind_have_one_name():
    def families(attack: str) -> set[str]:
        return set(Clip("x", "spoof", "", attack, "s").families)

    assert families("hifigan_v2") == families("HiFi-GAN") == {"HiFi-GAN"}
    assert families("Tacotron2+Griffin-Lim") == {"Tacotron", "Griffin-Lim"}
    assert families("Piper-VITS") == families("MMS-TTS") == {"VITS"}
    assert families("lyra_6k") == families("Lyra-v2") and families("Spark-TTS") == {"Spark-TTS"}
    assert not Clip("x", "bonafide", "", "-", "s").families
    assert who("Libri-1995", "a", "") == who("LS_1995", "b", "") == "1995" and who("VCTK-p239", "a", "") == "p239"
    assert who("", "a", "wavs/LJ050-0131.wav") == "LJ" and who("anna", "a", "") == "a/anna" and who("", "a", "") == ""


def made(seed: int, shift: float) -> HeldOut:
    rng, label = np.random.default_rng(seed), np.arange(400) % 2 == 0
    attack = np.where(label, "-", np.where(np.arange(400) % 4 == 1, f"easy{seed}", f"hard{seed}"))
    distance = np.where(label, 0, np.where(attack == f"easy{seed}", 6.0, 0.5))
    source = np.where(np.arange(400) % 8 == 0, "quiet", "loud")
    return HeldOut(shift + rng.normal(size=400) - distance, label, attack, source)


def test_measures_of_scores():
    folds = [made(seed, 0.0) for seed in range(3)]
    found = measures(folds)
    assert len(found["EER"]) == len(found["Cllr"]) == 3
    assert found["worst quarter"][0] > 35 > found["mean generator"][0] and all(10 < eer < 35 for eer in found["EER"])
    assert 0 <= found["definite wrong"][0] < 20 and found["worst source"][0] < 60


def test_a_fold_is_calibrated_by_the_others():
    """A fold whose scores lie elsewhere gets LLRs that show it, since its own scores calibrate nothing."""
    llr = calibrated([made(0, 0.0), made(1, 0.0), made(2, 50.0)])
    assert llr[2].min() > 0 and np.isfinite(llr[0]).all()
