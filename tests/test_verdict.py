import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from audio.errors import AudioError
from audio.reading import RecordingFacts
from common.errors import UserError
from metrics.calibration import Calibration
from scoring.findings import FINDING_WORDS, USUAL_SPREAD, VERDICTS, unclear_width
from scoring.model_card import ModelCard
from scoring.passages import ChunkScore, SuspiciousRegion, clock, suspicious_regions
from scoring.results import write_csv
from scoring.verdict import FileResult, Judge, VerdictSettings, operating_point
from scoring.words import verdict_line, verdict_report, verdict_rows

DEV = {"bonafide": [1.0, 2.0, 3.0, 4.0], "spoof": [-4.0, -3.0, -2.0, 1.5]}
CARD = ModelCard(
    "tiny", "0" * 64, {}, "corpus (track LA)", 0.5, "EER point on the dev set", Calibration(2.0, -1.0), DEV
)
BARE = ModelCard("bare", "1" * 64, {})


def facts(**changes) -> RecordingFacts:
    usual = {"decoder": "soundfile", "rate": 16_000, "channels": 1, "seconds": 8.0, "speech": ((0.0, 1000.0),)}
    return RecordingFacts(**usual | changes)


def chunks(*scores: float | None) -> list[ChunkScore]:
    """Chunks of 4 s, each overlapping the next by half."""
    return [ChunkScore(2.0 * i, 2.0 * i + 4, score) for i, score in enumerate(scores)]


def judge(card: ModelCard = CARD, threshold: float | None = None, **settings) -> Judge:
    return Judge(card, VerdictSettings(*operating_point(card, threshold, None), **settings), 4.0)


def test_polarity_everywhere():
    """Fails if bona fide and spoof were swapped in a verdict, a text, a region, a probability or the JSON."""
    high, low = (judge()(Path("a.wav"), facts(), chunks(score)) for score in (3.0, -3.0))
    assert (high.verdict, low.verdict) == ("bonafide", "spoof")
    assert (high.finding, low.finding) == ("likely_genuine", "likely_synthetic")
    for result, right, wrong in ((high, "genuine", "synthetic"), (low, "synthetic", "genuine")):
        assert f"likely {right}" in verdict_line(result) and wrong not in verdict_line(result)
        assert f"verdict      likely {right}" in verdict_report(result, judge())
    assert high.regions == () and low.regions == (SuspiciousRegion(0.0, 4.0, -3.0),)
    assert high.probability_spoof < 0.01 < 0.99 < low.probability_spoof
    assert high.llr > 0 > low.llr
    assert (high.to_dict()["verdict"], low.to_dict()["verdict"]) == ("bonafide", "spoof")
    assert judge()(Path("a.wav"), facts(), chunks(0.5)).verdict == "spoof"  # a score at the threshold is not above it


@pytest.mark.parametrize(
    ("how", "expected"), [("mean", 1.0), ("median", 1.5), ("min", -4.0), ("topk", -1.0), ("first", 1.0)]
)
def test_aggregates(how, expected):
    result = judge(aggregate=how)(Path("a"), facts(), chunks(1.0, None, 2.0, -4.0, 5.0, 2.0, 0.0))
    assert result.score == pytest.approx(expected)


def test_regions_merge_neighbours_only():
    timeline = chunks(1.0, -1.0, -3.0, 2.0, 0.5, None, -2.0)
    assert suspicious_regions(timeline, 0.5) == [
        SuspiciousRegion(2.0, 8.0, -3.0),
        SuspiciousRegion(8.0, 12.0, 0.5),
        SuspiciousRegion(12.0, 16.0, -2.0),
    ]
    assert suspicious_regions(timeline, None) == suspicious_regions([], 0.5) == []


@pytest.mark.parametrize(
    ("score", "words"), [(-9.0, "above 99 % spoof"), (9.0, "below 1 % spoof"), (0.4, "55.0 % spoof")]
)
def test_printed_probabilities_stop_at_1_and_99_percent(score, words):
    one = judge()  # LLR 2 · score − 1
    assert dict(verdict_rows(one(Path("a"), facts(), chunks(score)), one))["probability"].startswith(words)


