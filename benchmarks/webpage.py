"""How fast do the web page and a verdict appear, and do twenty users at once get their own results?

    python benchmarks/webpage.py [--users 20] [--minutes 5] [--model AASIST] [--threads 2]
    python benchmarks/webpage.py --hostile       # meanwhile strangers break off uploads and flood the server

It starts a server on a free port. Each user has a different file, whose score is computed beforehand. Memory is that of
the server's process. The click needs playwright and Chromium (CHROMIUM, default /usr/bin/chromium).
"""

import argparse
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from clips import make_files
from gradio_client import Client, handle_file

KEEP_MINUTES = 2  # with --hostile: longer than anybody waits in the queue
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")


@contextmanager
def server(args, temporary: str | None = None, *options: str) -> Iterator[tuple[str, int]]:
    """URL and process id of a running page. temporary: where it puts its files."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "gradio_app.py", "--port", str(port), "--model", args.model, *options]
    environment = os.environ | {"OMP_NUM_THREADS": str(args.threads)} | ({"TMPDIR": temporary} if temporary else {})
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().strip(), process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(120)


def memory(pid: int) -> float:
    """Resident memory of a process in MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def first_screen_and_clicks(args, file: Path) -> tuple[float, float, float, list[float]]:
    """Seconds from start to listening, from there to the first screen, from start to ready; of each click."""
    from playwright.sync_api import sync_playwright

    started = time.monotonic()
    with server(args) as (url, _), sync_playwright() as playwright:
        listening = time.monotonic() - started
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page, opened = browser.new_page(), time.monotonic()
        page.goto(url)
        page.locator("#check").wait_for()  # the drop zone above it is there, too
        drawn = time.monotonic() - opened
        page.locator("#check:not([disabled])").wait_for(timeout=120_000)
        ready = time.monotonic() - started
        times = [click(page, file) for _ in range(args.clicks)]
        browser.close()
    return listening, drawn, ready, times


def report_clicks(listening: float, drawn: float, ready: float, times: list[float]) -> None:
    print(f"listens after {listening:.1f} s, first screen {drawn:.1f} s later, ready {ready:.1f} s after start")
    median, worst = statistics.median(times), max(times)
    print(f"click to verdict, 4 s of audio: first {times[0]:.2f} s, median {median:.2f} s, worst {worst:.2f} s")


def click(page, file: Path) -> float:
    page.reload()
    page.locator("#drop input[type=file]").set_input_files(file)
    page.locator("#drop").wait_for(state="hidden")
    page.wait_for_timeout(500)
    started = time.monotonic()
    page.locator("#check").click()
    page.locator(".verdict").wait_for(timeout=60_000)
    took = time.monotonic() - started
    page.locator("#prediction .card:has-text('Drawing')").wait_for(state="detached", timeout=60_000)
    return took


def disk_use(folder: Path) -> float:
    """MiB of all files below `folder`."""
    total = 0
    for parent, _, files in os.walk(folder):  # which passes over folders that were just removed
        for file in files:
            with suppress(OSError):
                total += os.path.getsize(os.path.join(parent, file))
    return total / 2**20


class Strangers:
    """Threads that attack the page until `stop`: uploads that break off, foreign pages, forged hosts, huge requests."""

    def __init__(self, url: str, stop: threading.Event):
        self.url, self.stop, self.answers = url, stop, Counter()
        kinds = (self.break_off, self.break_off, self.cross_origin, self.huge, self.guess_passwords)
        self.threads = [threading.Thread(target=self.repeat, args=(kind,)) for kind in kinds]
        for thread in self.threads:
            thread.start()

    def repeat(self, attack: Callable[[], object]) -> None:
        while not self.stop.wait(0.05):
            try:
                self.answers[f"{attack.__name__} {attack()}"] += 1
            except Exception as error:
                self.answers[f"{attack.__name__} {type(error).__name__}"] += 1

    def break_off(self) -> str:
        """Send 5 of 100 MB, then close the connection."""
        head = "POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n"
        head += "Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
        head += 'Content-Disposition: form-data; name="files"; filename="x.wav"\r\n\r\n'
        with socket.create_connection(("127.0.0.1", int(self.url.rpartition(":")[2])), 30) as broken:
            broken.sendall(head.encode() + bytes(5 << 20))
        return "broken off"

    def post(self, path: str, headers: dict[str, str] | None = None, **options) -> int:
        import httpx

        return httpx.post(f"{self.url}{path}", headers=headers, timeout=60, **options).status_code

    def cross_origin(self) -> int:
        forged = {"Origin": "http://evil.example", "X-Forwarded-Host": "evil.example"}
        return self.post("/gradio_api/upload", forged, files={"files": ("x.wav", bytes(1 << 20))})

    def huge(self) -> int:
        return self.post("/gradio_api/call/score", content=bytes(8 << 20))

    def guess_passwords(self) -> int:
        return self.post("/login", data={"username": "a", "password": "b"})

    def report(self) -> None:
        for thread in self.threads:
            thread.join()
        print("  strangers: " + ", ".join(f"{name}: {count}" for name, count in sorted(self.answers.items())))


