"""Exported models on disk: an .onnx file with the model's card in its metadata. Nothing here runs a model.

The files come from anywhere, so they are checked before a runtime sees them: their size, their card, the length of
their chunks, and that they refer to no other file.
"""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from common.errors import UserError
from scoring.model_card import ModelCard
from scoring.weights import weights_folder

INSTALL = "pip install -r requirements-export.txt"
MAX_BYTES = 1 << 30
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
    """Read a file without running it. Raises UserError when it is not of `write_exported`, or needs other files."""
    onnx = optional_package("onnx")
    from google.protobuf.message import DecodeError

    try:
        if Path(path).stat().st_size > MAX_BYTES:
            raise UserError(f"cannot load model {path}", f"at most {MAX_BYTES} bytes", "more")
        data = Path(path).read_bytes()
        model = onnx.load_model_from_string(data)
    except OSError as error:
        raise UserError(f"cannot read checkpoint {path}: {error.strerror}") from error
    except DecodeError as error:
        raise UserError(f"cannot load model {path}", "an ONNX file", error) from error
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    if "aasist" not in metadata:
        raise UserError(f"{path} carries no model card", "a file that export.py made", "none in its metadata")
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
    onnx.helper.set_model_props(model, {"aasist": card.to_json(), "precision": precision})
    path.write_bytes(model.SerializeToString())


def optional_package(name: str) -> ModuleType:
    """Import a package of requirements-export.txt. Raises UserError when it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        raise UserError(f"the package {name} is missing", INSTALL, error) from error


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
