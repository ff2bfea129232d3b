import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from conftest import assert_same_run, assert_user_error, events, mini, train_mini
from forks import Command

import data_utils
from audio.chunks import CHUNK_SAMPLES
from common.errors import UserError
from config import Config
from corpora.asvspoof import ASVspoof2019, read_protocol
from corpora.balance import balance_weights, epoch_batches, epoch_order
from corpora.trials import Trial
from corpora.waveforms import Waveforms
from data_utils import ProcessPart, TrainLoader, open_waveforms, preflight, score_loader, train_loader
from metrics.scores import BONAFIDE, SPOOF

CONFIG = Config(model_config={}, batch_size=5, num_workers=0, seed=3)
LENGTH = 8000
CPU = torch.device("cpu")


def protocol(tmp_path, text: str):
    path = tmp_path / "protocol.txt"
    path.write_text(text)
    return path


def test_genuine_protocol(shared):
    corpus = ASVspoof2019(shared / "data" / "LA_mini", "LA")
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
        ("a b - - bonafide\na b - A01 spoof\n", "line 2: utterance b is listed twice"),
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
    with pytest.raises(UserError, match="cannot read .*: No such file"):
        read_protocol(tmp_path / "none.txt")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UserError, match="not text"):
        read_protocol(tmp_path / "binary")


def test_windows_line_ends_and_byte_order_mark(tmp_path):
    trials = read_protocol(protocol(tmp_path, "\ufeffa b - - bonafide\r\na c - A01 spoof\r\n"))
    assert [t.utt_id for t in trials] == ["b", "c"]


def test_preflight_names_what_is_missing(tiny_corpus, tmp_path):
    shutil.copytree(tiny_corpus, tmp_path / "LA")
    corpus = ASVspoof2019(tmp_path / "LA", "LA")
    dev = corpus.partition("dev")
    for trial in dev.trials[:7]:
        dev.path(trial).unlink()
    with pytest.raises(UserError, match=f"dev lacks audio.*7 missing: {dev.trials[0].utt_id}, .*…"):
        preflight([dev], "LA")


def test_preflight_wants_both_classes(tiny_corpus):
    train = ASVspoof2019(tiny_corpus, "LA").partition("train")
    train.trials[:] = [t for t in train.trials if t.key == "spoof"]
    with pytest.raises(UserError, match="train has one class only.*only spoof"):
        preflight([train], "LA")


def test_no_data_set(tmp_path):
    with pytest.raises(UserError, match="no data set at"):
        ASVspoof2019(tmp_path / "LA", "LA")
    with pytest.raises(UserError, match="no ASVspoof 2019 PA protocols in .*ASVspoof2019_PA_cm_protocols or PA/"):
        ASVspoof2019(tmp_path, "PA")
    (tmp_path / "PA" / "ASVspoof2019_PA_cm_protocols").mkdir(parents=True)
    for root in (tmp_path, tmp_path / "PA"):
        with pytest.raises(UserError, match=r"cannot read .*ASVspoof2019\.PA\.cm\.train\.trn\.txt"):
            ASVspoof2019(root, "PA").partition("train")


def joined(loader: TrainLoader) -> list[torch.Tensor]:
    """Crops and label of each trial of each batch, side by side."""
    return [torch.cat([torch.cat([x, y[:, None].float()], dim=1) for x, y in batch.micro_batches]) for batch in loader]


def batches(corpus, workers: int, epoch: int = 0, skip: int = 0) -> list[torch.Tensor]:
    config = Config(model_config={}, batch_size=5, num_workers=workers, seed=3)
    train = Waveforms(ASVspoof2019(corpus, "LA").partition("train"))
    return joined(train_loader(train, LENGTH, config, epoch, skip))


def test_training_batches_depend_on_seed_and_epoch_alone(tiny_corpus):
    state = torch.get_rng_state()
    here, workers = batches(tiny_corpus, 0), batches(tiny_corpus, 2)
    assert len(here) == 24 // 5
    assert all(torch.equal(a, b) for a, b in zip(here, workers, strict=True))
    assert not torch.equal(here[0], batches(tiny_corpus, 0, epoch=1)[0])
    assert torch.equal(state, torch.get_rng_state())  # dropout goes on undisturbed when an epoch is resumed


def test_skipping_goes_on_where_an_epoch_was_left(tiny_corpus):
    whole, rest = batches(tiny_corpus, 0, epoch=4), batches(tiny_corpus, 0, epoch=4, skip=2)
    assert len(rest) == len(whole) - 2
    assert all(torch.equal(a, b) for a, b in zip(whole[2:], rest, strict=True))


