"""Every number about scores: arrays in, named results out. No files, no printing (those are `evaluation.py`).

Polarity: a higher score means more bona fide. Error rates are fractions: FRR (P_miss) is the share of bona fide trials
rejected, FAR (P_fa) the share of spoof trials accepted. All float64, O(n log n).

Contents: the DET curve and what is read off it (EER, ROCCH-EER, AUC, t-DCF, DCF) · decisions at a threshold · Cllr ·
tandem with a speaker verifier (a-DCF, t-EER) · calibration and fusion · the bootstrap.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from common.errors import UserError

# --------------------------------------------------------------------------------------- the DET curve


class Rates(NamedTuple):
    """Error rates at every operating point, accept-all first: `frr` rises 0 → 1, `far` falls 1 → 0; each (N+1,)."""

    frr: np.ndarray
    far: np.ndarray


class Ranking:
    """Trials sorted once, so that their error rates under any trial weights cost one pass.

    Ties stand as in the challenge's own code: bona fide before spoof, a stable sort. Among equal scores the curve thus
    goes through points that no threshold realises; the official EER is defined on them, AUC is not (`ends`).
    """

    def __init__(self, score: np.ndarray, is_bonafide: np.ndarray, among: np.ndarray | None = None):
        """score (N,), is_bonafide (N,) bool; only trials `among` (N,) bool. Raises UserError for what has no curve."""
        among = np.ones(len(score), dtype=bool) if among is None else among
        counts = np.bincount(is_bonafide[among], minlength=2)
        if not counts.all():
            raise UserError(
                "error rates need both classes",
                "bona fide and spoof scores",
                f"{counts[1]} bona fide and {counts[0]} spoof",
            )
        if not np.isfinite(score).all():
            raise UserError("cannot rank scores", "finite numbers", f"{(~np.isfinite(score)).sum()} NaN or infinite")
        official = np.concatenate((np.flatnonzero(among & is_bonafide), np.flatnonzero(among & ~is_bonafide)))
        self.order = official[np.argsort(score[official], kind="stable")]
        self.score = score[self.order]
        self.is_bonafide = is_bonafide[self.order]
        lower, upper = self.score[:-1], self.score[1:]
        self.ends = np.flatnonzero(np.concatenate(([True], lower < upper, [True])))
        # Only between a spoof and the next bona fide trial can a cost c·frr + c'·far be least.
        turns = ~self.is_bonafide[:-1] & self.is_bonafide[1:]
        self.corners = np.flatnonzero(np.concatenate(([True], turns, [True])))

    def rates(self, weights: np.ndarray | None = None) -> Rates:
        """The curve; `weights` (N,) count each trial so many times: whole numbers, which float64 adds exactly."""
        counts = np.ones(len(self.order)) if weights is None else weights[self.order]
        rejected = np.cumsum(counts * self.is_bonafide)
        rejected_spoof = np.cumsum(counts) - rejected
        frr = np.concatenate(([0.0], rejected / rejected[-1]))
        far = np.concatenate(([1.0], (rejected_spoof[-1] - rejected_spoof) / rejected_spoof[-1]))
        return Rates(frr, far)

    @property
    def thresholds(self) -> np.ndarray:
        """(N+1,): point i rejects scores up to and including threshold i; the first lies 0.001 below all scores."""
        return np.concatenate(([self.score[0] - 0.001], self.score))


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
    """`eer` is a fraction; at `threshold` scores up to and including it are rejected."""

    eer: float
    threshold: float


def compute_eer(bonafide: np.ndarray, spoof: np.ndarray) -> EER:
    """The official equal error rate: the mean of FRR and FAR at the first point where they are closest.

    Source: the ASVspoof 2019 evaluation package; the same in 2021 and 5. Its resolution is that of the smaller class.
    """
    frr, far, thresholds = compute_det_curve(bonafide, spoof)
    point = np.argmin(np.abs(frr - far))
    return EER(float(frr[point] + far[point]) / 2, float(thresholds[point]))


def _rocch_eer(frr: np.ndarray, far: np.ndarray) -> float:
    """Where the lower convex hull of the points crosses frr = far.

    A segment between a point on each side of the diagonal is pulled down to the lowest point parallel to it until none
    is lower: each step reaches another vertex of the hull, so it ends, usually within ten steps.
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


