"""Evaluate score files: every number the field publishes, with honest uncertainty. docs/evaluation.md explains each.

    python evaluation.py scores.txt --asv_scores ASVspoof2019.LA.asv.eval.gi.trl.scores.txt
    python evaluation.py a.txt b.txt --asv_scores ASV --protocol PROTOCOL --bootstrap 1000     # tables, paired tests
    python evaluation.py scores.txt --protocol trial_metadata.txt --where subset=eval --group-by codec
    python evaluation.py eval.txt --calibrate dev.txt --asv_scores ASV --json out.json --plots figures
    python evaluation.py a_eval.txt b_eval.txt --fuse fused_eval.txt --dev a_dev.txt b_dev.txt

Score files (higher = more bona fide): `utt attack key score`, `speaker utt - attack key score`, `utt key score`,
a protocol line of any kind below followed by its score, a table with a header line (`filename`, `cm-score`, …), or
`utt score` with --protocol. Protocols: ASVspoof 2019, 2021 and 5, `utt key`, or a table with a header (`file,label`).
The definitions of the metrics are in `metrics.py`, the readers and writers in `score_files.py`.
"""

import csv
import dataclasses
import itertools
import json
import re
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common.command import Parser
from common.errors import UserError
from common.files import replacing, write_text
from metrics.curves import (
    ASVSPOOF,
    EER,
    AsvErrorRates,
    AsvScores,
    Battery,
    Calibration,
    CostModel,
    Decisions,
    MinTDCF,
    Ranking,
    Tandem,
    asv_error_rates,
    compute_a_dcf,
    compute_act_dcf,
    compute_auc,
    compute_cllr,
    compute_det_curve,
    compute_eer,
    compute_min_dcf,
    compute_min_tdcf,
    compute_rocch_eer,
    compute_t_eer,
    decide,
    fit_calibration,
    fit_fusion,
    interval,
    p_value,
    replicate,
    resamples,
    tandem_cost,
    threshold_at_far,
)
from metrics.score_files import Scores, read_asv_scores, read_scores, write_scores

__all__ = [
    "ASVSPOOF", "EER", "AsvErrorRates", "AsvScores", "Calibration", "CostModel", "Decisions", "MinTDCF", "Scores",
    "add_intervals", "asv_error_rates", "bootstrap", "compare", "compute_act_dcf", "compute_auc", "compute_cllr",
    "compute_det_curve", "compute_eer", "compute_min_dcf", "compute_min_tdcf", "compute_rocch_eer", "decide", "draw",
    "evaluate", "fit_calibration", "format_latex", "format_report", "read_asv_scores", "read_scores", "write_csv",
    "write_scores",
]  # fmt: skip

# ---------------------------------------------------------------------------------------------------------- evaluation


def _battery(scores: Scores, asv: AsvScores | None, cost_model: CostModel) -> Battery:
    """All metrics of a system; the tandem ones where there are ASV scores."""
    costs = {}
    if asv is not None:
        rates = asv_error_rates(asv)
        costs = {"min_tdcf": tandem_cost(rates, cost_model), "min_tdcf_2021": tandem_cost(rates, cost_model, "revised")}
    return Battery(scores.score, scores.is_bonafide, scores.attack, costs, cost_model)


_PERCENT = {"eer": "eer_percent", "rocch_eer": "rocch_eer_percent"}  # metrics that are reported in percent
_HEADLINE = ("eer", "rocch_eer", "min_tdcf", "min_tdcf_2021", "auc", "min_dcf", "act_dcf", "cllr")


def _reported(metric: str, value):
    """A metric's value or values under its reported name, in its reported unit."""
    return (_PERCENT[metric], value * 100) if metric in _PERCENT else (metric, value)


