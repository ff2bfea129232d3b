"""Run a model by torch, ONNX Runtime or OpenVINO: all give the same logits, at speeds of their own.

`load` picks the engine, `export_onnx` makes the file that the latter two run. Importing torch takes longer than
OpenVINO takes from start to first score (1.2 s), so it is imported only where torch computes.
"""

import ctypes
import importlib.util
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from common.errors import UserError
from common.files import replacing
from scoring.weights import Card, file_sha256, weights_folder

if TYPE_CHECKING:
    from torch import Tensor, nn

INSTALL = "pip install -r requirements-export.txt"
RUNTIMES = {"openvino": "openvino", "onnx": "onnxruntime"}  # engine → package; the fastest first
TOLERANCE = 1e-4  # between an exported model's logits and torch's
NVIDIA = Path("/dev/nvidia0")  # there when a driver has found a GPU
MAX_BYTES = 1 << 30
MAX_SAMPLES = 16_000 * 60  # of a chunk: a small file may ask for petabytes
OPSET = 17


class Engine(Protocol):
    name: str  # torch, onnx, openvino
    precision: str  # fp32, bf16, int8
    device: str  # for people
    nb_samp: int  # samples of a chunk
    batch_size: int  # chunks computed at once

    def logits(self, waveforms: "np.ndarray | Tensor") -> np.ndarray:
        """Float32 chunks (B, nb_samp) → logits (B, 2) float64 of spoof and bona fide, in evaluation mode."""


def load(path: Path, engine: str = "auto", precision: str = "fp32", device: str = "auto") -> tuple[Engine, Card]:
    """The engine for a checkpoint (.pth) or an exported model (.onnx), and the model's card. Raises UserError.

    engine auto: the fastest of those that need no work first; a checkpoint's exported copy counts where `export.py`
    has left one and there is no GPU. The others make that copy when it is missing. precision: fp32, bf16 or int8;
    a file that is int8 stays so. device: cpu, cuda or auto.
    """
    path = Path(path)
    if path.suffix == ".onnx":
        return _load_exported(path, _fastest_runtime() if engine == "auto" else engine, precision, device)
    if engine == "auto":
        engine = _fastest_engine(path, precision, device)
    if engine == "torch":
        return _load_torch(path, precision, device)
    return _load_exported(_exported_copy(path, precision), engine, precision, device)


def exported_path(sha256: str, precision: str = "fp32") -> Path:
    """Where the exported copy of a checkpoint file with this hash is kept."""
    return weights_folder() / "onnx" / f"{sha256[:16]}{'.int8' if precision == 'int8' else ''}.onnx"


def _fastest_engine(path: Path, precision: str, device: str) -> str:
    """For a checkpoint. Whether torch finds a GPU is known only after importing it: a driver's file tells sooner."""
    has_copy = exported_path(file_sha256(path), precision).is_file()
    on_cpu = device == "cpu" or (device == "auto" and not NVIDIA.exists())
    quick = has_copy and on_cpu and precision == "fp32" and any(map(_is_installed, RUNTIMES.values()))
    return _fastest_runtime() if quick or precision == "int8" else "torch"


def _fastest_runtime() -> str:
    for engine, package in RUNTIMES.items():
        if _is_installed(package):
            return engine
    raise UserError("no package runs an exported model", f"OpenVINO or ONNX Runtime ({INSTALL})", "neither")


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _load_torch(path: Path, precision: str, device: str) -> tuple[Engine, Card]:
    from utils import load_model, pick_device, set_precision

    target = pick_device(device)
    set_precision(precision, target)
    if target.type == "cpu":
        keep_freed_memory()
    model, checkpoint = load_model(path)
    return TorchEngine(model, target, precision), Card.of(checkpoint, path)


def _load_exported(path: Path, engine: str, precision: str, device: str) -> tuple[Engine, Card]:
    if engine not in RUNTIMES:
        raise UserError(f"cannot run {path} by {engine}", f"--engine {' or '.join(RUNTIMES)} for .onnx", engine)
    if device.startswith("cuda"):
        raise UserError(f"engine {engine} computes on the CPU", "--device cpu, or --engine torch", device)
    if engine == "openvino":
        loaded = OpenVinoEngine(path, "bf16" if precision == "bf16" else "fp32")
    elif precision == "bf16":
        raise UserError("ONNX Runtime computes no bf16 on a CPU", "--precision fp32 or int8", precision)
    else:
        loaded = OnnxEngine(path)
    if precision == "int8" and loaded.precision != "int8":
        raise UserError(f"{path} is fp32", "a file of export.py --int8", precision)
    return loaded, loaded.card


