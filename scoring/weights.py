"""Checkpoints by name, and the `Card` that makes their scores mean something.

No torch here: a model exported to ONNX carries its card too, and gives its first score before torch would be imported.
"""

import hashlib
import json
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from common.errors import UserError
from common.files import replacing
from metrics.calibration import Calibration

WEIGHTS = Path(__file__).parents[1] / "models" / "weights"  # where official checkpoints and exported models are kept
SOURCE = "https://github.com/clovaai/aasist/raw/main/models/weights"
MAX_BYTES = 16 << 20
SILENT_SECONDS, DOWNLOAD_SECONDS = 20, 600  # how long a server may say nothing, and may take for the whole file


class KnownCheckpoint(NamedTuple):
    """A checkpoint that goes by a name."""

    sha256: str
    trained_on: str
    threshold: float | None = None  # the EER point of the published scores, for a file that has no threshold of its own


_LA = "ASVspoof2019 LA (English, clean, attacks A01–A06)"
OFFICIAL = {  # the authors'
    "AASIST": KnownCheckpoint(
        "51d2d9cf0738172f61e2a384ec50a54a55363240f67c971ed55a92435bc1a1c0", _LA, 1.4934322834014893
    ),
    "AASIST-L": KnownCheckpoint("814331d088032bb4c3fa61cc014789eadeed464209dd094ab3a2dd6ffbdce27a", _LA),
}
BUNDLED = "LCNN-mixed"  # ours, in the repository: docs/model_card.md
_MIXED = "73 minutes, mostly English, of seven sources; vocoders, a neural codec, classical synthesizers and A01–A06"
KNOWN = {
    BUNDLED: KnownCheckpoint("faf0d50a221ead938e1b2c630bda367c9f40cfae3d76dc6bcbdffa06223977a4", _MIXED)
} | OFFICIAL


@dataclass(frozen=True)
class Card:
    """Where weights come from and how to read their scores; None where that is not known.

    `calibration` maps a score to an LLR; any operating point follows from `dev_scores`,
    {"bonafide": […], "spoof": […]}.
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
    def of(cls, checkpoint: dict[str, Any], path: str | Path) -> "Card":
        """The card of a checkpoint as `utils.load_model` gives it: with `sha256`, and a config even if it was bare."""
        config = checkpoint["config"]
        name, known = next(
            ((name, known) for name, known in KNOWN.items() if known.sha256 == checkpoint["sha256"]),
            (Path(path).stem, None),
        )
        corpus = f"{_names(config['database_path'])} (track {config['track']})" if "track" in config else None
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
        """One JSON object, as an exported model's metadata carries it."""
        calibration = self.calibration and self.calibration._asdict()
        return json.dumps(asdict(self) | {"calibration": calibration}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "Card":
        """Raises UserError when `text` is no card."""
        try:
            values = json.loads(text)
            calibration = values["calibration"] and Calibration(**values["calibration"])
            card = cls(**values | {"calibration": calibration})
            card._check_types()
            return card
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise UserError("no model card", "JSON as Card.to_json writes", error) from error

    def _check_types(self) -> None:
        """Raises TypeError or KeyError: what others wrote is not to fail only where a number is needed."""
        texts = (self.name, self.sha256, self.threshold_source, self.trained_on or "")
        scores = [*self.dev_scores["bonafide"], *self.dev_scores["spoof"]] if self.dev_scores else []
        numbers = (self.threshold or 0, *(self.calibration or ()), *scores)
        if not all(isinstance(text, str) for text in texts) or not isinstance(self.model_config, dict):
            raise TypeError("no texts where texts belong")
        if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
            raise TypeError("no finite numbers where numbers belong")


def _names(database_path: str | list[str]) -> str:
    """What the data sets' folders are called; KIND:PATH each, or, in older checkpoints, one path."""
    paths = [database_path] if isinstance(database_path, str) else database_path
    return " + ".join(Path(path.partition(":")[2] or path).name for path in paths)


# ---------------------------------------------------------------------------------------------------- finding weights


def locate(model: str) -> Path:
    """The file that `model` names: a path, the checkpoint in the repository, or an official one, downloaded when it is
    not there yet.

    Raises UserError.
    """
    if Path(model).is_file():
        return Path(model)
    if model in KNOWN:
        if model in OFFICIAL and not checkpoint_path(model).exists():
            _fetch(model)
        return _verified(model)
    found = "a folder" if Path(model).is_dir() else "nothing there"
    raise UserError(f"cannot read checkpoint {model}", f"a file, or one of {', '.join(KNOWN)}", found)


def checkpoint_path(name: str) -> Path:
    """Where the file of a known checkpoint is, or will be."""
    return (weights_folder() if name in OFFICIAL else WEIGHTS) / f"{name}.pth"


def weights_folder() -> Path:
    """Where weights are kept: AASIST_WEIGHTS in the environment, or models/weights of the repository."""
    return Path(os.environ.get("AASIST_WEIGHTS") or WEIGHTS)


def file_sha256(path: str | Path) -> str:
    """Raises UserError when it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read checkpoint {path}: {error.strerror}") from error


def _verified(name: str) -> Path:
    """Raises UserError when the file is not the one that goes by this name."""
    path, expected = checkpoint_path(name), KNOWN[name].sha256
    if (found := file_sha256(path)) != expected:
        origin, again = ("official", "delete it") if name in OFFICIAL else ("shipped", "git checkout restores it")
        raise UserError(f"{path} is not the {origin} {name}; {again}", f"SHA-256 {expected}", found)
    return path


def _fetch(name: str) -> None:
    url, path = f"{(os.environ.get('AASIST_WEIGHTS_URL') or SOURCE).rstrip('/')}/{name}.pth", checkpoint_path(name)
    data, expected = _download(url, path), KNOWN[name].sha256
    if (found := hashlib.sha256(data).hexdigest()) != expected:
        raise UserError(f"{url} is not the official {name}", f"SHA-256 {expected}", found)
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def _download(url: str, path: Path) -> bytes:
    """What `url` holds; `path` is named to whoever has to put it there by hand. Raises UserError."""
    from http.client import HTTPException
    from urllib.request import urlopen

    from tqdm import tqdm

    data, deadline = bytearray(), time.monotonic() + DOWNLOAD_SECONDS
    try:
        with urlopen(url, timeout=SILENT_SECONDS) as response:
            size = int(response.headers.get("Content-Length") or 0) or None
            with tqdm(total=size, desc=path.name, unit="B", unit_scale=True, disable=None) as bar:
                while block := response.read1(1 << 16):
                    data += block
                    bar.update(len(block))
                    if len(data) > MAX_BYTES:
                        raise UserError(f"{url} is no checkpoint", f"at most {MAX_BYTES} bytes", "more")
                    if time.monotonic() > deadline:
                        raise TimeoutError(f"not done in {DOWNLOAD_SECONDS} s")
    except (OSError, HTTPException, ValueError) as error:
        raise UserError(f"cannot download {url} ({error}); get it by other means and put it at {path}") from error
    return bytes(data)