def evaluate(
    scores: Scores,
    asv: AsvScores | None = None,
    cost_model: CostModel = ASVSPOOF,
    threshold: float | None = None,
    target_far: float | None = None,
    group_by: str | None = None,
) -> dict:
    """Every metric of one system, ready for JSON: floats, `_percent` where the name says so, None where not defined.

    Keys: n_bonafide, n_spoof, eer_percent, eer_threshold, rocch_eer_percent, min_tdcf (2019 form), min_tdcf_threshold,
    min_tdcf_2021, auc, min_dcf, act_dcf, cllr; asv: the verifier's error rates; sasv: a_dcf, t_eer_percent; decisions:
    one per threshold (the EER's, `threshold`, that of `target_far`, a fraction); per_attack: {A07: {n, eer_percent,
    min_tdcf}}, with the pooled bona fide trials and the pooled ASV spoof miss rate; groups: by the column `group_by`;
    warnings. Raises UserError where ASV scores or the column do not serve.
    """
    values = _battery(scores, asv, cost_model)()
    rates = asv_error_rates(asv) if asv is not None else None
    eer = compute_eer(scores.bonafide, scores.spoof)
    result = {"n_bonafide": len(scores.bonafide), "n_spoof": len(scores.spoof), "eer_threshold": eer.threshold}
    result |= dict(_reported(metric, values.get(metric)) for metric in _HEADLINE)
    result["min_tdcf_threshold"] = None
    if rates:
        result["min_tdcf_threshold"] = compute_min_tdcf(scores.bonafide, scores.spoof, rates, cost_model).threshold
    result["asv"] = rates._asdict() if rates else None
    result["sasv"] = _evaluate_sasv(scores)
    thresholds = {"EER": eer.threshold}
    if threshold is not None:
        thresholds["given"] = threshold
    if target_far is not None:
        thresholds[f"FAR ≤ {target_far:.4%}"] = threshold_at_far(scores.spoof, target_far)
    result["decisions"] = [
        {"at": at} | decide(scores.bonafide, scores.spoof, value)._asdict() for at, value in thresholds.items()
    ]
    result["per_attack"] = _per_attack(scores, values)
    result["group_by"], result["groups"] = group_by, {}
    if group_by not in (None, "attack"):  # attacks have their own table
        result["groups"] = _evaluate_groups(scores, rates, cost_model, group_by)
    result["warnings"] = scores.warnings + _suspicions(scores, eer, asv)
    return result


def _per_attack(scores: Scores, values: dict[str, float]) -> dict[str, dict]:
    """{attack: {n, eer_percent, min_tdcf}} from a battery's values; empty where no attack is known."""
    attacks, counts = np.unique(scores.attack[~scores.is_bonafide], return_counts=True)
    return {
        str(name): {"n": int(n), "eer_percent": values[f"eer/{name}"] * 100, "min_tdcf": values.get(f"min_tdcf/{name}")}
        for name, n in zip(attacks, counts, strict=True)
        if attacks.tolist() != ["-"]
    }


def _evaluate_groups(scores: Scores, rates: AsvErrorRates | None, cost_model: CostModel, name: str) -> dict:
    """{value: {n_bonafide, n_spoof, eer_percent, min_tdcf}} with both classes taken from within the group."""
    groups = {}
    values, codes = np.unique(scores.group(name), return_inverse=True)
    for code, value in enumerate(values):
        part = scores.take(codes == code)
        row = {"n_bonafide": len(part.bonafide), "n_spoof": len(part.spoof), "eer_percent": None, "min_tdcf": None}
        if len(part.bonafide) and len(part.spoof):
            row["eer_percent"] = compute_eer(part.bonafide, part.spoof).eer * 100
            if rates:
                row["min_tdcf"] = compute_min_tdcf(part.bonafide, part.spoof, rates, cost_model).min_tdcf
        groups[str(value)] = row
    return groups


def _evaluate_sasv(scores: Scores) -> dict | None:
    """a-DCF of `sasv_score` and t-EER of score and `asv_score`, for trials labelled target, nontarget or spoof."""
    label = scores.groups.get("asv_label")
    if label is None or not scores.asv:
        return None
    kinds = [label == kind for kind in ("target", "nontarget", "spoof")]
    if not all(kind.any() for kind in kinds):
        raise UserError("a-DCF and t-EER need all kinds of trial", "target, nontarget and spoof", " ".join(set(label)))
    result: dict[str, float | None] = {"a_dcf": None, "t_eer_percent": None}
    if "sasv_score" in scores.asv:
        result["a_dcf"] = compute_a_dcf(*(scores.asv["sasv_score"][kind] for kind in kinds))
    if "asv_score" in scores.asv:
        asv, cm = scores.asv["asv_score"], scores.score
        t_eer = compute_t_eer(Tandem(*(asv[kind] for kind in kinds), cm[kinds[0] | kinds[1]], cm[kinds[2]]))
        result["t_eer_percent"] = t_eer * 100 if np.isfinite(t_eer) else None
    return result


