import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import ROOT, TINY_MODEL, Malice, assert_user_error, run_command, save_tiny
from spoken import spoken
from test_audio import mutants

from audio import SAMPLE_RATE, decoding_workers, reading
from corpora.asvspoof import ASVspoof2019
from corpora.trials import Partition
from evaluation import read_scores
from metrics.error_rates import compute_eer
from scoring.batch import BatchOutputs, score_batch
from scoring.detector import Detector
from scoring.figure import draw_result
from scoring.weights import BUNDLED
from scoring.words import verdict_rows

RATE = SAMPLE_RATE


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    """A checkpoint of a tiny model as training leaves it: threshold 0, calibration, dev scores."""
    return str(save_tiny(tmp_path_factory.mktemp("weights") / "tiny.pth"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve files of 0.2 to 3 s of speech, f00.wav to f11.wav, one of them in a folder below."""
    folder = tmp_path_factory.mktemp("audio")
    (folder / "below").mkdir()
    for number, seconds in enumerate(np.linspace(0.2, 3.0, 12)):
        name = f"f{number:02}.wav" if number < 11 else "below/f11.wav"
        soundfile.write(folder / name, spoken(float(seconds), number), RATE)
    return folder


@pytest.fixture(scope="module")
def official(shared) -> Detector:
    return Detector.from_checkpoint(shared / "fixtures" / "weights" / "AASIST.pth", "cpu")


def results(path) -> list[dict]:
    document = json.loads(path.read_text())
    assert document["schema"] == "aasist.inference/2"
    return document["results"]


def genuine(shared) -> Partition:
    return ASVspoof2019(shared / "data" / "LA_mini", "LA").partition("eval")


# ------------------------------------------------------------------------------------------------- genuine speech


@pytest.mark.slow
def test_genuine_speech_scores_as_published(shared, official):
    """31 labelled eval files: scores, polarity and verdicts of the official checkpoint."""
    lines = (shared / "fixtures" / "scores" / "aasist_official_la_eval.txt").read_text().splitlines()
    published = {line.split()[0]: float(line.split()[3]) for line in lines}
    partition = genuine(shared)
    paths = [partition.path(trial) for trial in partition.trials]
    mean, first = official.judge(unclear=0.0), official.judge(aggregate="first")
    assert mean.settings.threshold == pytest.approx(1.4934322834014893)
    found = list(official.score_files(paths, mean, workers=1))
    assert [result.path for result in found] == paths
    assert [result.verdict for result in found] == [trial.key for trial in partition.trials]
    scores = [first.aggregate(result.chunks) for result in found]
    np.testing.assert_allclose(scores, [published[trial.utt_id] for trial in partition.trials], atol=0.002)
    assert sum(len(result.chunks) > 1 for result in found) == 8


@pytest.mark.slow
def test_spliced_spoof_is_found_and_not_averaged_away(shared, official, tmp_path):
    """4 s of a spoof in 40 s of bona fide speech: the file is mixed and the passage overlaps the splice."""
    partition = genuine(shared)
    speech = {
        key: [reading.read(partition.path(t)) for t in partition.trials if t.key == key]
        for key in ("bonafide", "spoof")
    }
    bonafide = np.concatenate([*speech["bonafide"], *speech["bonafide"]])[: 40 * RATE]
    spoof = max(speech["spoof"], key=len)[: 4 * RATE]
    assert len(bonafide) == 40 * RATE and len(spoof) == 4 * RATE
    samples = np.concatenate([bonafide[: 20 * RATE], spoof, bonafide[20 * RATE :]])
    soundfile.write(tmp_path / "spliced.flac", samples, RATE)
    lowest, mean = official.judge(aggregate="min"), official.judge()
    result = official.score_file(tmp_path / "spliced.flac", lowest)
    assert result.finding == "mixed" and result.worst.score == result.score
    usual = mean(result.path, official_facts(result), result.chunks)
    assert usual.finding == "mixed" and usual.score > mean.settings.threshold
    assert usual.decisive.start < 24 and usual.decisive.end > 20


def official_facts(result) -> reading.RecordingFacts:
    return reading.RecordingFacts(rate=RATE, channels=1, seconds=result.seconds, active_seconds=result.seconds)


@pytest.mark.slow
def test_polarity_on_labelled_speech_in_every_output(shared, tmp_path):
    """Fails if bona fide and spoof were swapped in the text, the JSON, its timeline, the CSV or the score file."""
    partition = genuine(shared)
    trials = [next(t for t in partition.trials if t.key == key) for key in ("bonafide", "spoof")]
    weights = shared / "fixtures" / "weights" / "AASIST.pth"
    outputs = {name: tmp_path / name for name in ("r.json", "r.csv", "s.txt")}
    options = ["--save_json", outputs["r.json"], "--save_csv", outputs["r.csv"], "--scores", outputs["s.txt"]]
    done = run_command(
        "inference.py", "--model", weights, "--unclear", 0, "--audio", *map(partition.path, trials), *options
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("likely genuine ") and lines[1].startswith("likely synthetic ")
    found = results(outputs["r.json"])
    assert [result["verdict"] for result in found] == ["bonafide", "spoof"]
    for result, sign in zip(found, (1, -1), strict=True):
        assert all(sign * (chunk["score"] - 1.4934322834014893) > 0 for chunk in result["chunks"])
        assert bool(result["regions"]) is (sign < 0)
    with outputs["r.csv"].open(newline="") as file:
        assert [row["verdict"] for row in csv.DictReader(file)] == ["bonafide", "spoof"]
    scores = dict(line.split() for line in outputs["s.txt"].read_text().splitlines())
    high, low = (float(scores[trial.utt_id]) for trial in trials)
    assert high > 1.4934322834014893 > low


@pytest.mark.slow
def test_numbers_of_lcnn_mixeds_card_on_mixed_dev(shared):
    """All attacks together, and each attack that was not in training; files are scored whole, as by the command."""
    detector = Detector.from_checkpoint("LCNN-mixed", "cpu", "torch")
    partition = ASVspoof2019(shared / "data" / "mixed", "LA").partition("dev")
    judge, paths = detector.judge(), [partition.path(trial) for trial in partition.trials]
    scores = np.array([result.score for result in detector.score_files(paths, judge, workers=2)])
    bonafide, attack = partition.is_bonafide(), np.array([trial.attack for trial in partition.trials])
    card = (ROOT / "docs" / "LCNN-mixed.md").read_text()
    said = dict(re.findall(r"^\| \**([\w ]+?)\**(?:, not in training)? \| [\d /]+ \| ([\d.]+)", card, re.MULTILINE))
    groups = {"mixed dev": ~bonafide} | {name: attack == name for name in set(attack) - {"-"}}
    for name, chosen in groups.items():
        eer = 100 * compute_eer(scores[bonafide], scores[chosen]).eer
        assert eer == pytest.approx(float(said[name]), abs=0.6), name  # another processor may move a clip or two


def test_the_bundled_detector_is_the_default(shared, tmp_path):
    partition = genuine(shared)
    done = run_command(
        "inference.py", "--audio", partition.path(partition.trials[0]), "--save_json", tmp_path / "r.json"
    )
    assert done.returncode == 0 and BUNDLED in done.stdout, done.stderr
    document = json.loads((tmp_path / "r.json").read_text())
    assert document["model"]["name"] == BUNDLED and "it never met is judged wrongly" in document["caution"]
    assert document["results"][0]["probability_spoof"] is not None


def test_every_genuine_2021_file_is_scored(shared, tiny):
    """libsndfile cannot decode 13 of these 30 files."""
    paths = sorted((shared / "data" / "LA21_mini" / "flac").glob("*.flac"))
    detector = Detector.from_checkpoint(tiny, "cpu")
    found = list(detector.score_files(paths, detector.judge(overlap=0.0), workers=2))
    assert [result.path for result in found] == paths
    assert all(result.error is None and np.isfinite(result.score) for result in found)


# -------------------------------------------------------------------------------------------------------- Detector


def test_score_takes_arrays_tensors_and_batches_alike(tiny):
    detector = Detector.from_checkpoint(tiny, "cpu")
    x = torch.randn(20, TINY_MODEL["nb_samp"])
    whole = detector.score(x)
    assert whole.shape == (20,)
    np.testing.assert_allclose(detector.score(x.numpy()), whole, atol=1e-5)
    batches = [(x[:7], "labels"), (x[7:], "labels")]
    np.testing.assert_allclose(detector.score(batches), whole, atol=1e-5)
    np.testing.assert_allclose(whole, detector.engine.model(x)[1][:, 1].detach(), atol=1e-5)
    assert detector.score([]).shape == (0,)


def test_timeline_covers_a_file_to_its_end(tiny, tmp_path):
    samples = 0.1 * np.random.default_rng(0).standard_normal(21_000).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    detector = Detector.from_checkpoint(tiny, "cpu")
    result = detector.score_file(tmp_path / "a.wav", detector.judge(overlap=0.25))
    starts = [0, 6000, 12_000, 13_000]
    assert [chunk.start for chunk in result.chunks] == [start / RATE for start in starts]
    assert [chunk.end for chunk in result.chunks] == [(start + 8000) / RATE for start in starts]
    expected = detector.score(np.stack([samples[start : start + 8000] for start in starts]))
    np.testing.assert_allclose([chunk.score for chunk in result.chunks], expected, atol=1e-5)
    assert result.score == pytest.approx(expected.mean(), abs=1e-5)
    assert result.seconds == 21_000 / RATE


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_across_files_change_nothing(tiny, folder, workers):
    detector = Detector.from_checkpoint(tiny, "cpu")
    judge = detector.judge()
    paths = [folder / "none.wav", *sorted(folder.rglob("*.wav"))]
    progress = []
    found = list(detector.score_files(paths, judge, workers, progress.append))
    assert sum(progress) == pytest.approx(sum(result.seconds or 0 for result in found))
    assert [result.path for result in found] == paths
    assert found[0].error and found[0].score is None
    for result in found[1:]:
        alone = detector.score_file(result.path, judge)
        assert result.verdict == alone.verdict
        np.testing.assert_allclose(np.array(result.chunks), np.array(alone.chunks), atol=1e-5)


def test_silent_chunks_have_no_score(tiny, tmp_path):
    samples = 0.1 * np.random.default_rng(0).standard_normal(24_000)
    samples[8000:16_000] = 0
    soundfile.write(tmp_path / "a.wav", samples, RATE)
    detector = Detector.from_checkpoint(tiny, "cpu")
    result = detector.score_file(tmp_path / "a.wav", detector.judge(overlap=0))
    scores = [chunk.score for chunk in result.chunks]
    assert scores[1] is None and result.score == pytest.approx((scores[0] + scores[2]) / 2)
    soundfile.write(tmp_path / "b.wav", np.zeros(24_000), RATE)
    result = detector.score_file(tmp_path / "b.wav")
    assert (result.verdict, result.score) == ("abstain", None)
    assert [condition.name for condition in result.conditions] == ["silent"]


@pytest.mark.parametrize("piece", [641, 100_000])  # bytes: about 20 ms, cut within a sample; all at once
def test_stream_in_pieces_gives_the_file_s_chunks(tiny, tmp_path, piece):
    class Pipe(io.BytesIO):
        def read1(self, size=-1):
            return self.read(min(size, piece))

    samples = (3000 * np.random.default_rng(0).standard_normal(30_123)).astype("<i2")
    soundfile.write(tmp_path / "a.wav", samples, RATE)
    detector = Detector.from_checkpoint(tiny, "cpu")
    result = detector.score_file(tmp_path / "a.wav", detector.judge(overlap=0.5))
    streamed = list(detector.score_stream(Pipe(samples.tobytes()), 4000))
    np.testing.assert_allclose(np.array(streamed), np.array(result.chunks), atol=1e-5)


def test_a_model_that_gives_nan_is_an_error(tiny, folder):
    detector = Detector.from_checkpoint(tiny, "cpu")
    with torch.no_grad():
        detector.engine.model.out_layer.bias.fill_(float("nan"))
    with pytest.raises(Exception, match="is the checkpoint sound"):
        detector.score_file(folder / "f05.wav")


# --------------------------------------------------------------------------------------------------------- command


def test_command_reports_one_file(tiny, folder):
    detector = Detector.from_checkpoint(tiny, "cpu")
    score = detector.score_file(folder / "f10.wav").score
    for threshold, verdict in ((score - 1, "likely genuine"), (score + 1, "likely synthetic")):
        done = run_command(
            "inference.py", "--model", tiny, "--audio", folder / "f10.wav", "--threshold", threshold, "--unclear", 0
        )
        assert done.returncode == 0, done.stderr
        assert f"verdict      {verdict}\n" in done.stdout
        assert f"score        {score:.4f}   (mean of" in done.stdout
        assert "given by --threshold" in done.stdout and "trained on made_up (track LA)" in done.stdout
        assert ("suspicious" in done.stdout) is (verdict == "likely synthetic")


def test_target_far_prior_and_aggregate_reach_the_result(tiny, folder, tmp_path):
    options = [
        "--target_far",
        "0.25",
        "--prior_spoof",
        "0.1",
        "--aggregate",
        "median",
        "--overlap",
        "0",
        "--unclear",
        "0",
    ]
    done = run_command(
        "inference.py", "--model", tiny, "--audio", folder / "f10.wav", *options, "--save_json", tmp_path / "r"
    )
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "r").read_text())
    settings, (result,) = document["settings"], document["results"]
    assert settings["threshold"] == 0.25 and "25 % of 4 dev spoofs" in settings["threshold_source"]
    assert (settings["prior_spoof"], settings["aggregate"], settings["overlap"]) == (0.1, "median", 0.0)
    assert result["llr"] == pytest.approx(2 * result["score"] + 0.5)
    assert result["probability_spoof"] == pytest.approx(1 / (1 + 9 * np.exp(result["llr"])))
    assert document["engine"] == {"name": "torch", "precision": "fp32"}


def test_commands_of_earlier_detectors_work_as_written(tiny, folder, tmp_path):
    """… --model weights/swa.pth --audio_dir samples/ --batch --save_json, and … --audio sample.mp3 --visualize."""
    (tmp_path / "samples").symlink_to(folder)
    done = in_folder(tmp_path, "--model", tiny, "--audio_dir", "samples/", "--batch", "--save_json")
    assert done.returncode == 0, done.stderr
    found = results(tmp_path / "inference_results" / "results.json")
    assert [result["file"] for result in found] == [f"samples/f{number:02}.wav" for number in range(11)]
    assert len(done.stdout.splitlines()) == 11
    assert re.search(r"11 files: .*min of audio, [\d.]+ h an hour", done.stderr)
    samples = np.random.default_rng(0).uniform(-0.3, 0.3, 2 * RATE)
    soundfile.write(tmp_path / "sample.mp3", samples, RATE)
    done = in_folder(tmp_path, "--model", tiny, "--audio", "sample.mp3", "--explain")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "inference_results" / "sample.png").read_bytes().startswith(b"\x89PNG")


def test_an_explicit_path_is_used_as_given(tiny, folder, tmp_path):
    """Only the flag without a path writes below the output folder, also when the path is the default's own name."""
    options = ["--model", tiny, "--audio", folder / "f05.wav", "--output_dir", "out"]
    done = in_folder(tmp_path, *options, "--save_json", "results.json", "--save_csv", "results.csv")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"results.json", "results.csv"}
    done = in_folder(tmp_path, *options, "--save_json", "--save_csv")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"results.json", "results.csv"}


