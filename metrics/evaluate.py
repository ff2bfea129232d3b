"""Scores of one system → every metric, as one result ready for JSON."""

from collections import Counter

import numpy as np

from common.errors import UserError
from metrics.costs import ASVSPOOF, Cost, CostModel, bayes_threshold, detection_cost
from metrics.error_rates import (
    EER,
    AttackRanking,
    Ranking,
    auc_at,
    compute_eer,
    decide,
    eer_at,
    rocch_eer_at,
    threshold_at_far,
)
from metrics.scores import Scores, rows_by_value
from metrics.tandem import (
    AsvErrorRates,
    AsvScores,
    Tandem,
    asv_error_rates,
    compute_a_dcf,
    compute_min_tdcf,
    compute_t_eer,
    tandem_cost,
)

_PERCENT = {"eer": "eer_percent", "rocch_eer": "rocch_eer_percent"}  # metrics that are reported in percent
# The metrics of all trials together, in the order in which tables show them.
HEADLINE = ("eer", "rocch_eer", "min_tdcf", "min_tdcf_2021", "auc", "min_dcf", "act_dcf", "cllr")


def evaluate(
    scores: Scores,
    asv: AsvScores | None = None,
    cost_model: CostModel = ASVSPOOF,
    threshold: float | None = None,
    target_far: float | None = None,
    group_by: str | None = None,
) -> dict:
    """Every metric of one system, ready for JSON: floats, in percent if the name says so; None if undefined.

    Keys: n_bonafide, n_spoof, eer_percent, eer_threshold, rocch_eer_percent, min_tdcf (2019 form), min_tdcf_threshold,
    min_tdcf_2021, auc, min_dcf, act_dcf, cllr; asv: the verifier's error rates; sasv: a_dcf, t_eer_percent; decisions:
    at the threshold of the EER, at `threshold`, and where FAR ≤ `target_far`; per_attack: {A07: {n, eer_percent,
    min_tdcf}}, with the pooled bona fide trials and the pooled ASV spoof miss rate; groups: by the column `group_by`;
    warnings. Raises UserError when ASV scores define no t-DCF or trials have no such column.
    """
    values = metrics_of(scores, asv, cost_model)()
    rates = asv_error_rates(asv) if asv is not None else None
    eer = compute_eer(scores.bonafide, scores.spoof)
    result = {"n_bonafide": len(scores.bonafide), "n_spoof": len(scores.spoof), "eer_threshold": eer.threshold}
    result |= dict(reported(metric, values.get(metric)) for metric in HEADLINE)
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
    """{attack: {n, eer_percent, min_tdcf}} from the values of `AllMetrics`; empty if no attack is known."""
    counts = Counter(scores.attack[~scores.is_bonafide].tolist())
    return {
        name: {"n": n, "eer_percent": values[f"eer/{name}"] * 100, "min_tdcf": values.get(f"min_tdcf/{name}")}
        for name, n in sorted(counts.items())
        if counts.keys() != {"-"}
    }


def _evaluate_groups(scores: Scores, rates: AsvErrorRates | None, cost_model: CostModel, name: str) -> dict:
    """{value: {n_bonafide, n_spoof, eer_percent, min_tdcf}}: both classes are those of the group."""
    groups = {}
    for value, rows in rows_by_value(scores.group(name)).items():
        bonafide, spoof = (scores.score[rows[scores.is_bonafide[rows] == kind]] for kind in (True, False))
        row = {"n_bonafide": len(bonafide), "n_spoof": len(spoof), "eer_percent": None, "min_tdcf": None}
        if len(bonafide) and len(spoof):
            row["eer_percent"] = compute_eer(bonafide, spoof).eer * 100
            if rates:
                row["min_tdcf"] = compute_min_tdcf(bonafide, spoof, rates, cost_model).min_tdcf
        groups[value] = row
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
    """Warnings about inverted scores, ties, and ASV scores of another partition."""
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


class AllMetrics:
    """Every metric of one system, as a function of how often each trial counts (resamples count differently)."""

    def __init__(
        self, score: np.ndarray, is_bonafide: np.ndarray, attack: np.ndarray, costs: dict[str, Cost], model: CostModel
    ):
        """score, is_bonafide, attack: (N,); costs: those whose minimum is a metric, by its name."""
        self.pooled = Ranking(score, is_bonafide)
        self.costs = {"min_dcf": detection_cost(model), **costs}
        self.is_bonafide = is_bonafide
        self.bits = np.logaddexp(0, np.where(is_bonafide, -score, score)) / np.log(2)
        self.wrong = (score >= bayes_threshold(model)) != is_bonafide
        self.attacks = AttackRanking(score, is_bonafide, attack)

    def __call__(self, counts: np.ndarray | None = None) -> dict[str, float]:
        """`eer, rocch_eer, auc, act_dcf, cllr`, the minimum costs, and `eer/<attack>`, `min_tdcf/<attack>`."""
        frr, far = self.pooled.rates(counts)
        corner_frr, corner_far = frr[self.pooled.corners], far[self.pooled.corners]
        bonafide_bits, spoof_bits = self._class_means(self.bits, counts)
        miss, false_alarm = self._class_means(self.wrong, counts)
        values = {
            "eer": eer_at(frr, far),
            "rocch_eer": rocch_eer_at(corner_frr, corner_far),
            "auc": auc_at(frr[self.pooled.ends], far[self.pooled.ends]),
            "act_dcf": self.costs["min_dcf"].along(miss, false_alarm),
            "cllr": (bonafide_bits + spoof_bits) / 2,
        }
        values |= {name: float(cost.along(corner_frr, corner_far).min()) for name, cost in self.costs.items()}
        counts = np.ones(len(self.is_bonafide)) if counts is None else counts
        for name, eer, rates in self.attacks.rates(counts):
            values[f"eer/{name}"] = eer
            if "min_tdcf" in self.costs:
                values[f"min_tdcf/{name}"] = float(self.costs["min_tdcf"].along(*rates).min())
        return values

    def _class_means(self, values: np.ndarray, counts: np.ndarray | None) -> tuple[float, float]:
        """The means of `values` (N,) over bona fide and over spoof trials, each counted `counts` times."""
        counts = np.ones(len(values)) if counts is None else counts
        bonafide = np.where(self.is_bonafide, counts, 0)
        spoof = counts - bonafide
        return float((bonafide * values).sum() / bonafide.sum()), float((spoof * values).sum() / spoof.sum())


def metrics_of(scores: Scores, asv: AsvScores | None, cost_model: CostModel) -> AllMetrics:
    """All metrics of a system; t-DCF only with ASV scores."""
    costs = {}
    if asv is not None:
        rates = asv_error_rates(asv)
        costs = {"min_tdcf": tandem_cost(rates, cost_model), "min_tdcf_2021": tandem_cost(rates, cost_model, "revised")}
    return AllMetrics(scores.score, scores.is_bonafide, scores.attack, costs, cost_model)


def reported(metric: str, value):
    """A metric's reported name, and its value or values in the reported unit."""
    return (_PERCENT[metric], value * 100) if metric in _PERCENT else (metric, value)
