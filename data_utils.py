"""A partition of a data set → its samples → fixed-length crops → batches.

`preflight` checks that the files are there. `open_waveforms` may keep their samples, so that no epoch decodes anything;
where samples come from never changes a batch. The file is longer than others because peers import all of it from here.

    python data_utils.py check /data/LA    # is a data set sound? (docs/check_data.md)
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from multiprocessing.queues import Queue
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from audio.augmentation import Augmentation, build_augmentation
from audio.chunks import fit
from audio.search import left_out_notes, unreadable
from audio.vocoders import vocode
from common.command import Parser, run
from common.errors import UserError
from common.escaping import printable
from common.files import content_hash, require_separate
from common.pool import leave_signals_to_parent, workers_start
from config import Config
from corpora import packed
from corpora.balance import epoch_batches
from corpora.trials import MAX_NAMED, Partition
from corpora.waveforms import Waveforms, copy_int16

UPLOAD_SAMPLES = 1 << 26  # copied to a GPU at once
PATIENCE = 1800.0  # seconds for a batch: augmentation and vocoders take a minute at most


def require_transforms(config: Config) -> None:
    """Raises UserError for an augmentation or a vocoder that is unknown, badly set or not installed."""
    build_augmentation(config.augmentation)
    for name in config.vocode:
        vocode(name, np.sin(np.arange(4096), dtype=np.float32), np.random.default_rng(0))


def preflight(partitions: list[Partition], track: str, packs: str | os.PathLike | None = None) -> list[str]:
    """Check that every partition has both classes and every trial its file.

    A partition without its audio folder may have a pack in the folder `packs`; `open_waveforms` checks that pack.
    Returns a note for each partition whose size is not the official one. Raises UserError naming what is missing.
    """
    notes = []
    for partition in partitions:
        keys = {trial.key for trial in partition.trials}
        if len(keys) < 2:
            raise UserError(f"{partition.name} has one class only", "bonafide and spoof trials", f"only {keys.pop()}")
        notes += [note for note in left_out_notes(partition.left_out) if note not in notes]
        if folders := unreadable(partition.left_out):
            raise UserError(f"{partition.name} may lack audio", "readable folders", f"no access to {_listed(folders)}")
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


def open_waveforms(partition: Partition, config: Config, device: torch.device) -> Waveforms:
    """The partition's samples, kept where `config.cache` says: not at all, mapped, in memory or on the GPU `device`.

    Vocoded copies are kept too. If the samples would leave less than half of the GPU's memory to the model, they are
    kept in memory, with a note on stderr. Raises UserError when there is no GPU, and what `packed.load` raises.
    """
    if config.cache == "off":
        return Waveforms(partition)
    if config.cache == "gpu" and device.type != "cuda":
        raise UserError("cache 'gpu' keeps the samples on the GPU", "a CUDA device", device)
    workers = min(config.num_workers, os.cpu_count() or 1)
    pack = packed.load(config.cache_path, *_pack(partition, config.track), workers)
    if config.cache == "gpu" and _has_room(device, pack.samples.nbytes, partition.name):
        return Waveforms(partition, pack, on_device=_upload(pack.samples, device))
    copies = None
    if partition.copies:
        name = f"{config.track}_{partition.name}_vocoded"
        copies = packed.load(config.cache_path, name, partition.copies, workers, copy_int16)
    return Waveforms(partition, *(each and _kept(each, config) for each in (pack, copies)))


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
    """(N,) int16 on the device, copied piece by piece: the whole may not fit the machine's memory."""
    there = torch.empty(len(samples), dtype=torch.int16, device=device)
    for first in range(0, len(samples), UPLOAD_SAMPLES):
        piece = samples[first : first + UPLOAD_SAMPLES].copy()  # torch warns about read-only arrays
        there[first : first + len(piece)] = torch.from_numpy(piece)
    return there


# ------------------------------------------------------------------------------------------------------------ batches


class Batch(NamedTuple):
    """Crops (B, length) float32, labels (B,) int64, and for each trial the error if its file cannot be read."""

    crops: torch.Tensor
    labels: torch.Tensor
    errors: list[UserError | None]


