"""Whisper-Stats: statistics of Whisper's lower layers and of the spectrum, and one linear layer.

Whisper's encoder (Radford et al., arXiv 2212.04356, section 2.2) was trained on 680,000 hours of speech of all kinds of
microphones and languages. Its lower layers, kept as published, tell how something was said, the upper ones what was
said. They hear 80 mel energies; the statistics of a spectrum of 257 bins, and of its differences over time and
frequency, add the fine structure that mel filters hide. On generators and sources that were left out of training, a
linear layer on these means and deviations errs less than the same encoder fine-tuned (docs/generalise.md).

Parameters of the encoder have the names of transformers' WhisperEncoder, whose layers these equal;
`models/whisper_weights.py` reads published weights.

B batch, T samples, L mel frames (100 a second), N = ⌈L / 2⌉ frames of the encoder, H features, F frequency bins.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.schema import parse, require

from .layers import SAMPLE_RATE, LogFilterBank, fp32, output_layer, random_band

MAX_FRAMES = 1500  # positions of Whisper's encoder: 30 s
LEVEL, SILENCE = 0.05, 1e-5  # root mean square that every chunk is brought to; what lies below is not raised further


@dataclass(frozen=True)
class ModelConfig:
    """Keys of `model_config`. The defaults are those of Whisper base, but for the number of layers."""

    architecture: str
    nb_samp: int = 64600  # samples of a chunk
    layers: tuple[int, ...] = (1, 3)  # whose outputs are pooled, counted from 1 as the encoder's lowest
    hidden: int = 512  # H
    heads: int = 8
    mels: int = 80
    freeze: bool = True  # train the output layer only
    output: Literal["linear", "cosine"] = "linear"  # see `layers.output_layer`

    def __post_init__(self):
        for name in ("heads", "mels"):
            require(0 < getattr(self, name) <= 256, f"model_config.{name}", "1 … 256", getattr(self, name))
        fit = 4 <= self.hidden <= 4096 and self.hidden % self.heads == 0 and self.hidden % 2 == 0
        require(fit, "model_config.hidden", "an even multiple of heads up to 4096", self.hidden)
        rising = bool(self.layers) and self.layers == tuple(sorted(set(self.layers))) and self.layers[0] >= 1
        require(rising and self.layers[-1] <= 64, "model_config.layers", "rising numbers from 1 to 64", self.layers)
        longest = 2 * MAX_FRAMES * LogMel.HOP
        require(1600 <= self.nb_samp <= longest, "model_config.nb_samp", f"1600 … {longest}", self.nb_samp)


class Model(nn.Module):
    """Whisper-Stats. Raises UserError when `model_config` does not fit `ModelConfig`."""

    def __init__(self, model_config: dict):
        super().__init__()
        c = parse(ModelConfig, model_config, "model_config.")
        self.nb_samp, self.pooled = c.nb_samp, c.layers
        self.encoder = WhisperEncoder(c.layers[-1], c.hidden, c.heads, c.mels).requires_grad_(not c.freeze)
        self.spectrum = SpectrumStatistics()
        features = 2 * c.hidden * len(c.layers) + self.spectrum.size
        # Scale and shift stay 1 and 0, as the output layer has its own; without them no exporter knows the size.
        self.standardise = nn.BatchNorm1d(features).requires_grad_(False)
        self.out_layer = output_layer(c.output, features)

    def forward(self, x: Tensor, freq_aug: bool = False) -> tuple[Tensor, Tensor]:
        """Waveforms (B, T) at 16 kHz → hidden (B, features), logits (B, 2) of spoof and bona fide.

        freq_aug: flatten random neighbouring mel filters; only in training mode.
        """
        features = self.describe(x, freq_aug)
        with fp32(x):
            hidden = self.standardise(features)
            return hidden, self.out_layer(hidden)

    def describe(self, x: Tensor, freq_aug: bool = False) -> Tensor:
        """Waveforms (B, T) → the statistics (B, features), as they are."""
        with fp32(x):
            # Levels differ between the classes of most corpora, and say nothing about a recording.
            x = x.float() * (LEVEL / x.float().square().mean(dim=1, keepdim=True).sqrt().clamp(min=SILENCE))
        layers = self.encoder(x, freq_aug and self.training)
        with fp32(x):
            pooled = [mean_and_deviation(layers[number - 1].float(), dim=1) for number in self.pooled]
            return torch.cat([*pooled, self.spectrum(x)], dim=1)

    def encoder_parameters(self) -> list[nn.Parameter]:
        """The parameters that `optim_config.encoder_lr` applies to; none if the encoder is frozen."""
        return [p for p in self.encoder.parameters() if p.requires_grad]


def mean_and_deviation(x: Tensor, dim: int) -> Tensor:
    """Mean and standard deviation over `dim`, one after the other along the last dimension that is left."""
    mean = x.mean(dim=dim)
    deviation = ((x - mean.unsqueeze(dim)).square().mean(dim=dim) + 1e-6).sqrt()
    return torch.cat([mean, deviation], dim=-1)


class SpectrumStatistics(nn.Module):
    """Mean and deviation over time of the log spectrum and of its absolute differences, (B, T) → (B, 6·F − 2).

    Power of F = 257 bins, frames of 32 ms every 10 ms, Hann window. Differences are between neighbouring frames and
    between neighbouring bins: synthesis tends to be smoother than speech in one or both.
    """

    WINDOW, HOP, FLOOR = 512, 160, 1e-7

    def __init__(self):
        super().__init__()
        self.register_buffer("fourier", fourier_kernels(self.WINDOW), persistent=False)
        self.logarithm = LogSpectrum(self.WINDOW, self.FLOOR)
        self.size = 6 * len(self.logarithm.centres) - 2

    def forward(self, x: Tensor) -> Tensor:
        log = self.logarithm(power_spectrum(x, self.fourier, self.HOP))  # (B, F, frames)
        over_time = (log[:, :, 1:] - log[:, :, :-1]).abs()
        over_frequency = (log[:, 1:] - log[:, :-1]).abs()
        return torch.cat([mean_and_deviation(each, dim=2) for each in (log, over_time, over_frequency)], dim=1)


class LogSpectrum(LogFilterBank):
    """The natural logarithm of each bin of a Fourier transform of `size` samples."""

    def __init__(self, size: int, floor: float):
        super().__init__()
        self.floor, self.centres = floor, frequencies(size)

    def forward(self, power: Tensor) -> Tensor:
        return (power + self.floor).log()


class WhisperEncoder(nn.Module):
    """Waveforms (B, T) → the output (B, N, H) of each of the lowest `layers`.

    Log-mel spectrogram, two convolutions, sinusoidal positions, transformer layers.
    """

    def __init__(self, layers: int, hidden: int, heads: int, mels: int):
        super().__init__()
        self.log_mel = LogMel(mels)
        self.conv1 = nn.Conv1d(mels, hidden, 3, padding=1)
        self.conv2 = nn.Conv1d(hidden, hidden, 3, stride=2, padding=1)
        self.register_buffer("positions", sinusoids(MAX_FRAMES, hidden), persistent=False)
        self.layers = nn.ModuleList(EncoderLayer(hidden, heads) for _ in range(layers))

    def forward(self, x: Tensor, mask: bool = False) -> list[Tensor]:
        """mask: see `LogMel`."""
        return self.encode(self.log_mel(x, mask))

    def encode(self, mel: Tensor) -> list[Tensor]:
        """Log-mel spectrogram (B, mels, L) → (B, N, H) of each layer."""
        x = F.gelu(self.conv2(F.gelu(self.conv1(mel)))).transpose(1, 2)  # (B, N, H)
        x, outputs = x + self.positions[: x.shape[1]], []
        for layer in self.layers:
            x = layer(x)
            outputs.append(x)
        return outputs


class EncoderLayer(nn.Module):
    """Pre-norm transformer layer, (B, N, H) → (B, N, H)."""

    def __init__(self, hidden: int, heads: int):
        super().__init__()
        self.self_attn_layer_norm = nn.LayerNorm(hidden)
        self.self_attn = SelfAttention(hidden, heads)
        self.final_layer_norm = nn.LayerNorm(hidden)
        self.fc1 = nn.Linear(hidden, 4 * hidden)
        self.fc2 = nn.Linear(4 * hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.self_attn_layer_norm(x))
        return x + self.fc2(F.gelu(self.fc1(self.final_layer_norm(x))))


class SelfAttention(nn.Module):
    """Multi-head self-attention, (B, N, H) → (B, N, H)."""

    def __init__(self, hidden: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q_proj, self.v_proj = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.k_proj = nn.Linear(hidden, hidden, bias=False)  # the softmax would cancel a bias
        self.out_proj = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:
        by_head = lambda y: y.unflatten(2, (self.heads, -1)).transpose(1, 2)  # noqa: E731  (B, heads, N, H / heads)
        query, key, value = (by_head(project(x)) for project in (self.q_proj, self.k_proj, self.v_proj))
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class LogMel(nn.Module):
    """Whisper's log-mel spectrogram, (B, T) → (B, mels, ⌊T / 160⌋).

    Power of frames of 25 ms every 10 ms, Hann window; Slaney's mel filters; log10 down to 8 below the maximum of the
    utterance, shifted and scaled.
    """

    WINDOW, HOP = 400, 160  # samples

    def __init__(self, mels: int):
        super().__init__()
        self.register_buffer("fourier", fourier_kernels(self.WINDOW), persistent=False)
        self.filter_bank = MelFilterBank(mels, self.WINDOW)

    def forward(self, x: Tensor, mask: bool = False) -> Tensor:
        """mask: set random neighbouring filters to the mean of all."""
        with fp32(x):
            power = power_spectrum(x.float(), self.fourier, self.HOP)[..., :-1]  # (B, 201, L)
            mel = self.filter_bank(power) / np.log(10)
            mel = torch.maximum(mel, mel.amax(dim=(1, 2), keepdim=True) - 8)
            if mask:
                filters = mel.shape[1]
                mel[:, random_band(filters, filters // 3)] = mel.mean(dim=1, keepdim=True)
            return (mel + 4) / 4


class MelFilterBank(LogFilterBank):
    """Natural logarithms of energies of triangular mel filters; `size`: samples of the Fourier transform."""

    def __init__(self, mels: int, size: int):
        super().__init__()
        hertz = frequencies(size)
        filters = mel_filters(mels, hertz)
        self.centres = filters @ hertz / filters.sum(axis=1)
        self.register_buffer("filters", torch.from_numpy(filters.astype(np.float32)), persistent=False)

    def forward(self, power: Tensor) -> Tensor:
        return (self.filters @ power).clamp(min=1e-10).log()


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


def power_spectrum(x: Tensor, kernels: Tensor, hop: int) -> Tensor:
    """(B, T) → (B, bins, 1 + ⌊T / hop⌋), the first frame centred on the first sample."""
    half = kernels.shape[2] // 2
    waves = F.conv1d(F.pad(x[:, None], (half, half), mode="reflect"), kernels, stride=hop)
    real, imaginary = waves.chunk(2, dim=1)
    return real.square() + imaginary.square()


def mel_filters(mels: int, hertz: np.ndarray) -> np.ndarray:
    """(mels, bins) triangles of area 1 on Slaney's scale, linear up to 1 kHz and logarithmic above, up to 8 kHz."""
    step, per_octave = 200 / 3, np.log(6.4) / 27
    highest = 1000 / step + np.log(SAMPLE_RATE / 2 / 1000) / per_octave
    mel = np.linspace(0, highest, mels + 2)
    edges = np.where(mel < 15, step * mel, 1000 * np.exp(per_octave * (mel - 15)))  # (mels + 2,) Hz
    rising = (hertz - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - hertz) / np.diff(edges)[1:, None]
    return np.minimum(rising, falling).clip(min=0) * (2 / (edges[2:] - edges[:-2]))[:, None]


def sinusoids(length: int, hidden: int) -> Tensor:
    """(length, hidden) positions: sines, then cosines, of wavelengths from 2π to 10,000 · 2π frames."""
    # In fp32, as Whisper's authors computed them: late positions differ from exact ones in the fourth digit.
    rates = torch.exp(-np.log(10_000) / (hidden // 2 - 1) * torch.arange(hidden // 2))
    phase = torch.arange(length)[:, None] * rates
    return torch.cat([phase.sin(), phase.cos()], dim=1)
