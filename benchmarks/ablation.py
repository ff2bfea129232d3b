"""What each part of a recipe contributes: the recipe without each augmentation and without each source, over seeds.

    python benchmarks/ablation.py --config config/LCNN-mixed.conf --epochs 2 --seeds 1 2 3 --jobs 2

Trains for --epochs epochs, with the recipe's schedule over these, and scores the dev set `--set` with the last weights.
Finished runs stay in --output_dir; the same command goes on.
"""

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from common.command import run
from common.processes import Processes
from common.schema import require
from config import Config, load_config
from corpora.open import open_partition
from corpora.packed import Pack
from corpora.waveforms import Waveforms
from metrics.error_rates import compute_eer
from metrics.score_files import read_scores
from training.data import RunData
from training.run import TrainingRun
from training.seeds import statistics

AUGMENTATIONS = {  # {name in the table: names in the config}
    "rawboost": ("rawboost",),
    "codecs": ("codec",),
    "noise and rooms": ("noise", "room"),
    "band limits": ("band",),
    "level, offset, polarity": ("gain", "offset", "polarity"),
    "silence and speed": ("silence", "speed"),
}


def variants(config: Config) -> dict[str, tuple[Config, str | None]]:
    """{name: (recipe, source that is left out)}"""
    found: dict[str, tuple[Config, str | None]] = {"all": (config, None)}
    for name, specs in AUGMENTATIONS.items():
        kept = tuple(spec for spec in config.augmentation if spec["name"] not in specs)
        found[f"no {name}"] = (replace(config, augmentation=kept), None)
    found["no vocoders"] = (replace(config, vocode=()), None)
    found["no augmentation"] = (replace(config, augmentation=(), vocode=()), None)
    train = open_partition(config.database_path, config.track, "train")
    found |= {f"no {source}": (config, source) for source in sorted({trial.source for trial in train.trials})}
    return found


def without(waveforms: Waveforms, source: str) -> Waveforms:
    """The waveforms without the trials of this source."""
    partition = waveforms.partition
    kept = np.array([trial.source != source for trial in partition.trials])
    own = len(kept) - len(partition.copies)
    trials = [trial for trial, keep in zip(partition.trials, kept, strict=True) if keep]
    names = {trial.utt_id for trial in trials}
    files, copies = ({k: v for k, v in d.items() if k in names} for d in (partition.files, partition.copies))
    rest = replace(partition, trials=trials, files=files, copies=copies)
    return Waveforms(rest, rows_of(waveforms.pack, kept[:own]), rows_of(waveforms.copies, kept[own:]))


def rows_of(pack: Pack | None, rows: np.ndarray) -> Pack | None:
    return pack and replace(pack, starts=pack.starts[rows], lengths=pack.lengths[rows])


def folder_of(args, name: str, seed: int) -> Path:
    return args.output_dir / f"{name.replace(' ', '_').replace('/', '-').replace(',', '')}_ep{args.epochs}_seed{seed}"


def train(args, name: str, seed: int) -> None:
    """Train one variant in this process and write its dev scores."""
    config, source = variants(load_config(args.config))[name]
    config = replace(config, seed=seed, num_epochs=args.epochs, eval_sets=(), num_workers=args.num_workers)
    device, processes = torch.device(args.device), Processes(timedelta(minutes=1))
    data = RunData(config, ("train", "dev", "eval"), device)
    data.pack()  # all of it, once for every variant
    if source:
        data.waveforms["train"] = without(data.waveforms["train"], source)
        data.partitions["train"] = data.waveforms["train"].partition
    one = TrainingRun(config, data, folder_of(args, name, seed), device, processes)
    one.begin(overwrite=True)
    progress = one.state.progress
    while progress.epoch < args.epochs:
        one.train_epoch()
        progress.epoch, progress.step, progress.loss_sum = progress.epoch + 1, 0, 0.0
    scores, _ = one.score_dev(one.model)
    data.write_scores("dev", scores, scores_of(args, name, seed))


def scores_of(args, name: str, seed: int) -> Path:
    """The score file of a finished run."""
    return folder_of(args, name, seed) / "scores" / "dev.txt"


def measure(path: Path, data_set: str, seen: set[str]) -> dict[str, float]:
    """EERs (%) on the dev trials of `data_set`: of all, and by attack; seen: attacks in training."""
    scores = read_scores(path)
    scores = scores.take(np.array([utt_id.startswith(f"{data_set}/") for utt_id in scores.utt_id]))

    def eer(chosen: np.ndarray) -> float:
        return 100 * compute_eer(scores.bonafide, scores.score[chosen & ~scores.is_bonafide]).eer

    attacks = {name: eer(scores.attack == name) for name in np.unique(scores.attack[~scores.is_bonafide])}
    unseen = [value for name, value in attacks.items() if name not in seen]
    known = [value for name, value in attacks.items() if name in seen]
    return {
        "pooled": eer(~scores.is_bonafide),
        "attacks in training": float(np.mean(known)),
        "other attacks": float(np.mean(unseen)),
        "worst attack": max(attacks.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "config" / "LCNN-mixed.conf")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=1, help="number of runs at once")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--num_workers", type=int, default=0)
    parser.add_argument("--set", default="mixed", help="the data set of the table")
    parser.add_argument("--only", nargs="+", help="only these variants (default: all)")
    parser.add_argument("--one", nargs=2, metavar=("VARIANT", "SEED"), help=argparse.SUPPRESS)
    parser.add_argument("--output_dir", type=Path, default=Path("exp_result/ablation"))
    args = parser.parse_args()
    if args.one:
        train(args, args.one[0], int(args.one[1]))
        return
    config = load_config(args.config)
    known = variants(config)
    names = args.only or list(known)
    require(set(names) <= known.keys(), "--only", " | ".join(known), ", ".join(names))
    todo = [(name, seed) for seed in args.seeds for name in names if not scores_of(args, name, seed).is_file()]

    def job(one: tuple[str, int]) -> None:
        print(f"training {one[0]}, seed {one[1]}", file=sys.stderr)
        command = [sys.executable, *sys.argv, "--one", *map(str, one)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(job, todo))
    trials = open_partition(config.database_path, config.track, "train").trials
    seen = {trial.attack for trial in trials} | set(config.vocode)
    for number, name in enumerate(names):
        rows = {seed: measure(scores_of(args, name, seed), args.set, seen) for seed in args.seeds}
        columns = {key: statistics({seed: row[key] for seed, row in rows.items()}) for key in rows[args.seeds[0]]}
        if not number:
            print(f"| {args.set} dev, EER % | {' | '.join(columns)} |\n|{'---|' * (1 + len(columns))}")
        cells = (
            f"{c['mean']:.1f}" + (f" ± {c['sd']:.1f}" if c.get("sd") is not None else "") for c in columns.values()
        )
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    run(main)
