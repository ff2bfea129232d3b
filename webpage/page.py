"""The web page: upload or record speech, see whether it is bona fide or spoofed and why, take the report along.

    python gradio_app.py                                                  # http://127.0.0.1:8080, this computer only
    python gradio_app.py --server_name 0.0.0.0 --auth newsroom:SECRET     # for others, too
    python gradio_app.py --models /data/checkpoints --max_minutes 120

What a file gets is decided by `Detector` and `Judge`; here it is only shown. Visitors are strangers: they choose among
checkpoints that the server found, and only what they uploaded is read, by another process. docs/webpage.md says more.
"""

import base64
import inspect
import io
import json
import math
import os
import queue
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from audio import SAMPLE_RATE
from audio.decoding_workers import recordings
from audio.errors import AudioError
from audio.reading import Recording, RecordingFacts
from common.command import Parser
from common.errors import UserError
from common.files import write_text
from plots.recording import PICTURED_SECONDS
from scoring.detector import Detector
from scoring.engine_choice import NVIDIA
from scoring.engines import Engine
from scoring.onnx_files import read_exported
from scoring.results import write_csv
from scoring.verdict import AGGREGATES, VERDICT_WORDS, FileResult, Judge, probability_text, verdict_rows
from scoring.weights import BUNDLED, KNOWN, OFFICIAL, Card, checkpoint_path, file_sha256, locate, weights_folder

ROOT = Path(__file__).parents[1]
LOADED = 2  # models kept in memory: the one in use and the one it is compared with
AT_ONCE = 2  # visitors served at a time: one's recording is scored while the other's figures are drawn
WAITING = 64  # visitors in the queue; more are asked to come back
MAX_FILES, MAX_COMPARED = 500, 4
FIRST_SCREEN = 3  # seconds after the start that belong to the first visitor's page; then the model is loaded
PATIENCE = 10  # seconds: who asks for no news as long is gone
TOLD_EVERY = 0.4  # seconds between two news of a long job
SHOWN_CHUNKS = 240  # more are too many buttons; the figure has them all
PART_WIDTH = 46  # pixels: room for a score


# ------------------------------------------------------------------------------------------- what all visitors share


@dataclass(frozen=True)
class Step:
    """News of a job: what is being done, and which share of it is done (None: not known)."""

    text: str
    share: float | None = None


@dataclass(frozen=True)
class Checked:
    """A result, with what a report says beside it. sound: mono float at 16 kHz (None: the file could not be read)."""

    result: FileResult
    judge: Judge
    engine: dict[str, str]
    sha256: str
    sound: Path | None = None

    def document(self) -> dict[str, Any]:
        """As `inference.py --save_json` writes it."""
        return self.judge.header() | {"engine": self.engine, "results": [self.result.to_dict()]}


class Stopped(Exception):
    """The visitor does not want the result any more."""


class Watched:
    """An engine that counts the chunks it has computed, and can be stopped between two batches."""

    def __init__(self, engine: Engine):
        self.engine, self.done, self.stopped = engine, 0, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    def logits(self, waveforms) -> np.ndarray:
        if self.stopped:
            raise Stopped
        logits = self.engine.logits(waveforms)
        self.done += len(logits)
        return logits


def catalogue(folders: Sequence[Path]) -> dict[str, str]:
    """Label → checkpoint: the known ones by name, and what lies in the folders; links that lead out are left."""
    places = [(ROOT / "exp_result", f"**/weights/{name}.pth") for name in ("best", "swa", "joined")]
    places += [(weights_folder(), "*.pth"), (weights_folder(), "*.onnx")]
    places += [(each, pattern) for each in folders for pattern in ("**/*.pth", "**/*.onnx")]
    found = {name: name for name in KNOWN}
    for root, pattern in places:
        for path in sorted(root.glob(pattern)):
            real = path.resolve()
            known = path.stem in KNOWN and path == checkpoint_path(path.stem)
            if real.is_file() and real.is_relative_to(root.resolve()) and not known:
                found.setdefault(f"{root.name}/{path.relative_to(root).as_posix()}", str(real))
    return found


@cache
def card_of(path: Path, modified: int) -> tuple[Card, float | None]:
    """The card of a checkpoint, and its dev EER where it says so. Raises UserError."""
    if path.suffix == ".onnx":
        return read_exported(path).card, None
    from utils import load_model

    _, checkpoint = load_model(path)
    return Card.of(checkpoint, path), checkpoint.get("dev_eer")


