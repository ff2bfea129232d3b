"""demo_corpus.py: layout, determinism, disjoint speakers and attacks; no trivial cue separates the classes."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_curve
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import demo_corpus
from audio import SAMPLE_RATE as RATE
from common.errors import UserError
from corpora.demo import ATTACKS, PARTITIONS, DemoSettings, DemoTrial, build_demo_corpus, make_utterance

ROOT = Path(demo_corpus.__file__).parent
SMALL = DemoSettings(7, 3, (7, 4, 4))
PROTOCOLS = {"train": "train.trn", "dev": "dev.trl", "eval": "eval.trl"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """The default corpus, with a small eval partition."""
    folder = tmp_path_factory.mktemp("demo") / "corpus"
    assert build_demo_corpus(folder, DemoSettings(1234, 12, (240, 100, 12)), workers=2)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A corpus of a few utterances, made by one worker."""
    folder = tmp_path_factory.mktemp("demo") / "small"
    assert build_demo_corpus(folder, SMALL, workers=1)
    return folder


def protocol(folder: Path, partition: str) -> list[list[str]]:
    """The columns of a protocol's lines."""
    path = folder / "ASVspoof2019_LA_cm_protocols" / f"ASVspoof2019.LA.cm.{PROTOCOLS[partition]}.txt"
    return [line.split(" ") for line in path.read_text().splitlines()]


