"""Where speech is in a recording, and how wide its band is: Silero's voice activity detector, computed in NumPy.

The weights are those of silero-vad 6.2.3 (MIT licence, weights/README.md). The package itself needs torch and
torchaudio, or ONNX Runtime; the network is small, so it is computed here: magnitudes of a short-time spectrum, four
convolutions, one LSTM, one probability for each 32 ms.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from audio import SAMPLE_RATE

WEIGHTS = Path(__file__).parent / "weights" / "silero_vad.safetensors"
FRAME, CONTEXT = 512, 64  # samples: of a frame, and of the one before that the network hears with it
FRAME_SECONDS = FRAME / SAMPLE_RATE
WINDOW, HOP, BINS = 256, 128, 129  # of the short-time spectrum
STRIDES = (1, 2, 2, 1)  # of the convolutions
TOGETHER = 500  # frames at once
SPEECH, NO_SPEECH = 0.5, 0.35  # speech begins at the one probability, and ends below the other (Silero's usual values)
PAUSE_SECONDS, LEAST_SECONDS = 0.1, 0.25  # a shorter pause ends nothing; shorter speech is none
# The network knows speech of usual levels only: quieter sound is raised, by at most `MOST_GAIN`, to this RMS of its
# loudest frame, whose memory fades.
LOUD, MOST_GAIN, FADE = 0.1, 100.0, 10 ** (-6 / 20 * FRAME_SECONDS / 5)  # 6 dB in 5 s
HIGH_BIN = 136  # of a frame's spectrum: 4250 Hz
HANN = np.hanning(FRAME + 1)[:-1].astype(np.float32)
LEVELS = np.arange(-150.0, 60.0)  # dB: the edges of histograms of a frame's power
LOUDEST = 0.95  # the loudest frames: one in twenty


@cache
def weights() -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return {name: values.astype(np.float32) for name, values in load_file(WEIGHTS).items()}


class SpeechDetector:
    """Finds speech in a signal that comes in blocks; its memory does not grow with silence.

    spans: start and end (s) of what was spoken so far.
    """

    def __init__(self):
        self.weights = weights()
        self.spans: list[tuple[float, float]] = []
        self._powers = np.zeros((2, len(LEVELS) + 1), int)  # frames of speech by their power: above 4.25 kHz, and all
        self._rest = np.empty(0, np.float32)  # the start of the next frame
        self._context = np.zeros(CONTEXT, np.float32)
        self._hidden = self._cell = np.zeros(128, np.float32)
        self._level, self._frames = 0.0, 0
        self._begin: int | None = None  # the frame in which the present speech began
        self._last = 0  # the last frame of it that is no pause

    def add(self, samples: np.ndarray) -> None:
        """Listen to the signal's next (n,) samples."""
        samples = np.concatenate([self._rest, samples])
        whole = len(samples) // FRAME * FRAME
        self._rest = samples[whole:].copy()
        frames = samples[:whole].reshape(-1, FRAME)
        for first in range(0, len(frames), TOGETHER):
            self._listen(frames[first : first + TOGETHER])

    def end(self) -> None:
        """The signal is over: what is left of it is a frame, and speech ends."""
        if len(self._rest):
            self.add(np.zeros(FRAME - len(self._rest), np.float32))
        self._close()

    def seconds(self, start: float = 0.0, end: float = np.inf) -> float:
        """The seconds of speech between two times, the present one included."""
        now = [] if self._begin is None else [self._span(self._begin, self._last)]
        return sum(max(0.0, min(b, end) - max(a, start)) for a, b in (*self.spans, *now))

    def forget(self, before: float) -> None:
        """Drop the spans that end before a time (s): a stream never ends."""
        self.spans = [span for span in self.spans if span[1] >= before]

    def high_band(self) -> float | None:
        """The power above 4.25 kHz of the frames that have the most of it, in dB of all power of the loudest frames.

        None without any speech.
        """
        count = self._powers[0].sum()
        high, all_of_it = (np.searchsorted(np.cumsum(counts), LOUDEST * count) for counts in self._powers)
        return float(high - all_of_it) if count else None

    def _listen(self, frames: np.ndarray) -> None:
        """Frames (N, 512) → spans and powers."""
        probabilities = self._probabilities(self._magnitudes(frames))
        self._measure(frames[probabilities >= SPEECH])
        for number, probability in enumerate(probabilities.tolist(), self._frames):
            if probability >= SPEECH or (self._begin is not None and probability >= NO_SPEECH):
                self._begin = number if self._begin is None else self._begin
                self._last = number
            elif self._begin is not None and (number - self._last) * FRAME_SECONDS > PAUSE_SECONDS:
                self._close()
        self._frames += len(frames)

    def _measure(self, frames: np.ndarray) -> None:
        """Count frames (N, 512) of speech by their power; LEVELS has steps of 1 dB."""
        power = np.square(np.abs(np.fft.rfft(frames * HANN)))
        for counts, part in zip(self._powers, (power[:, HIGH_BIN:], power), strict=True):
            steps = np.searchsorted(LEVELS, 10 * np.log10(part.sum(axis=1) + 1e-20))
            counts += np.bincount(steps, minlength=len(counts))

    def _close(self) -> None:
        if self._begin is not None:
            start, end = self._span(self._begin, self._last)
            if end - start >= LEAST_SECONDS:
                self.spans.append((start, end))
        self._begin = None

    @staticmethod
    def _span(first: int, last: int) -> tuple[float, float]:
        return first * FRAME_SECONDS, (last + 1) * FRAME_SECONDS

    def _magnitudes(self, frames: np.ndarray) -> np.ndarray:
        """The short-time spectra (N, 4, 129) of frames (N, 512), each with its context, at a usual level."""
        contexts = np.vstack([self._context, frames[:-1, -CONTEXT:]])
        self._context = frames[-1, -CONTEXT:].copy()
        sound = np.hstack([contexts, frames]) * self._gains(frames)[:, None]
        sound = np.pad(sound, ((0, 0), (0, CONTEXT)), mode="reflect")
        windows = np.lib.stride_tricks.sliding_window_view(sound, WINDOW, axis=1)[:, ::HOP]
        parts = windows @ self.weights["stft.weight"].T
        return np.hypot(parts[..., :BINS], parts[..., BINS:])

    def _gains(self, frames: np.ndarray) -> np.ndarray:
        """What raises each frame to a usual level: the loudest so far counts, the older the less."""
        rms = np.sqrt(np.mean(np.square(frames), axis=1)) + 1e-9
        age = np.log(FADE) * np.arange(1, len(frames) + 1)
        log_levels = np.maximum.accumulate(np.maximum(np.log(rms) - age, np.log(self._level + 1e-9))) + age
        self._level = float(np.exp(log_levels[-1]))
        return np.clip(LOUD / np.exp(log_levels), 1.0, MOST_GAIN).astype(np.float32)

    def _probabilities(self, spectra: np.ndarray) -> np.ndarray:
        """Spectra (N, 4, 129) → probabilities (N,) of speech."""
        for number, stride in enumerate(STRIDES):
            spectra = self._convolve(spectra, f"encoder.{number}", stride)
        inputs = spectra[:, 0] @ self.weights["lstm.input.weight"].T + self.weights["lstm.bias"]
        hidden = np.stack(list(self._lstm(inputs)))
        return _sigmoid(np.maximum(hidden, 0) @ self.weights["output.weight"] + self.weights["output.bias"])

    def _convolve(self, x: np.ndarray, name: str, stride: int) -> np.ndarray:
        """(N, T, C) → (N, T', C'): kernels of 3 over T, then ReLU."""
        kernels = self.weights[f"{name}.weight"]
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (1, 1), (0, 0))), 3, axis=1)[:, ::stride]
        rows = windows.reshape(*windows.shape[:2], -1)
        return np.maximum(0, rows @ kernels.reshape(len(kernels), -1).T + self.weights[f"{name}.bias"])

    def _lstm(self, inputs: np.ndarray) -> Iterator[np.ndarray]:
        """Inputs (N, 512) of the gates → hidden states (128,), one after another."""
        recurrent = self.weights["lstm.hidden.weight"]
        for row in inputs:
            gates = row + recurrent @ self._hidden
            opened = _sigmoid(gates)
            self._cell = opened[128:256] * self._cell + opened[:128] * np.tanh(gates[256:384])
            self._hidden = opened[384:] * np.tanh(self._cell)
            yield self._hidden


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(0.5 * x)
