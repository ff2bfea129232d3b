"""Train a countermeasure, choose on dev, score eval once.

    python main.py --config config/AASIST.conf                             # the paper's system, on ./LA/
    python main.py --config config/AASIST-L.conf --database_path /data/LA --seed 7 --comment seed7
    python main.py --resume exp_result/LA_AASIST_ep100_bs24                # go on after a crash or Ctrl-C
    python main.py --config config/AASIST.conf --seeds 1 2 3               # several runs, then mean and spread
    python main.py --config config/AASIST.conf --eval_sets itw:/data/itw 2021:/data/2021  # also scored at the end
    torchrun --nproc_per_node 2 main.py --config config/AASIST.conf       # one run on two GPUs
    python main.py --config config/AASIST.conf --check_data                # is the data set sound?
    python main.py --config config/AASIST.conf --eval                      # score eval with the configured model_path

Leaves exp_result/<track>_<config>_ep<N>_bs<N>[_<comment>]/ with config.conf, log.jsonl, metric_log.txt, metrics/,
scores/ and weights/. The dev set alone decides which epochs count; eval is scored after the choice is made.
"""

import os
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import get_args, get_origin

from common.command import Parser, run
from common.escaping import printable
from common.processes import Processes, peers_alive
from common.schema import require
from config import INCIDENTAL, Config, load_config
from corpora.check import examine
from corpora.check_report import format_report
from corpora.open import open_all_partitions
from corpora.trials import PARTITIONS
from training.data import RunData
from training.folder import is_run_of
from training.model import weights_to_resume
from training.run import TrainingRun, run_to_end
from training.scores import evaluate_weights
from training.seed_runs import train_seeds
from utils import pick_device

PATIENCE = timedelta(minutes=30)  # how long one process waits for another
OVERRIDES = ("database_path", "eval_sets", "seed", "num_epochs", "batch_size", "num_workers")
OVERRIDES += ("cache", "cache_path", "precision", "compile")


def main() -> int | None:
    args = parse_arguments()
    device = pick_device(args.device)
    processes = Processes(PATIENCE, nvidia=device.type == "cuda")
    if not processes.is_main:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 — only the main process prints results
    with peers_alive():
        config, folder = resolve(args)
        if args.check_data:
            return check_data(config)
        data = RunData(config, ("eval",) if args.eval else PARTITIONS, device)
        for note in data.notes if processes.is_main else ():
            print(printable(f"note: {note}"), file=sys.stderr)
        if args.eval:
            return evaluate_weights(config, data, folder, device, processes)
        if args.seeds:
            return train_seeds(args.seeds, config, data, folder, device, processes, args.init, args.overwrite)
        init = args.init if args.resume is None else weights_to_resume(folder)
        one = TrainingRun(config, data, folder, device, processes, init)
        return run_to_end(one, resume=args.resume is not None, overwrite=args.overwrite)


def check_data(config: Config) -> int:
    """Read every file and print what the data sets hold; returns the exit code."""
    report = examine(open_all_partitions(config.database_path, config.track), config.num_workers)
    print(format_report(report))
    return 1 if report.problems else 0


# ------------------------------------------------------------------------------------------------------ arguments


def parse_arguments():
    parser = Parser(description=__doc__)
    parser.add_argument("--config", help="a .conf file (YAML, or the official JSON)")
    parser.add_argument("--output_dir", default="exp_result", help="where run folders go (default: %(default)s)")
    parser.add_argument("--comment", default="", help="added to the run folder's name")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing run folder")
    parser.add_argument("--resume", nargs="?", const="", metavar="RUN", help="go on with the run in this folder")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="one run per seed, then mean and spread")
    parser.add_argument("--runs", type=int, metavar="N", help="like --seeds, with N seeds from the config's on")
    parser.add_argument("--init", metavar="WEIGHTS", help="start from these weights, a file or a name (fine-tuning)")
    parser.add_argument("--check_data", action="store_true", help="only read every file and print what is there")
    parser.add_argument("--eval", action="store_true", help="only score eval with the configured model_path")
    parser.add_argument("--eval_model_weights", metavar="WEIGHTS", help="with --eval: instead of model_path")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    group = parser.add_argument_group("instead of the config's value")
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
    """Refuse options that contradict each other."""
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
    """The run's configuration and its folder. Options override the file; a resumed run keeps its own configuration.

    Turns `--runs` into `args.seeds`. When torchrun restarts a run after a crash, it is resumed if its folder is there.
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


if __name__ == "__main__":
    run(main)
