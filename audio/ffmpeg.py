"""FFmpeg (through PyAV) → the samples of one recording in an open file, track by track."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from audio.errors import AudioError
from audio.tails import FileTail

LONGEST_FRAME = 2**19  # samples: the longest real frames (Monkey's Audio) have 295,000
LONGEST_PACKET = 2**16  # bytes: the flac parser adds whatever follows the last frame to its packet
RATES = range(1_000, 768_001)  # Hz
CHANNELS = range(1, 65)
EXACT_EDGE_SECONDS = 0.5 / RATES[-1]  # less than any sample: only rounding
# FFmpeg reads the length of these containers from their header; of others it guesses it from the bit rate or file size.
LENGTH_IN_HEADER = {"flac", "wav", "aiff", "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}
# FFmpeg's own decoders of these fail on the packets of comfort noise in pauses.
PREFERRED_DECODERS = {"amrnb": "libopencore_amrnb", "amrwb": "libopencore_amrwb"}

Blocks = Iterator[tuple[np.ndarray, int]]  # samples (n, channels) float32 of full scale 1, and their rate in Hz


class FFmpegRecording:
    """The recording that begins at byte `start` of a file. The attributes are known once `frames` or `seconds` ran."""

    def __init__(self, path: str, file, start: int = 0):
        self.path, self.file, self.start = path, file, start
        self.container = self.coding = ""  # "wav"; "wav pcm_s16le"
        self.tracks = 1  # of sound
        self.announced: float | None = None  # seconds of the first track by the header
        self.edge = EXACT_EDGE_SECONDS  # seconds by which decoded and announced may differ
        self.damaged_packets = 0  # of all tracks: not decoded
        self.gap_seconds = 0.0  # silence that takes their place
        # Bytes from the file's start: the second of the first packet; where the last packet begins and ends.
        self.in_first_packet = self.last_packet = self.end = 0

    def opened_as(self) -> str:
        """The container. Raises AudioError."""
        with self._opened():
            return self.container

    def seconds(self) -> float:
        """The length of the first track by its packets, without decoding them. Raises AudioError."""
        with self._opened() as media:
            first = media.streams.audio[0]
            durations = [
                packet.duration or 0 for packet in self._packets(media, media.streams) if packet.stream is first
            ]
            return float(sum(durations) * (first.time_base or 0))

    def frames(self, track: int = 0) -> Blocks:
        """Frames (n, C) of a track, packet by packet, so that a bad packet loses only itself. Raises AudioError."""
        import av

        with self._opened() as media:
            stream = media.streams.audio[track]
            decoder, interleaver = _decoder(stream), _Interleaver()
            streams, gap = media.streams if track == 0 else [stream], 0.0
            for packet in self._packets(media, streams):
                if packet.stream is not stream:
                    continue
                try:
                    frames = decoder.decode(packet) if packet.size else decoder.decode(None)
                except av.FFmpegError:
                    self.damaged_packets += 1
                    gap += float((packet.duration or 0) * (packet.time_base or 0))
                    continue
                for frame in frames:
                    require_plausible(self.path, frame.sample_rate, frame.layout.nb_channels)
                    yield from self._silence(gap, frame.sample_rate, frame.layout.nb_channels)
                    gap = 0.0
                    for samples in interleaver.samples(frame):
                        yield samples, frame.sample_rate

    @contextmanager
    def _opened(self):
        """The open container, described in the attributes; all errors become AudioErrors."""
        import av

        what = f"cannot read audio {self.path}"
        try:
            # Through the open file and with no protocol allowed, a playlist cannot make FFmpeg open anything else.
            options, tail = {"protocol_whitelist": "none"}, FileTail(self.file, self.start)
            with av.open(tail, "r", container_options=options, metadata_errors="ignore") as media:
                if not media.streams.audio:
                    raise AudioError("no_audio_stream", what, "an audio stream", "none")
                self._describe(media)
                yield media
        except (av.FFmpegError, OSError, ValueError, OverflowError, MemoryError) as error:
            why = getattr(error, "strerror", None) or error
            found = f"a damaged file, or one without sound, or sound without a header ({why})"
            raise AudioError("unreadable", what, "a recording that can be played", found) from error

    def _describe(self, media) -> None:
        stream = media.streams.audio[0]
        codec = stream.codec_context
        if codec is None:
            expected = "a codec that FFmpeg decodes"
            raise AudioError("unreadable", f"cannot read audio {self.path}", expected, "another")
        self.container, self.coding = media.format.name, f"{media.format.name} {codec.name}"
        self.tracks = sum(each.codec_context is not None for each in media.streams.audio)
        self.announced = _announced(media, stream)
        self.edge = EXACT_EDGE_SECONDS if codec.name == "flac" else lossy_edge(codec.sample_rate)

    def _packets(self, media, streams) -> Iterator:
        for packet in media.demux(*streams):
            if packet.pos is not None and packet.size:
                self.last_packet = max(self.last_packet, self.start + packet.pos)
                self.in_first_packet = self.in_first_packet or self.start + packet.pos + 1
                self.end = max(self.end, self.start + packet.pos + min(packet.size, LONGEST_PACKET))
            yield packet

    def _silence(self, seconds: float, rate: int, channels: int) -> Blocks:
        """Frames (n, C) in place of packets that were not decoded, so that what follows keeps its time."""
        self.gap_seconds += seconds
        left = round(seconds * rate)
        while left > 0:
            yield np.zeros((min(left, LONGEST_FRAME // channels), channels), np.float32), rate
            left -= LONGEST_FRAME // channels


def lossy_edge(rate: int) -> float:
    """Seconds: encoder delay and padding make the announced length of a lossy stream inexact."""
    return 0.1 + 4096 / (rate or 8000)


def require_plausible(path: str, rate: int, channels: int) -> None:
    """Raises AudioError for values that no recording has."""
    if rate not in RATES or channels not in CHANNELS:
        expected = f"{CHANNELS[0]} to {CHANNELS[-1]} channels at {RATES[0]} to {RATES[-1]} Hz"
        raise AudioError("unreadable", f"cannot read audio {path}", expected, f"{channels} at {rate} Hz")


def _decoder(stream):
    """The codec context that decodes a stream's packets."""
    import av

    codec = stream.codec_context
    name = PREFERRED_DECODERS.get(codec.name)
    if name in av.codecs_available:
        codec = av.CodecContext.create(name, "r")
        codec.sample_rate, codec.layout = stream.codec_context.sample_rate, "mono"
    codec.options = {"max_samples": str(LONGEST_FRAME)}
    return codec


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


def _announced(media, stream) -> float | None:
    """Seconds by the header, or None."""
    if media.format.name not in LENGTH_IN_HEADER:
        return None
    if stream.duration:
        return float(stream.duration * stream.time_base)
    if media.duration and len(media.streams) == 1:  # with several streams it may be the video's
        return media.duration / 1e6
    return None
