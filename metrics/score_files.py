"""Read and write score files, and read ASV scores, in every form that docs/evaluation.md lists."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.errors import UserError
from common.files import write_text
from metrics.column_files import ColumnTable, read_table
from metrics.protocols import LA21, LAYOUTS, NO_ATTACK, NUMERIC, labels_of, read_keys, trial_ids
from metrics.scores import Scores, listing
from metrics.tandem import AsvScores

_SCORES = (
    ("utt_id", "score"),
    ("utt_id", "key", "score"),
    ("utt_id", "score", "key"),
    ("utt_id", "attack", "key", "score"),
    ("speaker", "utt_id", "score", "key"),  # ASVspoof 5's evaluation package
    *((*names, "score") for names in LAYOUTS[1:]),
)
_ASV_SCORES = (("attack", "asv_label", "score"),)


def read_scores(path: str | Path, protocol: str | Path | None = None) -> Scores:
    """Read a score file in any of the forms that docs/evaluation.md lists, joined with a protocol if one is given.

    Trials without a score, and scores of trials that the protocol does not list, are named in `Scores.warnings`.
    Raises UserError, with the line number, for whatever cannot be read, and if only one class is left.
    """
    table, warnings = read_table(path, _SCORES, "score", NUMERIC), []
    if "score" not in table.columns:
        raise UserError(f"{path}: no score column", "score or cm-score", " ".join(table.columns))
    if (attacks := table.columns.get("attack")) and len({*attacks}) == len(attacks) > len({*table.columns["utt_id"]}):
        names = {"utt_id": "speaker", "attack": "utt_id"}  # `speaker utt key score`
        table.columns = {names.get(name, name): values for name, values in table.columns.items()}
    by_speaker = {"asv_score", "speaker"} <= table.columns.keys()
    names = trial_ids(table, by_speaker)
    numeric = {name: table.columns[name] for name in NUMERIC if name in table.columns}
    rows = np.arange(len(names))
    if protocol is not None:
        table, rows, names, warnings = _join(table, names, read_table(protocol, LAYOUTS, "protocol"), by_speaker)
    elif "key" not in table.columns:
        raise UserError(f"{path}: no labels", "--protocol FILE, or a score file with keys", " ".join(table.columns))
    score = numeric.pop("score")[rows]
    asv = {name: values[rows] for name, values in numeric.items()}
    scores = labels_of(table, names).scored(score, asv=asv, warnings=warnings)
    if scores.is_bonafide.all() or not scores.is_bonafide.any():
        found = "bona fide" if scores.is_bonafide.all() else "spoof"
        raise UserError(
            f"{path}, lines {table.lines.min()}–{table.lines.max()}: one class only",
            "bona fide and spoof trials",
            f"{len(names)} {found}",
        )
    return scores


class Joined(NamedTuple):
    """The scored trials that a protocol lists, M of them."""

    table: ColumnTable  # the protocol's columns, and those of the score file that it lacks
    rows: np.ndarray  # (M,) of the score file
    names: list[str]  # (M,)
    warnings: list[str]


def _join(table: ColumnTable, names: list[str], protocol: ColumnTable, by_speaker: bool) -> Joined:
    """Look up each scored trial in the protocol. Raises UserError if the two do not match."""
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
    taken = {"utt_id", *NUMERIC}  # from the score file, by read_scores
    columns = {name: [values[row] for row in rows] for name, values in table.columns.items() if name not in taken}
    if "key" in columns:
        own = ColumnTable(table.path, columns, table.lines[rows])
        _check_keys(own, [protocol.columns["key"][i] for i in at])
    columns |= {name: [values[i] for i in at] for name, values in protocol.columns.items() if name not in taken}
    joined = ColumnTable(protocol.path, columns, protocol.lines[at])
    return Joined(joined, rows, [names[row] for row in rows], _unmatched(names, listed, protocol.path.name))


def _unmatched(names: list[str], listed: list[str], protocol: str) -> list[str]:
    """Warnings about trials without a score, and scores of trials that the protocol does not list."""
    scored, known = set(names), set(listed)
    missing, extra = [name for name in listed if name not in scored], [name for name in names if name not in known]
    return [
        *listing(f"of {len(listed):,} trials of {protocol} have no score", missing),
        *listing(f"of {len(names):,} scores are of trials not in {protocol}, left out", extra),
    ]


def _check_keys(table: ColumnTable, listed: list[str]) -> None:
    """Raises UserError where a score file's own key contradicts the protocol's."""
    wrong = read_keys(table) != read_keys(dataclasses.replace(table, columns={"key": listed}))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise table.error(row, "key contradicts the protocol", listed[row], table.columns["key"][row])


def write_scores(
    path: str | Path, utt_ids: Sequence[str], attacks: Sequence[str], keys: Sequence[str], scores: Sequence[float]
) -> None:
    """Write lines `utt_id attack key score` with every digit; the file is written whole or not at all.

    Raises UserError for a score that is not finite or a name with blanks, ValueError for different lengths.
    """
    values = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values)))
        raise UserError(f"score of {utt_ids[row]} not written", "a finite number", values[row])
    if blank := [name for name in utt_ids if len(name.split()) != 1]:
        raise UserError("score file not written", "utterance names without blanks", repr(str(blank[0])))
    lines = zip(utt_ids, attacks, keys, map(repr, values.tolist()), strict=True)
    write_text(path, "".join(f"{' '.join(line)}\n" for line in lines))


def read_asv_scores(path: str | Path) -> AsvScores:
    """Read the organisers' speaker verification scores: lines `attack label score`, as in `bonafide target 18.2`.

    Raises UserError, with the line number, for whatever cannot be read, and if a kind of trial is missing.
    """
    table = read_table(path, _ASV_SCORES, "ASV score", ("score",))
    if "asv_label" not in table.columns:
        raise UserError(f"{path}, line 1: no ASV score file", "lines such as: bonafide target 18.2", "a header")
    label, score = np.array(table.columns["asv_label"]), table.columns["score"]
    known = {name: label == name for name in ("target", "nontarget", "spoof")}
    unknown = ~np.logical_or.reduce(list(known.values()))
    if unknown.any():
        row = int(np.argmax(unknown))
        raise table.error(row, "unknown ASV label", "target, nontarget or spoof", repr(label[row].item()))
    if missing := [name for name, rows in known.items() if not rows.any()]:
        raise UserError(f"{path}, lines 1–{table.lines[-1]}: no {missing[0]} trials", "target, nontarget and spoof")
    return AsvScores(*(score[rows] for rows in known.values()), frozenset(table.columns["attack"]) - NO_ATTACK)


def read_asv_scores_2021(folder: str | Path, subset: str) -> AsvScores:
    """ASV scores of a subset, from the folder `ASV` of the ASVspoof 2021 keys.

    Its two files must list the same trials in the same order.

    Raises UserError, with the line number, for whatever cannot be read, and if the files differ.
    """
    key = read_table(Path(folder) / "trial_metadata.txt", (LA21,), "ASV trial")
    table = read_table(
        Path(folder) / "ASVTorch_Kaldi" / "score.txt", (("speaker", "utt_id", "score"),), "ASV score", ("score",)
    )
    if any(list(table.columns[name]) != list(key.columns[name]) for name in ("speaker", "utt_id")):
        raise UserError(f"{table.path} lists other trials", f"those of {key.path.name}, in its order", "a difference")
    label, chosen = np.array(key.columns["key"]), np.array(key.columns["subset"]) == subset
    score, attacks = table.columns["score"], np.array(key.columns["attack"])[chosen & (label == "spoof")]
    rows = [chosen & (label == name) for name in ("target", "nontarget", "spoof")]
    if not all(kind.any() for kind in rows):
        raise UserError(f"{key.path}: a kind of trial is missing in {subset}", "target, nontarget and spoof")
    return AsvScores(*(score[kind] for kind in rows), frozenset(attacks.tolist()))
