"""ASVspoof 2019, 2021 and 5 as their archives unpack: protocols, key files, audio folders and published counts.

ASVspoof2019("/data/LA").partition("train")
ASVspoof2021("/data/2021", "DF").partition("eval")
ASVspoof5("/data/ASVspoof5").partition("dev")
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.errors import UserError
from common.text_files import read_lines
from corpora.data_set import DataSet, find_audio, find_first, make_partition
from corpora.trials import PARTITIONS, REPORTED_SUBSET, Partition, Trial
from metrics.protocols import read_labels

COUNTS_2019 = {
    "LA": {"train": 25_380, "dev": 24_844, "eval": 71_237},
    "PA": {"train": 54_000, "dev": 29_700, "eval": 134_730},
}
COUNTS_2021 = {"LA": {"eval": 148_176, "all": 181_566}, "DF": {"eval": 533_928, "all": 611_829}, "PA": {"all": 943_110}}

# ------------------------------------------------------------------------------------------------------------- 2019


class ASVspoof2019(DataSet):
    """ASVspoof 2019, track LA or PA, as its archive unpacks: at `root` or in its folder LA or PA."""

    def __init__(self, root: str | os.PathLike, track: str = "LA"):
        self.track = track
        super().__init__(root)

    @property
    def title(self) -> str:
        return "asvspoof2019" if self.track == "LA" else "asvspoof2019_pa"

    def find_labels(self) -> Path:
        """The folder of protocols."""
        folder = f"ASVspoof2019_{self.track}_cm_protocols"
        places = (folder, f"{self.track}/{folder}")
        return find_first(self.root, places, f"ASVspoof 2019 {self.track} protocols", Path.is_dir)

    @property
    def partitions(self) -> tuple[str, ...]:
        """Those whose protocol is there; all of them if none is, so that its name is in the error."""
        return tuple(name for name in PARTITIONS if self.protocol(name).is_file()) or PARTITIONS

    def protocol(self, partition: str) -> Path:
        ending = "trn" if partition == "train" else "trl"
        return self.labels / f"ASVspoof2019.{self.track}.cm.{partition}.{ending}.txt"

    def partition(self, name: str) -> Partition:
        self.require(name)
        protocol, unpacked = self.protocol(name), self.labels.parent
        trials = read_protocol(protocol)
        flac = unpacked / f"ASVspoof2019_{self.track}_{name}" / "flac"
        files = {trial.utt_id: flac / f"{trial.utt_id}.flac" for trial in trials}
        scores = f"ASVspoof2019.{self.track}.asv.{name}.gi.trl.scores.txt"
        asv = None if name == "train" else unpacked / f"ASVspoof2019_{self.track}_asv_scores" / scores
        return Partition(name, trials, files, COUNTS_2019[self.track][name], asv, protocol)


def read_protocol(path: str | os.PathLike) -> list[Trial]:
    """Trials in the order of a 5-column ASVspoof 2019 protocol. Raises UserError naming the bad line."""
    trials = {}
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        trial = _parse_trial(line.split(), f"{path}, line {number}")
        if trial.utt_id in trials:
            raise UserError(f"{path}, line {number}: utterance {trial.utt_id} is listed twice", "each once")
        trials[trial.utt_id] = trial
    if not trials:
        raise UserError(f"protocol {path} is empty", "at least one trial", "none")
    return list(trials.values())


def _parse_trial(columns: list[str], where: str) -> Trial:
    if len(columns) != 5:
        raise UserError(where, "5 columns (speaker utt_id - attack key)", len(columns))
    speaker, utt_id, _, attack, key = columns
    if key not in ("bonafide", "spoof"):
        raise UserError(where, "key bonafide or spoof", repr(key))
    if (attack == "-") != (key == "bonafide"):
        raise UserError(where, "attack '-' for bonafide, a name for spoof", f"{attack!r} with {key}")
    if Path(utt_id).name != utt_id:
        raise UserError(where, "an utt_id without slashes", repr(utt_id))
    source, underscore, _ = speaker.partition("_")  # LA_0079
    return Trial(utt_id, speaker, attack, key, source if underscore else "")


# ------------------------------------------------------------------------------------------------------------- 2021


class ASVspoof2021(DataSet):
    """ASVspoof 2021 LA, DF or PA with the organisers' key files; the partition `all` has the rows of every subset."""

    def __init__(self, root: str | os.PathLike, track: str = "LA"):
        self.track, self.audio = track, f"ASVspoof2021_{track}_eval"
        super().__init__(root)

    @property
    def title(self) -> str:
        return f"asvspoof2021_{self.track.lower()}"

    def find_labels(self) -> Path:
        full = f"{self.track}-keys-full/keys"
        keys = ("keys", full, f"{self.audio}/keys", "../keys", f"../{full}")
        places = [f"{place}/{self.track}/CM/trial_metadata.txt" for place in keys]
        return find_first(self.root, places, f"ASVspoof 2021 {self.track} keys")

    @cached_property
    def rows(self) -> dict[str, np.ndarray]:
        subset = self.table.group("subset")
        reported = np.flatnonzero(subset == REPORTED_SUBSET)
        return ({"eval": reported} if len(reported) else {}) | {"all": np.arange(len(subset))}

    def partition(self, name: str) -> Partition:
        asv = self.labels.parents[1] / "ASV"
        known = self.track != "PA" and (asv / "ASVTorch_Kaldi" / "score.txt").exists()  # PA's trials have other columns
        count = COUNTS_2021[self.track].get(name)
        return replace(super().partition(name), official_count=count, asv=asv if known else None)

    def files(self, utt_ids: list[str]) -> dict[str, Path]:
        places = ("flac", f"{self.audio}*/flac", f"{self.audio}*/{self.audio}/flac")
        folders = sorted(path for place in places for path in self.root.glob(place))
        return find_audio(utt_ids, folders or [self.root / self.audio / "flac"])


