"""How many crops of 64,600 samples each augmentation makes in a second, in one process.

    python benchmarks/augmentation.py [--seconds 2] [--markdown]

The crop is noise in syllables, because a codec's speed depends on the signal. Time is processor time, which other
programs on the machine change little; the rate is that of the median call within `--seconds`.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from audio import SAMPLE_RATE
from audio.augmentation import TRANSFORMS, build_augmentation
from audio.chunks import CHUNK_SAMPLES
from audio.codecs import FORMATS

ROWS = [
    *({"name": "rawboost", "combination": name} for name in ("lnl+isd", "lnl", "isd", "ssi", "lnl+isd+ssi", "lnl|isd")),
    *({"name": "codec", "formats": [name]} for name in FORMATS),
    *({"name": name, "probability": 1.0} for name in TRANSFORMS if name not in ("rawboost", "codec")),
]


def rate(spec: dict, seconds: float) -> float:
    """Crops per second of processor time."""
    made, rng = build_augmentation([spec]), np.random.default_rng(0)
    syllables = np.clip(np.sin(np.arange(CHUNK_SAMPLES) * 2 * np.pi * 3 / SAMPLE_RATE), 0, 1)
    x = (0.1 * syllables * rng.standard_normal(CHUNK_SAMPLES)).astype(np.float32)
    return median_rate(lambda: made.crop(made.whole(x, rng), rng), seconds)


def median_rate(call, seconds: float) -> float:
    """Calls per second of processor time; the first one does not count."""
    call()
    took, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.process_time()
        call()
        took.append(time.process_time() - start)
    return 1 / statistics.median(took)


def label(spec: dict) -> str:
    """The transform's name, and which of its forms."""
    return f"{spec['name']} {spec.get('combination') or ', '.join(spec.get('formats', ()))}".strip()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each row (default: %(default)s)")
    parser.add_argument("--markdown", action="store_true", help="a table for RESULTS.md")
    options = parser.parse_args()
    if options.markdown:
        print("| transform | utt/s |\n|---|---|")
    for spec in ROWS:
        row = label(spec), f"{rate(spec, options.seconds):,.0f}"
        print(
            "| {} | {} |".format(*row).replace("l|i", r"l\|i") if options.markdown else "{:<24}{:>8}".format(*row),
            flush=True,
        )


if __name__ == "__main__":
    main()
