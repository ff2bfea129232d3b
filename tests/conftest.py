"""What several test files share: where real data lies, a small corpus, and running a command as a user does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models import build_model
from utils import save_checkpoint

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

torch.set_num_threads(2)


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


def run_command(script: str, *arguments: object, **options) -> subprocess.CompletedProcess:
    """`python script arguments…` in the repository's root, output captured as text."""
    command = [sys.executable, str(ROOT / script), *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # small models: a second thread only waits
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=600, **options)


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
