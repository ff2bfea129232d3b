"""Data sets as their archives unpack → partitions: trials, and the audio file of each.

    open_corpus("/data/LA").partition("train")             # ASVspoof2019 LA, the default
    open_corpus("asvspoof5:/data/ASVspoof5").partition("dev")
    gather(["/data/LA", "csv:/data/mine.csv"], "LA", "train")  # several together

A data set is named `KIND:PATH`; docs/datasets.md says what each kind's folder looks like.
"""

import os
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from audio import reading
from audio.vocoders import vocode
from common.errors import UserError
from corpora import packed
from metrics.protocols import read_trials
from metrics.score_files import read_asv_scores, read_asv_scores_2021
from metrics.scores import BONAFIDE, KEYS, SPOOF, Scores
from metrics.tandem import AsvScores

PARTITIONS = ("train", "dev", "eval")
OFFICIAL_COUNTS = {
    "LA": {"train": 25_380, "dev": 24_844, "eval": 71_237},
    "PA": {"train": 54_000, "dev": 29_700, "eval": 134_730},
}
COUNTS_2021 = {"LA": {"eval": 148_176, "all": 181_566}, "DF": {"eval": 533_928, "all": 611_829}, "PA": {"all": 943_110}}
COUNTS_5 = {"train": 182_357, "dev": 140_950, "eval": 680_774}
REPORTED_SUBSET = "eval"  # of ASVspoof 2021's rows, the ones that papers report
PARTITION_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("dev", "development", "val", "valid", "validation"), "dev"),
    **dict.fromkeys(("eval", "evaluation", "test", "testing"), "eval"),
}
LABEL_FILES = ("labels.txt", "protocol.txt", "meta.csv", "labels.csv", "protocol.csv", "metadata.csv")
MAX_NAMED = 5  # names that an error spells out


class Trial(NamedTuple):
    """One utterance and its key, `bonafide` (attack `-`) or `spoof`; `source` is where it was recorded, if known."""

    utt_id: str
    speaker: str
    attack: str
    key: str
    source: str = ""

    @property
    def label(self) -> int:
        return BONAFIDE if self.key == "bonafide" else SPOOF


@dataclass(frozen=True)
class Partition:
    """Trials of one partition and the audio file of each utt_id, in the same order.

    With `pack` their samples come from there; with `on_device` too, crops are cut from that copy of `pack.samples`.
    The last trials may be copies of others by a vocoder, which have no file of their own.
    """

    name: str
    trials: list[Trial]
    files: Mapping[str, Path]
    official_count: int | None = None  # trials that the published partition has
    asv: Path | None = None  # the organisers' ASV scores of these trials, if published; a folder in ASVspoof 2021
    labels: Path | None = None  # where the keys are from
    groups: Mapping[str, np.ndarray] = field(default_factory=dict)  # further columns (N,) str: codec, subset, …
    pack: packed.Packed | None = None
    on_device: torch.Tensor | None = None  # (N,) int16
    copies: Mapping[str, Path] = field(default_factory=dict)  # utt_id of each copy and what it is made of
    copies_pack: packed.Packed | None = None

    def with_vocoded(self, vocoders: Sequence[str]) -> "Partition":
        """Also a spoof of each bona fide trial by each vocoder, `<utt_id>~<vocoder>`; the vocoder is its attack."""
        pairs = [(trial, vocoder) for vocoder in vocoders for trial in self.trials if trial.label == BONAFIDE]
        added = [t._replace(utt_id=f"{t.utt_id}~{name}", attack=name, key="spoof") for t, name in pairs]
        copies = {copy.utt_id: self.path(trial) for copy, (trial, _) in zip(added, pairs, strict=True)}
        return replace(self, trials=self.trials + added, copies=copies, groups={})

    def take(self, rows: np.ndarray) -> "Partition":
        """These trials (indices or a mask) only, of a partition as `DataSet.partition` gives it."""
        trials = [self.trials[row] for row in np.arange(len(self.trials))[rows]]
        files = {trial.utt_id: self.path(trial) for trial in trials}
        groups = {name: column[rows] for name, column in self.groups.items()}
        return replace(self, trials=trials, files=files, groups=groups, official_count=None)

    def is_bonafide(self) -> np.ndarray:
        """(N,) bool."""
        return np.array([trial.label == BONAFIDE for trial in self.trials])

    def path(self, trial: Trial) -> Path:
        return self.files[trial.utt_id]

    def waveform(self, index: int) -> np.ndarray:
        """Trial `index`: samples (n,) at 16 kHz, int16 from a pack or a vocoder, else float32 from its file.

        Raises UserError.
        """
        utt_id, copy = self.trials[index].utt_id, index - (len(self.trials) - len(self.copies))
        if copy < 0:
            return reading.read(self.files[utt_id]) if self.pack is None else self.pack[index]
        return copy_int16(utt_id, self.copies[utt_id])[0] if self.copies_pack is None else self.copies_pack[copy]

    def missing(self) -> list[str]:
        """utt_ids without a file; folders are listed, as asking 71,237 times takes minutes on a network disk."""
        there = {folder: set(os.listdir(folder)) for folder in self.folders() if folder.is_dir()}
        return [utt_id for utt_id, path in self.files.items() if path.name not in there.get(path.parent, ())]

    def folders(self) -> set[Path]:
        return {path.parent for path in self.files.values()}

    def asv_scores(self) -> AsvScores | None:
        """The organisers' ASV scores; None where there is no such file. Raises UserError when it is not sound."""
        if not self.asv or not self.asv.exists():
            return None
        return read_asv_scores_2021(self.asv, REPORTED_SUBSET) if self.asv.is_dir() else read_asv_scores(self.asv)


