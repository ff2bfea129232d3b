"""What a model's score of a chunk rests on: Grad-CAM at the filter bank through which it listens.

    model, _ = utils.load_model("models/weights/AASIST.pth")
    found = explain.saliency(model, fit(read("sample.flac"), model.nb_samp))

Grad-CAM (Selvaraju et al., ICCV 2017, arXiv 1610.02391) weights an activation by the gradient of the evidence with
respect to it, and keeps what speaks for the target. The activation here is the bank's output, whose axes are frequency
and time. Gradient and activation are multiplied point by point, as in HiResCAM (Draelos and Carin, arXiv 2011.08891):
Grad-CAM's mean of the gradient over time would leave each band with one weight for the whole chunk.

A map shows what this model's score reacts to. It is no proof of a forgery, nor of its place.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from audio import SAMPLE_RATE
from common.errors import UserError
from models.layers import SincBank
from models.LFCC_LCNN import LogBank

COLUMN = SAMPLE_RATE // 100  # samples: 10 ms
NEIGHBOURS = (3, 9)  # bands × columns to average: AASIST's pooling passes a gradient to one band in three; 90 ms
SIGN = {"spoof": -1, "bonafide": 1}  # of the score, logits[:, 1], as evidence for each target


class Saliency(NamedTuple):
    """How much each band speaks for the target at each moment of a chunk."""

    start: float  # seconds into the file
    seconds: float
    frequencies: np.ndarray  # (F,) Hz, rising: the centre of each band
    weight: np.ndarray  # (F, T) float32 in [0, 1], T columns of equal width; 1 = most; all 0 if nothing speaks for it


def saliency(model: nn.Module, chunk: np.ndarray, start: float = 0.0, target: str = "spoof") -> Saliency:
    """The map of `chunk`, (samples,) at 16 kHz, which begins `start` seconds into its file.

    The evidence of "spoof" is the negative score, −logits[:, 1]; that of "bonafide" is the score. The products are
    averaged with their signs and only then cut at 0: cut first, they show little but the speech's energy, and random
    weights give nearly the same map (the sanity check of Adebayo et al., NeurIPS 2018, arXiv 1810.03292).
    Of several banks (models/Ensemble.py) the maps are added up at the first one's frequencies.
    The model stays as it was. Raises UserError when it has no filter bank.
    """
    from scipy.ndimage import uniform_filter

    banks = [module for module in model.modules() if isinstance(module, SincBank | LogBank)]
    if not banks:
        raise UserError("this model's scores cannot be explained", "a filter bank", type(model).__name__)
    columns, frequencies = max(len(chunk) // COLUMN, 1), centres(banks[0])
    evidence = np.zeros((len(frequencies), columns))
    for bank, (y, gradient) in zip(banks, _outputs_and_gradients(model, banks, chunk, SIGN[target]), strict=True):
        # The bank's output y stands for the activation |y| that the model reads: y · ∂/∂y = |y| · ∂/∂|y|. This is the
        # derivative by the logarithm of |y|, which another kind of bank gives.
        by_logarithm = gradient if isinstance(bank, LogBank) else y * gradient
        own = F.adaptive_avg_pool1d(by_logarithm, columns).cpu().numpy()
        evidence += own if bank is banks[0] else _moved(own, centres(bank), frequencies)
    weight = uniform_filter(evidence.astype(np.float32), NEIGHBOURS).clip(min=0)
    return Saliency(start, len(chunk) / SAMPLE_RATE, frequencies, weight / (weight.max() or 1))


def _outputs_and_gradients(
    model: nn.Module, banks: Sequence[SincBank | LogBank], chunk: np.ndarray, sign: int
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Of each bank the output (F, ·), and the gradient of sign · score with respect to it."""
    outputs, training = {}, model.training

    def keep(bank: nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        outputs[bank] = output.requires_grad_()
        return output

    hooks = [bank.register_forward_hook(keep) for bank in banks]
    try:
        with torch.enable_grad():
            _, logits = model.eval()(torch.as_tensor(chunk, device=next(banks[0].buffers()).device)[None])
            found = [outputs[bank] for bank in banks]
            gradients = torch.autograd.grad(sign * logits[0, 1], found)  # leaves the parameters' own alone
    finally:
        for hook in hooks:
            hook.remove()
        model.train(training)
    return [(y.detach()[0], gradient[0]) for y, gradient in zip(found, gradients, strict=True)]


def _moved(evidence: np.ndarray, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Evidence (F, T) of filters at `old` Hz → (F', T) at `new` Hz: as much per hertz, and none beyond the old ones."""
    from scipy.interpolate import interp1d

    per_hertz = evidence / np.gradient(old)[:, None]
    return interp1d(old, per_hertz, axis=0, bounds_error=False, fill_value=0)(new) * np.gradient(new)[:, None]


def centres(bank: SincBank | LogBank) -> np.ndarray:
    """(F,) Hz: the centre of gravity of each filter's power response."""
    if isinstance(bank, LogBank):
        return bank.centres
    power = np.abs(np.fft.rfft(bank.bank[:, 0].cpu().numpy(), 4096)) ** 2  # (F, 2049)
    return power @ np.fft.rfftfreq(4096, 1 / SAMPLE_RATE) / power.sum(axis=1)
