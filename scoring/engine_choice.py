"""A checkpoint or an exported model → the engine that scores with it, and the model's card."""

import sys
from pathlib import Path

from common.errors import UserError
from common.escaping import printable
from scoring.engines import (
    Engine,
    GuardedEngine,
    TorchEngine,
    fastest_runtime,
    installed_runtimes,
    keep_freed_memory,
    open_exported,
)
from scoring.model_card import ModelCard
from scoring.onnx_export import export_onnx
from scoring.onnx_files import exported_path
from scoring.weights import file_sha256

NVIDIA = Path("/dev/nvidia0")  # exists where a driver has found a GPU


def load_engine(
    path: Path, engine: str = "auto", precision: str = "fp32", device: str = "auto"
) -> tuple[Engine, ModelCard]:
    """The engine for a checkpoint (.pth) or an exported model (.onnx), and the model's card. Raises UserError.

    engine: torch, onnx, openvino or auto. auto takes the fastest one that is ready: on a CPU the checkpoint's exported
    copy if `export.py` has made one, otherwise torch. onnx and openvino make a missing copy first.
    precision: fp32, bf16 or int8; an int8 file stays int8. device: cpu, cuda or auto.
    """
    path = Path(path)
    if path.suffix == ".onnx":
        loaded = GuardedEngine(path, engine, precision, device)
        return loaded, loaded.card
    if engine == "auto":
        engine = _fastest_engine(path, precision, device)
    if engine == "torch":
        return _load_torch(path, precision, device)
    loaded = open_exported(_exported_copy(path, precision), engine, precision, device)
    return loaded, loaded.card.under_name_of(path)


def _fastest_engine(path: Path, precision: str, device: str) -> str:
    """For a checkpoint. The driver's file shows a GPU sooner than torch, which would have to be imported."""
    if precision == "int8":
        return fastest_runtime()
    has_copy = exported_path(file_sha256(path), precision).is_file()
    on_cpu = device == "cpu" or (device == "auto" and not NVIDIA.exists())
    is_ready = has_copy and on_cpu and precision == "fp32" and installed_runtimes()
    return fastest_runtime() if is_ready else "torch"


def _load_torch(path: Path, precision: str, device: str) -> tuple[TorchEngine, ModelCard]:
    from utils import load_model, pick_device, set_precision

    target = pick_device(device)
    set_precision(precision, target)
    if target.type == "cpu":
        keep_freed_memory()
    model, checkpoint = load_model(path)
    return TorchEngine(model, target, precision), ModelCard.of(checkpoint, path)


def _exported_copy(path: Path, precision: str) -> Path:
    """The checkpoint's copy in the cache, made now if it is missing; int8 needs data, so export.py makes it."""
    copy = exported_path(file_sha256(path), precision)
    if not copy.is_file():
        if precision == "int8":
            raise UserError(f"no int8 copy of {path}", f"one made by export.py {path} --int8", "nothing there")
        from utils import load_model

        print(printable(f"note: exporting {path} to {copy}, this once"), file=sys.stderr)
        model, checkpoint = load_model(path)
        export_onnx(model, ModelCard.of(checkpoint, path), copy)
    return copy
