"""The parts of benchmarks/all.py about training: each function gives its rows, in a process of its own."""

import os
import sys
import tempfile
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rows import Row, times, took

if TYPE_CHECKING:
    from torch import nn

ROOT = Path(__file__).parents[1]


def precisions() -> list[str]:
    """Emulated bf16 says nothing, and takes minutes."""
    from utils import computes_bf16

    return ["fp32", "bf16"] if computes_bf16() else ["fp32"]


def visits(rounds: int, *options: str) -> dict[str, list[dict]]:
    """What benchmarks/train.py measures of the official loop and of ours, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        sys.argv = ["train.py", "--device", "cpu", "--folder", folder, *options]
        import train

        args = train.arguments()
        args.inductor = folder
        steps = args.warm_up + (2 * train.WINDOWS + 1) * args.steps
        train.make_data(args, train.row_config(args, "plain"), steps)
        found: dict[str, list[dict]] = {row: [] for row in ("plain", *precisions())}
        for _ in range(rounds):
            for row, seen in found.items():
                seen.append(train.in_process(args, "speed", row))
                if "failed" in seen[-1]:
                    raise RuntimeError(f"{row}: {seen[-1]['failed']}")
    return found


def compared(name: str, found: dict[str, list[dict]], goals: dict[str, float]) -> list[Row]:
    """Rows of training, scoring and memory. goals: the least ratios of training, by precision."""
    from roofline import median

    plain, of, rows = found["plain"], "the official loop", []
    for key in ("train", "score"):
        for row in list(found)[1:]:
            goal = goals.get(row, 0) if key == "train" else 0
            what = f"{name}, {'training' if key == 'train' else 'dev scores'}, {row}"
            rows.append(times(what, "utt/s", median(found[row], key), median(plain, key), of, goal))
    for row in list(found)[1:]:
        own, base = (max(visit["memory"][0] for visit in found[which]) / 1e9 for which in (row, "plain"))
        met = f"≥ 1: {'met' if own <= base else 'missed'}" if goals else ""
        rows.append(Row(f"{name}, memory, {row}", f"{own:.2f} GB", f"{base:.2f} GB, {of}", base / own, met))
    return rows


def aasist() -> list[Row]:
    """Batches of 4, three rounds; and how fast batches are read."""
    found = visits(3, "--batch_size", "4", "--train", "96", "--dev", "48")
    from roofline import median

    read, decoded = median(found["fp32"], "loader"), median(found["plain"], "loader")
    goals = {"fp32": 1.9, "bf16": 3.5}
    return [
        *compared("AASIST", found, goals),
        times("batches of 64,600 samples from a pack", "utt/s", read, decoded, "flac decoded each time"),
    ]


def lfcc_lcnn() -> list[Row]:
    """Batches of 24."""
    sizes = ("--batch_size", "24", "--train", "144", "--dev", "48")
    return compared("LFCC-LCNN", visits(1, "--config", str(ROOT / "config" / "LFCC_LCNN.conf"), *sizes), {})


def bundled_training() -> list[Row]:
    """The bundled detector's features of 192 files."""
    with tempfile.TemporaryDirectory() as folder:
        return features(Path(folder), 192)


