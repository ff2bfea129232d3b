"""audio/speech.py and what follows from it: noise, tones and music are no speech; the band of speech is measured.

`python benchmarks/speech.py` measures the same on everything there is.
"""

import numpy as np
import pytest
import soxr
from spoken import spoken

from audio import SAMPLE_RATE as RATE
from audio.reading import Recording, RecordingFacts
from audio.speech import SpeechDetector
from corpora.asvspoof import ASVspoof2019
from scoring.conditions import NARROW, disqualifying, weakening
from scoring.passages import ChunkScore
from scoring.passages import spoken as with_speech


def heard(samples: np.ndarray, piece: int = 9973) -> SpeechDetector:
    detector = SpeechDetector()
    for first in range(0, len(samples), piece):
        detector.add(samples[first : first + piece].astype(np.float32))
    detector.end()
    return detector


def no_speech() -> dict[str, np.ndarray]:
    """Three seconds each of what is no speech."""
    rng, time = np.random.default_rng(0), np.arange(3 * RATE) / RATE
    noise = rng.standard_normal(len(time))
    pink = np.fft.irfft(np.fft.rfft(noise) / np.sqrt(np.arange(len(time) // 2 + 1) + 1))
    notes = 220 * 2 ** (rng.integers(0, 24, 12) / 12)
    quarter = time[: RATE // 4]
    strings = [sum(np.sin(2 * np.pi * f * h * quarter) / h for h in range(1, 6)) * np.exp(-6 * quarter) for f in notes]
    rates = {f"tone of {f} Hz": 0.3 * np.sin(2 * np.pi * f * time) for f in (50, 220, 440, 1000, 3000, 7000)}
    levels = {f"white noise {level}": level * noise for level in (0.3, 0.03, 0.003)}
    return (
        rates
        | levels
        | {
            "pink noise": 0.2 * pink / np.abs(pink).max(),
            "dither": rng.integers(-1, 2, len(time)) / 32768,
            "silence": np.zeros(len(time)),
            "modulated noise": 0.2 * noise * (1 + np.sin(2 * np.pi * 4 * time)),
            "square": 0.2 * np.sign(np.sin(2 * np.pi * 200 * time)),
            "pulses": 0.5 * (np.arange(len(time)) % 160 == 0),
            "siren": 0.3 * np.sin(2 * np.pi * (800 * time + 60 * np.sin(np.pi * time))),
            "two tones": 0.2 * (np.sin(2 * np.pi * 697 * time) + np.sin(2 * np.pi * 1209 * time)) * (time % 0.5 < 0.3),
            "melody": 0.15 * np.concatenate(strings),
            "clicks": (rng.random(len(time)) < 0.0005).astype(float),
            "hum": sum(0.1 / k * np.sin(2 * np.pi * 50 * k * time) for k in range(1, 12)),
        }
    )


@pytest.mark.parametrize(("name", "samples"), no_speech().items())
def test_what_is_no_speech(name, samples):
    assert heard(samples).spans == []


@pytest.mark.parametrize("gain", [1.0, 0.003])
def test_genuine_and_synthetic_speech_is_speech(shared, gain):
    """Also 50 dB quieter."""
    partition = ASVspoof2019(shared / "data" / "LA_mini", "LA").partition("eval")
    seconds = [
        heard(gain * np.concatenate(list(Recording(partition.path(trial))))).seconds()
        for trial in partition.trials[:12]
    ]
    assert min(seconds) > 0.5


def test_blocks_change_nothing_and_gaps_are_found():
    samples = np.concatenate([np.zeros(RATE), spoken(1.5), 0.001 * np.random.default_rng(0).standard_normal(RATE)])
    whole, pieces = heard(samples, len(samples)), heard(samples, 641)
    assert whole.spans == pieces.spans and whole.high_band() == pieces.high_band()
    ((start, end),) = whole.spans
    assert abs(start - 1) < 0.2 and abs(end - 2.5) < 0.2
    assert whole.seconds(0, 1.75) == pytest.approx(1.75 - start) and whole.seconds(3) == 0
    whole.forget(3.0)
    assert whole.spans == []


@pytest.mark.parametrize(("rate", "narrow"), [(16_000, False), (12_000, False), (8000, True)])
def test_the_band_is_measured(rate, narrow):
    """Whatever the header says: all of these have 16 kHz."""
    samples = soxr.resample(soxr.resample(spoken(2.0), RATE, rate), rate, RATE) if rate < RATE else spoken(2.0)
    high_band = heard(samples).high_band()
    assert (high_band < NARROW) is narrow
    facts = RecordingFacts(rate=RATE, seconds=2.0, speech=((0.0, 2.0),), high_band=high_band)
    assert [condition.name for condition in weakening(facts)] == ["narrowband"] * narrow


def test_chunks_without_speech_have_no_say():
    chunks = [ChunkScore(start, start + 4.0, 1.0) for start in (0.0, 2.0, 4.0, 6.0)]
    assert [c.score for c in with_speech(chunks, ((0.5, 1.5), (9.9, 10.0)))] == [1.0, None, None, None]
    assert [c.score for c in with_speech(chunks, ((5.7, 6.2),))] == [None, 1.0, 1.0, None]
    assert with_speech(chunks, None) == chunks
    assert all(c.score is None for c in with_speech(chunks, ()))


@pytest.mark.parametrize(("speech", "name"), [((), "no_speech"), (((0.0, 0.29),), "too_short"), (None, None)])
def test_without_speech_nothing_can_be_said(speech, name):
    facts = RecordingFacts(rate=RATE, seconds=5.0, speech=speech)
    assert [condition.name for condition in disqualifying(facts, 1.0, 0.0, "")] == ([name] if name else [])
