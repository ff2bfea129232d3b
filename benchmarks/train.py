"""How fast is training? Every precision, compiled or not, against the official code's loop, all in one run.

    python benchmarks/train.py --markdown                                     # LA-sized data, made once (5.5 GB)
    python benchmarks/train.py --rows plain fp32 bf16+compile+ram --rounds 3 --loss_steps 20
    python benchmarks/train.py --config config/AASIST-L.conf --train 48 --dev 24 --batch_size 2 --rounds 1   # a try

A row is `plain` or a precision, joined by + to `compile`, `recompute` or a cache mode. `plain` is the official code's
way: the training process decodes every file every time, eager fp32, torch's defaults, a wait at each step. It runs our
model, which computes in place and so needs less memory than theirs. On a GPU torch's default rounds the factors of
convolutions to tf32; `plain+fp32` does not.

Each visit of a row is a process of its own, because peak memory and torch's allocator belong to a process. Rounds go
over all rows, because a machine's speed drifts. Numbers are medians. A GPU's memory includes the samples kept there.
"""

import argparse
import json
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from roofline import measure_roofline, median, now, print_roofline, seconds
from train_data import SUFFIX, make_data
from train_loops import OwnLoop, PlainLoop, row_config

from utils import pick_device

TRAIN, DEV, EPOCHS = 25_380, 24_844, 100  # the recipe whose hours are projected
WINDOWS = 3  # timed in a process, each of `steps` batches
WORDS = {"plain", "fp32", "tf32", "bf16", "compile", "recompute", "mmap", "ram", "gpu"}
CPU = {"batch_size": 8, "steps": 1, "warm_up": 1, "rounds": 1, "loss_steps": 3}
CPU["rows"] = ["plain", "fp32", "fp32+compile", "bf16", "bf16+compile", "fp32+recompute"]
GPU = {"batch_size": 24, "steps": 20, "warm_up": 5, "rounds": 1, "loss_steps": 20}
GPU["rows"] = ["plain", "plain+fp32", *(p + c for p in ("bf16", "tf32", "fp32") for c in ("", "+compile"))]
GPU["rows"].append("bf16+recompute")

# ---------------------------------------------------------------------------------------- jobs, each in its process


def speed(args: argparse.Namespace, row: str) -> dict:
    """Rates, seconds, memory of a row."""
    loop, size = (PlainLoop if "plain" in row else OwnLoop)(args, row), args.batch_size
    batches, result = loop.batches(), {}

    def rates(call) -> list[float]:
        return [args.steps * size / seconds(call) for _ in range(WINDOWS)]

    def train(steps: int) -> None:
        for _ in range(steps):
            loop.step(next(batches))

    first = seconds(lambda: train(1))
    train(args.warm_up - 1)
    result["train"] = rates(lambda: train(args.steps))
    result["fractions"] = time_fractions(loop, batches, args.steps)
    result["loader"] = rates(lambda: [next(batches) for _ in range(args.steps)])
    result["first"] = [first, seconds(lambda: loop.score(1))]
    loop.score(args.warm_up - 1)
    result["score"] = rates(lambda: loop.score(args.steps))
    result["memory"] = memory(args.on_gpu)
    return result


def time_fractions(loop: PlainLoop | OwnLoop, batches, steps: int) -> list[float]:
    """Fractions of a step's time: loader, forward, backward, optimizer. Waiting for each makes the step slower."""
    times = []
    for _ in range(steps):
        marks = [now()]
        batch = next(batches)
        marks.append(now())
        loss = loop.forward(batch)
        marks.append(now())
        loop.optimizer.zero_grad()
        loss.backward()
        marks.append(now())
        loop.optimizer.step()
        times.append(np.diff([*marks, now()]))
    return (np.sum(times, axis=0) / np.sum(times)).tolist()


