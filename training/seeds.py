"""Runs of one configuration with different seeds: mean, spread and the interval of the mean, from the runs' logs.

    python -m training.seeds exp_result/LA_AASIST_ep100_bs24_seed{1,2,3} --output results/AASIST_seeds

Prints a table. With --output also writes summary.json, summary.txt, summary.tex (booktabs) and seeds.png/.pdf. The
runs may have been trained on any machine; each needs its log.jsonl and config.conf.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from common.command import Parser, run
from common.errors import UserError
from common.escaping import latex, printable
from common.files import write_text
from config import INCIDENTAL, flat, load_config, to_dict
from plots.runs import SeedSpread, seed_spreads
from plots.style import write_figures
from training.log_reader import LogReader

CHECKPOINTS = ("best", "swa", "ema")
# {key in an eval event: (partition, name, decimals)}
MEASURES = {
    "dev_eer_percent": ("dev", "EER (%)", 3),
    "dev_min_tdcf": ("dev", "min t-DCF", 4),
    "eer_percent": ("eval", "EER (%)", 3),
    "min_tdcf": ("eval", "min t-DCF", 4),
}


@dataclass(frozen=True)
class SeedRun:
    """A run as its log describes it."""

    name: str
    seed: int
    state: str  # "finished", or "<n> of <n> epochs"
    settings: dict[str, object]  # name: value, must be the same for all seeds
    results: dict[str, dict[str, float]]  # {checkpoint: {measure: value}}, the `MEASURES` that are known
    further: dict[str, dict[str, float]] = field(default_factory=dict)  # {data set beside eval: {checkpoint: EER %}}

    @property
    def finished(self) -> bool:
        return self.state == "finished"


def read_seed_run(folder: str | Path) -> SeedRun:
    """The run in `folder`. Raises UserError when it cannot be read."""
    folder = Path(folder)
    log = LogReader(folder / "log.jsonl")
    log.refresh()
    if log.trouble:
        raise UserError(f"cannot read {log.path}: {log.trouble}")
    if log.start is None:
        raise UserError(f"{log.path} is no run's log", 'an event "start"', "none")
    state = (
        "finished" if log.last["event"] == "end" else f"{next(reversed(log.epochs), 0)} of {log.start['epochs']} epochs"
    )
    init = Path(log.start["init"]).name if log.start["init"] else None  # elsewhere the same file may have another path
    settings = flat(to_dict(load_config(folder / "config.conf")) | {"trials": log.start["trials"]})
    settings = {name: value for name, value in settings.items() if name not in INCIDENTAL | {"seed"}} | {"init": init}
    results = {
        checkpoint: {measure: event[measure] for measure in MEASURES if event[measure] is not None}
        for checkpoint in CHECKPOINTS
        if (event := log.evals.get(checkpoint))
    }
    further = {
        data_set: {checkpoint: evals[checkpoint]["eer_percent"] for checkpoint in CHECKPOINTS if checkpoint in evals}
        for data_set, evals in log.further.items()
    }
    return SeedRun(folder.resolve().name, log.start["seed"], state, settings, results, further)


def require_comparable(runs: Sequence[SeedRun]) -> None:
    """Raises UserError unless these are finished runs of one configuration with different seeds."""
    if not runs:
        raise UserError("nothing to summarise", "at least one run", "none")
    for one in runs:
        if not one.finished:
            raise UserError(f"run {one.name} is not finished", 'an event "end" at the end of its log', one.state)
        if not one.results:
            raise UserError(f"run {one.name} has no results", 'an event "eval" of best.pth or swa.pth', "none")
    first = runs[0]
    for other in runs[1:]:
        for name in first.settings | other.settings:
            values = [one.settings.get(name) for one in (first, other)]
            if values[0] != values[1]:
                raise UserError(f"runs {first.name} and {other.name} differ in {name}", *map(repr, values))
        if first.results.keys() != other.results.keys():
            names = [", ".join(one.results) for one in (first, other)]
            raise UserError(f"runs {first.name} and {other.name} have other checkpoints", *names)
    for one, other in pairwise(sorted(runs, key=lambda one: one.seed)):
        if one.seed == other.seed:
            raise UserError(f"runs {one.name} and {other.name} have the same seed", "different seeds", one.seed)


def summarise(runs: Sequence[SeedRun]) -> dict:
    """Statistics over seeds, ready for JSON. Raises UserError, see `require_comparable`.

    {"seeds": […], "runs": {seed: name}, "checkpoints": {checkpoint: {measure: see `statistics`}}, "data_sets":
    {data set: {checkpoint: statistics of its EER (%)}}}; data sets beside eval, those that every run has.
    """
    require_comparable(runs)
    runs = sorted(runs, key=lambda one: one.seed)
    checkpoints = {}
    for checkpoint in runs[0].results:
        found = {measure: {one.seed: one.results[checkpoint].get(measure) for one in runs} for measure in MEASURES}
        known = {measure: {seed: x for seed, x in values.items() if x is not None} for measure, values in found.items()}
        checkpoints[checkpoint] = {measure: statistics(values) for measure, values in known.items() if values}
    data_sets = {
        name: {c: statistics({one.seed: one.further[name][c] for one in runs}) for c in CHECKPOINTS if c in first}
        for name, first in runs[0].further.items()
        if all(one.further.get(name, {}).keys() == first.keys() for one in runs)
    }
    names = {str(one.seed): one.name for one in runs}
    return {"seeds": [one.seed for one in runs], "runs": names, "checkpoints": checkpoints, "data_sets": data_sets}


def statistics(values: dict[int, float]) -> dict:
    """Statistics of {seed: value}: n, mean, sd (n − 1), min, max, the mean's 95 % interval (Student's t), best_of_n.

    sd and interval are None for a single seed. best_of_n is the luckiest seed, which papers call the best run.
    """
    from scipy.special import stdtrit

    x, n = np.array(list(values.values())), len(values)
    mean, best = float(x.mean()), min(values, key=values.get)
    sd = float(x.std(ddof=1)) if n > 1 else None
    half = float(stdtrit(n - 1, 0.975)) * sd / n**0.5 if n > 1 else None
    return {
        "n": n,
        "mean": mean,
        "sd": sd,
        "min": float(x.min()),
        "max": float(x.max()),
        "interval": [mean - half, mean + half] if n > 1 else None,
        "best_of_n": {"seed": best, "value": values[best]},
        "values": [{"seed": seed, "value": value} for seed, value in values.items()],
    }


# ------------------------------------------------------------------------------------------------------- output


def format_table(summary: dict) -> str:
    """An aligned table for people."""
    seeds = summary["seeds"]
    lines = [f"{len(seeds)} seed{'s' * (len(seeds) > 1)}: {', '.join(map(str, seeds))}", ""]
    lines.append(
        f"{'':<6}{'':<15}{'n':>3}{'mean':>10}{'sd':>9}   {'95 % of the mean':<19}{'worst':>9}{'best of n':>11} (seed)"
    )
    for checkpoint, measures in summary["checkpoints"].items():
        for measure, found in measures.items():
            partition, name, digits = MEASURES[measure]
            lines.append(_row(checkpoint, f"{partition} {name}", found, digits))
    for data_set, checkpoints in summary["data_sets"].items():
        lines += ["", printable(data_set)]
        lines += [_row(checkpoint, "EER (%)", found, 3) for checkpoint, found in checkpoints.items()]
    lines += ["", "best of n is luck: report the mean. sd and interval speak of other seeds, not of other data."]
    return "\n".join(lines)


def _row(checkpoint: str, measure: str, found: dict, digits: int) -> str:
    cells = [_number(found[key], digits) for key in ("mean", "sd")]
    ends = " … ".join(f"{end:.{digits}f}" for end in found["interval"] or []) or "–"
    best = found["best_of_n"]
    line = f"{checkpoint:<6}{measure:<15}{found['n']:>3}{cells[0]:>10}{cells[1]:>9}   {ends:<19}"
    return f"{line}{found['max']:>9.{digits}f}{best['value']:>11.{digits}f} ({best['seed']})"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def format_latex(summary: dict) -> str:
    """A LaTeX tabular (booktabs) with a row for each checkpoint: mean ± sd, and the best of n in brackets."""
    heads = [f"{partition} {name}" for partition, name, _ in MEASURES.values()]
    heads += [f"{data_set} EER (%)" for data_set in summary["data_sets"]]
    heads = [latex(head) for head in heads]
    lines = [
        f"% {len(summary['seeds'])} seeds: mean and standard deviation; in brackets the luckiest. Needs booktabs.",
        f"\\begin{{tabular}}{{l{'r' * len(heads)}}}",
        "\\toprule",
        f"checkpoint & {' & '.join(heads)} \\\\",
        "\\midrule",
    ]
    for checkpoint, measures in summary["checkpoints"].items():
        cells = [_latex_cell(measures.get(measure), digits) for measure, (_, _, digits) in MEASURES.items()]
        cells += [_latex_cell(found.get(checkpoint), 3) for found in summary["data_sets"].values()]
        lines.append(f"{checkpoint} & {' & '.join(cells)} \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"])


def _latex_cell(found: dict | None, digits: int) -> str:
    if found is None:
        return "--"
    spread = "" if found["sd"] is None else f" \\pm {found['sd']:.{digits}f}"
    return f"${found['mean']:.{digits}f}{spread}$ ({found['best_of_n']['value']:.{digits}f})"


def write_summary(folder: str | Path, summary: dict) -> list[Path]:
    """Write summary.json, .txt and .tex, seeds.png and .pdf to `folder`; returns their paths.

    Raises UserError; PartFailed when only the figure is missing.
    """
    texts = {
        "json": json.dumps(summary, indent=2, allow_nan=False),
        "txt": format_table(summary),
        "tex": format_latex(summary),
    }
    paths = [Path(folder) / f"summary.{kind}" for kind in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        write_text(path, text + "\n")
    return paths + write_figures({Path(folder) / "seeds": lambda: seed_spreads(_panels(summary))})


def _panels(summary: dict) -> dict[str, list[SeedSpread]]:
    panels: dict[str, list[SeedSpread]] = {}
    for checkpoint, measures in summary["checkpoints"].items():
        for measure, found in measures.items():
            partition, name, _ = MEASURES[measure]
            values = [item["value"] for item in found["values"]]
            spread = SeedSpread(checkpoint, partition, values, found["mean"], found["interval"])
            panels.setdefault(name, []).append(spread)
    return panels


def main() -> None:
    """The command."""
    parser = Parser(prog="python -m training.seeds", description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders with different seeds")
    parser.add_argument("--output", metavar="DIR", help="also write summary.json, .txt, .tex and the figure here")
    options = parser.parse_args()
    summary = summarise([read_seed_run(folder) for folder in options.runs])
    print(format_table(summary))
    if options.output:
        write_summary(options.output, summary)
        print(f"summary and figure written to {options.output}/", file=sys.stderr)


if __name__ == "__main__":
    run(main)
