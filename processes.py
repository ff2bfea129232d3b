"""The processes that torchrun started: which one this is, and what they tell each other.

    torchrun --nproc_per_node 2 main.py --config config/AASIST.conf

Without torchrun there is one process, and nothing here costs anything. torch is imported only where there are several.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from cli import UserError

# How gloo and NCCL say that a peer does not answer; anything else that is raised is no peer's fault.
LOST = re.compile("Connection (closed|reset|refused)|peer|[Tt]imed out|NCCL", re.ASCII)


class Processes:
    """All processes of a command, this one among them.

    patience: how long one may wait for another. nvidia: whether GPUs will exchange tensors.
    """

    def __init__(self, patience: timedelta, nvidia: bool = False):
        self.rank, self.size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        if self.size > 1:
            from torch import distributed
            from torch.distributed.rendezvous import rendezvous

            # torchrun's store outlives a restart, and with it the addresses of those who died. (Of several machines
            # each counts its own restarts.)
            alone = os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]
            attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT") if alone else None
            store = distributed.PrefixStore(f"attempt {attempt}", next(rendezvous("env://", timeout=patience))[0])
            place = {"store": store, "rank": self.rank, "world_size": self.size}
            distributed.init_process_group("cpu:gloo,cuda:nccl" if nvidia else "gloo", timeout=patience, **place)

    @property
    def leads(self) -> bool:
        """Whether this is the first process: the only one that writes."""
        return self.rank == 0

    def gather(self, value: Any) -> list:
        """Every process's value in the order of ranks, in all of them; each waits until all are here."""
        values = [value]
        if self.size > 1:
            from torch import distributed

            values = [None] * self.size
            distributed.all_gather_object(values, value)
        return values

    def share(self, value: Any) -> Any:
        """The first process's value, in all of them; each waits until all are here."""
        return self.gather(value if self.leads else None)[0]

    def largest(self, *numbers: int) -> list[int]:
        """Of each number the largest that any process has: what one of them knows, all act upon."""
        if self.size == 1:
            return list(numbers)
        import torch
        from torch import distributed

        tensor = torch.tensor(numbers)
        distributed.all_reduce(tensor, distributed.ReduceOp.MAX)
        return tensor.tolist()


@contextmanager
def peers_alive() -> Iterator[None]:
    """Raises UserError, one line, for what torch raises when another process no longer answers."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).split("\n")[0][:200]
        if not LOST.search(reason):
            raise
        raise UserError("another process of this run is gone", "all to be alive (see its message)", reason) from error
