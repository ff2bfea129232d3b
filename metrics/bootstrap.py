"""Bootstrap: resamples of the trials, and 95 % intervals of every metric."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from metrics.costs import ASVSPOOF, CostModel
from metrics.evaluate import HEADLINE, metrics_of, reported
from metrics.scores import Scores, categories, rows_by_value
from metrics.tandem import AsvScores


def bootstrap(
    scores: Scores, asv: AsvScores | None, n: int, seed: int, cost_model: CostModel = ASVSPOOF
) -> dict[str, np.ndarray]:
    """Each metric's values (n,) on `n` resamples of the trials, by speaker × attack cluster if speakers are known.

    Bona fide trials and each attack are resampled separately. ASV error rates are held fixed.
    """
    stratum, cluster = clusters(scores)
    return replicate(metrics_of(scores, asv, cost_model), resamples(stratum, cluster, n, seed))


def add_intervals(result: dict, replicates: dict[str, np.ndarray], scores: Scores) -> None:
    """Add 95 % intervals to an `evaluate` result: `intervals`, `bootstrap`, and `eer_percent_interval` per attack."""
    drawn = [reported(metric, replicates[metric]) for metric in HEADLINE if metric in replicates]
    result["intervals"] = {name: _ends(values) for name, values in drawn}
    _, cluster = clusters(scores)
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
    """The interval's ends. None if all resamples agree: zero errors seen does not mean that there are none."""
    low, high = interval(values)
    return [low, high] if high - low > 1e-12 else None


def clusters(scores: Scores) -> tuple[np.ndarray, np.ndarray | None]:
    """(stratum, cluster) codes (N,): bona fide or the attack; speaker × stratum, or None without speakers."""
    _, stratum = categories(np.where(scores.is_bonafide, "bonafide", scores.attack))
    if "speaker" not in scores.groups:
        return stratum, None
    _, speaker = categories(scores.groups["speaker"])
    _, cluster = np.unique(speaker * (stratum.max() + 1) + stratum, return_inverse=True)
    return stratum, cluster


def resamples(stratum: np.ndarray, cluster: np.ndarray | None, n: int, seed: int) -> Iterator[np.ndarray]:
    """Yield `n` bootstrap resamples as counts (N,): how often each trial was drawn.

    Whole clusters are drawn with replacement within each stratum, as many as it has. cluster: (N,) integers 0 … C−1,
    each within one stratum; None makes every trial its own cluster. The same arguments give the same resamples, so
    that systems scored on the same trials are compared on the same draws.
    Source: B. Efron and R. Tibshirani, An Introduction to the Bootstrap (1993); clusters: A. C. Davison and
    D. V. Hinkley, Bootstrap Methods and their Application (1997), §3.8.
    """
    cluster = np.arange(len(stratum)) if cluster is None else cluster
    stratum_of = np.empty(cluster.max() + 1, dtype=stratum.dtype)
    stratum_of[cluster] = stratum
    groups = rows_by_value(stratum_of).values()
    rng = np.random.default_rng(seed)
    counts = np.empty(len(stratum_of))
    for _ in range(n):
        for group in groups:
            drawn = rng.integers(len(group), size=len(group), dtype=np.int32)
            counts[group] = np.bincount(drawn, minlength=len(group))
        yield counts[cluster]


def replicate(metrics: Callable[[np.ndarray], dict[str, float]], draws: Iterator[np.ndarray]) -> dict[str, np.ndarray]:
    """Each metric's values (n,) over the resamples."""
    values = [metrics(counts) for counts in draws]
    return {name: np.array([value[name] for value in values]) for name in values[0]}


class Interval(NamedTuple):
    """A 95 % percentile interval."""

    low: float
    high: float


def interval(replicates: np.ndarray) -> Interval:
    """The 2.5th and 97.5th percentile of replicates (n,)."""
    return Interval(*(float(value) for value in np.percentile(replicates, (2.5, 97.5))))


def p_value(differences: np.ndarray) -> float:
    """Two-sided bootstrap p of "no difference" from paired replicate differences (n,): twice the smaller tail.

    One is added to the tail and to n (Davison and Hinkley 1997, §4.2), so that p is never below 2/(n+1).
    """
    tail = min(np.sum(differences <= 0), np.sum(differences >= 0))
    return float(min(1.0, 2 * (tail + 1) / (len(differences) + 1)))