def test_probability_follows_bayes():
    result = judge(prior_spoof=0.2)(Path("a"), facts(), chunks(1.0))
    assert result.llr == pytest.approx(1.0)
    assert result.probability_spoof == pytest.approx(0.2 / (0.2 + 0.8 * math.e))
    assert "20 % spoofs" in result.probability_note
    extreme = judge()(Path("a"), facts(), chunks(-1e6))
    assert extreme.probability_spoof == 1.0


@pytest.mark.parametrize(
    ("card", "how", "scores", "why"),
    [(BARE, "mean", (1.0,), "no calibration"), (CARD, "min", (1.0, 2.0), "selection"), (CARD, "mean", (None,), "no")],
)
def test_no_probability_without_calibration(card, how, scores, why):
    result = judge(card, 0.0, aggregate=how)(Path("a"), facts(), chunks(*scores))
    assert result.llr is None and result.probability_spoof is None and why in result.probability_note
    assert judge(CARD, aggregate="min")(Path("a"), facts(), chunks(1.0)).llr is not None


@pytest.mark.parametrize(
    ("changes", "scores", "condition", "verdict"),
    [
        ({}, (None, None), "silent", "abstain"),
        ({"speech": ()}, (1.0,), "no_speech: no speech found", "abstain"),
        ({"speech": ((0.0, 0.25),)}, (1.0,), "too_short: 0.25 s", "abstain"),
        ({"lost_seconds": 2.0}, (1.0,), "truncated: 2.00 of 10.00 s", "bonafide"),
        ({"damaged_packets": 3, "gap_seconds": 0.2}, (1.0,), "damaged: 3 packets", "bonafide"),
        ({"unheard_bytes": 4000}, (1.0,), "unheard: 4,000 bytes", "bonafide"),
        ({"joined_at": (5.0, 9.5)}, (1.0,), "joined: more sound", "bonafide"),
        ({"tracks": 2}, (1.0,), "tracks: 2 audio tracks", "bonafide"),
        ({"cancelled_seconds": 1.5}, (1.0,), "cancelling: the channels", "bonafide"),
        ({"clipped": 0.031}, (1.0,), "clipped: 3.1 %", "bonafide"),
        ({"speech": ((0.5, 1.3), (2.0, 2.5))}, (1.0,), "short: only 1.30 s", "bonafide"),
        ({"high_band": -60.0}, (1.0,), "narrowband: nothing above 4 kHz", "bonafide"),
    ],
)
def test_conditions(changes, scores, condition, verdict):
    result = judge()(Path("a.wav"), facts(**changes), chunks(*scores))
    assert result.verdict == verdict
    assert len(result.conditions) == 1
    assert ": ".join(result.conditions[0]).startswith(condition)
    report = verdict_report(result, judge())
    assert report.count(result.conditions[0].detail) == 1  # where it is the reason, it is not said again
    assert verdict == "abstain" or condition in report
    assert condition.split(":")[0].replace("_", " ") in verdict_line(result)
    assert judge()(Path("a.wav"), facts(), chunks(1.0)).conditions == ()


def test_unreadable_file_is_a_result():
    error = AudioError("no_audio_stream", "cannot read audio a.mp4", "an audio stream", "none")
    result = judge()(Path("a.mp4"), error, [])
    assert (result.verdict, result.score, result.error) == ("abstain", None, str(error))
    assert result.conditions[0].name == "no_audio_stream"


def test_without_threshold_there_is_a_score_and_no_verdict():
    result = judge(BARE)(Path("a"), facts(), chunks(3.0))
    assert (result.verdict, result.score, result.regions) == ("abstain", 3.0, ())
    assert result.conditions[0].name == "no_threshold" and "--threshold" in result.conditions[0].detail


def test_operating_points():
    assert operating_point(CARD, None, None) == (0.5, "EER point on the dev set")
    assert operating_point(CARD, 2.0, None) == (2.0, "given by --threshold")
    threshold, source = operating_point(CARD, None, 0.25)
    spoof = np.array(DEV["spoof"])
    assert np.mean(spoof > threshold) <= 0.25 and "25 % of 4 dev spoofs" in source
    assert np.mean(spoof > operating_point(CARD, None, 0.01)[0]) == 0
    with pytest.raises(UserError, match="--target_far needs the dev scores"):
        operating_point(BARE, None, 0.01)


