"""Files → decoded recordings in order, decoded ahead in worker processes while the model computes.

A worker that a file kills, or holds up for `PATIENCE` seconds, is replaced: that file is reported, the next go on.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from audio.reading import AudioError, Facts, Recording

PATIENCE = 10.0  # seconds for ten seconds of sound, which take milliseconds
WORKER_MEMORY = 1 << 30  # bytes beyond what the imports took: no honest file needs a tenth of it


def recordings(
    paths: Iterable[Path], workers: int, channel: int | None = None
) -> Iterator[tuple[Path, "Recording | RemoteRecording"]]:
    """Each path with its recording, whose blocks are to be read out before the next one is asked for.

    workers: processes that decode ahead, each one file; 0: decode here. Recordings raise AudioError when read.
    """
    if workers == 0:
        yield from ((path, Recording(path, channel)) for path in paths)
        return
    paths, ahead = iter(paths), deque()
    crew = [_Worker(channel) for _ in range(workers)]
    idle = [*crew]
    try:
        while True:
            while idle and (path := next(paths, None)) is not None:
                ahead.append((path, RemoteRecording(path, idle.pop())))
            if not ahead:
                return
            path, recording = ahead.popleft()
            yield path, recording
            if not recording.finished:  # given up half-way: what the worker still sends is of no use
                recording.worker.restart()
            idle.append(recording.worker)
    finally:
        for worker in crew:
            worker.stop()


class RemoteRecording:
    """An `audio.Recording` in another process: the same blocks, facts and errors."""

    facts: Facts

    def __init__(self, path: Path, worker: "_Worker"):
        self.path, self.worker, self.finished = path, worker, False
        try:
            worker.pipe.send(path)
        except ConnectionError:  # it died while it had nothing to do
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

    def _receive(self) -> np.ndarray | Facts | AudioError:
        found = f"nothing for {PATIENCE:g} s"
        if self.worker.pipe.poll(PATIENCE):
            # What has begun to come may stop half-way, and recv would wait for ever.
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


class _Worker:
    """A process that decodes file after file; its pipe takes a path and gives blocks, then facts or an error."""

    def __init__(self, channel: int | None):
        self.channel = channel
        self.start()

    def start(self) -> None:
        # Spawned, not forked: engines and their threads may be running in this process.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_decode, args=(theirs, self.channel), daemon=True)
        self.process.start()
        theirs.close()

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()

    def restart(self) -> None:
        self.stop()
        self.start()


def _decode(pipe, channel: int | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries talk about every damaged frame
    _limit_memory()
    while True:
        try:
            path = pipe.recv()
        except EOFError:  # the parent is gone
            return
        try:
            recording = Recording(path, channel)
            for block in recording:
                pipe.send(block)
            pipe.send(recording.facts)
        except AudioError as error:
            pipe.send(error)
        except Exception as error:  # a decoder's surprise costs one file, not the batch
            found = f"{type(error).__name__}: {error}"
            pipe.send(AudioError("unreadable", f"cannot read audio {path}", "sound", found))


def _limit_memory() -> None:
    """Let a hostile file exhaust this process, not the machine (where the system has such limits: Linux)."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        import resource

        used = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + WORKER_MEMORY, resource.RLIM_INFINITY))
