import pickle
import subprocess
import sys
import warnings
import zipfile

import pytest
import torch
from conftest import ROOT, TINY_MODEL, Malice, assert_user_error, run_command, save_tiny
from safetensors.torch import save_file

import utils
from common.errors import UserError
from config import Config, load_config
from models import build_model
from utils import (
    load_model,
    pick_device,
    rng_state,
    save_checkpoint,
    seed_everything,
    set_precision,
    set_rng_state,
)


def test_seed_and_state_decide_what_is_drawn():
    seed_everything(Config(model_config={}, seed=5))
    state, first = rng_state(), torch.rand(3)
    seed_everything(Config(model_config={}, seed=5))
    assert torch.equal(first, torch.rand(3))
    set_rng_state(state)
    assert torch.equal(first, torch.rand(3))


@pytest.mark.skipif(torch.cuda.is_available(), reason="speaks of machines without CUDA")
def test_cuda_asked_for_and_absent():
    assert pick_device("auto") == torch.device("cpu")
    with pytest.raises(UserError, match="no CUDA device"):
        pick_device("cuda")


def test_notes_on_precisions_that_a_cpu_lacks(capsys, monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(utils, "computes_bf16", lambda: True)
    for precision in ("fp32", "bf16"):
        set_precision(precision, cpu)
    assert capsys.readouterr().err == ""
    set_precision("tf32", cpu)
    assert capsys.readouterr().err == "note: a CPU has no tf32: computing in fp32\n"
    monkeypatch.setattr(utils, "computes_bf16", lambda: False)
    set_precision("bf16", cpu)
    assert capsys.readouterr().err.startswith("note: this CPU emulates bf16")


def test_only_tf32_lets_a_gpu_round(monkeypatch):
    for precision, rounds in (("tf32", True), ("bf16", False), ("fp32", False)):
        set_precision(precision, torch.device("cuda"))
        assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (rounds, rounds)


# --------------------------------------------------------------------------------------------------- checkpoints


def save(path, **changes):
    model = build_model(TINY_MODEL)
    save_checkpoint(path, {"config": {"model_config": TINY_MODEL}, "model": model.state_dict(), **changes})
    return model


def test_checkpoint_carries_its_model(tmp_path):
    model = save(tmp_path / "a.pth", threshold=0.5)
    loaded, checkpoint = load_model(tmp_path / "a.pth")
    assert not loaded.training
    assert checkpoint["threshold"] == 0.5
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), loaded.state_dict().values(), strict=True)
    )


def test_a_full_disk_is_said_and_costs_no_earlier_file(tmp_path):
    save(tmp_path / "a.pth")
    before = (tmp_path / "a.pth").read_bytes()
    script = (
        "import resource, torch; from utils import save_checkpoint; from common.command import run\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))\n"
        f"run(lambda: save_checkpoint({str(tmp_path / 'a.pth')!r}, {{'model': torch.zeros(100_000)}}))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert_user_error(done, "cannot write", "a.pth", "File too large")
    assert (tmp_path / "a.pth").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_equal_checkpoints_are_equal_files(tmp_path):
    torch.manual_seed(0)
    save(tmp_path / "a.pth")
    torch.manual_seed(0)
    save(tmp_path / "b.pth")
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "b.pth").read_bytes()


@pytest.mark.parametrize("name", ["AASIST", "AASIST-L"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_bare_official_state_dicts_are_recognised(shared, tmp_path, name, prefix):
    weights = torch.load(shared / "fixtures" / "weights" / f"{name}.pth", map_location="cpu", weights_only=True)
    torch.save({prefix + key: value for key, value in weights.items()}, tmp_path / "bare.pth")
    _, checkpoint = load_model(tmp_path / "bare.pth")
    assert checkpoint["config"]["model_config"] == load_config(ROOT / "config" / f"{name}.conf").model_config


def bad_checkpoint(kind: str, path, tmp_path) -> None:
    if kind in ("malice", "bare malice"):
        torch.save({"format": 1, "config": {}, "model": Malice(tmp_path / "ran")}, path)
        if kind == "bare malice":
            path.write_bytes(pickle.dumps(Malice(tmp_path / "ran")))
    elif kind == "other shapes":
        save(path, config={"model_config": TINY_MODEL | {"gat_dims": [8, 12]}})
    elif kind == "unknown tensors":
        torch.save({"weight": torch.zeros(3)}, path)
    elif kind == "another format":
        save(path, format=99)
    elif kind == "a list":
        torch.save([1, 2], path)
    elif kind == "text":
        path.write_text("no checkpoint")
    elif kind == "truncated":
        save(path)
        path.write_bytes(path.read_bytes()[:-2000])
    elif kind == "bomb":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", bytes(50_000_000))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("malice", "tensors and plain values only"),
        ("bare malice", "a file of torch.save"),
        ("other shapes", "another architecture: .*expected"),
        ("unknown tensors", "no known architecture.*AASIST-L, AASIST"),
        ("another format", "another format — expected 1, found 99"),
        ("a list", "expected a dict, found list"),
        ("text", "a file of torch.save"),
        ("truncated", "a file of torch.save"),
        ("bomb", "stored entries"),
        ("missing", "cannot read checkpoint"),
    ],
)
def test_bad_checkpoints(tmp_path, kind, words):
    path = tmp_path / "bad.pth"
    bad_checkpoint(kind, path, tmp_path)
    with pytest.raises(UserError, match=words) as error:
        load_model(path)
    assert "bad.pth" in str(error.value)
    assert not (tmp_path / "ran").exists()