def features(folder: Path, count: int) -> list[Row]:
    """Features per second, beside those of files that are decoded one after another and described in fp32."""
    import torch
    from train_data import make_data

    from config import load_config
    from corpora.asvspoof import ASVspoof2019
    from data_utils import open_waveforms
    from training.linear import pass_features

    where = {"database_path": (str(folder / "LA"),), "cache_path": str(folder / "packed"), "num_workers": 1}
    config = replace(load_config(ROOT / "config" / "Whisper-broad.conf"), **where, vocode=(), balance=(), batch_size=16)
    make_data(Namespace(folder=folder, train=count, dev=16, batch_size=16, steps=1, warm_up=1), config, count // 16)
    model = linear_layers()
    waveforms = open_waveforms(ASVspoof2019(folder / "LA", "LA").partition("train"), config, torch.device("cpu"))

    def rate(number: int, changes: dict) -> float:
        return count / clock(lambda: pass_features(model, waveforms, replace(config, **changes), number))

    plain = plain_features(model, sorted((folder / "audio").glob("LA_T*"))[: count // 2])
    whole = {precision: rate(0, {"precision": precision}) for precision in precisions()}
    best, name = precisions()[-1], "the bundled detector, features"
    crops, augmented = (rate(1, {"precision": best} | changes) for changes in ({"augmentation": ()}, {}))
    of = "decoded one by one, fp32"
    return [
        *(times(f"{name}, {precision}", "chunks/s", each, plain, of) for precision, each in whole.items()),
        times(f"{name}, {best}, augmented crops of 3 s", "crops/s", augmented, crops, "crops without augmentation"),
    ]


def linear_layers() -> "nn.Module":
    """The bundled detector without its network, as benchmarks/bundled.py fits it; its weights change no time."""
    from config import load_config
    from models import build_model

    keys = load_config(ROOT / "config" / "Whisper-broad.conf").model_config
    return build_model({key: value for key, value in keys.items() if key != "network"})


def plain_features(model, files: list[Path]) -> float:
    """Features of files per second, in batches of 16."""
    import torch
    from train_data import read_file

    from audio.chunks import fit

    def describe() -> None:
        for first in range(0, len(files), 16):
            x = np.stack([fit(read_file(file), model.nb_samp) for file in files[first : first + 16]])
            model.describe(torch.from_numpy(x.astype(np.float32)))

    model.eval()
    with torch.inference_mode():
        return len(files) / clock(describe)


def bundled_fit(count: int = 3000) -> list[Row]:
    """One logistic regression of the output layer, beside scikit-learn's with the same penalty."""
    import torch
    from sklearn.linear_model import LogisticRegression

    from training.linear import logistic_regression

    size = linear_layers().standardise.num_features
    rng, ridge, is_bonafide = np.random.default_rng(0), 0.06, np.arange(count) % 2 == 0
    x = rng.standard_normal((count, size), dtype=np.float32) + 0.02 * is_bonafide[:, None].astype(np.float32)
    ones, sources = np.ones(count), (np.arange(count) // 2 % 40).astype(str)
    ours = clock(lambda: logistic_regression(torch.from_numpy(x), is_bonafide, ones, ridge, sources))
    model = LogisticRegression(C=1 / (2 * ridge * count), max_iter=200, tol=1e-7)
    theirs = clock(lambda: model.fit(x, is_bonafide))
    return [took(f"the bundled detector, fit to {count:,} × {size:,}", ours, theirs, "scikit-learn")]


def clock(call) -> float:
    """How long `call()` takes, in seconds."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def layouts() -> list[Row]:
    """AASIST-L by tensor layout and size of pages: what a step gains without anything else."""
    import cpu

    args = Namespace(config=str(ROOT / "config" / "AASIST-L.conf"), batch_size=2, threads=os.cpu_count())
    plain, ours = (cpu.in_process(args, *row) for row in (cpu.ROWS[0], cpu.ROWS[-1]))
    of = "small pages, contiguous"
    return [
        took(f"AASIST-L, {kind} of an utterance, huge pages, channels-last", own, base, of)
        for kind, own, base in zip(("score", "gradient"), ours, plain, strict=True)
    ]


def augmentation() -> list[Row]:
    """Crops a second in one process: rawboost as most use it, and every other transform that takes long."""
    import augmentation as benchmark
    import soundfile
    from clips import speech

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "crop.flac"
        soundfile.write(path, speech(0), 16_000)
        decoded = benchmark.median_rate(lambda: soundfile.read(path), 0.5)
    rows = []
    for spec in benchmark.ROWS:
        if spec["name"] in ("codec", "noise", "room", "band", "speed") or spec.get("combination") == "lnl+isd":
            name = f"augmentation, {benchmark.label(spec)}"
            rows.append(times(name, "crops/s", benchmark.rate(spec, 0.5), decoded, "flac decoded"))
    return rows
