"""Read and write score files, protocols and ASV scores; docs/evaluation.md, "Files", lists the forms.

Every reader ends in one line with the line number for what it cannot read, and drops nothing in silence.
"""

import csv
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from common.errors import UserError
from common.files import write_text
from metrics.curves import AsvScores

SPOOF, BONAFIDE = 0, 1  # labels; a score is logits[:, BONAFIDE]

# ---------------------------------------------------------------------------------------------------------- text files

MAX_LINE = 10_000  # bytes; the longest real protocol line has about 120
BLOCK = 10_000  # lines parsed at a time
LISTED = 5  # names shown of a longer list

_LA19 = ("speaker", "utt_id", "environment", "attack", "key")
_LA21 = ("speaker", "utt_id", "codec", "transmission", "attack", "key", "trim", "subset")
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
_PROTOCOLS = (("utt_id", "key"), _LA19, _LA21, _ASVSPOOF5, _PA21, _DF21)
_SCORES = (
    ("utt_id", "score"),
    ("utt_id", "key", "score"),
    ("utt_id", "attack", "key", "score"),
    *((*names, "score") for names in _PROTOCOLS[1:]),
)
_ASV_SCORES = (("attack", "asv_label", "score"),)

_HEADER = {  # what files call a column → what we call it
    **dict.fromkeys(("utt_id", "utt", "utterance", "filename", "file", "path", "trial", "trial_anon"), "utt_id"),
    **dict.fromkeys(("score", "cm_score"), "score"),
    **dict.fromkeys(("key", "label", "cm_label"), "key"),
    **dict.fromkeys(("attack", "attack_id", "attack_label", "attack_anon"), "attack"),
    **dict.fromkeys(("speaker", "speaker_id", "spk", "tar_spk_anon"), "speaker"),
}
_NUMERIC = ("score", "asv_score", "sasv_score")
KEYS = {  # never 0 and 1, which papers use either way
    **dict.fromkeys(("bonafide", "bona-fide", "bona_fide", "genuine", "human", "real"), True),
    **dict.fromkeys(("spoof", "fake"), False),
}
_NO_ATTACK = {"", "-", "A00", *KEYS}


@dataclass
class Table:
    """A file's columns by name, and the line each row stands on."""

    path: Path
    columns: dict[str, Sequence[str]]
    lines: list[int]

    def error(self, row: int, what: str, expected: object = None, found: object = None) -> UserError:
        return UserError(f"{self.path}, line {self.lines[row]}: {what}", expected, found)


