"""vocoders.py: copy-synthesis keeps envelope, melody and timing of real speech; other inputs stay finite."""

import numpy as np
import pytest

from audio import SAMPLE_RATE, reading
from audio.vocoders import VOCODERS, griffin_lim, lpc_envelope, mel_energies, pitch, spectra, vocode, waveform
from common.errors import UserError

UTTERANCES = ("LA_T_1272637", "LA_T_1276960", "LA_T_1699801")  # bona fide


def vocoders() -> list:
    """The vocoders' names; "world" is skipped if pyworld is not installed."""
    try:
        import pyworld  # noqa: F401
    except ImportError as error:
        return [pytest.param(name, marks=pytest.mark.skipif(name == "world", reason=str(error))) for name in VOCODERS]
    return list(VOCODERS)


every_vocoder = pytest.mark.parametrize("name", vocoders())


@pytest.fixture(scope="module")
def speech(shared) -> list[np.ndarray]:
    """Real bona fide utterances, each (n,) float32."""
    folder = shared / "data" / "LA_mini" / "ASVspoof2019_LA_train" / "flac"
    return [reading.read(folder / f"{utt_id}.flac") for utt_id in UTTERANCES]


def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def log_mel(x: np.ndarray) -> np.ndarray:
    return np.log(mel_energies(x.astype(float), 40) + 1e-7).ravel()


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=float))))


# ---- real speech --------------------------------------------------------------------------------------------------


@every_vocoder
def test_the_envelope_stays_and_the_waveform_does_not(speech: list[np.ndarray], name: str):
    for x in speech:
        y = vocode(name, x, rng())
        assert y.shape == x.shape and y.dtype == np.float32
        assert rms(y) == pytest.approx(rms(x - x.mean()), rel=1e-4)
        assert np.corrcoef(log_mel(x), log_mel(y))[0, 1] > 0.93
        assert abs(np.corrcoef(x, y)[0, 1]) < 0.7


@every_vocoder
def test_the_melody_stays(speech: list[np.ndarray], name: str):
    for x in speech:
        (before, voiced), (after, still) = (pitch(wave / rms(wave)) for wave in (x, vocode(name, x, rng())))
        both = (voiced > 0.9) & (still > 0.9)
        assert both.sum() > 0.7 * (voiced > 0.9).sum()
        assert np.median(np.abs(after[both] / before[both] - 1)) < 0.03


@every_vocoder
def test_words_stay_where_they_are(speech: list[np.ndarray], name: str):
    for x in speech:
        before, after = (np.convolve(np.abs(wave), np.hanning(400), "same") for wave in (x, vocode(name, x, rng())))
        shifts = np.arange(-1600, 1601, 40)
        shift = shifts[np.argmax([np.corrcoef(before, np.roll(after, -shift))[0, 1] for shift in shifts])]
        assert abs(shift) <= 0.01 * SAMPLE_RATE


@every_vocoder
def test_the_generator_decides_and_the_input_is_left_alone(speech: list[np.ndarray], name: str):
    x = speech[0][:20000]
    copy, state = x.copy(), rng()
    first = vocode(name, x, state)
    assert np.array_equal(first, vocode(name, x, rng())) and np.array_equal(x, copy)
    if name != "world":  # whose noise has a seed of its own
        assert not np.array_equal(first, vocode(name, x, state))


@every_vocoder
def test_level_is_the_only_thing_that_level_changes(speech: list[np.ndarray], name: str):
    x = speech[0][:20000]
    loud, faint = vocode(name, x, rng()), vocode(name, x / 1024, rng())
    assert np.allclose(loud, faint * 1024, atol=1e-3 * rms(loud))


# ---- no speech ----------------------------------------------------------------------------------------------------


@every_vocoder
@pytest.mark.parametrize("samples", [0, 1, 2, 100, 2047, 2048, 5001])
def test_any_length(name: str, samples: int):
    x = np.random.default_rng(0).normal(size=samples).astype(np.float32) / 10
    y = vocode(name, x, rng())
    assert y.shape == x.shape and y.dtype == np.float32 and np.isfinite(y).all()


