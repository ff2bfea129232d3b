"""RawNet2 for anti-spoofing: fixed sinc filters, 1-D residual blocks with feature map scaling, a GRU.

Tak et al., ICASSP 2021, arXiv 2011.01108, as released by the authors of AASIST (config/RawNet2_baseline.conf).
Official checkpoints load with strict=True and give the official outputs, which are log-probabilities.

B batch, T samples or frames, C channels, D features.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.memory import require_memory
from common.schema import parse, require

from .layers import ResidualBlock1d, SincBank, fp32, output_layer


@dataclass(frozen=True)
class ModelConfig:
    """Keys of `model_config`, named as in the official files."""

    architecture: str
    filts: list  # [sinc filters c0, then [channels in, out] of: stage 1, first block of stage 2, its later blocks]
    nb_samp: int = 64600  # samples of a chunk
    first_conv: int = 1024  # taps of each sinc filter
    in_channels: int = 1  # channels of the waveform
    blocks: tuple[int, int] = (2, 4)  # residual blocks of the two stages
    nb_fc_node: int = 1024  # D, features of the hidden layer
    gru_node: int = 1024  # features of the GRU's state
    nb_gru_layer: int = 3
    nb_classes: int = 2
    pre_activation: bool = False  # ASVspoof 5's baseline: batch norm and LeakyReLU before a block's first convolution
    output: Literal["linear", "cosine"] = "linear"  # see layers.output_layer; only linear gives log-probabilities

    def __post_init__(self):
        filts = "[c0, [c0, c1], [c1, c2], [c2, c2]] of whole numbers above 0"
        require(_are_filters(self.filts), "model_config.filts", filts, self.filts)
        require(self.in_channels == 1, "model_config.in_channels", "1 (a waveform)", self.in_channels)
        require(self.nb_classes == 2, "model_config.nb_classes", "2 (spoof, bona fide)", self.nb_classes)
        require(all(0 < n <= 64 for n in self.blocks), "model_config.blocks", "two values, 1 … 64", self.blocks)
        for name in ("first_conv", "nb_fc_node", "gru_node", "nb_gru_layer"):
            require(getattr(self, name) >= 1, f"model_config.{name}", "1 or more", getattr(self, name))
        shortest = self.first_conv + 3 ** (1 + sum(self.blocks))  # all poolings by 3 must leave one frame
        require(self.nb_samp >= shortest, "model_config.nb_samp", f"{shortest} or more", self.nb_samp)
        values = (self.filts[0] + self.filts[1][1] + self.filts[2][1]) * self.nb_samp
        require_memory(values, "model_config")


def _are_filters(filts: list) -> bool:
    """Whether the channels fit together.

    filts[2] may be [c2, c2]: the official code overwrites it while it builds the model, and configurations saved later
    contain that. The block still takes c1 channels.
    """
    if len(filts) != 4 or not all(isinstance(pair, list) and len(pair) == 2 for pair in filts[1:]):
        return False
    c0, (a, c1), (b, c2), last = filts
    numbers = [c0, a, c1, b, c2, *last]
    return all(type(n) is int and n > 0 for n in numbers) and a == c0 and b in (c1, c2) and last == [c2, c2]


class Model(nn.Module):
    """RawNet2. Raises UserError when `model_config` does not fit `ModelConfig`."""

    def __init__(self, model_config: dict):
        super().__init__()
        c = parse(ModelConfig, model_config, "model_config.")
        self.nb_samp, self.is_linear = c.nb_samp, c.output == "linear"
        filters, (_, c1), (_, c2), _ = c.filts

        self.conv_time = SincBank(filters, c.first_conv)
        self.first_bn = nn.BatchNorm1d(filters)
        widths = [filters, *[c1] * c.blocks[0], *[c2] * c.blocks[1]]
        self.blocks = len(widths) - 1
        for i in range(self.blocks):  # under the official names, block0 and so on
            block = ResidualBlock1d(widths[i], widths[i + 1], first=i == 0, pre_activation=c.pre_activation)
            self.add_module(f"block{i}", nn.Sequential(block))
            self.add_module(f"fc_attention{i}", nn.Sequential(nn.Linear(widths[i + 1], widths[i + 1])))
        self.bn_before_gru = nn.BatchNorm1d(c2)
        self.gru = nn.GRU(c2, c.gru_node, c.nb_gru_layer, batch_first=True)
        self.fc1_gru = nn.Linear(c.gru_node, c.nb_fc_node)
        self.fc2_gru = output_layer(c.output, c.nb_fc_node)

    def forward(self, x: Tensor, freq_aug: bool = False) -> tuple[Tensor, Tensor]:
        """Waveforms (B, T) at 16 kHz → hidden (B, D), logits (B, 2) of spoof and bona fide.

        The logits are log-probabilities, as published, or cosines with `output: cosine`. freq_aug: mask random
        neighbouring filters; only in training mode.
        """
        return self.classify(self.encode(x, mask=freq_aug and self.training))

    def encode(self, x: Tensor, mask: bool = False) -> Tensor:
        """(B, T) → (B, C, frames): sinc filters, then residual blocks, each followed by feature map scaling."""
        with fp32(x):
            x = F.max_pool1d(self.conv_time(x, mask).abs(), 3)  # (B, filters, ·)
        x = F.selu(self.first_bn(x))
        for i in range(self.blocks):
            x = getattr(self, f"block{i}")(x)
            scale = torch.sigmoid(getattr(self, f"fc_attention{i}")(x.mean(dim=2)))[:, :, None]  # (B, C, 1)
            x = x * scale + scale  # feature map scaling, multiplicative and additive
        return x

    def classify(self, e: Tensor) -> tuple[Tensor, Tensor]:
        """Encoded (B, C, frames) → hidden (B, D), logits (B, 2), from the GRU's state after the last frame."""
        with fp32(e):
            e = F.selu(self.bn_before_gru(e.float()))
            states, _ = self.gru(e.transpose(1, 2))  # (B, frames, ·)
            hidden = self.fc1_gru(states[:, -1])
            logits = self.fc2_gru(hidden)
            return hidden, F.log_softmax(logits, dim=1) if self.is_linear else logits
