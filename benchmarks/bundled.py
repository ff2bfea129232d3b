"""Make the bundled detector, and score every fold of benchmarks/generalise.py by an output layer fitted without it.

    python benchmarks/generalise.py folds --prompts data/prompts                # docs/rebuild.md
    python benchmarks/bundled_network.py                                        # of each fold, of all clips
    python benchmarks/bundled.py features --init whisper-base.pt                # ten minutes for each of seven passes
    python benchmarks/bundled.py conditions --init whisper-base.pt              # held-out clips with noise, codecs, …
    python benchmarks/bundled.py fit --init whisper-base.pt                     # every fold, two sets, the checkpoint
    python benchmarks/bundled.py curve --init whisper-base.pt                   # what less speech costs
    python benchmarks/bundled.py copies --init whisper-base.pt                  # what each kind of copy is worth

Whisper's encoder is as published, so each clip's features are computed once for all folds: in pass 0 of the chunk that
is scored, in each other pass of crops that went through what one of the model's experts is for. The log odds of the
network on the spectrum are added to the fitted experts with a common weight. docs/model_card.md has the numbers.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(Path(__file__).parent))

from bundled_network import network_path
from card import CONDITIONS, score_changed
from generalise import EVEN, FOLDS, Clip, HeldOut, spread, write_fold_scores

from audio import reading
from common.command import run
from common.files import replacing, write_text
from config import load_config, to_dict
from corpora.folders import CsvList
from corpora.trials import Partition, Trial
from data_utils import open_waveforms, score_loader
from metrics.calibration import fit_calibration
from metrics.error_rates import compute_eer
from metrics.scores import BONAFIDE
from models import build_model
from models.Whisper_Stats import MixtureOfExperts
from scoring.detector import Detector
from scoring.engines import TorchEngine
from training.linear import Samples, fit_output_layer, pass_features
from training.model import load_initial
from training.neural_vocoders import KINDS
from utils import computes_bf16, load_checkpoint, save_checkpoint

OPUS = {"name": "codec", "formats": ["opus"], "bitrates": [6, 64]}  # kbit/s
LOSSY = {
    "name": "codec",
    "formats": ["opus", "opus", "opus", "mp3", "mp3", "mp3", "aac", "amr_nb", "mu_law", "a_law", "g722"],
    "bitrates": [4.75, 64],
}
ROOM, NOISE = {"name": "room", "probability": 0.35}, {"name": "noise", "snr": [5, 30]}
NOISY = ("noisy", {"augmentation": (ROOM, NOISE), "crop_samples": None})
PASSES = [  # over the clips: the expert that is fitted to the crops, and what these went through
    ("as it is", {}),
    ("coded", {"augmentation": (LOSSY,), "crop_samples": None}),
    NOISY,
    ("short", {"augmentation": (), "crop_samples": 24_000}),  # 1.5 s, repeated
    ("opus", {"augmentation": (OPUS,), "crop_samples": None}),
    NOISY,
    NOISY,
]
EXPERTS = list(dict.fromkeys(expert for expert, _ in PASSES))  # of the model, in its order
SHARES = (0.125, 0.25, 0.5)  # of the training speech, in `curve`
ALONE = 0.3  # weight of copies by one vocoder, beside a clip's
COPY_WEIGHTS = {"sinusoidal": ALONE} | dict.fromkeys(KINDS, 0.13)  # of all vocoders together (docs/generalise.md)
PROMPT_WEIGHT = 0.05  # with more, spoofs of other recordings pass: no generator was recorded as the prompts were
NETWORK_WEIGHT = 0.6  # of the network's log odds in every expert (docs/generalise.md)
# Added to these experts: they and the network take more bona fide speech for spoof than the other way round.
EXPERT_BIAS = {"coded": 0.5, "short": 0.8, "opus": 1.5}
NETWORK_SCALE = 4.0  # log odds that are one unit of the feature; beyond twice as many it is cut
CAUTIONS = {"narrowband": "telephone, 300–3400 Hz", "short": "the first 1 s"}  # conditions of a recording
RECODED = ("mp3, 64 kbit/s", "opus, 16 kbit/s")
IN_DOMAIN = ("mixed/ASVspoof2019_LA_dev", "LA_mini/ASVspoof2019_LA_eval")
OF = "clips whose sources and generators were left out of training"


class Features:
    """Features of the clips of all.csv and their sinusoidal copies; of prompts.csv and copies.csv: in files.

    Files are made where they are missing. Neural copies, copies.csv, have pass 0 alone. added: the prompts and these.
    """

    def __init__(self, args, passes: Iterable[int], added: bool = True):
        self.config = load_config(args.config)
        alone = {key: value for key, value in self.config.model_config.items() if key != "network"}
        self.model = load_initial(replace(self.config, model_config=alone), args.init)
        self.partition = CsvList(args.output / "all.csv").partition("train").with_vocoded(self.config.vocode)
        parts = {"features": self.partition}
        for name in ("prompts", "copies") if added else ():
            parts[name] = CsvList(args.output / f"{name}.csv").partition("train")
        self.trials = [trial for part in parts.values() for trial in part.trials]
        self.row_of = {trial.utt_id: row for row, trial in enumerate(self.trials)}
        self.originals = {utt_id: utt_id.rpartition("~")[0] for utt_id in self.partition.copies}
        self.copy_weights, self.prompts = COPY_WEIGHTS, set()
        if added:
            clips = {Path(t.utt_id).stem: t.utt_id for t in self.partition.trials if t.utt_id not in self.originals}
            self.originals |= {t.utt_id: clips[Path(t.utt_id).stem] for t in parts["copies"].trials}
            self.prompts = {trial.utt_id for trial in parts["prompts"].trials}
        self.passes = []
        for number in passes:
            there = {name: part for name, part in parts.items() if number == 0 or name != "copies"}
            found = [self._pass(args.output / f"{name}_{number}.npy", part, number) for name, part in there.items()]
            self.passes.append(np.concatenate(found))

    def _pass(self, path: Path, partition: Partition, number: int) -> np.ndarray:
        """(N, features)."""
        if not path.exists():
            waveforms = open_waveforms(partition, self.config, torch.device("cpu"))
            config = replace(self.config, **PASSES[number][1])
            found = pass_features(self.model, waveforms, config, number)
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.save(file, found)
        return np.load(path, mmap_mode="r")

    def rows(self, part: Partition) -> np.ndarray:
        """Of the part's clips."""
        return np.array([self.row_of[trial.utt_id] for trial in part.trials])

    def training_rows(self, utt_ids: set[str], families: frozenset[str]) -> np.ndarray:
        """Rows of these clips, of all prompts, and of the clips' copies, but for those of these families of generators.

        Only vocoders that have a weight are used.
        """
        copies = (self.trials[self.row_of[copy]] for copy, original in self.originals.items() if original in utt_ids)
        used = (copy for copy in copies if copy.attack in self.copy_weights)
        chosen = utt_ids | self.prompts | {copy.utt_id for copy in used if not Clip.of(copy).families & families}
        return np.array([row for utt_id, row in self.row_of.items() if utt_id in chosen])

    def weight(self, trial: Trial) -> float:
        """Of a trial, beside a clip's."""
        if trial.utt_id in self.prompts:
            return PROMPT_WEIGHT
        if trial.utt_id in self.originals:
            return self.copy_weights[trial.attack]
        return 1.0

    def fit(self, rows: np.ndarray, ridge: float) -> None:
        """Fit the output layer to these rows of all passes. A source's clips of one attack weigh as their root."""
        trials = [self.trials[row] for row in rows]
        groups = [f"{trial.source} {trial.attack}" for trial in trials]
        _, index, count = np.unique(groups, return_inverse=True, return_counts=True)
        weight = count[index] ** -0.5 * np.array([self.weight(trial) for trial in trials])
        columns = np.array([trial.label == BONAFIDE for trial in trials]), weight, np.array([t.source for t in trials])
        parts = []
        for number, features in enumerate(self.passes):
            there = rows < len(features)
            own = features[rows[there]]
            known = np.isfinite(own[:, 0])  # the last trials of a pass of crops may be missing
            expert = np.full(known.sum(), EXPERTS.index(PASSES[number][0]))
            parts.append(Samples(own[known], *(column[there][known] for column in columns), expert))
        fit_output_layer(self.model, Samples(*map(np.concatenate, zip(*parts, strict=True))), ridge)

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """(N,) of the chunks that are scored."""
        with torch.inference_mode():
            features = torch.from_numpy(np.ascontiguousarray(self.passes[0][rows]))
            return self.model.out_layer(self.model.eval().scale(features))[:, BONAFIDE].double().numpy()


