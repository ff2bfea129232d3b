"""Train a countermeasure, choose on dev, score eval once.

    python main.py --config config/AASIST.conf                             # the paper's system, on ./LA/
    python main.py --config config/AASIST-L.conf --database_path /data/LA --seed 7 --comment seed7
    python main.py --resume exp_result/LA_AASIST_ep100_bs24                # go on after a crash or Ctrl-C
    python main.py --config config/AASIST.conf --seeds 1 2 3               # several runs, then mean and spread
    python main.py --config config/AASIST.conf --eval_sets itw:/data/itw 2021:/data/2021  # scored at the end, too
    torchrun --nproc_per_node 2 main.py --config config/AASIST.conf       # one run on two GPUs
    python main.py --config config/AASIST.conf --check_data                # is the data set sound?
    python main.py --config config/AASIST.conf --eval                      # score eval with the configured model_path

Leaves exp_result/<track>_<config>_ep<N>_bs<N>[_<comment>]/ with config.conf, log.jsonl, metric_log.txt, metrics/,
scores/ and weights/. The dev set alone decides which epochs count; eval is scored after the choice is made.
"""

import os
import shutil
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import get_args, get_origin

from tqdm import tqdm

from common.command import Parser, run
from common.errors import UserError
from common.processes import Processes, peers_alive
from common.schema import require
from config import INCIDENTAL, Config, load_config, to_dict
from corpora.check import examine
from corpora.check_report import format_report
from corpora.open import open_all_partitions
from corpora.trials import PARTITIONS
from scoring.detector import Detector
from scoring.engines import TorchEngine
from training import seeds
from training.ensemble import join
from training.run import Data, Place, Stopped, Training, load_initial, score
from utils import pick_device, set_precision

PATIENCE = timedelta(minutes=30)  # that one process waits for another
OVERRIDES = ("database_path", "eval_sets", "seed", "num_epochs", "batch_size", "num_workers")
OVERRIDES += ("cache", "cache_path", "precision", "compile")


def main() -> int | None:
    args = parse_arguments()
    device = pick_device(args.device)
    place = Place(device, Processes(PATIENCE, nvidia=device.type == "cuda"))
    if not place.processes.is_main:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 — the first process speaks for all
    with peers_alive():
        config, folder = resolve(args)
        if args.check_data:
            return check(config)
        data = Data(config, ("eval",) if args.eval else PARTITIONS, device)
        for note in data.notes if place.processes.is_main else ():
            print(f"note: {note}", file=sys.stderr)
        if args.eval:
            return evaluate_only(config, data, folder, place)
        if args.seeds:
            return train_seeds(args, config, data, folder, place)
        training = Training(config, data, folder, place, args.init)
        return run_to_end(training, args.resume is not None, args.overwrite)


