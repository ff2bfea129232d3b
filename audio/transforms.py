"""The base of all waveform transforms: name, probability, checks of parameters, files drawn from a folder.

The transforms are in rawboost.py, codecs.py, filters.py, noise.py, rooms.py, masks.py, amplitude.py and duration.py;
augmentation.py lists them by name and applies them.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from audio import SAMPLE_RATE, reading
from audio.search import search
from common.schema import require

NYQUIST = SAMPLE_RATE / 2
Range = tuple[float, float]  # lowest, highest: a value is drawn uniformly from it for each utterance


@dataclass(frozen=True)
class Transform:
    """A change of a waveform. A subclass adds its parameters, `check` for them, and `apply`."""

    name: ClassVar[str]
    whole: ClassVar[bool] = False  # True: needs the whole utterance, and may change its length
    probability: float = 1.0  # fraction of the utterances that it is applied to

    def __post_init__(self):
        self.require(0 <= self.probability <= 1, "probability", "0 … 1")
        self.check()

    def check(self) -> None:
        """Raise UserError on a bad value."""

    def apply(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(n,) float32, n ≥ 1, → a new array, (n,) unless `whole`."""
        raise NotImplementedError

    def require(self, holds: bool, key: str, expected: str) -> None:
        """Raise UserError about the value of `key` unless it `holds`."""
        require(holds, f"{self.name}.{key}", expected, getattr(self, key))

    def require_range(self, key: str, least: float = -math.inf, most: float = math.inf) -> None:
        """Raise UserError unless `key` is [lowest, highest] with both between `least` and `most`."""
        low, high = getattr(self, key)
        ends = [f"{word} {end:g}" for word, end in (("from", least), ("up to", most)) if math.isfinite(end)]
        self.require(least <= low <= high <= most, key, " ".join(["[lowest, highest]", *ends]))


@dataclass(frozen=True)
class FolderTransform(Transform):
    """A transform that draws files from a folder, if one is given."""

    folder: str | None = None  # of audio files, subfolders included; null: synthetic sound instead

    def check(self):
        if self.folder is not None:
            require(bool(self.files), f"{self.name}.folder", "a folder with audio files", self.folder)

    @cached_property
    def files(self) -> list[Path]:
        """The folder's audio files, sorted by path."""
        return sorted(map(Path, search(self.folder).files))

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """The samples (n,) of one of the files. Raises UserError when it cannot be read."""
        return reading.read(self.files[rng.integers(len(self.files))])