def copy_int16(utt_id: str, file: Path) -> tuple[np.ndarray, bool]:
    """What `packed.load` keeps of a copy: the file's samples by the vocoder that its utt_id ends in, (n,) int16."""
    rng = np.random.default_rng(zlib.crc32(utt_id.encode()))
    return packed.to_int16(vocode(utt_id.rpartition("~")[2], reading.read(file), rng) * packed.FULL_SCALE), True


# ------------------------------------------------------------------------------------------------ labels and files


def _first(root: Path, places: Sequence[str], what: str, exists: Callable[[Path], bool] = Path.is_file) -> Path:
    """The first of `places` below `root` that exists. Raises UserError naming them all."""
    for place in places:
        if exists(root / place):
            return root / place
    raise UserError(f"no {what} in {root}", " or ".join(places), "none of them")


def _audio_below(folder: Path) -> Iterator[str]:
    """Paths of all audio files in the folder and its subfolders."""
    for parent, _, names in os.walk(folder):
        yield from (
            os.path.join(parent, name) for name in names if os.path.splitext(name)[1].lower() in reading.ENDINGS
        )


def _files(utt_ids: Iterable[str], folders: Sequence[Path]) -> dict[str, Path]:
    """The file of each utt_id, which is its path, its name or its name without the extension, in this order.

    Folders are listed once; what is not in them gets the path where it is expected, for `Partition.missing`. A path
    that labels name is only looked up here, so none leads out of the folders. Raises UserError for two files of one
    utterance.
    """
    by_path, by_name, by_stem, twice = {}, {}, {}, {}
    for folder in folders:
        for path in _audio_below(folder):
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


def _rows(table: Scores, labels: Path) -> dict[str, np.ndarray]:
    """Rows of each partition, by the column `partition` or `split`; without one all are eval. Raises UserError."""
    column = next((table.groups[name] for name in ("partition", "split") if name in table.groups), None)
    if column is None:
        return {"eval": np.arange(len(table.utt_id))}
    names = np.array([PARTITION_WORDS.get(word.lower(), "") for word in column])
    if (names == "").any():
        row = int(np.argmax(names == ""))
        raise UserError(f"{labels}: unknown partition of {table.utt_id[row]}", "train, dev or eval", repr(column[row]))
    return {name: np.flatnonzero(names == name) for name in PARTITIONS if (names == name).any()}


