"""FRR and FAR at every threshold: the DET curve, EER, ROCCH-EER and AUC; decisions at one threshold.

A higher score means more bona fide. FRR (P_miss) is the fraction of bona fide trials that is rejected, FAR (P_fa) the
fraction of spoof trials that is accepted. Arrays in, float64 out; everything takes O(n log n).
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from common.errors import UserError
from metrics.scores import rows_by_value


class Rates(NamedTuple):
    """Error rates at every threshold, from accepting all: `frr` rises 0 → 1, `far` falls 1 → 0; each (N+1,)."""

    frr: np.ndarray
    far: np.ndarray


class Ranking:
    """Trials sorted once; their error rates then take one pass, however often each trial counts.

    Ties are ordered as in the official code: bona fide before spoof, in a stable sort. Between equal scores the curve
    therefore has points that no threshold reaches. The official EER uses these points, AUC does not (`ends`).
    """

    def __init__(self, score: np.ndarray, is_bonafide: np.ndarray):
        """score (N,); is_bonafide (N,) bool.

        Raises UserError when a class is missing or a score is not finite.
        """
        counts = np.bincount(is_bonafide, minlength=2)
        if not counts.all():
            raise UserError(
                "error rates need both classes",
                "bona fide and spoof scores",
                f"{counts[1]} bona fide and {counts[0]} spoof",
            )
        if not np.isfinite(score).all():
            raise UserError("cannot rank scores", "finite numbers", f"{(~np.isfinite(score)).sum()} NaN or infinite")
        official = np.concatenate((np.flatnonzero(is_bonafide), np.flatnonzero(~is_bonafide)))
        self.order = official[np.argsort(score[official], kind="stable")]
        self.score = score[self.order]
        self.is_bonafide = is_bonafide[self.order]
        lower, upper = self.score[:-1], self.score[1:]
        self.ends = np.flatnonzero(np.concatenate(([True], lower < upper, [True])))
        # A cost c·frr + c'·far can be least only between a spoof trial and a bona fide trial that follows it.
        turns = ~self.is_bonafide[:-1] & self.is_bonafide[1:]
        self.corners = np.flatnonzero(np.concatenate(([True], turns, [True])))

    def rates(self, counts: np.ndarray | None = None) -> Rates:
        """The curve. `counts` (N,): how often each trial counts; whole numbers, because float64 adds those exactly."""
        counts = np.ones(len(self.order)) if counts is None else counts[self.order]
        rejected = np.cumsum(counts * self.is_bonafide)
        rejected_spoof = np.cumsum(counts) - rejected
        frr = np.concatenate(([0.0], rejected / rejected[-1]))
        far = np.concatenate(([1.0], (rejected_spoof[-1] - rejected_spoof) / rejected_spoof[-1]))
        return Rates(frr, far)

    @property
    def thresholds(self) -> np.ndarray:
        """(N+1,): point i rejects scores up to and including threshold i; the first is 0.001 below the lowest score."""
        return np.concatenate(([self.score[0] - 0.001], self.score))


class AttackRanking:
    """The spoofs of each attack among all bona fide trials.

    The points of an attack's curve are those of its `Ranking`. Of the bona fide trials between two of its spoofs only
    the first and the two beside the EER count, so that N trials take O(N log N), however many attacks there are.
    """

    def __init__(self, score: np.ndarray, is_bonafide: np.ndarray, attack: np.ndarray):
        """score (N,), finite; is_bonafide (N,) bool; attack (N,)."""
        bonafide, spoof = np.flatnonzero(is_bonafide), np.flatnonzero(~is_bonafide)
        self.bonafide = bonafide[np.argsort(score[bonafide], kind="stable")]
        ordered = score[self.bonafide]
        self.attacks: dict[str, tuple[np.ndarray, np.ndarray]] = {}  # rows (n,), and how many bona fide each rejects
        for name, found in rows_by_value(attack[spoof]).items():
            rows = spoof[found]
            rows = rows[np.argsort(score[rows], kind="stable")]
            self.attacks[name] = rows, np.searchsorted(ordered, score[rows], side="right")

    def rates(self, counts: np.ndarray) -> Iterator[tuple[str, float, Rates]]:
        """Each attack's name and EER, and the points where a cost can be least, (n+1,). `counts`: as in `Ranking`."""
        rejected = np.concatenate(([0.0], np.cumsum(counts[self.bonafide])))
        frr = rejected / rejected[-1]
        for name, (rows, passed) in self.attacks.items():
            caught = np.cumsum(counts[rows])
            far = np.concatenate(([1.0], (caught[-1] - caught) / caught[-1]))
            low, high = np.concatenate(([0], passed)), np.concatenate((passed, [len(self.bonafide)]))
            after = np.searchsorted(frr, far)
            beside = frr[np.clip((after - 1, after), low, high)].T.ravel()  # in the curve's order
            yield name, eer_at(beside, np.repeat(far, 2)), Rates(frr[low], far)


def _rank(bonafide: np.ndarray, spoof: np.ndarray) -> Ranking:
    score = np.concatenate((bonafide, spoof)).astype(np.float64)
    return Ranking(score, np.arange(len(score)) < len(bonafide))


class DetCurve(NamedTuple):
    """`frr`, `far`, `thresholds`, each (N+1,)."""

    frr: np.ndarray
    far: np.ndarray
    thresholds: np.ndarray