class SpeechDataset(Dataset):
    """Batches of a partition by trial indices.

    In training, `seeds` = (seed, epoch): each trial gets a random crop and augmentation that follow from these and the
    trial's index alone, whichever process makes them. Without `seeds`, a trial gives its first `length` samples.
    """

    def __init__(
        self,
        waveforms: Waveforms,
        length: int,
        seeds: tuple[int, int] | None = None,
        augmentation: Augmentation | None = None,
    ):
        self.waveforms, self.length, self.seeds, self.augmentation = waveforms, length, seeds, augmentation

    def __len__(self) -> int:
        return len(self.waveforms)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        cut = self._cut if self.waveforms.on_device is None else self._cut_on_device
        crops, errors = cut(indices)
        labels = [self.waveforms.partition.trials[index].label for index in indices]
        return Batch(crops, torch.tensor(labels, device=crops.device), errors)

    @property
    def computes(self) -> bool:
        """Whether a batch takes more than reading and cropping."""
        return self.augmentation is not None or bool(self.waveforms.partition.copies)

    def _rng(self, index: int) -> np.random.Generator | None:
        return None if self.seeds is None else np.random.default_rng((*self.seeds, index))

    def _cut(self, indices: Sequence[int]) -> tuple[torch.Tensor, list[UserError | None]]:
        make = self._computed if self.computes else self._crop
        crops, errors = np.empty((len(indices), self.length), np.float32), [None] * len(indices)
        for row, index in enumerate(indices):
            try:
                crops[row] = make(index)
            except UserError as error:  # raised in a worker process, it would arrive wrapped in a traceback
                errors[row] = error
        if self.waveforms.pack is not None and not self.computes:
            crops *= np.float32(1 / packed.FULL_SCALE)
        return torch.from_numpy(crops), errors

    def _crop(self, index: int) -> np.ndarray:
        """(length,) in the stored scale."""
        return fit(self.waveforms[index], self.length, self._rng(index))

    def _computed(self, index: int) -> np.ndarray:
        """(length,) float32 after any augmentation."""
        rng, x = self._rng(index), self.waveforms[index]
        if x.dtype == np.int16:
            x = x / np.float32(packed.FULL_SCALE)
        x = self.augmentation.whole(x, rng) if self.augmentation else x
        x = fit(x, self.length, rng)
        return self.augmentation.crop(x, rng) if self.augmentation else x

    def _cut_on_device(self, indices: Sequence[int]) -> tuple[torch.Tensor, list[None]]:
        samples, pack = self.waveforms.on_device, self.waveforms.pack
        longest = np.maximum(pack.lengths[indices], self.length).tolist()  # shorter audio is repeated
        firsts = [
            fit(range(count), self.length, self._rng(index))[0] for count, index in zip(longest, indices, strict=True)
        ]
        columns = np.stack([pack.starts[indices], firsts, pack.lengths[indices]])[..., None]
        starts, firsts, lengths = torch.from_numpy(columns).to(samples.device)  # each (B, 1)
        places = starts + (firsts + torch.arange(self.length, device=samples.device)) % lengths  # (B, length)
        return samples[places].float() / packed.FULL_SCALE, [None] * len(indices)


class HashedDataset(SpeechDataset):
    """Batches with the SHA-256 of each trial's file, taken before it is read: a change meanwhile shows later."""

    def __getitems__(self, indices: Sequence[int]) -> tuple[Batch, list[str | None]]:
        partition = self.waveforms.partition
        hashes = [content_hash(partition.path(partition.trials[index])) for index in indices]
        return super().__getitems__(indices), hashes


class Loader(DataLoader):
    """A DataLoader that leaves torch's global generator alone and raises the UserErrors of its dataset unchanged."""

    def __init__(self, dataset: SpeechDataset, num_workers: int, batches: Sequence[Sequence[int]], **options):
        waveforms = dataset.waveforms
        # Cropping a batch from a pack takes less time than sending it here from another process.
        pays = waveforms.pack is None or dataset.computes
        workers = min(num_workers, os.cpu_count() or 1, len(dataset)) if pays else 0
        super().__init__(
            dataset,
            batch_sampler=batches,
            num_workers=workers,
            worker_init_fn=_start_worker,
            generator=torch.Generator().manual_seed(0),
            pin_memory=torch.cuda.is_available() and waveforms.on_device is None,
            timeout=PATIENCE if workers else 0,
            **{"collate_fn": _whole, **options},
        )

    def __iter__(self):
        batches = self._batches()
        try:
            for batch in batches:
                if isinstance(batch, UserError):
                    raise batch
                yield batch
        except RuntimeError as error:
            if not str(error).startswith("DataLoader timed out"):
                raise
            for worker in batches._workers:  # or torch waits for those that hang
                worker.kill()
            raise UserError("a worker process hangs", f"a batch within {PATIENCE:g} s", "none") from error
        finally:
            del batches  # the traceback of an error would keep the workers waiting

    def _batches(self) -> Iterator:
        with workers_start():
            return super().__iter__()


