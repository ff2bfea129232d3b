"""What the figures of a scored recording show: the axis of scores, the part of a long one, and both classes."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from metrics.calibration import Calibration
from plots.signal import Excerpt
from scoring import batch
from scoring.detector import ScoredRecording
from scoring.explain import Saliency
from scoring.figure import draw_result, excerpt_of, explanation_of, picture_of, prediction_of, score_scale
from scoring.model_card import ModelCard
from scoring.passages import ChunkScore, SuspiciousRegion
from scoring.verdict import FileResult, Judge, VerdictSettings
from scoring.words import verdict_rows

RATE = 16_000
DEV = {"bonafide": [1.0, 2.0, 9.0], "spoof": [-11.0, -3.0, 1.5]}
CARD = ModelCard("ours", "0" * 64, {}, "corpus", 0.5, "EER point", Calibration(2.0, -1.0), DEV)
BARE = ModelCard("bare", "1" * 64, {})
PASSAGE = SuspiciousRegion(4.0, 8.0, -6.0)


def judge(card=CARD, threshold=0.5, **settings):
    return Judge(card, VerdictSettings(threshold, "given", **settings), 4.0)


def result(finding="likely_genuine", score=3.0, scores=(3.0,), seconds=None, **others):
    """A result of chunks side by side."""
    chunks = tuple(ChunkScore(4.0 * i, 4.0 * i + 4, value) for i, value in enumerate(scores))
    return FileResult(Path("a.wav"), finding, score=score, seconds=seconds or chunks[-1].end, chunks=chunks, **others)


def test_the_score_axis_is_the_same_for_every_recording():
    scales = {score_scale(judge(unclear=0.3), np.array(scores)) for scores in ([3.0], [-40.0, 50.0], [np.nan])}
    assert scales == {(-12.0, 10.0, 0.5, 0.3)}  # the dev scores and a margin
    scales = {score_scale(judge(BARE), np.array(scores)) for scores in ([3.0], [-40.0, 5.0, 6.0], [np.nan])}
    assert scales == {(-14.5, 15.5, 0.5, 0.0)}
    assert score_scale(judge(BARE, None), np.array([100.0, 101, 20]))[:3] == (-120, 120, None)  # of another scale


@pytest.mark.parametrize("card", [CARD, BARE])
def test_nothing_is_shown_where_nothing_can_be_said(card):
    found = result("cannot_say", reason="no chunk is loud", scores=(3.0, None))
    assert prediction_of(found, judge(card)) is None
    assert not np.isfinite(picture_of(found, judge(card), None).timeline.scores).any()
    figure = draw_result(found, judge(card), None, verdict_rows(found, judge(card)))
    assert figure.axes[0].get_legend().get_texts()[0].get_text() == "no score"


def test_bars_are_probabilities_or_distances_of_what_the_finding_is_about():
    probable = prediction_of(result(probability_spoof=0.002), judge())
    assert (probable.bonafide, probable.spoof, probable.undecided) == pytest.approx((99.8, 0.2, 50))
    assert probable.texts == ("above 99 %", "below 1 %")
    mixed = {"finding": "mixed", "decisive": PASSAGE}
    assert prediction_of(result(probability_spoof=0.9, **mixed), judge()).label == "Probability of 0:04–0:08 (%)"
    distance = prediction_of(result(), judge(BARE))
    assert (distance.bonafide, distance.spoof, distance.texts) == (2.5, -2.5, ("+2.50", "−2.50"))
    assert distance.limits == (-15, 15) and distance.undecided == 0
    assert prediction_of(result(**mixed), judge(BARE)).texts == ("−6.50", "+6.50")  # although the mean is above


def test_the_lowest_chunk_is_explained_from_its_own_sound(monkeypatch):
    given = []

    def saliency(model, chunk, start):
        given.append((model, chunk, start))
        return Saliency(start, 4.0, np.linspace(50, 7950, 5), np.ones((5, 400), np.float32))

    monkeypatch.setattr("scoring.explain.saliency", saliency)
    detector = SimpleNamespace(engine=SimpleNamespace(model="model", nb_samp=4 * RATE))
    samples = np.arange(7 * RATE, dtype=np.float32)
    excerpt = Excerpt(samples, RATE, 100.0)
    chunks = (ChunkScore(100.0, 104.0, 3.0), ChunkScore(104.0, 107.0, -2.0), ChunkScore(107.0, 108.0, None))
    found = replace(result(), chunks=chunks)
    explained = explanation_of(found, excerpt, detector)
    ((model, chunk, start),) = given
    assert (model, start, len(chunk)) == ("model", 104.0, 4 * RATE)
    np.testing.assert_array_equal(explained.excerpt.samples, samples[4 * RATE :])
    assert explained.excerpt.end == 107 and "(1:44.0–1:47.0)" in explained.sentence
    assert explanation_of(replace(found, finding="cannot_say"), excerpt, detector) is None


def test_the_terminal_says_the_sentence(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(batch, "save_figure", lambda *_: "Half of it lies at 0:01.0–0:02.0.")
    outputs = batch.BatchOutputs(figures=tmp_path, explain=True)
    assert batch._draw(ScoredRecording(result(), None), judge(), None, outputs, "a")
    assert capsys.readouterr().out == "  explained    Half of it lies at 0:01.0–0:02.0.\n"


def test_many_passages_are_counted_in_words():
    regions = tuple(SuspiciousRegion(60.0 * i, 60.0 * i + 4, -1.0 - i) for i in range(300))
    found = result(scores=(3.0,) * 4500, regions=regions)
    figure = draw_result(found, judge(), None, verdict_rows(found, judge()))
    rows = [text.get_text() for text in figure.texts]
    assert rows.count("suspicious") == 1 and "300 passages, worst 4:59:00–4:59:04" in rows
    assert figure.get_figheight() < 8


def test_of_a_long_recording_the_part_around_its_lowest_chunk_is_shown(tmp_path, monkeypatch):
    monkeypatch.setattr("scoring.figure.PICTURED_SECONDS", 100)
    samples = np.linspace(0, 0.5, 130 * RATE, dtype=np.float32)
    soundfile.write(tmp_path / "a.wav", samples, RATE, "FLOAT")
    for number, start in ((0, 0.0), (16, 36.0), (31, 70.0)):
        scores = [3.0] * 32
        scores[number] = -3.0
        excerpt = excerpt_of(result(scores=scores, seconds=130.0), tmp_path / "a.wav")
        assert (excerpt.start, excerpt.end) == (start, start + 60)
        np.testing.assert_array_equal(excerpt.samples, samples[round(start * RATE) :][: 60 * RATE])
    whole = excerpt_of(result(seconds=99.0), tmp_path / "a.wav")
    assert whole.start == 0 and len(whole.samples) >= 99 * RATE
    assert excerpt_of(result(), samples).samples is samples
