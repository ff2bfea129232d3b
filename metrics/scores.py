"""Labels and polarity, and the scored trials of one system: what every metric is computed from."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from common.errors import UserError

SPOOF, BONAFIDE = 0, 1  # class indices of a model's logits; a score is logits[:, BONAFIDE]
KEYS = {  # key in a file → is bona fide. Not 0 and 1: papers use them either way
    **dict.fromkeys(("bonafide", "bona-fide", "bona_fide", "genuine", "human", "real"), True),
    **dict.fromkeys(("spoof", "fake"), False),
}
LISTED = 5  # names shown of a longer list


class _Columns:
    """Columns of N trials: arrays (N,), and dicts of such."""

    def take(self, rows: np.ndarray) -> Self:
        """The trials at `rows` (indices or a mask), in that order."""

        def chosen(value: object) -> object:
            if isinstance(value, dict):
                return {name: column[rows] for name, column in value.items()}
            return value[rows] if isinstance(value, np.ndarray) else value

        return dataclasses.replace(self, **{f.name: chosen(getattr(self, f.name)) for f in dataclasses.fields(self)})

    def group(self, name: str) -> np.ndarray:
        """The column `name` (N,). Raises UserError that lists the columns if there is none of this name."""
        columns = {"attack": self.attack, **self.groups}
        if name not in columns:
            raise UserError(f"trials have no {name}", " or ".join(columns), f"{name!r} (a --protocol may give it)")
        return columns[name]


@dataclass
class Labels(_Columns):
    """N labelled trials without scores, in the order of the protocol."""

    utt_id: np.ndarray  # (N,) str
    is_bonafide: np.ndarray  # (N,) bool
    attack: np.ndarray  # (N,) str, "-" for bona fide and for a spoof of unknown attack
    groups: dict[str, np.ndarray] = field(default_factory=dict)  # further columns by name, (N,) str: speaker, codec, …

    def __post_init__(self):
        self.utt_id, self.attack = np.asarray(self.utt_id), np.asarray(self.attack)
        self.is_bonafide = np.asarray(self.is_bonafide, bool)

    def scored(self, score: np.ndarray, **more) -> "Scores":
        """These trials with their scores (N,). more: `asv` and `warnings` of `Scores`."""
        return Scores(self.utt_id, score, self.is_bonafide, self.attack, self.groups, **more)


@dataclass
class Scores(_Columns):
    """N scored and labelled trials of one system, in the order of the file."""

    utt_id: np.ndarray  # (N,) str
    score: np.ndarray  # (N,) float64, higher = more bona fide
    is_bonafide: np.ndarray  # (N,) bool
    attack: np.ndarray  # (N,) str, "-" for bona fide and for a spoof of unknown attack
    groups: dict[str, np.ndarray] = field(default_factory=dict)  # further columns by name, (N,) str: speaker, codec, …
    asv: dict[str, np.ndarray] = field(default_factory=dict)  # asv_score, sasv_score (N,), if the file has them
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self):
        self.utt_id, self.attack = np.asarray(self.utt_id), np.asarray(self.attack)
        self.score, self.is_bonafide = np.asarray(self.score, np.float64), np.asarray(self.is_bonafide, bool)

    @property
    def bonafide(self) -> np.ndarray:
        """Scores of bona fide trials."""
        return self.score[self.is_bonafide]

    @property
    def spoof(self) -> np.ndarray:
        """Scores of spoof trials."""
        return self.score[~self.is_bonafide]


def common_trials(first: Scores, second: Scores) -> tuple[Scores, Scores]:
    """The trials of both systems in one order; `first` itself if it has no others. Raises UserError if none pair up."""
    position = {name: row for row, name in enumerate(second.utt_id.tolist())}
    rows = np.array([position.get(name, -1) for name in first.utt_id.tolist()])
    if (rows < 0).any():
        first, rows = first.take(rows >= 0), rows[rows >= 0]
    second = second.take(rows)
    if (first.is_bonafide != second.is_bonafide).any():
        row = int(np.argmax(first.is_bonafide != second.is_bonafide))
        raise UserError("systems cannot be paired", "the same key for each trial", f"two keys of {first.utt_id[row]}")
    if not first.is_bonafide.any() or first.is_bonafide.all():
        raise UserError("systems cannot be paired", "common trials of both classes", f"{len(rows)} common trials")
    return first, second


def categories(values: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The distinct `values` (N,) of a column, sorted, and each row's index among them (N,)."""
    found = values.tolist()
    names = sorted(set(found))
    index = {name: number for number, name in enumerate(names)}
    return names, np.fromiter(map(index.__getitem__, found), np.int64, len(found))


def rows_by_value(values: np.ndarray) -> dict[str, np.ndarray]:
    """The rows (n,) of each value of a column (N,), in order; O(N log N), however many values there are."""
    names, codes = categories(values)
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(len(names) + 1))
    return {name: order[starts[i] : starts[i + 1]] for i, name in enumerate(names)}


def listing(what: str, names: Sequence[str]) -> list[str]:
    """A warning `<count> <what>: <the first names>`; none without names."""
    more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
    return [f"{len(names):,} {what}: {', '.join(names[:LISTED])}{more}"] if names else []