class Desk:
    """The checkpoints on offer, those loaded, and the process that decodes: one job at a time uses them."""

    def __init__(self, folders: Sequence[Path], max_minutes: float):
        self.folders, self.max_seconds = folders, 60 * max_minutes
        self.models = catalogue(folders)
        self.lock = threading.Lock()
        self.detectors: OrderedDict[tuple, Detector] = OrderedDict()
        self.paths: queue.SimpleQueue[Path] = queue.SimpleQueue()
        self.recordings = recordings(iter(self.paths.get, None), workers=1)

    def refresh(self) -> None:
        self.models = catalogue(self.folders)

    def about(self, label: str) -> str:
        """What is known of a model, in words."""
        model = self.models.get(label, "")
        path = checkpoint_path(model) if model in KNOWN else Path(model)
        if not path.is_file():
            return "the authors'; downloaded when it is first used"
        try:
            card, eer = card_of(path, path.stat().st_mtime_ns)
        except UserError:
            return "cannot be read as a checkpoint"
        parts = [f"trained on {card.trained_on or 'what is not known'}"]
        parts += [f"dev EER {100 * float(eer):.2f} %"] if eer is not None else []
        parts += ["no threshold: give your own"] if card.threshold is None else []
        return ", ".join(parts)

    def choices(self) -> list[tuple[str, str]]:
        """(text, label) for a list; reads every checkpoint that is new."""
        return [(f"{short(label)} — {self.about(label)}", label) for label in self.models]

    def detector(self, label: str, device: str) -> Detector:
        """Loaded once; the least recently used goes. Raises UserError."""
        if label not in self.models:
            raise UserError("no such model on this server", "one of its list", repr(str(label)[:60]))
        path = locate(self.models[label])
        key = (path, path.stat().st_mtime_ns, device)
        if key not in self.detectors:
            while len(self.detectors) >= LOADED:
                self.detectors.popitem(last=False)
            self.detectors[key] = Detector.from_checkpoint(path, device, "auto")
        self.detectors.move_to_end(key)
        return self.detectors[key]

    @contextmanager
    def job(self, files: Sequence[Path]) -> Iterator[list[Path]]:
        """The files under names that stay while the job lasts, in a folder that goes with it. Raises UserError."""
        with tempfile.TemporaryDirectory() as name:
            kept = []
            for number, file in enumerate(files):
                place = Path(name) / str(number) / Path(file).name
                place.parent.mkdir()
                try:
                    if Path(file).is_symlink():
                        raise OSError("no upload is a link")
                    os.link(file, place)
                except OSError as error:
                    raise UserError("the upload is no longer kept; upload it again") from error
                kept.append(place)
            yield kept

    def check(self, files: Sequence[Path], model: str, device: str, options: dict) -> Generator[Step | Checked]:
        """For each file some steps, then what it got. Raises UserError."""
        return driven(self._check_files(files, model, device, options))

    def _check_files(self, files: Sequence[Path], model: str, device: str, options: dict) -> Generator[Step | Checked]:
        for number, file in enumerate(files):
            for news in self._check_file(file, model, device, options):
                if isinstance(news, Step) and len(files) > 1:
                    text = f"File {number + 1} of {len(files)} — {news.text}"
                    news = Step(text, (number + (news.share or 0)) / len(files))
                yield news

    def _check_file(self, file: Path, model: str, device: str, options: dict) -> Generator[Step | Checked]:
        while not self.lock.acquire(timeout=TOLD_EVERY):
            yield Step("Waiting for another recording to be done")
        try:
            yield Step("Loading the model")
            detector = self.detector(model, device)
            yield from self._judged(file, detector, detector.judge(**options))
        except UserError as error:  # the label is all that a visitor is to see of a checkpoint
            raise UserError(str(error).replace(self.models.get(model) or "\n", str(model))) from error
        finally:
            self.lock.release()

    def _judged(self, file: Path, detector: Detector, judge: Judge) -> Generator[Step | Checked]:
        name, sound = Path(file.name), file.with_name(f"{file.name}.w64")
        engine = {"name": detector.engine.name, "precision": detector.engine.precision}
        sha256 = file_sha256(file)
        try:
            facts = yield from self._decode(file, sound)
        except AudioError as error:
            hidden = AudioError(error.condition, str(error).replace(str(file), file.name))
            yield Checked(judge(name, hidden, []), judge, engine, sha256)
            return
        chunks = yield from self._score(sound, facts, detector, judge)
        yield Checked(judge(name, facts, chunks), judge, engine, sha256, sound)

    def _decode(self, file: Path, sound: Path) -> Generator[Step, None, RecordingFacts]:
        """Write what the file holds to `sound`; the file itself is only ever opened by the decoding process."""
        from soundfile import SoundFile

        self.paths.put(file)
        _, recording = next(self.recordings)
        heard, told = 0, time.monotonic()
        with SoundFile(sound, "w", SAMPLE_RATE, 1, "FLOAT", format="W64") as out:
            for block in recording:
                heard += len(block)
                if heard > self.max_seconds * SAMPLE_RATE:
                    expected = f"at most {self.max_seconds / 60:g} min on this server"
                    raise AudioError("too_long", f"{file.name} is too long", expected, "more")
                out.write(block)
                if time.monotonic() - told > TOLD_EVERY:
                    told = time.monotonic()
                    yield Step(f"Reading: {clock(heard / SAMPLE_RATE)} so far")
        return recording.facts

    def _score(self, sound: Path, facts: RecordingFacts, detector: Detector, judge: Judge) -> Generator[Step, None, tuple]:
        """The chunks of `sound`, computed in a thread of their own so that there is news meanwhile."""
        watched = Watched(detector.engine)
        hop = round(watched.nb_samp * (1 - judge.settings.overlap))
        total = 1 + max(0, math.ceil((facts.seconds * SAMPLE_RATE - watched.nb_samp) / hop))
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(Detector(watched, detector.card).score_file, sound, judge)
            try:
                while not wait([future], TOLD_EVERY).done:
                    yield Step(f"Listening: part {watched.done} of {total}", watched.done / total)
            finally:
                watched.stopped = True
        return future.result().chunks


def driven(steps: Generator[Step | Checked]) -> Generator[Step | Checked]:
    """`steps`, run by a thread that ends them when nobody asks for news any more.

    Of a visitor who cancels or leaves gradio drops the generator, and Python closes that when it likes: a job would
    hold up all others until then.
    """
    news, given = queue.SimpleQueue(), math.inf  # given: when the last news was; infinite while more is waited for

    def work() -> None:
        try:
            for item in steps:
                news.put(item)
                if time.monotonic() - given > PATIENCE:
                    raise UserError("given up, as nobody asked for the result any more")
            news.put(None)
        except Exception as error:
            news.put(error)
        finally:
            steps.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while (item := news.get()) is not None:
            if isinstance(item, Exception):
                raise item
            given = time.monotonic()
            yield item
            given = math.inf
    finally:
        given = -math.inf
        thread.join()


def options_from(kind: str, own: float | None, far: float | None, prior: float | None, aggregate: str) -> dict:
    """What `Detector.judge` takes; percents of the page become shares. Raises UserError."""
    if aggregate not in AGGREGATES:
        raise UserError("no such way to join parts", f"one of {', '.join(AGGREGATES)}", repr(str(aggregate)[:60]))
    options = {"aggregate": aggregate, "prior_spoof": within("spoofs to expect", prior, 0.01, 99.99) / 100}
    if kind == "own":
        options["threshold"] = within("own threshold", own, -1e9, 1e9)
    elif kind == "far":
        options["target_far"] = within("target FAR", far, 0, 100) / 100
    return options


def within(what: str, value: float | None, low: float, high: float) -> float:
    if not isinstance(value, int | float) or not low <= value <= high:
        raise UserError(what, f"a number from {low:g} to {high:g}", "none" if value is None else repr(value)[:60])
    return float(value)


# --------------------------------------------------------------------------------------------- what visitors see

ICONS = {"bonafide": "✓", "spoof": "⚠", "abstain": "?"}
SENTENCES = {
    "bonafide": "The score lies above the threshold: to this model it sounds like genuine speech.",
    "spoof": "The score does not exceed the threshold: to this model it sounds like synthetic or converted speech.",
    "abstain": "No verdict would mean anything: {}.",
}


def short(label: str) -> str:
    """exp_result/RUN/weights/best.pth → RUN best; others as they are."""
    parts = label.split("/")
    return f"{parts[1]} {Path(parts[-1]).stem}" if parts[0] == "exp_result" and len(parts) > 3 else label


