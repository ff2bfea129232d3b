"""The house: imports go downward only, and heavy packages are loaded where they are used."""

import ast
import subprocess
import sys

import pytest
from conftest import ROOT

# DESIGN's levels. cli (errors, exit codes, atomic writes) lies below all; plots takes arrays only, so that evaluation
# may draw; metrics is the arithmetic of evaluation, score_files its readers and writers. Below inference: weights
# (checkpoints by name, their cards), decoding (files → samples, ahead), engines (what runs a model), verdict (scores →
# results), journal (results on disk).
LEVELS = {
    "cli": 0, "metrics": 1, "plots": 1, "config": 1, "audio": 1, "journal": 1, "processes": 1, "score_files": 2,
    "packed": 2, "vocoders": 2, "weights": 2, "decoding": 2, "run_log": 2, "augmentation": 2, "losses": 2,
    "demo_corpus": 3, "evaluation": 3, "models": 3, "corpora": 3, "verdict": 3, "seeds": 3, "doctor": 4,
    "make_corpus": 4, "utils": 4, "optimization": 4, "data_utils": 5, "engines": 5, "explain": 5, "export": 6,
    "inference": 6, "training": 7, "join": 8, "comprehensive_eval": 8, "gradio_app": 8, "monitor_training": 8,
    "main": 9, "resume_training": 10,
}  # fmt: skip
HEAVY = {
    "av",
    "gradio",
    "librosa",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "openvino",
    "pyworld",
    "sklearn",
    "tensorboard",
    "transformers",
}


def rooms() -> list[str]:
    return [path.stem for path in ROOT.glob("*.py")] + ["config", "models"]


def imports(room: str) -> set[str]:
    """Top-level names that a room imports anywhere in its files."""
    files = [ROOT / f"{room}.py"] if (ROOT / f"{room}.py").exists() else (ROOT / room).glob("*.py")
    names = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("room", sorted(LEVELS))
def test_imports_go_downward(room: str):
    if room not in rooms():
        pytest.skip("not built yet")
    ours = imports(room) & LEVELS.keys()
    assert all(LEVELS[other] < LEVELS[room] for other in ours), f"{room} imports {ours}"


def test_every_room_has_a_level():
    assert set(rooms()) <= LEVELS.keys()


def test_heavy_packages_load_late():
    code = "import sys, main, evaluation, plots; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert not HEAVY & {name.split(".")[0] for name in done.stdout.split()}
