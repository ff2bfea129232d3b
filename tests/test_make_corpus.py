"""make_corpus.py: layout, disjoint speakers, failures and refusals; no single cue separates the classes."""

import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import ROOT, assert_user_error, run_command

import make_corpus
from audio import SAMPLE_RATE as RATE
from audio.levels import active_frames
from common.errors import UserError
from corpora.cutting import cut_at_pauses, find_recordings, limit_band
from corpora.from_recordings import group_by_recording, split_speakers
from corpora.la_layout import LETTERS
from metrics.error_rates import compute_eer

SMALL = ("--seconds", 1, 3, "--workers", 2)


@pytest.fixture(scope="module")
def recordings(shared, tmp_path_factory) -> Path:
    """Genuine bona fide speech of 45 speakers of the mixed corpus, a folder each."""
    folder, mixed = tmp_path_factory.mktemp("recordings"), shared / "data" / "mixed"
    lines = (mixed / "ASVspoof2019_LA_cm_protocols" / "ASVspoof2019.LA.cm.train.trn.txt").read_text().splitlines()
    by_speaker = defaultdict(list)
    for speaker, utt_id, _, _, key in map(str.split, lines):
        if key == "bonafide":
            by_speaker[speaker].append(utt_id)
    for speaker in sorted(by_speaker)[::12][:45]:
        (folder / speaker).mkdir()
        for utt_id in by_speaker[speaker][:2]:
            shutil.copy(mixed / "ASVspoof2019_LA_train" / "flac" / f"{utt_id}.flac", folder / speaker)
    return folder


@pytest.fixture(scope="module")
def few(recordings: Path, tmp_path_factory) -> Path:
    """Recordings of four of these speakers."""
    folder = tmp_path_factory.mktemp("few")
    for speaker in sorted(path for path in recordings.iterdir() if path.name.startswith("LS"))[:4]:
        (folder / speaker.name).mkdir()
        shutil.copy(min(speaker.iterdir()), folder / speaker.name)
    return folder


@pytest.fixture(scope="module")
def corpus(recordings: Path, tmp_path_factory) -> Path:
    """The corpus that the command makes of `recordings`."""
    folder = tmp_path_factory.mktemp("made") / "corpus"
    attacks = ["--attacks", "griffin_lim", "lpc", "--eval_attacks", "sinusoidal"]
    done = run_command("make_corpus.py", "--bonafide", recordings, "--out", folder, *attacks, *SMALL)
    assert done.returncode == 0, done.stderr
    return folder


def protocol(folder: Path, partition: str) -> list[list[str]]:
    """The columns of a protocol's lines."""
    (path,) = folder.glob(f"*_cm_protocols/ASVspoof2019.LA.cm.{partition}.t??.txt")
    return [line.split(" ") for line in path.read_text().splitlines()]


