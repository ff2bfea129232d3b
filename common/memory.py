"""How much memory there is, and files that are read only if they fit: sparse files and hostile sizes cost nothing."""

import os
import stat
import sys
from contextlib import suppress
from pathlib import Path

from common.errors import UserError
from common.schema import require


def available_memory() -> int:
    """Bytes that this process may still take: of the machine, of its control group and below its own limit.

    On systems that do not tell, as much as there can be.
    """
    bounds = [sys.maxsize]
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        bounds.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]))
    with suppress(OSError, ValueError):  # a container's limit; "max" is none
        group = Path("/sys/fs/cgroup")
        facts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        used = int((group / "memory.current").read_text()) - int(facts["inactive_file"])
        bounds.append(int((group / "memory.max").read_text()) - used)
    with suppress(ImportError, OSError, ValueError):
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            bounds.append(limit - int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize())
    return max(0, min(bounds))


def read_regular(path: str | os.PathLike, most: int) -> bytes:
    """The bytes of a regular file. Raises OSError, and UserError when it is a device or a pipe, or too large.

    It is too large above `most` bytes, or above half of the memory that is left: its content is copied once more.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"cannot read {path}", "a file", "a folder" if stat.S_ISDIR(status.st_mode) else "no file")
    most = min(most, available_memory() // 2)
    if status.st_size > most:
        raise UserError(f"cannot read {path}", f"at most {most:,} bytes here", f"{status.st_size:,}")
    with open(path, "rb") as file:
        return file.read(status.st_size)


def require_memory(values: int, name: str) -> None:
    """Raises UserError about `name` when there is no memory for so many fp32 `values` and as many of the next layer."""
    available = available_memory()
    found = f"{min(values, 10**300):.1e} values"
    require(8 * values <= available, name, f"what fits into {available >> 20:,} MiB", found)