def clock(seconds: float) -> str:
    return f"{round(seconds) // 60}:{round(seconds) % 60:02} min" if seconds >= 60 else f"{seconds:.1f} s"


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}".replace("-", "−")


def for_page(text: str) -> str:
    """A sentence of the command line's, for people who see no command line."""
    return text.replace("--threshold", "an own threshold").replace("--target_far", "a target FAR")


def idle(text: str = "Upload or record speech, then press Check.") -> str:
    return f'<div class="card"><p>{escape(text)}</p></div>'


def busy(step: Step) -> str:
    bar = "" if step.share is None else f' value="{step.share:.3f}"'
    text = escape(step.text)
    return f'<div class="card" role="status"><p>{text} …</p><progress{bar} aria-label="{text}"></progress></div>'


def sentence(error: Exception) -> str:
    """What a visitor is told of an error: no traceback, no path. What nobody foresaw goes to the server's log."""
    if not isinstance(error, UserError):
        print(f"error: {type(error).__name__}: {error}", file=sys.stderr)
        return "something went wrong on the server"
    text = for_page(str(error))
    for root in (tempfile.gettempdir(), str(weights_folder()), str(ROOT)):
        text = text.replace(f"{root}/", "")
    return text


def sorry(error: Exception) -> str:
    title = '<h2><span aria-hidden="true">✕</span> Sorry</h2>'
    return f'<div class="card abstain" role="alert">{title}<p>{escape(sentence(error)).capitalize()}.</p></div>'


def verdict_card(checked: Checked) -> str:
    result, judge = checked.result, checked.judge
    reason = for_page(result.error or (result.conditions[0].detail if result.conditions else "")).rstrip(".")
    rows = [(label, text) for label, text in verdict_rows(result, judge) if label not in ("verdict", "suspicious")]
    if result.error:
        rows = rows[-1:]  # the caution: the sentence above says the rest
    if result.regions:
        rows.insert(-1, ("suspicious", f"{len(result.regions)} passage{'s' * (len(result.regions) > 1)}, see Parts"))
    listed = "".join(f"<dt>{escape(label)}</dt><dd>{escape(for_page(text))}</dd>" for label, text in rows)
    seconds = "" if result.seconds is None else f", {clock(result.seconds)}"
    return f"""<div class="card {result.verdict}" role="status">
<h2><span aria-hidden="true">{ICONS[result.verdict]}</span> {VERDICT_WORDS[result.verdict].capitalize()}</h2>
<p class="file">{escape(result.path.name)}{seconds} · {escape(judge.card.name)}</p>
<p>{escape(SENTENCES[result.verdict].format(reason))}</p>
{scale(result.score, judge.settings.threshold)}<dl>{listed}</dl></div>"""


def scale(score: float | None, threshold: float | None) -> str:
    """Score against threshold, which stands in the middle."""
    if score is None or threshold is None:
        return ""
    span = next((span for span in (5, 10, 20, 50, 100) if abs(score - threshold) < span), 2 * abs(score - threshold))
    place = 50 + 50 * (score - threshold) / span
    label = f"Score {number(score)}, threshold {number(threshold)}"
    return f"""<div class="scale" role="img" aria-label="{label}">
<div class="ends"><span>◂ spoof</span><span>bona fide ▸</span></div>
<div class="bar"><i class="middle"></i><i class="mark" style="left:{place:.1f}%"></i></div>
<div class="ends"><span>{number(threshold - span)}</span><span>threshold {number(threshold)}</span>
<span>{number(threshold + span)}</span></div></div>"""


