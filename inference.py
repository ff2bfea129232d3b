"""Score audio: is this speech bona fide or spoofed?

    python inference.py --model models/weights/AASIST.pth --audio sample.m4a
    python inference.py --model exp_result/LA_AASIST_ep100_bs24/weights/swa.pth --audio a.flac b.wav --threshold 1.5

A score is the model's bona fide logit: higher = more bona fide; above the threshold the verdict is "bona fide". It is
no probability. Every scoring in this repository, that of training too, goes through `Detector`.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

import audio
from cli import Parser, UserError, run
from data_utils import BONAFIDE
from utils import load_model, pick_device

# Thresholds of released weights, which carry none: by SHA-256, the EER point of the authors' scores on LA eval.
PUBLISHED_THRESHOLDS = {"51d2d9cf0738172f61e2a384ec50a54a55363240f67c971ed55a92435bc1a1c0": 1.4934322834014893}


class Result(NamedTuple):
    """What one file gets. `verdict` is "bonafide", "spoof" or None where no threshold is known."""

    path: Path
    seconds: float
    score: float
    verdict: str | None
    chunk_starts: np.ndarray  # (C,) seconds
    chunk_scores: np.ndarray  # (C,)


class Detector:
    """A model with the scoring loop around it.

    model: (hidden, logits (B, 2)) from chunks (B, model.nb_samp); threshold: scores above it are bona fide (None: not
    known); threshold_source: where it comes from, for people.
    """

    def __init__(self, model: nn.Module, device: str | torch.device = "cpu"):
        self.device = torch.device(device)
        on_cpu = self.device.type == "cpu"
        # On a CPU convolutions score 1.6 times as fast in this layout; four chunks at a time need 1 GB.
        layout = torch.channels_last if on_cpu else torch.contiguous_format
        self.batch_size = 4 if on_cpu else 64
        self.model = model.to(self.device, memory_format=layout)
        self.threshold: float | None = None
        self.threshold_source = "none known for these weights; give one with --threshold"

    @classmethod
    def from_checkpoint(cls, path: str | Path, device: str | torch.device = "auto") -> "Detector":
        """The detector that a checkpoint of ours, or a bare official state dict, holds. Raises UserError."""
        model, checkpoint = load_model(path)
        detector = cls(model, pick_device(device))
        if checkpoint.get("threshold") is not None:
            detector.threshold, detector.threshold_source = checkpoint["threshold"], "EER point on the dev set"
        elif checkpoint["sha256"] in PUBLISHED_THRESHOLDS:
            detector.threshold = PUBLISHED_THRESHOLDS[checkpoint["sha256"]]
            detector.threshold_source = "EER point of the published LA eval scores"
        return detector

    def score(self, waveforms: np.ndarray | Tensor | Iterable) -> np.ndarray:
        """Scores (N,) float64 of waveforms (N, samples), or of the batches (B, samples) that an iterable gives.

        A batch may be a tuple that starts with the waveforms, as a loader's is. The model's mode is left as it was.
        """
        if isinstance(waveforms, np.ndarray | Tensor):
            waveforms = [torch.as_tensor(waveforms)]
        scores, training = [np.empty(0)], self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                for batch in waveforms:
                    batch = batch[0] if isinstance(batch, tuple | list) else batch
                    for x in batch.split(self.batch_size):
                        _, logits = self.model(x.to(self.device, non_blocking=True))
                        scores.append(logits[:, BONAFIDE].double().cpu().numpy())
        finally:
            self.model.train(training)
        return np.concatenate(scores)

    def score_file(self, path: str | Path) -> Result:
        """Read and score one file of any format and length. Raises UserError when it cannot be read.

        The utterance score is that of the first chunk: so published scores and every threshold here are made.
        """
        samples = audio.read(path)
        chunks, starts = audio.chunks(samples, self.model.nb_samp)
        scores = self.score(chunks)
        seconds = len(samples) / audio.SAMPLE_RATE
        return Result(Path(path), seconds, scores[0], self.verdict(scores[0]), starts / audio.SAMPLE_RATE, scores)

    def verdict(self, score: float) -> str | None:
        if self.threshold is None:
            return None
        return "bonafide" if score > self.threshold else "spoof"


def format_result(result: Result, detector: Detector) -> str:
    """A few lines for people."""
    verdict = {"bonafide": "bona fide", "spoof": "spoof", None: "none"}[result.verdict]
    threshold = "–" if detector.threshold is None else f"{detector.threshold:.4f}"
    lines = [
        f"{result.path}  ({result.seconds:.2f} s)",
        f"  verdict    {verdict}",
        f"  score      {result.score:.4f}   (higher = more bona fide)",
        f"  threshold  {threshold}   ({detector.threshold_source})",
        "  chunks",
    ]
    for start, score in zip(result.chunk_starts, result.chunk_scores, strict=True):
        end = min(start + detector.model.nb_samp / audio.SAMPLE_RATE, result.seconds)
        mark = " below the threshold" if detector.verdict(score) == "spoof" else ""
        lines.append(f"    {start:8.2f} – {end:.2f} s {score:10.4f}{mark}")
    return "\n".join(lines)


def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument("--model", required=True, metavar="PATH", help="checkpoint (.pth), ours or an official one")
    parser.add_argument("--audio", required=True, nargs="+", metavar="FILE", help="any format that FFmpeg decodes")
    parser.add_argument("--threshold", type=float, help="scores above it are bona fide; default: the checkpoint's")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    args = parser.parse_args()

    detector = Detector.from_checkpoint(args.model, args.device)
    if args.threshold is not None:
        detector.threshold, detector.threshold_source = args.threshold, "given by --threshold"
    failures = 0
    for path in args.audio:
        try:
            print(format_result(detector.score_file(path), detector), flush=True)
        except UserError as error:
            if len(args.audio) == 1:
                raise
            print(f"error: {error}", file=sys.stderr)
            failures += 1
    return 1 if failures else 0


if __name__ == "__main__":
    run(main)