def _partition(name: str, table: Scores, files: Mapping[str, Path], labels: Path, **more) -> Partition:
    """Raises UserError for a name that no score file can hold."""
    if blank := [utt_id for utt_id in table.utt_id.tolist() if len(utt_id.split()) != 1]:
        raise UserError(f"{labels}: bad utterance name", "no blanks, which end a name in a score file", blank[0])
    groups = dict(table.groups)
    speakers = [speaker or "-" for speaker in groups.pop("speaker", ["-"] * len(table.utt_id))]
    keys = np.where(table.is_bonafide, "bonafide", "spoof").tolist()
    columns = zip(table.utt_id.tolist(), speakers, table.attack.tolist(), keys, strict=True)
    return Partition(name, [Trial(*row) for row in columns], files, labels=labels, groups=groups, **more)


@dataclass(frozen=True)
class DataSet:
    """A data set at `root`: one table of labels for all its partitions, and audio around it.

    To make one is to find its labels. Raises UserError saying where they were looked for.
    """

    root: Path

    def __post_init__(self):
        object.__setattr__(self, "root", Path(self.root))
        if not self.root.exists():
            raise UserError(f"no data set at {self.root}", "its folder as it unpacks (docs/datasets.md)", "nothing")
        _ = self.labels

    @property
    def title(self) -> str:
        """What results on it are called."""
        return self.root.resolve().stem

    @property
    def labels(self) -> Path:
        raise NotImplementedError

    @cached_property
    def table(self) -> Scores:
        return read_trials(self.labels)

    @cached_property
    def rows(self) -> dict[str, np.ndarray]:
        """Which of the table's rows each partition has."""
        return _rows(self.table, self.labels)

    @property
    def partitions(self) -> tuple[str, ...]:
        return tuple(self.rows)

    def require(self, name: str) -> None:
        """Raises UserError when there is no such partition."""
        if name not in self.partitions:
            raise UserError(f"no {name} partition in {self.root}", " or ".join(self.partitions), name)

    def partition(self, name: str) -> Partition:
        """Raises UserError when there is none of that name, and for labels that cannot be read."""
        self.require(name)
        table = self.table.take(self.rows[name])
        return _partition(name, table, self.files(table.utt_id.tolist()), self.labels)

    def files(self, utt_ids: list[str]) -> dict[str, Path]:
        """The audio file of each."""
        return _files(utt_ids, [self.labels.parent])


# ------------------------------------------------------------------------------------------------- ASVspoof2019


