"""RawBoost (Tak et al., arXiv 2111.04433): the noise of telephone lines, made from the speech itself."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy import fft

from audio.filters import convolve, fast_length
from audio.levels import within_full_scale
from audio.noise import add_noise
from audio.transforms import NYQUIST, Range, Transform


@dataclass(frozen=True)
class RawBoost(Transform):
    """RawBoost: simulates what telephony does to speech, without recordings of noise or rooms.

    lnl (linear and non-linear convolutive noise): powers of the signal, each through notch filters, summed. isd
    (impulsive signal-dependent noise): a random fraction of the samples is changed in proportion to the sample. ssi
    (stationary signal-independent noise): white noise through notch filters, added at some SNR. `+` is series and `|`
    parallel: the published algorithms are 1 lnl, 2 isd, 3 ssi (their choice for DF), 4 lnl+isd+ssi, 5 lnl+isd (for
    LA), 6 lnl+ssi, 7 isd+ssi, 8 lnl|isd. The defaults are the published values; comments give the published names. lnl
    removes DC. After lnl, after isd and after their sum a peak above full scale is scaled down to it.
    """

    name: ClassVar[str] = "rawboost"
    combination: Literal["lnl", "isd", "ssi", "lnl+isd+ssi", "lnl+isd", "lnl+ssi", "isd+ssi", "lnl|isd"] = "lnl+isd"
    powers: int = 5  # N_f: x, x², … x⁵
    notches: int = 5  # nBands: of each filter
    centre: Range = (20.0, 8000.0)  # Hz, minF and maxF
    width: Range = (100.0, 1000.0)  # Hz, minBW and maxBW
    taps: tuple[int, int] = (10, 100)  # minCoeff and maxCoeff of each notch; an even number becomes the next odd one
    gain: Range = (0.0, 0.0)  # dB, minG and maxG: the filter's highest gain
    bias: Range = (5.0, 20.0)  # dB, minBiasLinNonLin and max…: how much lower the gain of the powers above 1 is
    impulses: float = 10.0  # %, P: the largest fraction of samples that isd changes
    jump: float = 2.0  # g_sd: the largest change, relative to the sample
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
        self.require(0 <= self.jump <= 1000, "jump", "0 … 1000")
        self.require_range("snr", -100, 100)

    def apply(self, x, rng):
        if self.combination == "lnl|isd":
            return within_full_scale(self._lnl(x, rng) + self._isd(x, rng))
        for step in self.combination.split("+"):
            x = {"lnl": self._lnl, "isd": self._isd, "ssi": self._ssi}[step](x, rng)
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
        return within_full_scale(y - y.mean())

    def _isd(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        chosen = rng.choice(len(x), int(len(x) * rng.uniform(0, self.impulses) / 100), replace=False, shuffle=False)
        y = x.copy()
        y[chosen] *= 1 + self.jump * rng.uniform(-1, 1, len(chosen)) * rng.uniform(-1, 1, len(chosen))
        return within_full_scale(y)

    def _ssi(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        taps = notch_filters(rng, np.zeros(1), self.notches, self.centre, self.width, self.taps)[0]
        noise = convolve(rng.standard_normal(len(x), np.float32), taps)
        return add_noise(x, noise, rng.uniform(*self.snr))


def notch_filters(
    rng: np.random.Generator, gains: np.ndarray, notches: int, centre: Range, width: Range, taps: tuple[int, int]
) -> np.ndarray:
    """Linear-phase FIR filters (F, L), L odd, with the given highest gains (F,) dB and random stop bands.

    Each is a chain of `notches` Hamming-windowed band stops (as scipy.signal.firwin designs them, but for a gain that
    cancels). The highest gain is taken over 512 frequencies, as published. All filters are designed at once, by their
    spectra.
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
    size = max(1024, fast_length(length))  # 1024: 512 frequencies and Nyquist
    chain = fft.rfft(bands, size).prod(axis=1)
    levels = 10 ** (gains / 20) / np.abs(chain).max(axis=1)
    return fft.irfft(chain * levels[:, None], size)[:, :length]
