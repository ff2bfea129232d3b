import json
import math
import pickle
import subprocess
import sys
import zipfile

import pytest
import torch
from conftest import ROOT, TINY_MODEL, Malice, assert_user_error

from cli import UserError
from config import Config, OptimConfig, load_config
from models import build_model
from optimization import build_optimizer, learning_rate
from utils import (
    RunLog,
    load_model,
    pick_device,
    rng_state,
    save_checkpoint,
    seed_everything,
    set_rng_state,
)


def lrs(epochs: int = 10, steps: int = 7, **options) -> list[float]:
    schedule = learning_rate(OptimConfig(base_lr=1e-4, lr_min=5e-6, **options), steps, epochs)
    return [schedule(step) for step in range(steps * epochs + 1)]


def test_cosine_is_torchs():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1e-4)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=70, eta_min=5e-6)
    for lr in lrs(scheduler="cosine"):
        assert lr == pytest.approx(reference.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        reference.step()


@pytest.mark.parametrize("factor", [1, 2])
def test_sgdr_is_torchs(factor):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-4)
    reference = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=2, T_mult=factor, eta_min=5e-6)
    for step, lr in enumerate(lrs(scheduler="sgdr", T0=2, Tmult=factor, steps=8)):  # eighths are exact in binary
        optimizer.step()
        reference.step(step / 8)
        assert lr == pytest.approx(reference.get_last_lr()[0], rel=1e-9)


def test_other_schedules():
    steps = lrs(scheduler="multistep", milestones=(2, 5), lr_decay=0.1)
    assert (steps[13], steps[14], steps[35]) == pytest.approx((1e-4, 1e-5, 1e-6))
    decayed = lrs(scheduler="keras_decay")
    assert decayed[70] == pytest.approx(1e-4 / 1.007)
    assert set(lrs(scheduler="none")) == {1e-4}


def test_optimizers_take_the_configured_values():
    model = torch.nn.Linear(2, 2)
    adam = build_optimizer(model, OptimConfig(betas=(0.8, 0.9), weight_decay=0.1, amsgrad=True))
    assert isinstance(adam, torch.optim.Adam)
    assert (adam.defaults["betas"], adam.defaults["weight_decay"], adam.defaults["amsgrad"]) == ((0.8, 0.9), 0.1, True)
    sgd = build_optimizer(model, OptimConfig(optimizer="sgd", momentum=0.5, nesterov=True))
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.defaults["momentum"], sgd.defaults["nesterov"]) == (0.5, True)


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
        "import resource, torch; from utils import save_checkpoint; from cli import run\n"
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


# ----------------------------------------------------------------------------------------------------------- log


def test_log_is_cut_to_what_the_checkpoint_knew(tmp_path):
    log = RunLog(tmp_path)
    log.event("epoch", epoch=1, loss=0.5)
    log.line("one")
    sizes = log.sizes()
    log.event("epoch", epoch=2, loss=0.4)
    log.line("two")
    RunLog(tmp_path, sizes).event("epoch", epoch=2, loss=0.3)
    events = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(e["event"], e["epoch"], e["loss"]) for e in events] == [("epoch", 1, 0.5), ("epoch", 2, 0.3)]
    assert (tmp_path / "metric_log.txt").read_text() == "one\n"
    with pytest.raises(ValueError, match="JSON"):
        log.event("epoch", loss=math.nan)