def parts(checked: Checked, address: str) -> str:
    """Chunks on a time axis and suspicious passages, as buttons that play them from the sound at `address`."""
    result, judge = checked.result, checked.judge
    shown = result.chunks[:SHOWN_CHUNKS]
    span, more = shown[-1].end, len(result.chunks) - len(shown)
    width = PART_WIDTH * len(shown) // 2  # pixels, at least: neighbours that overlap lie in two rows
    bars = "".join(part(*chunk, span, judge) for chunk in shown)
    ticks = max(4, width // 300)
    axis = "".join(f"<span>{clock(span * tick / ticks)}</span>" for tick in range(ticks + 1))
    note = f"<p>The first {len(shown)} of {len(result.chunks)} parts; Scores shows all.</p>" if more else ""
    passages = "".join(
        f'<li><button class="region" {playing(start, end)}>▶ {clock(start)} – {clock(end)}</button> '
        f"down to {number(score)}</li>"
        for start, end, score in result.regions
    )
    listed = f"<ul>{passages}</ul>" if passages else "<p>None: no part lies at or below the threshold.</p>"
    return f"""<div class="parts"><p>The model hears {judge.chunk_seconds:.2f} s at a time. Press a part to play it.</p>
<div class="wide"><div style="min-width:{width}px">
<div class="lane">{bars}</div><div class="ends">{axis}</div></div></div>
{note}<h3>Suspicious passages</h3>{listed}
<audio controls preload="metadata" aria-label="The recording" src="{escape(address)}"></audio></div>"""


def part(start: float, end: float, score: float | None, span: float, judge: Judge) -> str:
    kind = "silent" if score is None else judge.verdict(score)
    heard = "silent" if score is None else f"score {number(score)}, {VERDICT_WORDS[kind]}"
    place = f"left:{100 * start / span:.3f}%;width:{100 * (end - start) / span:.3f}%"
    words = f"{start:.2f} to {end:.2f} s, {heard}"
    return (
        f'<button class="part {kind}" style="{place}" {playing(start, end)} title="{words}" aria-label="Play {words}">'
        f"{ICONS.get(kind, '–')} {number(score)}</button>"
    )


def playing(start: float, end: float) -> str:
    return f'data-start="{start:.3f}" data-end="{end:.3f}"'


def comparison(checks: Sequence[tuple[str, Checked]]) -> str:
    rows = []
    for label, checked in checks:
        result, judge = checked.result, checked.judge
        probability = "–" if result.probability_spoof is None else probability_text(result.probability_spoof)
        verdict = f'<td class="{result.verdict}">{ICONS[result.verdict]} {VERDICT_WORDS[result.verdict]}</td>'
        cells = [number(result.score), number(judge.settings.threshold), probability, str(len(result.regions))]
        cells = "".join(f"<td>{cell}</td>" for cell in (*cells, escape(judge.caution())))
        rows.append(f'<tr><th scope="row">{escape(short(label))}</th>{verdict}{cells}</tr>')
    names = ("model", "verdict", "score", "threshold", "P(spoof)", "suspicious passages", "caution")
    heads = "".join(f'<th scope="col">{name}</th>' for name in names)
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    note = '<p class="note">Each score has a scale of its own: compare verdicts, not scores.</p>'
    return wide(table, "Comparison of models") + note


def wide(content: str, words: str) -> str:
    """What scrolls by itself on a narrow screen, with the keyboard, too."""
    return f'<div class="wide" tabindex="0" role="region" aria-label="{words}">{content}</div>'


def image(png: bytes, words: str) -> str:
    return wide(f'<img alt="{words}" src="data:image/png;base64,{base64.b64encode(png).decode()}">', words)


# ------------------------------------------------------------------------------------------------------- figures, files


def figure(checked: Checked, lines: Sequence[tuple[str, str]]):
    """The recording's figure, by `plots`."""
    from plots.recording import Timeline, recording_figure

    result, samples = checked.result, None
    if result.seconds <= PICTURED_SECONDS:
        samples = np.concatenate(list(Recording(checked.sound)))
    timeline = Timeline(*(np.array(values, float) for values in zip(*result.chunks, strict=True)))
    return recording_figure(samples, SAMPLE_RATE, timeline, checked.judge.settings.threshold, result.regions, lines)


def panels(checked: Checked) -> dict[str, str]:
    """HTML of the figure's panels: scores and, of recordings that are not too long for it, waveform and spectrogram."""
    drawn = figure(checked, [])
    *_, last = drawn.axes
    for axes in drawn.axes:
        axes.tick_params(axis="x", labelbottom=True)
        axes.set_xlabel(last.get_xlabel(), fontsize=8)
    drawn.canvas.draw()
    names = ("waveform", "spectrogram", "scores") if len(drawn.axes) == 3 else ("scores",)
    found = {}
    for name, axes in zip(names, drawn.axes, strict=True):
        box = axes.get_tightbbox().transformed(drawn.dpi_scale_trans.inverted()).padded(0.06)
        png = io.BytesIO()
        drawn.savefig(png, format="png", dpi=170, bbox_inches=box)
        found[name] = image(png.getvalue(), f"{name} over time".capitalize())
    limit = idle(f"Recordings over {clock(PICTURED_SECONDS)} are drawn without it.")
    return {"waveform": limit, "spectrogram": limit} | found


def exports(checked: Checked, place: Path) -> list[str]:
    """JSON, CSV, PNG and the report as PDF, written into the folder `place`."""
    from plots.style import write_figure

    stem = place / (checked.result.path.stem or "recording")
    table, page = stem.with_name(f"{stem.name}.csv"), [("file", checked.result.path.name)]
    data = stem.with_name(f"{stem.name}.json")
    write_text(data, json.dumps(checked.document(), allow_nan=False))
    write_csv(table, [checked.result.to_dict()])
    if checked.sound is None:
        return [str(data), str(table)]
    page += [(label, for_page(text)) for label, text in verdict_rows(checked.result, checked.judge)]
    pictures = [
        write_figure(figure(checked, lines), stem, [kind])[0]
        for kind, lines in (("png", page), ("pdf", [*page, *provenance(checked)]))
    ]
    return [str(path) for path in (data, table, *pictures)]


def provenance(checked: Checked) -> list[tuple[str, str]]:
    """What was judged by what, for a report."""
    model, settings = checked.judge.card, checked.judge.settings
    expected = f"{100 * settings.prior_spoof:g} % spoofs expected"
    return [
        ("file hash", grouped(checked.sha256)),
        ("model", f"{model.name}, {checked.engine['name']} {checked.engine['precision']}"),
        ("model hash", grouped(model.sha256)),
        ("settings", f"aggregate {settings.aggregate}, overlap {settings.overlap:g}, {expected}"),
    ]


def grouped(sha256: str) -> str:
    return "SHA-256 " + " ".join(sha256[first : first + 16] for first in range(0, len(sha256), 16))


def playable(sound: Path, file: Path) -> str:
    """`sound` as a browser plays it, in `file`."""
    from soundfile import SoundFile

    with SoundFile(file, "w", SAMPLE_RATE, 1, "PCM_16", format="WAV") as out:
        for block in Recording(sound):
            out.write(block)
    return str(file)


@cache
def examples() -> dict[str, str]:
    """A made-up utterance of each class, by the demo corpus' own talkers."""
    import soundfile

    from corpora.demo import DemoSettings, DemoTrial, make_utterance

    place, settings = Path(tempfile.mkdtemp()), DemoSettings(1234, 12, (240, 100, 130))
    for name, attack in (("bonafide", "-"), ("spoof", "A01")):
        wave = make_utterance(settings, DemoTrial("train", 1, 0, 1, attack))
        soundfile.write(place / f"made_up_{name}.wav", wave, SAMPLE_RATE)
    return {name: str(place / f"made_up_{name}.wav") for name in ("bonafide", "spoof")}


# ------------------------------------------------------------------------------------------------------------ the page

JOB = {"concurrency_id": "jobs", "concurrency_limit": AT_ONCE}
PRIVATE = {"api_visibility": "private", "show_progress": "hidden"}
COLUMNS = {  # of the table of several files
    "file": "str",
    "verdict": "str",
    "score": "number",
    "P(spoof) %": "number",
    "seconds": "number",
    "remarks": "str",
}
SAVED = {"json": "JSON", "csv": "CSV", "png": "Figure (PNG)", "pdf": "Report (PDF)"}


def import_gradio():
    """The package. It would compare each component's source with type stubs beside it: half of its start.

    Components whose source cannot be found are passed over. Raises UserError when it is not installed.
    """
    getfile = inspect.getfile

    def without_classes(thing):
        if isinstance(thing, type):
            raise OSError("no source")
        return getfile(thing)

    inspect.getfile = without_classes
    try:
        import gradio
    except ImportError as error:
        raise UserError("the package gradio is missing", "pip install -r requirements-app.txt", error) from error
    finally:
        inspect.getfile = getfile
    return gradio


class Page:
    """The page's parts, and what each button does. gr: gradio, which takes seconds to import."""

    def __init__(self, desk: Desk, model: str, device: str = "auto", keep_seconds: float = 900):
        gr = import_gradio()
        self.gr, self.desk = gr, desk
        kept = (min(60, keep_seconds), keep_seconds)
        with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=kept) as self.blocks:
            self.html(HEADER)
            self.choose(model, device)
            with gr.Tabs():
                with gr.Tab("One recording"):
                    self.one()
                with gr.Tab("Several files"):
                    self.several()
                with gr.Tab("About the numbers"):
                    self.html(ABOUT)
            self.api(model)
            self.blocks.load(self.models, outputs=[self.model, self.compared], queue=False, **PRIVATE)
        self.blocks.queue(max_size=WAITING)
        self.refuse_addresses()

    def refuse_addresses(self) -> None:
        """A client may name an address in place of a file; gradio would fetch it, of any size."""

        def only_files(take):
            async def refuse_or_take(path):
                if "://" in str(path):
                    raise self.gr.Error("send a file, not an address", print_exception=False)
                return await take(path)

            return refuse_or_take

        for block in self.blocks.blocks.values():
            block.async_move_resource_to_block_cache = only_files(block.async_move_resource_to_block_cache)

    def html(self, value: str, **options):
        return self.gr.HTML(value, apply_default_css=False, **options)

    def choose(self, model: str, device: str) -> None:
        gr, kinds = self.gr, [("the model's own (dev EER)", "model"), ("target FAR", "far"), ("own", "own")]
        self.model = gr.Dropdown([(short(label), label) for label in self.desk.models], value=model, label="Model")
        with gr.Accordion("Settings", open=False):
            kind = gr.Radio(kinds, value="model", label="Threshold", info="Scores above it are bona fide")
            far = gr.Number(1, label="Target FAR (%)", info="Share of the dev spoofs that pass", visible=False)
            own = gr.Number(0, label="Own threshold", visible=False)
            with gr.Row():
                prior = gr.Slider(0.1, 99.9, 50, step=0.1, label="Spoofs to expect (%)", info=ABOUT_PRIOR)
                aggregate = gr.Dropdown([*AGGREGATES], value="mean", label="Joining parts", info=ABOUT_AGGREGATE)
            devices = [*dict.fromkeys(["auto", "cpu", *(["cuda"] if NVIDIA.exists() else []), device])]
            device = gr.Radio(devices, value=device, label="Device")
        kind.change(
            lambda kind: (gr.update(visible=kind == "far"), gr.update(visible=kind == "own")),
            kind,
            [far, own],
            queue=False,
            **PRIVATE,
        )
        self.settings = [device, kind, own, far, prior, aggregate]

    def models(self):
        """The lists, read anew when a page is opened, with what each checkpoint says of itself."""
        self.desk.refresh()
        choices = self.desk.choices()
        return self.gr.update(choices=choices), self.gr.update(choices=choices)

    def one(self) -> None:
        gr = self.gr
        with gr.Row():
            with gr.Column(min_width=320):
                self.record()
                go, stop = self.go_stop("Check", "check")
            with gr.Column(min_width=320):
                self.card = self.html(idle(), elem_id="verdict")
        with gr.Tabs():
            self.drawn = {}
            for name in ("scores", "waveform", "spectrogram"):
                with gr.Tab(name.capitalize()):
                    self.drawn[name] = self.html(idle(), elem_id=name)
            with gr.Tab("Parts"):
                self.parts = self.html(idle(), elem_id="parts", js_on_load=PLAY)
            with gr.Tab("Compare models"):
                self.compare()
            with gr.Tab("Export"):
                self.html(f'<p class="note">{ABOUT_EXPORT}</p>')
                with gr.Row():
                    self.saved = [self.save_button(text, f"save_{kind}") for kind, text in SAVED.items()]
        outputs = [self.card, self.parts, *self.drawn.values(), *self.saved]
        self.wire(go, stop, self.check_one, [self.audio, self.model, *self.settings], self.card, outputs)

    def record(self) -> None:
        """Where a recording comes from."""
        gr = self.gr
        sources = {"sources": ["upload", "microphone"], "buttons": []}
        self.audio = gr.Audio(type="filepath", label="Recording", elem_id="audio", **sources)
        with gr.Row():
            other = gr.UploadButton("Video, other …", size="sm", min_width=100, elem_id="other")
            for name in ("bonafide", "spoof"):
                button = gr.Button(f"Example: {VERDICT_WORDS[name]}", size="sm", min_width=100)
                button.click(lambda name=name: examples()[name], outputs=self.audio, queue=False, **PRIVATE)
        other.upload(lambda file: file, other, self.audio, queue=False, **PRIVATE)
        self.html(f'<p class="note">{ABOUT_EXAMPLES}</p>')

    def go_stop(self, text: str, name: str) -> tuple:
        with self.gr.Row():
            go = self.gr.Button(text, variant="primary", elem_id=name)
            return go, self.gr.Button("Cancel", visible=False, elem_id=f"cancel_{name}")

    def save_button(self, text: str, name: str):
        return self.gr.DownloadButton(text, interactive=False, elem_id=name)

    def wire(self, go, stop, job, inputs: list, card, others: list) -> None:
        """Have `go` run the generator `job`, whose errors end in `card`, and `stop` end it.

        It ends itself, at its next news: where gradio cancels, the page takes that for an error.
        """
        gr, stopped = self.gr, set()  # of sessions
        rest = {go: gr.update(interactive=True), stop: gr.update(visible=False)}

        def run_job(request: gr.Request, *values):
            stopped.discard(request.session_hash)
            yield {card: busy(Step("Starting")), go: gr.update(interactive=False), stop: gr.update(visible=True)}
            try:
                with closing(job(*values)) as updates:
                    for update in updates:
                        if request.session_hash in stopped:
                            yield {card: idle("Cancelled.")}
                            break
                        yield update
                yield rest
            except Exception as error:
                yield {card: sorry(error), **rest}

        def stop_job(request: gr.Request) -> None:
            stopped.add(request.session_hash)

        go.click(run_job, inputs, list(dict.fromkeys([card, *others, go, stop])), **JOB, **PRIVATE)
        stop.click(stop_job, queue=False, **PRIVATE)

    def check_one(self, file: str | None, model: str, device: str, *settings):
        """The verdict as soon as it is there, then what takes longer to draw."""
        require(file, "no recording has arrived yet: upload or record speech first")
        yield {shown: idle("…") for shown in (self.parts, *self.drawn.values())}
        yield {button: self.gr.update(interactive=False) for button in self.saved}
        with self.desk.job([file]) as files:
            for news in self.desk.check(files, model, device, options_from(*settings)):
                if isinstance(news, Step):
                    yield {self.card: busy(news)}
            yield {self.card: verdict_card(news)}
            yield from self.details(news, files[0].parent)

    def details(self, checked: Checked, place: Path):
        """Parts, figures and files, which lie in `place` until gradio has taken them over."""
        if checked.sound:
            yield {self.parts: parts(checked, self.address(checked.sound))}
            yield {self.drawn[name]: drawn for name, drawn in panels(checked).items()}
        else:
            yield {shown: idle("There is nothing to draw.") for shown in (self.parts, *self.drawn.values())}
        place = place / "files"
        place.mkdir()
        files = exports(checked, place)
        yield {
            button: self.gr.update(value=file, interactive=True)
            for button, file in zip(self.saved, files, strict=False)  # of a broken file there is no picture
        }

    def address(self, sound: Path) -> str:
        """Where a browser gets `sound`; gradio removes it as it does what it serves itself."""
        folder = tempfile.mkdtemp(dir=os.environ["GRADIO_TEMP_DIR"])
        file = playable(sound, Path(folder) / "recording.wav")
        self.parts.temp_files.add(file)
        return f"gradio_api/file={file}"

    def compare(self) -> None:
        gr = self.gr
        labels = [(short(label), label) for label in self.desk.models]
        options = {"multiselect": True, "max_choices": MAX_COMPARED, "value": [*KNOWN], "elem_id": "compared"}
        self.compared = gr.Dropdown(labels, label="Models to compare on the recording above", **options)
        go, stop = self.go_stop("Compare", "compare")
        table = self.html("", elem_id="comparison")

        def job(file, models, device, *settings):
            require(file and models, "upload or record speech and choose models first")
            checks, models = [], models[:MAX_COMPARED]
            with self.desk.job([file] * len(models)) as files:
                for model, path in zip(models, files, strict=True):
                    for news in self.desk.check([path], model, device, options_from(*settings)):
                        if isinstance(news, Step):
                            yield {table: busy(Step(f"{short(model)} — {news.text}", news.share))}
                    checks.append((model, news))
            yield {table: comparison(checks)}

        self.wire(go, stop, job, [self.audio, self.compared, *self.settings], table, [])

    def several(self) -> None:
        gr = self.gr
        label = f"Files of any audio or video format, at most {MAX_FILES}"
        uploads = gr.File(file_count="multiple", label=label, height=180, elem_id="uploads")
        go, stop = self.go_stop("Check all", "check_all")
        card = self.html(idle("Upload files, then press Check all."), elem_id="several")
        kinds = {"headers": [*COLUMNS], "datatype": [*COLUMNS.values()], "column_widths": COLUMN_WIDTHS}
        table = gr.Dataframe(**kinds, interactive=False, label="Results", wrap=True, elem_id="table", buttons=[])
        chart = self.html("", elem_id="chart", elem_classes="chart")
        saved = self.save_button("CSV of all", "save_all")

        def job(paths, model, device, *settings):
            require(paths, "upload files first")
            checks: list[Checked] = []
            yield {table: [], chart: "", saved: gr.update(interactive=False)}
            with self.desk.job(paths[:MAX_FILES]) as files:
                for news in self.desk.check(files, model, device, options_from(*settings)):
                    if isinstance(news, Step):
                        yield {card: busy(news)}
                    else:
                        checks.append(news)
                        yield {table: [row(check) for check in checks]}
                path = files[0].parent / "results.csv"
                write_csv(path, [check.result.to_dict() for check in checks])
                yield {card: counts(checks), saved: gr.update(value=str(path), interactive=True)}
                yield {chart: distribution(checks)}

        self.wire(go, stop, job, [uploads, self.model, *self.settings], card, [table, chart, saved])

    def api(self, model: str) -> None:
        """`/score` and `/models`, for gradio_client; nothing of it is on the page."""
        gr = self.gr
        with gr.Column(visible=False):
            inputs = [
                gr.File(label="file"),
                gr.Textbox(model, label="model"),
                gr.Number(label="threshold"),
                gr.Number(label="target_far"),
                gr.Number(0.5, label="prior_spoof"),
                gr.Textbox("mean", label="aggregate"),
            ]
            document, models = gr.JSON(label="document"), gr.JSON(label="models")
            score, listed = gr.Button("score"), gr.Button("models")
        score.click(self.score, inputs, document, api_name="score", **JOB)
        listed.click(self.list_models, outputs=models, api_name="models")

    def list_models(self) -> dict[str, str]:
        """The labels that `/score` takes, each with what the checkpoint says of itself."""
        self.desk.refresh()
        return {label: self.desk.about(label) for label in self.desk.models}

    def score(
        self,
        file: str,
        model: str,
        threshold: float | None = None,
        target_far: float | None = None,
        prior_spoof: float = 0.5,
        aggregate: str = "mean",
    ) -> dict:
        """Score one file: the document that `inference.py --save_json` writes. `/models` lists the models."""
        try:
            require(file, "send a file")
            percents = [share if share is None else 100 * share for share in (target_far, prior_spoof)]
            kind = "own" if threshold is not None else "far" if target_far is not None else "model"
            options = options_from(kind, threshold, *percents, aggregate)
            with self.desk.job([file]) as files:
                *_, checked = self.desk.check(files, model, "auto", options)
                return checked.document()
        except UserError as error:
            raise self.gr.Error(escape(sentence(error), quote=False), print_exception=False) from None


