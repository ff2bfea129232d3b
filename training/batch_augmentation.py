"""Augmentation of whole batches on the device that trains, for networks that train faster than a CPU augments.

`audio/augmentation.py` has the same changes one utterance at a time, with real codecs; here a codec is the rounding of
Fourier coefficients. All random numbers come from torch's generators.

B batch, T samples at 16 kHz, K frequency bins. Waveforms (B, T) float32.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from models.layers import at_level
from models.spectrum import SAMPLE_RATE

NYQUIST = SAMPLE_RATE // 2
MU = 255
MOMENTUM = 0.9  # of the fast Griffin-Lim algorithm (Perraudin et al., WASPAA 2013)


def augment(x: Tensor, untouched: float = 0.35) -> Tensor:
    """A random share of (B, T) stays as it is but for its level; the others get some of the changes below."""
    clean = at_level(x)
    x = torch.fft.irfft(room(respond(torch.fft.rfft(clean)), x.shape[1]), n=x.shape[1])
    x = some(x, 0.4, noisy(x))
    coded = torch.randperm(len(x), device=x.device)[: max(1, len(x) // 5)]
    x = x.index_copy(0, coded, rounded_spectrum(x[coded]))
    x = some(x, 0.08, mu_law(x))
    return some(x, untouched, clean) * 10 ** uniform(x, -0.5, 0.5)


def uniform(x: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    """(B, 1) random numbers on x's device."""
    return low + (high - low) * torch.rand(len(x), 1, device=x.device)


def some(x: Tensor, probability: float, changed: Tensor) -> Tensor:
    return torch.where(uniform(x) < probability, changed, x)


def respond(spectrum: Tensor) -> Tensor:
    """Frequency responses on (B, K): of another microphone in half, a low-pass in 30 %, a high-pass in 20 %."""
    size = spectrum.shape[1]
    hertz, level = torch.linspace(0, NYQUIST, size, device=spectrum.device), torch.zeros_like(spectrum.real)
    knots = torch.randn(len(spectrum), 1, 10, device=spectrum.device) * uniform(spectrum, 2, 8)[:, :, None]
    response = F.interpolate(knots, size=size, mode="linear", align_corners=True)[:, 0]
    highest = 2500 + 6000 * uniform(spectrum).sqrt()
    low_pass = -8.7 * F.softplus(3 * (hertz - highest) / uniform(spectrum, 30, 430))
    high_pass = -8.7 * F.softplus((30 + 400 * uniform(spectrum).square() - hertz) / 30)
    for probability, decibels in ((0.5, response), (0.3, low_pass), (0.2, high_pass)):
        level = some(level, probability, level + decibels)
    return spectrum * 10 ** (level.clamp(min=-90) / 20)


def room(spectrum: Tensor, samples: int) -> Tensor:
    """Reverberation in 20 % of (B, K), spectra of so many samples: decaying noise, up to 15 dB below the sound."""
    time = torch.arange(min(samples, NYQUIST), device=spectrum.device) / SAMPLE_RATE
    noise = torch.randn(len(spectrum), len(time), device=spectrum.device)
    tail = noise * torch.exp(-6.9 * time / uniform(spectrum, 0.1, 0.6))
    tail = tail / tail.norm(dim=1, keepdim=True) * 10 ** uniform(spectrum, -0.75, 0)
    tail[:, 0] = 1
    return some(spectrum, 0.2, spectrum * torch.fft.rfft(tail, n=samples))


def noisy(x: Tensor) -> Tensor:
    """With stationary noise 8 to 40 dB below x, whose power falls by 0 to 6 dB an octave."""
    white = torch.fft.rfft(torch.randn_like(x))
    kilohertz = torch.linspace(0, NYQUIST / 1000, white.shape[1], device=x.device)
    noise = torch.fft.irfft(white * kilohertz.clamp(min=0.05) ** -uniform(x), n=x.shape[1])
    return x + noise * (x.norm(dim=1, keepdim=True) / noise.norm(dim=1, keepdim=True)) * 10 ** uniform(x, -2, -0.4)


