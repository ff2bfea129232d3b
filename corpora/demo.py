"""The demo corpus: synthetic talkers as bona fide, twelve textbook vocoders as spoof, in ASVspoof2019 LA's layout.

    build_demo_corpus(Path("demo_corpus"), DemoSettings(1234, 12, (240, 100, 130)), workers=2)

Train and dev have attacks A01–A06, eval has A07–A12; no talker is in two partitions. A spoof is another utterance of
the same talker through a vocoder. Length, margins of silence, microphone, band limit, noise floor and level are applied
after the vocoder, and are the same for a bona fide utterance and its spoof, so that only the vocoder differs.
"""

from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.random import Generator, default_rng
from scipy import signal
from tqdm import tqdm

from audio import SAMPLE_RATE as RATE
from audio.talker import draw_talker, speak
from audio.vocoders import (
    CENTRED,
    PitchedSpeech,
    cepstral_envelope,
    colour,
    excite,
    griffin_lim,
    harmonics,
    lpc_envelope,
    lpc_pulse,
    match_spectrum,
    mel_envelope,
    minimum_phase,
    spectra,
    waveform,
)
from common.errors import UserError
from common.files import write_text
from common.pool import map_in_order
from corpora import la_layout

FORMAT, VERSION = "AASIST demo corpus", 1  # raise VERSION when the sound changes, so that old corpora are rebuilt
PARTITIONS = tuple(la_layout.LETTERS)
FIRST_ATTACK = {"train": 0, "dev": 0, "eval": 6}  # index in `ATTACKS` of the first of a partition's six


# ---- attacks of train and dev ------------------------------------------------------------------------------------


def mel_40(speech: PitchedSpeech, rng: Generator) -> np.ndarray:
    """Mel spectrogram to waveform by 3 rounds of Griffin & Lim (1984) from zero phases: the hop rate is the pitch."""
    return griffin_lim(mel_envelope(speech.wave, 40), CENTRED, len(speech.wave), rounds=3)


def cepstral_pulse(speech: PitchedSpeech, rng: Generator) -> np.ndarray:
    """Like WORLD (Morise 2016): pulses or noise through a smooth cepstral envelope in minimum phase."""
    return colour(excite(speech, speech.f0, rng), minimum_phase(cepstral_envelope(speech.wave, 40)))


