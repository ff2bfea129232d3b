"""SE-ResNet: a convolutional network on the log spectrum and on how its phase advances.

Residual blocks with squeeze and excitation (Hu et al., arXiv 1709.01507) in the order of He et al. (arXiv 1603.05027),
then attentive statistics over time (Okabe et al., arXiv 1803.10963). Besides the energies of a short-time spectrum the
network sees the deviation of the instantaneous frequency and the group delay, in which the phase that a vocoder makes
differs from a voice's; `models/spectrum.py` has their statistics.

B batch, T samples, F frequency bins, N frames, C channels.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.memory import require_memory
from common.schema import parse, require

from .batch_norm import BatchNorm2d
from .layers import at_level, fp32, output_layer, random_band
from .spectrum import LogSpectrum, fourier_kernels, short_time_spectrum

REDUCTION = 8  # channels of a block for each unit that its gates are computed from


@dataclass(frozen=True)
class ModelConfig:
    """Keys of `model_config`."""

    architecture: str
    nb_samp: int = 64600  # samples of a chunk
    channels: tuple[int, ...] = (32, 64, 96, 160)  # of the stages; all but the first halve bins and frames
    blocks: int = 2  # of a stage
    hidden: int = 256  # features of a frame that are pooled
    dropout: float = 0.3  # of the pooled features
    output: Literal["linear", "cosine"] = "linear"  # see `layers.output_layer`

    def __post_init__(self):
        fit = 1 <= len(self.channels) <= 6 and all(REDUCTION <= c <= 1024 for c in self.channels)
        require(fit, "model_config.channels", f"up to six values of {REDUCTION} … 1024", self.channels)
        require(1 <= self.blocks <= 16, "model_config.blocks", "1 … 16", self.blocks)
        require(1 <= self.hidden <= 4096, "model_config.hidden", "1 … 4096", self.hidden)
        require(0 <= self.dropout < 1, "model_config.dropout", "[0, 1)", self.dropout)
        require(self.nb_samp >= 1600, "model_config.nb_samp", "1600 or more", self.nb_samp)
        values = 3 * max(self.channels) * PhasedSpectrum.BINS * (self.nb_samp // PhasedSpectrum.HOP)
        require_memory(values, "model_config")


class Model(nn.Module):
    """SE-ResNet. Raises UserError when `model_config` does not fit `ModelConfig`."""

    WIDEST_MASK = 60  # bins

    def __init__(self, model_config: dict):
        super().__init__()
        c = parse(ModelConfig, model_config, "model_config.")
        self.nb_samp = c.nb_samp
        self.spectrum = PhasedSpectrum()
        self.stem = nn.Conv2d(self.spectrum.CHANNELS, c.channels[0], 3, stride=(2, 1), padding=1, bias=False)
        blocks, before, bins = [], c.channels[0], (PhasedSpectrum.BINS + 1) // 2
        for stage, channels in enumerate(c.channels):
            if stage:
                bins = (bins + 1) // 2
            for block in range(c.blocks):
                blocks.append(Block(before, channels, stride=2 if stage and not block else 1))
                before = channels
        self.blocks, self.bn = nn.Sequential(*blocks), BatchNorm2d(before)
        self.project = nn.Sequential(nn.Linear(before * bins, c.hidden), nn.GELU(), nn.LayerNorm(c.hidden))
        self.pool, self.dropout = AttentiveStatistics(c.hidden), nn.Dropout(c.dropout)
        self.out_layer = output_layer(c.output, 2 * c.hidden)

    def forward(self, x: Tensor, freq_aug: bool = False) -> tuple[Tensor, Tensor]:
        """Waveforms (B, T) at 16 kHz → hidden (B, 2 · hidden), logits (B, 2) of spoof and bona fide.

        freq_aug: hide random neighbouring bins; only in training mode.
        """
        with fp32(x):
            y = self.spectrum(at_level(x.float()))  # (B, 5, F, N)
            if freq_aug and self.training:
                y[:, :, random_band(PhasedSpectrum.BINS, self.WIDEST_MASK)] = 0
        y = F.relu(self.bn(self.blocks(self.stem(y.contiguous(memory_format=torch.channels_last)))))  # (B, C, F', N')
        y = self.project(y.flatten(1, 2).transpose(1, 2))  # (B, N', hidden)
        with fp32(x):
            hidden = self.dropout(self.pool(y.float()))
            return hidden, self.out_layer(hidden)


class PhasedSpectrum(nn.Module):
    """(B, T) → (B, 5, F, N), of frames of 32 ms every 10 ms.

    The log spectrum less its mean, and as unit vectors (real, imaginary) the rotations of a bin from the frame before,
    beyond what its frequency makes of it, and from the bin below. Where there is no sound they are shorter.
    """

    WINDOW, HOP, BINS, CHANNELS = 512, 160, 257, 5
    SCALE = 4.0  # of log energies, about twice their standard deviation
    NO_SOUND = 1e-5  # magnitude

    def __init__(self):
        super().__init__()
        self.register_buffer("fourier", fourier_kernels(self.WINDOW), persistent=False)
        self.logarithm = LogSpectrum(self.WINDOW)
        advance = 2 * np.pi * np.arange(self.BINS)[:, None] * self.HOP / self.WINDOW
        turn = np.stack([np.cos(advance), np.sin(advance)]).astype(np.float32)
        self.register_buffer("turn", torch.from_numpy(turn), persistent=False)  # (2, F, 1)

    def forward(self, x: Tensor) -> Tensor:
        real, imaginary = short_time_spectrum(x, self.fourier, self.HOP)  # (B, F, N) each
        power = real.square() + imaginary.square()
        log = self.logarithm(power)
        log = (log - log.mean(dim=(1, 2), keepdim=True)) / self.SCALE
        # The root of nothing has no gradient, which explanations need.
        size = (power + 1e-20).sqrt() + self.NO_SOUND
        real, imaginary = real / size, imaginary / size
        cos, sin = self.turn
        before = real[:, :, :-1] * cos - imaginary[:, :, :-1] * sin, real[:, :, :-1] * sin + imaginary[:, :, :-1] * cos
        deviation = [F.pad(each, (1, 0)) for each in between(real[:, :, 1:], imaginary[:, :, 1:], *before)]
        # A frame begins half a window before its centre, which turns every second bin by half a circle.
        below = -real[:, :-1], -imaginary[:, :-1]
        delay = [F.pad(each, (0, 0, 1, 0)) for each in between(real[:, 1:], imaginary[:, 1:], *below)]
        return torch.stack([log, *deviation, *delay], dim=1)


def between(real: Tensor, imaginary: Tensor, real_before: Tensor, imaginary_before: Tensor) -> tuple[Tensor, Tensor]:
    """The rotation from one complex number to another, real and imaginary part."""
    along = real * real_before + imaginary * imaginary_before
    return along, imaginary * real_before - real * imaginary_before


class Block(nn.Module):
    """Residual block with squeeze and excitation, (B, C_in, F, N) → (B, C_out, F / stride, N / stride)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1):
        super().__init__()
        self.bn1 = BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn2 = BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.squeeze = nn.Linear(channels_out, channels_out // REDUCTION)
        self.excite = nn.Linear(channels_out // REDUCTION, channels_out)
        self.same_size = stride == 1 and channels_in == channels_out
        if not self.same_size:
            self.downsample = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(x))
        identity = x if self.same_size else self.downsample(y)
        y = self.conv2(F.relu(self.bn2(self.conv1(y))))
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(y.mean(dim=(2, 3))))))
        return identity + y * gate[:, :, None, None]


class AttentiveStatistics(nn.Module):
    """(B, N, D) → (B, 2 · D): mean and standard deviation over time, each feature with weights of its own."""

    UNITS = 64

    def __init__(self, features: int):
        super().__init__()
        self.attention = nn.Sequential(nn.Linear(features, self.UNITS), nn.Tanh(), nn.Linear(self.UNITS, features))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.attention(x).softmax(dim=1)
        mean = (weight * x).sum(dim=1)
        variance = (weight * (x - mean[:, None]).square()).sum(dim=1)
        return torch.cat([mean, variance.clamp(min=1e-5).sqrt()], dim=1)
