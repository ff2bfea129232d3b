"""Whisper-Stats: statistics of Whisper's lower layers and of the spectrum with its phase, and linear layers.

Whisper's encoder (Radford et al., arXiv 2212.04356, section 2.2) was trained on 680,000 hours of speech of all kinds of
microphones and languages. Its lower layers, kept as published, tell how something was said, the upper ones what was
said. They hear 80 mel energies; statistics of spectra of 257 and 513 bins, of their neighbourhoods and of the phase
(`models/spectrum.py`) add what mel filters hide. On generators and sources that were left out of training, a linear
layer on these errs less than the same encoder fine-tuned (docs/generalise.md). Recordings that went through a codec,
have noise or are short have linear layers of their own. One feature more can be the log odds of a network, such as
`models/SE_ResNet.py`, that hears the beginning of the chunk.

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

from . import build_model
from .layers import SAMPLE_RATE, LogFilterBank, at_level, fp32, output_layer, random_band
from .spectrum import (
    HarmonicStatistics,
    PhaseStatistics,
    SpectrumStatistics,
    fourier_kernels,
    frequencies,
    mean_and_deviation,
    power_spectrum,
)

MAX_FRAMES = 1500  # positions of Whisper's encoder: 30 s


@dataclass(frozen=True)
class ModelConfig:
    """Keys of `model_config`. The defaults are those of Whisper base, but for the number of layers."""

    architecture: str
    nb_samp: int = 64600  # samples of a chunk
    layers: tuple[int, ...] = (3,)  # whose outputs are pooled, counted from 1 as the encoder's lowest
    change_layers: tuple[int, ...] = (1,)  # whose outputs' absolute differences between frames are pooled
    limit: float = 2.0  # standard deviations from the mean of training beyond which a statistic is cut
    hidden: int = 512  # H
    heads: int = 8
    mels: int = 80
    freeze: bool = True  # train the output layer only
    output: Literal["linear", "cosine"] = "linear"  # see `layers.output_layer`
    experts: int = 1  # output layers, each for recordings of one condition; see `MixtureOfExperts`
    network: dict | None = None  # model_config of the network; its nb_samp are what it hears

    def __post_init__(self):
        for name in ("heads", "mels"):
            require(0 < getattr(self, name) <= 256, f"model_config.{name}", "1 … 256", getattr(self, name))
        fit = 4 <= self.hidden <= 4096 and self.hidden % self.heads == 0 and self.hidden % 2 == 0
        require(fit, "model_config.hidden", "an even multiple of heads up to 4096", self.hidden)
        for name in ("layers", "change_layers"):
            layers = getattr(self, name)
            rising = layers == tuple(sorted(set(layers))) and all(1 <= layer <= 64 for layer in layers)
            require(rising, f"model_config.{name}", "rising numbers from 1 to 64", layers)
        require(bool(self.layers), "model_config.layers", "at least one layer", self.layers)
        require(1 <= self.experts <= 64, "model_config.experts", "1 … 64", self.experts)
        one_kind = self.experts == 1 or self.output == "linear"
        require(one_kind, "model_config.output", "linear, when there are several experts", self.output)
        own = sorted({"output", "encoder", "members", "network"} & (self.network or {}).keys())
        require(not own, "model_config.network", "no output, encoder, members or network", ", ".join(own))
        require(0 < self.limit <= 100, "model_config.limit", "above 0, at most 100", self.limit)
        longest = 2 * MAX_FRAMES * LogMel.HOP
        require(1600 <= self.nb_samp <= longest, "model_config.nb_samp", f"1600 … {longest}", self.nb_samp)


class Model(nn.Module):
    """Whisper-Stats. Raises UserError when `model_config` does not fit `ModelConfig`."""

    def __init__(self, model_config: dict):
        super().__init__()
        c = parse(ModelConfig, model_config, "model_config.")
        self.nb_samp, self.pooled, self.changing, self.limit = c.nb_samp, c.layers, c.change_layers, c.limit
        lowest = max(c.layers + c.change_layers)
        self.encoder = WhisperEncoder(lowest, c.hidden, c.heads, c.mels).requires_grad_(not c.freeze)
        self.statistics = nn.ModuleList([SpectrumStatistics(), HarmonicStatistics(), PhaseStatistics()])
        features = 2 * c.hidden * len(c.layers + c.change_layers) + sum(each.size for each in self.statistics)
        self.network, self.freeze = None, c.freeze
        if c.network:
            self.network, features = build_model({"nb_samp": c.nb_samp} | c.network), features + 1
            self.network.requires_grad_(not c.freeze)
        # Scale and shift stay 1 and 0, as the output layer has its own; without them no exporter knows the size.
        self.standardise = nn.BatchNorm1d(features).requires_grad_(False)
        self.out_layer = output_layer(c.output, features) if c.experts == 1 else MixtureOfExperts(features, c.experts)

    def forward(self, x: Tensor, freq_aug: bool = False) -> tuple[Tensor, Tensor]:
        """Waveforms (B, T) at 16 kHz → hidden (B, features), logits (B, 2) of spoof and bona fide.

        freq_aug: flatten random neighbouring mel filters; only in training mode.
        """
        features = self.describe(x, freq_aug)
        with fp32(x):
            hidden = self.scale(features)
            return hidden, self.out_layer(hidden)

    def train(self, mode: bool = True) -> "Model":
        """A network that is not trained keeps its statistics, too."""
        super().train(mode)
        if self.network and self.freeze:
            self.network.eval()
        return self

    def describe(self, x: Tensor, freq_aug: bool = False) -> Tensor:
        """Waveforms (B, T) → the statistics (B, features), as they are."""
        with fp32(x):
            x = at_level(x.float())
        layers = self.encoder(x, freq_aug and self.training)
        log_odds = []
        if self.network:
            spoof, bonafide = self.network(x[:, : self.network.nb_samp], freq_aug)[1].split(1, dim=1)
            log_odds = [bonafide - spoof]
        with fp32(x):
            pooled = [mean_and_deviation(layers[number - 1].float(), dim=1) for number in self.pooled]
            for number in self.changing:
                y = layers[number - 1].float()  # (B, N, H)
                pooled.append(mean_and_deviation((y[:, 1:] - y[:, :-1]).abs(), dim=1))
            return torch.cat([*pooled, *(each(x) for each in self.statistics), *log_odds], dim=1)

    def scale(self, features: Tensor) -> Tensor:
        """(B, features) in standard deviations from the mean; a single odd statistic can't decide a score."""
        return self.standardise(features).clamp(-self.limit, self.limit)

    def encoder_parameters(self) -> list[nn.Parameter]:
        """The parameters that `optim_config.encoder_lr` applies to; none if the encoder is frozen."""
        return [p for p in self.encoder.parameters() if p.requires_grad]


class MixtureOfExperts(nn.Module):
    """(B, features) → logits (B, 2), from several linear layers, as a gate finds each fit for the recording.

    What tells synthetic speech depends on what a recording went through: a codec takes away what a voice has and a
    vocoder lacks, and noise covers it. So each condition has an expert of its own, and the gate, a linear layer and a
    softmax, knows the condition by the same features (Jacobs et al., Neural Computation 3, 1991).
    """

    def __init__(self, features: int, experts: int):
        super().__init__()
        self.gate = nn.Linear(features, experts)
        self.experts = nn.Linear(features, 2 * experts)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.experts(x).unflatten(1, (-1, 2))  # (B, experts, 2)
        return (self.gate(x).softmax(dim=1)[:, :, None] * logits).sum(dim=1)


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
