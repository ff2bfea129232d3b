"""make_corpus.py rebuild: a corpus out of small repositories made here; what is missing or hostile is named."""

import csv
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
import soundfile

import make_corpus
from audio import SAMPLE_RATE as RATE
from common.errors import UserError
from corpora import clones
from corpora.clones import find_commit, save_file
from corpora.folders import CsvList
from corpora.rebuild import cut, rebuild
from corpora.recording_list import BUNDLED, COLUMNS, PROMPTS, read_list, source_lines

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")

WHO = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-c", "commit.gpgsign=false")


def git(folder: Path, *arguments: object) -> str:
    command = ["git", *WHO, "-C", folder, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def commit(folder: Path, files: dict[str, bytes]) -> str:
    """Commit these files to the repository, which is made if it is missing; returns the first 12 digits of the id."""
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "--quiet")
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    git(folder, "add", "--all", "--force")
    git(folder, "commit", "--quiet", "--message", "files")
    return git(folder, "rev-parse", "HEAD")[:12]


def sound(folder: Path, seconds: float, seed: int, rate: int = RATE) -> bytes:
    """A WAV file of noise."""
    noise = np.random.default_rng(seed).integers(-9000, 9000, int(seconds * rate), dtype=np.int16)
    path = folder / "sound.wav"
    soundfile.write(path, noise, rate)
    content = path.read_bytes()
    path.unlink()
    return content


def row(clip: str, repository: str, commit: str, file: str, **more: object) -> dict[str, object]:
    known = {"class": "bonafide", "generator": "-", "licence": "MIT", "language": "en", "speaker": "", "offset": ""}
    return known | {"clip": clip, "repository": repository, "commit": commit, "file": file, "seconds": 1.0} | more