def test_inspect_says_what_a_checkpoint_holds(tmp_path):
    done = run_command("utils.py", "inspect", save_tiny(tmp_path / "tiny.pth", dev_eer=0.125, epoch=7))
    assert done.returncode == 0, done.stderr
    lines = dict(line.split(maxsplit=1) for line in done.stdout.replace("dev EER", "dev_eer").splitlines())
    assert lines["architecture"] == "AASIST" and lines["dev_eer"] == "12.500 %" and lines["epoch"] == "7"
    (tmp_path / "text.pth").write_text("no checkpoint")
    assert_user_error(run_command("utils.py", "inspect", tmp_path / "text.pth"), "text.pth", "torch.save")


WRAPPED = {
    "lightning": lambda weights: {"epoch": 3, "state_dict": {f"model.{name}": x for name, x in weights.items()}},
    "model_state_dict": lambda weights: {"model_state_dict": weights, "epoch": 12},
    "model and optimizer": lambda weights: {"model": weights, "optimizer": {}, "epoch": 5},
    "compiled": lambda weights: {f"_orig_mod.{name}": x for name, x in weights.items()},
    "averaged": lambda weights: {f"module.{name}": x for name, x in weights.items()} | {"n_averaged": torch.tensor(7)},
    "parallel and compiled": lambda weights: {f"module._orig_mod.{name}": x for name, x in weights.items()},
}


def assert_found(path, weights) -> None:
    found = utils.load_checkpoint(path)
    assert found["config"] is None and found["model"].keys() == weights.keys()
    assert all(torch.equal(found["model"][name], weights[name]) for name in weights)


@pytest.mark.parametrize("wrapper", WRAPPED)
def test_weights_are_found_in_other_projects_wrappers(tmp_path, wrapper):
    weights = build_model(TINY_MODEL).state_dict()
    torch.save(WRAPPED[wrapper](weights), tmp_path / "w.pth")
    assert_found(tmp_path / "w.pth", weights)


def test_weights_are_found_in_other_formats(tmp_path):
    """safetensors, and torch's format before 1.6."""
    weights = build_model(TINY_MODEL).state_dict()
    save_file(weights, tmp_path / "w.safetensors")
    assert_found(tmp_path / "w.safetensors", weights)
    torch.save({"state_dict": weights}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert_found(tmp_path / "old.pth", weights)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_halved_weights_are_computed_in_full(shared, tmp_path, kind):
    weights = torch.load(shared / "fixtures" / "weights" / "AASIST-L.pth", map_location="cpu", weights_only=True)
    halved = {name: x.to(kind) if x.is_floating_point() else x for name, x in weights.items()}
    torch.save(halved, tmp_path / "half.pth")
    own = load_model(tmp_path / "half.pth")[0].state_dict()
    assert all(torch.equal(own[name], halved[name].to(own[name].dtype)) for name in own)
    assert own["out_layer.weight"].dtype == torch.float32


def write_other(kind: str, path) -> None:
    """A file that is no checkpoint of weights."""
    weight = {"weight": torch.zeros(3)}
    if kind == "script":
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), path)
    elif kind == "module":
        torch.save(torch.nn.Linear(2, 2), path)
    elif kind == "optimizer":
        torch.save(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0).state_dict(), path)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(weight))
    elif kind == "page":
        path.write_text("<!DOCTYPE html><html></html>")
    elif kind == "pointer":
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    elif kind == "cut safetensors":
        save_file(weight, path)
        path.write_bytes(path.read_bytes()[:-4])
    elif kind == "cut old":
        torch.save(weight, path, _use_new_zipfile_serialization=False)
        path.write_bytes(path.read_bytes()[:-4])


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("script", "TorchScript"),
        ("module", "a pickle of code .torch.nn.modules.linear.Linear"),
        ("optimizer", "the state of an optimizer"),
        ("pickle", "a pickle without torch's header"),
        ("page", "a web page"),
        ("pointer", "a git-lfs pointer"),
        ("cut safetensors", "cannot load checkpoint"),
        ("cut old", "cannot load checkpoint"),
    ],
)
def test_files_that_hold_no_weights_are_named(tmp_path, kind, words):
    write_other(kind, tmp_path / "other.pth")
    with pytest.raises(UserError, match=words):
        load_model(tmp_path / "other.pth")
