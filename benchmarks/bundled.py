"""Make the bundled detector, and score every fold of benchmarks/generalise.py by an output layer fitted without it.

    python benchmarks/generalise.py folds
    python benchmarks/bundled.py features --init whisper-base.pt --passes 0 1 2 3   # minutes; several may run at once
    python benchmarks/bundled.py conditions --init whisper-base.pt              # held-out clips with noise, codecs, …
    python benchmarks/bundled.py fit --init whisper-base.pt                     # every fold, then the checkpoint

The encoder is as published, so each clip's features are computed once for all folds: in pass 0 of the chunk that is
scored, in each other pass of crops that went through what one of the model's experts is for. docs/model_card.md has the
numbers.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(Path(__file__).parent))

from card import CONDITIONS, score_changed
from generalise import EVEN, FOLDS, Clip, HeldOut, write_fold_scores

from audio import reading
from common.command import run
from common.files import replacing, write_text
from config import load_config, to_dict
from corpora.folders import CsvList
from corpora.trials import Partition
from data_utils import open_waveforms
from metrics.calibration import fit_calibration
from metrics.error_rates import compute_eer
from metrics.scores import BONAFIDE
from scoring.detector import Detector
from scoring.engines import TorchEngine
from training.linear import Samples, fit_output_layer, pass_features
from training.model import load_initial
from utils import save_checkpoint

LOSSY = {
    "name": "codec",
    "formats": ["opus", "opus", "opus", "mp3", "mp3", "mp3", "aac", "amr_nb", "mu_law", "a_law", "g722"],
    "bitrates": [4.75, 64],  # kbit/s
}
EXPERTS = {  # of the model, in its order: what the crops that each is fitted to have been through
    "as it is": {},
    "coded": {"augmentation": (LOSSY,), "crop_samples": None},
    "noisy": {
        "augmentation": ({"name": "room", "probability": 0.35}, {"name": "noise", "snr": [5, 30]}),
        "crop_samples": None,
    },
    "short": {"augmentation": (), "crop_samples": 24_000},  # 1.5 s, repeated
}
COPY_WEIGHT = 0.3  # more made text-to-speech worse; with today's features copies hardly matter (docs/generalise.md)
CAUTIONS = {"narrowband": "telephone, 300–3400 Hz", "short": "the first 1 s"}  # conditions of a recording
RECODED = ("mp3, 64 kbit/s", "opus, 16 kbit/s")
OF = "clips whose sources and generators were left out of training"


class Features:
    """Features of the clips of all.csv and of their vocoded copies, in files that are made where they are missing."""

    def __init__(self, args, passes: list[int]):
        self.config = load_config(args.config)
        self.model = load_initial(self.config, args.init)
        self.partition = CsvList(args.output / "all.csv").partition("train").with_vocoded(self.config.vocode)
        self.trials = self.partition.trials
        self.row_of = {trial.utt_id: row for row, trial in enumerate(self.trials)}
        self.passes = [self._pass(args.output / f"features_{number}.npy", number) for number in passes]

    def _pass(self, path: Path, number: int) -> np.ndarray:
        """(N, features)."""
        if not path.exists():
            waveforms = open_waveforms(self.partition, self.config, torch.device("cpu"))
            config = replace(self.config, **list(EXPERTS.values())[number])
            found = pass_features(self.model, waveforms, config, number)
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.save(file, found)
        return np.load(path, mmap_mode="r")

    def rows(self, part: Partition) -> np.ndarray:
        """Of the part's clips."""
        return np.array([self.row_of[trial.utt_id] for trial in part.trials])

    def with_copies(self, utt_ids: set[str], families: frozenset[str]) -> np.ndarray:
        """Rows of these clips, and of their copies but for those of these families of generators."""
        copied = {
            utt_id
            for utt_id in self.partition.copies
            if utt_id.rpartition("~")[0] in utt_ids
            and not Clip.of(self.trials[self.row_of[utt_id]]).families & families
        }
        return np.array([row for utt_id, row in self.row_of.items() if utt_id in utt_ids | copied])

    def fit(self, rows: np.ndarray, ridge: float) -> None:
        """Fit the output layer to all passes of these rows.

        A source's clips of one attack weigh as their root, and vocoded copies COPY_WEIGHT of that.
        """
        trials = [self.trials[row] for row in rows]
        groups = [f"{trial.source} {trial.attack}" for trial in trials]
        _, index, count = np.unique(groups, return_inverse=True, return_counts=True)
        is_copy = np.array([trial.utt_id in self.partition.copies for trial in trials])
        weight = count[index] ** -0.5 * np.where(is_copy, COPY_WEIGHT, 1)
        columns = np.array([trial.label == BONAFIDE for trial in trials]), weight, np.array([t.source for t in trials])
        features = np.concatenate([each[rows] for each in self.passes])
        experts = np.repeat(np.arange(len(self.passes)), len(rows))
        samples = Samples(features, *(np.tile(column, len(self.passes)) for column in columns), experts)
        known = np.isfinite(features[:, 0])  # the last trials of a pass of crops may be missing
        fit_output_layer(self.model, Samples(*(column[known] for column in samples)), ridge)

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """(N,) of the chunks that are scored."""
        with torch.inference_mode():
            features = torch.from_numpy(np.ascontiguousarray(self.passes[0][rows]))
            return self.model.out_layer(self.model.eval().scale(features))[:, BONAFIDE].double().numpy()


