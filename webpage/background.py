"""Run a generator in a thread that ends by itself when its reader is gone.

gradio forgets the generator of a visitor who cancels or leaves, and Python closes a forgotten generator at any later
time. Until then the job would hold up all other visitors. So a job runs in a thread of its own, which gives up when the
reader has closed its side, or has not asked for the next item for `SILENT_CLIENT_SECONDS`.
"""

import queue
import threading
import time
from collections.abc import Generator, Iterator
from typing import TypeVar

from common.errors import UserError
from webpage.limits import SILENT_CLIENT_SECONDS

Item = TypeVar("Item")
_END = object()
_running: "dict[threading.Thread, _Reader]" = {}


class _Reader:
    """What the thread knows about the reader of its items. Only the reader's side changes it."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self.last_answer: float | None = None  # when it took its last item; None while it waits for the next

    def is_gone(self) -> bool:
        last_answer = self.last_answer  # read once: it may become None at any time
        silent = last_answer is not None and time.monotonic() - last_answer > SILENT_CLIENT_SECONDS
        return silent or self.cancelled.is_set()


def in_background(items: Generator[Item]) -> Iterator[Item]:
    """Yield the items of a generator that a thread runs and closes. Its errors are raised here.

    Raises UserError when the reader comes back after `SILENT_CLIENT_SECONDS`.
    """
    produced: queue.SimpleQueue = queue.SimpleQueue()
    reader = _Reader()
    thread = threading.Thread(target=_produce, args=(items, produced, reader), daemon=True)
    _running[thread] = reader
    thread.start()
    try:
        while (item := produced.get()) is not _END:
            if isinstance(item, Exception):
                raise item
            reader.last_answer = time.monotonic()
            yield item
            reader.last_answer = None
    finally:
        reader.cancelled.set()
        thread.join()


def _produce(items: Generator, produced: queue.SimpleQueue, reader: _Reader) -> None:
    try:
        for item in items:
            produced.put(item)
            if reader.is_gone():
                raise UserError("given up, because nobody asked for the result any more")
        produced.put(_END)
    except Exception as error:
        produced.put(error)
    finally:
        items.close()
        _running.pop(threading.current_thread(), None)


def end_all() -> None:
    """Cancel what still runs, and wait until it has ended.

    A thread that computes in a library while the interpreter ends makes it abort: "terminate called", SIGABRT.
    """
    running = dict(_running)
    for reader in running.values():
        reader.cancelled.set()
    for thread in running:
        thread.join()
