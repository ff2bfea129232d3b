"""Watch training runs from their logs, strictly read-only. docs/monitoring.md explains what is shown.

    python monitor_training.py                                   # the newest run below ./exp_result, every minute
    python monitor_training.py --dir exp_result --once           # every run there, one look
    python monitor_training.py --dir /mnt/gpu1/exp_result/LA_AASIST_ep100_bs24 --interval 10 --plot curves.png

Reads each run's log.jsonl and lists its weights/; never writes, touches or locks anything there, so a run may be
watched from another machine. Ctrl-C ends.
"""

import math
import os
import shutil
import statistics
import sys
import textwrap
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common.command import Parser, run
from common.errors import UserError
from plots.runs import TrainingHistory, training_curves
from plots.style import write_figure
from training.log_reader import LogReader

NEWEST = Path("exp_result")  # where the newest run is looked for
PHASES = {"train": "training", "dev": "scoring dev", "swa": "averaging", "eval": "scoring eval"}
ENDED = {"stop": "stopped", "error": "failed", "end": "finished"}
DEV = (("dev EER", "dev_eer_percent", "{:.3f} %"), ("dev t-DCF", "dev_min_tdcf", "{:.4f}"))
QUIET = 600  # seconds without an event that are never worth a warning
SKEW = 60  # seconds that a clock may be ahead without a word
EPOCHS_TIMED = 9  # newest epochs whose median time counts: neither a slow first one nor a pause does
WEEK = 6 * 86400  # seconds; from then on a weekday would be ambiguous
CHART_ROWS = (6, 5, 4, 3, 2)  # the first that fits into a terminal
CHART_WIDTH = 30  # columns from which on charts stand side by side
NARROWEST = 20  # columns
# What a narrow terminal's table does without, the first to go first.
SPARE = ("score/s", "train/s", "t-DCF", "EER %", "left", "loss", "best t-DCF", "best EER %", "state")
ASCII = str.maketrans("–—…·│┤█░", "--~|||#.")  # one for one, or columns would move
BRAILLE = np.array([[1, 8], [2, 16], [4, 32], [64, 128]])  # the dots' places in a sign: their sum is added to U+2800


def main() -> int:
    """Look until Ctrl-C."""
    options = parse_arguments()
    folders, title = options.dir, ""
    if not folders:
        folders, title = [newest_run(NEWEST)], f" · newest run below {NEWEST}"
    runs: dict[Path, Run] = {}
    screen, drawn = Screen(in_place=not options.once), None
    try:
        while True:
            shown = look(runs, folders)
            screen.show(partial(compose, Look(shown, time.time(), title, gpus())))
            if options.plot and (curves := {one.name: one.history() for one in shown}) != drawn:
                save_figure(curves, options.plot)
                drawn = curves
            if options.once:
                return 0
            time.sleep(options.interval)
    except KeyboardInterrupt:
        return 130


def parse_arguments(arguments: Sequence[str] | None = None):
    """The command line."""
    parser = Parser(prog="monitor_training.py", description=__doc__)
    parser.add_argument("--dir", nargs="+", type=Path, metavar="RUN", help="run folders, or folders that hold some")
    parser.add_argument("--interval", type=float, default=60, metavar="SECONDS", help="between looks (default: 60)")
    parser.add_argument("--once", action="store_true", help="look once and end")
    parser.add_argument("--plot", type=Path, metavar="OUT", help="also draw the curves: OUT.png, .pdf or .svg")
    options = parser.parse_args(arguments)
    if not 0.1 <= options.interval <= 1e6:
        raise UserError("bad --interval", "0.1 … 1e6 seconds", options.interval)
    if options.plot and options.plot.suffix not in ("", ".png", ".pdf", ".svg"):
        raise UserError("bad --plot", "a name that ends in .png, .pdf or .svg, or in none (PNG and PDF)", options.plot)
    return options


def save_figure(curves: dict[str, TrainingHistory], path: Path) -> None:
    """Raises UserError when it cannot be written."""
    formats = [path.suffix[1:]] if path.suffix else ["png", "pdf"]
    write_figure(training_curves(curves), path.with_suffix(""), formats)


# ------------------------------------------------------------------------------------------------------ a run


