"""Several models in one, each of which learns for itself; the score is their mean.

Models that start elsewhere, or hear something else, err elsewhere, so the mean of their scores errs less (deep
ensembles, arXiv 1612.01474; the fusion of every challenge's best entries).

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
    members: tuple[dict, ...]  # their model_config; `nb_samp` and `output` are those given here
    nb_samp: int = 64600  # samples of a chunk
    output: str = "linear"  # see `layers.output_layer`

    def __post_init__(self):
        require(len(self.members) >= 2, "model_config.members", "two or more", len(self.members))


class Model(nn.Module):
    """Ensemble. Raises UserError when `model_config` is not as `ModelConfig` says."""

    def __init__(self, model_config: dict):
        super().__init__()
        c = parse(ModelConfig, model_config, "model_config.")
        self.nb_samp = c.nb_samp
        self.members = nn.ModuleList(_member(config, c) for config in c.members)
        self.least_batch = 2 * len(self.members)  # in training: batch norm needs two crops for each

    def forward(self, x: Tensor, freq_aug: bool = False) -> tuple[Tensor, Tensor]:
        """Waveforms (B, T) at 16 kHz → hidden (B, the members' together), logits (B, 2), the members' mean.

        In training each crop is heard by one member alone, in turn, and its logits are that member's: trained on their
        mean, members learn to make up for each other, and what one cannot hear is lost to all. `hidden` then has zeros
        in the place of the others'. There are two crops for each or more.
        """
        count = len(self.members)
        if not self.training:
            hidden, logits = zip(*(member(x, freq_aug) for member in self.members), strict=True)
            return torch.cat(hidden, dim=1), torch.stack(logits).mean(dim=0)
        parts = [member(x[first::count], freq_aug) for first, member in enumerate(self.members)]
        turn = torch.argsort(torch.cat([torch.arange(len(x), device=x.device)[first::count] for first in range(count)]))
        hidden = torch.block_diag(*(part for part, _ in parts))
        return hidden[turn], torch.cat([logits for _, logits in parts])[turn]


def _member(model_config: dict, ensemble: ModelConfig) -> nn.Module:
    # What an encoder is fetched from is looked up, and kept in checkpoints, at the top of model_config only.
    own = sorted({"nb_samp", "output", "encoder", "members"} & model_config.keys())
    require(not own, "model_config.members", "no nb_samp, output, encoder or members", ", ".join(own))
    return build_model(model_config | {"nb_samp": ensemble.nb_samp, "output": ensemble.output})
