"""Protocols → trials → fixed-length waveforms → loaders, for the ASVspoof2019 archive as it unpacks.

Corpus(root, track).partition(name) gives a partition's trials and files, preflight() checks that they are there, and
with_pack() keeps their samples so that no epoch decodes anything. Where samples come from never changes a batch.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

import audio
import packed
from cli import UserError
from config import Config
from score_files import BONAFIDE, SPOOF

PARTITIONS = ("train", "dev", "eval")
OFFICIAL_COUNTS = {
    "LA": {"train": 25_380, "dev": 24_844, "eval": 71_237},
    "PA": {"train": 54_000, "dev": 29_700, "eval": 134_730},
}
MAX_NAMED = 5  # missing files that an error spells out
UPLOAD_SAMPLES = 1 << 26  # that go to a GPU at once


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
    """Trials of one partition and the folder that holds their flac files, or in `files` the file of each utt_id.

    With `pack` their samples come from there; with `on_device` too, crops are cut from that copy of `pack.samples`.
    """

    name: str
    trials: list[Trial]
    folder: Path
    files: Mapping[str, Path | str] = field(default_factory=dict)
    pack: packed.Packed | None = None
    on_device: torch.Tensor | None = None  # (N,) int16

    def path(self, trial: Trial) -> Path:
        return Path(self.files.get(trial.utt_id, self.folder / f"{trial.utt_id}.flac"))

    def waveform(self, index: int) -> np.ndarray:
        """Trial `index` whole, (n,) at 16 kHz: int16 from the pack, else float32 from its file. Raises UserError."""
        return audio.read(self.path(self.trials[index])) if self.pack is None else self.pack[index]

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


def preflight(partitions: list[Partition], track: str, packs: str | os.PathLike | None = None) -> list[str]:
    """Check that every partition has both classes and every trial its file.

    A partition whose audio folder is not there may have a pack in the folder `packs`; `with_pack` says if it is sound.
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
        if packs and not partition.folder.is_dir() and packed.pack_path(packs, *_pack(partition, track)).is_file():
            continue
        missing = partition.missing()
        if missing:
            named = ", ".join(missing[:MAX_NAMED]) + (", …" if len(missing) > MAX_NAMED else "")
            expected = f"{len(partition.trials)} flac files in {partition.folder}"
            raise UserError(f"{partition.name} lacks audio", expected, f"{len(missing)} missing: {named}")
    return notes


def _pack(partition: Partition, track: str) -> tuple[str, dict[str, Path]]:
    """Name and files of its pack."""
    files = {trial.utt_id: partition.path(trial) for trial in partition.trials}
    return f"{track}_{partition.name}", files


def with_pack(partition: Partition, config: Config, device: torch.device) -> Partition:
    """The partition with its samples where `config.cache` wants them: mapped, in memory or on the GPU `device`.

    What does not leave half of the GPU's memory to the model stays in the machine's, with a note on stderr. Raises
    UserError when there is no GPU, and what `packed.load` raises.
    """
    if config.cache == "off":
        return partition
    if config.cache == "gpu" and device.type != "cuda":
        raise UserError("cache 'gpu' keeps the samples on the GPU", "a CUDA device", device)
    workers = min(config.num_workers, os.cpu_count() or 1)
    pack = packed.load(config.cache_path, *_pack(partition, config.track), workers)
    if config.cache == "gpu" and _has_room(device, pack.samples.nbytes, partition.name):
        return replace(partition, pack=pack, on_device=_upload(pack.samples, device))
    if config.cache != "mmap":
        pack = replace(pack, samples=pack.samples.copy())
    return replace(partition, pack=pack)


def _has_room(device: torch.device, count: int, name: str) -> bool:
    """Whether half of the GPU's memory stays free for the model beside `count` bytes; says so if not."""
    free, total = torch.cuda.mem_get_info(device)
    if free - count >= total / 2:
        return True
    numbers = f"{count / 1e9:.1f} GB beside {free / 1e9:.1f} GB free of {total / 1e9:.1f} GB"
    print(f"note: the GPU has no room for {name} ({numbers}): it is kept in memory", file=sys.stderr)
    return False