class Run:
    """A watched run: its log, and when this process saw the log grow."""

    def __init__(self, folder: Path):
        self.folder, self.name = folder, printable(folder.name)
        self.log = LogReader(folder / "log.jsonl")
        self.first_look: float | None = None  # monotonic seconds
        self.grew: float | None = None  # monotonic seconds

    def refresh(self) -> None:
        """Read the log on."""
        new = self.log.refresh()
        if self.first_look is None:
            self.first_look = time.monotonic()
        elif new:
            self.grew = time.monotonic()

    @property
    def epochs(self) -> int | None:
        """How many the run is to have."""
        return self.log.start["epochs"] if self.log.start else None

    @property
    def done(self) -> int:
        """Epochs done."""
        return next(reversed(self.log.epochs), 0)

    @property
    def under_way(self) -> int:
        """The epoch that is being trained; the last one where none is."""
        under_way = self.done + (not self.ended)
        return min(under_way, self.epochs) if self.epochs else under_way

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
        return final if self.done == self.epochs else "training"

    def silence(self, now: float) -> float:
        """Seconds since anything new; `now`: Unix seconds. Once the log was seen to grow, this process's clock counts.

        Before, neither the newest event's time nor the file's may be recent: their clocks may differ from this one.
        """
        if self.grew is not None:
            return time.monotonic() - self.grew
        times = [self.log.modified, self.log.last and self.log.last["time"]]
        written = max((at for at in times if at is not None), default=now)
        return max(now - written, time.monotonic() - self.first_look)

    def seconds_per_epoch(self) -> float | None:
        """Median of the newest epochs; None until one is done."""
        ends = {0: 0.0} | {k: epoch["seconds"] for k, epoch in self.log.epochs.items() if epoch["seconds"] is not None}
        took = [ends[k] - ends[k - 1] for k in list(ends)[-EPOCHS_TIMED:] if k - 1 in ends]
        return statistics.median(took) if took else None

    def seconds_left(self) -> float | None:
        """To the end of training, without the final scoring; None where unknown, or where the run does not go on."""
        each = self.seconds_per_epoch()
        if each is None or self.epochs is None or self.ended or self.done >= self.epochs:
            return None
        return max(0.0, (self.epochs - self.done - self._part(each)) * each)

    def _part(self, each: float) -> float:
        """The part of the epoch under way that is done, in time: first training, then scoring dev. `each`: seconds."""
        last = self.log.last
        if last["event"] != "progress" or last["epoch"] != self.done + 1 or last["phase"] not in ("train", "dev"):
            return 0.0
        speed = self.log.epochs[self.done]["utterances_per_second"]
        training = min(1.0, self.log.start["trials"].get("train", 0) / speed / each) if speed and each > 0 else 1.0
        return training * share(last) if last["phase"] == "train" else training + (1 - training) * share(last)

    def loss_now(self) -> float | None:
        """Mean loss so far of the epoch under way."""
        training = self.log.phases.get("train")
        return training["loss"] if training and training["epoch"] > self.done else None

    def speeds(self) -> dict[str, float | None]:
        """Utterances per second in training and in scoring: of the newest progress, else of the last epoch."""
        keys = {"training": (("train",), "utterances_per_second"), "scoring": (("dev", "eval"), "scored_per_second")}
        found = {}
        for name, (phases, key) in keys.items():
            events = [self.log.phases[phase] for phase in phases if phase in self.log.phases]
            newest = max(events, key=lambda event: event["time"], default={"utterances_per_second": None})
            last = self.log.epochs[self.done][key] if self.done else None
            found[name] = newest["utterances_per_second"] or last
        return found

    def values(self, key: str) -> dict[int, float]:
        """`key` by epoch, where it is known."""
        return {number: epoch[key] for number, epoch in self.log.epochs.items() if epoch[key] is not None}

    def history(self) -> TrainingHistory:
        """For `training_curves`."""
        epochs = self.log.epochs.values()
        eer = [epoch["dev_eer_percent"] / 100 for epoch in epochs]
        tdcf = [epoch["dev_min_tdcf"] for epoch in epochs]
        return TrainingHistory(list(self.log.epochs), [epoch["loss"] for epoch in epochs], eer, tdcf)

    def warnings(self, now: float) -> list[str]:
        """What is wrong or odd, in words; `now`: Unix seconds."""
        log, found, silence = self.log, [], self.silence(now)
        usual = statistics.median(log.gaps) if log.gaps else 0.0
        if not self.ended and silence > max(QUIET, 3 * usual):
            found.append(f"no progress for {silence / 60:.0f} minutes: is it still running?")
        if log.trouble:
            shown = "shown is what it said before" if log.last else "nothing is known yet"
            found.append(f"log.jsonl cannot be read now ({printable(log.trouble)}); {shown}")
        if log.skipped:
            found.append(f"{log.skipped:,} lines of log.jsonl make no sense and are left out")
        if log.last and log.last["time"] - now > SKEW:
            found.append(f"clocks differ: the newest event is {span(log.last['time'] - now)} ahead of this machine")
        if self.state() == "failed":
            found.append(f"failed: {printable(log.last['message'] or 'no reason given')}")
        return found


