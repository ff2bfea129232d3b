"""Audio in, chunks out: any file becomes mono float32 at 16 kHz, then fixed lengths that a model takes.

soundfile reads first; PyAV (FFmpeg) reads what libsndfile cannot, m4a and some genuine flac files among them.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cli import UserError

SAMPLE_RATE = 16_000  # Hz
CHUNK_SAMPLES = 64_600  # 4.0375 s, the length that published scores are made with
MAX_SECONDS = 3600.0  # longer files are refused: an hour is 230 MB of float32
BLOCK_SECONDS = 10.0
LOSSY_EDGE_SECONDS = 0.1  # encoder delay and padding make a lossy stream's announced length inexact


class _Decoded(NamedTuple):
    """Mono samples (N,) float32 at `rate` Hz; `announced` samples by the header (None: not said), exact or not."""

    samples: np.ndarray
    rate: int
    announced: int | None
    exact: bool


def read(path: str | os.PathLike, max_seconds: float = MAX_SECONDS) -> np.ndarray:
    """The whole file as mono (mean of channels) float32 (N,) at 16 kHz, full scale 1.

    Raises UserError when the file is missing, has no audio, is empty, truncated, longer than `max_seconds` or holds
    NaN or infinite samples.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"cannot read audio {path}", "a file", "a folder" if path.is_dir() else "nothing there")
    decoded = _decode(path, max_seconds)
    found = len(decoded.samples)
    if found == 0:
        raise UserError(f"audio {path} is empty or no audio", "at least one sample", 0)
    tolerance = 0 if decoded.exact else LOSSY_EDGE_SECONDS * decoded.rate
    if decoded.announced is not None and found < decoded.announced - tolerance:
        raise UserError(f"audio {path} is truncated", f"{decoded.announced} samples by its header", found)
    if not np.isfinite(decoded.samples).all():
        raise UserError(f"audio {path} is damaged", "finite samples", "NaN or infinity")
    if decoded.rate == SAMPLE_RATE:
        return decoded.samples
    import soxr

    return soxr.resample(decoded.samples, decoded.rate, SAMPLE_RATE, quality="HQ")


def _decode(path: Path, max_seconds: float) -> _Decoded:
    """Decode by soundfile, or from the start by PyAV where libsndfile fails or comes up short."""
    import soundfile

    announced = None
    try:
        decoded = _decode_soundfile(path, max_seconds)
        if decoded.announced is None or len(decoded.samples) >= decoded.announced:
            return decoded
        announced = decoded.announced  # FFmpeg plays a truncated file's beginning and does not say so
    except soundfile.LibsndfileError:
        pass
    decoded = _decode_av(path, max_seconds)
    return decoded._replace(announced=decoded.announced if announced is None else announced)


def _decode_soundfile(path: Path, max_seconds: float) -> _Decoded:
    import soundfile

    with soundfile.SoundFile(path) as file:
        blocks = file.blocks(int(BLOCK_SECONDS * file.samplerate), dtype="float32", always_2d=True)
        samples = _join((block.mean(axis=1) for block in blocks), path, file.samplerate, max_seconds)
        announced = file.frames if file.frames < 2**62 else None  # libsndfile's "unknown" is 2**63 - 1
        return _Decoded(samples, file.samplerate, announced, exact=file.format != "MP3")


def _decode_av(path: Path, max_seconds: float) -> _Decoded:
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise UserError(f"cannot read audio {path}", "an audio stream", "none")
            stream = container.streams.audio[0]
            rate = stream.rate
            seconds = float(stream.duration * stream.time_base) if stream.duration else None
            samples = _join(_av_frames(container, stream), path, rate, max_seconds)
            announced = None if seconds is None else round(seconds * rate)
            return _Decoded(samples, rate, announced, exact=stream.codec_context.name == "flac")
    except (av.FFmpegError, ValueError) as error:
        raise UserError(f"cannot read audio {path}", "a file that soundfile or PyAV decodes", error) from error


def _av_frames(container, stream) -> Iterator[np.ndarray]:
    """Mono frames of `stream`, packet by packet, so that one bad packet loses only itself."""
    import av

    to_float = av.AudioResampler(format="fltp")
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.FFmpegError:
            continue
        for frame in frames:
            for converted in to_float.resample(frame):
                yield converted.to_ndarray().mean(axis=0)
    for converted in to_float.resample(None):
        yield converted.to_ndarray().mean(axis=0)


def _join(blocks: Iterator[np.ndarray], path: Path, rate: int, max_seconds: float) -> np.ndarray:
    """Concatenate, but stop at `max_seconds`: a small file may decode to days."""
    kept, total = [np.empty(0, np.float32)], 0
    for block in blocks:
        kept.append(block)
        total += len(block)
        if total > max_seconds * rate:
            raise UserError(f"audio {path} is too long", f"at most {max_seconds:g} s", "more")
    return np.concatenate(kept)


def fit(samples: np.ndarray, length: int, rng: np.random.Generator | None = None) -> np.ndarray:
    """Exactly `length` samples of (N,), N ≥ 1: shorter audio is repeated, never zero-padded.

    Of longer audio the first `length`, as published scores are made; with `rng` a random crop, as in training.
    """
    if len(samples) < length:
        samples = np.tile(samples, -(-length // len(samples)))[:length]
    first = 0 if rng is None else int(rng.integers(len(samples) - length + 1))
    return samples[first : first + length]


def chunks(samples: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """(N,) → chunks (C, length) side by side and their first samples (C,); the last chunk ends where the audio ends."""
    if len(samples) <= length:
        return fit(samples, length)[None], np.zeros(1, dtype=int)
    starts = np.arange(0, len(samples) - length + 1, length)
    if starts[-1] + length < len(samples):
        starts = np.append(starts, len(samples) - length)
    return np.stack([samples[start : start + length] for start in starts]), starts
