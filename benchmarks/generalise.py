"""A yardstick that cannot flatter: every clip is scored by a model that never met its source, speaker or generator.

    python benchmarks/generalise.py folds                                    # lists of the clips of ../shared/data
    python benchmarks/generalise.py train --config config/AASIST.conf        # any recipe, fold by fold
    python benchmarks/generalise.py score --models AASIST LCNN-mixed         # models that were not trained on the folds
    python benchmarks/generalise.py report                                   # a row for each that was trained or scored

docs/generalise.md explains the folds and has the numbers. `train` leaves out what is done and resumes what was stopped.
"""

import argparse
import csv
import math
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from common.command import run
from common.errors import UserError
from config import Config, load_config
from corpora.asvspoof import ASVspoof2019
from corpora.folders import CsvList
from corpora.trials import Partition, Trial
from corpora.waveforms import Waveforms
from data_utils import score_loader
from metrics.calibration import fit_calibration
from metrics.costs import CostModel, compute_cllr
from metrics.error_rates import compute_eer
from metrics.score_files import read_scores, write_scores
from scoring.detector import Detector

FOLDS = 5
ASSIGNED = Path(__file__).with_name("generalise_folds.csv")  # the fold of each source, found by local search
DEV = 0.04  # fraction of the training clips that shows how a dev set of the training sources flatters
MIN_CLIPS = 5  # of a generator whose EER counts; 20 of a bona fide source
DEFINITE = math.log(4)  # |LLR| of a verdict with 80 % confidence
LOADING = Config(model_config={}, batch_size=16, num_workers=0)
EVEN = CostModel(0.5, 0.495, 0.005, c_fa_cm=1.0)  # a spoof is as likely as bona fide speech, both errors cost the same

# Generators that share the network which makes the waveform, or the whole model, are one family.
FAMILIES = {
    r"hi-?fi-?gan": "HiFi-GAN",
    r"vits|mms-tts|melotts": "VITS",
    r"lyra|soundstream": "Lyra",
    r"griffin.?lim|rtisi-la": "Griffin-Lim",
    r"melgan": "MelGAN",
    r"cyclegan": "CycleGAN-VC",
    r"tacotron": "Tacotron",
    r"fastspeech": "FastSpeech",
    r"freecodec": "FreeCodec",
    r"amazonpolly": "AmazonPolly",
    r"dctts": "DCTTS",
    r"diffspeech|diffgan": "DiffGAN/DiffSpeech",
}
SHARED_SPEAKERS = r"(?:VCTK-)?(p\d{3})|(?:Libri-|LS_)(\d+)|(LJ)|(DAPS-\w+)"  # corpora that several sources cut from
LJ_SPEECH = ("xcmyz/FastSpeech", "ivanvovk/WaveGrad", "keonlee9420/DiffSinger", "keonlee9420/PortaSpeech")
LJ_SPEECH += ("seungwonpark/melgan", "BakerBunker/FreeV")


@dataclass(frozen=True)
class Clip:
    """A recording: its source (a repository or corpus), the families of its generator, and who speaks."""

    path: Path
    label: str
    speaker: str
    attack: str
    source: str

    @classmethod
    def of(cls, trial: Trial) -> "Clip":
        return cls(Path(trial.utt_id), trial.key, trial.speaker, trial.attack, trial.source)

    @property
    def families(self) -> frozenset[str]:
        """Of every stage of the generator (`Tacotron2+HiFi-GAN`); none for bona fide speech."""
        stages = [] if self.label == "bonafide" else self.attack.split("+")
        known = [[name for pattern, name in FAMILIES.items() if re.search(pattern, stage.lower())] for stage in stages]
        return frozenset(name for stage, names in zip(stages, known, strict=True) for name in names or [stage])

    @property
    def tags(self) -> frozenset[str]:
        """What must not lie on both sides, besides the source: its families and its speaker."""
        return self.families | ({self.speaker} if self.speaker else set())


def who(speaker: str, source: str, file: str) -> str:
    """The speaker's name in the corpus, or in the source where the corpus is its own; "" if unknown."""
    if source in LJ_SPEECH or re.search(r"LJ\d{3}-", file):
        return "LJ"
    if found := re.fullmatch(SHARED_SPEAKERS, speaker):
        return next(filter(None, found.groups()))
    return f"{source}/{speaker}" if speaker else ""


def broad(folder: Path) -> list[Clip]:
    with (folder / "clips.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        Clip(
            folder / row["path"],
            row["label"],
            who(row["speaker"], row["source"], row["orig_file"]),
            row["attack"],
            row["source"],
        )
        for row in rows
    ]


