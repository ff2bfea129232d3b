"""SSL-SLS: a self-supervised speech encoder, all of whose layers are weighed for each chunk, and two linear layers.

Zhang, Wen and Hu, ACM Multimedia 2024, "Audio Deepfake Detection with Self-Supervised XLS-R and SLS Classifier". A
layer's weight follows from its own mean over time, so it differs from chunk to chunk. The last linear layer's outputs
pass a SELU and are log-probabilities, as published.

B batch, T samples, N frames (50 a second), H features of the encoder, L its transformer layers, D features.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.schema import parse, require

from .layers import fp32
from .ssl_encoder import EncoderKeys, EncoderModel


@dataclass(frozen=True, kw_only=True)
class ModelConfig(EncoderKeys):
    """Keys of `model_config`."""

    architecture: str
    nb_samp: int = 64600  # samples of a chunk; fixes the shape of fc1
    features: int = 1024  # D

    def __post_init__(self):
        super().__post_init__()
        require(0 < self.features <= 1 << 16, "model_config.features", f"1 … {1 << 16}", self.features)


class Model(EncoderModel):
    """SSL-SLS. Raises UserError when `model_config` does not fit `ModelConfig`, or the encoder is missing."""

    def __init__(self, model_config: dict):
        super().__init__()
        c = parse(ModelConfig, model_config, "model_config.")
        encoder = self.build_encoder(c, model_config)
        if encoder.do_stable_layer_norm:  # the last norm follows the layers, which are read before it
            self.ssl_model.encoder.layer_norm.requires_grad_(False)
        self.fc0 = nn.Linear(encoder.hidden_size, 1)
        self.first_bn = nn.BatchNorm2d(1)
        self.fc1 = nn.Linear(encoder.frames(c.nb_samp) // 3 * (encoder.hidden_size // 3), c.features)
        self.fc3 = nn.Linear(c.features, 2)

    def encode(self, x: Tensor) -> Tensor:
        """(B, T) → (B, N, H): the sum of the transformer layers, each times its weight for this chunk."""
        layers = torch.stack(self.layers(x)[0][1:], dim=1)  # (B, L, N, H)
        weights = torch.sigmoid(self.fc0(layers.mean(dim=2)))  # (B, L, 1)
        return (weights[..., None] * layers).sum(dim=1)

    def classify(self, e: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, H) → hidden (B, D), log-probabilities (B, 2) of spoof and bona fide."""
        with fp32(e):
            e = F.selu(self.first_bn(e.float()[:, None]))  # (B, 1, N, H)
            hidden = F.selu(self.fc1(F.max_pool2d(e, 3).flatten(1)))
            return hidden, F.log_softmax(F.selu(self.fc3(hidden)), dim=1)