def require(given: object, what: str) -> None:
    if not given:
        raise UserError(what)


def row(checked: Checked) -> list:
    result = checked.result
    remarks = result.error or ", ".join(condition.name.replace("_", " ") for condition in result.conditions)
    verdict = "✕ unreadable" if result.error else f"{ICONS[result.verdict]} {VERDICT_WORDS[result.verdict]}"
    probability = result.probability_spoof
    numbers = (result.score, probability and 100 * probability, result.seconds)
    return [result.path.name, verdict, *(value if value is None else round(value, 4) for value in numbers), remarks]


def counts(checks: Sequence[Checked]) -> str:
    found = Counter("unreadable" if check.result.error else VERDICT_WORDS[check.result.verdict] for check in checks)
    listed = "".join(
        f"<li><b>{found[name]}</b> {name}</li>" for name in (*VERDICT_WORDS.values(), "unreadable") if found[name]
    )
    caution = escape(checks[0].judge.caution())
    note = f'<p class="note">Caution: {caution}.</p>'
    return f'<div class="card" role="status"><ul class="counts">{listed}</ul>{note}</div>'


def distribution(checks: Sequence[Checked]) -> str:
    """The scores' histogram by verdict; nothing where there is no threshold."""
    from plots.scores import score_distributions

    threshold = checks[0].judge.settings.threshold
    scores = [
        [check.result.score for check in checks if check.result.score is not None and check.result.verdict == name]
        for name in ("bonafide", "spoof")
    ]
    if threshold is None or not any(scores):
        return ""
    png = io.BytesIO()
    score_distributions(*map(np.array, scores), threshold).savefig(png, format="png", dpi=200)
    return image(png.getvalue(), "Distribution of the scores by verdict")


