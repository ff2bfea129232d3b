"""Train the bundled detector's network on the spectrum, without each fold of benchmarks/generalise.py and on all.

    python benchmarks/generalise.py folds --prompts data/prompts                # docs/rebuild.md
    python benchmarks/bundled_network.py                                        # fold by fold, then all clips
    python benchmarks/bundled_network.py --parts 3 --seeds 1 2 --device cuda    # one of the six, twice

Writes network_<part>_seed<N>.pth, which `benchmarks/bundled.py fit` joins to the linear layers; before them the
vocoders, which learn from the prompts, speech that no fold is tested with, and their copies of all bona fide clips,
which the linear layers learn from, too. What is there is left out.

Batches are cut, augmented and vocoded on the device (training/batch_augmentation.py, training/neural_vocoders.py): on
one H200 sixteen of these processes at once took ten minutes; on two CPU cores one would take about two hours. A fold
that is tested with Griffin-Lim is trained without copies of that family. The other keys of the recipe are those of
config/SE_ResNet.conf.
"""

import argparse
import copy
import itertools
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]  # in this order: benchmarks have the names of packages

from generalise import FOLDS, Clip, write_list

from audio import SAMPLE_RATE, reading
from audio.levels import to_power_of, within_full_scale
from common.command import run
from common.files import replacing
from common.schema import require
from config import Config, load_config, to_dict
from corpora.folders import CsvList
from corpora.packed import FULL_SCALE, to_int16
from metrics.scores import BONAFIDE, SPOOF
from models import build_model
from training import neural_vocoders
from training.batch_augmentation import augment, griffin_lim, rephased
from utils import computes_bf16, pick_device, save_checkpoint

STEPS, WARM_UP = 1400, 100
LONGEST = 5 * SAMPLE_RATE  # samples that are kept of a clip
LENGTHS = (0.5, 0.75, 1, 1, 1.33)  # of a batch's crops, times `crop_samples`
COPIES = 0.4  # share of the spoofed half: copies of bona fide clips of the same batch
GROUPS = 3  # of the copies, each by a vocoder of its own
NEURAL = 0.55  # share of the groups whose vocoder is a neural one
VOCODER_STEPS, VOCODER_BATCH, VOCODER_CROP = 2000, 32, 12_800  # samples
PROMPT_WEIGHT = 0.3  # of a prompt beside a clip; their copies have it too
WEIGHT_DECAY = 0.05  # decoupled from the gradient (arXiv 1711.05101)


@dataclass
class Clips:
    """The clips of a training set on a device."""

    samples: Tensor  # (N, LONGEST) int16
    length: Tensor  # (N,)
    chance: Tensor  # (2, N): of a clip to be drawn for the spoofed and for the bona fide half of a batch

    @classmethod
    def read(cls, output: Path, part: str, device: torch.device) -> "Clips":
        """Those that a fold is trained on, or all; and the prompts, or the prompts alone."""
        partitions = [CsvList(output / "prompts.csv").partition("train")]
        if part != "prompts":
            partitions.insert(0, CsvList(list_path(output, part)).partition("train"))
        trials = [trial for partition in partitions for trial in partition.trials]
        files = [partition.path(trial) for partition in partitions for trial in partition.trials]
        samples, length = np.zeros((len(files), LONGEST), np.int16), np.zeros(len(files), int)
        for row, file in enumerate(tqdm(files, f"reading, {part}", disable=None)):
            x = reading.read(file)[:LONGEST]
            samples[row, : len(x)], length[row] = to_int16(x * FULL_SCALE), len(x)
        # Sources of bona fide speech and generators weigh as the root of their clips.
        groups = [f"{trial.source} {trial.attack}" for trial in trials]
        _, index, count = np.unique(groups, return_inverse=True, return_counts=True)
        weight = count[index] ** -0.5
        weight[len(partitions[0].trials) :] *= PROMPT_WEIGHT
        label = np.array([trial.label for trial in trials])
        chance = np.stack([np.where(label == kind, weight, 0) for kind in (SPOOF, BONAFIDE)])
        columns = (torch.from_numpy(each).to(device) for each in (samples, length, chance.astype(np.float32)))
        return cls(*columns)

    def draw(self, kind: int, count: int) -> Tensor:
        """(count,) rows of a class."""
        return torch.multinomial(self.chance[kind], count, replacement=True)

    def crops(self, rows: Tensor, samples: int) -> Tensor:
        """(B, samples) from random places, float32; a shorter clip is repeated."""
        length = self.length[rows]
        first = (torch.rand(len(rows), device=rows.device) * (length - samples + 1).clamp(min=1)).long()
        where = (first[:, None] + torch.arange(samples, device=rows.device)) % length[:, None]
        return self.samples[rows[:, None], where].float() / FULL_SCALE