def memory(on_gpu: bool) -> list[int]:
    """Peak bytes: of a GPU allocated and reserved; of the machine this process's own and all of its pages.

    Mapped pages, most of them of packs, are not its own: they belong to the system's cache, which can take them back.
    """
    if on_gpu:
        return [torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()]
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return [peak - resource.getpagesize() * int(Path("/proc/self/statm").read_text().split()[2]), peak]


def losses(args: argparse.Namespace, row: str) -> list[float]:
    """The losses of the first steps, without dropout, since compiled code draws other masks."""
    loop = (PlainLoop if "plain" in row else OwnLoop)(args, row)
    for module in loop.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return [float(loop.step(batch)) for batch in islice(loop.batches(), args.loss_steps)]


# ------------------------------------------------------------------------------------------------------------- output


def table(rows: list[str], results: dict, found: dict, on_gpu: bool) -> list[list[str]]:
    """The head and the rows of the table; ratios are to `plain`."""
    memory = ["allocated GB", "reserved GB"] if on_gpu else ["own GB", "RSS GB"]
    head = ["row", "train utt/s", "ratio", "score utt/s", "ratio", "loader utt/s", "load/fwd/bwd/opt %", *memory]
    head += ["first step, batch s", "recipe h", "ratio", "loss differs"]
    return [head, *(cells(row, results, found) for row in rows)]


def cells(row: str, results: dict, found: dict) -> list[str]:
    visits, base = results[row], results.get("plain", [{"failed": "not asked for"}])
    if "failed" in visits[-1]:
        return [row, visits[-1]["failed"]]

    def numbers(visits: list[dict]) -> np.ndarray:
        train, score = median(visits, "train"), median(visits, "score")
        return np.array([train, score, 3600 / EPOCHS / (TRAIN / train + DEV / score)])  # the last: recipes per hour

    own = numbers(visits)
    ratios = ["–"] * 3 if "failed" in base[-1] else [f"{ratio:.2f}" for ratio in own / numbers(base)]
    parts = "/".join(f"{100 * part:.0f}" for part in np.mean([visit["fractions"] for visit in visits], axis=0))
    memory = [f"{max(visit['memory'][k] for visit in visits) / 1e9:.2f}" for k in (0, 1)]
    first = ", ".join(f"{value:.1f}" for value in visits[0]["first"])
    reference, differs = found.get("plain+fp32", found.get("plain")), "–"
    if isinstance(reference, list) and isinstance(found.get(row), list):
        differs = f"{np.abs(np.subtract(found[row], reference)).max():.0e}"
    speeds = [f"{own[0]:.4g}", ratios[0], f"{own[1]:.4g}", ratios[1], f"{median(visits, 'loader'):.4g}", parts]
    return [row, *speeds, *memory, first, f"{1 / own[2]:.3g}", ratios[2], differs]


def aligned(values: list[str], head: list[str]) -> str:
    widths = [max(len(name), 6) + 2 for name in head]
    return f"{values[0]:<18}" + "".join(f"{v:>{w}}" for v, w in zip(values[1:], widths[1:], strict=False))


def print_header(args: argparse.Namespace) -> None:
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(": ")[1] for line in cpuinfo if line.startswith("model name")] or [platform.processor()]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}"
    print(f"{time.strftime('%Y-%m-%d')}: {len(names)} × {names[0]}, {memory:.0f} GiB; {versions}")
    if args.on_gpu:
        card, cudnn = torch.cuda.get_device_properties(0), torch.backends.cudnn.version()
        print(f"{card.name}, {card.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}, cuDNN {cudnn}")
    sizes = f"batches of {args.batch_size}, {args.train:,} train and {args.dev:,} dev utterances in {args.folder}"
    print(f"{args.config}, {sizes}; {torch.get_num_threads()} threads; {args.rounds} × {WINDOWS} × {args.steps} steps")
    if SUFFIX == ".pcm":
        print("No soundfile here: plain rows read raw int16, which is faster than any flac and favours them.")


# --------------------------------------------------------------------------------------------------------------- main


