"""The model card that travels with weights: their origin, threshold and calibration.

A score means nothing without it. No torch here: an exported model carries its card too, and gives its first score in
less time than torch takes to import.
"""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.schema import parse, require
from metrics.calibration import Calibration
from scoring.weights import KNOWN, KnownCheckpoint

MAX_TEXT = 1000  # letters of each text
MAX_DEV_SCORES = 5_000_000  # of each class
MAX_SLOPE = 1e9  # of a calibration: more would make a probability of nothing


@dataclass(frozen=True)
class ModelCard:
    """The origin of weights and the meaning of their scores; None: not known.

    calibration: maps a score to an LLR. dev_scores: {"bonafide": […], "spoof": […]}, from which any operating point
    follows; dev_scores_of says which trials they are of. unclear_width: for bands that dev scores alone do not give,
    such as one that weights sources alike. error_rates: for example {"all": 0.25, "narrowband": 0.31}.
    """

    name: str  # the official name, or the file's
    sha256: str  # of the checkpoint file
    model_config: dict
    trained_on: str | None = None
    threshold: float | None = None  # scores above it are bona fide
    threshold_source: str = "no threshold is known for these weights; give one with --threshold"
    calibration: Calibration | None = None
    dev_scores: dict[str, list[float]] | None = None
    dev_scores_of: str = "the dev set"
    recoding_spread: float | None = None  # how far mp3, Opus and AAC move a score: see benchmarks/recoding.py
    unclear_width: float | None = None  # of the band around the threshold; None: from the dev scores
    error_rates: dict | None = None  # fraction judged wrongly: "all", and by the names of conditions

    @classmethod
    def of(cls, checkpoint: dict[str, Any], path: str | Path) -> "ModelCard":
        """The card of a checkpoint from `utils.load_model`, which adds `sha256`, and a config to a bare state dict."""
        config = checkpoint["config"]
        name, known = _known_as(checkpoint["sha256"], path)
        fields = {key: checkpoint.get(key) for key in ("threshold", "calibration", "dev_scores")}
        fields["dev_scores_of"] = checkpoint.get("dev_scores_of", cls.dev_scores_of)
        fields |= {key: checkpoint.get(key) for key in ("recoding_spread", "unclear_width", "error_rates")}
        if known and fields["recoding_spread"] is None:
            fields["recoding_spread"] = known.recoding_spread
        if fields["threshold"] is not None:
            found = f"EER point on {fields['dev_scores_of']}"
            fields["threshold_source"] = checkpoint.get("threshold_source", found)
        elif known and known.threshold is not None:
            fields |= {"threshold": known.threshold, "threshold_source": "EER point of the published LA eval scores"}
        identity = {"name": name, "sha256": checkpoint["sha256"], "model_config": config["model_config"]}
        try:
            trained_on = known.trained_on if known else _training_data(config)
            return cls.of_values(identity | fields | {"trained_on": trained_on})
        except UserError as error:
            raise UserError(f"checkpoint {path}: {error}") from error

    @classmethod
    def of_values(cls, values: dict[str, Any]) -> "ModelCard":
        """The card of plain values, from whatever kind of file; dev scores may be tensors.

        Raises UserError when one is missing, of another type, too long or not finite, so that a bad file fails when it
        is read, not when a number is needed.
        """
        scores, calibration = values.get("dev_scores"), values.get("calibration")
        card = parse(cls, values | {"dev_scores": None, "calibration": None})
        texts = (card.name, card.sha256, card.threshold_source, card.dev_scores_of, card.trained_on or "")
        require(all(len(text) <= MAX_TEXT for text in texts), "name or trained_on", f"up to {MAX_TEXT} letters", "more")
        if calibration is not None:
            fits = isinstance(calibration, dict) and calibration.keys() == {"a", "b"}
            fits = fits and all(type(x) in (int, float) and abs(x) <= MAX_SLOPE for x in calibration.values())
            require(fits, "calibration", f"numbers a and b up to {MAX_SLOPE:g}", str(calibration)[:60])
            calibration = Calibration(**calibration)
        for name in ("recoding_spread", "unclear_width"):
            require((getattr(card, name) or 0) >= 0, name, "a number from 0", getattr(card, name))
        for name, rate in (card.error_rates or {}).items():
            fits = isinstance(name, str) and type(rate) in (int, float) and 0 <= rate <= 1
            require(fits, "error_rates", "names of conditions, with fractions", f"{name}: {rate}"[:60])
        if scores is not None:
            require(isinstance(scores, dict), "dev_scores", "bonafide and spoof", str(scores)[:60])
            scores = {key: _finite_numbers(scores.get(key), f"dev_scores.{key}") for key in ("bonafide", "spoof")}
        return replace(card, calibration=calibration, dev_scores=scores)

    def under_name_of(self, path: str | Path) -> "ModelCard":
        """The card of a copy of the weights in `path`, made when that file had another name, or none that was known."""
        name, known = _known_as(self.sha256, path)
        return replace(self, name=name, trained_on=known.trained_on if known else self.trained_on)

    def to_json(self) -> str:
        """One JSON object, for the metadata of an exported model."""
        calibration = self.calibration and self.calibration._asdict()
        return json.dumps(asdict(self) | {"calibration": calibration}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "ModelCard":
        """Raises UserError when `text` is no card."""
        try:
            values = json.loads(text)
            require(isinstance(values, dict), "the card", "a mapping of keys", text[:60])
            return cls.of_values(values)
        except (ValueError, RecursionError, UserError) as error:
            raise UserError("no model card", "JSON as ModelCard.to_json writes", error) from error


def _finite_numbers(values: Any, name: str) -> list[float]:
    """A list, or a tensor on the CPU, as Python's numbers."""
    is_short = hasattr(values, "__len__") and len(values) <= MAX_DEV_SCORES
    with suppress(TypeError, ValueError, RuntimeError):  # of lists in lists, and of types that NumPy lacks
        array = np.asarray(values if is_short else None)
        if array.ndim == 1 and len(array) and array.dtype.kind in "fiu" and np.isfinite(array).all():
            return array.tolist()
    raise UserError(f"bad value of '{name}'", f"1 … {MAX_DEV_SCORES} finite numbers", str(values)[:60])


def _known_as(sha256: str, path: str | Path) -> tuple[str, KnownCheckpoint | None]:
    """The official name of weights and what is known of them, or the file's name."""
    known = ((name, known) for name, known in KNOWN.items() if known.sha256 == sha256)
    return next(known, (Path(path).stem, None))


def _training_data(config: dict[str, Any]) -> str | None:
    """The data sets and the track of a training configuration; None where it is none."""
    if "track" not in config:
        return None
    given = config.get("database_path")
    paths = [given] if isinstance(given, str) else given  # a string in older checkpoints
    fits = isinstance(paths, list) and all(isinstance(path, str) for path in paths)
    require(fits, "database_path", "folders", str(given)[:60])
    return f"{_folder_names(paths)} (track {config['track']})"


def _folder_names(paths: list[str]) -> str:
    """The names of the data sets' folders, from KIND:PATH each or, in older checkpoints, one path."""
    return " + ".join(Path(path.partition(":")[2] or path).name for path in paths)