def test_schema_is_documented_and_plain():
    """docs/inference.md names every key of the document."""
    text = (Path(__file__).parents[1] / "docs" / "inference.md").read_text()
    result = judge()(Path("x/a.wav"), facts(clipped=0.5), chunks(1.0, -1.0))
    header, values = judge().header(), json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert header["schema"] in text
    nested = [header["model"], header["settings"], *values["conditions"], *values["regions"], *values["chunks"]]
    for keys in (header, values, *nested):
        assert all(f"`{key}`" in text for key in keys), keys
    assert values["file"] == "x/a.wav" and values["utt_id"] == "a"


# ------------------------------------------------------------------------------------------------ word and probability


def band(width: float | None = None, **changes) -> ModelCard:
    """A card whose band is so wide, and whose probability is 50 % at the threshold."""
    return replace(CARD, calibration=Calibration(2.0, -1.0), unclear_width=width, recoding_spread=0.0, **changes)


def outputs(result: FileResult, one: Judge, folder: Path) -> dict[str, str]:
    """The result in every text and file."""
    write_csv(folder / "r.csv", [result.to_dict()])
    (row,) = csv.DictReader((folder / "r.csv").open(newline=""))
    return {
        "report": verdict_report(result, one, explain=True),
        "line": verdict_line(result),
        "json": json.dumps(result.to_dict()),
    } | {f"csv {key}": value for key, value in row.items()}


@pytest.mark.parametrize(
    ("card", "settings"),
    [
        (band(1.0), {}),
        (band(1.0), {"unclear": 0.0}),
        (band(1.0), {"threshold": 3.0}),  # the calibration says 50 % elsewhere
        (band(1.0), {"threshold": 3.0, "unclear": 0.0}),
        (band(1.0), {"prior_spoof": 0.01}),
        (band(1.0), {"prior_spoof": 0.99, "unclear": 0.0}),
        (band(4.0), {}),  # wider than the calibration is unsure
        (replace(band(1.0), calibration=Calibration(-2.0, 1.0)), {}),  # upside down
        (replace(band(1.0), calibration=None), {}),
    ],
)
def test_no_output_contradicts_another(card, settings, tmp_path):
    """Scores from far below to far above the threshold, in one chunk and in several."""
    settings = dict(settings)
    threshold, width = settings.pop("threshold", None), settings.pop("unclear", unclear_width(card))
    one = judge(card, threshold, unclear=width, **settings)
    order = ("likely_synthetic", "unclear", "likely_genuine")
    before = 0
    for score in np.linspace(-12, 12, 49):
        for number in (1, 4):
            result = one(Path("a.wav"), facts(), chunks(*[score] * number))
            shown, probability = outputs(result, one, tmp_path), result.probability_spoof
            assert result.finding == one.finding_of(score) and order.index(result.finding) >= before
            words = FINDING_WORDS[result.finding]
            assert f"verdict      {words}\n" in shown["report"] and shown["line"].startswith(words)
            assert shown["csv finding"] == result.finding and f'"finding": "{result.finding}"' in shown["json"]
            assert shown["csv verdict"] == VERDICTS[result.finding]
            others = {"likely genuine", "likely synthetic", "unclear"} - {words}
            assert not any(f"verdict      {word}" in shown["report"] or word in shown["line"] for word in others)
            if result.finding == "likely_genuine":
                assert probability is None or probability < 0.5
                assert result.regions == () and score > one.settings.threshold
            if result.finding == "likely_synthetic":
                assert probability is None or probability > 0.5
                assert result.regions and score <= one.settings.threshold
            if result.finding == "unclear":
                assert width > 0 and (probability is None or 0.1 <= probability <= 0.9)
            assert shown["csv probability_spoof"] == ("" if probability is None else str(probability))
        before = order.index(result.finding)
    assert before == 2 or (card.calibration and card.calibration.a < 0)
    assert width or "unclear" not in {one.finding_of(score) for score in np.linspace(-12, 12, 49)}


