"""Every wait for a worker, a rank or a child has an end and one line, and SIGTERM ends a process that hangs."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import ROOT, save_tiny
from forks import Command, together

import data_utils
from common import pool
from common.errors import UserError
from common.pool import map_in_order
from corpora.trials import Partition, Trial
from corpora.waveforms import Waveforms


def stop_myself(item: int) -> int:
    if item == 11:
        os.kill(os.getpid(), signal.SIGSTOP)
    return item


def test_a_worker_that_hangs_in_a_pool(monkeypatch):
    monkeypatch.setattr(pool, "PATIENCE", 1.0)
    with (
        closing(map_in_order(stop_myself, list(range(40)), 2)) as results,
        pytest.raises(UserError, match="a worker process hangs — expected results within 1 s, found none"),
    ):
        list(results)


def test_a_pool_that_is_given_up_does_not_wait_for_its_workers():
    results = map_in_order(stop_myself, list(range(40)), 2)
    assert [next(results) for _ in range(8)] == list(range(8))
    results.close()


def test_a_worker_that_hangs_in_a_loader(monkeypatch, tmp_path):
    monkeypatch.setattr(data_utils, "PATIENCE", 2.0)
    monkeypatch.setattr(data_utils.SpeechDataset, "_crop", lambda *_: os.kill(os.getpid(), signal.SIGSTOP))
    trials = [Trial(f"u{n}", "-", "A07", "spoof") for n in range(4)]
    partition = Partition("eval", trials, {trial.utt_id: tmp_path for trial in trials})
    loader = data_utils.tolerant_loader(Waveforms(partition), 100, 1, [[0, 1], [2, 3]])
    with pytest.raises(UserError, match="a worker process hangs — expected a batch within 2 s, found none"):
        list(loader)
    assert not multiprocessing.active_children()


HANGING = """
import ctypes, signal, sys
sys.path.insert(0, {root!r})
from common import command
command.STOP_SECONDS = 0.5
class Hanging:
    def __del__(self):  # in a library, where no handler of Python runs
        libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
        libc.pthread_mutex_lock(mutex)
        print("hangs", flush=True)
        libc.pthread_mutex_lock(mutex)
def main():
    signal.signal(signal.SIGTERM, lambda *_: None)  # wait for a step's end, as in training
    global hanging
    hanging = Hanging()
    {what}
command.run(main)
"""


@pytest.mark.parametrize(
    ("what", "line", "code"),
    [("del hanging", "error: still busy 0.5 s after SIGTERM: ended\n", 128 + signal.SIGTERM), ("pass", "", -15)],
    ids=["in a step", "at its end"],
)
def test_sigterm_ends_a_process_that_hangs_in_a_library(what, line, code):
    command = [sys.executable, "-c", HANGING.format(root=str(ROOT), what=what)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "hangs\n"
    process.send_signal(signal.SIGTERM)
    assert (process.communicate(timeout=60)[1], process.returncode) == (line, code)


# ----------------------------------------------------------------------------------------------------------- ranks

# The second process stops at its fifth file. A process counts as hanging after `stalled` seconds.
HANGING_RANK = """
import os, signal, time
from common import processes
from scoring import detector
processes.STALLED_SECONDS, processes.TICK_SECONDS = {stalled}, 0.1
recordings = detector.recordings
def hanging(*arguments):
    for number, found in enumerate(recordings(*arguments)):
        if number == 4 and os.environ["RANK"] == "1":
            {what}
        yield found
detector.recordings = hanging
"""


@pytest.fixture
def batch(tmp_path) -> list[object]:
    for number in range(16):
        audio = 0.1 * np.random.default_rng(number).standard_normal(8000)
        soundfile.write(tmp_path / f"{number:02}.wav", audio, 16_000)
    model = save_tiny(tmp_path / "tiny.pth")
    return ["--audio_dir", tmp_path, "--model", model, "--workers", 0, "--save_json", tmp_path / "r.json"]


def parts(folder: Path) -> int:
    """Results in the parts of the processes."""
    return sum(path.read_bytes().count(b'"utt_id"') for path in folder.glob("r.json.part*"))


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGSTOP)", "process 1 of this run hangs — expected a sign of life, found none"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "of this run"),
    ],
)
def test_a_rank_that_hangs_or_dies(batch, tmp_path, what, words):
    """The others end with one line; the same command goes on with what all of them had scored."""
    prelude = HANGING_RANK.format(what=what, stalled=2.0)
    first, second = together(tmp_path, 2, "inference.py", *batch, prelude=prelude)
    done = first.wait()
    if second.running():
        second.kill()
    second.wait()
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2 and len(errors) == 1 and words in errors[0], done.stderr
    assert parts(tmp_path) == 8 + 4
    done = Command(tmp_path, "inference.py", *batch).wait()
    assert done.returncode == 0 and "note: 12 of 16 files are in" in done.stderr and parts(tmp_path) == 0


RANK = """
import sys
from datetime import timedelta
sys.path.insert(0, {root!r})
from common import command, processes
command.STOP_SECONDS = 0.5
watch = processes._end_with_launcher
def watching(launcher):
    print("watches", flush=True)
    watch(launcher)
processes._end_with_launcher = watching
command.run(lambda: processes.Processes(timedelta(hours=1)))
"""
LAUNCHER = """
import os, subprocess, sys, time
ranks = {{"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "TORCHELASTIC_RUN_ID": "x"}}
subprocess.Popen([sys.executable, "-c", {rank!r}], env=os.environ | ranks)
time.sleep(600)
"""


def test_ranks_end_with_their_launcher():
    """As torchrun starts them; the rank waits in a library for another that never comes."""
    code = LAUNCHER.format(rank=RANK.format(root=str(ROOT)))
    launcher = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert launcher.stdout.readline() == "watches\n"
    launcher.kill()
    errors = launcher.communicate(timeout=100)[1]  # until the rank has closed its output, too
    assert "note: torchrun is gone: its processes end, too" in errors and "Traceback" not in errors


@pytest.mark.slow
def test_a_killed_torchrun_job_leaves_nothing_behind(batch, tmp_path):
    """Its processes end; --overwrite takes nothing from their parts."""
    (tmp_path / "launcher.py").write_text(
        f"import os, runpy, sys, time\nsys.path.insert(0, {str(ROOT)!r})\n"
        + HANGING_RANK.format(what="time.sleep(1000)", stalled=1000.0)
        + f"runpy.run_path({str(ROOT / 'inference.py')!r}, run_name='__main__')\n"
    )
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", tmp_path / "launcher.py"]
    job = subprocess.Popen([sys.executable, *map(str, [*torchrun, *batch])], stdout=subprocess.PIPE, cwd=ROOT)
    deadline = time.monotonic() + 200
    while parts(tmp_path) < 8 + 4:
        assert job.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    job.kill()
    job.communicate(timeout=100)
    for part in tmp_path.glob("r.json.part*"):
        part.write_bytes(part.read_bytes().replace(b'"verdict": "', b'"verdict": "forged '))
    done = Command(tmp_path, "inference.py", *batch, "--overwrite").wait()
    assert done.returncode == 0 and parts(tmp_path) == 0, done.stderr
    results = json.loads((tmp_path / "r.json").read_bytes())["results"]
    assert len(results) == 16 and not any("forged" in result["verdict"] for result in results)
