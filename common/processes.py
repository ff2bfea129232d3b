"""The processes that torchrun started: the rank of this one, and values exchanged between them.

    torchrun --nproc_per_node 2 main.py --config config/AASIST.conf

Without torchrun there is one process, and nothing here takes time. torch is imported only if there are several.
"""

import atexit
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from common.errors import UserError

# In the messages of gloo and NCCL when a peer no longer answers; other errors have other causes.
LOST = re.compile("Connection (closed|reset|refused)|peer|[Tt]imed out|NCCL", re.ASCII)


class Processes:
    """All processes of a command, including this one.

    patience: how long a process waits for another. nvidia: whether tensors on GPUs are exchanged.
    """

    def __init__(self, patience: timedelta, nvidia: bool = False):
        self.rank, self.size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        if self.size > 1:
            from torch import distributed
            from torch.distributed.rendezvous import rendezvous

            # torchrun's store survives a restart and still holds the addresses of dead processes, so each restart gets
            # its own prefix. Machines count their restarts separately, hence only where all processes are on one.
            alone = os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]
            attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT") if alone else None
            store = distributed.PrefixStore(f"attempt {attempt}", next(rendezvous("env://", timeout=patience))[0])
            backend = "cpu:gloo,cuda:nccl" if nvidia else "gloo"
            distributed.init_process_group(backend, timeout=patience, store=store, rank=self.rank, world_size=self.size)
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

    def largest(self, *numbers: int) -> list[int]:
        """The maximum of each number over all processes: all learn what one of them has seen."""
        if self.size == 1:
            return list(numbers)
        import torch
        from torch import distributed

        tensor = torch.tensor(numbers)
        distributed.all_reduce(tensor, distributed.ReduceOp.MAX)
        return tensor.tolist()


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