def _exported_copy(path: Path, precision: str) -> Path:
    """The checkpoint's copy in the cache, made now if it is missing; int8, which needs data, is never made here."""
    copy = exported_path(file_sha256(path), precision)
    if not copy.is_file():
        if precision == "int8":
            raise UserError(f"no int8 copy of {path}", f"export.py {path} --int8 to have made one", "nothing there")
        from utils import load_model

        print(f"note: exporting {path} to {copy}, this once", file=sys.stderr)
        model, checkpoint = load_model(path)
        export_onnx(model, Card.of(checkpoint, path), copy)
    return copy


# ------------------------------------------------------------------------------------------------------------- torch


class TorchEngine:
    """A model of `models/`, which may be in training meanwhile: its mode is left as it was."""

    name = "torch"

    def __init__(self, model: "nn.Module", device: str = "cpu", precision: str = "fp32"):
        import torch

        if precision not in ("fp32", "bf16"):
            raise UserError("torch computes fp32 or bf16", "one of them", precision)
        on_cpu = torch.device(device).type == "cpu"
        # On a CPU convolutions score 1.6 times as fast in this layout; four chunks at a time need 1 GB.
        layout = torch.channels_last if on_cpu else torch.contiguous_format
        self.batch_size = 4 if on_cpu else 64
        self.model = model.to(device, memory_format=layout)
        self.precision, self.nb_samp = precision, model.nb_samp
        self.device = str(next(model.parameters()).device)

    def logits(self, waveforms: "np.ndarray | Tensor") -> np.ndarray:
        import torch

        kind = torch.device(self.device).type

        def compute(x: "Tensor") -> np.ndarray:
            return self.model(x.to(self.device, non_blocking=True))[1].double().cpu().numpy()

        training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode(), torch.autocast(kind, torch.bfloat16, enabled=self.precision == "bf16"):
                return _by_batches(compute, torch.as_tensor(waveforms), self.batch_size)
        finally:
            self.model.train(training)


def _by_batches(compute: Callable, waveforms: "np.ndarray | Tensor", size: int) -> np.ndarray:
    parts = [compute(waveforms[first : first + size]) for first in range(0, len(waveforms), size)]
    return np.concatenate([np.empty((0, 2)), *parts])


