"""One run: train every epoch, choose on dev, average, and score eval once. `Training.run` is the loop.

Everything that the rest of a run depends on is in weights/last.pth, so that a run which was killed at any moment ends
with the same bits as one that was not. Of several processes each has a share of every batch; the first one writes.
"""

import json
import math
import shutil
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn
from tqdm import tqdm

from common.errors import UserError
from common.files import exclusive, write_text
from common.processes import Processes
from common.schema import require
from config import Config, save_config, to_dict
from corpora.open import open_data_set, open_eval_sets, open_partition
from corpora.trials import PARTITIONS, Partition
from data_utils import (
    Order,
    ProcessPart,
    balance_weights,
    preflight,
    require_transforms,
    score_loader,
    train_loader,
    with_pack,
)
from metrics.calibration import fit_calibration
from metrics.evaluate import evaluate
from metrics.score_files import read_asv_scores, write_scores
from metrics.scores import Scores
from metrics.tables import format_report
from metrics.tandem import AsvScores
from models import build_model
from scoring.detector import Detector
from scoring.engines import TorchEngine
from scoring.weights import locate
from training.optimization import Stepper, compiled
from utils import (
    RunLog,
    load_checkpoint,
    load_weights,
    peak_memory,
    rng_state,
    save_checkpoint,
    seed_everything,
    set_precision,
    set_rng_state,
)

HEADER = f"{'epoch':>7} {'lr':>9} {'loss':>8} {'dev EER %':>10} {'dev t-DCF':>10} {'utt/s':>7} {'left':>8}"
RESOLVED = frozenset({"encoder_config", "do_normalize"})  # of model_config: what a model adds that it took from outside
HEARTBEAT = 30.0  # seconds between the log's lines on an epoch that is under way


class Place(NamedTuple):
    """What computes: this process's device, and the processes that train together."""

    device: torch.device
    processes: Processes


# ----------------------------------------------------------------------------------------------------------- data


class Data:
    """The checked corpus of a run: its partitions, the ASV scores of all but train, and notes for people.

    `eval_sets` names the partitions that are only there to be scored at the end of a training. Nothing is decoded until
    `pack()`, which takes minutes, so that whatever else is wrong with a run is said before.
    """

    def __init__(self, config: Config, names: Iterable[str], device: torch.device):
        require_transforms(config)
        self.config, self.device = config, device
        partitions = [open_partition(config.database_path, config.track, name) for name in names]
        if config.asv_score_path:
            path = open_data_set(config.database_path[0], config.track).root / config.asv_score_path
            partitions = [replace(one, asv=path) if one.name == "eval" else one for one in partitions]
        further = open_eval_sets(config.eval_sets, config.track) if "train" in names else []
        self.eval_sets = [partition.name for partition in further]
        packs = None if config.cache == "off" else config.cache_path
        self.notes = preflight(partitions + further, config.track, packs)
        self.asv: dict[str, AsvScores] = {}
        for one in partitions + further:
            if one.name == "eval" and config.asv_score_path:
                self.asv["eval"] = read_asv_scores(one.asv)
            elif one.name != "train" and (scores := one.asv_scores()):
                self.asv[one.name] = scores
            elif one.name in ("dev", "eval"):
                at = f" at {one.asv}" if one.asv else ""
                self.notes.append(f"no ASV scores{at}: min t-DCF of {one.name} is not computed")
        vocoded = [one.with_vocoded(config.vocode) if one.name == "train" else one for one in partitions]
        self.partitions = {one.name: one for one in vocoded + further}

    def pack(self) -> None:
        """Have the samples where `cache` says. Raises what `with_pack` raises."""
        config = self.config
        seldom = config if config.cache == "off" else replace(config, cache="mmap")  # memory is for what is read often
        for name, one in self.partitions.items():
            if one.pack is None:
                self.partitions[name] = with_pack(one, seldom if name in self.eval_sets else config, self.device)

    def is_bonafide(self, name: str) -> np.ndarray:
        return self.partitions[name].is_bonafide()

    def evaluate(self, name: str, scores: np.ndarray) -> dict:
        """`metrics.evaluate.evaluate` of scores (N,) in protocol order, with the ASV scores of the same partition."""
        trials = self.partitions[name].trials
        utt_id, attack = np.array([t.utt_id for t in trials]), np.array([t.attack for t in trials])
        own = Scores(utt_id, scores, self.is_bonafide(name), attack)
        return evaluate(own, self.asv.get(name))

    def write_scores(self, name: str, scores: np.ndarray, path: Path) -> None:
        """The score file of a partition, in protocol order."""
        trials = self.partitions[name].trials
        columns = ([getattr(trial, column) for trial in trials] for column in ("utt_id", "attack", "key"))
        write_scores(path, *columns, scores)

    def report(self, scores: np.ndarray, folder: Path, file: str, name: str = "eval") -> dict:
        """Write scores (N,) to scores/, their metrics to metrics/ (JSON and text), and print the latter."""
        self.write_scores(name, scores, folder / "scores" / file)
        result = self.evaluate(name, scores)
        table = format_report(result, name=f"{folder.name}, {file}")
        write_text(folder / "metrics" / Path(file).with_suffix(".json"), json.dumps(result, indent=2) + "\n")
        write_text(folder / "metrics" / file, table + "\n")
        print(table, flush=True)
        return result


