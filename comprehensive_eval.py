"""Score whole data sets with a checkpoint: score files, metrics, tables and figures.

    python comprehensive_eval.py --checkpoint AASIST --dataset 2019 --data_path /data/LA
    python comprehensive_eval.py --checkpoint CKPT --dataset 2019 2021 2021DF itw --data_path /data --device cuda
    python comprehensive_eval.py --checkpoint CKPT --dataset folder --data_path recordings --compare AASIST

Leaves results/<name>/<data set>/ with scores.txt, results_summary.txt, metrics.json, table.tex and plots/. A run that
was stopped goes on where it stopped. docs/datasets.md says where files are looked for.
"""

import dataclasses
import hashlib
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from common.command import Parser, run
from common.errors import UserError
from common.files import write_text
from corpora.open import KINDS
from corpora.trials import REPORTED_SUBSET, Partition
from data_utils import preflight, tolerant_loader
from metrics import evaluate as metrics
from metrics.bootstrap import add_intervals, bootstrap
from metrics.comparison import compare
from metrics.score_files import read_scores, write_scores
from metrics.scores import Scores, listing
from metrics.tables import format_comparison, format_latex, format_report
from metrics.tandem import AsvScores
from plots.evaluation import draw
from scoring.detector import Detector
from scoring.weights import file_sha256, locate

PARTIAL = "scores.partial"  # scores as they come; gone when a run is complete
SEED = 1234  # of the bootstrap, as in evaluation.py


