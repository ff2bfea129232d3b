"""Two processes train like one, stop together and resume; the death of one is noticed; torchrun's restart works."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import (
    ROOT,
    assert_same_run,
    assert_user_error,
    events,
    files,
    mini,
    scored,
    the_run,
)
from forks import NO_DROPOUT, Command, Done, on_step, together
from torch import nn

from common.errors import UserError
from common.processes import Processes, peers_alive
from config import Config
from corpora.asvspoof import ASVspoof2019
from corpora.balance import epoch_batches
from utils import load_checkpoint

# Writes the epoch and the trials of each training batch to $TRIALS.<rank>.
LOG_TRIALS = """
import os, data_utils
cut = data_utils.SpeechDataset.__getitems__
def logged(self, indices):
    if self.seeds:
        print(self.seeds[1], *indices, file=open(f"{os.environ['TRIALS']}.{os.environ.get('RANK', 0)}", "a"))
    return cut(self, indices)
data_utils.SpeechDataset.__getitems__ = logged
"""


def finish(commands: list[Command]) -> list[Done]:
    """How the commands ended; each must exit with 0."""
    ends = [command.wait() for command in commands]
    for end in ends:
        assert end.returncode == 0, end.stderr
    return ends


def train(folder: Path, size: int, corpus: Path, *arguments: object, prelude: str = "", **changes) -> Path:
    """A finished run of `size` processes; returns its folder."""
    folder.mkdir(exist_ok=True)
    options = {"prelude": prelude, "TRIALS": folder / "trials"}
    first, *others = finish(together(folder, size, "main.py", *mini(folder, corpus, **changes), *arguments, **options))
    assert first.stdout.count("dev EER %") == 1 and len(events(the_run(folder), "end")) == 1
    assert all((other.stdout, other.stderr) == ("", "") for other in others)
    return the_run(folder)


@pytest.fixture(scope="module")
def pair(tiny_corpus, tmp_path_factory) -> Path:
    """A finished run of two processes, with dropout and masks. Tests must not change it."""
    return train(tmp_path_factory.mktemp("pair"), 2, tiny_corpus)


@pytest.fixture(scope="module")
def stopped(tiny_corpus, tmp_path_factory) -> Path:
    """The same run, stopped by a SIGTERM to the second process in step 6 of 8. Tests must not change it."""
    folder = tmp_path_factory.mktemp("stopped")
    prelude = LOG_TRIALS + on_step(6, "os.kill(os.getpid(), signal.SIGTERM)", rank=1)
    arguments = mini(folder, tiny_corpus)
    ends = [c.wait() for c in together(folder, 2, "main.py", *arguments, prelude=prelude, TRIALS=folder / "trials")]
    for end in ends:
        assert end.returncode == 128 + signal.SIGTERM, end.stderr
        assert f"stopped; go on with: python main.py --resume {the_run(folder)}" in end.stderr
    return the_run(folder)


def trials(run: Path, rank: int) -> list[list[int]]:
    """[epoch, *trials] of each training batch, as `LOG_TRIALS` wrote them."""
    lines = (run.parents[1] / f"trials.{rank}").read_text().splitlines()
    return [[int(number) for number in line.split()] for line in lines]


def columns(run: Path, name: str) -> tuple[list[str], np.ndarray]:
    """utt_ids and scores of a score file."""
    lines = [line.split() for line in scored(run, name)]
    return [line[0] for line in lines], np.array([float(line[-1]) for line in lines])


# ------------------------------------------------------------------------------------------- like one process


SGD = {"optimizer": "sgd", "base_lr": 2e-3}  # Adam would hide gradients that are twice as long


@pytest.mark.parametrize("changes", [{}, {"accumulation_steps": 2, "batch_size": 8, "optim_config": SGD}], ids=str)
def test_two_processes_train_as_one(tiny_corpus, tmp_path, changes):
    """With synchronised batch norm and no dropout: the same trials, once each, the same losses and scores."""
    changes = {"freq_aug": False, "optim_config": {"base_lr": 1e-4}, "ema_decay": 0.9, **changes}
    prelude = NO_DROPOUT + LOG_TRIALS
    one = train(tmp_path / "one", 1, tiny_corpus, prelude=prelude, **changes)
    two = train(tmp_path / "two", 2, tiny_corpus, prelude=prelude, **changes)
    losses = [[event["loss"] for event in events(run, "epoch")] for run in (one, two)]
    np.testing.assert_allclose(*losses, atol=1e-4)
    for name in ("dev_best", "dev_swa", "dev_ema", "eval_swa"):
        (names, scores), (others, expected) = columns(two, name), columns(one, name)
        assert names == others
        np.testing.assert_allclose(scores, expected, atol=1e-4)

    config = Config(model_config={}, batch_size=changes.get("batch_size", 6))
    partition = ASVspoof2019(tiny_corpus).partition("train")
    alone, *parts = (np.array(trials(run, rank)) for run, rank in ((one, 0), (two, 0), (two, 1)))
    for epoch in range(3):  # the third is for swa's batch norm
        steps = 24 // config.batch_size
        expected = epoch_batches(partition.trials, config, epoch)  # (steps, batch)
        batches = [rank[rank[:, 0] == epoch, 1:].reshape(steps, -1) for rank in (alone, *parts)]
        np.testing.assert_array_equal(batches[0], expected)
        assert batches[1].shape == batches[2].shape
        np.testing.assert_array_equal(np.sort(np.hstack(batches[1:])), np.sort(expected))
    assert {path.split("_", 2)[0] for path in files(one) ^ files(two)} <= {"weights/epoch"}  # named by dev EER: a tie
    assert events(two, "start")[0]["processes"] == 2


def test_eval_is_scored_in_parts(pair, tiny_corpus, tmp_path):
    best = ["--eval", "--eval_model_weights", pair / "weights" / "best.pth"]
    first, second = finish(together(tmp_path, 2, "main.py", *mini(tmp_path, tiny_corpus), *best))
    assert first.stdout.count("EER %") > 0 and second.stdout == ""
    output = "eval_scores_using_best_dev_model"
    assert scored(the_run(tmp_path), output) == scored(pair, "eval_best")


def test_seeds_are_trained_together(tiny_corpus, tmp_path):
    arguments = mini(tmp_path, tiny_corpus, num_epochs=1)
    first, second = finish(together(tmp_path, 2, "main.py", *arguments, "--seeds", 5, 6))
    assert first.stdout.count("best of n is luck") == 1 and second.stdout == ""
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {
        f"LA_mini_ep1_bs6_{what}" for what in ("seed5", "seed6", "seeds")
    }


def test_a_batch_that_cannot_be_divided(tiny_corpus, tmp_path):
    for command in together(tmp_path, 2, "main.py", *mini(tmp_path, tiny_corpus, batch_size=9)):
        assert_user_error(command.wait(), "for 2 processes", "a multiple of 2, 4 or more", "found 9")
    assert not (tmp_path / "runs").exists() or not any((tmp_path / "runs").iterdir())


def test_all_name_the_batch_that_diverged(tiny_corpus, tmp_path):
    arguments = mini(tmp_path, tiny_corpus, optim_config={"base_lr": 1e30}, save_every_steps=1)
    first, second = (command.wait() for command in together(tmp_path, 2, "main.py", *arguments))
    assert_user_error(first, "training diverged in epoch 1, step ", "a finite loss")
    assert first.stderr.splitlines()[-1] == second.stderr.splitlines()[-1]
    assert len(first.stderr.splitlines()[-1].split("in the batch ")[1].split()) == 6
    assert len(events(the_run(tmp_path), "error")) == 1


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("kind", [nn.BatchNorm1d, nn.BatchNorm2d])
def test_batch_norm_is_torchs_over_all_processes(tmp_path, kind, momentum):
    """Outputs, gradients and running statistics of two batches; statistics of one part differ clearly."""
    torch.manual_seed(0)
    shape = (2, 2, 5, 3) if kind is nn.BatchNorm1d else (2, 2, 5, 3, 4, 6)  # processes, batches, …
    x, slope = 3 + 2 * torch.randn(shape), torch.randn(shape)
    x[1] *= 4
    norm = kind(3, momentum=momentum)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, -2.0, 0.5]))
    torch.save({"x": x, "slope": slope, "norm": norm}, tmp_path / "given.pth")
    finish(together(tmp_path, 2, "", tmp_path, prelude=SYNCHRONISED))
    found = [torch.load(tmp_path / f"{rank}.pth") for rank in (0, 1)]

    for batch in range(2):
        whole = x[:, batch].flatten(0, 1).requires_grad_()
        y = norm(whole)
        (y * slope[:, batch].flatten(0, 1)).sum().backward()
        torch.testing.assert_close(torch.cat([rank["y"][batch] for rank in found]), y)
        torch.testing.assert_close(
            torch.cat([rank["x.grad"][batch] for rank in found]), whole.grad, atol=1e-5, rtol=1e-4
        )
    for name in ("weight", "bias"):
        total = found[0][f"{name}.grad"] + found[1][f"{name}.grad"]
        torch.testing.assert_close(total, getattr(norm, name).grad, atol=1e-4, rtol=1e-4)
    for rank in found:
        for name, buffer in norm.named_buffers():
            torch.testing.assert_close(rank["buffers"][name], buffer)
        torch.testing.assert_close(rank["eval"], norm.eval()(x[0, 0]))
        assert rank["kept"]


SYNCHRONISED = """
import sys, torch
from pathlib import Path
from torch import distributed, nn
from models.layers import statistics_kept
from training.optimization import SyncBatchNorm, synchronise_batch_norm
distributed.init_process_group("gloo")
folder, rank = Path(sys.argv[1]), distributed.get_rank()
given = torch.load(folder / "given.pth", weights_only=False)
norm = given["norm"]
synchronise_batch_norm(nn.Sequential(norm))
assert type(norm) is SyncBatchNorm
found = {"y": [], "x.grad": []}
for x, slope in zip(given["x"][rank], given["slope"][rank]):
    x.requires_grad_()
    y = norm(x)
    (y * slope).sum().backward()
    found["y"].append(y.detach())
    found["x.grad"].append(x.grad)
