"""Exported models on disk: an .onnx file with the model's card in its metadata. Nothing here runs a model.

The files come from anywhere, so they are checked before a runtime sees them: their size, their card, the length of
their chunks, and that they refer to no other file.
"""

import hashlib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from common.errors import UserError
from common.memory import read_regular
from scoring.model_card import ModelCard
from scoring.weights import weights_folder

INSTALL = "pip install -r requirements-export.txt"
MAX_BYTES = (1 << 31) - 1  # protobuf's own limit; SSL-AASIST has 1.3e9
MAX_SAMPLES = 16_000 * 60  # of a chunk: a small file may ask for petabytes


class ExportedModel(NamedTuple):
    """The contents of an exported file."""

    data: bytes
    card: ModelCard
    precision: str  # fp32 or int8
    nb_samp: int  # samples of a chunk


def exported_path(sha256: str, precision: str = "fp32") -> Path:
    """Where the exported copy of the checkpoint file with this hash is kept."""
    return weights_folder() / "onnx" / f"{sha256[:16]}{'.int8' if precision == 'int8' else ''}.onnx"


def read_exported(path: str | Path) -> ExportedModel:
    """Read a file without running it. Raises UserError when it is not of `write_exported`, damaged, or may not end."""
    onnx = optional_package("onnx")
    from google.protobuf.message import DecodeError

    try:
        data = read_regular(path, MAX_BYTES)
        model = onnx.load_model_from_string(data)
    except OSError as error:
        raise UserError(f"cannot read checkpoint {path}: {error.strerror}") from error
    except DecodeError as error:
        raise UserError(f"cannot load model {path}", "an ONNX file", error) from error
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if "aasist" not in metadata:
        raise UserError(f"{path} carries no model card", "a file that export.py made", "none in its metadata")
    _require_sound(model, metadata, data, path)
    if any(tensor.data_location == tensor.EXTERNAL for tensor in _tensors(model)):
        raise UserError(f"cannot load model {path}", "all tensors inside", "a reference to another file")
    nb_samp = model.graph.input[0].type.tensor_type.shape.dim[-1].dim_value if model.graph.input else 0
    if not 0 < nb_samp <= MAX_SAMPLES:
        raise UserError(f"cannot load model {path}", f"chunks of 1 to {MAX_SAMPLES} samples", nb_samp)
    return ExportedModel(data, ModelCard.from_json(metadata["aasist"]), metadata.get("precision", "fp32"), nb_samp)


def write_exported(data: bytes, card: ModelCard, precision: str, path: Path) -> None:
    """Write the ONNX model `data` with the card in its metadata."""
    onnx = optional_package("onnx")
    model = onnx.load_model_from_string(data)
    model.ClearField("metadata_props")
    body, facts = model.SerializeToString(), onnx.ModelProto()
    digest = {"body_bytes": str(len(body)), "body_sha256": hashlib.sha256(body).hexdigest()}
    onnx.helper.set_model_props(facts, {"aasist": card.to_json(), "precision": precision} | digest)
    path.write_bytes(body + facts.SerializeToString())  # a reader of such messages joins them


def optional_package(name: str) -> ModuleType:
    """Import a package of requirements-export.txt. Raises UserError when it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        raise UserError(f"the package {name} is missing", INSTALL, error) from error


def _require_sound(model, metadata: dict[str, str], data: bytes, path: str | Path) -> None:
    """Raises UserError when a bit has flipped since `write_exported`, or the graph has loops, which may never end."""
    if "body_sha256" in metadata:  # older files have none
        size = int(metadata["body_bytes"]) if metadata.get("body_bytes", "").isdecimal() else 0
        if hashlib.sha256(data[:size]).hexdigest() != metadata["body_sha256"]:
            raise UserError(f"cannot load model {path}", "the bytes that export.py wrote", "others: it is damaged")
    attributes = (attribute for node in model.graph.node for attribute in node.attribute)
    if model.functions or any(attribute.HasField("g") or attribute.graphs for attribute in attributes):
        raise UserError(f"cannot load model {path}", "a graph without loops, branches and functions", "one with them")


def _tensors(message) -> Iterator:
    """Every tensor anywhere in a protobuf message of ONNX."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for part in [value] if hasattr(value, "ListFields") else value:
            if field.message_type.name == "TensorProto":
                yield part
            else:
                yield from _tensors(part)
