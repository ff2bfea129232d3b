"""The typed schema of `.conf` files: every key with its type, its default and its limits.

A value that does not fit raises UserError with the key, what was expected and what was found.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from common.schema import require

# Keys that do not change a run's results: where its data is, how it is read, how often its state is saved.
INCIDENTAL = frozenset({"database_path", "eval_sets", "num_workers", "cache", "cache_path", "save_every_steps"})
MAX_EPOCHS = 10_000
ANGULAR = ("OCSoftmax", "AMSoftmax", "P2SGrad")  # losses on cosines: the model ends in cosines, not in a linear layer


@dataclass(frozen=True)
class OptimConfig:
    """Optimizer and learning-rate schedule. `training.optimization.learning_rate` computes the schedules."""

    optimizer: Literal["adam", "sgd"] = "adam"
    base_lr: float = 1e-4
    encoder_lr: float | None = None  # for a self-supervised encoder, with the same schedule; null: base_lr
    weight_decay: float = 1e-4
    scheduler: Literal["cosine", "multistep", "sgdr", "keras_decay", "none"] = "cosine"
    lr_min: float = 5e-6  # cosine, sgdr: last value of the schedule
    betas: tuple[float, float] = (0.9, 0.999)  # adam
    amsgrad: bool = False  # adam
    momentum: float = 0.9  # sgd
    nesterov: bool = False  # sgd
    milestones: tuple[int, ...] = ()  # multistep: epochs after which lr is multiplied by lr_decay
    lr_decay: float = 0.1  # multistep
    T0: int = 10  # sgdr: epochs of the first cycle
    Tmult: int = 1  # sgdr: each cycle is this many times as long as the previous one
    warmup_epochs: float = 0.0  # linear warm-up from 0 to the schedule's lr (Goyal et al., arXiv 1706.02677)
    max_grad_norm: float = 0.0  # above 0: clip gradients to this norm (Pascanu et al., arXiv 1211.5063)
    sam_rho: float = 0.0  # above 0: sharpness-aware minimization (arXiv 2010.01412; for this task 2506.11532)

    def __post_init__(self):
        require(self.base_lr > 0, "optim_config.base_lr", "above 0", self.base_lr)
        require(self.encoder_lr is None or self.encoder_lr > 0, "optim_config.encoder_lr", "above 0", self.encoder_lr)
        highest = self.base_lr if self.scheduler in ("cosine", "sgdr") else math.inf
        require(0 <= self.lr_min <= highest, "optim_config.lr_min", f"0 … base_lr {self.base_lr}", self.lr_min)
        require(self.weight_decay >= 0, "optim_config.weight_decay", "0 or more", self.weight_decay)
        require(all(0 <= b < 1 for b in self.betas), "optim_config.betas", "two values in [0, 1)", self.betas)
        require(0 <= self.momentum < 1, "optim_config.momentum", "[0, 1)", self.momentum)
        require(not self.nesterov or self.momentum > 0, "optim_config.momentum", "above 0 with nesterov", self.momentum)
        require(0 < self.lr_decay <= 1, "optim_config.lr_decay", "(0, 1]", self.lr_decay)
        require(self.T0 >= 1, "optim_config.T0", "1 or more", self.T0)
        require(self.Tmult >= 1, "optim_config.Tmult", "1 or more", self.Tmult)
        for name in ("warmup_epochs", "max_grad_norm", "sam_rho"):
            require(getattr(self, name) >= 0, f"optim_config.{name}", "0 or more", getattr(self, name))


@dataclass(frozen=True)
class SWAConfig:
    """Stochastic weight averaging (arXiv 1803.05407): which epochs enter the mean."""

    max_dev_eer: float = 1.0  # %: epochs that improve the dev EER enter once it is this low (the published policy)
    last: int = 0  # above 0: instead, the mean of this many last epochs

    def __post_init__(self):
        require(0 <= self.max_dev_eer <= 100, "swa.max_dev_eer", "0 … 100 (%)", self.max_dev_eer)
        require(self.last >= 0, "swa.last", "0 or more", self.last)


@dataclass(frozen=True)
class LossConfig:
    """Constants of the losses in training/losses.py. Defaults are the papers'."""

    focal_gamma: float = 2.0  # focal
    scale: float = 20.0  # OCSoftmax, AMSoftmax: factor on the cosines
    oc_margins: tuple[float, float] = (0.2, 0.9)  # OCSoftmax: spoof below the first, bona fide above the second
    am_margin: float = 0.9  # AMSoftmax: subtracted from the cosine of the true class

    def __post_init__(self):
        require(self.focal_gamma >= 0, "loss_config.focal_gamma", "0 or more", self.focal_gamma)
        require(self.scale > 0, "loss_config.scale", "above 0", self.scale)
        low, high = self.oc_margins
        require(-1 <= low <= high <= 1, "loss_config.oc_margins", "two rising values in [-1, 1]", self.oc_margins)
        require(0 <= self.am_margin < 2, "loss_config.am_margin", "[0, 2)", self.am_margin)


