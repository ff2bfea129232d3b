"""Protocols → trials → fixed-length waveforms → loaders, for the ASVspoof2019 archive as it unpacks.

Corpus(root, track).partition(name) gives a partition's trials and files; preflight() checks that they are there.
"""

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

import audio
from cli import UserError
from config import Config
from score_files import BONAFIDE, SPOOF

PARTITIONS = ("train", "dev", "eval")
OFFICIAL_COUNTS = {
    "LA": {"train": 25_380, "dev": 24_844, "eval": 71_237},
    "PA": {"train": 54_000, "dev": 29_700, "eval": 134_730},
}
MAX_NAMED = 5  # missing files that an error spells out


class Trial(NamedTuple):
    """One protocol line `speaker utt_id environment attack key`; key is `bonafide` (attack `-`) or `spoof`."""

    utt_id: str
    speaker: str
    attack: str
    key: str

    @property
    def label(self) -> int:
        return BONAFIDE if self.key == "bonafide" else SPOOF


def read_protocol(path: str | os.PathLike) -> list[Trial]:
    """Trials in the order of a 5-column ASVspoof2019 protocol. Raises UserError naming the line at fault."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"cannot read protocol {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"protocol {path} is not text: {error}") from error
    trials = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        trial = _parse_trial(line.split(), f"{path}, line {number}")
        if trial.utt_id in trials:
            raise UserError(f"{path}, line {number}: utterance {trial.utt_id} stands twice", "each once")
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
    return Trial(utt_id, speaker, attack, key)


@dataclass(frozen=True)
class Partition:
    """Trials of one partition and the folder that holds their flac files, or in `files` the file of each utt_id."""

    name: str
    trials: list[Trial]
    folder: Path
    files: Mapping[str, Path | str] = field(default_factory=dict)

    def path(self, trial: Trial) -> Path:
        return Path(self.files.get(trial.utt_id, self.folder / f"{trial.utt_id}.flac"))

    def missing(self) -> list[str]:
        """utt_ids without a file; one listing of the folder, as asking 71,237 times takes minutes on a network disk."""
        there = set(os.listdir(self.folder)) if self.folder.is_dir() else set()
        return [trial.utt_id for trial in self.trials if f"{trial.utt_id}.flac" not in there]


@dataclass(frozen=True)
class Corpus:
    """ASVspoof2019 below `root` exactly as its archive unpacks; `track` is LA or PA."""

    root: Path
    track: str

    def __post_init__(self):
        object.__setattr__(self, "root", Path(self.root))
        if not self.root.is_dir():
            raise UserError(f"no data set at {self.root}", f"the unpacked {self.track} folder (see README)", "nothing")

    def protocol(self, partition: str) -> Path:
        kind = "trn" if partition == "train" else "trl"
        folder = f"ASVspoof2019_{self.track}_cm_protocols"
        return self.root / folder / f"ASVspoof2019.{self.track}.cm.{partition}.{kind}.txt"

    def asv_scores(self, partition: str) -> Path:
        """Where the archive has the organisers' ASV scores of dev or eval."""
        folder = f"ASVspoof2019_{self.track}_asv_scores"
        return self.root / folder / f"ASVspoof2019.{self.track}.asv.{partition}.gi.trl.scores.txt"

    def partition(self, name: str) -> Partition:
        trials = read_protocol(self.protocol(name))
        return Partition(name, trials, self.root / f"ASVspoof2019_{self.track}_{name}" / "flac")


def preflight(partitions: list[Partition], track: str) -> list[str]:
    """Check that every partition has both classes and every trial its file.

    Returns a note for each partition whose size is not the official one. Raises UserError naming what is missing.
    """
    notes = []
    for name, trials in ((p.name, p.trials) for p in partitions):
        keys = {trial.key for trial in trials}
        if len(keys) < 2:
            raise UserError(f"{name} has one class only", "bonafide and spoof trials", f"only {keys.pop()}")
        count, official = len(trials), OFFICIAL_COUNTS[track][name]
        if count != official:
            notes.append(f"{name} has {count:,} trials, the official ASVspoof2019 {track} has {official:,}")
    for partition in partitions:
        missing = partition.missing()
        if missing:
            named = ", ".join(missing[:MAX_NAMED]) + (", …" if len(missing) > MAX_NAMED else "")
            expected = f"{len(partition.trials)} flac files in {partition.folder}"
            raise UserError(f"{partition.name} lacks audio", expected, f"{len(missing)} missing: {named}")
    return notes


