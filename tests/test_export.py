import numpy as np
import pytest
import soundfile
import torch
from conftest import TINY_MODEL, assert_user_error, run_command

from common.errors import UserError
from models import build_model
from scoring.engine_choice import load_engine
from scoring.int8_export import check_eer, first_chunk_scores, read_score_set
from scoring.onnx_files import exported_path, read_exported
from scoring.weights import file_sha256
from utils import save_checkpoint

NB_SAMP = TINY_MODEL["nb_samp"]


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A checkpoint of a tiny model with threshold 0.5; the folder of weights is tmp_path/cache."""
    monkeypatch.setenv("AASIST_WEIGHTS", str(tmp_path / "cache"))
    torch.manual_seed(0)
    fields = {"config": {"model_config": TINY_MODEL}, "model": build_model(TINY_MODEL).state_dict(), "threshold": 0.5}
    save_checkpoint(tmp_path / "tiny.pth", fields)
    return tmp_path / "tiny.pth"


def write_set(folder, labels: list[str], seeds: list[int]) -> str:
    """Noise recordings in `folder`, one per seed, and a list of them with their labels; returns the list's path."""
    for number, seed in enumerate(seeds):
        rng = np.random.default_rng(seed)
        soundfile.write(folder / f"{number} a.wav", rng.uniform(0.01, 0.9) * rng.uniform(-1, 1, NB_SAMP), 16_000)
    lines = [f"{number} a.wav {label}" for number, label in enumerate(labels)]
    (folder / "set.txt").write_text("\n".join(lines) + "\n")
    return str(folder / "set.txt")


def test_command_writes_where_auto_looks(tiny, tmp_path):
    done = run_command("export.py", tiny)
    assert done.returncode == 0, done.stderr
    copy = exported_path(file_sha256(tiny))
    assert done.stdout.count("\n") == 1 and done.stderr == ""
    for word in (str(copy), "MiB", "fp32", "largest difference"):
        assert word in done.stdout
    engine, card = load_engine(tiny, device="cpu")
    assert (engine.name, card.threshold, card.name) == ("openvino", 0.5, "tiny")
    again = tmp_path / "again.onnx"
    assert run_command("export.py", tiny, "--onnx", again).returncode == 0
    assert again.read_bytes() == copy.read_bytes()


def test_int8_is_written_with_a_threshold_of_its_own(tiny, tmp_path):
    """Every recording has both labels: ties, whose EER is the same in every precision."""
    score_set = write_set(tmp_path, ["bonafide"] * 4 + ["spoof"] * 4, [0, 1, 2, 3] * 2)
    done = run_command("export.py", tiny, "--int8", "--score_set", score_set)
    assert done.returncode == 0, done.stderr
    assert "int8" in done.stdout and "EER 50.000 % in fp32, 50.000 % in int8" in done.stdout
    for engine in ("auto", "onnx", "openvino"):
        loaded, card = load_engine(tiny, engine, "int8")
        assert loaded.precision == "int8"
        assert "int8 scores of set.txt" in card.threshold_source and len(card.dev_scores["spoof"]) == 4
    assert load_engine(exported_path(file_sha256(tiny), "int8"))[0].precision == "int8"
    with pytest.raises(UserError, match="is int8"):
        load_engine(exported_path(file_sha256(tiny), "int8"), "openvino", "bf16")


@pytest.mark.slow
def test_int8_that_moves_the_eer_is_not_written(tiny, tmp_path):
    """Noise labelled by an untrained model's own scores, which lie too close together for int8."""
    write_set(tmp_path, ["bonafide", "spoof"] * 20, list(range(40)))
    files = read_score_set(tmp_path / "set.txt")
    scores = first_chunk_scores(exported(tiny), files)
    labels = np.where(scores > np.median(scores), "bonafide", "spoof").tolist()
    score_set = write_set(tmp_path, labels, list(range(40)))
    out = tmp_path / "out.onnx"
    done = run_command("export.py", tiny, "--int8", "--score_set", score_set, "--onnx", out)
    assert_user_error(done, "not written", "EER 0.000 % in fp32", "in int8", "at most 0.05 points apart")
    assert not out.exists()


def exported(checkpoint):
    assert run_command("export.py", checkpoint).returncode == 0
    return exported_path(file_sha256(checkpoint))


def test_the_eer_may_move_by_0_05_points():
    is_bonafide = np.arange(4000) < 2000
    fp32 = np.where(is_bonafide, 1.0, -1.0)
    one_swapped, two_swapped = fp32.copy(), fp32.copy()
    one_swapped[[0, -1]], two_swapped[[0, 1, -1, -2]] = [-1.0, 1.0], [-1.0, -1.0, 1.0, 1.0]
    assert "EER 0.000 % in fp32, 0.050 % in int8" in check_eer(fp32, one_swapped, is_bonafide)
    with pytest.raises(UserError, match="EER 0.000 % in fp32, 0.100 % in int8"):
        check_eer(fp32, two_swapped, is_bonafide)


def test_card_travels_with_the_file(tiny):
    found = read_exported(exported(tiny))
    assert (found.precision, found.nb_samp) == ("fp32", NB_SAMP)
    assert found.card.sha256 == file_sha256(tiny) and found.card.model_config == TINY_MODEL


@pytest.mark.parametrize(
    "content, words",
    [
        ("a.wav bonafide\nb.wav real\n", "line 2"),
        ("bonafide\n", "line 1"),
        ("a.wav bonafide\n", "bona fide and spoof"),
        ("", "bona fide and spoof"),
    ],
)
def test_wrong_score_sets(tmp_path, content, words):
    (tmp_path / "set.txt").write_text(content)
    with pytest.raises(UserError, match=words):
        read_score_set(tmp_path / "set.txt")


def test_wrong_arguments(tiny, tmp_path):
    assert_user_error(run_command("export.py", tiny, "--int8"), "--int8 and --score_set")
    assert_user_error(run_command("export.py", tiny, "--onnx", tmp_path / "a.bin"), "does not end in .onnx")
    assert_user_error(run_command("export.py", tmp_path / "none.pth"), "cannot read checkpoint", "none.pth")
    done = run_command("export.py", tiny, "--int8", "--score_set", tmp_path / "none.txt")
    assert_user_error(done, "cannot read", "none.txt")
    (tmp_path / "set.txt").write_text("none.wav bonafide\nnone2.wav spoof\n")
    done = run_command("export.py", tiny, "--int8", "--score_set", tmp_path / "set.txt")
    assert_user_error(done, "none.wav")
