"""The numbers of docs/LCNN-mixed.md: models side by side, by attack and by what happens to a recording.

    python benchmarks/card.py --data ../shared/data --weights ../shared/fixtures/weights

Prints the card's tables and draws docs/figures/robustness.png. The card describes the first model.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))

from audio import SAMPLE_RATE
from audio.augmentation import build_augmentation
from audio.chunks import fit
from common.command import run
from corpora.open import open_data_set
from corpora.trials import Partition
from corpora.waveforms import Waveforms
from metrics.bootstrap import add_intervals, bootstrap
from metrics.error_rates import compute_eer, threshold_at_far
from metrics.evaluate import evaluate
from plots.scores import robustness
from plots.style import write_figure
from scoring.detector import Detector

SETS = {
    "mixed dev": ("2019:{data}/mixed", "dev"),
    "2019 LA dev": ("2019:{data}/LA_mini", "dev"),
    "2019 LA eval": ("2019:{data}/LA_mini", "eval"),
    "2021 LA": ("folder:{data}/LA21_mini", "eval"),
}
WORST = 8  # clips of each class that are listed


def codec(name: str, bitrate: float) -> list[dict]:
    return [{"name": "codec", "formats": [name], "bitrates": [bitrate, bitrate]}]


def noise(snr: float) -> list[dict]:
    return [{"name": "noise", "snr": [snr, snr], "colours": ["white"]}]


def level(decibels: float) -> list[dict]:
    return [{"name": "gain", "decibels": [decibels, decibels]}]


TRANSFORMS = {f"white noise, {snr} dB": noise(snr) for snr in (30, 20, 10, 5, 0)} | {
    "mp3, 64 kbit/s": codec("mp3", 64),
    "mp3, 32 kbit/s": codec("mp3", 32),
    "opus, 16 kbit/s": codec("opus", 16),
    "telephone, 300–3400 Hz": codec("mu_law", 64),
    "20 dB quieter": level(-20),
    "10 dB louder": level(10),
}


def transform(specs: list[dict]) -> Callable[[np.ndarray], np.ndarray]:
    augmentation = build_augmentation(specs)
    return lambda x: np.clip(augmentation.crop(x, np.random.default_rng(0)), -1, 1)


def resampled(rate: int) -> Callable[[np.ndarray], np.ndarray]:
    import soxr

    return lambda x: soxr.resample(soxr.resample(x, SAMPLE_RATE, rate, "HQ"), rate, SAMPLE_RATE, "HQ")


CONDITIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as it is": lambda x: x,
    **{name: transform(specs) for name, specs in TRANSFORMS.items()},
    "resampled, 44.1 kHz": resampled(44_100),
    "resampled, 8 kHz": resampled(8_000),
    "the first 2 s": lambda x: x[: 2 * SAMPLE_RATE],
    "the first 1 s": lambda x: x[:SAMPLE_RATE],
}


@dataclass
class MeasuredModel:
    """One model's scores."""

    detector: Detector
    scores: dict[str, np.ndarray]  # by set
    conditions: dict[str, np.ndarray]  # of mixed dev, by condition


def score(detector: Detector, partition: Partition) -> np.ndarray:
    """(N,) scores of whole files, as `inference.py` gives them."""
    paths = [partition.path(trial) for trial in partition.trials]
    return np.array([result.score for result in detector.score_files(paths, detector.judge(), workers=1)])


def score_changed(detector: Detector, waveforms: Sequence[np.ndarray], change: Callable) -> np.ndarray:
    """(N,) scores of the first chunk of each waveform, after `change`."""
    length = detector.engine.nb_samp
    chunks = np.stack([fit(change(x).astype(np.float32), length) for x in waveforms])
    return detector.score(chunks[first : first + 24] for first in range(0, len(chunks), 24))


def eer(partition: Partition, scores: np.ndarray, attacks: Sequence[str] | None = None) -> float:
    """In percent: all bona fide trials against the spoofs of these attacks (None: of all)."""
    bonafide = partition.is_bonafide()
    chosen = np.array([attacks is None or t.attack in attacks for t in partition.trials]) & ~bonafide
    return 100 * compute_eer(scores[bonafide], scores[chosen]).eer


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for row in (header, ["---"] * len(header), *rows):
        print(f"| {' | '.join(row)} |")
    print()


def print_groups(partitions: dict[str, Partition], models: dict[str, MeasuredModel], seen: set[str]) -> None:
    """EER of each set and of each attack, with intervals; the mean and the worst of mixed dev's attacks."""
    rows = []
    for title, partition in partitions.items():
        reports = []
        for measured in models.values():
            scores = partition.scores(measured.scores[title])
            result = evaluate(scores)
            add_intervals(result, bootstrap(scores, None, 1000, 0), scores)
            reports.append(result)
        cells = [_cell(r["eer_percent"], r["intervals"]["eer_percent"]) for r in reports]
        count = f"{reports[0]['n_bonafide']} / {reports[0]['n_spoof']}"
        rows.append([f"**{title}**", count, *cells])
        if title == "mixed dev":
            rows += _attack_rows(partition, reports, models, title, seen)
    table(["", "bona fide / spoof", *models], rows)


