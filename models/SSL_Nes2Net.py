"""SSL-Nes2Net: a self-supervised speech encoder, followed by Nes2Net-X.

Liu et al., arXiv 2504.05657: groups of the encoder's features pass a chain of residual blocks, and within a block
groups of channels pass a chain of convolutions (Res2Net, twice nested), so no layer has to reduce the features first.

B batch, T samples, N frames (50 a second), H features of the encoder, C = H / groups, W = C / groups inside a block.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.schema import parse, require

from .batch_norm import BatchNorm2d
from .layers import fp32
from .ssl_encoder import EncoderKeys, EncoderModel


@dataclass(frozen=True, kw_only=True)
class ModelConfig(EncoderKeys):
    """Keys of `model_config`."""

    architecture: str
    nb_samp: int = 64600  # samples of a chunk
    groups: tuple[int, int] = (8, 8)  # of the encoder's features, and of a block's channels
    dilation: int = 2  # of the convolutions over time
    squeeze: int = 1  # a block's channels are weighed through C / squeeze features
    pooling: Literal["mean", "attention"] = "mean"  # over time; attention: weighted mean and standard deviation

    def __post_init__(self):
        super().__post_init__()
        for name, value in (("groups", min(self.groups)), ("dilation", self.dilation), ("squeeze", self.squeeze)):
            require(1 <= value <= 1024, f"model_config.{name}", "1 … 1024", value)
        require(min(self.groups) > 1, "model_config.groups", "two numbers above 1", self.groups)


class Model(EncoderModel):
    """SSL-Nes2Net. Raises UserError when `model_config` does not fit `ModelConfig`, or the encoder is missing."""

    def __init__(self, model_config: dict):
        super().__init__()
        c = parse(ModelConfig, model_config, "model_config.")
        width, (outer, inner) = self.build_encoder(c, model_config).hidden_size, c.groups
        fit = width % outer == 0 and width // outer >= max(inner, c.squeeze)
        require(fit, "model_config.groups", f"a divisor of {width}, and groups of {c.squeeze} or more", c.groups)
        channels = width // outer
        self.blocks = nn.ModuleList(Block(channels, inner, c.dilation, c.squeeze) for _ in range(outer - 1))
        self.bns = nn.ModuleList(nn.BatchNorm1d(channels) for _ in range(outer - 1))
        self.bn = nn.BatchNorm1d(width)
        self.pooling = AttentivePooling(width) if c.pooling == "attention" else None
        self.fc = nn.Linear(width * (2 if self.pooling else 1), 2)

    def encode(self, x: Tensor) -> Tensor:
        """(B, T) → (B, H, N)"""
        return self.layers(x)[1].transpose(1, 2)

    def classify(self, e: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, N) → hidden (B, H or 2 H), logits (B, 2) of spoof and bona fide."""
        with fp32(e):
            *groups, last = e.float().chunk(len(self.blocks) + 1, dim=1)  # (B, C, N) each
            y, outputs = torch.zeros_like(last), []
            for group, block, bn in zip(groups, self.blocks, self.bns, strict=True):
                y = bn(F.relu(block(y + group)))
                outputs.append(y)
            e = F.relu(self.bn(torch.cat([*outputs, last], dim=1)))
            hidden = self.pooling(e) if self.pooling else e.mean(dim=2)
            return hidden, self.fc(hidden)


class Block(nn.Module):
    """Bottle2neck of Nes2Net-X, (B, C, N) → (B, C, N).

    Convolution i sees the last group and the outputs for groups 0 … i - 1 side by side with group i, and a learnt sum
    over them is its output.
    """

    def __init__(self, channels: int, groups: int, dilation: int, squeeze: int):
        super().__init__()
        width = channels // groups
        self.conv1 = nn.Conv1d(channels, width * groups, 1)
        self.bn1 = nn.BatchNorm1d(width * groups)
        convolution = {"kernel_size": (3, 1), "dilation": (dilation, 1), "padding": (dilation, 0)}
        self.convs = nn.ModuleList(nn.Conv2d(width, width, **convolution) for _ in range(groups - 1))
        self.bns = nn.ModuleList(BatchNorm2d(width) for _ in range(groups - 1))
        self.sums = nn.ParameterList(torch.full((1, 1, 1, i + 2), 1 / (i + 2)) for i in range(groups - 1))
        self.conv3 = nn.Conv1d(width * groups, channels, 1)
        self.bn3 = nn.BatchNorm1d(channels)
        self.squeeze = nn.Conv1d(channels, channels // squeeze, 1)
        self.excite = nn.Conv1d(channels // squeeze, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        *groups, last = self.bn1(F.relu(self.conv1(x)))[..., None].chunk(len(self.convs) + 1, dim=1)  # (B, W, N, 1)
        side_by_side, outputs = last, []
        for group, conv, bn, weights in zip(groups, self.convs, self.bns, self.sums, strict=True):
            side_by_side = bn(F.relu(conv(torch.cat([side_by_side, group], dim=3))))  # (B, W, N, i + 2)
            outputs.append((side_by_side * weights).sum(dim=3))
        y = self.bn3(F.relu(self.conv3(torch.cat([*outputs, last[..., 0]], dim=1))))
        scale = torch.sigmoid(self.excite(F.relu(self.squeeze(y.mean(dim=2, keepdim=True)))))
        return y * scale + x


class AttentivePooling(nn.Module):
    """Weighted mean and standard deviation over time (arXiv 1803.10963), (B, H, N) → (B, 2 H)."""

    def __init__(self, width: int):
        super().__init__()
        self.linear1 = nn.Conv1d(width, 128, 1)
        self.linear2 = nn.Conv1d(128, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.linear2(torch.tanh(self.linear1(x))).softmax(dim=2)
        mean = (weights * x).sum(dim=2)
        variance = (weights * x.square()).sum(dim=2) - mean.square()
        return torch.cat([mean, variance.clamp(min=1e-10).sqrt()], dim=1)
