"""A trial, and a partition: its trials with the audio file of each.

train = open_partition(["/data/LA"], "LA", "train")    # open.py
train.trials[0]                                        # Trial("LA_T_1138215", "LA_0079", "-", "bonafide", "LA")
train.scores(values)                                   # metrics.scores.Scores, ready to be evaluated
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from metrics.score_files import read_asv_scores, read_asv_scores_2021
from metrics.scores import BONAFIDE, SPOOF, Labels, Scores
from metrics.tandem import AsvScores

PARTITIONS = ("train", "dev", "eval")
REPORTED_SUBSET = "eval"  # the subset of ASVspoof 2021 that papers report
MAX_NAMED = 5  # a message names at most so many


class Trial(NamedTuple):
    """One utterance and its key, `bonafide` (attack `-`) or `spoof`; `source` is where it was recorded, if known."""

    utt_id: str
    speaker: str
    attack: str
    key: str
    source: str = ""

    @property
    def label(self) -> int:
        return BONAFIDE if self.key == "bonafide" else SPOOF


@dataclass(frozen=True)
class Partition:
    """Trials of one partition and the audio file of each utt_id, in the same order.

    The last trials may be vocoded copies of others; these have no file of their own. `waveforms.py` has the samples.
    """

    name: str
    trials: list[Trial]
    files: Mapping[str, Path]
    official_count: int | None = None  # trials that the published partition has
    asv: Path | None = None  # the organisers' ASV scores of these trials, if published; a folder in ASVspoof 2021
    labels: Path | None = None  # the file or folder that the keys come from
    groups: Mapping[str, np.ndarray] = field(default_factory=dict)  # further columns (N,) str: codec, subset, …
    copies: Mapping[str, Path] = field(default_factory=dict)  # utt_id of each copy and the file that it is made from
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)  # paths in the data set's folder, by the reason

    def with_vocoded(self, vocoders: Sequence[str]) -> "Partition":
        """Add a spoof of each bona fide trial by each vocoder, `<utt_id>~<vocoder>`; the vocoder is its attack."""
        pairs = [(trial, vocoder) for vocoder in vocoders for trial in self.trials if trial.label == BONAFIDE]
        added = [t._replace(utt_id=f"{t.utt_id}~{name}", attack=name, key="spoof") for t, name in pairs]
        copies = {copy.utt_id: self.path(trial) for copy, (trial, _) in zip(added, pairs, strict=True)}
        return replace(self, trials=self.trials + added, copies=copies, groups={})

    def take(self, rows: np.ndarray) -> "Partition":
        """Only these trials (indices or a mask) of a partition without vocoded copies."""
        trials = [self.trials[row] for row in np.arange(len(self.trials))[rows]]
        files = {trial.utt_id: self.path(trial) for trial in trials}
        groups = {name: column[rows] for name, column in self.groups.items()}
        return replace(self, trials=trials, files=files, groups=groups, official_count=None)

    def is_bonafide(self) -> np.ndarray:
        """(N,) bool."""
        return np.array([trial.label == BONAFIDE for trial in self.trials])

    def path(self, trial: Trial) -> Path:
        return self.files[trial.utt_id]

    def table(self) -> Labels:
        """The trials as columns; the speakers are a group if any is known."""
        columns = {name: [getattr(trial, name) for trial in self.trials] for name in ("utt_id", "attack", "speaker")}
        speakers = np.array(columns["speaker"], dtype=object)
        known = {"speaker": speakers} if (speakers != "-").any() else {}
        return Labels(columns["utt_id"], self.is_bonafide(), columns["attack"], known | dict(self.groups))

    def scores(self, values: np.ndarray) -> Scores:
        """The trials with a system's scores (N,) in the same order."""
        return self.table().scored(values)

    def missing(self) -> list[str]:
        """utt_ids without a file. Lists the folders: on a network disk, testing 71,237 files singly takes minutes."""
        there = {folder: set(os.listdir(folder)) for folder in self.folders() if folder.is_dir()}
        return [utt_id for utt_id, path in self.files.items() if path.name not in there.get(path.parent, ())]

    def folders(self) -> set[Path]:
        """The folders of its audio files."""
        return {path.parent for path in self.files.values()}

    def asv_scores(self) -> AsvScores | None:
        """The organisers' ASV scores; None if there is no such file. Raises UserError if it cannot be read."""
        if not self.asv or not self.asv.exists():
            return None
        return read_asv_scores_2021(self.asv, REPORTED_SUBSET) if self.asv.is_dir() else read_asv_scores(self.asv)
