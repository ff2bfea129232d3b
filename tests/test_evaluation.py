"""evaluation.py and metrics/ against published numbers, scikit-learn, closed forms, brute force, and bad files."""

import gzip
import json
import re
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import evaluation as ev
from common.errors import UserError
from metrics.bootstrap import interval, replicate, resamples
from metrics.costs import Cost, bayes_threshold
from metrics.error_rates import Ranking, eer_at, threshold_at_far
from metrics.evaluate import AllMetrics
from metrics.tandem import Tandem, compute_a_dcf, compute_t_eer

ROOT = Path(__file__).parents[1]
SHARED = Path(__file__).parents[2] / "shared"
SCORES = SHARED / "fixtures" / "scores"
ASV = SHARED / "data" / "LA_mini" / "ASVspoof2019_LA_asv_scores" / "ASVspoof2019.LA.asv.{}.gi.trl.scores.txt"
needs_shared = pytest.mark.skipif(not SCORES.is_dir(), reason=f"published score files not found in {SCORES}")

AASIST, FUSION, B01 = "aasist_official_la_eval.txt", "fusion_weighted_la_eval.txt", "b01_la_dev.txt"
PUBLISHED = {  # file: (partition, EER %, threshold, min t-DCF 2019), from ../shared/fixtures/README.md
    AASIST: ("eval", 0.8295112264154778, 1.4934322834014893, 0.0275294779020878),
    FUSION: ("eval", 0.7341802721711732, 1.246493, 0.021627332588648632),
    B01: ("dev", 0.43114082595860237, 1.252953, 0.012266594872011987),
}
PER_ATTACK = {  # attack: (EER %, min t-DCF) of AASIST, then of the fusion
    "A07": (0.529676029336, 0.017845067163, 0.349725682832, 0.011150544029),
    "A08": (0.424416206197, 0.012116728451, 0.244465859694, 0.007021640110),
    "A09": (0.0, 0.0, 0.0, 0.0),
    "A10": (0.855630508928, 0.028341377240, 0.668882065891, 0.021173370596),
    "A11": (0.179950346504, 0.005800638889, 0.098461726606, 0.003307319852),
    "A12": (0.709626375840, 0.021989137589, 0.424416206197, 0.013520246294),
    "A13": (0.146004133088, 0.003925403716, 0.057717416657, 0.001591851539),
    "A14": (0.162977239796, 0.005190138279, 0.081488619898, 0.001795351743),
    "A15": (0.553447232577, 0.018303384166, 0.302183276351, 0.010045576327),
    "A16": (0.651908959183, 0.017858467491, 0.471958612679, 0.013991963625),
    "A17": (1.263073608417, 0.036641152241, 1.181584988519, 0.032846948552),
    "A18": (2.607635836732, 0.080847962100, 2.461631703644, 0.078309143542),
    "A19": (0.651908959183, 0.018425234760, 0.488931719387, 0.014522580804),
}


def exact(value: float):
    return pytest.approx(value, rel=0, abs=1e-9)


def command(*arguments: object) -> subprocess.CompletedProcess:
    line = [sys.executable, "evaluation.py", *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True)


@cache
def evaluated(name: str) -> dict:
    """A published score file with the ASV scores of its partition."""
    return ev.evaluate(ev.read_scores(SCORES / name), ev.read_asv_scores(str(ASV).format(PUBLISHED[name][0])))


def toy(n_bonafide: int = 60, n_spoof: int = 90, seed: int = 0, shift: float = 2.0) -> ev.Scores:
    """Two attacks, four speakers, overlapping Gaussian scores."""
    rng = np.random.default_rng(seed)
    n = n_bonafide + n_spoof
    is_bonafide = np.arange(n) < n_bonafide
    return ev.Scores(
        utt_id=np.array([f"U{row:04d}" for row in range(n)]),
        score=rng.normal(np.where(is_bonafide, shift, 0.0)),
        is_bonafide=is_bonafide,
        attack=np.where(is_bonafide, "-", np.where(np.arange(n) % 2, "A01", "A02")),
        groups={"speaker": np.array([f"S{row % 4}" for row in range(n)])},
    )


def lines_of(scores: ev.Scores, form: str = "{u} {a} {k} {s!r}") -> str:
    keys = np.where(scores.is_bonafide, "bonafide", "spoof")
    speakers = scores.groups["speaker"]
    rows = zip(scores.utt_id, scores.attack, keys, scores.score.tolist(), speakers, strict=True)
    return "".join(form.format(u=u, a=a, k=k, s=s, p=p) + "\n" for u, a, k, s, p in rows)


