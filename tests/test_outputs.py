"""Where results go: links, devices and pipes stay what they are, and of two writers of one file one is refused."""

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import ROOT, assert_user_error, run_command, save_tiny

from common.errors import PartFailed, UserError
from common.files import exclusive_file, is_stream, replacing, write_text
from corpora.la_layout import replacing_folder
from plots.scores import attack_eer
from plots.style import write_figures
from scoring.audio_files import name_utterances

RATE = 16_000
SCORES = "u1 - bonafide 2.0\nu2 A01 spoof -1.0\nu3 - bonafide 1.0\nu4 A02 spoof 0.0\n"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    return str(save_tiny(tmp_path_factory.mktemp("weights") / "tiny.pth"))


def noise(path: Path, seconds: float = 0.6) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(round(seconds * RATE)), RATE)
    return path


def shell(command: str, **options) -> subprocess.CompletedProcess:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHON": sys.executable} | options.pop("env", {})
    return subprocess.run(
        ["bash", "-c", command], cwd=ROOT, env=environment, timeout=300, capture_output=True, **options
    )


# ------------------------------------------------------------------------------------------------- links and devices


def test_a_link_stays_a_link_and_a_file_keeps_its_permissions(tmp_path):
    (tmp_path / "disk").mkdir()
    for name in ("old.txt", "new.txt"):
        (tmp_path / name).symlink_to(tmp_path / "disk" / name)
    (tmp_path / "disk" / "old.txt").write_text("old")
    (tmp_path / "disk" / "old.txt").chmod(0o600)
    for name in ("old.txt", "new.txt"):
        write_text(tmp_path / name, "text")
        assert (tmp_path / name).is_symlink() and (tmp_path / "disk" / name).read_text() == "text"
    assert stat.S_IMODE((tmp_path / "disk" / "old.txt").stat().st_mode) == 0o600
    assert {path.name for path in tmp_path.rglob("*")} == {"disk", "old.txt", "new.txt"}


def test_a_corpus_written_through_a_link_leaves_the_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "corpus").symlink_to(tmp_path / "disk")
    with replacing_folder(tmp_path / "corpus") as new:
        (new / "a").touch()
    assert (tmp_path / "corpus").is_symlink() and [path.name for path in (tmp_path / "disk").iterdir()] == ["a"]
    assert {path.name for path in tmp_path.iterdir()} == {"corpus", "disk"}


def test_a_folder_is_no_output(tmp_path):
    with pytest.raises(UserError, match="expected a file, found a folder"):
        write_text(tmp_path, "")


