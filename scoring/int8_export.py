"""An exported model → its int8 copy, with a threshold of its own, refused when the EER moves.

A score set (the dev set's files with their labels) gives the ranges of values, the check and the new threshold.
"""

import logging
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from audio import reading
from audio.chunks import fit
from common.errors import UserError
from common.files import replacing
from common.text_files import read_lines
from metrics.calibration import fit_calibration
from metrics.error_rates import compute_eer
from metrics.scores import BONAFIDE
from scoring.engines import open_exported
from scoring.model_card import ModelCard
from scoring.onnx_export import export_onnx
from scoring.onnx_files import INSTALL, read_exported, write_exported

if TYPE_CHECKING:
    from torch import nn

RANGE_CHUNKS = 32  # chunks that int8 takes the ranges of its values from
MAX_EER_CHANGE = 0.0005


class LabelledFile(NamedTuple):
    """A file of a score set."""

    path: Path
    is_bonafide: bool


def export_int8(model: "nn.Module", card: ModelCard, score_set: Path, path: Path) -> str:
    """Write an int8 file that has passed `check_eer`; returns the sentence about both EERs. Raises UserError.

    Threshold and calibration are fitted to the set anew, because int8 scores differ from fp32 ones.
    """
    files = read_score_set(score_set)
    is_bonafide = np.array([file.is_bonafide for file in files])
    with tempfile.TemporaryDirectory() as folder, replacing(path) as temporary:
        fp32 = Path(folder) / "fp32.onnx"
        export_onnx(model, card, fp32)
        quantise(fp32, files, temporary)
        scores = first_chunk_scores(temporary, files)
        comparison = check_eer(first_chunk_scores(fp32, files), scores, is_bonafide)
        bonafide, spoof = scores[is_bonafide], scores[~is_bonafide]
        fitted = replace(
            card,
            threshold=compute_eer(bonafide, spoof).threshold,
            threshold_source=f"EER point of int8 scores of {score_set.name}",
            calibration=fit_calibration(scores, is_bonafide),
            dev_scores={"bonafide": bonafide.tolist(), "spoof": spoof.tolist()},
        )
        write_exported(temporary.read_bytes(), fitted, "int8", temporary)
    return comparison


def read_score_set(path: str | Path) -> list[LabelledFile]:
    """Lines `path label`; paths are relative to the list's folder. Raises UserError naming the line at fault."""
    files = []
    for number, line in enumerate(read_lines(path), start=1):
        name, _, label = line.strip().rpartition(" ")
        if line.strip() and (not name or label not in ("bonafide", "spoof")):
            raise UserError(f"{path}, line {number}", "a path, then bonafide or spoof", repr(line))
        if name:
            files.append(LabelledFile(Path(path).parent / name.strip(), label == "bonafide"))
    if len({file.is_bonafide for file in files}) < 2:
        raise UserError(f"score set {path}", "bona fide and spoof files", f"{len(files)} files, not of both")
    return files


def quantise(fp32: Path, files: list[LabelledFile], path: Path) -> None:
    """Write an int8 copy of an exported model: its convolutions, with value ranges taken from `files`.

    Raises UserError.
    """
    try:
        import onnx
        from onnxruntime import quantization
    except ImportError as error:
        raise UserError("int8 needs onnx and onnxruntime", INSTALL, error) from error

    exported = read_exported(fp32)
    spread = files[:: max(1, len(files) // RANGE_CHUNKS)][:RANGE_CHUNKS]

    class Chunks(quantization.CalibrationDataReader):
        def __init__(self):
            self.chunks: Iterator = ({"waveforms": _first_chunk(file, exported.nb_samp)} for file in spread)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.chunks, None)

    # AASIST's scores move by 0.4 on average; with the filter bank in int8 too, or with plain minimum and maximum as
    # ranges, by 1 and more. OpenVINO cannot run int8 matrix products in a batch of any size.
    graph = onnx.load(fp32).graph
    learnt = {weight.name for weight in graph.initializer}
    banks = [node.name for node in graph.node if node.op_type == "Conv" and node.input[1] not in learnt]
    convolutions = {"op_types_to_quantize": ["Conv"], "nodes_to_exclude": banks, "per_channel": True}
    logging.disable(logging.WARNING)  # it gives advice to developers
    try:
        quantization.quantize_static(fp32, path, Chunks(), extra_options={"CalibMovingAverage": True}, **convolutions)
    finally:
        logging.disable(logging.NOTSET)
    write_exported(path.read_bytes(), exported.card, "int8", path)


def first_chunk_scores(path: Path, files: list[LabelledFile]) -> np.ndarray:
    """(N,) scores of the files' first chunks by an exported model."""
    engine = open_exported(path)
    return np.array([engine.logits(_first_chunk(file, engine.nb_samp))[0, BONAFIDE] for file in files])


def check_eer(fp32: np.ndarray, int8: np.ndarray, is_bonafide: np.ndarray) -> str:
    """A sentence with both EERs, from scores (N,). Raises UserError when they differ by more than MAX_EER_CHANGE."""
    before, after = (compute_eer(scores[is_bonafide], scores[~is_bonafide]).eer for scores in (fp32, int8))
    eers = f"EER {100 * before:.3f} % in fp32, {100 * after:.3f} % in int8"
    if abs(after - before) > MAX_EER_CHANGE:
        raise UserError(f"not written: {eers}", f"at most {100 * MAX_EER_CHANGE:g} points apart")
    return f"{eers}, scores differ by {np.abs(int8 - fp32).mean():.2f} on average"


def _first_chunk(file: LabelledFile, nb_samp: int) -> np.ndarray:
    """(1, nb_samp): the beginning of the file, which published scores are made from."""
    return fit(reading.read(file.path), nb_samp)[None]
