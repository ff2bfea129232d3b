"""Cues: single numbers of a recording, such as its length or level, that may give its class away.

    file = measure_file(Path("a.flac"))             # decoded once, block by block
    cue_eers([(True, file), (False, other), …])     # how far each cue alone separates bona fide from spoof

docs/check_data.md says what each cue measures.
"""

import math
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np

from audio import SAMPLE_RATE
from audio.errors import AudioError
from audio.levels import FRAME_SAMPLES
from audio.reading import MAX_SECONDS, Recording, RecordingFacts
from corpora.packed import FULL_SCALE
from metrics.error_rates import Ranking

# name: unit
CUES = {
    "duration": "s",
    "leading quiet": "s",
    "trailing quiet": "s",
    "level": "dBFS",
    "peak": "dBFS",
    "noise floor": "dBFS",
    "energy below 80 Hz": "dB",
    "energy 4–6 kHz": "dB",
    "energy 6.8–7.7 kHz": "dB",
    "energy above 7.7 kHz": "dB",
    "DC offset": "16-bit steps",
    "exact zeros": "of samples",
}
FORMAT_CUE = "file format"  # the only cue that is a name, not a number
BANDS = ((0, 80), (4000, 6000), (6800, 7700), (7700, 8001))  # Hz, in the order of CUES
SPECTRUM = 1280  # samples: 80 ms, so that bins lie 12.5 Hz apart
QUIET = 40.0  # dB below the loudest 20 ms
FLOOR_PERCENTILE = 5  # of the levels of 20 ms: the noise floor
SILENCE = 1e-10  # power added before a logarithm: −100 dBFS
TELLING = 0.40  # a cue gives the key away if the whole 95 % interval of its EER lies below
Z = 1.96  # standard deviations: 95 %

# ----------------------------------------------------------------------------------------------------------- a file


class MeasuredFile(NamedTuple):
    """What is kept of a decoded file."""

    facts: RecordingFacts
    digest: bytes  # of its samples rounded to 16 bits: the same for any lossless coding of them
    silent: bool  # all samples are the same
    cues: tuple[float, ...]  # in the order of CUES

    @property
    def format(self) -> str:
        return f"{self.facts.coding}, {self.facts.rate} Hz, {self.facts.channels} ch"


class UnreadableFile(NamedTuple):
    """A file that gives no samples."""

    condition: str  # of AudioError
    message: str


def measure_file(path: Path) -> MeasuredFile | UnreadableFile:
    """Decode a file once, in blocks, and measure it."""
    recording, meter = Recording(path, max_seconds=MAX_SECONDS), CueMeter()
    try:
        for block in recording:
            meter.add(block)
    except AudioError as error:
        return UnreadableFile(error.condition, str(error))
    return MeasuredFile(recording.facts, meter.digest.digest(), meter.low == meter.high, meter.cues())


