"""The tables of docs/model_card.md of what a detector never met: by set, kind of generator and source; worst clips.

    python benchmarks/held_out_card.py --output exp_result/generalise --system Whisper-broad --seed 0

Reads the score files that benchmarks/bundled.py or `benchmarks/generalise.py score` wrote. EERs are pooled over the
folds. Intervals (95 %) are by bootstrap: of sets over sources and generators, of a generator over clips.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]  # in this order: benchmarks have the names of packages

from generalise import FOLDS, MIN_CLIPS, HeldOut, calibrated, held_out, scores_path

from common.command import run
from metrics.bootstrap import interval, resamples
from metrics.error_rates import compute_eer

SETS = ("", "/broad/", "/mixed/", "/mixed/ASVspoof2019_LA_dev/", "/LA_mini/")  # what paths of their clips contain
NAMES = {  # of the sources of `mixed`, which are letters in its speakers' names
    "LS": "LibriSpeech",
    "S2I": "Picovoice speech-to-intent",
    "WW": "Picovoice wake words",
    "MY": "Mycroft Precise",
    "CG": "CycleGAN-VC2 demo",
    "FS2": "FastSpeech2 demo (LJSpeech)",
}
MIN_SOURCE = 20  # clips
WORST = 8  # clips of each class


class Clips:
    """Clips of all folds, each scored by a model that never met it."""

    def __init__(self, folder: Path, system: str, seed: int | None):
        partitions = [held_out(folder, fold) for fold in range(FOLDS)]
        paths = [scores_path(folder, system, fold, seed) for fold in range(FOLDS)]
        folds = [HeldOut.read(*pair) for pair in zip(paths, partitions, strict=True)]
        self.path = np.array([trial.utt_id for part in partitions for trial in part.trials])
        columns = ("score", "is_bonafide", "attack", "source")
        self.score, self.is_bonafide, self.attack, self.source = (
            np.concatenate([getattr(fold, name) for fold in folds]) for name in columns
        )
        self.llr = np.concatenate(calibrated(folds))
        self.source = np.array([NAMES.get(source, source) for source in self.source])
        self.group = np.where(self.is_bonafide, self.source, self.attack)

    def eer(self, chosen: np.ndarray, by_group: bool, draws: int) -> str:
        """Percent and interval of some clips (N,) bool: resampled by source and generator, or one by one."""
        score, label = self.score[chosen], self.is_bonafide[chosen]
        cluster = None
        if by_group:
            _, cluster = np.unique(np.char.add(label.astype("U5"), self.group[chosen]), return_inverse=True)
        found = []
        for count in resamples(label.astype(int), cluster, draws, seed=0):
            drawn, own = np.repeat(score, count.astype(int)), np.repeat(label, count.astype(int))
            found.append(100 * compute_eer(drawn[own], drawn[~own]).eer)
        low, high = interval(np.array(found))
        digits = 1 if by_group else 0
        eer = 100 * compute_eer(score[label], score[~label]).eer
        return f"{eer:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def by_set(clips: Clips, draws: int) -> list[str]:
    """Rows of a table, here and below its header first."""
    rows, label = ["set | bona fide | spoof | EER %"], clips.is_bonafide
    for name in SETS:
        if (own := np.char.find(clips.path, name) >= 0).any():
            eer = clips.eer(own, by_group=True, draws=draws)
            rows.append(f"{name or 'all'} | {label[own].sum()} | {(~label)[own].sum()} | {eer}")
    return rows


def by_generator(clips: Clips, draws: int) -> list[str]:
    """The worst first."""
    rows, label = [], clips.is_bonafide
    for attack in np.unique(clips.attack[~label]):
        own = ~label & (clips.attack == attack)
        if own.sum() >= MIN_CLIPS:
            eer = compute_eer(clips.score[label], clips.score[own]).eer
            rows.append((eer, f"{attack} | {own.sum()} | {clips.eer(own | label, by_group=False, draws=draws)}"))
    return ["generator | clips | EER %", *(row for _, row in sorted(rows, reverse=True))]


def by_source(clips: Clips) -> list[str]:
    """The worst first."""
    rows, label = [], clips.is_bonafide
    for source in np.unique(clips.source[label]):
        own = label & (clips.source == source)
        if own.sum() >= MIN_SOURCE:
            wrong = 100 * np.mean(clips.llr[own] < 0)
            rows.append((wrong, f"{source} | {own.sum()} | {wrong:.0f}"))
    return ["source | clips | called spoof, %", *(row for _, row in sorted(rows, reverse=True))]


def worst_clips(clips: Clips) -> list[str]:
    """Of each class, the worst first."""
    rows = ["clip | is | source or generator | LLR"]
    for label, key in ((True, "bona fide"), (False, "spoof")):
        error = np.where(clips.is_bonafide == label, clips.llr * (-1 if label else 1), -np.inf)
        for row in np.argsort(-error)[:WORST]:
            rows.append(f"{clips.path[row]} | {key} | {clips.group[row]} | {clips.llr[row]:+.1f}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("exp_result/generalise"), help="default: %(default)s")
    parser.add_argument("--system", default="Whisper-broad", help="default: %(default)s")
    parser.add_argument("--seed", type=int, help="of the system's scores (default: scores without one)")
    parser.add_argument("--resamples", type=int, default=1000, help="of each bootstrap (default: %(default)s)")
    args = parser.parse_args()
    clips, draws = Clips(args.output, args.system, args.seed), args.resamples
    for table in (by_set(clips, draws), by_generator(clips, draws), by_source(clips), worst_clips(clips)):
        columns = table[0].count("|") + 1
        print(*(f"| {row} |" for row in (table[0], " | ".join(["---"] * columns), *table[1:])), sep="\n", end="\n\n")


if __name__ == "__main__":
    run(main)
