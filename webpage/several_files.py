"""The tab "Several files": up to hundreds of recordings in one table, the worst first."""

import time

from common.errors import UserError
from scoring.results import write_csv
from webpage.cards import message_card
from webpage.jobs import CheckedFile, CheckProgress, FileChecker, held_uploads
from webpage.limits import MAX_FILES
from webpage.settings import judge_options
from webpage.tables_html import files_table, finding_counts
from webpage.tasks import HIDDEN, Task, Updates
from webpage.widgets import Widgets

TABLE_SECONDS = 1.0  # between two tables of a job: hundreds of rows are not worth sending more often
NOTE = "Model and settings are those chosen under One recording. Press a file’s name to open its full result there."


class SeveralFiles:
    """The widgets of the tab, and its job."""

    def __init__(self, widgets: Widgets, checker: FileChecker, model, settings: list):
        self.gr, self.checker = widgets.gr, checker
        label = f"Files of any audio or video format, at most {MAX_FILES}"
        self.uploads = self.gr.File(file_count="multiple", label=label, height=180, elem_id="uploads")
        widgets.html(f'<p class="note">{NOTE}</p>')
        go, cancel = widgets.go_and_cancel("Check all", "check_all")
        self.counts = widgets.html(self._nothing_yet(), elem_id="several")
        self.table = widgets.html("", elem_id="table", js_on_load=widgets.script("rows"))
        self.csv = widgets.download_button("CSV of all", "save_all")
        inputs, outputs = [self.uploads, model, *settings], [self.table, self.csv]
        self.task = Task(self.gr, self.check, inputs, go, cancel, self.counts, outputs, self._nothing)

    @staticmethod
    def _nothing_yet() -> str:
        return message_card("Upload files, then press Check all.")

    def _nothing(self, *_) -> dict:
        no_csv = self.gr.update(value=None, interactive=False)
        return {self.counts: self._nothing_yet(), self.table: "", self.csv: no_csv}

    def open_in(self, tabs, audio, task: Task) -> None:
        """Let each row of the table open its file in the first of `tabs`: in `audio`, with the result of `task`."""
        gr = self.gr

        def open_row(uploads: list[str] | None, chosen: gr.EventData) -> tuple:
            row = getattr(chosen, "row", None)
            if not isinstance(row, int) or not 0 <= row < len(uploads or []):
                raise gr.Error("no such file", print_exception=False)
            return gr.Tabs(selected="one"), uploads[row]

        opened = self.table.click(open_row, self.uploads, [tabs, audio], queue=False, **HIDDEN)
        task.start_on(opened.success)

    def check(self, uploads: list[str] | None, model: str, device: str, *settings) -> Updates:
        if not uploads:
            raise UserError("upload files first")
        checks: list[CheckedFile] = []
        shown = time.monotonic()
        with held_uploads(uploads[:MAX_FILES]) as files:
            for item in self.checker.check(files, model, device, judge_options(*settings)):
                if isinstance(item, CheckProgress):
                    yield item
                    continue
                checks.append(item)
                if time.monotonic() - shown > TABLE_SECONDS:
                    shown = time.monotonic()
                    yield {self.table: files_table(checks)}
            path = files[0].parent / "results.csv"
            write_csv(path, [checked.result.to_dict() for checked in checks])
            yield {
                self.counts: finding_counts(checks),
                self.table: files_table(checks),
                self.csv: self.gr.update(value=str(path), interactive=True),
            }
