"""An object in a child process with limits of memory and processor time: for files that only a library can judge.

    model = LimitedProcess(open_exported, Path("model.onnx"), facts=("precision",), memory=4 << 30, seconds=30)
    print(model.facts["precision"], model.call("logits", chunks))

Whatever the object does — crash, take all memory, never end — the caller gets a UserError.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from common.errors import UserError


class LimitedProcess:
    """`make(*arguments)` in a child process, which ends with this one. facts: these of its attributes, in a dict.

    memory: bytes on top of what Python takes. seconds: of processor time for making it, and again for each call, so a
    busy machine refuses nothing (Linux and macOS have such limits). Raises UserError as `make` does, or when it fails.
    """

    def __init__(self, make: Callable, *arguments: Any, facts: Sequence[str], memory: int, seconds: int):
        self.what, self.patience = f"{arguments[0]} cannot be used", 10 * seconds
        self.bounds = f"at most {memory >> 20:,} MiB, and {seconds} s for a call"
        self.lock = threading.Lock()
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        work = (make, arguments, facts)
        self.process = context.Process(target=_serve, args=(theirs, work, memory, seconds), daemon=True)
        self.process.start()
        theirs.close()
        self.facts = self._receive()

    def call(self, method: str, *arguments: Any) -> Any:
        """What the object's method returns; one call at a time, from whatever thread."""
        with self.lock:
            with suppress(ConnectionError):  # `_receive` says why
                self.pipe.send((method, arguments))
            return self._receive()

    def close(self) -> None:
        self.pipe.close()
        self.process.kill()
        self.process.join()

    def _receive(self) -> Any:
        if not self.pipe.poll(self.patience):  # it waits for what never comes, which takes no processor time
            self.process.kill()
        try:
            result = self.pipe.recv()
        except (EOFError, OSError) as error:
            self.process.join()
            raise UserError(self.what, self.bounds, f"more, or a crash (exit code {self.process.exitcode})") from error
        if isinstance(result, UserError):
            raise result
        return result


def _serve(pipe, work: tuple, memory: int, seconds: int) -> None:
    """Make the object, then call its methods as the pipe says, until the other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what libraries print about damaged files
    limit_memory(memory)
    made, (make, arguments, facts) = None, work
    method, given = None, ()
    while True:
        _limit_time(seconds)
        try:
            if method is None:
                made = make(*arguments)
                result = {name: getattr(made, name) for name in facts}
            else:
                result = getattr(made, method)(*given)
        except UserError as error:
            result = error
        except Exception as error:  # of any library
            found = f"{type(error).__name__}: {error}"[:200]
            result = UserError(f"{arguments[0]} cannot be used", "a file that its library can read", found)
        try:
            pipe.send(result)
            method, given = pipe.recv()
        except (EOFError, OSError):  # the other end is gone
            return


def limit_memory(memory: int) -> None:
    """Let a hostile file exhaust this process, not the machine (on Linux, which has such limits).

    memory: bytes on top of what the process takes now.
    """
    statm = Path("/proc/self/statm")
    if statm.exists():
        import resource

        used, (_, hard) = int(statm.read_text().split()[0]), resource.getrlimit(resource.RLIMIT_AS)
        bound = used * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (bound if hard < 0 else min(bound, hard), hard))


def _limit_time(seconds: int) -> None:
    """The system ends this process once it has computed for so many more seconds."""
    with suppress(ImportError):  # Windows
        import resource

        usage, (_, hard) = resource.getrusage(resource.RUSAGE_SELF), resource.getrlimit(resource.RLIMIT_CPU)
        bound = int(usage.ru_utime + usage.ru_stime) + 1 + seconds
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (bound if hard < 0 else min(bound, hard), hard))
