"""Checks of data sets: published ones give the known numbers; each planted fault is found, and no other."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import ROOT, assert_user_error, run_command
from forks import Command
from test_cues import noise, write

from audio import SAMPLE_RATE
from common.errors import UserError
from corpora.asvspoof import ASVspoof2019
from corpora.check import examine, file_faults
from corpora.check_report import CheckReport, format_report, report_figure
from corpora.cues import FORMAT_CUE, UnreadableFile, measure_file
from corpora.open import open_all_partitions
from corpora.trials import Partition

RATE = SAMPLE_RATE
FAULTS = {
    ("problem", "missing", "train"),
    ("problem", "undecodable", "train"),
    ("problem", "empty", "train"),
    ("problem", "truncated", "train"),
    ("problem", "silent", "train"),
    ("problem", "not_finite", "train"),
    ("problem", "leak", "train, dev"),
    ("problem", "contradiction", "dev"),
    ("problem", "shared_speakers", "train, eval"),
    ("note", "duplicate", "eval"),
    ("note", "sample_rate", "dev"),
    ("note", "channels", "dev"),
    ("note", "clipped", "dev"),
    ("note", "formats", "train, dev, eval"),
    ("note", "extra", "train, dev, eval"),
}


def names(report: CheckReport, *ignored: str) -> set[tuple[str, str, str]]:
    """Severity, name and place of each finding; a small corpus always is smaller than the published one."""
    ignored = {"official_count", *ignored}
    return {(each.severity, each.name, each.where) for each in report.findings if each.name not in ignored}


def items(report: CheckReport, name: str) -> list[str]:
    """Of the one finding of this name."""
    (finding,) = (finding for finding in report.findings if finding.name == name)
    return finding.items


# --------------------------------------------------------------------------------------------------- genuine data sets


def test_la_mini_is_sound(shared):
    report = examine(open_all_partitions([str(shared / "data" / "LA_mini")]), 2)
    assert report.problems == []
    assert names(report, "shortcut") == set()
    official = [each.text for each in report.findings if each.name == "official_count"]
    assert official[2] == "31 trials, the published partition 71,237"
    train, dev, evaluation = report.partitions
    assert [(p.trials, p.bonafide, p.spoof) for p in report.partitions] == [(101, 51, 50), (101, 50, 51), (31, 15, 16)]
    assert train.attacks.keys() == dev.attacks.keys() == {f"A0{number}" for number in range(1, 7)}
    assert train.decoders == {"soundfile": 101} and evaluation.decoders == {"soundfile": 31}
    assert train.formats == {"FLAC PCM_16, 16000 Hz, 1 ch": 101}
    # The corpus's well-known shortcut: text-to-speech begins without delay.
    assert train.cues["leading quiet"].tells and train.cues["leading quiet"].bonafide > 0.5


def test_la21_needs_pyav(shared):
    report = examine(open_all_partitions([f"folder:{shared / 'data' / 'LA21_mini'}"]), 2)
    assert names(report, "shortcut") == {("note", "pyav", "eval")}
    assert len(items(report, "pyav")) == 13
    assert report.partitions[0].decoders == {"soundfile": 17, "pyav": 13}


def test_cues_of_mixed_are_as_its_maker_measured_them(shared):
    """The table of data/README.md, made by other code with definitions that it does not give."""
    published = {
        "duration": (46, 50), "level": (49, 50), "noise floor": (42, 42), "energy 4–6 kHz": (48, 47),
        "energy 6.8–7.7 kHz": (48, 46), "energy above 7.7 kHz": (42, 44), "energy below 80 Hz": (43, 40),
        "leading quiet": (47, 48), "trailing quiet": (42, 46),
    }  # fmt: skip
    partitions = open_all_partitions([str(shared / "data" / "mixed")])[:2]
    report = examine(partitions, 2)
    assert report.problems == []
    for index, facts in enumerate(report.partitions):
        for name, both in published.items():
            assert 100 * facts.cues[name].eer == pytest.approx(both[index], abs=2.5), (facts.name, name)


# ------------------------------------------------------------------------------------------------------ planted faults


@pytest.fixture(scope="module")
def damaged(tiny_corpus, tmp_path_factory) -> Path:
    """A small corpus with each fault in a file of its own; tests only read it."""
    root = shutil.copytree(tiny_corpus, tmp_path_factory.mktemp("damaged") / "LA")
    files = {name: sorted((root / f"ASVspoof2019_LA_{name}" / "flac").iterdir()) for name in ("train", "dev", "eval")}
    missing, noisy, empty, cut, silent, broken = files["train"][:6]
    missing.unlink()
    noisy.write_bytes(b"noise")
    write(empty, np.zeros(0))
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    write(silent, np.zeros(RATE))
    as_wav(broken, np.where(np.arange(RATE) == 99, np.nan, noise(1)), "FLOAT")
    keys = {trial.utt_id: trial.key for name in files for trial in ASVspoof2019(root).partition(name).trials}

    def first(paths: list[Path], like: Path, alike: bool) -> Path:
        return next(path for path in paths if (keys[path.stem] == keys[like.stem]) == alike)

    as_wav(files["dev"][0], soundfile.read(first(files["train"][6:], files["dev"][0], alike=True))[0], "PCM_24")
    write(files["dev"][1], noise(2), 8000)
    write(files["dev"][2], np.stack([noise(2, 1), noise(2, 2)], axis=1))
    write(files["dev"][3], np.clip(noise(2, 3, 0.5) * 4, -1, 1))
    shutil.copy(files["dev"][4], first(files["dev"][5:], files["dev"][4], alike=False))
    one = files["eval"][0]
    shutil.copy(one, first(files["eval"][1:], one, alike=True))
    shutil.copy(one, one.with_name("not_listed.flac"))
    one.with_name("licence.txt").write_text("free")
    protocols = ASVspoof2019(root)
    speaker = protocols.partition("train").trials[0].speaker
    lines = protocols.protocol("eval").read_text().splitlines()
    lines[0] = " ".join([speaker, *lines[0].split()[1:]])
    protocols.protocol("eval").write_text("\n".join(lines))
    return root


def as_wav(path: Path, x: np.ndarray, subtype: str) -> None:
    """A WAV under the name that the protocol wants: what a file is, its content says."""
    soundfile.write(path, x, RATE, subtype, format="WAV")


@pytest.fixture(scope="module")
def diagnosis(damaged) -> CheckReport:
    return examine(open_all_partitions([str(damaged)]), 2)


def test_each_planted_fault_is_found_and_no_other(diagnosis):
    assert names(diagnosis, "shortcut") == FAULTS
    once = Counter(finding.name for finding in diagnosis.findings)
    assert all(once[name] == 1 for _, name, _ in FAULTS)
    assert all(len(items(diagnosis, name)) == 1 for _, name, _ in FAULTS - {("note", "formats", "train, dev, eval")})


def test_findings_name_what_is_at_fault(damaged, diagnosis):
    train, dev, _ = open_all_partitions([str(damaged)])
    files = sorted(train.files.values())
    for path, name in zip(
        files, ("missing", "undecodable", "empty", "truncated", "silent", "not_finite"), strict=False
    ):
        assert str(path) in items(diagnosis, name)[0]
    assert "s lost" in items(diagnosis, "truncated")[0]
    leak = items(diagnosis, "leak")[0]
    assert leak.startswith("train LA_T_") and f" = dev {min(dev.files)} (" in leak
    assert "(bonafide)" in items(diagnosis, "contradiction")[0] and "(spoof)" in items(diagnosis, "contradiction")[0]
    assert items(diagnosis, "extra")[0].endswith("eval/flac/not_listed.flac")
    assert items(diagnosis, "shared_speakers") == [train.trials[0].speaker]
    assert items(diagnosis, "sample_rate")[0].endswith(": 8000 Hz")
    assert items(diagnosis, "channels")[0].endswith(": 2 channels")


def test_problems_come_first(diagnosis):
    severities = [finding.severity for finding in diagnosis.findings]
    assert severities == sorted(severities, key=("problem", "note").index)
    assert len(diagnosis.problems) == 9


def test_workers_change_nothing(damaged, diagnosis):
    assert examine(open_all_partitions([str(damaged)]), 0).to_dict() == diagnosis.to_dict()


def test_report_fits_and_json_is_whole(diagnosis):
    text = format_report(diagnosis)
    assert max(map(len, text.splitlines())) <= 100
    assert text.splitlines()[-1].startswith("9 problems, ")
    for _, name, where in FAULTS:
        assert f": {name} ({where}): " in text
    told = json.loads(json.dumps(diagnosis.to_dict(), allow_nan=False))
    assert told["problems"] == 9
    train = told["partitions"]["train"]
    assert sum(train["decoders"].values()) == 20  # of 24: one missing, undecodable, empty and not finite each
    assert sum(train["seconds"][key]["histogram"]["counts"][i] for key in train["seconds"] for i in range(20)) == 20


def test_many_items_are_counted_in_text(tiny_corpus):
    partitions = open_all_partitions([str(tiny_corpus)])
    folder = next(iter(partitions[0].folders()))
    elsewhere = {utt_id: folder / "gone" / f"{'x' * 200}{path.name}" for utt_id, path in partitions[0].files.items()}
    report = examine([Partition("train", partitions[0].trials, elsewhere)], 0)
    text = format_report(report)
    assert "24 of 24 files listed but not there" in text and "\n    and 19 more" in text
    assert max(map(len, text.splitlines())) <= 100
    report_figure(report).draw_without_rendering()
    json.dumps(report.to_dict(), allow_nan=False)


def test_silence_is_no_duplicate(tiny_corpus, tmp_path):
    root = shutil.copytree(tiny_corpus, tmp_path / "LA")
    partitions = open_all_partitions([str(root)])
    for partition in partitions:
        for trial in partition.trials[:2]:
            write(partition.path(trial), np.zeros(RATE))
    found = names(examine(partitions, 0), "shortcut")
    assert found == {("problem", "silent", name) for name in ("train", "dev", "eval")}


def test_a_planted_shortcut_is_found(tiny_corpus, tmp_path):
    """Quiet after the words in bona fide only; the other cues stay as they were, but for those that it changes."""
    root = shutil.copytree(tiny_corpus, tmp_path / "LA")
    before = examine(open_all_partitions([str(root)])[:1], 0)
    assert not before.partitions[0].cues["trailing quiet"].tells
    train = open_all_partitions([str(root)])[0]
    for trial in train.trials:
        if trial.key == "bonafide":
            x = soundfile.read(train.path(trial))[0]
            write(train.path(trial), np.append(x, noise(1, level=1e-4)))
    after = examine(open_all_partitions([str(root)])[:1], 0)
    (finding,) = (each for each in after.findings if each.text.startswith("trailing quiet"))
    assert (finding.severity, finding.name, finding.where) == ("note", "shortcut", "train")
    assert after.partitions[0].cues["trailing quiet"].eer < 0.1
    assert not after.partitions[0].cues["level"].tells


def test_a_format_that_follows_the_key_is_a_shortcut(tiny_corpus, tmp_path):
    root = shutil.copytree(tiny_corpus, tmp_path / "LA")
    train = open_all_partitions([str(root)])[0]
    assert FORMAT_CUE not in examine([train], 0).partitions[0].cues
    for trial in train.trials:
        if trial.key == "spoof":
            as_wav(train.path(trial), soundfile.read(train.path(trial))[0], "PCM_16")
    report = examine([train], 0)
    assert report.partitions[0].cues[FORMAT_CUE].eer == 0
    assert "file format alone gives the key away: EER 0.0 (0–" in format_report(report)


def test_one_class(tiny_corpus):
    train = open_all_partitions([str(tiny_corpus)])[0]
    only = train.take(train.is_bonafide())
    report = examine([only], 0)
    assert ("problem", "one_class", "train") in names(report)
    assert report.partitions[0].cues == {}
    format_report(report)
    report_figure(report).draw_without_rendering()


# -------------------------------------------------------------------------------------------------------- a single file


def test_what_only_pyav_reads_is_named(tmp_path):
    import av

    path, x = tmp_path / "x.m4a", noise(2, level=0.05).astype(np.float32)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(x[None], format="fltp", layout="mono")
        frame.sample_rate = RATE
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    sound = measure_file(path)
    assert list(file_faults(sound)) == [("pyav", "mov,mp4,m4a,3gp,3g2,mj2 aac")]
    assert sound.format == "mov,mp4,m4a,3gp,3g2,mj2 aac, 16000 Hz, 1 ch"


def faults(path: Path) -> list[str]:
    return [name for name, _ in file_faults(measure_file(path))]


def test_conditions_of_a_file(tmp_path):
    assert faults(tmp_path / "nothing.flac") == ["missing"]
    assert faults(tmp_path) == ["undecodable"]
    (tmp_path / "empty.flac").touch()
    assert faults(tmp_path / "empty.flac") == ["empty"]
    broken = write(tmp_path / "nan.wav", np.full(99, np.nan), subtype="FLOAT")
    assert isinstance(measure_file(broken), UnreadableFile) and faults(broken) == ["not_finite"]
    cut = write(tmp_path / "cut.wav", noise(1))
    cut.write_bytes(cut.read_bytes()[:20_000])
    assert faults(cut) == ["truncated"]
    assert faults(write(tmp_path / "faint.wav", noise(1, level=1e-4))) == ["faint"]


# ------------------------------------------------------------------------------------------------------------- commands


def test_command(tiny_corpus, damaged, tmp_path):
    done = Command(tmp_path, "data_utils.py", "check", tiny_corpus, "--num_workers", 2).wait()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("no problems, ")
    folder = tmp_path / "new"
    files = ["--json", folder / "report.json", "--figure", folder / "report.png"]
    done = Command(tmp_path, "data_utils.py", "check", damaged, "--num_workers", 2, *files).wait()
    assert (done.returncode, done.stderr) == (1, "")
    assert json.loads((folder / "report.json").read_text())["problems"] == 9
    assert (folder / "report.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in folder.iterdir()} == {"report.json", "report.png"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check", "/nowhere"], ["/nowhere"]),
        (["check", "/nowhere", "--figure", "x.bmp"], [".png", "x.bmp"]),
        (["check", "/nowhere", "--num_workers", "-1"], ["--num_workers", "-1"]),
        (["check"], ["PATH"]),
        ([], ["COMMAND"]),
    ],
)
def test_mistakes(tmp_path, arguments, words):
    assert_user_error(Command(tmp_path, "data_utils.py", *arguments).wait(), *words)


def test_ctrl_c(tmp_path):
    """130, one line, and no process that goes on."""
    root = tmp_path / "slow"
    (root / "audio").mkdir(parents=True)
    for index in range(2):
        write(root / "audio" / f"{index}.flac", noise(60, index))
    for index in range(2, 400):
        os.link(root / "audio" / f"{index % 2}.flac", root / "audio" / f"{index}.flac")
    keys = "".join(f"audio/{index}.flac,{('bonafide', 'spoof')[index % 2]}\n" for index in range(400))
    (root / "list.csv").write_text("path,label\n" + keys)
    command = [sys.executable, "-u", "-c", WATCHED, "check", f"csv:{root / 'list.csv'}", "--num_workers", "2"]
    process = subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout.readline() == "begun\n"
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert errors.splitlines() == ["interrupted"] and output == ""
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


# The command, which says when it has started to decode.
WATCHED = """
import data_utils
from common import command
from corpora import check
map_in_order = check.map_in_order
def begun(*arguments):
    for index, result in enumerate(map_in_order(*arguments)):
        if index == 0:
            print("begun")
        yield result
