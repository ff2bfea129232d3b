"""Changes of amplitude: gain, polarity, DC offset, clipping."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from audio.transforms import Range, Transform


@dataclass(frozen=True)
class Gain(Transform):
    """Louder or quieter."""

    name: ClassVar[str] = "gain"
    decibels: Range = (-12.0, 6.0)

    def check(self):
        self.require_range("decibels", -100, 100)

    def apply(self, x, rng):
        return x * np.float32(10 ** (rng.uniform(*self.decibels) / 20))


@dataclass(frozen=True)
class Polarity(Transform):
    """The waveform upside down, as some microphones and lines make it. It is inaudible."""

    name: ClassVar[str] = "polarity"
    probability: float = 0.5

    def apply(self, x, rng):
        return -x


@dataclass(frozen=True)
class Offset(Transform):
    """Replaces the DC offset. Sound cards and vocoders leave one that may differ between a corpus's classes, although
    it says nothing about the speech.
    """

    name: ClassVar[str] = "offset"
    level: Range = (-0.001, 0.001)  # of full scale: the crop's mean

    def check(self):
        self.require_range("level", -1, 1)

    def apply(self, x, rng):
        return x - x.mean(dtype=np.float64).astype(np.float32) + np.float32(rng.uniform(*self.level))


@dataclass(frozen=True)
class Clipping(Transform):
    """Overload: clips the drawn fraction of the samples that are loudest to the level of the next loudest."""

    name: ClassVar[str] = "clipping"
    share: Range = (0.0, 0.05)  # fraction of the samples

    def check(self):
        self.require_range("share", 0, 1)

    def apply(self, x, rng):
        limit = np.quantile(np.abs(x), 1 - rng.uniform(*self.share))
        return np.clip(x, -limit, limit)
