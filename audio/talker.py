"""A synthetic talker: source-filter synthesis of nonsense syllables, as bona fide speech of the demo corpus.

    talker = draw_talker(rng)
    speech = speak(talker, seconds=2.0, rng=rng)  # wave, f0 and voicing, each (samples,)

Irregular glottal pulses (Fant et al. 1985) and breath pass moving formants (Klatt 1980) and a small room.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy import signal

from audio import SAMPLE_RATE as RATE
from audio.vocoders import PitchedSpeech

FRAME = 80  # samples between two states of the vocal tract: 5 ms

# Vowels: F1, F2, F3 in Hz (Peterson & Barney 1952, men).
VOWELS = np.array([
    (270, 2290, 3010), (390, 1990, 2550), (530, 1840, 2480), (660, 1720, 2410), (730, 1090, 2440),
    (570, 840, 2410), (440, 1020, 2240), (300, 870, 2240), (640, 1190, 2390), (490, 1350, 1690),
])  # fmt: skip
# Noise made in the mouth: resonance and bandwidth in Hz of s, sh, f and of the bursts of p, t, k.
PLACES = ((5200, 1500), (2900, 1000), (4200, 4000), (900, 900), (4200, 2000), (1900, 700))
# Consonants: segments of (milliseconds, F1, F2, F3, voice, breath, nasal, place of noise, its level).
# F = 0 keeps the vowel's formants. A plosive is closure, burst and (if voiceless) aspiration.
CONSONANTS = (
    ((90, 320, 1700, 2600, 0, 0.1, 0, 0, 0.9),), ((95, 320, 1900, 2500, 0, 0.1, 0, 1, 0.9),),
    ((80, 320, 1100, 2300, 0, 0.1, 0, 2, 0.4),), ((70, 320, 1700, 2600, 0.45, 0.1, 0, 0, 0.5),),
    ((60, 0, 0, 0, 0, 0.9, 0, 2, 0),), ((65, 280, 1100, 2100, 0.5, 0, 1, 0, 0),),
    ((65, 280, 1600, 2500, 0.5, 0, 1, 0, 0),), ((60, 360, 1300, 2800, 0.6, 0, 0, 0, 0),),
    ((60, 340, 1200, 1600, 0.6, 0, 0, 0, 0),), ((55, 290, 700, 2200, 0.6, 0, 0, 0, 0),),
    ((60, 250, 900, 2200, 0, 0, 0, 0, 0), (12, 250, 900, 2200, 0, 0, 0, 3, 1.2), (30, 0, 0, 0, 0, 0.7, 0, 0, 0)),
    ((60, 250, 1700, 2600, 0, 0, 0, 0, 0), (14, 250, 1700, 2600, 0, 0, 0, 4, 1.2), (35, 0, 0, 0, 0, 0.7, 0, 0, 0)),
    ((60, 250, 2000, 2500, 0, 0, 0, 0, 0), (18, 250, 2000, 2500, 0, 0, 0, 5, 1.2), (40, 0, 0, 0, 0, 0.7, 0, 0, 0)),
    ((55, 250, 900, 2200, 0.12, 0, 0, 0, 0), (10, 250, 900, 2200, 0.2, 0, 0, 3, 0.7)),
    ((50, 250, 1700, 2600, 0.12, 0, 0, 0, 0), (10, 250, 1700, 2600, 0.2, 0, 0, 4, 0.7)),
)  # fmt: skip


@dataclass(frozen=True)
class Talker:
    """The constants of a speaker."""

    f0: float  # Hz
    liveliness: float  # semitones of an accent
    tract: float  # formants times this: a short vocal tract is above 1
    breath: float  # aspiration relative to voice
    jitter: float  # relative spread of the glottal period
    shimmer: float  # relative spread of a pulse's strength
    open: float  # fraction of the period in which the glottis is open
    closing: float  # time constant of the glottal closure, fraction of the period: spectral tilt
    pace: float  # lengths of segments times this


def draw_talker(rng: Generator) -> Talker:
    """A random speaker: f0 and the length of the vocal tract are correlated, as in people."""
    height = rng.uniform(-1, 1)
    return Talker(
        f0=150 * 2 ** (0.6 * height + rng.uniform(-0.15, 0.15)), liveliness=rng.uniform(1.5, 4),
        tract=1.04 + 0.1 * height + rng.uniform(-0.03, 0.03), breath=rng.uniform(0.04, 0.1),
        jitter=rng.uniform(0.008, 0.018), shimmer=rng.uniform(0.04, 0.1), open=rng.uniform(0.55, 0.75),
        closing=rng.uniform(0.003, 0.012), pace=rng.uniform(0.85, 1.15),
    )  # fmt: skip


def syllables(talker: Talker, rng: Generator) -> Iterator[tuple]:
    """Endless segments, as in CONSONANTS: consonant, then vowel or diphthong, sometimes a pause."""
    while True:
        vowel, glide = VOWELS[rng.integers(len(VOWELS), size=2)]
        for segment in CONSONANTS[rng.integers(len(CONSONANTS))]:
            yield (segment[0] * talker.pace, *(segment[1:4] if segment[1] else vowel), *segment[4:])
        length = rng.uniform(70, 190) * talker.pace
        strength, nasal = rng.uniform(0.6, 1), 0.4 * (rng.random() < 0.2)
        yield (length, *vowel, strength, 0, nasal, 0, 0)
        if rng.random() < 0.4:
            yield (0.6 * length, *glide, 0.8 * strength, 0, nasal, 0, 0)
        if rng.random() < 0.1:
            yield (rng.uniform(60, 200), *vowel, 0, 0, 0, 0, 0)


def smooth(track: np.ndarray, milliseconds: float) -> np.ndarray:
    """`track` (frames, columns) averaged over time with a Hann window, because articulators do not jump."""
    window = np.hanning(2 * round(milliseconds / 10) + 3)
    pad = np.pad(track, ((len(window) // 2,) * 2, (0, 0)), mode="edge")
    return signal.oaconvolve(pad, window[:, None] / window.sum(), mode="valid", axes=0)


def articulate(talker: Talker, frames: int, rng: Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tracks of the vocal tract: formants (frames, 3) Hz, voice+breath+nasal (frames, 3), noises (frames, places)."""
    formants, states, noises = np.empty((frames, 3)), np.zeros((frames, 3)), np.zeros((frames, len(PLACES)))
    start = 0
    for ms, f1, f2, f3, *state, place, level in syllables(talker, rng):
        span = slice(start, start + max(2, round(ms * RATE / FRAME / 1000)))
        formants[span], states[span], noises[span, place] = (f1, f2, f3), state, level
        start = span.stop
        if start >= frames:
            break
    states[-4:], noises[-4:] = 0, 0  # the last sound ends before the utterance does
    formants = smooth(formants * talker.tract * rng.uniform(0.97, 1.03), 50)
    return formants, np.clip(smooth(states, 18), 0, None), np.clip(smooth(noises, 4), 0, None)


