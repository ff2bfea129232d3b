"""A saliency map of a chunk: where, in time and frequency, the evidence behind a model's score lies.

    model, _ = utils.load_model("models/weights/AASIST.pth")
    found = explain.saliency(model, fit(read("sample.flac"), model.nb_samp))

The method is Grad-CAM (Selvaraju et al., ICCV 2017, arXiv 1610.02391) at the model's filter bank: it multiplies an
activation by the gradient of the evidence with respect to it, and keeps the products that support the target. The
activation is the bank's output, whose axes are frequency and time. The product is taken at each point, as in HiResCAM
(Draelos and Carin, arXiv 2011.08891): Grad-CAM averages the gradient over time, which would leave each band one weight
for the whole chunk.

A map shows what this model's score reacts to. It proves neither that a recording is forged nor where.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from audio import SAMPLE_RATE
from common.errors import UserError
from models.layers import LogFilterBank, SincBank
from scoring.passages import clock

COLUMN = SAMPLE_RATE // 100  # samples: 10 ms
NEIGHBOURS = (3, 9)  # bands × columns to average: AASIST's pooling sends the gradient to one band in three; 90 ms
SIGN = {"spoof": -1, "bonafide": 1}  # of the score, logits[:, 1], as evidence for each target


class Saliency(NamedTuple):
    """How much each band supports the target at each moment of a chunk."""

    start: float  # seconds into the file
    seconds: float
    frequencies: np.ndarray  # (F,) Hz, ascending: the centre of each band
    weight: np.ndarray  # (F, T) float32 in [0, 1], T columns of equal width; 1 = most; all 0 if nothing supports it


def saliency(model: nn.Module, chunk: np.ndarray, start: float = 0.0, target: str = "spoof") -> Saliency:
    """The map of `chunk`, (samples,) at 16 kHz, which begins `start` seconds into its file.

    The evidence for "spoof" is the negative score, −logits[:, 1]; that for "bonafide" is the score. Products are
    averaged with their signs, then cut at 0. Cut first, they show little but the speech's energy, and random weights
    give nearly the same map (the sanity check of Adebayo et al., NeurIPS 2018, arXiv 1810.03292).
    With several banks (models/Ensemble.py, Whisper_Stats.py) their maps are summed at the first one's frequencies.
    The model is left unchanged. Raises UserError when it has no filter bank.
    """
    from scipy.ndimage import uniform_filter

    banks = [module for module in model.modules() if isinstance(module, SincBank | LogFilterBank)]
    if not banks:
        raise UserError("this model's scores cannot be explained", "a filter bank", type(model).__name__)
    columns, frequencies = max(len(chunk) // COLUMN, 1), centres(banks[0])
    evidence = np.zeros((len(frequencies), columns))
    for bank, (y, gradient) in zip(banks, _outputs_and_gradients(model, banks, chunk, SIGN[target]), strict=True):
        # A sinc bank's output y stands for the activation |y| that the model uses: y · ∂/∂y = |y| · ∂/∂|y|. That is the
        # derivative with respect to log |y|. The other kind of bank gives logarithms already.
        by_logarithm = gradient if isinstance(bank, LogFilterBank) else y * gradient
        own = F.adaptive_avg_pool1d(by_logarithm, columns).cpu().numpy()
        evidence += own if bank is banks[0] else _moved(own, centres(bank), frequencies)
    weight = uniform_filter(evidence.astype(np.float32), NEIGHBOURS).clip(min=0)
    return Saliency(start, len(chunk) / SAMPLE_RATE, frequencies, weight / (weight.max() or 1))


def saliency_sentence(found: Saliency, end: float) -> str:
    """When and at which frequencies half of the evidence lies. end: seconds at which the recording ends."""
    columns = found.weight.shape[1]
    times = found.start + np.arange(columns + 1) * found.seconds / columns
    known = found.weight[:, times[:-1] < end]  # a short recording was repeated
    chunk = f"in the lowest-scoring chunk ({_moment(found.start)}–{_moment(min(found.start + found.seconds, end))})"
    if not known.any():
        return f"{chunk[0].upper()}{chunk[1:]} nothing speaks for spoof."
    between = (found.frequencies[1:] + found.frequencies[:-1]) / 2
    begin, stop = _narrowest_half(known.sum(axis=0), times[: known.shape[1] + 1])
    low, high = _narrowest_half(known.sum(axis=1), np.concatenate([[0], between, [SAMPLE_RATE / 2]]))
    return (
        f"Half of what speaks for spoof {chunk} lies at {_moment(begin)}–{_moment(min(stop, end))}, "
        f"half of it at {low / 1000:.1f}–{high / 1000:.1f} kHz."
    )


def _narrowest_half(weight: np.ndarray, edges: np.ndarray) -> tuple[float, float]:
    """The shortest stretch of `edges` (N + 1,) that holds half of `weight` (N,)."""
    below = np.concatenate([[0], np.cumsum(weight)])
    first = np.flatnonzero(below[-1] - below >= below[-1] / 2)
    last = np.searchsorted(below, below[first] + below[-1] / 2 - 1e-9 * below[-1])
    best = np.argmin(edges[last] - edges[first])
    return float(edges[first[best]]), float(edges[last[best]])


def _moment(seconds: float) -> str:
    """Minutes and seconds, 2:21.5, or hours, minutes and seconds, 1:02:21.5."""
    tenths = round(10 * seconds)
    return f"{clock(tenths // 10)}.{tenths % 10}"


def _outputs_and_gradients(
    model: nn.Module, banks: Sequence[SincBank | LogFilterBank], chunk: np.ndarray, sign: int
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """For each bank its output (F, ·), and the gradient of sign · score with respect to it."""
    outputs, training = {}, model.training

    def keep(bank: nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        outputs[bank] = output.requires_grad_()
        return output

    hooks = [bank.register_forward_hook(keep) for bank in banks]
    try:
        with torch.enable_grad():
            _, logits = model.eval()(torch.as_tensor(chunk, device=next(model.parameters()).device)[None])
            found = [outputs[bank] for bank in banks]
            gradients = torch.autograd.grad(sign * logits[0, 1], found)  # parameters keep their own gradients
    finally:
        for hook in hooks:
            hook.remove()
        model.train(training)
    return [(y.detach()[0], gradient[0]) for y, gradient in zip(found, gradients, strict=True)]


def _moved(evidence: np.ndarray, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Evidence (F, T) of filters at `old` Hz → (F', T) at `new` Hz: the same per hertz, none outside the old range."""
    from scipy.interpolate import interp1d

    per_hertz = evidence / np.gradient(old)[:, None]
    return interp1d(old, per_hertz, axis=0, bounds_error=False, fill_value=0)(new) * np.gradient(new)[:, None]


def centres(bank: SincBank | LogFilterBank) -> np.ndarray:
    """(F,) Hz: the centre of gravity of each filter's power response."""
    if isinstance(bank, LogFilterBank):
        return bank.centres
    power = np.abs(np.fft.rfft(bank.band_pass[:, 0].cpu().numpy(), 4096)) ** 2  # (F, 2049)
    return power @ np.fft.rfftfreq(4096, 1 / SAMPLE_RATE) / power.sum(axis=1)