@every_vocoder
@pytest.mark.parametrize("value", [0.0, 0.5, -1.0])
def test_silence_and_a_constant_give_zeros(name: str, value: float):
    assert not vocode(name, np.full(8000, value, np.float32), rng()).any()


@every_vocoder
@pytest.mark.parametrize("kind", ["click", "tone", "noise", "clipped", "speech after silence"])
def test_strange_sounds_stay_finite_and_as_loud(name: str, kind: str):
    x, at = np.zeros(16000, np.float32), np.arange(16000) / SAMPLE_RATE
    noise = np.random.default_rng(0).normal(size=16000)
    if kind == "click":
        x[5000] = 1
    elif kind == "tone":
        x[:] = np.sin(2 * np.pi * 3000 * at)
    elif kind == "noise":
        x[:] = 1e-4 * noise
    elif kind == "clipped":
        x[:] = np.sign(np.sin(2 * np.pi * 120 * at))
    else:
        x[12000:] = noise[12000:]
    y = vocode(name, x, rng())
    assert np.isfinite(y).all()
    assert rms(y) == pytest.approx(rms(x - x.mean()), rel=1e-3)


def test_a_wrong_name_lists_the_right_ones():
    with pytest.raises(UserError, match="griffin_lim, lpc, sinusoidal, world, found hifigan"):
        vocode("hifigan", np.zeros(10, np.float32), rng())


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "pyworld", None)
    with pytest.raises(UserError, match="pip install pyworld"):
        vocode("world", np.ones(4000, np.float32) * np.sin(np.arange(4000, dtype=np.float32)), rng())


# ---- the tools ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [1, 511, 16000])
def test_overlap_add_undoes_the_short_time_spectrum(samples: int):
    x = np.random.default_rng(0).normal(size=samples)
    assert np.allclose(waveform(spectra(x), samples), x, atol=1e-12)


@pytest.mark.parametrize("hertz", [80, 123.4, 200, 395])
def test_the_pitch_of_a_known_pulse_train(hertz: float):
    """Harmonics up to 4 kHz with silence, which is unvoiced, on both sides."""
    at = np.arange(16000) / SAMPLE_RATE
    x = sum(np.cos(2 * np.pi * k * hertz * at) for k in range(1, int(4000 / hertz)))
    f0, voice = pitch(np.pad(x, 8000))
    assert np.abs(f0[10000:22000] / hertz - 1).max() < 0.01 and voice[10000:22000].min() == 1
    assert voice[:7000].max() == 0 and voice[25000:].max() == 0


def test_noise_has_no_voice():
    _, voice = pitch(np.random.default_rng(0).normal(size=32000))
    assert voice.mean() < 0.05


def test_linear_prediction_finds_a_known_resonance():
    """Noise through an all-pole filter of known coefficients: its response is found again, up to a factor."""
    from scipy.signal import freqz, lfilter

    a = np.poly(0.95 * np.exp(2j * np.pi * 1500 / SAMPLE_RATE * np.array([1, -1]))).real
    x = lfilter([1], a, np.random.default_rng(0).normal(size=64000))
    found = np.mean(np.log(np.abs(lpc_envelope(x, 4)))[10:-10], axis=0)
    _, response = freqz([1], a, worN=np.linspace(0, np.pi, 257))
    assert np.std(found - np.log(np.abs(response))) < 0.1


def test_griffin_lim_comes_nearer_with_every_round_and_faster_with_momentum():
    """The distance of magnitudes never grows (Griffin & Lim 1984) and falls further with momentum (Perraudin 2013)."""
    magnitude = np.abs(spectra(np.random.default_rng(0).normal(size=8000)))
    phase = np.exp(2j * np.pi * np.random.default_rng(1).random(magnitude.shape))

    def distance(rounds: int, momentum: float = 0) -> float:
        return float(np.linalg.norm(np.abs(spectra(griffin_lim(magnitude, phase, 8000, rounds, momentum))) - magnitude))

    plain = [distance(rounds) for rounds in (0, 1, 2, 5, 10, 32)]
    assert plain == sorted(plain, reverse=True)
    assert distance(32, 0.99) < 0.9 * plain[-1]
