"""Optimizer, learning-rate schedule and the training step, with every option of the configuration.

`Stepper.__call__` is one step, from top to bottom: clipping, sharpness-aware minimization, the mean over steps.
`Stepper._gradient` computes the gradient: precision, compiling, micro-batches, several processes.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from common.schema import require
from config import Config, OptimConfig
from models.batch_norm import track
from models.layers import Recomputable, statistics_kept
from training.losses import build_loss

# ------------------------------------------------------------------------------------------------------ the optimizer


def build_optimizer(model: nn.Module, c: OptimConfig) -> torch.optim.Optimizer:
    """Adam or SGD over all parameters that are trained; on a GPU one kernel updates them all.

    With `encoder_lr` the parameters of a self-supervised encoder are a second group. Its key `share` is the factor
    between its learning rate and the schedule's; last.pth stores it. Raises UserError if no encoder is trained.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    options = {"lr": c.base_lr, "weight_decay": c.weight_decay, "fused": parameters[0].is_cuda}
    if c.encoder_lr is not None:
        encoder = model.encoder_parameters() if hasattr(model, "encoder_parameters") else []
        require(len(encoder) > 0, "optim_config.encoder_lr", "null: no encoder is learnt", c.encoder_lr)
        own = {id(p) for p in encoder}
        rest = {"params": [p for p in parameters if id(p) not in own]}
        parameters = [rest, {"params": encoder, "share": c.encoder_lr / c.base_lr}]
    if c.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=c.momentum, nesterov=c.nesterov, **options)
    return torch.optim.Adam(parameters, betas=c.betas, amsgrad=c.amsgrad, **options)


def learning_rate(c: OptimConfig, steps_per_epoch: int, epochs: int) -> Callable[[int], float]:
    """The learning rate as a function of the number of steps done before. It has no state to save.

    cosine: lr_min + (base − lr_min)/2 · (1 + cos(π·step/steps)); sgdr: the same over cycles of T0·Tmult^k epochs
    (arXiv 1608.03983); multistep: base · lr_decay^(milestones passed); keras_decay: base/(1 + 1e-4·step).
    In a warm-up of w steps, step k has (k + 1)/w of this.
    """

    def annealed(fraction: float) -> float:
        return c.lr_min + (c.base_lr - c.lr_min) / 2 * (1 + math.cos(math.pi * fraction))

    def sgdr(step: int) -> float:
        epoch, cycle = step / steps_per_epoch, float(c.T0)
        while epoch >= cycle:
            epoch, cycle = epoch - cycle, cycle * c.Tmult
        return annealed(epoch / cycle)

    schedule = {
        "cosine": lambda step: annealed(step / (steps_per_epoch * epochs)),
        "sgdr": sgdr,
        "multistep": lambda step: c.base_lr * c.lr_decay ** sum(step >= m * steps_per_epoch for m in c.milestones),
        "keras_decay": lambda step: c.base_lr / (1 + 1e-4 * step),
        "none": lambda step: c.base_lr,
    }[c.scheduler]
    warmup = max(1.0, c.warmup_epochs * steps_per_epoch)
    return lambda step: min(1.0, (step + 1) / warmup) * schedule(step)


# ----------------------------------------------------------------------------------------------------------- the step


