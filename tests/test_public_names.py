"""What other people's code imports from here, that commands explain themselves, and that what texts name is there."""

import importlib
import re

import pytest
from conftest import ROOT, run_command

COMMANDS = sorted(path.name for path in ROOT.glob("*.py"))
NAMES = {
    "models": ["build_model"],
    "models.AASIST": ["Model"],
    "models.RawNet2Spoof": ["Model"],
    "models.RawNetGatSpoofST": ["Model"],
    "models.LFCC_LCNN": ["Model"],
    "models.SSL_AASIST": ["Model"],
    "models.Ensemble": ["Model"],
    "config": ["Config", "load_config", "save_config"],
    "inference": ["Detector"],
    "data_utils": ["SpeechDataset", "score_loader", "train_loader"],
    "utils": ["load_checkpoint", "load_model", "load_weights", "pick_device", "save_checkpoint", "seed_everything"],
    "evaluation": ["compute_eer", "compute_min_tdcf", "evaluate", "read_asv_scores", "read_scores"],
}


@pytest.mark.parametrize("module", NAMES)
def test_names_stay_where_others_import_them(module: str):
    found = importlib.import_module(module)
    for name in [*NAMES[module], *getattr(found, "__all__", ())]:
        assert hasattr(found, name), name


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_printed(command: str):
    done = run_command(command, "--help")
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.startswith("usage: ") and f"python {command}" in done.stdout


def test_the_root_shows_commands_only():
    assert len(COMMANDS) <= 12


TEXTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*.py"), *ROOT.glob("benchmarks/*")]


@pytest.mark.parametrize("text", [path for path in TEXTS if path.suffix in (".md", ".py")], ids=lambda path: path.name)
def test_scripts_and_recipes_that_a_text_names_are_there(text):
    named = re.findall(r"python3? ((?:benchmarks/)?\w+\.py)\b|\b(config/[\w-]+\.conf)\b", text.read_text())
    assert [name for names in named for name in names if name and not (ROOT / name).exists()] == []
