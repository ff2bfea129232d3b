"""Architectures: `models/<architecture>.py` defines a class `Model`, and `build_model` finds it by name."""

import math
import sys
from importlib import import_module
from pathlib import Path

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from common.errors import UserError
from common.memory import available_memory

FOLDER = Path(__file__).parent


def architectures() -> list[str]:
    """Possible values of `model_config["architecture"]`; files with a small first letter hold parts of models."""
    return sorted(path.stem for path in FOLDER.glob("[A-Z]*.py"))


def build_model(model_config: dict, most: int | None = None) -> nn.Module:
    """The `Model` of `model_config["architecture"]` with random weights from torch's generator.

    most: elements of all its tensors together; in any case no more than there is memory for.
    Its attribute `model_config` is the given one, to which a model with an encoder adds the encoder's architecture.
    Raises UserError when the architecture is unknown or its configuration is wrong.
    """
    name = model_config.get("architecture")
    if name not in architectures():
        raise UserError("unknown model_config.architecture", f"one of {', '.join(architectures())}", repr(name)[:60])
    with _Budget(min(available_memory() // 4, sys.maxsize if most is None else most)):
        model = import_module(f"models.{name}").Model(model_config)
    model.model_config = getattr(model, "model_config", model_config)
    return model


class _Budget(TorchFunctionMode):
    """Inside `with`, raises UserError before new tensors have more than `most` elements together."""

    MAKERS = (torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn)

    def __init__(self, most: int):
        super().__init__()
        self.most = self.left = most

    def __torch_function__(self, function, types, args=(), kwargs=None):
        """Called by torch in place of each of its functions."""
        if function in self.MAKERS:
            shape = args[0] if args and isinstance(args[0], tuple | list) else args or kwargs["size"]
            self.left -= math.prod(shape)
            if self.left < 0:
                raise UserError("model_config asks for a larger model", f"at most {self.most:,} parameters", "more")
        return function(*args, **kwargs or {})
