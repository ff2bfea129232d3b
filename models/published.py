"""Checkpoints of other repositories: which detector one holds, told from its tensors' names and shapes, and the names
of its parameters here. docs/models.md says which were proven against what.

Names were read in the authors' model files. Rules hold both ways: `as_published` gives a model its authors' names back.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

Rules = tuple[tuple[str, str], ...]  # (how their names begin, how ours begin); # stands for a number
Weights = Mapping[str, Tensor]

# fairseq's wav2vec 2.0 → transformers'. The second names of a layer here are read only.
_CONV = "feature_extractor.conv_layers.#."
_WEIGHT = "encoder.pos_conv_embed.conv.parametrizations.weight.original"
_ENCODER: Rules = (
    (f"{_CONV}0.", f"{_CONV}conv."),
    (f"{_CONV}2.1.", f"{_CONV}layer_norm."),
    (f"{_CONV}2.", f"{_CONV}layer_norm."),  # the group norm of smaller encoders
    ("layer_norm.", "feature_projection.layer_norm."),
    ("post_extract_proj.", "feature_projection.projection."),
    ("encoder.pos_conv.0.weight_g", f"{_WEIGHT}0"),
    ("encoder.pos_conv.0.weight_v", f"{_WEIGHT}1"),
    ("encoder.pos_conv.0.parametrizations.weight.original", _WEIGHT),  # saved by a newer torch
    ("encoder.pos_conv.0.bias", "encoder.pos_conv_embed.conv.bias"),
    ("encoder.layer_norm.", "encoder.layer_norm."),
    ("encoder.layers.#.self_attn.", "encoder.layers.#.attention."),
    ("encoder.layers.#.self_attn_layer_norm.", "encoder.layers.#.layer_norm."),
    ("encoder.layers.#.fc1.", "encoder.layers.#.feed_forward.intermediate_dense."),
    ("encoder.layers.#.fc2.", "encoder.layers.#.feed_forward.output_dense."),
    ("encoder.layers.#.final_layer_norm.", "encoder.layers.#.final_layer_norm."),
)
_SSL: Rules = tuple((f"ssl_model.model.{theirs}", f"ssl_model.{ours}") for theirs, ours in _ENCODER)
_CONFORMER: Rules = (
    ("conformer.class_token", "class_token"),
    ("conformer.fc5.", "fc5."),
    ("conformer.encoder_blocks.#.ff1.fn.norm.", "blocks.#.ff1.norm."),
    ("conformer.encoder_blocks.#.ff1.fn.fn.net.0.", "blocks.#.ff1.expand."),
    ("conformer.encoder_blocks.#.ff1.fn.fn.net.3.", "blocks.#.ff1.reduce."),
    ("conformer.encoder_blocks.#.ff2.fn.norm.", "blocks.#.ff2.norm."),
    ("conformer.encoder_blocks.#.ff2.fn.fn.net.0.", "blocks.#.ff2.expand."),
    ("conformer.encoder_blocks.#.ff2.fn.fn.net.3.", "blocks.#.ff2.reduce."),
    ("conformer.encoder_blocks.#.attn.norm.", "blocks.#.attention.norm."),
    ("conformer.encoder_blocks.#.attn.fn.", "blocks.#.attention."),
    ("conformer.encoder_blocks.#.conv.net.0.", "blocks.#.convolution.norm."),
    ("conformer.encoder_blocks.#.conv.net.2.", "blocks.#.convolution.expand."),
    ("conformer.encoder_blocks.#.conv.net.4.conv.", "blocks.#.convolution.depthwise."),
    ("conformer.encoder_blocks.#.conv.net.5.", "blocks.#.convolution.bn."),
    ("conformer.encoder_blocks.#.conv.net.7.", "blocks.#.convolution.reduce."),
    ("conformer.encoder_blocks.#.post_norm.", "blocks.#.post_norm."),
)
_NES2NET: Rules = (
    ("Nested_Res2Net_TDNN.Build_in_Res2Nets.#.weighted_sum.", "blocks.#.sums."),
    ("Nested_Res2Net_TDNN.Build_in_Res2Nets.#.se.se.1.", "blocks.#.squeeze."),
    ("Nested_Res2Net_TDNN.Build_in_Res2Nets.#.se.se.3.", "blocks.#.excite."),
    ("Nested_Res2Net_TDNN.Build_in_Res2Nets.#.", "blocks.#."),
    ("Nested_Res2Net_TDNN.", ""),
)
# For masking and pre-training, which take no part in a score.
_PRE_TRAINING = re.compile(
    r"ssl_model\.model\.(mask_emb$|(quantizer|input_quantizer|project_q|project_inp|final_proj)\.)"
)
HEADS = {1280: 16, 1920: 16}  # by the encoder's width, XLS-R 1B and 2B; all others have heads of 64 features

# RawGAT-ST's first version and its present one. Only a first block uses `conv_1`, the later ones only `conv1`.
_RAWGAT_PARTS: Rules = (
    ("encoder1.0.0.conv_1.", "encoder_T.0.0.conv1."),
    ("encoder2.0.0.conv_1.", "encoder_S.0.0.conv1."),
    ("encoder1.", "encoder_T."),
    ("encoder2.", "encoder_S."),
    ("pool1.", "pool_T."),
    ("pool2.", "pool_S."),
    ("pool3.", "pool_ST."),
    ("first_bn.", "first_bn."),
)
RAWGAT_FIRST: Rules = (
    *_RAWGAT_PARTS,
    ("GAT_layer1.", "GAT_layer_T."),
    ("GAT_layer2.", "GAT_layer_S."),
    ("GAT_layer3.", "GAT_layer_ST."),
    ("proj1.", "proj_T."),
    ("proj2.", "proj_S."),
    ("proj.", "proj_ST."),
    ("proj_node.", "out_layer."),
)
RAWGAT: Rules = (
    *_RAWGAT_PARTS,
    ("GAT_layer_spectral.", "GAT_layer_T."),
    ("GAT_layer_temp.", "GAT_layer_S."),
    ("GAT_layer_spectro_temp.", "GAT_layer_ST."),
    ("proj_spectral.", "proj_T."),
    ("proj_temp.", "proj_S."),
    ("proj_spectro_temp.", "proj_ST."),
    ("output_layer.", "out_layer."),
)
NAMES = {  # by architecture
    "RawNetGatSpoofST": RAWGAT,
    "SSL_AASIST": _SSL,
    "SSL_SLS": _SSL,
    "SSL_Conformer": _SSL + _CONFORMER,
    "SSL_Nes2Net": _SSL + _NES2NET,
}


class Published(NamedTuple):
    """A detector of another repository."""

    model_config: dict
    weights: dict[str, Tensor]  # under our names
    unused: dict[str, Tensor]  # under the authors' names; they take no part in a score
    note: str = ""  # what the tensors do not say


def read_published(weights: Weights, path: str = "") -> Published | None:
    """The detector in a bare state dict of another repository; None if it is none of those known here.

    path: of its file, for what the tensors do not tell.
    """
    if "GAT_layer1.att_weight" in weights:
        return _rawgat(weights, RAWGAT_FIRST, path)
    if "GAT_layer_spectral.att_weight" in weights:
        return _rawgat(weights, RAWGAT, path)
    if "fc2_gru.weight" in weights and _is_trained(weights, "bn1"):
        return Published(_rawnet2_of_asvspoof5(), dict(weights), {})
    if "ssl_model.model.post_extract_proj.weight" in weights:
        back_end = next((back_end for name, back_end in _BACK_ENDS.items() if name in weights), None)
        return back_end and _ssl(weights, back_end)
    return None


def as_published(weights: Weights, rules: Rules, unused: Weights | None = None) -> dict[str, Tensor]:
    """Our weights under their authors' names, for their code. rules: `NAMES[architecture]`, or `RAWGAT_FIRST` for
    weights that came from a file of that version.

    unused: the file's own, if the weights come from one. Without them RawGAT-ST gets zeros; what SSL_Anti-spoofing
    keeps of pre-training is left out (`load_state_dict(…, strict=False)`).
    """
    back = [(ours, theirs) for theirs, ours in rules]
    named = {_renamed(name, back) or name: x for name, x in weights.items()}
    if rules is RAWGAT_FIRST:
        named = {name: x for name, x in named.items() if ".0.0.conv_downsample." not in name}
    if unused is None and rules in (RAWGAT, RAWGAT_FIRST):
        later = {name: x for name, x in named.items() if re.match(r"encoder[12]\.[1-9]\d*\.0\.conv1\.", name)}
        unused = {
            name.replace("conv1", "conv_1"): torch.zeros_like(x[:, :1] if x.dim() > 1 else x)
            for name, x in later.items()
        }
    return named | dict(unused or {})


def describe_unknown(weights: Mapping[str, object]) -> str:
    """What a state dict of no known detector seems to be."""
    for part, what in _FAMILIES.items():
        if any(re.search(part, name) for name in weights):
            return what
    return f"{len(weights)} others, such as {next(iter(weights))}" if weights else "none"


def _renamed(name: str, rules: Iterable[tuple[str, str]]) -> str | None:
    """The name by the first rule that fits; None if none does."""
    for old, new in rules:
        if found := re.match(re.escape(old).replace(r"\#", r"(\d+)"), name):
            return new.replace("#", found[1] if found.groups() else "") + name[found.end() :]
    return None


# ------------------------------------------------------------------------------------------------------- RawGAT-ST


def _rawgat(weights: Weights, rules: Rules, path: str) -> Published:
    unused = {name: x for name, x in weights.items() if re.match(r"encoder[12]\.[1-9]\d*\.0\.conv_1\.", name)}
    ours = {_renamed(name, rules) or name: x for name, x in weights.items() if name not in unused}
    c1, c2, c3 = (len(ours[f"encoder_T.{i}.0.conv2.weight"]) for i in (0, 2, 5))
    for encoder in ("encoder_T", "encoder_S"):  # the first version adds the one channel of its input to all others
        if f"{encoder}.0.0.conv_downsample.weight" not in ours:
            same = torch.zeros(c1, 1, 1, 3)
            same[..., 1] = 1
            ours |= {f"{encoder}.0.0.conv_downsample.weight": same}
            ours |= {f"{encoder}.0.0.conv_downsample.bias": torch.zeros(c1)}
    says_add = re.search(r"(?<![a-z])add(?![a-z])", path.lower()) is not None  # RawGAT_ST_add/Best_epoch.pth
    is_cat = ours["GAT_layer_ST.att_proj.weight"].shape[1] == 2 * len(ours["GAT_layer_T.att_weight"])
    fusion = "cat" if is_cat else "add" if says_add else "mul"
    note = f"RawGAT-ST's mul and add have the same tensors: read as {fusion}, by the path (docs/models.md)"
    filts = [70, [1, c1], [c1, c1], [c1, c2], [c3, c3]]
    model_config = {"architecture": "RawNetGatSpoofST", "filts": filts, "fusion": fusion}
    return Published(model_config, ours, unused, "" if is_cat else note)


# --------------------------------------------------------------------------------------------------------- RawNet2


def _is_trained(weights: Weights, norm: str) -> bool:
    """Whether any batch norm of this name has learnt: one that takes no part in the output stays at 1 and 0."""
    start = {".weight": 1, ".bias": 0}
    return any(
        (x != value).any() for name, x in weights.items() for end, value in start.items() if name.endswith(norm + end)
    )


def _rawnet2_of_asvspoof5() -> dict:
    """ASVspoof 5's baseline has the names and shapes of 2021's, but its blocks use `bn1`."""
    filts = [20, [20, 20], [20, 128], [128, 128]]
    return {"architecture": "RawNet2Spoof", "filts": filts, "pre_activation": True}


# ---------------------------------------------------------------------------------------- SSL_Anti-spoofing, and forks


def _ssl(weights: Weights, back_end: Callable[[Weights], dict]) -> Published:
    unused = {name: x for name, x in weights.items() if _PRE_TRAINING.match(name)}
    rules = _SSL + _CONFORMER + _NES2NET
    ours = {_renamed(name, rules) or name: x for name, x in weights.items() if name not in unused}
    encoder = {"encoder_config": _encoder_config(ours), "do_normalize": False}
    return Published(back_end(ours) | encoder, ours, unused)


def _encoder_config(ours: Weights) -> dict:
    """`ssl_encoder.EncoderConfig` of a wav2vec 2.0 encoder, from shapes.

    Not in the shapes: heads of 64 features, the strides, the place of layer norms (which goes with the extractor's).
    """
    shape = {name.removeprefix("ssl_model."): tuple(x.shape) for name, x in ours.items()}
    convolutions = [shape[f"feature_extractor.conv_layers.{i}.conv.weight"] for i in range(_count(ours, "conv_layers"))]
    hidden, per_group, positions = shape[f"{_WEIGHT}1"]
    is_large = "feature_extractor.conv_layers.1.layer_norm.weight" in shape
    return {
        "model_type": "wav2vec2",
        "hidden_size": hidden,
        "num_hidden_layers": _count(ours, "encoder.layers"),
        "num_attention_heads": HEADS.get(hidden, max(1, hidden // 64)),
        "intermediate_size": shape["encoder.layers.0.feed_forward.intermediate_dense.weight"][0],
        "conv_dim": [out for out, _, _ in convolutions],
        "conv_kernel": [kernel for _, _, kernel in convolutions],
        "conv_stride": [5] + [2] * (len(convolutions) - 1),
        "conv_bias": "feature_extractor.conv_layers.0.conv.bias" in shape,
        "num_conv_pos_embeddings": positions,
        "num_conv_pos_embedding_groups": hidden // per_group,
        "feat_extract_norm": "layer" if is_large else "group",
        "do_stable_layer_norm": is_large,
        "hidden_act": "gelu",
        "feat_extract_activation": "gelu",
        "hidden_dropout": 0.0,
        "activation_dropout": 0.0,
        "attention_dropout": 0.0,
        "feat_proj_dropout": 0.0,
        "layer_norm_eps": 1e-5,
        "initializer_range": 0.02,
    }


def _count(weights: Weights, part: str) -> int:
    """How many numbers follow `part.` in names."""
    return len({found[1] for name in weights if (found := re.search(rf"{re.escape(part)}\.(\d+)\.", name))})


def _aasist(weights: Weights) -> dict:
    c1, c2, c3 = (len(weights[f"encoder.{i}.0.conv2.weight"]) for i in (0, 2, 5))
    return {
        "architecture": "SSL_AASIST",
        "layers": "last",
        "filts": [len(weights["LL.weight"]), [1, c1], [c1, c1], [c1, c2], [c3, c3]],
        "gat_dims": [weights["master1"].shape[2], len(weights["HtrgGAT_layer_ST11.att_weightM"])],
        "pool_ratios": [0.5, 0.5, 0.5, 0.5],
        "temperatures": [2.0, 2.0, 100.0, 100.0],
    }


def _sls(weights: Weights) -> dict:
    return {"architecture": "SSL_SLS", "features": len(weights["fc1.weight"])}


def _conformer(weights: Weights) -> dict:
    width, taps = weights["blocks.0.attention.to_q.weight"], weights["blocks.0.convolution.depthwise.weight"]
    return {
        "architecture": "SSL_Conformer",
        "features": width.shape[1],
        "blocks": _count(weights, "blocks"),
        "heads": width.shape[0] // max(1, weights["blocks.0.attention.rel_pos_emb.weight"].shape[1]),
        "kernel_size": taps.shape[2],
    }


def _nes2net(weights: Weights) -> dict:
    """The dilation is not in the shapes; 2 is the authors'."""
    return {
        "architecture": "SSL_Nes2Net",
        "groups": [_count(weights, "blocks") + 1, _count(weights, "blocks.0.convs") + 1],
        "squeeze": len(weights["blocks.0.bn3.weight"]) // max(1, len(weights["blocks.0.squeeze.weight"])),
        "pooling": "attention" if "pooling.linear1.weight" in weights else "mean",
    }


_BACK_ENDS = {  # a name that only this back end has → its model_config, from our names
    "HtrgGAT_layer_ST11.att_weightM": _aasist,
    "fc0.weight": _sls,
    "conformer.class_token": _conformer,
    "Nested_Res2Net_TDNN.fc.weight": _nes2net,
}

# Other detectors and files, by a part of a name.
_FAMILIES = {
    r"^conformer\..*\.A_log$": "XLSR-Mamba, which needs mamba_ssm: it runs in its own repository",
    r"^ssl_model\.model\.": "a fork of SSL_Anti-spoofing with a back end that is not known here",
    r"^(wav2vec2|wavlm|hubert)\.": "a model of transformers; its encoder's folder can be `encoder` in SSL_AASIST.conf",
    r"^post_extract_proj\.": "fairseq's encoder alone, no detector",
    r"^feature_projection\.": "a speech encoder of transformers alone, no detector",
    r"^m_(transform|frontend|lfcc)": "an LCNN of ASVspoof 2021's baselines, which is not known here",
    r"^param_groups$": "the state of an optimizer, no weights",
}
