"""What all packages share: one-line errors, exit codes, atomic writes, folder locks."""

import os
import signal
import stat
import subprocess
import sys

import pytest
from conftest import ROOT

from common.errors import UserError
from common.files import distinct_names, exclusive, replacing, require_separate, write_text


def test_message_is_one_line_with_expected_and_found():
    assert str(UserError("bad\nvalue", "one", 2)) == "bad value — expected one, found 2"
    assert str(UserError("bad")) == "bad"


def test_written_whole_with_ordinary_permissions(tmp_path):
    write_text(tmp_path / "new" / "a.txt", "ä\n")
    assert (tmp_path / "new" / "a.txt").read_text(encoding="utf-8") == "ä\n"
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "new" / "a.txt").stat().st_mode) == 0o666 & ~umask


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(RuntimeError), replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_text(tmp_path / "file" / "a.txt", "")


def test_a_locked_folder_is_refused_without_waiting(tmp_path):
    folder = tmp_path / "new"
    with exclusive(folder) as locked:
        assert locked
        with pytest.raises(UserError, match="is in use"), exclusive(folder, wait=False):
            pass
    with exclusive(folder, wait=False) as locked:
        assert locked


def test_a_killed_parent_leaves_no_lock_in_its_forked_child(tmp_path):
    """The child lives on, as a data loader's worker may for a while."""
    code = f"""
import os, time
from pathlib import Path
from common.files import exclusive
with exclusive(Path({str(tmp_path / "run")!r})):
    if os.fork() == 0:
        print(flush=True)
    time.sleep(30)
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True)
    try:
        process.stdout.readline()
        process.kill()
        process.wait()
        with exclusive(tmp_path / "run", wait=False) as locked:
            assert locked
    finally:
        os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ("return None", 0, ""),
        ("return 1", 1, ""),
        ("raise UserError('no', 1, 2)", 2, "error: no — expected 1, found 2\n"),
        ("Parser().parse_args(['--x'])", 2, "error: unrecognized arguments: --x (see -c --help)\n"),
        ("open('/nowhere/x', 'w')", 2, "error: /nowhere/x: No such file or directory\n"),
        ("raise KeyboardInterrupt", 130, "interrupted\n"),
        ("raise BrokenPipeError", 141, ""),
        (
            "raise type('OutOfMemoryError', (RuntimeError,), {})('CUDA out of memory. Tried')",  # torch.cuda's
            2,
            "error: the GPU has too little memory: a smaller batch takes less (CUDA out of memory. Tried)\n",
        ),
    ],
)
def test_exit_codes(body, code, message):
    script = f"from common.command import *\nfrom common.errors import *\ndef main():\n    {body}\nrun(main)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, message)


def test_ctrl_c_during_the_imports_is_one_word(tmp_path):
    (tmp_path / "torch.py").write_text("raise KeyboardInterrupt")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, ROOT / "main.py"], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "interrupted\n")


def test_sigterm_ends_a_command_and_lets_it_clean_up():
    body = "try:\n        os.kill(os.getpid(), 15)\n        time.sleep(9)\n    finally:\n        print('cleaned')"
    script = f"import os, time\nfrom common.command import run\ndef main():\n    {body}\nrun(main)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (143, "cleaned\n", "")


def test_names_become_distinct_whatever_numbers_they_have():
    assert distinct_names(["a", "a-2", "a", "a"]) == ["a", "a-2", "a-3", "a-4"]
    assert distinct_names(["a b", "a_b", "eval"], taken=["eval"]) == ["a_b", "a_b-2", "eval-2"]


def test_an_output_over_an_input_or_another_output_is_refused(tmp_path):
    one, link = tmp_path / "one", tmp_path / "link"
    one.write_text("")
    link.symlink_to("one")
    require_separate({"--json": tmp_path / "new", "--csv": None}, [one, None, "-"])
    require_separate({"--json": "/dev/null", "--csv": "/dev/null"}, ["/dev/null"])
    for outputs, words in (
        ({"--json": link}, "--json .*link — expected a file to write, found one that"),
        ({"--json": one, "--csv": link}, "--csv .*link — expected a file of its own, found that of --json"),
    ):
        with pytest.raises(UserError, match=words):
            require_separate(outputs, [one])
