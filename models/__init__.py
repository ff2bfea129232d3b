"""Architectures: `models/<architecture>.py` defines a class `Model`, and `build_model` finds it by name."""

from importlib import import_module
from pathlib import Path

from torch import nn

from common.errors import UserError

FOLDER = Path(__file__).parent


def architectures() -> list[str]:
    """Possible values of `model_config["architecture"]`; files with a small first letter hold parts of models."""
    return sorted(path.stem for path in FOLDER.glob("[A-Z]*.py"))


def build_model(model_config: dict) -> nn.Module:
    """The `Model` of `model_config["architecture"]` with random weights from torch's generator.

    Its attribute `model_config` is the given one, to which a model with an encoder adds the encoder's architecture.
    Raises UserError when the architecture is unknown or its configuration is wrong.
    """
    name = model_config.get("architecture")
    if name not in architectures():
        raise UserError("unknown model_config.architecture", f"one of {', '.join(architectures())}", repr(name))
    model = import_module(f"models.{name}").Model(model_config)
    model.model_config = getattr(model, "model_config", model_config)
    return model
