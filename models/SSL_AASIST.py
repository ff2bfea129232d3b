"""SSL-AASIST: a self-supervised speech encoder, followed by AASIST's graphs.

Tak et al., Odyssey 2022, arXiv 2202.12233: wav2vec 2.0 XLS-R, a linear layer to 128 features, a residual encoder that
does not pool time, self-attentive aggregation into nodes, and AASIST's graphs. The parameters of the back end have the
authors' names. The authors use the encoder's last layer (`layers: last`); by default a weighted mean of all layers is
learnt here, as in SUPERB (arXiv 2105.01051).

B batch, T samples, N frames (50 a second), H features of the encoder, C channels, N_S spectral and N_T temporal nodes.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.schema import parse

from .AASIST import GraphBackEnd, GraphConfig
from .batch_norm import BatchNorm2d
from .layers import ResidualBlock, fp32
from .ssl_encoder import EncoderKeys, EncoderModel


@dataclass(frozen=True)
class ModelConfig(EncoderKeys, GraphConfig):
    """Keys of `model_config`; filts[0] is the number of features after the linear layer."""

    layers: Literal["mean", "last"] = "mean"  # of the encoder: a learnt mean of all, or the last one, as published

    def __post_init__(self):
        GraphConfig.__post_init__(self)
        EncoderKeys.__post_init__(self)


class Model(EncoderModel, GraphBackEnd):
    """SSL-AASIST. Raises UserError when `model_config` does not fit `ModelConfig`, or the encoder is missing."""

    def __init__(self, model_config: dict):
        super().__init__()
        c = parse(ModelConfig, model_config, "model_config.")
        encoder = self.build_encoder(c, model_config | {"layers": c.layers})
        features, *blocks = c.filts
        channels = blocks[-1][1]
        if c.layers == "mean":
            self.layer_weights = nn.Parameter(torch.zeros(encoder.num_hidden_layers + 1))
        self.is_mean = c.layers == "mean"
        self.LL = nn.Linear(encoder.hidden_size, features)
        self.first_bn = nn.BatchNorm2d(1)
        blocks = [*blocks, blocks[-1], blocks[-1]]
        self.encoder = nn.Sequential(
            *(nn.Sequential(ResidualBlock(*pair, first=i == 0, pool=1)) for i, pair in enumerate(blocks))
        )
        self.first_bn1 = BatchNorm2d(channels)
        self.attention = nn.Sequential(
            nn.Conv2d(channels, 128, 1), nn.SELU(inplace=True), BatchNorm2d(128), nn.Conv2d(128, channels, 1)
        )
        self.build_graphs(c, channels, features // 3)

    def encode(self, x: Tensor) -> Tensor:
        """(B, T) → (B, C, N_S, N_T): the encoder, then residual blocks over (feature, time)."""
        e = self.LL(self.represent(x)).transpose(1, 2)[:, None]  # (B, 1, features, N)
        e = F.selu(self.first_bn(F.max_pool2d(e.float(), 3)))  # (B, 1, N_S, N_T)
        return F.selu(self.first_bn1(self.encoder(e)))

    def represent(self, x: Tensor) -> Tensor:
        """(B, T) → (B, N, H): the encoder's output, or the mean of its layers, weighted by softmax(layer_weights).

        The last layer of the mean is the encoder's output, with its layer norm.
        """
        layers, last = self.layers(x)
        if not self.is_mean:
            return last
        weights = self.layer_weights.softmax(dim=0)[:, None]  # vectors keep the sum in fp32; scalars would give bf16
        return sum(w * layer for w, layer in zip(weights, [*layers[:-1], last], strict=True))

    def classify(self, e: Tensor) -> tuple[Tensor, Tensor]:
        """Encoded (B, C, N_S, N_T) → hidden (B, 5·D), logits (B, 2).

        Nodes are attention-weighted means over the other axis.
        """
        with fp32(e):  # half precision would give nodes equal scores, and the pools choose by them
            e = e.float()
            attention = self.attention(e)  # (B, C, N_S, N_T)
            spectral = (e * attention.softmax(dim=3)).sum(dim=3).transpose(1, 2) + self.pos_S  # (B, N_S, C)
            temporal = (e * attention.softmax(dim=2)).sum(dim=2).transpose(1, 2)  # (B, N_T, C)
            return self.classify_nodes(spectral, temporal)
