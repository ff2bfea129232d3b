"""Evaluate score files: every metric that the field publishes, with intervals and tests (see docs/evaluation.md).

    python evaluation.py scores.txt --asv_scores ASVspoof2019.LA.asv.eval.gi.trl.scores.txt
    python evaluation.py a.txt b.txt --asv_scores ASV --protocol PROTOCOL --bootstrap 1000     # tables, paired tests
    python evaluation.py scores.txt --protocol trial_metadata.txt --where subset=eval --group-by codec
    python evaluation.py eval.txt --calibrate dev.txt --asv_scores ASV --json out.json --plots figures
    python evaluation.py a_eval.txt b_eval.txt --fuse fused_eval.txt --dev a_dev.txt b_dev.txt

Score files (higher = more bona fide): `utt attack key score`, `speaker utt - attack key score`, `utt key score`,
a protocol line of any kind below followed by its score, a table with a header line (`filename`, `cm-score`, …), or
`utt score` with --protocol. Protocols: ASVspoof 2019, 2021 and 5, `utt key`, or a table with a header (`file,label`).
`import evaluation` gives the functions listed in `__all__`; they are defined in `metrics/`.
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common.command import Parser, run
from common.errors import UserError
from common.escaping import is_text, printable
from common.files import require_folder, require_separate, write_text
from metrics.bootstrap import add_intervals, bootstrap
from metrics.calibration import Calibration, calibrate, fit_calibration, fuse
from metrics.comparison import compare
from metrics.costs import ASVSPOOF, CostModel, compute_act_dcf, compute_cllr, compute_min_dcf
from metrics.error_rates import EER, Decisions, compute_auc, compute_det_curve, compute_eer, compute_rocch_eer, decide
from metrics.evaluate import evaluate
from metrics.score_files import read_asv_scores, read_scores, write_scores
from metrics.scores import Scores
from metrics.tables import format_comparison, format_latex, format_report, write_csv
from metrics.tandem import AsvErrorRates, AsvScores, MinTDCF, asv_error_rates, compute_min_tdcf

__all__ = [
    "ASVSPOOF", "EER", "AsvErrorRates", "AsvScores", "Calibration", "CostModel", "Decisions", "MinTDCF", "Scores",
    "add_intervals", "asv_error_rates", "bootstrap", "compare", "compute_act_dcf", "compute_auc", "compute_cllr",
    "compute_det_curve", "compute_eer", "compute_min_dcf", "compute_min_tdcf", "compute_rocch_eer", "decide", "draw",
    "evaluate", "fit_calibration", "format_latex", "format_report", "read_asv_scores", "read_scores", "write_csv",
    "write_scores",
]  # fmt: skip


def draw(
    results: dict[str, dict], systems: dict[str, Scores], directory: str | Path, own: Sequence[str] | None = None
) -> list[Path]:
    """Draw the seven figures of `evaluate` results into `directory`: see `plots.evaluation.draw`."""
    from plots import evaluation  # matplotlib takes longer to import than everything else here

    return evaluation.draw(results, systems, directory, own)


def parse_arguments(arguments: Sequence[str] | None = None):
    """The options. Raises UserError for options that do not fit."""
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("scores", nargs="+", metavar="SCORES", help="score files, one per system")
    add("--asv_scores", metavar="FILE", help="ASV scores of the same partition, for t-DCF")
    add("--protocol", metavar="FILE", help="labels, attacks, speakers, codecs … of the trials")
    add(
        "--where",
        metavar="COLUMN=VALUE",
        action="append",
        default=[],
        help="evaluate only these trials; may be repeated",
    )
    add("--group-by", "--partition", dest="group_by", metavar="COLUMN", help="also break down by speaker, codec, …")
    add("--flip", action="store_true", help="negate the scores (files where higher means spoof)")
    add("--threshold", type=float, metavar="X", help="also report decisions at this score")
    add("--target_far", type=float, metavar="FRACTION", help="also report decisions at this false acceptance rate")
    add("--bootstrap", type=int, metavar="N", help="resamples for 95 %% intervals (default: 1000 to compare, else 0)")
    add("--seed", type=int, default=1234, metavar="N", help="seed of the resamples (default: 1234)")
    add("--calibrate", nargs="+", metavar="DEV", help="calibrate on these dev scores, one file per system")
    add("--fuse", metavar="OUT", help="write a fusion of the systems, fitted on --dev, and evaluate it with them")
    add("--dev", nargs="+", default=[], metavar="DEV", help="dev scores for --fuse, one file per system")
    add("--dev_protocol", metavar="FILE", help="protocol of the dev scores")
    add("--json", metavar="OUT", help="write all numbers as JSON")
    add("--csv", metavar="OUT", help="write one CSV row per system and condition")
    add("--latex", action="store_true", help="also print rows of a LaTeX table")
    add("--official", action="store_true", help="print the ASVspoof 2019 package's text report instead")
    add("--plots", metavar="DIR", help="draw seven figures into this folder")
    options = parser.parse_args(arguments)
    _check_options(options)
    return options


def _check_options(options) -> None:
    """Raises UserError for options that contradict each other or are out of range."""
    if options.threshold is not None and not np.isfinite(options.threshold):
        raise UserError("bad --threshold", "a finite number", options.threshold)
    if options.target_far is not None and not 0 <= options.target_far < 1:
        raise UserError("bad --target_far", "a fraction from 0 to below 1", options.target_far)
    if options.seed < 0 or (options.bootstrap or 0) < 0:
        raise UserError("bad --bootstrap or --seed", "a number ≥ 0", f"{options.bootstrap} and {options.seed}")
    for name, given in (("--calibrate", options.calibrate), ("--dev", options.dev)):
        if given and len(given) != len(options.scores):
            raise UserError(f"{name} needs one dev file per system", len(options.scores), len(given))
    read = [*options.scores, *(options.calibrate or []), *options.dev]
    read += [options.asv_scores, options.protocol, options.dev_protocol]
    require_separate({"--fuse": options.fuse, "--json": options.json, "--csv": options.csv}, read)
    if options.plots:
        require_folder("--plots", options.plots)
    if bool(options.fuse) != bool(options.dev) or (options.fuse and len(options.scores) < 2):
        raise UserError("--fuse OUT goes with two or more SCORES and --dev DEV …", None, None)


def _load(path: str, options, protocol: str | None) -> Scores:
    """A score file, negated with --flip."""
    scores = read_scores(path, protocol)
    return dataclasses.replace(scores, score=-scores.score) if options.flip else scores


def _select(scores: Scores, conditions: Sequence[str]) -> Scores:
    """The trials that meet every COLUMN=VALUE. Raises UserError if a class has none left."""
    for condition in conditions:
        name, equals, value = condition.partition("=")
        column = scores.group(name)
        if not equals or value not in column:
            known = ", ".join(np.unique(column)[:20])
            raise UserError(f"--where {condition} keeps no trials", f"{name}=VALUE, VALUE one of {known}", value)
        scores = scores.take(column == value)
    if scores.is_bonafide.all() or not scores.is_bonafide.any():
        raise UserError("--where leaves one class only", "bona fide and spoof trials", f"{len(scores.score)} of one")
    return scores


def _names(paths: Sequence[str]) -> list[str]:
    """Short names of systems: file stems, or whole paths if a stem repeats; as printed if no file could hold them."""
    stems = [Path(path).stem for path in paths]
    names = stems if len(set(stems)) == len(stems) else list(paths)
    names = [name if is_text(name) else printable(name) for name in names]
    if len(set(names)) < len(names):
        raise UserError("the same score file is given twice", "different SCORES", " ".join(paths))
    return names


def _systems(options) -> dict[str, Scores]:
    """The systems to evaluate by name, with their fusion if --fuse asks for it."""
    loaded = [_select(_load(path, options, options.protocol), options.where) for path in options.scores]
    systems = dict(zip(_names(options.scores), loaded, strict=True))
    if options.fuse:
        fused = fuse(loaded, [_load(path, options, options.dev_protocol) for path in options.dev])
        keys = np.where(fused.is_bonafide, "bonafide", "spoof")
        write_scores(options.fuse, fused.utt_id, fused.attack, keys, fused.score)
        systems[f"fusion {Path(options.fuse).stem} (LLR)"] = fused
    return systems


def main() -> None:
    """Evaluate the systems; print, save and draw."""
    options = parse_arguments()
    systems = _systems(options)
    asv = read_asv_scores(options.asv_scores) if options.asv_scores else None
    results = {
        name: evaluate(scores, asv, ASVSPOOF, options.threshold, options.target_far, options.group_by)
        for name, scores in systems.items()
    }
    for (name, scores), path in zip(
        systems.items(), options.calibrate or [], strict=False
    ):  # a fusion is calibrated already
        calibrate(results[name], scores, _load(path, options, options.dev_protocol))
    comparisons = []
    resampled = options.bootstrap if options.bootstrap is not None else 1000 * (len(systems) > 1)
    if resampled:
        replicates = {name: bootstrap(scores, asv, resampled, options.seed) for name, scores in systems.items()}
        for name, scores in systems.items():
            add_intervals(results[name], replicates[name], scores)
        comparisons = compare(systems, replicates, asv, options.seed)
    _write(options, results, comparisons)
    if options.plots:
        files = draw(results, systems, options.plots)
        print(printable(f"{len(files)} figures written to {options.plots}/"), file=sys.stderr)


def _write(options, results: dict[str, dict], comparisons: list[dict]) -> None:
    """Print and save what the options ask for; warnings go to stderr."""
    for name, result in results.items():
        for warning in result["warnings"]:
            print(printable(f"warning: {name}: {warning}"), file=sys.stderr)
        print(format_report(result, name, options.official), end="\n\n" if len(results) > 1 else "\n")
    if len(results) > 1:
        print(format_comparison(results, comparisons))
    if options.latex:
        print(f"\n{format_latex(results)}")
    if options.json:
        whole = next(iter(results.values())) if len(results) == 1 else {"systems": results, "comparisons": comparisons}
        write_text(options.json, json.dumps(whole, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
    if options.csv:
        write_csv(options.csv, results)


if __name__ == "__main__":
    run(main)
