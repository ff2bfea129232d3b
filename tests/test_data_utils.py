import shutil
from collections import Counter

import numpy as np
import pytest
import soundfile
import torch

from cli import UserError
from config import Config
from data_utils import BONAFIDE, SPOOF, Corpus, EpochSampler, preflight, read_protocol, score_loader, train_loader

CONFIG = Config(model_config={}, batch_size=5, num_workers=0, seed=3)
LENGTH = 8000


def protocol(tmp_path, text: str):
    path = tmp_path / "protocol.txt"
    path.write_text(text)
    return path


def test_genuine_protocol(shared):
    corpus = Corpus(shared / "data" / "LA_mini", "LA")
    partitions = [corpus.partition(name) for name in ("train", "dev", "eval")]
    assert [len(p.trials) for p in partitions] == [101, 101, 31]
    first = partitions[2].trials[0]
    assert (first.utt_id, first.speaker, first.attack, first.key) == ("LA_E_6163791", "LA_0001", "A09", "spoof")
    assert first.label == SPOOF
    assert {t.label for t in partitions[0].trials if t.key == "bonafide"} == {BONAFIDE}
    notes = preflight(partitions, "LA")
    assert len(notes) == 3
    assert "31 trials" in notes[2] and "71,237" in notes[2]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a b - - bonafide\na c - spoof\n", "line 2 — expected 5 columns.*found 4"),
        ("a b - - bonafide\na b - A01 spoof\n", "line 2: utterance b stands twice"),
        ("a b - - genuine\n", "line 1 — expected key bonafide or spoof, found 'genuine'"),
        ("a b - - spoof\n", "line 1 — expected attack '-' for bonafide"),
        ("a ../b - - bonafide\n", "without slashes"),
        ("\n\n", "empty"),
    ],
)
def test_bad_protocols(tmp_path, text, words):
    with pytest.raises(UserError, match=words):
        read_protocol(protocol(tmp_path, text))


def test_unreadable_protocols(tmp_path):
    with pytest.raises(UserError, match="cannot read protocol"):
        read_protocol(tmp_path / "none.txt")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UserError, match="not text"):
        read_protocol(tmp_path / "binary")


def test_windows_line_ends_and_byte_order_mark(tmp_path):
    trials = read_protocol(protocol(tmp_path, "\ufeffa b - - bonafide\r\na c - A01 spoof\r\n"))
    assert [t.utt_id for t in trials] == ["b", "c"]


def test_preflight_names_what_is_missing(tiny_corpus, tmp_path):
    shutil.copytree(tiny_corpus, tmp_path / "LA")
    corpus = Corpus(tmp_path / "LA", "LA")
    dev = corpus.partition("dev")
    for trial in dev.trials[:7]:
        dev.path(trial).unlink()
    with pytest.raises(UserError, match=f"dev lacks audio.*7 missing: {dev.trials[0].utt_id}, .*…"):
        preflight([dev], "LA")


def test_preflight_wants_both_classes(tiny_corpus):
    train = Corpus(tiny_corpus, "LA").partition("train")
    train.trials[:] = [t for t in train.trials if t.key == "spoof"]
    with pytest.raises(UserError, match="train has one class only.*only spoof"):
        preflight([train], "LA")


def test_no_data_set(tmp_path):
    with pytest.raises(UserError, match="no data set at"):
        Corpus(tmp_path / "LA", "LA")
    with pytest.raises(UserError, match=r"cannot read protocol.*ASVspoof2019\.PA\.cm\.train\.trn\.txt"):
        Corpus(tmp_path, "PA").partition("train")


def batches(corpus, workers: int, epoch: int = 0, skip: int = 0) -> list[torch.Tensor]:
    config = Config(model_config={}, batch_size=5, num_workers=workers, seed=3)
    train = Corpus(corpus, "LA").partition("train")
    return [torch.cat([x, y[:, None].float()], dim=1) for x, y in train_loader(train, LENGTH, config, epoch, skip)]


def test_training_batches_depend_on_seed_and_epoch_alone(tiny_corpus):
    state = torch.get_rng_state()
    here, workers = batches(tiny_corpus, 0), batches(tiny_corpus, 2)
    assert len(here) == 24 // 5
    assert all(torch.equal(a, b) for a, b in zip(here, workers, strict=True))
    assert not torch.equal(here[0], batches(tiny_corpus, 0, epoch=1)[0])
    assert torch.equal(state, torch.get_rng_state())  # dropout goes on undisturbed when an epoch is resumed


def test_skipping_goes_on_where_an_epoch_was_left(tiny_corpus):
    whole, rest = batches(tiny_corpus, 0, epoch=4), batches(tiny_corpus, 0, epoch=4, skip=10)
    assert len(rest) == len(whole) - 2
    assert all(torch.equal(a, b) for a, b in zip(whole[2:], rest, strict=True))


def test_an_epoch_holds_every_utterance_once():
    items = list(EpochSampler(24, seed=1, epoch=2))
    assert Counter(item.index for item in items) == Counter(range(24))
    assert {item.epoch for item in items} == {2}


def test_scoring_is_in_protocol_order_from_the_start_of_each_file(tiny_corpus):
    dev = Corpus(tiny_corpus, "LA").partition("dev")
    waveforms, labels = zip(*score_loader(dev, LENGTH, CONFIG), strict=True)
    waveforms, labels = torch.cat(waveforms), torch.cat(labels)
    assert labels.tolist() == [t.label for t in dev.trials]
    samples, _ = soundfile.read(dev.path(dev.trials[3]), dtype="float32")
    np.testing.assert_array_equal(waveforms[3], samples[:LENGTH])


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_file_stops_with_its_name(tiny_corpus, tmp_path, workers):
    shutil.copytree(tiny_corpus, tmp_path / "LA")
    dev = Corpus(tmp_path / "LA", "LA").partition("dev")
    path = dev.path(dev.trials[6])
    path.write_bytes(path.read_bytes()[:5000])
    config = Config(model_config={}, batch_size=4, num_workers=workers)
    with pytest.raises(UserError, match=f"{path.name} is truncated") as error:
        list(score_loader(dev, LENGTH, config))
    assert "Traceback" not in str(error.value)