def in_folder(folder, *arguments: object, **options) -> subprocess.CompletedProcess:
    """inference.py, started in another folder."""
    command = [sys.executable, str(ROOT / "inference.py"), *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=600, **options)


def test_ways_to_name_files(tiny, folder, tmp_path):
    (folder / "notes.txt").write_text("no audio")
    done = run_command("inference.py", "--model", tiny, "--audio_dir", folder, "--recursive")
    assert len(done.stdout.splitlines()) == 12 and "1 left out, no ending of audio or video" in done.stderr
    names = f"{folder}/f01.wav\n\n{folder}/f02.wav\n{folder}/f01.wav\n"
    (tmp_path / "list.txt").write_text(names)
    from_file = run_command("inference.py", "--model", tiny, "--list", tmp_path / "list.txt")
    from_stdin = run_command("inference.py", "--model", tiny, "--list", "-", input=names)
    assert len(from_file.stdout.splitlines()) == 2
    assert from_file.stdout == from_stdin.stdout
    dashed = Path(shutil.copy(folder / "f01.wav", tmp_path / "-f01.wav")).name
    assert in_folder(tmp_path, "--model", tiny, "--", dashed, folder / "f02.wav").stdout.count("f0") == 2


def test_bad_files_are_named_and_the_others_scored(tiny, folder, tmp_path):
    (tmp_path / "text.m4a").write_text("this is no audio\n" * 100)
    files = [tmp_path / "none.wav", folder / "f03.wav", tmp_path / "text.m4a", folder / "f04.wav"]
    outputs = ["--save_json", tmp_path / "r.json", "--scores", tmp_path / "s.txt", "--save_csv", tmp_path / "r.csv"]
    done = run_command("inference.py", "--model", tiny, "--audio", *files, *outputs)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for name in ("none.wav", "text.m4a"):
        assert re.search(rf"^error: cannot read audio \S*{name}", done.stderr, re.MULTILINE), done.stderr
        assert re.search(rf"^error: \S*{name} has no score", done.stderr, re.MULTILINE), done.stderr
    found = results(tmp_path / "r.json")
    assert [result["finding"] == "cannot_say" for result in found] == [True, False, True, False]
    assert [result["conditions"][0]["name"] for result in found[::2]] == ["missing", "unreadable"]
    assert len((tmp_path / "s.txt").read_text().splitlines()) == 2
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 5
    assert_user_error(run_command("inference.py", "--model", tiny, "--audio", tmp_path / "none.wav"), "none.wav")


