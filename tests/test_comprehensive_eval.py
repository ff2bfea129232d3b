"""comprehensive_eval: whole data sets from published layouts, kept up to date through kills, bad files and reruns."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, TINY_MODEL, assert_user_error, run_command, save_tiny

import comprehensive_eval
import evaluation
import plots.style
from audio import reading
from audio.chunks import fit
from common.errors import PartFailed, UserError
from common.files import content_hash, exclusive
from corpora.asvspoof import ASVspoof2019
from scoring import eval_results, eval_set
from scoring.detector import Detector
from scoring.eval_set import resume
from scoring.weights import BUNDLED

FIGURES = {"det", "roc", "attack_eer", "score_distributions", "confusion", "score_scatter", "score_boxes"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A random tiny model that knows a threshold."""
    return save_tiny(tmp_path_factory.mktemp("weights") / "tiny.pth", threshold=0.5)


@pytest.fixture(scope="module")
def full_run(checkpoint, tiny_corpus, tmp_path_factory) -> Path:
    """The results folder of one uninterrupted run of the command; not to be changed."""
    results = tmp_path_factory.mktemp("full")
    arguments = ("--data_path", tiny_corpus, "--output_dir", results, "--batch_size", 3, "--bootstrap", 50)
    done = run_command("comprehensive_eval.py", "--checkpoint", checkpoint, "--dataset", "2019", *arguments)
    assert done.returncode == 0, done.stderr
    assert "written to" in done.stdout
    return results


@pytest.fixture
def command(checkpoint, tmp_path, monkeypatch):
    """The command in this process, without figures; returns the exit code."""

    def call(*arguments, weights: Path | str = checkpoint) -> int:
        options = ("--output_dir", tmp_path / "results", "--num_workers", 0, "--bootstrap", 20, *arguments)
        line = ["comprehensive_eval.py", "--checkpoint", weights, *options]
        monkeypatch.setattr(sys, "argv", list(map(str, line)))
        return comprehensive_eval.main()

    monkeypatch.setattr(eval_results, "draw", lambda *_, **__: [])
    return call


@pytest.fixture
def scored(monkeypatch) -> list[int]:
    """The sizes of the batches that go through the Detector from now on."""
    sizes, score = [], Detector.score

    def counting(self, batches):
        sizes.append(sum(len(batch) for batch in batches))
        return score(self, batches)

    monkeypatch.setattr(Detector, "score", counting)
    return sizes


def eval_trials(corpus: Path) -> list[tuple[str, str, str]]:
    """(file, attack, key) of the eval partition."""
    partition = ASVspoof2019(corpus, "LA").partition("eval")
    return [(partition.path(trial), trial.attack, trial.key) for trial in partition.trials]


