"""The samples of a partition's trials: decoded from the audio files each time, or once and kept in packs."""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from audio import reading
from audio.vocoders import vocode
from corpora.packed import FULL_SCALE, Pack, to_int16
from corpora.trials import Partition

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Waveforms:
    """`waveforms[i]` is the whole utterance of trial i: (n,) at 16 kHz, int16 from a pack or a vocoder, else float32.

    pack: of the trials with a file. copies: of the vocoded copies, which are the last trials. on_device: the samples of
    `pack`, (N,) int16, on a GPU that cuts crops from them. Raises UserError for a file that cannot be read.
    """

    partition: Partition
    pack: Pack | None = None
    copies: Pack | None = None
    on_device: "Tensor | None" = None

    def __len__(self) -> int:
        return len(self.partition.trials)

    def __getitem__(self, index: int) -> np.ndarray:
        partition = self.partition
        utt_id, copy = partition.trials[index].utt_id, index - (len(partition.trials) - len(partition.copies))
        if copy < 0:
            return reading.read(partition.files[utt_id]) if self.pack is None else self.pack[index]
        return copy_int16(utt_id, partition.copies[utt_id])[0] if self.copies is None else self.copies[copy]


def copy_int16(utt_id: str, file: Path) -> tuple[np.ndarray, bool]:
    """A vocoded copy as `packed.load` stores it: (n,) int16, by the vocoder that its utt_id ends in."""
    rng = np.random.default_rng(zlib.crc32(utt_id.encode()))
    return to_int16(vocode(utt_id.rpartition("~")[2], reading.read(file), rng) * FULL_SCALE), True