def test_the_figure_agrees_with_the_verdict(tiny, folder):
    """Fails if bona fide and spoof were swapped in a figure: its words, its marks, its regions."""
    detector = Detector.from_checkpoint(tiny, "cpu")
    score = detector.score_file(folder / "f05.wav").score
    for threshold, words, rejected in ((score - 9, "likely genuine", False), (score + 9, "likely synthetic", True)):
        judge = detector.judge(threshold=threshold, unclear=0.0)
        result = detector.score_file(folder / "f05.wav", judge)
        figure = draw_result(result, judge, None, verdict_rows(result, judge))
        assert words in [text.get_text() for text in figure.texts]
        marks = {line.get_marker() for line in figure.axes[-1].lines if np.isfinite(line.get_ydata()).any()}
        assert marks & {"o", "X"} == {"X" if rejected else "o"}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_figure_needs_no_second_decoding(tiny, folder, tmp_path, monkeypatch, workers):
    decoded = []

    def counting(plain):
        def iterate(recording):
            decoded.append(Path(recording.path))
            yield from plain(recording)

        return iterate

    for kind in (reading.Recording, decoding_workers.RemoteRecording):
        monkeypatch.setattr(kind, "__iter__", counting(kind.__iter__))
    detector = Detector.from_checkpoint(tiny, "cpu")
    outputs = BatchOutputs(figures=tmp_path, explain=True)
    failures = score_batch(detector, detector.judge(), [folder / "f05.wav"], outputs, workers, lambda result: None)
    assert failures == (0, 0)
    assert decoded == [folder / "f05.wav"]
    assert {path.name for path in tmp_path.iterdir()} == {"f05.png", "f05.pdf"}


