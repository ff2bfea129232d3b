"""The tab "One recording": its input on the left, the verdict beside it, everything else below once there is one."""

import os
import tempfile
from pathlib import Path

from common.errors import UserError
from scoring.speaker import is_installed
from webpage.cards import error_card, image, intro_card, message_card
from webpage.chunks_html import chunk_timeline
from webpage.comparison import Comparison
from webpage.examples import EXAMPLES, example
from webpage.exports import EXPORTS, write_exports, write_wav
from webpage.figures import DESCRIPTIONS, recording_pngs
from webpage.jobs import CheckedFile, CheckProgress, FileChecker, held_uploads
from webpage.limits import MAX_FILES
from webpage.settings import add_settings, judge_options
from webpage.tasks import HIDDEN, Task, Updates
from webpage.verdict_html import verdict_card
from webpage.widgets import Widgets

PANELS = {"prediction": "Prediction scores", "waveform": "Waveform", "spectrogram": "Spectrogram"}
EXPORT_NOTE = (
    "JSON and CSV are as inference.py writes them. The report is a PDF of two pages with the hashes of file and model."
)


class OneRecording:
    """The widgets of the tab, and its jobs."""

    def __init__(self, widgets: Widgets, checker: FileChecker, model: str, device: str, keep_seconds: float):
        self.gr, self.widgets, self.checker, self.keep_seconds = widgets.gr, widgets, checker, keep_seconds
        gr = self.gr
        with gr.Row():
            with gr.Column(scale=5, min_width=340):
                self._add_recording_input()
                self.go, cancel = widgets.go_and_cancel("Check", "check", ready=False)
                examples = self._add_examples()
                self._add_settings(model, device)
            with gr.Column(scale=6, min_width=340):
                self.verdict = widgets.html(self._intro(model), elem_id="verdict", js_on_load=widgets.script("player"))
        with gr.Column(visible=False, elem_id="details") as self.details, gr.Tabs():
            self._add_details()
        inputs = [self.audio, self.reference, self.model, *self.settings]
        outputs = [self.details, self.chunks, *self.panels.values(), *self.exports]
        self.task = Task(gr, self.check, inputs, self.go, cancel, self.verdict, outputs, self._nothing)
        for button, name in examples:
            event = button.click(lambda name=name: example(name), outputs=self.audio, queue=False, **HIDDEN)
            self.task.start_on(event.then)

    # ------------------------------------------------------------------------------------------------------- layout

    def _add_recording_input(self) -> None:
        """A drop zone for any file and a recorder; what comes is shown by the recorder, and the drop zone hides."""
        gr = self.gr
        drop = gr.File(label="Audio or video, any format", height=118, elem_id="drop")
        self.audio = gr.Audio(
            sources=["microphone"], type="filepath", label="Recording", elem_id="audio", buttons=[], editable=False
        )
        drop.upload(lambda file: (file, gr.update(value=None)), drop, [self.audio, drop], queue=False, **HIDDEN)
        self.audio.change(lambda file: gr.update(visible=not file), self.audio, drop, queue=False, **HIDDEN)

    def _add_examples(self) -> list[tuple]:
        self.widgets.html('<p class="note">No recording at hand? Try an example:</p>')
        with self.gr.Row(elem_id="examples"):
            return [(self.gr.Button(text, size="sm", min_width=60), name) for name, text in EXAMPLES.items()]

    def _add_settings(self, model: str, device: str) -> None:
        gr = self.gr
        with gr.Accordion("Model and settings", open=False):
            self.model = gr.Dropdown(self.widgets.model_labels(), value=model, label="Model")
            self.settings = add_settings(gr, device, HIDDEN)
        with gr.Accordion("Is it this person? (optional)", open=False, visible=is_installed()):
            label = "Genuine recordings of the speaker, 10 s or more"
            self.reference = gr.File(file_count="multiple", label=label, height=120, elem_id="reference")

    def _add_details(self) -> None:
        gr, widgets, self.panels = self.gr, self.widgets, {}
        for name, title in PANELS.items():
            with gr.Tab(title):
                self.panels[name] = widgets.html("", elem_id=name)
        with gr.Tab("Per-chunk analysis"):
            self.chunks = widgets.html("", elem_id="chunks", js_on_load=widgets.script("player"))
            self.panels["scores"] = widgets.html("", elem_id="scores")
        with gr.Tab("Compare models"):
            self.comparison = Comparison(widgets, self.checker, self.audio, self.settings)
        with gr.Tab("Export"):
            widgets.html(f'<p class="note">{EXPORT_NOTE}</p>')
            with gr.Row():
                self.exports = [widgets.download_button(text, f"save_{kind}") for kind, text in EXPORTS.items()]

    def _intro(self, model: str) -> str:
        return intro_card(self.checker.models.card(model), self.keep_seconds)

    def _nothing(self, audio: str | None, references: list[str] | None, model: str, *settings) -> dict:
        """What the page shows without a result."""
        empty = dict.fromkeys((self.chunks, *self.panels.values()), "")
        no_exports = dict.fromkeys(self.exports, self.gr.update(value=None, interactive=False))
        return {self.verdict: self._intro(model), self.details: self.gr.update(visible=False), **empty, **no_exports}

    # --------------------------------------------------------------------------------------------------------- jobs

    def check(self, file: str | None, references: list[str] | None, model: str, device: str, *settings) -> Updates:
        """The verdict as soon as there is one, then everything that takes longer to draw."""
        if not file:
            raise UserError("no recording has arrived yet: upload or record speech first")
        if len(references or []) > MAX_FILES:
            raise UserError("too many references", f"at most {MAX_FILES} files", len(references))
        with held_uploads([file, *(references or [])]) as files:
            for item in self.checker.check(files[:1], model, device, judge_options(*settings), files[1:]):
                if isinstance(item, CheckProgress):
                    yield item
            address = self._serve_sound(item.sound) if item.sound else None
            yield {
                self.verdict: verdict_card(item, address),
                self.details: self.gr.update(visible=True),
                self.chunks: self._chunks(item, address),
                **dict.fromkeys(self.panels.values(), message_card("Drawing …")),
            }
            yield from self._draw(item, files[0].parent)

    def _chunks(self, checked: CheckedFile, address: str | None) -> str:
        if checked.result.finding == "cannot_say":
            return message_card(f"No scores: {checked.result.reason}")
        return chunk_timeline(checked, address)

    def _draw(self, checked: CheckedFile, folder: Path) -> Updates:
        """Figures and exports. The exports are in `folder` until gradio has copied them."""
        pngs, missing = {}, message_card("Nothing to draw.")
        try:
            pngs = recording_pngs(checked) if checked.sound else {}
        except Exception as error:  # which takes nothing from the verdict
            missing = error_card(error)
        yield {
            widget: image(pngs[name], DESCRIPTIONS[name]) if name in pngs else missing
            for name, widget in self.panels.items()
        }
        folder = folder / "exports"
        folder.mkdir()
        files = write_exports(checked, pngs, folder)  # only two of a bad file, or if the figure fails
        yield {
            button: self.gr.update(value=path, interactive=True)
            for button, path in zip(self.exports, files, strict=False)
        }

    def _serve_sound(self, sound: Path) -> str:
        """The URL of `sound` for the browser. gradio serves and later removes it like an upload."""
        file = Path(tempfile.mkdtemp(dir=os.environ["GRADIO_TEMP_DIR"])) / "recording.wav"
        write_wav(sound, file)
        self.chunks.temp_files.add(str(file))
        return f"gradio_api/file={file}"
