"""Audio in, chunks out: any file becomes mono float32 at 16 kHz, then fixed lengths that a model takes.

soundfile reads first; PyAV (FFmpeg) reads what libsndfile cannot, m4a and some genuine flac files among them. A file
comes in blocks, so that its length costs no memory, and what was noticed on the way is in the recording's `facts`.
"""

import os
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import numpy as np

from audio import SAMPLE_RATE
from common.errors import UserError

MAX_SECONDS = 3600.0  # `read` refuses longer files: an hour is 230 MB of float32
LONGEST_SECONDS = 24 * 3600.0  # a recorder's day; a small file can decode to years, which costs no memory but time
BLOCK_SECONDS = 10.0
BLOCK_VALUES = 2**20  # of all channels: a header may claim 64 channels at 768 kHz
FRAME_SAMPLES = 2**19  # the longest real frames (Monkey's Audio) have 295,000
RATES = range(1_000, 768_001)  # Hz
CHANNELS = range(1, 65)
EXACT_EDGE_SECONDS = 0.5 / RATES[-1]  # less than any sample: only rounding
LOSSY_EDGE_SECONDS = 0.1  # encoder delay and padding make a lossy stream's announced length inexact
CLIPPED = 0.999  # of full scale
LEVEL_SAMPLES = SAMPLE_RATE // 50  # 20 ms
UNKNOWN_BYTES = 2**31 - 2**12  # from here on a WAV's size is what programs write that do not know it yet
# What counts as audio where a folder is searched; files named one by one may have any ending.
ENDINGS = frozenset((
    ".3gp", ".aac", ".ac3", ".aif", ".aiff", ".amr", ".ape", ".au", ".avi", ".caf", ".flac", ".flv", ".m4a", ".m4b",
    ".m4v", ".mka", ".mkv", ".mov", ".mp2", ".mp3", ".mp4", ".mpeg", ".mpg", ".oga", ".ogg", ".opus", ".ra", ".snd",
    ".sph", ".spx", ".ts", ".w64", ".wav", ".webm", ".wma", ".wmv",
))  # fmt: skip
# Of other containers FFmpeg guesses the length from the bit rate, or takes the end of what is there for it.
LENGTH_IN_HEADER = {"flac", "wav", "aiff", "asf", "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}


class AudioError(UserError):
    """A file that gives no samples to judge; `condition` names why.

    One of "missing", "unreadable", "no_audio_stream", "empty", "not_finite", "too_long", "no_such_channel".
    """

    def __init__(self, condition: str, what: str, expected: object = None, found: object = None):
        super().__init__(what, expected, found)
        self.condition = condition

    def __reduce__(self):
        return AudioError, (self.condition, str(self))


@dataclass
class Facts:
    """What is known of a file once its last block is out."""

    decoder: str = "soundfile"  # or "pyav", if it had to take over at any point
    coding: str = ""  # container and how it holds samples, by the decoder that opened it first: "FLAC PCM_16"
    rate: int = 0  # Hz, of the source
    channels: int = 0  # of the source
    seconds: float = 0.0  # decoded
    lost_seconds: float = 0.0  # announced by the header minus decoded, 0 within what is usual for the format
    damaged_packets: int = 0  # that FFmpeg could not decode and that were skipped
    clipped: float = 0.0  # share of the source's sample times at which a channel reaches 0.999 of full scale
    active_seconds: float = 0.0  # louder than −60 dBFS and than 40 dB below the loudest part: speech or any other sound


class Recording:
    """A file being decoded: iterate once over its blocks, mono float32 (n,) at 16 kHz; `facts` is there afterwards.

    `channel` k takes the k-th alone, counted from 1; None takes the mean of all. Iterating raises AudioError.
    """

    facts: Facts

    def __init__(self, path: str | os.PathLike, channel: int | None = None, max_seconds: float = LONGEST_SECONDS):
        self.path, self.channel, self.max_seconds = os.fspath(path), channel, max_seconds
        self._facts = Facts()  # as far as known
        self._delivered = self._clipped = 0  # samples of the source
        self._announced: float | None = None  # seconds
        self._edge = EXACT_EDGE_SECONDS

    def __iter__(self) -> Iterator[np.ndarray]:
        facts, levels, total = self._facts, _Levels(), 0
        with self._open() as file:
            for block in _at_16_khz(self._mono(self._decode(file))):
                total += len(block)
                if total > self.max_seconds * SAMPLE_RATE:
                    expected = f"at most {self.max_seconds:g} s"
                    raise AudioError("too_long", f"audio {self.path} is too long", expected, "more")
                self._require_finite(block)  # huge samples may be finite, and resampled no more
                levels.add(block)
                if len(block):
                    yield block
        if total == 0:
            condition = "unreadable" if facts.damaged_packets else "empty"
            raise AudioError(condition, f"audio {self.path} is empty or no audio", "at least one sample", 0)
        facts.seconds, facts.active_seconds = total / SAMPLE_RATE, levels.active_seconds()
        facts.lost_seconds, facts.clipped = self._lost_seconds(), self._clipped / self._delivered
        self.facts = facts

    def _open(self):
        """The file, unbuffered because both decoders move its descriptor themselves."""
        what = f"cannot read audio {self.path}"
        if not os.path.exists(self.path):
            raise AudioError("missing", what, "a file", "nothing there")
        if not os.path.isfile(self.path):  # a pipe would block, a device never end
            found = "a folder" if os.path.isdir(self.path) else "a pipe or device"
            raise AudioError("unreadable", what, "a file", found)
        if os.path.getsize(self.path) == 0:
            raise AudioError("empty", f"audio {self.path} is empty", "sound", "no bytes")
        try:
            return open(self.path, "rb", buffering=0)
        except OSError as error:
            raise AudioError("unreadable", what, "a readable file", error.strerror) from error

    def _mono(self, blocks: Iterator[tuple[np.ndarray, int]]) -> Iterator[tuple[np.ndarray, int]]:
        """Blocks (n, C) → (n,), counting what is clipped."""
        for block, rate in blocks:
            channels = block.shape[1]
            if self._require_finite(block) >= CLIPPED:
                self._clipped += int((np.abs(block) >= CLIPPED).any(axis=1).sum())
            if self.channel is None:
                yield sum(block.T / np.float32(channels)), rate  # 10 times faster than block.mean(axis=1)
            elif self.channel in range(1, channels + 1):
                yield np.ascontiguousarray(block[:, self.channel - 1]), rate
            else:
                what = f"audio {self.path} has no channel {self.channel}"
                raise AudioError("no_such_channel", what, f"a channel from 1 to {channels}", self.channel)

    def _require_finite(self, block: np.ndarray) -> np.float32:
        """The block's peak, which is NaN or infinite if any sample is."""
        peak = np.abs(block).max(initial=0)
        if not np.isfinite(peak):
            raise AudioError("not_finite", f"audio {self.path} is damaged", "finite samples", "NaN or infinity")
        return peak

    def _decode(self, file) -> Iterator[tuple[np.ndarray, int]]:
        """Blocks (n, C) float32 and their rate: soundfile's, and PyAV's from where libsndfile fails or ends short."""
        if (yield from self._by_soundfile(file)):
            return
        file.seek(0)
        yield from _gathered(self._by_pyav(file, skip=self._delivered))

    def _by_soundfile(self, file) -> Generator[tuple[np.ndarray, int], None, bool]:
        """Yield blocks (n, C); return whether the file was whole."""
        import soundfile

        try:
            # By descriptor: by name, libsndfile takes text called a.vox for headerless sound.
            with soundfile.SoundFile(file.fileno(), closefd=False) as sound:
                self._accept(sound.samplerate, sound.channels)
                self._facts.coding = f"{sound.format} {sound.subtype}"
                self._announced = _announced_by_soundfile(sound)
                self._edge = LOSSY_EDGE_SECONDS if sound.format == "MP3" else EXACT_EDGE_SECONDS
                length = _block_length(sound.samplerate, sound.channels)
                while len(block := sound.read(length, dtype="float32", always_2d=True)):
                    self._delivered += len(block)
                    yield block, sound.samplerate
        except soundfile.SoundFileError:
            return False
        return self._delivered > 0 and self._lost_seconds() == 0

    def _by_pyav(self, file, skip: int) -> Iterator[tuple[np.ndarray, int]]:
        """Yield frames (n, C) but for the first `skip` samples; an error after the first sample ends the file there."""
        try:
            for samples, rate in self._frames(file):
                rest = samples[skip:]
                skip -= len(samples) - len(rest)
                if len(rest):
                    self._delivered += len(rest)
                    yield rest, rate
        except AudioError:
            if self._delivered == 0:
                raise
            self._facts.damaged_packets += self._facts.decoder == "pyav"  # not if FFmpeg does not know the format

    def _frames(self, file) -> Iterator[tuple[np.ndarray, int]]:
        """Frames (n, C) of the first audio stream, packet by packet, so that a bad packet loses only itself."""
        import av

        what = f"cannot read audio {self.path}"
        try:
            # Through the open file and with no protocol allowed, a playlist cannot make FFmpeg open anything else.
            options = {"protocol_whitelist": "none"}
            with av.open(_Seekable(file), "r", container_options=options, metadata_errors="ignore") as container:
                if not container.streams.audio:
                    raise AudioError("no_audio_stream", what, "an audio stream", "none")
                stream = container.streams.audio[0]
                if stream.codec_context is None:
                    raise AudioError("unreadable", what, "a codec that FFmpeg decodes", "another")
                stream.codec_context.options = {"max_samples": str(FRAME_SAMPLES)}
                self._facts.decoder, packed = "pyav", _Packed()
                self._facts.coding = self._facts.coding or f"{container.format.name} {stream.codec_context.name}"
                if self._announced is None:
                    self._announced = _announced_by_pyav(container, stream)
                    self._edge = EXACT_EDGE_SECONDS if stream.codec_context.name == "flac" else LOSSY_EDGE_SECONDS
                for packet in container.demux(stream):
                    try:
                        frames = packet.decode()
                    except av.FFmpegError:
                        self._facts.damaged_packets += 1
                        continue
                    for frame in frames:
                        self._accept(frame.sample_rate, frame.layout.nb_channels)
                        for samples in packed.samples(frame):
                            yield samples, frame.sample_rate
        except (av.FFmpegError, OSError, ValueError, OverflowError, MemoryError) as error:
            found = f"damage or no audio ({getattr(error, 'strerror', None) or error})"
            raise AudioError("unreadable", what, "a file that soundfile or PyAV decodes", found) from error

    def _accept(self, rate: int, channels: int) -> None:
        """Raise AudioError for what no sound has; the first values are the source's facts."""
        if rate not in RATES or channels not in CHANNELS:
            expected = f"{CHANNELS[0]} to {CHANNELS[-1]} channels at {RATES[0]} to {RATES[-1]} Hz"
            found = f"{channels} at {rate} Hz"
            raise AudioError("unreadable", f"cannot read audio {self.path}", expected, found)
        if self._facts.rate == 0:
            self._facts.rate, self._facts.channels = rate, channels

    def _lost_seconds(self) -> float:
        if self._announced is None:
            return 0.0
        lost = self._announced - self._delivered / self._facts.rate
        return lost if lost > self._edge else 0.0


def read(path: str | os.PathLike, max_seconds: float = MAX_SECONDS) -> np.ndarray:
    """The whole file as mono (mean of channels) float32 (N,) at 16 kHz, full scale 1.

    Raises UserError when the file is truncated, and AudioError when it is missing, has no audio, is empty, longer than
    `max_seconds` or holds NaN or infinite samples.
    """
    recording = Recording(path, max_seconds=max_seconds)
    samples, facts = np.concatenate(list(recording)), recording.facts
    if facts.lost_seconds:
        found = recording._delivered
        announced = found + round(facts.lost_seconds * facts.rate)
        raise UserError(f"audio {path} is truncated", f"{announced} samples by its header", found)
    return samples


class _Seekable:
    """A file for PyAV, which prints a traceback where `seek` raises instead of returning a negative number.

    It has no name: by name, FFmpeg takes text called a.gsm for headerless sound.
    """

    def __init__(self, file):
        self.read, self.tell, self._seek = file.read, file.tell, file.seek

    def seek(self, offset: int, whence: int) -> int:
        try:
            return self._seek(offset, whence)
        except OSError:
            return -1


def _block_length(rate: int, channels: int) -> int:
    return min(int(BLOCK_SECONDS * rate), BLOCK_VALUES // channels)


def _announced_by_soundfile(sound) -> float | None:
    """Seconds by the header, or None; of a cut WAV, AIFF or AU file only libsndfile's log still knows them."""
    if sound.frames >= 2**62:  # libsndfile's "unknown" is 2**63 - 1
        return None
    cut = re.search(
        r"^ *(?:data|SSND|Data Size) *: (\d{1,10}) \(should be (\d{1,10})\)", sound.extra_info, re.MULTILINE
    )
    claimed, there = map(int, cut.groups()) if cut else (1, 1)
    if claimed >= UNKNOWN_BYTES or there == 0:
        return None
    return round(sound.frames * claimed / there) / sound.samplerate


def _announced_by_pyav(container, stream) -> float | None:
    if container.format.name not in LENGTH_IN_HEADER:
        return None
    if stream.duration:
        return float(stream.duration * stream.time_base)
    if container.duration and len(container.streams) == 1:  # else it may be that of the pictures
        return container.duration / 1e6
    return None


class _Packed:
    """Makes FFmpeg's frames float32 (n, C), full scale 1.

    By way of interleaved frames: of others with 8 channels or more, PyAV 18's `to_ndarray` reads beyond the memory.
    """

    def __init__(self):
        self._kind = self._resampler = None

    def samples(self, frame) -> Iterator[np.ndarray]:
        import av

        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if (
            kind != self._kind
        ):  # an AudioResampler takes frames of one kind; changing their type alone, it holds none back
            self._kind, self._resampler = kind, av.AudioResampler(format="flt")
        for packed in self._resampler.resample(frame):
            yield packed.to_ndarray().reshape(-1, frame.layout.nb_channels)


def _gathered(frames: Iterator[tuple[np.ndarray, int]]) -> Iterator[tuple[np.ndarray, int]]:
    """Join short frames (n, C) to blocks; a new rate or channel count in mid-stream starts a new block."""
    for (rate, channels), alike in groupby(frames, key=lambda frame: (frame[1], frame[0].shape[1])):
        held, total = [], 0
        for samples, _ in alike:
            held.append(samples)
            total += len(samples)
            if total >= _block_length(rate, channels):
                yield np.concatenate(held), rate
                held, total = [], 0
        if held:
            yield np.concatenate(held), rate


def _at_16_khz(blocks: Iterator[tuple[np.ndarray, int]]) -> Iterator[np.ndarray]:
    """Resample mono blocks (n,), given with their rates; a new rate in mid-stream starts a new resampler."""
    for rate, alike in groupby(blocks, key=itemgetter(1)):
        if rate == SAMPLE_RATE:
            yield from map(itemgetter(0), alike)
            continue
        import soxr

        resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
        for block, _ in alike:
            yield resampler.resample_chunk(block)
        yield resampler.resample_chunk(np.empty(0, np.float32), last=True)


class _Levels:
    """Counts 20 ms frames by their level in steps of 0.1 dB from −60 to 60 dBFS: the same memory for any length."""

    FLOOR, STEP, COUNT = -60.0, 0.1, 1200  # dBFS, dB

    def __init__(self):
        self.counts = np.zeros(self.COUNT, dtype=int)
        self.rest = np.empty(0, np.float32)

    def add(self, samples: np.ndarray) -> None:
        samples = np.concatenate([self.rest, samples])
        whole = len(samples) // LEVEL_SAMPLES * LEVEL_SAMPLES
        self.rest = samples[whole:].copy()
        frames = samples[:whole].reshape(-1, LEVEL_SAMPLES)
        with np.errstate(divide="ignore", over="ignore"):
            levels = 10 * np.log10(np.vecdot(frames, frames) / LEVEL_SAMPLES)
        steps = np.minimum((levels[levels > self.FLOOR] - self.FLOOR) / self.STEP, self.COUNT - 1)
        self.counts += np.bincount(steps.astype(int), minlength=self.COUNT)

    def active_seconds(self) -> float:
        """Seconds louder than −60 dBFS and than 40 dB below the 10th-loudest frame: shorter clicks are no reference."""
        loudest_first = np.cumsum(self.counts[::-1])
        reference = self.COUNT - 1 - np.searchsorted(loudest_first, 10)  # -1 if there are not 10
        threshold = max(0, reference - round(40 / self.STEP))
        return float(self.counts[threshold:].sum()) * LEVEL_SAMPLES / SAMPLE_RATE
