"""Watch training runs from their logs. docs/monitoring.md explains what is shown.

    python monitor_training.py                                   # the newest run below ./exp_result, every minute
    python monitor_training.py --dir exp_result --once           # every run there, once
    python monitor_training.py --dir /mnt/gpu1/exp_result/LA_AASIST_ep100_bs24 --interval 10 --plot curves.png

Strictly read-only: it reads each run's log.jsonl and lists its weights/, and never writes, touches or locks anything in
the run folder, so you can also watch a run from another machine. Ctrl-C ends it.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from common.command import Parser, run
from common.errors import PartFailed, UserError
from plots.runs import TrainingHistory, training_curves
from plots.style import write_figures
from training.status import RunStatus, gpu_status, missing_gpu_package, newest_run, refresh_runs
from training.status_view import Snapshot, snapshot_lines
from training.terminal import Screen

RUNS = Path("exp_result")  # without --dir, the newest run in here is watched


def main() -> int:
    """Show the runs again and again until Ctrl-C."""
    options = parse_arguments()
    folders, title = options.dir, ""
    if not folders:
        folders, title = [newest_run(RUNS)], f" · newest run below {RUNS}"
    known: dict[Path, RunStatus] = {}
    screen, drawn, plotted = Screen(in_place=not options.once), None, True
    if note := missing_gpu_package():
        print(f"note: {note}", file=sys.stderr)
    try:
        while True:
            runs = refresh_runs(known, folders)
            screen.show(partial(snapshot_lines, Snapshot(runs, time.time(), title, gpu_status())))
            if options.plot and (histories := {one.name: history(one) for one in runs}) != drawn:
                plotted = plot(histories, options.plot)
                drawn = histories
            if options.once:
                return 0 if plotted else 1
            time.sleep(options.interval)
    except KeyboardInterrupt:
        return 130


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line. Raises UserError."""
    parser = Parser(prog="monitor_training.py", description=__doc__)
    parser.add_argument("--dir", nargs="+", type=Path, metavar="RUN", help="run folders, or folders that contain some")
    parser.add_argument(
        "--interval", type=float, default=60, metavar="SECONDS", help="seconds between updates (default: 60)"
    )
    parser.add_argument("--once", action="store_true", help="show the status once and exit")
    parser.add_argument("--plot", type=Path, metavar="OUT", help="also draw the curves: OUT.png, .pdf or .svg")
    options = parser.parse_args(arguments)
    if not 0.1 <= options.interval <= 1e6:
        raise UserError("bad --interval", "0.1 … 1e6 seconds", options.interval)
    if options.plot and options.plot.suffix not in ("", ".png", ".pdf", ".svg"):
        raise UserError("bad --plot", "a name that ends in .png, .pdf, .svg, or in none (PNG and PDF)", options.plot)
    return options


def history(status: RunStatus) -> TrainingHistory:
    """The run's loss and dev metrics by epoch."""
    epochs = status.log.epochs.values()
    eer = [epoch["dev_eer_percent"] / 100 for epoch in epochs]
    tdcf = [epoch["dev_min_tdcf"] for epoch in epochs]
    return TrainingHistory(list(status.log.epochs), [epoch["loss"] for epoch in epochs], eer, tdcf)


def plot(histories: dict[str, TrainingHistory], path: Path) -> bool:
    """Draw the curves of all runs into one figure. If that fails, say so and return false: watching goes on."""
    formats = [path.suffix[1:]] if path.suffix else ["png", "pdf"]
    try:
        write_figures({path.with_suffix(""): partial(training_curves, histories)}, formats)
    except PartFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return False
    return True


if __name__ == "__main__":
    run(main)
