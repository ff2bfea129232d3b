import numpy as np
import pytest
import soundfile
import torch
from conftest import TINY_MODEL, Malice, assert_user_error, run_command

import audio
from config import Config
from data_utils import Corpus, score_loader
from inference import PUBLISHED_THRESHOLDS, Detector
from models import build_model
from utils import save_checkpoint

RATE = audio.SAMPLE_RATE


@pytest.fixture
def tiny(tmp_path) -> str:
    """A checkpoint of a tiny model with threshold 0."""
    torch.manual_seed(0)
    fields = {"config": {"model_config": TINY_MODEL}, "model": build_model(TINY_MODEL).state_dict(), "threshold": 0.0}
    save_checkpoint(tmp_path / "tiny.pth", fields)
    return str(tmp_path / "tiny.pth")


@pytest.mark.slow
def test_genuine_speech_scores_as_published(shared):
    """31 labelled eval files: scores, polarity and verdicts of the official checkpoint."""
    detector = Detector.from_checkpoint(shared / "fixtures" / "weights" / "AASIST.pth", "cpu")
    assert detector.threshold == pytest.approx(1.4934322834014893)
    lines = (shared / "fixtures" / "scores" / "aasist_official_la_eval.txt").read_text().splitlines()
    published = {line.split()[0]: float(line.split()[3]) for line in lines}
    trials = Corpus(shared / "data" / "LA_mini", "LA").partition("eval")
    scores = detector.score(score_loader(trials, detector.model.nb_samp, Config(model_config={}, num_workers=0)))
    expected = np.array([published[trial.utt_id] for trial in trials.trials])
    np.testing.assert_allclose(scores, expected, atol=0.002)
    assert [detector.verdict(score) for score in scores] == [trial.key for trial in trials.trials]


def test_published_threshold_belongs_to_the_official_file(shared):
    import hashlib

    data = (shared / "fixtures" / "weights" / "AASIST.pth").read_bytes()
    assert hashlib.sha256(data).hexdigest() in PUBLISHED_THRESHOLDS


def test_score_takes_arrays_tensors_and_batches_alike(tiny):
    detector = Detector.from_checkpoint(tiny, "cpu")
    x = torch.randn(20, TINY_MODEL["nb_samp"])
    whole = detector.score(x)
    assert whole.shape == (20,)
    np.testing.assert_allclose(detector.score(x.numpy()), whole, atol=1e-5)
    batches = [(x[:7], "labels"), (x[7:], "labels")]
    np.testing.assert_allclose(detector.score(batches), whole, atol=1e-5)
    np.testing.assert_allclose(whole, detector.model(x)[1][:, 1].detach(), atol=1e-5)
    assert detector.score([]).shape == (0,)


def test_scoring_leaves_the_mode_as_it_was(tiny):
    detector = Detector.from_checkpoint(tiny, "cpu")
    for training in (True, False):
        detector.model.train(training)
        detector.score(torch.randn(2, TINY_MODEL["nb_samp"]))
        assert detector.model.training is training


def test_file_is_scored_to_its_end(tiny, tmp_path):
    samples = 0.1 * np.random.default_rng(0).standard_normal(20_000).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    detector = Detector.from_checkpoint(tiny, "cpu")
    result = detector.score_file(tmp_path / "a.wav")
    np.testing.assert_allclose(result.chunk_starts, np.array([0, 8000, 12_000]) / RATE)
    last = detector.score(samples[None, 12_000:])
    np.testing.assert_allclose(result.chunk_scores[2], last[0], atol=1e-5)
    assert result.score == result.chunk_scores[0]
    assert result.seconds == 20_000 / RATE


def test_verdict_needs_a_threshold(tiny):
    detector = Detector.from_checkpoint(tiny, "cpu")
    assert [detector.verdict(score) for score in (-0.1, 0.0, 0.1)] == ["spoof", "spoof", "bonafide"]
    detector.threshold = None
    assert detector.verdict(5.0) is None


def test_command_prints_score_verdict_and_chunks(tiny, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.1, 0.1, 20_000), RATE)
    score = Detector.from_checkpoint(tiny, "cpu").score_file(tmp_path / "a.wav").score
    done = run_command("inference.py", "--model", tiny, "--audio", tmp_path / "a.wav", "--threshold", score - 1)
    assert done.returncode == 0, done.stderr
    assert "verdict    bona fide" in done.stdout
    assert f"score      {score:.4f}" in done.stdout
    assert "given by --threshold" in done.stdout
    assert done.stdout.count(" s  ") >= 3
    done = run_command("inference.py", "--model", tiny, "--audio", tmp_path / "a.wav", "--threshold", score + 1)
    assert "verdict    spoof" in done.stdout


def test_one_bad_file_of_several_is_named_and_the_rest_done(tiny, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.1, 0.1, 9000), RATE)
    done = run_command("inference.py", "--model", tiny, "--audio", tmp_path / "none.wav", tmp_path / "a.wav")
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot read audio") and "none.wav" in done.stderr
    assert "a.wav" in done.stdout
    assert_user_error(run_command("inference.py", "--model", tiny, "--audio", tmp_path / "none.wav"), "none.wav")


def test_wrong_arguments(tmp_path):
    assert_user_error(run_command("inference.py"), "--model")
    done = run_command("inference.py", "--model", tmp_path / "none.pth", "--audio", "x.wav")
    assert_user_error(done, "cannot read checkpoint", "none.pth")


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    torch.save({"format": 1, "config": {}, "model": Malice(tmp_path / "ran")}, tmp_path / "bad.pth")
    done = run_command("inference.py", "--model", tmp_path / "bad.pth", "--audio", "x.wav")
    assert_user_error(done, "bad.pth", "tensors and plain values only")
    assert not (tmp_path / "ran").exists()


def test_help_ends_well():
    done = run_command("inference.py", "--help")
    assert done.returncode == 0
    assert "higher = more bona fide" in done.stdout
