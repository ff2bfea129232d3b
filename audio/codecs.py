"""Transmission through a codec: telephone, internet and media formats, encoded and decoded again in memory.

This is an augmentation of training waveforms; decoders.py reads files.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from audio import SAMPLE_RATE
from audio.filters import butterworth_gains, filter_zero_phase, resample
from audio.transforms import Range, Transform
from common.errors import UserError

TELEPHONE = (300.0, 3400.0)  # Hz
AMR_MODES = (4.75, 5.15, 5.9, 6.7, 7.4, 7.95, 10.2, 12.2)  # kbit/s


class CodecFormat(NamedTuple):
    """How a codec is run: FFmpeg's names, the rate in Hz that it codes at, its bit rates in kbit/s."""

    encoder: str
    decoder: str
    samples: str  # FFmpeg's sample format
    rate: int
    bitrates: Range
    delay: int = 0  # samples at `rate` from an input to its output that the decoder does not cut off
    band: Range | None = None  # Hz, of the line in front of it


FORMATS = {
    "mu_law": CodecFormat("pcm_mulaw", "pcm_mulaw", "s16", 8000, (64, 64), band=TELEPHONE),
    "a_law": CodecFormat("pcm_alaw", "pcm_alaw", "s16", 8000, (64, 64), band=TELEPHONE),
    "amr_nb": CodecFormat("libopencore_amrnb", "amrnb", "s16", 8000, (4.75, 12.2), 40, TELEPHONE),
    "g722": CodecFormat("g722", "g722", "s16", 16000, (64, 64), 22),
    "mp3": CodecFormat("libmp3lame", "mp3float", "fltp", 16000, (8, 160)),
    "aac": CodecFormat("aac", "aac", "fltp", 16000, (8, 96), 1024),
    "opus": CodecFormat("libopus", "libopus", "flt", 16000, (6, 64)),
}
FormatName = Literal["mu_law", "a_law", "amr_nb", "g722", "mp3", "aac", "opus"]


@dataclass(frozen=True)
class Codec(Transform):
    """Encodes and decodes with one of `formats` for each utterance, at a bit rate that it and `bitrates` allow.

    G.711 (μ-law and A-law), G.722 and Opus are among the lines of ASVspoof 2021's LA task, mp3 and AAC among the
    compressions of its DF task (Yamagishi et al., arXiv 2109.00537); Cohen et al., arXiv 2110.10491, train with them.
    AMR-NB is the codec of mobile telephony. G.711 and AMR-NB run at 8 kHz behind the telephone band of 300–3400 Hz. The
    output is aligned with the input; samples above full scale are clipped. Raises UserError when PyAV lacks an encoder.
    """

    name: ClassVar[str] = "codec"
    formats: tuple[FormatName, ...] = tuple(FORMATS)
    bitrates: Range = (4.0, 160.0)  # kbit/s

    def check(self):
        self.require(bool(self.formats), "formats", "at least one")
        self.require_range("bitrates", 1)
        for name in self.formats:
            low, high = FORMATS[name].bitrates
            fits = self.bitrates[0] <= high and self.bitrates[1] >= low
            self.require(fits, "bitrates", f"some of {name}'s {low:g} … {high:g} kbit/s")
        lacking = sorted(name for name in self.formats if not _has_encoder(FORMATS[name].encoder))
        if lacking:
            there = ", ".join(name for name in FORMATS if name not in lacking and _has_encoder(FORMATS[name].encoder))
            raise UserError(f"{self.name}.formats: this PyAV has no encoder of {', '.join(lacking)}", f"of {there}")

    def apply(self, x, rng):
        name = self.formats[rng.integers(len(self.formats))]
        kind = FORMATS[name]
        low, high = max(self.bitrates[0], kind.bitrates[0]), min(self.bitrates[1], kind.bitrates[1])
        bitrate = rng.uniform(low, high)
        if name == "amr_nb":
            bitrate = min(AMR_MODES, key=lambda mode: abs(mode - bitrate))
        return through_codec(x, kind, bitrate)


def _has_encoder(name: str) -> bool:
    import av

    try:
        return av.Codec(name, "w").is_encoder
    except ValueError:  # UnknownCodecError
        return False


def through_codec(x: np.ndarray, kind: CodecFormat, bitrate: float) -> np.ndarray:
    """(n,) float32 → (n,) float32 encoded at `bitrate` kbit/s and decoded, aligned with `x`."""
    line = x if kind.band is None else filter_zero_phase(x, lambda f: butterworth_gains(f, *kind.band, order=8))
    at_codec_rate = resample(np.clip(line, -1, 1), SAMPLE_RATE, kind.rate)
    decoded, rate = decode(kind, *encode(kind, at_codec_rate, bitrate))
    decoded = decoded[kind.delay * rate // kind.rate :]
    y = resample(decoded, rate, SAMPLE_RATE)[: len(x)]
    return np.pad(y, (0, len(x) - len(y)))  # a resampler may end one sample early


def encode(kind: CodecFormat, samples: np.ndarray, bitrate: float) -> tuple[list, bytes | None]:
    """`samples` (n,) at the codec's rate → packets, and the stream's header.

    Zeros behind the samples make both codecs give out the last of them.
    """
    import av

    encoder = av.CodecContext.create(kind.encoder, "w")
    encoder.sample_rate, encoder.layout, encoder.format = kind.rate, "mono", kind.samples
    encoder.time_base, encoder.bit_rate = Fraction(1, kind.rate), round(1000 * bitrate)
    if kind.encoder == "libopus":
        encoder.options = {"application": "voip"}
    encoder.open()
    size = encoder.frame_size or 160
    frames = -(-(len(samples) + kind.delay) // size) + 1
    samples = np.pad(samples, (0, frames * size - len(samples)))
    if kind.samples == "s16":
        samples = np.rint(samples * 32767).astype(np.int16)
    packets = []
    for first in range(0, len(samples), size):
        frame = av.AudioFrame.from_ndarray(samples[None, first : first + size], kind.samples, "mono")
        frame.sample_rate, frame.pts, frame.time_base = kind.rate, first, encoder.time_base
        packets += encoder.encode(frame)
    return packets + encoder.encode(None), encoder.extradata


def decode(kind: CodecFormat, packets: list, header: bytes | None) -> tuple[np.ndarray, int]:
    """The samples (n,) float32 of the packets, and their rate in Hz."""
    import av

    decoder = av.CodecContext.create(kind.decoder, "r")
    decoder.sample_rate, decoder.layout = kind.rate, "mono"
    if header:
        decoder.extradata = header
    frames = [frame for packet in [*packets, None] for frame in decoder.decode(packet)]
    samples = np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames])
    if samples.dtype == np.int16:
        samples = samples / np.float32(32767)
    return samples, frames[0].sample_rate
