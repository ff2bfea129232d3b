"""What other people's code imports from here, and that every command explains itself."""

import importlib

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
