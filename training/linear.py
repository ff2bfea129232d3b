"""The output layer of Whisper-Stats, by logistic regression on features that are computed once.

    features = pass_features(model, waveforms, config, 0)    # minutes
    fit_output_layer(model, Samples(features, is_bonafide, weights, sources, expert), 0.06)    # seconds

Its loss is convex, so there are no seeds, epochs or learning rates to choose, and every fold of a cross-validation uses
the same features.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from common.errors import UserError
from config import Config
from corpora.waveforms import Waveforms
from data_utils import score_loader, train_loader
from metrics.scores import BONAFIDE
from utils import computes_bf16

STEPS = 200  # of L-BFGS at most; it stops where the loss does
SOURCE_RIDGE = 1e-3  # times the squared norm of the sources' intercepts
GATE_RIDGE = 0.01  # of the gate of a mixture of experts
DOUBT = 4.0  # log odds that a recording is as it is, before it is heard
AS_IT_IS_WEIGHT = 0.1  # of recordings as they are, for the expert of another condition


def pass_features(model: nn.Module, waveforms: Waveforms, config: Config, number: int) -> np.ndarray:
    """(N, features) float32 of all trials: of the chunks that scoring takes, or from pass 1 on of augmented crops.

    A crop is repeated to the length of a chunk, as a short file is. Trials that an incomplete batch would hold are NaN
    in a pass of crops.
    """
    length = config.crop_samples or model.nb_samp
    if number:
        loader = train_loader(waveforms, length, replace(config, balance=()), number)
        repeats = -(-model.nb_samp // length)
        batches = ((b.micro_batches[0][0].repeat(1, repeats)[:, : model.nb_samp], b.indices) for b in loader)
    else:
        loader = score_loader(waveforms, model.nb_samp, config)
        starts = range(0, len(waveforms), config.batch_size)
        batches = ((x, np.arange(first, first + len(x))) for first, (x, _) in zip(starts, loader, strict=True))
    features = np.full((len(waveforms), model.standardise.num_features), np.nan, np.float32)
    half = config.precision == "bf16" and computes_bf16()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
        for x, rows in tqdm(batches, f"pass {number}", len(loader), disable=None):
            features[rows] = model.eval().describe(x).float().numpy()
    return features


class Samples(NamedTuple):
    """N rows of features and what is known of them. `expert`: 0 for recordings as they are, else the condition's."""

    features: np.ndarray  # (N, D)
    is_bonafide: np.ndarray  # (N,)
    weights: np.ndarray  # (N,) of their losses; both classes count the same
    sources: np.ndarray  # (N,) names
    expert: np.ndarray  # (N,)

    def of(self, expert: int) -> "Samples":
        """The expert's own, and with a small weight recordings as they are."""
        chosen = np.isin(self.expert, (0, expert))
        weights = np.where(self.expert == expert, self.weights, AS_IT_IS_WEIGHT * self.weights)
        return Samples(*(column[chosen] for column in self._replace(weights=weights)))


def fit_output_layer(model: nn.Module, samples: Samples, ridge: float) -> None:
    """Standardise the features and fit the mixture of experts, in place; the score is then the LLR.

    Every expert is fitted to the samples of its condition, and the gate to tell them from recordings as they are.
    ridge: times the squared norm of the slopes of an expert. Raises UserError when a class is missing.
    """
    label = samples.is_bonafide
    if label.all() or not label.any():
        raise UserError("cannot fit the output layer", "bona fide and spoof trials", "one class")
    plain = samples.of(0)
    x, w = torch.from_numpy(plain.features).float(), torch.from_numpy(even(plain.weights, plain.is_bonafide)).float()
    norm, layer = model.standardise.eval(), model.out_layer
    norm.running_mean.copy_(w @ x)
    norm.running_var.copy_(w @ (x - norm.running_mean).square())
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        for expert in range(layer.gate.out_features):
            own = samples.of(expert)
            x = model.scale(torch.from_numpy(own.features).float())
            row = 2 * expert + BONAFIDE
            fitted = logistic_regression(x, own.is_bonafide, own.weights, ridge, own.sources)
            layer.experts.weight[row], layer.experts.bias[row] = fitted
            if expert:
                weights = even(samples.weights, label)[np.isin(samples.expert, (0, expert))]
                slopes, bias = logistic_regression(x, own.expert == expert, weights, GATE_RIDGE, own.sources)
                layer.gate.weight[expert], layer.gate.bias[expert] = slopes, bias - DOUBT


def logistic_regression(
    x: torch.Tensor, target: np.ndarray, weights: np.ndarray, ridge: float, sources: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """Slopes (D,) and bias of the log odds that `target` (N,) is true, given x (N, D); either value counts the same.

    Each source has an intercept of its own during the fit, which takes up what its microphones do to all scores; a new
    source has none.
    """
    w, y = torch.from_numpy(even(weights, target)).float(), torch.from_numpy(target).float()
    source = torch.from_numpy(np.unique(sources, return_inverse=True)[1])
    slopes, bias = torch.zeros(x.shape[1], requires_grad=True), torch.zeros((), requires_grad=True)
    intercepts = torch.zeros(int(source.max()) + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([slopes, bias, intercepts], max_iter=STEPS, line_search_fn="strong_wolfe")

    @torch.enable_grad()
    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        errors = F.binary_cross_entropy_with_logits(x @ slopes + bias + intercepts[source], y, reduction="none")
        total = w @ errors + ridge * slopes.square().sum() + SOURCE_RIDGE * intercepts.square().sum()
        total.backward()
        return total

    optimizer.step(loss)
    return slopes.detach(), bias.detach()


def even(weights: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Weights (N,) of which true and false targets have half each."""
    return np.where(target, weights / weights[target].sum(), weights / weights[~target].sum()) / 2
