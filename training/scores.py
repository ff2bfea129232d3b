"""Scores of a partition, computed by all processes; what a checkpoint stores about its dev scores; --eval."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from common.errors import UserError
from common.processes import Processes
from config import Config, to_dict
from corpora.balance import balance_weights
from corpora.waveforms import Waveforms
from data_utils import ProcessPart, score_loader
from metrics.calibration import fit_calibration
from scoring.detector import Detector
from scoring.engines import TorchEngine
from training.data import RunData
from training.model import load_initial
from utils import set_precision


def score_partition(
    detector: Detector,
    waveforms: Waveforms,
    config: Config,
    processes: Processes,
    watch: Callable[[Iterable], Iterable],
) -> np.ndarray:
    """Scores (N,) in protocol order, in every process; each computes its part.

    watch: iterates over the loader's batches; it may show progress, or stop by raising an exception.
    """
    rank, size = processes.rank, processes.size
    loader = score_loader(waveforms, detector.engine.nb_samp, config, ProcessPart(rank, size))
    scores = np.empty(len(waveforms))
    for other, part in enumerate(processes.gather(detector.score(watch(loader)))):
        scores[other::size] = part
    return scores


def checkpoint_fields(
    config: Config, data: RunData, weights: dict[str, torch.Tensor], scores: np.ndarray, dev: dict
) -> dict:
    """The fields of a checkpoint. scores: (N,) of the dev partition in protocol order; dev: their metrics."""
    is_bonafide = data.is_bonafide("dev")
    trial_weights = balance_weights(data.partitions["dev"].trials, config.balance, config.balance_power)
    kinds = {"bonafide": scores[is_bonafide], "spoof": scores[~is_bonafide]}
    return {
        "config": to_dict(config),
        "model": weights,
        "dev_eer": dev["eer_percent"] / 100,
        "dev_min_tdcf": dev["min_tdcf"],
        "threshold": dev["eer_threshold"],
        "calibration": fit_calibration(scores, is_bonafide, trial_weights=trial_weights)._asdict(),
        "dev_scores": {kind: torch.from_numpy(np.sort(values)).float() for kind, values in kinds.items()},
    }


def evaluate_weights(config: Config, data: RunData, folder: Path, device: torch.device, processes: Processes) -> None:
    """Score eval with `config.model_path` and report it in `folder` (main.py --eval). Raises UserError."""
    if not config.model_path:
        raise UserError("--eval needs weights", "model_path in the config, or --eval_model_weights", "none")
    data.pack()
    set_precision("fp32", device)
    detector = Detector(TorchEngine(load_initial(config, config.model_path), device))
    bar = {"leave": False, "disable": None if processes.is_main else True}
    scores = score_partition(
        detector, data.waveforms["eval"], config, processes, lambda loader: tqdm(loader, "score eval", **bar)
    )
    if processes.is_main:
        data.report("eval", scores, folder, config.eval_output)
