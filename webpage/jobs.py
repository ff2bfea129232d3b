"""A job: what happens to the uploads of one visitor until each has its result.

One process decodes the uploads, and one job at a time decodes and scores; the others wait for the lock.
"""

import math
import os
import queue
import tempfile
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from audio import SAMPLE_RATE
from audio.decoding_workers import recordings
from audio.errors import AudioError
from audio.reading import RecordingFacts
from common.errors import UserError
from scoring.detector import Detector
from scoring.engines import Engine
from scoring.passages import clock
from scoring.speaker import Reference
from scoring.verdict import FileResult, Judge
from scoring.weights import file_sha256
from webpage.background import in_background
from webpage.checkpoints import ModelShelf
from webpage.storage import full_disk_named

PROGRESS_SECONDS = 0.4  # between two messages of a long job


@dataclass(frozen=True)
class CheckProgress:
    """What a job is doing, and the fraction of it that is done (None: not known)."""

    text: str
    fraction: float | None = None


@dataclass(frozen=True)
class CheckedFile:
    """A result, and what a report says beside it.

    sound: the decoded recording, mono float32 at 16 kHz (None: the file could not be read).
    """

    result: FileResult
    judge: Judge
    engine: dict[str, str]
    sha256: str
    sound: Path | None = None

    def document(self) -> dict[str, Any]:
        """As `inference.py --save_json` writes it."""
        return self.judge.header() | {"engine": self.engine, "results": [self.result.to_dict()]}


class CheckCancelled(Exception):
    """The visitor no longer wants the result."""


class CountingEngine:
    """An engine that counts the chunks it has computed, and can be stopped between two batches."""

    def __init__(self, engine: Engine):
        self.engine, self.computed, self.cancelled = engine, 0, threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def logits(self, waveforms) -> np.ndarray:
        if self.cancelled.is_set():
            raise CheckCancelled
        logits = self.engine.logits(waveforms)
        self.computed += len(logits)
        return logits


@contextmanager
def held_uploads(uploads: Sequence[Path]) -> Iterator[list[Path]]:
    """The uploads under names of their own, in a folder that is removed afterwards. Raises UserError.

    They are hard links: gradio may remove its own names while the job is still running.
    """
    with tempfile.TemporaryDirectory() as folder, full_disk_named(folder):
        held = []
        for number, upload in enumerate(uploads):
            path = Path(folder) / str(number) / Path(upload).name
            path.parent.mkdir()
            try:
                if Path(upload).is_symlink():
                    raise OSError("no upload is a link")
                os.link(upload, path)
            except OSError as error:
                raise UserError("the server no longer has this upload; upload it again") from error
            held.append(path)
        yield held