class Item(NamedTuple):
    """Where a training item stands: random choices follow from it alone, whatever worker makes it."""

    epoch: int
    index: int


class SpeechDataset(Dataset):
    """Waveforms (length,) float32 and labels of a partition.

    With `seed` each (epoch, index) has a random crop of its own (training); without, the first `length` samples.
    """

    def __init__(self, partition: Partition, length: int, seed: int | None = None):
        self.partition, self.length, self.seed = partition, length, seed

    def __len__(self) -> int:
        return len(self.partition.trials)

    def __getitem__(self, item: Item | int) -> tuple[np.ndarray, int] | UserError:
        epoch, index = item if isinstance(item, tuple) else (0, item)
        trial = self.partition.trials[index]
        rng = None if self.seed is None else np.random.default_rng((self.seed, epoch, index))
        try:
            return audio.fit(audio.read(self.partition.path(trial)), self.length, rng), trial.label
        except UserError as error:  # raised in a worker process it would arrive wrapped in a traceback
            return error


class EpochSampler(Sampler[Item]):
    """Items of one epoch in an order that (seed, epoch) alone decide; `skip` leaves out those already trained on."""

    def __init__(self, size: int, seed: int, epoch: int = 0, skip: int = 0):
        self.size, self.seed, self.epoch, self.skip = size, seed, epoch, skip

    def __len__(self) -> int:
        return self.size - self.skip

    def __iter__(self) -> Iterator[Item]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.size)
        return (Item(self.epoch, int(index)) for index in order[self.skip :])


class Loader(DataLoader):
    """DataLoader that leaves torch's global generator alone and raises a dataset's UserError as it was."""

    def __init__(self, dataset: SpeechDataset, num_workers: int, **options):
        super().__init__(
            dataset,
            num_workers=min(num_workers, os.cpu_count() or 1, len(dataset)),
            worker_init_fn=_leave_signals_to_parent,
            generator=torch.Generator().manual_seed(0),
            pin_memory=torch.cuda.is_available(),
            **{"collate_fn": _collate, **options},
        )

    def __iter__(self):
        for batch in super().__iter__():
            if isinstance(batch, UserError):
                raise batch
            yield batch


def train_loader(partition: Partition, length: int, config: Config, epoch: int, skip: int = 0) -> Loader:
    """Batches ((B, length) float32, (B,) int64) of random crops in the epoch's random order.

    The first `skip` utterances are left out, and an incomplete last batch too.
    """
    dataset = SpeechDataset(partition, length, config.seed)
    sampler = EpochSampler(len(dataset), config.seed, epoch, skip)
    return Loader(dataset, config.num_workers, batch_size=config.batch_size, sampler=sampler, drop_last=True)


def score_loader(partition: Partition, length: int, config: Config) -> Loader:
    """Batches ((B, length) float32, (B,) int64) of every trial in protocol order."""
    return Loader(SpeechDataset(partition, length), config.num_workers, batch_size=config.batch_size)


def tolerant_loader(partition: Partition, length: int, num_workers: int, batches: Sequence[Sequence[int]]) -> Loader:
    """Batches of the given trial indices: ((B, length) float32 of what can be read, a UserError or None for each)."""
    dataset = SpeechDataset(partition, length)
    return Loader(dataset, num_workers, batch_sampler=batches, collate_fn=_collate_readable)


def _collate_readable(items: list[tuple[np.ndarray, int] | UserError]) -> tuple[torch.Tensor, list[UserError | None]]:
    waveforms = [item[0] for item in items if not isinstance(item, UserError)]
    errors = [item if isinstance(item, UserError) else None for item in items]
    return torch.from_numpy(np.stack(waveforms)) if waveforms else torch.empty(0), errors


def _collate(items: list[tuple[np.ndarray, int] | UserError]) -> tuple[torch.Tensor, torch.Tensor] | UserError:
    for item in items:
        if isinstance(item, UserError):
            return item
    waveforms, labels = zip(*items, strict=True)
    return torch.from_numpy(np.stack(waveforms)), torch.tensor(labels)


def _leave_signals_to_parent(_worker: int) -> None:
    """Ctrl-C reaches the whole process group; the training process decides what it means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
