"""The panels of a recording's sound: waveform, mel spectrogram, and what a score rests on, laid over it."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from plots.style import TEXT, style_axes

if TYPE_CHECKING:  # matplotlib is slow to import, so functions import it
    from matplotlib.axes import Axes

HIGHEST = 8000  # Hz: the top of every frequency axis
PIXELS = 1400  # columns of a waveform or spectrogram, about as many as two columns of a paper can show
EVIDENCE = "#D55E00"  # over a grey spectrogram


class Excerpt(NamedTuple):
    """Sound of a recording, or of a part of it."""

    samples: np.ndarray  # mono (N,)
    rate: int
    start: float = 0.0  # seconds into the recording

    @property
    def end(self) -> float:
        return self.start + len(self.samples) / self.rate


class Explanation(NamedTuple):
    """What the score of a chunk rests on. sentence: the same in words."""

    excerpt: Excerpt  # the chunk, up to the recording's end
    seconds: float  # of the map, which may go on beyond the recording: a short one is repeated
    frequencies: np.ndarray  # (F,) Hz, ascending
    weight: np.ndarray  # (F, T) in [0, 1]
    sentence: str


def draw_waveform(axes: "Axes", excerpt: Excerpt) -> None:
    """The lowest and highest sample in each of at most `PIXELS` columns, so that an hour draws as fast as a second."""
    samples, rate, start = excerpt
    style_axes(axes, "", "Amplitude")
    edges = np.unique(np.linspace(0, len(samples), PIXELS, endpoint=False).astype(int))
    low, high = np.minimum.reduceat(samples, edges), np.maximum.reduceat(samples, edges)
    axes.fill_between(start + edges / rate, low, high, color="0.3", linewidth=0.4, step="post", rasterized=True)
    peak = 1.1 * max(-low.min(), high.max()) or 1
    axes.set(ylim=(-peak, peak))


def draw_spectrogram(axes: "Axes", excerpt: Excerpt) -> None:
    """Mel power, 80 dB down from the loudest point: 64 bands, windows of 32 ms, the loudest window of each column."""
    samples, rate, start = excerpt
    style_axes(axes, "", "")
    taps, highest = round(0.032 * rate), min(HIGHEST, rate / 2)
    hop = int(np.clip(len(samples) // PIXELS, rate // 100, taps))  # with a wider hop, windows would skip samples
    frames = -(-len(samples) // hop)
    together = -(-frames // PIXELS)  # frames per column
    padded = np.pad(samples, ((taps - hop) // 2, taps))  # centres each window on its hop
    bands, columns = _mel_bands(np.fft.rfftfreq(taps, 1 / rate), 64, highest), []
    for first in range(0, frames, 100 * together):  # an hour at once would need half a gigabyte
        last = min(first + 100 * together, frames)
        piece = padded[first * hop : (last - 1) * hop + taps]
        windows = np.hanning(taps + 1)[:-1] * np.lib.stride_tricks.sliding_window_view(piece, taps)[::hop]
        power = bands @ np.abs(np.fft.rfft(windows).T) ** 2
        columns.append(np.maximum.reduceat(power, np.arange(0, last - first, together), axis=1))
    decibel = 10 * np.log10(np.maximum(np.hstack(columns), 1e-10))
    decibel = np.maximum(decibel, decibel.max() - 80)
    extent = (start, start + decibel.shape[1] * together * hop / rate, 0, _mel(highest))
    axes.imshow(decibel, cmap="Greys", origin="lower", aspect="auto", extent=extent)
    _frequency_axis(axes)


def draw_evidence(axes: "Axes", explanation: Explanation) -> None:
    """The map over the spectrogram in `axes`, which it pales: where a point counts more, its colour is denser."""
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm, to_rgb

    columns, start = explanation.weight.shape[1], explanation.excerpt.start
    middles = start + (np.arange(columns) + 0.5) * explanation.seconds / columns
    colour = to_rgb(EVIDENCE)
    look = {"cmap": LinearSegmentedColormap.from_list("evidence", [(*colour, 0), (*colour, 1)]), "rasterized": True}
    norm = PowerNorm(0.5, 0, 1)  # without the root, only peaks would be visible
    for image in axes.get_images():
        image.set_alpha(0.6)
    axes.pcolormesh(middles, _mel(explanation.frequencies), explanation.weight, norm=norm, **look)


def _mel_bands(frequencies: np.ndarray, bands: int, highest: float) -> np.ndarray:
    """Triangular filters of equal area (bands, F) for a spectrum at `frequencies` (F,) Hz, from 0 to `highest` Hz."""
    edges = 700 * (10 ** (np.linspace(0, _mel(highest), bands + 2)[:, None] / 2595) - 1)
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    slopes = (frequencies - low) / (middle - low), (high - frequencies) / (high - middle)
    return np.maximum(0, np.minimum(*slopes)) * 2 / (high - low)


def _frequency_axis(axes: "Axes") -> None:
    """0–8 kHz on the mel scale."""
    kilohertz = (0, 0.5, 1, 2, 4, 8)
    axes.set_yticks([_mel(1000 * tick) for tick in kilohertz], [f"{tick:g}" for tick in kilohertz])
    axes.set_ylim(0, _mel(HIGHEST))
    axes.set_ylabel("Frequency\n(kHz)", fontsize=TEXT)
    axes.grid(False)


def _mel(hertz: float | np.ndarray) -> float | np.ndarray:
    return 2595 * np.log10(1 + hertz / 700)  # HTK's scale, as in the models' filter banks
