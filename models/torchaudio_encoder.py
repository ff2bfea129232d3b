"""Encoders of torchaudio's pipelines, from PyTorch's own server, as encoders of transformers.

    encoder: torchaudio:WAV2VEC2_XLSR_300M        # in model_config; also WAVLM_*, HUBERT_*, WAV2VEC2_*

pip install -r requirements-torchaudio.txt: torchaudio needs a build of torch for CUDA or macOS, with or without a GPU.
"""

import re
from types import ModuleType

from torch import Tensor, nn

from common.errors import UserError

INSTALL = "pip install -r requirements-torchaudio.txt"
PREFIX = "torchaudio:"


def read_pipeline(name: str) -> tuple[dict[str, Tensor], dict, bool]:
    """Of a pipeline without PREFIX: weights under transformers' names, `EncoderConfig`, whether input is normalised.

    Raises UserError when torchaudio cannot be imported or has no such encoder.
    """
    pipelines = import_torchaudio().pipelines
    bundle = getattr(pipelines, name, None)
    if not isinstance(bundle, pipelines.Wav2Vec2Bundle):
        known = ", ".join(
            key for key in dir(pipelines) if isinstance(getattr(pipelines, key), pipelines.Wav2Vec2Bundle)
        )
        raise UserError(f"torchaudio has no encoder {name}", f"one of {known}", repr(name))
    if bundle.sample_rate != 16_000:
        raise UserError(f"encoder {name} expects another sample rate", "16000 Hz", bundle.sample_rate)
    kind = next((kind for kind in ("wavlm", "hubert") if name.lower().startswith(kind)), "wav2vec2")
    model = bundle.get_model(dl_kwargs={"progress": False})
    return *converted(getattr(model, "model", model), kind), bool(getattr(bundle, "_normalize_waveform", False))


def import_torchaudio() -> ModuleType:
    """Raises UserError; beside a CPU build of torch on x86-64 its import ends in OSError."""
    try:
        import torchaudio
        import torchaudio.pipelines
    except (ImportError, OSError) as error:
        expected = f"{INSTALL}, beside a torch for CUDA or macOS"
        raise UserError("torchaudio cannot be imported", expected, str(error).split("\n")[0][:120]) from error
    return torchaudio


def converted(model: nn.Module, kind: str) -> tuple[dict[str, Tensor], dict]:
    """A `torchaudio.models.Wav2Vec2Model`: its weights under transformers' names, and its `EncoderConfig`."""
    weights = {}
    for name, x in model.state_dict().items():
        name = re.sub(r"^encoder\.(feature_projection)\.", r"\1.", name)
        name = re.sub(r"^encoder\.transformer\.", "encoder.", name)
        name = re.sub(r"\.weight_([gv])$", lambda end: f".parametrizations.weight.original{'gv'.index(end[1])}", name)
        if stacked := re.match(r"(.*\.attention)\.attention\.in_proj_(weight|bias)$", name):  # WavLM
            weights |= {f"{stacked[1]}.{p}_proj.{stacked[2]}": part for p, part in zip("qkv", x.chunk(3), strict=True)}
        elif not name.startswith("aux."):
            weights[name.replace(".attention.attention.", ".attention.")] = x
    return weights, _architecture(model, kind)


def _architecture(model: nn.Module, kind: str) -> dict:
    extractor, transformer = model.feature_extractor.conv_layers, model.encoder.transformer
    first, position = transformer.layers[0], transformer.pos_conv_embed.conv
    more = {}
    if kind == "wavlm":
        more = {"num_buckets": first.attention.num_buckets, "max_bucket_distance": first.attention.max_distance}
    return more | {
        "model_type": kind,
        "hidden_size": position.out_channels,
        "num_hidden_layers": len(transformer.layers),
        "num_attention_heads": first.attention.num_heads,
        "intermediate_size": first.feed_forward.intermediate_dense.out_features,
        "hidden_act": "gelu",
        "hidden_dropout": transformer.dropout.p,
        "activation_dropout": first.feed_forward.intermediate_dropout.p,
        "attention_dropout": 0.0,
        "feat_proj_dropout": model.encoder.feature_projection.dropout.p,
        "layer_norm_eps": 1e-5,
        "initializer_range": 0.02,
        "feat_extract_norm": "group" if extractor[1].layer_norm is None else "layer",
        "feat_extract_activation": "gelu",
        "conv_dim": [layer.conv.out_channels for layer in extractor],
        "conv_stride": [layer.stride for layer in extractor],
        "conv_kernel": [layer.kernel_size for layer in extractor],
        "conv_bias": extractor[0].conv.bias is not None,
        "num_conv_pos_embeddings": position.kernel_size[0],
        "num_conv_pos_embedding_groups": position.groups,
        "do_stable_layer_norm": not transformer.layer_norm_first,
    }