TITLE = "Is this speech genuine? – AASIST"
ABOUT_PRIOR = "Moves the probability, where there is one; never the score"
ABOUT_AGGREGATE = "mean: one voice, one take; min: a passage may be spliced in"
ABOUT_EXAMPLES = "The examples are the demo corpus’ own: a program made them, nobody spoke. A stand-in, no proof."
ABOUT_EXPORT = "JSON and CSV as inference.py writes them; the report adds SHA-256 of file and model, and the settings."
COLUMN_WIDTHS = ["26%", "16%", "12%", "13%", "11%", "22%"]
# What is asked of the browser: the button's part of the recording is played by the page's own player.
PLAY = """
let end = Infinity;
element.addEventListener("click", event => {
  const part = event.target.closest("[data-start]");
  const player = element.querySelector("audio");
  if (!part || !player) return;
  end = Number(part.dataset.end);
  player.ontimeupdate = () => { if (player.currentTime >= end) { player.pause(); end = Infinity; } };
  player.currentTime = Number(part.dataset.start);
  player.play();
});
"""
HEADER = """<header><h1>Is this speech genuine?</h1>
<p>A model listens for the traces that speech synthesis and voice conversion leave. It gives evidence, not proof: read
the caution below each verdict.</p></header>"""
ABOUT = """<article>
<h2>The verdict</h2>
<p><b>✓ Bona fide</b> if the score is above the threshold, <b>⚠ spoof</b> if not, <b>? cannot say</b> where a score
would mean nothing: silence, less than half a second of sound, a model without threshold.</p>
<p>It is evidence about this kind of signal, by a model that knows the attacks and recordings it was trained on.
LCNN-mixed, chosen at first, errs on one clip in eighteen of speech like what it was trained on, but on a third of
telephone speech; the published AASIST errs on 0.83 % of ASVspoof2019, on which it was trained, and on 40 % of that
other speech. Noise and strong compression make either worse. “Bona fide” says nothing about what was said, or whether
real speech was cut and rearranged.</p>
<h2>The score and the threshold</h2>
<p>The score is the model’s bona fide logit: higher = more bona fide. It has no unit and is no probability; two models’
scores cannot be compared. What decides is the side of the threshold. The model’s own is the point where both errors are
equal on its development set (EER). A target FAR lets at most that share of the development set’s spoofs pass. Raise the
threshold if you must not miss a spoof; lower it if you must not accuse the innocent.</p>
<h2>The probability</h2>
<p>Only checkpoints that were calibrated give one, and only for material like their development set. It depends on how
many spoofs you expect: P(spoof) = 1 / (1 + (1 − π)/π · e<sup>LLR</sup>), π being that share.</p>
<h2>Long recordings</h2>
<p>The model hears 4.04 s at a time; neighbouring parts overlap by half. The file’s score is their mean unless you
choose otherwise: take <i>min</i> when a passage may have been spliced in. Suspicious passages are parts at or below the
threshold; of many parts some fall below by chance. Listen to them.</p>
<h2>Your recordings</h2>
<p>Uploads stay on this server, are shown to nobody else, and are removed soon after their last use (after a quarter of
an hour, unless whoever runs this server chose otherwise).</p>
<h2>Please cite</h2>
<pre tabindex="0">@inproceedings{jung2022aasist,
  title     = {{AASIST}: Audio Anti-Spoofing Using Integrated
               Spectro-Temporal Graph Attention Networks},
  author    = {Jung, Jee-weon and Heo, Hee-Soo and Tak, Hemlata and Shim, Hye-jin and
               Chung, Joon Son and Lee, Bong-Jin and Yu, Ha-Jin and Evans, Nicholas},
  booktitle = {ICASSP 2022 – IEEE International Conference on Acoustics,
               Speech and Signal Processing},
  pages     = {6367--6371},
  year      = {2022}
}
@article{wang2020asvspoof,
  title   = {{ASVspoof} 2019: A large-scale public database of synthesized,
             converted and replayed speech},
  author  = {Wang, Xin and Yamagishi, Junichi and Todisco, Massimiliano and
             Delgado, H{\\'e}ctor and Nautsch, Andreas and Evans, Nicholas and others},
  journal = {Computer Speech \\& Language},
  volume  = {64},
  pages   = {101114},
  year    = {2020}
}</pre>
</article>"""
CSS = """
.gradio-container { --good: #0b5a8f; --bad: #a33b00; --unsure: #4a5563; width: 100%; max-width: 1080px !important;
  margin: auto }
.dark .gradio-container, .dark.gradio-container { --good: #7cc0ee; --bad: #f0a070; --unsure: #b4bdc9 }
.gradio-container.dark, .dark .gradio-container { --color-accent: #7cc0ee }
.gradio-container .html-container { padding: 0 }
.gradio-container input { text-overflow: ellipsis; padding-right: 1.5rem !important }
.gradio-container time, .gradio-container .playback span { color: var(--body-text-color-subdued) !important }
footer .divider { display: none }
header h1 { font-size: 1.7rem; font-weight: 700; margin: .4rem 0 .2rem }
header p { max-width: 46rem }
.note { font-size: .85rem }
.card { border: 1px solid var(--border-color-primary); border-radius: 8px; padding: 1rem 1.25rem;
  background: var(--background-fill-primary) }
.card.bonafide, .card.spoof, .card.abstain { border-left: 6px solid var(--unsure) }
.card h2 { font-size: 1.6rem; font-weight: 700; color: var(--unsure) }
.card p { margin: .4rem 0 }
.card .file { overflow-wrap: anywhere; font-size: .9rem }
.card.bonafide { border-left-color: var(--good) }
.card.spoof { border-left-color: var(--bad) }
.card.bonafide h2, td.bonafide { color: var(--good) }
.card.spoof h2, td.spoof { color: var(--bad) }
td.bonafide, td.spoof, td.abstain { font-weight: 700; white-space: nowrap }
.card progress { width: 100%; accent-color: var(--good) }
.card dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1rem; margin-top: 1rem; font-size: .9rem }
.card dt { font-weight: 600 }
.card dd { overflow-wrap: anywhere }
.counts { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; list-style: none }
.counts b { font-size: 1.4rem }
.ends { display: flex; justify-content: space-between; font-size: .8rem }
.scale { margin: 1rem 0 }
.scale .bar { position: relative; height: 16px; border: 1px solid var(--unsure); border-radius: 8px; margin: .2rem 0;
  background: repeating-linear-gradient(45deg, var(--bad) 0 5px, transparent 5px 9px) left / 50% 100% no-repeat,
  linear-gradient(var(--good), var(--good)) right / 50% 100% no-repeat }
.scale .bar i { position: absolute; top: -5px; bottom: -5px }
.scale .middle { left: 50%; border-left: 2px dashed var(--body-text-color) }
.scale .mark { width: 10px; margin-left: -5px; border-radius: 5px; background: var(--body-text-color);
  outline: 2px solid var(--background-fill-primary) }
.lane { position: relative; height: 84px; border-bottom: 1px solid var(--unsure); margin-top: .6rem }
.part { position: absolute; top: 0; height: 38px; overflow: hidden; white-space: nowrap; font-size: .75rem; padding: 0;
  border: 1px solid var(--background-fill-primary); border-radius: 4px; color: #fff; background: #0b5a8f;
  cursor: pointer }
.part:nth-child(even) { top: 41px }
.part.silent, .part.abstain { background: #4a5563 }
.part.spoof { background: repeating-linear-gradient(45deg, #a33b00 0 6px, #8a3200 6px 12px) }
.part:focus-visible, .region:focus-visible { outline: 3px solid var(--body-text-color); outline-offset: -3px }
.region { padding: .35rem .7rem; border: 1px solid var(--bad); border-radius: 6px; color: var(--bad); cursor: pointer;
  margin: .15rem .4rem .15rem 0; background: transparent; font-weight: 600 }
.parts h3 { font-weight: 700; margin-top: 1rem }
.parts ul { list-style: none }
.parts audio { width: 100%; margin-top: 1rem }
.wide { overflow-x: auto; max-width: 100% }
.wide img { min-width: 640px; width: 100%; background: #fff }
.chart img { min-width: 0; max-width: 560px }
.wide table { min-width: 760px; width: 100%; border-collapse: collapse; font-size: .9rem }
.wide th, .wide td { text-align: left; vertical-align: top; padding: .45rem .6rem;
  border-bottom: 1px solid var(--border-color-primary) }
article { max-width: 46rem }
article h2 { font-size: 1.15rem; font-weight: 700; margin: 1.2rem 0 .3rem }
article p { margin: .4rem 0; line-height: 1.55 }
article pre { overflow-x: auto; font-size: .75rem; padding: .8rem; border: 1px solid var(--border-color-primary);
  border-radius: 8px }
"""


