"""Copy-synthesis: a vocoder analyses bona fide speech and synthesises it again, which makes a spoof of it.

    from audio.vocoders import VOCODERS, vocode
    spoof = vocode("griffin_lim", read("talk.wav"), np.random.default_rng(1))  # same length, level and timing

Words, speaker, melody, room and microphone stay; only the traces of the vocoder are new. Detectors trained on such
spoofs also find text-to-speech whose last step is a vocoder (Wang & Yamagishi 2023, arXiv:2210.10570).

All vocoders are signal processing in numpy, except "world", which needs `pip install pyworld "setuptools<81"` and a C
compiler. corpora/demo.py builds its attacks from the same functions.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.random import Generator
from scipy import signal

from audio import SAMPLE_RATE as RATE
from common.errors import UserError

SIZE, HOP = 512, 128  # the short-time spectrum: 32 ms every 8 ms
SHORTEST = 2048  # samples: shorter speech is padded with zeros, because WORLD needs several frames
QUIET = 1e-9  # RMS below which there is nothing to imitate


@dataclass(frozen=True)
class PitchedSpeech:
    """One utterance with its pitch and voicing, as vocoders need them."""

    wave: np.ndarray  # (samples,)
    f0: np.ndarray  # (samples,) Hz, also where there is no voice
    voice: np.ndarray  # (samples,) 0 … 1


# ---- short-time spectra -------------------------------------------------------------------------------------------

WINDOW = np.sqrt(signal.get_window("hann", SIZE))
CENTRED = (-1) ** np.arange(SIZE // 2 + 1)  # zero phase with the pulse in the middle of a frame


def spectra(wave: np.ndarray) -> np.ndarray:
    """Short-time spectrum (frames, bins) of `wave` (samples,)."""
    padded = np.pad(wave, (SIZE, SIZE + HOP))
    return np.fft.rfft(np.lib.stride_tricks.sliding_window_view(padded, SIZE)[::HOP] * WINDOW)


def waveform(spectrum: np.ndarray, samples: int) -> np.ndarray:
    """Overlap-add of `spectrum` (frames, bins): `waveform(spectra(x), len(x))` is x."""
    pieces = np.fft.irfft(spectrum) * WINDOW / 2  # Hann at a hop of a quarter adds up to 2
    out = np.zeros((len(pieces) + SIZE // HOP - 1, HOP))
    for hop in range(SIZE // HOP):
        out[hop : hop + len(pieces)] += pieces[:, hop * HOP : (hop + 1) * HOP]
    return out.ravel()[SIZE : SIZE + samples]


def colour(excitation: np.ndarray, response: np.ndarray) -> np.ndarray:
    """`excitation` (samples,) through a filter `response` (frames, bins) that changes frame by frame."""
    return waveform(spectra(excitation) * response, len(excitation))


# ---- analysis: envelopes ------------------------------------------------------------------------------------------


@cache
def mel_bands(bands: int) -> np.ndarray:
    """Triangular mel filters (bands, bins), each of sum 1."""
    edges = 700 * (10 ** (np.linspace(0.02, 1, bands + 2) * np.log10(1 + 8000 / 700)) - 1)
    bins = np.arange(SIZE // 2 + 1) * RATE / SIZE
    rise = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    fall = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    filters = np.clip(np.minimum(rise, fall), 1e-6, None)
    return filters / filters.sum(axis=1, keepdims=True)


def mel_energies(wave: np.ndarray, bands: int) -> np.ndarray:
    """Mel power spectrogram (frames, bands)."""
    return np.einsum("tf,bf->tb", np.abs(spectra(wave)) ** 2, mel_bands(bands))


def mel_envelope(wave: np.ndarray, bands: int) -> np.ndarray:
    """Magnitudes (frames, bins) of the spectrum, smoothed by going through `bands` mel energies."""
    filters = mel_bands(bands)
    back = filters / filters.sum(axis=0)  # each bin takes a weighted mean of its bands
    return np.sqrt(np.einsum("tb,bf->tf", mel_energies(wave, bands), back))


def cepstral_envelope(wave: np.ndarray, quefrencies: int) -> np.ndarray:
    """Magnitudes (frames, bins) smoothed to the first `quefrencies` cepstral coefficients."""
    cepstrum = np.fft.irfft(np.log(np.abs(spectra(wave)) + 1e-4))
    cepstrum[:, quefrencies : SIZE - quefrencies + 1] = 0
    return np.exp(np.fft.rfft(cepstrum).real)


def lpc_envelope(wave: np.ndarray, order: int) -> np.ndarray:
    """All-pole filter g/A(f) of each frame, complex (frames, bins), by the autocorrelation method."""
    correlation = np.fft.irfft(np.abs(spectra(wave)) ** 2)[:, : order + 1]
    correlation[:, 0] = correlation[:, 0] * 1.0001 + 1e-6
    lags = np.abs(np.subtract.outer(np.arange(order), np.arange(order)))
    predictor = np.linalg.solve(correlation[:, lags], -correlation[:, 1:, None])[..., 0]  # (frames, order)
    error = correlation[:, 0] + np.sum(predictor * correlation[:, 1:], axis=1)
    return np.sqrt(error / SIZE)[:, None] / np.fft.rfft(np.pad(predictor, ((0, 0), (1, 0)), constant_values=1), SIZE)


def minimum_phase(magnitude: np.ndarray) -> np.ndarray:
    """The minimum-phase spectrum of `magnitude` (frames, bins), from its folded cepstrum."""
    cepstrum = np.fft.irfft(np.log(magnitude + 1e-6))
    cepstrum[:, 1 : SIZE // 2] *= 2
    cepstrum[:, SIZE // 2 + 1 :] = 0
    return np.exp(np.fft.rfft(cepstrum))


# ---- analysis: pitch ----------------------------------------------------------------------------------------------

PITCH_SIZE, PITCH_HOP = 768, 80  # samples: three periods of the lowest voice, every 5 ms
LOWEST, HIGHEST = 65.0, 420.0  # Hz
VOICED = 0.4  # of the autocorrelation at lag 0


def half_sample_correlation(frames: np.ndarray) -> np.ndarray:
    """The autocorrelation of each of `frames` (..., PITCH_SIZE) at lags 0, ½, 1, … samples, (..., 4 · PITCH_SIZE)."""
    return np.fft.irfft(np.abs(np.fft.rfft(frames, 2 * PITCH_SIZE)) ** 2, 4 * PITCH_SIZE)


def pitch(wave: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """f0 in Hz and voicing 0 … 1 of `wave` (samples,), each (samples,); f0 is interpolated where there is no voice.

    The peak of the autocorrelation divided by the window's own (Boersma 1993), then a median over 35 ms.
    """
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(wave, PITCH_SIZE // 2), PITCH_SIZE)[::PITCH_HOP]
    window = np.hanning(PITCH_SIZE)
    lags = np.arange(int(2 * RATE / HIGHEST), int(2 * RATE / LOWEST) + 2)  # in half samples: a high voice has few
    correlation = half_sample_correlation((frames - frames.mean(axis=1, keepdims=True)) * window)
    own = half_sample_correlation(window)
    ratio = correlation[:, lags] / (correlation[:, :1] + 1e-12) / (own[lags] / own[0])
    inner = ratio[:, 1:-1]
    peaks = (inner > ratio[:, :-2]) & (inner >= ratio[:, 2:])  # not the edge of a peak that lies outside
    # Twice the period fits as well as the period, so shorter lags get a small bonus.
    best = 1 + np.argmax(np.where(peaks, inner - 0.03 * np.log2(lags[1:-1]), -1), axis=1)
    left, top, right = (ratio[np.arange(len(best)), best + step] for step in (-1, 0, 1))
    shift = np.clip((left - right) / (2 * (left - 2 * top + right) - 1e-12), -0.5, 0.5)  # of the parabola's vertex
    loud = correlation[:, 0] > correlation[:, 0].max() * 1e-4
    voice = signal.medfilt(((top > VOICED) & peaks.any(axis=1) & loud).astype(float), 7)
    f0 = signal.medfilt(2 * RATE / (lags[best] + shift), 7)
    at, knots = np.arange(len(wave)), np.arange(len(frames)) * PITCH_HOP
    voiced = np.flatnonzero(voice)
    if len(voiced) == 0:
        return np.full(len(wave), 150.0), np.zeros(len(wave))
    return np.interp(at, knots[voiced], f0[voiced]), np.interp(at, knots, voice)


# ---- synthesis ----------------------------------------------------------------------------------------------------


def excite(speech: PitchedSpeech, f0: np.ndarray, rng: Generator) -> np.ndarray:
    """Excitation (samples,) of power 1: one pulse per period of `f0` where there is voice, else noise."""
    cycles = np.floor(np.cumsum(f0 / RATE))
    pulses = np.sqrt(RATE / f0) * (np.diff(cycles, prepend=0) > 0)
    return np.where(speech.voice > 0.15, pulses, rng.normal(size=len(f0)))


def griffin_lim(magnitude: np.ndarray, phase: np.ndarray, samples: int, rounds: int, momentum: float = 0) -> np.ndarray:
    """A waveform (samples,) whose short-time magnitudes approximate `magnitude` (frames, bins), from unit `phase`s.

    Griffin & Lim (1984); with `momentum` its fast variant (Perraudin et al. 2013, 0.99).
    """
    wave, before = waveform(magnitude * phase, samples), 0
    for _ in range(rounds):
        consistent = spectra(wave)
        estimate = consistent + momentum * (consistent - before)
        before = consistent
        wave = waveform(magnitude * estimate / (np.abs(estimate) + 1e-9), samples)
    return wave


def lpc_pulse(speech: PitchedSpeech, rng: Generator) -> np.ndarray:
    """LPC vocoder (Atal & Hanauer 1971): pulses or noise through an all-pole filter of order 18."""
    return colour(excite(speech, speech.f0, rng), lpc_envelope(speech.wave, 18))


def harmonics(speech: PitchedSpeech, rng: Generator, count: int) -> np.ndarray:
    """`count` sinusoids below 7 kHz (McAulay & Quatieri 1986), all phases zero, where there is voice; else noise."""
    envelope = cepstral_envelope(speech.wave, 40)
    phase, out = 2 * np.pi * np.cumsum(speech.f0 / RATE), np.zeros_like(speech.wave)
    at = np.arange(len(envelope)) * HOP - SIZE // 2
    f0 = speech.f0[np.clip(at, 0, len(out) - 1)]
    for harmonic in range(1, count + 1):
        bins = np.minimum(np.round(harmonic * f0 * SIZE / RATE).astype(int), SIZE // 2)
        level = envelope[np.arange(len(bins)), bins] * np.sqrt(f0) * (harmonic * f0 < 7001)
        out += np.cos(harmonic * phase) * np.interp(np.arange(len(out)), at, level)
    noise = colour(rng.normal(size=len(out)), envelope)
    return np.where(speech.voice > 0.15, out * np.sqrt(2 / RATE), noise) / np.sqrt(SIZE / 2)


# ---- copy-synthesis by name ---------------------------------------------------------------------------------------


def _mel_griffin_lim(wave: np.ndarray, rng: Generator) -> np.ndarray:
    """80 mel energies, turned back to magnitudes by the pseudo-inverse, then 32 rounds from random phases."""
    power = np.einsum("tb,fb->tf", mel_energies(wave, 80), np.linalg.pinv(mel_bands(80)))
    phase = np.exp(2j * np.pi * rng.random(power.shape))
    return griffin_lim(np.sqrt(np.maximum(power, 0)), phase, len(wave), rounds=32, momentum=0.99)


def _lpc(wave: np.ndarray, rng: Generator) -> np.ndarray:
    return lpc_pulse(PitchedSpeech(wave, *pitch(wave)), rng)


def _sinusoidal(wave: np.ndarray, rng: Generator) -> np.ndarray:
    speech = PitchedSpeech(wave, *pitch(wave))
    return harmonics(speech, rng, int(7000 / speech.f0.min()))


def _world(wave: np.ndarray, rng: Generator) -> np.ndarray:
    """WORLD (Morise et al. 2016): f0, envelope and aperiodicity every 5 ms. Its noise has a fixed seed of its own."""
    try:
        with warnings.catch_warnings(action="ignore"):  # about how it looks up its version
            import pyworld
    except ImportError as error:
        what = f'vocoder "world": {error}; pip install pyworld "setuptools<81" (builds with a C compiler)'
        raise UserError(what) from error
    rough, times = pyworld.dio(wave, RATE)
    f0 = pyworld.stonemask(wave, rough, times, RATE)
    envelope, aperiodicity = pyworld.cheaptrick(wave, f0, times, RATE), pyworld.d4c(wave, f0, times, RATE)
    return pyworld.synthesize(f0, envelope, aperiodicity, RATE)


VOCODERS: dict[str, Callable[[np.ndarray, Generator], np.ndarray]] = {
    "griffin_lim": _mel_griffin_lim,
    "lpc": _lpc,
    "sinusoidal": _sinusoidal,
    "world": _world,
}


def vocode(name: str, x: np.ndarray, rng: Generator) -> np.ndarray:
    """Copy-synthesis of `x` (n,) float32 at 16 kHz by the vocoder `name`: (n,) float32, aligned with `x`.

    The RMS is that of `x` without its mean; peaks may exceed 1. Silence and a constant give zeros. Raises UserError for
    a name that is not in `VOCODERS`, and for "world" if pyworld is not installed.
    """
    if name not in VOCODERS:
        raise UserError("no such vocoder", f"one of {', '.join(VOCODERS)}", name)
    wave = np.asarray(x, dtype=np.float64)
    wave = wave - wave.mean() if len(wave) else wave
    level = np.sqrt(np.mean(wave**2)) if len(wave) else 0.0
    if level < QUIET:
        return np.zeros(len(wave), np.float32)
    # RMS 1, because the small constants above are chosen for that level.
    padded = np.pad(wave / level, (0, max(0, SHORTEST - len(wave))))
    out = VOCODERS[name](padded, rng)[: len(wave)]
    out = np.pad(out, (0, len(wave) - len(out)))
    return (out * level / max(np.sqrt(np.mean(out**2)), QUIET)).astype(np.float32)


def match_spectrum(wave: np.ndarray, target: np.ndarray) -> np.ndarray:
    """`wave` (samples,) with the long-term spectrum of `target` in 16 broad bands, so that tone colour is no cue."""
    filters = mel_bands(16)
    ratio = [np.einsum("tf,bf->b", np.abs(spectra(x)) ** 2, filters) + 1e-9 for x in (target, wave)]
    gain = np.exp(np.log(ratio[0] / ratio[1]) / 2 @ (filters / filters.sum(axis=0)))
    return signal.oaconvolve(wave, signal.firwin2(257, np.linspace(0, 1, len(gain)), gain), mode="same")
