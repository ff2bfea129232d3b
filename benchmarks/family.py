"""The family side by side: each model with and without RawBoost over several seeds, mean and spread of its EERs.

    python benchmarks/family.py --data ../shared/data/LA_mini --weights ../shared/fixtures/weights \
        --eval_sets folder:../shared/data/LA21_mini --seeds 1 2 3 --markdown

AASIST and AASIST-L start from the authors' weights (--weights: the folder with AASIST.pth and AASIST-L.pth); for the
other models there are none, so they start fresh. Finished runs stay in --output_dir; the same command goes on.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from config import load_config, save_config
from corpora.open import open_data_set, open_eval_sets
from corpora.waveforms import Waveforms
from data_utils import score_loader
from metrics.error_rates import compute_eer
from scoring.detector import Detector
from scoring.engines import TorchEngine
from training.model import load_initial
from training.seeds import statistics

MODELS = {  # config, learning rate
    "RawNet2": ("RawNet2_baseline", 1e-4),
    "AASIST-L": ("AASIST-L", 1e-5),
    "AASIST": ("AASIST", 1e-5),
    "RawGAT-ST": ("RawGATST_baseline", 1e-4),
}
TUNED = ("AASIST", "AASIST-L")
RAWBOOST = ({"name": "rawboost", "combination": "lnl+isd"},)


def train(args, name: str, augmented: bool) -> Path:
    """Train all seeds; returns the path that the names of their folders begin with."""
    config, rate = MODELS[name]
    c = load_config(ROOT / "config" / f"{config}.conf")
    config = replace(
        c,
        model_config=c.model_config | {"nb_samp": args.samples},
        optim_config=replace(c.optim_config, base_lr=rate, lr_min=rate / 10),
        swa=replace(c.swa, last=1),
        num_epochs=args.epochs,
        batch_size=args.batch_size,
        class_weights=(0.5, 0.5),  # LA_mini has as many of each
        augmentation=RAWBOOST if augmented else (),
        precision=args.precision,
        cache="ram",
        cache_path=str(args.output_dir / "packed"),
        num_workers=2,
    )
    args.output_dir.mkdir(parents=True, exist_ok=True)
    path = args.output_dir / f"{name}{'_rawboost' if augmented else ''}.conf"
    save_config(config, path)
    command = [sys.executable, ROOT / "main.py", "--config", path, "--output_dir", args.output_dir, "--seeds"]
    command += [*args.seeds, "--database_path", args.data, "--eval_sets", *args.eval_sets]
    command += ["--init", args.weights / f"{name}.pth"] if name in TUNED else []
    subprocess.run(list(map(str, command)), check=True, stdout=sys.stderr)
    return args.output_dir / f"LA_{path.stem}_ep{config.num_epochs}_bs{config.batch_size}"


def eers(runs: Path, numbers: list[int]) -> dict[str, dict[int, float]]:
    """{data set: {seed: EER (%) of the last epoch's weights}}, dev first."""
    found: dict[str, dict[int, float]] = {}
    for seed in numbers:
        lines = (runs.with_name(f"{runs.name}_seed{seed}") / "log.jsonl").read_text().splitlines()
        evals = [e for e in map(json.loads, lines) if e["event"] == "eval" and e["checkpoint"] == "swa"]
        eers = {"dev": evals[0]["dev_eer_percent"]}
        eers |= {event.get("data_set") or "eval": event["eer_percent"] for event in evals}
        for name, eer in eers.items():
            found.setdefault(name, {})[seed] = eer
    return found


def untuned(args, name: str) -> dict[str, dict[int, float]]:
    """Like `eers`, of the authors' weights without tuning."""
    config = load_config(ROOT / "config" / f"{MODELS[name][0]}.conf")
    config = replace(config, model_config=config.model_config | {"nb_samp": args.samples}, num_workers=0)
    detector = Detector(TorchEngine(load_initial(config, str(args.weights / f"{name}.pth")), torch.device("cpu")))
    corpus, found = open_data_set(args.data), {}
    for partition in (corpus.partition("dev"), corpus.partition("eval"), *open_eval_sets(args.eval_sets, "LA")):
        scores, is_bonafide = (
            detector.score(score_loader(Waveforms(partition), args.samples, config)),
            partition.is_bonafide(),
        )
        found[partition.name] = {0: 100 * compute_eer(scores[is_bonafide], scores[~is_bonafide])[0]}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--eval_sets", nargs="*", default=[])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=2, help="of each run")
    parser.add_argument("--samples", type=int, default=32_000, help="of a chunk")
    parser.add_argument("--batch_size", type=int, default=12)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--output_dir", type=Path, default=Path("exp_result/family"))
    parser.add_argument("--markdown", action="store_true")
    args = parser.parse_args()
    rows = {}
    for name in args.models:
        if name in TUNED:
            rows[f"{name}, not tuned"] = untuned(args, name)
        for augmented in (False, True):
            rows[f"{name}{' + RawBoost' if augmented else ''}"] = eers(train(args, name, augmented), args.seeds)
    sets = list(next(iter(rows.values())))
    line = "| {} |" if args.markdown else "{}"
    print(line.format(" | ".join(["model", *(f"{name} EER %" for name in sets)])))
    if args.markdown:
        print("|---" * (1 + len(sets)) + "|")
    for name, numbers in rows.items():
        found = map(statistics, numbers.values())
        cells = [f"{one['mean']:.1f}" + (f" ± {one['sd']:.1f}" if one["sd"] is not None else "") for one in found]
        print(line.format(" | ".join([name, *cells])))


if __name__ == "__main__":
    main()