def run_to_end(training: "Training", resume: bool, overwrite: bool) -> int:
    """Run; Ctrl-C and SIGTERM finish the step, save, and say how to go on.

    A new folder is removed when a user's mistake shows before anything was saved in it.
    """
    before = {number: signal.signal(number, training.on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        training.restore() if resume else training.begin(overwrite)
        training.run()
    except Stopped as stopped:
        print(f"stopped; go on with: python main.py --resume {training.folder}", file=sys.stderr)
        return 128 + stopped.signal
    except UserError as error:
        with suppress(OSError):  # a full disk may be the error
            if training.log:
                training.log.event("error", message=str(error)[:1000])
        if training.is_new and training.place.processes.is_main:
            shutil.rmtree(training.folder)
        raise
    finally:
        training.claim.close()
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def train_seeds(args, config: Config, data: "Data", folder: Path, place: Place) -> int:
    """A run for each seed in a folder of its own, then mean and spread, and all of them as one model (join.py).

    What is finished is kept, what is not goes on. A run that fails is reported and the others are done. Raises
    UserError when all fail.
    """
    finished, failures = [], []
    for seed in args.seeds:
        own = folder.with_name(f"{folder.name}_seed{seed}")
        print(f"seed {seed}: {own}", flush=True)
        try:
            wanted = replace(config, seed=seed)
            resume = not args.overwrite and is_run_of(own, wanted)
            if not (resume and seeds.read_run(own).finished):
                code = run_to_end(Training(wanted, data, own, place, args.init), resume, args.overwrite)
                if code:
                    print("the same command goes on with all seeds", file=sys.stderr)
                    return code
            finished.append(own)
        except UserError as error:
            failures.append(error)
            print(f"error: seed {seed}: {error}", file=sys.stderr)
    if not finished:
        raise failures[0]
    if place.processes.is_main:
        summary = seeds.summarise([seeds.read_run(own) for own in finished])
        seeds.write(folder.with_name(f"{folder.name}_seeds"), summary)
        if len(finished) > 1 and "encoder" not in config.model_config:
            join(finished, data, config, folder.with_name(f"{folder.name}_seeds"))
        print(seeds.format_table(summary), flush=True)
    return 1 if failures else 0


def check(config: Config) -> int:
    """--check_data: read every file and say what the data set holds; returns the exit code."""
    report = examine(open_all_partitions(config.database_path, config.track), config.num_workers)
    print(format_report(report))
    return 1 if report.problems else 0


def evaluate_only(config: Config, data: Data, folder: Path, place: Place) -> None:
    """--eval: score eval with the configured weights."""
    if not config.model_path:
        raise UserError("--eval needs weights", "model_path in the config, or --eval_model_weights", "none")
    data.pack()
    set_precision("fp32", place.device)
    detector = Detector(TorchEngine(load_initial(config, config.model_path), place.device))
    bar = {"leave": False, "disable": None if place.processes.is_main else True}
    scores = score(detector, data.partitions["eval"], config, place, lambda loader: tqdm(loader, "score eval", **bar))
    if place.processes.is_main:
        data.report(scores, folder, config.eval_output)


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
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="a run for each, then mean and spread")
    parser.add_argument("--runs", type=int, metavar="N", help="as --seeds, of N from the config's seed on")
    parser.add_argument("--init", metavar="WEIGHTS", help="start from these weights, a file or a name (fine-tuning)")
    parser.add_argument("--check_data", action="store_true", help="only read every file, and say what there is")
    parser.add_argument("--eval", action="store_true", help="only score eval with the configured model_path")
    parser.add_argument("--eval_model_weights", metavar="WEIGHTS", help="with --eval: in place of model_path")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    group = parser.add_argument_group("in place of the config's value")
    for name in OVERRIDES:
        kind = Config.__annotations__[name]
        options = {"choices": get_args(kind)} if get_args(kind) else {"type": kind}
        if kind is bool:
            options = {"action": "store_const", "const": True}
        if get_origin(kind) is tuple:
            options = {"nargs": "+", "metavar": "KIND:PATH"}
        group.add_argument(f"--{name}", **options)
    args = parser.parse_args()
    check_arguments(parser, args)
    return args


def check_arguments(parser: Parser, args) -> None:
    """Refuse what contradicts itself, and make --runs into --seeds."""
    if not args.config and not args.resume:
        parser.error("give --config FILE, or --resume RUN")
    several = args.seeds is not None or args.runs is not None
    if args.resume is not None and (args.eval or args.init or args.overwrite or several):
        parser.error("--resume goes with none of --eval, --init, --overwrite, --seeds, --runs")
    if args.eval and several:
        parser.error("--eval goes with neither --seeds nor --runs")
    if args.eval_model_weights and not args.eval:
        parser.error("--eval_model_weights goes with --eval")
    if Path(args.comment).name != args.comment:
        parser.error("--comment becomes part of a folder's name: no slashes")
    if several and (args.seed is not None or None not in (args.seeds, args.runs)):
        parser.error("--seed, --seeds and --runs are three ways to say one thing: give one")
    if args.runs is not None and args.runs < 1:
        parser.error(f"--runs: expected 1 or more, found {args.runs}")
    if args.seeds and len(set(args.seeds)) < len(args.seeds):
        parser.error("--seeds: expected different numbers")


def resolve(args) -> tuple[Config, Path]:
    """The run's configuration, command line over file, and its folder; a resumed run keeps its own.

    A run that torchrun starts anew after a crash is resumed, if it had come so far as to have a folder.
    """
    given = {name: getattr(args, name) for name in OVERRIDES if getattr(args, name) is not None}
    given |= {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    folder = Path(args.resume or "")
    if not args.resume:
        config = replace(load_config(args.config), **given)
        name = f"{config.track}_{Path(args.config).stem}_ep{config.num_epochs}_bs{config.batch_size}"
        folder = Path(args.output_dir) / (f"{name}_{args.comment}" if args.comment else name)
        if args.runs:
            args.seeds = range(config.seed, config.seed + args.runs)
        if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)):
            args.overwrite = False
            if not args.seeds and not args.eval and is_run_of(folder, config):
                args.resume = str(folder)
    if args.resume is not None:
        config = load_config(folder / "config.conf")
        for name in given.keys() - INCIDENTAL:
            require(given[name] == getattr(config, name), name, f"the run's {getattr(config, name)}", given[name])
        config = replace(config, **given)
    if args.eval_model_weights:
        config = replace(config, model_path=args.eval_model_weights)
    return config, folder


def is_run_of(folder: Path, config: Config) -> bool:
    """Whether a run is there. Raises UserError if it is one of another configuration."""
    if not (folder / "config.conf").exists():
        return False
    found, wanted = to_dict(load_config(folder / "config.conf")), to_dict(config)
    for name in wanted.keys() - INCIDENTAL:
        if found[name] != wanted[name]:
            raise UserError(f"run folder {folder} holds a run with another {name}", wanted[name], found[name])
    return True


if __name__ == "__main__":
    run(main)
