"""Layers that several models share. Their parameters have the names that the official checkpoints use.

B batch, T samples or frames, C channels, F frequency bins, N graph nodes, D features of a node.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from common.schema import require

from .batch_norm import BatchNorm2d

SAMPLE_RATE = 16_000
LEVEL, SILENCE = 0.05, 1e-5  # root mean square that every chunk is brought to; what lies below is not raised further


class SincBank(nn.Module):
    """Bank of fixed sinc filters, band-pass and mel-spaced, as a convolution (RawNet2, arXiv 2011.01108, section 2).

    filters: how many (C); taps: length K of each, raised to an odd number so that a filter has a centre.
    """

    MAX_MASKED = 20  # one frequency mask silences fewer filters than this

    def __init__(self, filters: int, taps: int):
        super().__init__()
        require(filters * taps <= 1 << 24, "model_config", "sinc filters of 16 million taps in all", filters * taps)
        half = taps // 2
        mel = np.linspace(0, 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700), filters + 1)
        edges = 2 * 700 * (10 ** (mel / 2595) - 1)  # (C + 1,) twice the cut-off frequency in Hz
        # Rounded at the same places as the official code: one bit more or less changes gradients in the second digit.
        n = np.arange(-half, half + 1, dtype=np.float32)  # (K,)
        sinc = [np.sinc(np.float32(f) * n / np.float32(SAMPLE_RATE)).astype(np.float64) for f in edges]
        low_pass = edges[:, None] / SAMPLE_RATE * np.stack(sinc)  # (C + 1, K)
        band_pass = np.hamming(len(n)).astype(np.float32) * (low_pass[1:] - low_pass[:-1]).astype(np.float32)
        self.register_buffer("band_pass", torch.from_numpy(band_pass)[:, None], persistent=False)  # (C, 1, K)

    def forward(self, x: Tensor, mask: bool = False) -> Tensor:
        """(B, T) → (B, C, T - K + 1); `mask` silences random neighbouring filters for the whole batch."""
        return F.conv1d(x[:, None], self._masked() if mask else self.band_pass)

    def _masked(self) -> Tensor:
        band_pass = self.band_pass.clone()
        band_pass[random_band(len(band_pass), self.MAX_MASKED)] = 0
        return band_pass


def at_level(x: Tensor) -> Tensor:
    """(B, T) at one level: levels differ between the classes of most corpora, and say nothing about a recording."""
    return x * (LEVEL / x.square().mean(dim=1, keepdim=True).sqrt().clamp(min=SILENCE))


class LogFilterBank(nn.Module):
    """Base of banks that turn power spectra into log energies, power (B, bins, L) → (B, C, L)."""

    centres: np.ndarray  # (C,) Hz, of the filters


def random_band(filters: int, widest: int) -> slice:
    """Frequency masking: a random range of fewer than `widest` of the `filters` filters; it may be empty."""
    width = int(torch.rand(()) * min(widest, filters))
    first = int(torch.randint(filters - width + 1, ()))
    return slice(first, first + width)


class Recomputable(nn.Module):
    """A block that can compute its activations again in the backward pass (gradient checkpointing, arXiv 1604.06174).

    Subclasses put their forward pass into `_compute`, which must not draw random numbers.
    """

    recompute = False  # in training, recompute activations instead of keeping them

    def forward(self, x: Tensor) -> Tensor:
        if not (self.recompute and self.training and torch.is_grad_enabled()):
            return self._compute(x)
        # The second pass sees the same batch again, so it must not change the running statistics.
        contexts = lambda: (nullcontext(), statistics_kept(self))  # noqa: E731
        return checkpoint(self._compute, x, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)


class ResidualBlock(Recomputable):
    """2-D residual block of AASIST's encoder, (B, C_in, F, T) → (B, C_out, F, ⌊T / pool⌋).

    The official checkpoints hold a `bn1`, but the released forward pass discards its output; here it is not computed.
    """

    def __init__(self, channels_in: int, channels_out: int, first: bool = False, pool: int = 3):
        super().__init__()
        self.pool = pool
        if not first:
            self.bn1 = nn.BatchNorm2d(channels_in).requires_grad_(False)
        self.conv1 = nn.Conv2d(channels_in, channels_out, (2, 3), padding=(1, 1))
        self.bn2 = BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, (2, 3), padding=(0, 1))
        if channels_in != channels_out:
            self.conv_downsample = nn.Conv2d(channels_in, channels_out, (1, 3), padding=(0, 1))
        self.same_channels = channels_in == channels_out

    def _compute(self, x: Tensor) -> Tensor:
        identity = x if self.same_channels else self.conv_downsample(x)
        # In place where the backward pass does not need the overwritten values: a quarter less memory.
        y = F.selu(self.bn2(self.conv1(x)), inplace=True)  # (B, C_out, F + 1, T)
        y = self.conv2(y).add_(identity)
        return F.max_pool2d(y, (1, self.pool)) if self.pool > 1 else y


class ResidualBlock1d(Recomputable):
    """Residual block of RawNet2 (arXiv 2011.01108, section 3), (B, C_in, T) → (B, C_out, ⌊T / 3⌋).

    `bn1` is not computed, as in `ResidualBlock`, unless `pre_activation`, as in ASVspoof 5's baseline.
    """

    def __init__(self, channels_in: int, channels_out: int, first: bool = False, pre_activation: bool = False):
        super().__init__()
        self.pre_activation = pre_activation and not first
        if not first:
            self.bn1 = nn.BatchNorm1d(channels_in).requires_grad_(pre_activation)
        self.conv1 = nn.Conv1d(channels_in, channels_out, 3, padding=1)
        self.bn2 = nn.BatchNorm1d(channels_out)
        self.conv2 = nn.Conv1d(channels_out, channels_out, 3, padding=1)
        if channels_in != channels_out:
            self.conv_downsample = nn.Conv1d(channels_in, channels_out, 1)
        self.same_channels = channels_in == channels_out

    def _compute(self, x: Tensor) -> Tensor:
        identity = x if self.same_channels else self.conv_downsample(x)
        y = F.leaky_relu(self.bn1(x), 0.3) if self.pre_activation else x
        y = F.leaky_relu(self.bn2(self.conv1(y)), 0.3, inplace=True)  # (B, C_out, T)
        return F.max_pool1d(self.conv2(y).add_(identity), 3)


def are_filters(filts: list) -> bool:
    """Whether `filts` gives the number of sinc filters and 2-D blocks whose channels fit together."""
    if len(filts) != 5 or not all(isinstance(pair, list) and len(pair) == 2 for pair in filts[1:]):
        return False
    numbers = [filts[0], *(n for pair in filts[1:] for n in pair)]
    chained = all(a[1] == b[0] for a, b in pairwise(filts[1:])) and filts[4][0] == filts[4][1]
    return all(type(n) is int and n > 0 for n in numbers) and filts[0] >= 3 and filts[1][0] == 1 and chained


def graph_values(filts: list, dim: int, nb_samp: int) -> int:
    """Values for a chunk of a model of sinc filters, 2-D blocks and graphs: of the two largest maps, and of attention.

    dim: features of a pair of nodes.
    """
    filters, channels = filts[0], max(pair[1] for pair in filts[1:])
    nodes = filters // 3 + nb_samp // 3**7
    return filters * nb_samp + channels * (filters // 3 + 1) * (nb_samp // 3) + nodes**2 * dim


@contextmanager
def statistics_kept(module: nn.Module) -> Iterator[None]:
    """Keep the running statistics of batch norms unchanged while they normalise by the batch, as in training."""
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
    """A context without autocast on x's device, for computations that need full precision."""
    return torch.autocast(x.device.type, enabled=False)


