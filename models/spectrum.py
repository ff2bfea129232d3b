"""Statistics over time of a chunk's short-time spectrum: (B, T) waveforms at 16 kHz → (B, size) each.

Vocoders and codecs leave more than wrong energies. They repeat patterns over frequency, smooth over time, and their
phase does not advance as that of a voice does. Each statistic here was kept because detectors of generators that were
left out of training err less with it (docs/generalise.md).

B batch, T samples, F frequency bins, N frames.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import SAMPLE_RATE, LogFilterBank

FLOOR = 1e-7  # power added before the logarithm
NO_PHASE = 1e-12  # power below which there is no phase
VARIANCE_FLOOR = 1e-6


class SpectrumStatistics(nn.Module):
    """Of frames of 32 ms: energies, their differences, and how alike neighbouring bins are. 257 bins.

    Mean and deviation of the log spectrum and of its absolute differences over time and over frequency; correlation
    over time of bins 1, 2 and 4 apart.
    """

    WINDOW, HOP, LAGS = 512, 160, (1, 2, 4)

    def __init__(self):
        super().__init__()
        self.register_buffer("fourier", fourier_kernels(self.WINDOW), persistent=False)
        self.logarithm = LogSpectrum(self.WINDOW)
        bins = len(self.logarithm.centres)
        self.size = 6 * bins - 2 + lagged_size(bins, self.LAGS)

    def forward(self, x: Tensor) -> Tensor:
        log = self.logarithm(power_spectrum(x, self.fourier, self.HOP))  # (B, F, N)
        over_time = (log[:, :, 1:] - log[:, :, :-1]).abs()
        over_frequency = (log[:, 1:] - log[:, :-1]).abs()
        moments = [mean_and_deviation(each, dim=2) for each in (log, over_time, over_frequency)]
        return torch.cat([*moments, correlation_over_frequency(log, self.LAGS)], dim=1)


class HarmonicStatistics(nn.Module):
    """Of frames of 64 ms, which resolve harmonics: correlation over time of bins 1, 2, 4 and 8 apart. 513 bins."""

    WINDOW, HOP, LAGS = 1024, 256, (1, 2, 4, 8)

    def __init__(self):
        super().__init__()
        self.register_buffer("fourier", fourier_kernels(self.WINDOW), persistent=False)
        self.logarithm = LogSpectrum(self.WINDOW)
        self.size = lagged_size(len(self.logarithm.centres), self.LAGS)

    def forward(self, x: Tensor) -> Tensor:
        return correlation_over_frequency(self.logarithm(power_spectrum(x, self.fourier, self.HOP)), self.LAGS)


class PhaseStatistics(nn.Module):
    """Of the phase, in frames of 32 ms every 4 ms. F = 255 bins: those at both ends have none.

    The phase's difference between neighbouring bins is the group delay, that between neighbouring frames, less what the
    bin's frequency makes of it, the deviation of the instantaneous frequency. Mean and deviation of the absolute value
    of both, and the autocorrelation of the second one's sine at 1, 2 and 4 frames.
    """

    WINDOW, HOP, LAGS = 512, 64, (1, 2, 4)

    def __init__(self):
        super().__init__()
        bins = np.arange(1, self.WINDOW // 2)
        real, imaginary = fourier_kernels(self.WINDOW).chunk(2)
        self.register_buffer("fourier", torch.cat([real[bins], imaginary[bins]]), persistent=False)
        advance = 2 * np.pi * bins[:, None] * self.HOP / self.WINDOW
        turn = np.stack([np.cos(advance), np.sin(advance)]).astype(np.float32)
        self.register_buffer("turn", torch.from_numpy(turn), persistent=False)  # (2, F, 1)
        self.size = 2 * (len(bins) - 1) + (2 + len(self.LAGS)) * len(bins)

    def forward(self, x: Tensor) -> Tensor:
        real, imaginary = short_time_spectrum(x, self.fourier, self.HOP)  # (B, F, N) each
        # A frame begins half a window before its centre, which turns every second bin by half a circle.
        delay = torch.atan2(*rotation(-real[:, 1:], -imaginary[:, 1:], real[:, :-1], imaginary[:, :-1]))
        cos, sin = self.turn
        real_0, imaginary_0 = real[:, :, :-1], imaginary[:, :, :-1]
        expected = real_0 * cos - imaginary_0 * sin, real_0 * sin + imaginary_0 * cos
        across, along = rotation(real[:, :, 1:], imaginary[:, :, 1:], *expected)
        deviation = torch.atan2(across, along)
        moments = [mean_and_deviation(each.abs(), dim=2) for each in (delay, deviation)]
        # The sine, because an angle of half a circle has either sign.
        z = standardised(across / (across.square() + along.square()).sqrt())
        autocorrelations = [(z[:, :, lag:] * z[:, :, :-lag]).mean(dim=2) for lag in self.LAGS]
        return torch.cat([*moments, *autocorrelations], dim=1)


class LogSpectrum(LogFilterBank):
    """The natural logarithm of each bin of a Fourier transform of `size` samples."""

    def __init__(self, size: int):
        super().__init__()
        self.centres = frequencies(size)

    def forward(self, power: Tensor) -> Tensor:
        return (power + FLOOR).log()


def mean_and_deviation(x: Tensor, dim: int) -> Tensor:
    """Mean and standard deviation over `dim`, one after the other along the last dimension that is left."""
    mean = x.mean(dim=dim)
    deviation = ((x - mean.unsqueeze(dim)).square().mean(dim=dim) + VARIANCE_FLOOR).sqrt()
    return torch.cat([mean, deviation], dim=-1)


def standardised(x: Tensor) -> Tensor:
    """(B, F, N) with mean 0 and variance 1 over time."""
    x = x - x.mean(dim=2, keepdim=True)
    return x / (x.square().mean(dim=2, keepdim=True) + VARIANCE_FLOOR).sqrt()


def correlation_over_frequency(log: Tensor, lags: tuple[int, ...]) -> Tensor:
    """(B, F, N) → (B, lagged_size(F, lags)): Pearson's correlation over time of each bin with the one `lag` above."""
    z = standardised(log)
    return torch.cat([(z[:, lag:] * z[:, :-lag]).mean(dim=2) for lag in lags], dim=1)