# -------------------------------------------------------------------------------------------------------- command line


def parse_arguments():
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("--port", type=int, default=8080, help="(default: %(default)s)")
    add(
        "--server_name",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="0.0.0.0: all networks (default: this computer only)",
    )
    add("--share", action="store_true", help="through a public address of gradio's makers, who then see everything")
    add("--auth", metavar="USER:PASS", help="ask visitors for it")
    add("--models", nargs="+", type=Path, default=[], metavar="DIR", help="more folders of checkpoints")
    add("--model", default=BUNDLED, metavar="LABEL", help="the model chosen at first (default: %(default)s)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="the device chosen at first")
    add("--max_minutes", type=float, default=60, help="longest recording (default: %(default)s)")
    add("--max_mb", type=float, default=200, help="largest upload (default: %(default)s)")
    add("--keep_minutes", type=float, default=15, help="uploads, after their last use (default: %(default)s)")
    args = parser.parse_args()
    if not 1 <= args.port <= 65535 or not min(args.max_minutes, args.max_mb, args.keep_minutes) > 0:
        parser.error("--port lies in 1 … 65535, --max_minutes, --max_mb and --keep_minutes above 0")
    if args.auth is not None and not all(args.auth.partition(":")):
        parser.error("--auth: expected USER:PASS")
    for each in args.models:
        if not each.is_dir():
            raise UserError(f"--models {each}", "a folder", "a file" if each.exists() else "nothing there")
    return args


def warm(page: Page, model: str) -> None:
    """Load what the first visitor would wait for: packages, the model, the decoding process."""
    if model in OFFICIAL and not checkpoint_path(model).is_file():
        return
    try:
        with page.desk.job([Path(examples()["bonafide"])]) as files:
            *_, checked = page.desk.check(files, model, "auto", options_from("model", None, None, 50, "mean"))
            panels(checked)
    except UserError as error:
        print(f"note: {model}: {error}", file=sys.stderr)


def launch(page: Page, args) -> None:
    """Serve until interrupted."""
    gr = page.gr
    theme = gr.themes.Default(
        primary_hue="sky",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(  # gradio's own colours have too little contrast
        color_accent="#0b5a8f",
        button_primary_background_fill="#0b5a8f",
        button_primary_background_fill_hover="#084a76",
        body_text_color_subdued="*neutral_600",
    )
    try:
        page.blocks.launch(
            server_name=args.server_name, server_port=args.port, share=args.share, quiet=True, prevent_thread_lock=True,
            auth=tuple(args.auth.split(":", 1)) if args.auth else None, max_file_size=round(args.max_mb * 2**20),
            theme=theme, css=CSS, footer_links=["api"], ssr_mode=False, enable_monitoring=False, run_history=False,
        )  # fmt: skip
    except OSError as error:
        found = "it is in use, or the address is not this computer's"
        raise UserError(f"cannot listen on {args.server_name} port {args.port}", "a free port", found) from error
    try:
        print(f"http://{args.server_name}:{args.port}", flush=True)
        time.sleep(FIRST_SCREEN)
        warm(page, args.model)
        threading.Event().wait()
    finally:
        page.blocks.close(verbose=False)


def main() -> int:
    args = parse_arguments()
    if not args.auth and (args.share or args.server_name not in ("127.0.0.1", "localhost", "::1")):
        print("warning: without --auth anybody who reaches this address can use the page", file=sys.stderr)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    place = Path(tempfile.mkdtemp(prefix="aasist_"))
    (place / "jobs").mkdir()
    tempfile.tempdir = str(place / "jobs")  # and so everything that is ever written goes with `place`
    os.environ |= {"GRADIO_TEMP_DIR": str(place / "uploads"), "GRADIO_ANALYTICS_ENABLED": "False"}
    try:
        desk = Desk(args.models, args.max_minutes)
        if args.model not in desk.models:
            raise UserError(f"--model {args.model}", "one of " + ", ".join(desk.models), "no such label")
        launch(Page(desk, args.model, args.device, 60 * args.keep_minutes), args)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return 0