def soak(args, files: list[Path], folder: Path) -> list[tuple[float, bool]]:
    """All users ask again and again for the scores of their own files; prints a report.

    Returns the seconds of each answer, and whether it was the expected one. With --hostile, strangers attack meanwhile,
    and a poisoned checkpoint is among the models.
    """
    from scoring.detector import Detector

    expected = [result.score for result in map(Detector.from_checkpoint(args.model, engine="auto").score_file, files)]
    (temporary := folder / "temporary").mkdir()
    options = poisoned_models(folder / "models") if args.hostile else []
    with server(args, str(temporary), *options) as (url, pid):
        deadline, sizes, stop = time.monotonic() + 60 * args.minutes, [], threading.Event()
        refused: Counter[str] = Counter()
        before, most = disk_use(temporary), [0.0]

        def watch() -> None:
            while not stop.wait(1):
                sizes.append(memory(pid))
                most[0] = max(most[0], disk_use(temporary))

        watcher = threading.Thread(target=watch)
        watcher.start()
        strangers = Strangers(url, stop) if args.hostile else None
        try:
            with ThreadPoolExecutor(args.users) as pool:
                visits = partial(visit, url, args.model, deadline, refused)
                seen = [answer for answers in pool.map(visits, files, expected) for answer in answers]
        finally:
            stop.set()
        watcher.join()
        if strangers:
            strangers.report()
            labels = Client(url, verbose=False, httpx_kwargs={"timeout": 120}).predict(api_name="/models")
            print(f"  models on offer: {', '.join(labels)}")
        print(f"{args.users} users, {args.minutes:g} min:")
        report_visits(seen, refused, sizes)
        if strangers:
            report_disk_use(temporary, before, most[0])
    return seen


def poisoned_models(folder: Path) -> list[str]:
    """Options of a page that offers a folder with a broken checkpoint, and keeps nothing long."""
    folder.mkdir()
    (folder / "poisoned.pth").write_bytes(b"PK\x03\x04" + bytes(1 << 20))
    return ["--models", str(folder), "--keep_minutes", str(KEEP_MINUTES)]


def visit(
    url: str, model: str, deadline: float, refused: Counter[str], file: Path, expected: float
) -> list[tuple[float, bool]]:
    """Ask for the score of a file until the deadline: the seconds of each answer, and whether it was the expected one.

    refused: counts why the page asked to try again, as it does on a busy machine.
    """
    client, seen = Client(url, verbose=False, httpx_kwargs={"timeout": 120}), []
    while time.monotonic() < deadline:
        asked = time.monotonic()
        try:
            result = client.predict(handle_file(file), model, api_name="/score")["results"][0]
        except Exception as error:
            refused[str(error)[:80]] += 1
            continue
        own = result["file"] == file.name and abs(result["score"] - expected) < 1e-4
        seen.append((time.monotonic() - asked, own))
    return seen


def report_visits(seen: list[tuple[float, bool]], refused: Counter[str], sizes: list[float]) -> None:
    """seen: seconds of each answer, and whether it was the visitor's own. sizes: MiB of the server, over time."""
    times, wrong = sorted(seconds for seconds, _ in seen), sum(not own for _, own in seen)
    worst, quarter = times[int(0.95 * len(times))], max(1, len(sizes) // 4)
    second, last = statistics.median(sizes[quarter : 2 * quarter]), statistics.median(sizes[-quarter:])
    print(f"  {len(seen)} answers, {wrong} wrong or mixed up")
    print(f"  asked to try again: {dict(refused) or 'nobody'}")
    print(f"  waited {statistics.median(times):.2f} s in the median, {worst:.2f} s in the worst 5 %")
    print(f"  memory {second:.0f} MiB in the second quarter, {last:.0f} MiB in the last, at most {max(sizes):.0f} MiB")


def report_disk_use(folder: Path, before: float, most: float) -> None:
    """Wait until the page has removed what was left to it."""
    stopped = time.monotonic()
    while (after := disk_use(folder)) > before + 0.1 and time.monotonic() < stopped + 60 * (KEEP_MINUTES + 4):
        time.sleep(1)
    print(f"  disk use: {before:.1f} MiB before, at most {most:.1f} MiB,", end=" ")
    print(f"{after:.1f} MiB {time.monotonic() - stopped:.0f} s after the last request", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--clicks", type=int, default=5)
    parser.add_argument("--model", default="Whisper-broad")
    parser.add_argument("--hostile", action="store_true")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        files = make_files(Path(name), args.users, "wav")
        if Path(CHROMIUM).exists() and not args.hostile:
            report_clicks(*first_screen_and_clicks(args, files[0]))
        soak(args, files, Path(name))


if __name__ == "__main__":
    main()
