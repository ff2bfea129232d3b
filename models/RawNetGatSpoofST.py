"""RawGAT-ST: two encoders, a spectral and a temporal graph, and their product (Tak et al., ASVspoof 2021 workshop).

arXiv 2107.12710; the form that the authors of AASIST released as their baseline (config/RawGATST_baseline.conf).
Official checkpoints load with strict=True and give the official logits.

B batch, T samples, C channels, N_S spectral (frequency) nodes, N_T temporal nodes, D features of a node. In official
names `T` marks what comes from the maximum over time, hence the spectral graph, and `S` the temporal one.
"""

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from common.schema import parse, require

from .layers import GraphAttention, GraphPool, ResidualBlock, SincBank, are_filters, fp32, output_layer

POOLINGS = 3**7  # samples of a temporal node: the front end and six blocks pool by 3
DIM, DIM_ST, NODES = 32, 16, 12  # features in the two graphs and in their product; nodes of each before the product


@dataclass(frozen=True)
class ModelConfig:
    """Keys of `model_config`, named as in the official files."""

    architecture: str
    filts: list  # [filters of the bank, then [channels in, out] of the blocks: first, second, third, the last three]
    first_conv: int = 128  # taps of the filter bank
    nb_samp: int = 64600  # samples of a chunk; fixes the number of temporal nodes and with it the shape of proj_S
    output: Literal["linear", "cosine"] = "linear"  # see `layers.output_layer`

    def __post_init__(self):
        filts = "[filters, 6 or more, [1, c1], [c1, c2], [c2, c3], [c3, c3]] of whole numbers above 0"
        fits = are_filters(self.filts) and self.filts[0] >= 6  # two nodes must be left for the pool to keep
        require(fits, "model_config.filts", filts, self.filts)
        require(self.first_conv >= 1, "model_config.first_conv", "1 or more", self.first_conv)
        shortest = self.first_conv + 2 * POOLINGS  # the same for temporal nodes
        require(self.nb_samp >= shortest, "model_config.nb_samp", f"{shortest} or more", self.nb_samp)


class Model(nn.Module):
    """RawGAT-ST. Raises UserError when `model_config` is not as `ModelConfig` says."""

    def __init__(self, model_config: dict):
        super().__init__()
        c = parse(ModelConfig, model_config, "model_config.")
        self.nb_samp = c.nb_samp
        filters, *blocks = c.filts
        channels = blocks[-1][1]
        blocks = [*blocks, blocks[-1], blocks[-1]]

        self.conv_time = SincBank(filters, c.first_conv)
        self.first_bn = nn.BatchNorm2d(1)
        taps = self.conv_time.bank.shape[2]
        nodes = {"T": filters // 3, "S": (c.nb_samp - taps + 1) // POOLINGS}  # N_S, N_T
        for name, ratio in (("T", 0.64), ("S", 0.81)):
            encoder = (nn.Sequential(ResidualBlock(*pair, first=i == 0)) for i, pair in enumerate(blocks))
            self.add_module(f"encoder_{name}", nn.Sequential(*encoder))
            self.add_module(f"GAT_layer_{name}", GraphAttention(channels, DIM))
            pool = GraphPool(ratio, DIM, n_min=2)
            self.add_module(f"pool_{name}", pool)
            self.add_module(f"proj_{name}", nn.Linear(pool.nodes_kept(nodes[name]), NODES))
        self.GAT_layer_ST = GraphAttention(DIM, DIM_ST)
        self.pool_ST = GraphPool(0.64, DIM_ST, n_min=2)
        self.proj_ST = nn.Linear(DIM_ST, 1)
        self.out_layer = output_layer(c.output, self.pool_ST.nodes_kept(NODES))

    def forward(self, x: Tensor, freq_aug: bool = False) -> tuple[Tensor, Tensor]:
        """Waveforms (B, T) at 16 kHz, T as `nb_samp` → hidden (B, 7), logits (B, 2) of spoof and bona fide.

        freq_aug: mask random neighbouring filters; only in training mode.
        """
        return self.classify(*self.encode(x, mask=freq_aug and self.training))

    def encode(self, x: Tensor, mask: bool = False) -> tuple[Tensor, Tensor]:
        """(B, T) → two encodings (B, C, N_S, N_T) of the filter bank's output, for the spectral and temporal graph."""
        with fp32(x):
            x = self.conv_time(x, mask)[:, None]  # (B, 1, filters, T - taps + 1)
            x = F.max_pool2d(x.abs(), 3)  # (B, 1, N_S, ·)
        x = F.selu(self.first_bn(x))
        return self.encoder_T(x), self.encoder_S(x)

    def classify(self, over_time: Tensor, over_frequency: Tensor) -> tuple[Tensor, Tensor]:
        """Two encodings (B, C, N_S, N_T) → hidden (B, 7), logits (B, 2): the graphs (sections 3.2 to 3.4)."""
        with fp32(over_time):  # half precision would make ties of the scores that the pools choose by
            spectral = over_time.float().abs().amax(dim=3).transpose(1, 2)  # (B, N_S, C)
            temporal = over_frequency.float().abs().amax(dim=2).transpose(1, 2)  # (B, N_T, C)
            spectral = self.pool_T(self.GAT_layer_T(spectral)).transpose(1, 2)  # (B, D, nodes kept)
            temporal = self.pool_S(self.GAT_layer_S(temporal)).transpose(1, 2)
            product = (self.proj_T(spectral) * self.proj_S(temporal)).transpose(1, 2)  # (B, 12, D)
            hidden = self.proj_ST(self.pool_ST(self.GAT_layer_ST(product))).flatten(1)  # (B, 7)
            return hidden, self.out_layer(hidden)