def audio(folder: Path, partition: str, utt_id: str) -> np.ndarray:
    """Samples (samples,) float64 of one utterance, after checking its format."""
    path = folder / f"ASVspoof2019_LA_{partition}" / "flac" / f"{utt_id}.flac"
    info = soundfile.info(path)
    assert (info.samplerate, info.channels, info.format, info.subtype) == (RATE, 1, "FLAC", "PCM_16")
    return soundfile.read(path)[0]


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file by its relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def command(*arguments: object) -> subprocess.CompletedProcess:
    """`python demo_corpus.py <arguments>`."""
    words = [sys.executable, ROOT / "demo_corpus.py", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("partition", PARTITIONS)
def test_protocol_and_audio_are_in_the_official_layout(corpus: Path, partition: str):
    lines = protocol(corpus, partition)
    for _, utt_id, dash, attack, key in lines:
        assert re.fullmatch(f"LA_{partition[0].upper()}_\\d{{7}}", utt_id) and dash == "-"
        assert key == ("bonafide" if attack == "-" else "spoof")
    assert all(re.fullmatch(r"LA_\d{4}", line[0]) for line in lines)
    files = {path.stem for path in (corpus / f"ASVspoof2019_LA_{partition}" / "flac").glob("*.flac")}
    assert files == {line[1] for line in lines} and len(files) == len(lines)
    assert sum(line[4] == "bonafide" for line in lines) == len(lines) // 2
    for line in lines:
        wave = audio(corpus, partition, line[1])
        assert 1.5 * RATE - 400 <= len(wave) <= 2.5 * RATE + 400  # whole frames of the talker
        assert wave.std() > 0.003 and np.abs(wave).max() < 0.999  # neither silence nor clipping


def test_asv_scores_define_the_tandem_cost(corpus: Path):
    for partition in ("dev", "eval"):
        name = f"ASVspoof2019.LA.asv.{partition}.gi.trl.scores.txt"
        lines = [line.split(" ") for line in (corpus / "ASVspoof2019_LA_asv_scores" / name).read_text().splitlines()]
        scores = {kind: np.array([float(s) for _, k, s in lines if k == kind]) for kind in ("target", "nontarget")}
        labels = np.repeat([1, 0], [len(scores["target"]), len(scores["nontarget"])])
        assert 0.005 < eer(np.concatenate([scores["target"], scores["nontarget"]]), labels) < 0.06
        attacks = {attack for attack, kind, _ in lines if kind == "spoof"}
        assert attacks == {line[3] for line in protocol(corpus, partition)} - {"-"}
        spoofs = np.array([float(s) for _, kind, s in lines if kind == "spoof"])
        assert np.mean(spoofs > np.quantile(scores["target"], 0.05)) > 0.2  # a verifier alone is fooled


def test_speakers_are_disjoint_and_eval_attacks_are_unseen(corpus: Path):
    speakers = {name: {line[0] for line in protocol(corpus, name)} for name in PARTITIONS}
    assert not (speakers["train"] & speakers["dev"] or speakers["train"] & speakers["eval"])
    assert not speakers["dev"] & speakers["eval"]
    attacks = {name: {line[3] for line in protocol(corpus, name)} - {"-"} for name in PARTITIONS}
    assert attacks["train"] == attacks["dev"] == {f"A0{n}" for n in range(1, 7)}
    assert attacks["eval"] == {f"A{n:02d}" for n in range(7, 13)} == set(ATTACKS) - attacks["train"]


def test_files_depend_on_the_seed_alone(small: Path, tmp_path: Path):
    assert build_demo_corpus(tmp_path / "two", SMALL, workers=2)
    assert digests(tmp_path / "two") == digests(small)
    one, other = (make_utterance(DemoSettings(seed, 3, (7, 4, 4)), DemoTrial("train", 1, 0, 0, "-")) for seed in (7, 8))
    assert not np.array_equal(one[:8000], other[:8000])


@pytest.mark.parametrize("attack", ["-", *ATTACKS])
def test_every_vocoder_is_finite_unclipped_and_its_own(attack: str):
    wave = make_utterance(SMALL, DemoTrial("train", 1, 0, 0, attack)).astype(float)
    plain = make_utterance(SMALL, DemoTrial("train", 1, 0, 0, "-")).astype(float)
    assert len(wave) == len(plain) and wave.std() == pytest.approx(plain.std(), rel=0.01)
    assert np.abs(wave).max() < 32767  # int16: NaN would have become the extreme
    assert (np.corrcoef(wave, plain)[0, 1] > 0.999) == (attack == "-")


# ---- no shortcut --------------------------------------------------------------------------------------------------


def eer(scores: np.ndarray, labels: np.ndarray) -> float:
    """Equal error rate as a fraction."""
    far, hit, _ = roc_curve(labels, scores)
    at = np.argmin(np.abs(far - (1 - hit)))
    return (far[at] + 1 - hit[at]) / 2


def trivial_cues(wave: np.ndarray) -> dict[str, list[float]]:
    """Level (dB), duration (s), leading and trailing quiet (s), bandwidth (Hz, Hz, dB) of (samples,)."""
    energy = np.convolve(wave**2, np.ones(160) / 160, "same")
    loud = np.flatnonzero(energy > energy.max() / 1000)
    power, hertz = np.abs(np.fft.rfft(wave)) ** 2, np.fft.rfftfreq(len(wave), 1 / RATE)
    rolloff = hertz[np.searchsorted(np.cumsum(power) / power.sum(), [0.95, 0.99])]
    return {
        "level": [20 * np.log10(wave.std())],
        "duration": [len(wave) / RATE],
        "quiet": [loud[0] / RATE, (len(wave) - 1 - loud[-1]) / RATE],
        "bandwidth": [*rolloff, 10 * np.log10(power[hertz > 7000].sum() / power.sum())],
    }


@pytest.fixture(scope="module")
def cues(corpus: Path) -> dict[str, tuple[list[dict], np.ndarray]]:
    """Cues and labels of train and dev."""
    lines = {name: protocol(corpus, name) for name in ("train", "dev")}
    labels = {name: np.array([line[4] == "bonafide" for line in lines[name]]) for name in lines}
    return {name: ([trivial_cues(audio(corpus, name, x[1])) for x in lines[name]], labels[name]) for name in lines}


@pytest.mark.parametrize(
    ("names", "least"),
    [(["level"], 0.38), (["duration"], 0.38), (["quiet"], 0.38), (["bandwidth"], 0.38), ([], 0.4)],
)
def test_level_duration_silence_and_bandwidth_do_not_tell_the_classes_apart(cues: dict, names: list, least: float):
    names = names or ["level", "duration", "quiet", "bandwidth"]
    x = {part: np.array([[x for name in names for x in cue[name]] for cue in cues[part][0]]) for part in cues}
    classifier = make_pipeline(StandardScaler(), LogisticRegression()).fit(x["train"], cues["train"][1])
    assert eer(classifier.decision_function(x["dev"]), cues["dev"][1]) >= least


# ---- what may stand in the output folder --------------------------------------------------------------------------


def test_a_complete_corpus_is_left_alone_and_a_damaged_or_other_one_rebuilt(small: Path, tmp_path: Path):
    assert not build_demo_corpus(small, SMALL, workers=1)
    folder = tmp_path / "corpus"
    settings = DemoSettings(1, 2, (3, 2, 2))
    assert build_demo_corpus(folder, settings, workers=2)
    before = digests(folder)
    for pattern in ("*_dev/flac/*.flac", "*_cm_protocols/*.txt"):
        next(folder.glob(pattern)).unlink()
        assert build_demo_corpus(folder, settings, workers=2) and digests(folder) == before
    (folder / "corpus.json").write_text(json.dumps(json.loads((folder / "corpus.json").read_text()) | {"seed": 2}))
    assert build_demo_corpus(folder, settings, workers=2) and digests(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]


def test_an_interrupted_build_leaves_nothing(tmp_path: Path):
    """Ctrl-C at a terminal reaches the command and its workers alike."""
    words = [sys.executable, ROOT / "demo_corpus.py", "--output_dir", tmp_path / "corpus"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("*.flac")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "Traceback" not in errors
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["thesis.txt", "corpus.json"])
def test_a_folder_of_something_else_is_never_replaced(tmp_path: Path, content: str):
    (tmp_path / content).write_text("[1]")
    result = command("--output_dir", tmp_path)
    assert result.returncode == 2 and result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert (tmp_path / content).read_text() == "[1]"


@pytest.mark.parametrize(
    "arguments",
    [("--seed", -1), ("--utterances", 12, 12, 3), ("--speakers", 0), ("--seed", "x"), ("--output_dir", __file__)],
)
def test_bad_arguments_are_refused(arguments: tuple, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["demo_corpus.py", *map(str, arguments)])
    with pytest.raises(UserError):
        demo_corpus.main()


def test_an_unwritable_place_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        build_demo_corpus(tmp_path / "file" / "corpus", SMALL, workers=1)
