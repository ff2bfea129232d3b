"""Train a countermeasure, choose on dev, score eval once.

    python main.py --config config/AASIST.conf                             # the paper's system, on ./LA/
    python main.py --config config/AASIST-L.conf --database_path /data/LA --seed 7 --comment seed7
    python main.py --resume exp_result/LA_AASIST_ep100_bs24                # go on after a crash or Ctrl-C
    python main.py --config config/AASIST.conf --eval                      # score eval with the configured model_path

Leaves exp_result/<track>_<config>_ep<N>_bs<N>[_<comment>]/ with config.conf, log.jsonl, metric_log.txt, metrics/,
scores/ and weights/. The dev set alone decides which epochs count; eval is scored after the choice is made.
"""

import json
import math
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn
from tqdm import tqdm

import evaluation
from cli import Parser, UserError, run, write_text
from config import Config, load_config, require, save_config, to_dict
from data_utils import PARTITIONS, Corpus, preflight, score_loader, train_loader
from engines import TorchEngine
from inference import Detector
from metrics import fit_calibration
from models import build_model
from score_files import BONAFIDE
from utils import (
    RunLog,
    build_optimizer,
    learning_rate,
    load_checkpoint,
    load_weights,
    pick_device,
    rng_state,
    save_checkpoint,
    seed_everything,
    set_rng_state,
)

HEADER = f"{'epoch':>7} {'lr':>9} {'loss':>8} {'dev EER %':>10} {'dev t-DCF':>10} {'utt/s':>7} {'left':>8}"


def main() -> int | None:
    args = parse_arguments()
    config, folder = resolve(args)
    device = pick_device(args.device)
    data = Data(config, ("eval",) if args.eval else PARTITIONS)
    for note in data.notes:
        print(f"note: {note}", file=sys.stderr)
    if args.eval:
        return evaluate_only(config, data, folder, device)
    training = Training(config, data, folder, device, args.init)
    if args.resume is not None:
        training.restore()
        return run_to_end(training, new=False)
    return run_to_end(training, new=make_folder(folder, config, args.overwrite))


def run_to_end(training: "Training", new: bool) -> int:
    """Run; Ctrl-C and SIGTERM finish the step, save, and say how to go on.

    A `new` folder is removed when a user's mistake shows before anything was saved in it.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, training.on_signal)
    try:
        training.run()
    except Stopped as stopped:
        print(f"stopped; go on with: python main.py --resume {training.folder}", file=sys.stderr)
        return 128 + stopped.signal
    except UserError:
        if new and not any(training.folder.glob("weights/*.pth")):
            shutil.rmtree(training.folder)
        raise
    return 0


# ------------------------------------------------------------------------------------------------------ arguments


def parse_arguments():
    parser = Parser(description=__doc__)
    parser.add_argument("--config", help="a .conf file (YAML, or the official JSON)")
    parser.add_argument("--output_dir", default="exp_result", help="where run folders go (default: %(default)s)")
    parser.add_argument("--comment", default="", help="added to the run folder's name")
    parser.add_argument("--overwrite", action="store_true", help="replace a run folder that is already there")
    parser.add_argument(
        "--resume", nargs="?", const="", metavar="RUN", help="go on with this (or --config's) run folder"
    )
    parser.add_argument("--init", metavar="WEIGHTS", help="start from these weights (fine-tuning)")
    parser.add_argument("--eval", action="store_true", help="only score eval with the configured model_path")
    parser.add_argument("--eval_model_weights", metavar="WEIGHTS", help="with --eval: in place of model_path")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    for name, kind in (("database_path", str), ("seed", int), ("num_epochs", int), ("batch_size", int)):
        parser.add_argument(f"--{name}", type=kind, help="in place of the config's")
    args = parser.parse_args()
    if not args.config and not args.resume:
        parser.error("give --config FILE, or --resume RUN")
    if args.resume is not None and (args.eval or args.init or args.overwrite):
        parser.error("--resume goes with none of --eval, --init, --overwrite")
    if args.eval_model_weights and not args.eval:
        parser.error("--eval_model_weights goes with --eval")
    if Path(args.comment).name != args.comment:
        parser.error("--comment becomes part of a folder's name: no slashes")
    return args


def resolve(args) -> tuple[Config, Path]:
    """The run's configuration, command line over file, and its folder; a resumed run keeps its own."""
    given = {name: getattr(args, name) for name in ("database_path", "seed", "num_epochs", "batch_size")}
    given = {name: value for name, value in given.items() if value is not None}
    folder = Path(args.resume or "")
    if not args.resume:
        config = replace(load_config(args.config), **given)
        name = f"{config.track}_{Path(args.config).stem}_ep{config.num_epochs}_bs{config.batch_size}"
        folder = Path(args.output_dir) / (f"{name}_{args.comment}" if args.comment else name)
    if args.resume is not None:
        config = load_config(folder / "config.conf")
        for name in given.keys() - {"database_path"}:  # data may have moved, the rest would be another run
            require(given[name] == getattr(config, name), name, f"the run's {getattr(config, name)}", given[name])
        config = replace(config, database_path=given.get("database_path", config.database_path))
    if args.eval_model_weights:
        config = replace(config, model_path=args.eval_model_weights)
    return config, folder


