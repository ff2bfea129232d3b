"""audio/search.py: every path below a folder is audio to score, or named with the reason, by every command alike."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import run_command, save_tiny

from audio import search as searching
from audio.search import APPLE, LOOP, NO_ENDING, left_out_notes, search
from common.errors import UserError
from corpora.cutting import find_recordings
from corpora.folders import ClassFolders
from data_utils import preflight
from scoring.audio_files import files_in_folder, files_in_list


@pytest.fixture
def tree(tmp_path):
    """Folders of two classes with a linked folder, a dead link, a loop, AppleDouble, odd endings and a third folder."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(16000)
    for key in ("bonafide", "spoof"):
        (tmp_path / "store" / key).mkdir(parents=True)
        (tmp_path / "ds" / key).mkdir(parents=True)
        (tmp_path / "ds" / key / "more").symlink_to(f"../../store/{key}")
        for name in (f"store/{key}/0.wav", f"ds/{key}/1.bwf", f"ds/{key}/2.WAV"):
            noise = np.roll(noise, 1)
            soundfile.write(tmp_path / name, noise, 16000, format="WAV")
        soundfile.write(tmp_path / "ds" / key / "3.aifc", noise[::-1], 16000, format="AIFF")
    (tmp_path / "ds/bonafide/dead.wav").symlink_to("nowhere")
    (tmp_path / "ds/spoof/loop").symlink_to("..")
    (tmp_path / "ds/spoof/._1.wav").write_bytes(b"\0\5\x16\7")
    (tmp_path / "ds/notes.txt").write_text("")
    (tmp_path / "ds/unsure").mkdir()
    soundfile.write(tmp_path / "ds/unsure/4.wav", noise, 16000)
    return tmp_path / "ds"


LEFT_OUT = {NO_ENDING: ["notes.txt"], APPLE: ["spoof/._1.wav"], LOOP: ["spoof/loop"]}
AUDIO = [f"{key}/{name}" for key in ("bonafide", "spoof") for name in ("1.bwf", "2.WAV", "3.aifc", "more/0.wav")]


def below(root, paths) -> list[str]:
    return sorted(os.path.relpath(path, root) for path in paths)


def test_every_path_is_found_or_left_out_with_its_reason(tree, monkeypatch):
    found = search(tree)
    assert below(tree, found.files) == sorted([*AUDIO, "bonafide/dead.wav", "unsure/4.wav"])
    assert {reason: below(tree, paths) for reason, paths in found.left_out.items()} == LEFT_OUT
    monkeypatch.chdir(tree)
    assert search(".").files == below(tree, found.files)


def test_folders_that_are_not_searched_are_named(tree, capsys):
    assert below(tree, files_in_folder(tree / "bonafide", False)) == [
        f"bonafide/{name}" for name in ("1.bwf", "2.WAV", "3.aifc", "dead.wav")
    ]
    assert "1 left out, in a folder below (--recursive)" in capsys.readouterr().err


def test_a_note_names_the_first_paths():
    assert left_out_notes({"why": [*"abcdefg"]}) == ["7 left out, why: a, b, c, d, e and 2 more"]


def test_class_folders_name_what_is_no_trial(tree):
    data_set = ClassFolders(tree)
    partition = data_set.partition("eval")
    assert sorted(partition.files) == sorted([*AUDIO, "bonafide/dead.wav"])
    reasons = LEFT_OUT | {"in no folder of a class": ["unsure/4.wav"]}
    assert {reason: below(tree, paths) for reason, paths in partition.left_out.items()} == reasons
    assert len([note for note in preflight([partition], "LA") if "left out" in note]) == 4


def test_a_folder_that_cannot_be_read(tree, monkeypatch, capsys):
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path).endswith("unsure"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(searching.os, "scandir", refuse)
    assert tree / "unsure" in files_in_folder(tree, True)
    assert "1 left out, cannot be read (Permission denied)" in capsys.readouterr().err
    assert "unsure" in [source.name for source in find_recordings(tree, None)]
    with pytest.raises(UserError, match=r"may lack audio — expected readable folders, found no access to .*unsure"):
        preflight([ClassFolders(tree).partition("eval")], "LA")


def test_a_folder_that_can_be_listed_but_not_entered(tree, monkeypatch, capsys):
    stat = os.stat

    def refuse(path, **options):
        if os.fspath(path).endswith("unsure"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return stat(path, **options)

    monkeypatch.setattr(searching.os, "stat", refuse)
    assert search(tree).left_out["cannot be read (Permission denied)"] == [str(tree / "unsure")]


def test_recordings_without_a_speaker_are_named(tree, tmp_path, capsys):
    (tmp_path / "speakers.csv").write_text("path,speaker\nbonafide/1.bwf,a\n")
    assert len(find_recordings(tree, tmp_path / "speakers.csv")) == 1
    assert "9 left out, not in" in capsys.readouterr().err


def test_commands_name_what_they_leave_out(tree, tmp_path):
    checked = run_command("data_utils.py", "check", f"folder:{tree}", "--num_workers", 0)
    assert checked.returncode == 1 and "missing (eval)" in checked.stdout
    for path in ("dead.wav", "loop", "._1.wav", "notes.txt", "unsure/4.wav"):
        assert path in checked.stdout
    model = save_tiny(tmp_path / "tiny.pth", threshold=0.5)
    options = ("--data_path", tree, "--output_dir", tmp_path / "out", "--bootstrap", 0, "--num_workers", 0)
    done = run_command("comprehensive_eval.py", "--checkpoint", model, "--dataset", "folder", *options)
    assert done.returncode == 1 and len((tmp_path / "out/tiny/ds/scores.txt").read_text().splitlines()) == len(AUDIO)
    for path in ("dead.wav", "loop", "._1.wav", "notes.txt", "unsure/4.wav"):
        assert path in done.stderr


def test_a_list_is_read_like_other_text_files(tmp_path):
    path, names = tmp_path / "list.txt", [Path("a.wav"), Path("b c.wav")]
    for data in ("a.wav\r\nb c.wav\r\n".encode("utf-8-sig"), b"a.wav \nb c.wav\t\n\n"):
        path.write_bytes(data)
        assert files_in_list(str(path)) == names
    path.write_bytes(b"\xe9.wav\n")  # a name that is not UTF-8
    assert files_in_list(str(path)) == [Path(os.fsdecode(b"\xe9.wav"))]
    (tmp_path / "blank ").write_text("")
    path.write_text(f"{tmp_path}/blank \n")
    assert files_in_list(str(path)) == [tmp_path / "blank "]
    path.write_bytes("a.wav\n".encode("utf-16"))
    with pytest.raises(UserError, match="line 1: not text — expected UTF-8, found a NUL byte: a binary or UTF-16 file"):
        files_in_list(str(path))
