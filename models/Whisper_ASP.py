"""Whisper-ASP: the lower layers of Whisper's encoder, attentive statistics pooling and two linear layers.

Whisper's encoder (Radford et al., arXiv 2212.04356, section 2.2) was trained on 680,000 hours of speech of all kinds of
microphones and languages; its lower layers keep how something was said, the upper ones what was said. Parameters of the
encoder have the names of transformers' WhisperEncoder, whose output this one equals; `models/whisper_weights.py` reads
published weights. Attentive statistics: Okabe et al., arXiv 1803.10963.

B batch, T samples, L mel frames (100 a second), N = ⌈L / 2⌉ frames of the encoder, H features.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.schema import parse, require

from .layers import SAMPLE_RATE, fp32, output_layer, random_band

MAX_FRAMES = 1500  # positions of Whisper's encoder: 30 s


@dataclass(frozen=True)
class ModelConfig:
    """Keys of `model_config`. The defaults are those of Whisper base, but for the number of layers."""

    architecture: str
    nb_samp: int = 64600  # samples of a chunk
    layers: int = 3  # the lowest of the encoder's
    hidden: int = 512  # H
    heads: int = 8
    mels: int = 80
    attention: int = 128  # features from which the pooling's weights follow
    features: int = 256  # of an utterance, before the output layer
    dropout: float = 0.1  # of these features
    output: Literal["linear", "cosine"] = "linear"  # see `layers.output_layer`

    def __post_init__(self):
        for name in ("layers", "heads", "mels", "attention", "features"):
            require(0 < getattr(self, name) <= 4096, f"model_config.{name}", "1 … 4096", getattr(self, name))
        fit = 4 <= self.hidden <= 4096 and self.hidden % self.heads == 0 and self.hidden % 2 == 0
        require(fit, "model_config.hidden", "an even multiple of heads up to 4096", self.hidden)
        require(self.layers <= 64, "model_config.layers", "1 … 64", self.layers)
        longest = 2 * MAX_FRAMES * LogMel.HOP
        require(LogMel.WINDOW <= self.nb_samp <= longest, "model_config.nb_samp", f"400 … {longest}", self.nb_samp)
        require(0 <= self.dropout < 1, "model_config.dropout", "[0, 1)", self.dropout)


class Model(nn.Module):
    """Whisper-ASP. Raises UserError when `model_config` does not fit `ModelConfig`."""

    def __init__(self, model_config: dict):
        super().__init__()
        c = parse(ModelConfig, model_config, "model_config.")
        self.nb_samp = c.nb_samp
        self.encoder = WhisperEncoder(c.layers, c.hidden, c.heads, c.mels)
        self.pooling = AttentiveStatistics(c.hidden, c.attention)
        self.project = nn.Linear(2 * c.hidden, c.features)
        self.dropout = nn.Dropout(c.dropout)
        self.out_layer = output_layer(c.output, c.features)

    def forward(self, x: Tensor, freq_aug: bool = False) -> tuple[Tensor, Tensor]:
        """Waveforms (B, T) at 16 kHz → hidden (B, features), logits (B, 2) of spoof and bona fide.

        freq_aug: flatten random neighbouring mel filters; only in training mode.
        """
        frames = self.encoder(x, freq_aug and self.training)
        with fp32(x):
            hidden = F.gelu(self.project(self.pooling(frames.float())))
            return hidden, self.out_layer(self.dropout(hidden))

    def encoder_parameters(self) -> list[nn.Parameter]:
        """The parameters that `optim_config.encoder_lr` applies to."""
        return list(self.encoder.parameters())


class WhisperEncoder(nn.Module):
    """Waveforms (B, T) → (B, N, H): log-mel spectrogram, two convolutions, sinusoidal positions, transformer layers."""

    def __init__(self, layers: int, hidden: int, heads: int, mels: int):
        super().__init__()
        self.log_mel = LogMel(mels)
        self.conv1 = nn.Conv1d(mels, hidden, 3, padding=1)
        self.conv2 = nn.Conv1d(hidden, hidden, 3, stride=2, padding=1)
        self.register_buffer("positions", sinusoids(MAX_FRAMES, hidden), persistent=False)
        self.layers = nn.ModuleList(EncoderLayer(hidden, heads) for _ in range(layers))
        self.layer_norm = nn.LayerNorm(hidden)

    def forward(self, x: Tensor, mask: bool = False) -> Tensor:
        """mask: see `LogMel`."""
        return self.encode(self.log_mel(x, mask))

    def encode(self, mel: Tensor) -> Tensor:
        """Log-mel spectrogram (B, mels, L) → (B, N, H)."""
        x = F.gelu(self.conv2(F.gelu(self.conv1(mel)))).transpose(1, 2)  # (B, N, H)
        x = x + self.positions[: x.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return self.layer_norm(x)


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


class AttentiveStatistics(nn.Module):
    """Mean and standard deviation over frames under learnt weights, (B, N, H) → (B, 2 · H)."""

    def __init__(self, hidden: int, attention: int):
        super().__init__()
        self.score = nn.Sequential(nn.Linear(hidden, attention), nn.Tanh(), nn.Linear(attention, hidden))

    def forward(self, x: Tensor) -> Tensor:
        weights = self.score(x).softmax(dim=1)  # (B, N, H)
        mean = (weights * x).sum(dim=1)
        variance = (weights * (x - mean[:, None]).square()).sum(dim=1)
        return torch.cat([mean, (variance + 1e-5).sqrt()], dim=1)


class LogMel(nn.Module):
    """Whisper's log-mel spectrogram, (B, T) → (B, mels, ⌊T / 160⌋).

    Power of frames of 25 ms every 10 ms, Hann window; Slaney's mel filters; log10 down to 8 below the maximum of the
    utterance, shifted and scaled.
    """

    WINDOW, HOP = 400, 160  # samples

    def __init__(self, mels: int):
        super().__init__()
        n, k = np.arange(self.WINDOW), np.arange(self.WINDOW // 2 + 1)
        window = 0.5 - 0.5 * np.cos(2 * np.pi * n / self.WINDOW)
        waves = np.exp(-2j * np.pi * k[:, None] * n / self.WINDOW) * window  # (201, WINDOW)
        # As a convolution the transform exports everywhere and adds up in the same order on every run.
        fourier = np.concatenate([waves.real, waves.imag])[:, None]
        for name, value in (("fourier", fourier), ("filters", mel_filters(mels, k * SAMPLE_RATE / self.WINDOW))):
            self.register_buffer(name, torch.from_numpy(value.astype(np.float32)), persistent=False)

    def forward(self, x: Tensor, mask: bool = False) -> Tensor:
        """mask: set random neighbouring filters to the mean of all."""
        with fp32(x):
            x = F.pad(x.float()[:, None], (self.WINDOW // 2, self.WINDOW // 2), mode="reflect")
            real, imaginary = F.conv1d(x, self.fourier, stride=self.HOP)[..., :-1].chunk(2, dim=1)
            power = real.square() + imaginary.square()  # (B, 201, L)
            mel = (self.filters @ power).clamp(min=1e-10).log10()
            mel = torch.maximum(mel, mel.amax(dim=(1, 2), keepdim=True) - 8)
            if mask:
                filters = mel.shape[1]
                mel[:, random_band(filters, filters // 3)] = mel.mean(dim=1, keepdim=True)
            return (mel + 4) / 4


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