def in_process(args: argparse.Namespace, job: str, row: str):
    """The result of a job in a process of its own, or {"failed": why}."""
    env = os.environ | {"THP_MEM_ALLOC_ENABLE": str(int("plain" not in row)), "TORCHINDUCTOR_CACHE_DIR": args.inductor}
    command = [sys.executable, __file__, *sys.argv[1:], "--job", job, row]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    print(f"{job} of {row}:\n{done.stderr[-3000:]}", file=sys.stderr, flush=True)
    why = (re.findall(r"^[\w.]*Error\b.*", done.stderr, re.MULTILINE) or [f"exit code {done.returncode}"])[-1][:150]
    return {"failed": f"failed: {'killed, as when memory runs out' if done.returncode == -9 else why}"}


def measure(args: argparse.Namespace) -> int:
    """Every row, in rounds, then the losses; prints as it goes. Returns 1 if anything failed."""
    started = time.monotonic()
    steps = max(args.warm_up + (2 * WINDOWS + 1) * args.steps, args.loss_steps)
    make_data(args, row_config(args, "plain"), steps)  # forks, so before the header asks for the GPU
    print_header(args)
    print(f"data ready after {time.monotonic() - started:.0f} s\n", flush=True)
    limits, results, found = in_process(args, "roofline", "any"), {}, {}
    print(aligned(*table([], {}, {}, args.on_gpu) * 2), flush=True)
    for _ in range(args.rounds):
        for row in args.rows:
            if "failed" not in results.get(row, [{}])[-1]:
                results.setdefault(row, []).append(in_process(args, "speed", row))
                print(aligned(*reversed(table([row], results, found, args.on_gpu))), flush=True)
    if "failed" not in limits:
        print_roofline(limits, results)
    for row in args.rows if args.loss_steps else ():
        sound = "failed" not in results[row][-1]
        if sound and ("fp32" in row or (row == "plain" and not args.on_gpu)):
            found[row] = in_process(args, "losses", row)
    print(f"\n{args.loss_steps} losses compared\n")
    head, *rows = table(args.rows, results, found, args.on_gpu)
    for values in (head, ["---"] * len(head), *rows) if args.markdown else (head, *rows):
        print(f"| {' | '.join(values)} |" if args.markdown else aligned(values, head))
    print(f"\n{(time.monotonic() - started) / 60:.1f} min")
    return int(any("failed" in answer for answer in (limits, *found.values(), *(v[-1] for v in results.values()))))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="config/AASIST.conf")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--train", type=int, default=TRAIN, help="utterances")
    parser.add_argument("--dev", type=int, default=DEV, help="utterances")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "aasist_benchmark")
    parser.add_argument("--rows", nargs="+", help=f"on a CPU {' '.join(CPU['rows'])}; on a GPU {' '.join(GPU['rows'])}")
    for name in ("batch_size", "steps", "warm_up", "rounds", "loss_steps"):
        parser.add_argument(f"--{name}", type=int, help=f"on a CPU {CPU[name]}, on a GPU {GPU[name]}")
    parser.add_argument("--markdown", action="store_true", help="print the last table in Markdown, as in RESULTS.md")
    parser.add_argument("--job", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.on_gpu = pick_device(args.device).type == "cuda"
    for name, value in (GPU if args.on_gpu else CPU).items():
        setattr(args, name, value if getattr(args, name) is None else getattr(args, name))
    if unknown := {word for row in args.rows for word in row.split("+")} - WORDS:
        parser.error(f"--rows knows {', '.join(sorted(WORDS))}, not {', '.join(unknown)}")
    if min(args.train, args.dev) < args.batch_size * max(args.steps, args.warm_up):
        parser.error("--train and --dev: at least as many utterances as in one window")
    return args


def main() -> int:
    args = arguments()
    if args.job:
        job, row = args.job
        print(json.dumps({"speed": speed, "losses": losses, "roofline": measure_roofline}[job](args, row)))
        return 0
    with tempfile.TemporaryDirectory() as args.inductor:  # so that compiling is not faster thanks to an earlier run
        return measure(args)


if __name__ == "__main__":
    sys.exit(main())