@dataclass(frozen=True)
class DataSet:
    """A partition that is scored whole, and its trials as evaluation takes them: with groups, not scored yet."""

    name: str  # of its results folder
    partition: Partition
    trials: Scores
    asv: AsvScores | None

    @classmethod
    def load(cls, kind: str, root: Path, max_files: int | None) -> "DataSet":
        """The data set, or `max_files` of its trials spread over it.

        Raises UserError for what could not be evaluated.
        """
        corpus = KINDS[kind](root)
        partition = corpus.partition("all" if "all" in corpus.partitions else "eval")
        if (count := len(partition.trials)) > (max_files or count):
            partition = partition.take(np.arange(max_files) * count // max_files)
        for note in preflight([replace(partition, name=corpus.title)], kind):
            print(f"note: {note}", file=sys.stderr)
        trials = partition.trials
        utt_ids, attacks = [trial.utt_id for trial in trials], [trial.attack for trial in trials]
        is_bonafide, speakers = partition.is_bonafide(), np.array([trial.speaker for trial in trials], dtype=object)
        known = {"speaker": speakers} if (speakers != "-").any() else {}
        scores = Scores(utt_ids, np.full(len(trials), np.nan), is_bonafide, attacks, known | partition.groups)
        return cls(corpus.title, partition, scores, partition.asv_scores())

    def keys(self) -> list[str]:
        return [trial.key for trial in self.partition.trials]


# ----------------------------------------------------------------------------------------------------------- scoring


def score(detector: Detector, data: DataSet, folder: Path, identity: dict, num_workers: int) -> tuple[dict, dict]:
    """(scores, errors of files that cannot be read), both by utt_id; each batch is in the partial file when it is done.

    A batch that is not there whole is scored again as a whole: so a resumed run gives the same bits.
    """
    names, size = data.trials.utt_id.tolist(), identity["batch_size"]
    scores, errors = resume(folder, identity), {}
    batches = [list(range(start, min(start + size, len(names)))) for start in range(0, len(names), size)]
    to_do = [batch for batch in batches if not all(names[row] in scores for row in batch)]
    if not to_do:
        return scores, errors
    loader = tolerant_loader(data.partition, detector.engine.nb_samp, num_workers, to_do)
    bar = tqdm(desc=data.name, total=len(names), initial=len(names) - sum(map(len, to_do)), unit="utt", disable=None)
    with (folder / PARTIAL).open("a", encoding="utf-8") as file, bar:
        for batch, (waveforms, problems) in zip(to_do, loader, strict=True):
            errors |= {names[row]: str(problem) for row, problem in zip(batch, problems, strict=True) if problem}
            readable = [names[row] for row, problem in zip(batch, problems, strict=True) if not problem]
            values = detector.score([waveforms]).tolist() if readable else []
            if bad := [name for name, value in zip(readable, values, strict=True) if not np.isfinite(value)]:
                raise UserError(
                    f"bad score of {bad[0]}", "a finite number (is the checkpoint sound?)", "NaN or infinity"
                )
            scores |= zip(readable, values, strict=True)
            file.writelines(f"{name} {value!r}\n" for name, value in zip(readable, values, strict=True))
            file.flush()
            bar.update(len(batch))
    return scores, errors


def resume(folder: Path, identity: dict) -> dict[str, float]:
    """Scores by utt_id that an earlier run of the same `identity` left; opens the partial file with them."""
    partial, header = folder / PARTIAL, json.dumps(identity)
    scores = {}
    if partial.exists():
        first, *lines = partial.read_bytes().decode(errors="replace").split("\n")
        if first == header:
            scores = _parse(lines[:-1])  # the last is empty, or what a killed run wrote half
        else:
            print(f"note: {partial} is of another checkpoint or other trials: starting anew", file=sys.stderr)
    elif _identity_of(folder) == identity:
        scores = _parse((folder / "scores.txt").read_text(encoding="utf-8").splitlines())
        print(f"note: going on from the scores in {folder}; remove it to score anew", file=sys.stderr)
    write_text(partial, header + "\n" + "".join(f"{name} {value!r}\n" for name, value in scores.items()))
    return scores


def _parse(lines: Sequence[str]) -> dict[str, float]:
    """Scores by utt_id from lines `utt_id … score`, up to one that is damaged."""
    scores = {}
    for line in lines:
        try:
            name, *_, value = line.split()
            scores[name] = float(value)
        except ValueError:
            break
    return scores


def _identity_of(folder: Path) -> dict | None:
    """What the complete run in `folder` is of; None where there is none."""
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        return metrics["run"] if (folder / "scores.txt").exists() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


# ----------------------------------------------------------------------------------------------------------- results


def labelled(trials: Scores, scores: dict[str, float], subset: str | None) -> Scores:
    """The scored trials (of the subset); those without a score are named in the warnings."""
    there = np.array([name in scores for name in trials.utt_id.tolist()])
    chosen = np.ones_like(there) if subset is None else trials.group("subset") == subset
    part = trials.take(there & chosen)
    missing = trials.utt_id[~there & chosen].tolist()
    warnings = listing(f"of {int(chosen.sum()):,} trials have no score", missing)
    if part.is_bonafide.all() or not part.is_bonafide.any():
        raise UserError("nothing to evaluate", "scored trials of both classes", f"{len(part.utt_id)} scored")
    values = np.array([scores[name] for name in part.utt_id.tolist()])
    return dataclasses.replace(part, score=values, warnings=warnings)


class Evaluated(NamedTuple):
    """What `evaluate` finds, by system, this one first."""

    results: dict[str, dict]  # of `metrics.evaluate`
    systems: dict[str, Scores]
    comparisons: list[dict]  # paired tests
    all_rows: dict | None  # this system's result on all rows, where papers report a subset


def evaluate(args, data: DataSet, scores: dict[str, float], threshold: float | None) -> Evaluated:
    """All numbers of this system and of those to compare it with."""
    subsets = data.trials.groups.get("subset", np.empty(0))
    subset = REPORTED_SUBSET if REPORTED_SUBSET in subsets else None
    systems = {args.name: labelled(data.trials, scores, subset)}
    for other in args.compare:
        theirs = read_scores(scores_of(args, other, data))
        found = dict(zip(theirs.utt_id.tolist(), theirs.score.tolist(), strict=True))
        systems[other] = labelled(data.trials, found, subset)
    group_by = "codec" if "codec" in data.trials.groups else None
    results, replicates = {}, {}
    for name, system in systems.items():
        given = threshold if name == args.name else None
        results[name] = metrics.evaluate(system, data.asv, threshold=given, group_by=group_by)
        if args.bootstrap:
            replicates[name] = bootstrap(system, data.asv, args.bootstrap, SEED)
            add_intervals(results[name], replicates[name], system)
    comparisons = compare(systems, replicates, data.asv, SEED) if args.bootstrap else []
    all_rows = None
    if subset is not None and (subsets != subset).any():
        whole = labelled(data.trials, scores, None)
        all_rows = metrics.evaluate(whole, threshold=threshold, group_by="subset")
    return Evaluated(results, systems, comparisons, all_rows)


def scores_of(args, name: str, data: DataSet) -> Path:
    """Another system's scores of the data set. Raises UserError when there are none."""
    path = Path(args.output_dir, name, data.name, "scores.txt")
    if not path.exists():
        known = sorted(found.parts[-3] for found in Path(args.output_dir).glob(f"*/{data.name}/scores.txt"))
        raise UserError(f"no scores of {name} to compare", path, f"scores of {', '.join(known) or 'nobody'}")
    return path


def summarise(args, data: DataSet, detector: Detector, errors: dict, done: Evaluated) -> str:
    """The report for people."""
    result = done.results[args.name]
    count, used = len(data.trials.utt_id), result["n_bonafide"] + result["n_spoof"]
    trials = f"{count:,}" if used == count else f"{used:,} of {count:,}"
    if done.all_rows:
        trials += f": the {REPORTED_SUBSET} subset, which papers report"
    if args.max_files:
        trials += f"; chosen by --max_files {args.max_files}, not comparable with published numbers"
    lines = [f"checkpoint  {args.checkpoint}", f"labels      {data.partition.labels}", f"trials      {trials}"]
    if detector.card.threshold is not None:
        lines.append(f"threshold   {detector.card.threshold:.6g} ({detector.card.threshold_source}): the rows 'given'")
    lines.append(f"missing     {len(errors) or 'none'}")
    lines += [f"  {name}: {error}" for name, error in errors.items()]
    lines += [f"warning: {name}: {text}" for name, other in done.results.items() for text in other["warnings"]]
    for name, other in done.results.items():
        lines += ["", format_report(other, f"{name} on {data.name}")]
    if done.all_rows:
        lines += ["", format_report(done.all_rows, f"{args.name} on all rows of {data.name}")]
    if args.compare:
        lines += ["", format_comparison(done.results, done.comparisons)]
    return "\n".join(lines) + "\n"


def latex_table(results: dict[str, dict]) -> str:
    """A tabular, a row for each system."""
    head, *rows = format_latex(results).splitlines()
    head = head.removeprefix("% ")
    begin = f"\\begin{{tabular}}{{l{'r' * head.count(' & ')}}}"
    return "\n".join([begin, "\\hline", head, "\\hline", *rows, "\\hline", "\\end{tabular}"]) + "\n"


def evaluate_data_set(args, data: DataSet, detector: Detector) -> int:
    """Score, evaluate, write everything; returns how many files could not be read."""
    folder, names, attacks = Path(args.output_dir, args.name, data.name), data.trials.utt_id, data.trials.attack
    identity = {
        "checkpoint_sha256": file_sha256(locate(args.checkpoint)),
        "trials": len(names),
        "trials_sha256": hashlib.sha256(repr([names.tolist(), attacks.tolist(), data.keys()]).encode()).hexdigest(),
        "batch_size": args.batch_size,
        "device": detector.engine.device,
    }
    scores, errors = score(detector, data, folder, identity, args.num_workers)
    for error in errors.values():
        print(f"error: {error}", file=sys.stderr)
    there = [row for row, name in enumerate(names.tolist()) if name in scores]
    keys, values = np.array(data.keys())[there], [scores[name] for name in names[there].tolist()]
    done = evaluate(args, data, scores, detector.card.threshold)
    write_scores(folder / "scores.txt", names[there], attacks[there], keys, values)
    summary = summarise(args, data, detector, errors, done)
    write_text(folder / "results_summary.txt", summary)
    write_text(folder / "table.tex", latex_table(done.results))
    draw(done.results, done.systems, folder / "plots", own=[args.name])
    metrics = {"run": identity, "checkpoint": args.checkpoint, "labels": str(data.partition.labels), "missing": errors}
    metrics |= {**done.results[args.name], "all_rows": done.all_rows, "comparisons": done.comparisons}
    metrics["compared"] = {name: done.results[name] for name in args.compare}
    write_text(folder / "metrics.json", json.dumps(metrics, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
    (folder / PARTIAL).unlink()  # last: until here a killed run goes on
    print(f"{summary}\nwritten to {folder}/", flush=True)
    return len(errors)


# ----------------------------------------------------------------------------------------------------------- command


def default_name(checkpoint: Path) -> str:
    """The checkpoint's name, after its run's where it lies in a run folder: LA_AASIST_ep100_bs24_best."""
    run_folder = checkpoint.absolute().parent.parent
    prefix = f"{run_folder.name}_" if (run_folder / "config.conf").exists() else ""
    return prefix + checkpoint.stem


def parse_arguments():
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="CKPT", help="weights, a file or a name (AASIST)")
    add("--dataset", required=True, nargs="+", choices=tuple(KINDS))
    add("--data_path", nargs="+", default=["."], metavar="DIR", help="one for all data sets, or one for each")
    add("--output_dir", default="results", metavar="DIR", help="default: %(default)s")
    add("--name", help="of the system; default: the checkpoint's, after its run's")
    add("--batch_size", type=int, default=32, metavar="N", help="utterances scored at a time (default: %(default)s)")
    add("--num_workers", type=int, default=4, metavar="N", help="processes that decode audio (default: %(default)s)")
    add("--max_files", type=int, metavar="N", help="only N trials, spread evenly over the data set")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--bootstrap", type=int, default=1000, metavar="N", help="resamples for 95 %% intervals (default: %(default)s)")
    add("--compare", nargs="+", default=[], metavar="NAME", help="systems in the output folder to compare with")
    args = parser.parse_args()
    args.name = default_name(Path(args.checkpoint)) if args.name is None else args.name
    least = {"batch_size": 1, "num_workers": 0, "max_files": 1, "bootstrap": 0}
    for option, minimum in least.items():
        if (value := getattr(args, option)) is not None and value < minimum:
            parser.error(f"--{option} must be {minimum} or more, not {value}")
    for name in (args.name, *args.compare):
        if not re.fullmatch(r"\w[\w.+-]*", name):
            parser.error(f"a system's name consists of letters, digits and . _ + -, not {name!r}")
    if len({args.name, *args.compare}) <= len(args.compare):
        parser.error(f"--compare takes other systems, each once, than {args.name}")
    if len(args.data_path) not in (1, len(args.dataset)) or len(set(args.dataset)) < len(args.dataset) > 1:
        parser.error("give each --dataset once, and one --data_path for all or one for each")
    return args


def main() -> int:
    args = parse_arguments()
    detector = Detector.from_checkpoint(args.checkpoint, args.device)
    roots = args.data_path * len(args.dataset) if len(args.data_path) == 1 else args.data_path
    found = [DataSet.load(kind, Path(root), args.max_files) for kind, root in zip(args.dataset, roots, strict=True)]
    for data in found:
        for name in args.compare:
            scores_of(args, name, data)
    failures = 0
    for data in found:
        try:
            failures += evaluate_data_set(args, data, detector)
        except UserError as error:
            if len(found) == 1:
                raise
            print(f"error: {data.name}: {error}", file=sys.stderr)
            failures += 1
    return 1 if failures else 0


if __name__ == "__main__":
    run(main)
