"""The model of a run: fresh, or with the weights of --init; and whether it can be trained as configured."""

from pathlib import Path

import torch
from torch import nn

from common.errors import UserError
from common.schema import require
from config import Config
from models import build_model
from models.whisper_weights import encoder_weights, is_ctranslate2, read_ctranslate2
from scoring.weights import locate
from utils import load_checkpoint, load_weights

# Keys of model_config that a model with an encoder adds, and those that a detector's authors may have set otherwise.
RESOLVED = frozenset({"encoder_config", "do_normalize", "layers", "fusion", "pre_activation"})


def load_initial(config: Config, weights: str | None) -> nn.Module:
    """The configured model, fresh or with weights (a file, or a name). Raises UserError when they do not fit.

    An encoder is not downloaded when its architecture is stored with the weights. Whisper_Stats also takes Whisper's
    own published weights, for its encoder; the other layers are fresh then.
    """
    if not weights:
        return build_model(config.model_config)
    path = locate(weights)
    checkpoint = {"model": read_ctranslate2(path), "config": None} if is_ctranslate2(path) else load_checkpoint(path)
    encoder_alone = not any(name.startswith("out_layer.") for name in checkpoint["model"])
    if config.model_config["architecture"] == "Whisper_Stats" and encoder_alone:
        model = build_model(config.model_config)
        encoder = encoder_weights(checkpoint["model"], len(model.encoder.layers))
        load_weights(model.encoder, {"model": encoder}, weights)
        return model
    known = (checkpoint["config"] or {}).get("model_config", {})
    same = known.get("encoder") in (None, config.model_config.get("encoder"))  # None: the detector's authors' file
    model = build_model({key: known[key] for key in RESOLVED & known.keys() if same} | config.model_config)
    load_weights(model, checkpoint, weights)
    return model


def weights_to_resume(folder: Path) -> str | None:
    """last.pth, if a run has it: it holds `RESOLVED`, so neither an encoder's folder nor --init is needed again."""
    last = folder / "weights" / "last.pth"
    return str(last) if last.is_file() else None


def require_crops(model: nn.Module, config: Config, processes: int) -> None:
    """Raises UserError when the model cannot be trained on crops of `config.crop_samples` or on so small a batch."""
    at_once, least = config.batch_size // (config.accumulation_steps * processes), getattr(model, "least_batch", 2)
    require(at_once >= least, "batch_size", f"{least} or more in each micro-batch of each process", at_once)
    if config.crop_samples:
        try:
            with torch.random.fork_rng(devices=[]):
                other = build_model(config.model_config | {"nb_samp": config.crop_samples}).state_dict()
        except UserError as error:
            raise UserError(f"crop_samples {config.crop_samples}: {error}") from error
        fit = all(other[name].shape == tensor.shape for name, tensor in model.state_dict().items())
        architecture = config.model_config["architecture"]
        require(fit, "crop_samples", f"null: {architecture} is made for one length of chunk", config.crop_samples)