def compute_rocch_eer(bonafide: np.ndarray, spoof: np.ndarray) -> float:
    """The EER of the ROC convex hull: the least EER of any rule that randomises between thresholds.

    Unlike the official EER it depends neither on the order of ties nor on how often each trial is repeated.
    Source: N. Brümmer, Measuring, refining and calibrating speaker and language information extracted from speech (PhD
    thesis, Stellenbosch 2010); N. Brümmer and E. de Villiers, The BOSARIS toolkit, arXiv:1304.2865.
    """
    ranking = _rank(bonafide, spoof)
    frr, far = ranking.rates()
    return _rocch_eer(frr[ranking.corners], far[ranking.corners])


def _auc(frr: np.ndarray, far: np.ndarray) -> float:
    return float(np.sum((far[:-1] - far[1:]) * (2 - frr[:-1] - frr[1:])) / 2)


def compute_auc(bonafide: np.ndarray, spoof: np.ndarray) -> float:
    """Area under the ROC curve: P(a bona fide trial scores above a spoof one), ties counting one half.

    Source: J. A. Hanley and B. J. McNeil, Radiology 143 (1982).
    """
    ranking = _rank(bonafide, spoof)
    frr, far = ranking.rates()
    return _auc(frr[ranking.ends], far[ranking.ends])


# ----------------------------------------------------------------------------------------------- costs


@dataclass(frozen=True)
class CostModel:
    """Priors and costs. The defaults are ASVspoof 2019's, and as far as they are used, also 2021's and 5's."""

    p_spoof: float = 0.05
    p_target: float = 0.95 * 0.99
    p_nontarget: float = 0.95 * 0.01
    c_miss_asv: float = 1.0  # the verifier rejects a target (2021's C_miss)
    c_fa_asv: float = 10.0  # the verifier accepts a nontarget (2021's C_fa)
    c_miss_cm: float = 1.0  # the countermeasure rejects bona fide speech
    c_fa_cm: float = 10.0  # the countermeasure accepts spoofed speech (2021's C_fa,spoof)

    def __post_init__(self):
        priors = (self.p_spoof, self.p_target, self.p_nontarget)
        costs = (self.c_miss_asv, self.c_fa_asv, self.c_miss_cm, self.c_fa_cm)
        if min(*priors, *costs) < 0 or abs(sum(priors) - 1) > 1e-10:
            raise UserError("bad cost model", "costs ≥ 0 and priors ≥ 0 that sum to 1", self)


ASVSPOOF = CostModel()


class AsvErrorRates(NamedTuple):
    """The speaker verifier at its own EER threshold; fractions."""

    eer: float
    threshold: float
    p_fa: float
    p_miss: float
    p_miss_spoof: float


class Cost(NamedTuple):
    """A cost that is linear in the countermeasure's error rates: offset + miss·FRR + false_alarm·FAR, normalised."""

    offset: float
    miss: float
    false_alarm: float

    def along(self, frr: np.ndarray, far: np.ndarray) -> np.ndarray:
        """The cost at every operating point."""
        return self.offset + self.miss * frr + self.false_alarm * far


def tandem_cost(asv: AsvErrorRates, model: CostModel, form: str = "legacy") -> Cost:
    """The normalised t-DCF of a countermeasure in front of a fixed verifier.

    form "legacy": ASVspoof 2019 — T. Kinnunen et al., t-DCF, Odyssey 2018 (arXiv:1804.09618), as simplified in the
    ASVspoof 2019 evaluation plan: no offset, divided by min(C1, C2).
    form "revised": ASVspoof 2021 — T. Kinnunen et al., Tandem assessment, IEEE/ACM TASLP 28 (2020), ASV-constrained:
    the verifier's own cost C0 stays in, divided by C0 + min(C1, C2).
    Raises UserError where the verifier is so poor that the t-DCF is not defined.
    """
    own = model.p_target * model.c_miss_asv * asv.p_miss + model.p_nontarget * model.c_fa_asv * asv.p_fa
    false_alarm = model.p_spoof * model.c_fa_cm * (1 - asv.p_miss_spoof)
    miss = model.p_target * (model.c_miss_cm if form == "legacy" else model.c_miss_asv) - own
    if min(miss, false_alarm) <= 0:
        raise UserError(
            "these ASV scores do not define a t-DCF",
            "a verifier above chance that some spoofs pass",
            f"C1 = {miss:.4g}, C2 = {false_alarm:.4g}",
        )
    offset = {"legacy": 0.0, "revised": own}[form]
    scale = offset + min(miss, false_alarm)
    return Cost(offset / scale, miss / scale, false_alarm / scale)


