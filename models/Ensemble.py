"""Several models in one. Each learns on its own, and the score is the mean of their scores.

Models with other initial weights or other inputs make other errors, so their mean makes fewer (deep ensembles,
arXiv 1612.01474; the best entries of the challenges fuse systems for the same reason).

B batch, T samples, M members.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.schema import parse, require

from . import build_model


@dataclass(frozen=True)
class ModelConfig:
    """Keys of `model_config`."""

    architecture: str
    members: tuple[dict, ...]  # a model_config for each member, without nb_samp and output, which are given here
    nb_samp: int = 64600  # samples of a chunk
    output: str = "linear"  # see layers.output_layer

    def __post_init__(self):
        require(2 <= len(self.members) <= 100, "model_config.members", "2 … 100", len(self.members))


class Model(nn.Module):
    """Ensemble. Raises UserError when `model_config` does not fit `ModelConfig`."""

    def __init__(self, model_config: dict):
        super().__init__()
        c = parse(ModelConfig, model_config, "model_config.")
        self.nb_samp = c.nb_samp
        self.members = nn.ModuleList(_member(config, c) for config in c.members)
        self.least_batch = 2 * len(self.members)  # in training: the batch norms of each member need two crops

    def forward(self, x: Tensor, freq_aug: bool = False) -> tuple[Tensor, Tensor]:
        """Waveforms (B, T) at 16 kHz → hidden (B, sum of the members' D), logits (B, 2), the mean of the members'.

        In training crop b goes to member b mod M only, and its logits are that member's; `hidden` has zeros in place of
        the other members' features, and B is 2·M or more. Members trained on the mean of their logits learn to
        compensate for each other, and an input that one of them cannot use then spoils the mean.
        """
        count = len(self.members)
        if not self.training:
            hidden, logits = zip(*(member(x, freq_aug) for member in self.members), strict=True)
            return torch.cat(hidden, dim=1), torch.stack(logits).mean(dim=0)
        outputs = [member(x[first::count], freq_aug) for first, member in enumerate(self.members)]
        crops = torch.cat([torch.arange(len(x), device=x.device)[first::count] for first in range(count)])
        back = torch.argsort(crops)  # from the order of members to that of crops
        hidden = torch.block_diag(*(features for features, _ in outputs))
        return hidden[back], torch.cat([logits for _, logits in outputs])[back]


def _member(model_config: dict, ensemble: ModelConfig) -> nn.Module:
    # The rest of the code looks for `encoder` and `encoder_config` only at the top of model_config.
    own = sorted({"nb_samp", "output", "encoder", "members"} & model_config.keys())
    require(not own, "model_config.members", "no nb_samp, output, encoder or members", ", ".join(own))
    return build_model(model_config | {"nb_samp": ensemble.nb_samp, "output": ensemble.output})
