"""Files of speech that several benchmarks make: the page's example, with noise of its own in each."""

from pathlib import Path

import numpy as np
import soundfile

CLIPS = Path(__file__).parents[1] / "webpage" / "example_clips"
SAMPLES = 64_600


def speech(seed: int, samples: int = SAMPLES) -> np.ndarray:
    """(samples,) of speech, with noise of its own: noise alone has no score."""
    clip, rng = soundfile.read(CLIPS / "genuine_sonnet.flac")[0], np.random.default_rng(seed)
    noisy = np.resize(clip, samples) + 0.02 * rng.uniform() * rng.standard_normal(samples)
    return noisy / np.abs(noisy).max()


def make_files(folder: Path, count: int, ending: str = "flac") -> list[Path]:
    """Write so many files of one chunk of speech."""
    files = [folder / f"{number:04}.{ending}" for number in range(count)]
    for number, file in enumerate(files):
        soundfile.write(file, speech(number), 16_000)
    return files
