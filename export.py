"""Export a checkpoint to ONNX, by which a CPU scores faster than by torch, and starts without importing it.

    python export.py AASIST
    python export.py exp_result/LA_AASIST_ep100_bs24/weights/swa.pth --onnx swa.onnx
    python export.py AASIST --int8 --score_set dev.txt

By default the file goes where `--engine auto` looks for it. It carries the model's card: threshold, origin, …
Nothing is written when logits differ from torch's by more than 1e-4 or int8 moves the EER by more than 0.05 points.
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
from common.command import Parser, run
from common.errors import UserError
from common.files import replacing
from metrics.calibration import fit_calibration
from metrics.error_rates import compute_eer
from metrics.scores import BONAFIDE
from scoring.engines import export_onnx, exported_path, load, read_exported, write_exported
from scoring.weights import KNOWN, Card, locate

if TYPE_CHECKING:
    from torch import nn

CALIBRATED_ON = 32  # chunks from which int8 takes the ranges of its values
MAX_EER_CHANGE = 0.0005


class Labelled(NamedTuple):
    """A file of a score set."""

    path: Path
    is_bonafide: bool


def read_score_set(path: str | Path) -> list[Labelled]:
    """Lines `path label`, paths from the list's own folder. Raises UserError naming the line at fault."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read score set {path}", "a text file", error) from error
    files = []
    for number, line in enumerate(lines, start=1):
        name, _, label = line.strip().rpartition(" ")
        if line.strip() and (not name or label not in ("bonafide", "spoof")):
            raise UserError(f"{path}, line {number}", "a path, then bonafide or spoof", repr(line))
        if name:
            files.append(Labelled(Path(path).parent / name.strip(), label == "bonafide"))
    if len({file.is_bonafide for file in files}) < 2:
        raise UserError(f"score set {path}", "bona fide and spoof files", f"{len(files)} files, not of both")
    return files


def chunk(file: Labelled, nb_samp: int) -> np.ndarray:
    """(1, nb_samp): a file's beginning, from which scores are made."""
    return fit(reading.read(file.path), nb_samp)[None]


def quantise(fp32: Path, files: list[Labelled], path: Path) -> None:
    """Write an int8 copy of an exported model: its convolutions, with ranges taken from `files`.

    Raises UserError.
    """
    try:
        import onnx
        from onnxruntime import quantization
    except ImportError as error:
        raise UserError("int8 needs onnx and onnxruntime", "pip install -r requirements-export.txt", error) from error

    exported = read_exported(fp32)
    spread = files[:: max(1, len(files) // CALIBRATED_ON)][:CALIBRATED_ON]

    class Chunks(quantization.CalibrationDataReader):
        def __init__(self):
            self.chunks: Iterator = ({"waveforms": chunk(file, exported.nb_samp)} for file in spread)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.chunks, None)

    # Scores of AASIST move by 0.4 on average; with the filter bank or by the plain extremes of values, by 1 and more.
    # OpenVINO cannot run int8 products of matrices in a batch of any size.
    graph = onnx.load(fp32).graph
    learnt = {weight.name for weight in graph.initializer}
    banks = [node.name for node in graph.node if node.op_type == "Conv" and node.input[1] not in learnt]
    convolutions = {"op_types_to_quantize": ["Conv"], "nodes_to_exclude": banks, "per_channel": True}
    logging.disable(logging.WARNING)  # advice to the developer
    quantization.quantize_static(fp32, path, Chunks(), extra_options={"CalibMovingAverage": True}, **convolutions)
    logging.disable(logging.NOTSET)
    write_exported(path.read_bytes(), exported.card, "int8", path)


def score(path: Path, files: list[Labelled]) -> np.ndarray:
    """(N,) scores of the files by an exported model."""
    engine = load(path)[0]
    return np.array([engine.logits(chunk(file, engine.nb_samp))[0, BONAFIDE] for file in files])


def check_eer(fp32: np.ndarray, int8: np.ndarray, is_bonafide: np.ndarray) -> str:
    """Both EERs for people, from scores (N,). Raises UserError when they differ by more than MAX_EER_CHANGE."""
    before, after = (compute_eer(scores[is_bonafide], scores[~is_bonafide]).eer for scores in (fp32, int8))
    told = f"EER {100 * before:.3f} % in fp32, {100 * after:.3f} % in int8"
    if abs(after - before) > MAX_EER_CHANGE:
        raise UserError(f"not written: {told}", f"at most {100 * MAX_EER_CHANGE:g} points apart")
    return f"{told}, scores differ by {np.abs(int8 - fp32).mean():.2f} on average"


def export_int8(model: "nn.Module", card: Card, score_set: Path, path: Path) -> str:
    """Write an int8 file that has passed `check_eer`; returns what that tells. Raises UserError.

    Its threshold and calibration are fitted to the set anew: scores of int8 are others than those of fp32.
    """
    files = read_score_set(score_set)
    is_bonafide = np.array([file.is_bonafide for file in files])
    with tempfile.TemporaryDirectory() as folder, replacing(path) as temporary:
        fp32 = Path(folder) / "fp32.onnx"
        export_onnx(model, card, fp32)
        quantise(fp32, files, temporary)
        scores = score(temporary, files)
        told = check_eer(score(fp32, files), scores, is_bonafide)
        bonafide, spoof = scores[is_bonafide], scores[~is_bonafide]
        fitted = replace(
            card,
            threshold=compute_eer(bonafide, spoof).threshold,
            threshold_source=f"EER point of int8 scores of {score_set.name}",
            calibration=fit_calibration(scores, is_bonafide),
            dev_scores={"bonafide": bonafide.tolist(), "spoof": spoof.tolist()},
        )
        write_exported(temporary.read_bytes(), fitted, "int8", temporary)
    return told


def main() -> None:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("checkpoint", metavar="CKPT", help=f"a checkpoint (.pth), or one of {', '.join(KNOWN)}")
    add("--onnx", metavar="OUT", help="file to write; default: the cache, where --engine auto finds it")
    add("--int8", action="store_true", help="quantise; needs --score_set")
    add("--score_set", metavar="LIST", help="text file of lines `path label` (bonafide, spoof): the dev set")
    args = parser.parse_args()
    if args.int8 != bool(args.score_set):
        parser.error("--int8 and --score_set go together")
    if args.onnx and not args.onnx.endswith(".onnx"):
        parser.error(f"--onnx {args.onnx} does not end in .onnx")
    path = locate(args.checkpoint)

    from utils import load_model

    model, checkpoint = load_model(path)
    card, precision = Card.of(checkpoint, path), "int8" if args.int8 else "fp32"
    out = Path(args.onnx or exported_path(card.sha256, precision))
    if args.int8:
        told = export_int8(model, card, Path(args.score_set), out)
    else:
        told = f"largest difference from torch {export_onnx(model, card, out):.1e}"
    print(f"{out}  {out.stat().st_size / 2**20:.2f} MiB  {precision}  {told}")


if __name__ == "__main__":
    run(main)