class FileChecker:
    """Checks uploads with the models on offer, one job at a time."""

    def __init__(self, models: ModelShelf, max_seconds: float):
        self.models, self.max_seconds = models, max_seconds
        self.lock = threading.Lock()  # held while a file is decoded and scored
        self._start_decoding()

    def _start_decoding(self) -> None:
        self.paths: queue.SimpleQueue[Path] = queue.SimpleQueue()  # to decode
        self.recordings = recordings(iter(self.paths.get, None), workers=1)

    def check(
        self, files: Sequence[Path], model: str, device: str, options: dict, references: Sequence[Path] = ()
    ) -> Iterator[CheckProgress | CheckedFile]:
        """For each file some progress, then its result. Raises UserError.

        options: of `Detector.judge`. references: genuine recordings of the person who is said to speak.
        """
        return in_background(self._check_files(files, model, device, options, references))

    def _check_files(
        self, files: Sequence[Path], model: str, device: str, options: dict, references: Sequence[Path]
    ) -> Generator[CheckProgress | CheckedFile]:
        for number, file in enumerate(files):
            for item in self._check_file(file, model, device, options, references):
                if isinstance(item, CheckProgress) and len(files) > 1:
                    text = f"File {number + 1} of {len(files)} — {item.text}"
                    item = CheckProgress(text, (number + (item.fraction or 0)) / len(files))
                yield item

    def _check_file(
        self, file: Path, model: str, device: str, options: dict, references: Sequence[Path]
    ) -> Generator[CheckProgress | CheckedFile]:
        while not self.lock.acquire(timeout=PROGRESS_SECONDS):
            yield CheckProgress("Waiting until another recording is done")
        try:
            yield CheckProgress("Loading the model")
            detector = self.models.detector(model, device)
            reference = (yield from self._read_references(references, detector)) if references else None
            yield from self._decode_and_score(file, detector, detector.judge(**options, reference=reference))
        except UserError as error:  # visitors see the label of a checkpoint, not its path
            raise UserError(str(error).replace(self.models.checkpoints.get(model) or "\n", str(model))) from error
        finally:
            self.lock.release()

    def _decode_and_score(self, file: Path, detector: Detector, judge: Judge) -> Generator[CheckProgress | CheckedFile]:
        name, sound = Path(file.name), file.with_name(f"{file.name}.w64")
        engine = detector.engine_facts()
        sha256 = file_sha256(file)
        try:
            facts = yield from self._decode(file, sound)
        except AudioError as error:
            without_path = AudioError(error.condition, str(error).replace(f"{file.parent}/", ""))
            yield CheckedFile(judge(name, without_path, []), judge, engine, sha256)
            return
        scored = yield from self._score(sound, facts, detector, judge)
        likenesses = scored.reference.chunks if scored.reference else ()
        yield CheckedFile(judge(name, facts, scored.chunks, likenesses), judge, engine, sha256, sound)

    def _read_references(self, files: Sequence[Path], detector: Detector) -> Generator[CheckProgress, None, Reference]:
        """Raises UserError when one cannot be read."""
        sounds = []
        for number, file in enumerate(files):
            yield CheckProgress(f"Reading reference {number + 1} of {len(files)}")
            sounds.append(file.with_name(f"{file.name}.w64"))
            try:
                yield from self._decode(file, sounds[-1])
            except AudioError as error:
                raise UserError(f"reference {file.name}: {str(error).replace(f'{file.parent}/', '')}") from error
        yield CheckProgress("Listening to the references")
        return Reference.of_files(sounds, detector.engine.nb_samp)

    def _decode(self, file: Path, sound: Path) -> Generator[CheckProgress, None, RecordingFacts]:
        """Write the recording in `file` to `sound`. Only the decoding process opens `file` itself."""
        from soundfile import SoundFile

        self.paths.put(file)
        try:
            _, recording = next(self.recordings)
        except Exception:  # such as no memory for a process: the next visitor gets a new one
            self._start_decoding()
            raise
        samples, reported = 0, time.monotonic()
        with SoundFile(sound, "w", SAMPLE_RATE, 1, "FLOAT", format="W64") as out:
            for block in recording:
                samples += len(block)
                if samples > self.max_seconds * SAMPLE_RATE:
                    expected = f"at most {self.max_seconds / 60:g} min on this server"
                    raise AudioError("too_long", f"{file.name} is too long", expected, "more")
                out.write(block)
                if time.monotonic() - reported > PROGRESS_SECONDS:
                    reported = time.monotonic()
                    yield CheckProgress(f"Reading: {clock(samples / SAMPLE_RATE)} so far")
        return recording.facts

    def _score(
        self, sound: Path, facts: RecordingFacts, detector: Detector, judge: Judge
    ) -> Generator[CheckProgress, None, FileResult]:
        """The result of `sound`, computed in another thread so that this one can report progress."""
        engine = CountingEngine(detector.engine)
        hop = round(engine.nb_samp * (1 - judge.settings.overlap))
        total = 1 + max(0, math.ceil((facts.seconds * SAMPLE_RATE - engine.nb_samp) / hop))
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(Detector(engine, detector.card).score_file, sound, judge)
            try:
                while not wait([future], PROGRESS_SECONDS).done:
                    yield CheckProgress(f"Scoring chunk {engine.computed} of {total}", engine.computed / total)
            finally:
                engine.cancelled.set()
        return future.result()
