"""Files → recordings in order, decoded ahead in worker processes while the model computes.

A worker that crashes on a file, or sends nothing for `PATIENCE` seconds, is replaced: that file is reported as
unreadable and the next ones are decoded.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from audio.errors import AudioError
from audio.reading import Recording, RecordingFacts
from common.limited import limit_memory

PATIENCE = 10.0  # seconds for ten seconds of sound, which take milliseconds
START_PATIENCE = 120.0  # seconds for a worker's imports, on a busy machine from a network disk
WORKER_MEMORY = 1 << 30  # bytes on top of what the imports take: no valid file needs a tenth of it


def recordings(
    paths: Iterable[Path], workers: int, channel: int | None = None
) -> Iterator[tuple[Path, "Recording | RemoteRecording"]]:
    """Each path with its recording; read the recording's blocks before asking for the next one.

    workers: processes that decode ahead, one file each; 0: decode in this process. Recordings raise AudioError when
    read.
    """
    if workers == 0:
        yield from ((path, Recording(path, channel, hashed=True, listened=True)) for path in paths)
        return
    paths, ahead = iter(paths), deque()
    crew = [_DecodingWorker(channel) for _ in range(workers)]
    idle = [*crew]
    try:
        while True:
            while idle and (path := next(paths, None)) is not None:
                ahead.append((path, RemoteRecording(path, idle.pop())))
            if not ahead:
                return
            path, recording = ahead.popleft()
            yield path, recording
            if not recording.finished:  # abandoned half-way: the rest that the worker sends is not wanted
                recording.worker.restart()
            idle.append(recording.worker)
    finally:
        for worker in crew:
            worker.stop()


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """A process that is started inside is never interrupted by Ctrl-C, not even while it imports its modules."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class RemoteRecording:
    """A `reading.Recording` in another process: the same blocks, facts and errors."""

    facts: RecordingFacts

    def __init__(self, path: Path, worker: "_DecodingWorker"):
        self.path, self.worker, self.finished = path, worker, False
        try:
            worker.pipe.send(path)
        except ConnectionError:  # it died while idle
            worker.restart()
            worker.pipe.send(path)

    def __iter__(self) -> Iterator[np.ndarray]:
        while not self.finished:
            message = self._receive()
            if isinstance(message, np.ndarray):
                yield message
                continue
            self.finished = True
            if isinstance(message, AudioError):
                raise message
            self.facts = message

    def _receive(self) -> np.ndarray | RecordingFacts | AudioError:
        found = f"nothing for {PATIENCE:g} s"
        if not self.worker.await_start():
            found = f"no decoder that starts (exit code {self.worker.process.exitcode})"
        elif self.worker.pipe.poll(PATIENCE):
            # A message may stop half-way, and recv would wait for the rest for ever.
            watchdog = threading.Timer(PATIENCE, self.worker.process.kill)
            watchdog.start()
            started = time.monotonic()
            try:
                return self.worker.pipe.recv()
            except (EOFError, OSError):  # killed before, or in the middle of, a message
                self.worker.process.join(PATIENCE)
                if time.monotonic() - started < PATIENCE:
                    found = f"a crash of the decoder (exit code {self.worker.process.exitcode})"
            finally:
                watchdog.cancel()
        self.worker.restart()
        return AudioError("unreadable", f"cannot read audio {self.path}", "sound", found)


class _DecodingWorker:
    """A process that decodes one file after another: its pipe takes a path and gives blocks, then facts or an error."""

    def __init__(self, channel: int | None):
        self.channel = channel
        self.start()

    def start(self) -> None:
        # Spawned, not forked: engines and their threads may be running in this process.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_decode, args=(theirs, self.channel), daemon=True)
        with _without_interrupts():
            self.process.start()
        theirs.close()
        self.started = False

    def await_start(self) -> bool:
        """Whether the process is there and decodes."""
        if not self.started and self.pipe.poll(START_PATIENCE):
            with suppress(EOFError, OSError):  # it died
                self.started = self.pipe.recv()
        return self.started

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()

    def restart(self) -> None:
        self.stop()
        self.start()


def _decode(pipe, channel: int | None) -> None:
    """Decode the files whose paths arrive through the pipe, until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the libraries print a line for every damaged frame
    limit_memory(WORKER_MEMORY)
    pipe.send(True)  # ready
    while True:
        try:
            path = pipe.recv()
        except EOFError:  # the parent is gone
            return
        try:
            recording = Recording(path, channel, hashed=True, listened=True)
            for block in recording:
                pipe.send(block)
            pipe.send(recording.facts)
        except AudioError as error:
            pipe.send(error)
        except Exception as error:  # an unexpected error of a decoder costs one file, not the batch
            found = f"{type(error).__name__}: {error}"
            pipe.send(AudioError("unreadable", f"cannot read audio {path}", "sound", found))
