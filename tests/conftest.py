"""What several test files share: where real data lies, a small corpus, and running a command as a user does."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from forks import Command, Done

from models import build_model
from utils import load_checkpoint, save_checkpoint

# A shell's background jobs ignore Ctrl-C, and so would the commands that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
TINY_MODEL = {
    "architecture": "AASIST",
    "nb_samp": 8000,
    "first_conv": 128,
    "filts": [70, [1, 8], [8, 8], [8, 8], [8, 8]],
    "gat_dims": [8, 8],
    "pool_ratios": [0.5, 0.7, 0.5, 0.5],
    "temperatures": [2.0, 2.0, 100.0, 100.0],
}
# As quick as a model of all parts can be: 30 ms a step of 6.
MINI_MODEL = TINY_MODEL | {"nb_samp": 2400, "filts": [24, [1, 4], [4, 4], [4, 4], [4, 4]]}
MINI = {
    "model_config": MINI_MODEL,
    "optim_config": {"base_lr": 1e-3},
    "batch_size": 6,
    "num_epochs": 2,
    "num_workers": 0,
    "freq_aug": True,
}

torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)  # `make test` runs two processes


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small models gain nothing from a second thread, or are slower with it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real speech and reference numbers beside the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the fixtures folder {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory) -> Path:
    """A demo corpus of 24 train, 16 dev and 16 eval utterances; not to be changed."""
    folder = tmp_path_factory.mktemp("corpus") / "demo"
    sizes = ["--speakers", "4", "--utterances", "24", "16", "16"]
    done = run_command("demo_corpus.py", "--output_dir", folder, *sizes)
    assert done.returncode == 0, done.stderr
    return folder


def run_command(script: str, *arguments: object, **options) -> Done | subprocess.CompletedProcess:
    """`python script arguments…`, or `python -m module …`, in the repository's root, output captured as text.

    A script is forked (see `forks.Command`), which saves the time to import torch; options are `subprocess.run`'s.
    """
    if script.endswith(".py") and not options:
        with tempfile.TemporaryDirectory() as folder:
            return Command(Path(folder), script, *arguments).wait(600)
    start = [str(ROOT / script)] if script.endswith(".py") else ["-m", script]
    command = [sys.executable, *start, *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # small models: a second thread only waits
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=600, **options)


def mini(folder: Path, corpus: Path, **changes: object) -> list[object]:
    """main.py's arguments for a run of `MINI_MODEL` below folder/runs, of `MINI` with these changes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mini.conf").write_text(yaml.safe_dump(MINI | changes))
    return ["--config", folder / "mini.conf", "--database_path", corpus, "--output_dir", folder / "runs"]


def train_mini(folder: Path, corpus: Path, *arguments: object, prelude: str = "", **changes: object) -> Path:
    """A finished run of `mini` (see `forks.Command`); returns its folder."""
    done = Command(folder, "main.py", *mini(folder, corpus, **changes), *arguments, prelude=prelude).wait()
    assert done.returncode == 0, done.stderr
    return the_run(folder)


def the_run(folder: Path) -> Path:
    """The one run folder of `mini`."""
    (run,) = (folder / "runs").iterdir()
    return run


def weights(run: Path, name: str) -> dict[str, torch.Tensor]:
    return load_checkpoint(run / "weights" / f"{name}.pth")["model"]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def scored(run: Path, name: str) -> list[str]:
    """The lines of a score file."""
    return (run / "scores" / f"{name}.txt").read_text().splitlines()


def events(run: Path, kind: str | None = None) -> list[dict]:
    """What is in the run's log, or the events of one kind."""
    found = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [event for event in found if kind in (None, event["event"])]


def assert_same_run(run: Path, other: Path) -> None:
    """The same bits in every result: weights, all scores, the log's losses; each epoch once, nothing left behind."""
    assert files(run) == files(other)
    for path in (other / "weights").glob("[!l]*.pth"):
        assert same(weights(run, path.stem), weights(other, path.stem)), path.name
    for path in (other / "scores").iterdir():
        assert scored(run, path.stem) == scored(other, path.stem), path.name
    numbers = ("epoch", "loss", "lr", "dev_eer_percent", "dev_min_tdcf", "averaged", "best")
    ours, theirs = ([[e[name] for name in numbers] for e in events(one, "epoch")] for one in (run, other))
    assert ours == theirs
    ends = [load_checkpoint(one / "weights" / "last.pth") for one in (run, other)]
    assert same(*(end["model"] for end in ends))
    assert same(*(end["swa"] for end in ends))
    assert all(end["progress"] | {"seconds": 0} == ends[0]["progress"] | {"seconds": 0} for end in ends)


def files(run: Path) -> set[str]:
    return {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}


def assert_user_error(done: subprocess.CompletedProcess, *words: str) -> None:
    """One line `error: …` that holds every word, no traceback, exit code 2."""
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("note: ")]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: "), done.stderr
    for word in words:
        assert word in lines[0], done.stderr


def save_tiny(path: Path, **changes: object) -> Path:
    """Write a checkpoint of a random tiny model as training leaves it: threshold 0, calibration, dev scores."""
    torch.manual_seed(0)
    fields = {
        "config": {"model_config": TINY_MODEL, "track": "LA", "database_path": "/data/made_up/"},
        "model": build_model(TINY_MODEL).state_dict(),
        "threshold": 0.0,
        "calibration": {"a": 2.0, "b": 0.5},
        "dev_scores": {"bonafide": torch.tensor([0.5, 1.5]), "spoof": torch.tensor([-1.0, -0.5, 0.25, 0.75])},
    }
    save_checkpoint(path, fields | changes)
    return path


class Malice:
    """An object that makes a file when it is unpickled carelessly."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))