def share(progress: dict) -> float:
    """What is done of a phase, as a fraction."""
    return min(1.0, progress["done"] / progress["total"]) if progress["total"] else 0.0


# ----------------------------------------------------------------------------------------- folders and machine


def is_run(folder: Path) -> bool:
    """A folder with `config.conf` alone is a run that has not begun."""
    return any(os.path.exists(folder / name) for name in ("log.jsonl", "config.conf"))


def find_runs(folder: Path) -> list[Path]:
    """The runs that `folder` is or holds, down to two levels; none if it cannot be listed now."""
    if is_run(folder):
        return [folder]
    try:
        return [path for pattern in ("*", "*/*") for path in folder.glob(pattern) if is_run(path)]
    except OSError:
        return []


def newest_run(folder: Path) -> Path:
    """The run below `folder` whose log was written last. Raises UserError when there is none."""

    def written(path: Path) -> float:
        try:
            return (path / "log.jsonl").stat().st_mtime
        except OSError:
            return 0.0

    found = find_runs(folder)
    if not found:
        raise UserError(f"no run below {folder}", "a folder with log.jsonl there, or --dir RUN", "none")
    return max(found, key=written)


def look(runs: dict[Path, Run], folders: Iterable[Path]) -> list[Run]:
    """Add the runs that `folders` hold by now to `runs`, read every log on, and return all, the newest first.

    A run that was seen once stays. Raises UserError when a folder never held one.
    """
    for folder in folders:
        found = [path.resolve() for path in find_runs(folder)]
        if not found and not any(path.is_relative_to(folder.resolve()) for path in runs):
            raise UserError(f"--dir {folder} holds no run", "a folder with log.jsonl, or one of such folders", "none")
        runs |= {path: Run(path) for path in found if path not in runs}
    count = Counter(path.name for path in runs)
    for path, one in runs.items():
        one.name = printable(path.name if count[path.name] == 1 else str(path))
        one.refresh()
    return sorted(runs.values(), key=lambda one: one.log.start["time"] if one.log.start else math.inf, reverse=True)


def weight_files(folder: Path) -> dict[str, os.stat_result]:
    """best, swa, last and the newest epoch's checkpoint of a run, where there are; hidden ones are being written."""
    found = {}
    try:
        names = os.listdir(folder / "weights")
    except OSError:  # not there yet
        return {}
    for name in names:
        if name.endswith(".pth") and not name.startswith("."):
            with suppress(OSError):  # replaced since: the next look shows it
                found[name.removesuffix(".pth")] = os.stat(folder / "weights" / name)
    epochs = sorted((name for name in found if name.startswith("epoch_")), key=lambda name: found[name].st_mtime)
    return {name: found[name] for name in ("best", "swa", "last", *epochs[-1:]) if name in found}


def gpus() -> list[str]:
    """Use and memory of each of this machine's GPUs, if nvidia-ml-py is installed and can see any."""
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError:  # no driver
        return []
    return [_gpu(pynvml, index) for index in range(count)]


def _gpu(nvml: Any, index: int) -> str:
    known = []
    try:
        device = nvml.nvmlDeviceGetHandleByIndex(index)
        memory = nvml.nvmlDeviceGetMemoryInfo(device)
        known = [str(nvml.nvmlDeviceGetName(device)), f"{size(memory.used)} of {size(memory.total)}"]
        known.append(f"{nvml.nvmlDeviceGetUtilizationRates(device).gpu} % busy")  # not where the GPU is divided (MIG)
    except nvml.NVMLError as error:
        known.append(str(error))
    return f"GPU {index} of this machine: {', '.join(known)}"


# ----------------------------------------------------------------------------------------------------- words