def compute_det_curve(bonafide: np.ndarray, spoof: np.ndarray) -> DetCurve:
    """The official DET curve of bona fide (B,) and spoof (S,) scores; N = B + S.

    Source: the ASVspoof 2019 evaluation package. Raises UserError when a class is empty or a score is not finite.
    """
    ranking = _rank(bonafide, spoof)
    return DetCurve(*ranking.rates(), ranking.thresholds)


class EER(NamedTuple):
    """`eer` is a fraction; scores up to and including `threshold` are rejected."""

    eer: float
    threshold: float


def compute_eer(bonafide: np.ndarray, spoof: np.ndarray) -> EER:
    """The official equal error rate: the mean of FRR and FAR at the first point where they are closest.

    Source: the ASVspoof 2019 evaluation package; the same in 2021 and 5. Its resolution is that of the smaller class.
    """
    frr, far, thresholds = compute_det_curve(bonafide, spoof)
    point = np.argmin(np.abs(frr - far))
    return EER(float(frr[point] + far[point]) / 2, float(thresholds[point]))


def eer_at(frr: np.ndarray, far: np.ndarray) -> float:
    """The official EER of a curve."""
    point = np.argmin(np.abs(frr - far))
    return float(frr[point] + far[point]) / 2


def compute_rocch_eer(bonafide: np.ndarray, spoof: np.ndarray) -> float:
    """The EER of the ROC convex hull: the least EER that choosing at random between thresholds can reach.

    Unlike the official EER it does not depend on the order of ties, nor on how often each trial is repeated.
    Source: N. Brümmer, Measuring, refining and calibrating speaker and language information extracted from speech (PhD
    thesis, Stellenbosch 2010); N. Brümmer and E. de Villiers, The BOSARIS toolkit, arXiv:1304.2865.
    """
    ranking = _rank(bonafide, spoof)
    frr, far = ranking.rates()
    return rocch_eer_at(frr[ranking.corners], far[ranking.corners])


def rocch_eer_at(frr: np.ndarray, far: np.ndarray) -> float:
    """The point where the lower convex hull of a curve crosses frr = far.

    Starts from a segment across the diagonal and replaces one end by the curve's lowest point in the direction normal
    to it, until no point is lower. Each step reaches another vertex of the hull, so it ends, usually within ten steps.
    """
    above, below = (0.0, 1.0), (1.0, 0.0)  # (frr, far): accept all, reject all
    while True:
        normal = (above[1] - below[1], below[0] - above[0])
        cost = normal[0] * frr + normal[1] * far
        level = normal[0] * above[0] + normal[1] * above[1]
        point = np.argmin(cost)
        if cost[point] >= level * (1 - 1e-12):
            return float(level / (normal[0] + normal[1]))
        if frr[point] < far[point]:
            above = (frr[point], far[point])
        else:
            below = (frr[point], far[point])


def compute_auc(bonafide: np.ndarray, spoof: np.ndarray) -> float:
    """Area under the ROC curve: P(a bona fide trial scores above a spoof one), ties counting one half.

    Source: J. A. Hanley and B. J. McNeil, Radiology 143 (1982).
    """
    ranking = _rank(bonafide, spoof)
    frr, far = ranking.rates()
    return auc_at(frr[ranking.ends], far[ranking.ends])


def auc_at(frr: np.ndarray, far: np.ndarray) -> float:
    """The area under a curve, by the trapezoidal rule."""
    return float(np.sum((far[:-1] - far[1:]) * (2 - frr[:-1] - frr[1:])) / 2)


class Decisions(NamedTuple):
    """Counts and rates at one threshold: a trial is accepted as bona fide where its score is above the threshold.

    `confusion` is [[bona fide accepted, bona fide rejected], [spoof accepted, spoof rejected]].
    """

    threshold: float
    frr: float
    far: float
    accuracy: float
    f1_bonafide: float  # bona fide is the positive class
    f1_spoof: float  # spoof is the positive class; papers use either
    confusion: list[list[int]]


def decide(bonafide: np.ndarray, spoof: np.ndarray, threshold: float) -> Decisions:
    """Accept scores above `threshold`. Like the official DET curve, this rejects a score equal to the threshold."""
    accepted, false_alarms = int(np.sum(bonafide > threshold)), int(np.sum(spoof > threshold))
    missed, caught = len(bonafide) - accepted, len(spoof) - false_alarms
    errors = missed + false_alarms
    return Decisions(
        threshold=float(threshold),
        frr=missed / len(bonafide),
        far=false_alarms / len(spoof),
        accuracy=(accepted + caught) / (len(bonafide) + len(spoof)),
        f1_bonafide=2 * accepted / (2 * accepted + errors) if accepted + errors else 0.0,
        f1_spoof=2 * caught / (2 * caught + errors) if caught + errors else 0.0,
        confusion=[[accepted, missed], [false_alarms, caught]],
    )


def threshold_at_far(spoof: np.ndarray, target_far: float) -> float:
    """The lowest threshold that at most the fraction `target_far` of the spoof scores (S,) exceeds."""
    allowed = int(np.floor(target_far * len(spoof) + 1e-9))  # 1e-9: 0.29 · 100 is 28.999…
    descending = np.sort(spoof)[::-1]
    return float(descending[allowed]) if allowed < len(spoof) else float(np.nextafter(descending[-1], -np.inf))