# ---------------------------------------------------------------------------------------------------------------- 5


class Layout5(NamedTuple):
    """Where a partition of ASVspoof 5 lies, and how many trials it has."""

    protocol: str
    audio: str
    parts: str  # pattern of its audio folders, if each part of the archive is unpacked by itself
    count: int


LAYOUT_5 = {
    "train": Layout5("ASVspoof5.train.tsv", "flac_T", "flac_T*", 182_357),
    "dev": Layout5("ASVspoof5.dev.track_1.tsv", "flac_D", "flac_D*", 140_950),
    "eval": Layout5("ASVspoof5.eval.track_1.tsv", "flac_E_eval", "flac_E*", 680_774),
}


class ASVspoof5(DataSet):
    """ASVspoof 5, track 1. Each part of its archive may be unpacked by itself: flac_T_aa/flac_T/."""

    title = "asvspoof5"

    @property
    def partitions(self) -> tuple[str, ...]:
        """Those whose protocol is there."""
        return tuple(name for name, layout in LAYOUT_5.items() if self._there(layout))

    def find_labels(self) -> Path:
        """The protocol of the first partition that has one."""
        return self._protocol([layout.protocol for layout in LAYOUT_5.values()])

    def _there(self, layout: Layout5) -> bool:
        return any(path.is_file() for path in self._places([layout.protocol]))

    def _places(self, names: Sequence[str]) -> list[Path]:
        return [self.root / folder / name for name in names for folder in ("", "ASVspoof5_protocols")]

    def _protocol(self, names: Sequence[str]) -> Path:
        places = [str(path.relative_to(self.root)) for path in self._places(names)]
        return find_first(self.root, places, "ASVspoof 5 protocol")

    def partition(self, name: str) -> Partition:
        self.require(name)
        layout = LAYOUT_5[name]
        protocol = self._protocol([layout.protocol])
        table = read_labels(protocol)
        folders = sorted(path for path in self.root.glob(layout.parts) if path.is_dir())
        files = find_audio(table.utt_id.tolist(), folders or [self.root / layout.audio])
        return make_partition(name, table, files, protocol, official_count=layout.count)
