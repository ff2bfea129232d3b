"""Neural vocoders, small enough to be trained in minutes, that copy speech: spoofs for training, batches at a time.

A copy has the words, the voice and the channel of a recording, and the traces of a generator. Published generators end
in few kinds of networks; each kind here has one of their ways from features back to samples:

- fourier: ConvNeXt blocks, then an inverse short-time Fourier transform (Siuzdak, arXiv 2306.00814);
- transposed: transposed convolutions of several strides (Kong et al., arXiv 2010.05646), snake activations
  (Lee et al., arXiv 2206.04658);
- subpixel: convolutions whose channels become samples (Shi et al., arXiv 1609.05158);
- nearest: each value repeated, then a convolution;
- quantised: a codec. An encoder of the waveform in place of mel energies, its values rounded to nine levels (Mentzer
  et al., arXiv 2309.15505), and transposed convolutions.

All but `subpixel` have discriminators of complex spectra beside the spectral loss (Defossez et al., arXiv 2210.13438).

B batch, T samples at 16 kHz, C channels, N frames. Waveforms (B, T) float32.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import at_level
from training.batch_augmentation import mel_triangles

FLOOR = 1e-4  # of magnitudes before their logarithm
CHANNELS = 192  # before the first upsampling; each halves them
LEVELS = 8  # steps between the lowest and the highest value of a quantised feature
SPECTRA = (256, 512, 1024, 2048)  # windows of the spectral loss, samples
JUDGED = (512, 1024, 2048)  # windows of the discriminators
LEARNING_RATE, JUDGE_LEARNING_RATE, BETAS = 8e-4, 3e-4, (0.8, 0.99)
UNJUDGED = 0.15  # share of the steps before the discriminators begin
ADVERSARIAL, MATCHING = 0.2, 0.5  # weights beside the spectral loss


class NeuralVocoder(nn.Module):
    """(B, T) → copies (B, T), at the level of `at_level`. kind: one of KINDS."""

    def __init__(self, kind: str):
        super().__init__()
        analysis, synthesis, self.is_judged = KINDS[kind]
        self.analysis, self.synthesis = analysis(), synthesis()

    def forward(self, x: Tensor) -> Tensor:
        y = self.synthesis(self.analysis(at_level(x)))[:, : x.shape[1]]
        return F.pad(y, (0, x.shape[1] - y.shape[1]))


class LogMel(nn.Module):
    """(B, T) → (B, mels, N)."""

    def __init__(self, size: int, hop: int, mels: int):
        super().__init__()
        self.size, self.hop = size, hop
        self.register_buffer("window", torch.hann_window(size), persistent=False)
        self.register_buffer("filters", mel_triangles(mels, size // 2 + 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        magnitude = torch.stft(x, self.size, self.hop, window=self.window, return_complex=True).abs()
        return (self.filters @ magnitude).clamp(min=FLOOR).log()


class Quantised(nn.Module):
    """(B, T) → features (B, dims, N) of LEVELS + 1 values each, in −1 … 1; gradients pass the rounding by."""

    def __init__(self, strides: Sequence[int], dims: int, channels: int = 24, widest: int = 128):
        super().__init__()
        layers: list[nn.Module] = [nn.Conv1d(1, channels, 7, padding=3)]
        for stride in strides:
            wider = min(2 * channels, widest)
            down = nn.Conv1d(channels, wider, 2 * stride, stride, padding=stride // 2 + stride % 2)
            layers += [Residual(channels, leaky), leaky(channels), down]
            channels = wider
        self.layers = nn.Sequential(*layers, leaky(channels), nn.Conv1d(channels, dims, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.layers(x[:, None])) * (LEVELS / 2)
        return (y + (y.round() - y).detach()) / (LEVELS / 2)


class InverseFourier(nn.Module):
    """(B, C, N) → (B, T)."""

    def __init__(self, features: int, size: int, hop: int, channels: int = 256, blocks: int = 6):
        super().__init__()
        self.size, self.hop = size, hop
        self.body = nn.Sequential(
            nn.Conv1d(features, channels, 7, padding=3), *(ConvNeXt(channels) for _ in range(blocks))
        )
        self.out = nn.Conv1d(channels, size + 2, 1)
        self.register_buffer("window", torch.hann_window(size), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        log, phase = self.out(self.body(x)).chunk(2, dim=1)
        return torch.istft(torch.polar(log.clamp(max=5).exp(), phase), self.size, self.hop, window=self.window)


class ConvNeXt(nn.Module):
    """(B, C, N) → (B, C, N)."""

    def __init__(self, channels: int):
        super().__init__()
        self.depthwise = nn.Conv1d(channels, channels, 7, padding=3, groups=channels)
        self.pointwise = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, 3 * channels), nn.GELU(), nn.Linear(3 * channels, channels)
        )
        self.scale = nn.Parameter(torch.full((channels,), 0.2))

    def forward(self, x: Tensor) -> Tensor:
        return x + (self.scale * self.pointwise(self.depthwise(x).transpose(1, 2))).transpose(1, 2)


class Upsampling(nn.Module):
    """(B, C, N) → (B, N · product of strides): upsample, convolve, and so on."""

    def __init__(self, features: int, strides: Sequence[int], upsample: Callable, activation: Callable):
        super().__init__()
        layers, channels = [nn.Conv1d(features, CHANNELS, 7, padding=3)], CHANNELS
        for stride in strides:
            half = channels // 2
            layers += [activation(channels), upsample(channels, half, stride), Residual(half, activation)]
            channels = half
        self.layers = nn.Sequential(*layers, activation(channels), nn.Conv1d(channels, 1, 7, padding=3))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)[:, 0]


class Residual(nn.Module):
    """(B, C, N) → (B, C, N): dilated convolutions, each beside what it is given."""

    def __init__(self, channels: int, activation: Callable):
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(
                activation(channels),
                nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation),
                activation(channels),
                nn.Conv1d(channels, channels, 1),
            )
            for dilation in (1, 3, 9)
        )

    def forward(self, x: Tensor) -> Tensor:
        for branch in self.branches:
            x = x + branch(x)
        return x


class Snake(nn.Module):
    """x + sin²(a · x) / a, with an a for each channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.a = nn.Parameter(torch.ones(channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.sin(self.a * x).square() / (self.a + 1e-6)


class SubPixel(nn.Module):
    """(B, C, N) → (B, out, N · stride)."""

    def __init__(self, channels: int, out: int, stride: int):
        super().__init__()
        self.stride, self.conv = stride, nn.Conv1d(channels, out * stride, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).unflatten(1, (-1, self.stride)).transpose(2, 3).flatten(2)


def leaky(channels: int) -> nn.Module:
    return nn.LeakyReLU(0.1)


def transposed(channels: int, out: int, stride: int) -> nn.Module:
    odd = stride % 2
    return nn.ConvTranspose1d(channels, out, 2 * stride, stride, padding=stride // 2 + odd, output_padding=odd)


def nearest(channels: int, out: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Upsample(scale_factor=stride), nn.Conv1d(channels, out, 2 * stride + 1, padding=stride))


KINDS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], bool]] = {  # analysis, synthesis, is judged
    "fourier": (partial(LogMel, 1024, 256, 80), partial(InverseFourier, 80, 1024, 256), True),
    "transposed": (partial(LogMel, 1024, 256, 80), partial(Upsampling, 80, (8, 8, 4), transposed, Snake), True),
    "subpixel": (partial(LogMel, 800, 200, 80), partial(Upsampling, 80, (5, 5, 8), SubPixel, leaky), False),
    "nearest": (partial(LogMel, 1024, 256, 100), partial(Upsampling, 100, (4, 4, 4, 4), nearest, leaky), True),
    "quantised": (partial(Quantised, (4, 5, 8), 8), partial(Upsampling, 8, (8, 5, 4), transposed, Snake), True),
}


