"""Any audio file → mono float32 samples at 16 kHz, block by block or at once.

    samples = read("speech.m4a")  # (N,) float32, full scale 1

A file is decoded in blocks, so a long one needs no more memory than a short one. `Recording.facts` then says what was
found: format, lost seconds, clipping and more. decoders.py has the decoders.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from io import RawIOBase
from itertools import groupby
from operator import itemgetter

import numpy as np

from audio import SAMPLE_RATE
from audio.decoders import AudioDecoder, Blocks
from audio.errors import AudioError
from audio.levels import LevelHistogram, downmix
from audio.speech import SpeechDetector
from common.errors import UserError

LONGEST_GAP = 0.1  # s of silence in place of damaged packets; `read` refuses more
MAX_SECONDS = 3600.0  # `read` refuses longer files: an hour is 230 MB of float32
LONGEST_SECONDS = 24 * 3600.0  # a day: a small file may decode to years, which takes no memory but never ends
HASHED_BYTES = 1 << 20  # at once
CLIPPED = 0.999  # of full scale
LOUDEST = 16.0  # of full scale (24 dB above it): no mix reaches it, but integers stored as floats do
POLARITY_SECONDS = 0.5  # the channels are compared piece by piece
# Only files with these endings count as audio when a folder is searched; a file that is named may have any ending.
ENDINGS = frozenset((
    ".3g2", ".3ga", ".3gp", ".3gpp", ".aac", ".ac3", ".adts", ".aif", ".aifc", ".aiff", ".alac", ".amr", ".ape",
    ".asf", ".au", ".avi", ".awb", ".bw64", ".bwf", ".caf", ".divx", ".dsf", ".dts", ".eac3", ".ec3", ".f4a", ".f4v",
    ".flac", ".flv", ".gsm", ".ircam", ".m2ts", ".m4a", ".m4b", ".m4r", ".m4v", ".mka", ".mkv", ".mov", ".mp1",
    ".mp2", ".mp3", ".mp4", ".mpa", ".mpc", ".mpeg", ".mpg", ".mpga", ".mts", ".mxf", ".nist", ".oga", ".ogg", ".ogv",
    ".ogx", ".oma", ".opus", ".qcp", ".ra", ".rf64", ".rm", ".rmvb", ".shn", ".snd", ".sph", ".spx", ".svx", ".tak",
    ".ts", ".tta", ".vob", ".voc", ".w64", ".wav", ".wave", ".weba", ".webm", ".wma", ".wmv", ".wtv", ".wv",
))  # fmt: skip


@dataclass
class RecordingFacts:
    """Facts about a file, known after its last block."""

    decoder: str = "soundfile"  # or "pyav", if it had to take over at any point
    coding: str = ""  # container and encoding, as the first decoder that opened the file names them: "FLAC PCM_16"
    rate: int = 0  # Hz, of the source
    channels: int = 0  # of the source
    seconds: float = 0.0  # decoded
    lost_seconds: float = 0.0  # announced by the header minus decoded; 0 if no more than is usual for the format
    damaged_packets: int = 0  # that FFmpeg could not decode
    gap_seconds: float = 0.0  # silence in their place, so that what follows keeps its time
    joined_at: tuple[float, ...] = ()  # s: where sound begins that the header before it does not announce
    tracks: int = 1  # of sound; they are decoded one after another
    unheard_bytes: int = 0  # after the end of the sound: nothing decodes them
    cancelled_seconds: float = 0.0  # in which the channels cancel in their mean: the loudest one is taken
    clipped: float = 0.0  # fraction of the source's sample times at which a channel reaches 0.999 of full scale
    active_seconds: float = 0.0  # louder than −60 dBFS and than 40 dB below the loudest part: speech or any other sound
    sha256: str | None = None  # of the file, if it was to be hashed and did not change meanwhile
    speech: tuple[tuple[float, float], ...] | None = None  # start and end (s) of what is spoken; None: not listened to
    high_band: float | None = None  # of the speech: dB above 4.25 kHz, see `SpeechDetector.high_band`


class Recording:
    """A file to decode: iterate over it once for blocks of mono float32 (n,) at 16 kHz; then `facts` is set.

    `channel` k takes only the k-th channel, counted from 1; None takes the mean of all, see `downmix`. `hashed` gives
    `facts.sha256`, `listened` `facts.speech` and `facts.high_band`. Iterating raises AudioError.
    """

    facts: RecordingFacts

    def __init__(
        self,
        path: str | os.PathLike,
        channel: int | None = None,
        max_seconds: float = LONGEST_SECONDS,
        hashed: bool = False,
        listened: bool = False,
    ):
        self.path, self.channel, self.max_seconds, self.hashed = os.fspath(path), channel, max_seconds, hashed
        self.listened = listened
        self._clipped = self._decoded = 0  # samples of the source
        self._cancelled_seconds = 0.0

    def __iter__(self) -> Iterator[np.ndarray]:
        levels, total, speech = LevelHistogram(), 0, SpeechDetector() if self.listened else None
        self._clipped, self._cancelled_seconds = 0, 0.0
        with self._open() as file:
            before, sha256 = os.fstat(file.fileno()), hashlib.sha256()
            if self.hashed:
                yield from _hash(file, sha256)
            decoder = AudioDecoder(self.path, file)
            for block in _at_16_khz(self._mono(decoder.blocks())):
                total += len(block)
                if total > self.max_seconds * SAMPLE_RATE:
                    expected = f"at most {self.max_seconds:g} s"
                    raise AudioError("too_long", f"audio {self.path} is too long", expected, "more")
                levels.add(block)
                if speech:
                    speech.add(block)
                if len(block):
                    yield block
            after = os.fstat(file.fileno())
        if total == 0:
            condition = "unreadable" if decoder.damaged_packets else "empty"
            raise AudioError(condition, f"audio {self.path} is empty or no audio", "at least one sample", 0)
        if speech:
            speech.end()
        self._decoded = decoder.delivered
        unchanged = self.hashed and before.st_mtime_ns == after.st_mtime_ns
        self.facts = self._facts(decoder, total, levels, speech, sha256.hexdigest() if unchanged else None)

    def _facts(
        self,
        decoder: AudioDecoder,
        samples: int,
        levels: LevelHistogram,
        speech: SpeechDetector | None,
        sha256: str | None,
    ) -> RecordingFacts:
        return RecordingFacts(
            decoder=decoder.decoder,
            coding=decoder.coding,
            rate=decoder.rate,
            channels=decoder.channels,
            seconds=samples / SAMPLE_RATE,
            lost_seconds=decoder.lost_seconds,
            damaged_packets=decoder.damaged_packets,
            gap_seconds=decoder.gap_seconds,
            joined_at=tuple(decoder.joined_at),
            tracks=decoder.tracks,
            unheard_bytes=decoder.unheard_bytes,
            cancelled_seconds=self._cancelled_seconds,
            clipped=self._clipped / decoder.delivered,
            active_seconds=levels.active_seconds(),
            sha256=sha256,
            speech=tuple(speech.spans) if speech else None,
            high_band=speech.high_band() if speech else None,
        )

    def _open(self):
        """The file, unbuffered as `AudioDecoder` needs it."""
        what = f"cannot read audio {self.path}"
        if not os.path.exists(self.path):
            raise AudioError("missing", what, "a file", "nothing there")
        if not os.path.isfile(self.path):  # reading a pipe could block, and a device may never end
            found = "a folder" if os.path.isdir(self.path) else "a pipe or device"
            raise AudioError("unreadable", what, "a file", found)
        if os.path.getsize(self.path) == 0:
            raise AudioError("empty", f"audio {self.path} is empty", "sound", "no bytes")
        try:
            return open(self.path, "rb", buffering=0)
        except OSError as error:
            raise AudioError("unreadable", what, "a readable file", error.strerror) from error

    def _mono(self, blocks: Blocks) -> Blocks:
        """Blocks (n, C) → (n,), counting clipped samples."""
        for block, rate in blocks:
            channels = block.shape[1]
            if self._peak(block) >= CLIPPED:
                self._clipped += int((np.abs(block) >= CLIPPED).any(axis=1).sum())
            if self.channel is None:
                mono, cancelled = downmix(block, round(POLARITY_SECONDS * rate))
                self._cancelled_seconds += cancelled / rate
                yield mono, rate
            elif self.channel in range(1, channels + 1):
                yield np.ascontiguousarray(block[:, self.channel - 1]), rate
            else:
                what = f"audio {self.path} has no channel {self.channel}"
                raise AudioError("no_such_channel", what, f"a channel from 1 to {channels}", self.channel)

    def _peak(self, block: np.ndarray) -> np.float32:
        """The block's largest sample. Raises AudioError if any is NaN, infinite or no fraction of full scale."""
        peak = np.abs(block).max(initial=0)
        if not np.isfinite(peak):
            raise AudioError("not_finite", f"audio {self.path} is damaged", "finite samples", "NaN or infinity")
        if peak > LOUDEST:
            what = f"audio {self.path} has samples far beyond full scale"
            expected = "samples within ±1 (of integers stored as floats: divide them by their full scale)"
            raise AudioError("wrong_scale", what, expected, f"{peak:.0f}")
        return peak


