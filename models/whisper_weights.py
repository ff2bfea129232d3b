"""Weights of Whisper's encoder, as they are published, under the names of models/Whisper_Stats.py.

Known are the names of transformers (`model.encoder.…`), OpenAI's own (`encoder.blocks.…`), and those of CTranslate2's
model.bin (as faster-whisper uses it), whose layout is that of its `ModelSpec.save`.
"""

import re
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.errors import UserError

# OpenAI's and CTranslate2's names, in order, → transformers' names. CTranslate2's stacked projections are split before.
RENAMED = {
    r"encoder/": "encoder.",
    r"/": ".",
    r"\bblocks\.": "layers.",
    r"\blayer_(\d+)\b": r"layers.\1",
    r"\.gamma$": ".weight",
    r"\.beta$": ".bias",
    r"\b(attn_ln|self_attention\.layer_norm)\b": "self_attn_layer_norm",
    r"\b(mlp_ln|ffn\.layer_norm)\b": "final_layer_norm",
    r"\battn\.": "self_attn.",
    r"\bself_attention\.linear_1\b": "self_attn.out_proj",
    r"\b(mlp\.0|ffn\.linear_0)\b": "fc1",
    r"\b(mlp\.2|ffn\.linear_1)\b": "fc2",
    r"\.(query|key|value)\.": lambda found: f".{found[1][0]}_proj.",
    r"\.out\.": ".out_proj.",
    r"^.*?encoder\.": "",
}
# Positions are computed; the norm after the last layer belongs to the whole encoder.
UNUSED = re.compile(r"embed_positions|positional_embedding|position_encodings|encoder[./](layer_norm|ln_post)[./]")


def encoder_weights(published: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """The state dict (fp32) of `Whisper_Stats.WhisperEncoder` with the lowest `layers`. Raises UserError."""
    weights = {}
    for name, tensor in _split(published).items():
        if "encoder" in name and not UNUSED.search(name):
            for pattern, replacement in RENAMED.items():
                name = re.sub(pattern, replacement, name)
            number = re.match(r"layers\.(\d+)\.", name)
            if number is None or int(number[1]) < layers:
                weights[name] = tensor.float()
    found = len({name.split(".")[1] for name in weights if name.startswith("layers.")})
    if found < layers or "conv1.weight" not in weights:
        raise UserError("no encoder of Whisper", f"its convolutions and {layers} layers", f"{found} layers")
    return weights


def _split(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """CTranslate2 stacks the query's, key's and value's projections; the key has no bias."""
    tensors = {}
    for name, tensor in published.items():
        if stacked := re.fullmatch(r"(encoder/layer_\d+)/self_attention/linear_0/(weight|bias)", name):
            for part, rows in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                if (part, stacked[2]) != ("key", "bias"):
                    tensors[f"{stacked[1]}/attn/{part}/{stacked[2]}"] = rows
        else:
            tensors[name] = tensor
    return tensors


def is_ctranslate2(path: str | Path) -> bool:
    """Whether a file begins as CTranslate2's model.bin of Whisper does."""
    with open(path, "rb") as file:
        return b"WhisperSpec\0" in file.read(64)


def read_ctranslate2(path: str | Path) -> dict[str, Tensor]:
    """The tensors of CTranslate2's model.bin, float32 and float16 ones. Raises UserError."""
    data, place = memoryview(Path(path).read_bytes()), 0

    def number(form: str) -> int:
        nonlocal place
        (value,) = struct.unpack_from(f"<{form}", data, place)
        place += struct.calcsize(form)
        return value

    def text() -> str:
        nonlocal place
        size = number("H")
        place += size
        return bytes(data[place - size : place - 1]).decode()

    tensors = {}
    try:
        number("I"), text(), number("I")  # version, specification, its revision
        for _ in range(number("I")):
            name = text()
            shape = [number("I") for _ in range(number("B"))]
            kind, size = number("B"), number("I")
            if kind in (0, 4):
                values = np.frombuffer(data[place : place + size], np.float32 if kind == 0 else np.float16)
                tensors[name] = torch.from_numpy(values.reshape(shape).copy())
            place += size
    except (struct.error, UnicodeDecodeError, ValueError) as error:
        raise UserError(
            f"{path} is no model.bin of CTranslate2", "tensors as `ModelSpec.save` writes", error
        ) from error
    return tensors