def _suspicions(scores: Scores, eer: EER, asv: AsvScores | None) -> list[str]:
    """Warnings about polarity, ties and ASV scores of another partition."""
    found = []
    if eer.eer > 0.5:
        found.append(f"EER {eer.eer:.1%} is above 50 %: scores look inverted (--flip changes their sign)")
    ranking = Ranking(scores.score, scores.is_bonafide)
    frr, far = (rate[ranking.ends] for rate in ranking.rates())
    real = np.argmin(np.abs(frr - far))
    distinct = len(ranking.ends) - 1
    if 2 * distinct < len(scores.score) or abs((frr[real] + far[real]) / 2 - eer.eer) > 5e-5:
        found.append(
            f"ties: {len(scores.score):,} scores have {distinct:,} values, so the EER depends on their order; "
            f"the closest real threshold has FRR {frr[real]:.4%} and FAR {far[real]:.4%}"
        )
    attacks = {name for name in set(scores.attack.tolist()) if name[:1] == "A" and name[1:].isdigit()}
    if asv and attacks and asv.attacks and attacks.isdisjoint(asv.attacks):
        found.append(
            f"ASV scores have attacks {min(asv.attacks)}–{max(asv.attacks)}, the trials {min(attacks)}–"
            f"{max(attacks)}: ASV scores of another partition give a wrong t-DCF"
        )
    return found


# --------------------------------------------------------------------------------------------------------- uncertainty


def _clusters(scores: Scores) -> tuple[np.ndarray, np.ndarray | None]:
    """(stratum, cluster) codes (N,): bona fide and each attack; speaker × stratum, or None without speakers."""
    _, stratum = np.unique(np.where(scores.is_bonafide, "bonafide", scores.attack), return_inverse=True)
    if "speaker" not in scores.groups:
        return stratum, None
    _, speaker = np.unique(scores.groups["speaker"], return_inverse=True)
    _, cluster = np.unique(speaker * (stratum.max() + 1) + stratum, return_inverse=True)
    return stratum, cluster


def bootstrap(
    scores: Scores, asv: AsvScores | None, n: int, seed: int, cost_model: CostModel = ASVSPOOF
) -> dict[str, np.ndarray]:
    """Each metric on `n` resamples (n,) of the trials, clustered by speaker × attack where speakers are known.

    Bona fide trials and each attack are resampled among themselves. ASV error rates are held fixed.
    """
    stratum, cluster = _clusters(scores)
    return replicate(_battery(scores, asv, cost_model), resamples(stratum, cluster, n, seed))


def add_intervals(result: dict, replicates: dict[str, np.ndarray], scores: Scores) -> None:
    """Add 95 % intervals to an `evaluate` result: `intervals`, `bootstrap`, and `eer_percent_interval` per attack."""
    drawn = [_reported(metric, replicates[metric]) for metric in _HEADLINE if metric in replicates]
    result["intervals"] = {name: _ends(values) for name, values in drawn}
    _, cluster = _clusters(scores)
    count = {
        key: int(len(np.unique(cluster[rows])) if cluster is not None else rows.sum())
        for key, rows in (("bonafide", scores.is_bonafide), ("spoof", ~scores.is_bonafide))
    }
    unit = "trial" if cluster is None else "speaker × attack"
    result["bootstrap"] = {"resamples": len(replicates["eer"]), "unit": unit, "n_units": count}
    for name, row in result["per_attack"].items():
        row["eer_percent_interval"] = _ends(replicates[f"eer/{name}"] * 100)
    if min(count.values()) < 20:
        result["warnings"].append(
            f"intervals rest on {count['bonafide']} bona fide and {count['spoof']} spoof units "
            f"({unit}): with fewer than 20 they are too narrow"
        )


def _ends(values: np.ndarray) -> list[float] | None:
    """The interval's ends; None where no resample differs: no error seen is no proof that there is none."""
    low, high = interval(values)
    return [low, high] if high - low > 1e-12 else None