def over_nodes(norm: nn.Module, x: Tensor) -> Tensor:
    """Batch norm of each feature over all nodes of the batch: (B, N, D) → (B, N, D)."""
    return norm(x.flatten(0, 1)).view_as(x)


class GraphAttention(nn.Module):
    """Graph attention over pairwise products of nodes (AASIST, arXiv 2110.01200, section 2.2).

    α_ij = softmax_j(w · tanh(W (x_i ⊙ x_j)) / τ)
    y_i = SELU(BN(U Σ_j α_ij x_j + V x_i))
    """

    def __init__(self, dim_in: int, dim_out: int, temperature: float = 1.0):
        super().__init__()
        self.temperature = temperature  # τ
        self.input_drop = nn.Dropout(0.2)
        self.att_proj = nn.Linear(dim_in, dim_out)  # W
        self.att_weight = attention_vector(dim_out)  # w
        self.proj_with_att = nn.Linear(dim_in, dim_out)  # U
        self.proj_without_att = nn.Linear(dim_in, dim_out)  # V
        self.bn = nn.BatchNorm1d(dim_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D_in) → (B, N, D_out)"""
        x = self.input_drop(x)
        pairs = torch.tanh(self.att_proj(x[:, :, None] * x[:, None, :]))  # (B, N, N, D_out)
        logits = (pairs @ self.att_weight).squeeze(-1)  # (B, N, N)
        attention = torch.softmax(logits / self.temperature, dim=-1)  # α: (B, N, N)
        return F.selu(over_nodes(self.bn, self.proj_with_att(attention @ x) + self.proj_without_att(x)))


class GraphPool(nn.Module):
    """Graph pooling (AASIST, section 2.2): keep the nodes with the highest scores, best first, times their scores.

    s_n = sigmoid(P h_n);  N' = max(⌊N · ratio⌋, n_min) nodes stay, each as s_n h_n
    """

    def __init__(self, ratio: float, dim: int, n_min: int = 1):
        super().__init__()
        self.ratio, self.n_min = ratio, n_min
        self.drop = nn.Dropout(0.3)  # changes the scores only, not the nodes
        self.proj = nn.Linear(dim, 1)  # P

    def forward(self, h: Tensor) -> Tensor:
        """(B, N, D) → (B, N', D)"""
        scores = torch.sigmoid(self.proj(self.drop(h)))  # (B, N, 1)
        kept = scores.topk(self.nodes_kept(h.shape[1]), dim=1).indices  # (B, N', 1)
        return (h * scores).gather(1, kept.expand(-1, -1, h.shape[2]))

    def nodes_kept(self, nodes: int) -> int:
        """N', given N nodes."""
        return max(int(nodes * self.ratio), self.n_min)


class Cosine(nn.Module):
    """Cosines between x and a learnt direction for each class, for losses with an angular margin; no bias.

    The directions start as an orthonormal pair, so that the classes are apart from the beginning.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(2, dim)))

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) → (B, 2) in [-1, 1]"""
        return F.normalize(x) @ F.normalize(self.weight).T


def output_layer(kind: str, dim: int) -> nn.Module:
    """(B, D) → logits (B, 2) of spoof and bona fide. kind: `linear`, or `cosine` for losses with an angular margin."""
    return Cosine(dim) if kind == "cosine" else nn.Linear(dim, 2)


def attention_vector(dim: int) -> nn.Parameter:
    """(dim, 1), Xavier normal."""
    return nn.Parameter(nn.init.xavier_normal_(torch.empty(dim, 1)))
