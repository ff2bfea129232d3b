"""The web page's files one by one, without a server; test_gradio_app.py tests the page as people use it."""

import asyncio
import inspect
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from conftest import ROOT, save_tiny

from audio import SAMPLE_RATE
from common.errors import UserError
from scoring.detector import Detector
from scoring.weights import BUNDLED
from webpage import background, exports, one_recording, server, upstream
from webpage.background import in_background
from webpage.cards import error_card
from webpage.checkpoints import ModelShelf, find_checkpoints
from webpage.comparison import Comparison
from webpage.examples import EXAMPLES, example
from webpage.exports import write_exports
from webpage.formatting import error_sentence
from webpage.jobs import CheckCancelled, CheckedFile, CountingEngine, FileChecker, held_uploads
from webpage.limits import MAX_LOADED_MODELS, PageLimits
from webpage.settings import judge_options
from webpage.verdict_html import verdict_card

NASTY = "<img src=x onerror=alert(1)>.wav"
TINY = "extra/tiny.pth"


@pytest.fixture(scope="module")
def extra(tmp_path_factory) -> Path:
    """A folder with the tiny checkpoint, a link out of the folder, and a file without a model."""
    folder = tmp_path_factory.mktemp("models") / "extra"
    folder.mkdir()
    save_tiny(folder / "tiny.pth", dev_eer=0.25)
    save_tiny(folder.parent / "outside.pth", dev_eer=0.25)
    (folder / "link.pth").symlink_to(folder.parent / "outside.pth")
    (folder / "broken.pth").write_bytes(b"no checkpoint")
    return folder


@pytest.fixture(scope="module")
def checked(extra, tmp_path_factory) -> CheckedFile:
    """A file with a nasty name, scored by the tiny model."""
    path = tmp_path_factory.mktemp("nasty") / NASTY
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(2 * SAMPLE_RATE), SAMPLE_RATE)
    checker = FileChecker(ModelShelf([extra]), max_seconds=60)
    *_, checked = checker.check([path], TINY, "cpu", {})
    checker.recordings.close()
    return checked


def test_a_reference_is_judged_beside_the_verdict(extra, tmp_path, monkeypatch):
    """Uploads are decoded in the decoding process, references too; a broken one is named without its folder."""

    class FirstBins:
        def __call__(self, samples: np.ndarray) -> np.ndarray:
            spectrum = np.abs(np.fft.rfft(samples[:1600]))[:256]
            return spectrum / np.linalg.norm(spectrum)

    monkeypatch.setattr("scoring.speaker.Encoder", FirstBins)
    rng, files = np.random.default_rng(0), [tmp_path / f"{name}.wav" for name in ("claim", "a", "b", "broken")]
    for path in files[:3]:
        soundfile.write(path, 0.1 * rng.standard_normal(6 * SAMPLE_RATE), SAMPLE_RATE)
    files[3].write_bytes(b"RIFF")
    checker = FileChecker(ModelShelf([extra]), max_seconds=60)
    *_, checked = checker.check(files[:1], TINY, "cpu", {}, files[1:3])
    assert checked.result.reference.verdict == "similar" and checked.result.reference.recordings == 2
    assert checked.document()["results"][0]["reference"]["seconds"] == pytest.approx(12, abs=0.5)
    assert "no proof of identity" in verdict_card(checked)
    with pytest.raises(UserError, match="reference broken.wav") as refused:
        list(checker.check(files[:1], TINY, "cpu", {}, files[3:]))
    assert str(tmp_path) not in str(refused.value)
    checker.recordings.close()


# ---------------------------------------------------------------------------------------------- changes to foreign code


def test_a_missing_gradio_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match=r"gradio is missing.*pip install -r requirements-app.txt"):
        upstream.import_gradio()


def test_gradio_finds_component_sources_by_getfile_and_skips_those_it_cannot_find(monkeypatch):
    pytest.importorskip("gradio")
    from gradio import component_meta

    class SourceRead(Exception):
        pass

    def read_source(*_):
        raise SourceRead

    monkeypatch.setattr(component_meta, "extract_class_source_code", read_source)
    with pytest.raises(SourceRead):  # without the change gradio reads the source of every component
        component_meta.create_or_modify_pyi(Path, "Path", [])
    getfile = inspect.getfile
    with upstream.hidden_class_sources():
        component_meta.create_or_modify_pyi(Path, "Path", [])
        assert inspect.getfile(inspect) == inspect.__file__  # of a module, as ever
    assert inspect.getfile is getfile


