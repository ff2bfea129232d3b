"""Metrics against scikit-learn, closed forms, brute force, and properties that hold for any scores."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from made_scores import toy

import evaluation as ev
from common.errors import UserError
from metrics.bootstrap import interval, replicate, resamples
from metrics.costs import Cost, bayes_threshold
from metrics.error_rates import AttackRanking, Ranking, eer_at, threshold_at_far
from metrics.evaluate import AllMetrics
from metrics.tandem import Tandem, compute_a_dcf, compute_t_eer


def test_eer_and_auc_agree_with_scikit_learn():
    from sklearn.metrics import roc_auc_score, roc_curve

    for seed in range(5):
        scores = toy(200, 300, seed, shift=1.0)
        far, tpr, _ = roc_curve(scores.is_bonafide, scores.score, drop_intermediate=False)
        gap = np.abs(1 - tpr - far)
        point = np.flatnonzero(np.isclose(gap, gap.min(), rtol=0, atol=1e-12))
        eers = (1 - tpr[point] + far[point]) / 2  # two points can be equally close
        assert np.abs(eers - ev.compute_eer(scores.bonafide, scores.spoof).eer).min() < 1e-12
        for score in (scores.score, np.round(scores.score)):  # with ties, too
            auc = ev.compute_auc(score[scores.is_bonafide], score[~scores.is_bonafide])
            assert auc == pytest.approx(roc_auc_score(scores.is_bonafide, score), abs=1e-12)


def test_cllr_closed_forms():
    assert ev.compute_cllr(np.zeros(7), np.zeros(3)) == pytest.approx(1.0, abs=1e-15)
    log2 = np.log(2.0)
    assert ev.compute_cllr(np.array([log2]), np.array([-log2])) == pytest.approx(np.log2(1.5), abs=1e-15)
    assert ev.compute_cllr(np.array([1e4]), np.array([-1e4])) == 0.0
    assert np.isfinite(ev.compute_cllr(np.array([-1e4]), np.array([1e4])))


def test_closed_forms_of_tiny_sets():
    assert ev.compute_eer(np.array([1.0]), np.array([0.0])) == (0.0, 0.0)
    assert ev.compute_eer(np.array([0.0]), np.array([1.0])).eer == 1.0
    bonafide, spoof = np.array([1.0, 3.0, 4.0, 5.0]), np.array([0.0, 0.5, 2.0, 2.5])
    assert ev.compute_eer(bonafide, spoof) == (0.25, 2.0)
    frr, far, thresholds = ev.compute_det_curve(bonafide, spoof)
    assert frr.tolist() == [0, 0, 0, 0.25, 0.25, 0.25, 0.5, 0.75, 1]
    assert far.tolist() == [1, 0.75, 0.5, 0.5, 0.25, 0, 0, 0, 0]
    assert thresholds[0] == -0.001 and thresholds[1:].tolist() == [0, 0.5, 1, 2, 2.5, 3, 4, 5]
    assert ev.compute_auc(bonafide, spoof) == 14 / 16
    decisions = ev.decide(bonafide, spoof, 2.0)
    assert decisions.confusion == [[3, 1], [1, 3]]
    assert (decisions.accuracy, decisions.f1_bonafide, decisions.f1_spoof) == (0.75, 0.75, 0.75)


def test_gaussian_scores_have_the_eer_of_theory():
    from scipy.stats import norm

    rng = np.random.default_rng(0)
    bonafide, spoof = rng.normal(2, size=200_000), rng.normal(size=200_000)
    assert ev.compute_eer(bonafide, spoof).eer == pytest.approx(norm.cdf(-1), abs=1.5e-3)
    assert ev.compute_rocch_eer(bonafide, spoof) == pytest.approx(norm.cdf(-1), abs=1.5e-3)


def test_rocch_eer_agrees_with_isotonic_regression():
    from sklearn.isotonic import IsotonicRegression

    for seed in range(10):
        scores = toy(30, 50, seed, shift=0.8)
        score = np.round(scores.score, 1)  # ties
        order = np.argsort(score, kind="stable")
        blocks = IsotonicRegression().fit(score, scores.is_bonafide).predict(score[order])
        ends = np.concatenate(([0], np.flatnonzero(np.diff(blocks)) + 1, [len(score)]))
        frr = np.concatenate(([0], np.cumsum(scores.is_bonafide[order])))[ends] / 30
        far = 1 - np.concatenate(([0], np.cumsum(~scores.is_bonafide[order])))[ends] / 50
        left = np.flatnonzero(frr <= far)[-1]
        gap = far - frr
        share = gap[left] / (gap[left] - gap[left + 1]) if gap[left] else 0.0
        expected = frr[left] + share * (frr[left + 1] - frr[left])
        assert ev.compute_rocch_eer(score[:30], score[30:]) == pytest.approx(expected, abs=1e-12)


def test_threshold_at_far_keeps_its_promise():
    spoof = np.round(np.random.default_rng(0).normal(size=1000), 1)
    for target in (0.0, 0.01, 0.29, 0.5, 0.999):
        threshold = threshold_at_far(spoof, target)
        assert np.mean(spoof > threshold) <= target
        lower = spoof[spoof < threshold]
        assert not lower.size or np.mean(spoof > lower.max()) > target


def test_tandem_eer_and_a_dcf_agree_with_brute_force():
    rng = np.random.default_rng(3)
    tandem = Tandem(
        rng.normal(2, 1, 40), rng.normal(-1, 1, 50), rng.normal(1, 1, 60), rng.normal(1.5, 1, 90), rng.normal(0, 1, 60)
    )
    frr, far, _ = ev.compute_det_curve(tandem.cm_bonafide, tandem.cm_spoof)
    best, expected = np.inf, None
    for tau in np.sort(np.concatenate(tandem[:3])):
        miss, fa_non, fa_spoof = (np.mean(tandem[0] <= tau), np.mean(tandem[1] > tau), np.mean(tandem[2] > tau))
        if miss < (fa_non + fa_spoof) / 2:
            total_miss = frr + (1 - frr) * miss
            point = np.argmin(np.abs(total_miss - ((1 - frr) * fa_non + far * fa_spoof) / 2))
            if (disagreement := abs(fa_non / fa_spoof - far[point] / (1 - frr[point]))) < best:
                best, expected = disagreement, fa_spoof * far[point]
    assert compute_t_eer(tandem) == pytest.approx(expected, abs=1e-12)
    grid = np.concatenate(([-np.inf], *tandem[:3]))
    costs = [0.9 * np.mean(tandem[0] <= t) + 0.5 * np.mean(tandem[1] > t) + np.mean(tandem[2] > t) for t in grid]
    assert compute_a_dcf(*tandem[:3]) == pytest.approx(min(costs) / 0.9, abs=1e-12)


def test_calibration_agrees_with_scikit_learn_and_undoes_an_affine_map():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(1)
    is_bonafide = np.arange(6000) < 1000
    llr = rng.normal(np.where(is_bonafide, 2.0, -2.0), 2.0)  # these Gaussians are calibrated LLRs
    calibration = ev.fit_calibration(llr / 3 + 7, is_bonafide)
    assert calibration.a == pytest.approx(3, rel=0.08) and calibration.b == pytest.approx(-21, rel=0.08)
    assert np.allclose(calibration.llr([7.0]), 7 * calibration.a + calibration.b)
    prior = 1 / (1 + np.exp(bayes_threshold(ev.ASVSPOOF)))
    weight = np.where(is_bonafide, prior / 1000, (1 - prior) / 5000) * 6000
    peer = LogisticRegression(C=1e9, tol=1e-10, max_iter=1000).fit(llr[:, None], is_bonafide, weight)
    ours = ev.fit_calibration(llr, is_bonafide)
    assert ours.a == pytest.approx(peer.coef_[0, 0], abs=2e-2)
    assert ours.b == pytest.approx(peer.intercept_[0] - np.log(prior / (1 - prior)), abs=2e-2)


def test_a_calibration_weighs_trials_as_their_repetition_does():
    rng = np.random.default_rng(0)
    is_bonafide = np.arange(6000) % 2 == 0
    score = rng.normal(np.where(is_bonafide, 2.0, 0.0))
    times = np.where(score > 1, 5, 1)
    weighed = ev.fit_calibration(score, is_bonafide, trial_weights=times / times.sum())
    repeated = ev.fit_calibration(np.repeat(score, times), np.repeat(is_bonafide, times))
    assert np.allclose(weighed, repeated, atol=0.01)  # Platt's targets hardly tell 3,000 trials from 9,000
    assert not np.allclose(weighed, ev.fit_calibration(score, is_bonafide), atol=0.1)


def test_calibration_of_separable_scores_is_finite_and_of_constant_ones_an_error():
    is_bonafide = np.arange(40) < 20
    calibration = ev.fit_calibration(np.where(is_bonafide, 1.0, -1.0), is_bonafide)
    assert np.isfinite(calibration).all() and calibration.a > 1
    with pytest.raises(UserError, match="differ"):
        ev.fit_calibration(np.ones(40), is_bonafide)


def test_empty_classes_and_bad_numbers_are_user_errors():
    with pytest.raises(UserError, match="both classes"):
        ev.compute_eer(np.array([1.0]), np.array([]))
    with pytest.raises(UserError, match="finite"):
        ev.compute_eer(np.array([1.0]), np.array([np.nan]))
    with pytest.raises(UserError, match="priors"):
        ev.CostModel(p_spoof=0.5)


# few distinct values (many ties) or many; never so close that a map merges them
numbers = st.lists(st.integers(-50, 50) | st.integers(-(10**6), 10**6), min_size=1, max_size=40)


def arrays(bonafide: list[int], spoof: list[int]) -> tuple[np.ndarray, np.ndarray]:
    return np.array(bonafide, dtype=float), np.array(spoof, dtype=float)


def doubt(b: np.ndarray, s: np.ndarray) -> float:
    """What the EER may differ by: nothing, or one step of the curve where two of its points are equally close."""
    frr, far, _ = ev.compute_det_curve(b, s)
    gap = np.abs(frr - far)
    return 1e-12 + (0.5 / min(len(b), len(s)) if np.isclose(gap, gap.min(), rtol=0, atol=1e-12).sum() > 1 else 0)


@settings(max_examples=150, deadline=None)
@given(numbers, numbers)
def test_monotone_maps_change_nothing(bonafide, spoof):
    b, s = arrays(bonafide, spoof)
    for transform in (lambda x: 3 * x + 1, lambda x: np.arctan(x / 1e3), lambda x: x**3):
        assert ev.compute_eer(transform(b), transform(s)).eer == ev.compute_eer(b, s).eer
        assert ev.compute_auc(transform(b), transform(s)) == ev.compute_auc(b, s)
        assert ev.compute_min_dcf(transform(b), transform(s)) == ev.compute_min_dcf(b, s)


@settings(max_examples=150, deadline=None)
@given(numbers, numbers)
def test_negating_swaps_the_classes(bonafide, spoof):
    b, s = arrays(bonafide, spoof)
    assert ev.compute_eer(-s, -b).eer == pytest.approx(ev.compute_eer(b, s).eer, abs=doubt(b, s))
    assert ev.compute_rocch_eer(-s, -b) == pytest.approx(ev.compute_rocch_eer(b, s), abs=1e-12)
    assert ev.compute_auc(-s, -b) == pytest.approx(ev.compute_auc(b, s), abs=1e-12)


@settings(max_examples=150, deadline=None)
@given(numbers, numbers, st.integers(2, 4))
def test_duplicating_trials_changes_nothing_but_the_resolution(bonafide, spoof, times):
    b, s = arrays(bonafide, spoof)
    bb, ss = np.repeat(b, times), np.repeat(s, times)
    resolution = 0.5 / min(len(b), len(s))
    assert abs(ev.compute_eer(bb, ss).eer - ev.compute_eer(b, s).eer) <= resolution + 1e-12
    assert ev.compute_rocch_eer(bb, ss) == pytest.approx(ev.compute_rocch_eer(b, s), abs=1e-12)
    assert ev.compute_auc(bb, ss) == pytest.approx(ev.compute_auc(b, s), abs=1e-12)
    assert ev.compute_min_dcf(bb, ss) == pytest.approx(ev.compute_min_dcf(b, s), abs=1e-12)


@settings(max_examples=150, deadline=None)
@given(numbers, numbers)
def test_flipped_labels_give_one_minus_eer(bonafide, spoof):
    assume(not set(bonafide) & set(spoof))
    b, s = arrays(bonafide, spoof)
    assert ev.compute_eer(s, b).eer == pytest.approx(1 - ev.compute_eer(b, s).eer, abs=doubt(b, s))
    assert ev.compute_auc(s, b) == pytest.approx(1 - ev.compute_auc(b, s), abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(numbers, numbers)
def test_bounds_and_order_of_the_metrics(bonafide, spoof):
    b, s = arrays(bonafide, spoof)
    eer, hull = ev.compute_eer(b, s).eer, ev.compute_rocch_eer(b, s)
    assert 0 <= hull <= 0.5 and hull <= eer + 0.5 / min(len(b), len(s)) and eer <= 1
    assert ev.compute_min_dcf(b, s) <= min(1, ev.compute_act_dcf(b, s)) + 1e-12


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 3))
def test_weights_equal_repeated_trials(seed, most):
    scores = toy(12, 20, seed, shift=1.0)
    weights = np.random.default_rng(seed).integers(1, most + 1, 32).astype(float)
    repeated = scores.take(np.repeat(np.arange(32), weights.astype(int)))
    costs = {"min_tdcf": Cost(0.1, 0.9, 2.0)}
    ours, theirs = (AllMetrics(x.score, x.is_bonafide, x.attack, costs, ev.ASVSPOOF) for x in (scores, repeated))
    weighted, plain = ours(weights), theirs()
    assert weighted.keys() == plain.keys()
    for name, value in weighted.items():
        tolerance = 0.5 * most / 12 if name.startswith("eer") else 1e-12
        assert value == pytest.approx(plain[name], abs=tolerance), name


def test_resamples_draw_whole_clusters_within_each_stratum():
    stratum, cluster = np.array([0, 0, 0, 1, 1, 1, 1]), np.array([0, 0, 1, 2, 2, 3, 3])
    for weights in resamples(stratum, cluster, 50, 0):
        assert weights[0] == weights[1] and weights[3] == weights[4] and weights[5] == weights[6]
        assert weights[0] + weights[2] == 2 and weights[3] + weights[5] == 2


@pytest.mark.slow
def test_clustered_intervals_cover_and_naive_ones_do_not():
    from scipy.stats import norm

    speakers, trials, spread = 60, 6, 0.7  # of each class; speaker offsets against within-speaker spread 1
    draws, naive_draws = 400, 100
    is_bonafide = np.repeat([True, False], speakers * trials)
    cluster = np.repeat(np.arange(2 * speakers), trials)
    truth = norm.cdf(-1.5 / (2 * np.hypot(1, spread)))
    rng = np.random.default_rng(1)
    covered = {"clustered": 0, "naive": 0}
    for draw in range(draws):
        offsets = spread * rng.standard_normal(2 * speakers)
        score = 1.5 * is_bonafide + offsets[cluster] + rng.standard_normal(len(cluster))
        ranking = Ranking(score, is_bonafide)
        for name, unit in (("clustered", cluster), ("naive", None))[: 2 if draw < naive_draws else 1]:
            weights = resamples(is_bonafide.astype(int), unit, 200, seed=draw)
            eers = replicate(lambda w, r=ranking: {"eer": eer_at(*r.rates(w))}, weights)["eer"]
            low, high = interval(eers)
            covered[name] += low <= truth <= high
    print(f"coverage: clustered {covered['clustered'] / draws:.1%}, naive {covered['naive'] / naive_draws:.1%}")
    assert 0.93 <= covered["clustered"] / draws <= 0.97
    assert covered["naive"] / naive_draws < 0.90


def test_attacks_together_have_the_numbers_of_each_attack_alone():
    cost = Cost(0.1, 0.7, 3.0)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(4, 60))
        score = rng.normal(size=n).round(seed % 3)  # with and without ties
        is_bonafide = np.arange(n) % 3 == 0
        attack = np.where(is_bonafide, "-", rng.choice(["A01", "A02", "A03"], n)).astype(object)
        drawn = rng.integers(0, 3, n) + 0.0
        drawn[np.unique(attack, return_index=True)[1]] = 1  # a resample leaves no attack without trials
        for counts in (np.ones(n), drawn):
            for name, eer, rates in AttackRanking(score, is_bonafide, attack).rates(counts):
                rows = np.flatnonzero(is_bonafide | (attack == name))
                alone = Ranking(score[rows], is_bonafide[rows]).rates(counts[rows])
                assert eer == eer_at(*alone)
                assert cost.along(*rates).min() == cost.along(*alone).min()


def test_many_attacks_and_groups_take_little():
    """Time and memory must grow with the trials, not with trials × attacks: 20,000 attacks once took 45 s and 5 GB."""
    rng = np.random.default_rng(0)
    n = 8_000
    is_bonafide = np.arange(n) % 2 == 0
    attack = np.where(is_bonafide, "-", [f"A{row:05d}" for row in range(n)]).astype(object)
    scores = ev.Scores(np.arange(n).astype(str), rng.normal(is_bonafide), is_bonafide, attack, {"speaker": attack})
    tracemalloc.start()
    result = ev.evaluate(scores, group_by="speaker")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(result["per_attack"]) == n // 2 and len(result["groups"]) == n // 2 + 1
    assert most < 1 << 25  # 4,000 rankings beside all bona fide trials had 0.5 GB