# ----------------------------------------------------------------------------------------------- published numbers


@needs_shared
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_eer_and_min_tdcf(name):
    partition, eer, threshold, min_tdcf = PUBLISHED[name]
    result = evaluated(name)
    assert result["eer_percent"] == exact(eer)
    assert result["eer_threshold"] == exact(threshold)
    assert result["min_tdcf"] == exact(min_tdcf)
    assert result["warnings"] == []
    verifier = {"eval": (2.457783738686887, -5.680051), "dev": (2.4265302384005443, -3.548998)}[partition]
    assert (result["asv"]["eer"] * 100, result["asv"]["threshold"]) == (exact(verifier[0]), exact(verifier[1]))


@needs_shared
@pytest.mark.parametrize(("name", "first"), [(AASIST, 0), (FUSION, 2)])
def test_published_numbers_of_each_attack(name, first):
    result = evaluated(name)
    assert result["per_attack"].keys() == PER_ATTACK.keys()
    for attack, published in PER_ATTACK.items():
        row = result["per_attack"][attack]
        assert (row["n"], row["eer_percent"], row["min_tdcf"]) == (
            4914, exact(published[first]), exact(published[first + 1]))  # fmt: skip


@needs_shared
def test_published_revised_tdcf_and_asvspoof5_measures():
    result = evaluated(AASIST)
    assert result["min_tdcf_2021"] == exact(0.08853535371313767)
    assert evaluated(FUSION)["min_tdcf_2021"] == exact(0.08300346696880523)
    assert result["min_dcf"] == exact(0.023858744)
    assert result["act_dcf"] == exact(0.071030060)
    assert result["cllr"] == exact(0.091494692)


@needs_shared
def test_dev_scores_with_the_asv_scores_of_eval_are_the_known_mistake():
    result = ev.evaluate(ev.read_scores(SCORES / B01), ev.read_asv_scores(str(ASV).format("eval")))
    assert result["min_tdcf"] == exact(0.012260977891977063)


@needs_shared
def test_official_report_number_for_number():
    numbers = re.compile(r"-?\d+\.\d+|A\d\d")
    done = command(SCORES / FUSION, "--asv_scores", str(ASV).format("eval"), "--official")
    assert done.returncode == 0
    assert numbers.findall(done.stdout)[:2] == ["0.734180272", "0.021627333"]
    ours, theirs = (
        re.sub(r" for A\d\d\)?", "", text)
        for text in (done.stdout, (SCORES / "fusion_weighted_t-DCF_EER.txt").read_text())
    )
    assert numbers.findall(ours) == numbers.findall(theirs)