def keep_freed_memory() -> None:
    """Have glibc keep what is freed: scoring by torch on a CPU is then twice as fast, for 1.7 times the memory.

    Else every large tensor is mapped anew and the kernel clears its pages. For processes that score and do not train.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt"):
        m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, -1)


# -------------------------------------------------------------------------------------------------------- exported


class Exported(NamedTuple):
    """What an .onnx file of `export_onnx` holds."""

    data: bytes
    card: Card
    precision: str
    nb_samp: int


def read_exported(path: str | Path) -> Exported:
    """Read a file without running it. Raises UserError when it is none of `export_onnx`, or would read other files."""
    onnx = _package("onnx")
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
    return Exported(data, Card.from_json(metadata["aasist"]), metadata.get("precision", "fp32"), nb_samp)


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


class _ExportedEngine:
    """What ONNX Runtime and OpenVINO have in common. The model is given to them as bytes: they open no file."""

    device = "cpu"

    def __init__(self, path: str | Path, threads: int | None):
        self.package = _package(RUNTIMES[self.name])
        self.path = path
        data, self.card, self.precision, self.nb_samp = read_exported(path)
        with self._refusing():
            self._run = self._compile(data, threads or _threads())

    def logits(self, waveforms: "np.ndarray | Tensor") -> np.ndarray:
        with self._refusing():
            return _by_batches(self._run, np.asarray(waveforms, np.float32), self.batch_size)

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # ONNX Runtime's errors share no other base
            reason = str(error).strip().split("\n")[-1][:200]
            raise UserError(f"{self.name} cannot run {self.path}", "a model that export.py made", reason) from error


class OnnxEngine(_ExportedEngine):
    """ONNX Runtime on the CPU."""

    name, batch_size = "onnx", 1  # larger ones are no faster, and take 0.5 GB a chunk

    def __init__(self, path: str | Path, threads: int | None = None):
        super().__init__(path, threads)

    def _compile(self, data: bytes, threads: int) -> Callable[[np.ndarray], np.ndarray]:
        options = self.package.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 4
        session = self.package.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        return lambda x: session.run(None, {session.get_inputs()[0].name: x})[0]


class OpenVinoEngine(_ExportedEngine):
    """OpenVINO on the CPU; bf16 only where the CPU computes it, as OpenVINO would silently compute fp32."""

    name, batch_size = "openvino", 2  # faster than one by one; larger ones take more than 0.5 GB

    def __init__(self, path: str | Path, precision: str = "fp32", threads: int | None = None):
        self.hint = precision
        super().__init__(path, threads)
        self.precision = precision if precision == "bf16" else self.precision

    def _compile(self, data: bytes, threads: int) -> Callable[[np.ndarray], np.ndarray]:
        if self.hint == "bf16" and self.precision == "int8":
            raise UserError(f"{self.path} is int8", "an fp32 model for bf16", "int8")
        core = self.package.Core()
        if self.hint == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise UserError("this CPU computes no bf16", "one with AVX512-BF16 or AMX, or --precision fp32", "neither")
        precision = {"fp32": "f32", "bf16": "bf16"}[self.hint]
        options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision}
        compiled = core.compile_model(core.read_model(data), "CPU", options)
        return lambda x: np.array(compiled([x])[0])


def _package(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise UserError(f"the package {name} is missing", INSTALL, error) from error


def _threads() -> int:
    wish = os.environ.get("OMP_NUM_THREADS", "")
    return int(wish) if wish.isdigit() else os.cpu_count() or 1


# ------------------------------------------------------------------------------------------------------- exporting


def export_onnx(model: "nn.Module", card: Card, path: str | Path) -> float:
    """Write a model that is on the CPU, with its card, as one .onnx file whole or not at all.

    Returns the largest difference of its logits from the model's, by every runtime that is installed. Raises UserError
    when that is above TOLERANCE.
    """
    exported = _trace(model)
    with replacing(path) as temporary:
        write_exported(exported, card, "fp32", temporary)
        difference = largest_difference(model, temporary)
        if not difference <= TOLERANCE:
            raise UserError(f"not written: {path} differs from torch", f"logits within {TOLERANCE:g}", difference)
    return difference


def write_exported(data: bytes, card: Card, precision: str, path: Path) -> None:
    """Write the ONNX model `data` with the card in its metadata."""
    onnx = _package("onnx")
    model = onnx.load_model_from_string(data)
    onnx.helper.set_model_props(model, {"aasist": card.to_json(), "precision": precision})
    path.write_bytes(model.SerializeToString())


def largest_difference(model: "nn.Module", path: str | Path) -> float:
    """Between the logits of `model` and of the exported one at `path`, on `probe`. Raises UserError."""
    installed = [engine for engine, package in RUNTIMES.items() if _is_installed(package)] or [_fastest_runtime()]
    waveforms = probe(model.nb_samp)
    expected = TorchEngine(model).logits(waveforms)
    found = [_load_exported(Path(path), engine, "fp32", "cpu")[0].logits(waveforms) for engine in installed]
    return max(float(np.abs(logits - expected).max()) for logits in found)


def probe(nb_samp: int) -> np.ndarray:
    """(3, nb_samp) float32, always the same: white noise loud and faint, noise with speech's spectrum and syllables."""
    noise = np.random.default_rng(0).standard_normal((3, nb_samp))
    hertz = np.fft.rfftfreq(nb_samp, 1 / 16_000)
    voice = np.fft.irfft(np.fft.rfft(noise[2]) / np.maximum(hertz, 200), nb_samp)
    syllables = np.sin(2 * np.pi * 2 * np.arange(nb_samp) / 16_000) ** 2
    return np.stack([0.3 * noise[0], 0.001 * noise[1], 0.1 * syllables * voice / voice.std()]).astype(np.float32)


def _trace(model: "nn.Module") -> bytes:
    """ONNX by torch's TorchScript exporter: as fast to run as the newer one's, four times as fast to make."""
    import torch

    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, waveforms: "Tensor") -> "Tensor":
            return self.model(waveforms)[1]

    def selu(graph, x):  # OpenVINO fuses Elu and Mul into convolutions; for Selu it has a slow kernel only
        scale = graph.op("Constant", value_t=torch.tensor(1.0507009873554805))
        return graph.op("Mul", graph.op("Elu", x, alpha_f=1.6732632423543772), scale)

    file, names = io.BytesIO(), {"input_names": ["waveforms"], "output_names": ["logits"]}
    axes = {name: {0: "batch"} for name in ("waveforms", "logits")}
    torch.onnx.register_custom_op_symbolic("aten::selu", selu, OPSET)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that this exporter is the old one; that sizes become constants, as meant
            example = torch.zeros(2, model.nb_samp)  # of a batch of one, some sizes would be taken for constants
            torch.onnx.export(
                Logits().eval(), (example,), file, dynamo=False, opset_version=OPSET, dynamic_axes=axes, **names
            )
    finally:
        torch.onnx.unregister_custom_op_symbolic("aten::selu", OPSET)
    return file.getvalue()
