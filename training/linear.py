"""The output layer of Whisper-Stats, by logistic regression on features that are computed once.

    features = all_features(model, waveforms, config, passes=3)      # of augmented crops; a pass takes minutes
    fit_output_layer(model, features[rows], is_bonafide[rows], weights[rows], 0.03, sources[rows])    # seconds

Its loss is convex, so there are no seeds, epochs or learning rates to choose, and every fold of a cross-validation uses
the same features.
"""

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from common.errors import UserError
from config import Config
from corpora.waveforms import Waveforms
from data_utils import score_loader, train_loader
from metrics.scores import BONAFIDE, SPOOF
from utils import computes_bf16

STEPS = 200  # of L-BFGS at most; it stops where the loss does
SOURCE_RIDGE = 1e-3  # times the squared norm of the sources' intercepts


def pass_features(model: nn.Module, waveforms: Waveforms, config: Config, number: int) -> np.ndarray:
    """(N, features) float32 of all trials: of the chunks that scoring takes, or from pass 1 on of augmented crops.

    Trials that an incomplete batch would hold are NaN in a pass of crops.
    """
    length = config.crop_samples or model.nb_samp
    if number:
        loader = train_loader(waveforms, length, replace(config, balance=()), number)
        batches = ((batch.micro_batches[0][0], batch.indices) for batch in loader)
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


def fit_output_layer(
    model: nn.Module,
    features: np.ndarray,
    is_bonafide: np.ndarray,
    weights: np.ndarray,
    ridge: float,
    sources: np.ndarray,
) -> None:
    """Standardise the features (N, D) and fit the output layer, in place; the score is then the LLR.

    weights: (N,) of the trials' losses; both classes count the same. ridge: times the squared norm of the D slopes.
    sources: (N,) names. Each has an intercept of its own during the fit, which takes up what its microphones do to the
    scores of both classes; a new source has none. Raises UserError when a class is missing.
    """
    if is_bonafide.all() or not is_bonafide.any():
        raise UserError("cannot fit the output layer", "bona fide and spoof trials", "one class")
    weights = np.where(is_bonafide, weights / weights[is_bonafide].sum(), weights / weights[~is_bonafide].sum()) / 2
    x, w = torch.from_numpy(features).float(), torch.from_numpy(weights).float()
    norm, target = model.standardise.eval(), torch.from_numpy(is_bonafide).float()
    norm.running_mean.copy_(w @ x)
    norm.running_var.copy_(w @ (x - norm.running_mean).square())
    x, source = model.scale(x).detach(), torch.from_numpy(np.unique(sources, return_inverse=True)[1])
    slopes, bias = torch.zeros(x.shape[1], requires_grad=True), torch.zeros((), requires_grad=True)
    intercepts = torch.zeros(int(source.max()) + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([slopes, bias, intercepts], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logits = x @ slopes + bias + intercepts[source]
        errors = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        total = w @ errors + ridge * slopes.square().sum() + SOURCE_RIDGE * intercepts.square().sum()
        total.backward()
        return total

    optimizer.step(loss)
    with torch.no_grad():
        model.out_layer.weight[SPOOF], model.out_layer.bias[SPOOF] = 0, 0
        model.out_layer.weight[BONAFIDE], model.out_layer.bias[BONAFIDE] = slopes, bias
