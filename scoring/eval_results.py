"""Scores of a whole data set → metrics, comparison with other systems, report, table and figures in one folder."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.errors import UserError
from common.escaping import printable
from common.files import write_text
from corpora.trials import REPORTED_SUBSET
from metrics.bootstrap import add_intervals, bootstrap
from metrics.comparison import compare
from metrics.evaluate import evaluate
from metrics.score_files import read_scores, write_scores
from metrics.scores import Labels, Scores, listing
from metrics.tables import format_comparison, format_latex_table, format_report
from plots.evaluation import draw
from scoring.eval_set import HASHES, PARTIAL, EvalRun, EvalSet, ScoredSet

SEED = 1234  # of the bootstrap, as in evaluation.py


class EvalResults(NamedTuple):
    """The results of this system, which comes first, and of those that it is compared with."""

    results: dict[str, dict]  # of `evaluate`, by system
    systems: dict[str, Scores]
    comparisons: list[dict]  # paired tests
    all_rows: dict | None  # this system's result on all rows, if papers report a subset


def evaluate_run(run: EvalRun, eval_set: EvalSet, scores: dict[str, float]) -> EvalResults:
    """All metrics of this system and of those that it is compared with, with intervals and paired tests."""
    subsets = eval_set.trials.groups.get("subset", np.empty(0))
    subset = REPORTED_SUBSET if REPORTED_SUBSET in subsets else None
    threshold = run.detector.card.threshold
    systems = {run.name: scored_trials(eval_set.trials, scores, subset)}
    for other in run.compare:
        theirs = read_scores(scores_of(run, other, eval_set))
        found = dict(zip(theirs.utt_id.tolist(), theirs.score.tolist(), strict=True))
        systems[other] = scored_trials(eval_set.trials, found, subset)
    group_by = "codec" if "codec" in eval_set.trials.groups else None
    results, replicates = {}, {}
    for name, system in systems.items():
        given = threshold if name == run.name else None
        results[name] = evaluate(system, eval_set.asv, threshold=given, group_by=group_by)
        if run.bootstrap:
            replicates[name] = bootstrap(system, eval_set.asv, run.bootstrap, SEED)
            add_intervals(results[name], replicates[name], system)
    comparisons = compare(systems, replicates, eval_set.asv, SEED) if run.bootstrap else []
    all_rows = None
    if subset is not None and (subsets != subset).any():
        every = scored_trials(eval_set.trials, scores, None)
        all_rows = evaluate(every, threshold=threshold, group_by="subset")
    return EvalResults(results, systems, comparisons, all_rows)


def scored_trials(trials: Labels, scores: dict[str, float], subset: str | None) -> Scores:
    """The trials (of the subset) that have a score; the warnings name the others. Raises UserError for one class."""
    there = np.array([name in scores for name in trials.utt_id.tolist()])
    chosen = np.ones_like(there) if subset is None else trials.group("subset") == subset
    labels = trials.take(there & chosen)
    missing = trials.utt_id[~there & chosen].tolist()
    warnings = listing(f"of {int(chosen.sum()):,} trials have no score", missing)
    if labels.is_bonafide.all() or not labels.is_bonafide.any():
        raise UserError("nothing to evaluate", "scored trials of both classes", f"{len(labels.utt_id)} scored")
    return labels.scored([scores[name] for name in labels.utt_id.tolist()], warnings=warnings)


def scores_of(run: EvalRun, system: str, eval_set: EvalSet) -> Path:
    """The score file of another system on this data set. Raises UserError if there is none."""
    path = run.output_dir / system / eval_set.name / "scores.txt"
    if not path.exists():
        known = sorted(found.parts[-3] for found in run.output_dir.glob(f"*/{eval_set.name}/scores.txt"))
        raise UserError(f"no scores of {system} to compare", path, f"scores of {', '.join(known) or 'no system'}")
    return path


def write_results(run: EvalRun, eval_set: EvalSet, identity: dict, scored: ScoredSet, done: EvalResults) -> str:
    """Write all files of the results folder but the figures; return the report."""
    scores, hashes, errors = scored
    folder, names, attacks = run.folder(eval_set), eval_set.trials.utt_id, eval_set.trials.attack
    there = [row for row, name in enumerate(names.tolist()) if name in scores]
    keys, values = np.array(eval_set.keys())[there], [scores[name] for name in names[there].tolist()]
    write_scores(folder / "scores.txt", names[there], attacks[there], keys, values)
    report = format_eval_report(run, eval_set, errors, done)
    write_text(folder / "results_summary.txt", report)
    write_text(folder / "table.tex", format_latex_table(done.results))
    labels = str(eval_set.partition.labels)
    metrics = {"run": identity, "checkpoint": run.checkpoint, "labels": labels, "missing": errors}
    metrics |= {**done.results[run.name], "all_rows": done.all_rows, "comparisons": done.comparisons}
    metrics["compared"] = {name: done.results[name] for name in run.compare}
    write_text(folder / "metrics.json", json.dumps(metrics, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
    write_text(folder / HASHES, "".join(f"{hashes[name]}  {name}\n" for name in names[there].tolist()))
    (folder / PARTIAL).unlink()  # last, so that a run that is killed before can go on
    return report


def draw_results(run: EvalRun, eval_set: EvalSet, done: EvalResults) -> None:
    """Write the figures to plots/ of the results folder. Raises PartFailed, see `plots.evaluation.draw`."""
    draw(done.results, done.systems, run.folder(eval_set) / "plots", own=[run.name])


def format_eval_report(run: EvalRun, eval_set: EvalSet, errors: dict[str, str], done: EvalResults) -> str:
    """The report: checkpoint, trials, missing files, warnings, and the tables of all systems."""
    result, card = done.results[run.name], run.detector.card
    count, used = len(eval_set.trials.utt_id), result["n_bonafide"] + result["n_spoof"]
    trials = f"{count:,}" if used == count else f"{used:,} of {count:,}"
    if done.all_rows:
        trials += f": the {REPORTED_SUBSET} subset, which papers report"
    if run.max_files:
        trials += f"; chosen by --max_files {run.max_files}, not comparable with published numbers"
    lines = [f"checkpoint  {run.checkpoint}", f"labels      {eval_set.partition.labels}", f"trials      {trials}"]
    if card.threshold is not None:
        lines.append(f"threshold   {card.threshold:.6g} ({card.threshold_source}): the rows 'given'")
    lines.append(f"missing     {len(errors) or 'none'}")
    lines += [f"  {name}: {error}" for name, error in errors.items()]
    lines += [f"warning: {name}: {text}" for name, other in done.results.items() for text in other["warnings"]]
    lines = [printable(line) for line in lines]
    for name, other in done.results.items():
        lines += ["", format_report(other, f"{name} on {eval_set.name}")]
    if done.all_rows:
        lines += ["", format_report(done.all_rows, f"{run.name} on all rows of {eval_set.name}")]
    if run.compare:
        lines += ["", format_comparison(done.results, done.comparisons)]
    return "\n".join(lines) + "\n"
