"""The parts of benchmarks/all.py about scoring, the page and evaluation: each gives its rows, in its own process."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
from rows import Row, times, took

ROOT = Path(__file__).parents[1]
BUNDLED, PLAIN = "Whisper-broad", "plain forward"
OTHERS = ("AASIST-L", "RawNet2_baseline", "RawGATST_baseline", "LFCC_LCNN")  # config/


def seconds(call, repeats: int = 3) -> float:
    """The median of so many calls."""
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def untrained(config: str, folder: Path) -> str:
    """A checkpoint of random weights, whose exported copy stays in the folder, too: speed depends on neither."""
    os.environ["AASIST_WEIGHTS"], os.environ["THP_MEM_ALLOC_ENABLE"] = str(folder), "0"
    import torch

    from config import load_config
    from models import build_model
    from utils import save_checkpoint

    torch.manual_seed(0)
    model, path = load_config(ROOT / "config" / f"{config}.conf").model_config, folder / f"{config}.pth"
    save_checkpoint(path, {"config": {"model_config": model}, "model": build_model(model).state_dict()})
    return str(path)


def chunk_seconds(model: str, threads: int, groups: Sequence[Sequence[str]] | None = None) -> dict[str, float]:
    """Of the plain forward pass, and of engines, as `inference.engines` groups them."""
    os.environ["OMP_NUM_THREADS"] = str(threads)
    from clips import speech

    import inference

    chunks = np.stack([speech(seed) for seed in range(4)]).astype(np.float32)
    args = Namespace(model=model, threads=threads, repeats=3)
    return inference.engines(args, chunks, inference.ENGINES if groups is None else groups)


def engine_rows(name: str, threads: int, found: dict[str, float], plain: float) -> list[Row]:
    """Chunks per second of engines beside the seconds a chunk of plain torch."""
    name = f"{name}, {threads} thread{'s' * (threads > 1)}"
    rows = {
        each: times(f"{name}, {each}", "chunks/s", 1 / took, 1 / plain, "plain torch") for each, took in found.items()
    }
    return [row for each, row in rows.items() if each != PLAIN]


def engines() -> list[Row]:
    """AASIST on every engine; the weights are random."""
    threads = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder:
        found = chunk_seconds(untrained("AASIST", Path(folder)), threads)
    return engine_rows("AASIST", threads, found, found[PLAIN])


def architectures() -> list[Row]:
    """The others in torch. Plain torch first for all, because the engine changes how this process allocates memory."""
    from utils import computes_bf16

    threads, rows = os.cpu_count() or 1, []
    only = [["torch fp32", "torch bf16"][: 1 + computes_bf16()]]
    with tempfile.TemporaryDirectory() as folder:
        models = {config.removesuffix("_baseline"): untrained(config, Path(folder)) for config in OTHERS}
        plain = {name: chunk_seconds(model, threads, [[]])[PLAIN] for name, model in models.items()}
        for name, model in models.items():
            rows += engine_rows(name, threads, chunk_seconds(model, threads, only), plain[name])
    return rows


def bundled() -> list[Row]:
    """The bundled detector on every engine, one thread, and in int8."""
    found = chunk_seconds(BUNDLED, 1)
    return [*engine_rows(BUNDLED, 1, found, found[PLAIN]), *int8()]


def bundled_two_threads() -> list[Row]:
    found = chunk_seconds(BUNDLED, 2)
    return engine_rows(BUNDLED, 2, found, found[PLAIN])


def int8() -> list[Row]:
    """The bundled detector in int8 beside fp32, both by ONNX Runtime, one thread: speed, and how far scores move.

    `export.py --int8` quantises convolutions; matrix products are tried here only.
    """
    from clips import CLIPS
    from onnxruntime.quantization import quantize_dynamic

    from scoring.engine_choice import load_engine
    from scoring.engines import OnnxEngine
    from scoring.int8_export import LabelledFile, quantise
    from scoring.onnx_files import exported_path, write_exported
    from scoring.weights import file_sha256, locate

    fp32, card = load_engine(locate(BUNDLED), "onnx")
    source, x = exported_path(file_sha256(locate(BUNDLED))), noisy_clips(fp32.nb_samp)
    files = [LabelledFile(path, "genuine" in path.name) for path in sorted(CLIPS.glob("*.flac"))]
    with tempfile.TemporaryDirectory() as folder:
        static, dynamic = Path(folder) / "static.onnx", Path(folder) / "dynamic.onnx"
        quantise(source, files, static)
        quantize_dynamic(source, dynamic, op_types_to_quantize=["MatMul"], per_channel=True)
        write_exported(dynamic.read_bytes(), card, "int8", dynamic)
        engines = {"convolutions": OnnxEngine(static), "matrix products": OnnxEngine(dynamic)}
    scores = fp32.logits(x)[:, 1]
    base, rows = len(x) / seconds(partial(fp32.logits, x)), []
    for name, engine in engines.items():
        moved = np.abs(engine.logits(x)[:, 1] - scores)
        row = times(
            f"{BUNDLED}, 1 thread, onnx, {name} in int8",
            "chunks/s",
            len(x) / seconds(partial(engine.logits, x)),
            base,
            "fp32",
        )
        spread = (
            f"{row.figure}; scores move by {moved.mean():.2f}, at most {moved.max():.2f} (spread {scores.std():.1f})"
        )
        rows.append(row._replace(figure=spread))
    return rows


def noisy_clips(samples: int) -> np.ndarray:
    """(20, samples): the page's examples, each as it is and with three levels of noise."""
    from clips import CLIPS

    from audio.chunks import fit
    from audio.reading import read

    rng, clips = np.random.default_rng(0), [fit(read(path), samples) for path in sorted(CLIPS.glob("*.flac"))]
    noise = rng.standard_normal((4, len(clips), samples)) * np.array([0, 0.001, 0.003, 0.01])[:, None, None]
    return (np.stack(clips) + noise).reshape(-1, samples).astype(np.float32)


