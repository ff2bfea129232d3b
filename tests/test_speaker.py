"""--reference: what is said of a speaker, and when nothing is.

The embeddings are made here; one test needs Resemblyzer.
"""

from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from conftest import assert_user_error, run_command, save_tiny

from common.errors import UserError
from scoring import speaker
from scoring.detector import Detector
from scoring.speaker import ChunkLikeness, Reference, likeness_text

RATE = 16_000

pytestmark = pytest.mark.usefixtures("one_thread")


def voice(direction: int, spread: float, count: int, seed: int = 0) -> np.ndarray:
    """(count, 256) embeddings around an axis, apart in four others."""
    x = np.repeat(np.eye(256)[direction : direction + 1], count, axis=0)
    x[:, 100:104] = spread / 2 * np.random.default_rng(seed).standard_normal((count, 4))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def reference(count: int = 8, seconds: float = 30.0, recordings: int = 4) -> Reference:
    return Reference(voice(0, 0.4, count), [i * recordings // count for i in range(count)], seconds, None)


def judged(of: Reference, embeddings: np.ndarray) -> speaker.Likeness:
    return of.judge([ChunkLikeness(0.0, 4.0, float(x @ of.centre)) for x in embeddings])


def test_the_same_and_another_voice():
    same, other = (judged(reference(), voice(axis, 0.4, 5, seed=1)) for axis in (0, 7))
    assert (same.verdict, other.verdict) == ("similar", "dissimilar")
    assert same.own_below > 0.1 and other.own_below < 1e-4
    assert "as similar as this person's own" in same.statement
    assert "less similar than 99 % and more" in other.statement
    assert likeness_text(other).endswith("4 recordings, 30 s; no proof of identity")
    assert other.to_dict()["chunks"][0].keys() == {"start", "end", "similarity"}


def test_fractions_are_those_of_new_recordings_of_the_same_voice():
    """Five percent of them are called dissimilar, from few references, too."""
    flagged = []
    for seed in range(300):
        made = voice(0, 0.4, 13, seed)
        of = Reference(made[:12], [i // 3 for i in range(12)], 30.0, None)
        flagged.append(judged(of, made[12:]).verdict == "dissimilar")
    assert 0.005 < np.mean(flagged) < 0.09


def test_too_little_says_nothing():
    few = judged(reference(seconds=9.9), voice(0, 0.4, 3))
    assert few.verdict == "abstain" and "9.9 s of sound, 10 s are needed" in few.statement
    assert judged(reference(), voice(0, 0.4, 0)).statement == "cannot say: no sound"


def test_own_similarities_leave_their_recording_out():
    """Chunks of one recording are nearly equal, which says nothing about other days."""
    days = np.repeat(voice(0, 1.0, 4), 5, axis=0)
    of = Reference(days, [i // 5 for i in range(20)], 60.0, None)
    assert of.own.max() < 0.95
    assert Reference(days[:5], [0] * 5, 60.0, None).own.min() > 0.999


class FakeEncoder:
    """The spectrum's lower bins, which tell tones apart."""

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        spectrum = np.abs(np.fft.rfft(samples[:1600]))[:256]
        return (spectrum / np.linalg.norm(spectrum)).astype(np.float32)


def write_tone(path, hertz: float, seconds: float, seed: int) -> None:
    t = np.arange(int(seconds * RATE)) / RATE
    noise = 0.01 * np.random.default_rng(seed).standard_normal(len(t))
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * hertz * t) + noise, RATE)


@pytest.fixture
def known(tmp_path, monkeypatch):
    """Three recordings of a tone, and an encoder that needs no package."""
    monkeypatch.setattr(speaker, "Encoder", FakeEncoder)
    (tmp_path / "known").mkdir()
    for number in range(3):
        write_tone(tmp_path / "known" / f"{number}.wav", 500, 5, number)
    return tmp_path / "known"


def test_each_chunk_is_compared_beside_its_score(known, tmp_path):
    detector = Detector.from_checkpoint(save_tiny(tmp_path / "tiny.pth"), "cpu")
    of = Reference.of_files(sorted(known.iterdir()), detector.engine.nb_samp)
    assert of.recordings == 3 and of.seconds == pytest.approx(15, abs=0.5)
    judge = detector.judge(0.0, None, of)
    for name, hertz in (("same", 500), ("other", 1500)):
        write_tone(tmp_path / f"{name}.wav", hertz, 3, 9)
    same, other = (detector.score_file(tmp_path / f"{name}.wav", judge) for name in ("same", "other"))
    assert (same.reference.verdict, other.reference.verdict) == ("similar", "dissimilar")
    assert [chunk.start for chunk in same.reference.chunks] == [chunk.start for chunk in same.chunks]
    assert judge.header()["reference"]["recordings"] == 3
    assert detector.score_file(tmp_path / "same.wav").to_dict()["reference"] is None


def test_a_broken_reference_is_named(known):
    (known / "broken.wav").write_bytes(b"RIFF")
    with pytest.raises(UserError, match=r"--reference .*broken.wav"):
        Reference.of_files(sorted(known.iterdir()), 8000)


def test_the_encoder_takes_the_packages_weights_without_importing_it(tmp_path, monkeypatch):
    """Random ones of the same form: an embedding of length 1, whatever the level above silence."""
    torch.manual_seed(0)
    parts = {"lstm": torch.nn.LSTM(40, 256, 3), "linear": torch.nn.Linear(256, 256)}
    state = {f"{name}.{key}": x for name, part in parts.items() for key, x in part.state_dict().items()}
    torch.save({"model_state": state | {"similarity_weight": torch.ones(1)}, "step": 1}, tmp_path / "pretrained.pt")
    monkeypatch.setattr(speaker, "find_spec", lambda name: SimpleNamespace(origin=tmp_path / "__init__.py"))
    encoder, x = speaker.Encoder(), 0.001 * np.random.default_rng(0).standard_normal(4 * RATE)
    embedding = encoder(x)
    assert embedding.shape == (256,) and np.linalg.norm(embedding) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(encoder(2 * x), embedding, atol=1e-5)


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(speaker, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="--reference needs Resemblyzer.*pip install --no-deps"):
        speaker.Encoder()


def test_a_stream_has_no_reference(tmp_path):
    done = run_command("inference.py", "--stream", "-", "--reference", tmp_path, input="")
    assert_user_error(done, "--reference goes with files")


@pytest.mark.skipif(find_spec("resemblyzer") is None, reason="needs requirements-speaker.txt")
def test_real_speakers_are_told_apart(shared):
    """Two people of 2019 LA, three recordings each."""
    protocol = shared / "data" / "LA_mini" / "ASVspoof2019_LA_cm_protocols" / "ASVspoof2019.LA.cm.train.trn.txt"
    lines = [line.split() for line in protocol.read_text().splitlines()]
    folder = shared / "data" / "LA_mini" / "ASVspoof2019_LA_train" / "flac"
    encoder, voices = speaker.Encoder(), {}
    for person in ("LA_0079", "LA_0080"):
        names = [line[1] for line in lines if line[0] == person and line[4] == "bonafide"][:3]
        voices[person] = np.stack([encoder(soundfile.read(folder / f"{name}.flac")[0]) for name in names])
    a, b = voices.values()
    assert (a @ a.T).min() > (a @ b.T).max()