def detection_cost(model: CostModel) -> Cost:
    """The normalised DCF of the countermeasure alone: ASVspoof 5 evaluation plan (2024), track 1."""
    miss, false_alarm = model.c_miss_cm * (1 - model.p_spoof), model.c_fa_cm * model.p_spoof
    scale = min(miss, false_alarm)
    return Cost(0.0, miss / scale, false_alarm / scale)


class MinTDCF(NamedTuple):
    """The least normalised t-DCF and the threshold that attains it (scores up to and including it are rejected)."""

    min_tdcf: float
    threshold: float


def compute_min_tdcf(
    bonafide: np.ndarray,
    spoof: np.ndarray,
    asv_rates: AsvErrorRates,
    cost_model: CostModel = ASVSPOOF,
    form: str = "legacy",
) -> MinTDCF:
    """The least normalised tandem cost over the countermeasure's thresholds; `tandem_cost` has forms and sources."""
    frr, far, thresholds = compute_det_curve(bonafide, spoof)
    cost = tandem_cost(asv_rates, cost_model, form).along(frr, far)
    point = np.argmin(cost)
    return MinTDCF(float(cost[point]), float(thresholds[point]))


def compute_min_dcf(bonafide: np.ndarray, spoof: np.ndarray, model: CostModel = ASVSPOOF) -> float:
    """The least normalised DCF over all thresholds (ASVspoof 5, track 1, primary metric)."""
    frr, far, _ = compute_det_curve(bonafide, spoof)
    return float(detection_cost(model).along(frr, far).min())


def bayes_threshold(model: CostModel) -> float:
    """The LLR at which both decisions cost the same: −log β, β = C_miss(1 − π_spoof) / (C_fa π_spoof)."""
    return float(-np.log(model.c_miss_cm * (1 - model.p_spoof) / (model.c_fa_cm * model.p_spoof)))


def compute_act_dcf(bonafide: np.ndarray, spoof: np.ndarray, model: CostModel = ASVSPOOF) -> float:
    """The normalised DCF with scores taken as LLRs, accepting at `bayes_threshold` and above (ASVspoof 5, track 1)."""
    threshold = bayes_threshold(model)
    return float(detection_cost(model).along(np.mean(bonafide < threshold), np.mean(spoof >= threshold)))


def compute_cllr(bonafide: np.ndarray, spoof: np.ndarray) -> float:
    """The cost of log-likelihood ratios, in bits: 0 is perfect, 1 knows nothing, above 1 misleads.

    Source: N. Brümmer and J. du Preez, Application-independent evaluation of speaker detection, CSL 20 (2006).
    """
    return float(np.mean(np.logaddexp(0, -bonafide)) + np.mean(np.logaddexp(0, spoof))) / (2 * np.log(2))


# ------------------------------------------------------------------------------------------- decisions


class Decisions(NamedTuple):
    """Counts and rates at one threshold: a trial is accepted as bona fide where its score is above the threshold.

    `confusion` is [[bona fide accepted, bona fide rejected], [spoof accepted, spoof rejected]].
    """

    threshold: float
    frr: float
    far: float
    accuracy: float
    f1_bonafide: float  # bona fide as the class to be found
    f1_spoof: float  # spoof as the class to be found; papers use either
    confusion: list[list[int]]


def decide(bonafide: np.ndarray, spoof: np.ndarray, threshold: float) -> Decisions:
    """Accept what scores above `threshold`: so the official DET counts, where a threshold's own trial is rejected."""
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
    """The lowest threshold at which at most the share `target_far` of spoof trials (S,) scores above it."""
    allowed = int(np.floor(target_far * len(spoof) + 1e-9))  # 1e-9: 0.29 · 100 is 28.999…
    descending = np.sort(spoof)[::-1]
    return float(descending[allowed]) if allowed < len(spoof) else float(np.nextafter(descending[-1], -np.inf))


# ------------------------------------------------------------------------------------- with a verifier


class AsvScores(NamedTuple):
    """A speaker verifier's scores of the three kinds of trial, each (n,), and the attacks among the spoofs."""

    target: np.ndarray
    nontarget: np.ndarray
    spoof: np.ndarray
    attacks: frozenset[str] = frozenset()