def files() -> list[Row]:
    """Hours of audio an hour: files of 4 s, a recording of 5 min, and what comes before the model."""
    import soundfile
    from clips import SAMPLES, make_files, speech

    from audio.reading import Recording, read
    from inference import throughput
    from scoring.detector import Detector

    def hours(what: str, took: float, length: float, alone: float, of: str) -> Row:
        return times(what, "hours of audio an hour", length / took, alone, of)

    with tempfile.TemporaryDirectory() as name:
        folder, length = Path(name), SAMPLES / 16_000
        short, long = make_files(folder, 400), folder / "recording.mp3"
        whole, alone, engine = throughput(Namespace(model=BUNDLED, files=400), folder, rounds=1)
        soundfile.write(long, speech(0, 300 * 16_000), 16_000)
        detector = Detector.from_checkpoint(BUNDLED, "auto", "auto")
        started = time.perf_counter()
        chunks = len(detector.score_file(long).chunks)
        long_seconds = time.perf_counter() - started
        plain = seconds(lambda: [soundfile.read(file, dtype="float32") for file in short[:80]])
        decoded = seconds(lambda: [read(file) for file in short[:80]])
        heard = seconds(lambda: [list(Recording(file, hashed=True, listened=True)) for file in short[:80]])
    total, several = 80 * length, f"{BUNDLED}, {engine}, flac of 4 s to verdicts, 400 files"
    return [
        hours(several, 1 / whole, length, alone * length, "the model alone"),
        hours(f"{BUNDLED}, mp3 of 5 min", long_seconds, 300, 300 * alone / chunks, "the model alone"),
        hours("decoding flac of 4 s, one process", decoded, total, total / plain, "soundfile.read"),
        hours("the same, SHA-256 and activity detection", heard, total, total / decoded, "decoding"),
    ]


def cold_start() -> list[Row]:
    """`python inference.py --audio clip.wav`, a fresh process, with its files in memory and without."""
    from clips import make_files

    from inference import cold_start

    torch = partial(subprocess.run, [sys.executable, "-c", "import torch"], check=True)
    name = "python inference.py --audio clip.wav"
    with tempfile.TemporaryDirectory() as folder:
        (file,) = make_files(Path(folder), 1, "wav")
        calls = {engine: partial(cold_start, BUNDLED, engine, file) for engine in ("auto", "torch")}
        warm, of = seconds(torch), "import torch"
        rows = [took(f"{name}, --engine {engine}", seconds(call), warm, of, 4) for engine, call in calls.items()]
        cold = []
        for call in (torch, calls["auto"]):
            forget_files()
            cold.append(seconds(call, 1))
    return [*rows, took(f"{name}, no file in memory", cold[1], cold[0], "import torch, no file in memory", 4)]