def _upload(samples: np.ndarray, device: torch.device) -> torch.Tensor:
    """(N,) int16 on the device, by pieces: the whole need not fit the machine's memory."""
    there = torch.empty(len(samples), dtype=torch.int16, device=device)
    for first in range(0, len(samples), UPLOAD_SAMPLES):
        piece = samples[first : first + UPLOAD_SAMPLES].copy()  # what is mapped read-only, torch warns of
        there[first : first + len(piece)] = torch.from_numpy(piece)
    return there


# ------------------------------------------------------------------------------------------------------------ batches


class Batch(NamedTuple):
    """Waveforms (B, length) float32, labels (B,) int64 and, of each file that cannot be read, the error."""

    waveforms: torch.Tensor
    labels: torch.Tensor
    errors: list[UserError | None]


class SpeechDataset(Dataset):
    """Batches of a partition by trial indices.

    With `crops` = (seed, epoch) each trial has a random crop that follows from these and its index alone, whatever
    process makes it (training); without, the first `length` samples.
    """

    def __init__(self, partition: Partition, length: int, crops: tuple[int, int] | None = None):
        self.partition, self.length, self.crops = partition, length, crops

    def __len__(self) -> int:
        return len(self.partition.trials)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        cut = self._cut if self.partition.on_device is None else self._cut_on_device
        waveforms, errors = cut(indices)
        labels = [self.partition.trials[index].label for index in indices]
        return Batch(waveforms, torch.tensor(labels, device=waveforms.device), errors)

    def _rng(self, index: int) -> np.random.Generator | None:
        return None if self.crops is None else np.random.default_rng((*self.crops, index))

    def _cut(self, indices: Sequence[int]) -> tuple[torch.Tensor, list[UserError | None]]:
        waveforms, errors = np.empty((len(indices), self.length), np.float32), [None] * len(indices)
        for row, index in enumerate(indices):
            try:
                waveforms[row] = audio.fit(self.partition.waveform(index), self.length, self._rng(index))
            except UserError as error:  # raised in a worker process it would arrive wrapped in a traceback
                errors[row] = error
        if self.partition.pack is not None:
            waveforms *= np.float32(1 / packed.FULL_SCALE)
        return torch.from_numpy(waveforms), errors

    def _cut_on_device(self, indices: Sequence[int]) -> tuple[torch.Tensor, list[None]]:
        samples, pack = self.partition.on_device, self.partition.pack
        longest = np.maximum(pack.lengths[indices], self.length).tolist()  # shorter audio is repeated
        firsts = [
            audio.fit(range(count), self.length, self._rng(index))[0]
            for count, index in zip(longest, indices, strict=True)
        ]
        columns = np.stack([pack.starts[indices], firsts, pack.lengths[indices]])[..., None]
        starts, firsts, lengths = torch.from_numpy(columns).to(samples.device)  # each (B, 1)
        places = starts + (firsts + torch.arange(self.length, device=samples.device)) % lengths  # (B, length)
        return samples[places].float() / packed.FULL_SCALE, [None] * len(indices)


class Loader(DataLoader):
    """DataLoader that leaves torch's global generator alone and raises a dataset's UserError as it was."""

    def __init__(self, dataset: SpeechDataset, num_workers: int, batches: Sequence[Sequence[int]], **options):
        partition = dataset.partition
        # To cut a batch from a pack takes less time than its way here from another process.
        workers = min(num_workers, os.cpu_count() or 1, len(dataset)) if partition.pack is None else 0
        super().__init__(
            dataset,
            batch_sampler=batches,
            num_workers=workers,
            worker_init_fn=packed.leave_signals_to_parent,
            generator=torch.Generator().manual_seed(0),
            pin_memory=torch.cuda.is_available() and partition.on_device is None,
            **{"collate_fn": _whole, **options},
        )

    def __iter__(self):
        for batch in super().__iter__():
            if isinstance(batch, UserError):
                raise batch
            yield batch


def _whole(batch: Batch) -> tuple[torch.Tensor, torch.Tensor] | UserError:
    return next(filter(None, batch.errors), batch[:2])


def _readable(batch: Batch) -> tuple[torch.Tensor, list[UserError | None]]:
    return batch.waveforms[[error is None for error in batch.errors]], batch.errors


class Share(NamedTuple):
    """Which one of `size` processes that train together this is."""

    rank: int = 0
    size: int = 1


ALONE = Share()


