"""Augmentation of batches on the device: each change does what it says, and the same seed gives the same batch."""

import numpy as np
import pytest
import torch

from models.layers import LEVEL
from training import batch_augmentation
from training.batch_augmentation import augment, griffin_lim, mu_law, noisy, rephased, respond, room, rounded_spectrum


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def voice(batch: int = 64, samples: int = 16_000) -> torch.Tensor:
    """(batch, samples) of harmonics that come and go, all alike but for their pitch, in a little noise."""
    time, pitch = torch.arange(samples) / 16_000, torch.linspace(100, 250, batch)[:, None]
    harmonics = sum(torch.sin(2 * np.pi * k * pitch * time) / k for k in range(1, 20))
    return 0.02 * harmonics * torch.sin(5 * time).abs() + 1e-4 * torch.randn(batch, samples)


def rms(x: torch.Tensor) -> torch.Tensor:
    return x.square().mean(dim=1).sqrt()


def decibels(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return 20 * torch.log10(rms(x) / rms(y))


def test_a_batch_keeps_its_shape_and_a_share_of_it_only_changes_its_level():
    x = voice(400)
    y = augment(x)
    assert y.shape == x.shape and y.isfinite().all() and y.dtype == torch.float32
    same = torch.cosine_similarity(x, y, dim=1) > 0.99999
    assert 0.35 < same.float().mean() < 0.6  # 35 % on purpose, and those that no change fell upon
    assert (20 * torch.log10(rms(y[same]) / LEVEL)).abs().max() < 10.01
    torch.manual_seed(7)
    first = augment(x[:20])
    torch.manual_seed(7)
    assert torch.equal(augment(x[:20]), first)


def test_responses_leave_half_of_a_batch_and_cut_highs_and_lows():
    spectrum = torch.ones(2000, 801, dtype=torch.complex64)
    level = 20 * torch.log10(respond(spectrum).abs())
    flat = (level.abs() < 0.01).all(dim=1)
    assert 0.2 < flat.float().mean() < 0.4  # 0.5 · 0.7 · 0.8
    assert (level[:, -1] < -40).float().mean() > 0.1 and level.min() >= -90.1


def test_a_room_adds_a_tail_to_a_fifth():
    click = torch.zeros(1000, 4000)
    click[:, 0] = 1
    tails = torch.fft.irfft(room(torch.fft.rfft(click), 4000), n=4000)
    energy = tails[:, 1:].square().sum(dim=1)
    reverberant = energy > 1e-6
    assert 0.15 < reverberant.float().mean() < 0.25 and energy.max() < 1.2
    torch.testing.assert_close(tails[:, 0], torch.ones(1000), rtol=0, atol=1e-3)
    late = tails[reverberant][:, 3000:].square().sum(dim=1) / energy[reverberant]
    assert late.median() < 0.1


def test_noise_lies_8_to_40_dB_below():
    x = voice(300)
    ratio = decibels(x, noisy(x) - x)
    assert 7.9 < ratio.min() < 10 and 38 < ratio.max() < 40.1


def test_rounded_coefficients_lose_what_is_weak():
    x = voice(50)
    y = rounded_spectrum(x)
    weak, strong = (
        torch.fft.rfft(y).abs()[:, part].norm(dim=1) / torch.fft.rfft(x).abs()[:, part].norm(dim=1)
        for part in (slice(7000, None), slice(100, 1000))  # noise alone, and the voice
    )
    ratio = decibels(x, y - x)
    assert y.shape == x.shape and 3 < ratio.min() < 8 and 18 < ratio.max() < 30
    assert weak.min() < 0.3 and strong.min() > 0.8


def test_mu_law_has_255_steps():
    x = voice(3)
    y = mu_law(x)
    assert all(len(row.unique()) <= 255 for row in y) and (decibels(x, y - x) > 25).all()


@pytest.mark.parametrize("choice", range(6))
@pytest.mark.parametrize(("vocoder", "level", "alike"), [(griffin_lim, 3, 0.9), (rephased, 9, 0.99)])
def test_copies_have_other_phases_and_the_same_magnitudes(vocoder, level, alike, choice):
    """Phases that do not fit together cancel each other: `rephased` is quieter. Errors of 0.2 rad leave 0.98 alike."""
    torch.manual_seed(choice)
    x = voice(3)
    y = vocoder(x)
    assert y.shape == x.shape and y.isfinite().all()
    assert decibels(y, x).abs().max() < level and torch.cosine_similarity(x, y, dim=1).abs().max() < alike
    window = torch.hann_window(512)
    before, after = (torch.stft(w, 512, 128, window=window, return_complex=True).abs().flatten(1) for w in (x, y))
    assert torch.cosine_similarity(before, after, dim=1).min() > 0.8


def test_silence_stays_finite():
    for change in (augment, griffin_lim, rephased, rounded_spectrum, mu_law):
        assert change(torch.zeros(10, 8000)).isfinite().all(), change.__name__


def test_triangles_cover_all_bins():
    filters = batch_augmentation.mel_triangles(80, 513)
    assert filters.shape == (80, 513) and (filters.sum(dim=0)[5:500] > 0.4).all() and filters.max() <= 1.0001


def test_small_batches_are_augmented_too():
    torch.manual_seed(0)
    for size in (1, 2, 4):
        assert torch.isfinite(augment(torch.randn(size, 16_000))).all()
