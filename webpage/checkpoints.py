"""The checkpoints that visitors may choose: found on the server, described, and loaded when they are first used."""

import sys
from collections import OrderedDict
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from common.errors import UserError
from common.escaping import printable
from common.limited import LimitedProcess
from scoring.detector import Detector
from scoring.engines import GUARDED_MEMORY, GUARDED_SECONDS
from scoring.model_card import ModelCard
from scoring.onnx_files import read_exported
from scoring.weights import KNOWN, checkpoint_path, locate, weights_folder
from webpage.formatting import short_label
from webpage.limits import MAX_LOADED_MODELS

RUNS = Path(__file__).parents[1] / "exp_result"


def find_checkpoints(folders: Sequence[Path]) -> dict[str, str]:
    """Label → checkpoint: the known ones by name, then the files of runs, of models/weights and of `folders`.

    Links that lead out of their folder are skipped.
    """
    patterns = [(RUNS, f"**/weights/{name}.pth") for name in ("best", "swa", "joined")]
    patterns += [(weights_folder(), "*.pth"), (weights_folder(), "*.onnx")]
    patterns += [(folder, pattern) for folder in folders for pattern in ("**/*.pth", "**/*.onnx")]
    found = {name: name for name in KNOWN}
    for root, pattern in patterns:
        for path in sorted(root.glob(pattern)):
            target = path.resolve()
            known = path.stem in KNOWN and path == checkpoint_path(path.stem)
            if target.is_file() and target.is_relative_to(root.resolve()) and not known:
                found.setdefault(f"{root.name}/{path.relative_to(root).as_posix()}", str(target))
    return found


def known_here() -> list[str]:
    """The known checkpoints whose files are on the machine."""
    return [name for name in KNOWN if checkpoint_path(name).is_file()]


@cache
def read_card(path: Path, modified: int) -> tuple[ModelCard, float | None] | Exception:
    """The card of a checkpoint, and its dev EER if it has one; or why it has none, which goes to the server's log.

    modified: when the file was written, so that a file that changes is read again.
    """
    try:
        return _read_card(path)
    except Exception as error:  # whatever one file does, the others stay on offer
        reason = f"{'' if isinstance(error, UserError) else f'{type(error).__name__}: '}{error}"
        print(printable(f"note: not among the models: {path}: {reason}"), file=sys.stderr)
        return error


def _read_card(path: Path) -> tuple[ModelCard, float | None]:
    if path.suffix == ".onnx":
        guarded = LimitedProcess(read_exported, path, facts=("card",), memory=GUARDED_MEMORY, seconds=GUARDED_SECONDS)
        guarded.close()
        return guarded.facts["card"], None
    from utils import load_model

    _, checkpoint = load_model(path)
    return ModelCard.of(checkpoint, path), checkpoint.get("dev_eer")


class ModelShelf:
    """The checkpoints on offer by label, and the few that are loaded."""

    def __init__(self, folders: Sequence[Path]):
        self.folders = folders
        self.checkpoints = find_checkpoints(folders)
        self.loaded: OrderedDict[tuple, Detector] = OrderedDict()  # the least recently used first

    def refresh(self) -> None:
        """Look for checkpoints again."""
        self.checkpoints = find_checkpoints(self.folders)

    def describe(self, label: str) -> str | None:
        """What is known about a checkpoint, in one line; None if it cannot be used."""
        path = self._path(label)
        if not path.is_file():
            return "official checkpoint; downloaded when it is first used"
        found = read_card(path, path.stat().st_mtime_ns)
        if isinstance(found, Exception):
            return None
        card, eer = found
        facts = [f"trained on {card.trained_on}" if card.trained_on else "training data unknown"]
        facts += [f"dev EER {100 * eer:.2f} %"] if eer is not None else []
        facts += ["no threshold: give your own"] if card.threshold is None else []
        return ", ".join(facts)

    def _path(self, label: str) -> Path:
        checkpoint = self.checkpoints.get(label, "")
        return checkpoint_path(checkpoint) if checkpoint in KNOWN else Path(checkpoint)

    def card(self, label: str) -> ModelCard | None:
        """The card of a checkpoint; None if it is not on the machine or cannot be used."""
        path = self._path(label)
        found = read_card(path, path.stat().st_mtime_ns) if path.is_file() else None
        return found[0] if isinstance(found, tuple) else None

    def choices(self) -> list[tuple[str, str]]:
        """(text, label) for a list on the page; reads every checkpoint that is new, and leaves out what is none."""
        facts = {label: self.describe(label) for label in self.checkpoints}
        return [(f"{short_label(label)} — {fact}", label) for label, fact in facts.items() if fact]

    def detector(self, label: str, device: str) -> Detector:
        """The detector of a label, loaded once. Raises UserError."""
        if label not in self.checkpoints:
            raise UserError("no such model on this server", "one of its list", repr(str(label)[:60]))
        path = locate(self.checkpoints[label])
        key = (path, path.stat().st_mtime_ns, device)
        if key not in self.loaded:
            while len(self.loaded) >= MAX_LOADED_MODELS:
                self.loaded.popitem(last=False)
            self.loaded[key] = Detector.from_checkpoint(path, device, "auto")
        self.loaded.move_to_end(key)
        return self.loaded[key]
