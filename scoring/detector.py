"""The one scoring loop: every scoring in this repository, that of training too, goes through `Detector`.

A score is the model's bona fide logit: higher = more bona fide; it is no probability.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from audio import SAMPLE_RATE
from audio.chunks import Chunker
from audio.decoding_workers import recordings
from audio.errors import AudioError
from audio.reading import RecordingFacts
from common.errors import UserError
from metrics.scores import BONAFIDE
from scoring.engines import Engine, load
from scoring.verdict import ChunkScore, FileResult, Judge, VerdictSettings, operating_point
from scoring.weights import Card, locate

if TYPE_CHECKING:  # torch takes longer to import than an exported model to give its first score
    from torch import Tensor

SILENCE = 1e-3  # of full scale: a chunk that is nowhere louder has no score


@dataclass
class _Timeline:
    """A file whose chunks are being scored."""

    path: Path
    starts: list[float] = field(default_factory=list)  # s
    scores: list[float | None] = field(default_factory=list)
    waiting: int = 0  # chunks not scored yet
    outcome: RecordingFacts | AudioError | None = None  # None: still being read


class Detector:
    """An engine with the scoring loop around it. card: what is known of the weights (None: of a model in training)."""

    def __init__(self, engine: Engine, card: Card | None = None):
        self.engine, self.card = engine, card

    @classmethod
    def from_checkpoint(
        cls, model: str | Path, device: str = "auto", engine: str = "torch", precision: str = "fp32"
    ) -> "Detector":
        """The detector in a checkpoint of ours, a bare official state dict or an exported model; or an official name.

        Raises UserError.
        """
        return cls(*load(locate(str(model)), engine, precision, str(device)))

    def score(self, waveforms: "np.ndarray | Tensor | Iterable") -> np.ndarray:
        """Scores (N,) float64 of waveforms (N, samples), or of the batches (B, samples) that an iterable gives.

        A batch may be a tuple that starts with the waveforms, as a loader's is.
        """
        batches = [waveforms] if hasattr(waveforms, "shape") else waveforms
        waveforms = (batch[0] if isinstance(batch, tuple | list) else batch for batch in batches)
        return np.concatenate([np.empty(0), *(self.engine.logits(batch)[:, BONAFIDE] for batch in waveforms)])

    def judge(self, threshold: float | None = None, target_far: float | None = None, **settings) -> Judge:
        """How this detector's scores become verdicts; `settings` as in `verdict.VerdictSettings`. Raises UserError."""
        point = operating_point(self.card, threshold, target_far)
        return Judge(self.card, VerdictSettings(*point, **settings), self.engine.nb_samp / SAMPLE_RATE)

    def score_file(self, path: str | Path, judge: Judge | None = None) -> FileResult:
        """Read, score and judge one file of any format and length."""
        return next(self.score_files([Path(path)], judge or self.judge()))

    def score_files(
        self, paths: Iterable[Path], judge: Judge, workers: int = 0, heard: Callable[[float], object] | None = None
    ) -> Iterator[FileResult]:
        """The result of every file, in order; batches run across files, `workers` processes decode ahead (0: none).

        heard: called with seconds of audio as they are taken in.
        """
        hop = max(1, round(self.engine.nb_samp * (1 - judge.settings.overlap)))
        for file in self._timelines(recordings(paths, workers, judge.settings.channel), hop, heard):
            seconds = file.outcome.seconds if isinstance(file.outcome, RecordingFacts) else 0.0
            ends = [min(start + judge.chunk_seconds, seconds) for start in file.starts]
            chunks = [ChunkScore(*values) for values in zip(file.starts, ends, file.scores, strict=True)]
            yield judge(file.path, file.outcome, chunks)

    def score_stream(self, source: BinaryIO, hop: int) -> Iterator[ChunkScore]:
        """Chunks, `hop` samples apart, of raw PCM (16-bit little-endian, mono, 16 kHz) as soon as each is complete."""
        chunker, heard, stray = Chunker(self.engine.nb_samp, hop), 0, b""
        while piece := source.read1(2 * SAMPLE_RATE // 10):
            piece = stray + piece
            whole = len(piece) // 2 * 2
            samples, stray = np.frombuffer(piece[:whole], "<i2").astype(np.float32) / 32768, piece[whole:]
            heard += len(samples)
            yield from self._stream_chunks(*chunker.feed(samples), heard)
        if heard:
            yield from self._stream_chunks(*chunker.end(), heard)

    def _stream_chunks(self, chunks: np.ndarray, starts: np.ndarray, heard: int) -> Iterator[ChunkScore]:
        for chunk, start in zip(chunks, starts, strict=True):
            end = min(start + len(chunk), heard)
            yield ChunkScore(
                start / SAMPLE_RATE, end / SAMPLE_RATE, None if is_silent(chunk) else self._score([chunk])[0]
            )

    def _timelines(self, files_read: Iterable, hop: int, heard: Callable | None) -> Iterator[_Timeline]:
        """Each file, in order, once all its chunks are scored."""
        files: deque[_Timeline] = deque()
        batch: list[tuple[_Timeline, int, np.ndarray]] = []  # file, number of the chunk, chunk

        def take(file: _Timeline, chunks: np.ndarray, starts: np.ndarray) -> None:
            for chunk, start in zip(chunks, starts, strict=True):
                file.starts.append(start / SAMPLE_RATE)
                file.scores.append(None)
                if not is_silent(chunk):
                    file.waiting += 1
                    batch.append((file, len(file.scores) - 1, chunk))
                if len(batch) == self.engine.batch_size:
                    score_batch()

        def score_batch() -> None:
            for (file, number, _), score in zip(batch, self._score([chunk for *_, chunk in batch]), strict=True):
                file.scores[number] = score
                file.waiting -= 1
            batch.clear()

        for path, recording in files_read:
            files.append(file := _Timeline(path))
            chunker = Chunker(self.engine.nb_samp, hop)
            try:
                for block in recording:
                    take(file, *chunker.feed(block))
                    if heard:
                        heard(len(block) / SAMPLE_RATE)
                take(file, *chunker.end())
                file.outcome = recording.facts
            except AudioError as error:
                file.outcome = error
            while files and not files[0].waiting:
                yield files.popleft()
        score_batch()
        yield from files

    def _score(self, chunks: list[np.ndarray]) -> list[float]:
        """Raises UserError when the model gives no number."""
        scores = self.score(np.stack(chunks)) if chunks else np.empty(0)
        if not np.isfinite(scores).all():
            raise UserError("the model gives no score", "a finite number (is the checkpoint sound?)", "NaN or infinity")
        return scores.tolist()


def is_silent(chunk: np.ndarray) -> bool:
    return np.abs(chunk).max() < SILENCE