@pytest.mark.parametrize("workers", [0, 2])
def test_kept_samples_are_those_of_the_file(tiny, folder, workers):
    detector = Detector.from_checkpoint(tiny, "cpu")
    paths = [folder / f"{name}.wav" for name in ("f02", "none", "f10", "f04")]  # 0.7, 2.7 and 1.2 s
    found = [scored.samples for scored in detector.score_recordings(paths, detector.judge(), workers, keep_seconds=2)]
    assert found[1:3] == [None, None]
    for path, samples in zip(paths[::3], found[::3], strict=True):
        np.testing.assert_array_equal(samples, reading.read(path))
    assert next(detector.score_recordings(paths, detector.judge())).samples is None


def test_kept_samples_take_bounded_memory(tiny, tmp_path):
    """Files wait for their scores while a large batch fills; eight of them are minutes of silence."""
    soundfile.write(tmp_path / "noise.wav", 0.1 * np.random.default_rng(0).standard_normal(8000), RATE)
    soundfile.write(tmp_path / "minute.flac", np.zeros(60 * RATE), RATE)
    detector = Detector.from_checkpoint(tiny, "cpu")
    detector.engine.batch_size = 1000
    paths = [tmp_path / "noise.wav", tmp_path / "minute.flac"] * 8
    list(detector.score_recordings(paths[:2], detector.judge()))  # loads the speech detector's weights
    tracemalloc.start()
    lengths = [len(s.samples) for s in detector.score_recordings(paths, detector.judge(), keep_seconds=60.0)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert lengths == [8000, 60 * RATE] * 8
    assert peak < 5 * 60 * RATE * 4  # bytes of five minutes in float32, of which speech detection takes one


def test_scores_are_read_by_evaluation(tiny, folder, tmp_path):
    done = run_command("inference.py", "--model", tiny, "--audio_dir", folder, "--scores", tmp_path / "s.txt")
    assert done.returncode == 0, done.stderr
    protocol = "".join(f"s f{number:02} - {'A01 spoof' if number % 2 else '- bonafide'}\n" for number in range(11))
    (tmp_path / "protocol.txt").write_text(protocol)
    scores = read_scores(tmp_path / "s.txt", tmp_path / "protocol.txt")
    assert len(scores.score) == 11
    assert 0 <= compute_eer(scores.score[scores.is_bonafide], scores.score[~scores.is_bonafide]).eer <= 1
    assert [path.name for path in tmp_path.iterdir() if "journal" in path.name] == []


def test_a_killed_run_continues_and_scores_nothing_twice(tiny, tmp_path):
    rng = np.random.default_rng(0)
    for number in range(60):
        soundfile.write(tmp_path / f"{number:02}.wav", 0.1 * rng.standard_normal(RATE), RATE)
    path = tmp_path / "r.json"
    command = ["--model", tiny, "--audio_dir", tmp_path, "--save_json", path, "--save_csv", tmp_path / "r.csv"]
    whole = run_command("inference.py", *command[:-3], tmp_path / "whole.json")
    assert whole.returncode == 0, whole.stderr
    process = subprocess.Popen(
        [sys.executable, ROOT / "inference.py", *map(str, command)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not path.exists() or path.read_bytes().count(b"\n") < 12:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = path.read_bytes().count(b'"utt_id"')
    assert 0 < before < 60
    done = run_command("inference.py", *command)
    assert done.returncode == 0, done.stderr
    kept = int(re.search(r"note: (\d+) of 60 files are in", done.stderr)[1])
    assert 0 < kept <= before
    assert len(done.stdout.splitlines()) == 60 - kept
    assert [result["file"] for result in results(path)] == [str(tmp_path / f"{number:02}.wav") for number in range(60)]
    for resumed, straight in zip(results(path), results(tmp_path / "whole.json"), strict=True):
        assert resumed["score"] == pytest.approx(straight["score"], abs=1e-5)
    again = run_command("inference.py", *command)
    assert (again.returncode, again.stdout) == (0, "")
    other = run_command("inference.py", *command, "--overlap", "0")
    assert_user_error(other, "is there", "results of this model and these settings")
    assert run_command("inference.py", *command, "--overlap", "0", "--overwrite").returncode == 0


@pytest.mark.slow
def test_torchrun_gives_what_one_process_gives(tiny, folder, tmp_path):
    names = [*sorted(map(str, folder.rglob("*.wav"))), str(folder / "none.wav")]
    (tmp_path / "list.txt").write_text("\n".join(names))
    shared_options = ["--model", tiny, "--list", tmp_path / "list.txt", "--workers", "1"]
    options = {name: ["--save_json", tmp_path / f"{name}.json", "--scores", tmp_path / f"{name}.txt"] for name in "ab"}
    alone = run_command("inference.py", *shared_options, *options["a"])
    assert alone.returncode == 1
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", ROOT / "inference.py"]
    command = [sys.executable, *torchrun, *shared_options, *options["b"]]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(map(str, command), capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300)
    assert done.returncode == 1, done.stderr  # one file is missing
    one, two = results(tmp_path / "a.json"), results(tmp_path / "b.json")
    assert [result["file"] for result in two] == names
    for first, second in zip(one, two, strict=True):
        assert first.keys() == second.keys() and first["verdict"] == second["verdict"]
        assert first["score"] == (None if second["score"] is None else pytest.approx(second["score"], abs=1e-5))
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []
    assert len((tmp_path / "b.txt").read_text().splitlines()) == 12


def test_stream_prints_a_line_a_second(tiny):
    noise = 0.1 * np.random.default_rng(0).standard_normal(24_000)
    samples = (32_000 * np.concatenate([spoken(2.5), noise])).astype("<i2")
    command = [sys.executable, str(ROOT / "inference.py"), "--model", tiny, "--stream", "-", "--overlap", "0.5"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, input=samples.tobytes(), capture_output=True, env=environment, timeout=100)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    assert [float(line.split()[0]) for line in lines] == [0.5 + 0.25 * step for step in range(15)]
    assert all(
        re.search(r"s +-?\d+\.\d{4} (likely|unclear).* last 30 s: -?\d+\.\d{4} (likely \w+|unclear)$", line)
        for line in lines[:9]
    )
    assert all(" no speech " in line for line in lines[-3:])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give files"),
        (["--audio", "x.wav", "--stream"], "--stream"),
        (["--audio", "x.wav", "--overlap", "1"], "--overlap: expected 0 … 0.95, found 1"),
        (["--audio", "x.wav", "--overlap", "nan"], "--overlap"),
        (["--audio", "x.wav", "--prior_spoof", "0"], "--prior_spoof"),
        (["--audio", "x.wav", "--channel", "0"], "--channel"),
        (["--audio", "x.wav", "--threshold", "1", "--target_far", "0.1"], "--target_far"),
        (["--audio", "x.wav", "--explain", "--engine", "onnx"], "--explain goes with --engine torch"),
        (["--save_csv", "x.wav", "y.wav"], "--save_csv x.wav: that is the name of a recording"),
        (["--audio", "x.wav", "--aggregate", "max"], "--aggregate"),
        (["--audio_dir", "no_such_folder"], "no_such_folder"),
        (["--list", "no_such_list"], "no_such_list"),
        (["--list", "-"], "nothing to score"),
        (["--audio", "x.wav", "./a/../x.wav", "--scores", "s.txt"], "two files are called x"),
        (["--audio", "my voice.wav", "--scores", "s.txt"], "no blanks"),
        (["--model", "no_such_model", "--audio", "x.wav"], "no_such_model"),
    ],
)
def test_wrong_arguments(arguments, words):
    assert_user_error(run_command("inference.py", *arguments, input=""), words)


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    torch.save({"format": 1, "config": {}, "model": Malice(tmp_path / "ran")}, tmp_path / "bad.pth")
    done = run_command("inference.py", "--model", tmp_path / "bad.pth", "--audio", "x.wav")
    assert_user_error(done, "bad.pth", "tensors and plain values only")
    assert not (tmp_path / "ran").exists()


def test_help_is_quick_and_explains_the_score():
    code = "import sys, inference; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, check=True).stdout == b"False\n"
    done = run_command("inference.py", "--help")
    assert done.returncode == 0
    assert "higher = more bona fide" in done.stdout


def measured(*arguments: object) -> tuple[int, str, float]:
    """inference.py's exit code, stderr, and peak memory (MB) of the largest of its processes."""
    # Started by a small process: a child's peak begins with the memory of the process that forked it.
    between = (
        "import resource, subprocess, sys; code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode"
    )
    between += "; print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"
    command = [sys.executable, "-c", between, sys.executable, str(ROOT / "inference.py"), *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    code, memory = done.stdout.split()
    return int(code), done.stderr, float(memory)


@pytest.mark.slow
def test_five_hundred_mutated_files_are_each_accounted_for(tiny, tmp_path):
    """No traceback, no file that blocks the run, at most 1 GB, and one result for every file."""
    paths = mutants(tmp_path, 490)
    noise = 0.1 * np.random.default_rng(0).standard_normal((500_000, 7))
    for name, rate, channels, subtype in (
        ("8k", 8000, 1, "PCM_16"),
        ("192k", 192_000, 1, "PCM_24"),
        ("seven", 48_000, 7, "PCM_24"),
        ("float", RATE, 1, "FLOAT"),
        ("double", RATE, 2, "DOUBLE"),
    ):
        paths.append(tmp_path / f"{name}.wav")
        soundfile.write(paths[-1], noise[: 5 * rate // 2, :channels], rate, subtype=subtype)
    for name, samples in (("nan", np.full(RATE, np.nan)), ("none", np.zeros(0))):
        paths.append(tmp_path / f"{name}.wav")
        soundfile.write(paths[-1], samples, RATE, subtype="FLOAT")
    cut = bytearray((tmp_path / "8k.wav").read_bytes())
    cut[40:44] = (20 * 16_000 + 2).to_bytes(4, "little")  # the data chunk's length: 20 s
    for name, data in (("cut.wav", bytes(cut)), ("no_bytes.flac", b""), ("zeros.mp3", bytes(5000))):
        paths.append(tmp_path / name)
        paths[-1].write_bytes(data)
    (tmp_path / "list.txt").write_text("\n".join(map(str, paths)))
    started = time.monotonic()
    code, log, memory = measured("--model", tiny, "--list", tmp_path / "list.txt", "--save_json", tmp_path / "r.json")
    assert code == 1 and "Traceback" not in log
    assert "nothing for" not in log and "crash" not in log and time.monotonic() - started < 500
    assert memory < 1024
    found = {result["file"]: result for result in results(tmp_path / "r.json")}
    assert list(found) == [str(path) for path in paths] and len(found) == 500
    names = {path.stem: [c["name"] for c in found[str(path)]["conditions"]] for path in paths[490:]}
    assert names["nan"] == ["not_finite"] and names["none"] == ["empty"] and "truncated" in names["cut"]
    assert all(names[name] == ["no_speech"] for name in ("8k", "192k", "seven", "float", "double"))


@pytest.mark.slow
def test_three_hours_need_less_than_500_mb(tiny, tmp_path):
    path, rng = tmp_path / "a.flac", np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        for minute in range(180):  # mostly silence: scoring more would take time, not memory
            file.write(rng.normal(0, 0.1 if minute == 100 else 0, 60 * RATE))
    code, log, memory = measured("--model", tiny, "--audio", path, "--save_json", tmp_path / "r.json")
    assert code == 0, log
    (result,) = results(tmp_path / "r.json")
    assert result["seconds"] == 3 * 3600
    assert memory < 500
