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
from models.Whisper_Stats import MixtureOfExperts
from training import linear
from training.linear import AS_IT_IS_WEIGHT, Samples, fit_output_layer, pass_features

TINY = {"architecture": "Whisper_Stats", "nb_samp": 8000, "hidden": 8, "heads": 2, "mels": 20, "layers": [1]}
RIDGE = 0.05


@pytest.fixture
def model():
    """Without the statistics of spectra: the optimum of few features is found in less time."""
    torch.manual_seed(0)
    model = build_model(TINY)
    model.statistics = nn.ModuleList()
    model.standardise = nn.BatchNorm1d(4 * TINY["hidden"])
    model.out_layer = MixtureOfExperts(4 * TINY["hidden"], 1)
    return model


def made(model, count: int = 60) -> Samples:
    """Features of which the first tells the classes apart, with unequal classes and weights."""
    rng = np.random.default_rng(0)
    features = rng.normal(3, 2, size=(count, model.standardise.num_features)).astype(np.float32)
    label = np.arange(count) % 3 == 0
    features[:, 0] += 4 * label
    weights = rng.uniform(0.5, 2, size=count)
    return Samples(features, label, weights, np.full(count, "one source"), np.zeros(count, int))


def rows(samples: Samples, which) -> Samples:
    return Samples(*(column[which] for column in samples))


def score(model, features: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        logits = model.out_layer(model.eval().scale(torch.from_numpy(features))).numpy()
    assert (logits[:, 0] == 0).all()
    return logits[:, 1]


def test_the_fit_is_the_optimum(model):
    samples = made(model)
    features, label, weights = samples[:3]
    fit_output_layer(model, samples, RIDGE)
    w = np.where(label, weights / weights[label].sum(), weights / weights[~label].sum()) / 2
    mean = w @ features
    x = ((features - mean) / np.sqrt(w @ (features - mean) ** 2 + 1e-5)).clip(-model.limit, model.limit)

    def loss(theta: np.ndarray) -> float:
        z = x @ theta[:-1] + theta[-1]
        return float(w @ np.logaddexp(0, np.where(label, -z, z)) + RIDGE * theta[:-1] @ theta[:-1])

    found = np.append(model.out_layer.experts.weight[1].detach().numpy(), model.out_layer.experts.bias[1].item())
    best = minimize(loss, np.zeros_like(found), method="L-BFGS-B", options={"maxiter": 500, "maxfun": 10**6})
    assert loss(found) == pytest.approx(best.fun, abs=1e-4)
    assert np.abs(found[:-1]).argmax() == 0
    np.testing.assert_allclose(score(model, features), x @ found[:-1] + found[-1], atol=1e-3)


def test_a_trial_that_counts_twice_is_one_of_twice_the_weight(model):
    samples = made(model)._replace(weights=np.ones(60))
    fit_output_layer(model, rows(samples, np.concatenate([np.arange(60), np.arange(0, 60, 3)])), RIDGE)
    slopes = model.out_layer.experts.weight[1].detach().clone()
    fit_output_layer(model, samples._replace(weights=np.where(np.arange(60) % 3 == 0, 2.0, 1.0)), RIDGE)
    torch.testing.assert_close(model.out_layer.experts.weight[1].detach(), slopes, rtol=1e-2, atol=1e-3)


def test_what_tells_sources_apart_is_not_learnt_as_evidence(model):
    """Within either source feature 1, its microphone, says nothing, but more trials of one are bona fide."""
    samples = made(model)
    source = np.where(samples.is_bonafide ^ (np.arange(60) % 10 == 0), "A", "B")
    samples.features[:, 1] = source == "A"
    slopes = []
    for sources in (samples.sources, source):
        fit_output_layer(model, samples._replace(sources=sources), RIDGE)
        slopes.append(model.out_layer.experts.weight[1, 1].item())
    assert 0 < slopes[1] < 0.9 * slopes[0]


def test_each_condition_has_an_expert_of_its_own(model, monkeypatch):
    """Features 2 to 11 say that a recording was coded; then feature 0 tells the classes the other way round."""
    monkeypatch.setattr(linear, "DOUBT", 2.0)  # few features leave the gate less sure than thousands do
    model.out_layer = MixtureOfExperts(4 * TINY["hidden"], 2)
    plain = made(model, 240)
    coded = plain._replace(features=plain.features.copy(), expert=np.ones(240, int))
    coded.features[:, 0] -= 8 * plain.is_bonafide
    coded.features[:, 2:12] += 60
    both = Samples(*(np.concatenate(columns) for columns in zip(plain, coded, strict=True)))
    fit_output_layer(model, both, RIDGE)
    for samples in (plain, coded):
        correct = (score(model, samples.features) > 0) == samples.is_bonafide
        assert correct.mean() > 0.8
    chosen = model.out_layer.gate(model.scale(torch.from_numpy(both.features))).argmax(dim=1).numpy()
    assert (chosen == both.expert).mean() > 0.95


def test_an_expert_hears_recordings_as_they_are_too(model):
    both = made(model)._replace(expert=np.arange(60) % 2)
    own = both.of(1)
    assert (own.expert == both.expert).all()
    np.testing.assert_allclose(own.weights, both.weights * np.where(both.expert == 1, 1, AS_IT_IS_WEIGHT))
    assert (both.of(0).expert == 0).all()


def test_one_class_is_refused(model):
    samples = made(model)
    with pytest.raises(UserError, match=r"cannot fit the output layer.*bona fide and spoof"):
        fit_output_layer(model, rows(samples, samples.is_bonafide), RIDGE)


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
    short = pass_features(model, waveforms, replace(config, crop_samples=3000), 1)  # repeated to a chunk
    assert np.isfinite(short[~missing]).all() and not np.allclose(short[~missing], crops[~missing], atol=1e-2)
