"""The main figures of speed in one table, each beside its baseline in the same run.

    python benchmarks/all.py --markdown         # about ten minutes on two quiet cores
    python benchmarks/all.py --parts bundled    # one part of it

Each part is a process of its own, because torch's allocator and peak memory belong to a process. Rows that need a GPU
are named below the table. The other benchmarks in this folder say more about each subject.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]  # benchmarks have the names of commands
PACKAGES = ("torch", "numpy", "scipy", "onnxruntime", "openvino")
ON_A_GPU = {
    "training, every precision and compile": "benchmarks/train.py --markdown",
    "chunks a second, copy bandwidth": "benchmarks/inference.py",
}


class Row(NamedTuple):
    """One figure. better: how many times as good as the baseline."""

    what: str
    figure: str
    baseline: str
    better: float


def training() -> list[Row]:
    """AASIST, batches of 4, beside the official loop."""
    sys.argv = ["train.py", "--device", "cpu", "--batch_size", "4", "--train", "96", "--dev", "48"]
    import train
    from roofline import median

    args = train.arguments()
    train.make_data(args, train.row_config(args, "plain"), 8)
    with tempfile.TemporaryDirectory() as args.inductor:
        visits = {row: [train.in_process(args, "speed", row)] for row in ("plain", "fp32", "bf16")}
    rows = []
    for key in ("train", "score"):
        plain = median(visits["plain"], key)
        for row in ("fp32", "bf16"):
            rate = median(visits[row], key)
            name = f"AASIST, {key}, {row}"
            rows.append(Row(name, f"{rate:.2f} utt/s", f"{plain:.2f}, the official loop", rate / plain))
    return rows


def engines(model: str, threads: int) -> list[Row]:
    """Seconds a chunk of every engine beside plain torch."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import numpy as np

    import inference

    args = Namespace(model=model, threads=threads, repeats=3)
    chunks = 0.1 * np.random.default_rng(0).standard_normal((4, inference.SAMPLES)).astype(np.float32)
    found = inference.engines(args, chunks)
    plain = found.pop("plain forward")
    name = f"{model}, {threads} thread{'s' * (threads > 1)}"
    return [
        Row(f"{name}, {engine}", f"{1 / took:.1f} chunks/s", f"{1 / plain:.1f}, plain torch", plain / took)
        for engine, took in found.items()
    ]


def files() -> list[Row]:
    """The bundled detector on files, with decoding, activity detection and verdict."""
    import inference

    with tempfile.TemporaryDirectory() as folder:
        inference.make_files(Path(folder), 80)
        whole, alone, engine = inference.throughput(Namespace(model="Whisper-broad", files=80), Path(folder))
    hours = f"{whole:.1f} files of 4 s a second = {whole * inference.SAMPLES / 16_000:.0f} hours of audio an hour"
    return [Row(f"Whisper-broad, {engine}, files", hours, f"{alone:.1f}, the model alone", whole / alone)]


def evaluate() -> list[Row]:
    """71,237 trials, a process from start to end."""
    import evaluation

    with tempfile.TemporaryDirectory() as folder:
        scores, asv = evaluation.stand_ins(Path(folder))
        plain = evaluation.seconds([sys.executable, "-c", "import numpy, scipy.stats"], 3)
        took = evaluation.seconds([sys.executable, "evaluation.py", str(scores), "--asv_scores", str(asv)], 3)
    return [Row("evaluation of 71,237 trials", f"{took:.2f} s", f"{plain:.2f} s, import of scipy.stats", plain / took)]


PARTS = {
    "training": training,
    "engines": lambda: engines("AASIST", 2),
    "bundled": lambda: engines("Whisper-broad", 1),
    "bundled2": lambda: engines("Whisper-broad", 2),
    "files": files,
    "evaluation": evaluate,
}


def machine() -> str:
    """Date, processor, memory, versions."""
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(": ")[1] for line in cpuinfo if line.startswith("model name")] or [platform.processor()]
    units = [unit for unit in ("avx512_bf16", "amx_bf16") if any(unit in line for line in cpuinfo)]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            versions.append(f"no {name}")
    kind = f"{len(names)} × {names[0]} ({', '.join(units) or 'no bf16 units'}), {memory:.0f} GiB"
    return f"{time.strftime('%Y-%m-%d')}: {kind}; Python {platform.python_version()}, {', '.join(versions)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        print(json.dumps(PARTS[args.part]()))
        return 0
    started, failed = time.monotonic(), []
    print(f"{machine()}; load {os.getloadavg()[0]:.1f} at the start\n")
    line = "| {} | {} | {} | {} |" if args.markdown else "{:<44} {:<54} {:<32} {}"
    print(line.format("", "figure", "baseline", "ratio"))
    if args.markdown:
        print(line.format(*["---"] * 4))
    for part in args.parts:
        done = subprocess.run([sys.executable, __file__, "--part", part], stdout=subprocess.PIPE, text=True, cwd=ROOT)
        failed += [part] * (done.returncode != 0)
        for row in json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else ():
            print(line.format(*row[:3], f"{row[3]:.2f}"), flush=True)
    print(f"\n{(time.monotonic() - started) / 60:.1f} min, load {os.getloadavg()[0]:.1f} at the end. On a GPU only:")
    print(*(f"{what} (`python {command}`)" for what, command in ON_A_GPU.items()), sep="; ")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
