"""One run for each of several seeds, then mean and spread, and all of them as one model (main.py --seeds)."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from common.errors import PartFailed, UserError
from common.escaping import printable
from common.processes import Processes
from config import Config
from training.data import RunData
from training.ensemble import write_ensemble
from training.folder import is_run_of
from training.model import weights_to_resume
from training.run import TrainingRun, run_to_end
from training.seeds import format_table, read_seed_run, summarise, write_summary


def train_seeds(
    seeds: Sequence[int],
    config: Config,
    data: RunData,
    path: Path,
    device: torch.device,
    processes: Processes,
    init: str | None = None,
    overwrite: bool = False,
) -> int:
    """Train a run for each seed in <path>_seed<N>, then write <path>_seeds; returns the exit code.

    Finished runs are kept, unfinished ones are resumed. A run that fails is reported, and the others are trained.
    Raises UserError when all fail.
    """
    finished, failures = [], []
    for seed in seeds:
        own = path.with_name(f"{path.name}_seed{seed}")
        print(printable(f"seed {seed}: {own}"), flush=True)
        try:
            wanted = replace(config, seed=seed)
            resume = not overwrite and is_run_of(own, wanted)
            if not (resume and read_seed_run(own).finished):
                start = weights_to_resume(own) if resume else init
                code = run_to_end(TrainingRun(wanted, data, own, device, processes, start), resume, overwrite)
                if code:
                    again = "the same command without --overwrite" if overwrite else "the same command"
                    print(f"{again} goes on with all seeds", file=sys.stderr)
                    return code
            finished.append(own)
        except UserError as error:
            failures.append(error)
            print(f"error: seed {seed}: {error}", file=sys.stderr)
    if not finished:
        raise failures[0]
    if processes.is_main:
        failures += write_results(finished, config, data, path.with_name(f"{path.name}_seeds"))
    return 1 if failures else 0


def write_results(runs: Sequence[Path], config: Config, data: RunData, folder: Path) -> list[UserError]:
    """Write and print the summary of finished runs; of several runs without an encoder also the ensemble.

    Returns what failed: the figure, or nothing.
    """
    failures = []
    summary = summarise([read_seed_run(run) for run in runs])
    try:
        write_summary(folder, summary)
    except PartFailed as error:
        failures.append(error)
        print(f"error: {error}", file=sys.stderr)
    if len(runs) > 1 and "encoder" not in config.model_config:
        write_ensemble(runs, data, config, folder)
    print(format_table(summary), flush=True)
    print(printable(f"written to {folder}/"), flush=True)
    return failures