@pytest.mark.parametrize(
    ("card", "changes", "scores"),
    [(CARD, {"speech": ()}, (-3.25, 3.25)), (CARD, {"speech": ((0.0, 0.26),)}, (-3.25,)), (BARE, {}, (-3.25, -3.25))],
)
def test_where_nothing_can_be_said_there_is_no_number(card, changes, scores, tmp_path):
    """The JSON keeps the score, of which score files are made."""
    one = judge(card)
    result = one(Path("a.wav"), facts(**changes), chunks(*scores))
    shown = outputs(result, one, tmp_path)
    assert (result.finding, result.verdict, result.regions, result.decisive) == ("cannot_say", "abstain", (), None)
    assert result.llr is result.probability_spoof is None and result.score is not None
    for text in (shown["report"], shown["line"]):
        assert "cannot say" in text and "3.25" not in text and "spoof" not in text and "%" not in text
    assert result.reason and result.reason in shown["report"] and result.next_steps[0] in shown["report"]


def test_width_of_unclear():
    """The narrowest band outside which at most a tenth of the decisions is wrong; 60 % of them stay decided."""
    rng = np.random.default_rng(0)
    dev = {"bonafide": rng.normal(1, 1, 4000).tolist(), "spoof": rng.normal(-1, 1, 400).tolist()}
    card = replace(BARE, threshold=0.0, dev_scores=dev, recoding_spread=0.0)
    width = unclear_width(card)
    for inside, wrong in ((width, True), (0.8 * width, False)):
        decided = [(np.array(scores), sign) for scores, sign in zip(dev.values(), (1, -1), strict=True)]
        errors = sum(np.mean((np.abs(s) > inside) & (s * sign <= 0)) for s, sign in decided)
        assert bool(errors <= 0.1 * sum(np.mean(np.abs(s) > inside) for s, _ in decided)) is wrong
    mixed_up = replace(card, dev_scores=dict.fromkeys(dev, dev["bonafide"][:400] + dev["spoof"]))
    outside = np.mean(np.abs(mixed_up.dev_scores["spoof"]) > unclear_width(mixed_up))
    assert 0.55 < outside < 0.65
    apart = replace(card, dev_scores={"bonafide": [5.0, 6.0], "spoof": [-5.0, -4.0]})
    assert unclear_width(apart) == 0 and unclear_width(replace(apart, recoding_spread=0.7)) == 0.7
    assert unclear_width(replace(apart, recoding_spread=None)) == pytest.approx(1.0)  # a tenth of what is between
    assert unclear_width(replace(apart, unclear_width=2.5)) == 2.5
    widest = unclear_width(replace(card, recoding_spread=99.0))  # a detector that is always unclear helps nobody
    assert width < widest and 0.55 < np.mean([np.mean(np.abs(scores) > widest) for scores in dev.values()]) < 0.65
    assert unclear_width(BARE) == USUAL_SPREAD and unclear_width(replace(BARE, recoding_spread=0.2)) == 0.2


# ------------------------------------------------------------------------------------------------ passages and reasons


def test_a_passage_far_below_the_rest_makes_it_mixed():
    one = judge(band(1.0))
    genuine = [3.0, 2.5, 3.5, 4.0, 3.2, 2.8, 3.1, 3.6]
    result = one(Path("a.wav"), facts(), chunks(*genuine, -3.0, -4.0, *genuine))
    assert (result.finding, result.verdict) == ("mixed", "spoof") and result.score > 0.5
    assert result.decisive == result.worst == SuspiciousRegion(16.0, 22.0, -4.0)
    assert result.llr == pytest.approx(-8) and result.probability_spoof > 0.99  # of the passage
    line, report = verdict_line(result), verdict_report(result, one, explain=True)
    assert line.startswith("mixed ") and "1 passage, worst 0:16–0:22" in line
    assert "of 0:16–0:22; calibrated on" in report and "Listen to 0:16–0:22." in report
    assert "0:16–0:22 sounds synthetic, the rest does not" in report
    assert result.to_dict()["decisive"] == {"start": 16.0, "end": 22.0, "score": -4.0}
    alone = judge(band(1.0), aggregate="first")(Path("a.wav"), facts(), result.chunks)
    assert alone.finding == "likely_genuine"  # the first chunk, and no other, is judged