def _start_worker(number: int) -> None:
    """Send tensors through the pipe: shared memory fails where /dev/shm is small (64 MB in Docker) or /tmp is not."""
    leave_signals_to_parent(number)
    ForkingPickler.register(torch.Tensor, lambda tensor: (torch.from_numpy, (tensor.numpy(),)))
    Queue._on_queue_feeder_error = lambda *_: os._exit(1)  # the parent would wait for ever for what was not sent
    Queue._finalize_join = staticmethod(lambda thread: None)  # a killed parent never reads what is left to send


def _whole(batch: Batch) -> tuple[torch.Tensor, torch.Tensor] | UserError:
    return next(filter(None, batch.errors), batch[:2])


def _readable(hashed: tuple[Batch, list[str | None]]) -> tuple[torch.Tensor, list[UserError | None], list[str | None]]:
    batch, hashes = hashed
    return batch.crops[[error is None for error in batch.errors]], batch.errors, hashes


class ProcessPart(NamedTuple):
    """The part of each batch or partition that this process computes: the `rank`-th of `size`."""

    rank: int = 0
    size: int = 1


ALONE = ProcessPart()


class TrainBatch(NamedTuple):
    """This process's part of a batch, as micro-batches ((m, length) float32, (m,) int64), and the whole batch's trials.

    indices: (batch_size,) of the trials in all processes' parts.
    """

    micro_batches: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    indices: np.ndarray


class TrainLoader:
    """The batches of one epoch of training, as `TrainBatch`."""

    def __init__(self, loader: Loader, batches: np.ndarray, accumulation_steps: int):
        self.loader, self.batches, self.accumulation_steps = loader, batches, accumulation_steps

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[TrainBatch]:
        micro_batches = zip(*[iter(self.loader)] * self.accumulation_steps, strict=True)
        yield from map(TrainBatch, micro_batches, self.batches)


def train_loader(
    waveforms: Waveforms, length: int, config: Config, epoch: int, skip: int = 0, part: ProcessPart = ALONE
) -> TrainLoader:
    """The batches of an epoch (`corpora.balance.epoch_batches`), of augmented random crops, without the first `skip`.

    Each batch is cut into `accumulation_steps` micro-batches and each of these into a part for every process, so
    m = batch_size / (accumulation_steps · part.size). Raises UserError if the batch size is no multiple of that.
    """
    parts = config.accumulation_steps * part.size
    if config.batch_size % parts or config.batch_size < 2 * parts:  # batch norm needs two
        what = f"batch_size is cut into {config.accumulation_steps} micro-batches for {part.size} processes"
        raise UserError(what, f"a multiple of {parts}, {2 * parts} or more", config.batch_size)
    batches = epoch_batches(waveforms.partition.trials, config, epoch)[skip:]
    own = batches.reshape(-1, part.size, config.batch_size // parts)[:, part.rank].tolist()
    augmentation = build_augmentation(config.augmentation) if config.augmentation else None
    loader = Loader(SpeechDataset(waveforms, length, (config.seed, epoch), augmentation), config.num_workers, own)
    return TrainLoader(loader, batches, config.accumulation_steps)


def score_loader(waveforms: Waveforms, length: int, config: Config, part: ProcessPart = ALONE) -> Loader:
    """Batches ((B, length) float32, (B,) int64) of trials[rank::size] in protocol order."""
    indices = range(len(waveforms))[part.rank :: part.size]
    batches = [indices[first : first + config.batch_size] for first in range(0, len(indices), config.batch_size)]
    return Loader(SpeechDataset(waveforms, length), config.num_workers, batches)


def tolerant_loader(waveforms: Waveforms, length: int, num_workers: int, batches: Sequence[Sequence[int]]) -> Loader:
    """Batches of the given trials: (B, length) float32 of the readable ones; for each an error or None; file hashes."""
    return Loader(HashedDataset(waveforms, length), num_workers, batches, collate_fn=_readable)


# ------------------------------------------------------------------------------------------------------------ command


def _downloaded(partitions: list[Partition]) -> list[Partition]:
    """Those with a folder of audio; names the others on stderr. If none has one, all, so that each file is missing."""
    there = []
    for partition in partitions:
        if any(folder.is_dir() for folder in partition.folders()):
            there.append(partition)
        else:
            folders = _listed(sorted(map(str, partition.folders())))
            print(printable(f"note: {partition.name} is not checked: there is no {folders}"), file=sys.stderr)
    return there or partitions


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
    partitions = open_all_partitions(options.path)
    read = (path for part in partitions for path in (part.labels, *part.files.values()))
    require_separate({"--json": options.json, "--figure": options.figure}, read)
    report = check.examine(_downloaded(partitions), options.num_workers)
    print(format_report(report))
    if options.json:
        write_json(report, options.json)
    if options.figure:
        write_report_figure(report, options.figure)
    return 1 if report.problems else 0


if __name__ == "__main__":
    run(main)
