"""An open audio file → blocks of its samples, at its own rate and with all its channels.

soundfile (libsndfile) decodes first: wav, flac, ogg, opus, mp3 and more. PyAV (FFmpeg) decodes the rest: m4a, aac,
webm, wma, amr, the sound of videos, and some valid flac files that libsndfile rejects.
"""

import re
from collections.abc import Generator, Iterator
from itertools import groupby

import numpy as np

from audio.errors import AudioError

BLOCK_SECONDS = 10.0
BLOCK_VALUES = 2**20  # of all channels: a header may claim 64 channels at 768 kHz
LONGEST_FRAME = 2**19  # samples: the longest real frames (Monkey's Audio) have 295,000
RATES = range(1_000, 768_001)  # Hz
CHANNELS = range(1, 65)
EXACT_EDGE_SECONDS = 0.5 / RATES[-1]  # less than any sample: only rounding
LOSSY_EDGE_SECONDS = 0.1  # encoder delay and padding make the announced length of a lossy stream inexact
UNKNOWN_BYTES = 2**31 - 2**12  # programs that do not know a WAV's size yet write this or more
# FFmpeg reads the length of these containers from their header; of others it guesses it from the bit rate or file size.
LENGTH_IN_HEADER = {"flac", "wav", "aiff", "asf", "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}

Blocks = Iterator[tuple[np.ndarray, int]]  # samples (n, channels) float32 of full scale 1, and their rate in Hz


class AudioDecoder:
    """Decodes one open file. Iterate over `blocks` once; afterwards the attributes describe the whole file.

    path: for messages. file: opened in binary mode and unbuffered, because both libraries move its descriptor.
    """

    def __init__(self, path: str, file):
        self.path, self.file = path, file
        self.decoder = "soundfile"  # "pyav" as soon as PyAV had to take over
        self.coding = ""  # container and encoding, as the first decoder that opened the file names them: "FLAC PCM_16"
        self.rate = self.channels = 0  # of the first block
        self.delivered = 0  # samples of each channel so far
        self.damaged_packets = 0  # that FFmpeg could not decode and that were skipped
        self._announced: float | None = None  # seconds
        self._edge = EXACT_EDGE_SECONDS

    def blocks(self) -> Blocks:
        """Blocks (n, C): soundfile's, then PyAV's from where libsndfile fails or ends short. Raises AudioError."""
        if (yield from self._by_soundfile()):
            return
        self.file.seek(0)
        yield from _gathered(self._by_pyav(skip=self.delivered))

    def lost_seconds(self) -> float:
        """Seconds announced by the header minus decoded; 0 if no more than is usual for the format."""
        if self._announced is None:
            return 0.0
        lost = self._announced - self.delivered / self.rate
        return lost if lost > self._edge else 0.0

    def _by_soundfile(self) -> Generator[tuple[np.ndarray, int], None, bool]:
        """Yield blocks (n, C); return whether the file was complete."""
        import soundfile

        try:
            # By descriptor: by name, libsndfile would take a text file called a.vox for headerless sound.
            with soundfile.SoundFile(self.file.fileno(), closefd=False) as sound:
                self._accept(sound.samplerate, sound.channels)
                self.coding = f"{sound.format} {sound.subtype}"
                self._announced = _announced_by_soundfile(sound)
                self._edge = LOSSY_EDGE_SECONDS if sound.format == "MP3" else EXACT_EDGE_SECONDS
                length = _block_length(sound.samplerate, sound.channels)
                while len(block := sound.read(length, dtype="float32", always_2d=True)):
                    self.delivered += len(block)
                    yield block, sound.samplerate
        except soundfile.SoundFileError:
            return False
        return self.delivered > 0 and self.lost_seconds() == 0

    def _by_pyav(self, skip: int) -> Blocks:
        """Yield frames (n, C) without the first `skip` samples; an error after the first sample ends the file there."""
        try:
            for samples, rate in self._frames():
                rest = samples[skip:]
                skip -= len(samples) - len(rest)
                if len(rest):
                    self.delivered += len(rest)
                    yield rest, rate
        except AudioError:
            if self.delivered == 0:
                raise
            self.damaged_packets += self.decoder == "pyav"  # not if FFmpeg does not know the format

    def _frames(self) -> Blocks:
        """Frames (n, C) of the first audio stream, packet by packet, so that a bad packet loses only itself."""
        import av

        what = f"cannot read audio {self.path}"
        try:
            # Through the open file and with no protocol allowed, a playlist cannot make FFmpeg open anything else.
            options = {"protocol_whitelist": "none"}
            with av.open(_SeekableFile(self.file), "r", container_options=options, metadata_errors="ignore") as media:
                if not media.streams.audio:
                    raise AudioError("no_audio_stream", what, "an audio stream", "none")
                stream = media.streams.audio[0]
                self._describe(media, stream)
                interleaver = _Interleaver()
                for packet in media.demux(stream):
                    try:
                        frames = packet.decode()
                    except av.FFmpegError:
                        self.damaged_packets += 1
                        continue
                    for frame in frames:
                        self._accept(frame.sample_rate, frame.layout.nb_channels)
                        for samples in interleaver.samples(frame):
                            yield samples, frame.sample_rate
        except (av.FFmpegError, OSError, ValueError, OverflowError, MemoryError) as error:
            found = f"damage or no audio ({getattr(error, 'strerror', None) or error})"
            raise AudioError("unreadable", what, "a file that soundfile or PyAV decodes", found) from error

    def _describe(self, media, stream) -> None:
        """Note what PyAV's container and stream say of the file."""
        codec = stream.codec_context
        if codec is None:
            expected = "a codec that FFmpeg decodes"
            raise AudioError("unreadable", f"cannot read audio {self.path}", expected, "another")
        codec.options = {"max_samples": str(LONGEST_FRAME)}
        self.decoder, self.coding = "pyav", self.coding or f"{media.format.name} {codec.name}"
        if self._announced is None:
            self._announced = _announced_by_pyav(media, stream)
            self._edge = EXACT_EDGE_SECONDS if codec.name == "flac" else LOSSY_EDGE_SECONDS

    def _accept(self, rate: int, channels: int) -> None:
        """Keep the first rate and channel count. Raises AudioError for values that no recording has."""
        if rate not in RATES or channels not in CHANNELS:
            expected = f"{CHANNELS[0]} to {CHANNELS[-1]} channels at {RATES[0]} to {RATES[-1]} Hz"
            found = f"{channels} at {rate} Hz"
            raise AudioError("unreadable", f"cannot read audio {self.path}", expected, found)
        if self.rate == 0:
            self.rate, self.channels = rate, channels


class _SeekableFile:
    """A file for PyAV, whose `seek` returns -1 on an error: PyAV would print a traceback of an exception.

    It has no name: by name, FFmpeg would take a text file called a.gsm for headerless sound.
    """

    def __init__(self, file):
        self.read, self.tell, self._seek = file.read, file.tell, file.seek

    def seek(self, offset: int, whence: int) -> int:
        try:
            return self._seek(offset, whence)
        except OSError:
            return -1


class _Interleaver:
    """Makes FFmpeg's frames float32 (n, C), full scale 1.

    It interleaves them first, because PyAV 18's `to_ndarray` reads beyond the memory of planar frames with 8 channels
    or more.
    """

    def __init__(self):
        self._kind = self._resampler = None

    def samples(self, frame) -> Iterator[np.ndarray]:
        import av

        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        # An AudioResampler takes frames of one kind. As this one keeps the rate, it holds no samples back.
        if kind != self._kind:
            self._kind, self._resampler = kind, av.AudioResampler(format="flt")
        for interleaved in self._resampler.resample(frame):
            yield interleaved.to_ndarray().reshape(-1, frame.layout.nb_channels)


def _gathered(frames: Blocks) -> Blocks:
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


def _block_length(rate: int, channels: int) -> int:
    return min(int(BLOCK_SECONDS * rate), BLOCK_VALUES // channels)


def _announced_by_soundfile(sound) -> float | None:
    """Seconds by the header, or None. For a cut WAV, AIFF or AU file only libsndfile's log has the header's value."""
    if sound.frames >= 2**62:  # libsndfile's "unknown" is 2**63 - 1
        return None
    cut = re.search(
        r"^ *(?:data|SSND|Data Size) *: (\d{1,10}) \(should be (\d{1,10})\)", sound.extra_info, re.MULTILINE
    )
    claimed, there = map(int, cut.groups()) if cut else (1, 1)
    if claimed >= UNKNOWN_BYTES or there == 0:
        return None
    return round(sound.frames * claimed / there) / sound.samplerate


def _announced_by_pyav(media, stream) -> float | None:
    """Seconds by the header, or None."""
    if media.format.name not in LENGTH_IN_HEADER:
        return None
    if stream.duration:
        return float(stream.duration * stream.time_base)
    if media.duration and len(media.streams) == 1:  # with several streams it may be the video's
        return media.duration / 1e6
    return None
