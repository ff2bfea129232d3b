"""Masks on the waveform: spans of time or bands of frequency are silenced (SpecAugment, Park et al., 2019)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from audio import SAMPLE_RATE
from audio.filters import filter_zero_phase
from audio.transforms import NYQUIST, Range, Transform

FADE_SAMPLES = SAMPLE_RATE // 500  # 2 ms: edges that make no click
FADE_HERTZ = 50


@dataclass(frozen=True)
class TimeMask(Transform):
    """Spans of silence with edges of 2 ms: SpecAugment's time masks (arXiv 1904.08779) on the waveform."""

    name: ClassVar[str] = "time_mask"
    count: int = 2
    seconds: Range = (0.0, 0.3)  # of each

    def check(self):
        self.require(1 <= self.count <= 100, "count", "1 … 100")
        self.require_range("seconds", 0)

    def apply(self, x, rng):
        time, y = np.arange(len(x)), x
        for width in np.minimum(rng.uniform(*self.seconds, self.count) * SAMPLE_RATE, len(x)):
            start = rng.uniform(0, len(x) - width)
            outside = np.maximum(start - time, time - (start + width))
            y = y * np.clip(outside / FADE_SAMPLES, 0, 1).astype(np.float32)
        return y


@dataclass(frozen=True)
class FrequencyMask(Transform):
    """Silent bands with edges of 50 Hz: SpecAugment's frequency masks (arXiv 1904.08779) on the waveform."""

    name: ClassVar[str] = "frequency_mask"
    count: int = 2
    hertz: Range = (0.0, 1000.0)  # width of each

    def check(self):
        self.require(1 <= self.count <= 100, "count", "1 … 100")
        self.require_range("hertz", 0, NYQUIST)

    def apply(self, x, rng):
        widths = rng.uniform(*self.hertz, self.count)
        starts = rng.uniform(0, NYQUIST - widths)

        def response(f):
            outside = np.maximum(starts[:, None] - f, f - (starts + widths)[:, None])
            return np.clip(outside / FADE_HERTZ, 0, 1).prod(axis=0)

        return filter_zero_phase(x, response)
