"""One training run: each epoch is trained, scored on dev and perhaps kept; in the end eval is scored once.

`TrainingRun.run` is the loop; read from there. Each of its parts is a file of its own: `optimization.py` makes a step,
`swa.py` averages epochs, `scores.py` scores a partition, `state.py` is saved and resumed, `folder.py` and `log.py`
write. Several processes (torchrun) each compute a part of every batch; the main process alone writes.
"""

import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from common.errors import UserError
from common.escaping import printable
from common.processes import Processes
from config import Config
from corpora.trials import PARTITIONS
from data_utils import ProcessPart, TrainLoader, train_loader
from scoring.detector import Detector
from scoring.engines import TorchEngine
from training.data import RunData
from training.folder import RunFolder
from training.model import load_initial
from training.optimization import compiled
from training.scores import checkpoint_fields, score_partition
from training.signals import StopSignals, TrainingStopped
from training.state import TrainingState
from training.watch import BatchWatch
from utils import load_weights, peak_memory, without_tf32


class TrainingRun:
    """One run in the folder `path`: first `begin` or `restore`, then `run`.

    init: weights to start from, a file or a name. Raises UserError when configuration, data and weights do not fit.
    """

    def __init__(
        self,
        config: Config,
        data: RunData,
        path: Path,
        device: torch.device,
        processes: Processes,
        init: str | None = None,
    ):
        self.given, self.data, self.device, self.processes, self.init = config, data, device, processes, init
        self.state = TrainingState(config, data.partitions["train"].trials, device, processes, init)
        self.config, self.model = self.state.config, self.state.model
        self.scorer = compiled(self.model) if config.compile else self.model
        data.pack()
        if processes.rank:
            torch.manual_seed(config.seed + processes.rank)  # the same weights, but other dropout
        self.folder, self.stop = RunFolder(path, processes), StopSignals()
        self.watch = BatchWatch(self.state, self.folder, self.stop)

    def begin(self, overwrite: bool = False) -> None:
        """Make the run folder. Raises UserError when it holds a run already, or another process writes to it."""
        with self.folder.create(self.given, overwrite):
            parameters = sum(p.numel() for p in self.model.parameters())
            trials = {name: len(self.data.partitions[name].trials) for name in PARTITIONS}
            sizes = {"parameters": parameters, "trials": trials}
            self.folder.log.start(self.config, sizes, self.init, self.device, self.processes.size)
            self.state.save(self.folder)

    def restore(self) -> None:
        """Go back to the state in last.pth.

        Raises UserError when there is none, it is of another run, or another process writes to the folder.
        """
        last = self.folder.reopen()
        self.state.restore(last, self.folder.checkpoint("last"))
        self.folder.resume_log(last["log_sizes"], self.state.progress.epoch, self.state.progress.step)

    def run(self) -> None:
        """Train every epoch, choose on dev, then score eval once. Raises TrainingStopped on Ctrl-C and SIGTERM."""
        config, state, progress = self.config, self.state, self.state.progress
        if config.eval_all_best and progress.epoch and not progress.step:
            self.report_missed_eval()
        while progress.epoch < config.num_epochs:
            started, first_step = time.monotonic(), progress.step
            loss = self.train_epoch()
            trained = time.monotonic()
            dev_scores, dev = self.score_dev(self.scorer)
            speeds = {
                "utterances_per_second": (progress.step - first_step) * config.batch_size / (trained - started),
                "scored_per_second": len(dev_scores) / (time.monotonic() - trained),
            }
            progress.epoch, progress.step, progress.loss_sum = progress.epoch + 1, 0, 0.0
            is_best = self.keep_best(dev_scores, dev)
            averaged = state.swa.update(self.model, progress.epoch, dev["eer_percent"], is_best)
            progress.seconds += time.monotonic() - started
            self.log_epoch(loss, dev, speeds, averaged=averaged, best=is_best)
            if is_best and config.eval_all_best:
                self.report_eval(self.model, f"epoch_{progress.epoch}", dev)
            state.save(self.folder)
        self.finish()

    def report_missed_eval(self) -> None:
        """Report eval by the epoch just trained, if that is the best and a stop came before the report's end."""
        name, best = f"epoch_{self.state.progress.epoch}", self.folder.load("best")
        missed = not (self.folder.path / "scores" / f"eval_{name}.txt").exists()
        if best["epoch"] == self.state.progress.epoch and self.processes.broadcast(missed):
            self.report_eval(self.model, name, dev_of(best))

    def train_epoch(self) -> float:
        """One pass over the training set, from `progress.step` on; returns the mean loss."""
        config, state, progress = self.config, self.state, self.state.progress
        loader = self.train_loader(progress.epoch, skip=progress.step)
        self.model.train().to(memory_format=state.stepper.layout)
        total = state.steps_per_epoch * config.batch_size
        for batch in self.watch(loader, "train", total, f"epoch {progress.epoch + 1}", done=progress.step):
            weight = float(state.trial_weights[batch.indices].sum())
            steps_before = progress.epoch * state.steps_per_epoch + progress.step
            loss = state.stepper(batch.micro_batches, weight, steps_before)
            progress.step += 1
            state.losses.append((progress.step, loss))
            state.drain_losses(waiting=int(loss.is_cuda))  # a GPU computes the next step meanwhile
            if config.save_every_steps and progress.step % config.save_every_steps == 0:
                state.save(self.folder)
        state.drain_losses()
        state.require_finite()
        return sum(self.processes.gather(progress.loss_sum)) / state.steps_per_epoch

    def score_dev(self, model: nn.Module) -> tuple[np.ndarray, dict]:
        """Dev scores (N,) in protocol order and their metrics."""
        precision = "bf16" if self.config.precision == "bf16" else "fp32"
        scores = self.score(Detector(TorchEngine(model, self.device, precision)), "dev")
        return scores, self.data.evaluate("dev", scores)

    def keep_best(self, scores: np.ndarray, dev: dict) -> bool:
        """Keep the weights if dev EER is the lowest so far; a tie goes to the later epoch, as published."""
        progress, eer = self.state.progress, dev["eer_percent"] / 100
        if eer > progress.best_dev_eer:
            return False
        progress.best_dev_eer = eer
        for name in (f"epoch_{progress.epoch}_{dev['eer_percent']:.3f}", "best"):
            self.save(name, self.model, scores, dev)
        return True

    def finish(self) -> None:
        """Save the mean of epochs as swa.pth and, with `ema_decay`, that of steps as ema.pth; then score eval once.

        Eval and the further eval sets are scored with each of these and with best.pth.
        """
        swa, ema, progress = self.state.swa, self.state.stepper.ema, self.state.progress
        loader, total = self.train_loader(self.config.num_epochs), self.state.steps_per_epoch * self.config.batch_size
        batches = self.watch(loader, "swa", total, "score swa")
        swa.model.to(memory_format=self.state.stepper.layout)
        swa.refresh_batch_norm((crops for batch in batches for crops, _ in batch.micro_batches), self.device)
        means = {"swa": swa.model} | ({"ema": ema} if ema else {})
        for name, model in means.items():
            scores, dev = self.score_dev(model)
            more = {"swa_epochs": swa.epochs} if name == "swa" else {}
            self.save(name, model, scores, dev, **more)
            parts = f"epochs {', '.join(map(str, swa.epochs))}" if name == "swa" else "steps"
            print(f"{name}.pth, the mean of {parts}: dev EER {dev['eer_percent']:.3f} %")
        for name in ("best", *means):
            checkpoint = self.folder.load(name)
            model = load_initial(self.config, None)
            load_weights(model, checkpoint, self.folder.checkpoint(name))
            for data_set in (None, *self.data.eval_sets):
                self.report_eval(model, name, dev_of(checkpoint), data_set)
        self.folder.log.event("end", epoch=progress.epoch, seconds=round(progress.seconds, 3))
        names = ", ".join(f"{name}.pth" for name in ("best", *means))
        print(printable(f"written to {self.folder.path}/: weights/ ({names}), scores/, metrics/"), flush=True)

    def report_eval(self, model: nn.Module, name: str, dev: dict, data_set: str | None = None) -> None:
        """Score eval, or a further eval set, in fp32 and report it. Nothing in the run depends on the result."""
        partition = data_set or "eval"
        with without_tf32():
            scores = self.score(Detector(TorchEngine(model, self.device)), partition)
        if self.processes.is_main:
            result = self.data.report(partition, scores, self.folder.path, f"{partition}_{name}.txt")
            numbers = {key: result[key] for key in ("eer_percent", "min_tdcf")}
            numbers |= {"dev_eer_percent": dev["eer_percent"], "dev_min_tdcf": dev["min_tdcf"]}
            numbers |= {"data_set": data_set} if data_set else {}
            self.folder.log.event("eval", epoch=self.state.progress.epoch, checkpoint=name, **numbers)

    def train_loader(self, epoch: int, skip: int = 0) -> TrainLoader:
        """The epoch's batches in random order and of random crops, without the first `skip`."""
        length = self.config.crop_samples or self.model.nb_samp
        part = ProcessPart(self.processes.rank, self.processes.size)
        return train_loader(self.data.waveforms["train"], length, self.config, epoch, skip, part)

    def score(self, detector: Detector, name: str) -> np.ndarray:
        """Scores (N,) of the partition `name` in protocol order."""
        waveforms, phase = self.data.waveforms[name], "eval" if name in self.data.eval_sets else name
        watch = partial(self.watch, phase=phase, utterances=len(waveforms), title=f"score {name}")
        return score_partition(detector, waveforms, self.config, self.processes, watch)

    def save(self, name: str, model: nn.Module, scores: np.ndarray, dev: dict, **more) -> None:
        """Write weights/<name>.pth for scoring, with what follows from its dev scores (N,) and their metrics.

        The dev scores also go to scores/, but for the checkpoint that has its epoch's name.
        """
        if not self.processes.is_main:
            return
        if not name.startswith("epoch_"):
            self.data.write_scores("dev", scores, self.folder.path / "scores" / f"dev_{name}.txt")
        fields = checkpoint_fields(self.config, self.data, model.state_dict(), scores, dev)
        self.folder.save(name, fields | {"epoch": self.state.progress.epoch} | more)

    def log_epoch(self, loss: float, dev: dict, speeds: dict[str, float], **flags: bool) -> None:
        """The line and the event of the epoch just done."""
        progress = self.state.progress
        values = {"loss": loss, "lr": self.state.stepper.optimizer.param_groups[0]["lr"]}
        values |= {"dev_eer_percent": dev["eer_percent"], "dev_min_tdcf": dev["min_tdcf"]} | speeds | flags
        values |= {"seconds": progress.seconds, "peak_memory_bytes": peak_memory(self.device)}
        self.folder.log.epoch(progress.epoch, self.config.num_epochs, values)


def dev_of(checkpoint: dict) -> dict:
    """The dev metrics of a checkpoint that `TrainingRun.save` wrote."""
    return {"eer_percent": 100 * checkpoint["dev_eer"], "min_tdcf": checkpoint["dev_min_tdcf"]}


def run_to_end(run: TrainingRun, resume: bool, overwrite: bool) -> int:
    """Begin or resume the run and finish it; returns the exit code.

    Ctrl-C and SIGTERM finish the step, save, and say how to go on. A new folder is removed when a user's mistake shows
    before any progress was saved.
    """
    with run.stop:
        try:
            run.restore() if resume else run.begin(overwrite)
            run.run()
        except TrainingStopped as stopped:
            print(printable(f"stopped; go on with: python main.py --resume {run.folder.path}"), file=sys.stderr)
            return 128 + stopped.signal
        except UserError as error:
            with suppress(UserError):  # the error may be a full disk
                if run.folder.log:
                    run.folder.log.event("error", message=str(error)[:1000])
            run.folder.discard_if_new()
            raise
        finally:
            run.folder.close()
    return 0
