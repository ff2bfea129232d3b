"""Typed configuration: a `.conf` file (YAML, so the official JSON files too) becomes a checked `Config`.

    config = load_config("config/AASIST.conf")

What is not known here is refused with the nearest known key: a misspelt option must not train the default.
"""

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from common.errors import UserError
from common.files import write_text
from common.schema import parse, require

MAX_CONFIG_BYTES = 1 << 20
# Keys that a run's results do not depend on: where its data is, how it is read, when its state is saved.
INCIDENTAL = frozenset({"database_path", "eval_sets", "num_workers", "cache", "cache_path", "save_every_steps"})
ANGULAR = ("OCSoftmax", "AMSoftmax", "P2SGrad")  # losses of cosines: the model ends in these, not in a linear layer
# The official RawNet2 file repeats two values of optim_config at the top, where the official code never reads them.
OFFICIAL_REPETITIONS = {"lr": "base_lr", "weight_decay": "weight_decay"}


@dataclass(frozen=True)
class OptimConfig:
    """Optimizer and learning-rate schedule; `utils.learning_rate` gives each schedule's formula."""

    optimizer: Literal["adam", "sgd"] = "adam"
    base_lr: float = 1e-4
    encoder_lr: float | None = None  # of a self-supervised encoder, scheduled alike; null: base_lr
    weight_decay: float = 1e-4
    scheduler: Literal["cosine", "multistep", "sgdr", "keras_decay", "none"] = "cosine"
    lr_min: float = 5e-6  # cosine, sgdr: where the schedule ends
    betas: tuple[float, float] = (0.9, 0.999)  # adam
    amsgrad: bool = False  # adam
    momentum: float = 0.9  # sgd
    nesterov: bool = False  # sgd
    milestones: tuple[int, ...] = ()  # multistep: epochs after which lr is multiplied by lr_decay
    lr_decay: float = 0.1  # multistep
    T0: int = 10  # sgdr: epochs of the first cycle
    Tmult: int = 1  # sgdr: each cycle is this many times longer than the one before
    warmup_epochs: float = 0.0  # the schedule's lr grows from 0 over these (Goyal et al., arXiv 1706.02677)
    max_grad_norm: float = 0.0  # above 0: longer gradients are scaled to this norm (Pascanu et al., arXiv 1211.5063)
    sam_rho: float = 0.0  # above 0: sharpness-aware minimization (arXiv 2010.01412, for this task 2506.11532)

    def __post_init__(self):
        require(self.base_lr > 0, "optim_config.base_lr", "above 0", self.base_lr)
        require(self.encoder_lr is None or self.encoder_lr > 0, "optim_config.encoder_lr", "above 0", self.encoder_lr)
        require(0 <= self.lr_min <= self.base_lr, "optim_config.lr_min", f"0 … base_lr {self.base_lr}", self.lr_min)
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
    """Stochastic weight averaging (arXiv 1803.05407); which epochs enter the mean."""

    max_dev_eer: float = 1.0  # %: every epoch that improves the dev EER counts once it is this low (published policy)
    last: int = 0  # above 0: the mean of the last so many epochs instead

    def __post_init__(self):
        require(0 <= self.max_dev_eer <= 100, "swa.max_dev_eer", "0 … 100 (%)", self.max_dev_eer)
        require(self.last >= 0, "swa.last", "0 or more", self.last)


@dataclass(frozen=True)
class LossConfig:
    """Numbers of the losses in losses.py; defaults are those of the papers."""

    focal_gamma: float = 2.0  # focal
    scale: float = 20.0  # OCSoftmax, AMSoftmax: what cosines are multiplied by
    oc_margins: tuple[float, float] = (0.2, 0.9)  # OCSoftmax: spoof stays below, bona fide above
    am_margin: float = 0.9  # AMSoftmax: taken from the own class's cosine

    def __post_init__(self):
        require(self.focal_gamma >= 0, "loss_config.focal_gamma", "0 or more", self.focal_gamma)
        require(self.scale > 0, "loss_config.scale", "above 0", self.scale)
        low, high = self.oc_margins
        require(-1 <= low <= high <= 1, "loss_config.oc_margins", "two rising values in [-1, 1]", self.oc_margins)
        require(0 <= self.am_margin < 2, "loss_config.am_margin", "[0, 2)", self.am_margin)


