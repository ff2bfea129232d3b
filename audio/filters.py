"""Filters without delay, convolution, resampling; and `band`, the transform that limits an utterance's band."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy import fft

from audio import SAMPLE_RATE
from audio.transforms import NYQUIST, Range, Transform

PADDING = 4096  # zeros behind a signal that is filtered: both tails of a zero-phase response end in them


def fast_length(count: int) -> int:
    """The smallest length ≥ `count` that is 1, 3, 5, 9 or 15 times a power of two, which an FFT transforms fast."""
    return min(odd << max(0, math.ceil(math.log2(count / odd))) for odd in (1, 3, 5, 9, 15))


def filter_zero_phase(x: np.ndarray, response: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """`x` (n,) through the zero-phase filter with the gains `response(frequencies in Hz)`."""
    size = fast_length(len(x) + PADDING)
    gains = response(fft.rfftfreq(size, 1 / SAMPLE_RATE)).astype(np.float32)
    return fft.irfft(fft.rfft(x, size) * gains, size)[: len(x)]


def convolve(x: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """The first (n,) samples of `x` (n,) convolved with `taps`."""
    size = fast_length(len(x) + len(taps) - 1)
    return fft.irfft(fft.rfft(x, size) * fft.rfft(taps.astype(np.float32), size), size)[: len(x)]


def butterworth_gains(f: np.ndarray, low: float | None, high: float | None, order: int) -> np.ndarray:
    """Gains at `f` Hz that pass `low` to `high` Hz (None: no limit): −3 dB there, then −6 dB an octave per order."""
    gains = np.ones_like(f)
    with np.errstate(divide="ignore"):
        if low is not None:
            gains /= np.sqrt(1 + (low / f) ** (2 * order))
        if high is not None:
            gains /= np.sqrt(1 + (f / high) ** (2 * order))
    return gains


def resample(x: np.ndarray, rate: float, new_rate: float) -> np.ndarray:
    """(n,) samples at `rate` Hz → (m,) at `new_rate` Hz."""
    import soxr

    return x if rate == new_rate else soxr.resample(x, rate, new_rate)


@dataclass(frozen=True)
class Band(Transform):
    """Band limit: attenuates frequencies below one drawn limit and above another, by 6 dB an octave per order.

    Microphones, loudspeakers and resamplers do this, and a detector must not rely on the bands that they remove (Cohen
    et al., arXiv 2110.10491). Zero phase; the level falls by what is cut off.
    """

    name: ClassVar[str] = "band"
    lowest: Range | None = (20.0, 500.0)  # Hz, 3 dB down; null: no limit
    highest: Range | None = (2500.0, 7500.0)  # Hz
    order: tuple[int, int] = (2, 8)

    def check(self):
        self.require(self.lowest is not None or self.highest is not None, "highest", "a limit here or in 'lowest'")
        for key in ("lowest", "highest"):
            if getattr(self, key) is not None:
                self.require_range(key, 1, NYQUIST)
        self.require_range("order", 1, 20)

    def apply(self, x, rng):
        low, high = (limit and rng.uniform(*limit) for limit in (self.lowest, self.highest))
        order = int(rng.integers(*self.order, endpoint=True))
        return filter_zero_phase(x, lambda f: butterworth_gains(f, low, high, order))
