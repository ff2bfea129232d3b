"""monitor_training.py as users run it: it shows runs on any output, leaves no trace, and loads nothing heavy."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from conftest import ROOT, assert_user_error, run_command
from test_run_log import event, lines, training
from test_status import make_run, watched

from monitor_training import history

SCRIPT = [sys.executable, str(ROOT / "monitor_training.py")]


def state_of(folder: Path) -> dict:
    """Everything that watching could change: names, contents, times."""
    paths = [folder, *sorted(folder.rglob("*"))]
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else os.listdir(path)) for path in paths
    }


def test_watching_leaves_no_trace(tmp_path):
    folder = make_run(tmp_path / "exp" / "run", event("start"), *training(4), event("progress", epoch=5))
    for path in (folder / "weights", folder, folder.parent):
        path.chmod(0o555)
    before = state_of(folder.parent)
    done = run_command("monitor_training.py", "--dir", folder.parent, "--once", "--plot", tmp_path / "curves.png")
    for path in (folder.parent, folder, folder / "weights"):
        path.chmod(0o755)
    assert done.returncode == 0 and "error" not in done.stderr
    after = state_of(folder.parent)
    assert before.keys() == after.keys() and all(before[path][1] == after[path][1] for path in before)
    assert {path: before[path][0] for path in before} == {path: after[path][0] for path in after}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "exp"]


def test_by_default_the_run_written_last(tmp_path):
    for name, written in (("a", 3), ("b", 9), ("c", 5)):
        path = make_run(tmp_path / "exp_result" / name, event("start", 10 - written), event("end"))
        os.utime(path / "log.jsonl", (written, written))
    done = subprocess.run([*SCRIPT, "--once"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0].endswith(" · newest run below exp_result") and done.stdout.splitlines()[1] == "b"
    done = subprocess.run([*SCRIPT, "--once"], cwd=tmp_path / "exp_result", capture_output=True, text=True)
    assert_user_error(done, "no run below exp_result", "--dir RUN")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--dir", "nowhere"], ["--dir nowhere contains no run"]),
        (["--interval", "0"], ["--interval", "0.0"]),
        (["--plot", "a.jpg"], ["--plot", "a.jpg"]),
        (["--dir"], ["--dir"]),
    ],
)
def test_mistakes_are_one_line(arguments, words):
    assert_user_error(run_command("monitor_training.py", "--once", *arguments), *words)


def test_plain_text_where_it_is_no_terminal(tmp_path, monkeypatch):
    folder = make_run(tmp_path / "run", event("start"), *training(4))
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
    monkeypatch.setenv("COLUMNS", "40")
    done = subprocess.run([*SCRIPT, "--dir", folder, "--once"], capture_output=True, text=True, encoding="latin-1")
    assert done.returncode == 0 and done.stdout.isascii() and "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 40 and "'" in done.stdout


def test_the_figure_is_of_the_kind_asked_for(tmp_path):
    make_run(tmp_path / "exp" / "a", event("start"), *training(4))
    make_run(tmp_path / "exp" / "b", event("start"))
    for name in ("c.pdf", "both.2"):
        done = run_command(
            "monitor_training.py", "--dir", tmp_path / "exp", "--once", "--plot", tmp_path / "out" / name
        )
        assert (done.returncode == 0) == (name == "c.pdf"), done.stderr
    done = run_command("monitor_training.py", "--dir", tmp_path / "exp", "--once", "--plot", tmp_path / "out" / "both")
    assert done.returncode == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["both.pdf", "both.png", "c.pdf"]


def test_a_figure_that_cannot_be_written_costs_no_status(tmp_path):
    make_run(tmp_path / "exp" / "a", event("start"), *training(4))
    (tmp_path / "file").touch()
    done = run_command(
        "monitor_training.py", "--dir", tmp_path / "exp", "--once", "--plot", tmp_path / "file" / "c.png"
    )
    assert done.returncode == 1 and "epoch" in done.stdout
    assert "error: not drawn: " in done.stderr and "Traceback" not in done.stderr


def test_the_figures_curves_are_the_logs(tmp_path):
    run = watched(tmp_path / "run", event("start"), *training(2), event("epoch", epoch=3, dev_min_tdcf=None))
    assert history(run) == ([1, 2, 3], [2.0, 1.0, 0.4], [1.0, 0.5, 0.05], [1.0, 0.5, None])


def read_until(enough: bytes, source: int, seconds: float = 20) -> bytes:
    """Read from `source` until `enough` was read."""
    text, end = b"", time.monotonic() + seconds
    while enough not in text and time.monotonic() < end:
        if select.select([source], [], [], 0.1)[0]:
            text += os.read(source, 65536)
    assert enough in text
    return text


def test_looks_follow_each_other_until_ctrl_c(tmp_path):
    folder = make_run(tmp_path / "run", event("start"), event("progress"))
    command = [*SCRIPT, "--dir", str(folder), "--interval", "0.2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    text = read_until(b"1 of 10", process.stdout.fileno())
    with (folder / "log.jsonl").open("ab") as file:
        file.write(lines(*training(1)))
    text += read_until(b"in epoch 1\n", process.stdout.fileno())
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=10)
    assert process.returncode == 130 and errors == b""
    assert b"\x1b" not in text + rest and len(re.findall(rb"(?:^|\n\n)\d\d:\d\d:\d\d\nrun\n", text)) >= 2


def test_a_terminal_is_redrawn_in_place(tmp_path):
    """With cursor up and clear below only: a killed process leaves no terminal mode switched."""
    folder = make_run(tmp_path / "run", event("start"), *training(4))
    terminal, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 60, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    environment |= {"TERM": "xterm", "PYTHONUTF8": "1"}
    command = [*SCRIPT, "--dir", str(folder), "--interval", "0.2"]
    process = subprocess.Popen(command, stdin=inner, stdout=inner, stderr=inner, env=environment)
    text = read_until(b"\x1b[J", terminal)
    first = text.split(b"\x1b[")[0]
    height = first.count(b"\n")
    assert height == 19 and "… 5 more lines\r\n".encode() in first
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) == 130
    while select.select([terminal], [], [], 0)[0]:
        text += os.read(terminal, 65536)
    assert set(re.findall(rb"\x1b\[[0-9;?]*[A-Za-z]", text)) == {b"\x1b[19F", b"\x1b[J"}
    os.close(inner)
    os.close(terminal)


def test_it_starts_without_torch_or_matplotlib():
    modules = "monitor_training, training.status, training.status_view, training.terminal"
    code = f"import sys, {modules}; assert not {{'torch', 'matplotlib', 'scipy', 'pynvml'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    began = time.monotonic()
    assert run_command("monitor_training.py", "--help").returncode == 0
    assert time.monotonic() - began < 5  # 0.3 s here; a busy machine takes longer
