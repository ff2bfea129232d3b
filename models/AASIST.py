"""AASIST: audio anti-spoofing using integrated spectro-temporal graph attention networks.

Jung et al., ICASSP 2022, arXiv 2110.01200. Section numbers below are the paper's. AASIST-L is the same class with
smaller sizes (config/AASIST-L.conf). Official checkpoints load with strict=True and give the official logits, and ours
load in the official code: that is why parameters carry the official names.

    2.1  e = encoder(sinc filters(x))                     a map of frequency × time
    2.2  G_S = pool(GAT(max over time |e|))               spectral graph, a node for each frequency band
         G_T = pool(GAT(max over frequency |e|))          temporal graph, a node for each stretch of time
    2.3  G_T, G_S, stack = HS-GAL(G_T, G_S, stack)        attention within the graphs and between them
    2.4  two branches of two HS-GALs → their element-wise maximum → readout → logits

B batch, T samples, C channels, N_S spectral (frequency) nodes, N_T temporal nodes, D features of a node.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.memory import require_memory
from common.schema import parse, require

from .layers import (
    GraphAttention,
    GraphPool,
    ResidualBlock,
    SincBank,
    are_filters,
    attention_vector,
    fp32,
    graph_values,
    output_layer,
    over_nodes,
)


@dataclass(frozen=True)
class GraphConfig:
    """Keys of `model_config` for the graphs, named as in the official files. SSL_AASIST uses the same."""

    architecture: str
    filts: list  # [sinc filters, then [channels in, out] of residual blocks 1, 2, 3 and of blocks 4 to 6]
    gat_dims: tuple[int, int]  # D after the graph attention layers, and after the HS-GALs
    pool_ratios: tuple[float, ...]  # fraction of nodes kept: spectral, temporal, in the branches; a 4th is not used
    temperatures: tuple[float, ...]  # of attention: spectral, temporal, HS-GAL; a 4th is not used
    nb_samp: int = 64600  # samples of a chunk
    output: Literal["linear", "cosine"] = "linear"  # cosine: for losses with an angular margin

    def __post_init__(self):
        filts = "[filters, [1, c1], [c1, c2], [c2, c3], [c3, c3]] of whole numbers above 0"
        require(are_filters(self.filts), "model_config.filts", filts, self.filts)
        require(all(d > 0 for d in self.gat_dims), "model_config.gat_dims", "two values above 0", self.gat_dims)
        ratios, temperatures = self.pool_ratios, self.temperatures
        are_ratios = len(ratios) in (3, 4) and all(0 < r <= 1 for r in ratios)
        require(are_ratios, "model_config.pool_ratios", "3 or 4 values in (0, 1]", ratios)
        are_temperatures = len(temperatures) in (3, 4) and all(t > 0 for t in temperatures)
        require(are_temperatures, "model_config.temperatures", "3 or 4 values above 0", temperatures)
        require_memory(graph_values(self.filts, max(self.gat_dims), self.nb_samp), "model_config")


@dataclass(frozen=True)
class ModelConfig(GraphConfig):
    """Keys of AASIST's `model_config`."""

    first_conv: int = 128  # taps of each sinc filter

    def __post_init__(self):
        super().__post_init__()
        require(self.first_conv >= 1, "model_config.first_conv", "1 or more", self.first_conv)
        shortest = self.first_conv + 3**7 + 1  # seven poolings by 3 must leave one frame
        require(self.nb_samp >= shortest, "model_config.nb_samp", f"{shortest} or more", self.nb_samp)


