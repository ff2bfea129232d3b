"""How long evaluation takes: 71,237 trials with ASV scores, relative to the import of scipy.stats; then the bootstrap.

    python benchmarks/evaluation.py [--repeat 5] [--resamples 1000]
    python benchmarks/evaluation.py --lines 10000000     # only: how fast are large files read, with how much memory?

Uses the published score file in ../shared if it exists, otherwise Gaussian scores of the same number.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
PUBLISHED = SHARED / "fixtures" / "scores" / "aasist_official_la_eval.txt"
ASV = SHARED / "data" / "LA_mini" / "ASVspoof2019_LA_asv_scores" / "ASVspoof2019.LA.asv.eval.gi.trl.scores.txt"
LIMIT_MIB, LIMIT_SECONDS = 300, 30


def seconds(command: list[str], repeat: int) -> float:
    """The shortest wall time of `repeat` runs: other programs on the machine can only add to it."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return min(times)


def stand_ins(folder: Path) -> tuple[Path, Path]:
    """Score and ASV score files of the size of ASVspoof 2019 LA eval."""
    rng = np.random.default_rng(0)
    scores, asv = folder / "scores.txt", folder / "asv.txt"
    keys = [("-", "bonafide", 4.0)] * 7355 + [(f"A{7 + row % 13:02d}", "spoof", -2.0) for row in range(63882)]
    scores.write_text(
        "".join(f"LA_E_{row} {attack} {key} {rng.normal(mean, 2)!r}\n" for row, (attack, key, mean) in enumerate(keys))
    )
    kinds = [("bonafide", "target", 10)] * 5370 + [("bonafide", "nontarget", -20)] * 33327
    kinds += [("A07", "spoof", 3)] * 63882
    asv.write_text("".join(f"{attack} {label} {rng.normal(mean, 7)!r}\n" for attack, label, mean in kinds))
    return scores, asv


def speakers(scores: Path, folder: Path) -> Path:
    """A protocol that gives each trial one of 48 speakers, for the clustered bootstrap."""
    rows = [line.split() for line in scores.read_text().splitlines()]
    protocol = folder / "protocol.txt"
    protocol.write_text(
        "".join(f"S{row % 48:02d} {name} - {attack} {key}\n" for row, (name, attack, key, _) in enumerate(rows))
    )
    return protocol


READ = """
import resource, sys, time
from metrics.evaluate import evaluate
from metrics.score_files import read_scores
for path in sys.argv[1:]:
    wall, start = time.perf_counter(), time.process_time()
    scores = read_scores(path)
    took, peak = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{len(scores.score):>12,} lines read   {took:6.1f} s of processor time "
          f"({time.perf_counter() - wall:.1f} s), {took / len(scores.score) * 1e6:.1f} us a line, "
          f"{peak:.2f} GiB", flush=True)
    start = time.process_time()
    evaluate(scores)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{'':12} evaluated    {time.process_time() - start:6.1f} s, {peak:.2f} GiB", flush=True)
"""


def made_scores(path: Path, lines: int, attacks: int) -> Path:
    """A score file of `lines` lines; a tenth is bona fide."""
    rng = np.random.default_rng(0)
    with path.open("w") as file:
        for start in range(0, lines, 100_000):
            count = min(100_000, lines - start)
            attack, bonafide = rng.integers(0, attacks, count), rng.random(count) < 0.1
            for row, (name, real, score) in enumerate(zip(attack, bonafide, rng.normal(2.0 * bonafide), strict=True)):
                key = "- bonafide" if real else f"A{name + 7:02d} spoof"
                file.write(f"LA_E_{start + row:08d} {key} {float(score)!r}\n")
    return path


def read_large_files(folder: Path, lines: int) -> None:
    """A file of ordinary size, one of 20,000 attacks, and a large one, each in a process of its own."""
    for count, attacks in ((70_000, 13), (100_000, 20_000), (lines, 13)):
        path = made_scores(folder / f"{count}.txt", count, attacks)
        subprocess.run([sys.executable, "-c", READ, path], cwd=ROOT, check=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--lines", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.lines:
            read_large_files(folder, options.lines)
            return
        scores, asv = (PUBLISHED, ASV) if PUBLISHED.exists() else stand_ins(folder)
        evaluate = [sys.executable, "evaluation.py", str(scores), "--asv_scores", str(asv)]
        baseline = seconds([sys.executable, "-c", "import numpy, scipy.stats"], options.repeat)
        plain = seconds(evaluate, options.repeat)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024  # of the largest child so far
        print(f"scores                             {scores.name}")
        print(f"import numpy, scipy.stats          {baseline:6.2f} s")
        limit = 2.5 * baseline + 1
        print(f"evaluation, no bootstrap           {plain:6.2f} s   (limit 2.5 × import + 1 s = {limit:.2f} s)")
        print(f"ratio to the import                {plain / baseline:6.2f}")
        print(f"peak memory                        {peak:6.0f} MiB (limit {LIMIT_MIB} MiB)")
        resampled = [*evaluate, "--bootstrap", str(options.resamples)]
        for unit, extra in (("trial", []), ("speaker × attack", ["--protocol", str(speakers(scores, folder))])):
            took = seconds([*resampled, *extra], 1)
            print(f"{options.resamples:,} resamples by {unit:<18}{took:6.2f} s   (limit {LIMIT_SECONDS} s)")


if __name__ == "__main__":
    main()
