"""Raw PCM from a pipe → mono float32 samples at 16 kHz; a file or a text in its place is refused.

for block in PcmStream(sys.stdin.buffer, rate=44100, channels=2): ...
"""

import codecs
import io
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from audio import SAMPLE_RATE
from common.errors import UserError

FORMATS = {  # FFmpeg's and arecord's names → (numpy's, zero, full scale)
    "u8": ("u1", 128, 128),
    "s16le": ("<i2", 0, 32768),
    "s16be": (">i2", 0, 32768),
    "s32le": ("<i4", 0, 2**31),
    "s32be": (">i4", 0, 2**31),
    "f32le": ("<f4", 0, 1),
    "f32be": (">f4", 0, 1),
}
HEAD_BYTES = 4096
LOUDEST = 16  # of full scale: floats beyond it are of another format
HEADERS = {
    b"RIFF": "WAV",
    b"RIFX": "WAV",
    b"RF64": "WAV",
    b"BW64": "WAV",
    b"riff": "W64",
    b"fLaC": "FLAC",
    b"OggS": "Ogg",
    b"ID3": "MP3",
    b"FORM": "AIFF",
    b".snd": "AU",
    b"caff": "CAF",
    b"#!AMR": "AMR",
    b"wvpk": "WavPack",
    b"MAC ": "APE",
    b"NIST_1A": "SPHERE",
    b"\x1aE\xdf\xa3": "Matroska or WebM",
    b"0&\xb2u\x8ef\xcf\x11": "WMA",
    b"\x1f\x8b\x08": "gzip",
    b"PK\x03\x04": "zip",
}


class PcmStream:
    """Blocks (n,) of the mean of all channels, or of `channel`, counted from 1. Raises UserError if it is no PCM."""

    def __init__(
        self,
        source: BinaryIO,
        rate: int = SAMPLE_RATE,
        channels: int = 1,
        form: str = "s16le",
        channel: int | None = None,
    ):
        self.source, self.rate, self.channels, self.form, self.channel = source, rate, channels, form, channel

    def __str__(self) -> str:
        return f"{self.form}, {self.channels} channel{'s' * (self.channels > 1)}, {self.rate} Hz"

    def __iter__(self) -> Iterator[np.ndarray]:
        import soxr

        resampler = soxr.ResampleStream(self.rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
        for block in self._mono():
            yield block if self.rate == SAMPLE_RATE else resampler.resample_chunk(block)
        if self.rate != SAMPLE_RATE:
            yield resampler.resample_chunk(np.empty(0, np.float32), last=True)

    def _mono(self) -> Iterator[np.ndarray]:
        kind, zero, full_scale = FORMATS[self.form]
        frame = np.dtype(kind).itemsize * self.channels
        piece = self.source.read(HEAD_BYTES)
        if found := foreign(piece):
            raise UserError("--stream reads raw PCM", f"samples as {self}, without a header", found)
        count = 0
        while piece:
            whole = len(piece) // frame * frame
            samples, count = np.frombuffer(piece[:whole], kind).astype(np.float32), count + whole
            with np.errstate(invalid="ignore"):  # NaN is refused below
                samples = (samples.reshape(-1, self.channels) - zero) / np.float32(full_scale)
            if not np.abs(samples).max(initial=0) <= LOUDEST:  # also NaN
                raise UserError("--stream reads raw PCM", f"samples as {self}", "values beyond full scale")
            yield samples.mean(axis=1) if self.channel is None else samples[:, self.channel - 1]
            piece = piece[whole:] + (more := self.source.read1(max(frame, self.rate // 10 * frame)))
            if not more:
                break
        if not count:
            raise UserError("--stream reads raw PCM", f"samples as {self}", "none")


def foreign(head: bytes) -> str:
    """What the first bytes of a stream are, if they are no PCM."""
    for header, name in HEADERS.items():
        if head.startswith(header):
            return f"the header of a {name} file (score it with --audio)"
    if head[4:8] == b"ftyp":
        return "the header of an MP4 file (score it with --audio)"
    if head[:1] == b"\xff" and _is_mpeg(head):
        return "MP3 or AAC frames (score the file with --audio)"
    return "text" if _is_text(head) else ""


def _is_mpeg(head: bytes) -> bool:
    """Whether FFmpeg finds frames of MPEG audio: as PCM, the two bytes of their sync word are an ordinary sample."""
    import av

    try:
        with av.open(io.BytesIO(head), metadata_errors="ignore") as media:
            frames = [bytes(packet) for packet in media.demux(audio=0) if packet.size]
            return len(frames) > 2 and all(f[0] == 0xFF for f in frames[:3]) and head.startswith(b"".join(frames[:3]))
    except (av.FFmpegError, IndexError):  # no sound in it
        return False


def _is_text(head: bytes) -> bool:
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(head)  # the last character may be cut
    except UnicodeDecodeError:
        return False
    return bool(text) and all(character.isprintable() or character.isspace() for character in text)
