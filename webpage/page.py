"""The page: its layout, and what each button does."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from common.errors import UserError
from scoring.results import write_csv
from scoring.speaker import is_installed
from webpage.api import ScoringApi
from webpage.checkpoints import known_here
from webpage.examples import example_files
from webpage.exports import EXPORTS, write_exports, write_wav
from webpage.figures import figure_panels, score_histogram
from webpage.formatting import short_label
from webpage.jobs import CheckedFile, CheckProgress, FileChecker, held_uploads
from webpage.limits import JOB_QUEUE, MAX_COMPARED_MODELS, MAX_FILES, MAX_QUEUE
from webpage.result_html import (
    chunk_timeline,
    error_card,
    message_card,
    model_comparison,
    progress_card,
    table_row,
    verdict_card,
    verdict_counts,
)
from webpage.settings import add_settings, judge_options
from webpage.upstream import import_gradio, refuse_addresses

STATIC = Path(__file__).parent  # page.css, about.html, player.js
TITLE = "Is this speech genuine? – AASIST"
HEADER = """<header><h1>Is this speech genuine?</h1>
<p>A model listens for the traces that speech synthesis and voice conversion leave. It gives evidence, not proof: read
the caution below each verdict.</p></header>"""
EXAMPLE_WORDS = {"bonafide": "bona fide", "spoof": "spoof"}
EXAMPLES_NOTE = "A program made the two examples, as in the demo corpus: nobody spoke them. They prove nothing."
EXPORT_NOTE = (
    "JSON and CSV are as inference.py writes them. The report adds the SHA-256 of file and model, and the settings."
)
HIDDEN = {"api_visibility": "private", "show_progress": "hidden"}  # of events that only the page itself uses
TABLE = {  # of several files: column, type, width
    "headers": ["file", "verdict", "score", "P(spoof) %", "seconds", "remarks"],
    "datatype": ["str", "str", "number", "number", "number", "str"],
    "column_widths": ["26%", "16%", "12%", "13%", "11%", "22%"],
}
Updates = Iterator[dict]  # what a job changes on the page: widget → its new value


class Page:
    """The widgets of the page and the jobs behind its buttons.

    gr: the package gradio, imported when a page is made because that takes seconds.
    """

    def __init__(self, checker: FileChecker, model: str, device: str = "auto", keep_seconds: float = 900):
        gr = import_gradio()
        self.gr, self.checker = gr, checker
        cleaning = (min(60, keep_seconds), keep_seconds)  # seconds between two cleanings; age of what is removed
        with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=cleaning) as self.blocks:
            self._html(HEADER)
            self.model = gr.Dropdown(self._model_labels(), value=model, label="Model")
            with gr.Accordion("Settings", open=False):
                self.settings = add_settings(gr, device, HIDDEN)
            with gr.Tabs():
                with gr.Tab("One recording"):
                    self._add_one_recording()
                with gr.Tab("Several files"):
                    self._add_several_files()
                with gr.Tab("About the numbers"):
                    self._html((STATIC / "about.html").read_text(encoding="utf-8"))
            ScoringApi(gr, checker, model)
            self.blocks.load(self._refresh_models, outputs=[self.model, self.compared], queue=False, **HIDDEN)
        self.blocks.queue(max_size=MAX_QUEUE)
        refuse_addresses(self.blocks)

    # ------------------------------------------------------------------------------------------------------- layout

    def _add_one_recording(self) -> None:
        gr = self.gr
        with gr.Row():
            with gr.Column(min_width=320):
                self._add_recording_input()
                go, cancel = self._add_go_and_cancel("Check", "check")
            with gr.Column(min_width=320):
                self.verdict = self._html(message_card(), elem_id="verdict")
        with gr.Tabs():
            self.panels = {}
            for name in ("scores", "waveform", "spectrogram"):
                with gr.Tab(name.capitalize()):
                    self.panels[name] = self._html(message_card(), elem_id=name)
            with gr.Tab("Chunks"):
                player = (STATIC / "player.js").read_text(encoding="utf-8")
                self.chunks = self._html(message_card(), elem_id="chunks", js_on_load=player)
            with gr.Tab("Compare models"):
                self._add_comparison()
            with gr.Tab("Export"):
                self._html(f'<p class="note">{EXPORT_NOTE}</p>')
                with gr.Row():
                    self.exports = [self._download_button(text, f"save_{kind}") for kind, text in EXPORTS.items()]
        outputs = [self.chunks, *self.panels.values(), *self.exports]
        inputs = [self.audio, self.reference, self.model, *self.settings]
        self._run(self.check_recording, inputs, go, cancel, self.verdict, outputs)

    def _add_recording_input(self) -> None:
        gr = self.gr
        sources = {"sources": ["upload", "microphone"], "buttons": []}
        self.audio = gr.Audio(type="filepath", label="Recording", elem_id="audio", **sources)
        with gr.Row():
            other = gr.UploadButton("Video, other …", size="sm", min_width=100, elem_id="other")
            for name in ("bonafide", "spoof"):
                button = gr.Button(f"Example: {EXAMPLE_WORDS[name]}", size="sm", min_width=100)
                button.click(lambda name=name: example_files()[name], outputs=self.audio, queue=False, **HIDDEN)
        other.upload(lambda file: file, other, self.audio, queue=False, **HIDDEN)
        self._html(f'<p class="note">{EXAMPLES_NOTE}</p>')
        label = "Is it this person? Genuine recordings of the speaker, 10 s or more (optional)"
        self.reference = gr.File(
            file_count="multiple", label=label, height=120, elem_id="reference", visible=is_installed()
        )

    def _add_comparison(self) -> None:
        label, most = "Models to compare on the recording above", MAX_COMPARED_MODELS
        several = {"multiselect": True, "max_choices": most, "value": known_here(), "elem_id": "compared"}
        self.compared = self.gr.Dropdown(self._model_labels(), label=label, **several)
        go, cancel = self._add_go_and_cancel("Compare", "compare")
        self.comparison = self._html("", elem_id="comparison")
        self._run(self.compare_models, [self.audio, self.compared, *self.settings], go, cancel, self.comparison, [])

    def _add_several_files(self) -> None:
        gr, label = self.gr, f"Files of any audio or video format, at most {MAX_FILES}"
        uploads = gr.File(file_count="multiple", label=label, height=180, elem_id="uploads")
        go, cancel = self._add_go_and_cancel("Check all", "check_all")
        self.counts = self._html(message_card("Upload files, then press Check all."), elem_id="several")
        self.table = gr.Dataframe(**TABLE, interactive=False, label="Results", wrap=True, elem_id="table", buttons=[])
        self.histogram = self._html("", elem_id="chart", elem_classes="chart")
        self.all_csv = self._download_button("CSV of all", "save_all")
        outputs = [self.table, self.histogram, self.all_csv]
        self._run(self.check_several, [uploads, self.model, *self.settings], go, cancel, self.counts, outputs)

    def _html(self, value: str, **options):
        return self.gr.HTML(value, apply_default_css=False, **options)

    def _add_go_and_cancel(self, text: str, name: str) -> tuple:
        with self.gr.Row():
            go = self.gr.Button(text, variant="primary", elem_id=name)
            return go, self.gr.Button("Cancel", visible=False, elem_id=f"cancel_{name}")

    def _download_button(self, text: str, name: str):
        return self.gr.DownloadButton(text, interactive=False, elem_id=name)

    def _model_labels(self) -> list[tuple[str, str]]:
        return [(short_label(label), label) for label in self.checker.models.checkpoints]

    def _refresh_models(self) -> tuple:
        """Both lists of models, read again when the page is opened, with what is known about each checkpoint."""
        self.checker.models.refresh()
        choices = self.checker.models.choices()
        return self.gr.update(choices=choices), self.gr.update(choices=choices)

    # --------------------------------------------------------------------------------------------------------- jobs

    def _run(self, job: Callable[..., Updates], inputs: list, go, cancel, card, outputs: list) -> None:
        """Let `go` run a job, whose errors appear in `card`, and let `cancel` end it.

        A cancelled job ends itself at its next update: if gradio cancelled it, the page would show that as an error.
        """
        gr, cancelled_sessions = self.gr, set()
        idle = {go: gr.update(interactive=True), cancel: gr.update(visible=False)}
        busy = {go: gr.update(interactive=False), cancel: gr.update(visible=True)}

        def run_job(request: gr.Request, *values):
            cancelled_sessions.discard(request.session_hash)
            yield {card: progress_card(CheckProgress("Starting")), **busy}
            try:
                with closing(job(*values)) as updates:
                    for update in updates:
                        if request.session_hash in cancelled_sessions:
                            yield {card: message_card("Cancelled.")}
                            break
                        yield update
                yield idle
            except Exception as error:
                yield {card: error_card(error), **idle}

        def cancel_job(request: gr.Request) -> None:
            cancelled_sessions.add(request.session_hash)

        go.click(run_job, inputs, [card, *outputs, go, cancel], **JOB_QUEUE, **HIDDEN)
        cancel.click(cancel_job, queue=False, **HIDDEN)

    def check_recording(
        self, file: str | None, references: list[str] | None, model: str, device: str, *settings
    ) -> Updates:
        """The verdict as soon as there is one, then everything that takes longer to draw."""
        if not file:
            raise UserError("no recording has arrived yet: upload or record speech first")
        if len(references or []) > MAX_FILES:
            raise UserError("too many references", f"at most {MAX_FILES} files", len(references))
        yield {widget: message_card("…") for widget in (self.chunks, *self.panels.values())}
        yield {button: self.gr.update(interactive=False) for button in self.exports}
        with held_uploads([file, *(references or [])]) as files:
            for item in self.checker.check(files[:1], model, device, judge_options(*settings), files[1:]):
                if isinstance(item, CheckProgress):
                    yield {self.verdict: progress_card(item)}
            yield {self.verdict: verdict_card(item)}
            yield from self._draw_details(item, files[0].parent)

    def _draw_details(self, checked: CheckedFile, folder: Path) -> Updates:
        """Chunks, figures and exports. The exports are in `folder` until gradio has copied them."""
        if checked.sound:
            yield {self.chunks: chunk_timeline(checked, self._serve_sound(checked.sound))}
            yield {self.panels[name]: panel for name, panel in self._panels(checked).items()}
        else:
            yield {widget: message_card("There is nothing to draw.") for widget in (self.chunks, *self.panels.values())}
        folder = folder / "exports"
        folder.mkdir()
        yield {
            button: self.gr.update(value=path, interactive=True)
            for button, path in zip(
                self.exports, write_exports(checked, folder), strict=False
            )  # only two of a bad file, or if the figure fails
        }

    def _panels(self, checked: CheckedFile) -> dict[str, str]:
        """HTML of each panel; the reason if they cannot be drawn, which takes nothing from the verdict."""
        try:
            return figure_panels(checked)
        except Exception as error:
            return dict.fromkeys(self.panels, error_card(error))

    def _serve_sound(self, sound: Path) -> str:
        """The URL of `sound` for the browser. gradio serves and later removes it like an upload."""
        file = Path(tempfile.mkdtemp(dir=os.environ["GRADIO_TEMP_DIR"])) / "recording.wav"
        write_wav(sound, file)
        self.chunks.temp_files.add(str(file))
        return f"gradio_api/file={file}"

    def compare_models(self, file: str | None, models: list[str], device: str, *settings) -> Updates:
        if not (file and models):
            raise UserError("upload or record speech and choose models first")
        checks, models = [], models[:MAX_COMPARED_MODELS]
        with held_uploads([file] * len(models)) as files:
            for model, path in zip(models, files, strict=True):
                for item in self.checker.check([path], model, device, judge_options(*settings)):
                    if isinstance(item, CheckProgress):
                        progress = CheckProgress(f"{short_label(model)} — {item.text}", item.fraction)
                        yield {self.comparison: progress_card(progress)}
                checks.append((model, item))
        yield {self.comparison: model_comparison(checks)}

    def check_several(self, uploads: list[str] | None, model: str, device: str, *settings) -> Updates:
        if not uploads:
            raise UserError("upload files first")
        checks: list[CheckedFile] = []
        yield {self.table: [], self.histogram: "", self.all_csv: self.gr.update(interactive=False)}
        with held_uploads(uploads[:MAX_FILES]) as files:
            for item in self.checker.check(files, model, device, judge_options(*settings)):
                if isinstance(item, CheckProgress):
                    yield {self.counts: progress_card(item)}
                else:
                    checks.append(item)
                    yield {self.table: [table_row(checked) for checked in checks]}
            path = files[0].parent / "results.csv"
            write_csv(path, [checked.result.to_dict() for checked in checks])
            yield {
                self.counts: verdict_counts(checks),
                self.all_csv: self.gr.update(value=str(path), interactive=True),
            }
            try:
                histogram = score_histogram(checks)
            except Exception as error:  # which takes nothing from the verdicts
                histogram = error_card(error)
            yield {self.histogram: histogram}
