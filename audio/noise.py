"""Added noise: recordings from a folder, or synthetic white, pink and brown noise."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from audio.chunks import fit
from audio.filters import filter_zero_phase
from audio.levels import power
from audio.transforms import FolderTransform, Range

EXPONENTS = {"white": 0.0, "pink": 1.0, "brown": 2.0}  # power falls as frequency to this power


@dataclass(frozen=True)
class Noise(FolderTransform):
    """Noise at a drawn signal-to-noise ratio of powers over the whole crop; the speech keeps its level.

    With `folder`, such as MUSAN (Snyder et al., arXiv 1510.08484), a random passage of one of its files, repeated if
    it is too short; else synthetic noise of one of `colours`. Raises UserError for a file that cannot be read.
    """

    name: ClassVar[str] = "noise"
    snr: Range = (5.0, 30.0)  # dB
    colours: tuple[Literal["white", "pink", "brown"], ...] = ("white", "pink", "brown")

    def check(self):
        self.require_range("snr", -100, 100)
        self.require(bool(self.colours), "colours", "at least one")
        super().check()

    def apply(self, x, rng):
        if self.folder is not None:
            noise = fit(self.draw(rng), len(x), rng)
        else:
            noise = coloured_noise(rng, len(x), EXPONENTS[self.colours[rng.integers(len(self.colours))]])
        return add_noise(x, noise, rng.uniform(*self.snr))


def add_noise(x: np.ndarray, noise: np.ndarray, snr: float) -> np.ndarray:
    """`x` + `noise`, scaled so that the ratio of their powers over all samples is `snr` dB; silence stays silence."""
    noise_power = power(noise)
    scale = math.sqrt(power(x) / noise_power / 10 ** (snr / 10)) if noise_power > 0 else 0.0
    return x + np.float32(scale) * noise


def coloured_noise(rng: np.random.Generator, count: int, exponent: float) -> np.ndarray:
    """(count,) Gaussian noise whose power density falls as f^−exponent, and is flat below 20 Hz."""
    return filter_zero_phase(rng.standard_normal(count, np.float32), lambda f: np.maximum(f, 20) ** (-exponent / 2))
