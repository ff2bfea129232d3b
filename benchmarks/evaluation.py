"""How long evaluation takes: 71,237 trials with ASV scores, relative to the import of scipy.stats; then the bootstrap.

    python benchmarks/evaluation.py [--repeat 5] [--resamples 1000]

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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--resamples", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
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