@dataclass(frozen=True)
class Config:
    """Everything a run depends on. Defaults are the published recipe (arXiv 2110.01200, section 4)."""

    model_config: dict  # `architecture` and its keys, which models/<architecture>.py checks
    optim_config: OptimConfig = field(default_factory=OptimConfig)
    swa: SWAConfig = field(default_factory=SWAConfig)
    track: Literal["LA", "PA"] = "LA"
    database_path: tuple[str, ...] = ("./LA/",)  # unpacked ASVspoof2019 archive, KIND:PATH, or a list of these
    eval_sets: tuple[str, ...] = ()  # further data sets, KIND:PATH; their eval partition is scored at the end
    asv_score_path: str | None = None  # eval ASV scores, relative to database_path; null: as in the archive
    model_path: str | None = None  # checkpoint for --eval
    batch_size: int = 24
    num_epochs: int = 100
    loss: Literal["CCE", "focal", "OCSoftmax", "AMSoftmax", "P2SGrad"] = "CCE"  # weighted by class_weights
    loss_config: LossConfig = field(default_factory=LossConfig)
    class_weights: tuple[float, float] = (0.1, 0.9)  # spoof, bona fide
    label_smoothing: float = 0.0  # fraction of each label spread over both classes (arXiv 1512.00567)
    ema_decay: float = 0.0  # above 0: moving average of the weights, saved as ema.pth (arXiv 1703.01780, section 2)
    crop_samples: int | None = None  # samples of a training crop; null: model_config.nb_samp, as in scoring
    freq_aug: bool = False  # mask random neighbouring filters in training
    augmentation: tuple[dict, ...] = ()  # transforms of training waveforms, in this order: docs/augmentation.md
    # Vocoders of audio/vocoders.py; each makes a spoof of every bona fide training utterance.
    vocode: tuple[str, ...] = ()
    balance: tuple[Literal["key", "source", "attack", "speaker"], ...] = ()  # groups made equally frequent, nested
    balance_power: float = 0.0  # a group's share grows with this power of its size; 0: equal, 1: as the trials are
    eval_all_best: bool = False  # also score eval whenever dev improves; no choice depends on it
    eval_output: str = "eval_scores_using_best_dev_model.txt"  # name of the score file that --eval writes
    cudnn_deterministic_toggle: bool = True
    cudnn_benchmark_toggle: bool = False
    deterministic: bool = False  # bit-identical runs on one GPU, slower; on a CPU they always are
    seed: int = 1234
    num_workers: int = 4  # processes that read audio; at most the machine's cores
    cache: Literal["off", "mmap", "ram", "gpu"] = "off"  # off: decode in every epoch; else decode once, keep here
    cache_path: str = "./packed/"  # folder for decoded samples
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"  # bf16: the encoder alone; tf32: all of a GPU's products
    compile: bool = False  # torch.compile: fused kernels, CUDA graphs on a GPU; takes minutes at the start
    accumulation_steps: int = 1  # parts that a batch is computed in: less memory, but batch norm sees single parts
    recompute: bool = False  # gradient checkpointing of the encoder (arXiv 1604.06174): somewhat less memory, slower
    save_every_steps: int = 0  # above 0: also save last.pth after every so many steps within an epoch

    def __post_init__(self):
        require(self.batch_size >= 2, "batch_size", "2 or more (batch norm needs two)", self.batch_size)
        require(1 <= self.num_epochs <= MAX_EPOCHS, "num_epochs", f"1 … {MAX_EPOCHS}", self.num_epochs)
        require(all(w > 0 for w in self.class_weights), "class_weights", "two values above 0", self.class_weights)
        require(0 <= self.label_smoothing < 1, "label_smoothing", "[0, 1)", self.label_smoothing)
        smooth = self.loss == "CCE" or not self.label_smoothing
        require(smooth, "label_smoothing", f"0 with the loss {self.loss}", self.label_smoothing)
        if self.loss in ANGULAR:
            object.__setattr__(self, "model_config", {"output": "cosine"} | self.model_config)
        output, wanted = self.model_config.get("output", "linear"), "cosine" if self.loss in ANGULAR else "linear"
        require(output == wanted, "model_config.output", f"{wanted}, with the loss {self.loss}", output)
        require(len(self.database_path) >= 1, "database_path", "one folder or more", "none")
        repeated = [name for names in (self.vocode, self.balance) for name in names if names.count(name) > 1]
        require(not repeated, "vocode or balance", "each name once", ", ".join(sorted(set(repeated))))
        require(0 <= self.balance_power <= 1, "balance_power", "0 … 1", self.balance_power)
        changed = bool(self.augmentation or self.vocode)
        require(not (changed and self.cache == "gpu"), "cache", "ram with augmentation, which the CPU does", "gpu")
        require(self.crop_samples is None or self.crop_samples >= 1, "crop_samples", "1 or more", self.crop_samples)
        require(0 <= self.ema_decay < 1, "ema_decay", "[0, 1)", self.ema_decay)
        require(0 <= self.seed < 2**32, "seed", "0 … 2**32 - 1", self.seed)
        require(self.num_workers >= 0, "num_workers", "0 or more", self.num_workers)
        require(self.accumulation_steps >= 1, "accumulation_steps", "1 or more", self.accumulation_steps)
        least = 2 * self.accumulation_steps
        parts = self.batch_size % self.accumulation_steps == 0 and self.batch_size >= least
        require(parts, "batch_size", f"a multiple of accumulation_steps, {least} or more", self.batch_size)
        require(
            not (self.compile and self.recompute), "recompute", "false with compile, which plans memory itself", True
        )
        require(self.save_every_steps >= 0, "save_every_steps", "0 or more", self.save_every_steps)
        require(Path(self.eval_output).name == self.eval_output, "eval_output", "a file name", self.eval_output)