class Stepper:
    """Updates the weights of `model`, which is on its device already. The names in `model.state_dict()` do not change.

    processes: how many train together; each calls with its part of the batch.
    """

    def __init__(self, model: nn.Module, config: Config, steps_per_epoch: int, processes: int = 1):
        self.model, self.config, self.processes = model, config, processes
        self.device = next(model.parameters()).device
        for block in model.modules():
            if isinstance(block, Recomputable):
                block.recompute = config.recompute
        if hasattr(model, "recompute_encoder"):
            model.recompute_encoder(config.recompute)
        if processes > 1:
            synchronise_batch_norm(model)
        self.trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = build_optimizer(model, config.optim_config)
        self.schedule = learning_rate(config.optim_config, steps_per_epoch, config.num_epochs)
        self.loss = build_loss(config, self.device)
        self.ema = copy.deepcopy(model) if config.ema_decay else None
        # CPUs train faster in channels-last; not compiled, and batch norms over several processes would be slow in it.
        fast = self.device.type == "cpu" and processes == 1 and not config.compile
        self.layout = torch.channels_last if fast else torch.contiguous_format
        self.network = model
        if processes > 1:
            self.network = nn.parallel.DistributedDataParallel(model)
        if config.compile:
            self.network = compiled(self.network, graphs=processes == 1)

    def __call__(self, micro_batches: Sequence[tuple[Tensor, Tensor]], weight: float, step: int) -> Tensor:
        """One update; returns this process's part of the batch's loss, a scalar on the device.

        micro_batches: (m, samples), (m,). weight: sum of class weights over the whole batch, of all processes.
        step: number of updates before.
        """
        c = self.config.optim_config
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule(step) * group.get("share", 1.0)
        loss = self._gradient(micro_batches, weight)
        if c.sam_rho:
            with uphill(self.trained, c.sam_rho), statistics_kept(self.model):
                self._gradient(micro_batches, weight)
        if c.max_grad_norm:
            nn.utils.clip_grad_norm_(self.trained, c.max_grad_norm)
        self.optimizer.step()
        if self.ema is not None:
            follow(self.ema, self.model, min(self.config.ema_decay, (1 + step) / (10 + step)))
        return loss

    def _gradient(self, micro_batches: Sequence[tuple[Tensor, Tensor]], weight: float) -> Tensor:
        """Set the parameters' gradients to those of the whole batch; returns this process's part of its loss."""
        self.optimizer.zero_grad()
        total = torch.zeros((), device=self.device)
        for number, (x, y) in enumerate(micro_batches, start=1):
            x, y = x.to(self.device, non_blocking=True), y.to(self.device, non_blocking=True)
            with self._exchange(number == len(micro_batches)):
                loss = self._loss(x, y) / weight
                (loss * self.processes).backward()  # DDP averages the gradients of the processes; their sum is wanted
            total += loss.detach()
        return total

    def _loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The loss of x (m, samples), y (m,), weighted by class and summed over the utterances."""
        c = self.config
        if c.compile and self.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=c.precision == "bf16"):
            _, logits = self.network(x, freq_aug=c.freq_aug)
        return self.loss(logits.float(), y)

    def _exchange(self, last: bool):
        """Several processes exchange gradients once per batch, with the last micro-batch."""
        return nullcontext() if last or self.processes == 1 else self.network.no_sync()

    def state_dict(self) -> dict:
        """All that resuming needs besides the weights of the model."""
        return {"optimizer": self.optimizer.state_dict(), "ema": self.ema.state_dict() if self.ema else None}

    def load_state_dict(self, state: dict) -> None:
        """Raises KeyError, TypeError or ValueError when `state` is not of this configuration and these parameters."""
        own = [dict(group) for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, expected in zip(self.optimizer.param_groups, own, strict=True):
            if any(group[key] != expected[key] for key in expected.keys() - {"params", "lr", "fused"}):
                raise ValueError("another optimizer")
        for parameter, moments in self.optimizer.state.items():
            if any(getattr(x, "shape", None) not in (parameter.shape, torch.Size()) for x in moments.values()):
                raise ValueError("an optimizer of other parameters")
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])


def compiled(model: nn.Module, graphs: bool = True) -> nn.Module:
    """torch.compile; on a GPU with CUDA `graphs`, since batches keep their shape.

    graphs: false for several GPUs, whose exchange of gradients a graph cannot record.
    """
    graphs = graphs and next(model.parameters()).is_cuda
    return torch.compile(model, mode="reduce-overhead" if graphs else "default")


@contextmanager
def uphill(parameters: Sequence[nn.Parameter], rho: float) -> Iterator[None]:
    """Move the weights by `rho` along their gradient inside `with`, then back to exactly where they were.

    The gradient there is that of sharpness-aware minimization (arXiv 2010.01412, equations 2 and 3).
    """
    moved = [p for p in parameters if p.grad is not None]
    before = [p.detach().clone() for p in moved]
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(p.grad) for p in moved]))
    with torch.no_grad():
        for p in moved:
            p.add_(rho * p.grad / (norm + 1e-12))
    yield
    with torch.no_grad():
        for p, old in zip(moved, before, strict=True):
            p.copy_(old)


@torch.no_grad()
def follow(mean: nn.Module, model: nn.Module, decay: float) -> None:
    """mean ← decay · mean + (1 − decay) · model, for weights and batch norm statistics."""
    for old, new in zip(mean.state_dict().values(), model.state_dict().values(), strict=True):
        if old.is_floating_point():
            old.lerp_(new, 1 - decay)
        else:
            old.copy_(new)


# -------------------------------------------------------------------------------------------------- several processes


def synchronise_batch_norm(model: nn.Module) -> None:
    """Make batch norms in training use the batches of all processes together, as one process would."""
    if next(model.parameters()).is_cuda:
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return
    for norm in model.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            norm.__class__ = SyncBatchNorm


class SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """`nn.SyncBatchNorm` for the CPU, which torch does not have; each process has an equal part of the batch."""

    def _check_input_dim(self, x: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, …) → the same shape."""
        if not self.training:
            return super().forward(x)
        var, mean = torch.var_mean(x.float(), [0, *range(2, x.dim())], correction=0)  # (C,)
        whole_mean = _MeanOverProcesses.apply(mean)
        var = _MeanOverProcesses.apply(var + (mean - whole_mean) ** 2)
        count = torch.distributed.get_world_size() * x.numel() // x.shape[1]
        track(self, whole_mean.detach(), var.detach(), count)
        scale = self.weight * torch.rsqrt(var + self.eps)
        shape = [1, -1] + [1] * (x.dim() - 2)
        return (x * scale.view(shape) + (self.bias - whole_mean * scale).view(shape)).to(x.dtype)


class _MeanOverProcesses(torch.autograd.Function):
    """The mean of a tensor over all processes; the backward pass is the mean of the gradients."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        x = x.clone()
        torch.distributed.all_reduce(x)
        return x / torch.distributed.get_world_size()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return _MeanOverProcesses.apply(gradient)