@pytest.mark.parametrize(
    ("scores", "finding", "reason"),
    [
        ([3.0] * 6, "likely_genuine", "steady throughout: every passage sounds genuine"),
        ([-3.0] * 6, "likely_synthetic", "steady throughout: every passage sounds synthetic"),
        ([3.0] * 6 + [0.4], "likely_genuine", "nearly all of it sounds genuine; 0:12–0:16 is below"),
        ([3.0, 2.9, 3.1, 3.0, -3.0, 2.9], "likely_genuine", "nearly all"),  # a single chunk may be low by chance
        ([9.0, -8.0, 9.0, -8.0, 9.0, -8.0, 9.0, -7.0, -7.0], "unclear", "the score is too close"),  # no steady rest
        (
            [0.6, 0.3, 0.9],
            "unclear",
            "the score is too close to the threshold to call; the lowest",
        ),
        ([-3.0, 4.0, -3.0, -5.0], "likely_synthetic", "0:04–0:10 sounds most synthetic"),
        ([0.6], "unclear", "too close to the threshold to call"),
        ([5.0], "likely_genuine", "the score is clearly above"),
    ],
)
def test_each_finding_has_its_reason(scores, finding, reason):
    result = judge(band(1.0), unclear=1.0)(Path("a.wav"), facts(), chunks(*scores))
    assert result.finding == finding and result.reason.startswith(reason)
    assert result.next_steps


def test_music_makes_nothing_mixed():
    """The same chunks, but nobody speaks in the low ones."""
    scores = [*[3.0, 3.2, 2.8, 3.1, 2.9] * 2, -3.0, -4.0, -3.5]
    one = judge(band(1.0), unclear=1.0)
    assert one(Path("a"), facts(), chunks(*scores)).finding == "mixed"
    result = one(Path("a"), facts(speech=((0.0, 20.1),)), chunks(*scores))
    assert (result.finding, result.regions) == ("likely_genuine", ())


def test_a_day_is_judged_quickly():
    rng = np.random.default_rng(0)
    day = chunks(*rng.normal(1.0, 1.0, 43_000).tolist())
    result = judge(band(0.2), unclear=0.2)(Path("a"), facts(), day)
    assert result.finding == "likely_genuine" and len(result.regions) > 100


def test_times_are_written_in_one_way():
    assert [clock(seconds) for seconds in (0, 9.9, 61, 3725)] == ["0:00", "0:09", "1:01", "1:02:05"]


def test_the_caution_names_the_error_rate_of_such_audio():
    card = replace(CARD, error_rates={"all": 0.245, "narrowband": 0.305, "short": 0.29})

    def said(one: Judge, **changes) -> str:
        return dict(verdict_rows(one(Path("a"), facts(**changes), chunks(3.0)), one))["caution"]

    assert "about 1 in 4 recordings from sources and generators it never met" in said(judge(card))
    assert "about 1 in 3 telephone-like recordings is judged wrongly" in said(judge(card), high_band=-60.0)
    assert "less than 2 s of speech" in said(judge(card), speech=((0.0, 1.0),))
    assert "telephone-like recordings is not known" in said(judge(), high_band=-60.0)
    assert "errs far more often on other speech" in said(judge())


@pytest.mark.parametrize(
    "values",
    [{"error_rates": {"all": 2}}, {"error_rates": [0.1]}, {"recoding_spread": -1.0}, {"unclear_width": "wide"}],
)
def test_a_card_that_makes_no_sense_is_refused(values):
    with pytest.raises(UserError):
        ModelCard.of_values({"name": "a", "sha256": "", "model_config": {}} | values)
    sound = ModelCard.from_json(replace(CARD, error_rates={"all": 0.2}, unclear_width=1.0).to_json())
    assert sound.error_rates == {"all": 0.2} and sound.unclear_width == 1.0


def test_caution_names_the_training_data():
    assert "corpus (track LA)" in judge().caution() and "corpus (track LA)" in verdict_report(
        judge()(Path("a"), facts(), chunks(1.0)), judge()
    )
    assert "not known" in judge(BARE).caution()
