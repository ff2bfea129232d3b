"""evaluation.py: published numbers, intervals and paired tests, and the command."""

import json
import re
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
from conftest import assert_user_error, run_command
from made_scores import ROOT, SCORES, SHARED, command, lines_of, needs_shared, toy

import evaluation as ev
from common.errors import UserError
from metrics.calibration import fit_calibration

ASV = SHARED / "data" / "LA_mini" / "ASVspoof2019_LA_asv_scores" / "ASVspoof2019.LA.asv.{}.gi.trl.scores.txt"
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


@cache
def evaluated(name: str) -> dict:
    """A published score file with the ASV scores of its partition."""
    return ev.evaluate(ev.read_scores(SCORES / name), ev.read_asv_scores(str(ASV).format(PUBLISHED[name][0])))


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


def test_nothing_is_drawn_without_plots():
    code = "import sys, evaluation; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"plots", "matplotlib", "torch"} & {name.split(".")[0] for name in done.stdout.split()}


def test_figures_are_drawn(tmp_path, monkeypatch):
    style = pytest.importorskip("plots.style")
    systems = {"a": toy(seed=1), "b": toy(seed=2)}
    results = {name: ev.evaluate(scores) for name, scores in systems.items()}
    one = ev.draw({"a": results["a"]}, {"a": systems["a"]}, tmp_path / "one")
    assert len({path.stem for path in one}) == 7 and all(path.stat().st_size > 0 for path in one)
    monkeypatch.setattr(style, "write_figure", lambda figure, stem, _: [stem])  # writing them once is enough
    ev.add_intervals(results["b"], ev.bootstrap(systems["b"], None, 20, 0), systems["b"])
    assert len({path.stem for path in ev.draw(results, systems, tmp_path / "two")}) == 3 + 2 * 4


GOOD = "u1 - bonafide 2.0\nu2 A01 spoof -1.0\nu3 - bonafide 1.0\nu4 A02 spoof 0.0\n"
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


def test_a_row_of_the_table_for_every_condition_whatever_its_name(tmp_path):
    rows = [("a", "pooled"), ("b", "pooled"), ("c", "x"), ("d", "x"), ("e", "-"), ("f", "-")]
    keys = [f"{name} {attack} {'bonafide' if attack == '-' else 'spoof'}" for name, attack in rows]
    (tmp_path / "s.txt").write_text("".join(f"{key} {number}\n" for number, key in enumerate(keys)))
    (tmp_path / "p.csv").write_text("utt_id,attack,key,codec\n" + "".join(f"{k.replace(' ', ',')},x\n" for k in keys))
    scores, protocol, out = (tmp_path / name for name in ("s.txt", "p.csv", "o.csv"))
    done = run_command("evaluation.py", scores, "--protocol", protocol, "--group-by", "codec", "--csv", out)
    assert done.returncode == 0, done.stderr
    table = [line.split(",")[1] for line in (tmp_path / "o.csv").read_text().splitlines()]
    assert table == ["condition", "pooled", "pooled", "x", "x"]


def test_huge_scores_are_calibrated_like_others():
    rng = np.random.default_rng(0)
    label = np.arange(200) % 2 == 0
    score = rng.normal(0, 1, 200) + 2 * label
    plain, huge = fit_calibration(score, label), fit_calibration(np.ldexp(score, 1000), label)
    assert (np.ldexp(huge.a, 1000), huge.b) == plain


def test_outputs_are_never_written_over_inputs(tmp_path):
    text = "a - bonafide 1\nb x spoof 0\n"
    (tmp_path / "s.txt").write_text(text)
    scores, out = tmp_path / "s.txt", tmp_path / "o"
    for options in (("--json", scores), ("--csv", scores), ("--csv", out, "--json", out), ("--plots", scores)):
        assert_user_error(run_command("evaluation.py", scores, *options), options[-2])
    assert scores.read_text() == text and len(list(tmp_path.iterdir())) == 1
