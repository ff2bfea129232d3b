"""A kept result is of the same bytes, the same model and the same settings; all else is scored anew, and said."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audio import reading
from scoring.batch import BatchOutputs, score_batch
from scoring.detector import Detector
from scoring.model_card import ModelCard
from scoring.onnx_files import write_exported
from scoring.results import ResultsFile, process_part_path

RATE = 16_000


def noise(path: Path, seed: int = 0, seconds: float = 0.8) -> Path:
    soundfile.write(path, 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE)), RATE)
    return path


class QuickEngine:
    """Its score is a chunk's mean level."""

    name, precision, device, nb_samp, batch_size = "torch", "fp32", "cpu", 8000, 4

    def logits(self, waveforms: np.ndarray) -> np.ndarray:
        levels = np.abs(np.asarray(waveforms, np.float64)).mean(axis=1)
        return np.stack([-levels, levels], axis=1)


@pytest.fixture
def detector() -> Detector:
    return Detector(QuickEngine(), ModelCard("quick", "0" * 64, {}, threshold=0.0))


@pytest.fixture
def batch(detector, tmp_path, capsys):
    """Score a.wav … d.wav into r.json; returns the files scored now, and the notes."""

    def score(workers: int = 0, overwrite: bool = False, **settings) -> tuple[list[str], str]:
        scored, files = [], [tmp_path / f"{name}.wav" for name in "abcd"]
        outputs = BatchOutputs(tmp_path / "r.json", tmp_path / "r.csv", overwrite=overwrite)
        judge = detector.judge(**settings)
        score_batch(detector, judge, files, outputs, workers, lambda result: scored.append(result.path.stem))
        return scored, capsys.readouterr().err

    for seed, name in enumerate("abcd"):
        noise(tmp_path / f"{name}.wav", seed)
    return score


def kept(tmp_path: Path) -> dict[str, dict]:
    document = json.loads((tmp_path / "r.json").read_bytes())
    assert len(document["results"]) == 4
    return {Path(result["file"]).stem: result for result in document["results"]}


