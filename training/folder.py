"""A run folder: made whole or not at all, locked while a run writes to it, with its checkpoints in weights/.

exp_result/<track>_<config>_ep<N>_bs<N>[_<comment>]/
    config.conf, log.jsonl, metric_log.txt, metrics/, scores/, weights/
"""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

from common.errors import UserError
from common.files import exclusive
from common.processes import Processes
from config import Config, differences, load_config, save_config
from training.log import RunLog
from utils import load_checkpoint, save_checkpoint


class RunFolder:
    """The folder `path` of one run, from `create` or `reopen` until `close`. The main process alone writes to it.

    log: the run's log; None before. is_new: this process made the folder, and no progress has been saved in it.
    """

    def __init__(self, path: Path, processes: Processes):
        self.path, self.processes = path, processes
        self.log: RunLog | None = None
        self.is_new = False
        self._lock = ExitStack()

    @contextmanager
    def create(self, config: Config, overwrite: bool) -> Iterator[None]:
        """Make the folder and its log, run the block inside `with`, then write config.conf.

        From then on the folder counts as a run and can be resumed. Raises UserError when it holds a run already, or
        another process writes to it.
        """
        is_main = self.processes.is_main
        # The lock of the parent: of two runs that want the same folder, one is refused.
        with exclusive(self.path.parent) if is_main else nullcontext():
            is_new = not self.path.exists()
            if is_main:
                self._lock.enter_context(exclusive(self.path, wait=False))
                make_run_folder(self.path, overwrite)
            self.log = RunLog(self.path, writes=is_main)
            yield
            if is_main:
                save_config(config, self.path / "config.conf")
        self.is_new = is_new

    def reopen(self) -> dict:
        """Lock the folder of an existing run; returns the fields of last.pth.

        Raises UserError when another process writes to it, or last.pth cannot be read.
        """
        if self.processes.is_main:
            self._lock.enter_context(exclusive(self.path, wait=False))
        return self.load("last")

    def resume_log(self, sizes: dict[str, int], epoch: int, step: int) -> None:
        """Cut the log to the sizes that last.pth holds and go on with it; remove files of saves that were killed."""
        if self.processes.is_main:
            for leftover in (self.path / "weights").glob(".*.pth.*"):
                leftover.unlink()
        self.log = RunLog(self.path, sizes, epoch, self.processes.is_main)
        self.log.resume(epoch, step)

    def checkpoint(self, name: str) -> Path:
        """Path of weights/<name>.pth."""
        return self.path / "weights" / f"{name}.pth"

    def load(self, name: str) -> dict:
        """A checkpoint, in every process; the main process reads it, as the others' disks need not hold it."""
        return self.processes.broadcast(load_checkpoint(self.checkpoint(name)) if self.processes.is_main else None)

    def save(self, name: str, fields: dict) -> None:
        """Write weights/<name>.pth."""
        if self.processes.is_main:
            save_checkpoint(self.checkpoint(name), fields)
        self.is_new = self.is_new and name != "last"

    def discard_if_new(self) -> None:
        """Remove the folder of a run that failed before it saved any progress."""
        if self.is_new and self.processes.is_main:
            shutil.rmtree(self.path)

    def close(self) -> None:
        """Release the lock."""
        self._lock.close()


def make_run_folder(path: Path, overwrite: bool) -> None:
    """Make a run folder; --eval may have left scores in it. Raises UserError rather than mix two runs."""
    if (path / "config.conf").exists():
        if not overwrite:
            raise UserError(f"run folder {path} holds a run", "--resume, --overwrite or another --comment", "neither")
        for old in path.iterdir():  # the folder itself stays, because it is locked
            old.unlink() if old.is_symlink() or old.is_file() else shutil.rmtree(old)
    for name in ("metrics", "scores", "weights"):
        (path / name).mkdir(parents=True, exist_ok=True)


def is_run_of(path: Path, config: Config) -> bool:
    """Whether the folder holds a run of `config`. Raises UserError if it holds one of another configuration."""
    if not (path / "config.conf").exists():
        return False
    for name, (wanted, found) in differences(config, load_config(path / "config.conf")).items():
        raise UserError(f"run folder {path} holds a run with another {name}", wanted, found)
    return True
