"""What a training run stands on: seeds, device, optimizer and schedule, checkpoints, the run's log."""

import hashlib
import io
import json
import math
import os
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cli import UserError, replacing
from config import Config, OptimConfig, load_config
from models import build_model

# On a CPU the kernel clears every large tensor's pages anew, which takes longer than the model; huge pages halve that.
# torch reads this at its first allocation.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

CHECKPOINT_FORMAT = 1
CONFIGS = Path(__file__).parent / "config"


# ---------------------------------------------------------------------------------------------------- determinism


def seed_everything(config: Config) -> None:
    """Seed every generator and set cuDNN as `config` says."""
    random.seed(config.seed)
    np.random.seed(config.seed)  # noqa: NPY002 — what third-party code draws from
    torch.manual_seed(config.seed)
    torch.backends.cudnn.deterministic = config.cudnn_deterministic_toggle
    torch.backends.cudnn.benchmark = config.cudnn_benchmark_toggle


def rng_state() -> dict:
    """State of torch's generators, from which a run goes on with the same dropout and masks."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def set_rng_state(state: dict) -> None:
    torch.set_rng_state(state["cpu"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def pick_device(name: str | torch.device) -> torch.device:
    """`cpu`, `cuda` or `auto` (CUDA when there is one; under torchrun each process has its own).

    Raises UserError when CUDA is asked for and absent.
    """
    if str(name).startswith("cuda") and not torch.cuda.is_available():
        raise UserError("no CUDA device", "a GPU that torch can use, or --device cpu", f"torch {torch.__version__}")
    name = str(name) if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if name == "cuda" else name)


# -------------------------------------------------------------------------------------------------- optimization


def build_optimizer(model: nn.Module, c: OptimConfig) -> torch.optim.Optimizer:
    parameters = [p for p in model.parameters() if p.requires_grad]
    if c.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, lr=c.base_lr, momentum=c.momentum, nesterov=c.nesterov, weight_decay=c.weight_decay
        )
    return torch.optim.Adam(parameters, lr=c.base_lr, betas=c.betas, weight_decay=c.weight_decay, amsgrad=c.amsgrad)


def learning_rate(c: OptimConfig, steps_per_epoch: int, epochs: int) -> Callable[[int], float]:
    """The schedule as a function of the steps done before; it holds no state, so resuming needs none.

    cosine: lr_min + (base − lr_min)/2 · (1 + cos(π·step/steps)); sgdr: the same over cycles of T0·Tmult^k epochs
    (arXiv 1608.03983); multistep: base · lr_decay^(milestones passed); keras_decay: base/(1 + 1e-4·step).
    """

    def annealed(share: float) -> float:
        return c.lr_min + (c.base_lr - c.lr_min) / 2 * (1 + math.cos(math.pi * share))

    def sgdr(step: int) -> float:
        epoch, cycle = step / steps_per_epoch, float(c.T0)
        while epoch >= cycle:
            epoch, cycle = epoch - cycle, cycle * c.Tmult
        return annealed(epoch / cycle)

    return {
        "cosine": lambda step: annealed(step / (steps_per_epoch * epochs)),
        "sgdr": sgdr,
        "multistep": lambda step: c.base_lr * c.lr_decay ** sum(step >= m * steps_per_epoch for m in c.milestones),
        "keras_decay": lambda step: c.base_lr / (1 + 1e-4 * step),
        "none": lambda step: c.base_lr,
    }[c.scheduler]


# --------------------------------------------------------------------------------------------------- checkpoints


def save_checkpoint(path: str | os.PathLike, fields: dict[str, Any]) -> None:
    """Write tensors and plain values whole or not at all; equal fields give equal bytes."""
    with replacing(path) as temporary, temporary.open("wb") as file:  # by name, torch would store the temporary one
        try:
            torch.save({"format": CHECKPOINT_FORMAT, **fields}, file)
        except RuntimeError as error:  # torch's own, over the system's: no space left
            raise UserError(f"cannot write {path}: {error.__context__ or error}") from error


def load_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """A checkpoint of ours, or a bare state dict (as the authors release) as {model: state dict, config: None}.

    Tensors are on the CPU; `sha256` of the file is added. Nothing in the file is executed, and it cannot expand.
    Raises UserError when it is no checkpoint.
    """
    data = _read_stored_zip(path)
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, KeyError, EOFError, TypeError, AttributeError) as error:
        reason = str(error).split("\n")[0][:200]
        raise UserError(f"cannot load checkpoint {path}", "tensors and plain values only", reason) from error
    if not isinstance(content, dict):
        raise UserError(f"cannot load checkpoint {path}", "a dict", type(content).__name__)
    if "format" not in content:
        content = {"model": _plain_names(content), "config": None}
    elif content["format"] != CHECKPOINT_FORMAT or not {"model", "config"} <= content.keys():
        raise UserError(f"checkpoint {path} has another format", CHECKPOINT_FORMAT, content["format"])
    return {**content, "sha256": hashlib.sha256(data).hexdigest()}


def load_model(path: str | os.PathLike) -> tuple[nn.Module, dict[str, Any]]:
    """The model a checkpoint holds, in evaluation mode on the CPU, and the checkpoint. Raises UserError."""
    checkpoint = load_checkpoint(path)
    if checkpoint["config"] is None:
        checkpoint["config"] = {"model_config": recognise(checkpoint["model"], path)}
    model = build_model(checkpoint["config"]["model_config"])
    load_weights(model, checkpoint, path)
    return model.eval(), checkpoint


def load_weights(model: nn.Module, checkpoint: dict[str, Any], path: str | os.PathLike) -> None:
    """Load a checkpoint's weights strictly. Raises UserError naming the first tensor that differs."""
    weights, own = checkpoint["model"], model.state_dict()
    for name in [*own, *weights]:
        found = tuple(weights[name].shape) if isinstance(weights.get(name), torch.Tensor) else "no tensor"
        expected = tuple(own[name].shape) if name in own else "no tensor"
        if found != expected:
            raise UserError(f"checkpoint {path} is of another architecture: {name}", expected, found)
    model.load_state_dict(weights, strict=True)


