"""Go on with a run that was killed or stopped, or whose machine went down.

    python resume_training.py exp_result/LA_AASIST_ep100_bs24      # the run folder, or any file in it
    python resume_training.py                                      # the newest unfinished run in ./exp_result
    python resume_training.py exp_result/RUN --database_path /data/LA --cache mmap

The run ends with the same bits as if nothing had happened. Options after the run folder are passed to main.py:
--device, and those that say where the data is and how it is read.
"""

import sys
from pathlib import Path

import main
from common.command import Parser, run
from common.errors import UserError
from common.escaping import printable
from training.log_reader import LogReader


def find_run(given: str | None) -> Path:
    """The run folder at or above the path `given`; without one the newest unfinished run. Raises UserError."""
    if given is not None:
        path = Path(given)
        for folder in (path, *path.resolve().parents):
            if (folder / "config.conf").is_file():
                return folder
        raise UserError(f"no run at {given}", "a run folder, with its config.conf", "none there or above")
    saved = [path.parents[1] for path in Path("exp_result").glob("*/weights/last.pth")]
    runs = [folder for folder in saved if (folder / "config.conf").is_file()]
    unfinished = [folder for folder in runs if not is_finished(folder)]
    if not unfinished:
        found = "finished runs only" if runs else "no run"
        raise UserError("nothing to resume", "an unfinished run in ./exp_result", found)
    return max(unfinished, key=lambda folder: (folder / "weights" / "last.pth").stat().st_mtime)


def is_finished(folder: Path) -> bool:
    """Whether the run's log ends with its end."""
    log = LogReader(folder / "log.jsonl")
    log.refresh()
    return log.last is not None and log.last["event"] == "end"


def resume() -> int | None:
    """The command."""
    parser = Parser(prog="resume_training.py", description=__doc__)
    parser.add_argument("run", nargs="?", help="the run folder (default: the newest unfinished in ./exp_result)")
    own = [word for word in sys.argv[1:2] if word in ("-h", "--help") or not word.startswith("-")]
    options = sys.argv[1 + len(own) :]  # whose values are no runs
    folder = find_run(parser.parse_args(own).run)
    print(printable(f"resuming {folder}"), file=sys.stderr)
    sys.argv = ["main.py", "--resume", str(folder), *options]
    return main.main()


if __name__ == "__main__":
    run(resume)
