"""Runs many commands quickly: each is forked from a process that has imported torch already.

This file has no tests and does not import pytest, because the forked processes import it.
"""

import multiprocessing
import os
import runpy
import signal
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}  # small models: a second thread only waits
NO_DROPOUT = "import torch; torch.nn.Dropout.forward = lambda self, x: x\n"


def on_step(number: int, what: str, rank: int = 0) -> str:
    """A prelude: the process of this rank does `what` before training step `number` (from 1), unless restarted."""
    return f"""
import os, signal, time
from training import optimization
step, count = optimization.Stepper.__call__, 0
def counted(self, *arguments):
    global count
    count += 1
    rank_and_restarts = [int(os.environ.get(name, 0)) for name in ("RANK", "TORCHELASTIC_RESTART_COUNT")]
    if count == {number} and rank_and_restarts == [{rank}, 0]:
        {what}
    return step(self, *arguments)
optimization.Stepper.__call__ = counted
"""


class Done(NamedTuple):
    """How a command ended: its exit code, or minus the number of the signal that ended it."""

    returncode: int
    stdout: str
    stderr: str


class Command:
    """A running `python <script> <arguments>` in the repository's root; its output goes to files in `folder`.

    prelude: Python code that runs before the script, or instead of it if `script` is "".
    """

    def __init__(self, folder: Path, script: str, *arguments: object, prelude: str = "", **environment: object):
        self._outputs = [folder / f"{time.monotonic_ns()}.{name}" for name in ("out", "err")]
        argv = [str(ROOT / script) if script else "", *map(str, arguments)]
        names = ENVIRONMENT | {name: str(value) for name, value in environment.items()}
        process = _server().Process(target=_run, args=(argv, prelude, os.environ | names, self._outputs))
        process.start()
        self.process: BaseProcess = process

    def running(self) -> bool:
        return self.process.is_alive()

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.process.pid, number)

    def wait(self, seconds: float = 300) -> Done:
        """How it ended. Kills it and raises TimeoutError if it takes longer."""
        self.process.join(seconds)
        if self.process.is_alive():
            self.process.kill()
            raise TimeoutError(f"{self.read(1)}\nstill running after {seconds} s")
        return Done(self.process.exitcode, self.read(0), self.read(1))

    def read(self, output: int) -> str:
        """Its output so far, on stdout (0) or stderr (1)."""
        path = self._outputs[output]
        return path.read_text() if path.exists() else ""

    def until(self, condition: Callable[[], object], seconds: float = 120) -> None:
        """Wait for the condition while the command runs. Raises AssertionError if it does not come true."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.running(), f"ended with {self.process.exitcode} before the condition held: {self.read(1)}"
            assert time.monotonic() < deadline, f"the condition does not hold after {seconds} s: {self.read(1)}"
            time.sleep(0.0005)


def together(folder: Path, size: int, script: str, *arguments: object, **options) -> list[Command]:
    """Start `size` processes of one command, with the environment that torchrun gives them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = [{"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size} for rank in range(size)]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [Command(folder, script, *arguments, **options, **common, **rank) for rank in ranks]


def _server() -> multiprocessing.context.ForkServerContext:
    """Start the process to fork from, if there is none yet."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["main", "soundfile", "torch._dynamo"])  # everything that a run imports
    before = os.environ.copy()
    os.environ.update(ENVIRONMENT)
    try:
        forkserver.ensure_running()
    finally:
        for name in ENVIRONMENT:
            os.environ.pop(name)
            os.environ.update({name: before[name]} if name in before else {})
    return context


def _run(argv: list[str], prelude: str, environment: dict[str, str], outputs: list[Path]) -> None:
    multiprocessing.set_start_method("fork", force=True)  # only this server uses forkserver
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    for path, stream in zip(outputs, (sys.stdout, sys.stderr), strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o666), stream.fileno())
    sys.argv = argv
    exec(prelude, {})
    if argv[0]:
        runpy.run_path(argv[0], run_name="__main__")
