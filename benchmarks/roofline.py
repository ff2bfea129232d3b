"""The roofline of benchmarks/train.py: how fast the device could train if memory or arithmetic were the only limit."""

import argparse
import statistics
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1]))

from config import load_config
from models import build_model
from utils import pick_device, set_precision


def now() -> float:
    """Seconds, after the GPU has finished its work."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds(call) -> float:
    """How long `call()` takes."""
    started = now()
    call()
    return now() - started


def median(visits: list[dict], key: str) -> float:
    """Of all windows of all visits of a row."""
    return statistics.median(rate for visit in visits for rate in visit[key])


class Traffic(TorchDispatchMode):
    """Counts bytes that a model's operations read and write in eager mode, by the child module of the forward pass."""

    HEAVY = ("convolution", "mm", "max_pool")  # everything else could be fused into these

    def __init__(self, model: nn.Module):
        super().__init__()
        self.layers, self.heavy, self.layer = Counter(), 0, "rest"
        for name, module in model.named_modules():
            if name not in ("", "encoder") and name.count(".") <= name.startswith("encoder."):
                module.register_forward_pre_hook(partial(self.enter, name))
                module.register_forward_hook(partial(self.enter, "rest"))

    def enter(self, layer: str, *_) -> None:
        self.layer = layer

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result, name = function(*arguments, **keywords or {}), function.name()
        if not (function.is_view or "empty" in name or "_unsafe_view" in name):
            leaves = tree_leaves((arguments, keywords, result))
            moved = sum(leaf.nbytes for leaf in leaves if isinstance(leaf, torch.Tensor))
            self.layers[self.layer] += moved
            self.heavy += moved if any(word in name for word in self.HEAVY) else 0
        return result


def measure_roofline(args: argparse.Namespace, _row: str) -> dict:
    """What the device can do per second, and what one utterance (of a batch of four) takes."""
    device, side = pick_device(args.device), 8192 if args.on_gpu else 2048

    def median_seconds(call) -> float:
        return statistics.median([seconds(call) for _ in range(11)][1:])

    block = torch.randn(2**28 if args.on_gpu else 2**26, device=device)
    target = torch.empty_like(block)
    result = {"copies": 2 * block.nbytes / median_seconds(lambda: target.copy_(block)), "products": {}}
    for precision in ("fp32", "tf32", "bf16") if args.on_gpu else ("fp32", "bf16"):
        set_precision(precision, device)
        a = torch.randn(side, side, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
        result["products"][precision] = 2 * side**3 / median_seconds(partial(torch.mm, a, a))
    for precision in ("fp32", "bf16"):
        model = build_model(load_config(args.config).model_config).to(device).train()
        x = torch.randn(4, model.nb_samp, device=device)
        with FlopCounterMode(display=False) as flops, Traffic(model) as traffic:
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                loss = model(x)[1].float().sum()
            forward, layers = flops.get_total_flops() / 4, {name: n / 4 for name, n in traffic.layers.items()}
            loss.backward()
        result["flops"] = [forward, flops.get_total_flops() / 4]
        result[precision] = {"layers": layers, "all": traffic.layers.total() / 4, "heavy": traffic.heavy / 4}
    return result


def print_roofline(limits: dict, results: dict) -> None:
    """Print the device's limits as utterances/s, and the fraction of them that each row reaches."""
    products = ", ".join(f"{name} {rate / 1e12:.2f}" for name, rate in limits["products"].items())
    print(f"\nRoofline: copies {limits['copies'] / 1e9:.0f} GB/s (read and written), products {products} TFLOP/s.")
    print("Per utterance: {:.1f} GFLOP forward, {:.1f} with backward.".format(*np.divide(limits["flops"], 1e9)))
    for precision in ("fp32", "bf16"):
        moved, forward = limits[precision], sum(limits[precision]["layers"].values())
        parts = ", ".join(f"{k} {v / 1e6:.0f}" for k, v in moved["layers"].items() if v > forward / 100)
        print(f"Eager {precision} reads and writes {moved['all'] / 1e6:.0f} MB, forward {forward / 1e6:.0f} ({parts});")
        print(f"  with all but convolutions, products and pools fused into these, {moved['heavy'] / 1e6:.0f}.")
    print(f"\n{'utt/s, part of limits':<22}{'train':>8}{'eager bytes':>14}{'fused bytes':>14}{'arithmetic':>14}")
    for row, visits in results.items():
        if "failed" in visits[-1]:
            continue
        precision, rate = row.split("+")[0].replace("plain", "fp32"), median(visits, "train")
        moved = limits["bf16" if precision == "bf16" else "fp32"]
        arithmetic = limits["products"]["tf32" if row == "plain" and "tf32" in limits["products"] else precision]
        most = [limits["copies"] / moved["all"], limits["copies"] / moved["heavy"], arithmetic / limits["flops"][1]]
        print(f"{row:<22}{rate:>8.4g}" + "".join(f"{limit:>8.4g} {rate / limit:>5.1%}" for limit in most))