def joined_units(speech: PitchedSpeech, rng: Generator) -> np.ndarray:
    """Stored units as in PSOLA (Moulines & Charpentier 1990): single cycles, each repeated 4 times, at one pitch."""
    period = int(RATE / np.median(speech.f0))
    grain, cycles = np.hanning(period), np.cumsum(speech.f0 / RATE)
    starts = np.searchsorted(cycles, np.arange(speech.f0.sum() // RATE - 1))
    out = np.zeros((len(speech.wave) // period + 1, period))
    for row in range(len(out)):
        start = starts[np.searchsorted(starts, row // 4 * 4 * period).clip(0, len(starts) - 1)]
        unit = speech.wave[start : start + period]
        out[row, : len(unit)] = unit * grain[: len(unit)]
    return out.ravel()[: len(speech.wave)]


def sinusoidal(speech: PitchedSpeech, rng: Generator) -> np.ndarray:
    """As many harmonics as the highest pitch has below 7 kHz; voiced sounds have no noise."""
    return harmonics(speech, rng, int(7000 / speech.f0.max()))


def multi_pulse(speech: PitchedSpeech, rng: Generator) -> np.ndarray:
    """Multi-pulse LPC (Atal & Remde 1982): keeps only the strongest sample of the residual in each 5 ms."""
    response = lpc_envelope(speech.wave, 18)
    residual = np.pad(colour(speech.wave, 1 / response), (0, -len(speech.wave) % 80)).reshape(-1, 80)
    strongest = np.abs(residual) == np.abs(residual).max(axis=1, keepdims=True)
    return colour((residual * strongest).ravel()[: len(speech.wave)], response)


# ---- attacks of eval ---------------------------------------------------------------------------------------------


def lpc_held(speech: PitchedSpeech, rng: Generator) -> np.ndarray:
    """A low-rate LPC vocoder (LPC-10 in spirit): order 10, filters held for 32 ms, monotone pulses."""
    response, monotone = lpc_envelope(speech.wave, 10), np.full_like(speech.f0, np.median(speech.f0))
    return colour(excite(speech, monotone, rng), response[np.arange(len(response)) // 4 * 4])


def zero_phase(speech: PitchedSpeech, rng: Generator) -> np.ndarray:
    """The robot voice: every short-time frame keeps its magnitudes and gets zero phase."""
    return waveform(np.abs(spectra(speech.wave)) * CENTRED, len(speech.wave))


def noise_excited(speech: PitchedSpeech, rng: Generator) -> np.ndarray:
    """A whisper: noise through the cepstral envelope."""
    return colour(rng.normal(size=len(speech.wave)), cepstral_envelope(speech.wave, 40))


def channel_pulse(speech: PitchedSpeech, rng: Generator) -> np.ndarray:
    """Channel vocoder (Dudley 1939): 20 band energies shape pulses or noise."""
    return colour(excite(speech, speech.f0, rng), mel_envelope(speech.wave, 20))


def folded_band(speech: PitchedSpeech, rng: Generator) -> np.ndarray:
    """A narrow-band LPC voice made wide-band: above 3 kHz it has a mirror image of the band below."""
    low = signal.resample_poly(lpc_pulse(speech, rng), 3, 8)  # 6 kHz
    up = np.zeros(3 * len(low))
    up[::3] = low  # zeros between samples make images of the low band
    wave = signal.resample_poly(up, 8, 9)[: len(speech.wave)]
    target = mel_envelope(speech.wave, 20)
    return colour(wave, target / (mel_envelope(wave, 20) + 1e-3))


def random_phase(speech: PitchedSpeech, rng: Generator) -> np.ndarray:
    """Mel magnitudes with random phases: no pulses at all."""
    magnitude = mel_envelope(speech.wave, 80)
    return waveform(magnitude * np.exp(2j * np.pi * rng.random(magnitude.shape)), len(speech.wave))


ATTACKS: dict[str, Callable[[PitchedSpeech, Generator], np.ndarray]] = {
    "A01": lpc_pulse, "A02": mel_40, "A03": cepstral_pulse, "A04": joined_units, "A05": sinusoidal,
    "A06": multi_pulse, "A07": lpc_held, "A08": zero_phase, "A09": noise_excited, "A10": channel_pulse,
    "A11": folded_band, "A12": random_phase,
}  # fmt: skip


# ---- recording: the same for both classes -------------------------------------------------------------------------


def record(wave: np.ndarray, before: int, after: int, rng: Generator) -> np.ndarray:
    """int16 samples as recorded, with margins of `before` and `after` samples: microphone, band limit, noise, level."""
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
class DemoSettings:
    """Everything that decides the corpus; written into its stamp."""

    seed: int
    speakers: int  # in each partition
    utterances: tuple[int, int, int]  # train, dev, eval


@dataclass(frozen=True)
class DemoTrial:
    """One protocol line, and where its random numbers come from."""

    partition: str
    number: int  # counts through the partition
    pair: int  # a bona fide and a spoofed utterance with the same length, margins, level, microphone and noise
    speaker: int  # counts through the corpus, so no talker is in two partitions
    attack: str  # "-" for bona fide

    @property
    def utt_id(self) -> str:
        return f"LA_{la_layout.LETTERS[self.partition]}_{self.number:07d}"

    @property
    def line(self) -> str:
        return la_layout.protocol_line(f"LA_{self.speaker:04d}", self.utt_id, self.attack)


def random_stream(settings: DemoSettings, partition: str, *purpose: int) -> Generator:
    """Random numbers for one purpose, so that neither the order of work nor the number of workers changes them."""
    return default_rng([settings.seed, PARTITIONS.index(partition), *purpose])


def attacks_of(partition: str) -> list[str]:
    """The names of the partition's six attacks."""
    first = FIRST_ATTACK[partition]
    return list(ATTACKS)[first : first + 6]


def draw_trials(settings: DemoSettings, partition: str) -> list[DemoTrial]:
    """The partition's trials: bona fide and spoof in pairs of one speaker, attacks in turn, shuffled."""
    index, trials = PARTITIONS.index(partition), []
    for place, number in enumerate(random_stream(settings, partition, 0).permutation(settings.utterances[index])):
        pair = place // 2
        turn, speaker = divmod(pair, settings.speakers)
        attack = attacks_of(partition)[(speaker + turn) % 6] if place % 2 else "-"
        trials.append(DemoTrial(partition, int(number) + 1, pair, 1 + index * settings.speakers + speaker, attack))
    return sorted(trials, key=lambda trial: trial.number)


def make_utterance(settings: DemoSettings, trial: DemoTrial) -> np.ndarray:
    """The int16 samples (n,) of one trial, 1.5 to 2.5 s."""
    talker = draw_talker(random_stream(settings, trial.partition, 1, trial.speaker))
    rng = random_stream(settings, trial.partition, 2, trial.number)
    recording = random_stream(settings, trial.partition, 3, trial.pair)
    before, after = (recording.uniform(0.05, 0.2, 2) * RATE).astype(int)
    speech = speak(talker, recording.uniform(1.5, 2.5) - (before + after) / RATE, rng)
    wave = speech.wave
    if trial.attack != "-":
        wave = match_spectrum(ATTACKS[trial.attack](speech, rng), speech.wave)
    return record(wave, before, after, recording)


def write_utterance(job: tuple[Path, DemoSettings, DemoTrial]) -> None:
    """In a worker process: make one trial's audio and write it as flac."""
    folder, settings, trial = job
    path = la_layout.audio_path(folder, trial.partition, trial.utt_id)
    soundfile.write(path, make_utterance(settings, trial), RATE, subtype="PCM_16")


def asv_scores(settings: DemoSettings, partition: str) -> str:
    """Lines of an imaginary speaker verifier with an EER of about 2 %; spoofs score up to the level of targets."""
    rng = random_stream(settings, partition, 4)
    groups = [("bonafide target", 25, 800), ("bonafide nontarget", -31, 2400)]
    groups += [(f"{name} spoof", rng.uniform(-15, 35), 200) for name in attacks_of(partition)]
    scores = [(name, rng.normal(mean, 14, count)) for name, mean, count in groups]
    return "".join(f"{name} {value:.5f}\n" for name, values in scores for value in values)


def write_demo_corpus(folder: Path, settings: DemoSettings, workers: int) -> None:
    """Fill the empty `folder` with the corpus; its stamp comes last."""
    jobs = []
    for partition in PARTITIONS:
        trials = draw_trials(settings, partition)
        la_layout.start_partition(folder, partition, [trial.line for trial in trials])
        if partition != "train":
            write_text(la_layout.asv_scores_path(folder, partition), asv_scores(settings, partition))
        jobs += [(folder, settings, trial) for trial in trials]
    with closing(map_in_order(write_utterance, jobs, workers)) as written:
        for _ in tqdm(written, total=len(jobs), unit="utt", desc="demo corpus"):
            pass
    la_layout.write_stamp(folder, stamp(settings))


def stamp(settings: DemoSettings) -> dict:
    """The content of `corpus.json` in a complete corpus."""
    return {"format": FORMAT, "version": VERSION, **asdict(settings), "utterances": list(settings.utterances)}


def build_demo_corpus(folder: Path, settings: DemoSettings, workers: int) -> bool:
    """Make the corpus in `folder` unless it is already there. Returns whether it was made.

    Raises UserError when `folder` has other content or cannot be written.
    """
    folder = folder.resolve()
    counts = [len(list(folder.glob(pattern))) for pattern in ("*/flac/*.flac", "*/ASVspoof2019.LA.*.txt")]
    if la_layout.read_stamp(folder, FORMAT) == stamp(settings) and counts == [sum(settings.utterances), 5]:
        return False
    try:
        with la_layout.replacing_folder(folder) as new:
            write_demo_corpus(new, settings, workers)
    except (OSError, soundfile.SoundFileError) as error:
        raise UserError(f"cannot write {folder}: {error}") from error
    return True
