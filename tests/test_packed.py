"""Packs hold exactly the reader's samples; a stale, damaged or half-written pack is never used."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import ROOT

from audio import reading
from common.errors import UserError
from common.files import exclusive
from corpora import packed

NAME = "LA_train"


@pytest.fixture
def files(tmp_path) -> dict[str, Path]:
    """20 flac files of 16-bit noise, the extremes of int16 among it."""
    folder = tmp_path / "flac"
    folder.mkdir()
    rng, files = np.random.default_rng(0), {}
    for number in range(20):
        samples = rng.integers(-32768, 32768, 1000 + 37 * number).astype(np.int16)
        samples[:5] = [-32768, 32767, -1, 0, 1]
        files[f"u{number:02}"] = file = folder / f"u{number:02}.flac"
        soundfile.write(file, samples, 16_000)
    return files


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "packed"


def load(folder: Path, files: dict[str, Path], workers: int = 0) -> packed.Pack:
    return packed.load(folder, NAME, files, workers)


def assert_is(pack: packed.Pack, files: dict[str, Path]) -> None:
    assert len(pack) == len(files)
    for number, file in enumerate(files.values()):
        samples = pack[number].astype(np.float32) / np.float32(32768)
        np.testing.assert_array_equal(samples, reading.read(file), strict=True)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def python(code: str, *arguments: object, **options) -> subprocess.Popen:
    """`code` in a process of its own, in a new session; sys.argv[1:] are the arguments."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, start_new_session=True, **pipes, **options)


LOAD = """
import sys, time
from pathlib import Path
from audio import reading
from common import command
from corpora import packed
files = {path.stem: path for path in sorted(Path(sys.argv[2]).glob("*.flac"))}
def load():
    packed.load(sys.argv[1], "LA_train", files, int(sys.argv[3]))
"""
SLOW = (
    LOAD + "read = reading.read; reading.read = lambda path: print(path, flush=True) or time.sleep(0.1) or read(path)\n"
)


@pytest.mark.parametrize("workers", [0, 2])
def test_samples_are_those_of_the_reader(files, folder, workers, capsys):
    pack = load(folder, files, workers)
    assert_is(pack, files)
    assert pack.samples.dtype == np.int16 and not pack.samples.flags.writeable
    assert capsys.readouterr().err.startswith("note: packing 20 utterances: no ")
    assert [Path(name).suffix for name in left(folder)] == [".json", ".pcm"]


def test_is_decoded_once(files, folder, monkeypatch, capsys):
    load(folder, files)
    monkeypatch.setattr(reading, "read", None)
    capsys.readouterr()
    assert len(load(folder, files)) == 20
    assert capsys.readouterr().err == ""


# ------------------------------------------------------------------------------------------------------- invalidation


def touch(pcm: Path, files: dict[str, Path]) -> None:
    os.utime(files["u03"], ns=(0, 10**18))


def change(pcm: Path, files: dict[str, Path]) -> None:
    soundfile.write(files["u03"], np.ones(500, np.int16), 16_000)


def truncate(pcm: Path, files: dict[str, Path]) -> None:
    pcm.write_bytes(pcm.read_bytes()[:-2])


def lengthen(pcm: Path, files: dict[str, Path]) -> None:
    pcm.write_bytes(pcm.read_bytes() + b"\0\0")


def flip(pcm: Path, files: dict[str, Path]) -> None:
    data = bytearray(pcm.read_bytes())
    data[3000] ^= 1
    pcm.write_bytes(data)


def lose(pcm: Path, files: dict[str, Path]) -> None:
    pcm.unlink()


def lose_index(pcm: Path, files: dict[str, Path]) -> None:
    """As a crash does after the samples and before the index."""
    pcm.with_suffix(".json").unlink()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (touch, "u03.flac has changed since"),
        (change, "u03.flac has changed since"),
        (truncate, "has another size"),
        (lengthen, "has another size"),
        (lose, "has another size"),
        (lose_index, "json yet"),
        (flip, "is damaged at u01"),
    ],
)
def test_what_does_not_fit_is_packed_again(files, folder, damage, reason, capsys):
    load(folder, files)
    damage(packed.pack_path(folder, NAME, files), files)
    capsys.readouterr()
    assert_is(load(folder, files), files)
    error = capsys.readouterr().err
    assert error.startswith("note: packing 20 utterances: ") and reason in error
    load(folder, files)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"format": [1]},
        {"utt_id": None},
        {"utt_id": {"u00": 1}},
        {"samples": [1]},
        {"samples": "many"},
        {"samples": [0] * 20},
        {"samples": [-5] * 20},
        {"samples": [10**300] * 20},
        {"samples": [1e3] * 20},
        {"samples": [True] * 20},
        {"file_bytes": [[]] * 20},
        {"file_mtime_ns": [10**300] * 20},
        {"crc32": [-1] * 20},
        {"crc32": ["0"] * 20},
        {"rounded": "none"},
        {"rounded": -1},
        {"rounded": 10**300},
        {"code": "__import__('os').abort()"},
    ],
    ids=str,
)
def test_a_strange_index_is_made_again(files, folder, changes, capsys):
    load(folder, files)
    index = packed.pack_path(folder, NAME, files).with_suffix(".json")
    index.write_text(json.dumps(json.loads(index.read_text()) | changes))
    capsys.readouterr()
    assert_is(load(folder, files), files)
    assert capsys.readouterr().err.count("note: packing") == 1


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"samples": ' + b"9" * 5000 + b"}", b"{}"]
)
def test_no_index_is_made_one(files, folder, text, capsys):
    load(folder, files)
    index = packed.pack_path(folder, NAME, files).with_suffix(".json")
    index.write_bytes(text)
    assert_is(load(folder, files), files)
    assert f"{index} is no index" in capsys.readouterr().err


