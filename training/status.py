"""How training runs are doing: what their logs say, which runs a folder holds, and this machine's GPUs.

    run = RunStatus("exp_result/LA_AASIST_ep100_bs24")
    run.refresh()  # reads what was logged since the last call
    print(run.state(), run.seconds_left())

Strictly read-only. Imports no torch, so that watching a run costs nothing.
"""

import math
import os
import statistics
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.escaping import printable
from training.log_reader import LogReader
from training.terminal import format_bytes, format_duration

PHASES = {"train": "training", "dev": "scoring dev", "swa": "averaging", "eval": "scoring eval"}
ENDED = {"stop": "stopped", "error": "failed", "end": "finished"}
QUIET_SECONDS = 600  # a run without an event for a shorter time is never worth a warning
CLOCK_SECONDS = 60  # a log's clock may be this far ahead of ours without a warning
DEVICES = Path("/dev")
EPOCHS_TIMED = 9  # the median time of this many newest epochs: a slow first epoch or a pause does not change it


class RunStatus:
    """A watched run: its log, and when this process saw the log grow."""

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        self.name = printable(self.folder.name)
        self.log = LogReader(self.folder / "log.jsonl")
        self._first_read: float | None = None  # monotonic seconds
        self._last_growth: float | None = None  # monotonic seconds

    def refresh(self) -> None:
        """Read what was logged since the last call."""
        grew = self.log.refresh()
        if self._first_read is None:
            self._first_read = time.monotonic()
        elif grew:
            self._last_growth = time.monotonic()

    @property
    def epochs(self) -> int | None:
        """Epochs that the run is configured for."""
        return self.log.start["epochs"] if self.log.start else None

    @property
    def epochs_done(self) -> int:
        return next(reversed(self.log.epochs), 0)

    @property
    def current_epoch(self) -> int:
        """The epoch being trained, or the last one if none is."""
        current = self.epochs_done + (not self.ended)
        return min(current, self.epochs) if self.epochs else current

    @property
    def ended(self) -> bool:
        return self.log.last is not None and self.log.last["event"] in ENDED

    def state(self) -> str:
        """What the run is doing, in a word or two."""
        last = self.log.last or {"event": "start"}
        if self.ended:
            return ENDED[last["event"]]
        if last["event"] == "progress":
            return PHASES[last["phase"]]
        if last["event"] in ("start", "resume"):
            return "starting"
        final = "scoring eval" if last["event"] == "eval" else "averaging"
        return final if self.epochs_done == self.epochs else "training"

    def seconds_silent(self, now: float) -> float:
        """Seconds since the last event; `now`: Unix seconds.

        Once this process has seen the log grow, its own clock counts. Until then the clocks of the run and of the disk
        may differ from ours, so the smaller age counts: that of the last event or that of the file.
        """
        if self._last_growth is not None:
            return time.monotonic() - self._last_growth
        times = [self.log.modified, self.log.last and self.log.last["time"]]
        newest = max((at for at in times if at is not None), default=now)
        return max(now - newest, time.monotonic() - self._first_read)

    def seconds_per_epoch(self) -> float | None:
        """Median of the newest epochs; None until one is done."""
        ends = {0: 0.0} | {k: epoch["seconds"] for k, epoch in self.log.epochs.items() if epoch["seconds"] is not None}
        took = [ends[k] - ends[k - 1] for k in list(ends)[-EPOCHS_TIMED:] if k - 1 in ends]
        return statistics.median(took) if took else None

    def seconds_left(self) -> float | None:
        """To the end of training, without the final scoring; None if unknown or if the run does not go on."""
        each = self.seconds_per_epoch()
        if each is None or self.epochs is None or self.ended or self.epochs_done >= self.epochs:
            return None
        return max(0.0, (self.epochs - self.epochs_done - self._epoch_fraction(each)) * each)

    def _epoch_fraction(self, each: float) -> float:
        """Fraction of the current epoch's time that is over: first it trains, then it scores dev. each: seconds."""
        last = self.log.last
        if last["event"] != "progress" or last["epoch"] != self.epochs_done + 1:
            return 0.0
        if last["phase"] not in ("train", "dev"):
            return 0.0
        speed = self.log.epochs[self.epochs_done]["utterances_per_second"]
        training = min(1.0, self.log.start["trials"].get("train", 0) / speed / each) if speed and each > 0 else 1.0
        done = phase_fraction(last)
        return training * done if last["phase"] == "train" else training + (1 - training) * done

    def current_loss(self) -> float | None:
        """Mean loss of the current epoch so far."""
        training = self.log.phases.get("train")
        return training["loss"] if training and training["epoch"] > self.epochs_done else None

    def speeds(self) -> dict[str, float | None]:
        """Utterances per second in training and in scoring, from the newest progress, else from the last epoch."""
        keys = {"training": (("train",), "utterances_per_second"), "scoring": (("dev", "eval"), "scored_per_second")}
        speeds = {}
        for name, (phases, key) in keys.items():
            events = [self.log.phases[phase] for phase in phases if phase in self.log.phases]
            newest = max(events, key=lambda event: event["time"], default={"utterances_per_second": None})
            last = self.log.epochs[self.epochs_done][key] if self.epochs_done else None
            speeds[name] = newest["utterances_per_second"] or last
        return speeds

    def by_epoch(self, key: str) -> dict[int, float]:
        """`key` of the epoch events, by epoch, where it is known."""
        return {number: epoch[key] for number, epoch in self.log.epochs.items() if epoch[key] is not None}

    def warnings(self, now: float) -> list[str]:
        """What is wrong or odd, in words; `now`: Unix seconds."""
        log, found, silent = self.log, [], self.seconds_silent(now)
        usual = statistics.median(log.gaps) if log.gaps else 0.0
        if not self.ended and silent > max(QUIET_SECONDS, 3 * usual):
            found.append(f"no progress for {silent / 60:.0f} minutes: is it still running?")
        if log.trouble:
            known = "the values shown were read before" if log.last else "nothing is known yet"
            found.append(f"log.jsonl cannot be read now ({printable(log.trouble)}); {known}")
        if log.skipped:
            found.append(f"{log.skipped:,} lines of log.jsonl are not valid and were skipped")
        if log.last and log.last["time"] - now > CLOCK_SECONDS:
            ahead = format_duration(log.last["time"] - now)
            found.append(f"clocks differ: the last event is {ahead} ahead of this machine")
        if self.state() == "failed":
            message = " ".join((log.last["message"] or "no reason given").split())
            found.append(f"failed: {printable(message)}")
        return found