def asv_error_rates(asv: AsvScores) -> AsvErrorRates:
    """The verifier's error rates at its EER threshold, accepting at the threshold and above (ASVspoof 2019 package)."""
    eer, threshold = compute_eer(asv.target, asv.nontarget)
    return AsvErrorRates(
        eer,
        threshold,
        p_fa=float(np.mean(asv.nontarget >= threshold)),
        p_miss=float(np.mean(asv.target < threshold)),
        p_miss_spoof=float(np.mean(asv.spoof < threshold)),
    )


def compute_a_dcf(target: np.ndarray, nontarget: np.ndarray, spoof: np.ndarray) -> float:
    """The least architecture-agnostic DCF of single spoofing-aware verification scores.

    Priors 0.9 / 0.05 / 0.05 for target, nontarget, spoof; costs 1 / 10 / 20: the defaults of the authors' package,
    which ASVspoof 5 uses. Source: H. Shim et al., a-DCF, Odyssey 2024 (arXiv:2403.01355).
    """
    miss, fa_nontarget, fa_spoof = 0.9 * 1, 0.05 * 10, 0.05 * 20
    candidates = np.sort(np.concatenate((target, nontarget, spoof)))

    def rejected(scores: np.ndarray) -> np.ndarray:
        at = np.searchsorted(np.sort(scores), candidates, side="right")
        return np.concatenate(([0], at)) / len(scores)

    cost = miss * rejected(target) + fa_nontarget * (1 - rejected(nontarget)) + fa_spoof * (1 - rejected(spoof))
    return float(cost.min() / min(miss, fa_nontarget + fa_spoof))


class Tandem(NamedTuple):
    """Countermeasure and verifier scores of the same trials, each (n,), for the three kinds of trial."""

    asv_target: np.ndarray
    asv_nontarget: np.ndarray
    asv_spoof: np.ndarray
    cm_bonafide: np.ndarray
    cm_spoof: np.ndarray


def compute_t_eer(tandem: Tandem) -> float:
    """The concurrent tandem EER: where miss rate and false alarm rates for nontargets and for spoofs agree.

    For each verifier threshold, the countermeasure threshold at which the tandem's miss and false alarm rates meet; of
    this path, the point where the answer does not depend on how many impostors are spoofs. NaN where there is none.
    Source: T. Kinnunen et al., t-EER, IEEE TPAMI 46 (2024), arXiv:2309.12237; details as in the ASVspoof 5 package.
    """
    frr, far, _ = compute_det_curve(tandem.cm_bonafide, tandem.cm_spoof)
    taus = np.sort(np.concatenate(tandem[:3]))
    taus = np.concatenate(([taus[0] - 0.001], taus))
    miss, fa_nontarget, fa_spoof = (
        np.searchsorted(np.sort(scores), taus, side="right") / len(scores) for scores in tandem[:3]
    )
    fa_nontarget, fa_spoof = 1 - fa_nontarget, 1 - fa_spoof
    usable = (miss < (fa_nontarget + fa_spoof) / 2) & (fa_spoof > 0)
    miss, fa_nontarget, fa_spoof = miss[usable], fa_nontarget[usable], fa_spoof[usable]

    def gap(point: np.ndarray) -> np.ndarray:  # tandem miss minus false alarm rate: rises with the CM threshold
        passed = 1 - frr[point]
        return frr[point] + passed * miss - (passed * fa_nontarget + far[point] * fa_spoof) / 2

    low, high = np.zeros(len(miss), int), np.full(len(miss), len(frr) - 1)
    while np.any(high - low > 1):
        middle = (low + high) // 2
        negative = gap(middle) < 0
        low, high = np.where(negative, middle, low), np.where(negative, high, middle)
    point = np.where(np.abs(gap(low)) <= np.abs(gap(high)), low, high)
    keep = frr[point] < 1
    if not keep.any():
        return float("nan")
    disagreement = np.abs(fa_nontarget / fa_spoof - far[point] / np.where(keep, 1 - frr[point], 1))
    best = np.argmin(np.where(keep, disagreement, np.inf))
    return float(fa_spoof[best] * far[point[best]])


# ------------------------------------------------------------------------------ calibration and fusion


