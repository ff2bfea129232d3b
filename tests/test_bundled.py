"""benchmarks/bundled.py: which clips and copies the bundled detector's layers learn from, and with what weight."""

import argparse
import sys

import numpy as np
import pytest
import soundfile
from conftest import ROOT
from safetensors.torch import save_file

sys.path.append(str(ROOT / "benchmarks"))  # last: benchmarks have the names of packages
from bundled import COPY_WEIGHTS, PROMPT_WEIGHT, Features, condition_errors
from bundled_network import vocoder_path, write_copies
from generalise import broad, write_list

from audio import reading
from audio.levels import power
from corpora.folders import CsvList
from models.Whisper_Stats import WhisperEncoder
from training.neural_vocoders import KINDS, NeuralVocoder

CLIPS, PROMPTS = 6, 4  # of each class; bona fide ones


@pytest.fixture(scope="module")
def folder(shared, tmp_path_factory):
    """Lists of clips of `broad`, copies by vocoders that learned nothing, a small Whisper and its recipe."""
    folder, clips = tmp_path_factory.mktemp("bundled"), broad(shared / "data" / "broad")
    kinds = {label: [clip for clip in clips if clip.label == label] for label in ("bonafide", "spoof")}
    write_list(folder / "all.csv", [(clip, "train") for kind in kinds.values() for clip in kind[:CLIPS]])
    write_list(folder / "prompts.csv", [(clip, "train") for clip in kinds["bonafide"][-PROMPTS:]])
    for kind in KINDS:
        save_file(NeuralVocoder(kind).state_dict(), vocoder_path(folder, kind))
    write_copies(argparse.Namespace(output=folder, device="cpu"))
    encoder = WhisperEncoder(layers=2, hidden=32, heads=4, mels=80)
    save_file({f"model.encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}, folder / "whisper")
    recipe = (ROOT / "config" / "Whisper-broad.conf").read_text()
    recipe = recipe.replace("experts: 5", "experts: 2\n  hidden: 32\n  heads: 4\n  layers: [1, 2]")
    recipe = recipe.replace("cache: ram", "cache: off").replace("num_workers: 2", "num_workers: 0")
    (folder / "small.conf").write_text(recipe.replace("batch_size: 64", "batch_size: 4"))
    return folder


@pytest.fixture(scope="module")
def features(folder):
    args = argparse.Namespace(output=folder, config=str(folder / "small.conf"), init=str(folder / "whisper"))
    return Features(args, [0, 1])


def test_each_bona_fide_clip_has_a_copy_by_each_neural_vocoder(folder):
    clips, copies = (CsvList(folder / f"{name}.csv").partition("train") for name in ("all", "copies"))
    bonafide = {clips.path(trial).stem: trial for trial in clips.trials if trial.key == "bonafide"}
    assert [trial.attack for trial in copies.trials] == [kind for kind in KINDS for _ in range(CLIPS)]
    for trial in copies.trials:
        original = bonafide[copies.path(trial).stem]
        x, y = reading.read(clips.path(original)), soundfile.read(copies.path(trial))[0]
        assert trial.key == "spoof" and trial.source == original.source and len(x) == len(y)
        assert power(y) == pytest.approx(power(x), rel=0.02) or np.abs(y).max() > 0.999
        assert not np.allclose(x, y, atol=0.01)


def test_copies_go_with_their_clip(features):
    trials = features.trials
    copied = (1 + len(KINDS)) * CLIPS
    assert len(features.passes[0]) == 2 * CLIPS + copied + PROMPTS == len(trials)
    assert len(features.passes[1]) == len(trials) - len(KINDS) * CLIPS  # neural copies are learnt as they are, only
    first = trials[0].utt_id
    rows = features.training_rows({first, trials[CLIPS].utt_id}, frozenset())
    heard = [trials[row] for row in rows]
    assert {features.originals[trial.utt_id] for trial in heard if trial.utt_id in features.originals} == {first}
    assert sum(trial.utt_id in features.prompts for trial in heard) == PROMPTS
    assert len(heard) == 2 + 1 + len(KINDS) + PROMPTS
    left = features.training_rows({first}, frozenset({"sinusoidal", "nearest"}))
    assert {trials[row].attack for row in rows} - {trials[row].attack for row in left} >= {"sinusoidal", "nearest"}


def test_copies_and_prompts_weigh_less(features):
    weights = {
        trial.attack if trial.attack in COPY_WEIGHTS else "": features.weight(trial) for trial in features.trials
    }
    assert weights.items() > COPY_WEIGHTS.items()
    assert {features.weight(trial) for trial in features.trials} == {1.0, PROMPT_WEIGHT, *COPY_WEIGHTS.values()}


def test_copies_of_some_vocoders_alone(features, monkeypatch):
    monkeypatch.setattr(features, "copy_weights", {"nearest": 0.3})
    rows = features.training_rows({features.trials[0].utt_id}, frozenset())
    assert {features.trials[row].attack for row in rows} == {"-", "nearest"}


def test_a_fit_to_all_of_it(features):
    rows = np.arange(len(features.trials))
    features.fit(rows, 0.001)
    scores = features.scores(rows[: 2 * CLIPS])
    assert scores[:CLIPS].min() > scores[CLIPS:].max()


def test_wrong_is_what_lies_beyond_the_threshold_of_clips_as_they_are():
    """Shifted by 2, the classes are as far apart as before, but most spoofs pass."""
    labels = [True] * 4 + [False] * 4
    plain = [3.0, 4.0, 5.0, 1.5, 0.0, 1.0, 2.0, 1.25]
    found = condition_errors({"as it is": plain, "noise": [score + 2 for score in plain]}, labels)
    assert found["as it is"] == (25.0, 25.0, 25.0)
    assert found["noise"] == (25.0, 0.0, 100.0)
