"""The page: its tabs, and what happens when it is opened and closed."""

import asyncio
import threading
from collections.abc import AsyncIterator

from webpage.api import ScoringApi
from webpage.checkpoints import known_here
from webpage.formatting import short_label
from webpage.jobs import FileChecker
from webpage.limits import MAX_QUEUE
from webpage.one_recording import OneRecording
from webpage.several_files import SeveralFiles
from webpage.tasks import HIDDEN
from webpage.upstream import import_gradio, refuse_addresses
from webpage.widgets import STATIC, Widgets

TITLE = "Is this speech genuine? – AASIST"
HEADER = """<header><h1>Is this speech genuine?</h1>
<p>A model listens for the traces that speech synthesis and voice conversion leave.</p></header>"""


class Page:
    """The page. ready: set when the first check will be as quick as every other; until then Check is not free."""

    def __init__(self, checker: FileChecker, model: str, device: str = "auto", keep_seconds: float = 900):
        gr = import_gradio()
        self.gr, self.checker = gr, checker
        self.opened, self.ready = threading.Event(), threading.Event()
        widgets = Widgets(gr, checker.models)
        cleaning = (min(60, keep_seconds), keep_seconds)  # seconds between two cleanings; age of what is removed
        with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=cleaning) as self.blocks:
            widgets.html(HEADER)
            with gr.Tabs() as tabs:
                with gr.Tab("One recording", id="one"):
                    self.one = OneRecording(widgets, checker, model, device, keep_seconds)
                with gr.Tab("Several files"):
                    self.several = SeveralFiles(widgets, checker, self.one.model, self.one.settings)
                with gr.Tab("About"):
                    widgets.html((STATIC / "about.html").read_text(encoding="utf-8"))
            self.several.open_in(tabs, self.one.audio, self.one.task)
            ScoringApi(gr, checker, model)
            compared = self.one.comparison.models
            self.blocks.load(self._refresh_models, outputs=[self.one.model, compared], queue=False, **HIDDEN)
            self.blocks.load(self._wait_until_ready, outputs=self.one.go, concurrency_limit=None, **HIDDEN)

            def close(request: gr.Request) -> None:
                for task in (self.one.task, self.one.comparison.task, self.several.task):
                    task.forget(request.session_hash)

            self.blocks.unload(close)
        self.blocks.queue(max_size=MAX_QUEUE)
        refuse_addresses(self.blocks)

    def _refresh_models(self) -> tuple:
        """Both lists of models, read again when the page is opened; the first says what is known about each."""
        self.checker.models.refresh()
        choices = self.checker.models.choices()
        short = [(short_label(label), label) for _, label in choices]
        usable = [label for label in known_here() if label in {label for _, label in choices}]
        return self.gr.update(choices=choices), self.gr.update(choices=short, value=usable)

    async def _wait_until_ready(self) -> AsyncIterator[dict]:
        self.opened.set()
        if not self.ready.is_set():
            yield self.gr.update(value="Getting ready …")
        while not self.ready.is_set():
            await asyncio.sleep(0.1)
        yield self.gr.update(value="Check", interactive=True)
