"""LFCC-LCNN: linear-frequency cepstral coefficients, a light CNN, two LSTM layers and the mean over time.

ASVspoof's baseline B03 is of this family. The LCNN is that of Lavrentyeva et al. (arXiv 1904.05576), the whole is
"LCNN-LSTM-sum" of Wang and Yamagishi (arXiv 2103.11326), here with two outputs and batch norms that learn a scale.

B batch, T samples, L frames, D features.
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
from .layers import SAMPLE_RATE, LogFilterBank, fp32, output_layer, random_band

NYQUIST = SAMPLE_RATE // 2
EPS = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class ModelConfig:
    """Keys of `model_config`."""

    architecture: str
    nb_samp: int = 64600  # samples of a chunk
    nb_filters: int = 20  # linear filters = cepstra; with deltas and delta-deltas there are 3 · nb_filters features
    highest: float = 8000.0  # Hz: upper edge of the last filter
    # Deltas are further features, or further channels of the LCNN's input, which a batch norm then standardises.
    deltas: Literal["features", "channels"] = "features"
    channels: tuple[int, int, int, int] = (32, 48, 64, 32)  # of the LCNN's four stages
    output: Literal["linear", "cosine"] = "linear"  # see `layers.output_layer`

    def __post_init__(self):
        # Fewer filters leave no feature after four poolings by 2; more are narrower than two bins of the spectrum.
        fewest, most = 16 if self.deltas == "channels" else 6, int(128 * self.highest / NYQUIST)
        require(0 < self.highest <= NYQUIST, "model_config.highest", f"up to {NYQUIST} Hz", self.highest)
        require(fewest <= self.nb_filters <= most, "model_config.nb_filters", f"{fewest} … {most}", self.nb_filters)
        even = all(n > 0 for n in self.channels) and self.channels[3] % 2 == 0
        require(even, "model_config.channels", "four values above 0, the last of them even", self.channels)
        shortest = 15 * LFCC.HOP  # 16 frames: four poolings by 2 leave one
        require(self.nb_samp >= shortest, "model_config.nb_samp", f"{shortest} or more", self.nb_samp)
        values = (2 * max(self.channels) * 3 * self.nb_filters + 2 * LFCC.FFT) * (self.nb_samp // LFCC.HOP)
        require_memory(values, "model_config")


class Model(nn.Module):
    """LFCC-LCNN. Raises UserError when `model_config` does not fit `ModelConfig`."""

    def __init__(self, model_config: dict):
        super().__init__()
        c = parse(ModelConfig, model_config, "model_config.")
        self.nb_samp = c.nb_samp
        self.lfcc = LFCC(c.nb_filters, c.highest)
        self.planes, features = (3, c.nb_filters) if c.deltas == "channels" else (1, 3 * c.nb_filters)
        # High-order cepstra are small; without standardisation the network is slow to use them.
        self.standardise = nn.BatchNorm1d(3 * c.nb_filters) if c.deltas == "channels" else nn.Identity()
        self.lcnn = light_cnn(self.planes, *c.channels)
        dim = c.channels[3] * (features // 16)
        self.lstm = nn.LSTM(dim, dim // 2, num_layers=2, batch_first=True, bidirectional=True)
        self.out_layer = output_layer(c.output, dim)

    def forward(self, x: Tensor, freq_aug: bool = False) -> tuple[Tensor, Tensor]:
        """Waveforms (B, T) at 16 kHz → hidden (B, D), logits (B, 2) of spoof and bona fide.

        freq_aug: flatten random neighbouring filters; only in training mode.
        """
        x = self.lfcc(x, freq_aug and self.training)  # (B, L, 3 · filters)
        x = self.standardise(x.transpose(1, 2)).transpose(1, 2)
        x = torch.stack(x.chunk(self.planes, dim=2), dim=1)  # (B, planes, L, features)
        # CPUs train the LCNN 1.4 times as fast in this memory layout.
        x = self.lcnn(x.to(memory_format=torch.channels_last))  # (B, C, L / 16, features / 16)
        with fp32(x):
            x = x.float().transpose(1, 2).flatten(2)  # (B, L / 16, D)
            states, _ = self.lstm(x)
            hidden = (x + states).mean(dim=1)
            return hidden, self.out_layer(hidden)


def bins(size: int, highest: float) -> np.ndarray:
    """Indices of the bins up to `highest` Hz of a Fourier transform of `size` samples."""
    return np.arange(int(size * highest / SAMPLE_RATE) + 1)


class LinearFilterBank(LogFilterBank):
    """log10 energies of triangular filters of equal width up to `highest` Hz: power (B, bins, L) → (B, filters, L)."""

    def __init__(self, filters: int, size: int, highest: float):
        """size: samples of the Fourier transform that gives the power."""
        super().__init__()
        edges = np.linspace(0, highest, filters + 2)
        self.centres = edges[1:-1]  # (filters,) Hz
        hertz = bins(size, highest) * SAMPLE_RATE / size
        distance = np.abs(hertz[:, None] - self.centres) / edges[1]  # (bins, filters), in units of the filters' spacing
        triangles = torch.from_numpy((1 - distance).clip(min=0).T.astype(np.float32))
        self.register_buffer("triangles", triangles, persistent=False)

    def forward(self, power: Tensor) -> Tensor:
        return torch.log10(self.triangles @ power + EPS)


class LFCC(nn.Module):
    """Linear-frequency cepstral coefficients with deltas and delta-deltas, as in the challenges' baselines.

    Pre-emphasis 0.97; frames of 20 ms every 10 ms, the first one centred on the first sample; Hamming window; power of
    the 257 bins up to 8 kHz, or of those up to `highest` Hz; log10 of triangular filters of equal width; DCT-II, whose
    first coefficient, the mean, is replaced by the frame's log energy.
    """

    WINDOW, HOP, FFT = 320, 160, 512  # samples

    def __init__(self, filters: int, highest: float = NYQUIST):
        super().__init__()
        n, k = np.arange(self.WINDOW), bins(self.FFT, highest)
        window = 0.54 - 0.46 * np.cos(2 * np.pi * n / self.WINDOW)
        waves = np.exp(-2j * np.pi * k[:, None] * n / self.FFT) * window  # (bins, WINDOW)
        order, m = np.arange(filters)[:, None], np.arange(filters)
        dct = np.sqrt(2 / filters) * np.cos(np.pi * (m + 0.5) * order / filters)
        dct[0] /= np.sqrt(2)
        # As a convolution the transform exports everywhere and adds up in the same order on every run.
        for name, value in (("fourier", np.concatenate([waves.real, waves.imag])[:, None]), ("dct", dct)):
            self.register_buffer(name, torch.from_numpy(value.astype(np.float32)), persistent=False)
        self.filter_bank = LinearFilterBank(filters, self.FFT, highest)

    def forward(self, x: Tensor, mask: bool = False) -> Tensor:
        """(B, T) → (B, 1 + ⌊T / 160⌋, 3 · filters); `mask` sets random neighbouring filters to the mean of all."""
        with fp32(x):
            x = F.pad(x, (1, 0))
            x = F.pad(x[:, 1:] - 0.97 * x[:, :-1], (self.WINDOW // 2, self.WINDOW // 2))
            real, imaginary = F.conv1d(x[:, None], self.fourier, stride=self.HOP).chunk(2, dim=1)
            power = real.square() + imaginary.square()  # (B, bins, L)
            filtered = self.filter_bank(power)  # (B, filters, L)
            if mask:
                filters = filtered.shape[1]
                filtered[:, random_band(filters, filters // 3)] = filtered.mean(1, keepdim=True)
            energy = torch.log10(power.sum(dim=1, keepdim=True) / self.FFT + EPS)
            cepstra = torch.cat([energy, self.dct[1:] @ filtered], dim=1)  # (B, filters, L)
            first = delta(cepstra)
            return torch.cat([cepstra, first, delta(first)], dim=1).transpose(1, 2)


def delta(x: Tensor) -> Tensor:
    """(…, L) → (…, L): the next frame minus the previous one; the first and last frames are repeated at the ends."""
    x = torch.cat([x[..., :1], x, x[..., -1:]], dim=-1)
    return x[..., 2:] - x[..., :-2]


class MaxFeatureMap(nn.Module):
    """Activation: the larger one of channels c and C + c, (B, 2·C, …) → (B, C, …) (arXiv 1904.05576)."""

    def forward(self, x: Tensor) -> Tensor:
        return _MaxOfHalves.apply(x) if self.training else torch.maximum(*x.chunk(2, dim=1))


class _MaxOfHalves(torch.autograd.Function):
    """`torch.maximum` of both halves with a faster gradient: torch's own takes two fifths of a step on CPUs.

    Where both are equal the first half gets the gradient.
    """

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=1)
        ctx.save_for_backward(a >= b)
        return torch.maximum(a, b)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (first,) = ctx.saved_tensors
        grad_a = grad * first
        return torch.cat([grad_a, grad - grad_a], dim=1)


def light_cnn(planes: int, c1: int, c2: int, c3: int, c4: int) -> nn.Sequential:
    """Convolutional part of the LCNN (arXiv 1904.05576, table 2): (B, planes, L, D) → (B, c4, ⌊L / 16⌋, ⌊D / 16⌋)."""

    def conv(channels_in: int, channels_out: int, size: int) -> list[nn.Module]:
        return [nn.Conv2d(channels_in, 2 * channels_out, size, padding=size // 2), MaxFeatureMap()]

    norm, pool = BatchNorm2d, nn.MaxPool2d(2)
    return nn.Sequential(
        *conv(planes, c1, 5), pool,
        *conv(c1, c1, 1), norm(c1), *conv(c1, c2, 3), pool, norm(c2),
        *conv(c2, c2, 1), norm(c2), *conv(c2, c3, 3), pool,
        *conv(c3, c3, 1), norm(c3), *conv(c3, c4, 3), norm(c4),
        *conv(c4, c4, 1), norm(c4), *conv(c4, c4, 3), pool,
        nn.Dropout(0.7),
    )  # fmt: skip
