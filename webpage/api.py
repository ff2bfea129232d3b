"""`/score` and `/models`: the page for programs, through gradio_client; docs/webpage.md shows how."""

from html import escape

from common.errors import UserError
from webpage.formatting import error_sentence
from webpage.jobs import FileChecker, held_uploads
from webpage.limits import JOB_QUEUE
from webpage.settings import judge_options


class ScoringApi:
    """The two calls, added to the page as invisible buttons."""

    def __init__(self, gr, checker: FileChecker, model: str):
        self.gr, self.checker = gr, checker
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
            score, list_models = gr.Button("score"), gr.Button("models")
        score.click(self.score, inputs, document, api_name="score", **JOB_QUEUE)
        list_models.click(self.list_models, outputs=models, api_name="models")

    def list_models(self) -> dict[str, str]:
        """The labels that `/score` takes, and what is known about each checkpoint."""
        models = self.checker.models
        models.refresh()
        return {label: fact for label in models.checkpoints if (fact := models.describe(label))}

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
            if not file:
                raise UserError("send a file")
            percents = [None if fraction is None else 100 * fraction for fraction in (target_far, prior_spoof)]
            kind = "own" if threshold is not None else "far" if target_far is not None else "model"
            options = judge_options(kind, threshold, *percents, aggregate)
            with held_uploads([file]) as files:
                *_, checked = self.checker.check(files, model, "auto", options)
                return checked.document()
        except UserError as error:
            raise self.gr.Error(escape(error_sentence(error), quote=False), print_exception=False) from None