class HeteroGraphAttention(nn.Module):
    """HS-GAL: heterogeneous stacking graph attention layer (section 2.3).

    Attention among the nodes of two graphs, with separate vectors w for edges within graph 1, within graph 2 and
    between the two. A stack node s ("master" in the official code) collects from all nodes and passes nothing back:

        x = [P1 x1; P2 x2]                                       one graph of N = N1 + N2 nodes
        α_ij = softmax_j(w_ij · tanh(W (x_i ⊙ x_j)) / τ)         w_ij = w11, w12 or w22
        y_i = SELU(BN(U Σ_j α_ij x_j + V x_i))
        β_i = softmax_i(w_s · tanh(W_s (x_i ⊙ s)) / τ)
        s' = U_s Σ_i β_i x_i + V_s s
    """

    def __init__(self, dim_in: int, dim_out: int, temperature: float = 1.0):
        super().__init__()
        self.temperature = temperature  # τ
        self.proj_type1 = nn.Linear(dim_in, dim_in)  # P1
        self.proj_type2 = nn.Linear(dim_in, dim_in)  # P2
        self.input_drop = nn.Dropout(0.2)
        self.att_proj = nn.Linear(dim_in, dim_out)  # W
        self.att_projM = nn.Linear(dim_in, dim_out)  # W_s
        self.att_weight11 = attention_vector(dim_out)
        self.att_weight22 = attention_vector(dim_out)
        self.att_weight12 = attention_vector(dim_out)
        self.att_weightM = attention_vector(dim_out)  # w_s
        self.proj_with_att = nn.Linear(dim_in, dim_out)  # U
        self.proj_without_att = nn.Linear(dim_in, dim_out)  # V
        self.proj_with_attM = nn.Linear(dim_in, dim_out)  # U_s
        self.proj_without_attM = nn.Linear(dim_in, dim_out)  # V_s
        self.bn = nn.BatchNorm1d(dim_out)

    def forward(self, x1: Tensor, x2: Tensor, stack: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x1 (B, N1, D_in), x2 (B, N2, D_in), stack (B or 1, 1, D_in)

        → x1 (B, N1, D_out), x2 (B, N2, D_out), stack (B, 1, D_out)
        """
        n1 = x1.shape[1]
        x = torch.cat([self.proj_type1(x1), self.proj_type2(x2)], dim=1)  # (B, N, D_in)
        x = self.input_drop(x)
        stack = self._update_stack(x, stack)
        y = self.proj_with_att(self._attention(x, n1) @ x) + self.proj_without_att(x)
        y = F.selu(over_nodes(self.bn, y))  # (B, N, D_out)
        return y[:, :n1], y[:, n1:], stack

    def _attention(self, x: Tensor, n1: int) -> Tensor:
        """α: (B, N, D_in) → (B, N, N), rows sum to 1."""
        pairs = torch.tanh(self.att_proj(x[:, :, None] * x[:, None, :]))  # (B, N, N, D_out)
        from1 = torch.cat([pairs[:, :n1, :n1] @ self.att_weight11, pairs[:, :n1, n1:] @ self.att_weight12], dim=2)
        from2 = torch.cat([pairs[:, n1:, :n1] @ self.att_weight12, pairs[:, n1:, n1:] @ self.att_weight22], dim=2)
        logits = torch.cat([from1, from2], dim=1).squeeze(-1)  # (B, N, N)
        return torch.softmax(logits / self.temperature, dim=-1)

    def _update_stack(self, x: Tensor, stack: Tensor) -> Tensor:
        """s': the stack node attends to every node. (B, N, D_in), (B or 1, 1, D_in) → (B, 1, D_out)"""
        logits = torch.tanh(self.att_projM(x * stack)) @ self.att_weightM  # (B, N, 1)
        attention = torch.softmax(logits / self.temperature, dim=1).transpose(1, 2)  # β: (B, 1, N)
        return self.proj_with_attM(attention @ x) + self.proj_without_attM(stack)


class GraphBackEnd(nn.Module):
    """Sections 2.2 to 2.4: nodes → logits.

    A base class and not a submodule, because the official names of its parameters have no prefix.
    """

    def build_graphs(self, c: GraphConfig, channels: int, spectral_nodes: int) -> None:
        """Make the parameters, for nodes of `channels` features. The order fixes which seed gives which weights."""
        d1, d2 = c.gat_dims
        ratio_s, ratio_t, ratio_st = c.pool_ratios[:3]
        tau_s, tau_t, tau_st = c.temperatures[:3]
        self.pos_S = nn.Parameter(torch.randn(1, spectral_nodes, channels))  # positions of the spectral nodes
        self.master1 = nn.Parameter(torch.randn(1, 1, d1))  # stack node at the start of branch 1
        self.master2 = nn.Parameter(torch.randn(1, 1, d1))  # and of branch 2

        self.GAT_layer_S = GraphAttention(channels, d1, tau_s)
        self.GAT_layer_T = GraphAttention(channels, d1, tau_t)
        self.pool_S = GraphPool(ratio_s, d1)
        self.pool_T = GraphPool(ratio_t, d1)

        self.HtrgGAT_layer_ST11 = HeteroGraphAttention(d1, d2, tau_st)  # branch 1
        self.HtrgGAT_layer_ST12 = HeteroGraphAttention(d2, d2, tau_st)
        self.pool_hS1 = GraphPool(ratio_st, d2)
        self.pool_hT1 = GraphPool(ratio_st, d2)

        self.HtrgGAT_layer_ST21 = HeteroGraphAttention(d1, d2, tau_st)  # branch 2
        self.HtrgGAT_layer_ST22 = HeteroGraphAttention(d2, d2, tau_st)
        self.pool_hS2 = GraphPool(ratio_st, d2)
        self.pool_hT2 = GraphPool(ratio_st, d2)

        self.drop_way = nn.Dropout(0.2)
        self.drop = nn.Dropout(0.5)
        self.out_layer = output_layer(c.output, 5 * d2)

    def classify_nodes(self, spectral: Tensor, temporal: Tensor) -> tuple[Tensor, Tensor]:
        """Nodes (B, N_S, C), (B, N_T, C) → hidden (B, 5·D), logits (B, 2); in full precision."""
        # 2.2, graph modules: attention among the nodes, then the best of them
        G_S = self.pool_S(self.GAT_layer_S(spectral))  # (B, N_S', D1)
        G_T = self.pool_T(self.GAT_layer_T(temporal))  # (B, N_T', D1)

        # 2.3 and 2.4, branch 1: an HS-GAL, a pool for each graph, and an HS-GAL with a residual connection
        G_T1, G_S1, stack1 = self.HtrgGAT_layer_ST11(G_T, G_S, self.master1)
        G_T1, G_S1 = self.pool_hT1(G_T1), self.pool_hS1(G_S1)  # (B, N_T'', D2), (B, N_S'', D2)
        dT, dS, d_stack = self.HtrgGAT_layer_ST12(G_T1, G_S1, stack1)
        G_T1, G_S1, stack1 = G_T1 + dT, G_S1 + dS, stack1 + d_stack

        # branch 2: the same layers with parameters of their own
        G_T2, G_S2, stack2 = self.HtrgGAT_layer_ST21(G_T, G_S, self.master2)
        G_T2, G_S2 = self.pool_hT2(G_T2), self.pool_hS2(G_S2)
        dT, dS, d_stack = self.HtrgGAT_layer_ST22(G_T2, G_S2, stack2)
        G_T2, G_S2, stack2 = G_T2 + dT, G_S2 + dS, stack2 + d_stack

        # 2.4, max graph operation: the branches compete for each feature of each node
        G_T = torch.maximum(self.drop_way(G_T1), self.drop_way(G_T2))  # (B, N_T'', D2)
        G_S = torch.maximum(self.drop_way(G_S1), self.drop_way(G_S2))  # (B, N_S'', D2)
        stack = torch.maximum(self.drop_way(stack1), self.drop_way(stack2))  # (B, 1, D2)

        # 2.4, readout: maximum and mean over each graph's nodes, and the stack node
        readout = [G_T.abs().amax(dim=1), G_T.mean(dim=1), G_S.abs().amax(dim=1), G_S.mean(dim=1), stack[:, 0]]
        hidden = self.drop(torch.cat(readout, dim=1))  # (B, 5·D2)
        return hidden, self.out_layer(hidden)


class Model(GraphBackEnd):
    """AASIST. Raises UserError when `model_config` does not fit `ModelConfig`."""

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
        self.build_graphs(c, channels, filters // 3)

    def forward(self, x: Tensor, freq_aug: bool = False) -> tuple[Tensor, Tensor]:
        """Waveforms (B, T) at 16 kHz → hidden (B, 5·D), logits (B, 2) of spoof and bona fide.

        freq_aug: mask random neighbouring filters; only in training mode.
        """
        return self.classify(self.encode(x, mask=freq_aug and self.training))

    def encode(self, x: Tensor, mask: bool = False) -> Tensor:
        """Section 2.1, RawNet2-based encoder: (B, T) → (B, C, N_S, N_T)."""
        with fp32(x):
            x = self.conv_time(x, mask)[:, None]  # (B, 1, filters, T - taps + 1): an image of one channel
            x = F.max_pool2d(x.abs(), 3)  # (B, 1, N_S, ·)
        return self.encoder(F.selu(self.first_bn(x)))  # each of six blocks pools time by 3

    def classify(self, e: Tensor) -> tuple[Tensor, Tensor]:
        """Encoded (B, C, N_S, N_T) → hidden (B, 5·D), logits (B, 2)."""
        with fp32(e):  # half precision would give nodes equal scores, and the pools choose by them
            e = e.float().abs()
            spectral = e.amax(dim=3).transpose(1, 2) + self.pos_S  # max over time: (B, N_S, C)
            temporal = e.amax(dim=2).transpose(1, 2)  # max over frequency: (B, N_T, C)
            return self.classify_nodes(spectral, temporal)
