"""The one scoring loop: training, comprehensive_eval.py, inference.py and the page all score through `Detector`.

A score is the model's bona fide logit: higher = more bona fide. It is no probability.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np

from audio import SAMPLE_RATE
from audio.chunks import Chunker
from audio.decoding_workers import recordings
from audio.errors import AudioError
from audio.reading import RecordingFacts
from audio.speech import SpeechDetector
from audio.stream import PcmStream
from common.errors import UserError
from metrics.scores import BONAFIDE
from scoring.engine_choice import load_engine
from scoring.engines import Engine
from scoring.findings import unclear_width
from scoring.model_card import ModelCard
from scoring.passages import ChunkScore
from scoring.speaker import ChunkLikeness, Reference
from scoring.verdict import FileResult, Judge, VerdictSettings, operating_point
from scoring.weights import locate

if TYPE_CHECKING:  # torch takes longer to import than an exported model takes to its first score
    from torch import Tensor

SILENCE = 1e-3  # of full scale: a chunk that is nowhere louder has no score


class ScoredRecording(NamedTuple):
    """The result of a file, and its samples if they were to be kept."""

    result: FileResult
    samples: np.ndarray | None  # (N,) float32 at 16 kHz


class Detector:
    """An engine and the scoring loop around it. card: the model card of the weights (None for a model in training)."""

    def __init__(self, engine: Engine, card: ModelCard | None = None):
        self.engine, self.card = engine, card

    @classmethod
    def from_checkpoint(
        cls, model: str | Path, device: str = "auto", engine: str = "torch", precision: str = "fp32"
    ) -> "Detector":
        """The detector of a checkpoint: one of ours, a bare official state dict, an exported model, or a known name.

        Raises UserError.
        """
        return cls(*load_engine(locate(str(model)), engine, precision, str(device)))

    def score(self, waveforms: "np.ndarray | Tensor | Iterable") -> np.ndarray:
        """Scores (N,) float64 of waveforms (N, samples), or of an iterable's batches (B, samples).

        A batch may be a tuple that begins with the waveforms, as a data loader gives.
        """
        batches = [waveforms] if hasattr(waveforms, "shape") else waveforms
        waveforms = (batch[0] if isinstance(batch, tuple | list) else batch for batch in batches)
        return np.concatenate([np.empty(0), *(self.engine.logits(batch)[:, BONAFIDE] for batch in waveforms)])

    def engine_facts(self) -> dict[str, str]:
        """The engine in plain values; an exported model, of which a checkpoint may have several, with its own hash."""
        own = {"sha256": self.engine.sha256} if hasattr(self.engine, "sha256") else {}
        return {"name": self.engine.name, "precision": self.engine.precision} | own

    def judge(
        self,
        threshold: float | None = None,
        target_far: float | None = None,
        reference: Reference | None = None,
        unclear: float | None = None,
        **settings,
    ) -> Judge:
        """The rules that turn scores into verdicts; `settings` as in `VerdictSettings`. Raises UserError.

        unclear: scores so close to the threshold are unclear; None: the model's own width, 0: a binary answer.
        """
        width = unclear_width(self.card) if unclear is None else unclear
        chosen = VerdictSettings(*operating_point(self.card, threshold, target_far), unclear=width, **settings)
        return Judge(self.card, chosen, self.engine.nb_samp / SAMPLE_RATE, reference)

    def score_file(self, path: str | Path, judge: Judge | None = None) -> FileResult:
        """Read, score and judge one file of any format and length."""
        return next(self.score_files([Path(path)], judge or self.judge()))

    def score_files(
        self, paths: Iterable[Path], judge: Judge, workers: int = 0, progress: Callable[[float], object] | None = None
    ) -> Iterator[FileResult]:
        """The result of every file, in order. Batches hold chunks of several files.

        workers: processes that decode ahead; 0: decode in this process. progress: called with the seconds of audio
        read since the last call.
        """
        return (scored.result for scored in self.score_recordings(paths, judge, workers, progress))

    def score_recordings(
        self,
        paths: Iterable[Path],
        judge: Judge,
        workers: int = 0,
        progress: Callable[[float], object] | None = None,
        keep_seconds: float = 0.0,
    ) -> Iterator[ScoredRecording]:
        """`score_files` with the samples of recordings up to `keep_seconds` long, so that nothing decodes them again.

        However many files wait for their scores, memory holds samples of at most three times `keep_seconds`.
        """
        hop = max(1, round(self.engine.nb_samp * (1 - judge.settings.overlap)))
        keep = round(keep_seconds * SAMPLE_RATE)
        files = recordings(paths, workers, judge.settings.channel)
        for file in self._scored_files(files, hop, progress or (lambda seconds: None), keep, judge.reference):
            seconds = file.outcome.seconds if isinstance(file.outcome, RecordingFacts) else 0.0
            ends = [min(start + judge.chunk_seconds, seconds) for start in file.starts]
            chunks = [ChunkScore(*values) for values in zip(file.starts, ends, file.scores, strict=True)]
            alike = zip(file.starts, ends, file.similarities, strict=False)  # none without a reference
            likenesses = [ChunkLikeness(*values) for values in alike if values[2] is not None]
            yield ScoredRecording(judge(file.path, file.outcome, chunks, likenesses), file.kept_samples())

    def score_stream(
        self, source: BinaryIO | PcmStream, hop: int, speech: SpeechDetector | None = None
    ) -> Iterator[ChunkScore]:
        """Chunks, `hop` samples apart, of raw PCM (a bare source: s16le, mono, 16 kHz) as soon as each is complete.

        speech: listens to the same samples before a chunk of them is given.
        """
        chunker, received = Chunker(self.engine.nb_samp, hop), 0
        for samples in source if isinstance(source, PcmStream) else PcmStream(source):
            received += len(samples)
            if speech:
                speech.add(samples)
            yield from self._stream_chunks(*chunker.feed(samples), received)
        yield from self._stream_chunks(*chunker.end(), received)

    def _stream_chunks(self, chunks: np.ndarray, starts: np.ndarray, received: int) -> Iterator[ChunkScore]:
        for chunk, start in zip(chunks, starts, strict=True):
            end = min(start + len(chunk), received)
            score = None if is_silent(chunk) else self._score_chunks([chunk])[0]
            yield ChunkScore(start / SAMPLE_RATE, end / SAMPLE_RATE, score)

    def _scored_files(
        self,
        files_read: Iterable,
        hop: int,
        progress: Callable[[float], object],
        keep: int,
        reference: Reference | None,
    ) -> Iterator["_FileInProgress"]:
        """Each file, in order, once all its chunks are scored, with its samples if there are at most `keep`."""
        files: deque[_FileInProgress] = deque()
        batch = _ChunkBatch(self._score_chunks, self.engine.batch_size)
        for path, recording in files_read:
            files.append(file := _FileInProgress(path, keep))
            chunker = Chunker(self.engine.nb_samp, hop)
            try:
                for block in recording:
                    file.keep(block)
                    file.compare(reference, batch.add(file, *chunker.feed(block)))
                    progress(len(block) / SAMPLE_RATE)
                file.compare(reference, batch.add(file, *chunker.end()))
                file.outcome = recording.facts
            except AudioError as error:
                file.outcome = error
            if sum(file.kept for file in files) > keep:
                batch.score()  # a batch that is not full: it lets the waiting files go, and their samples with them
            while files and not files[0].waiting:
                yield files.popleft()
        batch.score()
        yield from files

    def _score_chunks(self, chunks: list[np.ndarray]) -> list[float]:
        """Raises UserError when the model gives NaN or infinity."""
        scores = self.score(np.stack(chunks)) if chunks else np.empty(0)
        if not np.isfinite(scores).all():
            raise UserError("the model gives no score", "a finite number (is the checkpoint sound?)", "NaN or infinity")
        return scores.tolist()


@dataclass
class _FileInProgress:
    """A file that is being read and scored. keep_at_most: samples; those of a longer recording are not kept."""

    path: Path
    keep_at_most: int = 0
    starts: list[float] = field(default_factory=list)  # s
    scores: list[float | None] = field(default_factory=list)
    waiting: int = 0  # chunks not scored yet
    outcome: RecordingFacts | AudioError | None = None  # None: still being read
    blocks: list[np.ndarray] = field(default_factory=list)
    kept: int = 0  # samples in `blocks`
    similarities: list[float | None] = field(default_factory=list)  # of chunks to the reference, if there is one

    def compare(self, reference: Reference | None, chunks: np.ndarray) -> None:
        if reference:
            self.similarities += [None if is_silent(chunk) else reference.similarity(chunk) for chunk in chunks]

    def keep(self, block: np.ndarray) -> None:
        self.blocks.append(block)
        self.kept += len(block)
        if self.kept > self.keep_at_most:
            self.blocks, self.kept, self.keep_at_most = [], 0, -1

    def kept_samples(self) -> np.ndarray | None:
        """The whole recording (N,); None if it was too long or unreadable."""
        return np.concatenate(self.blocks) if self.blocks and isinstance(self.outcome, RecordingFacts) else None


class _ChunkBatch:
    """Chunks of one or several files, scored together when there are `size` of them."""

    def __init__(self, score_chunks: Callable[[list[np.ndarray]], list[float]], size: int):
        self.score_chunks, self.size = score_chunks, size
        self.chunks: list[tuple[_FileInProgress, int, np.ndarray]] = []  # file, number of the chunk in it, chunk

    def add(self, file: _FileInProgress, chunks: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Enter chunks (C, nb_samp) into their file's lists; those that are not silent wait for their score.

        Returns the chunks.
        """
        for chunk, start in zip(chunks, starts, strict=True):
            file.starts.append(start / SAMPLE_RATE)
            file.scores.append(None)
            if not is_silent(chunk):
                file.waiting += 1
                self.chunks.append((file, len(file.scores) - 1, chunk))
            if len(self.chunks) == self.size:
                self.score()
        return chunks

    def score(self) -> None:
        scores = self.score_chunks([chunk for *_, chunk in self.chunks])
        for (file, number, _), score in zip(self.chunks, scores, strict=True):
            file.scores[number] = score
            file.waiting -= 1
        self.chunks.clear()


def is_silent(chunk: np.ndarray) -> bool:
    return np.abs(chunk).max() < SILENCE
