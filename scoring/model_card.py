"""The model card that travels with weights: their origin, threshold and calibration.

A score means nothing without it. No torch here: an exported model carries its card too, and gives its first score in
less time than torch takes to import.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from metrics.calibration import Calibration
from scoring.weights import KNOWN


@dataclass(frozen=True)
class ModelCard:
    """The origin of weights and the meaning of their scores; None: not known.

    calibration: maps a score to an LLR. dev_scores: {"bonafide": […], "spoof": […]}, from which any operating point
    follows.
    """

    name: str  # the official name, or the file's
    sha256: str  # of the checkpoint file
    model_config: dict
    trained_on: str | None = None
    threshold: float | None = None  # scores above it are bona fide
    threshold_source: str = "none known for these weights; give one with --threshold"
    calibration: Calibration | None = None
    dev_scores: dict[str, list[float]] | None = None

    @classmethod
    def of(cls, checkpoint: dict[str, Any], path: str | Path) -> "ModelCard":
        """The card of a checkpoint from `utils.load_model`, which adds `sha256`, and a config to a bare state dict."""
        config = checkpoint["config"]
        name, known = next(
            ((name, known) for name, known in KNOWN.items() if known.sha256 == checkpoint["sha256"]),
            (Path(path).stem, None),
        )
        corpus = f"{_folder_names(config['database_path'])} (track {config['track']})" if "track" in config else None
        fields = {key: checkpoint.get(key) for key in ("threshold", "calibration", "dev_scores")}
        if fields["threshold"] is not None:
            fields["threshold_source"] = "EER point on the dev set"
        elif known and known.threshold is not None:
            fields |= {"threshold": known.threshold, "threshold_source": "EER point of the published LA eval scores"}
        if fields["calibration"] is not None:
            fields["calibration"] = Calibration(**fields["calibration"])
        if fields["dev_scores"] is not None:
            fields["dev_scores"] = {key: scores.tolist() for key, scores in fields["dev_scores"].items()}
        identity = {"sha256": checkpoint["sha256"], "model_config": config["model_config"]}
        return cls(name, trained_on=known.trained_on if known else corpus, **identity, **fields)

    def to_json(self) -> str:
        """One JSON object, for the metadata of an exported model."""
        calibration = self.calibration and self.calibration._asdict()
        return json.dumps(asdict(self) | {"calibration": calibration}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "ModelCard":
        """Raises UserError when `text` is no card."""
        try:
            values = json.loads(text)
            calibration = values["calibration"] and Calibration(**values["calibration"])
            card = cls(**values | {"calibration": calibration})
            card._check_types()
            return card
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise UserError("no model card", "JSON as ModelCard.to_json writes", error) from error

    def _check_types(self) -> None:
        """Raises TypeError or KeyError, so that a bad file fails when it is read, not when a number is needed."""
        texts = (self.name, self.sha256, self.threshold_source, self.trained_on or "")
        scores = [*self.dev_scores["bonafide"], *self.dev_scores["spoof"]] if self.dev_scores else []
        numbers = (self.threshold or 0, *(self.calibration or ()), *scores)
        if not all(isinstance(text, str) for text in texts) or not isinstance(self.model_config, dict):
            raise TypeError("a value that should be text is not")
        if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
            raise TypeError("a value that should be a finite number is not")


def _folder_names(database_path: str | list[str]) -> str:
    """The names of the data sets' folders, from KIND:PATH each or, in older checkpoints, one path."""
    paths = [database_path] if isinstance(database_path, str) else database_path
    return " + ".join(Path(path.partition(":")[2] or path).name for path in paths)
