"""Read and write score files: countermeasure scores, and ASV scores. docs/evaluation.md, "Files", lists the forms."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common.errors import UserError
from common.files import write_text
from metrics.columns import numbers, read_table
from metrics.protocols import LA21, LAYOUTS, NO_ATTACK, NUMERIC, join, trial_ids, unscored
from metrics.scores import Scores
from metrics.tandem import AsvScores

_SCORES = (
    ("utt_id", "score"),
    ("utt_id", "key", "score"),
    ("utt_id", "attack", "key", "score"),
    *((*names, "score") for names in LAYOUTS[1:]),
)
_ASV_SCORES = (("attack", "asv_label", "score"),)


def read_scores(path: str | Path, protocol: str | Path | None = None) -> Scores:
    """Read a score file in any of the forms that docs/evaluation.md lists, joined with a protocol if one is given.

    Trials without a score, and scores of trials that the protocol does not list, are named in `Scores.warnings`.
    Raises UserError, with the line number, for whatever cannot be read, and where only one class is left.
    """
    table = read_table(path, _SCORES, "score")
    if "score" not in table.columns:
        raise UserError(f"{path}: no score column", "score or cm-score", " ".join(table.columns))
    by_speaker = {"asv_score", "speaker"} <= table.columns.keys()
    names = trial_ids(table, by_speaker)
    numeric = {name: numbers(table, name) for name in NUMERIC if name in table.columns}
    warnings: list[str] = []
    rows = np.arange(len(names))
    if protocol is not None:
        table, rows, names, warnings = join(table, names, read_table(protocol, LAYOUTS, "protocol"), by_speaker)
    elif "key" not in table.columns:
        raise UserError(f"{path}: no labels", "--protocol FILE, or a score file with keys", " ".join(table.columns))
    scores = dataclasses.replace(
        unscored(table, names),
        score=numeric.pop("score")[rows],
        asv={name: values[rows] for name, values in numeric.items()},
        warnings=warnings,
    )
    if scores.is_bonafide.all() or not scores.is_bonafide.any():
        found = "bona fide" if scores.is_bonafide.all() else "spoof"
        raise UserError(
            f"{path}, lines {min(table.lines)}–{max(table.lines)}: one class only",
            "bona fide and spoof trials",
            f"{len(names)} {found}",
        )
    return scores


def write_scores(
    path: str | Path, utt_ids: Sequence[str], attacks: Sequence[str], keys: Sequence[str], scores: Sequence[float]
) -> None:
    """Write lines `utt_id attack key score` with every digit, whole or not at all.

    Raises UserError for a score that is not finite and a name with blanks, ValueError for different lengths.
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
    """Read the organisers' speaker verification scores, lines `attack label score` such as `bonafide target 18.2`.

    Raises UserError, with the line number, for whatever cannot be read, and where a kind of trial is missing.
    """
    table = read_table(path, _ASV_SCORES, "ASV score")
    if "asv_label" not in table.columns:
        raise UserError(f"{path}, line 1: no ASV score file", "lines such as: bonafide target 18.2", "a header")
    label, score = np.array(table.columns["asv_label"]), numbers(table, "score")
    known = {name: label == name for name in ("target", "nontarget", "spoof")}
    unknown = ~np.logical_or.reduce(list(known.values()))
    if unknown.any():
        row = int(np.argmax(unknown))
        raise table.error(row, "unknown ASV label", "target, nontarget or spoof", repr(label[row].item()))
    if missing := [name for name, rows in known.items() if not rows.any()]:
        raise UserError(f"{path}, lines 1–{table.lines[-1]}: no {missing[0]} trials", "target, nontarget and spoof")
    return AsvScores(*(score[rows] for rows in known.values()), frozenset(table.columns["attack"]) - NO_ATTACK)


def read_asv_scores_2021(folder: str | Path, subset: str) -> AsvScores:
    """ASV scores of a subset from the ASVspoof 2021 keys' folder `ASV`; both its files list the same trials in order.

    Raises UserError, with the line number, for whatever cannot be read, and where the files differ.
    """
    key = read_table(Path(folder) / "trial_metadata.txt", (LA21,), "ASV trial")
    table = read_table(Path(folder) / "ASVTorch_Kaldi" / "score.txt", (("speaker", "utt_id", "score"),), "ASV score")
    if any(list(table.columns[name]) != list(key.columns[name]) for name in ("speaker", "utt_id")):
        raise UserError(f"{table.path} lists other trials", f"those of {key.path.name}, in its order", "a difference")
    label, chosen = np.array(key.columns["key"]), np.array(key.columns["subset"]) == subset
    score, attacks = numbers(table, "score"), np.array(key.columns["attack"])[chosen & (label == "spoof")]
    rows = [chosen & (label == name) for name in ("target", "nontarget", "spoof")]
    if not all(kind.any() for kind in rows):
        raise UserError(f"{key.path}: a kind of trial is missing in {subset}", "target, nontarget and spoof")
    return AsvScores(*(score[kind] for kind in rows), frozenset(attacks.tolist()))