def read_protocol(path: str | os.PathLike) -> list[Trial]:
    """Trials in the order of a 5-column ASVspoof2019 protocol. Raises UserError naming the line at fault."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"cannot read protocol {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"protocol {path} is not text: {error}") from error
    trials = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        trial = _parse_trial(line.split(), f"{path}, line {number}")
        if trial.utt_id in trials:
            raise UserError(f"{path}, line {number}: utterance {trial.utt_id} stands twice", "each once")
        trials[trial.utt_id] = trial
    if not trials:
        raise UserError(f"protocol {path} is empty", "at least one trial", "none")
    return list(trials.values())


def _parse_trial(columns: list[str], where: str) -> Trial:
    if len(columns) != 5:
        raise UserError(where, "5 columns (speaker utt_id - attack key)", len(columns))
    speaker, utt_id, _, attack, key = columns
    if key not in ("bonafide", "spoof"):
        raise UserError(where, "key bonafide or spoof", repr(key))
    if (attack == "-") != (key == "bonafide"):
        raise UserError(where, "attack '-' for bonafide, a name for spoof", f"{attack!r} with {key}")
    if Path(utt_id).name != utt_id:
        raise UserError(where, "an utt_id without slashes", repr(utt_id))
    source, underscore, _ = speaker.partition("_")  # LA_0079
    return Trial(utt_id, speaker, attack, key, source if underscore else "")


@dataclass(frozen=True)
class Corpus(DataSet):
    """ASVspoof2019 exactly as its archive unpacks, at `root` or in its folder LA or PA; `track` is LA or PA."""

    track: str = "LA"

    partitions = PARTITIONS

    @property
    def title(self) -> str:
        return "asvspoof2019" if self.track == "LA" else "asvspoof2019_pa"

    @cached_property
    def labels(self) -> Path:
        """The folder of protocols."""
        folder = f"ASVspoof2019_{self.track}_cm_protocols"
        places = (folder, f"{self.track}/{folder}")
        return _first(self.root, places, f"ASVspoof 2019 {self.track} protocols", Path.is_dir)

    def protocol(self, partition: str) -> Path:
        kind = "trn" if partition == "train" else "trl"
        return self.labels / f"ASVspoof2019.{self.track}.cm.{partition}.{kind}.txt"

    def partition(self, name: str) -> Partition:
        self.require(name)
        protocol, unpacked = self.protocol(name), self.labels.parent
        trials = read_protocol(protocol)
        flac = unpacked / f"ASVspoof2019_{self.track}_{name}" / "flac"
        files = {trial.utt_id: flac / f"{trial.utt_id}.flac" for trial in trials}
        scores = f"ASVspoof2019.{self.track}.asv.{name}.gi.trl.scores.txt"
        asv = None if name == "train" else unpacked / f"ASVspoof2019_{self.track}_asv_scores" / scores
        return Partition(name, trials, files, OFFICIAL_COUNTS[self.track][name], asv, protocol)


# ------------------------------------------------------------------------------------------------------ other kinds


@dataclass(frozen=True)
class ASVspoof2021(DataSet):
    """ASVspoof 2021 LA, DF or PA with the organisers' key files; the partition `all` has the rows of every subset."""

    track: str = "LA"

    @property
    def title(self) -> str:
        return f"asvspoof2021_{self.track.lower()}"

    @property
    def _audio(self) -> str:
        return f"ASVspoof2021_{self.track}_eval"

    @cached_property
    def labels(self) -> Path:
        full = f"{self.track}-keys-full/keys"
        keys = ("keys", full, f"{self._audio}/keys", "../keys", f"../{full}")
        places = [f"{place}/{self.track}/CM/trial_metadata.txt" for place in keys]
        return _first(self.root, places, f"ASVspoof 2021 {self.track} keys")

    @cached_property
    def rows(self) -> dict[str, np.ndarray]:
        subset = self.table.group("subset")
        reported = np.flatnonzero(subset == REPORTED_SUBSET)
        return ({"eval": reported} if len(reported) else {}) | {"all": np.arange(len(subset))}

    def partition(self, name: str) -> Partition:
        asv = self.labels.parents[1] / "ASV"
        known = self.track != "PA" and (asv / "ASVTorch_Kaldi" / "score.txt").exists()  # PA's trials have other columns
        count = COUNTS_2021[self.track].get(name)
        return replace(super().partition(name), official_count=count, asv=asv if known else None)

    def files(self, utt_ids: list[str]) -> dict[str, Path]:
        places = ("flac", f"{self._audio}*/flac", f"{self._audio}*/{self._audio}/flac")
        folders = sorted(path for place in places for path in self.root.glob(place))
        return _files(utt_ids, folders or [self.root / self._audio / "flac"])


# Of each partition of ASVspoof 5: protocol, audio folder, and what its folders are called where parts lie apart.
FILES_5 = {
    "train": ("ASVspoof5.train.tsv", "flac_T", "flac_T*"),
    "dev": ("ASVspoof5.dev.track_1.tsv", "flac_D", "flac_D*"),
    "eval": ("ASVspoof5.eval.track_1.tsv", "flac_E_eval", "flac_E*"),
}


@dataclass(frozen=True)
class ASVspoof5(DataSet):
    """ASVspoof 5, track 1; each part of its archive may be unpacked where it lies: flac_T_aa/flac_T/."""

    title = "asvspoof5"
    partitions = PARTITIONS

    @cached_property
    def labels(self) -> Path:
        """Of the first partition that is there."""
        return self._protocol([protocol for protocol, *_ in FILES_5.values()])

    def _protocol(self, names: Sequence[str]) -> Path:
        places = [f"{folder}{name}" for name in names for folder in ("", "ASVspoof5_protocols/")]
        return _first(self.root, places, "ASVspoof 5 protocol")

    def partition(self, name: str) -> Partition:
        self.require(name)
        protocol, audio_folder, parts = FILES_5[name]
        labels = self._protocol([protocol])
        table = read_trials(labels)
        folders = sorted(path for path in self.root.glob(parts) if path.is_dir())
        files = _files(table.utt_id.tolist(), folders or [self.root / audio_folder])
        return _partition(name, table, files, labels, official_count=COUNTS_5[name])


