"""How far re-encoding moves a score: the model card's `recoding_spread`.

    python benchmarks/recoding.py --model AASIST ../shared/data/LA_mini
    python benchmarks/recoding.py --model Whisper-broad ../shared/data/LA_mini ../shared/data/mixed

Dev clips of both classes, the first chunk of each, as they are and through mp3, Opus and AAC (m4a) at usual bit rates.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from options import chosen_detector, detector_parser

from audio.chunks import fit
from audio.codecs import FORMATS, through_codec
from audio.reading import read
from corpora.asvspoof import ASVspoof2019

CODECS = {"mp3": 64.0, "opus": 24.0, "aac": 64.0}  # kbit/s


def main() -> None:
    parser = detector_parser(__doc__)
    parser.add_argument("--number", type=int, default=40, help="clips of each data set")
    args = parser.parse_args()
    detector = chosen_detector(args)
    partitions = [ASVspoof2019(folder, "LA").partition("dev") for folder in args.folders]
    clips = [(p, t) for p in partitions for t in p.trials[:: max(1, len(p.trials) // args.number)]]
    changes = {name: [] for name in CODECS}
    for partition, trial in clips:
        samples = fit(read(partition.path(trial)), detector.engine.nb_samp)
        made = [samples, *(through_codec(samples, FORMATS[name], rate) for name, rate in CODECS.items())]
        before, *after = (float(detector.score(one[None])[0]) for one in made)
        for name, score in zip(CODECS, after, strict=True):
            changes[name].append(score - before)
    everything = np.concatenate(list(changes.values()))
    for name, values in (*changes.items(), ("all", everything)):
        parts = ", ".join(f"{q} % below {np.percentile(np.abs(values), q):.3f}" for q in (50, 68, 90))
        print(f"{name:<5} n {len(values)}  mean {np.mean(values):+.3f}  size: {parts}")
    spread = max(np.percentile(np.abs(values), 90) for values in changes.values())
    print(f"recoding_spread: {spread:.2f}, below which the codec that moves scores most leaves 90 %")


if __name__ == "__main__":
    main()
