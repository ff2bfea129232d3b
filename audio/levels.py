"""How loud a waveform is: its power, the powers of its 20 ms frames, how much of it is more than quiet."""

import math

import numpy as np

from audio import SAMPLE_RATE

FRAME_SAMPLES = SAMPLE_RATE // 50  # 20 ms
CANCELS = 0.25  # the channels cancel if the mean's power is below this fraction of what it is for unlike signals
QUIET, FLOOR = 1e-4, 1e-6  # a frame is quiet below QUIET times the loudest frame's power, or below FLOOR of full scale


def power(x: np.ndarray) -> float:
    """The mean square of `x` (n,), n ≥ 1."""
    return float(np.mean(np.square(x, dtype=np.float64)))


def to_power_of(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`y` scaled to the power of `x`; silence stays silence."""
    before = power(y)
    return y * np.float32(math.sqrt(power(x) / before) if before > 0 else 0.0)


def within_full_scale(y: np.ndarray) -> np.ndarray:
    """`y` as float32, scaled down to a peak of 1 if it exceeds that."""
    return (y / max(1.0, np.abs(y).max())).astype(np.float32)


def downmix(block: np.ndarray, piece: int) -> tuple[np.ndarray, int]:
    """The mean (n,) of the channels of `block` (n, C), and for how many samples they cancel.

    In pieces, of `piece` samples, in which they cancel, as those of opposite polarity do, it is the loudest channel.
    """
    channels, cancelled = block.shape[1], 0
    mono = sum(block.T / np.float32(channels))  # 10 times faster than block.mean(axis=1)
    for first in range(0, len(block) if channels > 1 else 0, piece):
        part = block[first : first + piece]
        powers = np.mean(np.square(part, dtype=np.float64), axis=0)
        if powers.max() > FLOOR and power(mono[first : first + piece]) < CANCELS * powers.mean() / channels:
            mono[first : first + piece] = part[:, powers.argmax()]
            cancelled += len(part)
    return mono, cancelled


def frame_powers(samples: np.ndarray) -> np.ndarray:
    """The power of each whole 20 ms frame of `samples` (n,), full scale 1."""
    frames = samples[: len(samples) // FRAME_SAMPLES * FRAME_SAMPLES].reshape(-1, FRAME_SAMPLES)
    return np.mean(np.square(frames, dtype=np.float64), axis=1)


def active_frames(samples: np.ndarray) -> np.ndarray:
    """The indices of the 20 ms frames of `samples` (n,) that are not quiet."""
    powers = frame_powers(samples)
    return np.flatnonzero(powers > max(QUIET * powers.max(initial=0), FLOOR))


class LevelHistogram:
    """Counts 20 ms frames by level, in steps of 0.1 dB from −60 to 60 dBFS. Its size does not grow with the signal."""

    LOWEST, STEP, COUNT = -60.0, 0.1, 1200  # dBFS, dB

    def __init__(self):
        self.counts = np.zeros(self.COUNT, dtype=int)
        self._rest = np.empty(0, np.float32)  # the start of the next frame

    def add(self, samples: np.ndarray) -> None:
        """Count the frames of the signal's next (n,) samples."""
        samples = np.concatenate([self._rest, samples])
        whole = len(samples) // FRAME_SAMPLES * FRAME_SAMPLES
        self._rest = samples[whole:].copy()
        frames = samples[:whole].reshape(-1, FRAME_SAMPLES)
        with np.errstate(divide="ignore", over="ignore"):
            levels = 10 * np.log10(np.vecdot(frames, frames) / FRAME_SAMPLES)
        steps = np.minimum((levels[levels > self.LOWEST] - self.LOWEST) / self.STEP, self.COUNT - 1)
        self.counts += np.bincount(steps.astype(int), minlength=self.COUNT)

    def active_seconds(self) -> float:
        """Seconds louder than −60 dBFS and less than 40 dB below the 10th-loudest frame.

        The 10th, so that a click does not set the reference.
        """
        loudest_first = np.cumsum(self.counts[::-1])
        reference = self.COUNT - 1 - np.searchsorted(loudest_first, 10)  # -1 if there are not 10
        threshold = max(0, reference - round(40 / self.STEP))
        return float(self.counts[threshold:].sum()) * FRAME_SAMPLES / SAMPLE_RATE
