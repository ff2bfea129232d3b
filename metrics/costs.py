"""The cost model, and costs of a countermeasure alone: min DCF and act DCF of ASVspoof 5, and Cllr."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from common.errors import UserError
from metrics.error_rates import compute_det_curve


@dataclass(frozen=True)
class CostModel:
    """Priors and costs. The defaults are those of ASVspoof 2019; 2021 and 5 use the same ones where they use any."""

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


class Cost(NamedTuple):
    """A cost that is linear in the countermeasure's error rates: offset + miss·FRR + false_alarm·FAR, normalised."""

    offset: float
    miss: float
    false_alarm: float

    def along(self, frr: np.ndarray, far: np.ndarray) -> np.ndarray:
        """The cost at every point of a curve."""
        return self.offset + self.miss * frr + self.false_alarm * far


def detection_cost(model: CostModel) -> Cost:
    """The normalised DCF of the countermeasure alone: ASVspoof 5 evaluation plan (2024), track 1."""
    miss, false_alarm = model.c_miss_cm * (1 - model.p_spoof), model.c_fa_cm * model.p_spoof
    scale = min(miss, false_alarm)
    return Cost(0.0, miss / scale, false_alarm / scale)


def compute_min_dcf(bonafide: np.ndarray, spoof: np.ndarray, model: CostModel = ASVSPOOF) -> float:
    """The least normalised DCF over all thresholds (ASVspoof 5, track 1, primary metric)."""
    frr, far, _ = compute_det_curve(bonafide, spoof)
    return float(detection_cost(model).along(frr, far).min())


def bayes_threshold(model: CostModel) -> float:
    """The LLR where both decisions cost the same: −log β, β = C_miss(1 − π_spoof) / (C_fa π_spoof)."""
    return float(-np.log(model.c_miss_cm * (1 - model.p_spoof) / (model.c_fa_cm * model.p_spoof)))


def compute_act_dcf(bonafide: np.ndarray, spoof: np.ndarray, model: CostModel = ASVSPOOF) -> float:
    """The normalised DCF if scores are LLRs, accepting at `bayes_threshold` and above (ASVspoof 5, track 1)."""
    threshold = bayes_threshold(model)
    return float(detection_cost(model).along(np.mean(bonafide < threshold), np.mean(spoof >= threshold)))


def compute_cllr(bonafide: np.ndarray, spoof: np.ndarray) -> float:
    """The cost of log-likelihood ratios, in bits: 0 is perfect, 1 is no information, above 1 misleads.

    Source: N. Brümmer and J. du Preez, Application-independent evaluation of speaker detection, CSL 20 (2006).
    """
    return float(np.mean(np.logaddexp(0, -bonafide)) + np.mean(np.logaddexp(0, spoof))) / (2 * np.log(2))