@dataclass(frozen=True)
class InTheWild(DataSet):
    """In-the-Wild: meta.csv (file,speaker,label) beside its audio."""

    title = "in_the_wild"

    @cached_property
    def labels(self) -> Path:
        return _first(self.root, ("meta.csv", "release_in_the_wild/meta.csv"), "In-the-Wild labels")


@dataclass(frozen=True)
class Labelled(DataSet):
    """A folder with a file of labels, and audio anywhere in it."""

    @property
    def title(self) -> str:
        return self.root.resolve().name

    @cached_property
    def labels(self) -> Path:
        return _first(self.root, LABEL_FILES, "labels")


@dataclass(frozen=True)
class Csv(DataSet):
    """One's own list, `path,label[,speaker,attack,partition]`: a path is absolute, or from the list's folder."""

    @property
    def labels(self) -> Path:
        if not self.root.is_file():
            raise UserError(f"{self.root} is no CSV file", "a file with the columns path,label", "a folder")
        return self.root

    def files(self, utt_ids: list[str]) -> dict[str, Path]:
        owner: dict[str, str] = {}
        for utt_id in utt_ids:
            if (other := owner.setdefault(os.path.normpath(utt_id), utt_id)) != utt_id:
                raise UserError(f"{self.root}: one file stands twice", "each once", f"{other} and {utt_id}")
        return {utt_id: self.root.parent / utt_id for utt_id in utt_ids}


class Place(NamedTuple):
    """A folder whose audio is all of one kind."""

    folder: Path
    is_bonafide: bool
    attack: str = "-"
    partition: str = "eval"


@dataclass(frozen=True)
class Sorted(DataSet):
    """Audio in folders bonafide/ and spoof/, or in these in training/, validation/ …; utt_ids are paths from `root`."""

    @property
    def title(self) -> str:
        return self.root.resolve().name

    @property
    def labels(self) -> Path:
        _ = self.places
        return self.root

    @cached_property
    def places(self) -> list[Place]:
        parts = [("eval", self.root)]
        parts += [(PARTITION_WORDS.get(folder.name.lower()), folder) for folder in _subfolders(self.root)]
        found = [
            Place(folder, KEYS[folder.name.lower()], partition=name)
            for name, part in parts
            for folder in (_subfolders(part) if name else ())
            if folder.name.lower() in KEYS
        ]
        if not found:
            expected = f"{', '.join(LABEL_FILES)}, or folders bonafide/ and spoof/ with audio"
            raise UserError(f"no labels in {self.root}", expected, "none of them")
        return found

    @cached_property
    def table(self) -> Scores:
        found = [(place, path) for place in self.places for path in sorted(_audio_below(place.folder))]
        if not found:
            endings = " ".join(sorted(reading.ENDINGS))
            raise UserError(f"no audio in the folders of {self.root}", f"files {endings}", "none")
        utt_ids = [Path(path).relative_to(self.root).as_posix() for _, path in found]
        columns = (np.array([getattr(place, name) for place, _ in found]) for name in ("is_bonafide", "attack"))
        groups = {"partition": np.array([place.partition for place, _ in found], dtype=object)}
        return Scores(utt_ids, np.full(len(found), np.nan), *columns, groups)

    def files(self, utt_ids: list[str]) -> dict[str, Path]:
        return {utt_id: self.root / utt_id for utt_id in utt_ids}


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def open_folder(root: Path) -> DataSet:
    """Where a file of labels is there, it counts; else the folders' names do. Raises UserError."""
    listed = any((root / file).is_file() for file in LABEL_FILES)
    return Labelled(root) if listed else Sorted(root)