found |= {"weight.grad": norm.weight.grad, "bias.grad": norm.bias.grad}
found["buffers"] = {name: buffer.clone() for name, buffer in norm.named_buffers()}
with statistics_kept(norm):
    norm(x)
found["kept"] = all(torch.equal(buffer, found["buffers"][name]) for name, buffer in norm.named_buffers())
found["eval"] = norm.eval()(given["x"][0, 0]).detach()
torch.save(found, folder / f"{rank}.pth")
"""


# -------------------------------------------------------------------------------------------------- stop and resume


def test_a_signal_to_one_stops_all_at_one_place(stopped):
    assert len(trials(stopped, 0)) == len(trials(stopped, 1)) == 6
    last = load_checkpoint(stopped / "weights" / "last.pth")
    assert (last["progress"]["epoch"], last["progress"]["step"]) == (1, 2)
    assert len(last["rng"]) == 2 and not torch.equal(last["rng"][0]["cpu"], last["rng"][1]["cpu"])
    assert events(stopped)[-1]["event"] == "stop"


def test_none_leaves_before_all_is_saved(tiny_corpus, tmp_path):
    """When one process has ended, torchrun sends SIGTERM to the others, so all wait until everything is saved."""
    slow = """
import os
from training import folder
save = folder.save_checkpoint
def slowly(path, fields):
    if fields["progress"]["step"]:
        open(os.environ["TRIALS"], "a").write("saving\\n")
        time.sleep(2)
    save(path, fields)