class CueMeter:
    """Sums over a signal that comes in blocks. It keeps the levels of all frames: 180,000 numbers an hour."""

    def __init__(self):
        self.digest = blake2b(digest_size=16)
        self.count = self.zeros = 0
        self.sum = self.squares = 0.0
        self.low, self.high = math.inf, -math.inf
        self.powers: list[np.ndarray] = []  # of each 20 ms
        self.spectrum = np.zeros(SPECTRUM // 2 + 1)
        self.rest = np.empty(0, np.float32)

    def add(self, x: np.ndarray) -> None:
        """(n,) float32."""
        self.digest.update(np.rint(x * FULL_SCALE).clip(-(2**31), 2**31 - 1).astype("<i4"))
        self.count += len(x)
        self.zeros += len(x) - np.count_nonzero(x)
        self.sum += float(x.sum(dtype=float))
        self.low, self.high = min(self.low, float(x.min())), max(self.high, float(x.max()))
        x = np.concatenate([self.rest, x])
        whole = len(x) // SPECTRUM * SPECTRUM
        self.rest = x[whole:].copy()
        self._add_frames(x[:whole])

    def _add_frames(self, x: np.ndarray) -> None:
        """(n,), n a multiple of SPECTRUM."""
        powers = np.square(x.reshape(-1, FRAME_SAMPLES), dtype=float).mean(axis=1)
        self.powers.append(powers)
        self.squares += powers.sum() * FRAME_SAMPLES
        frames = x.reshape(-1, SPECTRUM) * np.hanning(SPECTRUM).astype(np.float32)
        self.spectrum += np.square(np.abs(np.fft.rfft(frames))).sum(axis=0)

    def cues(self) -> tuple[float, ...]:
        """Of the whole signal, n ≥ 1 samples, in the order of CUES."""
        self._add_frames(np.pad(self.rest, (0, -len(self.rest) % SPECTRUM)))
        frames = max(1, self.count // FRAME_SAMPLES)  # whole ones; a signal shorter than a frame counts as one
        levels = 10 * np.log10(np.concatenate(self.powers)[:frames] + SILENCE)
        loud = np.flatnonzero(levels >= levels.max() - QUIET)
        frame = FRAME_SAMPLES / SAMPLE_RATE
        hertz = np.fft.rfftfreq(SPECTRUM, 1 / SAMPLE_RATE)
        bands = [self.spectrum[(hertz >= low) & (hertz < high)].sum() for low, high in BANDS]
        numbers = (
            self.count / SAMPLE_RATE,
            loud[0] * frame,
            (frames - 1 - loud[-1]) * frame,
            10 * np.log10(self.squares / self.count + SILENCE),
            20 * np.log10(max(-self.low, self.high) + SILENCE**0.5),
            np.percentile(levels, FLOOR_PERCENTILE),
            *(10 * np.log10((band + SILENCE) / (self.spectrum.sum() + SILENCE)) for band in bands),
            self.sum / self.count * FULL_SCALE,
            self.zeros / self.count,
        )
        return tuple(map(float, numbers))


# ------------------------------------------------------------------------------------------------------ EER of a cue


class CueEER(NamedTuple):
    """How far one cue alone separates the classes: 0.5 = not at all, whichever class has more of it."""

    eer: float
    low: float  # of its 95 % interval
    high: float
    bonafide: float | None  # median, in the unit of CUES
    spoof: float | None

    @property
    def tells(self) -> bool:
        """Whether the cue gives the key away."""
        return self.high < TELLING

    @property
    def percents(self) -> str:
        """EER and interval in percent: 12.3 (8–20)."""
        return f"{100 * self.eer:.1f} ({100 * self.low:.0f}–{100 * self.high:.0f})"


def cue_eers(files: Sequence[tuple[bool, MeasuredFile]]) -> dict[str, CueEER]:
    """Each cue's EER over (is bona fide, file) pairs; none unless there are both classes, no format if all have one."""
    is_bonafide = np.array([label for label, _ in files], bool)
    if is_bonafide.all() or not is_bonafide.any():
        return {}
    values = np.array([file.cues for _, file in files])
    columns = dict(zip(CUES, values.T, strict=True))
    cues = {name: cue_eer(column, is_bonafide) for name, column in columns.items()}
    formats = np.unique([file.format for _, file in files], return_inverse=True)[1]
    if formats.any():  # a format's number is the fraction of bona fide among the files that have it
        fraction = np.bincount(formats, is_bonafide) / np.bincount(formats)
        cues[FORMAT_CUE] = cue_eer(fraction[formats], is_bonafide)._replace(bonafide=None, spoof=None)
    return cues


def cue_eer(values: np.ndarray, is_bonafide: np.ndarray) -> CueEER:
    """values (N,) finite, is_bonafide (N,) bool with both classes.

    Cues have ties, and with ties the official EER depends on the trials' order (it is 0 or 100 % for a constant). Here
    the curve is straight across each tie. The interval is E. B. Wilson's (JASA 22, 1927) for the number of trials that
    both error rates of an EER have together (S. Bengio and J. Mariéthoz, A statistical significance test for person
    authentication, Odyssey 2004): 4 / (1/bona fide + 1/spoof), which is all trials if the classes are of equal size.
    """
    ranking = Ranking(values, is_bonafide)
    frr, far = (rate[ranking.ends] for rate in ranking.rates())
    eer = float(np.interp(0, frr - far, frr))
    eer, bonafide = min(eer, 1 - eer), int(is_bonafide.sum())
    n = 4 / (1 / bonafide + 1 / (len(values) - bonafide))
    centre = (eer + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(eer * (1 - eer) / n + Z**2 / (4 * n**2))
    medians = (float(np.median(values[chosen])) for chosen in (is_bonafide, ~is_bonafide))
    return CueEER(eer, max(0.0, centre - half), min(0.5, centre + half), *medians)
