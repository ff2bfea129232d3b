"""A trial, and a partition: its trials with the audio file of each.

train = open_partition(["/data/LA"], "LA", "train")    # open.py
train.trials[0]                                        # Trial("LA_T_1138215", "LA_0079", "-", "bonafide", "LA")
train.waveform(0)                                      # (n,) at 16 kHz
"""

import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from audio import reading
from audio.vocoders import vocode
from corpora import packed
from metrics.score_files import read_asv_scores, read_asv_scores_2021
from metrics.scores import BONAFIDE, SPOOF
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

    With `pack`, samples come from the pack; with `on_device` too, crops are cut from that copy of `pack.samples`.
    The last trials may be vocoded copies of others; these have no file of their own.
    """

    name: str
    trials: list[Trial]
    files: Mapping[str, Path]
    official_count: int | None = None  # trials that the published partition has
    asv: Path | None = None  # the organisers' ASV scores of these trials, if published; a folder in ASVspoof 2021
    labels: Path | None = None  # the file or folder that the keys come from
    groups: Mapping[str, np.ndarray] = field(default_factory=dict)  # further columns (N,) str: codec, subset, …
    pack: packed.Pack | None = None
    on_device: torch.Tensor | None = None  # (N,) int16
    copies: Mapping[str, Path] = field(default_factory=dict)  # utt_id of each copy and the file that it is made from
    copies_pack: packed.Pack | None = None

    def with_vocoded(self, vocoders: Sequence[str]) -> "Partition":
        """Add a spoof of each bona fide trial by each vocoder, `<utt_id>~<vocoder>`; the vocoder is its attack."""
        pairs = [(trial, vocoder) for vocoder in vocoders for trial in self.trials if trial.label == BONAFIDE]
        added = [t._replace(utt_id=f"{t.utt_id}~{name}", attack=name, key="spoof") for t, name in pairs]
        copies = {copy.utt_id: self.path(trial) for copy, (trial, _) in zip(added, pairs, strict=True)}
        return replace(self, trials=self.trials + added, copies=copies, groups={})

    def take(self, rows: np.ndarray) -> "Partition":
        """Only these trials (indices or a mask) of a partition that has neither packs nor vocoded copies."""
        trials = [self.trials[row] for row in np.arange(len(self.trials))[rows]]
        files = {trial.utt_id: self.path(trial) for trial in trials}
        groups = {name: column[rows] for name, column in self.groups.items()}
        return replace(self, trials=trials, files=files, groups=groups, official_count=None)

    def is_bonafide(self) -> np.ndarray:
        """(N,) bool."""
        return np.array([trial.label == BONAFIDE for trial in self.trials])

    def path(self, trial: Trial) -> Path:
        return self.files[trial.utt_id]

    def waveform(self, index: int) -> np.ndarray:
        """Trial `index`: samples (n,) at 16 kHz, int16 from a pack or a vocoder, else float32 from its file.

        Raises UserError.
        """
        utt_id, copy = self.trials[index].utt_id, index - (len(self.trials) - len(self.copies))
        if copy < 0:
            return reading.read(self.files[utt_id]) if self.pack is None else self.pack[index]
        return copy_int16(utt_id, self.copies[utt_id])[0] if self.copies_pack is None else self.copies_pack[copy]

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


def copy_int16(utt_id: str, file: Path) -> tuple[np.ndarray, bool]:
    """A vocoded copy as `packed.load` stores it: (n,) int16, by the vocoder that its utt_id ends in."""
    rng = np.random.default_rng(zlib.crc32(utt_id.encode()))
    return packed.to_int16(vocode(utt_id.rpartition("~")[2], reading.read(file), rng) * packed.FULL_SCALE), True