def asvspoof_layout(folder: Path, parts: Sequence[str], source: str = "") -> list[Clip]:
    """Clips of a folder in the layout of ASVspoof 2019 LA; in `mixed` the speaker's prefix is the source."""
    clips, data_set = [], ASVspoof2019(folder, "LA")
    for name in parts:
        part = data_set.partition(name)
        for trial in part.trials:
            prefix = source or {"LJ": "FS2"}.get(trial.source, trial.source or trial.speaker)
            clips.append(Clip(part.path(trial), trial.key, who(trial.speaker, prefix, ""), trial.attack, prefix))
    return clips


def all_clips(data: Path) -> list[Clip]:
    """`broad`, `mixed` and LA_mini below `data`; what `make_corpus.py rebuild` makes is a `broad` with LA in it."""
    clips = broad(data / "broad")
    for name, parts, source in (("mixed", ("train", "dev"), ""), ("LA_mini", ("train", "dev", "eval"), "ASVspoof2019")):
        if (data / name).exists():
            clips += asvspoof_layout(data / name, parts, source)
        else:
            print(f"note: without {data / name}", file=sys.stderr)
    return clips


# ------------------------------------------------------------------------------------------------------- the folds


def write_folds(data: Path, folder: Path, prompts: Path | None = None) -> None:
    """Write fold_<k>.csv, lists for `main.py`, all.csv, and prompts.csv of the clips in `prompts`, if given.

    eval: the clips of the fold's sources. train and dev: those of other sources, without any of a speaker or a family
    of generators that eval has.
    """
    clips, extra = all_clips(data), [as_prompt(clip) for clip in broad(prompts)] if prompts else []
    with ASSIGNED.open(newline="") as file:
        fold_of = {row["source"]: int(row["fold"]) for row in csv.DictReader(file)}
    if unknown := sorted({clip.source for clip in clips} - fold_of.keys()):
        raise UserError(f"{ASSIGNED} lacks sources", "a fold for each", ", ".join(unknown))
    folder.mkdir(parents=True, exist_ok=True)
    is_dev = np.random.default_rng(0).random(len(clips)) < DEV
    print(f"{'fold':<6}{'bona fide':>10}{'spoof':>7}{'sources':>9}{'generators':>12}{'train':>7}{'left out':>10}")
    for fold in range(FOLDS):
        held = [clip for clip in clips if fold_of[clip.source] == fold]
        met = {tag for clip in held for tag in clip.tags}
        others = [(clip, dev) for clip, dev in zip(clips, is_dev, strict=True) if fold_of[clip.source] != fold]
        kept = [(clip, "dev" if dev else "train") for clip, dev in others if not clip.tags & met]
        write_list(folder / f"fold_{fold}.csv", kept + [(clip, "eval") for clip in held])
        spoof = [clip for clip in held if clip.label == "spoof"]
        counts = (len(held) - len(spoof), len(spoof), len({clip.source for clip in held}))
        print(f"{fold:<6}{counts[0]:>10}{counts[1]:>7}{counts[2]:>9}{len({clip.attack for clip in spoof}):>12}", end="")
        print(f"{len(kept):>7}{len(others) - len(kept):>10}")
    write_list(folder / "all.csv", [(clip, "train") for clip in clips])
    if extra:
        write_list(folder / "prompts.csv", [(clip, "train") for clip in extra])


def as_prompt(clip: Clip) -> Clip:
    """What one person, or one language, speaks in a package is a source of its own."""
    return replace(clip, source=clip.speaker, speaker="")