def list_path(output: Path, part: str) -> Path:
    return output / ("all.csv" if part == "all" else f"fold_{part}.csv")


@dataclass
class Vocoders:
    """(B, T) → copies (B, T), each."""

    signal: tuple[Callable[[Tensor], Tensor], ...]  # none of a family that a fold is tested with
    neural: tuple[Callable[[Tensor], Tensor], ...]

    @classmethod
    def read(cls, output: Path, part: str, device: torch.device) -> "Vocoders":
        """For a fold, or for all clips; the neural ones are those that `train_vocoder` left."""
        held = [] if part == "all" else CsvList(list_path(output, part)).partition("eval").trials
        is_tested = any("Griffin-Lim" in Clip.of(trial).families for trial in held)
        neural = tuple(read_vocoder(output, kind, device) for kind in neural_vocoders.KINDS)
        return cls((rephased,) if is_tested else (rephased, griffin_lim), neural)

    @torch.no_grad()
    def copies(self, x: Tensor) -> Tensor:
        copied = []
        for group in x.chunk(GROUPS):
            vocoders = self.neural if torch.rand(()) < NEURAL else self.signal
            copied.append(vocoders[int(torch.randint(len(vocoders), ()))](group))
        return torch.cat(copied)


def vocoder_path(output: Path, kind: str) -> Path:
    return output / f"vocoder_{kind}.safetensors"


def read_vocoder(output: Path, kind: str, device: torch.device) -> neural_vocoders.NeuralVocoder:
    vocoder = neural_vocoders.NeuralVocoder(kind).to(device).eval()
    vocoder.load_state_dict(load_file(vocoder_path(output, kind)))
    return vocoder


def train_vocoder(args, kind: str) -> None:
    """Train a neural vocoder on the prompts, and write it."""
    torch.manual_seed(0)
    device = pick_device(args.device)
    prompts = Clips.read(args.output, "prompts", device)

    def batches() -> Iterator[Tensor]:
        for _ in tqdm(range(args.vocoder_steps), kind, disable=None):
            yield prompts.crops(prompts.draw(BONAFIDE, VOCODER_BATCH), VOCODER_CROP)

    state = neural_vocoders.train(kind, batches(), args.vocoder_steps, device).state_dict()
    with replacing(vocoder_path(args.output, kind)) as temporary:
        save_file(state, temporary)


@torch.no_grad()
def write_copies(args) -> None:
    """Write copies of the bona fide clips of all.csv by each neural vocoder, and their list, copies.csv."""
    device, clips, rows = pick_device(args.device), CsvList(args.output / "all.csv").partition("train"), []
    bonafide = [trial for trial in clips.trials if trial.label == BONAFIDE]
    for kind in neural_vocoders.KINDS:
        vocoder, folder = read_vocoder(args.output, kind, device), args.output / "copies" / kind
        folder.mkdir(parents=True, exist_ok=True)
        for trial in tqdm(bonafide, f"copies, {kind}", disable=None):
            x, path = reading.read(clips.path(trial))[:LONGEST], folder / f"{Path(trial.utt_id).stem}.flac"
            y = vocoder(torch.from_numpy(x)[None].to(device))[0].cpu().numpy()
            soundfile.write(path, within_full_scale(to_power_of(x, y)), SAMPLE_RATE)
            rows.append((Clip(path, "spoof", "", kind, trial.source), "train"))
    with replacing(args.output / "copies.csv") as temporary:
        write_list(temporary, rows)