@dataclass(frozen=True)
class Config:
    """Everything a run depends on. Defaults are the published recipe's (arXiv 2110.01200, section 4)."""

    model_config: dict  # architecture and its own keys, checked by models/<architecture>.py
    optim_config: OptimConfig = field(default_factory=OptimConfig)
    swa: SWAConfig = field(default_factory=SWAConfig)
    track: Literal["LA", "PA"] = "LA"
    database_path: tuple[str, ...] = ("./LA/",)  # ASVspoof2019 as its archive unpacks; or KIND:PATH, or several
    eval_sets: tuple[str, ...] = ()  # further data sets, KIND:PATH, whose eval partition is scored at the end
    asv_score_path: str | None = None  # eval ASV scores below database_path; null: where the archive has them
    model_path: str | None = None  # the checkpoint that --eval scores
    batch_size: int = 24
    num_epochs: int = 100
    loss: Literal["CCE", "focal", "OCSoftmax", "AMSoftmax", "P2SGrad"] = "CCE"  # weighted by class_weights
    loss_config: LossConfig = field(default_factory=LossConfig)
    class_weights: tuple[float, float] = (0.1, 0.9)  # spoof, bona fide
    label_smoothing: float = 0.0  # share of each label that is spread over both classes (arXiv 1512.00567)
    ema_decay: float = 0.0  # above 0: a mean of the weights over steps, kept as ema.pth (arXiv 1703.01780, section 2)
    crop_samples: int | None = None  # of a training utterance; null: model_config.nb_samp, of which scores are made
    freq_aug: bool = False  # frequency masking of the filter bank in training
    augmentation: tuple[dict, ...] = ()  # of training waveforms, in this order; augmentation.py has the names
    vocode: tuple[str, ...] = ()  # by each of these vocoders.py makes a spoof of every bona fide training utterance
    balance: tuple[Literal["key", "source", "attack", "speaker"], ...] = ()  # equal shares in an epoch, nested
    eval_all_best: bool = False  # also report eval whenever dev improves; steers nothing
    eval_output: str = "eval_scores_using_best_dev_model.txt"  # name of --eval's score file
    cudnn_deterministic_toggle: bool = True
    cudnn_benchmark_toggle: bool = False
    deterministic: bool = False  # bit-identical runs on one GPU too, slower; on a CPU they always are
    seed: int = 1234
    num_workers: int = 4  # processes that read audio; at most the machine's cores
    cache: Literal["off", "mmap", "ram", "gpu"] = "off"  # decode every epoch, or once and keep the samples there
    cache_path: str = "./packed/"  # the folder for the decoded samples
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"  # of the encoder; graphs, loss and weights are fp32
    compile: bool = False  # torch.compile: fused kernels, on a GPU as CUDA graphs; minutes at the start
    accumulation_steps: int = 1  # a batch is computed in so many parts: less memory; batch norm sees the parts
    recompute: bool = False  # gradient checkpointing (arXiv 1604.06174) of the encoder: somewhat less memory, slower
    save_every_steps: int = 0  # above 0: last.pth is written that often within an epoch, too

    def __post_init__(self):
        require(self.batch_size >= 2, "batch_size", "2 or more (batch norm needs two)", self.batch_size)
        require(self.num_epochs >= 1, "num_epochs", "1 or more", self.num_epochs)
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


def load_config(path: str | Path) -> Config:
    """Read and check a `.conf` file. Raises UserError naming the file, the key, what was expected and found."""
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_CONFIG_BYTES + 1)
        if len(text) > MAX_CONFIG_BYTES:
            raise UserError("too large", f"at most {MAX_CONFIG_BYTES} bytes", "more")
        # YAML forbids the tabs that JSON allows between tokens; inside a string none is expected.
        values = yaml.load(text.decode("utf-8-sig").expandtabs(), _Loader)
        return parse(Config, _without_repetitions(values))
    except OSError as error:
        raise UserError(f"cannot read config {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise UserError(f"{path}: not YAML or JSON: {error}") from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _without_repetitions(values: Any) -> Any:
    """`values` less top-level keys that only repeat optim_config; one that differs from it stays, to be refused."""
    optim = values.get("optim_config") if isinstance(values, dict) else None
    if not isinstance(optim, dict):
        return values
    repeated = {key for key, twin in OFFICIAL_REPETITIONS.items() if key in values and values[key] == optim.get(twin)}
    return {key: value for key, value in values.items() if key not in repeated}


def save_config(config: Config, path: str | Path) -> None:
    """Write `config` with every default spelt out, so that `load_config` gives it back."""
    write_text(path, yaml.safe_dump(to_dict(config), sort_keys=False, default_flow_style=None, width=120))


def to_dict(config: Config) -> dict:
    """`config` as plain values (tuples as lists), fit for YAML, JSON and checkpoints."""

    def plain(value):
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list | tuple) else value

    return plain(asdict(config))


class _Loader(yaml.SafeLoader):
    """SafeLoader without aliases (a few nested ones expand to gigabytes) and without repeated keys; reads 1e-4."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"key {key!r} stands twice")
        return super().construct_mapping(node, deep)


# YAML 1.1 reads 1e-4 as a string; JSON and people mean the number.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)