def test_an_epoch_holds_every_utterance_once():
    epoch = epoch_batches(range(24), replace(CONFIG, batch_size=6), 2)
    assert epoch.shape == (4, 6) and sorted(epoch.flat) == list(range(24))


@pytest.mark.parametrize("steps", [1, 2])
def test_the_loader_yields_the_indices_with_the_batch(tiny_corpus, steps):
    train = ASVspoof2019(tiny_corpus, "LA").partition("train")
    config = replace(CONFIG, batch_size=4, accumulation_steps=steps)
    loaded = list(train_loader(Waveforms(train), LENGTH, config, epoch=1))
    np.testing.assert_array_equal([batch.indices for batch in loaded], epoch_batches(train.trials, config, 1))
    for batch in loaded:
        labels = torch.cat([y for _, y in batch.micro_batches]).tolist()
        assert len(batch.micro_batches) == steps
        assert labels == [train.trials[index].label for index in batch.indices]


def test_scoring_is_in_protocol_order_from_the_start_of_each_file(tiny_corpus):
    dev = ASVspoof2019(tiny_corpus, "LA").partition("dev")
    waveforms, labels = zip(*score_loader(Waveforms(dev), LENGTH, CONFIG), strict=True)
    waveforms, labels = torch.cat(waveforms), torch.cat(labels)
    assert labels.tolist() == [t.label for t in dev.trials]
    samples, _ = soundfile.read(dev.path(dev.trials[3]), dtype="float32")
    np.testing.assert_array_equal(waveforms[3], samples[:LENGTH])


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_file_stops_with_its_name(tiny_corpus, tmp_path, workers):
    shutil.copytree(tiny_corpus, tmp_path / "LA")
    dev = ASVspoof2019(tmp_path / "LA", "LA").partition("dev")
    path = dev.path(dev.trials[6])
    path.write_bytes(path.read_bytes()[:5000])
    config = Config(model_config={}, batch_size=4, num_workers=workers)
    with pytest.raises(UserError, match=f"{path.name} is truncated") as error:
        list(score_loader(Waveforms(dev), LENGTH, config))
    assert "Traceback" not in str(error.value)


def test_workers_need_no_shared_memory(tiny_corpus, monkeypatch):
    """As in Docker, whose /dev/shm holds 64 MB, or without a folder for temporary files."""

    def refuse(*_):
        raise RuntimeError("no shared memory")

    for name in ("_share_fd_cpu_", "_share_filename_cpu_"):
        monkeypatch.setattr(torch.UntypedStorage, name, refuse)
    dev = Waveforms(ASVspoof2019(tiny_corpus, "LA").partition("dev"))
    here, sent = (list(score_loader(dev, LENGTH, replace(CONFIG, num_workers=workers))) for workers in (0, 2))
    for one, other in zip(here, sent, strict=True):
        assert all(map(torch.equal, one, other))


@pytest.mark.parametrize(
    "failure",
    ["os.kill(os.getpid(), signal.SIGKILL)", "return Batch(batch.crops, lambda: 0, batch.errors)"],
    ids=["killed", "a result that cannot be sent"],
)
def test_a_failing_worker_ends_the_command_with_one_line(tiny_corpus, tmp_path, failure):
    prelude = f"""
import os, signal
from data_utils import Batch, SpeechDataset
cut = SpeechDataset.__getitems__
def fail(self, indices):
    batch = cut(self, indices)
    {failure}
SpeechDataset.__getitems__ = fail
"""
    done = Command(tmp_path, "main.py", *mini(tmp_path, tiny_corpus, num_workers=2), prelude=prelude).wait(100)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and done.stderr.splitlines()[-1].startswith("error: a worker process died")


# -------------------------------------------------------------------------------------------------------------- packs


def everything(waveforms: Waveforms, config: Config, length: int) -> list[torch.Tensor]:
    """All that the loaders give: two epochs, the rest of one, scoring."""
    epochs = [train_loader(waveforms, length, config, *which) for which in ((0,), (1,), (1, 2))]
    loaded = [micro_batch for epoch in epochs for batch in epoch for micro_batch in batch.micro_batches]
    return [tensor for batch in [*loaded, *score_loader(waveforms, length, config)] for tensor in batch]


