"""Self-supervised speech encoders, and what the models built on them share.

The encoder comes from Hugging Face transformers (pip install -r requirements-ssl.txt): wav2vec 2.0 and XLS-R, WavLM or
HuBERT, from a local folder or the hub, or with torchaudio's weights. Checkpoints hold its architecture, so they load
without any of these.

B batch, T samples, N frames (50 a second), H features of the encoder, L its transformer layers.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from common.errors import UserError
from common.schema import parse, require

from .layers import SAMPLE_RATE, fp32
from .torchaudio_encoder import PREFIX, read_pipeline

INSTALL = "pip install -r requirements-ssl.txt"
KINDS = {"wav2vec2": "Wav2Vec2", "wavlm": "WavLM", "hubert": "Hubert"}  # model_type → transformers' classes
MAX_PARAMETERS = 2_500_000_000  # of an encoder; XLS-R 2B, the largest, has 2.16e9
MAX_FRAMES = 3000  # of a chunk (one minute): attention takes memory with their square
# Masking and layer drop help pre-training only. They draw from NumPy's generator, whose state is not in checkpoints,
# and leave parameters without a gradient, for which several processes would wait. An adapter's output is not used.
UNUSED = {"apply_spec_augment": False, "mask_time_prob": 0.0, "mask_feature_prob": 0.0, "layerdrop": 0.0}
UNUSED |= {"add_adapter": False}


@dataclass(frozen=True)
class EncoderKeys:
    """Keys of `model_config` that choose the encoder."""

    encoder: str | None = None  # a local folder, a name on the hub, or torchaudio:PIPELINE
    freeze: bool = False  # train the back end only
    do_normalize: bool | None = None  # chunks to mean 0, variance 1; null: what preprocessor_config.json says
    encoder_config: dict | None = None  # `EncoderConfig`: make this encoder with random weights, read no files

    def __post_init__(self):
        known = self.encoder is not None or self.encoder_config is not None
        require(known, "model_config.encoder", "a folder, a name on the hub, or torchaudio:PIPELINE", self.encoder)


@dataclass(frozen=True)
class EncoderConfig:
    """An encoder's architecture, with the names of transformers' configuration classes."""

    model_type: Literal["wav2vec2", "wavlm", "hubert"]
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: Literal["gelu", "gelu_new", "relu", "selu", "swish"]
    hidden_dropout: float
    activation_dropout: float
    attention_dropout: float
    feat_proj_dropout: float
    layer_norm_eps: float
    initializer_range: float
    feat_extract_norm: Literal["group", "layer"]
    feat_extract_activation: Literal["gelu", "gelu_new", "relu", "selu", "swish"]
    conv_dim: tuple[int, ...]
    conv_stride: tuple[int, ...]
    conv_kernel: tuple[int, ...]
    conv_bias: bool
    num_conv_pos_embeddings: int
    num_conv_pos_embedding_groups: int
    do_stable_layer_norm: bool
    adapter_attn_dim: int | None = None  # wav2vec2
    num_buckets: int = 320  # wavlm
    max_bucket_distance: int = 800  # wavlm
    feat_proj_layer_norm: bool = True  # hubert
    conv_pos_batch_norm: bool = False  # hubert

    def __post_init__(self):
        """Bounds, so that a foreign checkpoint cannot exhaust memory or time."""
        for f in fields(self):
            value = getattr(self, f.name)
            for number in value if isinstance(value, tuple) else [value]:
                if type(number) is int:
                    require(0 < number <= 1 << 16, f"encoder_config.{f.name}", f"1 … {1 << 16}", number)
        layers = max(self.num_hidden_layers, len(self.conv_dim))
        require(layers <= 256, "encoder_config", "at most 256 layers", layers)
        fit = 1 <= len(self.conv_dim) == len(self.conv_stride) == len(self.conv_kernel)
        require(fit, "encoder_config.conv_dim", "as many values as conv_stride and conv_kernel", self.conv_dim)
        require(self.parameters() <= MAX_PARAMETERS, "encoder_config", f"at most {MAX_PARAMETERS:g} parameters", "more")
        # Averaged weights need new statistics in every batch norm, and a frozen encoder would not update its own.
        require(not self.conv_pos_batch_norm, "encoder_config.conv_pos_batch_norm", "false", True)

    def parameters(self) -> int:
        """Parameters in matrices, which are all but a thousandth of the encoder's."""
        h, channels = self.hidden_size, (1, *self.conv_dim)
        layer = 4 * h * h + 2 * h * self.intermediate_size + 2 * h * (self.adapter_attn_dim or 0)
        convolutions = sum(k * a * b for k, a, b in zip(self.conv_kernel, channels, self.conv_dim, strict=False))
        position = h * h * self.num_conv_pos_embeddings // self.num_conv_pos_embedding_groups
        buckets = self.num_buckets * self.num_attention_heads
        return self.num_hidden_layers * layer + convolutions + channels[-1] * h + position + buckets

    def frames(self, samples: int) -> int:
        """N, given T samples."""
        for kernel, stride in zip(self.conv_kernel, self.conv_stride, strict=True):
            samples = max(samples - kernel, -stride) // stride + 1
        return samples