@needs_shared
def test_command_prints_a_table_and_writes_the_promised_json(tmp_path):
    done = command(
        SCORES / AASIST,
        "--asv_scores",
        str(ASV).format("eval"),
        "--json",
        tmp_path / "out.json",
        "--latex",
        "--csv",
        tmp_path / "out.csv",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "0.829511" in done.stdout and "0.027529" in done.stdout and "A18" in done.stdout
    assert max(map(len, done.stdout.split("%")[0].splitlines())) <= 100
    assert "& 0.83 & 0.0275 & 0.53 &" in done.stdout
    result = json.loads((tmp_path / "out.json").read_text())
    assert {"n_bonafide", "n_spoof", "eer_percent", "eer_threshold", "min_tdcf", "per_attack"} <= result.keys()
    assert (result["n_bonafide"], result["n_spoof"]) == (7355, 63882)
    assert result["per_attack"]["A18"].keys() == {"n", "eer_percent", "min_tdcf"}
    assert result["per_attack"]["A18"]["min_tdcf"] == exact(0.0808479621)
    rows = (tmp_path / "out.csv").read_text().splitlines()
    assert len(rows) == 1 + 1 + 13
    assert rows[1].startswith("aasist_official_la_eval,pooled,7355,63882,0.8295112264154778")


@needs_shared
def test_inverted_quantised_and_rearranged_published_scores(tmp_path):
    scores = ev.read_scores(SCORES / AASIST)
    scores.groups["speaker"] = np.full(len(scores.score), "LA_0001")
    for form, extra in (("{p} {u} - {a} {k} {s!r}", 0), ("{u} {s!r}", 1)):
        (tmp_path / "scores.txt").write_text(lines_of(scores, form))
        (tmp_path / "protocol.txt").write_text(lines_of(scores, "{p} {u} - {a} {k}"))
        read = ev.read_scores(tmp_path / "scores.txt", tmp_path / "protocol.txt" if extra else None)
        assert ev.evaluate(read)["eer_percent"] == exact(PUBLISHED[AASIST][1])
    scores.score = -scores.score
    (tmp_path / "inverted.txt").write_text(lines_of(scores))
    warnings = ev.evaluate(scores)["warnings"]
    assert "above 50 %" in warnings[0] and "--flip" in warnings[0]
    assert "0.829511" in command(tmp_path / "inverted.txt", "--flip").stdout
    scores.score = np.round(-scores.score)
    assert "ties" in ev.evaluate(scores)["warnings"][0]


# ----------------------------------------------------------------------------------------- independent computations


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


# ------------------------------------------------------------------------------------------------------- properties

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


# ------------------------------------------------------------------------------------------------------ uncertainty


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


def test_bootstrap_says_its_unit_and_is_reproducible():
    scores = toy()
    first, again, other = (ev.bootstrap(scores, None, 30, seed)["eer"] for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any()
    result = ev.evaluate(scores)
    ev.add_intervals(result, ev.bootstrap(scores, None, 50, 1), scores)
    assert result["bootstrap"] == {
        "resamples": 50, "unit": "speaker × attack", "n_units": {"bonafide": 4, "spoof": 4}}  # fmt: skip
    assert "too narrow" in result["warnings"][-1]
    low, high = result["intervals"]["eer_percent"]
    assert low <= result["eer_percent"] <= high
    del scores.groups["speaker"]
    ev.add_intervals(result, ev.bootstrap(scores, None, 50, 1), scores)
    assert result["bootstrap"]["unit"] == "trial" and result["bootstrap"]["n_units"] == {"bonafide": 60, "spoof": 90}


def test_resamples_draw_whole_clusters_within_each_stratum():
    stratum, cluster = np.array([0, 0, 0, 1, 1, 1, 1]), np.array([0, 0, 1, 2, 2, 3, 3])
    for weights in resamples(stratum, cluster, 50, 0):
        assert weights[0] == weights[1] and weights[3] == weights[4] and weights[5] == weights[6]
        assert weights[0] + weights[2] == 2 and weights[3] + weights[5] == 2


def test_paired_test_tells_better_from_equal_systems(tmp_path):
    base = toy(400, 600, 1, shift=1.5)
    rng = np.random.default_rng(5)
    noisy = ev.Scores(base.utt_id, base.score + rng.normal(0, 1.5, 1000), base.is_bonafide, base.attack)
    same = ev.Scores(base.utt_id, base.score + rng.normal(0, 0.01, 1000), base.is_bonafide, base.attack)
    shuffled = same.take(rng.permutation(1000))
    del base.groups["speaker"]
    stranger = same.take(np.arange(1000))
    stranger.utt_id = np.char.add("x", base.utt_id)
    systems = {"base": base, "noisy": noisy, "same": shuffled, "stranger": stranger}
    speakers = {"speaker": np.array([f"S{row % 40}" for row in range(1000)])}
    known = ev.Scores(base.utt_id, base.score, base.is_bonafide, base.attack, speakers)
    for copy in (base.take(rng.permutation(1000)), known, known.take(np.arange(1, 999))):  # order, clusters, trials
        drawn = {name: ev.bootstrap(scores, None, 20, 7) for name, scores in (("base", base), ("copy", copy))}
        paired = ev.compare({"base": base, "copy": copy}, drawn, None, 7)[0]["metrics"]["eer_percent"]
        assert paired["interval"] == [0, 0] and paired["p"] == 1
    drawn = {name: ev.bootstrap(scores, None, 200, 7) for name, scores in systems.items()}
    noisy_test, same_test, stranger_test, *_ = ev.compare(systems, drawn, None, 7)
    assert "cannot be paired" in stranger_test["sentence"]
    assert "base does better than noisy" in noisy_test["sentence"]
    assert noisy_test["sentence"].endswith(f": distinguishable (p = {noisy_test['p_holm']:.2g}, 1,000 trials)")
    assert noisy_test["metrics"]["eer_percent"]["interval"][0] > 0
    assert "not distinguishable" in same_test["sentence"]
    for name, scores in (("a", base), ("b", noisy)):
        ev.write_scores(
            tmp_path / f"{name}.txt",
            scores.utt_id,
            scores.attack,
            np.where(scores.is_bonafide, "bonafide", "spoof"),
            scores.score,
        )
    done = command(tmp_path / "a.txt", tmp_path / "b.txt", "--bootstrap", 100, "--json", tmp_path / "o.json")
    assert "paired tests" in done.stdout and "a does better than b" in done.stdout
    assert json.loads((tmp_path / "o.json").read_text())["comparisons"][0]["n_trials"] == 1000


# -------------------------------------------------------------------------------------------------- files and forms

PROTOCOLS = {
    "asvspoof2019": "{p} {u} - {a} {k}",
    "utt key": "{u} {k}",
    "asvspoof2021 LA": "{p} {u} alaw ita_tx {a} {k} notrim eval",
    "asvspoof2021 DF": "{p} {u} nocodec asvspoof {a} {k} notrim eval vocoder - - - -",
    "asvspoof5": "{p} {u} F - - - AC1 {a} {k} -",
}


@pytest.mark.parametrize("form", PROTOCOLS.values(), ids=PROTOCOLS)
def test_two_columns_join_with_every_protocol(tmp_path, form):
    scores = toy()
    (tmp_path / "scores.txt").write_text(lines_of(scores, "{u} {s!r}"))
    (tmp_path / "protocol.txt").write_text(lines_of(scores, form))
    read = ev.read_scores(tmp_path / "scores.txt", tmp_path / "protocol.txt")
    assert (read.utt_id == scores.utt_id).all() and (read.score == scores.score).all()
    assert (read.is_bonafide == scores.is_bonafide).all() and read.warnings == []
    if "{a}" in form:
        assert (read.attack == scores.attack).all() and (read.groups["speaker"] == scores.groups["speaker"]).all()


LABELLED = ("{u} {a} {k} {s!r}", "{p} {u} - {a} {k} {s!r}", "{u} {k} {s!r}", "{u}\t{a}\t{k}\t{s!r}",
            "{p} {u} alaw ita_tx {a} {k} notrim eval {s!r}")  # fmt: skip


@pytest.mark.parametrize("form", LABELLED)
def test_labelled_score_files(tmp_path, form):
    scores = toy()
    text = lines_of(scores, form)
    variants = (text, text.replace("\n", "\r\n"), "\ufeff" + text, text.rstrip("\n"), text.replace(" - b", " A00 b"))
    for number, variant in enumerate(variants):
        path = tmp_path / f"{number}.txt"
        path.write_bytes(variant.encode())
        read = ev.read_scores(path)
        assert (read.score == scores.score).all() and (read.is_bonafide == scores.is_bonafide).all()
        assert read.utt_id[0] == "U0000" and read.attack[0] == "-"


def test_tables_with_headers(tmp_path):
    scores = toy()
    (tmp_path / "cm.tsv").write_text("filename\tcm-score\n" + lines_of(scores, "{u}\t{s!r}"))
    (tmp_path / "key.tsv").write_text("filename\tcm-label\n" + lines_of(scores, "{u}\t{k}"))
    (tmp_path / "meta.csv").write_text(
        "file,speaker,label\n" + lines_of(scores, "{u}.wav,A Name,{k}").replace("bonafide", "bona-fide")
    )
    for protocol in ("key.tsv", "meta.csv"):
        read = ev.read_scores(tmp_path / "cm.tsv", tmp_path / protocol)
        assert (read.is_bonafide == scores.is_bonafide).all() and (read.score == scores.score).all()
    assert read.groups["speaker"][0] == "A Name"


@needs_shared
def test_label_list_of_asvspoof2021(tmp_path):
    labels = [line.split() for line in (SHARED / "data" / "LA21_mini" / "labels.txt").read_text().splitlines()]
    (tmp_path / "s.txt").write_text("".join(f"{name} {row}\n" for row, (name, _) in enumerate(labels)))
    read = ev.read_scores(tmp_path / "s.txt", SHARED / "data" / "LA21_mini" / "labels.txt")
    assert read.is_bonafide.sum() == 15 and read.is_bonafide[0]


def test_sasv_table(tmp_path):
    rng = np.random.default_rng(0)
    rows = ["spk\tfilename\tcm-score\tasv-score\tsasv-score\tcm-label\tasv-label"]
    for label, cm, asv in (("target", 2, 2), ("nontarget", 2, -2), ("spoof", -2, 1)):
        key = "spoof" if label == "spoof" else "bonafide"
        for row in range(50):
            c, a = rng.normal(cm), rng.normal(asv)
            rows.append(f"S{label}\tE_{row}{key}\t{c!r}\t{a!r}\t{min(c, a)!r}\t{key}\t{label}")
    (tmp_path / "sasv.tsv").write_text("\n".join(rows))
    sasv = ev.evaluate(ev.read_scores(tmp_path / "sasv.tsv"))["sasv"]
    assert 0 < sasv["a_dcf"] < 1 and 0 < sasv["t_eer_percent"] < 25
    assert "a-DCF" in command(tmp_path / "sasv.tsv").stdout


def test_missing_and_extra_trials_are_listed(tmp_path):
    scores = toy()
    (tmp_path / "s.txt").write_text(lines_of(scores.take(np.arange(3, 150)), "{u} {s!r}") + "X9 1.0\n")
    (tmp_path / "p.txt").write_text(lines_of(scores, "{p} {u} - {a} {k}"))
    done = command(tmp_path / "s.txt", "--protocol", tmp_path / "p.txt")
    assert done.returncode == 0
    assert "3 of 150 trials of p.txt have no score: U0000, U0001, U0002" in done.stderr
    assert "1 of 148 scores are of trials not in p.txt, left out: X9" in done.stderr
    assert "57 bona fide and 90 spoof" in done.stdout


def test_groups_where_and_wrong_partition(tmp_path):
    scores = toy()
    scores.groups["codec"] = np.where(np.arange(150) % 3, "alaw", "pstn")
    result = ev.evaluate(scores, group_by="codec")
    part = scores.take(scores.groups["codec"] == "alaw")
    assert result["groups"]["alaw"]["eer_percent"] == ev.evaluate(part)["eer_percent"]
    with pytest.raises(UserError, match=r"no trim .* expected attack or"):
        ev.evaluate(scores, group_by="trim")
    (tmp_path / "s.txt").write_text(lines_of(scores, "{p} {u} - {a} {k} {s!r}"))
    done = command(tmp_path / "s.txt", "--where", "speaker=S1", "--group-by", "speaker")
    assert "S1" in done.stdout and "S2" not in done.stdout
    asv = ev.AsvScores(np.array([1.0, 2, 3]), np.array([-1.0, 0, 1.5]), np.array([0.0, 2, 3]), frozenset({"A07"}))
    assert "another partition" in ev.evaluate(scores, asv)["warnings"][-1]


def test_written_scores_read_back_to_the_last_bit(tmp_path):
    scores = toy()
    keys = np.where(scores.is_bonafide, "bonafide", "spoof")
    ev.write_scores(tmp_path / "s.txt", scores.utt_id, scores.attack, keys, scores.score)
    read = ev.read_scores(tmp_path / "s.txt")
    assert (read.score == scores.score).all() and (read.attack == scores.attack).all()
    with pytest.raises(UserError, match="U0003"):
        broken = np.where(np.arange(150) == 3, np.nan, 0)
        ev.write_scores(tmp_path / "t.txt", scores.utt_id, scores.attack, keys, broken)
    with pytest.raises(UserError, match="without blanks"):
        ev.write_scores(tmp_path / "t.txt", ["a b"], ["-"], ["bonafide"], [1.0])
    assert not (tmp_path / "t.txt").exists()


def test_calibrate_and_fuse_commands(tmp_path):
    rng = np.random.default_rng(2)
    for part, seed in (("dev", 1), ("eval", 2)):
        truth = toy(300, 500, seed)
        truth.utt_id = np.char.add(part, truth.utt_id)
        for system in "ab":
            truth.score = np.where(truth.is_bonafide, 4.0, 2.0) + rng.normal(size=800)
            (tmp_path / f"{system}_{part}.txt").write_text(lines_of(truth))
    a, b = tmp_path / "a_eval.txt", tmp_path / "b_eval.txt"
    dev = [tmp_path / "a_dev.txt", tmp_path / "b_dev.txt"]
    done = command(
        a,
        b,
        "--fuse",
        tmp_path / "f.txt",
        "--dev",
        *dev,
        "--calibrate",
        *dev,
        "--bootstrap",
        0,
        "--json",
        tmp_path / "o.json",
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "o.json").read_text())["systems"]
    single, fused = results["a_eval"], results["fusion f (LLR)"]
    assert fused["eer_percent"] < single["eer_percent"]
    assert single["calibrated"]["cllr"] < 0.7 < single["cllr"] and fused["cllr"] < single["calibrated"]["cllr"]
    assert ev.evaluate(ev.read_scores(tmp_path / "f.txt"))["cllr"] == pytest.approx(fused["cllr"])
    assert "tested on" in command(a, "--calibrate", a).stderr


def test_figures_are_drawn(tmp_path, monkeypatch):
    figures = pytest.importorskip("plots.evaluation")
    systems = {"a": toy(seed=1), "b": toy(seed=2)}
    results = {name: ev.evaluate(scores) for name, scores in systems.items()}
    one = ev.draw({"a": results["a"]}, {"a": systems["a"]}, tmp_path / "one")
    assert len({path.stem for path in one}) == 7 and all(path.stat().st_size > 0 for path in one)
    monkeypatch.setattr(figures, "write_figure", lambda figure, stem: [stem])  # writing them once is enough
    ev.add_intervals(results["b"], ev.bootstrap(systems["b"], None, 20, 0), systems["b"])
    assert len({path.stem for path in ev.draw(results, systems, tmp_path / "two")}) == 3 + 2 * 4


# ------------------------------------------------------------------------------------------------------- bad input

GOOD = "u1 - bonafide 2.0\nu2 A01 spoof -1.0\nu3 - bonafide 1.0\nu4 A02 spoof 0.0\n"
BAD_FILES = {  # name: (content, what the one line must say)
    "empty": (b"", "line 1: empty file"),
    "blank": (b"\n\n", "line 1: empty file"),
    "nan": (GOOD.replace("1.0\nu4", "nan\nu4").encode(), "line 3: bad score"),
    "inf": (GOOD.replace("-1.0", "-inf").encode(), "line 2: bad score"),
    "overflow": (GOOD.replace("2.0", "1e999").encode(), "line 1: bad score"),
    "word": (GOOD.replace("2.0", "high").encode(), "line 1: bad score — expected a finite number, found 'high'"),
    "underscore": (GOOD.replace("2.0", "2_0").encode(), "line 1: bad score"),
    "key": (GOOD.replace("u2 A01 spoof", "u2 A01 forged").encode(), "line 2: unknown key"),
    "duplicate": (GOOD.replace("u3", "u1").encode(), "line 3: duplicate trial — expected each once, found u1 also"),
    "duplicate after blanks": (GOOD.replace("u3", "\n\nu1").encode(), "line 5: duplicate trial"),
    "truncated": (GOOD.encode()[:-5], "line 4: truncated line — expected 4 columns"),
    "ragged": (GOOD.replace("u2 A01", "u2").encode(), "line 2: bad line — expected 4 columns"),
    "five columns": (b"a b c d e f g\n", "line 1: no score line"),
    "one class": (b"u1 - bonafide 1\nu2 - bonafide 2\n", "lines 1–2: one class only"),
    "attack on bona fide": (GOOD.replace("u3 -", "u3 A07").encode(), "line 3: bona fide trial with an attack"),
    "no labels": (b"u1 1.0\nu2 2.0\n", "no labels — expected --protocol"),
    "gzip": (gzip.compress(GOOD.encode()), "gzip data"),
    "binary": (GOOD.encode() + b"\x00\x01\x02\n", "line 5: not text"),
    "utf-16": (GOOD.encode("utf-16"), "line 1: not text"),
    "latin-1": (GOOD.replace("u2", "é").encode("latin-1"), "line 2: not text — expected UTF-8, found byte 0xe9"),
    "header only": (b"filename\tcm-score\n", "line 2: no score lines"),
    "open quote": (b'file,label,score\nu1,bonafide,1\n"u2,spoof,0\nu3,spoof,0\n', "line 3: bad line — expected 3"),
    "header twice": (b"filename\tcm-score\tscore\nu1\t1\t2\n", "line 1: two columns mean the same"),
    "long line": (GOOD.encode() + b"u5 A01 spoof " + b"1" * 20_000, "line 5: line too long"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_score_files_end_in_one_line(tmp_path, name):
    content, message = BAD_FILES[name]
    path = tmp_path / "scores.txt"
    path.write_bytes(content)
    done = command(path, "--json", tmp_path / "out.json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert message in done.stderr and str(path) in done.stderr
    assert not (tmp_path / "out.json").exists()


def test_a_huge_file_without_a_newline_is_not_read_whole(tmp_path):
    path = tmp_path / "huge.txt"
    with path.open("wb") as file:
        file.write(b"x" * 10)
        file.seek(2_000_000_000)
        file.write(b"x")
    path_text = tmp_path / "text.txt"
    path_text.write_bytes(b"7" * 30_000_000)
    for huge in (path, path_text):
        start = time.perf_counter()
        with pytest.raises(UserError, match="line 1"):
            ev.read_scores(huge)
        assert time.perf_counter() - start < 2


BAD_ASV = {
    "cm scores": (GOOD, "line 1: no ASV score line"),
    "unknown label": ("bonafide target 1\nbonafide imposter 2\nA07 spoof 3\n", "line 2: unknown ASV label"),
    "no spoof": ("bonafide target 1\nbonafide nontarget 2\n", "no spoof trials"),
    "bad score": ("bonafide target 1\nbonafide nontarget x\nA07 spoof 3\n", "line 2: bad score"),
    "useless": ("bonafide target 0\nbonafide nontarget 1\nA07 spoof -9\n", "do not define a t-DCF"),
}


@pytest.mark.parametrize("name", BAD_ASV)
def test_bad_asv_scores(tmp_path, name):
    content, message = BAD_ASV[name]
    (tmp_path / "asv.txt").write_text(content)
    (tmp_path / "s.txt").write_text(GOOD)
    with pytest.raises(UserError, match=re.escape(message)):
        ev.evaluate(ev.read_scores(tmp_path / "s.txt"), ev.read_asv_scores(tmp_path / "asv.txt"))


BAD_PROTOCOLS = {
    "contradiction": ("u1 spoof\nu2 spoof\nu3 bonafide\nu4 spoof\n", "line 1: key contradicts the protocol"),
    "other trials": ("x1 bonafide\nx2 spoof\n", "no trial of"),
    "duplicate": ("u1 bonafide\nu1 bonafide\nu2 spoof\n", "line 2: duplicate trial"),
    "bad key": ("u1 bonafide\nu2 0\n", "line 2: unknown key"),
    "no label": ("file,speaker\nu1,a\nu2,b\n", "no label column"),
    "columns": ("u1 bonafide x\n", "line 1: no protocol line"),
}


@pytest.mark.parametrize("name", BAD_PROTOCOLS)
def test_bad_protocols(tmp_path, name):
    content, message = BAD_PROTOCOLS[name]
    (tmp_path / "p.txt").write_text(content)
    (tmp_path / "s.txt").write_text(GOOD)
    with pytest.raises(UserError, match=re.escape(message)):
        ev.read_scores(tmp_path / "s.txt", tmp_path / "p.txt")


BAD_COMMANDS = {
    "": "required: SCORES",
    "missing.txt": "cannot read missing.txt: No such file",
    "{d}": "Is a directory",
    "{s} {s}": "given twice",
    "{s} --threshold nan": "bad --threshold",
    "{s} --target_far 5": "bad --target_far",
    "{s} --bootstrap -1": "bad --bootstrap",
    "{s} --bootstrap many": "invalid int value",
    "{s} --fuse out.txt": "--fuse OUT goes with",
    "{s} --calibrate a b": "one dev file per system",
    "{s} --where codec=alaw": "trials have no codec",
    "{s} --where attack=A09": "keeps no trials",
    "{s} --where attack=A01": "one class only",
    "{s} --group-by codec": "trials have no codec",
    "{s} --asv_scores {s}": "no ASV score line",
    "{s} --unknown": "unrecognized arguments",
}


@pytest.mark.parametrize("line", BAD_COMMANDS)
def test_bad_commands(tmp_path, line, monkeypatch):
    (tmp_path / "s.txt").write_text(GOOD)
    arguments = line.format(s=tmp_path / "s.txt", d=tmp_path).split()
    monkeypatch.setattr(sys, "argv", ["evaluation.py", *arguments])
    with pytest.raises(UserError, match=re.escape(BAD_COMMANDS[line])):
        ev.main()


def test_empty_classes_and_bad_numbers_are_user_errors():
    with pytest.raises(UserError, match="both classes"):
        ev.compute_eer(np.array([1.0]), np.array([]))
    with pytest.raises(UserError, match="finite"):
        ev.compute_eer(np.array([1.0]), np.array([np.nan]))
    with pytest.raises(UserError, match="priors"):
        ev.CostModel(p_spoof=0.5)