def recognise(weights: dict[str, Any], path: str | os.PathLike) -> dict:
    """`model_config` of the `config/*.conf` whose model has tensors of these names and shapes. Raises UserError."""
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items() if isinstance(tensor, torch.Tensor)}
    for conf in sorted(CONFIGS.glob("*.conf")):
        model_config = load_config(conf).model_config
        own = build_model(model_config).state_dict()
        if shapes == {name: tuple(tensor.shape) for name, tensor in own.items()}:
            return model_config
    known = ", ".join(conf.stem for conf in sorted(CONFIGS.glob("*.conf")))
    raise UserError(f"checkpoint {path} is of no known architecture", f"tensors of {known}", f"{len(shapes)} others")


def _read_stored_zip(path: str | os.PathLike) -> bytes:
    """The file's bytes, if it is a zip as torch.save writes it: entries stored, so nothing grows when it is read."""
    try:
        data = Path(path).read_bytes()
        entries = zipfile.ZipFile(io.BytesIO(data)).infolist()
    except OSError as error:
        raise UserError(f"cannot read checkpoint {path}: {error.strerror}") from error
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise UserError(f"cannot load checkpoint {path}", "a file of torch.save (zip)", error) from error
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size > len(data) for entry in entries):
        raise UserError(f"cannot load checkpoint {path}", "stored entries as torch.save writes", "compressed ones")
    return data


def _plain_names(weights: dict[str, Any]) -> dict[str, Any]:
    """Names without the `module.` that DataParallel puts before each."""
    return {str(name).removeprefix("module."): tensor for name, tensor in weights.items()}


# ---------------------------------------------------------------------------------------------------------- log


class RunLog:
    """`log.jsonl` (an object per event), `metric_log.txt` (for people) and, when installed, TensorBoard.

    A resumed run passes the sizes that its checkpoint knew; what was logged after them is cut off and done again.
    """

    def __init__(self, folder: Path, sizes: dict[str, int] | None = None):
        self.paths = {"jsonl": folder / "log.jsonl", "text": folder / "metric_log.txt"}
        for name, path in self.paths.items():
            path.touch()
            os.truncate(path, sizes[name] if sizes else 0)
        self.board = _tensorboard(folder)

    def event(self, kind: str, **values: Any) -> None:
        """Append {"event": kind, **values}; numbers also go to TensorBoard at `values["epoch"]`."""
        with self.paths["jsonl"].open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": kind, **values}, allow_nan=False) + "\n")
        for name, value in values.items() if self.board and "epoch" in values else ():
            if isinstance(value, int | float) and name != "epoch":
                self.board.add_scalar(f"{kind}/{name}", value, values["epoch"])

    def line(self, text: str) -> None:
        """Append one line for people."""
        with self.paths["text"].open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    def sizes(self) -> dict[str, int]:
        return {name: path.stat().st_size for name, path in self.paths.items()}


def _tensorboard(folder: Path):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(folder)