folder.save_checkpoint = slowly
"""
    prelude = on_step(2, "os.kill(os.getpid(), signal.SIGTERM)", rank=0) + slow
    arguments = mini(tmp_path, tiny_corpus)
    first, second = together(tmp_path, 2, "main.py", *arguments, prelude=prelude, TRIALS=tmp_path / "said")
    first.until((tmp_path / "said").exists)
    time.sleep(0.5)
    assert second.running()
    for command in (first, second):
        command.kill(signal.SIGTERM)
    assert [command.wait().returncode for command in (first, second)] == [128 + signal.SIGTERM] * 2
    assert load_checkpoint(the_run(tmp_path) / "weights" / "last.pth")["progress"]["step"] == 2


def test_the_same_number_goes_on_to_the_same_bits(stopped, pair, tmp_path):
    run = shutil.copytree(stopped, tmp_path / "run")
    finish(together(tmp_path, 2, "main.py", "--resume", run))
    assert_same_run(run, pair)


@pytest.mark.parametrize("size", [1, 3])
def test_another_number_goes_on_too(stopped, tmp_path, size):
    run = shutil.copytree(stopped, tmp_path / "run")
    first, *_ = finish(together(tmp_path, size, "main.py", "--resume", run))
    assert "note: saved by 2 processes: dropout goes on differently" in first.stderr
    assert [event["epoch"] for event in events(run, "epoch")] == [1, 2]
    assert events(run, "epoch")[0] == events(stopped, "epoch")[0]


# ---------------------------------------------------------------------------------------------- a process dies


@pytest.mark.parametrize("rank", [0, 1])
def test_the_death_of_one_is_noticed_at_once(tiny_corpus, tmp_path, rank):
    prelude = on_step(3, "os.kill(os.getpid(), signal.SIGKILL)", rank)
    commands = together(tmp_path, 2, "main.py", *mini(tmp_path, tiny_corpus, save_every_steps=1), prelude=prelude)
    dead, other = commands[rank], commands[1 - rank]
    assert dead.wait().returncode == -signal.SIGKILL
    died = time.monotonic()
    assert_user_error(other.wait(), "another process of this run is gone", "expected all to be alive")
    assert time.monotonic() - died < 10
    assert load_checkpoint(the_run(tmp_path) / "weights" / "last.pth")["progress"]["step"] == 2


@pytest.mark.parametrize(
    ("message", "lost"),
    [
        (
            "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:9\nmore",
            True,
        ),
        ("Read error [127.0.0.1]:24236: Connection reset by peer", True),
        (
            "[../gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 1800000ms for recv operation to complete",
            True,
        ),
        ("NCCL communicator was aborted on rank 1", True),
        ("mat1 and mat2 shapes cannot be multiplied", False),
    ],
)
def test_only_a_lost_peer_is_called_so(message, lost):
    with pytest.raises(UserError if lost else RuntimeError, match="is gone" if lost else "mat1"), peers_alive():
        raise RuntimeError(message)


def torchrun(launcher: Path, prelude: str, *arguments: object, restarts: int = 0) -> subprocess.CompletedProcess:
    """Two processes of main.py, started by torchrun as a user does."""
    launcher.write_text(f"import runpy, sys\nsys.path.insert(0, {str(ROOT)!r})\n{prelude}\n")
    with launcher.open("a") as file:
        file.write(f"runpy.run_path({str(ROOT / 'main.py')!r}, run_name='__main__')\n")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["--max-restarts", str(restarts), str(launcher), *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300)


@pytest.mark.slow
def test_torchruns_restart_goes_on_to_the_same_bits(tiny_corpus, pair, tmp_path):
    """A process is killed in the second epoch; after the restart the results have the bits of an undisturbed run."""
    arguments = mini(tmp_path, tiny_corpus, save_every_steps=1)
    done = torchrun(
        tmp_path / "launcher.py", on_step(6, "os.kill(os.getpid(), signal.SIGKILL)", rank=1), *arguments, restarts=1
    )
    assert done.returncode == 0, done.stderr
    assert events(the_run(tmp_path), "resume")[0] | {"time": 0} == {"event": "resume", "time": 0, "epoch": 1, "step": 1}
    assert_same_run(the_run(tmp_path), pair)
    assert done.stdout.count("eval_swa.txt") == 1 and "Warning" not in done.stderr


@pytest.mark.slow
def test_without_restarts_torchrun_ends(tiny_corpus, tmp_path):
    arguments = mini(tmp_path, tiny_corpus, save_every_steps=1)
    done = torchrun(tmp_path / "launcher.py", on_step(3, "os.kill(os.getpid(), signal.SIGKILL)", rank=1), *arguments)
    assert done.returncode != 0
    assert done.stderr.count("error: ") <= 1 or "another process of this run is gone" in done.stderr
    assert load_checkpoint(the_run(tmp_path) / "weights" / "last.pth")["progress"]["step"] == 2


# ---------------------------------------------------------------------------------------------- a single process


def test_alone_nothing_is_exchanged():
    from datetime import timedelta

    alone = Processes(timedelta(seconds=1))
    assert (alone.rank, alone.size, alone.is_main) == (0, 1, True)
    assert alone.gather("x") == ["x"] and alone.broadcast("y") == "y" and alone.largest(3, 0) == [3, 0]
    assert not torch.distributed.is_initialized()
