"""A countermeasure together with a speaker verifier (ASV): min t-DCF, a-DCF and t-EER."""

from typing import NamedTuple

import numpy as np

from common.errors import UserError
from metrics.costs import ASVSPOOF, Cost, CostModel
from metrics.error_rates import compute_det_curve, compute_eer


class AsvScores(NamedTuple):
    """A speaker verifier's scores of the three kinds of trial, each (n,), and the attacks among the spoofs."""

    target: np.ndarray
    nontarget: np.ndarray
    spoof: np.ndarray
    attacks: frozenset[str] = frozenset()


class AsvErrorRates(NamedTuple):
    """The speaker verifier at its own EER threshold; fractions."""

    eer: float
    threshold: float
    p_fa: float
    p_miss: float
    p_miss_spoof: float


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


def tandem_cost(asv: AsvErrorRates, model: CostModel, form: str = "legacy") -> Cost:
    """The normalised t-DCF of a countermeasure in front of a fixed verifier.

    form "legacy": ASVspoof 2019 — T. Kinnunen et al., t-DCF, Odyssey 2018 (arXiv:1804.09618), as simplified in the
    ASVspoof 2019 evaluation plan: no offset, divided by min(C1, C2).
    form "revised": ASVspoof 2021 — T. Kinnunen et al., Tandem assessment, IEEE/ACM TASLP 28 (2020), ASV-constrained:
    the verifier's own cost C0 stays in, divided by C0 + min(C1, C2).
    Raises UserError when the verifier is too poor for a t-DCF.
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


class MinTDCF(NamedTuple):
    """The least normalised t-DCF and its threshold (scores up to and including it are rejected)."""

    min_tdcf: float
    threshold: float


def compute_min_tdcf(
    bonafide: np.ndarray,
    spoof: np.ndarray,
    asv_rates: AsvErrorRates,
    cost_model: CostModel = ASVSPOOF,
    form: str = "legacy",
) -> MinTDCF:
    """The least normalised t-DCF over the countermeasure's thresholds; see `tandem_cost` for forms and sources."""
    frr, far, thresholds = compute_det_curve(bonafide, spoof)
    cost = tandem_cost(asv_rates, cost_model, form).along(frr, far)
    point = np.argmin(cost)
    return MinTDCF(float(cost[point]), float(thresholds[point]))


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
    """The concurrent tandem EER: where the miss rate equals the false alarm rates of nontargets and of spoofs.

    For each verifier threshold, find the countermeasure threshold where the tandem's miss and false alarm rates meet.
    On this path, take the point where the result does not depend on the proportion of spoofs among impostors. NaN if
    there is none.
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