@pytest.mark.parametrize("workers", [0, 1])
def test_other_bytes_are_scored_anew(batch, detector, tmp_path, workers):
    """Also if the new file has the size and the modification time of the old one."""
    assert batch(workers)[0] == list("abcd")
    first, replaced = kept(tmp_path), tmp_path / "b.wav"
    for name, result in first.items():
        assert result["sha256"] == hashlib.sha256((tmp_path / f"{name}.wav").read_bytes()).hexdigest()
    before = replaced.stat()
    noise(replaced, 7)
    os.utime(replaced, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert replaced.stat().st_size == before.st_size
    scored, notes = batch(workers)
    assert scored == ["b"] and "note: 1 of the 4 files with a result in" in notes and "changed since" in notes
    second = kept(tmp_path)
    assert second["b"]["score"] == detector.score_file(replaced).score != first["b"]["score"]
    assert second["b"]["sha256"] != first["b"]["sha256"]
    assert all(second[name] == first[name] for name in "acd")
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 5


def test_the_same_bytes_stay_whatever_their_times(batch, tmp_path):
    batch()
    first = (tmp_path / "r.json").read_bytes()
    content = (tmp_path / "c.wav").read_bytes()
    (tmp_path / "c.wav").unlink()
    (tmp_path / "c.wav").write_bytes(content)
    os.utime(tmp_path / "a.wav", (1, 1))
    scored, notes = batch()
    assert scored == [] and "note: 4 of 4 files are in" in notes and "anew\n" not in notes.replace("(--overwrite: ", "")
    assert (tmp_path / "r.json").read_bytes() == first


def test_what_could_not_be_read_is_tried_again_and_what_is_gone_is_told(batch, tmp_path):
    (tmp_path / "a.wav").unlink()
    (tmp_path / "d.wav").write_text("no audio")
    batch()
    assert kept(tmp_path)["a"]["error"] and kept(tmp_path)["d"]["error"] and kept(tmp_path)["a"]["sha256"] is None
    noise(tmp_path / "a.wav")
    (tmp_path / "b.wav").unlink()
    scored, notes = batch()
    assert scored == ["a", "b", "d"]
    assert "1 of the 4 files" in notes and "2 of the 4 files" in notes and "could not be scored before" in notes
    assert kept(tmp_path)["a"]["error"] is None and "nothing there" in kept(tmp_path)["b"]["error"]


def test_results_of_files_outside_the_list_stay(batch, detector, tmp_path):
    batch()
    noise(tmp_path / "b.wav", 9)
    outputs = BatchOutputs(tmp_path / "r.json")
    score_batch(detector, detector.judge(), [noise(tmp_path / "e.wav")], outputs, 0, lambda result: None)
    document = json.loads((tmp_path / "r.json").read_bytes())
    assert [Path(result["file"]).stem for result in document["results"]] == list("abcde")


def test_a_file_that_changes_while_it_is_read_has_no_hash(tmp_path):
    path = noise(tmp_path / "a.wav", seconds=30)
    recording = reading.Recording(path, hashed=True)
    blocks = iter(recording)
    samples = len(next(blocks))
    os.utime(path, (1, 1))
    assert samples + sum(map(len, blocks)) == 30 * RATE and recording.facts.sha256 is None


def test_signs_of_life_while_a_large_file_is_hashed_are_no_sound(detector, tmp_path, monkeypatch):
    path = noise(tmp_path / "a.wav", seconds=2)
    expected = detector.score_file(path)
    monkeypatch.setattr(reading, "HASHED_BYTES", 1000)
    assert len(next(iter(reading.Recording(path, hashed=True)))) == 0
    assert detector.score_file(path) == expected
    (scored,) = detector.score_recordings([path], detector.judge(), keep_seconds=10)
    np.testing.assert_array_equal(scored.samples, reading.read(path))


def test_results_of_an_older_version_have_no_hash_and_are_scored_anew(batch, tmp_path):
    batch()
    lines = (tmp_path / "r.json").read_text().splitlines(keepends=True)
    without = [line.replace(f'"sha256": "{kept(tmp_path)[name]["sha256"]}"', '"old": 1')
               for line, name in zip(lines[1:5], "abcd", strict=True)]  # fmt: skip
    (tmp_path / "r.json").write_text("".join([lines[0], *without, lines[5]]))
    scored, notes = batch()
    assert scored == list("abcd") and "4 of the 4 files" in notes


@pytest.mark.parametrize("overwrite", [True, False])
def test_parts_of_a_killed_torchrun_job(batch, detector, tmp_path, overwrite):
    """Those of other settings are left out, also with --overwrite; those of these settings are kept without it."""
    header = detector.judge().header() | {"engine": detector.engine_facts()}
    result = detector.score_file(tmp_path / "c.wav").to_dict()
    ResultsFile(tmp_path / "r.json", header).close()
    for rank, (settings, name) in enumerate((({"chunk_seconds": 9}, "a"), ({}, "c"))):
        part = ResultsFile(
            process_part_path(tmp_path / "r.json", rank), header | {"settings": header["settings"] | settings}
        )
        part.append(result | {"file": str(tmp_path / f"{name}.wav"), "score": 123.0})
        part.close()
    scored, notes = batch(overwrite=overwrite)
    assert scored == (list("abcd") if overwrite else list("abd"))
    assert ("part0 is of another model or other settings" in notes) == (not overwrite)
    assert [name for name, result in kept(tmp_path).items() if result["score"] == 123.0] == ([] if overwrite else ["c"])
    assert not list(tmp_path.glob("*.part*"))


def test_a_journal_of_other_settings_starts_anew(batch, detector, tmp_path, capsys):
    """Nobody asked for the file that holds results until the table is written."""
    file, journal = tmp_path / "a.wav", tmp_path / "s.txt.journal"
    header = detector.judge(threshold=3.0).header() | {"engine": detector.engine_facts()}
    results = ResultsFile(journal, header)
    results.append(detector.score_file(file).to_dict() | {"score": 123.0})
    results.close()
    score_batch(detector, detector.judge(), [file], BatchOutputs(scores=tmp_path / "s.txt"), 0, lambda result: None)
    assert "s.txt.journal is of another model or other settings: starting anew" in capsys.readouterr().err
    assert "123" not in (tmp_path / "s.txt").read_text() and not journal.exists()


def test_another_export_of_one_checkpoint_is_another_model(tmp_path):
    """Both name the checkpoint that they were made from."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    facts = []
    for number in range(2):
        weights = onnx.numpy_helper.from_array(np.full((8000, 2), number, np.float32), "w")
        x, y = (onnx.helper.make_tensor_value_info(name, 1, ["B", n]) for name, n in (("x", 8000), ("y", 2)))
        graph = onnx.helper.make_graph([onnx.helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weights])
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
        write_exported(model.SerializeToString(), ModelCard("quick", "0" * 64, {}), "fp32", tmp_path / "m.onnx")
        facts.append(Detector.from_checkpoint(tmp_path / "m.onnx", engine="onnx").engine_facts())
    assert facts[0]["sha256"] != facts[1]["sha256"] and facts[0]["name"] == facts[1]["name"] == "onnx"
