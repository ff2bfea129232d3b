"""The runs of several seeds as one model, an Ensemble (models/Ensemble.py), whose score is the mean of theirs.

    python main.py --config config/shipped.conf --seeds 1 2 3    # leaves <run>_seeds/weights/joined.pth

Networks that began elsewhere err elsewhere. Which seed is best need not be asked then, and no luck is in the answer.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from config import Config
from training.run import Data, scored
from utils import load_checkpoint, save_checkpoint

TOP = ("nb_samp", "output")  # of model_config: an Ensemble has one for all its members


def join(runs: Sequence[Path], data: Data, config: Config, folder: Path) -> None:
    """weights/joined.pth, scores/ and metrics/ in `folder`, of finished runs of one configuration.

    Their final means' weights are taken: ema.pth where there is one, else swa.pth. Its scores are the means of what the
    runs left in scores/, so nothing is scored again; they are printed.
    """
    name = "ema" if config.ema_decay else "swa"
    checkpoints = [load_checkpoint(run / "weights" / f"{name}.pth") for run in runs]
    model_config, weights = joined(checkpoints)
    dev = mean_scores([run / "scores" / f"dev_{name}.txt" for run in runs])
    result = data.report(dev, folder, "dev_joined.txt", "dev")
    fields = scored(replace(config, model_config=model_config), data, weights, dev, result)
    seeds = [checkpoint["config"]["seed"] for checkpoint in checkpoints]
    save_checkpoint(folder / "weights" / "joined.pth", fields | {"epoch": config.num_epochs, "seeds": seeds})
    for partition in ("eval", *data.eval_sets):
        eval_scores = mean_scores([run / "scores" / f"{partition}_{name}.txt" for run in runs])
        data.report(eval_scores, folder, f"{partition}_joined.txt", partition)


def joined(checkpoints: Sequence[dict[str, Any]]) -> tuple[dict, dict[str, torch.Tensor]]:
    """model_config and weights of the Ensemble of all that `checkpoints` hold; Ensembles give their members."""
    parts = [part for checkpoint in checkpoints for part in _members(checkpoint)]
    first = checkpoints[0]["config"]["model_config"]
    members = [{key: value for key, value in member.items() if key not in TOP} for member, _ in parts]
    weights = {f"members.{n}.{name}": tensor for n, (_, own) in enumerate(parts) for name, tensor in own.items()}
    top = {key: first[key] for key in TOP if key in first}
    return {"architecture": "Ensemble", **top, "members": members}, weights


def _members(checkpoint: dict[str, Any]) -> list[tuple[dict, dict[str, torch.Tensor]]]:
    model_config, weights = checkpoint["config"]["model_config"], checkpoint["model"]
    if model_config["architecture"] != "Ensemble":
        return [(model_config, weights)]
    prefixes = [f"members.{n}." for n in range(len(model_config["members"]))]
    own = [{k.removeprefix(p): v for k, v in weights.items() if k.startswith(p)} for p in prefixes]
    return list(zip(model_config["members"], own, strict=True))


def mean_scores(files: Sequence[Path]) -> np.ndarray:
    """(N,) of score files as `Data.write_scores` leaves them, in protocol order."""
    return np.mean([[float(line.split()[-1]) for line in file.read_text().splitlines()] for file in files], axis=0)