def make_folder(folder: Path, config: Config, overwrite: bool) -> bool:
    """Make the run folder; returns whether it was not there (--eval may have left scores in it).

    Raises UserError rather than mix two runs or delete what is no run.
    """
    if (folder / "config.conf").exists() and overwrite:
        shutil.rmtree(folder)
    elif folder.exists() and any(folder.glob("weights/*.pth")):
        raise UserError(f"run folder {folder} holds a run", "--resume, --overwrite or another --comment", "neither")
    new = not folder.exists()
    for part in ("metrics", "scores", "weights"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    save_config(config, folder / "config.conf")
    return new


# ----------------------------------------------------------------------------------------------------------- data


class Data:
    """The checked corpus of a run: its partitions, the ASV scores of dev and eval, and notes for people."""

    def __init__(self, config: Config, names: Iterable[str]):
        corpus = Corpus(config.database_path, config.track)
        self.partitions = {name: corpus.partition(name) for name in names}
        self.notes = preflight(list(self.partitions.values()), config.track)
        self.asv: dict[str, evaluation.AsvScores] = {}
        for name in self.partitions.keys() - {"train"}:
            path = corpus.asv_scores(name)
            if name == "eval" and config.asv_score_path:
                path = corpus.root / config.asv_score_path
            if path.exists() or (name == "eval" and config.asv_score_path):
                self.asv[name] = evaluation.read_asv_scores(path)
            else:
                self.notes.append(f"no ASV scores at {path}: min t-DCF of {name} is not computed")

    def is_bonafide(self, name: str) -> np.ndarray:
        return np.array([trial.label == BONAFIDE for trial in self.partitions[name].trials])

    def evaluate(self, name: str, scores: np.ndarray) -> dict:
        """`evaluation.evaluate` of scores (N,) in protocol order, with the ASV scores of the same partition."""
        trials = self.partitions[name].trials
        utt_id, attack = np.array([t.utt_id for t in trials]), np.array([t.attack for t in trials])
        own = evaluation.Scores(utt_id, scores, self.is_bonafide(name), attack)
        return evaluation.evaluate(own, self.asv.get(name))

    def write_scores(self, name: str, scores: np.ndarray, path: Path) -> None:
        """The score file of a partition, in protocol order."""
        trials = self.partitions[name].trials
        columns = ([getattr(trial, column) for trial in trials] for column in ("utt_id", "attack", "key"))
        evaluation.write_scores(path, *columns, scores)

    def report(self, scores: np.ndarray, folder: Path, file: str) -> dict:
        """Write eval scores (N,) to scores/, their metrics to metrics/ (JSON and text), and print the latter."""
        self.write_scores("eval", scores, folder / "scores" / file)
        result = self.evaluate("eval", scores)
        table = evaluation.format_report(result, name=f"{folder.name}, {file}")
        write_text(folder / "metrics" / Path(file).with_suffix(".json"), json.dumps(result, indent=2) + "\n")
        write_text(folder / "metrics" / file, table + "\n")
        print(table, flush=True)
        return result


def evaluate_only(config: Config, data: Data, folder: Path, device: torch.device) -> None:
    """--eval: score eval with the configured weights."""
    if not config.model_path:
        raise UserError("--eval needs weights", "model_path in the config, or --eval_model_weights", "none")
    detector = Detector(TorchEngine(load_initial(config, config.model_path), device))
    loader = score_loader(data.partitions["eval"], detector.engine.nb_samp, config)
    data.report(detector.score(tqdm(loader, "score eval", leave=False, disable=None)), folder, config.eval_output)


def load_initial(config: Config, weights: str | None) -> nn.Module:
    """The configured model, fresh or with the given weights. Raises UserError when they do not fit it."""
    model = build_model(config.model_config)
    if weights:
        load_weights(model, load_checkpoint(weights), weights)
    return model


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
    """One run; `run()` is the loop. Raises UserError when the configuration, the data and the weights do not fit."""

    def __init__(self, config: Config, data: Data, folder: Path, device: torch.device, init: str | None):
        self.config, self.data, self.folder, self.device, self.init = config, data, folder, device, init
        seed_everything(config)
        self.model = load_initial(config, init).to(device)
        self.swa = AveragedModel(self.model)
        self.optimizer = build_optimizer(self.model, config.optim_config)
        self.class_weights = torch.tensor(config.class_weights, device=device)
        count = len(data.partitions["train"].trials)
        self.steps_per_epoch = count // config.batch_size
        if self.steps_per_epoch == 0:
            raise UserError("batch_size is too large", f"at most the {count} training trials", config.batch_size)
        self.schedule = learning_rate(config.optim_config, self.steps_per_epoch, config.num_epochs)
        self.progress = Progress()
        self.log_sizes = None
        self.signal = None  # set by Ctrl-C or SIGTERM, obeyed between batches

    def run(self) -> None:
        """Train every epoch, choose on dev, then score eval once. Raises Stopped on Ctrl-C and SIGTERM."""
        config, progress = self.config, self.progress
        self.start_log()
        while progress.epoch < config.num_epochs:
            started, first = time.monotonic(), progress.step
            loss = self.train_epoch()
            speed = (progress.step - first) * config.batch_size / (time.monotonic() - started)
            dev_scores, dev = self.score_dev(self.model)
            progress.epoch, progress.step, progress.loss_sum = progress.epoch + 1, 0, 0.0
            improved = self.keep_best(dev_scores, dev)
            averaged = self.average(dev, improved)
            progress.seconds += time.monotonic() - started
            self.log_epoch(loss, speed, dev, averaged)
            if improved and config.eval_all_best:
                self.report_eval(Detector(TorchEngine(self.model, self.device)), f"epoch_{progress.epoch}")
            self.save_last()
        self.finish()

    def train_epoch(self) -> float:
        """One pass over the training set, from where the progress stands; returns the mean loss."""
        config, progress = self.config, self.progress
        loader = self.train_loader(progress.epoch, skip=progress.step * config.batch_size)
        self.model.train().to(memory_format=torch.contiguous_format)  # scoring's layout trains slower
        for x, y in self.watch(loader, f"epoch {progress.epoch + 1}", done=progress.step):
            for group in self.optimizer.param_groups:
                group["lr"] = self.schedule(progress.epoch * self.steps_per_epoch + progress.step)
            x, y = x.to(self.device, non_blocking=True), y.to(self.device, non_blocking=True)
            _, logits = self.model(x, freq_aug=config.freq_aug)
            loss = F.cross_entropy(logits, y, weight=self.class_weights)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            progress.step += 1
            progress.loss_sum += loss.item()
            if not math.isfinite(progress.loss_sum):
                where = f"epoch {progress.epoch + 1}, step {progress.step}"
                raise UserError(f"training diverged in {where}", "a finite loss", loss.item())
        return progress.loss_sum / self.steps_per_epoch

    def keep_best(self, scores: np.ndarray, dev: dict) -> bool:
        """Keep the weights if dev EER is the lowest so far; a tie goes to the later epoch, as published."""
        eer = dev["eer_percent"] / 100
        if eer > self.progress.best_dev_eer:
            return False
        self.progress.best_dev_eer = eer
        for name in (f"epoch_{self.progress.epoch}_{dev['eer_percent']:.3f}", "best"):
            self.save(name, self.model, scores, dev)
        self.data.write_scores("dev", scores, self.folder / "scores" / "dev_best.txt")
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
        """Make swa.pth, then score eval once with best.pth and once with swa.pth."""
        model = self.swa.module
        update_bn(self.watch(self.train_loader(self.config.num_epochs), "SWA batch norm"), model, self.device)
        scores, dev = self.score_dev(model)
        self.data.write_scores("dev", scores, self.folder / "scores" / "dev_swa.txt")
        self.save("swa", model, scores, dev, swa_epochs=self.progress.swa_epochs)
        print(f"SWA of epochs {self.progress.swa_epochs}: dev EER {dev['eer_percent']:.3f} %")
        for name in ("best", "swa"):
            path = self.folder / "weights" / f"{name}.pth"
            self.report_eval(Detector.from_checkpoint(path, self.device), name)
        self.log.event("end", epoch=self.progress.epoch, seconds=round(self.progress.seconds, 3))

    def on_signal(self, number: int, _frame) -> None:
        """The first Ctrl-C or SIGTERM lets the step finish, a second one does not wait."""
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number

    # ------------------------------------------------------------------------------------- data and scores

    def train_loader(self, epoch: int, skip: int = 0) -> Iterable:
        """Batches of the epoch's random order and crops, less the first `skip` utterances."""
        return train_loader(self.data.partitions["train"], self.model.nb_samp, self.config, epoch, skip)

    def score_dev(self, model: nn.Module) -> tuple[np.ndarray, dict]:
        """Dev scores (N,) in protocol order and their metrics."""
        scores = self.score(Detector(TorchEngine(model, self.device)), "dev")
        return scores, self.data.evaluate("dev", scores)

    def report_eval(self, detector: Detector, name: str) -> None:
        """Score eval and report it. Nothing in a run depends on what comes out."""
        result = self.data.report(self.score(detector, "eval"), self.folder, f"eval_{name}.txt")
        numbers = {key: result[key] for key in ("eer_percent", "min_tdcf")}
        self.log.event("eval", epoch=self.progress.epoch, checkpoint=name, **numbers)

    def score(self, detector: Detector, name: str) -> np.ndarray:
        loader = score_loader(self.data.partitions[name], detector.engine.nb_samp, self.config)
        return detector.score(self.watch(loader, f"score {name}"))

    def watch(self, loader: Iterable, title: str, done: int = 0) -> Iterator:
        """The loader's batches under a progress bar; between two of them a request to stop is obeyed."""
        bar = {"initial": done, "total": done + len(loader), "leave": False, "disable": None, "dynamic_ncols": True}
        for batch in tqdm(loader, title, **bar):
            yield batch
            if self.signal is not None:
                if self.progress.epoch < self.config.num_epochs:  # after that, last.pth is as it should be
                    self.save_last()
                raise Stopped(self.signal)

    # ----------------------------------------------------------------------------------------- files and log

    def save(self, name: str, model: nn.Module, scores: np.ndarray, dev: dict, **more) -> None:
        """weights/<name>.pth: what scoring and others' code need; with the dev scores, any operating point follows."""
        is_bonafide = self.data.is_bonafide("dev")
        kinds = {"bonafide": scores[is_bonafide], "spoof": scores[~is_bonafide]}
        fields = {
            "config": to_dict(self.config),
            "model": model.state_dict(),
            "epoch": self.progress.epoch,
            "dev_eer": dev["eer_percent"] / 100,
            "dev_min_tdcf": dev["min_tdcf"],
            "threshold": dev["eer_threshold"],
            "calibration": fit_calibration(scores, is_bonafide)._asdict(),
            "dev_scores": {kind: torch.from_numpy(np.sort(values)).float() for kind, values in kinds.items()},
        }
        save_checkpoint(self.folder / "weights" / f"{name}.pth", fields | more)

    def save_last(self) -> None:
        """weights/last.pth: everything that going on needs."""
        fields = {
            "config": to_dict(self.config),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "swa": self.swa.state_dict(),
            "progress": asdict(self.progress),
            "rng": rng_state(),
            "log_sizes": self.log.sizes(),
        }
        save_checkpoint(self.folder / "weights" / "last.pth", fields)

    def restore(self) -> None:
        """Go back to where last.pth stands. Raises UserError when there is none or it is of another run."""
        path = self.folder / "weights" / "last.pth"
        last = load_checkpoint(path)
        load_weights(self.model, last, path)
        self.optimizer.load_state_dict(last["optimizer"])
        self.swa.load_state_dict(last["swa"])
        self.progress = Progress(**last["progress"])
        self.log_sizes = last["log_sizes"]
        set_rng_state(last["rng"])

    def start_log(self) -> None:
        self.log = RunLog(self.folder, self.log_sizes)
        print(HEADER, flush=True)
        if self.log_sizes is None:
            parameters = sum(p.numel() for p in self.model.parameters())
            trials = {name: len(partition.trials) for name, partition in self.data.partitions.items()}
            versions = {"torch": torch.__version__, "device": str(self.device), "threads": torch.get_num_threads()}
            self.log.event("start", parameters=parameters, trials=trials, init=self.init, **versions)
            self.log.line(HEADER)

    def log_epoch(self, loss: float, speed: float, dev: dict, averaged: bool) -> None:
        """One aligned line for people, one object for programs."""
        progress, epochs = self.progress, self.config.num_epochs
        lr = self.optimizer.param_groups[0]["lr"]
        tdcf = "–" if dev["min_tdcf"] is None else f"{dev['min_tdcf']:.4f}"
        left = tqdm.format_interval(progress.seconds / progress.epoch * (epochs - progress.epoch))
        mark = " *" if progress.best_dev_eer == dev["eer_percent"] / 100 else ""
        line = f"{progress.epoch:>3}/{epochs:<4}{lr:>9.2e}{loss:>9.4f}{dev['eer_percent']:>11.3f}{tdcf:>11}"
        line += f"{speed:>8.1f}{left:>9}{mark}"
        print(line, flush=True)
        self.log.line(line)
        numbers = {"loss": loss, "lr": lr, "dev_eer_percent": dev["eer_percent"], "dev_min_tdcf": dev["min_tdcf"]}
        times = {"utterances_per_second": round(speed, 3), "seconds": round(progress.seconds, 3)}
        self.log.event("epoch", epoch=progress.epoch, **numbers, **times, averaged=averaged)


if __name__ == "__main__":
    run(main)
