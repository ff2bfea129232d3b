"""Calibration and fusion: scores → log-likelihood ratios, by logistic regression on dev scores."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from common.errors import UserError
from metrics.costs import ASVSPOOF, CostModel, bayes_threshold, compute_act_dcf, compute_cllr
from metrics.scores import Scores, common_trials


class Calibration(NamedTuple):
    """LLR = a · score + b."""

    a: float
    b: float

    def llr(self, score: np.ndarray) -> np.ndarray:
        """(N,) scores → (N,) calibrated log-likelihood ratios."""
        return self.a * np.asarray(score) + self.b


def fit_calibration(
    score: np.ndarray, is_bonafide: np.ndarray, model: CostModel = ASVSPOOF, trial_weights: np.ndarray | None = None
) -> Calibration:
    """The affine map of dev scores (N,) to LLRs: `fit_fusion` with K = 1."""
    fusion = fit_fusion(np.asarray(score, np.float64)[:, None], is_bonafide, model, trial_weights)
    return Calibration(float(fusion.weights[0]), fusion.bias)


class Fusion(NamedTuple):
    """LLR = weights · scores + bias."""

    weights: np.ndarray  # (K,)
    bias: float

    def llr(self, scores: np.ndarray) -> np.ndarray:
        """(N, K) scores → (N,) calibrated log-likelihood ratios."""
        return scores @ self.weights + self.bias


def fit_fusion(
    scores: np.ndarray, is_bonafide: np.ndarray, model: CostModel = ASVSPOOF, trial_weights: np.ndarray | None = None
) -> Fusion:
    """Logistic regression on scores (N, K), with the classes weighted to the cost model's effective prior.

    trial_weights (N,) > 0: the loss weight of each trial within its class; equal if not given.
    Newton's method; the targets are Platt's (n+1)/(n+2) and 1/(n+2), so that separable dev scores have a finite
    optimum too. Sources: N. Brümmer et al., Fusion of heterogeneous speaker recognition systems, IEEE TASLP 15 (2007);
    J. Platt, Probabilistic outputs for support vector machines, in Advances in Large Margin Classifiers (2000).
    Raises UserError when a class is missing or a system gives every trial the same score.
    """
    count = np.array([np.sum(~is_bonafide), np.sum(is_bonafide)])
    _, exponents = np.frexp(np.abs(scores).max(axis=0, initial=0))
    scores = np.ldexp(scores, -exponents)  # exact; the squares of huge scores are no numbers
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
    weight = np.ones(len(scores)) if trial_weights is None else trial_weights
    weight = weight * np.where(is_bonafide, prior / weight[is_bonafide].sum(), (1 - prior) / weight[~is_bonafide].sum())
    slopes = _newton(design, target, weight, prior_log_odds)
    weights = slopes[:-1] / spread
    return Fusion(np.ldexp(weights, -exponents), float(slopes[-1] - mean @ weights))


def _newton(design: np.ndarray, target: np.ndarray, weight: np.ndarray, offset: float) -> np.ndarray:
    """Minimise the convex loss Σ weight · cross-entropy(target, σ(design @ θ + offset)) by damped Newton steps."""

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


def calibrate(result: dict, scores: Scores, dev: Scores) -> None:
    """Fit a calibration on `dev`; add `calibrated` to an `evaluate` result: a, b, and act_dcf and cllr of the LLRs."""
    calibration = fit_calibration(dev.score, dev.is_bonafide)
    bonafide, spoof = calibration.llr(scores.bonafide), calibration.llr(scores.spoof)
    result["calibrated"] = {
        **calibration._asdict(),
        "act_dcf": compute_act_dcf(bonafide, spoof),
        "cllr": compute_cllr(bonafide, spoof),
    }
    result["warnings"] += _fitting_warnings(scores, dev, calibration.a)


def fuse(systems: Sequence[Scores], devs: Sequence[Scores]) -> Scores:
    """The logistic fusion of several systems, fitted on their dev scores; its scores are LLRs.

    Raises UserError when systems were not scored on the same trials.
    """
    systems, devs = _same_trials(systems), _same_trials(devs)
    fusion = fit_fusion(np.column_stack([dev.score for dev in devs]), devs[0].is_bonafide)
    llr = fusion.llr(np.column_stack([scores.score for scores in systems]))
    warnings = _fitting_warnings(systems[0], devs[0], float(fusion.weights.min()))
    return dataclasses.replace(systems[0], score=llr, asv={}, warnings=warnings)


def _same_trials(systems: Sequence[Scores]) -> list[Scores]:
    """The systems with their trials in one order. Raises UserError when they were not scored on the same trials."""
    aligned = [common_trials(systems[0], other) for other in systems]
    for number, (other, (first, _)) in enumerate(zip(systems, aligned, strict=True), start=1):
        if first is not systems[0] or len(other.score) != len(first.score):
            raise UserError(
                "systems to fuse were not scored on the same trials",
                f"the {len(systems[0].score):,} trials of the first",
                f"{len(other.score):,} of number {number}, {len(first.score):,} in common",
            )
    return [other for _, other in aligned]


def _fitting_warnings(scores: Scores, dev: Scores, least_weight: float) -> list[str]:
    """Warnings about a fit on the trials that it is tested on, and about a negative weight."""
    warnings = []
    if both := len(set(scores.utt_id.tolist()) & set(dev.utt_id.tolist())):
        warnings.append(f"fitted on {both:,} of the trials that it is tested on: the result is too good")
    if least_weight < 0:
        warnings.append(f"the fit gave a system the negative weight {least_weight:.3g}: inverted or redundant scores")
    return warnings
