"""Make a small synthetic corpus in the ASVspoof2019 LA layout: the whole pipeline can be tried without a download.

    python demo_corpus.py
    python demo_corpus.py --output_dir demo_corpus --seed 1234 --utterances 240 100 130 --speakers 12

Bona fide is a source-filter talker (irregular glottal pulses, breath, moving formants, a room); spoof is other
utterances of the same talkers through vocoders: A01-A06 in train and dev, others (A07-A12) in eval. The talkers of
train, dev and eval are disjoint. Level, length, margins of silence, microphone, band limit and noise floor come after
the vocoder, and each bona fide utterance shares them with a spoofed one, so that only the vocoder gives a spoof away.

This is a stand-in that proves the pipeline (data, training, selection, metrics, plots). It is no claim about deepfakes:
both classes are synthetic, and an EER on this corpus says nothing about any other.
"""

import json
import os
import shutil
import signal as signals
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.random import Generator, default_rng
from scipy import signal
from tqdm import tqdm

from audio import SAMPLE_RATE as RATE
from audio.vocoders import (
    CENTRED,
    Take,
    cepstral_envelope,
    colour,
    excite,
    griffin_lim,
    harmonics,
    lpc_envelope,
    lpc_pulse,
    mel_bands,
    mel_envelope,
    minimum_phase,
    spectra,
    waveform,
)
from common.command import Parser, run
from common.errors import UserError
from common.files import write_text

FRAME = 80  # samples between two states of the vocal tract: 5 ms
FORMAT, VERSION = "AASIST demo corpus", 1  # a change of the sound must raise VERSION, so that old corpora are rebuilt

# name: (letter in utterance ids, file ending of the protocol, index of the first of its six attacks)
PARTITIONS = {"train": ("T", "trn", 0), "dev": ("D", "trl", 0), "eval": ("E", "trl", 6)}


# ---- the talker ---------------------------------------------------------------------------------------------------

# Vowels: F1, F2, F3 in Hz (Peterson & Barney 1952, men).
VOWELS = np.array([
    (270, 2290, 3010), (390, 1990, 2550), (530, 1840, 2480), (660, 1720, 2410), (730, 1090, 2440),
    (570, 840, 2410), (440, 1020, 2240), (300, 870, 2240), (640, 1190, 2390), (490, 1350, 1690),
])  # fmt: skip
# Noise made in the mouth: resonance and bandwidth in Hz of s, sh, f and of the bursts of p, t, k.
PLACES = ((5200, 1500), (2900, 1000), (4200, 4000), (900, 900), (4200, 2000), (1900, 700))
# Consonants: pieces of (milliseconds, F1, F2, F3, voice, breath, nasal, place of noise, its level).
# F = 0 keeps the neighbour's formants. A plosive is closure, burst and (if voiceless) aspiration.
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
    """What stays with a speaker: Hz, ratios and fractions of a glottal period."""

    f0: float  # Hz
    liveliness: float  # semitones of an accent
    tract: float  # formants times this: a short vocal tract is above 1
    breath: float  # aspiration against voice
    jitter: float  # relative spread of the glottal period
    shimmer: float  # relative spread of a pulse's strength
    open: float  # part of the period in which the glottis is open
    closing: float  # time constant of the glottal closure, part of the period: spectral tilt
    pace: float  # segments' lengths times this


def draw_talker(rng: Generator) -> Talker:
    """A speaker: f0 and vocal tract go together, as in people."""
    height = rng.uniform(-1, 1)
    return Talker(
        f0=150 * 2 ** (0.6 * height + rng.uniform(-0.15, 0.15)), liveliness=rng.uniform(1.5, 4),
        tract=1.04 + 0.1 * height + rng.uniform(-0.03, 0.03), breath=rng.uniform(0.04, 0.1),
        jitter=rng.uniform(0.008, 0.018), shimmer=rng.uniform(0.04, 0.1), open=rng.uniform(0.55, 0.75),
        closing=rng.uniform(0.003, 0.012), pace=rng.uniform(0.85, 1.15),
    )  # fmt: skip


def syllables(talker: Talker, rng: Generator) -> Iterator[tuple]:
    """Endless pieces, as in CONSONANTS: consonant, then vowel or diphthong, now and then a pause."""
    while True:
        vowel, glide = VOWELS[rng.integers(len(VOWELS), size=2)]
        for piece in CONSONANTS[rng.integers(len(CONSONANTS))]:
            yield (piece[0] * talker.pace, *(piece[1:4] if piece[1] else vowel), *piece[4:])
        length = rng.uniform(70, 190) * talker.pace
        strength, nasal = rng.uniform(0.6, 1), 0.4 * (rng.random() < 0.2)
        yield (length, *vowel, strength, 0, nasal, 0, 0)
        if rng.random() < 0.4:
            yield (0.6 * length, *glide, 0.8 * strength, 0, nasal, 0, 0)
        if rng.random() < 0.1:
            yield (rng.uniform(60, 200), *vowel, 0, 0, 0, 0, 0)


