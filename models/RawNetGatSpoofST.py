"""RawGAT-ST: two encoders, a spectral and a temporal graph, and the product of both.

Tak et al., ASVspoof 2021 workshop, arXiv 2107.12710, as released by the authors of AASIST
(config/RawGATST_baseline.conf). Official checkpoints load with strict=True and give the official logits; those of the
paper's authors are read by models/published.py.

B batch, T samples, C channels, N_S spectral (frequency) nodes, N_T temporal nodes, D features of a node.
The official parameter names are swapped: `_T` is the spectral graph (maximum over time), `_S` the temporal one.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.memory import require_memory
from common.schema import parse, require

from .layers import GraphAttention, GraphPool, ResidualBlock, SincBank, are_filters, fp32, graph_values, output_layer

POOLING = 3**7  # samples for each temporal node: the front end and six blocks pool by 3
DIM, DIM_ST = 32, 16  # D in the spectral and temporal graph, and in their product
NODES = 12  # of either graph after its projection, so that they can be multiplied


@dataclass(frozen=True)
class ModelConfig:
    """Keys of `model_config`, named as in the official files."""

    architecture: str
    filts: list  # [sinc filters, then [channels in, out] of residual blocks 1, 2, 3 and of blocks 4 to 6]
    first_conv: int = 128  # taps of each sinc filter
    nb_samp: int = 64600  # samples of a chunk; fixes N_T and thereby the shape of proj_S
    output: Literal["linear", "cosine"] = "linear"  # see layers.output_layer
    fusion: Literal["mul", "add", "cat"] = "mul"  # of the two graphs (section 3.4): product, sum, or side by side

    def __post_init__(self):
        filts = "[filters, 6 or more, [1, c1], [c1, c2], [c2, c3], [c3, c3]] of whole numbers above 0"
        fits = are_filters(self.filts) and self.filts[0] >= 6  # the pool keeps at least two of N_S
        require(fits, "model_config.filts", filts, self.filts)
        require(self.first_conv >= 1, "model_config.first_conv", "1 or more", self.first_conv)
        shortest = self.first_conv + 2 * POOLING  # and at least two of N_T
        require(self.nb_samp >= shortest, "model_config.nb_samp", f"{shortest} or more", self.nb_samp)
        require_memory(2 * graph_values(self.filts, DIM, self.nb_samp), "model_config")


class Model(nn.Module):
    """RawGAT-ST. Raises UserError when `model_config` does not fit `ModelConfig`."""

    def __init__(self, model_config: dict):
        super().__init__()
        c = parse(ModelConfig, model_config, "model_config.")
        self.nb_samp, self.fusion = c.nb_samp, c.fusion
        filters, *blocks = c.filts
        channels = blocks[-1][1]
        blocks = [*blocks, blocks[-1], blocks[-1]]

        self.conv_time = SincBank(filters, c.first_conv)
        self.first_bn = nn.BatchNorm2d(1)
        taps = self.conv_time.band_pass.shape[2]
        n_s, n_t = filters // 3, (c.nb_samp - taps + 1) // POOLING

        self.encoder_T = _encoder(blocks)  # spectral graph
        self.GAT_layer_T = GraphAttention(channels, DIM)
        self.pool_T = GraphPool(0.64, DIM, n_min=2)
        self.proj_T = nn.Linear(self.pool_T.nodes_kept(n_s), NODES)

        self.encoder_S = _encoder(blocks)  # temporal graph
        self.GAT_layer_S = GraphAttention(channels, DIM)
        self.pool_S = GraphPool(0.81, DIM, n_min=2)
        self.proj_S = nn.Linear(self.pool_S.nodes_kept(n_t), NODES)

        wider = 2 if c.fusion == "cat" else 1
        self.GAT_layer_ST = GraphAttention(wider * DIM, wider * DIM_ST)
        self.pool_ST = GraphPool(0.64, wider * DIM_ST, n_min=2)
        self.proj_ST = nn.Linear(wider * DIM_ST, 1)
        self.out_layer = output_layer(c.output, self.pool_ST.nodes_kept(NODES))

    def forward(self, x: Tensor, freq_aug: bool = False) -> tuple[Tensor, Tensor]:
        """Waveforms (B, T) at 16 kHz, T as `nb_samp` → hidden (B, 7), logits (B, 2) of spoof and bona fide.

        freq_aug: mask random neighbouring filters; only in training mode.
        """
        return self.classify(*self.encode(x, mask=freq_aug and self.training))

    def encode(self, x: Tensor, mask: bool = False) -> tuple[Tensor, Tensor]:
        """(B, T) → two encodings (B, C, N_S, N_T), one for the spectral and one for the temporal graph."""
        with fp32(x):
            x = self.conv_time(x, mask)[:, None]  # (B, 1, filters, T - taps + 1)
            x = F.max_pool2d(x.abs(), 3)  # (B, 1, N_S, ·)
        x = F.selu(self.first_bn(x))
        return self.encoder_T(x), self.encoder_S(x)

    def classify(self, e_spectral: Tensor, e_temporal: Tensor) -> tuple[Tensor, Tensor]:
        """Two encodings (B, C, N_S, N_T) → hidden (B, 7), logits (B, 2): the graphs (sections 3.2 to 3.4)."""
        with fp32(e_spectral):  # half precision would give nodes equal scores, and the pools choose by them
            spectral = e_spectral.float().abs().amax(dim=3).transpose(1, 2)  # max over time: (B, N_S, C)
            temporal = e_temporal.float().abs().amax(dim=2).transpose(1, 2)  # max over frequency: (B, N_T, C)
            spectral = self.pool_T(self.GAT_layer_T(spectral)).transpose(1, 2)  # (B, D, N_S')
            temporal = self.pool_S(self.GAT_layer_S(temporal)).transpose(1, 2)  # (B, D, N_T')
            both = self.fused(self.proj_T(spectral), self.proj_S(temporal)).transpose(1, 2)  # (B, 12, D or 2 D)
            hidden = self.proj_ST(self.pool_ST(self.GAT_layer_ST(both))).flatten(1)  # (B, 7)
            return hidden, self.out_layer(hidden)

    def fused(self, spectral: Tensor, temporal: Tensor) -> Tensor:
        """Two graphs (B, D, 12) → (B, D, 12), or (B, 2 D, 12) side by side."""
        if self.fusion == "cat":
            return torch.cat([spectral, temporal], dim=1)
        return spectral + temporal if self.fusion == "add" else spectral * temporal


def _encoder(blocks: list[list[int]]) -> nn.Sequential:
    """Residual encoder, (B, 1, N_S, ·) → (B, C, N_S, N_T)."""
    return nn.Sequential(*(nn.Sequential(ResidualBlock(*pair, first=i == 0)) for i, pair in enumerate(blocks)))
