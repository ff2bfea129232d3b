"""Is one system better than another? Paired bootstrap tests on their common trials."""

import dataclasses
import itertools

import numpy as np

from common.errors import UserError
from metrics.bootstrap import bootstrap, clusters, interval, p_value
from metrics.costs import ASVSPOOF
from metrics.evaluate import metrics_of, reported
from metrics.scores import Scores, common_trials
from metrics.tandem import AsvScores


def compare(
    systems: dict[str, Scores], replicates: dict[str, dict[str, np.ndarray]], asv: AsvScores | None, seed: int
) -> list[dict]:
    """Paired tests of every two systems, on the same resamples of their common trials.

    Each: a, b, n_trials, metrics {eer_percent, min_tdcf, min_dcf: {delta (b − a), interval, p}}, p_holm (of the EER,
    over all pairs), sentence. A pair that cannot be compared has only a, b and a sentence.
    """
    comparisons = []
    for a, b in itertools.combinations(systems, 2):
        try:
            pair = common_trials(systems[a], systems[b])
        except UserError as error:
            comparisons.append({"a": a, "b": b, "sentence": f"{a} and {b}: {error}"})
            continue
        drawn = [replicates[a], replicates[b]]
        if not _drawn_alike(systems[a], systems[b]):
            drawn = _draw_alike(pair, asv, len(drawn[0]["eer"]), seed)
        tests = _paired_tests(pair, drawn, asv)
        comparisons.append({"a": a, "b": b, "n_trials": len(pair[0].score), "metrics": tests})
    tested = [comparison for comparison in comparisons if "metrics" in comparison]
    _adjust_by_holm(tested)
    for comparison in tested:
        comparison["sentence"] = _sentence(comparison)
    return comparisons


def _drawn_alike(first: Scores, second: Scores) -> bool:
    """Whether one seed gives both the same resamples: equal trials in one order and equal clusters."""
    return np.array_equal(first.utt_id, second.utt_id) and all(
        np.array_equal(a, b) for a, b in zip(clusters(first), clusters(second), strict=True)
    )


def _draw_alike(pair: tuple[Scores, Scores], asv: AsvScores | None, n: int, seed: int) -> list[dict[str, np.ndarray]]:
    """Replicates of both systems on the same resamples, in the clusters of the one that knows speakers."""
    known = pair[1] if "speaker" in pair[1].groups else pair[0]
    alike = [dataclasses.replace(system, attack=known.attack, groups=known.groups) for system in pair]
    return [bootstrap(system, asv, n, seed) for system in alike]


def _paired_tests(
    pair: tuple[Scores, Scores], drawn: list[dict[str, np.ndarray]], asv: AsvScores | None
) -> dict[str, dict]:
    """{reported name: {delta, interval, p}} of EER, min t-DCF and min DCF."""
    point = [metrics_of(system, asv, ASVSPOOF)() for system in pair]
    tests = {}
    for metric in ("eer", "min_tdcf", "min_dcf"):
        if metric in point[0]:
            name, differences = reported(metric, drawn[1][metric] - drawn[0][metric])
            delta = reported(metric, point[1][metric] - point[0][metric])[1]
            tests[name] = {"delta": delta, "interval": list(interval(differences)), "p": p_value(differences)}
    return tests


def _adjust_by_holm(tested: list[dict]) -> None:
    """Add `p_holm`, the EER's p adjusted over all comparisons (S. Holm, Scand. J. Statist. 6, 1979)."""
    floor = 0.0
    for rank, comparison in enumerate(sorted(tested, key=lambda item: item["metrics"]["eer_percent"]["p"])):
        floor = max(floor, (len(tested) - rank) * comparison["metrics"]["eer_percent"]["p"])
        comparison["p_holm"] = min(1.0, floor)


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
