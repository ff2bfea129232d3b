"""Read a training run's `log.jsonl`: whatever is in it, and while another machine writes it.

    log = Log("exp_result/LA_AASIST_ep100_bs24/log.jsonl")
    log.refresh()  # reads what is new since the last call
    log.epochs[37]["dev_eer_percent"]

Strictly read-only. The last line may be half written, the file cut off and written anew by a resumed run, gone for a
moment, or no log at all: a line that does not fit `SCHEMA` is skipped and counted. Memory does not grow with the file.
docs/monitoring.md explains the events.
"""

import json
import os
import re
import stat
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

MAX_LINE = 1 << 16  # bytes; the longest real line, an error's, stays far below
MAX_EPOCHS = 10_000
BLOCK, TAIL = 1 << 20, 1 << 12  # bytes: read at a time; kept to see whether what was read still stands there
PHASES = ("train", "dev", "swa", "eval")
MAX_SETS, MAX_NAME = 100, 255  # data sets beside eval, and letters in a name


def _count(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 53


def _epoch(value: object) -> bool:
    return _count(value) and 1 <= value <= MAX_EPOCHS


def _amount(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value < 1e18  # neither NaN nor infinite


def _percent(value: object) -> bool:
    return _amount(value) and value <= 100


def _text(value: object) -> bool:
    return isinstance(value, str)


def _name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME


def _flag(value: object) -> bool:
    return isinstance(value, bool)


def _phase(value: object) -> bool:
    return isinstance(value, str) and value in PHASES


def _checkpoint(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("best|swa|ema|epoch_[0-9]{1,5}", value) is not None


def _trials(value: object) -> bool:
    return isinstance(value, dict) and value.keys() <= {"train", "dev", "eval"} and all(map(_count, value.values()))


# Of each event its keys and what their values must be; with `?` a key may be absent or null. `time` belongs to all.
SCHEMA: dict[str, dict[str, Callable[[object], bool]]] = {
    "start": {
        "epochs": _epoch, "batch_size": _count, "seed": _count, "trials": _trials, "init?": _text, "device?": _text,
        "parameters?": _count, "processes?": _count, "precision?": _text, "cache?": _text, "torch?": _text,
        "threads?": _count,
    },
    "progress": {
        "epoch": _epoch, "phase": _phase, "done": _count, "total": _count, "loss?": _amount,
        "utterances_per_second?": _amount,
    },
    "epoch": {
        "epoch": _epoch, "loss": _amount, "lr?": _amount, "dev_eer_percent": _percent, "dev_min_tdcf?": _amount,
        "utterances_per_second?": _amount, "scored_per_second?": _amount, "seconds?": _amount, "averaged?": _flag,
        "best?": _flag, "peak_memory_bytes?": _count,
    },
    "resume": {"epoch": _count, "step?": _count},
    "stop": {"signal?": _count},
    "error": {"message?": _text},
    "eval": {
        "epoch?": _count, "checkpoint": _checkpoint, "dev_eer_percent?": _percent, "dev_min_tdcf?": _amount,
        "eer_percent": _percent, "min_tdcf?": _amount, "data_set?": _name,
    },
    "end": {"epoch?": _count, "seconds?": _amount},
}  # fmt: skip


def parse(line: bytes) -> dict | None:
    """The event of a line with every key that `SCHEMA` knows (None where absent), or None if it does not fit."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not _text(found.get("event")) or found["event"] not in SCHEMA:
        return None
    event = {"event": found["event"]}
    for key, fits in {"time": _amount, **SCHEMA[found["event"]]}.items():
        name = key.removesuffix("?")
        event[name] = found.get(name)
        if not fits(event[name]) and not (event[name] is None and name != key):
            return None
    return event


class Log:
    """What a run's log has said so far; `refresh` reads on.

    start, last: the first and the newest event, or None · epochs: {epoch: event}, ascending · evals: {checkpoint:
    event} · further: {data set beside eval: {checkpoint: event}} · phases: {phase: its newest progress event} · gaps:
    seconds between the newest events · skipped: lines that did not fit · modified: the file's time (Unix seconds), or
    None · trouble: why it could not be read, or None.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.modified: float | None = None
        self.trouble: str | None = None
        self._forget()

    def _forget(self) -> None:
        self.start: dict | None = None
        self.last: dict | None = None
        self.epochs: dict[int, dict] = {}
        self.evals: dict[str, dict] = {}
        self.further: dict[str, dict[str, dict]] = {}
        self.phases: dict[str, dict] = {}
        self.gaps: deque[float] = deque(maxlen=100)
        self.skipped = 0
        self._offset, self._tail, self._rest = 0, b"", b""

    def refresh(self) -> bool:
        """Read what is new; returns whether anything was. If the file cannot be read now, all stays as it was."""
        before = self._offset, self._tail
        try:
            status = self.path.stat()
            if not stat.S_ISREG(status.st_mode):  # a pipe would keep us waiting for its writer
                raise OSError("no regular file")
            with self.path.open("rb") as file:
                self.modified = status.st_mtime
                if not self._goes_on(file):
                    self._forget()
                file.seek(self._offset)
                while block := file.read(BLOCK):
                    self._feed(block)
            self.trouble = None
        except OSError as error:  # gone, or a network file system's stale handle: the next look may succeed
            self.trouble = error.strerror or str(error)
        return before != (self._offset, self._tail)

    def _goes_on(self, file: BinaryIO) -> bool:
        """Whether what was read still stands there: a resumed run cuts the log off and may have outgrown it since."""
        file.seek(self._offset - len(self._tail))
        return file.read(len(self._tail)) == self._tail

    def _feed(self, block: bytes) -> None:
        self._offset += len(block)
        self._tail = (self._tail + block)[-TAIL:]
        *lines, rest = block.split(b"\n")
        for line in lines:
            self._line(self._rest + line)
            self._rest = b""
        self._rest = (self._rest + rest)[: MAX_LINE + 1]  # enough to know that a line is too long

    def _line(self, line: bytes) -> None:
        event = parse(line) if len(line) <= MAX_LINE else None
        if event is not None:
            self._take(event)
        elif line.strip():
            self.skipped += 1

    def _take(self, event: dict) -> None:
        kind = event["event"]
        if kind == "start":
            self.start, self.epochs, self.evals, self.further, self.phases = event, {}, {}, {}, {}
        elif kind == "resume":
            self._drop_after(event["epoch"])
        elif kind == "epoch":
            self._drop_after(event["epoch"] - 1)
            self.epochs[event["epoch"]] = event
        elif kind == "eval" and event["data_set"] is None:
            self.evals[event["checkpoint"]] = event
        elif kind == "eval" and (event["data_set"] in self.further or len(self.further) < MAX_SETS):
            self.further.setdefault(event["data_set"], {})[event["checkpoint"]] = event
        elif kind == "progress":
            self.phases[event["phase"]] = event
        if self.last is not None and kind not in ("start", "resume") and event["time"] >= self.last["time"]:
            self.gaps.append(event["time"] - self.last["time"])
        self.last = event

    def _drop_after(self, epoch: int) -> None:
        while self.epochs and next(reversed(self.epochs)) > epoch:
            self.epochs.popitem()