class Discriminator(nn.Module):
    """(B, T) → judgements (B, 1, K', N') of patches of the complex spectrum, and what each layer found."""

    def __init__(self, size: int, channels: int = 24):
        super().__init__()
        self.size = size
        self.register_buffer("window", torch.hann_window(size), persistent=False)
        self.layers = nn.ModuleList(
            [
                nn.Conv2d(2, channels, (7, 5), (2, 1), (3, 2)),
                nn.Conv2d(channels, channels, (5, 3), (2, 1), (2, 1)),
                nn.Conv2d(channels, channels, (5, 3), (2, 2), (2, 1)),
                nn.Conv2d(channels, channels, 3, (2, 1), 1),
                nn.Conv2d(channels, 1, 3, 1, 1),
            ]
        )

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        spectrum = torch.stft(x, self.size, self.size // 4, window=self.window, return_complex=True)
        y = torch.view_as_real(spectrum * (4 / self.size**0.5)).permute(0, 3, 1, 2)
        found = []
        for layer in self.layers[:-1]:
            found.append(y := F.leaky_relu(layer(y), 0.1))
        return self.layers[-1](y), found


def spectral_loss(x: Tensor, y: Tensor) -> Tensor:
    """Spectral convergence and distance of log magnitudes, mean of four resolutions (arXiv 1910.11480)."""
    losses = []
    for size in SPECTRA:
        window = torch.hann_window(size, device=x.device)
        own, other = (
            torch.stft(each, size, size // 4, window=window, return_complex=True).abs().clamp(min=FLOOR)
            for each in (x, y)
        )
        losses.append((own - other).norm() / own.norm() + (own.log() - other.log()).abs().mean())
    return torch.stack(losses).mean()


def train(kind: str, batches: Iterable[Tensor], steps: int, device: torch.device) -> NeuralVocoder:
    """A vocoder that was trained for so many of `batches`, each (B, T) on the device."""
    vocoder = NeuralVocoder(kind).to(device)
    judges = nn.ModuleList(Discriminator(size) for size in JUDGED).to(device)
    optimizer = torch.optim.AdamW(vocoder.parameters(), LEARNING_RATE, BETAS)
    judging = torch.optim.AdamW(judges.parameters(), JUDGE_LEARNING_RATE, BETAS)
    for step, x in zip(range(steps), batches, strict=False):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * min(1, (step + 1) / 50) * (1 - 0.95 * step / steps)
        x = at_level(x)
        y = vocoder(x)
        loss = spectral_loss(x, y)
        if vocoder.is_judged and step > UNJUDGED * steps:
            judgement = [(judge(x)[0] - 1).square().mean() + judge(y.detach())[0].square().mean() for judge in judges]
            judging.zero_grad()
            sum(judgement).backward()
            judging.step()
            for judge in judges:
                likely, found = judge(y)
                with torch.no_grad():
                    wanted = judge(x)[1]
                matching = torch.stack([F.l1_loss(a, b) for a, b in zip(found, wanted, strict=True)]).mean()
                loss = loss + ADVERSARIAL * (likely - 1).square().mean() + MATCHING * matching
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(vocoder.parameters(), 5.0)
        optimizer.step()
    return vocoder.eval()