def compare(
    systems: dict[str, Scores], replicates: dict[str, dict[str, np.ndarray]], asv: AsvScores | None, seed: int
) -> list[dict]:
    """Paired tests of every two systems, on the same resamples of their common trials.

    Each: a, b, n_trials, metrics {eer_percent, min_tdcf, min_dcf: {delta (b − a), interval, p}}, p_holm (of the EER,
    over all pairs; S. Holm, Scand. J. Statist. 6, 1979), sentence. A pair that cannot be compared has only a sentence.
    """
    comparisons = []
    for a, b in itertools.combinations(systems, 2):
        try:
            first, second = _common(systems[a], systems[b])
        except UserError as error:
            comparisons.append({"a": a, "b": b, "sentence": f"{a} and {b}: {error}"})
            continue
        drawn = [replicates[a], replicates[b]]
        if not _drawn_alike(systems[a], systems[b]):
            units = second if "speaker" in second.groups else first
            parts = [dataclasses.replace(part, attack=units.attack, groups=units.groups) for part in (first, second)]
            drawn = [bootstrap(part, asv, len(drawn[0]["eer"]), seed) for part in parts]
        point = [_battery(part, asv, ASVSPOOF)() for part in (first, second)]
        metrics = {}
        for metric in ("eer", "min_tdcf", "min_dcf"):
            if metric in point[0]:
                name, differences = _reported(metric, drawn[1][metric] - drawn[0][metric])
                delta = _reported(metric, point[1][metric] - point[0][metric])[1]
                metrics[name] = {"delta": delta, "interval": list(interval(differences)), "p": p_value(differences)}
        comparisons.append({"a": a, "b": b, "n_trials": len(first.score), "metrics": metrics})
    floor, tested = 0.0, [comparison for comparison in comparisons if "metrics" in comparison]
    for rank, comparison in enumerate(sorted(tested, key=lambda item: item["metrics"]["eer_percent"]["p"])):
        floor = max(floor, (len(tested) - rank) * comparison["metrics"]["eer_percent"]["p"])
        comparison["p_holm"] = min(1.0, floor)
        comparison["sentence"] = _sentence(comparison)
    return comparisons


def _drawn_alike(first: Scores, second: Scores) -> bool:
    """Whether the same seed gives both the same resamples: equal trials, in one order, in equal clusters."""
    return np.array_equal(first.utt_id, second.utt_id) and all(
        np.array_equal(a, b) for a, b in zip(_clusters(first), _clusters(second), strict=True)
    )


def _common(first: Scores, second: Scores) -> tuple[Scores, Scores]:
    """The trials that both have, in one order; `first` itself when they have the same."""
    position = {name: row for row, name in enumerate(second.utt_id.tolist())}
    rows = np.array([position.get(name, -1) for name in first.utt_id.tolist()])
    if (rows < 0).any():
        first, rows = first.take(rows >= 0), rows[rows >= 0]
    second = second.take(rows)
    if (first.is_bonafide != second.is_bonafide).any():
        row = int(np.argmax(first.is_bonafide != second.is_bonafide))
        raise UserError("systems cannot be paired", "the same key for each trial", f"two keys of {first.utt_id[row]}")
    if not first.is_bonafide.any() or first.is_bonafide.all():
        raise UserError("systems cannot be paired", "common trials of both classes", f"{len(rows)} common trials")
    return first, second


def _sentence(comparison: dict) -> str:
    """The comparison by EER in words, the better system first."""
    eer = comparison["metrics"]["eer_percent"]
    better, worse, sign = ("b", "a", 1) if eer["delta"] <= 0 else ("a", "b", -1)
    delta, low, high = (f"{sign * value:+.2f}".replace("-", "−") for value in (eer["delta"], *eer["interval"][::sign]))
    relation = "does better than" if eer["delta"] else "does as well as"
    verdict = "distinguishable" if comparison["p_holm"] < 0.05 else "not distinguishable"
    return (
        f"{comparison[better]} {relation} {comparison[worse]} here: ΔEER {delta} points, 95 % interval {low} … "
        f"{high}: {verdict} (p = {comparison['p_holm']:.2g}, {comparison['n_trials']:,} trials)"
    )


def calibrate(result: dict, scores: Scores, dev: Scores) -> None:
    """Fit an affine map to LLRs on `dev`; add `calibrated`: a, b and the LLRs' act_dcf and cllr on `scores`."""
    calibration = fit_calibration(dev.score, dev.is_bonafide)
    bonafide, spoof = calibration.llr(scores.bonafide), calibration.llr(scores.spoof)
    result["calibrated"] = {
        **calibration._asdict(),
        "act_dcf": compute_act_dcf(bonafide, spoof),
        "cllr": compute_cllr(bonafide, spoof),
    }
    result["warnings"] += _fitting_doubts(scores, dev, calibration.a)


