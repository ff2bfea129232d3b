"""The engines that run a model: torch, ONNX Runtime, OpenVINO. All give the same logits, at different speeds.

`engine_choice.load_engine` picks one for a file. torch takes longer to import than OpenVINO takes from start to first
score (1.2 s), so it is imported only where it computes.
"""

import ctypes
import hashlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from common.errors import UserError
from common.limited import LimitedProcess
from scoring.onnx_files import INSTALL, optional_package, read_exported

if TYPE_CHECKING:
    from torch import Tensor, nn

# What an .onnx file from anywhere may take: bytes, and seconds of processor time to open it and for each batch. Files
# of export.py take a tenth; large ones get more.
GUARDED_MEMORY, GUARDED_SECONDS = 4 << 30, 30
RUNTIMES = {"openvino": "openvino", "onnx": "onnxruntime"}  # engine → package; the fastest first


class Engine(Protocol):
    name: str  # torch, onnx, openvino
    precision: str  # fp32, bf16, int8
    device: str  # cpu, cuda:0, …
    nb_samp: int  # samples of a chunk
    batch_size: int  # chunks computed at once

    def logits(self, waveforms: "np.ndarray | Tensor") -> np.ndarray:
        """Float32 chunks (B, nb_samp) → logits (B, 2) float64 of spoof and bona fide, in evaluation mode."""


MOST_CHANGE = 0.3  # of a score by bf16 in OpenVINO


class TorchEngine:
    """A model of `models/`. It may be in training: each call restores its mode."""

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


def keep_freed_memory() -> None:
    """Make glibc keep freed memory: torch then scores twice as fast on a CPU, with 1.7 times the memory.

    Otherwise every large tensor is mapped anew and the kernel clears its pages. Only for processes that do not train.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt"):
        m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, -1)


def hum(samples: int) -> np.ndarray:
    """(1, samples) float32 of harmonics up to 3.4 kHz and nothing above, as a telephone leaves of a voice."""
    time = np.arange(samples) / 16_000
    harmonics = sum(np.sin(2 * np.pi * 120 * k * time + k**2) / k for k in range(1, 29))
    return (0.05 * np.abs(np.sin(4 * time)) * harmonics).astype(np.float32)[None]


class _ExportedEngine:
    """The common part of ONNX Runtime and OpenVINO. The model reaches them as bytes, so they open no file."""

    device = "cpu"

    def __init__(self, path: str | Path, threads: int | None):
        self.package = optional_package(RUNTIMES[self.name])
        self.path = path
        data, self.card, self.precision, self.nb_samp = read_exported(path)
        self.sha256 = hashlib.sha256(data).hexdigest()
        with self._user_errors():
            self._run = self._compile(data, threads or _threads())

    def logits(self, waveforms: "np.ndarray | Tensor") -> np.ndarray:
        with self._user_errors():
            return _by_batches(self._run, np.asarray(waveforms, np.float32), self.batch_size)

    @contextmanager
    def _user_errors(self) -> Iterator[None]:
        """Turn any error of the runtime into a UserError: the file is at fault."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # ONNX Runtime's errors have no other common base
            reason = str(error).strip().split("\n")[-1][:200]
            raise UserError(f"{self.name} cannot run {self.path}", "a model that export.py made", reason) from error


class OnnxEngine(_ExportedEngine):
    """ONNX Runtime on the CPU."""

    name, batch_size = "onnx", 1  # larger batches are no faster, and take 0.5 GB a chunk

    def __init__(self, path: str | Path, threads: int | None = None):
        super().__init__(path, threads)

    def _compile(self, data: bytes, threads: int) -> Callable[[np.ndarray], np.ndarray]:
        options = self.package.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 4
        session = self.package.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        return lambda x: session.run(None, {session.get_inputs()[0].name: x})[0]


class OpenVinoEngine(_ExportedEngine):
    """OpenVINO on the CPU. bf16 is refused on a CPU without it, where OpenVINO would silently compute fp32.

    It is refused, too, for a model whose scores it changes: OpenVINO computes all in it, torch no Fourier transforms.
    """

    name, batch_size = "openvino", 2  # faster than one by one; larger batches take more than 0.5 GB

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

        def compiled(precision: str) -> Callable[[np.ndarray], np.ndarray]:
            options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision}
            model = core.compile_model(core.read_model(data), "CPU", options)
            return lambda x: np.array(model([x])[0])

        exact = compiled("f32")
        if self.hint == "fp32":
            return exact
        coarse, x = compiled("bf16"), hum(self.nb_samp)
        change = float(np.abs(coarse(x) - exact(x)).max())
        if change > MOST_CHANGE:
            wanted = f"scores that it changes by up to {MOST_CHANGE}; use --precision fp32, or --engine torch"
            raise UserError(f"OpenVINO's bf16 is too coarse for {self.path}", wanted, f"{change:.1f}")
        return coarse


def open_exported(
    path: Path, engine: str = "auto", precision: str = "fp32", device: str = "auto"
) -> OnnxEngine | OpenVinoEngine:
    """The engine for an .onnx file; auto: the fastest one installed. Raises UserError."""
    engine = fastest_runtime() if engine == "auto" else engine
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
    return loaded


class GuardedEngine:
    """The engine of an .onnx file from anywhere, in a process of its own: such a file is a program of any length."""

    FACTS = ("name", "precision", "device", "nb_samp", "batch_size", "card", "sha256")

    def __init__(self, path: Path, engine: str, precision: str, device: str):
        size = path.stat().st_size if path.is_file() else 0
        bounds = {"memory": GUARDED_MEMORY + 8 * size, "seconds": GUARDED_SECONDS + (size >> 23)}
        self._process = LimitedProcess(open_exported, path, engine, precision, device, facts=self.FACTS, **bounds)
        vars(self).update(self._process.facts)

    def logits(self, waveforms: "np.ndarray | Tensor") -> np.ndarray:
        chunks = np.asarray(waveforms, np.float32)
        return _by_batches(lambda batch: self._process.call("logits", batch), chunks, self.batch_size)


def installed_runtimes() -> list[str]:
    """Engines that can run an exported model here, the fastest first."""
    return [engine for engine, package in RUNTIMES.items() if importlib.util.find_spec(package) is not None]


def fastest_runtime() -> str:
    """Raises UserError when none is installed."""
    if not (installed := installed_runtimes()):
        raise UserError("no package runs an exported model", f"OpenVINO or ONNX Runtime ({INSTALL})", "neither")
    return installed[0]


def _by_batches(compute: Callable, waveforms: "np.ndarray | Tensor", size: int) -> np.ndarray:
    batches = [compute(waveforms[first : first + size]) for first in range(0, len(waveforms), size)]
    return np.concatenate([np.empty((0, 2)), *batches])


def _threads() -> int:
    requested = os.environ.get("OMP_NUM_THREADS", "")
    return int(requested) if requested.isdecimal() else os.cpu_count() or 1