def _hash(file: RawIOBase, sha256) -> Iterator[np.ndarray]:
    """Empty blocks, as signs of life: a large file takes longer than anyone waits for a block."""
    while piece := file.read(HASHED_BYTES):
        sha256.update(piece)
        if len(piece) == HASHED_BYTES:
            yield np.empty(0, np.float32)
    file.seek(0)


def read(path: str | os.PathLike, max_seconds: float = MAX_SECONDS) -> np.ndarray:
    """The whole file as mono (mean of channels) float32 (N,) at 16 kHz, full scale 1.

    Recordings joined in one file, and its tracks, come one after another. Raises UserError when the file is truncated,
    is damaged or has bytes after its end that nothing decodes. Raises AudioError when it is missing, has no audio, is
    empty, longer than `max_seconds` or has samples that are NaN, infinite or far beyond full scale.
    """
    recording = Recording(path, max_seconds=max_seconds)
    samples, facts = np.concatenate(list(recording)), recording.facts
    if facts.lost_seconds:
        found = recording._decoded
        announced = found + round(facts.lost_seconds * facts.rate)
        raise UserError(f"audio {path} is truncated", f"{announced} samples by its header", found)
    if facts.gap_seconds > LONGEST_GAP:
        raise UserError(f"audio {path} is damaged", "packets that decode", f"{facts.gap_seconds:.2f} s that do not")
    if facts.unheard_bytes:
        found = f"{facts.unheard_bytes} bytes that nothing decodes"
        raise UserError(f"audio {path} has more than its sound", "nothing after the end", found)
    return samples


def _at_16_khz(blocks: Blocks) -> Iterator[np.ndarray]:
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
