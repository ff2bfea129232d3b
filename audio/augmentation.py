"""Named waveform transforms for training, each with its paper; and a figure of what they do to a file.

    augmentation: [{name: rawboost, combination: lnl+isd}, {name: codec, probability: 0.3, formats: [mp3, opus]}]

in a `.conf` applies them in this order, each to a share `probability` of the utterances; docs/augmentation.md has every
name and parameter. A waveform is (n,) float32 at 16 kHz of full scale 1; it comes out finite, with the given level
unless its transform says otherwise, and may exceed full scale. The same generator state gives the same bits.

    python -m audio.augmentation speech.flac --output gallery.png --save folder_of_wav_files
"""

import difflib
import math
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from numpy import fft

from audio import SAMPLE_RATE, reading
from audio.chunks import CHUNK_SAMPLES, fit
from common.command import Parser, run
from common.errors import UserError
from common.files import replacing
from common.schema import parse, require

NYQUIST = SAMPLE_RATE / 2
FRAME = SAMPLE_RATE // 50  # 20 ms
PADDING = 4096  # samples of zeros behind what is filtered: both tails of a zero-phase response die out in them
FADE = SAMPLE_RATE // 500  # 2 ms: edges that make no click
TELEPHONE = (300.0, 3400.0)  # Hz
Range = tuple[float, float]  # lowest, highest: a value is drawn evenly from between for each utterance