def forget_files() -> None:
    """Have the system drop the files of Python, packages and this repository that no process maps from its memory."""
    folders = {sys.prefix, sys.base_prefix + "/lib", str(ROOT)}
    for folder in folders:
        for parent, below, names in os.walk(folder):
            below[:] = [name for name in below if name not in ("node_modules", ".git")]
            for name in names:
                with suppress(OSError), open(os.path.join(parent, name), "rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def page() -> list[Row]:
    """The page's answers to eight users in half a minute, beside the detector alone."""
    from clips import make_files

    import webpage
    from scoring.detector import Detector

    args = Namespace(model=BUNDLED, threads=os.cpu_count(), users=8, minutes=0.5, hostile=False)
    with tempfile.TemporaryDirectory() as folder:
        paths = make_files(Path(folder), 8, "wav")
        answers = webpage.soak(args, paths, Path(folder))
        detector = Detector.from_checkpoint(BUNDLED, engine="auto")
        alone = 8 / seconds(lambda: [detector.score_file(path) for path in paths])
    wrong = sum(not own for _, own in answers)
    row = times("the page, 8 users at once", "answers/s", len(answers) / 60 / args.minutes, alone, "score_file alone")
    return [row._replace(figure=f"{row.figure}, {wrong} wrong")]


def browser() -> list[Row]:
    """The page in Chromium: when it listens, and from click to verdict."""
    from clips import make_files

    import webpage
    from scoring.detector import Detector

    gradio = partial(subprocess.run, [sys.executable, "-c", "import gradio"], check=True)
    args = Namespace(model=BUNDLED, threads=os.cpu_count(), clicks=5)
    with tempfile.TemporaryDirectory() as folder:
        (file,) = make_files(Path(folder), 1, "wav")
        listening, _, _, clicks = webpage.first_screen_and_clicks(args, file)
        detector = Detector.from_checkpoint(BUNDLED, engine="auto")
        alone = seconds(partial(detector.score_file, file))
    return [
        took("the page listens, from its start", listening, seconds(gradio), "import gradio"),
        took("click to verdict, 4 s of speech", statistics.median(clicks), alone, "score_file alone"),
    ]


def many_files() -> list[Row]:
    """What a tiny file costs beside the model."""
    import hashlib

    import many_files as benchmark
    import soundfile

    with tempfile.TemporaryDirectory() as name:
        folder, count = Path(name), 4000
        benchmark.make_files(folder, count)
        whole = benchmark.run_whole(folder, count, 2)
        some = sorted((folder / "contents").iterdir())
        plain = seconds(lambda: [(hashlib.sha256(path.read_bytes()), soundfile.read(path)) for path in some])
    return [
        took(
            f"{count:,} files of 0.6 s, each, model left out", whole / count, plain / len(some), "read and hashed alone"
        )
    ]


def evaluate() -> list[Row]:
    """71,237 trials, a process from start to end; resampled; and read."""
    import evaluation
    from metrics.score_files import read_scores

    with tempfile.TemporaryDirectory() as folder:
        scores, asv = evaluation.stand_ins(Path(folder))
        command = [sys.executable, "evaluation.py", str(scores), "--asv_scores", str(asv)]
        imported = evaluation.seconds([sys.executable, "-c", "import numpy, scipy.stats"], 3)
        whole = evaluation.seconds(command, 3)
        resampled = evaluation.seconds([*command, "--bootstrap", "1000"], 1)
        ours = seconds(lambda: read_scores(scores))
        numpy = seconds(lambda: np.loadtxt(scores, dtype=str), 1)
    return [
        took("evaluation of 71,237 trials", whole, imported, "import of scipy.stats", 2.5 * imported + 1),
        took("the same with 1,000 resamples", resampled, 1000 * whole, "1,000 evaluations", 30),
        took("reading 71,237 scores", ours, numpy, "numpy.loadtxt"),
    ]


def plotting() -> list[Row]:
    """The figure of a recording as PNG and PDF, beside its waveform alone by matplotlib."""
    from clips import make_files

    from plots.style import write_figure
    from scoring.detector import Detector
    from scoring.figure import save_figure

    detector = Detector.from_checkpoint(BUNDLED, engine="auto")
    judge = detector.judge()
    with tempfile.TemporaryDirectory() as folder:
        files, stem = make_files(Path(folder), 1), Path(folder) / "figure"
        scored = next(iter(detector.score_recordings(files, judge, keep_seconds=60)))

        def plain() -> None:
            from matplotlib.figure import Figure

            figure = Figure()
            figure.subplots().plot(scored.samples)
            write_figure(figure, stem)

        plain()  # imports
        ours = seconds(lambda: save_figure(scored, judge, detector, stem))
        return [took("figure of a recording of 4 s, PNG and PDF", ours, seconds(plain), "its waveform alone")]


def ssl() -> list[Row]:
    """SSL_AASIST of XLS-R 300M's size, random weights."""
    command = [sys.executable, str(ROOT / "benchmarks" / "ssl_300m.py"), "--threads", str(os.cpu_count())]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    found = {cells[1]: cells for cells in (line.replace(" ", "").split("|") for line in lines)}
    fp32, bf16 = (float(found[precision][5]) for precision in ("fp32", "bf16"))
    return [took("XLS-R 300M with AASIST, one chunk, bf16", bf16, fp32, "fp32")]
