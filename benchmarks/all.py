"""Every figure of speed in one table, each beside its baseline in the same run.

    python benchmarks/all.py --markdown                  # a quarter of an hour on two quiet cores
    python benchmarks/all.py --parts bundled cold_start  # some parts of it

Each part is a process of its own, because torch's allocator and peak memory belong to a process; one that fails is
named, with the reason, and the others go on. A ratio above 1 is better than the baseline. Rows that need a GPU, and the
benchmarks of other things than speed, are named below the table.
"""

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]  # benchmarks have the names of commands
PACKAGES = ("torch", "numpy", "scipy", "onnxruntime", "openvino", "soundfile", "av", "gradio")
TRAINING = "aasist lfcc_lcnn bundled_training bundled_fit layouts augmentation"
SCORING = (
    "engines architectures bundled bundled_two_threads files cold_start many_files page browser evaluate plotting ssl"
)
PARTS = {"training_rows": TRAINING.split(), "scoring_rows": SCORING.split()}  # functions of these files
NAMES = [name for names in PARTS.values() for name in names]
MOST_SECONDS = 600  # of a part
ON_A_GPU = {
    "training, every precision and compile, share of copy bandwidth": "benchmarks/train.py --markdown",
    "chunks a second": "benchmarks/inference.py",
}
NOT_SPEED = [
    "ablation",
    "bundled",
    "bundled_network",
    "card",
    "cues",
    "family",
    "generalise",
    "held_out_card",
    "recoding",
    "reference",
    "speech",
    "splices",
]


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


def ended(command: list[str]) -> tuple[int, str, str]:
    """Exit code and output of a process; what it started ends with it, also when it takes too long."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, **pipes)
    try:
        out, err = process.communicate(timeout=MOST_SECONDS)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, out, err


def measure(part: str) -> list:
    """The rows of a part, run as a process of its own; one that says why if it fails."""
    try:
        code, out, err = ended([sys.executable, __file__, "--part", part])
    except subprocess.TimeoutExpired:
        return [[part, f"failed: not done after {MOST_SECONDS} s", "", None, ""]]
    if code == 0:
        return json.loads(out.splitlines()[-1])
    print(f"{part}:\n{err[-3000:]}", file=sys.stderr, flush=True)
    reasons = re.findall(r"^[\w.]*(?:Error|Exception)\b.*", err, re.MULTILINE)
    return [[part, f"failed: {(reasons or [f'exit code {code}'])[-1][:150]}", "", None, ""]]


def table_line(row: list, markdown: bool) -> str:
    cells = [*row[:3], row[3] if isinstance(row[3], str) else "–" if row[3] is None else f"{row[3]:.2f}", row[4]]
    line = "| {} | {} | {} | {} | {} |" if markdown else "{:<58} {:<44} {:<40} {:>6}  {}"
    return line.format(*(cell.replace("|", r"\|") for cell in cells) if markdown else cells)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--parts", nargs="+", choices=NAMES, default=NAMES, metavar="PART", help=", ".join(NAMES))
    parser.add_argument("--part", choices=NAMES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        (module,) = (name for name, parts in PARTS.items() if args.part in parts)
        print(json.dumps(getattr(__import__(module), args.part)()))
        return 0
    started, failed = time.monotonic(), []
    print(f"{machine()}; load {os.getloadavg()[0]:.1f} at the start\n")
    for row in [["", "figure", "baseline", "ratio", "goal"], *([["---"] * 5] if args.markdown else [])]:
        print(table_line(row, args.markdown), flush=True)
    for part in args.parts:
        rows = measure(part)
        failed += [part] * (rows[0][3] is None)
        for row in rows:
            print(table_line(row, args.markdown), flush=True)
    print(f"\n{(time.monotonic() - started) / 60:.1f} min, load {os.getloadavg()[0]:.1f} at the end. On a GPU only:")
    print(*(f"{what} (`python {command}`)" for what, command in ON_A_GPU.items()), sep="; ", end=".\n")
    print(f"Of error rates, not of speed: {', '.join(f'`{name}.py`' for name in NOT_SPEED)}.")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
