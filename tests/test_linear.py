"""The output layer of Whisper-Stats by logistic regression: optimum, weights, standardisation, features of passes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn

from common.errors import UserError
from config import Config
from corpora.asvspoof import ASVspoof2019
from corpora.waveforms import Waveforms
from data_utils import score_loader
from models import build_model
from training.linear import fit_output_layer, pass_features

TINY = {"architecture": "Whisper_Stats", "nb_samp": 8000, "hidden": 8, "heads": 2, "mels": 20, "layers": [1]}
RIDGE = 0.05


@pytest.fixture
def model():
    """Without the statistics of spectra: the optimum of few features is found in less time."""
    torch.manual_seed(0)
    model = build_model(TINY)
    model.statistics = nn.ModuleList()
    model.standardise = nn.BatchNorm1d(4 * TINY["hidden"])
    model.out_layer = nn.Linear(4 * TINY["hidden"], 2)
    return model


ONE = np.full(60, "one source")


def made(model, count: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (N, D) of which the first tells the classes apart, with unequal classes and weights."""
    rng = np.random.default_rng(0)
    features = rng.normal(3, 2, size=(count, model.standardise.num_features)).astype(np.float32)
    label = np.arange(count) % 3 == 0
    features[:, 0] += 4 * label
    return features, label, rng.uniform(0.5, 2, size=count)


def test_the_fit_is_the_optimum(model):
    features, label, weights = made(model)
    fit_output_layer(model, features, label, weights, RIDGE, ONE)
    w = np.where(label, weights / weights[label].sum(), weights / weights[~label].sum()) / 2
    mean = w @ features
    x = ((features - mean) / np.sqrt(w @ (features - mean) ** 2 + 1e-5)).clip(-model.limit, model.limit)

    def loss(theta: np.ndarray) -> float:
        z = x @ theta[:-1] + theta[-1]
        return float(w @ np.logaddexp(0, np.where(label, -z, z)) + RIDGE * theta[:-1] @ theta[:-1])

    found = np.append(model.out_layer.weight[1].detach().numpy(), model.out_layer.bias[1].item())
    best = minimize(loss, np.zeros_like(found), method="L-BFGS-B", options={"maxiter": 500, "maxfun": 10**6})
    assert loss(found) == pytest.approx(best.fun, abs=1e-4)
    with torch.inference_mode():
        logits = model.out_layer(model.eval().scale(torch.from_numpy(features))).numpy()
    assert (logits[:, 0] == 0).all() and np.abs(found[:-1]).argmax() == 0
    np.testing.assert_allclose(logits[:, 1], x @ found[:-1] + found[-1], atol=1e-3)


def test_a_trial_that_counts_twice_is_one_of_twice_the_weight(model):
    features, label, _ = made(model)
    twice = np.concatenate([np.arange(60), np.arange(0, 60, 3)])
    fit_output_layer(model, features[twice], label[twice], np.ones(80), RIDGE, ONE[twice])
    slopes = model.out_layer.weight[1].detach().clone()
    fit_output_layer(model, features, label, np.where(np.arange(60) % 3 == 0, 2.0, 1.0), RIDGE, ONE)
    torch.testing.assert_close(model.out_layer.weight[1].detach(), slopes, rtol=1e-2, atol=1e-3)


def test_what_tells_sources_apart_is_not_learnt_as_evidence(model):
    """Within either source feature 1, its microphone, says nothing, but more trials of one are bona fide."""
    features, label, weights = made(model)
    source = np.where(label ^ (np.arange(60) % 10 == 0), "A", "B")
    features[:, 1] = source == "A"
    slopes = []
    for sources in (ONE, source):
        fit_output_layer(model, features, label, weights, RIDGE, sources)
        slopes.append(model.out_layer.weight[1, 1].item())
    assert 0 < slopes[1] < 0.9 * slopes[0]


def test_one_class_is_refused(model):
    features, label, weights = made(model)
    with pytest.raises(UserError, match=r"cannot fit the output layer.*bona fide and spoof"):
        fit_output_layer(model, features[label], label[label], weights[label], RIDGE, ONE[label])


def test_passes(model, tiny_corpus):
    """Pass 0 has the features of the scored chunks; the others those of crops, equal for equal seeds."""
    waveforms = Waveforms(ASVspoof2019(tiny_corpus, "LA").partition("dev"))
    config = Config(model_config=TINY, batch_size=5, num_workers=0, augmentation=({"name": "gain"},))
    clean = pass_features(model, waveforms, config, 0)
    with torch.inference_mode():
        expected = torch.cat([model.describe(x) for x, _ in score_loader(waveforms, 8000, config)])
    np.testing.assert_allclose(clean, expected, atol=1e-5)
    crops = pass_features(model, waveforms, config, 1)
    missing = np.isnan(crops).any(axis=1)
    assert missing.sum() == len(waveforms) % 5 and not np.allclose(crops[~missing], clean[~missing], atol=1e-2)
    np.testing.assert_array_equal(crops, pass_features(model, waveforms, config, 1))
    assert not np.array_equal(crops, pass_features(model, waveforms, replace(config, seed=7), 1), equal_nan=True)
