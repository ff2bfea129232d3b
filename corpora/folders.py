"""Data sets in plain folders and lists: In-the-Wild, WaveFake, labelled folders, folders of classes, CSV lists.

InTheWild("/data/release_in_the_wild").partition("eval")
open_folder(Path("/data/for-norm")).partition("train")    # a file of labels, or folders bonafide/ and spoof/
CsvList("/data/mine.csv").partition("dev")
"""

import os
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from audio.reading import ENDINGS
from audio.search import FoundAudio, search
from common.errors import UserError
from corpora.data_set import PARTITION_WORDS, DataSet, find_first
from metrics.scores import KEYS, Labels

LABEL_FILES = ("labels.txt", "protocol.txt", "meta.csv", "labels.csv", "protocol.csv", "metadata.csv")

# ------------------------------------------------------------------------------------------------- a file of labels


class InTheWild(DataSet):
    """In-the-Wild: meta.csv (file,speaker,label) beside its audio."""

    title = "in_the_wild"

    def find_labels(self) -> Path:
        return find_first(self.root, ("meta.csv", "release_in_the_wild/meta.csv"), "In-the-Wild labels")


class LabelledFolder(DataSet):
    """A folder with a file of labels, and audio anywhere in it."""

    def find_labels(self) -> Path:
        return find_first(self.root, LABEL_FILES, "labels")


class CsvList(DataSet):
    """A user's list `path,label[,speaker,attack,partition]`; a path is absolute, or relative to the list's folder."""

    @property
    def title(self) -> str:
        return self.root.resolve().stem

    def find_labels(self) -> Path:
        if not self.root.is_file():
            raise UserError(f"{self.root} is no CSV file", "a file with the columns path,label", "a folder")
        return self.root

    def files(self, utt_ids: list[str]) -> dict[str, Path]:
        owner: dict[str, str] = {}
        for utt_id in utt_ids:
            if (other := owner.setdefault(os.path.normpath(utt_id), utt_id)) != utt_id:
                raise UserError(f"{self.root}: one file is listed twice", "each once", f"{other} and {utt_id}")
        return {utt_id: self.root.parent / utt_id for utt_id in utt_ids}


# ----------------------------------------------------------------------------------------------- folders of classes


class ClassFolder(NamedTuple):
    """A folder whose audio is all of one class and attack."""

    folder: Path
    is_bonafide: bool
    attack: str = "-"
    partition: str = "eval"


class ClassFolders(DataSet):
    """Audio in folders bonafide/ and spoof/, or in these in training/, validation/ …; utt_ids are paths from `root`."""

    def __init__(self, root: str | os.PathLike):
        super().__init__(root)
        self.class_folders = self.find_class_folders()

    def find_labels(self) -> Path:
        return self.root

    def find_class_folders(self) -> list[ClassFolder]:
        """Raises UserError when there is none."""
        parts = [("eval", self.root)]
        parts += [(PARTITION_WORDS.get(folder.name.lower()), folder) for folder in _subfolders(self.root)]
        found = [
            ClassFolder(folder, KEYS[folder.name.lower()], partition=name)
            for name, part in parts
            for folder in (_subfolders(part) if name else ())
            if folder.name.lower() in KEYS
        ]
        if not found:
            expected = f"{', '.join(LABEL_FILES)}, or folders bonafide/ and spoof/ with audio"
            raise UserError(f"no labels in {self.root}", expected, "none of them")
        return found

    @cached_property
    def table(self) -> Labels:
        parts = {os.path.join(part.folder, ""): [] for part in self.class_folders}
        for path in self.found.files:
            if folder := next(filter(path.startswith, parts), None):
                parts[folder].append(path)
        found = [(part, path) for part, paths in zip(self.class_folders, parts.values(), strict=True) for path in paths]
        if not found:
            endings = " ".join(sorted(ENDINGS))
            raise UserError(f"no audio in the folders of {self.root}", f"files {endings}", "none")
        utt_ids = [Path(path).relative_to(self.root).as_posix() for _, path in found]
        columns = (np.array([getattr(part, name) for part, _ in found]) for name in ("is_bonafide", "attack"))
        groups = {"partition": np.array([part.partition for part, _ in found], dtype=object)}
        return Labels(utt_ids, *columns, groups)

    @cached_property
    def found(self) -> FoundAudio:
        """All paths below `root`."""
        return search(self.root)

    @cached_property
    def left_out(self) -> Mapping[str, Sequence[str]]:
        listed = {str(self.root / utt_id) for utt_id in self.table.utt_id.tolist()}
        others = [path for path in self.found.files if path not in listed]
        return self.found.left_out | ({"in no folder of a class": others} if others else {})

    def files(self, utt_ids: list[str]) -> dict[str, Path]:
        return {utt_id: self.root / utt_id for utt_id in utt_ids}


class WaveFake(ClassFolders):
    """WaveFake's generated_audio/, each folder an attack, beside the bona fide LJSpeech-1.1/ and jsut_ver1.1/."""

    title = "wavefake"

    def find_class_folders(self) -> list[ClassFolder]:
        spoof = [ClassFolder(path, False, path.name) for path in _subfolders(self.root / "generated_audio")]
        human = [path for path in _subfolders(self.root) if re.match("(?i)ljspeech|jsut", path.name)]
        if not spoof or not human:
            expected = "generated_audio/*/, and LJSpeech-1.1/ or jsut_ver1.1/"
            found = f"{len(spoof)} folders of spoof, {len(human)} of bona fide speech"
            raise UserError(f"no WaveFake in {self.root}", expected, found)
        return spoof + [ClassFolder(path, True) for path in human]


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def open_folder(root: Path) -> LabelledFolder | ClassFolders:
    """A folder whose file of labels gives the keys, or without one the names of its subfolders. Raises UserError."""
    listed = any((root / file).is_file() for file in LABEL_FILES)
    return LabelledFolder(root) if listed else ClassFolders(root)
