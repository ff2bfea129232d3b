"""training/neural_vocoders.py: shapes, levels, and that each kind learns from real speech."""

import numpy as np
import pytest
import torch

from audio import reading
from models.layers import at_level
from training import neural_vocoders
from training.neural_vocoders import KINDS, LEVELS, NeuralVocoder, Quantised, spectral_loss


@pytest.fixture(scope="module")
def speech(shared):
    """(2, 6400)."""
    files = sorted((shared / "data" / "broad" / "flac").iterdir())[:2]
    return torch.from_numpy(np.stack([reading.read(file)[4000:10_400] for file in files]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("samples", [3_200, 3_333])  # the second fits no stride
def test_a_copy_is_as_long_as_its_original_whatever_its_level(kind, samples):
    torch.manual_seed(0)
    vocoder = NeuralVocoder(kind).eval()
    x = 0.1 * torch.randn(1, samples)
    with torch.no_grad():
        y = vocoder(x)
        assert y.shape == x.shape and y.isfinite().all()
        torch.testing.assert_close(vocoder(0.01 * x), y, atol=1e-3, rtol=1e-3)
        assert vocoder(torch.zeros(1, samples)).isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_training_brings_copies_nearer_to_their_originals(kind, speech, monkeypatch):
    """With a discriminator, which begins after a few steps."""
    monkeypatch.setattr(neural_vocoders, "JUDGED", (512,))
    torch.manual_seed(0)
    steps = 20
    start, x = NeuralVocoder(kind).eval(), at_level(speech)
    vocoder = neural_vocoders.train(kind, (speech for _ in range(steps)), steps, torch.device("cpu"))
    with torch.no_grad():
        before, after = (float(spectral_loss(x, each(x))) for each in (start, vocoder))
    assert after < 0.8 * before


def test_training_is_repeatable(speech):
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        found.append(neural_vocoders.train("fourier", [speech] * 3, 3, torch.device("cpu"))(speech))
    torch.testing.assert_close(*found)


def test_quantised_features_have_few_values_and_pass_gradients():
    torch.manual_seed(0)
    encoder = Quantised((4, 5, 8), dims=8)
    y = encoder(torch.randn(2, 16_000))
    assert y.shape == (2, 8, 100)
    steps = y * LEVELS / 2
    torch.testing.assert_close(steps, steps.round())
    assert y.abs().max() <= 1
    y.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())


def test_the_spectral_loss_hears_levels_but_no_sign(speech):
    x = at_level(speech)
    assert spectral_loss(x, x) == 0
    torch.testing.assert_close(spectral_loss(x, -x), torch.tensor(0.0), atol=1e-4, rtol=0)
    assert spectral_loss(x, 0.5 * x) > 0.5
