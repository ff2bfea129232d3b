"""Protocols: the trials of a partition and their labels, in every form that docs/evaluation.md lists."""

from pathlib import Path

import numpy as np

from common.errors import UserError
from metrics.column_files import ColumnTable, read_table
from metrics.scores import KEYS, Labels

# The columns of each form of protocol, told apart by their number.
_LA19 = ("speaker", "utt_id", "environment", "attack", "key")
LA21 = ("speaker", "utt_id", "codec", "transmission", "attack", "key", "trim", "subset")
_PA21 = (
    *("speaker", "utt_id", "room", "microphone", "distance", "attacker_room", "attacker_microphone", "replay_device"),
    *("attacker_distance", "key", "trim", "subset"),
)
_DF21 = (
    *("speaker", "utt_id", "codec", "source", "attack", "key", "trim", "subset", "vocoder", "task", "team"),
    *("gender_pair", "language"),
)
_ASVSPOOF5 = (
    *("speaker", "utt_id", "gender", "codec", "codec_quality", "codec_seed", "attack_tag", "attack", "key"),
    "reserved",
)
LAYOUTS = (("utt_id", "key"), _LA19, LA21, _ASVSPOOF5, _PA21, _DF21)
NUMERIC = ("score", "asv_score", "sasv_score")  # columns of numbers, which only score files have
NO_ATTACK = {"", "-", "A00", *KEYS}


def read_labels(path: str | Path) -> Labels:
    """The trials of a protocol. Raises UserError, with the line number, for whatever cannot be read."""
    table = read_table(path, LAYOUTS, "protocol")
    if "key" not in table.columns:
        raise UserError(f"{path}: no label column", "key, label or cm-label", " ".join(table.columns))
    return labels_of(table, trial_ids(table))


def labels_of(table: ColumnTable, names: list[str]) -> Labels:
    """The trials of a table, with all further columns as groups."""
    is_bonafide = read_keys(table)
    taken = {"utt_id", "key", "attack", *NUMERIC}
    groups = {name: np.array(values, dtype=object) for name, values in table.columns.items() if name not in taken}
    return Labels(np.array(names, dtype=object), is_bonafide, _attacks(table, is_bonafide), groups)


def read_keys(table: ColumnTable) -> np.ndarray:
    """The key column: is each trial bona fide? (N,) bool. Raises UserError at the first unknown key."""
    keys = table.columns["key"]
    known = {key: KEYS.get(key.lower()) for key in set(keys)}
    if None in known.values():
        row = next(row for row, key in enumerate(keys) if known[key] is None)
        raise table.error(row, "unknown key", "bonafide or spoof", repr(keys[row]))
    return np.fromiter(map(known.__getitem__, keys), bool, len(keys))


def trial_ids(table: ColumnTable, by_speaker: bool = False) -> list[str]:
    """The utterance column, with the claimed speaker before it if a verifier scored an utterance for several speakers.

    Raises UserError for a duplicate.
    """
    names = table.columns["utt_id"]
    if by_speaker:
        names = [f"{speaker} {name}" for speaker, name in zip(table.columns["speaker"], names, strict=True)]
    hashes = np.fromiter(map(hash, names), np.int64, len(names))  # a set of the names would take 50 bytes for each
    if len(np.unique(hashes)) < len(names):
        seen: dict[str, int] = {}
        for row, name in enumerate(names):
            if seen.setdefault(name, row) != row:
                raise table.error(row, "duplicate trial", "each once", f"{name} also on line {table.lines[seen[name]]}")
    return names


def _attacks(table: ColumnTable, is_bonafide: np.ndarray) -> np.ndarray:
    """The attack column, "-" for none. Raises UserError for a bona fide trial that has an attack."""
    attacks = ["-" if name in NO_ATTACK else name for name in table.columns.get("attack", ["-"] * len(is_bonafide))]
    attack = np.array(attacks, dtype=object)  # one long name would make every cell of a str array as long
    contradiction = is_bonafide & (attack != "-")
    if contradiction.any():
        row = int(np.argmax(contradiction))
        raise table.error(row, "bona fide trial with an attack", "- or A00", attacks[row])
    return attack
