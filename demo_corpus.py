"""Make a small synthetic corpus in the ASVspoof2019 LA layout, to try the whole pipeline without a download.

    python demo_corpus.py
    python demo_corpus.py --output_dir demo_corpus --seed 1234 --utterances 240 100 130 --speakers 12

Bona fide is a synthetic talker (irregular glottal pulses, breath, moving formants, a room); spoof is other utterances
of the same talkers through vocoders: A01-A06 in train and dev, A07-A12 in eval. No talker is in two partitions. Level,
length, margins of silence, microphone, band limit and noise floor are the same for both classes, so that only the
vocoder gives a spoof away.

The corpus shows that the pipeline works (data, training, selection, metrics, plots). It is no evidence about deepfakes:
both classes are synthetic, and an EER on this corpus says nothing about any other data.
"""

import os
import sys
from pathlib import Path

from common.command import Parser, run
from common.errors import UserError
from common.escaping import printable
from corpora.demo import DemoSettings, build_demo_corpus


def main() -> int:
    """Command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--output_dir", type=Path, default=Path("demo_corpus"), help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=1234, help="same seed, same files (default: %(default)s)")
    parser.add_argument("--speakers", type=int, default=12, help="talkers in each partition (default: %(default)s)")
    counts = {"metavar": ("TRAIN", "DEV", "EVAL"), "help": "in each partition (default: 240 100 130)"}
    parser.add_argument("--utterances", type=int, nargs=3, default=(240, 100, 130), **counts)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: %(default)s)")
    options = parser.parse_args()
    for name, low in (("seed", 0), ("speakers", 1), ("workers", 1)):
        if getattr(options, name) < low:
            raise UserError(f"--{name}", f"{low} or more", getattr(options, name))
    if min(options.utterances) < 12:
        raise UserError("--utterances", "12 or more, so that each attack occurs", min(options.utterances))
    settings = DemoSettings(options.seed, options.speakers, tuple(options.utterances))
    made = build_demo_corpus(options.output_dir, settings, options.workers)
    state = f"{sum(settings.utterances)} utterances, {'made' if made else 'already there'}"
    print(f"{printable(options.output_dir)}: {state}")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
