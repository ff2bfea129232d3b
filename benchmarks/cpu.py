"""AASIST on a CPU with huge pages and with another tensor layout: prints seconds per utterance and ratios.

    python benchmarks/cpu.py [--config config/AASIST-L.conf] [--batch_size 4] [--threads 2]

Each row is measured in its own process, because torch reads the allocator's setting only once. The first of four
passes is left out.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
ROWS = [(pages, layout) for pages in ("small", "huge") for layout in ("contiguous", "channels_last")]


def measure(args, pages: str, layout: str) -> None:
    """Print the median seconds per utterance of scoring and of a training step."""
    os.environ["THP_MEM_ALLOC_ENABLE"] = str(int(pages == "huge"))
    import torch
    import torch.nn.functional as F

    from config import load_config
    from models import build_model

    torch.set_num_threads(args.threads)
    memory_format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    model = build_model(load_config(args.config).model_config).to(memory_format=memory_format)
    x, y = torch.randn(args.batch_size, model.nb_samp), torch.arange(args.batch_size) % 2
    medians = []
    for training in (False, True):
        model.train(training)
        seconds = []
        for _ in range(4):
            started = time.perf_counter()
            with torch.set_grad_enabled(training):
                loss = F.cross_entropy(model(x)[1], y)
            if training:
                loss.backward()
            seconds.append((time.perf_counter() - started) / args.batch_size)
        medians.append(statistics.median(seconds[1:]))
    print(*medians)


def in_process(args, pages: str, layout: str) -> list[float]:
    """What `measure` prints, of a process of its own."""
    options = ["--config", args.config, "--batch_size", args.batch_size, "--threads", args.threads]
    command = [sys.executable, __file__, *map(str, options), "--row", pages, layout]
    return [
        float(value) for value in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="config/AASIST-L.conf")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--row", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.row:
        return measure(args, *args.row)
    print(f"{'pages':<8}{'layout':<16}{'score s/utt':>12}{'ratio':>7}{'train s/utt':>13}{'ratio':>7}")
    first = None
    for row in ROWS:
        seconds = in_process(args, *row)
        first = first or seconds
        ratios = [before / now for before, now in zip(first, seconds, strict=True)]
        print(
            f"{row[0]:<8}{row[1]:<16}{seconds[0]:>12.3f}{ratios[0]:>7.2f}{seconds[1]:>13.3f}{ratios[1]:>7.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