@lru_cache(maxsize=2)
def _epoch_order(size: int, seed: int, epoch: int) -> np.ndarray:
    order = np.random.default_rng((seed, epoch)).permutation(size)
    order.flags.writeable = False
    return order


def batch_indices(size: int, config: Config, epoch: int, step: int) -> np.ndarray:
    """Trial indices (batch_size,) of a batch, all processes' and micro-batches' together, of `size` training trials."""
    return _epoch_order(size, config.seed, epoch)[step * config.batch_size : (step + 1) * config.batch_size]


def train_loader(
    partition: Partition, length: int, config: Config, epoch: int, skip: int = 0, share: Share = ALONE
) -> Loader:
    """Micro-batches ((m, length) float32, (m,) int64) of random crops in an order that seed and epoch alone decide.

    Each batch is cut into `accumulation_steps` micro-batches and each of these into a part for every process, so
    m = batch_size / (accumulation_steps · share.size). The first `skip` utterances, a multiple of the batch size, are
    left out, and an incomplete last batch too. Raises UserError when the batch size cannot be cut so.
    """
    parts = config.accumulation_steps * share.size
    if config.batch_size % parts or config.batch_size < 2 * parts:  # batch norm needs two
        what = f"batch_size is cut into {config.accumulation_steps} micro-batches for {share.size} processes"
        raise UserError(what, f"a multiple of {parts}, {2 * parts} or more", config.batch_size)
    count = len(partition.trials) // config.batch_size * config.batch_size
    order = _epoch_order(len(partition.trials), config.seed, epoch)[skip:count]
    batches = order.reshape(-1, share.size, config.batch_size // parts)[:, share.rank].tolist()
    return Loader(SpeechDataset(partition, length, (config.seed, epoch)), config.num_workers, batches)


def score_loader(partition: Partition, length: int, config: Config, share: Share = ALONE) -> Loader:
    """Batches ((B, length) float32, (B,) int64) of trials[rank::size] in protocol order."""
    indices = range(len(partition.trials))[share.rank :: share.size]
    batches = [indices[first : first + config.batch_size] for first in range(0, len(indices), config.batch_size)]
    return Loader(SpeechDataset(partition, length), config.num_workers, batches)


def tolerant_loader(partition: Partition, length: int, num_workers: int, batches: Sequence[Sequence[int]]) -> Loader:
    """Batches of the given trial indices: ((B, length) float32 of what can be read, a UserError or None for each)."""
    return Loader(SpeechDataset(partition, length), num_workers, batches, collate_fn=_readable)


# -------------------------------------------------------------------------------------------------------------- check


def check_data(partitions: Sequence[Partition], track: str, num_workers: int) -> int:
    """Decode every file; print what each partition holds, and then each problem: a file that cannot be read and why,
    speakers in two partitions, which ASVspoof2019 keeps apart. Returns the number of problems.
    """
    problems = []
    for partition in partitions:
        trials, seconds = partition.trials, 0.0
        paths = [partition.path(trial) for trial in trials]
        with closing(packed.in_order(_seconds, paths, min(num_workers, os.cpu_count() or 1))) as decoded:
            for outcome in tqdm(decoded, f"check {partition.name}", len(paths), leave=False, disable=None):
                if isinstance(outcome, str):
                    problems.append(f"{partition.name}: {outcome}")
                else:
                    seconds += outcome
        count, official = len(trials), OFFICIAL_COUNTS[track][partition.name]
        bonafide, speakers = sum(t.label == BONAFIDE for t in trials), len({t.speaker for t in trials})
        size = "as the official" if count == official else f"the official {track} has {official:,}"
        numbers = f"{bonafide:,} bona fide, {count - bonafide:,} spoof, {speakers} speakers, {seconds / 3600:.2f} hours"
        print(f"{partition.name}: {count:,} trials ({size}), {numbers}")
    for one, other in combinations(partitions, 2):
        shared = {trial.speaker for trial in one.trials} & {trial.speaker for trial in other.trials}
        if shared:
            problems.append(f"{one.name} and {other.name} share speakers: {', '.join(sorted(shared))}")
    for problem in problems:
        print(problem)
    return len(problems)


def _seconds(path: Path) -> float | str:
    """Of the whole file, or why it cannot be read."""
    try:
        return len(audio.read(path)) / audio.SAMPLE_RATE
    except UserError as error:
        return str(error)
