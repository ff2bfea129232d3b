"""Protocols: the trials of a partition and their labels, in every form that peers write."""

import dataclasses
from pathlib import Path

import numpy as np

from common.errors import UserError
from metrics.columns import Table, read_table
from metrics.scores import KEYS, Scores, listing

_LA19 = ("speaker", "utt_id", "environment", "attack", "key")
LA21 = ("speaker", "utt_id", "codec", "transmission", "attack", "key", "trim", "subset")
_PA21 = (
    "speaker",
    "utt_id",
    "room",
    "microphone",
    "distance",
    "attacker_room",
    "attacker_microphone",
    "replay_device",
    "attacker_distance",
    "key",
    "trim",
    "subset",
)
_DF21 = (
    "speaker",
    "utt_id",
    "codec",
    "source",
    "attack",
    "key",
    "trim",
    "subset",
    "vocoder",
    "task",
    "team",
    "gender_pair",
    "language",
)
_ASVSPOOF5 = (
    "speaker",
    "utt_id",
    "gender",
    "codec",
    "codec_quality",
    "codec_seed",
    "attack_tag",
    "attack",
    "key",
    "reserved",
)
LAYOUTS = (("utt_id", "key"), _LA19, LA21, _ASVSPOOF5, _PA21, _DF21)
NUMERIC = ("score", "asv_score", "sasv_score")
NO_ATTACK = {"", "-", "A00", *KEYS}


def read_trials(path: str | Path) -> Scores:
    """The trials of a protocol in any of its forms, not scored yet: every score is NaN.

    Raises UserError, with the line number, for whatever cannot be read.
    """
    table = read_table(path, LAYOUTS, "protocol")
    if "key" not in table.columns:
        raise UserError(f"{path}: no label column", "key, label or cm-label", " ".join(table.columns))
    return unscored(table, trial_ids(table))


def unscored(table: Table, names: list[str]) -> Scores:
    """A table's trials with NaN scores, and all further columns as groups."""
    is_bonafide = read_keys(table)
    taken = {"utt_id", "key", "attack", *NUMERIC}
    groups = {name: np.array(values, dtype=object) for name, values in table.columns.items() if name not in taken}
    return Scores(np.array(names), np.full(len(names), np.nan), is_bonafide, _attacks(table, is_bonafide), groups)


def read_keys(table: Table) -> np.ndarray:
    """The key column as bool. Raises UserError at the first unknown key."""
    keys = [key.lower() for key in table.columns["key"]]
    if unknown := set(keys) - KEYS.keys():
        row = next(row for row, key in enumerate(keys) if key in unknown)
        raise table.error(row, "unknown key", "bonafide or spoof", repr(table.columns["key"][row]))
    return np.array([KEYS[key] for key in keys])


def trial_ids(table: Table, by_speaker: bool = False) -> list[str]:
    """The utterance column; with the claimed speaker before it where a verifier scored one utterance for several."""
    names = list(table.columns["utt_id"])
    if by_speaker:
        names = [f"{speaker} {name}" for speaker, name in zip(table.columns["speaker"], names, strict=True)]
    if len(set(names)) < len(names):
        seen: dict[str, int] = {}
        for row, name in enumerate(names):
            if seen.setdefault(name, row) != row:
                raise table.error(row, "duplicate trial", "each once", f"{name} also on line {table.lines[seen[name]]}")
    return names


def _attacks(table: Table, is_bonafide: np.ndarray) -> np.ndarray:
    """The attack column with one name, "-", for none. Raises UserError for a bona fide trial that has an attack."""
    attacks = ["-" if name in NO_ATTACK else name for name in table.columns.get("attack", ["-"] * len(is_bonafide))]
    attack = np.array(attacks)
    contradiction = is_bonafide & (attack != "-")
    if contradiction.any():
        row = int(np.argmax(contradiction))
        raise table.error(row, "bona fide trial with an attack", "- or A00", attacks[row])
    return attack


def join(
    table: Table,
    names: list[str],
    protocol: Table,
    by_speaker: bool,
) -> tuple[Table, np.ndarray, list[str], list[str]]:
    """The protocol's columns for each scored trial: (table, its rows in the score file, trial names, warnings)."""
    if "key" not in protocol.columns:
        raise UserError(f"{protocol.path}: no label column", "key, label or cm-label", " ".join(protocol.columns))
    listed = trial_ids(protocol, by_speaker and "speaker" in protocol.columns)
    if set(names).isdisjoint(listed):  # one side may write folders and extensions
        names, listed = [Path(name).stem for name in names], [Path(name).stem for name in listed]
    position = {name: row for row, name in enumerate(listed)}
    rows = np.array([row for row, name in enumerate(names) if name in position], dtype=int)
    if not rows.size:
        raise UserError(f"no trial of {table.path} is in {protocol.path}", listed[0], names[0])
    if len(position) < len(listed) or len(set(names)) < len(names):
        raise UserError(f"{table.path}: trials do not match {protocol.path}", "equal names", "equal but for folders")
    at = [position[names[row]] for row in rows]
    scored, known = set(names), position.keys()
    warnings = [
        *listing(
            f"of {len(listed):,} trials of {protocol.path.name} have no score",
            [name for name in listed if name not in scored],
        ),
        *listing(
            f"of {len(names):,} scores are of trials not in {protocol.path.name}, left out",
            [name for name in names if name not in known],
        ),
    ]
    taken = {"utt_id", *NUMERIC}  # from the score file, by read_scores
    columns = {name: [values[row] for row in rows] for name, values in table.columns.items() if name not in taken}
    if "key" in columns:
        own = Table(table.path, columns, [table.lines[row] for row in rows])
        _check_keys(own, [protocol.columns["key"][i] for i in at])
    columns |= {name: [values[i] for i in at] for name, values in protocol.columns.items() if name not in taken}
    joined = Table(protocol.path, columns, [protocol.lines[i] for i in at])
    return joined, rows, [names[row] for row in rows], warnings


def _check_keys(table: Table, listed: list[str]) -> None:
    """Raises UserError where a score file's own key contradicts the protocol's."""
    wrong = read_keys(table) != read_keys(dataclasses.replace(table, columns={"key": listed}))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise table.error(row, "key contradicts the protocol", listed[row], table.columns["key"][row])