@dataclass(frozen=True)
class WaveFake(Sorted):
    """WaveFake's generated_audio/, each folder an attack, beside the bona fide LJSpeech-1.1/ and jsut_ver1.1/."""

    title = "wavefake"

    @cached_property
    def places(self) -> list[Place]:
        spoof = [Place(folder, False, folder.name) for folder in _subfolders(self.root / "generated_audio")]
        bonafide = [Place(path, True) for path in _subfolders(self.root) if re.match("(?i)ljspeech|jsut", path.name)]
        if not spoof or not bonafide:
            expected = "generated_audio/*/, and LJSpeech-1.1/ or jsut_ver1.1/"
            found = f"{len(spoof)} folders of spoof, {len(bonafide)} of bona fide speech"
            raise UserError(f"no WaveFake in {self.root}", expected, found)
        return spoof + bonafide


# --------------------------------------------------------------------------------------------------- any data set

KINDS: dict[str, Callable[[Path], DataSet]] = {
    "2019": Corpus,
    "2019PA": partial(Corpus, track="PA"),
    "2021": ASVspoof2021,
    "2021DF": partial(ASVspoof2021, track="DF"),
    "2021PA": partial(ASVspoof2021, track="PA"),
    "asvspoof5": ASVspoof5,
    "itw": InTheWild,
    "wavefake": WaveFake,
    "folder": open_folder,
    "csv": Csv,
}


def open_corpus(name: str, track: str = "LA") -> DataSet:
    """The data set `KIND:PATH`, or ASVspoof2019 of this track at a path without a kind. Raises UserError."""
    kind, colon, path = name.partition(":")
    if colon and kind in KINDS:
        return KINDS[kind](Path(path))
    if colon and not Path(name).exists() and "/" not in kind:
        raise UserError(f"unknown kind of data set in {name}", f"one of {', '.join(KINDS)}", repr(kind))
    try:
        return Corpus(Path(name), track)
    except UserError as error:
        if not Path(name).exists():
            raise
        fitting = [kind for kind in KINDS if _fits(kind, Path(name))]
        fitting = [kind for kind in fitting if kind != "folder"] or fitting  # whose meta.csv others have, too
        hint = f", here {fitting[0]}:{name}" if len(fitting) == 1 else ""
        raise UserError(f"{error}; of other data sets", f"KIND:PATH{hint} (KIND one of {', '.join(KINDS)})") from error


def _fits(kind: str, path: Path) -> bool:
    try:
        KINDS[kind](path)
    except (UserError, OSError):
        return False
    return True


def gather(names: Sequence[str], track: str, partition: str) -> Partition:
    """A partition of all the data sets that have it.

    Of several, each utterance is named `<folder>/<utt_id>` after its data set's folder, and so is its source. Raises
    UserError where none has it.
    """
    corpora = [open_corpus(name, track) for name in names]
    parts = [(corpus, corpus.partition(partition)) for corpus in corpora if partition in corpus.partitions]
    if not parts:
        found = "; ".join(f"{name} has {', '.join(c.partitions)}" for name, c in zip(names, corpora, strict=True))
        raise UserError(f"no {partition} partition", "one data set that has it", found)
    if len(parts) == 1:
        return parts[0][1]
    trials, files = [], {}
    for folder, (_, part) in zip(_distinct([corpus.root.resolve().stem for corpus, _ in parts]), parts, strict=True):
        renamed = {trial.utt_id: f"{folder}/{trial.utt_id}" for trial in part.trials}
        sources = [f"{folder}/{trial.source}".rstrip("/") for trial in part.trials]
        named = zip(part.trials, renamed.values(), sources, strict=True)
        trials += [trial._replace(utt_id=utt_id, source=source) for trial, utt_id, source in named]
        files |= {renamed[utt_id]: path for utt_id, path in part.files.items()}
    return Partition(partition, trials, files)


def each_eval(names: Sequence[str], track: str) -> list[Partition]:
    """The eval partition of each data set by itself, named after it. Raises UserError where one has none."""
    corpora = [open_corpus(name, track) for name in names]
    titles = _distinct([corpus.title for corpus in corpora], taken=PARTITIONS)
    return [replace(corpus.partition("eval"), name=title) for title, corpus in zip(titles, corpora, strict=True)]


def _distinct(names: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """The names fit for a file's, with a number where one comes again."""
    seen, distinct = Counter(taken), []
    for name in names:
        name = re.sub(r"[^\w.+-]+", "_", name)
        seen[name] += 1
        distinct.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return distinct
