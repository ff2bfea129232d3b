"""Batch norm over a map (arXiv 1502.03167) whose training on a CPU is exact in the channels-last layout too.

torch adds up a channel's values there one by one in float32: at batch 4 the variance of AASIST's first block is 0.5 %
off, and the error grows with the batch. Here torch's kernels add up `VALUES` of each channel at a time, and float64
the pieces. Gradients are those of section 3 of the paper.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

VALUES = 2048  # of a channel in a piece; 64 channels of them stay in a core's cache


class BatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d`, exact in training on a CPU in either layout."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        channels_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
        if not (self.training and channels_last and x.device.type == "cpu") or torch.compiler.is_compiling():
            return super().forward(x)
        y, mean, var = _ExactBatchNorm.apply(x, self.weight, self.bias, self.eps)
        track(self, mean, var, x.numel() // x.shape[1])
        return y


def track(norm: nn.Module, mean: Tensor, var: Tensor, count: int) -> None:
    """Update running statistics as `nn.BatchNorm2d` does, by a batch of `count` values a channel."""
    norm.num_batches_tracked.add_(1)
    momentum = 1 / norm.num_batches_tracked.item() if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean, momentum)
    norm.running_var.lerp_(var * count / (count - 1), momentum)


class _ExactBatchNorm(torch.autograd.Function):
    """x (B, C, H, W) in channels-last → the normalised x, mean and (biased) variance (C,) of the batch."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        parts, unit = pieces(x), (torch.zeros_like(weight), torch.ones_like(weight))
        found = [torch.batch_norm_update_stats(part, *unit, 0.0) for part in parts]
        means, variances = (torch.stack(values).double() for values in zip(*found, strict=True))  # (pieces, C)
        share = means.new_tensor([part.shape[3] for part in parts])[:, None] * x.shape[1] / x.numel()
        mean = (share * means).sum(0)
        var = (share * (variances + (means - mean).square())).sum(0).to(weight.dtype)
        mean = mean.to(weight.dtype)
        ctx.save_for_backward(x, weight, mean, var)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, var)
        return F.batch_norm(x, mean, var, weight, bias, eps=eps), mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor, *_) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, var = ctx.saved_tensors
        backward, rstd = torch.ops.aten.native_batch_norm_backward, torch.rsqrt(var + ctx.eps)
        parts = list(zip(pieces(grad.contiguous(memory_format=torch.channels_last)), pieces(x), strict=True))
        saved = (weight, None, None, mean, rstd, True, ctx.eps)
        found = [backward(part_grad, part, *saved, [False, True, True])[1:] for part_grad, part in parts]
        grad_weight, grad_bias = (torch.stack(v).sum(0, dtype=torch.float64) for v in zip(*found, strict=True))
        # dx = γ/σ · dy + slope · x + offset: the batch's mean and variance depend on x as well.
        count = x.numel() // x.shape[1]
        slope = -(weight * rstd.square() * grad_weight / count)
        offset = -(weight * rstd * grad_bias / count + slope * mean).to(weight.dtype)
        constant = (torch.zeros_like(mean), torch.full_like(mean, 1 - ctx.eps), slope.to(weight.dtype), offset)
        known = (weight, mean, var, None, None, False, ctx.eps)
        result = torch.empty_like(x)
        for part_result, (part_grad, part) in zip(pieces(result), parts, strict=True):
            direct = backward(part_grad, part, *known, [True, False, False])[0]
            torch.add(direct, F.batch_norm(part, *constant, eps=ctx.eps), out=part_result)
        return result, grad_weight.to(weight.dtype), grad_bias.to(weight.dtype), None


def pieces(x: Tensor) -> tuple[Tensor, ...]:
    """(B, C, H, W) in channels-last → views (1, C, 1, at most `VALUES`) of all values in order, in channels-last."""
    return x.permute(0, 2, 3, 1).flatten(0, 2).t()[None, :, None].split(VALUES, dim=3)
