"""Layers that the raw-waveform models share.

B batch, T samples, C channels, F frequency bins, N graph nodes, D features of a node.
Parameter names are those of the official checkpoints.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

SAMPLE_RATE = 16_000


class SincBank(nn.Module):
    """Fixed mel-spaced band-pass filters as a convolution (RawNet2, arXiv 2011.01108, section 2).

    filters: number C; taps: length K of each (one more if even, to have a centre).
    """

    MAX_MASKED = 20  # filters that one frequency mask may silence, exclusive

    def __init__(self, filters: int, taps: int):
        super().__init__()
        half = taps // 2
        mel = np.linspace(0, 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700), filters + 1)
        edges = 2 * 700 * (10 ** (mel / 2595) - 1)  # (C + 1,) twice the cut-off in Hz
        # Rounded where the official filters are: a bit's difference here changes gradients' second digit.
        n = np.arange(-half, half + 1, dtype=np.float32)  # (K,)
        sinc = [np.sinc(np.float32(f) * n / np.float32(SAMPLE_RATE)).astype(np.float64) for f in edges]
        low_pass = edges[:, None] / SAMPLE_RATE * np.stack(sinc)  # (C + 1, K)
        bank = np.hamming(len(n)).astype(np.float32) * (low_pass[1:] - low_pass[:-1]).astype(np.float32)
        self.register_buffer("bank", torch.from_numpy(bank)[:, None], persistent=False)  # (C, 1, K)

    def forward(self, x: Tensor, mask: bool = False) -> Tensor:
        """(B, T) → (B, C, T - K + 1); `mask` silences random neighbouring filters for the whole batch."""
        bank = self._masked() if mask else self.bank
        return F.conv1d(x[:, None], bank)

    def _masked(self) -> Tensor:
        bank = self.bank.clone()
        bank[random_band(len(bank), self.MAX_MASKED)] = 0
        return bank


def random_band(filters: int, widest: int) -> slice:
    """Random neighbours among so many filters, fewer than `widest`, maybe none (frequency masking)."""
    width = int(torch.rand(()) * min(widest, filters))
    first = int(torch.randint(filters - width + 1, ()))
    return slice(first, first + width)


class Recomputable(nn.Module):
    """A block whose `_compute` is its forward pass, and draws nothing at random."""

    recompute = False  # in training, compute activations again in the backward pass instead of keeping them

    def forward(self, x: Tensor) -> Tensor:
        if not (self.recompute and self.training and torch.is_grad_enabled()):
            return self._compute(x)
        contexts = lambda: (nullcontext(), statistics_kept(self))  # noqa: E731 — the batch is seen twice, not new
        return checkpoint(self._compute, x, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)


class ResidualBlock(Recomputable):
    """2-D residual block of AASIST's encoder, (B, C_in, F, T) → (B, C_out, F, ⌊T / pool⌋).

    `bn1` is in the official checkpoints, but the released forward pass throws its output away: it stays unused here.
    """

    def __init__(self, channels_in: int, channels_out: int, first: bool = False, pool: int = 3):
        super().__init__()
        self.pool = pool
        if not first:
            self.bn1 = nn.BatchNorm2d(channels_in).requires_grad_(False)
        self.conv1 = nn.Conv2d(channels_in, channels_out, (2, 3), padding=(1, 1))
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, (2, 3), padding=(0, 1))
        if channels_in != channels_out:
            self.conv_downsample = nn.Conv2d(channels_in, channels_out, (1, 3), padding=(0, 1))
        self.same_channels = channels_in == channels_out

    def _compute(self, x: Tensor) -> Tensor:
        identity = x if self.same_channels else self.conv_downsample(x)
        # In place where the backward pass needs no copy of what was before: a quarter less memory.
        y = F.selu(self.bn2(self.conv1(x)), inplace=True)  # (B, C_out, F + 1, T)
        y = self.conv2(y).add_(identity)
        return F.max_pool2d(y, (1, self.pool)) if self.pool > 1 else y


class ResidualBlock1d(Recomputable):
    """Residual block of RawNet2 (arXiv 2011.01108, section 3), (B, C_in, T) → (B, C_out, ⌊T / 3⌋); `bn1` as above."""

    def __init__(self, channels_in: int, channels_out: int, first: bool = False):
        super().__init__()
        if not first:
            self.bn1 = nn.BatchNorm1d(channels_in).requires_grad_(False)
        self.conv1 = nn.Conv1d(channels_in, channels_out, 3, padding=1)
        self.bn2 = nn.BatchNorm1d(channels_out)
        self.conv2 = nn.Conv1d(channels_out, channels_out, 3, padding=1)
        if channels_in != channels_out:
            self.conv_downsample = nn.Conv1d(channels_in, channels_out, 1)
        self.same_channels = channels_in == channels_out

    def _compute(self, x: Tensor) -> Tensor:
        identity = x if self.same_channels else self.conv_downsample(x)
        y = F.leaky_relu(self.bn2(self.conv1(x)), 0.3, inplace=True)  # (B, C_out, T)
        return F.max_pool1d(self.conv2(y).add_(identity), 3)


def are_filters(filts: list) -> bool:
    """Whether `filts` describes a bank and 2-D blocks whose channels fit together."""
    if len(filts) != 5 or not all(isinstance(pair, list) and len(pair) == 2 for pair in filts[1:]):
        return False
    numbers = [filts[0], *(n for pair in filts[1:] for n in pair)]
    chained = all(a[1] == b[0] for a, b in pairwise(filts[1:])) and filts[4][0] == filts[4][1]
    return all(type(n) is int and n > 0 for n in numbers) and filts[0] >= 3 and filts[1][0] == 1 and chained


@contextmanager
def statistics_kept(module: nn.Module) -> Iterator[None]:
    """Let batch norms in training mode normalise by the batch, but leave their running statistics alone."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(batches)


