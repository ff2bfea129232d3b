"""A waveform → the fixed lengths that a model takes."""

import numpy as np

CHUNK_SAMPLES = 64_600  # 4.0375 s, the length that published scores are made with


def fit(samples: np.ndarray, length: int, rng: np.random.Generator | None = None) -> np.ndarray:
    """Exactly `length` samples of (N,), N ≥ 1: shorter audio is repeated, never zero-padded.

    Longer audio is cut to its first `length` samples, as for published scores, or with `rng` to a random crop, as in
    training.
    """
    if len(samples) < length:
        samples = np.tile(samples, -(-length // len(samples)))[:length]
    first = 0 if rng is None else int(rng.integers(len(samples) - length + 1))
    return samples[first : first + length]


class Chunker:
    """Cuts a signal that arrives in pieces into chunks (C, length) that start `hop` samples apart.

    The last chunk ends where the signal ends. Fewer than `length + hop` samples are kept between calls.
    """

    def __init__(self, length: int, hop: int):
        self.length, self.hop = length, hop
        self._pieces: list[np.ndarray] = []  # the signal from the last chunk's start on
        self._held = 0  # samples in them
        self._first = 0  # index of their first sample in the signal
        self._next = 0  # the next chunk's start in them: 0 before the first chunk, then `hop`

    def feed(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The next (n,) samples → the chunks (C, length) that they complete and their starts (C,); C may be 0."""
        self._pieces.append(np.array(samples))  # a copy: the caller's buffer may be used again
        self._held += len(samples)
        offsets = np.arange(self._next, self._held - self.length + 1, self.hop)
        if len(offsets) == 0:
            return np.empty((0, self.length), self._pieces[0].dtype), offsets
        signal = np.concatenate(self._pieces)
        chunks = np.lib.stride_tricks.sliding_window_view(signal, self.length)[offsets]
        starts = self._first + offsets
        self._pieces = [signal[offsets[-1] :].copy()]
        self._held, self._first, self._next = len(self._pieces[0]), int(starts[-1]), self.hop
        return chunks, starts

    def end(self) -> tuple[np.ndarray, np.ndarray]:
        """The last chunk (1, length), which ends with the signal, and its start; (0, length) if the previous one did.

        A signal shorter than `length` is repeated (`fit`); an empty one gives no chunk.
        """
        signal = np.concatenate(self._pieces or [np.empty(0, np.float32)])
        if len(signal) in (0, self.length):
            return np.empty((0, self.length), signal.dtype), np.empty(0, dtype=int)
        start = max(0, self._first + len(signal) - self.length)
        return fit(signal[-self.length :], self.length)[None], np.array([start])


def chunks(samples: np.ndarray, length: int, hop: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(N,) → all chunks (C, length) of a `Chunker` and their starts (C,) in samples; adjacent unless `hop` is given."""
    chunker = Chunker(length, hop or length)
    found, starts = zip(chunker.feed(samples), chunker.end(), strict=True)
    return np.concatenate(found), np.concatenate(starts)
