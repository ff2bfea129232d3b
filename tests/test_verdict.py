import json
import math
from pathlib import Path

import numpy as np
import pytest

from audio.errors import AudioError
from audio.reading import RecordingFacts
from common.errors import UserError
from metrics.calibration import Calibration
from scoring.model_card import ModelCard
from scoring.passages import ChunkScore, SuspiciousRegion, suspicious_regions
from scoring.verdict import Judge, VerdictSettings, operating_point
from scoring.words import verdict_line, verdict_report, verdict_rows

DEV = {"bonafide": [1.0, 2.0, 3.0, 4.0], "spoof": [-4.0, -3.0, -2.0, 1.5]}
CARD = ModelCard(
    "tiny", "0" * 64, {}, "corpus (track LA)", 0.5, "EER point on the dev set", Calibration(2.0, -1.0), DEV
)
BARE = ModelCard("bare", "1" * 64, {})


def facts(**changes) -> RecordingFacts:
    usual = {"decoder": "soundfile", "rate": 16_000, "channels": 1, "seconds": 8.0, "lost_seconds": 0.0}
    return RecordingFacts(**usual | {"damaged_packets": 0, "clipped": 0.0, "active_seconds": 5.0} | changes)


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
        ({"active_seconds": 0.3}, (1.0,), "too_short: 0.30 s", "abstain"),
        ({"lost_seconds": 2.0}, (1.0,), "truncated: 2.00 of 10.00 s", "bonafide"),
        ({"damaged_packets": 3, "gap_seconds": 0.2}, (1.0,), "damaged: 3 packets", "bonafide"),
        ({"unheard_bytes": 4000}, (1.0,), "unheard: 4,000 bytes", "bonafide"),
        ({"joined_at": (5.0, 9.5)}, (1.0,), "joined: more sound", "bonafide"),
        ({"tracks": 2}, (1.0,), "tracks: 2 audio tracks", "bonafide"),
        ({"cancelled_seconds": 1.5}, (1.0,), "cancelling: the channels", "bonafide"),
        ({"clipped": 0.031}, (1.0,), "clipped: 3.1 %", "bonafide"),
        ({"active_seconds": 1.3}, (1.0,), "short: only 1.30 s", "bonafide"),
        ({"rate": 8000}, (1.0,), "narrowband: sampled at 8000 Hz", "bonafide"),
    ],
)
def test_conditions(changes, scores, condition, verdict):
    result = judge()(Path("a.wav"), facts(**changes), chunks(*scores))
    assert result.verdict == verdict
    assert len(result.conditions) == 1
    assert ": ".join(result.conditions[0]).startswith(condition)
    assert condition.replace("_", " ") in verdict_report(result, judge())
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


def test_caution_names_the_training_data():
    assert "corpus (track LA)" in judge().caution() and "corpus (track LA)" in verdict_report(
        judge()(Path("a"), facts(), chunks(1.0)), judge()
    )
    assert "not known" in judge(BARE).caution()
