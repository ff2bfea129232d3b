"""AASIST: audio anti-spoofing using integrated spectro-temporal graph attention networks.

Jung et al., ICASSP 2022, arXiv 2110.01200. AASIST-L is the same class with other sizes (config/AASIST-L.conf).
Official checkpoints load with strict=True and give the official logits; ours load in the official code.

B batch, T samples, C channels, N_S spectral (frequency) nodes, N_T temporal nodes, D features of a node.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.schema import parse, require

from .layers import (
    GraphAttention,
    GraphPool,
    HeteroGraphAttention,
    ResidualBlock,
    SincBank,
    are_filters,
    fp32,
    output_layer,
)


@dataclass(frozen=True)
class GraphConfig:
    """Keys of `model_config` that models with AASIST's graphs share, named as in the official files."""

    architecture: str
    filts: list  # [filters of the bank, then [channels in, out] of the blocks: first, second, third, the last three]
    gat_dims: tuple[int, int]  # features of a node: first graph layers, heterogeneous layers
    pool_ratios: tuple[float, ...]  # shares of nodes kept: spectral, temporal, both in the branches (a 4th is unread)
    temperatures: tuple[float, ...]  # of attention: spectral, temporal, heterogeneous (a 4th is unread)
    nb_samp: int = 64600  # samples of a chunk
    output: Literal["linear", "cosine"] = "linear"  # cosine: for the losses of angles

    def __post_init__(self):
        filts = "[filters, [1, c1], [c1, c2], [c2, c3], [c3, c3]] of whole numbers above 0"
        require(are_filters(self.filts), "model_config.filts", filts, self.filts)
        require(all(d > 0 for d in self.gat_dims), "model_config.gat_dims", "two values above 0", self.gat_dims)
        ratios, heats = self.pool_ratios, self.temperatures
        are_ratios = len(ratios) in (3, 4) and all(0 < r <= 1 for r in ratios)
        require(are_ratios, "model_config.pool_ratios", "3 or 4 values in (0, 1]", ratios)
        are_heats = len(heats) in (3, 4) and all(t > 0 for t in heats)
        require(are_heats, "model_config.temperatures", "3 or 4 values above 0", heats)


@dataclass(frozen=True)
class ModelConfig(GraphConfig):
    """Keys of AASIST's `model_config`."""

    first_conv: int = 128  # taps of the filter bank

    def __post_init__(self):
        super().__post_init__()
        require(self.first_conv >= 1, "model_config.first_conv", "1 or more", self.first_conv)
        shortest = self.first_conv + 3**7 + 1  # one frame must be left after seven poolings by 3
        require(self.nb_samp >= shortest, "model_config.nb_samp", f"{shortest} or more", self.nb_samp)


