"""The settings that visitors choose, and what they become for `Detector.judge`."""

from common.errors import UserError
from scoring.engine_choice import NVIDIA
from scoring.verdict import AGGREGATES

THRESHOLDS = [("the model's own (dev EER)", "model"), ("target FAR", "far"), ("own", "own")]
PRIOR_INFO = "Changes the probability, if there is one, but never the score"
AGGREGATE_INFO = "mean: one voice, one take; min: a passage may be spliced in"


def add_settings(gr, device: str, hidden_event: dict) -> list:
    """Add the settings to the page: device, then the arguments of `judge_options` in order.

    hidden_event: options of an event that the API does not show.
    """
    kind = gr.Radio(THRESHOLDS, value="model", label="Threshold", info="Scores above it are bona fide")
    far = gr.Number(1, label="Target FAR (%)", info="Percentage of the dev spoofs that pass", visible=False)
    own = gr.Number(0, label="Own threshold", visible=False)
    with gr.Row():
        prior = gr.Slider(0.1, 99.9, 50, step=0.1, label="Expected spoofs (%)", info=PRIOR_INFO)
        aggregate = gr.Dropdown([*AGGREGATES], value="mean", label="Score of several chunks", info=AGGREGATE_INFO)
    devices = [*dict.fromkeys(["auto", "cpu", *(["cuda"] if NVIDIA.exists() else []), device])]
    chosen_device = gr.Radio(devices, value=device, label="Device")

    def show_number(kind: str) -> tuple:
        return gr.update(visible=kind == "far"), gr.update(visible=kind == "own")

    kind.change(show_number, kind, [far, own], queue=False, **hidden_event)
    return [chosen_device, kind, own, far, prior, aggregate]


def judge_options(
    kind: str, own_threshold: float | None, far_percent: float | None, prior_percent: float | None, aggregate: str
) -> dict:
    """Keyword arguments of `Detector.judge`. kind: "model", "far" or "own". Raises UserError."""
    if aggregate not in AGGREGATES:
        raise UserError(
            "no such way to score several chunks", f"one of {', '.join(AGGREGATES)}", repr(str(aggregate)[:60])
        )
    options = {"aggregate": aggregate, "prior_spoof": _in_range("expected spoofs", prior_percent, 0.01, 99.99) / 100}
    if kind == "own":
        options["threshold"] = _in_range("own threshold", own_threshold, -1e9, 1e9)
    elif kind == "far":
        options["target_far"] = _in_range("target FAR", far_percent, 0, 100) / 100
    return options


def _in_range(name: str, value: float | None, low: float, high: float) -> float:
    if not isinstance(value, int | float) or not low <= value <= high:
        raise UserError(name, f"a number from {low:g} to {high:g}", "none" if value is None else repr(value)[:60])
    return float(value)