def fit_fold(features: Features, args, fold: int) -> Partition:
    """Fit the output layer without what the fold is tested with; returns its eval trials."""
    lists = CsvList(args.output / f"fold_{fold}.csv")
    held, kept = lists.partition("eval"), lists.partition("train")
    families = frozenset().union(*(Clip.of(trial).families for trial in held.trials))
    features.fit(features.with_copies({trial.utt_id for trial in kept.trials}, families), args.ridge)
    return held


def fit(args) -> None:
    """Score each fold by an output layer that is fitted without it; then fit all clips and write the checkpoint."""
    measured = json.loads((args.output / "conditions.json").read_text())
    features, folds = Features(args, list(range(len(EXPERTS)))), []
    for fold in range(FOLDS):
        held = fit_fold(features, args, fold)
        own = CsvList(args.output / f"fold_{fold}.csv").partition("dev")
        flattering = HeldOut.of(own, features.scores(features.rows(own)))
        file = write_fold_scores(args.output, args.name, fold, held, features.scores(features.rows(held)))
        folds.append(HeldOut.read(file, held))
        of_dev = f"{100 * flattering.eer():.1f} % on a dev set of the training sources"
        print(f"fold {fold}: EER {100 * folds[-1].eer():.1f} %, {of_dev}", flush=True)
    features.fit(np.arange(len(features.trials)), args.ridge)
    write_checkpoint(args.output / f"{args.name}.pth", features, folds, measured)


def conditions(args) -> None:
    """Errors on held-out clips, pooled over the folds, under each condition of benchmarks/card.py: print and keep.

    Printed in percent: the EER, and bona fide and spoofed clips judged wrongly at the EER's threshold of clips as they
    are.
    """
    features, rng = Features(args, list(range(len(EXPERTS)))), np.random.default_rng(0)
    labels, scores = [], {name: [] for name in CONDITIONS}
    for fold in range(FOLDS):
        held = fit_fold(features, args, fold)
        detector, label = Detector(TorchEngine(features.model.eval(), torch.device("cpu"))), held.is_bonafide()
        rows = np.concatenate([rng.choice(np.flatnonzero(label == kind), args.clips, False) for kind in (False, True)])
        labels += label[rows].tolist()
        waveforms = [reading.read(held.path(held.trials[row])) for row in rows]
        for name, change in CONDITIONS.items():
            scores[name] += score_changed(detector, waveforms, change).tolist()
    label, scores = np.array(labels), {name: np.array(values) for name, values in scores.items()}
    eers = {name: compute_eer(score[label], score[~label]).eer for name, score in scores.items()}
    threshold = compute_eer(scores["as it is"][label], scores["as it is"][~label]).threshold
    for name, score in scores.items():
        wrong = (100 * np.mean((score[label == kind] > threshold) != kind) for kind in (True, False))
        print(f"| {name} | {100 * eers[name]:.1f} | {' | '.join(f'{each:.0f}' for each in wrong)} |", flush=True)
    moved = [np.percentile(np.abs(scores[name] - scores["as it is"]), 90) for name in RECODED]
    found = {"error_rates": {name: eers[condition] for name, condition in CAUTIONS.items()}}
    write_text(args.output / "conditions.json", json.dumps(found | {"recoding_spread": float(max(moved))}))


def write_checkpoint(path: Path, features: Features, folds: list[HeldOut], measured: dict) -> None:
    """The model with matrices in half precision, and what follows from the scores of the folds and the conditions."""
    score, label, weight = (
        np.concatenate(parts) for parts in zip(*((o.score, o.is_bonafide, o.weights()) for o in folds), strict=True)
    )
    eer = compute_eer(score[label], score[~label]).eer
    calibration = fit_calibration(score, label, EVEN, weight)
    state = features.model.state_dict()
    fields = {
        "config": to_dict(features.config),
        "model": {name: x.half() if x.dim() > 1 and name.startswith("encoder.") else x for name, x in state.items()},
        "dev_eer": eer,
        "dev_min_tdcf": None,
        "threshold": -calibration.b / calibration.a,  # so that verdict and probability agree
        "threshold_source": f"LLR 0 on {len(score):,} {OF}",
        "calibration": calibration._asdict(),
        "dev_scores": {
            kind: torch.from_numpy(np.sort(score[which])).float()
            for kind, which in (("bonafide", label), ("spoof", ~label))
        },
        "dev_scores_of": f"{len(score):,} {OF}",
        "recoding_spread": measured["recoding_spread"],
        "error_rates": {"all": eer} | measured["error_rates"],
    }
    save_checkpoint(path, fields)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, pooled EER of the folds {100 * eer:.1f} %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("exp_result/generalise"), help="default: %(default)s")
    parser.add_argument("--config", default=str(ROOT / "config" / "Whisper-broad.conf"), help="default: %(default)s")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    computing = commands.add_parser("features", help="compute features")
    computing.add_argument("--passes", type=int, nargs="+", default=[0], help="numbers of passes that are missing")
    computing.set_defaults(do=lambda args: Features(args, args.passes))
    fitting = commands.add_parser("fit", help="fit the output layer, for every fold and for all clips")
    fitting.add_argument("--name", default="Whisper-broad", help="of scores and checkpoint (default: %(default)s)")
    fitting.set_defaults(do=fit)
    changing = commands.add_parser("conditions", help="held-out clips with noise, codecs, cut short")
    changing.add_argument("--clips", type=int, default=40, help="of each class in each fold (default: %(default)s)")
    changing.set_defaults(do=conditions)
    for command in (fitting, changing):
        command.add_argument("--ridge", type=float, default=0.06, help="default: %(default)s")
    for command in (computing, fitting, changing):
        command.add_argument("--init", required=True, help="Whisper's published weights")
    args = parser.parse_args()
    args.do(args)


if __name__ == "__main__":
    run(main)
