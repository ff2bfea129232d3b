"""Architectures: `models/<architecture>.py` defines a class `Model`, and `build_model` finds it by name."""

from importlib import import_module
from pathlib import Path

from torch import nn

from common.errors import UserError

FOLDER = Path(__file__).parent


def architectures() -> list[str]:
    """Possible values of `model_config["architecture"]`."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in ("__init__", "layers"))


def build_model(model_config: dict) -> nn.Module:
    """The `Model` of `model_config["architecture"]` with random weights from torch's generator.

    Raises UserError when the architecture is unknown or its configuration is wrong.
    """
    name = model_config.get("architecture")
    if name not in architectures():
        raise UserError("unknown model_config.architecture", f"one of {', '.join(architectures())}", repr(name))
    return import_module(f"models.{name}").Model(model_config)
