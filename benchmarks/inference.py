"""How fast is scoring? Engines against the plain forward pass, cold start, and whether decoding slows the model.

    python benchmarks/inference.py [--model AASIST] [--threads 2] [--files 1000]

All engines run in one process on one input. The plain forward pass is measured first, with torch as installed: nothing
that this repository sets. Times are medians. On a GPU it also prints chunks per second and the fraction of the copy
bandwidth that the model uses.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
os.environ["THP_MEM_ALLOC_ENABLE"] = "0"  # plain torch: utils sets this to 1

import numpy as np
import soundfile
from clips import SAMPLES, make_files

# torch comes last and alone: its engine changes how a process allocates memory.
ENGINES = ("onnx fp32", "openvino fp32", "openvino bf16"), ("torch fp32", "torch bf16")


def seconds(call, repeats: int) -> float:
    """The median of `repeats` calls, after a first one that is left out."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def engines(args, chunks: np.ndarray, groups: Sequence[Sequence[str]] = ENGINES) -> dict[str, float]:
    """Seconds per chunk of every engine there is here, and first of the plain forward pass."""
    import torch

    from common.errors import UserError
    from scoring.engine_choice import load_engine
    from scoring.weights import locate
    from utils import load_model

    torch.set_num_threads(args.threads)
    path = locate(args.model)
    model, _ = load_model(path)

    def forward() -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(chunks))[1].numpy()

    calls, times = {"plain forward": forward}, {}
    for group in groups:
        for name in group:
            try:
                calls[name] = partial(load_engine(path, *name.split(), "cpu")[0].logits, chunks)
            except UserError as error:
                print(f"{name}: {error}", file=sys.stderr)
        for _ in range(args.repeats):  # in turn, because the machine's speed drifts
            for name, call in calls.items():
                times.setdefault(name, []).append(seconds(call, 1) / len(chunks))
        calls = {}
    return {name: statistics.median(each) for name, each in times.items()}


def print_engines(found: dict[str, float]) -> None:
    """Print `engines` and each one's ratio to the plain forward pass."""
    print(f"{'engine':<20}{'s/chunk':>9}{'ratio':>7}")
    for name, each in found.items():
        print(f"{name:<20}{each:>9.3f}{found['plain forward'] / each:>7.2f}", flush=True)


def cold_start(model: str, engine: str, file: Path) -> None:
    """A whole process that scores a file."""
    command = [sys.executable, ROOT / "inference.py", "--model", model, "--engine", engine, "--threshold", "0"]
    subprocess.run([*map(str, command), "--audio", str(file)], check=True, capture_output=True)


def throughput(args, folder: Path, rounds: int = 4) -> tuple[float, float, str]:
    """Files per second with decoding and verdict, and of the engine alone on as many chunks; which engine.

    In so many rounds, alternating; each includes the start of the decoding processes.
    """
    from scoring.detector import Detector

    detector = Detector.from_checkpoint(args.model, "auto", "auto")
    judge, size = detector.judge(threshold=0.0), detector.engine.batch_size
    chunks = np.stack([soundfile.read(folder / "0000.flac", dtype="float32")[0]] * size)
    alone, whole = 0.0, 0.0
    for paths in np.array_split(np.array(sorted(folder.glob("*.flac"))), rounds):
        started = time.perf_counter()
        for _ in range(0, len(paths), size):
            detector.engine.logits(chunks)
        middle = time.perf_counter()
        assert len(list(detector.score_files(paths, judge, workers=2))) == len(paths)
        alone, whole = alone + middle - started, whole + time.perf_counter() - middle
    return args.files / whole, args.files / alone, f"{detector.engine.name} on {detector.engine.device}"


def gpu(args) -> None:
    """Print chunks per second, and the bytes per second that the model moves as a fraction of the copy bandwidth."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    from scoring.engine_choice import load_engine
    from scoring.weights import locate

    if not torch.cuda.is_available():
        print("\nno GPU here")
        return

    class Traffic(TorchDispatchMode):
        total = 0

        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            result = function(*arguments, **keywords or {})
            moved = [leaf for leaf in tree_leaves((arguments, keywords, result)) if isinstance(leaf, torch.Tensor)]
            self.total += sum(tensor.nbytes for tensor in moved)
            return result

    block = torch.empty(2**28, device="cuda")  # 1 GiB

    def copy():
        block.clone()
        torch.cuda.synchronize()

    bandwidth = 2 * block.nbytes / seconds(copy, 20)
    print(f"\n{torch.cuda.get_device_name()}: copies {bandwidth / 1e9:.0f} GB/s")
    for precision in ("fp32", "bf16"):
        engine, _ = load_engine(locate(args.model), "torch", precision, "cuda")
        chunks = torch.randn(engine.batch_size, SAMPLES, device="cuda")
        took = seconds(lambda engine=engine, chunks=chunks: engine.logits(chunks), 20)
        with Traffic() as traffic:
            engine.logits(chunks)
        used = traffic.total / took / bandwidth
        print(f"  {precision}: {len(chunks) / took:.0f} chunks/s, {100 * used:.0f} % of the copy bandwidth", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="AASIST")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--chunks", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--files", type=int, default=1000)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = make_files(folder, args.files)
        print_engines(engines(args, 0.1 * rng.standard_normal((args.chunks, SAMPLES)).astype(np.float32)))
        print("\none file of 4 s, imports included")
        for engine in ("torch", "auto"):
            took = seconds(partial(cold_start, args.model, engine, files[0]), 3)
            print(f"  --engine {engine:<8}{took:>7.2f} s", flush=True)
        whole, alone, engine = throughput(args, folder)
        print(f"\n{args.files} files of 4 s, engine {engine}")
        print(f"  {whole:.2f} files/s, the model alone {alone:.2f}: {100 * whole / alone:.1f} %")
        gpu(args)


if __name__ == "__main__":
    main()
