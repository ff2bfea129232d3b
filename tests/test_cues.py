"""Cues of a file, and how far one alone separates the classes."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from audio import SAMPLE_RATE
from corpora.cues import CUES, CueMeter, cue_eer, measure_file
from corpora.packed import FULL_SCALE
from metrics.error_rates import compute_eer, compute_rocch_eer

RATE = SAMPLE_RATE


def noise(seconds: float, seed: int = 0, level: float = 0.1) -> np.ndarray:
    """(n,) 16-bit values as float64."""
    x = level * np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    return np.rint(x.clip(-0.99, 0.99) * FULL_SCALE) / FULL_SCALE


def write(path: Path, x: np.ndarray, rate: int = RATE, subtype: str | None = None) -> Path:
    soundfile.write(path, x, rate, subtype)
    return path


# -------------------------------------------------------------------------------------------------------- a single file


def test_the_digest_is_of_the_samples(tmp_path):
    x = noise(1)
    codings = {"a.flac": None, "b.wav": "PCM_16", "c.wav": "PCM_24", "d.wav": "FLOAT", "e.aiff": "PCM_16"}
    digests = {measure_file(write(tmp_path / name, x, subtype=subtype)).digest for name, subtype in codings.items()}
    digests.add(measure_file(write(tmp_path / "stereo.wav", np.stack([x, x], axis=1))).digest)
    assert len(digests) == 1
    x[5000] += 1 / FULL_SCALE
    assert measure_file(write(tmp_path / "other.flac", x)).digest not in digests


def test_cues_in_closed_form(tmp_path):
    time = np.arange(2 * RATE) / RATE
    sine = 0.5 * np.sin(2 * np.pi * 1000 * time) + 0.25
    x = np.concatenate([np.zeros(RATE // 2), sine, np.zeros(RATE // 4)])
    cues = dict(zip(CUES, measure_file(write(tmp_path / "x.wav", x, subtype="FLOAT")).cues, strict=True))
    sounding = 2 / 2.75
    assert cues["duration"] == 2.75
    assert (cues["leading quiet"], cues["trailing quiet"]) == (0.5, pytest.approx(0.24, abs=0.011))
    assert cues["level"] == pytest.approx(10 * np.log10(sounding * (0.125 + 0.0625)), abs=0.01)
    assert cues["peak"] == pytest.approx(20 * np.log10(0.75), abs=0.01)
    assert cues["noise floor"] == pytest.approx(-100, abs=0.01)
    assert cues["DC offset"] == pytest.approx(FULL_SCALE * 0.25 * sounding, rel=1e-4)
    assert cues["exact zeros"] == pytest.approx(1 - sounding, abs=0.001)
    # The window spreads a line over three bins, 1/2, 1 and 1/2 of its height; of a constant, one lies below 0 Hz.
    constant, line = 0.25**2 * (1 + 1 / 4), (0.5 / 2) ** 2 * (1 + 2 / 4)
    assert cues["energy below 80 Hz"] == pytest.approx(10 * np.log10(constant / (constant + line)), abs=0.1)
    assert cues["energy 4–6 kHz"] < -60


@pytest.mark.parametrize(("hertz", "band"), [(5000, 7), (7200, 8), (7850, 9), (50, 6)])
def test_bands(tmp_path, hertz, band):
    x = 0.3 * np.sin(2 * np.pi * hertz * np.arange(RATE) / RATE)
    bands = measure_file(write(tmp_path / "x.wav", x)).cues[6:10]
    assert bands[band - 6] > -0.1
    assert all(level < -25 for index, level in enumerate(bands, 6) if index != band)


def test_blocks_change_nothing(tmp_path):
    """35 s come in four blocks; in one piece, and in pieces of any length, the numbers are the same."""
    x = noise(35).astype(np.float32)
    sound, meters = measure_file(write(tmp_path / "x.wav", x, subtype="FLOAT")), [CueMeter(), CueMeter()]
    meters[0].add(x)
    for piece in np.split(x, [1, 1000, 1280, 50_001, 400_007]):
        meters[1].add(piece)
    for meter in meters:
        assert meter.digest.digest() == sound.digest
        np.testing.assert_allclose(meter.cues(), sound.cues, rtol=1e-6)  # sums in float32


@pytest.mark.parametrize("count", [1, 7, 319, 320, 321, 1279, 1280])
def test_short_files_have_cues(tmp_path, count):
    sound = measure_file(write(tmp_path / "x.wav", noise(1)[:count]))
    assert sound.cues[0] == count / RATE and np.isfinite(sound.cues).all()
    assert not sound.silent or count == 1


# ------------------------------------------------------------------------------------------------------ EER of a cue


def test_eer_of_a_cue_is_the_official_one_without_ties():
    rng = np.random.default_rng(3)
    for shift in (-1.0, 0.0, 0.7, 3.0):
        bonafide, spoof = rng.normal(shift, 1, 500), rng.normal(0, 1, 500)
        values, label = np.concatenate([bonafide, spoof]), np.arange(1000) < 500
        official = compute_eer(bonafide, spoof).eer
        cue = cue_eer(values, label)
        assert cue.eer == pytest.approx(min(official, 1 - official), abs=1e-3)
        assert cue.eer >= min(compute_rocch_eer(bonafide, spoof), compute_rocch_eer(-bonafide, -spoof)) - 1e-12
        assert cue_eer(-values, label).eer == pytest.approx(cue.eer, abs=1e-12)


def test_ties_do_not_depend_on_order():
    label = np.arange(40) < 20
    assert cue_eer(np.ones(40), label).eer == 0.5
    values = np.where(label, 1.0, 0.0)
    values[[0, 20]] = 1 - values[[0, 20]]
    assert cue_eer(values, label).eer == pytest.approx(0.05)
    order = np.random.default_rng(0).permutation(40)
    assert cue_eer(values[order], label[order]).eer == pytest.approx(0.05)


def test_interval_is_wilsons():
    """Its ends are the rates at which the observed one lies 1.96 of their own standard deviations away."""
    values = np.random.default_rng(1).normal(size=80) + np.repeat([1.5, 0], 40)
    cue = cue_eer(values, np.arange(80) < 40)
    for end in (cue.low, cue.high):
        assert abs(cue.eer - end) == pytest.approx(1.96 * np.sqrt(end * (1 - end) / 80), rel=1e-9)
    few = cue_eer(np.array([3.0, 4, 1, 2]), np.array([True, True, False, False]))
    assert few.eer == 0 and not few.tells


@pytest.mark.parametrize("count", [12, 31, 101])
def test_chance_is_not_taken_for_a_shortcut(count):
    """A dozen cues that tell nothing: at most every twentieth data set has one flagged."""
    rng = np.random.default_rng(0)
    label = np.arange(count) < count // 2
    flagged = [cue_eer(rng.normal(size=count), label).tells for _ in range(3000)]
    assert np.mean(flagged) < 0.05 / len(CUES)