@pytest.mark.parametrize(("data", "length"), [("demo", LENGTH), ("genuine", CHUNK_SAMPLES)])
def test_every_cache_gives_the_same_batches(data, length, request, tmp_path):
    root = request.getfixturevalue("tiny_corpus" if data == "demo" else "shared")
    train = ASVspoof2019(root if data == "demo" else root / "data" / "LA_mini", "LA").partition("train")
    state = torch.get_rng_state()
    config = replace(CONFIG, cache_path=str(tmp_path), num_workers=2)
    expected = everything(Waveforms(train), CONFIG, length)
    packs = {cache: open_waveforms(train, replace(config, cache=cache), CPU) for cache in ("off", "mmap", "ram")}
    packs["gpu"] = replace(packs["mmap"], on_device=data_utils._upload(packs["mmap"].pack.samples, CPU))
    for cache, waveforms in packs.items():
        found = everything(waveforms, config, length)
        assert {tensor.dtype for tensor in found} == {torch.float32, torch.int64}
        assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True)), cache
    assert torch.equal(state, torch.get_rng_state())


def test_packs_in_memory_do_not_need_their_file(tiny_corpus, tmp_path):
    train = ASVspoof2019(tiny_corpus, "LA").partition("train")
    ram = open_waveforms(train, replace(CONFIG, cache="ram", cache_path=str(tmp_path)), CPU)
    next(tmp_path.glob("LA_train_*.pcm")).write_bytes(b"")
    assert len(everything(ram, CONFIG, LENGTH)) > 0


def test_upload_by_pieces(monkeypatch):
    monkeypatch.setattr(data_utils, "UPLOAD_SAMPLES", 7)
    samples = np.arange(40, dtype=np.int16)
    np.testing.assert_array_equal(data_utils._upload(samples, CPU), samples)


def test_the_gpu_is_there_and_has_room(tiny_corpus, tmp_path, monkeypatch, capsys):
    train = ASVspoof2019(tiny_corpus, "LA").partition("train")
    config = replace(CONFIG, cache="gpu", cache_path=str(tmp_path))
    with pytest.raises(UserError, match="expected a CUDA device, found cpu"):
        open_waveforms(train, config, CPU)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (6 * 10**5, 10**6))
    waveforms = open_waveforms(train, config, torch.device("cuda"))
    assert waveforms.on_device is None and waveforms.pack is not None
    assert "the GPU has no room for train" in capsys.readouterr().err


def test_a_pack_stands_in_for_absent_audio(tiny_corpus, tmp_path):
    shutil.copytree(tiny_corpus, tmp_path / "LA")
    train = ASVspoof2019(tmp_path / "LA", "LA").partition("train")
    packs = tmp_path / "packed"
    config = replace(CONFIG, cache="mmap", cache_path=str(packs))
    expected = everything(Waveforms(train), CONFIG, LENGTH)
    open_waveforms(train, config, CPU)
    train.path(train.trials[0]).unlink()
    with pytest.raises(UserError, match="train lacks audio"):
        preflight([train], "LA", packs)
    shutil.rmtree(train.path(train.trials[0]).parent)
    with pytest.raises(UserError, match="train lacks audio"):
        preflight([train], "LA")
    assert len(preflight([train], "LA", packs)) == 1
    found = everything(open_waveforms(train, config, CPU), config, LENGTH)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


# --------------------------------------------------------------------------------------- micro-batches, many processes


