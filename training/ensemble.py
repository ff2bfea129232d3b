"""The runs of several seeds as one model: an Ensemble (models/Ensemble.py), whose score is the mean of theirs.

    python main.py --config config/LCNN-mixed.conf --seeds 1 2 3    # leaves <run>_seeds/weights/joined.pth

Networks from different seeds make different mistakes. The mean needs no choice of a best seed, and so no luck.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.text_files import read_lines
from config import Config
from training.data import RunData
from training.scores import checkpoint_fields
from utils import load_checkpoint, save_checkpoint

SHARED_KEYS = ("nb_samp", "output")  # of model_config: an Ensemble has one value for all its members


def write_ensemble(runs: Sequence[Path], data: RunData, config: Config, folder: Path) -> None:
    """Write weights/joined.pth, scores/ and metrics/ to `folder`, from finished runs of one configuration.

    The weights are those of each run's final mean: ema.pth with `ema_decay`, else swa.pth. The scores are the means of
    the score files in the runs, so nothing is scored again. The metrics are printed, too.
    """
    name = "ema" if config.ema_decay else "swa"
    checkpoints = [load_checkpoint(run / "weights" / f"{name}.pth") for run in runs]
    model_config, weights = ensemble_of(checkpoints)
    dev = mean_scores([run / "scores" / f"dev_{name}.txt" for run in runs])
    result = data.report("dev", dev, folder, "dev_joined.txt")
    fields = checkpoint_fields(replace(config, model_config=model_config), data, weights, dev, result)
    seeds = [checkpoint["config"]["seed"] for checkpoint in checkpoints]
    save_checkpoint(folder / "weights" / "joined.pth", fields | {"epoch": config.num_epochs, "seeds": seeds})
    for partition in ("eval", *data.eval_sets):
        scores = mean_scores([run / "scores" / f"{partition}_{name}.txt" for run in runs])
        data.report(partition, scores, folder, f"{partition}_joined.txt")


def ensemble_of(checkpoints: Sequence[dict[str, Any]]) -> tuple[dict, dict[str, torch.Tensor]]:
    """model_config and weights of the Ensemble of all checkpoints; one that is an Ensemble adds its members."""
    found = [member for checkpoint in checkpoints for member in _members(checkpoint)]
    first = checkpoints[0]["config"]["model_config"]
    members = [{key: value for key, value in member.items() if key not in SHARED_KEYS} for member, _ in found]
    weights = {f"members.{n}.{name}": tensor for n, (_, own) in enumerate(found) for name, tensor in own.items()}
    shared = {key: first[key] for key in SHARED_KEYS if key in first}
    return {"architecture": "Ensemble", **shared, "members": members}, weights


def _members(checkpoint: dict[str, Any]) -> list[tuple[dict, dict[str, torch.Tensor]]]:
    """(model_config, weights) of each member; of the model itself if it is no Ensemble."""
    model_config, weights = checkpoint["config"]["model_config"], checkpoint["model"]
    if model_config["architecture"] != "Ensemble":
        return [(model_config, weights)]
    prefixes = [f"members.{n}." for n in range(len(model_config["members"]))]
    own = [{k.removeprefix(p): v for k, v in weights.items() if k.startswith(p)} for p in prefixes]
    return list(zip(model_config["members"], own, strict=True))


def mean_scores(files: Sequence[Path]) -> np.ndarray:
    """(N,) mean of score files in protocol order, as `RunData.write_scores` writes them."""
    return np.mean([[float(line.split()[-1]) for line in read_lines(file) if line] for file in files], axis=0)