def lagged_size(bins: int, lags: tuple[int, ...]) -> int:
    return sum(bins - lag for lag in lags)


def rotation(real: Tensor, imaginary: Tensor, real_before: Tensor, imaginary_before: Tensor) -> tuple[Tensor, Tensor]:
    """The rotation from one complex number to another as a vector across and along it; without sound there is none."""
    along = real * real_before + imaginary * imaginary_before
    return imaginary * real_before - real * imaginary_before, along + NO_PHASE


def frequencies(size: int) -> np.ndarray:
    """(bins,) Hz of a Fourier transform of `size` samples."""
    return np.arange(size // 2 + 1) * SAMPLE_RATE / size


def fourier_kernels(window: int) -> Tensor:
    """(2 · bins, 1, window): real parts, then imaginary parts of the waves of a Fourier transform, under a Hann window.

    As a convolution the transform exports everywhere and adds up in the same order on every run.
    """
    n, k = np.arange(window), np.arange(window // 2 + 1)
    waves = np.exp(-2j * np.pi * k[:, None] * n / window) * (0.5 - 0.5 * np.cos(2 * np.pi * n / window))
    return torch.from_numpy(np.concatenate([waves.real, waves.imag])[:, None].astype(np.float32))


def short_time_spectrum(x: Tensor, kernels: Tensor, hop: int) -> tuple[Tensor, Tensor]:
    """(B, T) → real and imaginary parts, (B, bins, 1 + ⌊T / hop⌋) each, the first frame centred on the first sample."""
    half = kernels.shape[2] // 2
    waves = F.conv1d(F.pad(x[:, None], (half, half), mode="reflect"), kernels, stride=hop)
    return waves.chunk(2, dim=1)


def power_spectrum(x: Tensor, kernels: Tensor, hop: int) -> Tensor:
    """(B, T) → (B, bins, 1 + ⌊T / hop⌋)."""
    real, imaginary = short_time_spectrum(x, kernels, hop)
    return real.square() + imaginary.square()
