"""Read a training run's log.jsonl, also while another process or machine writes it.

    log = LogReader("exp_result/LA_AASIST_ep100_bs24/log.jsonl")
    log.refresh()  # reads the lines that were added since the last call
    log.epochs[37]["dev_eer_percent"]

The file is only read, never changed. Its last line may be incomplete; a resumed run may cut the file off and write on;
the file may be missing for a moment, or be no log at all. Lines that do not fit `log_events.SCHEMA` are skipped and
counted. Memory does not grow with the file.
"""

import os
import stat
from collections import deque
from pathlib import Path
from typing import BinaryIO

from training.log_events import parse_event

MAX_LINE = 1 << 16  # bytes; the longest real line, that of an error, is far shorter
MAX_SETS = 100  # data sets beside eval
BLOCK = 1 << 20  # bytes read at once
TAIL = 1 << 12  # bytes kept, to check that what was read is still in the file


class LogReader:
    """The events read so far; `refresh` reads on.

    start, last: the first and the newest event, or None
    epochs: {epoch: event}, ascending
    evals: {checkpoint: event}
    further: {data set beside eval: {checkpoint: event}}
    phases: {phase: its newest progress event}
    gaps: seconds between the newest events
    skipped: number of lines that did not fit
    modified: the file's modification time (Unix seconds), or None
    trouble: why the file could not be read, or None
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
        """Read new lines; returns whether there were any. If the file cannot be read now, nothing changes."""
        before = self._offset, self._tail
        try:
            status = self.path.stat()
            if not stat.S_ISREG(status.st_mode):  # opening a pipe would block
                raise OSError("no regular file")
            with self.path.open("rb") as file:
                self.modified = status.st_mtime
                if not self._goes_on(file):
                    self._forget()
                file.seek(self._offset)
                while block := file.read(BLOCK):
                    self._feed(block)
            self.trouble = None
        except OSError as error:  # missing, or a stale network handle: the next try may work
            self.trouble = error.strerror or str(error)
        return before != (self._offset, self._tail)

    def _goes_on(self, file: BinaryIO) -> bool:
        """Whether what was read is still there: a resumed run cuts the log off and may have written past that point."""
        file.seek(self._offset - len(self._tail))
        return file.read(len(self._tail)) == self._tail

    def _feed(self, block: bytes) -> None:
        self._offset += len(block)
        self._tail = (self._tail + block)[-TAIL:]
        *lines, rest = block.split(b"\n")
        for line in lines:
            self._line(self._rest + line)
            self._rest = b""
        self._rest = (self._rest + rest)[: MAX_LINE + 1]  # enough to see that a line is too long

    def _line(self, line: bytes) -> None:
        event = parse_event(line) if len(line) <= MAX_LINE else None
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