class EncoderModel(nn.Module):
    """A model on a self-supervised encoder, `ssl_model`. Subclasses have `encode` and `classify`.

    The attribute `model_config` adds the encoder's architecture to the given one, for checkpoints.
    """

    def forward(self, x: Tensor, freq_aug: bool = False) -> tuple[Tensor, Tensor]:
        """Waveforms (B, T) at 16 kHz → hidden (B, D), logits (B, 2) of spoof and bona fide.

        Raises UserError with freq_aug: there are no filters to mask.
        """
        require(not freq_aug, "freq_aug", "false: a self-supervised encoder has no filter bank", freq_aug)
        return self.classify(self.encode(x))

    def build_encoder(self, c: EncoderKeys, model_config: dict) -> EncoderConfig:
        """Make `ssl_model` for the parsed `model_config`. Raises UserError when transformers or the encoder is missing.

        c also has `nb_samp`, the samples of a chunk.
        """
        self.nb_samp, self.frozen = c.nb_samp, c.freeze
        self.ssl_model, encoder, self.do_normalize = make_encoder(c)
        resolved = {"do_normalize": self.do_normalize, "encoder_config": _plain(encoder)}
        self.model_config = model_config | resolved
        self.ssl_model.requires_grad_(not c.freeze)
        frames = encoder.frames(c.nb_samp)
        require(3 <= frames <= MAX_FRAMES, "model_config.nb_samp", f"3 … {MAX_FRAMES} frames' samples", c.nb_samp)
        return encoder

    def layers(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """(B, T) → L + 1 layers (B, N, H), and the encoder's output (B, N, H).

        The layers: the projected output of the convolutions, then the output of each transformer block. The encoder's
        output is the last of them, after XLS-R's last layer norm.
        """
        if self.do_normalize:
            x = normalised(x)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            outputs = self.ssl_model(x, output_hidden_states=True)
        return list(outputs.hidden_states), outputs.last_hidden_state

    def train(self, mode: bool = True) -> "EncoderModel":
        """As in torch, but a frozen encoder stays in evaluation mode, without dropout."""
        super().train(mode)
        if self.frozen:
            self.ssl_model.eval()
        return self

    def encoder_parameters(self) -> list[nn.Parameter]:
        """The parameters that `optim_config.encoder_lr` applies to; none if the encoder is frozen."""
        return [p for p in self.ssl_model.parameters() if p.requires_grad]

    def recompute_encoder(self, wanted: bool) -> None:
        """Switch gradient checkpointing of the encoder on or off."""
        if wanted and not self.frozen:
            self.ssl_model.activation_checkpointing_enable({"use_reentrant": False})
        else:
            self.ssl_model.activation_checkpointing_disable()


def normalised(x: Tensor) -> Tensor:
    """(B, T) → (B, T), each waveform with mean 0 and variance 1, as transformers' feature extractor makes it."""
    with fp32(x):
        var, mean = torch.var_mean(x.float(), dim=1, correction=0, keepdim=True)
        return (x - mean) * torch.rsqrt(var + 1e-7)


# -------------------------------------------------------------------------------------------------------- the encoder


def make_encoder(c: EncoderKeys) -> tuple[nn.Module, EncoderConfig, bool]:
    """transformers' model, its architecture, and whether it expects normalised input. Raises UserError."""
    package = _transformers()
    if c.encoder_config is None and c.encoder.startswith(PREFIX):
        with _refusing(f"cannot load encoder {c.encoder}", "a pipeline of torchaudio, and a network to fetch it"):
            weights, values, expects_normalised = read_pipeline(c.encoder.removeprefix(PREFIX))
        architecture = parse(EncoderConfig, values, "encoder_config.")
        model = _class(package, architecture, "Model")(_config(package, architecture))
        model.load_state_dict(weights)
        do_normalize = expects_normalised if c.do_normalize is None else c.do_normalize
    elif c.encoder_config is None:
        with _refusing(
            f"cannot load encoder {c.encoder}", "a folder or a name on the hub, of wav2vec 2.0, WavLM, HuBERT"
        ):
            architecture = _architecture(package, c.encoder)
            model = _pretrained(package, c.encoder, architecture)
            do_normalize = _expects_normalised(package, c.encoder) if c.do_normalize is None else c.do_normalize
    else:
        architecture = parse(EncoderConfig, c.encoder_config, "encoder_config.")
        require(c.do_normalize is not None, "model_config.do_normalize", "true or false with encoder_config", None)
        do_normalize = c.do_normalize
        with _refusing("cannot make the encoder", "an encoder_config that transformers builds"):
            model = _class(package, architecture, "Model")(_config(package, architecture))
    return model, architecture, do_normalize


def _transformers() -> ModuleType:
    try:
        import transformers
    except ImportError as error:
        raise UserError("a self-supervised encoder needs transformers", INSTALL, error) from error
    # It would report every weight of the pre-training heads, which we leave out. Missing weights raise UserError below.
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it reports each of its five attempts
    os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")  # else a thread asks the hub to convert old files
    return transformers


@contextmanager
def _refusing(what: str, expected: str) -> Iterator[None]:
    """Turn any error into a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # errors of transformers, the hub, safetensors and pickle have no other common base
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise UserError(what, expected, reason) from error


def _class(package: ModuleType, architecture: EncoderConfig, kind: str) -> type:
    return getattr(package, KINDS[architecture.model_type] + kind)


def _config(package: ModuleType, architecture: EncoderConfig) -> Any:
    cls = _class(package, architecture, "Config")
    values = {name: value for name, value in _plain(architecture).items() if hasattr(cls, name)}
    return cls(**{name: value for name, value in values.items() if name != "model_type"}, **UNUSED)


def _plain(architecture: EncoderConfig) -> dict:
    return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(architecture).items()}


def _architecture(package: ModuleType, name: str) -> EncoderConfig:
    """The architecture in config.json; missing values are the defaults of transformers' class."""
    found, _ = package.PreTrainedConfig.get_config_dict(name)
    kind = found.get("model_type")
    if kind not in KINDS:
        raise UserError(f"encoder {name} is of no known kind", f"model_type {', '.join(KINDS)}", repr(kind))
    names = {f.name for f in fields(EncoderConfig)} - {"model_type"}
    complete = getattr(package, f"{KINDS[kind]}Config")(**{key: found[key] for key in names & found.keys()})
    values = {key: getattr(complete, key) for key in names if hasattr(complete, key)}
    return parse(EncoderConfig, {"model_type": kind, **values}, "encoder_config.")


def _pretrained(package: ModuleType, name: str, architecture: EncoderConfig) -> nn.Module:
    """The encoder with weights from model.safetensors, else from pytorch_model.bin, which may hold tensors only."""
    model, report = _class(package, architecture, "Model").from_pretrained(
        name, config=_config(package, architecture), dtype=torch.float32, weights_only=True, output_loading_info=True
    )
    if missing := sorted(report["missing_keys"]):
        raise UserError(f"encoder {name} lacks weights", missing[0], f"{len(missing)} missing")
    return model


def _expects_normalised(package: ModuleType, name: str) -> bool:
    """`do_normalize` of preprocessor_config.json, or true. Raises UserError if the encoder is not for 16 kHz."""
    try:
        found, _ = package.Wav2Vec2FeatureExtractor.get_feature_extractor_dict(name)
    except OSError:
        print(f"note: {name} has no preprocessor_config.json: chunks are normalised, the default", file=sys.stderr)
        return True
    rate = found.get("sampling_rate", SAMPLE_RATE)
    if rate != SAMPLE_RATE:
        raise UserError(f"encoder {name} expects another sample rate", f"{SAMPLE_RATE} Hz", rate)
    return bool(found.get("do_normalize", True))
