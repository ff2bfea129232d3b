"""The status of runs as lines of text: one run in full, or a table of several, and their curves."""

import textwrap
import time
from collections.abc import Sequence
from typing import NamedTuple

from common.escaping import printable
from training.status import PHASES, RunStatus, checkpoint_files, phase_fraction
from training.terminal import (
    chart_grid,
    fit_width,
    format_bytes,
    format_duration,
    labelled_lines,
    progress_bar,
    table,
)

DEV_METRICS = (("dev EER", "dev_eer_percent", "{:.3f} %"), ("dev t-DCF", "dev_min_tdcf", "{:.4f}"))
SIX_DAYS = 6 * 86400  # seconds; a weekday is ambiguous from then on
LEFT_ALIGNED = ("run", "state")
# Columns of the table that a narrow terminal does without; the first goes first.
SPARE = ("score/s", "train/s", "t-DCF", "EER %", "left", "loss", "best t-DCF", "best EER %", "state")


class Snapshot(NamedTuple):
    """What to show."""

    runs: Sequence[RunStatus]
    now: float  # Unix seconds
    title: str
    gpus: Sequence[str]  # see `gpu_status`


def snapshot_lines(snapshot: Snapshot, width: int, rows: int, unicode: bool) -> list[str]:
    """One run in full, or a table of several; then curves of `rows` lines. No line is wider than `width` columns."""
    runs, now = snapshot.runs, snapshot.now
    lines = [time.strftime("%H:%M:%S", time.localtime(now)) + snapshot.title]
    if len(runs) > 1:
        lines += table([table_row(run, now) for run in runs], width, LEFT_ALIGNED, SPARE)
        lines += labelled_lines([("!", f"{run.name}: {text}") for run in runs for text in run.warnings(now)], width)
    last = max(run.epochs_done for run in runs)
    for run in runs:
        if len(runs) > 1:
            lines += ["", run.name, *labelled_lines(results_and_files(run, now), width)]
        else:
            lines += [run.name, *labelled_lines(progress_and_metrics(run, now) + results_and_files(run, now), width)]
            lines += labelled_lines([("!", text) for text in run.warnings(now)], width)
        lines += run_curves(run, last, width, rows, unicode)
    lines += [line for text in snapshot.gpus for line in textwrap.wrap(text, width)]
    return [fit_width(line, width).rstrip() for line in lines]


def progress_and_metrics(run: RunStatus, now: float) -> list[tuple[str, str]]:
    """(label, text): state, epoch, time left, losses, dev metrics and speed, as far as they are known."""
    newest, speeds = run.log.epochs.get(run.epochs_done), run.speeds()
    losses = [f"{run.current_loss():.4f} now"] if run.current_loss() is not None else []
    losses += [f"{newest['loss']:.4f} in epoch {run.epochs_done}"] if newest else []
    lines = [("state", f"{run.state()} · last event {format_duration(run.seconds_silent(now))} ago")]
    lines += epoch_and_time_left(run, now)
    lines += [("loss", " · ".join(losses))] if losses else []
    for label, key, form in DEV_METRICS:
        if values := run.by_epoch(key):
            best = best_epoch(values)
            lines.append((label, f"{form} last · {form} best, epoch {best}".format(values[max(values)], values[best])))
    known = " · ".join(f"{speed:,.0f} {name}" for name, speed in speeds.items() if speed)
    return lines + ([("speed", f"{known}, utterances/s")] if known else [])


def epoch_and_time_left(run: RunStatus, now: float) -> list[tuple[str, str]]:
    """(label, text): the current epoch and phase, a bar, and the time that training still takes."""
    if not run.epochs:
        return []
    last, left, text = run.log.last, run.seconds_left(), f"{run.current_epoch} of {run.epochs}"
    if last["event"] == "progress":
        done = f"{last['done']:,} of {last['total']:,} utterances ({100 * phase_fraction(last):.0f} %)"
        text += f" · {PHASES[last['phase']]} {done}"
    lines = [("epoch", text), ("", progress_bar(run.epochs_done / run.epochs))]
    if left is not None:
        end = time.strftime(", until %a %H:%M", time.localtime(now + left)) if left < SIX_DAYS else ""
        lines.append(("left", f"{format_duration(left)} of training{end}"))
    elif not run.ended and run.epochs_done < run.epochs:
        lines.append(("left", "unknown until an epoch is done"))
    return lines


def results_and_files(run: RunStatus, now: float) -> list[tuple[str, str]]:
    """(label, text): results on eval, checkpoints with size and age, and the most memory used."""
    lines = []
    for data_set, evals in {"": run.log.evals, **run.log.further}.items():
        for name, event in evals.items():
            if not name.startswith("epoch_"):
                tdcf = "" if event["min_tdcf"] is None else f", min t-DCF {event['min_tdcf']:.4f}"
                where = f" on {printable(data_set)}" if data_set else ""
                lines.append(("eval", f"{name}{where}: EER {event['eer_percent']:.3f} %{tdcf}"))
    checkpoints = [
        f"{name} {format_bytes(file.st_size)}, {format_duration(now - file.st_mtime)} ago"
        for name, file in checkpoint_files(run.folder).items()
    ]
    lines += [("weights", printable(" · ".join(checkpoints)))] if checkpoints else []
    peak = run.by_epoch("peak_memory_bytes")
    return lines + ([("memory", f"{format_bytes(max(peak.values()))} at most")] if peak else [])


def best_epoch(values: dict[int, float]) -> int:
    """The epoch with the lowest value; of equal ones the later, as training keeps it."""
    return min(reversed(values), key=values.get)


def table_row(run: RunStatus, now: float) -> dict[str, str]:
    """A run's row of the table, by column."""
    newest, left, speeds = run.log.epochs.get(run.epochs_done), run.seconds_left(), run.speeds()
    loss = newest["loss"] if run.current_loss() is None and newest else run.current_loss()
    row = {
        "run": run.name,
        "state": run.state() + (" !" if run.warnings(now) else ""),
        "epoch": f"{run.current_epoch}/{run.epochs or '?'}",
        "left": "" if left is None else format_duration(left),
        "loss": "" if loss is None else f"{loss:.4f}",
    }
    for head, key, digits in (("EER %", "dev_eer_percent", 3), ("t-DCF", "dev_min_tdcf", 4)):
        values = run.by_epoch(key)
        row[head] = f"{values[max(values)]:.{digits}f}" if values else ""
        row[f"best {head}"] = f"{values[best_epoch(values)]:.{digits}f} ({best_epoch(values)})" if values else ""
    rates = {"train/s": speeds["training"], "score/s": speeds["scoring"]}
    return row | {head: f"{rate:,.0f}" if rate else "" for head, rate in rates.items()}


def run_curves(run: RunStatus, last: int, width: int, rows: int, unicode: bool) -> list[str]:
    """Loss and dev metrics over epochs 1 … `last`."""
    titles = {label: f"{label} (%)" if "%" in form else label for label, _, form in DEV_METRICS}
    series = {"loss": run.by_epoch("loss")} | {titles[label]: run.by_epoch(key) for label, key, _ in DEV_METRICS}
    series = {title: values for title, values in series.items() if values}
    return chart_grid(series, last, width, rows, unicode) if series else ["no epoch is done yet"]
