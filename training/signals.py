"""Requests to stop: Ctrl-C and SIGTERM let the step finish, so that a run can save its state first."""

import signal
from typing import Self


class TrainingStopped(Exception):
    """A run was stopped by a signal, after its state was saved."""

    def __init__(self, number: int):
        super().__init__(number)
        self.signal = number


class StopSignals:
    """Inside `with`, SIGINT and SIGTERM only set `received`, the signal's number, for the run to check.

    A second Ctrl-C interrupts at once. A second SIGTERM does not: torchrun may send it to a process that is saving.
    """

    def __init__(self):
        self.received = 0
        self._handlers = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _frame) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number