def fuse(systems: Sequence[Scores], devs: Sequence[Scores]) -> Scores:
    """The logistic fusion of several systems, fitted on their dev scores; its scores are LLRs.

    Raises UserError where systems were not scored on the same trials.
    """
    systems, devs = _same_trials(systems), _same_trials(devs)
    fusion = fit_fusion(np.column_stack([dev.score for dev in devs]), devs[0].is_bonafide)
    llr = fusion.llr(np.column_stack([scores.score for scores in systems]))
    doubts = _fitting_doubts(systems[0], devs[0], float(fusion.weights.min()))
    return dataclasses.replace(systems[0], score=llr, asv={}, warnings=doubts)


def _same_trials(systems: Sequence[Scores]) -> list[Scores]:
    aligned = [_common(systems[0], other) for other in systems]
    for other, (first, _) in zip(systems, aligned, strict=True):
        if first is not systems[0] or len(other.score) != len(first.score):
            raise UserError(
                "systems to fuse were not scored on the same trials",
                f"{len(systems[0].score):,} trials",
                f"{len(first.score):,} in common",
            )
    return [other for _, other in aligned]


def _fitting_doubts(scores: Scores, dev: Scores, least_weight: float) -> list[str]:
    doubts = []
    if shared := len(set(scores.utt_id.tolist()) & set(dev.utt_id.tolist())):
        doubts.append(f"fitted on {shared:,} of the trials that it is tested on: the result is too good")
    if least_weight < 0:
        doubts.append(f"the fit gave a system the negative weight {least_weight:.3g}: inverted or redundant scores")
    return doubts


# ----------------------------------------------------------------------------------------------------- tables, figures

_LABELS = {  # reported name → its label in tables
    "eer_percent": "EER %", "rocch_eer_percent": "ROCCH-EER %", "min_tdcf": "min t-DCF 2019",
    "min_tdcf_2021": "min t-DCF 2021", "auc": "AUC", "min_dcf": "min DCF", "act_dcf": "act DCF", "cllr": "Cllr (bits)",
}  # fmt: skip


def format_report(result: dict, name: str = "", official: bool = False) -> str:
    """The table for people of an `evaluate` result; `official`: the ASVspoof 2019 package's text report instead."""
    if official:
        return _format_official(result)
    lines = [f"{name or 'scores'}: {result['n_bonafide']:,} bona fide and {result['n_spoof']:,} spoof trials"]
    for key, label in _LABELS.items():
        if result[key] is not None:
            lines.append(f"  {label:<16}{result[key]:>12.6f}{_brackets(result.get('intervals', {}).get(key))}")
    lines += _format_further(result)
    lines += _format_decisions(result["decisions"])
    lines += _format_breakdown("attack", result["per_attack"]) if result["per_attack"] else []
    lines += _format_breakdown(result["group_by"], result["groups"]) if result["groups"] else []
    return "\n".join(lines)


def _brackets(ends: list[float] | None) -> str:
    return f"   [{ends[0]:.4f} … {ends[1]:.4f}]" if ends else ""


def _format_further(result: dict) -> list[str]:
    """Calibrated costs, the verifier, SASV, and what the intervals are."""
    lines = []
    if calibrated := result.get("calibrated"):
        lines += [
            f"  calibrated LLR = {calibrated['a']:.6g} · score {calibrated['b']:+.6g}: "
            f"act DCF {calibrated['act_dcf']:.6f}, Cllr {calibrated['cllr']:.6f} bit"
        ]
    if sasv := result["sasv"]:
        parts = [("a-DCF", sasv["a_dcf"], ""), ("t-EER", sasv["t_eer_percent"], " %")]
        known = [f"{label} {value:.6f}{unit}" for label, value, unit in parts if value is not None]
        lines += [f"  SASV: {', '.join(known)}"]
    if asv := result["asv"]:
        lines += [
            f"  ASV check: EER {asv['eer'] * 100:.6f} % at {asv['threshold']:.6f}, "
            f"where it rejects {asv['p_miss_spoof']:.2%} of spoofs"
        ]
    if drawn := result.get("bootstrap"):
        lines += [
            f"  […] 95 % bootstrap intervals: {drawn['resamples']:,} resamples by {drawn['unit']} "
            f"({drawn['n_units']['bonafide']:,} bona fide, {drawn['n_units']['spoof']:,} spoof)"
        ]
    return lines


