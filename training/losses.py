"""The losses that `loss` in a config may name.

y (B,) is 0 for spoof and 1 for bona fide. OC-softmax, AM-softmax and P2SGrad take cosines (`models.layers.Cosine`)
instead of logits.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from config import Config, LossConfig


def focal(logits: Tensor, y: Tensor, c: LossConfig) -> Tensor:
    """(1 − p)^γ · −log p of the true class: easy utterances weigh little (arXiv 1708.02002, eq. 4)."""
    log_p = -F.cross_entropy(logits, y, reduction="none")
    return -((1 - log_p.exp()).clamp(min=1e-6) ** c.focal_gamma) * log_p  # at 0 a power below 1 has no gradient


def oc_softmax(cosines: Tensor, y: Tensor, c: LossConfig) -> Tensor:
    """One-class softmax: pulls bona fide speech within a margin of its direction and pushes spoofs beyond another.

    arXiv 2010.13995, eq. 4. The direction of spoof is not used.
    """
    low, high = c.oc_margins
    return F.softplus(c.scale * torch.where(y == 1, high - cosines[:, 1], cosines[:, 1] - low))


def am_softmax(cosines: Tensor, y: Tensor, c: LossConfig) -> Tensor:
    """Softmax of scaled cosines, minus a margin for the true class (arXiv 1801.05599, eq. 6)."""
    return F.cross_entropy(c.scale * (cosines - c.am_margin * F.one_hot(y, 2)), y, reduction="none")


def p2s_grad(cosines: Tensor, y: Tensor, c: LossConfig) -> Tensor:
    """Squared distance of the cosines from 1 for the true class and 0 for the other (arXiv 2103.11326, eq. 5).

    It has the gradient of P2SGrad, and no hyperparameters.
    """
    return (cosines - F.one_hot(y, 2)).square().sum(dim=1)


LOSSES = {"focal": focal, "OCSoftmax": oc_softmax, "AMSoftmax": am_softmax, "P2SGrad": p2s_grad}


def build_loss(config: Config, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss as a function of logits (B, 2) and y (B,): weighted by class, summed over the utterances, a scalar."""
    weights = torch.tensor(config.class_weights, device=device)
    if config.loss == "CCE":
        options = {"weight": weights, "label_smoothing": config.label_smoothing, "reduction": "sum"}
        return lambda logits, y: F.cross_entropy(logits, y, **options)
    loss = LOSSES[config.loss]
    return lambda logits, y: (weights[y] * loss(logits, y, config.loss_config)).sum()