def metrics_of(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


# ------------------------------------------------------------------------------------------------------ a whole run


def test_a_run_leaves_scores_metrics_table_and_figures(full_run, checkpoint, tiny_corpus):
    folder = full_run / "tiny" / "asvspoof2019"
    names = {path.name for path in folder.iterdir()}
    assert names == {"scores.txt", "audio.sha256", "results_summary.txt", "metrics.json", "table.tex", "plots"}
    figures = {f"{name}.{kind}" for name in FIGURES for kind in ("png", "pdf")}
    assert {path.name for path in (folder / "plots").iterdir()} == figures
    partition = ASVspoof2019(tiny_corpus, "LA").partition("eval")
    lines = [line.split() for line in (folder / "scores.txt").read_text().splitlines()]
    assert [line[:3] for line in lines] == [[t.utt_id, t.attack, t.key] for t in partition.trials]
    detector = Detector.from_checkpoint(checkpoint)
    waveforms = [fit(reading.read(partition.path(trial)), TINY_MODEL["nb_samp"]) for trial in partition.trials]
    expected = detector.score(np.stack(waveforms))
    np.testing.assert_allclose([float(line[3]) for line in lines], expected, rtol=1e-4, atol=1e-5)
    metrics = metrics_of(folder)
    own = evaluation.evaluate(evaluation.read_scores(folder / "scores.txt"))
    assert metrics["eer_percent"] == own["eer_percent"] and metrics["missing"] == {} and metrics["all_rows"] is None
    assert metrics["bootstrap"]["unit"] == "speaker × attack" and metrics["bootstrap"]["resamples"] == 50
    assert [row["at"] for row in metrics["decisions"]] == ["EER", "given"]
    assert metrics["decisions"][1]["threshold"] == 0.5
    assert (metrics["min_tdcf"] is not None) == partition.asv.exists()
    table = (folder / "table.tex").read_text()
    assert table.startswith("\\begin{tabular}{lrr") and f"tiny & {own['eer_percent']:.2f} & " in table
    assert table.count("&") == 2 * (2 + len(metrics["per_attack"]))
    summary = (folder / "results_summary.txt").read_text()
    assert "missing     none" in summary and "trials      16\n" in summary and str(checkpoint) in summary


def test_a_killed_run_goes_on_to_the_same_bytes(command, full_run, tiny_corpus, checkpoint, tmp_path, scored):
    killer = f"""
import os, signal, sys
from inference import Detector
import comprehensive_eval
score, calls = Detector.score, []
def dying(self, batches):
    calls.append(0)
    return score(self, batches) if len(calls) < 4 else os.kill(os.getpid(), signal.SIGKILL)
Detector.score = dying
sys.argv[1:] = {["--checkpoint", str(checkpoint), "--dataset", "2019", "--data_path", str(tiny_corpus),
                 "--output_dir", str(tmp_path / "results"), "--batch_size", "3"]}
comprehensive_eval.main()
"""  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", killer], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    folder = tmp_path / "results" / "tiny" / "asvspoof2019"
    partial = folder / "scores.partial"
    assert [path.name for path in folder.iterdir()] == [partial.name]
    lines = partial.read_bytes().splitlines(keepends=True)
    assert len(lines) == 1 + 9
    partial.write_bytes(b"".join(lines[:-1]) + lines[-1][:-4])  # the last line only half on disk
    assert command("--dataset", 2019, "--data_path", tiny_corpus, "--batch_size", 3) == 0
    assert scored == [3, 3, 3, 1]  # the batch of the half line, and the rest
    whole = full_run / "tiny" / "asvspoof2019"
    assert (folder / "scores.txt").read_bytes() == (whole / "scores.txt").read_bytes()
    assert not partial.exists()


def test_a_rerun_scores_only_what_is_new(command, tiny_corpus, tmp_path, scored, capsys):
    run = ("--dataset", 2019, "--data_path", tiny_corpus, "--batch_size", 8)
    assert command(*run) == 0 and scored == [8, 8]
    folder = tmp_path / "results" / "tiny" / "asvspoof2019"
    first = (folder / "scores.txt").read_bytes()
    assert command(*run) == 0 and len(scored) == 2 and "remove it to score anew" in capsys.readouterr().err
    assert (folder / "scores.txt").read_bytes() == first
    shutil.copy(folder / "scores.txt", folder / "scores.partial")  # of who knows what
    assert command(*run) == 0 and len(scored) == 4 and "starting anew" in capsys.readouterr().err
    assert command(*run, "--max_files", 10) == 0 and scored[4:] == [8, 2]
    assert "not comparable with published numbers" in (folder / "results_summary.txt").read_text()
    assert len((folder / "scores.txt").read_text().splitlines()) == 10


def test_damage_in_the_partial_file_ends_what_is_taken_from_it(tmp_path):
    identity, files = {"checkpoint_sha256": "x"}, {}
    for name in "abc":
        files[name] = tmp_path / name
        files[name].write_text(name)
    lines = [f"{name} {content_hash(files[name])}" for name in "abc"]
    assert resume(tmp_path, identity, files) == ({}, {})
    for damage in ("\0\0\0\0", f"{lines[2]} nan", f"{lines[2]} ٣", f"{lines[2]} 1_0", "c 3.0"):
        with (tmp_path / "scores.partial").open("ab") as file:
            file.write(f"{lines[0]} 0.1\n{lines[1]} -2e-05\n{damage}\n{lines[2]} 3\n".encode())
        assert resume(tmp_path, identity, files)[0] == {"a": 0.1, "b": -2e-05}
        expected = f'{{"checkpoint_sha256": "x"}}\n{lines[0]} 0.1\n{lines[1]} -2e-05\n'
        assert (tmp_path / "scores.partial").read_text() == expected


def test_other_audio_is_scored_anew(command, folder, tmp_path, scored, capsys):
    """After a complete run, under the time of the old file. Its whole batch is scored."""
    run = ("--dataset", "folder", "--data_path", folder, "--batch_size", 4)
    assert command(*run) == 0 and scored == [4] * 4
    results, replaced = tmp_path / "results" / "tiny" / "speech", folder / "flac" / "u5.flac"
    lines = (results / "scores.txt").read_text().splitlines()
    assert (results / "audio.sha256").read_text().splitlines()[5] == f"{content_hash(replaced)}  u5"
    before = replaced.stat()
    shutil.copy(folder / "flac" / "u6.flac", replaced)
    os.utime(replaced, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert command(*run) == 0 and scored[4:] == [4]
    assert f"1 of 16 files have changed since {results} was made: scored anew" in capsys.readouterr().err
    now = (results / "scores.txt").read_text().splitlines()
    assert [old == new for old, new in zip(lines, now, strict=True)] == [number != 5 for number in range(16)]
    assert float(now[5].split()[-1]) == pytest.approx(float(now[6].split()[-1]), abs=1e-5)
    (results / "audio.sha256").unlink()
    assert command(*run) == 0 and len(scored) == 9
    assert "no audio.sha256 says which audio was scored" in capsys.readouterr().err


def test_a_full_disk_names_the_file(command, folder, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(eval_set, "_require_finite", full)
    with pytest.raises(UserError, match=r"cannot write .*scores\.partial: No space left on device"):
        command("--dataset", "folder", "--data_path", folder, "--batch_size", 1)


# -------------------------------------------------------------------------------------------------------- layouts


def test_2021_reports_the_eval_subset_and_says_so(command, tiny_corpus, tmp_path, capsys):
    root = tmp_path / "ASVspoof2021"
    flac, keys = root / "ASVspoof2021_LA_eval" / "flac", root / "LA-keys-full" / "keys" / "LA"
    for folder in (flac, keys / "CM", keys / "ASV" / "ASVTorch_Kaldi"):
        folder.mkdir(parents=True)
    rows = []
    for number, (path, attack, key) in enumerate(eval_trials(tiny_corpus)):
        (flac / f"LA_E_{number}.flac").symlink_to(path)
        attack = "bonafide" if key == "bonafide" else attack
        subset = "progress" if number < 4 else "eval"
        rows.append(
            f"LA_{number % 3:04} LA_E_{number} {('alaw', 'none')[number % 2]} ita_tx {attack} {key} notrim {subset}"
        )
    (keys / "CM" / "trial_metadata.txt").write_text("\n".join(rows) + "\n")
    kinds = [(5.0, "bonafide", "target"), (1.0, "bonafide", "nontarget"), (4.5, "A07", "spoof"), (0.5, "A08", "spoof")]
    asv = [(f"LA_0009 LA_E_{number}", *kinds[number % 4], subset)
           for number, subset in enumerate(["eval"] * 8 + ["progress"] * 4)]  # fmt: skip
    key_lines = [f"{trial} none none {attack} {label} notrim {subset}\n" for trial, _, attack, label, subset in asv]
    (keys / "ASV" / "trial_metadata.txt").write_text("".join(key_lines))
    scores = keys / "ASV" / "ASVTorch_Kaldi" / "score.txt"
    scores.write_text("".join(f"{trial} {value}\n" for trial, value, *_ in asv))

    assert command("--dataset", 2021, "--data_path", root) == 0
    folder = tmp_path / "results" / "tiny" / "asvspoof2021_la"
    assert len((folder / "scores.txt").read_text().splitlines()) == 16
    metrics, summary = metrics_of(folder), (folder / "results_summary.txt").read_text()
    assert metrics["n_bonafide"] + metrics["n_spoof"] == 12
    assert metrics["all_rows"]["n_bonafide"] + metrics["all_rows"]["n_spoof"] == 16
    assert set(metrics["all_rows"]["groups"]) == {"eval", "progress"} and set(metrics["groups"]) == {"alaw", "none"}
    assert "12 of 16: the eval subset, which papers report" in summary and "all rows of asvspoof2021_la" in summary
    assert metrics["min_tdcf_2021"] is not None and metrics["asv"]["eer"] == 0 and metrics["asv"]["p_miss_spoof"] == 0.5

    scores.write_text(scores.read_text().replace("LA_E_3 ", "LA_E_33 "))
    with pytest.raises(UserError, match="other trials"):
        command("--dataset", 2021, "--data_path", root)


def test_2021_df_in_parts_with_the_keys_beside(command, tiny_corpus, tmp_path):
    root, keys = tmp_path / "data", tmp_path / "keys" / "DF" / "CM"
    keys.mkdir(parents=True)
    rows = []
    for number, (path, _, key) in enumerate(eval_trials(tiny_corpus)):
        flac = root / f"ASVspoof2021_DF_eval_part0{number % 4}" / "ASVspoof2021_DF_eval" / "flac"
        flac.mkdir(parents=True, exist_ok=True)
        (flac / f"DF_E_{number}.flac").symlink_to(path)
        attack, vocoder = ("-", "bonafide") if key == "bonafide" else ("A07", "neural_vocoder_autoregressive")
        rows.append(f"LA_0023 DF_E_{number} nocodec asvspoof {attack} {key} notrim eval {vocoder} - - - -")
    (keys / "trial_metadata.txt").write_text("\n".join(rows) + "\n")
    assert command("--dataset", "2021DF", "--data_path", root) == 0
    metrics = metrics_of(tmp_path / "results" / "tiny" / "asvspoof2021_df")
    assert metrics["all_rows"] is None and set(metrics["per_attack"]) == {"A07"} and metrics["min_tdcf"] is None
    (root / "ASVspoof2021_DF_eval_part01" / "ASVspoof2021_DF_eval" / "flac" / "DF_E_1.flac").unlink()
    with pytest.raises(UserError, match="asvspoof2021_df lacks audio — expected 16 files in .*1 missing: DF_E_1$"):
        command("--dataset", "2021DF", "--data_path", root)


def test_in_the_wild_and_a_folder_for_each_class_in_one_run(command, tiny_corpus, tmp_path):
    wild, mine = tmp_path / "release_in_the_wild", tmp_path / "mine"
    lines = ["file,speaker,label"]
    for number, (path, _, key) in enumerate(eval_trials(tiny_corpus)):
        for folder, name in ((wild, f"{number}.wav"), (mine / key, f"{number}.flac")):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(path)
        lines.append(f"{number}.wav,Alec Guinness,{'bona-fide' if key == 'bonafide' else 'spoof'}")
    (wild / "meta.csv").write_text("\n".join(lines) + "\n")
    (mine / "spoof" / "README.txt").write_text("no audio")
    assert command("--dataset", "itw", "folder", "--data_path", tmp_path, mine, "--name", "x") == 0
    scores = {}
    for name in ("in_the_wild", "mine"):
        folder = tmp_path / "results" / "x" / name
        scores[name] = dict(line.split(maxsplit=1) for line in (folder / "scores.txt").read_text().splitlines())
        assert metrics_of(folder)["per_attack"] == {}
    assert list(scores["in_the_wild"]) == [f"{number}.wav" for number in range(16)]
    for name, rest in scores["mine"].items():
        key, number = name.split("/")
        assert rest.split()[1] == key
        theirs = float(scores["in_the_wild"][number.replace(".flac", ".wav")].split()[2])
        assert float(rest.split()[2]) == pytest.approx(theirs, rel=1e-4, abs=1e-5)


def test_genuine_2021_speech_as_a_folder(command, shared, tmp_path):
    assert command("--dataset", "folder", "--data_path", shared / "data" / "LA21_mini") == 0
    metrics = metrics_of(tmp_path / "results" / "tiny" / "LA21_mini")
    assert (metrics["n_bonafide"], metrics["n_spoof"], metrics["missing"]) == (15, 15, {})


# ------------------------------------------------------------------------------------------------ bad files, bad words


@pytest.fixture
def folder(tiny_corpus, tmp_path) -> Path:
    """A folder of audio with `labels.txt`; may be changed."""
    folder, lines = tmp_path / "speech", []
    (folder / "flac").mkdir(parents=True)
    for number, (path, _, key) in enumerate(eval_trials(tiny_corpus)):
        shutil.copy(path, folder / "flac" / f"u{number}.flac")
        lines.append(f"u{number} {key}\n")
    (folder / "labels.txt").write_text("".join(lines))
    return folder


def test_unreadable_files_are_named_and_tried_again(command, folder, tmp_path, scored, capsys):
    good = (folder / "flac" / "u5.flac").read_bytes()
    (folder / "flac" / "u5.flac").write_bytes(b"no audio")
    run = ("--dataset", "folder", "--data_path", folder, "--batch_size", 4)
    assert command(*run) == 1 and scored == [4, 3, 4, 4]
    assert "u5.flac" in capsys.readouterr().err
    results = tmp_path / "results" / "tiny" / "speech"
    summary = (results / "results_summary.txt").read_text()
    assert "missing     1\n  u5: " in summary and "1 of 16 trials have no score: u5" in summary
    assert list(metrics_of(results)["missing"]) == ["u5"] and metrics_of(results)["n_bonafide"] < 16
    assert len((results / "scores.txt").read_text().splitlines()) == 15
    assert command(*run) == 1 and scored[4:] == [3]
    (folder / "flac" / "u5.flac").write_bytes(good)
    assert command(*run) == 0 and scored[5:] == [4]
    names = [line.split()[0] for line in (results / "scores.txt").read_text().splitlines()]
    assert names == [f"u{number}" for number in range(16)]


def test_compare_overlays_and_tests_systems(command, full_run, tiny_corpus, tmp_path, monkeypatch):
    shutil.copytree(full_run / "tiny", tmp_path / "results" / "other")
    drawn = []
    monkeypatch.setattr(eval_results, "draw", lambda results, *_, own: drawn.append((list(results), own)))
    assert command("--dataset", 2019, "--data_path", tiny_corpus, "--compare", "other") == 0
    assert drawn == [(["tiny", "other"], ["tiny"])]
    folder = tmp_path / "results" / "tiny" / "asvspoof2019"
    metrics = metrics_of(folder)
    assert metrics["compared"]["other"]["eer_percent"] == metrics["eer_percent"]
    assert metrics["comparisons"][0]["n_trials"] == 16
    assert "other does as well as tiny here" in (folder / "results_summary.txt").read_text()
    assert "\nother & " in (folder / "table.tex").read_text()


def test_a_results_folder_has_one_writer(command, tiny_corpus, tmp_path):
    with exclusive(tmp_path / "results" / "tiny" / "asvspoof2019"), pytest.raises(UserError, match="is in use"):
        command("--dataset", 2019, "--data_path", tiny_corpus)


def test_a_figure_that_fails_costs_no_number(command, tiny_corpus, tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise PartFailed("not drawn: det")

    monkeypatch.setattr(eval_results, "draw", fail)
    with pytest.raises(PartFailed):  # exit code 1
        command("--dataset", 2019, "--data_path", tiny_corpus)
    assert "EER" in capsys.readouterr().out
    folder = tmp_path / "results" / "tiny" / "asvspoof2019"
    names = {"scores.txt", "audio.sha256", "results_summary.txt", "metrics.json", "table.tex"}
    assert {path.name for path in folder.iterdir()} == names


def test_overlays_of_several_systems_keep_the_seven_names(full_run, tmp_path, monkeypatch):
    monkeypatch.setattr(plots.style, "write_figure", lambda figure, stem, _: [stem])
    scores = evaluation.read_scores(full_run / "tiny" / "asvspoof2019" / "scores.txt")
    systems = {"a": scores, "b": scores}
    results = {name: evaluation.evaluate(scores) for name in systems}
    assert {path.name for path in evaluation.draw(results, systems, tmp_path, own=["a"])} == FIGURES


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--dataset", 2018), "invalid choice"),
        (("--dataset", "folder", "--data_path", "none"), "no data set at none"),
        (("--dataset", 2019), "no ASVspoof 2019 LA protocols.*2019_LA_cm_protocols or LA/.*none of them"),
        (("--dataset", 2021), "no ASVspoof 2021 LA keys.*keys/LA/CM/trial_metadata.txt"),
        (("--dataset", "itw"), "no In-the-Wild labels.*meta.csv"),
        (("--dataset", "folder"), "no labels in .*labels.txt.*or folders bonafide/ and spoof/"),
        (("--dataset", "itw", "itw"), "each --dataset once"),
        (("--dataset", "itw", "2019", "--data_path", "a", "b", "c"), "one for each"),
        (("--dataset", "itw", "--batch_size", 0), "--batch_size must be 1 or more"),
        (("--dataset", "itw", "--max_files", 0), "--max_files must be 1 or more"),
        (("--dataset", "itw", "--name", "../x"), "system's name"),
        (("--dataset", "itw", "--name", "x", "--compare", "x"), "other systems"),
    ],
)
def test_bad_arguments(command, tmp_path, arguments, words, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=words):
        command(*arguments)
    assert not (tmp_path / "results").exists()


def test_bad_data_is_refused_before_scoring(command, folder, scored, tmp_path):
    run = ("--dataset", "folder", "--data_path", folder)
    with pytest.raises(UserError, match="no scores of AASIST to compare .* found scores of no system"):
        command(*run, "--compare", "AASIST")
    (folder / "again").mkdir()
    shutil.copy(folder / "flac" / "u1.flac", folder / "again")
    with pytest.raises(UserError, match="two files of u1"):
        command(*run)
    (folder / "labels.txt").write_text("u2 spoof\nu3 spoof\n")
    with pytest.raises(UserError, match="speech has one class only"):
        command(*run)
    (folder / "labels.txt").write_text("file,label\na b.wav,spoof\n")
    (folder / "a b.wav").touch()
    with pytest.raises(UserError, match="no blanks.*a b.wav"):
        command(*run)
    assert scored == [] and not (tmp_path / "results").exists()


def test_a_bad_command_ends_in_one_line(tmp_path):
    assert_user_error(run_command("comprehensive_eval.py", "--checkpoint", tmp_path, "--dataset", "itw"), "checkpoint")


def test_names_of_checkpoints_in_run_folders(tmp_path):
    path = tmp_path / "LA_AASIST_ep100_bs24" / "weights" / "best.pth"
    assert comprehensive_eval.default_name(path) == "best"
    path.parent.mkdir(parents=True)
    (path.parents[1] / "config.conf").touch()
    assert comprehensive_eval.default_name(path) == "LA_AASIST_ep100_bs24_best"


def test_a_checkpoint_by_name(command, tmp_path, tiny_corpus):
    assert command("--dataset", "2019", "--data_path", tiny_corpus, "--max_files", 6, weights=BUNDLED) == 0
    assert (tmp_path / "results" / BUNDLED / "asvspoof2019").is_dir()