def rounded_spectrum(x: Tensor) -> Tensor:
    """Fourier coefficients in steps that follow their neighbours' energy, as a transform codec of a low rate has."""
    size = (512, 1024)[int(torch.randint(2, ()))]
    window = torch.hann_window(size, device=x.device).sqrt()
    coefficients = torch.stft(x, size, size // 2, window=window, return_complex=True)
    bins = 2 * (size // 64) + 1
    energy = F.avg_pool2d(coefficients.abs().square()[:, None], (bins, 3), 1, (bins // 2, 1), count_include_pad=False)
    energy = energy[:, 0].sqrt() + 1e-9
    coarser = (energy.amax(dim=1, keepdim=True) / energy) ** uniform(x, 0, 0.3)[:, :, None]  # where it is masked
    step = uniform(x, 0.3, 2.5)[:, :, None] * energy * coarser
    rounded = torch.complex((coefficients.real / step).round() * step, (coefficients.imag / step).round() * step)
    return torch.istft(rounded, size, size // 2, window=window, length=x.shape[1])


def mu_law(x: Tensor) -> Tensor:
    """In 8 bits of G.711's curve."""
    peak, octaves = x.abs().amax(dim=1, keepdim=True).clamp(min=1e-5), math.log1p(MU)
    steps = (127 * torch.log1p(MU * (x / peak).abs()) / octaves).round() / 127
    return x.sign() * torch.expm1(steps * octaves) / MU * peak


def griffin_lim(x: Tensor) -> Tensor:
    """Copies of (B, T) with other phases, by up to 32 steps of the fast Griffin-Lim algorithm."""
    _, magnitude, window = analysed(x)
    size = len(window)
    angle, before = torch.exp(2j * math.pi * torch.rand_like(magnitude)), 0
    for _ in range(int(2 ** (5 * torch.rand(())))):
        y = torch.istft(magnitude * angle, size, size // 4, window=window, length=x.shape[1])
        found = torch.stft(y, size, size // 4, window=window, return_complex=True)
        angle = found - MOMENTUM / (1 + MOMENTUM) * before
        before, angle = found, angle / angle.abs().clamp(min=1e-8)
    return torch.istft(magnitude * angle, size, size // 4, window=window, length=x.shape[1])


def rephased(x: Tensor) -> Tensor:
    """Copies of (B, T) with its own phases, but for random errors of 0.2 to 1 rad, or for an offset of each bin.

    A vocoder's phases are like that: they go on as a voice's do, but do not fit together.
    """
    spectrum, magnitude, window = analysed(x)
    phase = spectrum.angle()
    if torch.rand(()) < 0.4:
        phase = phase + torch.randn_like(phase) * (0.2 + 0.8 * torch.rand(()))
    else:
        phase = phase + 2 * math.pi * torch.rand_like(phase[:, :, :1])
    return torch.istft(torch.polar(magnitude, phase), len(window), len(window) // 4, window=window, length=x.shape[1])


def analysed(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B, T) → spectrum (B, K, N), magnitudes (B, K, N) and window of a short-time transform at a quarter's hop.

    A random choice of windows, and of magnitudes: as they are, or what 80 or 128 mel energies keep of them.
    """
    size = (512, 1024, 800)[int(torch.randint(3, ()))]
    window = torch.hann_window(size, device=x.device)
    spectrum = torch.stft(x, size, size // 4, window=window, return_complex=True)
    magnitude = spectrum.abs()
    if mels := (80, 128, 0)[int(torch.randint(3, ()))]:
        filters = mel_triangles(mels, size // 2 + 1).to(x.device)
        magnitude = (torch.linalg.pinv(filters) @ (filters @ magnitude)).clamp(min=1e-5)
    return spectrum, magnitude, window


def mel_triangles(mels: int, bins: int) -> Tensor:
    """(mels, bins), of height 1 at equal distances in mel (O'Shaughnessy's formula)."""
    mel = 2595 * torch.log10(1 + torch.linspace(0, NYQUIST, bins) / 700)
    edges = torch.linspace(0, float(mel[-1]), mels + 2)
    width = edges[1] - edges[0]
    return torch.minimum((mel - edges[:-2, None]) / width, (edges[2:, None] - mel) / width).clamp(min=0)