def load_initial(config: Config, weights: str | None) -> nn.Module:
    """The configured model, fresh or with weights, a file's or by name. Raises UserError when they do not fit it.

    An encoder whose architecture is with the weights is not fetched.
    """
    if not weights:
        return build_model(config.model_config)
    checkpoint = load_checkpoint(locate(weights))
    known = (checkpoint["config"] or {}).get("model_config", {})
    same = known.get("encoder") == config.model_config.get("encoder")
    model = build_model({key: known[key] for key in RESOLVED & known.keys() if same} | config.model_config)
    load_weights(model, checkpoint, weights)
    return model


def require_crops(model: nn.Module, config: Config, processes: int) -> None:
    """Raises UserError when the model cannot be trained on crops of `config.crop_samples`, or so few at once."""
    at_once, least = config.batch_size // (config.accumulation_steps * processes), getattr(model, "least_batch", 2)
    require(at_once >= least, "batch_size", f"{least} or more in each micro-batch of each process", at_once)
    if config.crop_samples:
        try:
            with torch.random.fork_rng(devices=[]):
                other = build_model(config.model_config | {"nb_samp": config.crop_samples}).state_dict()
        except UserError as error:
            raise UserError(f"crop_samples {config.crop_samples}: {error}") from error
        fit = all(other[name].shape == tensor.shape for name, tensor in model.state_dict().items())
        architecture = config.model_config["architecture"]
        require(fit, "crop_samples", f"null: {architecture} is made for one length of chunk", config.crop_samples)


def score(
    detector: Detector, partition: Partition, config: Config, place: Place, watch: Callable[[Iterable], Iterable]
) -> np.ndarray:
    """Scores (N,) of a partition in protocol order, in every process; each computes its share.

    watch: goes over the loader's batches, and may stop.
    """
    rank, size = place.processes.rank, place.processes.size
    loader = score_loader(partition, detector.engine.nb_samp, config, ProcessPart(rank, size))
    scores = np.empty(len(partition.trials))
    for other, part in enumerate(place.processes.gather(detector.score(watch(loader)))):
        scores[other::size] = part
    return scores


# ------------------------------------------------------------------------------------------------------- training


class Stopped(Exception):
    """Ctrl-C or SIGTERM, after the state was saved."""

    def __init__(self, number: int):
        super().__init__(number)
        self.signal = number


@dataclass
class Progress:
    """Where a run stands; with weights, optimizer and generators it is all that the rest of the run depends on."""

    epoch: int = 0  # epochs done
    step: int = 0  # batches done of the next epoch
    loss_sum: float = 0.0  # over those batches
    seconds: float = 0.0  # spent on the epochs done
    best_dev_eer: float = math.inf  # fraction
    swa_triggered: bool = False  # the published averaging policy has begun
    swa_epochs: list[int] = field(default_factory=list)