def test_a_pipe_gets_the_content_when_it_is_whole(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    read = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()))
    reader.start()
    with replacing(tmp_path / "pipe") as temporary:
        temporary.write_text("content")
        assert not read
    reader.join(10)
    assert read == ["content"] and stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_device_stays_a_device(tmp_path):
    """A null device of the test's own where it may make one: the fault would replace the machine's."""
    null = tmp_path / "null"
    try:
        os.mknod(null, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        null.write_text("")  # a file system may forbid devices
    except OSError:
        pytest.skip("needs the right to make a device")
    assert is_stream(null)
    write_text(null, "text")
    assert stat.S_ISCHR(null.stat().st_mode) and [path.name for path in tmp_path.iterdir()] == ["null"]


@pytest.mark.parametrize("target", ["| cat", "> {folder}/out.txt; cat {folder}/out.txt"])
def test_evaluation_writes_json_after_its_report_on_stdout(tmp_path, target):
    (tmp_path / "s.txt").write_text(SCORES)
    done = shell(f"$PYTHON evaluation.py {tmp_path}/s.txt --json /dev/stdout {target.format(folder=tmp_path)}")
    report, brace, document = done.stdout.decode().partition("\n{\n")
    assert "EER" in report and json.loads(brace + document)["n_bonafide"] == 2
    assert not done.stderr


def test_inference_writes_every_kind_of_result_to_stdout(tiny, tmp_path):
    audio = noise(tmp_path / "a.wav")
    options = f"--model {tiny} --workers 0 --save_json /dev/stdout --save_csv /dev/stdout --scores /dev/stdout"
    done = shell(f"$PYTHON inference.py {audio} {options} | cat")
    lines = done.stdout.decode().splitlines()
    document = json.loads("\n".join(lines[next(i for i, line in enumerate(lines) if line.startswith("{")) :]))
    score = document["results"][0]["score"]
    assert any(line.startswith(f"{audio},a,") for line in lines) and f"a {score!r}" in lines
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_a_full_disk_is_named_with_the_file_and_leaves_the_old_one(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    path = tmp_path / "old.txt"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*old\.txt: No space left on device"):
        write_text(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


# ------------------------------------------------------------------------------------------------------- two writers


def test_a_locked_file_is_refused_and_stays(tmp_path):
    path = tmp_path / "r.json"
    with exclusive_file(path), pytest.raises(UserError, match=r"r\.json is in use"), exclusive_file(path):
        pass
    with exclusive_file(path):
        path.unlink()  # as a journal when its table is written
    with exclusive_file(path):
        pass


@pytest.mark.parametrize("option", ["--save_json", "--scores"])
def test_the_second_of_two_batches_that_write_one_file_is_refused(tiny, tmp_path, option):
    audio, out = noise(tmp_path / "a.wav"), tmp_path / "out"
    locked = out if option == "--save_json" else tmp_path / "out.journal"
    with exclusive_file(locked):
        done = run_command("inference.py", audio, "--model", tiny, option, out, "--workers", "0")
        assert_user_error(done, f"{locked} is in use")
    done = run_command("inference.py", audio, "--model", tiny, option, out, "--workers", "0")
    assert done.returncode == 0 and f"written to {out}" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"a.wav", "out"}


# -------------------------------------------------------------------------------------------------------- terminals


@pytest.mark.parametrize("encoding", ["cp932", "cp949", "latin-1", "ascii"])
def test_a_character_that_the_terminal_lacks_becomes_a_question_mark(encoding):
    code = "from common.command import run; run(lambda: print('a — é日 \\udce9 z'))"
    done = shell(f'$PYTHON -c "{code}"', env={"PYTHONIOENCODING": encoding})
    shown = done.stdout.decode(encoding, "replace")
    assert shown.startswith("a ") and "z" in shown and shown.count("?") >= 1
    assert b"\xe9" in done.stdout and (done.returncode, done.stderr) == (0, b"")  # the file name's byte is as it was


@pytest.mark.parametrize(("closed", "code"), [(">&-", 0), ("2>&-", 0), ("<&- >&- 2>&-", 0), (">/dev/full", 2)])
def test_closed_streams_change_no_result(tmp_path, closed, code):
    (tmp_path / "s.txt").write_text(SCORES)
    done = shell(f"$PYTHON evaluation.py {tmp_path}/s.txt --json {tmp_path}/r.json {closed}")
    assert done.returncode == code and b"Traceback" not in done.stderr and done.stderr.count(b"\n") <= 1
    assert code or json.loads((tmp_path / "r.json").read_text())["n_bonafide"] == 2


# ---------------------------------------------------------------------------------------------------------- figures


def test_a_figure_that_fails_costs_nothing_else(tmp_path):
    def fail():
        raise RuntimeError("cannot cache function")

    good = {tmp_path / name: lambda: attack_eer({"a": {"A07": (0.0, 0.0, 0.0)}}) for name in ("first", "last")}
    makers = {tmp_path / "first": good[tmp_path / "first"], tmp_path / "bad": fail, **good}
    with pytest.raises(PartFailed, match=r"not drawn: \S*bad \(cannot cache function\)"):
        write_figures(makers, ["png"])
    assert {path.name for path in tmp_path.iterdir()} == {"first.png", "last.png"}


def test_a_name_too_long_for_a_figure_costs_one_figure(tiny, tmp_path):
    """As does anything else that a figure needs; the file system allows the recording's own name of 253 bytes."""
    names = [noise(tmp_path / "audio" / f"{stem}.wav").name for stem in ("a", "b" + "é" * 124, "c")]
    options = ["--visualize", "--output_dir", tmp_path / "figures", "--save_csv", tmp_path / "r.csv", "--workers", "0"]
    done = run_command("inference.py", "--audio_dir", tmp_path / "audio", "--model", tiny, *options)
    assert done.returncode == 1 and len(done.stdout.splitlines()) == 3
    errors = [line for line in done.stderr.splitlines() if "error: " in line]
    assert len(errors) == 1 and f"no figure of {tmp_path}/audio/{names[1]}: cannot write" in errors[0]
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 4
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"a.png", "a.pdf", "c.png", "c.pdf"}
    assert "(2 figures, each as PNG and PDF)" in done.stderr


def test_a_figure_needs_no_home_and_no_numba(tiny, tmp_path):
    audio = noise(tmp_path / "a.wav")
    options = ["--visualize", "--output_dir", tmp_path / "figures", "--workers", "0", "--model", tiny]
    command = [sys.executable, ROOT / "inference.py", audio, *options]
    environment = {"HOME": "/proc/nobody", "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "figures" / "a.png").stat().st_size > 0
    code = "import sys; from plots.signal import Excerpt, draw_spectrogram; import numpy as np\n"
    code += "from plots.style import column_figure; _, axes = column_figure(2, '', '')\n"
    code += "draw_spectrogram(axes, Excerpt(np.ones(16000), 16000)); print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# ------------------------------------------------------------------------------------------------------------ names


def test_files_of_one_name_are_told_apart_by_their_folders():
    def named(*names: str) -> list[str]:
        return list(name_utterances([Path(name) for name in names]).values())

    assert named("x/a.wav", "y/b.wav") == ["a", "b"]
    assert named("x/one/a.wav", "x/two/a.wav", "x/b.c.wav") == ["one/a", "two/a", "b.c"]
    assert named("x/a.wav", "x/a.mp3") == ["a.wav", "a.mp3"]


def test_files_of_one_name_have_figures_and_scores_of_their_own(tiny, tmp_path):
    for name in ("one/a.wav", "two/a.wav"):
        noise(tmp_path / "audio" / name)
    options = ["--visualize", "--output_dir", tmp_path / "figures", "--scores", tmp_path / "s.txt", "--workers", "0"]
    audio = ["--audio_dir", tmp_path / "audio", "--recursive", "--save_json", tmp_path / "r.json"]
    done = run_command("inference.py", *audio, "--model", tiny, *options)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in (tmp_path / "s.txt").read_text().splitlines()] == ["one/a", "two/a"]
    assert [item["utt_id"] for item in json.loads((tmp_path / "r.json").read_text())["results"]] == ["one/a", "two/a"]
    found = {str(path.relative_to(tmp_path / "figures")) for path in (tmp_path / "figures").rglob("*.*")}
    assert found == {"one/a.png", "one/a.pdf", "two/a.png", "two/a.pdf"}


def test_results_are_never_written_over_what_is_read(tiny, tmp_path):
    recording, names = tmp_path / "recording", tmp_path / "list.txt"
    soundfile.write(recording, 0.1 * np.random.default_rng(0).standard_normal(16000), 16000, format="WAV")
    names.write_text(f"{recording}\n")
    before = {path: path.read_bytes() for path in (recording, names)}
    both = ("--save_json", tmp_path / "r", "--save_csv", tmp_path / "r")
    for options in (
        ("--scores", names),
        ("--save_csv", recording),
        both,
        ("--stream", "-", "--scores", tmp_path / "s"),
    ):
        given = () if "--stream" in options else ("--list", names)
        assert_user_error(run_command("inference.py", *given, "--model", tiny, *options), options[-2])
    foreign = ("--save_json", tmp_path / "thesis", "--overwrite")
    foreign[1].write_text("mine\n")
    assert_user_error(run_command("inference.py", recording, "--model", tiny, *foreign), "another file")
    assert foreign[1].read_text() == "mine\n"
    assert {path: path.read_bytes() for path in before} == before and not (tmp_path / "r").exists()
