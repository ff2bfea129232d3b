"""Augmentation of training waveforms: transforms by name, in the order in which a `.conf` lists them.

    augmentation: [{name: rawboost, combination: lnl+isd}, {name: codec, probability: 0.3, formats: [mp3, opus]}]

Each is applied to the fraction `probability` of the utterances; docs/augmentation.md has every name and parameter. A
waveform is (n,) float32 at 16 kHz with full scale 1. The result is finite, keeps its level unless the transform says
otherwise, and may exceed full scale. The same generator state gives the same bits. gallery.py draws examples.
"""

import difflib
from dataclasses import dataclass

import numpy as np

from audio.amplitude import Clipping, Gain, Offset, Polarity
from audio.codecs import Codec
from audio.duration import Silence, Speed
from audio.filters import Band
from audio.masks import FrequencyMask, TimeMask
from audio.noise import Noise
from audio.rawboost import RawBoost
from audio.rooms import Room
from audio.transforms import Transform
from common.errors import UserError
from common.schema import parse

_ALL = (RawBoost, Codec, Band, Noise, Room, Speed, Silence, Gain, Polarity, Offset, Clipping, TimeMask, FrequencyMask)
TRANSFORMS = {transform.name: transform for transform in _ALL}


@dataclass(frozen=True)
class Augmentation:
    """Transforms in order; those that need the whole utterance run before it is cropped, wherever they are listed."""

    transforms: tuple[Transform, ...] = ()

    def whole(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A whole utterance (n,) float32, n ≥ 1, → a new one (m,), m ≥ 1. Raises UserError on an unreadable file."""
        return self._apply(x, rng, whole=True)

    def crop(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A training crop (n,) float32, n ≥ 1, → a new one (n,). Raises UserError on an unreadable file."""
        return self._apply(x, rng, whole=False)

    def _apply(self, x: np.ndarray, rng: np.random.Generator, whole: bool) -> np.ndarray:
        x = np.array(x, np.float32)
        for transform in self.transforms:
            if transform.whole == whole and rng.random() < transform.probability:
                x = transform.apply(x, rng)
        return x


def build_augmentation(specs: list[dict]) -> Augmentation:
    """The transforms of a list of mappings, each with a `name` and parameters.

    Raises UserError for unknown names and parameters, bad values, and an encoder or folder that is not there.
    """
    if not isinstance(specs, list | tuple):
        raise UserError("bad value of 'augmentation'", "a list of mappings, each with a name", repr(specs))
    return Augmentation(tuple(_build_transform(spec) for spec in specs))


def _build_transform(spec: object) -> Transform:
    if not isinstance(spec, dict) or "name" not in spec:
        raise UserError("bad value in 'augmentation'", "a mapping with a name, {name: rawboost}", repr(spec))
    name = str(spec["name"])
    if name not in TRANSFORMS:
        near = difflib.get_close_matches(name, TRANSFORMS, n=1, cutoff=0.5)
        nearest = f"'{near[0]}' or another of " if near else "one of "
        raise UserError("unknown augmentation", nearest + ", ".join(TRANSFORMS), repr(name))
    return parse(TRANSFORMS[name], {key: value for key, value in spec.items() if key != "name"}, f"{name}.")
