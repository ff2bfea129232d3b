"""Stochastic weight averaging (arXiv 1803.05407): which epochs enter the mean of weights that becomes swa.pth.

The published rule: from the first epoch on that sets a new best dev EER of `swa.max_dev_eer` or less, every epoch that
improves it counts. Until then the last tenth of the epochs is averaged, in case no epoch gets there. With `swa.last`
the last so many epochs are averaged instead.
"""

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

from config import Config


class WeightAverage:
    """The mean of a model's weights over the epochs that `config.swa` chooses.

    epochs: those in the mean. triggered: whether the published rule has begun.
    """

    def __init__(self, model: nn.Module, config: Config):
        self.policy, self.num_epochs = config.swa, config.num_epochs
        self.averaged = AveragedModel(model)
        self.epochs: list[int] = []
        self.triggered = False

    @property
    def model(self) -> nn.Module:
        """The model with the mean weights."""
        return self.averaged.module

    def update(self, model: nn.Module, epoch: int, dev_eer_percent: float, improved: bool) -> bool:
        """Take the weights after `epoch` into the mean if the rule says so; returns whether it did."""
        if not self.policy.last and improved and dev_eer_percent <= self.policy.max_dev_eer:
            if not self.triggered:  # the mean of the last epochs is dropped
                self.averaged.n_averaged.zero_()
                self.triggered, self.epochs = True, []
        else:
            last = self.policy.last or max(1, self.num_epochs // 10)
            if self.triggered or epoch <= self.num_epochs - last:
                return False
        self.averaged.update_parameters(model)
        self.epochs.append(epoch)
        return True

    def refresh_batch_norm(self, batches: Iterable, device: torch.device) -> None:
        """Compute the statistics of batch norm anew: those of the epochs do not fit the mean weights."""
        update_bn(batches, self.model, device)

    def restore(self, weights: dict, epochs: list[int], triggered: bool) -> None:
        """Go back to a saved mean."""
        self.averaged.load_state_dict(weights)
        self.epochs, self.triggered = epochs, triggered
