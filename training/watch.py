"""A pass over batches: its progress bar, its progress events in the log, and stops between two batches."""

import time
from collections.abc import Iterable, Iterator

from tqdm import tqdm

from training.folder import RunFolder
from training.signals import StopSignals, TrainingStopped
from training.state import TrainingState

PROGRESS_SECONDS = 30.0  # between two progress events


class BatchWatch:
    """Watches the passes of a run over its data. `stop` says whether a signal has asked this process to stop."""

    def __init__(self, state: TrainingState, folder: RunFolder, stop: StopSignals):
        self.state, self.folder, self.stop, self.processes = state, folder, stop, state.processes

    def __call__(self, loader: Iterable, phase: str, utterances: int, title: str, done: int = 0) -> Iterator:
        """The loader's batches. Raises TrainingStopped between two of them.

        phase: that of the progress events. utterances: of the whole pass, in all processes. done: batches done before.
        """
        total = done + len(loader)
        bar = {"initial": done, "total": total, "leave": False, "dynamic_ncols": True}
        bar["disable"] = None if self.processes.is_main else True
        started = logged = time.monotonic()
        for number, batch in enumerate(tqdm(loader, title, **bar), start=1):
            yield batch
            self.check_stop()
            if (now := time.monotonic()) - logged >= PROGRESS_SECONDS:
                fraction, speed = (done + number) / total, number / total / (now - started)  # speed: fractions a second
                self._log_progress(phase, round(fraction * utterances), utterances, speed * utterances)
                logged = now
        for _ in range(max(self.processes.gather(len(loader))) - len(loader)):
            self.check_stop()  # while another process has one batch more

    def check_stop(self) -> None:
        """Save the state and raise TrainingStopped if any process has received a signal."""
        state = self.state
        diverged, number = self.processes.largest(state.diverged, self.stop.received)
        state.require_finite(diverged)
        if number:
            if state.progress.epoch < state.config.num_epochs:  # after the last epoch last.pth is complete already
                state.save(self.folder)
            self.folder.log.event("stop", signal=number)
            self.processes.barrier()  # until all is saved: torchrun ends the others as soon as one has ended
            raise TrainingStopped(number)

    def _log_progress(self, phase: str, done: int, utterances: int, speed: float) -> None:
        """speed: utterances per second."""
        progress, epochs = self.state.progress, self.state.config.num_epochs
        numbers = {"done": done, "total": utterances, "utterances_per_second": round(speed, 3)}
        if phase == "train" and progress.step:
            numbers["loss"] = progress.loss_sum * self.processes.size / progress.step
        self.folder.log.event("progress", epoch=min(progress.epoch + 1, epochs), phase=phase, **numbers)