def _attack_rows(partition, reports, models, title, seen) -> list[list[str]]:
    rows, attacks = [], list(reports[0]["per_attack"])
    for attack in sorted(attacks, key=lambda name: (name not in seen, name)):
        cells = [
            _cell(r["per_attack"][attack]["eer_percent"], r["per_attack"][attack]["eer_percent_interval"])
            for r in reports
        ]
        rows.append(
            [
                f"{attack}{'' if attack in seen else ', not in training'}",
                str(reports[0]["per_attack"][attack]["n"]),
                *cells,
            ]
        )
    each = [[eer(partition, m.scores[title], [attack]) for attack in attacks] for m in models.values()]
    rows.append(["mean of attacks", "", *(f"{np.mean(values):.1f}" for values in each)])
    rows.append(["worst attack", "", *(f"{np.max(values):.1f}" for values in each)])
    return rows


def _cell(value: float, ends: list[float] | None) -> str:
    return f"{value:.1f}" + (f" ({ends[0]:.1f}–{ends[1]:.1f})" if ends else "")


def print_errors(partition: Partition, measured: MeasuredModel, title: str) -> None:
    """Percent of trials on the wrong side of each threshold, by source and attack."""
    scores, card = measured.scores[title], measured.detector.card
    spoof = np.array(card.dev_scores["spoof"])
    thresholds = {
        "EER": card.threshold,
        "FAR 5 %": threshold_at_far(spoof, 0.05),
        "FAR 1 %": threshold_at_far(spoof, 0.01),
    }
    groups: dict[str, list[int]] = {}
    for index, trial in enumerate(partition.trials):
        name = f"bona fide: {trial.source}" if trial.key == "bonafide" else f"spoof: {trial.attack}"
        groups.setdefault(name, []).append(index)
    rows = []
    for name, members in sorted(groups.items()):
        wrong = [scores[members] <= t if name.startswith("bona") else scores[members] > t for t in thresholds.values()]
        rows.append([name, str(len(members)), *(f"{100 * w.mean():.0f}" for w in wrong)])
    table([title, "clips", *(f"{name}: wrong % (threshold {t:.2f})" for name, t in thresholds.items())], rows)


def print_worst(partitions: dict[str, Partition], measured: MeasuredModel) -> None:
    """The bona fide clips with the lowest LLR and the spoofs with the highest."""
    found = []
    for title, partition in partitions.items():
        llr = measured.detector.card.calibration.llr(measured.scores[title])
        found += [(value, title, trial) for value, trial in zip(llr, partition.trials, strict=True)]
    found.sort(key=lambda item: item[0])
    bonafide = [item for item in found if item[2].key == "bonafide"][:WORST]
    spoof = [item for item in reversed(found) if item[2].key == "spoof"][:WORST]
    rows = [
        [trial.utt_id, title, f"{trial.key} {trial.attack}".removesuffix(" -"), trial.speaker, f"{value:+.1f}"]
        for value, title, trial in [*bonafide, *spoof]
    ]
    table(["clip", "set", "is", "speaker", "LLR"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument(
        "--weights", type=Path, default=Path("../shared/fixtures/weights"), help="folder of the authors' checkpoints"
    )
    parser.add_argument("--models", nargs="+", default=["LCNN-mixed", "AASIST", "AASIST-L"])
    parser.add_argument("--curves", type=int, default=2, help="how many models are measured under all conditions")
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "figures" / "robustness")
    args = parser.parse_args()
    os.environ.setdefault("AASIST_WEIGHTS", str(args.weights.resolve()))
    partitions = {}
    for title, (name, part) in SETS.items():
        partitions[title] = open_data_set(name.format(data=args.data)).partition(part)
    train = [
        t for name in ("mixed", "LA_mini") for t in open_data_set(f"2019:{args.data}/{name}").partition("train").trials
    ]
    dev = partitions["mixed dev"]
    waveforms = list(Waveforms(dev))
    models = {}
    for number, name in enumerate(args.models):
        detector = Detector.from_checkpoint(name, "cpu", "torch")
        scores = {title: score(detector, partition) for title, partition in partitions.items()}
        conditions = CONDITIONS if number < args.curves else {}
        changed = {title: score_changed(detector, waveforms, change) for title, change in conditions.items()}
        models[Path(name).stem] = MeasuredModel(detector, scores, changed)
        print(f"scored with {name}", file=sys.stderr)
    first = next(iter(models.values()))
    print_groups(partitions, models, {trial.attack for trial in train})
    for title in ("mixed dev", "2021 LA"):
        print_errors(partitions[title], first, title)
    print_worst(partitions, first)
    curves = {
        name: {title: eer(dev, values) for title, values in measured.conditions.items()}
        for name, measured in models.items()
        if measured.conditions
    }
    table(["mixed dev", *curves], [[c, *(f"{curve[c]:.1f}" for curve in curves.values())] for c in CONDITIONS])
    write_figure(robustness(curves), args.figure, ["png"])


if __name__ == "__main__":
    run(main)
