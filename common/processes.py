"""The processes that torchrun started: the rank of this one, and values exchanged between them.

    torchrun --nproc_per_node 2 main.py --config config/AASIST.conf

Without torchrun there is one process, and nothing here takes time. torch is imported only if there are several.
"""

import atexit
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from common.errors import UserError

# In the messages of gloo and NCCL when a peer no longer answers; other errors have other causes.
LOST = re.compile("Connection (closed|reset|refused)|[Bb]roken pipe|peer|[Tt]imed out|NCCL", re.ASCII)
TICK_SECONDS = 5.0  # between two signs of life in the store
STALLED_SECONDS = 600.0  # without a sign of life, after which a process counts as hanging

if "RANK" in os.environ:  # torch reads this when it is imported; the stack traces of its store would surround our line
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


class Processes:
    """All processes of a command, including this one.

    patience: how long a process waits for another. nvidia: whether tensors on GPUs are exchanged.
    """

    def __init__(self, patience: timedelta, nvidia: bool = False):
        self.rank, self.size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self._ticks, self._ticked = 0, 0.0
        if self.size > 1:
            if "TORCHELASTIC_RUN_ID" in os.environ:
                threading.Thread(target=_end_with_launcher, args=(os.getppid(),), daemon=True).start()
            with peers_alive():
                self._join(patience, nvidia)

    def _join(self, patience: timedelta, nvidia: bool) -> None:
        """Find the other processes and form a group with them."""
        from torch import distributed
        from torch.distributed.rendezvous import rendezvous

        # torchrun's store survives a restart and still holds the addresses of dead processes, so each restart gets
        # its own prefix. Machines count their restarts separately, hence only where all processes are on one.
        alone = os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT") if alone else None
        self._store = distributed.PrefixStore(f"attempt {attempt}", next(rendezvous("env://", timeout=patience))[0])
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if nvidia else "gloo",
            timeout=patience,
            store=self._store,
            rank=self.rank,
            world_size=self.size,
        )
        # Left to the interpreter's end, the group's threads can outlive what they use: "terminate called", SIGABRT.
        atexit.register(distributed.destroy_process_group)

    @property
    def is_main(self) -> bool:
        """Whether this is the main process, the only one that writes files."""
        return self.rank == 0

    def gather(self, value: Any) -> list:
        """The values of all processes, ordered by rank, in every process; each waits until all have called."""
        values = [value]
        if self.size > 1:
            from torch import distributed

            values = [None] * self.size
            distributed.all_gather_object(values, value)
        return values

    def broadcast(self, value: Any) -> Any:
        """The main process's value, in every process; each waits until all have called."""
        return self.gather(value if self.is_main else None)[0]

    def barrier(self) -> None:
        """Wait until every process is here."""
        self.gather(None)

    def tick(self) -> None:
        """Give the other processes, which may be waiting in `meet`, a sign that this one advances."""
        if self.size > 1 and (now := time.monotonic()) - self._ticked >= TICK_SECONDS:
            self._ticks, self._ticked = self._ticks + 1, now
            self._store.set(f"tick {self.rank}", str(self._ticks))

    def meet(self, place: str) -> None:
        """Wait until all processes are at `place`, for days if need be, as long as those that are missing tick.

        Raises UserError when one does not.
        """
        if self.size == 1:
            return
        self._store.set(f"{place} {self.rank}", "")
        seen: dict[int, tuple[bytes, float]] = {}  # the last tick of each missing process, and since when
        while missing := [rank for rank in range(self.size) if not self._store.check([f"{place} {rank}"])]:
            for rank in missing:
                tick = self._store.get(f"tick {rank}") if self._store.check([f"tick {rank}"]) else b""
                if rank not in seen or seen[rank][0] != tick:
                    seen[rank] = tick, time.monotonic()
                elif time.monotonic() - seen[rank][1] > STALLED_SECONDS:
                    found = f"none for {STALLED_SECONDS:g} s"
                    raise UserError(f"process {rank} of this run hangs", "a sign of life", found)
            time.sleep(0.2)

    def largest(self, *numbers: int) -> list[int]:
        """The maximum of each number over all processes: all learn what one of them has seen."""
        if self.size == 1:
            return list(numbers)
        import torch
        from torch import distributed

        tensor = torch.tensor(numbers)
        distributed.all_reduce(tensor, distributed.ReduceOp.MAX)
        return tensor.tolist()


def _end_with_launcher(launcher: int) -> None:
    """End like torchrun's processes on SIGTERM when torchrun itself was killed, and nobody else ends them."""
    while os.getppid() == launcher:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
    with suppress(OSError):
        print("note: torchrun is gone: its processes end, too", file=sys.stderr)


@contextmanager
def peers_alive() -> Iterator[None]:
    """Turn the error that torch raises when another process no longer answers into a UserError."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).split("\n")[0][:200]
        if not LOST.search(reason):
            raise
        raise UserError("another process of this run is gone", "all to be alive (see its message)", reason) from error