def intonation(talker: Talker, samples: int, rng: Generator) -> np.ndarray:
    """f0 (samples,) Hz: declination, accents every few hundred milliseconds, slow random drift."""
    knots = np.arange(0, samples / RATE + 0.01, 0.01)  # s
    semitones = rng.uniform(-1, 1) - rng.uniform(1, 2) * knots
    for centre in np.cumsum(rng.uniform(0.2, 0.6, 16)):
        semitones += talker.liveliness * rng.uniform(-0.5, 1) * np.exp(-(((knots - centre) / 0.09) ** 2))
    semitones += np.interp(knots, np.arange(40) / 10, rng.normal(0, 0.3, 40))
    return talker.f0 * 2 ** (np.interp(np.arange(samples) / RATE, knots, semitones) / 12)


def glottis(talker: Talker, f0: np.ndarray, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """Flow derivative and opening, each (samples,): LF-like pulses (Fant et al. 1985) with jitter and shimmer.

    The pulses are computed at four times the rate, because their sharp closure would alias.
    """
    drift = signal.lfilter([0.6], [1, -0.8], rng.normal(size=(3, len(f0) // 16)))  # period, strength, opening
    starts, time = [], 0.0
    while time < len(f0):
        starts.append(time)
        time += RATE / f0[int(time)] * (1 + np.clip(talker.jitter * drift[0, len(starts)], -0.1, 0.1))
    starts = np.array([*starts, time])
    at = np.arange(4 * len(f0)) / 4
    cycle = np.searchsorted(starts, at, side="right") - 1
    phase = (at - starts[cycle]) / np.diff(starts)[cycle]
    strength = 1 + np.clip(talker.shimmer * drift[1, cycle], -0.5, 0.5)
    end = talker.open * (1 + np.clip(0.05 * drift[2, cycle], -0.2, 0.2))
    rise = np.exp(2.5 * (phase / end - 1)) * np.sin(np.pi * phase / (0.76 * end)) / np.sin(np.pi / 0.76)
    flow = -strength * np.where(phase < end, rise, np.exp(-(phase - end) / talker.closing))
    opening = np.where(phase < end, np.sin(np.pi * np.minimum(phase / end, 1)) ** 2, 0)
    return signal.resample_poly(flow, 1, 4), opening[::4]


def resonator(hertz: np.ndarray, width: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coefficients 1, a1, a2 of a resonance of `width` Hz at `hertz`, each in the shape of both."""
    radius = np.exp(-np.pi * width / RATE)
    return np.ones_like(radius), -2 * radius * np.cos(2 * np.pi * hertz / RATE), radius**2


def vocal_tract(source: np.ndarray, formants: np.ndarray, nasal: np.ndarray, tract: float) -> np.ndarray:
    """`source` (samples,) through five formants and a nasal pole-zero pair (Klatt 1980)."""
    high = np.broadcast_to([3500 * tract, 4500 * tract, 5600 * tract], formants.shape)
    centres = np.concatenate([formants, high], axis=1)  # (frames, 6)
    widths = 50 + 0.045 * centres * (1 + 0.5 * nasal[:, None])
    sections = np.zeros((len(centres), 7, 6))  # (frames, sections, b0 b1 b2 a0 a1 a2)
    sections[:, :6, 3:] = np.stack(resonator(centres, widths), axis=-1)
    sections[:, :6, 0] = sections[:, :6, 3:].sum(axis=-1)  # gain 1 at 0 Hz
    pole = np.full(len(nasal), 270.0)
    sections[:, 6, :3] = np.stack(resonator(pole + 250 * nasal, pole / 2.7), axis=-1)
    sections[:, 6, 3:] = np.stack(resonator(pole, pole / 2.7), axis=-1)
    out, memory = np.empty_like(source), np.zeros((7, 2))
    for frame, section in enumerate(sections):
        span = slice(frame * FRAME, (frame + 1) * FRAME)
        out[span], memory = signal.sosfilt(section, source[span], zi=memory)
    return out


def room_response(rng: Generator) -> np.ndarray:
    """A small room's impulse response (samples,): direct sound, ten early reflections, a weak diffuse tail."""
    response = 0.05 * rng.normal(size=RATE // 5) * np.exp(-np.arange(RATE // 5) / (RATE * rng.uniform(0.02, 0.04)))
    response[: RATE // 200] = 0
    delays = rng.integers(RATE // 800, RATE // 40, 10)
    response[delays] += rng.uniform(-0.4, 0.4, 10) * np.exp(-delays / (0.01 * RATE))
    response[0] = 1
    return response


def speak(talker: Talker, seconds: float, rng: Generator) -> PitchedSpeech:
    """One bona fide utterance of `seconds`, as it arrives at the microphone."""
    frames = round(seconds * RATE / FRAME)
    formants, states, noises = articulate(talker, frames, rng)
    at, knots = np.arange(frames * FRAME), (np.arange(frames) + 0.5) * FRAME
    voice, breath, _ = (np.interp(at, knots, column) for column in states.T)
    f0 = intonation(talker, len(at), rng)
    flow, opening = glottis(talker, f0, rng)
    hiss = rng.normal(size=len(at)) * (talker.breath * voice * (0.3 + opening) + 0.12 * breath)
    wave = vocal_tract(flow * voice + hiss, formants, states[:, 2], talker.tract)
    for (hertz, width), level in zip(PLACES, noises.T, strict=True):
        _, a1, a2 = resonator(np.float64(hertz), np.float64(width))
        noise = signal.lfilter([1, 0, -1], [1, a1, a2], rng.normal(size=len(at)))
        wave += 0.25 * np.interp(at, knots, level) * noise / noise.std()
    return PitchedSpeech(signal.oaconvolve(wave, room_response(rng))[: len(wave)], f0, voice)
