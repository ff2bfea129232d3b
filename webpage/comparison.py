"""The tab "Compare models": several models on the recording that is on the page."""

from common.errors import UserError
from webpage.checkpoints import known_here
from webpage.formatting import short_label
from webpage.jobs import CheckProgress, FileChecker, held_uploads
from webpage.limits import MAX_COMPARED_MODELS
from webpage.settings import judge_options
from webpage.tables_html import Outcome, model_comparison
from webpage.tasks import Task, Updates
from webpage.widgets import Widgets


class Comparison:
    """The widgets of the tab, and its job."""

    def __init__(self, widgets: Widgets, checker: FileChecker, audio, settings: list):
        self.checker = checker
        label, most = "Models to compare on the recording above", MAX_COMPARED_MODELS
        several = {"multiselect": True, "max_choices": most, "value": known_here(), "elem_id": "compared"}
        self.models = widgets.gr.Dropdown(widgets.model_labels(), label=label, **several)
        go, cancel = widgets.go_and_cancel("Compare", "compare")
        self.card, self.table = widgets.html("", elem_id="comparing"), widgets.html("", elem_id="comparison")
        inputs = [audio, self.models, *settings]
        self.task = Task(widgets.gr, self.compare, inputs, go, cancel, self.card, [self.table], self._nothing)

    def _nothing(self, *_) -> dict:
        return {self.card: "", self.table: ""}

    def compare(self, file: str | None, models: list[str], device: str, *settings) -> Updates:
        """A row for each model, as soon as it is there; one that fails does so alone."""
        if not (file and models):
            raise UserError("upload or record speech and choose models first")
        options, outcomes, models = judge_options(*settings), [], models[:MAX_COMPARED_MODELS]
        with held_uploads([file] * len(models)) as files:
            for model, path in zip(models, files, strict=True):
                outcome: Outcome = UserError("no result")
                try:
                    for outcome in self.checker.check([path], model, device, options):
                        if isinstance(outcome, CheckProgress):
                            yield CheckProgress(f"{short_label(model)} — {outcome.text}", outcome.fraction)
                except UserError as error:
                    outcome = error
                outcomes.append((model, outcome))
                yield {self.table: model_comparison(outcomes)}
        yield {self.card: ""}
