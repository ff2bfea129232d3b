"""A partition of a data set → fixed-length waveforms → loaders.

preflight() checks that its files are there, and with_pack() keeps their samples so that no epoch decodes anything.
Where samples come from never changes a batch.

    python data_utils.py check /data/LA    # is a data set sound? (docs/check_data.md)
"""

import os
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from audio.augmentation import Augmentation, build_augmentation
from audio.chunks import fit
from audio.vocoders import vocode
from common.command import Parser, run
from common.errors import UserError
from common.pool import leave_signals_to_parent
from config import Config
from corpora import packed
from corpora.trials import MAX_NAMED, Partition, Trial, copy_int16

UPLOAD_SAMPLES = 1 << 26  # that go to a GPU at once


def require_transforms(config: Config) -> None:
    """Raises UserError for an augmentation or a vocoder that is unknown, badly set or not installed."""
    build_augmentation(config.augmentation)
    for name in config.vocode:
        vocode(name, np.sin(np.arange(4096), dtype=np.float32), np.random.default_rng(0))


def preflight(partitions: list[Partition], track: str, packs: str | os.PathLike | None = None) -> list[str]:
    """Check that every partition has both classes and every trial its file.

    A partition whose audio folder is not there may have a pack in the folder `packs`; `with_pack` says if it is sound.
    Returns a note for each partition whose size is not the official one. Raises UserError naming what is missing.
    """
    notes = []
    for partition in partitions:
        keys = {trial.key for trial in partition.trials}
        if len(keys) < 2:
            raise UserError(f"{partition.name} has one class only", "bonafide and spoof trials", f"only {keys.pop()}")
        count, official = len(partition.trials), partition.official_count
        if official and count != official:
            notes.append(f"{partition.name} has {count:,} trials, the official partition has {official:,}")
    for partition in partitions:
        there = any(folder.is_dir() for folder in partition.folders())
        if packs and not there and packed.pack_path(packs, *_pack(partition, track)).is_file():
            continue
        missing = partition.missing()
        if missing:
            expected = f"{len(partition.trials)} files in {_listed(sorted(map(str, partition.folders())))}"
            raise UserError(f"{partition.name} lacks audio", expected, f"{len(missing)} missing: {_listed(missing)}")
    return notes


def _listed(names: list[str]) -> str:
    return ", ".join(names[:MAX_NAMED]) + (", …" if len(names) > MAX_NAMED else "")


def _pack(partition: Partition, track: str) -> tuple[str, Mapping[str, Path]]:
    """Name and files of its pack."""
    return f"{track}_{partition.name}", partition.files


def with_pack(partition: Partition, config: Config, device: torch.device) -> Partition:
    """The partition with its samples where `config.cache` wants them: mapped, in memory or on the GPU `device`.

    Vocoded copies are made once then, too. What does not leave half of the GPU's memory to the model stays in the
    machine's, with a note on stderr. Raises UserError when there is no GPU, and what `packed.load` raises.
    """
    if config.cache == "off":
        return partition
    if config.cache == "gpu" and device.type != "cuda":
        raise UserError("cache 'gpu' keeps the samples on the GPU", "a CUDA device", device)
    workers = min(config.num_workers, os.cpu_count() or 1)
    pack = packed.load(config.cache_path, *_pack(partition, config.track), workers)
    if config.cache == "gpu" and _has_room(device, pack.samples.nbytes, partition.name):
        return replace(partition, pack=pack, on_device=_upload(pack.samples, device))
    copies = None
    if partition.copies:
        name = f"{config.track}_{partition.name}_vocoded"
        copies = packed.load(config.cache_path, name, partition.copies, workers, copy_int16)
    packs = [each and _kept(each, config) for each in (pack, copies)]
    return replace(partition, pack=packs[0], copies_pack=packs[1])


