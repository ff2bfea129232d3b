"""The kinds of widgets that several parts of the page use."""

from functools import cache
from pathlib import Path

from webpage.checkpoints import ModelShelf
from webpage.formatting import short_label

STATIC = Path(__file__).parent  # page.css, about.html, intro.html, player.js, rows.js


class Widgets:
    """gr: the package gradio, imported when a page is made because that takes seconds."""

    def __init__(self, gr, models: ModelShelf):
        self.gr, self.models = gr, models

    def html(self, value: str, **options):
        return self.gr.HTML(value, apply_default_css=False, **options)

    @staticmethod
    @cache
    def script(name: str) -> str:
        return (STATIC / f"{name}.js").read_text(encoding="utf-8")

    def go_and_cancel(self, text: str, name: str, ready: bool = True) -> tuple:
        with self.gr.Row():
            go = self.gr.Button(text, variant="primary", elem_id=name, interactive=ready)
            return go, self.gr.Button("Cancel", visible=False, elem_id=f"cancel_{name}")

    def download_button(self, text: str, name: str):
        return self.gr.DownloadButton(text, interactive=False, elem_id=name)

    def model_labels(self) -> list[tuple[str, str]]:
        return [(short_label(label), label) for label in self.models.checkpoints]