def write_list(path: Path, rows: Iterable[tuple[Clip, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "speaker", "attack", "source", "partition"])
        for clip, part in rows:
            where, speaker = os.path.relpath(clip.path, path.parent), clip.speaker.replace(" ", "_")
            writer.writerow([where, clip.label, speaker, clip.attack, clip.source, part])


# ------------------------------------------------------------------------------------- training and scoring the folds


def train(args) -> None:
    """Train every fold with every seed that is not done yet, `--jobs` at once."""
    wanted = [(fold, seed) for seed in args.seeds for fold in args.folds]
    with ThreadPoolExecutor(args.jobs) as pool:
        failed = [code for code in pool.map(lambda pair: train_fold(args, *pair), wanted) if code]
    if failed:
        raise UserError("not every fold is trained", "see the messages above", f"{len(failed)} failed")


def train_fold(args, fold: int, seed: int) -> int:
    """Train or resume one fold; returns the exit code."""
    config = load_config(args.config)
    comment = f"fold{fold}_seed{seed}"
    name = f"{config.track}_{Path(args.config).stem}_ep{config.num_epochs}_bs{config.batch_size}_{comment}"
    if final_scores(args.output / "runs" / name):
        return 0
    command = [sys.executable, str(ROOT / "main.py"), "--output_dir", str(args.output / "runs")]
    if (args.output / "runs" / name).exists():
        command += ["--resume", str(args.output / "runs" / name)]
    else:
        command += ["--config", args.config, "--seed", str(seed), "--comment", comment]
        command += ["--database_path", f"csv:{args.output / f'fold_{fold}.csv'}"]
        command += ["--init", args.init] if args.init else []
    threads = str(max(1, os.cpu_count() // args.jobs))
    return subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": threads}).returncode


def final_scores(run_folder: Path) -> Path | None:
    """The eval scores of a finished run's last weights: the mean of steps if it has one, else that of epochs."""
    files = [run_folder / "scores" / f"eval_{name}.txt" for name in ("ema", "swa")]
    finished = run_folder.is_dir() and '"event": "end"' in (run_folder / "log.jsonl").read_text()
    return next((file for file in files if file.exists()), None) if finished else None


def score(args) -> None:
    """Scores of all clips by models that were trained elsewhere."""
    for model in args.models:
        detector = Detector.from_checkpoint(model)
        for fold in range(FOLDS):
            if not scores_path(args.output, Path(model).stem, fold).exists():
                held = held_out(args.output, fold)
                loader = score_loader(Waveforms(held), detector.engine.nb_samp, LOADING)
                scores = detector.score(x for x, _ in tqdm(loader, f"{model}, fold {fold}", disable=None))
                write_fold_scores(args.output, Path(model).stem, fold, held, scores)


def scores_path(folder: Path, system: str, fold: int, seed: int | None = None) -> Path:
    name = system if seed is None else f"{system}_seed{seed}"
    return folder / "scored" / f"{name}_fold{fold}.txt"


def write_fold_scores(
    folder: Path, system: str, fold: int, held: Partition, scores: np.ndarray, seed: int | None = None
) -> Path:
    """Write the score file of a fold's eval trials; returns its path."""
    path = scores_path(folder, system, fold, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = ([getattr(trial, column) for trial in held.trials] for column in ("utt_id", "attack", "key"))
    write_scores(path, *columns, scores)
    return path


def held_out(folder: Path, fold: int) -> Partition:
    return CsvList(folder / f"fold_{fold}.csv").partition("eval")


# --------------------------------------------------------------------------------------------------------- the report


@dataclass(frozen=True)
class HeldOut:
    """A fold's eval trials with the scores of one model that never met them."""

    score: np.ndarray  # (N,)
    is_bonafide: np.ndarray  # (N,) bool
    attack: np.ndarray  # (N,) str
    source: np.ndarray  # (N,) str

    @classmethod
    def of(cls, partition: Partition, scores: np.ndarray) -> "HeldOut":
        columns = ([getattr(trial, name) for trial in partition.trials] for name in ("attack", "source"))
        return cls(scores, partition.is_bonafide(), *map(np.array, columns))

    @classmethod
    def read(cls, path: Path, partition: Partition) -> "HeldOut":
        found = read_scores(path)
        score_of = dict(zip(found.utt_id.tolist(), found.score.tolist(), strict=True))
        return cls.of(partition, np.array([score_of[trial.utt_id] for trial in partition.trials]))

    def eer(self) -> float:
        return compute_eer(self.score[self.is_bonafide], self.score[~self.is_bonafide]).eer

    def weights(self) -> np.ndarray:
        """(N,): sources of bona fide speech and generators weigh as the square root of their clips."""
        group = np.where(self.is_bonafide, self.source, self.attack)
        _, index, count = np.unique(group, return_inverse=True, return_counts=True)
        return count[index] ** -0.5


def calibrated(folds: Sequence[HeldOut]) -> list[np.ndarray]:
    """LLRs of each fold, by a calibration fitted to the other folds."""
    llrs = []
    for held in folds:
        rest = [other for other in folds if other is not held]
        score, label, weight = (
            np.concatenate(parts) for parts in zip(*((o.score, o.is_bonafide, o.weights()) for o in rest), strict=True)
        )
        llrs.append(fit_calibration(score, label, EVEN, weight).llr(held.score))
    return llrs


def measures(folds: Sequence[HeldOut]) -> dict[str, list[float]]:
    """Each number's value in every fold, in percent but for Cllr."""
    found, generators, sources = defaultdict(list), {}, {}
    for held, llr in zip(folds, calibrated(folds), strict=True):
        label, definite, wrong = held.is_bonafide, np.abs(llr) > DEFINITE, (llr > 0) != held.is_bonafide
        found["EER"].append(100 * held.eer())
        found["Cllr"].append(compute_cllr(llr[label], llr[~label]))
        found["definite"].append(100 * definite.mean())
        found["definite wrong"].append(100 * wrong[definite].mean())
        for attack in set(held.attack[~label]):
            own = held.attack == attack
            if own.sum() >= MIN_CLIPS:
                generators.setdefault(attack, []).append(100 * compute_eer(held.score[label], held.score[own]).eer)
        for source in set(held.source[label]):
            own = label & (held.source == source)
            if own.sum() >= 20:
                sources[source] = 100 * wrong[own].mean()
    each = sorted(np.mean(values) for values in generators.values())
    found["mean generator"] = [float(np.mean(each))]
    found["worst quarter"] = [float(np.mean(each[-len(each) // 4 :]))]
    found["worst source"] = [max(sources.values())]
    return found


def found_scores(folder: Path) -> dict[str, dict[str, dict[int, Path]]]:
    """The score files by system, seed ("" if it has none) and fold, where all folds are done."""
    found: dict = defaultdict(lambda: defaultdict(dict))
    for run_folder in sorted((folder / "runs").glob("*_fold?_seed*")):
        parts = re.fullmatch(r"\w+?_(.+)_ep\d+_bs\d+_fold(\d)_seed(\d+)", run_folder.name)
        if parts and (path := final_scores(run_folder)):
            found[parts[1]][parts[3]][int(parts[2])] = path
    for path in sorted((folder / "scored").glob("*_fold?.txt")):
        name, fold = path.stem.split("_fold")
        name, _, seed = name.partition("_seed")
        found[name][seed][int(fold)] = path
    whole = {
        name: {seed: files for seed, files in seeds.items() if len(files) == FOLDS} for name, seeds in found.items()
    }
    return {name: seeds for name, seeds in whole.items() if seeds}


def spread(values: Sequence[float], decimals: int) -> str:
    """Mean ± standard deviation; of one value the value."""
    mean = f"{np.mean(values):.{decimals}f}"
    return f"{mean} ± {np.std(values):.{decimals}f}" if len(values) > 1 else mean


def report(args) -> None:
    """Print a row for each system: each number's mean and standard deviation over folds and seeds."""
    partitions = [held_out(args.output, fold) for fold in range(FOLDS)]
    rows, systems = [], found_scores(args.output)
    if not systems:
        raise UserError(f"nothing to report in {args.output}", f"scores of all {FOLDS} folds of a system", "none")
    for system, by_seed in systems.items():
        values = defaultdict(list)
        for files in by_seed.values():
            folds = [HeldOut.read(path, partitions[fold]) for fold, path in sorted(files.items())]
            for name, found in measures(folds).items():
                values[name] += found
        runs = f"{len(by_seed)} × {min(map(len, by_seed.values()))}"
        cells = [spread(each, 2 if name == "Cllr" else 1) for name, each in values.items()]
        rows.append([system, runs, *cells])
    header = ["system", "seeds × folds", *values]
    for row in (header, ["---"] * len(header), *rows):
        print(f"| {' | '.join(row)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("exp_result/generalise"), help="default: %(default)s")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    folds = commands.add_parser("folds", help="write the lists of clips")
    folds.add_argument("--data", type=Path, default=Path("../shared/data"), help="default: %(default)s")
    prompts = "clips of corpora/spoken_prompts.csv, to train the bundled detector with (docs/rebuild.md)"
    folds.add_argument("--prompts", type=Path, help=prompts)
    folds.set_defaults(do=lambda args: write_folds(args.data, args.output, args.prompts))
    training = commands.add_parser("train", help="train a recipe on every fold")
    training.add_argument("--config", required=True)
    training.add_argument("--init", help="weights to start from")
    training.add_argument("--seeds", type=int, nargs="+", default=[1])
    training.add_argument("--folds", type=int, nargs="+", default=list(range(FOLDS)))
    training.add_argument("--jobs", type=int, default=2, help="folds at once, with a share of the cores each")
    training.set_defaults(do=train)
    scoring = commands.add_parser("score", help="score the clips with models that were trained elsewhere")
    scoring.add_argument("--models", nargs="+", required=True)
    scoring.set_defaults(do=score)
    commands.add_parser("report", help="print the table").set_defaults(do=report)
    args = parser.parse_args()
    args.do(args)


if __name__ == "__main__":
    run(main)