def fp32(x: Tensor) -> torch.autocast:
    """A context in which a model that runs under autocast computes with full precision on x's device."""
    return torch.autocast(x.device.type, enabled=False)


def over_nodes(norm: nn.Module, x: Tensor) -> Tensor:
    """Batch norm over all nodes of the batch, per feature: (B, N, D) → (B, N, D)."""
    return norm(x.flatten(0, 1)).view_as(x)


class GraphAttention(nn.Module):
    """Graph attention over pairwise products of nodes (AASIST, arXiv 2110.01200, section 2.2)."""

    def __init__(self, dim_in: int, dim_out: int, temperature: float = 1.0):
        super().__init__()
        self.temperature = temperature
        self.input_drop = nn.Dropout(0.2)
        self.att_proj = nn.Linear(dim_in, dim_out)
        self.att_weight = attention_vector(dim_out)
        self.proj_with_att = nn.Linear(dim_in, dim_out)
        self.proj_without_att = nn.Linear(dim_in, dim_out)
        self.bn = nn.BatchNorm1d(dim_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D_in) → (B, N, D_out)"""
        x = self.input_drop(x)
        pairs = torch.tanh(self.att_proj(x[:, :, None] * x[:, None, :]))  # (B, N, N, D_out)
        logits = (pairs @ self.att_weight).squeeze(-1)  # (B, N, N)
        attention = torch.softmax(logits / self.temperature, dim=-1)
        return F.selu(over_nodes(self.bn, self.proj_with_att(attention @ x) + self.proj_without_att(x)))


class HeteroGraphAttention(nn.Module):
    """Heterogeneous stacking graph attention with a master ("stack") node (AASIST, section 2.3)."""

    def __init__(self, dim_in: int, dim_out: int, temperature: float = 1.0):
        super().__init__()
        self.temperature = temperature
        self.proj_type1 = nn.Linear(dim_in, dim_in)
        self.proj_type2 = nn.Linear(dim_in, dim_in)
        self.input_drop = nn.Dropout(0.2)
        self.att_proj = nn.Linear(dim_in, dim_out)
        self.att_projM = nn.Linear(dim_in, dim_out)
        self.att_weight11 = attention_vector(dim_out)
        self.att_weight22 = attention_vector(dim_out)
        self.att_weight12 = attention_vector(dim_out)
        self.att_weightM = attention_vector(dim_out)
        self.proj_with_att = nn.Linear(dim_in, dim_out)
        self.proj_without_att = nn.Linear(dim_in, dim_out)
        self.proj_with_attM = nn.Linear(dim_in, dim_out)
        self.proj_without_attM = nn.Linear(dim_in, dim_out)
        self.bn = nn.BatchNorm1d(dim_out)

    def forward(self, x1: Tensor, x2: Tensor, master: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """x1 (B, N1, D_in), x2 (B, N2, D_in), master (B or 1, 1, D_in), by default the nodes' mean

        → x1 (B, N1, D_out), x2 (B, N2, D_out), master (B, 1, D_out)
        """
        n1 = x1.shape[1]
        x = torch.cat([self.proj_type1(x1), self.proj_type2(x2)], dim=1)  # (B, N, D_in)
        if master is None:
            master = x.mean(dim=1, keepdim=True)
        x = self.input_drop(x)
        master = self._update_master(x, master)
        y = self.proj_with_att(self._attention(x, n1) @ x) + self.proj_without_att(x)
        y = F.selu(over_nodes(self.bn, y))  # (B, N, D_out)
        return y[:, :n1], y[:, n1:], master

    def _attention(self, x: Tensor, n1: int) -> Tensor:
        """(B, N, D_in) → (B, N, N), rows sum to 1; within each type and across types by a vector of its own."""
        pairs = torch.tanh(self.att_proj(x[:, :, None] * x[:, None, :]))  # (B, N, N, D_out)
        from1 = torch.cat([pairs[:, :n1, :n1] @ self.att_weight11, pairs[:, :n1, n1:] @ self.att_weight12], dim=2)
        from2 = torch.cat([pairs[:, n1:, :n1] @ self.att_weight12, pairs[:, n1:, n1:] @ self.att_weight22], dim=2)
        logits = torch.cat([from1, from2], dim=1).squeeze(-1)  # (B, N, N)
        return torch.softmax(logits / self.temperature, dim=-1)

    def _update_master(self, x: Tensor, master: Tensor) -> Tensor:
        """The master attends to every node: (B, 1, D_out)."""
        logits = torch.tanh(self.att_projM(x * master)) @ self.att_weightM  # (B, N, 1)
        attention = torch.softmax(logits / self.temperature, dim=1).transpose(1, 2)  # (B, 1, N)
        return self.proj_with_attM(attention @ x) + self.proj_without_attM(master)


class GraphPool(nn.Module):
    """Keep the ⌊N·ratio⌋ nodes (at least `n_min`) of highest sigmoid score, best first, each times its score."""

    def __init__(self, ratio: float, dim: int, n_min: int = 1):
        super().__init__()
        self.ratio, self.n_min = ratio, n_min
        self.drop = nn.Dropout(0.3)  # acts on the scores only
        self.proj = nn.Linear(dim, 1)

    def forward(self, h: Tensor) -> Tensor:
        """(B, N, D) → (B, N', D)"""
        scores = torch.sigmoid(self.proj(self.drop(h)))  # (B, N, 1)
        kept = scores.topk(self.nodes_kept(h.shape[1]), dim=1).indices  # (B, N', 1)
        return (h * scores).gather(1, kept.expand(-1, -1, h.shape[2]))

    def nodes_kept(self, nodes: int) -> int:
        """N' of N."""
        return max(int(nodes * self.ratio), self.n_min)


class Cosine(nn.Module):
    """Cosines between x and a learnt direction of each class, for losses that want angles; no bias.

    The directions are one orthonormal pair to begin with, so that no class starts in another's place.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(2, dim)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) → (B, 2) in [-1, 1]"""
        return F.normalize(x) @ F.normalize(self.weight).T


def output_layer(kind: str, dim: int) -> nn.Module:
    """(B, D) → logits (B, 2) of spoof and bona fide: `linear`, or the `cosine` that margin losses are made of."""
    return Cosine(dim) if kind == "cosine" else nn.Linear(dim, 2)


def attention_vector(dim: int) -> nn.Parameter:
    """(dim, 1), Xavier normal."""
    return nn.Parameter(nn.init.xavier_normal_(torch.empty(dim, 1)))