class Training:
    """One run; `run()` is the loop, after `begin()` or `restore()`.

    Raises UserError when the configuration, the data and the weights do not fit.
    """

    def __init__(self, config: Config, data: Data, folder: Path, place: Place, init: str | None):
        self.config, self.data, self.folder, self.place, self.init = config, data, folder, place, init
        self.part = ProcessPart(place.processes.rank, place.processes.size)
        trials = data.partitions["train"].trials
        self.order = Order(trials, config)
        self.trial_weights = np.array(config.class_weights)[[trial.label for trial in trials]]  # (N,)
        self.steps_per_epoch = len(trials) // config.batch_size
        if self.steps_per_epoch == 0:
            raise UserError("batch_size is too large", f"at most the {len(trials)} training trials", config.batch_size)
        seed_everything(config)
        set_precision(config.precision, place.device)
        self.model = load_initial(config, init).to(place.device)
        # Weights are kept with all that building their model takes; config.conf stays as it was given.
        self.given = config
        self.config = replace(config, model_config=getattr(self.model, "model_config", config.model_config))
        require_crops(self.model, self.config, self.part.size)
        self.stepper = Stepper(self.model, config, self.steps_per_epoch, self.part.size)
        self.scorer = compiled(self.model) if config.compile else self.model
        self.swa = AveragedModel(self.model)
        data.pack()
        if self.part.rank:
            torch.manual_seed(config.seed + self.part.rank)  # the same weights, but other dropout
        self.progress, self.losses = Progress(), deque()  # losses: (step, loss) that are not added up yet
        self.signal = self.diverged = 0  # by which signal to stop; at which step of the epoch, from 1
        self.log: RunLog | None = None  # until begin() or restore()
        self.is_new = False  # the folder was made by this process, and no progress is in it
        self.claim = ExitStack()  # to the folder, from begin() or restore() until it is closed

    def run(self) -> None:
        """Train every epoch, choose on dev, then score eval once. Raises Stopped on Ctrl-C and SIGTERM."""
        config, progress = self.config, self.progress
        while progress.epoch < config.num_epochs:
            started, first = time.monotonic(), progress.step
            loss = self.train_epoch()
            trained = time.monotonic()
            dev_scores, dev = self.score_dev(self.scorer)
            speeds = {
                "utterances_per_second": (progress.step - first) * config.batch_size / (trained - started),
                "scored_per_second": len(dev_scores) / (time.monotonic() - trained),
            }
            progress.epoch, progress.step, progress.loss_sum = progress.epoch + 1, 0, 0.0
            improved = self.keep_best(dev_scores, dev)
            averaged = self.average(dev, improved)
            progress.seconds += time.monotonic() - started
            self.log_epoch(loss, speeds, dev, averaged=averaged, best=improved)
            if improved and config.eval_all_best:
                self.report_eval(self.model, f"epoch_{progress.epoch}", dev)
            self.save_last()
        self.finish()

    def train_epoch(self) -> float:
        """One pass over the training set, from where the progress stands; returns the mean loss."""
        config, progress = self.config, self.progress
        loader = self.train_loader(progress.epoch, skip=progress.step * config.batch_size)
        self.model.train().to(memory_format=torch.contiguous_format)  # scoring's layout trains slower, and inexactly
        batches = self.watch(loader, "train", done=progress.step * config.accumulation_steps)
        for parts in zip(*[batches] * config.accumulation_steps, strict=True):
            indices = self.order.batch(progress.epoch, progress.step)
            done = progress.epoch * self.steps_per_epoch + progress.step
            loss = self.stepper(parts, float(self.trial_weights[indices].sum()), done)
            progress.step += 1
            self.losses.append((progress.step, loss))
            self.add_up(waiting=int(loss.is_cuda))  # a GPU computes the next step meanwhile
            if config.save_every_steps and progress.step % config.save_every_steps == 0:
                self.save_last()
        self.add_up()
        self.require_finite()
        return sum(self.place.processes.gather(progress.loss_sum)) / self.steps_per_epoch

    def add_up(self, waiting: int = 0) -> None:
        """Take all losses but the newest `waiting` into the sum."""
        while len(self.losses) > waiting:
            step, loss = self.losses.popleft()
            self.progress.loss_sum += loss.item()
            if not self.diverged and not math.isfinite(self.progress.loss_sum):
                self.diverged = step

    def require_finite(self, step: int | None = None) -> None:
        """Raises UserError with the utterances of the batch whose loss was not a number, in any process.

        step: of that batch, if the processes have agreed on it already.
        """
        if step is None:
            (step,) = self.place.processes.largest(self.diverged)
        if step:
            trials = self.data.partitions["train"].trials
            names = " ".join(trials[index].utt_id for index in self.order.batch(self.progress.epoch, step - 1))
            where = f"training diverged in epoch {self.progress.epoch + 1}, step {step}"
            raise UserError(where, "a finite loss", f"none, in the batch {names}")

    def keep_best(self, scores: np.ndarray, dev: dict) -> bool:
        """Keep the weights if dev EER is the lowest so far; a tie goes to the later epoch, as published."""
        eer = dev["eer_percent"] / 100
        if eer > self.progress.best_dev_eer:
            return False
        self.progress.best_dev_eer = eer
        for name in (f"epoch_{self.progress.epoch}_{dev['eer_percent']:.3f}", "best"):
            self.save(name, self.model, scores, dev)
        return True

    def average(self, dev: dict, improved: bool) -> bool:
        """Take this epoch's weights into the mean if the policy says so (see `config.SWAConfig`).

        Until the published policy begins, the last tenth of the epochs is averaged, in case it never does.
        """
        progress, policy = self.progress, self.config.swa
        if not policy.last and improved and dev["eer_percent"] <= policy.max_dev_eer:
            if not progress.swa_triggered:
                self.swa.n_averaged.zero_()
                progress.swa_triggered, progress.swa_epochs = True, []
        else:
            last = policy.last or max(1, self.config.num_epochs // 10)
            if progress.swa_triggered or progress.epoch <= self.config.num_epochs - last:
                return False
        self.swa.update_parameters(self.model)
        progress.swa_epochs.append(progress.epoch)
        return True

    def finish(self) -> None:
        """Make swa.pth and, where there is one, ema.pth; then score eval once with each, and with best.pth.

        So are the further eval sets.
        """
        update_bn(self.watch(self.train_loader(self.config.num_epochs), "swa"), self.swa.module, self.place.device)
        means = {"swa": self.swa.module} | ({"ema": self.stepper.ema} if self.stepper.ema else {})
        for name, model in means.items():
            scores, dev = self.score_dev(model)
            more = {"swa_epochs": self.progress.swa_epochs} if name == "swa" else {}
            self.save(name, model, scores, dev, **more)
            print(f"{name} {more or ''}: dev EER {dev['eer_percent']:.3f} %")
        set_precision("fp32", self.place.device)
        for name in ("best", *means):
            path = self.folder / "weights" / f"{name}.pth"
            checkpoint = self.load(path)
            model = load_initial(self.config, None)
            load_weights(model, checkpoint, path)
            dev = {"eer_percent": 100 * checkpoint["dev_eer"], "min_tdcf": checkpoint["dev_min_tdcf"]}
            self.report_eval(model, name, dev)
            for data_set in self.data.eval_sets:
                self.report_eval(model, name, dev, data_set)
        self.log.event("end", epoch=self.progress.epoch, seconds=round(self.progress.seconds, 3))

    # ------------------------------------------------------------------------------------- data and scores

    def train_loader(self, epoch: int, skip: int = 0) -> Iterable:
        """This process's micro-batches of the epoch's random order and crops, less the first `skip` utterances."""
        length = self.config.crop_samples or self.model.nb_samp
        return train_loader(self.data.partitions["train"], length, self.config, epoch, skip, self.part)

    def score_dev(self, model: nn.Module) -> tuple[np.ndarray, dict]:
        """Dev scores (N,) in protocol order and their metrics."""
        precision = "bf16" if self.config.precision == "bf16" else "fp32"
        scores = self.score(Detector(TorchEngine(model, self.place.device, precision)), "dev")
        return scores, self.data.evaluate("dev", scores)

    def report_eval(self, model: nn.Module, name: str, dev: dict, data_set: str | None = None) -> None:
        """Score eval, or a further eval set, in fp32 and report it. Nothing in a run depends on what comes out."""
        partition = data_set or "eval"
        scores = self.score(Detector(TorchEngine(model, self.place.device)), partition)
        if self.place.processes.is_main:
            result = self.data.report(scores, self.folder, f"{partition}_{name}.txt", partition)
            numbers = {key: result[key] for key in ("eer_percent", "min_tdcf")}
            numbers |= {"dev_eer_percent": dev["eer_percent"], "dev_min_tdcf": dev["min_tdcf"]}
            numbers |= {"data_set": data_set} if data_set else {}
            self.log.event("eval", epoch=self.progress.epoch, checkpoint=name, **numbers)

    def score(self, detector: Detector, name: str) -> np.ndarray:
        return score(
            detector, self.data.partitions[name], self.config, self.place, lambda loader: self.watch(loader, name)
        )

    def watch(self, loader: Iterable, phase: str, done: int = 0) -> Iterator:
        """The loader's batches, with a progress bar, and lines in the log that say how far it is.

        Between two of them a request to stop is obeyed, in all processes at the same place.
        """
        total = done + len(loader)
        bar = {"initial": done, "total": total, "leave": False, "dynamic_ncols": True}
        bar["disable"] = None if self.place.processes.is_main else True
        title = f"epoch {self.progress.epoch + 1}" if phase == "train" else f"score {phase}"
        started = said = time.monotonic()
        for number, batch in enumerate(tqdm(loader, title, **bar), start=1):
            yield batch
            self.obey()
            if (now := time.monotonic()) - said >= HEARTBEAT:
                self.log_progress(phase, (done + number) / total, number / total / (now - started))
                said = now
        for _ in range(max(self.place.processes.gather(len(loader))) - len(loader)):
            self.obey()  # where shares differ by a batch

    def obey(self) -> None:
        """Stop, with the state saved, if Ctrl-C or SIGTERM has reached any process."""
        step, number = self.place.processes.largest(self.diverged, self.signal)
        self.require_finite(step)
        if number:
            if self.progress.epoch < self.config.num_epochs:  # after that, last.pth is as it should be
                self.save_last()
            self.log.event("stop", signal=number)
            self.place.processes.barrier()  # until all is saved: when one has ended, torchrun ends the others
            raise Stopped(number)

    def on_signal(self, number: int, _frame) -> None:
        """Ctrl-C and SIGTERM let the step finish; a second Ctrl-C does not wait, a second SIGTERM may be torchrun's."""
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number

    # ----------------------------------------------------------------------------------------- files and log

    def begin(self, overwrite: bool) -> None:
        """Make the run folder. It counts as a run, and can be resumed, from the moment that its config.conf is there.

        Raises UserError when it holds a run already, or another process writes to it.
        """
        leads = self.place.processes.is_main
        with (
            exclusive(self.folder.parent) if leads else nullcontext()
        ):  # of two runs that want one folder, one is refused
            is_new = not self.folder.exists()
            if leads:
                self.claim.enter_context(exclusive(self.folder, wait=False))
                make_folder(self.folder, overwrite)
            self.log = RunLog(self.folder, writes=leads)
            self._log_start()
            self.save_last()
            if leads:
                save_config(self.given, self.folder / "config.conf")
        self.is_new = is_new

    def _log_start(self) -> None:
        parameters = sum(p.numel() for p in self.model.parameters())
        trials = {name: len(self.data.partitions[name].trials) for name in PARTITIONS}
        keys = {"num_epochs": "epochs", "batch_size": "batch_size", "seed": "seed"}
        keys |= {"precision": "precision", "cache": "cache"}
        numbers = {event: getattr(self.config, key) for key, event in keys.items()}
        machine = {"torch": torch.__version__, "device": str(self.place.device), "threads": torch.get_num_threads()}
        machine["processes"] = self.part.size
        self.log.event("start", parameters=parameters, trials=trials, init=self.init, **numbers, **machine)
        self.log.line(HEADER)
        print(HEADER, flush=True)

    def restore(self) -> None:
        """Go back to where last.pth stands.

        Raises UserError when there is none, it is of another run, or another process writes to the folder.
        """
        if self.place.processes.is_main:
            self.claim.enter_context(exclusive(self.folder, wait=False))
        path = self.folder / "weights" / "last.pth"
        last = self.load(path)
        if "stepper" not in last:
            raise UserError(f"cannot resume from {path}", "one that this version saved", "an older one")
        load_weights(self.model, last, path)
        self.stepper.load_state_dict(last["stepper"])
        self.swa.load_state_dict(last["swa"])
        self.progress = Progress(**last["progress"])
        if len(last["rng"]) == self.part.size:
            set_rng_state(last["rng"][self.part.rank])
        else:
            print(f"note: saved by {len(last['rng'])} processes: dropout goes on differently", file=sys.stderr)
        if not self.place.processes.is_main:
            self.progress.loss_sum = 0.0  # the first process has all processes' sum
        else:
            for leftover in (self.folder / "weights").glob(".*.pth.*"):  # of a save that was killed
                leftover.unlink()
        self.log = RunLog(self.folder, last["log_sizes"], self.progress.epoch, self.place.processes.is_main)
        self.log.event("resume", epoch=self.progress.epoch, step=self.progress.step)
        print(HEADER, flush=True)

    def load(self, path: Path) -> dict:
        """A checkpoint, read by the first process: the others' disk need not hold it."""
        processes = self.place.processes
        return processes.broadcast(load_checkpoint(path) if processes.is_main else None)

    def save(self, name: str, model: nn.Module, scores: np.ndarray, dev: dict, **more) -> None:
        """weights/<name>.pth: what scoring and others' code need; with the dev scores, any operating point follows.

        The scores of best.pth and the means' are also written to scores/.
        """
        if not self.place.processes.is_main:
            return
        if not name.startswith("epoch_"):
            self.data.write_scores("dev", scores, self.folder / "scores" / f"dev_{name}.txt")
        fields = scored(self.config, self.data, model.state_dict(), scores, dev) | {"epoch": self.progress.epoch}
        save_checkpoint(self.folder / "weights" / f"{name}.pth", fields | more)

    def save_last(self) -> None:
        """weights/last.pth: everything that going on needs, of all processes."""
        self.add_up()
        self.require_finite()
        processes = self.place.processes
        loss_sum, rng = sum(processes.gather(self.progress.loss_sum)), processes.gather(rng_state())
        if processes.is_main:
            fields = {
                "config": to_dict(self.config),
                "model": self.model.state_dict(),
                "stepper": self.stepper.state_dict(),
                "swa": self.swa.state_dict(),
                "progress": asdict(self.progress) | {"loss_sum": loss_sum},
                "rng": rng,
                "log_sizes": self.log.sizes(),
            }
            save_checkpoint(self.folder / "weights" / "last.pth", fields)
        self.is_new = False

    def log_progress(self, phase: str, done: float, speed: float) -> None:
        """How far a pass over the data is; done: a share of it, speed: shares a second."""
        progress = self.progress
        total = self.steps_per_epoch * self.config.batch_size
        if phase not in ("train", "swa"):
            total = len(self.data.partitions[phase].trials)
            phase = "eval" if phase in self.data.eval_sets else phase
        numbers = {"done": round(done * total), "total": total, "utterances_per_second": round(speed * total, 3)}
        if phase == "train" and progress.step:
            numbers["loss"] = progress.loss_sum * self.part.size / progress.step
        epoch = min(progress.epoch + 1, self.config.num_epochs)
        self.log.event("progress", epoch=epoch, phase=phase, **numbers)

    def log_epoch(self, loss: float, speeds: dict[str, float], dev: dict, **flags: bool) -> None:
        """One aligned line for people, one object for programs."""
        progress, epochs = self.progress, self.config.num_epochs
        lr = self.stepper.optimizer.param_groups[0]["lr"]
        tdcf = "–" if dev["min_tdcf"] is None else f"{dev['min_tdcf']:.4f}"
        left = tqdm.format_interval(progress.seconds / progress.epoch * (epochs - progress.epoch))
        line = f"{progress.epoch:>3}/{epochs:<4}{lr:>9.2e}{loss:>9.4f}{dev['eer_percent']:>11.3f}{tdcf:>11}"
        line += f"{speeds['utterances_per_second']:>8.1f}{left:>9}{' *' if flags['best'] else ''}"
        print(line, flush=True)
        self.log.line(line)
        numbers = {"loss": loss, "lr": lr, "dev_eer_percent": dev["eer_percent"], "dev_min_tdcf": dev["min_tdcf"]}
        numbers |= {name: round(speed, 3) for name, speed in speeds.items()} | flags
        numbers |= {"seconds": round(progress.seconds, 3), "peak_memory_bytes": peak_memory(self.place.device)}
        self.log.event("epoch", epoch=progress.epoch, **numbers)


def scored(config: Config, data: Data, weights: dict[str, torch.Tensor], scores: np.ndarray, dev: dict) -> dict:
    """What a checkpoint says of weights whose dev scores (N,) in protocol order have the metrics `dev`."""
    is_bonafide = data.is_bonafide("dev")
    alike = balance_weights(data.partitions["dev"].trials, config.balance)
    kinds = {"bonafide": scores[is_bonafide], "spoof": scores[~is_bonafide]}
    return {
        "config": to_dict(config),
        "model": weights,
        "dev_eer": dev["eer_percent"] / 100,
        "dev_min_tdcf": dev["min_tdcf"],
        "threshold": dev["eer_threshold"],
        "calibration": fit_calibration(scores, is_bonafide, trial_weights=alike)._asdict(),
        "dev_scores": {kind: torch.from_numpy(np.sort(values)).float() for kind, values in kinds.items()},
    }


def make_folder(folder: Path, overwrite: bool) -> None:
    """Make a run folder (--eval may have left scores in it). Raises UserError rather than mix two runs."""
    if (folder / "config.conf").exists():
        if not overwrite:
            raise UserError(f"run folder {folder} holds a run", "--resume, --overwrite or another --comment", "neither")
        for old in folder.iterdir():  # the folder itself stays: it is locked
            old.unlink() if old.is_symlink() or old.is_file() else shutil.rmtree(old)
    for part in ("metrics", "scores", "weights"):
        (folder / part).mkdir(parents=True, exist_ok=True)
