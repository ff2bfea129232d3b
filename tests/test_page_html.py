"""What the page says about results in HTML, and the pages of the report: words, colours and places agree."""

import dataclasses
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from matplotlib.backends.backend_agg import FigureCanvasAgg

from audio.errors import AudioError
from audio.reading import RecordingFacts
from common.errors import UserError
from metrics.calibration import Calibration
from plots.paper import LEFT, PAGE, WIDTH, Paper, wrapped
from plots.style import DARK_FINDING_COLOURS, FINDING_COLOURS
from scoring.findings import FINDING_WORDS
from scoring.model_card import ModelCard
from scoring.passages import ChunkScore
from scoring.verdict import Judge, VerdictSettings
from webpage.cards import error_card, errors_sentence, intro_card
from webpage.chunks_html import chunk_timeline
from webpage.gauge import place, result_place, unclear_zone
from webpage.jobs import CheckedFile
from webpage.report import report_pages, write_report
from webpage.tables_html import agreement_sentence, files_table, finding_counts, model_comparison
from webpage.verdict_html import verdict_card

NASTY = "<img src=x onerror=alert(1)>.wav"
CALIBRATED = Calibration(1.0, 0.4)


def judge(calibration: Calibration | None = CALIBRATED, unclear: float = 0.5, threshold: float | None = 0.0) -> Judge:
    card = ModelCard("m<b>", "ab" * 32, {}, "data", threshold, "made up", calibration)
    return Judge(card, VerdictSettings(threshold, "made up", unclear=unclear), 4.0)


def checked(*scores: float | None, name: str = NASTY, by: Judge | None = None, outcome=None) -> CheckedFile:
    """A result of chunks with these scores, two seconds apart."""
    by = by or judge()
    chunks = [ChunkScore(2.0 * number, 2.0 * number + 4, score) for number, score in enumerate(scores)]
    seconds = 2.0 * len(scores) + 2
    facts = outcome or RecordingFacts(seconds=seconds, rate=16_000, active_seconds=seconds)
    engine = {"name": "torch", "precision": "fp32"}
    return CheckedFile(by(Path(name), facts, chunks), by, engine, "cd" * 32)


SPLICED = [4.0, 4.2, 3.9, 4.1, -6.0, -6.5, -6.1, 4.0, 4.1, 3.9, 4.0, 4.2]


@pytest.mark.parametrize("calibration", [CALIBRATED, Calibration(1.0, -2.0), None])
@pytest.mark.parametrize("unclear", [0.0, 0.5, 3.0])
def test_word_place_colour_and_probability_agree_whatever_the_score(calibration, unclear):
    rules = judge(calibration, unclear)
    low, high = unclear_zone(rules)
    for score in np.linspace(-8, 8, 65):
        result = checked(score, by=rules).result
        card, at = verdict_card(checked(score, by=rules)), result_place(result, rules)
        assert FINDING_WORDS[result.finding].capitalize() in card and f'class="card verdict {result.finding}"' in card
        assert f'<i class="{result.finding}"' in card
        zone = "likely_synthetic" if at < low else "likely_genuine" if at > high else "unclear"
        assert zone == result.finding or (at in (low, high) or not unclear), (score, at, low, high, result.finding)
        assert 0 <= place(rules, score) <= 1


def test_a_mixed_recording_shows_its_passage_everywhere():
    mixed = checked(*SPLICED)
    assert mixed.result.finding == "mixed"
    card, chunks = verdict_card(mixed, "sound.wav"), chunk_timeline(mixed, "sound.wav")
    text = re.search(r"\d:\d\d–\d:\d\d", mixed.result.reason)[0]
    assert card.count(text) >= 2 and '<button class="play" data-start="8.000"' in card
    assert result_place(mixed.result, mixed.judge) < unclear_zone(mixed.judge)[0]
    assert chunks.count("data-show") == 1 and 'data-start="8.000" data-end="12.000" data-show' in chunks
    assert text in files_table([mixed])


def test_where_nothing_can_be_said_no_number_is_shown():
    for nothing in (checked(None, None), checked(3.0, by=judge(threshold=None)),
                    checked(outcome=AudioError("broken", "cannot read audio"))):  # fmt: skip
        assert nothing.result.finding == "cannot_say"
        words = re.sub(r"<[^>]*>", " ", verdict_card(nothing) + model_comparison([("m", nothing)]))
        assert "gauge" not in verdict_card(nothing)
        assert not re.search(r"%|[−-]?\d\.\d\d", words), words