@dataclass(frozen=True)
class Transform:
    """What all transforms share. A subclass adds its parameters, a `check` of them and `apply`."""

    name: ClassVar[str]
    whole: ClassVar[bool] = False  # True: needs the whole utterance, and may change its length
    probability: float = 1.0  # share of utterances that it is applied to

    def __post_init__(self):
        self.require(0 <= self.probability <= 1, "probability", "0 … 1")
        self.check()

    def check(self) -> None:
        """Raise UserError on a bad value."""

    def apply(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """(n,) float32, n ≥ 1, → a new array, (n,) unless `whole`."""
        raise NotImplementedError

    def require(self, holds: bool, key: str, expected: str) -> None:
        require(holds, f"{self.name}.{key}", expected, getattr(self, key))

    def require_range(self, key: str, least: float = -math.inf, most: float = math.inf) -> None:
        low, high = getattr(self, key)
        ends = [f"{word} {end:g}" for word, end in (("from", least), ("up to", most)) if math.isfinite(end)]
        self.require(least <= low <= high <= most, key, " ".join(["[lowest, highest]", *ends]))


# ------------------------------------------------------------------------------------------------------------- helpers


def _power(x: np.ndarray) -> float:
    return float(np.mean(np.square(x, dtype=np.float64)))


def _add_noise(x: np.ndarray, noise: np.ndarray, snr: float) -> np.ndarray:
    """`x` + `noise` scaled so that the ratio of their powers over all samples is `snr` dB; silence stays silence."""
    power = _power(noise)
    scale = math.sqrt(_power(x) / power / 10 ** (snr / 10)) if power > 0 else 0.0
    return x + np.float32(scale) * noise


def _like(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """`y` at the power of `x`; silence stays silence."""
    power = _power(y)
    return y * np.float32(math.sqrt(_power(x) / power) if power > 0 else 0.0)


def _within_full_scale(y: np.ndarray) -> np.ndarray:
    """`y` float32, scaled down to a peak of 1 if it is above."""
    return (y / max(1.0, np.abs(y).max())).astype(np.float32)


def _fast_length(count: int) -> int:
    """The least length from `count` on that is 1, 3, 5, 9 or 15 times a power of two, quick to transform."""
    return min(odd << max(0, math.ceil(math.log2(count / odd))) for odd in (1, 3, 5, 9, 15))


def _filtered(x: np.ndarray, response: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """`x` through the zero-phase filter with the given gains at frequencies in Hz."""
    size = _fast_length(len(x) + PADDING)
    gains = response(fft.rfftfreq(size, 1 / SAMPLE_RATE)).astype(np.float32)
    return fft.irfft(fft.rfft(x, size) * gains, size)[: len(x)]


def _convolved(x: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """The first (n,) samples of `x` * `taps`."""
    size = _fast_length(len(x) + len(taps) - 1)
    return fft.irfft(fft.rfft(x, size) * fft.rfft(taps.astype(np.float32), size), size)[: len(x)]


def _butterworth(f: np.ndarray, low: float | None, high: float | None, order: int) -> np.ndarray:
    """Gains that pass `low` to `high` Hz (None: no limit): 3 dB down there, then 6 dB an octave for each order."""
    gains = np.ones_like(f)
    with np.errstate(divide="ignore"):
        if low is not None:
            gains /= np.sqrt(1 + (low / f) ** (2 * order))
        if high is not None:
            gains /= np.sqrt(1 + (f / high) ** (2 * order))
    return gains


def _audio_files(folder: str, key: str) -> list[Path]:
    """Of the folder and those in it, sorted by path. Raises UserError when there is none."""
    files = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in reading.ENDINGS)
    require(bool(files), key, "a folder with audio files", folder)
    return files


def _draw(rng: np.random.Generator, files: list[Path]) -> np.ndarray:
    """The samples of one of the files. Raises UserError when it cannot be read."""
    return reading.read(files[rng.integers(len(files))])


# ------------------------------------------------------------------------------------------------------------ RawBoost


@dataclass(frozen=True)
class RawBoost(Transform):
    """RawBoost (Tak et al., arXiv 2111.04433): what telephony does to speech, made without recordings of it.

    lnl (linear and non-linear convolutive noise): powers of the signal, each through notch filters, summed. isd
    (impulsive signal-dependent noise): a share of the samples jumps in proportion to itself. ssi (stationary
    signal-independent noise): white noise through notch filters at some SNR. `+` is series and `|` parallel: the
    published algorithms are 1 lnl, 2 isd, 3 ssi (their choice for DF), 4 lnl+isd+ssi, 5 lnl+isd (for LA), 6 lnl+ssi, 7
    isd+ssi, 8 lnl|isd. The defaults are the published values, whose names stand behind. lnl removes DC; after lnl,
    after isd and after their sum a peak above full scale is scaled down to it.
    """

    name: ClassVar[str] = "rawboost"
    combination: Literal["lnl", "isd", "ssi", "lnl+isd+ssi", "lnl+isd", "lnl+ssi", "isd+ssi", "lnl|isd"] = "lnl+isd"
    powers: int = 5  # N_f: x, x², … x⁵
    notches: int = 5  # nBands: of each filter
    centre: Range = (20.0, 8000.0)  # Hz, minF and maxF
    width: Range = (100.0, 1000.0)  # Hz, minBW and maxBW
    taps: tuple[int, int] = (10, 100)  # minCoeff and maxCoeff of each notch; an even number becomes the next odd one
    gain: Range = (0.0, 0.0)  # dB, minG and maxG: the filter's highest gain
    bias: Range = (5.0, 20.0)  # dB, minBiasLinNonLin and max…: how much less the powers above 1 have
    impulses: float = 10.0  # %, P: the highest share of samples that jump
    jump: float = 2.0  # g_sd: the highest jump, relative to the sample
    snr: Range = (10.0, 40.0)  # dB, SNRmin and SNRmax

    def check(self):
        self.require(1 <= self.powers <= 10, "powers", "1 … 10")
        self.require(1 <= self.notches <= 20, "notches", "1 … 20")
        self.require_range("centre", 0, NYQUIST)
        self.require_range("width", 1, NYQUIST)
        self.require_range("taps", 1, 1000)
        self.require_range("gain", -40, 40)
        self.require_range("bias", 0, 100)
        self.require(0 <= self.impulses <= 100, "impulses", "0 … 100 (%)")
        self.require(self.jump >= 0, "jump", "0 or more")
        self.require_range("snr", -100, 100)

    def apply(self, x, rng):
        if self.combination == "lnl|isd":
            return _within_full_scale(self._lnl(x, rng) + self._isd(x, rng))
        for part in self.combination.split("+"):
            x = {"lnl": self._lnl, "isd": self._isd, "ssi": self._ssi}[part](x, rng)
        return x

    def _lnl(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        from scipy.signal import oaconvolve

        gains = rng.uniform(*self.gain, self.powers)
        gains[1:] -= rng.uniform(*self.bias, self.powers - 1)
        filters = notch_filters(rng, gains, self.notches, self.centre, self.width, self.taps)
        powers = [np.clip(x, -1e3, 1e3)]  # far above full scale, so that float32 holds any power of it
        for _ in range(1, self.powers):
            powers.append(powers[-1] * powers[0])
        y = oaconvolve(np.stack(powers), filters.astype(np.float32), mode="same", axes=1).sum(axis=0)
        return _within_full_scale(y - y.mean())

    def _isd(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        chosen = rng.choice(len(x), int(len(x) * rng.uniform(0, self.impulses) / 100), replace=False, shuffle=False)
        y = x.copy()
        y[chosen] *= 1 + self.jump * rng.uniform(-1, 1, len(chosen)) * rng.uniform(-1, 1, len(chosen))
        return _within_full_scale(y)

    def _ssi(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        taps = notch_filters(rng, np.zeros(1), self.notches, self.centre, self.width, self.taps)[0]
        noise = _convolved(rng.standard_normal(len(x), np.float32), taps)
        return _add_noise(x, noise, rng.uniform(*self.snr))


def notch_filters(
    rng: np.random.Generator, gains: np.ndarray, notches: int, centre: Range, width: Range, taps: tuple[int, int]
) -> np.ndarray:
    """Linear-phase FIR filters (F, L), L odd, with the given highest gains (F,) dB and random stop bands.

    Each is a chain of `notches` Hamming-windowed band stops (as scipy.signal.firwin designs them, but for a gain that
    cancels). The highest gain is that over 512 frequencies, as published. All are designed at once, by their spectra.
    """
    shape = (len(gains), notches, 1)
    middle, half = rng.uniform(*centre, shape), rng.uniform(*width, shape) / 2
    count = rng.integers(taps[0], taps[1], shape, endpoint=True) // 2 * 2 + 1
    low, high = np.maximum(middle - half, 1e-3), np.minimum(middle + half, NYQUIST - 1e-3)
    reach = int(count.max()) // 2
    n = np.arange(-reach, reach + 1)
    stop = (high * np.sinc(high / NYQUIST * n) - low * np.sinc(low / NYQUIST * n)) / NYQUIST
    window = 0.54 + 0.46 * np.cos(2 * np.pi * n / np.maximum(count - 1, 1))
    bands = np.where(abs(n) <= count // 2, ((n == 0) - stop) * window, 0)
    length = 2 * notches * reach + 1
    size = max(1024, _fast_length(length))  # 1024: 512 frequencies and Nyquist
    chain = fft.rfft(bands, size).prod(axis=1)
    levels = 10 ** (gains / 20) / np.abs(chain).max(axis=1)
    return fft.irfft(chain * levels[:, None], size)[:, :length]


# ------------------------------------------------------------------------------------------------------- transmission


class Format(NamedTuple):
    """How a codec is run: FFmpeg's names, the rate in Hz that it codes at, its bit rates in kbit/s."""

    encoder: str
    decoder: str
    samples: str  # FFmpeg's sample format
    rate: int
    bitrates: Range
    delay: int = 0  # samples at `rate` from an input to its output that the decoder does not cut off
    band: Range | None = None  # Hz, of the line before it


FORMATS = {
    "mu_law": Format("pcm_mulaw", "pcm_mulaw", "s16", 8000, (64, 64), band=TELEPHONE),
    "a_law": Format("pcm_alaw", "pcm_alaw", "s16", 8000, (64, 64), band=TELEPHONE),
    "amr_nb": Format("libopencore_amrnb", "amrnb", "s16", 8000, (4.75, 12.2), 40, TELEPHONE),
    "g722": Format("g722", "g722", "s16", 16000, (64, 64), 22),
    "mp3": Format("libmp3lame", "mp3float", "fltp", 16000, (8, 160)),
    "aac": Format("aac", "aac", "fltp", 16000, (8, 96), 1024),
    "opus": Format("libopus", "libopus", "flt", 16000, (6, 64)),
}
AMR_MODES = (4.75, 5.15, 5.9, 6.7, 7.4, 7.95, 10.2, 12.2)  # kbit/s
FormatName = Literal["mu_law", "a_law", "amr_nb", "g722", "mp3", "aac", "opus"]


@dataclass(frozen=True)
class Codec(Transform):
    """A way through a codec: one of `formats` for each utterance, at a bit rate that it and `bitrates` allow.

    G.711 (μ-law and A-law), G.722 and Opus are among the lines of ASVspoof 2021's LA task, mp3 and AAC among the
    compressions of its DF task (Yamagishi et al., arXiv 2109.00537); trained with in Cohen et al., arXiv 2110.10491.
    AMR-NB is mobile telephony's. G.711 and AMR-NB run at 8 kHz behind the telephone band of 300–3400 Hz. The output
    lies in time where the input does; what exceeds full scale is clipped. Raises UserError when PyAV lacks an encoder.
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


def through_codec(x: np.ndarray, kind: Format, bitrate: float) -> np.ndarray:
    """(n,) float32 → (n,) float32 encoded at so many kbit/s and decoded, aligned with `x`."""
    line = x if kind.band is None else _filtered(x, lambda f: _butterworth(f, *kind.band, order=8))
    coded = _resampled(np.clip(line, -1, 1), SAMPLE_RATE, kind.rate)
    decoded, rate = _decode(kind, *_encode(kind, coded, bitrate))
    decoded = decoded[kind.delay * rate // kind.rate :]
    return _of_length(_resampled(decoded, rate, SAMPLE_RATE), len(x))


def _of_length(x: np.ndarray, count: int) -> np.ndarray:
    """The first `count` samples; a resampler may end one early, which becomes zero."""
    return np.pad(x[:count], (0, max(0, count - len(x))))


def _encode(kind: Format, samples: np.ndarray, bitrate: float) -> tuple[list, bytes | None]:
    """Packets and the stream's header. Zeros behind the samples push the last of them out of both codecs' memories."""
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


def _decode(kind: Format, packets: list, header: bytes | None) -> tuple[np.ndarray, int]:
    """Samples float32 and their rate."""
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


def _resampled(x: np.ndarray, rate: float, new_rate: float) -> np.ndarray:
    import soxr

    return x if rate == new_rate else soxr.resample(x, rate, new_rate)


@dataclass(frozen=True)
class Band(Transform):
    """A band limit: what is below one drawn frequency and above another is weakened, by 6 dB an octave per order.

    Microphones, loudspeakers and resamplers do so, and a detector must not lean on the bands that they take away (Cohen
    et al., arXiv 2110.10491). Zero phase; the level falls by what is cut off.
    """

    name: ClassVar[str] = "band"
    lowest: Range | None = (20.0, 500.0)  # Hz, 3 dB down; null: no limit
    highest: Range | None = (2500.0, 7500.0)  # Hz
    order: tuple[int, int] = (2, 8)

    def check(self):
        self.require(self.lowest is not None or self.highest is not None, "highest", "a limit here or in 'lowest'")
        for key in ("lowest", "highest"):
            if getattr(self, key) is not None:
                self.require_range(key, 1, NYQUIST)
        self.require_range("order", 1, 20)

    def apply(self, x, rng):
        low, high = (limit and rng.uniform(*limit) for limit in (self.lowest, self.highest))
        order = int(rng.integers(*self.order, endpoint=True))
        return _filtered(x, lambda f: _butterworth(f, low, high, order))


# ---------------------------------------------------------------------------------------------------- noise and rooms


EXPONENTS = {"white": 0.0, "pink": 1.0, "brown": 2.0}  # power falls as frequency to this power


@dataclass(frozen=True)
class FromFolder(Transform):
    """A transform that draws on the recordings in a folder, if one is given."""

    folder: str | None = None  # of audio files, in folders of its own too; null: synthetic

    def check(self):
        if self.folder is not None:
            _ = self.files

    @cached_property
    def files(self) -> list[Path]:
        return _audio_files(self.folder, f"{self.name}.folder")


@dataclass(frozen=True)
class Noise(FromFolder):
    """Noise at a drawn signal-to-noise ratio of powers over the whole crop; the speech keeps its level.

    From `folder`, such as MUSAN (Snyder et al., arXiv 1510.08484), a random part of one of its files, a short one
    repeated; or synthetic, of one of `colours`. A file that cannot be read raises UserError.
    """

    name: ClassVar[str] = "noise"
    snr: Range = (5.0, 30.0)  # dB
    colours: tuple[Literal["white", "pink", "brown"], ...] = ("white", "pink", "brown")

    def check(self):
        self.require_range("snr", -100, 100)
        self.require(bool(self.colours), "colours", "at least one")
        super().check()

    def apply(self, x, rng):
        if self.folder is not None:
            noise = fit(_draw(rng, self.files), len(x), rng)
        else:
            noise = coloured(rng, len(x), EXPONENTS[self.colours[rng.integers(len(self.colours))]])
        return _add_noise(x, noise, rng.uniform(*self.snr))


def coloured(rng: np.random.Generator, count: int, exponent: float) -> np.ndarray:
    """(count,) Gaussian noise whose power density falls as f^−exponent, level below 20 Hz."""
    return _filtered(rng.standard_normal(count, np.float32), lambda f: np.maximum(f, 20) ** (-exponent / 2))


@dataclass(frozen=True)
class Room(FromFolder):
    """Reverberation; the direct sound stays in its place and the output has the input's power.

    From `folder`, recorded impulse responses (Ko et al., ICASSP 2017, doi 10.1109/ICASSP.2017.7953152), each from its
    highest peak on; or synthetic, Polack's model (1988): Gaussian noise under an exponential decay by 60 dB in `rt60`,
    which begins 1 to 10 ms after the direct sound. A file that cannot be read raises UserError.
    """

    name: ClassVar[str] = "room"
    rt60: Range = (0.15, 0.9)  # s
    drr: Range = (-5.0, 15.0)  # dB, energy of the direct sound over that of the reverberation

    def check(self):
        self.require_range("rt60", 0.01, 10)
        self.require_range("drr", -100, 100)
        super().check()

    def apply(self, x, rng):
        if self.folder is not None:
            response = _draw(rng, self.files)
            response = response[np.abs(response).argmax() :]
        else:
            response = impulse_response(rng, rng.uniform(*self.rt60), rng.uniform(*self.drr))
        return _like(_convolved(x, response[: len(x)]), x)


def impulse_response(rng: np.random.Generator, rt60: float, drr: float) -> np.ndarray:
    """(n,) float32: 1 for the direct sound, then a tail that has fallen by 60 dB `rt60` seconds after its start."""
    gap = int(SAMPLE_RATE * rng.uniform(0.001, 0.010))
    time = np.arange(max(1, round(rt60 * SAMPLE_RATE))) / SAMPLE_RATE
    tail = rng.standard_normal(len(time)) * 10 ** (-3 * time / rt60)
    tail *= math.sqrt(10 ** (-drr / 10) / np.vecdot(tail, tail))
    return np.concatenate([[1.0], np.zeros(gap), tail]).astype(np.float32)


# ---------------------------------------------------------------------------------------- time, level and hidden parts


@dataclass(frozen=True)
class Speed(Transform):
    """Faster or slower by resampling, which moves the pitch too (Ko et al., Interspeech 2015, audio augmentation)."""

    name: ClassVar[str] = "speed"
    whole: ClassVar[bool] = True
    ratio: Range = (0.9, 1.1)  # 1.1: 1.1 times as fast, length / 1.1

    def check(self):
        self.require_range("ratio", 0.25, 4)

    def apply(self, x, rng):
        y = _resampled(x, SAMPLE_RATE * rng.uniform(*self.ratio), SAMPLE_RATE)
        return y if len(y) else x.copy()  # a sample or two have no length to change


@dataclass(frozen=True)
class Silence(Transform):
    """Cuts a drawn share of the silence before and behind the speech, or adds some: its length tells the classes of
    ASVspoof2019 apart (Müller et al., arXiv 2106.12914), and must not.

    Silence are the 20 ms frames at either end that are `threshold` dB or more below the loudest frame. What is added is
    white noise of the quietest frame's power.
    """

    name: ClassVar[str] = "silence"
    whole: ClassVar[bool] = True
    threshold: float = 40.0  # dB
    cut: Range = (0.0, 1.0)  # share, drawn for each end
    added: Range = (0.0, 0.0)  # s, drawn for each end

    def check(self):
        self.require(self.threshold > 0, "threshold", "above 0 dB")
        self.require_range("cut", 0, 1)
        self.require_range("added", 0, 60)

    def apply(self, x, rng):
        starts = np.arange(0, len(x), FRAME)
        power = np.add.reduceat(np.square(x, dtype=np.float64), starts) / np.diff(starts, append=len(x))
        loud = np.flatnonzero(power * 10 ** (self.threshold / 10) > power.max())
        first, last = (starts[loud[0]], min(starts[loud[-1]] + FRAME, len(x))) if len(loud) else (0, len(x))
        before, behind = rng.uniform(*self.cut, 2)
        kept = x[round(before * first) : len(x) - round(behind * (len(x) - last))]
        counts = (SAMPLE_RATE * rng.uniform(*self.added, 2)).astype(int)
        noise = [np.float32(math.sqrt(power.min())) * rng.standard_normal(count, np.float32) for count in counts]
        return np.concatenate([noise[0], kept, noise[1]])


@dataclass(frozen=True)
class Gain(Transform):
    """Louder or quieter."""

    name: ClassVar[str] = "gain"
    decibels: Range = (-12.0, 6.0)

    def check(self):
        self.require_range("decibels", -100, 100)

    def apply(self, x, rng):
        return x * np.float32(10 ** (rng.uniform(*self.decibels) / 20))


@dataclass(frozen=True)
class Polarity(Transform):
    """The waveform upside down: nobody hears it, and microphones and lines do it."""

    name: ClassVar[str] = "polarity"
    probability: float = 0.5

    def apply(self, x, rng):
        return -x


@dataclass(frozen=True)
class Offset(Transform):
    """Another DC offset than the recording has: sound cards and vocoders leave one, which may tell a corpus's classes
    apart and says nothing of speech.
    """

    name: ClassVar[str] = "offset"
    level: Range = (-0.001, 0.001)  # of full scale: the crop's mean

    def check(self):
        self.require_range("level", -1, 1)

    def apply(self, x, rng):
        return x - x.mean(dtype=np.float64).astype(np.float32) + np.float32(rng.uniform(*self.level))


@dataclass(frozen=True)
class Clipping(Transform):
    """Overload: the drawn share of the samples that are loudest is cut to the level of the next one."""

    name: ClassVar[str] = "clipping"
    share: Range = (0.0, 0.05)

    def check(self):
        self.require_range("share", 0, 1)

    def apply(self, x, rng):
        limit = np.quantile(np.abs(x), 1 - rng.uniform(*self.share))
        return np.clip(x, -limit, limit)


@dataclass(frozen=True)
class TimeMask(Transform):
    """Spans of silence with edges of 2 ms: SpecAugment's time masks (Park et al., arXiv 1904.08779) on the waveform."""

    name: ClassVar[str] = "time_mask"
    count: int = 2
    seconds: Range = (0.0, 0.3)  # of each

    def check(self):
        self.require(1 <= self.count <= 100, "count", "1 … 100")
        self.require_range("seconds", 0)

    def apply(self, x, rng):
        time, y = np.arange(len(x)), x
        for width in np.minimum(rng.uniform(*self.seconds, self.count) * SAMPLE_RATE, len(x)):
            start = rng.uniform(0, len(x) - width)
            outside = np.maximum(start - time, time - (start + width))
            y = y * np.clip(outside / FADE, 0, 1).astype(np.float32)
        return y


@dataclass(frozen=True)
class FrequencyMask(Transform):
    """Bands of silence with edges of 50 Hz: SpecAugment's frequency masks (arXiv 1904.08779) on the waveform."""

    name: ClassVar[str] = "frequency_mask"
    count: int = 2
    hertz: Range = (0.0, 1000.0)  # width of each

    def check(self):
        self.require(1 <= self.count <= 100, "count", "1 … 100")
        self.require_range("hertz", 0, NYQUIST)

    def apply(self, x, rng):
        widths = rng.uniform(*self.hertz, self.count)
        starts = rng.uniform(0, NYQUIST - widths)

        def response(f):
            outside = np.maximum(starts[:, None] - f, f - (starts + widths)[:, None])
            return np.clip(outside / 50, 0, 1).prod(axis=0)

        return _filtered(x, response)


# ------------------------------------------------------------------------------------------------------------ pipeline


_ALL = (RawBoost, Codec, Band, Noise, Room, Speed, Silence, Gain, Polarity, Offset, Clipping, TimeMask, FrequencyMask)
TRANSFORMS = {transform.name: transform for transform in _ALL}


@dataclass(frozen=True)
class Augmentation:
    """Transforms in their order; those that need the whole utterance come before the crop, whatever their place."""

    transforms: tuple[Transform, ...] = ()

    def whole(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A whole utterance (n,) float32, n ≥ 1, → a new one (m,), m ≥ 1. Raises UserError on a bad file of noise."""
        return self._apply(x, rng, whole=True)

    def crop(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A training crop (n,) float32, n ≥ 1, → a new one (n,). Raises UserError on a bad file of noise."""
        return self._apply(x, rng, whole=False)

    def _apply(self, x: np.ndarray, rng: np.random.Generator, whole: bool) -> np.ndarray:
        x = np.array(x, np.float32)
        for transform in self.transforms:
            if transform.whole == whole and rng.random() < transform.probability:
                x = transform.apply(x, rng)
        return x


def build(specs: list[dict]) -> Augmentation:
    """The transforms of a list of mappings, each a `name` and parameters. Raises UserError on what it does not know."""
    if not isinstance(specs, list | tuple):
        raise UserError("bad value of 'augmentation'", "a list of mappings, each with a name", repr(specs))
    return Augmentation(tuple(_transform(spec) for spec in specs))


def _transform(spec: object) -> Transform:
    if not isinstance(spec, dict) or "name" not in spec:
        raise UserError("bad value in 'augmentation'", "a mapping with a name, {name: rawboost}", repr(spec))
    name = str(spec["name"])
    if name not in TRANSFORMS:
        near = difflib.get_close_matches(name, TRANSFORMS, n=1, cutoff=0.5)
        nearest = f"'{near[0]}' or another of " if near else "one of "
        raise UserError("unknown augmentation", nearest + ", ".join(TRANSFORMS), repr(name))
    return parse(TRANSFORMS[name], {key: value for key, value in spec.items() if key != "name"}, f"{name}.")


# ------------------------------------------------------------------------------------------------------------- gallery


# What the figure shows: settings that can be seen.
EXAMPLES = {
    "rawboost, lnl+isd": {"name": "rawboost", "combination": "lnl+isd"},
    "rawboost, ssi": {"name": "rawboost", "combination": "ssi", "snr": [15, 15]},
    "codec, mu_law": {"name": "codec", "formats": ["mu_law"]},
    "codec, amr_nb 4.75 kbit/s": {"name": "codec", "formats": ["amr_nb"], "bitrates": [4.75, 4.75]},
    "codec, mp3 16 kbit/s": {"name": "codec", "formats": ["mp3"], "bitrates": [16, 16]},
    "codec, aac 16 kbit/s": {"name": "codec", "formats": ["aac"], "bitrates": [16, 16]},
    "codec, opus 8 kbit/s": {"name": "codec", "formats": ["opus"], "bitrates": [8, 8]},
    "band, 300–5000 Hz": {"name": "band", "lowest": [300, 300], "highest": [5000, 5000], "order": [8, 8]},
    "noise, pink, 10 dB": {"name": "noise", "colours": ["pink"], "snr": [10, 10]},
    "room, 0.8 s": {"name": "room", "rt60": [0.8, 0.8], "drr": [-3, -3]},
    "speed, 0.9": {"name": "speed", "ratio": [0.9, 0.9]},
    "silence, cut": {"name": "silence", "cut": [1, 1]},
    "clipping, 5 %": {"name": "clipping", "share": [0.05, 0.05]},
    "time_mask": {"name": "time_mask", "count": 4, "seconds": [0.15, 0.2]},
    "frequency_mask": {"name": "frequency_mask", "hertz": [600, 1000]},
}


def main() -> int:
    """Command line."""
    from plots.datasets import augmentation_gallery
    from plots.style import write_figure

    parser = Parser(description=__doc__)
    parser.add_argument("file", type=Path, help="an audio file of speech; its first 4 s are shown")
    parser.add_argument("--output", type=Path, required=True, help="the figure, a .png or .pdf file")
    parser.add_argument("--save", type=Path, metavar="DIR", help="also write each version as a wav file, to listen to")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same figure (default: %(default)s)")
    options = parser.parse_args()
    if options.output.suffix not in (".png", ".pdf"):
        raise UserError("--output", "a .png or .pdf file", options.output)
    if options.seed < 0:
        raise UserError("--seed", "0 or more", options.seed)
    speech = reading.read(options.file)[:CHUNK_SAMPLES]
    versions = {"original": speech}
    for title, spec in EXAMPLES.items():
        augmentation, rng = build([spec]), np.random.default_rng(options.seed)
        versions[title] = augmentation.crop(augmentation.whole(speech, rng), rng)
    figure = augmentation_gallery(versions, SAMPLE_RATE)
    write_figure(figure, options.output.with_suffix(""), [options.output.suffix[1:]])
    if options.save:
        _save(versions, options.save)
    return 0


def _save(versions: dict[str, np.ndarray], folder: Path) -> None:
    """Each version as a wav file of floats, which hold what exceeds full scale."""
    import soundfile

    for number, (title, samples) in enumerate(versions.items()):
        name = re.sub(r"\W+", "_", title).strip("_")
        with replacing(folder / f"{number:02}_{name}.wav") as path:
            soundfile.write(path, samples, SAMPLE_RATE, subtype="FLOAT")


if __name__ == "__main__":
    sys.exit(run(main))