class Fusion(NamedTuple):
    """LLR = weights · scores + bias."""

    weights: np.ndarray  # (K,)
    bias: float

    def llr(self, scores: np.ndarray) -> np.ndarray:
        """(N, K) scores → (N,) calibrated log-likelihood ratios."""
        return scores @ self.weights + self.bias


class Calibration(NamedTuple):
    """LLR = a · score + b."""

    a: float
    b: float

    def llr(self, score: np.ndarray) -> np.ndarray:
        """(N,) scores → (N,) calibrated log-likelihood ratios."""
        return self.a * np.asarray(score) + self.b


def fit_fusion(
    scores: np.ndarray, is_bonafide: np.ndarray, model: CostModel = ASVSPOOF, shares: np.ndarray | None = None
) -> Fusion:
    """Logistic regression on scores (N, K) that weighs the classes as at the cost model's effective prior.

    shares (N,) > 0: how much each trial counts within its class; all alike if not given.
    Newton's method; the targets are Platt's (n+1)/(n+2) and 1/(n+2), so that separable dev scores, too, have a finite
    optimum. Sources: N. Brümmer et al., Fusion of heterogeneous speaker recognition systems, IEEE TASLP 15 (2007);
    J. Platt, Probabilistic outputs for support vector machines, in Advances in Large Margin Classifiers (2000).
    Raises UserError when a class is missing or a system scores every trial the same.
    """
    count = np.array([np.sum(~is_bonafide), np.sum(is_bonafide)])
    spread = scores.std(axis=0)
    if not count.all() or not spread.all():
        raise UserError(
            "cannot fit a calibration",
            "scores that differ, of both classes",
            f"{count[1]} bona fide, {count[0]} spoof, {np.sum(spread == 0)} constant system(s)",
        )
    prior_log_odds = -bayes_threshold(model)
    prior = 1 / (1 + np.exp(-prior_log_odds))
    mean = scores.mean(axis=0)
    design = np.column_stack(((scores - mean) / spread, np.ones(len(scores))))
    target = np.where(is_bonafide, (count[1] + 1) / (count[1] + 2), 1 / (count[0] + 2))
    shares = np.ones(len(scores)) if shares is None else shares
    weight = shares * np.where(is_bonafide, prior / shares[is_bonafide].sum(), (1 - prior) / shares[~is_bonafide].sum())
    slopes = _newton(design, target, weight, prior_log_odds)
    weights = slopes[:-1] / spread
    return Fusion(weights, float(slopes[-1] - mean @ weights))


def _newton(design: np.ndarray, target: np.ndarray, weight: np.ndarray, offset: float) -> np.ndarray:
    """Minimise Σ weight · cross-entropy(target, σ(design @ θ + offset)), which is convex, by damped Newton steps."""

    def loss(theta: np.ndarray) -> float:
        logit = design @ theta + offset
        return float(weight @ (np.logaddexp(0, logit) - target * logit))

    theta = np.zeros(design.shape[1])
    for _ in range(200):
        probability = 0.5 * (1 + np.tanh((design @ theta + offset) / 2))
        gradient = design.T @ (weight * (probability - target))
        curvature = (design.T * (weight * probability * (1 - probability))) @ design
        step = np.linalg.lstsq(curvature, gradient, rcond=None)[0]  # lstsq: identical systems make it singular
        before = loss(theta)
        while loss(theta - step) > before and np.abs(step).max() > 1e-12:
            step = step / 2
        theta = theta - step
        if np.abs(step).max() < 1e-10:
            break
    return theta


def fit_calibration(
    score: np.ndarray, is_bonafide: np.ndarray, model: CostModel = ASVSPOOF, shares: np.ndarray | None = None
) -> Calibration:
    """The affine map of dev scores (N,) to LLRs; see `fit_fusion`, of which it is the case K = 1."""
    fusion = fit_fusion(np.asarray(score, np.float64)[:, None], is_bonafide, model, shares)
    return Calibration(float(fusion.weights[0]), fusion.bias)


# -------------------------------------------------------------------------- all at once, and resampled