@pytest.mark.parametrize(("steps", "size"), [(1, 3), (2, 1), (2, 3), (3, 2)])
@pytest.mark.parametrize("skip", [0, 1])
def test_parts_make_up_the_batch(tiny_corpus, steps, size, skip):
    train = Waveforms(ASVspoof2019(tiny_corpus, "LA").partition("train"))
    config = replace(CONFIG, batch_size=12)
    whole = list(train_loader(train, LENGTH, config, 1, skip))
    config = replace(config, accumulation_steps=steps)
    ranks = [list(train_loader(train, LENGTH, config, 1, skip, ProcessPart(rank, size))) for rank in range(size)]
    assert [len(own) for own in ranks] == [2 - skip] * size
    for expected, *batches in zip(whole, *ranks, strict=True):
        assert all(batch.indices.tolist() == expected.indices.tolist() for batch in batches)
        parts = [part for together in zip(*(b.micro_batches for b in batches), strict=True) for part in together]
        assert {len(x) for x, _ in parts} == {12 // (steps * size)}
        columns = zip(*parts, strict=True)
        assert all(
            torch.equal(torch.cat(part), one) for part, one in zip(columns, expected.micro_batches[0], strict=True)
        )


@pytest.mark.parametrize(("batch_size", "size"), [(12, 5), (12, 12)])
def test_a_batch_that_cannot_be_shared(tiny_corpus, batch_size, size):
    train = ASVspoof2019(tiny_corpus, "LA").partition("train")
    with pytest.raises(UserError, match=f"for {size} processes — expected a multiple of {size}, .* found 12"):
        train_loader(Waveforms(train), LENGTH, replace(CONFIG, batch_size=batch_size), 0, part=ProcessPart(0, size))


@pytest.mark.parametrize("size", [2, 3, 20])
def test_each_trial_is_scored_once(tiny_corpus, size):
    dev = Waveforms(ASVspoof2019(tiny_corpus, "LA").partition("dev"))
    whole = torch.cat([x for x, _ in score_loader(dev, LENGTH, CONFIG)])
    for rank in range(size):
        share = [x for x, _ in score_loader(dev, LENGTH, CONFIG, ProcessPart(rank, size))]
        assert torch.equal(torch.cat([torch.empty(0, LENGTH), *share]), whole[rank::size])


# ------------------------------------------------------------------------------------------------------- balancing


def trials_of(*groups: tuple[str, str, int]) -> list[Trial]:
    """`count` trials of each (attack, source)."""
    return [
        Trial(f"{source}_{attack}_{i}", f"s{i % 3}", attack, "bonafide" if attack == "-" else "spoof", source)
        for attack, source, count in groups
        for i in range(count)
    ]


def drawn(trials: list[Trial], balance: tuple[str, ...], epochs: int = 1, balance_power: float = 0.0) -> list[Trial]:
    config = replace(CONFIG, balance=balance, balance_power=balance_power)
    return [trials[index] for epoch in range(epochs) for index in epoch_order(trials, config, epoch)]


UNEVEN = trials_of(("-", "a", 10), ("A01", "a", 60), ("A02", "a", 20), ("A03", "b", 30))


def test_classes_are_balanced():
    counts = Counter(trial.key for trial in drawn(UNEVEN, ("key",)))
    assert counts == {"bonafide": 60, "spoof": 60}


def test_attacks_are_balanced_within_their_class():
    counts = Counter(trial.attack for trial in drawn(UNEVEN, ("key", "attack")))
    assert counts == {"-": 60, "A01": 20, "A02": 20, "A03": 20}


def test_sources_are_balanced_then_what_they_hold():
    counts = Counter((trial.source, trial.key) for trial in drawn(UNEVEN, ("source", "key")))
    assert counts == {("a", "bonafide"): 30, ("a", "spoof"): 30, ("b", "spoof"): 60}


def test_a_power_lets_larger_groups_have_more_but_never_a_class():
    attacks = {"A01": 60, "A02": 20, "A03": 30}
    for power in (0.5, 1.0):
        weights = balance_weights(UNEVEN, ("key", "attack"), power) / len(UNEVEN)
        shares = {
            name: sum(w for w, t in zip(weights, UNEVEN, strict=True) if t.attack == name) for name in ("-", *attacks)
        }
        total = sum(count**power for count in attacks.values())
        expected = {name: count**power / total / 2 for name, count in attacks.items()}
        assert shares == pytest.approx({"-": 1 / 2} | expected)
    counts = Counter(trial.attack for trial in drawn(UNEVEN, ("key", "attack"), balance_power=1.0))
    assert counts["-"] == 60 and counts["A01"] == pytest.approx(33, abs=1)


def test_fractions_that_do_not_come_out_even_do_over_epochs():
    trials = trials_of(("-", "", 5), ("A01", "", 4), ("A02", "", 1), ("A03", "", 1))
    epochs = 120
    counts = Counter(trial.attack for trial in drawn(trials, ("key", "attack"), epochs))
    assert sum(counts.values()) == epochs * len(trials)
    for attack, share in {"-": 1 / 2, "A01": 1 / 6, "A02": 1 / 6, "A03": 1 / 6}.items():
        assert counts[attack] == pytest.approx(share * epochs * len(trials), rel=0.05)


def test_no_trial_comes_again_before_its_group_is_through():
    counts = Counter(drawn(UNEVEN, ("key", "attack")))
    for attack in ("-", "A01", "A02", "A03"):
        each = [counts[trial] for trial in UNEVEN if trial.attack == attack]
        assert max(each) - min(each) <= 1


def test_weights_are_those_of_the_order():
    weights = balance_weights(UNEVEN, ("key", "attack")) / len(UNEVEN)
    of = {
        name: [w for w, t in zip(weights, UNEVEN, strict=True) if t.attack == name]
        for name in ("-", "A01", "A02", "A03")
    }
    assert {name: sum(own) for name, own in of.items()} == pytest.approx(
        {"-": 1 / 2, "A01": 1 / 6, "A02": 1 / 6, "A03": 1 / 6}
    )
    assert all(max(own) == min(own) for own in of.values())
    assert (balance_weights(UNEVEN, ()) == 1).all()


def test_balanced_orders_follow_from_seed_and_epoch():
    def order(seed: int, epoch: int) -> list[int]:
        return epoch_order(UNEVEN, replace(CONFIG, balance=("key",), seed=seed), epoch).tolist()

    assert order(3, 2) == order(3, 2)
    assert order(3, 2) != order(3, 3)
    assert order(3, 2) != order(4, 2)


# ------------------------------------------------------------------------------------------- augmentation, vocoders


AUGMENTED = replace(
    CONFIG,
    augmentation=({"name": "speed"}, {"name": "rawboost", "combination": "lnl+isd"}, {"name": "gain"}),
    vocode=("griffin_lim", "lpc"),
)


def augmented_batches(train: Waveforms, config: Config, epoch: int = 1) -> list[torch.Tensor]:
    return joined(train_loader(train, LENGTH, config, epoch))


def test_augmented_batches_are_the_same_whatever_reads_them(tiny_corpus, tmp_path):
    plain = ASVspoof2019(tiny_corpus).partition("train")
    pack = open_waveforms(plain, replace(CONFIG, cache="ram", cache_path=str(tmp_path)), CPU).pack
    trains = [Waveforms(plain.with_vocoded(AUGMENTED.vocode), each) for each in (None, None, pack)]
    workers = [0, 2, 2]
    here, elsewhere, from_pack = (
        augmented_batches(train, replace(AUGMENTED, num_workers=n)) for train, n in zip(trains, workers, strict=True)
    )
    assert len(here) == len(trains[0]) // 5
    assert all(torch.equal(a, b) for a, b in zip(here, elsewhere, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(here, from_pack, strict=True))
    assert not torch.equal(here[0], augmented_batches(trains[0], AUGMENTED, epoch=2)[0])
    assert all(torch.isfinite(batch).all() for batch in here)


def test_vocoded_trials_are_spoof_of_the_same_words(tiny_corpus):
    train = ASVspoof2019(tiny_corpus).partition("train")
    more = train.with_vocoded(["lpc", "griffin_lim"])
    bonafide = [trial for trial in train.trials if trial.key == "bonafide"]
    assert len(more.trials) == len(train.trials) + 2 * len(bonafide)
    added = more.trials[len(train.trials) :]
    assert [trial.utt_id for trial in added[:2]] == [f"{trial.utt_id}~lpc" for trial in bonafide[:2]]
    assert {(trial.attack, trial.key) for trial in added} == {("lpc", "spoof"), ("griffin_lim", "spoof")}
    dataset = data_utils.SpeechDataset(Waveforms(more), 16000, (3, 0))
    index = more.trials.index(added[-1])
    original = next(i for i, trial in enumerate(train.trials) if f"{trial.utt_id}~griffin_lim" == added[-1].utt_id)
    (copy, source), labels, _ = dataset.__getitems__([index, original])
    assert labels.tolist() == [SPOOF, BONAFIDE]
    assert not torch.equal(copy, source)
    assert not more.missing()


def test_augmentation_needs_the_cpu():
    with pytest.raises(UserError, match="cache.*ram with augmentation.*found gpu"):
        replace(AUGMENTED, cache="gpu")


def test_a_run_with_augmentation_and_vocoders_resumes_alike(tiny_corpus, tmp_path):
    options = {"augmentation": list(AUGMENTED.augmentation), "vocode": ["lpc"], "balance": ["key", "attack"]}
    whole = train_mini(tmp_path / "whole", tiny_corpus, num_workers=2, **options)
    again = train_mini(tmp_path / "again", tiny_corpus, num_workers=0, **options)
    assert_same_run(again, whole)
    trials = events(whole, "start")[0]["trials"]["train"]
    assert trials == 24 + sum(trial.key == "bonafide" for trial in ASVspoof2019(tiny_corpus).partition("train").trials)


def test_unknown_vocoder_is_named_before_anything_is_trained(tiny_corpus, tmp_path):
    done = Command(tmp_path, "main.py", *mini(tmp_path, tiny_corpus, vocode=["hifigan"])).wait()
    assert_user_error(done, "no such vocoder", "griffin_lim", "hifigan")
    assert not list(tmp_path.glob("runs/*"))
