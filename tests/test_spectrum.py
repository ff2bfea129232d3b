"""Statistics of the short-time spectrum beside NumPy's transform, and what they are meant to tell apart."""

import numpy as np
import pytest
import torch

from models.SE_ResNet import PhasedSpectrum
from models.spectrum import (
    FLOOR,
    HarmonicStatistics,
    PhaseStatistics,
    SpectrumStatistics,
    correlation_over_frequency,
    mean_and_deviation,
)


@pytest.fixture(scope="module")
def waves() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, 16_000)).astype(np.float32)


def spectra(x: np.ndarray, window: int, hop: int) -> np.ndarray:
    """(B, T) → (B, bins, frames), complex, each frame centred on its place."""
    padded = np.pad(x.astype(np.float64), ((0, 0), (window // 2, window // 2)), mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, window, axis=1)[:, ::hop]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    return np.fft.rfft(frames * hann).transpose(0, 2, 1)


def log_spectra(x: np.ndarray, window: int, hop: int) -> np.ndarray:
    return np.log(np.abs(spectra(x, window, hop)) ** 2 + FLOOR)


def moments(x: np.ndarray) -> list[np.ndarray]:
    return [x.mean(axis=2), x.std(axis=2)]


def correlations(log: np.ndarray, lags: tuple[int, ...]) -> list[np.ndarray]:
    bins = log.shape[1]
    full = [np.corrcoef(clip) for clip in log]
    return [np.stack([each[range(bins - lag), range(lag, bins)] for each in full]) for lag in lags]


def assert_equal(module: torch.nn.Module, x: np.ndarray, columns: list[np.ndarray], atol: float = 1e-3) -> None:
    found = module(torch.from_numpy(x))
    assert found.shape == (len(x), module.size)
    np.testing.assert_allclose(found, np.concatenate(columns, axis=1), rtol=1e-3, atol=atol)


def test_energies_their_differences_and_neighbours(waves):
    log = log_spectra(waves, 512, 160)
    differences = [np.abs(np.diff(log, axis=axis)) for axis in (2, 1)]
    columns = [column for each in (log, *differences) for column in moments(each)]
    assert_equal(SpectrumStatistics(), waves, columns + correlations(log, (1, 2, 4)))


def test_neighbours_in_a_finer_spectrum(waves):
    assert_equal(HarmonicStatistics(), waves, correlations(log_spectra(waves, 1024, 256), (1, 2, 4, 8)))


def test_group_delay_and_instantaneous_frequency(waves):
    z = spectra(waves, 512, 64)[:, 1:256]
    delay = np.angle(-z[:, 1:] * z[:, :-1].conj())
    advance = np.exp(-2j * np.pi * np.arange(1, 256)[:, None] * 64 / 512)
    deviation = np.angle(z[:, :, 1:] * z[:, :, :-1].conj() * advance)
    sine = np.sin(deviation)
    sine = (sine - sine.mean(axis=2, keepdims=True)) / sine.std(axis=2, keepdims=True)
    autocorrelations = [(sine[:, :, lag:] * sine[:, :, :-lag]).mean(axis=2) for lag in (1, 2, 4)]
    columns = [*moments(np.abs(delay)), *moments(np.abs(deviation)), *autocorrelations]
    assert_equal(PhaseStatistics(), waves, columns, atol=3e-3)


def test_a_steady_tone_has_no_deviation():
    tone = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000, dtype=np.float32)[None]
    bins = 255
    deviation = PhaseStatistics()(torch.from_numpy(tone))[0, 2 * (bins - 1) : 2 * (bins - 1) + bins]
    assert deviation[1000 * 512 // 16_000 - 1] < 0.02  # the first bin is left out
    assert deviation.median() > 0.1 or deviation.max() > 0.1


@pytest.mark.parametrize("module", [SpectrumStatistics(), HarmonicStatistics(), PhaseStatistics()])
def test_silence_is_finite(module):
    x = torch.zeros(1, 16_000)
    x[0, 4000:8000] = 0.1 * torch.randn(4000, generator=torch.Generator().manual_seed(0))
    for each in (x, torch.zeros(1, 16_000)):
        assert module(each).isfinite().all()


def test_bins_that_move_together_correlate():
    log = torch.randn(1, 1, 50, generator=torch.Generator().manual_seed(0)).expand(1, 6, 50)
    torch.testing.assert_close(correlation_over_frequency(log, (1, 4)), torch.ones(1, 5 + 2), rtol=0, atol=1e-4)


def test_mean_and_deviation():
    x = torch.randn(2, 50, 6, generator=torch.Generator().manual_seed(0))
    mean, deviation = mean_and_deviation(x, dim=1).chunk(2, dim=1)
    torch.testing.assert_close(mean, x.mean(dim=1))
    torch.testing.assert_close(deviation, x.std(dim=1, correction=0), rtol=1e-4, atol=1e-4)


def test_the_networks_picture_of_a_spectrum(waves):
    """SE_ResNet's input: log energies less their mean, and the rotations between frames and between bins."""
    kind = PhasedSpectrum
    with torch.inference_mode():
        found = kind()(torch.from_numpy(waves)).numpy()
    x = spectra(waves, kind.WINDOW, kind.HOP)  # (B, F, N)
    log = np.log(np.abs(x) ** 2 + FLOOR)
    unit = x / (np.abs(x) + kind.NO_SOUND)
    advance = np.exp(2j * np.pi * np.arange(kind.BINS)[:, None] * kind.HOP / kind.WINDOW)
    along, across = np.zeros_like(x), np.zeros_like(x)
    along[:, :, 1:] = unit[:, :, 1:] / (unit[:, :, :-1] * advance) * np.abs(unit[:, :, :-1]) ** 2
    across[:, 1:] = -unit[:, 1:] * unit[:, :-1].conj()
    expected = [(log - log.mean(axis=(1, 2), keepdims=True)) / kind.SCALE]
    expected += [along.real, along.imag, across.real, across.imag]
    np.testing.assert_allclose(found, np.stack(expected, axis=1), atol=2e-3)
