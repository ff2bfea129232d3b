"""Changes of duration: speed, and the silence before and after the speech. Both need the whole utterance."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from audio import SAMPLE_RATE
from audio.filters import resample
from audio.levels import FRAME_SAMPLES
from audio.transforms import Range, Transform


@dataclass(frozen=True)
class Speed(Transform):
    """Faster or slower by resampling, which moves the pitch too (Ko et al., Interspeech 2015, audio augmentation)."""

    name: ClassVar[str] = "speed"
    whole: ClassVar[bool] = True
    ratio: Range = (0.9, 1.1)  # 1.1: 1.1 times as fast, length / 1.1

    def check(self):
        self.require_range("ratio", 0.25, 4)

    def apply(self, x, rng):
        y = resample(x, SAMPLE_RATE * rng.uniform(*self.ratio), SAMPLE_RATE)
        return y if len(y) else x.copy()  # one or two samples may resample to none


@dataclass(frozen=True)
class Silence(Transform):
    """Cuts a random fraction of the silence before and after the speech, or adds some.

    The length of that silence separates the classes of ASVspoof2019 (Müller et al., arXiv 2106.12914); a detector must
    not learn it. Silence means the 20 ms frames at either end that are `threshold` dB or more below the loudest frame.
    Added silence is white noise with the quietest frame's power.
    """

    name: ClassVar[str] = "silence"
    whole: ClassVar[bool] = True
    threshold: float = 40.0  # dB
    cut: Range = (0.0, 1.0)  # fraction, drawn for each end
    added: Range = (0.0, 0.0)  # s, drawn for each end

    def check(self):
        self.require(0 < self.threshold <= 200, "threshold", "above 0 dB, at most 200")
        self.require_range("cut", 0, 1)
        self.require_range("added", 0, 60)

    def apply(self, x, rng):
        starts = np.arange(0, len(x), FRAME_SAMPLES)
        powers = np.add.reduceat(np.square(x, dtype=np.float64), starts) / np.diff(starts, append=len(x))
        loud = np.flatnonzero(powers * 10 ** (self.threshold / 10) > powers.max())
        first, last = (starts[loud[0]], min(starts[loud[-1]] + FRAME_SAMPLES, len(x))) if len(loud) else (0, len(x))
        before, behind = rng.uniform(*self.cut, 2)
        kept = x[round(before * first) : len(x) - round(behind * (len(x) - last))]
        counts = (SAMPLE_RATE * rng.uniform(*self.added, 2)).astype(int)
        noise = [np.float32(math.sqrt(powers.min())) * rng.standard_normal(count, np.float32) for count in counts]
        return np.concatenate([noise[0], kept, noise[1]])
