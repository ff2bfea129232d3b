"""A job of very many tiny files: time and memory per file, and what five kills change.

    python benchmarks/many_files.py [--files 100000] [--kills 5] [--workers 2] [--folder DIR]

The engine takes no time, so that all that is left is what a file costs beside the model: starting to read it, SHA-256,
decoding, pipes, verdict, a line of JSON and one of text. The job is run once to its end; then again, killed with all
its processes at random moments and resumed. Its document must have the bytes of the first one.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np

CONTENTS = 500  # different recordings; the files are links to them
SECONDS = 0.6


class QuickEngine:
    """Its score is a chunk's mean level."""

    name, precision, device, nb_samp, batch_size = "torch", "fp32", "cpu", 9600, 16

    def logits(self, waveforms: np.ndarray) -> np.ndarray:
        levels = np.abs(np.asarray(waveforms, np.float64)).mean(axis=1)
        return np.stack([-levels, levels], axis=1)


def make_files(folder: Path, count: int) -> Path:
    """The files and their list."""
    import soundfile

    (folder / "contents").mkdir()
    for number in range(CONTENTS):
        noise = 0.1 * np.random.default_rng(number).standard_normal(round(SECONDS * 16_000))
        soundfile.write(folder / "contents" / f"{number}.wav", noise * (1 + number / CONTENTS), 16_000)
    names = [folder / f"{number // 1000:03}" / f"{number:06}.wav" for number in range(count)]
    for number, name in enumerate(names):
        name.parent.mkdir(exist_ok=True)
        os.link(folder / "contents" / f"{number * 7919 % CONTENTS}.wav", name)
    (folder / "list.txt").write_text("".join(f"{name}\n" for name in names))
    return folder / "list.txt"


def memory(name: str) -> int:
    """VmRSS or VmHWM of this process, in bytes."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) << 10


def job(list_path: str, document: str, workers: int) -> None:
    """What inference.py does, with the quick engine; its last line of stdout is about memory."""
    from inference import print_result
    from scoring.audio_files import find_audio
    from scoring.batch import BatchOutputs, score_batch
    from scoring.detector import Detector
    from scoring.model_card import ModelCard

    detector = Detector(QuickEngine(), ModelCard("quick", "0" * 64, {}, threshold=0.1))
    judge, files = detector.judge(), find_audio([], list_path, [])
    listed = memory("VmRSS")
    score_batch(
        detector, judge, files, BatchOutputs(Path(document)), workers, lambda result: print_result(result, judge, True)
    )
    print(json.dumps({"listed": listed, "end": memory("VmRSS"), "peak": memory("VmHWM")}))


def start(folder: Path, document: Path, workers: int) -> subprocess.Popen:
    """The job in a process group of its own."""
    command = [sys.executable, __file__, "--job", folder / "list.txt", document, "--workers", workers]
    with (folder / "out").open("w") as out:
        return subprocess.Popen(list(map(str, command)), stdout=out, stderr=out, start_new_session=True)


def run_whole(folder: Path, count: int, workers: int) -> float:
    """Run the job to its end, print what it took, return the seconds of the clock."""
    started = time.monotonic()
    process = start(folder, folder / "whole.json", workers)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    text = (folder / "out").read_text()
    assert status == 0, text[-2000:]
    found = json.loads(text.splitlines()[-1])
    growth = (found["end"] - found["listed"]) / count
    print(f"{count:,} files: {1000 * seconds / count:.2f} ms a file, {seconds:.0f} s in all; processor time of")
    print(f"  the main process and its children {1000 * (usage.ru_utime + usage.ru_stime) / count:.2f} ms a file")
    print(f"  memory {found['listed'] >> 20} MB with the list, {found['end'] >> 20} MB at the end: {growth:.0f} bytes")
    print(f"  a file; at most {found['peak'] >> 20} MB", flush=True)
    return seconds


def run_killed(folder: Path, kills: int, workers: int, seconds: float) -> None:
    """Kill the job and resume it, until it ends; compare its document with the uninterrupted one's."""
    rng, document = random.Random(1), folder / "killed.json"
    for number in range(kills):
        before = document.stat().st_size if document.exists() else 0
        process = start(folder, document, workers)
        while not document.exists() or document.stat().st_size <= before + 100:  # it starts, and checks what is kept
            assert process.poll() is None, (folder / "out").read_text()[-2000:]
            time.sleep(0.05)
        time.sleep(rng.uniform(0, seconds / (kills + 1)))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        lines = document.read_bytes().count(b"\n")
        print(f"kill {number + 1}: {lines - 2:,} results", flush=True)
    started = time.monotonic()
    assert start(folder, document, workers).wait() == 0, (folder / "out").read_text()[-2000:]
    text = (folder / "out").read_text()
    print(next(line for line in text.splitlines() if line.startswith("note: ")))
    same = document.read_bytes() == (folder / "whole.json").read_bytes()
    results = [result["file"] for result in json.loads(document.read_bytes())["results"]]
    print(
        f"then {time.monotonic() - started:.0f} s to the end: {len(results):,} results of {len(set(results)):,} files,"
    )
    print(f"  {'the bytes of' if same else 'OTHER THAN'} the uninterrupted job's document")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", help="where the files are made (default: that of temporary files)")
    parser.add_argument("--job", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        return job(*args.job, args.workers)
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        make_files(folder, args.files)
        seconds = run_whole(folder, args.files, args.workers)
        run_killed(folder, args.kills, args.workers, seconds)
    return None


if __name__ == "__main__":
    main()
