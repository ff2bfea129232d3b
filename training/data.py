"""The data of a run: its checked partitions, and the metrics and reports of scores on them."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from common.files import write_text
from config import Config
from corpora.open import open_data_set, open_eval_sets, open_partition
from corpora.trials import Partition
from corpora.waveforms import Waveforms
from data_utils import open_waveforms, preflight, require_transforms
from metrics.evaluate import evaluate
from metrics.score_files import read_asv_scores, write_scores
from metrics.tables import format_report
from metrics.tandem import AsvScores


class RunData:
    """The partitions `names` of the configured data sets, checked; nothing is decoded before `pack()`.

    partitions: by name; with "train" also those of `config.eval_sets`, whose names are in `eval_sets`.
    asv: the ASV scores of each partition that has any. notes: what the user should know. Raises UserError.
    """

    def __init__(self, config: Config, names: Iterable[str], device: torch.device):
        require_transforms(config)
        self.config, self.device = config, device
        partitions = [open_partition(config.database_path, config.track, name) for name in names]
        if config.asv_score_path:
            path = open_data_set(config.database_path[0], config.track).root / config.asv_score_path
            partitions = [replace(one, asv=path) if one.name == "eval" else one for one in partitions]
        further = open_eval_sets(config.eval_sets, config.track) if "train" in names else []
        self.eval_sets = [partition.name for partition in further]
        packs = None if config.cache == "off" else config.cache_path
        self.notes = preflight(partitions + further, config.track, packs)
        self.asv: dict[str, AsvScores] = {}
        for one in partitions + further:
            self._read_asv_scores(one)
        vocoded = [one.with_vocoded(config.vocode) if one.name == "train" else one for one in partitions]
        self.partitions = {one.name: one for one in vocoded + further}
        self.waveforms: dict[str, Waveforms] = {}  # by name, after `pack`

    def _read_asv_scores(self, partition: Partition) -> None:
        """A configured file must be there; where the published one is missing, min t-DCF is not computed."""
        if partition.name == "eval" and self.config.asv_score_path:
            self.asv["eval"] = read_asv_scores(partition.asv)
        elif partition.name != "train" and (scores := partition.asv_scores()):
            self.asv[partition.name] = scores
        elif partition.name in ("dev", "eval"):
            at = f" at {partition.asv}" if partition.asv else ""
            self.notes.append(f"no ASV scores{at}: min t-DCF of {partition.name} is not computed")

    def pack(self) -> None:
        """Put the samples where `cache` says, which may take minutes. Raises UserError, see `open_waveforms`."""
        config = self.config
        rarely_read = config if config.cache == "off" else replace(config, cache="mmap")  # keeps memory for the rest
        for name, one in self.partitions.items():
            if name not in self.waveforms:
                kept = rarely_read if name in self.eval_sets else config
                self.waveforms[name] = open_waveforms(one, kept, self.device)

    def is_bonafide(self, name: str) -> np.ndarray:
        """(N,) bool."""
        return self.partitions[name].is_bonafide()

    def evaluate(self, name: str, scores: np.ndarray) -> dict:
        """`metrics.evaluate.evaluate` of scores (N,) in protocol order, with the ASV scores of the same partition."""
        return evaluate(self.partitions[name].scores(scores), self.asv.get(name))

    def write_scores(self, name: str, scores: np.ndarray, path: Path) -> None:
        """Write the score file of a partition, in protocol order."""
        trials = self.partitions[name].trials
        columns = ([getattr(trial, column) for trial in trials] for column in ("utt_id", "attack", "key"))
        write_scores(path, *columns, scores)

    def report(self, name: str, scores: np.ndarray, folder: Path, file: str) -> dict:
        """Write scores (N,) to scores/ and their metrics to metrics/ (JSON and text) of `folder`; print the metrics."""
        self.write_scores(name, scores, folder / "scores" / file)
        result = self.evaluate(name, scores)
        table = format_report(result, name=f"{folder.name}, {file}")
        write_text(folder / "metrics" / Path(file).with_suffix(".json"), json.dumps(result, indent=2) + "\n")
        write_text(folder / "metrics" / file, table + "\n")
        print(table, flush=True)
        return result