class Graphs(nn.Module):
    """AASIST's graphs and output layer, for a model that makes their nodes (sections 2.2 to 2.4)."""

    def add_graphs(self, c: GraphConfig, channels: int, spectral_nodes: int) -> None:
        """Make the parameters, for nodes of so many channels."""
        d1, d2 = c.gat_dims
        ratio_s, ratio_t, ratio_h = c.pool_ratios[:3]
        heat_s, heat_t, heat_h = c.temperatures[:3]
        self.pos_S = nn.Parameter(torch.randn(1, spectral_nodes, channels))
        self.master1 = nn.Parameter(torch.randn(1, 1, d1))
        self.master2 = nn.Parameter(torch.randn(1, 1, d1))

        self.GAT_layer_S = GraphAttention(channels, d1, heat_s)
        self.GAT_layer_T = GraphAttention(channels, d1, heat_t)
        self.pool_S = GraphPool(ratio_s, d1)
        self.pool_T = GraphPool(ratio_t, d1)
        for branch in ("1", "2"):
            self.add_module(f"HtrgGAT_layer_ST{branch}1", HeteroGraphAttention(d1, d2, heat_h))
            self.add_module(f"HtrgGAT_layer_ST{branch}2", HeteroGraphAttention(d2, d2, heat_h))
            self.add_module(f"pool_hS{branch}", GraphPool(ratio_h, d2))
            self.add_module(f"pool_hT{branch}", GraphPool(ratio_h, d2))

        self.drop_way = nn.Dropout(0.2)
        self.drop = nn.Dropout(0.5)
        self.out_layer = output_layer(c.output, 5 * d2)

    def relate(self, spectral: Tensor, temporal: Tensor) -> tuple[Tensor, Tensor]:
        """Nodes (B, N_S, C), (B, N_T, C) → hidden (B, 5·D), logits (B, 2); in full precision."""
        spectral = self.pool_S(self.GAT_layer_S(spectral))
        temporal = self.pool_T(self.GAT_layer_T(temporal))
        branches = zip(self._branch("1", temporal, spectral), self._branch("2", temporal, spectral), strict=True)
        T, S, master = (torch.maximum(self.drop_way(a), self.drop_way(b)) for a, b in branches)
        readout = [T.abs().amax(dim=1), T.mean(dim=1), S.abs().amax(dim=1), S.mean(dim=1), master[:, 0]]
        hidden = self.drop(torch.cat(readout, dim=1))  # (B, 5·D)
        return hidden, self.out_layer(hidden)

    def _branch(self, name: str, temporal: Tensor, spectral: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One heterogeneous stacking branch (section 2.4) → temporal and spectral (B, ·, D), master (B, 1, D)."""
        layer1, layer2 = getattr(self, f"HtrgGAT_layer_ST{name}1"), getattr(self, f"HtrgGAT_layer_ST{name}2")
        pool_s, pool_t = getattr(self, f"pool_hS{name}"), getattr(self, f"pool_hT{name}")
        T, S, master = layer1(temporal, spectral, getattr(self, f"master{name}"))
        T, S = pool_t(T), pool_s(S)
        residual = layer2(T, S, master)
        T, S, master = (old + new for old, new in zip((T, S, master), residual, strict=True))
        return T, S, master


class Model(Graphs):
    """AASIST. Raises UserError when `model_config` is not as `ModelConfig` says."""

    def __init__(self, model_config: dict):
        super().__init__()
        c = parse(ModelConfig, model_config, "model_config.")
        self.nb_samp = c.nb_samp
        filters, *blocks = c.filts
        channels = blocks[-1][1]

        self.conv_time = SincBank(filters, c.first_conv)
        self.first_bn = nn.BatchNorm2d(1)
        blocks = [*blocks, blocks[-1], blocks[-1]]
        self.encoder = nn.Sequential(
            *(nn.Sequential(ResidualBlock(*pair, first=i == 0)) for i, pair in enumerate(blocks))
        )
        self.add_graphs(c, channels, filters // 3)

    def forward(self, x: Tensor, freq_aug: bool = False) -> tuple[Tensor, Tensor]:
        """Waveforms (B, T) at 16 kHz → hidden (B, 5·D), logits (B, 2) of spoof and bona fide.

        freq_aug: mask random neighbouring filters; only in training mode.
        """
        return self.classify(self.encode(x, mask=freq_aug and self.training))

    def encode(self, x: Tensor, mask: bool = False) -> Tensor:
        """(B, T) → (B, C, N_S, N_T): filter bank, then the residual encoder (RawNet2-based, section 2.1)."""
        with fp32(x):
            x = self.conv_time(x, mask)[:, None]  # (B, 1, filters, T - taps + 1)
            x = F.max_pool2d(x.abs(), 3)  # (B, 1, N_S, ·)
        return self.encoder(F.selu(self.first_bn(x)))

    def classify(self, e: Tensor) -> tuple[Tensor, Tensor]:
        """Encoded (B, C, N_S, N_T) → hidden (B, 5·D), logits (B, 2): each node is the maximum over the other axis."""
        with fp32(e):  # half precision would make ties of the scores that the pools choose by
            e = e.float().abs()
            spectral = e.amax(dim=3).transpose(1, 2) + self.pos_S  # (B, N_S, C)
            temporal = e.amax(dim=2).transpose(1, 2)  # (B, N_T, C)
            return self.relate(spectral, temporal)
