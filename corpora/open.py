"""Data sets by their name `KIND:PATH`; docs/datasets.md says what each kind's folder looks like.

open_data_set("/data/LA").partition("train")              # ASVspoof 2019 LA, the default
open_data_set("asvspoof5:/data/ASVspoof5").partition("dev")
open_partition(["/data/LA", "csv:/data/mine.csv"], "LA", "train")    # of several data sets together
open_eval_sets(["2021:/data/2021", "itw:/data/itw"], "LA")           # each by itself
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from common.errors import UserError
from common.files import distinct_names
from corpora.asvspoof import ASVspoof5, ASVspoof2019, ASVspoof2021
from corpora.data_set import DataSet
from corpora.folders import CsvList, InTheWild, WaveFake, open_folder
from corpora.trials import PARTITIONS, Partition

KINDS: dict[str, Callable[[Path], DataSet]] = {
    "2019": ASVspoof2019,
    "2019PA": partial(ASVspoof2019, track="PA"),
    "2021": ASVspoof2021,
    "2021DF": partial(ASVspoof2021, track="DF"),
    "2021PA": partial(ASVspoof2021, track="PA"),
    "asvspoof5": ASVspoof5,
    "itw": InTheWild,
    "wavefake": WaveFake,
    "folder": open_folder,
    "csv": CsvList,
}


def open_data_set(name: str, track: str = "LA") -> DataSet:
    """The data set `KIND:PATH`; a path without a kind is ASVspoof 2019 of this track. Raises UserError."""
    kind, colon, path = name.partition(":")
    if colon and kind in KINDS:
        return KINDS[kind](Path(path))
    if colon and not Path(name).exists() and "/" not in kind:
        raise UserError(f"unknown kind of data set in {name}", f"one of {', '.join(KINDS)}", repr(kind))
    try:
        return ASVspoof2019(Path(name), track)
    except UserError as error:
        if not Path(name).exists():
            raise
        fitting = [kind for kind in KINDS if _fits(kind, Path(name))]
        fitting = [kind for kind in fitting if kind != "folder"] or fitting  # In-the-Wild's meta.csv fits `folder` too
        hint = f", here {fitting[0]}:{name}" if len(fitting) == 1 else ""
        expected = f"KIND:PATH{hint} (KIND one of {', '.join(KINDS)})"
        raise UserError(f"{error}; for another kind of data set", expected) from error


def _fits(kind: str, path: Path) -> bool:
    try:
        KINDS[kind](path)
    except (UserError, OSError):
        return False
    return True


def open_partition(names: Sequence[str], track: str, partition: str) -> Partition:
    """The partition of that name of all the data sets that have it, as one.

    If several have it, each utterance is named `<folder>/<utt_id>` after its data set's folder, and so is its source.
    Raises UserError if none has it.
    """
    data_sets = [open_data_set(name, track) for name in names]
    parts = [(each, each.partition(partition)) for each in data_sets if partition in each.partitions]
    if not parts:
        found = [f"{name} has {', '.join(each.partitions)}" for name, each in zip(names, data_sets, strict=True)]
        raise UserError(f"no {partition} partition", "one data set that has it", "; ".join(found))
    if len(parts) == 1:
        return parts[0][1]
    trials, files, left_out = [], {}, defaultdict(list)
    for folder, (_, part) in zip(distinct_names([each.root.resolve().stem for each, _ in parts]), parts, strict=True):
        renamed = {trial.utt_id: f"{folder}/{trial.utt_id}" for trial in part.trials}
        sources = [f"{folder}/{trial.source}".rstrip("/") for trial in part.trials]
        named = zip(part.trials, renamed.values(), sources, strict=True)
        trials += [trial._replace(utt_id=utt_id, source=source) for trial, utt_id, source in named]
        files |= {renamed[utt_id]: path for utt_id, path in part.files.items()}
        for reason, paths in part.left_out.items():
            left_out[reason] += paths
    return Partition(partition, trials, files, left_out=left_out)


def open_all_partitions(names: Sequence[str], track: str = "LA") -> list[Partition]:
    """Every partition of the data sets, each over all that have it, so that each trial occurs once. Raises UserError.

    A partition `all` (ASVspoof 2021) contains the others: of a single data set it is the only one, of several it is
    left out.
    """
    there = dict.fromkeys(name for each in names for name in open_data_set(each, track).partitions)
    alone = len(names) == 1 and "all" in there
    return [open_partition(names, track, name) for name in there if (name == "all") == alone]


def open_eval_sets(names: Sequence[str], track: str) -> list[Partition]:
    """The eval partition of each data set by itself, named after it. Raises UserError if one has none."""
    data_sets = [open_data_set(name, track) for name in names]
    titles = distinct_names([each.title for each in data_sets], taken=PARTITIONS)
    return [replace(each.partition("eval"), name=title) for title, each in zip(titles, data_sets, strict=True)]