def test_gradio_takes_addresses_where_they_are_refused(monkeypatch):
    gradio = pytest.importorskip("gradio")
    from gradio import processing_utils

    asked = []

    async def download(address, **_):
        asked.append(address)
        return "downloaded"

    monkeypatch.setattr(processing_utils, "async_ssrf_protected_download", download)
    with gradio.Blocks(analytics_enabled=False) as blocks:
        file = gradio.File()
    data = {"path": "http://localhost/speech.wav", "meta": {"_type": "gradio.FileData"}}
    asyncio.run(processing_utils.async_move_files_to_cache(data, file))
    assert asked == ["http://localhost/speech.wav"]  # without the change gradio downloads it
    upstream.refuse_addresses(blocks)
    with pytest.raises(gradio.Error, match="send a file, not an address"):
        asyncio.run(processing_utils.async_move_files_to_cache(data, file))
    assert len(asked) == 1


# ------------------------------------------------------------------------------------------------------ jobs in threads


class Endless:
    """A generator of numbers, one every 10 ms; `closed` is set when it was closed."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def items(self) -> Iterator[int]:
        try:
            for number in range(10_000):
                yield number
                time.sleep(0.01)
        finally:
            self.closed.set()


def test_a_job_in_the_background_gives_its_items_and_its_error():
    def job():
        yield 1
        yield 2
        raise UserError("no such model")

    items = in_background(job())
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(UserError, match="no such model"):
        next(items)
    assert [*in_background(iter_of(3))] == [0, 1, 2]


def iter_of(count: int) -> Iterator[int]:
    yield from range(count)


def test_a_cancelled_job_ends_at_once():
    endless = Endless()
    items = in_background(endless.items())
    next(items)
    items.close()
    assert endless.closed.is_set()


def test_the_end_of_the_page_waits_for_no_client():
    """Their jobs have ended, so no thread is left that computes while the interpreter ends."""
    jobs = [Endless(), Endless()]
    answers = [in_background(job.items()) for job in jobs]
    for items in answers:
        next(items)
    background.end_all()
    assert all(job.closed.is_set() for job in jobs) and not background._running
    with pytest.raises(UserError, match="nobody asked for the result"):
        list(answers[0])


def test_the_job_of_a_silent_client_is_dropped(monkeypatch):
    monkeypatch.setattr(background, "SILENT_CLIENT_SECONDS", 0.5)
    endless = Endless()
    items = in_background(endless.items())  # kept: nobody closes it
    assert [next(items) for _ in range(80)] == [*range(80)]  # it lasts longer than a client may be silent
    assert not endless.closed.is_set()
    assert endless.closed.wait(10)
    with pytest.raises(UserError, match="nobody asked for the result"):
        for _ in items:
            pass


def test_a_client_may_wait_for_an_item_longer_than_it_may_be_silent(monkeypatch):
    monkeypatch.setattr(background, "SILENT_CLIENT_SECONDS", 0.1)

    def slow():
        for number in range(3):
            time.sleep(0.3)
            yield number

    assert [*in_background(slow())] == [0, 1, 2]


def test_an_engine_counts_chunks_and_can_be_cancelled(extra):
    engine = CountingEngine(Detector.from_checkpoint(extra / "tiny.pth", "cpu").engine)
    chunks = np.zeros((3, engine.nb_samp), np.float32)
    assert engine.logits(chunks).shape == (3, 2) and engine.computed == 3
    engine.cancelled.set()
    with pytest.raises(CheckCancelled):
        engine.logits(chunks)


def test_held_uploads_outlive_the_upload_and_no_link_is_followed(tmp_path):
    upload = tmp_path / "speech.wav"
    upload.write_bytes(b"speech")
    with held_uploads([upload, upload]) as (first, second):
        upload.unlink()
        assert first != second and first.read_bytes() == b"speech" and first.name == "speech.wav"
    assert not first.exists()
    (tmp_path / "link.wav").symlink_to(tmp_path / "elsewhere.wav")
    for gone in (upload, tmp_path / "link.wav"):
        with pytest.raises(UserError, match="upload it again"), held_uploads([gone]):
            pass


# ------------------------------------------------------------------------------------------------- models and settings


def test_limits_are_given_in_the_units_of_the_command_line():
    limits = PageLimits(upload_mb=1.5, recording_minutes=2, keep_minutes=0.5)
    assert (limits.upload_bytes, limits.recording_seconds, limits.keep_seconds) == (1_572_864, 120, 30)


def test_found_checkpoints(extra):
    found = find_checkpoints([extra])
    assert {BUNDLED, "AASIST", "AASIST-L", TINY, "extra/broken.pth"} <= found.keys()
    assert not any("link" in label for label in found)


def test_files_that_are_no_models_are_left_out_with_their_reason(tmp_path, capsys):
    save_tiny(tmp_path / "good.pth")
    save_tiny(tmp_path / "poisoned.pth", threshold=float("nan"))
    save_tiny(tmp_path / "other.pth", dev_scores={"bonafide": "x", "spoof": torch.zeros(1)})
    (tmp_path / "text.onnx").write_text("no model")
    models = ModelShelf([tmp_path])
    for _ in range(2):
        labels = {label for _, label in models.choices()}
        assert labels >= {BUNDLED, "AASIST", f"{tmp_path.name}/good.pth"}
        assert not labels & {f"{tmp_path.name}/{name}" for name in ("poisoned.pth", "other.pth", "text.onnx")}
    notes = capsys.readouterr().err
    assert notes.count("note: not among the models") == 3  # once for each
    assert "poisoned.pth: bad value of 'threshold' — expected a number, found nan" in notes
    assert "bad value of 'dev_scores.bonafide'" in notes and "expected an ONNX file" in notes


def test_models_are_loaded_once_and_old_ones_go(extra):
    models = ModelShelf([extra])
    first = models.detector(TINY, "cpu")
    assert models.detector(TINY, "cpu") is first
    os.utime(extra / "tiny.pth", (1, 1))  # as if training had replaced it
    assert models.detector(TINY, "cpu") is not first
    os.utime(extra / "tiny.pth", (2, 2))
    models.detector(TINY, "cpu")
    assert len(models.loaded) == MAX_LOADED_MODELS and first not in models.loaded.values()


@pytest.mark.parametrize("wrong", [("own", None), ("own", float("nan")), ("own", "1"), ("own", 1e99)])
def test_wrong_numbers(wrong):
    with pytest.raises(UserError, match="own threshold"):
        judge_options(*wrong, None, 50, "mean")


# -------------------------------------------------------------------------------------------------------------- results


def test_errors_keep_the_case_of_names_and_addresses():
    assert "Cannot read audio ABC.wav." in error_card(UserError("cannot read audio ABC.wav"))
    address = f"https://example.org{ROOT}/weights/AASIST.pth"
    assert error_sentence(UserError(f"cannot download {address}")) == f"cannot download {address}"
    assert error_sentence(UserError(f"cannot write {ROOT}/weights/AASIST.pth")) == "cannot write weights/AASIST.pth"


def test_result_is_the_detectors_own(checked, extra, tmp_path):
    source = tmp_path / "same.wav"
    source.write_bytes(checked.sound.with_suffix("").read_bytes())
    expected = Detector.from_checkpoint(extra / "tiny.pth", "cpu").score_file(source)
    assert checked.result.chunks == expected.chunks and checked.result.conditions == expected.conditions
    assert checked.result.score == expected.score and checked.result.path == Path(NASTY)


def test_a_figure_that_fails_takes_nothing_else_from_the_page(checked, extra, tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise RuntimeError("cannot cache function")

    monkeypatch.setattr(exports, "checked_figure", fail)
    assert [Path(path).suffix for path in write_exports(checked, {}, tmp_path)] == [".json", ".csv"]
    monkeypatch.setattr(server, "recording_pngs", fail)
    checker = FileChecker(ModelShelf([extra]), max_seconds=60)
    server.warm_up(SimpleNamespace(checker=checker), TINY)  # the server goes on to serve
    checker.recordings.close()
    assert capsys.readouterr().err == f"note: {TINY}: cannot cache function\n"
    monkeypatch.setattr(one_recording, "recording_pngs", fail)
    tab = SimpleNamespace(panels={"scores": "widget"}, exports=[])
    drawn = next(one_recording.OneRecording._draw(tab, checked, tmp_path))
    assert list(drawn) == ["widget"] and 'role="alert"' in drawn["widget"]


def test_a_failed_start_of_the_decoder_costs_one_check(extra, tmp_path, monkeypatch):
    path = tmp_path / "a.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(SAMPLE_RATE), SAMPLE_RATE)
    checker = FileChecker(ModelShelf([extra]), max_seconds=60)

    def refuse(_self):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="temporarily"):
        patched.setattr("audio.decoding_workers._DecodingWorker.start", refuse)
        list(checker.check([path], TINY, "cpu", {}))
    *_, checked = checker.check([path], TINY, "cpu", {})
    checker.recordings.close()
    assert checked.result.score is not None


def test_a_model_that_fails_in_a_comparison_does_so_alone(checked):
    class Checker:
        def check(self, files, model, *_):
            if model == "broken":
                raise UserError("cannot download https://example.org/a.pth")
            yield checked

    tab = SimpleNamespace(checker=Checker(), table="table", card="card")
    *_, last, _ = Comparison.compare(tab, str(checked.sound), ["broken", TINY], "cpu", "model", None, None, 50, "mean")
    assert "Cannot download https://example.org/a.pth." in last["table"] and last["table"].count("<tr>") == 3
    assert f"{TINY} says" in last["table"] and "1 could not be used" in last["table"]


def test_the_clear_examples_are_judged_rightly():
    """By the bundled model; of the modern voice, which it often misses, the button says so."""
    detector = Detector.from_checkpoint(BUNDLED, "cpu")
    threshold = detector.card.threshold
    scores = {name: detector.score_file(example(name)).score for name in EXAMPLES if "piper" not in name}
    assert len(scores) == 4 and "often missed" in EXAMPLES["synthetic_piper"]
    assert all((score > threshold) == name.startswith("genuine") for name, score in scores.items()), scores
    assert sum(Path(example(name)).stat().st_size for name in EXAMPLES) < 500_000
