"""A model → an .onnx file that gives the same logits, checked before it is written."""

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.errors import UserError
from common.files import replacing
from scoring.engines import TorchEngine, fastest_runtime, installed_runtimes, open_exported
from scoring.model_card import ModelCard
from scoring.onnx_files import optional_package, write_exported

if TYPE_CHECKING:
    from torch import Tensor, nn

TOLERANCE = 1e-4  # between an exported model's logits and torch's
OPSET = 17


def export_onnx(model: "nn.Module", card: ModelCard, path: str | Path) -> float:
    """Write a model that is on the CPU, with its card, as one .onnx file, whole or not at all.

    Returns the largest difference between its logits and the model's, over every runtime installed. Raises UserError
    when that exceeds TOLERANCE, or a package is missing.
    """
    optional_package("onnx")  # torch's exporter needs it, too
    exported = _trace(model)
    with replacing(path) as temporary:
        write_exported(exported, card, "fp32", temporary)
        difference = largest_difference(model, temporary)
        if not difference <= TOLERANCE:
            raise UserError(f"not written: {path} differs from torch", f"logits within {TOLERANCE:g}", difference)
    return difference


def largest_difference(model: "nn.Module", path: str | Path) -> float:
    """Between the logits of `model` and of the exported one at `path`, on `probe_waveforms`. Raises UserError."""
    runtimes = installed_runtimes() or [fastest_runtime()]
    waveforms = probe_waveforms(model.nb_samp)
    expected = TorchEngine(model).logits(waveforms)
    found = [open_exported(Path(path), engine).logits(waveforms) for engine in runtimes]
    return max(float(np.abs(logits - expected).max()) for logits in found)


def probe_waveforms(nb_samp: int) -> np.ndarray:
    """(3, nb_samp) float32, always the same: loud and faint white noise, noise with speech's spectrum and syllables."""
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

    def selu(graph, x):  # OpenVINO fuses Elu and Mul into convolutions, but has only a slow kernel for Selu
        scale = graph.op("Constant", value_t=torch.tensor(1.0507009873554805))
        return graph.op("Mul", graph.op("Elu", x, alpha_f=1.6732632423543772), scale)

    file, names = io.BytesIO(), {"input_names": ["waveforms"], "output_names": ["logits"]}
    axes = {name: {0: "batch"} for name in ("waveforms", "logits")}
    torch.onnx.register_custom_op_symbolic("aten::selu", selu, OPSET)
    try:
        with warnings.catch_warnings():
            # The warnings say that this exporter is the old one, and that some sizes become constants, as intended.
            warnings.simplefilter("ignore")
            example = torch.zeros(2, model.nb_samp)  # with a batch of one, more sizes would be taken for constants
            torch.onnx.export(
                Logits().eval(), (example,), file, dynamo=False, opset_version=OPSET, dynamic_axes=axes, **names
            )
    finally:
        torch.onnx.unregister_custom_op_symbolic("aten::selu", OPSET)
    return file.getvalue()
