"""The data of benchmarks/train.py: as many utterances as ASVspoof2019 LA, of noise.

50,224 utterances are 5.5 GB of samples. Encoding all of them as flac and decoding them into packs would take minutes.
So the packs are written directly, in the format of corpora/packed.py, and only the files that plain rows read are made.
"""

import argparse
import importlib.util
import json
import os
import sys
import zlib
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from audio import SAMPLE_RATE
from common.pool import map_in_order
from config import Config
from corpora import packed
from corpora.asvspoof import ASVspoof2019
from corpora.balance import epoch_batches

SUFFIX = ".flac" if importlib.util.find_spec("soundfile") else ".pcm"
NOISE = 3000 * np.random.default_rng(0).standard_normal(1 << 20, dtype=np.float32)


def lengths(size: int) -> list[int]:
    """Samples of each utterance: 0.7 to 13 s, mean 3.4 s."""
    seconds = np.random.default_rng(1).lognormal(np.log(3.4) - 0.42**2 / 2, 0.42, size).clip(0.7, 13)
    return (SAMPLE_RATE * seconds).astype(int).tolist()


def utterance(index: int, length: int) -> np.ndarray:
    """(length,) int16: noise with four syllables a second."""
    first = index * 7919 % (len(NOISE) - length)
    envelope = np.abs(np.sin(np.arange(length, dtype=np.float32) * np.float32(np.pi / 4000) + np.float32(index)))
    return (NOISE[first : first + length] * envelope).astype("<i2")


def make_data(args: argparse.Namespace, config: Config, steps: int) -> None:
    """Write protocols, packs and the files that plain rows read in so many steps; existing packs and files are kept."""
    epochs = -(-steps // (args.train // args.batch_size))
    drawn = np.concatenate([epoch_batches(range(args.train), config, epoch) for epoch in range(epochs)])[:steps]
    read = {"train": np.unique(drawn), "dev": range(min(args.dev, args.batch_size * max(args.steps, args.warm_up)))}
    protocols = Path(config.database_path[0]) / "ASVspoof2019_LA_cm_protocols"
    for folder in (protocols, args.folder / "packed", args.folder / "audio"):
        folder.mkdir(parents=True, exist_ok=True)
    for name, size in (("train", args.train), ("dev", args.dev)):
        utt_ids = [f"LA_{name[0].upper()}_{1_000_000 + i}" for i in range(size)]
        lines = [f"LA_0001 {u} - {'A01 spoof' if i % 10 else '- bonafide'}\n" for i, u in enumerate(utt_ids)]
        ASVspoof2019(config.database_path[0], "LA").protocol(name).write_text("".join(lines))
        make_pack(packed.pack_path(args.folder / "packed", f"LA_{name}", utt_ids), utt_ids)
        every = lengths(size)
        files = [(args.folder / "audio" / f"{utt_ids[i]}{SUFFIX}", i, every[i]) for i in read[name]]
        list(map_in_order(make_file, [file for file in files if not file[0].exists()], os.cpu_count() or 1))


def make_pack(path: Path, utt_ids: list[str]) -> None:
    """Write what `packed.load` would build; it ignores the stamps of files where there is no audio."""
    index, every, checksums = path.with_suffix(".json"), lengths(len(utt_ids)), []
    if index.exists():
        return
    with path.open("wb") as file:
        for number, length in enumerate(every):
            samples = utterance(number, length)
            file.write(samples)
            checksums.append(zlib.crc32(samples))
    stamps = {"file_bytes": [0] * len(every), "file_mtime_ns": [0] * len(every)}
    fields = {"format": packed.FORMAT, "utt_id": utt_ids, "samples": every, "crc32": checksums, "rounded": 0}
    index.write_text(json.dumps(fields | stamps))


def make_file(file: tuple[Path, int, int]) -> None:
    """Write one audio file, whole or not at all."""
    path, index, length = file
    temporary = path.with_name(f".{path.name}")
    if path.suffix == ".pcm":
        utterance(index, length).tofile(temporary)
    else:
        import soundfile

        soundfile.write(temporary, utterance(index, length), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    temporary.replace(path)


def read_file(path: Path) -> np.ndarray:
    """(n,) float64, as the official code reads it."""
    if path.suffix == ".pcm":
        return np.fromfile(path, "<i2") / packed.FULL_SCALE
    import soundfile

    return soundfile.read(path)[0]