def smooth(track: np.ndarray, milliseconds: float) -> np.ndarray:
    """`track` (frames, columns) averaged over time with a Hann window: articulators do not jump."""
    window = np.hanning(2 * round(milliseconds / 10) + 3)
    pad = np.pad(track, ((len(window) // 2,) * 2, (0, 0)), mode="edge")
    return signal.oaconvolve(pad, window[:, None] / window.sum(), mode="valid", axes=0)


def articulate(talker: Talker, frames: int, rng: Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tracks of the vocal tract: formants (frames, 3) Hz, voice+breath+nasal (frames, 3), noises (frames, places)."""
    formants, states, noises = np.empty((frames, 3)), np.zeros((frames, 3)), np.zeros((frames, len(PLACES)))
    start = 0
    for ms, f1, f2, f3, *state, place, level in syllables(talker, rng):
        part = slice(start, start + max(2, round(ms * RATE / FRAME / 1000)))
        formants[part], states[part], noises[part, place] = (f1, f2, f3), state, level
        start = part.stop
        if start >= frames:
            break
    states[-4:], noises[-4:] = 0, 0  # the last sound ends inside the utterance
    formants = smooth(formants * talker.tract * rng.uniform(0.97, 1.03), 50)
    return formants, np.clip(smooth(states, 18), 0, None), np.clip(smooth(noises, 4), 0, None)


def intonation(talker: Talker, samples: int, rng: Generator) -> np.ndarray:
    """f0 (samples,) Hz: declination, accents every few hundred milliseconds, a slow wander."""
    knots = np.arange(0, samples / RATE + 0.01, 0.01)  # s
    semitones = rng.uniform(-1, 1) - rng.uniform(1, 2) * knots
    for centre in np.cumsum(rng.uniform(0.2, 0.6, 16)):
        semitones += talker.liveliness * rng.uniform(-0.5, 1) * np.exp(-(((knots - centre) / 0.09) ** 2))
    semitones += np.interp(knots, np.arange(40) / 10, rng.normal(0, 0.3, 40))
    return talker.f0 * 2 ** (np.interp(np.arange(samples) / RATE, knots, semitones) / 12)


def glottis(talker: Talker, f0: np.ndarray, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
    """Flow derivative and opening, each (samples,): LF-like pulses (Fant et al. 1985), no two of them alike.

    Pulses are drawn at four times the rate, because their sharp closure would alias.
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
    """Coefficients 1, a1, a2 of a resonance of `width` Hz at `hertz`, in the shape of both."""
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
        part = slice(frame * FRAME, (frame + 1) * FRAME)
        out[part], memory = signal.sosfilt(section, source[part], zi=memory)
    return out


def room(rng: Generator) -> np.ndarray:
    """A small room's impulse response (samples,): direct sound, ten early reflections, a weak diffuse tail."""
    response = 0.05 * rng.normal(size=RATE // 5) * np.exp(-np.arange(RATE // 5) / (RATE * rng.uniform(0.02, 0.04)))
    response[: RATE // 200] = 0
    delays = rng.integers(RATE // 800, RATE // 40, 10)
    response[delays] += rng.uniform(-0.4, 0.4, 10) * np.exp(-delays / (0.01 * RATE))
    response[0] = 1
    return response


def speak(talker: Talker, seconds: float, rng: Generator) -> Take:
    """One natural utterance of `seconds`, as it arrives at the microphone."""
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
    return Take(signal.oaconvolve(wave, room(rng))[: len(wave)], f0, voice)


# ---- vocoders: train and dev --------------------------------------------------------------------------------------


def mel_40(take: Take, rng: Generator) -> np.ndarray:
    """Mel spectrogram to waveform by Griffin & Lim (1984) from zero phases: the hop rate becomes the pitch."""
    return griffin_lim(mel_envelope(take.wave, 40), CENTRED, len(take.wave), rounds=3)


def cepstral_pulse(take: Take, rng: Generator) -> np.ndarray:
    """WORLD-like (Morise 2016): smooth cepstral envelope in minimum phase, pulses or noise."""
    return colour(excite(take, take.f0, rng), minimum_phase(cepstral_envelope(take.wave, 40)))


def joined_units(take: Take, rng: Generator) -> np.ndarray:
    """Few stored units (as in PSOLA, Moulines & Charpentier 1990): one cycle each, set down 4 times, at one pitch."""
    period = int(RATE / np.median(take.f0))
    grain, starts = np.hanning(period), np.searchsorted(np.cumsum(take.f0 / RATE), np.arange(take.f0.sum() // RATE - 1))
    out = np.zeros((len(take.wave) // period + 1, period))
    for row in range(len(out)):
        start = starts[np.searchsorted(starts, row // 4 * 4 * period).clip(0, len(starts) - 1)]
        unit = take.wave[start : start + period]
        out[row, : len(unit)] = unit * grain[: len(unit)]
    return out.ravel()[: len(take.wave)]


def sinusoidal(take: Take, rng: Generator) -> np.ndarray:
    """As many harmonics as the highest note has below 7 kHz; noise is left out of voiced sounds."""
    return harmonics(take, rng, int(7000 / take.f0.max()))


def multi_pulse(take: Take, rng: Generator) -> np.ndarray:
    """Multi-pulse LPC (Atal & Remde 1982): of the residual only the strongest sample in each 5 ms is kept."""
    response = lpc_envelope(take.wave, 18)
    residual = np.pad(colour(take.wave, 1 / response), (0, -len(take.wave) % 80)).reshape(-1, 80)
    strongest = np.abs(residual) == np.abs(residual).max(axis=1, keepdims=True)
    return colour((residual * strongest).ravel()[: len(take.wave)], response)


# ---- vocoders: eval only ------------------------------------------------------------------------------------------


def lpc_held(take: Take, rng: Generator) -> np.ndarray:
    """A low-rate LPC vocoder (LPC-10 in spirit): order 10, filters held for 32 ms, monotone pulses."""
    response, monotone = lpc_envelope(take.wave, 10), np.full_like(take.f0, np.median(take.f0))
    return colour(excite(take, monotone, rng), response[np.arange(len(response)) // 4 * 4])


def zero_phase(take: Take, rng: Generator) -> np.ndarray:
    """The robot voice: every short-time frame keeps its magnitudes and gets phase zero."""
    return waveform(np.abs(spectra(take.wave)) * CENTRED, len(take.wave))


def noise_excited(take: Take, rng: Generator) -> np.ndarray:
    """A whisper: cepstral envelope over noise alone."""
    return colour(rng.normal(size=len(take.wave)), cepstral_envelope(take.wave, 40))


def channel_pulse(take: Take, rng: Generator) -> np.ndarray:
    """Channel vocoder (Dudley 1939): 20 band energies shape pulses or noise."""
    return colour(excite(take, take.f0, rng), mel_envelope(take.wave, 20))


def folded_band(take: Take, rng: Generator) -> np.ndarray:
    """A narrow-band LPC voice made wide: above 3 kHz stands a mirror image of what lies below."""
    low = signal.resample_poly(lpc_pulse(take, rng), 3, 8)  # 6 kHz
    up = np.zeros(3 * len(low))
    up[::3] = low  # zeros between samples: images of the low band
    wave = signal.resample_poly(up, 8, 9)[: len(take.wave)]
    target = mel_envelope(take.wave, 20)
    return colour(wave, target / (mel_envelope(wave, 20) + 1e-3))


def random_phase(take: Take, rng: Generator) -> np.ndarray:
    """Mel magnitudes with random phases: no pulses at all."""
    magnitude = mel_envelope(take.wave, 80)
    return waveform(magnitude * np.exp(2j * np.pi * rng.random(magnitude.shape)), len(take.wave))


ATTACKS: dict[str, Callable[[Take, Generator], np.ndarray]] = {
    "A01": lpc_pulse, "A02": mel_40, "A03": cepstral_pulse, "A04": joined_units, "A05": sinusoidal,
    "A06": multi_pulse, "A07": lpc_held, "A08": zero_phase, "A09": noise_excited, "A10": channel_pulse,
    "A11": folded_band, "A12": random_phase,
}  # fmt: skip


# ---- recording: the same for both classes -------------------------------------------------------------------------


def match_spectrum(wave: np.ndarray, target: np.ndarray) -> np.ndarray:
    """`wave` with the long-term spectrum of `target` in 16 broad bands: a vocoder's tone colour shall be no cue."""
    filters = mel_bands(16)
    ratio = [np.einsum("tf,bf->b", np.abs(spectra(x)) ** 2, filters) + 1e-9 for x in (target, wave)]
    gain = np.exp(np.log(ratio[0] / ratio[1]) / 2 @ (filters / filters.sum(axis=0)))
    return signal.oaconvolve(wave, signal.firwin2(257, np.linspace(0, 1, len(gain)), gain), mode="same")


def record(wave: np.ndarray, before: int, after: int, rng: Generator) -> np.ndarray:
    """int16 samples as recorded: margins of `before` and `after` samples, microphone, band limit, noise, level."""
    cutoff = rng.uniform(6600, 7000)
    knots = np.array([0, 60, 150, 600, 1500, 3000, 5000, cutoff, cutoff + 250, RATE / 2])
    tilt = 10 ** (np.array([-99, -40, *rng.uniform(-2, 2, 5), rng.uniform(-2, 2), -60, -99]) / 20)
    wave = np.pad(wave * signal.windows.tukey(len(wave), 0.02), (before, after))  # a hard edge would click
    wave = signal.oaconvolve(wave, signal.firwin2(513, knots / (RATE / 2), tilt), mode="same")
    wave /= np.sqrt(np.mean(wave**2))
    hiss = signal.lfilter([1], [1, -rng.uniform(0.2, 0.6)], rng.normal(size=len(wave)))
    wave += hiss / hiss.std() * 10 ** (rng.uniform(-52, -45) / 20)
    level = 10 ** (rng.uniform(-34, -27) / 20)  # leaves room for peaks 27 dB above the mean: nothing clips
    wave *= level / np.sqrt(np.mean(wave**2))
    return np.clip(np.round(wave * 32768), -32768, 32767).astype(np.int16)


# ---- corpus -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """What decides the corpus; written into its stamp."""

    seed: int
    speakers: int  # in each partition
    utterances: tuple[int, int, int]  # train, dev, eval


@dataclass(frozen=True)
class Trial:
    """One protocol line, and where its random numbers come from."""

    partition: str
    number: int  # counts through the partition
    pair: int  # a bona fide and a spoofed utterance share the recording's length, margins, level, microphone, noise
    speaker: int  # counts through the corpus: no talker is in two partitions
    attack: str  # "-" for bona fide

    @property
    def utt_id(self) -> str:
        return f"LA_{PARTITIONS[self.partition][0]}_{self.number:07d}"

    @property
    def line(self) -> str:
        return f"LA_{self.speaker:04d} {self.utt_id} - {self.attack} {'bonafide' if self.attack == '-' else 'spoof'}"


def stream(settings: Settings, partition: str, *what: int) -> Generator:
    """Random numbers for one purpose: neither order nor number of workers changes them."""
    return default_rng([settings.seed, list(PARTITIONS).index(partition), *what])


def attacks_of(partition: str) -> list[str]:
    """The names of the partition's six attacks."""
    first = PARTITIONS[partition][-1]
    return list(ATTACKS)[first : first + 6]


def draw_trials(settings: Settings, partition: str) -> list[Trial]:
    """The partition's trials: bona fide and spoof in pairs of one speaker, attacks in turn, shuffled."""
    index, trials = list(PARTITIONS).index(partition), []
    for place, number in enumerate(stream(settings, partition, 0).permutation(settings.utterances[index])):
        pair = place // 2
        turn, speaker = divmod(pair, settings.speakers)
        attack = attacks_of(partition)[(speaker + turn) % 6] if place % 2 else "-"
        trials.append(Trial(partition, int(number) + 1, pair, 1 + index * settings.speakers + speaker, attack))
    return sorted(trials, key=lambda trial: trial.number)


def make_utterance(settings: Settings, trial: Trial) -> np.ndarray:
    """The int16 samples of one trial, 1.5 to 2.5 s."""
    talker = draw_talker(stream(settings, trial.partition, 1, trial.speaker))
    rng, recording = (stream(settings, trial.partition, *what) for what in ((2, trial.number), (3, trial.pair)))
    before, after = (recording.uniform(0.05, 0.2, 2) * RATE).astype(int)
    take = speak(talker, recording.uniform(1.5, 2.5) - (before + after) / RATE, rng)
    wave = take.wave
    if trial.attack != "-":
        wave = match_spectrum(ATTACKS[trial.attack](take, rng), take.wave)
    return record(wave, before, after, recording)


def write_utterance(job: tuple[Path, Settings, Trial]) -> None:
    """Worker: make one trial's audio and write it as flac."""
    folder, settings, trial = job
    path = folder / f"ASVspoof2019_LA_{trial.partition}" / "flac" / f"{trial.utt_id}.flac"
    soundfile.write(path, make_utterance(settings, trial), RATE, subtype="PCM_16")


def asv_scores(settings: Settings, partition: str) -> str:
    """Lines of an imaginary speaker verifier with an EER of about 2 %; spoofs score up to the targets' level."""
    rng = stream(settings, partition, 4)
    groups = [("bonafide target", 25, 800), ("bonafide nontarget", -31, 2400)]
    groups += [(f"{name} spoof", rng.uniform(-15, 35), 200) for name in attacks_of(partition)]
    scores = [(name, rng.normal(mean, 14, count)) for name, mean, count in groups]
    return "".join(f"{name} {value:.5f}\n" for name, values in scores for value in values)


def write_corpus(folder: Path, settings: Settings, workers: int) -> None:
    """Fill the empty `folder` with the corpus; its stamp comes last."""
    jobs = []
    for partition, (_, ending, _) in PARTITIONS.items():
        trials = draw_trials(settings, partition)
        (folder / f"ASVspoof2019_LA_{partition}" / "flac").mkdir(parents=True)
        protocol = folder / "ASVspoof2019_LA_cm_protocols" / f"ASVspoof2019.LA.cm.{partition}.{ending}.txt"
        write_text(protocol, "".join(f"{trial.line}\n" for trial in trials))
        if partition != "train":
            scores = folder / "ASVspoof2019_LA_asv_scores" / f"ASVspoof2019.LA.asv.{partition}.gi.trl.scores.txt"
            write_text(scores, asv_scores(settings, partition))
        jobs += [(folder, settings, trial) for trial in trials]
    # Ctrl-C reaches the workers too: they leave it to this process, which ends them without their tracebacks.
    with ProcessPoolExecutor(workers, initializer=signals.signal, initargs=(signals.SIGINT, signals.SIG_IGN)) as pool:
        list(tqdm(pool.map(write_utterance, jobs, chunksize=4), total=len(jobs), unit="utt", desc="demo corpus"))
    write_text(folder / "corpus.json", json.dumps(stamp(settings), indent=2) + "\n")


def stamp(settings: Settings) -> dict:
    """What `corpus.json` says of a complete corpus."""
    return {"format": FORMAT, "version": VERSION, **asdict(settings), "utterances": list(settings.utterances)}


def read_stamp(folder: Path, kind: str = FORMAT) -> dict | None:
    """The stamp of the corpus of this kind in `folder`; None where nothing is; UserError where something else is."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    try:
        found = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
        if found["format"] == kind:
            return found
    except (OSError, ValueError, TypeError, KeyError):
        pass
    raise UserError(f"will not replace {folder}", f"an {kind} or no such folder", "something else")


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder`; on success it takes that name, else it is removed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        (temporary / "new").mkdir()
        yield temporary / "new"
        if folder.exists():
            folder.rename(temporary / "old")
        (temporary / "new").rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def build(folder: Path, settings: Settings, workers: int) -> bool:
    """Make the corpus in `folder` unless it is there already. Returns whether it was made.

    Raises UserError when `folder` holds something else or cannot be written.
    """
    folder = folder.resolve()
    counts = [len(list(folder.glob(pattern))) for pattern in ("*/flac/*.flac", "*/ASVspoof2019.LA.*.txt")]
    if read_stamp(folder) == stamp(settings) and counts == [sum(settings.utterances), 5]:
        return False
    try:
        with replacing_folder(folder) as new:
            write_corpus(new, settings, workers)
    except (OSError, soundfile.SoundFileError) as error:
        raise UserError(f"cannot write {folder}: {error}") from error
    return True


def main() -> int:
    """Command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("--output_dir", type=Path, default=Path("demo_corpus"), help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=1234, help="same seed, same files (default: %(default)s)")
    parser.add_argument("--speakers", type=int, default=12, help="talkers in each partition (default: %(default)s)")
    parser.add_argument("--utterances", type=int, nargs=3, default=(240, 100, 130), metavar=("TRAIN", "DEV", "EVAL"))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: %(default)s)")
    options = parser.parse_args()
    for name, low in (("seed", 0), ("speakers", 1), ("workers", 1)):
        if getattr(options, name) < low:
            raise UserError(f"--{name}", f"{low} or more", getattr(options, name))
    if min(options.utterances) < 12:
        raise UserError("--utterances", "12 or more, so that each attack occurs", min(options.utterances))
    settings = Settings(options.seed, options.speakers, tuple(options.utterances))
    made = build(options.output_dir, settings, options.workers)
    print(f"{options.output_dir}: {sum(settings.utterances)} utterances, {'made' if made else 'already there'}")
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