def fit_fold(
    features: Features, args, fold: int, choose: Callable[[Sequence[Trial]], Iterable[Trial]] = list
) -> Partition:
    """Fit the output layer without what the fold is tested with; returns its eval trials.

    choose: which of the training trials to use.
    """
    lists = CsvList(args.output / f"fold_{fold}.csv")
    held, kept = lists.partition("eval"), lists.partition("train")
    families = frozenset().union(*(Clip.of(trial).families for trial in held.trials))
    features.fit(features.training_rows({trial.utt_id for trial in choose(kept.trials)}, families), args.ridge)
    return held


def read_networks(folder: Path, parts: Iterable[str | int], seed: int) -> dict:
    """The weights that benchmarks/bundled_network.py left for each part. Raises UserError where one is missing."""
    return {part: load_checkpoint(network_path(folder, part, seed))["model"] for part in parts}


def with_network(features: Features, network: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    """The model as it is fitted now, with the log odds of a network with these weights as last feature."""
    fitted = features.model.state_dict()
    weights = fitted | {f"network.{name}": tensor for name, tensor in network.items()}
    added = {"running_mean": 0.0, "running_var": NETWORK_SCALE**2, "weight": 1.0, "bias": 0.0}
    for name, value in added.items():
        weights[f"standardise.{name}"] = torch.cat([fitted[f"standardise.{name}"], torch.tensor([value])])
    weight = torch.full([len(EXPERTS)], NETWORK_SCALE * NETWORK_WEIGHT)
    bias = torch.tensor([EXPERT_BIAS.get(expert, 0.0) for expert in EXPERTS])
    columns = {"gate": 0 * weight, "experts": torch.stack([0 * weight, weight], 1)}
    for name, column in columns.items():
        name = f"out_layer.{name}.weight"
        weights[name] = torch.cat([fitted[name], column.reshape(-1, 1)], dim=1)
    weights["out_layer.experts.bias"] = fitted["out_layer.experts.bias"] + torch.stack([0 * bias, bias], 1).flatten()
    model = build_model(features.config.model_config)
    model.load_state_dict(weights)
    return model.eval()


def score_clips(features: Features, network: Mapping[str, torch.Tensor], part: Partition) -> np.ndarray:
    """(N,) scores of the part's clips, by the model as it is fitted now and this network."""
    model, device = with_network(features, network), torch.device("cpu")
    loader = score_loader(open_waveforms(part, features.config, device), model.nb_samp, features.config)
    detector = Detector(TorchEngine(model, device, "bf16" if computes_bf16() else "fp32"))
    return detector.score(x for x, _ in tqdm(loader, part.name, disable=None))


def fit(args) -> None:
    """Score each fold by models that are made without it; then fit all clips and write the checkpoint.

    The first seed's network is joined to all clips' layers, and its scores of the folds go into the checkpoint.
    """
    measured, first = json.loads((args.output / "conditions.json").read_text()), args.seeds[0]
    networks = {seed: read_networks(args.output, range(FOLDS), seed) for seed in args.seeds}
    of_all = read_networks(args.output, ["all"], first)["all"]
    features, folds = Features(args, range(len(PASSES))), []
    for fold in range(FOLDS):
        held = fit_fold(features, args, fold)
        own = CsvList(args.output / f"fold_{fold}.csv").partition("dev")
        flattering = HeldOut.of(own, score_clips(features, networks[first][fold], own))
        by_seed = []
        for seed in args.seeds:
            scores = score_clips(features, networks[seed][fold], held)
            by_seed.append(HeldOut.read(write_fold_scores(args.output, args.name, fold, held, scores, seed), held))
        folds.append(by_seed[0])
        errors = ", ".join(f"{100 * each.eer():.1f}" for each in by_seed)
        of_dev = f"{100 * flattering.eer():.1f} % on a dev set of the training sources"
        print(f"fold {fold}: EER {errors} %, {of_dev}", flush=True)
    print_in_domain(features, args)
    features.fit(np.arange(len(features.trials)), args.ridge)
    write_checkpoint(args.output / f"{args.name}.pth", features, with_network(features, of_all), folds, measured)


def print_in_domain(features: Features, args) -> None:
    """Print the EER of a dev and an eval set by linear layers fitted to all else, their sources and generators too."""
    clips = CsvList(args.output / "all.csv").partition("train")
    for name in IN_DOMAIN:
        own = clips.take(np.array([name in trial.utt_id for trial in clips.trials]))
        others = [row for utt_id, row in features.row_of.items() if name not in features.originals.get(utt_id, utt_id)]
        features.fit(np.array(others), args.ridge)
        eer = HeldOut.of(own, features.scores(features.rows(own))).eer()
        print(f"{name}: EER {100 * eer:.1f} %, linear layers with its sources and generators in training", flush=True)


def conditions(args) -> None:
    """Errors on held-out clips, pooled over the folds, under each condition of benchmarks/card.py: print and keep.

    Printed in percent: the EER with its standard deviation over seeds, and bona fide and spoofed clips judged wrongly
    at the EER's threshold of clips as they are. The first seed's are kept for the checkpoint.
    """
    networks = {seed: read_networks(args.output, range(FOLDS), seed) for seed in args.seeds}
    features, rng = Features(args, range(len(PASSES))), np.random.default_rng(0)
    labels, scores = [], {seed: {name: [] for name in CONDITIONS} for seed in args.seeds}
    for fold in range(FOLDS):
        held = fit_fold(features, args, fold)
        label = held.is_bonafide()
        rows = np.concatenate([rng.choice(np.flatnonzero(label == kind), args.clips, False) for kind in (False, True)])
        labels += label[rows].tolist()
        waveforms = [reading.read(held.path(held.trials[row])) for row in rows]
        for seed, of_folds in networks.items():
            detector = Detector(TorchEngine(with_network(features, of_folds[fold]), torch.device("cpu")))
            for name, change in CONDITIONS.items():
                scores[seed][name] += score_changed(detector, waveforms, change).tolist()
    errors = {seed: condition_errors(found, labels) for seed, found in scores.items()}
    for name in CONDITIONS:
        eers, *wrong = zip(*(of_seed[name] for of_seed in errors.values()), strict=True)
        print(f"| {name} | {spread(eers, 1)} | {' | '.join(f'{np.mean(each):.0f}' for each in wrong)} |", flush=True)
    first = {name: np.array(values) for name, values in scores[args.seeds[0]].items()}
    moved = [np.percentile(np.abs(first[name] - first["as it is"]), 90) for name in RECODED]
    rates = {name: errors[args.seeds[0]][condition][0] / 100 for name, condition in CAUTIONS.items()}
    found = {"error_rates": rates, "recoding_spread": float(max(moved))}
    write_text(args.output / "conditions.json", json.dumps(found))


def condition_errors(scores: Mapping[str, Sequence[float]], labels: Sequence[bool]) -> dict[str, tuple[float, ...]]:
    """{condition: its EER, and bona fide and spoofed clips judged wrongly}, in percent.

    Wrongly: at the threshold of the EER of "as it is". labels: True for bona fide.
    """
    label, found = np.array(labels), {name: np.array(values) for name, values in scores.items()}
    threshold = compute_eer(found["as it is"][label], found["as it is"][~label]).threshold
    return {
        name: (
            100 * compute_eer(score[label], score[~label]).eer,
            *(100 * np.mean((score[label == kind] > threshold) != kind) for kind in (True, False)),
        )
        for name, score in found.items()
    }


def curve(args) -> None:
    """What less speech costs: the folds' mean EER of one layer for recordings as they are, fitted to a share of it.

    A share of the clips, of the sources, or of the generators' families with all bona fide speech. A table is printed:
    mean and standard deviation over random choices.
    """
    features = Features(args, [0], added=False)
    features.model.out_layer = MixtureOfExperts(features.model.standardise.num_features, 1)
    parts = {
        "clips": lambda trial: trial.utt_id,
        "sources": lambda trial: trial.source,
        "generators": lambda trial: "" if trial.label == BONAFIDE else min(Clip.of(trial).families),
    }
    for name, part in parts.items():
        for share in SHARES:
            choices = [partial(some, part=part, share=share, seed=seed) for seed in range(args.choices)]
            found = [np.mean(held_out_errors(features, args, choose)) for choose in choices]
            print(f"| {name} | {share} | {np.mean(found):.1f} ± {np.std(found):.1f} |", flush=True)
    print(f"| all | 1 | {np.mean(held_out_errors(features, args)):.1f} |")


def copies(args) -> None:
    """What copies are worth: EERs in percent, by fold and in the mean, of one layer for recordings as they are.

    It learns no copies, those of each vocoder alone, those of the neural ones, and all that are used. Rows are printed.
    """
    features = Features(args, [0])
    features.model.out_layer = MixtureOfExperts(features.model.standardise.num_features, 1)
    neural = {kind: COPY_WEIGHTS[kind] for kind in KINDS}
    for weights in ({}, *({vocoder: ALONE} for vocoder in COPY_WEIGHTS), neural, COPY_WEIGHTS):
        features.copy_weights = weights
        errors = held_out_errors(features, args)
        cells = [", ".join(weights) or "none", *(f"{error:.1f}" for error in (*errors, np.mean(errors)))]
        print(f"| {' | '.join(cells)} |", flush=True)


def held_out_errors(
    features: Features, args, choose: Callable[[Sequence[Trial]], Iterable[Trial]] = list
) -> list[float]:
    """The EER of each fold in percent. choose: which of the training trials to use."""
    parts = (fit_fold(features, args, fold, choose) for fold in range(FOLDS))
    return [100 * HeldOut.of(part, features.scores(features.rows(part))).eer() for part in parts]


def some(trials: Sequence[Trial], part: Callable[[Trial], str], share: float, seed: int) -> list[Trial]:
    """The trials of a random share of the parts; those of part "" all stay."""
    names = sorted({part(trial) for trial in trials} - {""})
    kept = {"", *np.random.default_rng(seed).choice(names, max(1, round(share * len(names))), replace=False)}
    return [trial for trial in trials if part(trial) in kept]


def write_checkpoint(
    path: Path, features: Features, model: torch.nn.Module, folds: list[HeldOut], measured: dict
) -> None:
    """The model with matrices in half precision, and what follows from the scores of the folds and the conditions."""
    score, label, weight = (
        np.concatenate(parts) for parts in zip(*((o.score, o.is_bonafide, o.weights()) for o in folds), strict=True)
    )
    eer = compute_eer(score[label], score[~label]).eer
    calibration = fit_calibration(score, label, EVEN, weight)
    half = ("encoder.", "network.")
    fields = {
        "config": to_dict(features.config),
        "model": {n: x.half() if x.dim() > 1 and n.startswith(half) else x for n, x in model.state_dict().items()},
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
    computing.add_argument("--passes", type=int, nargs="+", default=range(len(PASSES)), help="default: all")
    computing.set_defaults(do=lambda args: Features(args, args.passes))
    fitting = commands.add_parser("fit", help="fit the output layer, for every fold and for all clips")
    fitting.add_argument("--name", default="Whisper-broad", help="of scores and checkpoint (default: %(default)s)")
    fitting.set_defaults(do=fit)
    changing = commands.add_parser("conditions", help="held-out clips with noise, codecs, cut short")
    changing.add_argument("--clips", type=int, default=25, help="of each class in each fold (default: %(default)s)")
    changing.set_defaults(do=conditions)
    varying = commands.add_parser("curve", help="what less speech costs: fits to a share of it")
    varying.add_argument("--choices", type=int, default=3, help="random ones of each share (default: %(default)s)")
    varying.set_defaults(do=curve)
    for command in (fitting, changing):
        command.add_argument(
            "--seeds", type=int, nargs="+", default=[0], help="of the networks; the first is shipped (default: 0)"
        )
    copying = commands.add_parser("copies", help="what each kind of copy is worth")
    copying.set_defaults(do=copies)
    for command in (fitting, changing, varying, copying):
        command.add_argument("--ridge", type=float, default=0.06, help="default: %(default)s")
    for command in (computing, fitting, changing, varying, copying):
        command.add_argument("--init", required=True, help="Whisper's published weights")
    args = parser.parse_args()
    args.do(args)


if __name__ == "__main__":
    run(main)