class Battery:
    """Every metric of one system as a function of trial weights: computed once as it is, then on every resample."""

    def __init__(
        self, score: np.ndarray, is_bonafide: np.ndarray, attack: np.ndarray, costs: dict[str, Cost], model: CostModel
    ):
        """score, is_bonafide, attack: (N,); each of `costs` becomes a minimum cost of that name."""
        self.pooled = Ranking(score, is_bonafide)
        self.costs = {"min_dcf": detection_cost(model), **costs}
        self.is_bonafide = is_bonafide
        self.bits = np.logaddexp(0, np.where(is_bonafide, -score, score)) / np.log(2)
        self.wrong = (score >= bayes_threshold(model)) != is_bonafide
        names = np.unique(attack[~is_bonafide])
        self.attacks = {name: Ranking(score, is_bonafide, is_bonafide | (attack == name)) for name in names}

    def __call__(self, weights: np.ndarray | None = None) -> dict[str, float]:
        """`eer, rocch_eer, auc, act_dcf, cllr`, the minimum costs, and `eer/<attack>`, `min_tdcf/<attack>`."""
        frr, far = self.pooled.rates(weights)
        corner_frr, corner_far = frr[self.pooled.corners], far[self.pooled.corners]
        bonafide_bits, spoof_bits = self._class_means(self.bits, weights)
        miss, false_alarm = self._class_means(self.wrong, weights)
        values = {
            "eer": _eer(frr, far),
            "rocch_eer": _rocch_eer(corner_frr, corner_far),
            "auc": _auc(frr[self.pooled.ends], far[self.pooled.ends]),
            "act_dcf": self.costs["min_dcf"].along(miss, false_alarm),
            "cllr": (bonafide_bits + spoof_bits) / 2,
        }
        values |= {name: float(cost.along(corner_frr, corner_far).min()) for name, cost in self.costs.items()}
        for name, ranking in self.attacks.items():
            rates = ranking.rates(weights)
            values[f"eer/{name}"] = _eer(*rates)
            if "min_tdcf" in self.costs:
                cost = self.costs["min_tdcf"].along(rates.frr[ranking.corners], rates.far[ranking.corners])
                values[f"min_tdcf/{name}"] = float(cost.min())
        return values

    def _class_means(self, values: np.ndarray, weights: np.ndarray | None) -> tuple[float, float]:
        """The weighted means of `values` (N,) over bona fide and over spoof trials."""
        weights = np.ones(len(values)) if weights is None else weights
        bonafide = np.where(self.is_bonafide, weights, 0)
        spoof = weights - bonafide
        return float((bonafide * values).sum() / bonafide.sum()), float((spoof * values).sum() / spoof.sum())


def _eer(frr: np.ndarray, far: np.ndarray) -> float:
    point = np.argmin(np.abs(frr - far))
    return float(frr[point] + far[point]) / 2


def resamples(stratum: np.ndarray, cluster: np.ndarray | None, n: int, seed: int) -> Iterator[np.ndarray]:
    """Yield `n` bootstrap resamples as trial weights (N,): how often each trial was drawn.

    Whole clusters are drawn with replacement within each stratum (here: bona fide, and each attack), as many as it has.
    `cluster` (N,) integers 0 … C−1, each within one stratum; None makes every trial its own. The same arguments give
    the same resamples, so that systems scored on the same trials are compared on the same draws.
    Source: B. Efron and R. Tibshirani, An Introduction to the Bootstrap (1993); clusters: A. C. Davison and
    D. V. Hinkley, Bootstrap Methods and their Application (1997), §3.8.
    """
    cluster = np.arange(len(stratum)) if cluster is None else cluster
    stratum_of = np.empty(cluster.max() + 1, dtype=stratum.dtype)
    stratum_of[cluster] = stratum
    groups = [np.flatnonzero(stratum_of == name) for name in np.unique(stratum)]
    rng = np.random.default_rng(seed)
    times = np.empty(len(stratum_of))
    for _ in range(n):
        for group in groups:
            drawn = rng.integers(len(group), size=len(group), dtype=np.int32)
            times[group] = np.bincount(drawn, minlength=len(group))
        yield times[cluster]


def replicate(battery: Callable[[np.ndarray], dict[str, float]], draws: Iterator[np.ndarray]) -> dict[str, np.ndarray]:
    """Each metric's values (n,) over the resamples."""
    values = [battery(weights) for weights in draws]
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

    One is added to the tail and to n (Davison and Hinkley 1997, §4.2), so that n resamples never claim p below 2/(n+1).
    """
    tail = min(np.sum(differences <= 0), np.sum(differences >= 0))
    return float(min(1.0, 2 * (tail + 1) / (len(differences) + 1)))
