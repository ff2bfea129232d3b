"""The folds of benchmarks/generalise.py: nothing that a fold is tested with was heard in its training."""

import csv
import sys

import numpy as np
import pytest
from conftest import ROOT

sys.path.append(str(ROOT / "benchmarks"))  # last: benchmarks have the names of packages
import held_out_card
from generalise import (
    FOLDS,
    Clip,
    HeldOut,
    all_clips,
    calibrated,
    held_out,
    main,
    measures,
    who,
    write_fold_scores,
    write_folds,
)


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


@pytest.fixture(scope="module")
def scored(folds):
    """Scores by two seeds: A04 passes for bona fide speech, all else is told apart; one source is called spoof."""
    for fold in range(FOLDS):
        held = held_out(folds, fold)
        for seed in (0, 1):
            noise = np.random.default_rng(10 * fold + seed).normal(size=len(held.trials))
            label = held.is_bonafide()
            swapped = [
                t.attack == "A04" or (own and t.source == "FS2") for t, own in zip(held.trials, label, strict=True)
            ]
            label = label ^ np.array(swapped)
            write_fold_scores(folds, "made", fold, held, noise + 8 * label, seed)
    return folds


def test_seeds_of_a_system_share_a_row(scored, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["generalise.py", "--output", str(scored), "report"])
    main()
    assert "| made | 2 × 5 |" in capsys.readouterr().out


def test_the_tables_of_the_card(scored, monkeypatch, capsys):
    argv = ["held_out_card.py", "--output", str(scored), "--system", "made", "--seed", "1", "--resamples", "20"]
    monkeypatch.setattr(sys, "argv", argv)
    held_out_card.main()
    sets, generators, sources, worst = (table.splitlines() for table in capsys.readouterr().out.strip().split("\n\n"))
    assert sets[2].startswith("| all | 1900 | 2184 | ") and sets[3].startswith("| /broad/ | 925 | 1184 | ")
    eers = [int(row.split("|")[3].split("(")[0]) for row in generators[2:]]
    assert generators[2].startswith("| A04 | 21 | ") and eers[0] > 45 and max(eers[1:]) < 20
    assert sources[2] == "| FastSpeech2 demo (LJSpeech) | 30 | 100 |"
    assert all(int(row.split("|")[3]) < 5 for row in sources[3:])
    assert len(worst) == 2 + 16 and all("FastSpeech2 demo" in row for row in worst[2:10])
    assert all("| spoof | A04 |" in row for row in worst[10:])