check.map_in_order = begun
command.run(data_utils.main)
"""


def test_of_asvspoof_2021_every_trial_is_checked_once(tmp_path):
    """Its partition `all` holds the others: no leak."""
    rows = [("A", "bonafide", "eval"), ("B", "spoof", "eval"), ("C", "bonafide", "progress"), ("D", "spoof", "hidden")]
    keys, flac = tmp_path / "keys" / "LA" / "CM", tmp_path / "ASVspoof2021_LA_eval" / "flac"
    keys.mkdir(parents=True)
    flac.mkdir(parents=True)
    lines = [f"S{u} {u} alaw ita_tx {'A07' if key == 'spoof' else 'bonafide'} {key} notrim {s}" for u, key, s in rows]
    (keys / "trial_metadata.txt").write_text("\n".join(lines))
    for index, (utt_id, *_) in enumerate(rows):
        write(flac / f"{utt_id}.flac", noise(1, index))
    (part,) = open_all_partitions([f"2021:{tmp_path}"])
    assert (part.name, len(part.trials)) == ("all", 4)
    assert examine([part], 0).problems == []
    with pytest.raises(UserError, match="kind"):
        open_all_partitions(["2022:/data"])


def test_only_what_was_downloaded_is_checked(tiny_corpus, tmp_path):
    """The eval part alone, with all protocols, then with its own."""
    for folder in ("ASVspoof2019_LA_cm_protocols", "ASVspoof2019_LA_eval"):
        shutil.copytree(tiny_corpus / folder, tmp_path / folder)
    done = run_command("data_utils.py", "check", tmp_path, "--num_workers", 0)
    assert "missing" not in done.stdout and "eval" in done.stdout
    for name in ("train", "dev"):
        assert f"note: {name} is not checked: there is no {tmp_path}/ASVspoof2019_LA_{name}/flac" in done.stderr
    for path in (tmp_path / "ASVspoof2019_LA_cm_protocols").iterdir():
        if ".eval." not in path.name:
            path.unlink()
    (part,) = open_all_partitions([str(tmp_path)])
    assert part.name == "eval" and part.missing() == []
