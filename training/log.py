"""Write a run's log: log.jsonl for programs, metric_log.txt for people and, where it is installed, TensorBoard.

`log_events.py` lists the events of log.jsonl, `log_reader.py` reads them.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from common.escaping import printable
from common.files import naming
from config import Config

HEADER = f"{'epoch':>7} {'lr':>9} {'loss':>8} {'dev EER %':>10} {'dev t-DCF':>10} {'utt/s':>7} {'left':>8}"
ROUNDED = frozenset({"utterances_per_second", "scored_per_second", "seconds"})  # to 3 decimals in log.jsonl


class RunLog:
    """The log of the run in `folder`. Of several processes only one has `writes` true and writes.

    A resumed run passes the file sizes that last.pth holds and the epochs done then. Later lines are cut off, because
    the run does and logs that part again.
    """

    def __init__(self, folder: Path, sizes: dict[str, int] | None = None, epochs: int = 0, writes: bool = True):
        self.paths = {"jsonl": folder / "log.jsonl", "text": folder / "metric_log.txt"} if writes else {}
        for name, path in self.paths.items():
            path.touch()
            _cut_off(path, sizes[name] if sizes else 0)
        self.board = _tensorboard(folder, epochs) if writes else None

    def event(self, kind: str, **values: Any) -> None:
        """Append {"event": kind, "time": Unix seconds, **values}; the numbers of an epoch also go to TensorBoard."""
        event = {"event": kind, "time": round(time.time(), 3), **values}
        self._append("jsonl", json.dumps(event, allow_nan=False))
        for name, value in values.items() if self.board and kind == "epoch" else ():
            if isinstance(value, int | float) and name != "epoch":
                self.board.add_scalar(f"{kind}/{name}", value, values["epoch"])

    def line(self, text: str) -> None:
        """Append one line to metric_log.txt."""
        self._append("text", text)

    def sizes(self) -> dict[str, int]:
        """Bytes of each file, which are then safe on the disk; none in a process that does not write."""
        return {name: _size_on_disk(path) for name, path in self.paths.items()}

    def _append(self, name: str, text: str) -> None:
        if name in self.paths:
            with naming(self.paths[name]), self.paths[name].open("a", encoding="utf-8") as file:
                file.write(text + "\n")

    def start(self, config: Config, sizes: dict, init: str | None, device: torch.device, processes: int) -> None:
        """The event of a new run, and the head of the table of epochs. sizes: {"parameters": N, "trials": {name: N}}"""
        keys = {"num_epochs": "epochs", "batch_size": "batch_size", "seed": "seed"}
        keys |= {"precision": "precision", "cache": "cache"}
        numbers = {event: getattr(config, key) for key, event in keys.items()}
        machine = {"torch": torch.__version__, "device": str(device), "threads": torch.get_num_threads()}
        self.event("start", **sizes, init=init, **numbers, **machine, processes=processes)
        self.line(HEADER)
        print(HEADER, flush=True)

    def resume(self, epoch: int, step: int) -> None:
        """The event of a run that goes on after `epoch` epochs and `step` steps of the next."""
        self.event("resume", epoch=epoch, step=step)
        print(HEADER, flush=True)

    def epoch(self, number: int, epochs: int, values: dict[str, Any]) -> None:
        """One aligned line for people, one event for programs. values: those of the event, not rounded."""
        tdcf = "–" if values["dev_min_tdcf"] is None else f"{values['dev_min_tdcf']:.4f}"
        left = tqdm.format_interval(values["seconds"] / number * (epochs - number))
        line = f"{number:>3}/{epochs:<4}{values['lr']:>9.2e}{values['loss']:>9.4f}{values['dev_eer_percent']:>11.3f}"
        line += f"{tdcf:>11}{values['utterances_per_second']:>8.1f}{left:>9}{' *' if values['best'] else ''}"
        print(line, flush=True)
        self.line(line)
        rounded = {name: round(value, 3) if name in ROUNDED else value for name, value in values.items()}
        self.event("epoch", epoch=number, **rounded)


def _cut_off(path: Path, size: int) -> None:
    """Keep the first `size` bytes; of a file that has lost its end, the whole lines, and say so."""
    if (found := path.stat().st_size) < size:
        note = f"note: {path} has lost its last {size - found:,} bytes; the run goes on without them"
        print(printable(note), file=sys.stderr)
        size = path.read_bytes().rfind(b"\n") + 1
    os.truncate(path, size)


def _size_on_disk(path: Path) -> int:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size


def _tensorboard(folder: Path, epochs: int):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(folder, purge_step=epochs + 1)