def _format_decisions(decisions: list[dict]) -> list[str]:
    """Rates and counts at each threshold."""
    lines = [
        "",
        f"  {'threshold':<17}{'value':>11}{'accuracy %':>12}{'FRR %':>9}{'FAR %':>9}{'F1 bona fide':>14}"
        f"{'F1 spoof':>10}",
    ]
    for row in decisions:
        lines.append(
            f"  {row['at']:<17}{row['threshold']:>11.6g}{row['accuracy'] * 100:>12.4f}{row['frr'] * 100:>9.4f}"
            f"{row['far'] * 100:>9.4f}{row['f1_bonafide']:>14.4f}{row['f1_spoof']:>10.4f}"
        )
        (accepted, missed), (false_alarms, caught) = row["confusion"]
        lines.append(
            f"    bona fide: {accepted:,} accepted, {missed:,} rejected; "
            f"spoof: {false_alarms:,} accepted, {caught:,} rejected"
        )
    return lines


def _format_breakdown(what: str, rows: dict[str, dict]) -> list[str]:
    """Per attack or per group: counts, EER with its interval, min t-DCF; – where a class is missing."""
    width = max(9, *map(len, rows)) + 2
    counts = ("n",) if what == "attack" else ("n_bonafide", "n_spoof")
    heads = {"n": "spoof", "n_bonafide": "bona fide", "n_spoof": "spoof"}
    head = "".join(f"{heads[count]:>10}" for count in counts) + f"{'EER %':>11}{'t-DCF 2019':>12}"
    if any(row.get("eer_percent_interval") for row in rows.values()):
        head += "   EER, 95 %"
    lines = ["", f"  {what:<{width}}{head}"]
    for name, row in rows.items():
        cells = "".join(f"{row[count]:>10,}" for count in counts)
        cells += f"{_cell(row['eer_percent'], '.6f'):>11}{_cell(row['min_tdcf'], '.6f'):>12}"
        lines.append(f"  {name:<{width}}{cells}{_brackets(row.get('eer_percent_interval'))}")
    return lines