def write_list(path: Path, rows: list[dict[str, object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(rows)
    return path


def clip(out: Path, name: str) -> np.ndarray:
    return soundfile.read(out / "flac" / f"{name}.flac", dtype="int16")[0]


@pytest.fixture
def world(tmp_path: Path) -> tuple[list[dict[str, object]], Path]:
    """Rows of six clips of two repositories and a data set, and the folder of clones."""
    folder = tmp_path / "clones"
    old = commit(folder / "ann/speech", {"a b/trñ00.wav": sound(tmp_path, 10, 1), "=x.wav": sound(tmp_path, 0.9, 2)})
    commit(folder / "ann/speech", {"a b/trñ00.wav": b"changed later"})
    vocoder = commit(folder / "bob/vocoder.demo", {"v.wav": sound(tmp_path, 2, 3, 44_100)})
    (folder / "ASVspoof2019" / "LA").mkdir(parents=True)
    (folder / "ASVspoof2019/LA/1.wav").write_bytes(sound(tmp_path, 3, 4))
    rows = [row(f"BR_{number}", "ann/speech", old, "a b/trñ00.wav", speaker="ann") for number in range(3)]
    rows += [row("short", "ann/speech", old, "=x.wav", seconds=0.905)]
    rows += [row("fake", "bob/vocoder.demo", vocoder, "v.wav", **{"class": "spoof", "generator": "Vocos"})]
    rows += [row("LA_1", "ASVspoof2019", "", "LA/1.wav", offset=0.5, seconds=2.5)]
    return rows, folder


def test_clips_are_cut_from_the_listed_commits(world, tmp_path):
    rows, folder = world
    clips = read_list(write_list(tmp_path / "list.csv", [*rows, row("MX_1", "LibriSpeech", "", "")]))
    made, problems = rebuild(clips, folder, tmp_path / "out", workers=0)
    assert not problems and [one.name for one in made] == [one["clip"] for one in rows]
    (tmp_path / "whole.wav").write_bytes(sound(tmp_path, 10, 1))
    whole = soundfile.read(tmp_path / "whole.wav", dtype="int16")[0]
    for number, middle in enumerate((10 / 6, 5, 50 / 6)):
        start = round(middle * RATE) - RATE // 2
        assert np.array_equal(clip(tmp_path / "out", f"BR_{number}"), whole[start : start + RATE])
    assert len(clip(tmp_path / "out", "short")) == 0.9 * RATE and len(clip(tmp_path / "out", "fake")) == RATE
    (tmp_path / "whole.wav").write_bytes(sound(tmp_path, 3, 4))
    assert np.array_equal(
        clip(tmp_path / "out", "LA_1"), soundfile.read(tmp_path / "whole.wav", dtype="int16")[0][8000:]
    )
    info = soundfile.info(tmp_path / "out/flac/fake.flac")
    assert (info.samplerate, info.channels, info.format, info.subtype) == (RATE, 1, "FLAC", "PCM_16")
    with soundfile.SoundFile(tmp_path / "out/flac/BR_1.flac") as file:
        assert file.comment == f"ann/speech {rows[0]['commit']} a b/trñ00.wav, cut 2 of 3" and file.license == "MIT"


def test_the_table_is_read_as_a_data_set(world, tmp_path):
    rows, folder = world
    rebuild(read_list(write_list(tmp_path / "list.csv", rows)), folder, tmp_path / "out", workers=0)
    part = CsvList(tmp_path / "out/clips.csv").partition("eval")
    assert not part.missing() and part.is_bonafide().tolist() == [one["class"] == "bonafide" for one in rows]
    assert [(trial.speaker, trial.attack, trial.source) for trial in part.trials[3:5]] == [
        ("-", "-", "ann/speech"),
        ("-", "Vocos", "bob/vocoder.demo"),
    ]


def test_what_is_missing_is_named_and_the_rest_is_made(world, tmp_path, monkeypatch, capsys):
    rows, folder = world
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    (folder / "eve/odd").mkdir(parents=True)
    (folder / "eve/odd/link.wav").symlink_to(tmp_path / "list.csv")
    noise = np.random.default_rng(5).bytes(500)
    odd = commit(folder / "eve/odd", {"lfs.wav": pointer, "noise.wav": noise, "d/x": b"", "w.wav": b"RIFF"})
    rows += [row(name, "eve/odd", odd, f"{name}.wav") for name in ("lfs", "noise", "link", "w", "absent")]
    rows += [row("folder", "eve/odd", odd, "d"), row("hidden", "eve/odd", odd, "noise.wav/x")]
    rows += [row("gone", "eve/odd", "0123456789ab", "d/x"), row("cloneless", "eve/none", odd, "x.wav")]
    rows += [
        row("late", "eve/odd", odd, "noise.wav", seconds=9),
        row("long", "ASVspoof2019", "", "LA/1.wav", offset=2.5),
    ]
    rows += [row("set", "ASVspoof5", "", "1.wav"), row("lost", "ASVspoof2019", "", "LA/2.wav")]
    rows[0]["seconds"] = 11
    listed, out = write_list(tmp_path / "list.csv", rows), tmp_path / "out"
    command = ["rebuild", "--clones", folder, "--out", out, "--recordings", listed, "--workers", 0]
    monkeypatch.setattr(sys, "argv", ["make_corpus.py", *map(str, command)])
    assert make_corpus.main() == 1
    done = capsys.readouterr()
    lines = [line for line in done.err.splitlines() if line.startswith("missing: ")]
    for words in (
        ("lfs.wav", "Git LFS pointer"), ("noise.wav", "cannot read"), ("w.wav", "cannot read"), ("d:", "a folder"),
        ("link.wav", "a symbolic link"), ("absent.wav", "not in that commit"), ("noise.wav/x", "not in that commit"),
        ("0123456789ab", "found none"), ("no clone", "eve/none"), ("no data set", "ASVspoof5"),
        ("trñ00.wav", "11.", "10.000 s", "clips: 3"), ("LA/2.wav", "nothing there"), ("LA/1.wav", "3.500 s for long"),
    ):  # fmt: skip
        assert [line for line in lines if all(word in line for word in words)], (words, done.err)
    assert len(lines) == 13 and "13 of 15 files are missing" in done.err
    assert "bonafide: 1 of " in done.out and "spoof: 1 of 1 clips" in done.out
    with (out / "clips.csv").open(encoding="utf-8") as file:
        assert [one["path"] for one in csv.DictReader(file)] == ["flac/short.flac", "flac/fake.flac"]
    assert sorted(path.name for path in (out / "flac").iterdir()) == ["fake.flac", "short.flac"]


def test_a_second_run_makes_only_what_is_missing(world, tmp_path):
    rows, folder = world
    out, listed = tmp_path / "out", read_list(write_list(tmp_path / "list.csv", rows))
    (folder / "bob").rename(tmp_path / "bob")
    assert [len(part) for part in rebuild(listed, folder, out, workers=0)] == [5, 1]
    kept = (out / "flac/BR_0.flac").stat().st_mtime_ns
    (out / "flac/short.flac").write_bytes(b"fLaC cut")
    (out / "flac/.BR_0.flac.killed.flac").touch()
    (tmp_path / "bob").rename(folder / "bob")
    assert [len(part) for part in rebuild(listed, folder, out, workers=1)] == [6, 0]
    assert (out / "flac/BR_0.flac").stat().st_mtime_ns == kept and len(clip(out, "short")) == 0.9 * RATE
    assert len(list((out / "flac").iterdir())) == 6
    shutil.rmtree(folder / "ann")
    assert [len(part) for part in rebuild(listed, folder, out, workers=0)] == [6, 0]
    rows[3]["commit"] = git_id = "f" * 12  # another recording is listed now
    other = read_list(write_list(tmp_path / "list.csv", rows))
    made, problems = rebuild(other, folder, out, workers=0)
    assert len(made) == 5 and [file.commit for files in problems.values() for file in files] == [git_id]


@pytest.mark.parametrize(
    "change",
    [
        {"file": "../../etc/passwd"}, {"file": "/etc/passwd"}, {"file": "a//b.wav"}, {"file": "./b.wav"},
        {"file": "a\x1b.wav"}, {"file": ""}, {"repository": "../x"}, {"repository": "x/.."}, {"repository": "-u/x"},
        {"repository": "a/b/c"}, {"commit": "HEAD"}, {"commit": "--help"}, {"commit": "", "repository": ".."},
        {"clip": "../BR_0"}, {"clip": ".x"}, {"clip": "a b"}, {"class": "real"}, {"seconds": "nan"}, {"seconds": "0"},
        {"offset": "-1"}, {"clip": "BR_1"},
    ],
)  # fmt: skip
def test_a_hostile_row_is_refused(change, tmp_path):
    rows = [row("BR_0", "ann/speech", "a" * 12, "x.wav") | change, row("BR_1", "ann/speech", "a" * 12, "x.wav")]
    with pytest.raises(UserError, match=r"list\.csv: clip "):
        read_list(write_list(tmp_path / "list.csv", rows))


def test_a_clone_runs_and_redirects_nothing(tmp_path, monkeypatch):
    """Neither its configuration, attributes, working tree, tags and replaced objects, nor the repository around it."""
    folder, trap = tmp_path / "clones/eve/speech", tmp_path / "trap"
    good = commit(folder, {"a.wav": b"good", ".gitattributes": b"*.wav filter=trap diff=trap\n"})
    bad = commit(folder, {"a.wav": b"bad"})
    for name in ("filter.trap.smudge", "filter.trap.clean", "diff.trap.textconv", "core.fsmonitor", "core.pager"):
        git(folder, "config", name, f"touch {trap};")
    git(folder, "tag", good, bad)
    git(folder, "replace", git(folder, "rev-parse", f"{good}:a.wav"), git(folder, "rev-parse", f"{bad}:a.wav"))
    trap.unlink(missing_ok=True)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    save_file(folder, find_commit(folder, good), "a.wav", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"good" and not trap.exists()
    monkeypatch.delenv("GIT_DIR")
    (folder / "inside").mkdir()
    with pytest.raises(UserError, match="not a git repository"):
        find_commit(folder / "inside", good)
    monkeypatch.setattr(clones, "MAX_BYTES", 3)
    with pytest.raises(UserError, match="too large"):
        save_file(folder, find_commit(folder, good), "a.wav", tmp_path / "out")


def test_a_submodule_and_what_a_partial_clone_lacks_are_named(tmp_path):
    first = commit(tmp_path / "first", {"a.wav": b"a"})
    git(tmp_path / "first", "config", "uploadpack.allowFilter", "true")
    git(
        tmp_path / "first",
        "update-index",
        "--add",
        "--cacheinfo",
        f"160000,{git(tmp_path / 'first', 'rev-parse', 'HEAD')},sub",
    )
    git(tmp_path / "first", "commit", "--quiet", "--message", "submodule")
    second = git(tmp_path / "first", "rev-parse", "HEAD")
    with pytest.raises(UserError, match="a submodule"):
        save_file(tmp_path / "first", second, "sub", tmp_path / "out")
    partial = tmp_path / "partial"
    git(tmp_path, "clone", "--quiet", "--filter=blob:none", "--no-checkout", f"file://{tmp_path / 'first'}", partial)
    with pytest.raises(UserError, match="partial clone"):
        save_file(partial, find_commit(partial, first), "a.wav", tmp_path / "out")
    git(partial, "checkout", "--quiet", first)
    save_file(partial, find_commit(partial, first), "a.wav", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"a"


def test_mistakes_end_in_one_line(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    (tmp_path / "bad.csv").write_text("clip,file\n1,2\n")
    with pytest.raises(UserError, match="nothing there"):
        rebuild([], tmp_path / "none", tmp_path / "out", workers=0)
    for error, clips in (("columns", tmp_path / "bad.csv"), ("cannot read", tmp_path / "none.csv")):
        with pytest.raises(UserError, match=error):
            read_list(clips)
    with pytest.raises(UserError, match="will not replace"):
        rebuild([], tmp_path, tmp_path / "mine", workers=0)
    with pytest.raises(UserError, match="another recording"):
        cut(np.zeros(RATE), read_list(write_list(tmp_path / "a.csv", [row("a", "a/b", "0" * 7, "c", seconds=1.1)])))


# ---- the list of the bundled detector ------------------------------------------------------------------------------


def test_sources_are_listed_as_shell_commands(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["make_corpus.py", "rebuild", "--list_sources", "--clones", "my clones"])
    assert make_corpus.main() == 0
    out = capsys.readouterr().out
    clips = read_list(BUNDLED)
    with_commit = {one.source.repository for one in clips if one.source.commit}
    assert out.splitlines() == list(source_lines(clips, Path("my clones")))
    assert out.count("\ngit clone ") == len(with_commit) == 48
    assert "'my clones/openai/whisper'\ngit -C 'my clones/openai/whisper' checkout --quiet c0d2f624c09d\n" in out
    assert "# ASVspoof2019: 233 clips" in out and "LibriSpeech test-other: 150 clips" in out


def test_the_list_is_what_the_detector_was_trained_on(shared):
    clips = read_list(BUNDLED)
    assert Counter(one.key for one in clips) == {"bonafide": 1900, "spoof": 2184}
    assert all(one.licence for one in clips) and BUNDLED.stat().st_size < 500_000
    data = shared / "data"
    with (data / "broad" / "clips.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    listed = {
        (f"flac/{one.name}.flac", one.key, one.speaker, one.attack, *astuple(one.source), one.language, one.licence)
        for one in clips
        if one.source.commit
    }
    columns = ["path", "label", "speaker", "attack", "source", "commit", "orig_file", "language", "licence"]
    assert listed == {tuple(one[name] for name in columns) for one in rows}
    names = {path.stem for name in ("mixed", "LA_mini") for path in (data / name).rglob("*.flac")}
    assert {one.name for one in clips if not one.source.commit} <= names
    for one in clips[::100]:
        part = {"T": "train", "D": "dev", "E": "eval"}.get(one.name.split("_")[1])
        corpus = f"{'mixed' if one.name.startswith('MX') else 'LA_mini'}/ASVspoof2019_LA_{part}" if part else "broad"
        assert soundfile.info(data / corpus / "flac" / f"{one.name}.flac").frames == one.samples


def test_the_list_of_prompts():
    """Bona fide recordings out of packages: one cut of each file, long enough to be speech, with its licence."""
    clips = read_list(PROMPTS)
    assert len(clips) == len({one.source for one in clips}) == 500 and {one.key for one in clips} == {"bonafide"}
    assert all(one.licence and one.language and one.speaker and not one.source.commit for one in clips)
    assert all(1.8 <= one.seconds <= 3.125 and one.offset is not None for one in clips)
    assert len({(one.source.repository, one.speaker) for one in clips}) == 30


def test_prompts_are_made_of_unpacked_packages(tmp_path):
    """The first and the last file of the list, put where the package has them; the others are named as missing."""
    chosen = [read_list(PROMPTS)[0], read_list(PROMPTS)[-1]]
    for number, one in enumerate(chosen):
        path = tmp_path / "packages" / one.source.repository / one.source.file
        path.parent.mkdir(parents=True)
        noise = np.random.default_rng(number).normal(0, 0.1, int((one.offset + one.seconds + 1) * RATE))
        soundfile.write(path, noise, RATE, format="OGG")
    made, problems = rebuild(read_list(PROMPTS), tmp_path / "packages", tmp_path / "prompts", workers=0)
    assert [one.name for one in made] == [one.name for one in chosen]
    assert sum(map(len, problems.values())) == 498
    assert [len(clip(tmp_path / "prompts", one.name)) for one in chosen] == [one.samples for one in chosen]
