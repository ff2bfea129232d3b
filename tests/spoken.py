"""Speech for tests: nonsense of the demo corpus' talker, which the voice activity detector takes for speech."""

from functools import cache

import numpy as np

from audio import SAMPLE_RATE
from audio.talker import draw_talker, speak


@cache
def spoken(seconds: float, seed: int = 0) -> np.ndarray:
    """(N,) float32 at 16 kHz, with a peak of 0.3."""
    rng = np.random.default_rng(seed)
    wave = np.asarray(speak(draw_talker(rng), max(seconds, 0.5), rng).wave, np.float32)[: round(seconds * SAMPLE_RATE)]
    return wave * np.float32(0.3 / np.abs(wave).max())