def test_a_long_recording_opens_at_its_worst_passage():
    scores = [4.0] * 900
    scores[700:704] = [-6.0] * 4
    html = chunk_timeline(checked(*scores), "")
    assert html.count('class="chunk ') == 240 and 'data-start="1400.000" data-end="1404.000" data-show' in html
    assert "The whole recording" in html and "30:02" in html


def test_what_people_see_is_escaped():
    bad = checked(-3.0)
    for html in (verdict_card(bad, NASTY), chunk_timeline(bad, NASTY), finding_counts([bad]), files_table([bad]),
                 model_comparison([(NASTY, bad), (NASTY, UserError(NASTY))]), error_card(UserError(NASTY)),
                 intro_card(bad.judge.card, 900)):  # fmt: skip
        assert "<img" not in html and "<b>." not in html and "m<b>" not in html
    forged = checked(-3.0, name="a\n\u202ebad.wav")
    assert r"a\n\u202ebad.wav" in verdict_card(forged) and r"a\n\u202ebad.wav" in files_table([forged])


def test_several_files_are_listed_worst_first():
    names = {"fine": 4.0, "bad": -6.0, "worse": -7.0, "open": 0.1}
    checks = [checked(score, name=name) for name, score in names.items()]
    checks.append(checked(name="broken", outcome=AudioError("broken", "cannot read audio broken")))
    rows = re.findall(r'data-row="(\d)">(\w+)<', files_table(checks))
    assert [name for _, name in rows] == ["worse", "bad", "open", "fine", "broken"]
    assert [number for number, _ in rows] == ["2", "1", "3", "0", "4"]
    assert "<b>2</b>" in finding_counts(checks) and "Unreadable" in finding_counts(checks)


def test_one_sentence_says_whether_the_models_agree():
    synthetic, genuine, broken = checked(-6.0), checked(4.0), UserError("no")
    say = agreement_sentence
    assert say([("a", synthetic), ("b", synthetic)]) == "All 2 models agree: likely synthetic."
    assert say([("a", synthetic), ("b", genuine), ("c", broken)]) == (
        "The models do not agree: likely synthetic (a), likely genuine (b); 1 could not be used."
    )
    assert say([("a", genuine)]) == "a says likely genuine." and say([("a", broken)]) == "No model could be used."


def test_how_often_a_model_errs_is_counted_on_its_dev_scores():
    card = dataclasses.replace(judge().card, dev_scores_of="200 clips")
    assert "not known" in errors_sentence(card) and "not known" in errors_sentence(None)
    scores = {"bonafide": [2.0] * 90 + [-2.0] * 10, "spoof": [-2.0] * 90 + [2.0] * 10}
    sentence = errors_sentence(dataclasses.replace(card, dev_scores=scores))
    assert sentence == "Measured on 200 clips. Of its clear words, 10 in 100 are wrong."


def test_the_page_has_the_colours_of_the_figures():
    css = (ROOT / "webpage" / "page.css").read_text()
    for name in FINDING_COLOURS:
        assert re.findall(rf"--{name}: (#\w+)", css) == [FINDING_COLOURS[name], DARK_FINDING_COLOURS[name]]


# ---------------------------------------------------------------------------------------------------------- the report


def test_the_report_is_a_pdf_for_a4_with_hashes_and_date(tmp_path):
    write_report(checked(*SPLICED), [], tmp_path / "report.pdf", datetime(2026, 5, 12, 9, 30, tzinfo=UTC))
    pdf = (tmp_path / "report.pdf").read_bytes()
    boxes = re.findall(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", pdf)
    assert boxes and all((float(w), float(h)) == pytest.approx((595.4, 841.7), abs=0.5) for w, h in boxes)
    pages = report_pages(checked(*SPLICED), [], "Title", datetime(2026, 5, 12, 9, 30, tzinfo=UTC))
    text = "\n".join(line.get_text() for page in pages for line in page.texts)
    for part in ("Mixed", "12 May 2026, 09:30 UTC", "cd" * 32, "ab" * 32, NASTY, "Caution", "ICASSP", "1 / "):
        assert part in text, part


def test_no_line_of_the_report_leaves_the_page():
    paper = Paper("footer")
    for text in ("W" * 300, "a long line of words " * 40, "$x$ \U0001f600 " + "名" * 90):
        paper.text(text)
        paper.row("label", text)
    for page in paper.pages():
        renderer = FigureCanvasAgg(page).get_renderer()
        for line in page.texts:
            box = line.get_window_extent(renderer)
            right = box.x1 / page.dpi
            assert right <= LEFT + WIDTH + 0.06 and 0 < box.y0 / page.dpi < PAGE[1], line.get_text()
    assert wrapped("", 3, 10) == [""]