def phase_fraction(progress: dict) -> float:
    """The fraction of its phase that a progress event reports as done."""
    return min(1.0, progress["done"] / progress["total"]) if progress["total"] else 0.0


# ------------------------------------------------------------------------------------------------------- folders


def is_run(folder: Path) -> bool:
    """Whether this is a run folder. One with `config.conf` alone is a run that has not started yet."""
    return any(os.path.exists(folder / name) for name in ("log.jsonl", "config.conf"))


def find_runs(folder: Path) -> list[Path]:
    """The run folders that `folder` is or contains, down to two levels; none if it cannot be listed now."""
    if is_run(folder):
        return [folder]
    try:
        return [path for pattern in ("*", "*/*") for path in folder.glob(pattern) if is_run(path)]
    except OSError:
        return []


def newest_run(folder: Path) -> Path:
    """The run below `folder` whose log was written last. Raises UserError if there is none."""

    def written(path: Path) -> float:
        try:
            return (path / "log.jsonl").stat().st_mtime
        except OSError:
            return 0.0

    found = find_runs(folder)
    if not found:
        raise UserError(f"no run below {folder}", "a folder with log.jsonl there, or --dir RUN", "none")
    return max(found, key=written)


def refresh_runs(runs: dict[Path, RunStatus], folders: Iterable[Path]) -> list[RunStatus]:
    """Add the runs that are now in `folders` to `runs`, refresh all of them, and return them, the newest first.

    A run that was found once stays. Raises UserError if a folder has never contained one.
    """
    for folder in folders:
        found = [path.resolve() for path in find_runs(folder)]
        if not found and not any(path.is_relative_to(folder.resolve()) for path in runs):
            raise UserError(f"--dir {folder} contains no run", "a folder with log.jsonl, or a folder of such", "none")
        runs |= {path: RunStatus(path) for path in found if path not in runs}
    count = Counter(path.name for path in runs)
    for path, run in runs.items():
        run.name = printable(path.name if count[path.name] == 1 else str(path))
        run.refresh()
    return sorted(runs.values(), key=lambda run: run.log.start["time"] if run.log.start else math.inf, reverse=True)


def checkpoint_files(folder: Path) -> dict[str, os.stat_result]:
    """The checkpoints best, swa, last and that of the newest epoch, where a run has them."""
    found = {}
    try:
        names = os.listdir(folder / "weights")
    except OSError:  # not there yet
        return {}
    for name in names:
        if name.endswith(".pth") and not name.startswith("."):  # a hidden one is still being written
            with suppress(OSError):  # replaced in the meantime: the next update shows it
                found[name.removesuffix(".pth")] = os.stat(folder / "weights" / name)
    epochs = sorted((name for name in found if name.startswith("epoch_")), key=lambda name: found[name].st_mtime)
    return {name: found[name] for name in ("best", "swa", "last", *epochs[-1:]) if name in found}


# ------------------------------------------------------------------------------------------------------- machine


def gpu_status() -> list[str]:
    """Use and memory of each GPU of this machine; empty without nvidia-ml-py or a driver."""
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError:  # no driver
        return []
    return [_one_gpu(pynvml, index) for index in range(count)]


def missing_gpu_package() -> str | None:
    """How to see the GPUs of this machine, if it has any that `gpu_status` cannot show."""
    if any(DEVICES.glob("nvidia[0-9]*")) and find_spec("pynvml") is None:
        return "this machine has a GPU; `pip install nvidia-ml-py` to see its use and memory here"
    return None


def _one_gpu(nvml: Any, index: int) -> str:
    known = []
    try:
        device = nvml.nvmlDeviceGetHandleByIndex(index)
        memory = nvml.nvmlDeviceGetMemoryInfo(device)
        known = [str(nvml.nvmlDeviceGetName(device)), f"{format_bytes(memory.used)} of {format_bytes(memory.total)}"]
        known.append(f"{nvml.nvmlDeviceGetUtilizationRates(device).gpu} % busy")  # unknown on a divided GPU (MIG)
    except nvml.NVMLError as error:
        known.append(str(error))
    return f"GPU {index} of this machine: {', '.join(known)}"
