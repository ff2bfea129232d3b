"""What every kind of data set does: find its labels, read them, find the audio file of each trial.

asvspoof.py and folders.py have the kinds, open.py opens one by its name `KIND:PATH`.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from audio.search import search
from common.errors import UserError
from common.escaping import is_text, printable
from corpora.trials import PARTITIONS, Partition, Trial
from metrics.protocols import read_labels
from metrics.scores import Labels

PARTITION_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("dev", "development", "val", "valid", "validation"), "dev"),
    **dict.fromkeys(("eval", "evaluation", "test", "testing"), "eval"),
}


class DataSet:
    """A data set at `root`: one table of labels for all its partitions, and audio around it.

    `labels` is the file of labels, or the folder that gives them. Raises UserError saying where labels were looked for.
    """

    def __init__(self, root: str | os.PathLike):
        self.root = Path(root)
        if not self.root.exists():
            raise UserError(f"no data set at {self.root}", "its folder as it unpacks (docs/datasets.md)", "nothing")
        self.labels = self.find_labels()

    def find_labels(self) -> Path:
        """Raises UserError naming where they were looked for."""
        raise NotImplementedError

    @property
    def title(self) -> str:
        """The name of results on it."""
        return self.root.resolve().name

    @cached_property
    def table(self) -> Labels:
        """All trials, with NaN scores."""
        return read_labels(self.labels)

    @cached_property
    def rows(self) -> dict[str, np.ndarray]:
        """The rows of the table that each partition has."""
        return partition_rows(self.table, self.labels)

    @property
    def partitions(self) -> tuple[str, ...]:
        return tuple(self.rows)

    def require(self, name: str) -> None:
        """Raises UserError when there is no such partition."""
        if name not in self.partitions:
            raise UserError(f"no {name} partition in {self.root}", " or ".join(self.partitions), name)

    def partition(self, name: str) -> Partition:
        """Raises UserError when there is no such partition, and when its labels cannot be read."""
        self.require(name)
        table = self.table.take(self.rows[name])
        files = self.files(table.utt_id.tolist())
        return make_partition(name, table, files, self.labels, left_out=self.left_out)

    @property
    def left_out(self) -> Mapping[str, Sequence[str]]:
        """Paths in its folder that are no trial, by the reason."""
        return {}

    def files(self, utt_ids: list[str]) -> dict[str, Path]:
        """The audio file of each utterance."""
        return find_audio(utt_ids, [self.labels.parent])


def partition_rows(table: Labels, labels: Path) -> dict[str, np.ndarray]:
    """Rows of each partition by the column `partition` or `split`; without one, all are eval. Raises UserError."""
    column = next((table.groups[name] for name in ("partition", "split") if name in table.groups), None)
    if column is None:
        return {"eval": np.arange(len(table.utt_id))}
    names = np.array([PARTITION_WORDS.get(word.lower(), "") for word in column])
    if (names == "").any():
        row = int(np.argmax(names == ""))
        raise UserError(f"{labels}: unknown partition of {table.utt_id[row]}", "train, dev or eval", repr(column[row]))
    return {name: np.flatnonzero(names == name) for name in PARTITIONS if (names == name).any()}


def make_partition(name: str, table: Labels, files: Mapping[str, Path], source: Path, **more) -> Partition:
    """A partition of a table's trials. Raises UserError for an utterance name that no score file can hold."""
    for utt_id in table.utt_id.tolist():
        if len(utt_id.split()) != 1:
            raise UserError(f"{source}: bad utterance name", "no blanks: they end a name in a score file", utt_id)
        if not is_text(utt_id):
            raise UserError(f"{source}: bad utterance name", "UTF-8, as in score files", printable(utt_id))
    groups = dict(table.groups)
    speakers = [speaker or "-" for speaker in groups.pop("speaker", ["-"] * len(table.utt_id))]
    keys = np.where(table.is_bonafide, "bonafide", "spoof").tolist()
    sources = groups.get("source", [""] * len(speakers))
    columns = zip(table.utt_id.tolist(), speakers, table.attack.tolist(), keys, sources, strict=True)
    return Partition(name, [Trial(*row) for row in columns], files, labels=source, groups=groups, **more)


def find_first(root: Path, places: Sequence[str], what: str, exists: Callable[[Path], bool] = Path.is_file) -> Path:
    """The first of `places` below `root` that exists. Raises UserError naming them all."""
    for place in places:
        if exists(root / place):
            return root / place
    raise UserError(f"no {what} in {root}", " or ".join(places), "none of them")


def find_audio(utt_ids: Iterable[str], folders: Sequence[Path]) -> dict[str, Path]:
    """The file of each utt_id, which is the file's path, name, or name without the extension, tried in this order.

    Lists the folders once; an utterance without a file gets the path where it is expected, so that `Partition.missing`
    names it. Paths in labels are only looked up in this list, so none leads out of the folders. Raises UserError for
    two files of one utterance.
    """
    by_path, by_name, by_stem, twice = {}, {}, {}, {}
    for folder in folders:
        for path in search(folder).files:
            name = os.path.basename(path)
            keys = (os.path.relpath(path, folder), name, os.path.splitext(name)[0])
            for index, key in zip((by_path, by_name, by_stem), keys, strict=True):
                if index.setdefault(key, path) != path:
                    twice[id(index), key] = path
    files = {}
    for utt_id in utt_ids:
        index = next((index for index in (by_path, by_name, by_stem) if utt_id in index), None)
        if index is None:
            files[utt_id] = folders[0] / f"{Path(utt_id).stem}.flac"
        elif (id(index), utt_id) in twice:
            raise UserError(f"two files of {utt_id}", "one", f"{index[utt_id]} and {twice[id(index), utt_id]}")
        else:
            files[utt_id] = Path(index[utt_id])
    return files