def _read_lines(path: Path) -> list[str]:
    """The lines of a text file. Raises UserError for anything else, without reading a huge line to its end."""
    lines: list[bytes] = [b""]
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                start = len(lines)
                first, *rest = chunk.split(b"\n")
                lines[-1] += first
                lines += rest
                _check_text(lines[start - 1 :], start, path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    data = b"\n".join(lines)
    try:
        return data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {number}: not text", "UTF-8", f"byte 0x{data[error.start]:02x}") from error


def _check_text(lines: list[bytes], start: int, path: Path) -> None:
    """Raises UserError for the first of the lines, numbered from `start`, that no text file of ours has."""
    if max(map(len, lines)) <= MAX_LINE and not any(b"\0" in line or line[:2] == b"\x1f\x8b" for line in lines):
        return
    for number, line in enumerate(lines, start):
        if line[:2] == b"\x1f\x8b":
            raise UserError(f"{path}, line {number}: not text", "an unpacked file", "gzip data (gunzip it first)")
        if b"\0" in line:
            raise UserError(f"{path}, line {number}: not text", "UTF-8", "a NUL byte: a binary or UTF-16 file")
        if len(line) > MAX_LINE:
            raise UserError(f"{path}, line {number}: line too long", f"at most {MAX_LINE:,} bytes", f"{len(line):,}+")


def _read_table(path: str | Path, layouts: Sequence[tuple[str, ...]], kind: str) -> Table:
    """Parse lines of columns. Raises UserError naming the line that has other columns than the first line promises."""
    path = Path(path)
    lines = _read_lines(path)
    numbers = [number for number, line in enumerate(lines, 1) if line.strip()]
    if not numbers:
        raise UserError(f"{path}, line 1: empty file", f"a {kind} file", "no lines")
    delimiter, names = _form(lines[numbers[0] - 1], path)
    if names:
        numbers = numbers[1:]
        if not numbers:
            raise UserError(f"{path}, line 2: no {kind} lines below the header", "at least one", 0)
    else:
        width = len(_split(lines[numbers[0] - 1], delimiter))
        names = next((layout for layout in layouts if len(layout) == width), None)
        if names is None:
            known = ", ".join(f"{len(layout)} ({' '.join(layout[:4])}{' …' * (len(layout) > 4)})" for layout in layouts)
            raise UserError(f"{path}, line {numbers[0]}: no {kind} line", f"columns: {known}", width)
    return Table(path, _columns(lines, numbers, names, delimiter, path), numbers)


def _columns(
    lines: list[str],
    numbers: list[int],
    names: tuple[str, ...],
    delimiter: str | None,
    path: Path,
) -> dict[str, list[str]]:
    """The cells of the lines `numbers`, by column; in blocks, since a list for every line of a large file is memory."""
    columns: list[list[str]] = [[] for _ in names]
    for start in range(0, len(numbers), BLOCK):
        block = numbers[start : start + BLOCK]
        rows = [_split(lines[number - 1], delimiter) for number in block]
        for number, row in zip(block, rows, strict=True):
            if len(row) != len(names):
                what = "truncated" if number == numbers[-1] else "bad"
                expected = f"{len(names)} columns ({' '.join(names)})"
                raise UserError(f"{path}, line {number}: {what} line", expected, len(row))
        for column, values in zip(columns, zip(*rows, strict=True), strict=True):
            few = 2 * len(set(values)) < len(values)  # one string for each codec, not one for each line
            column.extend(map(sys.intern, values) if few else values)
    return dict(zip(names, columns, strict=True))


def _form(first: str, path: Path) -> tuple[str | None, tuple[str, ...] | None]:
    """(delimiter, our column names) by the first line: comma, tab under a header, None for any blanks."""
    for delimiter in (",", "\t", None):
        if names := _header(first.split(delimiter), path):
            return delimiter, names
    return ("," if "," in first else None), None


def _split(line: str, delimiter: str | None) -> list[str]:
    if delimiter is None:
        return line.split()
    return [value.strip() for value in next(csv.reader([line.replace("\r", " ")], delimiter=delimiter))]


def _header(cells: list[str], path: Path) -> tuple[str, ...] | None:
    """Our names of the columns if the cells are a header, which always names the utterance column."""
    plain = [cell.strip().strip('"').lower().replace("-", "_") for cell in cells]
    names = tuple(_HEADER.get(name, name) for name in plain)
    if "utt_id" not in names:
        return None
    if len(set(names)) < len(names):
        raise UserError(f"{path}, line 1: two columns mean the same", "one each", " ".join(cells))
    return names


def _numbers(table: Table, name: str) -> np.ndarray:
    """A column as finite float64. Raises UserError at the first cell that is none."""
    column = table.columns[name]
    try:
        values = np.array(column, dtype=np.float64)
    except ValueError:
        values = np.array([_number(cell) for cell in column])
    bad = ~np.isfinite(values)
    if "_" in "".join(column):  # Python reads 1_000 as a number
        bad |= np.array(["_" in cell for cell in column])
    if bad.any():
        row = int(np.argmax(bad))
        raise table.error(row, f"bad {name}", "a finite number", repr(column[row]))
    return values


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")


def _is_bonafide(table: Table) -> np.ndarray:
    """The key column as bool. Raises UserError at the first unknown key."""
    keys = [key.lower() for key in table.columns["key"]]
    if unknown := set(keys) - KEYS.keys():
        row = next(row for row, key in enumerate(keys) if key in unknown)
        raise table.error(row, "unknown key", "bonafide or spoof", repr(table.columns["key"][row]))
    return np.array([KEYS[key] for key in keys])


def _trial_ids(table: Table, by_speaker: bool = False) -> list[str]:
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


# --------------------------------------------------------------------------------------------------------- score files


@dataclass
class Scores:
    """Scored and labelled trials of one system, in the file's order; N of them."""

    utt_id: np.ndarray  # (N,) str
    score: np.ndarray  # (N,) float64, higher = more bona fide
    is_bonafide: np.ndarray  # (N,) bool
    attack: np.ndarray  # (N,) str, "-" for bona fide and for a spoof of unknown attack
    groups: dict[str, np.ndarray] = field(default_factory=dict)  # further columns by name, (N,) str: speaker, codec, …
    asv: dict[str, np.ndarray] = field(default_factory=dict)  # asv_score, sasv_score (N,), if the trials carry them
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

    def take(self, rows: np.ndarray) -> "Scores":
        """These rows (indices or a mask) only, in that order."""
        return dataclasses.replace(
            self,
            utt_id=self.utt_id[rows],
            score=self.score[rows],
            is_bonafide=self.is_bonafide[rows],
            attack=self.attack[rows],
            groups={name: values[rows] for name, values in self.groups.items()},
            asv={name: values[rows] for name, values in self.asv.items()},
        )

    def group(self, name: str) -> np.ndarray:
        """The column `name` (N,). Raises UserError naming those there are."""
        columns = {"attack": self.attack, **self.groups}
        if name not in columns:
            raise UserError(f"trials have no {name}", " or ".join(columns), f"{name!r} (a --protocol may give it)")
        return columns[name]


def read_scores(path: str | Path, protocol: str | Path | None = None) -> Scores:
    """Read a score file in any of the forms that docs/evaluation.md lists, joined with a protocol if one is given.

    Trials without a score, and scores of trials that the protocol does not list, are named in `Scores.warnings`.
    Raises UserError, with the line number, for whatever cannot be read, and where only one class is left.
    """
    table = _read_table(path, _SCORES, "score")
    if "score" not in table.columns:
        raise UserError(f"{path}: no score column", "score or cm-score", " ".join(table.columns))
    by_speaker = {"asv_score", "speaker"} <= table.columns.keys()
    names = _trial_ids(table, by_speaker)
    numeric = {name: _numbers(table, name) for name in _NUMERIC if name in table.columns}
    warnings: list[str] = []
    rows = np.arange(len(names))
    if protocol is not None:
        table, rows, names, warnings = _join(table, names, _read_table(protocol, _PROTOCOLS, "protocol"), by_speaker)
    elif "key" not in table.columns:
        raise UserError(f"{path}: no labels", "--protocol FILE, or a score file with keys", " ".join(table.columns))
    scores = dataclasses.replace(
        _trials(table, names),
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


def read_trials(path: str | Path) -> Scores:
    """The trials of a protocol in any of its forms, not scored yet: every score is NaN.

    Raises UserError, with the line number, for whatever cannot be read.
    """
    table = _read_table(path, _PROTOCOLS, "protocol")
    if "key" not in table.columns:
        raise UserError(f"{path}: no label column", "key, label or cm-label", " ".join(table.columns))
    return _trials(table, _trial_ids(table))


def _trials(table: Table, names: list[str]) -> Scores:
    """A table's trials with NaN scores, and all further columns as groups."""
    is_bonafide = _is_bonafide(table)
    taken = {"utt_id", "key", "attack", *_NUMERIC}
    groups = {name: np.array(values, dtype=object) for name, values in table.columns.items() if name not in taken}
    return Scores(np.array(names), np.full(len(names), np.nan), is_bonafide, _attacks(table, is_bonafide), groups)


def _attacks(table: Table, is_bonafide: np.ndarray) -> np.ndarray:
    """The attack column with one name, "-", for none. Raises UserError for a bona fide trial that has an attack."""
    attacks = ["-" if name in _NO_ATTACK else name for name in table.columns.get("attack", ["-"] * len(is_bonafide))]
    attack = np.array(attacks)
    contradiction = is_bonafide & (attack != "-")
    if contradiction.any():
        row = int(np.argmax(contradiction))
        raise table.error(row, "bona fide trial with an attack", "- or A00", attacks[row])
    return attack


def _join(
    table: Table,
    names: list[str],
    protocol: Table,
    by_speaker: bool,
) -> tuple[Table, np.ndarray, list[str], list[str]]:
    """The protocol's columns for each scored trial: (table, its rows in the score file, trial names, warnings)."""
    if "key" not in protocol.columns:
        raise UserError(f"{protocol.path}: no label column", "key, label or cm-label", " ".join(protocol.columns))
    listed = _trial_ids(protocol, by_speaker and "speaker" in protocol.columns)
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
    taken = {"utt_id", *_NUMERIC}  # from the score file, by read_scores
    columns = {name: [values[row] for row in rows] for name, values in table.columns.items() if name not in taken}
    if "key" in columns:
        own = Table(table.path, columns, [table.lines[row] for row in rows])
        _check_keys(own, [protocol.columns["key"][i] for i in at])
    columns |= {name: [values[i] for i in at] for name, values in protocol.columns.items() if name not in taken}
    joined = Table(protocol.path, columns, [protocol.lines[i] for i in at])
    return joined, rows, [names[row] for row in rows], warnings


def _check_keys(table: Table, listed: list[str]) -> None:
    """Raises UserError where a score file's own key contradicts the protocol's."""
    wrong = _is_bonafide(table) != _is_bonafide(dataclasses.replace(table, columns={"key": listed}))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise table.error(row, "key contradicts the protocol", listed[row], table.columns["key"][row])


def listing(what: str, names: Sequence[str]) -> list[str]:
    """A warning `<count> <what>: <the first names>`; none without names."""
    more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
    return [f"{len(names):,} {what}: {', '.join(names[:LISTED])}{more}"] if names else []


def read_asv_scores(path: str | Path) -> AsvScores:
    """Read the organisers' speaker verification scores, lines `attack label score` such as `bonafide target 18.2`.

    Raises UserError, with the line number, for whatever cannot be read, and where a kind of trial is missing.
    """
    table = _read_table(path, _ASV_SCORES, "ASV score")
    if "asv_label" not in table.columns:
        raise UserError(f"{path}, line 1: no ASV score file", "lines such as: bonafide target 18.2", "a header")
    label, score = np.array(table.columns["asv_label"]), _numbers(table, "score")
    known = {name: label == name for name in ("target", "nontarget", "spoof")}
    unknown = ~np.logical_or.reduce(list(known.values()))
    if unknown.any():
        row = int(np.argmax(unknown))
        raise table.error(row, "unknown ASV label", "target, nontarget or spoof", repr(label[row].item()))
    if missing := [name for name, rows in known.items() if not rows.any()]:
        raise UserError(f"{path}, lines 1–{table.lines[-1]}: no {missing[0]} trials", "target, nontarget and spoof")
    return AsvScores(*(score[rows] for rows in known.values()), frozenset(table.columns["attack"]) - _NO_ATTACK)


def read_asv_scores_2021(folder: str | Path, subset: str) -> AsvScores:
    """ASV scores of a subset from the ASVspoof 2021 keys' folder `ASV`; both its files list the same trials in order.

    Raises UserError, with the line number, for whatever cannot be read, and where the files differ.
    """
    key = _read_table(Path(folder) / "trial_metadata.txt", (_LA21,), "ASV trial")
    table = _read_table(Path(folder) / "ASVTorch_Kaldi" / "score.txt", (("speaker", "utt_id", "score"),), "ASV score")
    if any(list(table.columns[name]) != list(key.columns[name]) for name in ("speaker", "utt_id")):
        raise UserError(f"{table.path} lists other trials", f"those of {key.path.name}, in its order", "a difference")
    label, chosen = np.array(key.columns["key"]), np.array(key.columns["subset"]) == subset
    score, attacks = _numbers(table, "score"), np.array(key.columns["attack"])[chosen & (label == "spoof")]
    rows = [chosen & (label == name) for name in ("target", "nontarget", "spoof")]
    if not all(kind.any() for kind in rows):
        raise UserError(f"{key.path}: a kind of trial is missing in {subset}", "target, nontarget and spoof")
    return AsvScores(*(score[kind] for kind in rows), frozenset(attacks.tolist()))


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