def test_another_protocol_has_a_pack_of_its_own(files, folder):
    load(folder, files)
    fewer = dict(list(files.items())[::-3])
    assert_is(load(folder, fewer), fewer)
    assert_is(load(folder, files), files)
    assert len(left(folder)) == 4


# ------------------------------------------------------------------------------------------- absent and other audio


def test_carried_without_the_audio(files, folder, tmp_path, capsys):
    samples = load(folder, files).samples.copy()
    folder.rename(tmp_path / "carried")
    shutil.rmtree(tmp_path / "flac")
    elsewhere = {utt_id: Path("/nowhere") / file.name for utt_id, file in files.items()}
    capsys.readouterr()
    pack = load(tmp_path / "carried", elsewhere)
    np.testing.assert_array_equal(pack.samples, samples)
    assert "without the audio" in capsys.readouterr().err
    flip(packed.pack_path(tmp_path / "carried", NAME, files), files)
    with pytest.raises(UserError, match="cannot read audio /nowhere/u00.flac"):
        load(tmp_path / "carried", elsewhere)


def test_a_missing_file_is_named(files, folder):
    load(folder, files)
    files["u07"].unlink()
    with pytest.raises(UserError, match="cannot read audio .*u07.flac"):
        load(folder, files)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_file_leaves_nothing(files, folder, workers):
    files["u07"].write_bytes(files["u07"].read_bytes()[:-500])
    with pytest.raises(UserError, match="u07.flac"):
        load(folder, files, workers)
    assert left(folder) == []


def test_a_file_that_changes_meanwhile_is_noticed(files, folder, monkeypatch):
    read = reading.read
    monkeypatch.setattr(reading, "read", lambda path: touch(path, files) or read(path))
    with pytest.raises(UserError, match="u03.flac has changed since"):
        load(folder, files)


def test_rounding_is_said_each_time(files, folder, capsys):
    rng = np.random.default_rng(0)
    soundfile.write(files["u03"], rng.normal(size=(900, 2)), 16_000)  # clips, and the mean is between the steps
    soundfile.write(files["u05"], rng.integers(-9999, 9999, 900).astype(np.int16), 44_100)
    pack = load(folder, files)
    assert "2 of 20 utterances were not 16-bit" in capsys.readouterr().err
    load(folder, files)
    assert "2 of 20 utterances were not 16-bit" in capsys.readouterr().err
    for number in (3, 5):
        error = pack[number] / np.float32(32768) - reading.read(files[f"u{number:02}"])
        assert 0 < np.abs(error).max() <= 1 / 32768


def test_needs_no_audio_libraries_once_packed(files, folder):
    load(folder, files)
    code = "import sys; sys.modules |= dict.fromkeys(['soundfile', 'av', 'soxr'])" + LOAD + "load()"
    process = python(code, folder, files["u00"].parent, 0)
    _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (0, "")


# ---------------------------------------------------------------------------------------- crashes, full disks, company


def wait_for(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_killed_while_packing(files, folder, capsys):
    process = python(SLOW + "load()", folder, files["u00"].parent, 2)
    process.stdout.readline()
    process.kill()
    process.communicate(timeout=10)  # would wait for workers that go on
    assert [Path(name).suffix for name in left(folder)] == [".pcm"]
    assert_is(load(folder, files), files)
    assert [Path(name).suffix for name in left(folder)] == [".json", ".pcm"]


def test_interrupted_while_packing(files, folder):
    process = python(SLOW + "command.run(load)", folder, files["u00"].parent, 2)
    process.stdout.readline()
    time.sleep(0.3)  # until the other worker is there too
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=20)
    assert process.returncode == 130
    assert error.splitlines()[1:] == ["interrupted"]
    assert left(folder) == []


def test_a_worker_that_dies(files, folder):
    code = LOAD + "import os; reading.read = lambda path: os.kill(os.getpid(), 9)\ncommand.run(load)"
    process = python(code, folder, files["u00"].parent, 2)
    _, error = process.communicate(timeout=20)
    assert process.returncode == 2
    assert error.splitlines()[1:] == [
        "error: a worker process died — expected enough memory for 2 of them (fewer need less), found it killed"
    ]
    assert left(folder) == []


def test_full_disk(files, folder):
    code = LOAD + "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\ncommand.run(load)"
    process = python(code, folder, files["u00"].parent, 0)
    _, error = process.communicate(timeout=20)
    assert process.returncode == 2
    assert error.splitlines()[1:] == [f"error: cannot write {packed.pack_path(folder, NAME, files)}: File too large"]
    assert left(folder) == []


def test_no_folder_to_write_to(files, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write to"):
        load(tmp_path / "file" / "packed", files)


def test_one_packs_and_the_others_wait(files, folder, capsys):
    folder.mkdir()
    packs = []
    with exclusive(folder):
        threads = [threading.Thread(target=lambda: packs.append(load(folder, files))) for _ in range(2)]
        for thread in threads:
            thread.start()
        said = []
        wait_for(lambda: said.append(capsys.readouterr().err) or "".join(said).count("waiting for another") == 2)
    for thread in threads:
        thread.join()
    assert capsys.readouterr().err.count("note: packing") == 1
    assert_is(packs[0], files)
    assert_is(packs[1], files)