def batch(clips: Clips, vocoders: Vocoders, config: Config) -> Tensor:
    """(B, T) augmented crops: bona fide clips, then as many spoofed ones, some of them copies of the former."""
    half = config.batch_size // 2
    samples = int(config.crop_samples * LENGTHS[int(torch.randint(len(LENGTHS), ()))])
    bonafide = clips.crops(clips.draw(BONAFIDE, half), samples)
    copies = vocoders.copies(bonafide[: int(COPIES * half)])
    return augment(torch.cat([bonafide, copies, clips.crops(clips.draw(SPOOF, half - len(copies)), samples)]))


def train(args, part: str, seed: int) -> None:
    """Train one network, by AdamW with a cosine schedule, and write the mean of its weights over steps."""
    config, device = replace(load_config(args.config), seed=seed), pick_device(args.device)
    clips, vocoders = Clips.read(args.output, part, device), Vocoders.read(args.output, part, device)
    torch.manual_seed(seed)
    model = build_model(config.model_config).to(device, memory_format=torch.channels_last)
    mean, c = copy.deepcopy(model).eval(), config.optim_config
    optimizer = torch.optim.AdamW(model.parameters(), c.base_lr, c.betas, weight_decay=WEIGHT_DECAY)
    half = config.batch_size // 2
    label = torch.tensor([1] * half + [0] * half, device=device)
    low = config.precision == "bf16" and (device.type == "cuda" or computes_bf16())
    for step in (bar := tqdm(range(args.steps), f"{part}, seed {seed}", disable=None)):
        cosine = c.lr_min + (c.base_lr - c.lr_min) / 2 * (1 + math.cos(math.pi * step / args.steps))
        optimizer.param_groups[0]["lr"] = cosine * min(1, (step + 1) / WARM_UP)
        x, masked = batch(clips, vocoders, config), config.freq_aug and bool(torch.rand(()) < 0.5)
        with torch.autocast(device.type, torch.bfloat16, enabled=low):
            logits = model.train()(x, freq_aug=masked)[1].float()
        loss = cross_entropy(logits, label, label_smoothing=config.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), c.max_grad_norm)
        optimizer.step()
        keep_mean(mean, model, min(config.ema_decay, (step + 1) / (step + 11)))
        bar.set_postfix(loss=f"{loss.item():.3f}")
    state = {name: x.half() if x.is_floating_point() else x for name, x in mean.state_dict().items()}
    fields = {"config": to_dict(config), "model": state, "steps": args.steps}
    save_checkpoint(network_path(args.output, part, seed), fields)


def network_path(output: Path, part: str | int, seed: int) -> Path:
    """Of the network that was trained without a fold, or on all clips."""
    return output / f"network_{part}_seed{seed}.pth"


@torch.no_grad()
def keep_mean(mean: torch.nn.Module, model: torch.nn.Module, decay: float) -> None:
    """Moving average of the weights (arXiv 1703.01780); batch norms' statistics are those of the last step."""
    torch._foreach_lerp_(list(mean.parameters()), list(model.parameters()), 1 - decay)
    for kept, found in zip(mean.buffers(), model.buffers(), strict=True):
        kept.copy_(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("exp_result/generalise"), help="default: %(default)s")
    parser.add_argument("--config", default=str(ROOT / "config" / "SE_ResNet.conf"), help="default: %(default)s")
    parts = [*map(str, range(FOLDS)), "all"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts, help="folds, or all clips (default: each)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="a network each (default: 0)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=STEPS, help="default: %(default)s")
    parser.add_argument("--vocoder-steps", type=int, default=VOCODER_STEPS, help="default: %(default)s")
    args = parser.parse_args()
    for name in ("steps", "vocoder_steps"):
        require(getattr(args, name) > 0, f"--{name.replace('_', '-')}", "1 or more", getattr(args, name))
    for kind in neural_vocoders.KINDS:
        if not vocoder_path(args.output, kind).exists():
            train_vocoder(args, kind)
    if not (args.output / "copies.csv").exists():
        write_copies(args)
    for part, seed in itertools.product(args.parts, args.seeds):
        if not network_path(args.output, part, seed).exists():
            train(args, part, seed)


if __name__ == "__main__":
    run(main)
