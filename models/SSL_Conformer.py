"""SSL-Conformer: a self-supervised speech encoder, followed by a few Conformer blocks and a class token.

Rosello et al., Interspeech 2023, "A Conformer-based classifier for variable-length utterance processing in
anti-spoofing". A learnt token stands before the frames; what the blocks make of it is classified. The block is that of
Gulati et al., arXiv 2005.08100, with Shaw's relative positions, as in the Python package `conformer`.

B batch, T samples, N frames (50 a second), D features, h heads, K taps.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.schema import parse, require

from .layers import fp32
from .ssl_encoder import EncoderKeys, EncoderModel

FARTHEST = 512  # frames; positions farther apart share an embedding


@dataclass(frozen=True, kw_only=True)
class ModelConfig(EncoderKeys):
    """Keys of `model_config`. The defaults are the authors'."""

    architecture: str
    nb_samp: int = 64600  # samples of a chunk
    features: int = 144  # D
    blocks: int = 4
    heads: int = 4  # h
    kernel_size: int = 31  # K

    def __post_init__(self):
        super().__post_init__()
        for name, most in (("features", 8192), ("blocks", 64), ("heads", 64), ("kernel_size", 512)):
            require(1 <= getattr(self, name) <= most, f"model_config.{name}", f"1 … {most}", getattr(self, name))
        require(self.features >= self.heads, "model_config.heads", "at most features", self.heads)


class Model(EncoderModel):
    """SSL-Conformer. Raises UserError when `model_config` does not fit `ModelConfig`, or the encoder is missing."""

    def __init__(self, model_config: dict):
        super().__init__()
        c = parse(ModelConfig, model_config, "model_config.")
        self.LL = nn.Linear(self.build_encoder(c, model_config).hidden_size, c.features)
        self.first_bn = nn.BatchNorm2d(1)
        self.class_token = nn.Parameter(torch.rand(1, c.features))
        self.blocks = nn.ModuleList(Block(c.features, c.heads, c.kernel_size) for _ in range(c.blocks))
        self.fc5 = nn.Linear(c.features, 2)

    def encode(self, x: Tensor) -> Tensor:
        """(B, T) → (B, N, D)"""
        e = self.LL(self.layers(x)[1])
        return F.selu(self.first_bn(e.float()[:, None]))[:, 0]

    def classify(self, e: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, D) → hidden (B, D), logits (B, 2) of spoof and bona fide."""
        with fp32(e):
            e = torch.cat([self.class_token.expand(e.shape[0], 1, -1), e.float()], dim=1)  # (B, 1 + N, D)
            for block in self.blocks:
                e = block(e)
            return e[:, 0], self.fc5(e[:, 0])


class Block(nn.Module):
    """Conformer block, (B, N, D) → (B, N, D): half a feed-forward, attention, convolution, half a feed-forward."""

    def __init__(self, dim: int, heads: int, kernel_size: int):
        super().__init__()
        self.ff1 = FeedForward(dim)
        self.attention = Attention(dim, heads)
        self.convolution = Convolution(dim, kernel_size)
        self.ff2 = FeedForward(dim)
        self.post_norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + 0.5 * self.ff1(x)
        x = x + self.attention(x)
        x = x + self.convolution(x)
        x = x + 0.5 * self.ff2(x)
        return self.post_norm(x)


class FeedForward(nn.Module):
    """(B, N, D) → (B, N, D) through 4 D features."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, 4 * dim)
        self.reduce = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.reduce(F.silu(self.expand(self.norm(x))))


class Attention(nn.Module):
    """Self-attention whose logits know how far two frames are apart: q_i · (k_j + r_{i-j}) / √d; (B, N, D) → same."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads, d = heads, dim // heads
        self.norm = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, heads * d, bias=False)
        self.to_kv = nn.Linear(dim, 2 * heads * d, bias=False)
        self.to_out = nn.Linear(heads * d, dim)
        self.rel_pos_emb = nn.Embedding(2 * FARTHEST + 1, d)  # r

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        split = lambda y: y.unflatten(2, (self.heads, -1)).transpose(1, 2)  # noqa: E731 — (B, N, h·d) → (B, h, N, d)
        q, k, v = (split(y) for y in (self.to_q(x), *self.to_kv(x).chunk(2, dim=2)))
        place = torch.arange(x.shape[1], device=x.device)
        apart = (place[:, None] - place).clamp(-FARTHEST, FARTHEST) + FARTHEST  # (N, N)
        near = (q[..., None, :] @ self.rel_pos_emb(apart).transpose(1, 2)).squeeze(-2)  # (B, h, N, N)
        weights = ((q @ k.transpose(2, 3) + near) * q.shape[3] ** -0.5).softmax(dim=-1)
        return self.to_out((weights @ v).transpose(1, 2).flatten(2))


class Convolution(nn.Module):
    """Gated pointwise and depthwise convolutions over time, (B, N, D) → (B, N, D) through 2 D channels."""

    def __init__(self, dim: int, kernel_size: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.expand = nn.Conv1d(dim, 4 * dim, 1)
        self.pad = (kernel_size // 2, kernel_size // 2 - (kernel_size + 1) % 2)
        self.depthwise = nn.Conv1d(2 * dim, 2 * dim, kernel_size, groups=2 * dim)
        self.bn = nn.BatchNorm1d(2 * dim)
        self.reduce = nn.Conv1d(2 * dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.glu(self.expand(self.norm(x).transpose(1, 2)), dim=1)  # (B, 2 D, N)
        y = F.silu(self.bn(self.depthwise(F.pad(y, self.pad))))
        return self.reduce(y).transpose(1, 2)
