"""Score whole data sets with a checkpoint: score files, metrics, tables and figures.

    python comprehensive_eval.py --checkpoint AASIST --dataset 2019 --data_path /data/LA
    python comprehensive_eval.py --checkpoint CKPT --dataset 2019 2021 2021DF itw --data_path /data --device cuda
    python comprehensive_eval.py --checkpoint CKPT --dataset folder --data_path recordings --compare AASIST

Writes results/<name>/<data set>/ with scores.txt, results_summary.txt, metrics.json, table.tex and plots/. A run that
was stopped goes on where it stopped. docs/datasets.md says where files are looked for.
"""

import re
import sys
from pathlib import Path

from common.command import Parser, run
from common.errors import UserError
from common.escaping import printable
from common.files import exclusive
from corpora.open import KINDS
from scoring.detector import Detector
from scoring.eval_results import draw_results, evaluate_run, scores_of, write_results
from scoring.eval_set import EvalRun, EvalSet, score_eval_set


def parse_arguments():
    """The options. Raises UserError for options that do not fit."""
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="CKPT", help="weights, a file or a name (AASIST)")
    add("--dataset", required=True, nargs="+", choices=tuple(KINDS), help="kinds of data sets, each once")
    add("--data_path", nargs="+", default=["."], metavar="DIR", help="one for all data sets, or one for each")
    add("--output_dir", default="results", metavar="DIR", help="default: %(default)s")
    add("--name", help="name of the system; default: that of the checkpoint, after that of its run")
    add("--batch_size", type=int, default=32, metavar="N", help="utterances scored at a time (default: %(default)s)")
    add("--num_workers", type=int, default=4, metavar="N", help="processes that decode audio (default: %(default)s)")
    add("--max_files", type=int, metavar="N", help="only N trials, spread evenly over the data set")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--bootstrap", type=int, default=1000, metavar="N", help="resamples for 95 %% intervals (default: %(default)s)")
    add("--compare", nargs="+", default=[], metavar="NAME", help="systems in the output folder to compare with")
    args = parser.parse_args()
    args.name = default_name(Path(args.checkpoint)) if args.name is None else args.name
    least = {"batch_size": 1, "num_workers": 0, "max_files": 1, "bootstrap": 0}
    for option, minimum in least.items():
        if (value := getattr(args, option)) is not None and value < minimum:
            parser.error(f"--{option} must be {minimum} or more, not {value}")
    for name in (args.name, *args.compare):
        if not re.fullmatch(r"\w[\w.+-]*", name):
            parser.error(f"a system's name consists of letters, digits and . _ + -, not {name!r}")
    if len({args.name, *args.compare}) <= len(args.compare):
        parser.error(f"--compare takes other systems than {args.name}, each once")
    if len(args.data_path) not in (1, len(args.dataset)) or len(set(args.dataset)) < len(args.dataset) > 1:
        parser.error("give each --dataset once, and one --data_path for all or one for each")
    return args


def default_name(checkpoint: Path) -> str:
    """The name of the checkpoint, after that of its run if it lies in a run folder: LA_AASIST_ep100_bs24_best."""
    run_folder = checkpoint.absolute().parent.parent
    prefix = f"{run_folder.name}_" if (run_folder / "config.conf").exists() else ""
    return prefix + checkpoint.stem


def load_eval_sets(args) -> list[EvalSet]:
    """The data sets. Raises UserError if one cannot be evaluated."""
    roots = args.data_path * len(args.dataset) if len(args.data_path) == 1 else args.data_path
    eval_sets = []
    for kind, root in zip(args.dataset, roots, strict=True):
        eval_sets.append(EvalSet.load(kind, Path(root), args.max_files))
        for note in eval_sets[-1].notes:
            print(printable(f"note: {note}"), file=sys.stderr)
    return eval_sets


def evaluate_on(eval_run: EvalRun, eval_set: EvalSet) -> int:
    """Score the data set, evaluate, write the results, print the report; return the number of unreadable files.

    Raises UserError if another process writes to the results folder; PartFailed when only a figure is missing.
    """
    identity, folder = eval_run.identity(eval_set), eval_run.folder(eval_set)
    with exclusive(folder, wait=False):
        scored = score_eval_set(eval_run, eval_set, identity)
        for error in scored.errors.values():
            print(printable(f"error: {error}"), file=sys.stderr)
        done = evaluate_run(eval_run, eval_set, scored.scores)
        report = write_results(eval_run, eval_set, identity, scored, done)
        print(f"{report}\nwritten to {printable(folder)}/", flush=True)
        draw_results(eval_run, eval_set, done)
    return len(scored.errors)


def main() -> int:
    """Evaluate the checkpoint on each data set; exit code 1 if a file or a data set failed."""
    args = parse_arguments()
    eval_run = EvalRun(
        detector=Detector.from_checkpoint(args.checkpoint, args.device),
        checkpoint=args.checkpoint,
        name=args.name,
        output_dir=Path(args.output_dir),
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        max_files=args.max_files,
        bootstrap=args.bootstrap,
        compare=args.compare,
    )
    eval_sets = load_eval_sets(args)
    for eval_set in eval_sets:
        for name in args.compare:
            scores_of(eval_run, name, eval_set)
    failures = 0
    for eval_set in eval_sets:
        try:
            failures += evaluate_on(eval_run, eval_set)
        except UserError as error:
            if len(eval_sets) == 1:
                raise
            print(f"error: {eval_set.name}: {error}", file=sys.stderr)
            failures += 1
    return 1 if failures else 0


if __name__ == "__main__":
    run(main)
