"""Decoding in worker processes: same results as in this one; crashes, hangs and leftovers."""

import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
from conftest import ROOT

from audio import decoding_workers
from audio.decoding_workers import recordings
from audio.errors import AudioError
from audio.reading import Recording

RATE = 16_000


@pytest.fixture
def folder(tmp_path):
    """Files of 1, 2, 3 and 25 s of noise, and one that is no audio."""
    rng = np.random.default_rng(0)
    for seconds in (1, 2, 3, 25):
        soundfile.write(tmp_path / f"{seconds}.flac", 0.1 * rng.standard_normal(seconds * RATE), RATE)
    (tmp_path / "text.flac").write_text("this is no audio\n" * 50)
    return tmp_path


def read(recording) -> np.ndarray | str:
    try:
        return np.concatenate(list(recording))
    except AudioError as error:
        return error.condition


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_same_blocks_facts_and_errors_in_order(folder, workers):
    paths = [folder / name for name in ("3.flac", "none.flac", "25.flac", "text.flac", "1.flac", "2.flac")]
    order = []
    for path, recording in recordings(paths, workers):
        order.append(path)
        here, there = Recording(path, hashed=True, listened=True), read(recording)
        np.testing.assert_array_equal(there, read(here))
        if isinstance(there, np.ndarray):
            assert recording.facts == here.facts
    assert order == paths


def test_channel_reaches_the_workers(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.stack([np.full(RATE, 0.5), np.full(RATE, 0.25)], axis=1), RATE)
    for channel, value in ((1, 0.5), (2, 0.25), (None, 0.375)):
        for _, recording in recordings([tmp_path / "a.wav"], 1, channel):
            np.testing.assert_allclose(read(recording), value, atol=1e-4)


@pytest.mark.parametrize(("blow", "words"), [(signal.SIGKILL, "crash.*-9"), (signal.SIGSTOP, "nothing for 1 s")])
def test_worker_that_dies_or_hangs_costs_one_file(folder, monkeypatch, blow, words):
    monkeypatch.setattr(decoding_workers, "PATIENCE", 1.0)
    paths = [folder / "25.flac", folder / "1.flac", folder / "2.flac"]
    outcomes = []
    for _, recording in recordings(paths, 1):
        blocks = iter(recording)
        if not outcomes:
            next(blocks)  # the worker now waits, in the middle of the file, until the pipe has room
            pid = recording.worker.process.pid
            os.kill(pid, blow)
        try:
            outcomes.append(sum(map(len, blocks)))
        except AudioError as error:
            outcomes.append(error)
    assert outcomes[1:] == [RATE, 2 * RATE]
    assert outcomes[0].condition == "unreadable"
    assert re.search(words, str(outcomes[0]))
    assert not alive(pid)


def test_recording_given_up_half_way(folder):
    lengths = []
    for _path, recording in recordings([folder / "25.flac", folder / "2.flac"], 1):
        lengths.append(len(next(iter(recording))))
    assert lengths[1] == 2 * RATE


def test_no_process_is_left(folder):
    for stop_after in (1, 4):
        pids = set()
        for number, (_, recording) in enumerate(recordings(sorted(folder.glob("*.flac")), 2), 1):
            pids.add(recording.worker.process.pid)
            read(recording)
            if number == stop_after:
                break
        del recording
        deadline = time.monotonic() + 10
        while any(map(alive, pids)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert pids and not any(map(alive, pids))


def test_workers_do_not_import_torch():
    """Without it a worker starts in a fraction of a second and needs little memory."""
    code = "import sys, audio.decoding_workers; print('torch' in sys.modules, 'av' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_a_slow_start_is_no_fault_of_the_file(folder, monkeypatch):
    monkeypatch.setattr(decoding_workers, "PATIENCE", 0.5)  # a process takes longer to start
    for _, recording in recordings([folder / "1.flac"], 1):
        assert len(read(recording)) == RATE


def test_a_worker_that_does_not_start_costs_the_file(folder, monkeypatch):
    monkeypatch.setattr(decoding_workers, "_decode", os._exit)
    for _, recording in recordings([folder / "1.flac"], 1):
        with pytest.raises(AudioError, match="no decoder that starts"):
            list(recording)
