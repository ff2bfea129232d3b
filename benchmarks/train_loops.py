"""The two loops that benchmarks/train.py compares: the official code's, and that of this repository."""

import argparse
import sys
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parents[1]))

from train_data import SUFFIX, read_file

from audio.chunks import fit
from config import Config, load_config
from corpora.asvspoof import ASVspoof2019
from corpora.balance import epoch_batches
from data_utils import open_waveforms, score_loader, train_loader
from models import build_model
from scoring.detector import Detector
from scoring.engines import TorchEngine
from training.optimization import Stepper, compiled, learning_rate
from utils import pick_device, seed_everything, set_precision


def row_config(args: argparse.Namespace, row: str) -> Config:
    """The configuration of a row, a precision joined by + to further words."""
    words = row.split("+")
    cache = ({"mmap", "ram", "gpu"} & set(words) or {"gpu" if args.on_gpu else "mmap"}).pop()
    how = {"precision": words[0].replace("plain", "fp32"), "cache": cache, "num_workers": 0, "accumulation_steps": 1}
    how |= {word: word in words for word in ("compile", "recompute")}
    where = {"database_path": (str(args.folder / "LA"),), "cache_path": str(args.folder / "packed"), "track": "LA"}
    return replace(load_config(args.config), batch_size=args.batch_size, **how, **where)


class Loop:
    """Training from the first step of a run, and scoring; one of the two classes below."""

    def __init__(self, args: argparse.Namespace, row: str):
        self.args, self.config, self.device = args, row_config(args, row), pick_device(args.device)
        seed_everything(self.config)
        self.model = build_model(self.config.model_config).to(self.device)
        self.length, self.steps_per_epoch = self.model.nb_samp, args.train // args.batch_size
        corpus = ASVspoof2019(self.config.database_path[0], "LA")
        self.train, self.dev = corpus.partition("train"), corpus.partition("dev")
        self.done = 0


class PlainLoop(Loop):
    """The official code's loop, with the batches and learning rates of ours."""

    def __init__(self, args: argparse.Namespace, row: str):
        super().__init__(args, row)
        torch.backends.cudnn.allow_tf32 = row != "plain+fp32"  # true is torch's default
        optim = self.config.optim_config
        options = {"lr": optim.base_lr, "betas": optim.betas, "weight_decay": optim.weight_decay}
        self.optimizer = torch.optim.Adam(self.model.parameters(), **options)
        self.schedule = learning_rate(optim, self.steps_per_epoch, self.config.num_epochs)
        self.criterion = nn.CrossEntropyLoss(torch.tensor(self.config.class_weights, device=self.device))
        self.load = partial(DataLoader, num_workers=0, pin_memory=args.on_gpu)

    def item(self, trial, rng: np.random.Generator | None = None) -> tuple[torch.Tensor, int]:
        samples = read_file(self.args.folder / "audio" / f"{trial.utt_id}{SUFFIX}")
        return torch.Tensor(fit(samples, self.length, rng)), trial.label

    def batches(self):
        self.model.train()
        for epoch in count():
            seed = (self.config.seed, epoch)
            crops = ItemDataset(lambda i, seed=seed: self.item(self.train.trials[i], np.random.default_rng((*seed, i))))
            yield from self.load(crops, batch_sampler=epoch_batches(self.train.trials, self.config, epoch).tolist())

    def forward(self, batch) -> torch.Tensor:
        x, y = (part.to(self.device) for part in batch)
        return self.criterion(self.model(x, freq_aug=self.config.freq_aug)[1], y)

    def step(self, batch) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule(self.done)
        loss = self.forward(batch)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.done += 1
        return loss.item()

    def score(self, batches: int) -> int:
        """Score so many batches; returns the number of utterances."""
        self.model.eval()
        order, scores = torch.arange(self.args.dev).split(self.args.batch_size)[:batches], []
        with torch.no_grad():
            for x, _ in self.load(ItemDataset(lambda i: self.item(self.dev.trials[i])), batch_sampler=order):
                scores.extend(self.model(x.to(self.device))[1][:, 1].cpu().numpy().tolist())
        return len(scores)


class ItemDataset:
    """A dataset of the values of `item(index)`."""

    def __init__(self, item):
        self.item = item

    def __getitem__(self, index) -> tuple[torch.Tensor, int]:
        return self.item(int(index))


class OwnLoop(Loop):
    """The loop of training/run.py, built from the same parts."""

    def __init__(self, args: argparse.Namespace, row: str):
        super().__init__(args, row)
        set_precision(self.config.precision, self.device)
        self.stepper = Stepper(self.model, self.config, self.steps_per_epoch)
        self.optimizer = self.stepper.optimizer
        self.scorer = compiled(self.model) if self.config.compile else self.model
        self.packs = [open_waveforms(part, self.config, self.device) for part in (self.train, self.dev)]
        self.weights = np.array(self.config.class_weights)[[trial.label for trial in self.train.trials]]
        self.previous = torch.zeros(())

    def batches(self):
        self.model.train().to(memory_format=self.stepper.layout)
        for epoch in count():
            for batch in train_loader(self.packs[0], self.length, self.config, epoch):
                yield *batch.micro_batches[0], float(self.weights[batch.indices].sum())

    def forward(self, batch) -> torch.Tensor:
        x, y = (part.to(self.device, non_blocking=True) for part in batch[:2])
        return self.stepper._loss(x, y) / batch[2]

    def step(self, batch) -> torch.Tensor:
        loss = self.stepper([batch[:2]], batch[2], self.done)
        (self.previous if self.args.on_gpu else loss).item()  # a GPU computes the next step meanwhile
        self.done, self.previous = self.done + 1, loss
        return loss

    def score(self, batches: int) -> int:
        engine = TorchEngine(self.scorer, self.device, "bf16" if self.config.precision == "bf16" else "fp32")
        trials = self.dev.trials[: batches * self.args.batch_size]
        part = replace(self.packs[1], partition=replace(self.dev, trials=trials))
        return len(Detector(engine).score(score_loader(part, self.length, self.config)))
