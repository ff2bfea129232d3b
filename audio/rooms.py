"""Reverberation: impulse responses of rooms, recorded or synthetic."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from audio import SAMPLE_RATE
from audio.filters import convolve
from audio.levels import to_power_of
from audio.transforms import FolderTransform, Range


@dataclass(frozen=True)
class Room(FolderTransform):
    """Reverberation; the direct sound is not delayed, and the output has the input's power.

    With `folder`, recorded impulse responses (Ko et al., ICASSP 2017, doi 10.1109/ICASSP.2017.7953152), each from its
    highest peak on; else synthetic ones by Polack's model (1988): Gaussian noise that decays exponentially by 60 dB in
    `rt60` and starts 1 to 10 ms after the direct sound. Raises UserError for a file that cannot be read.
    """

    name: ClassVar[str] = "room"
    rt60: Range = (0.15, 0.9)  # s
    drr: Range = (-5.0, 15.0)  # dB, energy of the direct sound over that of the reverberation

    def check(self):
        self.require_range("rt60", 0.01, 10)
        self.require_range("drr", -100, 100)
        super().check()

    def apply(self, x, rng):
        if self.folder is not None:
            response = self.draw(rng)
            response = response[np.abs(response).argmax() :]
        else:
            response = impulse_response(rng, rng.uniform(*self.rt60), rng.uniform(*self.drr))
        return to_power_of(x, convolve(x, response[: len(x)]))


def impulse_response(rng: np.random.Generator, rt60: float, drr: float) -> np.ndarray:
    """(n,) float32: 1 for the direct sound, then a tail that has fallen by 60 dB `rt60` seconds after its start."""
    gap = int(SAMPLE_RATE * rng.uniform(0.001, 0.010))
    time = np.arange(max(1, round(rt60 * SAMPLE_RATE))) / SAMPLE_RATE
    tail = rng.standard_normal(len(time)) * 10 ** (-3 * time / rt60)
    tail *= math.sqrt(10 ** (-drr / 10) / np.vecdot(tail, tail))
    return np.concatenate([[1.0], np.zeros(gap), tail]).astype(np.float32)
