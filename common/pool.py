"""One function applied to many items in worker processes; results come in the items' order.

with closing(map_in_order(decode, paths, workers=4)) as results:
    for samples in results:
        ...
"""

import atexit
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from common.errors import UserError

CHUNK = 8  # items that a worker takes at a time
PATIENCE = 3600.0  # seconds that it may take for them: an hour of speech through a slow vocoder is the longest


def map_in_order(function: Callable[[Any], Any], items: list, workers: int) -> Iterator[Any]:
    """`function(item)` of each item, in order, computed ahead in `workers` processes (0: in this one).

    Only a few results wait to be taken, however many items there are. Close the iterator to end the processes. Raises
    what `function` raises, and UserError when a worker dies or hangs.
    """
    if workers == 0:
        yield from map(function, items)
        return
    with workers_start():
        pool, ahead = ProcessPoolExecutor(workers, initializer=_start_worker), deque()
    try:
        for first in range(0, len(items), CHUNK):
            ahead.append(pool.submit(_apply, function, items[first : first + CHUNK]))
            if len(ahead) > 2 * workers:
                yield from ahead.popleft().result(PATIENCE)
        while ahead:
            yield from ahead.popleft().result(PATIENCE)
    except BaseException as error:
        for process in list((pool._processes or {}).values()):  # else `shutdown` waits for what they are doing
            process.kill()
        if isinstance(error, BrokenProcessPool):
            expected = f"enough memory for {workers} of them (fewer need less)"
            raise UserError("a worker process died", expected, "it killed") from error
        if isinstance(error, TimeoutError):
            raise UserError("a worker process hangs", f"results within {PATIENCE:g} s", "none") from error
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def workers_start() -> Iterator[None]:
    """Turn the error of a system without room for semaphores, which queues between processes need, into a UserError."""
    try:
        yield
    except OSError as error:
        expected = "a writable /dev/shm, or 0 of them"
        raise UserError("cannot start worker processes", expected, error.strerror or error) from error


def _apply(function: Callable[[Any], Any], items: list) -> list:
    return [function(item) for item in items]


def _start_worker() -> None:
    leave_signals_to_parent()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent cannot stop its workers; without this they would wait for work forever."""
    multiprocessing.parent_process().join()
    os._exit(1)


def leave_signals_to_parent(_worker: int = 0) -> None:
    """Make this worker process ignore Ctrl-C, which reaches the whole group: the parent decides what to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@atexit.register
def _kill_daemons() -> None:
    """At exit multiprocessing would send SIGTERM, which workers ignore, and wait for them for ever."""
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()