def _cell(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _format_official(result: dict) -> str:
    """The numbers of the organisers' report, in its order and precision."""
    lines = ["", "CM SYSTEM", f"\tEER\t\t= {result['eer_percent']:12.9f} % (Equal error rate for countermeasure)"]
    if result["min_tdcf"] is not None:
        lines += ["", "TANDEM", f"\tmin-tDCF\t\t= {result['min_tdcf']:12.9f}"]
    lines += ["", "BREAKDOWN CM SYSTEM"]
    lines += [
        f"\tEER {name}\t\t= {row['eer_percent']:12.9f} % (Equal error rate for {name})"
        for name, row in result["per_attack"].items()
    ]
    return "\n".join(lines)


def format_comparison(results: dict[str, dict], comparisons: list[dict]) -> str:
    """One line for each system, then the paired tests."""
    keys = [key for key in _LABELS if any(row[key] is not None for row in results.values())]
    keys.remove("rocch_eer_percent")
    width = max(6, *map(len, results)) + 1
    heads = [_LABELS[key].removeprefix("min ").removesuffix(" (bits)") for key in keys]
    lines = [f"{'system':<{width}}" + "".join(f"{head:>11}" for head in heads)]
    for name, row in results.items():
        lines.append(f"{name:<{width}}" + "".join(f"{_cell(row[key], '.4f'):>11}" for key in keys))
    if comparisons:
        holm = ", p by Holm" if len(comparisons) > 1 else ""
        lines += ["", f"paired tests on the same resamples of each pair's common trials{holm}:"]
        lines += [
            textwrap.fill(comparison["sentence"], 98, initial_indent="  ", subsequent_indent="    ")
            for comparison in comparisons
        ]
    return "\n".join(lines)


def format_latex(results: dict[str, dict]) -> str:
    """Rows for a table: system, EER (%), min t-DCF, then the EER (%) of each attack; the columns in a comment above."""
    attacks = sorted({attack for result in results.values() for attack in result["per_attack"]})
    lines = [f"% system & EER (\\%) & min t-DCF{''.join(f' & {attack}' for attack in attacks)} \\\\"]
    for name, result in results.items():
        eers = [result["per_attack"].get(attack, {}).get("eer_percent") for attack in attacks]
        cells = [
            name.replace("_", "\\_"),
            f"{result['eer_percent']:.2f}",
            _cell(result["min_tdcf"], ".4f"),
            *(_cell(eer, ".2f") for eer in eers),
        ]
        lines.append(" & ".join(cells).replace("–", "--") + " \\\\")
    return "\n".join(lines)


def write_csv(path: str | Path, results: dict[str, dict]) -> None:
    """One row for each system's pooled trials, each attack and each group; full precision."""
    heads = ["system", "condition", "n_bonafide", "n_spoof", *_LABELS, "eer_percent_low", "eer_percent_high"]
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, heads, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        for name, result in results.items():
            shared = {"system": name, "n_bonafide": result["n_bonafide"]}
            pooled = _with_interval(result)
            attacks = {attack: {**row, "n_spoof": row["n"]} for attack, row in result["per_attack"].items()}
            for condition, row in {"pooled": pooled, **attacks, **result["groups"]}.items():
                low, high = row.get("eer_percent_interval") or (None, None)
                ends = {"eer_percent_low": low, "eer_percent_high": high}
                table.writerow({**shared, **row, **ends, "condition": condition})


def draw(
    results: dict[str, dict], systems: dict[str, Scores], directory: str | Path, own: Sequence[str] | None = None
) -> list[Path]:
    """Draw the seven figures of `evaluate` results into `directory`; the systems share DET, ROC and attack figures.

    The other four are drawn for each system, or for those named in `own`. Returns the files written.
    """
    from plots import scores as plots  # matplotlib takes longer to import than everything else here

    curves = {name: compute_det_curve(scores.bonafide, scores.spoof)[:2] for name, scores in systems.items()}
    figures = {
        "det": plots.det(curves, {name: result["eer_percent"] / 100 for name, result in results.items()}),
        "roc": plots.roc(curves, {name: result["auc"] for name, result in results.items()}),
        "attack_eer": plots.attack_eer({name: _attack_eers(result) for name, result in results.items()}),
    }
    own = list(systems) if own is None else own
    for name in own:
        scores = systems[name]
        suffix = "_" + re.sub(r"[^\w.-]+", "_", name) if len(own) > 1 else ""
        threshold = results[name]["eer_threshold"]
        attacks = {attack: scores.score[scores.attack == attack] for attack in results[name]["per_attack"]}
        groups = {"bona fide": scores.bonafide} | (attacks or {"spoof": scores.spoof})
        figures |= {
            f"score_distributions{suffix}": plots.score_distributions(scores.bonafide, scores.spoof, threshold),
            f"confusion{suffix}": plots.confusion(results[name]["decisions"][0]["confusion"], threshold),
            f"score_scatter{suffix}": plots.score_scatter(scores.score, scores.is_bonafide, threshold),
            f"score_boxes{suffix}": plots.score_boxes(groups, threshold),
        }
    return [file for stem, figure in figures.items() for file in plots.save(figure, Path(directory) / stem)]


def _with_interval(result: dict) -> dict:
    """The pooled result in the form of a `per_attack` row."""
    return {**result, "eer_percent_interval": result.get("intervals", {}).get("eer_percent")}


def _attack_eers(result: dict) -> dict[str, tuple[float, float | None, float | None]]:
    """(EER, low, high) of each attack, or of all spoofs together where attacks are unknown; fractions."""
    rows = result["per_attack"] or {"pooled": _with_interval(result)}
    return {
        attack: (row["eer_percent"] / 100, *(end / 100 for end in row["eer_percent_interval"]))
        if row.get("eer_percent_interval")
        else (row["eer_percent"] / 100, None, None)
        for attack, row in rows.items()
    }


# ------------------------------------------------------------------------------------------------------------- command


def parse_arguments(arguments: Sequence[str] | None = None):
    """The command line."""
    parser = Parser(prog="evaluation.py", description=__doc__)
    add = parser.add_argument
    add("scores", nargs="+", metavar="SCORES", help="score files, one per system")
    add("--asv_scores", metavar="FILE", help="ASV scores of the same partition, for t-DCF")
    add("--protocol", metavar="FILE", help="labels, attacks, speakers, codecs … of the trials")
    add("--where", metavar="COLUMN=VALUE", action="append", default=[], help="keep these trials only; may be repeated")
    add("--group-by", "--partition", dest="group_by", metavar="COLUMN", help="break down by speaker, codec, … too")
    add("--flip", action="store_true", help="negate the scores (files where higher means spoof)")
    add("--threshold", type=float, metavar="X", help="also report decisions at this score")
    add("--target_far", type=float, metavar="FRACTION", help="also report decisions at this false acceptance rate")
    add("--bootstrap", type=int, metavar="N", help="resamples for 95 %% intervals (default: 1000 to compare, else 0)")
    add("--seed", type=int, default=1234, metavar="N", help="seed of the resamples (default: 1234)")
    add("--calibrate", nargs="+", metavar="DEV", help="calibrate on these dev scores, one file per system")
    add("--fuse", metavar="OUT", help="write a fusion of the systems, fitted on --dev, and evaluate it with them")
    add("--dev", nargs="+", default=[], metavar="DEV", help="dev scores for --fuse, one file per system")
    add("--dev_protocol", metavar="FILE", help="protocol of the dev scores")
    add("--json", metavar="OUT", help="write all numbers")
    add("--csv", metavar="OUT", help="write one row per system and condition")
    add("--latex", action="store_true", help="print rows for a LaTeX table, too")
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
    if bool(options.fuse) != bool(options.dev) or (options.fuse and len(options.scores) < 2):
        raise UserError("--fuse OUT goes with two or more SCORES and --dev DEV …", None, None)


def _load(path: str, options, protocol: str | None) -> Scores:
    scores = read_scores(path, protocol)
    return dataclasses.replace(scores, score=-scores.score) if options.flip else scores


def _select(scores: Scores, conditions: Sequence[str]) -> Scores:
    """The trials that meet every COLUMN=VALUE. Raises UserError when a class is gone."""
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
    """Short names of systems: file stems, or whole paths where stems repeat."""
    stems = [Path(path).stem for path in paths]
    names = stems if len(set(stems)) == len(stems) else list(paths)
    if len(set(names)) < len(names):
        raise UserError("the same score file is given twice", "different SCORES", " ".join(paths))
    return names


def _systems(options) -> dict[str, Scores]:
    """The systems to evaluate by name, the fusion among them if one is asked for."""
    loaded = [_select(_load(path, options, options.protocol), options.where) for path in options.scores]
    systems = dict(zip(_names(options.scores), loaded, strict=True))
    if options.fuse:
        fused = fuse(loaded, [_load(path, options, options.dev_protocol) for path in options.dev])
        keys = np.where(fused.is_bonafide, "bonafide", "spoof")
        write_scores(options.fuse, fused.utt_id, fused.attack, keys, fused.score)
        systems[f"fusion {Path(options.fuse).stem} (LLR)"] = fused
    return systems


def main() -> None:
    """The command."""
    options = parse_arguments()
    systems = _systems(options)
    asv = read_asv_scores(options.asv_scores) if options.asv_scores else None
    results = {
        name: evaluate(scores, asv, ASVSPOOF, options.threshold, options.target_far, options.group_by)
        for name, scores in systems.items()
    }
    for (name, scores), path in zip(systems.items(), options.calibrate or [], strict=False):  # a fusion needs none
        calibrate(results[name], scores, _load(path, options, options.dev_protocol))
    comparisons = []
    if resampled := options.bootstrap if options.bootstrap is not None else 1000 * (len(systems) > 1):
        replicates = {name: bootstrap(scores, asv, resampled, options.seed) for name, scores in systems.items()}
        for name, scores in systems.items():
            add_intervals(results[name], replicates[name], scores)
        comparisons = compare(systems, replicates, asv, options.seed)
    _write(options, results, comparisons)
    if options.plots:
        draw(results, systems, options.plots)


def _write(options, results: dict[str, dict], comparisons: list[dict]) -> None:
    """Print and save what was asked for; warnings go to stderr."""
    for name, result in results.items():
        for warning in result["warnings"]:
            print(f"warning: {name}: {warning}", file=sys.stderr)
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