def sources(folder: Path) -> list[dict[str, str]]:
    with (folder / "sources.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def sound(folder: Path, partition: str, utt_id: str) -> np.ndarray:
    return soundfile.read(folder / f"ASVspoof2019_LA_{partition}" / "flac" / f"{utt_id}.flac")[0]


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file by its relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def make(*arguments: object) -> subprocess.CompletedProcess:
    return run_command("make_corpus.py", *arguments)


# ---- what is made -------------------------------------------------------------------------------------------------


def test_the_layout_is_that_of_la(corpus: Path):
    for partition, letter in LETTERS.items():
        name = f"ASVspoof2019.LA.cm.{partition}.{'trn' if partition == 'train' else 'trl'}.txt"
        assert (corpus / "ASVspoof2019_LA_cm_protocols" / name).is_file()
        for number, (speaker, utt_id, dash, attack, key) in enumerate(protocol(corpus, partition), 1):
            assert utt_id == f"MC_{letter}_{number:06d}" and dash == "-" and speaker.startswith("MC_")
            assert key == ("bonafide" if attack == "-" else "spoof")
            path = corpus / f"ASVspoof2019_LA_{partition}" / "flac" / f"{utt_id}.flac"
            info = soundfile.info(path)
            assert (info.samplerate, info.channels, info.format, info.subtype) == (RATE, 1, "FLAC", "PCM_16")
            assert 0.9 * RATE <= info.frames <= 3.5 * RATE
            assert 0.005 < np.abs(soundfile.read(path)[0]).max() < 0.995
    assert len(list(corpus.glob("*/flac/*"))) == sum(len(protocol(corpus, name)) for name in LETTERS)


def test_speakers_are_disjoint_and_attacks_as_asked(corpus: Path):
    speakers = {name: {line[0] for line in protocol(corpus, name)} for name in LETTERS}
    assert len(set().union(*speakers.values())) == sum(map(len, speakers.values()))
    fractions = np.array([len(speakers[name]) for name in LETTERS]) / sum(map(len, speakers.values()))
    assert fractions == pytest.approx([0.6, 0.2, 0.2], abs=0.02)
    attacks = {name: {line[3] for line in protocol(corpus, name)} - {"-"} for name in LETTERS}
    assert attacks["train"] == attacks["dev"] == {"griffin_lim", "lpc"} and attacks["eval"] == {"sinusoidal"}
    keys = [line[4] for line in protocol(corpus, "train")]
    assert keys.count("bonafide") == keys.count("spoof")
    # The order, and so the number in the name, does not reveal the class.
    assert keys[: len(keys) // 2].count("spoof") == pytest.approx(len(keys) / 4, rel=0.4)


def test_every_utterance_has_its_source(corpus: Path, recordings: Path):
    rows = {row["utt_id"]: row for row in sources(corpus)}
    lines = [(name, line) for name in LETTERS for line in protocol(corpus, name)]
    assert rows.keys() == {line[1] for _, line in lines}
    real = {}
    for partition, (speaker, utt_id, _, attack, _) in lines:
        row, samples = rows[utt_id], sound(corpus, partition, utt_id)
        assert row["attack"] == attack and row["source"].split("/")[0] == row["speaker"]
        assert real.setdefault(speaker, row["speaker"]) == row["speaker"]
        assert float(row["seconds"]) == pytest.approx(len(samples) / RATE, abs=1e-3)
        original = soundfile.read(recordings / row["source"])[0]
        assert float(row["start"]) + float(row["seconds"]) < len(original) / RATE + 0.05
    assert len(set(real.values())) == len(real)


def test_a_bona_fide_utterance_is_its_source_and_a_spoof_is_not(corpus: Path, recordings: Path):
    for row in [row for row in sources(corpus) if row["utt_id"].startswith("MC_D")][:16]:
        samples = sound(corpus, "dev", row["utt_id"])
        original = limit_band(soundfile.read(recordings / row["source"])[0], 7000)
        match = np.abs(np.correlate(original, samples[4000:12000], "valid"))
        windows = np.lib.stride_tricks.sliding_window_view(original, 8000)
        energy = np.linalg.norm(windows[match.argmax()]) * np.linalg.norm(samples[4000:12000])
        assert (match.max() / energy > 0.9) == (row["attack"] == "-"), row


def test_seed_and_recordings_alone_decide(few: Path, tmp_path: Path):
    common = ("--bonafide", few, "--attacks", "griffin_lim", "lpc", "--seconds", 1, 3, "--spoofs", 2)
    for name, *others in (("one", "--workers", 0), ("two", "--workers", 2), ("other", "--seed", 2)):
        assert make(*common, "--out", tmp_path / name, *others).returncode == 0
    assert digests(tmp_path / "one") == digests(tmp_path / "two") != digests(tmp_path / "other")
    lines = protocol(tmp_path / "one", "train")
    assert sum(line[4] == "spoof" for line in lines) == 2 * sum(line[4] == "bonafide" for line in lines)
    stamp = json.loads((tmp_path / "one" / "corpus.json").read_text())
    assert stamp["seed"] == 1234 and stamp["attacks"]["eval"] == ["griffin_lim", "lpc"] and stamp["spoofs"] == 2
    assert stamp["utterances"]["train"] == len(lines)


# ---- no shortcut --------------------------------------------------------------------------------------------------


def cues(wave: np.ndarray) -> dict[str, float]:
    """Level (dB), duration, leading and trailing quiet (samples), energy above or below (dB of all), of (n,)."""
    energy = np.convolve(wave**2, np.ones(160) / 160, "same")
    loud = np.flatnonzero(energy > energy.max() / 1000)
    power, hertz = np.abs(np.fft.rfft(wave)) ** 2, np.fft.rfftfreq(len(wave), 1 / RATE)
    bands = {"below 80": hertz < 80, "above 4000": hertz > 4000, "above 6000": hertz > 6000}
    bands |= {"above 7000": hertz > 7000, "above 7500": hertz > 7500}
    energies = {name: 10 * np.log10(power[band].sum() / power.sum()) for name, band in bands.items()}
    ends = {"leading quiet": loud[0], "trailing quiet": len(wave) - loud[-1]}
    return {"level": 20 * np.log10(wave.std()), "duration": len(wave), **ends, **energies}


def test_no_single_cue_tells_the_classes_apart(corpus: Path):
    lines = [(name, line) for name in LETTERS for line in protocol(corpus, name)]
    rows = [cues(sound(corpus, name, line[1])) for name, line in lines]
    spoof = np.array([line[4] == "spoof" for _, line in lines])
    for cue in rows[0]:
        values = np.array([row[cue] for row in rows], float)
        values += np.random.default_rng(0).normal(0, 1e-9, len(values))  # ties are broken by chance
        eer, _ = compute_eer(values[~spoof], values[spoof])
        assert 0.38 < eer < 0.62, cue


def test_cues_do_tell_classes_apart_where_nothing_is_matched(recordings: Path):
    """The check can fail: it does for classes at different levels."""
    waves = [soundfile.read(path)[0] for path in sorted(recordings.rglob("*.flac"))[:40]]
    loud, soft = ([cues(gain * wave)["level"] for wave in waves] for gain in (10, 0.1))
    assert compute_eer(np.array(loud), np.array(soft))[0] < 0.1


# ---- cutting ------------------------------------------------------------------------------------------------------


def bursts(*lengths: float, pause: float = 0.5) -> np.ndarray:
    """Bursts of noise of these lengths in seconds, with pauses before, between and after."""
    rng, quiet = np.random.default_rng(0), np.zeros(int(pause * RATE), np.float32)
    parts = [part for length in lengths for part in (rng.normal(0, 0.1, int(length * RATE)).astype(np.float32), quiet)]
    return np.concatenate([quiet, *parts])


def test_long_recordings_are_cut_in_pauses():
    samples = bursts(*[2.0] * 30)
    stretches = cut_at_pauses(samples, 3, 8)
    assert all(before[1] <= after[0] for before, after in pairwise(stretches))
    for start, stop in stretches:
        assert 3 <= (stop - start) / RATE <= 8
        assert np.abs(samples[start : start + 3200]).max() == 0 == np.abs(samples[stop - 3200 : stop]).max()
    assert sum(stop - start for start, stop in stretches) > 0.7 * len(samples)


@pytest.mark.parametrize(
    "samples", [np.zeros(0, np.float32), np.zeros(RATE * 20, np.float32), np.ones(5, np.float32), bursts(2.9)]
)
def test_too_little_speech_gives_no_piece(samples: np.ndarray):
    assert cut_at_pauses(samples, 3, 8) == []


def test_speech_without_pauses_is_cut_too():
    stretches = cut_at_pauses(bursts(30, pause=0), 3, 8)
    assert len(stretches) >= 3 and all(3 <= (stop - start) / RATE <= 8 for start, stop in stretches)


def test_quiet_is_relative_to_the_loudest_frame():
    assert list(active_frames(np.repeat([0, 1, 0.009, 0.011, 0], 320))) == [1, 3]
    assert len(active_frames(np.full(3200, 1e-4))) == 0


# ---- speakers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [3, 4, 5, 10, 101])
@pytest.mark.parametrize("split", [(0.6, 0.2, 0.2), (1, 1, 1), (1000, 1, 1), (1, 1, 1000)])
def test_every_partition_has_a_speaker(count: int, split: tuple):
    parts = split_speakers([f"s{i}" for i in range(count)] * 2, split, 1)
    names = [name for part in parts.values() for name in part]
    assert sorted(names) == sorted({f"s{i}" for i in range(count)}) and all(parts.values())
    assert list(parts) == list(LETTERS)
    if count == 101 and split[0] == 0.6:
        assert [len(part) for part in parts.values()] == pytest.approx([61, 20, 20], abs=1)


def test_fewer_than_three_speakers_are_refused(few: Path, tmp_path: Path):
    for speaker in sorted(few.iterdir())[:2]:
        shutil.copytree(speaker, tmp_path / "two" / speaker.name)
    done = make("--bonafide", tmp_path / "two", "--out", tmp_path / "out", *SMALL)
    assert done.returncode == 2 and "error: too few speakers with usable speech" in done.stderr
    assert "found 2" in done.stderr and "Traceback" not in done.stderr and not (tmp_path / "out").exists()


def test_files_of_a_flat_folder_are_speakers_of_their_own(few: Path, tmp_path: Path, capsys):
    for path in sorted(few.rglob("*.flac")):
        shutil.copy(path, tmp_path)
    (tmp_path / "LICENSE.txt").write_text("CC BY 4.0")
    found = find_recordings(tmp_path, None)
    assert [source.speaker for source in found] == sorted(path.name for path in tmp_path.glob("*.flac"))
    assert "each counts as a separate speaker" in capsys.readouterr().err


def test_a_table_names_speakers(few: Path, tmp_path: Path):
    names = sorted(str(path.relative_to(few)) for path in few.rglob("*.flac"))
    table = tmp_path / "speakers.csv"
    table.write_text("speaker,path\n" + "".join(f"Ann{i % 3},./{name}\n" for i, name in enumerate(names)))
    assert [(s.name, s.speaker) for s in find_recordings(few, table)] == [
        (n, f"Ann{i % 3}") for i, n in enumerate(names)
    ]


@pytest.mark.parametrize(
    "text", ["a.flac,Ann\n", "path,speaker\na.flac,\n", "path,speaker\na,Ann\n./a,Bob\n", "\0\xff"]
)
def test_a_table_of_another_kind_is_refused(tmp_path: Path, text: str):
    (tmp_path / "speakers.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match="speakers.csv"):
        find_recordings(tmp_path, tmp_path / "speakers.csv")


def test_groups_are_of_one_recording_and_small(few: Path):
    class Stub:
        def __init__(self, source):
            self.piece = type("Piece", (), {"source": source})

    groups = group_by_recording([Stub(source) for source in "aaaaabbc"], 3)
    assert [[u.piece.source for u in group] for group in groups] == [["a"] * 3, ["a"] * 2, ["b"] * 2, ["c"]]


# ---- what goes wrong ----------------------------------------------------------------------------------------------


def test_unreadable_and_short_recordings_are_named_and_the_rest_is_done(few: Path, tmp_path: Path):
    shutil.copytree(few, tmp_path / "in")
    bad = tmp_path / "in" / "broken"
    bad.mkdir()
    (bad / "noise.wav").write_bytes(b"no audio at all" * 50)
    soundfile.write(bad / "blip.wav", np.ones(800), 8000)
    done = make("--bonafide", tmp_path / "in", "--out", tmp_path / "out", "--attacks", "lpc", *SMALL)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    words = ("noise.wav", "recordings without 1 s of speech", "blip.wav")
    assert all(word in done.stderr for word in words), done.stderr
    assert "1 of " in done.stderr.splitlines()[-1]
    assert {row["speaker"] for row in sources(tmp_path / "out")} == {path.name for path in few.iterdir()}


def test_any_rate_channel_count_and_name_will_do(few: Path, tmp_path: Path):
    for number, path in enumerate(sorted(few.rglob("*.flac"))):
        samples = soundfile.read(path)[0]
        folder = tmp_path / "in" / f"Zoë, speaker {number}"
        folder.mkdir(parents=True)
        soundfile.write(folder / "a \"b\" 'c',d.wav", np.stack([samples, samples], axis=1)[::2], RATE // 2)
    assert make("--bonafide", tmp_path / "in", "--out", tmp_path / "out", "--attacks", "lpc", *SMALL).returncode == 0
    assert all(row["speaker"].startswith("Zoë, speaker ") for row in sources(tmp_path / "out"))


def test_an_interrupt_leaves_nothing(recordings: Path, tmp_path: Path):
    """Ctrl-C at a terminal reaches the command and its workers alike."""
    words = [ROOT / "make_corpus.py", "--bonafide", recordings, "--out", tmp_path / "corpus", *SMALL]
    process = subprocess.Popen(
        [sys.executable, *map(str, words)], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("*.flac")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "Traceback" not in errors
    assert not list(tmp_path.iterdir())


def test_an_older_corpus_is_replaced_and_anything_else_is_not(few: Path, tmp_path: Path):
    common = ("--bonafide", few, "--attacks", "lpc", "--out", tmp_path / "out", *SMALL)
    assert make(*common).returncode == 0
    before = digests(tmp_path / "out")
    (tmp_path / "out" / "stray.txt").write_text("")
    assert make(*common).returncode == 0 and digests(tmp_path / "out") == before
    (tmp_path / "out" / "corpus.json").write_text(json.dumps({"format": "AASIST demo corpus"}))
    assert_user_error(make(*common), "will not replace")
    assert (tmp_path / "out" / "sources.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--attacks", "hifigan"), "griffin_lim"),
        (("--eval_attacks", "x"), "griffin_lim"),
        (("--seconds", 8, 3), "--seconds"),
        (("--seconds", "nan", 3), "--seconds"),
        (("--split", 0.6, 0.4, 0), "--split"),
        (("--split", "inf", 1, 1), "--split"),
        (("--seed", -1), "--seed"),
        (("--spoofs", 0), "--spoofs"),
        (("--workers", -1), "--workers"),
        (("--speakers", "nowhere.csv"), "nowhere.csv"),
        (("--bonafide", "nowhere"), "nowhere"),
        (("--bonafide", __file__), "folder"),
        (("--out", "."), "--out"),
    ],
)
def test_bad_arguments_are_refused(few: Path, tmp_path: Path, arguments: tuple, word: str, monkeypatch):
    monkeypatch.chdir(few)
    words = ["make_corpus.py", "--bonafide", few, "--out", tmp_path / "out", *arguments]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    with pytest.raises(UserError, match=word):
        make_corpus.main()
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_is_named(tmp_path: Path):
    with pytest.raises(UserError, match="nothing in"):
        find_recordings(tmp_path, None)