def _kept(pack: packed.Pack, config: Config) -> packed.Pack:
    return pack if config.cache == "mmap" else replace(pack, samples=pack.samples.copy())


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

    With `crops` = (seed, epoch) each trial has a random crop, and what `augmentation` makes of it, that follow from
    these and its index alone, whatever process makes it (training); without, the first `length` samples.
    """

    def __init__(
        self,
        partition: Partition,
        length: int,
        crops: tuple[int, int] | None = None,
        augmentation: Augmentation | None = None,
    ):
        self.partition, self.length, self.crops, self.augmentation = partition, length, crops, augmentation

    def __len__(self) -> int:
        return len(self.partition.trials)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        cut = self._cut if self.partition.on_device is None else self._cut_on_device
        waveforms, errors = cut(indices)
        labels = [self.partition.trials[index].label for index in indices]
        return Batch(waveforms, torch.tensor(labels, device=waveforms.device), errors)

    @property
    def computes(self) -> bool:
        """Whether a batch takes more than reading and cutting."""
        return self.augmentation is not None or bool(self.partition.copies)

    def _rng(self, index: int) -> np.random.Generator | None:
        return None if self.crops is None else np.random.default_rng((*self.crops, index))

    def _cut(self, indices: Sequence[int]) -> tuple[torch.Tensor, list[UserError | None]]:
        make = self._computed if self.computes else self._crop
        waveforms, errors = np.empty((len(indices), self.length), np.float32), [None] * len(indices)
        for row, index in enumerate(indices):
            try:
                waveforms[row] = make(index)
            except UserError as error:  # raised in a worker process it would arrive wrapped in a traceback
                errors[row] = error
        if self.partition.pack is not None and not self.computes:
            waveforms *= np.float32(1 / packed.FULL_SCALE)
        return torch.from_numpy(waveforms), errors

    def _crop(self, index: int) -> np.ndarray:
        """(length,) as they are stored."""
        return fit(self.partition.waveform(index), self.length, self._rng(index))

    def _computed(self, index: int) -> np.ndarray:
        """(length,) float32 after the augmentation, if there is any."""
        rng, x = self._rng(index), self.partition.waveform(index)
        if x.dtype == np.int16:
            x = x / np.float32(packed.FULL_SCALE)
        x = self.augmentation.whole(x, rng) if self.augmentation else x
        x = fit(x, self.length, rng)
        return self.augmentation.crop(x, rng) if self.augmentation else x

    def _cut_on_device(self, indices: Sequence[int]) -> tuple[torch.Tensor, list[None]]:
        samples, pack = self.partition.on_device, self.partition.pack
        longest = np.maximum(pack.lengths[indices], self.length).tolist()  # shorter audio is repeated
        firsts = [
            fit(range(count), self.length, self._rng(index))[0] for count, index in zip(longest, indices, strict=True)
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
        pays = partition.pack is None or dataset.computes
        workers = min(num_workers, os.cpu_count() or 1, len(dataset)) if pays else 0
        super().__init__(
            dataset,
            batch_sampler=batches,
            num_workers=workers,
            worker_init_fn=leave_signals_to_parent,
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


class ProcessPart(NamedTuple):
    """The part of each batch or partition that this process computes: the `rank`-th of `size`."""

    rank: int = 0
    size: int = 1


ALONE = ProcessPart()


class Order:
    """Which training trials are in each batch of each epoch: seed and epoch alone decide.

    An epoch has as many as there are trials: each once, or, with `config.balance`, as many of each group. The groups'
    shares are equal at each level of nesting: [key, attack] has half bona fide, and all attacks alike in the other.
    """

    def __init__(self, trials: Sequence[Trial], config: Config):
        self.size, self.batch_size, self.seed = len(trials), config.batch_size, config.seed
        self.groups = _groups(trials, config.balance) if config.balance else None
        self.epoch = lru_cache(maxsize=2)(self._epoch)

    def _epoch(self, epoch: int) -> np.ndarray:
        """Trial indices (N,) in their order."""
        rng = np.random.default_rng((self.seed, epoch))
        if self.groups is None:
            return rng.permutation(self.size)
        shares = np.array([share for share, _ in self.groups])
        edges = np.floor(np.cumsum([0.0, *shares]) * self.size + rng.random()).astype(int)  # rounds fairly over epochs
        counts = np.diff(np.append(edges[:-1], edges[0] + self.size))
        drawn = [_repeated(members, count, rng) for (_, members), count in zip(self.groups, counts, strict=True)]
        return rng.permutation(np.concatenate(drawn))

    def batch(self, epoch: int, step: int) -> np.ndarray:
        """Trial indices (batch_size,) of a batch, all processes' and micro-batches' together."""
        return self.epoch(epoch)[step * self.batch_size : (step + 1) * self.batch_size]


def balance_weights(trials: Sequence[Trial], balance: Sequence[str]) -> np.ndarray:
    """(N,) weight of each trial when every group of `config.balance` weighs the same; the mean is 1."""
    weights = np.empty(len(trials))
    for fraction, members in _groups(trials, balance):
        weights[members] = fraction * len(trials) / len(members)
    return weights


def _groups(trials: Sequence[Trial], balance: Sequence[str]) -> list[tuple[float, list[int]]]:
    return _nested(range(len(trials)), [[getattr(trial, name) for name in balance] for trial in trials])


def _nested(members: Sequence[int], columns: list[list[str]], share: float = 1.0) -> list[tuple[float, list[int]]]:
    """(share, members) of each group, by the first column, then within each by the next."""
    groups = defaultdict(list)
    for member in members:
        groups[tuple(columns[member][:1])].append(member)
    if groups.keys() <= {()}:
        return [(share, list(members))]
    rest = {member: columns[member][1:] for member in members}
    return [part for own in groups.values() for part in _nested(own, rest, share / len(groups))]


def _repeated(members: list[int], count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` of the members (count,), none a second time before all have been."""
    rounds = [rng.permutation(members) for _ in range(-(-count // len(members)))]
    return np.concatenate([*rounds, np.empty(0, int)])[:count].astype(int)


def train_loader(
    partition: Partition, length: int, config: Config, epoch: int, skip: int = 0, part: ProcessPart = ALONE
) -> Loader:
    """Micro-batches ((m, length) float32, (m,) int64) of augmented random crops, in the `Order` of the epoch.

    Each batch is cut into `accumulation_steps` micro-batches and each of these into a part for every process, so
    m = batch_size / (accumulation_steps · part.size). The first `skip` utterances, a multiple of the batch size, are
    left out, and an incomplete last batch too. Raises UserError when the batch size cannot be cut so.
    """
    parts = config.accumulation_steps * part.size
    if config.batch_size % parts or config.batch_size < 2 * parts:  # batch norm needs two
        what = f"batch_size is cut into {config.accumulation_steps} micro-batches for {part.size} processes"
        raise UserError(what, f"a multiple of {parts}, {2 * parts} or more", config.batch_size)
    count = len(partition.trials) // config.batch_size * config.batch_size
    order = Order(partition.trials, config).epoch(epoch)[skip:count]
    batches = order.reshape(-1, part.size, config.batch_size // parts)[:, part.rank].tolist()
    augmentation = build_augmentation(config.augmentation) if config.augmentation else None
    return Loader(SpeechDataset(partition, length, (config.seed, epoch), augmentation), config.num_workers, batches)


def score_loader(partition: Partition, length: int, config: Config, part: ProcessPart = ALONE) -> Loader:
    """Batches ((B, length) float32, (B,) int64) of trials[rank::size] in protocol order."""
    indices = range(len(partition.trials))[part.rank :: part.size]
    batches = [indices[first : first + config.batch_size] for first in range(0, len(indices), config.batch_size)]
    return Loader(SpeechDataset(partition, length), config.num_workers, batches)


def tolerant_loader(partition: Partition, length: int, num_workers: int, batches: Sequence[Sequence[int]]) -> Loader:
    """Batches of the given trial indices: ((B, length) float32 of what can be read, a UserError or None for each)."""
    return Loader(SpeechDataset(partition, length), num_workers, batches, collate_fn=_readable)


# ------------------------------------------------------------------------------------------------------------ command


def main() -> int:
    """`check`: print what a check of data sets finds; exit code 1 if there are problems."""
    from corpora import check
    from corpora.check_report import format_report, write_json, write_report_figure
    from corpora.open import open_all_partitions

    parser = Parser(description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("check", description=check.__doc__, help="is a data set sound?")
    command.add_argument("path", nargs="+", metavar="PATH", help="data sets, each KIND:PATH or an ASVspoof 2019 folder")
    command.add_argument("--json", metavar="FILE", help="also write all findings, with every file's name")
    command.add_argument("--figure", metavar="FILE", help="also draw counts, durations and cues (.png, .pdf or .svg)")
    cores = os.cpu_count() or 1
    command.add_argument("--num_workers", type=int, default=cores, help="processes (default: %(default)s)")
    options = parser.parse_args()
    if options.figure and Path(options.figure).suffix not in (".png", ".pdf", ".svg"):
        raise UserError("--figure", "a name that ends in .png, .pdf or .svg", options.figure)
    if options.num_workers < 0:
        raise UserError("--num_workers", "0 or more", options.num_workers)
    report = check.examine(open_all_partitions(options.path), options.num_workers)
    print(format_report(report))
    if options.json:
        write_json(report, options.json)
    if options.figure:
        write_report_figure(report, options.figure)
    return 1 if report.problems else 0


if __name__ == "__main__":
    run(main)