def span(seconds: float) -> str:
    """`43 s`, `37 min`, `5 h 12 min`, `3 d 4 h`."""
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    if minutes < 1:
        return f"{max(0, int(seconds))} s"
    if hours < 1:
        return f"{minutes} min"
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def size(count: float) -> str:
    """Bytes as `B`, `KiB`, `MiB` or `GiB`."""
    power = min(3, int(math.log2(max(count, 1)) // 10))
    return f"{count / 1024**power:.{min(power, 1)}f} {('B', 'KiB', 'MiB', 'GiB')[power]}"


def printable(text: str) -> str:
    """`text` on one line and without what a terminal would obey: names and messages are anybody's."""
    return "".join(sign if sign.isprintable() else "�" for sign in " ".join(text.split()))


def columns(text: str) -> int:
    """What `text` takes in a terminal: East Asian signs are two columns wide, combining ones none."""
    return sum(0 if unicodedata.combining(s) else 1 + (unicodedata.east_asian_width(s) in "WF") for s in text)


def fit(text: str, width: int) -> str:
    """`text` without its middle where it is wider than `width` columns, else padded to it."""
    head, tail = text[: (len(text) + 1) // 2], text[(len(text) + 1) // 2 :]
    if columns(text) > width:
        while columns(head) + 1 + columns(tail) > width and head:
            head, tail = (head[:-1], tail) if columns(head) > columns(tail) else (head, tail[1:])
        head += "…"
    return head + tail + " " * (width - columns(head + tail))


# ------------------------------------------------------------------------------------------------------ a look


class Screen:
    """Where looks go: in place on a terminal, one below the other elsewhere, and never an escape code there."""

    def __init__(self, in_place: bool):
        self.in_place = in_place and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self.unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
        self.before: tuple[os.terminal_size, int] | None = None  # the last look's terminal, and its lines

    def show(self, draw: Callable[[int, int, bool], list[str]]) -> None:
        """Print what `draw(columns, rows of a chart, unicode)` gives, with charts as high as the terminal has room."""
        terminal = shutil.get_terminal_size()
        width = max(NARROWEST, terminal.columns)
        for rows in CHART_ROWS:
            lines = draw(width, rows, self.unicode)
            if not self.in_place or len(lines) < terminal.lines:
                break
        if self.in_place and len(lines) >= terminal.lines:
            hidden = len(lines) - terminal.lines + 2
            lines = [*lines[:-hidden], f"… {hidden:,} more lines"]
        text = "\n".join([*lines, ""])
        if not self.unicode:
            text = text.translate(ASCII).encode("ascii", "replace").decode()
        sys.stdout.write(self._place(terminal) + text)
        sys.stdout.flush()
        self.before = (terminal, len(lines))

    def _place(self, terminal: os.terminal_size) -> str:
        """What goes before a look: over the last one on a terminal; where its size changed, lines were broken anew."""
        if self.before is None:
            return ""
        if not self.in_place:
            return "\n"
        then, lines = self.before
        return f"\x1b[{lines}F\x1b[J" if then == terminal else "\x1b[H\x1b[2J"


class Look(NamedTuple):
    """What is to be shown."""

    runs: Sequence[Run]
    now: float  # Unix seconds
    title: str
    machine: Sequence[str]  # see `gpus`


def compose(what: Look, width: int, rows: int, unicode: bool) -> list[str]:
    """The lines of a look: one run in full, or a table of several, then charts of `rows` lines."""
    runs, now = what.runs, what.now
    lines = [time.strftime("%H:%M:%S", time.localtime(now)) + what.title]
    if len(runs) > 1:
        lines += table([cells(one, now) for one in runs], width)
        lines += listing([("!", f"{one.name}: {text}") for one in runs for text in one.warnings(now)], width)
    last = max(one.done for one in runs)
    for one in runs:
        if len(runs) > 1:
            lines += ["", one.name, *listing(files(one, now), width)]
        else:
            lines += [one.name, *listing(facts(one, now) + files(one, now), width)]
            lines += listing([("!", text) for text in one.warnings(now)], width)
        lines += charts(one, last, width, rows, unicode)
    lines += [line for text in what.machine for line in textwrap.wrap(text, width)]
    return [fit(line, width).rstrip() for line in lines]


def listing(pairs: Sequence[tuple[str, str]], width: int) -> list[str]:
    """Labels and texts in two columns."""
    left = max((len(label) for label, _ in pairs), default=0) + 2
    lines = []
    for label, text in pairs:
        lines += textwrap.wrap(text, width, initial_indent=f"{label:<{left}}", subsequent_indent=" " * left)
    return lines


def facts(one: Run, now: float) -> list[tuple[str, str]]:
    """What there is to say about a run, by label."""
    newest, speeds = one.log.epochs.get(one.done), one.speeds()
    losses = [f"{one.loss_now():.4f} now"] if one.loss_now() is not None else []
    losses += [f"{newest['loss']:.4f} in epoch {one.done}"] if newest else []
    found = [("state", f"{one.state()} · newest event {span(one.silence(now))} ago"), *position(one, now)]
    found += [("loss", " · ".join(losses))] if losses else []
    for label, key, form in DEV:
        if values := one.values(key):
            best = lowest(values)
            found.append((label, f"{form} last · {form} best, epoch {best}".format(values[max(values)], values[best])))
    known = " · ".join(f"{speed:,.0f} {what}" for what, speed in speeds.items() if speed)
    return found + ([("speed", f"{known}, utterances/s")] if known else [])


def position(one: Run, now: float) -> list[tuple[str, str]]:
    """Where a run stands and how long training still takes."""
    if not one.epochs:
        return []
    last, left, text = one.log.last, one.seconds_left(), f"{one.under_way} of {one.epochs}"
    if last["event"] == "progress":
        done = f"{last['done']:,} of {last['total']:,} utterances ({100 * share(last):.0f} %)"
        text += f" · {PHASES[last['phase']]} {done}"
    found = [("epoch", text), ("", bar(one.done / one.epochs))]
    if left is not None:
        end = time.strftime(", until %a %H:%M", time.localtime(now + left)) if left < WEEK else ""
        found.append(("left", f"{span(left)} of training{end}"))
    elif not one.ended and one.done < one.epochs:
        found.append(("left", "unknown until an epoch is done"))
    return found


def files(one: Run, now: float) -> list[tuple[str, str]]:
    """Results on eval, checkpoints with size and age, and the most memory used."""
    found = []
    for data_set, evals in {"": one.log.evals, **one.log.further}.items():
        for name, event in evals.items():
            if not name.startswith("epoch_"):
                tdcf = "" if event["min_tdcf"] is None else f", min t-DCF {event['min_tdcf']:.4f}"
                where = f" on {printable(data_set)}" if data_set else ""
                found.append(("eval", f"{name}{where}: EER {event['eer_percent']:.3f} %{tdcf}"))
    weights = weight_files(one.folder)
    ages = [f"{name} {size(file.st_size)}, {span(now - file.st_mtime)} ago" for name, file in weights.items()]
    found += [("weights", printable(" · ".join(ages)))] if ages else []
    peak = one.values("peak_memory_bytes")
    return found + ([("memory", f"{size(max(peak.values()))} at most")] if peak else [])


def bar(fraction: float) -> str:
    """24 columns and the percentage."""
    return f"{'█' * round(24 * fraction):░<24} {100 * fraction:.0f} %"


def lowest(values: dict[int, float]) -> int:
    """The epoch of the lowest value, of equal ones the later, as training keeps it."""
    return min(reversed(values), key=values.get)


def cells(one: Run, now: float) -> dict[str, str]:
    """A run's row of the table by column."""
    (_, eer_key, _), (_, tdcf_key, _) = DEV
    newest, left, speeds, loss = one.log.epochs.get(one.done), one.seconds_left(), one.speeds(), one.loss_now()
    loss = newest["loss"] if loss is None and newest else loss
    row = {
        "run": one.name,
        "state": one.state() + (" !" if one.warnings(now) else ""),
        "epoch": f"{one.under_way}/{one.epochs or '?'}",
        "left": "" if left is None else span(left),
        "loss": "" if loss is None else f"{loss:.4f}",
    }
    for head, key, digits in (("EER %", eer_key, 3), ("t-DCF", tdcf_key, 4)):
        values = one.values(key)
        row[head] = f"{values[max(values)]:.{digits}f}" if values else ""
        row[f"best {head}"] = f"{values[lowest(values)]:.{digits}f} ({lowest(values)})" if values else ""
    rates = {"train/s": speeds["training"], "score/s": speeds["scoring"]}
    return row | {head: f"{rate:,.0f}" if rate else "" for head, rate in rates.items()}


def table(rows: Sequence[dict[str, str]], width: int) -> list[str]:
    """An aligned table; columns without any entry are left out, and those of `SPARE` until it fits into `width`."""
    wide = {head: max(columns(row[head]) for row in rows) for head in rows[0]}
    wide = {head: max(most, len(head)) for head, most in wide.items() if most}
    room = min(wide["run"], 12)
    for head in SPARE:
        if room + sum(most + 2 for name, most in wide.items() if name != "run") > width:
            wide.pop(head, None)
    wide["run"] = min(wide["run"], max(room, width - sum(most + 2 for name, most in wide.items() if name != "run")))
    lines = []
    for row in ({head: head for head in wide}, *rows):
        left = [fit(row[head], wide[head]) for head in wide if head in ("run", "state")]
        lines.append("  ".join(left + [f"{row[head]:>{wide[head]}}" for head in wide if head not in ("run", "state")]))
    return lines


# ------------------------------------------------------------------------------------------------------- charts


def charts(one: Run, last: int, width: int, rows: int, unicode: bool) -> list[str]:
    """Loss and dev measures over epochs 1 … `last`, side by side where there is room."""
    units = {label: f"{label} (%)" if "%" in form else label for label, _, form in DEV}
    series = {"loss": one.values("loss")} | {units[label]: one.values(key) for label, key, _ in DEV}
    series = {label: values for label, values in series.items() if values}
    if not series:
        return ["no epoch is done yet"]
    across = max(1, min(len(series), (width + 3) // (CHART_WIDTH + 3)))
    each = (width + 3) // across - 3
    drawn = [chart(label, values, last, (each, rows), unicode) for label, values in series.items()]
    groups = [drawn[first : first + across] for first in range(0, len(drawn), across)]
    return ["   ".join(fit(line, each) for line in beside) for group in groups for beside in zip(*group, strict=True)]


def chart(label: str, values: dict[int, float], last: int, place: tuple[int, int], unicode: bool) -> list[str]:
    """A title, `place[1]` rows and the epochs below, in `place[0]` columns; logarithmic where values differ tenfold."""
    numbers, (width, rows) = np.array(list(values.values())), place
    low, high = numbers.min(), numbers.max()
    logarithmic = low > 0 and high > 10 * low
    heights = np.ones(len(numbers))  # where all are equal
    if high > low:
        scaled, least, most = (np.log(x) if logarithmic else x for x in (numbers, low, high))
        heights = (scaled - least) / (most - least)
    names = [f"{high:.3g}", *[""] * (rows - 2), f"{low:.3g}" if high > low else ""]
    left = max(map(len, names))
    places = (np.array(list(values)) - 1) / max(last - 1, 1)
    lines = trace(places, heights, (width - left - 1, rows), unicode)
    framed = [f"{name:>{left}}{'┤' if name else '│'}{line}" for name, line in zip(names, lines, strict=True)]
    ends = f"{'':>{left}} 1" + (f"{last:>{width - left - 2}}" if last > 1 else "")
    return [label + (", log scale" if logarithmic else ""), *framed, ends]


def trace(x: np.ndarray, y: np.ndarray, place: tuple[int, int], unicode: bool) -> list[str]:
    """The line through the points x, y (N,), from 0 to 1 and x ascending, in `place`: columns and rows of signs."""
    (signs, rows), (across, down) = place, (2, 4) if unicode else (1, 3)
    x, y = x * (signs * across - 1), y * (rows * down - 1)
    edges = np.interp(np.arange(signs * across + 1) - 0.5, x, y)  # between the columns of dots
    low, high = np.minimum(edges[:-1], edges[1:]), np.maximum(edges[:-1], edges[1:])
    column = np.round(x).astype(int)
    np.minimum.at(low, column, y)
    np.maximum.at(high, column, y)
    level = np.arange(rows * down)[::-1, None]
    dots = (np.round(low) <= level) & (level <= np.round(high))
    dots[:, : column[0]] = dots[:, column[-1] + 1 :] = False
    dots = dots.reshape(rows, down, signs, across).swapaxes(1, 2)
    if unicode:
        codes = (dots * BRAILLE).sum((2, 3))
        return ["".join(chr(0x2800 + code) if code else " " for code in row) for row in codes]
    return ["".join(" '-|.|||"[code] for code in row) for row in (dots[..., 0] * [1, 2, 4]).sum(2)]


if __name__ == "__main__":
    run(main)
